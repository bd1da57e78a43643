# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""M3, M4 and M5: the DNSBL, and the resolver that asks it.

Source: Spamhaus's return codes (127.255.255.0/24 are errors).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_network
from itertools import islice

from ...findings import COMPLIANT, UNKNOWN, VIOLATED, Finding
from .. import DNSBL_ALIAS
from ..postfix import Parameters
from ..restrictions import Client, Envelope, code_matches, lists
from ..tables import Unreadable, is_table, network_matches
from .base import INBOUND, KEY, NO_PORT, STRANGER, Audited, Port, spoken, stranger, zones
from .relaying import host_of, may_send, network_of, networks, pool_of

ERROR_CODE = "127.255.255.254"  # Spamhaus: asked over a public resolver
_ASKING = (
    "reject_rbl_client",
    *(f"reject_rhsbl_{what}" for what in ("client", "reverse_client", "helo", "sender", "recipient")),
)
_REFUSING = ("enforce", "drop")
_MOST = 2000  # exceptions that are tried: some let whole countries pass
LISTED_CODE = "127.0.0.4"  # Spamhaus: XBL


def dnsbl(host: Audited) -> Iterator[Finding]:
    title = "Only real listings of the DNSBL count, and its key is never shown"
    if not host.ports:
        yield host.finding("M3", "Postfix", COMPLIANT, f"{title} ({NO_PORT})")
    for port in host.ports:
        problems: list[tuple[str, str, str]] = []
        asked = [(zone, rule, "refuses") for rule in _ASKING for zone in zones(port.parameters, rule)]
        if port.postscreen and port.postscreen["postscreen_dnsbl_action"] in _REFUSING:
            threshold = port.postscreen.number("postscreen_dnsbl_threshold") or 1
            for site in port.postscreen.words("postscreen_dnsbl_sites"):
                zone, weight = weighed(site)
                effect = "refuses" if weight >= threshold else f"counts {weight} of {threshold} against"
                if weight > 0:  # the others speak for a client
                    asked.append((zone, "postscreen_dnsbl_sites", effect))
        for zone, where, effect in asked:
            name, _, wanted = zone.partition("=")
            if code_matches(wanted, ERROR_CODE):
                what = "without a filter of its answers" if not wanted else f"with the filter {wanted}"
                reason = f"{name} is asked {what}: its error code {ERROR_CODE} {effect} everybody's mail."
                if not has_xbl(host, name) and "spamhaus" not in name:
                    reason = f"{name} is asked {what}: any answer {effect} mail, one like {ERROR_CODE} too."
                codes = "127.0.1.[2..99]" if name.partition(".")[0] == "dbl" else "127.0.0.[2..11]"
                problems.append((reason, f"{where} … {zone}", f"Write {name}={codes} there."))
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
    ports = [port for port in host.ports if port.for_servers]
    if not ports:
        yield host.finding("M5", "Postfix", COMPLIANT, f"{title} (no service takes mail on port 25 from the network)")
    for port in ports:
        asked = {zone.partition("=")[0] for zone in zones(port.parameters, "reject_rbl_client")}
        sites = port.postscreen.words("postscreen_dnsbl_sites") if port.postscreen else []
        asked |= {site.partition("*")[0].partition("=")[0] for site in sites}
        listed = tuple((zone, LISTED_CODE) for zone in sorted(asked) if has_xbl(host, zone))
        evidence = [port.parameters.evidence(name) for name in lists(port.parameters)[:1]]
        if port.postscreen:
            names = ("postscreen_dnsbl_sites", "postscreen_dnsbl_threshold", "postscreen_dnsbl_action")
            evidence = [port.postscreen.evidence(name) for name in names]
        mend = "Ask ZONE=127.0.0.[2..11]*3 in postscreen_dnsbl_sites, with postscreen_dnsbl_action = enforce."
        refused = f"{title}, unless its address is one of those that this host makes an exception of"
        seen = COMPLIANT
        for pool, client in _listed_clients(host, port, listed):
            passed, doubts = _passes(host, port, client)
            said = host.ask(port, _envelope(host, client))
            if not passed or (said.accepted is False and listed and not said.doubts):
                continue
            doubts += said.doubts
            if seen != COMPLIANT and doubts:
                continue
            seen = verdict = UNKNOWN if doubts else VIOLATED
            reason = "No list with the XBL is asked." if not listed else "Its answer 127.0.0.4 does not refuse."
            if listed and client.title != stranger().title:
                reason = f"{client.title} is let in before a list is asked."
                evidence = host.led_to(port, said)
                mend = "Take it out of mynetworks, and of every table that lets it in."
                if port.postscreen:
                    evidence = [port.postscreen.evidence(name) for name in ("postscreen_access_list", "mynetworks")]
            if doubts:
                reason = f"It depends on what could not be evaluated: {', '.join(doubts)}."
            packet = spoken(_envelope(host, client), said)
            yield host.finding("M5", port.title, verdict, title, reason, evidence, mend, packet, pool)
            if client.title == stranger().title:
                break  # who lets everybody in makes no exceptions
        if seen == COMPLIANT:
            yield host.finding("M5", port.title, COMPLIANT, refused if _few(host, port) else title)


def _envelope(host: Audited, client: Client) -> Envelope:
    return Envelope(client, "someone@example.org", f"postmaster@{host.expected.domains[0]}")


def _listed_clients(host: Audited, port: Port, listed: tuple[tuple[str, str], ...]) -> Iterator[tuple[str, Client]]:
    """Whom to try: the world, and whom postscreen may make an exception of, by pool."""
    yield "", replace(stranger(), listings=listed)
    for pool, prefixes in host.expected.pools.items():
        for prefix in prefixes:
            yield pool, Client(f"A host of pool {pool}", host_of(prefix), listings=listed)
    for network in islice(_exceptions(host, port), _MOST):
        if pool_of(host, network) == "" and not may_send(host, network) and _is_wide(network):
            yield "", Client(f"Every host of {network}", host_of(network), listings=listed)


def _exceptions(host: Audited, port: Port) -> Iterator[str]:
    """The networks that postscreen_access_list names, or lets pass as mynetworks."""
    screen = port.postscreen
    for element in screen.words("postscreen_access_list") if screen else []:
        if element == "permit_mynetworks":
            yield from networks(host, port)
        elif is_table(element):
            keys = (key for key, action in host.reading.dumps.get(element, ()) if action.lower() == "permit")
            yield from (network for key in keys if (network := network_of(key)))


def _is_wide(network: str) -> bool:
    """Whether it holds more than one network of the size that a mail provider is given."""
    found = ip_network(network)
    return found.prefixlen < (24 if found.version == 4 else 56)


def _few(host: Audited, port: Port) -> bool:
    """Whether there are exceptions but for this host and those that may send through it."""
    return any(not may_send(host, network) for network in _exceptions(host, port))


def _passes(host: Audited, port: Port, client: Client) -> tuple[bool, tuple[str, ...]]:
    """Whether postscreen lets the client on to the server, and what that depends on."""
    screen = port.postscreen
    if screen is None:
        return True, ()
    try:
        for element in screen.words("postscreen_access_list"):
            action = ""
            if element == "permit_mynetworks":
                mine = network_matches(screen["mynetworks"], client.address, "unknown", False, host.tables)
                action = "permit" if mine else ""
            elif element == "permit_inet_interfaces":
                action = "permit" if client.address in host.expected.addresses else ""
            elif is_table(element):
                action = host.tables.get(element, client.address).lower()
            else:
                action = element.lower()
            if action == "permit":
                return True, ()
            if action in ("reject", "dunno"):
                break
    except Unreadable as reason:
        return True, (str(reason),)
    return not screened(screen, client), ()


def has_xbl(host: Audited, zone: str) -> bool:
    if zone == DNSBL_ALIAS:  # a name that the resolver here gives the zone behind the key
        return f'name: "{DNSBL_ALIAS}"' in (host.reading.unbound or "")
    known = re.search(r"(?:^|\.)(?:zen|xbl|sbl-xbl)(?:\.dq)?\.spamhaus\.(?:org|net)$", zone.lower())
    own = host.expected.dnsbl_zone
    return bool(known) or (bool(own) and (zone == own or zone.endswith(f".{own}")))


def screened(parameters: Parameters, client: Client) -> bool:
    """Whether postscreen refuses the client for its listings."""
    if parameters["postscreen_dnsbl_action"] not in _REFUSING:
        return False
    score = 0
    for site in parameters.words("postscreen_dnsbl_sites"):
        zone, weight = weighed(site)
        name, _, wanted = zone.partition("=")
        if any(name == listed and code_matches(wanted, code) for listed, code in client.listings):
            score += weight
    return score >= (parameters.number("postscreen_dnsbl_threshold") or 1)


def weighed(site: str) -> tuple[str, int]:
    """ "zone=filter" and the weight of "zone=filter*weight"."""
    zone, _, weight = site.partition("*")
    return zone, int(weight) if re.fullmatch(r"-?\d+", weight) else 1


def resolver(host: Audited) -> Iterator[Finding]:
    title = "The host resolves names itself"
    mend = "Run a recursive resolver here and ask it: nameserver 127.0.0.1."
    reading = host.reading
    asked = [("/etc/resolv.conf", reading.resolv)]
    if reading.chroot_resolv != "":
        asked.append(("resolv.conf in Postfix's chroot", reading.chroot_resolv))
    here = False
    for place, text in asked:
        if not text:
            yield host.finding("M4", place, UNKNOWN, title, f"{place} is not here or cannot be read.")
            continue
        servers = re.findall(r"^\s*nameserver\s+(\S+)", text, re.MULTILINE) or ["127.0.0.1"]
        strange = [one for one in servers if not own_address(host, one)]
        evidence = [f"{place} nameserver {one}" for one in strange or servers]
        if strange == ["127.0.0.53"]:
            reason = "systemd-resolved answers there, which asks others."
            yield host.finding("M4", place, VIOLATED, title, reason, evidence, mend)
        elif strange:
            reason = f"Others resolve its names: {', '.join(strange)}. Spamhaus refuses resolvers that ask for many."
            yield host.finding("M4", place, VIOLATED, title, reason, evidence, mend)
        elif not reading.unbound:
            reason = "What answers on this host is no unbound whose configuration can be read: it may forward."
            yield host.finding("M4", place, UNKNOWN, title, reason, evidence, mend)
        else:
            here = True
            yield host.finding("M4", place, COMPLIANT, title, evidence=evidence)
    if here and _forwards(reading.unbound or ""):
        reason = "The resolver here forwards everything to another one."
        evidence = ['unbound forward-zone: name: "."']
        yield host.finding("M4", "unbound", VIOLATED, title, reason, evidence, "Take the forward-zone for . out.")


def _forwards(text: str) -> bool:
    """Whether unbound.conf(5) has a forward-zone for the root."""
    lines = (re.sub(r"(?:^|\s)#.*", "", line) for line in text.splitlines())
    clause = attribute = ""
    for word in re.findall(r'"[^"]*"|\S+', "\n".join(lines)):
        if word in _CLAUSES:
            clause = word
        elif clause == "forward-zone:" and attribute == "name:" and word.strip("\"'") == ".":
            return True
        attribute = word
    return False


_CLAUSES = "server: remote-control: forward-zone: stub-zone: auth-zone: view: rpz: python: cachedb:".split()


def own_address(host: Audited, text: str) -> bool:
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return False
    stub = str(address) == "127.0.0.53"  # systemd-resolved, which forwards
    return (address.is_loopback and not stub) or str(address) in host.expected.addresses
