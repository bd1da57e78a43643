# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A DNSBL that answers as a test wants, also as no real one would when it is asked to. The messages are dnspython's."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import dns.flags
import dns.message
import dns.rcode
import dns.reversename
import dns.rrset

ZONE = "zen.example.net"
LISTED_TEST = "127.0.0.2"

# What to answer for an address: A records, a response code, None for nothing at all, or octets.
Answers = Callable[[str], list[str] | dns.rcode.Rcode | bytes | None]


@dataclass
class Dnsbl:
    """Where it listens, and what it was asked."""

    port: int
    zone: str
    asked: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)


@contextmanager
def dnsbl(answers: Answers, zone: str = ZONE) -> Iterator[Dnsbl]:
    """The server, on the loopback address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(0.05)
        made = Dnsbl(server.getsockname()[1], zone)
        done = threading.Event()
        thread = threading.Thread(target=_serve, args=(server, answers, made, done))
        thread.start()
        try:
            yield made
        finally:
            done.set()
            thread.join()


def _serve(server: socket.socket, answers: Answers, made: Dnsbl, done: threading.Event) -> None:
    while not done.is_set():
        try:
            packet, client = server.recvfrom(512)
        except TimeoutError:
            continue
        query = dns.message.from_wire(packet)
        name = query.question[0].name
        made.names.append(name.to_text())
        labels = name.relativize(dns.name.from_text(made.zone)).to_text().split(".")
        suffix = "in-addr.arpa" if len(labels) == 4 else "ip6.arpa"
        address = dns.reversename.to_address(dns.name.from_text(".".join([*labels, suffix])))
        made.asked.append(address)
        wanted = answers(address)
        if wanted is None:
            continue
        if isinstance(wanted, bytes):
            server.sendto(packet[:2] + wanted, client)
            continue
        response = dns.message.make_response(query)
        if isinstance(wanted, dns.rcode.Rcode):
            response.set_rcode(wanted)
        elif wanted:
            response.answer.append(dns.rrset.from_text(name, 60, "IN", "A", *wanted))
        else:
            response.set_rcode(dns.rcode.NXDOMAIN)
        server.sendto(response.to_wire(), client)
