# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The controls M1 to M13 and M15 proved on the effective configuration of one mail host, a file by subject.

Nothing is read here: what was read comes in a Reading, and tables answer in rounds (tables.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ...findings import UNKNOWN, Finding
from .base import INBOUND, OUTBOUND, Audited, Expected, Reading
from .commands import commands, reachable
from .dnsbl import dnsbl, listed_refused, resolver
from .leaving import bounces, source
from .relaying import relaying, separate
from .running import running
from .scanners import scanners
from .users import logins, own_senders

__all__ = ["INBOUND", "OUTBOUND", "Expected", "Reading", "audit"]

_CHECKS: tuple[Callable[[Audited], Iterator[Finding]], ...] = (
    separate,
    bounces,
    source,
    relaying,
    dnsbl,
    resolver,
    listed_refused,
    scanners,
    logins,
    own_senders,
    reachable,
    commands,
    running,
)


def audit(reading: Reading, expected: Expected) -> list[Finding]:
    """Every verdict on the host. While `reading.tables` lacks answers afterwards, get them and audit again."""
    host = Audited(reading, expected)
    if reading.postfix is None:
        why = f"postconf: {reading.unreadable.get('postconf', 'it was not read')}"
        controls = [f"M{number}" for number in (*range(1, 14), 15)]
        return [host.finding(one, "Postfix", UNKNOWN, "Postfix can be audited", why) for one in controls]
    return [finding for check in _CHECKS for finding in check(host)]
