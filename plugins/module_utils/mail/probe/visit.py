# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One attempt at a case, and what a case is."""

from __future__ import annotations

import ipaddress
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass

from ...findings import COMPLIANT, UNKNOWN
from ..dialogue import Busy, Dialogue, Limits, Reply
from .settings import SMTP, SUBMISSION, SUBMISSIONS, Settings, User, unverified


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
        self.reply, self.stage = reply, stage


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
            source=self.settings.source_for(self.service.address),
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
        reply = dialogue.ehlo(ehlo or self.settings.ehlo)
        if reply.code in (500, 502):  # RFC 5321 4.1.4: what does not know EHLO may know HELO
            reply = dialogue.say(f"HELO {ehlo or self.settings.ehlo}")
        self._pass(reply, "EHLO")
        return dialogue

    def ready(self, tls: ssl.SSLContext | None = None) -> Dialogue:
        """A connection past EHLO, under TLS where submission offers it, and always with `tls`. Raises Shut."""
        dialogue = self.greeted(tls)
        if self.service.kind == SUBMISSION and (tls or "STARTTLS" in dialogue.extensions):
            self.secure(dialogue, tls or unverified())
        return dialogue

    def secure(self, dialogue: Dialogue, tls: ssl.SSLContext) -> None:
        """STARTTLS, and EHLO anew. Raises Shut."""
        reply = dialogue.starttls(tls, self.settings.name)
        self._pass(reply, "STARTTLS")
        if reply.code != 220:  # another 2xx begins no TLS, and all that follows would be said in the clear
            raise Shut(reply, "STARTTLS")
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
        self.bearable(reply)
        # Only postscreen's own answer wants a new connection; any other 4xx would come again.
        if reply.deferred and any("4.3.2" in line for line in reply.lines):
            raise Again(str(reply))
        return f"client {dialogue.client}, {said}: {reply}", reply

    def strangers(self, sender: str, recipient: str) -> tuple[str, Reply]:
        """A whole dialogue of a client without login that stops before DATA. An early refusal is its answer.

        Raises Shut where TLS is refused that was offered: that says nothing of the mail.
        """
        try:
            dialogue = self.ready()
        except Shut as shut:
            if shut.stage == "STARTTLS":
                raise
            return f"client {self.dialogues[-1].client}, {shut}", shut.reply
        result = self.envelope(dialogue, sender, recipient)
        if (
            result[1].code == 530 and "STARTTLS" in dialogue.extensions
        ):  # RFC 3207 4: what mail it takes shows under TLS
            self.secure(dialogue, unverified())
            result = self.envelope(dialogue, sender, recipient)
        dialogue.quit()
        return result

    def message(self, dialogue: Dialogue, octets: bytes, shown: str) -> Reply:
        """DATA, the message and its end; the reply to what came last. Raises Shut for no 354."""
        reply = dialogue.say("DATA")
        if reply.code != 354:
            raise Shut(reply, "DATA")
        dialogue.send(octets + b".\r\n", shown)
        reply = dialogue.reply(self.settings.limits.dialogue)  # a scan takes its time
        self.bearable(reply)
        return reply

    @staticmethod
    def bearable(reply: Reply) -> None:
        """Raises Busy where the server has had too much of this client."""
        if reply.throttled:
            raise Busy(f"the server wants less: {reply}")

    def _pass(self, reply: Reply, stage: str) -> None:
        self.bearable(reply)
        if not reply.accepted:
            raise Shut(reply, stage)


@dataclass(frozen=True, slots=True)
class Case:
    """A question: the control that it is about, and how it is asked. The asking may raise Lost, Again, Shut."""

    test: str
    name: str
    control: str
    ask: Callable[[Visit], Answer]


def refusal(line: str, reply: Reply) -> Answer:
    """5xx is what must be; 4xx says nothing of what a later attempt would get."""
    if reply.refused:
        return Answer(COMPLIANT, line=line)
    greylisted = any("greylist" in text.lower() or "graylist" in text.lower() for text in reply.lines)
    return Answer(UNKNOWN, "greylisted" if greylisted else "deferred, not refused", line)
