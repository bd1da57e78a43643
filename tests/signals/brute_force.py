# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The what-if by brute force: every packet that a flow may be, through both sides, by the naive evaluator."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from ansible_collections.isp.hardening.plugins.module_utils.difference import Side
from ansible_collections.isp.hardening.plugins.module_utils.filters import DENY, PERMIT, evaluate
from ansible_collections.isp.hardening.plugins.module_utils.packets import Packet
from ansible_collections.isp.hardening.plugins.module_utils.signals._impact_judge import (
    CERTAIN,
    DENIED,
    PERMITTED,
    SEEN,
    Place,
    packet,
    proved,
)


def outcome(
    place: Place, sides: Sequence[Side], protocol: int, ports: tuple[int, int], addresses: tuple[int, int], flags: int
) -> int:
    """As Judge has it. `sides` are those of the place, as flow records show them."""
    make = ipaddress.IPv4Address if place.family == 4 else ipaddress.IPv6Address
    own = make(addresses[0] if place.direction == "up" else addresses[1])
    if place.subscribers and not any(own in ipaddress.ip_network(one) for one in place.subscribers):
        return 0
    outcomes = set()
    for alternative in proved(protocol, *ports, flags):
        fates = [
            [possible(side, place.family, packet(kind, protocol, ports, addresses)) for side in sides]
            for kind in alternative
        ]
        if all(len(was) == 1 and was == now for was, now in fates):
            outcomes.add(0)
            continue
        was, now = (
            {action for action, some in ((PERMIT, all), (DENY, any)) if some(action in one[side] for one in fates)}
            for side in (0, 1)
        )
        found = (PERMIT in was and DENY in now) * DENIED | (DENY in was and PERMIT in now) * PERMITTED
        outcomes.add(found | CERTAIN * (len(was) == len(now) == 1 and was != now))
    every = 0
    for one in outcomes:
        every |= one
    return SEEN | (every if len(outcomes) == 1 else every & (DENIED | PERMITTED))


def possible(side: Side, family: int, header: Packet) -> set[str]:
    """What may happen to a packet."""
    actions = {PERMIT}
    for name in side.filters:
        here, _ = evaluate(side.configuration, family, name, header)
        actions = actions - {PERMIT} | here
        if PERMIT not in here:
            break
    return actions
