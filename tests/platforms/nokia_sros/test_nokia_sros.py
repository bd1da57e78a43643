# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""SR OS: what is rendered means the rules, all forms mean the same, no text is too broken to be told so, and a push."""

from __future__ import annotations

import contextlib
import random
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible import constants
from ansible.playbook.play_context import PlayContext
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.isp.hardening.plugins.connection.netmiko import DOCUMENTATION, Connection
from ansible_collections.isp.hardening.plugins.module_utils.filters import (
    DENY,
    PERMIT,
    Configuration,
    NotThisPlatform,
    evaluate,
)
from ansible_collections.isp.hardening.plugins.module_utils.plan import Refused, restoring, same_in_force
from ansible_collections.isp.hardening.plugins.module_utils.platforms import load, nokia_sros
from ansible_collections.isp.hardening.plugins.module_utils.push import push, read
from ansible_collections.isp.hardening.plugins.module_utils.rules import Bind, Change, Rule, RuleSet
from lab import sros_tree
from lab.judge import Packet
from lab.routers.nokia_sros import Device
from lab.server import LOOPBACK, Access, serve
from tests.unit.cisco_like import meaning, packets, renderer, rule_sets
from tests.unit.pushes import MINUTES, calm, cases

CASES = Path(__file__).parent
RES = "sla-profile RES"
SAP = "service ies internet interface shop sap 1/1/3:300"
TEMPLATE = renderer("nokia_sros")
CASE = next(case for case in cases() if case.network_os == "nokia_sros")
BARE = yaml.safe_load((CASES / "bare.yml").read_text())["running"]


def rendered(change: Change) -> list[str]:
    return nokia_sros.lines(TEMPLATE.render(nokia_sros.fields(change)))


def committed(running: str, lines: list[str]) -> str:
    (text,) = nokia_sros.apply(running, lines)
    return text


# --- What is rendered means the rules


@settings(max_examples=120, deadline=None)
@given(data=st.data(), family=st.sampled_from([4, 6]))
def test_what_is_rendered_means_the_rules(data: st.DataObject, family: int) -> None:
    """For the parser as for the lab's router, which finds the upper-layer header behind extension headers."""
    rule_set = data.draw(rule_sets(family))
    change = Change((rule_set,), (Bind(RES, "up", family, rule_set.name),))
    lines = rendered(change)
    text = committed(BARE, lines)
    configuration = nokia_sros.parse(text)
    (binding,) = configuration.bindings
    assert (binding.attachment, binding.direction, binding.filters) == (RES, "in", (rule_set.name,))
    router = Device("r", BARE)
    for line in ("configure exclusive", *lines, "validate", "commit"):
        assert not re.search("|".join(nokia_sros.REJECTED), router.execute(line), re.MULTILINE), line
    for packet in data.draw(st.lists(packets(family, plain=False), min_size=1, max_size=12)):
        expected = meaning(rule_set, packet, later_on_layer3=False)
        actions, _ = evaluate(configuration, family, rule_set.name, packet)
        if packet["extension"]:
            # Dropped by the first header, or judged by what is behind it.
            assert actions == {DENY, expected}
            continue
        # A range of ports from 0 on may match later fragments.
        assert expected in actions
        assert len(actions) == 1 or packet["fragment"] & 2
        judged = router.judge(RES, "up", Packet(family=family, **packet))
        assert judged == expected


def test_later_fragments_cannot_be_told_on_egress() -> None:
    strict = Rule(DENY, "tcp", later_fragments=True, comment="strict")
    told = {
        direction: rendered(Change((RuleSet("ISP-X", 4, direction, (strict, Rule(PERMIT))),), ()))
        for direction in ("up", "down")
    }
    assert '/configure filter ip-filter "ISP-X" entry 10 match fragment non-first-only' in told["up"]
    assert '/configure filter ip-filter "ISP-X" entry 10 match fragment true' in told["down"]


@pytest.mark.parametrize(
    ("rule", "family", "told"),
    [
        (Rule(DENY, undetermined=True, comment="strict"), 6, "no criterion for it"),
        (Rule(PERMIT, "tcp", later_fragments=True), 4, "cannot tell on egress"),
        (Rule(DENY, destination_ports=((25, 25),)), 4, "set its protocol to tcp or udp"),
        (Rule(DENY, "tcp", icmp=((3, 4),)), 4, "set its protocol to icmp"),
    ],
)
def test_a_rule_that_sros_cannot_express_is_refused(rule: Rule, family: int, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        rendered(Change((RuleSet("ISP-X", family, "down", (rule, Rule(PERMIT))),), ()))


@pytest.mark.parametrize(
    "attachment",
    ["", "RES", "sla-profile", "sla-profile A B", "router Base", "service ies internet interface shop",
     "service vpls x sap 1/1/1:3", "service ies a subscriber-interface b sap 1/1/1:3", "interface to-core"],
)  # fmt: skip
def test_a_place_where_no_filter_can_be_bound_is_refused(attachment: str) -> None:
    chosen = RuleSet("ISP-X", 4, "up", (Rule(PERMIT),))
    with pytest.raises(ValueError, match="no filter can be bound to attachment"):
        rendered(Change((chosen,), (Bind(attachment, "up", 4, chosen.name),)))


def test_every_kind_of_place_is_bound_where_it_is_read() -> None:
    chosen = RuleSet("ISP-X", 6, "down", (Rule(PERMIT),))
    places = [
        RES, SAP, "router Base interface to-core1", 'service vprn red interface "cust 1" spoke-sdp 12:300',
        "service ies internet subscriber-interface homes group-interface pon-1 sap 1/1/2:100",
    ]  # fmt: skip
    text = committed(BARE, rendered(Change((chosen,), tuple(Bind(one, "down", 6, "ISP-X") for one in places))))
    assert sorted(one.attachment for one in nokia_sros.parse(text).bindings) == sorted(places)
    assert {(one.direction, one.family, one.filters) for one in nokia_sros.parse(text).bindings} == {
        ("out", 6, ("ISP-X",))
    }


# --- All forms mean the same


def meaning_of(configuration: Configuration) -> Any:
    """All of it without its line numbers."""
    return (
        {
            key: (one.default, [(entry.action, entry.matches, entry.text, entry.doubt) for entry in one.entries])
            for key, one in configuration.filters.items()
        },
        {(one.attachment, one.direction, one.family, one.filters) for one in configuration.bindings},
        {name: (one.prefixes, one.shutdown, bool(one.source_check)) for name, one in configuration.interfaces.items()},
    )


def test_braces_and_flat_lines_mean_the_same() -> None:
    router = Device("r", CASE.old)
    whole = nokia_sros.parse(router.snapshot())
    flat = "".join(f"/configure {line}\n" for line in sros_tree.flat(router.running))
    assert meaning_of(nokia_sros.parse(flat)) == meaning_of(whole)
    assert nokia_sros.incomplete(flat) == ""


def test_the_classic_form_means_the_same() -> None:
    classic = nokia_sros.parse((CASES / "27-equivalent-classic" / "running.cfg").read_text())
    braces = nokia_sros.parse((CASES / "10-names-and-numbers" / "running.cfg").read_text())
    assert meaning_of(classic)[:2] == meaning_of(braces)[:2]


def test_names_of_other_ecosystems() -> None:
    for name in ("nokia.sros.md", "nokia_sros", "sros", "nokia.sros.classic"):
        assert load(name) is nokia_sros


# --- No text is too broken to be told so


WHOLE = [
    CASE.router().snapshot(),
    (CASES / "27-equivalent-classic" / "running.cfg").read_text(),
    (CASES / "26-equivalent-flat" / "running.cfg").read_text(),
]


@pytest.mark.parametrize("text", WHOLE, ids=["braces", "classic", "flat"])
def test_a_text_that_was_cut_off_is_told(text: str) -> None:
    assert nokia_sros.incomplete(text) == ""
    end = text.index("# Finished")
    for position in range(0, end, max(1, end // 60)):
        assert nokia_sros.incomplete(text[:position])
        with contextlib.suppress(NotThisPlatform):
            nokia_sros.parse(text[:position])
    rows = text.splitlines(keepends=True)
    for position in range(0, len(rows) - 1, max(1, len(rows) // 40)):
        assert nokia_sros.incomplete("".join(rows[:position]))


WORDS = (
    'configure /configure { } [ ] " filter ip-filter ipv6-filter entry match action drop accept forward protocol tcp '
    "next-header dst-port eq range start end 25 port-list src-ip address mask 10.0.0.1 10.0.0.0/8 2001:db8::/32 embed "
    "offset embed-filter default-action system name router Base interface service ies sap exit create delete "
    "sla-profile ingress egress subscriber-mgmt groups apply-groups # MINOR: [/] fragment true \u00b2 \x00 -1 "
    "99999999999"
).split()


@settings(max_examples=150, deadline=None)
@given(st.one_of(
    st.text(max_size=200),
    st.lists(st.tuples(st.integers(0, 3), st.lists(st.sampled_from(WORDS), max_size=9)), max_size=25).map(
        lambda rows: "\n".join("    " * indent + " ".join(words) for indent, words in rows)
    ),
))  # fmt: skip
def test_nothing_that_looks_like_a_configuration_breaks_it(text: str) -> None:
    nokia_sros.incomplete(text)
    for whole in (text, f"configure {{\n{text}\n}}\n", f"exit all\nconfigure\n{text}\nexit all\n"):
        with contextlib.suppress(NotThisPlatform):
            nokia_sros.parse(whole)


def test_a_garbled_word_is_unknown_or_changes_what_it_says() -> None:
    """No word of an entry's match or action is passed over: each that is garbled leaves its mark."""
    text = (CASES / "10-names-and-numbers" / "running.cfg").read_text()
    rows = text.splitlines()
    first = rows.index('        ip-filter "UP4" {')
    last = rows.index('        ipv6-filter "UP6" {')
    plain = nokia_sros.parse(text)
    chance = random.Random(1)
    for number in chance.sample(range(first + 1, last), 60):
        words = rows[number].split()
        if len(words) < 2 or words[0] in ("entry", "description"):
            continue
        for place in range(len(words) - (words[-1] == "{")):
            garbled = [*words[:place], f"{words[place].strip(chr(34))}x", *words[place + 1 :]]
            broken = "\n".join([*rows[:number], "    " + " ".join(garbled), *rows[number + 1 :]])
            try:
                other = nokia_sros.parse(broken)
            except NotThisPlatform:
                continue
            assert meaning_of(other) != meaning_of(plain), garbled


_FLAT = (
    'configure {\n    router "Base" { }\n    system { name "r" }\n}\n'
    '/configure filter ip-filter "A" default-action drop\n'
    '/configure filter ip-filter "A" entry 10 match protocol udp\n'
    '/configure filter ip-filter "A" entry 10 action accept\n'
)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [(' ip-filter "A" entry 10 action', ' ip-fil~^ter "A" entry 10 action'),
     ('"A" entry 10 action', '"A\u00a7%" entry 10 action'), ("action accept", "ac~^n accept"),
     ("action drop", "action dr~^p"), ("udp\n", "udp"), ("udp\n", "udp ")],
)  # fmt: skip
def test_a_garbled_line_is_told(right: str, wrong: str) -> None:
    """Where the filter would only lack what the line said."""
    plain, other = nokia_sros.parse(_FLAT), nokia_sros.parse(_FLAT.replace(right, wrong, 1))
    assert not plain.doubts
    assert plain.filters[4, "A"].entries
    assert other.doubts or any(entry.doubt for entry in other.filters[4, "A"].entries)


def test_filters_within_filters_within_blocks_have_an_end() -> None:
    blocks = "a {\n" * 3000
    deep = f'configure {{\nsystem {{ name "r" }}\nrouter "Base" {{ }}\nfilter {{\n{blocks}{"}" * 3000}\n}}\n}}\n'
    assert any("too many blocks" in doubt.reason for doubt in nokia_sros.parse(deep).doubts)
    ring = "".join(
        f'/configure filter ip-filter "F{number}" embed filter "F{(number + 1) % 500}" offset 0 {{ }}\n'
        for number in range(500)
    )
    entries = [one.entries for one in nokia_sros.parse(_FLAT + ring).filters.values() if one.name != "A"]
    assert all(len(some) == 1 and some[0].doubt for some in entries)


@pytest.mark.parametrize(
    "text",
    ["interfaces {\n    ge-0/0/0 {\n        unit 0;\n        disable;\n        mtu 9000;\n    }\n}\n",
     "hostname r1\ninterface GigabitEthernet0/0\n ip address 192.0.2.1 255.255.255.0\nend\n", "", "hello"],
)  # fmt: skip
def test_what_is_of_another_platform_is_not_taken(text: str) -> None:
    assert nokia_sros.incomplete(text)
    with pytest.raises(NotThisPlatform):
        nokia_sros.parse(text)


def test_what_is_incomplete_says_why() -> None:
    whole = CASE.router().snapshot()
    refused = "                    ^\nError: Bad command.\n\nMINOR: MGMT_CORE #2201: Unknown element - 'x'\n"
    assert "printed no configuration: 'Error: Bad command.'" in nokia_sros.incomplete(refused)
    assert "pager" in nokia_sros.incomplete(whole.replace("    router", "Press Q to quit, Enter to\n    router", 1))
    assert "control character" in nokia_sros.incomplete("\x1b[2J" + whole)
    assert "'# Finished ...', is missing" in nokia_sros.incomplete(whole[: whole.index("# Finished")])


# --- Back again


def test_restore_leads_back() -> None:
    old = CASE.old
    new = CASE.new
    plan = restoring(nokia_sros, new, old + "# Finished\n", CASE.names)
    after = nokia_sros.parse(plan.predicted)
    assert same_in_force(after, nokia_sros.parse(old))
    assert not [name for _, name in after.filters if name.startswith("ISP-")]
    assert restoring(nokia_sros, old, old + "# Finished\n", CASE.names).lines == ()


def test_restore_writes_a_filter_that_was_changed_anew_with_its_lists() -> None:
    text = (CASES / "24-equivalent-embedded" / "running.cfg").read_text()
    changed = text.replace("offset 920", "offset 2920").replace("range start 137 end 139", "range start 137 end 138")
    assert changed != text
    plan = restoring(nokia_sros, changed, text, [RES])
    assert 'delete filter ip-filter "UP4"' in plan.lines
    assert '/configure filter match-list port-list "WIN" range start 137 end 139 { }' in plan.lines
    assert same_in_force(nokia_sros.parse(plan.predicted), nokia_sros.parse(text))
    router = Device("r", changed)
    for line in ("configure exclusive", *plan.lines, "validate", "commit"):
        assert not re.search("|".join(nokia_sros.REJECTED), router.execute(line), re.MULTILINE), line
    assert same_in_force(nokia_sros.parse(router.snapshot()), nokia_sros.parse(text))


def test_the_classic_cli_is_not_written() -> None:
    text = (CASES / "27-equivalent-classic" / "running.cfg").read_text()
    with pytest.raises(Refused, match=r"classic CLI, which is audited and not changed.*nothing was changed"):
        committed(text, ['/configure filter ip-filter "ISP-X" default-action drop'])
    with pytest.raises(Refused, match="classic CLI"):
        restoring(nokia_sros, text.replace("ip-filter 100\n", "ip-filter 101\n"), text, [RES])


def test_a_line_that_changes_something_else_is_refused() -> None:
    for line in ("/configure system name x", "configure filter ip-filter X", "exit all", "delete system name"):
        with pytest.raises(ValueError, match="no command that changes filters"):
            committed(BARE, [line])


# --- The lab is as strict as the router


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('/configure filter ip-filter "X" entry 0 action drop', "#2301"),
        ('/configure filter ip-filter "X" entry 10 match protocol http', "#2301"),
        ('/configure filter ip-filter "X" entry 10 match next-header tcp', "#2201"),
        ('/configure filter ip-filter "X" entry 10 match dst-port eq smtp', "#2301"),
        ('/configure filter ip-filter "X" entry 10 action reject', "#2201"),
        ('/configure filter ip-filter "X" default-action forward', "#2301"),
        ('delete filter ip-filter "X"', "does not exist"),
        ("/configure bogus", "#2201"),
    ],
)
def test_the_lab_refuses(line: str, said: str) -> None:
    router = Device("r", BARE)
    router.execute("configure exclusive")
    assert said in router.execute(line)


def test_the_lab_commits_no_reference_to_what_is_not_there() -> None:
    router = Device("r", BARE)
    router.execute("configure exclusive")
    router.execute('/configure subscriber-mgmt sla-profile "RES" ingress ip-filter "X"')
    assert "Entry does not exist" in router.execute("validate")
    assert "Entry does not exist" in router.execute("commit confirmed 5")
    assert "Operation not allowed" in router.execute("commit confirmed accept")


def test_a_commit_goes_with_its_session_unless_it_is_accepted() -> None:
    router = CASE.router()
    lines = CASE.plan(CASE.old).lines
    for accepted in (False, True):
        session = router.login()
        for line in ("configure exclusive", *lines, "commit confirmed 5"):
            session.execute(line)
        assert calm(router.snapshot()) == CASE.new
        if accepted:
            session.execute("commit confirmed accept")
        session.hang_up()
        assert calm(router.snapshot()) == (CASE.new if accepted else CASE.old)


# --- Over real SSH


def test_a_push_over_ssh(tmp_path: Path) -> None:
    """netmiko's own driver logs in, reads both CLIs' commands, and brings the filters."""
    router = CASE.router()
    definitions = yaml.safe_load(DOCUMENTATION)["options"]
    name = "isp.hardening.netmiko"
    constants.config.initialize_plugin_configuration_definitions("connection", name, definitions)
    with serve([router], Access(password="only-here")) as served:
        (tmp_path / "known_hosts").write_text(served.known_hosts)
        connection = Connection(PlayContext())
        connection._load_name = name
        connection.set_options(direct={
            "host": LOOPBACK, "port": served.ports[router.name], "network_os": "nokia.sros.md",
            "remote_user": "audit", "password": "only-here", "known_hosts": str(tmp_path / "known_hosts"),
        })  # fmt: skip
        try:
            running = read(nokia_sros, connection)
            assert nokia_sros.incomplete(running) == ""
            before = nokia_sros.parse(running)
            assert same_in_force(before, nokia_sros.parse(CASE.old))
            outcome = push(nokia_sros, connection, CASE.plan(CASE.old), before, CASE.names, lambda _: "", MINUTES)
        finally:
            connection.close()
        assert outcome.state == "changed", outcome.message
        assert calm(router.snapshot()) == calm(router.startup_text()) == CASE.new


@pytest.mark.parametrize("case", sorted(CASES.glob("parse-*/running.cfg")), ids=lambda case: case.parent.name)
def test_the_ends_of_lines_and_a_byte_order_mark_mean_nothing(case: Path) -> None:
    text = case.read_text()
    other = nokia_sros.parse("\ufeff" + text.replace("\n", "\r\n"))
    known = nokia_sros.parse(text)
    assert (other.filters, other.bindings, other.doubts) == (known.filters, known.bindings, known.doubts)
