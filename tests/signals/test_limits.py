"""What limits.decide() may never do, whatever it is given; and what each limit says when it holds something back."""

from __future__ import annotations

import ipaddress
import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.isp.hardening.plugins.module_utils.signals import limits as module
from ansible_collections.isp.hardening.plugins.module_utils.signals import policy
from ansible_collections.isp.hardening.plugins.module_utils.signals.limits import (
    DAY,
    HOUR,
    INBOUND,
    KINDS,
    LATE,
    MINUTE,
    QUARANTINE,
    SOURCE,
    Action,
    Decision,
    Limits,
    Protected,
    decide,
    read_action,
    read_case,
)
from ansible_collections.isp.hardening.plugins.module_utils.signals.records import (
    AMBIGUOUS,
    KNOWN,
    UNKNOWN,
    Case,
    Owner,
)

NOW = 1_790_000_000_000
NEVER = (
    Protected("192.0.2.0/28", "own servers"),
    Protected("192.0.2.4/32", "the mail exchanger, which is in there too"),
    Protected("198.51.100.128/25", "CGN: many subscribers"),
    Protected("2001:db8:ffff::/48", "infrastructure"),
    Protected("2001:db8:7::25/128", "a server on a customer's link"),
)
LIMITS = Limits(QUARANTINE, 100_000, NEVER, dry_run=False)


def case(key: str = "k1", *prefixes: str, **changes: object) -> Case:
    sound = Case(key, f"subscriber of {key}", prefixes or ("203.0.113.7/32",), ("D2",), NOW - HOUR)
    return replace(sound, **changes)  # type: ignore[arg-type]


def action(key: str = "k1", *prefixes: str, **changes: object) -> Action:
    prefixes = prefixes or ("203.0.113.7/32",)
    sound = Action(key, f"subscriber of {key}", prefixes, NOW - HOUR, NOW + HOUR, "D2", ("D2",), "automatic")
    return replace(sound, **changes)  # type: ignore[arg-type]


def why_not(decision: Decision) -> str:
    assert not decision.add
    return "; ".join(one.reason for one in decision.refused)


def test_a_sound_case_becomes_an_action_with_an_end() -> None:
    found = decide(
        [case("k1", "203.0.113.7", "2001:db8:1:2::/64", evidence=("25 servers in a minute",))], [], LIMITS, NOW
    )
    assert not found.frozen
    assert found.add == (
        Action(
            "k1",
            "subscriber of k1",
            ("203.0.113.7/32", "2001:db8:1:2::/64"),
            NOW,
            NOW + DAY,
            "D2; 25 servers in a minute",
            ("D2",),
            "automatic",
        ),
    )


@pytest.mark.parametrize(
    ("prefix", "reason"),
    [
        ("203.0.113.0/25", "more than one subscriber's"),
        ("203.0.113.0/31", "more than one subscriber's"),
        ("0.0.0.0/0", "more than one subscriber's"),
        ("::/0", "more than one subscriber's"),
        ("2001:db8:1::/63", "more than one subscriber's"),
        ("2001:db8:1::/56", "more than one subscriber's"),
        ("2001:db8:1::1/64", "is no prefix"),
        ("host.example.net", "is no prefix"),
        ("", "is no prefix"),
        ("0.0.0.0/32", "no address that a host has"),
        ("127.0.0.1/32", "no address that a host has"),
        ("255.255.255.255/32", "no address that a host has"),
        ("::ffff:192.0.2.4/128", "no address that a host has"),
        ("fe80::1/128", "no address that a host has"),
        ("2001:db8:1::1%} ; flush ruleset #/128", "has a zone"),
        ("192.0.2.4/32", "never-list"),
        ("192.0.2.15/32", "192.0.2.0/28, own servers"),
        ("198.51.100.200/32", "CGN"),
        ("2001:db8:ffff:1::/64", "infrastructure"),
        ("2001:db8:7::/64", "a server on a customer's link"),
    ],
)
def test_own_server_25_default_route_are_refused_with_the_whole_case(prefix: str, reason: str) -> None:
    assert reason in why_not(decide([case("k1", "203.0.113.7/32", prefix)], [], LIMITS, NOW))


@pytest.mark.parametrize("prefix", ["192.0.2.16/32", "198.51.100.127/32", "2001:db8:ffff::/64", "2001:db8:7:1::/64"])
def test_beside_the_never_list_is_not_on_it(prefix: str) -> None:
    assert bool(decide([case("k1", prefix)], [], LIMITS, NOW).add) is (prefix != "2001:db8:ffff::/64")


@pytest.mark.parametrize(
    ("kind", "sources", "acts"),
    [
        (QUARANTINE, ("D2",), True),
        (QUARANTINE, ("XBL",), True),
        (QUARANTINE, ("D7",), False),
        (QUARANTINE, (), False),
        (QUARANTINE, ("D2", "D99"), False),
        (SOURCE, ("D2",), False),
        (SOURCE, ("D1", "D2", "D3"), False),
        (SOURCE, ("D2", "D7"), False),
        (SOURCE, ("D2", "D4"), True),
        (SOURCE, ("D3", "XBL"), True),
        (SOURCE, ("operator",), True),
        (INBOUND, ("complaint", "complaint"), False),
        (INBOUND, ("complaint", "D6"), True),
    ],
)
def test_black_holing_takes_two_independent_kinds_of_evidence_or_an_operator(
    kind: str, sources: tuple[str, ...], acts: bool
) -> None:
    found = decide([case(sources=sources)], [], replace(LIMITS, kind=kind, ttl=HOUR), NOW)
    assert bool(found.add) is acts
    assert len(found.refused) is not acts
    assert {one.by for one in found.add} <= {"operator" if "operator" in sources else "automatic"}


def test_policy_and_limits_agree() -> None:
    assert (policy.MOST, policy.SHARE, policy.HOURS * HOUR) == (module.MOST, module.SHARE, DAY)
    assert KINDS[INBOUND].longest == policy.INBOUND_MINUTES * MINUTE


def test_the_policy_may_ask_for_more_evidence_and_never_for_less() -> None:
    assert not decide([case()], [], replace(LIMITS, families=2), NOW).add
    assert not decide([case()], [], replace(LIMITS, kind=SOURCE, families=1), NOW).add


def cases(number: int) -> list[Case]:
    return [case(f"k{one}", f"203.0.{one // 250}.{one % 250 + 1}/32") for one in range(number)]


@pytest.mark.parametrize(
    ("subscribers", "most", "cap"),
    [(10_000_000, 1000, 100), (5_000, 100, 5), (100_000, 7, 7), (999, 100, 0), (-1, 9, 0)],
)
def test_cap_breach_adds_nothing_and_alarms(subscribers: int, most: int, cap: int) -> None:
    limits = replace(LIMITS, subscribers=subscribers, most=most)
    assert limits.cap == cap
    within = decide(cases(cap), [], limits, NOW)
    assert (len(within.add), within.frozen) == (cap, "")
    over = decide(cases(cap + 1), [], limits, NOW)
    assert why_not(over)
    assert f"more than the cap of {cap}" in over.frozen
    assert len(over.refused) == cap + 1


def test_the_cap_holds_in_total_and_leaves_what_is_in_force() -> None:
    limits = replace(LIMITS, subscribers=5_000)
    active = [action(f"old{one}", f"198.51.100.{one}/32") for one in range(1, 5)]
    assert len(decide(cases(1), active, limits, NOW).add) == 1
    over = decide(cases(2), active, limits, NOW)
    assert "cap of 5" in over.frozen
    assert (over.add, over.keep, over.release) == ((), tuple(active), ())
    assert decide([], [*active, *active], limits, NOW).frozen == "", "with nothing to add nothing is wrong"


@pytest.mark.parametrize(
    ("changes", "now", "last", "reason"),
    [
        ({"never": ()}, NOW, 0, "never-list is empty"),
        ({"never": (Protected("192.0.2.1/24", "typed wrongly"),)}, NOW, 0, "is no prefix"),
        ({"ttl": DAY + 1}, NOW, 0, "may last up to 86400000 ms"),
        ({"ttl": 0}, NOW, 0, "may last up to"),
        ({"kind": INBOUND, "ttl": HOUR + 1}, NOW, 0, "may last up to 3600000 ms"),
        ({"kind": "flowspec"}, NOW, 0, "no kind of action"),
        ({}, NOW, NOW + 1, "the clock went back"),
        ({}, NOW - 2 * HOUR, 0, "the clock went back"),
        ({}, NOW + LATE, 0, "after the last run"),
        ({}, NOW, NOW - LATE - 1, "after the last run"),
    ],
)
def test_empty_never_list_and_clock_jump_freeze(changes: dict[str, object], now: int, last: int, reason: str) -> None:
    active = [] if last and last < NOW else [action("old", "198.51.100.1/32")]
    found = decide([case()], active, replace(LIMITS, **changes), now, last=last)  # type: ignore[arg-type]
    assert reason in found.frozen
    assert (found.add, found.keep, found.release) == ((), tuple(active), ())
    assert [one.case.key for one in found.refused] == ["k1"]


def test_the_kill_switch_releases_everything_even_where_all_else_is_wrong() -> None:
    wrong = replace(LIMITS, enabled=False, never=(), dry_run=True)
    found = decide([case()], [action("old")], wrong, 5)
    assert not found.dry_run
    assert (found.add, found.keep) == ((), ())
    assert [(one.action.key, one.reason) for one in found.release] == [("old", "the kill switch is on")]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"until": NOW}, "its time is over"),
        ({"until": NOW + DAY + 1}, "longer than allowed"),
        ({"prefixes": ("192.0.2.4/32",)}, "never-list"),
        ({"until": NOW + 1}, ""),
    ],
)
def test_what_is_in_force_ends_by_time_and_by_the_never_list(changes: dict[str, object], reason: str) -> None:
    found = decide([], [action(**changes)], LIMITS, NOW)  # type: ignore[arg-type]
    assert len(found.keep) == (not reason)
    assert [reason in one.reason for one in found.release] == [True] * bool(reason)


@pytest.mark.parametrize(
    ("owner", "stays"),
    [
        (Owner(KNOWN, "subscriber of k1"), True),
        (Owner(UNKNOWN), True),
        (Owner(KNOWN, "another"), False),
        (Owner(AMBIGUOUS, reason="two sessions"), False),
    ],
)
def test_an_address_that_moved_on_is_let_go(owner: Owner, stays: bool) -> None:
    found = decide([], [action()], LIMITS, NOW, owners={"203.0.113.7/32": owner})
    assert bool(found.keep) is stays
    assert bool(found.release) is not stays


def test_a_subscriber_with_other_addresses_gets_the_new_ones_and_gives_the_old_ones_back() -> None:
    found = decide([case("k1", "203.0.113.9/32")], [action()], LIMITS, NOW)
    assert [one.prefixes for one in found.add] == [("203.0.113.9/32",)]
    assert [one.action.prefixes for one in found.release] == [("203.0.113.7/32",)]
    assert not found.keep


@pytest.mark.parametrize(
    ("prefixes", "stays"), [(("203.0.113.7/32", "203.0.113.8/32"), True), (("203.0.113.8/32",), False)]
)
def test_over_the_cap_who_has_more_addresses_than_before_is_not_let_go(prefixes: tuple[str, ...], stays: bool) -> None:
    found = decide([case("k1", *prefixes), *cases(1)], [action()], replace(LIMITS, subscribers=1_000), NOW)
    assert "cap of 1" in found.frozen
    assert (found.add, found.keep) == ((), (action(),) if stays else ())
    assert [one.action.key for one in found.release] == ([] if stays else ["k1"])


@pytest.mark.parametrize(
    ("others", "new", "kept"),
    [
        ([], [], ["k2", "k1"]),  # what another has is not his, and what he has stays
        ([case("k0", "203.0.113.7/32", subscriber="subscriber of k1")], ["k0"], ["k2"]),  # his, under another key
        ([case("k9", "203.0.113.7/32")], [], ["k2", "k1"]),  # whose it is is not certain
    ],
)
def test_who_has_an_address_that_another_is_held_by_is_not_let_go(
    others: list[Case], new: list[str], kept: list[str]
) -> None:
    active = [action(), action("k2", "203.0.113.8/32")]
    found = decide([*others, case("k1", "203.0.113.7/32", "203.0.113.8/32")], active, LIMITS, NOW)
    assert [one.key for one in found.add] == new
    assert [one.key for one in found.keep] == kept


def test_the_second_decision_changes_nothing() -> None:
    first = decide([case()], [], LIMITS, NOW)
    again = decide([case()], first.add, LIMITS, NOW + MINUTE, last=NOW)
    assert (again.add, again.keep, again.release, again.refused, again.frozen) == ((), first.add, (), (), "")


def test_what_was_released_by_hand_is_left_alone_for_its_time() -> None:
    assert "released by hand" in why_not(decide([case()], [], LIMITS, NOW, released={"k1": NOW + 1}))
    assert decide([case()], [], LIMITS, NOW, released={"k1": NOW}).add


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        (case("k1", "203.0.113.9/32"), "2 cases have the key k1"),
        (case("k2", "2001:db8:1:2::7/128"), "of two subscribers"),
        (case("k2", "2001:db8:1:2::7/128", subscriber="subscriber of k1"), "already, as k1"),
        (case("", "203.0.113.9/32"), "needs a key"),
        (case("k2", "203.0.113.9/32", since=NOW + HOUR), "in the future"),
        (Case("k2", "x", (), ("D2",), NOW), "no address is known"),
        (case("k2", *(f"203.0.113.{one}/32" for one in range(20, 37))), "17 prefixes"),
        (case("k2", "198.51.100.1/32"), "already, as old"),
    ],
)
def test_cases_that_contradict_or_say_too_little_are_refused(second: Case, reason: str) -> None:
    active = [action("old", "198.51.100.1/32")]
    found = decide([case("k1", "203.0.113.7/32", "2001:db8:1:2::/64"), second], active, LIMITS, NOW)
    assert reason in {one.case.key: one.reason for one in found.refused}[second.key]
    assert second.key not in {one.key for one in found.add} - {"k1"}
    assert found.keep == tuple(active)


def test_two_hosts_on_one_link_are_two() -> None:
    two = [case("a", "2001:db8:1:2::7/128"), case("b", "2001:db8:1:2::8/128")]
    assert len(decide(two, [], LIMITS, NOW).add) == 2


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ([], "is no mapping"),
        ({"key": ""}, "'key' is no text"),
        ({"since": True}, "'since' is no whole number"),
        ({"until": -1}, "'until' is no whole number"),
        ({"until": 10**18}, "'until' is no whole number"),
        ({"until": "1790000000000"}, "'until' is no whole number"),
        ({"prefixes": "203.0.113.7/32"}, "'prefixes' is no list"),
        ({"prefixes": ["203.0.113.0/24"]}, "more than one subscriber's"),
        ({"routes": []}, "unknown field routes"),
    ],
)
def test_an_action_that_is_none_is_told(data: object, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_action(action().as_dict() | data if isinstance(data, dict) else data)


def test_actions_and_cases_are_read_as_they_were_written() -> None:
    assert read_action(action().as_dict()) == action()
    assert read_case(json.loads(json.dumps(case(evidence=("a line",)).as_dict()))) == case(evidence=("a line",))


some_prefix = st.one_of(
    st.builds("192.0.2.{}/{}".format, st.integers(0, 40), st.integers(27, 32)),
    st.builds("198.51.100.{}/32".format, st.integers(120, 140)),
    st.builds(
        "2001:db8:{}::{}/{}".format, st.sampled_from(["7", "8", "ffff"]), st.integers(0, 64), st.integers(62, 128)
    ),
    st.sampled_from(["0.0.0.0/0", "::/0", "", "192.0.2.4", "::ffff:192.0.2.4/128"]),
)
some_sources = st.lists(st.sampled_from([*module.FAMILIES, "rumour"]), max_size=3).map(tuple)
some_case = st.builds(
    Case,
    st.sampled_from([*"abcdefgh", ""]),
    st.sampled_from(["s1", "s2", "s3", ""]),
    st.lists(some_prefix, max_size=3).map(tuple),
    some_sources,
    st.integers(NOW - DAY, NOW + HOUR),
)
some_action = st.builds(
    Action,
    st.sampled_from([*"abcdefgh"]),
    st.sampled_from(["s1", "s2"]),
    st.builds("192.0.2.{}/32".format, st.integers(0, 40)).map(lambda one: (one,)),
    st.integers(NOW - 2 * DAY, NOW + MINUTE),
    st.integers(NOW - DAY, NOW + 2 * DAY),
    st.just("D2"),
    st.just(("D2",)),
    st.just("automatic"),
)
some_limits = st.builds(
    Limits,
    st.sampled_from([*KINDS, "no such"]),
    st.integers(-1, 8_000),
    st.lists(st.sampled_from(NEVER), max_size=4).map(tuple),
    ttl=st.sampled_from([0, MINUTE, HOUR, DAY, 2 * DAY]),
    most=st.integers(-1, 200),
    enabled=st.sampled_from([True, True, True, False]),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(some_case, max_size=12), st.lists(some_action, max_size=4), some_limits, st.integers(0, NOW))
def test_never_a_listed_address_never_above_the_cap_never_half(
    cases: list[Case], active: list[Action], limits: Limits, last: int
) -> None:
    found = decide(cases, active, limits, NOW, last=last)
    protected = [ipaddress.ip_network(one.prefix) for one in limits.never]
    for one in found.add:
        assert one.since == NOW < one.until <= NOW + KINDS[limits.kind].longest
        wanted = [c for c in cases if c.key == one.key]
        assert len(wanted) == 1
        nets = [ipaddress.ip_network(prefix) for prefix in one.prefixes]
        for whole in map(ipaddress.ip_network, wanted[0].prefixes):
            held = [net for net in nets if net.version == whole.version and net.overlaps(whole)]
            assert [net.prefixlen <= whole.prefixlen for net in held] == [True], "the whole case, each address once"
        for prefix in map(ipaddress.ip_network, one.prefixes):
            assert prefix.prefixlen >= (32 if prefix.version == 4 else 64)
            assert protected
            assert not any(net.version == prefix.version and net.overlaps(prefix) for net in protected)
    if found.add:
        assert len(found.add) + len(found.keep) <= min(100, limits.most, limits.subscribers / 1000)
    if found.frozen:
        assert not found.add
    # Everything is accounted for: a case is acted upon, in force, or refused with a reason; an action stays or goes.
    done = {one.key for one in (*found.add, *found.keep)}
    assert all(one.reason for one in (*found.refused, *found.release))
    assert sorted(map(repr, active)) == sorted(map(repr, [*found.keep, *(one.action for one in found.release)]))
    assert {c.key for c in cases} <= {one.case.key for one in found.refused} | done
