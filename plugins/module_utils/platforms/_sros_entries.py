# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What one entry of an SR OS filter policy matches and does. The documents that say so: nokia_sros.py."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..filters import DENY, PERMIT, UNKNOWN, Entry
from ..packets import (
    ADDRESS_WIDTH,
    EXTENSIONS,
    INITIAL,
    LATER_FRAGMENT,
    PROTOCOLS,
    TCP_FLAGS,
    Alternatives,
    Match,
    address_value,
    complement,
    conjunction,
    contains,
    exactly,
    flags_all,
    intersection,
    prefix,
    span,
    union,
)
from ._sros_tree import Node, at, find, single

# YANG nokia-types-sros, match-ip-protocol; `*` is what the classic CLI writes for tcp-udp.
PROTOCOL_NAMES = {
    "icmp": 1, "igmp": 2, "ip": 4, "tcp": 6, "egp": 8, "igp": 9, "udp": 17, "rdp": 27, "ipv6": 41, "ipv6-route": 43,
    "ipv6-frag": 44, "idrp": 45, "rsvp": 46, "gre": 47, "ipv6-icmp": 58, "ipv6-no-nxt": 59, "ipv6-opts": 60,
    "iso-ip": 80, "eigrp": 88, "ospf-igp": 89, "ether-ip": 97, "encap": 98, "pnni": 102, "pim": 103, "vrrp": 112,
    "l2tp": 115, "stp": 118, "ptp": 123, "isis": 124, "crtp": 126, "crudp": 127, "sctp": 132,
}  # fmt: skip
_TCP_OR_UDP = frozenset(("tcp-udp", "*"))
# RFC 2474, 2597, 3246; cp is the code point itself.
_CODE_POINTS = {
    "be": 0, "ef": 46, "nc1": 48, "nc2": 56, **{f"cs{number}": number * 8 for number in range(1, 8)},
    **{f"af{group}{drop}": group * 8 + drop * 2 for group in range(1, 5) for drop in range(1, 4)},
    **{f"cp{number}": number for number in range(64)},
}  # fmt: skip
# The classic CLI writes them with names; RFC 792, 4443, 4861.
_ICMP_TYPES = {
    4: {"echo-reply": 0, "dest-unreachable": 3, "source-quench": 4, "redirect": 5, "echo-request": 8,
        "router-advt": 9, "router-selection": 10, "time-exceeded": 11, "param-problem": 12, "timestamp-request": 13,
        "timestamp-reply": 14, "addr-mask-request": 17, "addr-mask-reply": 18, "photuris": 40},
    6: {"dest-unreachable": 1, "packet-too-big": 2, "time-exceeded": 3, "param-problem": 4, "echo-request": 128,
        "echo-reply": 129, "group-query": 130, "group-report": 131, "group-reduction": 132, "rtr-solicitation": 133,
        "rtr-advertisement": 134, "nbr-solicitation": 135, "nbr-advertisement": 136, "redirect": 137},
}  # fmt: skip
_ICMP_CODES = {
    4: {"network-unreachable": 0, "host-unreachable": 1, "protocol-unreachable": 2, "port-unreachable": 3,
        "fragmentation-needed": 4},
    6: {"port-unreachable": 4},
}  # fmt: skip
# IPv6 extension headers that the packet model tells apart, by protocol number (RFC 8200, 6275).
_EXTENSION_NUMBERS = {
    0: EXTENSIONS["hop-by-hop"], 43: EXTENSIONS["routing"], 44: EXTENSIONS["fragment"],
    60: EXTENSIONS["destination-options"], 135: EXTENSIONS["mobility"],
}  # fmt: skip
NO_EXTENSION = exactly(EXTENSIONS["none"], 3)
_EXTENDED: Match = {"extension": complement(NO_EXTENSION, 3)}
EVERYTHING: tuple[Match, ...] = ({},)
_ANYTHING: Alternatives = ((0, 0),)
_WITH_PORTS = union(*(exactly(PROTOCOLS[name], 8) for name in ("tcp", "udp", "sctp")))
_TCP = exactly(PROTOCOLS["tcp"], 8)
_ICMP = {4: exactly(PROTOCOLS["icmp"], 8), 6: exactly(PROTOCOLS["icmp6"], 8)}
_UNREAD_ZERO = "that a value of zero or false matches later fragments too is not documented for every release"
_TWO_READINGS = "whether next-header means the first header or the one behind extension headers is not documented"
_UNREAD_BYTES = (
    "where the entry does not say the protocol, whether other protocols' bytes are compared is not documented"
)


def number(word: str, names: Mapping[str, int] | None = None) -> int | None:
    """A name, or a number: decimal, hexadecimal, binary, as the classic CLI takes them."""
    if names and word in names:
        return names[word]
    if word.isascii() and word.isdecimal() and len(word) < 8:
        return int(word)
    try:
        return int(word, 0) if word[:2] in ("0x", "0b") and len(word) < 40 else None
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class Values:
    """The values that a condition surely has and those that it may have. They differ where a word was not read."""

    sure: Alternatives
    possible: Alternatives
    unread: str = ""


class Lists:
    """The match-lists of a configuration, each read once."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._known: dict[tuple[str, str], Values] = {}

    def values(self, kind: str, name: str) -> Values:
        """Of an ip-prefix-list, ipv6-prefix-list, port-list or protocol-list."""
        if (kind, name) not in self._known:
            node = find(self._node, (kind, name))
            if node is None:
                self._known[kind, name] = Values((), _ANYTHING, f"the {kind} '{name[:60]}' is not defined")
            else:
                self._known[kind, name] = _LISTS[kind](node, name)
        return self._known[kind, name]


def _prefix_list(node: Node, name: str, family: int) -> Values:
    if "apply-path" in node:
        return Values((), _ANYTHING, f"the prefix list '{name[:60]}' holds what its apply-path finds")
    known, unread = _prefixes(tuple(at(node, "prefix")), family)
    excluded, other = _prefixes(tuple(at(node, "prefix-exclude")), family)
    unread = unread or other or _strange(node, ("description", "prefix", "prefix-exclude"))
    if not known and not unread:
        return Values((), _ANYTHING, f"what the empty prefix list '{name[:60]}' matches is not documented")
    if excluded:
        few = len(excluded) < 64 and len(known) * len(excluded) < 10_000
        known = intersection(known, complement(excluded, ADDRESS_WIDTH[family])) if few else ()
        unread = unread or ("" if known else "too many excluded prefixes")
    return Values(() if unread and excluded else known, _ANYTHING if unread else known, unread)


def _strange(node: Node, known: Sequence[str]) -> str:
    """The first word that a list should not have."""
    return next((f"'{word[:60]}' was not understood in a list" for word in node if word not in known), "")


@functools.lru_cache(maxsize=4096)
def _prefixes(words: tuple[str, ...], family: int) -> tuple[Alternatives, str]:
    found: list[Alternatives] = []
    unread = ""
    for word in words:
        try:
            found.append(prefix(word, family))
        except ValueError:
            unread = unread or f"'{word[:60]}' is no prefix of the family"
    return union(*found), unread


def _port_list(node: Node, name: str) -> Values:
    unread = _strange(node, ("description", "port", "range"))
    ports = at(node, "port")
    spans = [tuple(word.split()[1::2]) for word in at(node, "range")]  # "start 135 end 139"
    for word, below in ports.items():
        if word == "range":  # port range 135 139
            spans += [(low, high) for low, ends in below.items() for high in ends]
        elif number(word) is None:
            unread = unread or f"'{word[:60]}' is no port"
        else:
            spans.append((word, word))
    numbers = []
    for ends in spans:
        low, high = (number(ends[0]), number(ends[1])) if len(ends) == 2 else (None, None)
        if low is None or high is None or not low <= high < 65536:
            unread = unread or f"a range of the port list '{name[:60]}' was not understood"
        else:
            numbers.append((low, high))
    found = [span(low, high, 16) for low, high in sorted(numbers)]
    if not found and not unread:
        return Values((), _ANYTHING, f"what the empty port list '{name[:60]}' matches is not documented")
    known = union(*found)
    return Values(known, _ANYTHING if unread else known, unread)


def _protocol_list(node: Node, name: str) -> Values:
    words = tuple(at(node, "protocol"))
    if not words:
        return Values((), _ANYTHING, f"what the empty protocol list '{name[:60]}' matches is not documented")
    values = [_protocol(word) for word in words]
    unread = next((one.unread for one in values if one.unread), "") or _strange(node, ("description", "protocol"))
    known = union(*(one.sure for one in values))
    return Values(known, _ANYTHING if unread else known, unread)


_LISTS: Mapping[str, Callable[[Node, str], Values]] = {
    "ip-prefix-list": lambda node, name: _prefix_list(node, name, 4),
    "ipv6-prefix-list": lambda node, name: _prefix_list(node, name, 6),
    "port-list": _port_list,
    "protocol-list": _protocol_list,
}


@functools.lru_cache(maxsize=512)
def _protocol(word: str) -> Values:
    if word in _TCP_OR_UDP:
        both = union(exactly(6, 8), exactly(17, 8))
        return Values(both, both)
    value = number(word, PROTOCOL_NAMES)
    if word == "none":
        return Values(_ANYTHING, _ANYTHING)
    if value is None or value > 255:
        return Values((), _ANYTHING, f"the protocol '{word[:60]}' was not understood")
    return Values(exactly(value, 8), exactly(value, 8))


class _Conditions:
    """The `match` of one entry, taken together condition by condition.

    `sure` maps a field to its values, `wider` to those that it may have; `choices` must be met besides. `upper` are the
    fields behind the IP header, `carriers` the protocols that have them.
    """

    def __init__(self, lists: Lists, family: int) -> None:
        self.lists = lists
        self.family = family
        self.sure: dict[str, Alternatives] = {}
        self.wider: dict[str, Alternatives] = {}
        self.choices: list[tuple[tuple[Match, ...], tuple[Match, ...]]] = []
        self.upper: set[str] = set()
        self.upper_choices: list[tuple[tuple[Match, ...], tuple[Match, ...]]] = []
        self.carriers: Alternatives | None = None
        self.zero = True  # a header of zeros would meet the conditions on it
        self.unread: list[str] = []

    def take(self, name: str, values: Values) -> None:
        sure, possible = values.sure, values.possible
        if name in self.sure:
            possible = intersection(self.wider.get(name, self.sure[name]), possible)
            sure = intersection(self.sure[name], sure)
        self.sure[name] = sure
        if possible != sure:
            self.wider[name] = possible
        if values.unread:
            self.unread.append(values.unread)

    def take_upper(self, name: str, values: Values, carriers: Alternatives) -> None:
        self.carry(carriers)
        self.upper.add(name)
        self.zero = self.zero and contains(values.possible, 0)
        self.take(name, values)

    def carry(self, carriers: Alternatives) -> None:
        self.carriers = carriers if self.carriers is None else intersection(self.carriers, carriers)

    def choose(self, sure: Iterable[Match], possible: Iterable[Match], unread: str = "") -> None:
        self.choices.append((tuple(sure), tuple(possible)))
        if unread:
            self.unread.append(unread)

    def narrowed(self, reason: str) -> None:
        """A condition that is not modelled narrows the entry further."""
        self.choose((), ({},), reason)

    def matches(self) -> tuple[tuple[Match, ...], tuple[Match, ...], str]:
        """What surely matches, what may match at most, and why the two differ ("" where they do not)."""
        wide = {**self.sure, **self.wider}
        if self.carriers is None:
            sure = _product(self.sure, self.choices, 0)
            if not self.unread:
                return sure, sure, ""
            return sure, _product(wide, self.choices, 1), self._reasons()
        told = self.wider.get("protocol", self.sure.get("protocol", _ANYTHING))
        inside, outside = _split(told, self.carriers)
        choices = [*self.choices, *self.upper_choices, _WHOLE]
        protocol = _split(self.sure.get("protocol", _ANYTHING), self.carriers)[0]
        sure = _product({**self.sure, "protocol": protocol}, choices, 0)
        possible = sure if not self.unread else _product({**wide, "protocol": inside}, choices, 1)
        lower = {name: some for name, some in wide.items() if name not in self.upper}
        if self.zero and inside:
            possible += _product({**lower, "protocol": inside}, [*self.choices, _LATER], 1)
            self.unread += [] if self.unread else [_UNREAD_ZERO]
        if outside:
            possible += _product({**lower, "protocol": outside}, self.choices, 1)
            self.unread.append(_UNREAD_BYTES)
        return sure, possible, self._reasons()

    def behind(self, codes: Alternatives) -> tuple[Match, ...]:
        """What may match when next-header is compared with the first of the extension headers, one of `codes`."""
        lower = {name: some for name, some in {**self.sure, **self.wider}.items() if name not in self.upper}
        lower.pop("protocol", None)
        return _product({**lower, "extension": codes}, self.choices, 1)

    def _reasons(self) -> str:
        return "; ".join(dict.fromkeys(self.unread))


@functools.lru_cache(maxsize=1024)
def _split(protocols: Alternatives, carriers: Alternatives) -> tuple[Alternatives, Alternatives]:
    """The protocols that are carriers, and those that are not."""
    return intersection(protocols, carriers), intersection(protocols, complement(carriers, 8))


_WHOLE = ((INITIAL,), (INITIAL,))
_LATER: tuple[tuple[Match, ...], tuple[Match, ...]] = (({"fragment": LATER_FRAGMENT},), ({"fragment": LATER_FRAGMENT},))


def _product(
    base: Match, choices: Sequence[tuple[tuple[Match, ...], tuple[Match, ...]]], side: int
) -> tuple[Match, ...]:
    """The matches that are in `base` and in one of each choice (side 0: surely, 1: possibly)."""
    if not all(base.values()):
        return ()
    found: list[Match] = [base]
    for choice in choices:
        found = [both for one in found for other in choice[side] if (both := conjunction(one, other)) is not None]
    return tuple(found)


def _condition_protocol(known: _Conditions, name: str, node: Node) -> None:
    word = single(node)
    values = known.lists.values("protocol-list", word) if name.endswith("-list") else _protocol(word)
    if (known.family == 6) != name.startswith("next-header"):
        known.narrowed(f"'{name}' is no condition of this family")
    known.take("protocol", values)


def _condition_address(known: _Conditions, name: str, node: Node) -> None:
    values = _address(known, node)
    if name != "ip":
        known.take({"src-ip": "source", "dst-ip": "destination"}[name], values)
        return
    sure, possible = (
        [{end: some} for end in ("source", "destination") if some] for some in (values.sure, values.possible)
    )
    known.choose(sure, possible, values.unread)


_OF_AN_ADDRESS = frozenset(("address", "mask", "ip-prefix-list", "ipv6-prefix-list"))


def _address(known: _Conditions, node: Node) -> Values:
    kind = "ip-prefix-list" if known.family == 4 else "ipv6-prefix-list"
    chosen = single(node)
    if chosen == kind:
        return known.lists.values(kind, single(node[kind]))
    mask = ""
    if len(node) > 1 and not node.keys() <= _OF_AN_ADDRESS:
        return Values((), _ANYTHING, f"'{' '.join(node)[:60]}' was not understood as an address")
    if "address" in node and chosen in ("address", "mask"):  # MD-CLI
        word = single(node["address"])
        mask = single(at(node, "mask"))
    else:  # classic: the address, and a mask behind it
        word = chosen
        mask = single(node[chosen]) if chosen else ""
    return _masked(word, mask, known.family)


@functools.lru_cache(maxsize=65536)
def _masked(word: str, mask: str, family: int) -> Values:
    try:
        if not mask:
            found = prefix(word, family)
        else:
            care = address_value(mask, family)
            found = ((address_value(word.partition("/")[0], family) & care, care),)
    except ValueError:
        return Values((), _ANYTHING, f"'{word[:60]} {mask[:60]}'".rstrip() + " was not understood as an address")
    return Values(found, found)


def _compared(known: _Conditions, node: Node, bits: int) -> Values:
    """eq, lt, gt, range or port-list."""
    kind = single(node)
    below = node[kind] if kind else Node()
    top = (1 << bits) - 1
    if kind == "port-list":
        return known.lists.values("port-list", single(below))
    if kind == "range":
        if "start" in below or "end" in below:
            ends = [number(single(at(below, word))) for word in ("start", "end")]
        else:
            low = single(below)
            ends = [number(low), number(single(below[low])) if low else None]
    else:
        value = number(single(below))
        ends = [value, value]
        if value is not None and kind == "lt":
            ends = [0, value - 1]
        elif value is not None and kind == "gt":
            ends = [value + 1, top]
        elif kind != "eq":
            ends = [None, None]
    if ends[0] is None or ends[1] is None or not 0 <= ends[0] <= ends[1] <= top:
        return Values((), _ANYTHING, f"'{kind[:60]} {' '.join(below)[:60]}' was not understood")
    found = span(ends[0], ends[1], bits)
    return Values(found, found)


def _condition_port(known: _Conditions, name: str, node: Node) -> None:
    values = _compared(known, node, 16)
    if name != "port":
        known.take_upper({"src-port": "source_port", "dst-port": "destination_port"}[name], values, _WITH_PORTS)
        return
    known.carry(_WITH_PORTS)
    known.zero = known.zero and contains(values.possible, 0)
    sure, possible = (
        tuple({end: some} for end in ("source_port", "destination_port") if some)
        for some in (values.sure, values.possible)
    )
    known.upper_choices.append((sure, possible))
    known.unread += [values.unread] if values.unread else []


def _truth(node: Node) -> bool | None:
    return {"true": True, "false": False}.get(single(node))


def _condition_flags(known: _Conditions, name: str, node: Node) -> None:
    flags = node.items() if name == "tcp-flags" else [(name.removeprefix("tcp-"), node)]  # classic: tcp-syn, tcp-ack
    for flag, below in flags:
        told = _truth(below)
        if told is None or flag not in TCP_FLAGS:
            known.carry(_TCP)
            known.narrowed(f"the TCP flag '{flag[:60]} {single(below)[:60]}' is not modelled")
            continue
        found = flags_all((flag,)) if told else flags_all((), (flag,))
        known.take_upper("tcp_flags", Values(found, found), _TCP)


def _condition_icmp(known: _Conditions, name: str, node: Node) -> None:
    told = node.items() if name == "icmp" else [(name.removeprefix("icmp-"), node)]
    for part, below in told:
        names = {"type": _ICMP_TYPES, "code": _ICMP_CODES}.get(part)
        value = number(single(below), names[known.family]) if names else None
        if value is None or value > 255:
            values = Values((), _ANYTHING, f"'{name} {single(below)[:60]}' was not understood")
        else:
            values = Values(exactly(value, 8), exactly(value, 8))
        known.take_upper(f"icmp_{part}" if names else "icmp_type", values, _ICMP[known.family])


def _condition_fragment(known: _Conditions, node: Node) -> None:
    """IPv4 by MF and offset; IPv6 by the fragment header, which an atomic fragment has too."""
    word = single(node)
    whole: Match = {"fragment": exactly(0, 2)}
    atomic: Match = {**whole, "extension": exactly(EXTENSIONS["fragment"], 3)}
    some: tuple[Match, ...] = ({"fragment": exactly(1, 2)}, {"fragment": LATER_FRAGMENT})
    if known.family == 6:
        whole = {**whole, "extension": complement(exactly(EXTENSIONS["fragment"], 3), 3)}
    if word == "true":
        known.choose(some + ((atomic,) if known.family == 6 else ()), some + ((atomic,) if known.family == 6 else ()))
    elif word == "false":
        known.choose((whole,), (whole,))
    elif word == "first-only":
        unread = "whether an atomic fragment is a first one is not documented" if known.family == 6 else ""
        known.choose(some[:1], (*some[:1], atomic) if unread else some[:1], unread)
    elif word == "non-first-only":
        known.choose(some[1:], some[1:])
    else:
        known.narrowed(f"'fragment {word[:60]}' was not understood")


def _condition_dscp(known: _Conditions, node: Node) -> None:
    value = number(single(node), _CODE_POINTS)
    if value is None or value > 63:
        known.narrowed(f"the code point '{single(node)[:60]}' was not understood")
    else:
        found = ((value << 2, 0xFC),)
        known.take("tos", Values(found, found))


def _condition_options(known: _Conditions, name: str, node: Node) -> None:
    """The model knows whether there are IP options, not which."""
    told = _truth(node) if name != "ip-option" else True
    some, none = Values(exactly(1, 1), exactly(1, 1)), Values(exactly(0, 1), exactly(0, 1))
    if told is None:
        known.narrowed(f"'{name} {single(node)[:60]}' was not understood")
    elif name == "option-present":
        known.take("options", some if told else none)
    elif told:
        known.take("options", some)
        known.narrowed(f"'{name}' looks into the IP options, which are not modelled")
    else:
        known.choose(
            ({"options": exactly(0, 1)},), ({},), f"'{name}' looks into the IP options, which are not modelled"
        )


def _condition_headers(known: _Conditions, name: str, node: Node) -> None:
    headers = node.items() if name == "extension-header" else [(_CLASSIC_HEADERS[name], node)]
    for header, below in headers:
        told = _truth(below)
        protocol = {"ah": 51, "esp": 50}.get(header)
        if told is None:
            known.narrowed(f"'{header[:60]} {single(below)[:60]}' was not understood")
        elif protocol is not None:
            found = exactly(protocol, 8) if told else complement(exactly(protocol, 8), 8)
            known.take("protocol", Values(found, found))
        elif header == "hop-by-hop":  # nothing may stand before it (RFC 8200)
            found = exactly(EXTENSIONS["hop-by-hop"], 3)
            found = found if told else complement(found, 3)
            known.take("extension", Values(found, found))
        elif header == "routing-type0" and told:
            known.choose((), (_EXTENDED,), "the type of a routing header is not modelled")
        else:
            known.choose(({"extension": NO_EXTENSION},), ({},), f"'{header[:60]}' is not modelled")


_CLASSIC_HEADERS = {
    "ah-ext-hdr": "ah", "esp-ext-hdr": "esp", "hop-by-hop-opt": "hop-by-hop", "routing-type0": "routing-type0",
}  # fmt: skip


def _condition_size(known: _Conditions, name: str, node: Node) -> None:
    field = "length" if name == "packet-length" else "ttl"
    known.take(field, _compared(known, node, 16 if field == "length" else 8))


_CONDITIONS: Mapping[str, Callable[[_Conditions, str, Node], None]] = {
    **dict.fromkeys(("protocol", "protocol-list", "next-header", "next-header-list"), _condition_protocol),
    **dict.fromkeys(("src-ip", "dst-ip", "ip"), _condition_address),
    **dict.fromkeys(("src-port", "dst-port", "port"), _condition_port),
    **dict.fromkeys(("tcp-flags", "tcp-syn", "tcp-ack"), _condition_flags),
    **dict.fromkeys(("icmp", "icmp-type", "icmp-code"), _condition_icmp),
    **dict.fromkeys(("ip-option", "option-present", "multiple-option", "src-route-option"), _condition_options),
    **dict.fromkeys(("extension-header", *_CLASSIC_HEADERS), _condition_headers),
    **dict.fromkeys(("packet-length", "ttl", "hop-limit"), _condition_size),
    "fragment": lambda known, _, node: _condition_fragment(known, node),
    "dscp": lambda known, _, node: _condition_dscp(known, node),
}
_NEXT_HEADER = frozenset(("next-header", "next-header-list"))
_ON_THE_HEADER_CHAIN = _NEXT_HEADER | {"src-port", "dst-port", "port", "tcp-flags", "tcp-syn", "tcp-ack", "icmp",
                                       "icmp-type", "icmp-code"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Told:
    """What an entry surely matches, what it may match besides, and why that is in doubt."""

    sure: tuple[Match, ...]
    maybe: tuple[Match, ...]
    unread: str


def _told(node: Node, lists: Lists, family: int, open_codes: frozenset[int]) -> _Told:
    """`open_codes`: extension headers in front of which both readings of next-header are still open."""
    if "port-selector" in node:  # it may have either port suffice, so less than both is asked
        return _Told((), EVERYTHING, "'port-selector' is not modelled")
    known = _Conditions(lists, family)
    for name, below in node.items():
        condition = _CONDITIONS.get(name)
        if condition is None:
            known.narrowed(f"'{name[:60]}' is not modelled")
        elif not below:
            known.narrowed(f"'{name[:60]}' has no value")
        else:
            condition(known, name, below)
    sure, possible, unread = known.matches()
    if family == 4 or not open_codes or not any(name in _ON_THE_HEADER_CHAIN for name in node):
        return _Told(sure, possible if unread else (), unread)
    among = union(*(exactly(code, 3) for code in sorted(open_codes)))
    beyond: Match = {"extension": complement(among, 3)}
    certain = tuple(both for one in sure if (both := conjunction(one, beyond)) is not None)
    maybe = possible if unread else tuple(
        both for one in possible if (both := conjunction(one, {"extension": among})) is not None
    )  # fmt: skip
    told = known.wider.get("protocol", known.sure.get("protocol", ()))
    codes = [code for one, code in _EXTENSION_NUMBERS.items() if contains(told, one) and code in open_codes]
    if codes and any(name in _NEXT_HEADER for name in node):
        maybe += known.behind(union(*(exactly(code, 3) for code in codes)))
    return _Told(certain, maybe, f"{unread}; {_TWO_READINGS}" if unread else _TWO_READINGS)


def _decided_first(node: Node, lists: Lists) -> frozenset[int]:
    """The extension headers whose packets an entry decides on, if next-header means the first header."""
    if len(node) != 1 or next(iter(node)) not in _NEXT_HEADER:
        return frozenset()
    ((name, below),) = node.items()
    word = single(below)
    values = lists.values("protocol-list", word) if name.endswith("-list") else _protocol(word)
    return frozenset(code for one, code in _EXTENSION_NUMBERS.items() if contains(values.sure, one))


# What an action does to a packet, and what is in doubt about it. Two outcomes stay open where there are two.
_DOES = {
    "drop": (DENY, ""),
    "accept": (PERMIT, ""),
    "forward": (PERMIT, ""),
    "reassemble": (PERMIT, ""),
    "tcp-mss-adjust": (PERMIT, ""),
    "gtp-local-breakout": (PERMIT, ""),
    "nat": (PERMIT, "'nat' changes the packet"),
    "http-redirect": (UNKNOWN, "'http-redirect' answers the packet, and what it does to other than HTTP is not read"),
}
_BESIDE_AN_ACTION = frozenset(("fc", "l2-aware-nat-bypass", "remark", "secondary", "apply-groups-exclude"))


def _actions(node: Node) -> list[tuple[str, str]]:
    """What the action of an entry does, with its doubts. Empty: the entry is inactive, or ignores its match."""
    told = dict(node)
    if "ignore-match" in told:
        return []
    conditional = {"drop-when": DENY, "accept-when": PERMIT}
    found = [
        (action, f"'{word}' depends on what is not modelled")
        for word, action in conditional.items()
        if told.pop(word, None) is not None
    ]
    limit = told.pop("rate-limit", None)
    if limit is not None and (single(at(limit, "pir")) or single(limit)) == "0":
        return [*found, (DENY, "")]
    chosen = max((word for word in told if word in _DOES), key=lambda word: told[word].line, default="")
    strange = next((word for word in told if word not in _DOES and word not in _BESIDE_AN_ACTION), "")
    if strange:
        return [(UNKNOWN, f"'{strange[:60]}' was not understood in an action")]
    if not chosen:
        if limit is not None:
            return [*found, (PERMIT, "")]  # classic: a limit is an action, and what is within it passes
        return [*found, (UNKNOWN, "an action that says nothing was not understood")] if node else []
    if chosen == "drop" and told["drop"]:  # classic: drop packet-length gt 100
        return [(DENY, f"'drop {next(iter(told['drop']))[:60]}' drops some of the packets"), (PERMIT, "")]
    return [*found, _DOES[chosen]]


class Walk:
    """The entries of one filter in their order.

    Where next-header may mean the first header or the upper-layer one, an entry is in doubt for packets with extension
    headers, until one has decided on such a header by its number: in the first reading no packet with it comes further,
    so the second one holds from there on.
    """

    def __init__(self, lists: Lists, family: int) -> None:
        self._lists = lists
        self._family = family
        self._open = frozenset(_EXTENSION_NUMBERS.values()) if family == 6 else frozenset[int]()

    def entries(self, node: Node, text: str) -> Iterator[Entry]:
        """What one entry means: what surely matches, then what may. None for an inactive one."""
        actions = _actions(at(node, "action"))
        strange = next((word for word in node if word not in _OF_AN_ENTRY), "")
        if not actions and "action" not in node:  # inactive, unless its action was not understood
            strange = strange or next((word for word in at(node, "match") if word not in _OF_A_MATCH), "")
        if strange:
            doubt = f"'{strange[:60]}' was not understood in an entry"
            yield Entry(UNKNOWN, EVERYTHING, node.line, text, doubt=doubt)
            return
        if not actions:
            return
        match = at(node, "match")
        told = _told(match, self._lists, self._family, self._open)
        for position, (action, doubt) in enumerate(actions, 1):
            if action == UNKNOWN or (doubt and position < len(actions)):
                reason = f"{told.unread}; {doubt}" if told.unread else doubt
                yield Entry(action, told.sure + told.maybe, node.line, text, doubt=reason)
                continue
            if told.sure or not told.unread:
                yield Entry(action, told.sure, node.line, text, doubt=doubt)
            if told.maybe:
                reason = f"{told.unread}; {doubt}" if doubt else told.unread
                yield Entry(action, told.maybe, node.line, text, doubt=reason)
        if self._open and len(actions) == 1 and not actions[0][1]:
            self._open -= _decided_first(match, self._lists)


_OF_A_MATCH = _CONDITIONS.keys() | {"destination-class", "flow-label", "src-mac"}
_OF_AN_ENTRY = frozenset(
    ("action", "collect-stats", "description", "egress-pbr", "filter-sample", "interface-disable-sample",
     "interface-sample", "log", "match", "no", "pbr-down-action-override", "sample-profile", "sticky-dest")
)  # fmt: skip
