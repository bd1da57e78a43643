# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the probe is to ask of whom, and where it may not."""

from __future__ import annotations

import base64
import ipaddress
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..dialogue import Limits

INBOUND, OUTBOUND = "inbound", "outbound"
# What listens: mail from anyone, from users with STARTTLS, from users under TLS from the start.
SMTP, SUBMISSION, SUBMISSIONS = "smtp", "submission", "submissions"
PORTS = {SMTP: 25, SUBMISSION: 587, SUBMISSIONS: 465}

# In the order in which they run; `asked` ones run only when they are named, `sending` ones speak DATA.
TESTS = (
    "early_talker", "recipients", "relay", "sobig", "commands", "pipelining", "auth", "tls", "sender", "dnsbl",
    "smuggling", "eicar", "encrypted", "gtube", "scanner_down", "connections", "limits",
)  # fmt: skip
SENDING = frozenset({"smuggling", "eicar", "encrypted", "gtube", "scanner_down", "limits"})
ASKED = SENDING | {"connections"}

# Spamhaus answers for its public zone under another name behind a key, as policy.py has it.
PUBLIC_ZONE, DQS_ZONE = "zen.spamhaus.org", "zen.dq.spamhaus.net"

_MAILBOX = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*@(?:[A-Za-z0-9-]+\.)+[A-Za-z0-9-]+")
_HOST_NAME = re.compile(r"(?:[A-Za-z0-9_-]{1,63}\.)*[A-Za-z0-9-]{1,63}\.?")
# The numbers among the options, with the least and the most that make sense.
_BOUNDS = (
    ("padding", 1, 2**30),
    ("allowed_connections", 1, 1000),
    ("allowed_recipients", 1, 10_000),
    ("allowed_burst", 1, 10_000),
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
    take. `ports` are pairs of one of PORTS and a number. `listed`: whether the DNSBL lists this client, None for
    unsaid. `client_name` is the PTR name of this client. `allowed_connections` is the number that one may hold,
    `allowed_recipients` those of one message, `allowed_burst` those that a user may write to at once.
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
    listed: bool | None = None
    client_name: str = ""
    dnsbl_zone: str = ""
    dnsbl_key: str = field(default="", repr=False)
    user: User | None = None
    padding: int = 50_000_000
    allowed_connections: int = 20
    allowed_recipients: int = 100
    allowed_burst: int = 20
    parallel: int = 10
    source: tuple[str, ...] = ()
    trust: ssl.SSLContext | None = None  # the system's authorities when it is not given
    limits: Limits = field(default_factory=Limits)
    time_limit: float = 300.0
    pause: float = 2.0

    def source_for(self, address: str) -> str:
        """The one of our addresses to ask this one from, "" for whichever the system takes."""
        return next((own for own in self.source if (":" in own) == (":" in address)), "")

    @property
    def reached(self) -> tuple[str, ...]:
        """The addresses that are asked: where we have to come from somewhere, of its family only."""
        return tuple(one for one in self.addresses if not self.source or self.source_for(one))

    @property
    def hidden(self) -> tuple[str, ...]:
        """What no output may show, in the forms in which it could come back."""
        if not self.user:
            return (self.dnsbl_key,)
        plain = f"\0{self.user.name}\0{self.user.password}"
        coded = [base64.b64encode(text.encode()).decode() for text in (plain, self.user.password)]
        return (self.dnsbl_key, self.user.password, *coded)


class BadSettings(Exception):
    """What was asked cannot be done; the text says which option, why, and what to do."""


def read_settings(options: Mapping[str, Any], host: str, *, sends: bool) -> Settings:
    """The options of the module smtp_probe as settings. Raises BadSettings.

    `host` is the name of the host that the probe runs on. Without `sends` the tests that send are left out.
    """
    domains = tuple(domain.strip(".").lower() for domain in options["domains"])
    if not domains or not options["addresses"]:
        raise BadSettings("domains and addresses: each needs one at least")
    for address in (*options["addresses"], *(options["source"] or ())):
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
        allowed_recipients=options["allowed_recipients"],
        allowed_burst=options["allowed_burst"],
        parallel=options["parallel"],
        source=tuple(options["source"] or ()),
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
        "early_talker": "" if settings.role == INBOUND else "an inbound host",
        "smuggling": login if settings.role == OUTBOUND else "a client that is not listed" if settings.listed else "",
    } | dict.fromkeys(("sender", "eicar", "encrypted", "gtube", "scanner_down", "limits"), login)
    if settings.listed:
        needs |= dict.fromkeys(("commands", "pipelining", "auth", "tls"), "a client that the DNSBL does not list")
    asked = [f"{test}: not asked for" for test in TESTS if test not in settings.tests]
    unreached = [f"{one}: needs a source of its family" for one in settings.addresses if one not in settings.reached]
    return unreached + asked + [f"{test}: needs {needs[test]}" for test in settings.tests if needs.get(test)]


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


def unverified() -> ssl.SSLContext:
    """TLS 1.2 and newer, whoever the server is: no secret goes over it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
