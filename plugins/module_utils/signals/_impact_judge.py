# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Flow records through the filters of a place, as they were and as they would be: what becomes of each.

A record is less than its packets, so `proved` says which packets it stands for:

- Whole packets without options or extension headers. What records do not have (DSCP, TTL, length) leaves a line that
  asks for it in doubt, and the flow unknown where that matters.
- TCP flags are those of all packets or-ed (RFC 7011; IANA IPFIX element 6, tcpControlBits). SYN without ACK is a lone
  SYN. SYN with ACK is a whole session: of the client where only the destination's port is a system port (below 1024,
  RFC 6335, section 6), of the server where only the source's is, either of them otherwise. Every packet that the record
  proves must pass, or the flow is denied.
- Connection tracking sees a client's first packet as new, and answers and what follows as established.
- ICMP has its type and code in the destination port (nfdump(1)); 0 may be an echo request or a reply.

A flow that stands for one of several is denied, permitted or left alone only if all of them agree, and unknown if not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..difference import Side
from ..filters import Configuration, Entry, Filter
from ..packets import PROTOCOLS, TCP_FLAGS, Match, Packet, prefix, union
from ._impact_classes import Addresses, Classes, Lines, Small, Words
from ._impact_walk import MAY_DENY, MAY_PERMIT, Actions, sides_of
from .flows import Flows

# What becomes of a flow: the same as before, or one or both of these; CERTAIN when it is known.
DENIED, PERMITTED, CERTAIN = 1, 2, 4
SEEN = 8  # the flow is one of the place's subscribers

SYN, ACK = TCP_FLAGS["syn"], TCP_FLAGS["ack"]
_TCP = PROTOCOLS["tcp"]
_ECHO = {PROTOCOLS["icmp"]: 8 << 8, PROTOCOLS["icmp6"]: 128 << 8}  # a request, type * 256 + code
_NEW, _ESTABLISHED, _RELATED, _INVALID = range(4)  # packets.STATES
_SYSTEM_PORTS = 1024
_V4 = np.uint64(0xFFFFFFFF)
_ABSENT = ("tos", "ttl", "length")
_ORDINARY = {"fragment": 0, "undetermined": 0, "extension": 0, "options": 0}
_BATCH = 1 << 15  # packets that are walked at once: their bits take some megabytes
_REMEMBERED = 1 << 18  # combinations of classes whose outcome is at hand
_BLOCK = 1 << 16  # flows that are looked at together: what is computed for them stays in the processor's cache

# TCP flags, state of connection tracking, ICMP type * 256 + code.
Kind: TypeAlias = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Place:
    """Filters of before and after where subscribers hang. `subscribers` are their prefixes of the family, () for all.

    `direction` is "up" (subscribers are the sources) or "down". `unchanged`: as difference() takes it.
    """

    name: str
    direction: str
    family: int
    before: Side
    after: Side
    unchanged: bool = False
    subscribers: tuple[str, ...] = ()


def proved(protocol: int, sport: int, dport: int, flags: int) -> tuple[tuple[Kind, ...], ...]:
    """The packets that a flow record stands for: one of several alternatives, and in it all of these."""
    client, server = sport >= _SYSTEM_PORTS > dport, sport < _SYSTEM_PORTS <= dport
    if protocol == _TCP:
        return _of_tcp(flags & (SYN | ACK) or flags, client, server)
    if protocol in _ECHO:
        kinds = (0, _ECHO[protocol]) if dport == 0 else (dport,)
        return tuple(((0, state, kind),) for kind in kinds for state in (_NEW, _ESTABLISHED, _RELATED))
    return tuple(((0, state, 0),) for state in (_NEW, _ESTABLISHED) if not (client, server)[state == _NEW])


def _of_tcp(flags: int, client: bool, server: bool) -> tuple[tuple[Kind, ...], ...]:
    later = (ACK, _ESTABLISHED, 0)
    sessions = [
        (first, later)
        for first, other in (((SYN, _NEW, 0), server), ((SYN | ACK, _ESTABLISHED, 0), client))
        if not other
    ]
    if flags == SYN | ACK:
        return tuple(sessions)
    if flags == SYN:
        return (((SYN, _NEW, 0),),)
    if flags == ACK:
        return ((later,),)
    if flags == 0:  # not known, or none is set
        return (((SYN, _NEW, 0),), (later,), *sessions)
    return tuple(((flags, state, 0),) for state in (_ESTABLISHED, _INVALID))


def packet(kind: Kind, protocol: int, ports: tuple[int, int], addresses: tuple[int, int]) -> Packet:
    """One of the proved packets as a header; ports and addresses are the source's and the destination's."""
    flags, state, icmp = kind
    return {
        "protocol": protocol, "source_port": ports[0], "destination_port": ports[1], "tcp_flags": flags, "state": state,
        "icmp_type": icmp >> 8, "icmp_code": icmp & 0xFF, "source": addresses[0], "destination": addresses[1],
        "tos": 0, "ttl": 64, "length": 60, **_ORDINARY,
    }  # fmt: skip


def as_recorded(side: Side) -> Side:
    """The side with a doubt in every line that asks for what flow records do not have."""
    filters = {key: _recorded(one) for key, one in side.configuration.filters.items()}
    return Side(Configuration(filters, hostname=side.configuration.hostname), side.filters, side.platform)


def _recorded(chosen: Filter) -> Filter:
    entries: list[Entry] = []
    for one in chosen.entries:
        open_ended = [match for match in one.matches if not match.keys().isdisjoint(_ABSENT)]
        if not open_ended:
            entries.append(one)
            continue
        sure = tuple(match for match in one.matches if match not in open_ended)
        if sure:
            entries.append(Entry(one.action, sure, one.line, one.text, one.target, one.doubt))
        asked = ", ".join(name for name in _ABSENT if any(name in match for match in open_ended))
        left = tuple({name: match[name] for name in match if name not in _ABSENT} for match in open_ended)
        doubt = one.doubt or f"which asks for {asked}: flow records do not have it"
        entries.append(Entry(one.action, left, one.line, one.text, one.target, doubt))
    return Filter(chosen.name, chosen.family, tuple(entries), chosen.default, chosen.line, chosen.text)


class Judge:
    """One place: what becomes of each flow there."""

    def __init__(self, place: Place) -> None:
        """Raises ValueError where the filters cut the headers into more classes than can be counted."""
        self.place = place
        family = place.family
        lines = Lines(family)
        field = "source" if place.direction == "up" else "destination"
        inside: list[Match] = [{field: union(*(prefix(text, family) for text in place.subscribers))}]
        self._inside = lines.add(inside if place.subscribers else [{}])
        self._before, self._after = sides_of(
            as_recorded(place.before), as_recorded(place.after), lines, place.unchanged
        )
        self._lines = lines
        self._source, self._destination = Addresses(lines, "source"), Addresses(lines, "destination")
        self._protocol = _protocols(lines)
        self._sport, self._dport = _ports(lines, "source_port"), _ports(lines, "destination_port")
        # What no line looks at makes no difference.
        asked = lines.ask_for("tcp_flags", "state")
        flags = [one & (SYN | ACK) or one for one in range(256)] if asked else [0] * 256
        self._flag_values, self._flags = np.unique(np.array(flags, np.intp), return_inverse=True)
        self._ordinary = np.bitwise_and.reduce(
            [lines.all(), *(lines.row(name, value) for name, value in _ORDINARY.items())]
        )
        self._rows: dict[tuple[str, int], Words] = {}
        self._sizes: list[int] = []
        self._forget()

    def outcomes(self, flows: Flows, v4: NDArray[np.bool_]) -> tuple[Classes, Actions]:
        """The rows of the place's family, and for each of them DENIED, PERMITTED, CERTAIN and SEEN or-ed."""
        mine = np.flatnonzero(v4 if self.place.family == 4 else ~v4)
        whole = len(mine) == len(flows)
        found = np.empty(len(mine), np.uint8)
        for begin in range(0, len(mine), _BLOCK):
            block = slice(begin, begin + _BLOCK)
            found[block] = self._judged(self._code(flows, block if whole else mine[block]))
        return mine, found

    def _code(self, flows: Flows, mine: Classes | slice) -> Words:
        """The classes of all fields of each flow as one number; flows of one number have one outcome."""
        if self.place.family == 4:  # the upper half says only that it is IPv4
            ends = [(low, low) for low in (flows.src_lo[mine] & _V4, flows.dst_lo[mine] & _V4)]
        else:
            ends = [(flows.src_hi[mine], flows.src_lo[mine]), (flows.dst_hi[mine], flows.dst_lo[mine])]
        code, destination = self._source.classes(*ends[0]), self._destination.classes(*ends[1])
        flags = self._flags[flows.flags[mine]] if flows.flags_known else self._flags[:1]
        columns = (
            (destination, len(self._destination)), (self._dport.table[flows.dport[mine]], len(self._dport)),
            (self._sport.table[flows.sport[mine]], len(self._sport)),
            (self._protocol.table[flows.proto[mine]], len(self._protocol)), (flags, len(self._flag_values)),
        )  # fmt: skip
        sizes = [len(self._source), *(size for _, size in columns)]
        if math.prod(sizes) >= 1 << 62:
            raise ValueError(f"the filters of {self.place.name} tell too many headers apart: compare them in parts")
        if sizes != self._sizes:
            self._sizes = sizes
            self._forget()
        for classes, size in columns:
            code *= size
            code += classes
        return code.view(np.uint64)

    def _forget(self) -> None:
        self._codes = np.zeros(_REMEMBERED, np.uint64)  # a code and 1, at the place that its number gives
        self._outcomes = np.zeros(_REMEMBERED, np.uint8)

    def _judged(self, codes: Words) -> Actions:
        places = _places(codes)
        found = self._outcomes[places]
        missing = np.flatnonzero(self._codes[places] != codes + np.uint64(1))
        if len(missing):
            fresh, numbers = np.unique(codes[missing], return_inverse=True)
            outcomes = np.concatenate(
                [self._evaluated(fresh[begin : begin + _BATCH]) for begin in range(0, len(fresh), _BATCH)]
            )
            found[missing] = outcomes[numbers]
            places = _places(fresh)
            self._codes[places], self._outcomes[places] = fresh + np.uint64(1), outcomes
        return found

    def _evaluated(self, codes: Words) -> Actions:
        """The outcome of each combination of classes."""
        found = np.zeros(len(codes), np.uint8)
        rest, classes = codes.astype(np.intp), []
        for size in reversed(self._sizes[1:]):
            rest, one = np.divmod(rest, size)
            classes.append(one)
        flags, protocol, sport, dport, destination = classes
        matching = self._source.rows[rest] & self._destination.rows[destination] & self._ordinary
        matching &= self._sport.rows[0][sport] & self._dport.rows[0][dport] & self._protocol.rows[0][protocol]
        # Flows that prove the same packets, but for their addresses and ports.
        shape = np.zeros(len(codes), np.intp)
        for one, size in (
            (self._protocol.rows[1][protocol], 4), (self._sport.rows[2][sport], 4), (self._dport.rows[2][dport], 4),
        ):  # fmt: skip
            shape = shape * size + one[:, 0].astype(np.intp)
        shape = shape * len(self._flag_values) + flags
        inside = matching[:, self._inside.start] & np.uint64(1) != 0
        for each in np.unique(shape[inside]):
            here = np.flatnonzero(inside & (shape == each))
            one = here[0]
            header = [
                int(values[classes[one]])
                for values, classes in (
                    (self._protocol.values, protocol), (self._sport.values, sport), (self._dport.values, dport),
                    (self._flag_values, flags),
                )
            ]  # fmt: skip
            found[here] = SEEN | self._outcome(matching[here], self._dport.rows[1][dport[here]], header)
        return found

    def _outcome(self, matching: Words, icmp_rows: Words, header: Sequence[int]) -> Actions:
        """Of flows that prove the same packets. `icmp_rows`: the lines that do not contradict type and code."""
        protocol, sport, dport, flags = header
        known: dict[bytes, tuple[Actions, ...]] = {}
        together: list[Actions] = []
        for alternative in proved(protocol, sport, dport, flags):
            fates = []
            for flag, state, icmp in alternative:
                row = self._row("tcp_flags", flag) & self._row("state", state)
                own = protocol in _ECHO and icmp == dport
                if not own:
                    row &= self._row("icmp_type", icmp >> 8) & self._row("icmp_code", icmp & 0xFF)
                key = row.tobytes() + bytes([own])
                if key not in known:
                    known[key] = self._fate(matching & row & icmp_rows if own else matching & row)
                fates.append(known[key])
            together.append(_of_all(fates))
        return _agreed(together)

    def _row(self, field: str, value: int) -> Words:
        if (field, value) not in self._rows:
            self._rows[field, value] = self._lines.row(field, value)
        return self._rows[field, value]

    def _fate(self, matching: Words) -> tuple[Actions, ...]:
        """Of one packet each: before, after, and is it the same in any case?"""
        (before, doubts), (after, others) = self._before.fates(matching), self._after.fates(matching)
        sure = before != MAY_PERMIT | MAY_DENY
        return before, after, ((before == after) & (sure | (doubts == others))).astype(np.uint8)


def _of_all(fates: Sequence[tuple[Actions, ...]]) -> Actions:
    """Flows all of whose packets must pass: DENIED, PERMITTED, CERTAIN or-ed, 0 for no difference."""
    before, after, same = (np.stack(one) for one in zip(*fates, strict=True))
    was, now = (
        np.bitwise_and.reduce(one & MAY_PERMIT) | np.bitwise_or.reduce(one & MAY_DENY) for one in (before, after)
    )
    denied = (was & MAY_PERMIT != 0) & (now & MAY_DENY != 0)
    permitted = (was & MAY_DENY != 0) & (now & MAY_PERMIT != 0)
    certain = (was ^ now) == MAY_PERMIT | MAY_DENY
    found = denied * np.uint8(DENIED) | permitted * np.uint8(PERMITTED) | certain * np.uint8(CERTAIN)
    return np.where(same.all(axis=0), np.uint8(0), found)


def _agreed(alternatives: Sequence[Actions]) -> Actions:
    """What all alternatives say; nothing is certain where two of them say different things."""
    every = np.stack(alternatives)
    found: Actions = np.bitwise_or.reduce(every)
    return np.where((every == every[0]).all(axis=0), found, found & np.uint8(DENIED | PERMITTED))


def _places(codes: Words) -> Words:
    """Where the outcome of a code is kept: the upper bits of a product spread like codes (Knuth, volume 3, 6.4)."""
    return (codes * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(65 - _REMEMBERED.bit_length())


def _rows(lines: Lines, field: str, values: Sequence[int]) -> Words:
    return lines.rows(field, np.zeros(len(values), np.uint64), np.array(values, np.uint64))


def _protocols(lines: Lines) -> Small:
    """Beside the rows of lines: which of those whose records say more is it?"""
    special = {_TCP: 1, **{one: number for number, one in enumerate(_ECHO, 2)}}
    starts = sorted(lines.starts("protocol") | {start for one in special for start in (one, one + 1)})
    which = np.array([[special.get(one, 0)] for one in starts], np.uint64)
    return Small(starts, 8, [_rows(lines, "protocol", starts), which])


def _ports(lines: Lines, field: str) -> Small:
    """Beside the rows of lines: those of the value as ICMP type and code, and what makes a client or a server."""
    found = lines.starts(field) | {_SYSTEM_PORTS}
    if field == "destination_port" and lines.ask_for("icmp_type", "icmp_code"):
        codes = lines.starts("icmp_code")
        types = range(256) if len(codes) > 1 else lines.starts("icmp_type")
        found |= {one << 8 | code for one in types for code in codes} | {1}
    starts = sorted(found)
    icmp = _rows(lines, "icmp_type", [one >> 8 for one in starts])
    icmp &= _rows(lines, "icmp_code", [one & 0xFF for one in starts])
    kind = np.array([[(one < _SYSTEM_PORTS) + (one == 0)] for one in starts], np.uint64)
    return Small(starts, 16, [_rows(lines, field, starts), icmp, kind])
