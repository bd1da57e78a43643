# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The process that ExaBGP runs: it holds what is announced against the desired state, and needs nobody for expiry.

    python3 -m ….signals.exabgp_service /etc/isp-hardening/blackhole.json          as ExaBGP's `process … { run … }`
    python3 -m ….signals.exabgp_service --check /etc/isp-hardening/blackhole.json  only reads the configuration

Commands go to standard output, ExaBGP answers each with `done` or `error` on standard input, where it also tells as
JSON which sessions are up (ExaBGP wiki, "API Overview" and "Text API Reference"; the source of 4.2.21). What there is
to tell a person goes to standard error, which ExaBGP hands through to the journal, and as JSON to the status file.

What fails, fails open:
- ExaBGP starts a process that died again, and keeps its routes meanwhile; so the first command is `clear adj-rib out`.
  After five deaths in a minute ExaBGP ends, and the routes go with its sessions.
- A process that hangs no longer feeds systemd's watchdog (sd_notify(3)), and takes ExaBGP with it.
- ExaBGP remembers what it announced, and says it again to a router that comes back: sessions are nothing to this.
- Both clocks count: a route goes when its time is over by the clock of the day, or by the one that cannot be set.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .blackhole import FLOW, Guards, Plan, StateError, commands, line_fault, plan, read_state

TICK = 1.0  # seconds between two looks at the state file
PATIENCE = 30.0  # seconds that ExaBGP may take for an answer
_CLEAR = "clear adj-rib out"
_KEYS = ("state", "status", "own", "never", "cap", "next_hop_ipv4", "next_hop_ipv6", "flowspec")


@dataclass(frozen=True)
class Config:
    """What the role writes for the process. `state` is read, `status` is written."""

    state: str
    status: str
    guards: Guards


def read_config(text: str) -> Config:
    """The configuration file's text. Raises StateError with the key that is not as it must be."""
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise StateError(f"line {error.lineno}: is no JSON ({error.msg})") from error
    if not isinstance(data, dict) or set(data) != set(_KEYS):
        raise StateError(f"is no mapping with exactly the keys {', '.join(_KEYS)}")
    for key in ("state", "status", "next_hop_ipv4", "next_hop_ipv6"):
        if not isinstance(data[key], str):
            raise StateError(f"{key} is no text")
    for key in ("own", "flowspec"):
        if not isinstance(data[key], list) or not all(isinstance(one, str) for one in data[key]):
            raise StateError(f"{key} is no list of texts")
    if not isinstance(data["never"], list):
        raise StateError("never is no list")
    never = {}
    for one in data["never"]:
        if not isinstance(one, dict) or not isinstance(one.get("prefix"), str):
            raise StateError("never: each entry is a mapping with a prefix and a reason")
        never[one["prefix"]] = str(one.get("reason", ""))
    next_hops = {4: data["next_hop_ipv4"], 6: data["next_hop_ipv6"]}
    return Config(data["state"], data["status"], Guards(data["own"], never, data["cap"], next_hops, data["flowspec"]))


@dataclass
class Trigger:
    """The state between two looks. The clocks and the way out are arguments, so that tests can turn them."""

    config: Config
    send: Callable[[str], None]
    tell: Callable[[str], None]
    now: Callable[[], float] = time.time
    steady: Callable[[], float] = time.monotonic
    announced: dict[str, int] = field(default_factory=dict)  # each with its last time
    deadlines: dict[tuple[str, int], float] = field(default_factory=dict)  # the same by the clock that cannot be set
    waiting: deque[tuple[str, str, float]] = field(default_factory=deque)  # commands without an answer, what for, since
    sessions: dict[str, str] = field(default_factory=dict)  # what was told of them since this process began
    rejected: dict[str, str] = field(default_factory=dict)  # what ExaBGP answered with `error`, until it takes it
    alarm: str = ""
    refused: tuple[tuple[str, str], ...] = ()

    def start(self) -> None:
        """Forget what an earlier process had announced."""
        self._command("", _CLEAR)

    def look(self) -> None:
        """Read the state file, and bring ExaBGP to what it says."""
        now, steady = int(self.now() * 1000), self.steady()
        try:
            state, fault = read_state(Path(self.config.state).read_text(encoding="utf-8")), ""
        except StateError as error:
            state, fault = None, f"{self.config.state}: {error}"
        except (OSError, UnicodeDecodeError) as error:
            state, fault = None, f"{self.config.state}: cannot be read ({getattr(error, 'strerror', None) or error})"
        found = plan(state, fault, self.announced, self.config.guards, now)
        for timed in found.wanted.items():
            self.deadlines.setdefault(timed, steady + (timed[1] - now) / 1000)
        wanted = dict(timed for timed in found.wanted.items() if self.deadlines[timed] > steady)
        if state is not None:  # one that is over stays so as long as the file has it, whatever the clock says
            listed = {(way + one.route, one.until) for one in state.routes for way in ("", FLOW)}
            self.deadlines = {timed: deadline for timed, deadline in self.deadlines.items() if timed in listed}
        for name, line in commands(self.announced, wanted, self.config.guards):
            if reason := line_fault(line, self.config.guards):
                found = replace(found, alarm=f"not sent: {reason}")
                wanted.pop(name, None)
            else:
                self._command(name, line)
        self.announced = wanted
        self._say(found)

    def hear(self, line: str) -> None:
        """An answer of ExaBGP, or its word about a session."""
        if line in ("done", "error"):
            if not self.waiting:
                return
            name, command, _ = self.waiting.popleft()
            if line == "done":
                self.rejected.pop(name, None)
            elif name:
                self._undo(name, command)
        elif line.startswith("{"):
            with contextlib.suppress(ValueError, KeyError, TypeError):  # other messages are not asked for
                neighbor = json.loads(line)["neighbor"]
                address, word = str(neighbor["address"]["peer"]), str(neighbor["state"])
                if word in ("up", "down") and self.sessions.get(address) != word:
                    self.sessions[address] = word
                    self.tell(f"session with {address}: {word}")

    def alive(self) -> bool:
        """Whether ExaBGP answers."""
        return not self.waiting or self.steady() - self.waiting[0][2] < PATIENCE

    def status(self) -> dict[str, Any]:
        """What is announced, refused and wrong, as plain data."""
        silent = [] if self.alive() else [f"ExaBGP has not answered for {PATIENCE:.0f} s"]
        rejected = [f"ExaBGP refuses: {command}" for command in self.rejected.values()]
        return {
            "announced": dict(sorted(self.announced.items())),
            "refused": dict(self.refused),
            "alarm": "; ".join(filter(None, [self.alarm, *silent, *rejected])),
            "unanswered": len(self.waiting),
            "sessions": dict(sorted(self.sessions.items())),
        }

    def _command(self, name: str, line: str) -> None:
        self.waiting.append((name, line, self.steady()))
        self.send(line)
        if name not in self.rejected:
            self.tell(line)

    def _undo(self, name: str, command: str) -> None:
        """ExaBGP did not take it: the next look says it again."""
        if name not in self.rejected:
            self.tell(f"ALARM: ExaBGP refuses: {command}")
        self.rejected[name] = command
        if self.announced.pop(name, None) is None:
            self.announced[name] = 0

    def _say(self, found: Plan) -> None:
        """Each alarm and refusal once, as long as it stays the same."""
        if found.alarm != self.alarm:
            self.tell(f"ALARM: {found.alarm}" if found.alarm else "the alarm is over")
        for key, reason in sorted(set(found.refused) - set(self.refused)):
            self.tell(f"refused {key}: {reason}")
        self.alarm, self.refused = found.alarm, found.refused


def write_status(path: str, status: Mapping[str, Any]) -> None:
    """Replace the status file. A disk that is full is no reason to stop."""
    with contextlib.suppress(OSError):
        handle, new = tempfile.mkstemp(dir=os.path.dirname(path) or ".", prefix=".status.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(status, file, indent=1)
            os.chmod(new, 0o640)
            os.replace(new, path)
        except OSError:
            os.unlink(new)


def feed_watchdog() -> None:
    """Tell systemd that all is well (sd_notify(3)), where it has asked."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        name = "\0" + address[1:] if address.startswith("@") else address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.sendto(b"WATCHDOG=1", name)


def serve(config: Config) -> int:
    """Until ExaBGP closes the line."""

    def send(line: str) -> None:
        os.write(sys.stdout.fileno(), f"{line}\n".encode())

    def tell(line: str) -> None:
        print(f"blackhole: {line}", file=sys.stderr, flush=True)

    trigger = Trigger(config, send, tell)
    trigger.start()
    source, rest, written = sys.stdin.fileno(), b"", None
    due = time.monotonic()
    while True:
        if time.monotonic() >= due:
            due = time.monotonic() + TICK
            trigger.look()
            if trigger.alive():
                feed_watchdog()
        if (status := trigger.status()) != written:
            write_status(config.status, status)
            written = status
        if select.select([source], [], [], max(0.0, due - time.monotonic()))[0]:
            data = os.read(source, 65536)
            if not data:
                return 0
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                trigger.hear(line.decode("utf-8", "replace").strip())


def main(arguments: Sequence[str]) -> int:
    """0 when ExaBGP ended or the configuration is right, 1 with a line where it is not, 2 for usage."""
    path = arguments[-1] if arguments else ""
    if arguments[:-1] not in ([], ["--check"]) or not path:
        print("usage: exabgp_service [--check] /etc/isp-hardening/blackhole.json", file=sys.stderr)
        return 2
    try:
        config = read_config(Path(path).read_text(encoding="utf-8"))
    except (StateError, OSError, UnicodeDecodeError) as error:
        print(f"{path}: {error}", file=sys.stderr)
        return 1
    if arguments[0] == "--check":
        return 0
    try:
        return serve(config)
    except (BrokenPipeError, KeyboardInterrupt):
        return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
