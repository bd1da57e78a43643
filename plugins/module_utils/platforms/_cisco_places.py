# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where an industry-standard CLI binds lists: interfaces, and what is connected or routed there."""

from __future__ import annotations

import difflib
import functools
import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..filters import Binding, Doubt, Filter, Interface
from ..packets import ADDRESS_WIDTH, address_text, address_value
from ._cisco_dialect import Dialect
from ._cisco_lists import netmask_length
from ._cisco_text import Block, Cut

Filters = dict[tuple[int, str], Filter]
Places = tuple[dict[str, Interface], tuple[Binding, ...], tuple[Doubt, ...], int]

DIRECTIONS = {"in": "in", "out": "out", "ingress": "in", "egress": "out"}
_BINDING_WORDS = frozenset({"access-group", "traffic-filter"})
# First or second words of lines with a direction or a list that bind no filter for what is forwarded: another protocol
# than IP, counters and queues, what 802.1X has open before the login.
_NO_FILTER = frozenset(
    ("virtual-reassembly", "flow", "netflow", "wccp", "nat", "nbar", "igmp", "mld", "multicast", "pim",
     "control-direction", "ipx", "appletalk", "decnet", "vines", "xns", "clns", "flow-sampler", "hold-queue")
)  # fmt: skip


def droppers(cut: Cut) -> set[tuple[str, str]]:
    """The policies and route maps that drop packets, whose names stand behind `policy-map` and `route-map`."""
    found: set[tuple[str, str]] = set()
    parents: dict[str, set[str]] = {}  # of a policy within a class of another one
    for block in cut.policies:
        said = block.words
        routes = said[0] == "route-map"
        # `policy-map P class C drop`, in one line, is of IOS XR.
        at = said.index("class", 2) if not routes and "class" in said[2:] else len(said)
        name = said[1] if routes and len(said) > 1 else said[at - 1]
        for raw in (" ".join(said[at + 2 :]), *(raw for _, raw in block.lines)):
            words = raw.split()
            if words[:1] == ["service-policy"]:
                parents.setdefault(words[-1], set()).add(name)
            to_nowhere = words[:2] == ["set", "interface"] and "null" in raw.lower()
            drops = words == ["drop"] or "conform-action drop" in raw
            if to_nowhere if routes else drops:
                found.add((said[0], name))
    ahead = [name for kind, name in found if kind == "policy-map"]
    while ahead:
        more = {("policy-map", name) for name in parents.pop(ahead.pop(), ())} - found
        found |= more
        ahead += [name for _, name in more]
    return found


def interfaces_of(cut: Cut, dialect: Dialect) -> Places:
    """Interfaces, bindings, doubts, and the number of lines that bind."""
    bindings: dict[tuple[str, str, int], Binding] = {}
    ports: dict[tuple[str, str, int], Binding] = {}  # lists of ports, which come first
    doubts: list[Doubt] = []
    interfaces: dict[str, Interface] = {}
    borrowed: list[tuple[str, int, str]] = []
    templates: list[tuple[str, str]] = []
    pools: dict[str, tuple[str, ...]] = {}
    for words in cut.pools:
        if words:
            pools[words[0]] = pools.get(words[0], ()) + pool_prefixes(tuple(words[1:]))
    dropping = droppers(cut)
    lines = 0
    for name, block in [*cut.interfaces.items(), *((" ".join(block.words), block) for block in cut.others)]:
        prefixes: list[str] = []
        shutdown = sees_ipv6 = switched = False
        checks: dict[int, tuple[str, int]] = {}
        bound: dict[str, int] = {}  # the places in this block that have a list, and the line that says so first
        attachment, indent = name, 0
        for number, raw in block.lines:
            words = raw.partition(" !")[0].split()
            if dialect.port_bindings and (words[:1] == ["switchport"] or words == ["no", "switchport"]):
                switched = words[0] == "switchport"  # `no switchport monitor` and its like do not say that it is routed
            if len(words) < 2:
                shutdown = shutdown or words == ["shutdown"]
                continue
            depth = len(raw) - len(raw.lstrip())
            indent = indent or depth
            if depth <= indent:
                # An Ethernet service instance is a place of its own inside the interface.
                attachment = " ".join([name, *words[:3]]) if words[:2] == ["service", "instance"] else name
            pair = words[0], words[1]
            text = raw.strip()
            if pair in dialect.bindings:
                lines += 1
                chained = len(words) in (5, 6) and words[2] == "common"  # two lists, what they mean is left open
                if (len(words) == 4 or chained) and words[-1] in DIRECTIONS:
                    family = dialect.bindings[pair]
                    place = attachment, DIRECTIONS[words[-1]], family
                    bound.setdefault(attachment, number)
                    bindings[place] = Binding(*place, (" ".join(words[2:-1]),), number, text)
                else:
                    doubts.append(Doubt(number, text, "a filter is bound in a form that is not understood"))
            elif tuple(words[:3]) in dialect.port_bindings:
                lines += 1
                if len(words) == 5 and words[4] in DIRECTIONS:
                    place = attachment, DIRECTIONS[words[4]], dialect.port_bindings[tuple(words[:3])]
                    ports[place] = Binding(*place, (words[3],), number, text)
                else:
                    doubts.append(Doubt(number, text, "a filter is bound in a form that is not understood"))
            elif words[0] == "no" and tuple(words[1:4]) in dialect.port_bindings:
                family = dialect.port_bindings[tuple(words[1:4])]
                ports.pop((attachment, DIRECTIONS.get(words[-1], ""), family), None)
            elif words[0] in ("no", "default") and tuple(words[1:3]) in dialect.bindings:
                family = dialect.bindings[words[1], words[2]]
                if words[-1] in DIRECTIONS:
                    bindings.pop((attachment, DIRECTIONS[words[-1]], family), None)
                elif any(place[0] == attachment and place[2] == family for place in bindings):
                    doubts.append(Doubt(number, text, "which direction's list is taken away is not documented"))
            elif words == ["no", "shutdown"]:
                shutdown = False
            elif pair == ("ip", "address") or pair == ("ipv6", "address"):
                family = 4 if words[0] == "ip" else 6
                # EOS: `ip address virtual A/len`, of several routers at once.
                found = interface_prefix(words[3:] if words[2:3] == ["virtual"] else words[2:], family)
                if found:
                    prefixes.append(found)
            elif words[1] == "unnumbered" and len(words) > 2 and words[0] in ("ip", "ipv6"):
                target = "".join(words[2:4]) if len(words) > 3 and words[3][:1].isdecimal() else words[2]
                borrowed.append((name, 6 if words[0] == "ipv6" else 4, target))
            elif pair == ("source", "template") and len(words) == 3:
                templates.append((name, f"template {words[2]}"))
            elif words[:3] == ["peer", "default", "ip"] or words[:3] == ["peer", "default", "ipv6"]:
                for pool in words[words.index("pool") + 1 :] if "pool" in words else ():
                    prefixes += pools.get(pool, ())
            elif words[1] == "verify" and words[0] in ("ip", "ipv6"):
                check_said(checks, 4 if words[0] == "ip" else 6, words[2:], (text, number))
            elif words[0] == "no" and words[2:3] == ["verify"]:
                check_said(checks, 4 if words[1] == "ip" else 6, words[3:], ("", 0))
            elif words[0] == "service-policy" and ("policy-map", words[-1]) in dropping:
                if block.words[0] == "policy-map":
                    continue  # where that one is attached, it is told
                doubts.append(Doubt(number, text, "the policy drops packets of a class, and is not read"))
            elif words[1:3] == ["policy", "route-map"] and ("route-map", words[-1]) in dropping:
                doubts.append(Doubt(number, text, "the route map drops packets, and is not read"))
            elif words[0] == "rate-limit":  # committed access rate; what is dropped beyond the rate is no filter
                if "conform-action drop" in raw:
                    doubts.append(Doubt(number, text, "the rate limit drops what conforms, and is not read"))
            else:
                for start, reason in dialect.suspicious:
                    if words[: len(start)] == list(start):
                        doubts += [Doubt(number, text, reason)] if reason else []
                        break
                else:
                    directed = (2 < len(words) < 6 and words[-1] in DIRECTIONS) or not _BINDING_WORDS.isdisjoint(words)
                    if directed and words[0] != "description" and _NO_FILTER.isdisjoint(words[:2]):
                        doubts.append(Doubt(number, text, "a line with a direction may bind a filter, and is not read"))
            sees_ipv6 = sees_ipv6 or like_ipv6(words)
        if switched:  # there a list of the interface does nothing (Cisco, "ip access-group" of NX-OS)
            bindings = {place: one for place, one in bindings.items() if place[0] != name}
        if name in cut.interfaces or name in bound:
            one = Interface(name, block.line, tuple(prefixes), shutdown)
            interfaces[name] = one.checked(checks, (4, 6) if sees_ipv6 else (4,))
        for inside, line in bound.items():
            if inside != name:
                interfaces[inside] = Interface(inside, line)
    given: dict[str, list[Binding]] = {}
    for binding in bindings.values():
        given.setdefault(binding.attachment, []).append(binding)
    for name, template in templates:  # what the interface says itself comes before its template
        for binding in given.get(template, ()):
            bindings.setdefault((name, binding.direction, binding.family), replace(binding, attachment=name))
    for name, family, target in borrowed:
        if name in interfaces and target in interfaces:
            more = [one for one in interfaces[target].prefixes if (":" in one) == (family == 6)]
            interfaces[name] = replace(interfaces[name], prefixes=(*interfaces[name].prefixes, *more))
    for place, binding in ports.items():
        behind = bindings.get(place)
        bindings[place] = replace(binding, filters=binding.filters + behind.filters) if behind else binding
        if behind:
            doubts.append(Doubt(binding.line, binding.text, "a port list beside a router list: one is not in force"))
    add_routes(cut.routes, interfaces, vrfs(cut.interfaces))
    return interfaces, tuple(bindings.values()), tuple(doubts), lines


def like_ipv6(words: Sequence[str]) -> bool:
    """Is the line of an interface about IPv6, or may it be, garbled?"""
    return words[0] != "description" and (_like_the_word(words[0]) or any(word.count(":") > 1 for word in words))


@functools.lru_cache(maxsize=1024)
def _like_the_word(word: str) -> bool:
    return word != "ipv4" and bool(difflib.get_close_matches(word, ["ipv6"], n=1, cutoff=0.75))


def check_said(checks: dict[int, tuple[str, int]], family: int, words: list[str], said: tuple[str, int]) -> None:
    """Keep what `ip verify unicast ...` says; the last one holds, and is kept only where it is strict."""
    if said[1] and _strict(words):
        checks[family] = said
    elif not {"reachable-via", "reverse-path"}.isdisjoint(words):
        checks.pop(family, None)


def _strict(words: list[str]) -> bool:
    """Is `ip verify ...` a strict check: by the receiving interface, no default route, no list that lets more pass?"""
    if words[:2] == ["unicast", "reverse-path"]:
        return len(words) == 2
    strict = words[:4] == ["unicast", "source", "reachable-via", "rx"]
    return strict and not set(words[4:]) - {"allow-self-ping", "l2-src"}


def interface_prefix(words: list[str], family: int) -> str:
    """`192.0.2.1 255.255.255.0 [secondary]`, `192.0.2.1/24`, `2001:db8::1/64 [...]` as address/length; "" for none."""
    if not words or "link-local" in words:
        return ""
    try:
        if "/" in words[0]:
            value = address_value(words[0].partition("/")[0], family)
            length = int(words[0].partition("/")[2])
        elif family == 4 and len(words) > 1:
            value = address_value(words[0], 4)
            length = netmask_length(address_value(words[1], 4), 32) or 0
        else:
            return ""
    except ValueError:
        return ""
    return f"{address_text(value, family)}/{length}" if 0 < length <= ADDRESS_WIDTH[family] else ""


@functools.lru_cache(maxsize=1024)
def pool_prefixes(words: tuple[str, ...]) -> tuple[str, ...]:
    """`198.51.100.1 198.51.100.100` (a range) or `2001:db8:100::/40 56` as prefixes."""
    try:
        if words and "/" in words[0]:
            return (str(ipaddress.ip_network(words[0], strict=False)),)
        low = ipaddress.IPv4Address(words[0])
        high = ipaddress.IPv4Address(words[1]) if len(words) > 1 and words[1][:1].isdecimal() else low
        return tuple(str(network) for network in ipaddress.summarize_address_range(low, high))
    except (ValueError, IndexError):
        return ()


_ip_interface = functools.lru_cache(maxsize=4096)(ipaddress.ip_interface)


def vrfs(blocks: Mapping[str, Block]) -> dict[str, str]:
    """The VRF of each interface that is in one: `vrf RED`, `vrf forwarding RED`, `ip vrf forwarding RED`."""
    found = {}
    for name, block in blocks.items():
        for _, raw in block.lines:
            words = raw.split()
            words = words[words[:1] == ["ip"] :]
            if words[:1] == ["vrf"] and (len(words) == 2 or words[1:2] in (["forwarding"], ["member"])):
                found[name] = words[-1]
    return found


def add_routes(
    routes: Sequence[tuple[int, list[str]]], interfaces: dict[str, Interface], vrfs: Mapping[str, str]
) -> None:
    """Prefixes that static routes lead to an interface, by its name or by a next hop on its network in that VRF."""
    connected: dict[tuple[str, int, int, int], str] = {}
    lengths: set[tuple[int, int]] = set()
    for name, interface in interfaces.items():
        for one in interface.prefixes:
            address = _ip_interface(one)
            length = address.network.prefixlen
            lengths.add((address.version, length))
            connected[vrfs.get(name, ""), address.version, length, int(address.network.network_address)] = name
    found: dict[str, list[str]] = {}
    for family, words in routes:
        vrf = words[1] if words[:1] == ["vrf"] and len(words) > 1 else ""
        words = words[2:] if vrf else words
        vrf = "" if "global" in words else vrf  # where the next hop is
        wide = 2 if words and "/" not in words[0] else 1
        text = interface_prefix(words[:wide], family)
        target = words[wide] if len(words) > wide else ""
        if not text or not target:
            continue
        if target not in interfaces:
            try:
                value = address_value(target, family)
            except ValueError:
                continue
            bits = ADDRESS_WIDTH[family]
            for length in sorted((one for kind, one in lengths if kind == family), reverse=True):
                near = connected.get((vrf, family, length, value >> (bits - length) << (bits - length)))
                if near:
                    target = near
                    break
        if target in interfaces and not target.lower().startswith("null"):
            found.setdefault(target, []).append(text)
    for name, more in found.items():
        interfaces[name] = replace(interfaces[name], prefixes=(*interfaces[name].prefixes, *more))
