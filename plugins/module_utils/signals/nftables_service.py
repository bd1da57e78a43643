# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Quarantine on a Linux edge: the actions of the ledger in the kernel.

    python3 -m ….signals.nftables_service SETTINGS                             what a timer does: reconcile
    python3 -m ….signals.nftables_service SETTINGS check                       read the settings, and do nothing
    python3 -m ….signals.nftables_service SETTINGS release NAME WHO REASON…    let one subscriber go

The standard library, nft and, where it is there, conntrack.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import quarantine
from .ledger import Enforcer, Ledger, Refused, said
from .limits import Action
from .quarantine import Change, Settings

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SECONDS = 60  # for one run of nft


@dataclass(frozen=True, slots=True)
class Kernel:
    """The table of nftables, by nft."""

    settings: Settings

    def preview(self, actions: Sequence[Action], now: int) -> Change:
        return quarantine.plan(self.settings, quarantine.deadlines(actions, now), table(), now)

    def let_go(self, ended: Sequence[Action], kept: Sequence[Action], now: int, ledger: Ledger) -> None:
        if ended and (text := quarantine.removal(ended, table())):
            load(text)

    def enforce(self, actions: Sequence[Action], now: int, ledger: Ledger, told: Collection[Action]) -> Change:
        change = self.preview(actions, now)
        if change.text:
            load(change.text)
        if shutil.which("conntrack", path=PATH):
            try:
                for prefix in change.added:
                    for command in quarantine.session_commands(prefix):
                        _run(command, "")  # ends with 1 where there was no such session
            except Refused as error:  # the table is in force all the same
                ledger.note(now, "sessions", prefixes=list(change.added), reason=str(error), by="automatic")
        back = [one for one in actions if one not in told and set(one.prefixes) & set(change.added)]
        ledger.log(now, "restore", back, "it was not in the table", "automatic")
        known = {prefix for action in told for prefix in action.prefixes}
        for prefix in change.removed:
            if prefix not in known:
                reason = "the state file does not have it"
                ledger.note(now, "remove", prefixes=[prefix], reason=reason, by="automatic")
        return change


def opened(path: str) -> tuple[Ledger, Kernel]:
    """The books and the kernel under the settings that the role wrote. Raises Refused."""
    try:
        settings = quarantine.read_settings(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        mend = "the role isp.hardening.quarantine writes it"
        raise Refused(f"{path}: {said(error)}. Nothing was changed; {mend}") from None
    return Ledger(settings.state, settings.audit, settings.most, settings.never), Kernel(settings)


def table() -> quarantine.Table | None:
    """What the kernel has. Raises Refused."""
    done = _run(["nft", "-j", "list", "table", "inet", quarantine.TABLE], "")
    if done.returncode:
        if "No such file or directory" in done.stderr:
            return None
        raise Refused(f"nft cannot tell what is in force: {_line(done.stderr)}. Nothing was changed")
    try:
        return quarantine.read_table(done.stdout)
    except ValueError as error:
        raise Refused(f"{error}. Nothing was changed") from None


def load(text: str) -> None:
    """One transaction. Raises Refused, and the kernel is as it was."""
    done = _run(["nft", "-f", "-"], text)
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
        raise Refused(f"{command[0]}: {said(error)}") from None


def _line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "it does not say why")


def serve(
    arguments: Sequence[str], opened: Callable[[str], tuple[Ledger, Enforcer]], tell: Callable[[str], object]
) -> int:
    """0 when what the state file says is in force; 1 with the reason when not; 2 for other arguments."""
    try:
        if len(arguments) == 1:
            ledger, enforcer = opened(arguments[0])
            outcome = ledger.reconcile(enforcer)
        elif len(arguments) == 2 and arguments[1] == "check":
            opened(arguments[0])
            return 0
        elif len(arguments) >= 5 and arguments[1] == "release":
            ledger, enforcer = opened(arguments[0])
            outcome = ledger.release(enforcer, [arguments[2]], arguments[3], " ".join(arguments[4:]))
        else:
            tell("usage: SETTINGS, or SETTINGS check, or SETTINGS release KEY|SUBSCRIBER|ADDRESS WHO REASON")
            return 2
    except Refused as error:
        tell(f"refused: {error}")
        return 1
    for name in outcome.unknown:
        tell(f"{name}: nothing in force has this key, subscriber or address")
    if outcome.change and outcome.change.changed:
        tell(str(outcome.change))
    return 0


if __name__ == "__main__":
    sys.exit(serve(sys.argv[1:], opened, print))
