# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A DNSBL asked about every own address: one socket, many queries on their way at once, and no more than is polite.

The test entries are asked before and after. A server that fails them, is silent, or answers with an error of the DNSBL
freezes the run. IPv6 is asked for one address of each /64 in use; the whole of it is more than anybody can ask.

Sources: RFC 1035 4.1 (the messages), RFC 5782 2.1, 2.4 and 5 (the names asked, the test entries); Spamhaus, "Data Query
Service" (the key is the first label of the zone). That a /64 of Spamhaus is listed as one is [memory].
"""

from __future__ import annotations

import heapq
import ipaddress
import itertools
import random
import re
import select
import socket
import struct
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from .xbl import (
    LISTED_TESTS,
    UNLISTED_TESTS,
    Answer,
    Doubt,
    Listing,
    Network,
    Ranges,
    checked,
    listing_name,
    lists_of,
    prefixes_of,
    without,
)

ZONE = "zen.spamhaus.org"
RATE = 50.0  # queries a second
LONGEST = 12 * 3600  # seconds; a space that would take longer is not swept
IN_FLIGHT, IDENTIFIERS = 100, 4096
TIMEOUT, ATTEMPTS = 3.0, 3
SILENCE = 50  # questions without an answer, one after another, that make a server a dead one
BLOCKS = 256  # /64 of one lease
NXDOMAIN = 3
_RCODES = {1: "FORMERR", 2: "SERVFAIL", 4: "NOTIMP", 5: "REFUSED"}
_A_IN = b"\0\1\0\1"
_HEADER = b"\1\0\0\1\0\0\0\0\0\0"  # recursion desired, one question
_LABELS = [bytes([len(str(octet))]) + str(octet).encode() for octet in range(256)]
_NIBBLES = {digit: b"\1" + digit.encode() for digit in "0123456789abcdef"}

Subject = Network | int  # an IPv4 address of a sweep is a number
# What a DNSBL answers for a question: the A records, or why there is no answer.
Reply = tuple[str, ...] | str
_Question = tuple[Subject, bytes]  # as RFC 1035 4.1.2 has it
_Query = tuple[_Question, int]  # with the number of the attempt
_Sent = tuple[_Question, int, float]  # and when it was sent


@dataclass(frozen=True, slots=True)
class Dnsbl:
    """A DNSBL, and the server that is asked for it."""

    zone: str = ZONE
    key: str = field(default="", repr=False)  # shown nowhere: who has it asks at your expense
    server: str = "127.0.0.1"
    port: int = 53
    rate: float = RATE  # 0: as fast as the server answers, which is for a mirror of your own
    timeout: float = TIMEOUT

    def ask(self, own: Sequence[str], first: Sequence[str] = ()) -> Answer:
        """Every own IPv4 address, and the IPv6 addresses of `first`; those of `first` before all others."""
        mine = Ranges(own)
        try:
            answer = self._ask(mine, first)
        except Doubt as doubt:
            answer = Answer("dns", frozen=str(doubt))
        return checked(answer, mine)

    def _ask(self, mine: Ranges, first: Sequence[str]) -> Answer:
        zone = self._zone()
        problems: list[str] = []
        most = int(self.rate * LONGEST) if self.rate else None  # questions
        wanted = dict(itertools.islice(_wanted(mine, first, problems), most))
        wanted_ipv4 = {int(one.network_address) for one in wanted if one.version == 4}
        total = sum(one.num_addresses for one in mine.of(4))
        whole = most is None or total <= most
        if not whole:
            problems.append(
                f"dns: {total} addresses at {self.rate:g} a second take too long, so that only {len(wanted)} in use"
                " were asked; take the feed, or ask a mirror of your own without a limit"
            )
        questions = itertools.chain(
            ((one, _name(address) + zone) for one, address in wanted.items()),
            _sweep_names(mine, wanted_ipv4, zone) if whole else (),
        )
        listings: list[Listing] = []
        failed: list[Subject] = []
        reasons: list[str] = []
        with self._socket() as connection:
            families = sorted({one.version for one in wanted} | ({4} if mine.of(4) else set()))
            lookups = Lookups(connection, self.rate, self.timeout)
            self._self_test(lookups, families, zone)
            for subject, reply in lookups.all(questions):
                if isinstance(reply, str):
                    failed.append(subject)
                    reasons.append(reply)
                elif reply:
                    named = listing_name(_network(subject))
                    listings += [Listing(named, name, code) for name, code in lists_of(reply, f"dns: {self.zone}")]
            self._self_test(lookups, families, zone)
        if reasons:
            problems.append(f"dns: {len(reasons)} addresses without an answer ({reasons[-1]}); they stay as they were")
        unanswered = [_network(subject) for subject in failed]
        unanswered += without(mine.of(6), [one for one in wanted if one.version == 6])
        if not whole:
            unanswered += without(mine.of(4), [one for one in wanted if one.version == 4])
        if mine.of(6):
            problems.append("dns: of the own IPv6 prefixes only addresses in use were asked; take the API or the feed")
        return Answer("dns", tuple(listings), prefixes_of(unanswered), tuple(problems))

    def _zone(self) -> bytes:
        """The zone as RFC 1035 writes it. Never show it: it begins with the key."""
        if self.key and not re.fullmatch("[A-Za-z0-9]{1,63}", self.key):
            raise Doubt("dns: the key is not made of letters and digits alone; copy it again from your account")
        labels = [label.encode() for label in (self.key, *self.zone.strip(".").split(".")) if label]
        if not labels or not all(re.fullmatch(rb"[A-Za-z0-9_-]{1,63}", label) for label in labels):
            raise Doubt(f"dns: {self.zone!r} is no name of a zone, as zen.spamhaus.org is")
        return b"".join(bytes([len(label)]) + label.lower() for label in labels) + b"\0" + _A_IN

    def _socket(self) -> socket.socket:
        connection = None
        try:
            address = ipaddress.ip_address(self.server)
            family = socket.AF_INET if address.version == 4 else socket.AF_INET6
            connection = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            connection.connect((str(address), self.port))
        except (OSError, ValueError) as error:
            if connection:
                connection.close()
            raise Doubt(f"dns: {self.server} port {self.port}: {error}; name the address of a resolver") from None
        return connection

    def _self_test(self, lookups: Lookups, families: Iterable[int], zone: bytes) -> None:
        where = f"dns: {self.zone} at {self.server}"
        for family in families:
            tests = [ipaddress.ip_network(test[family]) for test in (LISTED_TESTS, UNLISTED_TESTS)]
            replies = dict(lookups.all((test, _name(test) + zone) for test in tests))
            listed, unlisted = (replies.get(test, "no answer") for test in tests)
            for test, reply in zip(tests, (listed, unlisted), strict=True):
                if isinstance(reply, str):
                    raise Doubt(
                        f"{where}: no answer for {test.network_address} ({reply}); does it run, and serve this host?"
                    )
                list(lists_of(reply, where))
            if not listed:
                raise Doubt(f"{where}: {tests[0].network_address} is not listed, as RFC 5782 has it; is that a DNSBL?")
            if unlisted:
                raise Doubt(f"{where}: {tests[1].network_address} is listed, and so may be everything; ask its maker")


def _network(subject: Subject) -> Network:
    return ipaddress.IPv4Network(subject) if isinstance(subject, int) else subject


def _wanted(mine: Ranges, first: Sequence[str], problems: list[str]) -> Iterator[tuple[Network, Network]]:
    """What of `first` is ours, as IPv4 addresses and /64, each with the address to ask for."""
    for prefix in first:
        network = ipaddress.ip_network(prefix)
        if not mine.meets(network):
            continue
        if network.version == 4:
            found = (ipaddress.IPv4Network(one) for one in network)
            yield from ((one, one) for one in found if one in mine)
        elif network.prefixlen >= 64:
            yield network.supernet(new_prefix=64), network
        elif network.prefixlen > 64 - BLOCKS.bit_length():
            yield from ((one, one) for one in network.subnets(new_prefix=64))
        else:
            problems.append(f"dns: {network} has too many /64 to ask for; take the API or the feed")


def _name(network: Network) -> bytes:
    """The name to ask for, without the zone: the first address backwards, in octets or nibbles."""
    if network.version == 4:
        return b"".join(_LABELS[octet] for octet in reversed(network.network_address.packed))
    return b"".join(_NIBBLES[digit] for digit in reversed(network.network_address.packed.hex()))


def _sweep_names(mine: Ranges, without: set[int], zone: bytes) -> Iterator[tuple[int, bytes]]:
    """All own IPv4 addresses but those, with the questions."""
    for network in mine.of(4):
        first, last = int(network.network_address), int(network.broadcast_address)
        for block in range(first >> 8, (last >> 8) + 1):
            tail = b"".join((_LABELS[block & 255], _LABELS[block >> 8 & 255], _LABELS[block >> 16], zone))
            for number in range(max(first, block << 8), min(last, block << 8 | 255) + 1):
                if number not in without:
                    yield number, _LABELS[number & 255] + tail


# -- asking ------------------------------------------------------------------------------------------------------


class Lookups:
    """Questions over one connected socket. What has no answer in time is asked again, later each time."""

    def __init__(self, connection: socket.socket, rate: float, timeout: float) -> None:
        self._connection, self._timeout = connection, timeout
        self._gap = 1 / rate if rate else 0.0
        self._next = 0.0  # when the next query may be sent
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)
        identifiers = random.SystemRandom().sample(range(1 << 16), IDENTIFIERS)
        self._identifiers = itertools.cycle([struct.pack(">H", number) for number in identifiers])
        self._waiting: dict[bytes, _Sent] = {}  # by identifier, in the order in which they were sent
        self._later: list[tuple[float, int, _Query]] = []  # a heap, by time
        self._count = itertools.count()
        self._failed = 0  # questions since the last answer

    def all(self, questions: Iterable[_Question]) -> Iterator[tuple[Subject, Reply]]:
        """Each subject with its reply, as they come. Raises Doubt where the server answers nothing any more."""
        source = iter(questions)
        while True:
            more = self._send(source)
            if not self._waiting and not self._later and not more:
                return
            found = self._receive()
            if not found:
                found = self._expired()
                self._wait(more)
            yield from found

    def _send(self, source: Iterator[_Question]) -> bool:
        """What may be sent now; whether there is more to send."""
        waiting, later, gap, send = self._waiting, self._later, self._gap, self._connection.send
        identifiers = self._identifiers
        now = time.monotonic()
        for _ in range(IN_FLIGHT - len(waiting)):
            if gap and now < self._next:
                return True
            if later and later[0][0] <= now:
                question, attempt = heapq.heappop(later)[2]
            else:
                following = next(source, None)
                if following is None:
                    return False
                question, attempt = following, 1
            identifier = next(identifiers)
            while identifier in waiting:
                identifier = next(identifiers)
            waiting[identifier] = (question, attempt, now)
            if gap:
                self._next = max(self._next, now - gap) + gap
            try:
                send(identifier + _HEADER + question[1])
            except OSError:  # a full buffer or a closed port: as a packet that was lost on the way
                continue
        return True

    def _receive(self) -> list[tuple[Subject, Reply]]:
        """The replies that are there."""
        waiting, receive = self._waiting, self._connection.recv
        found: list[tuple[Subject, Reply]] = []
        while waiting:
            try:
                packet = receive(4096)
            except BlockingIOError:
                break
            except OSError:  # a closed port
                continue
            identifier = packet[:2]
            sent = waiting.pop(identifier, None)
            if sent is None:
                continue
            subject, asked = sent[0]
            if not packet.startswith(asked, 12):
                waiting[identifier] = sent  # nobody asked for that
                continue
            if packet[3] & 15 == NXDOMAIN and packet[2] & 0x82 == 0x80:  # as almost all
                self._failed = 0
                found.append((subject, ()))
                continue
            reply = parse_reply(packet, 12 + len(asked))
            if isinstance(reply, str):
                found += self._again(sent, reply)
            else:
                self._failed = 0
                found.append((subject, reply))
        return found

    def _expired(self) -> list[tuple[Subject, Reply]]:
        """What has waited too long, and is not asked again."""
        late = time.monotonic() - self._timeout
        found: list[tuple[Subject, Reply]] = []
        for identifier, sent in list(self._waiting.items()):
            if sent[2] > late:
                break
            del self._waiting[identifier]
            found += self._again(sent, "timeout")
        return found

    def _wait(self, more: bool) -> None:
        """Until there is something to receive, to send, or to give up."""
        times = [sent[2] + self._timeout for sent in itertools.islice(self._waiting.values(), 1)]
        times += [self._later[0][0]] if self._later else []
        times += [self._next] if more and len(self._waiting) < IN_FLIGHT else []
        if times:
            self._poll.poll(max(0.0, min(times) - time.monotonic()) * 1000)

    def _again(self, sent: _Sent, reason: str) -> list[tuple[Subject, Reply]]:
        """Ask later, or give up."""
        question, attempt, _ = sent
        if attempt < ATTEMPTS:
            due = time.monotonic() + self._timeout * 2 ** (attempt - 1)
            heapq.heappush(self._later, (due, next(self._count), (question, attempt + 1)))
            return []
        self._failed += 1
        if self._failed >= SILENCE:
            raise Doubt(f"dns: no answer to {SILENCE} questions in a row ({reason}); does the server still run?")
        return [(question[0], reason)]


def parse_reply(packet: bytes, at: int) -> Reply:
    """The A records of a response whose answers begin at `at`; none where the name does not exist, or has none."""
    flags, code = packet[2], packet[3] & 15
    if flags & 0x82 != 0x80:
        return "a truncated answer" if flags & 2 else "no response"
    if code == NXDOMAIN:
        return ()
    if code:
        return _RCODES.get(code, f"response code {code}")
    found = []
    try:
        for _ in range(packet[6] << 8 | packet[7]):
            while 0 < packet[at] < 0xC0:
                at += 1 + packet[at]
            at += 2 if packet[at] else 1
            kind, _, _, length = struct.unpack_from(">HHIH", packet, at)
            at += 10 + length
            if kind == 1 and length == 4:
                found.append(socket.inet_ntoa(packet[at - 4 : at]))
    except (IndexError, struct.error, OSError):
        return "a broken answer"
    return tuple(found) if at <= len(packet) else "a broken answer"
