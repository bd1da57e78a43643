# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Cisco NX-OS: rules become lines that mean the rules, a cut text is told, and the scheduler takes a push back."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.isp.hardening.plugins.module_utils.filters import NotThisPlatform, evaluate
from ansible_collections.isp.hardening.plugins.module_utils.plan import Refused
from ansible_collections.isp.hardening.plugins.module_utils.platforms import cisco_nxos
from ansible_collections.isp.hardening.plugins.module_utils.rules import Bind, Change, Rule, RuleSet
from lab.judge import Packet, judge
from lab.routers import cisco_nxos as lab
from tests.unit import cisco_like

TEMPLATE = cisco_like.renderer("cisco_nxos")
BODY = """\
!Command: show running-config
!Time: Mon Nov 23 14:00:00 2026

version 10.3(4a) Bios:version 05.47
hostname agg1
feature scheduler

ip access-list OLD
  10 permit tcp any any eq www

interface Vlan100
  ip access-group OLD in

interface Vlan200
  ip access-group OLD in
scheduler job name isp-rollback
rollback running-config checkpoint isp-before atomic ; configure terminal ; no scheduler schedule name isp-rollback \
; end ; no checkpoint isp-before
end-job
"""
RUNNING = f"{BODY}{BODY.count(chr(10))}\n"
AGG1 = Path(lab.__file__).parents[1] / "configs" / "agg1.cfg"


@settings(max_examples=60)
@given(data=st.data(), family=st.sampled_from((4, 6)))
def test_rendered_rules_mean_the_rules(data: st.DataObject, family: int) -> None:
    rule_set = data.draw(cisco_like.rule_sets(family))
    text = TEMPLATE.render(cisco_nxos.fields(Change((rule_set,), ())))
    configuration = cisco_nxos.parse(text)
    for _ in range(4):
        packet = data.draw(cisco_like.packets(family, plain=True))
        assert evaluate(configuration, family, rule_set.name, packet)[0] == {cisco_like.meaning(rule_set, packet, True)}
        packet = data.draw(cisco_like.packets(family, plain=False))
        # What a device does to later fragments and behind extension headers is open: either reading is possible.
        found = evaluate(configuration, family, rule_set.name, packet)[0]
        assert cisco_like.meaning(rule_set, packet, later_on_layer3=False) in found
        assert cisco_like.meaning(rule_set, packet, later_on_layer3=True) in found


@settings(max_examples=60)
@given(data=st.data())
def test_what_is_denied_is_denied_behind_extension_headers_too(data: st.DataObject) -> None:
    """Our lists deny extension headers by number first: that proves a deny on either kind of device."""
    rule_set = data.draw(cisco_like.rule_sets(6))
    configuration = cisco_nxos.parse(TEMPLATE.render(cisco_nxos.fields(Change((rule_set,), ()))))
    packet = data.draw(cisco_like.packets(6, plain=False))
    whole = packet["fragment"] < 2 and not packet["undetermined"]
    if whole and cisco_like.meaning(rule_set, packet, later_on_layer3=False) == "deny":
        assert evaluate(configuration, 6, rule_set.name, packet)[0] == {"deny"}


@settings(max_examples=60)
@given(data=st.data(), family=st.sampled_from((4, 6)))
def test_the_lab_router_takes_the_lines_and_judges_alike(data: st.DataObject, family: int) -> None:
    """The lab shares no code with the platform: its router accepts every line, and its judge says the same."""
    rule_set = data.draw(cisco_like.rule_sets(family))
    change = Change((rule_set,), (Bind("Vlan100", "up", family, rule_set.name),))
    router = lab.Device("agg1", "hostname agg1\ninterface Vlan100\n  no shutdown\n")
    for line in ("configure terminal", *cisco_nxos.lines(TEMPLATE.render(cisco_nxos.fields(change))), "end"):
        answer = router.execute(line)
        assert not any(re.search(one, answer, re.MULTILINE) for one in cisco_nxos.REJECTED), f"{line}: {answer}"
    text = router.snapshot()
    assert cisco_nxos.incomplete(text) == ""
    configuration = cisco_nxos.parse(text)
    assert [one.filters for one in configuration.bindings] == [(rule_set.name,)]
    for _ in range(4):
        packet = data.draw(cisco_like.packets(family, plain=data.draw(st.booleans())))
        judged = router.judge("Vlan100", "up", Packet(family=family, **packet))
        assert judged in evaluate(configuration, family, rule_set.name, packet)[0]


@settings(max_examples=60)
@given(text=cisco_like.texts())
def test_no_text_crashes_it(text: str) -> None:
    cisco_nxos.incomplete(text)
    try:
        configuration = cisco_nxos.parse(text, ["Vlan100"])
    except NotThisPlatform:
        return
    for binding in configuration.bindings:
        assert all((binding.family, name) in configuration.filters for name in binding.filters)


_MAP_WORDS = ("vlan", "access-map", "filter", "vlan-list", "M", "10", "10-20", "4094", "match", "ip", "ipv6", "address")
_MAP_LINES = st.lists(st.sampled_from((*_MAP_WORDS, "action", "drop", "forward", "statistics", "OLD")), max_size=7)


@settings(max_examples=60)
@given(lines=st.lists(st.tuples(st.booleans(), _MAP_LINES), max_size=12))
def test_no_vlan_map_crashes_it(lines: list[tuple[bool, list[str]]]) -> None:
    text = "\n".join([BODY, *(f"{'  ' * deep}{' '.join(words)}" for deep, words in lines)])
    configuration = cisco_nxos.parse(text)
    for binding in configuration.bindings:
        for name in binding.filters:
            packet = dict.fromkeys(
                ("protocol", "source", "destination", "source_port", "destination_port", "icmp_type", "icmp_code",
                 "tcp_flags", "extension", "state", "tos", "ttl", "length", "fragment", "undetermined", "options"), 0
            )  # fmt: skip
            assert evaluate(configuration, binding.family, name, packet)[0]


@settings(max_examples=60)
@given(words=st.lists(st.lists(st.sampled_from(cisco_like.WORDS), min_size=1, max_size=9), min_size=1, max_size=9))
def test_no_line_of_a_list_is_skipped(words: list[list[str]]) -> None:
    lines = [f"  permit {' '.join(one)}" for one in words]
    configuration = cisco_nxos.parse("\n".join(["hostname agg1", "ip access-list A", *lines]))
    assert {entry.line for entry in configuration.filters[4, "A"].entries} == set(range(3, 3 + len(lines)))


@pytest.mark.parametrize(
    ("said", "filters", "doubted"),
    [
        ("no switchport", [("OLD",)], False),
        ("ip address 198.51.100.1/24", [("OLD",)], False),
        ("mtu 9216", [("OLD",)], True),
        ("switchport mode trunk", [], False),
    ],
)
def test_a_port_that_may_be_switched(said: str, filters: list[tuple[str]], doubted: bool) -> None:
    text = BODY.replace("interface Vlan100", f"interface Ethernet1/5\n  {said}")
    configuration = cisco_nxos.parse(text, ["Ethernet1/5"])
    assert [one.filters for one in configuration.bindings if one.attachment == "Ethernet1/5"] == filters
    assert bool(configuration.doubts) == doubted


def test_a_push_binds_a_list_that_is_whole() -> None:
    rule_set = RuleSet("ISP-UP6-1", 6, "up", (Rule("deny", "tcp", destination_ports=((25, 25),)), Rule("permit")))
    change = Change((rule_set,), (Bind("Vlan100", "up", 6, "ISP-UP6-1"),))
    lines = cisco_nxos.lines(TEMPLATE.render(cisco_nxos.fields(change)))
    assert lines == [
        "ipv6 access-list ISP-UP6-1",
        "remark extension headers hide the ports",
        *(f"deny {number} any any" for number in (0, 43, 44, 60, 135)),
        "deny tcp any any eq 25",
        "permit ipv6 any any",
        "exit",
        "interface Vlan100",
        "ipv6 traffic-filter ISP-UP6-1 in",
        "exit",
    ]
    *before, last = cisco_nxos.apply(RUNNING, lines)
    assert [one.filters for one in cisco_nxos.parse(before[7]).bindings] == [("OLD",), ("OLD",)]
    assert [one.filters for one in cisco_nxos.parse(last).bindings] == [("OLD",), ("ISP-UP6-1",), ("OLD",)]
    assert cisco_nxos.incomplete(last) == ""


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["interface Vlan900"], "no such place"),
        (["interface Vlan100", "ip nat inside"], "not understood on an interface"),
        (["interface Vlan100", "no ip access-group OLD out"], "nothing is bound there"),
        (["permit ip any any"], "not understood here"),
        (["ip access-list OLD", "10 deny ip any any"], "has another line 10"),
        (["ip access-list OLD", "redirect ip any any"], "not understood in ip access-list OLD"),
        (["no ip access-list NONE"], "nothing of that name"),
        (["reload"], "not understood here"),
    ],
)
def test_apply_refuses_what_it_does_not_know(lines: list[str], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        list(cisco_nxos.apply(RUNNING, lines))


_UPDATE = "hardware access-list update"


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("feature scheduler\n", "", "has no rollback timer, for want of 'feature scheduler'"),
        ("scheduler job name isp-rollback\n", "", "for want of 'scheduler job name isp-rollback'"),
        ("feature scheduler\n", "feature scheduler\naaa authentication login default group T\n", "runs no job of"),
        ("isp-before atomic ;", "other atomic ;", "has no rollback timer, for want of 'rollback running-config"),
        (
            "feature scheduler\n",
            f"feature scheduler\nno {_UPDATE} atomic\n{_UPDATE} default-result permit\n",
            "permits everything while a list in force is changed",
        ),
    ],
)  # fmt: skip
def test_a_switch_that_no_push_is_safe_on_is_refused(old: str, new: str, reason: str) -> None:
    assert RUNNING.count(old) == 1
    with pytest.raises(Refused, match=reason):
        list(cisco_nxos.apply(RUNNING.replace(old, new), ["no ip access-list OLD"]))


def test_restore_brings_lists_and_groups_back() -> None:
    group = "object-group ip port MAIL\n  10 eq 25\n"
    old, new = (
        f"{group}ip access-list OLD\n  10 deny tcp any any portgroup MAIL",
        "ip access-list ISP-UP4-1\n  10 permit ip any any",
    )
    backup = RUNNING.replace("ip access-list OLD\n  10 permit tcp any any eq www", old)
    running = RUNNING.replace("ip access-list OLD\n  10 permit tcp any any eq www", new)
    running = running.replace("ip access-group OLD in", "ip access-group ISP-UP4-1 in", 1)
    assert cisco_nxos.restore(running, backup, ["Vlan100"]) == [
        *("object-group ip port MAIL", "10 eq 25", "exit"),
        *("ip access-list OLD", "10 deny tcp any any portgroup MAIL", "exit"),
        *("interface Vlan100", "ip access-group OLD in", "exit"),
        "no ip access-list ISP-UP4-1",
    ]
    assert cisco_nxos.restore(RUNNING, RUNNING, ["Vlan100"]) == []


def test_restore_leaves_maps_and_port_lists_alone() -> None:
    beside = "vlan access-map M 10\n  match ip address OLD\n  action forward\nvlan filter M vlan-list 100\n"
    running = RUNNING.replace("interface Vlan100", f"{beside}interface Vlan100")
    backup = running.replace("ip access-group OLD in", "ip access-group NEW in", 1).replace(
        "vlan access-map M 10", "ip access-list NEW\n  10 deny ip any any\nvlan access-map M 10"
    )
    assert cisco_nxos.restore(running, backup, ["Vlan100"]) == [
        *("ip access-list NEW", "10 deny ip any any", "exit"),
        *("interface Vlan100", "ip access-group NEW in", "exit"),
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "answered nothing"),
        (RUNNING, ""),
        (f"\n{RUNNING}", ""),
        (BODY, "not with the number of its lines"),
        (RUNNING.replace("feature scheduler\n", ""), f"counted {BODY.count(chr(10))} lines"),
        (RUNNING.replace("hostname", "\x1b[7mhostname"), "line 5 holds a terminal escape"),
        (RUNNING.replace("\nhostname", " --More-- \nhostname"), "line 4 holds a pager's prompt"),
        ("% Invalid command at '^' marker.\n", "answered '% Invalid"),
        ("Building configuration...\n\nhostname bng1\nend\n", "a configuration of Cisco IOS"),
        ("! Command: show running-config\nhostname edge1\nend\n", "a configuration of Arista EOS"),
    ],
)
def test_what_is_no_whole_configuration(text: str, reason: str) -> None:
    found = cisco_nxos.incomplete(text)
    assert reason in found
    assert bool(found) == bool(reason)


@settings(max_examples=40)
@given(data=st.data())
def test_a_text_that_lost_anything_is_told(data: st.DataObject) -> None:
    """Cut off anywhere, or without any one of its lines."""
    text = lab.Device("agg1", AGG1.read_text()).snapshot()
    end = data.draw(st.integers(0, len(text) - 5))
    assert cisco_nxos.incomplete(text[:end])
    lines = text.split("\n")
    gone = data.draw(st.integers(0, len(lines) - 3))
    assert cisco_nxos.incomplete("\n".join(line for number, line in enumerate(lines) if number != gone))


def test_text_of_nothing_is_not_this_platform() -> None:
    with pytest.raises(NotThisPlatform, match="check ansible_network_os"):
        cisco_nxos.parse("system {\n    host-name core1;\n}\n")


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
        cisco_nxos.fields(Change((RuleSet("ISP-UP4-1", 4, "up", (rule,)),), ()))


@pytest.mark.parametrize(
    ("answer", "rejected"),
    [
        ("                   ^\n% Invalid command at '^' marker.\n", True),
        ("% Incomplete command at '^' marker.\n", True),
        ("% Permission denied for the role\n", True),
        ("ERROR: Hardware programming failed. Reason: Tcam will be over used, please turn off atomic update\n", True),
        ("Rollback failed. Cannot proceed\n", True),
        ("Note: Applying config parallelly may fail Rollback verification\nRollback completed successfully.\n", False),
        ("2026 Nov 23 14:00:01 agg1 %VSHD-5-VSHD_SYSLOG_CONFIG_I: Configured from vty by audit\n", False),
        ("Schedule starts from Mon Nov 23 14:05:00 2026\n", False),
        ("[########################################] 100%\nCopy complete.\n", False),
    ],
)
def test_rejections(answer: str, rejected: bool) -> None:
    assert any(re.search(pattern, answer, re.MULTILINE) for pattern in cisco_nxos.REJECTED) == rejected


# The lab's switch.


@pytest.fixture
def switch() -> lab.Device:
    return lab.Device("agg1", AGG1.read_text())


def type_in(switch: lab.Device, *lines: str) -> str:
    return "".join(switch.execute(line) for line in lines)


ARM = cisco_nxos.PUSH.arm[0].format(minutes=5)


def test_the_configuration_is_printed_as_it_was_loaded(switch: lab.Device) -> None:
    assert switch.execute("show running-config") == AGG1.read_text()
    assert switch.execute("show running-config | count") == f"{AGG1.read_text().count(chr(10))}\n"
    assert AGG1.read_text().splitlines()[-1] != "end"


def test_the_job_takes_back_what_nobody_confirms(switch: lab.Device) -> None:
    before = switch.snapshot()
    assert "Schedule starts" in type_in(switch, ARM)
    assert switch.prompt == "agg1(config)#"
    type_in(switch, "ip access-list X", "permit ip any any", "interface Vlan100", "ip access-group X in", "end")
    assert "ip access-group X in" in switch.snapshot()
    switch.clock.advance(299)
    assert "ip access-group X in" in switch.snapshot()
    switch.clock.advance(2)
    assert switch.snapshot() == before
    assert "isp-before" not in switch.execute("show checkpoint summary")


def test_the_scheduler_runs_no_job_of_a_stranger(switch: lab.Device) -> None:
    type_in(switch, "configure terminal", "no scheduler aaa-authentication", "end", ARM, "ip access-list X", "end")
    switch.clock.advance(3600)
    assert "ip access-list X" in switch.snapshot()


def test_a_second_push_is_refused_while_one_waits(switch: lab.Device) -> None:
    type_in(switch, ARM, "end")
    assert "ERROR: Checkpoint isp-before already exists" in switch.execute(ARM)


def test_what_is_confirmed_stays(switch: lab.Device) -> None:
    type_in(switch, ARM, "ip access-list X", "permit ip any any", "end", *cisco_nxos.PUSH.confirm)
    switch.clock.advance(3600)
    assert "ip access-list X" in switch.snapshot()
    assert "\nscheduler schedule" not in switch.snapshot()


@pytest.mark.parametrize(
    ("line", "position"),
    [
        ("ip access-list extended X", 24), ("acces-list 100 permit ip any any", 0), ("interface Vlan", 10),
        ("interface Ethernet9/9", 10),
    ],
)  # fmt: skip
def test_what_it_does_not_take_is_marked(switch: lab.Device, line: str, position: int) -> None:
    type_in(switch, "configure terminal")
    marker, said = switch.execute(line).split("\n")[:2]
    assert said == "% Invalid command at '^' marker."
    assert len(marker) - 1 == len("agg1(config)# ") + position


@pytest.mark.parametrize(
    "line",
    ["permit tcp any any eq 25 26", "permit tcp any any eq smtp www", "permit tcp any object-group X", "deny foo"],
)
def test_entries_that_it_does_not_take(switch: lab.Device, line: str) -> None:
    type_in(switch, "configure terminal", "ip access-list X")
    assert "% " in switch.execute(line)


def test_a_schedule_without_its_job_is_refused(switch: lab.Device) -> None:
    type_in(switch, "configure terminal", "no scheduler job name isp-rollback")
    assert "ERROR" in type_in(switch, "end", ARM)
    assert "isp-before" not in switch.execute("show checkpoint summary")


def test_groups_stand_for_their_members(switch: lab.Device) -> None:
    type_in(switch, "configure terminal", "ip access-list X", "permit tcp any addrgroup SMARTHOSTS eq smtp")
    type_in(
        switch, "deny tcp any any portgroup WINDOWS", "15 deny tcp any addrgroup MISSING", "permit ip any any", "no 15"
    )
    type_in(switch, "interface Vlan100", "ip access-group X in", "end")
    assert "  20 deny tcp any any portgroup WINDOWS\n  30 permit ip any any\n" in switch.snapshot()
    packet = {"family": 4, "source": "198.51.100.7", "destination": "203.0.113.9", "protocol": 6, "tcp_flags": 2}
    assert judge(switch, "Vlan100", "up", packet | {"destination_port": 138}) == "deny"
    assert judge(switch, "Vlan100", "up", packet | {"destination_port": 140}) == "permit"


def test_a_map_of_the_vlan_denies_too(switch: lab.Device) -> None:
    packet = {
        "family": 4, "source": "198.51.100.135", "destination": "203.0.113.9", "protocol": 6, "source_port": 50000,
        "destination_port": 445, "tcp_flags": 2,
    }  # fmt: skip
    assert judge(switch, "Vlan200", "down", packet) == "deny"
    assert judge(switch, "Vlan200", "up", packet | {"destination_port": 443}) == "permit"
    assert judge(switch, "Vlan100", "up", packet) == "permit"
