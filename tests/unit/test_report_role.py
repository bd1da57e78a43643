"""The role, the action and the callback under a real ansible-playbook, over what hosts left behind."""

from __future__ import annotations

import datetime
import json
import os
import pty
import re
import select
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit import report_samples as samples

# Stands in for edge_filter: hands out what the host is said to have, and ends as edge_filter would.
STAND_IN = """
from ansible.plugins.action import ActionBase

class ActionModule(ActionBase):
    _requires_connection = False

    def run(self, tmp=None, task_vars=None):
        mode = {"mode": task_vars["mode"]} if "mode" in task_vars else {}
        return super().run(tmp, task_vars) | dict(task_vars["prepared"]) | mode
"""
PLAYBOOK = """
- name: Audit
  hosts: routers
  gather_facts: false
  ignore_unreachable: true
  ignore_errors: true
  tasks:
    - name: Edge filters
      stand_in:
      register: edge_filter_result
      when: prepared is defined

- name: Report
  hosts: routers
  gather_facts: false
  roles:
    - role: isp.hardening.report
      run_once: true
"""
POLICY = {
    "pools": {"residential": {"kind": "dynamic", "ipv4": ["198.51.100.0/25"]}},
    "smarthosts": [{"name": "out1", "ipv4": ["192.0.2.25"]}],
}
Play = Callable[..., subprocess.CompletedProcess[str]]


def result(host: dict[str, Any]) -> dict[str, Any]:
    """A host of a run as edge_filter returns it."""
    ends = {"unreachable": "unreachable", "login_refused": "unreachable", "rolled_back": "failed", "rejected": "failed"}
    kind = {ends[host["state"]]: True} if host["state"] in ends else {}
    keys = ("host", "platform", "findings", "steps", "state", "backup", "lines_read", "lines_understood")
    diff = [{"prepared": host["diff"]}] if host["diff"] else []
    return {key: host[key] for key in keys} | {"msg": f"{host['host']}: {host['message']}", "diff": diff} | kind


@pytest.fixture
def play(tmp_path: Path, root: Path) -> Play:
    """`play(run, …)`: the finished playbook over the hosts of this run; `terminal=True` gives it a terminal."""

    def run_play(
        run: dict[str, Any],
        terminal: bool = False,
        mail_hosts: dict[str, Any] | None = None,
        more: dict[str, Any] | None = None,
        **variables: Any,
    ) -> subprocess.CompletedProcess[str]:
        (tmp_path / "action_plugins").mkdir(exist_ok=True)
        (tmp_path / "action_plugins" / "stand_in.py").write_text(STAND_IN, encoding="utf-8")
        (tmp_path / "play.yml").write_text(PLAYBOOK, encoding="utf-8")
        hosts = {host["host"]: {"prepared": result(host), "ansible_host": host["address"]} for host in run["hosts"]}
        hosts["edge-new1"] = {}  # the audit never came to this one
        hosts |= mail_hosts or {}
        common = {"isp_policy": POLICY, "ansible_connection": "ansible.builtin.local"}
        common |= {"report_directory": str(tmp_path / "reports")} | variables
        inventory = {"routers": {"hosts": hosts, "vars": common}} | (more or {})
        (tmp_path / "hosts.yml").write_text(json.dumps(inventory), encoding="utf-8")
        command = [
            shutil.which("ansible-playbook") or "",
            "-i",
            str(tmp_path / "hosts.yml"),
            str(tmp_path / "play.yml"),
        ]
        environment = os.environ | {
            "ANSIBLE_CONFIG": str(root / "ansible.cfg"), "ANSIBLE_STDOUT_CALLBACK": "isp.hardening.progress",
            "ANSIBLE_COLLECTIONS_PATH": str(root / ".collections"),
        }  # fmt: skip
        return on_terminal(command, environment) if terminal else piped(command, environment)

    return run_play


def piped(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True,
        timeout=120, check=False,
    )  # fmt: skip


def on_terminal(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command, env=environment | {"TERM": "xterm", "COLUMNS": "120"}, stdin=subprocess.DEVNULL, stdout=theirs,
        stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    output = b""
    while select.select([ours], [], [], 120)[0]:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        output += piece
    os.close(ours)
    return subprocess.CompletedProcess(command, process.wait(10), output.decode("utf-8"))


def test_the_files_are_written_and_the_run_fails_for_what_is_wrong(play: Play, tmp_path: Path) -> None:
    done = play(samples.audit_run())
    assert done.returncode != 0, done.stdout
    told = json.loads((tmp_path / "reports" / "report.json").read_text(encoding="utf-8"))
    assert told["hosts_by_verdict"] == {"violated": 3, "not audited": 2, "unknown": 0, "compliant": 1}
    assert told["mode"] == "check"
    assert told["version"]
    assert told["policy"]["pools"][0]["name"] == "residential"
    unreachable = next(host for host in told["hosts"] if host["name"] == "edge-fra1")
    assert unreachable["message"].startswith("no answer from 192.0.2.15")
    assert unreachable["address"] == "192.0.2.15"
    missing = next(host for host in told["hosts"] if host["name"] == "edge-new1")
    assert missing["state"] == "failed"
    assert "3 of 6 hosts violate the policy, 2 could not be audited; see" in done.stdout
    assert "tcp 198.51.100.7:49152 > 203.0.113.9:25 SYN" in done.stdout
    assert sorted(path.name for path in (tmp_path / "reports").iterdir()) == [
        "report.html",
        "report.json",
        "report.xml",
    ]
    assert "edge-fra1" in (tmp_path / "reports" / "report.html").read_text(encoding="utf-8")


def finding(control: str, verdict: str, attachment: str, **more: str) -> dict[str, Any]:
    return {"control": control, "verdict": verdict, "attachment": attachment, "title": "…", "host": "?"} | more


def test_the_results_of_a_mail_host_are_one_record_beside_the_routers(play: Play, tmp_path: Path) -> None:
    """Registered by several tasks, one of them in a loop over those who ask."""
    open_relay = finding("M2", "violated", "smtpd on 25", packet="RCPT TO:<a%b@c>: 250", source="SMTP")
    mx1 = {
        "mail_result": {"state": "configured", "platform": "Debian 13", "changed": False},
        "mta_audit_result": {
            "findings": [finding("M6", "compliant", "smtpd on 25", source="configuration")],
            "changed": False,
        },
        "smtp_probe_result": {
            "results": [
                {"item": "localhost", "findings": [finding("M2", "compliant", "smtpd on 25", source="SMTP")]},
                {"item": "line1", "findings": [open_relay]},
            ]
        },
    }
    of_mx2, of_domain = (finding("M14", "compliant", f"DNS {name}") | {"host": name} for name in ("mx2", "example.net"))
    refused = "Debian 11 is neither Debian 12 nor 13: nothing was changed"
    mx2 = {
        "mail_result": {"failed": True, "msg": refused},
        "mta_audit_result": {"unreachable": True, "msg": "no answer"},
    }
    mx3 = {"mail_result": mx2["mail_result"], "mta_audit_result": mx1["mta_audit_result"]}
    hosts = {"mx1": mx1, "mx2": mx2, "mx3": mx3}
    for host in hosts.values():
        host["dns_audit_result"] = {"findings": [of_mx2, of_domain]}
    play(samples.run(samples.munich()), mail_hosts=hosts)
    told = json.loads((tmp_path / "reports" / "report.json").read_text(encoding="utf-8"))
    found = {host["name"]: host for host in told["hosts"]}
    assert found["edge-muc1"]["verdict"] == "compliant"
    assert (found["mx1"]["state"], found["mx1"]["platform"]) == ("configured", "Debian 13")
    assert [(one["control"], one["verdict"], one["source"]) for one in found["mx1"]["findings"]] == [
        ("M2", "violated", "SMTP, asked from line1"),
        ("M2", "compliant", "SMTP, asked from localhost"),
        ("M6", "compliant", "configuration"),
    ]
    page = (tmp_path / "reports" / "report.html").read_text(encoding="utf-8")
    assert "smtpd on 25 · evidence: SMTP, asked from line1" in page
    assert "smtpd on 25 · evidence: configuration" in page
    assert found["mx1"]["findings"][0]["packet"] == open_relay["packet"]
    assert (found["mx2"]["state"], found["mx2"]["message"]) == ("unreachable", "no answer")
    assert (found["mx2"]["verdict"], len(found["mx2"]["findings"])) == ("unknown", 1)
    assert (found["example.net"]["verdict"], len(found["example.net"]["findings"])) == ("compliant", 1)
    assert (found["mx3"]["state"], found["mx3"]["message"]) == ("failed", refused)
    assert found["mx3"]["verdict"] == "unknown"


def test_what_the_plays_of_the_signals_left_is_a_page_of_its_own(play: Play, tmp_path: Path) -> None:
    """On hosts that are not in the play that reports."""
    hosts: dict[str, dict[str, Any]] = {}
    for one in samples.signals():
        names = {"signals": "signals_status_result", "silences": "spam_suspects_result", "problems": "xbl_sweep_result"}
        name = next((name for key, name in names.items() if key in one), "quarantine_result")
        hosts.setdefault(one["host"], {})[name] = {key: value for key, value in one.items() if key != "host"}
    done = play(
        samples.run(samples.munich()),
        more={"signals": {"hosts": {"watch1": hosts["watch1"]}}, "edges": {"hosts": {"edge-lnx1": hosts["edge-lnx1"]}}},
    )
    told = json.loads((tmp_path / "reports" / "report.json").read_text(encoding="utf-8"))
    assert {host["name"] for host in told["hosts"]} == {"edge-muc1", "edge-new1"}
    assert told["signals"]["counts"]["in quarantine"] == 1
    assert [one["host"] for one in told["signals"]["actions"]] == ["edge-lnx1", "watch1"]
    assert "signals  2 suspect, 2 listed" in done.stdout
    assert 'id="signals"' in (tmp_path / "reports" / "report.html").read_text(encoding="utf-8")


def test_who_watches_the_signals_and_was_audited_has_a_verdict(play: Play, tmp_path: Path) -> None:
    """A mail host in the group `signals`; who only watched is no host of the report, who left nothing at all is one."""
    mx1 = {"mta_audit_result": {"findings": [finding("M2", "violated", "smtpd on 25", source="configuration")]}}
    mx2 = {"mta_audit_result": {"unreachable": True, "msg": "no answer"}}
    hosts = {"mx1": mx1, "mx2": mx2, "watch1": {"signals_status_result": {"changed": False}}, "watch2": {}}
    done = play(samples.run(samples.munich()), mail_hosts=hosts, more={"signals": {"hosts": dict.fromkeys(hosts)}})
    assert done.returncode != 0
    told = json.loads((tmp_path / "reports" / "report.json").read_text(encoding="utf-8"))
    verdicts = {host["name"]: host["verdict"] for host in told["hosts"] if not host["name"].startswith("edge-")}
    assert verdicts == {"mx1": "violated", "mx2": "not audited", "watch2": "not audited"}


def test_beside_a_router_that_was_changed_the_run_was_no_check(play: Play, tmp_path: Path) -> None:
    mx1 = {"mta_audit_result": {"findings": [finding("M6", "violated", "smtpd on 25")], "changed": False}}
    play(
        samples.run(samples.munich() | {"state": "changed"}),
        mail_hosts={"mx1": mx1, "watch1": {"signals_status_result": {"changed": False}}},
        more={"signals": {"hosts": {"mx1": {}, "watch1": {}}}},
    )
    told = json.loads((tmp_path / "reports" / "report.json").read_text(encoding="utf-8"))
    found = {host["name"]: host["verdict"] for host in told["hosts"]}
    assert found == {"mx1": "violated", "edge-muc1": "compliant", "edge-new1": "not audited"}
    assert told["mode"] == "apply"


@pytest.mark.parametrize("mode", ["check", "apply"])
def test_a_run_in_which_no_router_answered_says_what_it_was(play: Play, tmp_path: Path, mode: str) -> None:
    play(samples.run(samples.frankfurt()), mode=mode)
    assert json.loads((tmp_path / "reports" / "report.json").read_text(encoding="utf-8"))["mode"] == mode


def test_an_exception_ends_with_the_controllers_own_day(
    play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for the filters: read by UTC, the report would say in force what the push took away hours ago."""
    now = datetime.datetime.now(datetime.UTC)
    name, hours = ("Etc/GMT-14", 14) if now.hour >= 10 else ("Etc/GMT+12", -12)  # where it is another day
    here = (now + datetime.timedelta(hours=hours)).date()
    monkeypatch.setenv("TZ", name)
    until = min(here, now.date())
    exception = {"prefix": "198.51.100.7/32", "owner": "A", "reason": "B", "until": until.isoformat()}
    play(samples.run(samples.munich()), isp_policy=POLICY | {"exceptions": [exception]})
    told = json.loads((tmp_path / "reports" / "report.json").read_text(encoding="utf-8"))
    assert told["policy"]["exceptions"][0]["status"] == ("expired" if until < here else "ends soon")


def test_what_may_be_wrong_is_the_operators_choice(play: Play) -> None:
    assert play(samples.run(samples.munich()), report_fail_on=["violated"]).returncode == 0
    wrong = play(samples.run(samples.munich()), report_fail_on=["violatd"])
    assert wrong.returncode != 0
    assert "violatd" in wrong.stdout


def test_a_push_is_reported_with_its_diff(play: Play, tmp_path: Path) -> None:
    play(samples.push_run())
    told = json.loads((tmp_path / "reports" / "report.json").read_text(encoding="utf-8"))
    assert told["mode"] == "apply"
    berlin = next(host for host in told["hosts"] if host["name"] == "edge-ber1")
    assert berlin["changed"]
    assert "+ 20 deny tcp any any eq smtp" in berlin["diff"]
    assert "+snmp-server community <hidden> RO" in berlin["diff"]


def test_a_directory_that_cannot_be_written_says_so(play: Play, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    done = play(samples.run(samples.munich()), report_directory=str(tmp_path / "file" / "reports"))
    assert done.returncode != 0
    assert "cannot be written" in done.stdout
    assert "set another directory" in done.stdout
    assert "Traceback" not in done.stdout


def test_a_log_gets_one_line_for_each_router(play: Play) -> None:
    done = play(samples.audit_run())
    lines = [line.partition("] ")[2] for line in done.stdout.splitlines() if re.match(r"\[ *\d+/6\]", line)]
    assert sorted(lines) == [
        f"! edge-fra1  {samples.frankfurt()['message']}",
        "✓ edge-muc1  62 proved",
        "✗ edge-ber1  9 violated, 54 proved",
        "✗ edge-cgn1  3 violated, 33 proved",
        "✗ edge-ham1  1 violated, 2 unknown, 33 proved",
    ]
    assert "\x1b" not in done.stdout
    assert "\r" not in done.stdout
    assert '"evidence"' not in done.stdout  # the results themselves are not dumped


def test_a_terminal_gets_a_line_that_moves(play: Play) -> None:
    done = play(samples.audit_run(), terminal=True)
    assert "1 of 6 · 1 " in done.stdout
    assert "\r\x1b[2K" in done.stdout
    assert "\x1b[" in done.stdout.partition("hosts violate the policy")[0][-40:]  # the summary is coloured


@pytest.mark.parametrize(
    ("control", "configured", "verdict"),
    [
        ("M13", "compliant", "compliant"),
        ("M13", "unknown", "unknown"),
        ("M13", "violated", "unknown"),
        ("M6", "compliant", "unknown"),  # that a scanner is configured does not say that it answers
    ],
)
def test_what_smtp_leaves_open_the_configuration_decides(
    play: Play, tmp_path: Path, control: str, configured: str, verdict: str
) -> None:
    def finding(verdict: str, source: str) -> dict[str, Any]:
        base = {"control": control, "host": "mx1", "attachment": "smtpd on 25", "title": "...", "source": source}
        return base | {"verdict": verdict, "reason": "it was served early"}

    mx1 = {
        "mta_audit_result": {"findings": [finding(configured, "configuration")], "changed": False},
        "smtp_probe_result": {"results": [{"item": "line1", "findings": [finding("unknown", "SMTP")]}]},
    }
    play(samples.run(samples.munich()), mail_hosts={"mx1": mx1})
    told = json.loads((tmp_path / "reports" / "report.json").read_text(encoding="utf-8"))
    found = {host["name"]: host for host in told["hosts"]}["mx1"]["findings"]
    asked = next(one for one in found if "SMTP" in one["source"])
    assert asked["verdict"] == verdict
    if verdict == "compliant":
        assert asked["source"] == "configuration; SMTP, asked from line1, leaves it open: it was served early"
