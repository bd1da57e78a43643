# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The lab behind real SSH: logins, terminals, faults, malice, and the command that starts it."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncssh
import netmiko
import pytest

import lab
from lab import judge
from lab.__main__ import hosts
from lab.routers import kind
from lab.routers.base import Router
from lab.server import Access, serve

ROOT = Path(lab.__file__).parents[1]
CONFIGS = ROOT / "lab" / "configs"
# A push, by kind: how it is armed, its lines, how it ends and how it is confirmed.
PUSH = {
    "cisco_ios": (
        "configure terminal revert timer 5",
        ["ip access-list extended NEW", "10 deny tcp any any eq 25", "20 permit ip any any",
         "interface Virtual-Template1", "ip access-group NEW in"],
        "end", "configure confirm",
    ),
    "arista_eos": (
        "configure session isp",
        ["ip access-list NEW", "10 deny tcp any any eq 25", "20 permit ip any any", "interface Ethernet3.100",
         "ip access-group NEW in"],
        "commit timer 00:05:00", "configure session isp commit",
    ),
}  # fmt: skip
NAMES = {"cisco_ios": "bng1", "arista_eos": "edge1"}


def device(network_os: str, enable_secret: str = "") -> Router:
    return kind(network_os).load(NAMES[network_os], CONFIGS, enable_secret)


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """connect(lab, router): a netmiko session that checks the host key."""
    open_sessions = []

    def login(served: Any, router: Router, **options: Any) -> Any:
        (tmp_path / "known_hosts").write_text(served.known_hosts)
        network_os = next(name for name, host in NAMES.items() if host == router.name)
        given = {
            "device_type": network_os, "host": "127.0.0.1", "port": served.ports[router.name], "username": "audit",
            "password": "lab-only", "ssh_strict": True, "alt_host_keys": True,
            "alt_key_file": str(tmp_path / "known_hosts"), "use_keys": False, "allow_agent": False,
        }  # fmt: skip
        open_sessions.append(netmiko.ConnectHandler(**(given | options)))
        return open_sessions[-1]

    yield login
    for session in open_sessions:
        session.remote_conn_pre.close()


def say(session: Any, line: str) -> str:
    """What comes back for a line, the prompt with it; '' when the connection closes instead."""
    session.write_channel(f"{line}\n")
    text, deadline = "", time.monotonic() + 20
    while not text.endswith("#"):
        assert time.monotonic() < deadline, f"no answer to {line}"
        if session.remote_conn.closed:
            return ""
        text += session.read_channel()
    return text


@pytest.mark.parametrize("network_os", PUSH)
def test_netmiko_reads_pushes_and_confirms(connect: Callable[..., Any], network_os: str) -> None:
    router = device(network_os, enable_secret="opensesame")
    arm, lines, end, confirm = PUSH[network_os]
    with serve([router]) as served:
        session = connect(served, router, secret="opensesame")
        session.enable()
        running = session.send_command("show running-config")
        assert running.split() == router.snapshot().split()
        assert len(running.splitlines()) > 450
        session.send_command(arm, expect_string=r"#")
        assert session.check_config_mode()
        for line in lines:
            assert "%" not in session.send_command(line, expect_string=r"#")
        session.send_command(end, expect_string=r"#")
        again = connect(served, router, secret="opensesame")
        again.enable()
        assert "NEW in" in again.send_command("show running-config | include access-group NEW")
        again.send_command(confirm)
    router.clock.advance(3600)
    assert "access-group NEW in" in router.snapshot()


@pytest.mark.parametrize("network_os", PUSH)
def test_netmiko_sends_a_whole_set(connect: Callable[..., Any], network_os: str) -> None:
    router = device(network_os)
    lines = PUSH[network_os][1]
    with serve([router]) as served:
        session = connect(served, router)
        printed = session.send_config_set([*lines, "interface Nothing9"])
        assert "% Invalid input" in printed
        assert not session.check_config_mode()
        session.save_config()
    assert "access-group NEW in" in router.snapshot()


def test_a_wrong_password_or_secret_is_refused(connect: Callable[..., Any]) -> None:
    router = device("cisco_ios", enable_secret="opensesame")
    with serve([router]) as served:
        with pytest.raises(netmiko.NetmikoAuthenticationException):
            connect(served, router, password="wrong")
        session = connect(served, router, secret="wrong")
        with pytest.raises(ValueError, match="enable"):
            session.enable()


def test_a_key_logs_in(connect: Callable[..., Any], tmp_path: Path) -> None:
    router = device("cisco_ios")
    key = asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key(tmp_path / "key")
    with serve([router], Access(public_keys=key.export_public_key().decode())) as served:
        session = connect(served, router, use_keys=True, key_file=str(tmp_path / "key"), password=None)
        assert session.find_prompt() == "bng1#"


def test_another_host_key_is_noticed(connect: Callable[..., Any], tmp_path: Path) -> None:
    router = device("cisco_ios")
    with serve([router]) as served:
        other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
        (tmp_path / "other").write_text(f"[127.0.0.1]:{served.ports['bng1']} {other}")
        with pytest.raises(netmiko.NetmikoTimeoutException, match="does not match"):
            connect(served, router, alt_key_file=str(tmp_path / "other"))


@pytest.mark.parametrize("network_os", PUSH)
def test_the_session_drops_after_the_command_that_was_ordered(connect: Callable[..., Any], network_os: str) -> None:
    arm, lines, end, _ = PUSH[network_os]
    commands = [arm, *lines, end]
    for count in range(1, len(commands) + 1):
        router, twin = device(network_os), device(network_os)
        router.faults.cut_after = count
        with serve([router]) as served:
            session = connect(served, router)
            sent = [line for line in commands if not session.remote_conn.closed and say(session, line)]
            assert sent == commands[: count - 1]
            # The last one took effect, and the timer runs on behind the lost session.
            for line in commands[:count]:
                twin.execute(line)
            assert router.snapshot() == twin.snapshot()
            assert connect(served, router).find_prompt() == f"{router.name}#"
        router.clock.advance(300)
        twin.clock.advance(300)
        assert router.snapshot().splitlines()[5:] == device(network_os).snapshot().splitlines()[5:]


@pytest.mark.parametrize("network_os", PUSH)
def test_the_line_that_was_ordered_is_refused_and_has_no_effect(network_os: str) -> None:
    arm, lines, end, _ = PUSH[network_os]
    for position in range(1, len(lines) + 1):
        router, twin = device(network_os), device(network_os)
        router.faults.reject_at = position
        printed = [router.execute(line) for line in (arm, *lines, end)]
        assert [index for index, text in enumerate(printed) if "% Invalid input" in text][:1] == [position]
        for line in (arm, *lines[: position - 1], *lines[position:], end):
            twin.execute(line)
        assert router.snapshot() == twin.snapshot()


def test_a_router_may_fall_silent(connect: Callable[..., Any]) -> None:
    router = device("cisco_ios")
    router.faults.hang_at = 2
    with serve([router]) as served:
        session = connect(served, router)
        session.send_command("configure terminal", expect_string=r"#")
        with pytest.raises(netmiko.ReadTimeout):
            session.send_command("hostname other", expect_string=r"#", read_timeout=1)
    assert router.prompt == "other#"


def test_a_router_out_of_its_mind_prints_what_it_likes(connect: Callable[..., Any]) -> None:
    router = device("cisco_ios")
    noise = "\x1b[2J\x1b]0;title\x07 caf\udce9 \u20ac\n"
    router.faults.outputs = {"show running-config": noise, "show version": (noise * 1000 for _ in range(1000))}
    with serve([router]) as served:
        session = connect(served, router)
        assert "title" in session.send_command("show running-config")
        session.write_channel("show version\n")
        taken, deadline = 0, time.monotonic() + 60
        while taken < 5_000_000 and time.monotonic() < deadline:
            taken += len(session.read_channel())
        assert taken >= 5_000_000


def test_what_is_typed_ahead_is_answered_in_its_turn() -> None:
    router = device("cisco_ios")

    async def type_ahead(port: int) -> str:
        async with asyncssh.connect(
            "127.0.0.1", port, username="audit", password="lab-only", known_hosts=None
        ) as connection:
            process = await connection.create_process(term_type="vt100")
            process.stdin.write("show clok\x7f\x7fock | count 2026\r\nshow privilege\rbad\x15exit\n")
            return str(await process.stdout.read())

    with serve([router]) as served:
        text = asyncio.run(type_ahead(served.ports["bng1"]))
    assert text.replace("\b \b", "<") == (
        "bng1#show clok<<ock | count 2026\r\nNumber of lines which match regexp = 1\r\n"
        "bng1#show privilege\r\nCurrent privilege level is 15\r\nbng1#bad<<<exit\r\n"
    )


def test_a_password_is_not_echoed() -> None:
    router = device("cisco_ios", enable_secret="opensesame")

    async def enable(port: int) -> str:
        async with asyncssh.connect(
            "127.0.0.1", port, username="audit", password="lab-only", known_hosts=None
        ) as connection:
            process = await connection.create_process(term_type="vt100")
            process.stdin.write("enable\nopensesame\nexit\n")
            return str(await process.stdout.read())

    with serve([router]) as served:
        text = asyncio.run(enable(served.ports["bng1"]))
    assert text == "bng1>enable\r\nPassword: \r\nbng1#exit\r\n"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"colour": 1}, "no field 'colour'"),
        ({"protocol": "tcp"}, "'protocol' of a packet is a number"),
        ({"source": "2001:db8::1"}, "not an IPv4 address"),
        ({"source": "198.51.100.300"}, "198.51.100.300"),
    ],
)
def test_a_bad_packet_is_refused_with_the_reason(change: dict[str, object], reason: str) -> None:
    good = {"family": 4, "source": "198.51.100.7", "destination": "203.0.113.9", "protocol": 6}
    with pytest.raises(ValueError, match=reason):
        judge.packet(good | change)


def test_a_packet_needs_its_addresses() -> None:
    with pytest.raises(ValueError, match="no 'destination'"):
        judge.packet({"family": 4, "source": "198.51.100.7", "protocol": 6})


def command(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lab", *arguments], cwd=ROOT, capture_output=True, text=True, input=stdin, timeout=120
    )


def test_up_judge_down(tmp_path: Path) -> None:
    port = next(host.port for host in hosts() if host.name == "edge1")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            pytest.skip(f"port {port} is taken, by another lab on this machine")
    state = ("--state", str(tmp_path / "state"))
    try:
        started = command("up", *state, "--only", "edge1")
        assert (started.stdout, started.stderr) == (f"edge1 answers at 127.0.0.1:{port} (arista_eos)\n", "")
        assert (tmp_path / "state" / "known_hosts").read_text().startswith(f"[127.0.0.1]:{port} ssh-ed25519 ")
        assert "runs already" in command("up", *state).stderr
        packet = {
            "family": 4,
            "source": "198.51.100.200",
            "destination": "203.0.113.9",
            "protocol": 6,
            "destination_port": 25,
        }
        question = {"attachment": "Ethernet3.200", "direction": "up", "packet": packet}
        good, bad = (question | {"packet": packet | {"source": f"198.51.100.{end}"}} for end in (138, 150))
        judge = ("judge", *state, "edge1")
        assert command(*judge, stdin=f"{json.dumps(bad)}\n{json.dumps(good)}\n").stdout == "deny\npermit\n"
        wrong = command(*judge, stdin=f"{json.dumps(good)}\n{json.dumps(question | {'attachment': 'Ethernet9'})}\n")
        assert (wrong.returncode, wrong.stderr) == (1, "lab: question 2: edge1 has no interface Ethernet9\n")
        for strange in ('"a text"', "{}", '{"packet": 25}', "{"):
            wrong = command(*judge, stdin=strange)
            assert wrong.returncode == 1, strange
            assert re.fullmatch("lab: .*JSON object.*\n", wrong.stderr), wrong.stderr
    finally:
        assert command("down", *state).returncode == 0
    assert "no routers run" in command(*judge, stdin=json.dumps(good)).stderr
    assert command("down", *state).returncode == 0


def test_a_router_that_is_not_there_is_named(tmp_path: Path) -> None:
    answer = command("up", "--state", str(tmp_path), "--only", "bng9")
    assert answer.returncode == 1
    assert answer.stderr.startswith("lab: there is no router 'bng9', only bng1, edge1, core1, nat1")
