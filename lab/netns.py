# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Network namespaces without a name: they live as long as this process holds them, and leave nothing behind."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

CLONE_NEWNET = 0x40000000  # include/uapi/linux/sched.h
TOOLS = ("ip", "nft", "nsenter", "unshare", "sysctl", "sshd", "ssh-keygen")
SUPERUSER_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

Result = TypeVar("Result")


def tool(name: str) -> str:
    """Where a program is, the superuser's folders included; '' when it is not there."""
    return shutil.which(name, path=SUPERUSER_PATH) or ""


def unavailable() -> str:
    """Why this machine cannot have namespaces with a router in them, or ''."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if missing := [name for name in TOOLS if not tool(name)]:
        return f"no {', '.join(missing)} on this machine (Debian: apt install iproute2 nftables openssh-server)"
    try:
        Namespace().close()
    except OSError as error:
        return f"this machine does not let root make network namespaces ({error.strerror})"
    return ""


def _libc(call: str, *arguments: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, call)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _aside(call: Callable[[], Result]) -> Result:
    """Run in a thread of its own: a namespace is a property of the thread, and this one stays where it is."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(call).result()


class Namespace:
    """One network namespace. `path` opens it from any process of the superuser while this process lives."""

    def __init__(self) -> None:
        def make() -> int:
            _libc("unshare", CLONE_NEWNET)
            return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

        self._handle = _aside(make)
        self.path = f"/proc/{os.getpid()}/fd/{self._handle}"

    @property
    def identity(self) -> tuple[int, int]:
        """What tells it from other namespaces."""
        status = os.fstat(self._handle)
        return status.st_dev, status.st_ino

    def run(self, *command: str, stdin: str = "") -> str:
        """Run a program inside; its output. Raises OSError with what it said when it fails."""
        done = subprocess.run(
            [tool("nsenter"), f"--net={self.path}", *command], input=stdin, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise OSError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def enter(self, call: Callable[[], Result]) -> Result:
        """Call inside. A socket made there stays there."""

        def inside() -> Result:
            _libc("setns", self._handle, CLONE_NEWNET)
            return call()

        return _aside(inside)

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        return self.enter(lambda: socket.socket(family, kind, protocol))

    def processes(self) -> list[int]:
        """Those that run inside. This process made the namespace, so all of them are its offspring."""
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdecimal():
                    status = (entry / "ns" / "net").stat()
                    if (status.st_dev, status.st_ino) == self.identity:
                        found.append(int(entry.name))
        return found

    def close(self) -> None:
        """End what runs inside, and let go."""
        for sign in (signal.SIGTERM, signal.SIGKILL):
            for _ in range(50):
                if not (inside := self.processes()):
                    break
                for number in inside:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(number, sign)
                time.sleep(0.02)
        os.close(self._handle)


def join(left: Namespace, name: str, right: Namespace, other: str) -> None:
    """A cable (veth) from `name` in the left to `other` in the right namespace."""
    left.run(tool("ip"), "link", "add", name, "type", "veth", "peer", "name", other, "netns", right.path)
