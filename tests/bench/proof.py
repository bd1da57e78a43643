# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""python -m tests.bench.proof PLATFORM FILE: parse and prove one long filter, in a process of its own.

What counts is the CPU seconds of parse() and audit(), and the peak memory of the whole process, Python included; with
`first` behind, only the first answer is asked for: may a subscriber reach port 25 in the world?
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
from ansible_collections.isp.hardening.plugins.module_utils.filters import PERMIT
from ansible_collections.isp.hardening.plugins.module_utils.packets import exactly
from ansible_collections.isp.hardening.plugins.module_utils.search import Question, Search
from tests.bench.lists import HARD, attachment, long_list, policy

ROOT = Path(__file__).parents[2]
SMTP = {
    "protocol": exactly(6, 8), "destination_port": exactly(25, 16), "fragment": exactly(0, 2),
    "undetermined": exactly(0, 1),
}  # fmt: skip


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


def first_answer(network_os: str, lines: int, repeat: int = 3) -> Proof:
    """The best of some runs: such a filter is loaded and answers one question; `prove` is the time of that."""
    return _best(network_os, long_list(network_os, lines, holes=True), repeat, "first")


def hard_filter(name: str, lines: int, repeat: int = 1) -> Proof:
    """The best of some runs over one of lists.HARD, as Cisco IOS writes it."""
    return _best("cisco_ios", HARD[name][0](lines), repeat)


def _best(network_os: str, text: str, repeat: int, *only: str) -> Proof:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / ".collections"), str(ROOT)])}
    with tempfile.TemporaryDirectory(prefix="isp-bench-") as directory:
        file = Path(directory) / "configuration"
        file.write_text(text, encoding="utf-8")
        command = [sys.executable, "-m", "tests.bench.proof", network_os, str(file), *only]
        runs = [
            Proof(**json.loads(subprocess.run(command, env=environment, check=True, capture_output=True).stdout))
            for _ in range(repeat)
        ]
    return min(runs, key=lambda run: run.cpu)


def _measure(network_os: str, file: Path, first: bool) -> Proof:
    platform, place = platforms.load(network_os), attachment(network_os)
    what = policy()
    gc.disable()  # as the action has it
    text = file.read_text(encoding="utf-8")
    began = time.process_time()
    configuration = platform.parse(text, [place.name])
    parsed = time.process_time()
    if first:
        findings = []
        bindings = [one for one in configuration.bindings if (one.direction, one.family) == ("in", 4)]
        answer = Search(configuration, 4).ask(bindings[0].filters, [Question(PERMIT, (SMTP,))])[0]
        assert answer.packet, "the list has a hole"
    else:
        findings = audit(configuration, what, [place], "router", platform.LINK_LOCAL)
    proved = time.process_time()
    # Not ru_maxrss, which a process inherits from the one that started it.
    [peak] = re.findall(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    verdicts = Counter(one.verdict for one in findings)
    return Proof(parsed - began, proved - parsed, int(peak) / 1024, configuration.filter_lines, dict(verdicts))


if __name__ == "__main__":
    found = _measure(sys.argv[1], Path(sys.argv[2]), sys.argv[3:] == ["first"])
    json.dump({name: getattr(found, name) for name in Proof.__slots__}, sys.stdout)
