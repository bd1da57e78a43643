# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The gate of a push, through ansible-playbook: routers of the lab, a real Linux router, and files of nfcapd.

The flows are written by hand. Three runs: the check, the push with hosts that are refused, and one that is let through.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("numpy")

from lab.__main__ import INVENTORY
from lab.routers.base import Router
from lab.routers.linux_nftables import Device
from lab.server import LOOPBACK, Access, serve
from tests.conftest import Run
from tests.signals.flows import write_nfcapd
from tests.signals.test_impact import SYN, Row, flows
from tests.unit.pushes import ROOT, calm, cases, load

PASSWORD = "pass-of-this-test"
LINUX = Device.unavailable()
IOS = next(case for case in cases() if case.network_os == "cisco_ios")

# bng1 lets mail servers answer subscribers whom the policy lets send to the smarthosts alone (P2).
ANSWERS = [Row("203.0.113.99", f"198.51.100.{host}", 40000 + host, 25) for host in (9, 10)]
FILES = {
    "answers": ANSWERS,
    "mx1": [Row("192.0.2.21", "198.51.100.9", 40000, 25)],
    # The exempt customer of the lab's policy, and one who is not.
    "exempt": [Row("198.51.100.7", "203.0.113.99", 445, flags=SYN)],
    "worm": [
        Row("198.51.100.8", "203.0.113.99", 445, flags=SYN),
        Row("198.51.100.7", "203.0.113.99"),
        Row("198.51.100.130", "203.0.113.99", 443),  # of the other interface
    ],
}
WIDE = {"subscribers": 2, "established": 2}


@dataclass(frozen=True)
class Refused:
    files: tuple[str, ...]
    words: str
    budget: dict[str, int] | None = None


REFUSED = {
    "never": Refused(("mx1",), r"192\.0\.2\.0/24 \(own servers\) would be cut: 198\.51\.100\.9, .*192\.0\.2\.21", WIDE),
    "budget": Refused(
        ("answers",),
        r"2 subscribers would newly be denied, the budget is 0; 2 established mail sessions would newly be denied, the "
        r"budget is 0; most to tcp 203\.0\.113\.99 port 25 \(source\)",
    ),
    "truncated": Refused(
        ("answers", "truncated"), r"it is not known what it would do to the recorded flows: .*truncated"
    ),
}


@dataclass
class Play:
    returncode: int
    output: str
    results: dict[str, dict[str, Any]]
    texts: dict[str, str]  # of the routers, after it


@dataclass
class Runs:
    before: dict[str, str]
    check: Play
    first: Play
    second: Play


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    folder = tmp_path_factory.mktemp("gate")
    for name, rows in FILES.items():
        write_nfcapd(folder / name, [flows(rows)])
    (folder / "truncated").write_bytes((folder / "answers").read_bytes()[:100])
    routers: dict[str, Router] = {name: IOS.router() for name in (*REFUSED, "allowed")}
    for name, router in routers.items():
        router.name = name
    linux = Device("nat1", "flush ruleset\n", Device.load("nat1", ROOT / "lab" / "configs").links)
    with serve(list(routers.values()), Access(password=PASSWORD)) as served:
        known = served.known_hosts
        if not LINUX:
            known += f"[127.0.0.1]:{{port}} {linux.start('127.0.0.1', 0, folder)}\n"
            known = known.replace("{port}", str(linux.ssh_port))
        (folder / "known_hosts").write_text(known)

        def snapshot() -> dict[str, str]:
            found = {name: calm(router.snapshot()) for name, router in routers.items()}
            return found if LINUX else found | {"linux": linux.snapshot()}

        def run(number: int, gates: dict[str, tuple[tuple[str, ...], dict[str, int] | None]], *options: str) -> Play:
            hosts = {}
            for name, (files, budget) in gates.items():
                ports = {"ansible_port": linux.ssh_port if name == "linux" else served.ports[name]}
                hosts[name] = ports | (_linux(folder) if name == "linux" else _ios())
                hosts[name]["edge_filter_impact"] = {
                    "flows": [str(folder / file) for file in files], "budget": budget or {},
                    "never": [{"prefix": "192.0.2.0/24", "reason": "own servers"}],
                    "alarmed": ["198.51.100.8"],
                }  # fmt: skip
            done = _playbook(folder / str(number), hosts, folder / "known_hosts", *options)
            return Play(*done, snapshot())

        try:
            before = snapshot()
            refused = {name: (one.files, one.budget) for name, one in REFUSED.items()}
            exempt = {} if LINUX else {"linux": (("exempt",), {"subscribers": 9, "established": 9})}
            worm = {} if LINUX else {"linux": (("worm",), {"subscribers": 1})}
            yield Runs(
                before,
                run(1, {"never": refused["never"], "truncated": refused["truncated"], **exempt}, "--check"),
                run(2, {**refused, "allowed": (("answers",), WIDE), **exempt}),
                run(3, {"allowed": (("mx1",), None), **worm}),
            )
        finally:
            linux.stop()


def _ios() -> dict[str, Any]:
    rows = load(INVENTORY / "host_vars" / f"{IOS.name}.yml")["isp_attachments"]
    return {
        "ansible_network_os": "cisco_ios", "ansible_connection": "isp.hardening.netmiko", "ansible_user": "audit",
        "ansible_password": PASSWORD, "isp_attachments": [row for row in rows if row["name"] in IOS.names],
    }  # fmt: skip


def _linux(folder: Path) -> dict[str, Any]:
    return load(INVENTORY / "host_vars" / "nat1.yml") | {
        "ansible_network_os": "linux_nftables", "ansible_connection": "ansible.builtin.ssh", "lab_state": str(folder),
    }  # fmt: skip


def _playbook(
    folder: Path, hosts: dict[str, Any], known_hosts: Path, *options: str
) -> tuple[int, str, dict[str, dict[str, Any]]]:
    everywhere = {
        "ansible_host": LOOPBACK,
        "ansible_netmiko_known_hosts": str(known_hosts),
        "edge_filter_hygiene": False,
    }
    policy = load(INVENTORY / "group_vars" / "all" / "policy.yml")["isp_policy"]
    folder.mkdir()
    inventory = {"all": {"hosts": hosts, "vars": everywhere | {"isp_policy": policy}}}
    (folder / "hosts.yml").write_text(yaml.safe_dump(inventory, sort_keys=False))
    (folder / "play.yml").write_text(
        yaml.safe_dump([{"hosts": "all", "gather_facts": False, "roles": ["isp.hardening.edge_filter"]}])
    )
    done = subprocess.run(
        [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "hosts.yml", "play.yml", *options],
        cwd=folder, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        timeout=300, env=os.environ | {
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".collections"), "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_CALLBACKS_ENABLED": "ansible.builtin.tree", "ANSIBLE_CALLBACK_TREE_DIR": str(folder / "results"),
        },
    )  # fmt: skip
    results = {path.name: json.loads(path.read_text()) for path in (folder / "results").iterdir()}
    return done.returncode, done.stdout, results


needs_linux = pytest.mark.skipif(bool(LINUX), reason=f"the Linux router cannot run here: {LINUX}")


@pytest.mark.parametrize("name", REFUSED)
def test_a_push_beyond_the_gate_is_refused_and_nothing_is_changed(runs: Runs, name: str) -> None:
    result = runs.first.results[name]
    assert result["state"] == "refused", result["msg"]
    assert re.search(rf"^{name} +: .* failed=1 ", runs.first.output, re.M)
    assert re.search(REFUSED[name].words, result["msg"]), result["msg"]
    assert result["msg"].endswith("nothing was changed")
    assert not {"steps", "backup"} & result.keys()
    assert runs.first.texts[name] == runs.before[name]
    assert "Traceback" not in runs.first.output


def test_a_push_within_the_budget_is_made(runs: Runs) -> None:
    result = runs.first.results["allowed"]
    assert result["state"] == "changed", result["msg"]
    assert result["impact"]["refused"] == ""
    assert (result["impact"]["denied"]["subscribers"], result["impact"]["denied"]["sessions"]) == (2, 2)
    assert runs.first.texts["allowed"] != runs.before["allowed"]


def test_where_nothing_is_pushed_no_flow_is_looked_at(runs: Runs) -> None:
    result = runs.second.results["allowed"]
    assert result["state"] == "unchanged"
    assert "impact" not in result


def test_in_check_mode_it_is_told_and_nothing_fails(runs: Runs) -> None:
    for name in runs.check.results.keys() & REFUSED.keys():
        result = runs.check.results[name]
        assert (result["state"], result.get("failed", False)) == ("audited", False)
        assert re.search(f"the push would be refused: .*{REFUSED[name].words}", result["msg"])
        assert runs.check.texts[name] == runs.before[name]
    assert runs.check.returncode == 0, runs.check.output[-2000:]


@needs_linux
def test_an_exempt_subscriber_blocks_the_push_to_a_real_router(runs: Runs) -> None:
    assert "the push would be refused: 198.51.100.7/32" in runs.check.results["linux"]["msg"]
    result = runs.first.results["linux"]
    assert result["state"] == "refused"
    why = r"198\.51\.100\.7/32 \(exempt until 2099-12-31: .*\) would be cut: 198\.51\.100\.7, tcp port 445, 203\.0"
    assert re.search(why, result["msg"]), result["msg"]
    assert runs.first.texts["linux"] == runs.before["linux"]


@needs_linux
def test_the_same_push_is_made_where_it_cuts_only_whom_it_may(runs: Runs) -> None:
    result = runs.second.results["linux"]
    assert result["state"] == "changed", result["msg"]
    denied = result["impact"]["denied"]
    assert (denied["subscribers"], denied["alarmed"], denied["flows"]) == (1, 1, 1)
    assert "table inet isp" in runs.second.texts["linux"] or "ISP-" in runs.second.texts["linux"]


def test_the_module_compares_a_file_with_what_the_role_would_write(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bng1.cfg").write_text(IOS.old)
    write_nfcapd(tmp_path / "nfcapd.202611250000", [flows([*ANSWERS, *FILES["worm"]])])
    policy = load(INVENTORY / "group_vars" / "all" / "policy.yml")["isp_policy"]
    place = {"name": IOS.names[0], "pools": ["residential"]}
    asked = {
        "before": {"config": str(tmp_path / "bng1.cfg")}, "after": {"policy": policy, "attachments": [place]},
        "attachment": IOS.names[0], "direction": "down", "subscribers": ["198.51.100.0/25"], "flows": [str(tmp_path)],
    }  # fmt: skip
    command = ("ansible", "localhost", "-e", "ansible_network_os=cisco_ios", "-m", "isp.hardening.filter_impact", "-a")
    answer = run(*command, json.dumps(asked)).stdout
    found = json.loads(answer[answer.index("{") :])
    assert (found["flows"], found["seen"], found["denied"]["sessions"], found["permitted"]["flows"]) == (5, 2, 2, 0)
    [example] = found["denied"]["examples"]
    assert re.match(r"permit: line \d+: 160 permit ip any any$", example["before"])
    assert re.match(r"deny: line \d+: .*deny tcp any eq (smtp|25) any", example["after"]), example["after"]
