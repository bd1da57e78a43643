# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From cases to the desired state of black-holing: what limits.py allows, as the routes that the trigger takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from .blackhole import Guards, Route, State, shield
from .limits import DAY, Action, Decision, Protected, Refusal, Release, decide, limits_of
from .records import Case, Owner


@dataclass(frozen=True, slots=True)
class Proposal:
    """The decision about one kind of black-holing, and the desired state after it, or as it was where it is frozen."""

    decision: Decision
    state: State


def guards_of(policy: Mapping[str, Any]) -> Guards:
    """The guards under a policy, as the filter signals_host gives it. Raises StateError where it makes no sense."""
    own = [prefix for pool in policy["pools"].values() for prefix in pool["prefixes"]]
    return Guards(own, _never(policy), policy["limit"])


def propose(
    kind: str,
    cases: Iterable[Case],
    release: Iterable[str],
    state: State,
    policy: Mapping[str, Any],
    now: int,
    owners: Mapping[str, Owner] | None = None,
) -> Proposal:
    """What to black-hole, and what no longer. `release` are the keys of cases that an operator lets go.

    `owners` says who has the prefixes that are black-holed now. A case that is refused by the guards is refused whole:
    half of a subscriber's addresses are no black-hole. Letting go is no dry run.

    Raises StateError where the guards make no sense.
    """
    guards = guards_of(policy)
    limits = replace(
        limits_of(policy, kind),
        never=tuple(Protected(prefix, reason) for prefix, reason in shield(_never(policy)).items()),
        enabled=not state.killed,
    )
    let_go = set(release)
    released = {key: until for key, until in state.released.items() if until > now}
    hands_off = {name for one in state.routes if one.case in let_go for name in (one.case, one.subscriber) if name}
    released |= {name: now + DAY for name in let_go | hands_off if name not in released}
    # The trigger has let go by itself what is over; to the others of its kind the file is all that there is.
    living = tuple(one for one in state.routes if one.until > now and one.case not in let_go)
    mine = tuple(one for one in living if one.kind == kind)
    active = _actions(mine)
    decision = decide(cases, active, limits, now, owners=owners, released=released)
    if state.killed:
        return Proposal(decision, state)
    ended = [
        Release(action, "an operator lets it go")
        for action in _actions(one for one in state.routes if one.kind == kind and one.case in let_go)
    ]
    decision = _guarded(replace(decision, release=(*ended, *decision.release)), kind, cases, guards, now)
    if decision.dry_run:
        routes = [one for one in state.routes if one.case not in let_go]
        return Proposal(decision, State(tuple(routes), released) if let_go else state)
    kept = {action.key for action in decision.keep}
    routes = [one for one in living if one.kind != kind or one.case in kept]
    added = [one for action in decision.add for one in _routes(action, kind)]
    if added and (reason := guards.breach([*routes, *added])):
        decision = replace(decision, add=(), frozen=reason)
        added = []
    return Proposal(decision, State((*routes, *added), released))


def _never(policy: Mapping[str, Any]) -> dict[str, str]:
    return {one["prefix"]: one["reason"] for one in policy["never"]}


def _guarded(decision: Decision, kind: str, cases: Iterable[Case], guards: Guards, now: int) -> Decision:
    """The decision without the actions that the guards refuse."""
    by_key = {case.key: case for case in cases}
    add, refused = [], list(decision.refused)
    for action in decision.add:
        reasons = [guards.refusal(one, now) for one in _routes(action, kind)]
        if reason := next(filter(None, reasons), ""):
            refused.append(Refusal(by_key[action.key], reason))
        else:
            add.append(action)
    return replace(decision, add=tuple(add), refused=tuple(refused))


def _routes(action: Action, kind: str) -> list[Route]:
    return [
        Route(
            f"{kind} {action.key} {prefix}", kind, prefix, action.until, action.key, action.reason,
            action.since, action.subscriber, action.sources, action.by,
        )
        for prefix in action.prefixes
    ]  # fmt: skip


def _actions(routes: Iterable[Route]) -> tuple[Action, ...]:
    """The routes of the state file as the actions that they came from."""
    found: dict[str, Action] = {}
    for one in routes:
        action = found.get(one.case)
        found[one.case] = Action(
            one.case,
            one.subscriber,
            (*action.prefixes, one.route) if action else (one.route,),
            one.since,
            max(one.until, action.until) if action else one.until,
            one.reason,
            one.sources,
            one.by,
        )
    return tuple(found.values())
