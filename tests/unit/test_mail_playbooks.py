# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""playbooks/mail.yml as a table of contents: which roles come to which host, and what becomes of a host that fails.

The playbooks are ours; roles and modules stand in, and write down who called them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROLES = ("resolver", "antivirus", "spam_filter", "mta_inbound", "mta_outbound")
ROLE = """
- name: Take note
  ansible.builtin.lineinfile:
    path: "{notes}/{{{{ inventory_hostname }}}}"
    line: {role}
    create: true
    mode: "0644"

- name: Have the file checked
  ansible.builtin.fail:
    msg: the daemon refuses its file
  when: inventory_hostname == 'out1' and '{role}' == 'antivirus'
"""
MODULE = """
from ansible.module_utils.basic import AnsibleModule

def main():
    module = AnsibleModule({{name: {{"type": "raw"}} for name in {options}}}, supports_check_mode=True)
    module.exit_json(findings=[
        {{"control": "{control}", "host": "{host}", "attachment": "smtpd", "title": "...", "verdict": "compliant"}}
    ])

main()
"""
FACTS = """
from ansible.module_utils.basic import AnsibleModule

AnsibleModule({{"gather_subset": {{"type": "raw"}}}}, supports_check_mode=True).exit_json(
    ansible_facts={{"distribution": "Debian", "distribution_major_version": "{release}"}}
)
"""
POLICY = {
    "pools": {"homes": {"kind": "dynamic", "ipv4": ["198.51.100.0/24"]}},
    "smarthosts": [{"name": f"out{number}", "ipv4": [f"192.0.2.2{number}"]} for number in (1, 2)],
}
MAIL = {
    "domains": ["example.net"],
    "postmaster": "noc@example.net",
    "inbound": [
        {"host": f"mx{number}", "name": f"mx{number}.example.net", "ipv4": f"192.0.2.1{number}"} for number in (1, 2)
    ],
    "outbound": [
        {"host": f"out{number}", "name": f"out{number}.example.net", "ipv4": f"192.0.2.2{number}"} for number in (1, 2)
    ],
    "mailbox_store": {"host": "[192.0.2.40]"},
    "dkim": {"selector": "isp1", "key_file": "/srv/isp1.key"},
    "tls": {"certificate": "/etc/ssl/mail/chain.pem", "key": "/etc/ssl/mail/key.pem"},
    "probe": {"target": "relay-test@example.org"},
}


@pytest.fixture
def collection(tmp_path: Path, root: Path) -> Path:
    """A collection with our playbooks, actions and report, and with stand-ins for what would touch a host."""
    place = tmp_path / "ansible_collections" / "isp" / "hardening"
    (place / "plugins" / "modules").mkdir(parents=True)
    (place / "roles").mkdir()
    (tmp_path / "notes").mkdir()
    for name in ("galaxy.yml", "meta", "playbooks"):
        (place / name).symlink_to(root / name)
    for folder in ("action", "callback", "filter", "module_utils", "plugin_utils"):
        (place / "plugins" / folder).symlink_to(root / "plugins" / folder)
    stands_in = {"mta_audit": ("M2", "?"), "smtp_probe": ("M8", "?"), "dns_audit": ("M14", "example.net")}
    for module in (root / "plugins" / "modules").glob("*.py"):
        target = place / "plugins" / "modules" / module.name
        if module.stem in stands_in:
            control, host = stands_in[module.stem]
            options = list(
                yaml.safe_load(module.read_text().split('DOCUMENTATION = r"""')[1].split('"""')[0])["options"]
            )
            target.write_text(MODULE.format(options=options, control=control, host=host))
        else:
            target.symlink_to(module)
    for role in ROLES:
        (place / "roles" / role / "tasks").mkdir(parents=True)
        for name, note in (("main", role), ("certificate", f"{role}/certificate")):
            tasks = ROLE.format(role=note, notes=tmp_path / "notes")
            (place / "roles" / role / "tasks" / f"{name}.yml").write_text(tasks)
    (place / "roles" / "report").symlink_to(root / "roles" / "report")
    (tmp_path / "library").mkdir()
    for release in ("11", "12", "13"):
        (tmp_path / "library" / f"debian_{release}.py").write_text(FACTS.format(release=release))
    return place


def play(collection: Path, tmp_path: Path, root: Path, *options: str) -> dict[str, Any]:
    """The hosts of the report by name, with the run's mode as "mode"."""
    local = {"ansible_connection": "ansible.builtin.local", "ansible_python_interpreter": sys.executable}
    hosts = {
        "mx": {
            "mx1": local | {"ansible_facts_modules": ["debian_13"]},
            "mx2": local | {"ansible_facts_modules": ["debian_11"]},
        },
        "outbound": {
            "out1": local | {"ansible_facts_modules": ["debian_12"]},
            "out2": {"ansible_host": "127.0.0.1", "ansible_port": 1},  # nobody listens
        },
    }
    common = {"isp_policy": POLICY, "isp_mail": MAIL, "report_directory": str(tmp_path / "reports")}
    children = {group: {"hosts": members} for group, members in hosts.items()}
    inventory = tmp_path / "hosts.yml"
    inventory.write_text(json.dumps({"all": {"vars": common, "children": children}}))
    environment = os.environ | {
        "ANSIBLE_CONFIG": str(root / "ansible.cfg"), "ANSIBLE_COLLECTIONS_PATH": str(tmp_path),
        "ANSIBLE_LIBRARY": str(tmp_path / "library"),
    }  # fmt: skip
    done = subprocess.run(
        ["ansible-playbook", "-i", str(inventory), str(collection / "playbooks" / "mail.yml"), *options],
        env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    report = tmp_path / "reports" / "report.json"
    assert report.exists(), done.stdout + done.stderr
    assert done.returncode != 0  # three of four hosts did not end well
    told = json.loads(report.read_text())
    return {host["name"]: host for host in told["hosts"]} | {"mode": told["mode"]}


def test_every_host_gets_its_roles_and_ends_in_the_report(collection: Path, tmp_path: Path, root: Path) -> None:
    found = play(collection, tmp_path, root)
    notes = {path.name: path.read_text().split() for path in (tmp_path / "notes").iterdir()}
    assert notes == {
        "mx1": ["mta_inbound/certificate", "resolver", "antivirus", "spam_filter", "mta_inbound"],
        "out1": ["mta_outbound/certificate", "resolver", "antivirus"],
    }
    assert found["mode"] == "apply"
    assert found.keys() == {"mx1", "mx2", "out1", "out2", "example.net", "mode"}
    assert (found["mx1"]["state"], found["mx1"]["platform"]) == ("configured", "Debian 13")
    assert [one["control"] for one in found["mx1"]["findings"]] == [
        "M2",
        "M8",
        "M8",
    ]  # asked over SMTP, and of the blocklist
    assert found["mx2"]["state"] == "failed"
    assert "Debian 11 is neither Debian 12 nor Debian 13, so nothing was changed" in found["mx2"]["message"]
    assert found["out1"]["state"] == "failed"
    assert "the daemon refuses its file" in found["out1"]["message"]
    assert found["out1"]["findings"]  # it is audited as it is
    assert found["out2"]["state"] == "unreachable"
    assert [one["control"] for one in found["example.net"]["findings"]] == ["M14"]


def test_check_mode_changes_nothing_and_says_so(collection: Path, tmp_path: Path, root: Path) -> None:
    found = play(collection, tmp_path, root, "--check")
    assert list((tmp_path / "notes").iterdir()) == []
    assert found["mode"] == "check"
    assert found["mx1"]["state"] == "audited"
    assert "Debian 11 is neither" in found["mx2"]["message"]
