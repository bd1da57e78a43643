# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What goes wrong over real SSH, through ansible-playbook: each trouble with its own state and words, none lasting.

One fleet of lab routers, a trouble each, and three runs: with the troubles, without them, and once more for one router
of each platform.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.__main__ import CONFIGS, INVENTORY
from lab.routers import kind
from lab.routers.base import Router
from lab.server import LOOPBACK, Access, serve
from tests.unit.pushes import MINUTES, ROOT, Case, Watch, calm, cases, load

PASSWORD = "pass-of-this-test"
SECRET = "secret-of-this-test"
CASES = {case.network_os: case for case in cases()}
IOS, EOS, JUNOS = (CASES[name] for name in ("cisco_ios", "arista_eos", "juniper_junos"))


@dataclass
class Trouble:
    """A router with something wrong, and what the first run says of it: its state, and a regex of its words."""

    case: Case
    state: str
    words: str
    unreachable: bool = False
    faults: dict[str, Any] = field(default_factory=dict)  # attributes of the router's Faults
    variables: dict[str, Any] = field(default_factory=dict)  # of the first run; the others get the right ones
    secret: str = ""
    text: str = ""  # a configuration of its own
    lasting: bool = False  # the next run cannot mend it: the router itself has to be put right


def _troubles() -> dict[str, Trouble]:
    junos_confirm = len(JUNOS.plan(JUNOS.old).lines) + 6
    whole = IOS.router().snapshot()
    found = {
        "port-closed": Trouble(IOS, "unreachable", "port 1: ", unreachable=True, variables={"ansible_port": 1}),
        "password-wrong": Trouble(
            EOS, "login_refused", "refused the login of audit: check ansible_user, ansible_password or the key",
            unreachable=True, variables={"ansible_password": "not-it"},
        ),
        "key-unknown": Trouble(
            JUNOS, "unreachable", "port \\d+: Server .* not found in known_hosts: add its host key", unreachable=True,
            variables={"ansible_netmiko_known_hosts": os.devnull},
        ),
        "secret-wrong": Trouble(
            IOS, "login_refused", "did not give the privileged mode: check ansible_become_password", unreachable=True,
            secret=SECRET, variables={"ansible_become_password": "not-it"},
        ),
        "endless": Trouble(
            IOS, "failed", "'show running-config' printed more than 64 MiB.*; nothing was changed",
            faults={"outputs": {"show running-config": ["! all work and no play\n" * 4500] * 1000}},
        ),
        "escapes": Trouble(
            IOS, "failed", "cannot be used: .*escape", faults={"outputs": {"show running-config": f"\x1b[2J{whole}"}}
        ),
        "truncated": Trouble(
            IOS, "failed", "cannot be used: .*",
            faults={"outputs": {"show running-config": whole[: whole.index("\n", len(whole) // 2) + 1]}},
        ),
        "other-vendor": Trouble(
            IOS, "failed", "cannot be used: .*",
            faults={"outputs": {"show running-config": JUNOS.router().snapshot()}},
        ),
        "no-archive": Trouble(
            IOS, "rejected",
            "rejected 'configure terminal revert timer 5' with '%Error: Rollback Confirmed Change needs.*; "
            "nothing was changed",
            text=re.sub(r"^archive\n(?: .*\n)*", "", whole, flags=re.M), lasting=True,
        ),
        "hangs": Trouble(
            EOS, "session_lost", "no answer within 3 seconds; the router has its old filters",
            faults={"hang_at": 20}, variables={"ansible_command_timeout": 3},
        ),
        "cut-at-the-confirmation": Trouble(
            JUNOS, "changed", "changed, proved and confirmed", faults={"cut_after": junos_confirm}
        ),
    }  # fmt: skip
    for case in CASES.values():
        # Of each platform test_push.py cuts every command. Here it is one, and more where lines act at once (IOS), in a
        # session of their own (EOS) and in a candidate (Junos).
        cuts = {"line": 12}
        if case in (IOS, EOS, JUNOS):
            cuts |= {"arm": 1, "commit": len(case.plan(case.old).lines) + 2}
        for name, number in cuts.items():
            found[f"{case.network_os}-cut-at-{name}"] = Trouble(
                case, "session_lost", "the session was lost at '.*; the router has its old filters",
                faults={"cut_after": number},
            )  # fmt: skip
        found[f"{case.network_os}-line-rejected"] = Trouble(
            case, "rejected", "the router rejected '.*' with '.*; the router has its old filters",
            faults={"reject_at": 9},
        )  # fmt: skip
    return found


TROUBLES = _troubles()


@dataclass
class Run:
    """A run of ansible-playbook: its end, all it printed, and each router's result."""

    returncode: int
    output: str
    results: dict[str, dict[str, Any]]
    texts: dict[str, str]  # of the routers, after it


@dataclass
class Fleet:
    routers: dict[str, Router]
    watches: dict[str, Watch]
    first: Run
    second: Run
    third: Run


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("fleet")
    routers, watches = {}, {}
    for name, trouble in TROUBLES.items():
        text = trouble.text or (CONFIGS / f"{trouble.case.name}.cfg").read_text()
        router = kind(trouble.case.network_os)(name, text, trouble.secret)
        for fault, value in trouble.faults.items():
            setattr(router.faults, fault, value)
        routers[name], watches[name] = router, Watch(trouble.case, router)
        watches[name].by_text = True
    with serve(list(routers.values()), Access(password=PASSWORD)) as served:
        (folder / "known_hosts").write_text(served.known_hosts)

        def run(number: int, names: list[str]) -> Run:
            return _playbook(folder / str(number), served.ports, folder / "known_hosts", routers, names, number == 1)

        first = run(1, list(routers))
        for router in routers.values():
            router.faults.outputs = {}
        lasting = [name for name, trouble in TROUBLES.items() if not trouble.lasting]
        once_more = {TROUBLES[name].case.network_os: name for name in lasting}
        yield Fleet(routers, watches, first, run(2, lasting), run(3, list(once_more.values())))


def _playbook(
    folder: Path, ports: dict[str, int], known_hosts: Path, routers: dict[str, Router], names: list[str], troubled: bool
) -> Run:
    hosts = {}
    for name in names:
        trouble = TROUBLES[name]
        rows = load(INVENTORY / "host_vars" / f"{trouble.case.name}.yml")["isp_attachments"]
        own = [row for row in rows if row["name"] in trouble.case.names]
        hosts[name] = {
            "ansible_port": "{{ ssh_port }}", "ssh_port": ports[name],
            "ansible_network_os": "{{ vendor }}", "vendor": trouble.case.network_os,
            "ansible_become_password": SECRET,
            "isp_attachments": [row | {"replace_foreign": True} for row in own],
        } | (trouble.variables if troubled else {})  # fmt: skip
    everywhere = {
        "ansible_host": LOOPBACK, "ansible_connection": "isp.hardening.netmiko", "ansible_user": "audit",
        "ansible_password": PASSWORD, "ansible_netmiko_known_hosts": str(known_hosts),
    }  # fmt: skip
    everywhere |= load(INVENTORY / "group_vars" / "all" / "policy.yml")
    folder.mkdir()
    (folder / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts, "vars": everywhere}}, sort_keys=False))
    role = {"hosts": "all", "gather_facts": False, "roles": ["isp.hardening.edge_filter"]}
    (folder / "play.yml").write_text(yaml.safe_dump([role]))
    done = subprocess.run(
        [str(Path(sys.executable).with_name("ansible-playbook")), "-vvv", "-i", "hosts.yml", "play.yml"],
        cwd=folder, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        timeout=300, env=os.environ | {
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".collections"), "ANSIBLE_FORKS": "4", "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_CALLBACKS_ENABLED": "ansible.builtin.tree", "ANSIBLE_CALLBACK_TREE_DIR": str(folder / "results"),
        },
    )  # fmt: skip
    results = {path.name: json.loads(path.read_text()) for path in (folder / "results").iterdir()}
    return Run(done.returncode, done.stdout, results, {name: router.snapshot() for name, router in routers.items()})


def test_the_run_ends_with_an_error_and_no_traceback(fleet: Fleet) -> None:
    assert fleet.first.returncode == 4, fleet.first.output[-3000:]  # some are unreachable
    assert fleet.second.returncode == fleet.third.returncode == 0, fleet.second.output[-3000:]
    for run in (fleet.first, fleet.second, fleet.third):
        assert "Traceback" not in run.output
        assert "Exception" not in run.output, run.output[run.output.index("Exception") - 500 :][:1000]


def test_no_secret_is_shown_however_verbose(fleet: Fleet) -> None:
    for run in (fleet.first, fleet.second, fleet.third):
        for secret in (PASSWORD, SECRET, "not-it"):
            assert secret not in run.output
            assert secret not in json.dumps(run.results)


@pytest.mark.parametrize("name", TROUBLES)
def test_each_trouble_has_its_state_and_words(fleet: Fleet, name: str) -> None:
    trouble, result = TROUBLES[name], fleet.first.results[name]
    assert result["state"] == trouble.state, result["msg"]
    assert re.search(rf"^{name}: .*{trouble.words}", result["msg"]), result["msg"]
    recap = re.search(rf"^{name} +: .*unreachable=(\d) +failed=(\d)", fleet.first.output, re.M)
    assert recap
    assert recap[1] == str(int(trouble.unreachable))
    assert recap[2] == str(int(not trouble.unreachable and trouble.state != "changed"))
    assert result.get("changed", False) == (trouble.state == "changed")
    assert result["msg"].count("not found in known_hosts") < 2, "Ansible adds the words of a cause"


@pytest.mark.parametrize("name", TROUBLES)
def test_nothing_is_changed_nothing_leaks_and_the_next_run_mends_it(fleet: Fleet, name: str) -> None:
    trouble = TROUBLES[name]
    old = trouble.case.old if not trouble.text else fleet.first.texts[name]
    assert _lines(fleet.first.texts[name]) == _lines(trouble.case.new if trouble.state == "changed" else old)
    assert fleet.watches[name].leaks == []
    if trouble.lasting:
        return
    assert fleet.second.results[name]["state"] == ("unchanged" if trouble.state == "changed" else "changed")
    assert _lines(fleet.second.texts[name]) == _lines(trouble.case.new)
    if name in fleet.third.results:
        assert fleet.third.results[name]["state"] == "unchanged"
        assert not fleet.third.results[name]["changed"]
    fleet.routers[name].clock.advance(MINUTES * 60 + 1)
    assert _lines(fleet.routers[name].snapshot()) == _lines(trouble.case.new)


def test_nothing_was_typed_at_a_router_that_cannot_be_used(fleet: Fleet) -> None:
    reading = {"show running-config", "show configuration"}
    for name in ("escapes", "truncated", "other-vendor", "endless"):
        first = fleet.routers[name].sessions[0].lines
        assert {line for line in first if "terminal" not in line and line} <= reading, first
    for name in ("port-closed", "password-wrong", "key-unknown"):
        again = name in fleet.third.results
        assert len(fleet.routers[name].sessions) == 2 + again  # those of the second run and the third


def _lines(text: str) -> list[str]:
    return [line for line in calm(text).splitlines() if not re.match(r"hostname|! device", line)]
