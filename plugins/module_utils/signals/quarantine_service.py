# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Quarantine on a Linux edge: the state file, the kernel and the audit log, brought together under one lock.

    python3 -m ….signals.quarantine_service SETTINGS                             what a timer does: reconcile
    python3 -m ….signals.quarantine_service SETTINGS check                       read the settings, and do nothing
    python3 -m ….signals.quarantine_service SETTINGS release NAME WHO REASON…    let one subscriber go

Either all of a change is in force, in the state file and in the audit log, or none of it is. The standard library, nft
and, where it is there, conntrack.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from . import quarantine
from .limits import DAY, Action, Decision, Limits, clock_fault, decide
from .quarantine import Change, Settings, State
from .records import Case, Owner

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SECONDS = 60  # for one run of nft
AUDIT_TAIL = 65_536  # octets, more than one record has


class Refused(Exception):
    """Nothing was changed. Says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run did, or would do: the kernel's change, and the actions of the state before and after."""

    change: Change
    before: tuple[Action, ...]
    after: tuple[Action, ...]
    decision: Decision | None = None
    unknown: tuple[str, ...] = ()  # names that nothing in force has

    @property
    def changed(self) -> bool:
        return bool(self.change.text) or self.before != self.after


def clock() -> int:
    """Milliseconds since 1970 UTC."""
    return time.time_ns() // 1_000_000


def reconcile(path: str, now: int | None = None) -> Outcome:
    """Make the kernel's table what the state file says. Raises Refused."""
    now = clock() if now is None else now
    with _locked(path) as (settings, state):
        before = state.actions
        ended = [action for action in state.actions if action.until <= now]
        if reason := quarantine.refusal(settings, state, now):
            _refuse(settings, reason, now)
        if ended:
            state = replace(state, actions=tuple(action for action in state.actions if action not in ended))
            _write(settings.state, quarantine.write_state(state))
            _audit(settings, now, "expire", ended, "its time is over", "automatic")
        change = _put_in_force(settings, state, now)
        back = [action for action in state.actions if set(action.prefixes) & set(change.added)]
        _audit(settings, now, "restore", back, "it was not in the table", "automatic")
        due = {prefix for action in (*back, *ended) for prefix in action.prefixes}
        for prefix in (prefix for prefix in change.removed if prefix not in due):
            _note(settings, now, "remove", prefixes=[prefix], reason="the state file does not have it", by="automatic")
        return Outcome(change, before, state.actions)


def apply(
    path: str,
    cases: Iterable[Case],
    limits: Limits,
    *,
    owners: Mapping[str, Owner] | None = None,
    check: bool = False,
    now: int | None = None,
) -> Outcome:
    """Decide about the cases and do it, unless `check` or a dry run says to tell only. Raises Refused."""
    now = clock() if now is None else now
    with _locked(path) as (settings, state):
        limits = replace(limits, enabled=limits.enabled and not state.killed)
        decision = decide(cases, state.actions, limits, now, last=state.last, owners=owners, released=state.released)
        if limits.enabled and clock_fault(state.actions, now, state.last):
            if not check and not decision.dry_run:
                _refuse_once(settings, decision.frozen, now)
            return Outcome(Change(), state.actions, state.actions, decision)
        released = {key: until for key, until in state.released.items() if until > now}
        wanted = State((*decision.keep, *decision.add), released, now if limits.enabled else 0, state.killed)
        if reason := quarantine.refusal(settings, wanted, now):
            _refuse(settings, reason, now, log=not check)
        if check or decision.dry_run:
            change = quarantine.plan(settings, quarantine.deadlines(wanted.actions, now), _table(), now)
            return Outcome(change, state.actions, wanted.actions, decision)
        change = _change_state(settings, state, wanted, now)
        for one in decision.release:
            _audit(settings, now, "release", [one.action], one.reason, "automatic")
        for action in decision.add:
            _audit(settings, now, "add", [action], action.reason, action.by)
        if decision.frozen:
            _refuse_once(settings, decision.frozen, now)
        return Outcome(change, state.actions, wanted.actions, decision)


def release(
    path: str, names: Sequence[str], by: str, reason: str, *, check: bool = False, now: int | None = None
) -> Outcome:
    """Let go of what has one of the names: a key, a subscriber or an address. Its case is left alone for a day.

    Raises Refused.
    """
    now = clock() if now is None else now
    with _locked(path) as (settings, state):
        ended = [action for action in state.actions if _named(action, names)]
        unknown = [name for name in names if not any(_named(action, [name]) for action in ended)]
        kept = tuple(action for action in state.actions if action not in ended)
        released = dict(state.released) | {action.key: now + DAY for action in ended}
        wanted = State(kept, released, state.last, state.killed)
        if check:
            change = quarantine.plan(settings, quarantine.deadlines(kept, now), _table(), now)
            return Outcome(change, state.actions, kept, unknown=tuple(unknown))
        change = _change_state(settings, state, wanted, now)
        _audit(settings, now, "release", ended, reason, by)
        return Outcome(change, state.actions, kept, unknown=tuple(unknown))


def _named(action: Action, names: Sequence[str]) -> bool:
    own = {action.key, action.subscriber, *action.prefixes, *(prefix.split("/")[0] for prefix in action.prefixes)}
    return any(name and name in own for name in names)


def read_settings(path: str) -> Settings:
    """The settings that the role wrote. Raises Refused."""
    try:
        return quarantine.read_settings(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        said = _said(error)
        raise Refused(f"{path}: {said}. Nothing was changed; the role isp.hardening.quarantine writes it") from None


@contextlib.contextmanager
def _locked(path: str) -> Iterator[tuple[Settings, State]]:
    """The settings and the state, which nobody else changes meanwhile."""
    settings = read_settings(path)
    try:
        Path(settings.state).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(f"{settings.state}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Refused(f"{settings.state}: {_said(error)}. Nothing was changed") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            text = Path(settings.state).read_text(encoding="utf-8")
        except FileNotFoundError:
            text = quarantine.write_state(State())
        try:
            state = quarantine.read_state(text)
        except ValueError as error:
            mend = "mend it, take it away to begin anew, or empty it to release everybody"
            raise Refused(f"{settings.state}: {error}. Nothing was changed; {mend}") from None
        yield settings, state
    except OSError as error:
        raise Refused(f"{settings.state}: {_said(error)}. Look at it before the next run") from None
    finally:
        os.close(lock)


def _change_state(settings: Settings, old: State, new: State, now: int) -> Change:
    """State file and kernel to the new state; back to the old one where the kernel refuses."""
    if not old.killed:  # that file is the operator's, until he takes it away
        _write(settings.state, quarantine.write_state(new))
    try:
        return _put_in_force(settings, new, now)
    except Refused as error:
        _write(settings.state, quarantine.write_state(old))
        _refuse(settings, str(error), now)
        raise


def _put_in_force(settings: Settings, state: State, now: int) -> Change:
    change = quarantine.plan(settings, quarantine.deadlines(state.actions, now), _table(), now)
    if change.text:
        _nft(["-f", "-"], change.text)
    if shutil.which("conntrack", path=PATH):
        for prefix in change.added:
            for command in quarantine.session_commands(prefix):
                _run(command, "")  # 1 where there was no such session
    return change


def _table() -> quarantine.Table | None:
    done = _run(["nft", "-j", "list", "table", "inet", quarantine.TABLE], "")
    if done.returncode:
        if "No such file or directory" in done.stderr:
            return None
        raise Refused(f"nft cannot tell what is in force: {_line(done.stderr)}. Nothing was changed")
    try:
        return quarantine.read_table(done.stdout)
    except ValueError as error:
        raise Refused(f"{error}. Nothing was changed") from None


def _nft(options: list[str], text: str) -> None:
    done = _run(["nft", *options], text)
    if done.returncode:
        full = "a set is full: " if "Too many open files" in done.stderr else ""  # ENFILE, which is about no file here
        raise Refused(f"the kernel refused the whole batch, and the sets are as they were: {full}{_line(done.stderr)}")


def _run(command: list[str], text: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": PATH, "LC_ALL": "C.UTF-8"}
    try:
        return subprocess.run(
            command, input=text, capture_output=True, text=True, check=False, timeout=SECONDS, env=environment
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Refused(f"{command[0]}: {_said(error)}. Nothing was changed") from None


def _write(path: str, text: str) -> None:
    """The whole file or the old one, also where the power fails."""
    handle, beside = tempfile.mkstemp(dir=Path(path).parent, prefix=".state-")
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


def _refuse(settings: Settings, reason: str, now: int, log: bool = True) -> None:
    if log:
        _refuse_once(settings, reason, now)
    raise Refused(f"{reason}. The sets are as they were" if "as they were" not in reason else reason)


def _refuse_once(settings: Settings, reason: str, now: int) -> None:
    """A timer that is refused every minute says so once, until something else happens."""
    last = _last_record(settings.audit)
    if (last.get("what"), last.get("reason")) != ("refuse", reason):
        _note(settings, now, "refuse", reason=reason, by="automatic")


def _audit(settings: Settings, now: int, what: str, actions: Iterable[Action], reason: str, by: str) -> None:
    for action in actions:
        _note(
            settings,
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


def _note(settings: Settings, now: int, what: str, **fields: object) -> None:
    """One line of JSON at the end of the log, on the disk before anything goes on."""
    line = json.dumps({"time": now, "what": what, **fields}, ensure_ascii=False) + "\n"
    Path(settings.audit).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle = os.open(settings.audit, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        os.write(handle, line.encode())
        os.fsync(handle)
    finally:
        os.close(handle)


def _last_record(path: str) -> dict[str, object]:
    try:
        with open(path, "rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - AUDIT_TAIL))
            record = json.loads(stream.read().splitlines()[-1])
            return record if isinstance(record, dict) else {}
    except (OSError, ValueError, IndexError):
        return {}


def _said(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


def _line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "it does not say why")


def main(arguments: Sequence[str], tell: Callable[[str], object] = print) -> int:
    """0 when the kernel has what the state file says; 1 with the reason when not; 2 for other arguments."""
    try:
        if len(arguments) == 1:
            outcome = reconcile(arguments[0])
        elif len(arguments) == 2 and arguments[1] == "check":
            read_settings(arguments[0])
            return 0
        elif len(arguments) >= 5 and arguments[1] == "release":
            outcome = release(arguments[0], [arguments[2]], arguments[3], " ".join(arguments[4:]))
        else:
            tell("usage: SETTINGS, or SETTINGS check, or SETTINGS release KEY|SUBSCRIBER|ADDRESS WHO REASON")
            return 2
    except Refused as error:
        tell(f"refused: {error}")
        return 1
    for name in outcome.unknown:
        tell(f"{name}: nothing in force has this key, subscriber or address")
    change = outcome.change
    if change.text:
        tell(f"{len(change.added)} added, {len(change.renewed)} renewed, {len(change.removed)} removed")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
