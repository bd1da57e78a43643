# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Chains become filters, base chains on the way of a packet become stages. What is modelled: linux_nftables.py."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from .. import packets
from ..filters import DENY, GOTO, JUMP, PERMIT, RETURN, UNKNOWN, Binding, Entry, Filter
from ..packets import Match, conjunction, exactly
from ._nftables_conditions import (
    ALL,
    ALWAYS,
    NEVER,
    OTHER,
    Condition,
    Matches,
    Place,
    address_of,
    any_of,
    both,
    condition_of,
    exact,
    names,
)
from ._nftables_parts import Flow, Map, Narrow, Part, Rewrite, Test, Verdict
from ._nftables_rules import parts_of
from ._nftables_text import FAMILIES, HOOKS, TRACKING, Chain, Rule, Ruleset, Table

_MARTIANS = ({"source": packets.prefix("0.0.0.0/8", 4)},)
_NEW_FLOW = exactly(packets.STATES["new"], 3)
_OFFLOADED: Match = {"protocol": ((6, 0xFF), (17, 0xFF)), "state": exactly(packets.STATES["established"], 3)}
# Words of rules that make the kernel track connections, and so put fragments together (nft_ct.c, nft_nat.c and others).
# Those in quotes are of iptables: `xt match "conntrack"`, in older listings `# xt_conntrack`.
_XT_DNAT = frozenset('"DNAT" "REDIRECT" "NETMAP" "FULLCONENAT" xt_DNAT xt_REDIRECT xt_NETMAP xt_FULLCONENAT'.split())
_TRACKING_WORDS = _XT_DNAT | frozenset(
    'ct masquerade snat dnat redirect flow synproxy tproxy "conntrack" "state" "connmark" "CONNMARK" "SNAT" '
    '"MASQUERADE" xt_conntrack xt_state xt_connmark xt_CONNMARK xt_SNAT xt_MASQUERADE'.split()
)

_BETWEEN = "what goes between subscribers takes this way"
_REWRITES = frozenset({"destination rewrite", "packet rewrite"})
_MOVED = "the packet was rewritten before, and passes as another one"
_BETWEEN_LIMIT = 500  # filters for what goes between subscribers in one base chain


@dataclass(frozen=True, slots=True)
class _Step:
    """A verdict of a rule; `target`: the chain that it calls; `reason`: why it is not known what happens."""

    action: str
    condition: Condition
    line: int
    target: Chain | None = None
    reason: str = ""


class Builder:
    """Filters and bindings of one ruleset. Compiles each chain once for each place where its meaning differs.

    `tracking`: families whose connections the kernel tracks whatever the rules say.
    """

    def __init__(
        self,
        ruleset: Ruleset,
        subscribers: tuple[str, ...],
        uplinks: tuple[str, ...],
        tracking: frozenset[int] = frozenset(),
        fits: Callable[[str, str], bool | None] | None = None,  # as in Place
        iptables: bool = False,  # as in Place
    ) -> None:
        self.ruleset, self.subscribers, self.uplinks = ruleset, subscribers, uplinks
        self._fits, self._iptables = fits, iptables
        self.filters: dict[tuple[int, str], Filter] = {}
        self._queue: list[tuple[Table, Chain, Place, str]] = []
        self._known: dict[tuple[Place, tuple[Test, ...]], Condition] = {}  # what tests hold for in a place
        self._checks: set[Rule] = set()  # the rules that are the source check of the attachment at hand
        read: dict[tuple[object, ...], list[Part]] = {}
        for table in ruleset.tables.values():
            for chain in list(table.chains.values()):  # reading adds the chains in place
                _read(table, chain, read)
        self._called: dict[Chain, list[Chain]] = {}
        self.touched: dict[Chain, frozenset[str]] = {}
        self.looping: set[Chain] = set()
        for table in ruleset.tables.values():
            for chain in table.chains.values():
                if chain not in self.touched:
                    self._touch(table, chain)
        every: frozenset[str] = frozenset().union(*self.touched.values())
        self._natted = bool(every & {"source rewrite", "destination rewrite"})
        self._rewritten = frozenset(name for name in ("tos", "ttl") if f"{name} rewrite" in every)
        self._flows = [
            (rule, part)
            for table in ruleset.tables.values()
            for chain in table.chains.values()
            for rule in chain.rules
            for part in rule.parts or ()
            if isinstance(part, Flow)
        ]
        words = {
            (family, word)
            for table in ruleset.tables.values()
            for chain in table.chains.values()
            for rule in chain.rules
            for word, _ in rule.tokens
            if word in _TRACKING_WORDS or word == "notrack"
            for family in FAMILIES[table.family]
        }
        self._notrack = any(word == "notrack" for _, word in words)
        self._tracking = tracking | {family for family, word in words if word != "notrack"}
        self._translated = "destination rewrite" in every or any(word in _XT_DNAT for _, word in words)

    def _touch(self, table: Table, start: Chain) -> None:
        """What the meaning of a chain depends on, its jumps followed; finds loops on the way."""
        own: dict[Chain, set[str]] = {}
        way: dict[Chain, Iterator[Chain]] = {}  # the chains that are being followed, in their order

        def enter(chain: Chain) -> None:
            own[chain] = {what for rule in chain.rules for part in rule.parts or () for what in _touches(part)}
            wanted = dict.fromkeys(target for rule in chain.rules for target in _targets(rule))
            self._called[chain] = [table.chains[name] for name in wanted if name in table.chains]
            way[chain] = iter(self._called[chain])

        enter(start)
        while way:
            chain = next(reversed(way))
            target = next(way[chain], None)
            if target is None:
                del way[chain]
                self.touched[chain] = frozenset(own[chain])
                if way:
                    own[next(reversed(way))] |= own[chain]
            elif target in way:
                turn = list(way)
                for looping in turn[turn.index(target) :]:
                    self.looping.add(looping)
                    own[looping].add("deny")
            elif target in self.touched:
                own[chain] |= self.touched[target]
            else:
                enter(target)

    # Filters

    def plain(self) -> None:
        """Every chain as it stands, for no attachment in particular."""
        for table in self.ruleset.tables.values():
            for chain in table.chains.values():
                for family in FAMILIES[table.family]:
                    place = self._place(family, chain, "", "")
                    self._ask(table, chain, place, _name(table, chain))
        self._compile_all()

    def _place(self, family: int, chain: Chain, attachment: str, direction: str) -> Place:
        priority = chain.priority or 0
        hidden = set(self._rewritten)
        tracked: bool | None = True
        whole = family in self._tracking
        if chain.hook == "ingress" or (chain.hook == "prerouting" and priority <= TRACKING):
            tracked = None if priority == TRACKING or self._notrack or chain.priority is None else False
            whole = whole and chain.hook == "prerouting" and priority > -400
        if self._natted and direction == "in" and chain.hook in ("postrouting", "egress") and priority > 100:
            hidden |= {"source", "source_port"}
        if self._natted and direction == "out" and chain.hook in ("ingress", "prerouting") and priority <= -100:
            hidden |= {"destination", "destination_port"}
        kind = chain.kind or "filter"
        place = Place(family, attachment, direction, chain.hook, priority, kind, whole, tracked, frozenset(hidden))
        place = replace(place, others=self.uplinks, not_others=self.subscribers)
        return replace(place, fits=self._fits, translated=self._translated, iptables=self._iptables)

    def _ask(self, table: Table, chain: Chain, place: Place, name: str) -> str:
        key = place.family, name
        if key not in self.filters:
            self.filters[key] = Filter(name, place.family, (), UNKNOWN, chain.line)  # until it is compiled
            self._queue.append((table, chain, place, name))
        return name

    def _compile_all(self) -> None:
        while self._queue:
            table, chain, place, name = self._queue.pop()
            self.filters[place.family, name] = self._compile(table, chain, place, name)

    def _compile(self, table: Table, chain: Chain, place: Place, name: str) -> Filter:
        text = self.ruleset.text(chain.line)
        if chain in self.looping:
            entry = Entry(UNKNOWN, ALL, chain.line, text, doubt="this chain jumps in a circle")
            return Filter(name, place.family, (entry,), UNKNOWN, chain.line, text)
        entries: list[Entry] = []
        for rule in chain.rules:
            entries += self._entries(table, rule, place)
        # Behind the last rule of a regular chain its caller goes on.
        default = chain.policy if chain.hook else UNKNOWN
        return Filter(name, place.family, tuple(entries), default, chain.line, text)

    def _entries(self, table: Table, rule: Rule, place: Place) -> Iterator[Entry]:
        for step in self._steps(table, rule, place):
            condition = step.condition
            if condition.some and step.action != PERMIT:
                # A permit counts that some of the network gets, a deny only if all of it does.
                condition = replace(condition, sure=(), reason=OTHER)
            target = self._ask_inner(table, step.target, place) if step.target else ""
            text = self.ruleset.text(step.line)
            if condition.sure:
                yield Entry(step.action, condition.sure, step.line, text, target, step.reason)
            # What is sure has been decided by then.
            sure = len(condition.sure)
            possible = condition.may[sure:] if condition.may[:sure] == condition.sure else condition.may
            if possible:
                doubt = step.reason or condition.reason or "not understood"
                yield Entry(step.action, possible, step.line, text, target, doubt)

    def _steps(self, table: Table, rule: Rule, place: Place) -> Iterator[_Step]:
        """What a rule does, and to which packets, in its order."""
        if rule in self._checks:
            return
        condition = ALWAYS
        tests: list[Test] = []
        for part in rule.parts or ():
            if isinstance(part, Test):
                tests.append(part)
                continue
            condition, tests = both(condition, self._together(tests, place)), []
            if not condition.may:
                return
            if isinstance(part, Narrow):
                condition = replace(condition, sure=(), reason=condition.reason or part.reason)
            elif isinstance(part, Verdict):
                yield from self._decide(table, rule, part, condition, place)
                return
            elif isinstance(part, Map):
                going_on: Matches = ()
                for test, verdict in part.cases:
                    here = both(condition, condition_of(test, place))
                    going_on += here.may if verdict.action == "continue" else ()
                    yield from self._decide(table, rule, verdict, here, place)
                if not going_on:
                    return
                condition = Condition((), going_on, "what goes on behind a verdict map is not worked out")
            elif isinstance(part, Flow):
                yield from self._flow(rule, part, condition, place)
            elif part.what in ("source", "destination", "packet"):
                yield self._rewrite(rule, part, condition, place)
                if part.what != "packet":
                    return

    def _together(self, tests: Sequence[Test], place: Place) -> Condition:
        """What tests hold for. Rules ask for the same ports again and again, at addresses that differ."""
        own: Match | None = {}
        others: list[Test] = []
        for test in tests:
            if test.selectors[0].family not in (0, place.family):
                return NEVER
            address = address_of(test, place)
            if address is None:
                others.append(test)
            elif own is not None:
                own = conjunction(own, address) if own else address
        if own is None:
            return NEVER
        key = place, tuple(others)
        if key not in self._known:
            self._known[key] = functools.reduce(both, (condition_of(test, place) for test in others), ALWAYS)
        return both(self._known[key], exact((own,))) if own else self._known[key]

    def _decide(
        self, table: Table, rule: Rule, verdict: Verdict, condition: Condition, place: Place
    ) -> Iterator[_Step]:
        line = verdict.line or rule.line
        if verdict.action in (JUMP, GOTO) and verdict.target not in table.chains:
            yield _Step(UNKNOWN, condition, line, None, f"the chain {verdict.target} is not in the text")
            return
        if place.kind == "nat" and verdict.action == DENY:
            # Only the first packet of a connection comes here.
            first = Condition(({"state": _NEW_FLOW},), ({"state": _NEW_FLOW}, {"state": exactly(2, 3)}),
                               "only the first packet of a connection meets this chain")  # fmt: skip
            condition = both(condition, first)
        if verdict.action != "continue" and condition.may:
            yield _Step(verdict.action, condition, line, table.chains.get(verdict.target))

    def _flow(self, rule: Rule, part: Flow, condition: Condition, place: Place) -> Iterator[_Step]:
        """The flow's next packets pass by all chains, if the kernel took it: TCP and UDP from the table's devices."""
        offloads = _offloads(part, place.attachment, place.direction)
        if offloads is False:
            return
        taken = both(condition, exact((_OFFLOADED,)))
        if offloads is None:
            taken = Condition((), taken.may, "whether flows from this interface are offloaded is not known")
        yield _Step(PERMIT, taken, rule.line)

    def _rewrite(self, rule: Rule, part: Rewrite, condition: Condition, place: Place) -> _Step:
        towards = {"in": "source", "out": "destination"}.get(place.direction)
        if part.what == towards:  # behind the packet's look on the attachment, or before it
            return _Step(PERMIT, condition, rule.line)
        matches = condition.may
        if place.direction == "out" and part.what == "source":
            gone = ("source", "source_port")
            matches = tuple({name: found for name, found in match.items() if name not in gone} for match in matches)
        doubt = "the packet is rewritten here: what becomes of it is not worked out"
        return _Step(UNKNOWN, Condition((), matches, doubt), rule.line)

    # Between subscribers

    def _sides_differ(self, start: Chain, place: Place) -> bool:
        """Whether a chain, or one it calls, asks for the interface on the other side."""
        return any(
            _asks_other_side(part, place)
            for chain in self._reached(start)
            if "interface" in self.touched[chain]
            for rule in chain.rules
            for part in rule.parts or ()
        )

    def _stricter_between(self, table: Table, start: Chain, place: Place) -> bool:
        """Whether what asks for the other side holds for no way to the network, and then only denies.

        What goes between subscribers then passes nothing that does not pass to the network.
        """
        for chain in self._reached(start):
            if "interface" not in self.touched[chain]:
                continue
            for rule in chain.rules:
                parts = list(rule.parts or ())
                if not any(_asks_other_side(part, place) for part in parts):
                    continue
                tests = [part for part in parts if isinstance(part, Test)]
                if any(not condition_of(test, place).may for test in tests if not _asks_other_side(test, place)):
                    continue  # it holds for nothing of this attachment, wherever it goes
                if len(tests) + 1 != len(parts) or not isinstance(parts[-1], Verdict):
                    return False
                to_network = [condition_of(test, place) for test in tests if _asks_other_side(test, place)]
                if parts[-1].action == PERMIT and all(one.sure for one in to_network):
                    continue  # what it permits passes to the network already
                if all(one.may for one in to_network):
                    return False
                target = table.chains.get(parts[-1].target)
                only_denies = target is not None and all(
                    isinstance(part, (Test, Narrow))
                    or (isinstance(part, Verdict) and part.action in (DENY, RETURN, JUMP, "continue"))
                    for one in self._reached(target)
                    for inner in one.rules
                    for part in inner.parts or ()
                )
                if parts[-1].action != DENY and not (parts[-1].action == JUMP and only_denies):
                    return False
        return True

    def _reached(self, start: Chain) -> list[Chain]:
        """The chain, and those that it calls."""
        found: dict[Chain, None] = {start: None}
        pending = [start]
        while pending:
            called = [one for one in self._called[pending.pop()] if one not in found]
            found |= dict.fromkeys(called)
            pending += called
        return list(found)

    def _between(self, table: Table, base: Chain, place: Place, name: str, doubt: str = _BETWEEN) -> bool:
        """A filter that permits, in doubt, what the chain permits in another place; False when that is nothing.

        The other place: between two attachments, or behind a rewrite.

        It must end at a deny however deep, and only a return ends a filter. So no chain is called here: each is made
        once more for every call, with what follows the call behind its end.
        """
        made: dict[tuple[Chain, int, str], str] = {}
        pending: list[tuple[Chain, int, str]] = []
        permits = False

        def follow(chain: Chain, start: int, behind: str) -> str:
            key = chain, start, behind
            if key not in made:
                made[key] = f"{name} {len(made)}" if made else name
                pending.append(key)
            return made[key]

        follow(base, 0, "")
        while pending:
            chain, start, behind = pending.pop()
            entries: list[Entry] = []
            too_much = len(made) > _BETWEEN_LIMIT or chain in self.looping

            # Called in this turn of the loop alone, so the entries are those of this turn.
            def add(action: str, matches: tuple[Match, ...], line: int, target: str = "", doubt: str = "") -> None:
                entries.append(Entry(action, matches, line, self.ruleset.text(line), target, doubt))  # noqa: B023

            for number, rule in enumerate(chain.rules[start:] if not too_much else (), start + 1):
                for step in self._steps(table, rule, place):
                    sure = () if step.condition.some else step.condition.sure
                    possible = step.condition.may if step.condition.may is not sure else ()
                    if step.action == DENY or (step.action == RETURN and not behind and chain.policy == DENY):
                        if sure:
                            add(RETURN, sure, step.line)
                        continue
                    if step.action in (PERMIT, UNKNOWN) or (step.action == RETURN and not behind):
                        add(PERMIT, step.condition.may, step.line, doubt=doubt)
                        permits = True
                        if sure:
                            add(RETURN, sure, step.line)
                        continue
                    if step.action == JUMP and step.target:
                        target = follow(step.target, 0, follow(chain, number, behind))
                    elif step.target:
                        target = follow(step.target, 0, behind)
                    else:
                        target = behind
                    if sure:
                        add(GOTO, sure, step.line, target)
                    if possible:  # both ways: called, it permits what it permits, and what follows is tried too
                        add(JUMP, possible, step.line, target)
            if behind and not too_much:
                add(GOTO, ALL, chain.line, behind)
            elif chain.policy == PERMIT or too_much:
                add(PERMIT, ALL, chain.line, doubt=doubt)
                permits = True
            text = self.ruleset.text(chain.line)
            own = made[chain, start, behind]
            self.filters[place.family, own] = Filter(own, place.family, tuple(entries), UNKNOWN, chain.line, text)
        if not permits:
            for one in made.values():
                del self.filters[place.family, one]
        return permits

    def _moved(self, table: Table, start: Chain, place: Place) -> Iterator[tuple[frozenset[str], Rule, Matches]]:
        """The rules that make another packet of one from the attachment: of which fields, and of which packets."""
        pending = [(start, ALWAYS)]
        for _ in range(_BETWEEN_LIMIT):
            chain, called = pending.pop()
            for rule in chain.rules:
                moved = [part.moved for part in rule.parts or () if isinstance(part, Rewrite) and part.moved]
                for step in self._steps(table, rule, place):
                    here = both(called, step.condition)
                    if moved and step.action == UNKNOWN:
                        yield moved[0], rule, here.may
                    elif step.target and here.may and self.touched[step.target] & _REWRITES:
                        pending.append((step.target, here))
            if not pending:
                return
        yield frozenset({"destination", "destination_port"}), start.rules[0], ALL  # too many calls, or a circle

    def _ask_inner(self, table: Table, chain: Chain, place: Place) -> str:
        """The name of a regular chain's filter for this place; the plain one where the place makes no difference."""
        touched = self.touched[chain]
        name = _name(table, chain)
        ordinary = place.hook in ("", "forward") and place.kind == "filter"
        moved = {"ttl"} if place.ttl else set()
        if ordinary and not touched & {"interface", "flow", "source rewrite", "destination rewrite", *moved}:
            return self._ask(table, chain, self._place(place.family, chain, "", ""), name)
        if place.attachment:
            name += f" @{place.attachment} {place.direction}"
        if not ordinary:
            name += f" {place.kind} {place.hook} {place.priority}"
        return self._ask(table, chain, place, name)

    # Bindings

    def _stages(self, family: int) -> list[tuple[Table, Chain]]:
        """The base chains on the way of a forwarded packet, in the kernel's order."""
        found = [
            (table, chain)
            for table in self.ruleset.tables.values()
            if family in FAMILIES[table.family] and table.family != "bridge" and not table.dormant
            for chain in table.chains.values()
            if chain.hook in HOOKS
        ]
        return sorted(found, key=lambda stage: (HOOKS.index(stage[1].hook), stage[1].priority or 0))

    def bind(self, attachment: str) -> tuple[list[Binding], Rule | None]:
        """The stages of an attachment in both directions, and the rule that checks its sources, if one does."""
        check = self._source_check(attachment)
        self._checks = {check} if check else set()
        bindings = []
        for family in (4, 6):
            stages = self._stages(family)
            for direction in ("in", "out"):
                filters = tuple(self._bind_stages(stages, family, attachment, direction))
                self._compile_all()
                if filters:
                    first = next((chain for _, chain in stages if chain.hook == "forward"), stages[0][1])
                    text = self.ruleset.text(first.line)
                    bindings.append(Binding(attachment, direction, family, filters, first.line, text))
        self._checks = set()
        return bindings, check

    def _bind_stages(
        self, stages: Sequence[tuple[Table, Chain]], family: int, attachment: str, direction: str
    ) -> Iterator[str]:
        offloaded: Rule | None = None
        idle: list[str] = []  # chains that accept everything: one of them stands for all where no other is
        moves: dict[frozenset[str], tuple[Rule, list[Match]]] = {}  # what earlier chains make another packet of
        found = False
        for table, chain in stages:
            touched = self.touched[chain]
            before: list[Entry] = []
            if family == 4 and chain.hook == "forward" and direction == "in":
                nobody = "IPv4 packets from 0.0.0.0/8 are martians, which Linux never forwards"
                before.append(Entry(DENY, _MARTIANS, chain.line, nobody))
            if chain.hook in ("ingress", "egress"):
                near = (chain.hook == "ingress") == (direction == "in")
                meets = any_of(names(device, attachment) for device in chain.devices) if near else None
                if meets is False:
                    continue
                if meets is None:
                    doubt = "only packets of this chain's devices meet it"
                    before.append(Entry(PERMIT, ALL, chain.line, self.ruleset.text(chain.line), doubt=doubt))
            if chain.hook != "forward" and "deny" not in touched and chain.policy == PERMIT:
                continue
            if offloaded:
                doubt = "flows that were offloaded pass by this chain"
                text = self.ruleset.text(offloaded.line)
                before.append(Entry(PERMIT, (_OFFLOADED,), offloaded.line, text, doubt=doubt))
            moved = [(fields, rule, tuple(matches)) for fields, (rule, matches) in moves.items()]
            if direction == "in" and touched & _REWRITES:
                for fields, rule, matches in self._moved(table, chain, self._place(family, chain, attachment, "in")):
                    moves.setdefault(fields, (rule, []))[1].extend(matches)
            if "flow" in touched:
                taking = (rule for rule, flow in self._flows if _offloads(flow, attachment, direction) is not False)
                offloaded = offloaded or next(taking, None)
            place = self._place(family, chain, attachment, direction)
            name = self._ask(table, chain, place, f"{_name(table, chain)} @{attachment} {direction}")
            self._compile_all()
            made = self.filters[family, name]
            if made.default == PERMIT and all(entry.action == PERMIT for entry in made.entries):
                idle += [name] if chain.hook == "forward" else []
                continue
            others = replace(place, others=self.subscribers, not_others=())
            differ = self._sides_differ(chain, place) and not self._stricter_between(table, chain, place)
            if differ and self._between(table, chain, others, f"{name} between"):
                before.append(Entry(JUMP, ALL, chain.line, self.ruleset.text(chain.line), f"{name} between"))
            for number, (fields, rule, matches) in enumerate(moved):
                other = replace(place, hidden=place.hidden | fields)
                if self._between(table, chain, other, f"{name} rewritten {number}", _MOVED):
                    text = self.ruleset.text(rule.line)
                    before.append(Entry(JUMP, matches, rule.line, text, f"{name} rewritten {number}"))
            self.filters[family, name] = replace(made, entries=(*before, *made.entries))
            found = True
            yield name
        if not found:
            yield from idle[:1]

    def _source_check(self, attachment: str) -> Rule | None:
        """The rule that drops all packets of the attachment whose source is not routed back to it, in both families."""
        found: dict[int, Rule] = {}
        for family in (4, 6):
            for table, chain in self._stages(family):
                if chain.hook in ("postrouting", "egress") or family in found:
                    continue
                place = self._place(family, chain, attachment, "in")
                for rule in chain.rules:
                    if _is_source_check(rule, place):
                        found[family] = rule
                    # A rule above it that may let packets go by makes it no check of all packets.
                    if family in found or any(step.action != DENY for step in self._steps(table, rule, place)):
                        break
        return found[4] if len(found) == 2 else None


def _is_source_check(rule: Rule, place: Place) -> bool:
    condition, check, verdict = ALWAYS, False, False
    for part in rule.parts or ():
        if isinstance(part, Test) and part.selectors[0].kind == "source-check":
            check = part.elements == (((0, 0, -1),),) and not part.negate and len(part.selectors) == 1
        elif isinstance(part, Test):
            condition = both(condition, condition_of(part, place))
        elif isinstance(part, Verdict):
            verdict = part.action == DENY
        else:
            return False
    return check and verdict and condition == ALWAYS


def _offloads(flow: Flow, attachment: str, direction: str) -> bool | None:
    """Whether packets of the attachment are offloaded: the flow table must have the device that they come in by."""
    if flow.devices is None:
        return None
    if direction == "in":
        return any_of(names(device, attachment) for device in flow.devices)
    if direction == "out":  # they come in by another one
        return any(names(device, attachment) is not True for device in flow.devices)
    return None


def _name(table: Table, chain: Chain) -> str:
    return f"{table.family} {table.name} {chain.name}"


def _touches(part: object) -> Iterator[str]:
    if isinstance(part, Test):
        for selector in part.selectors:
            yield selector.kind
    elif isinstance(part, Verdict) and part.action in (DENY, UNKNOWN):
        yield "deny"
    elif isinstance(part, Map):
        for test, verdict in part.cases:
            yield from (*_touches(test), *_touches(verdict))
    elif isinstance(part, Flow):
        yield "flow"
    elif isinstance(part, Rewrite):
        yield f"{part.what} rewrite"
        if part.what not in ("tos", "ttl"):
            yield "deny"


def _asks_other_side(part: object, place: Place) -> bool:
    if isinstance(part, Map):
        return any(_asks_other_side(test, place) for test, _ in part.cases)
    return isinstance(part, Test) and any(
        selector.kind == "interface" and selector.field != place.direction for selector in part.selectors
    )


def _targets(rule: Rule) -> Iterator[str]:
    for part in rule.parts or ():
        if isinstance(part, Verdict) and part.target:
            yield part.target
        elif isinstance(part, Map):
            yield from (verdict.target for _, verdict in part.cases if verdict.target)


def _read(table: Table, chain: Chain, known: dict[tuple[object, ...], list[Part]]) -> None:
    """The parts of every rule, those of chains in place too."""
    pending = [chain]
    while pending:
        chain = pending.pop()
        for rule in chain.rules:
            if rule.parts is None:
                before = len(table.chains)
                rule.parts = parts_of(table, chain, rule, known)
                if len(table.chains) > before:
                    pending += list(table.chains.values())[before:]
