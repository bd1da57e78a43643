# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The what-if: a flow's outcome is what the naive evaluator says of its packets, and only the difference counts."""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.isp.hardening.plugins.module_utils import packets
from ansible_collections.isp.hardening.plugins.module_utils.audit import bound
from ansible_collections.isp.hardening.plugins.module_utils.difference import Side
from ansible_collections.isp.hardening.plugins.module_utils.filters import (
    DENY,
    PERMIT,
    Configuration,
    Entry,
    Filter,
)
from tests.assurance.texts import Known, cases, rendered
from tests.unit.test_search import configurations

np = pytest.importorskip("numpy")

from ansible_collections.isp.hardening.plugins.module_utils.signals._impact_judge import (  # noqa: E402
    SEEN,
    Judge,
    as_recorded,
    proved,
)
from ansible_collections.isp.hardening.plugins.module_utils.signals.flows import V4_MAPPED, Flows  # noqa: E402
from ansible_collections.isp.hardening.plugins.module_utils.signals.impact import (  # noqa: E402
    Budget,
    Place,
    Protected,
    impact,
    refusal,
)
from tests.signals import brute_force  # noqa: E402

TUPLES = 20_000
SYN, ACK, RST, WHOLE = 0x02, 0x10, 0x04, 0x1B


@dataclass(frozen=True)
class Row:
    """One flow record, by hand."""

    source: str
    destination: str
    dport: int = 25
    sport: int = 40000
    proto: int = 6
    flags: int = WHOLE
    octets: int = 4000
    time: int = 1_767_225_600_000


def flows(rows: Sequence[Row], **facts: Any) -> Flows:
    """The rows as the reader of flow files gives them."""

    def halves(texts: Sequence[str]) -> tuple[Any, Any]:
        values = [ipaddress.ip_address(text) for text in texts]
        whole = [int(one) | V4_MAPPED if one.version == 4 else int(one) for one in values]
        return np.array([one >> 64 for one in whole], "u8"), np.array([one & (1 << 64) - 1 for one in whole], "u8")

    source, destination = halves([one.source for one in rows]), halves([one.destination for one in rows])
    columns = {name: np.array([getattr(one, name) for one in rows]) for name in ("sport", "dport", "proto", "flags")}
    return Flows(
        ts_ms=np.array([one.time for one in rows], "i8"), src_hi=source[0], src_lo=source[1], dst_hi=destination[0],
        dst_lo=destination[1], sport=columns["sport"].astype("u2"), dport=columns["dport"].astype("u2"),
        proto=columns["proto"].astype("u1"), flags=columns["flags"].astype("u1"), packets=np.full(len(rows), 10, "u8"),
        octets=np.array([one.octets for one in rows], "u8"), forwarding=np.zeros(len(rows), "u1"),
        **{"sampling": 1, "flags_known": True, "source": "by hand"} | facts,
    )  # fmt: skip


# --- Against brute force --------------------------------------------------------------------------------------------


def values(sides: Sequence[Side], family: int, field: str, chance: random.Random) -> list[int]:
    """Where lines begin and end to match, one before and behind, and one inside."""
    bits = packets.width(field, family)
    full = (1 << bits) - 1
    found = {chance.getrandbits(bits)}
    for side in sides:
        for (version, _), one in side.configuration.filters.items():
            wanted = (match.get(field, ()) for entry in one.entries for match in entry.matches if version == family)
            for value, mask in (ternary for alternatives in wanted for ternary in alternatives):
                last = value | full & ~mask
                found |= {
                    value,
                    last,
                    value - 1 & full,
                    last + 1 & full,
                    value | chance.getrandbits(bits) & ~mask & full,
                }
    return sorted(found)


def rows_near(place: Place, many: int, chance: random.Random) -> Iterator[Row]:
    sides = (place.before, place.after)
    near = {
        name: values(sides, place.family, name, chance)
        for name in ("source", "destination", "protocol", "source_port", "destination_port", "icmp_type", "icmp_code")
    }
    make = ipaddress.IPv4Address if place.family == 4 else ipaddress.IPv6Address
    for _ in range(many):
        protocol = chance.choice((6, 6, 6, 17, 1, 58, *near["protocol"]))
        icmp = chance.choice(near["icmp_type"]) << 8 | chance.choice((0, *near["icmp_code"]))
        ports = (0, icmp, icmp) if protocol in (1, 58) else (*near["destination_port"], 0, 25, 25, 1023, 1024)
        yield Row(
            str(make(chance.choice(near["source"]))), str(make(chance.choice(near["destination"]))),
            chance.choice(ports),
            chance.choice((*near["source_port"], 25, 1023, 1024, 40000)),
            protocol,
            chance.choice((SYN, WHOLE, ACK, RST, 0, 0x29, 0x12)),
        )  # fmt: skip


def agrees(place: Place, rows: Sequence[Row]) -> int:
    """How many rows make a difference; fails where one does not make the difference that it should."""
    judge, differing = Judge(place), 0
    sides = as_recorded(place.before), as_recorded(place.after)
    for begin in range(0, len(rows), 300):  # classes go on over chunks
        chunk = flows(rows[begin : begin + 300])
        v4 = np.full(len(chunk), place.family == 4)
        mine, outcomes = judge.outcomes(chunk, v4)
        assert list(mine) == list(range(len(chunk)))
        for row, outcome in zip(rows[begin : begin + 300], outcomes.tolist(), strict=True):
            addresses = int(ipaddress.ip_address(row.source)), int(ipaddress.ip_address(row.destination))
            expected = brute_force.outcome(place, sides, row.proto, (row.sport, row.dport), addresses, row.flags)
            assert outcome == expected, (place.name, row)
            differing += bool(outcome & ~SEEN)
    return differing


PLATFORMS = ("cisco_ios", "arista_eos", "juniper_junos", "linux_nftables", "vyos", "mikrotik_routeros", "nokia_sros")


def pairs(network_os: str, chance: random.Random) -> Iterator[Place]:
    """Two configurations of a platform, at one of their places, in a direction and a family that has filters there."""
    ours, others = rendered(network_os), cases(network_os)
    while True:
        sides = chance.sample((chance.choice(ours), *chance.sample(others, 2)), 2)
        direction, family = chance.choice(("up", "up", "down")), chance.choice((4, 4, 6))
        chosen = [_side(one, direction, family) for one in sides]
        if any(one.filters for one in chosen):
            prefixes = tuple(
                text for name in sides[0].attachments[0].pools for text in sides[0].policy.pools[name].prefixes(family)
            )
            name = f"{network_os}: {sides[0].name} and {sides[1].name}, {direction}, IPv{family}"
            yield Place(name, direction, family, *chosen, subscribers=chance.choice((prefixes, ())))


def _side(one: Known, direction: str, family: int) -> Side:
    binding = bound(one.read, one.names[0], direction, family)
    return Side(one.read, binding.filters if binding else (), one.network_os)


def test_what_if_equals_brute_force_on_20000_tuples() -> None:
    chance, done, differing, met = random.Random(5), 0, 0, set()
    sources = {name: pairs(name, chance) for name in PLATFORMS}
    while done < TUPLES:
        for name, source in sources.items():
            place = next(source)
            rows = list(rows_near(place, 300, chance))
            found = agrees(place, rows)
            done, differing = done + len(rows), differing + found
            met |= {name} if found else set()
    assert met == set(PLATFORMS)
    assert differing > done // 20


@settings(max_examples=25, deadline=None)
@given(configurations(), configurations(), st.integers())
def test_random_filters_with_jumps_doubts_and_stages(one: Configuration, other: Configuration, seed: int) -> None:
    chance = random.Random(seed)
    for stages in (("first",), ("first", "second"), ()):
        place = Place("random", "up", 4, Side(one, stages), Side(other, stages or ("first",)))
        agrees(place, list(rows_near(place, 30, chance)))


@settings(max_examples=25, deadline=None)
@given(configurations(), st.integers())
def test_a_doubt_that_both_sides_have_is_one_doubt(configuration: Configuration, seed: int) -> None:
    side = Side(configuration, ("first", "second"), "a")
    place = Place("same", "up", 4, side, side, unchanged=True)
    chunk = flows(list(rows_near(place, 60, random.Random(seed))))
    assert set(Judge(place).outcomes(chunk, np.ones(len(chunk), bool))[1].tolist()) == {SEEN}


def test_addresses_told_apart_by_the_lower_half_alone() -> None:
    """IPv6 hosts of one /64, and a mask with a hole in it."""
    inside = "2001:db8:100:7::"
    lines = [packets.prefix(f"{inside}{one}/128", 6) for one in ("1", "5", "ffff")]
    lines += [packets.prefix("2001:db8:100:7:8000::/65", 6), packets.prefix("2001:db8:100::/46", 6)]
    holes: packets.Alternatives = ((0x2001_0DB8 << 96 | 2, 0xFFFF_FFFF << 96 | 6),)
    for wanted in (lines, [*lines, holes]):
        actions = (PERMIT, DENY) * 4
        entries = tuple(
            Entry(action, ({"source": one},), 1, "line") for action, one in zip(actions, wanted, strict=False)
        )
        chosen = Filter("x", 6, entries, DENY, 1)
        place = Place("x", "up", 6, Side(Configuration({(6, "x"): chosen}), ("x",)), Side(Configuration({}), ()))
        hosts = ("", "1", "2", "4", "5", "6", "fffe", "ffff", "1:0", "8000:0:0:0", "7fff:ffff:ffff:ffff", "8000:0:0:1")
        sources = [inside.rstrip(":") + ":" + one if one.count(":") == 3 else inside + one for one in hosts]
        sources += ["2001:db8:103:ffff::2", "2001:db8:104::", "2001:db8:ff:ffff:ffff:ffff:ffff:ffff", "::", "ffff::"]
        assert agrees(place, [Row(one, "2001:db8:ffff::9") for one in sources])


def test_icmp_types_and_codes_are_told_apart() -> None:
    echo: packets.Match = {"protocol": packets.exactly(1, 8), "icmp_type": packets.exactly(8, 8)}
    too_big = echo | {"icmp_type": packets.exactly(3, 8), "icmp_code": packets.exactly(4, 8)}
    lines = (line(DENY, echo, "deny icmp any any echo"), line(DENY, too_big, "deny icmp any any 3 4"))
    kinds = (0x0000, 0x0001, 0x0303, 0x0304, 0x0305, 0x0404, 0x07FF, 0x0800, 0x0801, 0x0804, 0x08FF, 0x0900)
    rows = [Row("198.51.100.9", "203.0.113.9", kind, 0, 1, 0) for kind in kinds]
    assert agrees(place(OPEN, listed(*lines)), rows) == 6  # four echo requests, 3 4, and what may be one


# --- What a flow record proves ---------------------------------------------------------------------------------------

NEW, ESTABLISHED, INVALID = 0, 1, 3


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ((6, 40000, 25, SYN), {((SYN, NEW),)}),
        ((6, 40000, 25, WHOLE), {((SYN, NEW), (ACK, ESTABLISHED))}),
        ((6, 25, 40000, WHOLE), {((SYN | ACK, ESTABLISHED), (ACK, ESTABLISHED))}),
        ((6, 40000, 50000, WHOLE), {
            ((SYN, NEW), (ACK, ESTABLISHED)), ((SYN | ACK, ESTABLISHED), (ACK, ESTABLISHED))}),
        ((6, 40000, 25, ACK | 8), {((ACK, ESTABLISHED),)}),
        ((6, 40000, 25, 0), {((SYN, NEW),), ((ACK, ESTABLISHED),), ((SYN, NEW), (ACK, ESTABLISHED))}),
        ((6, 40000, 25, RST), {((RST, ESTABLISHED),), ((RST, INVALID),)}),
        ((17, 40000, 53, 0), {((0, NEW),)}),
        ((17, 53, 40000, 0), {((0, ESTABLISHED),)}),
        ((17, 1024, 1023, 0), {((0, NEW),)}),
        ((17, 1024, 1024, 0), {((0, NEW),), ((0, ESTABLISHED),)}),
        ((17, 1023, 1023, 0), {((0, NEW),), ((0, ESTABLISHED),)}),
        ((17, 5000, 6000, 0), {((0, NEW),), ((0, ESTABLISHED),)}),
    ],
)  # fmt: skip
def test_the_packets_that_a_record_proves(row: tuple[int, int, int, int], expected: object) -> None:
    assert {tuple(kind[:2] for kind in alternative) for alternative in proved(*row)} == expected


def test_icmp_without_a_type_may_be_a_request_or_a_reply() -> None:
    assert {kind[2] for alternative in proved(1, 0, 0, 0) for kind in alternative} == {0x0000, 0x0800}
    assert {kind[2] for alternative in proved(58, 0, 0, 0) for kind in alternative} == {0x0000, 0x8000}
    assert {kind[2] for alternative in proved(1, 0, 0x0301, 0) for kind in alternative} == {0x0301}


# --- The delta -------------------------------------------------------------------------------------------------------

SMTP: packets.Match = {"protocol": packets.exactly(6, 8), "destination_port": packets.exactly(25, 16)}
SUBSCRIBERS = ("198.51.100.0/25",)


def listed(*entries: Entry, family: int = 4) -> Side:
    """One list that permits what it does not name."""
    return Side(Configuration({(family, "x"): Filter("x", family, entries, PERMIT, 1)}), ("x",), "cisco_ios")


def line(action: str, match: packets.Match, text: str, number: int = 7, doubt: str = "") -> Entry:
    return Entry(action, (match,), number, text, doubt=doubt)


NO_MAIL = listed(line(DENY, SMTP, "deny tcp any any eq 25"))
OPEN = Side(Configuration({}), (), "cisco_ios")


def place(before: Side = OPEN, after: Side = NO_MAIL, **changes: Any) -> Place:
    return replace(Place("Vt1", "up", 4, before, after, subscribers=SUBSCRIBERS), **changes)


def test_only_the_difference_counts() -> None:
    rows = [
        Row("198.51.100.9", "203.0.113.25"),  # a session
        Row("198.51.100.9", "203.0.113.25", sport=40001, flags=SYN, octets=60),
        Row("198.51.100.9", "203.0.113.26", flags=SYN, octets=60),
        Row("198.51.100.10", "203.0.113.25", flags=SYN, octets=120),
        Row("198.51.100.10", "203.0.113.25", 443),  # as before
        Row("198.51.100.200", "203.0.113.25"),  # nobody's of these places
    ]
    found = impact([place()], [flows(rows[:3]), flows(rows[3:])], alarmed=["198.51.100.10"])
    assert (found.flows, found.seen) == (6, 5)
    assert (found.denied.subscribers, found.denied.alarmed, found.denied.flows) == (2, 1, 4)
    assert (found.denied.octets, found.denied.sessions) == (4000 + 60 + 60 + 120, 1)
    assert [(one.address, one.protocol, one.port, one.flows) for one in found.denied.destinations] == [
        ("203.0.113.25", "tcp", "25", 3), ("203.0.113.26", "tcp", "25", 1),
    ]  # fmt: skip
    [example] = found.denied.examples
    assert (example.place, example.before, example.after) == (
        "Vt1", "permit: no filter", "deny: line 7: deny tcp any any eq 25",
    )  # fmt: skip
    assert example.packet.startswith("tcp 198.51.100.")
    assert (found.permitted.flows, found.unknown.flows, found.at_most) == (0, 0, replace(found.denied, examples=()))
    assert found.as_dict()["denied"]["destinations"][0]["port"] == "25"
    back = impact([place(NO_MAIL, OPEN)], [flows(rows)])
    assert (back.permitted.subscribers, back.permitted.flows, back.denied.flows) == (2, 4, 0)


def test_what_is_not_known_counts_as_denied_and_is_told_with_its_line() -> None:
    doubtful = listed(line(DENY, SMTP, "deny tcp any any eq 25 frobnicate", doubt="'frobnicate' is not understood"))
    found = impact([place(OPEN, doubtful)], [flows([Row("198.51.100.9", "203.0.113.25")])])
    assert (found.denied.flows, found.unknown.flows, found.at_most.flows, found.at_most.sessions) == (0, 1, 1, 1)
    [example] = found.unknown.examples
    assert example.after == "unknown: line 7: deny tcp any any eq 25 frobnicate ('frobnicate' is not understood)"
    back = impact([place(doubtful, OPEN)], [flows([Row("198.51.100.9", "203.0.113.25")])])
    assert (back.unknown.flows, back.at_most.flows) == (1, 0)


def test_a_line_that_asks_for_what_records_do_not_have_is_in_doubt() -> None:
    marked = listed(line(DENY, {"tos": ((0xB8, 0xFC),)}, "deny ip any any dscp ef"))
    found = impact([place(OPEN, marked)], [flows([Row("198.51.100.9", "203.0.113.25")])])
    assert (found.denied.flows, found.unknown.flows) == (0, 1)
    assert "flow records do not have it" in found.unknown.examples[0].after


def test_established_sessions_are_cut_by_a_list_that_denies_only_what_follows() -> None:
    no_ack = listed(line(DENY, SMTP | {"tcp_flags": packets.flags_any(("ack",))}, "deny tcp any any eq 25 ack"))
    rows = [Row("198.51.100.9", "203.0.113.25"), Row("198.51.100.9", "203.0.113.25", flags=SYN, sport=40001)]
    found = impact([place(OPEN, no_ack)], [flows(rows)])
    assert (found.denied.flows, found.denied.sessions) == (1, 1)


def test_downwards_the_subscriber_is_the_destination() -> None:
    answers: packets.Match = {"protocol": packets.exactly(6, 8), "source_port": packets.exactly(25, 16)}
    after = listed(line(DENY, answers, "deny tcp any eq 25 any"))
    rows = [Row("203.0.113.25", "198.51.100.9", 40000, 25), Row("203.0.113.25", "198.51.100.250", 40000, 25)]
    found = impact([place(OPEN, after, direction="down")], [flows(rows)])
    assert (found.denied.subscribers, found.denied.flows, found.denied.sessions) == (1, 1, 1)
    assert (found.denied.destinations[0].address, found.denied.destinations[0].port) == ("203.0.113.25", "25 (source)")


def test_ipv6_subscribers_are_counted_by_their_64() -> None:
    after = listed(line(DENY, SMTP, "deny tcp any any eq 25"), family=6)
    hosts = ("2001:db8:100:1::1", "2001:db8:100:1::2", "2001:db8:100:2::1", "2001:db8:200::1")
    rows = [*(Row(one, "2001:db8:ffff::25") for one in hosts), Row("198.51.100.9", "203.0.113.25")]
    own = place(OPEN, after, family=6, subscribers=("2001:db8:100::/48",))
    found = impact([own, place()], [flows(rows)], alarmed=["2001:db8:100:2::/64"])
    assert (found.flows, found.seen, found.places) == (5, 4, ("Vt1",))
    assert (found.denied.subscribers, found.denied.alarmed, found.denied.flows) == (3, 1, 4)


def test_missing_flags_and_sampling_are_told() -> None:
    found = impact([place()], [flows([Row("198.51.100.9", "203.0.113.25")], flags_known=False, sampling=1000)])
    assert (found.denied.flows, found.denied.sessions) == (1, 1)
    assert "one packet of 1,000" in found.notes[0]
    assert "TCP flags are missing in by hand" in found.notes[1]


# --- The gate --------------------------------------------------------------------------------------------------------

EXEMPT = Protected("198.51.100.9/32", "exempt until 2030-01-01: Example")
OWN = Protected("192.0.2.25/32", "own mail server")


def refused(rows: Sequence[Row], budget: Budget, *protected: Protected) -> str:
    return refusal(impact([place()], [flows(rows)], protected=protected), budget)


def test_an_exempt_subscriber_blocks_the_push() -> None:
    wide = Budget(subscribers=None, flows=None, established=None)
    rows = [Row("198.51.100.9", "203.0.113.25", flags=SYN), Row("198.51.100.10", "203.0.113.26")]
    assert refused(rows, wide) == ""
    why = refused(rows, wide, EXEMPT, OWN)
    assert "198.51.100.9/32 (exempt until 2030-01-01: Example) would be cut: 198.51.100.9, tcp port 25" in why
    assert "203.0.113.25" in why
    assert refused(rows[1:], wide, EXEMPT, OWN) == ""


def test_a_never_list_address_that_is_cut_off_blocks_the_push_but_an_attempt_to_reach_it_does_not() -> None:
    wide = Budget(subscribers=None, flows=None, established=None)
    assert "192.0.2.25/32 (own mail server) would be cut" in refused([Row("198.51.100.9", "192.0.2.25")], wide, OWN)
    assert refused([Row("198.51.100.9", "192.0.2.25", flags=SYN)], wide, OWN) == ""


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        (Budget(2, 4, 1), ""),
        (Budget(1, None, None), "2 subscribers would newly be denied, the budget is 1"),
        (Budget(None, 3, None), "4 flows would newly be denied, the budget is 3"),
        (Budget(None, None, 0), "1 established mail sessions would newly be denied, the budget is 0"),
        (Budget(), "2 subscribers would newly be denied, the budget is 0"),
    ],
)
def test_a_budget_that_is_exceeded_refuses_and_names_destinations(budget: Budget, words: str) -> None:
    rows = [
        Row("198.51.100.8", "203.0.113.25"), Row("198.51.100.10", "203.0.113.25", flags=SYN),
        *(Row("198.51.100.8", "203.0.113.26", flags=SYN, sport=one) for one in (5000, 5001)),
    ]  # fmt: skip
    why = refused(rows, budget)
    assert words in why
    assert bool(why) == bool(words)
    assert not why or "tcp 203.0.113.26 port 25" in why


def test_flows_of_others_prove_nothing() -> None:
    assert "none of the 1 recorded flows is of a subscriber of Vt1" in refused(
        [Row("203.0.113.7", "203.0.113.25")], Budget(None, None, None)
    )
    assert "none of the 0 recorded flows" in refusal(impact([place()], []), Budget(None, None, None))


def test_flows_of_one_place_prove_nothing_about_another() -> None:
    other = place(name="Vt2", subscribers=("198.51.100.128/25",))
    rows = [Row("198.51.100.9", "203.0.113.25")]
    assert "is of a subscriber of Vt2, so" in refusal(impact([place(), other], [flows(rows)]), Budget(None, None, None))
    # Without IPv6 in the records, the place's IPv4 speaks for it.
    both = [place(), place(family=6, after=listed(family=6), subscribers=("2001:db8:100::/40",))]
    assert refusal(impact(both, [flows(rows)]), Budget(None, None, None)) == ""


def test_a_text_that_is_no_address_is_refused() -> None:
    with pytest.raises(ValueError, match="customer-7"):
        impact([place()], [flows([Row("198.51.100.9", "203.0.113.25")])], alarmed=["customer-7"])
