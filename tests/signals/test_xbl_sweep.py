# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The module xbl_sweep, as Ansible runs it."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ruamel.yaml import YAML

from ansible_collections.isp.hardening.plugins.doc_fragments.identity import ModuleDocFragment as Identity
from ansible_collections.isp.hardening.plugins.module_utils.documentation import argument_spec
from ansible_collections.isp.hardening.plugins.module_utils.signals.xbl_service import LOCK
from ansible_collections.isp.hardening.plugins.modules import xbl_sweep
from ansible_collections.isp.hardening.plugins.modules.xbl_sweep import ARGUMENTS
from tests.conftest import ROOT
from tests.signals.dnsbl import LISTED_TEST, ZONE, dnsbl

KEY = "abcdefghijklmnopqrstuvwxyz"
CASE = {
    "key": "case-1",
    "subscriber": "alice",
    "prefixes": ["198.51.100.7/32"],
    "sources": ["D2"],
    "since": 1,
    "evidence": ["18 servers in a minute"],
}
Call = Callable[..., dict[str, Any]]


@pytest.fixture
def listed() -> set[str]:
    return {LISTED_TEST, "198.51.100.7", "198.51.100.9"}


@pytest.fixture
def call(tmp_path: Path, capsys: pytest.CaptureFixture[str], listed: set[str]) -> Iterator[Call]:
    """`call(check=True, …)`: the module's answer."""
    with dnsbl(lambda one: ["127.0.0.4"] if one in listed else [], f"{KEY}.{ZONE}") as server:

        def ask(check: bool = False, **more: object) -> dict[str, Any]:
            arguments = {
                "own": ["198.51.100.0/28"],
                "zone": ZONE,
                "dqs_key": KEY,
                "port": server.port,
                "rate": 0,
                "identity": {"static": {"198.51.100.7/32": "alice"}},
                "state": str(tmp_path / "signals.db"),
                "lock": str(tmp_path / "xbl.lock"),
                "_ansible_check_mode": check,
            }
            with patch_module_args(arguments | more), pytest.raises(SystemExit):
                xbl_sweep.main()
            said = capsys.readouterr().out
            assert KEY not in said
            answer: dict[str, Any] = json.loads(said)
            return answer

        yield ask


def test_the_module_says_what_it_takes() -> None:
    hidden = {name for name, option in ARGUMENTS.items() if option.get("no_log")}
    assert hidden == {"dqs_key", "sia_password", "state"}
    told = {name: {key: one for key, one in option.items() if key != "no_log"} for name, option in ARGUMENTS.items()}
    assert argument_spec(xbl_sweep.DOCUMENTATION, Identity.DOCUMENTATION) == told


def test_listings_become_one_case_with_those_of_the_detectors(call: Call) -> None:
    answer = call(cases=[CASE])
    assert not answer["frozen"]
    assert [(one["network"], one["list"]) for one in answer["came"]] == [
        ("198.51.100.7", "XBL"),
        ("198.51.100.9", "XBL"),
    ]
    [case] = answer["cases"]  # of 198.51.100.9 nobody knows whose it is
    assert (case["key"], case["subscriber"], case["sources"]) == ("case-1", "alice", ["D2", "XBL"])
    assert case["prefixes"] == ["198.51.100.7/32"]
    assert "198.51.100.7 is on the list XBL since" in case["evidence"][1]
    assert [(one["still"], len(one["came"])) for one in [call()]] == [(2, 0)]


def test_check_mode_tells_the_same_and_keeps_nothing(call: Call, tmp_path: Path) -> None:
    would = call(check=True)
    assert not list(tmp_path.glob("*.db"))
    assert not list(tmp_path.glob("*.lock"))
    did = call()
    assert [one["network"] for one in would["came"]] == [one["network"] for one in did["came"]]
    assert [one["subscriber"] for one in would["cases"]] == ["alice"]


def test_a_frozen_run_is_told_and_keeps_the_cases(call: Call, listed: set[str]) -> None:
    call()
    listed |= {"127.0.0.1"}
    listed -= {"198.51.100.7"}
    answer = call()
    assert "127.0.0.1 is listed" in answer["frozen"]
    assert (answer["came"], answer["went"], answer["unanswered"]) == ([], [], 2)
    assert [one["subscriber"] for one in answer["cases"]] == ["alice"]


def test_while_the_timer_asks_what_is_known_is_told(call: Call, tmp_path: Path) -> None:
    call()
    with open(tmp_path / "xbl.lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        answer = call()
    assert "another run" in answer["problems"][0]
    assert (answer["came"], answer["went"]) == ([], [])
    assert [one["subscriber"] for one in answer["cases"]] == ["alice"]
    assert len(answer["episodes"]) == 2


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"own": ["198.51.100.1/28"]}, "own: 198.51.100.1/28"),
        ({"source": "sia"}, "sia_username and sia_password are missing"),
        ({"cases": [{"key": ""}]}, "case"),
        ({"state": "signals.db"}, "state: write a whole path"),
        ({"lock": "/proc/none/lock"}, "/proc/none/lock"),
    ],
)
def test_bad_input_is_a_clear_error(call: Call, wrong: dict[str, object], said: str) -> None:
    answer = call(**wrong)
    assert answer["failed"]
    assert said in answer["msg"]
    assert "exception" not in answer


def test_who_has_which_prefix_is_not_for_everybody_on_the_host() -> None:
    """`identity.static` is in the settings of the timer."""
    tasks = YAML(typ="safe").load((ROOT / "roles/xbl_monitor/tasks/main.yml").read_text())
    [files] = [task["isp.hardening.config_files"]["files"] for task in tasks if "isp.hardening.config_files" in task]
    modes = {Path(one["path"]).name: (one.get("owner"), one.get("group"), one.get("mode")) for one in files}
    assert modes["xbl.json"] == (None, "isp-xbl", "0640")
    assert modes["xbl.credentials"] == ("isp-xbl", None, "0600")


def test_whatever_the_umask_of_root_the_timer_may_open_the_lock() -> None:
    """A play that comes first as root would make it for root alone."""
    tasks = YAML(typ="safe").load((ROOT / "roles/xbl_monitor/tasks/main.yml").read_text())
    [touched] = [task for task in tasks if task.get("ansible.builtin.file", {}).get("state") == "touch"]
    assert f"['{LOCK}']" in touched["loop"]
    assert touched["ansible.builtin.file"]["owner"] == "isp-xbl"
