# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""mta_audit and smtp_probe agree: on a real Postfix with each mutant that both can see, both find the control.

The Postfix runs in a network namespace of its own (mail_agreement.py). What it takes rspamd and clamd to see is in
the Molecule scenario `mail`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.mail_agreement import ERROR, HOSTS, LISTED, NAMES, POOL, QUESTIONS, WORLD
from tests.unit.mail_hosts import MAIL

ROWS = [
    row
    for row in yaml.safe_load((MAIL / "mutants.yml").read_text())
    if "probe" in row["seen_by"] or (row["name"] == "sound")
]
Ask = Callable[[dict[str, Any]], dict[str, list[list[str]]]]


@pytest.fixture(scope="module")
def ask(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """Ask about a row, in the namespace."""
    if os.geteuid() or not shutil.which("postfix") or not shutil.which("ip"):
        pytest.skip("needs root, Postfix and iproute2 (Debian: apt-get install postfix iproute2)")
    space = f"isp-agreement-{os.getpid()}"
    files = Path("/etc/netns") / space  # `ip netns exec` puts them in place of those in /etc
    made = subprocess.run(["ip", "netns", "add", space], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"needs network namespaces: {made.stderr.strip()}")
    try:
        files.mkdir(parents=True)
        (files / "resolv.conf").write_text("nameserver 127.0.0.1\n")
        (files / "hosts").write_text("".join(f"{one} {name}\n" for one, name in [("127.0.0.1", "lo"), *NAMES.items()]))
        for address in (WORLD, LISTED, ERROR, POOL, *(address for _, address in HOSTS.values())):
            subprocess.run(["ip", "-n", space, "address", "add", f"{address}/32", "dev", "lo"], check=True)
        subprocess.run(["ip", "-n", space, "link", "set", "lo", "up"], check=True)
        keys = tmp_path_factory.mktemp("keys")

        def asked(row: dict[str, Any]) -> dict[str, list[list[str]]]:
            given = json.dumps(row | {"certificate": certificate(keys, HOSTS[row["side"]][0])})
            command = ["ip", "netns", "exec", space, sys.executable, "-m", "tests.unit.mail_agreement"]
            path = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / '.collections'}"}
            done = subprocess.run(command, input=given, capture_output=True, text=True, cwd=root, env=path, check=False)
            assert done.returncode == 0, done.stderr
            return dict(json.loads(done.stdout))

        yield asked
    finally:
        subprocess.run(["ip", "netns", "del", space], check=False)
        shutil.rmtree(files, ignore_errors=True)


def certificate(folder: Path, name: str) -> str:
    """Key and certificate of the host, in one file."""
    path = folder / f"{name}.pem"
    if not path.exists():
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"]
        command += ["-addext", f"subjectAltName=DNS:{name}", "-keyout", "-", "-out", "-"]
        path.write_bytes(subprocess.run(command, capture_output=True, check=True).stdout)
    return str(path)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['side']}-{row['name']}".replace(" ", "_"))
def test_the_configuration_and_the_answers_say_the_same(row: dict[str, Any], ask: Ask) -> None:
    wanted = {(one["control"], one.get("verdict", "violated")) for one in row["findings"]}
    if wanted and not {control for control, _ in wanted} & set(QUESTIONS):
        pytest.skip("needs rspamd and clamd: the Molecule scenario mail asks it")
    told = ask(row)
    controls = set(QUESTIONS) if not wanted else {control for control, _ in wanted}
    read = {(one[0], one[2]) for one in told["configuration"] if one[0] in controls and one[2] != "compliant"}
    heard = {(one[0], one[2]) for one in told["probe"] if one[2] != "compliant"}
    if not wanted:
        assert (read, heard) == (set(), set()), told
        return
    assert "configuration" not in row["seen_by"] or wanted <= read, told["configuration"]
    # A hole that several controls speak of need not show in each: where it shows, the verdict is the same.
    assert wanted & heard, told["probe"]
    assert {one for one in heard if one[0] in controls} <= wanted, told["probe"]
