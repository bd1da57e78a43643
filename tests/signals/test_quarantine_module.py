"""The module quarantine, as Ansible runs it on an edge: its answer, and what it leaves in the kernel."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.isp.hardening.plugins.module_utils.documentation import argument_spec
from ansible_collections.isp.hardening.plugins.modules import quarantine
from lab.netns import Namespace, tool, unavailable

POLICY = {
    "subscribers": 4_000,
    "never": [{"prefix": "192.0.2.0/24", "reason": "own servers"}],
    "hours": 24,
    "most": 100,
    "dry_run": False,
}
CASE = {
    "key": "case-1",
    "subscriber": "alice@example.net",
    "prefixes": ["203.0.113.7/32", "2001:db8:1:7::/64"],
    "sources": ["D2"],
    "since": 0,
    "evidence": ["18 servers in a minute"],
}

Call = Callable[..., dict[str, Any]]


@pytest.fixture
def call(tmp_path: Path) -> Iterator[Call]:
    """`call(cases=…, check=True)`: the module's answer, from a process of its own on an edge of its own."""
    if reason := unavailable():
        pytest.skip(reason)
    edge = Namespace()
    settings = tmp_path / "quarantine.json"
    data = {"state": str(tmp_path / "state" / "state.json"), "audit": str(tmp_path / "audit"), "most": 4}
    settings.write_text(json.dumps(data | {"portal": ["192.0.2.80"], "never": POLICY["never"]}))

    def ask(check: bool = False, **arguments: object) -> dict[str, Any]:
        given = {"policy": POLICY, "settings": str(settings), "_ansible_check_mode": check, "_ansible_diff": True}
        program = [tool("nsenter"), f"--net={edge.path}", sys.executable, "-c"]
        # Ansible's own way, without its wrapping: the arguments come over the standard input.
        code = "from ansible.module_utils.testing import patch_module_args as patch; import json, sys\n"
        code += f"from {quarantine.__name__} import main\nwith patch(json.load(sys.stdin)): main()"
        done = subprocess.run(
            [*program, code],
            input=json.dumps(given | arguments),
            capture_output=True,
            text=True,
            check=False,
            env={"PYTHONPATH": ".collections", "PATH": "/usr/sbin:/usr/bin"},
        )
        assert done.stdout, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    yield ask
    edge.close()


def test_check_mode_tells_what_the_run_does_and_the_second_run_changes_nothing(call: Call) -> None:
    would = call(check=True, cases=[CASE])
    did = call(cases=[CASE])
    again = call(cases=[CASE])
    assert (would["changed"], did["changed"], again["changed"]) == (True, True, False)
    assert [one["key"] for one in would["added"]] == [one["key"] for one in did["added"]] == ["case-1"]
    assert [one["key"] for one in again["kept"]] == ["case-1"]
    assert would["diff"]["before"] == did["diff"]["before"] == ""
    assert [line.split()[0] for line in did["diff"]["after"].splitlines()] == sorted(CASE["prefixes"])


def test_release_by_hand(call: Call) -> None:
    call(cases=[CASE])
    would = call(check=True, release=["203.0.113.7"])
    did = call(release=["203.0.113.7"], by="jane", reason="is clean")
    again = call(release=["203.0.113.7"])
    assert (would["changed"], did["changed"], again["changed"]) == (True, True, False)
    assert (
        would["released"]
        == did["released"]
        == [{"key": "case-1", "prefixes": sorted(CASE["prefixes"], reverse=True), "why": "by hand"}]
    )
    assert again["unknown"] == ["203.0.113.7"]
    refused = call(cases=[CASE])
    assert (refused["changed"], refused["refused"]) == (False, [{"key": "case-1", "why": "it was released by hand"}])


def test_the_password_of_the_state_is_shown_nowhere(call: Call) -> None:
    policy = POLICY | {"state": "postgresql://signals:s3cret@192.0.2.5/signals"}
    assert "s3cret" not in json.dumps([call(policy=policy, cases=[CASE]), call(policy=policy, cases=[{}])])


def test_an_address_that_is_somebody_elses_by_now_is_let_go(call: Call) -> None:
    call(cases=[CASE])
    known = {"address": "203.0.113.7/32", "state": "known", "subscriber": "alice@example.net", "reason": ""}
    assert not call(owners=[known])["changed"]
    answer = call(owners=[known | {"subscriber": "bob@example.net"}])
    assert [one["why"] for one in answer["released"]] == ["203.0.113.7/32 belongs to another subscriber now"]
    assert call(owners=[{"address": "203.0.113.7"}])["failed"]


def test_cap_breach_adds_nothing_and_alarms(call: Call) -> None:
    many = [CASE | {"key": f"k{one}", "prefixes": [f"203.0.113.{one}"]} for one in range(5)]
    assert call()["changed"], "the table is new"
    answer = call(cases=many)
    assert (answer["changed"], answer["added"]) == (False, [])
    assert "more than the cap of 4" in answer["frozen"]
    assert len(answer["refused"]) == 5
    assert any("more than the cap of 4" in str(line) for line in answer["warnings"])


def test_a_dry_run_changes_nothing_and_tells_all(call: Call) -> None:
    answer = call(cases=[CASE], policy=POLICY | {"dry_run": True})
    assert (answer["changed"], answer["dry_run"], len(answer["added"])) == (False, True, 1)
    assert call(cases=[])["kept"] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"policy": {}}, "give what isp.hardening.signals_host gives"),
        ({"policy": POLICY | {"never": ["192.0.2.1"]}}, "give what isp.hardening.signals_host gives"),
        ({"cases": [{"key": "k"}]}, "'subscriber' is no text. Nothing was changed"),
        ({"settings": "/nowhere"}, "/nowhere: No such file or directory. Nothing was changed"),
    ],
)
def test_bad_input_is_a_clear_error(call: Call, arguments: dict[str, object], said: str) -> None:
    answer = call(**{"cases": [CASE]} | arguments)
    assert answer["failed"]
    assert said in answer["msg"]
    assert "exception" not in answer


def test_a_host_without_the_role_is_told_in_check_mode(call: Call) -> None:
    answer = call(check=True, cases=[CASE], settings="/nowhere")
    assert (answer["changed"], answer["msg"]) == (True, "Not checked: no /nowhere yet.")


def test_the_spec_of_the_module_is_its_documentation() -> None:
    assert argument_spec(quarantine.DOCUMENTATION) == quarantine.ARGUMENTS
