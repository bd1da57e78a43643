"""The module address_owner, as Ansible runs it: its answer is one that the module quarantine takes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from ansible_collections.isp.hardening.plugins.doc_fragments.identity import ModuleDocFragment as Identity
from ansible_collections.isp.hardening.plugins.module_utils.documentation import argument_spec
from ansible_collections.isp.hardening.plugins.module_utils.signals.owners import read_owners
from ansible_collections.isp.hardening.plugins.module_utils.signals.records import KNOWN, UNKNOWN
from ansible_collections.isp.hardening.plugins.modules import address_owner


def call(**arguments: object) -> dict[str, Any]:
    code = "from ansible.module_utils.testing import patch_module_args as patch; import json, sys\n"
    code += f"from {address_owner.__name__} import main\nwith patch(json.load(sys.stdin)): main()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(arguments),
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": ".collections", "PATH": "/usr/bin"},
    )
    assert done.stdout, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_who_has_an_address(tmp_path: Path) -> None:
    identity = {"static": {"203.0.113.7/32": "alice@example.net"}, "kea": [str(tmp_path / "*.csv")]}
    answer = call(addresses=["203.0.113.7/32", "203.0.113.8"], identity=identity)
    assert not answer["changed"]
    owners = read_owners(answer["owners"])
    assert (owners["203.0.113.7/32"].state, owners["203.0.113.7/32"].subscriber) == (KNOWN, "alice@example.net")
    assert owners["203.0.113.8"].state == UNKNOWN
    assert "*.csv" in answer["told"][0]["reason"], "a pattern without a file is no silence"
    assert answer["warnings"]


def test_bad_input_is_a_clear_error() -> None:
    assert "203.0.113.256" in call(addresses=["203.0.113.256"])["msg"]
    assert "Mars" in call(addresses=["203.0.113.7"], identity={"zone": "Mars/Olympus"})["msg"]


def test_the_spec_of_the_module_is_its_documentation() -> None:
    assert argument_spec(address_owner.DOCUMENTATION, Identity.DOCUMENTATION) == address_owner.ARGUMENTS
