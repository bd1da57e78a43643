# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the tests of the platforms with an industry-standard CLI share: random rules, packets and texts."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path

import jinja2
from hypothesis import strategies as st

from ansible_collections.isp.hardening.plugins.module_utils.packets import PROTOCOLS, Packet
from ansible_collections.isp.hardening.plugins.module_utils.rules import Rule, RuleSet

TEMPLATES = Path(__file__).resolve().parents[2] / "roles" / "edge_filter" / "templates"
# Few values that meet and miss each other often.
PREFIXES = {
    4: ("0.0.0.0/0", "198.51.100.0/24", "198.51.100.0/25", "198.51.100.7/32", "192.0.2.25/32", "203.0.113.0/28"),
    6: ("::/0", "2001:db8:100::/40", "2001:db8:100::/48", "2001:db8:100::7/128", "2001:db8:ffff::25/128", "fe80::/10"),
}
PORTS = (0, 22, 24, 25, 26, 53, 135, 137, 138, 139, 140, 445, 1023, 1024, 65535)


def renderer(name: str) -> jinja2.Template:
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string((TEMPLATES / f"{name}.j2").read_text())


@st.composite
def rules(draw: st.DrawFn, family: int, undetermined: bool) -> Rule:
    """Any rule that the policy can lead to. `undetermined`: one on incomplete header chains too."""
    if undetermined and draw(st.integers(0, 9)) == 0:
        return Rule("deny", undetermined=True, comment="strict")
    icmp = "icmp" if family == 4 else "icmp6"
    protocol = draw(st.sampled_from(("", "tcp", "tcp", "udp", icmp, "esp", "gre")))
    prefixes = st.lists(st.sampled_from(PREFIXES[family]), max_size=2, unique=True).map(tuple)
    ranges = st.lists(
        st.tuples(st.sampled_from(PORTS), st.sampled_from(PORTS)).map(lambda ends: (min(ends), max(ends))), max_size=2
    ).map(tuple)
    ports = protocol in ("tcp", "udp")
    later = draw(st.booleans()) and draw(st.booleans())
    types = st.lists(st.tuples(st.sampled_from((1, 3, 8, 128, 136)), st.sampled_from((None, 0, 4))), max_size=2)
    return Rule(
        draw(st.sampled_from(("permit", "deny"))),
        protocol,
        draw(prefixes),
        draw(prefixes),
        draw(ranges) if ports and not later else (),
        draw(ranges) if ports and not later else (),
        tuple(draw(types)) if protocol == icmp and not later else (),
        later_fragments=later,
        comment=draw(st.sampled_from(("", "P1 port 25 egress", "an operator's own\nterm: 100 % plain"))),
    )


@st.composite
def rule_sets(draw: st.DrawFn, family: int, undetermined: bool = False) -> RuleSet:
    body = draw(st.lists(rules(family, undetermined), max_size=6))
    last = Rule(draw(st.sampled_from(("permit", "deny"))), comment="everything else")
    return RuleSet(f"ISP-UP{family}-0badcafe", family, "up", (*body, last))


@st.composite
def packets(draw: st.DrawFn, family: int, plain: bool) -> dict[str, int]:
    """A packet; a plain one is whole and has no extension header."""
    inside = draw(st.sampled_from(PREFIXES[family])), draw(st.sampled_from(PREFIXES[family]))
    offset = draw(st.sampled_from((0, 7, 129)))
    networks = [ipaddress.ip_network(text) for text in inside]
    source, destination = (int(one[min(offset, one.num_addresses - 1)]) for one in networks)
    port = st.sampled_from(PORTS)
    extension = 0 if plain or family == 4 else draw(st.integers(0, 5))
    fragment = 0 if plain or (family == 6 and extension != 3) else draw(st.sampled_from((0, 1, 2, 3)))
    whole = plain or family == 4 or fragment & 0b10  # a later fragment has no header chain that could be cut short
    return {
        "protocol": draw(st.sampled_from((6, 6, 17, 1 if family == 4 else 58, 50, 47, 89))),
        "source": source, "destination": destination, "source_port": draw(port), "destination_port": draw(port),
        "icmp_type": draw(st.sampled_from((0, 1, 3, 8, 128, 136))), "icmp_code": draw(st.sampled_from((0, 1, 4))),
        "tcp_flags": draw(st.integers(0, 63)), "extension": extension, "state": 0, "tos": 0, "ttl": 64, "length": 60,
        "fragment": fragment, "undetermined": 0 if whole else draw(st.integers(0, 1)), "options": 0,
    }  # fmt: skip


def meaning(rule_set: RuleSet, packet: Packet, later_on_layer3: bool) -> str:
    """What the rules want, read naively. `later_on_layer3`: a permit with ports takes later fragments, as on IOS."""
    return next(rule.action for rule in rule_set.rules if _fits(rule, packet, rule_set.family, later_on_layer3))


def _fits(rule: Rule, packet: Packet, family: int, later_on_layer3: bool) -> bool:
    if rule.protocol and packet["protocol"] != PROTOCOLS[rule.protocol]:
        return False
    for side, prefixes in (("source", rule.sources), ("destination", rule.destinations)):
        address = (ipaddress.IPv4Address if family == 4 else ipaddress.IPv6Address)(packet[side])
        if prefixes and not any(address in ipaddress.ip_network(text) for text in prefixes):
            return False
    later = packet["fragment"] >= 2
    if (rule.later_fragments and not later) or (rule.undetermined and (later or not packet["undetermined"])):
        return False
    if not (rule.source_ports or rule.destination_ports or rule.icmp):
        return True
    if later:
        return later_on_layer3 and rule.action == "permit"
    if packet["undetermined"]:
        return False
    return (
        _within(packet["source_port"], rule.source_ports)
        and _within(packet["destination_port"], rule.destination_ports)
        and (not rule.icmp or any(_icmp(packet, *one) for one in rule.icmp))
    )


def _within(port: int, ranges: tuple[tuple[int, int], ...]) -> bool:
    return not ranges or any(low <= port <= high for low, high in ranges)


def _icmp(packet: Mapping[str, int], kind: int, code: int | None) -> bool:
    return packet["icmp_type"] == kind and code in (None, packet["icmp_code"])


WORDS = (
    "permit deny tcp udp ip ipv6 icmp any host 192.0.2.1 0.0.0.255 2001:db8::/32 eq range neq gt 25 smtp 65536 -1 "
    "established fragments log object-group G match-all +syn -ack time-range dscp ef ttl remark no sequence 10 "
    "evaluate dynamic reflect undetermined-transport routing option vlan interface access-list access-group extended "
    "standard A 101 in out address unnumbered route local pool banner motd ^C exit service instance peer default "
    "verify unicast source reachable-via rx network template Ethernet1 ! \u00b2 \x00"
).split()


def texts() -> st.SearchStrategy[str]:
    """Text that looks like a configuration and is none, or no text at all."""
    line = st.builds(
        lambda indent, words: " " * indent + " ".join(words),
        st.integers(0, 2),
        st.lists(st.sampled_from(WORDS), max_size=9),
    )
    return st.one_of(st.text(max_size=200), st.lists(line, max_size=25).map("\n".join))
