# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Linux routers with nftables: the text of `nft list ruleset`, and a table of our own, `inet isp_edge`.

What is modelled. "kernel" means: seen with crafted packets in tests/unit/test_kernel_nftables.py (nft 1.0.6);
otherwise the source is nft(8) or, where it says so, the kernel's file.

- A packet passes when every base chain on its way accepts it: prerouting, forward, postrouting (netdev and inet
  ingress before, egress behind them), in each by priority. `accept` ends one base chain only; a drop is final (nft(8),
  VERDICT STATEMENT; kernel). So each base chain is a filter of its own, and all must permit.
- `tcp dport` and its like look behind IPv6 extension headers, and need the port in this packet: a later fragment never
  matches (kernel). `ip6 nexthdr` is the first next header only: anything in between is a bypass (kernel).
- `meta l4proto` finds nothing where the header chain is cut off before its end (net/netfilter, nft_set_pktinfo_ipv6).
- What stands behind an IPv6 authentication header is matched as if the header were not there: in doubt here. TCP behind
  a mobility header counts as TCP, although the kernel stops there: no host takes it (RFC 6275, 6.1.1).
- Where connection tracking is in use (ct, nat, flow), the kernel puts fragments together before the chains see them
  (priority -400; kernel): the ports of a fragment are those of its datagram, and no fragment is ever seen as one. A
  first IPv6 fragment without the whole header chain stays alone (net/ipv6/netfilter/nf_conntrack_reasm.c).
- The forward hook sees TTL and hop limit one lower than the packet that came in (kernel).
- `ct state` before priority -200 is `invalid`, for nothing is tracked yet (kernel).
- A flow that `flow add` took bypasses all chains from its next packet on: established packets that reach it pass.
- `limit`, `quota`, `ct count`, marks, time, sets that the packet path or a timeout changes: they narrow, in doubt.
- Rewritten packets (dnat, redirect, tproxy, `tcp dport set`): unknown from there on. Behind a source rewrite, and
  before the reverse rewrite of answers, conditions on the rewritten fields are in doubt.
- The interface on the other side: traffic between an attachment and the network is judged. Every interface of
  `ip -o addr show` or the text that is no attachment leads to the network; a permit for one of several counts, a deny
  does not. What goes between two attachments and is not dropped as surely is in doubt.
- `fib saddr . iif oif missing drop` that every packet of an attachment meets is its source check, and no entry.
- Traffic to and from the router itself (input, output) is not judged: it is not forwarded.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from .. import packets
from ..filters import (
    DENY,
    GOTO,
    JUMP,
    PERMIT,
    RETURN,
    UNKNOWN,
    Binding,
    Configuration,
    Doubt,
    Entry,
    Filter,
    Interface,
    NotThisPlatform,
)
from ..packets import LATER_FRAGMENT, Alternatives, Match, complement, conjunction, exactly, span, union
from ._nftables_text import (
    ADDRESS_LINE,
    EXTENSION_KEYS,
    EXTENSION_NUMBERS,
    FAMILIES,
    HOOKS,
    STATE_BITS,
    TRACKING,
    Chain,
    Flow,
    Map,
    Narrow,
    Reader,
    Rewrite,
    Rule,
    Ruleset,
    Selector,
    Table,
    Test,
    Value,
    Verdict,
    tokens,
)

if TYPE_CHECKING:
    pass

ALIASES = ("linux", "nftables", "debian", "ubuntu")
DEVICE_TYPE = ""
READ = ("nft list ruleset", "ip -o addr show")
REJECTED = (r"^.*\bError: .*", r"Operation not permitted", r"command not found", r"^isp-edge: .*")
LIVE = False

# --- conditions: for which packets a test holds for certain, and for which it may ---------------------------------

Matches = tuple[Match, ...]
_ALL: Matches = ({},)
_FRAGMENT: Alternatives = ((1, 1), (2, 2))
_WITH_PORTS: Alternatives = tuple((protocol, 0xFF) for protocol in sorted(packets.WITH_PORTS))
_WITHOUT_PORTS = complement(_WITH_PORTS, 8)
_BEHIND_AH: Alternatives = exactly(packets.PROTOCOLS["ah"], 8)
_NOT_AH = complement(_BEHIND_AH, 8)
_PRODUCT_LIMIT = 4096  # matches that one rule may become
_INTERSECTION_LIMIT = 250_000


@dataclass(frozen=True, slots=True)
class _Condition:
    """Holds for `sure`; may hold for `may`, which contains it; `reason` says why they differ.

    All that only if it holds for the interface on the other side: when that leads to the network, and when other
    subscribers are there. None: for some of them.
    """

    sure: Matches
    may: Matches
    reason: str = ""
    network: bool | None = True
    subscribers: bool | None = True


_OTHER = "the interface on the other side decides"
_ALWAYS, _NEVER = _Condition(_ALL, _ALL), _Condition((), ())


def _exactly(matches: Matches) -> _Condition:
    return _Condition(matches, matches)


def _both(left: _Condition, right: _Condition) -> _Condition:
    if left is _ALWAYS or right is _NEVER:
        return right
    if right is _ALWAYS or left is _NEVER:
        return left
    sides = _all((left.network, right.network)), _all((left.subscribers, right.subscribers))
    may = _product(left.may, right.may)
    if may is None:
        return _Condition((), left.may, "too many combinations to work out", *sides)
    exact = left.sure is left.may and right.sure is right.may
    sure = may if exact else _product(left.sure, right.sure) or ()
    return _Condition(may if sure == may else sure, may, left.reason or right.reason, *sides)


def _any(answers: Iterable[bool | None]) -> bool | None:
    known = set(answers)
    return True if True in known else None if None in known else False


def _all(answers: Iterable[bool | None]) -> bool | None:
    known = set(answers)
    return False if False in known else None if None in known else True


def _product(left: Matches, right: Matches) -> Matches | None:
    """None when it is too large."""
    if len(left) * len(right) > _PRODUCT_LIMIT:
        return None
    found = []
    for one in left:
        for other in right:
            if any(name in one and len(one[name]) * len(other[name]) > _INTERSECTION_LIMIT for name in other):
                return None
            both = conjunction(one, other)
            if both is not None:
                found.append(both)
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Place:
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
    subscribers: tuple[str, ...] = ()  # all attachments
    uplinks: tuple[str, ...] = ()  # the interfaces that are none, () where they are not known
    closed: bool = False  # what goes between subscribers is dropped in this base chain
    open_end: bool = False  # behind the last rule, and at a return, comes an accept

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
        return {"undetermined": ((0, 1),)}, {"fragment": _FRAGMENT if self.family == 4 else LATER_FRAGMENT}


def _condition(test: Test, place: _Place) -> _Condition:
    if len(test.selectors) == 1:
        found = _single(test.selectors[0], [one[0] for one in test.elements], test.negate, test.loose, place)
    else:
        found = _concatenation(test, place)
    return replace(found, sure=(), reason=test.doubt) if test.doubt and found.sure else found


def _concatenation(test: Test, place: _Place) -> _Condition:
    if test.negate or test.loose:
        present = _ALWAYS
        for selector in test.selectors:
            present = _both(present, _dependencies(selector, place))
        return _Condition((), present.may, test.doubt or "the complement of a concatenation is not worked out")
    sure: list[Match] = []
    may: list[Match] = []
    reason, exact = "", True
    for element in test.elements:
        inside = _ALWAYS
        for selector, value in zip(test.selectors, element, strict=True):
            inside = _both(inside, _single(selector, [value], False, False, place))
        if inside.network is not True or inside.subscribers is not True:
            inside = _Condition(
                (), inside.may if (inside.network, inside.subscribers) != (False, False) else (), _OTHER
            )
        sure += inside.sure
        may += inside.may
        reason, exact = reason or inside.reason, exact and inside.sure is inside.may
    return _exactly(tuple(sure)) if exact else _Condition(tuple(sure), tuple(may), reason)


def _single(selector: Selector, values: Sequence[Value | None], negate: bool, loose: bool, place: _Place) -> _Condition:
    present = _dependencies(selector, place)
    if not present.may:
        return _NEVER
    known = tuple(value for value in values if value is not None)
    if loose or len(known) < len(values):
        reason = "a value that is not understood"
        if loose or not negate:
            return replace(present, sure=(), reason=reason)
        return replace(_single(selector, known, negate, loose, place), sure=(), reason=reason)
    return _KINDS.get(selector.kind, _opaque)(_Asked(selector, known, negate, present, place))


def _dependencies(selector: Selector, place: _Place) -> _Condition:
    """The headers that must be there before the value can be looked at."""
    if selector.family and selector.family != place.family:
        return _NEVER
    if selector.protocols is None:
        return _ALWAYS
    readable = place.readable
    if not selector.protocols:
        return _exactly(readable)
    protocols = union(*(exactly(protocol, 8) for protocol in selector.protocols))
    return _upper(protocols, readable, place)


def _upper(protocols: Alternatives, readable: Matches, place: _Place) -> _Condition:
    """These upper-layer protocols, in packets where they can be seen."""
    sure = _product(({"protocol": protocols},), readable) or ()
    if place.family == 4:
        return _exactly(sure)
    behind = tuple({**match, "protocol": _BEHIND_AH} for match in readable)
    sure = _product(sure, ({"protocol": _NOT_AH},)) or ()
    return _Condition(sure, (*sure, *behind), "what is behind an authentication header decides")


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
    present: _Condition
    place: _Place


Kind = Callable[[_Asked], _Condition]


def _opaque(asked: _Asked) -> _Condition:
    if asked.values == ((0, 0, 0),) and not asked.negate:
        return asked.present  # x & 0 == 0: all that counts is that x is there
    return _Condition((), asked.present.may, "a condition on what is not modelled")


def _field(asked: _Asked) -> _Condition:
    name = asked.selector.field
    if name in asked.place.hidden:
        return _Condition((), asked.present.may, f"the {name.replace('_', ' ')} is rewritten on the way")
    found = _alternatives(asked.values, asked.negate, asked.selector.bits)
    if not found:
        return _NEVER
    if found == ((0, 0),):
        return asked.present
    if asked.selector.shift:
        found = tuple((value << asked.selector.shift, mask << asked.selector.shift) for value, mask in found)
    here: Match = {name: found}
    if asked.selector.protocols == ():  # th: what stands there in a protocol without ports is something else
        sure = _product(({**here, "protocol": _WITH_PORTS},), asked.present.sure) or ()
        else_ = _product(({"protocol": _WITHOUT_PORTS},), asked.present.may) or ()
        return _Condition(sure, (*sure, *else_), "in a protocol without ports something else stands there")
    return _both(asked.present, _exactly((here,)))


def _length(asked: _Asked) -> _Condition:
    shifted = _moved(asked.values, asked.selector.add)
    found = _exactly(({"length": _alternatives(shifted, asked.negate, 16)},))
    return _unless_joined(found, asked.place)


def _unless_joined(found: _Condition, place: _Place) -> _Condition:
    """The length of a datagram is not that of its fragments."""
    if not place.whole:
        return found
    sure = _product(found.sure, ({"fragment": exactly(0, 2)},)) or ()
    return _Condition(sure, (*found.may, {"fragment": _FRAGMENT}), "fragments are put together before")


def _ttl(asked: _Asked) -> _Condition:
    if "ttl" in asked.place.hidden:
        return _Condition((), asked.present.may, "the ttl is rewritten on the way")
    return _exactly(({"ttl": _alternatives(_moved(asked.values, asked.place.ttl), asked.negate, 8)},))


def _moved(values: tuple[Value, ...], by: int) -> tuple[Value, ...]:
    return tuple((value[0] + by, value[1] + by, -1) for value in values if isinstance(value, tuple))


def _l4proto(asked: _Asked) -> _Condition:
    found = _alternatives(asked.values, asked.negate, 8)
    if asked.place.family == 4:
        return _exactly(({"protocol": found},))
    seen: Matches = ({"undetermined": ((0, 1),)},)
    if asked.place.whole:
        seen += ({"fragment": LATER_FRAGMENT},)
    upper = _upper(found, seen, asked.place)
    cut: Match = {"protocol": found, "undetermined": exactly(1, 1), "fragment": ((0, 0b10),)}
    return _Condition(upper.sure, (*upper.may, cut), "the header chain may end before the protocol is known")


def _nexthdr(asked: _Asked) -> _Condition:
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
        return _exactly(tuple(sure))
    gone: Match = {"extension": exactly(packets.EXTENSIONS["fragment"], 3)}
    return _Condition(tuple(sure), (*sure, gone), "what follows the fragment header decides")


def _frag_off(asked: _Asked) -> _Condition:
    """The flags and offset of IPv4 as one number; DF may be set or not."""
    sure, may = _offsets(asked.values, asked.negate, 0x1FFF, 0x2000, (0, 0x4000))
    if asked.place.whole:  # no fragment is ever seen as one
        sure, may = [*range(4)] if 0 in sure else [], [*range(4)] if 0 in may else []
    reason = "whether DF is set, or the very offset, decides"
    return _classes(sure, may, reason)


def _classes(sure: Sequence[int], may: Sequence[int], reason: str) -> _Condition:
    """The condition for values of the field `fragment`."""

    def matches(classes: Sequence[int]) -> Matches:
        if len(classes) == 4:
            return _ALL
        return ({"fragment": union(*(exactly(one, 2) for one in classes))},) if classes else ()

    return _exactly(matches(sure)) if sure == may else _Condition(matches(sure), matches(may), reason)


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


def _frag6(asked: _Asked) -> _Condition:
    """A field of the IPv6 fragment header, which must be there."""
    if asked.selector.field == "more":
        sure = may = [kind for kind in range(4) if _holds(asked.values, asked.negate, kind & 1)]
    else:
        sure, may = _offsets(asked.values, asked.negate, 0x1FFF, 0, (0,))
    fits = _classes(sure, may, "the very offset decides")
    return _both(_fragment_header(asked.place), fits)


def _fragment_header(place: _Place) -> _Condition:
    first = exactly(packets.EXTENSIONS["fragment"], 3)
    sure: Matches = ({"extension": first}, {"fragment": _FRAGMENT})
    # Behind another header it may stand too, and say that nothing follows (an atomic fragment, RFC 6946).
    hidden = complement(union(first, exactly(packets.EXTENSIONS["none"], 3)), 3)
    may = (*sure, {"extension": hidden})
    if place.whole:
        sure, may = (), _product(may, ({"undetermined": exactly(1, 1)},)) or ()
    return _Condition(sure, may, "whether a fragment header stands further behind decides")


def _exthdr(asked: _Asked) -> _Condition:
    wanted, unwanted = _holds(asked.values, asked.negate, 1), _holds(asked.values, asked.negate, 0)
    if wanted == unwanted:
        return _ALWAYS if wanted else _NEVER
    header = EXTENSION_KEYS[asked.selector.field]
    if header == packets.EXTENSIONS["fragment"]:
        there = _fragment_header(asked.place)
        if wanted:
            return there
        if asked.place.whole:
            return _Condition(({"undetermined": ((0, 1),)},), _ALL, there.reason)
        absent: Matches = ({"extension": exactly(0, 3), "fragment": exactly(0, 2)},)
        others = complement(exactly(header, 3), 3)
        return _Condition(absent, ({"extension": others, "fragment": exactly(0, 2)},), there.reason)
    first = exactly(header, 3)
    # Hop-by-hop options stand first or nowhere (RFC 8200, 4.1).
    behind = () if header == packets.EXTENSIONS["hop-by-hop"] else complement(union(first, exactly(0, 3)), 3)
    here: Matches = ({"extension": first if wanted else complement(union(first, behind), 3)},)
    if not behind:
        return _exactly(here)
    possible = union(first, behind) if wanted else complement(first, 3)
    return _Condition(here, ({"extension": possible},), "what stands further behind decides")


def _hdrlength(asked: _Asked) -> _Condition:
    longer = [_holds(asked.values, asked.negate, number) for number in range(6, 16)]
    plain = [0] if _holds(asked.values, asked.negate, 5) else []
    sure, may = plain + ([1] if all(longer) else []), plain + ([1] if any(longer) else [])
    here: list[Matches] = [
        ({"options": union(*(exactly(one, 1) for one in chosen))},) if chosen else () for chosen in (sure, may)
    ]
    return _exactly(here[0]) if sure == may else _Condition(here[0], here[1], "the length of the options decides")


def _state(asked: _Asked) -> _Condition:
    if asked.place.tracked is None:
        return _Condition((), _ALL, "whether the packet is tracked here is not known")
    if not asked.place.tracked:
        return _ALWAYS if _holds(asked.values, asked.negate, STATE_BITS["invalid"]) else _NEVER
    fits = [packets.STATES[name] for name, bit in STATE_BITS.items() if _holds(asked.values, asked.negate, bit)]
    if len(fits) == len(STATE_BITS):
        return _ALWAYS
    return _exactly(({"state": union(*(exactly(one, 3) for one in fits))},)) if fits else _NEVER


def _constant(number: Callable[[_Place], int]) -> Kind:
    """What is the same for all packets of a family."""

    def decide(asked: _Asked) -> _Condition:
        if not _holds(asked.values, asked.negate, number(asked.place)):
            return _NEVER
        if asked.selector.field == "ether":
            return _Condition((), _ALL, "whether there is an Ethernet header is not known")
        return _ALWAYS

    return decide


def _interface(asked: _Asked) -> _Condition:
    patterns = [str(value) for value in asked.values]

    def fits(answers: Iterable[bool | None]) -> bool | None:
        found = _any(answers)
        return found if found is None else found != asked.negate

    if not asked.place.attachment:
        return _Condition((), _ALL, "the interface decides")
    if asked.selector.field == "out" and asked.place.hook in ("ingress", "prerouting"):
        here = fits(pattern == "*" for pattern in patterns)  # not routed yet: the name is empty
    elif asked.selector.field == asked.place.direction:
        here = fits(names(pattern, asked.place.attachment) for pattern in patterns)
    else:
        subscribers = [_other_side(pattern, asked.place.subscribers) for pattern in patterns]
        network = [_other_side(pattern, asked.place.uplinks) for pattern in patterns]
        if not asked.place.uplinks:  # at least they are no subscribers
            network = [False if known else None for known in subscribers]
        return _Condition(_ALL, _ALL, "", fits(network), fits(subscribers))
    if here is None:
        return _Condition((), _ALL, "the rule is for some interfaces of the pattern")
    return _ALWAYS if here else _NEVER


def _other_side(pattern: str, interfaces: Sequence[str]) -> bool | None:
    """Whether the interface on the other side, one of these, is the pattern's."""
    if pattern in ("lo", "*"):  # nothing that is forwarded comes from the loopback or goes there
        return pattern == "*"
    found = {names(pattern, interface) for interface in interfaces}
    return found.pop() if len(found) == 1 else None


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
    "hdrlength": _hdrlength,
    "state": _state,
    "interface": _interface,
    "version": _constant(lambda place: place.family),
    "nfproto": _constant(lambda place: {4: 2, 6: 10}[place.family]),
    "ethertype": _constant(lambda place: {4: 0x0800, 6: 0x86DD}[place.family]),
}


# --- chains become filters, base chains on the way of a packet become stages ---------------------------------------

_NEW_FLOW: Alternatives = exactly(packets.STATES["new"], 3)
_OFFLOADED: Match = {"protocol": ((6, 0xFF), (17, 0xFF)), "state": exactly(packets.STATES["established"], 3)}
# Words of rules that make the kernel track connections, and so put fragments together (nft_ct.c, nft_nat.c and others).
_TRACKING_WORDS = frozenset("ct masquerade snat dnat redirect flow synproxy tproxy".split())


class _Builder:
    """Filters and bindings of one ruleset. Compiles each chain once for each place where its meaning differs."""

    def __init__(self, ruleset: Ruleset, subscribers: tuple[str, ...], uplinks: tuple[str, ...]) -> None:
        self.ruleset, self.subscribers, self.uplinks = ruleset, subscribers, uplinks
        self.filters: dict[tuple[int, str], Filter] = {}
        self._queue: list[tuple[Table, Chain, _Place, str]] = []
        self._checks: set[Rule] = set()  # the rules that are the source check of the attachment at hand
        for table in ruleset.tables.values():
            for chain in list(table.chains.values()):  # reading adds the chains in place
                _read(table, chain)
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
        self._tracking = {family for family, word in words if word != "notrack"}

    def _touch(self, table: Table, start: Chain) -> None:
        """What the meaning of a chain depends on, its jumps followed; finds loops on the way."""
        own: dict[Chain, set[str]] = {}
        way: dict[Chain, Iterator[Chain]] = {}  # the chains that are being followed, in their order

        def enter(chain: Chain) -> None:
            own[chain] = {what for rule in chain.rules for part in rule.parts or () for what in _touches(part)}
            wanted = dict.fromkeys(target for rule in chain.rules for target in _targets(rule))
            way[chain] = iter([table.chains[name] for name in wanted if name in table.chains])

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

    def _place(self, family: int, chain: Chain, attachment: str, direction: str) -> _Place:
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
        opened = bool(chain.hook) and chain.policy == PERMIT
        place = _Place(family, attachment, direction, chain.hook, priority, kind, whole, tracked, frozenset(hidden),
                       self.subscribers, self.uplinks, open_end=opened)  # fmt: skip
        return replace(place, closed=_closed(chain, place)) if attachment and chain.hook else place

    def _ask(self, table: Table, chain: Chain, place: _Place, name: str) -> str:
        key = place.family, name
        if key not in self.filters:
            self.filters[key] = Filter(name, place.family, (), UNKNOWN, chain.line)  # until it is compiled
            self._queue.append((table, chain, place, name))
        return name

    def _compile_all(self) -> None:
        while self._queue:
            table, chain, place, name = self._queue.pop()
            self.filters[place.family, name] = self._compile(table, chain, place, name)

    def _compile(self, table: Table, chain: Chain, place: _Place, name: str) -> Filter:
        text = self.ruleset.text(chain.line)
        if chain in self.looping:
            entry = Entry(UNKNOWN, _ALL, chain.line, text, doubt="this chain jumps in a circle")
            return Filter(name, place.family, (entry,), UNKNOWN, chain.line, text)
        entries: list[Entry] = []
        for rule in chain.rules:
            if rule not in self._checks:
                entries += self._entries(table, rule, place)
        # Behind the last rule of a regular chain its caller goes on.
        default = chain.policy if chain.hook else UNKNOWN
        while default == PERMIT and entries and entries[-1].action == PERMIT and entries[-1].doubt:
            entries.pop()  # it is permitted anyway
        return Filter(name, place.family, tuple(entries), default, chain.line, text)

    def _entries(self, table: Table, rule: Rule, place: _Place) -> Iterator[Entry]:
        condition = _ALWAYS
        for part in rule.parts or ():
            if isinstance(part, Test):
                condition = _both(condition, _condition(part, place))
                if not condition.may or (condition.network, condition.subscribers) == (False, False):
                    return
            elif isinstance(part, Narrow):
                condition = replace(condition, sure=(), reason=condition.reason or part.reason)
            elif isinstance(part, Verdict):
                yield from self._decide(table, rule, part, condition, place)
                return
            elif isinstance(part, Map):
                for test, verdict in part.cases:
                    here = _both(condition, _condition(test, place))
                    yield from self._decide(table, rule, verdict, here, place)
                return
            elif isinstance(part, Flow):
                yield from self._flow(rule, part, condition, place)
            elif part.what in ("source", "destination", "packet"):
                yield from self._rewrite(rule, part, condition, place)
                if part.what != "packet":
                    return

    def _decide(
        self, table: Table, rule: Rule, verdict: Verdict, condition: _Condition, place: _Place
    ) -> Iterator[Entry]:
        action, target, reason = verdict.action, "", ""
        if action == "continue":
            return
        if action in (JUMP, GOTO):
            if verdict.target in table.chains:
                target = self._ask_inner(table, table.chains[verdict.target], place)
            else:
                action, reason = UNKNOWN, f"the chain {verdict.target} is not in the text"
        if place.kind == "nat" and action == DENY:
            # Only the first packet of a connection comes here.
            first = _Condition(({"state": _NEW_FLOW},), ({"state": _NEW_FLOW}, {"state": exactly(2, 3)}),
                               "only the first packet of a connection meets this chain")  # fmt: skip
            condition = _both(condition, first)
        on_side = _by_side(action, condition, place)
        if on_side:
            action, condition = on_side
            yield from self._emit(action, condition, rule, verdict.line or rule.line, target, reason)

    def _emit(
        self, action: str, condition: _Condition, rule: Rule, line: int, target: str = "", reason: str = ""
    ) -> Iterator[Entry]:
        text = self.ruleset.text(line)
        if condition.sure:
            yield Entry(action, condition.sure, line, text, target, reason if action == UNKNOWN else "")
        if condition.may is not condition.sure and condition.may:
            yield Entry(action, condition.may, line, text, target, condition.reason or "not understood")

    def _flow(self, rule: Rule, part: Flow, condition: _Condition, place: _Place) -> Iterator[Entry]:
        """The flow's next packets pass by all chains, if the kernel took it: TCP and UDP from the table's devices."""
        offloads = _offloads(part, place.attachment, place.direction)
        if offloads is False:
            return
        taken = _both(condition, _exactly((_OFFLOADED,)))
        if offloads is None or (taken.network, taken.subscribers) != (True, True):
            taken = _Condition((), taken.may, "whether flows from this interface are offloaded is not known")
        yield from self._emit(PERMIT, taken, rule, rule.line)

    def _rewrite(self, rule: Rule, part: Rewrite, condition: _Condition, place: _Place) -> Iterator[Entry]:
        towards = {"in": "source", "out": "destination"}.get(place.direction)
        if part.what == towards:  # behind the packet's look on the attachment, or before it
            yield from self._emit(PERMIT, condition, rule, rule.line)
            return
        matches = condition.may
        if place.direction == "out" and part.what == "source":
            gone = ("source", "source_port")
            matches = tuple({name: found for name, found in match.items() if name not in gone} for match in matches)
        doubt = "the packet is rewritten here: what becomes of it is not worked out"
        yield Entry(UNKNOWN, matches, rule.line, self.ruleset.text(rule.line), doubt=doubt)

    def _ask_inner(self, table: Table, chain: Chain, place: _Place) -> str:
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
        if place.closed:
            name += " closed"
        return self._ask(table, chain, replace(place, open_end=False), name)

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
        for table, chain in stages:
            touched = self.touched[chain]
            before: list[Entry] = []
            if chain.hook in ("ingress", "egress"):
                near = (chain.hook == "ingress") == (direction == "in")
                meets = _any(names(device, attachment) for device in chain.devices) if near else None
                if meets is False:
                    continue
                if meets is None:
                    doubt = "only packets of this chain's devices meet it"
                    before.append(Entry(PERMIT, _ALL, chain.line, self.ruleset.text(chain.line), doubt=doubt))
            if chain.hook != "forward" and "deny" not in touched and chain.policy == PERMIT:
                continue
            if offloaded:
                doubt = "flows that were offloaded pass by this chain"
                text = self.ruleset.text(offloaded.line)
                before.append(Entry(PERMIT, (_OFFLOADED,), offloaded.line, text, doubt=doubt))
            place = self._place(family, chain, attachment, direction)
            name = self._ask(table, chain, place, f"{_name(table, chain)} @{attachment} {direction}")
            self._compile_all()
            if before:
                made = self.filters[family, name]
                self.filters[family, name] = replace(made, entries=(*before, *made.entries))
            yield name
            if "flow" in touched:
                taking = (rule for rule, flow in self._flows if _offloads(flow, attachment, direction) is not False)
                offloaded = offloaded or next(taking, None)

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
                    if family in found or any(entry.action != DENY for entry in self._entries(table, rule, place)):
                        break
        return found[4] if len(found) == 2 else None


def _by_side(action: str, condition: _Condition, place: _Place) -> tuple[str, _Condition] | None:
    """What a rule that asks for the other side's interface means for the packets of an attachment.

    The verdict is about traffic with the network: there a permit counts that some of it gets. A deny counts only if
    traffic between subscribers does not go by it.
    """
    if condition.network and condition.subscribers:
        return action, condition
    if condition.network is False:
        if condition.subscribers is False or action == DENY or place.closed:
            return None
        return PERMIT, replace(condition, sure=(), reason="what goes between subscribers takes this way")
    if action == PERMIT or (action == RETURN and place.open_end) or (condition.network and place.closed):
        return action, condition
    return action, replace(condition, sure=(), reason=_OTHER)


def _closed(chain: Chain, place: _Place) -> bool:
    """Whether a base chain drops all that goes between subscribers."""
    if chain.policy != DENY:
        return False
    for rule in chain.rules:
        condition = _ALWAYS
        for part in rule.parts or ():
            if isinstance(part, Test):
                condition = _both(condition, _condition(part, place))
            elif isinstance(part, (Map, Flow)) or (isinstance(part, Verdict) and part.action != DENY):
                if condition.may and condition.subscribers is not False:
                    return False
            elif isinstance(part, Verdict):
                break
    return True


def _is_source_check(rule: Rule, place: _Place) -> bool:
    condition, check, verdict = _ALWAYS, False, False
    for part in rule.parts or ():
        if isinstance(part, Test) and part.selectors[0].kind == "source-check":
            check = part.elements == (((0, 0, -1),),) and not part.negate and len(part.selectors) == 1
        elif isinstance(part, Test):
            condition = _both(condition, _condition(part, place))
        elif isinstance(part, Verdict):
            verdict = part.action == DENY
        else:
            return False
    return check and verdict and condition == _ALWAYS


def _offloads(flow: Flow, attachment: str, direction: str) -> bool | None:
    """Whether packets of the attachment are offloaded: the flow table must have the device that they come in by."""
    if direction == "in":
        return _any(names(device, attachment) for device in flow.devices)
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


def _targets(rule: Rule) -> Iterator[str]:
    for part in rule.parts or ():
        if isinstance(part, Verdict) and part.target:
            yield part.target
        elif isinstance(part, Map):
            yield from (verdict.target for _, verdict in part.cases if verdict.target)


def _read(table: Table, chain: Chain) -> None:
    """The parts of every rule, those of chains in place too."""
    pending = [chain]
    while pending:
        chain = pending.pop()
        for rule in chain.rules:
            if rule.parts is None:
                before = len(table.chains)
                rule.parts = Reader(table, chain, rule).read()
                if len(table.chains) > before:
                    pending += list(table.chains.values())[before:]


# --- the contract --------------------------------------------------------------------------------------------------


def incomplete(text: str) -> str:
    """Why the text is not the whole output of READ; "" when it is."""
    if not text.strip():
        return "the router returned nothing: even without a ruleset `ip -o addr show` names the loopback"
    if "\x1b" in text:
        return "it holds terminal escapes: read it without a terminal"
    said = re.search(r"^.*(?:Operation not permitted|command not found|: not found$|^Error: ).*", text, re.MULTILINE)
    if said:
        return f"it holds an error message: '{said.group().strip()[:200]}'"
    depth = 0
    for word, line in tokens(text):
        depth += (word == "{") - (word == "}")
        if depth < 0:
            return f"line {line} closes a block that none opened"
    if depth:
        return f"it is cut off: {depth} blocks are open at its end"
    try:
        parse(text)
    except NotThisPlatform as error:
        return str(error)
    return ""


def parse(text: str, attachments: Sequence[str] = ()) -> Configuration:
    """The text of `nft list ruleset`, or of files for `nft -f`, with or without `ip -o addr show` behind it.

    Chains ask for interfaces, so the filters of a binding are made for its attachment: `inet isp_edge up @ppp* in`.
    Every chain is there for no attachment in particular too, as `inet isp_edge up`. Without attachments the text is
    taken for every interface that it names, and for `*`, all others. Raises NotThisPlatform.
    """
    ruleset = Ruleset(text)
    interfaces = _interfaces(ruleset.lines)
    if not ruleset.statements and not interfaces:
        raise NotThisPlatform("there is no nftables table in it, and no line of `ip -o addr show`")
    named: list[str] = []
    builder = _Builder(ruleset, tuple(attachments), ())
    named = _named_interfaces(ruleset)
    if attachments:  # every other interface that is known leads to the network
        others = [name for name in dict.fromkeys([*interfaces, *named]) if not _other_side(name, attachments)]
        builder.uplinks = tuple(name for name in others if all(not names(one, name) for one in attachments))
    builder.plain()
    bindings: list[Binding] = []
    for attachment in attachments or [*named, "*"]:
        bound, check = builder.bind(attachment)
        bindings += bound
        known = [one for one in interfaces.values() if names(attachment, one.name)]
        if attachment in interfaces or attachment in named or known or not interfaces:
            of_all = Interface(attachment, 0, tuple(prefix for one in known for prefix in one.prefixes))
            shown = interfaces.get(attachment, of_all)
            if check:
                shown = replace(shown, source_check=ruleset.text(check.line), source_check_line=check.line)
            interfaces[attachment] = shown
    return Configuration(
        filters=builder.filters,
        bindings=tuple(bindings),
        interfaces=interfaces,
        doubts=(*ruleset.doubts, *_bridges(ruleset)),
        filter_lines=ruleset.read,
    )


def _interfaces(lines: Sequence[str]) -> dict[str, Interface]:
    """From `2: ppp0    inet 192.0.2.1 peer 198.51.100.7/32 scope global ppp0`; a peer is what is routed there."""
    found: dict[str, Interface] = {}
    for number, line in enumerate(lines, 1):
        match = ADDRESS_LINE.match(line) if line[:1].isdigit() else None
        if match and match[1] != "lo":
            prefix = match[4] or match[3]
            try:
                ipaddress.ip_interface(prefix)
            except ValueError:
                continue
            known = found.get(match[1], Interface(match[1], number))
            found[match[1]] = replace(known, prefixes=(*known.prefixes, prefix))
    return found


def _named_interfaces(ruleset: Ruleset) -> list[str]:
    """The interface names and patterns of the text, each once."""
    found: dict[str, None] = {}
    for table in ruleset.tables.values():
        for chain in table.chains.values():
            for rule in chain.rules:
                for part in rule.parts or ():
                    tests = [test for test, _ in part.cases] if isinstance(part, Map) else [part]
                    for test in tests:
                        found |= dict.fromkeys(_asked_interfaces(test)) if isinstance(test, Test) else {}
            found |= dict.fromkeys(chain.devices)
    return [name for name in found if name not in ("lo", "*", "") and not name.isdecimal()]


def _asked_interfaces(test: Test) -> Iterator[str]:
    for position, selector in enumerate(test.selectors):
        if selector.kind == "interface":
            yield from (value for element in test.elements if isinstance(value := element[position], str))


def _bridges(ruleset: Ruleset) -> Iterator[Doubt]:
    for table in ruleset.tables.values():
        for chain in table.chains.values():
            if table.family == "bridge" and chain.hook and (chain.rules or chain.policy != PERMIT):
                reason = "a chain of a bridge may drop what subscribers send over one: it is not worked out"
                yield Doubt(chain.line, ruleset.text(chain.line), reason)
