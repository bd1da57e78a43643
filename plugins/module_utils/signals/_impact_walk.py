# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Many packets through the filters of one side at once: filters.evaluate(), over the lines that match each packet.

First match, jumps, returns and lines in doubt mean what they mean there, and the two share no code. What a doubt leaves
open comes with a mark, so that the same doubt on both sides can be told from two.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..difference import Side
from ..filters import DENY, GOTO, JUMP, PERMIT, RETURN, UNKNOWN, Entry, Filter
from ._impact_classes import Classes, Lines, Words

MAY_PERMIT, MAY_DENY = 1, 2
_RETURNS = 4
_ACTIONS = {PERMIT: MAY_PERMIT, DENY: MAY_DENY, UNKNOWN: MAY_PERMIT | MAY_DENY, RETURN: _RETURNS}
_DEPTH = 64  # as filters.evaluate()
_NUMBER = re.compile(r"^(?:(?:seq|rule|entry|sequence)\s+)?\d+\s+")
_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # odd, so that no mark is lost by it

Actions = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class _Chain:
    """A filter, by its bits: the entry of each, and by entry what it does and where its bits end."""

    words: slice
    entry_of: Classes
    entries: tuple[Entry, ...]
    plain: Actions  # what an entry does that is sure and ends the walk; 0 for the others
    ends: Classes  # the first bit behind the entry's own
    default: int
    end: int  # the mark of the default


class Walk:
    """One side. `marks` are shared by both: what may be the same doubt has the same mark."""

    def __init__(self, side: Side, lines: Lines, marks: dict[Hashable, int], owner: Hashable) -> None:
        self._family = lines.family
        self._stages = [(lines.family, name) for name in side.filters]
        self._marks = marks
        self._owner = owner
        self._chains: dict[tuple[int, str], _Chain] = {}
        reached = list(dict.fromkeys(self._stages))
        for key in reached:
            chosen = side.configuration.filters[key]
            self._chains[key] = self._chain(chosen, lines)
            targets = ((key[0], entry.target) for entry in chosen.entries if entry.action in (JUMP, GOTO))
            reached += [one for one in dict.fromkeys(targets) if one not in reached]

    def fates(self, matching: Words) -> tuple[Actions, Words]:
        """What may happen to packets, MAY_PERMIT and MAY_DENY or-ed, and the marks of what leaves it open.

        `matching` has a row for each packet: the bits of the lines that match it.
        """
        possible = np.full(len(matching), MAY_PERMIT, np.uint8)
        marks = np.zeros(len(matching), np.uint64)
        onward = np.arange(len(matching))
        for key in self._stages:
            actions = self._walk(key, onward, matching, marks, 0)
            returned = actions & _RETURNS != 0
            if returned.any():
                self._note(marks, onward[returned], self._chains[key].end)
                actions[returned] = actions[returned] & ~np.uint8(_RETURNS) | np.uint8(self._chains[key].default)
            possible[onward] = possible[onward] & np.uint8(MAY_DENY) | actions
            onward = onward[actions & MAY_PERMIT != 0]
        return possible, marks

    def _chain(self, chosen: Filter, lines: Lines) -> _Chain:
        rows = [(number, match) for number, entry in enumerate(chosen.entries) for match in entry.matches]
        words = lines.add([match for _, match in rows])
        entry_of = np.array([number for number, _ in rows], np.intp)
        plain = [
            0 if one.doubt or one.action in (JUMP, GOTO, UNKNOWN) else _ACTIONS[one.action] for one in chosen.entries
        ]
        ends = np.searchsorted(entry_of, np.arange(len(chosen.entries)), "right")
        default = _ACTIONS[chosen.default]
        end = self._mark(bool(chosen.entries), chosen.text) if chosen.default == UNKNOWN else default
        return _Chain(words, entry_of, chosen.entries, np.array(plain, np.uint8), ends, default, end)

    def _walk(self, key: tuple[int, str], packets: Classes, matching: Words, marks: Words, depth: int) -> Actions:
        """What the chain says of these packets; _RETURNS where the walk falls off its end, or is sent back."""
        found = np.zeros(len(packets), np.uint8)
        if depth > _DEPTH:
            self._note(marks, packets, self._mark(key))
            return found | np.uint8(_ACTIONS[UNKNOWN])
        chain = self._chains[key]
        words = matching[packets, chain.words]
        left = np.arange(len(packets))
        while len(left):
            bits = _first_bits(words)
            none = bits < 0
            found[left[none]] |= np.uint8(_RETURNS)
            words, left, bits = words[~none], left[~none], bits[~none]
            numbers = chain.entry_of[bits]
            plain = chain.plain[numbers]
            done = plain != 0
            found[left[done]] |= plain[done]
            self._note(marks, packets[left[done]], plain[done])
            words, left, numbers = words[~done], left[~done], numbers[~done]
            goes_on = np.zeros(len(left), bool)
            for number in np.unique(numbers):
                here = numbers == number
                goes_on[here] = self._entry(chain.entries[number], left[here], packets, matching, marks, depth, found)
            words, left = words[goes_on], left[goes_on]
            _clear(words, chain.ends[numbers[goes_on]])
        return found

    def _entry(
        self,
        entry: Entry,
        here: Classes,
        packets: Classes,
        matching: Words,
        marks: Words,
        depth: int,
        found: Actions,
    ) -> NDArray[np.bool_]:
        """Put what the entry does with the packets `here` into `found`; which of them go on behind it?"""
        doubtful = bool(entry.doubt)
        if doubtful or entry.action == UNKNOWN:
            key = (_NUMBER.sub("", entry.text), entry.action, entry.target, entry.doubt)
            self._note(marks, packets[here], self._mark(*key, *(tuple(match.items()) for match in entry.matches)))
        goes_on = np.full(len(here), doubtful)
        if entry.action in (JUMP, GOTO):
            inner = self._walk((self._family, entry.target), packets[here], matching, marks, depth + 1)
            if entry.action == JUMP:
                goes_on |= inner & _RETURNS != 0
                inner &= np.uint8(MAY_PERMIT | MAY_DENY)
            found[here] |= inner
        else:
            found[here] |= np.uint8(_ACTIONS[entry.action])
        return goes_on

    def _mark(self, *doubt: Hashable) -> int:
        """The number of a doubt, which is none of the actions."""
        return self._marks.setdefault((self._owner, *doubt), 2 * _RETURNS + len(self._marks))

    def _note(self, marks: Words, packets: Classes, mark: int | Actions) -> None:
        """What happens next to the packets; what is sure behind a doubt is a part of it."""
        marks[packets] = marks[packets] * _SPREAD + np.asarray(mark, np.uint64)


def _first_bits(words: Words) -> Classes:
    """The lowest bit of each row of words, -1 where there is none."""
    if not words.shape[1]:
        return np.full(len(words), -1, np.intp)
    word = (words != 0).argmax(axis=1)
    lowest = words[np.arange(len(words)), word]
    bit = np.bitwise_count(~lowest & (lowest - np.uint64(1))).astype(np.intp)
    return np.where(lowest != 0, word * 64 + bit, -1)


def _clear(words: Words, ends: Classes) -> None:
    """Clear the bits of each row below its end."""
    for word in range(words.shape[1]):
        below = np.clip(ends - 64 * word, 0, 64).astype(np.uint64)
        kept = np.where(below < 64, np.uint64(0xFFFFFFFFFFFFFFFF) << np.minimum(below, 63), 0)
        words[:, word] &= kept.astype(np.uint64)


def sides_of(before: Side, after: Side, lines: Lines, unchanged: bool) -> Sequence[Walk]:
    """Both sides over the same lines. `unchanged`: as difference() takes it; a doubt that both have is then one."""
    marks: dict[Hashable, int] = {}
    return [
        Walk(side, lines, marks, None if unchanged and before.platform == after.platform else number)
        for number, side in enumerate((before, after))
    ]
