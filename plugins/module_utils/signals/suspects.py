# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From contacts to alarms that an abuse desk can read to a customer, and from these to cases of subscribers.

    flows in a database ─► queries.walked() ─► the same again by walk.walk() ─┐
    contacts of logs ─► walk.walk() ──────────────────────────────────────────┴─► Alarm ─► owner() ─► Case

No alarm of the SQL is shown before the plain walk has come to the same subject, time, score and count: the two share no
code. Nothing is kept of a walk between runs: a run looks at a window, and windows that overlap lose no climb that is
shorter than the overlap. What is remembered are the alarms, for the surge, the worms of three days, and the episodes.
"""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from . import walk
from .detectors import (
    AFTER_WORM,
    AFTER_WORM_TIME,
    Detector,
    Facts,
    Pools,
    address_of,
    fit,
    key_of,
    shown_key,
    shown_time,
)
from .identity import Sources, owner, touchable
from .limits import DAY, NeverList
from .queries import Engine, EngineError, contacts_of, walked
from .records import AMBIGUOUS, KNOWN, Alarm, Case, Owner, Silence
from .store import Store

NETWORK = "network"  # the subject of D7
SHOWN = 5  # counterparts in the evidence
KEPT = 30 * DAY  # alarms of earlier runs

SCHEMA = """
CREATE TABLE IF NOT EXISTS alarms (
    detector TEXT, subject TEXT, time BIGINT, score DOUBLE PRECISION, contacts BIGINT, evidence TEXT,
    PRIMARY KEY (detector, subject, time)
);
CREATE TABLE IF NOT EXISTS suspects (subscriber TEXT, since BIGINT, latest BIGINT, PRIMARY KEY (subscriber, since));
"""


@dataclass(frozen=True, slots=True)
class Suspect:
    """An alarm, and when the climb to it began."""

    alarm: Alarm
    since: int


@dataclass(frozen=True, slots=True)
class Found:
    """What a run found."""

    suspects: tuple[Suspect, ...] = ()
    silences: tuple[Silence, ...] = ()

    def __add__(self, other: Found) -> Found:
        return Found(self.suspects + other.suspects, self.silences + other.silences)


@dataclass(frozen=True, slots=True)
class Network:
    """What the policy says of subscribers."""

    pools: Pools
    never: NeverList
    port_25_blocked: bool = False
    # Whether who had the address of a key at a time has it still: a worm lowers no threshold of the next one.
    theirs: Callable[[int, int], bool] = lambda _key, _time: True

    def lowering(self, worms: Mapping[int, int]) -> dict[int, int]:
        """Those alarms of D4 that lower thresholds, key -> time."""
        return {key: time for key, time in worms.items() if self.theirs(key, time)}


def of_flows(
    engine: Engine, facts: Facts, detectors: Mapping[str, Detector], network: Network, worms: Mapping[int, int]
) -> Found:
    """The alarms of D1 to D4. `worms` are earlier alarms of D4, key -> time. Raises EngineError."""
    usable, silences = fit(detectors, facts, network.port_25_blocked)
    found, worms = Found(silences=tuple(silences)), network.lowering(worms)
    # Worms first: they lower the thresholds of the others.
    for name in sorted(usable, key=lambda one: (one != "D4", one)):
        detector = usable[name]
        crossed = _crossed(engine, detector, network.pools, {} if name == "D4" else worms)
        alarmed = list(_alarms(detector, crossed))
        worms |= network.lowering(worms_of(reversed(alarmed)))  # of several ports the first
        found += spare(alarmed, network.never)
    return found


def _crossed(
    engine: Engine, detector: Detector, pools: Pools, worms: Mapping[int, int]
) -> dict[walk.Key, tuple[walk.Crossing, list[walk.Contact]]]:
    alarms, contacts = walked(engine, detector)
    again = walk.walk(contacts, detector.steps)
    if [one[:4] for one in again] != alarms:
        raise EngineError(
            f"{detector.name}: the database and the plain walk do not agree, so nothing is alarmed; report it, with "
            "the version of the database"
        )
    lower = {key for key in worms if pools.kind(key) in detector.kinds}
    own = [one for one in contacts if pools.kind(one.subject[0]) in detector.kinds and one.subject[0] not in lower]
    return crossed(own + contacts_of(engine, detector, lower), detector, worms)


def crossed(
    contacts: Sequence[walk.Contact], detector: Detector, worms: Mapping[int, int]
) -> dict[walk.Key, tuple[walk.Crossing, list[walk.Contact]]]:
    """The crossings of a detector and what led there, by subject, which is (key or login, port)."""
    height = detector.steps.threshold - AFTER_WORM
    subjects = {one.subject for one in contacts}
    lowered = {
        subject: (worms[subject[0]], worms[subject[0]] + AFTER_WORM_TIME, height)
        for subject in subjects
        if subject[0] in worms
    }
    found = {one.subject: one for one in walk.walk(contacts, detector.steps, lowered)}
    of: dict[walk.Key, list[walk.Contact]] = defaultdict(list)
    for contact in contacts:
        if contact.subject in found:
            of[contact.subject].append(contact)
    return {
        subject: (crossing, of[subject][: crossing.contacts][-crossing.climb :]) for subject, crossing in found.items()
    }


def of_contacts(
    contacts: Mapping[str, Iterable[walk.Contact]],
    detectors: Mapping[str, Detector],
    network: Network,
    worms: Mapping[int, int],
    refused: Mapping[object, Mapping[str, int]] | None = None,
) -> Found:
    """The alarms of the contacts that logs tell of, by detector. Subjects are (key or login, port).

    `refused` says how often the own mail hosts refused a subject, by reason: no contacts, but worth telling.
    """
    found, worms = Found(), network.lowering(worms)
    for name, ones in sorted(contacts.items(), key=lambda one: (one[0] != "D4", one[0])):
        detector = detectors[name]
        if not detector.enabled:
            continue
        first = walk.first_contacts(
            one
            for one in ones
            # A login is a customer's wherever he is; an address only where a pool has it.
            if isinstance(one.subject[0], str) or network.pools.kind(one.subject[0]) in detector.kinds
        )
        alarmed = list(_alarms(detector, crossed(first, detector, {} if name == "D4" else worms), refused or {}))
        worms |= network.lowering(worms_of(reversed(alarmed)))
        found += spare(alarmed, network.never)
    return found


def worms_of(suspects: Iterable[Suspect]) -> dict[int, int]:
    """The alarms of D4 among them: key -> time."""
    return {key_of(one.alarm.subject): one.alarm.time for one in suspects if one.alarm.detector == "D4"}


def spare(suspects: Iterable[Suspect], never: NeverList) -> Found:
    """Alarms of what is never touched are told, and are none."""
    kept, silences = [], []
    for one in suspects:
        alarm = one.alarm
        protected = never.hit(f"{alarm.subject}/{'64' if ':' in alarm.subject else '32'}") if _address(alarm) else None
        if protected:
            silences.append(
                Silence(
                    alarm.detector,
                    f"{protected.prefix} is spared: {protected.reason}. {' '.join(alarm.evidence[:1])}",
                    "look at it by hand; an exempt host can be infected as well",
                )
            )
        else:
            kept.append(one)
    return Found(tuple(kept), tuple(silences))


def earliest(suspects: Iterable[Suspect]) -> list[Suspect]:
    """One for each detector and subject, by time; what others (other ports, other sources) say is added to it."""
    found: dict[tuple[str, str], Suspect] = {}
    for one in sorted(suspects, key=lambda one: (one.alarm.time, one.alarm.detector, one.alarm.subject)):
        place = one.alarm.detector, one.alarm.subject
        known = found.get(place, one)
        lines = _each((known.alarm.evidence, one.alarm.evidence))
        found[place] = Suspect(replace(known.alarm, evidence=lines), min(known.since, one.since))
    return list(found.values())


def _alarms(
    detector: Detector,
    crossed: Mapping[walk.Key, tuple[walk.Crossing, list[walk.Contact]]],
    refused: Mapping[object, Mapping[str, int]] | None = None,
) -> Iterator[Suspect]:
    for (who, port), (crossing, contacts) in sorted(crossed.items(), key=lambda one: (one[1][0].time, str(one[0]))):
        subject = who if isinstance(who, str) else address_of(who)
        shown = who if isinstance(who, str) else shown_key(who)
        lines = _evidence(detector.name, shown, port, crossing, contacts)
        why = (refused or {}).get(who)
        if why:
            counts = ", ".join(f"{reason} {count}" for reason, count in sorted(why.items()))
            lines += (f"Our mail hosts refused it in this time: {counts}",)
        score = crossing.score / walk.NAT
        yield Suspect(Alarm(detector.name, subject, crossing.time, score, crossing.contacts, lines), crossing.since)


def _evidence(
    name: str, who: str, port: int, crossing: walk.Crossing, contacts: Sequence[walk.Contact]
) -> tuple[str, ...]:
    count, failed = crossing.climb, crossing.failed
    took = _duration(crossing.time - crossing.since)
    said = {
        "D1": f"opened port {port} of {_many(count, 'server')} {took}, all of them new to it"
        + (f"; {failed} of the sessions carried no mail" if failed else ""),
        "D2": f"opened port {port} of {_many(count, 'server')} {took}; {failed} of the sessions carried no mail",
        "D3": f"tried port {port} of {_many(count, 'server')} {took}; {failed} did not answer, or a filter stopped it",
        "D4": f"tried port {port} of {_many(count, 'host')} {took}; {failed} did not answer, or a filter stopped it",
        "D5": f"asked for the mail servers of {_many(count, 'domain')} {took}",
        "D6": f"sent {_many(count, 'mail')} {took}; {failed} of them are spam, or were refused for good",
        "D7": f"{count} subscribers more are suspect {took}",
    }[name]
    names = [_readable(one.object) if isinstance(one.object, str) else shown_key(one.object) for one in contacts]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{shown_time(crossing.since)}: {who} {said}", f"To: {', '.join(names[:SHOWN])}{more}"


def _readable(name: str) -> str:
    """A name that somebody else has chosen, for a line in a mail or on a page."""
    return "".join(letter if letter.isprintable() else "?" for letter in name[:100])


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _duration(time: int) -> str:
    for unit, length in (("hour", walk.HOUR), ("minute", 60_000), ("second", 1000)):
        if time >= 2 * length or unit == "second":
            return "within " + _many(max(1, round(time / length)), unit)
    raise AssertionError


def _address(alarm: Alarm) -> bool:
    try:
        ipaddress.ip_address(alarm.subject)
    except ValueError:
        return False
    return True


def same_owner(sources: Sources, now: int) -> Callable[[int, int], bool]:
    """Network.theirs by these sources."""

    def theirs(key: int, time: int) -> bool:
        before, after = (owner(sources, shown_key(key), one) for one in (time, now))
        return (before.state, before.subscriber) == (KNOWN, after.subscriber)

    return theirs


def remembered_worms(store: Store, now: int) -> dict[int, int]:
    """Alarms of D4 of earlier runs that still lower a threshold: key -> time."""
    sql = "SELECT subject, max(time) FROM alarms WHERE detector = 'D4' AND time > ? AND time <= ? GROUP BY subject"
    return {key_of(subject): time for subject, time in store.rows(sql, (now - AFTER_WORM_TIME, now))}


def remembered(store: Store, since: int) -> list[tuple[str, int]]:
    """Who had an alarm since then, and when: (subject, time)."""
    sql = "SELECT subject, time FROM alarms WHERE time > ? AND detector <> 'D7'"
    return [(subject, time) for subject, time in store.rows(sql, (since,))]


def remember(store: Store, alarms: Iterable[Alarm], now: int) -> None:
    """Keep the alarms of a run for later ones, and forget those of a month ago."""
    for one in alarms:
        place = (one.detector, one.subject, one.time)
        store.run("DELETE FROM alarms WHERE detector = ? AND subject = ? AND time = ?", place)
        row = (*place, one.score, one.contacts, "\n".join(one.evidence))
        store.run("INSERT INTO alarms VALUES (?, ?, ?, ?, ?, ?)", row)
    store.run("DELETE FROM alarms WHERE time < ?", (now - KEPT,))


def surge(alarms: Iterable[Alarm], known: Iterable[tuple[str, int]], detector: Detector) -> Alarm | None:
    """The alarm of D7, None where there is no surge.

    A contact is a subject's first alarm, of whatever detector, behind 24 hours without one; `known` are the alarms of
    earlier runs, as (subject, time).
    """
    last: dict[str, int] = {}
    fresh = []
    old = set(known)
    for subject, time in sorted(old | {(one.subject, one.time) for one in alarms}, key=lambda one: (one[1], one[0])):
        if time - last.get(subject, time - DAY) >= DAY and (subject, time) not in old:
            fresh.append(walk.Contact((NETWORK, 0), subject, time, False))
        last[subject] = time
    found = crossed(walk.first_contacts(fresh), detector, {}) if detector.enabled else {}
    return next((one.alarm for one in _alarms(detector, found)), None)


def cases(
    suspects: Iterable[Suspect], sources: Sources | None, now: int, store: Store | None = None
) -> tuple[list[Case], list[Silence]]:
    """One case for each subscriber who is known for certain, and why there is none for the others.

    Whoever had the address when the climb began must have had it at the alarm too: otherwise it is half of somebody
    else's evidence. A login is a customer by itself, without addresses: who used it need not have been at home.
    What may be acted upon is what the subscriber has now: an address of then may be somebody else's.
    The key of a case stays for as long as its episode lasts, which ends with 24 hours without an alarm; that is known
    where there is a store. Without `sources` only logins have cases.
    """
    silences, of, nameless = [], defaultdict(list), 0
    for one in sorted(suspects, key=lambda one: (one.alarm.time, one.alarm.detector)):
        alarm = one.alarm
        if alarm.detector == "D7":
            continue
        found = Owner(KNOWN, alarm.subject)
        if _address(alarm):
            if sources is None:
                nameless += 1
                continue
            asked = alarm.subject + ("/64" if ":" in alarm.subject else "")
            found, before = (owner(sources, asked, time) for time in (alarm.time, one.since))
            if found.state == KNOWN and (before.state, before.subscriber) != (KNOWN, found.subscriber):
                reason = before.reason or f"{before.subscriber} had it when the evidence begins"
                found = Owner(AMBIGUOUS, reason=reason)
        if found.state == KNOWN:
            of[found.subscriber].append(one)
        else:
            said = (
                f"{alarm.subject} at {shown_time(alarm.time)} is nobody's for certain ({found.state}): {found.reason}"
            )
            silences.append(Silence(alarm.detector, said, "give the accounting or leases of that time; see by hand"))
    if nameless:
        mend = "give RADIUS accounting, leases or port blocks in 'identity'"
        silences.append(Silence("", f"{nameless} alarms are no cases: nobody says who had the address", mend))
    made = []
    for subscriber, ones in of.items():
        since, latest = min(one.since for one in ones), max(one.alarm.time for one in ones)
        since = _episode(store, subscriber, since, latest) if store else since
        seen = [one.alarm.subject for one in ones if _address(one.alarm)]
        made.append(
            Case(
                f"detected:{subscriber}:{since}",
                subscriber,
                touchable(sources, subscriber, now, seen) if sources and seen else (),
                tuple(sorted({one.alarm.detector for one in ones})),
                since,
                _each(one.alarm.evidence for one in ones),
            )
        )
    return made, silences


def _episode(store: Store, subscriber: str, since: int, latest: int) -> int:
    """When the episode began that these alarms belong to."""
    sql = "SELECT since, latest FROM suspects WHERE subscriber = ? AND latest > ? AND since <= ? ORDER BY since"
    known = store.rows(sql, (subscriber, since - DAY, latest))
    if known:
        since, latest = known[0][0], max(latest, *(row[1] for row in known))  # its key was told already
        for row in known:
            store.run("DELETE FROM suspects WHERE subscriber = ? AND since = ?", (subscriber, row[0]))
    store.run("INSERT INTO suspects VALUES (?, ?, ?)", (subscriber, since, latest))
    return since


def merged(cases: Iterable[Case]) -> list[Case]:
    """Cases of one subscriber as one, under the key of the oldest: what several sources say is seen together."""
    of: dict[tuple[str, str], list[Case]] = defaultdict(list)
    for case in cases:  # nobody known is no subscriber: evidence about one of them is none about another
        of[case.subscriber, "" if case.subscriber else case.key].append(case)
    found = []
    for ones in of.values():
        ones.sort(key=lambda case: (case.since, case.key))
        found.append(
            replace(
                ones[0],
                prefixes=_each(case.prefixes for case in ones),
                sources=tuple(sorted(_each(case.sources for case in ones))),
                evidence=_each(case.evidence for case in ones),
            )
        )
    return found


def _each(lists: Iterable[Iterable[str]]) -> tuple[str, ...]:
    """All of them, each once, in their order."""
    return tuple(dict.fromkeys(one for some in lists for one in some))
