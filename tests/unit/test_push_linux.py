# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A push to a real Linux router that goes wrong everywhere, while subscribers send mail without pause: nothing leaks.

Each push replaces our table, alone in stopping the flood, by that of another policy. The packets, the kernel, sshd and
the router's timer are real; only the clock of the timer can be pushed.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jinja2
import pytest

from ansible_collections.isp.hardening.plugins.module_utils.audit import audit
from ansible_collections.isp.hardening.plugins.module_utils.filters import Configuration
from ansible_collections.isp.hardening.plugins.module_utils.findings import COMPLIANT, Finding
from ansible_collections.isp.hardening.plugins.module_utils.plan import propose, same_in_force
from ansible_collections.isp.hardening.plugins.module_utils.platforms import linux_nftables
from ansible_collections.isp.hardening.plugins.module_utils.policy import (
    Attachment,
    Policy,
    read_attachments,
    read_policy,
)
from ansible_collections.isp.hardening.plugins.module_utils.push import Outcome, SessionLost, push, read
from lab.__main__ import CONFIGS, INVENTORY
from lab.judge import packet
from lab.netns import tool
from lab.packets import Count
from lab.routers.base import Faults
from lab.routers.linux_nftables import Device
from tests.unit.pushes import MINUTES, ROOT, TODAY, load

REASON = Device.unavailable()
pytestmark = pytest.mark.skipif(bool(REASON), reason=f"the Linux router cannot run here: {REASON}")

NAMES = ["subs100", "subs200"]
FLOODS = [
    ("subs100", "up", {"family": 4, "source": "198.51.100.9", "destination": "203.0.113.200", "destination_port": 25}),
    ("subs200", "up", {"family": 6, "source": "2001:db8:200::9", "destination": "2001:db8:aaaa::9",
                       "destination_port": 25}),
    ("subs100", "down", {"family": 4, "source": "203.0.113.200", "destination": "198.51.100.9", "source_port": 25}),
]  # fmt: skip
COMMANDS = 7  # of a push, behind those that read: two that arm, the file in three, the commit, the confirmation


class Shell:
    """The router's shell over one login, as Ansible's ssh keeps it. `at_reset` is called at a fresh login."""

    def __init__(self, router: Device, folder: Path, at_reset: Callable[[], None] = lambda: None) -> None:
        options = ["-F", "/dev/null", "-o", "BatchMode=yes", "-o", f"UserKnownHostsFile={folder / 'known_hosts'}"]
        options += ["-i", str(folder / router.name / "id_ed25519"), "-p", str(router.ssh_port)]
        self._socket = folder / "login"
        self._ssh = [tool("ssh"), *options, "-S", str(self._socket), "root@127.0.0.1"]
        self._at_reset = at_reset
        self._master: subprocess.Popen[bytes] | None = None
        self.patience = 20.0

    def send(self, command: str) -> str:
        if self._master is None:
            self._log_in()
        try:
            done = subprocess.run(
                [*self._ssh, command], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=self.patience,
                check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            self.close()
            raise SessionLost("no answer") from None
        if done.returncode == 255:
            self.close()
            raise SessionLost(f"the session was lost: {done.stderr.strip()}")
        return done.stdout + (f"\nexit status {done.returncode}: {done.stderr.strip()}" if done.returncode else "")

    def _log_in(self) -> None:
        quiet = subprocess.DEVNULL
        self._master = subprocess.Popen([*self._ssh, "-M", "-N"], stdin=quiet, stdout=quiet, stderr=quiet)
        end = time.monotonic() + 20
        while not self._socket.exists():
            if self._master.poll() is not None or time.monotonic() > end:
                self.close()
                raise SessionLost("the login was cut")
            time.sleep(0.01)

    def reset(self) -> None:
        self.close()
        self._at_reset()

    def close(self) -> None:
        if self._master is not None:
            self._master.kill()  # asked politely, it may wait for a command that will never end
            self._master.wait()
        self._master = None
        self._socket.unlink(missing_ok=True)


def _policy(number: int) -> tuple[Policy, tuple[Attachment, ...]]:
    """The lab's, with one smarthost alone: what one of the two policies demands is not what the other one does."""
    data = load(INVENTORY / "group_vars" / "all" / "policy.yml")["isp_policy"]
    policy, problems = read_policy(data | {"smarthosts": data["smarthosts"][number : number + 1]}, TODAY)
    assert policy is not None, problems
    rows = load(INVENTORY / "host_vars" / "nat1.yml")["isp_attachments"]
    return policy, read_attachments(rows, policy)[0]


class Nat:
    """The router between two policies, each in its turn."""

    def __init__(self, router: Device, folder: Path) -> None:
        self.router = router
        self.folder = folder
        self.number = 0
        self._floods = 0
        self.policies = _policy(0), _policy(1)
        self.filters: dict[int, Configuration] = {}  # of the router when this policy was pushed

    def now(self) -> Configuration:
        return linux_nftables.parse(self.router.execute("; ".join(linux_nftables.READ)), NAMES)

    def other(self, shell: Shell) -> Outcome:
        """A push of the policy whose turn it is not."""
        try:
            return self._push(shell, *self.policies[1 - self.number])
        finally:
            shell.close()

    def _push(self, shell: Shell, policy: Policy, attachments: tuple[Attachment, ...]) -> Outcome:
        """What the action does."""

        def findings(configuration: Configuration) -> list[Finding]:
            return audit(configuration, policy, attachments, "nat1", linux_nftables.LINK_LOCAL)

        def proved(now: Configuration) -> str:
            wrong = [one for one in findings(now) if one.verdict != COMPLIANT and one.control.startswith("P")]
            return "; ".join(one.title for one in wrong)

        running = read(linux_nftables, shell)
        before = linux_nftables.parse(running, NAMES)
        template = (ROOT / "roles" / "edge_filter" / "templates" / "linux_nftables.j2").read_text()
        environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        render = environment.from_string(template).render
        plan = propose(linux_nftables, running, policy, attachments, findings(before), render, None)
        if not plan.lines:
            return Outcome("unchanged", "", (), running)
        return push(linux_nftables, shell, plan, before, NAMES, proved, MINUTES)

    def flood(self) -> contextlib.AbstractContextManager[Count]:
        """Mail that both policies stop, another kind each time."""
        self._floods += 1
        name, direction, values = FLOODS[self._floods % len(FLOODS)]
        return self.router.flood(name, direction, packet({"protocol": 6, "tcp_flags": 2} | values))

    def suffer(self, faults: Faults, shell: Shell | None = None) -> Outcome:
        """A push of the other policy with the fault, under a flood; afterwards one without, which has to succeed."""
        self.router.faults = faults
        with self.flood() as count:
            outcome = self.other(shell or Shell(self.router, self.folder))
        assert count.sent > 100
        assert count.leaked == 0
        self.router.faults = Faults()
        here = self.now()
        if outcome.state == "changed" or "the router has the new filters" in outcome.message:
            assert not same_in_force(here, self.filters[self.number]), outcome.message
            assert outcome.changed
        else:
            assert "the router has its old filters" in outcome.message or "nothing was changed" in outcome.message
            assert same_in_force(here, self.filters[self.number]), outcome.message
            assert not outcome.changed
        again = self.other(Shell(self.router, self.folder))
        assert again.state in ("changed", "unchanged"), again.message
        self.number = other = 1 - self.number
        now = self.now()
        assert same_in_force(now, self.filters.setdefault(other, now))
        self.router.clock.advance(MINUTES * 60 + 1)
        return outcome


@pytest.fixture(scope="module")
def nat(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nat]:
    """The router with our table alone."""
    folder = tmp_path_factory.mktemp("nat")
    router = Device("nat1", "flush ruleset\n", Device.load("nat1", CONFIGS).links)
    host_key = router.start("127.0.0.1", 0, folder)
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{router.ssh_port} {host_key}\n")
    try:
        here = Nat(router, folder)
        for _ in FLOODS:
            with here.flood() as count:
                time.sleep(0.2)
            assert count.leaked  # without the table all of them leak
        here.number = 1
        first = here.other(Shell(router, folder))
        here.number = 0
        assert first.state == "changed", first.message
        here.filters[0] = here.now()
        yield here
    finally:
        router.stop()


def test_a_push_replaces_the_table_in_one_step(nat: Nat) -> None:
    assert nat.suffer(Faults()).state == "changed"


@pytest.mark.parametrize("number", range(1, COMMANDS + 1))
def test_the_session_is_cut_at_every_command(nat: Nat, number: int) -> None:
    outcome = nat.suffer(Faults(cut_after=number))
    assert outcome.state == ("changed" if number == COMMANDS else "session_lost"), outcome.message


@pytest.mark.parametrize("number", range(1, COMMANDS + 1))
def test_every_command_is_rejected_once(nat: Nat, number: int) -> None:
    outcome = nat.suffer(Faults(reject_at=number))
    assert outcome.state == "rejected", outcome.message
    assert len(outcome.message) < 600  # not the whole file that a command may hold


def test_the_timer_fires_before_the_confirmation(nat: Nat) -> None:

    def fire() -> None:
        nat.router.clock.advance(MINUTES * 60 + 1)
        end = time.monotonic() + 10
        while not same_in_force(nat.now(), nat.filters[nat.number]) and time.monotonic() < end:
            time.sleep(0.1)

    outcome = nat.suffer(Faults(), Shell(nat.router, nat.folder, fire))
    assert outcome.state == "rolled_back"
    assert "the change is gone: the timer fired before the confirmation" in outcome.message


def test_the_shell_falls_silent(nat: Nat) -> None:
    shell = Shell(nat.router, nat.folder)
    shell.patience = 3.0
    outcome = nat.suffer(Faults(hang_at=6), shell)
    assert outcome.state == "session_lost"
