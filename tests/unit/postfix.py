# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A real Postfix on loopback, for one test: own configuration, queue and ports, gone with the test."""

from __future__ import annotations

import fcntl
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

# What a daemon on loopback with queues of its own needs; a test adds what it is about. Nothing leaves: all mail
# that is accepted is discarded.
_COMMON = {
    "compatibility_level": "3.6",
    "maillog_file_prefixes": "/",
    "mynetworks_style": "host",
    "inet_interfaces": "127.0.0.1",
    "inet_protocols": "ipv4",
    "myhostname": "mx1.example.net",
    "alias_maps": "",
    "local_recipient_maps": "",
    "default_transport": "discard",
    "relay_transport": "discard",
    "smtputf8_enable": "no",
    "postscreen_greet_wait": "2s",
    "smtpd_peername_lookup": "no",
    "default_process_limit": "60",
    "smtpd_forbid_bare_newline": "normalize",
}

# The MX of the policy: takes two mailboxes of its domain, relays for nobody.
INBOUND = {
    "mydestination": "",
    "mynetworks": "192.0.2.250/32",
    "relay_domains": "example.net",
    "relay_recipient_maps": "inline:{ postmaster@example.net=ok abuse@example.net=ok }",
    "smtpd_relay_restrictions": "reject_unauth_destination",
    "smtpd_recipient_restrictions": "",
    "strict_rfc821_envelopes": "yes",
    "disable_vrfy_command": "yes",
    "smtpd_etrn_restrictions": "reject",
    "smtpd_forbid_unauth_pipelining": "yes",
    "parent_domain_matches_subdomains": "",
    "smtpd_tls_security_level": "may",
    "smtpd_tls_protocols": ">=TLSv1.2",
}


def free_port() -> int:
    """A port above 20000 that nothing listens on."""
    for port in range(20_000 + os.getpid() % 10_000, 60_000):
        with socket.socket() as candidate:
            try:
                candidate.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port")


@contextmanager
def postfix(settings: Mapping[str, str], *, postscreen: bool = False) -> Iterator[int]:
    """Start Postfix with these settings of main.cf, yield the port of its smtpd or postscreen."""
    if os.geteuid() or not shutil.which("postfix"):
        pytest.skip("needs root and Postfix (Debian: apt-get install postfix)")
    # Not in a directory of pytest: the users that Postfix's daemons run as must get there.
    with tempfile.TemporaryDirectory(prefix="isp-postfix-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with _running(folder, settings, postscreen) as port:
            yield port


@contextmanager
def _running(folder: Path, settings: Mapping[str, str], postscreen: bool) -> Iterator[int]:
    port = free_port()

    def prepare(etc: Path) -> None:
        with (etc / "main.cf").open("a") as main:
            main.writelines(f"{name} = {value}\n" for name, value in (_COMMON | dict(settings)).items())
        (etc / "master.cf").write_text(_master(port, postscreen))

    with running(folder, prepare, "127.0.0.1", port):
        yield port


@contextmanager
def running(folder: Path, prepare: Callable[[Path], None], address: str, port: int) -> Iterator[Path]:
    """Postfix in the folder until the end of the block, with what `prepare` adds to its main.cf; yields its etc."""
    directory = {name: folder / name for name in ("etc", "queue", "data")}
    for path in directory.values():
        path.mkdir(mode=0o755)
    owner = pwd.getpwnam("postfix")
    os.chown(directory["data"], owner.pw_uid, owner.pw_gid)
    log = folder / "log"
    own = {
        "queue_directory": directory["queue"],
        "data_directory": directory["data"],
        "maillog_file": log,
        "multi_instance_name": "",
        "syslog_name": "postfix-test",
    }
    (directory["etc"] / "main.cf").write_text("".join(f"{name} = {value}\n" for name, value in own.items()))
    prepare(directory["etc"])
    command = ["postfix", "-c", str(directory["etc"])]
    started = subprocess.run([*command, "start"], capture_output=True, text=True, check=False, timeout=60)
    try:
        assert started.returncode == 0, started.stdout + started.stderr + (log.read_text() if log.exists() else "")
        _wait_for(address, port, log)
        yield directory["etc"]
    finally:
        _end(directory["queue"] / "pid" / "master.pid")


def _end(file: Path) -> None:
    """What `postfix stop` does, without its wait of a second and its log, which may wait for a daemon that is gone."""
    if not file.exists():
        return
    with file.open() as held:  # locked as long as the master lives (master(8), -t)
        master = int(held.read())
        for attempt in range(200):
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if attempt == 0:
                    os.kill(master, signal.SIGTERM)
                time.sleep(0.05)
            else:
                return
        os.killpg(master, signal.SIGKILL)


def _master(port: int, postscreen: bool) -> str:
    if postscreen:
        lines = [f"127.0.0.1:{port} inet n - n - 1 postscreen", "smtpd pass - - n - - smtpd"]
    else:
        lines = [f"127.0.0.1:{port} inet n - n - - smtpd"]
    return "\n".join([*lines, *SUPPORT]) + "\n"


# What smtpd and postscreen lean on.
SUPPORT = [
    f"{name} {kind} {private} - n - {process} {command}"
    for name, kind, private, process, command in (
        ("dnsblog", "unix", "-", "0", "dnsblog"), ("tlsproxy", "unix", "-", "0", "tlsproxy"),
        ("pickup", "unix", "n", "1", "pickup"), ("cleanup", "unix", "n", "0", "cleanup"),
        ("qmgr", "unix", "n", "1", "qmgr"), ("tlsmgr", "unix", "-", "1", "tlsmgr"),
        ("rewrite", "unix", "-", "-", "trivial-rewrite"), ("bounce", "unix", "-", "0", "bounce"),
        ("defer", "unix", "-", "0", "bounce"), ("trace", "unix", "-", "0", "bounce"),
        ("flush", "unix", "n", "0", "flush"), ("proxymap", "unix", "-", "-", "proxymap"),
        ("showq", "unix", "n", "-", "showq"), ("error", "unix", "-", "-", "error"),
        ("retry", "unix", "-", "-", "error"), ("discard", "unix", "-", "-", "discard"),
        ("local", "unix", "-", "-", "local"), ("anvil", "unix", "-", "1", "anvil"),
        ("scache", "unix", "-", "1", "scache"), ("postlog", "unix-dgram", "n", "1", "postlogd"),
    )
]  # fmt: skip


def _wait_for(address: str, port: int, log: Path) -> None:
    for _ in range(100):
        with socket.socket() as client:
            if client.connect_ex((address, port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError(log.read_text())
