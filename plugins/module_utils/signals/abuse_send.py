# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Notices on their way: each once for an episode and a channel, over SMTP submission or to a webhook.

A notice is claimed in the state before it is sent, so that two runs at once send it once. One that failed, or whose run
died, is tried again by the next run, with the same Message-ID. Nobody gets two by one channel within 24 hours, whatever
the episodes: the second one waits.
"""

from __future__ import annotations

import contextlib
import email.message
import email.policy
import hashlib
import hmac
import http.client
import ipaddress
import os
import smtplib
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from . import abuse
from .abuse import AbuseError, Desk, Notice
from .store import Store, open_store

DAY = 86_400_000
CLAIM = 900_000  # ms after which a claim is nobody's any more: its run has died
TIMEOUT = 20.0  # seconds for each step of a conversation

SCHEMA = """
CREATE TABLE IF NOT EXISTS notice (
    episode TEXT NOT NULL,
    channel TEXT NOT NULL,
    subscriber TEXT NOT NULL,
    state TEXT NOT NULL,
    since BIGINT NOT NULL,
    tries BIGINT NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (episode, channel)
);
CREATE INDEX IF NOT EXISTS notice_subscriber ON notice (subscriber, channel, since);
"""
CLAIMED, SENT, FAILED = "claimed", "sent", "failed"
WOULD, ALREADY, WAITS, IMPOSSIBLE = "would be sent", "sent already", "waits", "cannot be sent"


class SendError(Exception):
    """A notice that did not go out. The text holds no password and no secret."""


@dataclass(frozen=True)
class Submission:
    """A submission host (RFC 6409). TLS is verified; without it only to this host itself."""

    host: str
    port: int = 587
    security: str = "starttls"  # "starttls", "tls" at once (RFC 8314 3.3), or "none"
    user: str = ""
    password: str = field(default="", repr=False)
    ca: str = ""  # a file of certificates that are trusted instead of the system's

    def __post_init__(self) -> None:
        if self.security == "none" and not _here(self.host):
            raise AbuseError(f"{self.host}: without TLS only 127.0.0.1, ::1 and localhost; use starttls or tls")

    def send(self, message: email.message.Message, sender: str, recipient: str) -> None:
        """Hand one mail over. Raises SendError."""
        try:
            server = self._connected()
            try:
                if self.user:
                    server.login(self.user, self.password)
                server.sendmail(sender, [recipient], message.as_bytes(policy=email.policy.SMTP))
            finally:
                with contextlib.suppress(OSError, smtplib.SMTPException):  # a mail that was taken is not sent again
                    server.quit()
                server.close()
        except smtplib.SMTPRecipientsRefused as error:
            code, text = next(iter(error.recipients.values()))
            raise SendError(f"{self._where}: {recipient} is refused: {code} {_said(text)}") from None
        except smtplib.SMTPAuthenticationError as error:
            raise SendError(f"{self._where}: the login is refused ({error.smtp_code})") from None
        except smtplib.SMTPResponseException as error:
            raise SendError(f"{self._where}: {error.smtp_code} {_said(error.smtp_error)}") from None
        except UnicodeError:  # its text would show a letter of the password, and where it stands
            mend = "give user, password and host in ASCII; SMTP AUTH of Python takes nothing else"
            raise SendError(f"{self._where}: not asked; {mend}") from None
        except (OSError, smtplib.SMTPException) as error:  # ssl.SSLError is an OSError
            raise SendError(f"{self._where}: {_said(str(error)) or type(error).__name__}") from None

    @property
    def _where(self) -> str:
        return f"SMTP to {self.host} port {self.port}"

    def _connected(self) -> smtplib.SMTP:
        context = ssl.create_default_context(cafile=self.ca or None)
        if self.security == "tls":
            return smtplib.SMTP_SSL(self.host, self.port, timeout=TIMEOUT, context=context)
        server = smtplib.SMTP(self.host, self.port, timeout=TIMEOUT)
        if self.security != "none":
            server.starttls(context=context)  # raises where the host offers none
        return server


@dataclass(frozen=True)
class Webhook:
    """Where JSON is posted to. X-Signature is the HMAC-SHA256 of the body under the secret, as sha256=<hex>."""

    url: str = field(repr=False)  # its path may be a secret of its own
    secret: str = field(default="", repr=False)
    ca: str = ""

    def __post_init__(self) -> None:
        try:
            parts = urllib.parse.urlsplit(self.url)
            _ = parts.port
        except ValueError:
            raise AbuseError("the webhook's url is none") from None
        if parts.scheme != "https" and not (parts.scheme == "http" and _here(parts.hostname or "")):
            raise AbuseError("the webhook's url is no https:// address; http:// only to this host itself")
        if not self.secret:
            raise AbuseError("the webhook has no secret; without a signature anyone could post to it")

    def send(self, body: bytes) -> None:
        """Post once. Raises SendError for anything but a 2xx; a redirection is not followed."""
        signature = hmac.new(self.secret.encode(), body, hashlib.sha256).hexdigest()
        head = {"Content-Type": "application/json", "User-Agent": abuse.AGENT, "X-Signature": f"sha256={signature}"}
        request = urllib.request.Request(self.url, body, head, method="POST")
        try:
            context = ssl.create_default_context(cafile=self.ca or None)
            opener = urllib.request.build_opener(_Stay, urllib.request.HTTPSHandler(context=context))
            with opener.open(request, timeout=TIMEOUT) as answer:
                answer.read(65_536)
        except urllib.error.HTTPError as error:
            error.close()
            raise SendError(f"webhook at {self.host}: HTTP {error.code}") from None
        except urllib.error.URLError as error:
            raise SendError(f"webhook at {self.host}: {_said(str(error.reason))}") from None
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise SendError(f"webhook at {self.host}: {type(error).__name__}") from None

    @property
    def host(self) -> str:
        return urllib.parse.urlsplit(self.url).hostname or ""


class _Stay(urllib.request.HTTPRedirectHandler):
    """A signed body goes where it was meant to go."""

    def redirect_request(self, *_: object) -> None:
        return None


def _here(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _said(text: str | bytes) -> str:
    plain = text.decode("ascii", "replace") if isinstance(text, bytes) else text
    return abuse.clean(plain)[:200]


@dataclass(frozen=True)
class Channel:
    """A way to tell: what is said and to whom, and how it gets there."""

    name: str  # abuse.CUSTOMER, ARF, XARF or WEBHOOK
    to: str = ""  # the desk of ARF and XARF
    submission: Submission | None = None
    webhook: Webhook | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one notice. `text` is what is, or would be, sent."""

    key: str
    subscriber: str
    channel: str
    recipient: str
    state: str  # SENT, FAILED, or WOULD, ALREADY, WAITS, IMPOSSIBLE
    reason: str = ""
    text: str = ""


@dataclass(frozen=True)
class Words:
    """The customer's mail: its subject and its template."""

    subject: str = abuse.SUBJECT
    template: str = abuse.TEMPLATE


def notify(
    notices: Iterable[Notice],
    channels: Iterable[Channel],
    desk: Desk,
    state: str,
    now: int,
    words: Words,
    dry_run: bool = True,
) -> list[Outcome]:
    """Send what was not sent yet; with `dry_run` say what that is, and touch nothing.

    `state` is where the store lies. Raises StoreError where it cannot be read: then nothing is sent.
    """
    ways, begun = list(channels), time.monotonic()

    def moment() -> int:  # a long run must not make claims that are old at once
        return now + int((time.monotonic() - begun) * 1000)

    return [_one(notice, way, desk, state, moment(), words, dry_run) for notice in notices for way in ways]


def _one(notice: Notice, way: Channel, desk: Desk, state: str, now: int, words: Words, dry_run: bool) -> Outcome:
    case = notice.case
    recipient = {abuse.CUSTOMER: notice.mail, abuse.WEBHOOK: way.webhook.host if way.webhook else ""}.get(
        way.name, way.to
    )

    def outcome(what: str, reason: str = "", text: str = "") -> Outcome:
        return Outcome(case.key, case.subscriber, way.name, recipient, what, reason, text)

    try:
        text, send = _ready(notice, way, desk, now, words)
    except AbuseError as error:
        return outcome(IMPOSSIBLE, str(error))
    if dry_run:
        what, reason = _look(state, case.key, case.subscriber, way.name, now)
        return outcome(what or WOULD, reason, text)
    with open_store(state, SCHEMA) as store:
        what, reason = claim(store, case.key, case.subscriber, way.name, now)
    if what:
        return outcome(what, reason)
    failed = ""
    try:
        send()
    except SendError as error:
        failed = str(error)
    with open_store(state, SCHEMA) as store:
        settle(store, case.key, way.name, now, failed)
    return outcome(FAILED, f"{failed}; the next run tries again", text) if failed else outcome(SENT, "", text)


def _ready(notice: Notice, way: Channel, desk: Desk, now: int, words: Words) -> tuple[str, Callable[[], None]]:
    """What is sent as text, and what sends it. Raises AbuseError."""
    if way.name == abuse.WEBHOOK:
        if not way.webhook:
            raise AbuseError("the channel webhook has no url")
        body, webhook = abuse.webhook_body(notice, desk, now), way.webhook
        return body.decode(), lambda: webhook.send(body)
    if not way.submission:
        raise AbuseError(f"the channel {way.name} has no submission host; give 'smtp'")
    message: email.message.Message
    if way.name == abuse.CUSTOMER:
        message = abuse.customer_mail(notice, desk, now, words.subject, words.template)
    elif way.name == abuse.ARF:
        message = abuse.arf(notice, desk, way.to, now)
    else:
        message = abuse.xarf_mail(notice, desk, way.to, now)
    submission, recipient = way.submission, str(message["To"])
    return message.as_string(), lambda: submission.send(message, desk.contact, recipient)


def _look(state: str, episode: str, subscriber: str, channel: str, now: int) -> tuple[str, str]:
    """What a claim would come to. A state that is not there yet stays so."""
    if "://" not in state and not os.path.exists(state):
        return "", ""
    with open_store(state, SCHEMA) as store:
        return _hindrance(store, episode, subscriber, channel, now)


def claim(store: Store, episode: str, subscriber: str, channel: str, now: int) -> tuple[str, str]:
    """Take a notice to send it: ("", ""), or why this run must not (ALREADY or WAITS, and the reason)."""
    what, reason = _hindrance(store, episode, subscriber, channel, now)
    if not what:
        claimed = store.run(
            "UPDATE notice SET state = ?, since = ?, tries = tries + 1, reason = '' WHERE episode = ? AND channel = ?",
            (CLAIMED, now, episode, channel),
        )
        if not claimed:
            store.run(
                "INSERT INTO notice (episode, channel, subscriber, state, since, tries, reason)"
                " VALUES (?, ?, ?, ?, ?, 1, '')",
                (episode, channel, subscriber, CLAIMED, now),
            )
    return what, reason


def _hindrance(store: Store, episode: str, subscriber: str, channel: str, now: int) -> tuple[str, str]:
    rows = store.rows("SELECT state, since FROM notice WHERE episode = ? AND channel = ?", (episode, channel))
    if rows and rows[0][0] == SENT:
        return ALREADY, f"on {abuse.utc(int(rows[0][1]))}"
    if rows and rows[0][0] == CLAIMED and now - int(rows[0][1]) < CLAIM:
        return WAITS, "another run is sending it"
    others = store.rows(
        "SELECT episode, since FROM notice WHERE subscriber = ? AND channel = ? AND episode <> ?"
        " AND ((state = ? AND since > ?) OR (state = ? AND since > ?)) ORDER BY since DESC",
        (subscriber, channel, episode, SENT, now - DAY, CLAIMED, now - CLAIM),
    )
    if others and subscriber:  # of nobody known there is no second one
        return WAITS, f"the same customer was told of {others[0][0]} less than 24 hours ago"
    return "", ""


def settle(store: Store, episode: str, channel: str, now: int, failed: str) -> None:
    """What became of a claim: sent, or why not."""
    store.run(
        "UPDATE notice SET state = ?, since = ?, reason = ? WHERE episode = ? AND channel = ?",
        (FAILED if failed else SENT, now, failed, episode, channel),
    )
