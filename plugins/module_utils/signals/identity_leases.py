# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""DHCP leases as tenures: dhcpd.leases of ISC's dhcpd, and the lease files of Kea, v4 and v6 with prefix delegation.

Both are logs: what is said last of a lease holds (dhcpd.leases(5); Kea, lease_file_loader.h). What was said before
stays true of the time before, so that one file answers for yesterday too, until the server rewrites it.

A lease belongs to a device, not to a customer. It is named by the first of these that the file has: the relay's
remote-id ("MUST be globally unique", RFC 3046 3.2; a circuit-id is unique in its relay only), the hardware address,
the client identifier, the DUID. A switch may have its own MAC address there, for all its ports, in a form that says so
(Cisco, Catalyst 2960-X Security Configuration Guide, "Suboption Packet Formats"): it is a name with a circuit-id only.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .identity_tenures import DHCP, FOREVER, Tenure, Told, read_lines, read_prefix

_LEFT_OUT = "it was left out"
_NEXT_RUN = f"{_LEFT_OUT}; the next run reads it"


@dataclass(slots=True)
class Entry:
    """What a file says of a lease: who has it from when, until when. Without a device nobody has."""

    prefix: tuple[int, int, int]
    start: int
    end: int
    device: str
    doubt: str = ""
    line: int = 0
    said: int = 0  # the start of the last entry that went into this one
    before: Entry | None = None  # what the file said of the same address until then


def tenures(path: str, entries: Iterable[Entry], skew: int, told: Told) -> list[Tenure]:
    """The entries of one file, in its order.

    A later entry about the same device and address, or about nobody, says how it went on from its start: the one before
    ends there. Two devices at once stay two. An entry that starts before the one that it follows tells of a clock that
    went back.
    """
    latest: dict[tuple[int, int, int], Entry] = {}
    found: list[Tenure] = []
    for entry in entries:
        entry.said = entry.start
        before = latest.get(entry.prefix)
        if before:
            if entry.start < before.said - skew:
                reason = "a clock went back: a lease starts before the one that it follows"
                told.add(path, entry.line, reason, "the time that came twice has no owner there; run an NTP client")
                found.append(Tenure(*entry.prefix, entry.start, before.said + 1, DHCP, doubt=f"{path}: {reason}"))
            if not entry.doubt and not before.doubt and entry.device in ("", before.device):
                if entry.device and before.start <= entry.start <= before.end:
                    before.end, before.said = entry.end, entry.start
                    continue  # renewed, shortened or given back; the same device all along
                before.end = min(before.end, entry.start)
        entry.before = before
        latest[entry.prefix] = entry
    for last in latest.values():
        one: Entry | None = last
        while one:
            if one.device or one.doubt:
                name = "" if one.doubt else one.device
                found.append(Tenure(*one.prefix, one.start, one.end, DHCP, name, doubt=one.doubt))
            one = one.before
    return found


# --- ISC dhcpd ---

_ACTIVE = "active"
_OVER = ("free", "expired", "released", "reset", "backup")  # the device named there had it until `ends`
_STATES = (_ACTIVE, *_OVER, "abandoned")
_HEAD4 = re.compile(r"lease (\S+) \{")
_HEAD6 = re.compile(r"(ia[-_](?:na|ta|pd)) (.+) \{")
_PART6 = re.compile(r"(iaaddr|iaprefix) (\S+) \{")
_OTHER = re.compile(
    r"(?:server-duid|authoring-byte-order|failover|host|group|subgroup|class|subclass|shared-network|option|set) ?.*"
)
# Statements of a lease that say nothing about who has it.
_QUIET = frozenset(
    """
    cltt tstp tsfp atsfp next rewind client-hostname hostname option set on vendor-class bootp; reserved; dynamic-bootp;
    billing preferred-life max-life ddns-text ddns-fwd-name ddns-rev-name ddns-client-fqdn uid hardware user-class
    """.split()
)
_SWITCH = re.compile(r"00:?06(?::?[0-9a-f]{2}){6}")  # type 0, which is a MAC address, and its length
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')
_ESCAPE = re.compile(r"\\([0-7]{3}|.)", re.DOTALL)


class _Lines:
    """The lines of a file without comments and empty ones, stripped, each with its number."""

    def __init__(self, path: str, told: Told) -> None:
        self._lines = enumerate(read_lines(path, told), 1)
        self._again: tuple[int, str] | None = None
        self._path, self._told = path, told

    def __iter__(self) -> Iterator[tuple[int, str]]:
        return self

    def __next__(self) -> tuple[int, str]:
        if self._again:
            again, self._again = self._again, None
            return again
        for number, line in self._lines:
            text = line.strip()
            if text and text[0] != "#":
                return number, text
        raise StopIteration

    def block(self, number: int) -> list[tuple[int, str]] | None:
        """The lines up to the brace that closes what line `number` opens; None, and told, where there is none."""
        depth = 1
        block: list[tuple[int, str]] = []
        for line, raw in self._lines:  # a million leases have ten million lines: no call for each of them
            text = raw.strip()
            if not text or text[0] == "#":
                continue
            if text[0] == "}":
                depth -= 1
                if not depth:
                    return block
            if text[-1] == "{":
                if _HEAD4.fullmatch(text) or _HEAD6.fullmatch(text):
                    self._again = line, text
                    self._told.add(self._path, number, "a lease that does not end before the next", _LEFT_OUT)
                    return None
                depth += 1
            block.append((line, text))
        self._told.add(self._path, number, "the last declaration is half written", _NEXT_RUN)
        return None


def read_isc(path: str, told: Told) -> Iterator[Entry]:
    """The entries of dhcpd.leases or dhcpd6.leases (dhcpd.leases(5)); stamps are UTC, or seconds since 1970.

    A release sets `ends` to its time (release_lease in dhcpd's mdb.c). The last lease without its closing brace is left
    out: the server is writing it.
    """
    dates: dict[str, int | None] = {}
    lines = _Lines(path, told)
    for number, text in lines:
        if head := _HEAD4.fullmatch(text):
            block = lines.block(number)
            if block is not None and (entry := _lease(path, number, head[1], block, dates, told)):
                yield entry
        elif head := _HEAD6.fullmatch(text):
            block = lines.block(number)
            if block is not None:
                yield from _association(path, number, head[2], block, dates, told)
        elif not _OTHER.fullmatch(text):
            told.add(path, number, "is nothing that dhcpd writes into a lease file", "is it one?")
        elif text.endswith("{"):
            lines.block(number)


def _lease(
    path: str, number: int, address: str, block: list[tuple[int, str]], dates: dict[str, int | None], told: Told
) -> Entry | None:
    prefix = _prefix(path, number, address, told)
    times: dict[str, int | None] = {}
    state = _ACTIVE  # dhcpd before 3.0 writes none
    remote = circuit = hardware = client = doubt = ""
    depth = 0
    for line, text in block:
        depth += (text[-1] == "{") - (text[0] == "}")
        if depth or text[0] == "}":
            continue
        word, _, rest = text.partition(" ")
        if word in ("starts", "ends"):
            times[word] = _date(rest, dates)
            if times[word] is None:
                doubt = f"{path} line {line}: no date that dhcpd writes"
        elif word == "binding":
            state = rest.removeprefix("state ").rstrip(";")
        elif word == "hardware":
            hardware = "mac " + rest.rpartition(" ")[2].rstrip(";").lower()
        elif word == "uid":
            client = rest.rstrip(";")
        elif word == "option" and rest.startswith("agent.remote-id "):
            remote = _identity(rest.partition(" ")[2].rstrip(";"))
        elif word == "option" and rest.startswith("agent.circuit-id "):
            circuit = _identity(rest.partition(" ")[2].rstrip(";"))
        elif word == "abandoned;":
            state = "abandoned"
        elif word not in _QUIET:
            doubt = f"{path} line {line}: not understood"
    if prefix is None or "starts" not in times:
        if prefix and state not in _OVER:
            told.add(path, number, "the lease has no start", _LEFT_OUT)
        return None
    if state not in _STATES:
        doubt = f"{path} line {number}: the binding state is not known"
    if doubt:
        told.add(path, number, "a lease that is not understood", "its address counts as somebody's")
    elif state == "abandoned":
        doubt = "abandoned: somebody uses it without a lease"
    start = times["starts"] or 0
    end = times.get("ends")
    if end is None:
        end = FOREVER if state == _ACTIVE or doubt else start
    if end < start and state == _ACTIVE:
        told.add(path, number, "the lease ends before it starts", "its address counts as somebody's then; run NTP")
        return Entry(prefix, end, start + 1, "", f"{path} line {number}: ends before it starts", number)
    device = _line(remote, circuit) or hardware or (client and f"client {_octets(client)}")
    return Entry(prefix, start, end, device, doubt, number)


def _association(
    path: str, number: int, identity: str, block: list[tuple[int, str]], dates: dict[str, int | None], told: Told
) -> Iterator[Entry]:
    """An identity association: its IAID (four octets) and DUID, and the addresses and prefixes in it.

    What was given back keeps the `ends` that it had (move_lease_to_inactive in dhcpd's mdb6.c); `cltt` is when it was.
    """
    octets = _octets(identity).split(":")
    device = "duid " + ":".join(octets[4:]) if len(octets) > 4 else ""
    start: int | None = None
    part: re.Match[str] | None = None
    state, end, doubt, depth = _ACTIVE, FOREVER, "", 0
    for line, text in block:
        depth += (text[-1] == "{") - (text[0] == "}")
        word, _, rest = text.partition(" ")
        if depth == 0 and word == "cltt":
            start = _date(rest, dates)
        elif depth == 1 and (match := _PART6.fullmatch(text)):
            part, state, end, doubt = match, _ACTIVE, FOREVER, ""
        elif depth == 1 and word == "binding":
            state = rest.removeprefix("state ").rstrip(";")
        elif depth == 1 and word == "ends":
            date = _date(rest, dates)
            end, doubt = (date, doubt) if date is not None else (end, f"{path} line {line}: no date that dhcpd writes")
        elif depth == 0 and text[0] == "}" and part:
            prefix = _prefix(path, line, part[2], told)
            if state not in _STATES or not device or start is None:
                doubt = doubt or f"{path} line {number}: the state, the DUID or the time is not known"
            if doubt:
                told.add(path, number, "a lease that is not understood", "its address counts as somebody's")
            elif state == "abandoned":
                doubt = "abandoned: somebody uses it without a lease"
            if state == "released":
                end = start or 0
            if prefix:
                yield Entry(prefix, start or 0, end, device, doubt, number)
            part = None
        elif depth <= 1 and word not in _QUIET and text[0] != "}":
            doubt = f"{path} line {line}: not understood"


def _prefix(path: str, number: int, text: str, told: Told) -> tuple[int, int, int] | None:
    try:
        prefix = read_prefix(text)
    except ValueError:
        prefix = (0, 0, 0)
    if not prefix[2]:  # nobody is lent everything
        told.add(path, number, f"{text[:60]!r} is no address or prefix", _LEFT_OUT)
        return None
    return prefix


def _date(text: str, known: dict[str, int | None]) -> int | None:
    """`6 2016/02/27 07:11:41;`, `epoch 1507216949; # …` or `never;` in ms; None for anything else.

    The dhcpd of OpenBSD writes UTC behind the time (DB_TIMEFMT of its dhcpd.h). `known` are the dates so far: many
    leases have the same.
    """
    if text not in known:
        known[text] = _read_date(text)
    return known[text]


def _read_date(text: str) -> int | None:
    stamp, mark, _ = text.partition(";")
    words = stamp.split(" ")
    if not mark:
        return None
    try:
        if len(words) == 3 or words[3:] == ["UTC"]:
            year, month, day = (int(part) for part in words[1].split("/"))
            hours, minutes, seconds = (int(part) for part in words[2].split(":"))
            moment = datetime.datetime(year, month, day, hours, minutes, seconds, tzinfo=datetime.UTC)
            return round(moment.timestamp()) * 1000
        if len(words) == 2 and words[0] == "epoch":
            return int(words[1]) * 1000
    except (ValueError, OverflowError):
        return None
    return FOREVER if words == ["never"] else None


def _octets(text: str) -> str:
    """A quoted string with octal escapes, or octets with colons, as octets of two digits with colons."""
    if match := _STRING.fullmatch(text):
        plain = _ESCAPE.sub(lambda found: chr(int(found[1], 8) & 255) if len(found[1]) == 3 else found[1], match[1])
        return ":".join(f"{octet:02x}" for octet in plain.encode("latin-1", "replace"))
    return ":".join(part.zfill(2) for part in text.lower().split(":"))


def _identity(text: str) -> str:
    """A remote-id as it is readable: text where it is text, else octets."""
    octets = _octets(text)
    try:
        plain = bytes.fromhex(octets.replace(":", "")).decode("ascii")
    except ValueError:
        return octets
    return plain if plain and plain.isprintable() and not plain.isspace() else octets


def _line(remote: str, circuit: str) -> str:
    """The name by what a relay says, "" where that is no line's."""
    if remote and _SWITCH.fullmatch(remote):
        return f"remote-id {remote} circuit-id {circuit}" if circuit else ""
    return remote and f"remote-id {remote}"


# --- Kea ---

_INFINITE = 0xFFFFFFFF
_COMMON = ("address", "valid_lifetime", "expire", "state")
_DELEGATED = "2"  # lease type; 0 is an address, 1 a temporary one, and leases of IPv4 have none
_COMMA = re.compile(r"&#x([0-9a-fA-F]{2})")


def read_kea(path: str, told: Told) -> Iterator[Entry]:
    """The entries of kea-leases4.csv, kea-leases6.csv or kea-admin lease-dump.

    Columns go by the heading: versions differ. `expire` is the client's last transaction plus `valid_lifetime`, and a
    lifetime of 0 says that the lease was given back (Kea, csv_lease_file4.cc and lease_file_loader.h); when, the file
    does not say, so that nobody has it from the last transaction on. State 0 is assigned, 1 declined, 2 reclaimed after
    it expired (ISC on kea-users, 22 December 2022); 3 released and 4 registered by a client that chose its address
    itself [memory]. A comma inside a text is &#x2c (lease4_dump_test.reference.csv of Kea). Only a delegated prefix has
    a length: for an address `prefix_len` may be 0 too (csv_lease_file6_unittest.cc).
    """
    lines = read_lines(path, told)
    columns = next(lines, "").rstrip("\r\n").split(",")
    missing = [name for name in _COMMON if name not in columns]
    if missing:
        told.add(path, 1, f"has no column {missing[0]}: no lease file of Kea", "give a lease file, heading included")
        return
    row = _Row(path, columns, told)
    for number, line in enumerate(lines, 2):
        if not line.endswith("\n"):
            told.add(path, number, "the last row is half written", _NEXT_RUN)
            return
        cells = line.rstrip("\r\n").split(",")
        if cells == [""]:
            continue
        if len(cells) != len(columns):
            told.add(path, number, f"has not {len(columns)} columns", _LEFT_OUT)
            continue
        entry = row.entry(number, cells)
        if entry:
            yield entry


class _Row:
    """The rows of one file: where its columns are."""

    def __init__(self, path: str, columns: list[str], told: Told) -> None:
        self._path, self._told = path, told
        at = {name: place for place, name in enumerate(columns)}
        self._address, self._lifetime, self._expire, self._state = (at[name] for name in _COMMON)
        self._length, self._kind = at.get("prefix_len"), at.get("lease_type")
        self._context = at.get("user_context")
        names = (("mac", "hwaddr"), ("duid", "duid"), ("client", "client_id"))
        self._names = [(name, at[column]) for name, column in names if column in at]

    def entry(self, number: int, cells: list[str]) -> Entry | None:
        """What a row says; None, and told, where that is nothing."""
        path, told = self._path, self._told
        kind = cells[self._kind] if self._kind is not None else ""
        try:
            lifetime, expire = int(cells[self._lifetime]), int(cells[self._expire])
            state = int(cells[self._state] or 0)
            address = cells[self._address]
            if kind == _DELEGATED and self._length is not None:
                address = f"{address}/{cells[self._length]}"
            prefix = read_prefix(address)
            if not prefix[2]:  # nobody is lent everything
                raise ValueError
        except ValueError:
            told.add(path, number, "an address or a number is none", _LEFT_OUT)
            return None
        if self._kind is not None and kind not in ("0", "1", _DELEGATED):
            told.add(path, number, f"the lease type {kind[:20]!r} is not known", _LEFT_OUT)
            return None
        start = (expire if lifetime == _INFINITE and expire <= _INFINITE else expire - lifetime) * 1000
        end = FOREVER if lifetime == _INFINITE else expire * 1000
        doubt = ""
        if state == 1:
            doubt = "declined: somebody uses it without a lease"
        elif not 0 <= state <= 4:
            told.add(path, number, f"the state {state} is not known", "its address counts as somebody's")
            doubt = f"{path} line {number}: the state is not known"
        elif state == 3 or not lifetime:
            end = start
        return Entry(prefix, start, end, self._device(cells), doubt, number)

    def _device(self, cells: list[str]) -> str:
        if self._context is not None and "remote-id" in cells[self._context]:
            line = _line(*_relayed(cells[self._context]))
            if line:
                return line
        for name, place in self._names:
            if cells[place]:
                return f"{name} {cells[place].lower()}"
        return ""


def _relayed(context: str) -> tuple[str, str]:
    """The remote-id and the circuit-id that Kea keeps in a lease's user context, "" for what is not there.

    Its manual, "Storing Extended Lease Information"; the circuit-id is the first of the sub-options (RFC 3046 2.0).
    """
    try:
        plain = _COMMA.sub(lambda match: chr(int(match[1], 16)), context)
        said = json.loads(plain)["ISC"]["relay-agent-info"]
        remote = said["remote-id"].removeprefix("0x")
        remote = remote and _identity(remote)
        octets = bytes.fromhex(said.get("sub-options", "").removeprefix("0x"))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "", ""
    place = 0
    while place + 2 <= len(octets):
        end = place + 2 + octets[place + 1]
        if octets[place] == 1:
            return remote, _identity(octets[place + 2 : end].hex())
        place = end
    return remote, ""
