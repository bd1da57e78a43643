# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the host takes in a session: commands, their time, TLS, AUTH, the sender of a login."""

from __future__ import annotations

import secrets
import ssl
import warnings
from collections.abc import Callable, Iterator

from ...findings import COMPLIANT, UNKNOWN, VIOLATED
from .. import tricks
from ..dialogue import Busy, Dialogue, Lost
from .settings import INBOUND, SMTP, SUBMISSION, SUBMISSIONS, Settings, User, unverified
from .visit import Answer, Case, Service, Shut, Visit, refusal


def cases(settings: Settings, service: Service) -> Iterator[Case]:
    """The cases of the tests early_talker, commands, pipelining, auth, tls and sender for this service."""
    wanted, user = settings.tests, settings.user
    if "early_talker" in wanted and settings.role == INBOUND and not service.submission:
        yield Case("early_talker", "EHLO before the greeting", "M13", _early)
    if settings.listed:
        return  # what refuses a listed client answers in place of the server
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
            yield Case("tls", f"no login under {_spoken(version)}", "M8", _old_tls(version))
        yield Case("tls", "TLS 1.2 or newer", "M8", _modern_tls)
    if user and service.submission and "sender" in wanted:
        for name, sender in (("another's address", _another(settings, user)), ("null sender", "")):
            yield Case("sender", name, "M9", _foreign_sender(user, sender))


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
    return refusal(line, reply)


def _vrfy(visit: Visit) -> Answer:
    dialogue, settings = visit.ready(), visit.settings
    known = dialogue.say(f"VRFY {(*settings.recipients, f'postmaster@{settings.domains[0]}')[0]}")
    other = dialogue.say(f"VRFY {tricks.NOBODY}@{settings.domains[0]}")
    dialogue.quit()
    line = f"client {dialogue.client}, VRFY: {known}; of no mailbox: {other}"
    if known.accepted or other.accepted or known.code != other.code:
        return Answer(VIOLATED, "VRFY is answered", line)
    return refusal(line, known)


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
    return Answer(COMPLIANT, line=line) if reply.code == 459 else refusal(line, reply)


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
    return Answer(VIOLATED, "commands before their time are served", line) if reply.accepted else refusal(line, reply)


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
    return refusal(line, reply)


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
        line = f"client {dialogue.client}, handshake with {spoken}: accepted"
        # Strangers may send in the clear too; what old TLS must not carry is a password.
        if visit.service.kind == SMTP and not any(word.split("=")[0] == "AUTH" for word in dialogue.extensions):
            return Answer(COMPLIANT, line=f"{line}, no AUTH")
        return Answer(VIOLATED, f"{spoken} is accepted", line)

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
        dialogue = visit.logged_in(user)  # once: servers count logins
        line, reply = visit.envelope(dialogue, user.sender, visit.settings.target)
        if not reply.accepted:
            return Answer(UNKNOWN, "the user's own address is not accepted either", line)
        dialogue.say("RSET")
        line, reply = visit.envelope(dialogue, sender, visit.settings.target)
        dialogue.quit()
        said = f"login {user.name}, {line}"
        if reply.accepted:
            return Answer(VIOLATED, "accepted" if sender else "the null sender is accepted", said)
        return refusal(said, reply)

    return ask
