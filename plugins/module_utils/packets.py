# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The packet header space: fields, ternary values, and matches over them.

A packet is one value for each field of `FIELDS`. A set of values of one field is a union of
*ternaries* `(value, mask)`, as in a router's TCAM: `x` is in it when `x & mask == value`. A `Match`
names the fields it constrains, each with such a union; every field must fit. Fields that a header
does not have (the port of an ESP packet) hold any value, and no sound match looks at them.
"""

from __future__ import annotations

import functools
import socket
from collections.abc import Iterable, Mapping

Ternary = tuple[int, int]
Alternatives = tuple[Ternary, ...]
Match = Mapping[str, Alternatives]
Packet = Mapping[str, int]

# Width in bits. The order is the order in which the search splits sets: what decides most comes first.
# Addresses are 32 or 128 bits wide, by family.
FIELDS: Mapping[str, int] = {
    "protocol": 8,  # the upper-layer protocol: for IPv6 the one behind the extension headers
    "destination_port": 16,
    "source_port": 16,
    "icmp_type": 8,
    "icmp_code": 8,
    "fragment": 2,  # bit 1: offset is not zero; bit 0: more fragments follow
    "undetermined": 1,  # the upper-layer header is not whole in this packet (RFC 7112 forbids it)
    "tcp_flags": 8,  # CWR ECE URG ACK PSH RST SYN FIN, as on the wire (RFC 9293)
    "extension": 3,  # the first IPv6 extension header, see EXTENSIONS
    "state": 3,  # how connection tracking sees the packet, see STATES
    "source": 0,
    "destination": 0,
    "tos": 8,  # DSCP and ECN (IPv4) or traffic class (IPv6)
    "ttl": 8,  # TTL or hop limit
    "length": 16,  # whole packet, bytes
    "options": 1,  # IPv4 options are present
}
ADDRESS_WIDTH = {4: 32, 6: 128}

PROTOCOLS = {
    "hopopt": 0, "icmp": 1, "igmp": 2, "ipinip": 4, "tcp": 6, "egp": 8, "igp": 9, "udp": 17, "ipv6": 41,
    "rsvp": 46, "gre": 47, "esp": 50, "ah": 51, "icmp6": 58, "eigrp": 88, "ospf": 89, "nos": 94, "pim": 103,
    "pcp": 108, "vrrp": 112, "l2tp": 115, "sctp": 132, "udplite": 136,
}  # fmt: skip
TCP_FLAGS = {"fin": 1, "syn": 2, "rst": 4, "psh": 8, "ack": 16, "urg": 32, "ece": 64, "cwr": 128}
EXTENSIONS = {"none": 0, "hop-by-hop": 1, "routing": 2, "fragment": 3, "destination-options": 4, "mobility": 5}
STATES = {"new": 0, "established": 1, "related": 2, "invalid": 3, "untracked": 4}
WITH_PORTS = frozenset({6, 17, 132, 136})

# An L4 header can be read in a packet that is no later fragment and whose header chain is whole (RFC 1858, 7112).
INITIAL: Match = {"fragment": ((0, 0b10),), "undetermined": ((0, 1),)}
LATER_FRAGMENT: Alternatives = ((0b10, 0b10),)


# What headers can be at all, by family: values of the coded fields that have a name.
POSSIBLE: Mapping[int, Match] = {
    4: {"extension": ((0, 0b111),), "state": ((0, 0b100), (4, 0b111))},
    6: {"extension": ((0, 0b100), (4, 0b110)), "state": ((0, 0b100), (4, 0b111)), "options": ((0, 1),)},
}


def width(field: str, family: int) -> int:
    """Bits of `field` in packets of `family` (4 or 6)."""
    return FIELDS[field] or ADDRESS_WIDTH[family]


def exactly(value: int, bits: int) -> Alternatives:
    return ((value, (1 << bits) - 1),)


@functools.lru_cache(maxsize=65536)
def span(low: int, high: int, bits: int) -> Alternatives:
    """The values low to high, both in it, as the fewest aligned blocks. Empty when low > high."""
    blocks = []
    full = (1 << bits) - 1
    while low <= high:
        size = low & -low if low else 1 << bits
        while low + size - 1 > high:
            size >>= 1
        blocks.append((low, full & ~(size - 1)))
        low += size
    return tuple(blocks)


def union(*alternatives: Alternatives) -> Alternatives:
    """All of them, each once, in the order given."""
    return tuple(dict.fromkeys(ternary for group in alternatives for ternary in group))


def intersection(left: Alternatives, right: Alternatives) -> Alternatives:
    return tuple(
        dict.fromkeys(
            (value | other, mask | other_mask)
            for value, mask in left
            for other, other_mask in right
            if not (value ^ other) & mask & other_mask
        )
    )


def complement(alternatives: Alternatives, bits: int) -> Alternatives:
    """The values in none of the alternatives, as disjoint ternaries."""
    rest: list[Ternary] = [(0, 0)]
    for value, mask in alternatives:
        pieces: list[Ternary] = []
        for base, base_mask in rest:
            if (value ^ base) & mask & base_mask:
                pieces.append((base, base_mask))
                continue
            for position in reversed(range(bits)):
                bit = 1 << position
                if mask & bit and not base_mask & bit:
                    pieces.append((base | (~value & bit), base_mask | bit))
                    base, base_mask = base | (value & bit), base_mask | bit
        rest = pieces
    return tuple(rest)


def contains(alternatives: Alternatives, value: int) -> bool:
    return any(value & mask == wanted for wanted, mask in alternatives)


def conjunction(left: Match, right: Match) -> Match | None:
    """The packets in both, or None when there are none."""
    both = dict(left)
    for field, alternatives in right.items():
        both[field] = intersection(both[field], alternatives) if field in both else alternatives
        if not both[field]:
            return None
    return both


@functools.lru_cache(maxsize=65536)
def prefix(text: str, family: int) -> Alternatives:
    """'192.0.2.0/24' or '2001:db8::/32' or a bare address. Host bits are dropped, as routers do.

    Raises ValueError when it is not an address of the family.
    """
    address, _, length = text.partition("/")
    bits = ADDRESS_WIDTH[family]
    value = address_value(address, family)
    if (length and not length.isdecimal()) or int(length or bits) > bits:
        raise ValueError(f"'{text}' has a bad prefix length")
    mask = ((1 << int(length or bits)) - 1) << (bits - int(length or bits))
    return ((value & mask, mask),)


def address_value(text: str, family: int) -> int:
    """The address as a number. Raises ValueError when it is not one of the family."""
    try:
        packed = socket.inet_pton(socket.AF_INET if family == 4 else socket.AF_INET6, text)
    except (OSError, UnicodeError) as error:
        raise ValueError(f"'{text}' is not an IPv{family} address") from error
    return int.from_bytes(packed, "big")


def address_text(value: int, family: int) -> str:
    size = ADDRESS_WIDTH[family] // 8
    return socket.inet_ntop(socket.AF_INET if family == 4 else socket.AF_INET6, value.to_bytes(size, "big"))


@functools.lru_cache(maxsize=4096)
def flags_any(names: Iterable[str]) -> Alternatives:
    """At least one of the TCP flags is set; flags_any(('ack', 'rst')) is what Cisco calls established."""
    return tuple((TCP_FLAGS[name], TCP_FLAGS[name]) for name in names)


def flags_all(on: Iterable[str], off: Iterable[str] = ()) -> Alternatives:
    """All of `on` are set and all of `off` are clear."""
    value = sum(TCP_FLAGS[name] for name in set(on))
    return ((value, value | sum(TCP_FLAGS[name] for name in set(off))),)


def named(table: Mapping[str, int], value: int) -> str:
    """The name of a value in one of the tables above, or its number."""
    return next((name for name, number in table.items() if number == value), str(value))


def packet_text(packet: Packet, family: int) -> str:
    """One line an engineer reads: 'tcp 198.51.100.7:49152 > 203.0.113.9:25 SYN'."""
    protocol = packet["protocol"]
    source, destination = (address_text(packet[field], family) for field in ("source", "destination"))
    later = packet["fragment"] & 0b10 or packet["undetermined"]
    if protocol in WITH_PORTS and not later:
        bracket = "[{}]:{}" if family == 6 else "{}:{}"
        source = bracket.format(source, packet["source_port"])
        destination = bracket.format(destination, packet["destination_port"])
    words = [named(PROTOCOLS, protocol), source, ">", destination]
    if protocol == 6 and not later:
        words.append(
            "+".join(name.upper() for name, bit in TCP_FLAGS.items() if packet["tcp_flags"] & bit) or "no flags"
        )
    if protocol in (1, 58) and not later:
        words.append(f"type {packet['icmp_type']} code {packet['icmp_code']}")
    if packet["extension"]:
        words.append(f"behind a {named(EXTENSIONS, packet['extension'])} header")
    if packet["fragment"]:
        words.append("later fragment" if packet["fragment"] & 0b10 else "first fragment")
    if packet["undetermined"]:
        words.append("with an incomplete header chain")
    if packet["state"]:
        words.append(f"state {named(STATES, packet['state'])}")
    if packet["tos"]:
        words.append(f"dscp {packet['tos'] >> 2}" + (f" ecn {packet['tos'] & 3}" if packet["tos"] & 3 else ""))
    if packet["ttl"] != 64:
        words.append(f"ttl {packet['ttl']}")
    if packet["length"] != 60:
        words.append(f"length {packet['length']}")
    if packet["options"]:
        words.append("with IP options")
    return " ".join(words)
