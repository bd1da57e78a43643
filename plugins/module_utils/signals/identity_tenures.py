# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who had which addresses from when until when: what every source of identities comes to."""

from __future__ import annotations

from dataclasses import dataclass

RADIUS, DHCP, CGN, STATIC = "radius", "dhcp", "cgn", "static"


@dataclass(frozen=True, slots=True)
class Session:
    """A session of RADIUS accounting, with all that RFC 5176, 3, lets a CoA or Disconnect-Request name it by.

    Texts are "" where the records do not say. `prefixes` are all that the session was given: its address, and its IPv6
    prefixes as they are (a delegated /56 is a /56). `end` is None while no Stop was seen.
    """

    subscriber: str
    session_id: str  # Acct-Session-Id
    user_name: str  # User-Name
    nas_address: str  # NAS-IP-Address or NAS-IPv6-Address
    nas_identifier: str  # NAS-Identifier
    nas_port_id: str  # NAS-Port-Id
    calling_station_id: str  # Calling-Station-Id
    prefixes: tuple[str, ...]
    start: int
    end: int | None


@dataclass(frozen=True, slots=True)
class Tenure:
    """A subscriber had a prefix in [start, end). `end` is None while it goes on.

    A tenure of CGN has ports, and the address behind it instead of a subscriber. A tenure without both is a time that
    a source cannot speak for, and `doubt` says why.
    """

    prefix: str
    start: int
    end: int | None
    source: str
    subscriber: str = ""
    session: Session | None = None
    ports: tuple[int, int] | None = None  # first and last
    behind: str = ""  # CGN: the address that the subscriber has inside
    doubt: str = ""
