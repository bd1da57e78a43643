# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""tests/errors/<case>: every kind of mistake in the variables, and the exact text that it gets.

`input.yml` holds variables of one router; what it leaves out of ansible_network_os and isp_attachments is
filled in. Beside isp_mail there are the mail hosts mx1 and out1 in their groups, or those of `groups.yml`. A new
case is a folder with an input.yml and the error.txt that a user should read.
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
    verdict = check_inventory(hosts(case), files, TODAY)
    assert verdict.mistakes
    assert "".join(f"{mistake}\n" for mistake in verdict.mistakes) == (case / "error.txt").read_text()


def hosts(case: Path) -> list[HostVariables]:
    try:
        values = yaml.safe_load((case / "input.yml").read_text())
    except yaml.YAMLError:
        return []  # Ansible has no hosts either when its inventory is no YAML
    routers = [HostVariables("router1", (), {"ansible_network_os": "cisco_ios", "isp_attachments": []} | values)]
    if "isp_mail" not in values:
        return routers
    groups = case / "groups.yml"
    members = yaml.safe_load(groups.read_text()) if groups.exists() else {"mx": ["mx1"], "outbound": ["out1"]}
    mail = {name: values.get(name) for name in ("isp_policy", "isp_mail")}
    names = dict.fromkeys(name for group in members.values() for name in group)
    return routers + [
        HostVariables(name, tuple(group for group in members if name in members[group]), mail) for name in names
    ]


def test_every_case_has_an_input() -> None:
    assert CASES
    assert sorted(path.parent for path in ERRORS.glob("*/error.txt")) == CASES
