# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Rules of VRP as the router takes and prints them, and what lists and traffic policies say about a packet.

Sources: NE40E Configuration Guide (ACL, Class-based QoS), NetEngine 8000 and CloudEngine Command References (rule,
if-match acl, permit | deny, traffic-policy match-type). A rule with ports takes later fragments when it permits, and
not when it denies. [memory]: names of protocols beside those of the references; that a check of sources looks at the
networks of the interface, or of the user group's pools.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache

from ..judge import Packet

Ranges = tuple[tuple[int, int], ...]
Address = tuple[int, int]  # (value, the bits that must agree)

_ANY: dict[int, str] = {4: "ip", 6: "ipv6"}
_PROTOCOLS: dict[int, dict[str, int]] = {
    4: {"icmp": 1, "igmp": 2, "ipinip": 4, "tcp": 6, "udp": 17, "gre": 47, "ospf": 89},
    6: {"hoport": 0, "tcp": 6, "udp": 17, "ipv6-routing": 43, "ipv6-frag": 44, "gre": 47, "ipv6-esp": 50,
        "ipv6-ah": 51, "icmpv6": 58, "ipv6-destination": 60, "ospf": 89},
}  # fmt: skip
_TCP = {
    "ftp-data": 20, "ftp": 21, "telnet": 23, "smtp": 25, "tacacs": 49, "domain": 53, "finger": 79, "www": 80,
    "pop2": 109, "pop3": 110, "sunrpc": 111, "nntp": 119, "bgp": 179, "exec": 512, "login": 513, "cmd": 514,
}  # fmt: skip
_UDP = {
    "dns": 53, "bootps": 67, "bootpc": 68, "tftp": 69, "sunrpc": 111, "ntp": 123, "netbios-ns": 137,
    "netbios-dgm": 138, "netbios-ssn": 139, "snmp": 161, "snmptrap": 162, "syslog": 514, "rip": 520,
}  # fmt: skip
_ICMP = {4: {"echo": (8, 0), "echo-reply": (0, 0)}, 6: {"echo": (128, 0), "echo-reply": (129, 0)}}
_BITS = {"fin": 1, "syn": 2, "rst": 4, "psh": 8, "ack": 16, "urg": 32}
_HEADERS = {0: 1, 43: 2, 44: 3, 60: 4, 135: 5}  # numbers of extension headers, as Packet.extension has them
_FRAGMENTS = ("fragment", "non-fragment", "non-subseq", "fragment-subseq", "fragment-spe-first")


class Wrong(Exception):
    """`index`: the word that is wrong; None where the line ends too early."""

    def __init__(self, index: int | None) -> None:
        super().__init__()
        self.index = index


@dataclass(frozen=True)
class Rule:
    """`said`: what is printed behind the number, by what it is about, so that rules can merge."""

    said: tuple[tuple[str, str], ...]
    action: str
    protocol: int | None = None
    source: Address | str = (0, 0)  # or the name of a pool
    destination: Address | str = (0, 0)
    source_group: str = ""
    destination_group: str = ""
    source_ports: Ranges | str = ()
    destination_ports: Ranges | str = ()
    icmp: tuple[int, int | None] | None = None
    flags: tuple[Address, ...] = ()
    fragment: str = ""
    dscp: int | None = None

    @property
    def text(self) -> str:
        return " ".join(said for _, said in self.said)


class _Words:
    def __init__(self, words: list[str], at: int) -> None:
        self.words = words
        self.at = at

    def peek(self) -> str:
        return self.words[self.at] if self.at < len(self.words) else ""

    def take(self) -> str:
        if self.at >= len(self.words):
            raise Wrong(None)
        self.at += 1
        return self.words[self.at - 1]

    def wrong(self) -> Wrong:
        return Wrong(self.at - 1)

    def number(self, low: int, high: int) -> int:
        word = self.take()
        if not (word.isascii() and word.isdecimal()) or not low <= int(word) <= high:
            raise self.wrong()
        return int(word)


@lru_cache(maxsize=16384)
def read(line: str, at: int, family: int, kind: str) -> Rule:
    """The rule in the words from `at` on. Raises Wrong where the router would reject it."""
    words = _Words(line.split(), at)
    action = words.take()
    if action not in ("permit", "deny"):
        raise words.wrong()
    said: dict[str, str] = {"action": action}
    rule = Rule((), action)
    if kind != "basic":
        protocol, name = _protocol(words, family)
        said["protocol"] = name
        rule = replace(rule, protocol=protocol)
    while words.peek():
        start = words.at
        key, rule = _condition(words, rule, family, kind)
        if key in said:
            raise Wrong(start)
        said[key] = " ".join(words.words[start : words.at])
    if rule.fragment and (rule.source_ports or rule.destination_ports or rule.icmp or rule.flags):
        raise Wrong(len(words.words) - 1)
    return replace(rule, said=tuple(said.items()))


def merged(old: Rule, new: Rule, family: int, kind: str) -> Rule:
    """What the new rule says takes the place of what the old one says of the same; the rest stays."""
    said = dict(old.said) | dict(new.said)
    return read(" ".join(said.values()), 0, family, kind)


def _protocol(words: _Words, family: int) -> tuple[int | None, str]:
    word = words.take()
    if word == _ANY[family]:
        return None, word
    table = _PROTOCOLS[family]
    if word in table:
        return table[word], word
    if word.isdecimal() and int(word) < 256:
        return int(word), next((name for name, number in table.items() if number == int(word)), word)
    raise words.wrong()


def _condition(words: _Words, rule: Rule, family: int, kind: str) -> tuple[str, Rule]:
    word = words.take()
    if word in ("source", "destination"):
        if kind == "basic" and word == "destination":
            raise words.wrong()
        return word, _end(words, rule, word, family, kind)
    if word in ("source-pool", "destination-pool") and kind == "advance" and family == 4:
        side = word.partition("-")[0]
        return side, replace(rule, **{side: words.take()})  # type: ignore[arg-type]
    if kind == "basic":
        raise words.wrong()
    if word in ("source-port", "destination-port") and rule.protocol in (6, 17):
        ports = _ports(words, rule.protocol)
        return word, replace(rule, **{word.replace("-port", "_ports"): ports})  # type: ignore[arg-type]
    if word in ("source-port-pool", "destination-port-pool") and rule.protocol in (6, 17) and kind == "advance":
        side = word.partition("-")[0]
        return f"{side}-port", replace(rule, **{f"{side}_ports": words.take()})  # type: ignore[arg-type]
    if word == ("tcp-flag" if kind == "advance" else "syn-flag") and rule.protocol == 6:
        return word, replace(rule, flags=_flags(words, kind))
    if word == ("icmp-type" if family == 4 else "icmp6-type") and rule.protocol == (1 if family == 4 else 58):
        return word, replace(rule, icmp=_icmp(words, family))
    if word == "fragment-type" and family == 4:
        if words.take() not in _FRAGMENTS:
            raise words.wrong()
        return word, replace(rule, fragment=words.words[words.at - 1])
    if word == "fragment" and family == 6:
        return word, replace(rule, fragment="fragment")
    if word == "dscp":
        return word, replace(rule, dscp=words.number(0, 63))
    if word in ("logging",):
        return word, rule
    raise words.wrong()


def _end(words: _Words, rule: Rule, side: str, family: int, kind: str) -> Rule:
    if words.peek() == "any":
        words.take()
        return rule
    if kind == "ucl":
        word = words.take()
        if word == "user-group":
            return replace(rule, **{f"{side}_group": words.take()})  # type: ignore[arg-type]
        if word != ("ip-address" if family == 4 else "ipv6-address"):
            raise words.wrong()
        if words.peek() == "any":
            words.take()
            return rule
    return replace(rule, **{side: _address(words, family)})  # type: ignore[arg-type]


def _address(words: _Words, family: int) -> Address:
    bits = 32 if family == 4 else 128
    full = (1 << bits) - 1
    head, slash, length = words.take().partition("/")
    try:
        value = int(ipaddress.IPv4Address(head) if family == 4 else ipaddress.IPv6Address(head))
    except ValueError:
        raise words.wrong() from None
    if slash and family == 6:
        if not length.isdecimal() or int(length) > 128:
            raise words.wrong()
        mask = full ^ (full >> int(length))
    elif slash:
        raise words.wrong()
    elif family == 4 and words.peek() == "0":
        words.take()
        mask = full
    elif words.peek().isdecimal():
        mask = full ^ (full >> words.number(1, bits))
    elif family == 4:
        try:
            mask = full ^ int(ipaddress.IPv4Address(words.take()))
        except ValueError:
            raise words.wrong() from None
    else:
        raise Wrong(words.at if words.peek() else None)
    return value & mask, mask


def _ports(words: _Words, protocol: int) -> Ranges:
    table = _TCP if protocol == 6 else _UDP
    operator = words.take()

    def port() -> int:
        if words.peek() in table:
            return table[words.take()]
        return words.number(0, 65535)

    if operator == "eq":
        one = port()
        return ((one, one),)
    if operator == "gt":
        return ((port() + 1, 65535),)
    if operator == "lt":
        return ((0, port() - 1),)
    if operator == "range":
        low, high = port(), port()
        if low > high:
            raise words.wrong()
        return ((low, high),)
    raise words.wrong()


def _flags(words: _Words, kind: str) -> tuple[Address, ...]:
    if kind == "ucl" and words.peek() == "bit-match":
        words.take()
        name = words.take()
        if name not in (*_BITS, "established"):
            raise words.wrong()
        return ((16, 16), (4, 4)) if name == "established" else ((_BITS[name], _BITS[name]),)
    if words.peek() == "established":
        words.take()
        return ((16, 16), (4, 4))
    if words.peek().isdecimal():
        value, mask = words.number(0, 63), 63
        if words.peek() == "mask":
            words.take()
            mask = words.number(0, 63)
        return ((value & mask, mask),)
    names = []
    while words.peek() in _BITS:
        names.append(words.take())
    if not names:
        words.take()
        raise words.wrong()
    value = sum(_BITS[name] for name in set(names))
    return ((value, value),)


def _icmp(words: _Words, family: int) -> tuple[int, int | None]:
    if words.peek() in _ICMP[family]:
        return _ICMP[family][words.take()]
    kind = words.number(0, 255)
    return kind, words.number(0, 255) if words.peek().isdecimal() else None


# -- a packet ----------------------------------------------------------------------------------------------------


@dataclass
class View:
    """A block of the configuration: the line that enters it, and those below."""

    header: str
    lines: list[str] = field(default_factory=list)


class Judge:
    """Asks the blocks of a configuration about packets. The blocks do not change any more."""

    def __init__(self, views: list[View]) -> None:
        self.views = views
        self._rules: dict[tuple[str, int], list[Rule]] = {}
        self._lines: dict[str, list[list[str]]] = {}

    @cached_property
    def _named(self) -> dict[str, View]:
        """The blocks by the line that enters each, and by the words of it up to the name."""
        found: dict[str, View] = {}
        for one in self.views:
            words = one.header.split()
            for end in range(len(words), 0, -1):
                found.setdefault(" ".join(words[:end]), one)
        return found

    def _view(self, *starts: str) -> View | None:
        return next((self._named[start] for start in starts if start in self._named), None)

    def _said(self, start: str) -> list[list[str]]:
        """The words of the lines of a block, none where there is no such block."""
        if start not in self._lines:
            view = self._view(start)
            self._lines[start] = [line.split() for line in view.lines] if view else []
        return self._lines[start]

    def verdict(self, attachment: str, direction: str, packet: Packet) -> str:
        """Raises KeyError for a place that is not there."""
        way = "inbound" if direction == "up" else "outbound"
        if attachment.startswith("user-group "):
            return self._users(attachment, way, packet)
        place = self._view(f"interface {attachment}")
        if place is None:
            raise KeyError(f"there is no interface {attachment}")
        lines = self._said(f"interface {attachment}")
        if any(words[:1] == ["access-type"] and words[1].endswith("-subscriber") for words in lines):
            return "permit"  # users meet user lists alone
        for words in lines:
            passes, check = True, False
            if words[0] == "traffic-policy" and words[2:] == [way]:
                passes, check = self._policy(words[1], packet, "", "")
            elif words[0] == "traffic-filter" and words[1] == way and words[2] == "acl":
                family = 6 if words[3] == "ipv6" else 4
                passes = family != packet.family or self._list(words[-1], packet, "", "") != "deny"
            elif words[1:] == ["urpf", "strict"] and words[0] == ("ip" if packet.family == 4 else "ipv6"):
                check = direction == "up"
            if not passes or (check and not self._comes_from(lines, packet)):
                return "deny"
        return "permit"

    def _users(self, attachment: str, way: str, packet: Packet) -> str:
        if self._view(attachment) is None:
            raise KeyError(f"there is no {attachment}")
        group = attachment.split()[1]
        side = "source" if way == "inbound" else "destination"
        for policy in (words[1] for words in (one.header.split() for one in self.views)
                       if words[0] == "traffic-policy" and words[2:] == [way]):  # fmt: skip
            passes, check = self._policy(policy, packet, group, side)
            if not passes or (check and not any(_in(text, packet) for text in self._given(group, packet.family))):
                return "deny"
        return "permit"

    def _policy(self, name: str, packet: Packet, group: str, side: str) -> tuple[bool, bool]:
        """Does it let the packet through, and is its source to be checked?"""
        classifiers = [words for words in self._said(f"traffic policy {name}") if words[0] == "classifier"]
        if all("precedence" in words for words in classifiers):
            classifiers.sort(key=lambda words: int(words[-1]))
        for words in classifiers:
            found = self._classified(words[1], packet, group, side)
            if found:
                actions = self._said(f"traffic behavior {words[3]}")
                return found == "permit" and ["deny"] not in actions, ["ip", "urpf", "strict"] in actions
        return True, False

    def _classified(self, classifier: str, packet: Packet, group: str, side: str) -> str:
        """permit or deny where the classifier takes the packet, "" where it does not."""
        view = self._view(f"traffic classifier {classifier}")
        found = []
        for words in self._said(f"traffic classifier {classifier}"):
            if words[0] != "if-match":
                continue
            rest = [word for word in words[1:] if word not in ("ipv6", "acl", "name")]
            own = (words[1] == "ipv6") == (packet.family == 6)
            if rest[0] == "dscp":
                said = "permit" if str(packet.tos >> 2) in rest[1:] else ""
            else:
                said = "permit" if rest == ["any"] else self._list(rest[0], packet, group, side)
            found.append(said if own else "")
        if view is not None and view.header.endswith(" operator and"):
            return "" if "" in found else "deny" if "deny" in found else "permit"
        return next((said for said in found if said), "")

    def _list(self, name: str, packet: Packet, group: str, side: str) -> str:
        """What the first rule says that matches; "" when none does."""
        key = name, packet.family
        if key not in self._rules:
            word = "acl ipv6" if packet.family == 6 else "acl"
            view = self._view(f"{word} number {name}", f"{word} name {name}")
            self._rules[key] = list(_rules(view, packet.family)) if view else []
        for rule in self._rules[key]:
            mine, other = rule.source_group, rule.destination_group
            if side == "destination":
                mine, other = other, mine
            if (group and (mine not in (group, "any") or other)) or (not group and (mine or other)):
                continue
            if self._fits(rule, packet):
                return rule.action
        return ""

    def _fits(self, rule: Rule, packet: Packet) -> bool:
        if packet.family == 6 and rule.protocol in _HEADERS:
            if packet.extension != _HEADERS[rule.protocol]:
                return False
        elif rule.protocol not in (None, packet.protocol):
            return False
        if not self._at(rule.source, packet.source) or not self._at(rule.destination, packet.destination):
            return False
        if rule.fragment and not _fragment(rule.fragment, packet):
            return False
        if rule.dscp not in (None, packet.tos >> 2):
            return False
        if not (rule.source_ports or rule.destination_ports or rule.icmp or rule.flags):
            return True
        if not packet.layer4:
            return packet.later and rule.action == "permit"
        if rule.icmp and (packet.icmp_type != rule.icmp[0] or rule.icmp[1] not in (None, packet.icmp_code)):
            return False
        if rule.flags and not any(packet.tcp_flags & mask == value for value, mask in rule.flags):
            return False
        ends = (rule.source_ports, packet.source_port), (rule.destination_ports, packet.destination_port)
        return all(self._port(ports, port) for ports, port in ends)

    def _at(self, where: Address | str, value: int) -> bool:
        if not isinstance(where, str):
            return value & where[1] == where[0]
        view = self._view(f"acl ip-pool {where}")
        pairs = [_address(_Words(line.split(), 2), 4) for line in view.lines] if view else []
        return any(value & mask == wanted for wanted, mask in pairs)

    def _port(self, ports: Ranges | str, port: int) -> bool:
        if isinstance(ports, str):
            view = self._view(f"acl port-pool {ports}")
            ranges = [_ports(_Words(line.split(), 0), 6)[0] for line in view.lines] if view else [(-1, -1)]
            return any(low <= port <= high for low, high in ranges)
        return not ports or any(low <= port <= high for low, high in ports)

    def _comes_from(self, lines: list[list[str]], packet: Packet) -> bool:
        head = "ip" if packet.family == 4 else "ipv6"
        texts = ["/".join(words[2:4]) for words in lines if words[:2] == [head, "address"]]
        return any(_in(text, packet) for text in texts)

    def _given(self, group: str, family: int) -> list[str]:
        """The networks from which the domains of the group give addresses."""
        found: list[str] = []
        aaa = self._view("aaa")
        domain: list[list[str]] = []
        for line in [*(aaa.lines if aaa else ()), "domain"]:
            words = line.split()
            if words[0] == "domain":
                if ["user-group", group] in domain:
                    found += [words[1] for words in domain if words[0] == ("ip-pool" if family == 4 else "ipv6-pool")]
                domain = []
            domain.append(words)
        return [text for pool in found for text in self._pool(pool, family)]

    def _pool(self, name: str, family: int) -> list[str]:
        view = self._view(f"{'ip' if family == 4 else 'ipv6'} pool {name}")
        words = [line.split() for line in view.lines] if view else []
        if family == 4:
            return ["/".join(one[1:3]) for one in words if one[0] == "gateway"]
        prefixes = [self._view(f"ipv6 prefix {one[1]}") for one in words if one[0] == "prefix"]
        return [line.split()[1] for one in prefixes if one for line in one.lines if line.startswith("prefix ")]


def _rules(view: View, family: int) -> Iterator[Rule]:
    kind = kind_of(view.header)
    for line in view.lines:
        words = line.split()
        if words[0] == "rule" and words[2] != "description":
            yield read(line, 2, family, kind)


def kind_of(header: str) -> str:
    """basic, advance or ucl, of the line that enters a list."""
    words = header.split()
    if words[-1] in ("basic", "advance", "ucl"):
        return words[-1]
    number = int(words[-1]) if words[-1].isdecimal() else 3000
    return "basic" if number < 3000 else "ucl" if 6000 <= number < 10000 else "advance"


def _fragment(wanted: str, packet: Packet) -> bool:
    answers: Mapping[str, bool] = {
        "fragment": packet.fragment > 0, "non-fragment": packet.fragment == 0, "non-subseq": not packet.later,
        "fragment-subseq": packet.later, "fragment-spe-first": packet.fragment == 1,
    }  # fmt: skip
    return answers[wanted]


def _in(text: str, packet: Packet) -> bool:
    network = ipaddress.ip_interface(text).network
    return network.version == packet.family and int(network.network_address) <= packet.source <= int(
        network.broadcast_address
    )
