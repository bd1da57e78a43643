# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Arista EOS."""

from __future__ import annotations

from collections.abc import Sequence

from ..filters import UNKNOWN, Configuration
from ._cisco_like import IANA_TCP, IANA_UDP, ICMP6_NAMES, ICMP_NAMES, TCP, UDP, Dialect
from ._cisco_like import parse as parse_text

DIALECT = Dialect(
    title="Arista EOS",
    protocols={
        "ahp": 51, "icmpv6": 58, "igmp": 2, "ospf": 89, "pim": 103, "rsvp": 46, "sctp": 132, "tcp": 6, "udp": 17,
        "vrrp": 112,
    },
    ports={
        TCP: IANA_TCP
        | {
            "cmd": 514, "exec": 512, "lpd": 515, "mlag": 4432, "pim-auto-rp": 496, "syslog": 514, "tunnel": 604,
        },
        UDP: IANA_UDP
        | {
            "bfd": 3784, "bfd-echo": 3785, "dnsix": 195, "mlag": 4432, "non500-isakmp": 4500, "pim-auto-rp": 496,
        },
    },
    icmp_names={4: ICMP_NAMES, 6: ICMP6_NAMES},
    bindings={("ip", "access-group"): 4, ("ipv4", "access-group"): 4, ("ipv6", "access-group"): 6},
    bindable=frozenset(),
    undefined=UNKNOWN,
    empty=UNKNOWN,
    later_fragments=frozenset(),
    header_chain=False,
    neighbour_discovery=((133, "router-solicitation"), (134, "router-advertisement"), (135, "nd-ns"), (136, "nd-na")),
    neighbour_discovery_doubt="which four neighbour discovery messages every IPv6 list permits is not documented",
    ignored=frozenset({"statistics", "counters", "fragment-rules"}),
    suspicious=(
        (("mac", "access-group"), "a MAC access list filters too, and is not read"),
        (("traffic-policy",), "a traffic policy filters too, and is not read"),
    ),
)  # fmt: skip


def parse(text: str, attachments: Sequence[str] = ()) -> Configuration:  # noqa: ARG001 - lists do not depend on them
    return parse_text(text, DIALECT)
