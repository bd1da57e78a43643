# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The actions that are in force on a host: the state file, the audit log, and whatever carries the actions out.

    cases ─► apply() ──┐
    names ─► release() ┼─► audit log ─► state file ─► Enforcer (nftables, RADIUS)
    timer ─► reconcile()┘

One lock holds all of it, so that a play, a timer and an operator never meet. What is done stands in the log first; when
it cannot be carried out, the state file goes back, and the log says so too. The standard library alone.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import ipaddress
import itertools
import json
import os
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from .limits import DAY, MINUTE, Action, Decision, Limits, NeverList, Protected, clock_fault, decide, read_action
from .records import Case, Owner

VERSION = 1
AUDIT_TAIL = 65_536  # octets, more than one record has


class Refused(Exception):
    """Nothing was changed. Says why, and what to do."""


@dataclass(frozen=True, slots=True)
class State:
    """The actions in force, cases and subscribers that are left alone until then, and the last run."""

    actions: tuple[Action, ...] = ()
    released: Mapping[str, int] = field(default_factory=dict)
    last: int = 0
    killed: bool = False


class Change(Protocol):
    """What an enforcer has to change, or has changed."""

    @property
    def changed(self) -> bool: ...

    def __str__(self) -> str:
        """One line for the journal."""


class Enforcer(Protocol):
    """What carries actions out."""

    def preview(self, actions: Sequence[Action], now: int) -> Change:
        """What would change so that these actions are in force, and no others. Raises Refused."""

    def let_go(self, ended: Sequence[Action], kept: Sequence[Action], now: int, ledger: Ledger) -> None:
        """End the ones, leave the others as they are, and begin nothing. Raises Refused."""

    def enforce(self, actions: Sequence[Action], now: int, ledger: Ledger, told: Collection[Action]) -> Change:
        """Change it. What it does about other actions than those of `told` it writes into the log. Raises Refused."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run did, or would do: the enforcer's change, and the actions of the state before and after."""

    change: Change | None
    before: tuple[Action, ...]
    after: tuple[Action, ...]
    decision: Decision | None = None
    unknown: tuple[str, ...] = ()  # names that nothing in force has

    @property
    def changed(self) -> bool:
        return bool(self.change and self.change.changed) or self.before != self.after


@dataclass(frozen=True, slots=True)
class Ledger:
    """The books of one host. `most` and `never` are its own limits, whatever the state file says."""

    state: str  # path
    audit: str  # path
    most: int
    never: tuple[Protected, ...]

    def actions(self) -> tuple[Action, ...]:
        """What the state file has now. Raises Refused."""
        with self._locked() as state:
            return state.actions

    def reconcile(self, enforcer: Enforcer, now: int | None = None) -> Outcome:
        """Carry out what the state file says; what a timer does. Raises Refused."""
        now = clock() if now is None else now
        with self._locked() as state:
            if state.actions and (reason := clock_fault(state.actions, now, state.last)):
                self._refuse(reason, now)
            ended = [action for action in state.actions if action.until <= now]
            kept = tuple(action for action in state.actions if action not in ended)
            if ended:  # which it is, whatever is wrong with the others
                self.log(now, "expire", ended, "its time is over", "automatic")
                self._write(replace(state, actions=kept), now)
            if reason := breach(self, replace(state, actions=kept), now):
                enforcer.let_go(ended, kept, now, self)
                self._refuse(reason, now)
            change = enforcer.enforce(kept, now, self, ended)
            return Outcome(change, state.actions, kept)

    def apply(
        self,
        enforcer: Enforcer,
        cases: Iterable[Case],
        limits: Limits,
        *,
        owners: Mapping[str, Owner] | None = None,
        check: bool = False,
        now: int | None = None,
    ) -> Outcome:
        """Decide about the cases and do it, unless `check` or a dry run says to tell only. Raises Refused."""
        now = clock() if now is None else now
        with self._locked() as state:
            limits = replace(limits, enabled=limits.enabled and not state.killed)
            decision = decide(
                cases, state.actions, limits, now, last=state.last, owners=owners, released=state.released
            )
            quiet = check or decision.dry_run
            if limits.enabled and clock_fault(state.actions, now, state.last):
                if not quiet:
                    self.refuse_once(decision.frozen, now)
                return Outcome(None, state.actions, state.actions, decision)
            released = {key: until for key, until in state.released.items() if until > now}
            wanted = State((*decision.keep, *decision.add), released, now if limits.enabled else 0, state.killed)
            if reason := breach(self, wanted, now):
                self._refuse(reason, now, log=not quiet)
            if quiet:
                return Outcome(enforcer.preview(wanted.actions, now), state.actions, wanted.actions, decision)
            for one in decision.release:
                self.log(now, "release", [one.action], one.reason, "automatic")
            for action in decision.add:
                self.log(now, "add", [action], action.reason, action.by)
            if decision.frozen:
                self.refuse_once(decision.frozen, now)
            told = [*decision.add, *(one.action for one in decision.release)]
            change = self._change(enforcer, state, wanted, now, told)
            return Outcome(change, state.actions, wanted.actions, decision)

    def release(
        self,
        enforcer: Enforcer,
        names: Sequence[str],
        by: str,
        reason: str,
        *,
        check: bool = False,
        now: int | None = None,
    ) -> Outcome:
        """Let go of what has one of the names: a key, a subscriber or an address. He is left alone for a day.

        Where the limits do not hold for the others, they stay as they are. Raises Refused.
        """
        now = clock() if now is None else now
        with self._locked() as state:
            ended = [action for action in state.actions if _named(action, names)]
            unknown = tuple(name for name in names if not any(_named(action, [name]) for action in ended))
            kept = tuple(action for action in state.actions if action not in ended)
            names_of = [name for action in ended for name in (action.key, action.subscriber) if name]
            wanted = replace(state, actions=kept, released={**state.released, **dict.fromkeys(names_of, now + DAY)})
            if check:
                change = None if breach(self, wanted, now) else enforcer.preview(kept, now)
                return Outcome(change, state.actions, kept, unknown=unknown)
            self.log(now, "release", ended, reason, by)
            change = self._change(enforcer, state, wanted, now, ended)
            return Outcome(change, state.actions, kept, unknown=unknown)

    def log(self, now: int, what: str, actions: Iterable[Action], reason: str, by: str) -> None:
        """A line for each of the actions."""
        for action in actions:
            self.note(
                now,
                what,
                key=action.key,
                subscriber=action.subscriber,
                prefixes=list(action.prefixes),
                until=action.until,
                sources=list(action.sources),
                reason=reason,
                by=by,
            )

    def note(self, now: int, what: str, **fields: object) -> None:
        """One line of JSON at the end of the log, on the disk before anything goes on."""
        line = (json.dumps({"time": now, "what": what, **fields}, ensure_ascii=False) + "\n").encode()
        Path(self.audit).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(self.audit, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            end = os.fstat(handle).st_size
            if os.write(handle, line) < len(line):
                with contextlib.suppress(OSError):  # the next record would stand on the same line
                    os.ftruncate(handle, end)
                raise OSError(errno.ENOSPC, "the record went in only in part", self.audit)
            os.fsync(handle)
        finally:
            os.close(handle)

    def refuse_once(self, reason: str, now: int) -> None:
        """A timer that is refused again and again says so once, until something else happens."""
        last = _last_record(self.audit)
        if (last.get("what"), last.get("reason")) != ("refuse", reason):
            self.note(now, "refuse", reason=reason, by="automatic")

    def _refuse(self, reason: str, now: int, log: bool = True) -> None:
        if log:
            self.refuse_once(reason, now)
        raise Refused(f"{reason}. What is in force is as it was")

    def _change(self, enforcer: Enforcer, old: State, new: State, now: int, told: Sequence[Action]) -> Change | None:
        self._write(new, now)
        try:
            if not (reason := breach(self, new, now)):
                return enforcer.enforce(new.actions, now, self, told)
            enforcer.let_go(told, new.actions, now, self)
        except Refused as error:
            self._write(old, now)
            self.refuse_once(str(error), now)
            raise
        self.refuse_once(reason, now)
        return None

    def _write(self, state: State, now: int) -> None:
        if state.killed:  # that file is the operator's, until he takes it away
            return
        with contextlib.suppress(FileNotFoundError):
            if not Path(self.state).read_bytes().strip():  # he takes no lock
                self._refuse("the kill switch was used meanwhile; the next run lets all go", now)
        write_file(self.state, write_state(state))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[State]:
        """The state, which nobody else changes meanwhile."""
        try:
            Path(self.state).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = os.open(f"{self.state}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise Refused(f"{self.state}: {said(error)}. Nothing was changed") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                state = read_state(Path(self.state).read_text(encoding="utf-8"))
            except FileNotFoundError:
                state = State()
            except ValueError as error:
                mend = "mend it, take it away to begin anew, or empty it to release everybody"
                raise Refused(f"{self.state}: {error}. Nothing was changed; {mend}") from None
            yield state
        except OSError as error:
            where = error.filename or self.state
            raise Refused(f"{where}: {said(error)}. Make room or mend it; the next run goes on from there") from None
        finally:
            os.close(lock)


def clock() -> int:
    """Milliseconds since 1970 UTC."""
    return time.time_ns() // 1_000_000


def told(outcomes: Iterable[Outcome]) -> dict[str, Any]:
    """What was done, as a result of a module."""
    result: dict[str, Any] = {"added": [], "kept": [], "released": [], "refused": [], "unknown": []}
    result |= {"frozen": "", "dry_run": False, "changed": False}
    for outcome in outcomes:
        result["unknown"] += outcome.unknown
        decision = outcome.decision
        if decision:
            result["added"] += [one.as_dict() for one in decision.add]
            result["kept"] += [one.as_dict() for one in decision.keep]
            result["released"] += [_ended(one.action, one.reason) for one in decision.release]
            result["refused"] += [{"key": one.case.key, "why": one.reason} for one in decision.refused]
            result |= {"frozen": decision.frozen, "dry_run": decision.dry_run}
        else:
            result["released"] += [_ended(one, "by hand") for one in outcome.before if one not in outcome.after]
        result["changed"] |= outcome.changed and not (decision and decision.dry_run)
    return result


def warnings(result: Mapping[str, Any]) -> list[str]:
    """What nobody should overlook in the result of a module."""
    found = [result["frozen"], *(f"{one['key']}: {one['why']}" for one in result["refused"])]
    found += [f"{name}: nothing in force has this key, subscriber or address" for name in result["unknown"]]
    return [line for line in found if line]


def shown(actions: Iterable[Action]) -> str:
    """For a diff: a line for each prefix."""
    return "".join(sorted(f"{prefix} until {one.until} {one.key}\n" for one in actions for prefix in one.prefixes))


def _ended(action: Action, why: str) -> dict[str, Any]:
    return {"key": action.key, "prefixes": list(action.prefixes), "why": why}


def read_state(text: str) -> State:
    """A state file. An empty one is the kill switch. Raises ValueError."""
    if not text.strip():
        return State(killed=True)
    data = read_json(text)
    actions, released, last = data.get("actions"), data.get("released"), data.get("last")
    if data.get("version") != VERSION or not isinstance(actions, list) or not isinstance(released, dict):
        raise ValueError(f"not a state file of version {VERSION}")
    if not isinstance(last, int) or not all(isinstance(until, int) for until in released.values()):
        raise ValueError("'last' or 'released' hold something else than milliseconds")
    found = tuple(read_action(one) for one in actions)
    if len({one.key for one in found}) < len(found):
        raise ValueError("two actions have the same key")
    return State(found, released, last)


def write_state(state: State) -> str:
    """The text of a state file."""
    data = {
        "version": VERSION,
        "last": state.last,
        "released": dict(sorted(state.released.items())),
        "actions": [action.as_dict() for action in sorted(state.actions, key=lambda action: action.key)],
    }
    return json.dumps(data, indent=1, ensure_ascii=False) + "\n"


def write_file(path: str, text: str) -> None:
    """The whole file or the old one, also where the power fails; only its owner reads it."""
    handle, beside = tempfile.mkstemp(dir=Path(path).parent, prefix=".new-")
    try:
        with open(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(beside, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise


def read_json(text: str) -> dict[str, object]:
    """A mapping in JSON. Raises ValueError."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:  # the latter: brackets without an end
        raise ValueError(f"not JSON ({error})") from None
    if not isinstance(data, dict):
        raise ValueError("not a mapping")
    return data


def read_never(data: object) -> tuple[Protected, ...]:
    """The never-list of a settings file. Raises KeyError, TypeError or ValueError."""
    if not isinstance(data, list):
        raise TypeError("never")
    never = tuple(Protected(one["prefix"], one["reason"]) for one in data)
    NeverList(never)
    return never


def breach(ledger: Ledger, state: State, now: int) -> str:
    """Why the state as a whole is not carried out, or "". It is never cut to what would fit."""
    actions = state.actions
    if not actions:
        return ""
    if len(actions) > ledger.most:
        return f"{len(actions)} actions are more than the {ledger.most} of the limits"
    if not ledger.never:
        return "the never-list is empty"
    if reason := clock_fault(actions, now, state.last):
        return reason
    never = NeverList(ledger.never)
    spans = []
    for action in actions:
        if action.until - now > DAY + MINUTE:
            return f"action {action.key} lasts longer than a day"
        for prefix in action.prefixes:
            if protected := never.hit(prefix):
                return f"action {action.key}: {prefix} is on the never-list: {protected.prefix}, {protected.reason}"
            network = ipaddress.ip_network(prefix)
            spans.append((network.version, int(network[0]), int(network[-1]), prefix))
    spans.sort()
    for (version, _, last, one), (other_version, first, _, other) in itertools.pairwise(spans):
        if version == other_version and first <= last:
            return f"{one} and {other} overlap"
    return ""


def said(error: Exception) -> str:
    """What an error says, without its number."""
    return str(getattr(error, "strerror", None) or error)


def _named(action: Action, names: Sequence[str]) -> bool:
    own = {action.key, action.subscriber, *action.prefixes}
    return any(name and (name in own or _has(action, name)) for name in names)


def _has(action: Action, name: str) -> bool:
    """Whether it is an address of the action: a browser of IPv6 comes from any of a /64."""
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return any(address in ipaddress.ip_network(prefix) for prefix in action.prefixes)


def _last_record(path: str) -> dict[str, object]:
    try:
        with open(path, "rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - AUDIT_TAIL))
            record = json.loads(stream.read().splitlines()[-1])
            return record if isinstance(record, dict) else {}
    except (OSError, ValueError, IndexError):
        return {}
