# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Packets for the lab's own verdicts, and the way to ask for one. Shares no code with plugins/."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .routers.base import Router


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet. Addresses are numbers; what its header does not have stays 0.

    fragment: 0 none, 1 first, 2 (or 3) later. extension, the first IPv6 extension header: 0 none, 1 hop-by-hop,
    2 routing, 3 fragment, 4 destination options, 5 mobility. tcp_flags as on the wire: FIN 1, SYN 2, RST 4, PSH 8,
    ACK 16, URG 32. undetermined 1: the upper-layer header is not whole in it. protocol: the upper-layer one.
    """

    family: int
    source: int
    destination: int
    protocol: int
    source_port: int = 0
    destination_port: int = 0
    tcp_flags: int = 0
    fragment: int = 0
    icmp_type: int = 0
    icmp_code: int = 0
    extension: int = 0
    undetermined: int = 0
    state: int = 0
    tos: int = 0
    ttl: int = 64
    length: int = 60
    options: int = 0

    @property
    def later(self) -> bool:
        """A non-initial fragment: it has no upper-layer header."""
        return self.fragment >= 2

    @property
    def layer4(self) -> bool:
        """The upper-layer header is there and can be read."""
        return not self.later and not self.undetermined


def packet(values: Mapping[str, object]) -> Packet:
    """A packet from a mapping as JSON has it: addresses are text, the rest numbers. Raises ValueError."""
    known = {field.name for field in fields(Packet)}
    if unknown := sorted(set(values) - known):
        raise ValueError(f"a packet has no field '{unknown[0]}', only {', '.join(sorted(known))}")
    if missing := sorted({"family", "source", "destination", "protocol"} - set(values)):
        raise ValueError(f"the packet has no '{missing[0]}'")
    numbers: dict[str, int] = {}
    for name, value in values.items():
        if name in ("source", "destination"):
            address = ipaddress.ip_address(str(value))
            if address.version != values["family"]:
                raise ValueError(f"'{value}' is not an IPv{values['family']} address")
            numbers[name] = int(address)
        elif isinstance(value, int):
            numbers[name] = int(value)
        else:
            raise ValueError(f"'{name}' of a packet is a number, not {value!r}")
    return Packet(**numbers)


def judge(router: Router, attachment: str, direction: str, values: Mapping[str, object]) -> str:
    """'permit' or 'deny' for a packet, direction 'up' (from subscribers) or 'down'.

    Raises ValueError for a bad packet or direction, KeyError for an attachment that the router does not have.
    """
    if direction not in ("up", "down"):
        raise ValueError(f"a direction is up or down, not '{direction}'")
    with router.clock.lock:
        router.clock.settle()
        return router.judge(attachment, direction, packet(values))
