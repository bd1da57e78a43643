# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A real Postfix on loopback, for one test: own configuration, queue and ports, gone with the test."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
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
    directory = {name: folder / name for name in ("etc", "queue", "data")}
    for path in directory.values():
        path.mkdir(mode=0o755)
    owner = pwd.getpwnam("postfix")
    os.chown(directory["data"], owner.pw_uid, owner.pw_gid)
    log = folder / "log"
    main = (
        _COMMON
        | {
            "queue_directory": str(directory["queue"]),
            "data_directory": str(directory["data"]),
            "maillog_file": str(log),
            "multi_instance_name": "",
            "syslog_name": "postfix-test",
        }
        | dict(settings)
    )
    (directory["etc"] / "main.cf").write_text("".join(f"{name} = {value}\n" for name, value in main.items()))
    (directory["etc"] / "master.cf").write_text(_master(port, postscreen))
    command = ["postfix", "-c", str(directory["etc"])]
    started = subprocess.run([*command, "start"], capture_output=True, text=True, check=False, timeout=60)
    try:
        assert started.returncode == 0, started.stdout + started.stderr + (log.read_text() if log.exists() else "")
        _wait_for(port, log)
        yield port
    finally:
        subprocess.run([*command, "stop"], capture_output=True, check=False, timeout=60)


def _master(port: int, postscreen: bool) -> str:
    lines = []
    if postscreen:
        lines += [f"127.0.0.1:{port} inet n - n - 1 postscreen", "smtpd pass - - n - - smtpd"]
        lines += ["dnsblog unix - - n - 0 dnsblog", "tlsproxy unix - - n - 0 tlsproxy"]
    else:
        lines += [f"127.0.0.1:{port} inet n - n - - smtpd"]
    for name, kind, private, process, command in (
        ("pickup", "unix", "n", "1", "pickup"), ("cleanup", "unix", "n", "0", "cleanup"),
        ("qmgr", "unix", "n", "1", "qmgr"), ("tlsmgr", "unix", "-", "1", "tlsmgr"),
        ("rewrite", "unix", "-", "-", "trivial-rewrite"), ("bounce", "unix", "-", "0", "bounce"),
        ("defer", "unix", "-", "0", "bounce"), ("trace", "unix", "-", "0", "bounce"),
        ("flush", "unix", "n", "0", "flush"), ("proxymap", "unix", "-", "-", "proxymap"),
        ("showq", "unix", "n", "-", "showq"), ("error", "unix", "-", "-", "error"),
        ("retry", "unix", "-", "-", "error"), ("discard", "unix", "-", "-", "discard"),
        ("local", "unix", "-", "-", "local"), ("anvil", "unix", "-", "1", "anvil"),
        ("scache", "unix", "-", "1", "scache"), ("postlog", "unix-dgram", "n", "1", "postlogd"),
    ):  # fmt: skip
        lines.append(f"{name} {kind} {private} - n - {process} {command}")
    return "\n".join(lines) + "\n"


def _wait_for(port: int, log: Path) -> None:
    for _ in range(100):
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError(log.read_text())
