"""The state file of a host and its limits; what the audit log says stands in the tests of the kernel."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import yaml

from ansible_collections.isp.hardening.plugins.module_utils.signals.ledger import (
    Ledger,
    Refused,
    State,
    breach,
    read_state,
    write_state,
)
from ansible_collections.isp.hardening.plugins.module_utils.signals.limits import (
    DAY,
    HOUR,
    LATE,
    Action,
    Limits,
    Protected,
)
from ansible_collections.isp.hardening.plugins.module_utils.signals.records import Case

ROOT = Path(__file__).parents[2]
NOW = 1_790_000_000_000
LEDGER = Ledger("/state", "/audit", 3, (Protected("192.0.2.0/28", "own servers"),))
V4, V6 = "203.0.113.7/32", "2001:db8:1:2::/64"


def action(key: str = "k1", *prefixes: str, **changes: object) -> Action:
    sound = Action(key, f"of {key}", prefixes or (V4,), NOW - HOUR, NOW + HOUR, "D2", ("D2",), "automatic")
    return replace(sound, **changes)  # type: ignore[arg-type]


def test_a_state_is_read_as_it_was_written() -> None:
    state = State((action("a"), action("b", V6)), {"c": NOW}, NOW)
    assert read_state(write_state(state)) == state


@pytest.mark.parametrize("text", ["", " \n"])
def test_an_empty_state_file_is_the_kill_switch(text: str) -> None:
    assert read_state(text) == State(killed=True)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "not JSON"),
        ("[]", "not a mapping"),
        ("<html>", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("{}", "version 1"),
        (write_state(State())[:-3], "not JSON"),
        (write_state(State()).replace('"last": 0', '"last": "now"'), "milliseconds"),
        (write_state(State((action(), action()))), "same key"),
        (write_state(State((action("k1", "203.0.113.0/24"),))), "more than one subscriber's"),
    ],
)
def test_a_state_file_that_is_none_is_told(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_state(text)


@pytest.mark.parametrize(
    ("actions", "changes", "now", "reason"),
    [
        ([action(f"k{one}", f"203.0.113.{one}/32") for one in range(4)], {}, NOW, "4 actions are more than the 3"),
        ([action()], {"never": ()}, NOW, "never-list is empty"),
        ([action("k1", "192.0.2.4/32")], {}, NOW, "on the never-list: 192.0.2.0/28, own servers"),
        ([action(until=NOW + 2 * DAY)], {}, NOW, "longer than a day"),
        ([action()], {}, NOW - DAY, "the clock went back"),
        ([action()], {}, NOW + LATE, "after the last run"),
        ([action("a", V6), action("b", "2001:db8:1:2::7/128")], {}, NOW, "overlap"),
        ([action("a"), action("b")], {}, NOW, "overlap"),
        ([action("a"), action("b", V6)], {}, NOW, ""),
        ([], {"never": (), "most": 0}, NOW, ""),
    ],
)
def test_over_size_batch_and_all_else_that_is_wrong_is_refused_whole(
    actions: list[Action], changes: dict[str, object], now: int, reason: str
) -> None:
    found = breach(replace(LEDGER, **changes), State(tuple(actions)), now)  # type: ignore[arg-type]
    assert reason in found
    assert bool(found) is bool(reason)


@dataclass
class Paper:
    """An enforcer that writes down what it is asked for."""

    asked: list[tuple[str, list[str]]] = field(default_factory=list)
    refuse: bool = False

    @property
    def changed(self) -> bool:
        return True

    def preview(self, actions: Sequence[Action], now: int) -> Paper:
        return self

    def let_go(self, ended: Sequence[Action], kept: Sequence[Action], now: int, ledger: Ledger) -> None:
        self.asked.append(("let go", [one.key for one in ended]))

    def enforce(self, actions: Sequence[Action], now: int, ledger: Ledger, told: Collection[Action]) -> Paper:
        self.asked.append(("enforce", [one.key for one in actions]))
        if self.refuse:
            raise Refused("it cannot")
        return self


@pytest.fixture
def books(tmp_path: Path) -> Ledger:
    made = replace(LEDGER, state=str(tmp_path / "state.json"), audit=str(tmp_path / "audit"))
    Path(made.state).write_text(write_state(State((action("a"), action("b", V6, until=NOW + 2 * HOUR)))))
    return made


def test_what_is_over_ends_whatever_is_wrong_with_the_others(books: Ledger) -> None:
    paper = Paper()
    with pytest.raises(Refused, match="never-list"):
        replace(books, never=(Protected(V6, "a new server"),)).reconcile(paper, NOW + HOUR)
    assert paper.asked == [("let go", ["a"])]
    assert [one.key for one in books.actions()] == ["b"]


@pytest.mark.parametrize(
    ("changes", "now"),
    [({"never": (Protected(V6, "a new server"),)}, NOW), ({"most": 0}, NOW), ({}, NOW - DAY)],
)
def test_a_release_brings_nothing_into_force_that_the_limits_refuse(
    books: Ledger, changes: dict[str, object], now: int
) -> None:
    paper = Paper()
    done = replace(books, **changes).release(paper, ["a"], "jane", "is clean", now=now)  # type: ignore[arg-type]
    assert (paper.asked, done.changed) == ([("let go", ["a"])], True)
    assert [one.key for one in books.actions()] == ["b"]


def test_the_play_lets_go_whom_the_never_list_has_now_while_the_service_refuses(books: Ledger) -> None:
    never = (Protected(V6, "a new server"),)
    changed = replace(books, never=never)
    with pytest.raises(Refused, match="never-list"):
        changed.reconcile(Paper(), NOW)
    paper = Paper()
    changed.apply(paper, [], Limits("quarantine", 10_000, never, dry_run=False), now=NOW)
    assert paper.asked == [("enforce", ["a"])]
    handlers = yaml.safe_load((ROOT / "roles" / "quarantine" / "handlers" / "main.yml").read_text())
    assert not [one for handler in handlers for one in handler["loop"] if one.endswith(".service")]


@pytest.mark.parametrize("name", ["b", "of b", V6, "2001:db8:1:2::", "2001:DB8:1:2::beef"])
def test_whoever_comes_from_the_portal_is_let_go_by_any_address_of_his(books: Ledger, name: str) -> None:
    books.release(Paper(), [name], "portal", "is clean", now=NOW)
    assert [one.key for one in books.actions()] == ["a"]


@pytest.mark.parametrize(("source", "added"), [("complaint", []), ("operator", ["another"])])
def test_a_release_is_not_undone_by_a_case_of_the_same_subscriber_under_another_key(
    books: Ledger, source: str, added: list[str]
) -> None:
    books.release(Paper(), ["a"], "jane", "is clean", now=NOW)
    again = Case("another", "of a", (V4,), (source,), NOW)
    limits = Limits("quarantine", 10_000, LEDGER.never, dry_run=False)
    done = books.apply(Paper(), [again], limits, now=NOW + HOUR - 1)
    assert done.decision
    assert [one.key for one in done.decision.add] == added


def test_the_kill_switch_holds_when_it_comes_in_the_middle_of_a_run(books: Ledger) -> None:
    class Killed(Paper):
        def enforce(self, actions: Sequence[Action], now: int, ledger: Ledger, told: Collection[Action]) -> Paper:
            Path(books.state).write_text("")
            raise Refused("it cannot")

    with pytest.raises(Refused, match="kill switch"):
        books.release(Killed(), ["a"], "jane", "is clean", now=NOW)
    assert Path(books.state).read_text() == ""
    assert json.loads(Path(books.audit).read_text().splitlines()[-1])["what"] == "refuse"


def test_a_record_that_went_into_the_log_in_part_is_none(books: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    paper, whole = Paper(), os.write
    books.refuse_once("before", NOW)
    with monkeypatch.context() as full:
        full.setattr("os.write", lambda handle, data: whole(handle, data[:-9]))
        with pytest.raises(Refused, match="in part"):
            books.release(paper, ["a"], "jane", "is clean", now=NOW)
    assert not paper.asked
    books.refuse_once("behind", NOW)
    assert [json.loads(line)["reason"] for line in Path(books.audit).read_text().splitlines()] == ["before", "behind"]


def test_a_host_without_actions_may_rest_for_as_long_as_it_likes(books: Ledger) -> None:
    Path(books.state).write_text(write_state(State(last=NOW)))
    assert books.reconcile(Paper(), NOW + 2 * LATE).after == ()


def test_what_cannot_be_carried_out_is_not_in_the_state_file(books: Ledger) -> None:
    before = Path(books.state).read_text()
    with pytest.raises(Refused, match="it cannot"):
        books.release(Paper(refuse=True), ["a"], "jane", "is clean", now=NOW)
    assert Path(books.state).read_text() == before
    assert [json.loads(line)["what"] for line in Path(books.audit).read_text().splitlines()] == ["release", "refuse"]


def test_what_cannot_be_logged_is_not_done(books: Ledger, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    before, paper = Path(books.state).read_text(), Paper()
    with pytest.raises(Refused, match="file"):
        replace(books, audit=str(tmp_path / "file" / "audit")).release(paper, ["a"], "jane", "is clean", now=NOW)
    assert Path(books.state).read_text() == before
    assert not paper.asked
