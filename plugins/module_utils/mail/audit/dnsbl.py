# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""M3, M4 and M5: the DNSBL, and the resolver that asks it.

Source: Spamhaus's return codes (127.255.255.0/24 are errors).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address

from ...findings import COMPLIANT, UNKNOWN, VIOLATED, Finding
from ..postfix import Parameters
from ..restrictions import Client, Envelope, code_matches, lists
from ..tables import Unreadable
from .base import INBOUND, KEY, STRANGER, Audited, Port, spoken, stranger

ERROR_CODE = "127.255.255.254"  # Spamhaus: asked over a public resolver
LISTED_CODE = "127.0.0.4"  # Spamhaus: XBL


def dnsbl(host: Audited) -> Iterator[Finding]:
    title = "Only real listings of the DNSBL count, and its key is never shown"
    for port in host.ports:
        problems: list[tuple[str, str, str]] = []
        asked = [(zone, "reject_rbl_client") for zone in host.zones(port.parameters, "reject_rbl_client")]
        if port.postscreen:
            sites = port.postscreen.words("postscreen_dnsbl_sites")
            asked += [(site.partition("*")[0], "postscreen_dnsbl_sites") for site in sites]
        for zone, where in asked:
            name, _, wanted = zone.partition("=")
            if code_matches(wanted, ERROR_CODE):
                what = "without a filter of its answers" if not wanted else f"with the filter {wanted}"
                reason = f"{name} is asked {what}: its error code {ERROR_CODE} refuses everybody's mail."
                problems.append((reason, f"{where} … {zone}", f"Write {name}=127.0.0.[2..11] there."))
            if secret(host, name) and shows(host, port, name, where):
                reason = "A refusal names the zone, and the key with it."
                if where.startswith("post"):
                    mend = "Give the zone another name in postscreen_dnsbl_reply_map."
                else:
                    mend = "Give the zone a text of its own in rbl_reply_maps."
                problems.append((reason, f"{where} … {name}", mend))
        for reason, evidence, mend in problems:
            packet = f"client {STRANGER}, DNSBL answers {ERROR_CODE}" if ERROR_CODE in reason else ""
            yield host.finding("M3", port.title, VIOLATED, title, reason, [evidence], mend, packet)
        if not problems:
            yield host.finding("M3", port.title, COMPLIANT, title)


def secret(host: Audited, zone: str) -> bool:
    key = host.expected.dnsbl_key
    return bool(KEY.search(zone)) or (bool(key) and key.lower() in zone.lower())


def shows(host: Audited, port: Port, zone: str, where: str) -> bool:
    """Whether the answer to a listed client has the zone in it."""
    maps = "postscreen_dnsbl_reply_map" if where.startswith("post") else "rbl_reply_maps"
    parameters = port.postscreen if where.startswith("post") and port.postscreen else port.parameters
    try:
        text = host.tables.find(parameters.words(maps), zone)
    except Unreadable:
        return True
    if where.startswith("post"):
        return not text or secret(host, text)
    text = text or parameters.raw.get("default_rbl_reply", "$rbl_domain")
    return "$rbl_domain" in text or "${rbl_domain" in text or secret(host, text)


def listed_refused(host: Audited) -> Iterator[Finding]:
    title = "A client that the XBL lists is refused"
    if host.expected.side != INBOUND:
        return
    for port in host.ports:
        zones = {zone.partition("=")[0] for zone in host.zones(port.parameters, "reject_rbl_client")}
        sites = port.postscreen.words("postscreen_dnsbl_sites") if port.postscreen else []
        zones |= {site.partition("*")[0].partition("=")[0] for site in sites}
        listed = tuple((zone, LISTED_CODE) for zone in sorted(zones) if has_xbl(host, zone))
        client = replace(stranger(), title="listed by the XBL", listings=listed)
        evidence = [port.parameters.evidence(name) for name in lists(port.parameters)[:1]]
        if port.postscreen:
            names = ("postscreen_dnsbl_sites", "postscreen_dnsbl_threshold", "postscreen_dnsbl_action")
            evidence = [port.postscreen.evidence(name) for name in names]
        if port.postscreen and screened(port.postscreen, client):
            yield host.finding("M5", port.title, COMPLIANT, title)
            continue
        recipient = f"postmaster@{host.expected.domains[0]}"
        said = host.ask(port, Envelope(client, "someone@example.org", recipient))
        if not said.accepted and listed:
            verdict = COMPLIANT if not said.doubts else UNKNOWN
        else:
            verdict = VIOLATED if not said.doubts else UNKNOWN
        reason = "No list with the XBL is asked." if not listed else "Its answer 127.0.0.4 does not refuse."
        if verdict == UNKNOWN:
            reason = f"It depends on what could not be evaluated: {', '.join(said.doubts)}."
        mend = "Ask ZONE=127.0.0.[2..11]*3 in postscreen_dnsbl_sites, with postscreen_dnsbl_action = enforce."
        packet = spoken(Envelope(client, "someone@example.org", recipient), said)
        yield host.finding("M5", port.title, verdict, title, reason, evidence, mend, packet)


def has_xbl(host: Audited, zone: str) -> bool:
    known = re.search(r"(?:^|\.)(?:zen|xbl|sbl-xbl)(?:\.dq)?\.spamhaus\.(?:org|net)$", zone.lower())
    own = host.expected.dnsbl_zone
    return bool(known) or (bool(own) and (zone == own or zone.endswith(f".{own}")))


def screened(parameters: Parameters, client: Client) -> bool:
    """Whether postscreen refuses the client for its listings."""
    if parameters["postscreen_dnsbl_action"] not in ("enforce", "drop"):
        return False
    score = 0
    for site in parameters.words("postscreen_dnsbl_sites"):
        zone, _, weight = site.partition("*")
        name, _, wanted = zone.partition("=")
        if any(name == listed and code_matches(wanted, code) for listed, code in client.listings):
            score += int(weight) if re.fullmatch(r"-?\d+", weight) else 1
    return score >= (parameters.number("postscreen_dnsbl_threshold") or 1)


def resolver(host: Audited) -> Iterator[Finding]:
    title = "Names are resolved by a resolver of its own"
    for place, text in (
        ("/etc/resolv.conf", host.reading.resolv),
        ("resolv.conf in Postfix's chroot", host.reading.chroot_resolv),
    ):
        if not text:
            if place.startswith("/") or text is None:
                yield host.finding("M4", place, UNKNOWN, title, f"{place} cannot be read.")
            continue
        servers = re.findall(r"^\s*nameserver\s+(\S+)", text, re.MULTILINE) or ["127.0.0.1"]
        strange = [one for one in servers if not own_address(host, one)]
        public = [one for one in strange if _is_public(one)]
        evidence = [f"{place} nameserver {one}" for one in strange or servers]
        mend = "Run a recursive resolver here and ask it: nameserver 127.0.0.1."
        if public:
            reason = f"{', '.join(public)} asks for many: Spamhaus refuses such resolvers."
            yield host.finding("M4", place, VIOLATED, title, reason, evidence, mend)
        elif strange:
            reason = f"Whether {', '.join(strange)} recurses itself cannot be told from here."
            yield host.finding("M4", place, UNKNOWN, title, reason, evidence, mend)
        else:
            yield host.finding("M4", place, COMPLIANT, title)
    if re.search(r'^\s*name:\s*"?\."?\s*$', host.reading.unbound or "", re.MULTILINE):
        reason = "The resolver here forwards everything to another one."
        evidence = ['unbound forward-zone name: "."']
        yield host.finding("M4", "unbound", VIOLATED, title, reason, evidence, "Take the forward-zone for . out.")


def own_address(host: Audited, text: str) -> bool:
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return False
    stub = str(address) == "127.0.0.53"  # systemd-resolved, which forwards
    return (address.is_loopback and not stub) or str(address) in host.expected.addresses


def _is_public(text: str) -> bool:
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return address.is_global
