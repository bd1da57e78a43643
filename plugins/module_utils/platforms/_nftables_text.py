# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The text of an nftables ruleset: tokens, statements, tables. What a rule says: _nftables_rules.py.

Grammar: nft(8). It reads what `nft list ruleset` prints and what people write by hand (defines, commands, includes).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..filters import DENY, PERMIT, Doubt
from ._nftables_parts import Part

Token = tuple[str, int]  # the word (strings keep their quotes) and its line

# A condition of iptables that nft cannot spell is listed as `# xt_NAME`, and the rule goes on behind it (nft's xt.c).
_WORDS = re.compile(r'#(?! xt_).*|("[^"]*"?|==|!=|<=|>=|<<|>>|[{}()=<>!&|^,;\\]|[^\s{}()=<>!&|^,;"#\\]+)')
_DEVICE = re.compile(r"[A-Za-z0-9_.:@/*-]+")
ADDRESS_LINE = re.compile(r"^\d+: ([^\s:@]+)(?:@\S+)?[: ]+(inet6?) (\S+)(?: peer (\S+))?.*$", re.MULTILINE)
_FILLED = re.compile(r"\b(?:add|update|delete|set\s+(?:add|update)\s[^{}]*?)\s+@([^\s{};]+)")  # by packets
FAMILIES = {"ip": (4,), "ip6": (6,), "inet": (4, 6), "netdev": (4, 6), "bridge": (4, 6), "arp": ()}
HOOKS = ("ingress", "prerouting", "forward", "postrouting", "egress")
_PRIORITIES = {"raw": -300, "mangle": -150, "dstnat": -100, "filter": 0, "security": 50, "srcnat": 100}
TRACKING = -200  # conntrack's own priority in prerouting; defragmentation is at -400
_EXPANSION_LIMIT = 1_000_000  # tokens that `define` may add
_INCLUDED = "an included file is not part of this text"


_OBJECTS = frozenset("counter quota limit ct secmark synproxy tunnel".split())
_KINDS = _OBJECTS | {"table", "chain", "rule", "set", "map", "element", "flowtable"}
_SET_LINES = frozenset("type typeof gc-interval auto-merge size policy comment counter limit quota ct last".split())


@dataclass(slots=True)
class Set:
    line: int
    elements: list[Token] = dataclasses.field(default_factory=list)
    loose: bool = False  # its elements come and go while packets pass, or are not all known
    timed: bool = False  # each of its elements goes after a time


@dataclass(slots=True, eq=False)
class Rule:
    tokens: list[Token]
    line: int
    parts: list[Part] | None = None


@dataclass(slots=True, eq=False)
class Chain:
    name: str
    line: int
    rules: list[Rule] = dataclasses.field(default_factory=list)
    hook: str = ""
    kind: str = ""
    priority: int | None = None
    policy: str = PERMIT
    devices: tuple[str, ...] = ()


@dataclass(slots=True, eq=False)
class Table:
    family: str
    name: str
    line: int
    chains: dict[str, Chain] = dataclasses.field(default_factory=dict)
    sets: dict[str, Set] = dataclasses.field(default_factory=dict)
    flowtables: dict[str, tuple[str, ...] | None] = dataclasses.field(default_factory=dict)
    dormant: bool = False


class Ruleset:
    """The tables that the text's statements leave behind. Never raises; what it cannot read becomes a doubt."""

    def __init__(self, text: str) -> None:
        self.lines = text.split("\n")
        self.tables: dict[tuple[str, str], Table] = {}
        self.doubts: list[Doubt] = []
        self.read = 0  # lines of filters
        self.statements = 0  # commands that were understood
        self._defined: dict[str, list[Token]] = {}
        self._expanded = 0
        self._tokens = tokens(ADDRESS_LINE.sub("", text))
        self._at = 0
        self._run()
        for found in [_FILLED.search(line) for line in self.lines if "@" in line]:  # a file need not say `dynamic`
            for table in self.tables.values() if found else ():
                if found and found[1] in table.sets:
                    table.sets[found[1]].loose = True

    def text(self, line: int) -> str:
        return self.lines[line - 1].strip() if 0 < line <= len(self.lines) else ""

    def doubt(self, line: int, reason: str) -> None:
        self.doubts.append(Doubt(line, self.text(line), reason))

    def _statement(self, in_chain: bool = False) -> list[Token]:
        """Up to the next separator or brace that opens a block, which stays unread. Sets in braces are taken along."""
        words: list[Token] = []
        count = len(self._tokens)
        while self._at < count:
            token = self._tokens[self._at]
            if token[0] in ("\n", ";", "}") or (token[0] == "{" and not (words if in_chain else _inline(words))):
                break
            self._at += 1
            if token[0] == "{":
                depth = 1
                words.append(token)
                while self._at < count and depth:
                    token = self._tokens[self._at]
                    depth += (token[0] == "{") - (token[0] == "}")
                    self._at += 1
                    self._append(words, token)
                continue
            self._append(words, token)
        return words

    def _append(self, words: list[Token], token: Token) -> None:
        if token[0][0] != "$":
            words.append(token)
            return
        value = self._defined.get(token[0][1:])
        self._expanded += len(value or ())
        if value is None or self._expanded > _EXPANSION_LIMIT:
            words.append(token)
        else:
            if value[:1] and value[0][0] == "{" and words and words[-1][0] in ("{", ",", "\n"):  # a set within a set
                value = value[1:-1]
            words += [(word, token[1]) for word, _ in value]

    def _peek(self) -> str:
        return self._tokens[self._at][0] if self._at < len(self._tokens) else ""

    def _blocks(self, of_chain: bool = False) -> Iterator[list[Token]]:
        """The statements of a block whose brace is next, or none where no brace is."""
        if self._peek() != "{":
            return
        self._at += 1
        while self._at < len(self._tokens) and self._peek() != "}":
            words = self._statement(of_chain)
            if words and words[0][0] == "define" and self._define(words):
                pass  # nft takes no name twice, not even in a block
            elif words:
                yield words
                if self._peek() == "{":  # a block that nobody asked for
                    self._skip_block()
            if self._peek() in ("\n", ";"):
                self._at += 1
            elif not words and self._peek() == "{":
                self._skip_block()
        self._at += 1

    def _skip_block(self) -> None:
        depth = 0
        while self._at < len(self._tokens):
            word = self._peek()
            depth += (word == "{") - (word == "}")
            self._at += 1
            if not depth:
                return

    def _run(self) -> None:
        while self._at < len(self._tokens):
            words = self._statement()
            if words:
                start = self._at
                known = self._command(words)
                self.statements += known
                if not known:
                    self.doubt(words[0][1], "this line is no nftables statement that is understood")
                if self._peek() == "{" and self._at == start:
                    self._skip_block()
            if self._peek() in ("\n", ";", "}", "{") and self._at < len(self._tokens):
                self._at += 1

    def _command(self, words: list[Token]) -> bool:
        verb, rest = words[0][0], words[1:]
        if verb in _KINDS:
            verb, rest = "add", words
        if verb in ("define", "redefine") and self._define(words):
            pass
        elif verb == "include":
            self.doubt(words[0][1], _INCLUDED)
        elif verb in ("list", "undefine", "reset", "get"):
            pass
        elif verb in ("add", "insert") and rest and rest[0][0] not in _KINDS:  # `add filter forward drop`: a rule
            return self._change(verb, "rule", rest, words)
        elif verb in ("add", "create", "insert", "delete", "destroy", "flush") and rest:
            return self._change(verb, rest[0][0], rest[1:], words)
        elif ("ip", verb) in self.tables or (rest and (verb, rest[0][0]) in self.tables):
            return self._change("add", "rule", words, words)
        else:
            return False
        return True

    def _define(self, words: Sequence[Token]) -> bool:
        """define name = value"""
        if len(words) < 4 or words[2][0] != "=":
            return False
        self._defined[words[1][0]] = list(words[3:])
        return True

    def _change(self, verb: str, what: str, rest: list[Token], words: list[Token]) -> bool:
        line = words[0][1]
        names = [word for word, _ in rest]
        if verb == "flush" and what == "ruleset":
            for key in list(self.tables):
                if not names or key[0] == names[0]:
                    del self.tables[key]
            return len(names) < 2
        if what == "ct":  # helper, timeout, expectation
            del names[:1]
        family = names.pop(0) if names and names[0] in FAMILIES else "ip"
        rest = rest[len(rest) - len(names) :]
        if not names:
            return False
        if what == "table":  # more words than a name: it is not understood, and neither is what stands in it
            return len(names) == 1 and self._change_table(verb, family, names[0], line)
        table = self.tables.get((family, names[0]))
        if table is None or len(names) < 2:
            return False
        if what in _OBJECTS:  # a counter and its like: no filter, the rest of the command is skipped
            return verb != "insert"
        name = plain(names[1])
        if verb in ("delete", "destroy", "flush"):
            if what == "chain" and verb == "flush" and name in table.chains:
                table.chains[name].rules.clear()
            elif what == "chain" and verb != "flush":
                table.chains.pop(name, None)
            elif what in ("set", "map") and name in table.sets:
                table.sets[name].elements.clear()
            else:
                if what == "element" and name in table.sets:
                    table.sets[name].loose = True
                return False
            return True
        if what == "chain":
            self._chain(table, name, line)
        elif what in ("set", "map"):
            self._set(table, name, line)
        elif what == "flowtable":
            self._flowtable(table, name)
        elif what == "element" and name in table.sets:
            table.sets[name].elements += braced(rest[2:])
            self.read += 1
        elif what == "rule" and name in table.chains:
            self._rule(table.chains[name], rest[2:], insert=verb == "insert")
        else:
            return False
        return True

    def _change_table(self, verb: str, family: str, name: str, line: int) -> bool:
        key = family, plain(name)
        if verb in ("delete", "destroy"):
            self.tables.pop(key, None)
        elif verb == "flush":
            for chain in self.tables[key].chains.values() if key in self.tables else ():
                chain.rules.clear()
        else:
            table = self.tables.setdefault(key, Table(*key, line))
            self.read += 1
            for words in self._blocks():
                self._in_table(table, words)
        return True

    def _in_table(self, table: Table, words: list[Token]) -> None:
        what, line = words[0]
        name = plain(words[1][0]) if len(words) == 2 else ""
        self.read += 1
        if what == "chain" and name:
            self._chain(table, name, line)
        elif what in ("set", "map") and name:
            self._set(table, name, line)
        elif what == "flowtable" and name:
            self._flowtable(table, name)
        elif what == "flags":
            table.dormant = table.dormant or any(word == "dormant" for word, _ in words)
        elif what in _OBJECTS:
            self._skip_named()
        elif what == "include":
            self.doubt(line, _INCLUDED)
        elif what != "comment":
            self.doubt(line, "this line of a table is not understood")

    def _skip_named(self) -> None:
        if self._peek() == "{":
            self._skip_block()

    def _chain(self, table: Table, name: str, line: int) -> None:
        chain = table.chains.setdefault(name, Chain(name, line))
        unknown: list[Token] = []
        for words in self._blocks(of_chain=True):
            first = words[0][0]
            if first == "type" and any(word == "hook" for word, _ in words):
                self._hook(chain, words)
            elif first == "policy" and len(words) > 1:
                policy = plain(words[1][0])
                chain.policy = DENY if policy == "drop" else PERMIT
                unknown = words if policy not in ("accept", "drop") else []
                self.read += 1
            elif not chain.rules and any(word == "hook" for word, _ in words):
                self.doubt(words[0][1], "what kind of chain this is, is not understood")
            elif first in ("devices", "device"):
                self._devices(chain, words[1:])
            elif first not in ("comment", "flags"):  # `flags offload` says who works, not what is done
                self._rule(chain, words)
        if unknown:  # it may be either: as a rule at the end that is not understood
            self._rule(chain, unknown)

    def _hook(self, chain: Chain, words: list[Token]) -> None:
        """type filter hook forward [device "x" | devices = { x, y }] priority filter - 5"""
        text = [word for word, _ in words]
        chain.line, chain.kind = words[0][1], text[1] if len(text) > 1 else ""
        chain.hook = text[text.index("hook") + 1] if text[-1] != "hook" else ""
        if chain.hook not in (*HOOKS, "input", "output"):
            self.doubt(words[0][1], "the hook of this chain is not understood")
        if "priority" in text:
            chain.priority = _priority(text[text.index("priority") + 1 :])
            if chain.priority is None:
                self.doubt(words[0][1], "the priority of this chain is not understood")
        for word in ("device", "devices"):
            if word in text:
                end = text.index("priority") if "priority" in text else len(text)
                self._devices(chain, words[text.index(word) + 1 : end])
        self.read += 1

    def _devices(self, chain: Chain, words: Sequence[Token]) -> None:
        """A chain that is named again has the devices of both."""
        for word, line in words:
            if word[0] == "$":
                self.doubt(line, "the devices of this chain are not in the text")
            if word not in "={},\n":
                chain.devices += (plain(word),)

    def _set(self, table: Table, name: str, line: int) -> None:
        made = table.sets.setdefault(name, Set(line))
        for words in self._blocks():
            text = [word for word, _ in words]
            self.read += words[-1][1] - words[0][1] + 1
            if text[0] == "elements" and "{" in text:
                made.elements += braced(words)
            elif text[0] == "flags":
                made.loose = made.loose or "dynamic" in text
            elif text[0] == "timeout":
                made.timed = True
            elif text[0] not in _SET_LINES:
                self.doubt(words[0][1], _INCLUDED if text[0] == "include" else "this line of a set is not understood")
                made.loose = True

    def _flowtable(self, table: Table, name: str) -> None:
        devices: tuple[str, ...] = ()
        known = True
        for words in self._blocks():
            first, line = words[0]
            if first == "devices" and words[1:2] and words[1][0] == "=":
                devices = tuple(plain(word) for word, _ in braced(words) if word != ",")
                understood = bool(devices) and all(_DEVICE.fullmatch(device) for device in devices)
            else:  # `hook ingress priority filter + 5`
                understood = first in ("flags", "counter", "comment") or (first == "hook" and len(words) < 7)
            if not understood:
                self.doubt(line, "this line of a flow table is not understood")
                known = False
        table.flowtables[name] = devices if known else None

    def _rule(self, chain: Chain, words: list[Token], insert: bool = False) -> None:
        if not words:
            return
        self.read += 1
        place = 0 if insert else len(chain.rules)
        if words[0][0] in ("position", "index", "handle"):
            number = words[1][0] if len(words) > 1 else ""
            if words[0][0] == "index" and number in map(str, range(len(chain.rules))):
                place = int(number) + (not insert)  # `insert` goes before the rule of that number, `add` behind it
            else:
                self.doubt(words[0][1], "a rule at a position: where it stands is not worked out")
            words = words[2:]
        chain.rules.insert(place, Rule(words, words[0][1] if words else chain.line))


def tokens(text: str) -> list[Token]:
    """The words and line ends of a text; a backslash at the end of a line has the next one go on with it."""
    found = []
    lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        words = _WORDS.findall(line)
        if number == len(lines):
            pass
        elif words[-1:] == ["\\"] and line.removesuffix("\r").endswith("\\"):
            words.pop()
        else:
            words.append("\n")
        found += [(word, number) for word in words if word]  # a comment is none
    return found


# Words behind which a brace opens a block of statements and no set.
_BLOCKS = _KINDS - {"rule", "element"}


def _inline(words: Sequence[Token]) -> bool:
    """Whether a brace behind these words, outside chains, belongs to them: a set of a rule, elements."""
    if not words:
        return False
    first = words[0][0]
    if first in ("add", "create") and len(words) > 1:
        return words[1][0] not in _BLOCKS
    return not (first in _BLOCKS and len(words) <= 4 and not any(word in ("{", "=") for word, _ in words))


def plain(word: str) -> str:
    return word.strip('"')


def braced(words: Sequence[Token]) -> list[Token]:
    """What stands between the first brace and its counterpart, without line ends, ending with a comma."""
    inside: list[Token] = []
    depth = 0
    for word, line in words:
        if word == "}":
            depth -= 1
            if not depth:
                break
        if depth and word != "\n":
            inside.append((word, line))
        depth += word == "{"
    return [*inside, (",", 0)] if inside and inside[-1][0] != "," else inside


def _priority(words: Sequence[str]) -> int | None:
    """`filter - 5`, `-150`, `filter`, `filter+10`."""
    joined = "".join(plain(word) for word in words[:3]).replace(" ", "").split("policy")[0]
    match = re.fullmatch(r"([a-z]*)([+-]?\d{0,10})", joined)
    if not match or (match[1] and match[1] not in _PRIORITIES) or not joined or match[2] in ("+", "-"):
        return None
    return _PRIORITIES.get(match[1], 0) + int(match[2] or 0)
