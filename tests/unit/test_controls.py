# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The catalogue of controls, the page that is written from it, and what its entries point at."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ansible_collections.isp.hardening.plugins.module_utils import controls
from tools import controls as generator

ROOT = Path(__file__).resolve().parent.parent.parent
ALL = list(controls.CONTROLS.values())


def test_the_page_is_what_the_catalogue_says() -> None:
    assert generator.PAGE.read_text() == generator.page(), "docs/controls.md is stale: run `make docs`"


def test_the_ids_of_issue_and_policy_are_all_there() -> None:
    assert list(controls.SWITCHES) == [f"P{number}" for number in range(1, 11)]
    assert {"C1", "C2", "C3", "C4"} <= controls.CONTROLS.keys()
    assert {f"M{number}" for number in range(1, 15)} <= controls.CONTROLS.keys()


@pytest.mark.parametrize("control", ALL, ids=lambda control: control.id)
def test_every_entry_is_whole(control: controls.Control) -> None:
    assert re.fullmatch(r"[A-Z][1-9][0-9]*", control.id)
    assert control.severity in ("critical", "high", "medium", "low")
    assert control.direction in ("up", "down", "both", "")
    for text in (control.title, control.rationale, *control.sources, *control.implemented_by, *control.proved_by):
        assert text.strip() == text != ""
    assert control.sources
    assert control.implemented_by
    assert control.proved_by


@pytest.mark.parametrize("control", ALL, ids=lambda control: control.id)
def test_what_implements_and_proves_is_there(control: controls.Control) -> None:
    for text in (*control.implemented_by, *control.proved_by):
        for kind, name in re.findall(r"\b(role|action|module) (\w+)", text):
            places = {
                "role": f"roles/{name}",
                "action": f"plugins/action/{name}.py",
                "module": f"plugins/modules/{name}.py",
            }
            assert (ROOT / places[kind]).exists(), f"{control.id} names a {kind} that is not there"


def test_sources_that_are_our_own_pages_exist() -> None:
    for control in ALL:
        for page in re.findall(r"docs/\w+\.md", " ".join(control.sources)):
            assert (ROOT / page).is_file(), f"{control.id} cites {page}"
