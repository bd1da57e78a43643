# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Values of a field cut into the classes that no line of some filters tells apart, over columns of numpy.

Every match of every line is a bit in a row of 64-bit words; a class is all the values of a field with the same row: the
lines that such a value does not contradict. The rows of all fields of a packet, and-ed, are the lines that match it
(the bit vectors of Lakshman and Stiliadis, SIGCOMM 1998).
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..packets import Match, Ternary, width

Words: TypeAlias = NDArray[np.uint64]
Classes: TypeAlias = NDArray[np.intp]

_LOW = (1 << 64) - 1


class Lines:
    """The matches of all lines of some filters, a bit each; every filter begins with a word of its own."""

    def __init__(self, family: int) -> None:
        self.family = family
        self.words = 0
        self._used: list[int] = []  # of each word, the bits that are some match's
        # By field, then by what a line wants of it: the bits of the lines that do.
        self._wanted: dict[str, dict[tuple[Ternary, ...], list[int]]] = defaultdict(lambda: defaultdict(list))

    def add(self, matches: Sequence[Match]) -> slice:
        """The words in which the matches have their bits, the first match the lowest."""
        begin = self.words
        self._used += [(1 << min(64, len(matches) - done)) - 1 for done in range(0, len(matches), 64)]
        self.words = len(self._used)
        for bit, match in enumerate(matches, 64 * begin):
            for field, alternatives in match.items():
                self._wanted[field][tuple(alternatives)].append(bit)
        return slice(begin, self.words)

    def ask_for(self, *fields: str) -> bool:
        """Does any line look at one of the fields?"""
        return any(field in self._wanted for field in fields)

    def all(self) -> Words:
        """Every line there is."""
        return np.array(self._used, np.uint64)

    def row(self, field: str, value: int) -> Words:
        """The lines that the value does not contradict."""
        row: Words = self.rows(field, np.array([value >> 64], np.uint64), np.array([value & _LOW], np.uint64))[0]
        return row

    def rows(self, field: str, high: Words, low: Words) -> Words:
        """The same for many values, the upper and the lower 64 bits of each: a row each."""
        rows = np.full((len(low), self.words), _LOW, np.uint64)
        for alternatives, bits in self._wanted.get(field, {}).items():
            inside = np.zeros(len(low), bool)
            for ternary in alternatives:
                inside |= _held(ternary, high, low)
            outside = np.flatnonzero(~inside)
            for word, group in itertools.groupby(bits, lambda bit: bit // 64):
                rows[outside, word] &= np.uint64(_LOW & ~sum(1 << bit % 64 for bit in group))
        return rows

    def starts(self, field: str) -> set[int]:
        """The least value of each range that no line tells apart; wildcard masks with holes do not count.

        Of a field of at most 16 bits all values where there are such masks.
        """
        if width(field, self.family) <= 16 and self.scattered(field):
            return set(range(1 << width(field, self.family)))
        found = {0}
        for value, mask in self._ternaries(field):
            size = (_full(field, self.family) ^ mask) + 1
            if not size & size - 1:
                found |= {value, value + size}
        return found - {1 << width(field, self.family)}

    def scattered(self, field: str) -> list[Ternary]:
        """The ternaries that are no range: wildcard masks with holes in them, single TCP flags."""
        full = _full(field, self.family)
        found = [(value, mask) for value, mask in self._ternaries(field) if (full ^ mask) + 1 & (full ^ mask)]
        return list(dict.fromkeys(found))

    def _ternaries(self, field: str) -> Iterator[Ternary]:
        return itertools.chain.from_iterable(self._wanted.get(field, ()))


def _full(field: str, family: int) -> int:
    return (1 << width(field, family)) - 1


def _held(ternary: Ternary, high: Words, low: Words) -> NDArray[np.bool_]:
    value, mask = ternary
    held: NDArray[np.bool_] = low & np.uint64(mask & _LOW) == np.uint64(value & _LOW)
    if mask >> 64:
        held &= high & np.uint64(mask >> 64) == np.uint64(value >> 64)
    return held


class Small:
    """A field of at most 16 bits: a table says the class of each value.

    `rows` are the parts that the values were told apart by, each with a row for each class.
    """

    def __init__(self, starts: Iterable[int], bits: int, parts: Sequence[Words]) -> None:
        """`starts`: the first values of ranges of like values, in order; each part has a row for each range."""
        begins = np.fromiter(starts, np.intp)
        first, numbers = _like(np.hstack(parts))
        self.table: Classes = np.repeat(numbers, np.diff(np.append(begins, 1 << bits)))
        self.values = begins[first]  # of each class one
        self.rows = [part[first] for part in parts]

    def __len__(self) -> int:
        return len(self.values)


class Addresses:
    """A field of addresses. The classes are found by their ranges; where masks have holes, by these as well."""

    def __init__(self, lines: Lines, field: str) -> None:
        self._lines = lines
        self._field = field
        starts = sorted(lines.starts(field))
        high, low = (
            np.array(part, np.uint64) for part in zip(*((one >> 64, one & _LOW) for one in starts), strict=True)
        )
        self._scattered = lines.scattered(field)
        if self._scattered:  # what they say is not known before there are values
            self._numbers, self.rows = np.arange(len(starts)), np.empty((0, lines.words), np.uint64)
        else:
            rows = lines.rows(field, high, low)
            first, self._numbers = _like(rows)
            self.rows = rows[first]
        self._seen: dict[bytes, int] = {}
        # Of each range, the place of its upper half among all upper halves, and of its lower half.
        self._highs, place = np.unique(high, return_inverse=True)
        self._lows = np.unique(low)
        self._begins = (place + 1) * (len(self._lows) + 1) + np.searchsorted(self._lows, low) + 1
        self._tables = _steps(low) if lines.family == 4 else None

    def __len__(self) -> int:
        return len(self.rows)

    def classes(self, high: Words, low: Words) -> Classes:
        """The class of each address, its upper and its lower 64 bits."""
        ranges = self._ranges(high, low)
        return self._among(ranges, high, low) if self._scattered else self._numbers[ranges]

    def _ranges(self, high: Words, low: Words) -> Classes:
        if self._tables:
            first, second, third = self._tables
            node = first[low >> np.uint64(16)]
            node = second[node + (low >> np.uint64(8) & np.uint64(0xFF)).astype(np.int32)]
            found: Classes = third[node + (low & np.uint64(0xFF)).astype(np.int32)]
            return found
        place = np.searchsorted(self._highs, high, "right")
        # Only where a range begins with this very upper half does the lower one matter.
        within = np.flatnonzero(self._highs[place - 1] == high)
        key = place * (len(self._lows) + 1) + len(self._lows)
        key[within] -= len(self._lows) - np.searchsorted(self._lows, low[within], "right")
        return np.searchsorted(self._begins, key, "right") - 1

    def _among(self, ranges: Classes, high: Words, low: Words) -> Classes:
        """The classes by ranges and scattered masks; new ones are numbered as they come up."""
        # A word for the range, the higher bits of which are free as a rule, and for the masks.
        used = len(self._begins).bit_length()
        key = np.zeros((len(low), -(-(used + len(self._scattered)) // 64)), np.uint64)
        key[:, 0] = ranges
        for bit, ternary in enumerate(self._scattered, used):
            key[:, bit // 64] |= _held(ternary, high, low).astype(np.uint64) << np.uint64(bit % 64)
        first, numbers = _like(key)
        known = [self._seen.setdefault(key[one].tobytes(), len(self._seen)) for one in first]
        new = first[[number >= len(self.rows) for number in known]]
        self.rows = np.vstack([self.rows, self._lines.rows(self._field, high[new], low[new])])
        return np.array(known, np.intp)[numbers]


def _steps(starts: Words) -> tuple[NDArray[np.int32], NDArray[np.int32], Classes]:
    """Tables that find the range of an IPv4 address in three steps, by 16, 8 and 8 of its bits.

    A table has nodes of 256 entries, each of which is where the node of the next table begins; `starts` begins with 0.
    """
    parts = np.arange(1 << 16, dtype=np.uint64) << np.uint64(16)
    first, nodes = _nodes(starts, parts, 16)
    parts = (nodes[:, None] + (np.arange(256, dtype=np.uint64) << np.uint64(8))).ravel()
    second, nodes = _nodes(starts, parts, 8)
    third = np.searchsorted(starts, (nodes[:, None] + np.arange(256, dtype=np.uint64)).ravel(), "right") - 1
    return first, second, third


def _nodes(starts: Words, parts: Words, bits: int) -> tuple[NDArray[np.int32], Words]:
    """For each part of so many bits where its node begins, and the first address of each node.

    Parts within one range look the same in the next table, but for that they begin elsewhere: they share a node.
    """
    low = np.searchsorted(starts, parts, "right") - 1
    whole = low == np.searchsorted(starts, parts | np.uint64((1 << bits) - 1), "right") - 1
    key = np.where(whole, low, len(starts) + np.arange(len(parts)))
    _, first, numbers = np.unique(key, return_index=True, return_inverse=True)
    return (numbers * 256).astype(np.int32), parts[first]


def _like(rows: Words) -> tuple[Classes, Classes]:
    """Like rows are one class: where each class has its first row, and the class of each row."""
    packed = np.ascontiguousarray(rows)
    if not packed.size:  # no line at all: every value is like every other
        return np.zeros(min(len(rows), 1), np.intp), np.zeros(len(rows), np.intp)
    whole = packed.view(np.dtype((np.void, packed.strides[0]))).ravel() if packed.shape[1] > 1 else packed.ravel()
    _, first, numbers = np.unique(whole, return_index=True, return_inverse=True)
    return first, numbers.ravel()
