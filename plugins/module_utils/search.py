# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Is there a packet in this header space that the filters permit, or deny? Which one, by which line?

A header is one integer, its fields side by side (`packets.FIELDS`), and a set of headers is a *cube*
`(value, mask)`: the bits in the mask are fixed. The search takes a cube, keeps the lines that meet it,
up to the first that covers it, and splits it on a bit that the first line cares about, until the first
line covers what is left. A cube in which no remaining line can give the wanted action is dropped whole:
that is what makes 10,000 lines cheap. The number of line tests is bounded; past it the answer is `unknown`.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from .filters import DENY, GOTO, JUMP, PERMIT, RETURN, UNKNOWN, Configuration, Entry, Filter, evaluate, matches
from .packets import FIELDS, POSSIBLE, WITH_PORTS, Alternatives, Match, Packet, conjunction, contains, width

# Line tests for one question and for one Search; a million take about 0.2 s on a 2020s core.
QUESTION_LIMIT = 5_000_000
SEARCH_LIMIT = 50_000_000
# Line tests before it is said of a list that its lines overlap too much to look for those without effect.
EFFECT_LIMIT = 10_000_000
# Entries that one Search may look at to make its witnesses look ordinary: about 0.05 s.
SPARE_LIMIT = 500_000
# How many cubes one line may become.
PRODUCT_LIMIT = 1024
# How many lines a list may become by those of the lists that it jumps to.
INLINE_LIMIT = 1_000_000

SKIP = "skip"  # the question does not ask about these packets

Cube = tuple[int, int]
# value, mask, factors (each a union of cubes; all must fit), action, target, in doubt
Line = tuple[int, int, tuple[tuple[Cube, ...], ...], str, str, bool]
# Unions that a packet must be in, one of each: what is left of a question's scope beside its cube.
_Gate = tuple[tuple[Cube, ...], ...]


@dataclass(frozen=True)
class Question:
    """Is there a packet in `scope`, not in `exempt`, for which the filters give `wanted`?"""

    wanted: str
    scope: tuple[Match, ...]
    exempt: tuple[Match, ...] = ()


@dataclass(frozen=True)
class Answer:
    """`found`: True, False, or None when a line in doubt or the limit leaves it open.

    `packet` shows it, `entries` are the lines that it matched, the deciding one last; both are there
    for True, and for None where a line in doubt is the reason. `reason` says why it is open.
    """

    found: bool | None
    packet: Packet | None = None
    entries: tuple[Entry, ...] = ()
    reason: str = ""


# For a forged source.
_OTHER_SOURCE = {4: 0xC0000207, 6: 0x20010DB8_0002 << 80 | 7}
# From a link-local address to all routers (RFC 4291), where only such packets are asked about.
_ON_LINK = {4: (), 6: ((0xFE80 << 112 | 7, 0xFF02 << 112 | 2),)}
# What a server answers with: to a client's port, SYN and ACK.
_ANSWERED = ({"destination_port": 49152}, {"tcp_flags": 0x12})


class _TooComplex(Exception):
    pass


@lru_cache(maxsize=2)
def _offsets(family: int) -> dict[str, int]:
    offsets, position = {}, 0
    for name in reversed(list(FIELDS)):
        offsets[name] = position
        position += width(name, family)
    return offsets


def _cubes(match: Match, family: int) -> Iterator[tuple[int, int, _Gate]]:
    """The match as cubes, each with what is left of its unions: value, mask, factors.

    Unions that tell lines apart (addresses, a few ports) are multiplied out, within reason; wide ones stay.
    """
    offsets = _offsets(family)
    value = mask = 0
    cubes = [(0, 0)]
    factors = []
    for name, alternatives in match.items():
        offset = offsets[name]
        if len(alternatives) == 1:
            value |= alternatives[0][0] << offset
            mask |= alternatives[0][1] << offset
        elif _tells_apart(name, alternatives) and len(cubes) * len(alternatives) <= PRODUCT_LIMIT:
            shifted = [(one << offset, care << offset) for one, care in alternatives]
            cubes = [(other | one, other_mask | care) for other, other_mask in cubes for one, care in shifted]
        else:
            factors.append(tuple((one << offset, care << offset) for one, care in alternatives))
    if all(factors):  # an empty union matches nothing
        for other, other_mask in cubes:
            yield value | other, mask | other_mask, tuple(factors)


def _tells_apart(name: str, alternatives: Alternatives) -> bool:
    if name in ("source_port", "destination_port"):
        return all(mask.bit_count() >= 12 for _, mask in alternatives)
    if name in ("source", "destination"):
        return sum(2.0 ** -mask.bit_count() for _, mask in alternatives) < 0.5  # "anything but bogons" does not
    return name == "protocol"


_EVERYTHING: Line = (0, 0, (), PERMIT, "", False)


def _through(cube: Cube, gate: _Gate) -> Cube | None:
    """A part of the cube that the gate lets through, None when there is none. Its factors are of different fields."""
    value, mask = cube
    for factor in gate:
        for one, care in factor:
            if not (one ^ cube[0]) & care & cube[1]:
                value, mask = value | one, mask | care
                break
        else:
            return None
    return value, mask


@lru_cache(maxsize=2)
def _usual(family: int) -> int:
    """An ordinary packet as a header: a TCP SYN between documentation addresses (RFC 5737, 3849)."""
    fields = {
        "protocol": 6, "source_port": 49152, "destination_port": 80, "tcp_flags": 2, "icmp_type": 8, "ttl": 64,
        "length": 60, "source": 0xC6336407, "destination": 0xCB007109,
    }  # fmt: skip
    if family == 6:
        fields |= {"source": 0x20010DB8_0001 << 80 | 7, "destination": 0x20010DB8_FFFF << 80 | 9}
    offsets = _offsets(family)
    return sum(value << offsets[name] for name, value in fields.items())


def _packet(cube: Cube, family: int) -> Packet:
    """The packet in the cube that differs least from the usual one."""
    value, mask = cube
    header = _usual(family) & ~mask | value
    return {name: header >> offset & (1 << width(name, family)) - 1 for name, offset in _offsets(family).items()}


def usual_packet(match: Match, family: int) -> Packet:
    """A packet of the match that looks as ordinary as the match lets it."""
    packet = dict(_packet((0, 0), family))
    usual = (packet["source"], packet["destination"], _OTHER_SOURCE[family])
    wishes = {"source": usual, "destination": usual[1::-1], "tcp_flags": (0x02, 0x10, 0x12)}
    for name, alternatives in match.items():
        wanted = wishes.get(name, (packet[name],))
        held = [one for one in wanted if contains(alternatives, one)]
        value, mask = min(alternatives, key=lambda one: (wanted[0] ^ one[0]) & one[1])
        packet[name] = held[0] if held else packet[name] & ~mask | value
    if packet["source"] == packet["destination"]:
        others = [one for one in usual if one != packet["source"]]
        kept = [one for one in others if contains(match.get("destination", ((0, 0),)), one)]
        packet["destination"] = kept[0] if kept else packet["destination"]
    if family == 6 and packet["fragment"] and "extension" not in match:
        packet["extension"] = 3
    return packet


def _answer(packet: Packet, possible: set[str], entries: tuple[Entry, ...], wanted: str) -> Answer:
    if possible == {wanted}:
        return Answer(True, packet, entries)
    unread = [entry for entry in entries if entry.doubt or entry.action == UNKNOWN]
    return Answer(None, packet, entries, next((entry.doubt or entry.text for entry in unread), ""))


def _whole(answer: Answer) -> Iterator[dict[str, int]]:
    """For a later fragment: whole packets with the ports of the entry that decides, which people know better."""
    if answer.packet and answer.packet["fragment"] & 0b10 and answer.entries:
        for match in answer.entries[-1].matches:
            ports = {name: match[name][0][0] for name in ("source_port", "destination_port") if name in match}
            if ports:
                yield {"fragment": 0, **ports}


class Search:
    """Questions to the filters of one configuration, of one family, answered from shared compiled lists."""

    def __init__(self, configuration: Configuration, family: int) -> None:
        self.configuration = configuration
        self.family = family
        self._compiled: dict[tuple[str, bool], list[Line]] = {}
        self._exempt: dict[tuple[tuple[tuple[str, Alternatives], ...], ...], list[Line]] = {}
        self._open: set[str] = set()  # lists that are being compiled, lest a loop of jumps compiles for ever
        self.spent = 0  # line tests so far
        self._spare = SPARE_LIMIT

    def ask(self, stages: Sequence[str], questions: Sequence[Question]) -> list[Answer]:
        """One answer per question. A packet passes when every filter named in `stages` permits it, in order.

        With no stage everything is permitted, as where no filter is bound.
        """
        pending = [
            ((value, mask), number, gate) for number, question in enumerate(questions) for match in question.scope
            if (possible := conjunction(match, POSSIBLE[self.family])) is not None
            for value, mask, gate in _cubes(possible, self.family)
        ]  # fmt: skip
        answers = [Answer(False)] * len(questions)
        if not pending:
            return answers
        lines = self._lines(stages[0], base=True) if stages else [_EVERYTHING]
        for cube, number, gate, near in _share(pending, lines):
            if not answers[number].found:
                answer = self._one(stages, questions[number], cube, gate, near)
                if answer.found or (answer.found is None and answers[number].found is False):
                    answers[number] = self._ordinary(stages, questions[number], answer) if answer.packet else answer
        return answers

    def without_effect(self, name: str) -> tuple[dict[int, tuple[int, ...]], list[int]] | None:
        """Lines of the text that decide about no packet of the filter: those that can never match, each with the lines
        that are in front of it, and those without which every packet has the same fate.

        Without all of them together nothing changes. What a doubt leaves open is in neither; None where the lines
        overlap too much.
        """
        chosen = self.configuration.filters[self.family, name]
        entries = chosen.entries
        pieces: dict[int, list[_Piece]] = {}
        every = [
            (*cube, str(number), "", True)  # covers nothing: what stands behind it matters as well
            for number, entry in enumerate(entries)
            for match in entry.matches
            for cube in _cubes(match, self.family)
        ]
        pending = [
            ((value, mask), number, gate) for number, entry in enumerate(entries) for match in entry.matches
            if (possible := conjunction(match, POSSIBLE[self.family])) is not None
            for value, mask, gate in _cubes(possible, self.family)
        ]  # fmt: skip
        for cube, number, gate, near in _share(pending, every):
            self.spent += len(near)
            if self.spent > EFFECT_LIMIT:
                return None
            met = [(line, int(line[3])) for line in _relevant(near, *cube)]
            pieces.setdefault(entries[number].line, []).append((cube, number, gate, met))
        hidden: dict[int, tuple[int, ...]] = {}
        needless: dict[int, None] = {}
        for line, of_it in pieces.items():
            if not any(self._reached(chosen, piece) for piece in of_it):
                hidden[line] = self._in_front(chosen, of_it)
        kept = {entry.line for entry in entries if entry.action not in (PERMIT, DENY)}
        for line, of_it in pieces.items():
            if line not in hidden and line not in kept:
                needless[line] = None
                if any(self._needed(chosen, piece, (hidden, needless)) for piece in of_it):
                    del needless[line]
        return hidden, list(needless)

    def _reached(self, chosen: Filter, piece: _Piece) -> bool:
        """Can a packet of the piece come to its entry?"""
        cube, number, gate, met = piece
        lines = [
            (*line[:5], bool(chosen.entries[place].doubt) or chosen.entries[place].action == JUMP)
            for line, place in met
            if place < number
        ]
        if not lines:
            return True
        return self._gives((chosen.name,), cube, gate, [*lines, (0, 0, (), str(number), "", False)], str(number))

    def _in_front(self, chosen: Filter, pieces: Sequence[_Piece]) -> tuple[int, ...]:
        """The lines that take every packet of the pieces: of each piece one, where one is enough."""
        found: dict[int, None] = {}
        for cube, number, _, met in pieces:
            before = [
                (line, chosen.entries[place])
                for line, place in met
                if place < number and chosen.entries[place].line != chosen.entries[number].line
            ]
            alone = [
                entry.line
                for (_, mask, factors, *_), entry in before
                if not entry.doubt and entry.action != JUMP and not factors and not mask & ~cube[1]
            ]
            found.update(dict.fromkeys(alone[:1] or [entry.line for _, entry in before]))
        return tuple(found)

    def _needed(self, chosen: Filter, piece: _Piece, gone: Sequence[Container[int]]) -> bool:
        """Can a packet of the piece come to its entry, and have another fate if the lines `gone` are not there?"""
        cube, number, gate, met = piece
        lines: list[Line] = []
        for (value, mask, factors, *_), place in met:
            entry = chosen.entries[place]
            if any(entry.line in lines_gone for lines_gone in gone):
                continue
            if place < number:
                lines.append((value, mask, factors, SKIP, "", bool(entry.doubt) or entry.action == JUMP))
            else:
                lines.append((value, mask, factors, entry.action, entry.target, bool(entry.doubt)))
        other = DENY if chosen.entries[number].action == PERMIT else PERMIT
        return self._gives((chosen.name,), cube, gate, [*lines, (0, 0, (), chosen.default, "", False)], other)

    def _gives(self, stages: Sequence[str], cube: Cube, gate: _Gate, lines: list[Line], wanted: str) -> bool:
        """Can a packet of the cube have this fate? Yes, too, where that is not known."""
        try:
            return next(self._leaves(stages, cube, gate, lines, wanted), None) is not None
        except _TooComplex:
            return True

    def _lines(self, name: str, base: bool) -> list[Line]:
        """The compiled filter; as a base it ends with its default, as a jump's target with a return."""
        key = name, base
        if key not in self._compiled:
            chosen = self.configuration.filters[self.family, name]
            end = chosen.default if base else RETURN
            lines: list[Line] = []
            self._open.add(name)
            for number, entry in enumerate(chosen.entries, 1):
                cubes = [cube for match in entry.matches for cube in _cubes(match, self.family)]
                behind = end if number == len(chosen.entries) else ""
                inside = self._inlined(entry, behind) if len(cubes) == 1 else None
                if inside is None or len(lines) + len(inside) > INLINE_LIMIT:
                    lines += [(*cube, entry.action, entry.target, bool(entry.doubt)) for cube in cubes]
                    continue
                [(value, mask, factors)] = cubes
                if mask or factors:
                    inside = [
                        (value | line[0], mask | line[1], factors + line[2], *line[3:])
                        for line in inside
                        if not (value ^ line[0]) & mask & line[1]
                    ]
                lines += inside
            self._open.discard(name)
            self._compiled[key] = [*lines, (0, 0, (), end, "", False)]
        return self._compiled[key]

    def _inlined(self, entry: Entry, behind: str) -> list[Line] | None:
        """The lines that can stand for a jump, each where the jump matches; None when they cannot.

        What falls off the end of a list that was gone to returns from here; of one that was jumped to, it goes on
        behind the jump, and so does what returns: to the action `behind`, or to lines ("") that it would have to reach.
        """
        if entry.action not in (JUMP, GOTO) or entry.doubt or entry.target in self._open:
            return None
        inside = self._lines(entry.target, base=False)
        if entry.action == GOTO:
            return inside
        left = {line[3] for line in inside[:-1]}
        if GOTO in left or (RETURN in left and not behind):
            return None
        return [(*line[:3], behind, "", line[5]) if line[3] == RETURN else line for line in inside[:-1]]

    def _one(self, stages: Sequence[str], question: Question, cube: Cube, gate: _Gate, near: list[Line]) -> Answer:
        key = tuple(tuple(match.items()) for match in question.exempt)
        if key not in self._exempt:
            cubes = [cube for match in question.exempt for cube in _cubes(match, self.family)]
            self._exempt[key] = [(*cube, SKIP, "", False) for cube in cubes]
        exempt = self._exempt[key]
        doubtful: Answer | None = None
        try:
            for leaf, actions in self._leaves(stages, cube, gate, exempt + near, question.wanted):
                answer = self._shown(stages, leaf, actions, question.wanted)
                if answer.found:
                    return answer
                doubtful = doubtful or answer
        except _TooComplex:
            doubtful = doubtful or Answer(None, reason="the lines overlap too much to decide within the search's limit")
        return doubtful or Answer(False)

    def _ordinary(self, stages: Sequence[str], question: Question, answer: Answer) -> Answer:
        """The same answer, shown by a packet that is as ordinary as the question and the filters let it be."""
        best = dict(answer.packet or {})
        usual = _packet((0, 0), self.family)
        near, far = usual["source"], usual["destination"]
        others = [name for name in FIELDS if name not in ("source", "destination")]
        if best["protocol"] in WITH_PORTS:
            others.remove("protocol")
        trials: list[dict[str, int]] = [
            *_whole(answer),
            *({"source": one, "destination": far} for one in (near, _OTHER_SOURCE[self.family])),
            {"source": far, "destination": near},
            *({"source": source, "destination": every} for source, every in _ON_LINK[self.family]),
            *({name: usual[name]} for name in others),
            {"tcp_flags": 0x10},  # where a SYN shows nothing, an ACK may
            *({"destination": one} for one in (far, near)),
            *({"source": one} for one in (near, far)),
        ]
        settled: set[str] = set()
        for trial in trials:
            if settled.isdisjoint(trial):
                shown = self._also(stages, question, {**best, **trial}, answer)
                if shown:
                    answer, best = shown, {**best, **trial}
                    settled |= trial.keys()
        for trial in _ANSWERED if best["source_port"] < 1024 else ():
            shown = self._also(stages, question, {**best, **trial}, answer)
            if shown:
                answer, best = shown, {**best, **trial}
        return answer

    def _also(self, stages: Sequence[str], question: Question, packet: Packet, like: Answer) -> Answer | None:
        """The answer with this packet, when it shows the same."""
        if packet == like.packet and packet["source"] != packet["destination"]:
            return like
        asked = matches(POSSIBLE[self.family], packet) and any(matches(one, packet) for one in question.scope)
        if not asked or packet["source"] == packet["destination"]:
            return None
        if any(matches(one, packet) for one in question.exempt) or self._spare < 0:
            return None
        self._spare -= sum(len(self.configuration.filters[self.family, name].entries) for name in stages)
        possible, entries = self._evaluated(stages, packet)
        same = possible == {question.wanted} if like.found else question.wanted in possible and len(possible) > 1
        return _answer(packet, possible, entries, question.wanted) if same else None

    def _shown(self, stages: Sequence[str], leaf: Cube, actions: frozenset[str], wanted: str) -> Answer:
        """The leaf's packet, put to the naive evaluator before anyone sees it."""
        packet = _packet(leaf, self.family)
        possible, entries = self._evaluated(stages, packet)
        if actions == {wanted} != possible:
            return Answer(None, reason=f"the two evaluators disagree on {packet}: please report this")
        return _answer(packet, possible, entries, wanted)

    def _evaluated(self, stages: Sequence[str], packet: Packet) -> tuple[set[str], tuple[Entry, ...]]:
        """What the naive evaluator says can happen to the packet, and the entries that matched it."""
        possible: set[str] = {PERMIT}
        entries: list[Entry] = []
        for name in stages:
            here, seen = evaluate(self.configuration, self.family, name, packet)
            entries += seen
            possible = possible - {PERMIT} | here
            if PERMIT not in here:
                break
        return possible, tuple(entries)

    def _leaves(
        self, stages: Sequence[str], cube: Cube, gate: _Gate, lines: list[Line], wanted: str
    ) -> Iterator[_Leaf]:
        """Cubes whose packets all have the same possible actions, the wanted one among them.

        After the first leaf in doubt only certain ones follow: one example of doubt is enough.
        """
        spent, doubt_shown = 0, False
        usual = _usual(self.family)
        gated = 0
        for factor in gate:
            for _, care in factor:
                gated |= care
        tasks: list[_Task] = [(cube[0], cube[1], lines, None, 0, frozenset())]
        while tasks:
            value, mask, lines, rest, stage, possible = tasks.pop()
            within = _through((value, mask), gate)
            last = stage >= len(stages) - 1
            # To permit is final in the last stage only; before it, it means to go on to the next.
            settled = possible if last else possible - {PERMIT}
            if within is None or (doubt_shown and settled - {wanted}):
                continue
            spent += len(lines)
            self.spent += len(lines)
            if spent > QUESTION_LIMIT or self.spent > SEARCH_LIMIT:
                raise _TooComplex
            lines = _merged(_relevant(lines, value, mask))
            open_still = doubt_shown or (settled == possible and wanted not in possible)
            if open_still and not _may_give(lines, rest, wanted, last, certain=doubt_shown):
                continue
            head = lines[0]
            bit = _splitting_bit(head, mask, value)
            if bit:
                alone = len(lines) == 2 and last and lines[1][3] in _FINAL
                if alone and not head[2] and not head[1] & gated:
                    # Only the head divides this cube: all of what it matches, and any packet that it does not.
                    unlike = (head[0] ^ usual) & head[1] & ~mask
                    bit = 1 << unlike.bit_length() - 1 if unlike else bit
                    tasks.append((value | bit & ~head[0], mask | bit, lines[1:], rest, stage, possible))
                    tasks.append((value | head[0], mask | head[1], lines, rest, stage, possible))
                    continue
                inside, common, others = _cluster(lines, head, bit, mask)
                parts: list[_Task] = [
                    (*piece, others, rest, stage, possible) for piece in _outside(value, mask, inside, common)
                ]
                parts.append((value | inside, mask | common, lines, rest, stage, possible))
                # The part with the ordinary packet comes out first, for a witness that looks like one.
                tasks += sorted(parts, key=lambda part: not (part[0] ^ usual) & part[1])
                continue
            action, target, doubt = head[3:]
            if action == RETURN and rest is None and not doubt:
                action = self.configuration.filters[self.family, stages[stage]].default
            if doubt:
                either = {action} if action in (PERMIT, DENY) else {PERMIT, DENY}
                tasks.append((value, mask, lines[1:], rest, stage, possible | either))
            elif action == JUMP:
                tasks.append((value, mask, self._lines(target, base=False), (lines[1:], rest), stage, possible))
            elif action == GOTO:
                tasks.append((value, mask, self._lines(target, base=False), rest, stage, possible))
            elif action == RETURN and rest is not None:
                tasks.append((value, mask, rest[0], rest[1], stage, possible))
            elif action != SKIP:
                actions = possible | ({PERMIT, DENY} if action == UNKNOWN else {action})
                if PERMIT in actions and not last:
                    onward = self._lines(stages[stage + 1], base=True)
                    tasks.append((value, mask, onward, None, stage + 1, actions - {PERMIT}))
                elif wanted in actions and not (doubt_shown and actions != {wanted}):
                    doubt_shown = doubt_shown or actions != {wanted}
                    yield within, actions


_Leaf = tuple[Cube, frozenset[str]]
# A part of what an entry matches, the entry's place, the rest of its unions, and the lines that meet it, with places.
_Piece = tuple[Cube, int, _Gate, list[tuple[Line, int]]]
_Rest = tuple[list[Line], "_Rest | None"]
# The cube's value and mask, the lines ahead, where they return to, the stage, what an entry in doubt made possible.
_Task = tuple[int, int, list[Line], "_Rest | None", int, frozenset[str]]
_FINAL = (PERMIT, DENY, SKIP, UNKNOWN)


def _may_give(lines: list[Line], rest: _Rest | None, wanted: str, last: bool, certain: bool) -> bool:
    """Can one of the lines decide so, or one of those that they return to? `certain`: lines in doubt do not count."""
    while True:
        actions = {line[3] for line in lines if not (certain and line[5])}
        if not actions.isdisjoint((wanted, UNKNOWN, JUMP, GOTO)) or (PERMIT in actions and not last):
            return True
        if RETURN not in actions or rest is None:
            return RETURN in actions
        lines, rest = rest


def _relevant(lines: list[Line], value: int, mask: int) -> list[Line]:
    """The lines that meet the cube, in their order, up to the first that covers it for certain."""
    kept = []
    free = ~mask
    for start in range(0, len(lines), 256):  # in pieces, because a cover often comes early
        for line in [line for line in lines[start : start + 256] if not (line[0] ^ value) & line[1] & mask]:
            covers = not line[1] & free
            for factor in line[2]:
                meets = covered = False
                for one, care in factor:
                    if not (one ^ value) & care & mask:
                        meets = True
                        if not care & free:
                            covered = True
                            break
                if not meets:
                    break
                covers = covers and covered
            else:
                kept.append(line)
                if covers and not line[5] and line[3] != JUMP:
                    return kept
    return kept


def _merged(lines: list[Line]) -> list[Line]:
    """One line for them all where all say the same: whichever of them it is."""
    action = lines[0][3]
    if action in (PERMIT, DENY) and all(line[3] == action for line in lines):
        return [(0, 0, (), action, "", False)]
    return lines


def _splitting_bit(line: Line, mask: int, value: int) -> int:
    """The first bit that the line cares about and the cube leaves free; 0 when the line covers the cube."""
    free = line[1] & ~mask
    if not free:
        for factor in line[2]:
            meeting = [care & ~mask for one, care in factor if not (one ^ value) & care & mask]
            if all(meeting):
                free = meeting[0]
                break
    return 1 << free.bit_length() - 1 if free else 0


def _cluster(lines: list[Line], head: Line, bit: int, mask: int) -> tuple[int, int, list[Line]]:
    """The bits that the head shares with most lines, their value, and the lines outside: these may lack the bits.

    `bit` is among the bits. A list of hosts of one prefix is thus entered in one step, not bit by bit.
    """
    inside, common = (head[0], head[1] & ~mask) if head[1] & bit else (bit, bit)
    others = []
    for line in lines:
        shared = common & line[1] & ~(line[0] ^ inside)
        if shared & bit:
            # Down to the first that it does not share: what is left outside are prefixes, as the other lines have them.
            common = shared & -1 << (common & ~shared).bit_length()
        else:
            others.append(line)
    return inside & common, common, others


def _outside(value: int, mask: int, inside: int, common: int) -> Iterator[Cube]:
    """What of the cube differs from `inside` in one of the common bits, as disjoint cubes."""
    while common:
        bit = 1 << common.bit_length() - 1
        yield value | bit & ~inside, mask | bit
        value, mask, common = value | bit & inside, mask | bit, common & ~bit


_Pending = tuple[Cube, int, _Gate]


def _share(pending: list[_Pending], lines: list[Line]) -> Iterator[tuple[Cube, int, _Gate, list[Line]]]:
    """Give each cube the lines that may meet it, narrowing for ever smaller groups of like cubes."""
    if len(pending) == 1 or len(lines) < 32:
        yield from ((*one, lines) for one in pending)
        return
    first = pending[0][0][0]
    common, fixed, differ = -1, 0, 0
    for (value, mask), _, _ in pending:
        common &= mask
        fixed |= mask
        differ |= value ^ first
    common &= ~differ
    near = _merged(_relevant(lines, first & common, common))
    apart = fixed & ~common
    if not apart:
        yield from ((*one, near) for one in pending)
        return
    bit = 1 << apart.bit_length() - 1
    for group in (
        [one for one in pending if not one[0][1] & bit],
        [one for one in pending if one[0][1] & bit and not one[0][0] & bit],
        [one for one in pending if one[0][0] & bit],
    ):
        if group:
            yield from _share(group, near)
