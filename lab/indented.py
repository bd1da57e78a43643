# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Configurations whose indentation is their structure, and what IOS and EOS do alike with them."""

from __future__ import annotations

import re
from collections.abc import Iterator

_LAST = ("line ", "control-plane")  # what stands behind all lists
_PIPES = ("include", "exclude", "begin", "section", "count")


class Block:
    """A line with the lines of its mode below it."""

    __slots__ = ("children", "line")

    def __init__(self, line: str) -> None:
        self.line = line
        self.children: list[Block] = []

    def find(self, start: str) -> Block | None:
        """The first child whose line is `start` or goes on behind it with a space."""
        return next((child for child in self.children if f"{child.line} ".startswith(f"{start} ")), None)


def parse(text: str) -> Block:
    """The tree of a printed configuration; its root has no line. `!` lines stay where they are; `end` ends it."""
    root = Block("")
    stack = [(-1, root)]
    delimiter = ""
    for line in text.splitlines():
        if delimiter:
            stack[-1][1].line += f"\n{line}"
            delimiter = "" if delimiter in line else delimiter
            continue
        if line == "end":
            break
        stripped = line.strip()
        if not stripped:
            continue
        depth = len(line) - len(line.lstrip())
        while stack[-1][0] >= depth:
            stack.pop()
        block = Block(stripped)
        stack[-1][1].children.append(block)
        stack.append((depth, block))
        # A banner goes on until its delimiter comes again, whatever its lines look like.
        if not line.startswith("banner "):
            continue
        if banner := re.match(r"banner \S+ (\^C|\S)", line):
            delimiter = banner[1] if banner[1] not in line[banner.end() :] else ""
        elif re.match(r"banner \S+$", line):
            delimiter = "EOF"
    return root


def render(block: Block, unit: str, indent: str = "") -> Iterator[str]:
    """The lines below a block."""
    for child in block.children:
        yield indent + child.line
        if child.children:
            yield from render(child, unit, indent + unit)


def drop(root: Block, block: Block) -> None:
    """Take a top-level block away, and its `!` where another stands before it."""
    place = root.children.index(block)
    del root.children[place]
    if 0 < place < len(root.children) and root.children[place - 1].line == root.children[place].line == "!":
        del root.children[place]


def insert(root: Block, block: Block, kind: str, separate: bool) -> None:
    """Put a top-level block among those whose lines begin with `kind`, in the order of their names, or at the end.

    `separate`: with `!` between it and its neighbours.
    """
    alike = [child for child in root.children if child.line.startswith(kind)]
    after = [child for child in alike if child.line <= block.line]
    if after:
        place = root.children.index(after[-1]) + 1
        if place < len(root.children) and root.children[place].line == "!":
            place += separate
    elif alike:
        place = root.children.index(alike[0])
    else:
        lines = [child.line for child in root.children]
        place = next((index for index, line in enumerate(lines) if line.startswith(_LAST)), len(lines))
    root.children.insert(place, block)
    if (separate or not alike) and (place + 1 == len(root.children) or root.children[place + 1].line != "!"):
        root.children.insert(place + 1, Block("!"))


def piped(text: str, pipe: str, section_indent: str = " ") -> str | None:
    """`text` behind `| include x`, `exclude`, `begin`, `section` or `count`; None when the pipe is none of them."""
    operator, _, pattern = pipe.strip().partition(" ")
    operator = next((name for name in _PIPES if name.startswith(operator)), "")
    try:
        wanted = re.compile(pattern.strip().strip('"'))
    except re.error:
        return None
    if not operator or not pattern:
        return None
    lines = text.splitlines(keepends=True)
    if operator == "begin":
        start = next((index for index, line in enumerate(lines) if wanted.search(line)), len(lines))
        return "".join(lines[start:])
    if operator == "section":
        kept, inside = [], False
        for line in lines:
            if not line.startswith(section_indent):
                inside = bool(wanted.search(line)) and line.strip() not in ("!", "")
            elif wanted.search(line):
                inside = True
            if inside:
                kept.append(line)
        return "".join(kept)
    kept = [line for line in lines if bool(wanted.search(line)) == (operator != "exclude")]
    if operator == "count":
        return f"Number of lines which match regexp = {len(kept)}\n"
    return "".join(kept)
