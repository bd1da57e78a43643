# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How the platforms with an industry-standard CLI differ, and the names of their lists for numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..packets import PROTOCOLS

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
    # First words of interface lines that touch filtering, and why; "" for those that only look so.
    suspicious: tuple[tuple[tuple[str, ...], str], ...]
    own_marks: frozenset[str]  # which of FOREIGN_MARKS are not foreign here
    not_lists: frozenset[str] = frozenset()  # words after `ip access-list` that are commands, not names
    groups_by_kind: bool = False  # groups of another kind or family may have the same name
    actions: re.Pattern[str] | None = None  # what may stand behind an entry, its arguments too, and matches nothing
    numbered_remarks: bool = False  # a remark without a number takes one, as an entry does
    formal: bool = False  # a line may stand behind what it belongs to, where others print it below
    standard_lines: bool = False  # a line may have a source and nothing else, in any list
    port_bindings: Mapping[tuple[str, ...], int] = field(default_factory=dict)  # of lists that come before those above
    suspicious_global: tuple[tuple[tuple[str, ...], str], ...] = ()  # the same as `suspicious`, for lines at the top
    list_wide: frozenset[str] = frozenset()  # first words of list lines about the whole list (NX-OS)
    several_flags: str = ""  # why several TCP flags in a row are not certain, "" when any of them is enough
    group_wildcards: bool = False  # a mask of a network group is a wildcard
    lengths: tuple[int, int] = (0, 0xFFFF)  # of packets that a condition on the length can match
    vlan_maps: bool = False  # the platform reads VLAN access maps itself
    comments: bool = False  # in any mode, `comment` begins a text that ends with a line EOF
    counted: bool = False  # the text ends with the number of its lines, in place of `end`
    shown: re.Pattern[str] | None = None  # what begins a list in `show access-lists`: kind, and name if it filters
    vdcs: bool = False  # `switchto vdc` begins the configuration of another device
