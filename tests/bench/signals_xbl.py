# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The XBL monitor: the delta of a large feed, and the DNS sweep beside dnsperf on the same rbldnsd.

python -m tests.bench.signals_xbl FILE: the delta of the feed that FILE describes, in a process of its own.
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
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.isp.hardening.plugins.module_utils.signals.episodes import Listed, State, step
from ansible_collections.isp.hardening.plugins.module_utils.signals.records import UNKNOWN, Owner
from ansible_collections.isp.hardening.plugins.module_utils.signals.xbl_feed import Feed
from ansible_collections.isp.hardening.plugins.module_utils.signals.xbl_rbldnsd import Dataset
from tests.signals.box import box, not_here
from tests.signals.rbldnsd import PORT, Rbldnsd

ROOT = Path(__file__).parents[2]
ENTRIES, OWN, LIMIT_WALL, LIMIT_MEMORY = 8_000_000, 10_000_000, 5.0, 200.0
LISTED, CHANGED = 0.003, 0.1  # of the own addresses, beside chance; of those, by how much the feed before was another
SWEPT, OF_DNSPERF, ROUNDS = "198.18.0.0/15", 0.8, 7
ZONE = "zen.example.net"
_FEED = """
### A feed

A file of {entries:,} addresses (ip4tset) against {own:,} own ones, with the standard library alone: read it, and say
what has come and gone since the feed before. In a process of its own, the best of {repeat}. The delta is held against
plain sets. Limit: {wall:.0f} s and {memory:.0f} MB.
"""
_SWEEP = """
### A DNS sweep

All {count:,} addresses of {swept}, one in twenty of them listed, without a limit of queries a second, asked of one
rbldnsd on the same machine by turns: ours (Python {python}), with all that a run asks and answers, and dnsperf
{dnsperf} with the same questions; both with 100 queries under way. The best of {rounds} rounds. Limit: {limit:.0%} of
the queries a second of dnsperf. It has two threads and ours has one, so that on a busy machine it gets more of it;
CPU seconds do not depend on that.
"""
# On Debian's own Python, with the code as it lies on a host. The wall time of ours is that of the sweep alone, as
# dnsperf's own figure is; the CPU seconds are those of the processes.
_OURS = """
import sys, time
sys.path.insert(0, "/box/library")
from ansible_collections.isp.hardening.plugins.module_utils.signals.xbl_dns import Dnsbl
source = Dnsbl("{zone}", "", "127.0.0.1", {port}, 0)
began = time.monotonic()
answer = source.ask(["{swept}"])
print(time.monotonic() - began, len(answer.listings), len(answer.unanswered), bool(answer.frozen))
"""
_ROUNDS = r"""
import json, re, resource, subprocess, sys
def measure(*command):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return said, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
found = []
for number in range({rounds}):
    said, used = measure("dnsperf", "-s", "127.0.0.1", "-p", "{port}", "-d", "/box/questions", "-n", "1")
    assert re.search(r"Queries lost: +0 ", said), said
    theirs = [float(re.search(r"Queries per second: +([\d.]+)", said)[1]), used]
    said, used = measure("/usr/bin/python3", "/box/ours.py")
    wall, listed, *faults = said.split()
    assert [int(listed), *faults] == [{listed}, "0", "False"], said
    found.append([theirs, [{count} / float(wall), used]])
print(json.dumps(found))
"""


@dataclass(frozen=True, slots=True)
class Delta:
    """CPU and wall seconds, peak memory in MB, and how many have come, gone and stayed."""

    cpu: float
    wall: float
    memory: float
    came: int
    went: int
    still: int


def section(entries: int = ENTRIES, own: int = OWN, swept: str = SWEPT, rounds: int = ROUNDS, repeat: int = 3) -> str:
    """The part of the page."""
    with tempfile.TemporaryDirectory(prefix="isp-bench-") as directory:
        return "\n".join([*_feed(Path(directory), entries, own, repeat), *_sweep(Path(directory), swept, rounds)])


# -- the feed ----------------------------------------------------------------------------------------------------


def _feed(directory: Path, entries: int, own: int, repeat: int) -> Iterator[str]:
    yield _FEED.format(entries=entries, own=own, repeat=repeat, wall=LIMIT_WALL, memory=LIMIT_MEMORY)
    file, expected = _made(directory, entries, own)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / ".collections"), str(ROOT)])}
    command = [sys.executable, "-m", "tests.bench.signals_xbl", str(file)]
    runs = [
        Delta(**json.loads(subprocess.run(command, env=environment, check=True, capture_output=True).stdout))
        for _ in range(repeat)
    ]
    best = min(runs, key=lambda run: run.wall)
    exact = all((run.came, run.went, run.still) == expected for run in runs)
    kept = best.wall <= LIMIT_WALL and best.memory <= LIMIT_MEMORY and exact
    yield "| Entries | Own addresses | Wall, s | CPU-s | Memory, MB | Came, went, still | Exact | Within the limit |"
    yield "|--:|--:|--:|--:|--:|--:|---|---|"
    yield (
        f"| {entries:,} | {own:,} | {best.wall:.1f} | {best.cpu:.1f} | {best.memory:.0f}"
        f" | {best.came:,}, {best.went:,}, {best.still:,} | {_yes(exact)} | {_yes(kept)} |"
    )


def _made(directory: Path, entries: int, own: int) -> tuple[Path, tuple[int, int, int]]:
    """A feed, what was listed before it, and the delta that is right. Own /16 lie here and there in the whole space."""
    chance = random.Random(5)
    blocks = sorted(chance.sample(range(11 << 8, 126 << 8), -(-own >> 16)))
    prefixes = [str(ipaddress.IPv4Network((block << 16, 16))) for block in blocks]
    ours = set(blocks)
    listed = {chance.choice(blocks) << 16 | chance.getrandbits(16) for _ in range(int(own * LISTED))}
    strangers = [chance.randrange(1 << 24, 224 << 24) for _ in range(entries - len(listed))]
    listed |= {number for number in strangers if number >> 16 in ours}
    before = {number for number in listed if chance.random() > CHANGED}
    before |= {chance.choice(blocks) << 16 | chance.getrandbits(16) for _ in range(int(len(listed) * CHANGED))}
    lines = [number for number in strangers if number >> 24 != 127] + list(listed)
    chance.shuffle(lines)
    with open(directory / "feed", "w", encoding="ascii") as feed:
        feed.write(":127.0.0.4:\n127.0.0.2\n")
        feed.writelines(f"{number >> 24}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}\n" for number in lines)
    about = {
        "feed": str(directory / "feed"),
        "own": prefixes,
        "before": [str(ipaddress.IPv4Address(number)) for number in before],
    }
    (directory / "about.json").write_text(json.dumps(about))
    return directory / "about.json", (len(listed - before), len(before - listed), len(listed & before))


def _delta(file: Path) -> Delta:
    about = json.loads(file.read_text())
    began, used = time.monotonic(), time.process_time()
    state = State((), tuple(Listed(one, "XBL", 0, 0, 0, "") for one in about["before"]))
    answer = Feed((Dataset("ip4tset", about["feed"]),)).ask(about["own"])
    assert not answer.frozen, answer.frozen
    done = step(state, answer, lambda *_: Owner(UNKNOWN), 1)
    used, wall = time.process_time() - used, time.monotonic() - began
    # Not ru_maxrss, which a process inherits from the one that started it.
    [peak] = re.findall(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return Delta(used, wall, int(peak) / 1024, len(done.came), len(done.went), len(done.still))


# -- the sweep ---------------------------------------------------------------------------------------------------


def _sweep(directory: Path, swept: str, rounds: int) -> Iterator[str]:
    if reason := not_here():
        yield f"\nThe DNS sweep was left out: {reason}."
        return
    addresses = [str(one) for one in ipaddress.IPv4Network(swept)]
    listed = random.Random(5).sample(addresses, len(addresses) // 20)
    names = (".".join(reversed(one.split("."))) for one in addresses)
    (directory / "questions").write_text("".join(f"{name}.{ZONE} A\n" for name in names))
    os.chmod(directory, 0o755)
    (directory / "ours.py").write_text(_OURS.format(zone=ZONE, port=PORT, swept=swept))
    script = _ROUNDS.format(port=PORT, rounds=rounds, listed=len(listed), count=len(addresses))
    (directory / "rounds.py").write_text(script)
    with box(directory) as made:
        rbldnsd = Rbldnsd(made)
        rbldnsd.install()
        rbldnsd.serve({ZONE: [("ip4tset", ":4\n127.0.0.2\n" + "".join(f"{one}\n" for one in listed))]})
        found = json.loads(made.run("/usr/bin/python3 /box/rounds.py", timeout=60.0 * rounds).stdout)
        python = made.run("/usr/bin/python3 --version").stdout.split()[1]
        version = re.search(r"[Vv]ersion ([\d.]+)", made.run("dnsperf -h 2>&1", check=False).stdout)
    (theirs, their_cpu), (ours, our_cpu) = (
        (max(one[side][0] for one in found), min(one[side][1] for one in found)) for side in (0, 1)
    )
    yield _SWEEP.format(
        count=len(addresses), swept=swept, python=python, dnsperf=version[1] if version else "", rounds=rounds,
        limit=OF_DNSPERF,
    )  # fmt: skip
    yield "| Who asks | Queries a second | Of dnsperf | Queries a CPU-s | Within the limit |"
    yield "|---|--:|--:|--:|---|"
    yield f"| dnsperf | {theirs:,.0f} | | {len(addresses) / their_cpu:,.0f} | |"
    share = ours / theirs
    kept = _yes(share >= OF_DNSPERF)
    yield f"| ours | {ours:,.0f} | {share:.0%} | {len(addresses) / our_cpu:,.0f} | {kept} |"


def _yes(kept: bool) -> str:
    return "yes" if kept else "**no**"


if __name__ == "__main__":
    found = _delta(Path(sys.argv[1]))
    json.dump({name: getattr(found, name) for name in Delta.__slots__}, sys.stdout)
