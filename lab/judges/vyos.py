# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a VyOS router does to a packet between an attachment and the network. Shares no code with plugins/.

Facts: docs.vyos.io, "Firewall"; github.com/vyos/vyos-1x, data/templates/firewall/. The kernel puts fragments together
before it filters, so a fragment is judged by the ports of its datagram.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass

from ..judge import Packet
from ..vyos_tree import Tree

STATES = {0: "new", 1: "established", 2: "related", 3: "invalid", 4: "untracked"}
NAMES = {
    "icmp": 1, "igmp": 2, "tcp": 6, "udp": 17, "gre": 47, "esp": 50, "ah": 51, "icmpv6": 58, "ipv6-icmp": 58,
    "ospf": 89, "pim": 103, "vrrp": 112, "sctp": 132, "udplite": 136,
}  # fmt: skip
SERVICES = {
    "ssh": 22, "smtp": 25, "domain": 53, "http": 80, "ntp": 123, "netbios-ssn": 139, "https": 443, "smtps": 465,
    "submission": 587, "imaps": 993, "pop3s": 995,
}  # fmt: skip
WITH_PORTS = (6, 17, 132, 136)
FLAGS = {"fin": 1, "syn": 2, "rst": 4, "psh": 8, "ack": 16, "urg": 32, "ecn": 64, "cwr": 128}


class Unjudged(Exception):
    """The packet meets a condition that only a real router can tell."""


@dataclass(frozen=True)
class Way:
    """A packet on its way: where it comes in, where it goes out."""

    packet: Packet
    inbound: str
    outbound: str
    root: Tree


def judge(root: Tree, attachment: str, direction: str, packet: Packet) -> str:
    names = [name for name, _ in interfaces(root)]
    if attachment not in names:
        raise KeyError(f"{root.value('system', 'host-name')} has no interface {attachment}")
    network = uplink(root)
    ends = (attachment, network) if direction == "up" else (network, attachment)
    way = Way(packet, *ends, root)
    if packet.family == 4 and packet.source >> 24 == 0:
        return "deny"  # Linux forwards nothing from 0.0.0.0/8
    word = "ipv4" if packet.family == 4 else "ipv6"
    if direction == "up" and not validated(way):
        return "deny"
    for hook, kind in (("prerouting", "raw"), ("forward", "filter")):
        base = root.at("firewall", word, hook, kind)
        if not root.has("firewall", word, hook, kind):
            continue
        verdict = state_policy(way) if hook == "forward" else ""
        verdict = verdict or chain(base, way)
        verdict = (base.value("default-action") or "accept") if verdict in ("", "return") else verdict
        if verdict in ("drop", "reject"):
            return "deny"
    return zones(way)


def interfaces(root: Tree) -> Iterator[tuple[str, Tree]]:
    for kind in root.at("interfaces").children.values():
        for name, one in kind.children.items():
            yield name, one
            for tag, below in one.at("vif").children.items():
                yield f"{name}.{tag}", below
            for tag, below in one.at("vif-s").children.items():
                yield f"{name}.{tag}", below
                for inner, deepest in below.at("vif-c").children.items():
                    yield f"{name}.{tag}.{inner}", deepest


def connected(node: Tree, family: int) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    found = [ipaddress.ip_interface(text) for text in node.all("address") if "/" in text]
    return [one.network for one in found if one.version == family]


def uplink(root: Tree) -> str:
    """Where the default route leads."""
    hops = root.at("protocols", "static", "route", "0.0.0.0/0", "next-hop").children
    for name, node in interfaces(root):
        if any(ipaddress.ip_address(hop) in network for hop in hops for network in connected(node, 4)):
            return name
    return "eth0"


def routed(root: Tree, name: str, family: int) -> Iterator[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    node = next(below for known, below in interfaces(root) if known == name)
    yield from connected(node, family)
    for prefix, route in root.at("protocols", "static", {4: "route", 6: "route6"}[family]).children.items():
        network = ipaddress.ip_network(prefix)
        through = name in route.at("interface").children
        hops = [ipaddress.ip_address(hop) for hop in route.at("next-hop").children]
        if through or any(hop in near for hop in hops for near in connected(node, family)):
            yield network


def validated(way: Way) -> bool:
    """Strict reverse path filtering: the source is routed back to where the packet comes from."""
    family, root = way.packet.family, way.root
    node = next(below for known, below in interfaces(root) if known == way.inbound)
    options = root.at("firewall", "global-options")
    mode = options.value({4: "source-validation", 6: "ipv6-source-validation"}[family])
    own = node.value({4: "ip", 6: "ipv6"}[family], "source-validation")
    if "strict" not in (mode, own):
        return True
    source = ipaddress.ip_address(way.packet.source) if family == 4 else ipaddress.IPv6Address(way.packet.source)
    return any(source in network for network in routed(root, way.inbound, family))


def state_policy(way: Way) -> str:
    policy = way.root.at("firewall", "global-options", "state-policy")
    for state in ("established", "invalid", "related"):
        action = policy.value(state, "action")
        if action and STATES[way.packet.state] == state:
            return action
    return ""


def chain(here: Tree, way: Way, depth: int = 0) -> str:
    """accept, drop or reject; "return", or "" where no rule decides."""
    if depth > 16:
        raise Unjudged("chains jump in a circle")
    for number in sorted(here.at("rule").children, key=int):
        rule = here.at("rule", number)
        if rule.has("disable") or not fits(rule, way):
            continue
        action = rule.value("action")
        if action == "jump" and rule.has("jump-target"):
            verdict = called(rule.value("jump-target"), way, depth + 1)
            if verdict:
                return verdict
        elif action in ("accept", "drop", "reject", "return"):
            return action
        elif action == "offload":
            if way.packet.state == 1 and way.packet.protocol in (6, 17):
                return "accept"  # its flow has been taken by an earlier packet
        elif action not in ("continue", "notrack", "jump"):
            raise Unjudged(f"action {action}")
    return ""


def called(name: str, way: Way, depth: int = 1) -> str:
    """A custom chain, with its default action: accept, drop or reject; "" when it returns."""
    here = way.root.at("firewall", "ipv4" if way.packet.family == 4 else "ipv6", "name", name)
    verdict = chain(here, way, depth) or here.value("default-action") or "drop"
    if verdict == "jump":
        return called(here.value("default-jump-target"), way, depth + 1)
    return verdict if verdict in ("accept", "drop", "reject") else ""


def zones(way: Way) -> str:
    zones_ = way.root.at("firewall", "zone").children
    of = {name: one for one, zone in zones_.items() for name in zone.all("interface")}
    there = of.get(way.outbound)
    if there is None:
        return "permit"
    verdict = state_policy(way)
    if verdict:
        return "permit" if verdict == "accept" else "deny"
    zone, kind = zones_[there], "name" if way.packet.family == 4 else "ipv6-name"
    here = of.get(way.inbound)
    if here == there:
        name = zone.value("intra-zone-filtering", "firewall", kind)
        action = zone.value("intra-zone-filtering", "action") or "accept"
        verdict = called(name, way) if name else action
        return "deny" if verdict in ("drop", "reject") else "permit"
    name = zone.value("from", here or "", "firewall", kind)
    if not name:
        return "deny"
    verdict = called(name, way)
    return "deny" if verdict in ("drop", "reject") else "permit"


# --- conditions


def fits(rule: Tree, way: Way) -> bool:
    packet = way.packet
    for word in ("limit", "recent", "time", "connection-mark", "ipsec", "packet-type"):
        if rule.has(word):
            raise Unjudged(word)
    checks = (
        protocol(rule.value("protocol"), packet),
        end(rule, "source", packet.source, packet.source_port, way),
        end(rule, "destination", packet.destination, packet.destination_port, way),
        through(rule.at("inbound-interface"), master(way.root, way.inbound), way),
        through(rule.at("outbound-interface"), way.outbound, way),
        not rule.has("state") or STATES[packet.state] in rule.all("state"),
        flags(rule.at("tcp", "flags"), packet) if rule.has("tcp", "flags") else True,
        icmp(rule, packet),
        fragment(rule, packet),
        within(rule.all("dscp"), packet.tos >> 2) if rule.has("dscp") else True,
        not (rule.has("dscp-exclude") and within(rule.all("dscp-exclude"), packet.tos >> 2)),
        compared(rule.at("ttl" if packet.family == 4 else "hop-limit"), packet.ttl - (way.inbound != uplink(way.root))),
    )
    length = packet.length - (40 if packet.family == 6 else 0)  # nft compares the payload's length of IPv6
    sizes = (not rule.has("packet-length") or within(rule.all("packet-length"), length)) and not (
        rule.has("packet-length-exclude") and within(rule.all("packet-length-exclude"), length)
    )
    return all(checks) and sizes


def protocol(text: str, packet: Packet) -> bool:
    name = text.removeprefix("!")
    if name in ("", "all"):
        return True
    if name == "tcp_udp":
        found = packet.protocol in (6, 17)
    else:
        found = packet.protocol == (int(name) if name.isdecimal() else NAMES[name])
    return found != text.startswith("!")


def within(texts: list[str], value: int) -> bool:
    for text in texts:
        low, _, high = text.partition("-")
        if int(low) <= value <= int(high or low):
            return True
    return False


def end(rule: Tree, side: str, address: int, port: int, way: Way) -> bool:
    node = rule.at(side)
    if node.has("fqdn") or node.has("geoip") or node.has("mac-address"):
        raise Unjudged(side)
    mask = int(ipaddress.ip_address(node.value("address-mask"))) if node.has("address-mask") else -1
    text = node.value("address")
    if text and among([text.removeprefix("!")], address, mask) == text.startswith("!"):
        return False
    groups = node.at("group")
    six = "" if way.packet.family == 4 else "ipv6-"
    for kind, leaf in (("address-group", "address"), ("network-group", "network")):
        name = groups.value(kind)
        if name:
            members = group(way.root, six + kind, leaf, name.removeprefix("!"))
            if among(members, address, mask if kind == "address-group" else -1) == name.startswith("!"):
                return False
    wanted = node.value("port").split(",") if node.has("port") else []
    name = groups.value("port-group")
    if not wanted and not name:
        return True
    protocols = {"tcp": (6,), "udp": (17,), "tcp_udp": (6, 17), "sctp": (132,), "udplite": (136,)}
    given = rule.value("protocol")
    given = {"6": "tcp", "17": "udp"}.get(given, given)
    if way.packet.undetermined or way.packet.protocol not in protocols.get(given, ()):
        return False
    plain = [text for text in wanted if not text.startswith("!")]
    unwanted = [text[1:] for text in wanted if text.startswith("!")]
    if plain and not on_port(plain, port):
        return False
    if on_port(unwanted, port):
        return False
    if not name:
        return True
    return on_port(group(way.root, "port-group", "port", name.removeprefix("!")), port) != name.startswith("!")


def group(root: Tree, kind: str, leaf: str, name: str) -> list[str]:
    found: list[str] = []
    pending, seen = [name], set[str]()
    while pending:
        here = pending.pop()
        if here not in seen:
            seen.add(here)
            node = root.at("firewall", "group", kind, here)
            found += node.all(leaf)
            pending += node.all("include")
    return found


def among(texts: list[str], address: int, mask: int) -> bool:
    for text in texts:
        if "-" in text:
            low, high = (int(ipaddress.ip_address(part)) for part in text.split("-"))
            found = low <= address & mask <= high
        else:
            network = ipaddress.ip_network(text, strict=False)
            found = int(network[0]) <= address & mask <= int(network[-1])
        if found:
            return True
    return False


def on_port(texts: list[str], port: int) -> bool:
    return within([str(SERVICES.get(text, text)) for text in texts], port)


def through(node: Tree, name: str, way: Way) -> bool:
    pattern, group_name = node.value("name"), node.value("group")
    if pattern and alike([pattern.removeprefix("!")], name) == pattern.startswith("!"):
        return False
    if group_name:
        members = group(way.root, "interface-group", "interface", group_name.removeprefix("!"))
        if alike(members, name) == group_name.startswith("!"):
            return False
    return True


def alike(patterns: list[str], name: str) -> bool:
    return any(re.fullmatch(re.escape(one).replace(r"\*", ".*"), name) for one in patterns)


def master(root: Tree, name: str) -> str:
    """What a packet comes in by: the VRF of the interface, where it has one."""
    return next((node.value("vrf") for known, node in interfaces(root) if known == name), "") or name


def flags(node: Tree, packet: Packet) -> bool:
    if packet.protocol != 6 or packet.undetermined:
        return False
    on = sum(FLAGS[name] for name in node.children if name != "not")
    off = sum(FLAGS[name] for name in node.at("not").children)
    return packet.tcp_flags & on == on and not packet.tcp_flags & off


def icmp(rule: Tree, packet: Packet) -> bool:
    node = rule.at("icmp" if packet.family == 4 else "icmpv6")
    if not node.children:
        return True
    if packet.protocol != (1 if packet.family == 4 else 58) or packet.undetermined:
        return False
    if node.has("type-name"):
        known = {"echo-request": (8, 128), "echo-reply": (0, 129), "destination-unreachable": (3, 1),
                 "packet-too-big": (-1, 2), "time-exceeded": (11, 3), "parameter-problem": (12, 4)}  # fmt: skip
        name = node.value("type-name")
        if name not in known:
            raise Unjudged(name)
        return packet.icmp_type == known[name][packet.family == 6]
    return (not node.has("type") or packet.icmp_type == int(node.value("type"))) and (
        not node.has("code") or packet.icmp_code == int(node.value("code"))
    )


def fragment(rule: Tree, packet: Packet) -> bool:
    node = rule.at("fragment")
    came = packet.fragment > 0 or packet.extension == 3
    return (came or not node.has("match-frag")) and (not came or not node.has("match-non-frag"))


def compared(node: Tree, value: int) -> bool:
    return (
        (not node.has("eq") or value == int(node.value("eq")))
        and (not node.has("gt") or value > int(node.value("gt")))
        and (not node.has("lt") or value < int(node.value("lt")))
    )
