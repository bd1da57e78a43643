# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""docs/assurance.md says what the runs found, and no figure in it is typed by hand."""

from __future__ import annotations

from tests.assurance import page, records


def test_the_page_is_what_the_runs_found() -> None:
    stale = "docs/assurance.md is stale: run `python -m tests.assurance --write`"
    assert page.PAGE.read_text(encoding="utf-8") == page.page(), stale


def test_no_run_on_record_has_a_fault() -> None:
    assert [fault for one in records.read().get("mutation", {}).values() for fault in one["faults"]] == []
