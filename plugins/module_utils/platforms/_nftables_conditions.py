# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""For which packets a test of an nftables rule holds for certain, and for which it may. Sources: linux_nftables.py."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from .. import packets
from ..packets import LATER_FRAGMENT, Alternatives, Match, complement, conjunction, exactly, span, union
from ._nftables_parts import Selector, Test, Value
from ._nftables_selectors import EXTENSION_KEYS, EXTENSION_NUMBERS, STATE_BITS

Matches = tuple[Match, ...]
ALL: Matches = ({},)
_FRAGMENT: Alternatives = ((1, 1), (2, 2))
_WITH_PORTS: Alternatives = tuple((protocol, 0xFF) for protocol in sorted(packets.WITH_PORTS))
_WITHOUT_PORTS = complement(_WITH_PORTS, 8)
_MISREAD = "the kernel may read other bytes where the header is not whole"
_PRODUCT_LIMIT = 4096  # matches that one rule may become
_INTERSECTION_LIMIT = 250_000
_COMPLEMENT_LIMIT = 256


@dataclass(frozen=True, slots=True)
class Condition:
    """Holds for `sure`; may hold for `may`, which contains it; `reason` says why they differ.

    `some`: it holds for some of the interfaces that may be on the other side, not for all.
    """

    sure: Matches
    may: Matches
    reason: str = ""
    some: bool = False


OTHER = "the interface on the other side decides"
ALWAYS, NEVER = Condition(ALL, ALL), Condition((), ())


def exact(matches: Matches) -> Condition:
    return Condition(matches, matches)


def _or_else(sure: Matches, perhaps: Matches, reason: str) -> Condition:
    return Condition(sure, (*sure, *perhaps), reason) if perhaps else exact(sure)


def both(left: Condition, right: Condition) -> Condition:
    if left is ALWAYS or right is NEVER:
        return right
    if right is ALWAYS or left is NEVER:
        return left
    some = left.some or right.some
    may = _product(left.may, right.may)
    if may is None:
        return Condition((), left.may, "too many combinations to work out", some)
    sure: Matches
    if right.sure is not right.may:
        sure = _product(left.sure, right.sure) or ()
    elif left.sure is left.may:
        sure = may
    elif len(right.may) == 1 and len(may) == len(left.may) and left.may[: len(left.sure)] == left.sure:
        sure = may[: len(left.sure)]
    else:
        sure = _product(left.sure, right.sure) or ()
    return Condition(may if sure == may else sure, may, left.reason or right.reason, some)


def any_of(answers: Iterable[bool | None]) -> bool | None:
    known = set(answers)
    return True if True in known else None if None in known else False


def _product(left: Matches, right: Matches) -> Matches | None:
    """None when it is too large."""
    if len(left) * len(right) > _PRODUCT_LIMIT:
        return None
    found = []
    for one in left:
        for other in right:
            for name in other:
                if name in one and len(one[name]) * len(other[name]) > _INTERSECTION_LIMIT:
                    return None
            both = conjunction(one, other)
            if both is not None:
                found.append(both)
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a chain is looked at from: the packet's family, the attachment, and the chain's hook."""

    family: int
    attachment: str = ""  # "": not known
    direction: str = ""  # "in", "out", or "" where the attachment is not known
    hook: str = ""
    priority: int = 0
    kind: str = "filter"
    whole: bool = False  # fragments were put together before
    tracked: bool | None = True  # connection tracking has seen the packet; None: not known
    hidden: frozenset[str] = frozenset()  # fields that were rewritten, or will be
    # What may be on the other side: the interfaces that lead to the network, () where they are not known, or those
    # of other subscribers.
    others: tuple[str, ...] = ()
    not_others: tuple[str, ...] = ()  # what is not there
    fits: Callable[[str, str], bool | None] | None = None  # what an interface is called; None: as in nftables, `names`
    translated: bool = field(default=True, hash=False)  # a rule may rewrite destinations
    iptables: bool = False  # a test finds nothing where the header is not whole (tcp_mt, ip6_packet_match)

    @property
    def ttl(self) -> int:
        """What the packet on the attachment has more than the chain sees."""
        before = self.hook in ("ingress", "prerouting")
        return {"in": 0 if before else 1, "out": -1 if before else 0}.get(self.direction, 0)

    @property
    def readable(self) -> Matches:
        """Packets whose L4 header the chain can read."""
        if not self.whole:
            return (packets.INITIAL,)
        if self.iptables:  # a fragment is as its datagram, and a whole packet with the same headers is judged too
            return ({"undetermined": ((0, 1),)},)
        return {"undetermined": ((0, 1),)}, {"fragment": _FRAGMENT if self.family == 4 else LATER_FRAGMENT}

    @property
    def misread(self) -> Matches:
        """Packets without a whole L4 header of which the kernel may read bytes that stand in its place."""
        if self.iptables:
            return ()
        if self.whole:
            return ({"undetermined": exactly(1, 1), "fragment": exactly(0, 2) if self.family == 4 else ((0, 0b10),)},)
        later: Match = {"fragment": LATER_FRAGMENT}
        if self.family == 6:
            later = {**later, "undetermined": ((0, 1),)}
        return later, {"undetermined": exactly(1, 1), "fragment": ((0, 0b10),)}


def condition_of(test: Test, place: Place) -> Condition:
    if len(test.selectors) == 1:
        found = _single(test.selectors[0], [one[0] for one in test.elements], test.negate, test.loose, place)
    else:
        found = _concatenation(test, place)
    return replace(found, sure=(), reason=test.doubt) if test.doubt and found.sure else found


def address_of(test: Test, place: Place) -> Match | None:
    """What a plain test of an address asks for, and None of any other test."""
    selector = test.selectors[0]
    if selector.field not in ("source", "destination") or selector.kind != "field" or selector.field in place.hidden:
        return None
    if selector.family not in (0, place.family) or len(test.selectors) > 1 or test.doubt or test.loose:
        return None
    values = tuple([one[0] for one in test.elements if one[0] is not None])
    found = _alternatives(values, test.negate, selector.bits) if len(values) == len(test.elements) else ()
    return {selector.field: found} if found and found != ((0, 0),) else None


def _concatenation(test: Test, place: Place) -> Condition:
    if test.negate or test.loose:
        present = ALWAYS
        for selector in test.selectors:
            present = both(present, _dependencies(selector, place))
        found = NEVER if test.loose else _complement(test, place, present)
        return found if found.may else Condition((), present.may, test.doubt or "this complement is not worked out")
    sure: list[Match] = []
    may: list[Match] = []
    reason, precise = "", True
    for element in test.elements:
        inside = ALWAYS
        for selector, value in zip(test.selectors, element, strict=True):
            inside = both(inside, _single(selector, [value], False, False, place))
        if inside.some:
            inside = Condition((), inside.may, OTHER)
        sure += inside.sure
        may += inside.may
        reason, precise = reason or inside.reason, precise and inside.sure is inside.may
    return exact(tuple(sure)) if precise else Condition(tuple(sure), tuple(may), reason)


def _complement(test: Test, place: Place, present: Condition) -> Condition:
    """What none of the elements of a concatenation fits; NEVER where that is too much to work out, or nothing.

    What is not `a . b` has another first part, or the same and another second one.
    """
    found = present
    if any(selector.protocols == () for selector in test.selectors):  # as in _field
        sure = _product(present.sure, ({"protocol": _WITH_PORTS},)) or ()
        found = Condition(sure, (*sure, *present.may), "what stands there is no port in every protocol")
    for element in test.elements:
        same, outside = ALWAYS, NEVER
        for selector, value in zip(test.selectors, element, strict=True):
            differs = both(same, _single(selector, [value], True, False, place))
            if differs.some or value is None:
                return NEVER
            outside = Condition(outside.sure + differs.sure, outside.may + differs.may, differs.reason)
            same = both(same, _single(selector, [value], False, False, place))
        if same.may:  # else the element fits nothing here
            found = both(found, outside)
        if len(found.may) > _COMPLEMENT_LIMIT:
            return NEVER
    return found


def _single(selector: Selector, values: Sequence[Value | None], negate: bool, loose: bool, place: Place) -> Condition:
    present = _dependencies(selector, place)
    if not present.may:
        return NEVER
    known = tuple(value for value in values if value is not None)
    if loose or len(known) < len(values):
        reason = "a value that is not understood"
        if loose or not negate:
            inside = NEVER if loose or not known else _single(selector, known, False, False, place)
            return Condition(inside.sure, (*inside.sure, *present.may), reason, inside.some)
        return replace(_single(selector, known, negate, loose, place), sure=(), reason=reason)
    return _KINDS.get(selector.kind, _opaque)(_Asked(selector, known, negate, present, place))


@lru_cache(maxsize=4096)
def _dependencies(selector: Selector, place: Place) -> Condition:
    """The headers that must be there before the value can be looked at."""
    if selector.family and selector.family != place.family:
        return NEVER
    if selector.protocols is None:
        return ALWAYS
    if not selector.protocols:
        sure = place.readable
        return exact(sure) if selector.last else _or_else(sure, place.misread, _MISREAD)
    protocols: Match = {"protocol": union(*(exactly(protocol, 8) for protocol in selector.protocols))}
    if selector.last:
        return exact(_product((protocols,), place.readable) or ())
    sure = _product((protocols,), place.readable) or ()
    return _or_else(sure, _product((protocols,), place.misread) or (), _MISREAD)


def _holds(values: Sequence[Value], negate: bool, number: int) -> bool:
    inside = any(
        (number & value[2] == value[0]) if value[2] != -1 else value[0] <= number <= value[1]
        for value in values
        if isinstance(value, tuple)
    )
    return inside != negate


@lru_cache(maxsize=4096)
def _alternatives(values: tuple[Value, ...], negate: bool, bits: int) -> Alternatives:
    """Numbers and masks as ternaries."""
    top = (1 << bits) - 1
    masked: list[packets.Ternary] = []
    ranges: list[tuple[int, int]] = []
    for value in values:
        if isinstance(value, tuple) and value[2] != -1:
            if not value[0] & ~value[2] & top:
                masked.append((value[0] & top, value[2] & top))
        elif isinstance(value, tuple) and value[0] <= top:
            ranges.append((value[0], min(value[1], top)))
    merged: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = merged[-1][0], max(high, merged[-1][1])
        else:
            merged.append((low, high))
    if masked:
        found = union(tuple(masked), *(span(low, high, bits) for low, high in merged))
        return complement(found, bits) if negate else found
    if negate:
        edges = [-1, *(edge for low, high in merged for edge in (low, high)), top + 1]
        merged = [(edges[at] + 1, edges[at + 1] - 1) for at in range(0, len(edges), 2)]
    return tuple(ternary for low, high in merged for ternary in span(max(low, 0), high, bits))


@dataclass(frozen=True, slots=True)
class _Asked:
    """One test of one selector; `present`: the packets in which its header can be read."""

    selector: Selector
    values: tuple[Value, ...]
    negate: bool
    present: Condition
    place: Place


Kind = Callable[[_Asked], Condition]


def _opaque(asked: _Asked) -> Condition:
    if asked.values == ((0, 0, 0),) and not asked.negate:
        return asked.present  # x & 0 == 0: all that counts is that x is there
    return Condition((), asked.present.may, "a condition on what is not modelled")


def _field(asked: _Asked) -> Condition:
    name = asked.selector.field
    if name in asked.place.hidden:
        return Condition((), asked.present.may, f"the {name.replace('_', ' ')} is rewritten on the way")
    found = _alternatives(asked.values, asked.negate, asked.selector.bits)
    if not found:
        return NEVER
    if found == ((0, 0),):
        return asked.present
    if asked.selector.shift:
        found = tuple((value << asked.selector.shift, mask << asked.selector.shift) for value, mask in found)
    here: Match = {name: found}
    if asked.selector.protocols is None:
        return exact((here,))
    if asked.selector.protocols == ():  # th: what stands there in a protocol without ports is something else
        sure = _product(({**here, "protocol": _WITH_PORTS},), asked.present.sure) or ()
        others = _product(({"protocol": _WITHOUT_PORTS},), asked.present.may) or ()
        return Condition(sure, (*sure, *others, *asked.place.misread), "what stands there is no port in every protocol")
    sure = _product((here,), asked.present.sure) or ()
    return _or_else(sure, asked.present.may[len(asked.present.sure) :], _MISREAD)


def _length(asked: _Asked) -> Condition:
    shifted = _moved(asked.values, asked.selector.add)
    found = exact(({"length": _alternatives(shifted, asked.negate, 16)},))
    return _unless_joined(found, asked.place)


def _unless_joined(found: Condition, place: Place) -> Condition:
    """The length of a datagram is not that of its fragments."""
    if not place.whole:
        return found
    sure = _product(found.sure, ({"fragment": exactly(0, 2)},)) or ()
    return Condition(sure, (*found.may, {"fragment": _FRAGMENT}), "fragments are put together before")


def _ttl(asked: _Asked) -> Condition:
    if "ttl" in asked.place.hidden:
        return Condition((), asked.present.may, "the ttl is rewritten on the way")
    return exact(({"ttl": _alternatives(_moved(asked.values, asked.place.ttl), asked.negate, 8)},))


def _moved(values: tuple[Value, ...], by: int) -> tuple[Value, ...]:
    return tuple((value[0] + by, value[1] + by, -1) for value in values if isinstance(value, tuple))


def _l4proto(asked: _Asked) -> Condition:
    found = _alternatives(asked.values, asked.negate, 8)
    if asked.place.family == 4:
        return exact(({"protocol": found},))
    seen: Matches = ({"undetermined": ((0, 1),)},)
    if asked.place.whole:
        seen += ({"fragment": LATER_FRAGMENT},)
    sure = _product(({"protocol": found},), seen) or ()
    if asked.place.iptables:
        return exact(sure)
    cut: Match = {"protocol": found, "undetermined": exactly(1, 1), "fragment": ((0, 0b10),)}
    return Condition(sure, (*sure, cut), "the header chain may end before the protocol is known")


def _nexthdr(asked: _Asked) -> Condition:
    """The first next header. Behind a fragment header that is gone, it is the one that followed."""
    fitting = [number for number in range(256) if _holds(asked.values, asked.negate, number)]
    protocols = [number for number in fitting if number not in EXTENSION_NUMBERS]
    headers = [EXTENSION_NUMBERS[number] for number in fitting if number in EXTENSION_NUMBERS]
    if {139, 140} <= set(fitting):  # HIP, Shim6: headers that have no name here
        headers += [6, 7]
    if asked.place.whole:
        headers = [header for header in headers if header != packets.EXTENSIONS["fragment"]]
    none = exactly(packets.EXTENSIONS["none"], 3)
    sure: list[Match] = []
    if protocols:
        direct = _alternatives(tuple((number, number, -1) for number in protocols), False, 8)
        sure.append({"protocol": direct, "extension": none})
    if headers:
        sure.append({"extension": union(*(exactly(header, 3) for header in headers))})
    if not asked.place.whole:
        return exact(tuple(sure))
    gone: Match = {"extension": exactly(packets.EXTENSIONS["fragment"], 3)}
    return Condition(tuple(sure), (*sure, gone), "what follows the fragment header decides")


def _frag_off(asked: _Asked) -> Condition:
    """The flags and offset of IPv4 as one number; DF may be set or not."""
    sure, may = _offsets(asked.values, asked.negate, 0x1FFF, 0x2000, (0, 0x4000))
    if asked.place.whole:  # no fragment is ever seen as one
        sure, may = [*range(4)] if 0 in sure else [], [*range(4)] if 0 in may else []
    reason = "whether DF is set, or the very offset, decides"
    return _classes(sure, may, reason)


def _classes(sure: Sequence[int], may: Sequence[int], reason: str) -> Condition:
    """The condition for values of the field `fragment`."""

    def matches(classes: Sequence[int]) -> Matches:
        if len(classes) == 4:
            return ALL
        return ({"fragment": union(*(exactly(one, 2) for one in classes))},) if classes else ()

    return exact(matches(sure)) if sure == may else Condition(matches(sure), matches(may), reason)


@lru_cache(maxsize=1024)
def _offsets(
    values: tuple[Value, ...], negate: bool, offset: int, more: int, free: tuple[int, ...]
) -> tuple[list[int], list[int]]:
    """For which values of `fragment` the number fits always, and for which at times."""
    sure, may = [], []
    for kind in range(4):
        places = range(1, offset + 1) if kind & 0b10 else range(1)
        flag = more if kind & 0b01 else 0
        fits = {_holds(values, negate, place | flag | other) for place in places for other in free}
        if True in fits:
            may.append(kind)
            if False not in fits:
                sure.append(kind)
    return sure, may


def _frag6(asked: _Asked) -> Condition:
    """A field of the IPv6 fragment header, which must be there."""
    if asked.selector.field == "more":
        sure = may = [kind for kind in range(4) if _holds(asked.values, asked.negate, kind & 1)]
    else:
        sure, may = _offsets(asked.values, asked.negate, 0x1FFF, 0, (0,))
    fits = _classes(sure, may, "the very offset decides")
    return both(_fragment_header(asked.place), fits)


def _fragment_header(place: Place) -> Condition:
    first = exactly(packets.EXTENSIONS["fragment"], 3)
    sure: Matches = ({"extension": first}, {"fragment": _FRAGMENT})
    # Behind another header it may stand too, and say that nothing follows (an atomic fragment, RFC 6946).
    hidden = complement(union(first, exactly(packets.EXTENSIONS["none"], 3)), 3)
    may = (*sure, {"extension": hidden})
    if place.whole:
        sure, may = (), _product(may, ({"undetermined": exactly(1, 1)},)) or ()
    return Condition(sure, may, "whether a fragment header stands further behind decides")


def _exthdr(asked: _Asked) -> Condition:
    wanted, unwanted = _holds(asked.values, asked.negate, 1), _holds(asked.values, asked.negate, 0)
    if wanted == unwanted:
        return ALWAYS if wanted else NEVER
    header = EXTENSION_KEYS[asked.selector.field]
    if header == packets.EXTENSIONS["fragment"]:
        there = _fragment_header(asked.place)
        if wanted:
            return there
        if asked.place.whole:
            return Condition(({"undetermined": ((0, 1),)},), ALL, there.reason)
        absent: Matches = ({"extension": exactly(0, 3), "fragment": exactly(0, 2)},)
        others = complement(exactly(header, 3), 3)
        return Condition(absent, ({"extension": others, "fragment": exactly(0, 2)},), there.reason)
    first = exactly(header, 3)
    # Hop-by-hop options stand first or nowhere (RFC 8200, 4.1).
    behind = () if header == packets.EXTENSIONS["hop-by-hop"] else complement(union(first, exactly(0, 3)), 3)
    here: Matches = ({"extension": first if wanted else complement(union(first, behind), 3)},)
    if not behind:
        return exact(here)
    possible = union(first, behind) if wanted else complement(first, 3)
    return Condition(here, ({"extension": possible},), "what stands further behind decides")


def _fragmented(asked: _Asked) -> Condition:
    """Whether it came as a fragment, told by a mark from before the kernel puts fragments together."""
    if asked.place.family == 6:
        return _exthdr(replace(asked, place=replace(asked.place, whole=False)))
    return exact(({"fragment": _FRAGMENT if _holds(asked.values, asked.negate, 1) else exactly(0, 2)},))


def _hdrlength(asked: _Asked) -> Condition:
    longer = [_holds(asked.values, asked.negate, number) for number in range(6, 16)]
    plain = [0] if _holds(asked.values, asked.negate, 5) else []
    sure, may = plain + ([1] if all(longer) else []), plain + ([1] if any(longer) else [])
    here: list[Matches] = [
        ({"options": union(*(exactly(one, 1) for one in chosen))},) if chosen else () for chosen in (sure, may)
    ]
    return exact(here[0]) if sure == may else Condition(here[0], here[1], "the length of the options decides")


def _state(asked: _Asked) -> Condition:
    if asked.place.tracked is None:
        return Condition((), ALL, "whether the packet is tracked here is not known")
    if not asked.place.tracked:
        return ALWAYS if _holds(asked.values, asked.negate, STATE_BITS["invalid"]) else NEVER
    fits = [packets.STATES[name] for name, bit in STATE_BITS.items() if _holds(asked.values, asked.negate, bit)]
    if len(fits) == len(STATE_BITS):
        return ALWAYS
    return exact(({"state": union(*(exactly(one, 3) for one in fits))},)) if fits else NEVER


_UNTRANSLATED = tuple(number for number in range(1024) if not number & 32)  # what `ct status` can be without dnat


def _status(asked: _Asked) -> Condition:
    unknown = asked.place.translated or not asked.place.tracked
    if unknown or any(_holds(asked.values, asked.negate, number) for number in _UNTRANSLATED):
        return _opaque(asked)
    return NEVER


def _constant(number: Callable[[Place], int]) -> Kind:
    """What is the same for all packets of a family."""

    def decide(asked: _Asked) -> Condition:
        if not _holds(asked.values, asked.negate, number(asked.place)):
            return NEVER
        if asked.selector.field == "ether":
            return Condition((), ALL, "whether there is an Ethernet header is not known")
        return ALWAYS

    return decide


def _interface(asked: _Asked) -> Condition:
    patterns = [str(value) for value in asked.values]

    def fits(answers: Iterable[bool | None]) -> bool | None:
        found = any_of(answers)
        return found if found is None else found != asked.negate

    if not asked.place.attachment:
        return Condition((), ALL, "the interface decides")
    if asked.selector.field == "out" and asked.place.hook in ("ingress", "prerouting"):
        here = fits(pattern == "*" for pattern in patterns)  # not routed yet: the name is empty
    elif asked.selector.field == asked.place.direction:
        called = asked.place.fits or names
        here = fits(called(pattern, asked.place.attachment) for pattern in patterns)
    else:
        here = fits(_other_side(pattern, asked.place) for pattern in patterns)
        if here is None:
            return Condition(ALL, ALL, OTHER, some=True)
    if here is None:
        return Condition((), ALL, "the rule is for some interfaces of the pattern")
    return ALWAYS if here else NEVER


def _other_side(pattern: str, place: Place) -> bool | None:
    """Whether the interface on the other side is one of the pattern's."""
    if pattern in ("lo", "*"):  # nothing that is forwarded comes from the loopback or goes there
        return pattern == "*"
    called = place.fits or names
    found = {called(pattern, interface) for interface in place.others}
    if len(found) == 1:
        return found.pop()
    # None of them is known: at least it is none of those that are not there.
    return False if not found and any(called(pattern, one) for one in place.not_others) else None


def names(pattern: str, attachment: str) -> bool | None:
    """Whether an interface pattern of the text (eth0, ppp*) is for the attachment; None: for a part of it.

    The attachment `*` is an interface that no pattern of the text names.
    """
    if pattern == "*":
        return True
    if attachment in ("", "*"):
        return None if not attachment else False
    if pattern.endswith("*"):
        if attachment.startswith(pattern[:-1]):
            return True
        return None if attachment.endswith("*") and pattern.startswith(attachment[:-1]) else False
    if attachment.endswith("*"):
        return None if pattern.startswith(attachment[:-1]) else False
    return pattern == attachment


_KINDS: Mapping[str, Kind] = {
    "field": _field,
    "length": _length,
    "ttl": _ttl,
    "l4proto": _l4proto,
    "nexthdr": _nexthdr,
    "frag-off": _frag_off,
    "frag6": _frag6,
    "exthdr": _exthdr,
    "fragmented": _fragmented,
    "hdrlength": _hdrlength,
    "state": _state,
    "status": _status,
    "interface": _interface,
    "version": _constant(lambda place: place.family),
    "nfproto": _constant(lambda place: {4: 2, 6: 10}[place.family]),
    "ethertype": _constant(lambda place: {4: 0x0800, 6: 0x86DD}[place.family]),
}
