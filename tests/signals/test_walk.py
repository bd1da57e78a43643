# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The walk by itself: when it alarms, how often it does so in vain, and that it is the sum it says it is."""

from __future__ import annotations

import math
import random
from fractions import Fraction

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ansible_collections.isp.hardening.plugins.module_utils.signals import walk
from ansible_collections.isp.hardening.plugins.module_utils.signals.detectors import DETECTORS
from ansible_collections.isp.hardening.plugins.module_utils.signals.walk import Contact

MINUTE = 60_000


def contacts(outcomes: str, every: int = MINUTE) -> list[Contact]:
    """One contact a letter: 'f' failed, 'o' did not."""
    return [Contact("a", number, number * every, letter == "f") for number, letter in enumerate(outcomes)]


@pytest.mark.parametrize(("count", "alarms"), [(9, 0), (10, 1)])
def test_d3_alarms_at_10_syn_only_contacts_and_not_at_9(count: int, alarms: int) -> None:
    assert len(walk.walk(contacts("f" * count), DETECTORS["D3"].steps)) == alarms


@pytest.mark.parametrize(
    ("name", "outcomes", "every", "needed"),
    [
        ("D1", "f" * 20, 1000, 5),  # the first one starts the clock
        ("D1", "o" * 40, 1000, 10),
        ("D1", "o" * 400, 30 * MINUTE, 0),  # two an hour are benign for ever
        ("D2", "f" * 20, MINUTE, 9),
        ("D2", "fo" * 40, MINUTE, 25),
        ("D2", "of" + "ooooooooo" * 40, MINUTE, 0),
        ("D3", "o" * 100 + "f" * 20, MINUTE, 110),  # whoever was good for long is found as fast
        ("D4", "f" * 20, MINUTE, 10),
        ("D5", "o" * 20, 1000, 6),
        ("D6", "f" * 20, MINUTE, 10),
        ("D7", "o" * 20, MINUTE, 5),
    ],
)
def test_contacts_until_the_alarm(name: str, outcomes: str, every: int, needed: int) -> None:
    found = walk.walk(contacts(outcomes, every), DETECTORS[name].steps)
    assert [one.contacts for one in found] == ([needed] if needed else [])


def test_spot_needs_12_messages_on_average() -> None:
    """Duan et al. 2012: E[n] under the infected hypothesis, which is h over the mean step."""
    steps = DETECTORS["D6"].steps
    assert round(steps.threshold / (0.9 * steps.failed + 0.1 * steps.passed)) == 12


# A lower h than in use, so that there is something to count: e^-h of 1/200.
_HEIGHT = walk.threshold(200, 1)


@pytest.mark.parametrize(
    ("ratio", "rate"),
    [
        ((0.1, 0.5), None),
        ((0.2, 0.8), None),
        ((0.2, 0.9), None),
        (None, (2, 20)),
        (None, (1, 20)),
        ((0.1, 0.5), (2, 20)),
    ],
)
def test_simulated_false_alarms_stay_below_e_to_the_minus_h(
    ratio: tuple[float, float] | None, rate: tuple[float, float] | None
) -> None:
    """Benign subjects as the test supposes them; a crossing starts anew, as another subject would."""
    chance = random.Random(20121)
    steps = walk.steps(_HEIGHT, ratio, rate)
    count, alarms, time = 60_000, 0, 0
    made = []
    for number in range(count):
        time += round(chance.expovariate(rate[0] / walk.HOUR)) if rate else MINUTE
        made.append(Contact("benign", number, time, bool(ratio) and chance.random() < ratio[0]))
    while made:
        found = walk.walk(made, steps)
        alarms += len(found)
        made = made[found[0].contacts :] if found else []
    assert alarms <= count * math.exp(-_HEIGHT / walk.NAT)
    assert alarms  # it does count something


def drawn(seed: int) -> list[Contact]:
    """First contacts of one subject that fails seldom, sometimes or mostly, in bursts and at leisure."""
    chance = random.Random(seed)
    share = chance.choice((0.05, 0.4, 0.95))
    time, made = 0, []
    for _ in range(chance.randrange(120)):
        time += chance.choice((0, 1, 1000, MINUTE, walk.HOUR))
        made.append(Contact("a", chance.randrange(100), time, chance.random() < share))
    return walk.first_contacts(made)


@given(st.integers(0, 2**32), st.sampled_from(["D1", "D2", "D3", "D5"]))
@settings(max_examples=100, deadline=None)
@example(5, "D1")
@example(5, "D3")
def test_the_walk_is_the_running_sum_less_its_minimum(seed: int, name: str) -> None:
    """The form that the SQL has, in exact fractions, against the loop."""
    steps = DETECTORS[name].steps
    first = drawn(seed)
    marks, lowest = Fraction(0), Fraction(0)
    expected = None
    for number, one in enumerate(first, 1):
        marks += steps.failed if one.fail else steps.passed
        total = marks + steps.arrival * (number - 1) - steps.drift * (one.time - first[0].time)
        lowest = total if number == 1 and steps.arrival else min(lowest, total)
        if expected is None and total - lowest >= steps.threshold:
            expected = one.time, int(total - lowest), number
    found = walk.walk(first, steps)
    assert [(one.time, one.score, one.contacts) for one in found] == ([expected] if expected else [])
    assert found or seed != 5


@given(st.integers(0, 2**32), st.integers(0, 100))
@settings(max_examples=100, deadline=None)
def test_a_window_that_begins_later_never_alarms_sooner(seed: int, begin: int) -> None:
    first = drawn(seed)
    for name in ("D1", "D2", "D3", "D5"):
        whole, part = (walk.walk(some, DETECTORS[name].steps) for some in (first, first[begin:]))
        assert not part or (whole and whole[0].time <= part[0].time)


def test_each_object_counts_once_and_fails_only_if_all_its_contacts_did() -> None:
    made = [Contact("a", "mx1", 50, True), Contact("a", "mx1", 20, True), Contact("a", "mx2", 30, True)]
    made += [Contact("a", "mx2", 40, False), Contact("b", "mx1", 10, False)]
    assert walk.first_contacts(made) == [
        Contact("a", "mx1", 20, True),
        Contact("a", "mx2", 30, False),
        Contact("b", "mx1", 10, False),
    ]


def test_retries_to_one_dead_smarthost_alarm_nothing() -> None:
    retries = [Contact("a", "smarthost", number * MINUTE, True) for number in range(10_000)]
    for detector in DETECTORS.values():
        assert not walk.walk(walk.first_contacts(retries), detector.steps)


def test_a_threshold_of_its_own_holds_for_its_time_only() -> None:
    steps = DETECTORS["D3"].steps
    lower = steps.threshold - walk.nats(math.log(50))
    made = contacts("f" * 8)
    assert [one.contacts for one in walk.walk(made, steps, {"a": (0, walk.HOUR, lower)})] == [8]
    assert not walk.walk(made, steps, {"a": (walk.HOUR, 2 * walk.HOUR, lower)})
    assert not walk.walk(made, steps, {"b": (0, walk.HOUR, lower)})


def test_a_climb_begins_where_the_walk_was_at_0() -> None:
    (found,) = walk.walk(contacts("f" + "o" * 5 + "f" * 10), DETECTORS["D3"].steps)
    assert (found.since, found.climb, found.failed, found.contacts) == (6 * MINUTE, 10, 10, 16)


@pytest.mark.parametrize(
    "bad",
    [
        lambda: walk.threshold(10, 10),
        lambda: walk.threshold(10, 0),
        lambda: walk.steps(1, ratio=(0.5, 0.1)),
        lambda: walk.steps(1, ratio=(0.5, 1)),
        lambda: walk.steps(1, rate=(20, 2)),
        lambda: walk.steps(1, rate=(0, 2)),
    ],
)
def test_figures_that_make_no_test_are_refused(bad: object) -> None:
    with pytest.raises(ValueError, match=r"write|allow"):
        bad()  # type: ignore[operator]
