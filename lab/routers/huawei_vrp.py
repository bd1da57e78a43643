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
from functools import lru_cache

from ..clock import Timer
from ..judge import Packet
from ..judges.huawei_vrp import Judge, View, Wrong, kind_of, merged, read
from .base import Router, Session

_LOCK = 30  # seconds without a command, after which a lock is gone
_SYSTEM = (
    "aaa", "bgp", "clock", "dhcp", "domain", "info-center", "ip", "ipv6", "isis", "lldp", "ntp-service", "radius",
    "radius-server", "router", "snmp-agent", "ssh", "stelnet", "sysname", "undo", "user-group", "user-interface",
)  # fmt: skip
_INTERFACE = (
    "description", "ip", "ipv6", "isis", "mtu", "shutdown", "statistic", "traffic-filter", "undo", "vlan-type",
)  # fmt: skip
_ACTIONS = ("permit", "deny", "ip urpf strict", "ip urpf loose", "traffic-statistic", "car", "remark", "redirect")
# Lines that are printed without `#` between them, by how they begin.
_TOGETHER = (
    "traffic-policy ", "ip route-static ", "ipv6 route-static ", "snmp-agent", "ssh ", "stelnet ", "info-center ",
)  # fmt: skip
_VIEWS = {"classifier": "classifier", "behavior": "behavior", "policy": "trafficpolicy"}


class Refusal(Exception):
    """The vendor's words for a line that is well-formed and yet not taken."""


class VrpConfiguration:
    """The lines of a configuration as views, and what a line typed in one does."""

    def __init__(self, text: str) -> None:
        self.head: list[str] = []
        self.views: list[View] = []
        self._raw: list[tuple[View, list[str]]] = []  # with the indentation, for what only is printed
        banner = False
        for line in text.splitlines():
            if line == "return" and not banner:
                break
            if line.startswith("!") and not self.views:
                self.head.append(line)
            elif banner or (line[:1] in (" ", "\t") and self.views):
                self._raw[-1][1].append(line)
                if not banner and line.strip() not in ("", "#"):
                    self.views[-1].lines.append(line.strip())
                banner = banner and '"' not in line
            elif line != "#" and line.strip():
                self._add(View(line.rstrip()), None)
                banner = line.startswith("header ") and line.count('"') == 1
        self._text = ""
        for view in self.views:
            if view.header.startswith("acl "):
                self._merged(view)

    def _merged(self, view: View) -> None:
        """What is loaded acts as if it were typed: a number that comes again merges."""
        numbers = [line.split()[1] for line in view.lines if line.startswith("rule ") and not _described(line)]
        if len(numbers) == len(set(numbers)) and not any(line.startswith("undo ") for line in view.lines):
            return
        typed, view.lines = view.lines, []
        for line in typed:
            self._in_list(view, line, line.split())
        self._changed(view)

    def copy(self) -> VrpConfiguration:
        """The same configuration, to be changed without changing this one."""
        fresh = VrpConfiguration("")
        fresh.head, fresh._text = self.head, self._text
        for view, raw in self._raw:
            fresh._add(View(view.header, list(view.lines)), None)
            fresh._raw[-1][1].extend(raw)
        return fresh

    def _add(self, view: View, before: View | None) -> None:
        at = self.views.index(before) if before is not None else len(self.views)
        self.views.insert(at, view)
        self._raw.insert(at, (view, []))

    def text(self) -> str:
        """The lines as printed, with the `return`."""
        if not self._text:
            lines, last = [*self.head], ""
            for view, raw in self._raw:
                kind = "" if raw else next((one for one in _TOGETHER if view.header.startswith(one)), "")
                lines += [] if kind and kind == last else ["#"]
                lines += [view.header, *raw]
                last = kind
            self._text = "\n".join([*lines, "#", "return", ""])
        return self._text

    def hostname(self) -> str:
        return next((one.header.split()[1] for one in self.views if one.header.startswith("sysname ")), "HUAWEI")

    def _changed(self, view: View) -> None:
        """Print the lines of the view anew."""
        raw = next(lines for one, lines in self._raw if one is view)
        raw[:] = [f" {line}" for line in view.lines]
        self._text = ""

    def find(self, header: str) -> View | None:
        """The view that a line enters: a list by its name or number, the rest by all of the line."""
        key = _key(header)
        return next((one for one in self.views if _key(one.header) == key), None)

    # -- what a line does ----------------------------------------------------------------------------------------

    def enter(self, view: View | None, line: str) -> tuple[View | None, bool]:
        """The view then, and whether anything has changed. Raises Wrong and Refusal."""
        line = " ".join(line.split())
        words = line.split()
        if view is not None:
            changed = self._in_view(view, line, words)
            if changed is not None:
                if changed:
                    self._changed(view)
                return view, changed
        return self._in_system(line, words)

    def _in_system(self, line: str, words: list[str]) -> tuple[View | None, bool]:
        if words[0] == "acl":
            return self._list(line, words)
        if words[:1] == ["traffic"] and len(words) > 2 and words[1] in _VIEWS:
            if (
                words[1] == "classifier"
                and len(words) > 3
                and (words[3] != "operator" or words[4:] not in (["and"], ["or"]))
            ):
                raise Wrong(3)
            return self._opened(line if words[1] != "classifier" or len(words) > 3 else f"{line} operator or")
        if words[0] == "interface" and len(words) == 2:
            found = self.find(line)
            if found is None:
                raise Wrong(1)
            return found, False
        if words[0] == "undo" and len(words) > 1 and words[1] in ("acl", "traffic", "traffic-policy"):
            return None, self._undo(line[5:], words[1:])
        if words[0] == "traffic-policy":
            return None, self._apply(None, words)
        if words[0] not in _SYSTEM:
            raise Wrong(0)
        return None, self._plain(line, words)

    def _plain(self, line: str, words: list[str]) -> bool:
        if words[0] == "undo":
            return False
        single = words[0] in ("sysname",)
        there = next((one for one in self.views if one.header.split()[0] == words[0]), None) if single else None
        if there is not None:
            changed, there.header = there.header != line, line
        else:
            changed = all(one.header != line for one in self.views)
            if changed:
                self._add(View(line), None)
        self._text = ""
        return changed

    def _list(self, line: str, words: list[str]) -> tuple[View | None, bool]:
        at = 2 if words[1:2] == ["ipv6"] else 1
        rest = words[at:]
        if rest[:1] == ["number"]:
            rest, at = rest[1:], at + 1
        if not rest:
            raise Wrong(None)
        family = "ipv6 " if words[1] == "ipv6" else ""
        if rest[0] == "name":
            if len(rest) < 2:
                raise Wrong(None)
            if not re.fullmatch(r"[A-Za-z0-9][^\s?\"]{0,63}", rest[1]) or rest[1].isdecimal():
                raise Wrong(at + 1)
            there = self.find(f"acl {family}name {rest[1]}")
            if len(rest) == 2 and there is None:
                raise Wrong(None)
            if len(rest) > 2 and rest[2] not in ("basic", "advance", "ucl"):
                raise Wrong(at + 2)
            if there is not None and len(rest) > 2 and kind_of(there.header) != rest[2]:
                raise Refusal("Error: The ACL name has been used by another type of ACL.\n")
            return self._opened(f"acl {family}name {' '.join(rest[1:3])}")
        if rest[0] in ("ip-pool", "port-pool") and len(rest) == 2:
            return self._opened(line)
        if not rest[0].isdecimal() or not 2000 <= int(rest[0]) <= 9999 or len(rest) > 1:
            raise Wrong(at)
        return self._opened(f"acl {family}number {rest[0]}")

    def _opened(self, header: str) -> tuple[View, bool]:
        there = self.find(header)
        if there is not None:
            return there, False
        view = View(header)
        kind = " ".join(header.split()[: 2 if header.startswith("traffic ") else 1])
        alike = [one for one in self.views if f"{one.header} ".startswith(f"{kind} ")]
        behind = self.views.index(alike[-1]) + 1 if alike else 0
        self._add(view, self.views[behind] if 0 < behind < len(self.views) else None)
        self._text = ""
        return view, True

    def _in_view(self, view: View, line: str, words: list[str]) -> bool | None:
        """None where the view does not know the line."""
        kind = view.header.split()[:2]
        if kind[0] == "acl":
            return self._in_list(view, line, words)
        if kind == ["traffic", "classifier"]:
            return self._in_classifier(view, line, words)
        if kind == ["traffic", "behavior"]:
            if not line.startswith(_ACTIONS):
                return None
            if (line == "deny") != (view.lines == ["deny"]) and view.lines and "deny" in (line, *view.lines):
                raise Refusal("Error: The deny action is mutually exclusive with other actions.\n")
            return _once(view, line)
        if kind == ["traffic", "policy"]:
            return self._in_policy(view, line, words)
        if kind[0] == "interface":
            if words[0] == "traffic-policy":
                return self._apply(view, words)
            if words[:2] == ["undo", "traffic-policy"]:
                return self._unapply(view, words[1:])
            if words[0] not in _INTERFACE:
                return None
            return _once(view, line)
        return None

    def _in_list(self, view: View, line: str, words: list[str]) -> bool | None:
        pool = view.header.split()[1:2]
        if pool[:1] and pool[0] in ("ip-pool", "port-pool"):
            return _once(view, line) if words[0] in ("ip", "eq", "gt", "lt", "neq", "range") else None
        if words[0] in ("description", "step"):
            return _once(view, line)
        if words[:2] == ["undo", "rule"] and len(words) == 3:
            kept = [one for one in view.lines if one.split()[1:2] != words[2:]]
            changed, view.lines = kept != view.lines, kept
            if not changed:
                raise Refusal("Error: The rule does not exist.\n")
            return True
        if words[0] != "rule":
            return None
        family, kind = (6 if view.header.startswith("acl ipv6 ") else 4), kind_of(view.header)
        rules = {int(one.split()[1]): one for one in view.lines if one.split()[:1] == ["rule"] and not _described(one)}
        number, at = max(rules, default=0) // 5 * 5 + 5, 1
        if len(words) > 1 and words[1].isdecimal():
            number, at = int(words[1]), 2
        if words[at : at + 1] == ["description"]:
            if number not in rules:
                raise Refusal("Error: The rule does not exist.\n")
            return self._describe(view, number, line)
        new = read(line, at, family, kind)
        if number in rules:
            new = merged(read(rules[number], 2, family, kind), new, family, kind)
        text = f"rule {number} {new.text}"
        if rules.get(number) == text:
            return False
        # Printed in the order of the numbers, each with its description behind it.
        lines = [one for one in view.lines if one != rules.get(number)]
        lines.append(text)
        heads = [one for one in lines if one.split()[0] != "rule"]
        view.lines = heads + sorted((one for one in lines if one.split()[0] == "rule"), key=_place)
        return True

    def _describe(self, view: View, number: int, line: str) -> bool:
        kept = [one for one in view.lines if not (_described(one) and one.split()[1] == str(number))]
        changed = line not in view.lines
        heads = [one for one in kept if one.split()[0] != "rule"]
        view.lines = heads + sorted([*(one for one in kept if one.split()[0] == "rule"), line], key=_place)
        return changed

    def _in_classifier(self, view: View, line: str, words: list[str]) -> bool | None:
        if words[0] != "if-match":
            return None
        rest = words[2:] if words[1:2] == ["ipv6"] else words[1:]
        if rest == ["any"]:
            return _once(view, line)
        if rest[:1] != ["acl"] or len(rest) < 2:
            raise Wrong(len(words) - len(rest))
        name = rest[2] if rest[1] == "name" and len(rest) > 2 else rest[1]
        family = "ipv6 " if words[1] == "ipv6" else ""
        if not name.isdecimal() and self.find(f"acl {family}name {name}") is None:
            raise Refusal("Error: The specified ACL does not exist.\n")
        return _once(view, line)

    def _in_policy(self, view: View, line: str, words: list[str]) -> bool | None:
        if words[0] in ("share-mode", "statistics"):
            return _once(view, line)
        if words[:2] == ["undo", "classifier"] and len(words) == 3:
            kept = [one for one in view.lines if one.split()[:2] != words[1:]]
            if kept == view.lines:
                raise Refusal("Error: The classifier is not in the policy.\n")
            view.lines = kept
            return True
        if words[0] != "classifier":
            return None
        if len(words) not in (4, 6) or words[2] != "behavior" or (len(words) == 6 and words[4] != "precedence"):
            raise Wrong(None if len(words) < 4 else 2)
        for kind, name in (("classifier", words[1]), ("behavior", words[3])):
            if self.find(f"traffic {kind} {name}") is None:
                raise Refusal(f"Error: The {kind} does not exist.\n")
        if len(words) == 6:
            if not words[5].isdecimal() or not 1 <= int(words[5]) <= 5119:
                raise Wrong(5)
            if any(one.split()[-2:] == words[4:] and one.split()[1] != words[1] for one in view.lines):
                raise Refusal("Error: The precedence has been used by another classifier.\n")
        if line in view.lines:
            return False
        kept = [one for one in view.lines if one.split()[:2] != words[:2]]
        heads = [one for one in kept if one.split()[0] != "classifier"]
        rest = sorted([*(one for one in kept if one.split()[0] == "classifier"), line], key=_precedence)
        view.lines = heads + rest
        return True

    def _apply(self, view: View | None, words: list[str]) -> bool:
        if len(words) != 3 or words[2] not in ("inbound", "outbound"):
            raise Wrong(None if len(words) < 3 else 2)
        if self.find(f"traffic policy {words[1]}") is None:
            raise Refusal("Error: The traffic policy does not exist.\n")
        lines = view.lines if view else [one.header for one in self.views]
        there = [one for one in lines if one.split()[0] == "traffic-policy" and one.split()[2:] == words[2:]]
        if there:
            if there[0].split() != words:
                raise Refusal("Error: Another traffic policy has been applied in this direction.\n")
            return False
        if view is not None:
            view.lines.append(" ".join(words))
        else:
            self._add(View(" ".join(words)), None)
            self._text = ""
        return True

    def _unapply(self, view: View, words: list[str]) -> bool:
        kept = [
            one
            for one in view.lines
            if not (one.split()[0] == "traffic-policy" and one.split()[2] == words[-1] and words[1] in one.split())
        ]
        if kept == view.lines:
            raise Refusal("Error: The traffic policy is not applied.\n")
        view.lines = kept
        return True

    def _undo(self, line: str, words: list[str]) -> bool:
        if words[0] == "traffic-policy":
            gone = next((one for one in self.views if one.header == line), None)
        else:
            gone = self.find(line)
        if gone is None:
            raise Refusal("Error: The specified object does not exist.\n")
        name = gone.header.split()
        for one in [*self.views]:
            for said in (one.header, *one.lines):
                if _uses(said.split(), name):
                    raise Refusal(f"Error: It is in use ({one.header}).\n")
        at = self.views.index(gone)
        del self.views[at], self._raw[at]
        self._text = ""
        return True


def _uses(words: list[str], name: list[str]) -> bool:
    """Does a line refer to what the view is called?"""
    if name[0] == "acl":
        ipv6 = name[1] == "ipv6"
        own = name[3 if ipv6 else 2] if len(name) > (3 if ipv6 else 2) else ""
        return words[0] == "if-match" and ("ipv6" in words) == ipv6 and words[-1] == own
    if name[:2] == ["traffic", "policy"]:
        return words[0] == "traffic-policy" and words[1:2] == name[2:3]
    if name[:2] == ["traffic", "classifier"]:
        return words[0] == "classifier" and words[1:2] == name[2:3]
    return name[:2] == ["traffic", "behavior"] and words[0] == "classifier" and words[3:4] == name[2:3]


@lru_cache(maxsize=4096)
def _key(header: str) -> str:
    words = header.split()
    if words[0] == "acl":
        rest = [word for word in words[1:] if word not in ("number", "name")]
        return " ".join(["acl", *rest[: 2 if rest[:1] == ["ipv6"] or rest[0] in ("ip-pool", "port-pool") else 1]])
    return " ".join(words[:3]) if words[0] == "traffic" else " ".join(words)


def _once(view: View, line: str) -> bool:
    if line in view.lines:
        return False
    view.lines.append(line)
    return True


def _described(line: str) -> bool:
    return line.split()[2:3] == ["description"]


def _place(line: str) -> tuple[int, bool]:
    return int(line.split()[1]), _described(line)


def _precedence(line: str) -> int:
    words = line.split()
    return int(words[-1]) if "precedence" in words else 5120


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
        return f"-{words[1]}" if words[0] == "interface" else f"-{_VIEWS[words[1]]}-{words[2]}"

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
            self.candidate, self._typed = self.router.running.copy(), []
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
            self.candidate, self.view = self.router.running.copy(), None
            self.touched, self._typed = False, []
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
        self.touched, self._typed = False, []
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
        self.candidate, self.view = self.router.running.copy(), None
        return "Info: The trial configuration rollback succeeded.\n"

    def replayed(self, running: VrpConfiguration) -> VrpConfiguration | None:
        """What is not committed, on top of what others have committed meanwhile; None where the two do not fit."""
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
        session.candidate, session.view = fresh.copy(), None
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
