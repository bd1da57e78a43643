# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A plan, carried out over a session: arm, send, commit, log in afresh, read, prove, confirm. Or back, and say so."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Protocol

from .filters import Configuration
from .plan import Plan, same_in_force
from .secrets import redact


class SessionLost(Exception):
    """The session ended or fell silent. The message says where."""


class Router(Protocol):
    """A session with a router. Both methods raise SessionLost."""

    def send(self, command: str) -> str:
        """The output of one command."""

    def reset(self) -> None:
        """Log in afresh."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """`state` is changed, rolled_back, rejected or session_lost. `text` is the running text as last read, or ""."""

    state: str
    message: str
    steps: tuple[str, ...]
    text: str


class _Rejected(Exception):
    pass


def read(platform: ModuleType, router: Router) -> str:
    """The running text, by the platform's own commands."""
    return "\n".join(router.send(command) for command in platform.READ)


def push(
    platform: ModuleType,
    router: Router,
    plan: Plan,
    before: Configuration,
    names: Sequence[str],
    proved: Callable[[Configuration], str],
    minutes: int,
) -> Outcome:
    """Carry the plan out. `proved` says what is wrong with a configuration in the places of the plan, "" for nothing.

    Ends with the new filters confirmed or the old ones back wherever the router can still be reached; where it
    cannot, its own timer brings the old ones back, and the message says so.
    """
    steps: list[str] = []
    session = f"isp-{uuid.uuid4().hex[:8]}"  # EOS does not open a completed session's name again
    armed = f"the router's own timer brings the old configuration back within {minutes} minutes"

    def run(commands: Sequence[str], what: str) -> None:
        for command in commands:
            _accepted(platform, router, command.format(minutes=minutes, session=session))
        if commands:
            steps.append(what)

    try:
        run(platform.PUSH.arm, f"armed: {armed} unless it is confirmed")
        for line in plan.lines:
            _accepted(platform, router, line)
        steps.append(f"sent {len(plan.lines)} lines")
        run(platform.PUSH.commit, "committed, to be confirmed")
    except _Rejected as error:
        return _back(platform, router, session, before, names, steps, "rejected", f"the router rejected {error}", armed)
    except SessionLost as error:
        return _back(platform, router, session, before, names, steps, "session_lost", str(error), armed)
    try:
        router.reset()
        text = read(platform, router)
        now = platform.parse(text, names)
        steps.append("logged in afresh and read the configuration back")
        wrong = platform.incomplete(text) or proved(now)
        if wrong:
            return _back(
                platform, router, session, before, names, steps, "rolled_back", f"after the push {wrong}", armed
            )
        run(platform.PUSH.confirm, "proved and confirmed")
        text = read(platform, router)
        if not same_in_force(platform.parse(text, names), now):
            return _back(
                platform,
                router,
                session,
                before,
                names,
                steps,
                "rolled_back",
                "the timer fired before the confirmation",
                armed,
            )
    except _Rejected as error:
        return _back(platform, router, session, before, names, steps, "rejected", f"the router rejected {error}", armed)
    except SessionLost as error:
        return _back(platform, router, session, before, names, steps, "session_lost", str(error), armed)
    return Outcome("changed", "changed, proved and confirmed", tuple(steps), text)


def _accepted(platform: ModuleType, router: Router, command: str) -> str:
    output = router.send(command)
    for pattern in platform.REJECTED:
        found = re.search(pattern, output, re.MULTILINE)
        if found:
            said = next((line for line in output.splitlines() if found.group() in line), found.group()).strip()
            raise _Rejected(f"'{redact(command)}' with '{redact(said)}'")
    return output


def _back(
    platform: ModuleType,
    router: Router,
    session: str,
    before: Configuration,
    names: Sequence[str],
    steps: list[str],
    state: str,
    why: str,
    armed: str,
) -> Outcome:
    """Over a fresh login: clear what is left, take back what is in force, and see what the router has now."""
    try:
        router.reset()
        for command in platform.PUSH.discard:
            router.send(command.format(session=session))
        text = read(platform, router)
        if not same_in_force(platform.parse(text, names), before):
            for command in platform.PUSH.abort:
                router.send(command.format(session=session))
            steps.append("took the change back")
            text = read(platform, router)
    except SessionLost as error:
        return Outcome(state, f"{why}; then {error}; {armed}", tuple(steps), "")
    if same_in_force(platform.parse(text, names), before):
        return Outcome(state, f"{why}; the router has its old filters", tuple(steps), text)
    return Outcome(state, f"{why}; its filters are neither taken back nor confirmed: {armed}", tuple(steps), text)
