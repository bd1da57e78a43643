# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""VyOS 1.4 and later: the firewall of `firewall ipv4|ipv6`; of 1.3 what documents settle.

VyOS makes nftables rules of its configuration. What those mean, fragments, extension headers, connection states, NAT,
flow tables and the interface on the other side among it, is worked out by linux_nftables. What VyOS makes of which
line, and where it is written ("vyos-1x": the sources github.com/vyos/vyos-1x, by file; else docs.vyos.io, by page):

- A forwarded packet meets `prerouting raw` (priority -300), policy routes (-150), destination NAT (-100), `forward
  filter` (0), the zones (1), source NAT (100): vyos-1x, data/templates/firewall/nftables*.j2. `accept` ends one of
  them, the next still decides; `input` and `output` see nothing of it.
- Rules in the order of their numbers, the first that fits decides; `disable` leaves one out; `continue` goes on;
  `return` goes on behind the jump ("IPv4 Firewall Configuration", Actions, Rule Status).
- Without `default-action` a base chain accepts and a custom chain drops (there, "Important note about
  default-actions"; vyos-1x, interface-definitions/include/firewall/default-action.xml.i).
- `global-options state-policy` is jumped to before all rules of `forward filter` and of the zones, `established`,
  `invalid`, `related` in this order, `offload` before them (vyos-1x, nftables.j2).
- Conditions as python/vyos/firewall.py of vyos-1x writes them: `protocol` is `meta l4proto`, so the one behind the
  IPv6 extension headers; `tcp_udp` is both; ports `22,!80` must be one of those and none of these; TCP flags must all
  be as they are said, `not` ones clear; a `type-name` makes the code of ICMP void.
- The kernel puts fragments together before the firewall; a mark from priority -450 tells `match-frag` what came as a
  fragment: IPv4 by offset and flag, IPv6 by a fragment header (vyos-1x, python/vyos/firewall.py and nftables.j2).
- Groups may include others; an empty one matches nothing (vyos-1x, nftables-defines.j2). Names, countries, MAC
  addresses, dynamic and remote groups, limits, marks, times, IPsec: in doubt. A group or chain that is not there does
  not commit, so a text that has one is not understood there.
- Interfaces: wildcards at the end, `!`, groups ("IPv4 Firewall Configuration"). What comes in by a VRF's interface is
  seen as coming in by the VRF (the same page, "inbound-interface").
- Zones: vyos-1x, nftables-zone.j2. A zone's default is drop; within a zone everything passes unless it is filtered.
  A default rule set counts for the zones without a rule set of their own ("Zone-Based Firewall"). What comes after
  it, and what leaves by a VRF that is a member, is not documented.
- An interface in a group may be inverted ("Firewall groups"), and what that means beside others is not documented.
- `source-validation strict`, global or of the interface, and its IPv6 twin, are the kernel's reverse path filter
  (vyos-1x, nftables-source-validation.j2), each of its own family.
- 1.3 has rule sets bound to interfaces, `in` before `out`, and `accept` of one leaves the other to decide
  ("Firewall Configuration (Deprecated)"; vyos-1x 1.4 until August 2023, python/vyos/firewall.py).
- 1.2 has dialled connections below the interface that carries them: `ethernet eth0 vif 7 pppoe 0` is pppoe0 (vyos-1x,
  src/migration-scripts/interfaces).
- To iptables of 1.3 the protocol 0 is every protocol (iptables(8)), to nft it is not.
- What is not understood in the place of a chain, a zone, a binding or their names may decide about everything.
- RADIUS gives PPPoE and IPoE sessions addresses and rates, and no firewall ("PPPoE Server", RADIUS attributes).

The push: set and delete lines in one session, one commit, which loads one nftables file, one transaction (vyos-1x,
src/conf_mode/firewall.py). Rule 1 of `forward filter` is ours, and jumps to ISP-EDGE4 or ISP-EDGE6, which jump to the
filter of the interface; what a filter permits returns, and whatever stands behind rule 1 decides.

- `commit-confirm N` asks whether to proceed, and without `confirm` in N minutes boots the saved
  configuration, or reloads it where `system config-management commit-confirm` says so ("Command Line Interface";
  vyos-1x, python/vyos/config_mgmt.py and system_config-management.xml.in). So what runs must be saved before: `compare
  saved` shows no difference, or the push ends. Taking back is `load` of the saved configuration and a commit.
- A delete of what is not there says "Nothing to delete" and is no error (github.com/vyos/vyatta-cfg, src/cstore).
- The words of rejections beside those in config_mgmt.py: [memory].
"""

from __future__ import annotations

import fnmatch
import ipaddress
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache

from ..filters import Binding, Configuration, Filter, Interface, NotThisPlatform
from ._nftables_chains import Builder
from ._nftables_conditions import names
from ._vyos_chains import Text, interfaces
from ._vyos_change import PUSH, apply, fields, lines, remove, restore
from ._vyos_tree import Node, Reading

__all__ = [
    "ALIASES",
    "ANSWERS",
    "DEVICE_TYPE",
    "LINK_LOCAL",
    "LIVE",
    "PUSH",
    "READ",
    "REJECTED",
    "WHOLE",
    "apply",
    "fields",
    "incomplete",
    "lines",
    "parse",
    "remove",
    "restore",
]

ALIASES = ("vyos.vyos.vyos", "vyos_ssh", "vyatta_vyos", "vyatta")
DEVICE_TYPE = "vyos"
# In braces, because a text that was cut off shows there, and passwords are masked.
READ = ("show configuration",)
REJECTED = (
    r"^.*\bis not valid\b.*",
    r"^\s*(?:Set|Delete|Load|Commit|commit) failed\b.*",
    r"^\s*Invalid (?:command|value)\b.*",
    r"^\s*(?:Value|value) validation failed\b.*",
    r"^\s*(?:Ambiguous|Incomplete) command\b.*",
    r"^\s*Another confirm is pending\b.*",
    r"^\s*commit-confirm canceled\b.*",
    r"^\s*Configuration system locked\b.*|^.*Configuration system temporarily locked.*",
    r"^[-+>] ?\S.*",  # of `compare saved`: what runs is not what is saved
)
ANSWERS = ((r"Proceed ?\? ?\[[^\r\n]*\] ?$", "y"),)
LIVE = False
WHOLE = True  # our chains and our jump come before whatever else the firewall has
LINK_LOCAL = False  # link-local traffic is never forwarded

_TYPES = frozenset(
    ("bonding", "bridge", "dummy", "ethernet", "geneve", "input", "l2tpv3", "loopback", "macsec", "openvpn", "pppoe",
     "pseudo-ethernet", "sstpc", "tunnel", "virtual-ethernet", "vti", "vxlan", "wireguard", "wireless",
     "wirelessmodem", "wwan")
)  # fmt: skip
_FIREWALL = frozenset("name ipv6-name group ipv4 ipv6 global-options zone flowtable state-policy all-ping".split())
_SUBSCRIBERS = {"pppoe-server": "ppp*", "ipoe-server": "ipoe*"}  # services and the interfaces of their sessions
_ROUTING = frozenset({"babel", "eigrp", "isis", "nhrp", "openfabric", "ospf", "ospfv3", "rip", "ripng"})


def incomplete(text: str) -> str:
    """Why the text is no whole running configuration of VyOS, "" when it is."""
    if not text.strip():
        return "the router returned nothing"
    if "\x1b" in text:
        return "it holds terminal escapes: read it without a terminal"
    said = re.search(r"^\s*(?:Invalid command|Permission denied|Configuration under specified path).*", text, re.M)
    if said:
        return f"it holds an error message: '{said.group().strip()[:200]}'"
    reading = _read(text)
    if not _is_vyos(reading.root):
        return "it has no interfaces, firewall or system section of VyOS"
    if reading.open:
        return f"it is cut off: {reading.open} blocks are open at its end"
    if reading.doubts and reading.doubts[-1].line >= len(text.rstrip().split("\n")):
        return f"it is cut off in line {reading.doubts[-1].line}"
    if "system" not in reading.root:
        return "it is cut off: the system section, which comes behind firewall and interfaces, is missing"
    return ""


_read = lru_cache(maxsize=2)(Reading)


def _is_vyos(root: Node) -> bool:
    return bool(_TYPES & root.at("interfaces").keys() or _FIREWALL & root.at("firewall").keys())


def parse(text: str, attachments: Sequence[str] = ()) -> Configuration:
    """`show configuration`, config.boot, or `show configuration commands`. Raises NotThisPlatform.

    Base chains ask for interfaces, so their filters are made for each attachment: `forward filter @eth1.100 in`. Custom
    chains have the name that they have in the text, unless they ask for interfaces too. Without attachments the text
    is taken for every interface that it has.
    """
    return _parsed(text, tuple(attachments))


# A push looks at the same text several times.
@lru_cache(maxsize=4)
def _parsed(text: str, attachments: tuple[str, ...]) -> Configuration:
    reading = _read(text)
    if not _is_vyos(reading.root):
        raise NotThisPlatform("there are no interfaces and no firewall of VyOS in it")
    ruleset = Text(reading)
    shown = _interfaces(reading.root)
    wanted = attachments or [*shown, *(name for name in ruleset.named if name.endswith("*") and name not in shown)]
    for name in wanted:
        known = [one for one in shown.values() if fnmatch.fnmatchcase(one.name, name)]
        if name not in shown and (known or name in ruleset.named):
            shown[name] = Interface(name, 0, tuple(prefix for one in known for prefix in one.prefixes))
    others = _leads_elsewhere(reading.root, wanted, shown)
    builder = Builder(ruleset, attachments, others if attachments else (), frozenset({4, 6}))
    builder.plain()
    bindings: list[Binding] = []
    for name in wanted:
        if not attachments and name == "lo":
            continue
        bound, _ = builder.bind(name)
        bindings += bound
        if name in shown:
            shown[name] = shown[name].checked(_source_checks(reading.root, name))
    found = {(family, _plain(name)): _renamed(one) for (family, name), one in builder.filters.items()}
    return Configuration(
        filters=found,
        bindings=tuple(replace(one, filters=tuple(_plain(name) for name in one.filters)) for one in bindings),
        interfaces=shown,
        doubts=tuple(sorted(dict.fromkeys(ruleset.doubts), key=lambda doubt: doubt.line)),
        hostname=reading.root.value("system", "host-name"),
        filter_lines=ruleset.read,
    )


def _plain(name: str) -> str:
    """Without nftables' family and table, which VyOS does not show."""
    return name.split(" ", 2)[2]


def _renamed(one: Filter) -> Filter:
    entries = one.entries
    if any(entry.target for entry in entries):
        entries = tuple(replace(entry, target=_plain(entry.target)) if entry.target else entry for entry in entries)
    return replace(one, name=_plain(one.name), entries=entries)


def _leads_elsewhere(root: Node, attachments: Sequence[str], shown: dict[str, Interface]) -> tuple[str, ...]:
    """The interfaces that lead to the network and are no attachment.

    Those of default routes, BGP neighbours and dialled connections; where other protocols route, or nothing says it,
    all that have addresses.
    """
    every, dialled = [], []
    for kind, below in root.at("interfaces").items():
        for name, node in interfaces(_only(kind, below)):
            dials = kind in ("sstpc", "wwan") or name.startswith("pppoe") or "dhcp" in node.at("address")
            if (dials or node.at("address")) and kind not in ("loopback", "dummy") and "disable" not in node:
                every.append(name)
                dialled += [name] * dials
    instances = [root.at("protocols"), *(one.at("protocols") for one in root.at("vrf", "name").values())]
    towards = set(dialled)
    unsaid = any(word in one for one in instances for word in _ROUTING)
    for one in instances:
        for path in (("static", "route", "0.0.0.0/0"), ("static", "route6", "::/0")):
            towards.update(_towards(one.at(*path), shown))
        peers = [*one.at("bgp", "neighbor"), *(peer for asn in one.at("bgp").values() for peer in asn.at("neighbor"))]
        for peer in peers:
            found = set(_towards(_hop(peer), shown))
            towards |= found
            unsaid = unsaid or not found
    chosen = every if unsaid or not towards & set(every) else [name for name in every if name in towards]
    return tuple(
        name for name in chosen if all(names(one, name) is False and names(name, one) is False for one in attachments)
    )


def _hop(address: str) -> Node:
    ways = Node()
    ways.child("next-hop", 0).child(address, 0)
    return ways


def _only(kind: str, below: Node) -> Node:
    root = Node()
    root.child("interfaces", 0)[kind] = below
    return root


def _interfaces(root: Node) -> dict[str, Interface]:
    """With the prefixes that are connected there, or routed there by static routes and address pools of sessions."""
    found: dict[str, Interface] = {}
    for name, node in interfaces(root):
        prefixes = tuple(text for text in node.at("address") if _network(text))
        found[name] = Interface(name, node.line, prefixes, "disable" in node)
    for service, name in _SUBSCRIBERS.items():
        node = root.at("service", service)
        if node:
            found[name] = Interface(name, node.line, tuple(_pools(node)))
    for instance in (root.at("protocols", "static"), *(one.at("protocols", "static") for one in _vrfs(root))):
        for word in ("route", "route6"):
            for destination, ways in instance.at(word).items():
                for name in _towards(ways, found):
                    if _network(destination) and not destination.endswith("/0"):
                        known = found[name]
                        found[name] = replace(known, prefixes=(*known.prefixes, destination))
    return found


def _vrfs(root: Node) -> Iterator[Node]:
    yield from root.at("vrf", "name").values()


def _towards(ways: Node, found: dict[str, Interface]) -> Iterator[str]:
    """The interfaces that a static route leads to."""
    yield from (name for name in ways.at("interface") if name in found)
    for hop in ways.at("next-hop"):
        network = _network(hop)
        for one in list(found.values()):
            if network and any(
                network.ip in connected.network
                for text in one.prefixes
                if (connected := _network(text)) and connected.version == network.version
            ):
                yield one.name
                break


def _network(text: str) -> ipaddress.IPv4Interface | ipaddress.IPv6Interface | None:
    try:
        return ipaddress.ip_interface(text)
    except ValueError:
        return None


def _pools(service: Node) -> Iterator[str]:
    """The addresses that sessions of a service get."""
    pool = service.at("client-ip-pool")
    for node in (pool, *pool.values()):
        yield from (text for text in (*node.at("subnet"), *node.at("range")) if _network(text))
        ranges = [*node.at("range"), f"{node.value('start')}-{node.value('stop')}"]
        for low, _, high in (text.partition("-") for text in ranges):
            try:
                first = ipaddress.IPv4Address(low)
                last = ipaddress.IPv4Address(high if "." in high else f"{low.rpartition('.')[0]}.{high}")
                yield from (str(one) for one in ipaddress.summarize_address_range(first, last))
            except ValueError:
                continue
    pool = service.at("client-ipv6-pool")
    for node in (pool, *pool.values()):
        for word in ("prefix", "delegate"):
            yield from (text for text in node.at(word) if _network(text))


def _source_checks(root: Node, name: str) -> dict[int, tuple[str, int]]:
    """By family: how strict source validation is said, and where."""
    options = root.at("firewall", "global-options")
    node = next((node for known, node in interfaces(root) if known == name), Node())
    places = {
        4: [options.at("source-validation"), root.at("firewall", "source-validation"),
            node.at("ip", "source-validation")],
        6: [options.at("ipv6-source-validation"), node.at("ipv6", "source-validation")],
    }  # fmt: skip
    return {
        family: (f"{'ipv6 ' if family == 6 else ''}source-validation strict", one["strict"].line)
        for family, found in places.items()
        for one in found
        if "strict" in one
    }
