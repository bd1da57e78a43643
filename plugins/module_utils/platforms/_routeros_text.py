# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The text of RouterOS' /export, read into statements: which menu, which command, which properties."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

END = "# end of export"  # what READ prints behind the export: without it nobody sees that a text is cut off
VERBS = frozenset("add set remove unset move enable disable print edit comment reset".split())
_WORD = re.compile(
    r"""\s*(?:
        (?P<name>!?[A-Za-z0-9_.<>*-]+)(?:=(?P<value>"(?:[^"\\]|\\.)*"|\[[^\]]*\]|\{[^}]*\}|[^\x00-\x20\x7f\xa0"\\;=?$\[\](){}]*))?(?=\s|$)
      | (?P<brackets>\[[^\]]*\])(?=\s|$)
      | (?P<quoted>"(?:[^"\\]|\\.)*")(?=\s|$)
    )""",
    re.VERBOSE,
)
# What nearly every line is: names with values, no escapes, no brackets.
_BARE = r'[^\x00-\x20\x7f\xa0"\\;=?$\[\](){}]'  # what a value may have without quotes: it means nothing in a script
_PAIR = re.compile(rf'([a-z0-9-]+)=(?:"([^"\\]*)"|({_BARE}+))(?: |$)')
_PLAIN = re.compile(rf'(?:[a-z0-9-]+=(?:"[^"\\]*"|{_BARE}+)(?: |$))+')
_ESCAPE = re.compile(r"\\(?:([0-9A-F]{2})|(.))", re.DOTALL)
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", "a": "\a", "b": "\b", "f": "\f", "v": "\v", "_": " "}
# A remark by which an export is known, and what one says above an item that is not in force.
_EXPORTED = re.compile(r"^# (?:.* by RouterOS \d|(?:software|system) id|model =|serial number)", re.MULTILINE)
_WHY = re.compile(r"\b(?:inactive|invalid|unknown|no interface|not (?:possible|active|ready|running|available))\b")
_PROPERTY = re.compile(r"!?[a-z0-9-]+=")
# A command within a line of a script, or behind another one.
_CHANGES = re.compile(
    r"(?:(?:^|[ {;\[(/])(ip(?:v6)?[ /]+firewall[ /]+(?:filter|raw|mangle|nat|address-list))[ /]+|[{;] *)"
    r"(?:add|set|remove|unset|move|enable|disable)\b"
)
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')

_ITEM = re.compile(r" {0,4}(\d{1,6})\s(?:([XID ]{0,6}?)\s{1,6})?(;;; .*|[a-z-]+=.*|\S+\s+[0-9a-fA-F.:/-]+\b.*)$")
# What stands around items: headers, the comment of a table's row, what was typed, what the log says in between.
_ASIDE = re.compile(r"Flags: |Columns: | ?#|;;; |\[[^\]]*@[^\]]*\] |\d\d:\d\d:\d\d echo: ")
_COUNTED = re.compile(r"\s*(?:\d+\s+)?(?:[XID]{1,3}\s+)?([\w-]+)\s+([a-z-]+)\s+\d")  # of `print stats`: chain, action
_COMMENT = re.compile(r"^comment=.*? (?=(?:chain|list)=)")  # of `print terse`, which puts no quotes around it
_ADDRESSES = ("address", "src-address", "dst-address", "to-address", "to-addresses")
_NAT = frozenset("masquerade src-nat dst-nat redirect netmap same endpoint-independent-nat".split())


@dataclass(slots=True)
class Statement:
    """One command of the text. `garbled`: from where on its words could not be read, "" for nothing."""

    menu: str  # "ip firewall filter"
    verb: str
    properties: dict[str, str]
    line: int  # of its beginning
    end: int  # of its last line
    text: str  # on one line
    words: list[str] = field(default_factory=list)  # positional ones: "[ find default-name=ether1 ]"
    garbled: str = ""
    remark: str = ""  # the remark right above: the router says so why the item is not in force

    @property
    def disabled(self) -> bool:
        return self.properties.get("disabled") in ("yes", "true")


@dataclass(slots=True)
class Export:
    """The statements of a text. `strange`: lines that are no command, with their numbers."""

    lines: list[str]
    statements: list[Statement]
    strange: list[tuple[int, str]]
    ended: bool
    cut: bool  # the last command goes on and does not
    sections: dict[str, int] = field(default_factory=dict)  # menus that stand alone on a line, the first of each

    def of(self, *menus: str) -> Iterator[Statement]:
        return (one for one in self.statements if one.menu in menus)

    def text(self, line: int) -> str:
        """A command on one line, or the line as it stands."""
        return self.lines[line - 1].strip() if 0 < line <= len(self.lines) else ""


def read(text: str) -> Export:
    """Never raises. A command goes on behind a backslash at the end of its line (MikroTik, "Scripting")."""
    lines = text.removeprefix("\ufeff").replace("\r", "").split("\n")
    found = Export(lines, [], [], False, False)
    first = next((line for line in lines if line.strip()), "")
    if _ITEM.match(first) or any(line.startswith(("Flags: ", "Columns: ")) for line in lines[:5]):
        _printed(found)
        return found
    exported = _EXPORTED.search(text)  # in a script, remarks are its author's
    menu, remark, number, count = "", "", 0, len(lines)
    depth = 0  # of blocks of a script
    while number < count:
        line, start = lines[number].strip(), number + 1
        number += 1
        if line.startswith("#"):
            found.ended = line == END
            remark = line if exported or _WHY.search(line) else ""
            continue
        if not line:
            continue
        found.ended = False
        pieces = [line]
        while (len(pieces[-1]) - len(pieces[-1].rstrip("\\"))) % 2:
            pieces[-1] = pieces[-1][:-1]
            if number >= count:
                found.cut = True
                break
            pieces.append(lines[number].strip())
            number += 1
        line = "".join(pieces).rstrip("; ")  # a semicolon ends a command as the end of a line does
        known = len(found.statements)
        if line.startswith("/"):
            path, verb, rest = _command(line[1:])
            if not verb and not rest:
                menu = path
                found.sections.setdefault(path, start)
            elif verb:
                found.statements.append(_statement(path, verb, rest, start, number, line))
            else:
                found.strange.append((start, line))
        else:
            verb, _, rest = line.partition(" ")
            if menu and verb in VERBS:
                found.statements.append(_statement(menu, verb, rest, start, number, line))
            else:
                found.strange.append((start, line))
                if known and found.statements[-1].end == start - 1 and _PROPERTY.match(line):
                    found.statements[-1].garbled = line  # it goes on here, and the backslash was lost
        new = found.statements[-1] if len(found.statements) > known else None
        if new:
            new.remark = remark
            if depth:
                new.garbled = new.garbled or "the block of a script around it"
        if new is None or new.garbled:
            changes = _CHANGES.search(_QUOTED.sub('""', new.garbled if new else line))
            place = " ".join(re.split("[ /]+", changes[1])) if changes and changes[1] else menu
            if changes and "firewall" in place:  # what it puts where is not worked out
                verb = ";" if new else line.split()[0]
                found.statements.append(Statement(place, verb, {}, start, number, line))
        if depth or (line.endswith("{") and (new is None or new.garbled)):
            depth = max(0, depth + line.count("{") - line.count("}"))
        remark = ""
    return found


def _printed(found: Export) -> None:
    """Outputs of `print` in menus of the firewall; in which ones chains, actions, addresses and columns tell."""
    outputs: list[list[tuple[int, str, list[str]]]] = [[]]
    tables: set[int] = set()
    counted = False
    for number, line in enumerate(found.lines, 1):
        item = _ITEM.match(line)
        if line.startswith("Flags: "):
            counted = False
        elif "CHAIN" in line.split() and "ACTION" in line.split():
            counted = True
        if counted:
            counts = _COUNTED.match(line)
            if counts:
                one = Statement("ip firewall filter", "add", {"chain": counts[1]}, number, number, line.strip())
                one.garbled = "counters, and not what the rule matches"
                found.statements.append(one)
            continue
        if outputs[-1] and (line.startswith("Flags: ") or (item and not int(item[1]))):
            outputs.append([])
        if item:
            outputs[-1].append((number, item[2] or "", [item[3]]))
        elif "LIST" in line.split() and "ADDRESS" in line.split():
            tables.add(len(outputs))
        elif line.strip() and outputs[-1] and line.startswith("     "):
            outputs[-1][-1][2].append(line.strip())
        elif line.strip() and not _ASIDE.match(line):
            found.strange.append((number, line.strip()))
    for place, items in enumerate(outputs, 1):
        statements: list[Statement] = []
        for number, flags, parts in items:
            text = _COMMENT.sub("", " ".join(part for part in parts if not part.startswith(";;;")))
            if place in tables:
                name, address, *_ = [*text.split(), "", ""]
                text = f"list={name} address={address}"
            one = _statement("", "add", text, number, number, text)
            if "X" in flags:
                one.properties["disabled"] = "yes"
            if "I" in flags:
                one.remark = "# invalid"
            if "D" in flags and "list" in one.properties:
                one.properties["timeout"] = "dynamic"
            statements.append(one)
        chains, actions = ({one.properties.get(name, "") for one in statements} for name in ("chain", "action"))
        kind = "filter"
        if any("list" in one.properties for one in statements):
            kind = "address-list"
        elif chains & {"srcnat", "dstnat"} or actions & _NAT:
            kind = "nat"
        elif any(action.startswith(("mark-", "change-")) for action in actions):
            kind = "mangle"
        elif "prerouting" in chains:
            kind = "raw"
        ipv6 = any(
            (name in _ADDRESSES and ":" in value) or (name, value) == ("protocol", "icmpv6")
            for one in statements
            for name, value in one.properties.items()
        )
        for one in statements:
            one.menu = f"ip{'v6' * ipv6} firewall {kind}"
        found.statements += statements


def _command(line: str) -> tuple[str, str, str]:
    """The menu of a line that begins with /, the verb and the rest; no verb where it is a menu alone."""
    head, add, rest = line.partition(" add ")
    if add:
        path, verb, more = _path(f"{head} add")
        if verb and not more:
            return path, verb, rest.strip()
    return _path(line)


@functools.lru_cache(maxsize=256)
def _path(line: str) -> tuple[str, str, str]:
    words: list[str] = []
    rest = line
    while rest:
        found = re.match(r"\s*/?([a-z][a-z0-9-]*)(?=[\s/]|$)", rest)
        if not found:
            return " ".join(words), "", rest.strip()
        rest = rest[found.end() :]
        if found[1] in VERBS and words:
            return " ".join(words), found[1], rest.strip()
        words.append(found[1])
    return " ".join(words), "", ""


def _statement(menu: str, verb: str, rest: str, line: int, end: int, text: str) -> Statement:
    if "$" not in rest and _PLAIN.fullmatch(rest):
        pairs = _PAIR.findall(rest)
        given = {name: value or quoted for name, quoted, value in pairs}
        return Statement(menu, verb, given, line, end, text, garbled=rest if len(given) < len(pairs) else "")
    found = Statement(menu, verb, {}, line, end, text)
    at = 0
    while at < len(rest):
        word = _WORD.match(rest, at)
        if not word:
            found.garbled = rest[at:].strip()
            break
        at = word.end()
        name, value = word["name"], word["value"]
        if name and value is not None:
            if name in found.properties:  # two lines that have become one, or a word that has become another
                found.garbled = word.group().strip()
            if "$" in value and name not in ("comment", "log-prefix") and "$" in _ESCAPE.sub("", value):
                found.garbled = word.group().strip()  # the value of a variable
            found.properties[name] = unquoted(value)
        elif name and name.startswith("!"):
            found.properties[name[1:]] = ""  # a verbose export says so that it is not set
        else:
            found.words.append(word.group().strip())
    return found


def unquoted(value: str) -> str:
    """The value as the router has it (MikroTik, "Scripting": escape sequences)."""
    if len(value) < 2 or value[0] != '"' or value[-1] != '"':
        return value
    return _ESCAPE.sub(lambda one: chr(int(one[1], 16)) if one[1] else _ESCAPED.get(one[2], one[2]), value[1:-1])


def quoted(value: str) -> str:
    """The value as it is typed."""
    if re.fullmatch(r"[A-Za-z0-9_.,:/!*<>-]+", value):
        return value
    escaped = re.sub(r'([\\"$?])', r"\\\1", value)
    return (
        '"' + re.sub(r"[^\x20-\x7e]", lambda one: "".join(f"\\{byte:02X}" for byte in one[0].encode()), escaped) + '"'
    )


def written(menu: str, properties: dict[str, str], skip: Sequence[str] = ()) -> str:
    """An item as a command that stands anywhere."""
    words = [f"{name}={quoted(value)}" for name, value in properties.items() if name not in skip and value != ""]
    return f"/{menu} add {' '.join(words)}"
