# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Cisco IOS XR: rules become lines that mean the rules, a text becomes what the lines make of it, a push is confirmed.

The lab's router too: its sessions, its trials, what it prints and refuses.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible import constants
from ansible.playbook.play_context import PlayContext
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.isp.hardening.plugins.connection.netmiko import DOCUMENTATION, Connection
from ansible_collections.isp.hardening.plugins.module_utils.filters import NotThisPlatform, evaluate
from ansible_collections.isp.hardening.plugins.module_utils.plan import restoring
from ansible_collections.isp.hardening.plugins.module_utils.platforms import cisco_iosxr
from ansible_collections.isp.hardening.plugins.module_utils.push import push
from ansible_collections.isp.hardening.plugins.module_utils.rules import Bind, Change, Rule, RuleSet
from lab.__main__ import CONFIGS
from lab.judge import Packet, judge
from lab.routers.cisco_iosxr import Device, XrSession
from lab.server import LOOPBACK, Access, serve
from tests.unit import cisco_like
from tests.unit.pushes import MINUTES, calm, cases

TEMPLATE = cisco_like.renderer("cisco_iosxr")
RUNNING = """\
!! IOS XR Configuration 7.5.2
!
hostname pe9
!
dynamic-template
 type ppp RES
  ipv4 access-group OLD egress
 !
!
object-group network ipv4 MAIL
 host 192.0.2.25
!
ipv4 access-list COMMON
 10 deny ipv4 10.0.0.0/8 any
!
ipv4 access-list OLD
 10 permit tcp any net-group MAIL eq www
!
interface Bundle-Ether1
 ipv4 access-group OLD ingress
!
interface Bundle-Ether2
 ipv4 access-group common COMMON OLD ingress hardware-count
!
end
"""


@settings(max_examples=60)
@given(data=st.data(), family=st.sampled_from((4, 6)))
def test_rendered_rules_mean_the_rules(data: st.DataObject, family: int) -> None:
    rule_set = data.draw(cisco_like.rule_sets(family))
    configuration = cisco_iosxr.parse(TEMPLATE.render(cisco_iosxr.fields(Change((rule_set,), ()))))
    for _ in range(4):
        packet = data.draw(cisco_like.packets(family, plain=True))
        assert evaluate(configuration, family, rule_set.name, packet)[0] == {cisco_like.meaning(rule_set, packet, True)}
        packet = data.draw(cisco_like.packets(family, plain=False))
        found = evaluate(configuration, family, rule_set.name, packet)[0]
        if family == 4:  # a permit with ports passes later fragments on its addresses
            assert found == {cisco_like.meaning(rule_set, packet, later_on_layer3=True)}
        else:  # what is done to later fragments and behind extension headers is open: either reading is possible
            assert cisco_like.meaning(rule_set, packet, later_on_layer3=False) in found
            assert cisco_like.meaning(rule_set, packet, later_on_layer3=True) in found


@settings(max_examples=40)
@given(data=st.data())
def test_what_is_denied_is_denied_behind_extension_headers_too(data: st.DataObject) -> None:
    """Our lists deny extension headers by number first: that proves a deny on either kind of device."""
    rule_set = data.draw(cisco_like.rule_sets(6))
    configuration = cisco_iosxr.parse(TEMPLATE.render(cisco_iosxr.fields(Change((rule_set,), ()))))
    packet = data.draw(cisco_like.packets(6, plain=False))
    whole = packet["fragment"] < 2 and not packet["undetermined"]
    if whole and cisco_like.meaning(rule_set, packet, later_on_layer3=False) == "deny":
        assert evaluate(configuration, 6, rule_set.name, packet)[0] == {"deny"}


@settings(max_examples=40)
@given(data=st.data(), family=st.sampled_from((4, 6)))
def test_the_lab_router_takes_the_lines_and_judges_alike(data: st.DataObject, family: int) -> None:
    """The lab shares no code with the platform: its router accepts every line, and its judge says the same."""
    rule_set = data.draw(cisco_like.rule_sets(family))
    place = data.draw(st.sampled_from(("Bundle-Ether1", "dynamic-template type ppp RES")))
    change = Change((rule_set,), (Bind(place, "up", family, rule_set.name),))
    router = Device("pe9", RUNNING)
    rendered = cisco_iosxr.lines(TEMPLATE.render(cisco_iosxr.fields(change)))
    for line in ("configure exclusive", *rendered, "commit", "end"):
        answer = router.execute(line)
        assert not any(re.search(one, answer, re.MULTILINE) for one in cisco_iosxr.REJECTED), f"{line}: {answer}"
    text = router.execute("show running-config")
    assert cisco_iosxr.incomplete(text) == ""
    configuration = cisco_iosxr.parse(text)
    bound = [
        one for one in configuration.bindings if (one.attachment, one.direction, one.family) == (place, "in", family)
    ]
    assert [one.filters for one in bound] == [(rule_set.name,)]
    for _ in range(4):
        packet = data.draw(cisco_like.packets(family, plain=data.draw(st.booleans())))
        judged = router.judge(place, "up", Packet(family=family, **packet))
        assert judged in evaluate(configuration, family, rule_set.name, packet)[0]


ADDRESSES = {
    4: ("any", "host 198.51.100.7", "198.51.100.0/24", "198.51.100.0 0.0.0.126", "net-group G", "192.0.2.25 0.0.0.0"),
    6: ("any", "host 2001:db8:100::7", "2001:db8:100::/40", "net-group G", "fe80::/10"),
}
PORTS = ("", "", "eq 25", "neq 25", "gt 1023", "lt 1024", "range 135 139", "range 24 25")
CONDITIONS = {
    4: (
        "", "", "fragments", "fragment-type is-fragment", "fragment-type first-fragment", "dscp ef", "ttl eq 64", "log",
        "capture", "counter C", "police 10 kbps",
    ),
    6: ("", "", "hop-by-hop", "destopts", "routing", "fragments", "dscp ef", "log"),
}  # fmt: skip
FLAGS = ("established", "syn", "match-all +syn -ack", "match-any +rst -fin")


@st.composite
def entries(draw: st.DrawFn, family: int) -> str:
    """A line as people write them."""
    protocol = draw(
        st.sampled_from(("tcp", "tcp", "udp", {4: "ipv4", 6: "ipv6"}[family], {4: "icmp", 6: "icmpv6"}[family], "esp"))
    )
    address, ports = st.sampled_from(ADDRESSES[family]), st.sampled_from(PORTS if protocol in ("tcp", "udp") else ("",))
    words = [draw(st.sampled_from(("permit", "deny"))), protocol]
    words += [draw(address), draw(ports), draw(address), draw(ports)]
    condition = draw(st.sampled_from(CONDITIONS[family] + (FLAGS if protocol == "tcp" else ())))
    if condition.startswith("fragment") and (words[3] or words[5]):
        condition = ""
    elif protocol in ("icmp", "icmpv6") and not condition.startswith("fragment"):
        words.append(draw(st.sampled_from(("", "echo", "packet-too-big"))))
    return " ".join(filter(None, [*words, condition]))


@settings(max_examples=80)
@given(data=st.data(), family=st.sampled_from((4, 6)))
def test_lists_as_people_write_them_are_judged_alike(data: st.DataObject, family: int) -> None:
    lists = {name: data.draw(st.lists(entries(family), min_size=1, max_size=5)) for name in ("ONE", "TWO")}
    text = "hostname pe9\nobject-group network ipv4 G\n host 192.0.2.25\n 198.51.100.4/30\n!\n"
    text += "object-group network ipv6 G\n host 2001:db8:ffff::25\n!\n"
    for name, lines in lists.items():
        text += f"ipv{family} access-list {name}\n"
        text += "".join(f" {10 * number} {line}\n" for number, line in enumerate(lines, 1))
    bound = data.draw(st.sampled_from(("ONE", "common TWO ONE")))
    text += f"interface Bundle-Ether1\n ipv{family} access-group {bound} ingress\n!\nend\n"
    router, configuration = Device("pe9", text), cisco_iosxr.parse(text)
    (name,) = configuration.bindings[0].filters
    for _ in range(6):
        packet = data.draw(cisco_like.packets(family, plain=data.draw(st.booleans())))
        judged = router.judge("Bundle-Ether1", "up", Packet(family=family, **packet))
        assert judged in evaluate(configuration, family, name, packet)[0]


@settings(max_examples=60)
@given(text=cisco_like.texts())
def test_no_text_crashes_it(text: str) -> None:
    cisco_iosxr.incomplete(text)
    try:
        configuration = cisco_iosxr.parse(text)
    except NotThisPlatform:
        return
    for binding in configuration.bindings:
        assert all((binding.family, name) in configuration.filters for name in binding.filters)


XR_WORDS = (
    "ipv4 ipv6 access-list access-group common A B ingress egress compress level 3 hardware-count dynamic-template "
    "type ppp RES pool vrf default router static address-family unicast object-group network port net-group port-group "
    "unnumbered Loopback0 apply-group group interface preconfigure Bundle-Ether1 permit deny tcp any eq smtp capture "
    "nexthop1 police fragment-type is-fragment dscp range aaa authorization subscriber verify reachable-via rx / 10"
).split()


@settings(max_examples=60)
@given(
    lines=st.lists(
        st.tuples(st.integers(0, 3), st.lists(st.sampled_from(XR_WORDS), min_size=1, max_size=8)), max_size=25
    )
)
def test_no_words_of_its_own_crash_it(lines: list[tuple[int, list[str]]]) -> None:
    text = "\n".join(["hostname pe9", *(" " * depth + " ".join(words) for depth, words in lines)])
    configuration = cisco_iosxr.parse(text)
    for binding in configuration.bindings:
        assert all((binding.family, name) in configuration.filters for name in binding.filters)


@settings(max_examples=40)
@given(words=st.lists(st.lists(st.sampled_from(cisco_like.WORDS), min_size=1, max_size=9), min_size=1, max_size=9))
def test_no_line_of_a_list_is_skipped(words: list[list[str]]) -> None:
    lines = [f" permit {' '.join(one)}" for one in words]
    configuration = cisco_iosxr.parse("\n".join(["hostname pe9", "ipv4 access-list A", *lines]))
    assert {entry.line for entry in configuration.filters[4, "A"].entries} == set(range(3, 3 + len(lines)))


def test_a_text_that_is_cut_anywhere_is_told() -> None:
    whole = Device.load("pe1", CONFIGS).snapshot()
    assert cisco_iosxr.incomplete(whole) == ""
    for length in range(0, len(whole) - 1, 97):
        assert cisco_iosxr.incomplete(whole[:length]), length
        if length > 400:
            cisco_iosxr.parse(whole[:length])
    assert "cut off" in cisco_iosxr.incomplete(whole.rstrip()[:-1])


def test_a_push_gives_one_state_at_its_commit() -> None:
    rule_set = RuleSet("ISP-UP6-1", 6, "up", (Rule("deny", "tcp", destination_ports=((25, 25),)), Rule("permit")))
    places = ("Bundle-Ether1", "dynamic-template type ppp RES")
    change = Change((rule_set,), tuple(Bind(place, "up", 6, "ISP-UP6-1") for place in places))
    lines = cisco_iosxr.lines(TEMPLATE.render(cisco_iosxr.fields(change)))
    assert lines == [
        "ipv6 access-list ISP-UP6-1",
        "remark extension headers hide the ports",
        *(f"deny {number} any any" for number in (0, 43, 44, 60, 135)),
        "deny tcp any any eq 25",
        "permit ipv6 any any",
        "exit",
        "interface Bundle-Ether1",
        "ipv6 access-group ISP-UP6-1 ingress",
        "exit",
        "dynamic-template type ppp RES",
        "ipv6 access-group ISP-UP6-1 ingress",
        "exit",
    ]
    (text,) = cisco_iosxr.apply(RUNNING, lines)
    assert "  ipv4 access-group OLD egress\n  ipv6 access-group ISP-UP6-1 ingress\n !\n!\n" in text
    bound = [(one.attachment, one.direction, one.family, one.filters) for one in cisco_iosxr.parse(text).bindings]
    assert sorted(bound) == [
        ("Bundle-Ether1", "in", 4, ("OLD",)),
        ("Bundle-Ether1", "in", 6, ("ISP-UP6-1",)),
        ("Bundle-Ether2", "in", 4, ("common COMMON + OLD",)),
        ("dynamic-template type ppp RES", "in", 6, ("ISP-UP6-1",)),
        ("dynamic-template type ppp RES", "out", 4, ("OLD",)),
    ]


def test_a_list_takes_the_place_of_a_chain() -> None:
    lines = ["interface Bundle-Ether2", "ipv4 access-group OLD ingress", "exit"]
    (text,) = cisco_iosxr.apply(RUNNING, lines)
    assert "interface Bundle-Ether2\n ipv4 access-group OLD ingress\n!" in text


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["interface Bundle-Ether9"], "no such place"),
        (["dynamic-template type ppp NONE"], "no such place"),
        (["interface Bundle-Ether1", "ipv4 nat inside"], "not understood on an interface"),
        (["interface Bundle-Ether1", "ipv4 access-group OLD in"], "not understood on an interface"),
        (["interface Bundle-Ether1", "ipv4 access-group ingress"], "names no list"),
        (["interface Bundle-Ether1", "no ipv4 access-group OLD egress"], "nothing is bound there"),
        (["permit ipv4 any any"], "not understood here"),
        (["ipv4 access-list OLD", "10 deny ipv4 any any"], "has another line 10"),
        (["no ipv4 access-list NONE"], "nothing of that name"),
        (["reload"], "not understood here"),
    ],
)
def test_apply_refuses_what_it_does_not_know(lines: list[str], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        list(cisco_iosxr.apply(RUNNING, lines))


def test_restore_brings_lists_and_their_groups_back() -> None:
    running = RUNNING.replace("object-group network ipv4 MAIL\n host 192.0.2.25\n!\n", "")
    running = running.replace("ipv4 access-list OLD\n 10 permit tcp any net-group MAIL eq www\n!\n", "")
    running = running.replace(
        "ipv4 access-list COMMON", "ipv4 access-list ISP-UP4-1\n 10 permit ipv4 any any\n!\nipv4 access-list COMMON"
    )
    running = running.replace(" ipv4 access-group OLD ingress\n", " ipv4 access-group ISP-UP4-1 ingress\n")
    lines = cisco_iosxr.restore(running, RUNNING, ["Bundle-Ether1"])
    assert lines == [
        *("object-group network ipv4 MAIL", "host 192.0.2.25", "exit"),
        *("ipv4 access-list OLD", "10 permit tcp any net-group MAIL eq www", "exit"),
        *("interface Bundle-Ether1", "ipv4 access-group OLD ingress", "exit"),
        "no ipv4 access-list ISP-UP4-1",
    ]
    assert cisco_iosxr.restore(RUNNING, RUNNING, ["Bundle-Ether1", "Bundle-Ether2"]) == []


def test_restore_brings_a_chain_and_a_template_back() -> None:
    running = RUNNING.replace(" ipv4 access-group common COMMON OLD ingress hardware-count\n", "")
    running = running.replace("  ipv4 access-group OLD egress\n", "")
    names = ["Bundle-Ether2", "dynamic-template type ppp RES"]
    plan = restoring(cisco_iosxr, running, RUNNING, names)
    assert plan.lines == (
        "interface Bundle-Ether2",
        "ipv4 access-group common COMMON OLD ingress hardware-count",
        "exit",
        "dynamic-template type ppp RES",
        "ipv4 access-group OLD egress",
        "exit",
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "answered nothing"),
        (RUNNING, ""),
        (f"Building configuration...\n{RUNNING}", ""),
        (f"Thu Nov 26 10:00:00.123 UTC\n!! Building configuration...\n{RUNNING}", ""),
        (RUNNING.replace("\nend\n", "\n"), "ends with '!' and not with 'end'"),
        (RUNNING.replace("hostname", "\x1b[7mhostname"), "line 3 holds a terminal escape"),
        (RUNNING.replace("!\nhostname", " --More-- \nhostname"), "line 2 holds a pager's prompt"),
        ("% Invalid input detected at '^' marker.\n", "answered '% Invalid input"),
        ("Building configuration...\n\nhostname bng1\nend\n", "a configuration of Cisco IOS, not of Cisco IOS XR"),
        ("! Command: show running-config\nhostname e1\nend\n", "a configuration of Arista EOS"),
    ],
)
def test_what_is_no_whole_configuration(text: str, reason: str) -> None:
    found = cisco_iosxr.incomplete(text)
    assert reason in found
    assert bool(found) == bool(reason)


def test_text_of_nothing_is_not_this_platform() -> None:
    with pytest.raises(NotThisPlatform, match="check ansible_network_os"):
        cisco_iosxr.parse("system {\n    host-name core1;\n}\n")


@pytest.mark.parametrize(
    ("answer", "rejected"),
    [
        ("          ^\n% Invalid input detected at '^' marker.\n", True),
        ("% Incomplete command.\n", True),
        ("Cannot enter exclusive mode. The Configuration Namespace is locked by another agent.\n", True),
        ("% Cannot commit because there is an unexpired trial/rollback session '1'.\n", True),
        ("No configuration changes to commit.\n", True),
        ("% Failed to commit one or more configuration items during a pseudo-atomic operation.\n", True),
        ("% Confirming commit for trial session.\n", False),
        ("RP/0/RSP0/CPU0:Nov 26 10:00:00.1: config[1]: %MGBL-CONFIG-6-DB_COMMIT : Configuration committed\n", False),
        ("%MGBL-SYS-5-CONFIG_I : Configured from console by audit\n", False),
    ],
)
def test_rejections(answer: str, rejected: bool) -> None:
    assert any(re.search(pattern, answer, re.MULTILINE) for pattern in cisco_iosxr.REJECTED) == rejected


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        (Rule("permit", "", destination_ports=((25, 25),)), "has ports and no protocol"),
        (Rule("deny", undetermined=True), "choose profile: standard"),
    ],
)
def test_a_rule_that_no_line_can_hold_raises(rule: Rule, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        cisco_iosxr.fields(Change((RuleSet("ISP-UP4-1", 4, "up", (rule,)),), ()))


def test_a_list_of_ours_in_a_chain_of_somebody_s_stays() -> None:
    case = next(one for one in cases() if one.network_os == "cisco_iosxr")
    more = (
        "ipv4 access-list ISP-UP4-0badcafe\n 10 permit ipv4 any any\n!\n"
        "interface Bundle-Ether9\n ipv4 access-group common INFRA-IN4 ISP-UP4-0badcafe ingress\n!\n"
    )
    running = case.old.replace("interface Bundle-Ether1\n", f"{more}interface Bundle-Ether1\n", 1)
    (binding,) = (one for one in cisco_iosxr.parse(running).bindings if one.attachment == "Bundle-Ether9")
    assert not binding.filters[0].startswith("ISP-")  # it is not ours to replace
    assert "no ipv4 access-list ISP-UP4-0badcafe" not in case.plan(running).lines
    alone = running.replace("common INFRA-IN4 ISP-UP4-0badcafe", "INFRA-IN4")
    assert "no ipv4 access-list ISP-UP4-0badcafe" in case.plan(alone).lines


class Ssh:
    """A router behind the connection plugin, as the action has it."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.typed: list[str] = []

    def send(self, command: str) -> str:
        self.typed.append(command)
        return self.connection.send(command)

    def reset(self) -> None:
        self.connection.reset()

    def beside(self, commands: Sequence[str]) -> str:
        return self.connection.beside(commands)


@pytest.mark.parametrize("proves", [True, False])
def test_a_push_over_ssh_is_confirmed_in_its_own_session_or_taken_back(tmp_path: Path, proves: bool) -> None:
    case = next(one for one in cases() if one.network_os == "cisco_iosxr")
    router = case.router()
    definitions = yaml.safe_load(DOCUMENTATION)["options"]
    constants.config.initialize_plugin_configuration_definitions("connection", "isp.hardening.netmiko", definitions)
    with serve([router], Access(password="only-in-this-test")) as served:
        (tmp_path / "known_hosts").write_text(served.known_hosts)
        connection = Connection(PlayContext())
        connection._load_name = "isp.hardening.netmiko"
        given: dict[str, Any] = {
            "host": LOOPBACK, "port": served.ports[router.name], "network_os": "cisco.iosxr.iosxr",
            "remote_user": "audit", "password": "only-in-this-test", "known_hosts": str(tmp_path / "known_hosts"),
        }  # fmt: skip
        connection.set_options(direct=given)
        session = Ssh(connection)
        running = session.send("show running-config")
        assert running.rstrip("\n") == router.snapshot().rstrip("\n")
        before = cisco_iosxr.parse(running)
        plan = case.plan(calm(running))
        outcome = push(
            cisco_iosxr, session, plan, before, case.names, lambda _: "" if proves else "it does not prove", MINUTES
        )
        connection.close()
    lines = [one.lines for one in router.sessions]
    arming = next(one for one in lines if "configure exclusive" in one)
    assert f"commit confirmed {MINUTES * 60}" in arming
    if proves:
        assert outcome.state == "changed", outcome.message
        assert calm(router.snapshot()) == case.new
        assert "commit" in arming  # in the session that armed, with another login beside it
        assert len(lines) == 2
        router.clock.advance(3600)
        assert calm(router.snapshot()) == case.new
    else:
        assert outcome.state == "rolled_back"
        assert "the router has its old filters" in outcome.message
        assert arming[-2:] == ["end", "yes"]
        assert calm(router.snapshot()) == case.old
    assert router.trial is None
    assert router.lock is None


CHANGE = (
    "ipv4 access-list X",
    "deny tcp any any eq 25",
    "permit ipv4 any any",
    "exit",
    "interface Bundle-Ether1",
    "ipv4 access-group X ingress",
)


@pytest.fixture
def pe() -> Device:
    return Device("pe9", RUNNING)


def type_in(session: XrSession, *lines: str) -> str:
    """All that is printed for the lines, and the prompt behind them."""
    return "".join(str(session.execute(line)) for line in lines)


def login(router: Device) -> XrSession:
    session = router.login()
    assert isinstance(session, XrSession)
    return session


def smtp(router: Device, **fields: object) -> str:
    packet = {
        "family": 4, "source": "198.51.100.7", "destination": "203.0.113.9", "protocol": 6, "source_port": 50000,
        "destination_port": 25, "tcp_flags": 2,
    }  # fmt: skip
    return judge(router, "Bundle-Ether1", "up", packet | fields)


def test_lab_the_configuration_is_printed_as_it_was_loaded() -> None:
    text = (CONFIGS / "pe1.cfg").read_text(encoding="utf-8")
    assert calm(Device.load("pe1", CONFIGS).snapshot()) == "!! IOS XR Configuration 7.5.2\n" + calm(text)


def test_lab_every_entry_of_the_configuration_is_what_the_router_would_print() -> None:
    loaded = Device.load("pe1", CONFIGS).running
    typed = [
        (block.line, child.line)
        for block in loaded.root.children
        if loaded.dialect(block.line)
        for child in block.children
    ]
    assert len(typed) > 150
    fresh = Device("fresh", "end\n")
    session = login(fresh)
    type_in(session, "configure")
    for header, line in typed:
        assert type_in(session, header, line, "exit") == "", line
    assert type_in(session, "commit") == ""
    printed = fresh.snapshot().splitlines()
    assert [line for _, line in typed if f" {line}" not in printed] == []


def test_lab_lines_act_together_at_the_commit(pe: Device) -> None:
    verdicts: list[str] = []
    pe.on_change(lambda: verdicts.append(smtp(pe)))
    session = login(pe)
    assert type_in(session, "configure exclusive", *CHANGE) == ""
    assert session.prompt == "RP/0/RSP0/CPU0:pe9(config-if)#"
    assert verdicts == []
    assert type_in(session, "commit") == ""
    assert verdicts == ["deny"]


def test_lab_a_trial_is_confirmed_by_its_session_alone(pe: Device) -> None:
    one, other = login(pe), login(pe)
    assert type_in(one, "configure exclusive", *CHANGE, "commit confirmed 300") == ""
    assert "A trial commit is underway" in type_in(other, "configure exclusive")
    assert type_in(other, "configure", "commit") == "No configuration changes to commit.\n"
    assert "unexpired trial" in type_in(other, "hostname pe8", "commit")
    assert type_in(one, "commit") == "% Confirming commit for trial session.\n"
    pe.clock.advance(1000)
    assert smtp(pe) == "deny"
    assert type_in(one, "commit") == "No configuration changes to commit.\n"


def test_lab_the_timer_takes_back_what_nobody_confirmed_and_a_lost_session_changes_nothing_of_that(pe: Device) -> None:
    before = calm(pe.snapshot())
    session = login(pe)
    type_in(session, "configure exclusive", *CHANGE, "commit confirmed minutes 5")
    session.hang_up()
    pe.clock.advance(299)
    assert smtp(pe) == "deny"
    pe.clock.advance(1)
    assert calm(pe.snapshot()) == before


@pytest.mark.parametrize("answer", ["yes", "no", ""])
def test_lab_leaving_a_trial_asks(pe: Device, answer: str) -> None:
    before = calm(pe.snapshot())
    session = login(pe)
    type_in(session, "configure exclusive", *CHANGE, "commit confirmed 300")
    assert "immediately rollback" in type_in(session, "end")
    assert session.prompt == "Do you wish to exit? [no]: "
    type_in(session, answer)
    assert (calm(pe.snapshot()) == before) == (answer == "yes")
    assert session.configuring == (answer != "yes")
    assert (pe.trial is None) == (answer == "yes")


@pytest.mark.parametrize(
    ("answer", "verdict", "configuring"), [("yes", "deny", False), ("no", "", False), ("cancel", "", True)]
)
def test_lab_leaving_with_changes_asks(pe: Device, answer: str, verdict: str, configuring: bool) -> None:
    before = calm(pe.snapshot())
    session = login(pe)
    type_in(session, "configure", *CHANGE, "exit")
    assert type_in(session, "exit") == ""
    assert session.prompt.startswith("Uncommitted changes found")
    type_in(session, answer)
    assert session.configuring == configuring
    assert (calm(pe.snapshot()) == before) == (not verdict)


def test_lab_the_lock_is_one_session_s_and_is_given_up(pe: Device) -> None:
    one, other = login(pe), login(pe)
    type_in(one, "configure exclusive")
    assert "locked by another agent" in type_in(other, "configure exclusive")
    assert "locked by another session" in type_in(other, "configure", "hostname pe8", "commit")
    type_in(other, "abort")
    type_in(one, "hostname pe7", "abort")
    assert type_in(other, "configure exclusive") == ""


def test_lab_two_sessions_merge(pe: Device) -> None:
    one, other = login(pe), login(pe)
    type_in(one, "configure", *CHANGE)
    type_in(other, "configure", "interface Bundle-Ether1", "description north", "commit")
    assert type_in(one, "commit") == ""
    assert {" description north", " ipv4 access-group X ingress"} <= set(pe.snapshot().splitlines())


@pytest.mark.parametrize(
    "lines",
    [
        ("no ipv4 access-list OLD",),
        (
            "ipv4 access-list EMPTY",
            "remark nothing",
            "exit",
            "interface Bundle-Ether1",
            "ipv4 access-group EMPTY ingress",
        ),
    ],
)
def test_lab_a_commit_that_would_leave_a_binding_without_lines_fails(pe: Device, lines: tuple[str, ...]) -> None:
    before = calm(pe.snapshot())
    assert "% Failed to commit" in type_in(login(pe), "configure", *lines, "commit")
    assert calm(pe.snapshot()) == before


def test_lab_a_line_of_the_same_number_takes_the_place(pe: Device) -> None:
    type_in(login(pe), "configure", "ipv4 access-list OLD", "10 deny udp any any", "commit")
    assert "ipv4 access-list OLD\n 10 deny udp any any\n!" in pe.snapshot()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("permit tpc any any", "% Invalid input"),
        ("permit ip any any", "% Invalid input"),
        ("permit tcp any any eq 25 26", "% Invalid input"),
        ("permit tcp any any object-group MAIL", "% Invalid input"),
        ("deny ipv4 any any undetermined-transport", "% Invalid input"),
        ("permit tcp any", "% Incomplete command"),
        ("permit tcp any any eq 25 fragments", "% Invalid input"),
    ],
)
def test_lab_a_wrong_line_is_refused(pe: Device, line: str, words: str) -> None:
    assert words in type_in(login(pe), "configure", "ipv4 access-list X", line)


@pytest.mark.parametrize("line", ["commit confirmed", "commit confirmed 29", "commit confirmed 65536", "commit now"])
def test_lab_a_commit_that_is_not_understood_commits_nothing(pe: Device, line: str) -> None:
    before = calm(pe.snapshot())
    assert "% In" in type_in(login(pe), "configure", *CHANGE, line)
    assert calm(pe.snapshot()) == before


def test_lab_a_common_list_is_searched_first_and_permits_pass_later_fragments(pe: Device) -> None:
    type_in(
        login(pe), "configure", "ipv4 access-list C", "permit tcp any any eq 80", "exit", "ipv4 access-list I",
        "deny tcp any any eq 80", "permit tcp any any eq 81", "exit", "interface Bundle-Ether1",
        "ipv4 access-group common C I ingress", "commit",
    )  # fmt: skip
    assert smtp(pe, destination_port=80) == "permit"
    assert smtp(pe, destination_port=81) == "permit"
    assert smtp(pe, destination_port=82) == "deny"
    assert smtp(pe, destination_port=82, fragment=2) == "permit"


def test_lab_groups_of_ports(pe: Device) -> None:
    type_in(
        login(pe), "configure", "object-group port RPC", "eq 593", "exit", "object-group port WINDOWS", "range 137 139",
        "eq 445", "object-group RPC", "exit", "object-group port NONE", "exit", "ipv4 access-list C",
        "permit tcp any any port-group NONE", "deny tcp any any port-group WINDOWS", "permit ipv4 any any", "exit",
        "interface Bundle-Ether1", "ipv4 access-group C ingress", "commit",
    )  # fmt: skip
    assert [smtp(pe, destination_port=port) for port in (136, 138, 445, 593)] == ["permit", "deny", "deny", "deny"]
