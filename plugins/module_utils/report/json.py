# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The report for programs. docs/report.schema.json is its contract, docs/report.md explains it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from . import Host, Report

FORMAT = "isp.hardening.report/1"


def document(report: Report) -> str:
    """ASCII text, one finding to a line, so that `grep` and `diff` serve as well as `jq`."""
    head = {
        "format": FORMAT,
        "version": report.version,
        "mode": report.mode,
        "started": report.started,
        "finished": report.finished,
        "clean": report.clean,
        "hosts_by_verdict": dict(report.host_totals),
        "findings_by_verdict": dict(report.totals),
        "policy": {
            "profile": report.profile,
            "pools": [asdict(one) for one in report.pools],
            "smarthosts": [{"name": one.name, "prefixes": one.prefixes} for one in report.smarthosts],
            "exceptions": [asdict(one) for one in report.exceptions],
        },
        "controls": [
            {name: getattr(one, name) for name in ("id", "title", "severity", "rationale", "sources")}
            for one in report.controls
        ],
    }
    if report.signals:
        head["signals"] = {**asdict(report.signals), "counts": report.signals.counts}
    hosts = ",\n".join(_host(host) for host in report.hosts)
    return f'{json.dumps(head, indent=2).removesuffix(chr(10) + "}")},\n  "hosts": [\n{hosts}\n  ]\n}}\n'


def _host(host: Host) -> str:
    head = {
        name: getattr(host, name)
        for name in (
            "name", "platform", "address", "verdict", "state", "message", "changed", "seconds", "lines_read",
            "lines_understood", "backup", "kept", "steps", "diff",
        )
    }  # fmt: skip
    head["drift"] = asdict(host.drift)
    head["hygiene"] = [
        {
            **{name: getattr(one, name) for name in ("control", "filter", "family", "title", "more")},
            "lines": [{**asdict(line), "reason": reason} for line, reason in zip(one.lines, one.reasons, strict=True)],
        }
        for one in host.hygiene
    ]
    findings = ",\n".join(
        f"      {json.dumps(_finding(one))}" for one in (finding.as_dict() for finding in host.findings)
    )
    return f'    {json.dumps(head).removesuffix("}")}, "findings": [\n{findings}\n    ]}}'


def _finding(finding: dict[str, Any]) -> dict[str, Any]:
    """Without the host, which is the object around it, and without what is empty."""
    return {name: value for name, value in finding.items() if value and name != "host"}
