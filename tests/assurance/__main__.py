# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""python -m tests.assurance: the long runs, and docs/assurance.md from what they found (see that page)."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ansible_collections.isp.hardening.plugins.module_utils import platforms

from . import records

ROOT = Path(__file__).parents[2]
ROUND = 20_000  # texts for one process


def main(arguments: Sequence[str]) -> int:
    """Exit code 1 when a run found a fault."""
    parser = argparse.ArgumentParser(prog="python -m tests.assurance", description=__doc__)
    parser.add_argument("what", choices=["fuzz"])
    parser.add_argument("--minutes", type=float, default=60, help="how long (default 60)")
    parser.add_argument("--platform", action="append", help="only this one; may be given again")
    options = parser.parse_args(arguments)
    return fuzz(options.minutes, options.platform)


def fuzz(minutes: float, wanted: Sequence[str] | None) -> int:
    """Rounds over the platforms until the time is over; a process each, which sees the code as it is by then."""
    end, failed = time.monotonic() + 60 * minutes, False
    seed = int(time.time())
    while time.monotonic() < end:
        for network_os in wanted or platforms.names():
            seed += 1
            found = _process("tests.assurance.fuzz", network_os, str(seed), str(ROUND))
            failed = failed or bool(found.get("faults"))
            print(time.strftime("%H:%M:%S"), json.dumps(found), flush=True)
            if "inputs" in found:
                records.change(lambda figures, os_=network_os, new=found: _add(figures, "grammar", os_, new))
            if time.monotonic() >= end:
                break
    return int(failed)


def _add(figures: dict[str, Any], kind: str, network_os: str, found: dict[str, Any]) -> None:
    here = figures.setdefault("fuzz", {}).setdefault(kind, {}).setdefault(network_os, {})
    for name in ("inputs", "taken", "cpu"):
        here[name] = round(here.get(name, 0) + found.get(name, 0), 1)
    here["date"] = str(datetime.date.today())


def _process(module: str, *arguments: str) -> dict[str, Any]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / ".collections"), str(ROOT)])}
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"platform": arguments[0], "faults": {"the run itself": done.stderr[-600:]}}
    found: dict[str, Any] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
