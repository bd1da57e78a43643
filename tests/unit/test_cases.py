"""Wrong but plausible filters, each found with its packet, and right ones in other words, which raise nothing.

A case is a folder tests/platforms/<os>/<number>-<name>/ with running.cfg, findings.yml and, where the common one
does not fit, a policy.yml. findings.yml has `attachments` and `findings`: every verdict that is not compliant.
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.isp.hardening.plugins.module_utils import platforms
from ansible_collections.isp.hardening.plugins.module_utils.audit import audit
from ansible_collections.isp.hardening.plugins.module_utils.findings import COMPLIANT
from ansible_collections.isp.hardening.plugins.module_utils.policy import read_attachments, read_policy

ROOT = Path(__file__).parent.parent / "platforms"
CASES = sorted(path.parent for path in ROOT.glob("*/[0-9]*/findings.yml"))
TODAY = datetime.date(2026, 11, 23)


def verdicts(case: Path) -> list[dict[str, Any]]:
    """What the audit says of the case, less what is compliant."""
    expected = yaml.safe_load((case / "findings.yml").read_text())
    own = case / "policy.yml"
    data = yaml.safe_load((own if own.exists() else ROOT / "policy.yml").read_text())
    policy, problems = read_policy(data["isp_policy"], TODAY)
    assert policy, problems
    attachments, problems = read_attachments(expected["attachments"], policy)
    assert not problems
    platform = platforms.load(case.parent.name)
    configuration = platform.parse((case / "running.cfg").read_text(), [one.name for one in attachments])
    return [
        {
            "control": one.control,
            "attachment": one.attachment,
            "direction": one.direction,
            "family": one.family,
            "verdict": one.verdict,
            "packet": one.packet,
            "line": one.evidence[-1].line if one.evidence else 0,
        }
        for one in audit(configuration, policy, attachments, "case", platform.LINK_LOCAL)
        if one.verdict != COMPLIANT
    ]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.parent.name}/{case.name}")
def test_case(case: Path) -> None:
    expected = yaml.safe_load((case / "findings.yml").read_text())["findings"]
    found = verdicts(case)
    assert [{key: one[key] for key in wanted} for one, wanted in zip(found, expected, strict=False)] == expected
    assert len(found) == len(expected)


def test_every_platform_has_every_case() -> None:
    """The table of wrong but plausible filters: a platform has a case for a number, or says why it has none."""
    without = yaml.safe_load((ROOT / "not_applicable.yml").read_text())
    for name in platforms.names():
        numbers = {int(case.name.split("-")[0]) for case in CASES if case.parent.name == name}
        missing = set(range(1, 23)) - numbers - set(without.get(name, {}))
        assert not missing, f"{name} has no case and no reason for {sorted(missing)}"
