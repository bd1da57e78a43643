# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Every Molecule scenario, in its own sequence of steps."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from lab.mail.__main__ import unavailable
from tests.conftest import Run

MOLECULE = Path(__file__).parents[1] / "molecule"
SCENARIOS = sorted(file.parent.name for file in MOLECULE.glob("*/molecule.yml"))


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenario(scenario: str, run: Run, request: pytest.FixtureRequest) -> None:
    in_containers = "LAB_UP: lab.mail " in (MOLECULE / scenario / "molecule.yml").read_text(encoding="utf-8")
    if in_containers and (reason := unavailable()):
        pytest.skip(reason)
    if not scenario.startswith("mail"):  # those have networks of their own, and run one after the other
        request.getfixturevalue("lab_ports")
    env = {"NO_COLOR": "1", "ANSIBLE_NOCOLOR": "1"}
    if os.geteuid() != 0:
        env["ISP_LAB_ROUTERS"] = "routers,!linux"  # the Linux router is made of namespaces
    answer = run("molecule", "test", "--scenario-name", scenario, env=env, timeout=1800)
    if answer.returncode != 0:
        # A log of thousands of lines is cut where it is shown: what failed comes first, and how it ended.
        tasks = re.split(r"\n(?=\s*(?:TASK|RUNNING HANDLER|PLAY) )", answer.stdout)
        failed = [task.strip() for task in tasks if re.search(r"^\s*(fatal|failed): \[", task, re.MULTILINE)]
        pytest.fail("\n\n".join([*failed, answer.stdout[-2000:]]), pytrace=False)
