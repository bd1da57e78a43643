# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The what-if over many flows and long filters, beside brute force on a sample of the same flows.

python -m tests.bench.signals_impact FILE: measure it in a process of its own, from a file of nfcapd.
"""

from __future__ import annotations

import ipaddress
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ansible_collections.isp.hardening.plugins.module_utils import platforms
from ansible_collections.isp.hardening.plugins.module_utils.difference import Side
from ansible_collections.isp.hardening.plugins.module_utils.signals._impact_judge import Judge, as_recorded
from ansible_collections.isp.hardening.plugins.module_utils.signals.flows import V4_MAPPED, Flows, read_flows
from ansible_collections.isp.hardening.plugins.module_utils.signals.impact import Place, impact
from tests.signals import brute_force
from tests.signals.flows import LZ4, Synthetic, write_nfcapd

ROOT = Path(__file__).parents[2]
FLOWS, RULES, SAMPLE, LIMIT = 50_000_000, 1_000, 2_000, 20.0
_HALF = {4: 0xFFFFFFFF, 6: (1 << 128) - 1}
_HEAD = """
### The what-if

{flows:,} synthetic flows in a file of nfcapd (LZ4), read and sent through two filters of {rules:,} lines for each
family, the second of which also denies port 25, as `filter_impact` does it; limit {limit:.0f} s for 50,000,000 flows.
Brute force is the naive evaluator on {sample:,} of the same flows in the same run; the two must say the same of each.
"""


@dataclass(frozen=True, slots=True)
class Replay:
    """Wall and CPU seconds of the replay, those of reading alone, peak memory in MB, and brute force beside it."""

    flows: int
    wall: float
    cpu: float
    reading: float
    memory: float
    denied: int
    subscribers: int
    brute: float  # CPU seconds a flow
    unlike: int  # flows of the sample of which the two say different things


def section(flows: int = FLOWS, rules: int = RULES, sample: int = SAMPLE) -> str:
    """The part of the page."""
    return "\n".join(_lines(replay(flows, rules, sample), rules, sample))


def _lines(found: Replay, rules: int, sample: int) -> Iterator[str]:
    rate, brute = found.flows / found.cpu, 1 / found.brute
    yield _HEAD.format(flows=found.flows, rules=rules, sample=sample, limit=LIMIT)
    yield "| What | Wall, s | CPU-s | Million flows a CPU-s | Peak memory, MB | Newly denied | Within the limit |"
    yield "|---|--:|--:|--:|--:|--:|---|"
    yield f"| reading alone | – | {found.reading:.1f} | {found.flows / found.reading / 1e6:.1f} | – | – | – |"
    denied = f"{found.denied:,} flows of {found.subscribers:,} subscribers"
    yield (
        f"| the what-if | {found.wall:.1f} | {found.cpu:.1f} | {rate / 1e6:.2f} | {found.memory:.0f} | {denied} "
        f"| {_kept(found)} |"
    )
    same = f"**{found.unlike:,} unlike**" if found.unlike else "the same, of each flow"
    yield f"| brute force (sample) | – | {sample / brute:.1f} | {brute / 1e6:.4f} | – | {same} | – |"
    yield ""
    hours = found.flows / brute / 3600
    yield f"Brute force would take {hours:.1f} CPU hours for all of them, {rate / brute:,.0f} times as long."


def _kept(found: Replay) -> str:
    return "–" if found.flows < FLOWS else "yes" if found.wall <= LIMIT else "**no**"


def replay(flows: int, rules: int, sample: int) -> Replay:
    """Measured in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / ".collections"), str(ROOT)])}
    with tempfile.TemporaryDirectory(prefix="isp-bench-") as directory:
        file = Path(directory) / "nfcapd.202601010000"
        write_nfcapd(file, Synthetic(seed=5, flows=flows).chunks(), compression=LZ4)
        command = [sys.executable, "-m", "tests.bench.signals_impact", str(file), str(rules), str(sample)]
        done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
    return Replay(**json.loads(done.stdout))


def _measure(file: str, rules: int, sample: int) -> Replay:
    began = time.process_time()
    flows = sum(len(chunk) for chunk in read_flows([file]))
    reading = time.process_time() - began
    places = [_place(family, rules) for family in (4, 6)]
    wall, cpu = time.perf_counter(), time.process_time()
    found = impact(places, read_flows([file]))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    [peak] = re.findall(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    brute, unlike = _sampled(places, next(iter(read_flows([file]))), sample)
    assert found.flows == flows
    return Replay(
        flows, wall, cpu, reading, int(peak) / 1024, found.denied.flows, found.denied.subscribers, brute, unlike
    )  # fmt: skip


def _sampled(places: list[Place], chunk: Flows, sample: int) -> tuple[float, int]:
    """CPU seconds of brute force a flow, and how many flows it judges in another way."""
    mask = np.zeros(len(chunk), bool)
    mask[:: max(1, len(chunk) // sample)] = True
    some = chunk.where(mask)
    v4 = (some.src_hi == 0) & (some.src_lo >> np.uint64(32) == V4_MAPPED >> 32)
    spent, unlike = 0.0, 0
    for place in places:
        sides = as_recorded(place.before), as_recorded(place.after)
        for row, expected in zip(*Judge(place).outcomes(some, v4), strict=True):
            addresses = [
                (int(high[row]) << 64 | int(low[row])) & _HALF[place.family]
                for high, low in ((some.src_hi, some.src_lo), (some.dst_hi, some.dst_lo))
            ]
            header = int(some.proto[row]), (int(some.sport[row]), int(some.dport[row])), (addresses[0], addresses[1])
            began = time.process_time()
            found = brute_force.outcome(place, sides, *header, int(some.flags[row]))
            spent += time.process_time() - began
            unlike += found != int(expected)
    return spent / len(some), int(unlike)


def _place(family: int, rules: int) -> Place:
    """Where all subscribers hang: a list as an ISP has it, with and without a deny of port 25 at its end."""
    platform = platforms.load("cisco_ios")
    command = "ip access-list extended UP" if family == 4 else "ipv6 access-list UP"
    customers = list(_customers(family, rules - 2))
    sides = []
    for lines in (customers, [*customers, " deny tcp any any eq 25"]):
        text = "\n".join(
            ("hostname bench", command, *lines, f" permit {'ip' if family == 4 else 'ipv6'} any any", "end")
        )
        sides.append(Side(platform.parse(f"{text}\n"), ("UP",), "cisco_ios"))
    return Place("subscribers", "up", family, sides[0], sides[1], unchanged=True)


def _customers(family: int, lines: int) -> Iterator[str]:
    """Lines about one customer each, of the subscribers that synthetic flows have."""
    chance = random.Random(f"impact {family}")
    for _ in range(lines):
        number = chance.randrange(131_072)
        if family == 4:
            host = f"host {ipaddress.IPv4Address((198 << 24 | 18 << 16) + number)}"
            other = f"host {ipaddress.IPv4Address((240 << 24) + chance.randrange(1 << 28))}"
        else:
            host = f"2001:DB8:0:{number & 0xFFFF:X}::/64"
            other = f"2001:DB8:{chance.randrange(0x8000, 0x10000):X}::/48"
        shape = chance.randrange(4)
        if shape == 0:
            yield f" permit tcp {host} {other} eq {chance.choice([22, 80, 443, 8080])}"
        elif shape == 1:
            yield f" deny tcp {host} any eq 25"
        elif shape == 2:
            yield f" permit tcp {host} {other} range 5000 6000"
        else:
            yield f" deny udp {host} any range 137 139"


if __name__ == "__main__":
    json.dump(asdict(_measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))), sys.stdout)
