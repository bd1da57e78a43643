# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The configuration of a VyOS router: what may stand where, the text in braces, set and delete.

What may stand where: github.com/vyos/vyos-1x, interface-definitions/. Words of refusals: vyatta-cfg, src/cstore/
cstore.cpp, and [memory] for those about values.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

Check = Callable[[str], bool]


class RefusedError(Exception):
    """The CLI does not take a line. The message is what it prints."""


@dataclass(frozen=True)
class Kind:
    """What a word is: a node, a tag node (each of its children has a name of its own), or a leaf."""

    children: Mapping[str, Kind] = field(default_factory=dict)
    tag: bool = False
    leaf: str = ""  # "one" value, "many" values, "none"
    check: Check = bool
    opaque: bool = False  # a part of the system that the lab only keeps


def node(**children: Kind) -> Kind:
    return Kind({name.replace("_", "-"): kind for name, kind in children.items()})


def tag(check: Check = bool, **children: Kind) -> Kind:
    return Kind(node(**children).children, tag=True, check=check)


def one(check: Check = bool) -> Kind:
    return Kind(leaf="one", check=check)


def many(check: Check = bool) -> Kind:
    return Kind(leaf="many", check=check)


NONE = Kind(leaf="none")
OPAQUE = Kind(opaque=True)


def words(pattern: str) -> Check:
    fits = re.compile(pattern).fullmatch
    return lambda text: fits(text) is not None


def number(low: int, high: int) -> Check:
    return lambda text: text.isascii() and text.isdecimal() and low <= int(text) <= high


def numbers(low: int, high: int) -> Check:
    """A number or a range."""

    def check(text: str) -> bool:
        ends = text.split("-")
        fits = all(number(low, high)(end) for end in ends)
        return fits and (len(ends) == 1 or (len(ends) == 2 and int(ends[0]) < int(ends[1])))

    return check


def ports(text: str) -> bool:
    names = {"smtp", "http", "https", "domain", "ssh", "submission", "smtps", "imaps", "pop3s", "netbios-ssn", "ntp"}
    parts = [part.removeprefix("!") for part in text.split(",")]
    return all(part in names or numbers(1, 65535)(part) for part in parts)


def address(family: int) -> Check:
    """An address, a prefix or a range, with `!` or without."""

    def check(text: str) -> bool:
        text = text.removeprefix("!")
        try:
            if "-" in text:
                low, high = (ipaddress.ip_address(part) for part in text.split("-"))
                return low.version == high.version == family and int(low) < int(high)
            found = ipaddress.ip_interface(text)
        except ValueError:
            return False
        # VyOS takes a prefix without host bits only [memory].
        return found.version == family and ("/" not in text or found.ip == found.network.network_address)

    return check


def interface_address(text: str) -> bool:
    try:
        ipaddress.ip_interface(text)
    except ValueError:
        return text in ("dhcp", "dhcpv6")
    return "/" in text


NAME = words(r"[a-zA-Z0-9][\w.\-]*")
IFACE = words(r"!?[a-zA-Z][\w.\-]*\*?")
REFERENCE = words(r"!?[a-zA-Z0-9][\w.\-]*")
PROTOCOL_NAMES = frozenset(
    "all tcp udp tcp_udp icmp icmpv6 ipv6-icmp gre esp ah ospf vrrp sctp udplite igmp pim".split()
)


def protocol(text: str) -> bool:
    return text.removeprefix("!") in PROTOCOL_NAMES or number(0, 255)(text.removeprefix("!"))


FLAGS = dict.fromkeys("syn ack rst fin psh urg ecn cwr".split(), NONE)


def _end(family: int) -> Kind:
    return node(
        address=one(address(family)),
        address_mask=one(),
        port=one(ports),
        fqdn=one(),
        mac_address=one(),
        geoip=node(country_code=many(), inverse_match=NONE),
        group=node(
            address_group=one(REFERENCE),
            network_group=one(REFERENCE),
            port_group=one(REFERENCE),
            domain_group=one(REFERENCE),
            mac_group=one(REFERENCE),
        ),
    )


_COMPARED = node(eq=one(number(0, 255)), gt=one(number(0, 255)), lt=one(number(0, 255)))
_ICMP = node(type=one(number(0, 255)), code=one(number(0, 255)), type_name=one(NAME))
_THROUGH = node(name=one(IFACE), group=one(REFERENCE))


def _rule(family: int, actions: str) -> Kind:
    made = node(
        action=one(words(actions)),
        jump_target=one(NAME),
        offload_target=one(NAME),
        description=one(),
        disable=NONE,
        log=NONE,
        log_options=node(level=one(), group=one(), snapshot_length=one(), queue_threshold=one()),
        protocol=one(protocol),
        source=_end(family),
        destination=_end(family),
        state=many(words("new|established|related|invalid")),
        tcp=Kind({"flags": Kind({**FLAGS, "not": Kind(FLAGS)}), "mss": one()}),
        fragment=node(match_frag=NONE, match_non_frag=NONE),
        inbound_interface=_THROUGH,
        outbound_interface=_THROUGH,
        dscp=many(numbers(0, 63)),
        dscp_exclude=many(numbers(0, 63)),
        packet_length=many(numbers(1, 65535)),
        packet_length_exclude=many(numbers(1, 65535)),
        packet_type=one(words("broadcast|host|multicast|other")),
        connection_mark=many(number(0, 2147483647)),
        ipsec=node(match_ipsec_in=NONE, match_none_in=NONE, match_ipsec_out=NONE, match_none_out=NONE),
        limit=node(rate=one(words(r"\d+/(second|minute|hour|day)")), burst=one(number(0, 4294967295))),
        recent=node(count=one(number(1, 255)), time=one(words("second|minute|hour"))),
        time=node(startdate=one(), starttime=one(), stopdate=one(), stoptime=one(), weekdays=one()),
    ).children
    own = {4: {"ttl": _COMPARED, "icmp": _ICMP}, 6: {"hop-limit": _COMPARED, "icmpv6": _ICMP}}[family]
    return Kind({**made, **own}, tag=True, check=number(1, 999999))


_JUMPING = "accept|continue|drop|jump|queue|reject|return"


def _chains(family: int) -> Kind:
    base = {
        "default-action": one(words("accept|drop")), "default-log": NONE, "description": one(),
        "disable-conntrack": NONE, "rule": _rule(family, _JUMPING + "|offload|synproxy"),
    }  # fmt: skip
    raw = {**base, "rule": _rule(family, "accept|continue|drop|jump|notrack|return")}
    custom = {
        "default-action": one(words("accept|continue|drop|jump|reject|return")), "default-jump-target": one(NAME),
        "default-log": NONE, "description": one(), "rule": _rule(family, _JUMPING + "|offload"),
    }  # fmt: skip
    return Kind(
        {
            "name": Kind(custom, tag=True, check=NAME),
            "forward": Kind({"filter": Kind(base)}),
            "input": Kind({"filter": Kind(base)}),
            "output": Kind({"filter": Kind(base), "raw": Kind(raw)}),
            "prerouting": Kind({"raw": Kind(raw)}),
        }
    )


def _group(**elements: Kind) -> Kind:
    return tag(NAME, description=one(), include=many(NAME), **elements)


_SWITCH = one(words("enable|disable"))
_STATE = node(action=one(words("accept|drop|reject")), log=NONE, log_level=one())
_VALIDATION = one(words("strict|loose|disable"))
_RULE_SETS = node(name=one(NAME), ipv6_name=one(NAME))
_IP = node(source_validation=_VALIDATION, adjust_mss=one(), disable_forwarding=NONE)


def _interface(**more: Kind) -> Kind:
    return tag(
        bool, address=many(interface_address), description=one(), disable=NONE, ip=_IP, ipv6=_IP, mtu=one(),
        vrf=one(NAME), hw_id=one(), mac=one(), duplex=one(), speed=one(), offload=OPAQUE, **more,
    )  # fmt: skip


_VLAN = _interface()
ROOT = node(
    firewall=node(
        global_options=node(
            all_ping=_SWITCH, broadcast_ping=_SWITCH, ip_src_route=_SWITCH, ipv6_src_route=_SWITCH,
            log_martians=_SWITCH, receive_redirects=_SWITCH, ipv6_receive_redirects=_SWITCH, send_redirects=_SWITCH,
            syn_cookies=_SWITCH, twa_hazards_protection=_SWITCH, source_validation=_VALIDATION,
            ipv6_source_validation=_VALIDATION, state_policy=node(established=_STATE, related=_STATE, invalid=_STATE),
        ),
        group=node(
            address_group=_group(address=many(address(4))), network_group=_group(network=many(address(4))),
            ipv6_address_group=_group(address=many(address(6))), ipv6_network_group=_group(network=many(address(6))),
            port_group=_group(port=many(ports)), interface_group=_group(interface=many(IFACE)),
        ),
        flowtable=tag(NAME, interface=many(IFACE), offload=one(words("hardware|software")), description=one()),
        ipv4=_chains(4),
        ipv6=_chains(6),
        zone=tag(
            NAME, description=one(), default_action=one(words("drop|reject")), default_log=NONE, interface=many(IFACE),
            local_zone=NONE, intra_zone_filtering=node(action=one(words("accept|drop")), firewall=_RULE_SETS),
            **{"from": tag(NAME, firewall=_RULE_SETS)},
        ),
    ),
    interfaces=node(
        ethernet=_interface(
            vif=_VLAN, vif_s=Kind({**_VLAN.children, "vif-c": _VLAN}, tag=True, check=number(0, 4094)),
        ),
        bonding=_interface(vif=_VLAN, member=OPAQUE, mode=one(), hash_policy=one()),
        loopback=_interface(), dummy=_interface(),
    ),
    system=node(
        host_name=one(NAME), domain_name=one(), name_server=many(), time_zone=one(), console=OPAQUE, login=OPAQUE,
        ntp=OPAQUE, syslog=OPAQUE, conntrack=OPAQUE, option=OPAQUE,
        config_management=node(commit_revisions=one(), commit_confirm=one(words("reload|reboot"))),
    ),
    protocols=OPAQUE, service=OPAQUE, nat=OPAQUE, policy=OPAQUE, vrf=OPAQUE, high_availability=OPAQUE, qos=OPAQUE,
)  # fmt: skip


@dataclass
class Tree:
    """A node of a configuration. `values`: of a leaf, None where it is none."""

    children: dict[str, Tree] = field(default_factory=dict)
    tag: bool = False
    values: list[str] | None = None

    def at(self, *path: str) -> Tree:
        """What is below the path; nothing where it does not exist."""
        here = self
        for word in path:
            if word not in here.children:
                return Tree()
            here = here.children[word]
        return here

    def value(self, *path: str) -> str:
        found = self.at(*path).values
        return found[0] if found else ""

    def all(self, *path: str) -> list[str]:
        return list(self.at(*path).values or ())

    def has(self, *path: str) -> bool:
        here = self
        for word in path:
            if word not in here.children:
                return False
            here = here.children[word]
        return True

    def copy(self) -> Tree:
        values = None if self.values is None else list(self.values)
        return Tree({name: child.copy() for name, child in self.children.items()}, self.tag, values)


@functools.cache
def _order(text: str) -> tuple[tuple[int, int, str], ...]:
    parts = [part for part in re.split(r"(\d+)", text) if part]
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts)


def lines(tree: Tree, indent: str = "") -> Iterator[str]:
    """As `show configuration` prints it."""
    for name, child in sorted(tree.children.items(), key=lambda one: _order(one[0])):
        if child.values is not None:
            yield from (
                (f"{indent}{name} {quote(value)}" for value in child.values) if child.values else (indent + name,)
            )
            continue
        named = sorted(child.children.items(), key=lambda one: _order(one[0])) if child.tag else [("", child)]
        for instance, below in named:
            yield f"{indent}{name} {quote(instance)} {{" if child.tag else f"{indent}{name} {{"
            yield from lines(below, indent + "    ")
            yield f"{indent}}}"


@functools.cache
def quote(text: str) -> str:
    return f'"{text}"' if not re.fullmatch(r"[^\s\"'{}]+", text) else text


def commands(tree: Tree, path: tuple[str, ...] = ()) -> Iterator[str]:
    """As `show configuration commands` prints it."""
    for name, child in sorted(tree.children.items(), key=lambda one: _order(one[0])):
        here = " ".join(("set", *path, name))
        if child.values is not None:
            yield from (f"{here} '{value}'" for value in child.values) if child.values else (here,)
        elif child.children:
            yield from commands(child, (*path, name))
        else:
            yield here


_WORD = re.compile(r"'([^']*)'|\"((?:[^\"\\]|\\.)*)\"|([^\s'\"]+)")


def split(line: str) -> list[str]:
    return [found[1] or found[2] or found[3] or "" for found in _WORD.finditer(line)]


def parse(text: str) -> Tree:
    """A configuration in braces. The shape is that of the text, checked against what may stand where."""
    root = Tree()
    stack: list[tuple[Tree, Kind]] = [(root, ROOT)]
    for number_, line in enumerate(text.splitlines(), 1):
        body = line.strip()
        if not body or body.startswith(("/*", "//")):
            continue
        if body == "}":
            stack.pop()
            continue
        opens = body.endswith("{")
        found = split(body[:-1] if opens else body)
        here, kind = stack[-1]
        below = OPAQUE if kind.opaque else kind.children.get(found[0])
        if below is None or len(found) > 2:
            raise ValueError(f"line {number_}: '{body}' may not stand there")
        child = here.children.setdefault(found[0], Tree())
        if opens:
            if len(found) == 2:
                child.tag = True
                child = child.children.setdefault(found[1], Tree())
            if not below.opaque and below.tag != (len(found) == 2):
                raise ValueError(f"line {number_}: '{body}' may not stand there")
            stack.append((child, Kind(below.children, opaque=below.opaque)))
            continue
        if not below.opaque and (not below.leaf or (below.leaf == "none") != (len(found) == 1)):
            raise ValueError(f"line {number_}: '{body}' may not stand there")
        if len(found) == 2 and not below.opaque and not below.check(found[1]):
            raise ValueError(f"line {number_}: '{body}' has a bad value")
        child.values = [*(child.values or ()), *found[1:]]
    if len(stack) != 1:
        raise ValueError("a block is open at the end")
    return root


def find(path: Sequence[str]) -> tuple[list[str], Kind, str | None]:
    """The words of a path to a node or leaf, what that is, and the value. Raises RefusedError."""
    kind, position = ROOT, 0
    found: list[str] = []
    while position < len(path):
        word = path[position]
        if kind.opaque:
            raise RefusedError(f"\n  The lab keeps [{' '.join(path[:position])}] as it is\n  Set failed\n\n")
        if kind.leaf:
            return found, kind, word if position == len(path) - 1 else None
        if word not in kind.children:
            raise RefusedError(
                f"\n  Configuration path: [{' '.join(path[: position + 1])}] is not valid\n  Set failed\n\n"
            )
        kind = kind.children[word]
        found.append(word)
        position += 1
        if kind.tag and position < len(path):
            name = path[position]
            if not kind.check(name):
                raise RefusedError(
                    f"\n  '{name}' is not a valid name\n\n  Invalid value\n  Value validation failed\n  Set failed\n\n"
                )
            found.append(name)
            kind = Kind(kind.children)
            position += 1
    return found, kind, None


def set_(root: Tree, path: Sequence[str]) -> bool:
    """Whether it changed anything. Raises RefusedError for what may not stand there."""
    found, kind, value = find(path)
    if kind.tag or (kind.leaf in ("one", "many") and value is None):
        text = " ".join(found)
        raise RefusedError(f"\n  Configuration path: [{text}] requires a value\n  Set failed\n\n")
    if value is not None and (kind.leaf == "none" or not kind.check(value)):
        raise RefusedError(
            f"\n  Error: {value} is not a valid value\n\n  Invalid value\n  Value validation failed\n  Set failed\n\n"
        )
    here, kinds, changed = root, ROOT, False
    for word in found:
        changed = changed or word not in here.children
        child = here.children.setdefault(word, Tree())
        if not here.tag:
            kinds = kinds.children[word]
            child.tag = kinds.tag
        here = child
    if kind.leaf:
        before, values = here.values, here.values or []
        here.values = [] if value is None else [value] if kind.leaf == "one" else [*values, value]
        if value is not None and value in values:
            here.values = values
        changed = changed or here.values != before
    return changed


def delete(root: Tree, path: Sequence[str]) -> bool:
    """Whether there was anything. Raises RefusedError for what may not stand there."""
    found, kind, value = find(path)
    trail = [root]
    for word in found:
        if word not in trail[-1].children:
            return False
        trail.append(trail[-1].children[word])
    last = trail[-1]
    if kind.leaf and value is not None:
        if value not in (last.values or ()):
            return False
        assert last.values is not None
        last.values.remove(value)
        if last.values:
            return True
    for holder, word in zip(reversed(trail[:-1]), reversed(found), strict=True):
        del holder.children[word]
        if holder.children or holder is root or not holder.tag:
            break
    return True
