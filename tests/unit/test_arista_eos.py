# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Arista EOS: rules become lines that mean the rules, and a text becomes what the lines make of it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.isp.hardening.plugins.module_utils.filters import NotThisPlatform, evaluate
from ansible_collections.isp.hardening.plugins.module_utils.plan import Refused
from ansible_collections.isp.hardening.plugins.module_utils.platforms import arista_eos
from ansible_collections.isp.hardening.plugins.module_utils.rules import Bind, Change, Rule, RuleSet
from lab.judge import Packet
from lab.routers import arista_eos as lab
from tests.unit import cisco_like

TEMPLATE = cisco_like.renderer("arista_eos")
RUNNING = """\
! Command: show running-config
! device: agg1 (DCS-7280SR-48C6, EOS-4.30.3M)
!
hostname agg1
!
ip access-list OLD
   10 permit tcp any any eq www
!
interface Ethernet1
   ip access-group OLD in
!
interface Ethernet2
   ip access-group OLD in
!
end
"""


@given(data=st.data(), family=st.sampled_from((4, 6)))
def test_rendered_rules_mean_the_rules(data: st.DataObject, family: int) -> None:
    rule_set = data.draw(cisco_like.rule_sets(family))
    text = TEMPLATE.render(arista_eos.fields(Change((rule_set,), ())))
    configuration = arista_eos.parse(text)
    for _ in range(4):
        packet = data.draw(cisco_like.packets(family, plain=True))
        assert evaluate(configuration, family, rule_set.name, packet)[0] == {cisco_like.meaning(rule_set, packet, True)}
        packet = data.draw(cisco_like.packets(family, plain=False))
        # What a device does to later fragments and behind extension headers is open: either reading is possible.
        found = evaluate(configuration, family, rule_set.name, packet)[0]
        assert cisco_like.meaning(rule_set, packet, later_on_layer3=False) in found
        assert cisco_like.meaning(rule_set, packet, later_on_layer3=True) in found


@given(data=st.data())
def test_what_is_denied_is_denied_behind_extension_headers_too(data: st.DataObject) -> None:
    """Our lists deny extension headers by number first: that proves a deny on either kind of device."""
    rule_set = data.draw(cisco_like.rule_sets(6))
    configuration = arista_eos.parse(TEMPLATE.render(arista_eos.fields(Change((rule_set,), ()))))
    packet = data.draw(cisco_like.packets(6, plain=False))
    whole = packet["fragment"] < 2 and not packet["undetermined"]
    if whole and cisco_like.meaning(rule_set, packet, later_on_layer3=False) == "deny":
        assert evaluate(configuration, 6, rule_set.name, packet)[0] == {"deny"}


@given(data=st.data(), family=st.sampled_from((4, 6)))
def test_the_lab_router_takes_the_lines_and_judges_alike(data: st.DataObject, family: int) -> None:
    """The lab shares no code with the platform: its router accepts every line, and its judge says the same."""
    rule_set = data.draw(cisco_like.rule_sets(family))
    change = Change((rule_set,), (Bind("Ethernet1", "up", family, rule_set.name),))
    router = lab.Device("agg1", "hostname agg1\n!\ninterface Ethernet1\n!\nend\n")
    session = lab.EosSession(router)
    session.privileged = True
    for line in ("configure session s", *arista_eos.lines(TEMPLATE.render(arista_eos.fields(change))), "commit"):
        answer = session.command(line)
        assert not any(re.search(one, answer, re.MULTILINE) for one in arista_eos.REJECTED), f"{line}: {answer}"
    text = session.command("show running-config")
    assert arista_eos.incomplete(text) == ""
    configuration = arista_eos.parse(text)
    assert [one.filters for one in configuration.bindings] == [(rule_set.name,)]
    for _ in range(4):
        packet = data.draw(cisco_like.packets(family, plain=data.draw(st.booleans())))
        judged = router.judge("Ethernet1", "up", Packet(family=family, **packet))
        assert judged in evaluate(configuration, family, rule_set.name, packet)[0]


@given(text=cisco_like.texts())
def test_no_text_crashes_it(text: str) -> None:
    arista_eos.incomplete(text)
    try:
        configuration = arista_eos.parse(text)
    except NotThisPlatform:
        return
    for binding in configuration.bindings:
        assert all((binding.family, name) in configuration.filters for name in binding.filters)


@given(words=st.lists(st.lists(st.sampled_from(cisco_like.WORDS), min_size=1, max_size=9), min_size=1, max_size=9))
def test_no_line_of_a_list_is_skipped(words: list[list[str]]) -> None:
    lines = [f"   permit {' '.join(one)}" for one in words]
    configuration = arista_eos.parse("\n".join(["hostname agg1", "ip access-list A", *lines]))
    assert {entry.line for entry in configuration.filters[4, "A"].entries} == set(range(3, 3 + len(lines)))


def test_a_push_gives_one_state_at_its_commit() -> None:
    rule_set = RuleSet("ISP-UP6-1", 6, "up", (Rule("deny", "tcp", destination_ports=((25, 25),)), Rule("permit")))
    change = Change((rule_set,), (Bind("Ethernet1", "up", 6, "ISP-UP6-1"),))
    lines = arista_eos.lines(TEMPLATE.render(arista_eos.fields(change)))
    assert lines == [
        "ipv6 access-list ISP-UP6-1",
        "remark extension headers hide the ports",
        *(f"deny {number} any any" for number in (0, 43, 44, 60, 135)),
        "deny tcp any any eq 25",
        "permit ipv6 any any",
        "exit",
        "interface Ethernet1",
        "ipv6 access-group ISP-UP6-1 in",
        "exit",
    ]
    (state,) = (arista_eos.parse(text) for text in arista_eos.apply(RUNNING, lines))
    assert [(one.attachment, one.filters) for one in state.bindings] == [
        ("Ethernet1", ("OLD",)),
        ("Ethernet1", ("ISP-UP6-1",)),
        ("Ethernet2", ("OLD",)),
    ]


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["interface GigabitEthernet9"], "no such place"),
        (["interface Ethernet1", "ip nat inside"], "not understood on an interface"),
        (["interface Ethernet1", "no ip access-group OLD out"], "nothing is bound there"),
        (["permit ip any any"], "not understood here"),
        (["ip access-list OLD", "10 deny ip any any"], "has another line 10"),
        (["ip access-list OLD", "redirect ip any any"], "not understood in ip access-list OLD"),
        (["no ip access-list NONE"], "nothing of that name"),
        (["reload"], "not understood here"),
    ],
)
def test_apply_refuses_what_it_does_not_know(lines: list[str], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        list(arista_eos.apply(RUNNING, lines))


def test_a_switch_that_may_pass_everything_meanwhile_is_refused() -> None:
    open_meanwhile = "hardware access-list update default-result permit\n"
    with pytest.raises(Refused, match="permits everything while a list is changed"):
        list(arista_eos.apply(open_meanwhile + RUNNING, ["no ip access-list OLD"]))
    assert list(arista_eos.apply(f"no {open_meanwhile}{RUNNING}", []))


def test_restore_brings_lists_back() -> None:
    old, new = "OLD\n   10 permit tcp any any eq www", "ISP-UP4-1\n   10 permit ip any any"
    running = RUNNING.replace(f"ip access-list {old}", f"ip access-list {new}")
    running = running.replace("ip access-group OLD in", "ip access-group ISP-UP4-1 in", 1)
    lines = arista_eos.restore(running, RUNNING, ["Ethernet1"])
    assert lines == [
        *("ip access-list OLD", "10 permit tcp any any eq www", "exit"),
        *("interface Ethernet1", "ip access-group OLD in", "exit"),
        "no ip access-list ISP-UP4-1",
    ]
    assert arista_eos.restore(RUNNING, RUNNING, ["Ethernet1"]) == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "answered nothing"),
        (RUNNING, ""),
        (RUNNING.replace("\nend\n", "\n"), "ends with '!' and not with 'end'"),
        (RUNNING.replace("hostname", "\x1b[7mhostname"), "line 4 holds a terminal escape"),
        (RUNNING.replace("!\nhostname", " --More-- \nhostname"), "line 3 holds a pager's prompt"),
        ("% Invalid input (at token 1: 'running')\n", "answered '% Invalid input"),
        ("Building configuration...\n\nhostname bng1\nend\n", "a configuration of Cisco IOS"),
        ("version 21.4R1.12;\nsystem {\n    host-name core1;\n}\n", "a configuration of Junos"),
        ("table inet isp_edge {\n}\n", "a configuration of nftables"),
    ],
)
def test_what_is_no_whole_configuration(text: str, reason: str) -> None:
    found = arista_eos.incomplete(text)
    assert reason in found
    assert bool(found) == bool(reason)


def test_text_of_nothing_is_not_this_platform() -> None:
    with pytest.raises(NotThisPlatform, match="check ansible_network_os"):
        arista_eos.parse("system {\n    host-name core1;\n}\n")


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
        arista_eos.fields(Change((RuleSet("ISP-UP4-1", 4, "up", (rule,)),), ()))


@pytest.mark.parametrize(
    ("answer", "rejected"),
    [
        ("% Invalid input (at token 0: 'frobnicate')\n", True),
        ("% Incomplete command (at token 1: 'access-list')\n", True),
        ("% Cannot commit session s (session does not exist)\n", True),
        ("Nov 23 14:00:01 agg1 ConfigAgent: %SYS-5-CONFIG_SESSION_COMMIT_SUCCESS: User admin committed\n", False),
        ("Copy completed successfully.\n", False),
    ],
)
def test_rejections(answer: str, rejected: bool) -> None:
    assert any(re.search(pattern, answer, re.MULTILINE) for pattern in arista_eos.REJECTED) == rejected
