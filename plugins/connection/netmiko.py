# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible's connection options, made into one netmiko session."""

from __future__ import annotations

import codecs
import logging
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import paramiko
from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.connection import ConnectionBase

# netmiko's own exceptions for time-outs and logins derive from paramiko's, not from NetmikoBaseException.
from netmiko import ConnectHandler, NetmikoAuthenticationException, NetmikoBaseException, NetmikoTimeoutException

from ansible_collections.isp.hardening.plugins.module_utils import platforms

DOCUMENTATION = """
name: netmiko
short_description: One netmiko session to a router's CLI
description:
  - Logs in to a router with netmiko, for as long as one task lasts. Nothing persists between tasks.
  - The platform comes from C(ansible_network_os); names of other ecosystems work as aliases.
  - A router that cannot be reached and a login that is refused are both UNREACHABLE, each with its own message.
author: isp.hardening contributors
options:
  host:
    description: Address or name of the router.
    default: inventory_hostname
    vars:
      - name: inventory_hostname
      - name: ansible_host
  port:
    description: Port of its SSH server.
    type: int
    default: 22
    vars:
      - name: ansible_port
  network_os:
    description: The platform.
    required: true
    vars:
      - name: ansible_network_os
  remote_user:
    description: Whom to log in as.
    vars:
      - name: ansible_user
  password:
    description: The password, unless a key is used.
    vars:
      - name: ansible_password
      - name: ansible_ssh_pass
  private_key_file:
    description: File of a private key.
    type: path
    ini:
      - {section: defaults, key: private_key_file}
    env:
      - name: ANSIBLE_PRIVATE_KEY_FILE
    vars:
      - name: ansible_private_key_file
      - name: ansible_ssh_private_key_file
  enable_secret:
    description: Secret of the privileged mode. The privileged mode is entered wherever the login does not give it.
    vars:
      - name: ansible_become_password
      - name: ansible_become_pass
  jump_host:
    description:
      - A host to go through, C([user@]host[:port]); OpenSSH logs in there with its own configuration and keys.
      - An IPv6 address that a port follows stands in brackets.
    vars:
      - name: ansible_netmiko_jump_host
  host_key_checking:
    description: Refuse a router whose host key is not known.
    type: bool
    default: true
    ini:
      - {section: defaults, key: host_key_checking}
    env:
      - name: ANSIBLE_HOST_KEY_CHECKING
    vars:
      - name: ansible_host_key_checking
  known_hosts:
    description: File of known host keys, besides C(~/.ssh/known_hosts).
    type: path
    vars:
      - name: ansible_netmiko_known_hosts
  connect_timeout:
    description: Seconds to wait for the session to open.
    type: int
    default: 20
    vars:
      - name: ansible_connect_timeout
  command_timeout:
    description: Seconds of silence after which a command counts as unanswered.
    type: int
    default: 60
    vars:
      - name: ansible_command_timeout
  session_log:
    description: File for a log of the session. Off by default; it may hold what the router prints of its secrets.
    type: path
    vars:
      - name: ansible_netmiko_session_log
"""

# Without a handler Python prints paramiko's tracebacks on the terminal; what matters of them is in our messages.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

# Our errors are raised from None: Ansible would add the words of the cause to ours, which have them.

# Far above any configuration, far below what would hurt the controller.
_OUTPUT_LIMIT = 64 * 1024 * 1024


class LoginRefused(AnsibleConnectionFailure):
    """The router answered and did not let us in."""


class SessionLost(AnsibleConnectionFailure):
    """The session ended, or fell silent, in the middle of a command."""


class OutputRefused(AnsibleError):
    """A command printed more than any configuration is long."""


class _Tunnel(paramiko.ProxyCommand):
    """An `ssh -W` that ends without a trace: paramiko's own raises in its thread when the process is gone already."""

    def close(self) -> None:
        self.process.kill()
        self.process.wait()

    def complaint(self) -> str:
        """What ssh had to say, which ends it."""
        self.close()
        return " ".join(self.process.communicate()[1].decode("utf-8", "replace").split())


class Connection(ConnectionBase):
    """`send` one command, `reset` for a fresh login."""

    transport = "isp.hardening.netmiko"
    has_pipelining = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._session: Any = None
        self._answers: tuple[tuple[re.Pattern[str], str], ...] = ()

    def _connect(self) -> Connection:
        if self._session is None:
            self._session = self._open()
            self._connected = True
        return self

    def _open(self) -> Any:
        host, port = self.get_option("host"), self.get_option("port")
        where = f"{host} port {port}"
        try:
            platform = platforms.load(self.get_option("network_os"))
        except ValueError as error:
            raise AnsibleError(f"{where}: {error}") from None
        if not platform.DEVICE_TYPE:
            raise AnsibleError(f"{where}: {self.get_option('network_os')} is reached with ansible_connection: ssh")
        self._answers = tuple((re.compile(one), said) for one, said in getattr(platform, "ANSWERS", ()))
        key = self.get_option("private_key_file")
        known_hosts = self.get_option("known_hosts")
        strict = self.get_option("host_key_checking")
        tunnel = self._tunnel(host, port)
        log = self.get_option("session_log")
        try:
            if log:
                Path(log).touch(mode=0o600)  # it can show secrets
            session = ConnectHandler(
                device_type=platform.DEVICE_TYPE,
                host=host,
                port=port,
                username=self.get_option("remote_user") or "",
                password=self.get_option("password") or "",
                secret=self.get_option("enable_secret") or "",
                use_keys=bool(key),
                key_file=key,
                allow_agent=not key and not self.get_option("password"),
                ssh_strict=strict,
                system_host_keys=strict,
                alt_host_keys=bool(strict and known_hosts),
                alt_key_file=known_hosts or "",
                conn_timeout=self.get_option("connect_timeout"),
                read_timeout_override=self.get_option("command_timeout"),
                session_log=log,
                sock=tunnel,
            )
            # SR OS: a login may do all that its profile allows, and `enable` asks for a password that need not exist.
            asked = self.get_option("enable_secret") or getattr(platform, "PRIVILEGED", True)
            if asked and not session.check_enable_mode():
                session.enable()
            return session
        except NetmikoAuthenticationException:
            user = self.get_option("remote_user") or "(no user)"
            raise LoginRefused(
                f"{where} refused the login of {user}: check ansible_user, ansible_password or the key"
            ) from None
        except (NetmikoTimeoutException, NetmikoBaseException, paramiko.SSHException, OSError, EOFError) as error:
            said = f"; the jump host {self.get_option('jump_host')}: {tunnel.complaint()}" if tunnel else ""
            raise AnsibleConnectionFailure(f"{where}: {_why(error)}{said}") from None
        except ValueError:  # netmiko's way to say that the enable secret was wrong
            raise LoginRefused(f"{where} did not give the privileged mode: check ansible_become_password") from None

    def _tunnel(self, host: str, port: int) -> _Tunnel | None:
        jump = self.get_option("jump_host")
        if not jump:
            return None
        # The colons of an IPv6 address are none of a port: [2001:db8::1]:22, and what is no HOST:PORT is an address.
        found = re.fullmatch(r"((?:[^@]*@)?(?:\[.*\]|[^:]*)):(\d+)", jump)
        address, jump_port = found.groups() if found else (jump, "22")
        address = address.replace("[", "").replace("]", "")
        there = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        command = ["ssh", "-o", "BatchMode=yes", "-p", jump_port, "-W", there, address]
        return _Tunnel(shlex.join(command))

    def send(self, command: str) -> str:
        """The command's output, without its echo and the prompt. Raises SessionLost or OutputRefused.

        The session reads until the prompt stands alone at the end, and looks at that end only: netmiko's own
        reader searches all that has come so far each time, which is slow on long configurations.
        """
        self._connect()
        session = self._session
        channel = session.remote_conn
        # VRP puts its prompts in brackets: <name>, and [~name] or [*name-view] where it is configured.
        # Classic SR OS marks its prompt with a star while something is not saved.
        name = rf"{re.escape(session.base_prompt.removeprefix('*'))}[^\r\n]*"
        prompt = re.compile(rf"(?:^|[\r\n])(?:\*?{name}[>#$]|<{name}>|\[[~*]?{name}\]) ?$")
        silence = self.get_option("command_timeout")
        parts: list[str] = []
        decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a character may come in two pieces
        size, tail = 0, ""
        # A terminal that paints its line anew (RouterOS) shows the prompt before the command is entered, and escapes.
        painted = session.ansi_escape_codes
        entered = not painted
        try:
            channel.settimeout(silence)
            session.write_channel(command + session.RETURN)
            while not (entered and prompt.search(session.strip_ansi_escape_codes(tail) if painted else tail)):
                piece = channel.recv(65536)
                if not piece:
                    raise EOFError("the router closed the session")
                text = decoder.decode(piece)
                size += len(text)
                if size > _OUTPUT_LIMIT:
                    self.close()
                    raise OutputRefused(
                        f"'{command}' printed more than {_OUTPUT_LIMIT >> 20} MiB: no configuration is that long"
                    )
                parts.append(text)
                tail = (tail + text)[-512:]
                entered = entered or "\n" in text
                for question, answer in self._answers:
                    if question.search(tail):
                        session.write_channel(answer + session.RETURN)
                        tail = ""
        except TimeoutError:
            self.close()
            raise SessionLost(f"the session was lost at '{command}': no answer within {silence} seconds") from None
        except (OSError, EOFError, paramiko.SSHException, NetmikoBaseException) as error:
            self.close()
            raise SessionLost(f"the session was lost at '{command}': {_why(error)}") from None
        if session.session_log:
            session.session_log.write("".join(parts))
        output = "".join(parts)
        output = session.strip_ansi_escape_codes(output) if painted else output
        lines = output.replace("\r\n", "\n").replace("\r", "").split("\n")
        if lines and command.strip() and command.strip() in lines[0]:
            lines = lines[1:]
        return "\n".join(lines[:-1])

    def beside(self, commands: Sequence[str]) -> str:
        """The outputs of the commands over a session of its own, while this one stays open."""
        held, self._session = self._session, None
        try:
            return "\n".join(self.send(command) for command in commands)
        finally:
            self.close()
            self._session, self._connected = held, held is not None

    def addresses(self) -> tuple[str, str]:
        """Our own address and the router's, as the session's socket has them; empty behind a jump host."""
        self._connect()
        transport = self._session.remote_conn.get_transport()
        if self.get_option("jump_host"):
            return "", ""
        return transport.sock.getsockname()[0], transport.sock.getpeername()[0]

    def exec_command(self, cmd: str, in_data: bytes | None = None, sudoable: bool = True) -> tuple[int, bytes, bytes]:
        """For ansible.builtin.raw: one command of the CLI."""
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        return 0, self.send(cmd).encode(), b""

    def put_file(self, in_path: str, out_path: str) -> None:
        raise AnsibleError("a router takes no files: use the actions of isp.hardening")

    def fetch_file(self, in_path: str, out_path: str) -> None:
        raise AnsibleError("a router gives no files: use the actions of isp.hardening")

    def reset(self) -> None:
        self.close()
        self._connect()

    def close(self) -> None:
        session, self._session = self._session, None
        self._connected = False
        if session is not None:
            # netmiko's disconnect() sends 'exit' first, which hangs on a dead session.
            session.remote_conn_pre.close()


def _why(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    text = text.removeprefix("A paramiko SSHException occurred during connection creation: ")
    if "not found in known_hosts" in text:
        return f"{text}: add its host key, or name a file in ansible_netmiko_known_hosts"
    return text
