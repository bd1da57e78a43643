# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The one walk that every detector is: evidence against a subject, added up until there is enough of it.

    contacts ─► first_contacts(): each object of a subject once ─► walk(): S ← max(0, S + step), a Crossing at S ≥ h

A step is the logarithm of how much likelier the contact is for an infected subject than for a benign one, in nats:

- ratio: ln(θ1/θ0) for a contact that failed, ln((1-θ1)/(1-θ0)) for one that did not. Wald's sequential test, on first
  contacts: Jung et al., "Fast Portscan Detection Using Sequential Hypothesis Testing" (TRW), IEEE S&P 2004; Duan et
  al., "Detecting Spam Zombies by Monitoring Outgoing Messages" (SPOT), IEEE TDSC 9(2), 2012.
- rate: ln(λ1/λ0) - (λ1-λ0)·Δt, with Δt since the subject's contact before: two Poisson processes. The first contact of
  a subject only starts the clock, whatever became of it: nobody knows how long before there was none. So a window that
  begins later never alarms sooner than a longer one.
- The floor of 0 makes it the CUSUM of Page, "Continuous Inspection Schemes", Biometrika 41, 1954: whoever was good for
  long is found as fast as a newcomer. A benign subject climbs from 0 to h with a probability of at most e^-h (Wald), so
  with h = ln(benign contacts a day / false alarms allowed a day) there are no more of these than allowed.

All figures are whole nano-nats (10^-9), computed once and rounded once: an integer has one sum in whatever order and
whichever engine adds it up, so alarms can be compared by their hash. The rate's drift is rounded to whole nano-nats a
millisecond; its error stays below 2·10^-4 from 10 contacts an hour on. Times are whole milliseconds.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

NAT = 10**9
HOUR = 3_600_000

# What is kept apart and what counts once: any value with an order. A subject of D4 is (address, port).
Key = Any


class Contact(NamedTuple):
    """What records.Contact is, with keys that are fast to compare."""

    subject: Key
    object: Key
    time: int
    fail: bool


@dataclass(frozen=True, slots=True)
class Steps:
    """A test as integers: what each contact adds, in nano-nats, and where the alarm is."""

    failed: int  # of a contact that failed
    passed: int  # of one that did not
    arrival: int  # of each contact but the first: 0 in a ratio test
    drift: int  # taken away for each millisecond since the contact before
    threshold: int


class Crossing(NamedTuple):
    """A walk that reached its threshold, which is where it ends.

    The climb is what led there without a return to 0: since when, how many contacts, how many of them failed.
    """

    subject: Key
    time: int
    score: int
    contacts: int  # of the subject, until the alarm
    since: int
    climb: int
    failed: int


def nats(value: float) -> int:
    """Nats as nano-nats."""
    return round(value * NAT)


def threshold(contacts_a_day: float, false_alarms_a_day: float) -> int:
    """h for so many benign contacts and allowed false alarms a day. Raises ValueError where that leaves no test."""
    if not 0 < false_alarms_a_day < contacts_a_day:
        raise ValueError("allow more than 0 false alarms a day, and fewer than there are benign contacts a day")
    return nats(math.log(contacts_a_day / false_alarms_a_day))


def steps(height: int, ratio: tuple[float, float] | None = None, rate: tuple[float, float] | None = None) -> Steps:
    """A test between (benign, infected): shares of contacts that fail, contacts an hour, or both together.

    Both together is a Poisson process whose events carry a mark; arrivals and marks are independent, so the logarithms
    add up. Raises ValueError where the two hypotheses are not in that order.
    """
    failed = passed = arrival = drift = 0
    if ratio:
        benign, infected = ratio
        if not 0 < benign < infected < 1:
            raise ValueError(f"shares of {benign} and {infected}: write 0 < benign < infected < 1")
        failed = nats(math.log(infected / benign))
        passed = nats(math.log((1 - infected) / (1 - benign)))
    if rate:
        benign, infected = rate
        if not 0 < benign < infected:
            raise ValueError(f"rates of {benign} and {infected} an hour: write 0 < benign < infected")
        arrival = nats(math.log(infected / benign))
        drift = nats((infected - benign) / HOUR)
    return Steps(failed, passed, arrival, drift, height)


def first_contacts(contacts: Iterable[Contact]) -> list[Contact]:
    """Each (subject, object) once, at its first time; one subject after the other, by time and object.

    It failed if every contact of the two did: exporters cut a long session into several flows (active timeout; the
    last of them looks short), and a greylisted mail comes again.
    """
    first: dict[tuple[Key, Key], tuple[int, bool]] = {}
    for subject, counterpart, time, fail in contacts:
        known = first.get((subject, counterpart))
        if known:
            time, fail = min(time, known[0]), fail and known[1]
        first[subject, counterpart] = time, fail
    of: dict[Key, list[Contact]] = defaultdict(list)  # logins and keys have no order among each other
    for (subject, counterpart), rest in first.items():
        of[subject].append(Contact(subject, counterpart, *rest))
    return [contact for some in of.values() for contact in sorted(some, key=itemgetter(2, 1))]


def walk(
    contacts: Iterable[Contact], test: Steps, lowered: Mapping[Key, tuple[int, int, int]] | None = None
) -> list[Crossing]:
    """The crossings of all subjects, at most one of each. `contacts` are as first_contacts gives them.

    `lowered` are thresholds of their own: subject -> (from, until, threshold).
    """
    found = []
    for subject, group in groupby(contacts, key=itemgetter(0)):
        since, until, lower = (lowered or {}).get(subject, (0, 0, test.threshold))
        crossing = _walk_one(subject, group, test, since, until, lower)
        if crossing:
            found.append(crossing)
    return found


def _walk_one(
    subject: Key, contacts: Iterable[Contact], test: Steps, lower_from: int, lower_until: int, lower: int
) -> Crossing | None:
    score = since = climb = failed = previous = 0
    for count, contact in enumerate(contacts, 1):
        step = test.failed if contact.fail else test.passed
        if test.arrival:
            step = step + test.arrival - test.drift * (contact.time - previous) if count > 1 else 0
        previous = contact.time
        if not score:
            since, climb, failed = contact.time, 0, 0
        score = max(0, score + step)
        climb += 1
        failed += contact.fail
        height = lower if lower_from <= contact.time <= lower_until else test.threshold
        if score >= height:
            return Crossing(subject, contact.time, score, count, since, climb, failed)
    return None
