# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The DNS of the lab: a root, the two domains, the reverse zones, the blocklist. Text for nsd, rbldnsd and unbound."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from .hosts import DKIM_SELECTOR, DNSBL_SERVER, DNSBL_ZONE, DOMAIN, HOSTS, LISTED, NAMESERVER

REVERSE = ("2.0.192.in-addr.arpa", "100.51.198.in-addr.arpa", "113.0.203.in-addr.arpa", "8.b.d.0.1.0.0.2.ip6.arpa")
ZONES = (DOMAIN, "example.org", *REVERSE)
_HEAD = "$TTL 60\n@ SOA ns.example.org. noc.example.net. 1 3600 600 86400 60\n@ NS ns.example.org.\n"


def zones(dkim_key: str) -> dict[str, str]:
    """Each zone of the name server, by name; '.' is the root. `dkim_key`: the public key in base64."""
    extra = {
        DOMAIN: _domain(dkim_key),
        "example.org": [
            "@ MX 10 mx.example.org.",
            '@ TXT "v=spf1 ip4:203.0.113.77 ip6:2001:db8:fffe::77 -all"',
            "null MX 0 .",  # takes no mail (RFC 7505)
            "null A 203.0.113.77",
        ],
    }
    texts = {zone: _HEAD + "\n".join([*extra.get(zone, []), *_names(zone)]) + "\n" for zone in ZONES}
    delegations = [f"{zone}. NS ns.example.org." for zone in ZONES]
    delegations += [f"ns.example.org. A {NAMESERVER}"]
    delegations += [f"{DNSBL_ZONE}. NS dnsbl.example.org.", f"dnsbl.example.org. A {DNSBL_SERVER}"]
    return {".": _HEAD + "\n".join(delegations) + "\n"} | texts


def _domain(dkim_key: str) -> list[str]:
    """Mail for it comes in at the mx hosts and leaves from the outbound hosts, which alone are in its SPF record."""
    mx = [host for host in HOSTS if host.side == "mx"]
    outbound = [host for host in HOSTS if host.side == "outbound"]
    senders = [
        f"ip{ipaddress.ip_address(address).version}:{address}" for host in outbound for address, _ in host.addresses
    ]
    record = f"v=DKIM1; k=rsa; p={dkim_key}"
    pieces = " ".join(f'"{record[start : start + 250]}"' for start in range(0, len(record), 250))
    return [
        *(f"@ MX 10 {host.domain_name}." for host in mx),
        f'@ TXT "v=spf1 {" ".join(senders)} -all"',
        *(f'{host.domain_name}. TXT "v=spf1 -all"' for host in mx),
        *(f'{host.domain_name}. TXT "v=spf1 a -all"' for host in outbound),
        f"{DKIM_SELECTOR}._domainkey TXT {pieces}",
        f'_dmarc TXT "v=DMARC1; p=quarantine; rua=mailto:noc@{DOMAIN}"',
    ]


def _names(zone: str) -> list[str]:
    """Addresses of the names, or names of the addresses, that are in the zone."""
    lines = []
    for host in HOSTS:
        for text, name in host.addresses:
            address = ipaddress.ip_address(text)
            if name.endswith(f".{zone}"):
                lines.append(f"{name}. {'AAAA' if address.version == 6 else 'A'} {text}")
            if address.reverse_pointer.endswith(f".{zone}"):
                lines.append(f"{address.reverse_pointer}. PTR {name}.")
    return lines


def nsd(folder: str, names: Mapping[str, str]) -> str:
    """nsd.conf for these zones, file names in the folder by zone."""
    # Without a limit on its answers: they are all to the same few hosts.
    server = (
        f'server:\n  ip-address: {NAMESERVER}\n  zonesdir: "{folder}"\n  database: ""\n'
        f"  rrl-ratelimit: 0\n  verbosity: 1\nremote-control:\n  control-enable: no\n"
    )
    return server + "".join(f'zone:\n  name: "{zone}"\n  zonefile: "{file}"\n' for zone, file in names.items())


def blocklist() -> dict[str, str]:
    """The data of rbldnsd, by the kind of its data set."""
    head = "$SOA 60 dnsbl.example.org. noc.example.org. 1 3600 600 86400 60\n$NS 60 dnsbl.example.org.\n"
    texts = {"ip4set": head, "ip6trie": ""}
    for address, codes in LISTED:
        kind = "ip6trie" if ":" in address else "ip4set"
        texts[kind] += "".join(f"{address} :{code}:https://dnsbl.example.org/query/ip/$\n" for code in codes)
    return texts


def resolver_hints() -> str:
    """Where unbound finds the root."""
    return f". 3600 NS ns.example.org.\nns.example.org. 3600 A {NAMESERVER}\n"


def resolver(hints: str) -> str:
    """What unbound needs beside its role's configuration: the root of the lab, and its reverse zones."""
    answered = "".join(f'  local-zone: "{zone}." nodefault\n' for zone in REVERSE)
    return f'server:\n  root-hints: "{hints}"\n{answered}'
