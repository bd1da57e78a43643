# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A configuration of VRP as views, and what a line typed in one of them does."""

from __future__ import annotations

import re
from functools import lru_cache

from .judges.huawei_vrp import View, Wrong, kind_of, merged, read

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
VIEWS = {"classifier": "classifier", "behavior": "behavior", "policy": "trafficpolicy"}


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
        """What is loaded acts as if it were typed: rules stand by their numbers, one that comes again merges."""
        numbers = [line.split()[1] for line in view.lines if line.startswith("rule ") and not _described(line)]
        told = [int(number) for number in numbers if number.isdecimal()]
        if told == sorted(set(told)) and not any(line.startswith("undo ") for line in view.lines):
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
        if words[:1] == ["traffic"] and len(words) > 2 and words[1] in VIEWS:
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
