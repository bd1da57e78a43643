# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The mail part of the policy: the variable `isp_mail`, read whole and checked whole, beside `isp_policy`.

read_mail never raises on any data: it returns what it read and every problem there is, each with its
path in the variable tree. The DQS key is a secret: no problem, no repr and no message holds it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ..policy import FAMILIES, NO_SUBSCRIBERS, Policy
from ..variables import (
    Path,
    Problem,
    Problems,
    kind_of,
    plain,
    read_flag,
    read_list,
    read_mapping,
    read_number,
    read_text,
    shown,
)
from . import DNSBL_ALIAS

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# The inventory groups that playbooks/mail.yml runs over, by the list of isp_mail.
GROUPS = {"inbound": "mx", "outbound": "outbound"}

# The keys of every mapping in the tree; docs/policy.md has a table for each.
KEYS: Mapping[str, tuple[str, ...]] = {
    "mail": (
        "domains", "postmaster", "inbound", "outbound", "mailbox_store", "message_size_limit", "scanner_size_limit",
        "dnsbl", "dkim", "tls", "rates", "port_25_from_pool", "probe",
    ),
    "host": ("host", "name", "ipv4", "ipv6"),
    "mailbox_store": ("host", "port"),
    "dnsbl": ("zone", "key"),
    "dkim": ("selector", "key_file"),
    "tls": ("certificate", "key"),
    "rates": ("per_user_hour", "per_user_burst", "recipients_per_message"),
    "probe": ("target", "hosts"),
}  # fmt: skip

_REQUIRED: Mapping[str, Mapping[str, str]] = {
    "mail": {
        "domains": "add 'domains': the domains that the inbound hosts accept mail for",
        "postmaster": "add 'postmaster': the address that postmaster@ and abuse@ of every domain go to",
        "inbound": "add 'inbound': the hosts that take mail from the world (the MX records)",
        "outbound": "add 'outbound': the hosts that take subscribers' mail and send it to the world",
        "mailbox_store": "add 'mailbox_store': where the inbound hosts deliver, as {host: \"[192.0.2.40]\", port: 24}",
        "dkim": "add 'dkim': {selector: isp1, key_file: /path/on/this/machine}",
        "tls": "add 'tls': {certificate: /path/on/the/host, key: /path/on/the/host}",
    },
    "host": {
        "host": "add 'host': the host's name in the inventory",
        "name": "add 'name': the host's name in DNS, which it greets with",
    },
    "mailbox_store": {"host": "add 'host': a name, or an address in brackets"},
    "dkim": {
        "selector": "add 'selector': the first label of the DNS record <selector>._domainkey.<domain>",
        "key_file": "add 'key_file': the private key, a path on this machine",
    },
    "tls": {
        "certificate": "add 'certificate': the chain in PEM form, a path on the host",
        "key": "add 'key': the private key in PEM form, a path on the host",
    },
    "probe": {"target": "add 'target': a mailbox of your own in a domain that your mail hosts do not serve"},
}

DNSBL_ZONE = "zen.spamhaus.org"
DQS_ZONE = "zen.dq.spamhaus.net"  # where Spamhaus answers for DNSBL_ZONE behind a key
DQS_KEY_LENGTH = 26
_DQS_LABELS = DQS_ZONE.split(".")[-3:]

# RFC 5321, 4.5.3.1.7: a server takes messages of 64 KiB at least.
SMALLEST_MESSAGE_LIMIT = 65_536
# ClamAV, clamd.conf(5), MaxFileSize: no file beyond 2 GiB is scanned, whatever the limit says.
LARGEST_SCANNER_LIMIT = 2**31 - 1

_LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)")
# RFC 5322, 3.2.3: a dot-atom; quoted local parts are left out, no postmaster has one.
_LOCAL_PART = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_KEY = re.compile(rf"[a-z0-9]{{{DQS_KEY_LENGTH}}}")
_PATH = re.compile(r"/[^\s\"'\\;$%{}]*[^\s\"'\\;$%{}/]")


@dataclass(frozen=True)
class MailHost:
    """A mail host: its name in the inventory, in DNS, and its addresses; "" where it has none of a family."""

    host: str
    name: str
    ipv4: str
    ipv6: str

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(address for address in (self.ipv4, self.ipv6) if address)


@dataclass(frozen=True)
class MailPolicy:
    """A mail policy without problems. Sizes in bytes, names and addresses in canonical form.

    `store_host` is a name, or an address in brackets, as Postfix writes a next hop.
    """

    domains: tuple[str, ...]
    postmaster: str
    inbound: tuple[MailHost, ...]
    outbound: tuple[MailHost, ...]
    store_host: str
    store_port: int
    message_size_limit: int
    scanner_size_limit: int  # what a scanner reads of one message; never below message_size_limit
    dnsbl_zone: str
    dnsbl_key: str = field(repr=False)
    dkim_selector: str
    dkim_key_file: str  # on the controller
    tls_certificate: str  # on the mail host
    tls_key: str
    per_user_hour: int
    per_user_burst: int
    recipients_per_message: int
    port_25_from_pool: bool
    probe_target: str  # a mailbox that nobody may reach over these hosts without a login; "" for no probe
    probe_hosts: tuple[str, ...]  # hosts of the inventory that ask, the controller among them where it does

    @property
    def dnsbl_asked(self) -> str:
        """The zone that Postfix asks. It is no secret."""
        return DNSBL_ALIAS if self.dnsbl_key else self.dnsbl_zone

    @property
    def dnsbl_query_zone(self) -> str:
        """The zone that is asked. With a key it is as secret as the key: never show it."""
        if not self.dnsbl_key:
            return self.dnsbl_zone
        return f"{self.dnsbl_key}.{DQS_ZONE if self.dnsbl_zone == DNSBL_ZONE else self.dnsbl_zone}"


def mail_host(mail: MailPolicy, policy: Policy, host: str) -> dict[str, Any]:
    """The policies as plain data for the templates of one host, who it is and which side it is on included.

    Raises KeyError for a host that is none of the mail hosts.
    """
    sides = {one.host: (side, one) for side in GROUPS for one in getattr(mail, side)}
    side, own = sides[host]
    return (
        asdict(mail)
        | {name: [_plain_host(one) for one in getattr(mail, name)] for name in GROUPS}
        | {
            "side": side,
            **_plain_host(own),
            "dnsbl_asked": mail.dnsbl_asked,
            "dnsbl_query_zone": mail.dnsbl_query_zone,
            "relays": [address for one in mail.inbound for address in one.addresses],
            "pools": {pool.name: [*pool.ipv4, *pool.ipv6] for pool in policy.pools.values()},
        }
    )


def _plain_host(host: MailHost) -> dict[str, Any]:
    return asdict(host) | {"addresses": list(host.addresses)}


def read_mail(data: object, policy: Policy | None) -> tuple[MailPolicy | None, list[Problem]]:
    """The value of `isp_mail`, held against the pools and smarthosts of the policy, where that one could be read.

    None instead of a mail policy when there is any problem; all of them are returned.
    """
    problems = Problems()
    path: Path = ("isp_mail",)
    if not isinstance(data, Mapping):
        problems.add(path, f"is {kind_of(data)}, not a mapping", "write it as docs/policy.md shows")
        return None, problems
    tree = read_mapping(data, path, problems, KEYS["mail"], _REQUIRED["mail"])
    domains = _domains(tree, path, problems)
    postmaster = _mailbox(tree["postmaster"], (*path, "postmaster"), problems) if "postmaster" in tree else ""
    inbound, outbound = (_hosts(tree, key, path, problems) for key in GROUPS)
    known = len(problems)
    _apart([*inbound, *outbound], problems)
    if policy:
        _against_the_policy([*inbound, *outbound], outbound if len(problems) == known else [], problems, policy)
    store_host, store_port = _store(tree, path, problems)
    message_limit = read_number(tree, "message_size_limit", 26_214_400, path, problems, SMALLEST_MESSAGE_LIMIT)
    scanner_limit = read_number(tree, "scanner_size_limit", message_limit, path, problems, SMALLEST_MESSAGE_LIMIT)
    _sizes(message_limit, scanner_limit, path, problems)
    zone, key = _dnsbl(tree.get("dnsbl", {}), (*path, "dnsbl"), problems)
    dkim = _section(tree, "dkim", path, problems)
    tls = _section(tree, "tls", path, problems)
    rates = _section(tree, "rates", path, problems)
    place: Path = (*path, "rates")
    per_hour = read_number(rates, "per_user_hour", 100, place, problems)
    burst = read_number(rates, "per_user_burst", min(20, per_hour), place, problems)
    if burst > per_hour:
        problems.add(
            (*place, "per_user_burst"), f"{burst} at once is more than the {per_hour} of an hour", "lower it to them"
        )
    probe_target, probe_hosts = _probe(tree, domains, path, problems)
    mail = MailPolicy(
        domains=domains,
        postmaster=postmaster,
        inbound=tuple(one.host for one in inbound),
        outbound=tuple(one.host for one in outbound),
        store_host=store_host,
        store_port=store_port,
        message_size_limit=message_limit,
        scanner_size_limit=scanner_limit,
        dnsbl_zone=zone,
        dnsbl_key=key,
        dkim_selector=_name(dkim["selector"], (*path, "dkim", "selector"), problems, 1) if "selector" in dkim else "",
        dkim_key_file=_path(dkim, "key_file", (*path, "dkim"), problems),
        tls_certificate=_path(tls, "certificate", (*path, "tls"), problems),
        tls_key=_path(tls, "key", (*path, "tls"), problems),
        per_user_hour=per_hour,
        per_user_burst=burst,
        recipients_per_message=read_number(rates, "recipients_per_message", 100, place, problems),
        port_25_from_pool=read_flag(tree.get("port_25_from_pool", False), (*path, "port_25_from_pool"), problems),
        probe_target=probe_target,
        probe_hosts=probe_hosts,
    )
    return (None if problems else mail), problems


@dataclass(frozen=True)
class _Written:
    """A host, and where it is written: a path for each of its keys that could be read."""

    host: MailHost
    role: str  # "inbound" | "outbound"
    paths: Mapping[str, Path]


def _domains(tree: Mapping[str, object], path: Path, problems: Problems) -> tuple[str, ...]:
    domains: list[str] = []
    for where, item in read_list(tree, "domains", path, problems, "list the domains that you take mail for"):
        name = _name(item, where, problems)
        if name and name in domains:
            problems.add(where, f"domain '{name}' is listed twice", "remove one")
        domains.append(name)
    return tuple(domains)


def _hosts(tree: Mapping[str, object], role: str, path: Path, problems: Problems) -> list[_Written]:
    hosts = []
    for place, item in read_list(tree, role, path, problems, "list at least one host"):
        entry = read_mapping(item, place, problems, KEYS["host"], _REQUIRED["host"])
        values = {
            "host": read_text(entry["host"], (*place, "host"), problems) if "host" in entry else "",
            "name": _name(entry["name"], (*place, "name"), problems) if "name" in entry else "",
        }
        for key, family in FAMILIES.items():
            values[key] = _address(entry[key], (*place, key), problems, family) if key in entry else ""
        if entry and not entry.keys() & FAMILIES.keys():
            problems.add(place, "has no addresses", "add 'ipv4' or 'ipv6': the address that the world sees")
        paths: dict[str, Path] = {key: (*place, key) for key, value in values.items() if value}
        hosts.append(_Written(MailHost(**values), role, paths))
    return hosts


def _apart(hosts: list[_Written], problems: Problems) -> None:
    """No host, name or address is there twice, least of all once inbound and once outbound (control M1)."""
    for key, what in (("host", "host"), ("name", "name"), ("ipv4", "address"), ("ipv6", "address")):
        first: dict[str, _Written] = {}
        for one in hosts:
            if key not in one.paths:
                continue
            value = getattr(one.host, key)
            other = first.setdefault(value, one)
            if other is one:
                continue
            if other.role != one.role:
                mend = f"give the outbound side {'an' if what == 'address' else 'a'} {what} of its own"
                problems.add(one.paths[key], f"{what} {value} is both inbound and outbound", mend)
            else:
                mend = "keep one" if key == "host" else "give every host its own"
                problems.add(one.paths[key], f"{what} {value} is listed twice", mend)


def _against_the_policy(hosts: list[_Written], outbound: list[_Written], problems: Problems, policy: Policy) -> None:
    """No mail host is inside a pool, and the smarthosts of the policy are the outbound hosts, address by address."""
    pools = [
        (ipaddress.ip_network(prefix), pool.name)
        for pool in policy.pools.values()
        for prefix in (*pool.ipv4, *pool.ipv6)
    ]
    for one in hosts:
        for key in FAMILIES:
            for network, pool in pools:
                if key in one.paths and ipaddress.ip_address(getattr(one.host, key)) in network:
                    problems.add(
                        one.paths[key],
                        f"{one.role} host {getattr(one.host, key)} is inside {network} of pool '{pool}'",
                        "give it an address outside the pools, or take its prefix out of the pool",
                    )
    if not outbound:
        return  # there are problems already, and these would only follow from them
    sending = {ipaddress.ip_address(address) for one in outbound for address in one.host.addresses}
    smarthosts = [
        (ipaddress.ip_network(prefix), ("isp_policy", "smarthosts", number, key, index))
        for number, smarthost in enumerate(policy.smarthosts)
        for key, family in FAMILIES.items()
        for index, prefix in enumerate(smarthost.prefixes(family))
    ]
    for network, where in smarthosts:
        if sum(address in network for address in sending) < network.num_addresses:
            one_host = network.num_addresses == 1
            problems.add(
                where,
                f"smarthost {network.network_address} is no outbound host of isp_mail"
                if one_host
                else f"smarthost {network} has addresses that are no outbound hosts of isp_mail",
                "list it in isp_mail.outbound too, or remove it here"
                if one_host
                else "list the outbound hosts' addresses one by one",
            )
    for one in outbound:
        for key in FAMILIES:
            address = getattr(one.host, key)
            if key in one.paths and not any(ipaddress.ip_address(address) in network for network, _ in smarthosts):
                problems.add(
                    one.paths[key],
                    f"outbound host {address} is no smarthost of isp_policy, so that the filters keep subscribers off",
                    "list it in isp_policy.smarthosts too",
                )


def _store(tree: Mapping[str, object], path: Path, problems: Problems) -> tuple[str, int]:
    store = _section(tree, "mailbox_store", path, problems)
    place: Path = (*path, "mailbox_store")
    port = read_number(store, "port", 24, place, problems, highest=65_535)
    text = read_text(store["host"], (*place, "host"), problems) if "host" in store else ""
    if text.startswith("[") and text.endswith("]"):
        inner = text[1:-1]
        if not re.fullmatch(r"[0-9.]+|.*:.*", inner):
            return f"[{_name(inner, (*place, 'host'), problems)}]", port
        family = 6 if ":" in inner else 4
        return f"[{_address(inner, (*place, 'host'), problems, family)}]", port
    if re.fullmatch(r"[0-9.]+|.*:.*", text):
        problems.add((*place, "host"), f"{shown(text)} is no name", f'write an address in brackets, as "[{text}]"')
        return "", port
    return (_name(text, (*place, "host"), problems) if text else ""), port


def _sizes(message_limit: int, scanner_limit: int, path: Path, problems: Problems) -> None:
    """What the scanner does not read nobody has scanned: padding would carry a virus past it (control M6)."""
    if message_limit > LARGEST_SCANNER_LIMIT:
        problems.add(
            (*path, "message_size_limit"),
            f"{message_limit} bytes are more than ClamAV can ever scan, {LARGEST_SCANNER_LIMIT}",
            "lower it",
        )
    elif scanner_limit > LARGEST_SCANNER_LIMIT:
        problems.add(
            (*path, "scanner_size_limit"),
            f"{scanner_limit} bytes are more than ClamAV can ever scan, {LARGEST_SCANNER_LIMIT}",
            "lower it, or remove it: it is the message limit then",
        )
    elif message_limit > scanner_limit:
        problems.add(
            (*path, "message_size_limit"),
            f"{message_limit} bytes are above the scanner's limit of {scanner_limit}: the rest goes unscanned",
            "raise scanner_size_limit to it, or lower it",
        )


def _dnsbl(data: object, path: Path, problems: Problems) -> tuple[str, str]:
    tree = read_mapping(data, path, problems, KEYS["dnsbl"])
    zone = tree.get("zone", DNSBL_ZONE)
    labels = zone.strip().lower().rstrip(".").split(".") if isinstance(zone, str) else []
    if labels[-3:] == _DQS_LABELS or any(_KEY.fullmatch(label) for label in labels):
        problems.add(
            (*path, "zone"), "is a zone whose name holds a DQS key", f"write {DNSBL_ZONE}, and the key as 'key'"
        )
        zone = DNSBL_ZONE
    name = _name(zone, (*path, "zone"), problems)
    key = tree.get("key", "")
    if key is None or key == "":
        return name, ""
    mend = f"a DQS key is {DQS_KEY_LENGTH} small letters and digits; leave it empty to ask the public zone"
    if not isinstance(key, str):
        problems.add((*path, "key"), f"is {kind_of(key)}, not a text", mend)  # its value is never shown
        return name, ""
    text = plain(key).strip().lower()
    if len(text) != DQS_KEY_LENGTH:
        problems.add((*path, "key"), f"has {len(text)} characters instead of {DQS_KEY_LENGTH}", mend)
    elif not _KEY.fullmatch(text):
        problems.add((*path, "key"), "has characters that no DQS key has", mend)
    return name, text


def _probe(
    tree: Mapping[str, object], domains: tuple[str, ...], path: Path, problems: Problems
) -> tuple[str, tuple[str, ...]]:
    probe = _section(tree, "probe", path, problems)
    place: Path = (*path, "probe")
    target = _mailbox(probe["target"], (*place, "target"), problems) if "target" in probe else ""
    if any(re.search(rf"[@.]{re.escape(domain)}$", target) for domain in domains if domain):
        mend = "name a mailbox of yours somewhere else: mail for it must not pass these hosts"
        problems.add((*place, "target"), f"{target} is in a domain of your own", mend)
    hosts = [read_text(item, where, problems) for where, item in read_list(probe, "hosts", place, problems)]
    return target, tuple(hosts) or ("localhost",)


def _section(tree: Mapping[str, object], key: str, path: Path, problems: Problems) -> dict[str, object]:
    """The mapping under the key, {} where the key is absent: said already if it has to be there."""
    if key not in tree:
        return {}
    return read_mapping(tree[key], (*path, key), problems, KEYS[key], _REQUIRED.get(key))


def _name(data: object, path: Path, problems: Problems, labels: int = 2) -> str:
    """A domain name of at least so many labels, in small letters, without a dot at its end."""
    text = read_text(data, path, problems)
    if not text:
        return ""
    text = text.lower().removesuffix(".") or text
    if not text.isascii():
        problems.add(path, f"{shown(text)} is not in ASCII", "write it in its xn-- form")
        return ""
    parts = text.split(".")
    if not all(_LABEL.fullmatch(part) for part in parts) or len(text) > 253 or (labels > 1 and parts[-1].isdecimal()):
        problems.add(path, f"{shown(text)} is no domain name", "write labels of letters, digits and '-' with dots")
        return ""
    if len(parts) < labels:
        problems.add(path, f"{shown(text)} is not a full name", "write it with its domain, as mx1.example.net")
        return ""
    return text


def _mailbox(data: object, path: Path, problems: Problems) -> str:
    text = read_text(data, path, problems)
    local, sign, domain = text.rpartition("@")
    if not text:
        return ""
    if not sign or not _LOCAL_PART.fullmatch(local):
        problems.add(path, f"{shown(text)} is no mail address", "write it as postmaster@example.net")
        return ""
    return f"{local}@{_name(domain, path, problems)}"


def _address(data: object, path: Path, problems: Problems, family: int) -> str:
    """One address that the world can see, in canonical form."""
    text = read_text(data, path, problems)
    example = "192.0.2.25" if family == 4 else "2001:db8:ffff::25"
    if not text:
        return ""
    try:
        address: Address = ipaddress.ip_address(text)
    except ValueError:
        mend = "write one address without a length" if "/" in text else f"write one address, as {example}"
        problems.add(path, f"{shown(text)} is not an IP address", mend)
        return ""
    if address.version != family or "%" in text:
        problems.add(path, f"{text} is not an IPv{family} address", f"write one as {example}")
        return ""
    never = next((one for one in NO_SUBSCRIBERS if one.version == family and address in one), None)
    if never:
        problems.add(path, f"{address} is of {never}, which no mail host has", "write the address that others reach")
        return ""
    return str(address)


def _path(tree: Mapping[str, object], key: str, place: Path, problems: Problems) -> str:
    text = read_text(tree[key], (*place, key), problems) if key in tree else ""
    if text and not text.startswith("/"):
        problems.add((*place, key), f"{shown(text)} is a relative path", "write the whole path, from / on")
    elif text and not _PATH.fullmatch(text):
        mend = "name a file, in a path without spaces, quotes and the characters \\ ; $ % { }"
        problems.add((*place, key), f"{shown(text)} cannot stand in every configuration file", mend)
    return text
