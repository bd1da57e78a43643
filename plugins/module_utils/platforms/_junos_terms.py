# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What one term of a Junos firewall filter matches and does. The documents that say so: juniper_junos.py."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..filters import DENY, JUMP, PERMIT, UNKNOWN, Entry
from ..packets import (
    ADDRESS_WIDTH,
    EXTENSIONS,
    INITIAL,
    LATER_FRAGMENT,
    PROTOCOLS,
    TCP_FLAGS,
    WITH_PORTS,
    Alternatives,
    Match,
    Ternary,
    address_value,
    complement,
    conjunction,
    exactly,
    flags_all,
    flags_any,
    intersection,
    prefix,
    span,
    union,
)
from ._junos_tree import ANYWHERE, Node, single

_PORTS = {
    "afs": 1483, "bgp": 179, "biff": 512, "bootpc": 68, "bootps": 67, "cmd": 514, "cvspserver": 2401, "dhcp": 67,
    "domain": 53, "eklogin": 2105, "ekshell": 2106, "exec": 512, "finger": 79, "ftp": 21, "ftp-data": 20, "http": 80,
    "https": 443, "ident": 113, "imap": 143, "kerberos-sec": 88, "klogin": 543, "kpasswd": 761, "krb-prop": 754,
    "krbupdate": 760, "kshell": 544, "ldap": 389, "ldp": 646, "login": 513, "mobileip-agent": 434, "mobilip-mn": 435,
    "msdp": 639, "netbios-dgm": 138, "netbios-ns": 137, "netbios-ssn": 139, "nfsd": 2049, "nntp": 119, "ntalk": 518,
    "ntp": 123, "pop3": 110, "pptp": 1723, "printer": 515, "radacct": 1813, "radius": 1812, "rip": 520,
    "rkinit": 2108, "smtp": 25, "snmp": 161, "snmptrap": 162, "snpp": 444, "socks": 1080, "ssh": 22, "sunrpc": 111,
    "syslog": 514, "tacacs": 49, "tacacs-ds": 65, "talk": 517, "telnet": 23, "tftp": 69, "timed": 525, "who": 513,
    "xdmcp": 177, "zephyr-clt": 2103, "zephyr-hm": 2104,
}  # fmt: skip
PROTOCOL_NAMES = {
    "ah": 51, "dstopts": 60, "egp": 8, "esp": 50, "fragment": 44, "gre": 47, "hop-by-hop": 0, "icmp": 1, "icmp6": 58,
    "icmpv6": 58, "igmp": 2, "ipip": 4, "ipv6": 41, "mobility": 135, "no-next-header": 59, "ospf": 89, "pim": 103,
    "routing": 43, "rsvp": 46, "sctp": 132, "tcp": 6, "udp": 17, "vrrp": 112,
}  # fmt: skip
_ICMP_TYPES = {
    4: {
        "echo-reply": 0, "unreachable": 3, "source-quench": 4, "redirect": 5, "echo-request": 8,
        "router-advertisement": 9, "router-solicit": 10, "time-exceeded": 11, "parameter-problem": 12,
        "timestamp": 13, "timestamp-reply": 14, "info-request": 15, "info-reply": 16, "mask-request": 17,
        "mask-reply": 18,
    },
    6: {
        "destination-unreachable": 1, "packet-too-big": 2, "time-exceeded": 3, "parameter-problem": 4,
        "private-experimentation-100": 100, "private-experimentation-101": 101, "echo-request": 128,
        "echo-reply": 129, "membership-query": 130, "membership-report": 131, "membership-termination": 132,
        "router-solicit": 133, "router-advertisement": 134, "neighbor-solicit": 135, "neighbor-advertisement": 136,
        "redirect": 137, "router-renumbering": 138, "node-information-request": 139, "node-information-reply": 140,
        "inverse-neighbor-discovery-solicitation": 141, "inverse-neighbor-discovery-advertisement": 142,
        "home-agent-address-discovery-request": 144, "home-agent-address-discovery-reply": 145,
        "mobile-prefix-solicitation": 146, "mobile-prefix-advertisement-reply": 147,
        "certificate-path-solicitation": 148, "certificate-path-advertisement": 149,
        "private-experimentation-200": 200, "private-experimentation-201": 201,
    },
}  # fmt: skip
_ICMP_CODES = {
    4: {
        "ip-header-bad": 0, "required-option-missing": 1, "redirect-for-network": 0, "redirect-for-host": 1,
        "redirect-for-tos-and-net": 2, "redirect-for-tos-and-host": 3, "ttl-eq-zero-during-transit": 0,
        "ttl-eq-zero-during-reassembly": 1, "network-unreachable": 0, "host-unreachable": 1,
        "protocol-unreachable": 2, "port-unreachable": 3, "fragmentation-needed": 4, "source-route-failed": 5,
        "destination-network-unknown": 6, "destination-host-unknown": 7, "source-host-isolated": 8,
        "destination-network-prohibited": 9, "destination-host-prohibited": 10, "network-unreachable-for-tos": 11,
        "host-unreachable-for-tos": 12, "communication-prohibited-by-filtering": 13, "host-precedence-violation": 14,
        "precedence-cutoff-in-effect": 15,
    },
    6: {
        "ip6-header-bad": 0, "unrecognized-next-header": 1, "unrecognized-option": 2, "ttl-eq-zero-during-transit": 0,
        "ttl-eq-zero-during-reassembly": 1, "no-route-to-destination": 0, "administratively-prohibited": 1,
        "address-unreachable": 3, "port-unreachable": 4,
    },
}  # fmt: skip
# RFC 2474, 2597, 3246, 5865
CODE_POINTS = {
    "be": 0, "ef": 46, "nc1": 48, "nc2": 56, "va": 44, **{f"cs{number}": number * 8 for number in range(8)},
    **{f"af{group}{drop}": group * 8 + drop * 2 for group in range(1, 5) for drop in range(1, 4)},
}  # fmt: skip
_PRECEDENCE = {
    "routine": 0, "priority": 1, "immediate": 2, "flash": 3, "flash-override": 4, "critical-ecp": 5,
    "internet-control": 6, "net-control": 7,
}  # fmt: skip
_FLAG_NAMES = {**TCP_FLAGS, "push": 8, "urgent": 32}
# Conditions themselves, and on switches values of `tcp-flags` too.
_FLAG_SYNONYMS = {"tcp-established": flags_any(("ack", "rst")), "tcp-initial": flags_all(("syn",), ("ack",))}
# The IPv6 extension headers that the packet model tells apart, by protocol number (RFC 8200, 6275).
_EXTENSION_NUMBERS = {
    0: EXTENSIONS["hop-by-hop"], 43: EXTENSIONS["routing"], 44: EXTENSIONS["fragment"],
    60: EXTENSIONS["destination-options"], 135: EXTENSIONS["mobility"],
}  # fmt: skip
_NO_EXTENSION = exactly(EXTENSIONS["none"], 3)
_HAS_PORTS = union(*(exactly(number, 8) for number in sorted(WITH_PORTS)))
_TCP = exactly(PROTOCOLS["tcp"], 8)
_ICMP = {4: exactly(PROTOCOLS["icmp"], 8), 6: exactly(PROTOCOLS["icmp6"], 8)}
_ANYTHING: Alternatives = ((0, 0),)


def _number(word: str, names: Mapping[str, int]) -> int | None:
    """A name, or a number: decimal, 0x hexadecimal, b binary, as the condition tables say."""
    if word in names:
        return names[word]
    try:
        if word[:2].lower() == "0x":
            return int(word[2:], 16)
        if word[:1] == "b" and word[1:].isdecimal():
            return int(word[1:], 2)
        return int(word) if word.isascii() and word.isdecimal() and len(word) < 8 else None
    except ValueError:
        return None


def _bounds(word: str, names: Mapping[str, int], bits: int) -> tuple[int, int] | None:
    """'25', '137-139', 'smtp', 'ftp-data-ftp': both ends of the range, None where it is none."""
    value = _number(word, names)
    if value is not None:
        return (value, value) if value >> bits == 0 else None
    for position, sign in enumerate(word):
        if sign == "-":
            low, high = _number(word[:position], names), _number(word[position + 1 :], names)
            if low is not None and high is not None:
                return (low, high) if low <= high and high >> bits == 0 else None
    return None


@dataclass(frozen=True, slots=True)
class _Values:
    """The values that a condition surely has and those that it may have. They differ where a word was not read."""

    sure: Alternatives
    possible: Alternatives
    unread: str = ""

    def without(self, bits: int) -> _Values:
        """The condition's `-except`."""
        outside = complement(self.sure, bits)
        return _Values(() if self.unread else outside, outside, self.unread)


@functools.lru_cache(maxsize=16384)
def _values(words: tuple[str, ...], kind: str, negated: bool) -> _Values:
    """The words of a condition as values of its field. `kind` is a key of _KINDS."""
    names, bits = _KINDS[kind]
    known, unread = [], ""
    for word in words:
        bounds = _bounds(word, names, bits)
        if bounds is None:
            unread = unread or f"'{word[:60]}' was not understood"
        else:
            known.append(span(*bounds, bits))
    sure = union(*known)
    values = _Values(sure, _ANYTHING if unread else sure, unread)
    return values.without(bits) if negated else values


_KINDS: Mapping[str, tuple[Mapping[str, int], int]] = {
    "port": (_PORTS, 16), "protocol": (PROTOCOL_NAMES, 8), "icmp-type-4": (_ICMP_TYPES[4], 8),
    "icmp-type-6": (_ICMP_TYPES[6], 8), "icmp-code-4": (_ICMP_CODES[4], 8), "icmp-code-6": (_ICMP_CODES[6], 8),
    "ttl": ({}, 8), "hop-limit": ({}, 8), "packet-length": ({}, 16), "fragment-offset": ({}, 13),
    "precedence": (_PRECEDENCE, 3),
}  # fmt: skip


def _words(node: Node) -> tuple[str, ...]:
    """The values below a condition; '100 - 200' is one."""
    if not any(node.values()):
        return tuple(node)
    return tuple(
        f"{word}-{next(iter(below['-']))}" if below.get("-") else " ".join([word, *below])
        for word, below in node.items()
    )


class PrefixList:
    """The prefixes of a list, both families. `unread` says why there may be more."""

    def __init__(self, words: Iterable[str], unread: str = "") -> None:
        self.words = tuple(words)
        self.unread = unread
        self._known: dict[int, tuple[Alternatives, str]] = {}

    def prefixes(self, family: int) -> tuple[Alternatives, str]:
        """Those of one family, and what was not understood."""
        if family not in self._known:
            known, unread = _prefixes(tuple(word for word in self.words if (":" in word) == (family == 6)), family)
            self._known[family] = known, self.unread or unread
        return self._known[family]


@dataclass(slots=True)
class Scope:
    """What the filters of a configuration, or of one of its logical systems, refer to."""

    prefix_lists: Mapping[str, PrefixList]
    code_points: Mapping[int, Mapping[str, int]]  # DSCP by name, for each family


# A condition that more than one field can meet: what surely meets it, and what may.
_Choice = tuple[tuple[Match, ...], tuple[Match, ...]]


class _Conditions:
    """The `from` of one term, taken together condition by condition.

    `sure` maps a field to its values, `wider` to those it may have where that is more; `choices` must be met besides.
    Sure and possible differ where something was not understood; `unread` then says what.
    """

    __slots__ = ("carriers", "choices", "family", "scope", "sure", "unread", "upper", "upper_choices", "wider")

    def __init__(self, scope: Scope, family: int) -> None:
        self.scope = scope
        self.family = family
        self.sure: dict[str, Alternatives] = {}
        self.wider: dict[str, Alternatives] = {}
        self.choices: list[_Choice] = []
        self.unread: list[str] = []
        # Fields behind the IP header, and the protocols that have them all.
        self.upper: set[str] = set()
        self.upper_choices: list[_Choice] = []
        self.carriers: Alternatives | None = None

    def take(self, name: str, values: _Values) -> None:
        sure, possible = values.sure, values.possible
        if name in self.sure:
            possible = intersection(self.wider.get(name, self.sure[name]), possible)
            sure = intersection(self.sure[name], sure)
        self.sure[name] = sure
        if possible != sure:
            self.wider[name] = possible
        if values.unread:
            self.unread.append(values.unread)

    def take_upper(self, name: str, values: _Values, carriers: Alternatives) -> None:
        self.carry(carriers)
        self.upper.add(name)
        self.take(name, values)

    def carry(self, carriers: Alternatives) -> None:
        self.carriers = carriers if self.carriers is None else intersection(self.carriers, carriers)

    def choose(self, sure: Iterable[Match], possible: Iterable[Match], unread: str) -> None:
        self.choices.append((tuple(sure), tuple(possible)))
        if unread:
            self.unread.append(unread)

    def narrowed(self, reason: str) -> None:
        """A condition that is not modelled narrows the term further."""
        self.choose((), ({},), reason)

    def matches(self) -> tuple[tuple[Match, ...], tuple[Match, ...], str]:
        """What surely matches, what may match at most, and why the two differ ("" where they do not)."""
        if self.carriers is None:
            sure = _product(self.sure, self.choices, 0)
            if not self.unread:
                return sure, sure, ""
            return sure, _product({**self.sure, **self.wider}, self.choices, 1), "; ".join(dict.fromkeys(self.unread))
        possible_protocols = self.wider.get("protocol", self.sure.get("protocol", _ANYTHING))
        inside, outside = _split(possible_protocols, self.carriers)
        choices = [*self.choices, *self.upper_choices, _INITIAL_CHOICE]
        protocol = _split(self.sure.get("protocol", _ANYTHING), self.carriers)[0]
        sure = possible = _product({**self.sure, "protocol": protocol}, choices, 0)
        if self.unread:
            possible = _product({**self.sure, **self.wider, "protocol": inside}, choices, 1)
        flags_alone = self.family == 4 and self.upper == _FLAGS_ALONE and not self.upper_choices
        if outside or flags_alone:
            lower = {name: wanted for name, wanted in {**self.sure, **self.wider}.items() if name not in self.upper}
            later = flags_alone and _product({**lower, "protocol": inside}, [*self.choices, _LATER_CHOICE], 1)
            if later:
                possible += later
                self.unread.append("TCP flags are looked for in later fragments too, whose match is not documented")
            if outside:
                possible += _product({**lower, "protocol": outside}, self.choices, 1)
                self.unread.append("where the term does not say the protocol, Junos compares the bytes of any packet")
        return sure, possible, "; ".join(dict.fromkeys(self.unread))


_INITIAL_CHOICE: _Choice = ((INITIAL,), (INITIAL,))
_FLAGS_ALONE = {"tcp_flags"}
_LATER_CHOICE: _Choice = ((), ({"fragment": LATER_FRAGMENT},))


@functools.lru_cache(maxsize=1024)
def _split(protocols: Alternatives, carriers: Alternatives) -> tuple[Alternatives, Alternatives]:
    """The protocols that are carriers, and those that are not."""
    return intersection(protocols, carriers), intersection(protocols, complement(carriers, 8))


def _product(base: Match, choices: Sequence[_Choice], side: int) -> tuple[Match, ...]:
    """The matches that are in `base` and in one of each choice (side 0: surely, 1: possibly)."""
    if not all(base.values()):
        return ()
    found: list[Match] = [base]
    for choice in choices:
        found = [both for one in found for other in choice[side] if (both := conjunction(one, other)) is not None]
    return tuple(found)


def _ports(known: _Conditions, name: str, node: Node, negated: bool) -> None:
    values = _values(_words(node), "port", negated)
    if name != "port":
        known.take_upper(name.replace("-", "_"), values, _HAS_PORTS)
    elif negated:  # neither of the two
        known.take_upper("source_port", values, _HAS_PORTS)
        known.take_upper("destination_port", values, _HAS_PORTS)
    else:
        known.carry(_HAS_PORTS)
        sure, possible = (
            tuple({end: wanted} for end in ("source_port", "destination_port") if wanted)
            for wanted in (values.sure, values.possible)
        )
        known.upper_choices.append((sure, possible))
        known.unread += [values.unread] if values.unread else []


def _protocol(known: _Conditions, name: str, node: Node, negated: bool) -> None:
    values = _values(_words(node), "protocol", negated)
    if known.family == 4 or name == "payload-protocol":
        if known.family == 4 and name in ("next-header", "payload-protocol"):
            known.narrowed(f"'{name}' is no condition of family inet")
        known.take("protocol", values)
        return
    if name != "next-header":
        known.narrowed(f"'{name}' is no condition of family inet6")
    if not values.unread and not _extensions(values.sure):
        known.take("protocol", values)
        known.take("extension", _Values(_NO_EXTENSION, _NO_EXTENSION))
    else:
        known.choose(_next_header(values.sure), _next_header(values.possible), values.unread)


def _next_header(numbers: Alternatives) -> Iterator[Match]:
    """Packets whose first header behind the IPv6 header is one of the numbers."""
    if numbers:
        yield {"protocol": numbers, "extension": _NO_EXTENSION}
    if _extensions(numbers):
        yield {"extension": _extensions(numbers)}


def _extensions(numbers: Alternatives) -> Alternatives:
    """The extension headers among these protocol numbers."""
    found = [
        code for number, code in _EXTENSION_NUMBERS.items() if any(number & mask == value for value, mask in numbers)
    ]
    return union(*(exactly(code, 3) for code in found))


def _extension_headers(known: _Conditions, name: str, node: Node, negated: bool) -> None:
    """Any header of the chain; the model knows the first one, and that every fragment has its own."""
    if not negated and "any" in node and not any(node.values()):
        known.take("extension", _Values(complement(_NO_EXTENSION, 3), complement(_NO_EXTENSION, 3)))
        return
    values = _values(_words(node), "protocol", False)
    first = _extensions(values.sure)
    sure: list[Match] = [{"extension": first}] if first else []
    if any(EXTENSIONS["fragment"] & mask == value for value, mask in first):
        sure += [{"fragment": ((1, 1),)}, {"fragment": LATER_FRAGMENT}]
    possible: list[Match] = [{"extension": complement(_NO_EXTENSION, 3)}]
    if negated:
        sure, possible = ([] if values.unread else [{"extension": _NO_EXTENSION, "fragment": exactly(0, 2)}]), [{}]
    known.choose(sure, possible, f"'{name}' reaches extension headers behind the first, which are not modelled")


def _icmp(known: _Conditions, name: str, node: Node, negated: bool) -> None:
    values = _values(_words(node), f"{name}-{known.family}", negated)
    known.take_upper(name.replace("-", "_"), values, _ICMP[known.family])


def _flags(known: _Conditions, name: str, node: Node, negated: bool) -> None:
    if name in _FLAG_SYNONYMS:
        flags = _FLAG_SYNONYMS[name]
    else:
        words = _words(node)
        read = _flag_expression(words[0]) if len(words) == 1 and not negated else None
        if read is None:
            known.carry(_TCP)
            known.narrowed(f"'{name} {' '.join(words)[:60]}' was not understood")
            return
        flags = read
    known.take_upper("tcp_flags", _Values(flags, flags), _TCP)


@functools.lru_cache(maxsize=1024)
def _flag_expression(text: str) -> Alternatives | None:
    """'(ack & !syn) | rst', with the operators of "Match Conditions Based on Bit-Field Values"."""
    tokens = re.findall(r"[()!&+|,]|[^\s()!&+|,]+", text) if len(text) < 200 else []
    ahead = list(reversed(tokens))

    def either() -> Alternatives:
        found = both()
        while ahead and ahead[-1] in "|,":
            ahead.pop()
            found = union(found, both())
        return found

    def both() -> Alternatives:
        found = single()
        while ahead and ahead[-1] in "&+":
            ahead.pop()
            found = intersection(found, single())
        return found

    def single() -> Alternatives:
        word = ahead.pop() if ahead else ""
        if word == "!":
            return complement(single(), 8)
        if word == "(":
            found = either()
            if not ahead or ahead.pop() != ")":
                raise ValueError(text)
            return found
        if word in _FLAG_SYNONYMS:
            return _FLAG_SYNONYMS[word]
        bit = _number(word.lower(), _FLAG_NAMES)
        if bit is None or bit not in TCP_FLAGS.values():
            raise ValueError(text)  # what a number of several bits matches is not documented
        return ((bit, bit),)

    try:
        flags = either()
    except ValueError:
        return None
    return None if ahead else flags


def _fragments(known: _Conditions, name: str, node: Node, negated: bool) -> None:
    sure: Alternatives
    possible: Alternatives
    unread = ""
    if name == "is-fragment":
        sure = possible = LATER_FRAGMENT
        if known.family == 6:
            possible, unread = ((1, 1), *LATER_FRAGMENT), "'is-fragment' of family inet6 may mean the first one too"
    elif name == "first-fragment":
        sure, possible = exactly(1, 2), ((0, 0b10),)
        unread = "'first-fragment' may match packets that are no fragments"
    elif name == "fragment-offset":
        offsets = _values(_words(node), name, negated)
        inside, outside = _split_offsets(offsets.sure)
        sure = union(_at_zero(offsets.sure), () if outside else LATER_FRAGMENT)
        possible = union(_at_zero(offsets.possible), LATER_FRAGMENT if inside or offsets.unread else ())
        unread = offsets.unread or ("it looks at where a later fragment lies" if inside and outside else "")
    else:
        words = _words(node)
        if negated or words not in (("more-fragments",), ("!more-fragments",)):
            known.narrowed(f"'{name} {' '.join(words)[:60]}' was not understood")
            return
        sure = possible = ((1, 1),) if words == ("more-fragments",) else ((0, 1),)
    known.take("fragment", _Values(sure, possible, unread))


def _at_zero(offsets: Alternatives) -> Alternatives:
    """The packets with offset 0, whole or first fragments, when that is among the offsets."""
    return ((0, 0b10),) if any(value == 0 for value, _ in offsets) else ()


def _split_offsets(offsets: Alternatives) -> tuple[Alternatives, Alternatives]:
    """The offsets of later fragments that are among these, and those that are not."""
    later = span(1, 8191, 13)
    return intersection(offsets, later), intersection(complement(offsets, 13), later)


def _differentiated(known: _Conditions, name: str, node: Node, negated: bool) -> None:
    """DSCP, the six upper bits of the octet, or the precedence, the three upper ones (RFC 2474)."""
    bits = 3 if name == "precedence" else 6
    if name == "precedence":
        values = _values(_words(node), name, negated)
    else:
        names = known.scope.code_points[known.family]
        bounds = {word: _bounds(word, names, 6) for word in _words(node)}
        unread = next((f"'{word[:60]}' is no code point" for word, found in bounds.items() if found is None), "")
        sure = union(*(span(*found, 6) for found in bounds.values() if found))
        values = _Values(sure, _ANYTHING if unread else sure, unread)
        values = values.without(bits) if negated else values
    shift = 8 - bits
    octets = [tuple((one << shift, mask << shift) for one, mask in some) for some in (values.sure, values.possible)]
    known.take("tos", _Values(octets[0], octets[1], values.unread))


def _size(known: _Conditions, name: str, node: Node, negated: bool) -> None:
    known.take("length" if name == "packet-length" else "ttl", _values(_words(node), name, negated))


def _ip_options(known: _Conditions, name: str, node: Node, negated: bool) -> None:
    if negated or "any" not in node or any(node.values()):
        known.narrowed(f"'{name}' of a kind is not modelled")
    if not negated:
        known.take("options", _Values(exactly(1, 1), exactly(1, 1)))


_Condition = Callable[[_Conditions, str, Node, bool], None]
# Those with values, which have a `-except` too, and those without.
_VALUED: Mapping[str, _Condition] = {
    "source-port": _ports, "destination-port": _ports, "port": _ports, "protocol": _protocol,
    "ip-protocol": _protocol, "next-header": _protocol, "payload-protocol": _protocol, "icmp-type": _icmp,
    "icmp-code": _icmp, "dscp": _differentiated, "traffic-class": _differentiated, "precedence": _differentiated,
    "ttl": _size, "hop-limit": _size, "packet-length": _size, "fragment-offset": _fragments,
    "fragment-flags": _fragments, "tcp-flags": _flags, "ip-options": _ip_options,
    "extension-header": _extension_headers, "extension-headers": _extension_headers,
}  # fmt: skip
_PRESENT: Mapping[str, _Condition] = {
    "tcp-established": _flags, "tcp-initial": _flags, "is-fragment": _fragments, "first-fragment": _fragments,
}  # fmt: skip
# How the hardware stores ranges; the meaning stays. With ports behind it, it is a condition itself.
_OPTIMIZE = "-range-optimize"
_OPTIMIZED = frozenset(("source-port", "destination-port"))
ADDRESS_KINDS = {
    "source-address": "source", "source-prefix-list": "source", "ip-source-address": "source",
    "destination-address": "destination", "destination-prefix-list": "destination",
    "ip-destination-address": "destination", "address": "either", "prefix-list": "either",
}  # fmt: skip


def _conditions(node: Node, scope: Scope, family: int) -> tuple[tuple[Match, ...], tuple[Match, ...], str]:
    """The `from` of a term: what surely matches, what may match at most, why they differ."""
    known = _Conditions(scope, family)
    addresses: dict[str, list[tuple[str, Node]]] = {}
    for name, below in node.items():
        if name in ADDRESS_KINDS:
            addresses.setdefault(ADDRESS_KINDS[name], []).append((name, below))
        elif name in _VALUED:
            if below and not node.get(name + _OPTIMIZE):
                _VALUED[name](known, name, below, False)
        elif name.endswith("-except") and name[:-7] in _VALUED:
            if below:
                _VALUED[name[:-7]](known, name[:-7], below, True)
            if name[:-7] in node:
                known.narrowed(f"'{name[:-7]}' beside '{name}'")
        elif name in _PRESENT:
            _PRESENT[name](known, name, below, False)
            if below:
                known.narrowed(f"'{next(iter(below))[:60]}' behind '{name}' was not understood")
        elif name.removesuffix(_OPTIMIZE) in _OPTIMIZED:
            plain = name.removesuffix(_OPTIMIZE)
            if below and node.get(plain):
                known.narrowed(f"'{plain}' beside '{name}'")
            elif below:
                _ports(known, plain, below, False)
        elif name not in ANYWHERE:
            known.narrowed(f"'{name[:60]}' is not modelled")
    for end, conditions in addresses.items():
        values = _addresses(conditions, scope, family)
        if values is None:
            continue
        if end != "either":
            known.take(end, values)
            continue
        sure, possible = (
            [{name: some} for name in ("source", "destination") if some] for some in (values.sure, values.possible)
        )
        unread = values.unread
        if any("except" in word for _, below in conditions for word in below.values()):
            # Sure where the condition holds for both ends; whether one end that is excluded spoils it is not said.
            sure = [{"source": values.sure, "destination": values.sure}] if values.sure else []
            possible = possible or [{}]
            unread = f"'{conditions[0][0]}' with 'except' concerns two addresses at once"
        known.choose(sure, possible, unread)
    return known.matches()


def _addresses(conditions: Sequence[tuple[str, Node]], scope: Scope, family: int) -> _Values | None:
    """The address and prefix-list conditions of one end, as one set. None when they hold no value."""
    included: list[Alternatives] = []
    excluded: list[Alternatives] = []
    more = less = ""
    for name, node in conditions:
        for word, below in node.items():
            if name.endswith("prefix-list"):
                chosen = scope.prefix_lists.get(word) or PrefixList((), f"the prefix-list '{word[:60]}' is not defined")
                known, reason = chosen.prefixes(family)
            else:
                known, reason = _prefixes((word,), family)
            if below and (any(below.values()) or len(below) > 1 or "except" not in below):
                reason = f"'{word[:60]} {next(iter(below))[:60]}' was not understood"
                less = less or reason
            if "except" in below:
                excluded.append(known)
                less = less or reason
            else:
                included.append(known)
                more = more or reason
    if not included and not excluded:
        return None
    positive = included[0] if len(included) == 1 else union(*included)
    negative = union(*excluded)
    if not negative and not less:
        return _Values(positive, _ANYTHING if more else positive, more)
    if less:
        return _Values((), _ANYTHING if more else positive, more or less)
    left = possible = _longest_match(positive, negative, ADDRESS_WIDTH[family])
    if left is None or possible is None:
        left, possible = _not_excluded(positive, negative, ADDRESS_WIDTH[family]), positive
    if more:  # further prefixes without `except` let more match, never less
        return _Values(left, _ANYTHING, more)
    return _Values(left, possible, "" if left == possible else "which of its prefixes is the longest cannot be told")


@functools.lru_cache(maxsize=16384)
def _prefixes(words: tuple[str, ...], family: int) -> tuple[Alternatives, str]:
    """The prefixes, and what was not understood."""
    found: list[Ternary] = []
    unread = ""
    for word in words:
        try:
            found += prefix(word, family)
        except ValueError:
            other = _masked(word) if family == 4 else None
            if other is None:
                unread = unread or f"'{word[:60]}' is no prefix of the family"
            else:
                found.append(other)
    return tuple(dict.fromkeys(found)), unread


def _masked(word: str) -> Ternary | None:
    """IPv4 as Junos also takes it: '10.0.0.10/255.0.0.255' (any mask), '10' and '10.1/16' (zeros are left out)."""
    address, slash, mask = word.partition("/")
    octets = address.split(".")
    if not 1 <= len(octets) <= 4 or not all(octets):
        return None
    try:
        value = address_value(".".join(octets + ["0"] * (4 - len(octets))), 4)
        if "." in mask:
            care = address_value(mask, 4)
        elif slash:
            return prefix(f"{'.'.join(octets + ['0'] * (4 - len(octets)))}/{mask}", 4)[0]
        else:
            care = 0xFFFFFFFF
    except ValueError:
        return None
    return value & care, care


def _not_excluded(included: Alternatives, excluded: Alternatives, bits: int) -> Alternatives:
    """What no excluded prefix has, whichever is the longest; () where that would be long to say."""
    if len(included) * len(excluded) > 10_000:
        return ()
    near = [
        (value, mask)
        for value, mask in excluded
        if any(not (value ^ other) & mask & other_mask for other, other_mask in included)
    ]
    if not near:
        return included
    return intersection(included, complement(tuple(near), bits)) if len(near) < 3 else ()


def _longest_match(included: Alternatives, excluded: Alternatives, bits: int) -> Alternatives | None:
    """The addresses whose longest prefix among both is an included one. None where masks are not contiguous."""
    full = (1 << bits) - 1
    spans = []
    for prefixes, wanted in ((included, True), (excluded, False)):
        for value, mask in prefixes:
            size = full & ~mask
            if size & (size + 1):
                return None
            spans.append((value, value | size, wanted))
    if {one[:2] for one in spans if one[2]} & {one[:2] for one in spans if not one[2]}:
        return None
    spans.sort(key=lambda one: (one[0], -one[1]))
    found: list[Alternatives] = []
    around: list[tuple[int, bool]] = []  # the prefixes that we are in, the longest last: last address, included
    here = 0

    def up_to(last: int, wanted: bool) -> None:
        nonlocal here
        if wanted and here <= last:
            found.append(span(here, last, bits))
        here = max(here, last + 1)

    for low, high, wanted in spans:
        while around and around[-1][0] < low:
            up_to(*around.pop())
        if around:
            up_to(low - 1, around[-1][1])
        here = low
        around.append((high, wanted))
    while around:
        up_to(*around.pop())
    return union(*found)


_ACCEPTS = frozenset(
    ("accept", "exclude-accounting", "ipsec-sa", "logical-system", "next-interface", "next-ip", "next-ip6",
     "routing-instance", "topology")
)  # fmt: skip
_DENIES = frozenset(("discard", "reject"))
# What goes out, or comes out of it, is another packet.
_TUNNELS = frozenset(("decapsulate", "encapsulate"))
_MODIFIERS = frozenset(
    ("bgp-output-queue-priority", "clear-policy-map", "count", "dont-fragment", "dscp", "force-premium",
     "forwarding-class", "hierarchical-policer", "load-balance", "log", "loss-priority", "next-hop-group",
     "no-decrement-ttl", "packet-capture", "packet-mode", "policer", "policy-map", "port-mirror",
     "port-mirror-instance", "prefix-action", "sample", "service-accounting", "service-accounting-deferred",
     "service-filter-hit", "set-gtp-tos", "syslog", "three-color-policer", "traffic-class", "traffic-class-count",
     "virtual-channel")
)  # fmt: skip
_NOT_IN_A_TERM = ANYWHERE | {"from", "then", "filter"}
EVERYTHING: tuple[Match, ...] = ({},)
_NEXT = "next"
_ENDS = _ACCEPTS | _DENIES | {_NEXT}
# Those without a value; the value of the others may be called as an action is.
_BARE = frozenset(
    ("accept", "discard", "force-premium", "log", "no-decrement-ttl", "packet-capture", "packet-mode", "port-mirror",
     "reject", "sample", "service-accounting", "service-accounting-deferred", "service-filter-hit", "syslog")
)  # fmt: skip


def term_entries(name: str, node: Node, filter_name: str, scope: Scope, family: int) -> Iterator[Entry]:
    """The entries of one term: what surely matches, then what may."""
    text = f"filter {filter_name} term {name}"
    if "filter" in node:
        target = single(node["filter"])
        if target is None or target[1] or "from" in node or "then" in node:
            yield Entry(UNKNOWN, EVERYTHING, node.line, text, doubt="a term that refers to a filter holds nothing else")
        else:
            yield Entry(JUMP, EVERYTHING, node.line, text, target=target[0])
        return
    strange = next((word for word in node if word not in _NOT_IN_A_TERM), "")
    if strange:
        yield Entry(UNKNOWN, EVERYTHING, node.line, text, doubt=f"'{strange[:60]}' was not understood in a term")
        return
    action, doubt = _action(node["then"]) if node.get("then") else (PERMIT, "")
    if action == _NEXT:
        return
    conditions = node.get("from")
    if not conditions:
        yield Entry(action, EVERYTHING, node.line, text, doubt=doubt)
        return
    if any(below.rank != node.rank for below in conditions.values()):
        yield Entry(UNKNOWN, EVERYTHING, node.line, text, doubt="own conditions and inherited ones mix in this term")
        return
    sure, possible, unread = _conditions(conditions, scope, family)
    if sure or not unread:
        yield Entry(action, sure, node.line, text, doubt=doubt)
    if unread:
        yield Entry(action, possible, node.line, text, doubt=f"{unread}; {doubt}" if doubt else unread)


def _action(node: Node) -> tuple[str, str]:
    """What a `then` does, and what is in doubt about it."""
    deciding: list[tuple[int, int, str]] = []
    for word, below in reversed(node.items()):
        if word in ANYWHERE:
            continue
        if below:
            values = (below,) if word in _BARE else below.values()
            behind = next((one for value in values for one in value if one in _ENDS), "")
            if behind and (word not in _ACCEPTS or behind not in _ACCEPTS):  # `next-ip A routing-instance B` is one
                return UNKNOWN, f"'{behind}' behind '{word[:60]}' was not understood"
        if word in _MODIFIERS:
            continue
        if word == "next" and not below:
            continue  # what it goes to was deactivated or deleted
        deciding.append((below.rank, -below.line, word))
    if not deciding:
        return PERMIT, ""
    word = min(deciding, key=lambda one: one[:2])[2]  # they exclude each other: the last that was set holds
    if word in _ACCEPTS:
        return PERMIT, ""
    if word in _DENIES:
        return DENY, ""
    if word in _TUNNELS:
        return PERMIT, f"'{word}' changes the packet"
    if word == "next" and "term" in node["next"]:
        return _NEXT, ""
    return UNKNOWN, f"the action '{word[:60]}' was not understood"
