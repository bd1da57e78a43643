# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Listings over time: who was on which list from when until when, and how long it took to get off it.

An episode is a subscriber on a list; times without a listing that are shorter than a day belong to it. A listing is
whose the address was when it came, until the address is off the list: that the subscriber has another address now is no
remediation, and the next one who gets the address has done nothing. Where it is not certain who had it, the address
itself is the subject, and nobody is blamed. IPv6 counts by /64.

A listing ends only when the source answered for its address and did not name it: no answer is no delisting.

Kaplan and Meier, "Nonparametric Estimation from Incomplete Observations", 1958: the times to remediate, with those that
are not over yet as what they are, longer than so far.
"""

from __future__ import annotations

import datetime
import ipaddress
import itertools
import json
import operator
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace

from .records import AMBIGUOUS, KNOWN, Case, Owner
from .store import Store
from .xbl import Answer, Ranges, listing_name

DAY = 86_400_000
MERGE = DAY
LISTED = 30 * DAY  # so long a listing may go back that nobody saw come; when entries expire is not published
RELAPSE = 7 * DAY
KEEP = 365 * DAY  # what ended longer ago is forgotten: it says who had which address when
NOTES = 100  # of one run that are kept

SCHEMA = """
CREATE TABLE IF NOT EXISTS xbl_episode (
    id TEXT PRIMARY KEY, subject TEXT NOT NULL, subscriber TEXT NOT NULL, list TEXT NOT NULL,
    began BIGINT NOT NULL, ended BIGINT NOT NULL
);
CREATE TABLE IF NOT EXISTS xbl_listing (
    network TEXT NOT NULL, list TEXT NOT NULL, began BIGINT NOT NULL, ended BIGINT NOT NULL, seen BIGINT NOT NULL,
    episode TEXT NOT NULL, code TEXT NOT NULL, detail TEXT NOT NULL, PRIMARY KEY (network, list, began)
);
CREATE INDEX IF NOT EXISTS xbl_listing_ended ON xbl_listing (ended);
CREATE TABLE IF NOT EXISTS xbl_run (
    began BIGINT PRIMARY KEY, source TEXT NOT NULL, frozen TEXT NOT NULL, whole BIGINT NOT NULL, listed BIGINT NOT NULL,
    came BIGINT NOT NULL, went BIGINT NOT NULL, problems TEXT NOT NULL
);
"""

# Who had an address, or a prefix, at a time.
Who = Callable[[str, int], Owner]
# What may be acted upon of what a subscriber has at a time, by addresses that are asked about: identity.touchable().
Touchable = Callable[[str, int, Sequence[str]], tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Episode:
    """A subject on a list. `id` stays the same for as long as it lasts; `ended` is 0 until it does."""

    id: str
    subject: str  # the subscriber, or the address where it is not certain who that was
    subscriber: str  # "" there
    list: str
    began: int
    ended: int = 0


@dataclass(frozen=True, slots=True)
class Listed:
    """One address, or /64, on a list without a break, and the episode that it belongs to."""

    network: str
    list: str
    began: int
    ended: int  # 0 until it is off the list
    seen: int  # the last time
    episode: str
    code: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class State:
    """What a run has to know of those before: all that is open, and episodes that could still go on."""

    episodes: tuple[Episode, ...] = ()
    listings: tuple[Listed, ...] = ()
    whole: int = 0  # when a source was last asked and answered for everything
    latest: int = 0  # the last run

    def asked(self, now: int) -> int:
        """Since when a listing can be there that is new now: the last time that it was surely not there."""
        return self.whole or (now - DAY if now - self.latest < DAY else now - LISTED)


@dataclass(frozen=True, slots=True)
class Step:
    """What a run changes, and how the listings of before and now compare."""

    time: int
    answer: Answer
    episodes: tuple[Episode, ...] = ()  # new ones, and those that ended or go on
    still: tuple[Listed, ...] = ()
    came: tuple[Listed, ...] = ()
    went: tuple[Listed, ...] = ()
    unanswered: int = 0  # that were listed, and were not answered for: they are as they were
    notes: tuple[str, ...] = ()  # why it is not known who had an address


def step(state: State, answer: Answer, who: Who, now: int) -> Step:
    """What follows from an answer. A frozen one changes nothing, nor does one from before the last run."""
    if now < state.latest and not answer.frozen:
        back = "the clock of this host went back behind the last run; set it right, and wait until that time has come"
        answer = replace(answer, frozen=back)
    if answer.frozen:
        return Step(now, answer, unanswered=len(state.listings))
    named = {(_network(one.network), one.list): one for one in answer.listings}
    silent = Ranges(answer.unanswered)
    episodes = {one.id: one for one in state.episodes}
    # The one that could go on, of a subject on a list: one that is open, or the one that ended last.
    latest = {(one.subject, one.list): one for one in sorted(state.episodes, key=lambda one: one.ended or now + 1)}
    still, went, came, notes = [], [], [], []
    open_episodes, unanswered = set(), 0
    for row in state.listings:
        listing = named.pop((row.network, row.list), None)
        if listing:
            said = (listing.code, listing.detail or row.detail)
            still.append(Listed(row.network, row.list, row.began, 0, now, row.episode, *said))
        elif silent.networks and silent.meets(ipaddress.ip_network(row.network)):
            unanswered += 1
        else:
            went.append(replace(row, ended=now))
            continue
        open_episodes.add(row.episode)
    changed: dict[str, Episode] = {}
    for (network, name), listing in named.items():
        began = min(listing.since or now, now)
        owner = _holder(who, network, listing.since, state.asked(now), now)
        subscriber = owner.subscriber if owner.state == KNOWN else ""
        if not subscriber:
            notes.append(f"{network}: {owner.reason}")
        subject = subscriber or network
        episode = _episode(latest.get((subject, name)), subject, subscriber, name, began)
        episodes[episode.id] = changed[episode.id] = latest[subject, name] = episode
        came.append(Listed(network, name, began, 0, now, episode.id, listing.code, listing.detail))
        open_episodes.add(episode.id)
    for id in {row.episode for row in went} - open_episodes:
        changed[id] = replace(episodes[id], ended=now)
    return Step(now, answer, tuple(changed.values()), tuple(still), tuple(came), tuple(went), unanswered, tuple(notes))


def _network(name: str) -> str:
    """By /64, as subscribers of IPv6 count."""
    if ":" not in name:
        return name
    network = ipaddress.IPv6Network(name)
    return listing_name(network.supernet(new_prefix=64) if network.prefixlen > 64 else network)


def _holder(who: Who, network: str, since: int, last: int, now: int) -> Owner:
    """Who had it when it was listed; where the source does not say when, who had it from the run before until now."""
    if since:
        return who(network, min(since, now))
    before, after = who(network, min(last, now)), who(network, now)
    if after.state == KNOWN and (before.state, before.subscriber) != (KNOWN, after.subscriber):
        return Owner(AMBIGUOUS, reason="it may have been listed before its present subscriber got it")
    return after


def _episode(last: Episode | None, subject: str, subscriber: str, name: str, began: int) -> Episode:
    """The last one where it goes on, or a new one."""
    if last and (not last.ended or began - last.ended < MERGE):
        return replace(last, began=min(last.began, began), ended=0)
    return Episode(f"{name}:{subject}:{began}", subject, subscriber, name, began)


# -- the state ---------------------------------------------------------------------------------------------------


def read_state(store: Store, now: int) -> State:
    """What a run at this time has to know."""
    episodes = store.rows(f"SELECT {_EPISODE} FROM xbl_episode WHERE ended = 0 OR ended > ?", (now - MERGE,))
    listings = store.rows(f"SELECT {_LISTED} FROM xbl_listing WHERE ended = 0")
    [(whole,)] = store.rows("SELECT COALESCE(MAX(began), 0) FROM xbl_run WHERE whole = 1")
    [(latest,)] = store.rows("SELECT COALESCE(MAX(began), 0) FROM xbl_run WHERE frozen = ''")
    return State(tuple(Episode(*row) for row in episodes), tuple(Listed(*row) for row in listings), whole, latest)


_EPISODE = "id, subject, subscriber, list, began, ended"
_LISTED = "network, list, began, ended, seen, episode, code, detail"
_RUN = "began, source, frozen, whole, listed, came, went, problems"


def write(store: Store, done: Step, began: int) -> None:
    """Keep what a run that began then has found, and forget what is older than it may be kept."""
    answer = done.answer
    store.many(
        f"INSERT INTO xbl_episode ({_EPISODE}) VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (id) DO UPDATE SET began = excluded.began, ended = excluded.ended",
        [astuple(one) for one in done.episodes],
    )
    store.many(
        f"INSERT INTO xbl_listing ({_LISTED}) VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (network, list, began)"
        " DO UPDATE SET ended = excluded.ended, seen = excluded.seen, episode = excluded.episode, code = excluded.code,"
        " detail = excluded.detail",
        [astuple(one) for one in (*done.still, *done.came, *done.went)],
    )
    run = (
        began,
        answer.source,
        answer.frozen,
        int(not answer.frozen and not answer.unanswered),
        len(done.still) + len(done.came) + done.unanswered,
        len(done.came),
        len(done.went),
        json.dumps([*answer.problems, *done.notes][:NOTES]),
    )
    store.run(f"INSERT INTO xbl_run ({_RUN}) VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (began) DO NOTHING", run)
    store.run("DELETE FROM xbl_listing WHERE ended > 0 AND ended < ?", (done.time - KEEP,))
    store.run("DELETE FROM xbl_episode WHERE ended > 0 AND ended < ?", (done.time - KEEP,))
    store.run("DELETE FROM xbl_run WHERE began < ?", (done.time - KEEP,))


def read_episodes(store: Store) -> list[Episode]:
    """All that are kept, the oldest first."""
    return [Episode(*row) for row in store.rows(f"SELECT {_EPISODE} FROM xbl_episode ORDER BY began, id")]


def cases(store: Store, touchable: Touchable, now: int) -> list[Case]:
    """The open episodes of known subscribers on the XBL. What may be acted upon is what the subscriber has now.

    The listed address is that only where it still is his.
    """
    listed: dict[str, dict[str, str]] = {}
    for network, name, began, episode, detail in store.rows(
        "SELECT network, list, began, episode, detail FROM xbl_listing WHERE ended = 0 ORDER BY began, network"
    ):
        line = f"{network} is on the list {name} since {_shown(began)}" + (f": {detail}" if detail else "")
        listed.setdefault(episode, {})[network] = line
    found = []
    for one in read_episodes(store):
        if one.subscriber and one.list == "XBL" and not one.ended:
            lines = listed.get(one.id, {})
            prefixes = touchable(one.subscriber, now, list(lines))
            found.append(Case(one.id, one.subscriber, prefixes, ("XBL",), one.began, tuple(lines.values())))
    return found


# -- figures -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Figures:
    """How well it goes, for one list. Times in milliseconds; None where it cannot be said yet."""

    open: int = 0
    closed: int = 0
    median: int | None = None  # time to remediate
    p90: int | None = None
    relapsed: int = 0  # listed again within a week
    watched: int = 0  # episodes that ended a week ago or more, or have relapsed
    led: int = 0  # episodes that own detection knew of before the list did
    lead: int | None = None  # by how much, the median of those


def figures(episodes: Sequence[Episode], detections: Mapping[str, Sequence[int]], now: int) -> Figures:
    """Of the episodes of one list. `detections` are the times of own alarms by subscriber."""
    begins: dict[str, list[int]] = {}
    for one in episodes:
        begins.setdefault(one.subject, []).append(one.began)
    closed = [one for one in episodes if one.ended]
    again = {one.id for one in closed if any(0 < began - one.ended <= RELAPSE for began in begins[one.subject])}
    calm = {one.id for one in closed if now - one.ended >= RELAPSE} - again
    durations = [((one.ended or now) - one.began, bool(one.ended)) for one in episodes]
    leads = [lead for one in episodes if (lead := _lead(one, detections.get(one.subscriber, ())))]
    return Figures(
        open=len(episodes) - len(closed),
        closed=len(closed),
        median=remediated(durations, 0.5),
        p90=remediated(durations, 0.9),
        relapsed=len(again),
        watched=len(again) + len(calm),
        led=len(leads),
        lead=statistics.median_low(leads) if leads else None,
    )


def _lead(one: Episode, alarms: Sequence[int]) -> int:
    """How long before the list own detection knew, 0 where it did not; what is older than a week is another matter."""
    times = [time for time in alarms if 0 < one.began - time <= RELAPSE]
    return one.began - min(times) if one.subscriber and times else 0


def remediated(durations: Iterable[tuple[int, bool]], share: float) -> int | None:
    """The time within which this share is remediated, by Kaplan and Meier; None where so many are not yet.

    A duration comes with whether it is over; the others lasted at least as long.
    """
    ordered = sorted(durations)
    left, survive = len(ordered), 1.0
    time: int
    for time, group in itertools.groupby(ordered, key=operator.itemgetter(0)):
        ends = [over for _, over in group]
        survive *= 1 - sum(ends) / left
        left -= len(ends)
        if survive <= 1 - share + 1e-12:
            return time
    return None


def _shown(time: int) -> str:
    return f"{datetime.datetime.fromtimestamp(time // 1000, datetime.UTC):%Y-%m-%d %H:%M} UTC"
