# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where two lists of lines decide differently, as boxes: a product of sets of values, one for each field.

The walk takes the fields one after the other. It cuts a field's values into the classes that no line tells apart, goes
on in each class with the lines that are left, and stops where both sides have the same lines left or the same fate.
Lines that both sides have in the same order cannot make a difference, so the values outside all other lines are never
looked at: that is what makes one changed line among 10,000 cheap. Classes that end in the same box become one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence

from .packets import FIELDS, POSSIBLE, Alternatives, Match, complement, intersection, span, width

# Line visits of one comparison; two million take about a second on a 2020s core.
WORK_LIMIT = 2_000_000
# Boxes that a comparison may be in the middle of.
BOX_LIMIT = 5_000
# Intervals that one value and mask may become; past it the field's sets stay values and masks.
_INTERVALS = 256
_DOUBTS = 8  # lines in doubt for one packet, whose outcomes are gone through one by one

PERMIT, DENY = 0, 1
OPENED, CLOSED, UNSURE, UNSEEN = "opened", "closed", "unsure", "unseen"
_END = len(FIELDS)

# A set of values: intervals (low, high), or, for fields in _Fields.wild, ternaries (value, mask).
Values = tuple[tuple[int, int], ...]
# Level and set of each field that the box constrains, in the order of the levels; what happens there.
Region = tuple[tuple[int, Values], ...]
_Outcome = tuple[str, Region]
# A line is the number of its node; one that leads to another list is its node and the number of that list.
Line = int | tuple[int, int]
Lines = tuple[Line, ...]
_Side = tuple[list[int], dict[int, list[int]], Lines]


class Walk:
    """The lines of both sides as nodes: equal lines, equal numbers. `order`: the fields as they are taken."""

    def __init__(self, family: int, order: Sequence[str], alternatives: Iterable[tuple[str, Alternatives]]) -> None:
        self.family = family
        self.order = tuple(order)
        self._rank = {name: level for level, name in enumerate(order)}
        self._bits = [width(name, family) for name in order]
        self.wild = {"tcp_flags"}
        for name, one in alternatives:
            if name not in self.wild and any(_wild(mask, width(name, family)) for _, mask in one):
                self.wild.add(name)
        self._is_wild = [name in self.wild for name in order]
        possible = POSSIBLE[family]
        self._universe = [self._values(level, possible.get(name, ((0, 0),))) for level, name in enumerate(order)]
        # Nodes: the level of the first field that the line still constrains, its set, the node behind it, and what the
        # line does. The first two are the ends of lines that permit (or lead to another list) and that deny.
        self._level = [_END, _END]
        self._set = [-1, -1]
        self._next = [-1, -1]
        self._does = [PERMIT, DENY]
        self._nodes: dict[tuple[int, int, int], int] = {}
        self._ends: dict[object, int] = {}
        self._doubts: dict[int, int] = {}  # what an end in doubt does, if it matches
        self._sets: list[Values] = []
        self._set_ids: dict[tuple[int, Alternatives], int] = {}
        self._lists: list[Lines] = []
        self._list_ids: dict[Lines, int] = {}
        self._known: dict[tuple[Lines, Lines], tuple[_Outcome, ...]] = {}
        self.work = 0

    def doubt(self, key: object, action: int) -> int:
        """The end of a line that does `action`, or leads to a list, or does not match: which of it is not known.

        Ends with one key are the same doubt: it turns out the same way for all of them.
        """
        number = self._ends.get((key, action))
        if number is None:
            number = self._ends[key, action] = len(self._level)
            self._level.append(_END)
            self._set.append(-1)
            self._next.append(-1)
            self._does.append(number)
            self._doubts[number] = action
        return number

    def line(self, match: Match, end: int) -> int | None:
        """The node of a line; None when it matches nothing."""
        node = end
        fields = [(self._rank[name], alternatives) for name, alternatives in match.items()]
        for level, alternatives in sorted(fields, key=lambda field: -field[0]):
            number = self._set_ids.get((level, alternatives))
            if number is None:
                number = self._set_ids[level, alternatives] = len(self._sets)
                self._sets.append(self._within(level, self._values(level, alternatives)))
            values = self._sets[number]
            if not values:
                return None
            if values == self._universe[level]:
                continue
            key = (level, number, node)
            found = self._nodes.get(key)
            if found is None:
                found = self._nodes[key] = len(self._level)
                self._level.append(level)
                self._set.append(number)
                self._next.append(node)
                self._does.append(self._does[node])
            node = found
        return node

    def chain(self, lines: Lines) -> int:
        """The number of a list that lines lead to. It ends with a line that matches everything."""
        if lines not in self._list_ids:
            self._list_ids[lines] = len(self._lists)
            self._lists.append(lines)
        return self._list_ids[lines]

    def differences(self, left: Lines, right: Lines) -> list[tuple[str, Match]]:
        """Boxes without a packet in common, with what happens there, whose union is the difference."""
        found = self._merged(self._walk(self._trimmed(left), self._trimmed(right)))
        return [
            (outcome, {self.order[level]: self._alternatives(level, values) for level, values in region})
            for outcome, region in found
        ]

    def tidied(self, match: Match) -> Match:
        """The same match, its sets in the form that boxes have."""
        sets = {
            name: self._within(self._rank[name], self._values(self._rank[name], one)) for name, one in match.items()
        }
        return {name: self._alternatives(self._rank[name], values) for name, values in sets.items()}

    @property
    def cut_short(self) -> bool:
        """The limit struck: some box says that it was not looked at."""
        return self.work > WORK_LIMIT

    # The walk

    def _walk(self, left: Lines, right: Lines) -> tuple[_Outcome, ...]:
        if left == right:
            return ()
        known = self._known.get((left, right))
        if known is not None:
            return known
        self.work += len(left) + len(right)
        if self.work > WORK_LIMIT:
            return ((UNSEEN, ()),)
        level = min(self._first(left), self._first(right))
        if level == _END:
            outcome = self._fate(left, right)
            found: tuple[_Outcome, ...] = ((outcome, ()),) if outcome else ()
        else:
            found = self._cut(level, left, right)
        self._known[left, right] = found
        return found

    def _first(self, lines: Lines) -> int:
        """The first level that any of the lines constrains."""
        if not any(isinstance(one, tuple) for one in lines):
            return min(map(self._level.__getitem__, lines))  # type: ignore[arg-type]
        return min(self._level[node] for node in self._within_reach(lines))

    def _within_reach(self, lines: Lines) -> Iterator[int]:
        """The nodes of the lines, and of all that these lead to."""
        ahead, seen = [lines], set[int]()
        while ahead:
            for one in ahead.pop():
                if isinstance(one, int):
                    yield one
                    continue
                yield one[0]
                if one[1] not in seen:
                    seen.add(one[1])
                    ahead.append(self._lists[one[1]])

    def _cut(self, level: int, left: Lines, right: Lines) -> tuple[_Outcome, ...]:
        """The classes of one field's values, each walked on its own, and what is the same in several put together."""
        scope = self._scope(level, left, right)
        levels, sets = self._level, self._set
        used = {sets[node] for side in (left, right) for node in self._within_reach(side) if levels[node] == level}
        parts: dict[_Outcome, list[tuple[int, int]]] = {}
        sides = [self._index(level, side) for side in (left, right)]
        classes = self._classes(level, scope, used)
        if self.work > WORK_LIMIT:
            return ((UNSEEN, ((level, scope),)),)
        for values, active in classes:
            done: dict[int, int] = {}
            rest = [self._narrowed(level, side, active, done) for side in sides]
            for outcome in self._walk(rest[0], rest[1]):
                parts.setdefault(outcome, []).extend(values)
            if len(parts) > BOX_LIMIT:
                self.work = WORK_LIMIT + 1
        return tuple((told, self._with(level, held, region)) for (told, region), held in parts.items())

    def _with(self, level: int, held: list[tuple[int, int]], region: Region) -> Region:
        whole = self._tidy(level, held)
        return region if whole == self._universe[level] else tuple(sorted(((level, whole), *region)))

    def _scope(self, level: int, left: Lines, right: Lines) -> Values:
        """The values that some line matches which is not on both sides in the same place."""
        start, stop = 0, 0
        shorter = min(len(left), len(right))
        while start < shorter and left[start] == right[start]:
            start += 1
        while stop < shorter - start and left[-1 - stop] == right[-1 - stop]:
            stop += 1
        mine, theirs = left[start : len(left) - stop], right[start : len(right) - stop]
        ours, others = set(mine), set(theirs)
        differing = ours | others
        if [one for one in mine if one in others] == [one for one in theirs if one in ours]:
            differing = ours ^ others
        sets: set[int] = set()
        for one in differing:
            node = one if isinstance(one, int) else one[0]
            if self._level[node] != level:
                return self._universe[level]
            sets.add(self._set[node])
        return self._tidy(level, [value for number in sets for value in self._sets[number]], disjoint=False)

    def _index(self, level: int, lines: Lines) -> _Side:
        """Where in the list the lines stand that do not care, and those of each set."""
        free: list[int] = []
        caring: dict[int, list[int]] = {}
        for place, one in enumerate(lines):
            node = one if isinstance(one, int) else one[0]
            if self._level[node] == level:
                caring.setdefault(self._set[node], []).append(place)
            else:
                free.append(place)
        return free, caring, lines

    def _narrowed(self, level: int, side: _Side, active: frozenset[int], done: dict[int, int]) -> Lines:
        """What is left of a list in one class. `done`: the lists that lines lead to, as they are in this class."""
        places, caring, lines = side
        here = [caring[number] for number in active if number in caring]
        if here:
            places = sorted(itertools.chain(places, *here))
        self.work += len(places)
        levels, following = self._level, self._next
        kept: list[Line] = []
        for place in places:
            one = lines[place]
            if isinstance(one, int):
                kept.append(following[one] if levels[one] == level else one)
                continue
            node, below = one
            if below not in done:
                done[below] = self.chain(self._narrowed(level, self._index(level, self._lists[below]), active, done))
            kept.append((following[node] if levels[node] == level else node, done[below]))
        return self._trimmed(tuple(kept))

    def _trimmed(self, lines: Lines) -> Lines:
        """The lines up to the first that matches everything, less those that can make no difference."""
        kept: list[Line] = []
        seen: set[Line] = set()
        ahead = list(reversed(lines))
        while ahead:
            one = ahead.pop()
            if one in seen:
                continue
            seen.add(one)
            if isinstance(one, tuple):
                if one[0] == PERMIT:  # all that comes here goes on there
                    ahead = list(reversed(self._lists[one[1]]))
                else:
                    kept.append(one)
                continue
            kept.append(one)
            if one <= DENY:
                break
        last = kept[-1]
        while len(kept) > 1 and last in (PERMIT, DENY):  # what stands right above the end and says the same
            above = kept[-2]
            if not isinstance(above, int) or self._does[above] != last:
                break
            del kept[-2]
        return tuple(kept)

    def _fate(self, left: Lines, right: Lines) -> str:
        """What the two sides do where every line that is left matches, or may: "" when it is the same."""
        doubts = [node for node in dict.fromkeys(self._within_reach(left + right)) if node > DENY]
        if len(doubts) > _DOUBTS:
            return UNSURE
        seen = set()
        for choice in itertools.product((False, True), repeat=len(doubts)):
            told = dict(zip(doubts, choice, strict=True))
            before, after = (self._decided(side, told) for side in (left, right))
            seen.add("" if before == after else OPENED if after == PERMIT else CLOSED)
        return seen.pop() if len(seen) == 1 else UNSURE

    def _decided(self, lines: Lines, told: Mapping[int, bool]) -> int:
        for one in lines:
            if isinstance(one, tuple):
                if one[0] == PERMIT or told[one[0]]:
                    return self._decided(self._lists[one[1]], told)
            elif one <= DENY:
                return one
            elif told[one]:
                return self._doubts[one]
        return DENY

    # Sets of values

    def _values(self, level: int, alternatives: Alternatives) -> Values:
        if self._is_wild[level]:
            return self._tidy(level, list(alternatives), disjoint=False)
        bits = self._bits[level]
        return self._tidy(level, [one for value, mask in alternatives for one in _intervals(value, mask, bits)])

    def _within(self, level: int, values: Values) -> Values:
        universe = self._universe[level]
        if self._is_wild[level]:
            return self._tidy(level, list(intersection(values, universe)), disjoint=False)
        return tuple(
            (max(low, start), min(high, end))
            for low, high in values
            for start, end in universe
            if low <= end and start <= high
        )

    def _tidy(self, level: int, values: list[tuple[int, int]], disjoint: bool = True) -> Values:
        """The same set in its one form: intervals in order that do not touch, or few ternaries."""
        if self._is_wild[level]:
            bits = self._bits[level]
            if not disjoint:
                pieces: list[tuple[int, int]] = []
                for one in values:
                    pieces += intersection((one,), complement(tuple(pieces), bits)) if pieces else (one,)
                values = pieces
            return _joined(values)
        whole: list[tuple[int, int]] = []
        for low, high in sorted(values):
            if whole and low <= whole[-1][1] + 1:
                whole[-1] = (whole[-1][0], max(high, whole[-1][1]))
            else:
                whole.append((low, high))
        return tuple(whole)

    def _classes(self, level: int, scope: Values, used: set[int]) -> Iterable[tuple[Values, frozenset[int]]]:
        """The scope cut into sets of values, each with the sets of lines that it lies in as a whole."""
        found: dict[frozenset[int], list[tuple[int, int]]] = {}
        if self._is_wild[level]:
            parts: list[tuple[Values, frozenset[int]]] = [(scope, frozenset())]
            bits = self._bits[level]
            for number in used:
                outside = complement(self._sets[number], bits)
                cut: list[tuple[Values, frozenset[int]]] = []
                for values, active in parts:
                    self.work += len(values) * len(outside)
                    cut.append((intersection(values, self._sets[number]), active | {number}))
                    cut.append((intersection(values, outside), active))
                parts = [one for one in cut if one[0]]
                if self.work > WORK_LIMIT:
                    break
            return parts
        events: dict[int, list[int]] = {}
        for number in used:
            for low, high in self._sets[number]:
                events.setdefault(low, []).append(number)
                events.setdefault(high + 1, []).append(~number)
        for low, high in scope:
            events.setdefault(low, [])
            events.setdefault(high + 1, [])
        here: set[int] = set()
        points = sorted(events)
        inside = iter(scope)
        current = next(inside, None)
        for place, point in enumerate(points):
            for number in events[point]:
                if number >= 0:
                    here.add(number)
                else:
                    here.discard(~number)
            while current and current[1] < point:
                current = next(inside, None)
            if current and current[0] <= point:
                found.setdefault(frozenset(here), []).append((point, points[place + 1] - 1))
        return [(tuple(values), key) for key, values in found.items()]

    def _alternatives(self, level: int, values: Values) -> Alternatives:
        if self._is_wild[level]:
            return values
        return tuple(one for low, high in values for one in span(low, high, self._bits[level]))

    def _merged(self, outcomes: Iterable[_Outcome]) -> list[_Outcome]:
        """Boxes that differ in one field alone become one, as long as there are any."""
        boxes = list(outcomes)
        for _ in range(len(self.order)):
            before = len(boxes)
            for level in range(_END):
                groups: dict[_Outcome, list[tuple[int, int]]] = {}
                for outcome, region in boxes:
                    rest = tuple(one for one in region if one[0] != level)
                    values = next((values for at, values in region if at == level), self._universe[level])
                    groups.setdefault((outcome, rest), []).extend(values)
                boxes = []
                for (outcome, rest), found in groups.items():
                    boxes.append((outcome, self._with(level, found, rest)))
            if len(boxes) == before:
                break
        return boxes


def _wild(mask: int, bits: int) -> bool:
    """Does the mask leave bits free that stand above fixed ones, too many to list the intervals?"""
    tail = (mask & -mask).bit_length() - 1 if mask else bits
    free = bits - tail - mask.bit_count()
    return 1 << free > _INTERVALS


def _intervals(value: int, mask: int, bits: int) -> list[tuple[int, int]]:
    tail = (mask & -mask).bit_length() - 1 if mask else bits
    free = [1 << at for at in range(tail, bits) if not mask >> at & 1]
    found = []
    for choice in itertools.product((0, 1), repeat=len(free)):
        low = value + sum(bit for bit, on in zip(free, choice, strict=True) if on)
        found.append((low, low + (1 << tail) - 1))
    return found


def _joined(values: list[tuple[int, int]]) -> Values:
    """Disjoint ternaries, two that differ in one fixed bit made one as long as there are any."""
    found = set(values)
    again = len(found) > 1
    while again:
        again = False
        for value, mask in sorted(found):
            if (value, mask) not in found:
                continue
            rest = mask
            while rest:
                bit = rest & -rest
                rest ^= bit
                if (value ^ bit, mask) in found:
                    found -= {(value, mask), (value ^ bit, mask)}
                    found.add((value & ~bit, mask & ~bit))
                    again = True
                    break
    return tuple(sorted(found))
