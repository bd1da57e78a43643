# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Quarantine where no Linux edge is in the way: the actions of the ledger as filters of RADIUS sessions (RFC 5176).

    python3 -m ….signals.coa_service SETTINGS                             what a timer does: reconcile
    python3 -m ….signals.coa_service SETTINGS check                       read the settings, and do nothing
    python3 -m ….signals.coa_service SETTINGS release NAME WHO REASON…    let one subscriber go

An access server has no clock for a filter: the timer asks for the normal one when an action is over. A session whose
access server is silent is asked again by each run, in both directions; one that refuses is told, and left alone.
The standard library alone.
"""

from __future__ import annotations

import ipaddress
import json
import os
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from .coa import (
    ACKNOWLEDGED,
    NO_SESSION,
    PORT,
    REFUSED,
    SILENT,
    WAITS,
    Answer,
    Server,
    Target,
    change_filter,
    disconnect,
)
from .identity import Sources, owner, sessions
from .ledger import Ledger, Outcome, Refused, clock, read_json, read_never, said, write_file
from .limits import Action, Limits, NeverList, Refusal
from .nftables_service import serve
from .records import Case

# ENDED: the session itself, by a Disconnect-Request. RELEASED: it has the normal filter, or is no more.
NOT_ASKED, ENDED, RELEASED = "not asked", "ended", "released"
STATES = (NOT_ASKED, ACKNOWLEDGED, REFUSED, SILENT, ENDED, RELEASED)
LONGEST = 60  # seconds for an answer
AT_ONCE = 16  # sessions that are asked side by side, since each may take its time to be silent


@dataclass(frozen=True, slots=True)
class Settings:
    """What the role tells the service."""

    sessions: str  # path
    quarantine: str  # Filter-Id
    normal: str  # Filter-Id
    disconnect: bool  # end the session where the access server refuses another filter
    servers: Mapping[str, Server] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Held:
    """A session of a case, and what its access server said last."""

    key: str
    target: Target
    state: str = NOT_ASKED
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """The sessions whose state is another one now, or that would be asked."""

    sessions: tuple[Held, ...] = ()

    @property
    def changed(self) -> bool:
        return bool(self.sessions)

    def __str__(self) -> str:
        return "; ".join(f"{one.key}, session {one.target.session_id}: {one.state}" for one in self.sessions)


@dataclass(frozen=True, slots=True)
class Radius:
    """The access servers. `targets` are the sessions of cases as they are known now, by key."""

    settings: Settings
    targets: Mapping[str, Sequence[Target]] = field(default_factory=dict)

    def preview(self, actions: Sequence[Action], now: int) -> Asked:
        keys = {action.key for action in actions}
        # Whether one who was silent says something now is not known before he is asked.
        return Asked(tuple(one for one in self._held(keys) if self._step(one, keys) and one.state != SILENT))

    def let_go(self, ended: Sequence[Action], kept: Sequence[Action], now: int, ledger: Ledger) -> None:
        keys = {action.key for action in kept}
        held = self._kept(self._read(), keys)
        over = [one for one in held if one.key not in keys and _to_undo(one)]
        self._ask(held, dict.fromkeys(over, self.settings.normal), keys, now, ledger)

    def enforce(self, actions: Sequence[Action], now: int, ledger: Ledger, told: Collection[Action]) -> Asked:
        keys = {action.key for action in actions}
        held = self._held(keys)
        steps = {one: self._step(one, keys) for one in held}
        # Should this end before the answer is written down, it was asked all the same, and must be undone one day.
        self._write(replace(one, state=SILENT) if steps[one] and one.state == NOT_ASKED else one for one in held)
        asked = self._ask(held, steps, keys, now, ledger)
        for action in actions:
            if action in told and not any(one.key == action.key for one in held):
                ledger.log(now, "coa", [action], "no session is known, so nobody was asked", "automatic")
        return asked

    def _ask(
        self, held: Sequence[Held], filters: Mapping[Held, str], keys: Collection[str], now: int, ledger: Ledger
    ) -> Asked:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            after = list(pool.map(lambda one: self._carry_out(one, filters.get(one, "")), held))
        changed = [new for old, new in zip(held, after, strict=True) if new != old]
        for one in changed:
            ledger.note(now, "coa", key=one.key, session=asdict(one.target), state=one.state, reason=one.reason)
        # Who was thrown out is remembered as long as his case is in force, whichever session he has by then.
        self._write(
            one for one in after if self._due(one, keys) or _to_undo(one) or (one.state == ENDED and one.key in keys)
        )
        return Asked(tuple(changed))

    def _held(self, keys: Collection[str]) -> list[Held]:
        """The sessions of the file, and those of cases in force that are new."""
        held = self._read()
        # A session whose case is over goes to the new one as it is: two answers would race for it.
        over = {one.target: one for one in held if one.key not in keys and _to_undo(one)}
        # Who was thrown out has the filter by his next login, and must not be thrown out again and again.
        again = {one.key for one in held if one.state == ENDED}
        known = {(one.key, one.target) for one in held}
        for key in sorted(keys):
            for target in self.targets.get(key, ()):
                if (key, target) in known:
                    continue
                if old := over.pop(target, None):
                    held = [replace(one, key=key) if one == old else one for one in held]
                else:
                    given = (ACKNOWLEDGED, "the RADIUS server gives the filter at login") if key in again else ()
                    held.append(Held(key, target, *given))
        return self._kept(held, keys)

    def _kept(self, held: Sequence[Held], keys: Collection[str]) -> list[Held]:
        """Of cases that have the same session, the one in force keeps its filter, and the others have it no more."""
        over = {one.target: one for one in held if _to_undo(one) and not self._due(one, keys)}
        both = {one.target for one in held if self._due(one, keys) and one.target in over}
        found = []
        for one in held:
            if one.target not in both or self._due(one, keys) == _to_undo(one):
                found.append(one)
            elif self._due(one, keys):
                found.append(replace(over[one.target], key=one.key))
        return found

    def _due(self, one: Held, keys: Collection[str]) -> bool:
        """Whether the session is to be in quarantine: its case is in force, and still has it as far as is known."""
        return one.key in keys and one.target in self.targets.get(one.key, [one.target])

    def _step(self, one: Held, keys: Collection[str]) -> str:
        """The Filter-Id to ask for, "" for none."""
        if self._due(one, keys):
            return self.settings.quarantine if one.state in (NOT_ASKED, SILENT) else ""
        return self.settings.normal if _to_undo(one) else ""

    def _carry_out(self, one: Held, filter_id: str) -> Held:
        if not filter_id:
            return one
        server = self.settings.servers.get(one.target.nas_address)
        if not server:
            return replace(one, reason=f"no secret is known for the access server {one.target.nas_address}")
        try:
            answer = change_filter(server, one.target, filter_id)
            if self.settings.disconnect and answer.state == REFUSED and answer.cause != NO_SESSION:
                second = disconnect(server, one.target)
                state = ENDED if second.state == ACKNOWLEDGED else second.state
                answer = replace(second, state=state, reason=f"{answer.reason}; {second.reason}")
        except ValueError as error:
            return replace(one, reason=str(error))
        if filter_id == self.settings.normal:
            return replace(one, state=_undone(one, answer), reason=f"normal filter: {answer.reason}")
        return replace(one, state=answer.state, reason=answer.reason)

    def _read(self) -> list[Held]:
        try:
            data: Any = read_json(Path(self.settings.sessions).read_text(encoding="utf-8"))["held"]
            held = [Held(one["key"], Target(**one["target"]), one["state"], one["reason"]) for one in data]
            for one in held:  # one whose state nobody knows would be forgotten, and keep its filter
                texts = (one.key, one.reason, *asdict(one.target).values())
                if one.state not in STATES or not all(isinstance(text, str) for text in texts):
                    raise ValueError(f"{one.key!r:.40}: {one.state!r:.40}")
            return held
        except FileNotFoundError:
            return []
        except (KeyError, TypeError, ValueError) as error:
            mend = "look which sessions still have the filter, and take the file away"
            raise Refused(f"{self.settings.sessions}: not understood ({error!r:.80}); {mend}") from None

    def _write(self, held: Iterable[Held]) -> None:
        text = json.dumps({"held": [asdict(one) for one in held]}, indent=1, ensure_ascii=False) + "\n"
        write_file(self.settings.sessions, text)


def _to_undo(one: Held) -> bool:
    """Whether the session may have the quarantine's filter: silence is no proof that it has not."""
    return one.state in (ACKNOWLEDGED, SILENT)


def _undone(one: Held, answer: Answer) -> str:
    """The state after the normal filter was asked for. It is over too where there is no such session any more."""
    if answer.state in (ACKNOWLEDGED, ENDED) or answer.cause == NO_SESSION:
        return RELEASED
    return one.state


def run(
    ledger: Ledger,
    radius: Radius,
    cases: Iterable[Case],
    limits: Limits,
    sources: Sources,
    *,
    check: bool = False,
    now: int | None = None,
) -> tuple[Outcome, list[Refusal]]:
    """Decide about the cases whose sessions can be asked about, and ask; the others are refused. Raises Refused."""
    now = clock() if now is None else now
    never = NeverList((*limits.never, *ledger.never))
    targets, able, without = {}, [], []
    for case in cases:
        his = sessions(sources, case.subscriber, now)
        known = [Target(one.user_name, one.session_id, one.nas_address, one.nas_identifier) for one in his]
        found, reason = targets_of(known, radius.settings.servers)
        # The filter is for all that a session has, whatever of it the case names.
        if hit := next(filter(None, (never.hit(prefix) for one in his for prefix in one.prefixes)), None):
            reason = f"a session of the subscriber is on the never-list: {hit.prefix}, {hit.reason}"
        if reason:
            without.append(Refusal(case, reason))
        else:
            targets[case.key] = found
            able.append(case)
    held = ledger.actions()
    owners = {prefix: owner(sources, prefix, now) for action in held for prefix in action.prefixes}
    asker = replace(radius, targets=targets)
    return ledger.apply(asker, able, limits, owners=owners, check=check, now=now), without


def told_sessions(outcomes: Iterable[Outcome]) -> list[dict[str, str]]:
    """The sessions whose state changed, as a result of a module."""
    return [
        {"key": one.key, "session": one.target.session_id, "state": one.state, "why": one.reason}
        for outcome in outcomes
        if isinstance(outcome.change, Asked)
        for one in outcome.change.sessions
    ]


def targets_of(sessions: Iterable[Target], servers: Collection[str]) -> tuple[tuple[Target, ...], str]:
    """The sessions that can be asked for a case; and "", or why none is to be."""
    found = tuple(sessions)
    if not found:
        return (), "the accounting knows no session of the subscriber now"
    for one in found:
        if not one.session_id or not one.user_name:
            return (), "the accounting has no Acct-Session-Id or no User-Name for a session"
        if one.nas_address not in servers:
            return (), f"a session is on {one.nas_address or 'an unnamed access server'}, which has no secret"
    return found, ""


def read_settings(text: str) -> tuple[Ledger, Settings]:
    """The settings file of the service. Raises ValueError, which holds no secret."""
    data: Any = read_json(text)
    try:
        servers = {}
        for one in data["servers"]:
            address = str(ipaddress.ip_address(one["address"]))
            if not isinstance(one["secret"], str) or not one["secret"]:
                raise ValueError(f"no secret for {address}")
            waits = tuple(float(wait) for wait in one.get("waits", WAITS))
            port = int(one.get("port", PORT))
            if not 0 < port < 65536 or not waits or not all(0 < wait <= LONGEST for wait in waits):
                raise ValueError(f"{address}: write a port from 1 to 65535, and waits of up to {LONGEST} seconds")
            servers[address] = Server(address, one["secret"], port, waits)
        names = (str(data["quarantine"]), str(data["normal"]))
        if names[0] == names[1]:
            raise ValueError(f"the filter of quarantine is the normal one, {names[0]}")
        if not isinstance(data["disconnect"], bool):
            raise ValueError("'disconnect' is neither true nor false")
        settings = Settings(str(data["sessions"]), *names, data["disconnect"], servers)
        return Ledger(str(data["state"]), str(data["audit"]), int(data["most"]), read_never(data["never"])), settings
    except (KeyError, TypeError) as error:
        raise ValueError(f"not as the role writes it ({type(error).__name__}: {error!s:.40})") from None


def opened(path: str) -> tuple[Ledger, Radius]:
    """The books and the access servers under the settings that the role wrote. Raises Refused."""
    try:
        ledger, settings = read_settings(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        mend = "the role isp.hardening.quarantine_radius writes it"
        raise Refused(f"{path}: {said(error)}. Nothing was changed; {mend}") from None
    return ledger, Radius(settings)


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(serve(sys.argv[1:], opened, print))
