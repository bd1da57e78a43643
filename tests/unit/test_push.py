# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A push that goes wrong at every position there is: never weaker than both filters, told as it was, and mended next.

In this process, against the lab's routers. A new platform is covered as soon as it has a router in the lab.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from ansible_collections.isp.hardening.plugins.module_utils import push as push_module
from ansible_collections.isp.hardening.plugins.module_utils.push import Outcome
from lab.routers import kind
from lab.routers.base import Router
from tests.unit.pushes import MINUTES, Case, Desk, Fault, Watch, at, calm, cases

every_router = pytest.mark.parametrize("case", cases(), ids=lambda case: case.network_os)


def commands(case: Case, proved: Callable[[object], str] | None = None) -> list[str]:
    """All commands of a push that nothing disturbs; "" for a login."""
    desk = Desk(case.router())
    case.run(desk, proved)
    return desk.commands


def told_truly(case: Case, router: Router, outcome: Outcome) -> None:
    """The router is as the outcome says, and once its timer had its time it has the old filters or the new ones."""
    said = outcome.message
    here = calm(router.snapshot())
    if outcome.state in ("changed", "unchanged") or "the router has the new filters, confirmed" in said:
        assert here == case.new, said
        assert outcome.changed or outcome.state == "unchanged"
    elif "its old filters" in said or "nothing was changed" in said:
        assert here == case.old, said
        assert not outcome.changed
    else:
        assert f"within {MINUTES} minutes" in said
        router.clock.advance(MINUTES * 60 + 1)
        here = calm(router.snapshot())
        either = "confirmed already, or" in said or "if the confirmation reached it" in said
        assert here == case.old or (either and here == case.new), said


def mended(case: Case, router: Router, watch: Watch) -> None:
    """The next run makes it right, for good; the one after it changes nothing."""
    outcome = case.run(Desk(router, watch=watch))
    assert outcome.state in ("changed", "unchanged"), outcome.message
    assert calm(router.snapshot()) == case.new
    assert case.wrong_in(case.new) == []
    router.clock.advance(3600)
    assert calm(router.snapshot()) == case.new
    if case.platform.PUSH.save and outcome.state == "changed":
        assert calm(router.startup_text()) == case.new
    assert case.run(Desk(router)).state == "unchanged"


def suffer(
    case: Case, fault: Fault, proved: Callable[[object], str] | None = None, ghosts: bool = False
) -> tuple[Router, Outcome]:
    """One push with the fault, watched, its outcome checked."""
    router = case.router()
    watch = Watch(case, router)
    outcome = case.run(Desk(router, fault, ghosts, watch), proved)
    told_truly(case, router, outcome)
    assert watch.leaks == []
    if ghosts:  # at last the router notices that nobody is there
        for session in router.sessions:
            session.hang_up()
        router.clock.advance(MINUTES * 60 + 1)
    mended(case, router, watch)
    assert watch.leaks == []
    return router, outcome


@every_router
def test_what_the_watch_looks_for(case: Case) -> None:
    """The tests of this file would notice: mail is stopped by both filters, and a router without filters leaks it."""
    router = case.router()
    watch = Watch(case, router)
    assert watch.stopped >= 30
    case.run(Desk(router, watch=watch))
    assert watch.states
    assert watch.leaks == []
    assert case.old != case.new
    assert case.wrong_in(case.old)
    nothing = Watch(case, kind(case.network_os)(case.name, without_bindings(case.old)))
    nothing.look()
    assert len(nothing.leaks) >= 20


_BINDINGS = re.compile(
    r"access-group|traffic-filter|^ *traffic-policy|^ *ip(?:v6)?-filter \S+$|^ +(?:in|out)put \S+;$|^ *jump-target |"
    "action=jump "
)


def without_bindings(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not _BINDINGS.search(line))


def some(case: Case, sent: list[str]) -> list[int]:
    """Every tenth line, and every command of the protocol around the lines."""
    first, last = len(case.platform.PUSH.arm) + 2, len(case.platform.PUSH.arm) + len(case.plan(case.old).lines) - 2
    return [number for number in range(1, len(sent) + 1) if not first <= number <= last or number % 10 == 0]


@every_router
@pytest.mark.parametrize("what", ["reply", "command"])
def test_the_session_is_cut_at_every_command(case: Case, what: str) -> None:
    states = set()
    sent = commands(case)
    for number in range(1, len(sent) + 1) if what == "reply" else some(case, sent):
        _, outcome = suffer(case, at(number, what))
        states.add(outcome.state)
        assert outcome.state in ("session_lost", "changed")
    assert states == {"session_lost", "changed"}  # a cut behind the confirmation costs nothing


@every_router
def test_nobody_reaches_the_router_any_more_from_any_command_on(case: Case) -> None:
    for number in some(case, commands(case)):
        _, outcome = suffer(case, at(number, "gone"))
        assert outcome.state == "session_lost"


@every_router
def test_every_command_is_rejected_once(case: Case) -> None:
    sent = commands(case)
    for number, command in enumerate(sent, 1):
        if not command or command in (*case.platform.READ, *case.platform.PUSH.abort):  # a mode is left some other way
            continue
        router, outcome = suffer(case, at(number, "reject"))
        assert outcome.state == "rejected"
        assert f"rejected '{command.partition('isp-')[0][:100]}" in outcome.message
        del router


@every_router
def test_the_lab_rejects_every_line_in_its_own_words(case: Case) -> None:
    for position in range(1, len(case.plan(case.old).lines) + 1, 7):
        router = case.router()
        router.faults.reject_at = position
        watch = Watch(case, router)
        outcome = case.run(Desk(router, watch=watch))
        if router.faults.reject_at is not None:
            break  # lines that only leave a mode count for nothing there
        assert outcome.state == "rejected"
        told_truly(case, router, outcome)
        mended(case, router, watch)
        assert watch.leaks == []


def timer_before(number: int) -> Fault:
    """The rollback timer runs out while the command of this number is on its way."""

    def fault(desk: Desk, _: str) -> str:
        if len(desk.commands) == number:
            desk.wait(MINUTES * 60 + 1)
        return ""

    return fault


def behind(sent: list[str], part: tuple[str, ...]) -> int:
    """The number of the command that follows the last one of this part of a push."""
    last = part[-1].partition("{")[0]
    return max(number for number, command in enumerate(sent, 1) if command and command.startswith(last)) + 1


@every_router
def test_the_timer_fires_at_any_moment_behind_the_commit(case: Case) -> None:
    sent = commands(case)
    login = sent.index("", len(case.plan(case.old).lines)) + 1
    confirmed = behind(sent, case.platform.PUSH.confirm)
    for number in range(login, len(sent) + 1):
        router, outcome = suffer(case, timer_before(number))
        expected = ("changed",) if number >= confirmed else ("rolled_back", "rejected", "changed")
        assert outcome.state in expected
        del router
    _, outcome = suffer(case, timer_before(login))
    assert outcome.state == "rolled_back"
    assert "the change is gone: the timer fired before the confirmation" in outcome.message


@every_router
def test_the_timer_fires_between_reading_and_confirming(case: Case) -> None:
    sent = commands(case)
    confirm = sent.index(case.platform.READ[-1], len(case.plan(case.old).lines)) + 2
    assert sent[confirm - 1].startswith(case.platform.PUSH.confirm[0].partition("{")[0])
    _, outcome = suffer(case, timer_before(confirm))
    assert outcome.state in ("rolled_back", "rejected")
    assert "the router has its old filters" in outcome.message


@every_router
def test_a_router_too_slow_for_its_timer(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where lines act at once the rest of them is not sent when the timer could fire in between."""
    lines = len(case.plan(case.old).lines)

    def slow(desk: Desk, _: str) -> str:
        desk.wait(2 * MINUTES * 60 / lines if len(desk.commands) <= lines else 0)
        return ""

    router = case.router()
    monkeypatch.setattr(push_module, "monotonic", router.clock.now)
    watch = Watch(case, router)
    outcome = case.run(Desk(router, slow, watch=watch))
    told_truly(case, router, outcome)
    assert outcome.state == ("rolled_back" if case.platform.LIVE else "changed")
    assert ("rollback_minutes" in outcome.message) == case.platform.LIVE
    mended(case, router, watch)
    assert watch.leaks == []


def unproved(_: object) -> str:
    return "it does not prove"


@every_router
@pytest.mark.parametrize("what", ["reply", "command", "gone", "reject"])
def test_taking_back_goes_wrong_too(case: Case, what: str) -> None:
    sent = commands(case, unproved)
    read_back = sent.index(case.platform.READ[-1], len(case.plan(case.old).lines)) + 1
    assert len(sent) > read_back + 2
    for number in range(read_back + 1, len(sent) + 1):
        _, outcome = suffer(case, at(number, what), unproved)
        assert outcome.state == "rolled_back"
        assert "it does not prove" in outcome.message


@every_router
def test_taking_back_is_refused_again_and_again(case: Case) -> None:
    push = case.platform.PUSH
    starts = tuple(command.partition("{")[0] for command in (*push.abort, *push.discard))

    def refuse(desk: Desk, command: str) -> str:
        return "reject" if "" in desk.commands and command and command.startswith(starts) else ""

    _, outcome = suffer(case, refuse, unproved)
    if not (push.held and "the router has its old filters" in outcome.message):  # it went with its session
        assert "could not be taken back: the router's own timer takes back" in outcome.message
    assert outcome.state == "rolled_back"


@every_router
def test_the_timer_fires_while_the_change_is_taken_back(case: Case) -> None:
    sent = commands(case, unproved)
    read_back = sent.index(case.platform.READ[-1], len(case.plan(case.old).lines)) + 1
    for number in range(read_back + 1, len(sent) + 1):
        _, outcome = suffer(case, timer_before(number), unproved)
        assert "the router has its old filters" in outcome.message


@every_router
def test_the_router_does_not_notice_that_the_session_is_gone(case: Case) -> None:
    """A lost session keeps its lock or its candidate until the router notices."""
    sent = commands(case)
    for number in {*range(1, len(sent) + 1, 10), *range(len(sent) - 10, len(sent) + 1)}:
        suffer(case, at(number, "reply"), ghosts=True)


@every_router
def test_faults_do_not_add_up(case: Case) -> None:
    router = case.router()
    watch = Watch(case, router)
    total = len(commands(case))
    for number in range(2, total - 8, total // 8):
        outcome = case.run(Desk(router, at(number, "reply"), watch=watch))
        told_truly(case, router, outcome)
    mended(case, router, watch)
    assert watch.leaks == []


@every_router
@pytest.mark.parametrize("printed", ["half", "other", "escapes", "nothing"])
@pytest.mark.parametrize("once", [True, False], ids=["once", "from now on"])
def test_what_is_read_back_cannot_be_used(case: Case, printed: str, once: bool) -> None:
    other = next(one for one in cases() if one is not case)
    whole = case.router().snapshot()
    text = {
        "half": whole[: len(whole) // 2], "other": other.router().snapshot(), "escapes": f"\x1b[2J{whole}",
        "nothing": "",
    }  # fmt: skip
    logins = 0

    def fault(desk: Desk, command: str) -> str:
        nonlocal logins
        logins += command == ""
        outputs = {case.platform.READ[0]: text[printed]} if logins == 1 or (logins and not once) else {}
        desk.router.faults.outputs = outputs
        return ""

    router = case.router()
    watch = Watch(case, router)
    outcome = case.run(Desk(router, fault, watch=watch))
    router.faults.outputs = {}
    assert outcome.state == "rolled_back"
    assert ("cannot be told" in outcome.message) != once
    told_truly(case, router, outcome)
    mended(case, router, watch)
    assert watch.leaks == []


def side_by_side(case: Case) -> bool:
    """Whether two sessions can begin a push at the same time."""
    router = case.router()
    said = ""
    for session in (router.login(), router.login()):
        for number, command in enumerate(case.platform.PUSH.arm):
            output = session.execute(
                command.format(minutes=MINUTES, seconds=60 * MINUTES, session=f"isp-{id(session)}")
            )
            said = "".join(output) if number == 0 else said + "".join(output)
    return not any(re.search(pattern, said, re.MULTILINE) for pattern in case.platform.REJECTED)


@every_router
def test_two_runs_at_once(case: Case) -> None:
    """The second one begins and ends between two commands of the first."""
    sent = commands(case)
    refused = 0
    for number in {*range(1, len(sent) + 1, 12), *range(len(sent) - 8, len(sent) + 1)}:
        router = case.router()
        watch = Watch(case, router)
        second: list[Outcome] = []

        def fault(
            desk: Desk, _: str, number: int = number, second: list[Outcome] = second, watch: Watch = watch
        ) -> str:
            if len(desk.commands) == number:
                second.append(case.run(Desk(desk.router, watch=watch)))
            return ""

        first = case.run(Desk(router, fault, watch=watch))
        refused += second[0].state == "rejected"
        if second[0].state == "rejected":
            assert "nothing was changed" in second[0].message or "its old filters" in second[0].message
            assert first.state == "changed"
        assert {first.state, second[0].state} & {"changed", "unchanged"}
        assert case.wrong_in(calm(router.snapshot())) == []
        if number > 1:  # where the second one is through before the first one begins, lines can stand there twice
            told_truly(case, router, first)
            mended(case, router, watch)
        assert watch.leaks == []
    # Only a router with sessions side by side (EOS, VyOS) lets both of them begin.
    assert bool(refused) != side_by_side(case)


LEFT_OVER = "ip access-list extended ISP-UP4-00000000\n permit ip any any\n"
BOUND = ("configure terminal", "interface GigabitEthernet0/0/0", "ip access-group ISP-UP4-00000000 in", "end")


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_left_over_list_that_somebody_binds_before_it_is_deleted(number: int) -> None:
    """On IOS a list that is bound and gone permits everything."""
    case = next(one for one in cases() if one.network_os == "cisco_ios")
    router = kind(case.network_os)(case.name, case.old.replace("\nend", f"\n{LEFT_OVER}end"))

    def fault(desk: Desk, _: str) -> str:
        if len(desk.commands) == number:
            session = router.login()
            for command in BOUND:
                session.execute(command)
        return ""

    outcome = case.run(Desk(router, fault))
    assert outcome.state == "rolled_back"
    assert (
        "GigabitEthernet0/0/0 (in, IPv4) has the filter ISP-UP4-00000000, which the change deleted" in outcome.message
    )
    assert outcome.message.endswith("the router has its old filters")
    assert LEFT_OVER.splitlines()[0] in router.snapshot()
    assert case.run(Desk(router)).state == "changed"
    if number == 1:  # what came behind the beginning of the push went back with it
        assert " ip access-group ISP-UP4-00000000 in" in router.snapshot()
        assert LEFT_OVER.splitlines()[0] in router.snapshot()
