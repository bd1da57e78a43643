# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""M1 and M2: who may relay what, from where, by the restriction lists of every service that takes SMTP."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from ipaddress import ip_network
from itertools import islice, pairwise

from ...findings import COMPLIANT, UNKNOWN, VIOLATED, Finding
from .. import addresses, tricks
from ..postfix import Parameters
from ..restrictions import Answer, Client, Envelope, answer, lists
from ..tables import LISTED, Tables, Unreadable, is_table, network_matches, string_matches, table_type
from .base import FAR, INBOUND, NO_PORT, OUTBOUND, STRANGER, Audited, Port, spoken, stranger, zones

_RELAYS_NOT = "Nobody relays who may not, the pool least of all"
_PATTERNS = ("regexp", "pcre")
_MANY = 40  # of what one table or list adds to the questions


def separate(host: Audited) -> Iterator[Finding]:
    title = "Inbound and outbound mail are on separate hosts"
    if not host.ports:
        yield host.finding("M1", "Postfix", COMPLIANT, f"{title} ({NO_PORT})")
    for port in host.ports:
        if host.expected.side == INBOUND:
            if port.for_users:
                yield host.finding(
                    "M1",
                    port.title,
                    VIOLATED,
                    title,
                    "The inbound host lets users log in.",
                    [port.parameters.evidence("smtpd_sasl_auth_enable")],
                    "Set smtpd_sasl_auth_enable = no here; users send through the outbound hosts.",
                )
            else:
                yield host.finding("M1", port.title, COMPLIANT, title)
            continue
        taken = unsure = None
        for domain in host.expected.domains:
            envelope = Envelope(stranger(), FAR, f"postmaster@{domain}")
            said = host.ask(port, envelope)
            if said.accepted and not said.doubts:
                taken = taken or (envelope, said)
            elif said.doubts:
                unsure = unsure or (envelope, said)
        if taken:
            yield host.finding(
                "M1",
                port.title,
                VIOLATED,
                title,
                "The outbound host takes mail from the world as an MX does.",
                host.led_to(port, taken[1]),
                "Leave the domains to the inbound hosts: take them out of mydestination and relay_domains.",
                spoken(taken[0], taken[1]),
            )
        elif unsure:
            reason = f"It depends on what could not be evaluated: {', '.join(unsure[1].doubts)}."
            evidence = host.led_to(port, unsure[1])
            yield host.finding("M1", port.title, UNKNOWN, title, reason, evidence, packet=spoken(*unsure))
        else:
            yield host.finding("M1", port.title, COMPLIANT, title)


def relaying(host: Audited) -> Iterator[Finding]:
    if not host.ports:
        yield host.finding("M2", "Postfix", COMPLIANT, f"{_RELAYS_NOT} ({NO_PORT})")
    main = host.reading.postfix.effective() if host.reading.postfix else Parameters({})
    if others := main["multi_instance_directories"]:
        reason = f"Other instances of Postfix are on this host, in {others}; they are not read here."
        evidence = [main.evidence("multi_instance_directories")]
        yield host.finding("M2", "Postfix", UNKNOWN, _RELAYS_NOT, reason, evidence, "Audit each by config_directory.")
    for port in host.ports:
        found: dict[tuple[str, str], list[tuple[Envelope, Answer]]] = {}
        unsure: list[tuple[Envelope, Answer]] = []
        deferred: list[tuple[Envelope, Answer]] = []
        count = 0
        own = functools.cache(functools.partial(is_own, host, port))  # many clients ask about the same recipients
        for pool, envelope in questions(host, port):
            said = host.ask(port, envelope)
            if own(envelope.recipient):
                continue
            count += 1
            if said.accepted and not said.doubts:
                found.setdefault((pool, said.steps[-1].rule if said.steps else ""), []).append((envelope, said))
            elif said.doubts:
                unsure.append((envelope, said))
            elif 400 <= said.code < 500:
                deferred.append((envelope, said))
        envelope, said = without_blind(host, port)
        if said.doubts:
            unsure.append((envelope, said))
        yield from relay_findings(host, port, found, unsure, deferred, count)
        yield from relay_settings(host, port)


def relay_findings(
    host: Audited,
    port: Port,
    found: Mapping[tuple[str, str], list[tuple[Envelope, Answer]]],
    unsure: list[tuple[Envelope, Answer]],
    deferred: list[tuple[Envelope, Answer]],
    count: int,
) -> Iterator[Finding]:
    title = _RELAYS_NOT
    mend = "Let smtpd_relay_restrictions end the question first: reject_unauth_destination before any permit."
    pools = sorted({pool for pool, _ in found})
    for pool in pools:
        accepted = [one for (where, _), several in found.items() if where == pool for one in several]
        envelope, said = accepted[0]
        who = sorted({one.client.title for one, _ in accepted})
        yield host.finding(
            "M2",
            port.title,
            VIOLATED,
            title,
            f"{len(accepted)} of {count} questions are accepted, from: {'; '.join(who)}.",
            host.led_to(port, said),
            mend,
            spoken(envelope, said),
            pool,
        )
    if found:
        return
    if unsure:
        envelope, said = unsure[0]
        yield host.finding(
            "M2",
            port.title,
            UNKNOWN,
            title,
            f"It depends on what could not be evaluated: {', '.join(said.doubts)}.",
            host.led_to(port, said),
            "Put reject_unauth_destination before it.",
            spoken(envelope, said),
        )
    elif deferred:
        envelope, said = deferred[0]
        yield host.finding(
            "M2",
            port.title,
            UNKNOWN,
            title,
            f"Nothing is relayed, but the refusal is not for good ({said.code}): from outside it looks like "
            "greylisting, senders try again for days, and a mistake stays hidden.",
            host.led_to(port, said),
            "Put reject_unauth_destination for defer_unauth_destination.",
            spoken(envelope, said),
        )
    else:
        yield host.finding("M2", port.title, COMPLIANT, f"{title} ({count} questions, none accepted)")


def relay_settings(host: Audited, port: Port) -> Iterator[Finding]:
    """What no question from outside can show."""
    title = "An address that names another way to go is not relayed"
    if port.parameters.yes("allow_untrusted_routing"):
        yield host.finding(
            "M2",
            port.title,
            VIOLATED,
            title,
            "user%elsewhere@own-domain counts as the own domain's, and the next host may send it elsewhere.",
            [port.parameters.evidence("allow_untrusted_routing")],
            "Set allow_untrusted_routing = no.",
            "RCPT TO:<user%example.com@own-domain>",
        )
    title = "Nobody tells the server who he is but his connection"
    for pool, client in clients(host, port):
        if _may_pretend(host, port, client):
            reason = f"{client.title}: it may say by XCLIENT that it is any other client or user."
            evidence = [port.parameters.evidence("smtpd_authorized_xclient_hosts")]
            mend = "Name nobody in smtpd_authorized_xclient_hosts but the filter's own address."
            yield host.finding("M2", port.title, VIOLATED, title, reason, evidence, mend, pool=pool)
            break
    listener = port.postscreen or port.parameters
    name = "postscreen_upstream_proxy_protocol" if port.postscreen else "smtpd_upstream_proxy_protocol"
    if listener[name]:
        reason = "A proxy says who the client is; who else gets to this port cannot be read here, and may say it too."
        mend = "Let a packet filter see to it that the proxy alone reaches the port."
        yield host.finding("M2", port.title, UNKNOWN, title, reason, [listener.evidence(name)], mend)


def without_blind(host: Audited, port: Port) -> tuple[Envelope, Answer]:
    """What a stranger is told, and what that depends on: he may be in a table whose entries nobody here can list."""
    blind = {}
    for element in port.parameters.words("mynetworks"):
        table = element.lstrip("!")
        if is_table(table) and (table_type(table) not in LISTED or table_type(table) in _PATTERNS):
            blind[table] = "its entries cannot be listed"
    for table in tables_of(port, r"check_\w+_access"):
        if table_type(table) not in LISTED:
            blind[table] = "its entries cannot be listed"
        elif table_type(table) in _PATTERNS:
            entries = host.reading.dumps.get(table, ())
            lenient = (key for key, value in entries if _is_pattern(key) and not _only_refuses(value))
            if pattern := next((key for key in lenient if not _is_shown(key)), ""):
                blind[table] = f"no example is known of what fits {pattern}"
    tables = Tables(host.tables.answers, {**host.tables.broken, **blind}, host.tables.files)
    envelope = Envelope(stranger(), FAR, FAR)
    return envelope, answer(port.parameters, tables, envelope)


def _may_pretend(host: Audited, port: Port, client: Client) -> bool:
    try:
        trusted = port.parameters["smtpd_authorized_xclient_hosts"]
        return network_matches(trusted, client.address, client.name, False, host.tables)
    except Unreadable:
        return False


def questions(host: Audited, port: Port) -> Iterator[tuple[str, Envelope]]:
    """Every (pool, envelope) that must not be relayed through this port."""
    own = host.expected.domains[0] if host.expected.domains else port.parameters["mydomain"]
    server = port.parameters["myhostname"]
    likely = list(senders(host, port))
    address = host.expected.addresses[0] if host.expected.addresses else "192.0.2.10"
    odd = [one.address for one in tricks.recipients(FAR, own, server, address)]
    wide = list(wide_recipients(host, port))
    for pool, client in clients(host, port):
        targets = [FAR, *wide] + ([f"someone@{client.mx_of}"] if client.mx_of else [])
        for sender in likely:
            for recipient in targets:
                yield pool, Envelope(client, sender, recipient)
        for sender in ("", FAR, f"user@{own}"):
            for recipient in odd:
                yield pool, Envelope(client, sender, recipient)


def clients(host: Audited, port: Port) -> Iterator[tuple[str, Client]]:
    """Who must not relay here, with the pool."""
    anybody = stranger()
    yield "", anybody
    yield "", replace(anybody, title="the world, without a name", name="unknown", reverse="unknown")
    yield "", replace(anybody, title="the world, as an MX whose domain has this host too", mx_of="example.org")
    yield "", replace(anybody, title="the world, with a TLS certificate of its own", certificate=True)
    if any("permit_naked_ip_address" in port.parameters.words(name) for name in _lists_and_classes(port)):
        yield "", replace(anybody, title="the world, with nothing but an address in HELO", helo=STRANGER)
    for key in helo_keys(host, port):
        yield "", replace(anybody, title=f"the world, with HELO {key}", helo=key)
    for zone in zones(port.parameters, "permit_dnswl_client", "permit_rhswl_client"):
        listing = ((zone.partition("=")[0], "127.0.0.2"),)
        yield "", replace(anybody, title=f"whom {zone.partition('=')[0]} recommends", listings=listing)
    if not (host.expected.port_25_from_pool and host.expected.side == OUTBOUND and port.for_servers):
        for pool, prefixes in host.expected.pools.items():
            for prefix in prefixes:
                yield from ((pool, client) for client in pool_clients(host, pool, prefix))
    for element in networks(host, port):
        yield pool_of(host, element), Client(f"a host of {element} in mynetworks", host_of(element))
    for key in client_keys(host, port):
        network = network_of(key)
        if network is None:
            name = f"host7.{key.lstrip('.')}"
            yield "", Client(f"a host that is called {name}", STRANGER, name, name, name)
            yield "", Client(f"a host that is called {key}", STRANGER, key.lstrip("."), key.lstrip("."))
        else:
            yield pool_of(host, network), Client(f"a host of {key} in an access table", host_of(network))


def pool_clients(host: Audited, pool: str, prefix: str) -> Iterator[Client]:
    address = host_of(prefix)
    yield Client(f"pool {pool}, without a name", address)
    for domain in host.expected.domains:
        dashed = re.sub(r"[.:]+", "-", address)
        for name in (f"{dashed}.pool.{domain}", f"host7.{domain}", domain):
            yield Client(f"pool {pool}, called {name}", address, name, name, name)


def networks(host: Audited, port: Port) -> Iterator[str]:
    """The networks of mynetworks that are neither this host nor one that may send through it."""
    try:
        elements = host.tables.elements(port.parameters["mynetworks"])
    except Unreadable:
        return
    several = ([key for key, _ in host.reading.dumps.get(one, ())] if is_table(one) else [one] for one in elements)
    found = (network_of(key) for keys in several for key in keys)
    yield from islice((network for network in found if network and not may_send(host, network)), _MANY)


def may_send(host: Audited, network: str) -> bool:
    """Whether the policy lets every host of the network send through this one."""
    wanted = ip_network(network)
    if wanted.is_loopback:
        return True
    allowed = list(host.expected.addresses)
    if host.expected.side == OUTBOUND:
        allowed += host.expected.relays
        if host.expected.port_25_from_pool:
            allowed += [prefix for prefixes in host.expected.pools.values() for prefix in prefixes]
    networks = [ip_network(one, strict=False) for one in allowed]
    return any(wanted.version == one.version and wanted.subnet_of(one) for one in networks)  # type: ignore[arg-type]


def pool_of(host: Audited, network: str) -> str:
    """The pool that the network overlaps, or ""."""
    wanted = ip_network(network, strict=False)
    for pool, prefixes in host.expected.pools.items():
        for one in prefixes:
            other = ip_network(one, strict=False)
            if wanted.version == other.version and wanted.overlaps(other):
                return pool
    return ""


def tables_of(port: Port, wanted: str) -> Iterator[str]:
    """The tables that restrictions of that name use, or none of a name, in lists and in restriction classes."""
    for name in _lists_and_classes(port):
        for before, word in pairwise(["", *port.parameters.words(name)]):
            if is_table(word) and (re.fullmatch(wanted, before) or not before.startswith("check_")):
                yield word


def _lists_and_classes(port: Port) -> list[str]:
    return [*lists(port.parameters), *port.parameters.words("smtpd_restriction_classes")]


def client_keys(host: Audited, port: Port) -> Iterator[str]:
    """Names, addresses and networks that access tables may let in; without those that may send anyhow."""
    found: list[str] = []
    for table in tables_of(port, r"check_(?:reverse_)?client(?:_hostname)?_access"):
        strange = (key for key in _keys(host, table) if not (network := network_of(key)) or not may_send(host, network))
        found += islice(strange, _MANY)
    yield from dict.fromkeys(found)


def helo_keys(host: Audited, port: Port) -> Iterator[str]:
    """What a client, whoever it is, may say in HELO to be let in."""
    found = []
    for table in tables_of(port, "check_helo_access"):
        keys = [key.lstrip(".") for key in islice(_keys(host, table), _MANY)]
        found += [name for key in keys for name in (key, f"host7.{key}")]
    yield from dict.fromkeys(found)


def _keys(host: Audited, table: str) -> Iterator[str]:
    """The keys of an access table that may let somebody in; examples where they are patterns."""
    keys = (key for key, value in host.reading.dumps.get(table, ()) if not _only_refuses(value))
    return map(_example, filter(_is_pattern, keys)) if table_type(table) in _PATTERNS else keys


def _is_pattern(key: str) -> bool:
    """Whether a line's first word is one, and no "if" or "endif", and no "!/…/", which most of the world fits."""
    return not key[:1].isalnum() and key[:1] != "!"


def senders(host: Audited, port: Port) -> Iterator[str]:
    """Senders that rules may have a liking for, the null sender first."""
    own = host.expected.domains or (port.parameters["mydomain"],)
    found = ["", FAR, "someone@example.org"]
    for domain in own[:_MANY]:
        found += [f"user@{domain}", f"postmaster@{domain}", f"x@sub.{domain}"]
    found.append(f"root@{port.parameters['myhostname']}")
    for table in tables_of(port, "check_sender_access"):
        for key in islice((key for key in _keys(host, table) if key != "<>"), _MANY):
            text = key.lstrip(".")
            if text[:1] == "@":
                found.append(f"x{text}")
            else:
                found.append(text if "@" in text[:-1] else f"{text}x@example.org" if text[-1:] == "@" else f"x@{text}")
    yield from dict.fromkeys(one.replace("@x@", "@") for one in found)


def wide_recipients(host: Audited, port: Port) -> Iterator[str]:
    """Recipients of domains that are relayed to and are not the policy's."""
    try:
        elements = host.tables.elements(port.parameters["relay_domains"])
    except Unreadable:
        elements = []
    several = ([key for key, _ in host.reading.dumps.get(one, ())] if is_table(one) else [one] for one in elements)
    found = [*islice(_strange(host, (key for keys in several for key in keys)), _MANY)]
    for table in tables_of(port, "check_recipient_access"):
        found += islice(_strange(host, _keys(host, table)), _MANY)
    for domain in dict.fromkeys(found):
        if not _is_hosted(host, port, domain):
            yield f"someone@{domain}"


def _strange(host: Audited, keys: Iterable[str]) -> Iterator[str]:
    """The domains in keys like ".example.org" and "user@example.org" that are not the policy's."""
    for key in keys:
        domain = key.lstrip(".").rpartition("@")[2] if re.fullmatch(r"[\w.@-]+", key) else ""
        if domain and not any(domain == one or domain.endswith(f".{one}") for one in host.expected.domains):
            yield domain


def _is_hosted(host: Audited, port: Port, domain: str) -> bool:
    """Whether mail to the domain stays on this host."""
    names = ("mydestination", "virtual_alias_domains", "virtual_mailbox_domains")
    try:
        return any(string_matches(port.parameters[name], domain, host.tables) for name in names)
    except Unreadable:
        return False


def is_own(host: Audited, port: Port, recipient: str) -> bool:
    """Whether a recipient is one of this host or of the policy's domains, so that taking it is no relaying."""
    resolved = resolve(port, recipient)
    if resolved.kind in (addresses.LOCAL, addresses.VIRTUAL, addresses.ALIAS) or resolved.bad:
        return True
    domain = resolved.domain
    return not resolved.routed and any(domain == one or domain.endswith(f".{one}") for one in host.expected.domains)


def resolve(port: Port, address: str) -> addresses.Resolved:
    def matches(name: str, domain: str) -> bool:
        return domain in port.parameters.words(name) if name != "relay_domains" else False

    return addresses.resolve(address, port.parameters, matches)


def network_of(text: str) -> str | None:
    """A key of a table or an element of mynetworks as a network; None where it is a name."""
    text = text.strip("!").replace("[", "").replace("]", "")
    try:
        if re.fullmatch(r"\d+(?:\.\d+){0,2}\.?", text):  # "203.0.113" of an access table
            parts = text.strip(".").split(".")
            return str(ip_network(".".join([*parts, *["0"] * (4 - len(parts))]) + f"/{8 * len(parts)}"))
        network = ip_network(text, strict=False)
    except ValueError:
        return None
    mapped = getattr(network.network_address, "ipv4_mapped", None)  # ::ffff:127.0.0.0/104 is 127.0.0.0/8
    return f"{mapped}/{network.prefixlen - 96}" if mapped and network.prefixlen >= 96 else str(network)


def host_of(network: str) -> str:
    """A host of the network: its seventh address, or its only one."""
    found = ip_network(network, strict=False)
    return str(found[min(7, found.num_addresses - 1)])


def _only_refuses(value: str) -> bool:
    """Whether an action of access(5) cannot let anybody in."""
    verb = (value.split(None, 1) or [""])[0].upper()  # nothing at all is OK, and so is "554" without a text
    refuses = ("REJECT", "DEFER", "DUNNO", "HOLD", "DISCARD", "INFO", "WARN")
    return verb in refuses or bool(re.match(r"[45]\d\d\s+\S", value))


def _expression(pattern: str) -> str:
    """The regular expression of "/…/flags", POSIX's classes of characters in Python's words."""
    text = pattern[1:].rpartition(pattern[:1])[0] or pattern.strip("/")
    return re.sub(r"\[:\w+:\]", "a-z0-9", text.replace("[:digit:]", "0-9"))


def _is_shown(pattern: str) -> bool:
    """Whether one of the questions that come of the pattern's example fits it, as far as Python can tell."""
    example = _example(pattern)
    try:
        found = (re.search(_expression(pattern), f"{head}{example}", re.I) for head in ("", "host7.", "x@"))
        return any(found)
    except re.error:
        return False


def _example(pattern: str) -> str:
    """Some text that a pattern of the usual simple kind has in it."""
    text = _expression(pattern).removeprefix("^").removesuffix("$")
    text = re.sub(r"\\d|\[\^[^\]]*\]", "7", text)
    text = re.sub(r"(?<!\\)\[[^\]]+\]", _member, text)
    text = re.sub(r"(?<!\\)\.[*+?]", "x", text)
    text = re.sub(r"\(([^|()]*)[^()]*\)", r"\1", text)
    return re.sub(r"\\(.)", r"\1", re.sub(r"(?<=[\w).\[\]-])[*+?]|\{\d+(?:,\d*)?\}", "", text)).lstrip(".")


def _member(characters: re.Match[str]) -> str:
    """A character of "[a-z0-9]"."""
    return "7" if re.search(r"0-9|\\w", characters[0]) else characters[0].lstrip("[\\")[:1]
