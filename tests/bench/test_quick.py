# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The benches run, over sizes so small that no figure means anything: tests are never timed."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from lab.mail.__main__ import unavailable
from tests.conftest import Run


def test_the_benches_run(run: Run, root: Path) -> None:
    shown = bench(run, root, "routers")
    rows = re.findall(r"^\| (audit|push|nothing) \| 3 \| ", shown, re.MULTILINE)
    assert sorted(rows) == ["audit", "nothing", "push"]
    # What the lists are made for: 64 holes, found on every platform, and none in the others.
    assert len(re.findall(r"^\| .* \| with holes \(64 violated\) \|", shown, re.MULTILINE)) == 8
    assert len(re.findall(r"^\| .* \| compliant \|", shown, re.MULTILINE)) == 8


def test_the_benches_of_mail_hosts_run(run: Run, root: Path) -> None:
    if reason := unavailable():
        pytest.skip(reason)
    shown = bench(run, root, "mail")
    for table, rows in (
        (r"\| (?:playbooks|tests/bench/peers)/mail_hosts.yml \|", 2),
        (r"\| (?:mx|out)[12] \| [\d.]+ \| -?[\d.]+ \| -?[\d.]+ \|", 6),
        (r"\| out[12] \| 2 \| (?:no|yes) \|", 4),
    ):
        assert len(re.findall(f"^{table}", shown, re.MULTILINE)) == rows, shown
    assert re.search(r"^\| mx1 \| 257 \|", shown, re.MULTILINE), shown


def bench(run: Run, root: Path, part: str) -> str:
    """What the benches of a part print."""
    paths = os.pathsep.join([str(root / ".collections"), str(root)])
    shown = run(sys.executable, "-m", "tests.bench", "--quick", part, env={"PYTHONPATH": paths}, timeout=1800)
    assert shown.returncode == 0, shown.stdout
    return shown.stdout
