# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The lab's verdict on a packet that a RouterOS router forwards: rule by rule, from the items of its menus.

Source: MikroTik's documentation, "Filter", "Raw", "Common Firewall Matchers and Actions", "Connection tracking". What
does not depend on the packet's header (limit, time, content ...) never matches here. A connection that a rule
fasttracks is taken to be fasttracked already when its established packets come.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..judge import Packet

Item = Mapping[str, str]
Menus = Mapping[str, Sequence[Item]]  # "ip firewall filter" and the like, disabled items included
Test = Callable[["Look"], bool]

PROTOCOLS = {
    "icmp": 1, "igmp": 2, "ipencap": 4, "tcp": 6, "egp": 8, "udp": 17, "dccp": 33, "gre": 47, "ipsec-esp": 50,
    "ipsec-ah": 51, "icmpv6": 58, "ospf": 89, "pim": 103, "vrrp": 112, "l2tp": 115, "sctp": 132, "udp-lite": 136,
}  # fmt: skip
STATES = {"new": 0, "established": 1, "related": 2, "invalid": 3, "untracked": 4}
FLAGS = {"fin": 1, "syn": 2, "rst": 4, "psh": 8, "ack": 16, "urg": 32, "ece": 64, "cwr": 128}
HEADERS = {"hop": 1, "route": 2, "frag": 3, "dst": 4}
PORTED = (6, 17, 33, 132, 136)
NOT_MATCHERS = frozenset(
    "action address-list address-list-timeout chain comment disabled hw-offload jump-target log log-prefix reject-with "
    "to-addresses to-ports".split()
)
FINAL = {"accept": "permit", "drop": "deny", "reject": "deny", "tarpit": "deny"}


@dataclass(frozen=True)
class Look:
    """A packet at one place of its way: by which interfaces, and whether connections are tracked there."""

    packet: Packet
    incoming: Interface
    outgoing: Interface
    tracked: bool
    lists: Mapping[str, tuple[tuple[int, int], ...]]
    lower: int  # by how much its TTL is lower already


@dataclass(frozen=True)
class Interface:
    """An interface, or a session of a PPP profile, with the lists that it is in."""

    name: str
    lists: frozenset[str]
    ppp: bool = False
    kind: str = ""


_Chains = Mapping[str, Sequence[tuple[Item, tuple[Test, ...]]]]  # the rules in force of each chain, with what they ask


class Scene:
    """A state of the router, and what many packets have in common there."""

    def __init__(self, menus: Menus) -> None:
        self._menus = menus
        self._uplink = _uplink(menus)
        self._places: dict[str, list[Interface]] = {}
        self._chains: dict[str, _Chains] = {}

    def judge(self, attachment: str, direction: str, packet: Packet) -> str:
        """'permit' or 'deny'. Raises KeyError for an attachment that is not there."""
        if attachment not in self._places:
            self._places[attachment] = _attached(self._menus, attachment)
        verdicts = set()
        for place in self._places[attachment]:
            incoming, outgoing = (place, self._uplink) if direction == "up" else (self._uplink, place)
            verdicts.add(self._forwarded(packet, incoming, outgoing))
        return "permit" if "permit" in verdicts else "deny"

    def _forwarded(self, packet: Packet, incoming: Interface, outgoing: Interface) -> str:
        menus, top = self._menus, {4: "ip", 6: "ipv6"}[packet.family]
        tracking = all(item.get("enabled") != "no" for item in menus.get("ip firewall connection tracking", ()))
        lists = _lists(menus, packet.family)
        if packet.family == 4 and packet.source >> 24 == 0 and incoming.name != self._uplink.name:
            return "deny"  # a martian
        look = Look(packet, incoming, outgoing, False, lists, 0)
        if _table(self._table_of(f"{top} firewall raw"), "prerouting", look) == "deny":
            return "deny"
        look = Look(packet, incoming, outgoing, tracking, lists, 1)
        return _table(self._with_sessions(top, incoming, outgoing), "forward", look) or "permit"

    def _table_of(self, menu: str) -> _Chains:
        if menu not in self._chains:
            self._chains[menu] = _chains(self._menus.get(menu, ()), menu)
        return self._chains[menu]

    def _with_sessions(self, top: str, incoming: Interface, outgoing: Interface) -> _Chains:
        """The rules, with those that PPP sessions add to the chain ppp."""
        menu = f"{top} firewall filter"
        added = [
            {"chain": "ppp", "action": "jump", "jump-target": item[key]}
            for item in self._menus.get("ppp profile", ())
            for side, key in ((incoming, "incoming-filter"), (outgoing, "outgoing-filter"))
            if side.name == f"ppp profile {item.get('name')}" and item.get(key)
        ]
        rules = self._table_of(menu)
        return {**rules, "ppp": [*rules.get("ppp", ()), *_chains(added, menu)["ppp"]]} if added else rules


def _chains(rules: Sequence[Item], menu: str) -> _Chains:
    found: dict[str, list[tuple[Item, tuple[Test, ...]]]] = {}
    for rule in rules:
        if rule.get("disabled") != "yes":
            tests = _tests(tuple(sorted(rule.items())), 6 if menu.startswith("ipv6") else 4)
            found.setdefault(rule.get("chain", ""), []).append((rule, tests))
    return found


def _table(chains: _Chains, chain: str, look: Look, depth: int = 0) -> str:
    """permit, deny, 'return', or '' behind the last rule."""
    if depth > 32:
        raise ValueError("chains that jump in a circle")
    for rule, tests in chains.get(chain, ()):
        action = rule.get("action", "accept")
        if not all(test(look) for test in tests):
            continue
        if action in FINAL:
            return FINAL[action]
        if action == "notrack":
            return "permit"
        if action == "return":
            return "return" if depth else "permit"
        if action == "jump":
            said = _table(chains, rule.get("jump-target", ""), look, depth + 1)
            if said in ("permit", "deny"):
                return said
        if action == "fasttrack-connection" and look.packet.protocol in (6, 17) and look.packet.state == 1:
            return "permit"
    return ""


@functools.lru_cache(maxsize=8192)
def _tests(rule: tuple[tuple[str, str], ...], family: int) -> tuple[Test, ...]:
    return tuple(
        test
        for name, value in rule
        if name not in NOT_MATCHERS and value != ""
        for test in _matcher(name, value, family)
    )


def _matcher(name: str, value: str, family: int) -> Iterator[Test]:
    wanted = not value.startswith("!")
    text = value.removeprefix("!")
    side, _, what = name.partition("-")
    if name == "protocol":
        number = PROTOCOLS[text] if text in PROTOCOLS else int(text)
        yield lambda look: (look.packet.protocol == number) == wanted and (family == 4 or not look.packet.undetermined)
    elif name in ("src-address", "dst-address"):
        low, high = _range(text, family)
        yield lambda look: (low <= _end(look, side) <= high) == wanted
    elif name in ("src-address-list", "dst-address-list"):
        yield lambda look: any(
            low <= _end(look, side) <= high for low, high in look.lists.get(text, ())
        ) == wanted  # fmt: skip
    elif name in ("src-port", "dst-port", "port"):
        ranges = [_span(word) for word in text.split(",")]
        ends = ("src", "dst") if name == "port" else (side,)
        yield (
            lambda look: (
                _has_ports(look)
                and wanted == any(low <= _port(look, end) <= high for end in ends for low, high in ranges)
            )
        )
    elif what == "interface":
        yield lambda look: _is_interface(_interface(look, side), text) == wanted
    elif what == "interface-list":
        yield lambda look: (text == "all" or text in _interface(look, side).lists) == wanted
    elif name == "connection-state":
        states = {STATES[word] for word in text.split(",")}
        yield lambda look: look.tracked and (look.packet.state in states) == wanted
    elif name == "tcp-flags":
        on = sum(FLAGS[word] for word in text.split(",") if word[0] != "!")
        off = sum(FLAGS[word[1:]] for word in value.split(",") if word[0] == "!")
        yield lambda look: _readable(look) and look.packet.tcp_flags & (on | off) == on
    elif name == "icmp-options":
        kind, _, codes = text.partition(":")
        low, high = _span(codes or "0-255")
        yield (
            lambda look: _readable(look) and look.packet.icmp_type == int(kind) and low <= look.packet.icmp_code <= high
        )
    elif name == "fragment":
        yield lambda look: (look.packet.later and not look.tracked) == (value == "yes")
    elif name == "dscp":
        yield lambda look: (look.packet.tos >> 2 == int(text)) == wanted
    elif name in ("ttl", "hop-limit"):
        how, _, number = text.partition(":")
        yield lambda look: _compared(how, look.packet.ttl - look.lower, int(number))
    elif name == "packet-size":
        low, high = _span(text)
        yield lambda look: (low <= look.packet.length <= high) == wanted
    elif name == "ipv4-options" and text in ("any", "none"):
        yield lambda look: bool(look.packet.options) == (text == "any")
    elif name == "headers" and text.endswith(":contains"):
        kinds = [HEADERS[word] for word in text.removesuffix(":contains").split(",")]
        yield lambda look: all(look.packet.extension == kind for kind in kinds)
    else:
        yield lambda _: False


def _compared(how: str, ttl: int, number: int) -> bool:
    return {"equal": ttl == number, "not-equal": ttl != number, "less-than": ttl < number}.get(how, ttl > number)


def _is_interface(one: Interface, text: str) -> bool:
    kinds = {"all-ethernet": "ethernet", "all-vlan": "vlan", "all-wireless": "wireless"}
    return one.name == text or (text == "all-ppp" and one.ppp) or (text in kinds and one.kind == kinds[text])


def _interface(look: Look, side: str) -> Interface:
    return look.incoming if side == "in" else look.outgoing


def _end(look: Look, side: str) -> int:
    return look.packet.source if side == "src" else look.packet.destination


def _port(look: Look, side: str) -> int:
    return look.packet.source_port if side == "src" else look.packet.destination_port


def _readable(look: Look) -> bool:
    """The upper-layer header is known: in its packet, or in that of which this one is a fragment."""
    return look.packet.layer4 or (look.tracked and look.packet.later)


def _has_ports(look: Look) -> bool:
    return look.packet.protocol in PORTED and _readable(look)


def _span(text: str) -> tuple[int, int]:
    low, _, high = text.partition("-")
    return int(low), int(high or low)


def _range(text: str, family: int) -> tuple[int, int]:
    if "-" in text:
        low, _, high = text.partition("-")
        return int(ipaddress.ip_address(low)), int(ipaddress.ip_address(high))
    network = ipaddress.ip_network(text, strict=False)
    if network.version != {4: 4, 6: 6}[family]:
        raise ValueError(f"'{text}' is of the other family")
    return int(network.network_address), int(network.broadcast_address)


def _lists(menus: Menus, family: int) -> Mapping[str, tuple[tuple[int, int], ...]]:
    top = {4: "ip", 6: "ipv6"}[family]
    rows = tuple(
        (item["list"], item["address"])
        for item in menus.get(f"{top} firewall address-list", ())
        if item.get("disabled") != "yes"
    )
    return _ranges(rows, family)


@functools.lru_cache(maxsize=64)
def _ranges(rows: tuple[tuple[str, str], ...], family: int) -> Mapping[str, tuple[tuple[int, int], ...]]:
    found: dict[str, tuple[tuple[int, int], ...]] = {}
    for name, address in rows:
        if address[0].isdigit() or ":" in address:  # a name is in nobody's list before the DNS has answered
            found[name] = (*found.get(name, ()), _range(address, family))
    return found


# --- interfaces ----------------------------------------------------------------------------------------------------


def _in_list(menus: Menus, name: str, member: Callable[[str], bool], seen: frozenset[str] = frozenset()) -> bool:
    """Whether a member of one of these lists is in this one, by its own members, include and exclude."""
    if name in seen:
        return False
    rows = [item for item in menus.get("interface list", ()) if item.get("name") == name]
    inside = member(name) or any(
        _in_list(menus, other, member, seen | {name}) for item in rows for other in _words(item.get("include", ""))
    )
    return inside and not any(
        _in_list(menus, other, member, seen | {name}) for item in rows for other in _words(item.get("exclude", ""))
    )


def _words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def _all_lists(menus: Menus) -> Iterable[str]:
    return (item["name"] for item in menus.get("interface list", ()) if "name" in item)


def _named(menus: Menus, name: str) -> Interface:
    direct = {
        item.get("list", "")
        for item in menus.get("interface list member", ())
        if item.get("interface") == name and item.get("disabled") != "yes"
    }
    inside = frozenset(one for one in _all_lists(menus) if _in_list(menus, one, direct.__contains__))
    kind = next(
        (
            menu.removeprefix("interface ")
            for menu, items in menus.items()
            if menu.startswith("interface ") and any(name in (i.get("name"), i.get("default-name")) for i in items)
        ),
        "",
    )
    return Interface(name, inside | {"static"}, kind.endswith("-client"), kind)


def _session(menus: Menus, profile: Item) -> Interface:
    direct = {profile.get("interface-list", "")}
    inside = frozenset(one for one in _all_lists(menus) if _in_list(menus, one, direct.__contains__))
    return Interface(f"ppp profile {profile.get('name')}", inside | {"dynamic"}, True)


def _attached(menus: Menus, attachment: str) -> list[Interface]:
    """The interfaces that an attachment stands for."""
    profiles = [item for item in menus.get("ppp profile", ()) if item.get("disabled") != "yes"]
    if attachment.startswith("ppp profile "):
        found = [_session(menus, item) for item in profiles if f"ppp profile {item.get('name')}" == attachment]
    elif attachment.startswith("interface-list "):
        name = attachment.removeprefix("interface-list ")
        members = [item.get("interface", "") for item in menus.get("interface list member", ())]
        every = [_named(menus, one) for one in dict.fromkeys(members)] + [_session(menus, item) for item in profiles]
        found = [one for one in every if name in one.lists]
        if not found and name in _all_lists(menus):
            found = [Interface("", frozenset({name}))]
    else:
        there = {
            item.get("name") or item.get("default-name")
            for menu, items in menus.items()
            if menu.startswith("interface ") and menu not in ("interface list", "interface list member")
            for item in items
        } | {item.get("interface") for menu in ("ip address", "ipv6 address") for item in menus.get(menu, ())}
        found = [_named(menus, attachment)] if attachment in there else []
    if not found:
        raise KeyError(f"the router has no {attachment}")
    return found


def _uplink(menus: Menus) -> Interface:
    """Where the default route leads."""
    for route in menus.get("ip route", ()):
        if route.get("dst-address", "0.0.0.0/0") != "0.0.0.0/0" or route.get("disabled") == "yes":
            continue
        gateway = route.get("gateway", "")
        for item in menus.get("ip address", ()):
            if not gateway[:1].isdigit():
                return _named(menus, gateway)
            if ipaddress.ip_address(gateway) in ipaddress.ip_interface(item["address"]).network:
                return _named(menus, item["interface"])
    return Interface("", frozenset())
