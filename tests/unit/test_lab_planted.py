# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The audit of the lab finds what lab/configs/<host>.yml says, nothing else, and the lab's judge agrees."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path
from typing import Any

import pytest
import ruamel.yaml

from ansible_collections.isp.hardening.plugins.module_utils import platforms
from ansible_collections.isp.hardening.plugins.module_utils.audit import audit
from ansible_collections.isp.hardening.plugins.module_utils.findings import COMPLIANT, Finding
from ansible_collections.isp.hardening.plugins.module_utils.policy import read_attachments, read_policy
from lab.__main__ import CONFIGS, INVENTORY, Host, hosts
from lab.judge import judge
from lab.routers import kind

# Those whose configuration lies in a file; the Linux router has to run first (test_lab_linux.py).
SERVED = [host for host in hosts() if not kind(host.network_os).own_server]


def load(file: Path) -> Any:
    return ruamel.yaml.YAML(typ="safe").load(file)


def as_json(finding: Finding) -> dict[str, object]:
    """The witness as `lab judge` takes it."""
    addresses = {"source", "destination"}
    kind_of = ipaddress.IPv4Address if finding.family == 4 else ipaddress.IPv6Address
    values = {name: str(kind_of(value)) if name in addresses else value for name, value in finding.fields}
    return {"family": finding.family, **values}


@pytest.mark.parametrize("host", SERVED, ids=lambda host: host.name)
def test_the_audit_finds_what_was_planted_and_the_judge_agrees(host: Host) -> None:
    policy, problems = read_policy(
        load(INVENTORY / "group_vars" / "all" / "policy.yml")["isp_policy"], datetime.date(2026, 11, 23)
    )
    assert policy is not None, problems
    attachments, problems = read_attachments(
        load(INVENTORY / "host_vars" / f"{host.name}.yml")["isp_attachments"], policy
    )
    assert problems == []
    router = kind(host.network_os).load(host.name, CONFIGS)
    platform = platforms.load(host.network_os)
    assert platform.incomplete(router.snapshot()) == ""
    configuration = platform.parse(router.snapshot(), [attachment.name for attachment in attachments])
    every = audit(configuration, policy, attachments, host.name, platform.LINK_LOCAL)
    findings = [one for one in every if one.verdict != COMPLIANT]
    planted = load(CONFIGS / f"{host.name}.yml")
    assert sorted({(one.attachment, one.direction, one.family, one.control) for one in findings}) == sorted(
        (row["attachment"], row["direction"], row["family"], row["control"]) for row in planted
    )
    for finding in findings:
        if finding.packet:
            over_block = "permitted" in finding.title
            verdict = judge(router, finding.attachment, finding.direction, as_json(finding))
            assert verdict == ("deny" if over_block else "permit"), finding
