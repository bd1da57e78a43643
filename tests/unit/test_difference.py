# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A packet is in a box if and only if the two sides treat it differently; a change of one line is one box."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import yaml
from ansible.plugins.action import ActionBase
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.isp.hardening.plugins.module_utils import _difference_walk, packets, platforms
from ansible_collections.isp.hardening.plugins.module_utils.audit import audit, bound
from ansible_collections.isp.hardening.plugins.module_utils.difference import (
    Difference,
    Side,
    difference,
    sides,
    unchanged_beside,
)
from ansible_collections.isp.hardening.plugins.module_utils.filters import (
    DENY,
    PERMIT,
    UNKNOWN,
    Configuration,
    Entry,
    Filter,
    evaluate,
    matches,
)
from ansible_collections.isp.hardening.plugins.module_utils.policy import Attachment, read_attachments, read_policy
from ansible_collections.isp.hardening.plugins.module_utils.rules import compile_change
from ansible_collections.isp.hardening.plugins.plugin_utils.filter_side import side_text
from tests.conftest import Run
from tests.unit.cisco_like import renderer
from tests.unit.test_cases import ROOT, TODAY
from tests.unit.test_search import configurations, entries, header_sets, packet_in


def fate(side: Side, packet: packets.Packet) -> set[str]:
    possible = {PERMIT}
    for name in side.filters:
        here, _ = evaluate(side.configuration, 4, name, packet)
        possible = possible - {PERMIT} | here
        if PERMIT not in here:
            break
    return possible


def agrees(before: Side, after: Side, found: Difference, chance: random.Random) -> None:
    """The boxes against the naive evaluator, by random packets, and each box by its own."""
    assert not found.left_out
    lines = [
        match
        for side in (before, after)
        for one in side.configuration.filters.values()
        for entry in one.entries
        for match in entry.matches
    ] + [match for box in found.boxes for match in box.matches + box.but]
    for box in found.boxes:
        assert "report this" not in box.reason
        assert box.holds(box.packet)
        assert box.text
    for number in range(60):
        scope = found.boxes[number % len(found.boxes)].matches[0] if found.boxes and number % 3 == 0 else {}
        packet = packet_in(scope, chance.choice(lines) if lines else {}, chance)
        if not matches(packets.POSSIBLE[4], packet):
            continue
        was, now = fate(before, packet), fate(after, packet)
        held = [box for box in found.boxes if box.holds(packet)]
        assert len(held) <= 1
        if len(was) == len(now) == 1:
            assert [(box.before, box.after) for box in held] == ([] if was == now else [(was.pop(), now.pop())])
        else:
            assert [box.change for box in held] == ["unknown"]


@settings(max_examples=60, deadline=None)
@given(configurations(), configurations(), st.integers())
def test_a_packet_is_in_a_box_if_and_only_if_it_is_treated_differently(
    one: Configuration, other: Configuration, seed: int
) -> None:
    for stages in (("first",), ("first", "second"), ()):
        before, after = Side(one, stages, "a"), Side(other, stages or ("first",), "b")
        agrees(before, after, difference(before, after, 4, limit=10_000), random.Random(seed))


def test_lines_without_a_condition_lead_on_from_filter_to_filter() -> None:
    every = Entry(PERMIT, ({},), 1, "permit any")
    lists = {"doubt": replace(every, doubt="not understood"), "permit": every, "deny": replace(every, action=DENY)}
    configuration = Configuration({(4, name): Filter(name, 4, (entry,), DENY, 1) for name, entry in lists.items()})
    before = Side(configuration, ("doubt", "permit", "permit"), "a")
    for filters in ((), ("deny",), ("doubt", "permit", "deny")):
        after = Side(configuration, filters, "a")
        found = difference(before, after, 4, unchanged=True)
        assert [box.change for box in found.boxes] == ["unknown"]
        agrees(before, after, found, random.Random(1))


@settings(max_examples=60, deadline=None)
@given(configurations(), st.lists(header_sets(), min_size=1, max_size=2), st.integers(), st.booleans())
def test_one_line_more(configuration: Configuration, some: list[packets.Match], seed: int, permit: bool) -> None:
    chance = random.Random(seed)
    first = configuration.filters[4, "first"]
    place = chance.randrange(len(first.entries) + 1)
    line = Entry(PERMIT if permit else DENY, tuple(some), 1, "line")
    longer = replace(first, entries=(*first.entries[:place], line, *first.entries[place:]))
    before = Side(configuration, ("first", "second"), "a")
    after = Side(Configuration({**configuration.filters, (4, "first"): longer}), ("first", "second"), "b")
    agrees(before, after, difference(before, after, 4, limit=10_000), chance)


@settings(max_examples=100, deadline=None)
@given(configurations())
def test_what_is_the_same_makes_no_box_whatever_is_in_doubt(configuration: Configuration) -> None:
    for stages in (("first",), ("first", "second")):
        side = Side(configuration, stages, "a")
        assert not difference(side, side, 4, unchanged=True)


@settings(max_examples=100, deadline=None)
@given(entries(()).filter(lambda lines: not any(line.doubt or line.action == UNKNOWN for line in lines)))
def test_a_rewrite_makes_no_box(lines: tuple[Entry, ...]) -> None:
    """Entries cut into their matches, doubled behind themselves, and renumbered."""
    cut = [replace(line, matches=(match,), line=7) for line in lines for match in line.matches]
    doubled = [one for line in cut for one in (line, line)]
    sides = [
        Side(Configuration({(4, "x"): Filter("x", 4, tuple(chosen), DENY, 1)}), ("x",), "a")
        for chosen in (lines, doubled)
    ]
    assert not difference(sides[0], sides[1], 4)


IOS = platforms.load("cisco_ios")
LIST = """hostname r
object-group network RELAYS
 host 192.0.2.25
 host 192.0.2.26
!
ip access-list extended UP
 10 deny tcp any any eq 135
 20 deny udp any any range 137 139
 30 permit tcp host 198.51.100.7 any eq smtp
 40 permit tcp 198.51.100.0 0.0.0.127 object-group RELAYS eq smtp
 50 deny tcp any any eq smtp
 60 permit ip 198.51.100.0 0.0.0.127 any
 70 permit udp host 0.0.0.0 any eq bootps
end
"""


def compared(before: str, after: str, family: int = 4, **options: int) -> Difference:
    sides = [Side(IOS.parse(text), ("UP",), "cisco_ios") for text in (before, after)]
    return difference(sides[0], sides[1], family, unchanged=unchanged_beside(before, after, sides), **options)


@pytest.mark.parametrize(
    ("old", "new", "change", "lines"),
    [
        (" 50 deny tcp any any eq smtp\n", "", "denied, now permitted", (50, 60)),
        (" 10 deny tcp any any eq 135\n", " 10 deny tcp any any range 135 136\n", "permitted, now denied", (60, 10)),
        (" 20 deny udp any any range 137 139\n", " 20 deny udp any any eq 138\n", "denied, now permitted", (20, 60)),
        ("host 198.51.100.7 any eq smtp", "198.51.100.0 0.0.0.127 any eq smtp", "denied, now permitted", (50, 30)),
        (
            " 60 permit ip 198.51.100.0 0.0.0.127",
            " 60 permit ip 198.51.100.0 0.0.0.255",
            "denied, now permitted",
            (0, 60),
        ),
        (" host 192.0.2.26\n", "", "permitted, now denied", (40, 50)),
        (" 50 deny tcp any any eq smtp\n", " 50 deny tcp any any eq smtp syn\n", "denied, now permitted", (50, 60)),
        (
            " 70 permit udp host 0.0.0.0 any eq bootps\n",
            " 70 permit udp host 0.0.0.0 any\n",
            "denied, now permitted",
            (0, 70),
        ),
    ],
)
def test_one_change_is_one_box(old: str, new: str, change: str, lines: tuple[int, int]) -> None:
    assert LIST.count(old) == 1
    found = compared(LIST, LIST.replace(old, new))
    assert [box.change for box in found.boxes] == [change]
    [box] = found.boxes
    decided = [int(side[-1].text.split()[0]) if side else 0 for side in (box.lines_before, box.lines_after)]
    assert tuple(decided) == lines


def test_renumbered_regrouped_and_in_other_words_is_the_same() -> None:
    other = LIST.replace(" 30 ", " 31 ").replace("any any eq 135", "any any range msrpc 135")
    other = other.replace("any any range 137 139", "any any range netbios-ns netbios-ss")
    other = other.replace(" 20 deny", " 15 deny udp any any eq 138\n 20 deny")
    assert not compared(LIST, other)


def test_a_line_that_is_not_understood_is_unknown_and_has_its_line() -> None:
    found = compared(LIST, LIST.replace(" 50 deny tcp any any eq smtp", " 50 deny tcp any any eq smtp frobnicate"))
    assert {box.change for box in found.boxes} == {"unknown"}
    assert all(
        f"line {LIST.splitlines().index(' 50 deny tcp any any eq smtp') + 1}" in one.reason for one in found.boxes
    )


def test_the_same_doubt_on_both_sides_is_one_unless_something_else_changed() -> None:
    doubtful = LIST.replace(" 10 deny tcp any any eq 135", " 10 deny tcp any any eq 135 frobnicate")
    assert not compared(doubtful, doubtful.replace(" 20 deny udp", " 25 deny udp"))
    beside = compared(doubtful, doubtful.replace(" host 192.0.2.25\n", " host 192.0.2.25\n host 192.0.2.25\n"))
    assert {box.change for box in beside.boxes} == {"unknown"}


def test_a_limit_is_told() -> None:
    """Every second address: as many boxes as there are ports, and no more are told than asked for."""
    lines = "".join(f" {100 + 2 * port} permit tcp host 203.0.113.{port} any eq {port}\n" for port in range(1, 41))
    found = compared(LIST, LIST.replace(" 10 deny", f"{lines} 5000 deny"), limit=10)
    assert len(found.boxes) == 10
    assert sum(found.left_out.values()) >= 25


def test_what_is_too_much_is_not_told_to_be_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(1)
    lines = "".join(
        f" {number * 10} {chance.choice(['permit', 'deny'])} ip 198.51.100.{chance.randrange(256)} 0.0.0."
        f"{chance.randrange(256)} 198.51.100.{chance.randrange(256)} 0.0.0.{chance.randrange(256)}\n"
        for number in range(1, 200)
    )
    text = f"hostname r\nip access-list extended UP\n{lines}end\n"
    monkeypatch.setattr(_difference_walk, "WORK_LIMIT", 20_000)
    found = compared(text, text.replace("end\n", " 9990 permit ip any any\nend\n"))
    assert any("not compared" in box.reason for box in found.boxes)


def test_ten_thousand_lines_and_one_that_differs_are_little_work() -> None:
    chance = random.Random(3)
    numbers = random.Random(4).sample(range(1 << 24, 200 << 24), 10_000)
    lines = [
        f" {10 * number} permit tcp host 198.51.100.{chance.randrange(128)} host "
        f"{packets.address_text(other, 4)} eq {chance.choice([22, 80, 443])}\n"
        for number, other in enumerate(numbers, 1)
    ]
    text = f"hostname r\nip access-list extended UP\n{''.join(lines)}end\n"
    sides = [Side(IOS.parse(one), ("UP",), "cisco_ios") for one in (text, text.replace(lines[5000], ""))]
    [box] = difference(sides[0], sides[1], 4).boxes
    assert box.change == "permitted, now denied"
    assert box.lines_before[-1].line == 5003


def test_the_words_of_a_box() -> None:
    said = {
        " 50 deny tcp any any eq smtp\n": "tcp from 198.51.100.0-198.51.100.6, 198.51.100.8-198.51.100.127 to any but "
        "192.0.2.25-192.0.2.26 port 25",
        " 20 deny udp any any range 137 139\n": "udp from 198.51.100.0/25 to any ports 137-139",
    }
    for old, text in said.items():
        [box] = compared(LIST, LIST.replace(old, "")).boxes
        assert sorted(box.text.replace(",", "").split()) == sorted(text.replace(",", "").split())
    wider = LIST.replace(" 60 permit ip 198.51.100.0 0.0.0.127", " 60 permit ip 198.51.100.0 0.0.0.255")
    [box] = compared(LIST, wider).boxes
    assert box.text == (
        "any protocol from 198.51.100.128/25 to any; but not tcp from 198.51.100.128/25 to any ports 25, 135; "
        "nor udp from 198.51.100.128/25 to any ports 137-139"
    )


@pytest.mark.parametrize("family", [4, 6])
def test_what_the_role_writes_for_two_vendors_differs_nowhere_that_is_documented(family: int) -> None:
    policy, problems = read_policy(yaml.safe_load((ROOT / "policy.yml").read_text())["isp_policy"], TODAY)
    assert policy, problems
    places = {"cisco_ios": "Virtual-Template1", "arista_eos": "Ethernet1"}
    for direction in ("up", "down"):
        found = []
        for name, place in places.items():
            platform = platforms.load(name)
            change = compile_change(policy, [Attachment(place, ("residential",))])
            configuration = platform.parse(renderer(name).render(platform.fields(change)))
            binding = bound(configuration, place, direction, family)
            assert binding
            found.append(Side(configuration, binding.filters, name))
        for box in difference(found[0], found[1], family).boxes:
            assert box.change == "unknown"
            assert "not documented" in box.reason


PLACES = {
    "arista_eos": ("Ethernet1", "Ethernet2"), "cisco_ios": ("Virtual-Template1", "Virtual-Template2"),
    "cisco_iosxr": ("Bundle-Ether1.100", "Bundle-Ether1.200"), "cisco_nxos": ("Ethernet1/1", "Ethernet1/2"),
    "huawei_vrp": ("GigabitEthernet0/0/1.100", "GigabitEthernet0/0/1.200"),
    "juniper_junos": ("ge-0/0/1.100", "ge-0/0/1.200"), "linux_nftables": ("ppp*", "eth2"),
    "mikrotik_routeros": ("ether2", "ether3"), "nokia_sros": ("sla-profile RES", "sla-profile GOLD"),
    "vyos": ("eth2", "eth3"),
}  # fmt: skip


def test_every_platform_has_two_places_here() -> None:
    assert sorted(PLACES) == platforms.names()


@pytest.mark.parametrize("name", sorted(PLACES))
def test_what_a_policy_would_have_written_is_read_and_keeps_it(name: str) -> None:
    tree = yaml.safe_load((ROOT / "policy.yml").read_text())["isp_policy"]
    attachments = [{"name": place, "pools": ["residential"]} for place in PLACES[name]]
    side = {"policy": tree, "attachments": attachments, "platform": name}
    text, platform = side_text(cast(ActionBase, None), side, {}, {})
    policy, _ = read_policy(tree, TODAY)
    assert policy
    places, _ = read_attachments(attachments, policy)
    configuration = platform.parse(text, PLACES[name])
    found = audit(configuration, policy, places, "r1", platform.LINK_LOCAL)
    assert {one.verdict for one in found if one.control.startswith("P")} == {"compliant"}


def test_a_text_of_another_platform_says_which_side_it_is() -> None:
    question = {"filter": "UP", "attachment": None, "direction": None}
    ios, junos = platforms.load("cisco_ios"), platforms.load("juniper_junos")
    with pytest.raises(ValueError, match=r"^after: this does not look like a Junos configuration"):
        sides((LIST, ios), ("", junos), [question, question], 4)


def test_the_module_compares_files_and_what_the_role_would_write(run: Run, tmp_path: Path) -> None:
    (tmp_path / "before.cfg").write_text(LIST)
    (tmp_path / "after.cfg").write_text(LIST.replace(" 50 deny tcp any any eq smtp\n", ""))
    sides = {name: {"config": str(tmp_path / f"{name}.cfg"), "platform": "cisco_ios"} for name in ("before", "after")}

    def ask(arguments: dict[str, object]) -> str:
        command = ("ansible", "localhost", "-m", "isp.hardening.filter_diff", "-a", json.dumps(arguments))
        return run(*command).stdout

    answer = ask({**sides, "filter": "UP"})
    assert '"change": "denied, now permitted"' in answer
    assert ":49152 > 203.0.113.9:25 SYN" in answer
    assert "before: there is no IPv4 filter 'DOWN'; there are: UP" in ask({**sides, "filter": "DOWN"})
    policy = yaml.safe_load((ROOT / "policy.yml").read_text())["isp_policy"]
    place = {"name": "Virtual-Template1", "pools": ["residential"]}
    ours = {"policy": policy, "attachments": [place], "platform": "cisco_ios"}
    theirs = {
        **ours,
        "platform": "arista_eos",
        "attachments": [{**place, "name": "Ethernet1"}],
        "attachment": "Ethernet1",
    }
    written = ask({"before": ours, "after": theirs, "attachment": "Virtual-Template1", "direction": "down"})
    assert '"left_out": {}' in written  # whatever is not documented is unknown
    assert "now permitted" not in written
    assert "now denied" not in written
