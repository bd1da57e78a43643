# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What IOS and EOS share: a configuration that lines act upon, and a session that types at it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from .ace import Address, Dialect, Entry, Rejected, read
from .indented import Block, drop, insert, parse, piped, render
from .judge import Packet
from .routers.base import Router, Session

Path = tuple[str, ...]  # the lines of the modes that are entered, the outermost first
Command = Callable[[list[str]], str]

_DIRECTION = {"up": "in", "down": "out"}


class Refusal(Exception):
    """The vendor's words for a line that is well-formed and yet not taken."""


class Configuration:
    """The lines of a configuration as a tree, and what a line typed in a mode does to it.

    A CLI overrides the tables: which words it knows where, and how it writes lists.
    """

    unit = " "
    lists: Mapping[str, Dialect]  # the words before a list's name
    bindings: Mapping[int, str]  # the words before the name on an interface, by family
    global_words: frozenset[str]  # commands, the first two words for those that begin with ip, ipv6 and aaa
    interface_words: frozenset[str]
    mode_words: frozenset[str]  # commands of all other modes
    openers: tuple[str, ...]  # commands that enter a mode of their own
    contiguous: tuple[str, ...] = ()  # kinds of lists that are printed without `!` between them
    interface_name: re.Pattern[str]
    order: tuple[str, ...]  # in which the lines of an interface are printed, by how they begin
    list_words: frozenset[str] = frozenset()  # lines of a list that are no entries
    ports: re.Pattern[str]  # interfaces that are hardware: they exist or they do not
    # Lines of which an interface (or another mode) has one; a new one replaces the old.
    single = (
        "description", "mtu", "bandwidth", "encapsulation", "ip mtu", "ip unnumbered", "ipv6 unnumbered", "path",
        "maximum", "hostname", "service-policy input", "service-policy output", "ip verify unicast source",
        "load-interval",
    )  # fmt: skip

    def __init__(self, text: str) -> None:
        self.root = parse(text)
        self._text = ""

    def text(self) -> str:
        """The lines as printed, with the `end`."""
        if not self._text:
            self._text = "\n".join([*render(self.root, self.unit), "end", ""])
        return self._text

    def touch(self) -> None:
        """The tree has changed."""
        self._text = ""

    def hostname(self) -> str:
        found = self.root.find("hostname")
        return found.line.split()[1] if found else "Router"

    def enter(self, path: Path, line: str) -> tuple[Path, bool]:
        """Act on a line typed in a mode; the mode then, and whether anything has changed.

        Raises Rejected and Refusal. What a mode does not know is tried in the modes around it, as the routers do.
        """
        for depth in range(len(path), 0, -1):
            changed = self._in_mode(path[:depth], line)
            if changed is not None:
                if isinstance(changed, str):
                    return (*path[:depth], changed), True
                if changed:
                    self.touch()
                return path[:depth], changed
        return self._global(line)

    def block(self, path: Path) -> Block:
        """The block of a mode; it is made where it is gone meanwhile."""
        here = self.root
        for line in path:
            found = next((child for child in here.children if child.line == line), None)
            if found is None:
                found = Block(line)
                if here is self.root:
                    self._insert(found)
                else:
                    here.children.append(found)
                self.touch()
            here = found
        return here

    def _insert(self, block: Block) -> None:
        kind = next((kind for kind in (*self.lists, "interface") if block.line.startswith(f"{kind} ")), "")
        insert(self.root, block, f"{kind} " if kind else block.line, kind not in self.contiguous)

    def _in_mode(self, path: Path, line: str) -> bool | str | None:
        """None when the mode does not know the line, a str when the line enters a mode below it."""
        negative, body = _negative(line)
        head = body.split()[0].lower()
        dialect = self.dialect(path[0])
        if dialect is not None:
            if head in ("permit", "deny", "remark", "sequence") or head.isdecimal():
                return self._entry(self.block(path), dialect, line)
            return self._set(self.block(path), negative, body) if head in self.list_words else None
        if path[0].startswith("interface "):
            two = " ".join(body.lower().split()[:2])
            if head not in self.interface_words and two not in self.interface_words:
                return None
            if any(two.startswith(bind) for bind in self.bindings.values()):
                return self._bind(self.block(path), line)
            return self._set(self.block(path), negative, body)
        if path[0].startswith("object-group network") and head[0].isdecimal():
            return self._set(self.block(path), negative, body)
        if head not in self.mode_words:
            return None
        if not negative and (head in ("class", "address-family") or body.lower() == "log config"):
            self.block((*path, body))
            return body
        return self._set(self.block(path), negative, body)

    def dialect(self, header: str) -> Dialect | None:
        """How the entries of the list with this header are written; None when it is no such list."""
        kind, _, name = header.rpartition(" ")
        return self.lists.get(kind) if name else None

    def _entry(self, block: Block, dialect: Dialect, line: str) -> bool:
        negative, body = _negative(line)
        there = {entry.number: entry for entry in self.entries(block, dialect)}
        if negative and body.split()[-1].isdecimal() and len(body.split()) <= 2:
            number = int(body.split()[-1])
            if number not in there:
                raise Refusal(self.no_such_number())
            return self._replace(block, dialect, [one for one in there.values() if one.number != number])
        try:
            entry = read(body, dialect)
        except Rejected as rejected:
            moved = None if rejected.position is None else rejected.position + len(line) - len(body)
            raise Rejected(moved) from None
        alike = [one for one in there.values() if one.text == entry.text and entry.action != "remark"]
        if negative:
            return bool(alike) and self._replace(block, dialect, [one for one in there.values() if one not in alike])
        if alike:
            return False
        if entry.number in there:
            raise Refusal(self.duplicate_number())
        number = entry.number or max(there, default=0) + 10
        place = len(block.children) - sum(one > number for one in there)
        block.children.insert(place, Block(self._numbered(dialect, number, entry.text)))
        return True

    def _numbered(self, dialect: Dialect, number: int, text: str) -> str:
        return f"{dialect.sequence} {number} {text}".lstrip()

    def _replace(self, block: Block, dialect: Dialect, entries: list[Entry]) -> bool:
        kept = [child for child in block.children if child.line.split()[0] in self.list_words]
        block.children = kept + [Block(self._numbered(dialect, entry.number, entry.text)) for entry in entries]
        return True

    def entries(self, block: Block, dialect: Dialect) -> list[Entry]:
        """The entries of a list, in order."""
        return [read(child.line, dialect) for child in block.children if child.line.split()[0] not in self.list_words]

    def duplicate_number(self) -> str:
        return "% Duplicate sequence number\n"

    def no_such_number(self) -> str:
        return "% No such sequence number\n"

    def _bind(self, block: Block, line: str) -> bool:
        """ip access-group NAME in|out and their like, with or without `no`."""
        words = line.split()
        negative = words[0].lower() == "no"
        rest = words[3:] if negative else words[2:]
        command = " ".join(words[1:3] if negative else words[:2]).lower()
        if command not in self.bindings.values():
            raise Rejected(line.lower().index(command.split()[1]))
        name = rest[0] if len(rest) == 2 else ""
        if not rest or (len(rest) == 1 and not (negative and rest[0] in ("in", "out"))):
            raise Rejected(None)
        direction = rest[-1].lower()
        if len(rest) > 2 or direction not in ("in", "out"):
            raise Rejected(line.rindex(rest[2] if len(rest) > 2 else rest[-1]))
        old = next((child for child in block.children if self._bound(child.line, command, direction)), None)
        if negative:
            if old is None or name not in ("", old.line.split()[2]):
                return False
            block.children.remove(old)
            return True
        wanted = f"{command} {name} {direction}"
        if old is not None:
            changed, old.line = old.line != wanted, wanted
            return changed
        self._place(block, wanted)
        return True

    @staticmethod
    def _bound(line: str, command: str, direction: str) -> bool:
        return line.startswith(f"{command} ") and line.endswith(f" {direction}")

    def _place(self, block: Block, line: str) -> None:
        """Put a line of an interface where the vendor prints it."""
        wanted = self._rank(line)
        before = [index for index, child in enumerate(block.children) if self._rank(child.line) <= wanted]
        block.children.insert(max(before, default=-1) + 1, Block(line))

    def _rank(self, line: str) -> tuple[int, bool]:
        places = [index for index, start in enumerate(self.order) if line.startswith(f"{start} ") or line == start]
        return (places[0], line.endswith(" out")) if places else (len(self.order), False)

    def _set(self, block: Block, negative: bool, body: str) -> bool:
        body = re.sub(r"\s+", " ", body)
        if negative:
            kept = [child for child in block.children if child.line != body and not child.line.startswith(f"{body} ")]
            changed = len(kept) != len(block.children)
            block.children = kept
            return changed
        if any(child.line == body for child in block.children):
            return False
        start = next((one for one in self.single if body.startswith(f"{one} ")), "")
        old = block.find(start) if start else None
        if old is not None:
            old.line = body
        else:
            block.children.append(Block(body))
        return True

    def _global(self, line: str) -> tuple[Path, bool]:
        negative, body = _negative(line)
        words = body.split()
        head = words[0].lower()
        offset = len(line) - len(body)
        if head in ("ip", "ipv6", "aaa") and len(words) == 1:
            raise Rejected(None)
        known = f"{head} {words[1].lower()}" if head in ("ip", "ipv6", "aaa") else head
        if known not in self.global_words:
            raise Rejected(offset + (body.index(words[1], len(words[0])) if " " in known else 0))
        header = self._header(words, offset, body, negative)
        if header:
            there = next((child for child in self.root.children if child.line == header), None)
            if negative:
                if there is not None:
                    drop(self.root, there)
                    self.touch()
                return (), there is not None
            self.block((header,))
            return (header,), there is None
        changed = self._set(self.root, negative, body)
        if changed:
            self.touch()
        return (), changed

    def _header(self, words: list[str], offset: int, body: str, negative: bool) -> str:
        """The line of the mode that the words enter, '' when they enter none."""
        head = words[0].lower()
        if head == "interface":
            if len(words) == 1:
                raise Rejected(None)
            name = self.interface("".join(words[1:]))
            there = self.root.find(f"interface {name}") if name else None
            if not name or (there is None and not negative and not self._may_exist(name)):
                raise Rejected(offset + body.index(words[1], len(head)))
            return f"interface {name}"
        for kind in sorted(self.lists, key=len, reverse=True):
            size = len(kind.split())
            if [word.lower() for word in words[:size]] == kind.split():
                if len(words) == size:
                    raise Rejected(None)
                if len(words) > size + 1:
                    raise Rejected(offset + body.rindex(words[size + 1]))
                return self.list_header(kind, words[size])
        if re.match("|".join(self.openers), body.lower()):
            return re.sub(r"\s+", " ", body)
        return ""

    def list_header(self, kind: str, name: str) -> str:
        """The header of a list; raises Refusal when another kind of list has the name."""
        return f"{kind} {name}"

    def interface(self, typed: str) -> str:
        """The whole name of an interface that is typed short or in other case, '' when there is no such kind."""
        found = re.fullmatch(r"([A-Za-z-]+)([\d/.:]*)", typed)
        if not found:
            return ""
        kinds = [kind for kind in self.interface_name.pattern.split("|") if kind.lower().startswith(found[1].lower())]
        return f"{kinds[0]}{found[2]}" if kinds and found[2] else ""

    def _may_exist(self, name: str) -> bool:
        port = name.partition(".")[0]
        return not self.ports.match(name) or ("." in name and self.root.find(f"interface {port}") is not None)

    def judge(self, attachment: str, direction: str, packet: Packet) -> str:
        """See Router.judge."""
        block = next((child for child in self.root.children if child.line == f"interface {attachment}"), None)
        if block is None:
            raise KeyError(f"{self.hostname()} has no interface {attachment}")
        command = self.bindings[packet.family]
        bound = (child.line for child in block.children if self._bound(child.line, command, _DIRECTION[direction]))
        name = next((line.split()[2] for line in bound), "")
        verdict = self.verdict(name, packet) if name else "permit"
        return verdict if verdict == "deny" or direction == "down" else self.source_check(block, packet)

    def verdict(self, name: str, packet: Packet) -> str:
        """What the list says about a packet; a list that is missing or empty permits."""
        entries: list[Entry] = []
        for child in self.root.children:
            dialect = self.dialect(child.line)
            if dialect is not None and dialect.family == packet.family and child.line.split()[-1] == name:
                entries = self.entries(child, dialect)
        if not any(entry.action != "remark" for entry in entries):
            return "permit"
        for entry in entries:
            if entry.matches(packet, self.group):
                return entry.action
        return self.implicit(packet)

    def implicit(self, packet: Packet) -> str:
        """Behind the last entry."""
        return "deny"

    def group(self, name: str) -> tuple[Address, ...]:
        """The addresses of an object-group."""
        return ()

    def source_check(self, interface: Block, packet: Packet) -> str:
        """Strict unicast RPF, where the interface has it."""
        return "permit"


def _negative(line: str) -> tuple[bool, str]:
    """Whether the line begins with `no`, and the rest of it."""
    found = re.match(r"\s*no\s+(?=\S)", line, re.IGNORECASE)
    return (True, line[found.end() :]) if found else (False, line.lstrip())


def known(text: str) -> frozenset[str]:
    """A table of commands, written with commas."""
    return frozenset(text.split(", "))


def abbreviates(typed: list[str], pattern: str) -> list[str] | None:
    """The words in place of each `*` (`**`: all the rest), None when they are no short form of the pattern."""
    arguments: list[str] = []
    wanted = pattern.split()
    for index, word in enumerate(wanted):
        if word == "**":
            return arguments + typed[index:]
        if index >= len(typed):
            return None
        if word == "*":
            arguments.append(typed[index])
        elif not word.startswith(typed[index].lower()):
            return None
    return arguments if len(typed) == len(wanted) else None


class IndentedSession(Session):
    """A login at IOS or EOS: user and privileged mode, then the configuration modes."""

    user_commands: tuple[str, ...]  # patterns that need no privilege

    def __init__(self, router: Router) -> None:
        super().__init__(router)
        self.privileged = not router.enable_secret
        self.mode: Path | None = None  # None: no configuration mode
        self._asks_secret = 0

    @property
    def secret(self) -> bool:
        return self._asks_secret > 0

    @property
    def configuring(self) -> bool:
        return self.mode is not None

    def commands(self) -> Mapping[str, Command]:
        """What each pattern of the exec mode does with its arguments."""
        raise NotImplementedError

    def configure(self, line: str) -> str:
        """A line of a configuration mode that is neither exit nor end."""
        raise NotImplementedError

    def is_protocol(self, line: str) -> bool:
        return bool(re.match(r"\s*(end|exit|do|show|commit|abort|!)\b|\s*!", line))

    def rejection(self, line: str) -> str:
        return self.invalid(line, len(line) - len(line.lstrip()))

    def invalid(self, line: str, position: int) -> str:
        """The vendor's words for a line that is wrong at this column."""
        raise NotImplementedError

    def incomplete(self, line: str) -> str:
        """The vendor's words for a line that ends too early."""
        raise NotImplementedError

    def interrupt(self, key: str) -> str:
        if self._asks_secret:
            self._asks_secret = 0
        elif key == "z":
            self.leave()
        return ""

    def leave(self) -> None:
        """Back to the exec mode."""
        self.mode = None

    def command(self, line: str) -> str:
        if self._asks_secret:
            return self._password(line)
        words = line.split()
        if not words or words[0].startswith("!"):
            return ""
        if self.mode is None:
            return self.exec(line)
        if words[0].lower() == "do" and len(words) > 1:
            return self.exec(line.lstrip()[2:].lstrip())
        if abbreviates(words, "end") is not None and len(words[0]) > 1:
            self.leave()
            return ""
        if abbreviates(words, "exit") is not None and len(words[0]) > 1:
            if self.mode:
                self.mode = self.mode[:-1]
            else:
                self.leave()
            return ""
        try:
            return self.configure(line)
        except Rejected as rejected:
            return self.incomplete(line) if rejected.position is None else self.invalid(line, rejected.position)
        except Refusal as refusal:
            return str(refusal)

    def exec(self, line: str) -> str:
        """A command of the exec mode."""
        head, _, pipe = line.partition("|")
        words = head.split()
        for pattern, act in self.commands().items():
            arguments = abbreviates(words, pattern)
            if arguments is None or not (self.privileged or pattern in self.user_commands):
                continue
            output = act(arguments)
            if not pipe:
                return output
            kept = piped(output, pipe)
            return self.invalid(line, line.index("|") + 2) if kept is None else kept
        return self.invalid(line, len(line) - len(line.lstrip()))

    def enable(self, _: list[str]) -> str:
        if not self.privileged:
            self._asks_secret = self.secret_tries()
        return ""

    def secret_tries(self) -> int:
        """How often a wrong enable secret may be given."""
        return 3

    def _password(self, line: str) -> str:
        if line == self.router.enable_secret:
            self._asks_secret, self.privileged = 0, True
            return ""
        self._asks_secret -= 1
        return "" if self._asks_secret else self.bad_secret()

    def bad_secret(self) -> str:
        return "% Bad secrets\n\n"

    def disable(self, _: list[str]) -> str:
        self.privileged = False
        return ""

    def logout(self, _: list[str]) -> str:
        self.closed = True
        return ""

    @property
    def prompt(self) -> str:
        if self._asks_secret:
            return "Password: "
        mark = "#" if self.privileged else ">"
        if self.mode is None:
            return f"{self.name()}{mark}"
        return f"{self.name()}({self.mode_text()})#"

    def name(self) -> str:
        raise NotImplementedError

    def mode_text(self) -> str:
        raise NotImplementedError
