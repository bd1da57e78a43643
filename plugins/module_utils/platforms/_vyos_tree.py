# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The text of a VyOS configuration as a tree of words: in braces (config.boot, `show configuration`) or as `set` lines.

Each word is a node below the one before it, a value too: `rule 10 { action drop }` and
`set ... rule 10 action 'drop'` are the same tree.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ..filters import Doubt

# Sections whose lines can belong to filters, by their first word.
SECTIONS = frozenset({"firewall", "zone-policy", "nat", "nat66", "nat64"})
_WORD = re.compile(r"'[^']*'|\"(?:[^\"\\]|\\.)*\"|[^\s'\"]\S*")
_PROMPT = re.compile(r"^(?:\[edit[^\]]*\]|\S+@\S+[#$>].*)$")


class Node(dict[str, "Node"]):
    """What stands below a word. `line` is where the word stands first."""

    __slots__ = ("line",)

    def __init__(self, line: int = 0) -> None:
        self.line = line

    def child(self, word: str, line: int) -> Node:
        found = self.get(word)
        if found is None:
            found = self[word] = Node(line)
        return found

    def at(self, *path: str) -> Node:
        """What stands below a path, nothing where it does not exist."""
        node = self
        for word in path:
            found = node.get(word)
            if found is None:
                return NOTHING
            node = found
        return node

    def value(self, *path: str) -> str:
        """The one value below a path, "" where there is none."""
        return next(iter(self.at(*path)), "")


NOTHING = Node()


class Reading:
    """The tree of a text, what was not understood of it, and whether it ends in the middle of something."""

    def __init__(self, text: str) -> None:
        self.lines = text.split("\n")
        self.root = Node()
        self.doubts: list[Doubt] = []
        self.filter_lines = 0
        self.open = 0  # blocks that nobody closed
        self.unbalanced = 0  # the line where it shows that a brace is missing
        # Whatever stands before: a script of commands may begin with others.
        first = next((line for line in map(str.strip, self.lines) if line.startswith("set ") or line.endswith("{")), "")
        self.as_commands = first.startswith("set ")
        if self.as_commands:
            self._read_commands()
        else:
            self._read_braces()

    def _doubt(self, line: int, reason: str) -> None:
        self.doubts.append(Doubt(line, self.lines[line - 1].strip(), reason))

    def _read_commands(self) -> None:
        stem, base, section = "set ", self.root, False  # how lines begin that follow each other, and what it leads to
        strange: list[tuple[int, str]] = []
        ends: list[tuple[int, Node]] = []
        edited = False
        for number, line in enumerate(self.lines, 1):
            text = line.strip()
            if edited or not text.startswith("set ") or text.count("'") % 2:
                if text and not _aside(text):
                    self._doubt(number, "this line is no whole `set` command")
                    strange.append((number, text))
                    # Below `edit` a command does not say all of what it belongs to.
                    edited = text.startswith("edit ") or (edited and text not in ("top", "exit"))
                continue
            if stem == "set " or not text.startswith(stem):
                plain, quote, _ = text.partition("'")
                start = "set" if '"' in plain else plain.rsplit(None, 1 if quote else 2)[0]
                stem, base = text[: len(start) + 1], self.root
                for word in start.split()[1:]:
                    base = base.child(word, number)
                section = not SECTIONS.isdisjoint(split(text)[1:2])
            rest, node = text[len(stem) :], base
            for word in rest.split() if "'" not in rest and '"' not in rest else split(rest):
                node = node.child(word, number)
            if section:
                self.filter_lines += 1
                ends.append((number, node))
        self._cut_off(ends)
        for number, text in strange:
            self._spoil(number, split(text[4:] if text.startswith("set") else text.partition(" ")[2]))

    def _cut_off(self, ends: list[tuple[int, Node]]) -> None:
        """Lines that end where others go on: VyOS prints none such."""
        for number, node in ends:
            if node and "?" not in node:
                self._doubt(number, "this line is cut off, or others say more of the same")
                node.child("?", number)

    def _spoil(self, number: int, words: list[str]) -> None:
        """Put a `?` where a line that is no whole command seems to belong: what holds it is not understood then."""
        path = [self.root]
        for word in words:
            if word not in path[-1]:
                break
            path.append(path[-1][word])
        if len(path) > len(words):
            path.pop()  # the value itself
        # Beside a value nobody may look for a second one: so it stands above too.
        for node in path[-2:] if len(path) == len(words) else path[-1:]:
            if node is not self.root:
                node.child("?", number)

    def _read_braces(self) -> None:
        path = [self.root]
        ends: list[tuple[int, Node]] = []
        comment = section = False
        for number, line in enumerate(self.lines, 1):
            text = line.strip()
            if comment or text.startswith("/*"):
                comment = "*/" not in text
                continue
            if not text or text.startswith("//"):
                continue
            self.filter_lines += section
            if text == "}":
                if len(path) == 1:
                    self._doubt(number, "it closes a block that none opened")
                    self.unbalanced = number
                    continue
                path.pop()
                section = section and len(path) > 1
                continue
            opens = text.endswith("{")
            body = text[:-1] if opens else text
            words = split(body) if "'" in body or '"' in body else body.split()
            if not words or (len(path) == 1 and not opens) or text.endswith(";"):
                if not _aside(text):
                    self._doubt(number, "this line is no statement of VyOS")
                words = words or ["?"]
            node = path[-1]
            for word in words:
                node = node.child(word, number)
            if section and not opens:
                ends.append((number, node))
            if opens:
                if len(path) == 1:
                    section = words[0] in SECTIONS
                    self.filter_lines += section
                path.append(node)
        self._cut_off(ends)
        self.open = len(path) - 1 + comment
        if self.open:
            self.unbalanced = path[1].line if len(path) > 1 else len(self.lines)


def _aside(text: str) -> bool:
    """No part of the configuration: comments, and prompts that were copied along."""
    return text.startswith(("#", "//", "/*")) or bool(_PROMPT.match(text))


def split(text: str) -> list[str]:
    """The words of a line; what is quoted is one, without its quotes."""
    words = []
    for word in _WORD.findall(text):
        if word[0] == '"' and len(word) > 1 and word[-1] == '"':
            word = word[1:-1].replace('\\"', '"')
        elif word[0] == "'" and len(word) > 1:
            word = word[1:-1]
        words.append(word)
    return words


def commands(node: Node, path: Sequence[str] = ()) -> Iterator[str]:
    """The tree as `set` lines."""
    pending: list[tuple[Node, tuple[str, ...]]] = [(node, tuple(path))]
    while pending:
        here, words = pending.pop()
        if not here and words:
            yield " ".join(["set", *(quoted(word) for word in words)])
        pending += [(below, (*words, word)) for word, below in reversed(here.items())]


def quoted(word: str) -> str:
    """A word as a command takes it."""
    return word if re.fullmatch(r"[\w.:/@!,*+-]+", word) else "'" + word.replace("'", "") + "'"
