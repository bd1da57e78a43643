# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""SSH for the lab's routers: one event loop for all of them, and the terminal that each session types at."""

from __future__ import annotations

import asyncio
import re
import socket
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncssh

from .routers.base import Cut, Hang, Router, Session

LOOPBACK = "127.0.0.1"
STROKE = re.compile(r"[\r\n\x03\x08\x15\x1a\x7f]")
ERASE = "\b \b"


@dataclass(frozen=True, slots=True)
class Access:
    """Who may log in: a user, by password or by a public key (lines as in authorized_keys)."""

    user: str = "audit"
    password: str = "lab-only"
    public_keys: str = ""


class Terminal(asyncssh.SSHServerSession[str]):
    """Between an SSH channel and a session: echo, line ends, control keys, passwords, flow control."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._line = ""  # typed and echoed, not yet entered
        self._waiting = ""  # typed while a long output was still on its way
        self._after_return = False
        self._stuck = False
        self._output: Iterator[str] | None = None
        self._writable = True
        self._unsent: list[str] = []

    def connection_made(self, chan: asyncssh.SSHServerChannel[str]) -> None:
        self._channel = chan

    def connection_lost(self, exc: Exception | None) -> None:
        self._output = None
        self._session.hang_up()

    def pty_requested(self, term_type: str, term_size: object, term_modes: object) -> bool:
        return True

    def shell_requested(self) -> bool:
        return True

    def session_started(self) -> None:
        self._write(self._session.banner + self._session.prompt)
        self._send()

    def data_received(self, data: str, datatype: object) -> None:
        self._waiting += data
        self._work()

    def eof_received(self) -> bool:
        self._channel.exit(0)
        return False

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self._work()

    def _write(self, text: str) -> None:
        self._unsent.append(text)

    def _send(self) -> None:
        """All that was written, in one packet: echo, reply and prompt belong together, and packets cost."""
        text = "".join(self._unsent)
        self._unsent.clear()
        if text:
            self._channel.write(text.replace("\n", "\r\n"))

    def _work(self) -> None:
        """Print what is to be printed, as far as the client takes it, then take what was typed."""
        while not self._stuck:
            if self._output is not None:
                for chunk in self._output:
                    self._write(chunk)
                    self._send()
                    if not self._writable:
                        return
                self._output = None
                self._write(self._session.prompt)
            if not self._waiting:
                break
            typed, self._waiting = self._waiting, ""
            self._type(typed)
        self._send()

    def _type(self, data: str) -> None:
        start = 0
        for stroke in STROKE.finditer(data):
            self._echo(data[start : stroke.start()])
            start = stroke.end()
            key = stroke.group()
            if key == "\n" and self._after_return:
                self._after_return = False
                continue
            self._after_return = key == "\r"
            if key in "\r\n":
                line, self._line = self._line, ""
                self._enter(line)
                if self._stuck or self._output is not None:
                    self._waiting = data[start:] + self._waiting
                    return
            elif key in "\x03\x1a":
                self._line = ""
                output = self._session.interrupt("c" if key == "\x03" else "z")
                self._write(("^C\n" if key == "\x03" else "^Z\n") + output + self._session.prompt)
            elif self._line:
                gone = len(self._line) if key == "\x15" else 1
                self._line = self._line[:-gone]
                self._write(ERASE * gone)
        self._echo(data[start:])

    def _echo(self, text: str) -> None:
        if text:
            self._after_return = False
            self._line += text
            if not self._session.secret:
                self._write(text)

    def _enter(self, line: str) -> None:
        try:
            output = self._session.execute(line)
        except Cut:
            self._stuck = True
            self._unsent.clear()
            self._channel.get_connection().abort()
            return
        except Hang:
            self._stuck = True
            return
        if self._session.closed:
            self._stuck = True
            self._write("\n" + output if isinstance(output, str) else "\n")
            self._send()
            self._channel.exit(0)
        elif isinstance(output, str):
            self._write("\n" + output + self._session.prompt)
        else:
            self._write("\n")
            self._output = iter(output)


class Door(asyncssh.SSHServer):
    """The login of one router."""

    def __init__(self, router: Router, access: Access, connections: set[asyncssh.SSHServerConnection]) -> None:
        self._router = router
        self._access = access
        self._connections = connections  # those that are open, of all routers

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn
        self._connections.add(conn)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self._connection)

    def begin_auth(self, username: str) -> bool:
        if self._access.public_keys and self._router.login_name(username) == self._access.user:
            self._connection.set_authorized_keys(asyncssh.import_authorized_keys(self._access.public_keys))
        return True

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        return (self._router.login_name(username), password) == (self._access.user, self._access.password)

    def session_requested(self) -> Terminal:
        return Terminal(self._router.login())


class Lab:
    """Routers that are served. `ports` by name; `known_hosts` as OpenSSH reads it, a line a router."""

    def __init__(self, routers: Sequence[Router]) -> None:
        self.routers = {router.name: router for router in routers}
        self.ports: dict[str, int] = {}
        self.known_hosts = ""
        self._acceptors: list[asyncssh.SSHAcceptor] = []
        self._connections: set[asyncssh.SSHServerConnection] = set()

    async def open(self, access: Access, ports: Mapping[str, int], directory: Path) -> None:
        """Listen on loopback: on the ports given, on any free one for routers that have none there."""
        for name, router in self.routers.items():
            if router.own_server:
                port = ports.get(name) or _free_port()
                public = await asyncio.to_thread(router.start, LOOPBACK, port, directory)
            else:
                key = asyncssh.generate_private_key("ssh-ed25519")
                public = key.export_public_key().decode().strip()
                acceptor = await asyncssh.listen(
                    LOOPBACK,
                    ports.get(name, 0),
                    server_factory=lambda router=router: Door(router, access, self._connections),
                    server_host_keys=[key],
                    line_editor=False,
                    # A router's configuration may hold any bytes; they go through unharmed.
                    encoding="utf-8",
                    errors="surrogateescape",
                    kex_algs=["curve25519-sha256", "ecdh-sha2-nistp256"],
                    encryption_algs=["aes128-gcm@openssh.com", "aes128-ctr"],
                    compression_algs=None,
                    allow_scp=False,
                    gss_host=None,
                    config=None,
                )
                self._acceptors.append(acceptor)
                port = acceptor.get_port()
            self.ports[name] = port
            self.known_hosts += f"[{LOOPBACK}]:{port} {public}\n"

    async def close(self) -> None:
        for acceptor in self._acceptors:
            acceptor.close()
        for connection in list(self._connections):
            connection.abort()
        for router in self.routers.values():
            if router.own_server:
                await asyncio.to_thread(router.stop)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def serve(routers: Sequence[Router], access: Access | None = None) -> Iterator[Lab]:
    """The routers on free ports of loopback, in a thread, until the block ends."""
    lab = Lab(routers)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="lab", daemon=True)
    thread.start()
    with tempfile.TemporaryDirectory() as directory:
        try:
            asyncio.run_coroutine_threadsafe(lab.open(access or Access(), {}, Path(directory)), loop).result(30)
            yield lab
        finally:
            asyncio.run_coroutine_threadsafe(lab.close(), loop).result(30)
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()
