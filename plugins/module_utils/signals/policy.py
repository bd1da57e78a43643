# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The signals' part of the policy: the variable `isp_signals`, read whole and checked whole, beside `isp_policy`.

It holds what several parts must agree upon: who is never touched, how much may be done at once, where the state lies.
read_signals never raises on any data: it returns what it read and every problem there is, each with its path.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ..mail.policy import MailPolicy
from ..policy import FAMILIES, Policy, read_network
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
from .limits import DAY, HOUR, MINUTE, MOST, SHARE, Protected

# The keys of every mapping in the tree; docs/policy.md has a table for each.
KEYS: Mapping[str, tuple[str, ...]] = {
    "signals": ("subscribers", "never", "cgn", "watched", "portal", "resolvers", "limits", "dry_run", "state"),
    "never": ("prefix", "reason"),
    "portal": ("ipv4", "ipv6"),
    "limits": ("most", "hours", "inbound_minutes"),
}
_REQUIRED: Mapping[str, Mapping[str, str]] = {
    "signals": {
        "subscribers": "add 'subscribers': how many customers there are; what may be done at once is a share of them",
        "never": "add 'never': your servers, routers and BGP peers, as [{prefix: 192.0.2.0/24, reason: own servers}]",
    },
    "never": {
        "prefix": "add 'prefix': what is never quarantined nor black-holed",
        "reason": "add 'reason': what is there",
    },
}

# Past these, and MOST of limits.py, a mistake could hurt too many for too long; a policy may only be stricter.
HOURS, INBOUND_MINUTES = DAY // HOUR, HOUR // MINUTE
STATE = "/var/lib/isp-hardening/signals.db"

# IANA, "Root Servers": whoever black-holes one of them takes the names away from all his subscribers.
ROOT_SERVERS = tuple(
    """
    198.41.0.4 170.247.170.2 192.33.4.12 199.7.91.13 192.203.230.10 192.5.5.241 192.112.36.4 198.97.190.53
    192.36.148.17 192.58.128.30 193.0.14.129 199.7.83.42 202.12.27.33
    2001:503:ba3e::2:30 2801:1b8:10::b 2001:500:2::c 2001:500:2d::d 2001:500:a8::e 2001:500:2f::f 2001:500:12::d0d
    2001:500:1::53 2001:7fe::53 2001:503:c27::2:30 2001:7fd::1 2001:500:9f::42 2001:dc3::35
    """.split()
)


@dataclass(frozen=True)
class SignalsPolicy:
    """A policy of the signals without problems. Prefixes and addresses in canonical form, families mixed."""

    subscribers: int
    never: tuple[Protected, ...]  # what is written, and what the rest of the policy says by itself
    watched: tuple[str, ...]  # all own prefixes: pools, smarthosts, mail hosts, and what is written
    portal: tuple[str, ...]  # what a quarantined subscriber may open in a browser
    resolvers: tuple[str, ...]
    most: int  # subscribers acted against at once, in total
    hours: int  # the longest action; what is not renewed until then ends
    inbound_minutes: int  # the longest black-holing of somebody else's address
    dry_run: bool
    state: str = field(repr=False)  # a path, or the DSN of a PostgreSQL with its password

    @property
    def limit(self) -> int:
        """How many subscribers may be acted against, in one run and in total."""
        return min(self.most, self.subscribers // SHARE)


def read_signals(
    data: object, policy: Policy | None, mail: MailPolicy | None
) -> tuple[SignalsPolicy | None, list[Problem]]:
    """The value of `isp_signals`, with what the other two variables add to it where they could be read.

    None instead of a policy when there is any problem; all of them are returned.
    """
    problems = Problems()
    path: Path = ("isp_signals",)
    if not isinstance(data, Mapping):
        problems.add(path, f"is {kind_of(data)}, not a mapping", "write it as docs/policy.md shows")
        return None, problems
    tree = read_mapping(data, path, problems, KEYS["signals"], _REQUIRED["signals"])
    never = _never(tree, path, problems)
    limits = _limits(tree.get("limits", {}), (*path, "limits"), problems)
    addresses = read_mapping(tree.get("portal", {}), (*path, "portal"), problems, KEYS["portal"])
    portal = tuple(
        _address(addresses[key], (*path, "portal", key), problems, family)
        for key, family in FAMILIES.items()
        if key in addresses
    )
    resolvers = tuple(_address(item, where, problems) for where, item in read_list(tree, "resolvers", path, problems))
    signals = SignalsPolicy(
        subscribers=read_number(tree, "subscribers", 1, path, problems),
        never=(
            *never,
            *_shared(tree, path, problems),
            *_own(policy, mail),
            *_hosts(portal, "portal of the quarantine"),
            *_hosts(resolvers, "own resolver"),
            *_hosts(ROOT_SERVERS, "DNS root server"),
        ),
        watched=(*_pools(policy), *_servers(policy, mail), *_prefixes(tree, "watched", path, problems)),
        portal=portal,
        resolvers=resolvers,
        dry_run=read_flag(tree.get("dry_run", True), (*path, "dry_run"), problems),
        state=_state(tree.get("state", STATE), (*path, "state"), problems),
        **limits,
    )
    if not problems and not signals.limit:
        problems.add(
            (*path, "subscribers"),
            f"of {signals.subscribers} nobody may be acted against: the limit is one of {SHARE}",
            "count all customers; with fewer leave isp_signals out, and act by hand",
        )
    return (None if problems else signals), problems


def signals_host(signals: SignalsPolicy, policy: Policy) -> dict[str, Any]:
    """The policies as plain data for the templates and the modules of a host."""
    lists = {name: list(getattr(signals, name)) for name in ("watched", "portal", "resolvers")}
    return (
        asdict(signals)
        | lists
        | {
            "never": [asdict(one) for one in signals.never],
            "limit": signals.limit,
            "pools": {
                pool.name: {"kind": pool.kind, "prefixes": [*pool.ipv4, *pool.ipv6]} for pool in policy.pools.values()
            },
            "smarthosts": [prefix for one in policy.smarthosts for prefix in (*one.ipv4, *one.ipv6)],
        }
    )


def _never(tree: Mapping[str, object], path: Path, problems: Problems) -> list[Protected]:
    found = []
    mend = "list your servers, routers and BGP peers: with an empty list nothing is ever done"
    for place, item in read_list(tree, "never", path, problems, mend):
        entry = read_mapping(item, place, problems, KEYS["never"], _REQUIRED["never"])
        prefix = read_network(entry["prefix"], (*place, "prefix"), problems) if "prefix" in entry else None
        reason = read_text(entry["reason"], (*place, "reason"), problems) if "reason" in entry else ""
        if prefix:
            found.append(Protected(str(prefix), reason))
    return found


def _shared(tree: Mapping[str, object], path: Path, problems: Problems) -> list[Protected]:
    return [Protected(prefix, "CGN: many subscribers") for prefix in _prefixes(tree, "cgn", path, problems)]


def _own(policy: Policy | None, mail: MailPolicy | None) -> list[Protected]:
    """What the policy says by itself: its servers, and the customers that it excepts."""
    exceptions = policy.exceptions if policy else ()
    return [Protected(prefix, "own mail server") for prefix in _servers(policy, mail)] + [
        Protected(one.prefix, f"exempt until {one.until}: {one.owner}") for one in exceptions
    ]


def _hosts(addresses: Iterable[str], reason: str) -> list[Protected]:
    return [Protected(str(ipaddress.ip_network(address)), reason) for address in addresses if address]


def _pools(policy: Policy | None) -> list[str]:
    pools = policy.pools.values() if policy else ()
    return [prefix for pool in pools for prefix in (*pool.ipv4, *pool.ipv6)]


def _servers(policy: Policy | None, mail: MailPolicy | None) -> list[str]:
    smarthosts = policy.smarthosts if policy else ()
    hosts = (*mail.inbound, *mail.outbound) if mail else ()
    found = [prefix for one in smarthosts for prefix in (*one.ipv4, *one.ipv6)]
    found += [str(ipaddress.ip_network(address)) for host in hosts for address in host.addresses]
    return list(dict.fromkeys(found))


def _prefixes(tree: Mapping[str, object], key: str, path: Path, problems: Problems) -> list[str]:
    found = [read_network(item, where, problems) for where, item in read_list(tree, key, path, problems)]
    return [str(prefix) for prefix in found if prefix]


def _limits(data: object, path: Path, problems: Problems) -> dict[str, int]:
    tree = read_mapping(data, path, problems, KEYS["limits"])
    highest = {"most": MOST, "hours": HOURS, "inbound_minutes": INBOUND_MINUTES}
    return {key: read_number(tree, key, limit, path, problems, highest=limit) for key, limit in highest.items()}


def _address(data: object, path: Path, problems: Problems, family: int = 0) -> str:
    text = read_text(data, path, problems)
    if not text:
        return ""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        problems.add(path, f"{shown(text)} is not an IP address", "write one address without a length")
        return ""
    if "%" in text or (family and address.version != family):
        example = "2001:db8:ffff::80" if family == 6 else "192.0.2.80"
        problems.add(path, f"{text} is not an IPv{family or '4 or IPv6'} address", f"write one as {example}")
    return str(address)


def _state(data: object, path: Path, problems: Problems) -> str:
    mend = f"write a whole path, as {STATE}, or postgresql://user@host/database"
    if not isinstance(data, str):
        problems.add(path, f"is {kind_of(data)}, not a text", mend)
    elif not data.startswith(("/", "postgresql://")):
        problems.add(path, "is neither a whole path nor the address of a PostgreSQL", mend)  # never shown
    else:
        return plain(data)
    return STATE
