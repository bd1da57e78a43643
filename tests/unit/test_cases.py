"""Wrong but plausible filters, each found with its packet, and right ones in other words, which raise nothing.

A case is a folder tests/platforms/<os>/<number>-<name>/ with running.cfg, findings.yml and, where the common one
does not fit, a policy.yml. findings.yml has `attachments` and `findings`: every verdict that is not compliant.
"""

from __future__ import annotations

import datetime
import importlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from ansible_collections.isp.hardening.plugins.module_utils import platforms
from ansible_collections.isp.hardening.plugins.module_utils.audit import audit
from ansible_collections.isp.hardening.plugins.module_utils.findings import COMPLIANT, VIOLATED, Finding
from ansible_collections.isp.hardening.plugins.module_utils.policy import (
    Attachment,
    Policy,
    read_attachments,
    read_policy,
)
from lab.judge import Packet

ROOT = Path(__file__).parent.parent / "platforms"
CASES = sorted(path.parent for path in ROOT.glob("*/[0-9]*/findings.yml"))
TODAY = datetime.date(2026, 11, 23)


@dataclass(frozen=True)
class Case:
    """What a folder holds, read. `findings`: every finding of the audit."""

    platform: ModuleType
    text: str
    policy: Policy
    attachments: tuple[Attachment, ...]
    findings: list[Finding]


def read(case: Path) -> Case:
    expected = yaml.safe_load((case / "findings.yml").read_text())
    own = case / "policy.yml"
    data = yaml.safe_load((own if own.exists() else ROOT / "policy.yml").read_text())
    policy, problems = read_policy(data["isp_policy"], TODAY)
    assert policy, problems
    attachments, problems = read_attachments(expected["attachments"], policy)
    assert not problems
    platform = platforms.load(case.parent.name)
    text = (case / "running.cfg").read_text()
    assert platform.incomplete(text) == ""
    configuration = platform.parse(text, [one.name for one in attachments])
    return Case(
        platform, text, policy, attachments, audit(configuration, policy, attachments, "case", platform.LINK_LOCAL)
    )


def findings(case: Path) -> list[Finding]:
    """What the audit says of the case, less what is compliant."""
    return [one for one in read(case).findings if one.verdict != COMPLIANT]


def as_written(finding: Finding) -> dict[str, Any]:
    """The finding as findings.yml has it. The line is the last of the evidence: the one that decides."""
    return {
        "control": finding.control,
        "attachment": finding.attachment,
        "direction": finding.direction,
        "family": finding.family,
        "verdict": finding.verdict,
        "packet": finding.packet,
        "line": finding.evidence[-1].line if finding.evidence else 0,
    }


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.parent.name}/{case.name}")
def test_case(case: Path) -> None:
    expected = yaml.safe_load((case / "findings.yml").read_text())["findings"]
    found = [as_written(one) for one in findings(case)]
    assert [{key: one[key] for key in wanted} for one, wanted in zip(found, expected, strict=False)] == expected
    assert len(found) == len(expected)


# The lab judges a packet from the text of the configuration, and shares no code with the audit. Its Linux router is
# the kernel itself, which test_kernel_nftables.py asks.
JUDGED = [
    case
    for case in CASES
    if case.parent.name != "linux_nftables" and "verdict: violated" in (case / "findings.yml").read_text()
]


@pytest.mark.parametrize("case", JUDGED, ids=lambda case: f"{case.parent.name}/{case.name}")
def test_the_lab_judges_each_packet_so(case: Path) -> None:
    """What leaks by the audit passes the lab's router, what is blocked by the audit does not."""
    device = importlib.import_module(f"lab.routers.{case.parent.name}").Device
    router = device("case", (case / "running.cfg").read_text())
    for one in findings(case):
        # The lab's routers have no sessions of their own, to which a RADIUS server gives a filter.
        if one.verdict == VIOLATED and one.packet and ", sessions with " not in one.attachment:
            judged = router.judge(one.attachment, one.direction, Packet(family=one.family, **dict(one.fields)))
            assert judged == ("permit" if "denied" in one.title else "deny"), one


def test_every_platform_has_every_case() -> None:
    """The table of wrong but plausible filters: a platform has a case for a number, or says why it has none."""
    for name in platforms.names():
        numbers = {int(case.name.split("-")[0]) for case in CASES if case.parent.name == name}
        missing = set(range(1, 23)) - numbers - set(yaml.safe_load((ROOT / name / "not_applicable.yml").read_text()))
        assert not missing, f"{name} has no case and no reason for {sorted(missing)}"
