# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Packets as bytes, sent into one end of a router and looked for at the others.

Formats: RFC 791 (IPv4), 8200 (IPv6 and its extension headers), 9293 (TCP), 768 (UDP), 792 and 4443 (ICMP), 1071
(checksum).
"""

from __future__ import annotations

import contextlib
import secrets
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .judge import Packet
from .netns import Namespace

TCP, UDP, ICMP, ICMP6 = 6, 17, 1, 58
ROUTING, FRAGMENT, OPTIONS = 43, 44, 60
EXTENSIONS = {1: 0, 2: ROUTING, 4: OPTIONS, 5: 135}  # without the fragment header, which has its own place
ETHERTYPE = {4: 0x0800, 6: 0x86DD}
ALL_PACKETS = 0x0003  # ETH_P_ALL
MARK = 16  # bytes that tell a packet of ours from all others
ERRORS = {ICMP: (3, 4, 5, 11, 12), ICMP6: (1, 2, 3, 4)}
PATIENCE = 0.2  # seconds; the kernel forwards within the call that sends, unless the machine is very busy
PACE = 0.002  # seconds between bursts of a flood, so that others can work


@dataclass(frozen=True, slots=True)
class Port:
    """One end of a cable: where it is, and the MAC address of the router at the other end."""

    namespace: Namespace
    interface: str
    router: bytes

    def send(self, mouth: socket.socket, packet: bytes) -> int:
        ethertype = ETHERTYPE[packet[0] >> 4]
        return mouth.sendto(packet, (self.interface, ethertype, 0, 0, self.router))

    def open(self) -> socket.socket:
        """A socket that sends and sees whole IP packets there."""
        here = self.namespace.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ALL_PACKETS))
        here.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        here.bind((self.interface, ALL_PACKETS))
        here.setblocking(False)
        return here


@dataclass(frozen=True, slots=True)
class Crafted:
    """What goes on the wire for a packet, and how to know it again: `first` is in its beginning, `later` in its end.

    A fragment never comes alone: the other half is sent too, for a router that puts fragments together needs both.
    """

    packets: tuple[bytes, ...]
    first: bytes
    later: bytes


def checksum(data: bytes) -> int:
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def addresses(packet: Packet) -> bytes:
    size = 4 if packet.family == 4 else 16
    return packet.source.to_bytes(size, "big") + packet.destination.to_bytes(size, "big")


def upper_layer(packet: Packet, data: bytes) -> bytes:
    """The upper-layer header with its checksum, and the data."""
    ports = struct.pack("!HH", packet.source_port, packet.destination_port)
    if packet.protocol == TCP:
        segment = ports + struct.pack("!IIBBHHH", 1000, 2000, 5 << 4, packet.tcp_flags, 65535, 0, 0) + data
        place = 16
    elif packet.protocol == UDP:
        segment = ports + struct.pack("!HH", 8 + len(data), 0) + data
        place = 6
    elif packet.protocol in ERRORS:
        errs = packet.icmp_type in ERRORS[packet.protocol]
        # An error quotes the packet that it is about; other messages have an identifier and a sequence number.
        segment = struct.pack("!BBHI", packet.icmp_type, packet.icmp_code, 0, 1280 if errs else 0x00070001)
        about = subject(packet)
        segment += (internet(about, UDP, upper_layer(about, b"quoted.."), 1) if errs else b"") + data
        place = 2
    else:
        return data
    tail = struct.pack("!BBH", 0, packet.protocol, len(segment))
    if packet.family == 6:
        tail = struct.pack("!IBBBB", len(segment), 0, 0, 0, packet.protocol)
    pseudo = b"" if packet.protocol == ICMP else addresses(packet) + tail
    return segment[:place] + struct.pack("!H", checksum(pseudo + segment)) + segment[place + 2 :]


def subject(packet: Packet) -> Packet:
    """The packet that an ICMP error is about: DNS over UDP, from the receiver of the error."""
    return Packet(packet.family, packet.destination, packet.source, UDP, source_port=40000, destination_port=53)


def internet(packet: Packet, protocol: int, payload: bytes, number: int, fragment: int = 0) -> bytes:
    """An IP packet around the payload. `fragment`: the IPv4 flags and offset; `number`: what tells packets apart."""
    if packet.family == 6:
        head = struct.pack("!IHBB", 6 << 28 | packet.tos << 20 | number, len(payload), protocol, packet.ttl)
        return head + addresses(packet) + payload
    options = b"\x01\x01\x01\x00" if packet.options else b""
    words = 5 + len(options) // 4
    head = struct.pack(
        "!BBHHHBBH", 4 << 4 | words, packet.tos, 4 * words + len(payload), number, fragment, packet.ttl, protocol, 0
    )
    head += addresses(packet) + options
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def extension(kind: int, following: int, data: bytes = b"") -> bytes:
    """An IPv6 extension header that asks for nothing, with the data as padding."""
    if kind == ROUTING:  # type 253 is for experiments, no segments are left
        return bytes((following, 0, 253, 0)) + b"\0" * 4
    room = data or b"\0" * 4
    return bytes((following, (len(room) + 4) // 8 - 1, 1, len(room))) + room


def craft(packet: Packet) -> Crafted:
    """The bytes of a packet. Longer than 1500 bytes it does not get."""
    first, later = secrets.token_bytes(MARK), secrets.token_bytes(MARK)
    number = secrets.randbelow(1 << 16)
    header = len(upper_layer(packet, b""))
    parts: list[tuple[int, bytes]] = []  # extension headers: kind, data
    if packet.family == 6 and packet.extension in EXTENSIONS:
        parts.append((EXTENSIONS[packet.extension], b""))
    fragmented = packet.fragment > 0
    start = first
    if packet.undetermined and fragmented and packet.family == 6:
        start = b""  # the upper-layer header is in the second fragment; the mark stands in a header before
        header = 0
    padding = b"\0" * (-(header + len(start)) % 8 if fragmented else 0)
    data = start + padding + (later if fragmented else b"")
    size = 40 + 8 * len(parts) if packet.family == 6 else 24 if packet.options else 20
    data += b"\0" * (min(packet.length, 1500) - size - len(upper_layer(packet, data)))
    segment = upper_layer(packet, data)
    if packet.undetermined and not fragmented:
        # Cut off in the middle of the upper-layer header: only its beginning is there, and no mark fits.
        segment = segment[:2]
        first = (
            struct.pack("!I", 6 << 28 | packet.tos << 20 | number) if packet.family == 6 else struct.pack("!H", number)
        )
    split = header + len(start) + len(padding)
    if packet.family == 4:
        if not fragmented:
            return Crafted((internet(packet, packet.protocol, segment, number),), first, later)
        halves = (
            internet(packet, packet.protocol, segment[:split], number, 0x2000),
            internet(packet, packet.protocol, segment[split:], number, split // 8),
        )
        return Crafted(halves, first, later)
    following = packet.protocol
    if packet.undetermined and fragmented:
        segment = extension(OPTIONS, following, first + b"\0" * 4) + segment
        following, split = OPTIONS, 24
    cuts = [(0, 1, segment[:split]), (split, 0, segment[split:])] if fragmented else [(0, 0, segment)]
    packets = []
    for offset, more, piece in cuts:
        inside, next_header = piece, following
        if fragmented or packet.extension == 3:
            inside = struct.pack("!BBHI", next_header, 0, offset | more, number) + inside
            next_header = FRAGMENT
        for kind, content in reversed(parts):
            inside, next_header = extension(kind, next_header, content) + inside, kind
        packets.append(internet(packet, next_header, inside, number))
    return Crafted(tuple(packets), first, later)


def arriving(
    sender: Port, receivers: Sequence[Port], several: Sequence[Packet], patience: float = PATIENCE
) -> list[bool]:
    """Send them, and say for each whether it comes out at any of the receivers, `patience` seconds after the last."""
    crafted = [craft(packet) for packet in several]
    missing = {}
    for index, packet in enumerate(several):
        missing[crafted[index].later if packet.later else crafted[index].first] = index
    with contextlib.ExitStack() as stack:
        ears = [stack.enter_context(port.open()) for port in receivers]
        mouth = stack.enter_context(sender.open())
        for one in crafted:
            for data in one.packets:
                sender.send(mouth, data)
        end = time.monotonic() + patience
        while missing and (left := end - time.monotonic()) > 0:
            for ear in select.select(ears, [], [], left)[0]:
                heard = ear.recv(65535)
                for mark in [mark for mark in missing if mark in heard]:
                    del missing[mark]
    lost = set(missing.values())
    return [index not in lost for index in range(len(several))]


class Count:
    """What a flood sent and what of it came through."""

    def __init__(self) -> None:
        self.sent = 0
        self.leaked = 0


@contextlib.contextmanager
def flood(sender: Port, receivers: Sequence[Port], packet: Packet) -> Iterator[Count]:
    """Send a packet over and over while the block runs; behind the block the counts are final."""
    crafted = craft(packet)
    count = Count()
    over, silent = threading.Event(), threading.Event()
    ears = [port.open() for port in receivers]
    mouth = sender.open()

    def listen() -> None:
        last = False
        while not last:
            last = silent.is_set()  # one look more after the last packet was sent
            for ear in select.select(ears, [], [], PATIENCE)[0]:
                with contextlib.suppress(BlockingIOError):
                    while True:
                        count.leaked += crafted.first in ear.recv(65535)

    def send() -> None:
        while not over.is_set():
            for _ in range(20):
                # A full queue is no leak.
                with contextlib.suppress(BlockingIOError):
                    count.sent += 1 if sender.send(mouth, crafted.packets[0]) else 0
            time.sleep(PACE)

    listener, speaker = threading.Thread(target=listen, daemon=True), threading.Thread(target=send, daemon=True)
    listener.start()
    speaker.start()
    try:
        yield count
    finally:
        over.set()
        speaker.join()
        silent.set()
        listener.join()
        for used in (*ears, mouth):
            used.close()
