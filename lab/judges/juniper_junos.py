# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a Junos router does with one packet, term by term.

Source of the rules: Juniper, Routing Policies, Firewall Filters, and Traffic Policers User Guide ("How Standard
Firewall Filters Evaluate Packets", "Firewall Filter Match Conditions for IPv4/IPv6 Traffic", "... Based on Address
Fields", "... Multiple Standard Firewall Filters Applied as a List", "... Nested").
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence

from ..judge import Packet
from ..junos_tree import ICMP_CODES, ICMP_TYPES, PORTS, PROTOCOLS, Word, words

FAMILY = {4: "inet", 6: "inet6"}
EXTENSION_HEADERS = {1: 0, 2: 43, 3: 44, 4: 60, 5: 135}
FLAGS = {"fin": 1, "syn": 2, "rst": 4, "push": 8, "ack": 16, "urgent": 32}
WITH_PORTS = (6, 17, 132)
LAYER4 = frozenset(
    "port source-port destination-port port-except source-port-except destination-port-except icmp-type icmp-code "
    "icmp-type-except icmp-code-except tcp-established tcp-initial tcp-flags".split()
)


def judge(configuration: Word, attachment: str, direction: str, packet: Packet) -> str:
    """'permit' or 'deny'. Raises KeyError when there is no such attachment, ValueError for a condition not modelled."""
    unit = find_unit(configuration, attachment)
    bound = unit.get("family", FAMILY[packet.family], "filter")
    if bound is None:
        return "permit"
    side = "input" if direction == "up" else "output"
    names = [name for name, _ in bound.below(f"{side}-list")] or [name for name, _ in bound.below(side)][:1]
    if not names:
        return "permit"
    # An input list is one long filter: only its very end discards.
    for name in names:
        decision = evaluate(configuration, name, packet)
        if decision:
            return decision
    return "deny"


def find_unit(configuration: Word, attachment: str) -> Word:
    if attachment.startswith("dynamic-profiles "):
        unit = configuration.get(*words(attachment))
    else:
        interface, _, number = attachment.rpartition(".")
        unit = configuration.get("interfaces", interface, "unit", number)
    if unit is None:
        raise KeyError(attachment)
    return unit


def firewall(configuration: Word, family: int, name: str) -> Word | None:
    found = configuration.get("firewall", "family", FAMILY[family], "filter", name)
    return found if found is not None or family == 6 else configuration.get("firewall", "filter", name)


def evaluate(configuration: Word, name: str, packet: Packet) -> str:
    """The decision of a filter, or '' when no term decides."""
    definition = firewall(configuration, packet.family, name)
    if definition is None:
        return ""
    for _, term in definition.below("term"):
        for nested, _ in term.below("filter"):
            if decision := evaluate(configuration, nested, packet):
                return decision
        if list(term.below("filter")):
            continue
        if not all(holds(configuration, name, list(found.below()), packet) for name, found in merged(term)):
            continue
        then = dict(term.below("then"))
        if "next" in then:
            continue
        # Without an action that ends, count, log and their like included, a term accepts.
        return "deny" if {"discard", "reject"} & set(then) else "permit"
    return ""


def merged(term: Word) -> Iterator[tuple[str, Word]]:
    """The conditions that must all hold; an address and a prefix list for the same field are one list."""
    conditions = dict(term.below("from"))
    for side in ("", "source-", "destination-"):
        addresses, lists = conditions.pop(f"{side}address", None), conditions.pop(f"{side}prefix-list", None)
        if addresses is not None or lists is not None:
            both = Word()
            for kind, word in (("address", addresses), ("prefix-list", lists)):
                if word is not None:
                    both.children[kind] = word
            yield f"{side}address", both
    yield from conditions.items()


def holds(configuration: Word, name: str, found: Sequence[tuple[str, Word]], packet: Packet) -> bool:
    entries = [text for text, _ in found]
    if name in LAYER4 and not packet.layer4:
        return False
    if name.endswith("address"):
        sides = {"source-address": [packet.source], "destination-address": [packet.destination]}
        addresses = sides.get(name, [packet.source, packet.destination])
        prefixes = list(prefix_entries(configuration, dict(found), packet.family))
        return any(longest_match(prefixes, address) for address in addresses)
    if name.removesuffix("-except") in ("port", "source-port", "destination-port"):
        return packet.protocol in WITH_PORTS and port_holds(name, entries, packet)
    if name.removesuffix("-except") in ("icmp-type", "icmp-code"):
        names = (ICMP_TYPES if "type" in name else ICMP_CODES)[packet.family]
        value = packet.icmp_type if "type" in name else packet.icmp_code
        fits = any(in_range(text, names, value) for text in entries)
        return packet.protocol in (1, 58) and fits != name.endswith("-except")
    if name in ("protocol", "payload-protocol", "protocol-except", "payload-protocol-except"):
        return any(in_range(text, PROTOCOLS, packet.protocol) for text in entries) != name.endswith("-except")
    if name in ("next-header", "next-header-except"):
        # The first next header of the packet, whatever the payload is.
        return any(in_range(text, PROTOCOLS, first_header(packet)) for text in entries) != name.endswith("-except")
    if name == "extension-header":
        return packet.extension != 0 and any(in_range(text, PROTOCOLS, first_header(packet)) for text in entries)
    if name in ("tcp-established", "tcp-initial", "tcp-flags"):
        expression = {"tcp-established": "ack | rst", "tcp-initial": "syn & !ack"}.get(name) or entries[0]
        return packet.protocol == 6 and flags_hold(expression, packet.tcp_flags)
    if name == "is-fragment":
        return packet.later
    if name == "first-fragment":
        return packet.fragment == 1
    if name in ("fragment-offset", "fragment-offset-except"):
        # The packet does not say where a later fragment begins: somewhere behind the first eight bytes.
        offsets = range(1, 8192) if packet.later else range(1)
        wanted = any(any(in_range(text, {}, offset) for offset in offsets) for text in entries)
        return wanted != name.endswith("-except")
    if name == "fragment-flags" and entries == ["more-fragments"]:
        return packet.fragment in (1, 3)
    if name == "packet-length":
        return any(in_range(text, {}, packet.length) for text in entries)
    if name in ("ttl", "hop-limit"):
        return any(in_range(text, {}, packet.ttl) for text in entries)
    raise ValueError(f"the lab does not judge the condition '{name}'")


def first_header(packet: Packet) -> int:
    if packet.extension:
        return EXTENSION_HEADERS[packet.extension]
    return EXTENSION_HEADERS[3] if packet.family == 6 and packet.fragment else packet.protocol


def prefix_entries(configuration: Word, kinds: Mapping[str, Word], family: int) -> Iterator[tuple[int, int, bool]]:
    """The value and mask of each prefix, and whether it matches (False: except)."""
    for text, word in (kinds.get("address") or Word()).below():
        yield *prefix(text, family), word.get("except") is None
    for name, word in (kinds.get("prefix-list") or Word()).below():
        for text, _ in configuration.below("policy-options", "prefix-list", name):
            if (":" in text) == (family == 6):
                yield *prefix(text, family), word.get("except") is None


def prefix(text: str, family: int) -> tuple[int, int]:
    """Of address/length, or address/mask with a mask of any shape. (ipaddress would take 0.0.0.127 for a wildcard.)"""
    address, _, length = text.partition("/")
    kind = ipaddress.IPv4Address if family == 4 else ipaddress.IPv6Address
    bits = 32 if family == 4 else 128
    full = (1 << bits) - 1
    mask = full ^ (full >> int(length or bits)) if (length or "0").isdecimal() else int(kind(length))
    return int(kind(address)) & mask, mask


def longest_match(prefixes: Sequence[tuple[int, int, bool]], address: int) -> bool:
    """The longest prefix around the address decides; every list ends with an implicit 0/0 except."""
    around = [(mask.bit_count(), positive) for value, mask, positive in prefixes if address & mask == value]
    return bool(around) and max(around)[1]


def in_range(text: str, names: Mapping[str, int], value: int) -> bool:
    if text in names:
        return value == names[text]
    first, _, last = text.partition("-")
    low = names[first] if first in names else int(first)
    high = low if not last else names[last] if last in names else int(last)
    return low <= value <= high


def port_holds(name: str, entries: Sequence[str], packet: Packet) -> bool:
    side = name.removesuffix("-except")
    ports = {"source-port": [packet.source_port], "destination-port": [packet.destination_port]}
    fits = any(
        in_range(text, PORTS, port)
        for text in entries
        for port in ports.get(side, [packet.source_port, packet.destination_port])
    )
    return fits != name.endswith("-except")


def flags_hold(expression: str, flags: int) -> bool:
    """A bit-field expression: names, numbers, !, & or +, | or a comma, parentheses; & binds closer than |."""
    tokens = re.findall(r"0x[0-9a-f]+|\w+|[()!&+|,]", expression.lower())

    def either() -> bool:
        result = both()
        while tokens and tokens[0] in "|,":
            tokens.pop(0)
            result = both() or result
        return result

    def both() -> bool:
        result = one()
        while tokens and tokens[0] in "&+":
            tokens.pop(0)
            result = one() and result
        return result

    def one() -> bool:
        token = tokens.pop(0)
        if token == "!":
            return not one()
        if token == "(":
            result = either()
            tokens.pop(0)
            return result
        wanted = FLAGS[token] if token in FLAGS else int(token, 0)
        return flags & wanted == wanted

    return either()
