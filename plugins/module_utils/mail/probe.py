# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a mail host does, asked over SMTP: each case in a connection of its own, nothing on anyone's behalf.

A case is a question with one right kind of answer. Its verdict is *compliant*, *violated* with the transcript,
or *unknown*: deferred (4xx), no answer in time, connection lost. An early refusal is never taken for a closed
hole where it may only be greylisting or a pause.

postscreen (Postfix, POSTSCREEN_README) pauses before its greeting, answers 450 4.3.2 once to a client that
passed its deep tests, and remembers a client that passed for a day or more. So greetings are waited for,
450 4.3.2 brings a new connection, and the early talker comes first, before anything that could pass.

Sources: RFC 5321, RFC 2920 (pipelining), RFC 3207 and RFC 8314 (TLS), RFC 8996 (TLS 1.0 and 1.1 are over), RFC 4954
(AUTH), RFC 5782 (DNSBL test entries), SEC Consult 2023 (SMTP smuggling), Spamhaus (DNSBL return codes), Sobig.F
(mail over the MX of the parent domains of the own PTR name).
"""

from __future__ import annotations

import base64
import contextlib
import ipaddress
import re
import secrets
import socket
import ssl
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from ..findings import COMPLIANT, UNKNOWN, VIOLATED, Evidence, Finding
from . import messages, tricks
from .dialogue import Busy, Dialogue, Limits, Lost, Reply

INBOUND, OUTBOUND = "inbound", "outbound"
# What listens: mail from anyone, from users with STARTTLS, from users under TLS from the start.
SMTP, SUBMISSION, SUBMISSIONS = "smtp", "submission", "submissions"
PORTS = {SMTP: 25, SUBMISSION: 587, SUBMISSIONS: 465}

# In the order in which they run; `asked` ones run only when they are named, `sending` ones speak DATA.
TESTS = (
    "early_talker", "recipients", "relay", "sobig", "commands", "pipelining", "auth", "tls", "sender", "dnsbl",
    "smuggling", "eicar", "gtube", "scanner_down", "connections",
)  # fmt: skip
ASKED = frozenset({"smuggling", "eicar", "gtube", "scanner_down", "connections"})
SENDING = frozenset({"smuggling", "eicar", "gtube", "scanner_down"})

ATTEMPTS = 5  # at one case
EVIDENCE_LINES = 40  # of a finding
NAMED_CASES = 6  # in a finding's reason

TITLES = {
    "M2": "Mail of strangers to strangers is refused",
    "M3": "The DNSBL answers, its error codes are not listings, its key is not shown",
    "M5": "A client that the DNSBL lists is refused",
    "M6": "Malware and spam are refused in the session, in whatever they are wrapped",
    "M7": "Mail is deferred while the scanner is down",
    "M8": "AUTH is under TLS only, and TLS is 1.2 or newer",
    "M9": "A user sends with addresses of their own only, and not with the null sender",
    "M10": "One client holds no more connections than it may",
    "M12": "Postmaster and abuse are reachable",
    "M13": "No VRFY, EXPN, ETRN; nobody speaks before their turn; messages end in one way",
}
MENDS = {
    "M2": "Let smtpd_relay_restrictions end with reject_unauth_destination, without any permit_* that strangers match",
    "M3": "Query the DNSBL through an own recursive resolver, filter its codes, and hide its key in the replies",
    "M5": "Let postscreen enforce the DNSBL's XBL codes",
    "M6": "Scan whole messages, those of authenticated users too, with no limit below the message size limit",
    "M7": "Let the milter and the scanner fail with 4xx: milter_default_action = tempfail",
    "M8": "Offer AUTH under TLS only (smtpd_tls_auth_only = yes), and no protocol older than TLS 1.2",
    "M9": "Reject senders that are not the login's, and the null sender, on the submission services",
    "M10": "Set smtpd_client_connection_count_limit to the policy's number",
    "M12": "Accept postmaster@ and abuse@ of every domain, and deliver them to somebody who reads them",
    "M13": (
        "Set disable_vrfy_command = yes, smtpd_etrn_restrictions = reject, smtpd_forbid_bare_newline = normalize, "
        "smtpd_forbid_unauth_pipelining = yes, postscreen_greet_action = enforce"
    ),
}

# Spamhaus answers for its public zone under another name behind a key, as policy.py has it.
PUBLIC_ZONE, DQS_ZONE = "zen.spamhaus.org", "zen.dq.spamhaus.net"

# Spamhaus: wrong zone name, public resolver, too many queries. RFC 5782 knows nothing of 127.255.0.0/16.
_DNSBL_ERRORS = ipaddress.ip_network("127.255.0.0/16")
_LISTINGS = ipaddress.ip_network("127.0.0.0/8")


_MAILBOX = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*@(?:[A-Za-z0-9-]+\.)+[A-Za-z0-9-]+")
_HOST_NAME = re.compile(r"(?:[A-Za-z0-9_-]+\.)*[A-Za-z0-9-]+\.?")
# The numbers among the options, with the least and the most that make sense.
_BOUNDS = (
    ("padding", 1, 2**30),
    ("allowed_connections", 1, 1000),
    ("parallel", 1, 100),
    ("greeting_timeout", 1, 600),
    ("timeout", 1, 600),
    ("time_limit", 1, 3600),
)


@dataclass(frozen=True, slots=True)
class User:
    """A mailbox of the operator that may send: the login, and the address that belongs to it."""

    name: str
    password: str = field(repr=False)
    sender: str


@dataclass(frozen=True, slots=True)
class Settings:
    """What is asked of whom. Times in seconds. Recipients are mailboxes of the operator and nobody else's.

    `target` is the mailbox at a domain that the server does not serve, `recipients` are those that it must
    take. `ports` are pairs of one of PORTS and a number. `listed`: the DNSBL lists this
    client. `client_name` is the PTR name of this client. `allowed_connections` is the number that one may hold.
    """

    role: str
    name: str
    addresses: tuple[str, ...]
    ports: tuple[tuple[str, int], ...]
    domains: tuple[str, ...]
    tests: tuple[str, ...]
    ehlo: str
    target: str
    recipients: tuple[str, ...]
    stranger: str
    listed: bool = False
    client_name: str = ""
    dnsbl_zone: str = ""
    dnsbl_key: str = field(default="", repr=False)
    user: User | None = None
    padding: int = 20_000_000
    allowed_connections: int = 20
    parallel: int = 10
    source: str = ""
    trust: ssl.SSLContext | None = None  # the system's authorities when it is not given
    limits: Limits = field(default_factory=Limits)
    time_limit: float = 300.0
    pause: float = 2.0

    @property
    def hidden(self) -> tuple[str, ...]:
        """What no output may show, in the forms in which it could come back."""
        if not self.user:
            return (self.dnsbl_key,)
        plain = f"\0{self.user.name}\0{self.user.password}"
        coded = [base64.b64encode(text.encode()).decode() for text in (plain, self.user.password)]
        return (self.dnsbl_key, self.user.password, *coded)


@dataclass(frozen=True, slots=True)
class Service:
    """Where something listens."""

    address: str
    kind: str
    port: int

    @property
    def name(self) -> str:
        return f"{'smtpd' if self.kind == SMTP else self.kind} on {self.port}"

    @property
    def submission(self) -> bool:
        return self.kind != SMTP

    @property
    def family(self) -> int:
        return ipaddress.ip_address(self.address).version


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a question; `line` is the exchange that decides, in one line."""

    verdict: str
    reason: str = ""
    line: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """A case and its answer. `transcript` is whole for what is not compliant, and empty otherwise."""

    test: str
    case: str
    control: str
    service: str
    address: str
    verdict: str
    reason: str
    line: str
    transcript: tuple[str, ...] = ()


class Again(Exception):
    """450 4.3.2: the server wants the same again in a new connection."""


class Shut(Exception):
    """The server refused before the question: greeting, EHLO, STARTTLS or login, with the reply."""

    def __init__(self, reply: Reply, stage: str) -> None:
        super().__init__(f"{stage}: {reply}")
        self.reply = reply


class BadSettings(Exception):
    """What was asked cannot be done; the text says which option, why, and what to do."""


def read_settings(options: Mapping[str, Any], host: str, *, sends: bool) -> Settings:
    """The options of the module smtp_probe as settings. Raises BadSettings.

    `host` is the name of the host that the probe runs on. Without `sends` the tests that send are left out.
    """
    domains = tuple(domain.strip(".").lower() for domain in options["domains"])
    if not domains or not options["addresses"]:
        raise BadSettings("domains and addresses: each needs one at least")
    for address in (*options["addresses"], *([options["source"]] if options["source"] else [])):
        _checked_address(address)
    recipients = options["recipients"] or [f"{user}@{domain}" for domain in domains for user in ("postmaster", "abuse")]
    mailboxes = {"target": options["target"], "stranger": options["stranger"] or options["target"]}
    for option, mailbox in mailboxes.items():
        domain = _checked_mailbox(option, mailbox)
        if any(f".{domain}".endswith(f".{own}") for own in domains):
            raise BadSettings(f"{option}: {mailbox} is at a domain of the server; name a mailbox of your own elsewhere")
    for recipient in recipients:
        domain = _checked_mailbox("recipients", recipient)
        if domain not in domains:
            raise BadSettings(
                f"recipients: {recipient} is at none of the domains; name mailboxes that the server serves"
            )
    ehlo = options["ehlo"] or host
    for option, name in (("ehlo", ehlo), ("name", options["name"]), ("client_name", options["client_name"] or "a.b")):
        if not _HOST_NAME.fullmatch(name):
            raise BadSettings(f"{option}: {name!r} is no host name; write a full one, as probe.example.net")
    tests = tuple(options["tests"] or [test for test in TESTS if test not in ASKED])
    unsaid = sorted(SENDING.intersection(tests)) if not options["send"] else []
    if unsaid:
        raise BadSettings(f"tests: {', '.join(unsaid)} send messages; add send: true, or leave them out")
    user = options["user"]
    if user:
        _checked_mailbox("user.sender", user["sender"])
        if any(ord(sign) < 32 for sign in user["name"] + user["password"]):
            raise BadSettings("user: name and password cannot hold control characters")
    kinds = [one["service"] for one in options["services"] or []] or (
        [SMTP] if options["role"] == INBOUND else list(PORTS)
    )
    ports = [one["port"] for one in options["services"] or []] or [None] * len(kinds)
    for option, least, most in _BOUNDS:
        if not least <= options[option] <= most:
            raise BadSettings(f"{option}: {options[option]} is out of range; write a number from {least} to {most}")
    zone = (options["dnsbl_zone"] or "").strip(".")
    for port in ports:
        if port is not None and not 1 <= port <= 65_535:
            raise BadSettings(f"services: {port} is out of range; write a port from 1 to 65535")
    return Settings(
        role=options["role"],
        name=options["name"],
        addresses=tuple(options["addresses"]),
        ports=tuple((kind, port or PORTS[kind]) for kind, port in zip(kinds, ports, strict=True)),
        domains=domains,
        tests=tuple(test for test in tests if sends or test not in SENDING),
        ehlo=ehlo,
        target=options["target"],
        recipients=tuple(recipients),
        stranger=mailboxes["stranger"],
        listed=options["listed"],
        client_name=options["client_name"] or "",
        dnsbl_zone=DQS_ZONE if options["dnsbl_key"] and zone == PUBLIC_ZONE else zone,
        dnsbl_key=options["dnsbl_key"] or "",
        user=User(user["name"], user["password"], user["sender"]) if user else None,
        padding=options["padding"],
        allowed_connections=options["allowed_connections"],
        parallel=options["parallel"],
        source=options["source"] or "",
        trust=_trust(options["ca_path"], options["validate_certs"]),
        limits=Limits(options["timeout"], options["greeting_timeout"], options["timeout"], options["time_limit"]),
        time_limit=options["time_limit"],
    )


def left_out(settings: Settings) -> list[str]:
    """The tests that were not run, each with what it needs."""
    submission = any(kind != SMTP for kind, _ in settings.ports)
    login = "" if settings.user and submission else "user, and a service that takes a login"
    needs = {
        "sobig": "" if settings.client_name else "client_name",
        "dnsbl": "" if settings.dnsbl_zone else "dnsbl_zone",
        "recipients": "" if settings.role == INBOUND else "an inbound host",
        "early_talker": "" if settings.role == INBOUND else "an inbound host",
        "smuggling": "" if settings.role == INBOUND else login,
    } | dict.fromkeys(("sender", "eicar", "gtube", "scanner_down"), login)
    asked = [f"{test}: not asked for" for test in TESTS if test not in settings.tests]
    return asked + [f"{test}: needs {needs[test]}" for test in settings.tests if needs.get(test)]


def _checked_address(text: str) -> None:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        raise BadSettings(f"{text!r} is no IP address; write one, as 192.0.2.10 or 2001:db8::10") from None


def _checked_mailbox(option: str, text: str) -> str:
    """The domain of a plain address. No other is taken: the tricks are ours to play."""
    if not _MAILBOX.fullmatch(text):
        raise BadSettings(f"{option}: {text!r} is no plain mail address; write one, as relay-test@example.org")
    return text.rpartition("@")[2].lower()


def _trust(ca_path: str | None, validate: bool) -> ssl.SSLContext:
    if not validate:
        return unverified()
    try:
        context = ssl.create_default_context(cafile=ca_path or None)
    except (OSError, ssl.SSLError) as error:
        raise BadSettings(
            f"ca_path: {ca_path} cannot be read ({error}); name a file of certificates in PEM form"
        ) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


class Visit:
    """One attempt at a case: its connections, and what was said in them."""

    def __init__(self, settings: Settings, service: Service, end: float) -> None:
        self.settings, self.service = settings, service
        self.dialogues: list[Dialogue] = []
        self._end = end

    @property
    def transcript(self) -> tuple[str, ...]:
        return tuple(line for dialogue in self.dialogues for line in dialogue.transcript)

    @property
    def shown_secret(self) -> bool:
        return any(dialogue.shown_secret for dialogue in self.dialogues)

    def close(self) -> None:
        for dialogue in self.dialogues:
            dialogue.close()

    def connect(self, tls: ssl.SSLContext | None = None) -> Dialogue:
        """A connection, under TLS at once where the port wants that. Nothing is read."""
        limits, left = self.settings.limits, self._end - time.monotonic()
        dialogue = Dialogue(
            self.service.address,
            self.service.port,
            Limits(limits.connect, limits.greeting, limits.reply, max(0.1, min(limits.dialogue, left))),
            source=self.settings.source,
            hidden=self.settings.hidden,
            tls=(tls or unverified()) if self.service.kind == SUBMISSIONS else None,
            name=self.settings.name,
        )
        self.dialogues.append(dialogue)
        return dialogue

    def greeted(self, tls: ssl.SSLContext | None = None, ehlo: str = "") -> Dialogue:
        """A connection past EHLO. Raises Shut."""
        dialogue = self.connect(tls)
        self._pass(dialogue.greeting(), "greeting")
        self._pass(dialogue.ehlo(ehlo or self.settings.ehlo), "EHLO")
        return dialogue

    def ready(self, tls: ssl.SSLContext | None = None) -> Dialogue:
        """A connection past EHLO, and under TLS where mail cannot be had without. Raises Shut."""
        dialogue = self.greeted(tls)
        if self.service.kind == SUBMISSION:
            self.secure(dialogue, tls or unverified())
        return dialogue

    def secure(self, dialogue: Dialogue, tls: ssl.SSLContext) -> None:
        """STARTTLS, and EHLO anew. Raises Shut."""
        self._pass(dialogue.starttls(tls, self.settings.name), "STARTTLS")
        self._pass(dialogue.ehlo(self.settings.ehlo), "EHLO")

    def logged_in(self, user: User) -> Dialogue:
        """A connection of the user. The password is sent only to a server that proves its name. Raises Shut."""
        dialogue = self.ready(self.settings.trust or ssl.create_default_context())
        self._pass(dialogue.login(user.name, user.password), "login")
        return dialogue

    def envelope(self, dialogue: Dialogue, sender: str, recipient: str) -> tuple[str, Reply]:
        """MAIL and RCPT, as far as the server goes along. Returns the exchange in a line and the last reply."""
        unicode = " SMTPUTF8" if "SMTPUTF8" in dialogue.extensions and not recipient.isascii() else ""
        reply = dialogue.say(f"MAIL FROM:<{sender}>{unicode}")
        said = f"MAIL FROM:<{sender}>"
        if reply.accepted:
            reply = dialogue.say(f"RCPT TO:<{recipient}>")
            said += f", RCPT TO:<{recipient}>"
        # Only postscreen's own answer wants a new connection; any other 4xx would come again.
        if reply.deferred and any("4.3.2" in line for line in reply.lines):
            raise Again(str(reply))
        return f"client {dialogue.client}, {said}: {reply}", reply

    def strangers(self, sender: str, recipient: str) -> tuple[str, Reply]:
        """A whole dialogue of a client without login that stops before DATA. An early refusal is its answer."""
        try:
            dialogue = self.ready()
        except Shut as shut:
            return f"client {self.dialogues[-1].client}, {shut}", shut.reply
        result = self.envelope(dialogue, sender, recipient)
        dialogue.quit()
        return result

    def message(self, dialogue: Dialogue, octets: bytes, shown: str) -> Reply:
        """DATA, the message and its end; the reply to what came last. Raises Shut for no 354."""
        reply = dialogue.say("DATA")
        if reply.code != 354:
            raise Shut(reply, "DATA")
        dialogue.send(octets + b".\r\n", shown)
        return dialogue.reply(self.settings.limits.dialogue)  # a scan takes its time

    @staticmethod
    def _pass(reply: Reply, stage: str) -> None:
        if not reply.accepted:
            raise Shut(reply, stage)


@dataclass(frozen=True, slots=True)
class Case:
    """A question: the control that it is about, and how it is asked. The asking may raise Lost, Again, Shut."""

    test: str
    name: str
    control: str
    ask: Callable[[Visit], Answer]


class _Gate:
    """How many connections there may be at once: fewer whenever the server says 421."""

    def __init__(self, limit: int) -> None:
        self._limit, self._open = limit, 0
        self._free = threading.Condition()

    def enter(self) -> None:
        with self._free:
            self._free.wait_for(lambda: self._open < self._limit)
            self._open += 1

    def leave(self, busy: bool) -> None:
        with self._free:
            self._open -= 1
            if busy:
                self._limit = max(1, min(self._limit, self._open + 1) // 2)
            self._free.notify_all()


def probe(settings: Settings) -> list[Result]:
    """Run the tests of the settings on every address and port, all services at once. Never raises on what comes."""
    end = time.monotonic() + settings.time_limit
    services = [Service(address, *port) for address in settings.addresses for port in settings.ports]
    with ThreadPoolExecutor(max_workers=max(1, len(services))) as pool:
        served = pool.map(lambda service: _serve(settings, service, end), services)
        results = [result for one in served for result in one]
    if "dnsbl" in settings.tests and settings.dnsbl_zone:
        results += dnsbl(settings.dnsbl_zone, settings.dnsbl_key, resolve)
    return results


def _serve(settings: Settings, service: Service, end: float) -> list[Result]:
    """All cases of one service: what needs a stranger first, the many at once, what exhausts the server last."""
    cases = list(_cases(settings, service))
    unreachable = _knock(settings, service) if cases else ""
    if unreachable:
        return [_result(case, service, Answer(UNKNOWN, unreachable)) for case in cases]
    gate = _Gate(settings.parallel)
    secrets_shown: list[Result] = []

    def run(case: Case) -> Result:
        result, shown = _run(case, settings, service, gate, end)
        if shown:
            secrets_shown.append(result)
        return result

    results = []
    first, last = ("early_talker", "recipients"), ("connections",)
    results += [run(case) for case in cases if case.test in first]
    with ThreadPoolExecutor(max_workers=max(1, settings.parallel)) as pool:
        results += pool.map(run, [case for case in cases if case.test not in first + last])
    results += [run(case) for case in cases if case.test in last]
    for one in secrets_shown[:1]:
        reason = f"a reply shows a secret (hidden here), in case '{one.case}'"
        found = Result("dnsbl", "secret in a reply", "M3", service.name, service.address, VIOLATED, reason, one.line)
        results.append(found)
    return results


def _run(case: Case, settings: Settings, service: Service, gate: _Gate, end: float) -> tuple[Result, bool]:
    """Ask until there is an answer, a few times at most. Returns it, and whether a reply held a secret."""
    answer, shown = Answer(UNKNOWN, "the time limit was over before this case"), False
    transcript: tuple[str, ...] = ()
    for attempt in range(ATTEMPTS):
        gate.enter()
        busy = again = False
        if time.monotonic() >= end:
            gate.leave(busy)
            break
        visit = Visit(settings, service, end)
        try:
            answer = case.ask(visit)
        except Busy as lost:
            answer, busy = Answer(UNKNOWN, str(lost)), True
        except Again as reply:
            answer, again = Answer(UNKNOWN, f"deferred in every of {attempt + 1} connections: {reply}"), True
        except Shut as shut:
            answer = Answer(UNKNOWN, f"refused before the question: {shut}")
        except Lost as lost:
            # A server at its limit may just hang up on whoever comes next.
            answer, again = Answer(UNKNOWN, str(lost)), not visit.transcript and attempt == 0
        finally:
            visit.close()
            gate.leave(busy)
        transcript, shown = visit.transcript, shown or visit.shown_secret
        if not busy and not again:
            break
        time.sleep(max(0.0, min(settings.pause * 2**attempt, end - time.monotonic())))
    return _result(case, service, answer, transcript), shown


def _result(case: Case, service: Service, answer: Answer, transcript: tuple[str, ...] = ()) -> Result:
    asked = (case.test, case.name, case.control, service.name, service.address)
    kept = () if answer.verdict == COMPLIANT else transcript
    return Result(*asked, answer.verdict, answer.reason, answer.line, kept)


def _knock(settings: Settings, service: Service) -> str:
    """Why nothing there can be asked, "" where it can: hundreds of cases need not find out each for itself."""
    source = (settings.source, 0) if settings.source else None
    try:
        socket.create_connection((service.address, service.port), settings.limits.connect, source).close()
    except OSError as error:
        reason = error.strerror or "no answer in time"
        return f"no connection to {service.address} port {service.port}: {reason}"
    return ""


# -- the cases ---------------------------------------------------------------------------------------------------


def _cases(settings: Settings, service: Service) -> Iterator[Case]:
    """Every case that the settings ask for and that means something on this service."""
    wanted, submission, inbound = set(settings.tests), service.submission, settings.role == INBOUND
    if "early_talker" in wanted and inbound and not submission:
        yield Case("early_talker", "EHLO before the greeting", "M13", _early)
    if "recipients" in wanted and inbound and settings.recipients:
        if settings.listed:
            yield Case("recipients", "a listed client", "M5", _listed)
        else:
            for recipient in settings.recipients:
                yield Case("recipients", recipient, "M12", _reachable(recipient))
    if "relay" in wanted:
        yield from _relay_cases(settings, service)
    if "sobig" in wanted and settings.client_name and not submission:
        for parent in _parents(settings.client_name):
            yield Case("sobig", f"over the MX of {parent}", "M2", _sobig(parent))
    if "commands" in wanted:
        for name, ask in (("VRFY", _vrfy), ("EXPN", _expn), ("ETRN", _etrn)):
            yield Case("commands", name, "M13", ask)
    if "pipelining" in wanted:
        yield Case("pipelining", "a command behind EHLO", "M13", _pipelining)
    if "auth" in wanted and service.kind != SUBMISSIONS:
        yield Case("auth", "AUTH offered before TLS", "M8", _auth_offered)
        yield Case("auth", "AUTH before TLS", "M8", _auth_taken)
    if "tls" in wanted:
        for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
            yield Case("tls", f"{_spoken(version)} is refused", "M8", _old_tls(version))
        yield Case("tls", "TLS 1.2 or newer", "M8", _modern_tls)
    user = settings.user
    if user and submission and "sender" in wanted:
        for name, sender in (("another's address", _another(settings, user)), ("null sender", "")):
            yield Case("sender", name, "M9", _foreign_sender(user, sender))
    if "smuggling" in wanted and (inbound or (user and submission)):
        for ending in tricks.ENDINGS:
            yield Case("smuggling", ending.name, "M13", _smuggling(ending, user if submission else None))
    if user and submission:
        for wrapping in messages.WRAPPINGS if "eicar" in wanted else ():
            yield Case("eicar", wrapping, "M6", _infected(user, wrapping))
        if "gtube" in wanted:
            yield Case("gtube", "spam by agreement", "M6", _gtube(user))
        if "scanner_down" in wanted:
            yield Case("scanner_down", "an ordinary message", "M7", _unscanned(user))
    if "connections" in wanted:
        yield Case("connections", f"{settings.allowed_connections + 1} at once", "M10", _connections)


def _relay_cases(settings: Settings, service: Service) -> Iterator[Case]:
    """Everything that a stranger could send through: the whole matrix on port 25, plain mail on the others."""
    domain = settings.domains[0]
    senders = tricks.senders(settings.target, settings.stranger, domain, settings.name, service.address)
    recipients = tricks.recipients(settings.target, domain, settings.name, service.address)
    for sender in senders:
        for recipient in recipients[:1] if service.submission else recipients:
            yield Case("relay", f"{recipient.name}, {sender.name}", "M2", _relay(sender.address, recipient))
    if settings.role == INBOUND:
        nobody = f"{tricks.NOBODY}-{secrets.token_hex(4)}@{domain}"
        yield Case("relay", "an unknown mailbox of the own domain", "M2", _unknown_mailbox(nobody))


def _relay(sender: str, recipient: tricks.Trick) -> Callable[[Visit], Answer]:
    def ask(visit: Visit) -> Answer:
        line, reply = visit.strangers(sender, recipient.address)
        if not reply.accepted:
            return _refusal(line, reply)
        # One that takes the plain target too relays; one that takes any mailbox there may just bounce later.
        if recipient.control and not visit.strangers(sender, visit.settings.target)[1].accepted:
            other, control = visit.strangers(sender, recipient.control)
            if control.accepted:
                return Answer(UNKNOWN, f"any mailbox is taken there, so that this tells nothing: {other}", line)
        return Answer(VIOLATED, "accepted", line)

    return ask


def _unknown_mailbox(recipient: str) -> Callable[[Visit], Answer]:
    def ask(visit: Visit) -> Answer:
        line, reply = visit.strangers("", recipient)
        if reply.accepted:
            return Answer(UNKNOWN, "any mailbox is taken: a catch-all, or bounces to forged senders later", line)
        return _refusal(line, reply)

    return ask


def _sobig(parent: str) -> Callable[[Visit], Answer]:
    def ask(visit: Visit) -> Answer:
        dialogue = visit.greeted(ehlo=visit.settings.client_name)
        line, reply = visit.envelope(dialogue, f"postmaster@{parent}", visit.settings.target)
        dialogue.quit()
        return Answer(VIOLATED, "accepted", line) if reply.accepted else _refusal(line, reply)

    return ask


def _refusal(line: str, reply: Reply) -> Answer:
    """5xx is what must be; 4xx says nothing of what a later attempt would get."""
    if reply.refused:
        return Answer(COMPLIANT, line=line)
    greylisted = any("greylist" in text.lower() or "graylist" in text.lower() for text in reply.lines)
    return Answer(UNKNOWN, "greylisted" if greylisted else "deferred, not refused", line)


def _listed(visit: Visit) -> Answer:
    line, reply = visit.strangers("", visit.settings.recipients[0])
    return Answer(VIOLATED, "a listed client's mail is accepted", line) if reply.accepted else _refusal(line, reply)


def _reachable(recipient: str) -> Callable[[Visit], Answer]:
    def ask(visit: Visit) -> Answer:
        line, reply = visit.strangers("", recipient)
        if reply.accepted:
            return Answer(COMPLIANT, line=line)
        if reply.refused:
            return Answer(VIOLATED, "refused", line)
        return _refusal(line, reply)

    return ask


def _early(visit: Visit) -> Answer:
    dialogue = visit.connect()
    dialogue.send(f"EHLO {visit.settings.ehlo}\r\n".encode(), f"EHLO {visit.settings.ehlo} (before the greeting)")
    reply = dialogue.greeting()
    if reply.accepted:
        # postscreen swallows what came too early.
        swallowed = dialogue.silent(visit.settings.pause)
        reply = dialogue.ehlo(visit.settings.ehlo) if swallowed else dialogue.reply()
    if reply.accepted:
        # postscreen enforces at RCPT, so that it can log the sender and the recipient.
        line, reply = visit.envelope(dialogue, "", (*visit.settings.recipients, visit.settings.target)[0])
    else:
        line = f"client {dialogue.client}, EHLO before the greeting: {reply}"
    if reply.accepted:
        reason = "an early talker is served; postscreen does that too for a client that it has passed before"
        return Answer(UNKNOWN, reason, line)
    return _refusal(line, reply)


def _vrfy(visit: Visit) -> Answer:
    dialogue, settings = visit.ready(), visit.settings
    known = dialogue.say(f"VRFY {(*settings.recipients, f'postmaster@{settings.domains[0]}')[0]}")
    other = dialogue.say(f"VRFY {tricks.NOBODY}@{settings.domains[0]}")
    dialogue.quit()
    line = f"client {dialogue.client}, VRFY: {known}; of no mailbox: {other}"
    if known.accepted or other.accepted or known.code != other.code:
        return Answer(VIOLATED, "VRFY is answered", line)
    return _refusal(line, known)


def _expn(visit: Visit) -> Answer:
    return _command(visit, f"EXPN postmaster@{visit.settings.domains[0]}")


def _etrn(visit: Visit) -> Answer:
    return _command(visit, f"ETRN {visit.settings.domains[0]}")


def _command(visit: Visit, command: str) -> Answer:
    dialogue = visit.ready()
    reply = dialogue.say(command)
    dialogue.quit()
    line = f"client {dialogue.client}, {command}: {reply}"
    if reply.accepted:
        return Answer(VIOLATED, f"{command.split()[0]} is answered", line)
    # RFC 1985: 459 is "you may not".
    return Answer(COMPLIANT, line=line) if reply.code == 459 else _refusal(line, reply)


def _pipelining(visit: Visit) -> Answer:
    dialogue = visit.connect()
    greeting = dialogue.greeting()
    if not greeting.accepted:
        raise Shut(greeting, "greeting")
    command = f"EHLO {visit.settings.ehlo}"
    # RFC 2920 3.1: EHLO and NOOP end a group; what comes behind EHLO comes before its time.
    dialogue.send(f"{command}\r\nNOOP\r\n".encode(), f"{command}, NOOP (in one)")
    reply = dialogue.reply()
    if reply.accepted:
        reply = dialogue.reply()
    line = f"client {dialogue.client}, EHLO and NOOP in one: {reply}"
    return Answer(VIOLATED, "commands before their time are served", line) if reply.accepted else _refusal(line, reply)


def _auth_offered(visit: Visit) -> Answer:
    dialogue = visit.greeted()
    offered = next((word for word in dialogue.extensions if word.split("=")[0] == "AUTH"), "")
    dialogue.quit()
    line = f"client {dialogue.client}, EHLO: {f'{offered} {dialogue.extensions[offered]}' if offered else 'no AUTH'}"
    return Answer(VIOLATED, "AUTH is offered without TLS", line) if offered else Answer(COMPLIANT, line=line)


def _auth_taken(visit: Visit) -> Answer:
    """Never with a login that exists: what a server takes in the clear, others have read."""
    dialogue = visit.greeted()
    reply = dialogue.login(tricks.NOBODY, secrets.token_urlsafe(12))
    line = f"client {dialogue.client}, AUTH PLAIN without TLS, with an invented login: {reply}"
    # RFC 4954: 535 and 334 say that it was listened to; 530, 538, 503, 502 that it was not.
    if reply.code in (235, 334, 535):
        return Answer(VIOLATED, "AUTH is listened to without TLS", line)
    return _refusal(line, reply)


def _old_tls(version: ssl.TLSVersion) -> Callable[[Visit], Answer]:
    def ask(visit: Visit) -> Answer:
        spoken = _spoken(version)
        context = _only(version)
        if not context:
            return Answer(UNKNOWN, f"this host cannot speak {spoken} itself")
        if not _offers_tls(visit):
            return _no_tls(visit)
        try:
            dialogue = _under_tls(visit, context)
        except Busy:
            raise
        except Lost as lost:
            # A handshake can fail for many reasons: only where a modern one passes was it the version.
            _under_tls(visit, unverified()).quit()
            return Answer(COMPLIANT, line=f"{spoken}: {lost}")
        dialogue.quit()
        return Answer(VIOLATED, f"{spoken} is accepted", f"client {dialogue.client}, handshake with {spoken}: accepted")

    return ask


def _modern_tls(visit: Visit) -> Answer:
    if not _offers_tls(visit):
        return _no_tls(visit)
    try:
        dialogue = _under_tls(visit, unverified())
    except Busy:
        raise
    except Lost as lost:
        return Answer(UNKNOWN, f"no handshake: {lost}")
    dialogue.quit()
    return Answer(COMPLIANT, line=f"client {dialogue.client}: TLS 1.2 or newer is accepted")


def _offers_tls(visit: Visit) -> bool:
    if visit.service.kind == SUBMISSIONS:
        return True
    dialogue = visit.greeted()
    dialogue.quit()
    return "STARTTLS" in dialogue.extensions


def _no_tls(visit: Visit) -> Answer:
    line = f"client {visit.dialogues[-1].client}, EHLO: no STARTTLS"
    if visit.service.kind == SUBMISSION:
        return Answer(VIOLATED, "a submission service without TLS", line)
    return Answer(COMPLIANT, line=line)


def _under_tls(visit: Visit, context: ssl.SSLContext) -> Dialogue:
    dialogue = visit.greeted(context)
    if visit.service.kind != SUBMISSIONS:
        visit.secure(dialogue, context)
    return dialogue


def unverified() -> ssl.SSLContext:
    """TLS 1.2 and newer, whoever the server is: no secret goes over it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _only(version: ssl.TLSVersion) -> ssl.SSLContext | None:
    """A context for this version alone, None where this host's OpenSSL cannot begin a handshake with it."""
    context = unverified()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = context.maximum_version = version
        # OpenSSL 3 takes the signatures of TLS 1.0 and 1.1 at security level 0 only.
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO()).do_handshake()
    except ssl.SSLWantReadError:
        return context
    except (ssl.SSLError, ValueError):
        return None
    return context


def _spoken(version: ssl.TLSVersion) -> str:
    return "TLS 1.0" if version is ssl.TLSVersion.TLSv1 else "TLS 1.1"


def _another(settings: Settings, user: User) -> str:
    """An address of the served domains that is not the user's."""
    candidates = (f"postmaster@{settings.domains[0]}", f"abuse@{settings.domains[0]}")
    return next(address for address in candidates if address.lower() != user.sender.lower())


def _foreign_sender(user: User, sender: str) -> Callable[[Visit], Answer]:
    def ask(visit: Visit) -> Answer:
        line, reply = visit.envelope(visit.logged_in(user), user.sender, visit.settings.target)
        if not reply.accepted:
            return Answer(UNKNOWN, "the user's own address is not accepted either", line)
        dialogue = visit.logged_in(user)
        line, reply = visit.envelope(dialogue, sender, visit.settings.target)
        dialogue.quit()
        said = f"login {user.name}, {line}"
        if reply.accepted:
            return Answer(VIOLATED, "accepted" if sender else "the null sender is accepted", said)
        return _refusal(said, reply)

    return ask


# -- cases that send ---------------------------------------------------------------------------------------------


def _addressed(visit: Visit, user: User | None) -> messages.Envelope:
    """To the operator: inbound to a mailbox of the server, outbound to the one elsewhere."""
    settings = visit.settings
    recipient = settings.target if settings.role == OUTBOUND else settings.recipients[0]
    return messages.Envelope(user.sender if user else settings.stranger, recipient, settings.ehlo, secrets.token_hex(8))


def _before_data(visit: Visit, user: User | None, envelope: messages.Envelope) -> tuple[Dialogue, str]:
    dialogue = visit.logged_in(user) if user else visit.ready()
    line, reply = visit.envelope(dialogue, envelope.sender, envelope.recipient)
    if not reply.accepted:
        raise Shut(reply, "the envelope")
    return dialogue, line.rpartition(": ")[0]


def _smuggling(ending: tricks.Ending, user: User | None) -> Callable[[Visit], Answer]:
    def ask(visit: Visit) -> Answer:
        envelope = _addressed(visit, user)
        dialogue, line = _before_data(visit, user, envelope)
        text = messages.ordinary(envelope).removesuffix(b"\r\n")
        reply = dialogue.say("DATA")
        if reply.code != 354:
            raise Shut(reply, "DATA")
        dialogue.send(text + ending.octets, f"a message, then {ending.name}")
        early = not dialogue.silent(visit.settings.pause)
        if not early:
            dialogue.send(b"\r\n.\r\n", "<CR><LF>.<CR><LF>")
        reply = dialogue.reply()
        line = f"{line}, a message that ends with {ending.name}: {reply}"
        if early and reply.accepted:
            return Answer(VIOLATED, f"{ending.name} ends a message", line)
        if reply.deferred:
            return _refusal(line, reply)
        try:
            after = dialogue.say("NOOP")
        except Lost:
            if reply.refused:
                return Answer(COMPLIANT, line=line)
            raise
        if early:
            return Answer(UNKNOWN, f"refused at {ending.name}, and the dialogue goes on", line)
        # A server that took the first ending late takes the second one for commands, and complains of them.
        if after.accepted and dialogue.silent(0.2):
            dialogue.quit()
            return Answer(COMPLIANT, line=line)
        return Answer(VIOLATED, f"{ending.name} ends a message", f"{line}; then {after}")

    return ask


def _infected(user: User, wrapping: str) -> Callable[[Visit], Answer]:
    def ask(visit: Visit) -> Answer:
        envelope = _addressed(visit, user)
        dialogue, line = _before_data(visit, user, envelope)
        size = dialogue.extensions.get("SIZE", "")
        room = int(size) - 100_000 if size.isdecimal() and int(size) else visit.settings.padding
        octets = messages.infected(envelope, wrapping, min(visit.settings.padding, room))
        reply = visit.message(dialogue, octets, f"the test virus: {wrapping}")
        line = f"login {user.name}, {line}, the test virus ({wrapping}, {len(octets)} octets): {reply}"
        if reply.accepted:
            return Answer(VIOLATED, "accepted", line)
        if reply.code == 552:
            return Answer(UNKNOWN, "refused for its size, not for what is in it", line)
        return _refusal(line, reply)

    return ask


def _gtube(user: User) -> Callable[[Visit], Answer]:
    def ask(visit: Visit) -> Answer:
        envelope = _addressed(visit, user)
        dialogue, line = _before_data(visit, user, envelope)
        reply = visit.message(dialogue, messages.gtube(envelope), "the test spam")
        line = f"login {user.name}, {line}, the test spam: {reply}"
        return Answer(VIOLATED, "accepted", line) if reply.accepted else _refusal(line, reply)

    return ask


def _unscanned(user: User) -> Callable[[Visit], Answer]:
    def ask(visit: Visit) -> Answer:
        envelope = _addressed(visit, user)
        try:
            dialogue, line = _before_data(visit, user, envelope)
            reply = visit.message(dialogue, messages.ordinary(envelope), "an ordinary message")
        except Shut as shut:
            # A milter that is down defers as early as at the greeting or at MAIL.
            line, reply = f"client {visit.dialogues[-1].client}, {shut}", shut.reply
        line = f"login {user.name}, {line}, a message while the scanner is down: {reply}"
        if reply.accepted:
            return Answer(VIOLATED, "accepted without a scan", line)
        if reply.deferred:
            return Answer(COMPLIANT, line=line)
        return Answer(UNKNOWN, "refused for good, not deferred", line)

    return ask


def _connections(visit: Visit) -> Answer:
    allowed = visit.settings.allowed_connections
    held = [visit.connect() for _ in range(allowed + 1)]
    for number, dialogue in enumerate(held, 1):
        line = f"client {dialogue.client}, connection {number} while the others are held"
        try:
            reply = dialogue.greeting()
        except Busy as busy:
            return Answer(COMPLIANT, line=f"{line}: {busy}")
        if not reply.accepted:
            return _refusal(f"{line}: {reply}", reply)
    return Answer(VIOLATED, f"{allowed + 1} connections of one client are served", f"{line}: {reply}")


# -- the DNSBL ---------------------------------------------------------------------------------------------------


class NoAnswer(Exception):
    """The resolver could not find out."""


def resolve(name: str) -> tuple[str, ...]:
    """The IPv4 addresses of the name by this host's resolver, none where it has none. Raises NoAnswer."""
    try:
        found = socket.getaddrinfo(f"{name}.", None, socket.AF_INET, socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)):
            return ()
        raise NoAnswer(error.strerror) from None
    except (OSError, UnicodeError) as error:
        raise NoAnswer(str(error)) from None
    return tuple(str(entry[4][0]) for entry in found)


def dnsbl(zone: str, key: str, ask: Callable[[str], tuple[str, ...]], seconds: float = 20.0) -> list[Result]:
    """RFC 5782 chapter 5: the entries that a DNSBL must have, and those that it must not have. `seconds` for each."""
    whole, results = f"{key}.{zone}" if key else zone, []
    entries = (("127.0.0.2", True), ("127.0.0.1", False), ("::ffff:7f00:2", True), ("::ffff:7f00:1", False))
    for address, listed in entries:
        answer = _dnsbl_answer(address, listed, _looked_up(f"{_reversed(address)}.{whole}", ask, seconds))
        asked = ("dnsbl", f"test entry {address}", "M3", f"DNSBL {zone}", "")
        results.append(Result(*asked, answer.verdict, answer.reason, f"{address}: {answer.line}"))
    return results


def _looked_up(name: str, ask: Callable[[str], tuple[str, ...]], seconds: float) -> tuple[str, ...] | None:
    """The addresses of the name; None for no answer in time. The C library's resolver has no deadline to set."""
    found: list[tuple[str, ...]] = []

    def look_up() -> None:
        with contextlib.suppress(NoAnswer):
            found.append(ask(name))

    thread = threading.Thread(target=look_up, daemon=True)
    thread.start()
    thread.join(seconds)
    return found[0] if found else None


def _dnsbl_answer(address: str, listed: bool, codes: tuple[str, ...] | None) -> Answer:
    if codes is None:
        return Answer(VIOLATED, "the DNSBL does not answer: nothing that it lists is refused", "no answer")
    line, ips = " ".join(codes) or "not listed", [ipaddress.ip_address(code) for code in codes]
    if any(ip in _DNSBL_ERRORS for ip in ips):
        return Answer(VIOLATED, "an error of the DNSBL: a wrong zone, a public resolver, too many queries", line)
    if any(ip not in _LISTINGS for ip in ips):
        return Answer(VIOLATED, "no code of a DNSBL: something rewrites answers, or the zone is gone", line)
    if listed and not ips and ":" in address:
        return Answer(UNKNOWN, "the zone has no IPv6 test entry: it may list no IPv6 addresses", line)
    if listed and not ips:
        return Answer(VIOLATED, "the test entry is not listed: nothing is refused", line)
    if not listed and ips:
        return Answer(VIOLATED, "the DNSBL lists everything: all mail is refused", line)
    return Answer(COMPLIANT, line=line)


def _reversed(address: str) -> str:
    """The name of an address in a DNSBL, without the zone (RFC 5782 2.1 and 2.4)."""
    return ipaddress.ip_address(address).reverse_pointer.removesuffix(".in-addr.arpa").removesuffix(".ip6.arpa")


def _parents(name: str) -> list[str]:
    """The domains above a host name, down to two labels: what Sobig asked for an MX."""
    labels = name.strip(".").split(".")
    return [".".join(labels[start:]) for start in range(1, len(labels) - 1)]


# -- findings ----------------------------------------------------------------------------------------------------


def findings(results: Sequence[Result], host: str) -> list[Finding]:
    """One for each control, service and family: violated where any case is, else unknown where any is."""
    groups: dict[tuple[str, str, int], list[Result]] = {}
    for result in results:
        family = ipaddress.ip_address(result.address).version if result.address else 0
        groups.setdefault((result.control, result.service, family), []).append(result)
    return [_finding(*key, group, host) for key, group in sorted(groups.items(), key=lambda item: _order(item[0]))]


def _order(key: tuple[str, str, int]) -> tuple[int, str, int]:
    return int(re.sub(r"\D", "", key[0])), key[1], key[2]


def _finding(control: str, service: str, family: int, group: list[Result], host: str) -> Finding:
    verdict = next((word for word in (VIOLATED, UNKNOWN) if any(one.verdict == word for one in group)), COMPLIANT)
    worst = [one for one in group if one.verdict == verdict]
    reasons = [] if verdict == COMPLIANT else [_told(worst, len(group))]
    doubtful = [one for one in group if one.verdict == UNKNOWN]
    if verdict == VIOLATED and doubtful:
        reasons.append(f"unknown besides: {_told(doubtful, len(group))}")
    evidence = next((one.transcript for one in worst if one.transcript), ())
    return Finding(
        control=control,
        host=host,
        attachment=service,
        pool="",
        direction="",
        family=family,
        verdict=verdict,
        title=TITLES[control],
        reason="; ".join(reasons),
        packet="" if verdict == COMPLIANT else worst[0].line,
        evidence=tuple(Evidence(0, line) for line in evidence[:EVIDENCE_LINES]),
        mend="" if verdict == COMPLIANT else MENDS[control],
    )


def _told(cases: list[Result], of: int) -> str:
    named = [f"{one.case} ({one.reason})" if one.reason else one.case for one in cases[:NAMED_CASES]]
    more = f" and {len(cases) - NAMED_CASES} more" if len(cases) > NAMED_CASES else ""
    return f"{len(cases)} of {of} cases: {'; '.join(named)}{more}"
