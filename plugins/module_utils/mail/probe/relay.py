# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""To whom the host relays, and whose mail it takes."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator

from ...findings import COMPLIANT, UNKNOWN, VIOLATED
from .. import tricks
from ..dialogue import Reply
from .settings import INBOUND, OUTBOUND, Settings
from .visit import Answer, Case, Service, Shut, Visit, refusal

LISTED, UNLISTED = "a listed client", "a client that is not listed"
# Postfix: "blocked using zen.example.net".
_AS_LISTED = re.compile(r"blocked|blacklist|blocklist|\blisted\b|dnsbl|\brbl\b", re.IGNORECASE)


def cases(settings: Settings, service: Service) -> Iterator[Case]:
    """The cases of the tests recipients, relay and sobig that mean something on this service."""
    if "recipients" in settings.tests and settings.role == INBOUND:
        if settings.listed:
            yield Case("recipients", LISTED, "M5", _listed)
        else:
            if settings.listed is False:
                yield Case("recipients", UNLISTED, "M3", _unlisted)
            for recipient in settings.recipients:
                yield Case("recipients", recipient, "M12", _reachable(recipient))
    if "recipients" in settings.tests and settings.role == OUTBOUND and not service.submission:
        yield Case("recipients", "a stranger's mail to an own domain", "M1", _taken)
    if "relay" in settings.tests:
        yield from _matrix(settings, service)
    if "sobig" in settings.tests and settings.client_name and not service.submission:
        for parent in _parents(settings.client_name):
            yield Case("sobig", f"over the MX of {parent}", "M2", _sobig(parent))


def turned_away(visit: Visit) -> Answer:
    """Violated where the host refuses this client whatever it asks, so that its refusals tell nothing of its rules."""
    line, own, always = _own_and_far(visit)
    return Answer(VIOLATED, f"this client is refused whatever it asks: {own}", line) if always else Answer(COMPLIANT)


def _listed(visit: Visit) -> Answer:
    line, own, always = _own_and_far(visit)
    if own.accepted:
        return Answer(VIOLATED, "a listed client's mail is accepted", line)
    if own.refused and not always:
        return Answer(UNKNOWN, "refused for its recipient or its sender, not for its client", line)
    return refusal(line, own)


def _unlisted(visit: Visit) -> Answer:
    line, own, always = _own_and_far(visit)
    if always and any(_AS_LISTED.search(text) for text in own.lines):
        return Answer(VIOLATED, f"refused as if it were listed: {own}", line)
    if always:
        return Answer(UNKNOWN, f"this client is refused whatever it asks: {own}", line)
    return Answer(COMPLIANT, line=line) if own.accepted else refusal(line, own)


def _own_and_far(visit: Visit) -> tuple[str, Reply, bool]:
    """The answer to a mailbox of the host's own, and whether it is the same, naming no mailbox, to one elsewhere.

    From one sender or the other: some host refuses the null sender. All in one connection, because to a client that
    it does not know yet each costs postscreen's pause.
    """
    settings = visit.settings
    try:
        dialogue = visit.ready()
    except Shut as shut:
        return f"client {visit.dialogues[-1].client}, {shut}", shut.reply, shut.reply.refused
    always = True
    for sender in ("", settings.stranger):
        line, own = visit.envelope(dialogue, sender, settings.recipients[0])
        dialogue.say("RSET")
        far = visit.envelope(dialogue, sender, settings.target)[1]
        dialogue.say("RSET")
        if not own.refused or own != far:
            always = False
            break
    dialogue.quit()
    return line, own, always


def _matrix(settings: Settings, service: Service) -> Iterator[Case]:
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
            return refusal(line, reply)
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
        return refusal(line, reply)

    return ask


def _sobig(parent: str) -> Callable[[Visit], Answer]:
    def ask(visit: Visit) -> Answer:
        dialogue = visit.greeted(ehlo=visit.settings.client_name)
        line, reply = visit.envelope(dialogue, f"postmaster@{parent}", visit.settings.target)
        dialogue.quit()
        return Answer(VIOLATED, "accepted", line) if reply.accepted else refusal(line, reply)

    return ask


def _taken(visit: Visit) -> Answer:
    line, reply = visit.strangers(visit.settings.stranger, visit.settings.recipients[0])
    return Answer(VIOLATED, "an outbound host is an MX too", line) if reply.accepted else refusal(line, reply)


def _reachable(recipient: str) -> Callable[[Visit], Answer]:
    def ask(visit: Visit) -> Answer:
        line, reply = visit.strangers("", recipient)
        if reply.accepted:
            return Answer(COMPLIANT, line=line)
        if reply.refused:
            return Answer(VIOLATED, "refused", line)
        return refusal(line, reply)

    return ask


def _parents(name: str) -> list[str]:
    """The domains above a host name, down to two labels: what Sobig asked for an MX."""
    labels = name.strip(".").split(".")
    return [".".join(labels[start:]) for start in range(1, len(labels) - 1)]
