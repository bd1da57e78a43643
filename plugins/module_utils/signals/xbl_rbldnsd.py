# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The data files of a DNSBL, read as rbldnsd reads them.

IPv4 is a bitmap of the own addresses for each answer, so that millions of entries cost neither memory nor time.
Where rbldnsd would leave a line out with a warning, nothing is concluded: that line may be the one that matters.

Sources: rbldnsd(8) 1.0~20210120 for the formats and the special entries. What it does not say, that daemon was asked:
in an ip4set every range is broken up into networks of the lengths 32, 24, 16 and 8, the entry of the longest length
counts, and of entries of one length an exclusion; in a trivial set the first default counts, for all its entries.
"""

from __future__ import annotations

import datetime
import gzip
import ipaddress
import itertools
import os
import re
import socket
import sys
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from .xbl import Doubt, Ranges, listing_name

KINDS = ("ip4set", "ip4tset", "ip6trie", "ip6tset")
DEFAULT = "127.0.0.2"
STALE_HOURS = 24  # a feed comes several times a day
_CHUNK, _BLOCK = 1 << 20, 256  # octets, lines
_LONGEST_LINE = 1 << 12  # and no number is longer than int() takes
_ENOUGH = 1000  # lines that are not understood
_PAGE = 1 << 13  # octets of a bitmap for 65,536 addresses
_IGNORED = frozenset("soa ns nameserver ttl = 0 1 2 3 4 5 6 7 8 9".split())  # nothing about what is listed
_BITS = tuple(tuple(bit for bit in range(8) if octet >> bit & 1) for octet in range(256))
_RANGE = re.compile(r"(!?)[ \t]*(\d+(?:\.\d+){0,3})(?:/(\d+)|-(\d+(?:\.\d+){0,3}))?(?=[ \t:#;]|$)[ \t]*(.*)")
_SINGLE = re.compile(r"(\d+(?:\.\d+){3})(?=[ \t:#;]|$)")
_TRIE = re.compile(r"(!?)[ \t]*([0-9a-fA-F:]+)(?:/(\d+))?(?=[ \t:#;]|$)[ \t]*(.*)")
_TIMESTAMP = re.compile(r"(\d{4})[-:]?(\d\d?)[-:]?(\d\d?)(?:[-:]?(\d\d?))?(?:[-:]?(\d\d?))?(?:[-:]?(\d\d?))?")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}

Pages = dict[int, bytearray]  # the upper 16 bits of an address to the bitmap of the lower ones


@dataclass(frozen=True, slots=True)
class Dataset:
    """A file of a feed, and how rbldnsd reads it."""

    kind: str  # one of KINDS
    path: str


@dataclass(slots=True)
class Content:
    """What a file says, as far as it is about own addresses. An answer is as 127.0.0.4."""

    own: Ranges
    masks: Pages = field(default_factory=dict)  # own addresses
    single: dict[str, Pages] = field(default_factory=dict)  # by answer
    excluded: Pages = field(default_factory=dict)
    # ip4set: (length, upper bits) to the answers, which have "" among them where it is excluded.
    broad: dict[tuple[int, int], set[str]] = field(default_factory=dict)
    trie: dict[int, dict[int, str]] = field(default_factory=dict)  # IPv6: length to network to answer
    problems: list[str] = field(default_factory=list)

    def answers(self, address: str) -> set[str]:
        """What rbldnsd would answer for an own address: nothing where it is not listed."""
        if ":" in address:
            answer = self._longest(int(ipaddress.ip_address(address)), 128)
            return {answer} - {""}
        number = int(ipaddress.ip_address(address))
        high, low = number >> 16, number & 0xFFFF
        return {answer for answer, page in self._pages(high) if page[low >> 3] >> (low & 7) & 1}

    def count(self, own: Ranges, wanted: Callable[[str], bool]) -> int:
        """How many IPv4 addresses of these prefixes are listed with an answer that is wanted."""
        return sum(bits.bit_count() for _, _, bits in self._bits(own, wanted))

    def listed(self, own: Ranges, wanted: Callable[[str], bool]) -> Iterator[tuple[str, str]]:
        """(address or IPv6 prefix, answer) for all that is listed in these prefixes with an answer that is wanted."""
        for high, answer, bits in self._bits(own, wanted):
            for at, octet in enumerate(bits.to_bytes(_PAGE, "little")):
                for bit in _BITS[octet]:
                    number = high << 16 | at << 3 | bit
                    yield f"{number >> 24}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}", answer
        yield from (one for one in self._listed_prefixes(own) if wanted(one[1]))

    def _bits(self, own: Ranges, wanted: Callable[[str], bool]) -> Iterator[tuple[int, str, int]]:
        """(upper 16 bits, answer, bitmap of the lower ones)."""
        for high, mask in sorted(_masks(own).items()):
            for answer, page in self._pages(high):
                bits = int.from_bytes(page, "little") & int.from_bytes(mask, "little")
                if bits and wanted(answer):
                    yield high, answer, bits

    def _pages(self, high: int) -> list[tuple[str, bytearray]]:
        """The bitmap of every answer for 65,536 addresses, exclusions taken out."""
        singles = {answer: pages[high] for answer, pages in self.single.items() if high in pages}
        excluded = int.from_bytes(self.excluded.get(high, b""), "little")
        decided = excluded
        for page in singles.values():
            decided |= int.from_bytes(page, "little")
        broad: dict[str, bytearray] = {}
        wide = self.broad.get((16, high), self.broad.get((8, high >> 8), set()))
        for at in range(256) if self.broad else ():
            for answer in _unless_excluded(self.broad.get((24, high << 8 | at), wide)):
                broad.setdefault(answer, bytearray(_PAGE))[at * 32 : at * 32 + 32] = b"\xff" * 32
        found = []
        for answer in sorted(singles.keys() | broad.keys()):
            bits = int.from_bytes(singles.get(answer, b""), "little") & ~excluded
            bits |= int.from_bytes(broad.get(answer, b""), "little") & ~decided
            found.append((answer, bytearray(bits.to_bytes(_PAGE, "little"))))
        return found

    def _listed_prefixes(self, own: Ranges) -> Iterator[tuple[str, str]]:
        whole = set(own.of(6))
        for prefix in sorted(whole):
            answer = self._longest(int(prefix.network_address), prefix.prefixlen)
            if answer:
                yield listing_name(prefix), answer
        for length, entries in sorted(self.trie.items()):
            for number, answer in sorted(entries.items()):
                network = ipaddress.IPv6Network((number << (128 - length), length))
                if answer and network in own and network not in whole:
                    yield listing_name(network), answer

    def _longest(self, number: int, most: int) -> str:
        """The answer of the longest entry that holds the network, "" where it is excluded or there is none."""
        for length in sorted((one for one in self.trie if one <= most), reverse=True):
            answer = self.trie[length].get(number >> (128 - length))
            if answer is not None:
                return answer
        return ""

    def mark(self, pages: Pages, number: int) -> None:
        """Set the bit of an address, where it is in a page with own addresses."""
        high = number >> 16
        if high in self.masks:
            page = pages.get(high)
            if page is None:
                page = pages[high] = bytearray(_PAGE)
            page[number >> 3 & 0x1FFF] |= 1 << (number & 7)


def _unless_excluded(answers: set[str]) -> set[str]:
    return set() if "" in answers else answers


def _masks(own: Ranges) -> Pages:
    """The bitmap of the own IPv4 addresses."""
    pages: Pages = {}
    for network in own.of(4):
        first, last = int(network.network_address), int(network.broadcast_address)
        for high in range(first >> 16, (last >> 16) + 1):
            low = max(first, high << 16) & 0xFFFF
            count = min(last, high << 16 | 0xFFFF) - (high << 16) - low + 1
            bits = int.from_bytes(pages.get(high, b""), "little") | ((1 << count) - 1) << low
            pages[high] = bytearray(bits.to_bytes(_PAGE, "little"))
    return pages


# -- reading -----------------------------------------------------------------------------------------------------


def read_dataset(dataset: Dataset, own: Ranges, now: float) -> Content:
    """What a file says of own addresses; `now` in seconds. Raises Doubt where rbldnsd would not read all of it."""
    content = parse_dataset(dataset, own, now)
    if content.problems:
        more = f", and {len(content.problems) - 1} more" if len(content.problems) > 1 else ""
        raise Doubt(f"{content.problems[0]}{more}; fetch the file again, or ask the maker of the feed")
    return content


def parse_dataset(dataset: Dataset, own: Ranges, now: float) -> Content:
    """As read_dataset, with the lines that rbldnsd warns of and leaves out in `problems`."""
    path = dataset.path
    if dataset.kind not in KINDS:
        raise Doubt(f"{path}: the dataset type {dataset.kind} is none of {', '.join(KINDS)}")
    content = Content(own, _masks(own))
    reader = _Reader(dataset, content, now)
    try:
        with open(path, "rb") as file:
            before = os.fstat(file.fileno())
            if now - before.st_mtime > STALE_HOURS * 3600:
                raise Doubt(f"{path}: older than {STALE_HOURS} hours; does rsync still run?")
            gzipped = file.peek(2)[:2] == b"\x1f\x8b"
            for lines in _lines(gzip.GzipFile(fileobj=file).read if gzipped else file.read, path):
                reader.take(lines)
            reader.finish()
            after = os.fstat(file.fileno())
    except (OSError, EOFError, zlib.error) as error:
        raise Doubt(f"{path}: {error}; fetch the feed, and let the monitor read it") from None
    if (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, after.st_size):
        raise Doubt(f"{path}: changed while it was read; put a new file in its place by rename, as rsync does")
    return content


def _lines(read: Callable[[int], bytes], path: str) -> Iterator[list[str]]:
    """The lines of the file, many at a time. Raises Doubt where the last one has no end."""
    rest = b""
    while chunk := read(_CHUNK):
        rest += chunk
        whole, end, rest = rest.rpartition(b"\n")
        if len(rest) > _CHUNK:
            raise Doubt(f"{path}: a line of more than {_CHUNK} octets; is it the file of a DNSBL?")
        if end:
            yield whole.decode("latin-1").split("\n")
    if rest:
        raise Doubt(f"{path}: the last line has no end, so that the file is not whole; fetch it again")


class _Reader:
    """Lines into a Content. What a line means depends on those before it."""

    def __init__(self, dataset: Dataset, content: Content, now: float) -> None:
        self.dataset, self.content, self.now = dataset, content, now
        self.number = 0
        self.first = ""  # the first default of a trivial dataset
        self.default = DEFAULT
        self.largest = 0  # $MAXRANGE4
        self._take = getattr(self, f"_{dataset.kind}")
        self._trivial = dataset.kind in ("ip4tset", "ip6tset")
        table = bytearray(1 << 16)
        for high in content.masks:
            table[high] = 1
        self._mine = bytes(table).__getitem__

    def take(self, lines: list[str]) -> None:
        """Some more lines. Those that are nothing but an IPv4 address, as most of a large feed, go the fast way."""
        if self.dataset.kind.startswith("ip4") and len(lines) > _BLOCK:
            try:
                self._addresses(lines)
            except (OSError, ValueError):  # not all of them are
                self.take(lines[: len(lines) // 2])
                self.take(lines[len(lines) // 2 :])
            else:
                self.number += len(lines)
            return
        for line in lines:
            self.number += 1
            self._line(line)

    def _addresses(self, lines: Iterable[str]) -> None:
        packed = b"".join(map(socket.inet_pton, itertools.repeat(socket.AF_INET), lines))
        numbers, halves = array("I", packed), array("H", packed)
        if sys.byteorder == "little":
            numbers.byteswap()
            halves.byteswap()
        pages = self.content.single.setdefault(self.default, {})
        for number in itertools.compress(numbers, map(self._mine, halves[::2])):
            page = pages.get(number >> 16)
            if page is None:
                page = pages[number >> 16] = bytearray(_PAGE)
            page[number >> 3 & 0x1FFF] |= 1 << (number & 7)

    def _line(self, line: str) -> None:
        line = line.strip(" \t")
        if len(line) > _LONGEST_LINE:
            self._doubt("is too long", line)
        elif line.startswith(("$", "#$", ";$", ":$")):
            self._special(line[line.index("$") + 1 :], line)
        elif line and line[0] not in "#;":
            if line[0] == ":" and not (self.dataset.kind == "ip6trie" and line.startswith("::")):
                self._set_default(line)
            else:
                self._take(line)

    def _doubt(self, what: str, line: str) -> None:
        shown = line if len(line) <= 60 else line[:57] + "..."
        self.content.problems.append(f"{self.dataset.path}:{self.number}: {shown!r} {what}")
        if len(self.content.problems) > _ENOUGH:
            raise Doubt(f"{self.content.problems[0]}, nor are many others; is this an {self.dataset.kind} at all?")

    def _special(self, words: str, line: str) -> None:
        name, _, rest = words.replace("\t", " ").partition(" ")
        name, rest = name.lower(), rest.strip()
        if name == "maxrange4":
            found = re.fullmatch(r"(/?)([1-9]\d*)", rest)
            if not found or (found[1] and int(found[2]) > 32):
                self._doubt("is no size of a range", line)
            else:
                size = 1 << 32 - int(found[2]) if found[1] else int(found[2])
                self.largest = min(size, self.largest or size)
        elif name == "timestamp":
            self._timestamp(rest, line)
        elif name not in _IGNORED or not rest:
            self._doubt("is a special entry that is not known here", line)

    def _timestamp(self, rest: str, line: str) -> None:
        made, _, until = rest.partition(" ")
        began, ends = _seconds(made), _seconds(until.strip())
        relative = re.fullmatch(r"\+(\d{1,9})([smhdw]?)", until.strip(), re.IGNORECASE)
        if relative and began:
            ends = began + int(relative[1]) * _SECONDS[relative[2].lower()]
        if began is None or ends is None:
            self._doubt("is no timestamp", line)
        elif began > self.now:
            raise Doubt(f"{self.dataset.path}:{self.number}: was made in the future; is the clock of this host right?")
        elif ends and ends < self.now:
            raise Doubt(f"{self.dataset.path}:{self.number}: the data has expired; does rsync still run?")

    def _set_default(self, line: str) -> None:
        if self._trivial and self.first:
            return
        answer = _value(line, DEFAULT)
        if answer is None:
            self._doubt("is no answer", line)
        elif self._trivial:
            self.first = answer
        else:
            self.default = answer

    def finish(self) -> None:
        """The first default of a trivial dataset counts for the lines before it as well."""
        if self.first:
            self.content.single = dict(zip([self.first], self.content.single.values(), strict=False))
            for entries in self.content.trie.values():
                entries.update({number: self.first for number, answer in entries.items() if answer})

    def _ip4tset(self, line: str) -> None:
        found = _SINGLE.match(line)
        octets = _octets(found[1]) if found else None
        if octets is None:
            self._doubt("is no address", line)
        else:
            self.content.mark(self.content.single.setdefault(self.default, {}), octets[0])

    def _ip4set(self, line: str) -> None:
        found = _RANGE.match(line)
        span = _span(found[2], found[3], found[4]) if found else None
        if not found or span is None:
            self._doubt("is no address or range", line)
            return
        first, last = span
        if self.largest and self.largest <= last - first:
            return  # as $MAXRANGE4 wants it
        answer = "" if found[1] else self._answer(found[5])
        if answer is None:
            self._doubt("has no answer behind it", line)
            return
        for length, upper, lower in _parts(first, last):
            self._range(length, upper, lower, answer)

    def _range(self, length: int, first: int, last: int, answer: str) -> None:
        """All networks of this length from the first to the last."""
        content = self.content
        if length == 32:
            pages = content.single.setdefault(answer, {}) if answer else content.excluded
            for number in range(first, last + 1):
                content.mark(pages, number)
            return
        for number in range(first, last + 1):
            if content.own.meets(ipaddress.IPv4Network((number << (32 - length), length))):
                content.broad.setdefault((length, number), set()).add(answer)

    def _ip6tset(self, line: str) -> None:
        found = _TRIE.match(line)
        network = _network(found[2], found[3]) if found and not found[3] else None
        if not found or not network or network[1] != (128 if found[1] else 64):
            self._doubt("is neither four words of an address nor the exclusion of one", line)
        else:
            self._entry(network, "" if found[1] else self.default)

    def _ip6trie(self, line: str) -> None:
        found = _TRIE.match(line)
        network = _network(found[2], found[3]) if found else None
        if not found or not network:
            self._doubt("is no IPv6 prefix", line)
            return
        answer = "" if found[1] else self._answer(found[4])
        if answer is None:
            self._doubt("has no answer behind it", line)
        else:
            self._entry(network, answer)

    def _entry(self, network: tuple[int, int], answer: str) -> None:
        number, length = network
        if self.content.own.meets(ipaddress.IPv6Network((number, length))):
            self.content.trie.setdefault(length, {}).setdefault(number >> (128 - length), answer)  # the first counts

    def _answer(self, rest: str) -> str | None:
        return self.default if not rest or rest[0] in "#;" else _value(rest, self.default)


def _value(text: str, default: str) -> str | None:
    """The A value of ':127.0.0.4:text', ':4' or 'text'; None for what is none."""
    if not text.startswith(":"):
        return default
    found = re.match(r":(\d+(?:\.\d+){0,3})[ \t]*(?::|$)", text)
    octets = _octets(found[1]) if found else None
    if octets is None or not octets[0]:
        return None
    number, bits = octets
    if bits == 8:  # the last octet alone
        return f"127.0.0.{number >> 24}"
    # As inet_aton(3): what is written last is the last octet.
    return str(ipaddress.IPv4Address(number & -1 << (40 - bits) | number >> (32 - bits) & 255))


def _octets(text: str) -> tuple[int, int] | None:
    """'127.0' as (127 << 24, 16); None where an octet is above 255."""
    octets = [int(word) for word in text.split(".")]
    if max(octets) > 255:
        return None
    number = 0
    for at, octet in enumerate(octets):
        number |= octet << (24 - 8 * at)
    return number, 8 * len(octets)


def _span(begin: str, length: str | None, end: str | None) -> tuple[int, int] | None:
    """The first and the last address of '127/8', '127.0.0', '127.0.0.1-255' or '127.16-127.31'."""
    start = _octets(begin)
    if start is None:
        return None
    first, bits = start
    if end is not None:
        stop = _octets(end)
        if stop is None:
            return None
        last, last_bits = stop
        if last_bits == 8 and bits > 8:  # its last octet alone
            last, last_bits = last >> (bits - 8) | first & -1 << (40 - bits), bits
        if last_bits != bits:
            return None
        last |= (1 << (32 - bits)) - 1
        return (first, last) if first <= last else None
    if length is not None:
        bits = int(length)
    elif bits == 8:  # a bare number
        return None
    if not 0 < bits <= 32 or first & (1 << (32 - bits)) - 1:
        return None
    return first, first | (1 << (32 - bits)) - 1


def _parts(first: int, last: int) -> Iterator[tuple[int, int, int]]:
    """A range of addresses as (length, first network, last network) of the lengths 32, 24, 16 and 8."""
    for length in (32, 24, 16):
        if first & 255:
            stop = min(last, first | 255)
            yield length, first, stop
            first = stop + 1
        if first <= last and last & 255 != 255:
            yield length, last & ~255, last
            last = (last & ~255) - 1
        if first > last:
            return
        first, last = first >> 8, last >> 8
    yield 8, first, last


def _network(text: str, length: str | None) -> tuple[int, int] | None:
    """'2001:db8' as the number and the length of 2001:db8::/32; None where it is none."""
    bits = 128
    if "::" not in text:
        words = text.split(":")
        if "" in words:
            return None
        bits = 16 * len(words)
        text = ":".join(words + ["0"] * (8 - len(words)))
    if length is None and bits == 16:
        return None  # a bare word
    try:
        number = int(ipaddress.IPv6Address(text))
    except ValueError:
        return None
    bits = bits if length is None else int(length)
    return (number, bits) if bits <= 128 and not number & (1 << (128 - bits)) - 1 else None


def _seconds(text: str) -> float | None:
    """A timestamp of rbldnsd as seconds since 1970, 0 where none is given."""
    if text in ("", "0", "-"):
        return 0
    if not (found := _TIMESTAMP.fullmatch(text)):
        return None
    try:
        year, month, day, hour, minute, second = (int(group or 0) for group in found.groups())
        return datetime.datetime(year, month, day, hour, minute, second, tzinfo=datetime.UTC).timestamp()
    except ValueError:
        return None
