# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""M1, the other way: which way mail leaves the host, from which address, under which name, and under TLS (M8).

Sources: postconf(5) (default_transport for the order of next hops, smtp_bind_address, inet_interfaces,
smtp_tls_security_level), transport(5); RFC 7435 (opportunistic security), RFC 7672 (DANE).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_address

from ...findings import COMPLIANT, UNKNOWN, VIOLATED, Finding
from ..postfix import Parameters, Postfix, words
from ..tables import Tables, Unreadable
from .base import INBOUND, OUTBOUND, Audited

_NOWHERE = ("error", "retry", "discard")


def next_hops(postfix: Postfix, tables: Tables) -> tuple[Parameters, str, list[str], str]:
    """Where the null sender's mail to a stranger goes: the client's parameters, its command, hops, and why there.

    No hops: straight to the recipient's own mail servers.
    """
    main = postfix.effective()
    transport, why = tables.find(main.words("transport_maps"), "*"), "transport_maps"
    relay = ""
    if not transport:
        transport, why = tables.find(main.words("sender_dependent_default_transport_maps"), "<>"), ""
        transport, why = transport or main["default_transport"], "default_transport"
        relay = tables.find(main.words("sender_dependent_relayhost_maps"), "<>") or main["relayhost"]
    name, _, hops = transport.partition(":")
    service = postfix.named(name or "smtp", "unix")
    if not hops and relay:
        hops, why = relay, "relayhost"
    return postfix.effective(service), service.command if service else name, words(hops), why


def bounces(host: Audited) -> Iterator[Finding]:
    """What an inbound host sends itself."""
    if host.expected.side != INBOUND or host.reading.postfix is None:
        return
    title = "What the host has to send itself, bounces above all, leaves through an outbound host"
    mend = "Name the outbound hosts in relayhost."
    try:
        client, command, hops, why = next_hops(host.reading.postfix, host.tables)
    except Unreadable as why_not:
        yield host.finding("M1", "bounces", UNKNOWN, title, f"It depends on {why_not}.", [], mend)
        return
    verdict, reason = COMPLIANT, ""
    if command not in _NOWHERE:
        verdict, reason = _judged(host, hops)
        if not hops:
            verdict, reason = VIOLATED, "They go from this host straight to the world."
    yield host.finding("M1", "bounces", verdict, title, reason, [client.evidence(why), *_relayhost(client, why)], mend)


def source(host: Audited) -> Iterator[Finding]:
    """From where, and as whom, an outbound host speaks to the world."""
    if host.expected.side != OUTBOUND or host.reading.postfix is None:
        return
    title = "Mail leaves from the address and under the name that the policy has for the host"
    mend = "Set smtp_bind_address, smtp_bind_address6 and smtp_helo_name."
    try:
        client, command, hops, why = next_hops(host.reading.postfix, host.tables)
    except Unreadable as why_not:
        yield host.finding("M1", "the way out", UNKNOWN, title, f"It depends on {why_not}.", [], mend)
        return
    if command in _NOWHERE:
        yield host.finding("M1", "the way out", COMPLIANT, f"{title} (none leaves: {command} takes it)")
        return
    if hops:
        verdict, reason = _judged(host, hops)
        yield host.finding("M1", "the way out", verdict, title, reason, [client.evidence(why)], "Empty relayhost.")
    else:
        yield _spoken_from(host, client, title, mend)
    yield _under_tls(host, client)


def _spoken_from(host: Audited, client: Parameters, title: str, mend: str) -> Finding:
    problems, evidence, seen = [], [], 0
    protocols = client.words("inet_protocols")
    for family, suffix in ((4, ""), (6, "6")):
        if not {"all", f"ipv{family}"} & set(protocols):
            continue
        evidence.append(client.evidence(f"smtp_bind_address{suffix}"))
        address = client[f"smtp_bind_address{suffix}"].strip("[]") or _only_interface(client, family)
        if not address and family in host.reading.sources:
            address = host.reading.sources[family]
            evidence.append(f"the route to the world has the source {address}")
        seen += bool(address)
        if address and address not in host.expected.addresses:
            problems.append(f"it leaves from {address}, which is no address of the policy")
    fallback, doubt = _judged(host, client.words("smtp_fallback_relay"))
    if fallback == VIOLATED:
        problems.append(f"what cannot be delivered goes another way: {client['smtp_fallback_relay']}")
    if doubt:
        evidence.append(client.evidence("smtp_fallback_relay"))
    helo = client["smtp_helo_name"]
    if host.expected.name and helo.lower() != host.expected.name.lower():
        problems.append(f"it says EHLO {helo}, and the policy {host.expected.name}")
        evidence.append(client.evidence("smtp_helo_name"))
    verdict, reason = (VIOLATED, f"{'; '.join(problems)}.") if problems else (COMPLIANT, "")
    if not host.expected.addresses:
        verdict, reason = UNKNOWN, "The addresses of the policy were not told."
    elif not problems and not seen:
        verdict, reason = UNKNOWN, "Neither the configuration nor a route tells the address."
    elif not problems and doubt:
        verdict, reason = UNKNOWN, doubt
    elif not problems and (maps := client["sender_dependent_default_transport_maps"]):
        verdict, reason = UNKNOWN, f"Some senders' mail leaves another way: {maps}."
        evidence.append(client.evidence("sender_dependent_default_transport_maps"))
    return host.finding("M1", "the way out", verdict, title, reason, evidence, mend)


def _under_tls(host: Audited, client: Parameters) -> Finding:
    title = "Mail leaves under TLS wherever the receiver offers it"
    level = client["smtp_tls_security_level"].lower()
    if not level:  # the names of Postfix 2.2
        level = next((to for old, to in _OLD_LEVELS.items() if client.yes(old)), "none")
    names = ["smtp_tls_security_level"]
    verdict, reason = COMPLIANT, ""
    if level == "none":
        verdict, reason = VIOLATED, "It leaves in plain text, whatever the receiver offers."
    elif level in ("dane", "dane-only") and client["smtp_dns_support_level"].lower() != "dnssec":
        verdict, reason = VIOLATED, "DANE is asked for, but DNSSEC is not, so that no TLSA record counts."
        names.append("smtp_dns_support_level")
    mend = "Set smtp_tls_security_level = dane and smtp_dns_support_level = dnssec, or may."
    return host.finding("M8", "the way out", verdict, title, reason, [client.evidence(one) for one in names], mend)


_OLD_LEVELS = {"smtp_enforce_tls": "encrypt", "smtp_use_tls": "may"}


def _relayhost(client: Parameters, why: str) -> list[str]:
    return [] if why == "relayhost" else [client.evidence("relayhost")]


def _judged(host: Audited, hops: list[str]) -> tuple[str, str]:
    """Whether every hop is an outbound host of the policy."""
    known = [one.lower() for one in host.expected.outbound]
    strange = [hop for hop in hops if _bare(hop) not in known]
    if not strange:
        return COMPLIANT, ""
    if known and all(_is_address(_bare(hop)) for hop in strange):
        return VIOLATED, f"It leaves through {', '.join(strange)}, which is no outbound host of the policy."
    return UNKNOWN, f"Whether {', '.join(strange)} is an outbound host of the policy cannot be told from here."


def _bare(hop: str) -> str:
    """The name or address of "[out1.example.net]:587", "[ipv6:2001:db8::25]" and "out1.example.net:smtp"."""
    found = re.match(r"\[(?:ipv6:)?([^\]]*)\]", hop.lower())
    return found[1] if found else hop.lower().partition(":")[0]


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _only_interface(client: Parameters, family: int) -> str:
    """The one address of the family that Postfix listens on, which it then speaks from as well."""
    found = [one.strip("[]") for one in client.words("inet_interfaces")]
    own = [one for one in found if _is_address(one) and ip_address(one).version == family]
    return own[0] if len(own) == 1 and not ip_address(own[0]).is_loopback else ""
