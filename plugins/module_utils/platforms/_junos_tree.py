# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The text of a Junos configuration as a tree of words, with what its groups and ranges inherit.

`term A { from { protocol tcp; } }` and `set ... term A from protocol tcp` are the same words in the same places.
"""

from __future__ import annotations

import contextlib
import fnmatch
import functools
import gc
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ..filters import Doubt


class Node(dict[str, "Node"]):
    """What stands below a word."""

    __slots__ = ("line",)
    line: int
    rank = 0  # of what the text says here; what is inherited has the order in which it was


class _Inherited(Node):
    __slots__ = ("rank",)

    def __init__(self, line: int, rank: int) -> None:
        super().__init__()
        self.line, self.rank = line, rank


@dataclass
class Reading:
    """A text as a tree: only the sections that may matter to filters, inactive statements left out."""

    lines: list[str]
    root: Node = field(default_factory=Node)
    doubts: list[Doubt] = field(default_factory=list)
    filter_lines: int = 0
    known: set[str] = field(default_factory=set)  # the top-level sections that were seen
    strange: set[str] = field(default_factory=set)  # what stood in the place of one
    problem: str = ""  # why the text is not whole

    def text(self, line: int) -> str:
        return self.lines[line - 1].strip()

    def doubt(self, line: int, reason: str) -> None:
        self.doubts.append(Doubt(line, self.text(line), reason))


# Statements that may stand anywhere, and match and do nothing themselves.
ANYWHERE = frozenset(("apply-flags", "apply-groups", "apply-groups-except", "apply-macro"))
# Sections of the configuration that are kept; `firewall` is counted line by line.
_KEPT = frozenset(
    ("apply-groups", "bridge-domains", "class-of-service", "dynamic-profiles", "firewall", "forwarding-options",
     "groups", "interfaces", "logical-systems", "policy-options", "routing-instances", "routing-options", "security",
     "system", "vlans")
)  # fmt: skip
SECTIONS = _KEPT | frozenset(
    ("access", "access-profile", "accounting-options", "applications", "apply-groups-except", "apply-macro",
     "chassis", "diameter", "diameter-element", "ethernet-switching-options", "event-options", "fabric", "fc-fabrics",
     "fc-options", "jsrc", "multi-chassis", "multicast-snooping-options", "openconfig-interfaces", "poe", "protocols",
     "redundant-power-system", "schedulers", "services", "session-limit-group", "smtp", "snmp", "switch-options",
     "tenants", "unified-edge", "version", "virtual-chassis", "virtual-network-functions", "vmhost", "wlan")
)  # fmt: skip
_MARKS = frozenset(("inactive:", "replace:", "protect:", "delete:", "active:", "unprotect:"))
COMMANDS = frozenset(("set", "delete", "activate", "deactivate", "insert", "annotate", "protect", "unprotect"))
# The lines that make up nearly all of a configuration: `words;`, `words {` and `words [ words ];`.
_PLAIN = re.compile(r'([^"\[\]{};#*]+)([;{])')
_SIGNS = re.compile(r'["\[\]{};#*]')
_LISTED = re.compile(r'([^"\[\]{};#*]+\s)\[([^"\[\]{};#*]*)\];')
# Inside a word neither '/*' begins a remark nor '[' a list: `ge-0/*/*`, `ge-0/0/[0-23]`.
_TOKEN = re.compile(
    r'"((?:[^"\\]|\\.)*)"|(/\*)|(#)|([\[\]{};])|(")|([^\s"\[\]{};]+(?:(?<=[/<-])\[[^\s"\[\]{};]*\][^\s"\[\]{};]*)*)'
)
# The state of a redundant routing engine, and the place in the configuration, that the CLI prints beside its prompt.
# Old archives (RANCID) begin with a remark of their own.
_BANNER = re.compile(r"(?:\{[a-z]+(?::[\w.-]+)?\})?(?:\[edit[^\]]*\])?|!(?:RANCID-CONTENT-TYPE: jun\S+)?")
# What the router leaves out of its output: by `apply-flags omit`, or because the login may not see it.
LEFT_OUT = ("/* OMITTED */", "/* ACCESS-DENIED */")
# Where no name would be missed that a filter refers to.
_BOUND_IN = frozenset(("dynamic-profiles", "interfaces", "logical-systems"))
_WORKING_IN = _BOUND_IN | frozenset(("forwarding-options", "groups", "routing-instances", "security"))
_PROMPT = re.compile(r"[\w.-]+@[\w.-]+[>#%](?: |$)")  # with what was typed behind it
_MATTERS = re.compile(r"\s*(?:family|filter|firewall|input|output|rpf-check|unit)\b")
_DEEPEST = 64
# Words that apply-groups, interface-ranges and `insert` may touch; more is no configuration that a person wrote.
_WORK_LIMIT = 2_000_000


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Without Python's cycle collector, which would walk the growing tree over and over: a third of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@functools.lru_cache(maxsize=2)
def read(text: str) -> Reading:
    """The tree, whatever the text. One pass; what is cached is never changed."""
    reading = Reading(text.split("\n"))
    with uncollected():
        _Reader(reading, SECTIONS if "apply-path" in text else _KEPT).read()
        if "apply-groups" in text:
            _inherit_groups(reading)
        if "interface-range" in text:
            _expand_ranges(reading)
    return reading


class _Reader:
    """Line by line: the plain statements of `show configuration` quickly, all others word by word."""

    def __init__(self, reading: Reading, kept: frozenset[str]) -> None:
        self.reading = reading
        self.kept = kept
        self.stack: list[Node | None] = [reading.root]
        self.section = ""
        self.pending: list[str] = []  # the words of a statement that has not ended
        self.listed: list[str] | None = None  # the words inside [ ]
        self.ended = False  # a list was closed: the ';' behind it ends nothing more
        self.inactive: dict[int, tuple[Node, str, Node]] = {}  # what is deactivated, by its identity
        self.inside = ""  # '"' or '/*' that began on an earlier line
        self.quoted: list[str] = []
        self.number = 0
        self.began = 0  # the line on which the statement that has not ended begins
        self.moved = 0  # words passed by the `insert` commands so far

    def read(self) -> None:
        reading, stack = self.reading, self.stack
        plain, listed, put = _PLAIN.fullmatch, _LISTED.fullmatch, self._put
        for self.number, raw in enumerate(reading.lines, 1):
            line = raw.strip()
            if not line:
                continue
            if not (self.inside or self.pending or self.ended or self.listed is not None):
                if len(stack) > 1:
                    if line == "}":
                        stack.pop()
                        continue
                    found = plain(line)
                    if found:
                        words = found[1].split()
                        if words[0] in _MARKS:
                            self._statement(words, found[2] == "{")
                            continue
                        here = stack[-1]
                        below = None if here is None else put(here, words)
                        if found[2] == "{":
                            stack.append(below)
                        elif self.section == "firewall":
                            reading.filter_lines += 1
                        continue
                    found = listed(line)
                    if found and stack[-1] is not None:
                        words = found[1].split()
                        for word in found[2].split():
                            self._statement([*words, word], False)
                        continue
                elif line.partition(" ")[0] in COMMANDS:
                    self._command(line)
                    continue
                elif _BANNER.fullmatch(line):
                    continue
                elif (prompt := _PROMPT.match(line)) is not None:
                    if line[prompt.end() :].partition(" ")[0] in COMMANDS:
                        reading.doubt(self.number, "this was typed, and whether it is in force is not said")
                    continue
                self.began = self.number
            elif self.pending and len(stack) == 1 and line.partition(" ")[0] in COMMANDS and not self.inside:
                reading.doubt(self.began, "this is no statement, and what it does is not known")
                self._problem(f"a line that is no statement (line {self.began})")
                self.pending, self.listed = [], None
                self._command(line)
                continue
            self._tokens(line)
        if self.inside or self.pending or self.ended or self.listed is not None or len(stack) > 1:
            self._problem(f"it ends in the middle of a statement (line {self.number})")
        for parent, word, node in self.inactive.values():
            if parent.get(word) is node:
                del parent[word]

    def _problem(self, reason: str) -> None:
        """The text is not whole: nothing of it is certain for who does not ask `incomplete` first."""
        if not self.reading.problem:
            self.reading.problem = reason
            if not self.reading.doubts:
                self.reading.doubt(self.number, reason)

    def _tokens(self, line: str) -> None:
        position = 0
        while position < len(line):
            if self.inside == "/*":
                end = line.find("*/", position)
                if end < 0:
                    return
                self.inside, position = "", end + 2
                continue
            if self.inside == '"':
                end = line.find('"', position)
                if end < 0:
                    self.quoted.append(line[position:])
                    return
                self._word("\n".join([*self.quoted, line[position:end]]))
                self.inside, self.quoted, position = "", [], end + 1
                continue
            token = _TOKEN.search(line, position)
            if token is None:
                return
            position = token.end()
            string, comment, remark, sign, quote, word = token.groups()
            if string is not None:
                self._word(string)
            elif comment:
                mark = next((one for one in LEFT_OUT if line.startswith(one, token.start())), "")
                if mark:
                    self._left_out(mark)
                    position += len(mark) - len(comment)
                else:
                    self.inside = "/*"
            elif remark:
                if "unsupported platform" in line:
                    self._ignored()
                return
            elif quote:
                self.inside, self.quoted = '"', []
            elif word:
                self._word(word)
            elif sign == "[":
                if self.listed is not None:
                    self._problem(f"a list inside a list (line {self.number})")
                self.listed = []
            elif sign == "]":
                self._list()
            elif sign == "}":
                if self.pending or self.ended or self.listed is not None:
                    self._problem(f"a statement without its ';' (line {self.number})")
                    self._end(False)
                self._close()
            else:
                self._end(sign == "{")

    def _left_out(self, mark: str) -> None:
        """`filter F { /* OMITTED */ };`: a word that nothing understands stands for what is not shown."""
        here = self.stack[-1]
        if here is None or len(self.stack) == 1 or self.pending:
            return
        self._put(here, [mark])
        if self.section in _WORKING_IN:
            self.reading.doubt(self.number, "the router left out what stands here (apply-flags, or a login's rights)")
        if self.section in _BOUND_IN:
            self._problem(f"the router left something out (line {self.number}): '{mark}'")

    def _ignored(self) -> None:
        """`## Warning: ... ignored: unsupported platform (ex2200)` stands above what has no effect on this router."""
        ahead = enumerate(self.reading.lines[self.number : self.number + 3], self.number + 1)
        number, below = next(((at, line) for at, line in ahead if line.strip()[:1] not in ("", "#")), (0, ""))
        if below and (self.section in ("firewall", "policy-options") or _MATTERS.match(below)):
            self.reading.doubt(number, "the router says that it ignores this, and it is read as if it did not")

    def _word(self, word: str) -> None:
        (self.pending if self.listed is None else self.listed).append(word)

    def _list(self) -> None:
        """The list is over: its words are alternatives at the end of the statement."""
        if self.listed is None:
            self._problem(f"a ']' that closes no list (line {self.number})")
            return
        words, self.listed = self.listed, None
        for word in words:
            self._statement([*self.pending, word], False)
        self.pending = []
        self.ended = True

    def _end(self, opens: bool) -> None:
        if self.listed is not None:
            self._list()
        words, self.pending = self.pending, []
        ended, self.ended = self.ended, False
        if ended and (words or opens):
            self._problem(f"a statement goes on behind its list (line {self.number})")
        if words or opens:
            self._statement(words, opens)

    def _close(self) -> None:
        if len(self.stack) == 1:
            self._problem(f"a '}}' that closes nothing (line {self.number})")
            return
        self.stack.pop()

    def _statement(self, words: list[str], opens: bool) -> None:
        """A statement of the brace form at the current level."""
        stack = self.stack
        marks = set()
        while words and words[0] in _MARKS:
            marks.add(words[0])
            words = words[1:]
        if len(stack) == 1:
            self.section = words[0] if words else ""
            self._seen(self.section)
        if self.section == "firewall" and not opens:
            self.reading.filter_lines += 1
        here = stack[-1]
        if here is None or (len(stack) == 1 and self.section not in self.kept) or not words:
            below = None
        elif "delete:" in marks:
            self._delete(here, words)
            below = None
        else:
            if "replace:" in marks:
                self._delete(here, words)
            below = self._put(here, words)
            if below is not None and "inactive:" in marks:
                self._deactivate(here, words)
        if opens:
            stack.append(below)

    def _seen(self, section: str) -> None:
        if section in SECTIONS:
            self.reading.known.add(section)
        elif section not in self.reading.strange:
            self.reading.strange.add(section)
            self.reading.doubt(self.number, f"'{section[:60]}' is no section of a Junos configuration")
            self._problem(f"'{section[:60]}' is no section of a Junos configuration (line {self.number})")

    def _command(self, line: str) -> None:
        """A line of the `set` form."""
        if not _SIGNS.search(line):
            self._run(line.split())
            return
        words: list[str] = []
        listed: list[str] | None = None
        for token in _TOKEN.finditer(line):
            string, comment, remark, sign, quote, word = token.groups()
            if comment or remark:
                break
            if quote:
                self._problem(f"a quotation that does not end (line {self.number})")
                break
            if sign == "[":
                listed = []
            elif sign == "]" and listed is not None:
                for one in listed:
                    self._run([*words, one])
                return
            elif sign and sign != ";":
                self._problem(f"'{sign}' in a command (line {self.number})")
            elif not sign:
                (words if listed is None else listed).append(string if string is not None else word)
        if listed is not None:
            self._problem(f"a list that does not end (line {self.number})")
        self._run(words)

    def _run(self, words: list[str]) -> None:
        verb, path = words[0], words[1:]
        if not path:
            self._problem(f"'{verb}' without a statement (line {self.number})")
            return
        if path[0] != self.section:
            self.section = path[0]
            self._seen(path[0])
        if path[0] == "firewall":
            self.reading.filter_lines += 1
        elif path[0] not in self.kept:
            return
        root = self.reading.root
        if verb == "set":
            self._put(root, path)
        elif verb == "delete":
            self._delete(root, path)
        elif verb == "deactivate":
            self._deactivate(root, path)
        elif verb == "activate":
            self.inactive.pop(id(find(root, _place(path))), None)
        elif verb == "insert":
            self._insert(root, path)

    def _put(self, node: Node, words: Sequence[str]) -> Node | None:
        if len(words) > _DEEPEST:
            self.reading.doubt(self.number, "too many words to be read")
            return None
        number = self.number
        for word in words:
            below = node.get(word)
            if below is None:
                below = node[word] = Node()
                below.line = number
            node = below
        if not node:
            node.line = number  # set again: of values that exclude each other the last one stays
        return node

    def _delete(self, node: Node, words: Sequence[str]) -> None:
        parent = find(node, words[:-1])
        if parent is not None:
            parent.pop(words[-1], None)

    def _deactivate(self, node: Node, words: Sequence[str]) -> None:
        words = _place(words)
        parent = find(node, words[:-1])
        if parent is not None and words[-1] in parent:
            self.inactive[id(parent[words[-1]])] = (parent, words[-1], parent[words[-1]])

    def _insert(self, root: Node, path: list[str]) -> None:
        """`insert ... term A before term B`: the order of terms is the order of the tree."""
        place = next((index for index, word in enumerate(path) if word in ("before", "after")), 0)
        parent = find(root, path[: place - 1]) if place > 1 else None
        moved, anchor = path[place - 1], path[-1]
        if parent is None or moved not in parent or anchor not in parent or moved == anchor:
            self.reading.doubt(self.number, "what this moves is not there")
            return
        self.moved += len(parent)
        if self.moved > _WORK_LIMIT:
            self.reading.doubt(self.number, "more moves than can be read")
            return
        items = [(word, below) for word, below in parent.items() if word != moved]
        at = [word for word, _ in items].index(anchor) + (path[place] == "after")
        items.insert(at, (moved, parent[moved]))
        parent.clear()
        parent.update(items)


def _place(words: Sequence[str]) -> Sequence[str]:
    """What `deactivate` and `activate` name. One value has its place: what is set there later is inactive too."""
    return words[:-1] if len(words) > 1 and words[-2] in ("input", "output") else words


NOTHING = Node()
NOTHING.line = 0


def find(node: Node, words: Sequence[str]) -> Node | None:
    below: Node | None = node
    for word in words:
        if below is None:
            return None
        below = below.get(word)
    return below


def at(node: Node, *words: str) -> Node:
    """What stands below the words, an empty node where they are not."""
    found = find(node, words)
    return NOTHING if found is None else found


def single(node: Node) -> tuple[str, Node] | None:
    """The one value that holds where only one can: the text's own before an inherited one, the last that was set."""
    return min(reversed(node.items()), key=lambda item: (item[1].rank, -item[1].line), default=None)


def pointed_at(root: Node, path: str, left: list[int]) -> list[tuple[str, Node]]:
    """What stands where an apply-path points to. Not all where no work is left."""
    found = [("", root)]
    for word in path.split():
        further = []
        for _, node in found:
            named = node.items() if word[:1] == "<" else [(word, node[word])] if word in node else ()
            left[0] -= len(named) + 1
            if left[0] < 0:
                break
            further += [(name, below) for name, below in named if name not in ANYWHERE and _fits(word, name)]
        found = further
    return found


def _inherit_groups(reading: Reading) -> None:
    """Copy what `apply-groups` inherits into its places, the nearest level first, then the groups in their order."""
    groups = reading.root.pop("groups", NOTHING)
    places: list[tuple[Node, tuple[str, ...]]] = []
    ahead: list[tuple[Node, tuple[str, ...]]] = [(reading.root, ())]
    while ahead:
        node, path = ahead.pop()
        if "apply-groups" in node:
            places.append((node, path))
        if len(path) < _DEEPEST:
            ahead += [(below, (*path, word)) for word, below in node.items() if below]
    left = [_WORK_LIMIT]
    wild: dict[int, list[str]] = {}
    applied: set[str] = set()
    # Each node of a cluster has its own group, as each routing engine has re0 or re1.
    nodes = [name for name in groups if re.fullmatch(r"node\d", name)]
    standing_for = {"${node}": nodes} if nodes else {}
    rank = 0
    for node, path in sorted(places, key=lambda place: -len(place[1])):
        applies = node["apply-groups"].items()
        for name, line in [(one, below.line) for said, below in applies for one in standing_for.get(said, [said])]:
            if name not in groups:
                reading.doubt(line, f"the group {name} is not defined")
                continue
            if "when" in groups[name]:
                reading.doubt(line, f"whether the group {name} applies depends on its 'when'")
            if name not in applied:
                applied.add(name)
                nested = _nested(groups[name])
                if nested:
                    reading.doubt(nested, f"the group {name} applies a group itself, which is not read")
            rank += 1
            for source in _fitting(groups[name], path, wild, left):
                _merge(node, source, name, rank, left)
    if left[0] <= 0:
        reading.doubt(1, "apply-groups inherit more than can be read")


def _nested(group: Node) -> int:
    """The line on which a group applies groups, 0 where it does not."""
    ahead = [group]
    while ahead:
        node = ahead.pop()
        if "apply-groups" in node:
            return node["apply-groups"].line
        ahead += node.values()
    return 0


def _fitting(group: Node, path: Sequence[str], wild: dict[int, list[str]], left: list[int]) -> list[Node]:
    """The places in the group that stand for the path, by name or by wildcard. `wild`: the wildcards of its nodes."""
    found = [group]
    for word in path:
        further = []
        for node in found:
            if id(node) not in wild:
                wild[id(node)] = [name for name in node if name[:1] == "<"]
            left[0] -= len(wild[id(node)]) + 1
            names = [word, *(name for name in wild[id(node)] if name != word and _fits(name, word))]
            further += [node[name] for name in names if name in node]
        found = further if left[0] > 0 else []
    return found


def _fits(name: str, word: str) -> bool:
    return name == word or (name[:1] == "<" and name[-1:] == ">" and fnmatch.fnmatchcase(word, name[1:-1]))


def _merge(target: Node, source: Node, group: str, rank: int, left: list[int]) -> None:
    """Add to `target` what `source` has and it has not."""
    ahead = [(target, source)]
    while ahead and left[0] > 0:
        target, source = ahead.pop()
        if group in target.get("apply-groups-except", NOTHING):
            continue
        for word, below in source.items():
            left[0] -= 1
            if word[:1] == "<":
                fitting = [target[name] for name in target if _fits(word, name)]
                left[0] -= len(target)
                ahead += [(one, below) for one in fitting]
                continue
            if word not in target:
                target[word] = _Inherited(below.line, rank)
            ahead.append((target[word], below))


def _expand_ranges(reading: Reading) -> None:
    """Give the members of every interface-range what the range says, as the commit does."""
    left = [_WORK_LIMIT]
    for place in [reading.root, *at(reading.root, "logical-systems").values()]:
        interfaces = at(place, "interfaces")
        for name, node in at(interfaces, "interface-range").items():
            said = Node((word, below) for word, below in node.items() if word not in ("member", "member-range"))
            members = {word: below.line for word, below in at(node, "member").items()}
            for first, below in at(node, "member-range").items():
                found = _range_of(first, next(iter(at(below, "to")), ""))
                if not found:
                    reading.doubt(below.line, f"the members of the interface-range {name} were not understood")
                members |= dict.fromkeys(found, below.line)
            for member, line in members.items():
                for physical in _numbered(member) or fnmatch.filter(interfaces, member):
                    if physical not in interfaces:
                        interfaces[physical] = _Inherited(line, 1)
                    _merge(interfaces[physical], said, "", 1, left)
    if left[0] <= 0:
        reading.doubt(1, "interface-ranges have more members than can be read")


def _numbered(member: str) -> list[str]:
    """ge-[0-1]/0/[2,5-7]: the names that it stands for; '*' is 0 to 47. None where they are too many or no numbers."""
    names = [""]
    for piece in re.split(r"(\[[^\]]*\]|\*)", member):
        inside = "0-47" if piece == "*" else piece[1:-1] if piece[:1] == "[" else ""
        if not inside:
            names = [name + piece for name in names]
            continue
        parts = inside.split(",")
        found = [one for part in parts if (one := re.fullmatch(r"\s*(\d{1,4})(?:-(\d{1,4}))?\s*", part))]
        spans = [range(int(one[1]), int(one[2] or one[1]) + 1) for one in found]
        if len(found) < len(parts) or len(names) * sum(map(len, spans)) > 1024:
            return []
        names = [f"{name}{number}" for name in names for numbers in spans for number in numbers]
    return names


def _range_of(first: str, last: str) -> list[str]:
    """ge-0/0/0 to ge-0/0/5: the names that differ in their last number."""
    one, other = (re.fullmatch(r"(.*?)(\d{1,6})", name) for name in (first, last))
    if not one or not other or one[1] != other[1]:
        return []
    return [f"{one[1]}{number}" for number in range(int(one[2]), min(int(other[2]), int(one[2]) + 1023) + 1)]
