# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The files of the report, written on the controller from what every host of the play left behind."""

from __future__ import annotations

import datetime
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible.utils.color import ANSIBLE_COLOR

from ansible_collections.isp.hardening.plugins.module_utils.documentation import argument_spec
from ansible_collections.isp.hardening.plugins.module_utils.findings import COMPLIANT, UNKNOWN
from ansible_collections.isp.hardening.plugins.module_utils.policy import read_policy
from ansible_collections.isp.hardening.plugins.module_utils.report import (
    headline,
    html,
    json,
    junit,
    policy_summary,
    read,
)
from ansible_collections.isp.hardening.plugins.module_utils.report.summary import summary
from ansible_collections.isp.hardening.plugins.modules.report import DOCUMENTATION

_SPEC = argument_spec(DOCUMENTATION)
# Postfix does as it is configured: an answer that could not be had (postscreen takes an early talker for one that it
# has passed before, a port is closed to the asker) changes nothing. Of a DNSBL or a scanner only answers tell.
_BY_CONFIGURATION = frozenset({"M2", "M8", "M9", "M13"})
_SIGNALS = ("signals", "edges", "blackhole_routers")  # the groups of their hosts
_APPLIED = frozenset({"apply", "configured", "changed", "unchanged"})  # modes and states: no audit ends so
_FORMS = {
    "html": ("report.html", html.document),
    "json": ("report.json", json.document),
    "junit": ("report.xml", junit.document),
}


class ActionModule(ActionBase):
    """Documented in plugins/modules/report.py."""

    BYPASS_HOST_LOOP = True
    _supports_check_mode = True
    _supports_diff = True
    _requires_connection = False

    def run(self, tmp: object = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, arguments = self.validate_argument_spec(_SPEC)
        variables = task_vars or {}
        names = variables["ansible_play_hosts_all"]
        known = {name: variables["hostvars"].raw_get(name) for name in names}
        # Who only watched and acted has no verdict of his own: how the signals stand is a part by itself.
        watching = {host for group in _SIGNALS for host in variables["groups"].get(group, ())}
        audits = (arguments["result"], *arguments["mail_results"], arguments["dns_result"])
        known = {
            name: own
            for name, own in known.items()
            if name not in watching or _left(own, audits) or not _left(own, arguments["signals_results"])
        }
        hosts = [_host(name, own, arguments) for name, own in known.items()]
        domains = _domains([own.get(arguments["dns_result"]) for own in known.values()], names)
        ends = {end for host in hosts for end in (host["mode"], host["state"])}
        now = datetime.datetime.now(datetime.UTC)
        report = read(
            {
                "version": _version(),
                "mode": "check" if ends & {"check", "audited"} and not ends & _APPLIED else "apply",
                "started": min((host["started"] for host in hosts if host["started"]), default=""),
                "finished": now.isoformat(timespec="seconds"),
                # The day as edge_filter takes it: by the controller's clock, in its own zone.
                "policy": _policy(arguments["policy"], datetime.date.today()),
                "hosts": hosts + domains,
                "signals": list(_signals(variables, arguments["signals_results"])),
            }
        )
        files = {}
        for form, (name, document) in _FORMS.items():
            files[form] = _write(Path(arguments["directory"]), name, document(report))
        self._display.display("\n" + summary(report, bool(ANSIBLE_COLOR)))
        result |= {"files": files, "hosts": dict(report.host_totals), "findings": dict(report.totals)}
        result |= {"changed": False, "msg": f"{headline(report)}; see {files['html']}"}
        alarmed = bool(report.signals and report.signals.alarms)
        bad = alarmed or any(report.host_totals[one] for one in arguments["fail_on"])
        return result | ({"failed": True} if bad else {})


def _left(own: Mapping[str, Any], names: Sequence[str]) -> bool:
    """Whether a task that was not skipped has left a result under one of the names."""
    found = (own.get(name) for name in names)
    return any(isinstance(one, Mapping) and not one.get("skipped") for one in found)


def _host(name: str, variables: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What the host left behind, in the shape that report.read takes."""
    found = variables.get(arguments["result"])
    if not isinstance(found, Mapping) or found.get("skipped"):
        results = [one for key in arguments["mail_results"] for one in _results(variables.get(key))]
        dns = _results(variables.get(arguments["dns_result"]))
        results += [{**one, "findings": [of for of in one["findings"] if of["host"] == name]} for one in dns]
        found = _together(results)
    if not found:
        found = {"state": "failed", "msg": "the run did not come to this host, and says above what stopped it"}
    diffs = found.get("diff") or ()
    return {
        "host": name,
        "platform": found.get("platform") or variables.get("ansible_network_os"),
        "address": variables.get("ansible_host"),
        "mode": found.get("mode"),
        "state": found.get("state"),
        "message": str(found.get("msg") or "").removeprefix(f"{name}: "),
        "diff": "\n".join(str(one.get("prepared") or "") for one in diffs if isinstance(one, Mapping)),
        "started": str(found.get("started") or ""),
        **{
            key: found.get(key)
            for key in (
                "findings",
                "kept",
                "steps",
                "backup",
                "seconds",
                "lines_read",
                "lines_understood",
                "drift",
                "hygiene",
            )
        },
    }


def _results(registered: Any, item: str = "") -> Iterator[Mapping[str, Any]]:
    """The results in a variable, those of a loop one by one, without those of tasks that were skipped."""
    if not isinstance(registered, Mapping) or registered.get("skipped"):
        return
    if "results" in registered:
        for one in registered["results"]:
            yield from _results(one, str(one.get("item") or ""))
        return
    asker = f"asked from {item}" if item else ""
    findings = [
        one | {"source": ", ".join(filter(None, (one.get("source"), asker)))}
        for one in registered.get("findings") or ()
    ]
    yield {**registered, "findings": findings}


def _together(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The results of several tasks as one; {} for none. What went wrong in one of them went wrong on the host."""
    if not results:
        return {}
    together = {key: value for result in results for key, value in result.items() if value}
    unreachable = [one for one in results if one.get("unreachable")]
    failed = [one for one in results if one.get("failed")]
    state = "unreachable" if unreachable else "failed" if failed else together.get("state", "audited")
    findings = [finding for one in results for finding in one["findings"]]
    return together | {
        "state": state,
        "findings": _decided(findings),
        "msg": next((one.get("msg") for one in unreachable + failed), ""),
    }


def _decided(findings: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """What SMTP leaves open the configuration decides, where it proves the control on all of the host."""
    read = [one for one in findings if one.get("source") == "configuration"]
    proved = {one["control"] for one in read} - {one["control"] for one in read if one["verdict"] != COMPLIANT}
    return [
        {**one, "verdict": COMPLIANT, "source": f"configuration; {one['source']}, leaves it open: {one.get('reason')}"}
        if one["verdict"] == UNKNOWN and one["control"] in proved & _BY_CONFIGURATION
        else one
        for one in findings
    ]


def _domains(registered: Sequence[Any], hosts: Sequence[str]) -> list[dict[str, Any]]:
    """A record for each domain. The records of all domains are looked up once, and every mail host has the result."""
    results = next(filter(None, ([*_results(one)] for one in registered)), [])
    findings: dict[str, list[Any]] = {}
    for finding in (one for result in results for one in result["findings"]):
        if finding["host"] not in hosts:
            findings.setdefault(finding["host"], []).append(finding)
    return [
        {"host": name, "platform": "DNS", "state": "audited", "started": "", "findings": of}
        for name, of in findings.items()
    ]


def _signals(variables: Mapping[str, Any], names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """What the plays of the signals left on their hosts, be they in this play or not."""
    hosts = [host for group in _SIGNALS for host in variables["groups"].get(group, ())]
    for host in dict.fromkeys(hosts):
        known = variables["hostvars"].raw_get(host)
        for name in names:
            found = known.get(name)
            if isinstance(found, Mapping) and not found.get("skipped"):
                yield {**found, "host": host}


def _policy(raw: object, today: datetime.date) -> dict[str, Any]:
    policy, _ = read_policy(raw, today)
    return policy_summary(policy, today) if policy else {}


def _version() -> str:
    """Of the collection: galaxy.yml in a checkout or a wheel, MANIFEST.json where ansible-galaxy installed it."""
    top = Path(__file__).resolve().parents[2]
    for name in ("galaxy.yml", "MANIFEST.json"):
        if (top / name).is_file():
            found = yaml.safe_load((top / name).read_text(encoding="utf-8"))
            return str(found.get("collection_info", found)["version"])
    return ""


def _write(directory: Path, name: str, text: str) -> str:
    """Put the file there whole or not at all: somebody may be looking at the old one."""
    path = directory / name
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=directory, delete=False) as file:
            file.write(text)
        os.chmod(file.name, 0o644)
        os.replace(file.name, path)
    except OSError as error:
        raise AnsibleError(f"{path} cannot be written: {error.strerror}; set another directory") from error
    return str(path)
