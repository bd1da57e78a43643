# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A box for real daemons: a container of the image `signals` with a network of its own and a directory of the test's.

What a test makes in it (network namespaces, daemons, files) goes away with it.
"""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab import engine, images
from lab.mail.__main__ import unavailable

_RELEASE = "bookworm"


class Box:
    """`directory` on this machine is /box inside."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.directory = directory

    def run(self, command: str, timeout: float = 30.0, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A shell command inside; its output and errors as one text. With `check` a failure fails the test."""
        # A daemon in the background must not hold the output open, or nobody comes back: it says where its own goes.
        done = subprocess.run(
            ["podman", "exec", self.name, "timeout", f"{timeout}", "sh", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            env=engine.environment(),
        )
        if check and done.returncode:
            pytest.fail(f"{command}\nended with {done.returncode}:\n{done.stdout}", pytrace=False)
        return done


def not_here() -> str:
    """Why no box can be started here, or ''. The image takes a minute to make, which is not for a test."""
    if reason := unavailable():
        return reason
    absent = images.missing(("signals",))
    return f"there is no {absent[0]}: python -m lab.mail images" if absent else ""


@contextmanager
def box(directory: Path) -> Iterator[Box]:
    """Skips the test where there can be none."""
    if reason := not_here():
        pytest.skip(reason)
    images.obtain(("signals",))
    image = images.name("signals", _RELEASE)
    engine.settle(image)
    name = f"isp-box-{uuid.uuid4().hex[:12]}"
    options = ("--privileged", "--network=none", f"--volume={directory}:/box")
    # A shell that waits is an init that buries what daemons leave behind.
    init = ("sh", "-c", "sleep infinity & wait")
    engine.run("podman", "run", "--detach", f"--name={name}", *options, image, *init)
    try:
        made = Box(name, directory)
        made.run("ip link set lo up")
        yield made
    finally:
        engine.run("podman", "rm", "--force", "--time=0", name)
