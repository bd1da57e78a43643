# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a platform's parser makes of a running configuration, and the naive evaluator over it."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace

from .packets import FIELDS, Match, Packet, width

PERMIT, DENY = "permit", "deny"
JUMP, GOTO, RETURN = "jump", "goto", "return"
UNKNOWN = "unknown"  # what happens to the packet could not be read


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a filter: an ACE, a term, a rule. The first entry that matches decides.

    `matches` is a union; () matches nothing. `doubt` says what was not understood: the entry then
    matches at most `matches`, perhaps less. `line` counts from 1 in the text that was parsed.
    """

    action: str
    matches: tuple[Match, ...]
    line: int
    text: str
    target: str = ""  # the filter that JUMP and GOTO go to
    doubt: str = ""


@dataclass(frozen=True, slots=True)
class Filter:
    """An ordered list of entries. `default` is the action behind the last one, as the vendor has it."""

    name: str
    family: int
    entries: tuple[Entry, ...]
    default: str
    line: int
    text: str = ""  # the line that begins it, or what stands for it where it is not defined
    # Made by the first packet that is walked through it.
    _screen: list[tuple[int, int, Entry, Match]] = field(default_factory=list, init=False, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Binding:
    """A filter in force on an attachment. Every one of `filters`, in their order, must permit a packet."""

    attachment: str
    direction: str  # "in": the router receives it there; "out": it sends it there
    family: int
    filters: tuple[str, ...]
    line: int
    text: str


@dataclass(frozen=True, slots=True)
class Interface:
    """A place where subscribers can hang, as the configuration shows it."""

    name: str
    line: int
    prefixes: tuple[str, ...] = ()  # connected or routed there, "192.0.2.1/24" as written
    shutdown: bool = False
    source_check: str = ""  # the line of a strict unicast RPF check, "" without one
    source_check_line: int = 0
    sessions_from: str = ""  # the line by which a RADIUS server authorizes sessions there, and may give them a filter
    sessions_line: int = 0
    source_check_families: tuple[int, ...] = (4, 6)

    def checked(self, checks: Mapping[int, tuple[str, int]], carries: Collection[int] = (4, 6)) -> Interface:
        """With its strict checks, by family the line's text and number; a family that it does not carry needs none."""
        if not checks:
            return self
        text, line = checks[min(checks)]
        families = tuple(family for family in (4, 6) if family in checks or family not in carries)
        return replace(self, source_check=text, source_check_line=line, source_check_families=families)


@dataclass(frozen=True, slots=True)
class Doubt:
    """A line that was not understood and may matter."""

    line: int
    text: str
    reason: str


@dataclass(frozen=True, slots=True)
class Configuration:
    """Filters by (family, name). A name that is bound but not defined has a Filter too: what the vendor does then."""

    filters: Mapping[tuple[int, str], Filter]
    bindings: tuple[Binding, ...] = ()
    interfaces: Mapping[str, Interface] = field(default_factory=dict)
    doubts: tuple[Doubt, ...] = ()
    hostname: str = ""
    filter_lines: int = 0  # lines that belong to filters, groups, lists and bindings


class NotThisPlatform(ValueError):
    """The text is no running configuration of this platform, or not a whole one."""


def matches(match: Match, packet: Packet) -> bool:
    for name, alternatives in match.items():
        here = packet[name]
        for value, mask in alternatives:
            if here & mask == value:
                break
        else:
            return False
    return True


def evaluate(configuration: Configuration, family: int, name: str, packet: Packet) -> tuple[set[str], list[Entry]]:
    """Walk the filter for one packet, entry by entry, without any of the cleverness of search.py.

    Returns the actions that are possible, {"permit"}, {"deny"} or both where an entry is in doubt,
    and the entries that matched.
    """
    chosen = configuration.filters[family, name]
    header = sum(packet[field_name] << at for field_name, at in _places(family).items())
    actions, seen = _walk(configuration, chosen, packet, header, 0)
    if RETURN in actions:
        actions = actions - {RETURN} | {chosen.default}
    if UNKNOWN in actions:
        actions = {PERMIT, DENY}
    return actions, seen


def _walk(
    configuration: Configuration, chosen: Filter, packet: Packet, header: int, depth: int
) -> tuple[set[str], list[Entry]]:
    if depth > 64:  # nft refuses loops; a text that has one anyway is not understood
        return {UNKNOWN}, []
    if not chosen._screen:
        chosen._screen.extend(_rows(chosen))
    actions: set[str] = set()
    seen: list[Entry] = []
    last = None
    for entry, match in ((entry, match) for value, mask, entry, match in chosen._screen if header & mask == value):
        if entry is last or not matches(match, packet):
            continue
        last = entry
        seen.append(entry)
        if entry.action in (JUMP, GOTO):
            target = configuration.filters[chosen.family, entry.target]
            inner, below = _walk(configuration, target, packet, header, depth + 1)
            seen += below
            if entry.action == JUMP and RETURN in inner:
                actions |= inner - {RETURN}
                continue
            actions |= inner
        else:
            actions.add(entry.action)
        if not entry.doubt:
            return actions, seen
    return actions | {chosen.default if depth == 0 else RETURN}, seen


@functools.lru_cache(maxsize=2)
def _places(family: int) -> dict[str, int]:
    """Where each field stands in a header that is one number."""
    ends = itertools.accumulate((width(name, family) for name in FIELDS), initial=0)
    return dict(zip(FIELDS, ends, strict=False))


def _rows(chosen: Filter) -> Iterator[tuple[int, int, Entry, Match]]:
    """Every match with what its plain conditions, those of one ternary, want of all the fields side by side.

    One comparison of numbers passes most entries of a long list by; `matches` has the say on the rest.
    """
    places = _places(chosen.family)
    for entry in chosen.entries:
        for match in entry.matches:
            value = mask = 0
            for name, alternatives in match.items():
                if len(alternatives) == 1:
                    ((wanted, care),) = alternatives
                    value |= wanted << places[name]
                    mask |= care << places[name]
            yield value, mask, entry, match
