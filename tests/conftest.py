# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What every test shares: where things are, an Ansible that touches nobody's home, and hypothesis's settings."""

from __future__ import annotations

import fcntl
import gc
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parent.parent

# CI finds the same examples at every run, a person's machine looks for new ones.
hypothesis.settings.register_profile("person", deadline=None, print_blob=True)
hypothesis.settings.register_profile("ci", deadline=None, print_blob=True, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "person")

# A configuration is tens of thousands of objects, with hardly a cycle among them: the collector looks less often.
gc.set_threshold(100_000, 50, 100)

Run = Callable[..., subprocess.CompletedProcess[str]]
_LONG = ("test_demo.py", "test_molecule.py")
_TOGETHER = ("test_blackhole_lab.py", "test_impact_gate.py", "test_push_ssh.py")  # they share what takes long to make


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long ones begin: the mail hosts in the first worker's share, what needs the lab's ports in the second's.

    pytest-xdist gives each worker a share of the list, and who is done takes from the ends of the others'. So what has
    to stay together begins the last share.
    """
    long = [item for item in items if item.path.name in _LONG]
    alone = [item for item in long if "[mail" in item.name]
    together = [item for item in items if item.path.name in _TOGETHER]
    rest = [item for item in items if item not in [*long, *together]]
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    others = [item for item in long if item not in alone]
    first = len(items) // workers - len(alone)
    last = max(first, len(items) + -len(items) // workers - len(long))  # of the remainder, the last has its part
    items[:] = [*alone, *rest[:first], *others, *rest[first:last], *together, *rest[last:]]


@pytest.fixture(scope="session")
def root() -> Path:
    """The top of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def sample_data() -> Path:
    """Real configurations of other projects, kept beside the checkout and not in it."""
    data = ROOT.parent / "shared" / "data"
    if not data.is_dir():
        pytest.skip("the sample data is not beside the checkout (../shared/data)")
    return data


@pytest.fixture(scope="session", autouse=True)
def _own_ansible(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Ansible's commands of this environment come first in PATH, and keep their files in a directory of the run."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("ANSIBLE_")]:
            patch.delenv(name)
        patch.setenv("ANSIBLE_HOME", str(tmp_path_factory.mktemp("ansible")))
        patch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]))
        yield


@pytest.fixture
def lab_ports() -> Iterator[None]:
    """The fixed ports of inventories/lab, for one test at a time on this machine."""
    with open(Path(tempfile.gettempdir()) / f"isp-hardening-lab-{os.getuid()}.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def run() -> Run:
    """`run("ansible-playbook", "playbooks/audit.yml", cwd=…, env={…})`: the finished process, its output as text.

    `stdout` and `stderr` come as one text, in `stdout`; `env` is added to the environment of the tests.
    """

    def run_command(
        *command: str, cwd: Path = ROOT, env: dict[str, str] | None = None, timeout: int = 300
    ) -> subprocess.CompletedProcess[str]:
        path = shutil.which(command[0])
        if path is None:
            pytest.skip(f"{command[0]} is not installed")
        return subprocess.run(
            [path, *command[1:]],
            cwd=cwd,
            env=os.environ | (env or {}),
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    return run_command
