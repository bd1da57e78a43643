# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Traffic policies of VRP: what the classifiers, lists and behaviors of one amount to on a place, as a filter."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..filters import DENY, PERMIT, UNKNOWN, Doubt, Entry, Filter
from ..packets import Alternatives, Match, conjunction, exactly, flags_any, prefix
from ..plan import OURS
from ._cisco_dialect import DSCP, TCP
from ._vrp_rules import ANY_GROUP, List, Rule, Rules, whole
from ._vrp_text import Acl, Block, Cut

# Actions of a behavior that leave it to the rest whether a packet passes.
_HARMLESS = frozenset(
    {
        "car", "remark", "statistic", "statistics", "traffic-statistic", "user-queue", "flow-queue", "queue", "gts",
        "mirroring", "port-mirroring", "observing-port", "priority", "service-class", "sample", "load-balance", "nat",
        "description", "match", "increase-ttl", "account", "tariff-level", "qos-profile", "netstream", "wred", "af",
        "ef", "be", "llq", "ip", "ipv6", "http-reply", "trust", "rate-limit", "urpf", "undo", "local-mirroring",
    }
)  # fmt: skip
_COUNTS = frozenset({"deny", "permit", "description", "statistic", "statistics", "traffic-statistic", "match"})
_POLICY_WORDS = frozenset({"classifier", "description", "share-mode", "statistic", "statistics", "undo", "step"})
_CLASSIFIER_WORDS = frozenset({"if-match", "description", "undo"})
_CHECKS = {("ip", "urpf", "strict"), ("ipv6", "urpf", "strict")}
_SEGMENT_DOUBT = "a rule that names no user group, and whether it sees the traffic of users is not documented"
_BOTH_DOUBT = "a rule from users to users, which only a board with match-type destination-user sees"
_INBOUND_DOUBT = "the inbound policy sees what goes to users only where it comes in on an interface without a policy"
_NO_GROUP_DOUBT = "a rule of the system view's policy, and whether this interface's traffic meets it is not documented"
_LIST_DOUBT = "a list that is no user list in a policy of the system view"


@dataclass(frozen=True, slots=True)
class Behavior:
    """What becomes of the packets that a classifier chose. `more`: an action beside permit and deny, with its line."""

    action: str  # PERMIT, DENY or UNKNOWN
    why: str = ""
    check: tuple[str, int] = ("", 0)  # the line of a strict source check
    more: str = ""


@dataclass(frozen=True, slots=True)
class Segment:
    """What one `if-match` (or all of them, operator and) contributes. `source`: the list that is all of it."""

    entries: tuple[Entry, ...]
    behavior: Behavior
    source: List | None = None


@dataclass(frozen=True, slots=True)
class View:
    """A policy on a place: its filter, and the line of a source check that everything it permits has passed."""

    filter: Filter
    check: tuple[str, int]
    own: bool  # the filter is that of one list, by the list's own name


class Policies:
    """Reads policies; each list and each view of a policy once."""

    def __init__(self, cut: Cut) -> None:
        self.cut = cut
        self.doubts: list[Doubt] = []
        rules = Rules(cut)
        pools = str([*cut.address_pools.values(), *cut.port_pools.values()])
        found = {key: _kept(rules, acl, pools) for key, acl in cut.acls.items()}
        self.lists = {key: one for key, (one, _) in found.items()}
        self.filters = {key: chosen for key, (_, chosen) in found.items()}
        self._behaviors: dict[str, Behavior] = {}
        self._doubted: set[int] = set()
        self._views: dict[tuple[object, ...], View] = {}

    def list_named(self, family: int, name: str) -> List | None:
        name = str(int(name)) if name.isdecimal() and len(name) < 6 else name
        return self.lists.get((family, self.cut.numbers.get((family, name), name)))

    # -- a policy on a place -------------------------------------------------------------------------------------

    def on_interface(self, name: str, family: int) -> View:
        """The policy on an interface, where user lists see nothing."""
        return self._view(name, family, None, "", f"traffic policy {name}")

    def on_users(self, name: str, family: int, group: str, side: str, inbound: bool) -> View:
        """The policy of the system view for a user group, `side` source (up) or destination (down)."""
        title = f"traffic policy {name}{' inbound' if inbound and side == 'destination' else ''} user-group {group}"
        return self._view(name, family, group, side, title, inbound and side == "destination")

    def beside_users(self, name: str, family: int) -> View:
        """The policy of the system view on an interface without one: its rules without user groups, all in doubt."""
        return self._view(name, family, "", "", f"traffic policy {name} of the system view")

    def _view(
        self, name: str, family: int, group: str | None, side: str, title: str, unsure: bool = False
    ) -> View:  # fmt: skip
        key = name, family, group, side, unsure
        if key not in self._views:
            self._views[key] = self._read_view(name, family, group, side, title, unsure)
        return self._views[key]

    def _read_view(
        self, name: str, family: int, group: str | None, side: str, title: str, unsure: bool
    ) -> View:  # fmt: skip
        block = self.cut.policies.get(name)
        if block is None:
            missing = Filter(title, family, (), PERMIT, 0, f"traffic policy {name}, which is not defined")
            return View(missing, ("", 0), False)
        entries: list[Entry] = []
        sources: list[List | None] = []
        checks: list[tuple[str, int]] = []
        for segment in self._segments(block, family, group, side, unsure):
            entries += segment.entries
            sources.append(segment.source)
            if any(entry.action != DENY for entry in segment.entries):
                checks.append(segment.behavior.check)
            if any(whole(entry) for entry in segment.entries):
                break
        ends = any(whole(entry) for entry in entries)
        check = checks[0] if ends and checks and all(text for text, _ in checks) else ("", 0)
        only = sources[0] if len(sources) == 1 else None
        named = only is not None and (group is None or only.name.startswith(OURS))
        if only is not None and named and tuple(entries) == self.filters[family, only.name].entries:
            return View(self.filters[family, only.name], check, True)
        return View(Filter(title, family, tuple(entries), PERMIT, block.line, block.text), check, False)

    def _segments(self, block: Block, family: int, group: str | None, side: str, unsure: bool) -> Iterator[Segment]:
        yield from _not_read(block, _POLICY_WORDS)
        for name, behavior, line, text in self.classifiers(block):
            chosen = self.cut.classifiers.get(name)
            effect = self.behavior(behavior)
            if chosen is None:
                self._say(line, text, f"the classifier {name} is not defined")
                continue
            for segment in self._classified(chosen, effect, family, group, side, unsure):
                if segment.entries:
                    yield segment

    def classifiers(self, block: Block) -> list[tuple[str, str, int, str]]:
        """(classifier, behavior, line, text) of a policy, in the order in which they are asked."""
        found: list[tuple[int | None, tuple[str, str, int, str]]] = []
        for number, words, text in block.lines:
            if words[0] != "classifier" or len(words) < 2:
                continue
            precedence = words[words.index("precedence") + 1 :] if "precedence" in words else []
            behavior = words[3] if words[2:3] == ["behavior"] and len(words) > 3 else ""
            rank = int(precedence[0]) if precedence and precedence[0].isdecimal() and len(precedence[0]) < 6 else None
            found.append((rank, (words[1], behavior, number, text)))
        ranks = [rank for rank, _ in found if rank is not None]
        if len(ranks) == len(found):
            found.sort(key=lambda pair: pair[0] or 0)
        elif ranks != sorted(ranks):
            self._say(block.line, block.text, "some classifiers have a precedence and some have none")
        return [one for _, one in found]

    def behavior(self, name: str) -> Behavior:
        if name not in self._behaviors:
            self._behaviors[name] = self._read_behavior(name)
        return self._behaviors[name]

    def _read_behavior(self, name: str) -> Behavior:
        block = self.cut.behaviors.get(name)
        if block is None:
            return Behavior(UNKNOWN, f"the behavior {name} is not defined")
        action, why, check, more = PERMIT, "", ("", 0), ""
        for number, words, text in block.lines:
            if words == ["deny"]:
                action = DENY
            elif words == ["permit"]:
                continue
            elif tuple(words) in _CHECKS:
                check = text, number
            elif words[0] == "car" and {"cir", "0"} <= set(words[:3]):
                why = "a rate of 0 passes nothing or something"
            elif words[0] not in _HARMLESS and (words[0] != "redirect" or "null" in text.lower()):
                why = f"what '{text}' does to a packet is not modelled"
            if words[0] not in _COUNTS and tuple(words) not in _CHECKS:
                more = more or text
        return Behavior(UNKNOWN if why and action == PERMIT else action, why, check, more)

    # -- a classifier --------------------------------------------------------------------------------------------

    def _classified(
        self, block: Block, effect: Behavior, family: int, group: str | None, side: str, unsure: bool
    ) -> Iterator[Segment]:
        """What a classifier contributes, one segment for each `if-match` of operator or."""
        yield from _not_read(block, _CLASSIFIER_WORDS)
        matches = [(number, words[1:], text) for number, words, text in block.lines if words[0] == "if-match"]
        told = [word for word in block.words[3:5] if word not in ("operator", "type")]  # CloudEngines say `type`
        if len(matches) > 1 and (len(told) != 1 or told[0] not in ("and", "or")):
            self._say(block.line, block.text, "the operator of several conditions is not given")
            yield Segment((Entry(UNKNOWN, ({},), block.line, block.text),), effect)
            return
        if told == ["and"] and len(matches) > 1:
            yield self._joined(matches, effect, family, group, side, unsure)
            return
        for number, words, text in _by_precedence(matches):
            found = self._if_match(number, words, text, family)
            if isinstance(found, List):
                yield self._of_classified_list(found, effect, group, side, unsure)
            elif found is not None:
                match, doubt = found
                doubt = doubt or (_SEGMENT_DOUBT if group is not None else "")
                entry = _acted(Entry(PERMIT, (match,), number, text, "", doubt), effect)
                yield Segment((entry,), effect)

    def _of_classified_list(
        self, chosen: List, effect: Behavior, group: str | None, side: str, unsure: bool
    ) -> Segment:  # fmt: skip
        rules, doubts = _seen(chosen, group, side)
        if not rules:
            return Segment((), effect)
        unsaid = _INBOUND_DOUBT if unsure else ""
        if group is not None and chosen.kind != "ucl":
            unsaid = _LIST_DOUBT
        entries: list[Entry] = []
        same = len(rules) == len(chosen.rules) and len({rule.group for rule in rules}) < 2
        if same and effect.action == PERMIT and not unsaid and not any(doubts):
            entries += self.filters[chosen.family, chosen.name].entries
        else:
            for doubt, some in itertools.groupby(zip(rules, doubts, strict=True), key=lambda pair: pair[1]):
                entries += chosen.entries(effect.action == DENY, unsaid or doubt, [rule for rule, _ in some])
        acted = tuple(_acted(entry, effect) for entry in entries)
        return Segment(acted, effect, chosen if effect.action == PERMIT else None)

    def _joined(
        self, matches: Sequence[tuple[int, list[str], str]], effect: Behavior, family: int, group: str | None,
        side: str, unsure: bool,
    ) -> Segment:  # fmt: skip
        """Operator and: every condition holds; each rule of a list together with all the others."""
        number, _, text = matches[0]
        base: Match | None = {}
        doubt, chosen = "", None
        for line, words, said in matches:
            found = self._if_match(line, words, said, family)
            if found is None:
                return Segment((), effect)
            if isinstance(found, List):
                if chosen is not None:
                    return Segment((Entry(UNKNOWN, ({},), line, said),), effect)
                chosen = found
            elif base is not None:
                base = conjunction(base, found[0])
                doubt = doubt or found[1]
        if base is None:
            return Segment((), effect)
        if chosen is None:
            doubt = doubt or (_SEGMENT_DOUBT if group is not None else "")
            return Segment((_acted(Entry(PERMIT, (base,), number, text, "", doubt), effect),), effect)
        inner = self._of_classified_list(chosen, effect, group, side, unsure)
        entries = []
        for entry in inner.entries:
            both = [one for match in entry.matches if (one := conjunction(base, match)) is not None]
            if both:
                why = entry.doubt or doubt
                entries.append(Entry(entry.action, tuple(both), entry.line, entry.text, "", why))
        return Segment(tuple(entries), effect)

    def _if_match(self, number: int, words: list[str], text: str, family: int) -> List | tuple[Match, str] | None:
        """A list, or a match and why it is not certain; None for what is about packets of the other family."""
        rest = words[1:] if words[:1] == ["ipv6"] else words
        wanted = 6 if words[:1] == ["ipv6"] else 4
        if rest[:1] == ["acl"] and len(rest) > 1:
            if rest[1] == "ipv6" and len(rest) > 2:
                wanted, rest = 6, rest[1:]
            name = rest[2] if rest[1] == "name" and len(rest) > 2 else rest[1]
            found = self.list_named(wanted, name)
            if found is not None and not found.kind:
                self._say(number, text, f"what the list {name} compares is no IP header")
                return {}, "a list that compares other things than IP headers"
            # A list that is not there, or has no rules, matches nothing (ACL Matching Process).
            return found if found is not None and wanted == family else None
        if wanted == 6 and family == 4:
            return None
        # Without `ipv6` a condition is about IPv4 packets; some devices compare IPv6 packets too.
        doubt = "" if wanted == family else "whether a condition without 'ipv6' is about IPv6 packets differs"
        match = _header(rest, family)
        if match is None:
            return {}, f"the condition '{text}' is not modelled"
        return match, doubt

    def _say(self, line: int, text: str, reason: str) -> None:
        if line not in self._doubted:
            self._doubted.add(line)
            self.doubts.append(Doubt(line, text, reason))


def _not_read(block: Block, known: frozenset[str]) -> Iterator[Segment]:
    """A line that is none of these may be a condition or a classifier that is garbled, at whatever place."""
    if block.words[3:5] == ["match-order", "auto"]:  # by the kinds of the classifiers, and differently on each device
        doubt = "match-order auto: which classifier is asked first is not modelled"
        yield Segment((Entry(UNKNOWN, ({},), block.line, block.text, "", doubt),), Behavior(UNKNOWN, doubt))
    for number, words, text in block.lines:
        if words[0] not in known:
            doubt = f"'{text}' in '{block.text}' is not understood"
            yield Segment((Entry(UNKNOWN, ({},), number, text, "", doubt),), Behavior(UNKNOWN, doubt))


_lists: dict[tuple[object, ...], tuple[List, Filter]] = {}
_MOST = 256


def _kept(rules: Rules, acl: Acl, pools: str) -> tuple[List, Filter]:
    """The list and its filter; of the states of a push, most lists are alike, and are read once."""
    said = tuple((number, text) for number, _, text in acl.lines)
    key = acl.family, acl.name, acl.kind, acl.line, acl.text, acl.auto, said, pools
    if key not in _lists:
        if len(_lists) >= _MOST:
            _lists.clear()
        one = rules.read(acl)
        _lists[key] = one, _of_list(one)
    return _lists[key]


def _of_list(one: List) -> Filter:
    """A list by itself: what no rule matches goes on, and whose it is where all rules are of one user group."""
    groups = {rule.group for rule in one.rules}
    unsure = "" if len(groups) < 2 else "its rules are of several user groups"
    return Filter(one.name, one.family, tuple(one.entries(unsure=unsure)), PERMIT, one.line, one.text)


def _by_precedence(matches: Sequence[tuple[int, list[str], str]]) -> list[tuple[int, list[str], str]]:
    """`if-match acl 6000 precedence 8`: in the order of these, where all have one."""
    ranks = [int(words[-1]) for _, words, _ in matches if words[-2:-1] == ["precedence"] and words[-1].isdecimal()]
    if len(ranks) != len(matches):
        return list(matches)
    return [match for _, match in sorted(zip(ranks, matches, strict=True), key=lambda pair: pair[0])]


def _acted(entry: Entry, effect: Behavior) -> Entry:
    """A rule that denies drops whatever the behavior says; what it permits has the behavior's fate."""
    if entry.action != PERMIT or effect.action == PERMIT:
        return entry
    if effect.action == UNKNOWN:
        return Entry(UNKNOWN, entry.matches, entry.line, entry.text, "", effect.why)
    return Entry(DENY, entry.matches, entry.line, entry.text, "", entry.doubt)


def _seen(chosen: List, group: str | None, side: str) -> tuple[list[Rule], list[str]]:
    """The rules of a list that can see the traffic of a place, and why that is not certain.

    `group` None: an interface, which user lists do not see; "": an interface and the system view's policy.
    """
    if group is None:
        return ([], []) if chosen.kind == "ucl" else (list(chosen.rules), [""] * len(chosen.rules))
    rules: list[Rule] = []
    doubts: list[str] = []
    for rule in chosen.rules:
        source, destination = rule.source_group, rule.destination_group
        own, other = (source, destination) if side == "source" else (destination, source)
        if group == "":
            if not rule.group:
                rules.append(rule)
                doubts.append(_NO_GROUP_DOUBT)
            continue
        if rule.action == UNKNOWN or not rule.group:
            rules.append(rule)
            doubts.append(_SEGMENT_DOUBT)
        elif own in (group, ANY_GROUP):
            rules.append(rule)
            doubts.append(_BOTH_DOUBT if other else "")
    return rules, doubts


def _header(words: list[str], family: int) -> Match | None:
    """The match of a condition on headers; None for one that is not modelled."""
    head, values = words[0] if words else "", words[1:]
    if head == "any":
        return {}
    if head == "dscp" and values:
        found: list[tuple[int, int]] = []
        for value in values:
            number = int(value) if value.isdecimal() and len(value) < 4 else DSCP.get(value, -1)
            if not 0 <= number < 64:
                return None
            found.append((number << 2, 0xFC))
        return {"tos": tuple(found)}
    if head == "ip-precedence" and values and all(value.isdecimal() and len(value) == 1 for value in values):
        return {"tos": tuple((int(value) << 5, 0xE0) for value in values)}
    if head == "tcp" and values[:1] == ["syn-flag"]:
        return _syn_flag(values[1:])
    if head in ("source-address", "destination-address") and len(values) == 2 and values[1].isdecimal():
        try:
            return {head.partition("-")[0]: prefix("/".join(values), family)}
        except ValueError:
            return None
    return None


def _syn_flag(words: list[str]) -> Match | None:
    flags: Alternatives
    if words[:2] == ["bit-match", "established"]:
        flags = flags_any(("ack", "rst"))
    elif words[:1] == ["bit-match"] and words[1:2] and words[1] in ("fin", "syn", "rst", "psh", "ack", "urg"):
        flags = flags_any((words[1],))
    elif words and words[0].isdecimal() and len(words[0]) < 4:
        mask = int(words[2]) if words[1:2] == ["mask"] and words[2:3] and words[2].isdecimal() else 63
        flags = ((int(words[0]) & mask & 255, mask & 255),)
    else:
        return None
    return {"protocol": exactly(TCP, 8), "tcp_flags": flags, "fragment": ((0, 2),), "undetermined": exactly(0, 1)}
