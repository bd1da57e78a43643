# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How much one client, one message and one user may have: asked last, because it uses them up."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator

from ...findings import COMPLIANT, UNKNOWN, VIOLATED
from .. import messages
from ..dialogue import Busy
from .settings import Settings, User
from .visit import Answer, Case, Service, Visit, refusal

# A user's allowance grows again while it is used up.
GROWN = 2
_NOT_A_LIMIT = "refused, and not for how many there are"


def cases(settings: Settings, service: Service) -> Iterator[Case]:
    """The cases of the tests connections and limits for this service."""
    if "connections" in settings.tests:
        yield Case("connections", f"{settings.allowed_connections + 1} at once", "M10", _connections)
    if "limits" in settings.tests and settings.user and service.submission:
        recipients, burst = settings.allowed_recipients + 1, settings.allowed_burst + GROWN
        yield Case("limits", f"{recipients} recipients of one message", "M10", _recipients(settings.user, recipients))
        yield Case("limits", f"{burst} messages of one user at once", "M10", _burst(settings.user, burst))


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
            return refusal(f"{line}: {reply}", reply)
    return Answer(VIOLATED, f"{allowed + 1} connections of one client are served", f"{line}: {reply}")


def _recipients(user: User, most: int) -> Callable[[Visit], Answer]:
    """Nothing is sent: the dialogue ends before DATA."""

    def ask(visit: Visit) -> Answer:
        dialogue = visit.logged_in(user)
        line, reply = visit.envelope(dialogue, user.sender, visit.settings.target)
        number = 1
        while reply.accepted and number < most:
            reply, number = dialogue.say(f"RCPT TO:<{visit.settings.target}>"), number + 1
        line = f"login {user.name}, {line.rpartition(': ')[0]}, for the time {number}: {reply}"
        if reply.accepted:
            return Answer(VIOLATED, f"{number} recipients of one message are accepted", line)
        limited = number > 1 and (reply.code == 452 or reply.throttled)
        return Answer(COMPLIANT, line=line) if limited else Answer(UNKNOWN, _NOT_A_LIMIT, line)

    return ask


def _burst(user: User, most: int) -> Callable[[Visit], Answer]:
    """One login, message after message: scanners count a message when they have it whole."""

    def ask(visit: Visit) -> Answer:
        dialogue = visit.logged_in(user)
        for number in range(1, most + 1):
            envelope = messages.Envelope(user.sender, visit.settings.target, visit.settings.ehlo, secrets.token_hex(8))
            try:
                line, reply = visit.envelope(dialogue, envelope.sender, envelope.recipient)
                if reply.accepted:
                    reply = visit.message(dialogue, messages.ordinary(envelope), f"message {number}")
            except Busy as busy:
                said = f"login {user.name}, client {dialogue.client}, message {number} at once: {busy}"
                return Answer(COMPLIANT, line=said)
            line = f"login {user.name}, {line.rpartition(': ')[0]}, message {number} at once: {reply}"
            if not reply.accepted:
                return Answer(UNKNOWN, _NOT_A_LIMIT, line)
        return Answer(VIOLATED, f"{most} messages of one user at once are accepted", line)

    return ask
