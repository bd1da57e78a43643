# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What blocklists say of our own addresses: what the three sources (DNS, API, feed) have in common.

A source answers for own prefixes: what is listed, and what it has not answered for. An address that is neither is not
listed; one that was not answered for is neither listed nor delisted. A source in doubt is frozen: it says nothing.

Sources: RFC 5782 (DNSBLs and their test entries); Spamhaus, "Available Zones" (docs.spamhaus.com, return codes) and
"DNSBL return codes: technical update" (2019-09-30: 127.255.255.0/24 are errors of the query, never a listing).
"""

from __future__ import annotations

import bisect
import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Spamhaus, "Available Zones".
LISTS = {
    "127.0.0.2": "SBL",
    "127.0.0.3": "CSS",
    "127.0.0.4": "XBL",
    "127.0.0.9": "DROP",
    "127.0.0.10": "PBL",
    "127.0.0.11": "PBL",
    "127.0.0.30": "BCL",
}
# The PBL says where no mail should come from, which is most of an ISP, and nothing about an infection.
NOT_FOLLOWED = frozenset({"PBL"})
_ERRORS = {
    "127.255.255.252": "the name of the zone is wrong",
    "127.255.255.254": "the query came over a public resolver; ask over one of your own",
    "127.255.255.255": "too many queries; ask less, or take the feed",
}
# RFC 5782 5: these are listed in any DNSBL, and these are not.
LISTED_TESTS = {4: "127.0.0.2", 6: "::ffff:7f00:2"}
UNLISTED_TESTS = {4: "127.0.0.1", 6: "::ffff:7f00:1"}
# No ISP has a quarter of its addresses on a list of infected hosts; a broken DNSBL has all of them.
FEW, IMPLAUSIBLE = 256, 0.25


@dataclass(frozen=True, slots=True)
class Listing:
    """An own address, or an IPv6 prefix, on a list."""

    network: str  # an address, or an IPv6 prefix with its length
    list: str  # "XBL"
    code: str = ""  # what the DNSBL answers, as 127.0.0.4
    since: int = 0  # when it was listed, where the source says so
    detail: str = ""  # what it was seen doing, where the source says so


@dataclass(frozen=True, slots=True)
class Answer:
    """What a source says. `problems` say where, what, and what to do."""

    source: str  # "dns" | "sia" | "feed"
    listings: tuple[Listing, ...] = ()
    unanswered: tuple[str, ...] = ()  # prefixes
    problems: tuple[str, ...] = ()
    frozen: str = ""  # why nothing follows from this run: no listing, no delisting


class Source(Protocol):
    """One of xbl_dns.Dnsbl, xbl_sia.Api and xbl_feed.Feed."""

    def ask(self, own: Sequence[str], first: Sequence[str]) -> Answer:
        """What is listed of the prefixes `own`. Those of `first` matter most: what was listed, and active leases."""
        ...


class Doubt(Exception):
    """Nothing that the source said can be relied on. The text says where, what, and what to do."""


class Ranges:
    """A set of addresses, given as prefixes, that quickly says whether a network is whole within it."""

    def __init__(self, prefixes: Iterable[str]) -> None:
        self.networks = collapsed(prefixes)
        self._first = {family: [int(one.network_address) for one in self.of(family)] for family in (4, 6)}
        self._last = {family: [int(one.broadcast_address) for one in self.of(family)] for family in (4, 6)}

    def of(self, family: int) -> list[Network]:
        """The prefixes of one address family, in order; none lies in another."""
        return [one for one in self.networks if one.version == family]

    def __contains__(self, network: Network) -> bool:
        at = bisect.bisect_right(self._first[network.version], int(network.network_address)) - 1
        return at >= 0 and int(network.broadcast_address) <= self._last[network.version][at]

    def meets(self, network: Network) -> bool:
        """Whether any address of it is in the set."""
        at = bisect.bisect_right(self._first[network.version], int(network.broadcast_address)) - 1
        return at >= 0 and int(network.network_address) <= self._last[network.version][at]


def collapsed(prefixes: Iterable[str]) -> list[Network]:
    """The same addresses in as few prefixes as possible, IPv4 first. Raises ValueError for what is no prefix."""
    networks = [ipaddress.ip_network(prefix) for prefix in prefixes]
    found: list[Network] = list(ipaddress.collapse_addresses([one for one in networks if one.version == 4]))
    found += ipaddress.collapse_addresses([one for one in networks if one.version == 6])
    return found


def prefixes_of(networks: Iterable[Network]) -> tuple[str, ...]:
    """Networks as text, in as few as possible."""
    return tuple(str(one) for one in collapsed(str(one) for one in networks))


def without(networks: Iterable[Network], taken: Iterable[Network]) -> Iterator[Network]:
    """What is left of some prefixes of one address family, in order, when others of it are taken out."""
    spans = sorted((int(one.network_address), int(one.broadcast_address)) for one in taken)
    at = 0
    for network in networks:
        begin, end = int(network.network_address), int(network.broadcast_address)
        make = ipaddress.IPv4Address if network.version == 4 else ipaddress.IPv6Address
        while at < len(spans) and spans[at][0] <= end:
            first, last = spans[at]
            if begin < first:
                yield from ipaddress.summarize_address_range(make(begin), make(first - 1))
            begin = max(begin, last + 1)
            at += 1
        if begin <= end:
            yield from ipaddress.summarize_address_range(make(begin), make(end))


def listing_name(network: Network) -> str:
    """A network as a Listing names it: one address has no length."""
    return str(network.network_address) if network.prefixlen == network.max_prefixlen else str(network)


def followed(code: str, where: str) -> bool:
    """Whether an answer of a DNSBL is about an infection. Raises Doubt for an answer that is no listing."""
    return all(name not in NOT_FOLLOWED for name, _ in lists_of([code], where))


def lists_of(codes: Iterable[str], where: str) -> Iterator[tuple[str, str]]:
    """(list, code) for each answer of a DNSBL. Raises Doubt for an answer that is no listing."""
    for code in codes:
        if code in LISTS:
            yield LISTS[code], code
        elif code.startswith("127.255.255."):
            meaning = _ERRORS.get(code, "an error of the query")
            raise Doubt(f"{where} answers {code}: {meaning}; nothing was concluded from this run")
        else:
            raise Doubt(f"{where} answers {code}, which is no list of Spamhaus; is the zone right, and still alive?")


def checked(answer: Answer, own: Ranges) -> Answer:
    """The answer without what is not followed; frozen where so much is listed that the source must be broken."""
    if answer.frozen:
        return Answer(answer.source, (), prefixes_of(own.networks), answer.problems, answer.frozen)
    listings = tuple(one for one in answer.listings if one.list not in NOT_FOLLOWED)
    silent = sum(one.num_addresses for one in collapsed(answer.unanswered) if one.version == 4)
    listed = len({one.network for one in listings if ":" not in one.network})
    try:
        plausible(answer.source, listed, sum(one.num_addresses for one in own.of(4)) - silent)
    except Doubt as doubt:
        return Answer(answer.source, (), prefixes_of(own.networks), answer.problems, str(doubt))
    return Answer(answer.source, listings, answer.unanswered, answer.problems)


def plausible(source: str, listed: int, asked: int) -> None:
    """Raises Doubt where so many addresses are listed that the source must be broken."""
    if listed >= FEW and listed > asked * IMPLAUSIBLE:
        raise Doubt(f"{source}: {listed} of {asked} own addresses are listed; such a list is broken, ask its maker")
