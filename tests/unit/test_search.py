"""The search never disagrees with the naive evaluator, over random filters with jumps, doubts and several stages."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.isp.hardening.plugins.module_utils import packets
from ansible_collections.isp.hardening.plugins.module_utils.filters import (
    DENY,
    GOTO,
    JUMP,
    PERMIT,
    RETURN,
    UNKNOWN,
    Configuration,
    Entry,
    Filter,
    evaluate,
    matches,
)
from ansible_collections.isp.hardening.plugins.module_utils.search import QUESTION_LIMIT, Question, Search

# Few values of few bits, so that random lines overlap and random packets hit them.
ADDRESSES = st.builds(
    lambda low, length: packets.prefix(f"198.51.100.{low}/{length}", 4), st.integers(0, 7), st.integers(29, 32)
)
WILDCARDS = st.builds(
    lambda value, mask: ((0xC6336400 | value & mask, 0xFFFFFFF8 | mask),), st.integers(0, 7), st.integers(0, 7)
)
PORTS = st.builds(lambda low, size: packets.span(low, low + size, 16), st.integers(22, 27), st.integers(0, 4))
PROTOCOLS = st.sampled_from([packets.exactly(6, 8), packets.exactly(17, 8), packets.complement(((6, 255),), 8)])


@st.composite
def header_sets(draw: st.DrawFn) -> packets.Match:
    match: dict[str, packets.Alternatives] = {}
    if draw(st.booleans()):
        match["protocol"] = draw(PROTOCOLS)
    if draw(st.booleans()):
        match["source"] = packets.union(*draw(st.lists(st.one_of(ADDRESSES, WILDCARDS), min_size=1, max_size=3)))
    if draw(st.booleans()):
        match["destination_port"] = draw(PORTS)
        match.update(packets.INITIAL)
    if draw(st.integers(0, 4)) == 0:
        match["tcp_flags"] = packets.flags_any(("ack", "rst"))
    if draw(st.integers(0, 4)) == 0:
        match["fragment"] = packets.LATER_FRAGMENT
    return match


def entries(targets: tuple[str, ...]) -> st.SearchStrategy[tuple[Entry, ...]]:
    some = st.lists(header_sets(), min_size=1, max_size=2).map(tuple)
    doubt = st.sampled_from(["", "", "", "", "not understood"])
    decisions = st.builds(Entry, st.sampled_from([PERMIT, DENY]), some, st.just(1), st.just("line"), doubt=doubt)
    others = [st.builds(Entry, st.just(action), some, st.just(1), st.just("line")) for action in (UNKNOWN, RETURN)]
    if targets:
        jumps = st.sampled_from([JUMP, GOTO])
        others.append(st.builds(Entry, jumps, some, st.just(1), st.just("jump"), st.sampled_from(targets)))
    return st.lists(st.one_of(decisions, decisions, *others), max_size=8).map(tuple)


def filters(name: str, targets: tuple[str, ...], default: st.SearchStrategy[str]) -> st.SearchStrategy[Filter]:
    return st.builds(Filter, st.just(name), st.just(4), entries(targets), default, st.just(1))


def configurations() -> st.SearchStrategy[Configuration]:
    default = st.sampled_from([PERMIT, DENY])
    return st.tuples(
        filters("inner", (), st.just(RETURN)),
        filters("middle", ("inner",), st.just(RETURN)),
        filters("first", ("inner", "middle"), default),
        filters("second", ("inner", "middle"), default),
    ).map(lambda chosen: Configuration({(4, one.name): one for one in chosen}))


def packet_in(match: packets.Match, near: packets.Match, chance: random.Random) -> dict[str, int]:
    """A random packet of the match, pulled towards another match so that lines are hit."""
    packet = {name: chance.getrandbits(packets.width(name, 4)) for name in packets.FIELDS}
    for wanted in (near, match):
        for name, alternatives in wanted.items():
            value, mask = chance.choice(alternatives)
            packet[name] = packet[name] & ~mask | value
    return packet


@settings(max_examples=400, deadline=None)
@given(configurations(), header_sets(), st.lists(header_sets(), max_size=2), st.integers())
def test_search_agrees_with_the_naive_evaluator(
    configuration: Configuration, scope: packets.Match, exempt: list[packets.Match], seed: int
) -> None:
    chance = random.Random(seed)
    for stages in (("first",), ("first", "second")):
        for wanted in (PERMIT, DENY):
            [answer] = Search(configuration, 4).ask(stages, [Question(wanted, (scope,), tuple(exempt))])
            assert "disagree" not in answer.reason
            if answer.packet:
                assert matches(scope, answer.packet)
                assert not any(matches(one, answer.packet) for one in exempt)
            lines = [
                match for name in stages for entry in configuration.filters[4, name].entries for match in entry.matches
            ]
            for _ in range(40):
                packet = packet_in(scope, chance.choice(lines) if lines else {}, chance)
                if not matches(packets.POSSIBLE[4], packet) or any(matches(one, packet) for one in exempt):
                    continue
                possible = {PERMIT}
                for name in stages:
                    here, _ = evaluate(configuration, 4, name, packet)
                    possible = possible - {PERMIT} | here
                    if PERMIT not in here:
                        break
                if possible == {wanted}:
                    assert answer.found is True
                elif wanted in possible:
                    assert answer.found is not False


def test_discontiguous_wildcards_that_cover_everything_are_proved_to() -> None:
    bits = range(32)
    lines = tuple(
        Entry(DENY, ({"source": ((1 << one, 1 << one),), "destination": ((1 << other, 1 << other),)},), 1, "deny")
        for one in bits
        for other in bits
    )
    configuration = Configuration({(4, "x"): Filter("x", 4, (*lines, Entry(PERMIT, ({},), 2, "permit")), DENY, 1)})
    zero = ((0, 0xFFFFFFFF),)
    no_source, no_destination = {"source": zero}, {"destination": zero}
    [none, some] = Search(configuration, 4).ask(
        ("x",), [Question(PERMIT, ({},), (no_source, no_destination)), Question(PERMIT, ({},), (no_destination,))]
    )
    assert none.found is False
    assert some.found is True
    assert some.packet
    assert some.packet["source"] == 0


def test_a_list_too_hard_to_decide_is_unknown_within_the_limit() -> None:
    """Wildcard masks can spell 3-SAT: 1,090 clauses over the 256 address bits is where it is hardest."""
    chance = random.Random(7)
    lines = []
    for _ in range(1090):
        clause: dict[str, tuple[int, int]] = {"source": (0, 0), "destination": (0, 0)}
        for position in chance.sample(range(256), 3):
            field, bit = ("source", 1 << position) if position < 128 else ("destination", 1 << position - 128)
            value, mask = clause[field]
            clause[field] = value | (bit if chance.random() < 0.5 else 0), mask | bit
        lines.append(Entry(DENY, ({name: (ternary,) for name, ternary in clause.items()},), 1, "deny"))
    configuration = Configuration({(6, "x"): Filter("x", 6, (*lines, Entry(PERMIT, ({},), 2, "permit")), DENY, 1)})
    search = Search(configuration, 6)
    [answer] = search.ask(("x",), [Question(PERMIT, ({},))])
    assert answer.found is None
    assert "limit" in answer.reason
    assert search.spent <= QUESTION_LIMIT + 1091


@settings(max_examples=200)
@given(configurations(), header_sets(), st.integers())
def test_the_naive_evaluator_looks_at_every_entry(configuration: Configuration, near: packets.Match, seed: int) -> None:
    """One comparison of numbers passes most entries by: those that the definition of a match passes by too."""
    packet = packet_in({}, near, random.Random(seed))
    for name in ("inner", "first"):
        _, seen = evaluate(configuration, 4, name, packet)
        for entry in configuration.filters[4, name].entries:
            hit = any(matches(match, packet) for match in entry.matches)
            assert hit == any(entry is one for one in seen)
            if hit and (entry.action == JUMP or not entry.doubt):
                break


def test_behind_a_doubt_only_what_can_be_certain_is_looked_at() -> None:
    """A chain that may permit and returns, in front of a deny for all: what it returns of is never told apart."""
    chance = random.Random(7)
    returns = tuple(
        Entry(RETURN, ({"destination": packets.exactly(chance.getrandbits(32), 32)},), 1, "return") for _ in range(40)
    )
    inner = Filter("inner", 4, (*returns, Entry(PERMIT, ({},), 2, "permit", doubt="perhaps")), RETURN, 1)
    outer = Filter("outer", 4, (Entry(JUMP, ({},), 3, "jump", "inner"), Entry(DENY, ({},), 4, "deny")), DENY, 1)
    search = Search(Configuration({(4, "inner"): inner, (4, "outer"): outer}), 4)
    [answer] = search.ask(("outer",), [Question(PERMIT, ({},))])
    assert answer.found is None
    assert "perhaps" in answer.reason
    assert search.spent < 1000
