# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the DNS says of the mail hosts, against what the policy says of them.

The records are looked up by a function that is handed in, so that everything here is pure; `resolver` makes
one of dnspython. A look-up without an answer is *unknown*, never taken for a record that is absent.

Sources: RFC 5321 5.1 (MX, and the address records in its place), RFC 2181 10.3 (no alias behind MX), RFC 7505 (null
MX), RFC 7208 (SPF), RFC 6376 and RFC 8301 (DKIM keys), RFC 7489 (DMARC), RFC 8461 (MTA-STS), RFC 1912 2.1 (PTR and
address agree).
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from ..findings import COMPLIANT, UNKNOWN, VIOLATED, Evidence, Finding
from .policy import MailHost

try:
    import dns.exception
    import dns.resolver
except ImportError as error:
    DNSPYTHON_MISSING: ImportError | None = error
else:
    DNSPYTHON_MISSING = None

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

SPF_LOOKUPS = 10  # RFC 7208 4.6.4
WORLD: tuple[Network, ...] = (ipaddress.IPv4Network("0.0.0.0/0"), ipaddress.IPv6Network("::/0"))
# RFC 8301 3.2: no RSA key below 1024 bits; the DER form of such a public key has 162 octets.
SHORTEST_RSA_KEY = 160
AT_ONCE = 8  # domains
SILENCE = 16  # look-ups without an answer, one after another, that make a server a dead one
LINES = 40  # of evidence

TITLES = {
    "M1": "Inbound and outbound mail hosts are separate in the DNS",
    "M14": "The DNS records agree with the policy",
}
MENDS = {
    "M1": "Give MX records inbound hosts only, and SPF records outbound addresses only",
    "M14": "Correct the records, or the policy where it is out of date",
}


class NoAnswer(Exception):
    """The name could not be looked up: no server answered, or none that could."""


@dataclass(frozen=True, slots=True)
class Records:
    """The records of one name and type in the presentation form, TXT strings joined; none where there are none.

    `name` is the name that has them: another one than was asked for where that is an alias.
    """

    name: str
    values: tuple[str, ...] = ()


# (name without a dot at its end, type) to its records. Raises NoAnswer.
Ask = Callable[[str, str], Records]
# The text of an MTA-STS policy, by its URL. Raises NoAnswer.
Fetch = Callable[[str], str]


def resolver(address: str | None, port: int, seconds: float) -> Ask:
    """A function that asks this server alone, or those of the system where `address` is None.

    `seconds` is the time for one look-up, all its attempts together. Raises NoAnswer where the system has no server.
    """
    if address is None:
        try:
            asked = dns.resolver.Resolver()
        except dns.resolver.NoResolverConfiguration:
            raise NoAnswer("the system names no DNS server (/etc/resolv.conf)") from None
    else:
        asked = dns.resolver.Resolver(configure=False)
        asked.nameservers, asked.port = [address], port
    asked.lifetime = seconds
    silent: list[str] = []  # the look-ups since the last answer

    def ask(name: str, kind: str) -> Records:
        if len(silent) >= SILENCE:
            raise NoAnswer(f"{name} {kind}: not asked, the server was silent {SILENCE} times")
        try:
            answer = asked.resolve(f"{name}.", kind, search=False, raise_on_no_answer=False)
        except dns.resolver.NXDOMAIN:
            silent.clear()
            return Records(name)
        except dns.resolver.LifetimeTimeout:
            silent.append(name)
            raise NoAnswer(f"{name} {kind}: no answer within {seconds:g} s") from None
        except dns.exception.DNSException as error:
            raise NoAnswer(
                f"{name} {kind}: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
            ) from None
        silent.clear()
        values = (
            b"".join(record.strings).decode("ascii", "replace") if kind == "TXT" else record.to_text()
            for record in answer.rrset or ()
        )
        # Servers rotate what they answer, and a report is to say the same of the same records.
        return Records(_bare(answer.canonical_name.to_text()), tuple(sorted(values)))

    return ask


@dataclass(slots=True)
class _Report:
    """What was seen and what was found at one place, by control."""

    host: str
    place: str
    controls: tuple[str, ...]
    seen: list[str] = field(default_factory=list)
    found: list[tuple[str, str, str, str]] = field(default_factory=list)  # control, verdict, reason, record

    def violated(self, control: str, reason: str, record: str) -> None:
        self.found.append((control, VIOLATED, reason, record))

    def unknown(self, reason: object) -> None:
        """What could not be looked up may be about any control."""
        self.found += [(control, UNKNOWN, str(reason), "") for control in self.controls]

    def look_up(self, ask: Ask, name: str, kind: str) -> Records | None:
        """The records, noted as seen; None where there is no answer, noted as unknown."""
        try:
            records = ask(name, kind)
        except NoAnswer as error:
            self.unknown(error)
            return None
        self.seen += [_line(name, kind, value) for value in records.values] or [_line(name, kind, "none")]
        return records

    def findings(self) -> Iterator[Finding]:
        for control in self.controls:
            mine = [one for one in self.found if one[0] == control]
            verdict = next((word for word in (VIOLATED, UNKNOWN) if any(one[1] == word for one in mine)), COMPLIANT)
            worst = [one for one in mine if one[1] == verdict]
            yield Finding(
                control=control,
                host=self.host,
                attachment=f"DNS {self.place}",
                pool="",
                direction="",
                family=0,
                verdict=verdict,
                title=TITLES[control],
                reason="; ".join(dict.fromkeys(reason for _, _, reason, _ in mine)),
                packet=next((record for *_, record in worst if record), ""),
                evidence=tuple(Evidence(0, line) for line in self.seen[:LINES]),
                mend="" if verdict == COMPLIANT else MENDS[control],
                source="DNS",
            )


def audit(
    domains: Sequence[str],
    inbound: Sequence[MailHost],
    outbound: Sequence[MailHost],
    selector: str,
    ask: Ask,
    fetch: Fetch | None = None,
) -> list[Finding]:
    """M1 and M14 for every domain, M14 for every host. With `fetch` the policy files of MTA-STS are read too."""

    def domain(name: str) -> _Report:
        report = _Report(name, name, ("M1", "M14"))
        _exchangers(report, name, inbound, outbound, ask)
        _spf(report, name, inbound, outbound, ask)
        _dkim(report, f"{selector}._domainkey.{name}", ask)
        _dmarc(report, name, ask)
        _mta_sts(report, name, inbound, ask, fetch)
        return report

    def host(one: MailHost) -> _Report:
        report = _Report(one.host, one.name, ("M14",))
        _addresses(report, one, ask)
        return report

    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        reports = [*pool.map(domain, domains), *pool.map(host, [*inbound, *outbound])]
    return [finding for report in reports for finding in report.findings()]


# -- MX and addresses --------------------------------------------------------------------------------------------


def _exchangers(
    report: _Report, domain: str, inbound: Sequence[MailHost], outbound: Sequence[MailHost], ask: Ask
) -> None:
    records = report.look_up(ask, domain, "MX")
    if records is None:
        return
    names = {}
    for value in records.values:
        _, _, name = value.partition(" ")
        names[_bare(name)] = _line(domain, "MX", value)
    if "" in names:
        report.violated("M14", "a null MX: the domain takes no mail, but the policy says that it does", names.pop(""))
    elif not names:
        report.violated("M14", "no MX records", _line(domain, "MX", "none"))
    ours = {one.name for one in inbound}
    for name in sorted(ours - names.keys()) if names else ():
        report.violated("M14", f"inbound host {name} is not among the MX records", next(iter(names.values())))
    sending = {_ip(address): one.name for one in outbound for address in one.addresses}
    taking = {_ip(address) for one in inbound for address in one.addresses}
    for name, line in names.items():
        if any(name == one.name for one in outbound):
            report.violated("M1", f"outbound host {name} is an MX", line)
        elif name not in ours:
            report.violated("M14", f"MX {name} is no inbound host of the policy", line)
        for kind in ("A", "AAAA"):
            found = report.look_up(ask, name, kind)
            if found is None:
                continue
            if found.name != name:
                report.violated("M14", f"MX {name} is an alias of {found.name}", line)
            for value in found.values:
                address_line = _line(name, kind, value)
                if _ip(value) in sending:
                    report.violated("M1", f"MX {name} is at the outbound address {value}", address_line)
                elif _ip(value) not in taking:
                    report.violated("M14", f"MX {name} is at {value}, no inbound address of the policy", address_line)


def _addresses(report: _Report, host: MailHost, ask: Ask) -> None:
    """Name to address and back: others refuse hosts whose PTR and HELO do not agree."""
    for kind, address in (("A", host.ipv4), ("AAAA", host.ipv6)):
        found = report.look_up(ask, host.name, kind)
        if found is not None:
            wanted, there = {_ip(address)} if address else set(), {_ip(value) for value in found.values}
            for missing in wanted - there:
                report.violated("M14", f"{host.name} has no {kind} record {missing}", _line(host.name, kind, "none"))
            for other in sorted(there - wanted, key=str):
                report.violated("M14", f"{host.name} has the {kind} record {other}", _line(host.name, kind, str(other)))
        if not address:
            continue
        pointer = ipaddress.ip_address(address).reverse_pointer
        names = report.look_up(ask, pointer, "PTR")
        if names is not None and host.name not in map(_bare, names.values):
            told = ", ".join(_bare(value) for value in names.values) or "none"
            reason = f"PTR of {address} is {told}, its HELO name is {host.name}"
            report.violated("M14", reason, _line(pointer, "PTR", told))


# -- SPF ---------------------------------------------------------------------------------------------------------


class BadSpf(Exception):
    """What RFC 7208 calls a permanent error: no receiver can evaluate the record."""


@dataclass(frozen=True, slots=True)
class Mechanism:
    """One mechanism: "+", "-", "~" or "?", and what it matches.

    `networks` for those that name addresses; `inner` for include; `doubt` for those that depend on the message.
    """

    qualifier: str
    text: str
    networks: tuple[Network, ...] = ()
    inner: tuple[Mechanism, ...] | None = None
    doubt: bool = False

    @property
    def everything(self) -> bool:
        return self.text == "all"


def check_host(mechanisms: Iterable[Mechanism], ip: Address) -> str:
    """The qualifier of the first mechanism that matches; "?" for none (RFC 7208 4.7), "" where it cannot be known."""
    for one in mechanisms:
        if one.doubt:
            return ""
        if one.inner is not None:
            inner = check_host(one.inner, ip)
            if not inner:
                return ""
            matches = inner == "+"
        else:
            matches = one.everything or any(ip in network for network in one.networks)
        if matches:
            return one.qualifier
    return "?"


def permitted(mechanisms: Iterable[Mechanism]) -> Iterator[tuple[str, Network]]:
    """Every network that some mechanism lets pass, with the mechanism's text."""
    for one in mechanisms:
        if one.qualifier == "+":
            yield from ((one.text, network) for network in (WORLD if one.everything else one.networks))
            if one.inner is not None:
                yield from ((f"{one.text} ({text})", network) for text, network in permitted(one.inner))
        if one.everything:
            return  # nobody reads on (RFC 7208 5.1)


def doubtful(mechanisms: Iterable[Mechanism]) -> Iterator[str]:
    """The text of every mechanism that lets pass whom only the message, or somebody else's DNS, can tell."""
    for one in mechanisms:
        if one.qualifier == "+" and one.doubt:
            yield one.text
        elif one.qualifier == "+" and one.inner is not None:
            yield from (f"{one.text} ({text})" for text in doubtful(one.inner))
        if one.everything:
            return


def read_spf(domain: str, ask: Ask) -> tuple[str, tuple[Mechanism, ...]]:
    """The record and its mechanisms, with every include and redirect followed. Raises BadSpf, NoAnswer.

    The record is "" where there is none.
    """
    return _spf_of(domain, ask, [0])


def _spf_of(domain: str, ask: Ask, lookups: list[int]) -> tuple[str, tuple[Mechanism, ...]]:
    records = [text for text in ask(domain, "TXT").values if re.match(r"v=spf1(?: |$)", text, re.IGNORECASE)]
    if not records:
        return "", ()
    if len(records) > 1:
        raise BadSpf(f"{domain} has {len(records)} SPF records")
    mechanisms: list[Mechanism] = []
    redirect = ""
    for word in records[0].split()[1:]:
        name = re.split("[:=/]", word)[0]
        sign, value = word[len(name) : len(name) + 1], word[len(name) + 1 :]
        if sign == "=":
            if name.lower() == "redirect":
                redirect = value
            continue
        mechanisms.append(_mechanism(word, domain, ask, lookups))
    if redirect and not any(one.everything for one in mechanisms):
        _count(lookups)
        if "%" in redirect:
            return records[0], (*mechanisms, Mechanism("+", f"redirect={redirect}", doubt=True))
        record, more = _spf_of(_bare(redirect), ask, lookups)
        if not record:
            raise BadSpf(f"redirect={redirect}, which has no SPF record")
        mechanisms += more
    return records[0], tuple(mechanisms)


_MECHANISM = re.compile(
    r"(?P<qualifier>[-+~?]?)(?P<name>all|include|a|mx|ptr|ip4|ip6|exists)"
    r"(?::(?P<value>[^/\s]+|[0-9a-f:.]+))?(?:/(?P<four>\d{1,3}))?(?://(?P<six>\d{1,3}))?",
    re.IGNORECASE,
)


def _mechanism(word: str, domain: str, ask: Ask, lookups: list[int]) -> Mechanism:
    found = _MECHANISM.fullmatch(word)
    if not found:
        raise BadSpf(f"'{word}' is no mechanism")
    name, value, qualifier = found["name"].lower(), found["value"] or "", found["qualifier"] or "+"
    text = word.lstrip("-+~?")
    if name == "all":
        return Mechanism(qualifier, "all")
    if name in ("ip4", "ip6"):
        length = f"/{found['four']}" if found["four"] else ""
        try:
            network = ipaddress.ip_network(value + length, strict=False)
        except ValueError:
            raise BadSpf(f"'{word}' names no network") from None
        if network.version != int(name[2]):
            raise BadSpf(f"'{word}' is of the other address family")
        return Mechanism(qualifier, text, (network,))
    _count(lookups)
    if int(found["four"] or 0) > 32 or int(found["six"] or 0) > 128:
        raise BadSpf(f"'{word}' has a length that no prefix has")
    if name in ("ptr", "exists") or "%" in value:
        return Mechanism(qualifier, text, doubt=True)
    target = _bare(value) or domain
    if name == "include":
        record, inner = _spf_of(target, ask, lookups)
        if not value or not record:
            raise BadSpf(f"'{word}': there is no SPF record")
        return Mechanism(qualifier, text, inner=inner)
    hosts = [target]
    if name == "mx":
        hosts = [_bare(record.partition(" ")[2]) for record in ask(target, "MX").values]
    networks = [
        ipaddress.ip_network(f"{address}/{found[part] or full}", strict=False)
        for host in hosts[:SPF_LOOKUPS]
        if host
        for kind, part, full in (("A", "four", 32), ("AAAA", "six", 128))
        for address in ask(host, kind).values
    ]
    return Mechanism(qualifier, text, tuple(networks))


def _count(lookups: list[int]) -> None:
    lookups[0] += 1
    if lookups[0] > SPF_LOOKUPS:
        raise BadSpf(f"more than {SPF_LOOKUPS} mechanisms need a look-up, so that receivers give up")


def _spf(report: _Report, domain: str, inbound: Sequence[MailHost], outbound: Sequence[MailHost], ask: Ask) -> None:
    try:
        record, mechanisms = read_spf(domain, ask)
    except NoAnswer as error:
        return report.unknown(error)
    except BadSpf as error:
        return report.violated("M14", f"SPF cannot be evaluated: {error}", _line(domain, "TXT", "v=spf1 …"))
    line = _line(domain, "TXT", record or "no v=spf1")
    report.seen.append(line)
    if not record:
        return report.violated("M14", "no SPF record", line)
    sending = [_ip(address) for one in outbound for address in one.addresses]
    taking = {_ip(address) for one in inbound for address in one.addresses}
    for address in sending:
        verdict = check_host(mechanisms, address)
        if not verdict:
            report.unknown(f"SPF: whether {address} passes depends on the message")
        elif verdict != "+":
            report.violated("M14", f"SPF does not let the outbound address {address} pass", line)
    if any(one.everything and one.qualifier == "+" for one in mechanisms):
        return report.violated("M1", "SPF lets the whole world pass", line)
    for address in sorted(taking - set(sending), key=str):
        if check_host(mechanisms, address) == "+":
            report.violated("M1", f"SPF lets the inbound address {address} pass", line)
    for text, network in permitted(mechanisms):
        known = sum(address in network for address in {*sending, *taking})
        if known < network.num_addresses:
            report.violated("M14", f"SPF lets {network} pass by '{text}', which is more than the outbound hosts", line)
    for text in doubtful(mechanisms):
        report.unknown(f"SPF: whom '{text}' lets pass cannot be told from the record")
    last = next((one.qualifier for one in mechanisms if one.everything), "?")
    if last not in "-~":
        report.violated("M14", "SPF ends with neither -all nor ~all", line)
    return None


# -- DKIM, DMARC, MTA-STS ----------------------------------------------------------------------------------------


def _dkim(report: _Report, name: str, ask: Ask) -> None:
    records = report.look_up(ask, name, "TXT")
    if records is None:
        return None
    if len(records.values) != 1:
        there = "no DKIM key record" if not records.values else f"{len(records.values)} records where one key may be"
        return report.violated("M14", f"{name}: {there}", _line(name, "TXT", "none"))
    line, tags = _line(name, "TXT", records.values[0]), _tags(records.values[0])
    if tags.get("v", "DKIM1") != "DKIM1" or "p" not in tags:
        return report.violated("M14", f"{name} is no DKIM key record", line)
    key = re.sub(r"\s", "", tags["p"])
    try:
        octets = base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError):
        return report.violated("M14", f"{name}: the DKIM key is no base64", line)
    if not octets:
        report.violated("M14", f"{name}: the DKIM key is revoked", line)
    elif tags.get("k", "rsa") == "rsa" and len(octets) < SHORTEST_RSA_KEY:
        report.violated("M14", f"{name}: the DKIM key is shorter than 1024 bits, so that receivers ignore it", line)
    if "y" in tags.get("t", "").split(":"):
        report.violated("M14", f"{name}: the DKIM key is marked as a test (t=y), so that receivers ignore it", line)
    return None


def _dmarc(report: _Report, domain: str, ask: Ask) -> None:
    """The domain's own record, or that of the organisation (RFC 7489 6.6.3): the one above with the fewest labels."""
    labels = domain.split(".")
    above = (".".join(labels[start:]) for start in range(len(labels) - 2, 0, -1))
    for name in (f"_dmarc.{place}" for place in (domain, *above)):
        records = report.look_up(ask, name, "TXT")
        if records is None:
            return None
        mine = [text for text in records.values if re.match(r"v\s*=\s*DMARC1\s*(?:;|$)", text)]
        if len(mine) > 1:
            reason = f"{name}: {len(mine)} DMARC records, so that none counts"
            return report.violated("M14", reason, _line(name, "TXT", mine[0]))
        if mine and _tags(mine[0]).get("p", "").lower() not in ("none", "quarantine", "reject"):
            return report.violated("M14", f"{name}: the DMARC record has no policy", _line(name, "TXT", mine[0]))
        if mine:
            return None
    name = f"_dmarc.{domain}"
    return report.violated("M14", f"{name}: no DMARC record", _line(name, "TXT", "none"))


def _mta_sts(report: _Report, domain: str, inbound: Sequence[MailHost], ask: Ask, fetch: Fetch | None) -> None:
    """MTA-STS may be absent; where it is, it must hold."""
    name = f"_mta-sts.{domain}"
    records = report.look_up(ask, name, "TXT")
    mine = [text for text in records.values if re.match(r"v=STSv1\s*(?:;|$)", text)] if records else []
    if not mine:
        return None
    line = _line(name, "TXT", mine[0])
    if len(mine) > 1:
        return report.violated("M14", f"{name}: {len(mine)} MTA-STS records, so that none counts", line)
    if not re.fullmatch(r"[A-Za-z0-9]{1,32}", _tags(mine[0]).get("id", "")):
        return report.violated("M14", f"{name}: the MTA-STS record has no id of letters and digits", line)
    if not fetch:
        return None
    url = f"https://mta-sts.{domain}/.well-known/mta-sts.txt"
    try:
        text = fetch(url)
    except NoAnswer as error:
        return report.unknown(error)
    report.seen += [f"{url}: {row.strip()}" for row in text.splitlines()[:10]]
    rows = [row.partition(":") for row in text.splitlines() if ":" in row]
    keys = {key.strip().lower(): value.strip() for key, _, value in rows}
    patterns = [value.strip().lower() for key, _, value in rows if key.strip().lower() == "mx"]
    if keys.get("version") != "STSv1" or keys.get("mode") not in ("enforce", "testing", "none"):
        return report.violated("M14", f"{url} is no MTA-STS policy", line)
    if not keys.get("max_age", "").isdecimal():
        report.violated("M14", f"{url} has no max_age", line)
    for one in inbound if keys["mode"] != "none" else ():
        if not any(_covers(pattern, one.name) for pattern in patterns):
            report.violated("M14", f"{url} does not name the inbound host {one.name}", line)
    return None


def _covers(pattern: str, name: str) -> bool:
    """RFC 8461 4.1: `*.` stands for one label."""
    return pattern == name or (pattern.startswith("*.") and pattern[2:] == name.partition(".")[2])


def _tags(record: str) -> dict[str, str]:
    pairs = (part.partition("=") for part in record.split(";"))
    return {name.strip(): value.strip() for name, sign, value in pairs if sign}


def _ip(text: str) -> Address:
    return ipaddress.ip_address(text)


def _bare(name: str) -> str:
    return name.strip().rstrip(".").lower()


def _line(name: str, kind: str, value: str) -> str:
    """A record as it is shown: printable, and no longer than a line may be."""
    shown = "".join(sign if sign.isprintable() else "?" for sign in value)
    return f"{name}. {kind} {shown if len(shown) <= 300 else shown[:300] + ' …'}"
