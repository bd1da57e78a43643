# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A Junos router: operational and configuration mode, one candidate, commit confirmed, rollback.

Source of the words it prints: Junos CLI User Guide (configure, configure exclusive, commit, commit confirmed, load,
rollback, compare, pipes). Texts marked [memory] rest on memory.
"""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass

from .. import junos_tree as tree
from ..clock import Timer
from ..judge import Packet
from ..judges import juniper_junos as judge
from ..junos_tree import RefusedError, Word
from .base import Router, Session

KEPT = 50  # rollback 0 to 49
PROTOCOL = frozenset(
    "activate annotate commit compare edit exit help load quit rollback run save show status top up".split()
)
BARE = frozenset({"exit", "quit", "commit", "rollback", "top", "up", "status"})
UNCOMMITTED = "The configuration has been changed but not committed\n"


@dataclass(frozen=True)
class Committed:
    """A configuration that was active, as in `show system commit`."""

    configuration: Word
    when: datetime.datetime
    who: str
    note: str = ""


class JunosSession(Session):
    router: Device

    def __init__(self, router: Router) -> None:
        super().__init__(router)
        self.user = "audit"
        self.number = len(router.sessions)
        self.since = datetime.datetime.now(datetime.UTC)
        self.mode = ""  # '', 'shared' or 'exclusive'
        self.level: list[str] = []  # the edit level
        self.question = ""
        self.loading = ""  # what is being loaded from the terminal: 'set', 'merge', 'replace', 'override'
        self.loaded: list[str] = []
        self.notices: list[str] = []

    # --- The terminal

    @property
    def banner(self) -> str:
        return "--- JUNOS 21.4R3-S5.4 Kernel 64-bit  JNPR-12.1-20230711.c5ad4c7_buil\n"

    @property
    def prompt(self) -> str:
        if self.loading:
            return ""
        if self.question:
            return self.question
        notices, self.notices = "".join(self.notices), []
        if not self.mode:
            return f"{notices}\n{self.head}> "
        pending = self.router.pending
        if pending is not None:
            minutes = max(1, round((pending.due - self.router.clock.now()) / 60))
            notices += f"\n# commit confirmed will be rolled back in {minutes} minute{'s' if minutes > 1 else ''}"
        return f"{notices}\n[edit{''.join(f' {tree.quote(text)}' for text in self.level)}]\n{self.head}# "

    @property
    def head(self) -> str:
        return f"{self.user}@{self.router.host_name}"

    @property
    def configuring(self) -> bool:
        return bool(self.mode)

    def is_protocol(self, line: str) -> bool:
        if self.question:
            return True
        if self.loading:
            return line.strip() in ("", "\x04")
        return line.split()[0] in PROTOCOL - {"activate"}

    def rejection(self, line: str) -> str:
        if self.loading:
            self.loaded.append("\x00")
            return f"terminal:{len(self.loaded)}:({len(line)}) syntax error: {line.strip()}\n"
        return self.caret(line, len(line.split())) + "syntax error.\n"

    def caret(self, line: str, position: int) -> str:
        """The mark below the word at fault, or behind the last."""
        starts = [found.start() for found in re.finditer(r"\S+", line)]
        column = starts[position] if position < len(starts) else len(line.rstrip())
        return " " * (len(self.head) + 2 + column) + "^\n"

    def refuse(self, line: str, position: int, message: str) -> str:
        if message.startswith("error: "):
            return (
                f"{message}: {line.split()[position]}\n"
                if position < len(line.split()) and message.endswith(":")
                else f"{message}\n"
            )
        return self.caret(line, position) + message + "\n"

    def interrupt(self, key: str) -> str:
        if self.loading and key == "d":
            return self.finish_load()
        self.loading, self.loaded, self.question = "", [], ""
        return ""

    def hang_up(self) -> None:
        with self.router.clock.lock:
            self.leave()
            self.closed = True

    def command(self, line: str) -> str:
        if self.loading:
            if "\x04" not in line:
                self.loaded.append(line)
                return ""
            if line.partition("\x04")[0].strip():
                self.loaded.append(line.partition("\x04")[0])
            return self.finish_load()
        if self.question:
            return self.answer(line)
        typed, _, pipe = line.partition(" | ") if not line.lstrip().startswith(("set ", "delete ")) else (line, "", "")
        words = tree.words(typed)
        if not words:
            return ""
        try:
            output = (
                self.configuration_command(words, typed, pipe) if self.mode else self.operational(words, typed, pipe)
            )
        except RefusedError as refused:
            return self.refuse(line, refused.position, refused.message)
        return output

    # --- Operational mode

    def operational(self, words: list[str], line: str, pipe: str) -> str:
        router = self.router
        first = words[0]
        if first in ("exit", "quit", "logout"):
            self.closed = True
            return ""
        if first == "set" and words[1:2] == ["cli"]:
            return self.terminal(words)
        if first == "show" and words[1:2] in (["configuration"], ["config"]):
            return self.show_configuration(router.active, words[2:], pipe, 2, True)
        if first == "show" and len(words) > 1:
            shown = self.status_of(words[1:])
            if shown is None:
                raise RefusedError("syntax error, expecting <command>.", 1)
            return self.piped(shown, pipe)
        if first in ("configure", "edit"):
            return self.configure(words[1:])
        if first in ("show", "set", "clear", "request", "ping", "monitor"):
            raise RefusedError("syntax error, expecting <command>.", min(1, len(words) - 1))
        raise RefusedError("unknown command.", 0)

    def terminal(self, words: list[str]) -> str:
        option, setting = [*words[2:4], "", ""][:2]
        if option in ("screen-width", "screen-length") and setting.isdecimal():
            return f"Screen {option[7:]} set to {setting}\n"
        if option == "complete-on-space" and setting in ("on", "off"):
            return f"{'Enabling' if setting == 'on' else 'Disabling'} complete-on-space\n"
        if option == "timestamp" and setting == "disable":
            return "CLI timestamp disabled\n"
        raise RefusedError("syntax error, expecting <command>.", min(2, len(words) - 1))

    def status_of(self, words: list[str]) -> str | None:
        router = self.router
        if words == ["version"]:
            return (
                f"Hostname: {router.host_name}\nModel: mx204\nJunos: 21.4R3-S5.4\nJUNOS OS Kernel 64-bit  [20230711]\n"
            )
        if words == ["system", "commit"]:
            return "".join(
                f"{number:<4d}{done.when:%Y-%m-%d %H:%M:%S} UTC by {done.who} via cli{done.note}\n"
                for number, done in enumerate(router.history)
            )
        if words == ["cli", "authorization"]:
            return f"Current user: '{self.user}' login: '{self.user}' class 'super-user'\n"
        if words[:3] == ["system", "rollback", "compare"] and len(words) == 5:
            old, new = router.version(words[3]), router.version(words[4])
            return "".join(f"{line}\n" for line in tree.compare(old, new))
        return None

    def show_configuration(self, root: Word, path: list[str], pipe: str, offset: int, operational: bool) -> str:
        try:
            found = tree.find(root, path)
        except RefusedError as refused:
            raise RefusedError("syntax error.", refused.position + offset) from None
        parts = [part.strip() for part in pipe.split(" | ")] if pipe else []
        if parts and parts[0].startswith("compare"):
            old = self.router.version(parts[0].split()[-1] if "rollback" in parts[0] else "0")
            shown = "".join(f"{line}\n" for line in tree.compare(old, root))
            return self.piped(shown, " | ".join(parts[1:]))
        if found is None:
            return ""
        if "display set" in parts:
            shown = "".join(f"{line}\n" for line in tree.set_lines(found, tuple(path)))
        else:
            shown = "".join(f"{line}\n" for line in tree.lines(found))
            if operational and not path:
                last = self.router.history[0]
                shown = f"## Last commit: {last.when:%Y-%m-%d %H:%M:%S} UTC by {last.who}\n{shown}"
        return self.piped(
            shown, " | ".join(part for part in parts if part not in ("display set", "display inheritance"))
        )

    def piped(self, text: str, pipe: str) -> str:
        for part in filter(None, pipe.split(" | ")):
            verb, _, pattern = part.strip().partition(" ")
            pattern = pattern.strip('"')
            rows = text.splitlines(keepends=True)
            if verb in ("match", "except") and pattern:
                wanted = re.compile(pattern, re.IGNORECASE)
                text = "".join(row for row in rows if bool(wanted.search(row)) == (verb == "match"))
            elif verb == "count":
                text = f"Count: {len(rows)} lines\n"
            elif verb == "last":
                text = "".join(rows[-int(pattern or 10) :])
            elif verb != "no-more":
                raise RefusedError("syntax error, expecting <command>.", 99)
        return text

    def configure(self, how: list[str]) -> str:
        router = self.router
        if how not in ([], ["exclusive"]):
            raise RefusedError("syntax error, expecting <command>.", 1)
        if how:
            others = [other for other in router.editors() if other.mode == "exclusive"]
            if others:
                return "error: configuration database locked by:\n" + "".join(other.who() for other in others)
            if router.modified:
                return "error: configuration database modified\n"
        output = "warning: uncommitted changes will be discarded on exit\n" if how else ""
        output += "Entering configuration mode\n"
        if others := router.editors():
            output += "Users currently editing the configuration:\n" + "".join(other.who() for other in others)
        if router.modified:
            output += UNCOMMITTED
        self.mode = "exclusive" if how else "shared"
        return output

    def who(self) -> str:
        exclusive = "exclusive " if self.mode == "exclusive" else ""
        level = "".join(f" {text}" for text in self.level)
        return (
            f"  {self.user} terminal pts/{self.number} (pid {20000 + self.number}) on since "
            f"{self.since:%Y-%m-%d %H:%M:%S} UTC, idle 00:00:07\n      {exclusive}[edit{level}]\n"
        )

    # --- Configuration mode

    def configuration_command(self, words: list[str], line: str, pipe: str) -> str:
        router = self.router
        first, rest = words[0], words[1:]
        if (
            first in BARE - {"commit", "rollback"}
            and rest
            and not (first in ("exit", "quit") or first == "up" or first == "top")
        ):
            raise RefusedError("syntax error.", 1)
        if first in ("set", "delete", "deactivate", "activate", "insert"):
            return self.edit_candidate(first, rest, line)
        if first in ("exit", "quit"):
            if self.level and rest != ["configuration-mode"]:
                self.level = []
                return ""
            return self.ask_to_leave()
        if first == "top":
            self.level = []
            return self.configuration_command(rest, line, pipe) if rest else ""
        if first == "up":
            self.level = self.level[: -self.statement_length()]
            return ""
        if first == "edit":
            tree.rule_at([*self.level, *rest])
            self.level = [*self.level, *rest]
            return ""
        if first == "show":
            return self.show_configuration(router.candidate, [*self.level, *rest], pipe, 1, False)
        if first == "run":
            return self.operational(rest, line, pipe) if rest else ""
        if first == "status":
            return "Users currently editing the configuration:\n" + "".join(other.who() for other in router.editors())
        if first == "rollback":
            number = rest[0] if rest else "0"
            if not number.isdecimal() or int(number) >= KEPT or len(rest) > 1:
                raise RefusedError("syntax error.", 1)
            if int(number) >= len(router.history):
                return f"error: could not open configuration database during rollback {number}\n"  # [memory]
            router.candidate = router.version(number).copy()
            return "load complete\n"
        if first == "commit":
            return self.commit(rest)
        if first == "load":
            return self.start_load(rest)
        raise RefusedError("unknown command.", 0)

    def statement_length(self) -> int:
        """Words of the innermost statement of the edit level: `up` leaves a whole one."""
        for length in range(1, len(self.level)):
            word = tree.find(self.router.candidate, self.level[:-length])
            if word is not None and word.block:
                return length
        return len(self.level)

    def edit_candidate(self, verb: str, rest: list[str], line: str) -> str:
        router = self.router
        path = [*self.level, *rest]
        try:
            if verb == "set":
                tree.add(router.candidate, path, len(self.level))
            elif verb == "delete":
                if not rest and self.level == []:
                    raise RefusedError("missing argument.", 0)
                if not tree.remove(router.candidate, path):
                    return "warning: statement not found\n"
            elif verb == "insert":
                self.insert(rest)
            else:
                tree.rule_at(path)
                found = tree.find(router.candidate, path)
                if found is None:
                    return "warning: statement not found\n"
                found.inactive = verb == "deactivate"
        except RefusedError as refused:
            raise RefusedError(refused.message, refused.position - len(self.level) + 1) from None
        finally:
            router.modified = True
        return ""

    def insert(self, rest: list[str]) -> None:
        """insert PATH before|after NAME [the word of the last statement, as `term`, may stand before the name]."""
        where = next((index for index, text in enumerate(rest) if text in ("before", "after")), None)
        if where is None or where == len(rest) - 1:
            raise RefusedError("missing argument.", len(self.level) + len(rest))
        path, other = [*self.level, *rest[:where]], rest[-1]
        parent = tree.find(self.router.candidate, path[:-1])
        if parent is None or path[-1] not in parent.children or other not in parent.children:
            raise RefusedError("error: statement not found", len(self.level) + where)
        moved = parent.children.pop(path[-1])
        order = list(parent.children.items())
        index = list(parent.children).index(other) + (rest[where] == "after")
        order.insert(index, (path[-1], moved))
        parent.children = dict(order)

    def ask_to_leave(self) -> str:
        if self.router.modified and self.router.differs():
            if self.mode == "exclusive":
                self.question = "Discard uncommitted changes? [yes,no] (yes) "
                return UNCOMMITTED + "warning: Auto rollback on exiting 'configure exclusive'\n"
            self.question = "Exit with uncommitted changes? [yes,no] (yes) "
            return UNCOMMITTED
        self.leave()
        return "Exiting configuration mode\n"

    def answer(self, line: str) -> str:
        question, self.question = self.question, ""
        if line.strip() not in ("", "y", "yes"):
            return ""
        discards = question.startswith("Discard")
        self.leave()
        return (
            "warning: discarding uncommitted changes\nload complete\n" if discards else ""
        ) + "Exiting configuration mode\n"

    def leave(self) -> None:
        """Out of configuration mode; what was changed in exclusive mode and not committed is gone."""
        if self.mode == "exclusive":
            self.router.discard()
        elif self.mode and not self.router.differs():
            self.router.modified = False
        self.mode, self.level, self.question, self.loading, self.loaded = "", [], "", "", []

    def start_load(self, rest: list[str]) -> str:
        if len(rest) != 2 or rest[0] not in ("set", "merge", "replace", "override") or rest[1] != "terminal":
            raise RefusedError("syntax error.", min(1, len(rest)))
        self.loading, self.loaded = rest[0], []
        return "[Type ^D at a new line to end input]\n"

    def finish_load(self) -> str:
        router = self.router
        how, lines = self.loading, self.loaded
        self.loading, self.loaded = "", []
        errors: list[str] = []
        if how == "set":
            for number, line in enumerate(lines, start=1):
                words = tree.words(line)
                if not words or words[0].startswith("#") or line == "\x00":
                    errors += [""] if line == "\x00" else []
                    continue
                try:
                    if words[0] not in ("set", "delete", "activate", "deactivate", "insert"):
                        raise RefusedError("unknown command.", 0)
                    self.edit_candidate(words[0], words[1:], line)
                except RefusedError as refused:
                    message = refused.message.removeprefix("error: ").rstrip(".")
                    word = [*words, "newline"][min(refused.position, len(words))]
                    errors.append(f"terminal:{number}:({max(line.find(word), 0)}) {message}: {word}\n")
        else:
            try:
                loaded = tree.parse("\n".join(line for line in lines if line != "\x00"))
            except ValueError as error:
                errors.append(f"{error}\n")
            else:
                errors += [f"{message}\n" for message in tree.check(loaded)] + ["" for line in lines if line == "\x00"]
                if not errors:
                    if how == "override":
                        router.candidate = Word(block=True)
                    level = tree.find(router.candidate, self.level) or router.candidate
                    tree.merge(level, loaded, how == "replace")
                    tree.shape(router.candidate, ())
                    router.modified = True
        done = f"load complete ({len(errors)} errors)\n" if errors else "load complete\n"
        return "".join(errors) + done

    def commit(self, how: list[str]) -> str:
        router = self.router
        if any(other.mode == "exclusive" for other in router.editors() if other is not self):
            return "error: configuration database locked by:\n" + "".join(
                other.who() for other in router.editors() if other.mode == "exclusive"
            )
        minutes = 0
        words = list(how)
        checking = words[:1] == ["check"]
        if checking:
            words.pop(0)
        elif words[:1] == ["confirmed"]:
            words.pop(0)
            minutes = 10
            if words and words[0] not in ("comment", "and-quit"):
                if not words[0].isdecimal():
                    raise RefusedError("syntax error.", 2)
                minutes = int(words.pop(0))
                if not 1 <= minutes <= 65535:
                    return f"error: Value {minutes} is not within range (1..65535)\n"  # [memory]
        comment = ""
        if words[:1] == ["comment"] and len(words) > 1:
            comment = words[1]
            words = words[2:]
        and_quit = words == ["and-quit"]
        if words and not and_quit:
            raise RefusedError("syntax error.", 1 + len(how) - len(words))
        if problems := router.problems():
            return problems + "error: configuration check-out failed\n"
        if checking:
            router.confirm()
            return "configuration check succeeds\n"
        router.commit(self.user, minutes, comment)
        output = ""
        if minutes:
            output = f"commit confirmed will be automatically rolled back in {minutes} minutes unless confirmed\n"
        output += "commit complete\n"
        if and_quit:
            self.leave()
            output += "Exiting configuration mode\n"
        return output


class Device(Router):
    session_class = JunosSession

    def __init__(self, name: str, text: str, enable_secret: str = "") -> None:
        super().__init__(name, text, enable_secret)
        self.active = tree.parse(text)
        self.candidate = self.active.copy()
        self.modified = False
        self.pending: Timer | None = None
        self._fallback: Word | None = None
        commits = datetime.datetime(2026, 11, 17, 9, 41, 12, tzinfo=datetime.UTC)
        self.history = [Committed(self.active, commits, "noc")]

    @property
    def host_name(self) -> str:
        return next((text for text, _ in self.active.below("system", "host-name")), "Amnesiac")

    def editors(self) -> list[JunosSession]:
        return [session for session in self.sessions if isinstance(session, JunosSession) and session.mode]

    def differs(self) -> bool:
        return list(tree.lines(self.candidate)) != list(tree.lines(self.active))

    def discard(self) -> None:
        self.candidate, self.modified = self.active.copy(), False

    def version(self, number: str) -> Word:
        return self.history[int(number)].configuration

    def problems(self) -> str:
        """What `commit check` has against the candidate, in its words ('' when nothing)."""
        candidate = self.candidate
        found: list[str] = []
        for path, unit in units(candidate):
            for family, version in (("inet", 4), ("inet6", 6)):
                for side in ("input", "output", "input-list", "output-list"):
                    for name, _ in unit.below("family", family, "filter", side):
                        if judge.firewall(candidate, version, name) is None:
                            where = " ".join((*path, "family", family))
                            found.append(f"[edit {where}]\n  'filter'\n    Referenced filter '{name}' is not defined\n")
        for where, version, _, term in terms(candidate):
            for name, _ in term.below("filter"):
                if judge.firewall(candidate, version, name) is None:
                    found.append(f"[edit {where}]\n  'filter {name}'\n    Referenced filter '{name}' is not defined\n")
            for kind in ("prefix-list", "source-prefix-list", "destination-prefix-list"):
                for name, _ in term.below("from", kind):
                    if candidate.get("policy-options", "prefix-list", name) is None:
                        reason = f"Referenced prefix-list '{name}' is not defined"
                        found.append(f"[edit {where} from]\n  '{kind} {name}'\n    {reason}\n")
            if term.get("from", "port") and (term.get("from", "source-port") or term.get("from", "destination-port")):
                found.append(
                    f"[edit {where} from]\n  'port'\n    port cannot be used with source-port or destination-port\n"
                )  # [memory]
        return "".join(found)

    def commit(self, user: str, minutes: int, comment: str) -> None:
        fallback = self._fallback or self.active
        self.confirm()
        note = f" commit confirmed, rollback in {minutes}mins" if minutes else ""
        self._activate(self.candidate.copy(), user, note + (f"\n    {comment}" if comment else ""))
        if minutes:
            self._fallback = fallback
            self.pending = self.clock.call_later(minutes * 60, self._roll_back)

    def confirm(self) -> None:
        if self.pending is not None:
            self.clock.cancel(self.pending)
        self.pending = self._fallback = None

    def _roll_back(self) -> None:
        fallback = self._fallback
        self.pending = self._fallback = None
        assert fallback is not None
        self._activate(fallback, "root", " (automatic rollback)")
        now = datetime.datetime.now(datetime.UTC)
        for session in self.editors():
            session.notices.append(
                f"\nBroadcast Message from root@{self.host_name}\n        (no tty) at {now:%H:%M} UTC...\n\n"
                "Commit was not confirmed; automatic rollback complete.\n"
            )

    def _activate(self, configuration: Word, who: str, note: str) -> None:
        self.active = configuration
        self.candidate, self.modified = configuration.copy(), False
        self.history = [Committed(configuration, datetime.datetime.now(datetime.UTC), who, note), *self.history][:KEPT]
        self.changed()

    def snapshot(self) -> str:
        last = self.history[0]
        return "".join(
            f"{line}\n"
            for line in (f"## Last commit: {last.when:%Y-%m-%d %H:%M:%S} UTC by {last.who}", *tree.lines(self.active))
        )

    def judge(self, attachment: str, direction: str, packet: Packet) -> str:
        return judge.judge(self.active, attachment, direction, packet)


def units(configuration: Word) -> list[tuple[tuple[str, ...], Word]]:
    """Every active unit, of interfaces and of dynamic profiles, with its path."""
    roots: list[tuple[str, ...]] = [("interfaces",)]
    roots += [("dynamic-profiles", name, "interfaces") for name, _ in configuration.below("dynamic-profiles")]
    return [
        ((*root, interface, "unit", number), unit)
        for root in roots
        for interface, _ in configuration.below(*root)
        for number, unit in configuration.below(*root, interface, "unit")
    ]


def terms(configuration: Word) -> list[tuple[str, int, str, Word]]:
    """Every active term of every filter: its path as text, the address family, the filter's name, the term."""
    places = [
        (("firewall", "family", "inet", "filter"), 4),
        (("firewall", "family", "inet6", "filter"), 6),
        (("firewall", "filter"), 4),
    ]
    return [
        (" ".join((*place, name, "term", term)), version, name, word)
        for place, version in places
        for name, _ in configuration.below(*place)
        for term, word in configuration.below(*place, name, "term")
    ]
