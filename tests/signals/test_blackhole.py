"""What may be black-holed: the controller's decision, the state file, the trigger's second look, and its clocks."""

from __future__ import annotations

import ipaddress
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible.module_utils.testing import patch_module_args
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.isp.hardening.plugins.filter.blackhole_guards import read as blackhole_guards
from ansible_collections.isp.hardening.plugins.module_utils.documentation import argument_spec
from ansible_collections.isp.hardening.plugins.module_utils.signals import exabgp_service as service
from ansible_collections.isp.hardening.plugins.module_utils.signals import limits
from ansible_collections.isp.hardening.plugins.module_utils.signals.blackhole import (
    BLACKHOLE,
    DESTINATION,
    INBOUND,
    LONGEST,
    NO_EXPORT,
    SOURCE,
    Guards,
    Route,
    State,
    StateError,
    commands,
    line_fault,
    plan,
    read_state,
    shield,
    write_state,
)
from ansible_collections.isp.hardening.plugins.module_utils.signals.blackhole_cases import Proposal, propose
from ansible_collections.isp.hardening.plugins.module_utils.signals.records import Case
from ansible_collections.isp.hardening.plugins.modules import blackhole as module
from tests.conftest import ROOT

NOW = 1_795_700_000_000
HOUR = 3_600_000
POLICY: dict[str, Any] = {
    "subscribers": 3000,
    "most": 100,
    "limit": 3,
    "hours": 12,
    "inbound_minutes": 30,
    "dry_run": False,
    "pools": {"residential": {"kind": "dynamic", "prefixes": ["198.51.100.0/24", "2001:db8:100::/40"]}},
    "never": [
        {"prefix": "192.0.2.0/24", "reason": "own servers"},
        {"prefix": "198.51.100.25/32", "reason": "own mail server"},
        {"prefix": "2001:db8:100:25::25/128", "reason": "own mail server"},
    ],
}
NEVER = {one["prefix"]: one["reason"] for one in POLICY["never"]}
GUARDS = Guards(["198.51.100.0/24", "2001:db8:100::/40"], NEVER, 3)


def route(prefix: str = "198.51.100.7/32", **changes: Any) -> Route:
    sound = {"kind": SOURCE, "until": NOW + HOUR, "case": prefix, "reason": "D3"}
    return Route(**{"key": f"source {prefix}", "route": prefix} | sound | changes)


def case(key: str = "k7", *prefixes: str, **changes: Any) -> Case:
    sound = {"subscriber": f"subscriber {key}", "sources": ("D3", "XBL"), "since": NOW - HOUR}
    return Case(**{"key": key, "prefixes": prefixes or ("198.51.100.7/32",)} | sound | changes)


Call = Callable[..., dict[str, Any]]
CASE = case(since=0).as_dict()


# -- the controller ----------------------------------------------------------------------------------------------


def asked(*cases: Case, state: State = State(), kind: str = SOURCE, now: int = NOW, **more: Any) -> Proposal:  # noqa: B008
    return propose(kind, cases, more.pop("release", ()), state, POLICY | more, now)


def test_two_independent_detectors_or_an_operator_make_a_black_hole() -> None:
    assert [one.route for one in asked(case()).state.routes] == ["198.51.100.7/32"]
    assert asked(case(sources=("operator",))).decision.add
    for few in (("D3",), ("D2", "D3"), ()):
        refused = asked(case(sources=few))
        assert not refused.state.routes
        assert "2 independent kinds of evidence" in refused.decision.refused[0].reason


def test_a_second_run_changes_nothing() -> None:
    first = asked(case(), case("k8", "198.51.100.8/32", "2001:db8:100:8::/64")).state
    again = read_state(write_state(first))
    second = asked(case(), case("k8", "198.51.100.8/32", "2001:db8:100:8::/64"), state=again, now=NOW + HOUR)
    assert write_state(second.state) == write_state(first)
    assert not second.decision.add
    assert {one.key for one in second.decision.keep} == {"k7", "k8"}


@pytest.mark.parametrize(
    ("prefix", "reason"),
    [
        ("192.0.2.25/32", "never-list"),
        ("198.51.100.25/32", "never-list"),
        ("2001:db8:100:25::/64", "never-list"),
        ("2001:db8:100:25::99/128", "never-list"),  # the link of a server is nobody else's
        ("198.51.100.0/25", "/32"),
        ("0.0.0.0/0", "/32"),
        ("::/0", "/64"),
        ("2001:db8:100::/48", "/64"),
        ("203.0.113.9/32", "no subscriber's"),
        ("2001:db8:fffe::9/128", "no subscriber's"),
        ("224.0.0.5/32", "no address"),
    ],
)
def test_own_server_short_prefix_and_default_route_are_refused_by_the_controller(prefix: str, reason: str) -> None:
    for sources in (("D3", "XBL"), ("operator",)):
        refused = asked(case("k7", "198.51.100.7/32", prefix, sources=sources))
        assert not refused.state.routes, "half of a subscriber's addresses are no black-hole"
        assert reason in refused.decision.refused[0].reason


def test_missing_community_and_wrong_next_hop_are_refused_before_exabgp_sees_them() -> None:
    ((_, line),) = commands((), ["198.51.100.7/32"], GUARDS)
    assert line_fault(line, GUARDS) == ""
    assert f"{BLACKHOLE} is missing" in line_fault(line.replace(BLACKHOLE, "64500:666"), GUARDS)
    assert f"{NO_EXPORT} is missing" in line_fault(line.replace(f" {NO_EXPORT}", ""), GUARDS)
    assert BLACKHOLE in line_fault(line[: line.index(" community")], GUARDS)
    assert "next hop" in line_fault(line.replace("192.0.2.1", "192.0.2.7"), GUARDS)
    for prefix in ("198.51.100.0/25", "0.0.0.0/0", "198.51.100.25/32", "2001:db8:100::1%;shutdown;/128"):
        assert line_fault(line.replace("198.51.100.7/32", prefix), GUARDS)
    for strange in ("announce flow route { match { } then { discard; } }", f"{line}\nshutdown", "shutdown", ""):
        assert "neither announces nor withdraws" in line_fault(strange, GUARDS)


def test_a_breach_of_the_cap_adds_nothing() -> None:
    first = asked(case()).state
    many = [case(f"k{host}", f"198.51.100.{host}/32") for host in (10, 11, 12)]
    proposal = asked(case(), *many, state=first)
    assert "cap of 3" in proposal.decision.frozen
    assert not proposal.decision.add
    assert proposal.state.routes == first.routes


def test_the_cap_is_one_for_all_kinds_and_counts_routes_too() -> None:
    first = asked(case("k1", "198.51.100.1/32"), case("k2", "198.51.100.2/32")).state
    more = [case("k3", "203.0.113.3/32"), case("k4", "203.0.113.4/32")]
    other = asked(*more, state=first, kind=INBOUND)
    assert "4 cases" in other.decision.frozen
    assert other.state.routes == first.routes
    wide = case("k5", *(f"198.51.100.{host}/32" for host in range(40, 44)))
    assert "4 IPv4 routes" in asked(wide).decision.frozen


def test_inbound_is_for_others_and_lasts_an_hour_at_most() -> None:
    proposal = asked(case("k9", "203.0.113.9/32"), kind=INBOUND)
    assert [one.until - NOW for one in proposal.state.routes] == [30 * 60_000]
    own = asked(case(), kind=INBOUND)
    assert "is a subscriber's" in own.decision.refused[0].reason
    over = asked(case("k9", "203.0.113.9/32"), kind=INBOUND, inbound_minutes=61)
    assert "may last up to" in over.decision.frozen


def test_destination_is_a_subscriber_too() -> None:
    assert [one.kind for one in asked(case(), kind=DESTINATION).state.routes] == [DESTINATION]


def test_the_kill_switch_holds_until_somebody_writes_to_the_file_again() -> None:
    proposal = asked(case(), state=read_state(""))
    assert "kill switch" in proposal.decision.frozen
    assert write_state(proposal.state) == ""
    assert asked(case(), state=read_state("{}")).state.routes


def test_a_dry_run_is_told_as_one() -> None:
    assert asked(case(), dry_run=True).decision.dry_run


def test_what_an_operator_lets_go_is_left_alone_for_a_day() -> None:
    first = asked(case()).state
    let_go = asked(case(), state=first, release=["k7"])
    assert not let_go.state.routes
    assert [one.reason for one in let_go.decision.release] == ["an operator lets it go"]
    again = asked(case(), state=let_go.state, now=NOW + HOUR)
    assert "released by hand" in again.decision.refused[0].reason
    assert asked(case(), state=let_go.state, now=NOW + 25 * HOUR).state.routes


def test_letting_go_is_no_dry_run(call: Call, tmp_path: Path) -> None:
    call(cases=[CASE])
    path, dry = tmp_path / "state.json", POLICY | {"dry_run": True}
    before = path.read_text()
    assert not call(policy=dry, cases=[CASE])["changed"]
    assert call(policy=dry, release=[CASE["key"]], check=True)["changed"]
    assert path.read_text() == before
    assert call(policy=dry, release=[CASE["key"]])["changed"]
    assert not read_state(path.read_text()).routes
    again = call(cases=[CASE | {"key": "another"}])
    assert again["refused"] == [{"key": "another", "why": "it was released by hand"}]


def test_the_password_of_the_state_is_shown_nowhere(call: Call) -> None:
    policy = POLICY | {"state": "postgresql://signals:s3cret@192.0.2.5/signals"}
    assert "s3cret" not in json.dumps([call(policy=policy, cases=[CASE]), call(policy=policy, cases=[{}])])


def test_a_release_of_nothing_is_told(call: Call) -> None:
    assert call(release=["198.51.100.7"])["unknown"] == ["198.51.100.7"]


def test_an_address_that_moved_on_to_another_subscriber_is_let_go(call: Call, tmp_path: Path) -> None:
    call(cases=[CASE])
    mine = {"address": "198.51.100.7/32", "state": "known", "subscriber": "subscriber k7", "reason": ""}
    assert not call(owners=[mine])["changed"]
    told = call(owners=[mine | {"subscriber": "somebody else"}])
    assert told["changed"]
    assert "another subscriber" in told["released"][0]["why"]
    assert not read_state((tmp_path / "state.json").read_text()).routes


def test_a_clock_that_went_back_freezes() -> None:
    first = asked(case()).state
    back = asked(case("k8", "198.51.100.8/32"), state=first, now=NOW - HOUR)
    assert "the clock went back" in back.decision.frozen
    assert back.state.routes == first.routes


def test_the_limits_and_the_guards_agree_on_kinds_and_times() -> None:
    """They share no code, and must not allow different things."""
    assert {kind: limits.KINDS[kind].longest for kind in LONGEST} == LONGEST
    assert set(LONGEST) == set(limits.KINDS) - {limits.QUARANTINE}


# -- the state file ----------------------------------------------------------------------------------------------

SOUND = {"key": "a", "kind": "source", "route": "198.51.100.7/32", "until": NOW, "case": "c", "reason": "r"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "line 1"),
        ("[]", "no mapping"),
        ("null", "no mapping"),
        ("<html>not found</html>", "no JSON"),
        ('{"routes": {}}', "no mapping with a list"),
        ('{"rules": []}', "unknown key 'rules'"),
        ('{"routes": [], "routes": []}', "twice"),
        ('{"routes": [7]}', r"routes\[0\]: is no mapping"),
        ('{"released": {"k": "soon"}}', "'released'"),
        ("[" * 100_000, "no JSON"),
        ("7" * 5_000, "no JSON"),
        (" " * 1_000_001 + "{}", "larger"),
        *(
            (json.dumps({"routes": [{name: value for name, value in SOUND.items() if name != gone}]}), f"'{gone}'")
            for gone in SOUND
        ),
        *(
            (json.dumps({"routes": [SOUND | change]}), said)
            for change, said in (
                ({"until": "soon"}, "'until'"),
                ({"until": True}, "'until'"),
                ({"until": -1}, "'until'"),
                ({"until": 1.5}, "'until'"),
                ({"key": ""}, "'key'"),
                ({"reason": "two\nlines"}, "'reason'"),
                ({"route": 7}, "'route'"),
                ({"sources": "D3"}, "'sources'"),
                ({"colour": "red"}, "colour"),
            )
        ),
        (json.dumps({"routes": [SOUND, SOUND]}), "two routes have the key 'a'"),
    ],
)
def test_a_file_that_is_not_understood_is_told_with_its_place(text: str, said: str) -> None:
    with pytest.raises(StateError, match=said):
        read_state(text)


_TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF).filter(str.isprintable), min_size=1, max_size=8)


@settings(max_examples=50)
@given(
    st.lists(
        st.builds(
            Route, key=_TEXT, kind=st.sampled_from(list(LONGEST)), route=st.just("198.51.100.7/32"),
            until=st.integers(0, 2**53), case=_TEXT, reason=_TEXT, since=st.integers(0, 2**53),
            sources=st.lists(_TEXT, max_size=2).map(tuple),
        ),
        unique_by=lambda one: one.key, max_size=4,
    ),
    st.dictionaries(_TEXT, st.integers(0, 2**53), max_size=3),
)  # fmt: skip
def test_what_is_written_is_read_again(routes: list[Route], released: dict[str, int]) -> None:
    state = read_state(write_state(State(tuple(routes), released)))
    assert set(state.routes) == set(routes)
    assert state.released == released
    assert write_state(state) == write_state(State(tuple(routes), released))


# -- the trigger -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "never", "cap", "next_hops", "said"),
    [
        ([], NEVER, 3, {4: "192.0.2.1", 6: "100::1"}, "own is empty"),
        (["198.51.100.0/24"], {}, 3, {4: "192.0.2.1", 6: "100::1"}, "never is empty"),
        (["198.51.100.1/24"], NEVER, 3, {4: "192.0.2.1", 6: "100::1"}, "host bits"),
        (["198.51.100.0/24"], NEVER, 101, {4: "192.0.2.1", 6: "100::1"}, "cap"),
        (["198.51.100.0/24"], NEVER, True, {4: "192.0.2.1", 6: "100::1"}, "cap"),
        (["198.51.100.0/24"], NEVER, 3, {4: "192.0.2.1", 6: "192.0.2.2"}, "next hops"),
        (["198.51.100.0/24"], NEVER, 3, {4: "discard", 6: "100::1"}, "next hop"),
    ],
)
def test_guards_that_make_no_sense_are_refused(
    own: list[str], never: dict[str, str], cap: int, next_hops: dict[int, str], said: str
) -> None:
    with pytest.raises(StateError, match=said):
        Guards(own, never, cap, next_hops)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kind": "quarantine"}, "no kind"),
        ({"until": NOW + 25 * HOUR}, "longer than the 1440 minutes"),
        ({"kind": INBOUND, "route": "203.0.113.9/32", "until": NOW + 2 * HOUR}, "longer than the 60 minutes"),
        ({"kind": INBOUND}, "is a subscriber's"),
        ({"route": "198.51.100.7"}, "is not written as 198.51.100.7/32"),
        ({"route": "198.51.100.7/24"}, "host bits"),
        ({"route": "2001:DB8:100:7::/64"}, "is not written as"),
        ({"route": "::ffff:198.51.100.7/128"}, "not written as|no address"),
        ({"route": "198.51.100.7/32 next-hop self"}, "no prefix"),
    ],
)
def test_the_trigger_judges_every_route_once_more(changes: dict[str, Any], said: str) -> None:
    found = plan(State((route(**changes), route("198.51.100.9/32"))), "", {}, GUARDS, NOW)
    assert list(found.wanted) == ["198.51.100.9/32"]
    ((_, reason),) = found.refused
    assert pytest.raises(ValueError, match=said).matches(ValueError(reason))


def test_a_file_that_cannot_be_read_adds_nothing_and_takes_nothing_before_its_time() -> None:
    announced = {"198.51.100.7/32": NOW + 1, "198.51.100.8/32": NOW}
    found = plan(None, "line 1: is no JSON", announced, GUARDS, NOW)
    assert found.wanted == {"198.51.100.7/32": NOW + 1}
    assert "is no JSON" in found.alarm


def test_the_trigger_freezes_above_the_cap_and_still_lets_go() -> None:
    announced = {"198.51.100.1/32": NOW + 1, "198.51.100.2/32": NOW + 1}
    listed = [route(f"198.51.100.{host}/32") for host in (2, 3, 4, 5)]
    found = plan(State(tuple(listed)), "", announced, GUARDS, NOW)
    assert list(found.wanted) == ["198.51.100.2/32"]
    assert "cap of 3" in found.alarm


@settings(max_examples=60)
@given(st.sets(st.integers(0, 5)), st.sets(st.integers(0, 5)))
def test_commands_lead_from_any_set_to_any_other(before: set[int], after: set[int]) -> None:
    old, new = ({f"198.51.100.{host}/32" for host in hosts} for hosts in (before, after))
    reached = set(old)
    for name, line in commands(old, new, GUARDS):
        assert line_fault(line, GUARDS) == ""
        assert f" {name} " in line
        verb, _, prefix = line.split()[:3]
        reached = reached | {prefix} if verb == "announce" else reached - {prefix}
    assert reached == new


def test_sources_are_flow_rules_too_for_those_who_take_them() -> None:
    guards = Guards(["198.51.100.0/24"], NEVER, 3, flowspec=["192.0.2.70", "192.0.2.71"])
    source, victim = route(), route("198.51.100.8/32", kind=DESTINATION)
    wanted = plan(State((source, victim)), "", {}, guards, NOW).wanted
    assert set(wanted) == {"198.51.100.7/32", "flow 198.51.100.7/32", "198.51.100.8/32"}
    lines = dict(commands((), wanted, guards))
    assert [line_fault(line, guards) for line in lines.values()] == [""] * 3
    rule = lines["flow 198.51.100.7/32"]
    assert rule.startswith(
        "neighbor 192.0.2.70 , neighbor 192.0.2.71 announce flow route { match { source 198.51.100.7/32"
    )
    assert "takes no FlowSpec" in line_fault(rule, GUARDS)
    assert "takes no FlowSpec" in line_fault(rule.replace("192.0.2.71", "192.0.2.66"), guards)
    assert "never-list" in line_fault(rule.replace("198.51.100.7/32", "198.51.100.25/32"), guards)
    assert BLACKHOLE in line_fault(rule.replace(f"community [ {BLACKHOLE} {NO_EXPORT} ]; ", ""), guards)
    assert "neither" in line_fault(rule.replace("discard", "rate-limit 9600"), guards)
    assert "neither" in line_fault(rule.replace("source", "destination"), guards)
    assert dict(commands(wanted, (), guards))["flow 198.51.100.7/32"] == rule.replace("announce", "withdraw")


class Clocks:
    """A trigger with clocks that tests turn."""

    def __init__(self, tmp_path: Path) -> None:
        self.file = tmp_path / "state.json"
        self.now, self.steady = NOW / 1000, 50.0
        self.sent: list[str] = []
        self.told: list[str] = []
        config = service.Config(str(self.file), str(tmp_path / "status.json"), GUARDS)
        self.trigger = service.Trigger(
            config, self.sent.append, self.told.append, lambda: self.now, lambda: self.steady
        )

    def look(self, *routes: Route) -> list[str]:
        """One look, with these routes in the file; verb and prefix of what was said."""
        if routes:
            self.file.write_text(write_state(State(routes)), encoding="utf-8")
        self.sent.clear()
        self.trigger.look()
        return [f"{line.split()[0]} {line.split()[2]}" for line in self.sent]

    def after(self, seconds: float, jump: float = 0.0) -> None:
        self.now += seconds + jump
        self.steady += seconds


@pytest.fixture
def clocks(tmp_path: Path) -> Clocks:
    return Clocks(tmp_path)


def test_a_second_look_says_nothing(clocks: Clocks) -> None:
    assert clocks.look(route()) == ["announce 198.51.100.7/32"]
    assert clocks.look() == []
    clocks.after(3599)
    assert clocks.look() == []
    clocks.after(2)
    assert clocks.look() == ["withdraw 198.51.100.7/32"]
    assert clocks.look() == []


def test_a_clock_that_is_put_back_prolongs_nothing(clocks: Clocks) -> None:
    assert clocks.look(route()) == ["announce 198.51.100.7/32"]
    clocks.after(1800, jump=-1700)
    assert clocks.look() == []
    clocks.after(1801)
    assert clocks.look() == ["withdraw 198.51.100.7/32"]
    assert clocks.look() == []  # and it does not come back, though the clock says that it may


def test_a_clock_that_is_put_forward_ends_it(clocks: Clocks) -> None:
    assert clocks.look(route()) == ["announce 198.51.100.7/32"]
    clocks.after(1, jump=86400)
    assert clocks.look() == ["withdraw 198.51.100.7/32"]


def test_a_longer_time_needs_no_new_announcement(clocks: Clocks) -> None:
    clocks.look(route())
    assert clocks.look(route(until=NOW + 2 * HOUR)) == []
    clocks.after(3700)
    assert clocks.look() == []
    clocks.after(3600)
    assert clocks.look() == ["withdraw 198.51.100.7/32"]


def test_no_file_is_no_kill_switch_and_an_empty_one_is(clocks: Clocks) -> None:
    clocks.look(route())
    clocks.file.unlink()
    assert clocks.look() == []
    assert "cannot be read" in clocks.trigger.alarm
    clocks.file.write_bytes(b"\xff\xfe")
    assert clocks.look() == []
    clocks.file.write_text("")
    assert clocks.look() == ["withdraw 198.51.100.7/32"]
    assert clocks.trigger.alarm == ""


def test_what_exabgp_refuses_is_said_again(clocks: Clocks) -> None:
    clocks.look(route())
    clocks.trigger.hear("error")
    assert "ExaBGP refuses: announce" in clocks.trigger.status()["alarm"]
    assert clocks.look() == ["announce 198.51.100.7/32"]
    clocks.trigger.hear("done")
    assert clocks.trigger.status()["alarm"] == ""
    clocks.file.write_text("")
    assert clocks.look() == ["withdraw 198.51.100.7/32"]
    clocks.trigger.hear("error")
    assert clocks.look() == ["withdraw 198.51.100.7/32"]


def test_an_exabgp_that_does_not_answer_starves_the_watchdog(clocks: Clocks) -> None:
    clocks.look(route())
    assert clocks.trigger.alive()
    clocks.after(31)
    assert not clocks.trigger.alive()
    assert "has not answered" in clocks.trigger.status()["alarm"]
    clocks.trigger.hear("done")
    assert clocks.trigger.alive()


@pytest.mark.parametrize(
    "line", ["", "nonsense", "{", "{}", '{"neighbor": 7}', "done", '{"neighbor": {"address": {}}}']
)
def test_strange_words_of_exabgp_do_no_harm(clocks: Clocks, line: str) -> None:
    clocks.trigger.hear(line)
    assert clocks.look(route()) == ["announce 198.51.100.7/32"]


def test_each_alarm_is_told_once(clocks: Clocks) -> None:
    clocks.file.write_text("{")
    for _ in range(3):
        clocks.look()
    assert [line for line in clocks.told if "ALARM" in line] == [f"ALARM: {clocks.trigger.alarm}"]


# -- the process, as ExaBGP runs it ------------------------------------------------------------------------------


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """The directory of the role signals_library: the code of the signals alone."""
    target = tmp_path / "lib/ansible_collections/isp/hardening/plugins/module_utils"
    target.mkdir(parents=True)
    (target / "signals").symlink_to(ROOT / "plugins" / "module_utils" / "signals")
    return tmp_path / "lib"


def config(tmp_path: Path, **changes: Any) -> str:
    sound = {
        "state": str(tmp_path / "state.json"),
        "status": str(tmp_path / "status.json"),
        "own": ["198.51.100.0/24", "2001:db8:100::/40"],
        "never": POLICY["never"],
        "cap": 3,
        "next_hop_ipv4": "192.0.2.1",
        "next_hop_ipv6": "100::1",
        "flowspec": [],
    }
    return json.dumps(sound | changes)


def process(
    library: Path, *arguments: str, environment: dict[str, str] | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", service.__name__, *arguments],
        env=os.environ | {"PYTHONPATH": str(library)} | (environment or {}),
        cwd=library,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        **options,
    )


def test_the_process_needs_no_other_code_and_ends_with_exabgp(library: Path, tmp_path: Path) -> None:
    (tmp_path / "blackhole.json").write_text(config(tmp_path))
    (tmp_path / "state.json").write_text("{}")
    ended = process(library, str(tmp_path / "blackhole.json"), input='done\n{"neighbor": {}}\n')
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "clear adj-rib out\n"
    assert json.loads((tmp_path / "status.json").read_text())["announced"] == {}


def test_the_process_feeds_the_watchdog(library: Path, tmp_path: Path) -> None:
    (tmp_path / "blackhole.json").write_text(config(tmp_path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(30)
        with_socket = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
        process(library, str(tmp_path / "blackhole.json"), input="done\n", environment=with_socket)
        assert systemd.recv(64) == b"WATCHDOG=1"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, ""),
        ({"flowspec": ["frr1"]}, "flowspec"),
        ({"never": []}, "never is empty"),
        ({"never": ["192.0.2.0/24"]}, "never"),
        ({"own": "198.51.100.0/24"}, "own"),
        ({"cap": 1000}, "cap"),
        ({"state": 7}, "state"),
        ({"more": 7}, "exactly the keys"),
    ],
)
def test_a_configuration_is_checked_before_it_is_installed(
    tmp_path: Path, changes: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "blackhole.json"
    path.write_text(config(tmp_path, **changes))
    assert service.main(["--check", str(path)]) == (1 if said else 0)
    assert said in capsys.readouterr().err


def test_usage_and_a_missing_file_end_without_a_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert service.main([]) == 2
    assert service.main(["--what", "x"]) == 2
    assert service.main([str(tmp_path / "none")]) == 1
    assert "Traceback" not in capsys.readouterr().err


# -- the routers' guards -----------------------------------------------------------------------------------------


def test_what_is_never_black_holed_stands_for_its_whole_link() -> None:
    assert shield({"2001:db8::25/128": "a", "2001:db8::26/128": "b", "192.0.2.25/32": "c"}) == {
        "2001:db8::/64": "a",
        "192.0.2.25/32": "c",
    }


def test_the_routers_are_told_ranges_that_they_understand() -> None:
    policy = POLICY | {
        "pools": {"all": {"kind": "static", "prefixes": ["198.51.100.0/25", "198.51.100.128/25", "203.0.113.7/32"]}}
    }
    guards = blackhole_guards(policy)
    assert guards["cap"] == 3
    assert guards["ipv4"]["allowed"] == [
        {"prefix": "198.51.100.0/24", "length": 24, "low": 32, "high": 32},
        {"prefix": "203.0.113.7/32", "length": 32, "low": 32, "high": 32},
    ]
    assert guards["ipv6"]["allowed"] == []
    assert guards["ipv6"]["never"] == [{"prefix": "2001:db8:100:25::/64", "length": 64, "low": 64, "high": 128}]
    assert [one["prefix"] for one in blackhole_guards(policy, inbound=True)["ipv6"]["allowed"]] == ["::/0"]
    with pytest.raises(AnsibleFilterError, match="write true or false"):
        blackhole_guards(policy, inbound="false")  # type: ignore[arg-type]


def believed(guards: dict[str, Any], prefix: str) -> bool:
    """Whether a router with these ranges takes a route, as its prefix list or its filter does."""
    network = ipaddress.ip_network(prefix)

    def within(ranges: list[dict[str, Any]]) -> bool:
        return any(
            one["low"] <= network.prefixlen <= one["high"] and network.subnet_of(ipaddress.ip_network(one["prefix"]))
            for one in ranges
        )

    ranges = guards[f"ipv{network.version}"]
    return not within(ranges["never"]) and within(ranges["allowed"])


_NEAR = st.one_of(
    st.tuples(st.integers(0xC6336400 - 4, 0xC6336400 + 260), st.integers(22, 32)).map(
        lambda one: str(ipaddress.ip_network(one, strict=False))
    ),
    st.tuples(st.integers(0, 2**12), st.integers(0, 3), st.integers(44, 128)).map(
        lambda one: str(ipaddress.ip_network(((0x20010DB8_0100 << 80) + (one[0] << 64) + one[1], one[2]), strict=False))
    ),
    st.sampled_from(["0.0.0.0/0", "::/0", "192.0.2.25/32", "203.0.113.9/32", "2001:db8:100:25::25/128"]),
)


@settings(max_examples=300)
@given(_NEAR)
def test_routers_believe_what_the_trigger_may_say_and_nothing_else(prefix: str) -> None:
    assert believed(blackhole_guards(POLICY), prefix) == (GUARDS.refusal(route(prefix), NOW) == "")


# -- the module --------------------------------------------------------------------------------------------------


def test_the_module_says_what_it_takes() -> None:
    assert argument_spec(module.DOCUMENTATION) == module.ARGUMENTS


def test_a_kill_switch_that_was_faster_wins(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text("")
    with pytest.raises(ValueError, match="changed meanwhile"):
        module.replace(path, "{}", '{"routes": []}')
    assert path.read_text() == ""
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def call(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Call:
    """`call(cases=…, check=True)`: the module's answer about tmp_path/state.json."""

    def ask(check: bool = False, **arguments: Any) -> dict[str, Any]:
        given = {"policy": POLICY, "state": str(tmp_path / "state.json")} | arguments
        with patch_module_args(given | {"_ansible_check_mode": check, "_ansible_diff": True}):
            with pytest.raises(SystemExit):
                module.main()
            return dict(json.loads(capsys.readouterr().out))

    return ask


def test_check_mode_tells_what_the_run_does_and_a_second_run_changes_nothing(call: Call, tmp_path: Path) -> None:
    would = call(check=True, cases=[CASE])
    assert not (tmp_path / "state.json").exists()
    did = call(cases=[CASE])
    written = (tmp_path / "state.json").read_text()
    again = call(cases=[CASE])
    assert (would["changed"], did["changed"], again["changed"]) == (True, True, False)
    assert [one["key"] for one in would["added"]] == [one["key"] for one in did["added"]] == ["k7"]
    assert [one["key"] for one in again["kept"]] == ["k7"]
    assert did["diff"]["after"] == written == (tmp_path / "state.json").read_text()
    assert (tmp_path / "state.json").stat().st_mode & 0o777 == 0o640


def test_a_dry_run_writes_nothing(call: Call, tmp_path: Path) -> None:
    told = call(policy=POLICY | {"dry_run": True}, cases=[CASE])
    assert (told["changed"], told["dry_run"], len(told["added"])) == (False, True, 1)
    assert not (tmp_path / "state.json").exists()


@pytest.mark.parametrize("text", ["{", '{"routes": [{}]}', "<html></html>"])
def test_a_state_that_is_not_understood_fails_and_stays(call: Call, tmp_path: Path, text: str) -> None:
    (tmp_path / "state.json").write_text(text)
    told = call(cases=[CASE])
    assert told["failed"]
    assert "Nothing was changed" in told["msg"]
    assert (tmp_path / "state.json").read_text() == text


def test_an_empty_state_file_stays_empty(call: Call, tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("")
    told = call(cases=[CASE])
    assert not told["changed"]
    assert "kill switch" in told["frozen"]
    assert (tmp_path / "state.json").read_text() == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"policy": {}}, "policy"),
        ({"policy": POLICY | {"never": []}}, "never is empty"),
        ({"policy": POLICY | {"never": ["192.0.2.0/24"]}}, "policy"),
        ({"cases": [{"key": "k7"}]}, "'subscriber'"),
    ],
)
def test_bad_input_fails_with_a_line(call: Call, tmp_path: Path, arguments: dict[str, Any], said: str) -> None:
    told = call(**arguments)
    assert told["failed"]
    assert said in told["msg"]
    assert not (tmp_path / "state.json").exists()
