# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One SMTP connection to a server that is not trusted: everything it sends is bounded in size and in time.

smtplib waits for each byte anew and reads replies of any number of lines; here a reply has a deadline as a
whole, and the connection has one too. What was said is kept as a transcript without secrets and without
control characters, so that it can be shown.

Sources: RFC 5321 (SMTP: 4.2 replies, 4.5.3.1 sizes), RFC 3207 (STARTTLS), RFC 4954 (AUTH), RFC 4616 (PLAIN),
RFC 8314 (implicit TLS).
"""

from __future__ import annotations

import base64
import contextlib
import re
import socket
import ssl
import time
from collections.abc import Iterable
from dataclasses import dataclass

from ..secrets import HIDDEN

# RFC 5321 4.5.3.1.5 gives a reply line 512 octets; servers with long texts exceed it, attackers by far more.
LINE_OCTETS = 2048
REPLY_LINES = 100
SHOWN_CHARACTERS = 240  # of a line in a transcript
SHOWN_LINES = 60  # of a transcript

_REPLY = re.compile(rb"([2-5]\d\d)([ -]?)(.*)", re.DOTALL)
# Postfix: "too many AUTH commands", "too much mail"; rspamd: "Ratelimit exceeded".
_THROTTLED = re.compile(r"too (many|much)|rate ?limit|throttl|slow down", re.IGNORECASE)


class Lost(Exception):
    """The dialogue cannot go on: no answer in time, the connection gone, or no SMTP. The text says which."""


class Busy(Lost):
    """421 (RFC 5321 3.8), or a limit of the server on this client: it wants fewer questions, or later ones."""


class Untrusted(Lost):
    """The certificate does not prove the name of the server."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply: its code and the text of its lines, made printable, secrets hidden."""

    code: int
    lines: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.code} {' / '.join(self.lines)}"

    @property
    def accepted(self) -> bool:
        return 200 <= self.code < 300

    @property
    def refused(self) -> bool:
        return self.code >= 500

    @property
    def deferred(self) -> bool:
        return 400 <= self.code < 500

    @property
    def throttled(self) -> bool:
        """Deferred for how often this client asks, not for what it asks."""
        return self.deferred and any(_THROTTLED.search(line) for line in self.lines)


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds: to connect, for the greeting (postscreen pauses before it), for a reply, for the whole dialogue."""

    connect: float = 10.0
    greeting: float = 60.0
    reply: float = 30.0
    dialogue: float = 120.0


class Dialogue:
    """A connection, from its opening to its end. `hidden`: texts that no transcript may show.

    Every method that speaks raises Lost; `transcript` holds what was said until then. `shown_secret` tells
    that the server itself sent one of the hidden texts.
    """

    def __init__(
        self,
        address: str,
        port: int,
        limits: Limits,
        *,
        source: str = "",
        hidden: Iterable[str] = (),
        tls: ssl.SSLContext | None = None,
        name: str = "",
    ) -> None:
        self.transcript: list[str] = []
        self.extensions: dict[str, str] = {}
        self.shown_secret = False
        self._limits = limits
        self._hidden = _pattern(hidden)
        self._buffer = b""
        self._end = time.monotonic() + limits.dialogue
        try:
            self._socket = socket.create_connection(
                (address, port), min(limits.connect, limits.dialogue), (source, 0) if source else None
            )
        except OSError as error:
            raise Lost(f"no connection to {address} port {port}: {_reason(error)}") from None
        self.client = str(self._socket.getsockname()[0])
        self._note("connected", f"{self.client} to {address} port {port}")
        if tls:
            try:
                self._wrap(tls, name)
            except Lost:
                self.close()
                raise

    def __enter__(self) -> Dialogue:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End without a word; to part politely, say QUIT before."""
        with contextlib.suppress(OSError):
            self._socket.close()

    def quit(self) -> None:
        """Part politely, whatever the server makes of it: postscreen remembers only clients that do."""
        with contextlib.suppress(Lost):
            self.say("QUIT")
        self.close()

    def greeting(self) -> Reply:
        """The server's first reply. Raises Lost for none."""
        return self.reply(self._limits.greeting)

    def ehlo(self, name: str) -> Reply:
        """EHLO; what the server offers is in `extensions` afterwards, in capitals, with its parameters."""
        reply = self.say(f"EHLO {name}")
        words = [line.upper().split(maxsplit=1) for line in reply.lines[1:]] if reply.accepted else []
        self.extensions = {word[0]: (word[1] if len(word) > 1 else "") for word in words if word}
        return reply

    def starttls(self, context: ssl.SSLContext, name: str) -> Reply:
        """STARTTLS and the handshake; the server must be greeted anew afterwards (RFC 3207 4.2)."""
        reply = self.say("STARTTLS")
        if reply.code == 220:
            # What came before the handshake was not protected: it is no answer to anything said under TLS.
            self._buffer = b""
            self._wrap(context, name)
            self.extensions = {}
        return reply

    def login(self, user: str, password: str) -> Reply:
        """AUTH PLAIN in one step, which every server that offers PLAIN takes."""
        response = base64.b64encode(f"\0{user}\0{password}".encode()).decode()
        return self.say(f"AUTH PLAIN {response}", shown=f"AUTH PLAIN {HIDDEN}")

    def say(self, line: str, *, shown: str = "") -> Reply:
        """Send one command line, read the reply to it. `shown` stands in the transcript in its place."""
        self.send((line + "\r\n").encode("utf-8", "surrogateescape"), shown or line)
        return self.reply()

    def send(self, octets: bytes, shown: str) -> None:
        """Send octets as they are; `shown` tells in the transcript what they were."""
        self._note("C", shown)
        try:
            # In records of TLS, because a deadline holds for each and not for all of them.
            for start in range(0, len(octets), 16_384):
                self._socket.settimeout(self._left(self._limits.reply))
                self._socket.sendall(octets[start : start + 16_384])
        except OSError as error:
            # A server that refuses and hangs up has often said why: the reply is worth more than the error.
            if not self._buffer and not self._waiting():
                raise Lost(f"the connection was lost while sending: {_reason(error)}") from None

    def reply(self, seconds: float | None = None) -> Reply:
        """The next reply, all its lines. Raises Busy for 421 and Lost for silence, too much, or no SMTP."""
        end = time.monotonic() + (self._limits.reply if seconds is None else seconds)
        lines: list[str] = []
        while len(lines) < REPLY_LINES:
            found = _REPLY.fullmatch(self._line(end))
            if not found:
                raise Lost("the answer is not SMTP")
            code, sign, text = found.groups()
            said = text.decode("utf-8", "replace")
            self.shown_secret = self.shown_secret or bool(self._hidden.search(said))
            shown = self._show(said)
            lines.append(shown)
            self._note("S", f"{code.decode()}{sign.decode() or ' '}{shown}")
            if sign != b"-":
                reply = Reply(int(code), tuple(lines))
                if reply.code == 421:
                    raise Busy(f"the server is busy: {reply}")
                return reply
        raise Lost(f"a reply of more than {REPLY_LINES} lines")

    def silent(self, seconds: float) -> bool:
        """Whether nothing comes for so long."""
        end = time.monotonic() + seconds
        try:
            return not self._buffer and not self._more(end)
        except TimeoutError:
            return True
        except OSError:
            return False

    def _line(self, end: float) -> bytes:
        """The next line without its end. Raises Lost."""
        while b"\n" not in self._buffer:
            if len(self._buffer) > LINE_OCTETS:
                raise Lost(f"a line of more than {LINE_OCTETS} octets")
            try:
                if not self._more(end):
                    raise Lost("the server closed the connection")
            except TimeoutError:
                raise Lost("no whole answer in time: a tarpit, or a server that is stuck") from None
            except OSError as error:
                raise Lost(f"the connection was lost: {_reason(error)}") from None
        line, _, self._buffer = self._buffer.partition(b"\n")
        if len(line) > LINE_OCTETS:
            raise Lost(f"a line of more than {LINE_OCTETS} octets")
        return line.removesuffix(b"\r")

    def _more(self, end: float) -> bool:
        """Read once into the buffer; False at the end of the stream. Raises OSError, TimeoutError among them."""
        self._socket.settimeout(self._left(end - time.monotonic()))
        octets = self._socket.recv(4096)
        self._buffer += octets
        return bool(octets)

    def _waiting(self) -> bool:
        with contextlib.suppress(OSError):
            return self._more(time.monotonic() + 1)
        return False

    def _left(self, seconds: float) -> float:
        """So many seconds, or what is left of the dialogue. Raises TimeoutError for nothing."""
        left = min(seconds, self._end - time.monotonic())
        if left <= 0:
            raise TimeoutError("the time for this dialogue is over")
        return left

    def _wrap(self, context: ssl.SSLContext, name: str) -> None:
        try:
            self._socket.settimeout(self._left(self._limits.reply))
            self._socket = context.wrap_socket(self._socket, server_hostname=name or None)
        except ssl.SSLCertVerificationError as error:
            raise Untrusted(f"the certificate is not trusted: {error.verify_message}") from None
        except OSError as error:
            raise Lost(f"no TLS: {_reason(error)}") from None
        self._note("TLS", str(self._socket.version()))

    def _note(self, who: str, text: str) -> None:
        if len(self.transcript) < SHOWN_LINES:
            self.transcript.append(f"{who}: {self._show(text)}")

    def _show(self, text: str) -> str:
        """The text without secrets, without anything that a terminal would act on, and not too long."""
        hidden = self._hidden.sub(HIDDEN, text)
        printable = "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in hidden)
        return printable if len(printable) <= SHOWN_CHARACTERS else printable[:SHOWN_CHARACTERS] + " …"


def _pattern(hidden: Iterable[str]) -> re.Pattern[str]:
    words = sorted({re.escape(word) for word in hidden if word}, key=len, reverse=True)
    # A DQS key shows itself by the zone behind it, also one that nobody told us.
    return re.compile("|".join([*words, r"\b[a-z0-9]{26}(?=\.\w+\.dq\.spamhaus\.net)"]), re.IGNORECASE)


def _reason(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return (isinstance(error, ssl.SSLError) and error.reason) or error.strerror or str(error) or type(error).__name__
