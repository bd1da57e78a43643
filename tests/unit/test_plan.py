# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a plan leads to, over the wrong but plausible configurations, and what is refused before a line is sent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from ansible_collections.isp.hardening.plugins.module_utils.audit import audit
from ansible_collections.isp.hardening.plugins.module_utils.filters import Configuration
from ansible_collections.isp.hardening.plugins.module_utils.findings import COMPLIANT, Finding
from ansible_collections.isp.hardening.plugins.module_utils.plan import (
    OURS,
    Management,
    Plan,
    Refused,
    Render,
    _keeps_session,
    all_same,
    in_force,
    propose,
)
from ansible_collections.isp.hardening.plugins.module_utils.rules import Bind
from tests.unit.cisco_like import renderer
from tests.unit.test_cases import CASES, ROOT, Case, read

# Both take a change line by line into a configuration of which our filters are a part.
KINDS = ("cisco_ios", "arista_eos")
CHOSEN = [case for case in CASES if case.parent.name in KINDS]
IOS = ROOT / "cisco_ios"


def wrong(findings: Sequence[Finding]) -> list[Finding]:
    """What a push can mend, and has to: what RADIUS sends is beyond it."""
    places = [one for one in findings if ", sessions with " not in one.attachment]
    return [one for one in places if one.verdict != COMPLIANT and one.control.startswith("P")]


def parsed(case: Case, text: str) -> Configuration:
    return case.platform.parse(text, [one.name for one in case.attachments])  # type: ignore[no-any-return]


def audited(case: Case, text: str) -> list[Finding]:
    return audit(parsed(case, text), case.policy, case.attachments, "case", case.platform.LINK_LOCAL)


def plan(
    case: Case, replace_foreign: bool = True, render: Render | None = None, management: Management | None = None
) -> Plan:
    attachments = [replace(one, replace_foreign=replace_foreign) for one in case.attachments]
    usual = renderer(case.platform.__name__.rpartition(".")[2]).render
    return propose(case.platform, case.text, case.policy, attachments, case.findings, render or usual, management)


def edited(case: Case, old: str, new: str) -> Case:
    """The case with another text."""
    assert case.text.count(old) == 1
    text = case.text.replace(old, new)
    return replace(case, text=text, findings=audited(case, text))


def absent(case: Case) -> bool:
    return any(one.name not in parsed(case, case.text).interfaces for one in case.attachments)


@pytest.mark.parametrize("path", CHOSEN, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_the_plan_makes_everything_right(path: Path) -> None:
    case = read(path)
    if absent(case):
        with pytest.raises(Refused, match="correct isp_attachments"):
            plan(case)
        return
    found = plan(case)
    assert bool(found.lines) == bool(wrong(case.findings))
    after = audited(case, found.predicted)
    assert wrong(after) == []
    assert found.kept == ()
    assert case.platform.incomplete(found.predicted) == ""
    # A second run finds nothing to do.
    assert plan(replace(case, text=found.predicted, findings=after)).lines == ()


@pytest.mark.parametrize("path", CHOSEN, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_foreign_filters_stay_and_that_is_said(path: Path) -> None:
    case = read(path)
    if absent(case):
        return
    found = plan(case, replace_foreign=False)
    before, after = in_force(parsed(case, case.text)), in_force(parsed(case, found.predicted))
    list_direction = {"up": "in", "down": "out"}
    kept = []
    for one in wrong(case.findings):
        place = one.attachment, list_direction[one.direction], one.family
        if place in before:
            kept.append(f"{one.attachment} keeps the foreign filter {before[place][0].name} ({place[1]}, IPv{place[2]}")
        else:
            assert after[place][0].name.startswith(OURS)
    assert all(all_same(after[place], filters) for place, filters in before.items())
    assert len(found.kept) == len(set(kept))
    assert all(any(said.startswith(one) for said in found.kept) for one in kept)


@pytest.mark.parametrize(
    "path", [one for one in CHOSEN if "findings: []" in (one / "findings.yml").read_text()], ids=lambda path: path.name
)
def test_right_in_other_words_gives_no_lines(path: Path) -> None:
    case = read(path)
    assert plan(case) == Plan((), case.text, frozenset(), ())


def test_a_template_that_opens_port_25_is_refused_with_the_packet() -> None:
    case = read(IOS / "02-defined-never-bound")
    template = renderer("cisco_ios")

    def careless(fields: dict[str, object]) -> str:
        return template.render(fields).replace(" deny tcp any any eq 25", " permit tcp any any eq 25")

    with pytest.raises(Refused, match=r"tcp 198\.51\.100\.7:49152 > 203\.0\.113\.9:25 SYN.*permit tcp any any eq 25"):
        plan(case, render=careless)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (" permit ip any any", " allow ip any any", "is not understood"),
        ("interface Virtual-Template1", "interface Virtual-Template9", "no such place"),
        (" permit ip any any", " permit ip any any nonsense", "does not prove"),
        (" deny tcp any any eq 25\n", "", "does not prove"),
        (" permit tcp ", " deny tcp ", "smarthosts are permitted"),
    ],
)
def test_a_template_with_a_mistake_is_refused(old: str, new: str, reason: str) -> None:
    case = read(IOS / "05-no-ipv6-filter")
    case = edited(case, " ip access-group RES-OUT4 out\n", "")
    template = renderer("cisco_ios")
    with pytest.raises(Refused, match=reason):
        plan(case, render=lambda fields: template.render(fields).replace(old, new))


def test_a_template_that_renders_nothing_is_refused() -> None:
    with pytest.raises(Refused, match="renders nothing"):
        plan(read(IOS / "02-defined-never-bound"), render=lambda _: "")


SESSION = Management(controller="192.0.2.9", router="192.0.2.1", port=22)


def test_a_plan_that_would_cut_the_session_is_refused() -> None:
    """The controller sits among the subscribers, with an address that is not of the pool."""
    path = IOS / "13-bound-on-the-port-not-the-subinterface"
    own = " ip address 198.51.100.1 255.255.255.128\n"
    case = edited(read(path), own, f"{own} ip address 192.0.2.1 255.255.255.0 secondary\n")
    with pytest.raises(Refused, match=r"would cut the session.*192\.0\.2\.9:\d+ > 192\.0\.2\.1:22"):
        plan(case, management=SESSION)
    assert plan(read(path), management=SESSION).lines


def test_an_edited_filter_of_our_own_gets_a_new_name_and_goes() -> None:
    case = read(IOS / "28-our-own-rendering")
    bound = in_force(parsed(case, case.text))
    name = bound["Virtual-Template1", "in", 4][0].name
    header = f"ip access-list extended {name}\n"
    case = edited(case, header, f"{header} permit tcp host 198.51.100.7 any eq 25\n")
    found = plan(case, replace_foreign=False)
    assert f"no ip access-list extended {name}" in found.lines
    after = in_force(parsed(case, found.predicted))
    assert after["Virtual-Template1", "in", 4][0].name.startswith(f"{name}-")
    changed = {place for place, filters in bound.items() if after[place][0].name != filters[0].name}
    assert changed == {("Virtual-Template1", "in", 4)}
    assert wrong(audited(case, found.predicted)) == []


def test_filters_that_are_there_already_are_bound_and_not_written_again() -> None:
    case = read(IOS / "28-our-own-rendering")
    name = in_force(parsed(case, case.text))["Virtual-Template1", "out", 6][0].name
    case = edited(case, f" ipv6 traffic-filter {name} out\n", "")
    found = plan(case)
    assert found.lines == ("interface Virtual-Template1", f"ipv6 traffic-filter {name} out", "exit")


def test_left_over_filters_of_ours_go_and_those_in_use_stay() -> None:
    case = read(IOS / "02-defined-never-bound")
    case = edited(
        case,
        "ip access-list extended RES-IN4\n",
        "ip access-list extended ISP-UP4-00000000\n 10 permit ip any any\n"
        "ip access-list extended ISP-UP4-11111111\n 10 permit ip any any\n"
        "ip access-list extended RES-IN4\n",
    )
    case = edited(
        case,
        "interface GigabitEthernet0/0/0\n",
        "interface GigabitEthernet0/0/0\n ip access-group ISP-UP4-11111111 in\n",
    )
    found = plan(case)
    assert found.lines[-1] == "no ip access-list extended ISP-UP4-00000000"
    assert "no ip access-list extended ISP-UP4-11111111" not in found.lines
    assert (4, "ISP-UP4-11111111") in parsed(case, found.predicted).filters


def test_a_list_of_the_operator_stays_though_its_name_begins_as_ours() -> None:
    case = read(IOS / "02-defined-never-bound")
    own = "ip access-list extended ISP-MGMT\n 10 permit ip any any\n"
    case = edited(case, "ip access-list extended RES-IN4\n", f"{own}ip access-list extended RES-IN4\n")
    assert not any("ISP-MGMT" in line for line in plan(case).lines)  # a line of the vty may need it
    bound = "interface Virtual-Template1\n"
    case = edited(case, bound, f"{bound} ip access-group ISP-MGMT in\n")
    found = plan(case, replace_foreign=False)
    assert any(said.startswith("Virtual-Template1 keeps the foreign filter ISP-MGMT") for said in found.kept)


def test_a_new_name_is_one_that_nothing_has() -> None:
    case = read(IOS / "28-our-own-rendering")
    name = in_force(parsed(case, case.text))["Virtual-Template1", "in", 4][0].name
    header = f"ip access-list extended {name}\n"
    others = "".join(f"ip access-list extended {name}-{number}\n permit ip any any\n" for number in (2, 3))
    case = edited(case, header, f"{others}{header} permit tcp host 198.51.100.7 any eq 25\n")
    found = plan(case)
    assert in_force(parsed(case, found.predicted))["Virtual-Template1", "in", 4][0].name == f"{name}-1"
    case = edited(case, f"ip access-list extended {name}-2\n", f"ip access-list extended {name}-1\n")
    found = plan(case)
    assert in_force(parsed(case, found.predicted))["Virtual-Template1", "in", 4][0].name == f"{name}-2"


def careless(platform: ModuleType, steps: Sequence[tuple[str, str]]) -> ModuleType:
    """The platform, but its apply goes over other states first: each with something replaced in the text."""

    def apply(running: str, lines: Sequence[str]) -> Iterator[str]:
        text = running
        for old, new in steps:
            assert old in text
            text = text.replace(old, new)
            yield text
        yield from platform.apply(running, lines)

    other = ModuleType(platform.__name__)
    other.__dict__.update(platform.__dict__)
    other.__dict__["apply"] = apply
    return other


@pytest.mark.parametrize(
    "steps",
    [
        # the list is taken away while it is bound
        [("ip access-list extended RES-IN4\n", "ip access-list extended RES-NEW\n")],
        # it is emptied line by line
        [(" 20 deny tcp any any eq msrpc\n 30 deny tcp any any range 137 139\n 40", " 40")],
        # it is unbound first
        [(" ip access-group RES-IN4 in\n", "")],
        # the binding goes over another list
        [(" ip access-group RES-IN4 in\n", " ip access-group RES-OUT4 in\n")],
        # something elsewhere changes, too
        [(" 10 permit ip any any\n", " 10 deny tcp any any eq 25\n 20 permit ip any any\n")],
    ],
    ids=("deleted", "emptied", "unbound", "rebound", "elsewhere"),
)
def test_no_place_is_ever_without_the_old_or_the_new_filter(steps: list[tuple[str, str]]) -> None:
    case = read(IOS / "07-established-above")
    case = edited(
        case,
        "interface GigabitEthernet0/0/0\n",
        "ip access-list extended CORE-IN\n 10 permit ip any any\n!\n"
        "interface GigabitEthernet0/0/0\n ip access-group CORE-IN in\n",
    )
    assert plan(case).lines
    with pytest.raises(Refused, match=r"after step 1 of the push .* neither the old filter nor the new one"):
        plan(replace(case, platform=careless(case.platform, steps)))


def test_a_line_that_is_renumbered_on_the_way_is_the_same_filter() -> None:
    case = read(IOS / "07-established-above")
    steps = [(" 15 permit tcp any any established\n", " 17 permit tcp any any established\n 18 remark CHG-0912\n")]
    assert plan(replace(case, platform=careless(case.platform, steps))).lines


def test_a_session_over_a_link_local_address_is_looked_at_too() -> None:
    case = read(IOS / "28-our-own-rendering")
    found = parsed(case, case.text)
    name = "Virtual-Template1"
    interface = replace(found.interfaces[name], prefixes=("fe80::1/64",))
    after = replace(found, interfaces={name: interface})
    binds = [Bind(name, direction, 6, "") for direction in ("up", "down")]
    _keeps_session(after, binds, Management("fe80::9%eth0", "fe80::1%eth0", 22))
    with pytest.raises(Refused, match="would cut the session"):
        _keeps_session(after, binds, Management("fe80::9%eth0", "fe80::1%eth0", 25))
