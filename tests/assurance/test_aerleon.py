# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One policy, rendered by Aerleon for every target of its that we parse, is the same packet set on all of them.

Aerleon is a generator that nobody here wrote. The policy itself is evaluated here, term by term, packet by packet. What
Aerleon writes differently for a target stands in QUIRKS, and each is shown to make a true difference.
"""

from __future__ import annotations

import functools
import ipaddress
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aerleon import api
from aerleon.lib import naming

from ansible_collections.isp.hardening.plugins.module_utils import platforms
from ansible_collections.isp.hardening.plugins.module_utils.filters import DENY, PERMIT, Configuration, evaluate
from ansible_collections.isp.hardening.plugins.module_utils.packets import PROTOCOLS, packet_text

# platform -> Aerleon's target and its options for IPv4 and IPv6
TARGETS = {
    "cisco_ios": ("cisco", "UP extended", "UP inet6"),
    "cisco_iosxr": ("ciscoxr", "UP", "UP inet6"),
    "cisco_nxos": ("cisconx", "UP", "UP inet6"),
    "arista_eos": ("arista", "UP", "UP inet6"),
    "juniper_junos": ("juniper", "UP inet", "UP inet6"),
    "linux_nftables": ("nftables", "inet forward", "inet6 forward"),
}
QUIRKS = {
    "linux_nftables": "accepts packets of state new only, and leaves `established` terms to its own first rule",
    "juniper_junos": "compares the first next-header of IPv6, which an extension header gets past",
    "cisco_ios, cisco_iosxr, cisco_nxos, arista_eos": "remove the list before they define it",
}
NETWORKS = {
    "POOL": ["198.51.100.0/25", "2001:db8:100::/40"],
    "SMARTHOSTS": ["192.0.2.25/32", "2001:db8:ffff::25/128"],
    "EXCEPTED": ["198.51.100.8/30", "2001:db8:100:8::/64"],
}
SERVICES = {
    "SMTP": [("tcp", "25")],
    "RPC": [("tcp", "593")],
    "WIDE": [("tcp", "1000-2000"), ("udp", "1000-2000")],
    "WINDOWS": [(protocol, ports) for protocol in ("tcp", "udp") for ports in ("135", "137-139", "445")],
}


@dataclass(frozen=True)
class Term:
    """What a term of the policy says, for Aerleon and for the reading here."""

    action: str = PERMIT
    protocols: tuple[str, ...] = ()
    source: str = ""
    destination: str = ""
    source_port: str = ""
    destination_port: str = ""
    options: tuple[str, ...] = ()
    only: frozenset[int] = field(default_factory=lambda: frozenset({4, 6}))  # families

    def written(self, name: str) -> dict[str, Any]:
        """As Aerleon takes it."""
        words = {
            "protocol": list(self.protocols), "source-address": self.source, "destination-address": self.destination,
            "source-port": self.source_port, "destination-port": self.destination_port, "option": list(self.options),
        }  # fmt: skip
        action = {"action": "accept" if self.action == PERMIT else "deny"}
        return {"name": name} | {word: value for word, value in words.items() if value} | action

    def fits(self, packet: dict[str, int], family: int) -> bool:
        if family not in self.only or (
            self.protocols and packet["protocol"] not in [PROTOCOLS[one.replace("v", "")] for one in self.protocols]
        ):
            return False
        for side, network in (("source", self.source), ("destination", self.destination)):
            if network and not _inside(packet[side], network, family):
                return False
        if "established" in self.options and not (packet["tcp_flags"] & 0b10100 and packet["destination_port"] > 1023):
            return False
        if "is-fragment" in self.options and packet["fragment"] < 2:
            return False
        return all(
            not service or _among(packet["protocol"], packet[side], service)
            for side, service in (("source_port", self.source_port), ("destination_port", self.destination_port))
        )


def _inside(address: int, network: str, family: int) -> bool:
    kind = ipaddress.IPv4Address if family == 4 else ipaddress.IPv6Address
    return any(kind(address) in ipaddress.ip_network(text) for text in NETWORKS[network])


def _among(protocol: int, port: int, service: str) -> bool:
    for name, ports in SERVICES[service]:
        low, _, high = ports.partition("-")
        if PROTOCOLS[name] == protocol and int(low) <= port <= int(high or low):
            return True
    return False


LAST = Term()
POLICIES: dict[str, tuple[Term, ...]] = {
    "port 25 egress": (
        Term(protocols=("tcp",), source="POOL", destination="SMARTHOSTS", destination_port="SMTP"),
        Term(protocols=("tcp",), source="EXCEPTED", destination_port="SMTP"),
        Term(DENY, ("tcp",), destination_port="SMTP"),
        LAST,
    ),
    "port 25 return path": (
        Term(protocols=("tcp",), source="SMARTHOSTS", destination="POOL", source_port="SMTP"),
        Term(DENY, ("tcp",), source_port="SMTP"),
        LAST,
    ),
    "NetBIOS and RPC": (
        Term(DENY, ("tcp", "udp"), destination_port="WINDOWS"),
        Term(DENY, ("tcp",), destination_port="RPC"),
        Term(source="POOL"),
        Term(DENY),
    ),
    "ranges on both sides": (
        Term(protocols=("tcp",), source_port="WIDE", destination_port="SMTP"),
        Term(DENY, ("tcp",), destination_port="SMTP"),
        Term(DENY, ("tcp", "udp"), destination="POOL", destination_port="WIDE"),
        LAST,
    ),
    "established": (
        Term(protocols=("tcp",), options=("established",)),
        Term(DENY, ("tcp", "udp"), destination="POOL", destination_port="WIDE"),
        LAST,
    ),
    "other protocols": (
        *(Term(protocols=(one,), source="POOL") for one in ("esp", "gre")),  # its cisco target takes no two in one term
        *(Term(DENY, (one,)) for one in ("esp", "gre")),
        Term(DENY, ("udp",), source="POOL", destination="SMARTHOSTS"),
        LAST,
    ),
    "later fragments": (Term(DENY, ("tcp",), options=("is-fragment",), only=frozenset({4})), LAST),
}


@functools.cache
def rendered(network_os: str, policy: str, family: int) -> str:
    """What Aerleon writes."""
    definitions = naming.Naming()
    networks = {name: {"values": [{"address": one} for one in each]} for name, each in NETWORKS.items()}
    services = {
        name: [{"protocol": protocol, "port": ports} for protocol, ports in each] for name, each in SERVICES.items()
    }
    definitions.ParseDefinitionsObject({"networks": networks, "services": services}, "")
    target, *options = TARGETS[network_os]
    terms = [one.written(f"term-{number}") for number, one in enumerate(POLICIES[policy], 1) if family in one.only]
    header = {"targets": {target: options[family == 6]}}
    [text] = api.Generate([{"filename": "up", "filters": [{"header": header, "terms": terms}]}], definitions).values()
    return str(text)


def read(network_os: str, policy: str, family: int) -> Configuration:
    text = rendered(network_os, policy, family)
    found: Configuration = platforms.load(network_os).parse(text, ["ppp0"] if network_os == "linux_nftables" else [])
    return found


def actions(network_os: str, configuration: Configuration, family: int, packet: dict[str, int]) -> set[str]:
    """What may happen to the packet, by the naive evaluator."""
    if network_os != "linux_nftables":
        return evaluate(configuration, family, "UP", packet)[0]
    names = [
        name
        for one in configuration.bindings
        if (one.attachment, one.direction, one.family) == ("ppp0", "in", family)
        for name in one.filters
    ]
    possible = {PERMIT}
    for name in names:
        possible = possible - {PERMIT} | evaluate(configuration, family, name, packet)[0]
    return possible


def edges(family: int) -> Iterator[dict[str, int]]:
    """Whole packets at the edges of every network and service, of state new."""
    addresses = []
    for text in itertools.chain(*NETWORKS.values()):
        network = ipaddress.ip_network(text)
        if network.version == family:
            first, last = int(network.network_address), int(network.broadcast_address)
            addresses += [first, last, first - 1, last + 1]
    ports = [0, 24, 25, 26, 134, 135, 136, 137, 139, 140, 445, 592, 593, 594, 999, 1000, 1023, 1024, 2000, 2001, 65535]
    usual = {"icmp_type": 8, "icmp_code": 0, "fragment": 0, "undetermined": 0, "extension": 0, "state": 0, "tos": 0}
    usual |= {"ttl": 64, "length": 60, "options": 0}
    inside, outside = addresses[0], addresses[3]
    pairs = [(one, outside) for one in addresses] + [(inside, one) for one in addresses]
    for protocol, flags in ((6, 2), (6, 16), (6, 4), (17, 0), (50, 0), (47, 0), (1 if family == 4 else 58, 0)):
        for number, (source, destination) in enumerate(pairs):
            for port in (ports if number < 4 else ports[2::4]) if protocol in (6, 17) else (0,):
                for one, other in ((49152, port), (port, 49152), (1500, port)):
                    yield usual | {
                        "protocol": protocol, "tcp_flags": flags, "source": source, "destination": destination,
                        "source_port": one, "destination_port": other, "tos": number % 2,
                    }  # fmt: skip


def meaning(policy: str, packet: dict[str, int], family: int, established: bool = True) -> str:
    """What the policy says. `established`: such terms are there."""
    terms = [one for one in POLICIES[policy] if established or "established" not in one.options]
    return next(one.action for one in terms if one.fits(packet, family))


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("policy", [name for name in POLICIES if name != "later fragments"])
@pytest.mark.parametrize("network_os", TARGETS)
def test_the_packet_set_is_the_policy_s(network_os: str, policy: str, family: int) -> None:
    if network_os not in platforms.names():
        pytest.skip(f"there is no platforms/{network_os}.py")
    configuration = read(network_os, policy, family)
    for packet in edges(family):
        wanted = meaning(policy, packet, family, established=network_os != "linux_nftables")
        found = actions(network_os, configuration, family, packet)
        assert found == {wanted}, f"{packet_text(packet, family)}\n{rendered(network_os, policy, family)}"


@pytest.mark.parametrize("network_os", [name for name in TARGETS if name != "linux_nftables"])
def test_later_fragments(network_os: str) -> None:
    """The term on fragments takes those and no others; Aerleon's nftables target has no word for it."""
    if network_os not in platforms.names():
        pytest.skip(f"there is no platforms/{network_os}.py")
    configuration = read(network_os, "later fragments", 4)
    for packet in itertools.islice(edges(4), 0, None, 7):
        for fragment in (0, 1, 2, 3):
            part = packet | {"fragment": fragment}
            found = actions(network_os, configuration, 4, part)
            assert found == {meaning("later fragments", part, 4)}, packet_text(part, 4)


def test_quirk_next_header() -> None:
    """Junos, IPv6: a header in front of TCP gets past Aerleon's filter, and past none of those that look behind it."""
    packet = next(one for one in edges(6) if one["protocol"] == 6 and one["destination_port"] == 25)
    hidden = packet | {"extension": 4}
    assert meaning("port 25 egress", hidden, 6) == DENY
    assert actions("juniper_junos", read("juniper_junos", "port 25 egress", 6), 6, hidden) == {PERMIT}
    for network_os in ("cisco_ios", "linux_nftables"):
        assert actions(network_os, read(network_os, "port 25 egress", 6), 6, hidden) == {DENY}


def test_quirk_state() -> None:
    """nftables: what belongs to a connection passes first, whatever the terms say of it."""
    packet = next(one for one in edges(4) if one["protocol"] == 6 and one["destination_port"] == 25)
    configuration = read("linux_nftables", "port 25 egress", 4)
    assert actions("linux_nftables", configuration, 4, packet) == {DENY}
    assert actions("linux_nftables", configuration, 4, packet | {"state": 1}) == {PERMIT}


def test_quirk_removal_first() -> None:
    """Cisco and Arista: the text begins with the removal of the list that it defines, and the list is read whole."""
    for network_os in ("cisco_ios", "arista_eos"):
        for family, command in ((4, "ip"), (6, "ipv6")):
            text = rendered(network_os, "port 25 egress", family)
            assert f"\nno {command} access-list " in text
            assert len(read(network_os, "port 25 egress", family).filters[family, "UP"].entries) >= 4
