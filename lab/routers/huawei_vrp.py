# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A Huawei NE40E as BRAS: two phases, a trial that its timer takes back, and user lists for subscribers.

Sources of the behaviour: CloudEngine V300R023 Command Reference (commit, abort trial, configuration exclusive, rule,
display configuration trial status); NE40E V800R012C10 Configuration Guide (ACL, Class-based QoS, Two-Phase Validation
Mode). [memory]: the words of refusals; that a list, classifier or policy in use cannot be deleted; that a precedence is
given once.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from ..clock import Timer
from ..judge import Packet
from ..judges.huawei_vrp import Judge, View, Wrong, kind_of
from ..vrp_views import VIEWS, Refusal, VrpConfiguration
from .base import Router, Session

_LOCK = 30  # seconds without a command, after which a lock is gone


@dataclass
class Trial:
    """A configuration that its timer takes back."""

    persist: str
    timer: Timer
    text: str


class VrpSession(Session):
    router: Device

    def __init__(self, router: Router) -> None:
        super().__init__(router)
        self._base = self.router.running
        self.candidate: VrpConfiguration | None = None  # in the system view or below it
        self.view: View | None = None
        self.touched = False
        self._typed: list[tuple[str, str]] = []  # (view, line) of what is not committed
        self._question: tuple[str, Callable[[], str]] | None = None

    @property
    def banner(self) -> str:
        return "\nInfo: The max number of VTY users is 21, the number of current VTY users online is 1.\n"

    @property
    def configuring(self) -> bool:
        return self.candidate is not None

    @property
    def prompt(self) -> str:
        if self._question:
            return self._question[0]
        name = self.router.running.hostname()
        if self.candidate is None:
            return f"<{name}>"
        return f"[{'*' if self.touched else '~'}{name}{self._view_text()}]"

    def _view_text(self) -> str:
        if self.view is None:
            return ""
        words = self.view.header.split()
        if words[0] == "acl":
            head = "acl6" if words[1] == "ipv6" else "acl4"
            kind = kind_of(self.view.header)
            shown = [word for word in words[1:] if word not in ("ipv6", "number", "name", "basic", "advance", "ucl")]
            return (
                f"-{'acl6-ucl' if head == 'acl6' else 'acl-ucl'}-{shown[0]}"
                if kind == "ucl"
                else (f"-{head}-{kind}-{shown[0]}")
            )
        return f"-{words[1]}" if words[0] == "interface" else f"-{VIEWS[words[1]]}-{words[2]}"

    def is_protocol(self, line: str) -> bool:
        return bool(re.match(r"\s*(quit|return|commit|abort|display|save|undo configuration|clear|[yn])\b", line))

    def rejection(self, line: str) -> str:
        return self._wrong(line, 0)

    def _wrong(self, line: str, index: int | None) -> str:
        if index is None:
            column, what = len(line.rstrip()), "Incomplete command"
        else:
            column = [match.start() for match in re.finditer(r"\S+", line)][index] if line.split() else 0
            what = "Unrecognized command" if index == 0 else "Wrong parameter"
        return f"{' ' * (len(self.prompt) + column)}^\nError: {what} found at '^' position.\n"

    def interrupt(self, key: str) -> str:
        self._question = None
        if key == "z":
            self._leave()
        return ""

    def hang_up(self) -> None:
        if self.router.lock is self:
            self.router.lock = None

    def begin(self) -> None:
        """A candidate of its own, on top of what is in force."""
        self._base = self.router.running
        self.candidate, self.view, self.touched, self._typed = self._base.copy(), None, False, []

    def _leave(self) -> None:
        self.candidate, self.view, self.touched, self._typed = None, None, False, []

    def _ask(self, question: str, act: Callable[[], str]) -> str:
        self._question = f"{question} [Y/N]:", act
        return ""

    def command(self, line: str) -> str:
        self.router.used_by(self)
        if self._question:
            (_, act), self._question = self._question, None
            return act() if line.strip().lower() == "y" else ""
        words = line.split()
        if not words or words[0].startswith("#"):
            return ""
        if words[0] == "display":
            return self._display(line, words)
        if words[:2] == ["configuration", "exclusive"] and len(words) == 2:
            return self.router.locked_by(self)
        if words == ["undo", "configuration", "exclusive"]:
            if self.router.lock is self:
                self.router.lock = None
            return ""
        return self._user(line, words) if self.candidate is None else self._system(line, words)

    def _display(self, line: str, words: list[str]) -> str:
        pages = {
            "current-configuration": lambda: self.router.running.text(),
            "saved-configuration": lambda: self.router.startup,
            "version": lambda: _VERSION,
            "configuration trial status": self.router.trial_text,
            "clock": lambda: "2026-11-23 14:00:01\nMonday\nTime Zone(UTC) : UTC\n",
        }
        page = pages.get(" ".join(words[1:]))
        return page() if page else self._wrong(line, 1)

    def _user(self, line: str, words: list[str]) -> str:
        if words == ["system-view"]:
            self.begin()
            return "Enter system view, return user view with return command.\n"
        if words == ["save"]:
            question = "Warning: The current configuration will be written to the device.\nAre you sure to continue?"
            return self._ask(question, self.router.save)
        if words[0] in ("quit", "logout"):
            self.closed = True
            return ""
        if words[0] in ("screen-length", "screen-width", "terminal") or words[:2] == ["undo", "terminal"]:
            return "Info: The configuration takes effect on the current user terminal interface only.\n"
        return self._wrong(line, 0)

    def _system(self, line: str, words: list[str]) -> str:
        assert self.candidate is not None
        if words[0] == "commit":
            return self._commit(line, words)
        if words[:2] == ["abort", "trial"]:
            return self._abort(line, words)
        if words == ["clear", "configuration", "candidate"]:
            self.begin()
            return ""
        if words == ["return"] or (words == ["quit"] and self.view is None):
            if self.touched:
                self._question = _UNCOMMITTED, lambda: ""
                return ""
            self._leave()
            return ""
        if words == ["quit"]:
            self.view = None
            return ""
        why = self.router.busy(self)
        if why:
            return why
        header = self.view.header if self.view else ""
        try:
            self.view, changed = self.candidate.enter(self.view, line)
        except Wrong as wrong:
            return self._wrong(line, wrong.index)
        except Refusal as refusal:
            return str(refusal)
        self._typed.append((header, line))
        self.touched = self.touched or changed
        return ""

    def _commit(self, line: str, words: list[str]) -> str:
        seconds, persist, rest = 0, "", words[1:]
        if rest[:1] == ["trial"]:
            seconds, rest = 600, rest[1:]
            if rest[:1] and rest[0].isdecimal():
                seconds, rest = int(rest[0]), rest[1:]
            if not 60 <= seconds <= 65535:
                return self._wrong(line, 2)
        if rest[:1] == ["persist"] and len(rest) == 2:
            persist, rest = rest[1], []
        if rest:
            return self._wrong(line, len(words) - len(rest))
        if self.router.trial:
            if seconds or persist != self.router.trial.persist:
                return _IN_TRIAL
            return self._ask("Warning: The trial configuration will be confirmed. Continue?", self.router.confirm)
        if persist and not seconds:
            return "Error: The trial configuration does not exist.\n"
        if not self.touched:
            return (
                "Warning: There is no configuration to be committed.\n"
                if not seconds
                else ("Error: There is no configuration to be committed.\n")
            )
        why = self.router.busy(self) or self.router.put_in_force(self, seconds, persist)
        if why:
            return why
        if not seconds:
            return ""
        return (
            "Info: The system enters the trial configuration mode.\nThe system will revert to previous configuration "
            f"if the trial configuration is not confirmed in {seconds} seconds.\n"
        )

    def _abort(self, line: str, words: list[str]) -> str:
        trial = self.router.trial
        if trial is None or words[2:] != (["persist", trial.persist] if trial.persist else []):
            return "Error: The trial configuration does not exist.\n"
        return self._ask("Warning: The trial configuration will be rolled back. Continue?", self._rolled_back)

    def _rolled_back(self) -> str:
        if self.router.trial is None:
            return "Error: The trial configuration does not exist.\n"
        self.router.clock.cancel(self.router.trial.timer)
        self.router.roll_back()
        self.begin()
        return "Info: The trial configuration rollback succeeded.\n"

    def replayed(self, running: VrpConfiguration) -> VrpConfiguration | None:
        """What is not committed, on top of what others have committed meanwhile; None where the two do not fit."""
        if running is self._base:
            return self.candidate
        fresh = running.copy()
        for header, line in self._typed:
            try:
                fresh.enter(fresh.find(header) if header else None, line)
            except (Wrong, Refusal):
                return None
        return fresh


class Device(Router):
    session_class = VrpSession

    def __init__(self, name: str, text: str, enable_secret: str = "") -> None:
        super().__init__(name, text, enable_secret)
        self.running = VrpConfiguration(text)
        self.startup = self.running.text()
        self.trial: Trial | None = None
        self.lock: VrpSession | None = None
        self._last = 0.0
        self._judge: Judge | None = None

    def snapshot(self) -> str:
        with self.clock.lock:
            self.clock.settle()
            return self.running.text()

    def startup_text(self) -> str:
        return self.startup

    def judge(self, attachment: str, direction: str, packet: Packet) -> str:
        if self._judge is None or self._judge.views is not self.running.views:
            self._judge = Judge(self.running.views)
        return self._judge.verdict(attachment, direction, packet)

    def used_by(self, session: VrpSession) -> None:
        """A command was typed: a lock lives as long as its holder goes on."""
        if self.lock is not None and self.clock.now() - self._last > _LOCK:
            self.lock = None
        if self.lock is session:
            self._last = self.clock.now()

    def locked_by(self, session: VrpSession) -> str:
        if self.lock not in (None, session):
            return _LOCKED
        self.lock, self._last = session, self.clock.now()
        return ""

    def busy(self, session: VrpSession) -> str:
        """Why the session may not configure now, or ''."""
        if self.lock not in (None, session):
            return _LOCKED
        return _IN_TRIAL if self.trial else ""

    def put_in_force(self, session: VrpSession, seconds: int, persist: str) -> str:
        fresh = session.replayed(self.running)
        if fresh is None:
            return (
                "Error: The configuration conflicts with what another user has committed; run refresh configuration "
                "candidate.\n"
            )
        if seconds:
            self.trial = Trial(persist, self.clock.call_later(seconds, self.roll_back), self.running.text())
        self.running = fresh
        session.begin()
        self.changed()
        return ""

    def confirm(self) -> str:
        if self.trial is None:
            return "Error: The trial configuration does not exist.\n"
        self.clock.cancel(self.trial.timer)
        self.trial = None
        return ""

    def roll_back(self) -> None:
        assert self.trial is not None
        self.running, self.trial = VrpConfiguration(self.trial.text), None
        self.changed()

    def save(self) -> str:
        self.startup = self.running.text()
        return "Now saving the current configuration to the slot 17 .\nInfo: Save the configuration successfully.\n"

    def trial_text(self) -> str:
        if self.trial is None:
            return "Trial status: INACTIVE\nTrial time left (sec): 0\n"
        left = int(self.trial.timer.due - self.clock.now())
        return f"Trial status: ACTIVE\nPersist id: {self.trial.persist}\nTrial time left (sec): {left}\n"


_UNCOMMITTED = (
    "Warning: Uncommitted configurations found. Are you sure to commit them before exiting? [Y(yes)/N(no)/C(cancel)]:"
)
_LOCKED = "Error: The configuration is locked by another user.\n"
_IN_TRIAL = "Error: The system is in trial configuration mode, the operation is not allowed.\n"
_VERSION = """\
Huawei Versatile Routing Platform Software
VRP (R) software, Version 8.220 (NE40E V800R012C10SPC300)
Copyright (C) 2012-2021 Huawei Technologies Co., Ltd.
HUAWEI NE40E-M2K uptime is 211 days, 4 hours, 12 minutes
"""
