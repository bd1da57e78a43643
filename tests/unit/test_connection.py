# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The connection plugin over real SSH: every way in, every refusal, and what it leaves behind."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import asyncssh
import pytest
import yaml
from ansible import constants
from ansible.errors import AnsibleConnectionFailure
from ansible.playbook.play_context import PlayContext

from ansible_collections.isp.hardening.plugins.connection import netmiko
from ansible_collections.isp.hardening.plugins.connection.netmiko import (
    DOCUMENTATION,
    Connection,
    LoginRefused,
    OutputRefused,
    SessionLost,
)
from lab.__main__ import CONFIGS
from lab.routers import kind
from lab.routers.base import Router
from lab.server import LOOPBACK, Access, Lab, serve

NAME = "isp.hardening.netmiko"
PASSWORD = "only-in-this-test"
Connect = Callable[..., Connection]


def device(network_os: str = "cisco_ios", name: str = "bng1", enable_secret: str = "") -> Router:
    return kind(network_os).load(name, CONFIGS, enable_secret)


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[Connect]:
    """connect(lab, router, option=value): the connection, not logged in yet."""
    definitions = yaml.safe_load(DOCUMENTATION)["options"]
    constants.config.initialize_plugin_configuration_definitions("connection", NAME, definitions)
    made = []

    def make(served: Lab, router: Router, **options: Any) -> Connection:
        (tmp_path / "known_hosts").write_text(served.known_hosts)
        connection = Connection(PlayContext())
        connection._load_name = NAME
        given = {
            "host": LOOPBACK, "port": served.ports[router.name], "network_os": "cisco_ios", "remote_user": "audit",
            "password": PASSWORD, "known_hosts": str(tmp_path / "known_hosts"),
        }  # fmt: skip
        connection.set_options(direct=given | options)
        made.append(connection)
        return connection

    yield make
    for connection in made:
        connection.close()


@pytest.mark.parametrize(
    ("network_os", "name", "command"),
    [
        ("cisco_ios", "bng1", "show running-config"),
        ("arista_eos", "edge1", "show running-config"),
        ("juniper_junos", "core1", "show configuration"),
    ],
)
def test_a_command_brings_what_the_router_prints_and_nothing_else(
    connect: Connect, network_os: str, name: str, command: str
) -> None:
    router = device(network_os, name)
    with serve([router], Access(password=PASSWORD)) as served:
        connection = connect(served, router, network_os=network_os)
        assert connection.send(command).rstrip("\n") == router.snapshot().rstrip("\n")
        assert connection.addresses() == (LOOPBACK, LOOPBACK)
        assert connection.exec_command(command)[1].decode().rstrip("\n") == router.snapshot().rstrip("\n")


def test_a_key_logs_in(connect: Connect, tmp_path: Path) -> None:
    key = asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key(tmp_path / "key")
    router = device()
    with serve([router], Access(public_keys=key.export_public_key().decode())) as served:
        connection = connect(served, router, password=None, private_key_file=str(tmp_path / "key"))
        assert "17.09" in connection.send("show version")


def test_the_enable_secret_gives_the_privileged_mode(connect: Connect) -> None:
    router = device(enable_secret="opensesame")
    with serve([router], Access(password=PASSWORD)) as served:
        assert "level is 15" in connect(served, router, enable_secret="opensesame").send("show privilege")
        with pytest.raises(LoginRefused, match="did not give the privileged mode: check ansible_become_password"):
            connect(served, router, enable_secret="wrong").send("show privilege")
        with pytest.raises(LoginRefused, match="did not give the privileged mode"):
            connect(served, router).send("show privilege")


def test_what_is_refused_and_what_is_not_there(connect: Connect, tmp_path: Path) -> None:
    router = device()
    with serve([router], Access(password=PASSWORD)) as served:
        with pytest.raises(LoginRefused, match="refused the login of audit"):
            connect(served, router, password="wrong").send("show version")
        (tmp_path / "empty").write_text("")
        with pytest.raises(AnsibleConnectionFailure, match="not found in known_hosts: add its host key") as unknown:
            connect(served, router, known_hosts=str(tmp_path / "empty")).send("show version")
        assert not isinstance(unknown.value, LoginRefused)
        trusting = connect(served, router, known_hosts=None, host_key_checking=False)
        assert "17.09" in trusting.send("show version")
    assert [session.lines for session in router.sessions[:-1]] == []
    with socket.socket() as closed:
        closed.bind((LOOPBACK, 0))
        with pytest.raises(AnsibleConnectionFailure, match=f"{LOOPBACK} port {closed.getsockname()[1]}"):
            connect(served, router, port=closed.getsockname()[1]).send("show version")


def test_another_host_key_is_refused(connect: Connect, tmp_path: Path) -> None:
    router = device()
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    with serve([router], Access(password=PASSWORD)) as served:
        (tmp_path / "other").write_text(f"[{LOOPBACK}]:{served.ports['bng1']} {other}")
        with pytest.raises(AnsibleConnectionFailure, match="does not match"):
            connect(served, router, known_hosts=str(tmp_path / "other")).send("show version")
    assert router.sessions == []


def test_a_cut_is_noticed_at_once_and_silence_after_its_time(connect: Connect) -> None:
    router = device()
    with serve([router], Access(password=PASSWORD)) as served:
        connection = connect(served, router, command_timeout=60)
        connection.send("show version")
        router.faults.cut_after = 1
        began = time.monotonic()
        with pytest.raises(SessionLost, match="the session was lost at 'configure terminal'"):
            connection.send("configure terminal")
        assert time.monotonic() - began < 5
        connection.reset()
        assert "17.09" in connection.send("show version")
        silent = connect(served, router, command_timeout=1)
        silent.send("show version")
        router.faults.hang_at = 1
        with pytest.raises(SessionLost, match="lost at 'configure terminal': no answer within 1 second"):
            silent.send("configure terminal")


def test_a_character_that_comes_in_two_pieces(connect: Connect) -> None:
    text = "show run\r\ninterface Gi1\r\n description Zürich €\r\nbng1#"
    pieces = iter([bytes([byte]) for byte in text.encode()])
    channel = SimpleNamespace(recv=lambda _: next(pieces), settimeout=lambda _: None, close=lambda: None)
    connection = connect(SimpleNamespace(known_hosts="", ports={"bng1": 22}), device())
    connection._session = SimpleNamespace(
        base_prompt="bng1", RETURN="\n", ansi_escape_codes=False, session_log=None, write_channel=lambda _: None,
        remote_conn=channel, remote_conn_pre=channel,
    )  # fmt: skip
    assert connection.send("show run") == "interface Gi1\n description Zürich €"


def test_output_without_end_is_refused(connect: Connect) -> None:
    router = device()
    router.faults.outputs = {"show running-config": ("x" * 1_000_000 for _ in range(200))}
    with serve([router], Access(password=PASSWORD)) as served, pytest.raises(OutputRefused, match="more than 64 MiB"):
        connect(served, router).send("show running-config")


def test_the_session_is_logged_only_where_it_is_asked_for(connect: Connect, tmp_path: Path) -> None:
    router = device(enable_secret="opensesame")
    before = set(tmp_path.iterdir())
    with serve([router], Access(password=PASSWORD)) as served:
        connect(served, router, enable_secret="opensesame").send("show version")
        assert set(tmp_path.iterdir()) - before == {tmp_path / "known_hosts"}
        log = tmp_path / "session.log"
        logged = connect(served, router, enable_secret="opensesame", session_log=str(log))
        logged.send("show version")
        logged.close()
    text = log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600
    assert "17.09" in text
    assert "opensesame" not in text
    assert PASSWORD not in text


@pytest.mark.parametrize(
    ("jump", "host", "told"),
    [
        ("jump.example.net", "192.0.2.1", "-p 22 -W 192.0.2.1:830 jump.example.net"),
        ("noc@192.0.2.9:2222", "edge1", "-p 2222 -W edge1:830 noc@192.0.2.9"),
        ("noc@[2001:db8::9]:2222", "2001:db8::1", "-p 2222 -W '[2001:db8::1]:830' noc@2001:db8::9"),
        ("[2001:db8::9]", "192.0.2.1", "-p 22 -W 192.0.2.1:830 2001:db8::9"),
        ("2001:db8::9", "192.0.2.1", "-p 22 -W 192.0.2.1:830 2001:db8::9"),
    ],
)
def test_a_jump_host_by_any_address(
    jump: str, host: str, told: str, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(netmiko, "_Tunnel", str)
    router = device()
    with serve([router], Access(password=PASSWORD)) as served:
        assert connect(served, router, jump_host=jump)._tunnel(host, 830) == f"ssh -o BatchMode=yes {told}"


@pytest.fixture
def jump_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """[user@]host:port of an OpenSSH server on loopback, which the `ssh` in PATH may log in to."""
    found = [shutil.which(name, path="/usr/sbin:/usr/local/sbin:/usr/bin:/bin") for name in ("sshd", "ssh")]
    if None in found:
        pytest.skip("OpenSSH's sshd and ssh are not installed")
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port = probe.getsockname()[1]
    for name in ("host_key", "id"):
        asyncssh.generate_private_key("ssh-ed25519").write_private_key(tmp_path / name)
        (tmp_path / name).chmod(0o600)
    public = {
        name: asyncssh.read_private_key(tmp_path / name).export_public_key().decode() for name in ("host_key", "id")
    }
    (tmp_path / "authorized").write_text(public["id"])
    (tmp_path / "jump_hosts").write_text(f"[{LOOPBACK}]:{port} {public['host_key']}")
    (tmp_path / "sshd_config").write_text(
        f"Port {port}\nListenAddress {LOOPBACK}\nHostKey {tmp_path}/host_key\nStrictModes no\nUsePAM no\n"
        f"AuthorizedKeysFile {tmp_path}/authorized\nPasswordAuthentication no\nPermitRootLogin yes\nPidFile none\n"
    )
    (tmp_path / "config").write_text(f"UserKnownHostsFile {tmp_path}/jump_hosts\nIdentityFile {tmp_path}/id\n")
    (tmp_path / "bin").mkdir()
    # The user's own configuration of OpenSSH, which the plugin leaves to OpenSSH.
    (tmp_path / "bin" / "ssh").write_text(f'#!/bin/sh\nexec {found[1]} -F {tmp_path}/config "$@"\n')
    (tmp_path / "bin" / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    with (tmp_path / "sshd.log").open("w") as log:
        command = [str(found[0]), "-D", "-e", "-f", str(tmp_path / "sshd_config")]
        if os.geteuid() == 0:  # root's sshd wants /run/sshd, which only its service makes: one of its own, in memory
            private = 'mount -t tmpfs tmpfs /run && mkdir /run/sshd && exec "$0" "$@"'
            command = ["unshare", "--mount", "/bin/sh", "-c", private, *command]
        server = subprocess.Popen(command, stderr=log)
    try:
        end = time.monotonic() + 10
        while True:
            try:
                socket.create_connection((LOOPBACK, port), 1).close()
                break
            except OSError:
                if server.poll() is not None or time.monotonic() > end:
                    pytest.skip(f"sshd does not start here: {(tmp_path / 'sshd.log').read_text().strip()}")
                time.sleep(0.05)
        yield f"{getpass.getuser()}@{LOOPBACK}:{port}"
    finally:
        server.terminate()
        server.wait()


def test_through_a_jump_host(connect: Connect, jump_host: str, capfd: pytest.CaptureFixture[str]) -> None:
    router = device()
    with serve([router], Access(password=PASSWORD)) as served:
        connection = connect(served, router, jump_host=jump_host)
        assert "17.09" in connection.send("show version")
        assert connection.addresses() == ("", "")  # what the router sees is the jump host
        connection.reset()
        assert "17.09" in connection.send("show version")
        tunnel = connection._session.remote_conn.get_transport().sock.process
        connection.close()
        assert tunnel.wait(5) is not None
        unknown = connect(served, router, jump_host=jump_host.replace("@", "-nobody@"), connect_timeout=5)
        with pytest.raises(AnsibleConnectionFailure, match=r"the jump host .*: .*Permission denied") as refused:
            unknown.send("show version")
        assert PASSWORD not in str(refused.value)
    assert "Traceback" not in capfd.readouterr().err
