# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""smtp_probe against a scripted server: every answer has its verdict, and no misbehaviour hurts."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import email
import hashlib
import io
import ipaddress
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.isp.hardening.plugins.module_utils.documentation import argument_spec
from ansible_collections.isp.hardening.plugins.module_utils.findings import Finding
from ansible_collections.isp.hardening.plugins.module_utils.mail import messages, tricks
from ansible_collections.isp.hardening.plugins.module_utils.mail import policy as mail_policy
from ansible_collections.isp.hardening.plugins.module_utils.mail.dialogue import Limits
from ansible_collections.isp.hardening.plugins.module_utils.mail.probe.dnsbl import NoAnswer, dnsbl
from ansible_collections.isp.hardening.plugins.module_utils.mail.probe.report import findings
from ansible_collections.isp.hardening.plugins.module_utils.mail.probe.schedule import probe
from ansible_collections.isp.hardening.plugins.module_utils.mail.probe.settings import (
    ASKED,
    DQS_ZONE,
    PUBLIC_ZONE,
    SENDING,
    TESTS,
    BadSettings,
    Settings,
    User,
    left_out,
    read_settings,
)
from ansible_collections.isp.hardening.plugins.module_utils.mail.probe.visit import Result
from ansible_collections.isp.hardening.plugins.modules import smtp_probe

TARGET = "relay-test@lab.example.org"
USER = User("probe", "correct horse", "probe@example.net")
KEY = "abcdefghijklmnopqrstuvwx26"

# What a server answers, by verb, by whole line, or by "greeting" and "message": text, or a function of the line.
Script = Mapping[str, str | Callable[[str], str]]
EHLO = "250-mx1.example.net\r\n250-PIPELINING\r\n250 SIZE 26214400"


def recipient(line: str) -> str:
    """A good MX: two mailboxes of its domain, nothing else."""
    own = re.fullmatch(r"RCPT TO:<(postmaster|abuse)@example\.net>", line)
    return "250 2.1.5 Ok" if own else "554 5.7.1 Relay access denied"


GOOD: Script = {
    "greeting": "220 mx1.example.net ESMTP",
    "EHLO": EHLO,
    "MAIL": "250 2.1.0 Ok",
    "RCPT": recipient,
    "DATA": "354 End data with <CR><LF>.<CR><LF>",
    "message": "250 2.0.0 Ok: queued",
    "NOOP": "250 2.0.0 Ok",
    "RSET": "250 2.0.0 Ok",
    "QUIT": "221 2.0.0 Bye",
    "VRFY": "502 5.5.1 VRFY command is disabled",
    "AUTH": "503 5.5.1 Error: authentication not enabled",
    "ETRN": "554 5.7.1 rejected",
}


class Server:
    """Accepts connections and answers each line by the script; "close" hangs up, "" says nothing."""

    def __init__(
        self, script: Script, tls: ssl.SSLContext | None = None, at_once: bool = False, address: str = "127.0.0.1"
    ) -> None:
        self.script, self.tls, self.at_once = dict(script), tls, at_once
        self.lines: list[str] = []
        self.inside: set[int] = set()  # the threads of the connections that have not said QUIT
        self.most = self.connections = 0
        self.lock = threading.Lock()
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.socket = socket.create_server((address, 0), family=family, backlog=200)
        self.port = self.socket.getsockname()[1]
        self.threads: list[threading.Thread] = []

    def run(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            thread = threading.Thread(target=self.served, args=(connection,), daemon=True)
            self.threads.append(thread)
            thread.start()

    def served(self, connection: socket.socket) -> None:
        with self.lock:
            self.connections += 1
            self.inside.add(threading.get_ident())
            self.most = max(self.most, self.open)
        try:
            connection.settimeout(20)
            if self.at_once and self.tls:
                connection = self.tls.wrap_socket(connection, server_side=True)
            self.talk(connection)
        except OSError:
            pass
        finally:
            self.inside.discard(threading.get_ident())
            # What was said is lost where a socket is closed that holds something unread.
            with contextlib.suppress(OSError):
                connection.settimeout(2)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(4096):
                    pass
            connection.close()

    @property
    def open(self) -> int:
        return len(self.inside)

    def talk(self, connection: socket.socket) -> None:
        stream = connection.makefile("rb")
        if not self.say(connection, self.answer("greeting", "")):
            return
        while octets := stream.readline():
            line = octets.decode("utf-8", "replace").rstrip("\r\n")
            self.lines.append(line)
            verb = line.split(" ")[0].upper()
            if verb == "STARTTLS" and self.tls:
                connection.sendall(b"220 2.0.0 Ready\r\n")
                connection = self.tls.wrap_socket(connection, server_side=True)
                stream = connection.makefile("rb")
                continue
            answer = self.answer(verb, line)
            if verb == "QUIT":
                self.inside.discard(threading.get_ident())
            if not self.say(connection, answer) or verb == "QUIT":
                return
            if answer.startswith("354") and not self.message(connection, stream):
                return

    def message(self, connection: socket.socket, stream: io.BufferedReader) -> bool:
        """Read a message; `ends` in the script are further ends that this server takes."""
        ends = (b"\r\n.\r\n", *(end.encode() for end in str(self.script.get("ends", "")).split("|") if end))
        text = b""
        while not text.endswith(ends):
            octet = stream.read(1)
            if not octet:
                return False
            text += octet
        self.lines.append(text.decode("latin-1"))
        return self.say(connection, self.answer("message", text.decode("latin-1")))

    def answer(self, verb: str, line: str) -> str:
        found = self.script.get(line, self.script.get(verb, "500 5.5.2 Error: command not recognized"))
        return found(line) if callable(found) else found

    def say(self, connection: socket.socket, text: str) -> bool:
        if text == "close":
            return False
        if text:
            connection.sendall(text.encode("latin-1") + b"\r\n")
        return not text.startswith(("421", "521"))


@contextmanager
def serving(
    script: Script, tls: ssl.SSLContext | None = None, at_once: bool = False, address: str = "127.0.0.1"
) -> Iterator[Server]:
    server = Server(script, tls, at_once, address)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        with contextlib.suppress(OSError):
            server.socket.shutdown(socket.SHUT_RDWR)
        server.socket.close()
        thread.join()


def asking(port: int, *tests: str, **changes: object) -> Settings:
    """Settings of a probe of an inbound host at this port."""
    settings = Settings(
        role="inbound",
        name="mx1.example.net",
        addresses=("127.0.0.1",),
        ports=(("smtp", port),),
        domains=("example.net",),
        tests=tests,
        ehlo="probe.example.org",
        target=TARGET,
        recipients=("postmaster@example.net", "abuse@example.net"),
        stranger="stranger@lab.example.org",
        limits=Limits(2, 2, 2, 10),
        time_limit=30,
        pause=0.05,
    )
    return dataclasses.replace(settings, **changes)


def probed(script: Script, *tests: str, **changes: object) -> tuple[list[Result], Server]:
    with serving(script) as server:
        return probe(asking(server.port, *tests, **changes)), server


def one(found: list[Finding], control: str) -> Finding:
    (finding,) = [finding for finding in found if finding.control == control]
    return finding


# -- answers and their verdicts ----------------------------------------------------------------------------------


def test_a_good_server_is_compliant_and_nothing_is_sent() -> None:
    script = {**GOOD, "greeting": "220-mx1.example.net ESMTP\r\n220 mx1.example.net ESMTP"}
    results, server = probed(
        script, "recipients", "relay", "commands", "auth", "tls", "sobig", client_name="h7.pool.example.net"
    )
    assert {(result.case, result.reason) for result in results if result.verdict != "compliant"} == set()
    assert {finding.control: finding.attachment for finding in findings(results, "mx1")} == dict.fromkeys(
        ["M2", "M8", "M12", "M13"], f"smtpd on {server.port}"
    )
    assert not [line for line in server.lines if line.startswith("DATA")]
    relay = [result for result in results if result.test == "relay"]
    assert len(relay) == 32 * 8 + 1


ANSWERS = [
    # test, what the server says otherwise, control, verdict, words of the reason or of the witness
    ("relay", {"RCPT": "250 2.1.5 Ok"}, "M2", "violated", f"MAIL FROM:<>, RCPT TO:<{TARGET}>: 250 2.1.5 Ok"),
    ("relay", {"RCPT": "251 2.1.5 will forward"}, "M2", "violated", "251"),
    ("relay", {"RCPT": "454 4.7.1 Relay access denied"}, "M2", "unknown", "deferred, not refused"),
    ("relay", {"RCPT": "450 4.2.0 Greylisted, see you later"}, "M2", "unknown", "greylisted"),
    ("relay", {"RCPT": "450 4.3.2 Service currently unavailable"}, "M2", "unknown", "deferred in every of 5"),
    ("relay", {"RCPT": "close"}, "M2", "unknown", "closed the connection"),
    ("relay", {"MAIL": "550 5.7.1 not you"}, "M2", "unknown", "this client is refused whatever it asks: 550 5.7.1 not"),
    ("relay", {"MAIL FROM:<>": "550 5.7.1 no bounces"}, "M2", "compliant", ""),
    ("relay", {"greeting": "554 5.7.1 go away"}, "M2", "unknown", "this client is refused whatever it asks"),
    ("relay", {"MAIL": "450 4.7.1 Error: too much mail from x"}, "M2", "unknown", "the server wants less: 450"),
    ("relay", {"greeting": "450 4.7.1 later"}, "M2", "unknown", "deferred"),
    ("relay", {"greeting": "hello there"}, "M2", "unknown", "not SMTP"),
    ("recipients", {"RCPT": lambda line: f"550 5.1.1 {line[8:]} unknown"}, "M12", "violated", "postmaster@example.net"),
    ("recipients", {"RCPT": "550 5.7.1 client blocked"}, "M12", "unknown", "this client is refused whatever it asks"),
    ("commands", {"RCPT": "550 5.7.1 client blocked"}, "M13", "unknown", "this client is refused whatever it asks"),
    ("recipients", {"RCPT": "451 4.3.0 later"}, "M12", "unknown", "deferred"),
    ("commands", {"VRFY": "252 2.0.0 maybe"}, "M13", "violated", "VRFY is answered"),
    (
        "commands", {"VRFY postmaster@example.net": "550 5.1.0 x", "VRFY": "551 5.1.1 y"}, "M13", "violated",
        "VRFY is answered",
    ),
    ("commands", {"EXPN": "250 Jane <jane@example.net>"}, "M13", "violated", "EXPN is answered"),
    ("commands", {"ETRN": "250 2.0.0 queuing started"}, "M13", "violated", "ETRN is answered"),
    ("commands", {"ETRN": "459 4.7.1 not you"}, "M13", "compliant", ""),
    ("commands", {"ETRN": "458 4.7.1 unable"}, "M13", "unknown", "ETRN"),
    ("pipelining", {}, "M13", "violated", "before their time"),
    ("pipelining", {"NOOP": "554 5.5.0 Error: SMTP protocol synchronization"}, "M13", "compliant", ""),
    ("early_talker", {}, "M13", "unknown", "an early talker is served"),
    ("early_talker", {"RCPT": "550 5.5.1 Protocol error"}, "M13", "compliant", ""),
    ("early_talker", {"greeting": "521 5.5.1 Protocol error"}, "M13", "compliant", ""),
    ("auth", {"EHLO": "250-mx1\r\n250 AUTH PLAIN LOGIN"}, "M8", "violated", "AUTH is offered without TLS"),
    ("auth", {"EHLO": "250-mx1\r\n250 AUTH=LOGIN"}, "M8", "violated", "AUTH is offered without TLS"),
    ("auth", {"AUTH": "535 5.7.8 wrong"}, "M8", "violated", "AUTH is listened to without TLS"),
    ("auth", {"AUTH": "334 "}, "M8", "violated", "AUTH is listened to without TLS"),
    ("auth", {"AUTH": "530 5.7.0 Must issue a STARTTLS command first"}, "M8", "compliant", ""),
    ("auth", {"AUTH": "454 4.7.0 later"}, "M8", "unknown", "deferred"),
]  # fmt: skip


@pytest.mark.parametrize(("test", "otherwise", "control", "verdict", "words"), ANSWERS)
def test_every_answer_has_its_verdict(test: str, otherwise: Script, control: str, verdict: str, words: str) -> None:
    results, _ = probed({**GOOD, **otherwise}, test, pause=0.001)
    finding = one(findings(results, "mx1"), control)
    assert finding.verdict == verdict, finding.reason
    assert words in f"{finding.reason} {finding.packet}"
    if verdict != "compliant":
        assert finding.evidence, "the transcript is missing"
        assert finding.mend


def test_a_listed_client_must_be_refused() -> None:
    results, _ = probed({**GOOD, "RCPT": "550 5.7.1 listed, see https://example.net/why"}, "recipients", listed=True)
    assert one(findings(results, "mx1"), "M5").verdict == "compliant"
    results, _ = probed(GOOD, "recipients", listed=True)
    assert one(findings(results, "mx1"), "M5").verdict == "violated"
    unknown = {**GOOD, "RCPT": lambda line: f"550 5.1.1 {line[8:]} unknown"}
    assert one(findings(probed(unknown, "recipients", listed=True)[0], "mx1"), "M5").verdict == "unknown"


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("550 5.7.1 Service unavailable; client [203.0.113.79] blocked using zen.example.net", "violated"),
        ("554 5.7.1 go away", "unknown"),
        ("450 4.7.1 later", "unknown"),
    ],
)
def test_a_client_that_is_not_listed_must_not_be_refused_as_listed(reply: str, verdict: str) -> None:
    """As a server does that takes 127.255.255.254 for a listing."""
    results, _ = probed({**GOOD, "RCPT": reply}, "recipients", listed=False)
    assert one(findings(results, "mx1"), "M3").verdict == verdict
    assert one(findings(probed(GOOD, "recipients", listed=False)[0], "mx1"), "M3").verdict == "compliant"


def test_an_outbound_host_is_no_mx() -> None:
    results, _ = probed(GOOD, "recipients", role="outbound")
    assert one(findings(results, "out1"), "M1").verdict == "violated"
    results, _ = probed({**GOOD, "RCPT": "554 5.7.1 no"}, "recipients", role="outbound")
    assert one(findings(results, "out1"), "M1").verdict == "compliant"


def test_a_catch_all_is_not_taken_for_a_relay() -> None:
    """It takes any mailbox of its own domain, and with it every trick that looks like one."""

    def catch_all(line: str) -> str:
        return "250 2.1.5 Ok" if line.endswith("@example.net>") else "554 5.7.1 Relay access denied"

    finding = one(findings(probed({**GOOD, "RCPT": catch_all}, "relay")[0], "mx1"), "M2")
    # A subdomain of our own choosing is served too, and that is no catch-all of the domain.
    assert finding.verdict == "unknown"
    assert "any mailbox is taken" in finding.reason


def test_a_percent_hack_is_a_relay_where_the_domain_is_no_catch_all() -> None:
    def hack(line: str) -> str:
        return "250 2.1.5 Ok" if "%lab.example.org@example.net>" in line else recipient(line)

    results, _ = probed({**GOOD, "RCPT": hack}, "relay")
    wrong = {result.case for result in results if result.verdict == "violated"}
    assert {case.split(",")[0] for case in wrong} == {
        "percent at the own domain", "source route and percent", "wide @ and percent in UTF-8",
    }  # fmt: skip
    assert len(wrong) == 3 * 8


def test_ipv6_is_probed_with_its_own_literals() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")

    def numbered(line: str) -> str:
        return "250 2.1.5 Ok" if line.endswith("%lab.example.org@[IPv6:::1]>") else recipient(line)

    with serving({**GOOD, "RCPT": numbered}, address="::1") as server:
        finding = one(findings(probe(asking(server.port, "relay", addresses=("::1",))), "mx1"), "M2")
    assert (finding.family, finding.verdict) == (6, "violated")
    assert "client ::1, MAIL FROM:<>, RCPT TO:<relay-test%lab.example.org@[IPv6:::1]>: 250" in finding.packet


def test_postscreen_wants_a_second_connection() -> None:
    calls = []

    def deep(line: str) -> str:
        calls.append(line)
        return "450 4.3.2 Service currently unavailable" if len(calls) == 1 else recipient(line)

    results, server = probed({**GOOD, "RCPT": deep}, "recipients")
    assert {result.verdict for result in results} == {"compliant"}
    assert server.connections == 5, "one that knocks, two that ask whether it is heard, one for each mailbox"


def test_a_greeting_pause_is_waited_for() -> None:
    def slow(_: str) -> str:
        time.sleep(1)
        return "220 mx1.example.net ESMTP"

    results, _ = probed({**GOOD, "greeting": slow}, "recipients", limits=Limits(0.5, 5, 0.5, 10))
    assert {result.verdict for result in results} == {"compliant"}


# -- the server's limits -----------------------------------------------------------------------------------------


def test_the_matrix_runs_in_parallel_within_bounds() -> None:
    def slow(line: str) -> str:
        time.sleep(0.02)
        return recipient(line)

    results, server = probed({**GOOD, "RCPT": slow}, "relay", parallel=8)
    assert {result.verdict for result in results} == {"compliant"}
    assert 4 <= server.most <= 8 + 2  # the server counts a connection for a moment after it is closed


def test_421_brings_fewer_connections_and_an_answer_in_the_end() -> None:
    with serving(GOOD) as server:

        def greeting(_: str) -> str:
            time.sleep(0.005)
            return "421 4.7.0 too many connections" if server.open > 3 else "220 mx1.example.net ESMTP"

        server.script["greeting"] = greeting
        results = probe(asking(server.port, "relay", parallel=12, pause=0.02))
    assert {result.verdict for result in results} == {"compliant"}
    assert server.connections < 257 + 60, "it went on as before"


def test_a_server_that_is_always_busy_is_unknown() -> None:
    results, _ = probed({**GOOD, "greeting": "421 4.3.2 closed"}, "recipients", pause=0.001)
    assert {result.verdict for result in results} == {"unknown"}
    assert "421" in results[0].reason


def test_the_connection_limit_is_counted() -> None:
    with serving(GOOD) as server:
        server.script["greeting"] = lambda _: "421 4.7.0 too many" if server.open > 5 else "220 mx1"
        kept = one(findings(probe(asking(server.port, "connections", allowed_connections=5, pause=0.01)), "mx1"), "M10")
    # 421 is what is asked for here, so that it is an answer and no reason to come again.
    assert (kept.verdict, server.connections) == ("compliant", 1 + 6), "one knocks before"
    results, _ = probed(GOOD, "connections", allowed_connections=5)
    assert "6 connections of one client are served" in one(findings(results, "mx1"), "M10").reason


# -- misbehaviour ------------------------------------------------------------------------------------------------


def drip(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        for octet in b"220 " + b"a" * 5000:
            connection.sendall(bytes([octet]))
            time.sleep(0.05)


def flood(piece: bytes) -> Callable[[socket.socket], None]:
    def send(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            for _ in range(100_000):
                connection.sendall(piece)

    return send


HOSTILE: dict[str, tuple[Callable[[socket.socket], None], str]] = {
    "endless line": (flood(b"a" * 4096), "octets"),
    "endless reply": (flood(b"220-more\r\n" * 100), "lines"),
    "binary": (lambda connection: connection.sendall(bytes(range(256)) + b"\r\n"), "not SMTP"),
    "nothing": (lambda _: time.sleep(1.5), "no whole answer in time"),
    "slow drip": (drip, "no whole answer in time"),
    "gone at once": (lambda _: None, "closed the connection"),
    "half a reply": (lambda connection: connection.sendall(b"220-mx1\r\n220"), "closed the connection"),
    "TLS in the clear": (lambda connection: connection.sendall(b"\x16\x03\x01\x00\x05\x01\n"), "not SMTP"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_server_is_unknown_in_bounded_time(name: str) -> None:
    act, words = HOSTILE[name]
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        act(connection)

        threading.Thread(target=serve, daemon=True).start()
        settings = asking(listener.getsockname()[1], "recipients", "commands", limits=Limits(1, 1, 1, 2), time_limit=10)
        began = time.monotonic()
        results = probe(dataclasses.replace(settings, recipients=("postmaster@example.net",), pause=0.01))
        assert time.monotonic() - began < 12
        listener.shutdown(socket.SHUT_RDWR)
    assert {result.verdict for result in results} == {"unknown"}
    assert words in results[0].reason or "lost" in results[0].reason, results[0].reason
    assert all(len(line) < 400 for result in results for line in result.transcript)


def test_nothing_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    results = probe(asking(port, "recipients", "relay"))
    assert len(results) == 2 + 257
    assert {result.verdict for result in results} == {"unknown"}
    assert f"no connection to 127.0.0.1 port {port}: Connection refused" in results[0].reason


def test_what_was_not_asked_in_time_is_unknown() -> None:
    def slow(line: str) -> str:
        time.sleep(0.3)
        return recipient(line)

    results, _ = probed({**GOOD, "RCPT": slow}, "relay", time_limit=2)
    assert len(results) == 257
    assert (results[-1].verdict, results[-1].reason) == ("unknown", "the time limit was over before this case")


def test_a_server_that_does_not_answer_is_not_asked_hundreds_of_times() -> None:
    results, server = probed({**GOOD, "greeting": ""}, "relay", limits=Limits(1, 1, 1, 5))
    assert len(results) == 257
    assert {result.verdict for result in results} == {"unknown"}
    assert server.connections < 5


def test_control_characters_never_reach_a_transcript() -> None:
    results, _ = probed({**GOOD, "RCPT": "250 \x1b[2J\x07\x9b\x00"}, "relay")
    text = "".join(line for result in results for line in (*result.transcript, result.line, result.reason))
    assert text.isprintable()


# -- secrets -----------------------------------------------------------------------------------------------------


def test_a_key_in_a_reply_is_reported_and_hidden() -> None:
    def shown(_: str) -> str:
        return f"550 5.7.1 blocked using {KEY.upper()}.zen.dq.spamhaus.net"

    for known in (KEY, ""):
        results, _ = probed({**GOOD, "RCPT": shown}, "recipients", listed=True, dnsbl_key=known)
        finding = one(findings(results, "mx1"), "M3")
        assert (finding.verdict, "a reply shows a secret" in finding.reason) == ("violated", True)
        assert KEY not in repr((results, finding)).lower()


def test_the_settings_do_not_show_their_secrets() -> None:
    text = repr(asking(25, user=USER, dnsbl_key=KEY))
    assert USER.password not in text
    assert KEY not in text


# -- submission --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key and certificate of out1.example.net, in one file."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=out1.example.net",
    ]
    names = ["-addext", "subjectAltName=DNS:out1.example.net"]
    made = subprocess.run([*command, *names, "-keyout", "-", "-out", "-"], capture_output=True, check=True)
    path.write_bytes(made.stdout)
    return path


def server_side(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


LOGIN = base64.b64encode(f"\0{USER.name}\0{USER.password}".encode()).decode()


def submission() -> Script:
    """A good submission service: the login's own address only, after the login, and nothing infected."""

    def message(text: str) -> str:
        parts = [part.get_payload(decode=True) or b"" for part in email.message_from_string(text).walk()]
        bad = any(hides(part) for part in parts if isinstance(part, bytes))
        return "554 5.7.1 infected" if bad else "250 2.0.0 Ok: queued"

    return {
        **GOOD,
        "EHLO": "250-out1.example.net\r\n250-STARTTLS\r\n250 SIZE 1000000",
        "AUTH": "530 5.7.0 Must issue a STARTTLS command first",
        f"AUTH PLAIN {LOGIN}": "235 2.7.0 Authentication successful",
        "MAIL": "553 5.7.1 not owned by user",
        f"MAIL FROM:<{USER.sender}>": "250 2.1.0 Ok",
        "RCPT": "250 2.1.5 Ok",
        "message": message,
    }


def hides(octets: bytes) -> bool:
    if messages.eicar() in octets:
        return True
    if octets[:2] != b"PK":
        return False
    with zipfile.ZipFile(io.BytesIO(octets)) as archive:
        return any(hides(archive.read(one)) for one in archive.infolist() if not one.flag_bits & 1)


def sending(server: Server, certificate: Path, *tests: str, kind: str = "submission", **changes: object) -> Settings:
    trust = ssl.create_default_context(cafile=str(certificate))
    fixed = {
        "role": "outbound",
        "name": "out1.example.net",
        "ports": ((kind, server.port),),
        "user": USER,
        "trust": trust,
    }
    return asking(server.port, *tests, **{**fixed, "limits": Limits(2, 2, 5, 20), **changes})


@pytest.mark.parametrize("kind", ["submission", "submissions"])
def test_a_good_submission_service(kind: str, certificate: Path) -> None:
    with serving(submission(), server_side(certificate), at_once=kind == "submissions") as server:
        tests = ("relay", "auth", "tls", "sender", "eicar", "smuggling")
        results = probe(sending(server, certificate, *tests, kind=kind, padding=300_000))
    assert {(result.case, result.reason) for result in results if result.verdict != "compliant"} == set()
    port = {"submission": "submission on", "submissions": "submissions on"}[kind]
    assert {finding.attachment.rpartition(" ")[0] for finding in findings(results, "out1")} == {port}
    assert {result.control for result in results} == {"M2", "M6", "M8", "M9", "M13"}
    assert LOGIN not in repr(results)


MUTANTS = [
    # test, what the server says otherwise, control, verdict, words
    ("sender", {"MAIL FROM:<>": "250 2.1.0 Ok"}, "M9", "violated", "the null sender is accepted"),
    ("sender", {"MAIL FROM:<postmaster@example.net>": "250 2.1.0 Ok"}, "M9", "violated", "another's address"),
    ("sender", {f"AUTH PLAIN {LOGIN}": "535 5.7.8 wrong"}, "M9", "unknown", "login: 535"),
    ("sender", {"RCPT": "450 4.7.1 later"}, "M9", "unknown", "own address is not accepted"),
    ("sender", {f"AUTH PLAIN {LOGIN}": "450 4.7.1 Error: too many AUTH commands"}, "M9", "unknown", "wants less: 450"),
    ("relay", {"MAIL": "250 2.1.0 Ok"}, "M2", "violated", "accepted"),
    ("eicar", {"message": "250 2.0.0 Ok: queued"}, "M6", "violated", "5 of 5 cases: attachment"),
    ("eicar", {"message": "451 4.7.1 later"}, "M6", "unknown", "deferred"),
    ("eicar", {"message": "552 5.3.4 too big"}, "M6", "unknown", "refused for its size"),
    ("gtube", {}, "M6", "violated", "the test spam"),
    ("gtube", {"message": "554 5.7.1 Gtube pattern"}, "M6", "compliant", ""),
    ("scanner_down", {"message": "250 2.0.0 Ok: queued"}, "M7", "violated", "accepted without a scan"),
    ("scanner_down", {}, "M7", "unknown", "the scanner is not down"),
    ("encrypted", {}, "M6", "violated", "no scanner can have read it"),
    ("encrypted", {"message": "554 5.7.1 encrypted"}, "M6", "compliant", ""),
    ("limits", {}, "M10", "violated", "101 recipients of one message are accepted"),
    ("limits", {}, "M10", "violated", "22 messages of one user at once are accepted"),
    ("limits", {"RCPT": "554 5.7.1 no"}, "M10", "unknown", "refused, and not for how many there are"),
    ("scanner_down", {"message": "451 4.7.1 try again"}, "M7", "compliant", ""),
    ("scanner_down", {f"MAIL FROM:<{USER.sender}>": "454 4.7.1 milter"}, "M7", "compliant", ""),
    ("scanner_down", {"message": "554 5.7.1 no"}, "M7", "unknown", "refused for good"),
    ("auth", {"EHLO": "250-out1\r\n250-STARTTLS\r\n250 AUTH PLAIN"}, "M8", "violated", "offered without TLS"),
    ("tls", {"EHLO": "250 out1"}, "M8", "violated", "without TLS"),
]


@pytest.mark.parametrize(("test", "otherwise", "control", "verdict", "words"), MUTANTS)
def test_every_mutant_of_submission_has_its_verdict(
    test: str, otherwise: Script, control: str, verdict: str, words: str, certificate: Path
) -> None:
    with serving({**submission(), **otherwise}, server_side(certificate)) as server:
        finding = one(findings(probe(sending(server, certificate, test, padding=10_000)), "out1"), control)
    assert finding.verdict == verdict, finding.reason
    assert words in f"{finding.reason} {finding.packet}"
    assert USER.password not in repr(finding)
    assert LOGIN not in repr(finding)


TAKES_ALL: Script = {"MAIL": "250 2.1.0 Ok", "RCPT": "250 2.1.5 Ok", "AUTH": "503 5.5.1 no"}


@pytest.mark.parametrize(
    ("kind", "otherwise", "verdict"),
    [
        ("submission", {"EHLO": "250 out1", "STARTTLS": "502 5.5.1 no"}, "violated"),
        ("submission", {"STARTTLS": "501 5.5.4 no"}, "unknown"),
        ("smtp", {"EHLO": "502 5.5.1 no", "HELO": "250 out1"}, "violated"),
        ("smtp", {"EHLO": "502 5.5.1 no", "HELO": "554 5.7.1 no"}, "compliant"),
        ("smtp", {"greeting": "554 5.7.1 no"}, "compliant"),
    ],
)
def test_an_open_relay_shows_however_it_is_spoken_to(
    kind: str, otherwise: Script, verdict: str, certificate: Path
) -> None:
    with serving({**submission(), **TAKES_ALL, **otherwise}) as server:
        results = probe(sending(server, certificate, "relay", kind=kind, user=None))
    assert {result.verdict for result in results} == {verdict}


def test_an_open_relay_shows_under_the_tls_that_it_insists_on(certificate: Path) -> None:
    secured = [False]

    def mail(_: str) -> str:
        return "250 2.1.0 Ok" if secured[0] else "530 5.7.0 Must issue a STARTTLS command first"

    def greeted(_: str) -> str:
        secured[0] = "STARTTLS" in server.lines
        return "250-out1\r\n250 STARTTLS"

    script: Script = {**submission(), **TAKES_ALL, "EHLO": greeted, "MAIL": mail}
    with serving(script, server_side(certificate)) as server:
        results = probe(sending(server, certificate, "relay", kind="smtp", user=None, parallel=1))
    assert {result.verdict for result in results} == {"violated"}


def test_the_tail_is_found_by_a_server_that_reads_to_the_end_only(certificate: Path) -> None:
    """A scanner that reads the first 200 KB: what is behind gets through, and only that."""
    good = submission()

    def message(text: str) -> str:
        return str(good["message"](text[:200_000]))  # type: ignore[operator]

    with serving({**good, "message": message}, server_side(certificate)) as server:
        results = probe(sending(server, certificate, "eicar", padding=400_000))
    assert [result.case for result in results if result.verdict == "violated"] == ["tail behind padding"]


def test_the_password_goes_only_to_a_server_that_proves_its_name(certificate: Path) -> None:
    for changes in ({"trust": None}, {"name": "other.example.net"}):
        with serving(submission(), server_side(certificate)) as server:
            results = probe(sending(server, certificate, "sender", **changes))
        assert {result.verdict for result in results} == {"unknown"}
        assert "the certificate is not trusted" in results[0].reason
        assert not [line for line in server.lines if line.startswith("AUTH")]


@pytest.mark.parametrize("reply", ["454 4.7.0 not now", "250 2.0.0 Ok"])
def test_the_password_is_never_said_without_tls(certificate: Path, reply: str) -> None:
    with serving({**submission(), "STARTTLS": reply}) as server:
        probe(sending(server, certificate, "sender", "auth", "eicar", "gtube", "scanner_down", "smuggling"))
    assert server.lines
    assert not [line for line in server.lines if LOGIN in line]


# -- smuggling ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", tricks.ENDINGS, ids=lambda ending: ending.name)
def test_an_ending_that_ends_a_message_is_found(ending: tricks.Ending) -> None:
    results, _ = probed({**GOOD, "ends": ending.octets.decode()}, "smuggling")
    wrong = {result.case for result in results if result.verdict == "violated"}
    assert ending.name in wrong
    # Another ending can only be taken where its octets hold this one; a right one holds two of them itself.
    if ending.octets not in b"\r\n.\r":
        assert wrong <= {other.name for other in tricks.ENDINGS if ending.octets in b"m" + other.octets}


def test_an_ending_that_is_answered_late_is_found_all_the_same() -> None:
    def slow(_: str) -> str:
        time.sleep(0.3)
        return "250 2.0.0 Ok: queued"

    results, _ = probed({**GOOD, "ends": "\n.\n", "message": slow}, "smuggling")
    assert "<LF>.<LF>" in {result.case for result in results if result.verdict == "violated"}


def test_a_bare_line_feed_may_be_refused() -> None:
    with serving({**GOOD, "ends": "\n.\n", "message": "521 5.5.2 Error: bare <LF> received"}) as server:
        results = probe(asking(server.port, "smuggling"))
    assert {result.verdict for result in results} == {"compliant"}


# -- the DNSBL ---------------------------------------------------------------------------------------------------


def entry(address: str) -> str:
    """The name of an address in a DNSBL, without the zone."""
    return (
        ipaddress.ip_address(address).reverse_pointer.rpartition(".in-addr")[0]
        or (ipaddress.ip_address(address).reverse_pointer.rpartition(".ip6")[0])
    )


LISTED = {entry("127.0.0.2"): ("127.0.0.2", "127.0.0.4"), entry("::ffff:7f00:2"): ("127.0.0.2",)}


def self_test(answers: Mapping[str, tuple[str, ...]], key: str = "") -> dict[str, str]:
    zone = f"{key}.zen.example.net" if key else "zen.example.net"

    def ask(name: str) -> tuple[str, ...]:
        assert name.endswith(f".{zone}")
        return answers.get(name.removesuffix(f".{zone}"), ())

    results = dnsbl("zen.example.net", key, ask)
    assert key == "" or key not in repr(results)
    return {result.case.removeprefix("test entry "): result.verdict for result in results}


def test_the_test_entries_of_a_dnsbl() -> None:
    good = dict.fromkeys(["127.0.0.2", "127.0.0.1", "::ffff:7f00:2", "::ffff:7f00:1"], "compliant")
    assert self_test(LISTED) == good
    assert self_test(LISTED, KEY) == good
    assert self_test({}) == good | {"127.0.0.2": "violated", "::ffff:7f00:2": "unknown"}
    assert self_test(LISTED | {entry("127.0.0.1"): ("127.0.0.2",)}) == good | {"127.0.0.1": "violated"}


@pytest.mark.parametrize("code", ["127.255.255.252", "127.255.255.254", "127.255.255.255", "192.0.2.1"])
def test_an_error_code_is_no_listing(code: str) -> None:
    assert self_test(LISTED | {entry("127.0.0.2"): (code,)})["127.0.0.2"] == "violated"


def test_a_dnsbl_that_is_down_is_violated() -> None:
    def down(_: str) -> tuple[str, ...]:
        raise NoAnswer("SERVFAIL")

    def stuck(_: str) -> tuple[str, ...]:
        time.sleep(5)
        return ()

    for ask in (down, stuck):
        results = dnsbl("zen.example.net", "", ask, seconds=0.1)
        assert {result.verdict for result in results} == {"violated"}
        assert "does not answer" in findings(results, "mx1")[0].reason


# -- addresses and messages --------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["192.0.2.10", "2001:db8:ffff::10"])
def test_the_matrix_is_32_by_8_and_no_address_breaks_a_line(address: str) -> None:
    recipients = tricks.recipients(TARGET, "example.net", "mx1.example.net", address)
    senders = tricks.senders(TARGET, "s@lab.example.org", "example.net", "mx1.example.net", address)
    assert (len({one.address for one in recipients}), len({one.address for one in senders})) == (32, 8)
    assert len({one.name for one in recipients}) == 32
    for trick in (*recipients, *senders):
        assert not set("\r\n") & set(trick.address + trick.control)
    user, domain = TARGET.split("@")
    assert all(user in one.address.lower() and domain in one.address.lower() for one in recipients)


def test_no_file_of_the_project_is_the_test_virus(root: Path) -> None:
    virus = messages.eicar()
    assert hashlib.md5(virus).hexdigest() == "44d88612fea8a8f36de82e1278abb02f"  # as EICAR publishes it
    spam = b"-".join([b"STANDARD", b"ANTI", b"UBE", b"TEST"])
    for path in (root / "plugins" / "module_utils" / "mail").rglob("*.py*"):
        octets = path.read_bytes()
        assert virus[:30] not in octets
        assert virus[-30:] not in octets
        assert spam not in octets


@pytest.mark.parametrize("wrapping", messages.WRAPPINGS)
def test_every_wrapping_holds_the_virus(wrapping: str) -> None:
    envelope = messages.Envelope("a@example.net", TARGET, "probe.example.org", "token")
    octets = messages.infected(envelope, wrapping, 100_000)
    parts = [part.get_payload(decode=True) or b"" for part in email.message_from_bytes(octets).walk()]
    assert any(hides(part) for part in parts if isinstance(part, bytes))
    assert b"\n" not in octets.replace(b"\r\n", b"")
    assert not re.search(rb"(?m)^\.(?!\.)", octets)
    assert max(len(line) for line in octets.split(b"\r\n")) <= 998
    if wrapping == "tail behind padding":
        assert 100_000 <= octets.rindex(b"test.com") <= 105_000


# -- options -----------------------------------------------------------------------------------------------------

OPTIONS: dict[str, object] = {
    name: option.get("default") for name, option in argument_spec(smtp_probe.DOCUMENTATION).items()
} | {
    "addresses": ["192.0.2.10"],
    "name": "mx1.example.net",
    "role": "inbound",
    "domains": ["example.net"],
    "target": TARGET,
}


def test_the_spec_of_the_module_is_its_documentation() -> None:
    assert argument_spec(smtp_probe.DOCUMENTATION) == {
        name: {key: value for key, value in option.items() if key != "no_log"} | nested(option)
        for name, option in smtp_probe.ARGUMENTS.items()
    }


def nested(option: Mapping[str, object]) -> dict[str, object]:
    options = option.get("options")
    if not isinstance(options, dict):
        return {}
    return {"options": {name: {k: v for k, v in one.items() if k != "no_log"} for name, one in options.items()}}


def test_the_defaults_ask_everything_but_what_must_be_asked_for() -> None:
    settings = read_settings(OPTIONS, "probe.example.org", sends=True)
    assert set(settings.tests) == set(TESTS) - ASKED
    assert settings.ports == (("smtp", 25),)
    assert settings.recipients == ("postmaster@example.net", "abuse@example.net")
    assert set(SENDING) <= {line.split(":")[0] for line in left_out(settings)}
    outbound = read_settings(OPTIONS | {"role": "outbound"}, "probe.example.org", sends=True)
    assert outbound.ports == (("smtp", 25), ("submission", 587), ("submissions", 465))
    assert "sender: needs user, and a service that takes a login" in left_out(outbound)


def test_a_key_is_asked_in_its_own_zone() -> None:
    assert (PUBLIC_ZONE, DQS_ZONE) == (mail_policy.DNSBL_ZONE, mail_policy.DQS_ZONE)
    for zone, key, asked in (
        ("zen.spamhaus.org", None, "zen.spamhaus.org"),
        ("zen.spamhaus.org.", KEY, "zen.dq.spamhaus.net"),
        ("bl.example.net", KEY, "bl.example.net"),
    ):
        settings = read_settings(OPTIONS | {"dnsbl_zone": zone, "dnsbl_key": key}, "probe.example.org", sends=True)
        assert settings.dnsbl_zone == asked


def test_check_mode_sends_nothing() -> None:
    options = OPTIONS | {"send": True, "tests": ["relay", "smuggling"]}
    assert read_settings(options, "probe.example.org", sends=False).tests == ("relay",)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"target": "x@example.net"}, "target: x@example.net is at a domain of the server"),
        ({"target": "x@sub.example.net"}, "is at a domain of the server"),
        ({"target": "x@y\r\nDATA"}, "no plain mail address"),
        ({"target": '"x y"@example.org'}, "no plain mail address"),
        ({"recipients": ["x@example.org"]}, "recipients: x@example.org is at none of the domains"),
        ({"addresses": ["mx1.example.net"]}, "'mx1.example.net' is no IP address"),
        ({"addresses": []}, "each needs one at least"),
        ({"source": ["here"]}, "'here' is no IP address"),
        ({"ehlo": "a b"}, "ehlo: 'a b' is no host name"),
        ({"name": f"{'a' * 64}.example.net"}, "is no host name"),
        ({"client_name": "h7\r\nQUIT"}, "client_name"),
        ({"tests": ["eicar", "smuggling"]}, "tests: eicar, smuggling send messages; add send: true"),
        ({"user": {"name": "a\0b", "password": "c", "sender": "a@example.net"}}, "control characters"),
        ({"ca_path": "/nonexistent.pem"}, "ca_path: /nonexistent.pem cannot be read"),
        ({"parallel": 0}, "parallel: 0 is out of range; write a number from 1 to 100"),
        ({"services": [{"service": "smtp", "port": 99999}]}, "services: 99999 is out of range"),
    ],
)
def test_a_bad_option_is_told(change: dict[str, object], words: str) -> None:
    with pytest.raises(BadSettings, match=re.escape(words)):
        read_settings(OPTIONS | change, "probe.example.org", sends=True)


@given(st.text(max_size=60))
def test_no_text_passes_as_an_address_that_breaks_a_line(text: str) -> None:
    try:
        settings = read_settings(OPTIONS | {"target": text}, "probe.example.org", sends=True)
    except BadSettings:
        return
    assert re.fullmatch(r"[!-~]+@[a-zA-Z0-9.-]+", settings.target)


def test_the_probe_needs_the_standard_library_alone(root: Path) -> None:
    name = "ansible_collections.isp.hardening.plugins.module_utils.mail.probe.schedule"
    code = f"import sys; sys.path.insert(0, '.collections'); import {name}"
    answer = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], cwd=root, capture_output=True, check=False, text=True
    )
    assert answer.returncode == 0, answer.stderr
