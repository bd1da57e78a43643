# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""D1 to D4 over flows: the same alarms from DuckDB, from ClickHouse's engine and from a plain loop;
who is found and who is not; which data switches a detector off. Flows of the generator are synthetic."""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import operator
import random
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ansible_collections.isp.hardening.plugins.module_utils.signals import queries, walk
from ansible_collections.isp.hardening.plugins.module_utils.signals.detectors import (
    DETECTORS,
    WORM_PORTS,
    Facts,
    Pools,
    address_of,
    fit,
    key_of,
    read_detectors,
)
from ansible_collections.isp.hardening.plugins.module_utils.signals.engines import (
    ClickHouse,
    DuckDB,
    Window,
    akvorado_facts,
    akvorado_flows,
    keys,
    load,
)
from ansible_collections.isp.hardening.plugins.module_utils.signals.flows import V4_MAPPED, Flows
from ansible_collections.isp.hardening.plugins.module_utils.signals.limits import NeverList, Protected
from ansible_collections.isp.hardening.plugins.module_utils.signals.queries import EngineError
from ansible_collections.isp.hardening.plugins.module_utils.signals.suspects import Found, Network, of_flows
from ansible_collections.isp.hardening.plugins.module_utils.variables import Problems
from tests.signals.flows import BEGIN, HOUR, Exporter, Population, Synthetic, joined, write_nfcapd

chdb_session = pytest.importorskip("chdb.session", reason="chdb is not installed")

FLOW_DETECTORS = ("D1", "D2", "D3", "D4")
PORTS = {25, *WORM_PORTS}
POOLS = Pools([("dynamic", ["198.18.0.0/15", "2001:db8::/33"])])
NETWORK = Network(POOLS, NeverList([]))
WINDOW = Window(BEGIN, BEGIN + HOUR, BEGIN + HOUR)
SYN, WHOLE = 0x02, 0x1B


def flows(rows: Sequence[tuple[int, str, str, int, int, int, int]], **facts: Any) -> Flows:
    """Rows of (milliseconds after BEGIN, source, target, port, flags, packets, octets), TCP, as a chunk."""

    def half(addresses: Iterable[str], upper: bool) -> np.ndarray[Any, Any]:
        whole = [0 if (key := key_of(one)) >> 48 == 0 else key for one in addresses]
        low = [1 if high else key_of(one) for high, one in zip(whole, addresses, strict=True)]
        return np.array(whole if upper else low, dtype="u8")

    columns = list(zip(*rows, strict=True)) if rows else [()] * 7
    return Flows(
        ts_ms=np.array(columns[0], dtype="i8") + BEGIN,
        src_hi=half(columns[1], True),
        src_lo=half(columns[1], False),
        dst_hi=half(columns[2], True),
        dst_lo=half(columns[2], False),
        sport=np.full(len(rows), 40_000, dtype="u2"),
        dport=np.array(columns[3], dtype="u2"),
        proto=np.full(len(rows), 6, dtype="u1"),
        flags=np.array(columns[4], dtype="u1"),
        packets=np.array(columns[5], dtype="u8"),
        octets=np.array(columns[6], dtype="u8"),
        forwarding=facts.pop("forwarding", np.zeros(len(rows), dtype="u1")),
        **{"sampling": 1, "flags_known": True, "source": "here"} | facts,
    )


def sources(some: Flows) -> Iterable[tuple[int, int]]:
    return zip(some.src_hi, some.src_lo, strict=True)


def plain(some: Flows, name: str) -> list[tuple[Any, int, int, int]]:
    """The alarms by a loop over rows and the plain walk: no SQL, and no line shared with it."""
    detector = DETECTORS[name]
    pieces: dict[tuple[tuple[int, int], int], list[tuple[int, bool, bool]]] = {}
    for row in range(len(some)):
        port, flags = int(some.dport[row]), int(some.flags[row])
        if port not in detector.ports or some.proto[row] != 6:
            continue
        source, target = (
            int(high or low)
            for high, low in ((some.src_hi[row], some.src_lo[row]), (some.dst_hi[row], some.dst_lo[row]))
        )
        if not POOLS.kind(source):
            continue
        fail = flags & 63 == SYN or 128 <= some.forwarding[row] <= 191
        if name in ("D1", "D2"):
            fail = fail or (some.packets[row] <= 12 and some.octets[row] < 1500)
        pieces.setdefault(((source, port), target), []).append((int(some.ts_ms[row]), bool(fail), bool(flags & SYN)))
    contacts = [
        walk.Contact(subject, target, time, fail)
        for (subject, target), parts in pieces.items()
        if name == "D1" or any(syn for _time, _fail, syn in parts)
        for time, fail, _syn in parts
    ]
    return [one[:4] for one in walk.walk(walk.first_contacts(contacts), detector.steps)]


def digest(alarms: Iterable[tuple[Any, int, int, int]]) -> str:
    """One hash for a set of (subject, time, score, contacts)."""
    return hashlib.sha256("\n".join(repr(one) for one in sorted(alarms)).encode()).hexdigest()


AKVORADO = """
    TimeReceived DateTime, SamplingRate UInt64, ExporterAddress LowCardinality(IPv6), SrcAddr IPv6, DstAddr IPv6,
    SrcPort UInt16, DstPort UInt16, Proto UInt32, Packets UInt64, Bytes UInt64, ForwardingStatus UInt32"""


class Chdb:
    """ClickHouse's engine without a server, with a table as Akvorado makes it."""

    def __init__(self) -> None:
        self._session = chdb_session.Session()
        self._session.query("SET allow_suspicious_low_cardinality_types = 1")  # as Akvorado does for ExporterAddress
        self.flows = ""

    def texts(self, sql: str) -> list[list[str]]:
        return [line.split("\t") for line in str(self._session.query(sql, "TabSeparated")).splitlines()]

    def rows(self, sql: str) -> list[tuple[int, ...]]:
        return [tuple(map(int, row)) for row in self.texts(sql)]

    def fill(self, some: Flows, file: Path, flags: bool = True) -> None:
        """Whole seconds are all that Akvorado has."""
        self.flows = ""
        self._session.query("DROP TABLE IF EXISTS flows")
        self._session.query(f"CREATE TABLE flows ({AKVORADO}{', TCPFlags UInt16' if flags else ''}) ENGINE = Memory")
        lines = []
        for row in range(len(some)):
            ends = [
                f"{int(high):016x}{int(low):016x}"
                for high, low in ((some.src_hi[row], some.src_lo[row]), (some.dst_hi[row], some.dst_lo[row]))
            ]
            source, target = (":".join(end[at : at + 4] for at in range(0, 32, 4)) for end in ends)
            line = [int(some.ts_ms[row]) // 1000, some.sampling, "::", source, target, some.sport[row], some.dport[row]]
            line += [some.proto[row], some.packets[row], some.octets[row], some.forwarding[row]]
            lines.append("\t".join(map(str, [*line, some.flags[row]] if flags else line)))
        file.write_text("\n".join(lines) + "\n" if lines else "")
        if lines:
            structure = AKVORADO + (", TCPFlags UInt16" if flags else "")
            self._session.query(f"INSERT INTO flows SELECT * FROM file('{file}', TSV, '{structure}')")
        self.flows = akvorado_flows("flows", WINDOW, POOLS, PORTS, flags)


@pytest.fixture(scope="module")
def clickhouse() -> Chdb:
    return Chdb()


def in_duckdb(some: Flows, name: str) -> list[tuple[Any, int, int, int]]:
    with DuckDB() as engine:
        engine.add(0, some)
        return queries.walked(engine, DETECTORS[name])[0]


def of(found: Found, name: str) -> set[str]:
    return {one.alarm.subject for one in found.suspects if one.alarm.detector == name}


def run(some: Flows, **about: Any) -> Found:
    """All flow detectors over a chunk."""
    with DuckDB() as engine:
        engine.add(0, some)
        facts = queries.facts_of(engine) + Facts(len(some), some.sampling, some.flags_known)
        return of_flows(engine, facts, DETECTORS, replace(NETWORK, **about), {})


_HOSTS = ["198.18.0.1", "198.18.0.2", "2001:db8:0:7::9", "203.0.113.9"]
_TARGETS = [f"240.0.0.{number}" for number in range(1, 60)] + [f"2001:db8:8000:{number}::25" for number in range(20)]


def drawn(seed: int, rows: int) -> Flows:
    """Rows of a few hosts, each with a temper of its own, in which pieces, ties and odd flags and states are common."""
    chance = random.Random(seed)
    silent = {host: chance.choice((0.05, 0.4, 0.95)) for host in _HOSTS}
    made, status = [], []
    for _ in range(rows):
        host = chance.choice(_HOSTS)
        flags = SYN if chance.random() < silent[host] else chance.choice((WHOLE, WHOLE, WHOLE, 0x10, 0xC2, 0x12, 0))
        port = chance.choice((25, 25, 445, 139, 80))
        size = (chance.choice((1, 12, 13, 40)), chance.choice((60, 1499, 1500, 30_000)))
        made.append((chance.randrange(3600) * 1000, host, chance.choice(_TARGETS), port, flags, *size))
        status.append(chance.choice((0, 0, 0, 64, 127, 128, 191, 192, 255)))
    return flows(made, forwarding=np.array(status, dtype="u1"))


def test_alarms_equal_by_hash_on_duckdb_chdb_and_plain_python(clickhouse: Chdb, tmp_path: Path) -> None:
    seen = Counter[str]()

    @given(st.integers(0, 2**32), st.integers(0, 400))
    @settings(max_examples=8, deadline=None)
    @example(1, 400)
    def equal(seed: int, rows: int) -> None:
        some = drawn(seed, rows)
        own = some.where(np.array([bool(POOLS.kind(int(high or low))) for high, low in sources(some)], dtype=bool))
        clickhouse.fill(some, tmp_path / "rows.tsv")
        for name in FLOW_DETECTORS:
            alarms = plain(some, name)
            seen[name] += len(alarms)
            assert digest(in_duckdb(own, name)) == digest(alarms)
            assert digest(queries.walked(clickhouse, DETECTORS[name])[0]) == digest(alarms)

    equal()
    assert all(seen[name] for name in FLOW_DETECTORS), seen  # equal is not empty


def test_alarms_of_synthetic_flows_equal_by_hash_on_duckdb_chdb_and_plain_python(
    clickhouse: Chdb, tmp_path: Path
) -> None:
    whole = joined(Synthetic(seed=7, flows=30_000, population=Population().scaled(0.04)).chunks())
    whole = whole.where(np.isin(whole.dport, list(PORTS)) & (whole.proto == 6))
    whole = replace(whole, ts_ms=whole.ts_ms // 1000 * 1000)
    clickhouse.fill(whole, tmp_path / "rows.tsv")
    for name in FLOW_DETECTORS:
        expected = plain(whole, name)
        assert expected
        assert digest(in_duckdb(whole, name)) == digest(expected)
        assert digest(queries.walked(clickhouse, DETECTORS[name])[0]) == digest(expected)


@pytest.fixture(scope="module")
def hour() -> Iterator[tuple[Synthetic, Found, Facts]]:
    """The whole labelled population of the generator, out of a file of nfcapd."""
    made = Synthetic(seed=1, flows=620_000)
    with _file(made.chunks()) as path, DuckDB() as engine:
        facts, silences = load(engine, [str(path)], POOLS, PORTS, WINDOW)
        assert not silences
        yield made, of_flows(engine, facts, DETECTORS, NETWORK, {}), facts


@contextmanager
def _file(chunks: Iterable[Flows], **exporter: Any) -> Iterator[Path]:
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "nfcapd.202601010000"
        write_nfcapd(path, chunks, (Exporter(**{"sampling": 1} | exporter),))
        yield path


def labelled(made: Synthetic, kind: str) -> set[str]:
    return {address_of(key_of(address)) for address in made.labels[kind]}


def test_d2_finds_all_open_and_blocked_bots_and_no_mail_server(hour: tuple[Synthetic, Found, Facts]) -> None:
    made, found, _facts = hour
    alarmed = of(found, "D2")
    assert alarmed >= labelled(made, "open_bot") | labelled(made, "blocked_bot")
    assert not alarmed & (labelled(made, "mail_server") | labelled(made, "misconfigured"))


def test_d4_finds_at_least_199_of_200_worms_and_no_p2p_host(hour: tuple[Synthetic, Found, Facts]) -> None:
    made, found, _facts = hour
    assert len(labelled(made, "worm")) == 200
    assert len(of(found, "D4") & labelled(made, "worm")) >= 199
    assert not of(found, "D4") & labelled(made, "p2p")


def test_rates_of_the_synthetic_hour(hour: tuple[Synthetic, Found, Facts]) -> None:
    """Shares found of each label; of another model they would be others."""
    made, found, _facts = hour
    rates = {
        name: {kind: len(of(found, name) & labelled(made, kind)) / len(made.labels[kind]) for kind in made.labels}
        for name in FLOW_DETECTORS
    }
    assert rates["D1"]["open_bot"] == rates["D1"]["blocked_bot"] == 1
    assert rates["D1"]["low_rate_bot"] > 0.7
    assert rates["D1"]["mail_server"] > 0.5  # why D1 looks at residential pools only
    assert rates["D3"]["blocked_bot"] == 1
    assert rates["D3"]["open_bot"] < 0.05
    for name in FLOW_DETECTORS:
        assert rates[name]["misconfigured"] == rates[name]["p2p"] == 0
    everyone = {subject for name in FLOW_DETECTORS for subject in of(found, name)}
    bad = {address for kind in ("open_bot", "blocked_bot", "low_rate_bot", "worm") for address in labelled(made, kind)}
    assert everyone <= bad | labelled(made, "mail_server")  # nobody of the 125,000 normal ones


def test_d1_looks_at_residential_pools_only() -> None:
    business = Pools([("business", ["198.18.0.0/15", "2001:db8::/33"])])
    bots = flows([(second * 1000, "198.18.0.1", f"240.0.0.{second}", 25, SYN, 1, 60) for second in range(1, 30)])
    assert of(run(bots), "D1") == {"198.18.0.1"}
    found = run(bots, pools=business)
    assert not of(found, "D1")
    assert of(found, "D2") == of(found, "D3") == {"198.18.0.1"}


def test_an_exempt_subscriber_is_told_and_is_no_alarm() -> None:
    bots = flows([(second * 1000, "198.18.0.1", f"240.0.0.{second}", 25, SYN, 1, 60) for second in range(1, 30)])
    found = run(bots, never=NeverList([Protected("198.18.0.0/30", "exempt: Example GmbH")]))
    assert not found.suspects
    assert {one.detector for one in found.silences} == {"D1", "D2", "D3"}
    assert all("exempt: Example GmbH" in one.reason for one in found.silences)


@pytest.mark.parametrize("count", [9, 10])
def test_d3_in_sql_alarms_at_10_syn_only_contacts_and_not_at_9(clickhouse: Chdb, tmp_path: Path, count: int) -> None:
    some = flows([(second * 1000, "198.18.0.1", f"240.0.0.{second}", 25, SYN, 1, 60) for second in range(count)])
    clickhouse.fill(some, tmp_path / "rows.tsv")
    assert len(in_duckdb(some, "D3")) == len(queries.walked(clickhouse, DETECTORS["D3"])[0]) == count - 9


def test_retries_to_one_dead_smarthost_alarm_nothing_in_any_detector() -> None:
    retries = flows([(second * 1000, "198.18.0.1", "240.0.0.25", 25, SYN, 3, 180) for second in range(3000)])
    assert not run(retries).suspects


def test_pieces_of_one_session_are_one_contact_that_did_not_fail() -> None:
    """The active timeout cuts sessions: the first piece is short, and so is the last; none of them fails."""
    rows = []
    for second in range(1, 60):
        target = f"240.0.0.{second}"
        rows += [(second * 1000, "198.18.0.1", target, 25, SYN | 0x18, 8, 700)]
        rows += [(second * 1000 + 60_000, "198.18.0.1", target, 25, 0x18, 50, 40_000)]
        rows += [(second * 1000 + 120_000, "198.18.0.1", target, 25, 0x11, 2, 104)]
    assert not of(run(flows(rows)), "D2")
    tails = [row for row in rows if not row[4] & SYN]  # the window begins behind the SYNs
    assert not of(run(flows(tails)), "D2")


def test_a_worm_lowers_the_threshold_of_the_same_host_for_72_hours() -> None:
    scan = [(second * 1000, "198.18.0.1", f"240.1.0.{second}", 445, SYN, 1, 60) for second in range(1, 15)]
    mail = [(60_000 + second * 1000, "198.18.0.1", f"240.0.0.{second}", 25, SYN, 1, 60) for second in range(8)]
    other = [(when, "198.18.0.2", *rest) for when, _source, *rest in mail]
    found = run(flows(scan + mail + other))  # type: ignore[arg-type]
    assert of(found, "D4") == of(found, "D3") == {"198.18.0.1"}
    before = [(when, *rest) for when, *rest in mail]
    late = [(when + 1_800_000, *rest) for when, *rest in scan]
    assert not of(run(flows(before + late)), "D3")  # type: ignore[arg-type]


def test_keys_beyond_the_signed_numbers_are_keys_too() -> None:
    """fc00::/7 has the upper bit: worms among them are asked for by their keys."""
    pools = Pools([("dynamic", ["fd00:1::/32"])])
    host = "fd00:1:0:7::9"
    scan = [(second * 1000, host, f"240.1.0.{second}", 445, SYN, 1, 60) for second in range(1, 15)]
    mail = [(60_000 + second * 1000, host, f"240.0.0.{second}", 25, SYN, 1, 60) for second in range(8)]
    found = run(flows(scan + mail), pools=pools)
    assert of(found, "D4") == of(found, "D3") == {"fd00:1:0:7::"}


def test_an_alarm_reads_as_a_sentence() -> None:
    rows = [(second * 13_000, "198.18.0.9", f"240.0.0.{second}", 25, SYN, 1, 60) for second in range(1, 19)]
    rows += [(second * 13_000, "2001:db8:0:7::1", f"240.0.0.{second}", 25, SYN, 1, 60) for second in range(1, 19)]
    found = run(flows(rows)).suspects
    first, second = sorted((one.alarm for one in found if one.alarm.detector == "D3"), key=lambda one: one.subject)
    assert first.evidence == (
        (
            "2026-01-01 00:00:13 UTC: 198.18.0.9 tried port 25 of 10 servers within 117 seconds; 10 did not answer, "
            "or a filter stopped it"
        ),
        "To: 240.0.0.1, 240.0.0.2, 240.0.0.3, 240.0.0.4, 240.0.0.5 and 5 more",
    )
    assert second.subject == "2001:db8:0:7::"
    assert "2001:db8:0:7::/64 tried port 25" in second.evidence[0]


def test_nobody_of_a_real_office_is_alarmed(sample_data: Path) -> None:
    """Zeek's connections of M57-Patents (2009), the originators' halves: NetBIOS, the Web, mail to one relay."""
    seen = {"S": 0x02, "H": 0x12, "A": 0x10, "D": 0x18, "F": 0x11, "R": 0x04}  # Zeek, base/protocols/conn: history
    path = sample_data / "flows" / "vast-zeek" / "vast" / "integration" / "data" / "zeek" / "conn.log.gz"
    with gzip.open(path, "rt") as lines:
        table = [line.rstrip("\n").split("\t") for line in lines if not line.startswith("#")]
    rows = []
    for row in table:
        if row[6] == "tcp":
            flags = functools.reduce(operator.or_, (seen.get(letter, 0) for letter in row[14]), 0)
            time = round(float(row[0]) * 1000) - BEGIN
            rows.append((time, row[2], row[4], int(row[5]), flags, int(row[15]), int(row[16])))
    office = Pools([("dynamic", ["192.168.1.0/24"])])
    some = flows(rows).where(np.array([row[3] in PORTS for row in rows]))
    assert sum(row[3] == 25 for row in rows) == 21
    assert not run(some, pools=office).suspects
    with DuckDB() as engine:  # as it would be if the Web were one of the watched ports
        engine.add(0, flows(rows))
        web = replace(DETECTORS["D4"], ports=(80, 443))
        assert queries.walked(engine, web) == ([], [])
        assert len(queries.contacts_of(engine, web, [key_of("192.168.1.104")])) > 80


# What switches detectors off.


def off(found: Found) -> dict[str, str]:
    return {one.detector: f"{one.reason}; {one.mend}" for one in found.silences}


BOTS = [(second * 1000, "198.18.0.1", f"240.0.0.{second}", 25, SYN, 1, 60) for second in range(1, 60)]


def test_sampling_above_1_disables_d2_d3_and_d4_with_a_warning() -> None:
    with _file([flows(BOTS)], sampling=1000) as path, DuckDB() as engine:
        facts, silences = load(engine, [str(path)], POOLS, PORTS, WINDOW)
        found = of_flows(engine, facts, DETECTORS, NETWORK, {})
    assert not silences
    assert {one.alarm.detector for one in found.suspects} == {"D1"}  # distinct destinations remain
    assert off(found).keys() == {"D2", "D3", "D4"}
    assert all("sampled, 1 of 1000" in text for text in off(found).values())


def test_sampling_that_no_exporter_tells_is_seen_in_the_flows() -> None:
    """One packet of each flow: a mail server's sessions look like tries, and it would be alarmed."""
    rows = []
    for second in range(1, 200):
        flags = SYN if second % 15 == 0 else 0x18
        rows.append((second * 1000, "198.18.0.1", f"240.0.{second // 100}.{second % 100}", 25, flags, 1, 800))
    with _file([flows(rows)], sampling=None) as path, DuckDB() as engine:
        facts, _silences = load(engine, [str(path)], POOLS, PORTS, WINDOW)
        assert facts.sampling == 0
        found = of_flows(engine, facts, DETECTORS, NETWORK, {})
    assert off(found).keys() == {"D2", "D3", "D4"}
    assert all("few packets without SYN" in text for text in off(found).values())
    assert not of(found, "D2")


def test_sessions_that_last_for_hours_are_no_sampling() -> None:
    """Remote desktops: a record behind each active timeout, without SYN and with many packets."""
    rows = [(minute * 60_000, "198.18.0.1", "240.0.0.1", 3389, 0x18, 900, 80_000) for minute in range(60)]
    found = run(flows(BOTS + rows + rows + rows))
    assert not found.silences
    assert of(found, "D3") == {"198.18.0.1"}


def test_flags_that_one_of_many_exporters_leaves_out_are_seen_in_the_flows() -> None:
    rows = [(when, "198.18.0.3", *rest[:2], 0, *rest[3:]) for when, _source, *rest in BOTS]
    told = off(run(flows([*BOTS, *rows])))  # type: ignore[list-item]
    assert told.keys() == {"D2", "D3", "D4"}
    assert all("the flows of 1 of 2 subscribers" in text and "no TCP flags" in text for text in told.values())


@pytest.mark.parametrize("flags", [0, 0x10])
def test_one_subscriber_cannot_blind_the_detectors_with_odd_packets(flags: int) -> None:
    hosts = [f"198.18.0.{number}" for number in range(1, 8)]
    rows = [(when, host, *rest) for host in hosts for when, _source, *rest in BOTS[:12]]
    flood = [
        (number, "198.18.1.1", f"240.9.{number // 250}.{number % 250}", 25, flags, 1, 40) for number in range(3000)
    ]
    with _file([flows([*rows, *flood])]) as path, DuckDB() as engine:  # type: ignore[list-item]
        facts, _silences = load(engine, [str(path)], POOLS, PORTS, WINDOW)
        found = of_flows(engine, facts, DETECTORS, NETWORK, {})
    assert facts.flags_known == bool(flags)  # as the file alone looks
    assert not found.silences
    assert of(found, "D3") == set(hosts)


def test_flags_of_the_first_packet_only_are_seen_in_the_flows() -> None:
    rows = [(second * 1000, "198.18.0.1", f"240.0.0.{second}", 25, SYN, 40, 30_000) for second in range(1, 100)]
    found = run(flows(rows))
    assert off(found).keys() == {"D2", "D3", "D4"}
    assert all("flags of the first packet only" in text for text in off(found).values())
    assert {one.alarm.detector for one in found.suspects} == {"D1"}


def test_flows_without_tcp_flags_are_refused_clearly() -> None:
    rows = [(*row[:4], 0, *row[5:]) for row in BOTS]
    with _file([flows(rows)]) as path, DuckDB() as engine:  # type: ignore[arg-type]
        facts, _silences = load(engine, [str(path)], POOLS, PORTS, WINDOW)
        found = of_flows(engine, facts, DETECTORS, NETWORK, {})
    assert off(found).keys() == {"D2", "D3", "D4"}
    assert all("no TCP flags" in text and "tcpControlBits" in text for text in off(found).values())
    assert {one.alarm.detector for one in found.suspects} == {"D1"}


def test_missing_tcpflags_of_akvorado_are_refused_clearly(clickhouse: Chdb, tmp_path: Path) -> None:
    clickhouse.fill(flows(BOTS), tmp_path / "rows.tsv", flags=False)
    made, clickhouse.flows = clickhouse.flows, ""
    facts = akvorado_facts(clickhouse, "flows", WINDOW)
    clickhouse.flows = made
    found = of_flows(clickhouse, facts + queries.facts_of(clickhouse), DETECTORS, NETWORK, {})
    assert off(found).keys() == {"D2", "D3", "D4"}
    assert all("TCPFlags" in text and "schema.enabled" in text for text in off(found).values())
    assert {one.alarm.detector for one in found.suspects} == {"D1"}


def test_an_exporter_behind_the_filter_is_told() -> None:
    delivered = [(*row[:4], WHOLE, 30, 9000) for row in BOTS[:5]]
    found = run(flows(delivered), port_25_blocked=True)  # type: ignore[arg-type]
    assert "behind the filter" in off(found)["D3"]
    assert "forwardingStatus" in off(found)["D3"]
    assert not run(flows(BOTS), port_25_blocked=True).silences
    dropped = np.full(len(BOTS), 128, dtype="u1")  # a router that says what it dropped
    whole = flows([(*row[:4], WHOLE, 30, 9000) for row in BOTS], forwarding=dropped)  # type: ignore[misc]
    found = run(whole, port_25_blocked=True)
    assert not found.silences
    assert of(found, "D3") == {"198.18.0.1"}


@pytest.mark.parametrize(
    ("shift", "said"),
    [
        ([10 * 86_400_000] * 59, "flows of the future, 2026-01-11 00:00:59 UTC"),
        ([0] * 58 + [2**62], "flows of the future"),
        ([0] * 58 + [-BEGIN], "clock jumps, from 1970-01-01 00:00:59 UTC"),
        ([0] * 58 + [3 * -86_400_000], "clock jumps, from 2025-12-29"),
    ],
)
def test_a_file_whose_clock_cannot_be_right_is_no_alarm(shift: list[int], said: str) -> None:
    some = flows(BOTS)
    some = replace(some, ts_ms=some.ts_ms + np.array(shift, dtype="i8"))
    with _file([some]) as path, DuckDB() as engine:
        facts, silences = load(engine, [str(path)], POOLS, PORTS, WINDOW)
        assert not of_flows(engine, facts, DETECTORS, NETWORK, {}).suspects
        assert not engine.rows("SELECT src FROM isp_flows")
    assert said in silences[0].reason
    assert str(path) in silences[0].reason


def test_a_truncated_file_is_left_out_and_told_and_the_others_count() -> None:
    with _file([flows(BOTS)]) as path, DuckDB() as engine:
        cut = path.parent / "nfcapd.202601010005"
        cut.write_bytes(path.read_bytes()[:-200])
        foreign = path.parent / "nfcapd.202601010010"
        foreign.write_bytes(b"<html><body>502 Bad Gateway</body></html>" * 20)
        absent = path.parent / "nfcapd.202601010015"
        files = [str(cut), str(foreign), str(absent), str(path)]
        facts, silences = load(engine, files, POOLS, PORTS, WINDOW)
        assert [name for name in files[:3] if not any(name in one.reason for one in silences)] == []
        assert engine.rows("SELECT DISTINCT file FROM isp_flows") == [(3,)]
        assert of(of_flows(engine, facts, DETECTORS, NETWORK, {}), "D3") == {"198.18.0.1"}


def test_files_of_another_time_are_told() -> None:
    with _file([flows(BOTS)]) as path, DuckDB() as engine:
        _facts, silences = load(
            engine, [str(path)], POOLS, PORTS, Window(BEGIN + HOUR, BEGIN + 2 * HOUR, BEGIN + 2 * HOUR)
        )
    assert (
        "1 of 1 flow files hold nothing of the window, which is from 2026-01-01 01:00:00 UTC to" in silences[0].reason
    )


def test_a_database_that_disagrees_with_the_plain_walk_alarms_nobody() -> None:
    class Wrong(DuckDB):
        def rows(self, sql: str) -> list[tuple[int, ...]]:
            found = super().rows(sql)
            return [(*row[:6], row[6] + 1, row[7]) for row in found] if "last" in sql else found

    with Wrong() as engine:
        engine.add(0, flows(BOTS))
        facts = queries.facts_of(engine)
        with pytest.raises(EngineError, match="do not agree, so nothing is alarmed"):
            of_flows(engine, facts, DETECTORS, NETWORK, {})


# ClickHouse over HTTP: its engine behind a server of ours.


@contextmanager
def served(answer: Any, missing: int = 0, chunked: bool = False) -> Iterator[str]:
    """An HTTP server on loopback; `answer` gives status and body for the headers and the query.

    `missing` octets are announced and never sent; `chunked` announces chunks, and none comes.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            status, text = answer(self.headers, body)
            self.send_response(status)
            if status == 302:
                self.send_header("Location", text)
            self.send_header("Content-Length", str(len(text.encode()) + missing))
            if chunked:
                self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()


def test_clickhouse_over_http_gives_the_same_alarms(clickhouse: Chdb, tmp_path: Path) -> None:
    some = flows(BOTS)
    clickhouse.fill(some, tmp_path / "rows.tsv")

    def answer(headers: Any, sql: str) -> tuple[int, str]:
        if (headers["X-ClickHouse-User"], headers["X-ClickHouse-Key"]) != ("reader", "secret"):
            return 403, "Code: 516. DB::Exception: reader: Authentication failed"
        return 200, "".join("\t".join(row) + "\n" for row in clickhouse.texts(sql))

    with served(answer) as url:
        engine = ClickHouse(url, "reader", "secret", "flows", WINDOW, POOLS, PORTS)
        assert engine.facts == Facts(len(BOTS), 1, True, engine.facts.flags_mend)
        for name in FLOW_DETECTORS:
            assert digest(queries.walked(engine, DETECTORS[name])[0]) == digest(plain(some, name))
        with pytest.raises(EngineError, match="answers 403: Code: 516") as refused:
            ClickHouse(url, "reader", "guess", "flows", WINDOW, POOLS, PORTS)
        assert "guess" not in str(refused.value)
        with pytest.raises(EngineError, match="future"):
            ClickHouse(url, "reader", "secret", "flows", Window(BEGIN - HOUR, BEGIN, BEGIN - HOUR), POOLS, PORTS)
        with pytest.raises(EngineError, match=r"other lacks TimeReceived, SamplingRate, .*raw table of Akvorado"):
            ClickHouse(url, "reader", "secret", "other", WINDOW, POOLS, PORTS)


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (200, "<html>Welcome</html>", "lacks TimeReceived"),
        (500, "Code: 60. DB::Exception: Table default.flows does not exist", "Code: 60"),
        (302, "http://127.0.0.1:1/", "answers 302"),
        (599, "no status of any list", "answers 599: no status"),
    ],
)
def test_an_answer_that_is_none_of_clickhouse_is_an_error(status: int, body: str, said: str) -> None:
    with (
        served(lambda _headers, _sql: (status, body)) as url,
        pytest.raises(EngineError, match=said) as refused,
    ):
        ClickHouse(url, "reader", "secret", "flows", WINDOW, POOLS, PORTS)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8123",
        "http://reader:secret@127.0.0.1:8123/",
        "http://127.0.0.1:8123/?password=secret x",
        "file:///etc/passwd",
        "http://[1",
    ],
)
def test_an_address_of_clickhouse_is_one_without_a_password(url: str) -> None:
    with pytest.raises(EngineError, match="write its address as https") as refused:
        ClickHouse(url, "", "", "flows", WINDOW, POOLS, PORTS)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("user", "password"), [("reader", "secret\n"), ("secret\r\nX: y", ""), ("reader", "secr\u00e9t")]
)
def test_a_password_that_no_header_can_hold_is_not_shown(user: str, password: str) -> None:
    with pytest.raises(EngineError, match="does one end in a line break") as refused:
        ClickHouse("http://127.0.0.1:1/", user, password, "flows", WINDOW, POOLS, PORTS)
    assert "secr" not in str(refused.value)


def test_an_answer_that_is_cut_off_is_an_error() -> None:
    with (
        served(lambda _headers, _sql: (200, "TimeReceived\n"), missing=10) as url,
        pytest.raises(EngineError, match="IncompleteRead"),
    ):
        ClickHouse(url, "reader", "secret", "flows", WINDOW, POOLS, PORTS)
    with (
        served(lambda _headers, _sql: (500, "Code: 60"), chunked=True) as url,
        pytest.raises(EngineError, match="answers 500: no reason"),
    ):
        ClickHouse(url, "reader", "secret", "flows", WINDOW, POOLS, PORTS)


def test_nobody_answers() -> None:
    with pytest.raises(EngineError, match="Connection refused"):
        ClickHouse("http://127.0.0.1:1/", "", "", "flows", WINDOW, POOLS, PORTS)


# Keys, pools, figures.


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6, network="2000::/3"), st.ip_addresses(network="fc00::/7")))
def test_a_key_is_an_address_or_its_64(address: Any) -> None:
    key = key_of(str(address))
    again = address_of(key)
    assert key_of(again) == key
    assert again == (str(address) if address.version == 4 else str(type(address)(int(address) >> 64 << 64)))


def test_a_forged_source_is_not_the_subscriber_whose_key_it_has(clickhouse: Chdb, tmp_path: Path) -> None:
    """0:ffff:c612:1::/64, which nobody has (RFC 4291), has in its upper half what 198.18.0.1 has in its lower one."""
    real = flows([(row * 1000, "198.18.0.1", f"240.0.0.{row}", 25, SYN, 1, 60) for row in range(1, 21)])
    forged = replace(real, src_hi=real.src_lo, src_lo=real.src_hi + np.uint64(1))
    assert key_of("0:ffff:c612:1::1") == 0
    assert not keys(forged.src_hi, forged.src_lo).any()
    assert not run(forged).suspects
    for some, count in ((real, 20), (forged, 0)):
        clickhouse.fill(some, tmp_path / "rows.tsv")
        assert clickhouse.rows(f"WITH {clickhouse.flows} SELECT count(*) FROM isp_flows") == [(count,)]


def test_pools_hold_their_own_ends_and_nothing_else() -> None:
    pools = Pools([("dynamic", ["198.51.100.64/26", "2001:db8:100::/40"]), ("business", ["198.51.100.128/26"])])
    for address, kind in (
        ("198.51.100.64", "dynamic"),
        ("198.51.100.127", "dynamic"),
        ("198.51.100.128", "business"),
        ("198.51.100.192", ""),
        ("198.51.100.63", ""),
        ("2001:db8:100::1", "dynamic"),
        ("2001:db8:1ff:ffff:ffff::", "dynamic"),
        ("2001:db8:200::", ""),
        ("::ffff:198.51.100.65", "dynamic"),
    ):
        assert pools.kind(key_of(address)) == kind, address
    assert len(pools.merged()) == 2  # neighbours are one range for a database
    with pytest.raises(ValueError, match="in two pools"):
        Pools([("dynamic", ["198.51.100.0/24"]), ("business", ["198.51.100.128/25"])])


def test_figures_of_an_operator() -> None:
    problems = Problems()
    read = read_detectors(
        {"D2": {"infected": 0.6}, "D4": {"ports": [445, 445]}, "D5": {"enabled": False}}, ("detectors",), problems
    )
    assert not problems
    assert (read["D2"].ratio, read["D4"].ports, read["D5"].enabled) == ((0.1, 0.6), (445,), False)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"D9": {}}, "unknown key 'D9'"),
        ({"D2": {"benign": 0.7}}, "shares of 0.7 and 0.5"),
        ({"D2": {"benign": "0.1"}}, "'0.1' is a text"),
        ({"D2": {"benign_rate": 2}}, "D2 has no rate to test"),
        ({"D1": {"benign_rate": 20}}, "rates of 20.0 and 20"),
        ({"D2": {"ports": [25]}}, "D2 has no ports of its own"),
        ({"D4": {"ports": [25]}}, "holds 25"),
        ({"D4": {"ports": "445"}}, "not a list of ports"),
        ({"D4": {"ports": [0]}}, "what is no port"),
        ({"D3": {"enabled": "no"}}, "not true or false"),
        ({"D3": {"false_alarms_a_day": 2_000_000}}, "allow more than 0 false alarms a day"),
        ([], None),
        (["D2"], "not a mapping"),
    ],
)
def test_figures_that_cannot_be_are_told_with_their_place(data: object, said: str | None) -> None:
    problems = Problems()
    read_detectors(data, ("detectors",), problems)
    assert bool(problems) == bool(said)
    assert said is None or said in problems[0].reason


def test_what_is_switched_off_by_an_operator_does_not_run() -> None:
    usable, silences = fit({"D3": replace(DETECTORS["D3"], enabled=False)}, Facts(flows=10), True)
    assert not usable
    assert not silences


def test_the_flows_of_the_tests_are_as_the_reader_gives_them() -> None:
    some = flows([(0, "198.18.0.1", "2001:db8:8000::25", 25, SYN, 1, 60)])
    assert int(some.src_lo[0]) == V4_MAPPED | 0xC6120001
    assert int(some.dst_hi[0]) == 0x2001_0DB8_8000_0000
    assert Counter(len(column) for column in some.columns().values()) == {1: 12}
