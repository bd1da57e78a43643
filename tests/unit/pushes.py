# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the tests of the push share: the lab's routers, a run as the action does it, faults, and packets to judge."""

from __future__ import annotations

import datetime
import functools
import ipaddress
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import jinja2
import ruamel.yaml

from ansible_collections.isp.hardening.plugins.module_utils import platforms
from ansible_collections.isp.hardening.plugins.module_utils.audit import audit
from ansible_collections.isp.hardening.plugins.module_utils.filters import Configuration
from ansible_collections.isp.hardening.plugins.module_utils.findings import COMPLIANT, Finding
from ansible_collections.isp.hardening.plugins.module_utils.plan import Plan, propose
from ansible_collections.isp.hardening.plugins.module_utils.policy import (
    Attachment,
    Policy,
    read_attachments,
    read_policy,
)
from ansible_collections.isp.hardening.plugins.module_utils.push import Outcome, SessionLost, push, read
from lab.__main__ import CONFIGS, INVENTORY, hosts
from lab.judge import Packet, packet
from lab.routers import kind
from lab.routers.base import Router, Session

ROOT = Path(__file__).parents[2]
TODAY = datetime.date(2026, 11, 23)
MINUTES = 5
ATTACHMENTS = 1  # of each router, so that every position of a push can be tried

Fault = Callable[["Desk", str], str]


def load(file: Path) -> Any:
    return ruamel.yaml.YAML(typ="safe").load(file)


def policy_of_the_lab() -> Policy:
    policy, problems = read_policy(load(INVENTORY / "group_vars" / "all" / "policy.yml")["isp_policy"], TODAY)
    assert policy is not None, problems
    return policy


_VOLATILE = re.compile(
    r"^(?:(?:!!? Last configuration change|Current configuration|(?:!! )?Building|Using |## Last commit|! Command|"
    r"# (?:Generated|Finished) |"
    r"!(?:Command|Running configuration last done|Time): |\d+$|"
    r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) \w{3} [ \d]\d \d\d:\d\d:).*)?\n",
    re.M,
)


_SESSION = re.compile(r"isp-[0-9a-f]{8}\b")  # the name of a push, as push.py makes it


@functools.lru_cache(maxsize=256)
def calm(text: str) -> str:
    """A configuration without blank lines and without what says when it was printed or changed."""
    return _VOLATILE.sub("", text)


@dataclass(frozen=True, eq=False)
class Case:
    """One of the lab's routers, its policy and the least that has to be pushed to it."""

    name: str
    network_os: str
    policy: Policy
    attachments: tuple[Attachment, ...]

    @property
    def names(self) -> list[str]:
        return [one.name for one in self.attachments]

    @functools.cached_property
    def platform(self) -> ModuleType:
        """The platform, whose parser remembers what it has read: a router prints the same text again and again."""
        platform = platforms.load(self.network_os)
        known = functools.lru_cache(maxsize=256)(platform.parse)

        def parse(text: str, names: Sequence[str] = ()) -> Configuration:
            return known(text, tuple(names))

        remembering = ModuleType(platform.__name__)
        vars(remembering).update(vars(platform), parse=parse)
        return remembering

    @functools.cached_property
    def old(self) -> str:
        return calm(self.router().snapshot())

    @functools.cached_property
    def new(self) -> str:
        """After a push that nothing disturbs."""
        router = self.router()
        assert self.run(Desk(router)).state == "changed"
        return calm(router.snapshot())

    def router(self) -> Router:
        return kind(self.network_os).load(self.name, CONFIGS)

    def audit(self, configuration: Configuration) -> list[Finding]:
        return audit(configuration, self.policy, self.attachments, self.name, self.platform.LINK_LOCAL)

    @functools.lru_cache(maxsize=64)  # noqa: B019 - a case lives as long as the tests do
    def plan(self, running: str) -> Plan:
        findings = self.audit(self.platform.parse(running, self.names))
        template = ROOT / "roles" / "edge_filter" / "templates" / f"{self.network_os}.j2"
        environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        render = environment.from_string(template.read_text()).render
        return propose(self.platform, running, self.policy, self.attachments, findings, render, None)

    @functools.lru_cache(maxsize=64)  # noqa: B019
    def wrong_in(self, running: str) -> list[Finding]:
        """What does not hold."""
        findings = self.audit(self.platform.parse(running, self.names))
        return [one for one in findings if one.verdict != COMPLIANT and one.control.startswith("P")]

    def run(self, desk: Desk, proved: Callable[[Configuration], str] | None = None) -> Outcome:
        """Read, plan, push: what the action does. An outcome of the state unchanged when there is nothing to push."""
        running = read(self.platform, desk)
        desk.passes(calm(running), whole=True)
        assert not self.platform.incomplete(running)
        plan = self.plan(calm(running))
        if not plan.lines:
            return Outcome("unchanged", "", (), running)
        desk.pushing = True

        def holds(_: Configuration) -> str:
            # What the desk read last is what was parsed; its proof is remembered.
            text = "\n".join(desk.printed[command] for command in self.platform.READ)
            bad = [
                one for one in self.wrong_in(calm(text)) if (one.attachment, one.direction, one.family) in plan.places
            ]
            return f"{bad[0].title} does not hold" if bad else ""

        before = self.platform.parse(running, self.names)
        outcome = push(self.platform, desk, plan, before, self.names, proved or holds, MINUTES)
        desk.pushing = False
        return outcome


@functools.cache
def cases() -> list[Case]:
    """The routers whose configuration lies in a file: all that have a kind in lab/routers and need no kernel."""
    policy = policy_of_the_lab()
    found = []
    for host in hosts():
        if not kind(host.network_os).own_server:
            rows = load(INVENTORY / "host_vars" / f"{host.name}.yml")["isp_attachments"][:ATTACHMENTS]
            attachments, problems = read_attachments([row | {"replace_foreign": True} for row in rows], policy)
            assert problems == []
            found.append(Case(host.name, host.network_os, policy, attachments))
    return found


class Desk:
    """A session with a lab router in this process, as plugins/connection/netmiko.py keeps one over SSH.

    `fault` is asked before every command of a push ("" for a login): it returns "" or what goes wrong:
    "reply": the command takes effect and the session ends before its reply; "command": it does not arrive;
    "gone": nor does anything from now on; "reject": the router does not take it.
    """

    def __init__(
        self, router: Router, fault: Fault | None = None, ghosts: bool = False, watch: Watch | None = None
    ) -> None:
        self.router = router
        self._watch = watch
        self.pushing = False
        self.commands: list[str] = []
        self.printed: dict[str, str] = {}  # what each command printed last
        self.gone = False
        self._fault = fault
        self._ghosts = ghosts  # the router does not notice that a session is lost
        self._session: Session | None = None
        self._answers = getattr(platforms.load(type(router).__module__.rpartition(".")[2]), "ANSWERS", ())

    def send(self, command: str) -> str:
        fault = self._asked(command)
        session = self._session = self._session or self.router.login()
        if fault == "command":
            raise self._lose(command)
        if fault == "reject":
            return session.rejection(command)
        self.passes(command)
        output = session.execute(command)
        text = output if isinstance(output, str) else "".join(output)
        for question, answer in self._answers:
            if re.search(question, text + session.prompt):
                self.passes(answer)
                output = session.execute(answer)
                text += output if isinstance(output, str) else "".join(output)
        self.printed[command] = text
        if fault == "reply":
            raise self._lose(command)
        if session.closed or not re.search(r"[>#$\]] ?$", session.prompt):
            raise self._lose(command)
        return text

    def wait(self, seconds: float) -> None:
        """Time passes at the router."""
        self.passes(f"{seconds} seconds")
        self.router.clock.advance(seconds)

    def passes(self, what: str, whole: bool = False) -> None:
        """The watch knows the states of a router by its text (`whole`) and what has happened since."""
        if self._watch:
            self._watch.trail = hash((0 if whole else self._watch.trail, what))

    def reset(self) -> None:
        self._hang_up()
        if self._asked("") in ("command", "reply"):
            raise SessionLost("the login was cut")
        self._session = self.router.login()

    def beside(self, commands: Sequence[str]) -> str:
        held, self._session = self._session, None
        try:
            if self._asked("") in ("command", "reply"):
                raise SessionLost("the login was cut")
            return "\n".join(self.send(command) for command in commands)
        finally:
            self._hang_up()
            self._session = held

    def _asked(self, command: str) -> str:
        if self.pushing:
            self.commands.append(command)
            fault = self._fault(self, command) if self._fault else ""
            self.gone = self.gone or fault == "gone"
            if self.gone:
                self._hang_up()
                raise SessionLost(f"no answer to '{command}'")
            return fault
        return ""

    def _lose(self, command: str) -> SessionLost:
        if self._ghosts:
            self._session = None
        self._hang_up()
        return SessionLost(f"the session was lost at '{command}'")

    def _hang_up(self) -> None:
        if self._session is not None:
            with self.router.clock.lock:
                self._session.hang_up()
            self._session = None


def at(number: int, what: str) -> Fault:
    """The fault at the command of this number, from 1, of a push."""
    return lambda desk, _: what if len(desk.commands) == number else ""


class Watch:
    """Judges packets after every change of a router: none may pass that the old and the new filters both stop."""

    _known: dict[object, tuple[str, ...]] = {}  # noqa: RUF012 - all watches share it

    def __init__(self, case: Case, router: Router) -> None:
        self._case = case
        self._router = router
        self.leaks: list[str] = []
        self.trail = hash(case.name)
        self.by_text = False  # nobody tells what happens to the router, so its states are known by their text
        self._changes = 0, 0
        self.states = 0
        stopped = zip(self._of(case.old), self._of(case.new), strict=True)
        self._stopped = [both == ("deny", "deny") for both in stopped]
        router.on_change(self.look)

    @property
    def stopped(self) -> int:
        """How many packets must never pass."""
        return sum(self._stopped)

    def look(self) -> None:
        self.states += 1
        if self.by_text:
            self.trail = hash(calm(self._router.snapshot()))
        self._changes = self.trail, self._changes[1] + 1 if self._changes[0] == self.trail and not self.by_text else 1
        if self._changes not in self._known:
            text = _SESSION.sub("", calm(self._router.snapshot()))
            if text not in self._known:
                self._known[text] = self._verdicts(self._router)
            self._known[self._changes] = self._known[text]
        for one, verdict, stopped in zip(packets(self._case), self._known[self._changes], self._stopped, strict=True):
            if stopped and verdict != "deny":
                self.leaks.append(f"state {self.states}: {one}")

    def _of(self, text: str) -> tuple[str, ...]:
        if text not in self._known:
            self._known[text] = self._verdicts(kind(self._case.network_os)(self._case.name, text))
        return self._known[text]

    def _verdicts(self, router: Router) -> tuple[str, ...]:
        return tuple(router.judge(*one) for one in packets(self._case))


@functools.cache
def packets(case: Case) -> tuple[tuple[str, str, Packet], ...]:
    """(attachment, direction, packet): mail, NetBIOS and what answers to them, whole, with flags, in fragments."""
    return tuple(
        (one.name, direction, packet(values | ({"family": family, "source": source, "destination": destination})))
        for one in case.attachments
        for pool in one.pools
        for family in (4, 6)
        for near in [str(ipaddress.ip_network(case.policy.pools[pool].prefixes(family)[0])[9])]
        for direction in ("up", "down")
        for source, destination in [
            (near, {4: "192.0.2.200", 6: "2001:db8:aaaa::9"}[family])
            if direction == "up"
            else ({4: "192.0.2.200", 6: "2001:db8:aaaa::9"}[family], near)
        ]
        for values in _values()
    )


def _values() -> Iterator[dict[str, int]]:
    for flags in (2, 16, 18):
        yield {"protocol": 6, "source_port": 40000, "destination_port": 25, "tcp_flags": flags}
        yield {"protocol": 6, "source_port": 25, "destination_port": 40000, "tcp_flags": flags}
    yield {"protocol": 6, "source_port": 40000, "destination_port": 25, "tcp_flags": 2, "fragment": 1}
    for port in (135, 137, 138, 139, 445):
        for protocol in (6, 17):
            yield {"protocol": protocol, "source_port": 40000, "destination_port": port, "tcp_flags": 2}
    yield {"protocol": 6, "source_port": 40000, "destination_port": 593, "tcp_flags": 2}
