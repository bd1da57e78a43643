# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One run of the detectors: all sources that are given, the alarms, whose they are, and what later runs must know.

    flow files or ClickHouse, logs ─► contacts ─► Alarm ─► earlier alarms in the store ─► Case, with the cases of others

Nothing is asked of a subscriber and nothing done to one. A file that cannot be used is told. Where all of a source are
such, the run ends with an error: no alarm would look like calm.
"""

from __future__ import annotations

import contextlib
import datetime
import glob
import math
import os
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..variables import Problems, path_text
from . import logs, suspects
from .detectors import FLOWS, Detector, Pools, read_detectors, shown_time
from .engines import ClickHouse, DuckDB, Window, load
from .flows import FlowFileError, finished
from .identity import Sources
from .limits import DAY, NeverList, Protected, read_case
from .owners import sources_of
from .queries import EngineError, facts_of
from .records import Case, Silence
from .store import Store, open_store
from .suspects import Found, Network, same_owner
from .walk import HOUR


class BadDetection(Exception):
    """The run makes no sense as it is asked for, or a source that it stands on gives nothing: what, and what to do."""


@dataclass(frozen=True, slots=True)
class Logs:
    """Logs of one kind: patterns of paths, and what their lines do not say."""

    kind: str
    files: tuple[str, ...]
    zone: str = ""
    year: int = 0
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class Server:
    """A ClickHouse with Akvorado's flows."""

    url: str
    user: str
    password: str
    table: str


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run is asked for, without faults."""

    network: Network
    detectors: Mapping[str, Detector]
    window: Window
    flow_files: tuple[str, ...]
    server: Server | None
    logs: tuple[Logs, ...]
    identity: Callable[[], Sources] | None  # None: nobody is to be named
    state: str
    cases: tuple[Case, ...]


def read_settings(options: Mapping[str, Any], now: int) -> Settings:
    """The options of the module spam_suspects. Raises BadDetection with the first fault."""
    policy = options["policy"]
    try:
        pools = Pools((pool["kind"], pool["prefixes"]) for pool in policy["pools"].values())
        never = NeverList(Protected(one["prefix"], one["reason"]) for one in policy["never"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise BadDetection(f"policy: {error!r}; give what the filter isp.hardening.signals_host gives") from None
    if not pools.ranges or not policy["never"]:
        raise BadDetection("policy: it has no pools, or an empty never-list; nothing is detected without both")
    problems = Problems()
    detectors = read_detectors(options.get("detectors"), ("detectors",), problems)
    if problems:
        raise BadDetection(f"{path_text(problems[0].path)}: {problems[0].reason}; {problems[0].mend}")
    wanted = tuple(_logs(number, entry) for number, entry in enumerate(options.get("logs") or ()))
    server = Server(**options["clickhouse"]) if options.get("clickhouse") else None
    files = tuple(options.get("flow_files") or ())
    if server and files:
        raise BadDetection("flow_files and clickhouse: give one of them; the same flows from both would count twice")
    if not (files or server or wanted):
        raise BadDetection("nothing to look at: give flow_files, clickhouse or logs")
    try:
        cases = tuple(read_case(one) for one in options.get("cases") or ())
    except ValueError as error:
        raise BadDetection(f"cases: {error}") from None
    return Settings(
        Network(pools, never, bool(options.get("port_25_blocked"))),
        detectors,
        _window(options, now),
        files,
        server,
        wanted,
        _identity(options.get("identity") or {}),
        options.get("state") or "",
        cases,
    )


def _logs(number: int, entry: Mapping[str, Any]) -> Logs:
    made = Logs(
        entry["kind"], tuple(entry["files"]), entry.get("zone") or "", entry.get("year") or 0, entry.get("prefix") or ""
    )
    try:
        logs.Stamps(made.zone, made.year)
    except ValueError as error:
        raise BadDetection(f"logs[{number}]: {error}") from None
    return made


def _window(options: Mapping[str, Any], now: int) -> Window:
    hours, end = options["hours"], options.get("end")
    if not 1 <= hours <= 24 * 31:
        raise BadDetection(f"hours: {hours} is out of range; write a number from 1 to 744")
    if not end:
        return Window(now - hours * HOUR, now, now)
    try:
        moment = datetime.datetime.fromisoformat(end)
    except ValueError:
        moment = datetime.datetime.max
    if moment.tzinfo is None:
        raise BadDetection(f"end: {end!r} is no time with a zone; write it as 2026-11-26T14:00:00Z")
    time = int(moment.timestamp()) * 1000
    if time > now:
        raise BadDetection(f"end: {end} is in the future")
    return Window(time - hours * HOUR, time, now)


def _identity(options: Mapping[str, Any]) -> Callable[[], Sources] | None:
    def read() -> Sources:
        try:
            return sources_of(options)
        except ValueError as error:
            raise BadDetection(f"identity: {error}") from None

    return read if any(options.values()) else None


def _files(patterns: Sequence[str]) -> list[str]:
    """The files that match, oldest first; a pattern that matches none is itself, so that whoever reads it tells."""
    found = [path for pattern in patterns for path in (sorted(glob.glob(pattern)) or [pattern])]
    return sorted(dict.fromkeys(found), key=_age)


def _age(path: str) -> float:
    """When a file was last written, in seconds since 1970; what is not there is as new as can be, and is told later."""
    with contextlib.suppress(OSError):
        return os.stat(path).st_mtime
    return math.inf


def run(settings: Settings, changes: bool) -> dict[str, Any]:
    """Look, and say what was found; with `changes` later runs know it. Raises BadDetection, StoreError, ImportError."""
    # The store is held for moments only: others wait for it.
    with _store(settings.state, changes) as store:
        worms = suspects.remembered_worms(store, settings.window.end) if store else {}
        known = suspects.remembered(store, settings.window.start - DAY) if store else []
    sources = settings.identity() if settings.identity else None
    if sources:
        settings = replace(settings, network=replace(settings.network, theirs=same_owner(sources, settings.window.end)))
    found, flows, lines = Found(), 0, 0
    if settings.flow_files or settings.server:
        more, flows = _of_flows(settings, worms)
        found += more
    if settings.logs:
        more, lines = _of_logs(settings, worms | suspects.worms_of(found.suspects))
        found += more
    alarmed = suspects.earliest(found.suspects)
    surge = suspects.surge((one.alarm for one in alarmed), known, settings.detectors["D7"])
    alarms = [one.alarm for one in alarmed] + ([surge] if surge else [])
    with _store(settings.state, changes) as store:
        cases, silences = suspects.cases(alarmed, sources, settings.window.now, store)
        if store:
            suspects.remember(store, alarms, settings.window.now)
    told = [*found.silences, *silences, *(sources.told if sources else ())]
    since = {(one.alarm.detector, one.alarm.subject): one.since for one in alarmed}
    return {
        "alarms": [
            {
                "detector": one.detector,
                "subject": one.subject,
                "since": since.get((one.detector, one.subject), one.time),
                "time": one.time,
                "score": round(one.score, 3),
                "contacts": one.contacts,
                "evidence": list(one.evidence),
            }
            for one in alarms
        ],
        "silences": [{"detector": one.detector, "reason": one.reason, "mend": one.mend} for one in told],
        "cases": [one.as_dict() for one in suspects.merged([*settings.cases, *cases])],
        "flows": flows,
        "lines": lines,
    }


class _Undo(Exception):
    """Nothing of this run is kept."""


@contextlib.contextmanager
def _store(dsn: str, changes: bool) -> Iterator[Store | None]:
    """The store; None where there is none to remember in. Without `changes` it is as it was afterwards."""
    if not dsn or (not changes and "://" not in dsn and not os.path.exists(dsn)):
        yield None
        return
    with contextlib.suppress(_Undo), open_store(dsn, suspects.SCHEMA) as store:
        yield store
        if not changes:
            raise _Undo


def _of_flows(settings: Settings, worms: Mapping[int, int]) -> tuple[Found, int]:
    ports = {port for one in settings.detectors.values() if one.source == FLOWS and one.enabled for port in one.ports}
    if not ports:
        return Found(), 0
    network, window = settings.network, settings.window
    try:
        if settings.server:
            one = settings.server
            engine = ClickHouse(one.url, one.user, one.password, one.table, window, network.pools, ports)
            facts = engine.facts + facts_of(engine)
            return suspects.of_flows(engine, facts, settings.detectors, network, worms), facts.flows
        files = [file for path in _files(settings.flow_files) for file in finished([path])]
        # Nothing is in a file that began after it was last written: a collector keeps weeks, a run wants hours.
        files = [file for file in files if _age(file) * 1000 >= window.start]
        if not files:
            raise BadDetection(f"flow_files: all of them are from before {shown_time(window.start)}; does nfcapd run?")
        with DuckDB() as embedded:
            facts, silences = load(embedded, files, network.pools, ports, window)
            if not facts.flows:
                said = f": {silences[0].reason}; {silences[0].mend}" if silences else "; they are empty"
                raise BadDetection(f"flow_files: none of {len(files)} files gives a flow{said}")
            found = suspects.of_flows(embedded, facts, settings.detectors, network, worms)
            return found + Found(silences=tuple(silences)), facts.flows
    except (EngineError, FlowFileError) as error:
        raise BadDetection(str(error)) from None


def _of_logs(settings: Settings, worms: Mapping[int, int]) -> tuple[Found, int]:
    reads: list[tuple[str, logs.LogRead]] = []
    for one in settings.logs:
        reader = _reader(one, settings)
        for file in _files(one.files):
            try:
                if isinstance(reader, logs.NftSet):
                    reader.read_set(file, "".join(logs.open_log(file)), int(_age(file) * 1000), settings.window)
                else:
                    reader.read(file, logs.open_log(file), settings.window, logs.Stamps(one.zone, one.year))
            except (OSError, EOFError, zlib.error) as error:
                said = getattr(error, "strerror", None) or str(error) or "it is cut off"
                mend = "name the files that are there, and let the one who runs this read them"
                reader.found.silences.append(Silence("", f"{file}: left out: {said}", mend))
        reads.append((one.kind, reader.finish()))
    lines = sum(read.lines for _kind, read in reads)
    told = [silence for _kind, read in reads for silence in read.silences]
    if not lines:
        said = f": {told[0].reason}; {told[0].mend}" if told else "; they are empty"
        raise BadDetection(f"logs: no file gives a line{said}")
    refused: dict[object, Counter[str]] = defaultdict(Counter)
    for _kind, read in reads:
        for subject, counts in read.refused.items():
            refused[subject] += counts
    found = suspects.of_contacts(logs.together(reads), settings.detectors, settings.network, worms, refused)
    return found + Found(silences=tuple(told)), lines


def _reader(one: Logs, settings: Settings) -> logs.Reader:
    if one.kind == "filter":
        return logs.Filter(settings.detectors["D4"].ports, one.prefix)
    if one.kind == "nft_set":
        return logs.NftSet(settings.detectors["D4"].ports)
    return {"postfix": logs.Postfix, "rspamd": logs.Rspamd, "dns": logs.Dns}[one.kind]()
