"""Quarantine with real packets in the kernel: a subscriber, a neighbour, an edge and the world, both families."""

from __future__ import annotations

import contextlib
import json
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.isp.hardening.plugins.module_utils.signals.ledger import Outcome, Refused, clock
from ansible_collections.isp.hardening.plugins.module_utils.signals.limits import HOUR, QUARANTINE, Limits, Protected
from ansible_collections.isp.hardening.plugins.module_utils.signals.nftables_service import load, opened
from ansible_collections.isp.hardening.plugins.module_utils.signals.records import Case
from lab.netns import Namespace, join, tool, unavailable

pytestmark = pytest.mark.skipif(bool(unavailable()), reason=unavailable() or "")

SUBSCRIBER = {4: "203.0.113.7", 6: "2001:db8:1:7::7"}
NEIGHBOUR = {4: "203.0.113.8", 6: "2001:db8:1:8::8"}
WORLD = {4: "198.51.100.80", 6: "2001:db8:f::80"}
PORTAL = {4: "198.51.100.10", 6: "2001:db8:f::10"}
PORTS = (25, 53, 80, 443, 587, 465, 5060)
NEVER = (Protected("198.51.100.0/24", "own servers"), Protected("2001:db8:f::/48", "own servers"))
LIMITS = Limits(QUARANTINE, 4_000, NEVER, ttl=HOUR, dry_run=False)
PREFIXES = ("203.0.113.7/32", "2001:db8:1:7::/64")
CASE = Case("case-1", "alice@example.net", PREFIXES, ("D2", "XBL"), 0, ("18 servers in a minute",))

# What others have on the edge: connections that are established are let through before anything else is asked.
FOREIGN = """table inet foreign {
 chain forward {
  type filter hook forward priority filter; policy accept;
  ct state established,related accept
 }
}
"""


class Echo:
    """Every port of the world and of the portal: what comes in goes back."""

    def __init__(self, world: Namespace) -> None:
        self._poll = selectors.DefaultSelector()
        self._stop = socket.socketpair()
        self._poll.register(self._stop[0], selectors.EVENT_READ)
        self._listening = set()
        for family, kind in ((4, socket.AF_INET), (6, socket.AF_INET6)):
            for address in (WORLD[family], PORTAL[family]):
                for port in PORTS:
                    server = world.socket(kind, socket.SOCK_STREAM)
                    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    server.bind((address, port))
                    server.listen()
                    self._poll.register(server, selectors.EVENT_READ)
                    self._listening.add(server)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            for key, _ in self._poll.select():
                ready = key.fileobj
                assert isinstance(ready, socket.socket)
                if ready is self._stop[0]:
                    return
                if ready in self._listening:
                    self._poll.register(ready.accept()[0], selectors.EVENT_READ)
                    continue
                data = b""
                with contextlib.suppress(OSError):
                    data = ready.recv(100)
                    ready.send(data)
                if not data:
                    self._poll.unregister(ready)
                    ready.close()

    def close(self) -> None:
        self._stop[1].close()
        self._thread.join()
        for key in list(self._poll.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()


class Net:
    def __init__(self, directory: Path) -> None:
        self.subscriber, self.neighbour, self.edge, self.world = (Namespace() for _ in range(4))
        ip = tool("ip")
        cables = (self.subscriber, SUBSCRIBER), (self.neighbour, NEIGHBOUR), (self.world, WORLD)
        for number, (host, addresses) in enumerate(cables):
            name, gateways = f"cable{number}", {4: f"192.0.2.{number + 1}", 6: f"fe80::{number + 1}"}
            join(self.edge, name, host, "wan")
            host.run(ip, "link", "set", "dev", "wan", "up")
            self.edge.run(ip, "link", "set", "dev", name, "up")
            self.edge.run(ip, "addr", "add", f"{gateways[4]}/32", "dev", name)
            self.edge.run(ip, "addr", "add", f"{gateways[6]}/64", "dev", name, "nodad")
            for family, address in addresses.items():
                own = [address, *([PORTAL[family]] if host is self.world else [])]
                for one in own:
                    length = "32" if family == 4 else "128"
                    host.run(ip, "addr", "add", f"{one}/{length}", "dev", "wan", *(["nodad"] if family == 6 else []))
                    self.edge.run(ip, "route", "add", f"{one}/{length}", "dev", name)
                via = gateways[family]
                host.run(ip, f"-{family}", "route", "add", "default", "via", via, "dev", "wan", "onlink")
        for setting in ("ipv4.ip_forward", "ipv6.conf.all.forwarding"):
            self.edge.run(tool("sysctl"), "-qw", f"net.{setting}=1")
        self.edge.run(tool("nft"), "-f", "-", stdin=FOREIGN)
        self.settings = directory / "quarantine.json"
        self.state, self.audit = directory / "state" / "state.json", directory / "log" / "audit.jsonl"
        self.write_settings(most=4)
        self.echo = Echo(self.world)

    def write_settings(self, most: int) -> None:
        never = [{"prefix": one.prefix, "reason": one.reason} for one in NEVER]
        data = {"state": str(self.state), "audit": str(self.audit), "portal": [*PORTAL.values()], "never": never}
        self.settings.write_text(json.dumps(data | {"most": most}))
        self.ledger, self.kernel = opened(str(self.settings))

    def connect(self, host: Namespace, address: str, port: int) -> socket.socket:
        made = host.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        made.settimeout(0.5)
        made.connect((address, port))
        return made

    def answer(self, host: Namespace, address: str, port: int) -> str:
        """Whether a new connection is "open", "refused" or gets no answer ("silent")."""
        try:
            with self.connect(host, address, port) as made:
                return still_open(made)
        except TimeoutError:
            return "silent"
        except ConnectionRefusedError:
            return "refused"

    def apply(self, *cases: Case, limits: Limits = LIMITS, **options: object) -> Outcome:
        return self.edge.enter(lambda: self.ledger.apply(self.kernel, cases, limits, **options))  # type: ignore[arg-type]

    def service(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """As systemd starts it."""
        name = "ansible_collections.isp.hardening.plugins.module_utils.signals.nftables_service"
        command = [tool("nsenter"), f"--net={self.edge.path}", sys.executable, "-m", name, str(self.settings)]
        where = {"PYTHONPATH": ".collections", "PATH": "/usr/bin"}
        return subprocess.run([*command, *arguments], capture_output=True, text=True, check=False, env=where)

    def nft(self, text: str) -> None:
        self.edge.run(tool("nft"), "-f", "-", stdin=text)

    def elements(self) -> str:
        return self.edge.run(tool("nft"), "list", "table", "inet", "isp_quarantine")

    def log(self) -> list[tuple[str, str, str]]:
        records = [json.loads(line) for line in self.audit.read_text().splitlines()]
        return [(one["what"], one.get("key", ""), one["by"]) for one in records]

    def close(self) -> None:
        self.echo.close()
        for namespace in (self.subscriber, self.neighbour, self.edge, self.world):
            namespace.close()


def still_open(made: socket.socket) -> str:
    try:
        made.send(b"hello")
        return "open" if made.recv(100) == b"hello" else "closed"
    except TimeoutError:
        return "silent"
    except (ConnectionResetError, BrokenPipeError):
        return "reset"


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Net]:
    made = Net(tmp_path)
    yield made
    made.close()


def test_587_and_portal_pass_25_dropped_session_cut_neighbour_untouched_v6_too(net: Net) -> None:
    before = {
        (host, family, port): net.connect(where, WORLD[family], port)
        for host, where in (("subscriber", net.subscriber), ("neighbour", net.neighbour))
        for family in (4, 6)
        for port in (25, 443, 587)
    }
    assert {still_open(made) for made in before.values()} == {"open"}

    assert net.apply(CASE).changed

    for family in (4, 6):
        asked = {port: net.answer(net.subscriber, WORLD[family], port) for port in PORTS}
        assert asked == {
            25: "silent",
            80: "refused",
            443: "refused",
            53: "open",
            465: "open",
            587: "open",
            5060: "open",
        }
        portal = [net.answer(net.subscriber, PORTAL[family], port) for port in (80, 443, 25)]
        assert portal == ["open", "open", "silent"]
        assert {net.answer(net.neighbour, WORLD[family], port) for port in PORTS} == {"open"}
        live = {port: still_open(before["subscriber", family, port]) for port in (25, 443, 587)}
        assert live == {25: "silent", 443: "reset", 587: "open"}
        assert [still_open(before["neighbour", family, port]) for port in (25, 443, 587)] == ["open"] * 3
    for made in before.values():
        made.close()
    assert net.log() == [("add", "case-1", "automatic")]


def test_second_run_changes_nothing_and_quarantine_survives_a_reload(net: Net) -> None:
    net.apply(CASE)
    assert not net.apply(CASE).changed
    assert net.service().stdout == ""
    assert net.log() == [("add", "case-1", "automatic")]
    first = json.loads(net.state.read_text())["actions"]
    for lost in ("flush ruleset", "flush set inet isp_quarantine subscribers6", "delete table inet isp_quarantine"):
        net.nft(lost)
        assert net.answer(net.subscriber, WORLD[6], 443) == "open"
        assert net.service().returncode == 0
        assert net.answer(net.subscriber, WORLD[6], 443) == "refused"
        assert net.service().stdout == "", "the second run has nothing to do"
    assert json.loads(net.state.read_text())["actions"] == first, "with the time that is left, and no more"
    assert net.log() == [("add", "case-1", "automatic"), *[("restore", "case-1", "automatic")] * 3]


def test_expiry_without_ansible_and_without_the_service(net: Net) -> None:
    net.apply(CASE, limits=Limits(QUARANTINE, 4_000, NEVER, ttl=1_000, dry_run=False))
    assert net.answer(net.subscriber, WORLD[4], 443) == "refused"
    deadline = time.monotonic() + 20
    while net.answer(net.subscriber, WORLD[4], 443) != "open":
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert net.answer(net.subscriber, WORLD[6], 25) == "open"
    assert net.service().returncode == 0
    assert json.loads(net.state.read_text())["actions"] == []
    assert net.log() == [("add", "case-1", "automatic"), ("expire", "case-1", "automatic")]


def test_over_size_batch_leaves_the_set_unchanged_and_says_so(net: Net) -> None:
    net.apply(CASE)
    before, state = net.elements(), net.state.read_text()
    many = [Case(f"k{one}", f"s{one}", (f"203.0.113.{one}/32",), ("D2",), 0) for one in range(20, 24)]
    over = net.apply(*many)
    assert over.decision
    assert "more than the cap of 4" in over.decision.frozen
    assert not over.changed
    # A state file that somebody wrote past the limits is refused on the edge as well, and so is what the kernel says.
    net.write_settings(most=1)
    net.nft("delete table inet isp_quarantine")
    assert net.service().returncode == 0
    small = net.elements()
    actions = json.loads(state)["actions"]
    other = [actions[0] | {"key": f"k{one}", "prefixes": [f"203.0.113.{one}/32"]} for one in range(20, 22)]
    net.state.write_text(json.dumps(json.loads(state) | {"actions": other}))
    done = net.service()
    assert (done.returncode, "2 actions are more than the 1" in done.stdout) == (1, True)
    assert "as it was" in done.stdout
    assert strip_times(net.elements()) == strip_times(small)
    assert strip_times(before) != ""
    assert [one[0] for one in net.log()] == ["add", "refuse", "restore", "refuse"]
    net.service()
    assert len(net.log()) == 4, "a refusal that lasts is told once"


def test_a_full_set_is_the_kernels_own_refusal(net: Net) -> None:
    net.apply(CASE)
    full = ", ".join(f"192.0.2.{one} timeout 60s" for one in range(1, 64))
    net.nft(f"add element inet isp_quarantine subscribers4 {{ {full} }}")
    before, state = net.elements(), net.state.read_text()
    text = "".join(f"add element inet isp_quarantine subscribers4 {{ 203.0.113.{one} }}\n" for one in (30, 31))
    with pytest.raises(Refused, match="a set is full"):
        net.edge.enter(lambda: load(text))
    assert strip_times(net.elements()) == strip_times(before)
    assert net.state.read_text() == state


def strip_times(text: str) -> list[str]:
    return [word for word in text.split() if not word.endswith(("ms", "ms,", "s", "s,")) and not word.isdigit()]


def test_release_by_hand_is_at_once_and_lasts(net: Net) -> None:
    net.apply(CASE)
    assert net.answer(net.subscriber, WORLD[4], 443) == "refused"
    done = net.service("release", SUBSCRIBER[4], "jane", "called,", "is", "clean")
    assert (done.returncode, done.stdout) == (0, "0 added, 0 renewed, 2 removed\n")
    assert [net.answer(net.subscriber, WORLD[family], 25) for family in (4, 6)] == ["open", "open"]
    again = net.apply(CASE)
    assert not again.change.text
    assert again.decision
    assert [one.reason for one in again.decision.refused] == ["it was released by hand"]
    assert net.log() == [("add", "case-1", "automatic"), ("release", "case-1", "jane")]
    last = json.loads(net.audit.read_text().splitlines()[-1])
    assert last["reason"] == "called, is clean"
    assert last["subscriber"] == "alice@example.net"
    assert last["until"] > last["time"]
    assert "nothing in force" in net.service("release", "nobody", "jane", "typo").stdout


@pytest.mark.parametrize("by", ["an empty state file", "the policy"])
def test_the_kill_switch_releases_everybody(net: Net, by: str) -> None:
    net.apply(CASE)
    if by == "the policy":
        off = Limits(QUARANTINE, 4_000, (), ttl=HOUR, enabled=False)
        assert net.apply(CASE, limits=off).changed
    else:
        net.state.write_text("")
        assert net.service().returncode == 0
        again = net.apply(CASE)
        assert again.decision
        assert (again.changed, again.decision.frozen) == (False, "the kill switch is on")
        assert net.state.read_text() == "", "until he takes it away"
    assert net.answer(net.subscriber, WORLD[4], 25) == "open"
    assert net.log()[1][0] == ("release" if by == "the policy" else "remove")


@pytest.mark.parametrize("how", ["check", "dry run"])
def test_dry_run_and_check_tell_and_touch_nothing(net: Net, how: str) -> None:
    limits = Limits(QUARANTINE, 4_000, NEVER, ttl=HOUR, dry_run=how == "dry run")
    outcome = net.apply(CASE, limits=limits, check=how == "check")
    assert set(outcome.change.added) == set(PREFIXES)
    assert net.answer(net.subscriber, WORLD[4], 25) == "open"
    assert not net.state.exists()
    assert not net.audit.exists()


@pytest.mark.parametrize(
    ("text", "reason"), [("{", "not JSON"), ('{"version": 2}', "version 1"), ("<html></html>", "not JSON")]
)
def test_a_broken_state_file_changes_nothing(net: Net, text: str, reason: str) -> None:
    net.apply(CASE)
    net.state.write_text(text)
    done = net.service()
    assert (done.returncode, reason in done.stdout, "Traceback" in done.stderr) == (1, True, False)
    assert net.answer(net.subscriber, WORLD[4], 443) == "refused"
    with pytest.raises(Refused, match=reason):
        net.apply(CASE)


def test_clock_jump_freezes(net: Net) -> None:
    net.apply(CASE)
    before, state = net.elements(), net.state.read_text()
    for now in (5, clock() + 400 * 24 * HOUR):
        outcome = net.apply(CASE, now=now)
        assert outcome.decision
        assert "the clock" in outcome.decision.frozen
        assert not outcome.changed
        with pytest.raises(Refused, match="the clock"):
            net.edge.enter(lambda now=now: net.ledger.reconcile(net.kernel, now))
    assert strip_times(net.elements()) == strip_times(before)
    assert net.state.read_text() == state
