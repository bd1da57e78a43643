# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""python -m lab.mail images | up | down: the mail hosts of inventories/lab, and the world around them."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from .. import images
from ..engine import Problem, run, settle
from ..netns import tool
from . import keys, network, place
from .hosts import HOSTS, Host, chosen, made_name

STATE = Path(__file__).parents[2] / ".cache" / "lab-mail"  # inventories/lab looks for ssh_config there
TOOLS = ("podman", "ip", "nsenter", "ssh", "ssh-keygen", "openssl")
_START_SECONDS = 120.0


def main(arguments: Sequence[str]) -> int:
    """Exit code 0; 1 with one line on standard error."""
    parser = argparse.ArgumentParser(prog="python -m lab.mail", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("images", "make what is not there of the images, and import them"),
        ("up", "start the hosts, and wait until they answer"),
        ("down", "remove them"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        if name == "images":
            continue
        command.add_argument("--state", type=Path, default=STATE, help="directory for keys, ssh_config (%(default)s)")
        if name == "up":
            command.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these hosts")
            command.add_argument("--bare", action="store_true", help="mail hosts with nothing of mail installed")
            command.add_argument("--planted", action="store_true", help="mail hosts that somebody has configured badly")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that `up` takes away what it has made
    try:
        if options.command == "images":
            print("\n".join(_obtain(tuple(images.KINDS), images.RELEASES)))
        elif options.command == "up":
            print(up(options.state.resolve(), options.only, "bare" if options.bare else "mail", options.planted))
        else:
            down(options.state.resolve())
    except Problem as problem:
        print(f"lab.mail: {problem}", file=sys.stderr)
        return 1
    return 0


def unavailable() -> str:
    """Why the mail hosts cannot run on this machine, or ''."""
    if os.geteuid() != 0:
        return "containers with networks of their own need root"
    if missing := [name for name in TOOLS if not tool(name)]:
        return f"no {', '.join(missing)} on this machine (Debian: apt install podman iproute2 openssh-client openssl)"
    if not tool("mmdebstrap") and (absent := images.missing()):
        return f"no mmdebstrap on this machine (Debian: apt install mmdebstrap) to make the image {absent[0]} with"
    return ""


def up(state: Path, only: list[str], kind: str, planted: bool = False) -> str:
    """Start them; what answers now, for the user. Leaves nothing when it fails."""
    begin = time.monotonic()
    try:
        hosts = chosen(only)
    except ValueError as error:
        raise Problem(str(error)) from error
    if reason := unavailable():
        raise Problem(reason)
    if (state / "ssh_config").exists():
        raise Problem(f"it runs already, by {state / 'ssh_config'}: python -m lab.mail down --state {state}")
    kinds = tuple(sorted({_kind(host, kind) for host in hosts}))
    done = _obtain(kinds, tuple(sorted({host.release for host in hosts})))
    made = [line for line in done if not line.endswith("there already")]
    settle(images.name(kinds[0], hosts[0].release))
    imported = time.monotonic()
    try:
        keys.make(state, hosts)
        network.lay(state, hosts)
        with ThreadPoolExecutor(max_workers=3) as pool:
            list(pool.map(partial(_start, state, kind, planted), hosts))
            answers = list(pool.map(lambda host: _answer(state, host), hosts))
    except BaseException:
        down(state)
        raise
    took = f"up in {time.monotonic() - imported:.1f} s"
    if made:
        took += f", after {imported - begin:.0f} s for images"
    return "\n".join([*made, *answers, took])


def down(state: Path) -> None:
    """Remove what `up` made; nothing happens where nothing is."""
    root = os.geteuid() == 0
    if root and tool("podman"):
        names = set(run("podman", "ps", "--all", "--format", "{{.Names}}").split())
        mine = [made_name(state, host.name) for host in HOSTS if made_name(state, host.name) in names]
        if mine:
            run("podman", "rm", "--force", "--time=0", *mine)
    if root and tool("ip"):
        network.remove(state, list(HOSTS))
    for name in keys.MADE:
        with contextlib.suppress(FileNotFoundError):
            path = state / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    with contextlib.suppress(OSError):
        state.rmdir()  # unless there is something else in it


def _obtain(kinds: tuple[str, ...], releases: tuple[str, ...]) -> list[str]:
    if absent := images.missing(kinds, releases):
        print(f"making {', '.join(absent)}, once: this takes minutes", file=sys.stderr)
    return images.obtain(kinds, releases)


def _kind(host: Host, kind: str) -> str:
    """The image of a host: who speaks to the mail hosts is always whole."""
    return kind if host.side else host.image


def _start(state: Path, kind: str, planted: bool, host: Host) -> None:
    name = made_name(state, host.name)
    # Its own files for resolv.conf and hosts: a file that podman mounts there cannot be replaced by a role.
    run(
        "podman",
        "create",
        f"--name={name}",
        f"--hostname={host.domain_name}",
        f"--network=ns:/run/netns/{name}",
        "--dns=none",
        "--no-hosts",
        "--systemd=always",
        # Routers and gateways change routes and filters of their own network; FRR and BIRD ask for more than they use.
        *(("--cap-add=NET_ADMIN,NET_BROADCAST,NET_RAW,SYS_ADMIN",) if host.image == "signals" else ()),
        images.name(_kind(host, kind), host.release),
        "/sbin/init",
    )
    place.write(state, host, Path(run("podman", "mount", name).strip()), planted)
    run("podman", "umount", name)
    run("podman", "start", name)


def _answer(state: Path, host: Host) -> str:
    """Wait until everything that starts with the host has started, asked over ssh as Ansible would."""
    wait = f"timeout {_START_SECONDS:.0f} systemctl is-system-running --wait"
    question = f"{wait}; systemctl --failed --plain --no-legend"
    ask = [tool("ssh"), "-F", str(state / "ssh_config"), "-o", "BatchMode=yes", host.name, question]
    deadline = time.monotonic() + _START_SECONDS
    while True:
        answer = subprocess.run(ask, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        said = (answer.stdout.strip() or answer.stderr.strip()).splitlines()
        if answer.returncode == 0 and said and said[0] == "running":
            return f"{host.name} answers at {host.addresses[0][0]} (Debian {host.release})"
        if (said and said[0] == "degraded") or time.monotonic() > deadline:
            raise Problem(f"{host.name} did not start: {'; '.join(said) or 'no reason given'}")
        time.sleep(0.2)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
