# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Words of Junos conditions as values of packet fields. The documents that say so: juniper_junos.py."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..packets import (
    ADDRESS_WIDTH,
    EXTENSIONS,
    PROTOCOLS,
    TCP_FLAGS,
    WITH_PORTS,
    Alternatives,
    Ternary,
    address_value,
    complement,
    exactly,
    flags_all,
    flags_any,
    intersection,
    prefix,
    span,
    union,
)
from ._junos_tree import Node

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
FLAG_NAMES = {**TCP_FLAGS, "push": 8, "urgent": 32}
# Conditions themselves, and on switches values of `tcp-flags` too.
FLAG_SYNONYMS = {"tcp-established": flags_any(("ack", "rst")), "tcp-initial": flags_all(("syn",), ("ack",))}
# The IPv6 extension headers that the packet model tells apart, by protocol number (RFC 8200, 6275).
EXTENSION_NUMBERS = {
    0: EXTENSIONS["hop-by-hop"], 43: EXTENSIONS["routing"], 44: EXTENSIONS["fragment"],
    60: EXTENSIONS["destination-options"], 135: EXTENSIONS["mobility"],
}  # fmt: skip
NO_EXTENSION = exactly(EXTENSIONS["none"], 3)
HAS_PORTS = union(*(exactly(number, 8) for number in sorted(WITH_PORTS)))
TCP = exactly(PROTOCOLS["tcp"], 8)
ICMP = {4: exactly(PROTOCOLS["icmp"], 8), 6: exactly(PROTOCOLS["icmp6"], 8)}
ANYTHING: Alternatives = ((0, 0),)


def number_of(word: str, names: Mapping[str, int]) -> int | None:
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


def bounds_of(word: str, names: Mapping[str, int], bits: int) -> tuple[int, int] | None:
    """'25', '137-139', 'smtp', 'ftp-data-ftp': both ends of the range, None where it is none."""
    value = number_of(word, names)
    if value is not None:
        return (value, value) if value >> bits == 0 else None
    for position, sign in enumerate(word):
        if sign == "-":
            low, high = number_of(word[:position], names), number_of(word[position + 1 :], names)
            if low is not None and high is not None:
                return (low, high) if low <= high and high >> bits == 0 else None
    return None


@dataclass(frozen=True, slots=True)
class Values:
    """The values that a condition surely has and those that it may have. They differ where a word was not read."""

    sure: Alternatives
    possible: Alternatives
    unread: str = ""

    def without(self, bits: int) -> Values:
        """The condition's `-except`."""
        outside = complement(self.sure, bits)
        return Values(() if self.unread else outside, outside, self.unread)


@functools.lru_cache(maxsize=16384)
def read_values(words: tuple[str, ...], kind: str, negated: bool) -> Values:
    """The words of a condition as values of its field. `kind` is a key of _KINDS."""
    names, bits = _KINDS[kind]
    known, unread = [], ""
    for word in words:
        bounds = bounds_of(word, names, bits)
        if bounds is None:
            unread = unread or f"'{word[:60]}' was not understood"
        else:
            known.append(span(*bounds, bits))
    sure = union(*known)
    values = Values(sure, ANYTHING if unread else sure, unread)
    return values.without(bits) if negated else values


_KINDS: Mapping[str, tuple[Mapping[str, int], int]] = {
    "port": (_PORTS, 16), "protocol": (PROTOCOL_NAMES, 8), "icmp-type-4": (_ICMP_TYPES[4], 8),
    "icmp-type-6": (_ICMP_TYPES[6], 8), "icmp-code-4": (_ICMP_CODES[4], 8), "icmp-code-6": (_ICMP_CODES[6], 8),
    "ttl": ({}, 8), "hop-limit": ({}, 8), "packet-length": ({}, 16), "fragment-offset": ({}, 13),
    "precedence": (_PRECEDENCE, 3),
}  # fmt: skip


def words_of(node: Node) -> tuple[str, ...]:
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


def read_addresses(conditions: Sequence[tuple[str, Node]], scope: Scope, family: int) -> Values | None:
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
        return Values(positive, ANYTHING if more else positive, more)
    if less:
        return Values((), ANYTHING if more else positive, more or less)
    left = possible = _longest_match(positive, negative, ADDRESS_WIDTH[family])
    if left is None or possible is None:
        left, possible = _not_excluded(positive, negative, ADDRESS_WIDTH[family]), positive
    if more:  # further prefixes without `except` let more match, never less
        return Values(left, ANYTHING, more)
    return Values(left, possible, "" if left == possible else "which of its prefixes is the longest cannot be told")


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
