# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Flow files: our reader beside Debian's nfdump, and from the files to the alarms of D1 to D3.

python -m tests.bench.signals_flows reader|nfdump|detect FILE...: measure one of them in a process of its own.
"""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import duckdb

from ansible_collections.isp.hardening.plugins.module_utils.signals import engines, nfcapd, suspects
from ansible_collections.isp.hardening.plugins.module_utils.signals.detectors import DETECTORS, MAIL_PORT, Pools
from ansible_collections.isp.hardening.plugins.module_utils.signals.flows import Flows, read_flows
from ansible_collections.isp.hardening.plugins.module_utils.signals.limits import NeverList
from tests.signals.flows import BEGIN, HOUR, LZ4, PLAIN, Population, Synthetic, write_nfcapd

ROOT = Path(__file__).parents[2]
FLOWS, LIMIT_WALL, LIMIT_MEMORY, OF_NFDUMP = 50_000_000, 15.0, 512.0, 5.0
PEER_FLOWS = 2_000_000  # nfdump needs two minutes of a processor for 50 million, three times over
FILES = 12  # nfcapd's five minutes in an hour
SUBSCRIBERS = ("198.18.0.0/15", "2001:db8::/47")
# As engines.py has it, where a subscriber is one number: an IPv4 address, or the upper half of an IPv6 address.
_TABLE = (
    "ts_ms BIGINT, src UBIGINT, dst UBIGINT, dport USMALLINT, proto UTINYINT, flags UTINYINT, packets UBIGINT, "
    "octets UBIGINT, forwarding UTINYINT"
)
# As nfdump's output_pipe.c prints them.
_PIPE = "af first last proto s0 s1 s2 s3 sport d0 d1 d2 d3 dport sas das input output flags tos packets octets"
_HEAD = """
### Flow files

Synthetic flows of an hour of {subscribers:,} subscribers in files of nfcapd, every eighth flow IPv6. Each reader fills
the same table of DuckDB, that of the detectors but with all flows, on one thread: ours through arrays, nfdump {version}
through `-o pipe` and DuckDB's CSV reader. CPU seconds are those of all processes of one pass, the best of three. Limit:
{times:.0f} times as many rows a CPU second as nfdump, and equal sums of every column.
"""
_DETECT = """
From the files (LZ4, one every five minutes) to the alarms of D1 to D3, without a never-list; wall seconds on {cores}
cores. Limit at {flows:,} flows: {wall:.0f} s and {memory:.0f} MB, and no more than linear growth. The bots are those
that the generator put there ({population}); all other suspects are told beside them.
"""


@dataclass(frozen=True, slots=True)
class Pass:
    """CPU and wall seconds, peak memory in MB, and what came out."""

    cpu: float
    wall: float
    memory: float
    found: Any


def section(flows: int = FLOWS) -> str:
    """The part of the page."""
    with tempfile.TemporaryDirectory(prefix="isp-bench-") as directory:
        return "\n".join([*_reading(Path(directory), min(flows, PEER_FLOWS)), *_detecting(Path(directory), flows)])


def _reading(directory: Path, flows: int) -> Iterator[str]:
    version = _version()
    yield _HEAD.format(subscribers=Population().subscribers, version=version or "1.7.1", times=OF_NFDUMP)
    if version not in ("1.7.0", "1.7.1"):  # later ones print no pipe
        yield f"Not measured: here is nfdump {version}." if version else "Not measured: nfdump is not here."
        return
    yield "| File | Flows | Reader | CPU-s | Million rows a CPU-s | Times nfdump | Sums | Within the limit |"
    yield "|---|--:|---|--:|--:|--:|---|---|"
    for name, compression, v4_only in (
        ("LZ4, IPv4 and IPv6", LZ4, False),
        ("LZ4, IPv4 alone", LZ4, True),
        ("not compressed, IPv4 and IPv6", PLAIN, False),
    ):
        file = directory / "nfcapd.202601010000"
        rows = write_nfcapd(file, _chunks(flows, v4_only), compression=compression)
        peer, ours = (
            min((_run(what, file) for _ in range(3)), key=lambda one: one.cpu) for what in ("nfdump", "reader")
        )
        times = peer.cpu / ours.cpu
        sums = "equal" if peer.found == ours.found else "**not equal**"
        kept = "yes" if times >= OF_NFDUMP and sums == "equal" else "**no**"
        yield f"| {name} | {rows:,} | nfdump | {peer.cpu:.2f} | {rows / peer.cpu / 1e6:.2f} | 1 | – | – |"
        yield f"| | | ours | {ours.cpu:.2f} | {rows / ours.cpu / 1e6:.2f} | {times:.1f} | {sums} | {kept} |"
        file.unlink()


def _version() -> str:
    if not shutil.which("nfdump"):
        return ""
    said = subprocess.run(["nfdump", "-V"], check=True, capture_output=True, text=True).stdout
    found = re.search(r"Version: \D*([\d.]+\d)", said)
    return found[1] if found else "of an unknown version"


def _chunks(flows: int, v4_only: bool) -> Iterator[Flows]:
    for chunk in Synthetic(seed=1, flows=flows).chunks():
        yield chunk.where(chunk.src_hi | chunk.dst_hi == 0) if v4_only else chunk


def _detecting(directory: Path, flows: int) -> Iterator[str]:
    population = Population().scaled(min(1.0, flows / 10 / 1_000_000))  # a small run has a small network
    bots = ("open_bot", "blocked_bot", "low_rate_bot")
    told = ", ".join(f"{getattr(population, kind)} {_words(kind)}" for kind in bots)
    cores = len(os.sched_getaffinity(0))
    yield _DETECT.format(flows=FLOWS, wall=LIMIT_WALL, memory=LIMIT_MEMORY, cores=cores, population=told)
    yield "| Flows | Wall, s | CPU-s | Peak memory, MB | Alarms | Bots found | Others | Within the limit |"
    yield "|--:|--:|--:|--:|--:|---|---|---|"
    walls = []
    for size in (flows // 10, flows):
        made = Synthetic(seed=1, flows=size, population=population, chunk=max(1 << 13, size // (FILES * 8)))
        files = _hour(directory, made)
        one = min((_run("detect", *files) for _ in range(3)), key=lambda one: one.wall)
        kinds = {address: kind for kind, addresses in made.labels.items() for address in addresses}
        seen = Counter(kinds.get(re.sub(r"::$", "::1", subject), "normal host") for subject in one.found["suspects"])
        found = ", ".join(f"{seen.pop(kind, 0)} {_words(kind)}" for kind in bots)
        others = ", ".join(f"{count} {_words(kind)}" for kind, count in sorted(seen.items()))
        good = one.wall <= LIMIT_WALL and one.memory <= LIMIT_MEMORY
        kept = "–" if size < FLOWS else "yes" if good else "**no**"
        yield (
            f"| {size:,} | {one.wall:.1f} | {one.cpu:.1f} | {one.memory:.0f} | {one.found['alarms']} | {found} "
            f"| {others or 'none'} | {kept} |"
        )
        walls.append(one.wall)
        for file in files:
            file.unlink()
    yield f"\nTen times as many flows take {walls[1] / walls[0]:.1f} times as long; linear growth would be 10."


def _words(kind: str) -> str:
    return f"{kind.replace('_', ' ')}s"


def _hour(directory: Path, made: Synthetic) -> list[Path]:
    """The files that nfcapd would have written in the hour."""
    files = []
    for number, chunks in groupby(enumerate(made.chunks()), key=lambda one: min(one[0] // 8, FILES - 1)):
        files.append(directory / f"nfcapd.20260101{number // 12:02}{number % 12 * 5:02}")
        write_nfcapd(files[-1], (chunk for _, chunk in chunks), compression=LZ4)
    return files


def _run(what: str, *files: Path) -> Pass:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / ".collections"), str(ROOT)])}
    command = [sys.executable, "-m", "tests.bench.signals_flows", what, *map(str, files)]
    return Pass(**json.loads(subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE).stdout))


def _measure(what: str, files: list[str]) -> dict[str, Any]:
    connection = _table()
    began, cpu = time.perf_counter(), _cpu()
    found: Any = None
    if what == "detect":
        found = _detect(files)
    else:
        {"reader": _reader, "nfdump": _nfdump}[what](connection, files)
    wall, cpu = time.perf_counter() - began, _cpu() - cpu
    [peak] = re.findall(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return {"cpu": cpu, "wall": wall, "memory": int(peak) / 1024, "found": found or _sums(connection)}


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _table() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(config={"threads": 1})
    connection.execute(f"CREATE TABLE flows ({_TABLE})")
    return connection


def _sums(connection: duckdb.DuckDBPyConnection) -> list[str]:
    columns = [column.split()[0] for column in _TABLE.split(", ")][:-1]  # pipe has no forwarding status
    [sums] = connection.execute(
        f"SELECT count(*), {', '.join(f'sum({name})' for name in columns)} FROM flows"
    ).fetchall()
    return [str(value) for value in sums]


def _reader(connection: duckdb.DuckDBPyConnection, files: list[str]) -> None:
    for flows in read_flows(files):
        chunk = {name: getattr(flows, name) for name in ("ts_ms", "dport", "proto", "flags", "packets", "octets")}
        chunk |= {"src": engines.keys(flows.src_hi, flows.src_lo), "dst": engines.keys(flows.dst_hi, flows.dst_lo)}
        chunk["forwarding"] = flows.forwarding
        connection.execute("INSERT INTO flows BY NAME SELECT * FROM chunk")
        del chunk


def _nfdump(connection: duckdb.DuckDBPyConnection, files: list[str]) -> None:
    columns = ", ".join(f"{name}: 'UBIGINT'" for name in _PIPE.split())
    for file in files:
        with subprocess.Popen(
            ["nfdump", "-C", "none", "-q", "-r", file, "-o", "pipe"], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            key = "CASE WHEN af = 10 THEN {0}0 << 32 | {0}1 ELSE 281470681743360 | {0}3 END"
            connection.execute(
                f"INSERT INTO flows SELECT first, {key.format('s')}, {key.format('d')}, dport, proto, flags, packets, "
                "octets, 0 "
                f"FROM read_csv('/dev/fd/{process.stdout.fileno()}', delim = '|', header = false, "
                f"auto_detect = false, columns = {{{columns}}})"
            )


def _detect(files: list[str]) -> dict[str, Any]:
    pools = Pools([("dynamic", SUBSCRIBERS)])
    network = suspects.Network(pools, NeverList([]))
    window = engines.Window(BEGIN, BEGIN + HOUR, BEGIN + HOUR)
    with engines.DuckDB() as engine:
        facts, silences = engines.load(engine, files, pools, (MAIL_PORT,), window)
        detectors = {name: DETECTORS[name] for name in ("D1", "D2", "D3")}
        found = suspects.of_flows(engine, facts, detectors, network, {})
    if silences or found.silences:
        raise SystemExit(str([*silences, *found.silences]))
    assert facts.flows == sum(sum(count for _, _, count, _ in nfcapd.survey(file).blocks) - 1 for file in files)
    alarms = [one.alarm for one in found.suspects]
    return {"alarms": len(alarms), "suspects": sorted({alarm.subject for alarm in alarms})}


if __name__ == "__main__":
    json.dump(_measure(sys.argv[1], sys.argv[2:]), sys.stdout)
