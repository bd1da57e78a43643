# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Episodes: whose a listing is, when it ends, and how well it goes; kept in SQLite and in a real PostgreSQL."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.isp.hardening.plugins.module_utils.signals import episodes, xbl_service
from ansible_collections.isp.hardening.plugins.module_utils.signals.episodes import (
    SCHEMA,
    Episode,
    Figures,
    State,
    Step,
    figures,
    remediated,
    step,
)
from ansible_collections.isp.hardening.plugins.module_utils.signals.records import AMBIGUOUS, KNOWN, UNKNOWN, Owner
from ansible_collections.isp.hardening.plugins.module_utils.signals.store import open_store
from ansible_collections.isp.hardening.plugins.module_utils.signals.xbl import Answer, Listing
from tests.signals.box import box

HOUR, DAY = 3_600_000, 86_400_000
START = 1_700_000_000_000
OWN = "198.51.100.0/24"


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    """The DSN of a PostgreSQL of Debian in a box, over a socket that both see. It knows no encoding, as old ones."""
    with tempfile.TemporaryDirectory(prefix="isp-pg-") as directory, box(Path(directory)) as made:
        os.chmod(directory, 0o777)
        made.run("install -d -o postgres /run/pg")
        options = "-c listen_addresses= -c fsync=off -c unix_socket_directories=/box"
        for command in (
            "initdb --auth=trust --encoding=SQL_ASCII --locale=C -D /run/pg/data",
            f"pg_ctl -w -l /run/pg/log -D /run/pg/data -o '{options}' start",
        ):
            made.run(f'su postgres -c "/usr/lib/postgresql/*/bin/{command}"')
        yield f"postgresql:///postgres?host={directory}&user=postgres"


@pytest.fixture(params=["sqlite", "postgresql"])
def state(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty state."""
    if request.param == "sqlite":
        return str(tmp_path / "signals.db")
    dsn: str = request.getfixturevalue("postgresql")
    with open_store(dsn, SCHEMA) as store:
        for table in ("xbl_episode", "xbl_listing", "xbl_run"):
            store.run(f"DELETE FROM {table}")
    return dsn


class Subscribers:
    """Who has an address from when on: {address: {time: subscriber}}."""

    def __init__(self, leases: Mapping[str, Mapping[int, str]]) -> None:
        self.leases = leases

    def __call__(self, network: str, time: int) -> Owner:
        held = [name for since, name in sorted(self.leases.get(network, {}).items()) if since <= time]
        if not held or not held[-1]:
            return Owner(UNKNOWN, reason="no record says who had it then")
        if held[-1] == "?":
            return Owner(AMBIGUOUS, reason="many subscribers share the address")
        return Owner(KNOWN, held[-1], (f"{network}/32",))

    def touchable(self, subscriber: str, time: int, asked: Sequence[str]) -> tuple[str, ...]:
        return tuple(f"{one}/32" for one in self.leases if self(one, time).subscriber == subscriber)


def answer(*networks: str, unanswered: tuple[str, ...] = (), frozen: str = "", name: str = "XBL") -> Answer:
    return Answer("dns", tuple(Listing(one, name, "127.0.0.4") for one in networks), unanswered, (), frozen)


def run(state: str, said: Answer, who: episodes.Who, now: int) -> Step:
    with open_store(state, SCHEMA) as store:
        done = step(episodes.read_state(store, now), said, who, now)
        episodes.write(store, done, now)
    return done


def all_of(state: str) -> list[Episode]:
    with open_store(state, SCHEMA) as store:
        return episodes.read_episodes(store)


ALICE = Subscribers({"198.51.100.7": {0: "alice"}, "198.51.100.8": {0: "bob"}})


def test_new_gone_and_still_listed(state: str) -> None:
    run(state, answer(), ALICE, START)
    first = run(state, answer("198.51.100.7"), ALICE, START + HOUR)
    assert [one.network for one in first.came] == ["198.51.100.7"]
    second = run(state, answer("198.51.100.7", "198.51.100.8"), ALICE, START + 2 * HOUR)
    assert [[one.network for one in ones] for ones in (second.came, second.still, second.went)] == [
        ["198.51.100.8"], ["198.51.100.7"], [],
    ]  # fmt: skip
    third = run(state, answer("198.51.100.8"), ALICE, START + 3 * HOUR)
    assert [one.network for one in third.went] == ["198.51.100.7"]
    assert [(one.subject, one.began, one.ended) for one in all_of(state)] == [
        ("alice", START + HOUR, START + 3 * HOUR),
        ("bob", START + 2 * HOUR, 0),
    ]


def test_a_changed_lease_closes_no_episode(state: str) -> None:
    who = Subscribers({
        "198.51.100.7": {0: "alice", START + 5 * HOUR: "carol"},
        "198.51.100.9": {START + 5 * HOUR: "alice"},
    })  # fmt: skip
    run(state, answer(), who, START)
    run(state, answer("198.51.100.7"), who, START + HOUR)
    after = run(state, answer("198.51.100.7"), who, START + 6 * HOUR)  # carol has the address now
    assert (after.came, after.went) == ((), ())
    [one] = all_of(state)
    assert (one.subject, one.ended) == ("alice", 0)
    with open_store(state, SCHEMA) as store:
        [case] = episodes.cases(store, who.touchable, START + 6 * HOUR)
    assert (case.subscriber, case.prefixes) == ("alice", ("198.51.100.9/32",))  # never what carol has
    run(state, answer("198.51.100.9"), who, START + 7 * HOUR)  # one address came off, alice's new one is on
    [one] = all_of(state)
    assert (one.subject, one.ended) == ("alice", 0)
    run(state, answer(), who, START + 8 * HOUR)
    [one] = all_of(state)
    assert one.ended == START + 8 * HOUR


def test_who_got_the_address_between_two_runs_is_not_blamed(state: str) -> None:
    who = Subscribers({"198.51.100.7": {0: "alice", START + HOUR - 60_000: "carol"}})
    run(state, answer(), who, START)
    done = run(state, answer("198.51.100.7"), who, START + HOUR)
    [one] = all_of(state)
    assert (one.subject, one.subscriber) == ("198.51.100.7", "")
    assert "before its present subscriber" in done.notes[0]
    with open_store(state, SCHEMA) as store:
        assert episodes.cases(store, who.touchable, START + HOUR) == []


def test_who_got_the_address_while_nobody_asked_is_not_blamed(state: str) -> None:
    """At the first run, and behind days without one, a listing may be of long ago: carol has the address for a week."""
    who = Subscribers({"198.51.100.7": {0: "alice", START - 7 * DAY: "carol"}, "198.51.100.8": {0: "bob"}})
    run(state, answer("198.51.100.7", "198.51.100.8"), who, START)
    assert {one.subject for one in all_of(state)} == {"198.51.100.7", "bob"}
    part = ("2001:db8::/32",)  # of which a DNSBL never says all
    run(state, answer(unanswered=part), who, START + HOUR)
    with open_store(state, SCHEMA) as store:
        store.run("UPDATE xbl_run SET whole = 0")
    run(state, answer("198.51.100.7", unanswered=part), who, START + 9 * DAY)
    assert {(one.subscriber, one.ended) for one in all_of(state)} == {
        ("", START + HOUR),
        ("", 0),
        ("bob", START + HOUR),
    }
    run(state, answer("198.51.100.7", "198.51.100.8", unanswered=part), who, START + 9 * DAY + HOUR)
    assert {one.subscriber for one in all_of(state) if not one.ended} == {"", "bob"}


def test_where_the_source_says_when_it_counts_who_had_it_then(state: str) -> None:
    who = Subscribers({"198.51.100.7": {0: "alice", START + HOUR: "carol"}})
    said = Answer("sia", (Listing("198.51.100.7", "XBL", since=START + 30 * 60_000, detail="SPAMBOT gamut"),))
    run(state, said, who, START + 2 * HOUR)
    [one] = all_of(state)
    assert (one.subject, one.began) == ("alice", START + 30 * 60_000)


@pytest.mark.parametrize("holder", ["", "?"])
def test_an_address_of_nobody_known_is_an_episode_and_never_a_case(state: str, holder: str) -> None:
    who = Subscribers({"198.51.100.7": {0: holder}})
    run(state, answer("198.51.100.7"), who, START)
    assert [(one.subject, one.subscriber) for one in all_of(state)] == [("198.51.100.7", "")]
    with open_store(state, SCHEMA) as store:
        assert episodes.cases(store, who.touchable, START) == []


@pytest.mark.parametrize(("gap", "count"), [(24 * HOUR - 1, 1), (24 * HOUR, 2)])
def test_listings_less_than_a_day_apart_are_one_episode(state: str, gap: int, count: int) -> None:
    run(state, answer("198.51.100.7"), ALICE, START)
    run(state, answer(), ALICE, START + HOUR)
    run(state, answer(), ALICE, START + HOUR + gap)
    run(state, answer("198.51.100.7"), ALICE, START + HOUR + gap)
    found = all_of(state)
    assert len(found) == count
    assert len({one.id for one in found}) == count
    assert (found[0].id, found[-1].ended) == (f"XBL:alice:{START}", 0)


def test_each_list_has_its_own_episode_and_ipv6_counts_by_64(state: str) -> None:
    who = Subscribers({"2001:db8:1:2::/64": {0: "alice"}})
    run(state, answer(), who, START)
    said = Answer("dns", (
        Listing("2001:db8:1:2::25", "XBL"), Listing("2001:db8:1:2::/64", "XBL"), Listing("2001:db8:1:2::25", "CSS"),
    ))  # fmt: skip
    done = run(state, said, who, START + HOUR)
    assert {(one.network, one.list) for one in done.came} == {
        ("2001:db8:1:2::/64", "XBL"),
        ("2001:db8:1:2::/64", "CSS"),
    }
    assert {(one.subject, one.list) for one in all_of(state)} == {("alice", "XBL"), ("alice", "CSS")}


def test_a_frozen_answer_changes_nothing_and_is_kept_as_what_it_is(state: str) -> None:
    run(state, answer("198.51.100.7"), ALICE, START)
    before = all_of(state)
    done = run(state, answer("198.51.100.8", frozen="it lists everything"), ALICE, START + HOUR)
    assert (done.came, done.went, done.unanswered) == ((), (), 1)
    assert all_of(state) == before
    with open_store(state, SCHEMA) as store:
        assert store.rows("SELECT began, frozen, whole, listed FROM xbl_run ORDER BY began") == [
            (START, "", 1, 1),
            (START + HOUR, "it lists everything", 0, 1),
        ]


def test_what_was_not_answered_for_stays_as_it_was(state: str) -> None:
    run(state, answer("198.51.100.7", "198.51.100.8"), ALICE, START)
    done = run(state, answer(unanswered=("198.51.100.6/31",)), ALICE, START + HOUR)
    assert [one.network for one in done.went] == ["198.51.100.8"]
    assert done.unanswered == 1
    assert {one.subject: one.ended for one in all_of(state)} == {"alice": 0, "bob": START + HOUR}


def test_a_clock_that_went_back_freezes(state: str) -> None:
    run(state, answer("198.51.100.7"), ALICE, START)
    done = run(state, answer("198.51.100.8"), ALICE, START - DAY)
    assert "clock" in done.answer.frozen
    assert [(one.subject, one.began, one.ended) for one in all_of(state)] == [("alice", START, 0)]


def test_what_ended_a_year_ago_is_forgotten(state: str) -> None:
    run(state, answer("198.51.100.7", "198.51.100.8"), ALICE, START)
    run(state, answer("198.51.100.8"), ALICE, START + HOUR)
    run(state, answer("198.51.100.8"), ALICE, START + 2 * HOUR + episodes.KEEP)
    assert [one.subject for one in all_of(state)] == ["bob"]


def test_the_monitor_keeps_its_episodes_there_and_looks_without_leaving_anything(state: str, tmp_path: Path) -> None:
    data = {"own": [OWN], "source": "feed", "feed": [{"kind": "ip4tset", "path": str(tmp_path / "feed")}]}
    data |= {"lock": str(tmp_path / "lock"), "identity": {"static": {"198.51.100.7/32": "alice"}}}
    settings = xbl_service.read_settings(data, {"state": state})
    (tmp_path / "feed").write_text(":4\n127.0.0.2\n198.51.100.7\n")
    would = xbl_service.run(settings, keep=False)
    assert [one.subscriber for one in would.cases] == ["alice"]
    assert all_of(state) == []
    did = xbl_service.run(settings)
    assert did.open == tuple(all_of(state))
    assert xbl_service.known(settings, "no run").figures["XBL"].open == 1


@given(st.lists(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=6), min_size=1, max_size=12))
@settings(max_examples=60)
def test_the_delta_is_exact(runs: list[list[tuple[int, bool]]]) -> None:
    """Held against plain sets: what is listed, what was not answered for, run after run."""
    listed: set[str] = set()
    known = State()
    ended: dict[str, Episode] = {}
    for hour, addresses in enumerate(runs):
        now = START + hour * HOUR
        named = {f"198.51.100.{number}" for number, silent in addresses if not silent}
        silent = {f"198.51.100.{number}" for number, silent in addresses if silent} - named
        done = step(known, answer(*sorted(named), unanswered=tuple(sorted(silent))), ALICE, now)
        assert {one.network for one in done.came} == named - listed
        assert {one.network for one in done.still} == named & listed
        assert {one.network for one in done.went} == listed - named - silent
        assert done.unanswered == len(listed & silent)
        listed = named | (listed & silent)
        silent_rows = [row for row in known.listings if row.network in silent]
        ended = {one.id: one for one in known.episodes} | {one.id: one for one in done.episodes}
        known = State(tuple(ended.values()), (*done.still, *done.came, *silent_rows), now, now)
        assert {row.network for row in known.listings} == listed
        assert {one.id for one in ended.values() if not one.ended} == {row.episode for row in known.listings}


def closed(subject: str, began: int, ended: int = 0) -> Episode:
    return Episode(f"XBL:{subject}:{began}", subject, subject, "XBL", began, ended)


def test_time_to_remediate_counts_what_is_not_over_yet() -> None:
    # By hand: at 1 of 5 left 4/5, at 2 of 4 3/5, the 3 is not over, at 4 of 2 3/10.
    durations = [(1, True), (2, True), (3, False), (4, True), (5, False)]
    assert remediated(durations, 0.5) == 4
    assert remediated(durations, 0.2) == 1
    assert remediated(durations, 0.9) is None
    assert remediated([], 0.5) is None
    assert remediated([(7, False)] * 3, 0.5) is None
    # Without Kaplan and Meier the median of what is over would be 2: too good to be true.
    assert sorted(time for time, over in durations if over)[1] == 2


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40))
@settings(max_examples=60)
def test_without_anything_open_it_is_the_plain_quantile(times: list[int]) -> None:
    ordered = sorted(times)
    assert remediated([(time, True) for time in times], 0.5) == ordered[(len(ordered) + 1) // 2 - 1]


def test_relapse_and_lead() -> None:
    found = [
        closed("alice", START, START + DAY),
        closed("alice", START + 5 * DAY, START + 6 * DAY),  # four days after: a relapse
        closed("bob", START, START + DAY),
        closed("bob", START + 9 * DAY, 0),  # eight days after: none
        closed("carol", START + 9 * DAY, START + 10 * DAY),  # too young to say
    ]
    detections = {
        "alice": [START - 2 * HOUR, START - 30 * DAY],
        "bob": [START + HOUR],
        "carol": [START + 9 * DAY - HOUR],
    }
    assert figures(found, detections, START + 11 * DAY) == Figures(
        open=1, closed=4, median=DAY, p90=None, relapsed=1, watched=2, led=3, lead=2 * HOUR
    )
