# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A plan, carried out over a session: arm, send, commit, log in afresh, read, prove, confirm. Or back, and say so."""

from __future__ import annotations

import contextlib
import re
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from types import ModuleType
from typing import Protocol

from .filters import Configuration, NotThisPlatform
from .plan import OUR_FILTERS, Plan, all_same, in_force, same_in_force
from .secrets import redact

_SHOWN = 160  # characters of a command in a message
_TIMER_SHARE = 0.5  # of the rollback timer; the rest is for the line that is on its way when it is late


class SessionLost(Exception):
    """The session ended or fell silent. The message says where."""


class OutputRefused(SessionLost):
    """The session was ended because a command printed without end."""


class Router(Protocol):
    """A session with a router. All methods raise SessionLost."""

    def send(self, command: str) -> str:
        """The output of one command."""

    def reset(self) -> None:
        """Log in afresh."""

    def beside(self, commands: Sequence[str]) -> str:
        """The outputs of the commands over a login of its own, while this session stays open."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """`state` is changed, rolled_back, rejected, session_lost or failed. `text`: the running text as last read, or "".

    `changed`: the new filters are in force, as far as is known. That can be so in states other than changed.
    """

    state: str
    message: str
    steps: tuple[str, ...]
    text: str
    changed: bool = False


class _Rejected(Exception):
    """What was rejected, and with which words."""


class _Late(Exception):
    """The rollback timer will not wait for the rest."""


def _shortened(command: str) -> str:
    """For messages: a command may hold a whole file."""
    return command if len(command) <= _SHOWN else f"{command[: _SHOWN - 3]}..."


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
    return _Push(platform, router, plan, before, names, proved, minutes).carry_out()


class _Push:
    """One push. `_fate` is what becomes of the router when nobody reaches it any more."""

    def __init__(
        self,
        platform: ModuleType,
        router: Router,
        plan: Plan,
        before: Configuration,
        names: Sequence[str],
        proved: Callable[[Configuration], str],
        minutes: int,
    ) -> None:
        self._platform = platform
        self._router = router
        self._plan = plan
        self._before = before
        self._names = names
        self._proved = proved
        self._minutes = minutes
        self._session = f"isp-{uuid.uuid4().hex[:8]}"  # EOS does not open a completed session's name again
        self._steps: list[str] = []
        self._taken_back = f"the router's own timer takes back what took effect of it, within {minutes} minutes"
        self._fate = "nothing was changed"
        self._to_abort = False  # something may be in force that `abort` takes back

    def carry_out(self) -> Outcome:
        began, armed = monotonic(), False
        try:
            for command in self._platform.PUSH.arm:
                self._accepted(self._filled(command))
                armed = True
        except _Rejected as error:
            if not armed:  # what is armed then is another's, and nothing of it is cleared
                return self._ended("rejected", f"the router rejected {error}; nothing was changed")
            return self._back("rejected", f"the router rejected {error}")
        except SessionLost as error:
            return self._back("session_lost", str(error))
        self._steps.append(f"armed: {self._taken_back} unless it is confirmed")
        try:
            self._send_lines(began)
            self._to_abort, self._fate = True, self._taken_back
            self._all(self._platform.PUSH.commit)
            self._steps.append("committed, to be confirmed")
            text = self._read_afresh()
            self._steps.append("logged in afresh and read the configuration back")
        except _Rejected as error:
            return self._back("rejected", f"the router rejected {error}")
        except _Late as error:
            return self._back("rolled_back", str(error))
        except SessionLost as error:
            return self._back("session_lost", str(error))
        wrong, now = self._seen(text)
        if now is not None and not wrong:
            wrong = self._proved(now) or self._missing(now)
            if wrong and same_in_force(now, self._before):
                wrong = "the change is gone: the timer fired before the confirmation, or somebody took it back"
        if wrong or now is None:
            return self._back("rolled_back", f"after the push {wrong}")
        return self._confirm(now)

    def _send_lines(self, began: float) -> None:
        """A timer that fires between lines that act at once would leave the rest of them alone on the router."""
        live = self._platform.LIVE
        if live:
            self._to_abort, self._fate = True, self._taken_back
        else:
            self._fate = "nothing was committed, so the router keeps its old filters"
        for number, line in enumerate(self._plan.lines, 1):
            if live and monotonic() - began > self._minutes * 60 * _TIMER_SHARE:
                raise _Late(
                    f"line {number} of {len(self._plan.lines)} came too late for a rollback timer of "
                    f"{self._minutes} minutes: give more rollback_minutes"
                )
            self._accepted(line)
        self._steps.append(f"sent {len(self._plan.lines)} lines")

    def _confirm(self, now: Configuration) -> Outcome:
        self._fate = (
            "the router has the new filters if the confirmation reached it; if not, its own timer brings the old ones "
            f"back within {self._minutes} minutes"
        )
        try:
            self._all(self._platform.PUSH.confirm)
            self._steps.append("proved and confirmed")
        except _Rejected as error:
            self._fate = self._taken_back
            return self._back("rejected", f"the router rejected {error}")
        except SessionLost as error:
            return self._confirm_again(now, str(error))
        return self._save(now)

    def _confirm_again(self, now: Configuration, lost: str) -> Outcome:
        """Whether a confirmation arrived cannot be seen; a second one does no harm."""
        refused = ""
        try:
            self._router.reset()
            wrong, here = self._seen(self._read())
            if here is None or wrong or not same_in_force(here, now):
                return self._back("session_lost", lost)
            if self._platform.PUSH.held:
                refused = "only the session that is lost could confirm them"
            else:
                self._steps.append(f"{lost}; logged in afresh and confirmed once more")
                for commands in (self._platform.PUSH.confirm, self._platform.PUSH.save):
                    try:
                        self._all(commands)
                    except _Rejected as error:
                        refused = refused or f"when they were confirmed once more, the router rejected {error}"
            text = self._read()
        except SessionLost as error:
            return self._ended("session_lost", f"{lost}; then {error}; {self._fate}", changed=True)
        if not refused:
            return self._last_look(now, text)
        if self._is(text, now):
            return self._ended(
                "session_lost",
                f"{lost}; the router has the new filters; {refused}: they are confirmed already, or its own timer "
                f"brings the old ones back within {self._minutes} minutes",
                text, changed=True,
            )  # fmt: skip
        return self._back("session_lost", lost)

    def _save(self, now: Configuration) -> Outcome:
        """What is confirmed is not taken back for trouble with what comes behind."""
        self._fate = "the router has the new filters, confirmed"
        try:
            try:
                if self._platform.PUSH.held:  # with nothing left to take back `abort` only leaves its mode
                    self._loosely(self._platform.PUSH.abort)
                self._all(self._platform.PUSH.save)
                text = self._read()
            except SessionLost as error:
                self._steps.append(f"{error}; logged in afresh")
                self._router.reset()
                # A fresh login is where the last of them is typed: what leads out of the confirmation's view is done.
                self._all(self._platform.PUSH.save[-1:])
                text = self._read()
        except _Rejected as error:
            return self._ended(
                "rejected",
                f"{self._fate}, but it rejected {error}: save them for its next start by hand", changed=True,
            )  # fmt: skip
        except SessionLost as error:
            return self._ended("session_lost", f"{self._fate}; then {error}; run it once more to be sure", changed=True)
        return self._last_look(now, text)

    def _last_look(self, now: Configuration, text: str) -> Outcome:
        if self._is(text, now):
            return self._ended("changed", "changed, proved and confirmed", text, changed=True)
        if self._is(text, self._before):
            return self._ended(
                "rolled_back", "the timer fired before the confirmation; the router has its old filters", text
            )
        wrong, _ = self._seen(text)
        wrong = wrong or "its filters are others: another session changed them at the same time"
        return self._ended("failed", f"confirmed, but then {wrong}; run it once more", text, changed=True)

    def _back(self, state: str, why: str) -> Outcome:
        """Over a fresh login: clear what is left, take back what is in force, and see what the router has now."""
        held = self._platform.PUSH.held
        try:
            if held:
                self._leave()
            self._router.reset()
            self._loosely(self._platform.PUSH.discard)
            text = self._read()
            # Never blindly: a timer that fires just before Junos goes one version back makes that the wrong one, which
            # the second time mends.
            for _ in range(2):
                if held or not self._to_abort or self._seen(text)[0] or self._is_old(text):
                    break
                self._loosely(self._platform.PUSH.abort)
                self._steps.append("took the change back")
                text = self._read()
        except SessionLost as error:
            return self._ended(state, f"{why}; then {error}; {self._fate}")
        if self._is_old(text):
            return self._ended(state, f"{why}; the router has its old filters", text)
        wrong, _ = self._seen(text)
        if wrong:
            return self._ended(state, f"{why}; what the router has now cannot be told: {wrong}; {self._fate}", text)
        if not self._to_abort:
            return self._ended(
                state, f"{why}; nothing was committed; somebody else has changed the filters since", text
            )
        return self._ended(state, f"{why}; its filters could not be taken back: {self._fate}", text)

    def _leave(self) -> None:
        """In the session that holds the change, as long as it is there: no other can take it back."""
        with contextlib.suppress(SessionLost):
            self._loosely(self._platform.PUSH.abort)
            self._steps.append("took the change back" if self._to_abort else "threw away what was not committed")

    def _ended(self, state: str, message: str, text: str = "", changed: bool = False) -> Outcome:
        return Outcome(state, message, tuple(self._steps), text, changed)

    def _read(self) -> str:
        return read(self._platform, self._router)

    def _read_afresh(self) -> str:
        """Over a login that has nothing to do with the change."""
        if self._platform.PUSH.held:
            return self._router.beside(self._platform.READ)
        self._router.reset()
        return self._read()

    def _seen(self, text: str) -> tuple[str, Configuration | None]:
        """Why the text cannot be used, "" when it can; what it says."""
        why = self._platform.incomplete(text)
        if why:
            return why, None
        try:
            return "", self._platform.parse(text, self._names)
        except NotThisPlatform as error:
            return str(error), None

    def _is(self, text: str, wanted: Configuration) -> bool:
        _, here = self._seen(text)
        return here is not None and same_in_force(here, wanted)

    def _is_old(self, text: str) -> bool:
        """Wherever the change would have made a difference, or there was a filter; others' additions stay theirs."""
        _, here = self._seen(text)
        if here is None:
            return False
        old, now = in_force(self._before), in_force(here)
        places = old.keys() | in_force(self._platform.parse(self._plan.predicted, self._names)).keys()
        return all(all_same(now.get(place, ()), old.get(place, ())) for place in places)

    def _missing(self, now: Configuration) -> str:
        """A left-over filter that somebody bound since it was read: without it that place can be open."""
        for one in now.bindings:
            for name in (name for name in one.filters if name.startswith(OUR_FILTERS)):
                before, here = (known.filters.get((one.family, name)) for known in (self._before, now))
                if before and before.entries and not (here and here.entries):
                    return (
                        f"{one.attachment} ({one.direction}, IPv{one.family}) has the filter {name}, which the change "
                        "deleted: it was bound after the configuration had been read; run it once more"
                    )
        return ""

    def _all(self, commands: Sequence[str]) -> None:
        for command in commands:
            self._accepted(self._filled(command))

    def _loosely(self, commands: Sequence[str]) -> None:
        """As far as the router takes them, and once more: what it refused it may take a moment later.

        Behind a rejection the session may be in any mode.
        """
        for _ in range(2):
            try:
                self._all(commands)
                break
            except _Rejected:
                self._router.reset()

    def _filled(self, command: str) -> str:
        return command.format(minutes=self._minutes, seconds=60 * self._minutes, session=self._session)

    def _accepted(self, command: str) -> None:
        output = self._router.send(command)
        for pattern in self._platform.REJECTED:
            found = re.search(pattern, output, re.MULTILINE)
            if found:
                said = next((line for line in output.splitlines() if found.group() in line), found.group()).strip()
                raise _Rejected(f"'{_shortened(redact(command))}' with '{redact(said)}'")
