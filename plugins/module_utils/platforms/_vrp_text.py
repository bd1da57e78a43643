# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The shape of a VRP configuration: its text cut into blocks, and what the blocks that matter to filters are called."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ..filters import Doubt
from ..packets import ADDRESS_WIDTH, address_text, address_value
from ._cisco_text import FOREIGN_MARKS

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_TOP = 4000  # characters in which the marks of other vendors are looked for

Line = tuple[int, list[str], str]  # number, words, the text without its indentation


@dataclass(slots=True)
class Block:
    """A line with those below it that are indented deeper; a `#` is no line."""

    line: int
    words: list[str]
    text: str
    lines: list[Line] = field(default_factory=list)


@dataclass(slots=True)
class Acl:
    """An access list. `kind`: basic, advance, ucl, or "" where only Layer 2, MPLS or interfaces are compared."""

    name: str
    family: int
    kind: str
    line: int
    text: str
    auto: bool = False
    number: str = ""
    lines: list[Line] = field(default_factory=list)


@dataclass(slots=True)
class Cut:
    """The text as blocks, in one pass over its lines."""

    acls: dict[tuple[int, str], Acl] = field(default_factory=dict)
    numbers: dict[tuple[int, str], str] = field(default_factory=dict)  # (family, number) to the name of a named list
    address_pools: dict[tuple[int, str], Block] = field(default_factory=dict)
    port_pools: dict[str, Block] = field(default_factory=dict)
    classifiers: dict[str, Block] = field(default_factory=dict)
    behaviors: dict[str, Block] = field(default_factory=dict)
    policies: dict[str, Block] = field(default_factory=dict)
    interfaces: dict[str, Block] = field(default_factory=dict)
    user_groups: dict[str, int] = field(default_factory=dict)
    applied: list[Line] = field(default_factory=list)  # `traffic-policy P inbound` of the system view
    domains: dict[str, Block] = field(default_factory=dict)
    schemes: dict[str, Block] = field(default_factory=dict)
    pools: dict[tuple[int, str], Block] = field(default_factory=dict)  # of addresses that subscribers get
    prefixes: dict[str, Block] = field(default_factory=dict)  # `ipv6 prefix NAME`
    routes: list[tuple[int, list[str]]] = field(default_factory=list)
    slots: list[Block] = field(default_factory=list)
    vlans: dict[str, Block] = field(default_factory=dict)
    doubts: list[Doubt] = field(default_factory=list)
    hostname: str = ""


_GROUP = "group "  # in front of the name of a group of pools
_KINDS = {"basic": "basic", "advance": "advance", "advanced": "advance", "ucl": "ucl", "user": "ucl"}
_OTHER_KINDS = frozenset({"link", "interface", "mpls", "arp"})


# What is a rule or a pair of a policy but for what stands before it; and what has permit and deny in the system view.
_LIKE_A_RULE = re.compile(r"\b(?:permit|deny)(?: (?:ip|ipv6|tcp|udp|icmp|icmpv6|source|\d+)\b|[ \t]*$)|\bbehavior \S")
_WITH_ACTIONS = frozenset({"ip", "ipv6", "route-policy", "traffic", "undo"})


# The title of a list in the output of `display acl all`; below it a description, and `Acl's step is 5`.
_SHOWN = re.compile(
    r"(Basic|Advanced|User|UCL|Ethernet frame|L2|MPLS|Interface based|ARP) (?:IPv4 |(IPv6 ))?(?:Name )?ACL6? +"
    r"(\S+)(?: (\d+))?, "
)
_SHOWN_KINDS = {"Basic": "basic", "Advanced": "advance", "User": "ucl", "UCL": "ucl"}
# What belongs to the view above where a text is typed without indentation, and what leaves that view.
_TYPED = frozenset(
    {"if-match", "classifier", "deny", "permit", "traffic-filter", "traffic-policy", "packet-filter", "traffic-secure",
     "car", "redirect", "share-mode"}
)  # fmt: skip
_LEAVES = frozenset({"quit", "q", "return", "aaa", "user-interface"})
# Commands of one line that VRP5 prints behind a `#`, and a space.
_INDENTED = frozenset({"sysname", "traffic-filter", "packet-filter", "traffic-policy", "firewall", "ip", "ipv6"})


def cut_text(text: str) -> Cut:
    """Linear in the text; raises nothing."""
    cut = Cut()
    body: list[Line] | None = None
    in_aaa = in_acl = astray = shown = False
    fresh = True  # no block since the last `#`
    typed: list[Line] | None = None  # what the last block holds, while nothing in it was indented
    banner = ""  # what ends a header whose text must not be read as configuration
    for number, raw in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        if banner:
            banner = "" if banner in raw else banner
            continue
        if not raw or raw[0] in "#!":
            if raw.rstrip() == "#":
                body, typed, in_aaa, in_acl, shown, fresh = None, None, False, False, False, True
            continue
        words = raw.split()
        if not words or words[0] == "#":
            continue
        if shown and body is not None and raw[0] not in " \t<[" and not _SHOWN.match(raw):
            if words[1:3] == ["step", "is"]:
                body.append((number, ["step", words[-1]], raw))
            elif body and body[-1][1][0] == "rule":  # it goes on here, for the terminal was not wide enough
                body[-1] = (body[-1][0], ["wrapped"], body[-1][2])
            continue
        if raw[0] in " \t" or (in_acl and words[0] in ("rule", "step", "description")):
            if in_aaa:
                body = _of_aaa(cut, number, raw, words, body)
            elif body is not None:
                typed = None
                body.append((number, words, raw.strip()))
            elif fresh and words[0] in _INDENTED:
                _top(cut, number, raw, words)
            elif not astray and _of_a_filter(words):
                astray = True  # once for each view
                cut.doubts.append(Doubt(number, raw.strip(), "a line of a filter stands below a line that is none"))
            continue
        if typed is not None and (words[0] in _TYPED or words[:2] in (["ip", "address"], ["ipv6", "address"])):
            typed.append((number, words, raw.strip()))
            continue
        astray = fresh = False
        title = _SHOWN.match(raw)
        shown = bool(title)
        if title:
            ipv6, kind = ["ipv6"] * bool(title[2]), _SHOWN_KINDS.get(title[1], "link")
            name = [title[3]] if title[3].isdecimal() else ["name", title[3], *([title[4]] if title[4] else [])]
            auto = ["match-order", "auto"] if raw.rstrip().endswith("match-order is auto") else []
            words = ["acl", *ipv6, *name, kind, *auto]
        if words[0] not in _WITH_ACTIONS and _LIKE_A_RULE.search(raw):
            cut.doubts.append(Doubt(number, raw.strip(), "a line of a filter with something before it"))
        in_aaa, in_acl = words == ["aaa"], words[0] == "acl"
        body = None if in_aaa else _top(cut, number, raw, words)
        if body is not None or words[0] in _LEAVES:
            typed = body
        if words[0] == "header" and "information" in words[:-1]:
            banner = _banner_end(raw)
    return cut


def _of_a_filter(words: list[str]) -> bool:
    """Does the line belong to a list or a policy, wherever it stands?"""
    said = words[2:3] if words[1:2] and words[1].isdecimal() else words[1:2]
    return (words[0] == "rule" and said in (["permit"], ["deny"])) or (
        words[0] == "classifier" and words[2:3] == ["behavior"]
    )


def _banner_end(raw: str) -> str:
    """What ends the text of `header login information "...`, "" when it ends on this line."""
    rest = raw.split("information", 1)[1].strip()
    return "" if rest[0] in rest[1:] else rest[0]


def _of_aaa(cut: Cut, number: int, raw: str, words: list[str], body: list[Line] | None) -> list[Line] | None:
    """Domains and schemes stand one space deep, their lines two."""
    depth = len(raw) - len(raw.lstrip())
    if depth > 1:
        if body is not None:
            body.append((number, words, raw.strip()))
        return body
    if len(words) > 1 and words[0] in ("domain", "authentication-scheme", "authorization-scheme"):
        table = cut.domains if words[0] == "domain" else cut.schemes
        key = words[1] if words[0] != "authorization-scheme" else f"authorization {words[1]}"
        return table.setdefault(key, Block(number, words, raw.strip())).lines
    return None


def _top(cut: Cut, number: int, raw: str, words: list[str]) -> list[Line] | None:
    """Take the line of the system view; where the lines below it go, None where they do not matter."""
    first, second = words[0], words[1] if len(words) > 1 else ""
    third = words[2] if len(words) > 2 else ""
    text = raw.strip()
    if first == "acl":
        return _acl(cut, number, text, words)
    if first == "traffic" and third:
        tables = {"classifier": cut.classifiers, "behavior": cut.behaviors, "policy": cut.policies}
        if second in tables:
            return tables[second].setdefault(third, Block(number, words, text)).lines
    elif first == "interface" and second:
        # Typed as `interface 100GE 1/0/1`, printed without the space.
        name = "".join(words[1:3]) if third[:1].isdecimal() and not second[-1].isdecimal() else second
        return cut.interfaces.setdefault(name, Block(number, words, text)).lines
    elif first == "traffic-policy":
        cut.applied.append((number, words, text))
    elif first == "user-group" and second:
        cut.user_groups.setdefault(second, number)
    elif first == "sysname" and second:
        cut.hostname = second
    elif first == "slot":
        cut.slots.append(Block(number, words, text))
        return cut.slots[-1].lines
    elif first in ("ip", "ipv6") and second in ("pool", "pool-group") and third:
        name = third if second == "pool" else f"{_GROUP}{third}"
        return cut.pools.setdefault((4 if first == "ip" else 6, name), Block(number, words, text)).lines
    elif (first, second) == ("ipv6", "prefix") and third:
        return cut.prefixes.setdefault(third, Block(number, words, text)).lines
    elif second == "route-static" and first in ("ip", "ipv6"):
        cut.routes.append((6 if first == "ipv6" else 4, words[2:]))
    elif first == "vlan" and second.isdecimal():
        return cut.vlans.setdefault(second, Block(number, words, text)).lines
    elif first in ("traffic-filter", "packet-filter") and {"inbound", "outbound"} & set(words):
        cut.applied.append((number, [*words, "global"], text))
    elif first == "security-policy" or (first == "firewall" and second in ("packet-filter", "interzone", "zone")):
        cut.doubts.append(Doubt(number, text, "a firewall's own policy filters too, and is not read"))
    elif first == "undo":
        _forget(cut, words[1:])
    elif first == "port-group" or (first == "interface-group" and second):
        cut.doubts.append(Doubt(number, text, "a group of interfaces is not read, and may bind filters"))
    return None


def _forget(cut: Cut, words: list[str]) -> None:
    """`undo ...` in the system view: what stands above is gone."""
    if words[:1] == ["acl"]:
        family = 6 if words[1:2] == ["ipv6"] else 4
        cut.acls.pop((family, words[-1]), None)
    elif words[:1] == ["traffic"] and len(words) == 3:
        tables = {"classifier": cut.classifiers, "behavior": cut.behaviors, "policy": cut.policies}
        tables.get(words[1], {}).pop(words[2], None)
    elif words[:1] == ["traffic-policy"]:
        cut.applied = [one for one in cut.applied if one[1][1:] != words[1:]]
    elif words[:1] == ["interface"]:
        cut.interfaces.pop("".join(words[1:]), None)


def _acl(cut: Cut, number: int, text: str, words: list[str]) -> list[Line] | None:
    """The list that the line opens; pools of addresses and ports as well."""
    rest, family = words[1:], 4
    if rest[:1] == ["ipv6"]:
        rest, family = rest[1:], 6
    if rest[:1] == ["port-pool"] and len(rest) > 1:
        return cut.port_pools.setdefault(rest[1], Block(number, words, text)).lines
    if rest[:1] and rest[0] in ("ip-pool", "ipv6-pool") and len(rest) > 1:
        family = 6 if rest[0] == "ipv6-pool" else family
        return cut.address_pools.setdefault((family, rest[1]), Block(number, words, text)).lines
    auto = rest[-2:] == ["match-order", "auto"]
    if "match-order" in rest:
        rest = rest[: rest.index("match-order")]
    name = number_of = ""
    kind: str | None = None
    while rest:
        word = rest.pop(0)
        if word == "name" and rest:
            name = rest.pop(0)
        elif word in _KINDS:
            kind = _KINDS[word]
        elif word in _OTHER_KINDS:
            kind = ""
        elif word.isdecimal() and len(word) < 6:
            number_of = str(int(word))
        elif word != "number":
            kind = ""
    if not name and not number_of:
        return None
    if kind is None:
        kind = _kind(int(number_of)) if number_of else "advance"
    key = family, name or number_of
    if name and number_of:
        cut.numbers[family, number_of] = name
    found = cut.acls.setdefault(key, Acl(name or number_of, family, kind, number, text, auto, number_of))
    found.auto = found.auto or auto
    return found.lines


def _kind(number: int) -> str:
    """2000-2999 basic, 3000-3999 and 42768-75535 advanced, 6000-9999 user; the rest is not about IP headers."""
    if 2000 <= number < 3000:
        return "basic"
    if 3000 <= number < 4000 or number >= 42768:
        return "advance"
    return "ucl" if 6000 <= number < 10000 else ""


def incomplete(text: str) -> str:
    """Why the text is not a whole running configuration of VRP, "" when it is."""
    if not text.strip():
        return "the device answered nothing"
    if "\x1b" in text:
        return f"line {_line_of(text, chr(27))} holds a terminal escape: the session is not a plain one"
    for mark in ("---- More ----", "--More--", "\x08"):
        if mark in text:
            return f"line {_line_of(text, mark)} holds a pager's prompt: the device stops after each page"
    top = text[:_TOP].lstrip()
    if re.match(r"(Error:|\^)", top):
        said = next((line.strip() for line in top.splitlines() if "Error:" in line), top.splitlines()[0])
        return f"the device answered '{said}' in place of a configuration"
    for title, pattern in FOREIGN_MARKS.items():
        if title != "Huawei VRP" and re.search(pattern, top, re.MULTILINE):
            return f"the text is a configuration of {title}, not of Huawei VRP: check ansible_network_os"
    last = text.rstrip()[-200:].splitlines()[-1]
    if last.strip() != "return":
        return f"the text ends with '{last.strip()[:60]}' and not with 'return': it is cut off"
    return ""


def _line_of(text: str, mark: str) -> int:
    return text.count("\n", 0, text.index(mark)) + 1


# -- addresses that subscribers get ------------------------------------------------------------------------------


def pool_prefixes(cut: Cut, family: int, name: str) -> tuple[str, ...]:
    """What an `ip pool` or `ipv6 pool` gives out, as prefixes."""
    block = cut.pools.get((family, name))
    if block is None:
        return ()
    found: list[str] = []
    for _, words, _ in block.lines:
        if family == 4 and words[0] in ("gateway", "network") and len(words) > 2:
            length = words[3] if words[2] == "mask" and len(words) > 3 else words[2]
            found += _network(words[1], length, 4)
        elif family == 4 and words[0] == "section" and len(words) > 2 and not found:
            found += _span(words[2], words[3] if len(words) > 3 else words[2])
        elif family == 6 and words[0] == "prefix" and len(words) > 1:
            found += _prefix_block(cut, words[1:])
        elif name.startswith(_GROUP) and words[0] in ("ip-pool", "ipv6-pool") and len(words) > 1:
            found += pool_prefixes(cut, family, words[1])
    return tuple(dict.fromkeys(found))


def domain_prefixes(cut: Cut, domain: Block) -> tuple[str, ...]:
    """What the subscribers of a domain get."""
    found: list[str] = []
    for _, words, _ in domain.lines:
        if len(words) > 1 and words[0] in ("ip-pool", "ipv6-pool", "ip-pool-group", "ipv6-pool-group"):
            group = _GROUP if words[0].endswith("-group") else ""
            found += pool_prefixes(cut, 4 if words[0].startswith("ip-") else 6, group + words[1])
    return tuple(dict.fromkeys(found))


def by_radius(cut: Cut, domain: Block) -> tuple[str, int]:
    """The line of the domain by which a RADIUS server authorizes its sessions, ("", 0) without one."""
    groups = ((text, number) for number, words, text in domain.lines if words[:2] == ["radius-server", "group"])
    radius = next(groups, None)
    for number, words, text in domain.lines:
        if words[0] == "authentication-scheme" and len(words) > 1:
            scheme = cut.schemes.get(words[1])
            modes = [inner for _, inner, _ in scheme.lines if inner[0] == "authentication-mode"] if scheme else []
            # A scheme that says nothing asks RADIUS, as the examples have it that name a server group beside it.
            if any("radius" in mode for mode in modes) or (not modes and radius):
                return text, number
            return "", 0
    return radius or ("", 0)


def _prefix_block(cut: Cut, words: list[str]) -> list[str]:
    """`prefix NAME` of a pool leads to `ipv6 prefix NAME` with `prefix 2001:db8::/40`."""
    block = cut.prefixes.get(words[0])
    if block is None:
        return _network(*words[0].partition("/")[::2], 6) if "/" in words[0] else []
    found: list[str] = []
    for _, inner, _ in block.lines:
        if inner[0] in ("prefix", "slaac-unshare-only") and len(inner) > 1:
            pair = inner[1].partition("/")[::2] if "/" in inner[1] else tuple(inner[1:3])
            found += _network(*pair, 6) if len(pair) == 2 else []
    return found


def _span(low: str, high: str) -> list[str]:
    try:
        ends = ipaddress.IPv4Address(low), ipaddress.IPv4Address(high)
        return [str(network) for network in ipaddress.summarize_address_range(*ends)]
    except ValueError:
        return []


def _network(address: str, length: str, family: int) -> list[str]:
    found = interface_prefix(address, length, family)
    return [str(ipaddress.ip_interface(found).network)] if found else []


def interface_prefix(address: str, length: str, family: int) -> str:
    """`192.0.2.1 255.255.255.0`, `192.0.2.1 24`, `2001:db8::1 64` as address/length; "" for none."""
    try:
        value = address_value(address, family)
        if "." in length:
            mask = address_value(length, 4)
            size = mask.bit_count()
            if mask != ((1 << size) - 1) << (32 - size):
                return ""
        else:
            size = int(length) if length.isdecimal() and length.isascii() else 0
    except ValueError:
        return ""
    return f"{address_text(value, family)}/{size}" if 0 < size <= ADDRESS_WIDTH[family] else ""


def routed(cut: Cut, connected: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Prefixes that static routes lead to an interface, by its name or by a next hop on its network."""
    networks: list[tuple[_Network, str]] = [
        (ipaddress.ip_interface(text).network, name) for name, texts in connected.items() for text in texts
    ]
    networks.sort(key=lambda pair: -pair[0].prefixlen)
    found: dict[str, list[str]] = {}
    for family, words in cut.routes:
        if words[:1] == ["vpn-instance"] or len(words) < 3:
            continue  # whose networks the next hop is on is not known here
        prefix = interface_prefix(words[0], words[1], family)
        if not prefix:
            continue
        target = _target(words[2:], connected, networks)
        if target:
            found.setdefault(target, []).append(prefix)
    return found


def _target(words: Sequence[str], names: Iterable[str], networks: Sequence[tuple[_Network, str]]) -> str:
    for name in (words[0], "".join(words[:2])):
        if name in names and not name.upper().startswith("NULL"):
            return name
    try:
        hop = ipaddress.ip_address(words[0])
    except ValueError:
        return ""
    return next((name for network, name in networks if hop.version == network.version and hop in network), "")
