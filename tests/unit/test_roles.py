# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Every role's defaults, argument specs, tasks and README tell the same story."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools.role_readme import argument_specs, readme

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted(folder for folder in (ROOT / "roles").iterdir() if folder.is_dir())

pytestmark = pytest.mark.parametrize("role", ROLES, ids=lambda folder: folder.name)


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def test_the_spec_is_the_only_source_of_defaults(role: Path) -> None:
    defaults = role / "defaults" / "main.yml"
    told = {
        name: option["default"]
        for spec in argument_specs(role).values()
        for name, option in spec.get("options", {}).items()
        if "default" in option
    }
    assert (load(defaults) or {} if defaults.exists() else {}) == told


def test_every_entry_point_has_its_tasks_and_every_option_says_what_it_is(role: Path) -> None:
    for entry_point, spec in argument_specs(role).items():
        assert (role / "tasks" / f"{entry_point}.yml").is_file()
        assert spec.get("short_description")
        nameless = [name for name, option in spec.get("options", {}).items() if not option.get("description")]
        assert not nameless, f"options without a description: {nameless}"


def test_every_variable_that_the_role_reads_is_in_its_spec(role: Path) -> None:
    told = {name for spec in argument_specs(role).values() for name in spec.get("options", {})}
    tasks = "".join(path.read_text(encoding="utf-8") for path in role.glob("tasks/*.yml"))
    made = set(re.findall(r"\bregister: (\w+)", tasks))
    made |= {name for path in role.glob("tasks/*.yml") for task in load(path) for name in task.get("vars", {})}
    read = set(re.findall(rf"\b(?:{role.name}|isp)_[a-z0-9_]+", tasks))
    assert read - made - told == set(), "read in tasks, absent from meta/argument_specs.yml"


def test_the_readme_is_the_generated_one(role: Path) -> None:
    assert (role / "README.md").read_text(encoding="utf-8") == readme(role), "stale: run `make docs`"
