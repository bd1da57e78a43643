# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Audit and push over a fleet of the lab's IOS routers: this collection, cisco.ios, and a task that does nothing.

All three run in `ansible-playbook` with the same inventory, forks and callback. CPU seconds are those of the whole
tree of processes, the lab's own left out.
"""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import jinja2
import ruamel.yaml

from ansible_collections.isp.hardening.plugins.module_utils.audit import audit
from ansible_collections.isp.hardening.plugins.module_utils.plan import propose
from ansible_collections.isp.hardening.plugins.module_utils.platforms import cisco_ios
from ansible_collections.isp.hardening.plugins.module_utils.policy import read_attachments, read_policy
from lab.__main__ import INVENTORY
from tests.bench.routers import device

ROOT = Path(__file__).parents[2]
FORKS = 20
_YAML = ruamel.yaml.YAML(typ="safe")

# As in playbooks/.
_ROLE = """
    - ansible.builtin.import_role: {name: isp.hardening.edge_filter, rolespec_validate: false}
"""
_GATHER = """
    - cisco.ios.ios_acls: {state: gathered}
    - cisco.ios.ios_acl_interfaces: {state: gathered}
"""
# The network_cli plays read once and push blindly; ours read, prove, push, log in afresh, read and prove again.
PLAYS = {
    "audit": f"- hosts: all\n  check_mode: true\n  tasks:{_ROLE}",
    "push": f"- hosts: all\n  tasks:{_ROLE}",
    "cisco.ios audit": f"- hosts: all\n  tasks:{_GATHER}",
    "cisco.ios push": f"- hosts: all\n  tasks:{_GATHER}    - cisco.ios.ios_config: {{src: push.cfg}}\n",
    "nothing": "- hosts: all\n  tasks:\n    - nothing:\n",
}
_NOTHING = '''"""Does nothing."""

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    def run(self, tmp=None, task_vars=None):
        return super().run(tmp, task_vars)
'''


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU and wall seconds of one run of ansible-playbook; peak resident memory in MB of its largest process."""

    cpu: float
    wall: float
    rss: float


def measured(play: str, routers: int) -> Cost:
    """One run over routers as the lab's configuration has them. Raises RuntimeError when it fails."""
    with tempfile.TemporaryDirectory(prefix="isp-bench-") as name:
        directory = Path(name)
        with _served(directory, routers) as ports:
            _write(directory, ports, network_cli=play.startswith("cisco.ios"))
            (directory / "play.yml").write_text(PLAYS[play])
            return ansible_playbook(
                directory, "-i", "hosts.yml", "play.yml",
                ANSIBLE_HOST_KEY_CHECKING=str(not play.startswith("cisco.ios")),
                ANSIBLE_PERSISTENT_CONTROL_PATH_DIR=str(directory / "pc"),
            )  # fmt: skip


def ansible_playbook(directory: Path, *arguments: str, **settings: str) -> Cost:
    """One run in a directory that gets its log. Raises RuntimeError when it fails."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")},
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_HOME": str(directory / "home"),
        "ANSIBLE_FORKS": str(FORKS), **settings,
    }  # fmt: skip
    command = [
        sys.executable, str(ROOT / "tests" / "bench" / "measure.py"), str(directory / "cost.json"),
        str(Path(sys.executable).parent / "ansible-playbook"), *arguments,
    ]  # fmt: skip
    with (directory / "log").open("w") as log:
        subprocess.run(command, cwd=directory, env=environment, stdout=log, stderr=log, check=True)
    cost = json.loads((directory / "cost.json").read_text())
    if cost.pop("code"):
        said = (directory / "log").read_text()
        raise RuntimeError(f"ansible-playbook {' '.join(arguments)} failed:\n{said[-4000:]}")
    return Cost(**cost)


def best(play: str, routers: int, repeat: int) -> Cost:
    """The least of each figure over some runs."""
    runs = [measured(play, routers) for _ in range(repeat)]
    return Cost(*(min(getattr(run, name) for run in runs) for name in Cost.__slots__))


def extrapolated(few: Cost, more: Cost, counts: tuple[int, int], routers: int) -> Cost:
    """What so many routers would cost, from the costs of two smaller counts."""
    far = (routers - counts[0]) / (counts[1] - counts[0])
    return Cost(few.cpu + (more.cpu - few.cpu) * far, few.wall + (more.wall - few.wall) * far, 0)


def reference_versions() -> Iterator[tuple[str, str]]:
    """The collections that the comparison uses, where they are here."""
    for name in ("cisco.ios", "ansible.netcommon"):
        for folder in sys.path:
            manifest = Path(folder) / "ansible_collections" / name.replace(".", "/") / "MANIFEST.json"
            if manifest.is_file():
                yield name, json.loads(manifest.read_text())["collection_info"]["version"]


def available(play: str) -> bool:
    """Whether this environment has what the play uses."""
    return not play.startswith("cisco.ios") or any(name == "cisco.ios" for name, _ in reference_versions())


@contextmanager
def _served(directory: Path, routers: int) -> Iterator[dict[str, int]]:
    """The routers in a process of their own; their ports by name."""
    command = [sys.executable, "-m", "tests.bench.routers", str(directory), str(routers)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / ".collections"), str(ROOT)])}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin
        assert process.stdout
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.stdin.close()


def _write(directory: Path, ports: dict[str, int], network_cli: bool) -> None:
    """Inventory, the no-op action, and what network_cli shall push: what this collection would."""
    shared = _YAML.load(INVENTORY / "group_vars" / "all" / "policy.yml")
    attachments = _YAML.load(INVENTORY / "host_vars" / "bng1.yml")
    variables = {
        **shared, **attachments,
        "ansible_host": "127.0.0.1", "ansible_user": "audit", "ansible_password": "lab-only",
        "ansible_network_os": "cisco.ios.ios",
        "ansible_connection": "ansible.netcommon.network_cli" if network_cli else "isp.hardening.netmiko",
        "ansible_netmiko_known_hosts": str(directory / "known_hosts"),
    }  # fmt: skip
    hosts = {name: {"ansible_port": port} for name, port in ports.items()}
    (directory / "hosts.yml").write_text(json.dumps({"all": {"vars": variables, "hosts": hosts}}, default=str))
    (directory / "action_plugins").mkdir()
    (directory / "action_plugins" / "nothing.py").write_text(_NOTHING)
    if network_cli:
        (directory / "push.cfg").write_text("\n".join(_pushed(shared["isp_policy"], attachments["isp_attachments"])))


def _pushed(policy_data: object, attachments_data: object) -> Sequence[str]:
    policy, problems = read_policy(policy_data, datetime.date.today())
    assert policy, problems
    attachments, problems = read_attachments(attachments_data, policy)
    assert not problems
    running = device(1).snapshot()
    found = audit(cisco_ios.parse(running), policy, attachments, "bench", cisco_ios.LINK_LOCAL)
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((ROOT / "roles/edge_filter/templates/cisco_ios.j2").read_text(encoding="utf-8"))
    rendered: list[str] = []

    def render(fields: dict[str, object]) -> str:
        rendered.append(template.render(fields))
        return rendered[-1]

    propose(cisco_ios, running, policy, attachments, found, render, None)
    return rendered[-1].splitlines()
