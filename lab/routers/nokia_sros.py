# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A Nokia SR OS router in model-driven mode: the MD-CLI, one candidate, commit confirmed.

Source of the behaviour: Nokia, MD-CLI User Guide ("Candidate configuration modes", "Committing a configuration",
"Editing configuration"). [memory]: the words it prints beside those of MGMT_CORE #2052, #2201 and #2301, that the
configuration mode cannot be left while a confirmed commit waits, and that another session can neither accept nor
cancel it.
"""

from __future__ import annotations

import datetime

from .. import sros_tree as tree
from ..clock import Timer
from ..judge import Packet
from ..judges import nokia_sros as judge
from ..sros_tree import Element, RefusedError
from .base import Router, Session

MODES = {"exclusive": "ex", "private": "pr", "global": "gl"}
PROTOCOL = frozenset(
    "admin back commit compare configure discard environment enable exit info logout ping pwc quit-config show top "
    "update validate".split()
)
WAITS = "MINOR: MGMT_CORE #2069: Operation not allowed - commit confirmed in progress\n"
NONE_WAITS = "MINOR: MGMT_CORE #2069: Operation not allowed - no commit confirmed in progress\n"
LOCKED = (
    "MINOR: MGMT_CORE #2052: Exclusive datastore access unavailable - model-driven interface editing global candidate\n"
)


class SrosSession(Session):
    router: Device

    def __init__(self, router: Router) -> None:
        super().__init__(router)
        self.user = "audit"
        self.mode = ""  # '', 'exclusive' or 'global'
        self.question = False

    @property
    def prompt(self) -> str:
        if self.question:
            return "Discard uncommitted changes? [y,n] "
        where = f"[{MODES[self.mode]}:/configure]" if self.mode else "[/]"
        changed = "*" if self.mode and self.router.modified else ""
        return f"\n{changed}{where}\nA:{self.user}@{self.router.host_name}# "

    @property
    def configuring(self) -> bool:
        return bool(self.mode)

    def is_protocol(self, line: str) -> bool:
        first = line.strip().lstrip("/").split()[0]
        return self.question or (first in PROTOCOL and not line.startswith("/configure "))

    def rejection(self, line: str) -> str:
        typed = tree.words(line)
        return self.refuse(line, f"MINOR: MGMT_CORE #2201: Unknown element - '{typed[-1]}'", len(typed) - 1)

    def refuse(self, line: str, message: str, position: int) -> str:
        """The mark below the word at fault, then the message."""
        column, rest = 0, line
        for word in tree.words(line)[:position]:
            found = rest.find(word)
            column, rest = column + found + len(word), rest[found + len(word) :]
        column += len(rest) - len(rest.lstrip(' "'))
        return f"{' ' * (column + len(self.user) + len(self.router.host_name) + 5)}^\n{message}\n"

    def interrupt(self, key: str) -> str:
        self.question = False
        return ""

    def hang_up(self) -> None:
        with self.router.clock.lock:
            self.closed = True
            if self.router.waits_for is self:
                self.router.roll_back()
            self.leave()

    def leave(self) -> None:
        """Out of the configuration mode; what was not committed in exclusive mode is gone."""
        if self.mode == "exclusive":
            self.router.discard()
        self.mode, self.question = "", False

    def command(self, line: str) -> str:
        if self.question:
            self.question = False
            if line.strip() not in ("y", "yes"):
                return ""
            self.leave()
            return "INFO: CLI #2064: Exiting exclusive configuration mode\n"
        if line.startswith("//"):  # the other CLI's command
            return "" if line.startswith("//environment ") else "MINOR: CLI #2069: Switch to classic CLI not allowed\n"
        typed = tree.words(line)
        if not typed:
            return ""
        if typed[0] == "/" or (typed[0][0] == "/" and len(typed[0]) > 1):
            typed = typed[1:] if typed[0] == "/" else [typed[0][1:], *typed[1:]]
        try:
            if self.mode:
                return self.configuration_command(typed, line)
            return self.operational(typed)
        except RefusedError as refused:
            return self.refuse(line, refused.message, refused.position)

    def operational(self, typed: list[str]) -> str:
        router = self.router
        if typed == ["exit", "all"]:
            return ""
        if typed[0] in ("exit", "logout", "quit"):
            self.closed = True
            return ""
        if typed[0] == "environment":
            return ""
        if typed[0] == "enable":
            return "INFO: CLI #2052: Already in admin mode\n"
        if typed == ["admin", "show", "configuration"]:
            return router.snapshot()
        if typed == ["admin", "show", "configuration", "flat"]:
            return "".join(f"/configure {one}\n" for one in tree.flat(router.running))
        if typed == ["admin", "save"]:
            router.saved = router.snapshot()
            return "Writing configuration to cf3:\\config.cfg\nSaving configuration OK\nCompleted.\n"
        if typed[:2] == ["show", "version"]:
            return "TiMOS-C-22.7.R2 cpm/x86_64 Nokia 7750 SR Copyright (c) 2000-2022 Nokia.\n"
        if typed[:2] == ["show", "uptime"]:
            return "System Up Time         : 12 days, 03:21:44.10 (hr:min:sec)\n"
        if typed[0] == "configure" and len(typed) == 2 and typed[1] in MODES:
            return self.configure(typed[1])
        known = {"admin": 1, "show": 1, "configure": 1}.get(typed[0], 0)
        at_fault = min(known, len(typed) - 1)
        raise RefusedError(f"MINOR: MGMT_CORE #2201: Unknown element - '{typed[at_fault]}'", at_fault)

    def configure(self, mode: str) -> str:
        router = self.router
        if mode == "private":
            return "MINOR: CLI #2069: the lab's router has no private candidates\n"
        others = [one for one in router.editors() if one is not self]
        if any(one.mode == "exclusive" for one in others) or (mode == "exclusive" and (others or router.modified)):
            return LOCKED
        self.mode = mode
        output = f"INFO: CLI #2060: Entering {mode} configuration mode\n"
        if mode == "exclusive":
            output += "INFO: CLI #2061: Uncommitted changes are discarded on configuration mode exit\n"
        return output

    def configuration_command(self, typed: list[str], line: str) -> str:
        router = self.router
        first = typed[0]
        if first in ("exit", "quit-config", "top", "back"):
            if first in ("top", "back"):
                return ""
            if router.waits_for is self:
                return WAITS
            if router.modified and self.mode == "exclusive":
                self.question = True
                return (
                    "INFO: CLI #2063: Uncommitted changes are present in the candidate configuration. Exiting "
                    "exclusive configuration mode will discard those changes.\n\n"
                )
            mode = self.mode
            self.leave()
            return f"INFO: CLI #2064: Exiting {mode} configuration mode\n"
        if first in ("admin", "show", "environment", "enable"):
            return self.operational(typed)
        if first == "info":
            return "".join(f"{one}\n" for one in tree.lines(router.candidate, 4))
        if first == "validate" and len(typed) == 1:
            return "".join(f"{one}\n" for one in tree.problems(router.candidate))
        if first == "discard" and len(typed) == 1:
            router.discard()
            return ""
        if first == "commit":
            return self.commit(typed[1:])
        if router.waits_for is not None:
            return WAITS
        if first == "delete":
            tree.delete(router.candidate, typed[1:])
        else:
            absolute = first == "configure"
            try:
                tree.put(router.candidate, typed[1:] if absolute else typed)
            except RefusedError as refused:
                raise RefusedError(refused.message, refused.position + absolute) from None
        router.modified = True
        return ""

    def commit(self, how: list[str]) -> str:
        router = self.router
        if how in (["confirmed", "accept"], ["confirmed", "cancel"]):
            if router.waits_for is not self:
                return NONE_WAITS
            if how[1] == "accept":
                router.confirm()
            else:
                router.roll_back()
            return ""
        minutes = 0
        if how[:1] == ["confirmed"]:
            told = how[1] if len(how) > 1 else "10"
            if len(how) > 2 or not told.isdecimal() or not 1 <= int(told) <= 168:
                raise RefusedError(f"MINOR: MGMT_CORE #2301: Invalid element value - 'confirmed {told}'", 2)
            minutes = int(told)
        elif how:
            raise RefusedError(f"MINOR: MGMT_CORE #2201: Unknown element - '{how[0]}'", 1)
        if router.waits_for is not None:
            return WAITS
        if any(one.mode == "exclusive" for one in router.editors() if one is not self):
            return LOCKED
        problems = tree.problems(router.candidate)
        if problems:
            return "".join(f"{one}\n" for one in problems)
        router.commit(self, minutes)
        return ""


class Device(Router):
    session_class = SrosSession

    def __init__(self, name: str, text: str, enable_secret: str = "") -> None:
        super().__init__(name, text, enable_secret)
        self.running = tree.parse(text)
        self._shown: tuple[Element | None, str] = None, ""  # a configuration that runs is replaced and never changed
        self.candidate = self.running.copy()
        self.modified = False
        self.waits_for: SrosSession | None = None  # the session that has to accept its commit
        self._fallback: Element | None = None
        self._timer: Timer | None = None
        self.saved = self.snapshot()

    @property
    def host_name(self) -> str:
        return (self.running.get("system") or Element()).leaf("name") or self.name

    def editors(self) -> list[SrosSession]:
        return [one for one in self.sessions if isinstance(one, SrosSession) and one.mode and not one.closed]

    def discard(self) -> None:
        self.candidate, self.modified = self.running.copy(), False

    def commit(self, session: SrosSession, minutes: int) -> None:
        if minutes:
            self._fallback, self.waits_for = self.running, session
            self._timer = self.clock.call_later(minutes * 60, self.roll_back)
        self._activate(self.candidate.copy())
        self.modified = False

    def confirm(self) -> None:
        if self._timer is not None:
            self.clock.cancel(self._timer)
        self._timer = self._fallback = self.waits_for = None

    def roll_back(self) -> None:
        """What was committed goes back into the candidate."""
        fallback, changed = self._fallback, self.running
        self.confirm()
        assert fallback is not None
        self._activate(fallback)
        self.candidate, self.modified = changed.copy(), bool(self.editors())
        if not self.modified:
            self.discard()

    def _activate(self, configuration: Element) -> None:
        self.running = configuration
        self.changed()

    def startup_text(self) -> str:
        return self.saved

    def snapshot(self) -> str:
        now = datetime.datetime.now(datetime.UTC)
        if self._shown[0] is not self.running:
            self._shown = self.running, "".join(f"{one}\n" for one in tree.lines(self.running, 4))
        return (
            "# TiMOS-C-22.7.R2 cpm/x86_64 Nokia 7750 SR Copyright (c) 2000-2022 Nokia.\n"
            "# All rights reserved. All use subject to applicable license agreements.\n"
            "# Configuration format version 22.7 revision 0\n\n"
            f"# Generated {now:%Y-%m-%dT%H:%M:%S}.0+00:00 by {'audit'} from 192.0.2.10\n\n"
            f"configure {{\n{self._shown[1]}}}\n\n# Finished {now:%Y-%m-%dT%H:%M:%S}.1+00:00\n"
        )

    def judge(self, attachment: str, direction: str, packet: Packet) -> str:
        return judge.judge(self.running, attachment, direction, packet)
