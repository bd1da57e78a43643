# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""python -m tests.bench [--quick] [--whole]: measure, and write docs/performance.md."""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import os
import platform
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from ansible_collections.isp.hardening.plugins.module_utils import platforms
from ansible_collections.isp.hardening.plugins.module_utils.search import QUESTION_LIMIT, SEARCH_LIMIT
from tests.bench import fleet, proof
from tests.bench.lists import HARD, POOLS

_Figure = TypeVar("_Figure", proof.Proof, fleet.Cost)
PAGE = Path(__file__).parents[2] / "docs" / "performance.md"
ROUTERS = 200
SIZES = (1_000, 10_000, 100_000)
# The limits, as issue 2 sets them.
PROOF_CPU, PROOF_MEMORY = 0.5, 200.0
OF_EMPTY, OF_CPU, OF_WALL = 3, 1 / 10, 1 / 8
_TITLES = {
    "cisco_ios": "Cisco IOS", "arista_eos": "Arista EOS", "juniper_junos": "Juniper Junos",
    "linux_nftables": "Linux nftables",
}  # fmt: skip


_HEAD = """\
# Speed and memory

Written by `make bench`; nothing here was typed by hand. CPU seconds are user and system together; of several runs the
best counts, because what else runs on a machine only adds to a figure.
"""
_ONE = """
## One long filter

`parse` and `audit` of one filter for {pools} pools, all controls on, in a process of its own. In front of our own rules
stand those of single customers; with holes, nobody is denied port 25 at its end, and every pool gets a witness. Limit
at {lines:,} lines: {cpu} CPU-s and {memory:.0f} MB, those of the whole process. The largest size runs once only.
"""
_HARD = """
### Filters made to be hard

A question ends after {question:,} line tests, all those about one family of a router together after {search:,}. What is
not decided by then is unknown, and is said to be.
"""
_FLEET = """
## A fleet

`ansible-playbook` with {forks} forks over {routers} of the lab's IOS routers (lab/configs/bng1.cfg), served by one
process of the same machine, whose CPU seconds are not in the figures. Every router needs a change on three attachments.
Ours reads, proves, plans, and proves the plan; a push sends it with the router's timer armed, logs in afresh, reads,
proves, confirms and reads again. The tasks of cisco.ios gather lists and bindings, and a push sends the same lines with
`ios_config`; it proves nothing and saves nothing. `nothing` is an action that returns at once.
"""


def main(arguments: Sequence[str]) -> int:
    """Exit code 0, whatever the figures are."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, once each, and no page: does it run at all?")
    parser.add_argument("--whole", action="store_true", help=f"cisco.ios over all {ROUTERS} routers too: an hour")
    options = parser.parse_args(arguments)
    if options.quick:
        print("\n".join([*proofs((200, 400), (20, 20, 60), 1), *fleets(3, (1, 2), False, 1)]))
        return 0
    page = [
        *_head(),
        *proofs(SIZES, tuple(lines for _, lines in HARD.values()), 3),
        *fleets(ROUTERS, (5, 20), options.whole, 3),
    ]
    PAGE.write_text("\n".join([*page, ""]), encoding="utf-8")
    print(PAGE.read_text(encoding="utf-8"))
    return 0


def _head() -> Iterator[str]:
    yield _HEAD
    yield f"- Date: {datetime.date.today()}"
    yield f"- Machine: {_processor()}, {os.cpu_count()} logical cores, {_memory()} GB; {platform.system()}"
    load = os.getloadavg()[0]
    yield f"- Load of the machine as the run began: {load:.1f} (what is above 0 was others' work, and slows down ours)"
    versions = ["ansible-core", "netmiko", "paramiko", "jinja2"]
    yield (
        f"- Python {platform.python_version()}, "
        + ", ".join(f"{name} {importlib.metadata.version(name)}" for name in versions)
        + "".join(f", {name} {version}" for name, version in fleet.reference_versions())
    )


def _processor() -> str:
    found = re.search(r"^model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    return found[1] if found else platform.machine()


def _memory() -> int:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)


def proofs(sizes: Sequence[int], hard: Sequence[int], repeat: int) -> Iterator[str]:
    """The section on one long filter."""
    yield _ONE.format(pools=POOLS, lines=sizes[1], cpu=PROOF_CPU, memory=PROOF_MEMORY)
    yield "| Platform | Lines | Filter | Parse, CPU-s | Prove, CPU-s | Together | Peak memory, MB | Within the limit |"
    yield "|---|--:|---|--:|--:|--:|--:|---|"
    for network_os in platforms.names():
        for lines in sizes:
            for holes in (False, True):
                found = _said(
                    f"{network_os}, {lines}",
                    proof.long_filter(network_os, lines, holes, 1 if lines == max(SIZES) else repeat),
                )
                limit = "–" if lines != sizes[1] else _kept(found.cpu <= PROOF_CPU and found.memory <= PROOF_MEMORY)
                kind = "with holes" if holes else "compliant"
                yield (
                    f"| {_TITLES[network_os]} | {lines:,} | {kind}{_verdicts(found)} | {found.parse:.2f} "
                    f"| {found.prove:.2f} | {found.cpu:.2f} | {found.memory:.0f} | {limit} |"
                )
    yield _HARD.format(question=QUESTION_LIMIT, search=SEARCH_LIMIT)
    yield "| Filter | Lines | CPU-s | Peak memory, MB | Verdicts |"
    yield "|---|--:|--:|--:|---|"
    for name, lines in zip(HARD, hard, strict=True):
        found = _said(name, proof.hard_filter(name, lines))
        verdicts = ", ".join(f"{count} {verdict}" for verdict, count in sorted(found.verdicts.items()))
        yield f"| {name} | {lines:,} | {found.cpu:.2f} | {found.memory:.0f} | {verdicts} |"


def _verdicts(found: proof.Proof) -> str:
    other = [f"{count} {verdict}" for verdict, count in sorted(found.verdicts.items()) if verdict != "compliant"]
    return f" ({', '.join(other)})" if other else ""


def fleets(routers: int, some: tuple[int, int], whole: bool, repeat: int) -> Iterator[str]:
    """The section on many routers."""
    yield _FLEET.format(forks=fleet.FORKS, routers=routers)
    yield "| Play | Routers | CPU-s | Wall, s | CPU-s a router | Largest process, MB |"
    yield "|---|--:|--:|--:|--:|--:|"
    costs: dict[str, fleet.Cost] = {}
    for play in ("nothing", "audit", "push"):
        costs[play] = _said(play, fleet.best(play, routers, repeat))
        yield _row(play, routers, costs[play], "")
    notes = []
    for play in ("cisco.ios audit", "cisco.ios push"):
        if not fleet.available(play):
            notes.append(f"`{play}` was left out: this environment has no cisco.ios (`make bench` brings it).")
            continue
        few, more = (_said(play, fleet.best(play, count, 1)) for count in some)
        yield _row(play, some[0], few, "")
        yield _row(play, some[1], more, "")
        if whole:
            costs[play] = _said(play, fleet.best(play, routers, 1))
            yield _row(play, routers, costs[play], "")
        else:
            costs[play] = fleet.extrapolated(few, more, some, routers)
            yield _row(play, routers, costs[play], " **(extrapolated)**")
    if len(notes) == 0 and not whole:
        notes.append(f"Extrapolated figures are the straight line through those of {some[0]} and {some[1]} routers.")
    yield ""
    yield from notes
    yield ""
    yield "| What | Figure | Limit | Within the limit |"
    yield "|---|--:|--:|---|"
    for play in ("audit", "push"):
        ratio = costs[play].cpu / costs["nothing"].cpu
        yield f"| {play}: CPU-s of an empty task | {ratio:.1f} times | {OF_EMPTY} times | {_kept(ratio <= OF_EMPTY)} |"
        theirs = costs.get(f"cisco.ios {play}")
        if theirs:
            cpu, wall = costs[play].cpu / theirs.cpu, costs[play].wall / theirs.wall
            yield f"| {play}: CPU-s of cisco.ios | 1/{1 / cpu:.1f} | 1/10 | {_kept(cpu <= OF_CPU)} |"
            yield f"| {play}: wall time of cisco.ios | 1/{1 / wall:.1f} | 1/8 | {_kept(wall <= OF_WALL)} |"


def _row(play: str, routers: int, cost: fleet.Cost, note: str) -> str:
    memory = f"{cost.rss:.0f}" if cost.rss else "–"
    return f"| {play}{note} | {routers} | {cost.cpu:.1f} | {cost.wall:.1f} | {cost.cpu / routers:.3f} | {memory} |"


def _kept(kept: bool) -> str:
    return "yes" if kept else "**no**"


def _said(what: str, figure: _Figure) -> _Figure:
    """The figure, told as it comes: the whole takes long."""
    print(f"{what}: {figure}", file=sys.stderr, flush=True)
    return figure


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
