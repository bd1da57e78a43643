# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who had which addresses from when until when: what every source of identities comes to, and the search in it."""

from __future__ import annotations

import bisect
import datetime
import gzip
import ipaddress
import socket
import zlib
import zoneinfo
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from operator import itemgetter
from typing import NamedTuple

from .records import Silence

RADIUS, DHCP, CGN, STATIC = "radius", "dhcp", "cgn", "static"
FOREVER = 2**63 - 1  # the end of what has no end
BITS = {4: 32, 6: 128}
# What goes on is believed for as long as its source is heard of, and a day more (ms): a log that stopped says nothing.
BELIEVED = 86_400_000
SHOWN = 5  # lines told of one file and kind; the rest is a number


@dataclass(frozen=True, slots=True)
class Session:
    """A session of RADIUS accounting, with what a CoA or Disconnect-Request names it by (RFC 5176, 3).

    Texts are "" where the records do not say. `prefixes` are all that the session was given: its address, and its IPv6
    prefixes as they are (a delegated /56 is a /56). `end` is None while no Stop was seen.
    """

    subscriber: str
    session_id: str  # Acct-Session-Id
    user_name: str  # User-Name
    nas_address: str  # NAS-IP-Address or NAS-IPv6-Address
    nas_identifier: str  # NAS-Identifier
    prefixes: tuple[str, ...]
    start: int
    end: int | None


class Tenure(NamedTuple):
    """A subscriber had a prefix in [start, end).

    A tenure of CGN has ports, and the address behind it where the log names no subscriber. A tenure with a `doubt` says
    that somebody had it, or that nobody knows.
    """

    family: int
    network: int  # the prefix's first address
    length: int
    start: int
    end: int
    source: str
    subscriber: str = ""
    session: Session | None = None
    ports: tuple[int, int] | None = None  # first and last
    behind: str = ""
    doubt: str = ""

    @property
    def prefix(self) -> str:
        return prefix_text(self.family, self.network, self.length)


_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


def prefix_text(family: int, network: int, length: int) -> str:
    """Canonical text, as ipaddress has it."""
    if family == 6 and not network >> 32:  # inet_ntop(3) writes the last 32 bits of these as IPv4
        return f"{ipaddress.IPv6Address(network)}/{length}"
    return f"{socket.inet_ntop(_FAMILIES[family], network.to_bytes(BITS[family] // 8, 'big'))}/{length}"


def read_prefix(text: str) -> tuple[int, int, int]:
    """An address or prefix as family, first address and length; IPv4 in IPv6 is IPv4. Raises ValueError."""
    address, _, length = text.partition("/")
    family = 6 if ":" in address else 4
    try:  # millions of them: ipaddress would take most of the time
        number = int.from_bytes(socket.inet_pton(_FAMILIES[family], address), "big")
    except (OSError, ValueError):  # ValueError: a zero byte, or octets that were no UTF-8
        raise ValueError(f"{text!r:.60} is no address or prefix") from None
    bits = BITS[family]
    if length and (not (length.isascii() and length.isdigit()) or len(length) > 3 or int(length) > bits):
        raise ValueError(f"{text!r:.60} is no address or prefix")
    many = int(length) if length else bits
    if family == 6 and number >> 32 == 0xFFFF and many >= 96:
        family, number, many, bits = 4, number & 0xFFFFFFFF, many - 96, 32
    return family, number >> bits - many << bits - many, many


class Told:
    """What could not be read or is in doubt: the first lines of each kind by themselves, the rest as a number."""

    def __init__(self) -> None:
        self._lines: dict[tuple[str, str, str], list[int]] = {}

    def add(self, path: str, line: int, reason: str, mend: str) -> None:
        """`line` 0 where it is about the whole file. Reasons that are alike are told together."""
        self._lines.setdefault((path, reason, mend), []).append(line)

    def silences(self) -> tuple[Silence, ...]:
        found = []
        for (path, reason, mend), lines in self._lines.items():
            numbers = [str(line) for line in lines if line][:SHOWN]
            more = f" and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
            where = f" line{'s' if len(numbers) > 1 else ''} {', '.join(numbers)}{more}" if numbers else ""
            found.append(Silence("", f"{path}{where}: {reason}", mend))
        return tuple(found)


def read_lines(path: str, told: Told) -> Iterator[str]:
    """The lines of a file, compressed with gzip or not, each with its line break; the last one perhaps without.

    What cannot be read is told, and the lines end there. Bytes that are no UTF-8 stay readable as \\xNN.
    """
    try:
        with open(path, "rb") as stream:
            packed = stream.read(2) == b"\x1f\x8b"
        opener = gzip.open if packed else open
        with opener(path, "rt", encoding="utf-8", errors="backslashreplace", newline="\n") as stream:
            yield from stream
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        told.add(path, 0, f"the compressed file ends early or is damaged: {error}", "what came before it was read")
    except OSError as error:
        told.add(path, 0, f"cannot be read: {error.strerror or error}", "name a file that is there, or take it out")


def zone_of(name: str) -> datetime.tzinfo | None:
    """The time zone of that name, None for "". Raises ValueError."""
    if not name:
        return None
    try:
        return datetime.UTC if name == "UTC" else zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{name!r} is no time zone; write one of the IANA names, as Europe/Berlin or UTC") from None


def instants(moment: datetime.datetime, zone: datetime.tzinfo | None) -> tuple[int, int] | None:
    """The earliest and the latest instant (ms) that a stamp can mean: two in the hour that comes twice in autumn.

    None for a stamp without a zone where none is known either.
    """
    if moment.tzinfo is None:
        if zone is None:
            return None
        moment = moment.replace(tzinfo=zone)
    both = {round(moment.replace(fold=fold).timestamp() * 1000) for fold in (0, 1)}
    return min(both), max(both)


@dataclass(frozen=True)
class Layer:
    """Tenures of one family and prefix length, by network and start. `reach` is the latest end so far of a network."""

    rows: list[Tenure]
    networks: list[int]
    starts: list[int]
    reach: list[int]

    def search(self, first: int, last: int, since: int, until: int) -> Iterator[Tenure]:
        """Tenures whose network lies in first..last and that touch since..until."""
        low = bisect.bisect_left(self.networks, first)
        while low < len(self.networks) and self.networks[low] <= last:
            high = bisect.bisect_right(self.networks, self.networks[low], low)
            row = bisect.bisect_right(self.starts, until, low, high)
            while row > low and self.reach[row - 1] >= since:
                row -= 1
                if self.rows[row].end >= since:
                    yield self.rows[row]
            low = high


def _layer(rows: list[Tenure], networks: list[int]) -> Layer:
    reach: list[int] = []
    latest, before = 0, -1
    for row, network in zip(rows, networks, strict=True):
        latest = row.end if network != before else max(latest, row.end)
        before = network
        reach.append(latest)
    return Layer(rows, networks, [row.start for row in rows], reach)


def _block(row: Tenure) -> int:
    """Address and ports as one number: blocks are searched by it as prefixes are by their network."""
    first, last = row.ports or (0, 0)
    return row.network << 32 | first << 16 | last


@dataclass
class Index:
    """All tenures, to be searched by address, by address and port, and by subscriber."""

    layers: dict[tuple[int, int], Layer] = field(default_factory=dict)  # by family and prefix length
    blocks: dict[int, Layer] = field(default_factory=dict)  # CGN, by family
    ranges: dict[tuple[int, int], list[tuple[int, int]]] = field(default_factory=dict)  # the blocks of an address
    _of: dict[str, list[Tenure]] | None = None

    def at(self, family: int, network: int, length: int, since: int, until: int) -> list[Tenure]:
        """Tenures that overlap the prefix and touch since..until, port blocks aside."""
        found: list[Tenure] = []
        for (layer_family, layer_length), layer in self.layers.items():
            if layer_family == family:
                spare = BITS[family] - min(length, layer_length)
                first = network >> spare << spare
                last = first if layer_length <= length else first | (1 << spare) - 1
                found += layer.search(first, last, since, until)
        return found

    def shared(self, family: int, address: int) -> bool:
        """Whether port blocks of the address are known."""
        return (family, address) in self.ranges

    def behind(self, family: int, address: int, port: int, since: int, until: int) -> list[Tenure]:
        """Port blocks that hold the port and touch since..until."""
        found: list[Tenure] = []
        for first, last in self.ranges.get((family, address), ()):
            if first <= port <= last:
                block = address << 32 | first << 16 | last
                found += self.blocks[family].search(block, block, since, until)
        return found

    def of(self, subscriber: str, time: int) -> list[Tenure]:
        """What a subscriber had at the time, oldest first."""
        if self._of is None:
            self._of = {}
            for layer in self.layers.values():
                for row in layer.rows:
                    if row.subscriber:
                        self._of.setdefault(row.subscriber, []).append(row)
        return sorted((row for row in self._of.get(subscriber, ()) if row.start <= time < row.end), key=itemgetter(3))


def index(tenures: Iterable[Tenure]) -> Index:
    """Sort the tenures into an Index. Those that end before they start hold nothing and are left out."""
    found = Index()
    layers: dict[tuple[int, int], list[Tenure]] = {}
    blocks: dict[int, list[Tenure]] = {}
    for row in tenures:
        if row.end <= row.start:
            continue
        if row.ports:
            blocks.setdefault(row.family, []).append(row)
        else:
            layers.setdefault((row.family, row.length), []).append(row)
    for key, rows in layers.items():
        rows.sort(key=itemgetter(1, 3))
        found.layers[key] = _layer(rows, [row.network for row in rows])
    for family, rows in blocks.items():
        rows.sort(key=lambda row: (_block(row), row.start))
        found.blocks[family] = _layer(rows, [_block(row) for row in rows])
        for row in rows:
            ranges = found.ranges.setdefault((family, row.network), [])
            if row.ports and (not ranges or ranges[-1] != row.ports):
                ranges.append(row.ports)
    return found
