# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Cisco IOS: rules become lines that mean the rules, and a text becomes what the lines make of it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.isp.hardening.plugins.module_utils.filters import NotThisPlatform, evaluate
from ansible_collections.isp.hardening.plugins.module_utils.platforms import cisco_ios
from ansible_collections.isp.hardening.plugins.module_utils.rules import Bind, Change, Rule, RuleSet
from lab.judge import Packet
from lab.routers import cisco_ios as lab
from tests.unit import cisco_like

TEMPLATE = cisco_like.renderer("cisco_ios")
RUNNING = """\
Building configuration...

Current configuration : 512 bytes
!
version 17.9
hostname bng1
!
ip access-list extended OLD
 10 permit tcp any any eq www
!
interface Virtual-Template1 type tunnel
 ip unnumbered Loopback0
 ip access-group OLD in
!
interface Virtual-Template2
 ip access-group OLD in
!
end
"""


@given(data=st.data(), family=st.sampled_from((4, 6)))
def test_rendered_rules_mean_the_rules(data: st.DataObject, family: int) -> None:
    rule_set = data.draw(cisco_like.rule_sets(family, undetermined=family == 6))
    text = TEMPLATE.render(cisco_ios.fields(Change((rule_set,), ())))
    configuration = cisco_ios.parse(text)
    for _ in range(4):
        packet = data.draw(cisco_like.packets(family, plain=True))
        assert evaluate(configuration, family, rule_set.name, packet)[0] == {cisco_like.meaning(rule_set, packet, True)}
        packet = data.draw(cisco_like.packets(family, plain=False))
        wanted = cisco_like.meaning(rule_set, packet, later_on_layer3=True)
        found = evaluate(configuration, family, rule_set.name, packet)[0]
        assert found == {wanted} if family == 4 else wanted in found


@given(data=st.data(), family=st.sampled_from((4, 6)))
def test_the_lab_router_takes_the_lines_and_judges_alike(data: st.DataObject, family: int) -> None:
    """The lab shares no code with the platform: its router accepts every line, and its judge says the same."""
    rule_set = data.draw(cisco_like.rule_sets(family, undetermined=family == 6))
    change = Change((rule_set,), (Bind("Virtual-Template1", "up", family, rule_set.name),))
    router = lab.Device("bng1", "hostname bng1\n!\ninterface Virtual-Template1\n!\nend\n")
    session = lab.IosSession(router)
    session.privileged = True
    for line in ("configure terminal", *cisco_ios.lines(TEMPLATE.render(cisco_ios.fields(change))), "end"):
        answer = session.command(line)
        assert not any(re.search(one, answer, re.MULTILINE) for one in cisco_ios.REJECTED), f"{line}: {answer}"
    text = session.command("show running-config")
    assert cisco_ios.incomplete(text) == ""
    configuration = cisco_ios.parse(text)
    assert [one.filters for one in configuration.bindings] == [(rule_set.name,)]
    for _ in range(4):
        packet = data.draw(cisco_like.packets(family, plain=data.draw(st.booleans())))
        judged = router.judge("Virtual-Template1", "up", Packet(family=family, **packet))
        assert judged in evaluate(configuration, family, rule_set.name, packet)[0]


@given(text=cisco_like.texts())
def test_no_text_crashes_it(text: str) -> None:
    cisco_ios.incomplete(text)
    try:
        configuration = cisco_ios.parse(text)
    except NotThisPlatform:
        return
    for binding in configuration.bindings:
        assert all((binding.family, name) in configuration.filters for name in binding.filters)


@given(words=st.lists(st.lists(st.sampled_from(cisco_like.WORDS), min_size=1, max_size=9), min_size=1, max_size=9))
def test_no_line_of_a_list_is_skipped(words: list[list[str]]) -> None:
    lines = [f" permit {' '.join(one)}" for one in words]
    configuration = cisco_ios.parse("\n".join(["hostname bng1", "ip access-list extended A", *lines]))
    assert {entry.line for entry in configuration.filters[4, "A"].entries} == set(range(3, 3 + len(lines)))


def test_every_line_of_a_push_gives_a_state() -> None:
    rule_set = RuleSet("ISP-UP4-1", 4, "up", (Rule("deny", "tcp", destination_ports=((25, 25),)), Rule("permit")))
    change = Change((rule_set,), (Bind("Virtual-Template1", "up", 4, "ISP-UP4-1"),))
    lines = cisco_ios.lines(TEMPLATE.render(cisco_ios.fields(change)))
    assert lines == [
        "ip access-list extended ISP-UP4-1",
        "deny tcp any any eq 25",
        "permit ip any any",
        "exit",
        "interface Virtual-Template1",
        "ip access-group ISP-UP4-1 in",
        "exit",
    ]
    states = [cisco_ios.parse(text) for text in cisco_ios.apply(RUNNING, lines)]
    assert len(states) == len(lines)
    # The new list is there from the moment on that a line names it.
    assert [(4, "ISP-UP4-1") in state.filters for state in states] == [False] * 4 + [True] * 3
    assert [len(state.filters[4, "ISP-UP4-1"].entries) for state in states[4:]] == [2, 2, 2]
    assert [state.bindings[0].filters for state in states] == [("OLD",)] * 5 + [("ISP-UP4-1",)] * 2
    assert states[-1].bindings[1].filters == ("OLD",)
    assert list(states[-1].interfaces) == ["Virtual-Template1", "Virtual-Template2"]


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["interface GigabitEthernet9"], "no such place"),
        (["interface Virtual-Template1", "ip nat inside"], "not understood on an interface"),
        (["interface Virtual-Template1", "no ip access-group OLD out"], "nothing is bound there"),
        (["permit ip any any"], "not understood here"),
        (["ip access-list extended OLD", "10 deny ip any any"], "has another line 10"),
        (["ip access-list extended OLD", "redirect ip any any"], "not understood in ip access-list extended OLD"),
        (["no ip access-list extended NONE"], "nothing of that name"),
        (["reload"], "not understood here"),
    ],
)
def test_apply_refuses_what_it_does_not_know(lines: list[str], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        list(cisco_ios.apply(RUNNING, lines))


@pytest.mark.parametrize("place", ["interface Virtual-Template2", "class-map match-any ALL"])
def test_every_line_of_a_list_that_something_names_gives_a_state(place: str) -> None:
    """A list may be bound before it exists, and then each of its lines acts."""
    named = RUNNING.replace("end\n", f"{place}\n ip access-group NEW in\nend\n")
    lines = ["ip access-list extended NEW", "deny tcp any any eq 25", "permit ip any any", "exit"]
    states = [cisco_ios.parse(text) for text in cisco_ios.apply(named, lines)]
    assert [len(state.filters[4, "NEW"].entries) for state in states] == [0, 1, 2, 2]
    *_, whole = cisco_ios.apply(RUNNING, lines)
    assert len(cisco_ios.parse(whole).filters[4, "NEW"].entries) == 2


def test_restore_brings_lists_and_groups_back() -> None:
    backup = RUNNING.replace(
        "ip access-list extended OLD\n 10 permit tcp any any eq www\n",
        "object-group network INNER\n host 192.0.2.25\nobject-group network SMART\n group-object INNER\n"
        "ip access-list extended OLD\n 10 permit tcp any object-group SMART eq smtp\n",
    )
    running = RUNNING.replace(
        "ip access-list extended OLD\n 10 permit tcp any any eq www\n",
        "ip access-list extended ISP-UP4-1\n 10 permit ip any any\n",
    ).replace("ip access-group OLD in", "ip access-group ISP-UP4-1 in")
    lines = cisco_ios.restore(running, backup, ["Virtual-Template1", "Virtual-Template2"])
    assert lines == [
        *("object-group network INNER", "host 192.0.2.25", "exit"),
        *("object-group network SMART", "group-object INNER", "exit"),
        *("ip access-list extended OLD", "10 permit tcp any object-group SMART eq smtp", "exit"),
        *("interface Virtual-Template1", "ip access-group OLD in", "exit"),
        *("interface Virtual-Template2", "ip access-group OLD in", "exit"),
        "no ip access-list extended ISP-UP4-1",
    ]
    after = cisco_ios.parse(list(cisco_ios.apply(running, lines))[-1])
    assert after.filters[4, "OLD"].entries[0].matches == cisco_ios.parse(backup).filters[4, "OLD"].entries[0].matches
    assert cisco_ios.restore(RUNNING, RUNNING, ["Virtual-Template1"]) == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "answered nothing"),
        (RUNNING, ""),
        (RUNNING.replace("\nend\n", "\n"), "ends with '!' and not with 'end'"),
        (RUNNING.replace("hostname", "\x1b[7mhostname"), "line 6 holds a terminal escape"),
        (RUNNING.replace("version", " --More-- version"), "line 5 holds a pager's prompt"),
        ("% Invalid input detected at '^' marker.\n", "answered '% Invalid input detected"),
        ("! Command: show running-config\nhostname agg1\nend\n", "a configuration of Arista EOS"),
        ("version 21.4R1.12;\nsystem {\n    host-name core1;\n}\n", "a configuration of Junos"),
        ("table inet isp_edge {\n}\n", "a configuration of nftables"),
    ],
)
def test_what_is_no_whole_configuration(text: str, reason: str) -> None:
    found = cisco_ios.incomplete(text)
    assert reason in found
    assert bool(found) == bool(reason)


def test_text_of_nothing_is_not_this_platform() -> None:
    with pytest.raises(NotThisPlatform, match="check ansible_network_os"):
        cisco_ios.parse("system {\n    host-name core1;\n}\n")


@pytest.mark.parametrize("mark", ["\ufeff", ""])
@pytest.mark.parametrize("margin", ["", "    ", "\t"])
@pytest.mark.parametrize("pager", ["", " --More-- \b\b\b        \b\b\b", " --More-- \r          \r", " --More--  "])
def test_what_a_page_or_a_terminal_adds_hides_no_line(mark: str, margin: str, pager: str) -> None:
    lines = ["interface Vlan1", " no shutdown", f"{pager}interface Vlan10", f"{pager} ip access-group 101 in"]
    configuration = cisco_ios.parse(mark + "".join(f"{margin}{line}\n" for line in lines))
    assert [one.attachment for one in configuration.bindings] == ["Vlan10"]


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        (Rule("permit", "", destination_ports=((25, 25),)), "has ports and no protocol"),
        (Rule("permit", "tcp", icmp=((8, None),)), "is not of ICMP"),
        (Rule("permit", "nonsense"), "unknown protocol"),
        (Rule("deny", undetermined=True), "choose profile: standard"),
    ],
)
def test_a_rule_that_no_line_can_hold_raises(rule: Rule, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        cisco_ios.fields(Change((RuleSet("ISP-UP4-1", 4, "up", (rule,)),), ()))


@pytest.mark.parametrize(
    ("answer", "rejected"),
    [
        ("                 ^\n% Invalid input detected at '^' marker.\n", True),
        ("% Incomplete command.\n", True),
        ("%Error: Rollback Confirmed Change needs an archive path.\n", True),
        ("%No Rollback Confirmed Change pending\n", True),
        ("Rollback Confirmed Change: Backing up current running config to flash:isp-1\n", False),
        ("*Nov 23 14:00:01.000: %SYS-5-CONFIG_I: Configured from console by admin\n", False),
        ("%SYS-5-CONFIG_I: Configured from console by admin on vty0\n", False),
        ("Enter configuration commands, one per line.  End with CNTL/Z.\n", False),
    ],
)
def test_rejections(answer: str, rejected: bool) -> None:
    assert any(re.search(pattern, answer, re.MULTILINE) for pattern in cisco_ios.REJECTED) == rejected
