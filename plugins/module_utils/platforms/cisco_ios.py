# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Cisco IOS and IOS-XE."""

from __future__ import annotations

from collections.abc import Sequence

from ..filters import PERMIT, Configuration
from ._cisco_like import IANA_TCP, IANA_UDP, ICMP6_NAMES, ICMP_NAMES, TCP, UDP, Dialect
from ._cisco_like import parse as parse_text

DIALECT = Dialect(
    title="Cisco IOS",
    protocols={
        "ahp": 51, "eigrp": 88, "esp": 50, "gre": 47, "igmp": 2, "igrp": 9, "ipinip": 4, "nos": 94, "ospf": 89,
        "pcp": 108, "pim": 103, "sctp": 132, "tcp": 6, "udp": 17,
    },
    ports={
        TCP: IANA_TCP
        | {
            "bgp": 179, "chargen": 19, "cmd": 514, "connectedapps-plain": 15001, "connectedapps-tls": 15002,
            "daytime": 13, "discard": 9, "domain": 53, "drip": 3949, "echo": 7, "exec": 512, "finger": 79, "ftp": 21,
            "ftp-data": 20, "gopher": 70, "hostname": 101, "ident": 113, "irc": 194, "klogin": 543, "kshell": 544,
            "login": 513, "lpd": 515, "msrpc": 135, "nntp": 119, "onep-plain": 15001, "onep-tls": 15002,
            "pim-auto-rp": 496, "pop2": 109, "pop3": 110, "smtp": 25, "sunrpc": 111, "syslog": 514, "tacacs": 49,
            "tacacs-ds": 65, "talk": 517, "telnet": 23, "time": 37, "uucp": 540, "whois": 43, "www": 80,
        },
        UDP: IANA_UDP
        | {
            "biff": 512, "bootpc": 68, "bootps": 67, "discard": 9, "dnsix": 195, "domain": 53, "echo": 7,
            "isakmp": 500, "mobile-ip": 434, "nameserver": 42, "netbios-dgm": 138, "netbios-ns": 137,
            "netbios-ss": 139, "non500-isakmp": 4500, "ntp": 123, "pim-auto-rp": 496, "rip": 520, "ripv6": 521,
            "snmp": 161, "snmptrap": 162, "sunrpc": 111, "syslog": 514, "tacacs": 49, "talk": 517, "tftp": 69,
            "time": 37, "who": 513, "xdmcp": 177,
        },
    },
    icmp_names={4: ICMP_NAMES, 6: ICMP6_NAMES},
    bindings={("ip", "access-group"): 4, ("ipv6", "traffic-filter"): 6},
    bindable=frozenset({"template", "policy-map", "service-template"}),
    undefined=PERMIT,
    empty=PERMIT,
    later_fragments=frozenset({4}),
    header_chain=True,
    neighbour_discovery=((136, "nd-na"), (135, "nd-ns")),
    neighbour_discovery_doubt="",
    ignored=frozenset({"remark"}),
    suspicious=((("ip", "inspect"), "inspection opens the access lists for return traffic"),),
    not_lists=frozenset(
        {"log-update", "logging", "resequence", "persistent", "helper", "match-local-traffic", "role-based"}
    ),
)  # fmt: skip


def parse(text: str, attachments: Sequence[str] = ()) -> Configuration:  # noqa: ARG001 - lists do not depend on them
    return parse_text(text, DIALECT)
