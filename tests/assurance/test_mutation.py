# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A sample of the mutants of each platform: the audit's verdict on them is true. The long run: `make assure`."""

from __future__ import annotations

import pytest

from ansible_collections.isp.hardening.plugins.module_utils import platforms
from tests.assurance import mutation, texts
from tests.assurance.texts import Known

MUTANTS, PACKETS = 16, 6  # of our own rendering; for each obligation


@pytest.mark.parametrize("network_os", platforms.names())
def test_the_verdict_on_mutants_is_true(network_os: str) -> None:
    if lacks := texts.missing(network_os):
        pytest.skip(f"{network_os} has no {lacks} yet")
    found = mutation.run(network_os, 1, MUTANTS, PACKETS, 1)
    assert found["faults"] == [], found["faults"]
    assert found["mutants"] == MUTANTS
    if found["lab"]:
        pytest.skip(f"the naive evaluator confirmed all, the lab's judge none: {found['lab']}")


def test_a_parser_that_sees_no_change_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lab's router reads the mutants itself: it is no echo of the parser."""
    whole = texts.rendered("cisco_ios")[0]
    blind = whole.read

    monkeypatch.setattr(Known, "parse", lambda *_: blind)
    monkeypatch.setattr("tests.assurance.mutants._relevant", lambda _, lines: range(2, len(lines) - 12))
    found = mutation.run("cisco_ios", 1, 2 * MUTANTS, PACKETS, 1)
    assert any("the lab gives" in fault for fault in found["faults"])
