# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The benches of routers run, over sizes so small that no figure means anything: tests are never timed.

Those of mail hosts are left to `make bench`: they take minutes, and Molecule has the same hosts.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from ansible_collections.isp.hardening.plugins.module_utils import platforms
from tests.conftest import Run


def test_the_benches_run(run: Run, root: Path) -> None:
    paths = os.pathsep.join([str(root / ".collections"), str(root)])
    done = run(
        sys.executable,
        "-m",
        "tests.bench",
        "--quick",
        "proof",
        "answers",
        "fleet",
        env={"PYTHONPATH": paths},
        timeout=1800,
    )
    assert done.returncode == 0, done.stdout
    shown = done.stdout
    plays = re.findall(r"^\| (audit|push|nothing) \| 3 \| ", shown, re.MULTILINE)
    assert sorted(plays) == ["audit", "nothing", "push"]
    # What the lists are made for: 64 holes, found on every platform, and none in the others.
    rows = len(platforms.names())
    assert len(re.findall(r"^\| .* \| with holes \(64 violated\) \|", shown, re.MULTILINE)) == rows
    assert len(re.findall(r"^\| .* \| compliant \|", shown, re.MULTILINE)) == rows
