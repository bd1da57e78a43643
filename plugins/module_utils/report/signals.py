# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The signals' part of a report: who is suspect, who is listed, what is done about it, and what nobody can say.

It is made of the results of modules, in whatever order and number they come. signals_status says how it stands; of the
others counts what is not kept anywhere: what they switched off or left out, refused to do, and why they froze.
"""

from __future__ import annotations

import datetime
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .text import number_of, text_of, texts_of

QUARANTINE = "quarantine"
_SURGE = "surge of new suspects"
MOST_ROWS, MOST_EVIDENCE = 500, 20  # of one table; the rest is counted


@dataclass(frozen=True)
class Suspect:
    """An address, or a login, that detectors have found within a day."""

    subject: str
    detectors: tuple[str, ...]
    time: str
    score: float
    evidence: tuple[str, ...]


@dataclass(frozen=True)
class Silence:
    """A detector that is switched off, or something that was left out: why, and what to do."""

    detector: str
    reason: str
    mend: str


@dataclass(frozen=True)
class Listing:
    """An own address that is on a blocklist. `subscriber` is "" where it is not certain whose it was."""

    network: str
    list: str
    began: str
    subscriber: str
    detail: str


@dataclass(frozen=True)
class Figures:
    """How well it goes with one list. Seconds; None where it cannot be said yet."""

    list: str
    open: int
    closed: int
    median_seconds: int | None  # time to remediate
    p90_seconds: int | None
    relapsed: int
    watched: int
    led: int  # episodes that own detection knew of first
    lead_seconds: int | None


@dataclass(frozen=True)
class Act:
    """Something that is done about a subscriber, or a remote source, until it ends by itself."""

    kind: str  # "quarantine", or the black-holing: "source", "destination", "inbound"
    host: str
    key: str
    subscriber: str
    prefixes: tuple[str, ...]
    since: str
    until: str
    reason: str
    by: str


@dataclass(frozen=True)
class Refused:
    """A case that nothing is done about."""

    host: str
    key: str
    reason: str


@dataclass(frozen=True)
class Notice:
    """Somebody was told, or could not be."""

    subscriber: str
    channel: str
    state: str
    time: str
    reason: str


@dataclass(frozen=True)
class Signals:
    """`alarms` is what must be looked at: a surge, a frozen run, a state that cannot be read. `more`: rows left out."""

    generated: str
    alarms: tuple[str, ...]
    dry_run: bool
    planned: int  # actions that a dry run only told of
    suspects: tuple[Suspect, ...]
    silences: tuple[Silence, ...]
    listings: tuple[Listing, ...]
    lists: tuple[Figures, ...]
    actions: tuple[Act, ...]
    refused: tuple[Refused, ...]
    notices: tuple[Notice, ...]
    more: Mapping[str, int]

    @property
    def counts(self) -> dict[str, int]:
        """What a manager asks first."""
        kinds = Counter("in quarantine" if one.kind == QUARANTINE else "black-holed" for one in self.actions)
        told = sum(one.state == "sent" for one in self.notices)
        return {
            "suspect": len(self.suspects) + self.more.get("suspects", 0),
            "listed": len(self.listings) + self.more.get("listings", 0),
            "in quarantine": kinds["in quarantine"],
            "black-holed": kinds["black-holed"],
            "told this week": told,
        }


def read_signals(results: Sequence[Mapping[str, Any]]) -> Signals | None:
    """The results as plain data, each with the `host` that it is of; None where there is none."""
    if not results:
        return None
    parts = [{**one, "host": text_of(one.get("host"))} for one in results]
    states = [{**_mapping(one.get("signals")), "host": one["host"]} for one in parts]
    rows: dict[str, list[Any]] = {
        "suspects": [_suspect(one) for _, one in _rows(states, "suspects")],
        "silences": [
            *(_silence(one) for _, one in _rows(parts, "silences", "told")),
            *(Silence("", line, "") for part in parts for line in _lines(part, "problems")),
        ],
        "listings": [_listing(one) for _, one in _rows(states, "listings")],
        "lists": [_figures(one) for _, one in _rows(states, "lists")],
        "actions": [_act(one, state["host"]) for state, one in _rows(states, "actions")],
        "refused": [
            Refused(part["host"], text_of(one.get("key")), text_of(one.get("why")))
            for part, one in _rows(parts, "refused")
        ],
        "notices": [_notice(one) for _, one in _rows(states, "notices")],
    }
    once = {name: sorted(set(found), key=_ORDER.get(name, str)) for name, found in rows.items()}
    dry = [part for part in parts if part.get("dry_run") is True]
    generated = max((number_of(one.get("generated")) for one in states), default=0)
    return Signals(
        generated=_moment(generated),
        alarms=tuple(sorted({text_of(line) for part in (*states, *parts) for line in _alarms(part)}, key=_surge_first)),
        dry_run=bool(dry),
        planned=sum(len(part["added"]) for part in dry if isinstance(part.get("added"), list)),
        more={name: len(found) - MOST_ROWS for name, found in once.items() if len(found) > MOST_ROWS},
        **{name: tuple(found[:MOST_ROWS]) for name, found in once.items()},
    )


# The latest first, and of lists the longest.
_ORDER: Mapping[str, Callable[[Any], Any]] = {
    "suspects": lambda one: (_descending(one.time), one.subject),
    "listings": lambda one: (_descending(one.began), one.network, one.list),
    "lists": lambda one: (-one.open, one.list),
    "actions": lambda one: (one.kind != QUARANTINE, one.until, one.key, one.host),
    "notices": lambda one: (_descending(one.time), str(one)),
}


def _descending(moment: str) -> tuple[int, ...]:
    return tuple(-ord(char) for char in moment)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _rows(parts: Sequence[Mapping[str, Any]], *names: str) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    for part, name in itertools.product(parts, names):
        found = part.get(name)
        if isinstance(found, list | tuple):
            yield from ((part, one) for one in found if isinstance(one, Mapping))


def _lines(part: Mapping[str, Any], name: str) -> tuple[str, ...]:
    found = part.get(name)
    return texts_of(found) if isinstance(found, list | tuple) else ()


def _alarms(part: Mapping[str, Any]) -> Iterator[str]:
    host = part["host"]
    for _, surge in _rows([part], "surge"):
        yield f"{_SURGE}: {'; '.join(texts_of(surge.get('evidence')))}"
    if part.get("frozen"):
        yield f"{host}: nothing new was done or believed: {part['frozen']}"
    yield from (f"{host}: the kill switch is on: {one}" for one in _lines(part, "killed"))
    yield from (f"{host}: {one}" for one in _lines(part, "problems") if "generated" in part)
    if part.get("failed") or part.get("unreachable"):
        yield f"{host}: {part.get('msg') or 'failed'}"


def _surge_first(alarm: str) -> tuple[bool, str]:
    return not alarm.startswith(_SURGE), alarm


def _suspect(raw: Mapping[str, Any]) -> Suspect:
    detectors = texts_of(raw.get("detectors")) or tuple(filter(None, (text_of(raw.get("detector")),)))
    lines = texts_of(raw.get("evidence"))[:MOST_EVIDENCE]
    score = raw.get("score")
    return Suspect(
        text_of(raw.get("subject")),
        detectors,
        _moment(raw.get("time")),
        round(float(score), 1) if isinstance(score, (int, float)) else 0.0,
        lines,
    )


def _silence(raw: Mapping[str, Any]) -> Silence:
    return Silence(*(text_of(raw.get(name)) for name in ("detector", "reason", "mend")))


def _listing(raw: Mapping[str, Any]) -> Listing:
    network, name, subscriber, detail = (text_of(raw.get(key)) for key in ("network", "list", "subscriber", "detail"))
    return Listing(network, name, _moment(raw.get("began")), subscriber, detail)


def _figures(raw: Mapping[str, Any]) -> Figures:
    median, p90, lead = (_seconds(raw.get(name)) for name in ("median", "p90", "lead"))
    numbers = {name: number_of(raw.get(name)) for name in ("open", "closed", "relapsed", "watched", "led")}
    return Figures(text_of(raw.get("list")), median_seconds=median, p90_seconds=p90, lead_seconds=lead, **numbers)


def _act(raw: Mapping[str, Any], host: str) -> Act:
    kind, key, subscriber, reason, by = (
        text_of(raw.get(name)) for name in ("kind", "key", "subscriber", "reason", "by")
    )
    since, until = _moment(raw.get("since")), _moment(raw.get("until"))
    return Act(kind, host, key, subscriber, texts_of(raw.get("prefixes")), since, until, reason, by)


def _notice(raw: Mapping[str, Any]) -> Notice:
    subscriber, channel, state, reason = (
        text_of(raw.get(name)) for name in ("subscriber", "channel", "state", "reason")
    )
    return Notice(subscriber, channel, state, _moment(raw.get("time")), reason)


def _moment(value: object) -> str:
    """Milliseconds since 1970 UTC as ISO 8601; "" for none."""
    try:
        time = datetime.datetime.fromtimestamp(number_of(value) / 1000, datetime.UTC)
    except (OverflowError, OSError, ValueError):
        return ""
    return time.isoformat(timespec="seconds") if number_of(value) > 0 else ""


def _seconds(value: object) -> int | None:
    return None if value is None else number_of(value) // 1000


def lasting(seconds: int | None) -> str:
    """'9 h', '3 days'; a dash where it cannot be said yet."""
    if seconds is None:
        return "–"
    for unit, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds} s"
