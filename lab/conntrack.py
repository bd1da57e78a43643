# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The connection tracking table of a namespace: forget all, or have a connection that began before the filter did.

Source: include/uapi/linux/netfilter/nfnetlink_conntrack.h, nf_conntrack_common.h, nf_conntrack_tcp.h.
"""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import replace

from .judge import Packet
from .netns import Namespace

NETLINK_NETFILTER = 12
NEW, DELETE = 0x0100, 0x0102  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_NEW and _DELETE
REQUEST, ACKNOWLEDGE, CREATE, EXCLUSIVE = 0x1, 0x4, 0x400, 0x200
NLMSG_ERROR = 2
NESTED = 0x8000
TUPLE_ORIGINAL, TUPLE_REPLY, STATUS, PROTOCOL_INFO, TIMEOUT = 1, 2, 3, 4, 7
TUPLE_ADDRESSES, TUPLE_PROTOCOL = 1, 2
TUPLE_MASTER = 14
SEEN_REPLY, ASSURED, CONFIRMED = 2, 4, 8
ECHO = {1: {8: 0, 0: 8, 13: 14, 14: 13}, 58: {128: 129, 129: 128}}  # what answers what
ECHO_ATTRIBUTES = {1: (4, 5, 6), 58: (7, 8, 9)}  # identifier, type, code
ECHO_NUMBER = 7  # the identifier that lab/packets.py puts into ICMP messages
TCP, UDP = 6, 17
TCP_ESTABLISHED, LIBERAL = 3, 0x08  # liberal: no look at sequence numbers
LIFETIME = 60  # seconds


def attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data + b"\0" * (-len(data) % 4)


def nested(kind: int, *inside: bytes) -> bytes:
    return attribute(kind | NESTED, b"".join(inside))


def request(namespace: Namespace, kind: int, flags: int, family: int, body: bytes) -> None:
    """Ask the kernel, and raise OSError when it says no."""
    payload = struct.pack("=BBH", family, 0, 0) + body
    message = struct.pack("=IHHII", 16 + len(payload), kind, REQUEST | ACKNOWLEDGE | flags, 1, 0) + payload
    with namespace.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as netlink:
        netlink.bind((0, 0))
        netlink.settimeout(5)
        netlink.send(message)
        answer = netlink.recv(65535)
    _, answered, _, _, _, number = struct.unpack_from("=IHHIIi", answer)
    if answered == NLMSG_ERROR and number:
        raise OSError(-number, f"connection tracking: {os.strerror(-number)}")


def forget(namespace: Namespace) -> None:
    """Empty the table, so that no earlier packet has a say about the next."""
    request(namespace, DELETE, 0, socket.AF_UNSPEC, b"")


def pair(packet: Packet) -> tuple[bytes, bytes]:
    """The two ends of the packet's connection, as the packet goes and as answers come (the insides of tuples)."""
    size = 4 if packet.family == 4 else 16
    near, far = packet.source.to_bytes(size, "big"), packet.destination.to_bytes(size, "big")
    source, destination = (1, 2) if packet.family == 4 else (3, 4)
    there, back = b"", b""
    if packet.protocol in (TCP, UDP):
        one, other = struct.pack("!H", packet.source_port), struct.pack("!H", packet.destination_port)
        there, back = attribute(2, one) + attribute(3, other), attribute(2, other) + attribute(3, one)
    elif packet.protocol in ECHO:
        number, kind, code = ECHO_ATTRIBUTES[packet.protocol]
        same = attribute(number, struct.pack("!H", ECHO_NUMBER)) + attribute(code, bytes((packet.icmp_code,)))
        there = same + attribute(kind, bytes((packet.icmp_type,)))
        back = same + attribute(kind, bytes((ECHO[packet.protocol].get(packet.icmp_type, packet.icmp_type),)))
    protocol = attribute(1, bytes((packet.protocol,)))
    return (
        nested(TUPLE_ADDRESSES, attribute(source, near), attribute(destination, far))
        + nested(TUPLE_PROTOCOL, protocol, there),
        nested(TUPLE_ADDRESSES, attribute(source, far), attribute(destination, near))
        + nested(TUPLE_PROTOCOL, protocol, back),
    )


def enter(namespace: Namespace, packet: Packet, status: int, master: bytes = b"") -> None:
    there, back = pair(packet)
    body = nested(TUPLE_ORIGINAL, there) + nested(TUPLE_REPLY, back)
    body += nested(TUPLE_MASTER, master) if master else b""
    body += attribute(STATUS, struct.pack("!I", status | CONFIRMED)) + attribute(TIMEOUT, struct.pack("!I", LIFETIME))
    if packet.protocol == TCP:
        liberal = bytes((LIBERAL, LIBERAL))
        state = attribute(1, bytes((TCP_ESTABLISHED,)))
        body += nested(PROTOCOL_INFO, nested(1, state, attribute(4, liberal), attribute(5, liberal)))
    request(namespace, NEW, CREATE | EXCLUSIVE, socket.AF_INET if packet.family == 4 else socket.AF_INET6, body)


def establish(namespace: Namespace, packet: Packet) -> None:
    """Have the connection that the packet belongs to, seen in both directions."""
    enter(namespace, packet, SEEN_REPLY | ASSURED)


def relate(namespace: Namespace, packet: Packet) -> None:
    """Have a connection that the packet is the first of, and that another one brought about, as FTP does."""
    master = replace(packet, protocol=UDP, source_port=5060, destination_port=5060)
    enter(namespace, master, SEEN_REPLY | ASSURED)
    enter(namespace, packet, 0, pair(master)[0])  # the kernel itself marks it as expected
