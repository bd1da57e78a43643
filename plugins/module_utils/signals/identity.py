# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who had an address at a time: RADIUS accounting, DHCP leases, port blocks of a CGN, and assignments of the policy.

    sources = read_sources({"radius": ["/var/log/freeradius/radacct/192.0.2.1/detail"], "kea": ["kea-leases4.csv"]})
    owner(sources, "203.0.113.7", time_ms)               -> Owner(KNOWN, "alice@example.net", ...)
    owner(sources, "198.51.100.1", time_ms, port=40000)  -> behind a CGN only with the port (RFC 6302 2)
    sessions(sources, "alice@example.net", time_ms)      -> what a CoA names (RFC 5176 3)

Nobody is guessed: what is not certain is UNKNOWN or AMBIGUOUS with its reason, and what could not be read is told.
"""

from __future__ import annotations

import contextlib
import datetime
import gc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from . import identity_cgn, identity_leases, identity_radius
from .identity_tenures import (
    BITS,
    CGN,
    DHCP,
    FOREVER,
    RADIUS,
    STATIC,
    Index,
    Session,
    Tenure,
    Told,
    index,
    prefix_text,
    read_prefix,
    zone_of,
)
from .records import AMBIGUOUS, KNOWN, UNKNOWN, Owner, Silence

__all__ = [
    "CGN", "DHCP", "KINDS", "RADIUS", "SKEW", "STATIC", "Session", "Sources", "owner", "read_sources", "sessions",
    "touchable",
]  # fmt: skip

SKEW = 30_000  # ms that clocks of different machines may differ by

# The kinds of files; each may be compressed with gzip.
#   radius    detail files of FreeRADIUS
#   radacct   the table radacct as CSV, or as a dump of PostgreSQL, MySQL or SQLite
#   isc_dhcp  dhcpd.leases and dhcpd6.leases
#   kea       kea-leases4.csv and kea-leases6.csv
#   cgn       port blocks, as CSV of our own form or as syslog of Juniper
KINDS = ("radius", "radacct", "isc_dhcp", "kea", "cgn")


@dataclass(frozen=True)
class Sources:
    """All that is known of who had what. `told` is what could not be read or is in doubt, each with its place."""

    index: Index = field(default_factory=Index)
    told: tuple[Silence, ...] = ()
    cgn: tuple[tuple[int, int, int], ...] = ()  # prefixes that many subscribers share
    skew: int = SKEW


def read_sources(
    files: Mapping[str, Sequence[str]],
    *,
    static: Mapping[str, str] | None = None,
    cgn: Sequence[str] = (),
    subscriber: str = "User-Name",
    zone: str = "",
    skew_ms: int = SKEW,
) -> Sources:
    """Read the files, by kind (KINDS). Never raises on any content: what is not understood is in `told`.

    `static` are assignments, prefix -> subscriber. `cgn` are the shared prefixes. `subscriber` is the RADIUS attribute
    that names a customer: "User-Name", "Class", "NAS-Port-Id" or "Calling-Station-Id". `zone` is the time zone of
    dumps that do not say one, as "UTC" or "Europe/Berlin"; without it such rows are left out and told.
    Raises ValueError for a kind, prefix, subscriber, attribute or zone that is none.
    """
    for kind in files:
        if kind not in KINDS:
            raise ValueError(f"{kind!r} is no kind of source; the kinds are {', '.join(KINDS)}")
    if subscriber not in identity_radius.SUBSCRIBERS:
        raise ValueError(f"{subscriber!r} names no customer; write one of {', '.join(identity_radius.SUBSCRIBERS)}")
    for prefix, name in (static or {}).items():
        if not isinstance(name, str) or not name or not name.isprintable():
            raise ValueError(f"static: the subscriber of {prefix!s:.60} is no readable text; write it in quotes")
    told, where = Told(), zone_of(zone)
    fixed = [Tenure(*read_prefix(prefix), 0, FOREVER, STATIC, name) for prefix, name in (static or {}).items()]
    shared = tuple(read_prefix(prefix) for prefix in cgn)
    with _no_collection():
        found = _read(files, subscriber, where, skew_ms, told)
        return Sources(index([*fixed, *found]), told.silences(), shared, skew_ms)


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Millions of records that all stay are nothing to look for cycles in: that took a third of the time."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


def _read(
    files: Mapping[str, Sequence[str]], subscriber: str, where: datetime.tzinfo | None, skew_ms: int, told: Told
) -> list[Tenure]:
    found: list[Tenure] = []
    records: list[identity_radius.Record] = []
    for path in files.get("radius", ()):
        read, doubts = identity_radius.read_detail(path, where, skew_ms, told)
        records += read
        found += doubts
    for path in files.get("radacct", ()):
        records += identity_radius.read_radacct(path, where, told)
    found += identity_radius.tenures(records, subscriber, told)
    for kind, reader in (("isc_dhcp", identity_leases.read_isc), ("kea", identity_leases.read_kea)):
        for path in files.get(kind, ()):
            found += identity_leases.tenures(path, reader(path, told), skew_ms, told)
    events: list[identity_cgn.Event] = []
    for path in files.get("cgn", ()):
        blocks, doubts = identity_cgn.read_cgn(path, skew_ms, told)
        events += blocks
        found += doubts
    return found + identity_cgn.tenures(events, told)


def owner(sources: Sources, address: str, time_ms: int, port: int | None = None) -> Owner:
    """Who had the address at the time; an IPv6 prefix is asked for as one subscriber's.

    Certain is who alone had it from `skew` before the time until `skew` after it. DHCP names devices and RADIUS
    customers: where both speak, RADIUS counts. Raises ValueError for an address that is none.
    """
    prefix = read_prefix(address)
    one = _owner(sources, prefix, time_ms, port)
    if one.state != KNOWN:
        return one
    asked = [prefix]
    if one.source == CGN:  # what is outside is others' too
        asked = [read_prefix(text) for text in one.prefixes]
    return replace(one, prefixes=_touchable(sources, one.subscriber, time_ms, asked) or one.prefixes)


def _owner(sources: Sources, prefix: tuple[int, int, int], time: int, port: int | None = None) -> Owner:
    """As owner(); of the prefixes only what the answer is about."""
    family, network, length = prefix
    found = sources.index.at(family, network, length, time - sources.skew, time + sources.skew)
    doubt = next((row.doubt for row in found if row.doubt), "")
    if doubt:
        return Owner(AMBIGUOUS, reason=doubt)
    if _shared(sources, family, network, length):
        if found:
            return Owner(AMBIGUOUS, reason="the address is shared by a CGN, and is somebody's by another source")
        if port is None:
            return Owner(AMBIGUOUS, reason="many subscribers share the address, and the event has no source port")
        return _behind(sources, family, network, time, port)
    return _alone(sources, found, prefix, time)


def touchable(sources: Sources, subscriber: str, time_ms: int, asked: Iterable[str] = ()) -> tuple[str, ...]:
    """What of the subscriber's may be acted upon at the time: what was his alone for certain, /32, /64 and longer.

    Of a wider prefix (a delegated /56) only what of it is `asked` about: addresses, or prefixes of /64 and longer.
    """
    return _touchable(sources, subscriber, time_ms, [read_prefix(one) for one in asked])


def sessions(sources: Sources, subscriber: str, time_ms: int) -> tuple[Session, ...]:
    """The RADIUS sessions that the subscriber had at the time, oldest first; () where none is known."""
    found = (row.session for row in sources.index.of(subscriber, time_ms))
    return tuple(dict.fromkeys(session for session in found if session))


def _shared(sources: Sources, family: int, network: int, length: int) -> bool:
    def within(prefix: tuple[int, int, int]) -> bool:
        spare = BITS[family] - min(length, prefix[2])
        return prefix[0] == family and prefix[1] >> spare == network >> spare

    return sources.index.shared(family, network) or any(within(prefix) for prefix in sources.cgn)


def _alone(sources: Sources, found: Sequence[Tenure], asked: tuple[int, int, int], time: int) -> Owner:
    named = [row for row in found if row.source != DHCP] or found
    names = sorted({row.subscriber for row in named})
    holders = sorted({row.subscriber for row in named if row.start <= time < row.end})
    if len(holders) > 1:
        return Owner(AMBIGUOUS, reason=f"{len(holders)} subscribers had it at once by the records: {_few(holders)}")
    if len(names) > 1:
        reason = f"within {sources.skew // 1000} s it was given from one subscriber to another: {_few(names)}"
        return Owner(AMBIGUOUS, reason=reason)
    if not holders:
        return Owner(UNKNOWN, reason="no record says who had it then")
    held = [row for row in named if row.start <= time < row.end]
    family, network, length = asked
    if length < _NARROW[family] and not any(row.length <= length for row in held):
        return Owner(AMBIGUOUS, reason=f"it is more than {holders[0]} had then: {held[0].prefix}")
    length = max(length, _NARROW[family])
    return Owner(KNOWN, holders[0], (prefix_text(family, network, length),), source=held[0].source)


def _behind(sources: Sources, family: int, address: int, time: int, port: int) -> Owner:
    since, until = time - sources.skew, time + sources.skew
    found = sources.index.behind(family, address, port, since, until)
    doubt = next((row.doubt for row in found if row.doubt), "")
    if doubt:
        return Owner(AMBIGUOUS, reason=doubt, source=CGN)
    if len({(row.behind, row.subscriber) for row in found}) > 1:
        return Owner(
            AMBIGUOUS, reason=f"within {sources.skew // 1000} s the block of port {port} changed hands", source=CGN
        )
    block = next((row for row in found if row.start <= time < row.end), None)
    if not block:
        return Owner(UNKNOWN, reason=f"no record says who had the block of port {port} then", source=CGN)
    if block.subscriber:
        inside = (prefix_text(*read_prefix(block.behind)),) if block.behind else ()
        return Owner(KNOWN, block.subscriber, inside, source=CGN)
    if _shared(sources, *read_prefix(block.behind)):
        return Owner(UNKNOWN, reason=f"behind the CGN is {block.behind}, which is shared too", source=CGN)
    one = _owner(sources, read_prefix(block.behind), time)
    reason = one.reason and f"behind the CGN is {block.behind}: {one.reason}"
    return Owner(one.state, one.subscriber, one.prefixes, reason, CGN)


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (" and others" if len(names) > 3 else "")


# IPv6 counts by /64; what is wider is more than is acted upon at once.
_NARROW = {4: 32, 6: 64}


def _touchable(sources: Sources, subscriber: str, time: int, asked: Sequence[tuple[int, int, int]]) -> tuple[str, ...]:
    found: dict[tuple[int, int, int], None] = {}
    for row in sources.index.of(subscriber, time):
        narrow = _NARROW[row.family]
        if row.length >= narrow:
            found[row[:3]] = None
            continue
        spare, rest = BITS[row.family] - row.length, BITS[row.family] - narrow
        for family, network, length in asked:
            if family == row.family and length >= narrow and network >> spare == row.network >> spare:
                found[family, network >> rest << rest, narrow] = None
    # Another may have it as well by the records: what he had for certain does not say so of this.
    return tuple(
        prefix_text(*prefix)
        for prefix in found
        if (one := _owner(sources, prefix, time)).state == KNOWN and one.subscriber == subscriber
    )
