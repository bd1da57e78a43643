# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What every lab router is: state shared by its sessions, a clock, faults to order, and a judge of packets."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ..clock import Clock
from ..judge import Packet


class Cut(Exception):
    """The connection drops now, before the reply."""


class Hang(Exception):
    """No reply comes, ever; the connection stays open."""


@dataclass
class Faults:
    """What shall go wrong, once each. Numbers count from 1, over all sessions, and start when they are set.

    A command counts for `cut_after` and `hang_at` from the one that enters configuration on, as long as its session
    lives; it takes effect, but its reply never comes. A line counts for `reject_at` when it is typed in a configuration
    mode and is part of the configuration (not `exit`, `commit` and their like); it has no effect.
    `outputs` replaces what a command prints, with text or with chunks of it (a router out of its mind).
    """

    cut_after: int | None = None
    hang_at: int | None = None
    reject_at: int | None = None
    outputs: dict[str, str | Iterable[str]] = field(default_factory=dict)

    def __setattr__(self, name: str, value: object) -> None:
        if name in ("cut_after", "hang_at", "reject_at"):
            object.__setattr__(self, f"_{name}", 0)
        object.__setattr__(self, name, value)

    def strikes(self, name: str) -> bool:
        """Count one for the fault, and say whether its turn has come; then it is over."""
        limit: int | None = getattr(self, name)
        if limit is None:
            return False
        count: int = getattr(self, f"_{name}") + 1
        object.__setattr__(self, f"_{name}", count)
        if count < limit:
            return False
        setattr(self, name, None)
        return True


class Session:
    """One login. A CLI overrides `command`, `prompt` and what else differs.

    `lines` are the words of a session as they came, for tests that ask what was typed.
    """

    def __init__(self, router: Router) -> None:
        self.router = router
        self.closed = False  # set by the command that logs out
        self.lines: list[str] = []
        self._carries = False

    @property
    def banner(self) -> str:
        """Printed after the login, before the first prompt."""
        return ""

    @property
    def prompt(self) -> str:
        raise NotImplementedError

    @property
    def secret(self) -> bool:
        """The next line is a password, so the terminal does not echo it."""
        return False

    @property
    def configuring(self) -> bool:
        """A configuration mode is entered."""
        return False

    def command(self, line: str) -> str:
        """Execute one line; the output, in lines that end with a newline each, or ''."""
        raise NotImplementedError

    def is_protocol(self, line: str) -> bool:
        """A line of a configuration mode that is no part of the configuration: exit, commit, show ..."""
        raise NotImplementedError

    def rejection(self, line: str) -> str:
        """What the vendor prints for a configuration line it does not take."""
        raise NotImplementedError

    def interrupt(self, key: str) -> str:
        """Control-C or control-Z (`key` is 'c' or 'z') was typed; the output."""
        return ""

    def hang_up(self) -> None:
        """The connection is gone, by logout or by a cut."""

    def execute(self, line: str) -> str | Iterable[str]:
        """What the router prints for a line. Raises Cut and Hang where a fault was ordered."""
        router = self.router
        with router.clock.lock:
            router.clock.settle()
            self.lines.append("<password>" if self.secret else line)
            configuring = self.configuring
            if configuring and line.strip() and not self.is_protocol(line) and router.faults.strikes("reject_at"):
                return self.rejection(line)
            output: str | Iterable[str] = self.command(line)
            self._carries = self._carries or configuring or self.configuring
            if self._carries and router.faults.strikes("cut_after"):
                raise Cut
            if self._carries and router.faults.strikes("hang_at"):
                raise Hang
            return router.faults.outputs.get(line.strip(), output)


class Router:
    """A router of one kind. `Device` of each file in this folder is one.

    `text` is the configuration as in lab/configs, which each kind reads in its own way; `enable_secret` '' means that a
    login is privileged already.
    """

    session_class: type[Session]
    own_server = False  # True: `start` and `stop` run a real SSH server; False: lab.server speaks SSH for it

    def __init__(self, name: str, text: str, enable_secret: str = "") -> None:
        self.name = name
        self.enable_secret = enable_secret
        self.clock = Clock()
        self.faults = Faults()
        self.sessions: list[Session] = []  # every login there was, the oldest first
        self._callbacks: list[Callable[[], None]] = []
        self._console: Session | None = None

    @classmethod
    def unavailable(cls) -> str:
        """Why this kind cannot run on this machine, or ''."""
        return ""

    @classmethod
    def load(cls, name: str, folder: Path, enable_secret: str = "") -> Router:
        """The router as its configuration in the folder says."""
        return cls(name, (folder / f"{name}.cfg").read_text(encoding="utf-8"), enable_secret)

    def login_name(self, user: str) -> str:
        """Who logs in with this name: some routers take settings of the terminal behind it."""
        return user

    def start(self, address: str, port: int, directory: Path) -> str:
        """Serve SSH (own_server only), keeping files in the directory; the host key as 'ssh-ed25519 AAAA...'."""
        raise NotImplementedError

    def stop(self) -> None:
        """End what `start` began."""

    def login(self) -> Session:
        """A new session."""
        session = self.session_class(self)
        self.sessions.append(session)
        return session

    @property
    def console(self) -> Session:
        """A session of its own for tests that want no SSH."""
        if self._console is None:
            self._console = self.login()
        return self._console

    def execute(self, line: str) -> str:
        """A line typed at the console; the output."""
        output = self.console.execute(line)
        return output if isinstance(output, str) else "".join(output)

    @property
    def prompt(self) -> str:
        return self.console.prompt

    def snapshot(self) -> str:
        """The running configuration as the vendor prints it, all of it."""
        raise NotImplementedError

    def startup_text(self) -> str:
        """What it starts with, for a router that has to be told to save it."""
        raise NotImplementedError

    def judge(self, attachment: str, direction: str, packet: Packet) -> str:
        """'permit' or 'deny' for a packet that enters from ('up') or leaves to ('down') subscribers at the attachment.

        Straight from the running configuration. Raises KeyError when the router has no such attachment.
        """
        raise NotImplementedError

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call back after every change of the running configuration, each single line of it where lines act at once."""
        self._callbacks.append(callback)

    def changed(self) -> None:
        """A kind of router calls this after every change."""
        for callback in self._callbacks:
            callback()
