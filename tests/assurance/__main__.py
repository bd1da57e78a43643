# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""python -m tests.assurance: the long runs, and docs/assurance.md from what they found (see that page)."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ansible_collections.isp.hardening.plugins.module_utils import platforms

from . import page, records, texts

ROOT = Path(__file__).parents[2]
ROUND = 20_000  # texts for one process
MUTANTS, PACKETS = 200, 6  # of a platform; for each obligation


def main(arguments: Sequence[str]) -> int:
    """Exit code 1 when a run found a fault."""
    parser = argparse.ArgumentParser(prog="python -m tests.assurance", description=__doc__)
    parser.add_argument(
        "what", nargs="*", choices=["mutation", "fuzz", "guided", []], help="which runs (default: none)"
    )
    parser.add_argument("--minutes", type=float, default=60, help="how long fuzz and guided look, each (default 60)")
    parser.add_argument("--platform", action="append", choices=platforms.names(), help="only this one; may come again")
    parser.add_argument("--write", action="store_true", help="write docs/assurance.md from the figures")
    options = parser.parse_args(arguments)
    wanted = options.platform or platforms.names()
    runs = {
        "mutation": lambda: mutate(wanted),
        "fuzz": lambda: fuzz(options.minutes, wanted),
        "guided": lambda: guided(options.minutes, wanted),
    }
    failed = [name for name in options.what if not runs[name]()]
    if options.write:
        records.settle()
        page.PAGE.write_text(page.page(), encoding="utf-8")
    return 1 if failed else 0


def mutate(wanted: Sequence[str]) -> bool:
    """At least MUTANTS of each platform, spread over its compliant texts; True without a fault."""
    sound = True
    for network_os in wanted:
        if lacks := texts.missing(network_os):
            print(f"{network_os}: left out, it has no {lacks}", flush=True)
            sound = False
            continue
        each = -(-MUTANTS // len(texts.compliant(network_os)))
        found = _process("tests.assurance.mutation", network_os, "1", str(each), str(PACKETS))
        print(json.dumps(found, indent=1), flush=True)
        sound = sound and not found["faults"]
        if "mutants" in found:
            records.note("mutation", network_os, found)
    return sound


def fuzz(minutes: float, wanted: Sequence[str]) -> bool:
    """Rounds over the platforms until the time is over; a process each, which sees the code as it is by then."""
    end, sound = time.monotonic() + 60 * minutes, True
    seed = int(time.time())
    while time.monotonic() < end:
        for network_os in wanted:
            seed += 1
            found = _process("tests.assurance.fuzz", network_os, str(seed), str(ROUND))
            sound = sound and not found["faults"]
            print(time.strftime("%H:%M:%S"), json.dumps(found), flush=True)
            if "inputs" in found:
                records.note("grammar", network_os, {name: found[name] for name in ("inputs", "taken", "cpu")})
            if time.monotonic() >= end:
                break
    return sound


def guided(minutes: float, wanted: Sequence[str]) -> bool:
    """libFuzzer on one platform after the other."""
    sound = True
    for network_os in wanted:
        seconds = max(round(60 * minutes / len(wanted)), 1)
        done = _run("tests.assurance.guided", network_os, str(seconds))
        units = re.search(r"stat::number_of_executed_units:\s*(\d+)", done.stderr)
        print(network_os, units[1] if units else done.stderr[-1500:], done.returncode, flush=True)
        sound = sound and done.returncode == 0
        if units and not done.returncode:
            records.note("guided", network_os, {"inputs": int(units[1])})
    return sound


def _run(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    more = os.environ.get("PYTHONPATH", "")
    path = [str(ROOT / ".collections"), str(ROOT), *([more] if more else [])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)


def _process(module: str, *arguments: str) -> dict[str, Any]:
    done = _run(module, *arguments)
    if done.returncode:
        return {"platform": arguments[0], "faults": {"the run itself": done.stderr[-600:]}}
    found: dict[str, Any] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
