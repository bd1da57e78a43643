# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the host makes of a message: where it ends, and what is in it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator

from ...findings import COMPLIANT, UNKNOWN, VIOLATED
from .. import messages, tricks
from ..dialogue import Dialogue, Lost
from .settings import INBOUND, OUTBOUND, Settings, User
from .visit import Answer, Case, Service, Shut, Visit, refusal


def cases(settings: Settings, service: Service) -> Iterator[Case]:
    """The cases of the tests smuggling, eicar, encrypted, gtube and scanner_down for this service."""
    wanted, user = settings.tests, settings.user if service.submission else None
    if "smuggling" in wanted and ((settings.role == INBOUND and not settings.listed) or user):
        for ending in tricks.ENDINGS:
            yield Case("smuggling", ending.name, "M13", _smuggling(ending, user))
    if not user:
        return
    for wrapping in messages.WRAPPINGS if "eicar" in wanted else ():
        yield Case("eicar", wrapping, "M6", _infected(user, wrapping))
    if "encrypted" in wanted:
        yield Case("encrypted", "an encrypted zip", "M6", _encrypted(user))
    if "gtube" in wanted:
        yield Case("gtube", "spam by agreement", "M6", _gtube(user))
    if "scanner_down" in wanted:
        yield Case("scanner_down", "an ordinary message", "M7", _unscanned(user))


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
            return refusal(line, reply)
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
        return refusal(line, reply)

    return ask


def _encrypted(user: User) -> Callable[[Visit], Answer]:
    def ask(visit: Visit) -> Answer:
        envelope = _addressed(visit, user)
        dialogue, line = _before_data(visit, user, envelope)
        reply = visit.message(dialogue, messages.encrypted(envelope), "an encrypted zip")
        line = f"login {user.name}, {line}, an encrypted zip: {reply}"
        return (
            Answer(VIOLATED, "accepted, and no scanner can have read it", line)
            if reply.accepted
            else refusal(line, reply)
        )

    return ask


def _gtube(user: User) -> Callable[[Visit], Answer]:
    def ask(visit: Visit) -> Answer:
        envelope = _addressed(visit, user)
        dialogue, line = _before_data(visit, user, envelope)
        reply = visit.message(dialogue, messages.gtube(envelope), "the test spam")
        line = f"login {user.name}, {line}, the test spam: {reply}"
        return Answer(VIOLATED, "accepted", line) if reply.accepted else refusal(line, reply)

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
        if reply.accepted and _finds_viruses(visit, user):
            return Answer(UNKNOWN, "the scanner is not down: it refuses the test virus", line)
        if reply.accepted:
            return Answer(VIOLATED, "accepted without a scan", line)
        if reply.deferred:
            return Answer(COMPLIANT, line=line)
        return Answer(UNKNOWN, "refused for good, not deferred", line)

    return ask


def _finds_viruses(visit: Visit, user: User) -> bool:
    envelope = _addressed(visit, user)
    dialogue, _ = _before_data(visit, user, envelope)
    # In an archive, which the token makes new: rspamd remembers its verdict on a part that it has seen.
    return visit.message(dialogue, messages.infected(envelope, "zip", 0), "the test virus: zip").refused
