# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The controls M1 to M13 proved on the effective configuration of one mail host.

Sources per rule: the documents named in postfix.py, restrictions.py, rspamd.py and clamd.py; RFC 5321 4.5.1
(postmaster), RFC 2142 (abuse), RFC 8314 and RFC 8996 (TLS), Spamhaus's return codes (127.255.255.0/24 are errors).
Nothing is read here: what was read comes in a Reading, and tables answer in rounds (tables.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network
from itertools import pairwise

from ..findings import COMPLIANT, UNKNOWN, VIOLATED, Evidence, Finding
from . import addresses, clamd, rspamd, tricks
from .postfix import Parameters, Postfix, Service, inside, smtp_services, words
from .restrictions import Answer, Client, Envelope, answer, code_matches, lists
from .tables import Tables, Unreadable, is_table, table_type

INBOUND, OUTBOUND = "inbound", "outbound"
ERROR_CODE = "127.255.255.254"  # Spamhaus: asked over a public resolver
LISTED_CODE = "127.0.0.4"  # Spamhaus: XBL
STRANGER = "203.0.113.77"
FAR = "relay-test@example.com"
_KEY = re.compile(r"\b[a-z0-9]{26}(?=\.[a-z0-9.-]*\bdq\.spamhaus\.net\b)", re.IGNORECASE)
_MANY = 40  # of what one table or list adds to the questions


@dataclass(frozen=True, slots=True)
class Expected:
    """What the policy says of this host. `pools`: prefixes by pool name; `relays`: addresses that may send through."""

    host: str
    side: str  # inbound, outbound
    domains: tuple[str, ...]
    pools: Mapping[str, tuple[str, ...]]
    message_size_limit: int
    relays: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()  # the host's own
    dnsbl_zone: str = ""
    dnsbl_key: str = field(default="", repr=False)
    port_25_from_pool: bool = False


@dataclass(frozen=True)
class Reading:
    """What was read on the host. A file that is absent is "", one that cannot be read is None.

    `dumps`: the entries of tables that can be listed. `redis`: by server, whether it answers.
    """

    postfix: Postfix | None
    tables: Tables
    dumps: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    rspamd: rspamd.Tree | None = None
    clamd: str | None = ""
    clamav_milter: str | None = ""
    opendkim: str | None = ""
    resolv: str | None = ""
    chroot_resolv: str | None = ""
    unbound: str | None = ""
    redis: Mapping[str, bool] = field(default_factory=dict)
    unreadable: Mapping[str, str] = field(default_factory=dict)  # what ("rspamd", "postconf" …) and why


@dataclass(frozen=True, slots=True)
class _Port:
    """A service that takes SMTP, with what it sees and what stands before it."""

    service: Service
    parameters: Parameters
    postscreen: Parameters | None

    @property
    def title(self) -> str:
        return self.service.title + (" behind postscreen" if self.postscreen else "")

    @property
    def for_users(self) -> bool:
        return self.parameters.yes("smtpd_sasl_auth_enable")


class _Audit:
    def __init__(self, reading: Reading, expected: Expected) -> None:
        self.reading = reading
        self.expected = expected
        self.tables = reading.tables
        postfix = reading.postfix
        self.ports = (
            [
                _Port(service, postfix.effective(service), postfix.effective(screen) if screen else None)
                for service, screen in smtp_services(postfix)
            ]
            if postfix
            else []
        )

    def finding(
        self,
        control: str,
        place: str,
        verdict: str,
        title: str,
        reason: str = "",
        evidence: Iterable[str] = (),
        mend: str = "",
        packet: str = "",
        pool: str = "",
    ) -> Finding:
        lines = tuple(Evidence(0, self.masked(line)) for line in evidence)
        up = "up" if control in ("M6", "M8", "M9", "M10", "M11") or pool else ""
        return Finding(
            control,
            self.expected.host,
            place,
            pool,
            up,
            0,
            verdict,
            title,
            self.masked(reason) if verdict != COMPLIANT else "",
            packet=self.masked(packet),
            evidence=lines,
            mend=self.masked(mend) if verdict != COMPLIANT else "",
        )

    def masked(self, text: str) -> str:
        """No DNSBL key leaves this host in a finding."""
        key = self.expected.dnsbl_key
        return _KEY.sub("<key>", text.replace(key, "<key>") if key else text)

    def ask(self, port: _Port, envelope: Envelope, data: bool = True) -> Answer:
        return answer(port.parameters, self.tables, envelope, data=data)

    # -- M1, M2: who may relay what from where -------------------------------------------------------------------

    def separate(self) -> Iterator[Finding]:
        title = "Inbound and outbound mail are on separate hosts"
        for port in self.ports:
            if self.expected.side == INBOUND:
                if port.for_users:
                    yield self.finding(
                        "M1",
                        port.title,
                        VIOLATED,
                        title,
                        "The inbound host lets users log in.",
                        [port.parameters.evidence("smtpd_sasl_auth_enable")],
                        "Set smtpd_sasl_auth_enable = no here; users send through the outbound hosts.",
                    )
                else:
                    yield self.finding("M1", port.title, COMPLIANT, title)
                continue
            taken = None
            for domain in self.expected.domains:
                envelope = Envelope(_stranger(), FAR, f"postmaster@{domain}")
                said = self.ask(port, envelope)
                if said.accepted and not said.doubts:
                    taken = taken or (envelope, said)
            if taken:
                yield self.finding(
                    "M1",
                    port.title,
                    VIOLATED,
                    title,
                    "The outbound host takes mail from the world as an MX does.",
                    self.led_to(port, taken[1]),
                    "Leave the domains to the inbound hosts: take them out of mydestination and relay_domains.",
                    _words(taken[0], taken[1]),
                )
            else:
                yield self.finding("M1", port.title, COMPLIANT, title)

    def relaying(self) -> Iterator[Finding]:
        for port in self.ports:
            found: dict[tuple[str, str], list[tuple[Envelope, Answer]]] = {}
            unsure: list[tuple[Envelope, Answer]] = []
            deferred: list[tuple[Envelope, Answer]] = []
            count = 0
            for pool, envelope in self.questions(port):
                said = self.ask(port, envelope)
                if self.is_own(port, envelope.recipient):
                    continue
                count += 1
                if said.accepted and not said.doubts:
                    found.setdefault((pool, said.steps[-1].rule if said.steps else ""), []).append((envelope, said))
                elif said.doubts:
                    unsure.append((envelope, said))
                elif 400 <= said.code < 500:
                    deferred.append((envelope, said))
            yield from self.relay_findings(port, found, unsure, deferred, count)
            yield from self.relay_settings(port)

    def relay_findings(
        self,
        port: _Port,
        found: Mapping[tuple[str, str], list[tuple[Envelope, Answer]]],
        unsure: list[tuple[Envelope, Answer]],
        deferred: list[tuple[Envelope, Answer]],
        count: int,
    ) -> Iterator[Finding]:
        title = "Nobody relays who may not, the pool least of all"
        mend = "Let smtpd_relay_restrictions end the question first: reject_unauth_destination before any permit."
        pools = sorted({pool for pool, _ in found})
        for pool in pools:
            accepted = [one for (where, _), several in found.items() if where == pool for one in several]
            envelope, said = accepted[0]
            who = sorted({one.client.title for one, _ in accepted})
            yield self.finding(
                "M2",
                port.title,
                VIOLATED,
                title,
                f"{len(accepted)} of {count} questions are accepted, from: {'; '.join(who)}.",
                self.led_to(port, said),
                mend,
                _words(envelope, said),
                pool,
            )
        if found:
            return
        if unsure:
            envelope, said = unsure[0]
            yield self.finding(
                "M2",
                port.title,
                UNKNOWN,
                title,
                f"It depends on what could not be evaluated: {', '.join(said.doubts)}.",
                self.led_to(port, said),
                "Put reject_unauth_destination before it.",
                _words(envelope, said),
            )
        elif deferred:
            envelope, said = deferred[0]
            yield self.finding(
                "M2",
                port.title,
                UNKNOWN,
                title,
                f"Nothing is relayed, but the refusal is not for good ({said.code}): from outside it looks like "
                "greylisting, senders try again for days, and a mistake stays hidden.",
                self.led_to(port, said),
                "Put reject_unauth_destination for defer_unauth_destination.",
                _words(envelope, said),
            )
        else:
            yield self.finding("M2", port.title, COMPLIANT, f"{title} ({count} questions, none accepted)")

    def relay_settings(self, port: _Port) -> Iterator[Finding]:
        """What no question from outside can show."""
        title = "An address that names another way to go is not relayed"
        if port.parameters.yes("allow_untrusted_routing"):
            yield self.finding(
                "M2",
                port.title,
                VIOLATED,
                title,
                "user%elsewhere@own-domain counts as the own domain's, and the next host may send it elsewhere.",
                [port.parameters.evidence("allow_untrusted_routing")],
                "Set allow_untrusted_routing = no.",
                "RCPT TO:<user%example.com@own-domain>",
            )

    def questions(self, port: _Port) -> Iterator[tuple[str, Envelope]]:
        """Every (pool, envelope) that must not be relayed through this port."""
        own = self.expected.domains[0] if self.expected.domains else port.parameters["mydomain"]
        server = port.parameters["myhostname"]
        senders = list(self.senders(port))
        address = self.expected.addresses[0] if self.expected.addresses else "192.0.2.10"
        odd = [one.address for one in tricks.recipients(FAR, own, server, address)]
        wide = list(self.wide_recipients(port))
        for pool, client in self.clients(port):
            targets = [FAR, *wide] + ([f"someone@{client.mx_of}"] if client.mx_of else [])
            for sender in senders:
                for recipient in targets:
                    yield pool, Envelope(client, sender, recipient)
            for sender in ("", FAR, f"user@{own}"):
                for recipient in odd:
                    yield pool, Envelope(client, sender, recipient)

    def clients(self, port: _Port) -> Iterator[tuple[str, Client]]:
        """Who must not relay here, with the pool."""
        submission = port.service.name not in ("smtp", "25", "smtpd") and not port.service.name.endswith(
            (":25", ":smtp")
        )
        stranger = _stranger()
        yield "", stranger
        yield "", replace(stranger, title="the world, without a name", name="unknown", reverse="unknown")
        yield "", replace(stranger, title="the world, as an MX whose domain has this host too", mx_of="example.org")
        yield "", replace(stranger, title="the world, with a TLS certificate of its own", certificate=True)
        for zone in self.zones(port.parameters, "permit_dnswl_client", "permit_rhswl_client"):
            listing = ((zone.partition("=")[0], "127.0.0.2"),)
            yield "", replace(stranger, title=f"whom {zone.partition('=')[0]} recommends", listings=listing)
        if not (self.expected.port_25_from_pool and self.expected.side == OUTBOUND and not submission):
            for pool, prefixes in self.expected.pools.items():
                for prefix in prefixes:
                    yield from ((pool, client) for client in self.pool_clients(pool, prefix))
        for element in self.networks(port):
            yield self.pool_of(element), Client(f"a host of {element} in mynetworks", _host_of(element))
        for key in self.client_keys(port):
            network = _network(key)
            if network is None:
                name = f"host7.{key.lstrip('.')}"
                yield "", Client(f"a host that is called {name}", STRANGER, name, name, name)
                yield "", Client(f"a host that is called {key}", STRANGER, key.lstrip("."), key.lstrip("."))
            elif not self.may_send(network):
                yield self.pool_of(network), Client(f"a host of {key} in an access table", _host_of(network))

    def pool_clients(self, pool: str, prefix: str) -> Iterator[Client]:
        address = _host_of(prefix)
        yield Client(f"pool {pool}, without a name", address)
        for domain in self.expected.domains:
            dashed = re.sub(r"[.:]+", "-", address)
            for name in (f"{dashed}.pool.{domain}", f"host7.{domain}", domain):
                yield Client(f"pool {pool}, called {name}", address, name, name, name)

    def networks(self, port: _Port) -> Iterator[str]:
        """The networks of mynetworks that are neither this host nor one that may send through it."""
        try:
            elements = self.tables.elements(port.parameters["mynetworks"])
        except Unreadable:
            return
        for element in elements[:_MANY]:
            keys = [key for key, _ in self.reading.dumps.get(element, ())] if is_table(element) else [element]
            for key in keys[:_MANY]:
                network = _network(key)
                if network is not None and not self.may_send(network):
                    yield network

    def may_send(self, network: str) -> bool:
        """Whether the policy lets every host of the network send through this one."""
        wanted = ip_network(network)
        if wanted.is_loopback:
            return True
        allowed = list(self.expected.addresses)
        if self.expected.side == OUTBOUND:
            allowed += self.expected.relays
            if self.expected.port_25_from_pool:
                allowed += [prefix for prefixes in self.expected.pools.values() for prefix in prefixes]
        networks = [ip_network(one, strict=False) for one in allowed]
        return any(wanted.version == one.version and wanted.subnet_of(one) for one in networks)  # type: ignore[arg-type]

    def pool_of(self, network: str) -> str:
        """The pool that the network overlaps, or ""."""
        wanted = ip_network(network, strict=False)
        for pool, prefixes in self.expected.pools.items():
            for one in prefixes:
                other = ip_network(one, strict=False)
                if wanted.version == other.version and wanted.overlaps(other):
                    return pool
        return ""

    def tables_of(self, port: _Port, wanted: str) -> Iterator[str]:
        """The tables that restrictions of that name use, in lists and in restriction classes."""
        for name in [*lists(port.parameters), *port.parameters.words("smtpd_restriction_classes")]:
            rules = port.parameters.words(name)
            for rule, argument in pairwise([*rules, ""]):
                if re.fullmatch(wanted, rule):
                    yield argument
                elif is_table(rule):
                    yield rule

    def zones(self, parameters: Parameters, *wanted: str) -> Iterator[str]:
        """The DNS lists, with their filters, that restrictions of these names ask."""
        for name in [*lists(parameters), *parameters.words("smtpd_restriction_classes")]:
            rules = parameters.words(name)
            yield from (after for rule, after in pairwise(rules) if rule in wanted)

    def client_keys(self, port: _Port) -> Iterator[str]:
        found = []
        for table in self.tables_of(port, r"check_(?:reverse_)?(?:client|helo)(?:_hostname)?_access"):
            for key, value in self.reading.dumps.get(table, ())[:_MANY]:
                if not _only_refuses(value):
                    found.append(_example(key) if table_type(table) in ("regexp", "pcre") else key)
        yield from dict.fromkeys(found)

    def senders(self, port: _Port) -> Iterator[str]:
        """Senders that rules may have a liking for, the null sender first."""
        own = self.expected.domains or (port.parameters["mydomain"],)
        found = ["", FAR, "someone@example.org"]
        for domain in own[:_MANY]:
            found += [f"user@{domain}", f"postmaster@{domain}", f"x@sub.{domain}"]
        found.append(f"root@{port.parameters['myhostname']}")
        for table in self.tables_of(port, "check_sender_access"):
            for key, value in self.reading.dumps.get(table, ())[:_MANY]:
                if not _only_refuses(value) and key != "<>":
                    text = _example(key) if table_type(table) in ("regexp", "pcre") else key.lstrip(".")
                    found.append(
                        text if "@" in text.strip("@") else f"{text}x@example.org" if text[-1:] == "@" else f"x@{text}"
                    )
        yield from dict.fromkeys(one.replace("@x@", "@") for one in found)

    def wide_recipients(self, port: _Port) -> Iterator[str]:
        """Recipients of domains that are relayed to and are not the policy's."""
        try:
            elements = self.tables.elements(port.parameters["relay_domains"])
        except Unreadable:
            elements = []
        found = []
        for element in elements[:_MANY]:
            keys = [key for key, _ in self.reading.dumps.get(element, ())] if is_table(element) else [element]
            found += [key.lstrip(".") for key in keys[:_MANY] if re.fullmatch(r"[\w.-]+", key)]
        for table in self.tables_of(port, "check_recipient_access"):
            for key, value in self.reading.dumps.get(table, ())[:_MANY]:
                if not _only_refuses(value) and re.fullmatch(r"[\w.@-]+", key):
                    found.append(key.lstrip(".").rpartition("@")[2])
        for domain in dict.fromkeys(found):
            if domain and not any(domain == one or domain.endswith(f".{one}") for one in self.expected.domains):
                yield f"someone@{domain}"

    def is_own(self, port: _Port, recipient: str) -> bool:
        """Whether a recipient is one of this host or of the policy's domains, so that taking it is no relaying."""
        resolved = self.resolved(port, recipient)
        if resolved is None:
            return False
        if resolved.kind in (addresses.LOCAL, addresses.VIRTUAL, addresses.ALIAS) or resolved.bad:
            return True
        domain = resolved.domain
        return not resolved.routed and any(domain == one or domain.endswith(f".{one}") for one in self.expected.domains)

    def resolved(self, port: _Port, address: str) -> addresses.Resolved | None:
        def matches(name: str, domain: str) -> bool:
            return domain in port.parameters.words(name) if name != "relay_domains" else False

        return addresses.resolve(address, port.parameters, matches)

    def led_to(self, port: _Port, said: Answer) -> list[str]:
        """The configuration lines of the lists that decided."""
        names = [step.list_name for step in said.steps if step.list_name]
        evidence = [port.parameters.evidence(name) for name in dict.fromkeys(names)]
        rules = " ".join(step.rule for step in said.steps)
        if "permit_mynetworks" in rules:
            evidence.append(port.parameters.evidence("mynetworks"))
        if not rules.strip() or "unauth_destination" in rules or "auth_destination" in rules:
            evidence.append(port.parameters.evidence("relay_domains"))
        for step in said.steps:
            table = next((word for word in words(step.rule) if is_table(word)), "")
            evidence += [f"{table}: {key} {value}" for key, value in self.reading.dumps.get(table, ())[:5]]
        return evidence or ["no restriction decides"]

    # -- M3, M5: the DNSBL ---------------------------------------------------------------------------------------

    def dnsbl(self) -> Iterator[Finding]:
        title = "Only real listings of the DNSBL count, and its key is never shown"
        for port in self.ports:
            problems: list[tuple[str, str, str]] = []
            asked = [(zone, "reject_rbl_client") for zone in self.zones(port.parameters, "reject_rbl_client")]
            if port.postscreen:
                sites = port.postscreen.words("postscreen_dnsbl_sites")
                asked += [(site.partition("*")[0], "postscreen_dnsbl_sites") for site in sites]
            for zone, where in asked:
                name, _, wanted = zone.partition("=")
                if code_matches(wanted, ERROR_CODE):
                    what = "without a filter of its answers" if not wanted else f"with the filter {wanted}"
                    reason = f"{name} is asked {what}: its error code {ERROR_CODE} refuses everybody's mail."
                    problems.append((reason, f"{where} … {zone}", f"Write {name}=127.0.0.[2..11] there."))
                if self.secret(name) and self.shows(port, name, where):
                    reason = "A refusal names the zone, and the key with it."
                    if where.startswith("post"):
                        mend = "Give the zone another name in postscreen_dnsbl_reply_map."
                    else:
                        mend = "Give the zone a text of its own in rbl_reply_maps."
                    problems.append((reason, f"{where} … {name}", mend))
            for reason, evidence, mend in problems:
                packet = f"client {STRANGER}, DNSBL answers {ERROR_CODE}" if ERROR_CODE in reason else ""
                yield self.finding("M3", port.title, VIOLATED, title, reason, [evidence], mend, packet)
            if not problems:
                yield self.finding("M3", port.title, COMPLIANT, title)

    def secret(self, zone: str) -> bool:
        key = self.expected.dnsbl_key
        return bool(_KEY.search(zone)) or (bool(key) and key.lower() in zone.lower())

    def shows(self, port: _Port, zone: str, where: str) -> bool:
        """Whether the answer to a listed client has the zone in it."""
        maps = "postscreen_dnsbl_reply_map" if where.startswith("post") else "rbl_reply_maps"
        parameters = port.postscreen if where.startswith("post") and port.postscreen else port.parameters
        try:
            text = self.tables.find(parameters.words(maps), zone)
        except Unreadable:
            return True
        if where.startswith("post"):
            return not text or self.secret(text)
        text = text or parameters.raw.get("default_rbl_reply", "$rbl_domain")
        return "$rbl_domain" in text or "${rbl_domain" in text or self.secret(text)

    def listed_refused(self) -> Iterator[Finding]:
        title = "A client that the XBL lists is refused"
        if self.expected.side != INBOUND:
            return
        for port in self.ports:
            zones = {zone.partition("=")[0] for zone in self.zones(port.parameters, "reject_rbl_client")}
            sites = port.postscreen.words("postscreen_dnsbl_sites") if port.postscreen else []
            zones |= {site.partition("*")[0].partition("=")[0] for site in sites}
            listed = tuple((zone, LISTED_CODE) for zone in sorted(zones) if self.has_xbl(zone))
            client = replace(_stranger(), title="listed by the XBL", listings=listed)
            evidence = [port.parameters.evidence(name) for name in lists(port.parameters)[:1]]
            if port.postscreen:
                names = ("postscreen_dnsbl_sites", "postscreen_dnsbl_threshold", "postscreen_dnsbl_action")
                evidence = [port.postscreen.evidence(name) for name in names]
            if port.postscreen and self.screened(port.postscreen, client):
                yield self.finding("M5", port.title, COMPLIANT, title)
                continue
            recipient = f"postmaster@{self.expected.domains[0]}"
            said = self.ask(port, Envelope(client, "someone@example.org", recipient))
            if not said.accepted and listed:
                verdict = COMPLIANT if not said.doubts else UNKNOWN
            else:
                verdict = VIOLATED if not said.doubts else UNKNOWN
            reason = "No list with the XBL is asked." if not listed else "Its answer 127.0.0.4 does not refuse."
            if verdict == UNKNOWN:
                reason = f"It depends on what could not be evaluated: {', '.join(said.doubts)}."
            mend = "Ask ZONE=127.0.0.[2..11]*3 in postscreen_dnsbl_sites, with postscreen_dnsbl_action = enforce."
            packet = _words(Envelope(client, "someone@example.org", recipient), said)
            yield self.finding("M5", port.title, verdict, title, reason, evidence, mend, packet)

    def has_xbl(self, zone: str) -> bool:
        known = re.search(r"(?:^|\.)(?:zen|xbl|sbl-xbl)(?:\.dq)?\.spamhaus\.(?:org|net)$", zone.lower())
        own = self.expected.dnsbl_zone
        return bool(known) or (bool(own) and (zone == own or zone.endswith(f".{own}")))

    def screened(self, parameters: Parameters, client: Client) -> bool:
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

    # -- M4: the resolver ----------------------------------------------------------------------------------------

    def resolver(self) -> Iterator[Finding]:
        title = "Names are resolved by a resolver of its own"
        for place, text in (
            ("/etc/resolv.conf", self.reading.resolv),
            ("resolv.conf in Postfix's chroot", self.reading.chroot_resolv),
        ):
            if not text:
                if place.startswith("/") or text is None:
                    yield self.finding("M4", place, UNKNOWN, title, f"{place} cannot be read.")
                continue
            servers = re.findall(r"^\s*nameserver\s+(\S+)", text, re.MULTILINE) or ["127.0.0.1"]
            strange = [one for one in servers if not self.own_address(one)]
            public = [one for one in strange if _is_public(one)]
            evidence = [f"{place} nameserver {one}" for one in strange or servers]
            mend = "Run a recursive resolver here and ask it: nameserver 127.0.0.1."
            if public:
                reason = f"{', '.join(public)} asks for many: Spamhaus refuses such resolvers."
                yield self.finding("M4", place, VIOLATED, title, reason, evidence, mend)
            elif strange:
                reason = f"Whether {', '.join(strange)} recurses itself cannot be told from here."
                yield self.finding("M4", place, UNKNOWN, title, reason, evidence, mend)
            else:
                yield self.finding("M4", place, COMPLIANT, title)
        if re.search(r'^\s*name:\s*"?\."?\s*$', self.reading.unbound or "", re.MULTILINE):
            reason = "The resolver here forwards everything to another one."
            evidence = ['unbound forward-zone name: "."']
            yield self.finding("M4", "unbound", VIOLATED, title, reason, evidence, "Take the forward-zone for . out.")

    def own_address(self, text: str) -> bool:
        try:
            address = ip_address(text.partition("%")[0])
        except ValueError:
            return False
        stub = str(address) == "127.0.0.53"  # systemd-resolved, which forwards
        return (address.is_loopback and not stub) or str(address) in self.expected.addresses

    # -- M6, M7, M10, M11: the scanners --------------------------------------------------------------------------

    def scanned(self) -> Iterator[Finding]:
        title = "Outbound mail is scanned whole, users' mail too"
        for port in self.user_ports():
            evidence = [port.parameters.evidence("smtpd_milters")]
            if not self.milters(port):
                reason = "Mail passes no milter."
                if port.parameters["content_filter"] or port.parameters["smtpd_proxy_filter"]:
                    reason = "A content filter scans it, or not: what it does with a failure cannot be read here."
                    evidence += [port.parameters.evidence(name) for name in ("content_filter", "smtpd_proxy_filter")]
                verdict = UNKNOWN if "filter scans" in reason else VIOLATED
                yield self.finding(
                    "M6", port.title, verdict, title, reason, evidence, "Name rspamd's milter in smtpd_milters."
                )
            elif "no_milters" in port.parameters["receive_override_options"]:
                evidence = [port.parameters.evidence("receive_override_options")]
                yield self.finding("M6", port.title, VIOLATED, title, "Milters are overridden.", evidence, "Remove it.")
            elif skipped := self.milters_disabled(port):
                evidence = [port.parameters.evidence("smtpd_milter_maps")]
                yield self.finding(
                    "M6", port.title, VIOLATED, title, f"No milter sees {skipped}.", evidence, "Remove the entry."
                )
            else:
                yield self.finding("M6", port.title, COMPLIANT, title)
        if not any(self.user_ports()):
            return
        yield from self.rspamd_scans(title)
        yield from self.clamd_scans()
        yield from self.clamav_milter(title)

    def user_ports(self) -> Iterator[_Port]:
        """The ports by which mail goes out."""
        return (port for port in self.ports if self.expected.side == OUTBOUND or port.for_users)

    def milters(self, port: _Port) -> list[str]:
        return [inside(one) for one in port.parameters.words("smtpd_milters")]

    def milters_disabled(self, port: _Port) -> str:
        """A client for which smtpd_milter_maps switches the milters off."""
        tables = port.parameters.words("smtpd_milter_maps")
        clients = [STRANGER, *(_host_of(prefix) for several in self.expected.pools.values() for prefix in several)]
        try:
            return next((one for one in clients if self.tables.find(tables, one).upper() == "DISABLE"), "")
        except Unreadable:
            return ""

    def scanner_finding(self, control: str, place: str, title: str, problems: list[str], mend: str) -> Finding:
        if problems:
            reason = f"{'; '.join(problems)}."
            return self.finding(control, place, VIOLATED, title, reason, [f"{place} {one}" for one in problems], mend)
        return self.finding(control, place, COMPLIANT, title)

    def has(self, *names: str) -> bool:
        """Whether a milter of that kind is used."""
        used = [milter for port in self.user_ports() for milter in self.milters(port)]
        return any(name in milter for milter in used for name in names)

    def uses_rspamd(self) -> bool:
        return self.has("rspamd", ":11332")

    def rspamd_scans(self, title: str) -> Iterator[Finding]:
        if not self.uses_rspamd():
            return
        tree = self.reading.rspamd
        if tree is None:
            why = self.reading.unreadable.get("rspamd", "its configuration was not read")
            for control, what in (("M6", title), ("M7", _DOWN), ("M10", _RATES), ("M11", _SIGNED)):
                yield self.finding(control, "rspamd", UNKNOWN, what, f"rspamadm configdump: {why}")
            return
        limit = self.expected.message_size_limit
        small = [
            f"{path} = {size}, a message may have {limit}"
            for path, size in rspamd.size_limits(tree)
            if 0 < size < limit
        ]
        if not rspamd.scanners(tree) and not self.has("clamav"):
            problems = ["antivirus has no scanner"]
        else:
            problems = [*small, *rspamd.exemptions(tree), *rspamd.parts_left_out(tree)]
        problems += [f"{hit} does not refuse" for hit in rspamd.hits_let_through(tree)]
        mend = "Scan whole messages (scan_mime_parts = false) of every size and every user, with action = reject."
        yield self.scanner_finding("M6", "rspamd", title, problems, mend)
        failing = [f"{symbol} is no soft reject" for symbol in rspamd.failures_let_through(tree)]
        mend = 'Add a force_actions rule: expression = "CLAM_VIRUS_FAIL", action = "soft reject".'
        yield self.scanner_finding("M7", "rspamd", _DOWN, failing, mend)
        yield from self.rate_limits(tree)
        unsigned = (
            [] if rspamd.signs(tree) or self.has("opendkim", ":8891") else ["dkim_signing names no key for users' mail"]
        )
        yield self.scanner_finding("M11", "rspamd", _SIGNED, unsigned, "Name selector and path in dkim_signing.")

    def rate_limits(self, tree: rspamd.Tree) -> Iterator[Finding]:
        problems = [] if rspamd.user_limits(tree) else ["ratelimit.rates counts no user"]
        servers = rspamd.redis_servers(tree, "ratelimit")
        if not servers:
            problems.append("redis.servers is not set: without Redis nothing is counted")
        problems += [
            f"redis.servers {server} does not answer: nothing is counted"
            for server in servers
            if self.reading.redis.get(server) is False
        ]
        mend = "Set ratelimit.rates with the selector user, and redis.servers to a Redis that runs."
        yield self.scanner_finding("M10", "rspamd", _RATES, problems, mend)

    def clamd_scans(self) -> Iterator[Finding]:
        title = "No limit of the scanner is below the size of a message"
        text = self.reading.clamd
        used = self.has("clamav", "clamd") or (self.reading.rspamd and rspamd.scanners(self.reading.rspamd))
        if not text:
            if used:
                yield self.finding("M6", "clamd", UNKNOWN, title, "clamd.conf is not here or cannot be read.")
            return
        settings = clamd.read(text)
        limit = self.expected.message_size_limit
        problems = [
            f"{one.key} = {size}{'' if one.line else ' (default)'}, a message may have {limit}"
            for one, size in clamd.below(settings, limit)
        ]
        problems += [f"{key} is off" for key in ("ScanMail", "ScanArchive") if clamd.switched_off(settings, key)]
        evidence = [
            f"clamd.conf:{one.line} {one.key} {one.value}" + (" (a former one counts)" if one.hidden else "")
            for one in settings
            if one.key in (*clamd.LIMITS, "ScanMail", "ScanArchive")
        ]
        verdict = VIOLATED if problems else COMPLIANT
        mend = "Raise them to the message_size_limit at least; of a key that stands twice the first one counts."
        yield self.finding("M6", "clamd", verdict, title, f"{'; '.join(problems)}.", evidence, mend)

    def clamav_milter(self, title: str) -> Iterator[Finding]:
        if not self.has("clamav"):
            return
        if not self.reading.clamav_milter:
            yield self.finding("M7", "clamav-milter", UNKNOWN, _DOWN, "clamav-milter.conf is not here or unreadable.")
            return
        settings = clamd.read(self.reading.clamav_milter)
        fail = clamd.setting(settings, "OnFail").value or "Defer"
        failing = [f"OnFail {fail}"] if fail.lower() not in ("defer", "reject") else []
        yield self.scanner_finding("M7", "clamav-milter", _DOWN, failing, "Set OnFail Defer.")
        infected = clamd.setting(settings, "OnInfected").value or "Quarantine"
        problems = [f"OnInfected {infected}"] if infected.lower() != "reject" else []
        size = clamd.size(clamd.setting(settings, "MaxFileSize").value or "25M") or 0
        if 0 < size < self.expected.message_size_limit:
            problems.append(f"MaxFileSize = {size}, a message may have {self.expected.message_size_limit}")
        exempt = [clamd.setting(settings, key) for key in ("SkipAuthenticated", "LocalNet", "Whitelist")]
        problems += [f"{one.key} {one.value}" for one in exempt if one.line]
        mend = "Set OnInfected Reject and a MaxFileSize of the message_size_limit, and exempt nobody."
        yield self.scanner_finding("M6", "clamav-milter", title, problems, mend)

    def milter_failures(self) -> Iterator[Finding]:
        for port in self.user_ports():
            if not self.milters(port):
                continue
            problems = []
            common = port.parameters["milter_default_action"].lower()
            for milter in self.milters(port):
                own = re.search(r"default_action\s*=\s*(\w+)", milter)
                action = own[1].lower() if own else common
                if action not in ("tempfail", "reject", "shutdown"):
                    problems.append(f"{words(milter)[0]} fails to {action}")
            evidence = [port.parameters.evidence(name) for name in ("milter_default_action", "smtpd_milters")]
            verdict = VIOLATED if problems else COMPLIANT
            reason = f"A milter that is down lets mail pass: {'; '.join(problems)}."
            yield self.finding(
                "M7", port.title, verdict, _DOWN, reason, evidence, "Set milter_default_action = tempfail."
            )

    def sizes(self) -> Iterator[Finding]:
        """The message limit that Postfix really has, against the policy's."""
        title = "No message is larger than the policy says, and so than the scanners read"
        for port in self.user_ports():
            limit = port.parameters.number("message_size_limit")
            evidence = [port.parameters.evidence("message_size_limit")]
            verdict = VIOLATED if limit == 0 or limit > self.expected.message_size_limit else COMPLIANT
            reason = f"It takes {limit or 'any number of'} bytes, the policy says {self.expected.message_size_limit}."
            yield self.finding("M6", port.title, verdict, title, reason, evidence, "Set message_size_limit.")

    # -- M8, M9: users -------------------------------------------------------------------------------------------

    def logins(self) -> Iterator[Finding]:
        title = "AUTH is offered under TLS 1.2 or newer alone"
        for port in self.ports:
            if not port.for_users:
                continue
            parameters = port.parameters
            level = parameters["smtpd_tls_security_level"]
            problems, evidence = [], []
            forced = level in ("encrypt", "fingerprint") or parameters.yes("smtpd_tls_wrappermode")
            if not forced and not parameters.yes("smtpd_tls_auth_only"):
                problems.append("AUTH is offered in plain text too")
                evidence += [
                    parameters.evidence("smtpd_tls_auth_only"),
                    parameters.evidence("smtpd_tls_security_level"),
                ]
            name = "smtpd_tls_mandatory_protocols" if forced else "smtpd_tls_protocols"
            old = [version for version in ("SSLv3", "TLSv1", "TLSv1.1") if _has_protocol(parameters[name], version)]
            if old:
                problems.append(f"{' and '.join(old)} can be had")
                evidence.append(parameters.evidence(name))
            if "noanonymous" not in parameters["smtpd_sasl_security_options"]:
                problems.append("anonymous logins can be had")
                evidence.append(parameters.evidence("smtpd_sasl_security_options"))
            verdict = VIOLATED if problems else COMPLIANT
            mend = "Set smtpd_tls_security_level = encrypt and smtpd_tls_mandatory_protocols = >=TLSv1.2."
            yield self.finding("M8", port.title, verdict, title, f"{'; '.join(problems)}.", evidence, mend)

    def own_senders(self) -> Iterator[Finding]:
        title = "A user sends under addresses of his own alone, the null sender included"
        own = self.expected.domains[0] if self.expected.domains else "example.net"
        for port in self.ports:
            if not port.for_users:
                continue
            client = Client("a user", STRANGER, user=f"no-such-user@{own}")
            verdict, worst = COMPLIANT, None
            for sender in ("someone@example.org", f"postmaster@{own}", ""):
                envelope = Envelope(client, sender, FAR)
                said = self.ask(port, envelope)
                if said.accepted and not said.doubts and verdict != VIOLATED:
                    verdict, worst = VIOLATED, (envelope, said)
                elif said.doubts and verdict == COMPLIANT:
                    verdict, worst = UNKNOWN, (envelope, said)
            if worst is None:
                yield self.finding("M9", port.title, COMPLIANT, title)
                continue
            reason = "A sender that is not the user's is accepted."
            if verdict == UNKNOWN:
                reason = f"It depends on what could not be evaluated: {', '.join(worst[1].doubts)}."
            evidence = [port.parameters.evidence("smtpd_sender_login_maps"), *self.led_to(port, worst[1])]
            mend = (
                "Add reject_sender_login_mismatch, and an access table that refuses <>, to smtpd_sender_restrictions."
            )
            packet = f"user {client.user}, {_words(*worst)}"
            yield self.finding("M9", port.title, verdict, title, reason, evidence, mend, packet)

    # -- M12, M13 ------------------------------------------------------------------------------------------------

    def reachable(self) -> Iterator[Finding]:
        title = "postmaster and abuse are reachable"
        if self.expected.side != INBOUND:
            return
        for port in self.ports:
            for domain in self.expected.domains:
                lost = []
                for name in ("postmaster", "abuse"):
                    envelope = Envelope(_stranger(), "someone@example.org", f"{name}@{domain}")
                    said = self.ask(port, envelope, data=False)
                    if not said.accepted:
                        lost.append((envelope, said))
                place = f"{port.title}, {domain}"
                if not lost:
                    yield self.finding("M12", place, COMPLIANT, title)
                    continue
                doubts = [doubt for _, said in lost for doubt in said.doubts]
                evidence = self.led_to(port, lost[0][1])
                evidence.append(port.parameters.evidence("relay_recipient_maps"))
                reason = "; ".join(_words(*one) for one in lost)
                mend = "Add them to the table of recipients."
                verdict = UNKNOWN if doubts else VIOLATED
                yield self.finding("M12", place, verdict, title, reason, evidence, mend, _words(*lost[0]))

    def commands(self) -> Iterator[Finding]:
        title = "No VRFY, no ETRN, no smuggling, no pipelining before its time"
        for port in self.ports:
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
            yield self.finding("M13", port.title, verdict, title, reason, evidence, mend)

    def limits_and_signing(self) -> Iterator[Finding]:
        """Where no rspamd is, somebody else has to count and to sign."""
        if self.uses_rspamd() or not any(self.user_ports()):
            return
        places = [port.title for port in self.user_ports()]
        yield self.finding(
            "M10",
            places[0],
            VIOLATED,
            _RATES,
            "No milter that counts by user is used; Postfix itself counts by client address.",
            [port.parameters.evidence("smtpd_milters") for port in self.user_ports()],
            "Use rspamd's ratelimit.",
        )
        signed = self.has("opendkim", ":8891", ":12301")
        if signed and not self.reading.opendkim:
            verdict, reason = UNKNOWN, "opendkim.conf is not here or unreadable."
        elif signed:
            keys = re.search(
                r"^\s*(?:KeyFile|KeyTable)\s+\S", self.reading.opendkim or "", re.MULTILINE | re.IGNORECASE
            )
            verdict, reason = (COMPLIANT, "") if keys else (VIOLATED, "opendkim.conf names no key.")
        else:
            verdict, reason = VIOLATED, "No milter that signs is used."
        evidence = [port.parameters.evidence("smtpd_milters") for port in self.user_ports()]
        yield self.finding("M11", places[0], verdict, _SIGNED, reason, evidence, "Use rspamd's dkim_signing.")

    def everything(self) -> list[Finding]:
        if self.reading.postfix is None:
            why = self.reading.unreadable.get("postconf", "it was not read")
            controls = [f"M{number}" for number in range(1, 14)]
            return [
                self.finding(one, "Postfix", UNKNOWN, "Postfix can be audited", f"postconf: {why}") for one in controls
            ]
        checks: tuple[Callable[[], Iterator[Finding]], ...] = (
            self.separate,
            self.relaying,
            self.dnsbl,
            self.resolver,
            self.listed_refused,
            self.scanned,
            self.sizes,
            self.milter_failures,
            self.logins,
            self.own_senders,
            self.limits_and_signing,
            self.reachable,
            self.commands,
        )
        return [finding for check in checks for finding in check()]


_DOWN = "A scanner that is down defers mail, and never lets it pass"
_RATES = "A user sends no more than so many messages in an hour"
_SIGNED = "Outbound mail is DKIM-signed"


def audit(reading: Reading, expected: Expected) -> list[Finding]:
    """Every verdict on the host. While `reading.tables` lacks answers afterwards, get them and audit again."""
    return _Audit(reading, expected).everything()


def _stranger() -> Client:
    return Client("the world", STRANGER, "mail.example.org", "mail.example.org", "mail.example.org")


def _words(envelope: Envelope, said: Answer) -> str:
    client = envelope.client
    name = f" ({client.name})" if client.name != "unknown" else ""
    return f"client {client.address}{name}, MAIL FROM:<{envelope.sender}>, RCPT TO:<{envelope.recipient}>: {said.code}"


def _network(text: str) -> str | None:
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


def _host_of(network: str) -> str:
    """A host of the network: its seventh address, or its only one."""
    found = ip_network(network, strict=False)
    return str(found[min(7, found.num_addresses - 1)])


def _is_public(text: str) -> bool:
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return address.is_global


def _only_refuses(value: str) -> bool:
    """Whether an action of access(5) cannot let anybody in."""
    verb = (value.split() or ["DUNNO"])[0].upper()
    return verb in ("REJECT", "DEFER", "DUNNO", "HOLD", "DISCARD", "INFO", "WARN") or bool(re.match(r"[45]\d\d$", verb))


def _example(pattern: str) -> str:
    """Some text that a pattern of the usual simple kind has in it."""
    text = pattern.strip("/i").removeprefix("^").removesuffix("$")
    text = re.sub(r"\\d|\[0-9\]|\[\^[^\]]*\]|\[[^\]]+\]", "7", text)
    text = re.sub(r"(?<!\\)\.[*+?]", "x", text)
    text = re.sub(r"\(([^|()]*)[^()]*\)", r"\1", text)
    return re.sub(r"\\(.)", r"\1", re.sub(r"(?<=[\w)])[*+?]|\{\d+(?:,\d*)?\}", "", text)).lstrip(".")


def _has_protocol(value: str, version: str) -> bool:
    """Whether a list of TLS protocols (">=TLSv1.2", "!SSLv2, !TLSv1", "TLSv1.2 TLSv1.3") has this one."""
    order = ["SSLv2", "SSLv3", "TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"]
    names = words(value.replace(":", " "))
    lowest = next((name[2:] for name in names if name.startswith(">=")), "")
    if lowest in order and order.index(version) < order.index(lowest):
        return False
    if f"!{version}" in names:
        return False
    wanted = [name for name in names if name in order]
    return not wanted or version in wanted
