# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The databases that walk over flows: DuckDB, embedded, filled from nfcapd files; and a ClickHouse that Akvorado fills.

Of the files only what the detectors look at reaches the database: the filter runs on the arrays of the reader.
"""

from __future__ import annotations

import contextlib
import http.client
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from .detectors import Facts, Pools, shown_time
from .flows import FlowFileError, Flows, read_flows
from .limits import AHEAD, DAY
from .queries import EngineError, facts_of
from .records import Silence

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TCP = 6
# A file of nfcapd spans minutes, hours at most; a clock that was set spans days, and one that starts anew decades.
WIDEST_FILE = 2 * DAY
TIMEOUT = 300  # seconds for one query over HTTP


@dataclass(frozen=True, slots=True)
class Window:
    """From when until when flows and log lines count, and what time it is: milliseconds."""

    start: int
    end: int
    now: int


class DuckDB:
    """In memory; what does not fit spills into a private directory that goes with it. ImportError where none is."""

    flows = ""

    def __init__(self, memory_mb: int = 256, threads: int = 2) -> None:
        import duckdb

        self._directory = tempfile.TemporaryDirectory(prefix="isp-signals-")
        self._connection = duckdb.connect(
            config={
                "memory_limit": f"{memory_mb}MB",
                "threads": threads,
                "temp_directory": self._directory.name,
                "preserve_insertion_order": False,
                "autoinstall_known_extensions": False,
            }
        )
        self._error = duckdb.Error
        self._connection.execute(
            "CREATE TABLE isp_flows (file INTEGER, ts_ms BIGINT, src UBIGINT, dst UBIGINT, dport INTEGER, "
            "flags UTINYINT, packets UBIGINT, octets UBIGINT, forwarding UTINYINT)"
        )

    def __enter__(self) -> DuckDB:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self._directory.cleanup()

    def rows(self, sql: str) -> list[tuple[int, ...]]:
        """As in queries.Engine."""
        try:
            return [tuple(map(int, row)) for row in self._connection.execute(sql).fetchall()]
        except self._error as error:
            said = " ".join(str(error).split())[:300]
            raise EngineError(f"DuckDB: {said}; is there room in the temporary directory?") from error

    def add(self, file: int, flows: Flows) -> None:
        """The rows of a chunk, as those of the file with that number."""
        columns = {
            name: getattr(flows, name) for name in ("ts_ms", "dport", "flags", "packets", "octets", "forwarding")
        }
        columns |= {"src": keys(flows.src_hi, flows.src_lo), "dst": keys(flows.dst_hi, flows.dst_lo)}
        self._connection.register("chunk", columns)
        self._connection.execute(
            f"INSERT INTO isp_flows SELECT {file}, ts_ms, src, dst, dport, flags, packets, octets, forwarding "
            "FROM chunk"
        )
        self._connection.unregister("chunk")

    def forget(self, file: int) -> None:
        """Take the rows of a file out again."""
        self._connection.execute(f"DELETE FROM isp_flows WHERE file = {file}")


def keys(high: NDArray[np.uint64], low: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Addresses as keys of detectors.py."""
    import numpy as np

    return np.where(high == 0, low, np.where(high >> np.uint64(48) == 0, np.uint64(0), high))


class Wanted:
    """The filter for read_flows: TCP of subscribers to the ports, within the window. Counts what goes by."""

    def __init__(self, pools: Pools, ports: Iterable[int], window: Window) -> None:
        import numpy as np

        self._window = window
        self._ports = np.zeros(65_536, dtype=bool)
        self._ports[list(ports)] = True
        ranges = pools.merged()
        self._first = np.array([first for first, _last in ranges], dtype=np.uint64)
        self._last = np.array([last for _first, last in ranges], dtype=np.uint64)
        self.flows = 0
        self.earliest, self.latest = 2**63 - 1, -(2**63)  # of the file that is being read

    def __call__(self, flows: Flows) -> NDArray[np.bool_]:
        """As read_flows wants it."""
        import numpy as np

        mask = np.zeros(len(flows), dtype=bool)
        if not len(flows):
            return mask
        self.flows += len(flows)
        self.earliest = min(self.earliest, int(flows.ts_ms.min()))
        self.latest = max(self.latest, int(flows.ts_ms.max()))
        rows = ((flows.proto == TCP) & self._ports[flows.dport]).nonzero()[0]
        sources = keys(flows.src_hi[rows], flows.src_lo[rows])
        at = np.searchsorted(self._first, sources, side="right")  # the ranges do not overlap
        own = (at > 0) & (sources <= self._last[at - 1])
        times = flows.ts_ms[rows]
        mask[rows[own & (times >= self._window.start) & (times <= self._window.end)]] = True
        return mask

    def fault(self) -> str:
        """Why the clock of the file that was read cannot be right, "" where it can."""
        if self.latest > self._window.now + AHEAD:
            return f"it holds flows of the future, {shown_time(self.latest)}"
        if self.latest - self.earliest > WIDEST_FILE:
            return f"its clock jumps, from {shown_time(self.earliest)} to {shown_time(self.latest)}"
        return ""


def load(
    engine: DuckDB, files: Sequence[str], pools: Pools, ports: Iterable[int], window: Window
) -> tuple[Facts, list[Silence]]:
    """Fill the database from flow files. One that cannot be read, or whose clock is wrong, is left out and told."""
    found, silences, outside = Facts(), [], 0
    wanted = Wanted(pools, sorted(ports), window)
    for number, file in enumerate(files):
        wanted.earliest, wanted.latest = 2**63 - 1, -(2**63)
        flows = None
        try:
            for flows in read_flows([file], wanted):
                if len(flows):
                    engine.add(number, flows)
            fault = wanted.fault()
            mend = "set the clock of its exporter by NTP; who had an address then cannot be told from it"
        except FlowFileError as error:
            fault, mend = f"byte {error.offset}: {error.reason}", error.mend
        if fault:
            engine.forget(number)
            silences.append(Silence("", f"{file}: left out: {fault}", mend))
        elif flows is not None:
            found += Facts(sampling=flows.sampling, flags_known=flows.flags_known)
            outside += window.end < wanted.earliest <= wanted.latest or wanted.earliest <= wanted.latest < window.start
    if outside:
        silences.append(
            Silence(
                "",
                f"{outside} of {len(files)} flow files hold nothing of the window, which is from "
                f"{shown_time(window.start)} to {shown_time(window.end)}",
                "name the files of that time, or another time",
            )
        )
    return found + replace(facts_of(engine), flows=wanted.flows), silences


# What a table must have (akvorado, common/schema/definition.go). Addresses are IPv6 there, IPv4 as ::ffff:a.b.c.d; the
# ports are in the raw table alone, and TCPFlags is disabled by default.
AKVORADO = (
    "TimeReceived",
    "SamplingRate",
    "SrcAddr",
    "DstAddr",
    "DstPort",
    "Proto",
    "ForwardingStatus",
    "Packets",
    "Bytes",
)
AKVORADO_MEND = (
    "TCPFlags is off by default in Akvorado: write it under schema.enabled of akvorado.yaml; it counts from then on"
)
_LOWER = 2**64 - 1


def akvorado_flows(table: str, window: Window, pools: Pools, ports: Iterable[int], flags_known: bool) -> str:
    """isp_flows out of the table of Akvorado, as the beginning of a query."""
    own = " OR ".join(f"(src BETWEEN {first} AND {last})" for first, last in pools.merged())

    def key(column: str) -> str:
        high = f"toUInt64(bitShiftRight(toUInt128({column}), 64))"
        low = f"toUInt64(bitAnd(toUInt128({column}), {_LOWER}))"
        return f"CASE WHEN {high} = 0 THEN {low} WHEN {high} < {1 << 48} THEN 0 ELSE {high} END"

    return f"""isp_flows AS (
    SELECT ts_ms, src, dst, dport, flags, packets, octets, forwarding
    FROM (
        SELECT CAST(toUnixTimestamp(TimeReceived) AS BIGINT) * 1000 AS ts_ms, {key("SrcAddr")} AS src,
            {key("DstAddr")} AS dst, DstPort AS dport, {"TCPFlags" if flags_known else "0"} AS flags,
            Packets AS packets, Bytes AS octets, ForwardingStatus AS forwarding
        FROM {table}
        WHERE Proto = {TCP} AND DstPort IN ({", ".join(map(str, sorted(ports)))})
            AND TimeReceived >= toDateTime({window.start // 1000}) AND TimeReceived <= toDateTime({window.end // 1000})
    )
    WHERE {own}
)"""


class ClickHouse:
    """A ClickHouse with Akvorado's flows, over HTTP. Raises EngineError where it is none, or lacks a column."""

    def __init__(
        self, url: str, user: str, password: str, table: str, window: Window, pools: Pools, ports: Iterable[int]
    ) -> None:
        # A password out of a file often ends in a line break. http.client would show it in its error.
        if not all(one.isascii() and one.isprintable() for one in (user, password)):
            raise EngineError("ClickHouse: user and password are of printable ASCII; does one end in a line break?")
        try:
            parts = urllib.parse.urlsplit(url)
        except ValueError:
            parts = urllib.parse.SplitResult("", "", "", "", "")
        if parts.scheme not in ("http", "https") or "@" in parts.netloc or "password=" in parts.query:
            raise EngineError("ClickHouse: write its address as https://host:8443/, user and password apart from it")
        if not table.replace(".", "").replace("_", "").isalnum():
            raise EngineError("ClickHouse: the name of the table is letters, digits, '_', and '.' behind the database")
        self._url = url
        self._headers = {"X-ClickHouse-User": user, "X-ClickHouse-Key": password}
        self.flows = ""
        self.facts = akvorado_facts(self, table, window)
        self.flows = akvorado_flows(table, window, pools, ports, self.facts.flags_known)

    def rows(self, sql: str) -> list[tuple[int, ...]]:
        """As in queries.Engine."""
        try:
            return [tuple(map(int, row)) for row in self.texts(sql)]
        except ValueError:
            raise EngineError("ClickHouse: answers no numbers; is that its HTTP interface (port 8123)?") from None

    def texts(self, sql: str) -> list[list[str]]:
        """The rows of a query as texts. Raises EngineError."""
        # Its parser takes 256 KiB by default, which the prefixes of a large network fill. Errors come before any row.
        options = "default_format=TabSeparated&max_query_size=16777216&wait_end_of_query=1"
        address = f"{self._url}{'&' if urllib.parse.urlsplit(self._url).query else '?'}{options}"
        request = urllib.request.Request(address, sql.encode(), self._headers)
        try:
            with _OPENER.open(request, timeout=TIMEOUT) as answer:
                text = answer.read().decode("utf-8", "replace")
        except urllib.error.HTTPError as error:
            said = ""
            with contextlib.suppress(OSError, http.client.HTTPException):  # the reason may be cut off
                said = " ".join(error.read(400).decode("utf-8", "replace").split())
            raise EngineError(f"ClickHouse: answers {error.code}: {said or 'no reason'}") from None
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise EngineError(f"ClickHouse: {error}; is its address right, and does it answer?") from None
        return [line.split("\t") for line in text.splitlines()]


def akvorado_facts(engine: Any, table: str, window: Window) -> Facts:
    """What the table says of its flows. Raises EngineError where it is none of Akvorado's, or a clock is wrong."""
    database, _, name = table.rpartition(".")
    place = f"'{database}'" if database else "currentDatabase()"
    columns = engine.texts(f"SELECT name FROM system.columns WHERE database = {place} AND table = '{name}'")
    present = {row[0] for row in columns}
    missing = [column for column in AKVORADO if column not in present]
    if missing:
        raise EngineError(
            f"ClickHouse: {table} lacks {', '.join(missing)}; name the raw table of Akvorado, as default.flows, "
            "with its columns enabled"
        )
    latest = (window.now + AHEAD) // 1000
    flows, sampling, future = engine.rows(
        f"SELECT count(*), max(SamplingRate), sum(CASE WHEN TimeReceived > toDateTime({latest}) THEN 1 ELSE 0 END) "
        f"FROM {table} WHERE TimeReceived >= toDateTime({window.start // 1000})"
    )[0]
    if future:
        raise EngineError(f"ClickHouse: {future} flows of the future in {table}; set the clocks of both hosts by NTP")
    return Facts(flows, sampling, "TCPFlags" in present, AKVORADO_MEND)


class _Stay(urllib.request.HTTPRedirectHandler):
    """A redirect would take the password along."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_Stay)
