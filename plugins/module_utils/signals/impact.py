# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What would a new filter do to the traffic that was there? Recorded flows, through the filters of before and after.

    places + flows ─► outcome of each flow ─► Impact: who is newly denied or permitted what ─► refusal(budget)

Only the difference counts. What is not known may be a denial, and is counted as one wherever that is the worse. Which
packets a flow record stands for is said in _impact_judge.py.
"""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..audit import bound
from ..difference import Side, unchanged_beside
from ..filters import UNKNOWN, Entry, evaluate
from ..packets import PROTOCOLS, Match, named, packet_text, prefix
from ..plan import all_same
from ..policy import Attachment, Policy
from ..secrets import redact
from ._impact_classes import Addresses, Classes, Lines, Words
from ._impact_judge import ACK, CERTAIN, DENIED, PERMITTED, SEEN, Judge, Place, as_recorded, packet, proved
from .flows import V4_MAPPED, Flows

__all__ = ["Budget", "Count", "Impact", "Place", "Protected", "changed", "impact", "refusal"]

MAIL_PORTS = (25, 465, 587)  # SMTP (RFC 5321), submissions (RFC 8314), submission (RFC 6409)
DESTINATIONS = 10  # that are told
EXAMPLES = 5  # flows that are told for each kind of outcome
_PSH = 8
_TCP = PROTOCOLS["tcp"]
_WAITING = 1 << 21  # rows that are kept before those of one key are put together
_KINDS = {"denied": (DENIED | CERTAIN,), "permitted": (PERMITTED | CERTAIN,), "unknown": (DENIED, PERMITTED, 3)}


class Protected(NamedTuple):
    """A prefix whose traffic no change may cut, and why."""

    prefix: str
    reason: str


@dataclass(frozen=True, slots=True)
class Destination:
    """The far end of flows, and the port that says what they are."""

    address: str
    protocol: str
    port: str  # "25", or "25 (source)" where it is the far end's own in traffic to the subscriber
    flows: int
    octets: int


@dataclass(frozen=True, slots=True)
class Example:
    """One flow as a packet, and the lines that decide about it, on both sides."""

    place: str
    packet: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Count:
    """Flows with one outcome. `sessions` are established mail sessions; IPv6 subscribers are counted by their /64."""

    subscribers: int
    alarmed: int  # of the subscribers, those that detectors have found
    flows: int
    octets: int
    sessions: int
    destinations: tuple[Destination, ...]
    examples: tuple[Example, ...]


@dataclass(frozen=True, slots=True)
class Hit:
    """A protected prefix whose traffic would, or may, newly be denied."""

    prefix: str
    reason: str
    subscriber: str
    far: str
    service: str
    flows: int


@dataclass(frozen=True, slots=True)
class Impact:
    """`flows` were read, `seen` of them are of the places' subscribers, and none of those of the `unseen` places.

    `at_most` counts unknown ones as denied.
    """

    flows: int
    seen: int
    since: int  # milliseconds since 1970 UTC; 0 without a flow
    until: int
    places: tuple[str, ...]
    unseen: tuple[str, ...]
    denied: Count
    permitted: Count
    unknown: Count
    at_most: Count
    protected: tuple[Hit, ...]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON and for Ansible's results."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Budget:
    """How many may newly be denied something; None is no limit."""

    subscribers: int | None = 0
    flows: int | None = None
    established: int | None = 0  # mail sessions


def refusal(found: Impact, budget: Budget) -> str:
    """Why a change with this impact must not be made; "" when it may."""
    reasons = [
        f"{one.prefix} ({one.reason}) would be cut: {one.subscriber}, {one.service}, {one.far}"
        for one in found.protected[:EXAMPLES]
    ]
    if len(found.protected) > EXAMPLES:
        reasons.append(f"and {len(found.protected) - EXAMPLES:,} more protected addresses or services")
    worst = found.at_most
    for many, limit, words in (
        (worst.subscribers, budget.subscribers, "subscribers"),
        (worst.flows, budget.flows, "flows"),
        (worst.sessions, budget.established, "established mail sessions"),
    ):
        if limit is not None and many > limit:
            reasons.append(f"{many:,} {words} would newly be denied, the budget is {limit:,}")
    if found.unseen:
        reasons.append(
            f"none of the {found.flows:,} recorded flows is of a subscriber of {', '.join(found.unseen)}, so it is not "
            "known what the change would do: give flows of these subscribers"
        )
    if not reasons:
        return ""
    if worst.destinations:
        told = ", ".join(f"{one.protocol} {one.address} port {one.port}" for one in worst.destinations[:3])
        reasons.append(f"most to {told}")
    if worst.alarmed:
        reasons.append(f"{worst.alarmed:,} of the {worst.subscribers:,} subscribers have an alarm")
    if found.unknown.flows:
        reasons.append(f"of {found.unknown.flows:,} flows it is not known, and they count")
    return "; ".join(reasons)


def changed(texts: Sequence[tuple[str, ModuleType]], policy: Policy, attachments: Sequence[Attachment]) -> list[Place]:
    """The places at which the second text has other filters than the first one, like ones put together.

    `texts` come with their platforms. The subscribers of a place are its pools': where they hang elsewhere as well,
    their flows count here too.
    """
    names = [one.name for one in attachments]
    before, after = (platform.parse(text, names) for text, platform in texts)
    platforms = [platform.__name__ for _, platform in texts]
    found: dict[tuple[Any, ...], list[str]] = {}
    for one, direction, family in itertools.product(attachments, ("up", "down"), (4, 6)):
        bindings = [bound(side, one.name, direction, family) for side in (before, after)]
        filters = [binding.filters if binding else () for binding in bindings]
        was, now = (
            tuple(side.filters[family, name] for name in chosen)
            for side, chosen in zip((before, after), filters, strict=True)
        )
        subscribers = tuple(text for pool in one.pools for text in policy.pools[pool].prefixes(family))
        if subscribers and not all_same(was, now):
            found.setdefault((direction, family, *filters, subscribers), []).append(one.name)
    unchanged = unchanged_beside(texts[0][0], texts[1][0], (Side(before, ()), Side(after, ())))
    return [
        Place(
            ", ".join(where[:3]) + (f" and {len(where) - 3} more" if len(where) > 3 else ""), direction, family,
            Side(before, was, platforms[0]), Side(after, now, platforms[1]), unchanged, subscribers,
        )
        for (direction, family, was, now, subscribers), where in found.items()
    ]  # fmt: skip


def impact(
    places: Sequence[Place],
    flows: Iterable[Flows],
    alarmed: Collection[str] = (),
    protected: Sequence[Protected] = (),
) -> Impact:
    """The difference that the places' filters make to the flows. A flow counts at each place that it passes.

    `alarmed` are addresses or prefixes. Raises ValueError for text that is none, and what reading the flows raises.
    """
    tally = _Tally([Judge(place) for place in places], protected)
    for chunk in _ahead(flows):
        tally.add(chunk)
    return tally.told(alarmed)


def _ahead(flows: Iterable[Flows]) -> Iterator[Flows]:
    """The next chunk is read while this one is judged: numpy leaves the processor to both."""
    chunks = iter(flows)
    with ThreadPoolExecutor(max_workers=1) as reader:
        waiting = reader.submit(next, chunks, None)
        while (chunk := waiting.result()) is not None:
            waiting = reader.submit(next, chunks, None)
            yield chunk


class _Tally:
    """What has been counted so far."""

    def __init__(self, judges: Sequence[Judge], protected: Sequence[Protected]) -> None:
        self._judges = judges
        self._guards = {family: _Guard(protected, family) for family in (4, 6)}
        self._flows = self._seen = 0
        self._seen_at: set[str] = set()
        self._times: list[int] = []
        self._subscribers, self._far, self._sessions, self._hits = _Sums(), _Sums(), _Sums(), _Sums()
        self._examples: dict[str, dict[tuple[int, int, int], Example]] = {kind: {} for kind in _KINDS}
        self._sampling = 0
        self._flagless: set[str] = set()

    def add(self, flows: Flows) -> None:
        self._flows += len(flows)
        self._sampling = max(self._sampling, flows.sampling)
        if not flows.flags_known:
            self._flagless.add(flows.source)
        if not len(flows):
            return
        self._times = [min([*self._times[:1], int(flows.ts_ms.min())]), max([*self._times[1:], int(flows.ts_ms.max())])]
        v4 = (flows.src_hi == 0) & (flows.src_lo >> np.uint64(32) == V4_MAPPED >> 32)
        seen = np.zeros(len(flows), bool)
        for number, judge in enumerate(self._judges):
            rows, outcomes = judge.outcomes(flows, v4)
            here = outcomes & SEEN != 0
            seen[rows] |= here
            if here.any():
                self._seen_at.add(judge.place.name)
            outcomes &= np.uint8(DENIED | PERMITTED | CERTAIN)
            changed = np.flatnonzero(outcomes)
            if len(changed):
                self._count(number, judge.place, flows, rows[changed], outcomes[changed])
        self._seen += int(np.count_nonzero(seen))

    def _count(self, number: int, place: Place, flows: Flows, rows: Classes, outcomes: NDArray[np.uint8]) -> None:
        part = _Part(place, flows, rows, outcomes)
        outcome, ones = outcomes.astype(np.uint64), np.ones(len(rows), np.uint64)
        self._subscribers.add((outcome, *part.subscriber), (ones, part.octets))
        service = (part.protocol, part.port, part.of_source)
        self._far.add((outcome, *part.far, *service), (ones, part.octets))
        mail = np.flatnonzero(part.mail_sessions())
        ends = (*part.source, *part.destination, part.sport, part.dport)
        self._sessions.add((outcome[mail], *(one[mail] for one in ends)), (ones[mail],))
        self._protect(place.family, part)
        self._show(number, part)

    def _protect(self, family: int, part: _Part) -> None:
        """A protected end that sent the flow, or had a part in it: a mere attempt to reach it proves nothing."""
        guard = self._guards[family]
        if not guard:
            return
        for end, counts in ((part.source, True), (part.destination, ~part.attempts())):
            which = guard.which(*end)
            here = np.flatnonzero((which >= 0) & (part.outcomes & DENIED != 0) & counts)
            if len(here):
                columns = (which, *part.addresses, *part.far, part.protocol, part.port, part.of_source)
                keys = tuple(one[here].astype(np.uint64) for one in columns)
                self._hits.add((np.full(len(here), family, np.uint64), *keys), (np.ones(len(here), np.uint64),))

    def _show(self, number: int, part: _Part) -> None:
        """Some flows of each outcome, of different services."""
        for kind, outcomes in _KINDS.items():
            examples = self._examples[kind]
            if len(examples) >= EXAMPLES:
                continue
            here = np.flatnonzero(np.isin(part.outcomes, outcomes))
            services = np.unique(part.protocol[here] << np.uint64(16) | part.port[here], return_index=True)
            for service, index in zip(*services, strict=True):
                key = (number, int(service) >> 16, int(service) & 0xFFFF)
                if key not in examples and len(examples) < EXAMPLES:
                    examples[key] = part.example(int(here[index]))

    def told(self, alarmed: Collection[str]) -> Impact:
        notes = []
        if self._sampling > 1:
            notes.append(
                f"the exporters look at one packet of {self._sampling:,}: short flows are missing, and every count is "
                "lower than what happens"
            )
        if self._flagless:
            notes.append(
                f"TCP flags are missing in {', '.join(sorted(self._flagless)[:3])}: every TCP flow to a mail port "
                "counts as an established session"
            )
        since, until = self._times or (0, 0)
        subscribers, far, sessions = self._subscribers.told(), self._far.told(), self._sessions.told()
        guard = _Guard([Protected(one, "") for one in alarmed], 4), _Guard([Protected(one, "") for one in alarmed], 6)
        counts = {
            kind: _counted(outcomes, subscribers, far, sessions, guard, tuple(self._examples.get(kind, {}).values()))
            for kind, outcomes in {**_KINDS, "at_most": (DENIED | CERTAIN, DENIED, DENIED | PERMITTED)}.items()
        }
        places = tuple(dict.fromkeys(one.place.name for one in self._judges))
        return Impact(
            self._flows, self._seen, since, until, places, tuple(one for one in places if one not in self._seen_at),
            **counts, protected=tuple(self._hit()), notes=tuple(notes),
        )  # fmt: skip

    def _hit(self) -> Iterator[Hit]:
        keys, (flows,) = self._hits.told()
        for row, many in zip(keys, flows, strict=True):
            family, which = int(row[0]), int(row[1])
            one = self._guards[family].protected[which]
            service = f"{named(PROTOCOLS, int(row[6]))} port {int(row[7])}{' (source)' if row[8] else ''}"
            ends = _text(row[2], row[3]), _text(row[4], row[5])
            yield Hit(one.prefix, one.reason, ends[0], ends[1], service, int(many))


class _Part:
    """The flows of a chunk that a place treats differently, in columns of 64 bits."""

    def __init__(self, place: Place, flows: Flows, rows: Classes, outcomes: NDArray[np.uint8]) -> None:
        self.outcomes = outcomes
        self._place = place
        self.source = flows.src_hi[rows], flows.src_lo[rows]
        self.destination = flows.dst_hi[rows], flows.dst_lo[rows]
        self.sport, self.dport, self.protocol, self.octets = (
            one[rows].astype(np.uint64) for one in (flows.sport, flows.dport, flows.proto, flows.octets)
        )
        self.flags = flows.flags[rows] if flows.flags_known else np.zeros(len(rows), np.uint8)
        up = place.direction == "up"
        self.addresses, self.far = (self.source, self.destination) if up else (self.destination, self.source)
        # IPv6 subscribers have a /64 each.
        self.subscriber = self.addresses if place.family == 4 else (self.addresses[0], np.zeros(len(rows), np.uint64))
        # In an answer the source's port says what it is (RFC 6335, section 6).
        self.of_source = ((self.sport < 1024) & (self.dport >= 1024)).astype(np.uint64)
        self.port = np.where(self.of_source != 0, self.sport, self.dport)

    def mail_sessions(self) -> NDArray[np.bool_]:
        """TCP to or from a mail port with payload: whoever has sent all his data sets PSH (RFC 9293, section 3.9.1.2).

        Without flags it may be one.
        """
        mail = np.isin(self.sport, MAIL_PORTS) | np.isin(self.dport, MAIL_PORTS)
        session = (self.flags & (ACK | _PSH) == ACK | _PSH) | (self.flags == 0)
        found: NDArray[np.bool_] = (self.protocol == _TCP) & mail & session
        return found

    def attempts(self) -> NDArray[np.bool_]:
        """TCP that nobody has answered."""
        found: NDArray[np.bool_] = (self.protocol == _TCP) & (self.flags != 0) & (self.flags & ACK == 0)
        return found

    def example(self, index: int) -> Example:
        """The flow as the first packet that it proves and both sides treat differently."""
        place = self._place
        half = 0xFFFFFFFF if place.family == 4 else (1 << 128) - 1
        source, destination = (
            (int(high[index]) << 64 | int(low[index])) & half for high, low in (self.source, self.destination)
        )
        protocol, ports = int(self.protocol[index]), (int(self.sport[index]), int(self.dport[index]))
        said = []
        for kind in dict.fromkeys(
            kind for alternative in proved(protocol, *ports, int(self.flags[index])) for kind in alternative
        ):
            header = packet(kind, protocol, ports, (source, destination))
            before, after = (_fate(as_recorded(side), place.family, header) for side in (place.before, place.after))
            said.append(Example(place.name, packet_text(header, place.family), before, after))
        return next((one for one in said if one.before.split(":")[0] != one.after.split(":")[0]), said[0])


def _fate(side: Side, family: int, header: Mapping[str, int]) -> str:
    """'deny: line 7: deny tcp any any eq 25'."""
    possible, entries = {"permit"}, list[Entry]()
    for name in side.filters:
        here, seen = evaluate(side.configuration, family, name, header)
        entries += seen
        possible = possible - {"permit"} | here
        if "permit" not in here:
            break
    told = [one for one in entries if one.doubt or one.action == UNKNOWN] if len(possible) > 1 else entries[-1:]
    lines = "; ".join(
        f"line {one.line}: {redact(one.text)}" + (f" ({one.doubt})" if one.doubt else "") for one in told[-3:]
    )
    end = "the end of the filter" if side.filters else "no filter"
    return f"{possible.pop() if len(possible) == 1 else 'unknown'}: {lines or end}"


class _Guard:
    """Prefixes of one family, and which of them an address is in."""

    def __init__(self, protected: Sequence[Protected], family: int) -> None:
        self.protected = [one for one in protected if ipaddress.ip_network(one.prefix, strict=False).version == family]
        self._family = family
        lines = Lines(family)
        matches: list[Match] = [{"source": prefix(one.prefix, family)} for one in self.protected]
        lines.add(matches)
        self._addresses = Addresses(lines, "source")

    def __bool__(self) -> bool:
        return bool(self.protected)

    def which(self, high: Words, low: Words) -> Classes:
        """The number of the first prefix that each address is in, -1 for none."""
        if not self.protected:
            return np.full(len(low), -1, np.intp)
        half = np.uint64(0xFFFFFFFF if self._family == 4 else 0xFFFFFFFFFFFFFFFF)
        classes = self._addresses.classes(high, low & half)
        bits = np.unpackbits(self._addresses.rows.view(np.uint8), axis=1, bitorder="little")[:, : len(self.protected)]
        first = np.where(bits.any(axis=1), bits.argmax(axis=1), -1)
        return first[classes]


class _Sums:
    """Sums by key. Keys and values are columns of 64 bits."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Words, Words]] = []
        self._rows = 0

    def add(self, keys: Sequence[Words], values: Sequence[Words]) -> None:
        if len(keys[0]):
            self._waiting.append((np.stack(keys, axis=1), np.stack(values)))
            self._rows += len(keys[0])
            if self._rows > _WAITING and len(self._waiting) > 1:
                self._waiting = [self.told()]
                self._rows = len(self._waiting[0][0]) // 2  # what does not get less is not tried at once again

    def told(self) -> tuple[Words, Words]:
        """The keys, a row each, and the values, a column for each row of keys; sorted by key."""
        if not self._waiting:
            return np.empty((0, 9), np.uint64), np.empty((2, 0), np.uint64)[:1]
        keys = np.concatenate([one for one, _ in self._waiting])
        values = np.concatenate([one for _, one in self._waiting], axis=1)
        order = np.lexsort(keys.T[::-1])
        keys, values = keys[order], values[:, order]
        begins = np.flatnonzero(np.append(True, (keys[1:] != keys[:-1]).any(axis=1)))
        return keys[begins], np.add.reduceat(values, begins, axis=1)


def _counted(
    outcomes: Collection[int],
    subscribers: tuple[Words, Words],
    far: tuple[Words, Words],
    sessions: tuple[Words, Words],
    guards: tuple[_Guard, _Guard],
    examples: tuple[Example, ...],
) -> Count:
    wanted = np.array(list(outcomes), np.uint64)
    mine = np.isin(subscribers[0][:, 0], wanted)
    who = np.unique(subscribers[0][mine, 1:3], axis=0)
    v4 = (who[:, 0] == 0) & (who[:, 1] >> np.uint64(32) == V4_MAPPED >> 32)
    alarmed = sum(
        int(np.count_nonzero(guard.which(who[rows, 0], who[rows, 1]) >= 0))
        for guard, rows in zip(guards, (v4, ~v4), strict=True)
    )
    totals = subscribers[1][:, mine].sum(axis=1)
    return Count(
        len(who), alarmed, int(totals[0]) if len(who) else 0, int(totals[1]) if len(who) else 0,
        len(np.unique(sessions[0][np.isin(sessions[0][:, 0], wanted), 1:], axis=0)),
        tuple(_destinations(far, wanted)), examples,
    )  # fmt: skip


def _destinations(far: tuple[Words, Words], wanted: Words) -> Iterator[Destination]:
    sums = _Sums()
    mine = np.isin(far[0][:, 0], wanted)
    sums.add(list(far[0][mine, 1:].T), list(far[1][:, mine]))
    keys, values = sums.told()
    if not len(keys):
        return
    for index in np.lexsort((values[1], values[0]))[::-1][:DESTINATIONS]:
        high, low, protocol, port, of_source = keys[index]
        yield Destination(
            _text(high, low), named(PROTOCOLS, int(protocol)), f"{int(port)}{' (source)' if of_source else ''}",
            int(values[0, index]), int(values[1, index]),
        )  # fmt: skip


def _text(high: np.uint64, low: np.uint64) -> str:
    value = int(high) << 64 | int(low)
    address = ipaddress.IPv6Address(value)
    return str(address.ipv4_mapped or address)
