# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""M12 and M13: who is always reachable, and what no stranger may say.

Sources: RFC 5321 4.5.1 (postmaster), RFC 2142 (abuse).
"""

from __future__ import annotations

from collections.abc import Iterator

from ...findings import COMPLIANT, UNKNOWN, VIOLATED, Finding
from ..restrictions import Envelope
from .base import INBOUND, NO_PORT, Audited, spoken, stranger

_RECIPIENTS = ("local_recipient_maps", "virtual_alias_maps", "virtual_mailbox_maps", "relay_recipient_maps")


def reachable(host: Audited) -> Iterator[Finding]:
    title = "postmaster and abuse are reachable"
    if host.expected.side != INBOUND:
        return
    ports = [port for port in host.ports if port.for_servers]
    if not ports:
        reason = "Nobody reaches them: no service takes mail on port 25 from the network."
        yield host.finding("M12", "Postfix", VIOLATED, title, reason, [], "Let postscreen or smtpd listen on port 25.")
    for port in ports:
        for domain in host.expected.domains:
            lost = []
            for name in ("postmaster", "abuse"):
                envelope = Envelope(stranger(), "someone@example.org", f"{name}@{domain}")
                said = host.ask(port, envelope, data=False)
                if not said.accepted:
                    lost.append((envelope, said))
            place = f"{port.title}, {domain}"
            if not lost:
                yield host.finding("M12", place, COMPLIANT, title)
                continue
            doubts = [doubt for _, said in lost for doubt in said.doubts]
            evidence = host.led_to(port, lost[0][1])
            evidence += [port.parameters.evidence(name) for name in _RECIPIENTS if port.parameters[name]]
            reason = "; ".join(spoken(*one) for one in lost)
            mend = "Add them to the table of recipients."
            verdict = UNKNOWN if doubts else VIOLATED
            yield host.finding("M12", place, verdict, title, reason, evidence, mend, spoken(*lost[0]))


def commands(host: Audited) -> Iterator[Finding]:
    title = "No VRFY, no ETRN, no smuggling, no pipelining before its time"
    if not host.ports:
        yield host.finding("M13", "Postfix", COMPLIANT, f"{title} ({NO_PORT})")
    for port in host.ports:
        parameters = port.parameters
        problems: list[tuple[str, str]] = []
        if not parameters.yes("disable_vrfy_command"):
            problems.append(("VRFY tells who has a mailbox", "disable_vrfy_command"))
        refused = {"reject", "defer"} & set(parameters.words("smtpd_etrn_restrictions"))
        if not refused and parameters["fast_flush_domains"]:
            problems.append(("ETRN is open", "smtpd_etrn_restrictions"))
        if parameters["smtpd_forbid_bare_newline"].lower() not in ("yes", "normalize", "reject"):
            problems.append(("a bare newline ends a message (smuggling)", "smtpd_forbid_bare_newline"))
        data = parameters.words("smtpd_data_restrictions")
        if not parameters.yes("smtpd_forbid_unauth_pipelining") and "reject_unauth_pipelining" not in data:
            problems.append(("pipelining before its time", "smtpd_forbid_unauth_pipelining"))
        greet = port.postscreen["postscreen_greet_action"] if port.postscreen else "enforce"
        if greet not in ("enforce", "drop"):
            problems.append(("who talks before the greeting is let in", "postscreen_greet_action"))
        evidence = [
            (port.postscreen if name.startswith("postscreen") and port.postscreen else parameters).evidence(name)
            for _, name in problems
        ]
        verdict = VIOLATED if problems else COMPLIANT
        reason = f"{'; '.join(reason for reason, _ in problems)}."
        mend = (
            "Set disable_vrfy_command = yes, smtpd_etrn_restrictions = reject, smtpd_forbid_bare_newline = "
            "normalize, smtpd_forbid_unauth_pipelining = yes and postscreen_greet_action = enforce."
        )
        yield host.finding("M13", port.title, verdict, title, reason, evidence, mend)
