# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Access-list entries as IOS and EOS take them, print them and apply them to a packet.

A `Dialect` says what differs between the two, and between IPv4 and IPv6. `read` is as strict as the routers are.
"""

from __future__ import annotations

import ipaddress
import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from .judge import Packet

Ranges = tuple[tuple[int, int], ...]
Address = tuple[int, int]  # (value, the bits that must agree)
Groups = Callable[[str], tuple[Address, ...]]

FLAGS = {"fin": 1, "syn": 2, "rst": 4, "psh": 8, "ack": 16, "urg": 32}
ESTABLISHED = ((FLAGS["ack"], FLAGS["ack"]), (FLAGS["rst"], FLAGS["rst"]))
WITH_PORTS = ("tcp", "udp", "sctp")
DSCP = {
    "default": 0, "cs1": 8, "cs2": 16, "cs3": 24, "cs4": 32, "cs5": 40, "cs6": 48, "cs7": 56, "ef": 46,
    "af11": 10, "af12": 12, "af13": 14, "af21": 18, "af22": 20, "af23": 22,
    "af31": 26, "af32": 28, "af33": 30, "af41": 34, "af42": 36, "af43": 38,
}  # fmt: skip
# IPv6 extension headers by their numbers, as Packet.extension has them.
EXTENSION_NUMBERS = {0: 1, 43: 2, 44: 3, 60: 4, 135: 5}
EXTENSIONS = {"hbh": 1, "routing": 2, "dest-option": 4, "mobility": 5}
# Fragments as Packet.fragment has them.
FRAGMENT_TYPES = {"first-fragment": (1,), "last-fragment": (2,), "is-fragment": (1, 2, 3)}


class Rejected(Exception):
    """`position` is the column of the word that is wrong, None where the line ends too early."""

    def __init__(self, position: int | None) -> None:
        super().__init__()
        self.position = position


@dataclass(frozen=True, slots=True, eq=False)
class Dialect:
    """How one CLI writes the entries of one family. Of names with the same number, the first is printed."""

    family: int
    any_protocol: str
    protocols: Mapping[str, int]
    tcp: Mapping[str, int]
    udp: Mapping[str, int]
    icmp: Mapping[str, tuple[int, int | None]]
    slash: bool  # A.B.C.D/len is taken and printed
    groups: bool  # object-group NAME is an address
    sequence: str  # the word before a number, '' or 'sequence'
    permits_later: bool  # a permit with ports also takes the later fragments that its addresses match
    uppercase: bool  # hexadecimal digits of addresses
    group_word: str = "object-group"
    several_ports: bool = True  # behind eq and neq
    extensions: Mapping[str, int] = field(default_factory=lambda: EXTENSIONS)
    fragment_types: bool = False  # and what else only IOS XR has behind an entry


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a list. `text` is what the router prints behind the number; `number` is 0 where none was given."""

    text: str
    action: str  # permit, deny or remark
    number: int = 0
    protocol: int | None = None
    source: Address | str = (0, 0)  # or the name of a group
    destination: Address | str = (0, 0)
    source_ports: Ranges | str = ()  # or the name of a group, with `port` before it
    destination_ports: Ranges | str = ()
    icmp: tuple[int, int | None] | None = None
    flags: tuple[tuple[int, int], ...] = ()  # (value, mask); one of them holds
    fragments: bool = False
    fragment_type: tuple[int, ...] = ()
    undetermined: bool = False
    extension: int = 0
    dscp: int | None = None
    ttl: Ranges = ()
    permits_later: bool = False

    def matches(self, packet: Packet, groups: Groups) -> bool:
        """Whether this entry decides the packet."""
        if self.action == "remark":
            return False
        if packet.family == 6 and self.protocol in EXTENSION_NUMBERS:
            if packet.extension != EXTENSION_NUMBERS[self.protocol]:
                return False
        elif self.protocol not in (None, packet.protocol):
            return False
        if not _inside(self.source, packet.source, groups) or not _inside(self.destination, packet.destination, groups):
            return False
        if (self.fragments and not packet.later) or (self.undetermined and not packet.undetermined):
            return False
        if self.fragment_type and packet.fragment not in self.fragment_type:
            return False
        if self.extension not in (0, packet.extension) or self.dscp not in (None, packet.tos >> 2):
            return False
        if not _among(self.ttl, packet.ttl):
            return False
        if not (self.source_ports or self.destination_ports or self.icmp or self.flags):
            return True
        if packet.later:
            return self.permits_later and self.action == "permit"
        if packet.undetermined:
            return False
        if self.icmp and (packet.icmp_type != self.icmp[0] or self.icmp[1] not in (None, packet.icmp_code)):
            return False
        if self.flags and not any(packet.tcp_flags & mask == value for value, mask in self.flags):
            return False
        ends = (self.source_ports, packet.source_port), (self.destination_ports, packet.destination_port)
        return all(_among(groups(ports) if isinstance(ports, str) else ports, value) for ports, value in ends)


def _inside(where: Address | str, address: int, groups: Groups) -> bool:
    pairs = groups(where) if isinstance(where, str) else (where,)
    return any(address & mask == value for value, mask in pairs)


def _among(ranges: Ranges, value: int) -> bool:
    """No range at all holds every value."""
    return not ranges or any(low <= value <= high for low, high in ranges)


class Words:
    """The words of a line, one after the other, each with its column."""

    def __init__(self, line: str) -> None:
        self._words = [(match.group(), match.start()) for match in re.finditer(r"\S+", line)]
        self._next = 0

    def peek(self) -> str:
        """The next word in lower case, '' at the end."""
        return self._words[self._next][0].lower() if self._next < len(self._words) else ""

    def take(self) -> str:
        """The next word as typed. Raises Rejected at the end of the line."""
        if self._next == len(self._words):
            raise Rejected(None)
        self._next += 1
        return self._words[self._next - 1][0]

    def takes(self, *wanted: str) -> str:
        """The next word when it is one of those wanted, else '' and it stays."""
        word = self.peek()
        if word not in wanted:
            return ""
        self._next += 1
        return word

    def wrong(self) -> Rejected:
        """The last word taken is what the router does not like."""
        return Rejected(self._words[self._next - 1][1])

    def number(self, low: int, high: int) -> int:
        word = self.take()
        if not word.isdecimal() or not low <= int(word) <= high:
            raise self.wrong()
        return int(word)


@lru_cache(maxsize=16384)
def read(line: str, dialect: Dialect) -> Entry:
    """The entry of a line. Raises Rejected where the router would reject it."""
    words = Words(line)
    number = 0
    if words.takes("sequence") if dialect.sequence else words.peek().isdecimal():
        number = words.number(1, 2**32 - 1)
    if words.peek() == "remark":
        return Entry(line[line.lower().index("remark") :].rstrip(), "remark", number)
    action = words.take().lower()
    if action not in ("permit", "deny"):
        raise words.wrong()
    protocol, name = _protocol(words, dialect)
    text = [action, name]
    found: dict[str, Any] = {}
    found["source"] = _address(words, dialect, text)
    found["source_ports"] = _ports(words, dialect, name, text)
    found["destination"] = _address(words, dialect, text)
    found["destination_ports"] = _ports(words, dialect, name, text)
    if name in ("icmp", "icmpv6"):
        found["icmp"] = _icmp(words, dialect, text)
    _options(words, dialect, name, text, found)
    return Entry(" ".join(text), action, number, protocol, permits_later=dialect.permits_later, **found)


def _named(table: Mapping[str, int], number: int) -> str:
    return next((name for name, value in table.items() if value == number), str(number))


def _protocol(words: Words, dialect: Dialect) -> tuple[int | None, str]:
    word = words.take().lower()
    if word == dialect.any_protocol:
        return None, word
    if word.isdecimal() and int(word) < 256:
        number = int(word)
    elif word in dialect.protocols:
        number = dialect.protocols[word]
    else:
        raise words.wrong()
    return number, _named(dialect.protocols, number)


def _address(words: Words, dialect: Dialect, text: list[str]) -> Address | str:
    bits = 32 if dialect.family == 4 else 128
    full = (1 << bits) - 1
    word = words.take()
    if word.lower() == "any":
        text.append("any")
        return 0, 0
    if word.lower() == dialect.group_word and dialect.groups:
        name = words.take()
        text.append(f"{dialect.group_word} {name}")
        return name
    if word.lower() == "host":
        value, mask = _number(words, words.take(), dialect), full
    elif "/" in word and (dialect.slash or dialect.family == 6):
        head, _, length = word.partition("/")
        if not length.isdecimal() or int(length) > bits:
            raise words.wrong()
        value, mask = _number(words, head, dialect), full ^ (full >> int(length))
    elif dialect.family == 4:
        value = _number(words, word, dialect)
        mask = full ^ _number(words, words.take(), dialect)
    else:
        raise words.wrong()
    value &= mask
    text.append(_address_text(value, mask, full, dialect))
    return value, mask


def _number(words: Words, word: str, dialect: Dialect) -> int:
    try:
        return int(ipaddress.IPv4Address(word) if dialect.family == 4 else ipaddress.IPv6Address(word))
    except ValueError:
        raise words.wrong() from None


def _address_text(value: int, mask: int, full: int, dialect: Dialect) -> str:
    address = str(ipaddress.IPv4Address(value) if dialect.family == 4 else ipaddress.IPv6Address(value))
    if dialect.uppercase:
        address = address.upper()
    wildcard = full ^ mask
    if not wildcard:
        return f"host {address}"
    if not mask:
        return "any"
    if not wildcard & (wildcard + 1) and (dialect.slash or dialect.family == 6):
        return f"{address}/{mask.bit_count()}"
    return f"{address} {ipaddress.IPv4Address(wildcard)}"


def _ports(words: Words, dialect: Dialect, protocol: str, text: list[str]) -> Ranges | str:
    if dialect.fragment_types and protocol in WITH_PORTS and words.takes("port-group"):
        text += ["port-group", words.take()]
        return f"port {text[-1]}"
    operator = words.takes("eq", "neq", "lt", "gt", "range") if protocol in WITH_PORTS else ""
    if not operator:
        return ()
    table = {"tcp": dialect.tcp, "udp": dialect.udp}.get(protocol, {})

    def port() -> int:
        word = words.take().lower()
        if word in table:
            return table[word]
        if not word.isdecimal() or int(word) > 65535:
            raise words.wrong()
        return int(word)

    ports = [port()]
    if operator == "range":
        ports.append(port())
        if ports[1] < ports[0]:
            raise words.wrong()
    while operator in ("eq", "neq") and dialect.several_ports and (words.peek().isdecimal() or words.peek() in table):
        ports.append(port())
    text += [operator, *(_named(table, one) for one in ports)]
    if operator == "eq":
        return tuple((one, one) for one in ports)
    if operator == "neq":
        edges = [-1, *sorted(ports), 65536]
        return tuple((low + 1, high - 1) for low, high in itertools.pairwise(edges) if high - low > 1)
    if operator == "lt":
        return ((0, ports[0] - 1),)
    return ((ports[0] + 1, 65535),) if operator == "gt" else ((ports[0], ports[1]),)


def _icmp(words: Words, dialect: Dialect, text: list[str]) -> tuple[int, int | None] | None:
    word = words.peek()
    if word in dialect.icmp:
        words.take()
        found = dialect.icmp[word]
    elif word.isdecimal():
        kind = words.number(0, 255)
        found = kind, words.number(0, 255) if words.peek().isdecimal() else None
    else:
        return None
    text.append(next((name for name, value in dialect.icmp.items() if value == found), "") or _numbers(found))
    return found


def _numbers(icmp: tuple[int, int | None]) -> str:
    return str(icmp[0]) if icmp[1] is None else f"{icmp[0]} {icmp[1]}"


def _options(words: Words, dialect: Dialect, protocol: str, text: list[str], found: dict[str, Any]) -> None:
    layer4 = bool(found["source_ports"] or found["destination_ports"] or found.get("icmp"))
    while option := words.peek():
        words.take()
        text.append(option)
        if option in ("log", "log-input", "tracked"):
            continue
        if option == "fragments" and not layer4 and not found.get("flags"):
            found["fragments"] = True
        elif option == "undetermined-transport" and dialect.family == 6 and protocol == dialect.any_protocol:
            # Only a deny may ask for it.
            if text[0] != "deny":
                raise words.wrong()
            found["undetermined"] = True
        elif option == "established" and protocol == "tcp":
            found["flags"] = ESTABLISHED
        elif option in FLAGS and protocol == "tcp":
            found["flags"] = (*found.get("flags", ()), (FLAGS[option], FLAGS[option]))
        elif option in ("match-any", "match-all") and protocol == "tcp":
            found["flags"] = _flag_list(words, option, text)
        elif option in dialect.extensions and dialect.family == 6:
            found["extension"] = dialect.extensions[option]
        elif option == "dscp":
            word = words.take().lower()
            if word not in DSCP and not (word.isdecimal() and int(word) < 64):
                raise words.wrong()
            found["dscp"] = DSCP[word] if word in DSCP else int(word)
            text.append(_named(DSCP, found["dscp"]))
        elif dialect.fragment_types and option in ("capture", "icmp-off", "counter", "police", "fragment-type"):
            _behind_an_entry(words, option, text, found)
        elif option == "ttl" and dialect.family == 4 and words.takes("eq"):
            value = words.number(0, 255)
            found["ttl"] = ((value, value),)
            text += ["eq", str(value)]
        else:
            raise words.wrong()


def _behind_an_entry(words: Words, option: str, text: list[str], found: dict[str, Any]) -> None:
    """What IOS XR takes beside conditions: a counter, a rate; and the kinds of fragments."""
    if option == "fragment-type":
        word = words.take().lower()
        if word not in FRAGMENT_TYPES:
            raise words.wrong()
        found["fragment_type"] = FRAGMENT_TYPES[word]
        text.append(word)
    elif option == "counter":
        text.append(words.take())
    elif option == "police":
        text.append(str(words.number(1, 2**32 - 1)))
        text.append(words.take().lower())
        if text[-1] not in ("pps", "bps", "kbps", "mbps", "gbps"):
            raise words.wrong()


def _flag_list(words: Words, option: str, text: list[str]) -> tuple[tuple[int, int], ...]:
    pairs = []
    while words.peek()[:1] in ("+", "-") and words.peek()[1:] in FLAGS:
        word = words.take().lower()
        text.append(word)
        bit = FLAGS[word[1:]]
        pairs.append((bit if word[0] == "+" else 0, bit))
    if not pairs:
        words.take()
        raise words.wrong()
    if option == "match-any":
        return tuple(pairs)
    return ((sum(value for value, _ in pairs), sum(mask for _, mask in pairs)),)
