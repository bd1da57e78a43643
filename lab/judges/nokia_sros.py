# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What an SR OS router does with one packet, entry by entry.

Source of the rules: Nokia, 7750 SR Router Configuration Guide, "Filter policies". Where it is open, this router is
one of those that find the upper-layer header behind extension headers, and let later fragments match no entry with
ports.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from ..judge import Packet
from ..sros_tree import Element, words

PROTOCOLS = {
    "icmp": 1, "igmp": 2, "ip": 4, "tcp": 6, "udp": 17, "ipv6": 41, "ipv6-route": 43, "ipv6-frag": 44, "rsvp": 46,
    "gre": 47, "ipv6-icmp": 58, "ipv6-no-nxt": 59, "ipv6-opts": 60, "eigrp": 88, "ospf-igp": 89, "pim": 103,
    "vrrp": 112, "l2tp": 115, "sctp": 132,
}  # fmt: skip
FLAGS = {"fin": 1, "syn": 2, "rst": 4, "psh": 8, "ack": 16, "urg": 32, "ece": 64, "cwr": 128}
POINTS = {"be": 0, "ef": 46, "af11": 10, "af21": 18, "af31": 26, "af41": 34, "nc1": 48, "nc2": 56}
FRAGMENT, HOP_BY_HOP = 3, 1


def judge(configuration: Element, attachment: str, direction: str, packet: Packet) -> str:
    """'permit' or 'deny'. Raises KeyError when there is no such attachment, ValueError for a criterion not modelled."""
    place = find(configuration, attachment)
    side = place.get("ingress" if direction == "up" else "egress") or Element()
    if attachment.startswith("sla-profile "):
        name = side.leaf("ip-filter" if packet.family == 4 else "ipv6-filter")
    else:
        name = (side.get("filter") or Element()).leaf("ip" if packet.family == 4 else "ipv6")
    return evaluate(configuration, name, packet) if name else "permit"


def find(configuration: Element, attachment: str) -> Element:
    path = words(attachment)
    if path[0] == "sla-profile":
        path = ["subscriber-mgmt", *path]
    labels: list[str] = []
    while path:
        if path[0] in ("service", "subscriber-mgmt"):
            labels.append(path.pop(0))
        elif len(path) > 1:
            quoted = path[0] not in ("sap", "spoke-sdp")
            labels.append(f'{path[0]} "{path[1]}"' if quoted else f"{path[0]} {path[1]}")
            path = path[2:]
        else:
            raise KeyError(attachment)
    place = configuration.get(*labels)
    if place is None:
        raise KeyError(attachment)
    return place


def evaluate(configuration: Element, name: str, packet: Packet) -> str:
    kind = "ip-filter" if packet.family == 4 else "ipv6-filter"
    filters = configuration.get("filter") or Element()
    chosen = filters.get(f'{kind} "{name}"')
    if chosen is None:
        raise KeyError(name)
    for entry in ordered(filters, kind, chosen):
        action = entry.get("action")
        if action is None or "ignore-match" in action.leaves:
            continue
        if all(holds(filters, criterion, packet) for criterion in criteria(entry.get("match") or Element())):
            if "drop" in action.leaves:
                return "deny"
            if "accept" in action.leaves or "forward" in action.blocks:
                return "permit"
            raise ValueError(f"the action {list(action.leaves) + list(action.blocks)} is not modelled")
    return "permit" if chosen.leaf("default-action") == "accept" else "deny"


def ordered(filters: Element, kind: str, chosen: Element) -> Iterator[Element]:
    """The entries by their numbers, with those that are embedded; a filter's own entry has the place for itself."""
    system = next(iter((filters.get("system-filter") or Element()).blocks), "")
    if chosen.leaf("chain-to-system-filter") == "true" and system:
        name = words(system)[1]
        yield from ordered(filters, kind, filters.get(f'{kind} "{name}"') or Element())
    numbered: dict[int, Element] = {}
    for label, embedded in (chosen.get("embed") or Element()).blocks.items():
        found = re.fullmatch(r'filter "([^"]+)" offset (\d+)', label)
        if not found or embedded.leaf("admin-state") == "disable":
            continue
        for number, entry in (filters.get(f'{kind} "{found[1]}"') or Element()).each("entry"):
            numbered[int(number) + int(found[2])] = entry
    numbered.update({int(number): entry for number, entry in chosen.each("entry")})
    for place in sorted(numbered):
        yield numbered[place]


def criteria(match: Element) -> Iterator[tuple[str, str, Element]]:
    for name, value in match.leaves.items():
        yield name, value.strip('"'), Element()
    for name, block in match.blocks.items():
        yield name, "", block


def holds(filters: Element, criterion: tuple[str, str, Element], packet: Packet) -> bool:
    name, value, block = criterion
    if name in ("protocol", "next-header"):
        return protocol_is(value, packet.protocol)
    if name in ("protocol-list", "next-header-list"):
        listed = filters.get("match-list", f'protocol-list "{value}"') or Element()
        return any(protocol_is(one, packet.protocol) for one, _ in listed.each("protocol"))
    if name in ("src-ip", "dst-ip", "ip"):
        ends = {"src-ip": [packet.source], "dst-ip": [packet.destination]}.get(
            name, [packet.source, packet.destination]
        )
        return any(address_fits(filters, block, end, packet.family) for end in ends)
    if name in ("src-port", "dst-port", "port"):
        ports = {"src-port": [packet.source_port], "dst-port": [packet.destination_port]}.get(
            name, [packet.source_port, packet.destination_port]
        )
        whole = packet.layer4 and packet.protocol in (6, 17, 132)
        return whole and any(compared(filters, block, port) for port in ports)
    if name == "fragment":
        return fragment_fits(value, packet)
    if name == "icmp":
        fits = all(
            int(told) == {"type": packet.icmp_type, "code": packet.icmp_code}[part]
            for part, told in block.leaves.items()
        )
        return packet.layer4 and packet.protocol == (1 if packet.family == 4 else 58) and fits
    if name == "tcp-flags":
        fits = all(bool(packet.tcp_flags & FLAGS[flag]) == (told == "true") for flag, told in block.leaves.items())
        return packet.layer4 and packet.protocol == 6 and fits
    if name == "dscp":
        return packet.tos >> 2 == POINTS[value]
    if name == "option-present":
        return bool(packet.options) == (value == "true")
    if name == "extension-header":
        there = {
            "ah": packet.protocol == 51,
            "esp": packet.protocol == 50,
            "hop-by-hop": packet.extension == HOP_BY_HOP,
        }
        return all(there[header] == (told == "true") for header, told in block.leaves.items())
    if name in ("packet-length", "ttl", "hop-limit"):
        return compared(filters, block, packet.length if name == "packet-length" else packet.ttl)
    raise ValueError(f"the criterion '{name}' is not modelled")


def protocol_is(value: str, protocol: int) -> bool:
    if value == "tcp-udp":
        return protocol in (6, 17)
    return protocol == (int(value) if value.isdecimal() else PROTOCOLS[value])


def address_fits(filters: Element, block: Element, address: int, family: int) -> bool:
    kind = "ip-prefix-list" if family == 4 else "ipv6-prefix-list"
    listed = block.leaf(kind)
    if listed:
        prefixes = [
            prefix for prefix, _ in (filters.get("match-list", f'{kind} "{listed}"') or Element()).each("prefix")
        ]
        return any(inside(prefix, address, family) for prefix in prefixes)
    told, mask = block.leaf("address"), block.leaf("mask")
    if mask:
        care = int(ipaddress.ip_address(mask))
        return int(ipaddress.ip_address(told.partition("/")[0])) & care == address & care
    return inside(told, address, family)


def inside(prefix: str, address: int, family: int) -> bool:
    kind = ipaddress.IPv4Address if family == 4 else ipaddress.IPv6Address
    return kind(address) in ipaddress.ip_interface(prefix).network


def compared(filters: Element, block: Element, value: int) -> bool:
    for name, told in block.leaves.items():
        if name == "port-list":
            listed = filters.get("match-list", f'port-list "{block.leaf(name)}"') or Element()
            ends = [(int(one), int(one)) for one, _ in listed.each("port")]
            ends += [(int(one.split()[1]), int(one.split()[3])) for one, _ in listed.each("range")]
            return any(low <= value <= high for low, high in ends)
        return {"eq": value == int(told), "lt": value < int(told), "gt": value > int(told)}[name]
    limits = block.get("range") or Element()
    return int(limits.leaf("start")) <= value <= int(limits.leaf("end"))


def fragment_fits(value: str, packet: Packet) -> bool:
    fragment = packet.fragment != 0 or (packet.family == 6 and packet.extension == FRAGMENT)
    return {
        "true": fragment, "false": not fragment, "first-only": packet.fragment == 1, "non-first-only": packet.later,
    }[value]  # fmt: skip
