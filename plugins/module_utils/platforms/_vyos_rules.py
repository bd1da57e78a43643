# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One rule of a VyOS firewall as the parts of an nftables rule, which VyOS makes of it. Sources: vyos.py."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from .. import packets
from ..filters import DENY, JUMP, PERMIT, RETURN, UNKNOWN
from ._nftables_parts import Flow, Narrow, Part, Rewrite, Selector, Test, Verdict
from ._nftables_rules import Reader
from ._nftables_selectors import address_value
from ._nftables_text import Chain, Rule, Table, tokens
from ._vyos_tree import Node

L3 = {4: "ip", 6: "ip6"}
# Statements of a rule that change neither which packets match nor what happens to them.
SILENT = frozenset(
    ("action", "jump-target", "offload-target", "description", "disable", "log", "log-level", "log-options",
     "queue", "queue-options", "synproxy", "add-address-to-group", "set", "translation", "exclude", "load-balance")
)  # fmt: skip
# Conditions whose outcome no packet shows.
UNSEEN = {
    "limit": "whether the rate is used up is not known",
    "recent": "how many came before is not known",
    "time": "the time decides",
    "connection-mark": "the mark of the connection is not known",
    "mark": "the mark of the packet is not known",
    "connection-status": "whether the connection is translated is not known",
    "conntrack-helper": "whether a helper follows the connection is not known",
    "ipsec": "whether it comes out of a tunnel, or goes into one, is not known",
    "packet-type": "how the packet is addressed on its link is not known",
    "ethernet-type": "what it is on its link is not known",
    "vlan": "the VLAN tag is not known",
    "gre": "fields of a GRE header are not modelled",
    "fib": "the routing table decides",
    "flow-group": "flow groups are not read",
}
GROUPS = {
    "address-group": ("address", "saddr"),
    "network-group": ("network", "saddr"),
    "port-group": ("port", "sport"),
    "interface-group": ("interface", ""),
}
_UNREAD_GROUPS = {
    "domain-group": "the addresses of names are not known",
    "dynamic-address-group": "packets fill this group",
    "remote-group": "the group is filled from elsewhere",
    "mac-group": "MAC addresses are not modelled",
}
KNOWN_GROUPS = frozenset(
    (*GROUPS, *_UNREAD_GROUPS, "dynamic-group", "ipv6-address-group", "ipv6-network-group", "flow-group")
)  # fmt: skip
_TCP_FLAGS = frozenset({"fin", "syn", "rst", "psh", "ack", "urg", "ecn", "cwr"})
_STATES = frozenset({"new", "established", "related", "invalid"})
_ICMP_RENAMED = {  # names of iptables, which VyOS 1.3 has, as nft calls them
    "packet-too-big": "packet-too-big", "neighbour-solicitation": "nd-neighbor-solicit",
    "neighbor-solicitation": "nd-neighbor-solicit", "neighbour-advertisement": "nd-neighbor-advert",
    "neighbor-advertisement": "nd-neighbor-advert", "router-solicitation": "nd-router-solicit",
    "router-advertisement": "nd-router-advert", "ping": "echo-request", "pong": "echo-reply",
}  # fmt: skip
_PROTOCOL_NAMES = {"all": "", "6": "tcp", "17": "udp", "ipv6-icmp": "icmpv6", "icmp6": "icmpv6"}
_WITH_PORTS = frozenset({"tcp", "udp", "sctp", "udplite"})
_INTERFACE = re.compile(r"[\w.:@*+-]+")
_VALUE = re.compile(r"[\w.:/-]+")


@dataclass(slots=True)
class Surroundings:
    """What the conditions of a rule refer to."""

    groups: Mapping[str, Mapping[str, Node]]  # kind to name to what stands in it
    members: Mapping[str, tuple[str, ...]]  # VRF to its interfaces
    flowtables: Mapping[str, tuple[str, ...]]
    marks: bool  # policy routes mark packets, as VyOS marks fragments
    legacy: bool  # VyOS 1.3: iptables below
    _tests: dict[tuple[str, ...], list[Part]] = dataclasses.field(default_factory=dict)

    def elements(self, kind: str, name: str) -> tuple[list[str], str]:
        """What stands in a group and in those that it includes; and why that is not known, "" where it is."""
        if other := next((other for other in self.groups if other not in KNOWN_GROUPS), ""):
            return [], f"'{other}' is no kind of groups that is known, and what it holds may belong to this one"
        found: dict[str, None] = {}
        pending, seen = [name], set[str]()
        while pending:
            here = pending.pop()
            if here in seen:
                continue
            seen.add(here)
            node = self.groups.get(kind, {}).get(here)
            word = GROUPS[kind.removeprefix("ipv6-")][0]
            if node is None:
                return [], f"the {kind} {here} is not in the text"
            if strange := next((one for one in node if one not in (word, "include", "description")), ""):
                return [], f"line {node[strange].line}: '{strange}' in the {kind} {here} is not understood"
            values = node.at(word)
            if word in node and not values:
                return [], f"line {values.line}: a value in the {kind} {here} is missing"
            cut = next((one for one in values if word == "network" and not one.rpartition("/")[2].isdecimal()), "")
            if cut:
                return [], f"line {values[cut].line}: '{cut}' in the {kind} {here} is no network"
            found |= dict.fromkeys(values)
            pending += node.at("include")
        return list(found), ""


_NOWHERE = Table("ip", "", 0), Chain("", 0)


@lru_cache(maxsize=65536)
def parts_of(text: str) -> tuple[Part, ...]:
    """What nft makes of a condition."""
    return tuple(Reader(*_NOWHERE, Rule(tokens(text), 0)).read())


def compared_with(where: str, values: list[str], negate: bool = False, operator: str = "") -> list[Part]:
    """A condition on a value (with an operator) or on a set of them. A set without any is held by no packet."""
    if not all(_VALUE.fullmatch(value) for value in values):
        return [Narrow("a value that is not understood")]
    if operator:
        return list(parts_of(f"{where} {operator} {values[0]}")) if values else [Narrow("a value is missing")]
    if values:
        return list(parts_of(f"{where} {'!= ' if negate else ''}{{ {', '.join(values)} }}"))
    (sample,) = parts_of(f"{where} {{ 0 }}")
    assert isinstance(sample, Test)
    return [dataclasses.replace(sample, elements=(), negate=negate)]


def conditions(rule: Node, family: int, around: Surroundings) -> list[Part]:
    """Everything that a rule asks of a packet."""
    parts: list[Part] = []
    for word, below in rule.items():
        if word in SILENT:
            continue
        if word in UNSEEN:
            parts.append(Narrow(UNSEEN[word]))
        elif word in _READERS:
            parts += _READERS[word](below, rule, family, around)
        else:
            parts.append(Narrow(f"'{word}' is not understood"))
    return parts


def _negated(text: str) -> tuple[bool, str]:
    return text.startswith("!"), text.removeprefix("!")


def protocol_of(rule: Node) -> str:
    """The protocol of a rule as nft reads it, "" for any."""
    name = rule.value("protocol").lower()
    return _PROTOCOL_NAMES.get(name, name)


def _protocol(_: Node, rule: Node, family: int, around: Surroundings) -> list[Part]:
    negate, name = _negated(protocol_of(rule))
    if not rule.value("protocol"):
        return [Narrow("a value is missing")]
    # A port is asked for in a header of its protocol, which nft sees to by the same test.
    if not name or (name in _WITH_PORTS and (_has_ports(rule.at("destination")) or _has_ports(rule.at("source")))):
        return []
    if name == "tcp_udp":
        return compared_with("meta l4proto", ["tcp", "udp"], negate)
    number = packets.PROTOCOLS.get(name)
    if name == "icmpv6" or (around.legacy and name == "icmp" and family == 6):
        number = 58
    if around.legacy and (number == 0 or name in ("0", "ip")):
        return [Narrow("to iptables of 1.3 the protocol 0 is every protocol, to nft of 1.4 it is not")]
    return compared_with("meta l4proto", [name if number is None else str(number)], negate)


def _has_ports(end: Node) -> bool:
    return bool(end.get("port") or end.at("group", "port-group"))


def _end(side: str) -> Callable[[Node, Node, int, Surroundings], list[Part]]:
    """What a rule asks of one end, `source` or `destination`."""
    prefix = side[0]

    def read(end: Node, rule: Node, family: int, around: Surroundings) -> list[Part]:
        parts: list[Part] = []
        where = f"{L3[family]} {prefix}addr"
        mask = end.value("address-mask")
        for word, below in end.items():
            if word == "address":
                parts += _address(next(iter(below), ""), where, mask)
            elif word == "port":
                parts += _ports(",".join(below), _port_selector(rule, prefix))
            elif word == "group":
                for kind, names in below.items():
                    parts += _group(kind, next(iter(names), ""), prefix, where, mask, rule, family, around)
            elif word in ("fqdn", "geoip"):
                parts.append(Narrow(f"the addresses of this {word} are not known"))
            elif word == "mac-address":
                parts.append(Narrow("MAC addresses are not modelled"))
            elif word != "address-mask":
                parts.append(Narrow(f"'{word}' is not understood"))
        return parts

    return read


@lru_cache(maxsize=65536)
def _address(text: str, where: str, mask: str) -> tuple[Part, ...]:
    negate, value = _negated(text)
    if mask and not _VALUE.fullmatch(mask):
        return (Narrow("a mask that is not understood"),)
    if mask:
        return tuple(compared_with(f"{where} & {mask}", [value], operator="!=" if negate else "=="))
    plain = address_value(value, 6 if where.startswith("ip6") else 4)
    if plain is None:
        return tuple(compared_with(where, [value], operator="!=" if negate else "=="))
    return (Test((_end_of_packet(where),), ((plain,),), negate),)


@lru_cache(maxsize=4)
def _end_of_packet(where: str) -> Selector:
    (sample,) = parts_of(f"{where} {{ 0 }}")
    assert isinstance(sample, Test)
    return sample.selectors[0]


@lru_cache(maxsize=65536)
def _ports(text: str, where: str | None) -> tuple[Part, ...]:
    """22,137-139,!445: those listed, and none of those with a `!`."""
    if where is None:
        return (Narrow("a port without a protocol that has ports is nothing that VyOS takes"),)
    words = [word for word in text.split(",") if word]
    if not words:
        return (Narrow("a value is missing"),)
    wanted = [word for word in words if not word.startswith("!")]
    unwanted = [word[1:] for word in words if word.startswith("!")]
    parts = compared_with(where, wanted) if wanted else []
    return (*parts, *(compared_with(where, unwanted, negate=True) if unwanted else ()))


def _port_selector(rule: Node, prefix: str) -> str | None:
    protocol = protocol_of(rule)
    if protocol == "tcp_udp":
        return f"th {prefix}port"
    return f"{protocol} {prefix}port" if protocol in _WITH_PORTS else None


def _group(
    kind: str, text: str, prefix: str, where: str, mask: str, rule: Node, family: int, around: Surroundings
) -> list[Part]:
    negate, name = _negated(text)
    if kind in _UNREAD_GROUPS:
        return [Narrow(_UNREAD_GROUPS[kind])]
    if kind not in GROUPS:
        return [Narrow(f"'{kind}' is not understood")]
    if kind == "port-group":
        selector = _port_selector(rule, prefix)
        if selector is None:
            return [Narrow("a port without a protocol that has ports is nothing that VyOS takes")]
    else:
        kind = kind if family == 4 else f"ipv6-{kind}"
        selector = f"{where} & {mask}" if mask else where
    key = kind, name, selector, str(negate)
    if key not in around._tests:
        elements, why = around.elements(kind, name)
        around._tests[key] = [Narrow(why)] if why else compared_with(selector, elements, negate)
    return around._tests[key]


def interface(direction: str, patterns: list[str], negate: bool, around: Surroundings) -> list[Part]:
    """One of these interfaces, or none of them. Behind a VRF it is the VRF that a packet comes in by."""
    if strange := next((pattern for pattern in patterns if not _INTERFACE.fullmatch(pattern)), ""):
        return [Narrow(f"'{strange}' is no name of an interface")]
    if direction == "in":
        slaves = {name for members in around.members.values() for name in members}
        masters = [pattern for pattern in patterns if pattern in around.members]
        if masters or any(pattern in slaves for pattern in patterns):
            patterns = [name for name in patterns if name not in slaves and name not in masters]
            patterns += [name for master in masters for name in around.members[master]]
    selector = Selector("interface", direction)
    return [Test((selector,), tuple((pattern,) for pattern in patterns), negate)]


def _interface(direction: str) -> Callable[[Node, Node, int, Surroundings], list[Part]]:
    def read(node: Node, rule: Node, family: int, around: Surroundings) -> list[Part]:  # noqa: ARG001
        parts: list[Part] = []
        for word, below in node.items():
            told = word in ("name", "group", "interface-name", "interface-group")
            negate, name = _negated(next(iter(below), "") if told else word)  # 1.3 has the name alone
            if not name or (below and not told):
                parts.append(Narrow(f"'{word}' is not understood"))
            elif word in ("group", "interface-group"):
                elements, why = around.elements("interface-group", name)
                if any(one.startswith("!") for one in elements):
                    why = f"what an inverted interface in the interface-group {name} asks for is not documented"
                parts += [Narrow(why)] if why else interface(direction, elements, negate, around)
            elif name == "any":
                continue
            else:
                parts += interface(direction, [name], negate, around)
        return parts

    return read


def _state(node: Node, rule: Node, family: int, around: Surroundings) -> list[Part]:  # noqa: ARG001
    """1.4: `state established`; 1.3: `state established enable`."""
    wanted = [name for name, below in node.items() if "disable" not in below]
    parts: list[Part] = [Narrow(f"the state '{name}' is not understood") for name in wanted if name not in _STATES]
    known = [name for name in wanted if name in _STATES]
    return parts + (compared_with("ct state", known) if known else [])


def _tcp(node: Node, rule: Node, family: int, around: Surroundings) -> list[Part]:  # noqa: ARG001
    parts: list[Part] = [Narrow("the MSS is not known")] if "mss" in node else []
    parts += [Narrow(f"'{word}' is not understood") for word in node if word not in ("flags", "mss")]
    on: list[str] = []
    off: list[str] = []
    for word, below in node.at("flags").items():
        for flag in list(below) if word == "not" else word.split(","):
            name = flag.lower()
            (off if word == "not" or name.startswith("!") else on).append(name.removeprefix("!"))
    if not set(on + off) <= _TCP_FLAGS:
        return [*parts, Narrow("a TCP flag that is not understood")]
    if on or off:
        parts += parts_of(f"tcp flags & ({'|'.join(on + off)}) == {'|'.join(on) if on else '0x0'}")
    return parts


def _icmp(name: str) -> Callable[[Node, Node, int, Surroundings], list[Part]]:
    def read(node: Node, rule: Node, family: int, around: Surroundings) -> list[Part]:  # noqa: ARG001
        parts: list[Part] = []
        for word, below in node.items():
            value = next(iter(below), "")
            if word == "code":
                # With a name of the type VyOS leaves the code out.
                parts += compared_with(f"{name} code", [value], operator="==") if "type-name" not in node else []
            elif word in ("type", "type-name"):
                kind, _, code = value.partition("/")
                if kind != "any":
                    parts += compared_with(f"{name} type", [_ICMP_RENAMED.get(kind, kind)], operator="==")
                parts += compared_with(f"{name} code", [code], operator="==") if code else []
            else:
                parts.append(Narrow(f"'{word}' is not understood"))
        return parts

    return read


def _fragment(node: Node, rule: Node, family: int, around: Surroundings) -> list[Part]:  # noqa: ARG001
    if around.legacy:
        return [Narrow("whether fragments are put together before is not documented")]
    parts: list[Part] = []
    selector = Selector("fragmented", "frag", 1)
    for word in node:
        if word in ("match-frag", "match-non-frag"):
            parts.append(Test((selector,), (((1, 1, -1),),), word == "match-non-frag"))
            if around.marks:
                parts.append(Narrow("a policy route may set another mark than that of fragments"))
        else:
            parts.append(Narrow(f"'{word}' is not understood"))
    return parts


def _compared(what: str) -> Callable[[Node, Node, int, Surroundings], list[Part]]:
    operators = {"eq": "==", "gt": ">", "lt": "<"}

    def read(node: Node, rule: Node, family: int, around: Surroundings) -> list[Part]:  # noqa: ARG001
        parts: list[Part] = []
        for word, below in node.items():
            if word in operators:
                parts += compared_with(what, list(below), operator=operators[word])
            else:
                parts.append(Narrow(f"'{word}' is not understood"))
        return parts

    return read


def _numbers(what: str, negate: bool) -> Callable[[Node, Node, int, Surroundings], list[Part]]:
    def read(node: Node, rule: Node, family: int, around: Surroundings) -> list[Part]:  # noqa: ARG001
        return compared_with(f"{L3[family]} {what}", list(node), negate)

    return read


_READERS: Mapping[str, Callable[[Node, Node, int, Surroundings], list[Part]]] = {
    "protocol": _protocol,
    "source": _end("source"),
    "destination": _end("destination"),
    "inbound-interface": _interface("in"),
    "outbound-interface": _interface("out"),
    "state": _state,
    "tcp": _tcp,
    "icmp": _icmp("icmp"),
    "icmpv6": _icmp("icmpv6"),
    "fragment": _fragment,
    "ttl": _compared("ip ttl"),
    "hop-limit": _compared("ip6 hoplimit"),
    "dscp": _numbers("dscp", False),
    "dscp-exclude": _numbers("dscp", True),
    "packet-length": _numbers("length", False),
    "packet-length-exclude": _numbers("length", True),
}


def action(rule: Node, word: str, target: str, around: Surroundings, line: int) -> Iterator[Part]:
    """What a rule, or the end of a chain, does with the packets that it matches."""
    if word == "accept":
        yield Verdict(RETURN if around.legacy else PERMIT, line=line)
    elif word in ("drop", "reject"):
        yield Verdict(DENY, line=line)
    elif word == "jump" and target:
        yield Verdict(JUMP, target, line)
    elif word == "return":
        yield Verdict(RETURN, line=line)
    elif word == "continue":
        yield Verdict("continue", line=line)
    elif word == "notrack":
        return
    elif word == "offload":
        yield Flow(around.flowtables.get(rule.value("offload-target")))
    else:
        reason = {
            "queue": "a program decides on what is queued",
            "synproxy": "a proxy answers for the other end",
            "": "a rule without an action is nothing that VyOS takes",
        }.get(word, f"the action '{word}' is not understood")
        yield Narrow(reason)
        yield Verdict(UNKNOWN, line=line)


def rewrites(rule: Node) -> Iterator[Part]:
    """What a rule of a policy route changes in the packet."""
    changed = rule.at("set")
    for word, field in (("dscp", "tos"), ("ttl", "ttl"), ("hop-limit", "ttl")):
        if word in changed:
            yield Rewrite(field)
