# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The playbooks of the signals where something goes wrong: nobody is acted upon, and the run does not end well.

The playbooks are ours, and run in check mode on this machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
POLICY = {"pools": {"homes": {"kind": "dynamic", "ipv4": ["198.51.100.0/24"]}}, "smarthosts": []}
REPORT = f"- import_playbook: {ROOT / 'playbooks' / 'report.yml'}\n  vars: {{report_groups: [signals]}}\n"
SIGNALS = {"subscribers": 4000, "never": [{"prefix": "192.0.2.0/24", "reason": "own servers"}], "dry_run": False}


def play(folder: Path, name: str, text: str = "", **variables: object) -> subprocess.CompletedProcess[str]:
    """A playbook of ours, or `text` behind it, for one host that is all of the signals."""
    given = {"isp_policy": POLICY, "isp_signals": SIGNALS, **variables}
    given |= {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    hosts = {"all": {"children": {group: {"hosts": {"here": {}}} for group in ("signals", "edges")}, "vars": given}}
    (folder / "hosts.json").write_text(json.dumps(hosts))
    (folder / "play.yml").write_text(f"- import_playbook: {ROOT / 'playbooks' / name}\n{text}")
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "--check", "-i", "hosts.json", "play.yml"]
    paths = {"ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".collections"), "ANSIBLE_NOCOLOR": "1"}
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=120, env=os.environ | paths
    )


@pytest.mark.parametrize("go_on", [True, False])
def test_nobody_is_quarantined_without_a_way_out_and_the_report_fails(tmp_path: Path, go_on: bool) -> None:
    done = play(tmp_path, "quarantine.yml", REPORT, signals_go_on=go_on, report_directory=str(tmp_path / "reports"))
    assert "TASK [isp.hardening.quarantine : A way out]" in done.stdout, done.stdout + done.stderr
    assert "TASK [Which addresses are held]" not in done.stdout
    assert done.returncode
    if go_on:
        alarms = json.loads((tmp_path / "reports" / "report.json").read_text())["signals"]["alarms"]
        assert alarms[0].startswith("here: A way out: The policy of the signals has no portal")


def test_complaints_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    given = {"signals_go_on": True, "report_directory": str(tmp_path / "reports"), "notify_incoming": [{"pfad": "/"}]}
    assert play(tmp_path, "complaints.yml", REPORT, **given).returncode
    alarms = json.loads((tmp_path / "reports" / "report.json").read_text())["signals"]["alarms"]
    assert alarms == ["here: missing required arguments: path found in incoming"]


@pytest.mark.parametrize("go_on", [True, False])
def test_a_collector_that_cannot_be_set_up_is_told(tmp_path: Path, go_on: bool) -> None:
    given = {"signals_go_on": go_on, "report_directory": str(tmp_path / "reports"), "flow_collector_listeners": [{}]}
    assert play(tmp_path, "flow_collector.yml", REPORT, **given).returncode
    if go_on:
        alarms = json.loads((tmp_path / "reports" / "report.json").read_text())["signals"]["alarms"]
        assert len(alarms) == 1
        assert "missing required arguments: address, exporters, name found in flow_collector_listeners" in alarms[0]


def test_a_release_that_comes_to_no_host_is_told() -> None:
    ansible = str(Path(sys.executable).with_name("ansible-playbook"))
    given = ["-e", "release=198.51.100.22", "-e", "by=jane", "-e", "reason=clean"]
    command = [ansible, "-i", "mistyped", "playbooks/release.yml", *given]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode, done.stdout
    assert "nobody was let go" in done.stdout + done.stderr
