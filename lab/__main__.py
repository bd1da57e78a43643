# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""python -m lab up | down | judge: the routers of inventories/lab, in one background process."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import ruamel.yaml

from . import judge, routers
from .routers.base import Router

CONFIGS = Path(__file__).parent / "configs"
INVENTORY = Path(__file__).parents[1] / "inventories" / "lab"
STATE = Path(__file__).parents[1] / ".cache" / "lab"  # inventories/lab looks for known_hosts there
_START_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Host:
    """A router of the inventory. `unavailable`: why it cannot run here, or ''."""

    name: str
    network_os: str
    port: int
    unavailable: str


class Problem(Exception):
    """What is said to the user, on one line."""


def main(arguments: Sequence[str]) -> int:
    """Exit code 0; 1 with one line on standard error."""
    parser = argparse.ArgumentParser(prog="python -m lab", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("up", "start the routers, and wait until they answer"),
        ("down", "end them"),
        ("judge", "what a router does to packets: lines of JSON come in, as ask() tells, and verdicts go out"),
        ("run", "what `up` starts"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument(
            "--state", type=Path, default=STATE, help="directory for pid, known_hosts, log (%(default)s)"
        )
        if name in ("up", "run"):
            command.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these routers")
        if name == "judge":
            command.add_argument("router")
    options = parser.parse_args(arguments)
    try:
        if options.command == "up":
            print(up(options.state, options.only))
        elif options.command == "down":
            down(options.state)
        elif options.command == "judge":
            print("\n".join(ask(options.state, options.router, sys.stdin.read().splitlines())))
        else:
            asyncio.run(run(options.state, chosen(options.only)))
    except Problem as problem:
        print(f"lab: {problem}", file=sys.stderr)
        return 1
    return 0


def hosts() -> list[Host]:
    """The routers of inventories/lab/routers, in the order of their ports."""
    yaml = ruamel.yaml.YAML(typ="safe")
    found = []
    for file in (INVENTORY / "routers").glob("*.yml"):
        ((name, values),) = next(iter(yaml.load(file).values()))["hosts"].items()
        network_os = values["ansible_network_os"]
        try:
            reason = routers.kind(network_os).unavailable()
        except ValueError as error:
            reason = str(error)
        found.append(Host(name, network_os, values["ansible_port"], reason))
    return sorted(found, key=lambda host: host.port)


def chosen(only: Sequence[str]) -> list[Host]:
    """Those named, or all that can run here. Raises Problem for one that is not there or cannot."""
    known = {host.name: host for host in hosts()}
    for name in only:
        if name not in known:
            raise Problem(f"there is no router '{name}', only {', '.join(known)}")
        if known[name].unavailable:
            raise Problem(f"{name} cannot run here: {known[name].unavailable}")
    return [known[name] for name in only] or [host for host in known.values() if not host.unavailable]


def up(state: Path, only: Sequence[str]) -> str:
    """Start them in the background; what runs now and what was left out, for the user."""
    starting = chosen(only)
    if _pid(state):
        raise Problem(f"it runs already, by {state / 'pid'}: python -m lab down --state {state}")
    state.mkdir(parents=True, exist_ok=True)
    (state / "ready").unlink(missing_ok=True)
    names = [host.name for host in starting]
    command = [sys.executable, "-m", "lab", "run", "--state", str(state.absolute()), "--only", *names]
    with (state / "log").open("w") as log:
        process = subprocess.Popen(
            command,
            cwd=Path(__file__).parents[1],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    deadline = time.monotonic() + _START_SECONDS
    while not (state / "ready").exists():
        if process.poll() is not None or time.monotonic() > deadline:
            process.terminate()
            said = (state / "log").read_text().strip().splitlines()
            raise Problem(f"the routers did not start: {said[-1] if said else 'no reason given'} (see {state / 'log'})")
        time.sleep(0.02)
    lines = [f"{host.name} answers at 127.0.0.1:{host.port} ({host.network_os})" for host in starting]
    if not only:
        lines += [f"{host.name} was left out: {host.unavailable}" for host in hosts() if host.unavailable]
    return "\n".join(lines)


def down(state: Path) -> None:
    """End what `up` started; nothing happens where nothing runs."""
    pid = _pid(state)
    if pid:
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + _START_SECONDS
        while _pid(state):
            if time.monotonic() > deadline:
                raise Problem(f"process {pid} does not end")
            time.sleep(0.02)
    for name in ("pid", "ready", "judge"):
        (state / name).unlink(missing_ok=True)


def _pid(state: Path) -> int:
    """The process that holds the state directory, 0 when there is none."""
    try:
        pid = int((state / "pid").read_text())
        os.kill(pid, 0)
    except (OSError, ValueError):
        return 0
    try:
        # A process that has ended and was not waited for is none; another one may have got its number meanwhile.
        status = Path(f"/proc/{pid}/stat").read_text()
        alive = ") Z" not in status and b"lab" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        alive = not Path("/proc/self").exists()
    return pid if alive else 0


async def run(state: Path, starting: Sequence[Host]) -> None:
    """Serve until SIGTERM or SIGINT."""
    from .server import LOOPBACK, Access, Lab  # asyncssh takes a third of a second to import: only who serves needs it

    devices = [routers.kind(host.network_os).load(host.name, CONFIGS) for host in starting]
    lab = Lab(devices)
    # Clients hang up without a word all the time; the log is for what is wrong with the lab.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    (state / "pid").write_text(f"{os.getpid()}\n")
    try:
        await lab.open(Access(public_keys=_public_key(state)), {host.name: host.port for host in starting}, state)
    except OSError as error:
        raise Problem(f"{error}") from error
    (state / "known_hosts").write_text(lab.known_hosts)
    questions = await asyncio.start_server(_Answers(lab.routers).answer, LOOPBACK, 0)
    port = questions.sockets[0].getsockname()[1]
    (state / "judge").write_text(f"{port}\n")
    (state / "ready").touch()
    await stop.wait()
    questions.close()
    await lab.close()
    (state / "pid").unlink(missing_ok=True)


def _public_key(state: Path) -> str:
    """The key that may log in beside the password, where the user has put one."""
    file = state / "authorized_keys"
    return file.read_text() if file.exists() else ""


class _Answers:
    """`lab judge` asks here, one line of JSON for a packet."""

    def __init__(self, devices: Mapping[str, Router]) -> None:
        self._devices = devices

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write((json.dumps(self._one(json.loads(line))) + "\n").encode())
            await writer.drain()
        writer.close()

    def _one(self, question: object) -> dict[str, str]:
        if not isinstance(question, dict) or not isinstance(question.get("packet"), dict):
            return {"problem": "a question is a JSON object with attachment, direction and packet, itself an object"}
        name, packet = str(question["router"]), question["packet"]
        if name not in self._devices:
            return {"problem": f"there is no router '{name}' up, only {', '.join(self._devices)}"}
        try:
            verdict = judge.judge(
                self._devices[name], str(question.get("attachment")), str(question.get("direction")), packet
            )
        except (ValueError, KeyError) as error:
            return {"problem": str(error.args[0])}
        return {"verdict": verdict}


def ask(state: Path, router: str, questions: Sequence[str]) -> list[str]:
    """permit or deny for each question, from the routers that run, by their own configuration.

    A question is JSON: attachment, direction (up or down), and packet, with the fields that lab/judge.py names.
    """
    try:
        asked = [json.dumps({**json.loads(question), "router": router}) for question in questions]
    except (ValueError, TypeError) as error:
        raise Problem(f"a question is no JSON object: {error}") from error
    try:
        port = int((state / "judge").read_text())
        with socket.create_connection(("127.0.0.1", port)) as connection:
            answers = connection.makefile("rw")
            verdicts = []
            for line in asked:
                answers.write(line + "\n")
                answers.flush()
                verdicts.append(json.loads(answers.readline()))
    except (OSError, ValueError) as error:
        raise Problem(f"no routers run in {state} ({error}): python -m lab up --state {state}") from error
    for number, verdict in enumerate(verdicts, 1):
        if "problem" in verdict:
            raise Problem(f"question {number}: {verdict['problem']}")
    return [verdict["verdict"] for verdict in verdicts]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
