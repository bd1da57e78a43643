# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""python -m tests.bench.proof PLATFORM FILE: parse and prove one long filter, in a process of its own.

What counts is the CPU seconds of parse() and audit(), and the peak memory of the whole process, Python included.
"""

from __future__ import annotations

import gc
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.isp.hardening.plugins.module_utils import platforms
from ansible_collections.isp.hardening.plugins.module_utils.audit import audit
from tests.bench.lists import HARD, attachment, long_list, policy

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Proof:
    """CPU seconds, peak resident memory in MB, lines of filters that were read, verdicts by name."""

    parse: float
    prove: float
    memory: float
    lines: int
    verdicts: dict[str, int]

    @property
    def cpu(self) -> float:
        return self.parse + self.prove


def long_filter(network_os: str, lines: int, holes: bool, repeat: int = 3) -> Proof:
    """The best of some runs over a filter of so many lines."""
    return _best(network_os, long_list(network_os, lines, holes), repeat)


def hard_filter(name: str, lines: int, repeat: int = 1) -> Proof:
    """The best of some runs over one of lists.HARD, as Cisco IOS writes it."""
    return _best("cisco_ios", HARD[name][0](lines), repeat)


def _best(network_os: str, text: str, repeat: int) -> Proof:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / ".collections"), str(ROOT)])}
    with tempfile.TemporaryDirectory(prefix="isp-bench-") as directory:
        file = Path(directory) / "configuration"
        file.write_text(text, encoding="utf-8")
        command = [sys.executable, "-m", "tests.bench.proof", network_os, str(file)]
        runs = [
            Proof(**json.loads(subprocess.run(command, env=environment, check=True, capture_output=True).stdout))
            for _ in range(repeat)
        ]
    return min(runs, key=lambda run: run.cpu)


def _measure(network_os: str, file: Path) -> Proof:
    platform, place = platforms.load(network_os), attachment(network_os)
    what = policy()
    gc.disable()  # as the action has it
    text = file.read_text(encoding="utf-8")
    began = time.process_time()
    configuration = platform.parse(text, [place.name])
    parsed = time.process_time()
    findings = audit(configuration, what, [place], "router", platform.LINK_LOCAL)
    proved = time.process_time()
    # Not ru_maxrss, which a process inherits from the one that started it.
    [peak] = re.findall(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    verdicts = Counter(one.verdict for one in findings)
    return Proof(parsed - began, proved - parsed, int(peak) / 1024, configuration.filter_lines, dict(verdicts))


if __name__ == "__main__":
    found = _measure(sys.argv[1], Path(sys.argv[2]))
    json.dump({name: getattr(found, name) for name in Proof.__slots__}, sys.stdout)
