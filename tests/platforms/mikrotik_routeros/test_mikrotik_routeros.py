# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""RouterOS: what is rendered means what was asked for, to parser and lab; texts that are cut; a push over SSH."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from ansible import constants
from ansible.playbook.play_context import PlayContext
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.isp.hardening.plugins.connection.netmiko import DOCUMENTATION, Connection
from ansible_collections.isp.hardening.plugins.module_utils.filters import NotThisPlatform, evaluate
from ansible_collections.isp.hardening.plugins.module_utils.packets import PROTOCOLS, contains, prefix
from ansible_collections.isp.hardening.plugins.module_utils.plan import Refused, restoring, same_in_force
from ansible_collections.isp.hardening.plugins.module_utils.platforms import load, mikrotik_routeros
from ansible_collections.isp.hardening.plugins.module_utils.push import push, read
from ansible_collections.isp.hardening.plugins.module_utils.rules import Bind, Change, Rule, RuleSet
from lab.__main__ import CONFIGS
from lab.judge import Packet
from lab.routers import kind
from lab.routers.base import Router
from lab.routers.mikrotik_routeros import Console, State
from lab.server import LOOPBACK, Access, serve
from tests.unit.cisco_like import packets, renderer, rule_sets
from tests.unit.pushes import MINUTES, cases

HERE = Path(__file__).parent
BARE = yaml.safe_load((HERE / "bare.yml").read_text())["running"]
TEMPLATE = renderer("mikrotik_routeros")
WISP1 = kind("mikrotik_routeros").load("wisp1", CONFIGS).snapshot()
NAMES = ["interface-list subs", "vlan200", "vlan300", "vlan310"]
CASE = next(one for one in cases() if one.network_os == "mikrotik_routeros")


def change(*filters: RuleSet, attachment: str = "vlan100") -> Change:
    return Change(filters, tuple(Bind(attachment, one.direction, one.family, one.name) for one in filters))


def rendered(wanted: Change) -> list[str]:
    return mikrotik_routeros.lines(TEMPLATE.render(mikrotik_routeros.fields(wanted)))


def pushed(router: Router, lines: list[str]) -> str:
    """The router's text after these lines, armed and confirmed."""
    fill = {"minutes": MINUTES}
    commands = [mikrotik_routeros.PUSH.arm[0].format(**fill), *lines, mikrotik_routeros.PUSH.confirm[0].format(**fill)]
    for command in commands:
        assert router.execute(command) == "", command
    return router.snapshot()


def means(rule: Rule, family: int, packet: dict[str, int]) -> bool:
    """Whether the rule is about the packet, written anew."""
    ends = ((rule.sources, "source"), (rule.destinations, "destination"))
    if any(texts and not any(contains(prefix(one, family), packet[end]) for one in texts) for texts, end in ends):
        return False
    if rule.protocol and packet["protocol"] != PROTOCOLS[rule.protocol]:
        return False
    for ranges, end in ((rule.source_ports, "source_port"), (rule.destination_ports, "destination_port")):
        if ranges and not any(low <= packet[end] <= high for low, high in ranges):
            return False
    kinds = [packet["icmp_type"] == one and code in (None, packet["icmp_code"]) for one, code in rule.icmp]
    return any(kinds) or not rule.icmp


def whole(rules: RuleSet) -> RuleSet:
    """Without rules on fragments, which the router puts together."""
    return dataclasses.replace(rules, rules=tuple(rule for rule in rules.rules if not rule.later_fragments))


@pytest.mark.parametrize("family", [4, 6])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_what_is_rendered_means_what_was_asked_for(family: int, data: st.DataObject) -> None:
    rules = whole(data.draw(rule_sets(family)))
    router = kind("mikrotik_routeros")("r", BARE)
    text = pushed(router, rendered(change(rules)))
    assert mikrotik_routeros.incomplete(text) == ""
    configuration = mikrotik_routeros.parse(text, ["vlan100"])
    assert configuration.doubts == ()
    (binding,) = (
        one for one in configuration.bindings if (one.family, one.direction) == (family, "in")
    )  # fmt: skip
    for _ in range(4):
        packet = data.draw(packets(family, plain=False)) | {"undetermined": 0}
        if packet["fragment"] & 2 or (family == 4 and packet["source"] >> 24 == 0):
            continue
        found = next(rule.action for rule in rules.rules if means(rule, family, packet))
        actions, _ = evaluate(configuration, family, binding.filters[0], packet)
        assert actions == {found}, packet
        assert router.judge("vlan100", "up", Packet(family=family, **packet)) == found


def test_the_template_is_read_as_the_router_prints_it() -> None:
    """What the plan foresees, and what the router has once it is confirmed, are the same filters."""
    rules = RuleSet("ISP-UP4-0badcafe", 4, "up", (Rule("deny", "tcp", destination_ports=((25, 25),)), Rule("permit")))
    commands = rendered(change(rules))
    foreseen = list(mikrotik_routeros.apply(BARE, commands))
    assert len(foreseen) == len(commands)
    assert foreseen[0] == BARE.rstrip("\n") or foreseen[0] == BARE
    real = pushed(kind("mikrotik_routeros")("r", BARE), commands)
    names = ["vlan100"]
    assert same_in_force(mikrotik_routeros.parse(foreseen[-1], names), mikrotik_routeros.parse(real, names))


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (Rule("deny", "tcp", later_fragments=True), "puts fragments together"),
        (Rule("deny", undetermined=True), "no matcher for incomplete header chains"),
        (Rule("deny", "", destination_ports=((25, 25),)), "ports need a protocol"),
        (Rule("deny", "tcp", icmp=((3, 4),)), "need its own ICMP"),
    ],
)
def test_what_cannot_be_written_is_refused(rule: Rule, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        mikrotik_routeros.fields(change(RuleSet("ISP-UP4-1", 4, "up", (rule,))))


@pytest.mark.parametrize(("attachment", "said"), [("ppp profile res", "interface-list"), ('vl"an', "no name")])
def test_where_nothing_can_be_bound(attachment: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        mikrotik_routeros.fields(change(RuleSet("ISP-UP4-1", 4, "up", (Rule("permit"),)), attachment=attachment))


@pytest.mark.parametrize(
    "command",
    [
        "/ip firewall filter remove [find]",
        "/ip firewall filter add chain=forward action=accept",
        "/ip firewall filter set [find where chain=\"forward\"] disabled=yes",
        "/ip firewall address-list add list=x address=192.0.2.1",
        ":if ([:len [/system scheduler find where name=\"isp-rollback\"]] = 0) do={}; /system reset",
    ],
)  # fmt: skip
def test_a_command_of_somebody_else_is_not_foreseen(command: str) -> None:
    with pytest.raises(ValueError, match=r"not one of ours|not ours"):
        list(mikrotik_routeros.apply(WISP1, [command]))


@pytest.mark.parametrize(
    "spoil",
    [
        "/ip firewall filter add chain=forward in-interface-list=subs out-interface-list=network place-before=0",
        '/ip firewall filter set [find where comment="ISP-EDGE up interface-list subs"] protocol=tcp',
    ],
)
def test_an_anchor_that_was_moved_or_changed_is_mended(spoil: str) -> None:
    """Somebody puts a rule above it, or narrows it: the next push puts a new one on top."""
    router = kind("mikrotik_routeros")("wisp1", CASE.new)
    assert router.execute(spoil) == ""
    plan = CASE.plan(router.snapshot())
    assert plan.lines
    pushed(router, list(plan.lines))
    assert CASE.wrong_in(router.snapshot()) == []


def test_our_chain_that_was_changed_gets_a_new_name() -> None:
    router = kind("mikrotik_routeros")("wisp1", CASE.new)
    chain = next(one for family, one in mikrotik_routeros.parse(CASE.new).filters if one.startswith("ISP-UP4"))
    assert router.execute(f'/ip firewall filter remove [find where chain="{chain}" and protocol="udp"]') == ""
    plan = CASE.plan(router.snapshot())
    text = pushed(router, list(plan.lines))
    assert CASE.wrong_in(text) == []
    assert f"chain={chain}-" in text
    assert f"chain={chain} " not in text  # it is gone with the confirmation


def test_back_to_a_backup() -> None:
    """A push is taken back from a backup, and so is that."""
    for running, backup in itertools.permutations((CASE.old, CASE.new)):
        plan = restoring(mikrotik_routeros, running, backup, CASE.names)
        assert plan.lines
        router = kind("mikrotik_routeros")("wisp1", running)
        text = pushed(router, list(plan.lines))
        now, then = (mikrotik_routeros.parse(one, CASE.names) for one in (text, backup))
        assert same_in_force(now, then)
        assert restoring(mikrotik_routeros, text, backup, CASE.names).lines == ()
    with pytest.raises(Refused, match="cut off"):
        restoring(mikrotik_routeros, CASE.new, CASE.old[:-40], CASE.names)


# Texts that are cut or garbled


def test_a_text_that_is_cut_is_told() -> None:
    assert mikrotik_routeros.incomplete(WISP1) == ""
    lines = WISP1.splitlines(keepends=True)
    for number in range(len(lines)):
        assert mikrotik_routeros.incomplete("".join(lines[:number])), number
    for cut in range(1, 18):
        assert mikrotik_routeros.incomplete(WISP1[:-cut].rstrip("\n") if cut > 1 else WISP1[:-2]), cut


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "nothing"),
        (f"\x1b[9999B{WISP1}", "escapes"),
        ("failure: not enough permissions\n", "error message"),
        (f"{WISP1}bad command name put (line 1 column 10)\n", "error message"),
        ("/ip firewall filter\nadd chain=forward\n# end of export\n", "by RouterOS"),
    ],
)
def test_a_text_that_cannot_be_used(text: str, said: str) -> None:
    assert said in mikrotik_routeros.incomplete(text)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_text_is_too_strange(data: st.DataObject) -> None:
    """A piece is cut out or put in: it is read, or refused, and never more."""
    text = WISP1
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        gone = data.draw(st.integers(0, 400))
        text = text[:start] + data.draw(st.sampled_from(("", '"', "\\\n", "[", "=", "!", "/", "\x00", "add "))) + text[
            start + gone :
        ]  # fmt: skip
    assert isinstance(mikrotik_routeros.incomplete(text), str)
    try:
        configuration = mikrotik_routeros.parse(text, NAMES)
    except NotThisPlatform:
        return
    for binding in configuration.bindings:
        for name in binding.filters:
            assert (binding.family, name) in configuration.filters


@pytest.mark.parametrize("name", ["community.routeros.routeros", "mikrotik_routeros", "routeros"])
def test_other_names(name: str) -> None:
    assert load(name) is mikrotik_routeros


def test_other_platforms_texts_are_refused() -> None:
    for name in ("bng1", "edge1", "core1"):
        with pytest.raises(NotThisPlatform):
            mikrotik_routeros.parse((CONFIGS / f"{name}.cfg").read_text())


# The console of the lab is as strict as the real one


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/ip firewall filter add chain=forward action=block", "input does not match any value of action"),
        ("/ip firewall filter add action=drop", "missing value(s) of argument(s) chain"),
        ("/ip firewall filter add chain=forward dst-port=25", "failure: ports can be specified if proto is set"),
        ("/ip firewall filter add chain=forward action=jump", "failure: jump target must be specified"),
        ("/ip firewall filter add chain=forward src-address=2001:db8::1", "invalid value for argument src-address"),
        ("/ip firewall filter add chain=forward in-interface=vlan9", "input does not match any value of in-interface"),
        ("/ip firewall filter add chain=forward in-interface-list=x", "does not match any value of interface-list"),
        ("/ip firewall filter add chain=forward frobnicate=1", "expected end of command"),
        ("/ip firewall filter add chain=forward place-before=999", "no such item"),
        ("/ip firewall address-list add list=smarthosts address=192.0.2.25", "failure: already have such entry"),
        ("/ip firewall fliter add chain=forward", "bad command name fliter"),
        (':if ([:len [/ip route find]] > 0) do={:error "so it is"}', "so it is"),
        ("show running-config", "bad command name show"),
        ('/ip firewall filter add comment="open', "expected closing brace"),
    ],
)
def test_the_lab_refuses_what_routeros_refuses(line: str, said: str) -> None:
    router = kind("mikrotik_routeros")("wisp1", WISP1)
    output = router.execute(line)
    assert said in output
    assert router.snapshot() == WISP1


def test_menus_and_items_of_the_lab() -> None:
    console = Console(State([]), lambda *_: None)
    assert console.run("/ip firewall filter; add chain=forward action=drop; add chain=x place-before=0") == ""
    assert console.menu == "ip firewall filter"
    assert console.value("[/ip firewall filter find where action=drop]") == "1"
    assert console.run("/ip/firewall/filter/disable [find where action=drop]; ..; ..") == ""
    assert console.menu == "ip"
    assert "disabled=yes" in console.run("/export")


# Over SSH


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[tuple[Router, Connection]]:
    """The lab's router behind real SSH, and the connection that Ansible has to it."""
    name = "isp.hardening.netmiko"
    constants.config.initialize_plugin_configuration_definitions(
        "connection", name, yaml.safe_load(DOCUMENTATION)["options"]
    )
    router = CASE.router()
    with serve([router], Access(password="only-in-this-test")) as served:
        (tmp_path / "known_hosts").write_text(served.known_hosts)
        made = Connection(PlayContext())
        made._load_name = name
        made.set_options(
            direct={
                "host": LOOPBACK, "port": served.ports[router.name], "network_os": "community.routeros.routeros",
                "remote_user": "audit", "password": "only-in-this-test", "known_hosts": str(tmp_path / "known_hosts"),
            }
        )  # fmt: skip
        yield router, made
        made.close()


def test_a_push_over_ssh(connection: tuple[Router, Connection]) -> None:
    router, session = connection
    running = read(mikrotik_routeros, session)
    assert running.split() == router.snapshot().split()
    plan = CASE.plan(running)
    before = mikrotik_routeros.parse(running, CASE.names)
    outcome = push(mikrotik_routeros, session, plan, before, CASE.names, lambda _: "", MINUTES)
    assert (outcome.state, outcome.changed) == ("changed", True), outcome.message
    assert CASE.wrong_in(router.snapshot()) == []
    assert CASE.plan(read(mikrotik_routeros, session)).lines == ()


def test_a_line_that_is_rejected_over_ssh(connection: tuple[Router, Connection]) -> None:
    router, session = connection
    running = read(mikrotik_routeros, session)
    plan = CASE.plan(running)
    before = mikrotik_routeros.parse(running, CASE.names)
    router.faults.reject_at = 9
    outcome = push(mikrotik_routeros, session, plan, before, CASE.names, lambda _: "", MINUTES)
    assert outcome.state == "rejected"
    assert "the router has its old filters" in outcome.message
    assert router.snapshot().split() == WISP1.split()
