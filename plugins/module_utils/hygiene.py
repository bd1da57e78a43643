# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Lines that could go: what decides about nothing, what only an expired exception needs, what no packet has hit.

Notes for whoever keeps the lists, never findings: a filter that keeps the policy keeps it with such lines, too.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .audit import bound
from .filters import PERMIT, Configuration, Entry, Filter
from .packets import Alternatives, intersection, prefix
from .policy import Attachment, Policy
from .search import Search

_SHOWN = 20  # lines of one filter and kind
_IN_FRONT = 5  # lines that hide another one
_NO_HIT = re.compile(r"\bcounter packets 0 bytes 0\b")


@dataclass(frozen=True, slots=True)
class Note:
    """`lines`: number, text, and what is said of it. `more`: how many lines are not among them."""

    control: str
    filter: str
    family: int
    title: str
    lines: tuple[tuple[int, str, str], ...]
    more: int = 0

    def as_dict(self) -> dict[str, Any]:
        lines = [{"line": line, "text": text, "reason": reason} for line, text, reason in self.lines]
        return asdict(self) | {"lines": lines}


def hygiene(configuration: Configuration, policy: Policy, attachments: Sequence[Attachment]) -> list[Note]:
    """The notes on every filter that is in force on one of the attachments, a line once.

    Whether a line has an effect that several filters share (of a chain that all interfaces go through, of a list of
    filters) is not told by one of them: no such line is called needless.
    """
    notes: list[Note] = []
    holders = Counter(line for one in configuration.filters.values() for line in {entry.line for entry in one.entries})
    shared = frozenset(line for line, count in holders.items() if count > 1)
    seen: set[tuple[str, int]] = set()
    for family in (4, 6):
        search = Search(configuration, family)
        bindings = [bound(configuration, one.name, side, family) for one in attachments for side in ("up", "down")]
        for name in dict.fromkeys(name for binding in bindings if binding for name in binding.filters):
            chosen = configuration.filters[family, name]
            for control, lines in _told(search, chosen, policy, shared).items():
                found = [one for one in lines if (control, one[0]) not in seen]
                seen |= {(control, line) for line, *_ in found}
                if found:
                    rest = max(len(found) - _SHOWN, 0)
                    notes.append(Note(control, name, family, TITLES[control], tuple(found[:_SHOWN]), rest))
    return notes


def _told(
    search: Search, chosen: Filter, policy: Policy, shared: frozenset[int]
) -> dict[str, list[tuple[int, str, str]]]:
    """What is to be said of the filter's lines, by control."""
    entries = {entry.line: entry for entry in reversed(chosen.entries) if entry.line != chosen.line}
    own = entries.keys() - shared
    effect = search.without_effect(chosen.name) if own else ({}, [])
    if effect is None:
        reason = "not known: its lines overlap too much to look for those without effect"
        return {"H1": [(chosen.line, chosen.text or chosen.name, reason)]}
    hidden, needless = effect
    written = [entry for entry in chosen.entries if entry.line != chosen.line]
    end = written[-1].line if written and {} in written[-1].matches else 0  # an end in so many words is no mistake
    told = {"H1": [(line, _in_front(lines)) for line, lines in hidden.items() if line in own]}
    told["H2"] = [(line, "") for line in needless if line in own and line != end]
    gone = {*hidden, *needless}
    expired = {line: _only_for(entry, policy, chosen.family) for line, entry in entries.items() if line not in gone}
    told["H3"] = [(line, f"the exception of {one} has ended") for line, one in expired.items() if one]
    told["H4"] = [(line, "") for line, entry in entries.items() if _NO_HIT.search(entry.text)]
    return {
        control: [(line, entries[line].text, reason) for line, reason in sorted(lines)]
        for control, lines in told.items()
    }


TITLES = {
    "H1": "can never match: no packet gets past the lines in front",
    "H2": "can go: without it every packet has the same fate",
    "H3": "only an expired exception needs it",
    "H4": "no packet has hit it since its counter began",
}


def _in_front(lines: Sequence[int]) -> str:
    rest = len(lines) - _IN_FRONT
    numbers = ", ".join(map(str, lines[:_IN_FRONT])) + (f" and {rest} more" if rest > 0 else "")
    return f"hidden by line{'s' if len(lines) > 1 else ''} {numbers}" if lines else "matches nothing"


def _only_for(entry: Entry, policy: Policy, family: int) -> str:
    """The prefix of an expired exception that the entry permits packets of, and of nothing else.

    "" as well where an exception that is in force has some of these addresses: it may need the line, too.
    """
    if entry.action != PERMIT or not entry.matches:
        return ""
    for exception in policy.expired:
        if exception.family == family:
            own = prefix(exception.prefix, family)
            ends = [
                [match[end] for end in ("source", "destination") if end in match and _within(match[end], own)]
                for match in entry.matches
            ]
            if all(ends) and not _in_force([one for found in ends for one in found], policy, family):
                return exception.prefix
    return ""


def _in_force(values: Sequence[Alternatives], policy: Policy, family: int) -> bool:
    """Are any of the values in an exception that is in force?"""
    kept = [prefix(one.prefix, family) for one in policy.exceptions if one.family == family]
    return any(intersection(one, own) for one in values for own in kept)


def _within(values: Alternatives, own: Alternatives) -> bool:
    """Are all the values in the prefix?"""
    return all(intersection((one,), own) == (one,) for one in values)
