# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""VyOS: what is rendered means what the rules mean, for the parser and for the lab; texts that are cut; real texts."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ansible_collections.isp.hardening.plugins.module_utils.filters import RETURN, NotThisPlatform, evaluate
from ansible_collections.isp.hardening.plugins.module_utils.packets import Packet
from ansible_collections.isp.hardening.plugins.module_utils.plan import Refused, restoring
from ansible_collections.isp.hardening.plugins.module_utils.platforms import vyos
from ansible_collections.isp.hardening.plugins.module_utils.push import push
from ansible_collections.isp.hardening.plugins.module_utils.rules import Bind, Change, Rule, RuleSet
from lab.judge import Packet as LabPacket
from lab.routers.vyos import Device
from lab.server import LOOPBACK, Access, serve
from tests.unit.cisco_like import meaning, packets, renderer, rule_sets, texts
from tests.unit.pushes import MINUTES, Case, cases
from tests.unit.test_connection import PASSWORD, Connect, connect

__all__ = ["connect"]  # a fixture

HERE = Path(__file__).parent
BARE = yaml.safe_load((HERE / "bare.yml").read_text())["running"]
RUNNING = (HERE / "24-equivalent-groups" / "running.cfg").read_text()
DATA = Path(__file__).parents[4] / "shared" / "data" / "configs" / "vyos-1x" / "smoketest"
FEW = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)


def written(chosen: RuleSet) -> str:
    """The bare router with these rules on what its subscribers send."""
    change = Change((chosen,), (Bind("eth1.100", "up", chosen.family, chosen.name),))
    *_, text = vyos.apply(BARE, vyos.lines(renderer("vyos").render(vyos.fields(change))))
    return str(text)


def expected(chosen: RuleSet, packet: Packet) -> str:
    """What the rules want of a datagram: VyOS sees none of its fragments alone, and `match-frag` all of it."""
    came_whole = {**packet, "fragment": 0}
    for rule in chosen.rules:
        one = RuleSet(chosen.name, chosen.family, chosen.direction, (rule, Rule("pass")))
        if rule.later_fragments:
            fits = packet["fragment"] or packet["extension"] == 3
            alike = Rule(rule.action, rule.protocol, rule.sources, rule.destinations)
            one = RuleSet(chosen.name, chosen.family, chosen.direction, (alike, Rule("pass")))
        if (not rule.later_fragments or fits) and meaning(one, came_whole, False) != "pass":
            return rule.action
    raise AssertionError("the last rule matches everything")


@FEW
@given(data=st.data(), family=st.sampled_from((4, 6)))
def test_what_is_rendered_means_what_the_rules_mean(data: st.DataObject, family: int) -> None:
    chosen = data.draw(rule_sets(family))
    text = written(chosen)
    configuration = vyos.parse(text, ["eth1.100"])
    router = Device("gw9", BARE)
    router.execute("configure")
    for line in text.splitlines():
        if line.startswith("set firewall"):
            assert "failed" not in router.execute(line), line
    assert "failed" not in router.execute("commit")
    for _ in range(8):
        packet = data.draw(packets(family, plain=False))
        if packet["undetermined"] or (family == 4 and packet["source"] >> 24 == 0):
            continue  # in doubt; nothing from 0.0.0.0/8 is forwarded
        if packet["extension"] in (1, 2, 4, 5) and any(rule.later_fragments for rule in chosen.rules):
            continue  # a fragment header may stand behind others
        wanted = expected(chosen, packet)
        (binding,) = (one for one in configuration.bindings if (one.direction, one.family) == ("in", family))
        (name,) = binding.filters
        assert evaluate(configuration, family, name, packet)[0] == {wanted}
        assert router.judge("eth1.100", "up", LabPacket(family=family, **packet)) == wanted


@pytest.mark.parametrize("text", [RUNNING, (HERE / "parse-conditions" / "running.cfg").read_text()])
def test_a_text_that_is_cut_is_told(text: str) -> None:
    end = re.search(r"^(?:set )?system", text, re.MULTILINE)
    assert end
    for cut in {*range(0, end.start(), 97), *range(end.start() - 60, end.start())}:
        assert vyos.incomplete(text[:cut]), cut
    assert vyos.incomplete(text) == ""
    assert vyos.incomplete(text.replace("system", "\x1b[2Jsystem"))
    assert vyos.incomplete("")


def test_a_doubt_about_a_group_names_the_line_in_the_group() -> None:
    text = (HERE / "parse-garbled-group" / "running.cfg").read_text()
    number = next(number for number, line in enumerate(text.splitlines(), 1) if "~^" in line)
    entries = vyos.parse(text, ["eth1.100"]).filters[6, "SUBS-IN"].entries
    assert [entry.doubt for entry in entries if "POOL" in entry.doubt] == [
        f"line {number}: '~^' in the ipv6-network-group POOL is not understood"
    ]


def test_what_other_platforms_print_is_no_vyos() -> None:
    for other in cases():
        if other.network_os != "vyos":
            assert vyos.incomplete(other.old), other.name


@settings(max_examples=100, deadline=None)
@given(
    st.one_of(
        texts(),
        st.tuples(st.integers(0, len(RUNNING)), st.integers(1, 300), st.text(max_size=9)).map(
            lambda cut: RUNNING[: cut[0]] + cut[2] + RUNNING[cut[0] + cut[1] :]
        ),
    )
)
def test_no_text_crashes_the_parser(text: str) -> None:
    vyos.incomplete(text)
    with contextlib.suppress(NotThisPlatform):
        vyos.parse(text, ["eth1.100"])


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        (Rule("permit", "", destination_ports=((25, 25),)), "ports need a protocol"),
        (Rule("permit", "tcp", icmp=((8, None),)), "need its own ICMP"),
        (Rule("permit", "nonsense"), "not known"),
        (Rule("deny", undetermined=True), "choose profile: standard"),
    ],
)
def test_a_rule_that_vyos_cannot_hold_raises(rule: Rule, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        vyos.fields(Change((RuleSet("ISP-UP4-1", 4, "up", (rule,)),), ()))


def test_the_first_rule_of_somebody_else_stays() -> None:
    theirs = "firewall {\n    ipv4 {\n        forward {\n            filter {\n                rule 1 {\n"
    theirs += "                    action accept\n                }\n            }\n        }\n    }\n}\n"
    with pytest.raises(ValueError, match="renumber it, because our jump has to stand before all others"):
        list(vyos.apply(theirs + BARE, ["set firewall ipv4 forward filter rule 1 action 'jump'"]))
    with pytest.raises(ValueError, match="is not understood"):
        list(vyos.apply(BARE, ["set system host-name x"]))
    with pytest.raises(ValueError, match=r"upgrade to 1\.4 first"):
        list(vyos.apply((HERE / "parse-legacy" / "running.cfg").read_text(), []))


def test_a_state_policy_before_our_jump_is_told() -> None:
    """What no filter of ours can mend is refused, with the line that is in the way."""
    case = gw2()
    policy = (
        "        state-policy {\n            established {\n                action accept\n            }\n        }\n"
    )
    text = case.old.replace("    global-options {\n", "    global-options {\n" + policy, 1)
    with pytest.raises(Refused, match=r"does not prove.*state-policy established action accept"):
        case.plan(text)


@pytest.mark.parametrize(
    ("answer", "rejected"),
    [
        ("\n  Configuration path: [firewall ipv4 nme] is not valid\n  Set failed\n\n", True),
        ("\n  Error: 70000 is not a valid value\n\n  Invalid value\n  Value validation failed\n  Set failed\n", True),
        ("[ firewall ]\nAction must be defined\n\n[[firewall]] failed\nCommit failed\n", True),
        ("\n  Invalid command: [comit]\n\n", True),
        ("Another confirm is pending\n", True),
        ("[edit]\n- firewall ipv4 name OLD default-action 'drop'\n\n", True),
        ("\n  Nothing to delete (the specified node does not exist)\n\n", False),
        ("\n  Configuration path: [firewall ipv4 name A] already exists\n\n", False),
        ("No changes between working and saved configurations.\n\n[edit]\n", False),
        ("Initialized commit-confirm; 5 minutes to confirm before reload\n[edit]\n", False),
        ("Saving configuration to '/config/config.boot'...\nDone\n[edit]\n", False),
        ("No confirm pending\n", False),
    ],
)
def test_rejections(answer: str, rejected: bool) -> None:
    assert any(re.search(pattern, answer, re.MULTILINE) for pattern in vyos.REJECTED) == rejected


# The lab's router


def gw2() -> Case:
    return next(case for case in cases() if case.network_os == "vyos")


def test_what_is_not_saved_is_not_put_at_stake() -> None:
    """The timer boots what is saved: where that is something else, nothing is begun."""
    router = gw2().router()
    for line in ("configure", "set system host-name gw3", "commit"):
        router.execute(line)
    said = router.execute("compare saved")
    assert any(re.search(pattern, said, re.MULTILINE) for pattern in vyos.REJECTED)


def test_without_a_confirmation_the_router_reboots() -> None:
    case = gw2()
    text = re.sub(r"^ *commit-confirm reload\n", "", case.old, flags=re.MULTILINE)
    router = Device("gw2", text)
    session = router.login()
    for line in ("configure", *case.plan(case.old).lines, f"commit-confirm {MINUTES}", "y"):
        said = str(session.execute(line))
        assert not any(re.search(one, said, re.MULTILINE) for one in vyos.REJECTED), line
    assert router.snapshot() != text
    router.clock.advance(MINUTES * 60 + 1)
    assert router.snapshot() == text
    assert session.closed


def test_the_way_back() -> None:
    case = gw2()
    plan = restoring(vyos, case.new, case.old, case.names)
    router = Device("gw2", case.new)
    router.execute("configure")
    for line in plan.lines:
        assert "failed" not in router.execute(line), line
    assert "failed" not in router.execute("commit")
    assert "ISP-" not in router.snapshot()
    assert restoring(vyos, case.old, case.old, case.names).lines == ()
    with pytest.raises(Refused, match="the backup is no configuration"):
        restoring(vyos, case.old, case.old[:200], case.names)


def test_over_ssh(connect: Connect) -> None:
    """Log in with netmiko's own driver, read, push, confirm and save."""
    case = gw2()
    router = case.router()
    with serve([router], Access(password=PASSWORD)) as served:
        connection = connect(served, router, network_os="vyos.vyos.vyos")
        running = connection.send("show configuration") + "\n"
        assert running.strip() == router.snapshot().strip()
        assert connection.addresses() == (LOOPBACK, LOOPBACK)
        before = vyos.parse(running, case.names)
        outcome = push(vyos, connection, case.plan(case.old), before, case.names, lambda _: "", MINUTES)
        assert (outcome.state, outcome.message) == ("changed", "changed, proved and confirmed")
    assert router.snapshot() == router.startup_text()
    assert case.wrong_in(router.snapshot()) == []


# Texts of real routers


@pytest.mark.skipif(not DATA.is_dir(), reason="the configurations of vyos-1x are not there")
def test_every_real_text_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    files = sorted(path for path in DATA.glob("*/*") if path.is_file())
    assert files
    lines = doubts = entries = doubted = 0
    for file in files:
        text = file.read_text()
        assert vyos.incomplete(text) == "", file
        found = vyos.parse(text)
        lines += found.filter_lines
        doubts += len(found.doubts)
        every = [entry for one in found.filters.values() for entry in one.entries]
        entries += len(every)
        doubted += sum("not understood" in entry.doubt for entry in every)
        assert not [entry for entry in every if "not understood" in entry.doubt], file
    with capsys.disabled():
        print(f"\n{len(files)} texts of VyOS, {lines} lines of filters: {entries} entries, {doubted} of them not "
              f"understood, {doubts} lines told as such")  # fmt: skip
    assert lines > 2000


@pytest.mark.skipif(not DATA.is_dir(), reason="the configurations of vyos-1x are not there")
@pytest.mark.parametrize("name", ["bgp-big-as-cloud", "dialup-router-complex", "dialup-router-medium-vpn"])
def test_what_the_vendor_migrates_means_the_same(name: str) -> None:
    """Each chain of the older text and of the one that VyOS itself made of it."""
    old, new = (vyos.parse((DATA / folder / name).read_text()) for folder in ("configs", "config-tests"))
    chains = [key for key in old.filters.keys() & new.filters.keys() if " " not in key[1]]
    assert len(chains) > 15 or name == "dialup-router-medium-vpn"
    for family, chain in chains:
        one, other = (list(text.filters[family, chain].entries) for text in (old, new))
        if len(one) == len(other) + 1 and one[-1].action == RETURN:
            one.pop()  # the migration writes `return` for an `accept` at the end, which is no entry
        assert [(entry.matches, entry.doubt) for entry in one] == [(entry.matches, entry.doubt) for entry in other]
