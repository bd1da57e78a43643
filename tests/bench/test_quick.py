# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The benches run, over sizes so small that no figure means anything: tests are never timed."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from tests.conftest import Run


def test_the_benches_run(run: Run, root: Path) -> None:
    paths = os.pathsep.join([str(root / ".collections"), str(root)])
    shown = run(sys.executable, "-m", "tests.bench", "--quick", env={"PYTHONPATH": paths})
    assert shown.returncode == 0, shown.stdout
    rows = re.findall(r"^\| (audit|push|nothing) \| 3 \| ", shown.stdout, re.MULTILINE)
    assert sorted(rows) == ["audit", "nothing", "push"]
    # What the lists are made for: 64 holes, found on every platform, and none in the others.
    assert len(re.findall(r"^\| .* \| with holes \(64 violated\) \|", shown.stdout, re.MULTILINE)) == 8
    assert len(re.findall(r"^\| .* \| compliant \|", shown.stdout, re.MULTILINE)) == 8
