# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The check of a whole inventory: what is a mistake, what is only said, and the action as a user runs it."""

from __future__ import annotations

import datetime
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.isp.hardening.plugins.module_utils import platforms
from ansible_collections.isp.hardening.plugins.module_utils.inventory_check import (
    HostVariables,
    Verdict,
    check_inventory,
)
from ansible_collections.isp.hardening.plugins.module_utils.policy_files import Files, read_files

ROOT = Path(__file__).resolve().parent.parent.parent
TODAY = datetime.date(2026, 11, 23)
NO_FILES = Files((), (), ())
POLICY: dict[str, Any] = {"pools": {"homes": {"kind": "dynamic", "ipv4": ["198.51.100.0/24"]}}}
EXCEPTION = {"prefix": "198.51.100.7/32", "owner": "Example GmbH", "reason": "own MX", "until": "2027-01-31"}


def router(
    name: str = "r1", policy: object = POLICY, pools: tuple[str, ...] = ("homes",), **more: object
) -> HostVariables:
    attachments = [{"name": "eth1", "pools": list(pools)}] if pools else []
    values = {"isp_policy": policy, "isp_attachments": attachments, "ansible_network_os": "cisco_ios"}
    return HostVariables(name, ("routers",), values | more)


def check(*hosts: HostVariables, files: Files = NO_FILES) -> Verdict:
    return check_inventory(hosts, files, TODAY)


def test_a_good_inventory_gives_no_word() -> None:
    verdict = check(router(), router("r2"))
    assert (verdict.mistakes, verdict.warnings, verdict.expired, verdict.expiring) == ((), (), (), ())
    assert verdict.routers == ("r1", "r2")


def test_hosts_that_are_no_routers_are_left_alone() -> None:
    mail = HostVariables("mail1", (), {"isp_policy": POLICY})
    other = HostVariables("www1", (), {})
    assert check(router(), mail, other).mistakes == ()
    assert check(router(), mail, other).routers == ("r1",)


def test_a_broken_policy_is_found_on_a_host_that_is_no_router_too() -> None:
    mail = HostVariables("mail1", (), {"isp_policy": {"pools": {}}})
    assert [mistake.hosts for mistake in check(router(), mail).mistakes] == [("mail1",)]


def test_one_mistake_of_many_hosts_is_told_once() -> None:
    hosts = [router(f"r{number}", policy={"pools": {}}, pools=()) for number in range(5)]
    verdict = check(*hosts)
    assert len(verdict.mistakes) == 1
    unset = [HostVariables(host.host, host.groups, dict(host.values) | {"isp_attachments": None}) for host in hosts]
    told = [str(mistake) for mistake in check(*unset).mistakes if mistake.variable == "isp_attachments"]
    assert len(told) == 1
    assert told[0].startswith("host r0, r1, r2 and 2 more: isp_attachments: is not set; list")


def test_an_unknown_platform_names_the_known_ones() -> None:
    (mistake,) = check(router(ansible_network_os="cisco_asa")).mistakes
    assert mistake.reason == "unknown platform 'cisco_asa'"
    assert mistake.mend == f"set it to one of {', '.join(platforms.names())}"
    (mistake,) = check(router(ansible_network_os=None)).mistakes
    assert (mistake.variable, mistake.reason) == ("ansible_network_os", "is not set")


@pytest.mark.parametrize("name", platforms.names())
def test_every_platform_is_known_by_all_its_names(name: str) -> None:
    for network_os in (name, *platforms.load(name).ALIASES):
        assert check(router(ansible_network_os=network_os)).mistakes == ()


def test_an_inventory_without_routers_is_a_mistake_and_not_a_success() -> None:
    for hosts in ((), (HostVariables("www1", (), {}),)):
        (mistake,) = check(*hosts).mistakes
        assert str(mistake).startswith("inventory: has no routers; ")


@pytest.mark.parametrize(
    ("until", "told"),
    [
        ("2026-11-22", "expired on 2026-11-22 and counts as absent; extend or remove it"),
        ("2026-11-23", "expires today, 2026-11-23; extend or remove it"),
        ("2026-11-24", "expires tomorrow, 2026-11-24; extend or remove it"),
        ("2026-12-07", "expires in 14 days, on 2026-12-07; extend or remove it"),
        ("2026-12-08", ""),
    ],
)
def test_exceptions_are_announced(until: str, told: str) -> None:
    verdict = check(router(policy=POLICY | {"exceptions": [EXCEPTION | {"until": until}]}), router("r2"))
    assert verdict.mistakes == ()
    expected = f"the exception for 198.51.100.7/32 (Example GmbH) {told}"
    assert verdict.warnings == ((expected,) if told else ())
    assert len(verdict.expired) == (until < "2026-11-23")
    assert len(verdict.expiring) == ("2026-11-23" <= until <= "2026-12-07")


def test_what_has_no_effect_is_said() -> None:
    pools = POLICY["pools"] | {"shops": {"kind": "static", "ipv4": ["203.0.113.0/24"]}}
    exceptions = [EXCEPTION | {"prefix": "203.0.113.7", "controls": ["P1", "P4"]}, EXCEPTION | {"controls": ["P6"]}]
    verdict = check(router(policy={"pools": pools, "exceptions": exceptions}))
    one, other, pool = verdict.warnings
    assert one.endswith("has no effect on P1, which covers no static pools; take P1 out of it")
    assert other.endswith("has no effect on P6, which is switched off; take P6 out of it")
    assert pool == "pool 'shops' hangs on no attachment of any host, so that nothing filters it"


def test_a_pool_that_hangs_on_another_router_is_attached() -> None:
    pools = POLICY["pools"] | {"shops": {"kind": "static", "ipv4": ["203.0.113.0/24"]}}
    other = HostVariables("r2", ("other",), router("r2", policy={"pools": pools}, pools=("shops",)).values)
    assert check(router(policy={"pools": pools}), other).warnings == ()


def test_the_same_mistake_in_the_files_of_two_groups_is_told_for_both(tmp_path: Path) -> None:
    (tmp_path / "group_vars").mkdir()
    hosts = []
    for group in ("north", "south"):
        (tmp_path / "group_vars" / f"{group}.yml").write_text("isp_policy:\n  pools: {}\n")
        values = {"isp_policy": {"pools": {}}, "isp_attachments": [], "ansible_network_os": "cisco_ios"}
        hosts.append(HostVariables(f"r-{group}", (group,), values))
    verdict = check(*hosts, files=read_files([str(tmp_path)], base=str(tmp_path)))
    assert [mistake.place for mistake in verdict.mistakes] == ["group_vars/north.yml:2", "group_vars/south.yml:2"]


def run(inventory: Path, folder: Path) -> dict[str, Any]:
    """The action's result, as ansible-playbook gives it."""
    play, results = folder / "play.yml", folder / "results.json"
    play.write_text(
        "- hosts: localhost\n  gather_facts: false\n  tasks:\n"
        "    - isp.hardening.policy_check:\n      register: answer\n      ignore_errors: true\n"
        f"    - copy: {{content: '{{{{ answer | to_json }}}}', dest: {results}}}\n"
    )
    command = [
        "ansible-playbook",
        "-i",
        str(inventory),
        "-e",
        f"ansible_python_interpreter={sys.executable}",
        str(play),
    ]
    environment = os.environ | {"ANSIBLE_FORKS": "1"}
    answer = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert results.exists(), answer.stdout + answer.stderr
    return dict(json.loads(results.read_text()))


def test_the_example_inventory_is_good(tmp_path: Path) -> None:
    answer = run(ROOT / "inventories" / "example", tmp_path)
    assert answer["problems"] == []
    assert answer["msg"] == "the policy is good for 4 routers and 4 mail hosts"
    assert [warning for warning in answer.get("warnings", []) if "198.51.100.7" not in warning] == []


def test_the_action_reports_every_mistake_at_once(tmp_path: Path) -> None:
    inventory = tmp_path / "inventory"
    shutil.copytree(ROOT / "inventories" / "example", inventory)
    policy = inventory / "group_vars" / "all" / "policy.yml"
    text = policy.read_text()
    policy.write_text(text.replace("198.51.100.128/26", "198.51.100.129/26"))
    hosts = inventory / "hosts.yml"
    hosts.write_text(hosts.read_text().replace("arista_eos\n", "arista\n"))
    host = inventory / "host_vars" / "edge1.example.net.yml"
    host.write_text(host.read_text().replace("residential", "residental"))
    host = inventory / "host_vars" / "gw1.example.net.yml"
    host.write_text(host.read_text().replace("eth1", "'{{ port }}'"))
    answer = run(inventory, tmp_path)
    assert answer["failed"]
    assert answer["msg"].splitlines()[0] == "4 mistakes in the policy, and nothing was connected to:"
    assert {problem["place"].removeprefix(f"{inventory}/") for problem in answer["problems"]} == {
        "group_vars/all/policy.yml:19",
        "host_vars/edge1.example.net.yml:4",
        "host_vars/gw1.example.net.yml:2",
        "hosts.yml:30",
    }
    for line in (
        "198.51.100.129/26 has host bits set",
        "unknown pool 'residental'",
        "unknown platform 'arista'",
        "'port' is undefined",
    ):
        assert line in answer["msg"]


def test_a_file_that_ansible_cannot_load_is_told_with_its_line(tmp_path: Path) -> None:
    inventory = tmp_path / "inventory"
    shutil.copytree(ROOT / "inventories" / "example", inventory)
    with (inventory / "hosts.yml").open("a") as file:
        file.write("  more: [\n")
    with (inventory / "host_vars" / "gw1.example.net.yml").open("a") as file:
        file.write("a: b: c\n")
    answer = run(inventory, tmp_path)
    assert answer["failed"]
    ends = {name: (inventory / name).read_text().count("\n") for name in ("hosts.yml", "host_vars/gw1.example.net.yml")}
    assert [problem["place"].removeprefix(f"{inventory}/") for problem in answer["problems"]] == [
        f"host_vars/gw1.example.net.yml:{ends['host_vars/gw1.example.net.yml']}",
        f"hosts.yml:{ends['hosts.yml'] + 1}",
    ]


def playbook(inventory: Path) -> subprocess.CompletedProcess[str]:
    command = ["ansible-playbook", "-i", str(inventory), "playbooks/check.yml"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_the_playbook_does_not_end_well_without_an_inventory(tmp_path: Path) -> None:
    done = playbook(tmp_path / "mistyped")
    assert done.returncode, done.stdout
    assert "inventory: has no routers; give your routers" in done.stdout + done.stderr


def test_the_playbook_tells_routers_that_no_other_playbook_would_come_to(tmp_path: Path) -> None:
    assert playbook(ROOT / "inventories" / "example").returncode == 0
    inventory = tmp_path / "inventory"
    shutil.copytree(ROOT / "inventories" / "example", inventory)
    hosts = inventory / "hosts.yml"
    hosts.write_text(hosts.read_text().replace("    routers:\n", "    edge_routers:\n"))
    done = playbook(inventory)
    assert done.returncode, done.stdout
    told = re.search(r"not in the group routers, and never audited there: (.*); add them", done.stdout + done.stderr)
    assert told, done.stdout + done.stderr
    assert len(told[1].split(", ")) == 4
