# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The walk over flows as SQL that DuckDB and ClickHouse both understand; engines.py has one each.

    isp_flows(ts_ms, src, dst, dport, flags, packets, octets, forwarding)     TCP of own subscribers, one row a flow

`src` and `dst` are keys (detectors.py). Rules of the SQL: whole numbers only, milliseconds, `% 64` where one would
write `& 63`, every OVER and AS spelled out, no range joins, no function that only one of them has. The running sum
needs no look at the row before: the drifts of all steps add up to the time since the first contact.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from .detectors import BUSY, MAIL_PORT, MIDDLE_PACKETS, SHORT, SHORT_OCTETS, SHORT_PACKETS, SYN_OCTETS, Detector, Facts
from .walk import Contact

# What a flow shows, each as 0 or 1 in a sum.
_SYN = "CASE WHEN flags % 4 >= 2 THEN 1 ELSE 0 END"
_SYN_ONLY = "flags % 64 = 2"
_DROPPED = "forwarding BETWEEN 128 AND 191"
_SHORT = f"packets <= {SHORT_PACKETS} AND octets < {SHORT_OCTETS}"


class EngineError(Exception):
    """The database refuses or cannot be reached: which, why, and what to do. Holds no password."""


class Engine(Protocol):
    """A database with isp_flows. `flows` is how a query begins that has to make it first, "" where it is a table."""

    flows: str

    def rows(self, sql: str) -> list[tuple[int, ...]]:
        """The rows of a query, all of them whole numbers. Raises EngineError."""


def _contacts(detector: Detector, subjects: Sequence[int] = ()) -> str:
    """Each server of a subscriber once: subject, port, object, t, failed.

    Where flows can fail, a contact is one that began with SYN: what has none is the rest of a session from before.
    """
    failing = f"{_SYN_ONLY} OR {_DROPPED}" + (f" OR ({_SHORT})" if detector.fails == SHORT else "")
    failed = f"min(CASE WHEN {failing} THEN 1 ELSE 0 END)" if detector.fails else "0"
    chosen = f" AND src IN ({', '.join(map(str, subjects))})" if subjects else ""
    # D1 goes by every server, however it was met.
    began = f"\n    HAVING max({_SYN}) = 1" if detector.fails and not detector.rate else ""
    return f"""contacts AS (
    SELECT src AS subject, dport AS port, dst AS object, min(ts_ms) AS t, {failed} AS failed
    FROM isp_flows
    WHERE dport IN ({", ".join(map(str, detector.ports))}){chosen}
    GROUP BY src, dport, dst{began}
)"""


def _with(engine: Engine, *parts: str) -> str:
    tables = [part for part in (engine.flows, *parts) if part]
    return "WITH " + ",\n".join(tables) if tables else ""


def walked(engine: Engine, detector: Detector) -> tuple[list[tuple[tuple[int, int], int, int, int]], list[Contact]]:
    """The alarms of a detector as (subject, time, score, contacts), and the contacts until then.

    What walk.walk() says of the same flows, by subject, which is (key, port), time and object. Raises EngineError.
    """
    test = detector.steps
    over = "OVER (PARTITION BY subject, port ORDER BY t, object ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)"
    steps = f"""steps AS (
    SELECT subject, port, object, t, failed,
        CAST(sum(CASE WHEN failed = 1 THEN {test.failed} ELSE {test.passed} END) {over} AS BIGINT) AS marks,
        CAST(count(*) {over} AS BIGINT) AS n,
        min(t) {over} AS began
    FROM contacts
)"""
    sums = f"""sums AS (
    SELECT subject, port, object, t, failed, n, marks + {test.arrival} * (n - 1) - {test.drift} * (t - began) AS c
    FROM steps
)"""
    # A rate begins at its first contact, whatever that was; shares of failures begin before it.
    floor = f"min(c) {over}" if test.arrival else f"least(0, min(c) {over})"
    scores = f"""scores AS (
    SELECT subject, port, object, t, failed, n, c - {floor} AS s
    FROM sums
)"""
    ends = f"""ends AS (
    SELECT subject, port, object, t, failed, n, s,
        min(CASE WHEN s >= {test.threshold} THEN n END) OVER (PARTITION BY subject, port) AS last
    FROM scores
)"""
    sql = f"""{_with(engine, _contacts(detector), steps, sums, scores, ends)}
SELECT subject, port, object, t, failed, n, s, last FROM ends WHERE n <= last ORDER BY subject, port, n"""
    rows = engine.rows(sql)
    crossings = [((row[0], row[1]), row[3], row[6], row[5]) for row in rows if row[5] == row[7]]
    return crossings, [Contact((row[0], row[1]), row[2], row[3], bool(row[4])) for row in rows]


def contacts_of(engine: Engine, detector: Detector, subjects: Iterable[int]) -> list[Contact]:
    """All first contacts of some subscribers, sorted as walk.walk() wants them. Raises EngineError."""
    wanted = sorted(set(subjects))
    found = []
    for start in range(0, len(wanted), 1000):
        sql = f"""{_with(engine, _contacts(detector, wanted[start : start + 1000]))}
SELECT subject, port, object, t, failed FROM contacts ORDER BY subject, port, t, object"""
        found += [Contact((row[0], row[1]), row[2], row[3], bool(row[4])) for row in engine.rows(sql)]
    return found


def facts_of(engine: Engine) -> Facts:
    """What the rows themselves show of their exporters. Raises EngineError."""
    shapes = f"""shapes AS (
    SELECT src, count(*) AS n,
        sum(CASE WHEN flags % 64 = 0 THEN 1 ELSE 0 END) AS flagless,
        sum(CASE WHEN flags % 4 < 2 AND flags % 64 > 0 AND packets <= {MIDDLE_PACKETS} THEN 1 ELSE 0 END) AS middles,
        sum(CASE WHEN {_SYN_ONLY} AND octets >= {SYN_OCTETS} THEN 1 ELSE 0 END) AS impossible,
        sum(CASE WHEN dport = {MAIL_PORT} AND ({_SYN_ONLY} OR {_DROPPED}) THEN 1 ELSE 0 END) AS blocked
    FROM isp_flows
    GROUP BY src
)"""
    busy = f"n >= {BUSY}"
    sql = f"""{_with(engine, shapes)}
SELECT sum(CASE WHEN {busy} THEN 1 ELSE 0 END),
    sum(CASE WHEN {busy} AND flagless * 2 > n THEN 1 ELSE 0 END),
    sum(CASE WHEN {busy} AND middles * 2 > n THEN 1 ELSE 0 END),
    sum(CASE WHEN {busy} AND impossible * 2 > n THEN 1 ELSE 0 END),
    sum(blocked)
FROM shapes
HAVING count(*) > 0"""
    rows = engine.rows(sql)
    if not rows:
        return Facts()
    busy_ones, flagless, middles, impossible, blocked = rows[0]
    return Facts(busy=busy_ones, flagless=flagless, middles=middles, impossible=impossible, blocked=blocked)
