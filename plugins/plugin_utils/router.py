# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the actions that talk to a router share: its platform, its session, its running configuration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, TypeVar

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase

# Loaded here, before Ansible forks its workers: netmiko takes a third of a second to import.
from ansible_collections.isp.hardening.plugins.connection import netmiko
from ansible_collections.isp.hardening.plugins.module_utils import platforms
from ansible_collections.isp.hardening.plugins.module_utils.push import OutputRefused, Router, SessionLost, read
from ansible_collections.isp.hardening.plugins.module_utils.secrets import redact

# The platforms too: Ansible compiles a collection's files anew in every process that imports them.
for _name in platforms.names():
    platforms.load(_name)

_Result = TypeVar("_Result")


class Ended(Exception):
    """The task is over: its state (as in the documentation of edge_filter) and message."""

    def __init__(self, state: str, message: str) -> None:
        super().__init__(message)
        self.state = state


class _Cli:
    """A router behind the netmiko connection."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def send(self, command: str) -> str:
        output: str = _lost(lambda: self._connection.send(command))
        return output

    def reset(self) -> None:
        _lost(self._connection.reset)

    def beside(self, commands: Sequence[str]) -> str:
        output: str = _lost(lambda: self._connection.beside(commands))
        return output


class _Shell:
    """A Linux router behind Ansible's ssh connection. A command that fails says so at the end of its output."""

    def __init__(self, action: ActionBase) -> None:
        self._action = action

    def send(self, command: str) -> str:
        result = _lost(lambda: self._action._low_level_execute_command(command, sudoable=True))
        failed = f"\nexit status {result['rc']}: {result['stderr'].strip()}" if result["rc"] else ""
        # Ansible keeps bytes that are no UTF-8 as surrogates, which no file and no report can hold.
        return (str(result["stdout"]) + failed).encode("utf-8", "surrogateescape").decode("utf-8", "replace")

    def reset(self) -> None:
        _lost(self._action._connection.reset)

    def beside(self, commands: Sequence[str]) -> str:
        """A shell keeps nothing between its commands, so there is nothing to stand beside."""
        return "\n".join(self.send(command) for command in commands)


def _lost(call: Callable[[], _Result]) -> _Result:
    try:
        return call()
    except AnsibleConnectionFailure as error:
        raise SessionLost(error.message) from error
    except netmiko.OutputRefused as error:
        raise OutputRefused(error.message) from error


def platform_of(name: str | None) -> ModuleType:
    """The platform for a value of ansible_network_os."""
    if not name:
        raise Ended("failed", f"set ansible_network_os to one of {', '.join(platforms.names())}")
    try:
        return platforms.load(name)
    except ValueError as error:
        raise Ended("failed", str(error)) from error


def session_of(action: ActionBase, platform: ModuleType) -> Router:
    """A session with the action's host; the first command logs in."""
    if platform.DEVICE_TYPE and getattr(action._connection, "transport", "") != netmiko.Connection.transport:
        raise Ended("failed", f"set ansible_connection to {netmiko.Connection.transport} for this platform")
    return _Cli(action._connection) if platform.DEVICE_TYPE else _Shell(action)


def running_text(action: ActionBase, platform: ModuleType, router: Router) -> str:
    """The running configuration, whole. Unreachable and refused are told apart."""
    try:
        if platform.DEVICE_TYPE:
            action._connection._connect()
        text = read(platform, router)
    except netmiko.LoginRefused as error:
        raise Ended("login_refused", error.message) from error
    except AnsibleConnectionFailure as error:
        raise Ended("unreachable", error.message) from error
    except OutputRefused as error:
        raise Ended("failed", f"{error}; nothing was changed") from error
    except SessionLost as error:
        raise Ended("session_lost" if platform.DEVICE_TYPE else _shell_state(str(error)), str(error)) from error
    except AnsibleError as error:
        raise Ended("failed", error.message) from error
    why = platform.incomplete(text)
    if why:
        raise Ended("failed", f"the running configuration cannot be used: {why}; nothing was changed")
    return text


def _shell_state(message: str) -> str:
    """OpenSSH tells only in words whether it was not let in."""
    return "login_refused" if "Permission denied" in message else "unreachable"


def ended_result(end: Ended, host: str) -> dict[str, Any]:
    """What Ansible is told of it: a host that cannot be talked to is unreachable, all else is failed."""
    kind = "unreachable" if end.state in ("unreachable", "login_refused") else "failed"
    return {"state": end.state, "msg": redact(f"{host}: {end}"), kind: True}
