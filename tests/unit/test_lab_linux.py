# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The lab's Linux router: real namespaces, a real sshd, and packets that the kernel forwards or drops."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.judge import judge, packet
from lab.netns import Namespace, tool
from lab.routers.base import Faults
from lab.routers.linux_nftables import Device

CONFIGS = Path(__file__).parents[2] / "lab" / "configs"
REASON = Device.unavailable()
pytestmark = pytest.mark.skipif(bool(REASON), reason=f"the Linux router cannot run here: {REASON}")


class Login:
    """ssh to the router as root, as Ansible does it."""

    def __init__(self, router: Device, folder: Path, host_key: str) -> None:
        self._known_hosts = folder / "known_hosts"
        self._known_hosts.write_text(f"[127.0.0.1]:{router.ssh_port} {host_key}\n")
        self._key = folder / router.name / "id_ed25519"
        self._port = router.ssh_port

    def __call__(self, command: str, stdin: str = "", timeout: float = 20) -> subprocess.CompletedProcess[str]:
        options = ["-F", "/dev/null", "-o", "BatchMode=yes", "-o", f"UserKnownHostsFile={self._known_hosts}"]
        return subprocess.run(
            [tool("ssh"), *options, "-i", str(self._key), "-p", str(self._port), "root@127.0.0.1", command],
            input=stdin, capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip


@pytest.fixture
def nat1(tmp_path: Path) -> Iterator[tuple[Device, Login]]:
    router = Device.load("nat1", CONFIGS)
    host_key = router.start("127.0.0.1", 0, tmp_path)
    try:
        yield router, Login(router, tmp_path, host_key)
    finally:
        router.stop()


@pytest.fixture(scope="module")
def wires() -> Iterator[Device]:
    """The router without sshd, with the rules of lab/configs; tests leave them as they were."""
    router = Device.load("nat1", CONFIGS)
    router.connect()
    yield router
    router.stop()


def test_root_logs_in_with_the_key_and_is_inside(nat1: tuple[Device, Login]) -> None:
    router, ssh = nat1
    assert ssh("nft list ruleset").stdout == router.snapshot()
    addresses = ssh("ip -o addr show").stdout
    assert "subs100    inet 198.51.100.1/25" in addresses
    assert "subs200    inet6 2001:db8:200::1/64" in addresses
    assert router.commands == ["nft list ruleset", "ip -o addr show"]


def test_what_its_shell_writes_stays_in_the_router(nat1: tuple[Device, Login]) -> None:
    _, ssh = nat1
    before = Path("/etc/nftables.conf").read_text() if Path("/etc/nftables.conf").exists() else None
    written = ssh(
        "cat >/etc/nftables.conf; mkdir -p ~/lab-was-here /var/lib/lab-was-here; cat /etc/nftables.conf", "# x\n"
    )
    assert (written.stdout, written.returncode) == ("# x\n", 0)
    assert (Path("/etc/nftables.conf").read_text() if Path("/etc/nftables.conf").exists() else None) == before
    assert not Path("/var/lib/lab-was-here").exists()
    assert not (Path.home() / "lab-was-here").exists()


def test_stopping_leaves_nothing(tmp_path: Path) -> None:
    router = Device.load("nat1", CONFIGS)
    ssh = Login(router, tmp_path, router.start("127.0.0.1", 0, tmp_path))
    assert (
        ssh(
            "nohup setsid /bin/sleep 86401 >/dev/null 2>&1 & nohup setsid /bin/sleep 86401 >/dev/null 2>&1 &"
        ).returncode
        == 0
    )
    assert running("86401") == 2
    namespace = router.namespace.path
    router.stop()
    assert running("86401") == 0
    assert not Path(namespace).exists()
    assert ssh("true").returncode == 255


def running(argument: str) -> int:
    """Processes of this machine with the argument."""
    found = 0
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += argument.encode() in line.read_bytes().split(b"\0")
        except OSError:
            continue
    return found


def test_a_router_that_cannot_start_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    router = Device("nat1", "table inet x { chain y { frobnicate } }", Device.load("nat1", CONFIGS).links)
    with pytest.raises(OSError, match="syntax error"):
        router.start("127.0.0.1", 0, tmp_path)
    with pytest.raises(RuntimeError, match="nat1 is not running"):
        router.snapshot()


TABLE = "table inet t { chain c { type filter hook forward priority -5; tcp dport 7777 drop; }; }\n"
BLOCKED = {
    "family": 4,
    "source": "198.51.100.9",
    "destination": "203.0.113.200",
    "protocol": 6,
    "destination_port": 7777,
}


def test_a_cut_connection_after_a_change(nat1: tuple[Device, Login]) -> None:
    router, ssh = nat1
    router.faults = Faults(cut_after=1)
    assert ssh("nft list tables").returncode == 0
    assert ssh("nft -f -", TABLE).returncode == 255
    assert "table inet t" in router.snapshot()
    assert ssh("nft delete table inet t").returncode == 0


def test_a_rejected_change(nat1: tuple[Device, Login]) -> None:
    router, ssh = nat1
    before = router.snapshot()
    router.faults = Faults(reject_at=2)
    assert ssh("nft -c -f -; true", TABLE).returncode == 0
    rejected = ssh("nft -f -", TABLE)
    assert rejected.returncode == 1
    assert "Error: syntax error" in rejected.stderr
    assert router.snapshot() == before
    assert ssh("nft -f -", TABLE).returncode == 0


def test_a_session_that_hangs(nat1: tuple[Device, Login]) -> None:
    router, ssh = nat1
    router.faults = Faults(hang_at=1)
    with pytest.raises(subprocess.TimeoutExpired):
        ssh("nft -f -", TABLE, timeout=6)
    assert "table inet t" in router.snapshot()


def test_the_clock_can_be_pushed(nat1: tuple[Device, Login]) -> None:
    router, ssh = nat1
    ssh("nft -f -", TABLE)
    ssh("nohup sh -c 'sleep 300; nft delete table inet t' >/dev/null 2>&1 &")
    time.sleep(0.5)
    assert judge(router, "subs100", "up", BLOCKED) == "deny"
    router.clock.advance(299 - 2)
    time.sleep(0.5)
    assert judge(router, "subs100", "up", BLOCKED) == "deny"
    router.clock.advance(4)
    wait = time.monotonic() + 10
    while "table inet t " in router.snapshot() and time.monotonic() < wait:
        time.sleep(0.1)
    assert judge(router, "subs100", "up", BLOCKED) == "permit"


def test_a_lock_out_is_real(nat1: tuple[Device, Login]) -> None:
    router, ssh = nat1
    router.nft("insert", "rule", "inet", "filter", "input", "tcp", "dport", "22", "drop")
    with pytest.raises(subprocess.TimeoutExpired):
        ssh("true", timeout=2)


# --- Packets

UP4 = {
    "family": 4, "source": "198.51.100.9", "destination": "203.0.113.200", "protocol": 6, "source_port": 40000,
    "destination_port": 25, "tcp_flags": 2,
}  # fmt: skip
DOWN4 = {**UP4, "source": "203.0.113.200", "destination": "198.51.100.9"}
UP6 = {**UP4, "family": 6, "source": "2001:db8:200::9", "destination": "2001:db8:aaaa::9"}
DOWN6 = {**UP6, "source": "2001:db8:aaaa::9", "destination": "2001:db8:200::9"}
FIBRE = {"source": "198.51.100.150"}


@pytest.mark.parametrize(
    ("attachment", "direction", "values", "expected"),
    [
        ("subs100", "up", UP4, "deny"),
        ("subs100", "up", {**UP4, "destination_port": 80}, "permit"),
        ("subs100", "up", {**UP4, "destination": "192.0.2.25"}, "permit"),
        ("subs100", "up", {**UP4, "tcp_flags": 16}, "deny"),
        ("subs100", "up", {**UP4, "tcp_flags": 16, "state": 1}, "permit"),  # planted: established first
        ("subs100", "up", {**UP4, "state": 2}, "permit"),  # the first packet of a connection that another announced
        ("subs100", "up", {**UP4, "protocol": 1, "icmp_type": 8, "state": 1}, "permit"),
        ("subs100", "up", {**UP4, "source": "203.0.113.9", "destination_port": 80}, "deny"),
        ("subs100", "up", {**UP4, "source": "198.51.100.7"}, "permit"),
        ("subs100", "down", DOWN4, "deny"),
        ("subs100", "down", {**DOWN4, "destination_port": 80}, "permit"),
        ("subs100", "down", {**DOWN4, "destination_port": 80, "source_port": 25}, "deny"),
        ("subs100", "down", {**DOWN4, "tcp_flags": 16, "state": 1}, "deny"),
        ("subs200", "up", {**UP4, "source": "198.51.100.140"}, "permit"),  # planted: an exception that has expired
        ("subs200", "up", {**UP4, **FIBRE}, "deny"),
        ("subs200", "up", UP6, "deny"),
        ("subs200", "up", {**UP6, "extension": 1}, "permit"),  # planted: the first next header
        ("subs200", "up", {**UP6, "extension": 2}, "permit"),
        ("subs200", "up", {**UP6, "extension": 4}, "permit"),
        ("subs200", "down", {**DOWN4, "destination": "198.51.100.150", "destination_port": 445}, "permit"),  # planted
        ("subs200", "down", {**DOWN6, "destination_port": 137, "protocol": 17}, "permit"),  # planted: logged only
        ("subs200", "down", {**DOWN6, "extension": 4}, "deny"),
        # Connection tracking puts fragments together: each counts as its datagram.
        ("subs100", "up", {**UP4, "fragment": 1}, "deny"),
        ("subs100", "up", {**UP4, "fragment": 2}, "deny"),
        ("subs100", "up", {**UP4, "fragment": 1, "destination_port": 80}, "permit"),
        ("subs100", "up", {**UP4, "fragment": 2, "destination_port": 80}, "permit"),
        ("subs200", "up", {**UP6, "fragment": 2, "destination_port": 80}, "permit"),
        # Other protocols.
        ("subs100", "up", {**UP4, "protocol": 50}, "permit"),
        ("subs100", "up", {**UP4, "protocol": 17, "destination_port": 53}, "permit"),
        ("subs100", "up", {**UP4, "protocol": 17, "destination_port": 137}, "deny"),
        ("subs100", "up", {**UP4, "protocol": 1, "icmp_type": 3, "icmp_code": 4, "state": 2}, "permit"),
        ("subs200", "down", {**DOWN6, "protocol": 58, "icmp_type": 2, "state": 2}, "permit"),
    ],
)  # fmt: skip
def test_the_kernel_judges(
    wires: Device, attachment: str, direction: str, values: dict[str, object], expected: str
) -> None:
    assert judge(wires, attachment, direction, values) == expected


def test_only_subscribers_hang_on_attachments(wires: Device) -> None:
    for name in ("wan0", "mgmt0", "subs300"):
        with pytest.raises(KeyError):
            judge(wires, name, "up", UP4)


def bare(rules: str) -> Device:
    """The router with one forward chain, no connection tracking."""
    router = Device("nat1", f"table inet x {{ chain y {{ type filter hook forward priority 0; {rules}\n}}\n}}\n", LINKS)
    router.connect()
    return router


LINKS = Device.load("nat1", CONFIGS).links


@pytest.mark.parametrize(
    ("rule", "leaks"),
    [
        ("ip6 nexthdr tcp tcp dport 25 drop", {1, 2, 3, 4}),
        ("tcp dport 25 drop", set()),
        ("tcp dport 25 tcp flags & (syn | ack) == syn drop", {"ack"}),
    ],
)
def test_how_port_25_leaks(rule: str, leaks: set[object]) -> None:
    router = bare(rule)
    try:
        found: set[object] = {
            extension
            for extension in range(5)
            if judge(router, "subs200", "up", {**UP6, "extension": extension}) == "permit"
        }
        if judge(router, "subs200", "up", {**UP6, "tcp_flags": 16}) == "permit":
            found.add("ack")
        # A first fragment that ends before the TCP header passes every rule about ports (RFC 7112).
        assert judge(router, "subs200", "up", {**UP6, "fragment": 1, "undetermined": 1}) == "permit"
        assert judge(router, "subs200", "up", {**UP6, "fragment": 2}) == "permit"
    finally:
        router.stop()
    assert found == leaks


OLD = "table inet x { chain y { type filter hook forward priority 0; tcp dport 25 drop; }; }\n"


@pytest.mark.parametrize(
    ("change", "tight"),
    [
        (["add table inet x\ndelete table inet x\n" + OLD], True),
        (["delete table inet x\n", OLD], False),
        (["flush table inet x\n", OLD], False),
    ],
)
def test_what_leaks_during_a_change(change: list[str], tight: bool) -> None:
    router = bare("tcp dport 25 drop;")
    try:
        with router.flood("subs100", "up", packet(UP4)) as count:
            for _ in range(10):
                for part in change:
                    router.nft("-f", "-", stdin=part)
        assert count.sent > 100
        assert (count.leaked == 0) == tight
        with router.flood("subs100", "up", packet({**UP4, "destination_port": 80})) as count:
            time.sleep(0.1)
        assert count.leaked == count.sent
    finally:
        router.stop()


def test_a_namespace_ends_what_runs_in_it() -> None:
    namespace = Namespace()
    process = subprocess.Popen([tool("nsenter"), f"--net={namespace.path}", "sleep", "86402"])
    while process.pid not in namespace.processes():
        time.sleep(0.01)
    namespace.close()
    assert process.wait(5) == -15
    assert running("86402") == 0
