# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What every check of a mail host starts from: what was read, what the policy says, the ports, a finding."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address

from ...findings import COMPLIANT, Evidence, Finding
from .. import rspamd
from ..postfix import Parameters, Postfix, Service, inside, smtp_services, words
from ..restrictions import Answer, Client, Envelope, answer, lists
from ..tables import Tables, is_table

INBOUND, OUTBOUND = "inbound", "outbound"
STRANGER = "203.0.113.77"
FAR = "relay-test@example.com"
NO_PORT = "no service takes mail from the network"
KEY = re.compile(r"\b[a-z0-9]{26}(?=\.[a-z0-9.-]*\bdq\.spamhaus\.net\b)", re.IGNORECASE)


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
    name: str = ""  # in DNS
    outbound: tuple[str, ...] = ()  # names and addresses of the outbound hosts


@dataclass(frozen=True)
class Reading:
    """What was read on the host. A file that is absent is "", one that cannot be read is None.

    `dumps`: the entries of tables that can be listed. `redis`: by server, whether it answers. `sources`: the address,
    by family (4, 6), from which the host's routes let it speak to the world. `down`: by what mail has to pass ("clamd",
    "queue", a milter), why it cannot at this moment, or "".
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
    sources: Mapping[int, str] = field(default_factory=dict)
    down: Mapping[str, str] = field(default_factory=dict)
    keys: Mapping[str, bool] = field(default_factory=dict)  # whether the files of rspamd's DKIM keys are there
    unreadable: Mapping[str, str] = field(default_factory=dict)  # what ("rspamd", "postconf" …) and why


@dataclass(frozen=True, slots=True)
class Port:
    """A service that takes SMTP, with what it sees and what stands before it. `listens`: it, or its postscreen."""

    service: Service
    parameters: Parameters
    postscreen: Parameters | None
    listens: Service

    @property
    def title(self) -> str:
        return self.service.title + (" behind postscreen" if self.postscreen else "")

    @property
    def local(self) -> bool:
        """Whether this host's own programs alone get there: a content filter's way back, for one."""
        host = self.listens.name.rpartition(":")[0]
        interfaces = [host] if host else (self.postscreen or self.parameters).words("inet_interfaces")
        return bool(interfaces) and all(map(_is_loopback, interfaces))

    @property
    def for_servers(self) -> bool:
        """Whether other mail servers come here, which know of port 25 alone."""
        return self.listens.name.rpartition(":")[2] in ("smtp", "25")

    @property
    def for_users(self) -> bool:
        return self.parameters.yes("smtpd_sasl_auth_enable")

    @property
    def milters(self) -> list[str]:
        return [milter for one in self.parameters.words("smtpd_milters") if (milter := inside(one))]


class Audited:
    """The host, and how a check makes its findings."""

    def __init__(self, reading: Reading, expected: Expected) -> None:
        self.reading = reading
        self.expected = expected
        self.tables = reading.tables
        every: list[Port] = []
        if postfix := reading.postfix:
            for service, screen in smtp_services(postfix):
                screened = postfix.effective(screen) if screen else None
                every.append(Port(service, postfix.effective(service), screened, screen or service))
        self.ports = [port for port in every if not port.local]
        self.local_ports = [port for port in every if port.local]

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
        return KEY.sub("<key>", text.replace(key, "<key>") if key else text)

    def ask(self, port: Port, envelope: Envelope, data: bool = True) -> Answer:
        return answer(port.parameters, self.tables, envelope, data=data)

    def led_to(self, port: Port, said: Answer) -> list[str]:
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

    def user_ports(self) -> Iterator[Port]:
        """The ports by which mail goes out."""
        return (port for port in self.ports if self.expected.side == OUTBOUND or port.for_users)


def _is_loopback(interface: str) -> bool:
    try:
        return ip_address(interface.strip("[]")).is_loopback
    except ValueError:
        return interface in ("localhost", "loopback-only")


def zones(parameters: Parameters, *wanted: str) -> Iterator[str]:
    """The DNS lists, with their filters, that restrictions of these names ask, other than to warn."""
    for name in [*lists(parameters), *parameters.words("smtpd_restriction_classes")]:
        rules = parameters.words(name)
        for before, rule, after in zip(["", *rules], rules, rules[1:], strict=False):
            if rule in wanted and not (before == "warn_if_reject" and rule.startswith("reject")):
                yield after


def stranger() -> Client:
    return Client("the world", STRANGER, "mail.example.org", "mail.example.org", "mail.example.org")


def spoken(envelope: Envelope, said: Answer) -> str:
    client = envelope.client
    name = f" ({client.name})" if client.name != "unknown" else ""
    return f"client {client.address}{name}, MAIL FROM:<{envelope.sender}>, RCPT TO:<{envelope.recipient}>: {said.code}"
