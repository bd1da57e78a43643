# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From the policy to what must hold: packet sets that must be denied, or must be permitted, on an attachment.

Compiled apart from rules.py, on purpose: a mistake there shows here. One obligation per attachment x pool x
direction x family x control. The must-deny sets hold every header that does harm (any TCP flags, any connection
state, first fragments, IPv6 extension headers in front); the must-permit sets hold ordinary packets only, so that a
filter which drops oddities is not blamed. Sources of the controls: controls.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from .filters import DENY, PERMIT
from .packets import (
    INITIAL,
    LATER_FRAGMENT,
    PROTOCOLS,
    STATES,
    Alternatives,
    Match,
    complement,
    exactly,
    intersection,
    prefix,
    span,
    union,
)
from .policy import Attachment, Policy, Pool

TCP, UDP = PROTOCOLS["tcp"], PROTOCOLS["udp"]
# What is usual comes first in a union: witnesses are made of it.
_EPHEMERAL = span(49152, 65535, 16) + span(1024, 49151, 16)
_MESSENGER, _SSDP = span(1025, 1029, 16), exactly(1900, 16)
# Who may be at the other end of an ordinary exchange: unicast that is neither private nor special (RFC 6890, 4291),
# because a filter that drops bogons is right. Documentation prefixes stay: labs live in them.
_BOGONS = (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16",
    "198.18.0.0/15", "224.0.0.0/3",
)  # fmt: skip
_PUBLIC = {
    4: prefix("203.0.0.0/8", 4) + complement(union(*(prefix(text, 4) for text in _BOGONS)), 32),
    6: prefix("2000::/3", 6),
}
# Which end of the packet the subscriber is, and the other one.
_ENDS = {"up": ("source", "destination"), "down": ("destination", "source")}
# No packet: an IPv6 fragment without a fragment header in front.
_NOT_IPV6: Match = {"fragment": ((1, 1), (2, 2)), "extension": exactly(0, 3)}


@dataclass(frozen=True, slots=True)
class Obligation:
    """Every packet of `scope` that is in none of `exempt` must be denied (or permitted) there."""

    control: str
    attachment: str
    pool: str  # "" when it concerns all pools of the attachment together
    direction: str  # "up" | "down"
    family: int
    must: str  # filters.DENY | filters.PERMIT
    scope: tuple[Match, ...]
    exempt: tuple[Match, ...]
    title: str


@dataclass(frozen=True, slots=True)
class _Demand:
    """An obligation before it is told where it holds."""

    must: str
    scope: Sequence[Match]
    exempt: Sequence[Match]
    title: str


def obligations(policy: Policy, attachment: Attachment, link_local: bool) -> list[Obligation]:
    """All that the policy demands of one attachment.

    `link_local`: the platform's filters see link-local traffic (an interface ACL does, a forward chain does not).
    """
    pools = [policy.pools[name] for name in attachment.pools]
    found = []
    for family in (4, 6):
        inside = [pool for pool in pools if pool.prefixes(family)]
        if not inside:
            continue
        for direction in ("up", "down"):
            for control, setting in policy.controls.items():
                for pool in inside:
                    if setting.enabled and pool.kind in setting.kinds and control != "P8":
                        demands = _DEMANDS[control](policy, pool, direction, family)
                        found += [
                            _place(demand, control, attachment, pool.name, direction, family) for demand in demands
                        ]
                if control == "P8" and setting.enabled and direction == "up" and _all_covered(setting.kinds, inside):
                    demand = _source_validation(inside, family)
                    found.append(_place(demand, control, attachment, "", direction, family))
            if family == 6 and direction == "up" and link_local and policy.controls["P10"].enabled:
                found.append(_place(_neighbour_discovery(), "P10", attachment, "", direction, family))
    return found


_Compile = Callable[["Policy", "Pool", str, int], Iterator[_Demand]]


def _place(demand: _Demand, control: str, attachment: Attachment, pool: str, direction: str, family: int) -> Obligation:
    exempt = tuple(demand.exempt) + ((_NOT_IPV6,) if family == 6 else ())
    return Obligation(
        control, attachment.name, pool, direction, family, demand.must, tuple(demand.scope), exempt, demand.title
    )


def _all_covered(kinds: Sequence[str], pools: Sequence[Pool]) -> bool:
    return all(pool.kind in kinds for pool in pools)


def _addresses(prefixes: Sequence[str], family: int) -> Alternatives:
    return union(*(prefix(text, family) for text in prefixes))


def _smarthosts(policy: Policy, family: int) -> Alternatives:
    return _addresses([text for smarthost in policy.smarthosts for text in smarthost.prefixes(family)], family)


def _exceptions(policy: Policy, control: str, family: int) -> list[str]:
    return [one.prefix for one in policy.exceptions if control in one.controls and one.family == family]


def _excepted_in(policy: Policy, control: str, pool: Pool, family: int) -> list[str]:
    """The excepted prefixes inside the pool."""
    own = _addresses(pool.prefixes(family), family)
    inside = []
    for text in _exceptions(policy, control, family):
        value, mask = prefix(text, family)[0]
        if any(value & care == one and care & ~mask == 0 for one, care in own):
            inside.append(text)
    return inside


def _harmful(protocol: int, field: str, ports: Alternatives, subscriber: str, pool: Alternatives) -> Match:
    return {"protocol": exactly(protocol, 8), field: ports, subscriber: pool, **INITIAL}


def _ordinary(family: int, protocol: int, **fields: Alternatives) -> Match:
    """Packets as hosts send them: whole, no options, of usual size and TTL, between public addresses."""
    return {
        "source": _PUBLIC[family], "destination": _PUBLIC[family],
        "protocol": exactly(protocol, 8), "fragment": exactly(0, 2), "undetermined": exactly(0, 1),
        "extension": exactly(0, 3), "options": exactly(0, 1), "ttl": span(64, 127, 8) + span(32, 63, 8),
        "length": exactly(60, 16) + span(40, 1500, 16),
        "tos": exactly(0, 8), **fields,
    }  # fmt: skip


def _conversation(family: int, protocol: int, client: bool, **fields: Alternatives) -> list[Match]:
    """What a client (or the server that answers it) sends in an ordinary exchange, connection tracking or not."""
    established = exactly(STATES["established"], 3)
    if protocol != TCP:
        states = union(exactly(STATES["new"], 3), established) if client else established
        return [_ordinary(family, protocol, state=states, **fields)]
    syn, rest = exactly(0x02 if client else 0x12, 8), union(exactly(0x10, 8), exactly(0x18, 8), exactly(0x11, 8))
    opening = exactly(STATES["new"], 3) if client else established
    return [
        _ordinary(family, TCP, tcp_flags=syn, state=opening, **fields),
        _ordinary(family, TCP, tcp_flags=rest, state=established, **fields),
    ]


def _client_ports(policy: Policy, protocol: int) -> Alternatives:
    """Where clients listen for answers, less what the policy takes from them on purpose (P6, P7)."""
    taken: Alternatives = ()
    if protocol == UDP:
        taken += _MESSENGER if policy.controls["P6"].enabled else ()
        taken += _SSDP if policy.controls["P7"].enabled else ()
    return intersection(_EPHEMERAL, complement(taken, 16)) if taken else _EPHEMERAL


def _port_25_egress(policy: Policy, pool: Pool, direction: str, family: int) -> Iterator[_Demand]:
    if direction == "down":
        return
    own, smarthosts = _addresses(pool.prefixes(family), family), _smarthosts(policy, family)
    exempt: list[Match] = [{"destination": smarthosts}] if smarthosts else []
    exempt += [{"source": prefix(text, family)} for text in _exceptions(policy, "P1", family)]
    harmful = _harmful(TCP, "destination_port", exactly(25, 16), "source", own)
    yield _Demand(DENY, [harmful], exempt, "TCP to port 25 is denied, but to the smarthosts")
    yield from _strict(policy, pool, direction, family)
    usual = {"source_port": _EPHEMERAL, "destination_port": exactly(25, 16)}
    if smarthosts:
        scope = _conversation(family, TCP, True, source=own, destination=smarthosts, **usual)
        yield _Demand(PERMIT, scope, (), "TCP to port 25 of the smarthosts is permitted")
    for text in _excepted_in(policy, "P1", pool, family):
        scope = _conversation(family, TCP, True, source=prefix(text, family), **usual)
        yield _Demand(PERMIT, scope, (), f"TCP to port 25 is permitted from {text}, which is excepted")


def _port_25_return(policy: Policy, pool: Pool, direction: str, family: int) -> Iterator[_Demand]:
    if direction == "up":
        return
    own, smarthosts = _addresses(pool.prefixes(family), family), _smarthosts(policy, family)
    exempt: list[Match] = [{"source": smarthosts}] if smarthosts else []
    exempt += [{"destination": prefix(text, family)} for text in _exceptions(policy, "P2", family)]
    harmful = _harmful(TCP, "source_port", exactly(25, 16), "destination", own)
    yield _Demand(DENY, [harmful], exempt, "TCP from port 25 is denied, but from the smarthosts")
    yield from _strict(policy, pool, direction, family)
    usual = {"source_port": exactly(25, 16), "destination_port": _EPHEMERAL}
    if smarthosts:
        scope = _conversation(family, TCP, False, source=smarthosts, destination=own, **usual)
        yield _Demand(PERMIT, scope, (), "answers from port 25 of the smarthosts are permitted")
    for text in _excepted_in(policy, "P2", pool, family):
        scope = _conversation(family, TCP, False, destination=prefix(text, family), **usual)
        yield _Demand(PERMIT, scope, (), f"answers from port 25 are permitted to {text}, which is excepted")


def _port_25_to_pool(policy: Policy, pool: Pool, direction: str, family: int) -> Iterator[_Demand]:
    if direction == "up":
        return
    exempt = [{"destination": prefix(text, family)} for text in _exceptions(policy, "P3", family)]
    own = _addresses(pool.prefixes(family), family)
    harmful = _harmful(TCP, "destination_port", exactly(25, 16), "destination", own)
    yield _Demand(DENY, [harmful], exempt, "TCP to port 25 of the pool is denied")
    usual = {"source_port": _EPHEMERAL, "destination_port": exactly(25, 16)}
    for text in _excepted_in(policy, "P3", pool, family):
        scope = _conversation(family, TCP, True, destination=prefix(text, family), **usual)
        yield _Demand(PERMIT, scope, (), f"TCP to port 25 of {text} is permitted, which is excepted")


def _service(control: str, protocols: Sequence[int], ports: Alternatives, title: str, directions: str) -> _Compile:
    """A control that denies destination ports to or from every address of the pool."""

    def compile_service(policy: Policy, pool: Pool, direction: str, family: int) -> Iterator[_Demand]:
        if direction not in directions.split():
            return
        subscriber, _ = _ENDS[direction]
        own = _addresses(pool.prefixes(family), family)
        scope = [_harmful(protocol, "destination_port", ports, subscriber, own) for protocol in protocols]
        exempt = [{subscriber: prefix(text, family)} for text in _exceptions(policy, control, family)]
        yield _Demand(DENY, scope, exempt, f"{title} is denied")

    return compile_service


def _source_validation(pools: Sequence[Pool], family: int) -> _Demand:
    own = _addresses([text for pool in pools for text in pool.prefixes(family)], family)
    exempt: list[Match] = [{"source": own}]
    if family == 4:  # a DHCP client has no address yet (RFC 2131)
        dhcp = {"source": prefix("0.0.0.0", 4), "protocol": exactly(UDP, 8)}
        exempt += [{**dhcp, "destination_port": exactly(67, 16)}, {**dhcp, "fragment": LATER_FRAGMENT}]
    else:  # link-local packets are never forwarded (RFC 4291); duplicate address detection has no source (RFC 4862)
        exempt.append({"source": prefix("fe80::/10", 6)})
        exempt.append({"source": prefix("::", 6), "protocol": exactly(PROTOCOLS["icmp6"], 8)})
        # Neighbour discovery that was forwarded is dropped by whoever gets it: its hop limit is not 255 (RFC 4861).
        exempt.append({"protocol": exactly(PROTOCOLS["icmp6"], 8), "icmp_type": span(133, 137, 8), **INITIAL})
    return _Demand(DENY, [{}], exempt, "sources that are not of the attachment's pools are denied")


def _submission(_policy: Policy, pool: Pool, direction: str, family: int) -> Iterator[_Demand]:
    ports = union(*(exactly(port, 16) for port in (465, 587, 993, 995)))
    own = _addresses(pool.prefixes(family), family)
    subscriber, _ = _ENDS[direction]
    near, far = ("source_port", "destination_port") if direction == "up" else ("destination_port", "source_port")
    scope = _conversation(family, TCP, direction == "up", **{subscriber: own, near: _EPHEMERAL, far: ports})
    what = "TCP to ports 465, 587, 993, 995" if direction == "up" else "answers from TCP ports 465, 587, 993, 995"
    yield _Demand(PERMIT, scope, (), f"{what} {'is' if direction == 'up' else 'are'} permitted")


def _network_works(policy: Policy, pool: Pool, direction: str, family: int) -> Iterator[_Demand]:
    subscriber, _ = _ENDS[direction]
    near, far = ("source_port", "destination_port") if direction == "up" else ("destination_port", "source_port")
    own, upward = {subscriber: _addresses(pool.prefixes(family), family)}, direction == "up"
    related = exactly(STATES["related"], 3)
    if family == 4:  # RFC 1191: fragmentation needed
        icmp = _ordinary(family, 1, icmp_type=exactly(3, 8), icmp_code=exactly(4, 8), state=related, **own)
        yield _Demand(PERMIT, [icmp], (), "ICMP fragmentation needed is permitted")
    else:  # RFC 4890: packet too big must not be dropped
        icmp = _ordinary(family, 58, icmp_type=exactly(2, 8), icmp_code=exactly(0, 8), state=related, **own)
        yield _Demand(PERMIT, [icmp], (), "ICMPv6 packet too big is permitted")
    yield _Demand(PERMIT, _conversation(family, PROTOCOLS["esp"], upward, **own), (), "ESP is permitted")
    key_exchange = union(exactly(500, 16), exactly(4500, 16))
    near_ports = union(_client_ports(policy, UDP), key_exchange)
    scope = _conversation(family, UDP, upward, **own, **{near: near_ports, far: key_exchange})
    yield _Demand(PERMIT, scope, (), "IKE (UDP 500, 4500) is permitted")
    dns = [
        match
        for protocol in (UDP, TCP)
        for match in _conversation(
            family, protocol, upward, **own, **{near: _client_ports(policy, protocol), far: exactly(53, 16)}
        )
    ]
    yield _Demand(PERMIT, dns, (), "DNS is permitted")


def _neighbour_discovery() -> _Demand:
    """RFC 4861 and 4890: router solicitation, neighbour solicitation and advertisement, on the link."""
    types = union(exactly(133, 8), exactly(135, 8), exactly(136, 8))
    on_link = union(prefix("fe80::/10", 6), prefix("ff02::/16", 6))
    # Hop limit 255 (RFC 4861, 6.1.1), which an ordinary packet does not have.
    scope = _ordinary(
        6, 58, icmp_type=types, icmp_code=exactly(0, 8), source=prefix("fe80::/10", 6), destination=on_link
    )
    scope = {**scope, "ttl": exactly(255, 8), "state": exactly(STATES["untracked"], 3)}
    return _Demand(PERMIT, [scope], (), "neighbour discovery is permitted")


def _strict(policy: Policy, pool: Pool, direction: str, family: int) -> Iterator[_Demand]:
    """Overlapping fragments and unfinished header chains hide the ports (RFC 3128, 7112)."""
    subscriber, _ = _ENDS[direction]
    own = {subscriber: _addresses(pool.prefixes(family), family)}
    if policy.profile == "strict":
        fragments: Match = {"protocol": exactly(TCP, 8), "fragment": LATER_FRAGMENT, **own}
        yield _Demand(DENY, [fragments], (), "TCP fragments behind the first are denied (strict)")
        if family == 6:
            incomplete: Match = {"undetermined": exactly(1, 1), "fragment": INITIAL["fragment"], **own}
            yield _Demand(DENY, [incomplete], (), "incomplete header chains are denied (strict)")


_DEMANDS: Mapping[str, _Compile] = {
    "P1": _port_25_egress,
    "P2": _port_25_return,
    "P3": _port_25_to_pool,
    "P4": _service(
        "P4",
        (TCP, UDP),
        union(exactly(135, 16), span(137, 139, 16), exactly(445, 16)),
        "NetBIOS, SMB and RPC",
        "up down",
    ),
    "P5": _service("P5", (TCP,), exactly(593, 16), "RPC over HTTP (TCP 593)", "up down"),
    "P6": _service("P6", (UDP,), _MESSENGER, "Messenger (UDP 1025-1029)", "down"),
    "P7": _service("P7", (UDP,), _SSDP, "SSDP (UDP 1900)", "up down"),
    "P9": _submission,
    "P10": _network_works,
}
