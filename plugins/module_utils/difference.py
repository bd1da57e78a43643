# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which packets do two filters treat differently? As few boxes as can be, each with a packet and the deciding lines.

The boxes hold every packet that one side permits and the other denies, and none besides. Where a line in doubt leaves
it open whether there is a difference, a box says unknown, with the line; where the limit struck, one says that what is
in it was not looked at. The walk itself is in _difference_walk.py; before a packet is shown, the naive evaluator of
filters.py puts it to both sides.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from . import _difference_walk as walk
from ._difference_walk import Walk
from ._difference_words import beside_ports, without_ports, words
from .ask import stages
from .filters import DENY, GOTO, JUMP, PERMIT, RETURN, UNKNOWN, Configuration, Entry, Filter, evaluate, matches
from .packets import FIELDS, Alternatives, Match, Packet, conjunction, packet_text, union, width
from .search import usual_packet

BOXES = 50  # boxes that are told, when nobody asks for more
# The order in which sets are cut where nothing tells another one: what an engineer reads first.
_READING = (
    "fragment", "undetermined", "extension", "protocol", "destination_port", "source_port", "icmp_type", "icmp_code",
    "tcp_flags", "state", "tos", "options", "ttl", "length", "source", "destination",
)  # fmt: skip
_GATHERED = 200  # boxes that are tried as one
_INLINED = 4096  # lines that the lines of a jump may become
_OPENED, _CLOSED = "denied, now permitted", "permitted, now denied"
_CHANGES = {walk.OPENED: _OPENED, walk.CLOSED: _CLOSED}
_NOT_SEEN = "these packets were not compared: the lines overlap too much for the limit of one comparison"
# A line that says all it means by itself: its action stands in it.
_ACTION = re.compile(r"\b(permit|deny|accept|drop|discard|reject|return)\b")
_NUMBER = re.compile(r"^(?:(?:seq|rule|entry|sequence)\s+)?\d+\s+")


@dataclass(frozen=True, slots=True)
class Side:
    """What is compared: filters that a packet passes in their order; () permits everything."""

    configuration: Configuration
    filters: tuple[str, ...]
    platform: str = ""


@dataclass(frozen=True, slots=True)
class Box:
    """Packets that the sides treat differently: those of any of `matches`, but of none of `but`.

    `before` and `after` are permit, deny or unknown. `packet` is one of them, `lines_before` and `lines_after` are what
    it matches, the deciding line last (none: the end of the filter). `reason` says why it is unknown.
    """

    matches: tuple[Match, ...]
    but: tuple[Match, ...]
    family: int
    before: str
    after: str
    packet: Packet
    lines_before: tuple[Entry, ...]
    lines_after: tuple[Entry, ...]
    reason: str = ""

    @property
    def change(self) -> str:
        if self.reason:
            return "unknown"
        return _OPENED if self.after == PERMIT else _CLOSED

    @property
    def text(self) -> str:
        """The packets in words."""
        said = [words(match, self.family) for match in self.matches[:1]]
        said += [f"and {without_ports(match)}" for match in self.matches[1:]]
        said += [
            ("but not " if not number else "nor ") + words(match, self.family) for number, match in enumerate(self.but)
        ]
        return "; ".join(said)

    def holds(self, packet: Packet) -> bool:
        return any(matches(one, packet) for one in self.matches) and not any(matches(one, packet) for one in self.but)


@dataclass(frozen=True, slots=True)
class Difference:
    """`left_out`: how many boxes are not among `boxes`, by their change."""

    boxes: tuple[Box, ...]
    left_out: Mapping[str, int]

    def __bool__(self) -> bool:
        return bool(self.boxes)


def difference(before: Side, after: Side, family: int, limit: int = BOXES, unchanged: bool = False) -> Difference:
    """The packets of the family that `before` and `after` treat differently.

    `unchanged`: nothing but whole lines of the filters differs in the two texts, so that a line in doubt which both
    have is the same doubt on both sides. Lines that say all they mean by themselves are so on one platform anyway.
    """
    raw = [_Raw(side, family, unchanged, before.platform == after.platform) for side in (before, after)]
    found: list[tuple[str, Match]] | None = None
    for order in _orders(raw):
        one = Walk(family, order, raw[0].conditions | raw[1].conditions)
        boxes = one.differences(raw[0].lines(one), raw[1].lines(one))
        if found is None or (len(boxes) < len(found) and not one.cut_short):
            found = boxes
        if len(found) < 2 or one.cut_short or one.work > walk.WORK_LIMIT // 4:
            break
    gathered = sorted(_gathered(found or [], family), key=lambda one: _weight(one, family))
    left_out = Counter(_CHANGES.get(one.outcome, "unknown") for one in gathered[limit:])
    return Difference(tuple(_box(before, after, family, one) for one in gathered[:limit]), dict(left_out))


def unchanged_beside(before: str, after: str, sides: Sequence[Side]) -> bool:
    """Are the lines of the two texts the same, but for those that are entries of filters and are understood?"""
    rest = []
    for text, side in zip((before, after), sides, strict=True):
        entries = [entry for one in side.configuration.filters.values() for entry in one.entries]
        doubtful = {entry.line for entry in entries if entry.doubt or entry.action == UNKNOWN}
        sure = {entry.line for entry in entries} - doubtful
        rest.append(Counter(line.strip() for number, line in enumerate(text.splitlines(), 1) if number not in sure))
    return rest[0] == rest[1]


class _Raw:
    """One side's filters as lists of lines, jumps in place of what they lead to wherever they can be."""

    def __init__(self, side: Side, family: int, unchanged: bool, one_platform: bool) -> None:
        self._side = side
        self._family = family
        self._unchanged = unchanged
        self._one_platform = one_platform
        self._flat: dict[str, list[_Row] | None] = {}
        # The lines of all that is reached: what makes each the line it is, what it matches, every condition of them.
        self.rows = [
            ((entry.action, entry.target, bool(entry.doubt), tuple(match.items())), match)
            for name in self._reached()
            for entry in self._filter(name).entries
            for match in entry.matches
        ]
        self.conditions = {pair for (*_, pairs), _ in self.rows for pair in pairs}

    def defaults(self) -> list[str]:
        return [self._filter(name).default for name in self._side.filters]

    def lines(self, one: Walk) -> walk.Lines:
        """The side as the walk takes it."""
        behind: walk.Lines | None = None
        for name in reversed(self._side.filters):
            chosen = self._filter(name)
            after = walk.PERMIT if behind is None else (walk.PERMIT, one.chain(behind))
            # A line without a condition that leads to the next filter is what permits here.
            behind = self._listed(one, name, after, self._end(one, chosen, after), set())
        return behind if behind is not None else (walk.PERMIT,)

    def _filter(self, name: str) -> Filter:
        return self._side.configuration.filters[self._family, name]

    def _reached(self) -> list[str]:
        found = list(dict.fromkeys(self._side.filters))
        for name in found:
            targets = (entry.target for entry in self._filter(name).entries if entry.action in (JUMP, GOTO))
            found += [one for one in dict.fromkeys(targets) if one not in found]
        return found

    def _end(self, one: Walk, chosen: Filter, permit: walk.Line) -> walk.Lines:
        """What the filter does with a packet that none of its lines matches."""
        if chosen.default in (PERMIT, DENY):
            return (permit if chosen.default == PERMIT else walk.DENY,)
        key = ("default", bool(chosen.entries), chosen.text, None if self._one_platform else id(self))
        return (*_placed(one, {}, permit, key), walk.DENY)

    def _listed(self, one: Walk, name: str, permit: walk.Line, end: walk.Lines, above: set[str]) -> walk.Lines:
        """The filter's lines. `permit`: where a permitted packet goes; `end`: where one goes that none matches."""
        kept: list[walk.Line] = [*reversed(end)]  # from the last line to the first
        for entry in reversed(self._filter(name).entries):
            kept += reversed(self._entry(one, entry, permit, end, kept, {*above, name}))
        return tuple(reversed(kept))

    def _entry(
        self, one: Walk, entry: Entry, permit: walk.Line, end: walk.Lines, behind: list[walk.Line], above: set[str]
    ) -> list[walk.Line]:
        """The lines of one entry. `behind`: the lines that follow, the last one first."""
        target = permit
        if entry.action in (JUMP, GOTO) and entry.target not in above:
            flat = self._flattened(entry.target) if entry.action == JUMP and not entry.doubt else None
            if flat is not None and len(flat) * len(entry.matches) <= _INLINED:
                return [
                    line
                    for match in entry.matches
                    for inner, told in flat
                    if (both := conjunction(match, inner)) is not None
                    for line in self._lined(one, both, told, permit)
                ]
            back = (_lead(one, tuple(reversed(behind))),) if entry.action == JUMP else end
            target = _lead(one, self._listed(one, entry.target, permit, back, above))
        elif entry.action == RETURN:
            target = end[0] if len(end) == 1 else _lead(one, end)
        return [line for match in entry.matches for line in self._lined(one, match, entry, target)]

    def _flattened(self, name: str) -> list[_Row] | None:
        """The lines of a filter that a jump leads to, None when one of them returns, jumps or is too much."""
        if name not in self._flat:
            entries = self._filter(name).entries
            plain = all(entry.action in (PERMIT, DENY, UNKNOWN) for entry in entries)
            self._flat[name] = [(match, entry) for entry in entries for match in entry.matches] if plain else None
        return self._flat[name]

    def _lined(self, one: Walk, match: Match, entry: Entry, target: walk.Line) -> list[walk.Line]:
        """The lines of an entry. `target`: where it leads, and where it may lead if nothing is known of it."""
        known = entry.action != UNKNOWN
        if entry.action == DENY:
            target = walk.DENY
        if known and not entry.doubt:
            return _placed(one, match, target)
        text = _NUMBER.sub("", entry.text)
        same = self._unchanged or ("not documented" in entry.doubt and bool(_ACTION.search(text)))
        owner = None if same and self._one_platform else id(self)
        key = (text, entry.action, entry.doubt, tuple(match.items()), owner)
        lines = _placed(one, match, target, key)
        if not known:  # it matches, or may; and denies, or does not
            lines += _placed(one, match, walk.DENY, (key, DENY) if entry.doubt else None)
        return lines


_Row = tuple[Match, Entry]


def _lead(one: Walk, lines: walk.Lines) -> walk.Line:
    """A line that matches everything and leads to these."""
    return (walk.PERMIT, one.chain(lines))


def _placed(one: Walk, match: Match, target: walk.Line, doubt: object = None) -> list[walk.Line]:
    """The line in the walk: nothing where it matches nothing. `doubt`: the key of the doubt whether it matches."""
    action, chain = (target, None) if isinstance(target, int) else target
    node = one.line(match, action if doubt is None else one.doubt(doubt, action))
    if node is None:
        return []
    return [node if chain is None else (node, chain)]


def _orders(raw: Sequence[_Raw]) -> list[tuple[str, ...]]:
    """The fields in which the sides differ most narrowly come first; the second try is the order to read in."""
    keys = [{key for key, _ in side.rows} for side in raw]
    differing = [match for number, side in enumerate(raw) for key, match in side.rows if key not in keys[1 - number]]
    if not differing or raw[0].defaults() != raw[1].defaults():
        differing = [{}]
    wide = dict.fromkeys(FIELDS, 0.0)
    for match in differing:
        for name in FIELDS:
            share = sum(2.0 ** -mask.bit_count() for _, mask in match[name]) if name in match else 1.0
            wide[name] = max(wide[name], min(share, 1.0))
    several = Counter(name for name, _ in raw[0].conditions | raw[1].conditions)
    narrow = tuple(sorted(_READING, key=lambda name: (wide[name], -several[name] if several[name] > 64 else 0)))
    return list(dict.fromkeys((narrow, _READING)))


@dataclass(frozen=True, slots=True)
class _Gathered:
    """Some boxes of the walk with one outcome: they are all of `matches` but for `but`."""

    outcome: str
    matches: tuple[Match, ...]
    but: tuple[Match, ...]
    parts: tuple[Match, ...]


def _gathered(boxes: Sequence[tuple[str, Match]], family: int) -> list[_Gathered]:
    """Fewer boxes that hold the same packets: a whole and what it lacks, a line and the fragments without ports."""
    found = []
    for outcome in (walk.OPENED, walk.CLOSED, walk.UNSURE, walk.UNSEEN):
        parts = [match for told, match in boxes if told == outcome]
        groups: dict[object, list[Match]] = {}
        for match in parts:
            groups.setdefault((match.get("source"), match.get("destination")), []).append(match)
        whole = _whole(outcome, parts, family)
        wholes = [whole] if whole else [_whole(outcome, group, family) for group in groups.values()]
        found += [one for one in wholes if one]
        done = [match for one in wholes if one for match in one.parts]
        rest = [match for match in parts if match not in done]
        portless = [match for match in rest if without_ports(match)]
        for match in rest:
            if without_ports(match):
                continue
            also = [one for one in portless if beside_ports(one) == beside_ports(match)]
            portless = [one for one in portless if one not in also]
            found.append(_Gathered(outcome, (match, *also), (), (match, *also)))
        found += [_Gathered(outcome, (match,), (), (match,)) for match in portless]
    return found


def _whole(outcome: str, parts: Sequence[Match], family: int) -> _Gathered | None:
    """The parts as the smallest box that has them all in it, less a few; None where that is no shorter."""
    if not 2 < len(parts) <= _GATHERED:
        return None
    hull: dict[str, Alternatives] = dict(parts[0])
    for match in parts[1:]:
        hull = {name: union(values, match[name]) for name, values in hull.items() if name in match}
    one = Walk(family, _READING, {pair for match in (*parts, hull) for pair in match.items()})
    nodes = [one.line(match, walk.PERMIT) for match in (*parts, hull)]
    lines = [node for node in nodes if node is not None]
    holes = one.differences((*lines[:-1], walk.DENY), (lines[-1], walk.DENY))
    if one.cut_short or len(holes) + 1 >= len(parts):
        return None
    return _Gathered(outcome, (one.tidied(hull),), tuple(match for _, match in holes), tuple(parts))


def _weight(box: _Gathered, family: int) -> tuple[int, float]:
    """What is opened comes first, then what is closed, the largest of each first."""
    rank = (walk.OPENED, walk.CLOSED, walk.UNSURE, walk.UNSEEN).index(box.outcome)
    return rank, -max(_size(match, family) for match in box.parts)


def _size(match: Match, family: int) -> float:
    """The logarithm of the share of packets that match."""
    size = 0.0
    for name, alternatives in match.items():
        part = sum(2.0 ** -mask.bit_count() for _, mask in alternatives)
        size += math.log2(part) if part else -width(name, family)
    return size


def _box(before: Side, after: Side, family: int, box: _Gathered) -> Box:
    plain = [match for match in box.parts if not without_ports(match)] or box.parts
    packet = usual_packet(max(plain, key=lambda match: _size(match, family)), family)
    told = [_told(side, family, packet) for side in (before, after)]
    (was, lines_before), (now, lines_after) = told
    reason = ""
    if box.outcome == walk.UNSEEN:
        reason = _NOT_SEEN
    elif box.outcome == walk.UNSURE:
        unread = [entry for _, lines in told for entry in lines if entry.doubt or entry.action == UNKNOWN]
        said: dict[str, dict[int, None]] = {}
        for entry in unread:
            said.setdefault(entry.doubt or "which was not understood", {})[entry.line] = None
        told_of = [f"line {', '.join(map(str, lines))}, {doubt}" for doubt, lines in said.items()]
        reason = "not known: " + ("; ".join(told_of) or "what the end of the filter does")
    elif {was, now} != {PERMIT, DENY} or (now == PERMIT) != (box.outcome == walk.OPENED):
        reason = f"the two evaluators disagree on {dict(packet)}: please report this"
    return Box(box.matches, box.but, family, was, now, packet, lines_before, lines_after, reason)


def _told(side: Side, family: int, packet: Packet) -> tuple[str, tuple[Entry, ...]]:
    """What the naive evaluator says of the packet: permit, deny or unknown, and the entries that matched."""
    possible: set[str] = {PERMIT}
    entries: list[Entry] = []
    for name in side.filters:
        here, seen = evaluate(side.configuration, family, name, packet)
        entries += seen
        possible = possible - {PERMIT} | here
        if PERMIT not in here:
            break
    return possible.pop() if len(possible) == 1 else UNKNOWN, tuple(entries)


def sides(
    before: tuple[str, ModuleType], after: tuple[str, ModuleType], questions: Sequence[Mapping[str, Any]], family: int
) -> tuple[Side, Side, bool]:
    """The two texts, each with its platform, at the filter or attachment that each question names; are they alike
    beside the filters' lines? Raises ValueError where a text is none of its platform's, or has no such place."""
    found = []
    for which, (text, platform), question in zip(("before", "after"), (before, after), questions, strict=True):
        try:
            configuration = platform.parse(text, [question["attachment"]] if question.get("attachment") else [])
            found.append(Side(configuration, stages(configuration, question, family), platform.__name__))
        except ValueError as error:
            raise ValueError(f"{which}: {error}") from error
    return found[0], found[1], unchanged_beside(before[0], after[0], found)


def as_dict(found: Difference) -> dict[str, Any]:
    """Plain data for JSON and for Ansible's results."""
    return {"boxes": [_plain(box) for box in found.boxes], "left_out": dict(found.left_out)}


def _plain(box: Box) -> dict[str, Any]:
    return {
        "change": box.change,
        "family": box.family,
        "packets": box.text,
        "packet": packet_text(box.packet, box.family),
        "fields": dict(box.packet),
        "before": {"action": box.before, "lines": [{"line": one.line, "text": one.text} for one in box.lines_before]},
        "after": {"action": box.after, "lines": [{"line": one.line, "text": one.text} for one in box.lines_after]},
        "reason": box.reason,
    }
