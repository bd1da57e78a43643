# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A host whose own resolver finds nothing keeps the one that it has; and the DNSBL behind its key stays one."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path

import jinja2
import yaml

from tests.conftest import ROOT, Run


def test_a_resolver_that_finds_nothing_is_not_asked(run: Run, tmp_path: Path) -> None:
    """Also where /etc/resolv.conf is a symlink, as systemd-resolved has it."""
    (tmp_path / "stub.conf").write_text("nameserver 192.0.2.53\n")
    configuration = tmp_path / "resolv.conf"
    configuration.symlink_to("stub.conf")
    tasks = yaml.safe_load((ROOT / "roles" / "resolver" / "tasks" / "main.yml").read_text(encoding="utf-8"))[-2:]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as held:  # a port at which nobody answers
        held.bind(("127.0.0.1", 0))
        text = json.dumps(tasks).replace("/etc/resolv.conf", str(configuration))
        text = text.replace("('127.0.0.1', 53)", f"('127.0.0.1', {held.getsockname()[1]})").replace("(30)", "(1)")
        play = tmp_path / "play.yml"
        play.write_text(f'[{{"hosts": "localhost", "gather_facts": false, "tasks": {text}}}]')
        interpreter = f"ansible_python_interpreter={sys.executable}"
        answer = run("ansible-playbook", "-i", "localhost,", "-c", "local", "-e", interpreter, str(play))
    assert answer.returncode == 2
    assert "unbound does not answer" in answer.stdout
    assert configuration.is_symlink()
    assert configuration.read_text() == "nameserver 192.0.2.53\n"


def test_no_answer_of_the_root_hides_the_dnsbl() -> None:
    """Unbound 1.17 and 1.22 look into the cache first: a validated "no internal" in it was an answer for all below."""
    environment = jinja2.Environment(autoescape=False)
    environment.filters["flatten"] = list
    environment.tests["match"] = lambda *_: False
    path = ROOT / "roles" / "resolver" / "templates" / "unbound.conf.j2"
    template = environment.from_string(path.read_text(encoding="utf-8"))
    facts = {"resolver_policy": {"dnsbl_asked": "dnsbl.internal"}, "resolver_forward_zones": []}
    server = template.render(facts, resolver_keyed=True).partition("auth-zone:")[0]
    assert "    harden-below-nxdomain: no\n" in server
    assert "harden-below" not in template.render(facts, resolver_keyed=False)
