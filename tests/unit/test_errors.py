# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""tests/errors/<case>: every kind of mistake in the variables, and the exact text that it gets.

`input.yml` holds variables of one router; what it leaves out of ansible_network_os and isp_attachments is
filled in. A new case is a folder with an input.yml and the error.txt that a user should read.
"""

from __future__ import annotations

import datetime
import shutil
from pathlib import Path

import pytest
import yaml

from ansible_collections.isp.hardening.plugins.module_utils.inventory_check import HostVariables, check_inventory
from ansible_collections.isp.hardening.plugins.module_utils.policy_files import read_files

TODAY = datetime.date(2026, 11, 23)
ERRORS = Path(__file__).parent.parent / "errors"
CASES = sorted(path.parent for path in ERRORS.glob("*/input.yml"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_error_text(case: Path, tmp_path: Path) -> None:
    variables = tmp_path / "group_vars" / "all"
    variables.mkdir(parents=True)
    shutil.copy(case / "input.yml", variables)
    files = read_files([str(tmp_path)], base=str(variables))
    verdict = check_inventory(router(case / "input.yml"), files, TODAY)
    assert verdict.mistakes
    assert "".join(f"{mistake}\n" for mistake in verdict.mistakes) == (case / "error.txt").read_text()


def router(file: Path) -> list[HostVariables]:
    try:
        values = yaml.safe_load(file.read_text())
    except yaml.YAMLError:
        return []  # Ansible has no hosts either when its inventory is no YAML
    return [HostVariables("router1", (), {"ansible_network_os": "cisco_ios", "isp_attachments": []} | values)]


def test_every_case_has_an_input() -> None:
    assert CASES
    assert sorted(path.parent for path in ERRORS.glob("*/error.txt")) == CASES
