# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""M8 and M9: logins under TLS, and senders that belong to the user.

Sources: RFC 8314 and RFC 8996 (TLS).
"""

from __future__ import annotations

from collections.abc import Iterator

from ...findings import COMPLIANT, UNKNOWN, VIOLATED, Finding
from ..postfix import words
from ..restrictions import Client, Envelope
from .base import FAR, OUTBOUND, STRANGER, Audited, spoken


def logins(host: Audited) -> Iterator[Finding]:
    title = "AUTH is offered under TLS 1.2 or newer alone"
    ports = [port for port in host.ports if port.for_users]
    if not ports and host.expected.side == OUTBOUND:
        yield host.finding("M8", "Postfix", COMPLIANT, f"{title} (no service takes a login)")
    for port in ports:
        parameters = port.parameters
        level = parameters["smtpd_tls_security_level"].lower()
        problems, evidence = [], []
        forced = level not in ("", "none", "may") or parameters.yes("smtpd_tls_wrappermode")
        forced = forced or (not level and parameters.yes("smtpd_enforce_tls"))
        offered = forced or level == "may" or (not level and parameters.yes("smtpd_use_tls"))
        if not forced and not parameters.yes("smtpd_tls_auth_only"):
            problems.append("AUTH is offered in plain text too")
            evidence += [
                parameters.evidence("smtpd_tls_auth_only"),
                parameters.evidence("smtpd_tls_security_level"),
            ]
        name = "smtpd_tls_mandatory_protocols" if forced else "smtpd_tls_protocols"
        old = [version for version in ("SSLv3", "TLSv1", "TLSv1.1") if _has_protocol(parameters[name], version)]
        if old and offered:
            problems.append(f"{' and '.join(old)} can be had")
            evidence.append(parameters.evidence(name))
        options = "smtpd_sasl_tls_security_options"
        if "noanonymous" not in parameters.words(options):
            problems.append("anonymous logins can be had")
            evidence.append(parameters.evidence(options))
        verdict = VIOLATED if problems else COMPLIANT
        mend = "Set smtpd_tls_security_level = encrypt and smtpd_tls_mandatory_protocols = >=TLSv1.2."
        yield host.finding("M8", port.title, verdict, title, f"{'; '.join(problems)}.", evidence, mend)


def own_senders(host: Audited) -> Iterator[Finding]:
    title = "A user sends under addresses of his own alone, the null sender included"
    own = host.expected.domains[0] if host.expected.domains else "example.net"
    ports = [port for port in host.ports if port.for_users]
    if not ports and host.expected.side == OUTBOUND:
        yield host.finding("M9", "Postfix", COMPLIANT, f"{title} (no service takes a login)")
    for port in ports:
        client = Client("a user", STRANGER, user=f"no-such-user@{own}")
        verdict, worst = COMPLIANT, None
        for sender in ("someone@example.org", f"postmaster@{own}", ""):
            envelope = Envelope(client, sender, FAR)
            said = host.ask(port, envelope)
            if said.accepted and not said.doubts and verdict != VIOLATED:
                verdict, worst = VIOLATED, (envelope, said)
            elif said.doubts and verdict == COMPLIANT:
                verdict, worst = UNKNOWN, (envelope, said)
        if worst is None:
            yield host.finding("M9", port.title, COMPLIANT, title)
            continue
        reason = "A sender that is not the user's is accepted."
        if verdict == UNKNOWN:
            reason = f"It depends on what could not be evaluated: {', '.join(worst[1].doubts)}."
        evidence = [port.parameters.evidence("smtpd_sender_login_maps"), *host.led_to(port, worst[1])]
        mend = "Add reject_sender_login_mismatch, and an access table that refuses <>, to smtpd_sender_restrictions."
        packet = f"user {client.user}, {spoken(*worst)}"
        yield host.finding("M9", port.title, verdict, title, reason, evidence, mend, packet)


def _has_protocol(value: str, version: str) -> bool:
    """Whether a list of TLS protocols (">=TLSv1.2", "!SSLv2, !TLSv1", "TLSv1.2 TLSv1.3") has this one."""
    order = ["sslv2", "sslv3", "tlsv1", "tlsv1.1", "tlsv1.2", "tlsv1.3"]
    version = version.lower()
    names = words(value.replace(":", " ").lower())
    lowest = next((name[2:] for name in names if name.startswith(">=")), "")
    if lowest in order and order.index(version) < order.index(lowest):
        return False
    if f"!{version}" in names:
        return False
    wanted = [name for name in names if name in order]
    return not wanted or version in wanted
