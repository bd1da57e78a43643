# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""RADIUS accounting as tenures: detail files of FreeRADIUS, and its table radacct as CSV or as an SQL dump.

What the records mean is RFC 2866 (Acct-Status-Type, Acct-Delay-Time, Acct-Session-Time), RFC 2869 5.3
(Event-Timestamp), RFC 2865 5.8, RFC 6911 3.1, RFC 3162 2.3 and RFC 4818 3 (what a session was given; the sections of
the last two are [memory]). A detail file is as rlm_detail.c of FreeRADIUS writes it: a line with the date, a line with
a tab for each attribute, `Timestamp` with the seconds since 1970 at which the server got the packet, and an empty line,
without which a record is half written. The columns of radacct are those of FreeRADIUS' schema.sql.

The time of a record is the server's, less Acct-Delay-Time: one clock for all NASes.
"""

from __future__ import annotations

import csv
import datetime
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from .identity_tenures import BELIEVED, RADIUS, Session, Tenure, Told, instants, prefix_text, read_lines, read_prefix

START, INTERIM, STOP, RESTART = "start", "interim", "stop", "restart"

# RFC 2866 5.1 and FreeRADIUS' older name for 3. Tunnels (9 to 14, RFC 2867) and Failed (15) give nobody an address.
_STATUS = {
    "Start": START, "1": START,
    "Stop": STOP, "2": STOP,
    "Interim-Update": INTERIM, "Alive": INTERIM, "3": INTERIM,
    "Accounting-On": RESTART, "7": RESTART,
    "Accounting-Off": RESTART, "8": RESTART,
}  # fmt: skip
_NO_ADDRESS = re.compile(r"Tunnel-|Failed$|9$|1[0-5]$")

_GIVEN = {  # the attribute, or the column of radacct in lower case -> what is given anew takes the place of the old
    "Framed-IP-Address": "v4",
    "Framed-IPv6-Address": "v6",
    "Framed-IPv6-Prefix": "v6 prefix",
    "Delegated-IPv6-Prefix": "v6 delegated",
}
_KEPT = (
    "Acct-Session-Id", "User-Name", "Class", "NAS-IP-Address", "NAS-IPv6-Address", "NAS-Identifier", "NAS-Port-Id",
    "Calling-Station-Id", "Acct-Session-Time",
)  # fmt: skip
_WANTED = {*_KEPT, "Acct-Status-Type", "Acct-Delay-Time", "Event-Timestamp", "Timestamp", *_GIVEN}
_COLUMNS = {
    "acctsessionid": "Acct-Session-Id",
    "username": "User-Name",
    "class": "Class",
    "nasipaddress": "NAS-IP-Address",
    "nasportid": "NAS-Port-Id",
    "callingstationid": "Calling-Station-Id",
    "framedipaddress": "Framed-IP-Address",
    "framedipv6address": "Framed-IPv6-Address",
    "framedipv6prefix": "Framed-IPv6-Prefix",
    "delegatedipv6prefix": "Delegated-IPv6-Prefix",
}
SUBSCRIBERS = ("User-Name", "Class", "NAS-Port-Id", "Calling-Station-Id")

_NAME = re.compile(r"\w[\w.-]*(?::\d+)?")  # 3GPP-IMSI; Tunnel-Type:0, with its tag (RFC 2868 3.1)
_EVENT = re.compile(r"(\w{3} +\d+ \d{4} \d\d:\d\d:\d\d)(?: (\S+))?")
_OCTAL = re.compile(r"\\([0-7]{3}|.)", re.DOTALL)
_LINK_LOCAL = {4: (16, 0xA9FE), 6: (118, 0x3FA)}  # 169.254.0.0/16, fe80::/10: wireless controllers report them
_UNNAMED = ("255.255.255.255", "255.255.255.254")  # RFC 2865 5.8: let the user, or the NAS, choose

_LEFT_OUT = "it was left out"


@dataclass(slots=True)
class Record:
    """One accounting record. `time` in ms; `latest` is another one where the stamp can mean two."""

    status: str
    time: int
    latest: int
    texts: dict[str, str]
    # The kind, and family, address and length. 0.0.0.0 and :: say that nothing is given of it (RFC 4291 2.5.2).
    given: list[tuple[str, tuple[int, int, int]]]
    place: tuple[str, int]  # file and line

    @property
    def nas(self) -> str:
        texts = self.texts
        return texts.get("NAS-IP-Address") or texts.get("NAS-IPv6-Address") or texts.get("NAS-Identifier") or ""


@dataclass(slots=True)
class _Open:
    """A session so far."""

    first: Record
    texts: dict[str, str] = field(default_factory=dict)
    last: int = 0
    interims: int = 0
    gap: int = 0  # the longest between two records, ms
    held: dict[tuple[str, tuple[int, int, int]], int] = field(default_factory=dict)  # what -> since when
    lost: dict[tuple[int, int, int], int] = field(default_factory=dict)  # what the NAS has given on -> when
    done: list[tuple[tuple[int, int, int], int, int]] = field(default_factory=list)  # what, from, until


def read_detail(path: str, zone: datetime.tzinfo | None, skew: int, told: Told) -> tuple[list[Record], list[Tenure]]:
    """The records of a detail file, and the times in which its clock was in doubt."""
    records: list[Record] = []
    doubts: list[Tenure] = []
    clock, other = 0, 0
    for line, pairs in _detail(path, told):
        record = _record(pairs, (path, line), zone, told)
        stamp = _seconds(pairs, "Timestamp")
        if stamp is not None:
            if stamp * 1000 < clock - skew:
                reason = f"the server's clock went back by {clock // 1000 - stamp} s"
                told.add(
                    path, line, reason, "what happened in the hours that came twice has no owner; run an NTP client"
                )
                doubts += everywhere(stamp * 1000, clock, RADIUS, f"{path}: {reason}")
            clock = stamp * 1000
        if record:
            records.append(record)
        other += not record and "Acct-Status-Type" not in pairs
    if other:
        told.add(path, 0, f"{other} records are no accounting", "expected in a detail file of authentication only")
    return records, doubts


def everywhere(since: int, until: int, source: str, doubt: str) -> list[Tenure]:
    """A doubt about all addresses in a time."""
    return [Tenure(family, 0, 0, since, until + 1, source, doubt=doubt) for family in (4, 6)]


def _detail(path: str, told: Told) -> Iterator[tuple[int, dict[str, list[str]]]]:
    """The records of a detail file: the line that each begins at, and its values by attribute."""
    pairs: dict[str, list[str]] = {}
    begins, inside = 0, False
    same: dict[str, str] = {}  # what is said a million times over is kept once
    others: set[str] = set()
    for number, line in enumerate(read_lines(path, told), 1):
        text = line.strip()
        if not text:
            if inside:
                yield begins, pairs
            pairs, begins, inside = {}, 0, False
            continue
        begins = begins or number
        name, mark, value = text.partition(" = ")
        name = name.removesuffix(" :")
        if name in _WANTED:
            value = _value(value.strip())
            pairs.setdefault(name, []).append(same.setdefault(value, value))
            inside = True
        elif mark and (name in others or _NAME.fullmatch(name)):
            others.add(name)
            inside = True
        elif line[0] in "\t " or "=" in line:
            told.add(path, number, "is no attribute of a detail file", "the rest of its record was read")
        elif inside:  # a heading inside a record: the one before was never finished
            told.add(path, number, "a record begins before the one before it ends", f"{_LEFT_OUT}: the disk was full?")
            pairs, begins, inside = {}, number, False
    if inside:
        told.add(path, begins, "the last record is half written", f"{_LEFT_OUT}; the next run reads it")


def _value(text: str) -> str:
    if len(text) > 1 and text[0] in "\"'" and text[-1] == text[0]:
        return _OCTAL.sub(lambda match: chr(int(match[1], 8)) if len(match[1]) == 3 else match[1], text[1:-1])
    return text


def _seconds(pairs: dict[str, list[str]], name: str) -> int | None:
    text = pairs.get(name, [""])[0]
    return int(text) if text.isascii() and text.isdigit() and len(text) < 12 else None


def _record(
    pairs: dict[str, list[str]], place: tuple[str, int], zone: datetime.tzinfo | None, told: Told
) -> Record | None:
    if "Acct-Status-Type" not in pairs:
        return None
    word = pairs["Acct-Status-Type"][0].removeprefix("::")  # FreeRADIUS 4 writes names of values so
    status = _STATUS.get(word)
    if not status:
        if not _NO_ADDRESS.match(word):
            told.add(*place, f"Acct-Status-Type {word[:40]!r} is not known", _LEFT_OUT)
        return None
    times = _times(pairs, zone)
    if not times:
        mend = "let the detail file have its Timestamp, or give the zone of its Event-Timestamp"
        told.add(*place, "the record says no time that can be understood", f"{_LEFT_OUT}; {mend}")
        return None
    texts = {name: pairs[name][0] for name in _KEPT if name in pairs}
    given = [
        (kind, prefix)
        for name, kind in _GIVEN.items()
        for text in pairs.get(name, ())
        if (prefix := _given(text, place, told))
    ]
    return Record(status, *times, texts, given, place)


def _given(text: str, place: tuple[str, int], told: Told) -> tuple[int, int, int] | None:
    if not text or text in _UNNAMED:
        return None
    try:
        prefix = read_prefix(text)
    except ValueError:
        told.add(*place, f"{text[:60]!r} is no address or prefix", "the rest of the record was read")
        return None
    spare, link_local = _LINK_LOCAL[prefix[0]]
    return None if prefix[1] >> spare == link_local else prefix


def _times(pairs: dict[str, list[str]], zone: datetime.tzinfo | None) -> tuple[int, int] | None:
    """When it happened (RFC 2866 5.2): what the server's clock said, less the seconds that the NAS had tried before."""
    stamp = _seconds(pairs, "Timestamp")
    if stamp is not None:
        time = (stamp - (_seconds(pairs, "Acct-Delay-Time") or 0)) * 1000
        return time, time
    stamp = _seconds(pairs, "Event-Timestamp")
    if stamp is not None:
        return stamp * 1000, stamp * 1000
    match = _EVENT.fullmatch(pairs.get("Event-Timestamp", [""])[0])
    if not match:
        return None
    try:
        moment = datetime.datetime.strptime(" ".join(match[1].split()), "%b %d %Y %H:%M:%S")
    except ValueError:
        return None
    # An abbreviation names no zone for certain (RFC 5322 4.3); UTC and GMT do.
    return instants(moment, datetime.UTC if match[2] in ("UTC", "GMT") else zone)


def read_radacct(path: str, zone: datetime.tzinfo | None, told: Told) -> list[Record]:
    """The records that the rows of radacct come to: each a start, a last word and a stop where there are such."""
    records: list[Record] = []
    for line, row in _rows(path, told):
        place = (path, line)
        times = {}
        for column in ("acctstarttime", "acctupdatetime", "acctstoptime"):
            text = row.get(column, "")
            if text and not text.startswith("0000-00-00"):
                times[column] = _stamp(text, zone)
        if "acctstarttime" not in times or None in times.values():
            mend = "give the zone of the database" if zone is None else "stamps are as 2026-11-26 10:00:00+00"
            told.add(*place, "a time is missing, has no zone or is not understood", f"{_LEFT_OUT}; {mend}")
            continue
        start, stop = times["acctstarttime"], times.get("acctstoptime")
        if start and stop and stop < start:
            told.add(*place, "the session stops before it starts", f"{_LEFT_OUT}; run an NTP client")
            continue
        texts = {name: row[column] for column, name in _COLUMNS.items() if row.get(column) and name not in _GIVEN}
        given = [
            (kind, prefix)
            for column, name in _COLUMNS.items()
            if (kind := _GIVEN.get(name, "")) and (prefix := _given(row.get(column, ""), place, told))
        ]
        for column, status in (("acctstarttime", START), ("acctupdatetime", INTERIM), ("acctstoptime", STOP)):
            stamp = times.get(column)
            if stamp:
                records.append(Record(status, *stamp, texts, given, place))
    return records


def _stamp(text: str, zone: datetime.tzinfo | None) -> tuple[int, int] | None:
    try:
        return instants(datetime.datetime.fromisoformat(text), zone)
    except (ValueError, OverflowError):
        return None


_STATEMENT = re.compile(r"(?:INSERT|REPLACE)\s", re.I)  # mysqldump --replace
_INSERT = re.compile(
    r"(?:INSERT|REPLACE)\s+(?:IGNORE\s+)?INTO\s+[\"`]?(?:\w+[\"`]?\.[\"`]?)?(\w+)[\"`]?\s*(\([^)]*\))?\s*VALUES", re.I
)
_COPY = re.compile(r"COPY\s+\"?(?:\w+\"?\.\"?)?(\w+)\"?\s*\(([^)]*)\)\s+FROM\s+stdin;\s*", re.I)
_CREATE = re.compile(r"CREATE TABLE\s+(?:IF NOT EXISTS\s+)?[\"`]?(?:\w+[\"`]?\.[\"`]?)?radacct[\"`]?\s*(?:\(|$)", re.I)
_COLUMN = re.compile(r"[\"`]?([a-z0-9_]+)[\"`]?\s", re.I)
_SQL = re.compile(r"'((?:[^'\\]|''|\\.)*)'|([^\s,()']+)|([(),])", re.DOTALL)
_SQL_PLAIN = re.compile(r"'((?:[^']|'')*)'|([^\s,()']+)|([(),])", re.DOTALL)


def _rows(path: str, told: Told) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of radacct by column, in lower case; NULL is ""."""
    lines = read_lines(path, told)
    first = next(lines, "")
    if "acctstarttime" in first.lower() and "," in first and "(" not in first:
        yield from _csv(path, first, lines, told)
    else:
        yield from _dump(path, first, lines, told)


def _csv(path: str, first: str, lines: Iterator[str], told: Told) -> Iterator[tuple[int, dict[str, str]]]:
    try:
        columns = [name.strip().lower() for name in next(csv.reader([first]))]
    except csv.Error as error:
        told.add(path, 1, f"is no CSV: {error}", "give a heading as radacct has it")
        return

    def whole() -> Iterator[str]:
        for line in lines:
            if line.endswith("\n"):
                yield line
            else:
                told.add(path, 0, "the last line is half written", f"{_LEFT_OUT}; the next run reads it")

    reader = csv.reader(whole())
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:
            told.add(path, reader.line_num + 1, f"is no CSV: {error}", _LEFT_OUT)
            continue
        if row is None:
            return
        if "NULL" in row or "\\N" in row:  # as phpMyAdmin exports it, and MySQL's INTO OUTFILE
            row = ["" if cell in ("NULL", "\\N") else cell for cell in row]
        if len(row) != len(columns):
            if row:
                told.add(path, reader.line_num + 1, f"has not {len(columns)} columns", _LEFT_OUT)
            continue
        yield reader.line_num + 1, dict(zip(columns, row, strict=True))


def _dump(path: str, first: str, lines: Iterator[str], told: Told) -> Iterator[tuple[int, dict[str, str]]]:
    columns: list[str] = []  # as CREATE TABLE has them, for an INSERT that names none
    creating = wanted = False
    copying: list[str] = []
    statement: list[str] = []  # its lines: there can be hundreds of thousands of them
    begins, seen = 0, False
    for number, line in enumerate((text for part in ([first], lines) for text in part), 1):
        if copying:
            if line.startswith("\\."):
                copying = []
            elif not wanted:
                continue
            elif len(cells := line.rstrip("\n").split("\t")) == len(copying) and line.endswith("\n"):
                yield number, {name: _copied(cell) for name, cell in zip(copying, cells, strict=True)}
            else:
                told.add(path, number, f"has not {len(copying)} columns, or is half written", _LEFT_OUT)
        elif creating:
            creating = not line.lstrip().startswith(")") and not line.rstrip().endswith(";")
            match = _COLUMN.match(line.strip())
            if match and match[1].upper() not in ("PRIMARY", "UNIQUE", "KEY", "INDEX", "CONSTRAINT"):
                columns.append(match[1].lower())
        elif _CREATE.match(line):
            creating, columns, seen = not line.rstrip().endswith(";"), [], True
        elif match := _COPY.match(line):
            copying = [name.strip(' "').lower() for name in match[2].split(",")]
            wanted = match[1].lower() == "radacct"
            seen = seen or wanted
        else:
            if not statement and not _STATEMENT.match(line):
                continue
            statement.append(line)
            begins = begins or number
            if line.rstrip().endswith(";"):
                whole, statement = "".join(statement), []
                if (_INSERT.match(whole) or [""] * 2)[1].lower() == "radacct":
                    seen = True
                    yield from _inserted(path, begins, whole, columns, told)
                begins = 0
    if statement:
        told.add(path, begins, "the last statement is half written", f"{_LEFT_OUT}; the next run reads it")
    if not seen:
        told.add(path, 0, "holds no table radacct", "give its rows as CSV with a heading, or as a dump")


def _copied(cell: str) -> str:
    """A cell of COPY's text form (PostgreSQL's manual, COPY, "Text Format")."""
    if cell == "\\N":
        return ""
    return re.sub(r"\\(.)", lambda match: {"t": "\t", "n": "\n", "r": "\r"}.get(match[1], match[1]), cell)


def _inserted(
    path: str, line: int, statement: str, known: list[str], told: Told
) -> Iterator[tuple[int, dict[str, str]]]:
    match = _INSERT.match(statement)
    if not match:
        return
    columns = [name.strip(' \n"`').lower() for name in match[2].strip("()").split(",")] if match[2] else known
    # mysqldump escapes with a backslash and quotes names with a backtick; the others double the quote.
    mysql = "`" in match[0]
    row: list[str] = []
    depth = 0
    for token in (_SQL if mysql else _SQL_PLAIN).finditer(statement, match.end()):
        if token[3] == "(":
            row, depth = [], depth + 1
        elif token[3] == ")":
            depth -= 1
            if len(row) == len(columns):
                yield line, dict(zip(columns, row, strict=True))
            else:
                told.add(path, line, f"a row has {len(row)} values for {len(columns)} columns", _LEFT_OUT)
        elif token[3] is None and depth == 1:
            text = token[1].replace("''", "'") if token[1] is not None else token[2]
            if mysql and token[1] is not None:
                text = re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)
            row.append("" if token[1] is None and text.upper() == "NULL" else text)


REGULAR = 3  # interim updates, from which on they are taken for regular
SHORTEST_INTERIM = 60_000  # ms; RFC 2869 5.16: an interval is no shorter
_ORDER = {RESTART: 0, START: 1, INTERIM: 2, STOP: 3}


def tenures(records: Iterable[Record], attribute: str, told: Told) -> list[Tenure]:
    """Who had what by these records.

    A session ends with its Stop, with its NAS (Accounting-On and -Off), or at the latest where the same NAS gives its
    address to another and is silent about it from then on: its Stop was lost. Without any of these it goes on for a day
    after its NAS was last heard of, and where it sends interim updates until three of them are missing.
    """
    opened: dict[tuple[str, str], _Open] = {}
    holders: dict[tuple[str, tuple[int, int, int]], _Open] = {}
    heard: dict[str, int] = {}  # by NAS
    found: list[Tenure] = []
    for record in sorted(records, key=lambda one: (one.time, _ORDER[one.status])):
        heard[record.nas] = record.latest
        if record.status == RESTART:
            for key in [key for key in opened if key[0] == record.nas]:
                found += _closed(opened.pop(key), record.latest, attribute, told)
            continue
        key = (record.nas, record.texts.get("Acct-Session-Id", ""))
        if not all(key):
            told.add(*record.place, "no Acct-Session-Id, or nothing that names the NAS", _LEFT_OUT)
            continue
        current = opened.get(key)
        if current and _another(record.texts.get(attribute), current.texts.get(attribute), record.status):
            found += _closed(opened.pop(key), record.latest, attribute, told)  # a NAS that counts from the start again
            current = None
        if not current:
            current = opened[key] = _Open(record)
            for _, prefix in record.given:
                loser = holders.get((record.nas, prefix))
                # A Stop gives nothing away: that of a session that is over already was sent twice.
                if loser and prefix[1] and loser.last <= record.time and record.status != STOP:
                    loser.lost[prefix] = record.latest
        _hear(current, record)
        if record.status == STOP:
            found += _closed(opened.pop(key), record.latest, attribute, told)
            continue
        for _, prefix in record.given:
            holders[record.nas, prefix] = current
    for (nas, _), current in opened.items():
        believed = heard[nas] + BELIEVED
        if current.interims >= REGULAR and current.gap >= SHORTEST_INTERIM:
            believed = min(believed, current.last + 3 * current.gap)
        found += _closed(current, believed, attribute, told, goes_on=True)
    return found


def _another(says: str | None, said: str | None, status: str) -> bool:
    """Whether a record is about another session of the same number. One that leaves the customer out is not."""
    return says != said and (status == START or bool(says and said))


def _hear(current: _Open, record: Record) -> None:
    """What one more record adds to a session."""
    since = record.time
    if current.first is record and record.status != START:  # its Start is in no file: RFC 2866 5.7 says when it was
        seconds = record.texts.get("Acct-Session-Time", "")
        since -= int(seconds) * 1000 if seconds.isdigit() and len(seconds) < 10 else 0
    if record.status == INTERIM:
        current.interims += 1
        current.gap = max(current.gap, record.time - current.last if current.last else 0)
    current.last = max(current.last, record.latest)
    current.texts |= record.texts
    kinds = {kind for kind, _ in record.given}
    for kind, prefix in [held for held in current.held if held[0] in kinds and held not in record.given]:
        current.done.append((prefix, current.held.pop((kind, prefix)), record.latest))
    for kind, prefix in record.given:
        if prefix[1]:
            current.held.setdefault((kind, prefix), since)
        current.lost.pop(prefix, None)  # it has the address still: two have it


def _closed(current: _Open, until: int, attribute: str, told: Told, goes_on: bool = False) -> list[Tenure]:
    texts, place = current.texts, current.first.place
    subscriber = texts.get(attribute, "")
    if not subscriber:
        told.add(*place, f"the session has no {attribute}", "its address counts as somebody's; let the NAS send it")
    elif not subscriber.isprintable():  # what a client sent; no store and no mail takes it
        told.add(*place, f"the {attribute} of a session is not readable", "its address counts as somebody's")
        subscriber = ""
    if current.lost:
        told.add(*place, "a session whose Stop was lost", "it ends where the NAS gave its address on")
    held = [
        *current.done,
        *((prefix, since, min(until, current.lost.get(prefix, until))) for (_, prefix), since in current.held.items()),
    ]
    if not held:
        return []
    session = Session(
        subscriber,
        texts.get("Acct-Session-Id", ""),
        texts.get("User-Name", ""),
        texts.get("NAS-IP-Address") or texts.get("NAS-IPv6-Address", ""),
        texts.get("NAS-Identifier", ""),
        tuple(dict.fromkeys(prefix_text(*prefix) for prefix, _, _ in held)),
        min(since for _, since, _ in held),
        None if goes_on else until,
    )
    doubt = "" if subscriber else f"somebody without {attribute} had it"
    return [Tenure(*prefix, since, end, RADIUS, subscriber, session, doubt=doubt) for prefix, since, end in held]
