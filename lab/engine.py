# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""podman, with the settings that it needs on this machine."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path

from .netns import tool

CACHE = Path(__file__).parents[1] / ".cache" / "images"

# Where root lacks CAP_SYS_RESOURCE or cgroups are hybrid, crun fails and limits cannot be raised: runc, and fixed ones.
_NARROW = """[engine]
runtime = "runc"
[containers]
default_ulimits = ["nofile=1024:1024","nproc=4096:4096"]
netns = "none"
"""

_ONE_AT_A_TIME = threading.Lock()


class Problem(Exception):
    """What is said to the user, on one line."""


def run(*command: str, stdin: str = "") -> str:
    """Run a program; its output. Raises Problem with what it said when it fails."""
    done = subprocess.run(
        [tool(command[0]) or command[0], *command[1:]],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
    )
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise Problem(f"{' '.join(command[:3])}: {said[-1] if said else f'ended with {done.returncode}'}")
    return done.stdout


def environment() -> dict[str, str]:
    """Ours, with CONTAINERS_CONF where it has to name a file of settings here."""
    file = CACHE / "containers.conf"
    ours = {} if "CONTAINERS_CONF" in os.environ or not file.exists() else {"CONTAINERS_CONF": str(file)}
    return dict(os.environ) | ours


def settle(image: str) -> None:
    """Let podman run something of the image, with settings of ours only where it cannot do without."""
    attempt = ("podman", "run", "--rm", "--network=none", image, "/bin/true")
    file = CACHE / "containers.conf"
    with _ONE_AT_A_TIME:
        try:
            run(*attempt)
        except Problem:
            if "CONTAINERS_CONF" in os.environ or file.exists():
                raise
            file.write_text(_NARROW)
            try:
                run(*attempt)
            except Problem:
                file.unlink()
                raise
