# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Huawei VRP: rules become lists that mean the rules, on interfaces and for user groups, and a push is one commit."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible import constants
from ansible.playbook.play_context import PlayContext
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.isp.hardening.plugins.connection.netmiko import DOCUMENTATION, Connection
from ansible_collections.isp.hardening.plugins.module_utils.audit import audit
from ansible_collections.isp.hardening.plugins.module_utils.filters import NotThisPlatform, evaluate
from ansible_collections.isp.hardening.plugins.module_utils.findings import COMPLIANT
from ansible_collections.isp.hardening.plugins.module_utils.plan import Plan, Refused, propose, restoring
from ansible_collections.isp.hardening.plugins.module_utils.platforms import huawei_vrp
from ansible_collections.isp.hardening.plugins.module_utils.policy import (
    Attachment,
    Policy,
    read_attachments,
    read_policy,
)
from ansible_collections.isp.hardening.plugins.module_utils.push import push
from ansible_collections.isp.hardening.plugins.module_utils.rules import Bind, Change, Rule, RuleSet
from lab.judge import Packet
from lab.routers import huawei_vrp as lab
from lab.server import LOOPBACK, Access, serve
from tests.unit import cisco_like

FOLDER = Path(__file__).parent
CONFIGS = Path(__file__).resolve().parents[3] / "lab" / "configs"
TEMPLATE = cisco_like.renderer("huawei_vrp")
PASSWORD = "pass-of-this-test"
RUNNING = """\
!Software Version V800R012C10SPC300
#
sysname bras2
#
user-group RES
#
ip pool RES4 bas local
 gateway 198.51.100.1 255.255.255.0
#
acl number 3000
 rule 5 permit tcp destination-port eq www
#
traffic classifier OLD operator or
 if-match acl 3000
#
traffic behavior PASS
#
traffic policy OLD
 classifier OLD behavior PASS precedence 1
#
aaa
 #
 domain res
  ip-pool RES4
  user-group RES
#
interface Eth-Trunk1.100
 ip address 203.0.113.1 255.255.255.0
 traffic-policy OLD inbound
#
interface Eth-Trunk1.200
 traffic-policy OLD inbound
#
return
"""
ONE = RuleSet("ISP-UP4-0badcafe", 4, "up", (Rule("deny", "tcp", destination_ports=((25, 25),)), Rule("permit")))
UP6 = RuleSet("ISP-UP6-0badcafe", 6, "up", (Rule("deny", "tcp", destination_ports=((25, 25),)), Rule("permit")))


def rendered(rule_set: RuleSet, attachment: str, direction: str = "up") -> list[str]:
    change = Change((rule_set,), (Bind(attachment, direction, rule_set.family, rule_set.name),))
    return huawei_vrp.lines(TEMPLATE.render(huawei_vrp.fields(change, RUNNING)))


def typed(router: lab.Device, lines: list[str]) -> None:
    """Commit the lines at the router, which takes every one of them."""
    session = router.login()
    for line in ("system-view", *lines, "commit", "return"):
        answer = session.execute(line)
        assert isinstance(answer, str)
        assert not any(re.search(one, answer, re.MULTILINE) for one in huawei_vrp.REJECTED), f"{line}: {answer}"


@settings(max_examples=50)
@given(data=st.data(), family=st.sampled_from((4, 6)))
def test_rendered_rules_mean_the_rules(data: st.DataObject, family: int) -> None:
    rule_set = data.draw(cisco_like.rule_sets(family))
    configuration = huawei_vrp.parse(TEMPLATE.render(huawei_vrp.fields(Change((rule_set,), ()))))
    for _ in range(4):
        packet = data.draw(cisco_like.packets(family, plain=True))
        wanted = {cisco_like.meaning(rule_set, packet, True)}
        found = evaluate(configuration, family, rule_set.name, packet)[0]
        # A plain `fragment` of IPv6 may be about first fragments too; these packets are none.
        assert found == wanted
        packet = data.draw(cisco_like.packets(family, plain=False))
        found = evaluate(configuration, family, rule_set.name, packet)[0]
        later = cisco_like.meaning(rule_set, packet, later_on_layer3=True)
        assert later in found
        if family == 4:
            assert found == {later}  # what a permit with ports does to later fragments is documented
        else:
            assert cisco_like.meaning(rule_set, packet, later_on_layer3=False) in found


@settings(max_examples=40)
@given(data=st.data())
def test_what_is_denied_is_denied_behind_extension_headers_too(data: st.DataObject) -> None:
    rule_set = data.draw(cisco_like.rule_sets(6))
    configuration = huawei_vrp.parse(TEMPLATE.render(huawei_vrp.fields(Change((rule_set,), ()))))
    packet = data.draw(cisco_like.packets(6, plain=False))
    whole = packet["fragment"] < 2 and not packet["undetermined"]
    if whole and cisco_like.meaning(rule_set, packet, later_on_layer3=False) == "deny":
        assert evaluate(configuration, 6, rule_set.name, packet)[0] == {"deny"}


@settings(max_examples=40)
@given(data=st.data(), family=st.sampled_from((4, 6)))
def test_the_lab_router_takes_the_lines_and_judges_alike(data: st.DataObject, family: int) -> None:
    """The lab shares no code with the platform: its router accepts every line, and its judge says the same."""
    rule_set = data.draw(cisco_like.rule_sets(family))
    router = lab.Device("bras2", RUNNING)
    typed(router, rendered(rule_set, "Eth-Trunk1.100"))
    configuration = huawei_vrp.parse(router.snapshot())
    bound = [one for one in configuration.bindings if (one.attachment, one.family) == ("Eth-Trunk1.100", family)]
    assert [one.filters for one in bound] == [(rule_set.name,)]
    for _ in range(4):
        packet = data.draw(cisco_like.packets(family, plain=data.draw(st.booleans())))
        judged = router.judge("Eth-Trunk1.100", "up", Packet(family=family, **packet))
        assert judged in evaluate(configuration, family, rule_set.name, packet)[0]


@settings(max_examples=40)
@given(data=st.data(), direction=st.sampled_from(("up", "down")))
def test_a_user_group_gets_what_the_rules_say_of_the_other_end(data: st.DataObject, direction: str) -> None:
    far, near = ("destinations", "sources") if direction == "up" else ("sources", "destinations")
    rule_set = data.draw(cisco_like.rule_sets(4))
    rules = tuple(
        Rule(**{name: getattr(rule, name) for name in Rule.__slots__} | {near: ()}) for rule in rule_set.rules
    )
    assert any(getattr(rule, far) == () for rule in rules)
    rule_set = RuleSet(rule_set.name, 4, direction, rules)
    router = lab.Device("bras2", RUNNING)
    typed(router, rendered(rule_set, "user-group RES", direction))
    configuration = huawei_vrp.parse(router.snapshot())
    way = "in" if direction == "up" else "out"
    (binding,) = (one for one in configuration.bindings if (one.attachment, one.direction) == ("user-group RES", way))
    assert binding.filters == (rule_set.name,)
    for _ in range(3):
        packet = data.draw(cisco_like.packets(4, plain=True))
        wanted = cisco_like.meaning(rule_set, packet, True)
        assert evaluate(configuration, 4, rule_set.name, packet)[0] == {wanted}
        assert router.judge("user-group RES", direction, Packet(family=4, **packet)) == wanted


WORDS = (
    "permit deny rule acl number name ipv6 advance ucl basic 3000 6000 tcp udp ip icmp any source destination "
    "user-group ip-address 192.0.2.1 0 0.0.0.255 24 2001:db8::/32 source-port destination-port eq range gt "
    "neq smtp 65536 -1 undo tcp-flag syn-flag bit-match established mask fragment fragment-type dscp ef ttl "
    "description step match-order auto traffic classifier behavior policy operator and or if-match "
    "traffic-policy inbound outbound global-acl precedence interface Eth-Trunk1 bas access-type "
    "layer2-subscriber aaa domain ip-pool pool section gateway header information traffic-filter "
    'packet-filter urpf strict # " return X \xb2 \x00'
).split()


@settings(max_examples=150)
@given(
    text=st.one_of(
        st.text(max_size=200),
        st.lists(
            st.builds(
                lambda indent, words: " " * indent + " ".join(words),
                st.integers(0, 2),
                st.lists(st.sampled_from(WORDS), max_size=9),
            ),
            max_size=25,
        ).map("\n".join),
    )
)
def test_no_text_crashes_it(text: str) -> None:
    huawei_vrp.incomplete(text)
    try:
        configuration = huawei_vrp.parse(text)
    except NotThisPlatform:
        return
    for binding in configuration.bindings:
        assert all((binding.family, name) in configuration.filters for name in binding.filters)


@settings(max_examples=100)
@given(words=st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=9), min_size=1, max_size=9))
def test_no_rule_of_a_list_is_skipped(words: list[list[str]]) -> None:
    lines = [f" rule {5 * number} permit {' '.join(one)}" for number, one in enumerate(words, 1)]
    configuration = huawei_vrp.parse("\n".join(["sysname x", "acl number 3000", *lines]))
    assert {entry.line for entry in configuration.filters[4, "3000"].entries} == set(range(3, 3 + len(lines)))


def test_every_cut_of_a_text_is_told() -> None:
    """A text that ends early is never taken for a whole one, and none of its beginnings crashes the parser."""
    whole = (CONFIGS / "bras1.cfg").read_text()
    lines = whole.splitlines(keepends=True)
    for end in range(0, len(lines), 9):
        part = "".join(lines[:end])
        assert huawei_vrp.incomplete(part)
        if part.count("\n") > 6:
            huawei_vrp.parse(part)
    assert huawei_vrp.incomplete(whole) == ""
    assert huawei_vrp.incomplete(whole[:-3])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "answered nothing"),
        (RUNNING, ""),
        (RUNNING.replace("\nreturn\n", "\n"), "ends with '#' and not with 'return'"),
        (RUNNING.replace("sysname", "\x1b[42Dsysname"), "line 3 holds a terminal escape"),
        (RUNNING.replace("acl number", "  ---- More ----\nacl number"), "holds a pager's prompt"),
        ("     ^\nError: Unrecognized command found at '^' position.\n", "answered 'Error: Unrecognized command"),
        ("Building configuration...\n\nhostname bng1\nend\n", "a configuration of Cisco IOS"),
    ],
)
def test_what_is_no_whole_configuration(text: str, reason: str) -> None:
    found = huawei_vrp.incomplete(text)
    assert reason in found
    assert bool(found) == bool(reason)


def test_text_of_nothing_is_not_this_platform() -> None:
    with pytest.raises(NotThisPlatform, match="check ansible_network_os"):
        huawei_vrp.parse("system {\n    host-name core1;\n}\n")


@pytest.mark.parametrize(
    ("answer", "rejected"),
    [
        ("                    ^\nError: Wrong parameter found at '^' position.\n", True),
        ("Error: The configuration is locked by another user.\n", True),
        ("Failed to generate committed configuration.\n", True),
        ("Info: The system enters the trial configuration mode.\n", False),
        ("Warning: The trial configuration will be confirmed. Continue? [Y/N]:y\n", False),
        (" traffic classifier Error-Pages operator or\n", False),
    ],
)
def test_rejections(answer: str, rejected: bool) -> None:
    assert any(re.search(pattern, answer, re.MULTILINE) for pattern in huawei_vrp.REJECTED) == rejected


def test_an_interface_gets_a_policy_of_its_own() -> None:
    """Another's policy may be in use elsewhere: its classifiers are taken over behind ours."""
    assert rendered(UP6, "Eth-Trunk1.100") == [
        "acl ipv6 name ISP-UP6-0badcafe advance",
        "rule 5 deny hoport",
        "rule 5 description extension headers hide the ports",
        "rule 10 deny ipv6-routing",
        "rule 15 deny ipv6-frag",
        "rule 20 deny ipv6-destination",
        "rule 25 deny 135",
        "rule 30 deny tcp destination-port eq 25",
        "rule 35 permit ipv6",
        "quit",
        "traffic classifier ISP-UP6-0badcafe operator or",
        "if-match ipv6 acl name ISP-UP6-0badcafe",
        "quit",
        "traffic behavior ISP-PASS",
        "permit",
        "quit",
        "traffic policy ISP-IN-Eth-Trunk1.100",
        "classifier ISP-UP6-0badcafe behavior ISP-PASS precedence 1000",
        "classifier OLD behavior PASS precedence 2000",
        "quit",
        "interface Eth-Trunk1.100",
        "undo traffic-policy OLD inbound",
        "traffic-policy ISP-IN-Eth-Trunk1.100 inbound",
        "quit",
    ]
    (text,) = huawei_vrp.apply(RUNNING, rendered(UP6, "Eth-Trunk1.100"))
    bound = {(one.attachment, one.family): one.filters for one in huawei_vrp.parse(text).bindings}
    assert bound["Eth-Trunk1.100", 6] == ("ISP-UP6-0badcafe",)
    assert bound["Eth-Trunk1.100", 4] == bound["Eth-Trunk1.200", 4] == ("3000",)


def test_the_policy_of_the_system_view_keeps_what_is_in_it() -> None:
    walled = RUNNING.replace(
        "aaa\n",
        "acl number 6000\n rule 5 permit ip source user-group WALLED\n#\ntraffic classifier WALLED operator or\n"
        " if-match acl 6000\n#\ntraffic behavior PORTAL\n http-redirect\n#\ntraffic policy USERS\n"
        " classifier WALLED behavior PORTAL precedence 1\n#\ntraffic-policy USERS inbound\n#\naaa\n",
    )
    change = Change((ONE,), (Bind("user-group RES", "up", 4, ONE.name),))
    lines = huawei_vrp.lines(TEMPLATE.render(huawei_vrp.fields(change, walled)))
    # There is no number left in front of theirs, so all get new ones, in their order.
    assert lines[lines.index("traffic policy USERS") + 1 :] == [
        "undo classifier WALLED",
        f"classifier {ONE.name} behavior ISP-PASS precedence 1000",
        "classifier WALLED behavior PORTAL precedence 2000",
        "quit",
    ]
    busy = walled.replace("user-group WALLED\n", "user-group RES\n")
    with pytest.raises(ValueError, match=r"does more than to filter there .*'http-redirect'"):
        huawei_vrp.fields(change, busy)


@pytest.mark.parametrize(
    ("rule", "attachment", "reason"),
    [
        (Rule("permit", "", destination_ports=((25, 25),)), "", "has ports and no protocol"),
        (Rule("permit", "tcp", icmp=((8, None),)), "", "is not of ICMP"),
        (Rule("permit", "nonsense"), "", "unknown protocol"),
        (Rule("deny", undetermined=True), "", "choose profile: standard"),
        (Rule("permit", "tcp", ("198.51.100.7/32",)), "user-group RES", "a user group and a pool of their own"),
    ],
)
def test_a_rule_that_no_line_can_hold_raises(rule: Rule, attachment: str, reason: str) -> None:
    binds = (Bind(attachment, "up", 4, ONE.name),) if attachment else ()
    with pytest.raises(ValueError, match=reason):
        huawei_vrp.fields(Change((RuleSet(ONE.name, 4, "up", (rule,)),), binds), RUNNING)


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["interface Eth-Trunk9"], "no such place"),
        (["interface Eth-Trunk1.100", "traffic-policy NEW inbound"], "another policy is applied there"),
        (["interface Eth-Trunk1.100", "undo traffic-policy NEW inbound"], "nothing of that name is applied there"),
        (["interface Eth-Trunk1.100", "shutdown"], "not understood on an interface"),
        (["acl number 3000", "rule 5 deny tcp"], "has another rule 5, and the two would merge"),
        (["undo acl number 3000"], "traffic classifier OLD operator or still uses it"),
        (["undo traffic classifier OLD"], "still uses it"),
        (["undo traffic policy OLD"], "still uses it"),
        (["undo acl name NONE"], "nothing of that name"),
        (["traffic policy OLD", "undo classifier NONE"], "no such classifier"),
        (["reboot"], "not understood here"),
    ],
)
def test_apply_refuses_what_it_does_not_know(lines: list[str], reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        list(huawei_vrp.apply(RUNNING, lines))


def _load(file: Path) -> Any:
    return yaml.safe_load(file.read_text())


def of_the_lab() -> tuple[Policy, tuple[Attachment, ...]]:
    inventory = CONFIGS.parents[1] / "inventories" / "lab"
    rows = _load(inventory / "host_vars" / "bras1.yml")["isp_attachments"]
    text = (inventory / "group_vars" / "all" / "policy.yml").read_text().partition("\nisp_mail:")[0]
    policy, problems = read_policy(yaml.safe_load(text)["isp_policy"], datetime.date(2026, 11, 23))
    assert policy is not None, problems
    attachments, problems = read_attachments(rows, policy)
    assert problems == []
    return policy, attachments


def planned(running: str, policy: Policy, attachments: tuple[Attachment, ...]) -> Plan:
    names = [one.name for one in attachments]
    findings = audit(huawei_vrp.parse(running, names), policy, attachments, "bras1")
    return propose(huawei_vrp, running, policy, attachments, findings, TEMPLATE.render, None)


def wrong(running: str, policy: Policy, attachments: tuple[Attachment, ...]) -> list[str]:
    names = [one.name for one in attachments]
    every = audit(huawei_vrp.parse(running, names), policy, attachments, "bras1")
    return [one.title for one in every if one.verdict != COMPLIANT and one.control.startswith("P")]


def test_the_whole_router_is_mended_at_once_stays_so_and_goes_back() -> None:
    """All attachments in one commit, users and interfaces; no second change; and every line back as it was."""
    policy, attachments = of_the_lab()
    router = lab.Device("bras1", (CONFIGS / "bras1.cfg").read_text())
    before = router.snapshot()
    assert wrong(before, policy, attachments)
    typed(router, list(planned(before, policy, attachments).lines))
    after = router.snapshot()
    assert wrong(after, policy, attachments) == []
    assert planned(after, policy, attachments).lines == ()
    back = restoring(huawei_vrp, after, before, [one.name for one in attachments])
    typed(router, list(back.lines))
    assert router.snapshot() == before
    assert huawei_vrp.restore(before, before, [one.name for one in attachments]) == []


def test_a_rule_whose_description_has_changed_comes_back_whole() -> None:
    """`undo rule 5` takes the rule with its description, so both are said again."""
    rule = " rule 5 permit tcp destination-port eq www\n"
    before = RUNNING.replace(rule, f"{rule} rule 5 description as agreed\n")
    now = RUNNING.replace(rule, f"{rule} rule 5 description for now\n rule 10 permit udp\n")
    (back,) = huawei_vrp.apply(now, huawei_vrp.restore(now, before, ["Eth-Trunk1.100"]))
    rules = back.partition("acl number 3000\n")[2].partition("#")[0]
    assert rules == f"{rule} rule 5 description as agreed\n"


def test_a_pool_with_an_exception_is_refused_for_a_user_group() -> None:
    """A rule has the user group or the host: the operator is told what to do instead."""
    policy, attachments = of_the_lab()
    (row,) = (one for one in attachments if one.name == "user-group FIBRE")
    fibre = (CONFIGS / "bras1.cfg").read_text()
    running = fibre.replace("gateway 198.51.100.129 255.255.255.192", "gateway 198.51.100.1 255.255.255.128")
    with pytest.raises(Refused, match=r"198\.51\.100\.7/32.*a user group and a pool of their own; nothing was changed"):
        planned(running, policy, (Attachment(row.name, ("residential",), True, ()),))


def test_nobody_commits_beside_a_trial_and_a_lock_ends_with_its_session() -> None:
    router = lab.Device("bras2", RUNNING)
    one, other = router.login(), router.login()
    for line in ("configuration exclusive", "system-view", "sysname trial"):
        assert "Error" not in str(one.execute(line))
    assert "locked by another user" in str(other.execute("configuration exclusive"))
    other.execute("system-view")
    assert "locked by another user" in str(other.execute("sysname other"))
    assert "enters the trial" in str(one.execute("commit trial 60 persist mine"))
    one.hang_up()
    assert "in trial configuration mode" in str(other.execute("sysname other"))
    assert "Error" in str(other.execute("commit persist theirs"))
    router.clock.advance(61)
    assert "sysname bras2" in router.snapshot()
    assert "Error" in str(other.execute("commit persist mine"))


Connect = Callable[[Any, lab.Device], Connection]


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[Connect]:
    definitions = yaml.safe_load(DOCUMENTATION)["options"]
    constants.config.initialize_plugin_configuration_definitions("connection", "isp.hardening.netmiko", definitions)
    made = []

    def make(served: Any, router: lab.Device) -> Connection:
        (tmp_path / "known_hosts").write_text(served.known_hosts)
        connection = Connection(PlayContext())
        connection._load_name = "isp.hardening.netmiko"
        options = {
            "host": LOOPBACK, "port": served.ports[router.name], "network_os": "huawei", "remote_user": "audit",
            "password": PASSWORD, "known_hosts": str(tmp_path / "known_hosts"), "command_timeout": 20,
        }  # fmt: skip
        connection.set_options(direct=options)
        made.append(connection)
        return connection

    yield make
    for connection in made:
        connection.close()


def test_netmiko_logs_in_reads_pushes_and_confirms(connect: Connect) -> None:
    """Over real SSH, with netmiko's own driver: prompts in brackets, questions answered, saved at the end."""
    policy, attachments = of_the_lab()
    router = lab.Device("bras1", (CONFIGS / "bras1.cfg").read_text())
    names = [one.name for one in attachments]
    with serve([router], Access(password=PASSWORD)) as served:
        connection = connect(served, router)
        running = connection.send("display current-configuration")
        assert running.rstrip("\n") == router.snapshot().rstrip("\n")
        outcome = push(
            huawei_vrp, connection, planned(running, policy, attachments), huawei_vrp.parse(running, names), names,
            lambda _: "", 5,
        )  # fmt: skip
        assert (outcome.state, outcome.message) == ("changed", "changed, proved and confirmed")
    assert wrong(router.snapshot(), policy, attachments) == []
    assert router.startup_text() == router.snapshot()
    assert router.trial is None
    assert router.lock is None
