# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the platforms with an industry-standard CLI share: the shape of the text, access lists, groups, interfaces.

A platform describes how it differs in a `Dialect`. Reading goes in two steps: the text is cut into blocks in one
pass, then groups and lists are read, so that a list may use a group that stands below it. A line of a list that
is not understood becomes an entry that is unknown or in doubt, never nothing.
"""

from __future__ import annotations

import difflib
import functools
import ipaddress
import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..filters import (
    DENY,
    PERMIT,
    UNKNOWN,
    Binding,
    Configuration,
    Doubt,
    Entry,
    Filter,
    Interface,
    NotThisPlatform,
)  # fmt: skip
from ..packets import (
    ADDRESS_WIDTH,
    EXTENSIONS,
    INITIAL,
    LATER_FRAGMENT,
    PROTOCOLS,
    TCP_FLAGS,
    WITH_PORTS,
    Alternatives,
    Match,
    address_text,
    address_value,
    complement,
    exactly,
    flags_any,
    intersection,
    prefix,
    span,
    union,
)  # fmt: skip

TCP, UDP, ICMP, ICMP6 = PROTOCOLS["tcp"], PROTOCOLS["udp"], PROTOCOLS["icmp"], PROTOCOLS["icmp6"]

DSCP = {"default": 0, "ef": 46, **{f"cs{value}": value * 8 for value in range(8)}} | {
    f"af{high}{low}": high * 8 + low * 2 for high in range(1, 5) for low in range(1, 4)
}
PRECEDENCE = {
    "routine": 0, "priority": 1, "immediate": 2, "flash": 3, "flash-override": 4, "critical": 5, "internet": 6,
    "network": 7,
}  # fmt: skip
TOS = {"normal": 0, "min-monetary-cost": 1, "max-reliability": 2, "max-throughput": 4, "min-delay": 8}

# Names of the IANA service name registry (RFC 6335). Releases print more and more of them; a platform's own names,
# some of which differ from these, are laid over them.
_IANA = {
    "acap": 674, "acr-nema": 104, "afpovertcp": 548, "auth": 113, "bgmp": 264, "chargen": 19, "daytime": 13,
    "discard": 9, "domain": 53, "echo": 7, "epmap": 135, "ftps-data": 989, "ha-cluster": 694, "http": 80,
    "http-rpc-epmap": 593, "https": 443, "ipp": 631, "iso-tsap": 102, "kerberos": 88, "kerberos-adm": 749,
    "kpasswd": 464, "la-maint": 51, "ldap": 389, "ldaps": 636, "ldp": 646, "lsp-ping": 3503, "microsoft-ds": 445,
    "ms-sql-m": 1434,
    "msrpc": 135, "nameserver": 42, "netbios-dgm": 138, "netbios-ns": 137, "netbios-ss": 139, "netbios-ssn": 139,
    "netconf-ssh": 830, "nfs": 2049, "ntp": 123, "odmr": 366, "olsr": 698, "openvpn": 1194, "pim-rp-disc": 496,
    "print-srv": 170, "ptp-event": 319, "ptp-general": 320, "qmtp": 209, "qotd": 17, "radius": 1812,
    "radius-acct": 1813, "re-mail-ck": 50, "rje": 5, "rlp": 39, "rtsp": 554, "sgmp": 153, "sip": 5060,
    "sip-tls": 5061, "smux": 199, "snmp": 161, "snmptrap": 162, "snpp": 444, "sqlserv": 118, "sqlsrv": 156, "ssh": 22,
    "stun": 3478, "sunrpc": 111, "svrloc": 427, "systat": 11, "tacacs": 49, "talk": 517, "tcpmux": 1, "time": 37,
    "tunnel": 604, "ups": 401, "uucp-path": 117, "vmnet": 175, "www": 80, "xns-ch": 54, "xns-mail": 58,
    "xns-time": 52, "z39-50": 210,
}  # fmt: skip
IANA_TCP = _IANA | {
    "bgp": 179, "finger": 79, "ftp": 21, "ftp-data": 20, "ftps": 990, "gopher": 70, "hostname": 101, "ident": 113,
    "imap": 143, "imap3": 220, "imaps": 993, "irc": 194, "iscsi": 3260, "klogin": 543, "kshell": 544, "login": 513,
    "ms-sql-s": 1433, "msdp": 639, "mysql": 3306, "nntp": 119, "nntps": 563, "pop2": 109, "pop3": 110, "pop3s": 995,
    "pptp": 1723, "rsync": 873, "smtp": 25, "submission": 587, "submissions": 465, "telnet": 23, "uucp": 540,
    "whois": 43,
}  # fmt: skip
IANA_UDP = _IANA | {
    "bfd": 3784, "bfd-echo": 3785, "biff": 512, "bootpc": 68, "bootps": 67, "dhcpv6-client": 546,
    "dhcpv6-server": 547, "ipsec-nat-t": 4500, "isakmp": 500, "mobile-ip": 434, "rip": 520, "ssdp": 1900,
    "syslog": 514, "tftp": 69, "who": 513, "xdmcp": 177,
}  # fmt: skip

# Type and code of ICMP (RFC 792, 1122, 1812) under the names that Cisco prints; None: every code.
ICMP_NAMES: Mapping[str, tuple[int, int | None]] = {
    "administratively-prohibited": (3, 13), "alternate-address": (6, None), "conversion-error": (31, None),
    "dod-host-prohibited": (3, 10), "dod-net-prohibited": (3, 9), "echo": (8, None), "echo-reply": (0, None),
    "general-parameter-problem": (12, 0), "host-isolated": (3, 8), "host-precedence-unreachable": (3, 14),
    "host-redirect": (5, 1), "host-tos-redirect": (5, 3), "host-tos-unreachable": (3, 12), "host-unknown": (3, 7),
    "host-unreachable": (3, 1), "information-reply": (16, None), "information-request": (15, None),
    "mask-reply": (18, None), "mask-request": (17, None), "mobile-redirect": (32, None), "net-redirect": (5, 0),
    "net-tos-redirect": (5, 2), "net-tos-unreachable": (3, 11), "net-unreachable": (3, 0), "network-unknown": (3, 6),
    "no-room-for-option": (12, 2), "option-missing": (12, 1), "packet-too-big": (3, 4), "parameter-problem": (12, None),
    "port-unreachable": (3, 3), "precedence-unreachable": (3, 15), "protocol-unreachable": (3, 2),
    "reassembly-timeout": (11, 1), "redirect": (5, None), "router-advertisement": (9, None),
    "router-solicitation": (10, None), "source-quench": (4, None), "source-route-failed": (3, 5),
    "time-exceeded": (11, None), "timestamp-reply": (14, None), "timestamp-request": (13, None),
    "traceroute": (30, None), "ttl-exceeded": (11, 0), "unreachable": (3, None),
}  # fmt: skip
# ICMPv6 (RFC 4443, 4861, 2710, 2894, 6275).
ICMP6_NAMES: Mapping[str, tuple[int, int | None]] = {
    "beyond-scope": (1, 2), "destination-unreachable": (1, 3), "dhaad-reply": (145, None), "dhaad-request": (144, None),
    "echo-reply": (129, None), "echo-request": (128, None), "header": (4, 0), "hop-limit": (3, 0),
    "mld-query": (130, None), "mld-reduction": (132, None), "mld-report": (131, None), "mld-v2-report": (143, None),
    "mpd-advertisement": (147, None), "mpd-solicitation": (146, None), "nd-na": (136, None), "nd-ns": (135, None),
    "next-header": (4, 1), "no-admin": (1, 1), "no-route": (1, 0), "packet-too-big": (2, None),
    "parameter-option": (4, 2), "parameter-problem": (4, None), "port-unreachable": (1, 4),
    "reassembly-timeout": (3, 1), "redirect": (137, None), "renum-command": (138, 0), "renum-result": (138, 1),
    "renum-seq-number": (138, 255), "router-advertisement": (134, None), "router-renumbering": (138, None),
    "router-solicitation": (133, None), "time-exceeded": (3, None), "unreachable": (1, None),
}  # fmt: skip

# Protocol numbers that are IPv6 extension headers (RFC 8200, 6275), and what packets.py calls them.
EXTENSION_NUMBERS = {0: "hop-by-hop", 43: "routing", 44: "fragment", 60: "destination-options", 135: "mobility"}
_NO_EXTENSION: Alternatives = ((0, 0b111),)
_SOME_EXTENSION: Alternatives = ((0b001, 0b001), (0b010, 0b010), (0b100, 0b100))
_FIRST_OR_WHOLE: Alternatives = ((0, 0b10),)
_NOTHING: Alternatives = ()


@dataclass(frozen=True)
class Dialect:
    """How one platform's text and meaning differ from another's."""

    title: str  # of the platform, for messages
    protocols: Mapping[str, int]  # beside ip, ipv6, ipv4 (any), icmp and packets.PROTOCOLS
    ports: Mapping[int, Mapping[str, int]]  # protocol number to port names
    icmp_names: Mapping[int, Mapping[str, tuple[int, int | None]]]  # by family
    bindings: Mapping[tuple[str, str], int]  # the two words of the interface command to the family
    bindable: frozenset[str]  # first words of blocks beside `interface` in which such a command filters transit traffic
    undefined: str  # what a bound list does that does not exist, and one without entries
    empty: str
    # Does the vendor document that a permit with L4 conditions matches later fragments on L3 alone, and a deny never?
    # Where it does not, a line with L4 conditions is in doubt for later fragments.
    later_fragments: frozenset[int]  # the families where it does
    # Is the protocol sought behind IPv6 extension headers? Where no document says so, it is in doubt there.
    header_chain: bool
    neighbour_discovery: tuple[tuple[int, str], ...]  # ICMPv6 types that every IPv6 list permits at its end
    neighbour_discovery_doubt: str  # why that is not certain, "" when it is
    ignored: frozenset[str]  # first words of list lines that cannot change a match
    suspicious: tuple[tuple[tuple[str, ...], str], ...]  # first words of interface lines that touch filtering, and why
    own_marks: frozenset[str]  # which of FOREIGN_MARKS are not foreign here
    not_lists: frozenset[str] = frozenset()  # words after `ip access-list` that are commands, not names
    groups_by_kind: bool = False  # groups of another kind or family may have the same name
    actions: re.Pattern[str] | None = None  # what may stand behind an entry, its arguments too, and matches nothing
    standard_lines: bool = False  # a line may have a source and nothing else, in any list
    port_bindings: Mapping[tuple[str, ...], int] = field(default_factory=dict)  # of lists that come before those above
    suspicious_global: tuple[tuple[tuple[str, ...], str], ...] = ()  # the same as `suspicious`, for lines at the top
    list_wide: frozenset[str] = frozenset()  # first words of list lines about the whole list (NX-OS)
    several_flags: str = ""  # why several TCP flags in a row are not certain, "" when any of them is enough
    group_wildcards: bool = False  # a mask of a network group is a wildcard
    lengths: tuple[int, int] = (0, 0xFFFF)  # of packets that a condition on the length can match
    vlan_maps: bool = False  # the platform reads VLAN access maps itself
    counted: bool = False  # the text ends with the number of its lines, in place of `end`
    vdcs: bool = False  # `switchto vdc` begins the configuration of another device


@dataclass
class _List:
    name: str
    family: int
    standard: bool
    line: int
    text: str
    lines: list[tuple[int, str, int]] = field(default_factory=list)  # number, raw text, words in front of the entry


@dataclass
class _Block:
    words: list[str]
    line: int
    lines: list[tuple[int, str]] = field(default_factory=list)


@dataclass
class _Cut:
    """The text as blocks, in one pass over its lines."""

    lists: dict[tuple[int, str], _List] = field(default_factory=dict)
    groups: dict[str, _Block] = field(default_factory=dict)
    interfaces: dict[str, _Block] = field(default_factory=dict)
    others: list[_Block] = field(default_factory=list)
    policies: list[_Block] = field(default_factory=list)
    routes: list[tuple[int, list[str]]] = field(default_factory=list)
    pools: list[list[str]] = field(default_factory=list)
    doubts: list[Doubt] = field(default_factory=list)
    hostname: str = ""
    filter_lines: int = 0


class _NotUnderstood(Exception):
    """A line whose action or shape is not known."""


_LATER_DOUBT = "what a line with layer 4 conditions does to later fragments is not documented"
_CHAIN_DOUBT = "whether a protocol is sought behind IPv6 extension headers is not documented"
_CUT_SHORT_DOUBT = "whether a protocol matches an incomplete header chain is not documented"

_BEHIND_DOUBT = "a condition on an extension header, and whether it stands behind another one is not modelled"

# One reading of a line: what it matches, and why that is not certain ("" when it is).
_Piece = tuple[tuple[Match, ...], str]


_Filters = dict[tuple[int, str], Filter]
_Places = tuple[dict[str, Interface], tuple[Binding, ...], tuple[Doubt, ...], int]


def parse(text: str, dialect: Dialect, places: Callable[[_Cut, _Filters], _Places] | None = None) -> Configuration:
    """The configuration's filters, bindings and interfaces. Linear in the text; never raises but NotThisPlatform.

    `places`: what reads the interfaces where they are not like those of the others; it may add filters.
    """
    cut = _cut(text, dialect)
    if not (cut.lists or cut.interfaces or cut.hostname):
        raise NotThisPlatform(
            f"the text holds no {dialect.title} configuration (no hostname, no interface, no access list): "
            "check ansible_network_os and what the device answered"
        )
    cut.filter_lines += sum(len(block.lines) for block in cut.groups.values())
    cut.filter_lines += sum(not skip for one in cut.lists.values() for _, _, skip in one.lines)
    filters = _reader(dialect, cut.groups).read(cut.lists.values())
    interfaces, bindings, doubts, lines = places(cut, filters) if places else _interfaces(cut, dialect)
    for binding in bindings:
        for name in binding.filters:
            if (binding.family, name) not in filters:
                text = f"{name} is bound and not defined: {_SAID[dialect.undefined].format(dialect.title)}"
                filters[binding.family, name] = Filter(name, binding.family, (), dialect.undefined, binding.line, text)
    doubts = tuple(sorted((*cut.doubts, *doubts), key=lambda doubt: doubt.line))
    return Configuration(filters, bindings, interfaces, doubts, cut.hostname, cut.filter_lines + lines)


# What the top of another vendor's configuration looks like.
FOREIGN_MARKS = {
    "Cisco IOS": r"^(Building configuration\.\.\.|Current configuration :)",
    "Cisco IOS XR": r"^!! IOS XR Configuration",
    "Cisco NX-OS": r"^(!Command: show running-config|version .*Bios:|feature [a-z])",
    "Cisco ASA": r"^(: (Saved|Serial Number)|ASA Version )",
    "Arista EOS": r"^(! Command: show running-config|! device: .*EOS)",
    "Junos": r"^(## Last (commit|changed)|version [^\s;]+;|(system|interfaces|groups) \{|set (version|system|groups) )",
    "nftables": r"^table (inet|ip|ip6|bridge|netdev|arp) \S+ \{",
    "MikroTik RouterOS": r"^(# .* by RouterOS|/(interface|ip|system) )",
    "Nokia SR OS": r"^# TiMOS-",
    "Huawei VRP": r"^(sysname |!Software Version V)",
}
_PROMPT = re.compile(r"[\w./:@-]+#")
TOP = 4000  # characters in which they are looked for


def incomplete(text: str, dialect: Dialect) -> str:
    """Why the text is not a whole running configuration of the platform, "" when it is."""
    if not text.strip():
        return "the device answered nothing"
    if "\x1b" in text:
        return f"line {_line_of(text, chr(27))} holds a terminal escape: the session is not a plain one"
    for mark in ("--More--", "\x08"):
        if mark in text:
            return f"line {_line_of(text, mark)} holds a pager's prompt: the device stops after each page"
    top = text[:TOP].lstrip()
    if top.startswith("%"):
        return f"the device answered '{top.splitlines()[0].strip()}' in place of a configuration"
    for title, pattern in FOREIGN_MARKS.items():
        if title not in dialect.own_marks and re.search(pattern, top, re.MULTILINE):
            return f"the text is a configuration of {title}, not of {dialect.title}: check ansible_network_os"
    lines = text.rstrip()[-400:].splitlines()
    while len(lines) > 1 and (not lines[-1].strip() or _PROMPT.fullmatch(lines[-1].strip())):
        lines.pop()
    last = lines[-1].strip()
    if dialect.counted:
        return _miscounted(text, last)
    if last != "end":
        return f"the text ends with '{last[:60]}' and not with 'end': it is cut off"
    return ""


def _miscounted(text: str, last: str) -> str:
    """Why the number of lines, which stands at the end, is not that of the lines above it; "" when it is."""
    if not (last.isdecimal() and len(last) < 9):
        return f"the text ends with '{last[:60]}' and not with the number of its lines: it is cut off"
    above = text.rstrip().split("\n")[:-1]
    # A terminal may show more blank lines than the configuration has.
    if not sum(not line.isspace() and line != "" for line in above) <= int(last) <= len(above):
        return f"the router counted {last} lines, and {len(above)} have come: the text is not whole"
    return ""


def _line_of(text: str, mark: str) -> int:
    return text.count("\n", 0, text.index(mark)) + 1


_SAID = {
    PERMIT: "{} permits everything then",
    DENY: "{} denies everything then",
    UNKNOWN: "what {} does then is not documented",
}
_ENTRY_WORDS = frozenset({"permit", "deny", "remark", "sequence", "evaluate", "dynamic"})
_INTERFACE_ONLY = frozenset((family, word) for family in ("ip", "ipv4", "ipv6") for word in ("address", "verify"))
# First words of an interface's lines: behind them the interface goes on in a text without indents.
_IN_AN_INTERFACE = frozenset(
    ("arp", "bandwidth", "carrier-delay", "cdp", "channel-group", "delay", "description", "duplex", "encapsulation",
     "hold-queue", "hsrp", "ip", "ipv4", "ipv6", "keepalive", "lldp", "load-interval", "mac-address", "media-type",
     "mls", "mpls", "mtu", "negotiation", "no", "peer", "ppp", "pppoe", "service-policy", "shutdown", "spanning-tree",
     "speed", "standby", "storm-control", "switchport", "tunnel", "vrf", "vrrp")
)  # fmt: skip
_A_LIST = re.compile(r"[ \t]+(?:(?:ip|ipv4|ipv6)[ \t]+)?access-list[ \t]+\S")
_VLAN_MAPS = frozenset({("vlan", "filter"), ("vlan", "access-map")})
_WITH_TEXT = frozenset({"aaa", "menu"})  # besides banners, what can have a text of several lines
# What an entry names first. Other modes have lines with permit and deny too (roles, prefix lists).
_LIST_PROTOCOLS = frozenset("ip ipv4 ipv6 tcp udp icmp icmpv6".split())
_OTHER_LISTS = frozenset({"mac", "arp", "ethernet-services"})  # access lists that are not of IP


def _cut(text: str, dialect: Dialect) -> _Cut:
    cut = _Cut()
    # The block that indented lines belong to: an access list's entries, or the body of anything else.
    entries: list[tuple[int, str, int]] | None = None
    body: list[tuple[int, str]] | None = None
    flat: list[tuple[int, str]] | None = None  # of the interface whose lines may follow without an indent
    banner = ""  # the delimiter of a banner whose text must not be read as configuration
    begun = (0, "")  # where it begins
    vrf = ""  # whose block it is, with its static routes (NX-OS)
    strange: tuple[int, str] | None = None  # a line that is not understood, and may be a garbled one
    above: list[tuple[int, str, int]] | None = None  # the list that it would be a line of
    for number, raw in enumerate(text.split("\n"), 1):
        if banner:
            if raw.strip() == banner if banner == "EOF" else banner in raw:
                banner = ""
            continue
        if not raw:
            continue
        if raw[0] in " \t" and "access-list" in raw and (body is None or body is flat) and _A_LIST.match(raw):
            raw = raw.lstrip()  # an indent more or less is nothing to the router
        if raw[0] in " \t":
            if not raw.isspace():
                if entries is not None:
                    entries.append((number, raw, 0))
                elif body is not None:
                    body.append((number, raw))
                elif vrf:
                    words = raw.split()
                    if words[1:2] == ["route"] and words[0] in ("ip", "ipv6"):
                        cut.routes.append((6 if words[0] == "ipv6" else 4, ["vrf", vrf, *words[2:]]))
                elif strange and (reason := _out_of_place(raw.split(), strange[1])):
                    cut.doubts.append(Doubt(strange[0], strange[1].strip(), reason))
                    if above is not None and reason == _AN_ENTRY:
                        entries = above
                        entries += [(*strange, 0), (number, raw, 0)]
                    strange = None
            continue
        if raw[0] == "!":
            continue
        words = raw.split()
        if not words:
            continue
        first = words[0]
        if first == "access-list":
            entries = body = above = None
            strange = number, raw  # nothing belongs below it
            _numbered(cut, words, number, raw, remove=False)
            continue
        second = words[1] if len(words) > 1 else ""
        if entries is not None and (first in _ENTRY_WORDS or first.isdecimal()):
            entries.append((number, raw, 0))
            continue
        pair = first, second
        said = words[1:] if first == "no" else words
        binds = tuple(said[:2]) in dialect.bindings or tuple(said[:3]) in dialect.port_bindings
        if flat is not None and (binds or pair in _INTERFACE_ONLY or said == ["shutdown"]):
            flat.append((number, raw))
            continue
        if binds:
            cut.doubts.append(Doubt(number, raw.strip(), "a list is bound here, and to what is not known"))
        if first not in _IN_AN_INTERFACE:
            flat = None
        above, strange = entries, None
        entries, body, vrf = None, None, ""
        if second == "access-list" and first in ("ip", "ipv6", "ipv4"):
            chosen = _named(cut, words, number, raw, dialect)
            entries = chosen.lines if chosen else None
        elif first == "interface" and second and (members := _members(words)) is not None:
            # As it may be typed; no router prints it.
            blocks = [cut.interfaces.setdefault(name, _Block(["interface", name], number)).lines for name in members]
            body = flat = _Each(blocks)
            if not members:
                cut.doubts.append(Doubt(number, raw.strip(), "a range of interfaces is not read, and may bind lists"))
        elif first == "interface" and second:
            block = cut.interfaces.setdefault(interface_name(words), _Block(words, number))
            body = flat = block.lines
        elif first == "object-group" and len(words) > 2:
            # `object-group network NAME`; the kind may take two words (NX-OS: `ip address`).
            name = " ".join(words[1:]) if dialect.groups_by_kind else words[-1]
            block = cut.groups.setdefault(name, _Block(words, number))
            cut.filter_lines += 1
            body = block.lines
        elif first in dialect.bindable or first in ("policy-map", "route-map"):
            block = _Block(words, number)
            body = block.lines
            if first in dialect.bindable:
                cut.others.append(block)
            if first in ("policy-map", "route-map"):
                cut.policies.append(block)
        elif first == "no" or first == "default":
            _forget(cut, words[1:], number, raw)
        elif first in ("hostname", "switchname") and second:
            cut.hostname = second
        elif first == "banner" and len(words) > 1:
            banner, begun = _banner_end(words, raw), (number, raw)
        elif first in _WITH_TEXT and raw.count("^C") == 1:  # `aaa authentication banner ^C`
            banner, begun = "^C", (number, raw)
        elif pair == ("ip", "route") or pair == ("ipv6", "route"):
            cut.routes.append((6 if first == "ipv6" else 4, words[2:]))
        elif words[1:3] == ["local", "pool"]:
            cut.pools.append(words[3:])
        elif first == "vrf" and second == "context" and len(words) > 2:
            vrf = words[2]
        elif dialect.vdcs and first == "switchto":
            cut.doubts.append(Doubt(number, raw.strip(), "the configuration of another virtual device is not read"))
            break
        elif pair in _VLAN_MAPS and not dialect.vlan_maps:
            cut.doubts.append(Doubt(number, raw.strip(), "a VLAN access map filters too, and is not read"))
        else:
            strange = None if first in _OTHER_LISTS else (number, raw)
            _like_an_entry(cut, words, number, raw)
            if ("vlan-list" in words or "access-map" in words) and pair not in _VLAN_MAPS:
                cut.doubts.append(Doubt(number, raw.strip(), "this may be of a VLAN access map"))
            for start, reason in dialect.suspicious_global:
                if tuple(words[: len(start)]) == start:
                    cut.doubts.append(Doubt(number, raw.strip(), reason))
    if banner:
        cut.doubts.append(Doubt(begun[0], begun[1].strip(), "this text does not end, and what follows is not read"))
    return cut


_AN_ENTRY = "entries of an access list stand below it, and it is the name of none"


def _out_of_place(words: list[str], above: str) -> str:
    """Why an indented line cannot belong to the unknown line above it, "" when it may."""
    if tuple(words[:2]) in _INTERFACE_ONLY or words[1:2] == ["unnumbered"]:
        return "the lines of an interface stand below it, and it names none"
    rest = words[1:] if words[0] == "sequence" else words
    rest = rest[1:] if rest and rest[0].isdecimal() else rest
    if rest[:1] not in (["permit"], ["deny"]):
        return ""
    return _AN_ENTRY if _LIST_PROTOCOLS.issuperset(rest[1:2] or [""]) or _like_a_list(above.split()) else ""


def interface_name(words: Sequence[str]) -> str:
    """Of `interface Virtual-Template1 type tunnel` or `interface Ethernet 1`: the name alone, as one word."""
    if words[1:2] == ["preconfigure"] and len(words) > 2:  # IOS XR: of hardware that is not there
        words = words[1:]
    return (
        "".join(words[1:3])
        if words[1:2] and words[1].replace("-", "").isalpha() and words[2:3] and words[2][0].isdecimal()
        else words[1]
    )


class _Each(list[tuple[int, str]]):
    """The lines of a range of interfaces: each line is one of every member."""

    def __init__(self, blocks: Sequence[list[tuple[int, str]]]) -> None:
        super().__init__()
        self.blocks = blocks

    def append(self, line: tuple[int, str]) -> None:
        for lines in self.blocks:
            lines.append(line)


_SPAN = re.compile(r"([A-Za-z][A-Za-z-]{3,})?((?:\d+[/.:])*)(\d{1,5})(?:-(\d{1,5}))?")


def _members(words: Sequence[str]) -> list[str] | None:
    """Of `interface range Ethernet0/1 - 3 , Vlan7`, `interface Ethernet1,3-4`: none where it is not understood.

    None where it is one interface.
    """
    text = "".join(words[2:] if words[1] == "range" else words[1:])
    if words[1] != "range" and not re.search(r"\d[-,]", text):
        return None
    found: list[str] = []
    kind = ""
    for part in text.split(","):
        one = _SPAN.fullmatch(part)
        kind = (one[1] or kind) if one else ""
        if one is None or not kind:
            return []
        low, high = int(one[3]), int(one[4] or one[3])
        found += [f"{kind}{one[2]}{number}" for number in range(low, min(high, low + 1023) + 1)]
    return found


def _banner_end(words: list[str], raw: str) -> str:
    """What ends the banner that begins on this line, "" when it ends there too."""
    rest = raw.split(None, 2)[2] if len(words) > 2 else ""
    if not rest:
        return "EOF"  # EOS: the text stands below, up to a line with EOF
    mark = rest[:2] if rest[0] == "^" else rest[0]  # IOS prints a control character as ^C
    return "" if mark in rest[len(mark) :] else mark


def _numbered(cut: _Cut, words: list[str], number: int, raw: str, remove: bool) -> None:
    """`access-list 101 permit ...`: 1-99 and 1300-1999 are standard, 100-199 and 2000-2699 extended (Cisco)."""
    name = words[1] if len(words) > 1 else ""
    if name.isdecimal() and len(name) < 5:
        value = int(name)
        standard, extended = value < 100 or 1300 <= value < 2000, 100 <= value < 200 or 2000 <= value < 2700
        if not (standard or extended):
            return  # MAC, bridging, IPX, ...: not of IP
        skip = 2
    elif len(words) > 3 and words[2] in ("extended", "standard"):
        standard, skip = words[2] == "standard", 3
    elif name in ("compiled", "hardware", "dynamic-extended") or not name or words[2:3] == ["remark"]:
        return
    else:
        cut.doubts.append(Doubt(number, raw.strip(), "an access-list line of unknown shape"))
        cut.filter_lines += 1
        return
    if remove:
        cut.lists.pop((4, name), None)
        return
    cut.filter_lines += 1
    chosen = cut.lists.get((4, name))
    if chosen is None:
        chosen = cut.lists[4, name] = _List(name, 4, standard, number, f"access-list {name}")
    if len(words) > skip:
        chosen.lines.append((number, raw, skip))


def _list_name(words: list[str], dialect: Dialect | None) -> tuple[str, bool] | None:
    """Name and whether it is a standard list, of the words behind `access-list`; None when it is another command."""
    if not words or (dialect and words[0] in dialect.not_lists):
        return None
    if words[0] in ("standard", "extended", "fqdn") and len(words) > 1:
        return words[1], words[0] == "standard"
    return words[0], False


def _named(cut: _Cut, words: list[str], number: int, raw: str, dialect: Dialect) -> _List | None:
    found = _list_name(words[2:], dialect)
    if found is None:
        return None
    name, standard = found
    family = 6 if words[0] == "ipv6" else 4
    cut.filter_lines += 1
    chosen = cut.lists.get((family, name))
    if chosen is None:
        chosen = cut.lists[family, name] = _List(name, family, standard, number, raw.strip())
    skip = words.index(name, 2) + 1
    if words[skip : skip + 1] and (words[skip] in _ENTRY_WORDS or words[skip].isdecimal()):  # an entry beside the name
        chosen.lines.append((number, raw, skip))
    elif words[skip : skip + 1] and words[skip][0] != "!":
        cut.doubts.append(
            Doubt(number, raw.strip(), f"'{words[skip][:60]}' behind the name of a list is not understood")
        )
    return chosen


def _forget(cut: _Cut, words: list[str], number: int, raw: str) -> None:
    """`no ...` at the top: the list, group or interface of that name, as far as it stands above, is gone."""
    if words[:1] == ["access-list"]:
        _numbered(cut, words, number, raw, remove=True)
    elif words[1:2] == ["access-list"]:
        found = _list_name(words[2:], None)
        if found:
            cut.lists.pop((6 if words[0] == "ipv6" else 4, found[0]), None)
    elif words[:1] == ["object-group"] and len(words) > 2:
        cut.groups.pop(words[-1], None)
        cut.groups.pop(" ".join(words[1:]), None)
    elif words[:1] == ["interface"] and len(words) > 1:
        cut.interfaces.pop(interface_name(words), None)


def _like_an_entry(cut: _Cut, words: list[str], number: int, raw: str) -> None:
    """A line at the top with `permit` or `deny` in the place of an entry's: one whose first word is garbled."""
    name = words[1] if len(words) > 3 else ""
    if name.isdecimal() and len(name) < 5 and words[2] in ("permit", "deny"):
        chosen = cut.lists.setdefault((4, name), _List(name, 4, False, number, raw.strip()))
        chosen.lines.append((number, raw, 0))
        cut.filter_lines += 1
    elif not {"permit", "deny"}.isdisjoint(words[1:5]) and _like_a_list(words):
        cut.doubts.append(Doubt(number, raw.strip(), "this may be an entry of an access list"))


def _like_a_list(words: list[str]) -> bool:
    """Is `access-list` there, garbled or cut in two?"""
    said = [*words[:2], "".join(words[:2]), "".join(words[1:3])]
    return bool(difflib.get_close_matches("access-list", said, n=1, cutoff=0.8))


_readers: dict[str, _Lists] = {}


def _reader(dialect: Dialect, groups: Mapping[str, _Block]) -> _Lists:
    """The platform's last reader where the groups are the same: of the states of a push, most lists are alike."""
    last = _readers.get(dialect.title)
    if last is None or last.groups != groups:
        last = _readers[dialect.title] = _Lists(dialect, groups)
    return last


class _Lists:
    """Reads groups and list lines, each spelling of an address, a port and a protocol once."""

    def __init__(self, dialect: Dialect, groups: Mapping[str, _Block]) -> None:
        self.dialect = dialect
        self.groups = groups
        self._addresses: dict[tuple[int, str, str], tuple[Alternatives | None, int]] = {}
        self._protocols: dict[tuple[int, str], int | None] = {}
        self._port_groups: dict[str, tuple[Alternatives, str]] = {}
        self._depth = 0
        self._kept: dict[tuple[object, ...], Filter] = {}  # the lists of the text before this one
        self._networks: dict[str, tuple[Alternatives, str]] = {}
        self._services: dict[str, tuple[tuple[dict[str, Alternatives], ...], str]] = {}

    def read(self, lists: Iterable[_List]) -> dict[tuple[int, str], Filter]:
        found: dict[tuple[int, str], Filter] = {}
        kept: dict[tuple[object, ...], Filter] = {}
        for one in lists:
            key = (one.family, one.name, one.standard, one.line, one.text, tuple(one.lines))
            found[one.family, one.name] = kept[key] = self._kept.get(key) or self._filter(one)
        self._kept = kept
        return found

    def _filter(self, chosen: _List) -> Filter:
        entries: list[Entry] = []
        order: list[int] = []
        sequence, ordered, seen = 0, True, set()
        settled: set[int] = set()
        wide: list[tuple[int, list[str], str]] = []  # the last line of each kind about the whole list
        ignored = self.dialect.ignored
        for number, raw, skip in chosen.lines:
            words = raw.split()
            if skip:
                words = words[skip:]
            if not words or words[0][0] == "!":
                continue
            if "!" in raw and words[0] != "remark":  # no word of an entry begins so: a person's comment
                words = list(itertools.takewhile(lambda word: word[0] != "!", words))
            text = raw.strip()
            own = 0
            if words[0].isdecimal() and len(words[0]) < 20:
                own, words = int(words[0]), words[1:]
            elif words[0] in ("sequence", "seq") and len(words) > 2 and words[1].isdecimal():
                own, words = int(words[1]), words[2:]
            elif words[-2:-1] == ["sequence"] and words[-1].isdecimal():
                own, words = int(words[-1]), words[:-2]
            if not words:
                continue
            action = words[0]
            if action == "remark" or action in ignored:
                sequence = max(sequence, own)
                continue
            if action in self.dialect.list_wide:
                wide = [one for one in wide if one[1][0] != action] + [(number, words, text)]
                continue
            if action == "no" or action == "default":
                said = words[1:2]
                wide = [one for one in wide if one[1][:1] != said]
                kept = _without(entries, order, words[1:])
                of_entries = not (said and (said[0] in self.dialect.list_wide | ignored or said[0] == "remark"))
                if len(kept) == len(entries) and of_entries:  # it may be one of them, in other words
                    doubt = f"'{text[:60]}' may have removed it"
                    entries = [replace(entry, doubt=entry.doubt or doubt) for entry in entries]
                entries, order = [entries[index] for index in kept], [order[index] for index in kept]
                continue
            if action == "exit":
                break
            if own:
                ordered = ordered and own > sequence
            else:
                own = sequence + 10
            sequence = max(sequence, own)
            repeated = own in seen
            seen.add(own)
            try:
                if action == "permit" or action == "deny":
                    pieces = self._entry(words, chosen, settled)
                elif action == "evaluate":
                    action, pieces = PERMIT, [(({},), "reflexive entries depend on the traffic")]
                elif action == "dynamic" and len(words) > 3:
                    start = next(index for index, word in enumerate(words) if word in ("permit", "deny"))
                    action = words[start]
                    pieces = self._entry(words[start:], chosen, settled)
                    pieces = [(matches, doubt or "a dynamic entry depends on a login") for matches, doubt in pieces]
                else:
                    raise _NotUnderstood
            except (_NotUnderstood, IndexError, ValueError, StopIteration):
                action, pieces = UNKNOWN, [(({},), "")]
            if repeated:
                pieces = [(matches, doubt or "the sequence number is used twice") for matches, doubt in pieces]
            for matches, doubt in pieces:
                entries.append(Entry(action, matches, number, text, "", doubt))
                order.append(own)
        if not ordered:
            entries = [entries[index] for index in sorted(range(len(entries)), key=order.__getitem__)]
        default = DENY
        if not entries:  # what a list of remarks alone does is not documented
            default = UNKNOWN if chosen.lines else self.dialect.empty
        elif chosen.family == 6:
            entries += self._neighbour_discovery(chosen)
        for number, words, text in wide:
            above, below = _about_the_list(number, words, text)
            entries = [*above, *entries, *below] if entries else [*above]
        return Filter(chosen.name, chosen.family, tuple(entries), default, chosen.line, chosen.text)

    def _neighbour_discovery(self, chosen: _List) -> list[Entry]:
        return [
            Entry(
                PERMIT, ({"protocol": exactly(ICMP6, 8), "icmp_type": exactly(kind, 8), **INITIAL},), chosen.line,
                f"{chosen.text}: implicit permit icmp any any {name}", "", self.dialect.neighbour_discovery_doubt,
            )
            for kind, name in self.dialect.neighbour_discovery
        ]  # fmt: skip

    def _entry(self, words: list[str], chosen: _List, settled: set[int]) -> list[_Piece]:
        """The pieces of `permit ...` or `deny ...`. Raises _NotUnderstood, IndexError or ValueError otherwise."""
        family, permit, at = chosen.family, words[0] == "permit", 1
        base: dict[str, Alternatives] = {}
        doubts: list[str] = []
        if chosen.standard or (self.dialect.standard_lines and _begins_address(words[1])):
            source, at = self._address(family, words, at, doubts)
            if source is not None:
                base["source"] = source
            self._options(words, at, None, family, base, {}, doubts)
            return [((base,), doubts[0] if doubts else "")]
        layer4: dict[str, Alternatives] = {}
        services: tuple[dict[str, Alternatives], ...] | None = None
        protocol: int | None = None
        if words[at] == "vlan":
            doubts.append("the condition on a VLAN is not modelled")
            at += 3
        if words[at] == "object-group":
            services, doubt = self._service(words[at + 1])
            at += 2
            if doubt:
                doubts.append(doubt)
        else:
            key = family, words[at]
            protocol = self._protocols[key] if key in self._protocols else self._protocol(*key)
            at += 1
            if protocol is not None:
                base["protocol"] = ((protocol, 0xFF),)
        source, at = self._address(family, words, at, doubts)
        if source is not None:
            base["source"] = source
        count = len(words)
        if at < count and words[at] in _PORT_WORDS:
            layer4["source_port"], at = self._port(protocol, words, at, doubts)
        destination, at = self._address(family, words, at, doubts)
        if destination is not None:
            base["destination"] = destination
        if at < count:
            if words[at] in _PORT_WORDS:
                layer4["destination_port"], at = self._port(protocol, words, at, doubts)
            if at < count:
                self._options(words, at, protocol, family, base, layer4, doubts)
        sure: list[_Piece] = []
        if _BEHIND_DOUBT in doubts:  # the condition holds where that header comes first, perhaps where another does
            sure = self._pieces(base, layer4, family, permit, "", settled) if doubts == [_BEHIND_DOUBT] else []
            base = {**base, "extension": _SOME_EXTENSION}
        doubt = doubts[0] if doubts else ""
        if services is None and family == 4 and not layer4:
            return [((base,), doubt)]
        if services is None:
            return sure + self._pieces(base, layer4, family, permit, doubt, settled)
        pieces: list[_Piece] = []
        for service in services:
            inner = {**base, **{name: service[name] for name in service if name == "protocol"}}
            upper = {**layer4, **{name: service[name] for name in service if name != "protocol"}}
            pieces += self._pieces(inner, upper, family, permit, doubt, settled)
        certain = tuple(match for matches, why in pieces for match in matches if not why)
        return ([(certain, "")] if certain else []) + [piece for piece in pieces if piece[1]]

    def _pieces(
        self, base: dict[str, Alternatives], layer4: dict[str, Alternatives], family: int, permit: bool, doubt: str,
        settled: set[int],
    ) -> list[_Piece]:  # fmt: skip
        """The line for whole packets and first fragments, and for what it says about later ones."""
        unsure: list[_Piece] = []
        if layer4:
            certain: list[Match] = [{**base, **layer4, **INITIAL}]
            if "fragment" in base:  # `fragments` beside ports: no device takes it
                return [((certain[0],), doubt or "fragments together with layer 4 conditions")]
            later: Match = {**base, "fragment": LATER_FRAGMENT}
            if family not in self.dialect.later_fragments:
                unsure.append(((later,), _LATER_DOUBT))
            elif permit:
                certain.append(later)
        elif family == 6 and "protocol" in base and "fragment" not in base:
            certain = [{**base, "undetermined": ((0, 1),)}, {**base, "fragment": LATER_FRAGMENT}]
            cut_short: Match = {**base, "undetermined": ((1, 1),), "fragment": _FIRST_OR_WHOLE}
            unsure.append(((cut_short,), _CUT_SHORT_DOUBT))
        else:
            certain = [base]
        by_number = "protocol" in base and base["protocol"][0][0] in EXTENSION_NUMBERS
        first_header = by_number or ("protocol" in base and not self.dialect.header_chain)
        if family == 6 and first_header and "extension" not in base:
            certain, hidden = self._first_header(base, certain, permit or bool(doubt), settled)
            if hidden:
                unsure.insert(0, (hidden, _CHAIN_DOUBT))
        pieces: list[_Piece] = [(tuple(certain), doubt)] if certain else []
        return pieces + [(matches, doubt or why) for matches, why in unsure]

    def _first_header(
        self, base: Match, certain: list[Match], permit: bool, settled: set[int]
    ) -> tuple[list[Match], tuple[Match, ...]]:
        """Split what a protocol matches into what is certain and what depends on the device.

        A device compares either the first next-header or the one behind the extension headers. Once a line denies
        an extension header by number to everybody, later lines see packets with it only on devices of the second
        kind: from there on (`settled`) they are read so.
        """
        number = base["protocol"][0][0]
        rest = {name: value for name, value in base.items() if name != "protocol"}
        if number in EXTENSION_NUMBERS:
            code = EXTENSIONS[EXTENSION_NUMBERS[number]]
            if not permit and not rest:
                settled.add(code)
            return [], ({**rest, "extension": exactly(code, 3)}, base)
        if len(settled) == len(EXTENSION_NUMBERS):
            return certain, ()
        known = union(_NO_EXTENSION, *(exactly(code, 3) for code in sorted(settled)))
        sure: list[Match] = [{**match, "extension": known} for match in certain]
        return sure, tuple({**match, "extension": complement(known, 3)} for match in certain)

    def _protocol(self, family: int, word: str) -> int | None:
        """The number, None for any. Raises _NotUnderstood."""
        if word in (("ip", "ipv4") if family == 4 else ("ipv6",)):
            found = None
        elif word.isdecimal() and int(word) < 256:
            found = int(word)
        elif word == "icmp":
            found = ICMP if family == 4 else ICMP6
        else:
            number = self.dialect.protocols.get(word, PROTOCOLS.get(word))
            if number is None:
                raise _NotUnderstood
            found = number
        self._protocols[family, word] = found
        return found

    def _address(self, family: int, words: list[str], at: int, doubts: list[str]) -> tuple[Alternatives | None, int]:
        """The alternatives (None: any) of the address that begins at `at`, and where it ends."""
        word = words[at]
        if word == "any":
            return None, at + 1
        key = family, word, words[at + 1] if at + 1 < len(words) else ""
        if key not in self._addresses:
            if word in _NETWORK_GROUP:
                group = f"network ipv{family} {key[2]}" if self.dialect.groups_by_kind else key[2]
                network, doubt = self._network(group)
                block = self.groups.get(group)
                if not doubt and block is not None and _group_family(block) != family:
                    doubt = f"object group {key[2]} holds addresses of the other family"
                    network = _NOTHING
                if doubt:
                    doubts.append(doubt)
                    return network or None, at + 2
                found: tuple[Alternatives, int] = network, 2
            elif word == "host" and _HOST_NAME.fullmatch(key[2]):  # whose address changes, or is in no document here
                taken = 3 if key[2] == "dynamic" else 2
                doubts.append(f"the address of '{words[at + taken - 1]}' is not known")
                return None, at + taken
            else:
                found = _one_address(*key)
            self._addresses[key] = found
        alternatives, taken = self._addresses[key]
        return alternatives, at + taken

    def _port(self, protocol: int | None, words: list[str], at: int, doubts: list[str]) -> tuple[Alternatives, int]:
        """The ports of `eq 25`, `range 137 139`, ... and where that ends. Every port, in doubt, for an unknown name."""
        operator = words[at]
        names = self.dialect.ports.get(protocol or 0, {})
        if protocol is not None and protocol not in WITH_PORTS:
            raise _NotUnderstood
        if operator in _PORT_GROUP:
            ports, doubt = self._port_group(f"port {words[at + 1]}" if self.dialect.groups_by_kind else words[at + 1])
            if doubt:
                doubts.append(doubt)
            return ports, at + 2
        if operator == "eq" and (at + 2 >= len(words) or words[at + 2] in _AFTER_PORT):
            value = _number(words[at + 1], names, 16)
            if value is not None:
                return ((value, 0xFFFF),), at + 2
        values: list[int] = []
        end = at + 1
        while end < len(words) and (value := _number(words[end], names, 16)) is not None:
            values.append(value)
            end += 1
            if operator not in ("eq", "neq") and len(values) == (2 if operator == "range" else 1):
                break
        # A word that is nothing else may be one more port, of a name that is not known.
        more = operator == "eq" and end < len(words) and not _ends_ports(words[end])
        if not values or more or (operator == "range" and len(values) == 1):
            doubts.append(f"the port in '{' '.join(words[at : end + 1])}' is not known")
            return ((0, 0),), end + 1
        return _compare(operator, values, 16), end

    def _options(
        self, words: list[str], at: int, protocol: int | None, family: int, base: dict[str, Alternatives],
        layer4: dict[str, Alternatives], doubts: list[str],
    ) -> None:  # fmt: skip
        """What stands behind addresses and ports, into `base` and `layer4`; what the model lacks is a doubt."""
        count, icmp_names = len(words), self.dialect.icmp_names[family]
        while at < count:
            word = words[at]
            at += 1
            if word == "log" or word == "log-input":
                if at == count - 1 and not _like_an_option(words[at]):
                    at += 1  # the cookie
            elif word == "established" and protocol == TCP:
                _narrow(layer4, "tcp_flags", flags_any(("ack", "rst")))
            elif word in TCP_FLAGS and protocol == TCP:
                names = [word]
                while at < count and words[at] in TCP_FLAGS:
                    names.append(words[at])
                    at += 1
                # Cisco, "ACL TCP Flags Filtering": listed one by one, any of them is enough.
                _narrow(layer4, "tcp_flags", flags_any(tuple(names)))
                if len(names) > 1 and self.dialect.several_flags:
                    doubts.append(self.dialect.several_flags)
            elif word == "tcp-flags-mask" and protocol == TCP:
                layer4["tcp_flags"] = ((0, 0),)
                doubts.append("the condition 'tcp-flags-mask' is not modelled")
                at += 1
            elif word in ("match-any", "match-all") and protocol == TCP:
                flags: list[tuple[int, int]] = []
                while at < count and words[at][:1] in "+-" and words[at][1:] in TCP_FLAGS:
                    bit = TCP_FLAGS[words[at][1:]]
                    flags.append((bit if words[at][0] == "+" else 0, bit))
                    at += 1
                if word == "match-any":
                    _narrow(layer4, "tcp_flags", tuple(flags))
                for one in flags if word == "match-all" else ():
                    _narrow(layer4, "tcp_flags", (one,))
            elif word == "fragments" or word == "fragment":
                _narrow(base, "fragment", LATER_FRAGMENT)
            elif word == "fragment-type" and at < count and words[at] in _FRAGMENT_TYPES:
                _narrow(base, "fragment", _FRAGMENT_TYPES[words[at]])
                at += 1
            elif self.dialect.actions and (said := self.dialect.actions.match(" ".join(words[at - 1 :]))):
                at += len(said[0].split()) - 1
            elif word in _BITS_OF_TOS and at + 1 < count and words[at] in _OPERATORS:
                meanings, bits, low = _BITS_OF_TOS[word]
                end = at + (3 if words[at] == "range" else 2)
                told = [_number(one, meanings, bits) for one in words[at + 1 : end]]
                values = [one for one in told if one is not None]
                if len(values) != end - at - 1:
                    raise _NotUnderstood
                shifted = tuple((value << low, mask << low) for value, mask in _compare(words[at], values, bits))
                _narrow(base, "tos", shifted)
                at = end
            elif word == "undetermined-transport":
                base["undetermined"] = ((1, 1),)
                _narrow(base, "fragment", _FIRST_OR_WHOLE)
            elif word == "dscp" and at < count and (value := _number(words[at], DSCP, 6)) is not None:
                _narrow(base, "tos", ((value << 2, 0xFC),))
                at += 1
            elif word == "precedence" and at < count and (value := _number(words[at], PRECEDENCE, 3)) is not None:
                _narrow(base, "tos", ((value << 5, 0xE0),))
                at += 1
            elif word == "tos" and at < count and (value := _number(words[at], TOS, 4)) is not None:
                _narrow(base, "tos", ((value << 1, 0x1E),))
                at += 1
            elif word in _NUMERIC and at + 1 < count and words[at] in _OPERATORS:
                name, bits = _NUMERIC[word]
                end = at + (3 if words[at] == "range" else 2)
                values = [int(one) for one in words[at + 1 : end]]
                if len(values) != end - at - 1:
                    raise _NotUnderstood
                _narrow(base, name, _compare(words[at], values, bits))
                if name == "length":
                    _narrow(base, name, span(*self.dialect.lengths, bits))
                at = end
            elif word == "ttl" and at < count and (value := _number(words[at], {}, 8)) is not None:
                _narrow(base, "ttl", exactly(value, 8))
                at += 1
            elif word == "option" and at < count:
                base["options"] = ((1, 1),)
                if words[at] != "any-options":
                    doubts.append(f"the condition 'option {words[at]}' is not modelled")
                at += 1
            elif word in ("hbh", "hop-by-hop"):  # only ever the first header (RFC 8200, 4.1)
                _narrow(base, "extension", exactly(EXTENSIONS["hop-by-hop"], 3))
            elif word in _EXTENSION_WORDS:
                _narrow(base, "extension", exactly(EXTENSIONS[_EXTENSION_WORDS[word]], 3))
                doubts.append(_BEHIND_DOUBT)
            elif word.removesuffix("-type") in _EXTENSION_WORDS:
                _narrow(base, "extension", _SOME_EXTENSION)
                doubts.append(f"the condition '{word}' is not modelled")
                at += 1
            elif word in ("reflect", "timeout"):  # also creates entries for `evaluate`; what it permits is the same
                at += 1
            elif protocol in (ICMP, ICMP6) and "icmp_type" not in layer4 and (word.isdecimal() or word in icmp_names):
                if word.isdecimal():
                    kind, code = int(word), None
                    if at < count and words[at].isdecimal():
                        code = int(words[at])
                        at += 1
                else:
                    kind, code = icmp_names[word]
                if kind > 255 or (code or 0) > 255:
                    raise _NotUnderstood
                layer4["icmp_type"] = exactly(kind, 8)
                if code is not None:
                    layer4["icmp_code"] = exactly(code, 8)
            elif word in _PORT_WORDS:
                raise _NotUnderstood
            else:
                end = at + 1 if word in _ONE_ARGUMENT else count  # how far a word reaches that is not known
                doubts.append(f"the condition '{' '.join(words[at - 1 : end])}' is not modelled")
                at = end

    def _network(self, name: str) -> tuple[Alternatives, str]:
        """The addresses of a group. With a doubt the alternatives are empty: nothing is known of it."""
        if name not in self._networks:
            if self._depth == _DEEPEST:
                return _NOTHING, f"object group {name} is nested too deep"
            self._networks[name] = _NOTHING, f"object group {name} contains itself"
            self._depth += 1
            self._networks[name] = self._read_network(name)
            self._depth -= 1
        return self._networks[name]

    def _read_network(self, name: str) -> tuple[Alternatives, str]:
        block = self.groups.get(name)
        if block is None:
            return _NOTHING, f"object group {name} is not defined"
        family = _group_family(block)
        found: list[Alternatives] = []
        for number, raw in block.lines:
            words = raw.split()
            if not words or words[0][0] == "!" or words[0] == "description":
                continue
            if words[0].isdecimal():  # a sequence number
                words = words[1:]
            try:
                if words[0] == "group-object" or (words[0] == "object-group" and self.dialect.groups_by_kind):
                    inner, doubt = self._network(" ".join([*name.split()[:-1], words[1]]))
                    if doubt:
                        return _NOTHING, doubt
                    found.append(inner)
                else:
                    member = words[1:] if words[0] == "network-object" else words
                    if self.dialect.group_wildcards and len(member) == 2 and member[0] != "host":
                        found.append(_one_address(family, *member)[0])
                    else:
                        found.append(_member(member, family))
            except (_NotUnderstood, IndexError, ValueError):
                return _NOTHING, f"line {number} of object group {name} is not understood"
        if not found:
            return _NOTHING, f"object group {name} is empty"
        return union(*found), ""

    def _port_group(self, name: str) -> tuple[Alternatives, str]:
        """The ports of a group. With a doubt it is any port."""
        if name not in self._port_groups:
            if self._depth == _DEEPEST:
                return ((0, 0),), f"object group {name} is nested too deep"
            self._port_groups[name] = ((0, 0),), f"object group {name} contains itself"
            self._depth += 1
            self._port_groups[name] = self._read_port_group(name)
            self._depth -= 1
        return self._port_groups[name]

    def _read_port_group(self, name: str) -> tuple[Alternatives, str]:
        block = self.groups.get(name)
        if block is None:
            return ((0, 0),), f"object group {name} is not defined"
        names = {**self.dialect.ports[UDP], **self.dialect.ports[TCP]}
        found: list[Alternatives] = []
        for number, raw in block.lines:
            words = raw.split()
            if words[0][0] == "!" or words[0] == "description":
                continue
            operator, *said = words[1:] if words[0].isdecimal() and len(words) > 1 else words  # a sequence number
            if operator == "object-group" and len(said) == 1 and self.dialect.groups_by_kind:
                inner, doubt = self._port_group(f"port {said[0]}")
                if doubt:
                    return inner, doubt
                found.append(inner)
                continue
            values = [value for word in said if (value := _number(word, names, 16)) is not None]
            wanted = 2 if operator == "range" else 1
            if operator not in _OPERATORS or len(said) != wanted or len(values) != wanted:
                return ((0, 0),), f"line {number} of object group {name} is not understood"
            found.append(_compare(operator, values, 16))
        if not found:
            return ((0, 0),), f"object group {name} is empty"
        return union(*found), ""

    def _service(self, name: str) -> tuple[tuple[dict[str, Alternatives], ...], str]:
        """The protocols and ports of a group. With a doubt it is any protocol."""
        if name not in self._services:
            if self._depth == _DEEPEST:
                return ({},), f"object group {name} is nested too deep"
            self._services[name] = ({},), f"object group {name} contains itself"
            self._depth += 1
            self._services[name] = self._read_service(name)
            self._depth -= 1
        return self._services[name]

    def _read_service(self, name: str) -> tuple[tuple[dict[str, Alternatives], ...], str]:
        block = self.groups.get(name)
        if block is None:
            return ({},), f"object group {name} is not defined"
        family = _group_family(block)
        found: list[dict[str, Alternatives]] = []
        for number, raw in block.lines:
            words = raw.split()
            if not words or words[0][0] == "!" or words[0] == "description":
                continue
            if words[0] == "protocol-object":
                words = words[1:]
            try:
                if words[0] == "group-object":
                    inner, doubt = self._service(words[1])
                    if doubt:
                        return ({},), doubt
                    found += inner
                    continue
                numbers = [TCP, UDP] if words[0] == "tcp-udp" else [self._protocol(family, words[0])]
                for protocol in numbers:
                    found.append(self._service_member(words, protocol, family))
            except (_NotUnderstood, IndexError, ValueError):
                return ({},), f"line {number} of object group {name} is not understood"
        if not found:
            return ({},), f"object group {name} is empty"
        return tuple(found), ""

    def _service_member(self, words: list[str], protocol: int | None, family: int) -> dict[str, Alternatives]:
        one: dict[str, Alternatives] = {} if protocol is None else {"protocol": exactly(protocol, 8)}
        doubts: list[str] = []
        if protocol in (TCP, UDP):
            at, side = 1, "destination_port"
            while at < len(words):
                if words[at] in ("source", "destination"):
                    side, at = f"{words[at]}_port", at + 1
                if words[at] not in _OPERATORS:
                    words = [*words[:at], "eq", *words[at:]]
                one[side], at = self._port(protocol, words, at, doubts)
                side = "destination_port"
        else:
            upper: dict[str, Alternatives] = {}
            self._options(words, 1, protocol, family, one, upper, doubts)
            one |= upper
        if doubts:
            raise _NotUnderstood
        return one


_DEEPEST = 64  # groups within groups
_OPERATORS = frozenset({"eq", "neq", "gt", "lt", "range"})
# What stands in front of a group's name, in the words of IOS, of its 12.2SX and of IOS XR.
_NETWORK_GROUP = frozenset({"object-group", "addrgroup", "net-group"})
_PORT_GROUP = frozenset({"portgroup", "port-group"})
_HOST_NAME = re.compile(r"(?!(?:any|host)$)[A-Za-z](?:[A-Za-z0-9.-]*[A-Za-z0-9])?")
_PORT_WORDS = _OPERATORS | _PORT_GROUP
_AFTER_PORT = frozenset({"any", "host", "established", "log", "log-input", "object-group"})
# Conditions that this model has no field for, with one word behind them.
_ONE_ARGUMENT = frozenset({"time-range", "flow-label", "nexthop-group", "ecn", "cos", "vlan"})
_NUMERIC = {"ttl": ("ttl", 8), "hop-limit": ("ttl", 8), "packet-length": ("length", 16), "length": ("length", 16)}
# Conditions on an IPv6 extension header that may stand behind another one.
_EXTENSION_WORDS = {
    "routing": "routing", "dest-option": "destination-options", "destopts": "destination-options",
    "mobility": "mobility",
}  # fmt: skip
# Fragments by the bits of their header: first, last, any (Cisco, IOS XR, "fragment-type").
_FRAGMENT_TYPES: Mapping[str, Alternatives] = {
    "first-fragment": ((0b01, 0b11),), "last-fragment": ((0b10, 0b11),), "is-fragment": ((0b01, 0b01), (0b10, 0b10)),
}  # fmt: skip
_BITS_OF_TOS: Mapping[str, tuple[Mapping[str, int], int, int]] = {
    "dscp": (DSCP, 6, 2),
    "precedence": (PRECEDENCE, 3, 5),
}
_OPTION_WORDS = _ONE_ARGUMENT | frozenset(_NUMERIC) | frozenset(TCP_FLAGS) | {
    "established", "fragments", "dscp", "precedence", "tos", "option", "reflect", "routing", "dest-option", "mobility",
    "hbh", "match-any", "match-all", "undetermined-transport", "auth", "tracked", "hop-by-hop", "destopts", "authen",
    "capture", "counter", "police", "nexthop", "nexthop1", "default", "icmp-off", "icmp-on", "set", "fragment-type",
    "fragment-offset", "udf", "priority",
}  # fmt: skip


@functools.lru_cache(maxsize=1024)
def _like_an_option(word: str) -> bool:
    """Is it an option, or one that is garbled?"""
    return bool(difflib.get_close_matches(word.lower(), _OPTION_WORDS, n=1, cutoff=0.8))


_AFTER_PORTS = _AFTER_PORT | _OPTION_WORDS | _NETWORK_GROUP | _PORT_WORDS | {"source", "destination"}


def _ends_ports(word: str) -> bool:
    """Does an address, a condition or the other side's ports begin with this word?"""
    return word in _AFTER_PORTS or not {".", ":", "/"}.isdisjoint(word)


def _begins_address(word: str) -> bool:
    """`any`, `host`, `net-group` or an address, where a protocol stands otherwise."""
    return word in ("any", "host") or word in _NETWORK_GROUP or not {".", ":", "/"}.isdisjoint(word)


def _number(word: str, names: Mapping[str, int], bits: int) -> int | None:
    if word.isdecimal() and word.isascii() and len(word) < 6:
        value = int(word)
        return value if value < 1 << bits else None
    return names.get(word)


def _compare(operator: str, values: Sequence[int], bits: int) -> Alternatives:
    """`eq 80 443`, `neq 25`, `gt 1023`, `lt 5`, `range 137 139` as alternatives."""
    full = (1 << bits) - 1
    first, last = values[0], values[-1]
    if operator == "eq":
        return union(*(exactly(value, bits) for value in values))
    if operator == "gt":
        return span(first + 1, full, bits)
    if operator == "lt":
        return span(0, first - 1, bits)
    if operator == "range":
        return span(min(first, last), max(first, last), bits)
    edges = [-1, *sorted(set(values)), full + 1]
    return union(*(span(low + 1, high - 1, bits) for low, high in itertools.pairwise(edges)))


def _narrow(fields: dict[str, Alternatives], name: str, alternatives: Alternatives) -> None:
    fields[name] = intersection(fields[name], alternatives) if name in fields else alternatives


def _one_address(family: int, word: str, following: str) -> tuple[Alternatives, int]:
    """`host A`, `A/24`, `A WILDCARD` or a bare `A`, and how many words it takes. Raises ValueError otherwise."""
    if word == "host":
        return exactly(address_value(following, family), ADDRESS_WIDTH[family]), 2
    if "/" in word:
        return prefix(word, family), 1
    value, full = address_value(word, family), (1 << ADDRESS_WIDTH[family]) - 1
    if following.count("." if family == 4 else ":") >= (3 if family == 4 else 2) and "/" not in following:
        mask = full & ~address_value(following, family)
        return ((value & mask, mask),), 2
    return ((value, full),), 1


def _member(words: list[str], family: int) -> Alternatives:
    """A line of a network group: `host A`, `A/24`, `A /24`, `A NETMASK`, `range A B`, `any`."""
    bits = ADDRESS_WIDTH[family]
    if words[0] == "any":
        return ((0, 0),)
    if words[0] == "host" and len(words) == 2:
        return exactly(address_value(words[1], family), bits)
    if words[0] == "range" and len(words) == 3:
        return span(address_value(words[1], family), address_value(words[2], family), bits)
    if len(words) == 1 or (len(words) == 2 and words[1][0] == "/"):
        return prefix("".join(words), family)
    if len(words) == 2:
        value, mask = address_value(words[0], family), address_value(words[1], family)
        if _length(mask, bits) is not None:
            return ((value & mask, mask),)
    raise _NotUnderstood


def _group_family(block: _Block) -> int:
    """Of the words between `object-group` and the name: `network`, `v6-network`, `network ipv6`, `ipv6 address`."""
    return 6 if any("v6" in word for word in block.words[1:-1]) else 4


def _length(mask: int, bits: int) -> int | None:
    """The prefix length of a contiguous netmask."""
    length = mask.bit_count()
    return length if mask == ((1 << length) - 1) << (bits - length) else None


def _about_the_list(number: int, words: list[str], text: str) -> tuple[list[Entry], list[Entry]]:
    """What `fragments permit-all` and its like put in front of the entries and behind them.

    It is documented for fragments that no entry matches; whether it comes before entries too is not.
    """
    action = {"permit-all": PERMIT, "deny-all": DENY}.get(words[1] if len(words) == 2 else "", UNKNOWN)
    matches: Match = {}
    if action != UNKNOWN and words[0] == "fragments":
        matches = {"fragment": LATER_FRAGMENT}
    elif action != UNKNOWN and words[0] == "extension-header":
        matches = {"extension": _SOME_EXTENSION}
    doubt = f"what '{' '.join(words)}' does to packets that a line matches is not documented"
    above = [Entry(PERMIT if action == UNKNOWN else action, (matches,), number, text, "", doubt)]
    return above, [Entry(action, (matches,), number, text)] if "fragment" in matches else []


def _without(entries: Sequence[Entry], order: Sequence[int], words: list[str]) -> list[int]:
    """What stays of the entries after `no 20` or `no permit ...`: their indexes."""
    if len(words) == 1 and words[0].isdecimal() and len(words[0]) < 20:
        return [index for index, own in enumerate(order) if own != int(words[0])]
    gone = words[1:] if words[:1] and words[0].isdecimal() else words
    return [index for index, entry in enumerate(entries) if entry.text.split()[-len(gone) :] != gone]


_DIRECTIONS = {"in": "in", "out": "out", "ingress": "in", "egress": "out"}
_BINDING_WORDS = frozenset({"access-group", "traffic-filter"})
# Second words of lines with a direction or a list that bind no filter for what is forwarded.
_NO_FILTER = frozenset({"virtual-reassembly", "flow", "wccp", "nat", "nbar", "igmp", "mld", "multicast", "pim"})


def _droppers(cut: _Cut) -> set[tuple[str, str]]:
    """The policies and route maps that drop packets, whose names stand behind `policy-map` and `route-map`."""
    found: set[tuple[str, str]] = set()
    parents: dict[str, set[str]] = {}  # of a policy within a class of another one
    for block in cut.policies:
        routes = block.words[0] == "route-map"
        name = block.words[1] if routes and len(block.words) > 1 else block.words[-1]
        for _, raw in block.lines:
            words = raw.split()
            if words[:1] == ["service-policy"]:
                parents.setdefault(words[-1], set()).add(name)
            to_nowhere = words[:2] == ["set", "interface"] and "null" in raw.lower()
            drops = words == ["drop"] or "conform-action drop" in raw
            if to_nowhere if routes else drops:
                found.add((block.words[0], name))
    ahead = [name for kind, name in found if kind == "policy-map"]
    while ahead:
        more = {("policy-map", name) for name in parents.pop(ahead.pop(), ())} - found
        found |= more
        ahead += [name for _, name in more]
    return found


def _interfaces(cut: _Cut, dialect: Dialect) -> _Places:
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
            pools[words[0]] = pools.get(words[0], ()) + _pool_prefixes(tuple(words[1:]))
    droppers = _droppers(cut)
    lines = 0
    for name, block in [*cut.interfaces.items(), *((" ".join(block.words), block) for block in cut.others)]:
        prefixes: list[str] = []
        shutdown = sees_ipv6 = switched = False
        checks: dict[int, tuple[str, int]] = {}
        bound: dict[str, int] = {}  # the places in this block that have a list, and the line that says so first
        attachment, indent = name, 0
        for number, raw in block.lines:
            words = raw.partition(" !")[0].split()
            if dialect.port_bindings and "switchport" in words[:2]:
                switched = words[0] == "switchport"
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
                if len(words) == 4 and words[3] in _DIRECTIONS:
                    family = dialect.bindings[pair]
                    place = attachment, _DIRECTIONS[words[3]], family
                    bound.setdefault(attachment, number)
                    bindings[place] = Binding(*place, (words[2],), number, text)
                else:
                    doubts.append(Doubt(number, text, "a filter is bound in a form that is not understood"))
            elif tuple(words[:3]) in dialect.port_bindings:
                lines += 1
                if len(words) == 5 and words[4] in _DIRECTIONS:
                    place = attachment, _DIRECTIONS[words[4]], dialect.port_bindings[tuple(words[:3])]
                    ports[place] = Binding(*place, (words[3],), number, text)
                else:
                    doubts.append(Doubt(number, text, "a filter is bound in a form that is not understood"))
            elif words[0] == "no" and tuple(words[1:4]) in dialect.port_bindings:
                family = dialect.port_bindings[tuple(words[1:4])]
                ports.pop((attachment, _DIRECTIONS.get(words[-1], ""), family), None)
            elif words[0] == "no" and tuple(words[1:3]) in dialect.bindings:
                family = dialect.bindings[words[1], words[2]]
                bindings.pop((attachment, _DIRECTIONS.get(words[-1], ""), family), None)
            elif words == ["no", "shutdown"]:
                shutdown = False
            elif pair == ("ip", "address") or pair == ("ipv6", "address"):
                family = 4 if words[0] == "ip" else 6
                found = _interface_prefix(words[2:], family)
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
                _check(checks, 4 if words[0] == "ip" else 6, words[2:], (text, number))
            elif words[0] == "no" and words[2:3] == ["verify"]:
                _check(checks, 4 if words[1] == "ip" else 6, words[3:], ("", 0))
            elif words[0] == "service-policy" and ("policy-map", words[-1]) in droppers:
                if block.words[0] == "policy-map":
                    continue  # where that one is attached, it is told
                doubts.append(Doubt(number, text, "the policy drops packets of a class, and is not read"))
            elif words[1:3] == ["policy", "route-map"] and ("route-map", words[-1]) in droppers:
                doubts.append(Doubt(number, text, "the route map drops packets, and is not read"))
            else:
                for start, reason in dialect.suspicious:
                    if words[: len(start)] == list(start):
                        doubts.append(Doubt(number, text, reason))
                        break
                else:
                    directed = (2 < len(words) < 6 and words[-1] in _DIRECTIONS) or not _BINDING_WORDS.isdisjoint(words)
                    if directed and words[0] != "description" and words[1] not in _NO_FILTER:
                        doubts.append(Doubt(number, text, "a line with a direction may bind a filter, and is not read"))
            sees_ipv6 = sees_ipv6 or words[0] == "ipv6"
        if switched:  # there a list of the interface does nothing (Cisco, "ip access-group" of NX-OS)
            bindings = {place: one for place, one in bindings.items() if place[0] != name}
        # The check counts only where it covers every family that the interface speaks.
        check = checks.get(4, ("", 0)) if 6 in checks or not sees_ipv6 else ("", 0)
        if name in cut.interfaces or name in bound:
            interfaces[name] = Interface(name, block.line, tuple(prefixes), shutdown, *check)
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
    _add_routes(cut.routes, interfaces, _vrfs(cut.interfaces))
    return interfaces, tuple(bindings.values()), tuple(doubts), lines


def _check(checks: dict[int, tuple[str, int]], family: int, words: list[str], said: tuple[str, int]) -> None:
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


def _interface_prefix(words: list[str], family: int) -> str:
    """`192.0.2.1 255.255.255.0 [secondary]`, `192.0.2.1/24`, `2001:db8::1/64 [...]` as address/length; "" for none."""
    if not words or "link-local" in words:
        return ""
    try:
        if "/" in words[0]:
            value = address_value(words[0].partition("/")[0], family)
            length = int(words[0].partition("/")[2])
        elif family == 4 and len(words) > 1:
            value = address_value(words[0], 4)
            length = _length(address_value(words[1], 4), 32) or 0
        else:
            return ""
    except ValueError:
        return ""
    return f"{address_text(value, family)}/{length}" if 0 < length <= ADDRESS_WIDTH[family] else ""


@functools.lru_cache(maxsize=1024)
def _pool_prefixes(words: tuple[str, ...]) -> tuple[str, ...]:
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


def _vrfs(blocks: Mapping[str, _Block]) -> dict[str, str]:
    """The VRF of each interface that is in one: `vrf RED`, `vrf forwarding RED`, `ip vrf forwarding RED`."""
    found = {}
    for name, block in blocks.items():
        for _, raw in block.lines:
            words = raw.split()
            words = words[words[:1] == ["ip"] :]
            if words[:1] == ["vrf"] and (len(words) == 2 or words[1:2] in (["forwarding"], ["member"])):
                found[name] = words[-1]
    return found


def _add_routes(
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
        text = _interface_prefix(words[:wide], family)
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
