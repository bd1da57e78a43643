"""What smtpd answers to RCPT TO, evaluated and real.

A case is a folder of tests/mail/smtpd (see mail_hosts.py) with `answers`: what Postfix 3.7 said to every client,
sender and recipient below. The evaluation has to say the same, and so does the Postfix of this machine, where there
is one: it runs on loopback with directories of its own, and is told by XCLIENT who speaks.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ansible_collections.isp.hardening.plugins.module_utils.mail.restrictions import Client, Envelope, answer
from ansible_collections.isp.hardening.plugins.module_utils.mail.tables import Tables
from tests.unit.mail_hosts import MAIL, answer_questions, postfix_of, text_of

CASES = sorted(path.parent for path in MAIL.glob("smtpd/*/postconf"))
PORT = 20000 + os.getpid() % 12000  # no other run's, and none that a client of the machine is given

CLIENTS = (
    Client("world", "203.0.113.77", "mail.example.org", "mail.example.org"),
    Client("unnamed", "203.0.113.78"),
    Client("pool", "198.51.100.7", "dsl7.pool.example.net", "dsl7.pool.example.net"),
    Client("loopback", "127.0.0.1", "localhost", "localhost"),
    Client("user", "203.0.113.79", user="user@example.net"),
)
SENDERS = ("", "someone@example.org", "user@example.net", "other@example.net", "user%example.net@example.org")
RECIPIENTS = (
    "postmaster@example.net",
    "postmaster",
    "nobody@example.net",
    "user+folder@example.net",
    "x@sub.example.net",
    "far@example.com",
    "far@sub.example.com",
    "far@example.com.",
    "far%example.com@example.net",
    "far%example.com@mx1.example.net",
    "far%example.com",
    '"far%example.com"',
    '"far@example.com"@example.net',
    '"far@example.com"@mx1.example.net',
    "far@example.com@example.net",
    "example.com!far",
    "example.com!far@mx1.example.net",
    "example.com!far@example.net",
    "@mx1.example.net:far@example.com",
    "@example.net,@example.com:far@example.org",
    "far@[127.0.0.1]",
    "far@[203.0.113.1]",
    "far%example.com@[127.0.0.1]",
    "far@203.0.113.1",
    "far@-bad-.example.com",
    "far",
    "Far@EXAMPLE.Com",
)


def table(ask: Callable[[Client, str, str], int]) -> str:
    """A line per client and sender with the codes of the recipients, in their order."""
    lines = []
    for client in CLIENTS:
        for sender in SENDERS:
            codes = " ".join(str(ask(client, sender, recipient)) for recipient in RECIPIENTS)
            lines.append(f"{client.title} <{sender}>: {codes}\n")
    return "".join(lines)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_evaluation_answers_as_postfix_did(case: Path) -> None:
    postfix, tables = postfix_of(case), Tables()
    (service,) = postfix.services
    parameters = postfix.effective(service)

    def ask(client: Client, sender: str, recipient: str) -> int:
        found = answer(parameters, tables, Envelope(client, sender, recipient), data=False)
        assert not found.doubts
        return found.code

    result = table(ask)
    while answer_questions(tables):
        result = table(ask)
    assert compare(result) == compare((case / "answers").read_text())


def compare(text: str) -> list[str]:
    """An answer a line, so that a difference names its question."""
    return [
        f"{line.rpartition(': ')[0]} <{recipient}> {code}"
        for line in text.splitlines()
        for recipient, code in zip(RECIPIENTS, line.rpartition(": ")[2].split(), strict=True)
    ]


# -- the real one ------------------------------------------------------------------------------------------------

QUEUES = "active bounce corrupt defer deferred flush hold incoming maildrop pid private public saved trace".split()
MASTER = f"""\
127.0.0.1:{PORT} inet n - n - 10 smtpd
cleanup unix n - n - 0 cleanup
rewrite unix - - n - - trivial-rewrite
proxymap unix - - n - - proxymap
anvil unix - - n - 1 anvil
qmgr unix n - n 300 1 qmgr
bounce unix - - n - 0 bounce
error unix - - n - - error
"""
COMMON = """\
compatibility_level = 3.6
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = mx1.example.net
mydomain = example.net
mynetworks = 127.0.0.0/8
alias_maps =
in_flow_delay = 0
local_recipient_maps = inline:{postmaster=x,user=x}
smtpd_authorized_xclient_hosts = 127.0.0.1
smtpd_client_event_limit_exceptions = 127.0.0.1
smtpd_soft_error_limit = 100000
smtpd_hard_error_limit = 100000
smtpd_junk_command_limit = 100000
smtpd_error_sleep_time = 0
"""


class Smtpd:
    """A Postfix of our own: a configuration at a time."""

    def __init__(self, folder: Path, version: str) -> None:
        self.folder = folder
        self.version = version
        self.master: subprocess.Popen[bytes] | None = None

    def start(self, case: Path) -> None:
        """Runs with the case's configuration."""
        etc = self.folder / "etc"
        tables = self.folder / "tables"
        shutil.rmtree(tables, ignore_errors=True)
        if (case / "tables").exists():
            shutil.copytree(case / "tables", tables)
        lines = COMMON + f"queue_directory = {self.folder}/queue\ndata_directory = {self.folder}/data\n"
        lines += f"smtpd_sasl_type = dovecot\nsmtpd_sasl_path = {self.folder}/auth\n"
        lines += text_of(case, "postconf").replace(str(case), str(self.folder))
        (etc / "main.cf").write_text(lines)
        (etc / "master.cf").write_text(MASTER)
        daemon = Path(postconf("daemon_directory")) / "master"
        with open(self.folder / "master.log", "ab") as log:
            self.master = subprocess.Popen(
                [daemon, "-c", etc, "-d"], stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )

    def stop(self) -> None:
        """Ends it, and waits for its processes: what they still hold of the port would greet the next one's client."""
        if self.master:
            os.kill(self.master.pid, signal.SIGTERM)
            self.master.wait(10)
            self.master = None
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                try:
                    socket.create_connection(("127.0.0.1", PORT), timeout=1).close()
                except ConnectionRefusedError:
                    return
                except OSError:  # reset: they are about to go
                    pass
                time.sleep(0.02)
            raise AssertionError(f"something still listens on port {PORT}")

    def session(self) -> Session:
        """A new connection, as soon as it is served."""
        deadline = time.monotonic() + 60
        while True:
            try:
                return Session(socket.create_connection(("127.0.0.1", PORT), timeout=60))
            except ConnectionRefusedError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)


class Session:
    """An SMTP dialogue."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.file = connection.makefile("rb")
        self.reply()

    def reply(self) -> int:
        while True:
            line = self.file.readline()
            assert line, "the server hung up"
            if line[3:4] != b"-":
                return int(line[:3])

    def say(self, line: str) -> int:
        self.connection.sendall(line.encode() + b"\r\n")
        return self.reply()


def postconf(name: str) -> str:
    return subprocess.run(["postconf", "-hx", name], capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def smtpd() -> Iterator[Smtpd]:
    if not shutil.which("postconf"):
        pytest.skip("Postfix is not installed")
    if os.getuid():
        pytest.skip("Postfix's master runs as root")
    with tempfile.TemporaryDirectory(prefix="smtpd") as name:
        folder = Path(name)
        folder.chmod(0o755)
        owner = postconf("mail_owner")
        (folder / "etc").mkdir()
        for file in Path(postconf("meta_directory")).glob("dynamicmaps.cf*"):
            (shutil.copytree if file.is_dir() else shutil.copy)(file, folder / "etc" / file.name)
        (folder / "queue").mkdir()
        for queue in [folder / "data", *(folder / "queue" / name for name in QUEUES)]:
            queue.mkdir()
            shutil.chown(queue, "root" if queue.name == "pid" else owner)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(folder / "auth"))
        (folder / "auth").chmod(0o666)
        listener.listen()
        threading.Thread(target=serve_auth, args=(listener,), daemon=True).start()
        yield Smtpd(folder, postconf("mail_version"))
        listener.close()


def serve_auth(listener: socket.socket) -> None:
    """As much of Dovecot's authentication as smtpd asks for before anybody logs in."""
    kept = []
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        connection.sendall(b"VERSION\t1\t1\nMECH\tPLAIN\tplaintext\nSPID\t1\nCUID\t1\nCOOKIE\t0\nDONE\n")
        kept.append(connection)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_postfix_answers_so(smtpd: Smtpd, case: Path) -> None:
    smtpd.start(case)
    try:
        result = table(asker(smtpd))
    finally:
        smtpd.stop()
    if os.environ.get("RECORD"):
        (case / "answers").write_text(result)
    assert possible(case, result) == possible(case, (case / "answers").read_text())


def possible(case: Path, result: str) -> list[str]:
    """Without the logins that only XCLIENT could claim: where nobody logs in, Postfix 3.7 and 3.10 take them apart."""
    logins = "smtpd_sasl_auth_enable = yes" in text_of(case, "postconf")
    return [line for line in compare(result) if logins or not line.startswith("user ")]


def asker(smtpd: Smtpd) -> Callable[[Client, str, str], int]:
    """Asks in a session a client, and a transaction a question."""
    sessions: dict[str, Session] = {}

    def ask(client: Client, sender: str, recipient: str) -> int:
        if client.title not in sessions:
            session = sessions[client.title] = smtpd.session()
            session.say(f"EHLO {client.helo}")
            name, reverse = (one if one != "unknown" else "[UNAVAILABLE]" for one in (client.name, client.reverse))
            said = f"XCLIENT NAME={name} REVERSE_NAME={reverse} ADDR={client.address}"
            assert session.say(said + (f" LOGIN={client.user}" if client.user else "")) in (220, 554)
            session.say(f"EHLO {client.helo}")
        session = sessions[client.title]
        session.say("RSET")
        code = session.say(f"MAIL FROM:<{sender}>")
        return code if code != 250 else session.say(f"RCPT TO:<{recipient}>")

    return ask
