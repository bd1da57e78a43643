# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From the policy to the rules of a filter, vendor-neutral. What they must achieve is in obligations.py, apart.

The order inside a filter matters, because every permit is a hole for what comes below it: first what both
profiles deny outright, then the controls whose exceptions cannot meet port 25 coming back, then the return path
(P2), whose permit for the smarthosts would otherwise hide the other denies, and last the source validation (P8).
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .policy import Attachment, Policy, Pool, Smarthost, Term

Ranges = tuple[tuple[int, int], ...]

SMTP: Ranges = ((25, 25),)
NOT_SMTP: Ranges = ((0, 24), (26, 65535))
NETBIOS: Ranges = ((135, 135), (137, 139), (445, 445))
RPC_OVER_HTTP: Ranges = ((593, 593),)
MESSENGER: Ranges = ((1025, 1029),)
SSDP: Ranges = ((1900, 1900),)


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of a filter. Empty means any; prefixes are text, port ranges have both ends in them."""

    action: str  # "permit" | "deny"
    protocol: str = ""  # a name of packets.PROTOCOLS
    sources: tuple[str, ...] = ()
    destinations: tuple[str, ...] = ()
    source_ports: Ranges = ()
    destination_ports: Ranges = ()
    icmp: tuple[tuple[int, int | None], ...] = ()  # type and code, None for every code
    later_fragments: bool = False  # only fragments behind the first
    undetermined: bool = False  # only packets whose header chain is incomplete (RFC 7112)
    comment: str = ""


@dataclass(frozen=True, slots=True)
class RuleSet:
    """What becomes one filter. The last rule always matches everything."""

    name: str
    family: int
    direction: str  # "up" | "down"
    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class Bind:
    attachment: str
    direction: str
    family: int
    filter: str


@dataclass(frozen=True, slots=True)
class Change:
    """The filters to create and every place to bind them."""

    filters: tuple[RuleSet, ...]
    binds: tuple[Bind, ...]


def compile_change(policy: Policy, attachments: Sequence[Attachment], per_attachment: bool = False) -> Change:
    """The filters for these attachments, each content once, and their bindings in both directions and families.

    `per_attachment`: no two attachments share a filter.
    """
    filters: dict[str, RuleSet] = {}
    binds = []
    for attachment in attachments:
        pools = [policy.pools[name] for name in attachment.pools]
        for family in (4, 6):
            if not any(pool.prefixes(family) for pool in pools):
                continue
            for direction in ("up", "down"):
                rules = tuple(_upward(policy, pools, family) if direction == "up" else _downward(policy, pools, family))
                # The name is the content's, so a filter is never edited in place: the old one stays whole until
                # nothing refers to it.
                content = repr((attachment.name, rules) if per_attachment else rules)
                name = f"ISP-{direction.upper()}{family}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"
                filters[name] = RuleSet(name, family, direction, rules)
                binds.append(Bind(attachment.name, direction, family, name))
    return Change(tuple(filters.values()), tuple(binds))


# The controls that deny one service to everybody: protocols, destination ports, what a router shows beside the line.
_SERVICES = {
    "P4": (("tcp", "udp"), NETBIOS, "P4 NetBIOS, SMB, RPC"),
    "P5": (("tcp",), RPC_OVER_HTTP, "P5 RPC over HTTP"),
    "P6": (("udp",), MESSENGER, "P6 Messenger"),
    "P7": (("udp",), SSDP, "P7 SSDP"),
    "P3": (("tcp",), SMTP, "P3 port 25 to the pool"),
}


def _upward(policy: Policy, pools: Sequence[Pool], family: int) -> Iterator[Rule]:
    own = _prefixes(pools, family)
    smarthosts = _prefixes(policy.smarthosts, family)
    yield from _terms(policy.before, "up", family)
    yield from _strict(policy, family)
    for control in ("P4", "P5", "P7"):
        covered = _covered(policy, control, pools, family)
        if covered is not None:
            protocols, ports, title = _SERVICES[control]
            for protocol in protocols:
                for prefix in _excepted(policy, control, own, family):
                    yield Rule("permit", protocol, (prefix,), destination_ports=ports, comment=f"{title}: exception")
                yield Rule("deny", protocol, covered, destination_ports=ports, comment=title)
    covered = _covered(policy, "P1", pools, family)
    if covered is not None:
        if smarthosts:
            yield Rule("permit", "tcp", own, smarthosts, destination_ports=SMTP, comment="P1 to the smarthosts")
        for prefix in _excepted(policy, "P1", own, family):
            yield Rule("permit", "tcp", (prefix,), destination_ports=SMTP, comment="P1 exception")
        yield Rule("deny", "tcp", covered, destination_ports=SMTP, comment="P1 port 25 egress")
    yield from _terms(policy.after, "up", family)
    if _covered(policy, "P8", pools, family) is None:
        yield Rule("permit", comment="everything else")
        return
    yield Rule("permit", "", own, comment="P8 the pools' own sources")
    if family == 4:
        yield Rule("permit", "udp", ("0.0.0.0/32",), destination_ports=((67, 67),), comment="P10 DHCP")
    else:
        yield Rule("permit", "", ("fe80::/10",), comment="P10 link-local: ND, DHCPv6")
        yield Rule("permit", "icmp6", ("::/128",), comment="P10 duplicate address detection")
    yield Rule("deny", comment="P8 source validation")


def _downward(policy: Policy, pools: Sequence[Pool], family: int) -> Iterator[Rule]:
    own = _prefixes(pools, family)
    smarthosts = _prefixes(policy.smarthosts, family)
    return_path = _covered(policy, "P2", pools, family)
    return_excepted = _excepted(policy, "P2", own, family)
    yield from _terms(policy.before, "down", family)
    yield from _strict(policy, family)
    for control, (protocols, ports, title) in _SERVICES.items():
        covered = _covered(policy, control, pools, family)
        if covered is not None:
            for protocol in protocols:
                for prefix in _excepted(policy, control, own, family):
                    # An exception from this control is none from the return path: source port 25 stays out of it.
                    bounded = protocol == "tcp" and return_path is not None and prefix not in return_excepted
                    sources = NOT_SMTP if bounded else ()
                    yield Rule("permit", protocol, (), (prefix,), sources, ports, comment=f"{title}: exception")
                yield Rule("deny", protocol, (), covered, destination_ports=ports, comment=title)
    if return_path is not None:
        if smarthosts:
            yield Rule("permit", "tcp", smarthosts, own, SMTP, comment="P2 from the smarthosts")
        for prefix in return_excepted:
            yield Rule("permit", "tcp", (), (prefix,), SMTP, comment="P2 exception")
        yield Rule("deny", "tcp", (), return_path, SMTP, comment="P2 port 25 return path")
    yield from _terms(policy.after, "down", family)
    yield Rule("permit", comment="everything else")


def _strict(policy: Policy, family: int) -> Iterator[Rule]:
    if policy.profile == "strict":
        yield Rule("deny", "tcp", later_fragments=True, comment="strict: TCP is not fragmented")
        if family == 6:
            yield Rule("deny", undetermined=True, comment="strict: incomplete header chain")


def _prefixes(owners: Sequence[Pool | Smarthost], family: int) -> tuple[str, ...]:
    return tuple(prefix for owner in owners for prefix in owner.prefixes(family))


def _covered(policy: Policy, control: str, pools: Sequence[Pool], family: int) -> tuple[str, ...] | None:
    """The prefixes that the control covers: () for any address when it covers all pools, None when it covers none."""
    setting = policy.controls[control]
    covered = [pool for pool in pools if setting.enabled and pool.kind in setting.kinds]
    if len(covered) == len(pools):
        return ()
    return _prefixes(covered, family) or None


def _excepted(policy: Policy, control: str, own: tuple[str, ...], family: int) -> tuple[str, ...]:
    """The excepted prefixes that lie in the attachment's own."""
    return tuple(
        exception.prefix
        for exception in policy.exceptions
        if control in exception.controls and exception.family == family
        and any(_within(exception.prefix, prefix) for prefix in own)
    )  # fmt: skip


def _within(inner: str, outer: str) -> bool:
    one, other = ipaddress.ip_network(inner), ipaddress.ip_network(outer)
    return one.version == other.version and one.subnet_of(other)  # type: ignore[arg-type]


def _terms(terms: Sequence[Term], direction: str, family: int) -> Iterator[Rule]:
    return (term.rule for term in terms if direction in term.directions and family in term.families)
