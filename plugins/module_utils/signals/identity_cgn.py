# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Port blocks of a carrier-grade NAT as tenures.

A CGN that gives each subscriber a block of ports logs the block, not every connection (RFC 6888 4; RFC 7422
where blocks are computed). Two forms are read, line by line, and may be mixed.

CSV, our own form, with this heading; the last column may be missing:

    time,event,address,first_port,last_port,inside,subscriber

`time` is RFC 3339 with an offset, or seconds since 1970; `event` is allocate, release, or interim (the block is still
given). `address` and the ports are seen outside, `inside` is the subscriber's own address, looked up in the other
sources unless `subscriber` names him. A map that is computed (RFC 7422) is one `allocate` for each block.

Juniper's syslog, RT_SRC_NAT_PBA_ALLOC, _INTERIM and _RELEASE of SRX and MX, as text or as structured data (examples:
"SRX4600 CGN Configuration Breakdown", Juniper Community, November 2024). The time is its `epoch`, hexadecimal seconds
since 1970: of the allocation in ALLOC and INTERIM, of the release in RELEASE. A line without it is left out, because
syslog's own stamp has neither year nor zone.
"""

from __future__ import annotations

import csv
import datetime
import re
from collections.abc import Iterable
from typing import NamedTuple

from .identity_radius import everywhere
from .identity_tenures import BELIEVED, CGN, Tenure, Told, read_lines, read_prefix

ALLOCATE, INTERIM, RELEASE = "allocate", "interim", "release"
COLUMNS = ("time", "event", "address", "first_port", "last_port", "inside")

_LEFT_OUT = "it was left out"
_NEXT_RUN = f"{_LEFT_OUT}; the next run reads it"
_JUNIPER = re.compile(r"RT_SRC_NAT_PBA_(ALLOC|INTERIM|RELEASE)\b(.*)")
_TEXT = re.compile(
    r": Subscriber (?P<inside>\S+) used/maximum \[\d+/\d+\] blocks,.*? port block \[(?P<first>\d+)-(?P<last>\d+)\] "
    r"from (?P<address>\S+) in source pool \S+.*?(?: epoch (?P<epoch>(?:0x)?[0-9a-fA-F]+))?\s*"
)
_FIELD = re.compile(r"([a-z0-9-]+)=\"([^\"]*)\"")
_EVENTS = {"ALLOC": ALLOCATE, "INTERIM": INTERIM, "RELEASE": RELEASE}


class Event(NamedTuple):
    """One line of a log."""

    time: int
    event: str
    family: int
    address: int
    ports: tuple[int, int]
    behind: str
    subscriber: str
    path: str
    line: int


def read_cgn(path: str, skew: int, told: Told) -> tuple[list[Event], list[Tenure]]:
    """The events of a log, and the times in which its clock was in doubt."""
    events: list[Event] = []
    doubts: list[Tenure] = []
    clock = 0
    columns: list[str] = []
    for number, line in enumerate(read_lines(path, told), 1):
        if not line.endswith("\n"):
            told.add(path, number, "the last line is half written", _NEXT_RUN)
        elif juniper := _JUNIPER.search(line):
            event = _juniper(path, number, juniper[1], juniper[2], told)
            if event:
                events.append(event)
        elif line.startswith("time,"):
            columns = line.strip().split(",")
            if tuple(columns[:6]) != COLUMNS or columns[6:] not in ([], ["subscriber"]):
                told.add(path, number, "the columns are others", f"the heading is {','.join(COLUMNS)}[,subscriber]")
                columns = []
        elif line.strip():
            event = _row(path, number, columns, line, told)
            if event:
                if event.time < clock - skew:
                    reason = f"the clock went back by {(clock - event.time) // 1000} s"
                    told.add(path, number, reason, "the time that came twice has no owners; run an NTP client")
                    doubts += everywhere(event.time, clock, CGN, f"{path}: {reason}")
                clock = event.time
                events.append(event)
    return events, doubts


def _row(path: str, number: int, columns: list[str], line: str, told: Told) -> Event | None:
    try:
        cells = next(csv.reader([line]), []) if columns else []
    except csv.Error:
        cells = []
    if not cells or len(cells) != len(columns):
        told.add(path, number, "is neither a row of our CSV nor a message of port block allocation", _LEFT_OUT)
        return None
    row = dict(zip(columns, (cell.strip() for cell in cells), strict=True))
    if row["event"] not in _EVENTS.values():
        told.add(
            path, number, f"the event {row['event'][:20]!r} is not known", f"{_LEFT_OUT}; allocate, interim, release"
        )
        return None
    time = _time(row["time"])
    if time is None:
        told.add(path, number, "the time has no zone or is none", f"{_LEFT_OUT}; write 2026-11-26T10:00:00Z")
        return None
    ports = row["first_port"], row["last_port"]
    return _event(
        path, number, time, row["event"], row["address"], ports, row["inside"], told, row.get("subscriber", "")
    )


def _time(text: str) -> int | None:
    try:
        if text.isascii() and text.isdigit():
            return int(text) * 1000 if len(text) < 12 else None
        moment = datetime.datetime.fromisoformat(text)
        return round(moment.timestamp() * 1000) if moment.tzinfo else None
    except (ValueError, OverflowError):
        return None


def _juniper(path: str, number: int, word: str, rest: str, told: Told) -> Event | None:
    fields = dict(_FIELD.findall(rest))
    if fields:
        names = ("internal-ip", "block-port-low", "block-port-high", "reflexive-ip", "epoch-time-64")
        inside, first, last, address, epoch = (fields.get(name, "") for name in names)
    else:
        match = _TEXT.fullmatch(rest)
        inside, first, last, address, epoch = (
            (match[name] or "" for name in ("inside", "first", "last", "address", "epoch")) if match else [""] * 5
        )
    try:
        time = int(epoch, 16) * 1000
    except ValueError:
        told.add(path, number, "a message of port block allocation without its epoch, or in another form", _LEFT_OUT)
        return None
    return _event(path, number, time, _EVENTS[word], address, (first, last), inside, told)


def _event(
    path: str,
    number: int,
    time: int,
    event: str,
    address: str,
    ports: tuple[str, str],
    inside: str,
    told: Told,
    subscriber: str = "",
) -> Event | None:
    try:
        family, outside, length = read_prefix(address)
        first, last = (int(port) for port in ports)
        behind = "" if subscriber and not inside else _host(inside)
        if length != (32 if family == 4 else 128) or not 0 <= first <= last <= 65535:
            raise ValueError
    except ValueError:
        told.add(path, number, "an address or a port is none", _LEFT_OUT)
        return None
    return Event(time, event, family, outside, (first, last), behind, subscriber, path, number)


def _host(text: str) -> str:
    family, address, length = read_prefix(text)
    if length != (32 if family == 4 else 128):
        raise ValueError
    return Tenure(family, address, length, 0, 0, CGN).prefix.partition("/")[0]


def tenures(events: Iterable[Event], told: Told) -> list[Tenure]:
    """Who had which ports by these events. What was not given back goes on for a day after the last of them.

    A block that is given to another ends there: its release was lost, as syslog over UDP may be.
    """
    found: list[Tenure] = []
    opened: dict[tuple[int, int, tuple[int, int]], Event] = {}
    heard = 0
    order = {RELEASE: 0, ALLOCATE: 1, INTERIM: 2}
    for event in sorted(events, key=lambda one: (one.time, order[one.event])):
        heard = max(heard, event.time)
        key = (event.family, event.address, event.ports)
        holder = opened.get(key)
        same = holder and (holder.behind, holder.subscriber) == (event.behind, event.subscriber)
        if event.event == RELEASE:
            if same:
                found.append(_tenure(opened.pop(key), event.time))
            else:
                reason = "a release of a block that nobody, or somebody else, had been given"
                told.add(event.path, event.line, reason, "who had it before is not known; read the log before this one")
                if holder:
                    lost = "messages about the port block were lost"
                    found.append(_tenure(opened.pop(key), event.time)._replace(subscriber="", behind="", doubt=lost))
            continue
        if same:
            continue
        if holder:
            told.add(
                holder.path, holder.line, "a block whose release was lost", "it ends where it was given to another"
            )
            found.append(_tenure(holder, event.time))
        opened[key] = event
    return found + [_tenure(event, heard + BELIEVED) for event in opened.values()]


def _tenure(event: Event, until: int) -> Tenure:
    bits = 32 if event.family == 4 else 128
    return Tenure(
        event.family, event.address, bits, event.time, until, CGN, event.subscriber, None, event.ports, event.behind
    )
