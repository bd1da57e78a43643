# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Postfix's effective configuration, per service of master.cf, out of what `postconf` prints.

Sources: postconf(1), postconf(5) ("parameter value syntax"), master(5), DATABASE_README. Values are taken raw
and expanded here, because a `-o` override reaches every other value that names the parameter, and `postconf -x`
expands without overrides. Nothing here reads a file or runs a command.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

_LINE = re.compile(r"^([^\s=:]+) =(?: (.*))?$")  # a restriction class may be called "sales-list"
_NAME = re.compile(r"\w+")
_COMPARISON = re.compile(r"\s*(<=|>=|==|!=|<|>)(level)?\s*")
_DEPTH = 20  # of values that name each other; postconf itself gives up on a loop


@dataclass(frozen=True, slots=True)
class Service:
    """A line of master.cf: `name` as written ("smtp", "587", "192.0.2.10:25"), `command` the daemon's name."""

    name: str
    type: str  # inet, unix, fifo, pass
    command: str
    chroot: bool
    overrides: Mapping[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """As people say it: "submission (smtpd)", "smtp (postscreen)"."""
        return f"{self.name} ({self.command})"


@dataclass(frozen=True)
class Postfix:
    """main.cf's and the built-in values, raw, and the services of master.cf in their order."""

    parameters: Mapping[str, str]
    services: tuple[Service, ...]

    def effective(self, service: Service | None = None) -> Parameters:
        """What a process of the service sees; of main.cf alone without one."""
        overrides = dict(service.overrides) if service else {}
        own = {"service_name": service.name, "process_name": service.command} if service else {}
        return Parameters({**own, **self.parameters, **overrides}, frozenset(overrides))

    def named(self, name: str, kind: str = "") -> Service | None:
        """The service of that name (and type, where told)."""
        return next((one for one in self.services if one.name == name and kind in ("", one.type)), None)


class Parameters:
    """Parameters by name, expanded on demand. A name that nothing defines is an empty value."""

    def __init__(self, raw: Mapping[str, str], overridden: frozenset[str] = frozenset()) -> None:
        self.raw = raw
        self.overridden = overridden
        self._known: dict[str, str] = {}

    def __getitem__(self, name: str) -> str:
        if name not in self._known:
            self._known[name] = expand(self.raw.get(name, ""), self.raw).strip()
        return self._known[name]

    def __contains__(self, name: str) -> bool:
        return name in self.raw

    def words(self, name: str) -> list[str]:
        """The value as a list; an element in braces stays one, with its braces."""
        return words(self[name])

    def yes(self, name: str) -> bool:
        """Whether a boolean parameter is on."""
        return self[name].lower() == "yes"

    def number(self, name: str) -> int:
        """The number at the value's beginning, 0 where there is none."""
        found = re.match(r"\d+", self[name])
        return int(found[0]) if found else 0

    def evidence(self, name: str) -> str:
        """The parameter as a line to read: where it stands, its name, its effective value."""
        place = "master.cf -o" if name in self.overridden else "main.cf"
        return f"{place} {name} = {self[name]}"


def read_parameters(text: str) -> dict[str, str]:
    """`name = value` lines of `postconf`, one a line; what is no such line (a warning) is passed by."""
    return {found[1]: found[2] or "" for line in text.splitlines() if (found := _LINE.match(line))}


def read_services(table: str, overrides: str, unset: bool = True) -> tuple[Service, ...]:
    """The services out of `postconf -M` and of `postconf -P` ("name/type/parameter = value").

    `unset`: what "-" says of the chroot, which is "n" from compatibility_level 1 on.
    """
    options: dict[tuple[str, str], dict[str, str]] = {}
    for line in overrides.splitlines():
        place, separator, value = line.partition(" =")
        name, _, rest = place.rpartition("/")
        if separator and "/" in name:
            service, _, kind = name.rpartition("/")
            options.setdefault((service, kind), {})[rest] = value.strip()
    services = []
    for line in table.splitlines():
        fields = line.split(None, 8)
        if len(fields) >= 8 and not line.startswith(("#", " ", "\t", "postconf:")):
            name, kind, command = fields[0], fields[1], fields[7]
            chroot = unset if fields[4] == "-" else fields[4] == "y"
            services.append(Service(name, kind, command, chroot, options.get((name, kind), {})))
    return tuple(services)


def words(value: str) -> list[str]:
    """A list value in its elements: by commas and white space, but `{ ... }` holds together (postconf(5))."""
    return list(_words(value))


@functools.cache  # an audit asks thousands of questions of the same few lists
def _words(value: str) -> tuple[str, ...]:
    found, current, depth = [], "", 0
    for letter in value:
        if letter == "{":
            depth += 1
        elif letter == "}":
            depth = max(0, depth - 1)
        if depth == 0 and (letter == "," or letter.isspace()):
            if current:
                found.append(current)
            current = ""
        else:
            current += letter
    return (*found, current) if current else tuple(found)


def inside(element: str) -> str:
    """The text within an element's outer braces; the element itself where it has none."""
    return element[1:-1].strip() if element[:1] == "{" and element[-1:] == "}" else element


def expand(value: str, raw: Mapping[str, str], depth: int = 0) -> str:
    """Replaces $name, ${name}, ${name?text}, ${name:text}, ${name?{a}:{b}} and ${{a} == {b} ? {c} : {d}}."""
    if "$" not in value or depth > _DEPTH:
        return value
    parts, at = [], 0
    while (dollar := value.find("$", at)) >= 0:
        parts.append(value[at:dollar])
        at = dollar + 1
        if value.startswith("$", at):
            parts.append("$")
            at += 1
        elif value.startswith(("{", "("), at):
            end = _closing(value, at)
            parts.append(_conditional(value[at + 1 : end], raw, depth + 1))
            at = end + 1
        elif name := _NAME.match(value, at):
            parts.append(expand(raw.get(name[0], ""), raw, depth + 1))
            at = name.end()
    parts.append(value[at:])
    return "".join(parts)


def _closing(text: str, opening: int) -> int:
    """Where the bracket at `opening` closes; the text's end where it does not."""
    pair = {"{": "}", "(": ")"}[text[opening]]
    depth = 0
    for at in range(opening, len(text)):
        if text[at] == text[opening]:
            depth += 1
        elif text[at] == pair:
            depth -= 1
            if depth == 0:
                return at
    return len(text)


def _conditional(text: str, raw: Mapping[str, str], depth: int) -> str:
    """The inside of ${...}."""
    text = text.strip()
    if text.startswith("{"):
        end = _closing(text, 0)
        left = expand(text[1:end].strip(), raw, depth)
        operator = _COMPARISON.match(text, end + 1)
        if not operator:
            return ""
        end = _closing(text, operator.end()) if text.startswith("{", operator.end()) else len(text)
        right = expand(text[operator.end() + 1 : end].strip(), raw, depth)
        holds = _compare(left, operator[1], right)
        rest = text[end + 1 :].strip()
    else:
        name = _NAME.match(text)
        if not name:
            return ""
        content = expand(raw.get(name[0], ""), raw, depth)
        rest = text[name.end() :].strip()
        if not rest:
            return content
        holds = bool(content)
    return expand(_branch(rest, holds), raw, depth)


def _branch(rest: str, holds: bool) -> str:
    """Of "?{a}:{b}", "?a" and ":b" the text that counts."""
    mark, rest = rest[:1], rest[1:].strip()
    if not rest.startswith("{"):
        return rest if (mark == "?") == holds else ""
    end = _closing(rest, 0)
    first, rest = rest[1:end].strip(), rest[end + 1 :].strip()
    if (mark == "?") == holds:
        return first
    if rest.startswith(":"):
        other = rest[1:].strip()
        return inside(other)
    return ""


def _compare(left: str, operator: str, right: str) -> bool:
    order = (left > right) - (left < right)
    if re.fullmatch(r"[\d.]+", left) and re.fullmatch(r"[\d.]+", right):
        one, two = ([int(part) for part in text.split(".") if part] for text in (left, right))
        length = max(len(one), len(two))
        one, two = one + [0] * (length - len(one)), two + [0] * (length - len(two))
        order = (one > two) - (one < two)
    table = {"==": order == 0, "!=": order != 0, "<": order < 0, "<=": order <= 0, ">": order > 0, ">=": order >= 0}
    return table[operator]


def smtp_services(postfix: Postfix) -> Iterator[tuple[Service, Service | None]]:
    """Every service that takes SMTP in, with the postscreen that stands before it (None: clients reach it)."""
    for service in postfix.services:
        if service.command == "smtpd" and service.type == "inet":
            yield service, None
        elif service.command == "postscreen" and service.type == "inet":
            behind = postfix.effective(service)["smtpd_service_name"] or "smtpd"
            smtpd = postfix.named(behind, "pass")
            if smtpd is not None:
                yield smtpd, service
