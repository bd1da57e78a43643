# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A set of packets in the words of an engineer: 'tcp from 198.51.100.0/25 to any but 192.0.2.25 port 25'."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping, Sequence

from .packets import (
    EXTENSIONS,
    LATER_FRAGMENT,
    POSSIBLE,
    PROTOCOLS,
    STATES,
    TCP_FLAGS,
    Alternatives,
    Match,
    address_text,
    complement,
    contains,
    named,
    width,
)

_SHOWN = 8  # values of one field
_UPPER = ("source_port", "destination_port", "icmp_type", "icmp_code", "tcp_flags")
_Range = tuple[int, int]


def words(match: Match, family: int) -> str:
    """The match on one line. What every packet of the family has is left out."""
    protocol = _listed(match, "protocol", family, lambda low, high: _names(PROTOCOLS, low, high)) or "any"
    protocol = f"any protocol{protocol.removeprefix('any')}" if protocol.startswith("any") else protocol
    ends = []
    for preposition, field in (("from", "source"), ("to", "destination")):
        ports = _listed(match, f"{field}_port", family, _numbers)
        where = _addresses(match, field, family)
        if ports:
            ports = f" port{'' if ports.isdecimal() else 's'} {ports}"
        ends.append(f"{preposition} {where}{ports}")
    return ", ".join((f"{protocol} {' '.join(ends)}", *_details(match, family)))


def _details(match: Match, family: int) -> Iterator[str]:
    for field, name in (("icmp_type", "type"), ("icmp_code", "code")):
        said = _listed(match, field, family, _numbers)
        if said:
            yield f"{name} {said}"
    if "tcp_flags" in match:
        yield _flags(match["tcp_flags"])
    upper = any(field in match for field in _UPPER)
    fragment = [value for value in range(4) if contains(match.get("fragment", ((0, 0),)), value)]
    if fragment == [2, 3]:
        yield "later fragments"
    elif fragment == [0, 1]:
        if not upper:
            yield "no later fragments"
    elif len(fragment) < 4:
        yield " or ".join(
            ("whole packets", "first fragments", "last fragments", "middle fragments")[one] for one in fragment
        )
    undetermined = match.get("undetermined", ((0, 0),))
    if not contains(undetermined, 0):
        yield "whose upper-layer header is not whole"
    elif not contains(undetermined, 1) and not upper:
        yield "with a whole upper-layer header"
    for field, name, table in (("extension", "extension header", EXTENSIONS), ("state", "state", STATES)):
        said = _listed(match, field, family, lambda low, high, table=table: _names(table, low, high))  # type: ignore[misc]
        if said:
            yield f"{name} {said}"
    if "tos" in match:
        yield _tos(match["tos"])
    for field, name in (("ttl", "ttl"), ("length", "length")):
        said = _listed(match, field, family, _numbers)
        if said:
            yield f"{name} {said}"
    if "options" in match and family != 6:
        yield "with IP options" if contains(match["options"], 1) else "without IP options"


def _listed(match: Match, field: str, family: int, name: Callable[[int, int], str]) -> str:
    """The values of a field, or what they are not where that is shorter; "" where there is no condition."""
    if field not in match:
        return ""
    inside = _ranges(match[field], width(field, family))
    possible = POSSIBLE[family].get(field)
    if possible and _ranges(possible, width(field, family)) == inside:
        return ""
    outside = _ranges(complement(match[field], width(field, family)), width(field, family))
    if outside and not possible and _shorter(outside, inside):
        return f"any but {_joined([name(*one) for one in outside])}"
    return _joined([name(*one) for one in inside])


def _shorter(outside: Sequence[_Range], inside: Sequence[_Range]) -> bool:
    """Is it plainer to say what is not in the set?"""
    few = len(outside) <= len(inside)
    return few and sum(high - low for low, high in outside) < sum(high - low for low, high in inside)


def _joined(found: Sequence[str]) -> str:
    rest = len(found) - _SHOWN
    return ", ".join(found[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _numbers(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}-{high}"


def _names(table: Mapping[str, int], low: int, high: int) -> str:
    if high - low < 3:
        return ", ".join(named(table, value) for value in range(low, high + 1))
    return f"{low}-{high}"


def _addresses(match: Match, field: str, family: int) -> str:
    if field not in match:
        return "any"
    bits = width(field, family)
    if any(_scattered(mask, bits) for _, mask in match[field]):
        rest = complement(match[field], bits)
        few = min((match[field], rest), key=len)
        said = [
            address_text(value, family)
            + (f" with wildcard {_wildcard(mask, family)}" if ~mask & (1 << bits) - 1 else "")
            for value, mask in few
        ]
        return ("any but " if few is rest else "") + _joined(said)
    inside = _ranges(match[field], bits)
    outside = _ranges(complement(match[field], bits), bits)
    if _shorter(outside, inside):
        return f"any but {_joined([_network(*one, family) for one in outside])}" if outside else "any"
    return _joined([_network(*one, family) for one in inside])


def _wildcard(mask: int, family: int) -> str:
    return address_text(~mask & ((1 << (32 if family == 4 else 128)) - 1), family)


def _network(low: int, high: int, family: int) -> str:
    """A host, a prefix, or a range."""
    if low == high:
        return address_text(low, family)
    size = high - low + 1
    if size & size - 1 == 0 and low % size == 0:
        return f"{address_text(low, family)}/{width('source', family) - size.bit_length() + 1}"
    kind = ipaddress.IPv4Address if family == 4 else ipaddress.IPv6Address
    return f"{kind(low)}-{kind(high)}"


def _scattered(mask: int, bits: int) -> bool:
    free = ~mask & (1 << bits) - 1
    return bool(free & free + 1)


def _ranges(alternatives: Alternatives, bits: int) -> list[_Range]:
    """The values in order. A mask may leave bits free anywhere: then of a narrow field value by value."""
    found: list[_Range] = []
    if any(_scattered(mask, bits) for _, mask in alternatives) and bits <= 16:
        pieces = [(value, value) for value in range(1 << bits) if contains(alternatives, value)]
    else:
        pieces = sorted((value, value | ~mask & (1 << bits) - 1) for value, mask in alternatives)
    for low, high in pieces:
        if found and low <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(high, found[-1][1]))
        else:
            found.append((low, high))
    return found


def _flags(alternatives: Alternatives) -> str:
    said = []
    for value, mask in alternatives:
        on = [name.upper() for name, bit in TCP_FLAGS.items() if value & bit]
        off = [name.upper() for name, bit in TCP_FLAGS.items() if mask & bit and not value & bit]
        parts = [f"{'+'.join(on)} set"] if on else []
        parts += [f"{'+'.join(off)} clear"] if off else []
        said.append(" and ".join(parts) or "any flags")
    return " or ".join(said)


def _tos(alternatives: Alternatives) -> str:
    if all(not mask & 3 for _, mask in alternatives):
        return f"dscp {_joined([_numbers(low >> 2, high >> 2) for low, high in _ranges(alternatives, 8)])}"
    return f"tos {_joined([_numbers(*one) for one in _ranges(alternatives, 8)])}"


def without_ports(match: Match) -> str:
    """Which packets whose ports cannot be read the match is about; "" for others too."""
    if any(name in match for name in _UPPER):
        return ""
    if match.get("fragment") == LATER_FRAGMENT:
        return "later fragments"
    return "packets whose upper-layer header is not whole" if match.get("undetermined") == ((1, 1),) else ""


def beside_ports(match: Match) -> Match:
    """What the match says of every fragment, whatever its upper-layer header."""
    return {name: values for name, values in match.items() if name not in (*_UPPER, "fragment", "undetermined")}
