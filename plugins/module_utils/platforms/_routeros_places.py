# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where subscribers hang on RouterOS: interfaces, interface lists, PPP profiles, and who is meant by a matcher.

An attachment is the name of an interface, `interface-list NAME` or `ppp profile NAME`. Sources: mikrotik_routeros.py.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from ..filters import Interface
from ..packets import address_value
from ._routeros_text import Export, Statement

LIST, PROFILE = "interface-list ", "ppp profile "
_PPP = frozenset("pppoe-client pptp-client l2tp-client sstp-client ovpn-client ppp-client l2tp-ether".split())
_DEPTH = 100  # lists in lists
_WIRELESS = frozenset("wireless wifi wifiwave2 w60g".split())


@dataclass(slots=True)
class _List:
    members: set[str] = field(default_factory=set)
    include: list[str] = field(default_factory=list)
    exclude: list[str] = field(default_factory=list)
    line: int = 0


class Places:
    """What the text says about interfaces. A PPP profile stands for the sessions that it is given to."""

    def __init__(self, export: Export, attachments: Sequence[str]) -> None:
        self._export = export
        self._attachments = attachments
        self._kinds: dict[str, tuple[str, Statement]] = {}  # interface: its menu, where it is defined
        self._lists: dict[str, _List] = {}
        self._profiles: dict[str, Statement] = {}
        self._bound_sessions: set[str] = set()  # interfaces that a session of one user has
        self._prefixes: dict[str, list[tuple[str, int]]] = {}
        self._ports: set[str] = set()  # of bridges and bonds: nothing is routed over them
        self._pools: dict[int, dict[str, list[str]]] = {4: {}, 6: {}}
        self._answers: dict[tuple[str, str], bool | None] = {}
        self._members: dict[str, set[str]] = {}
        self._vrfs: dict[str, str] = {}  # by interface
        for one in export.statements:
            self._read(one)

    # Reading

    def _read(self, one: Statement) -> None:
        menu, properties = one.menu, one.properties
        name = properties.get("name", "")
        if menu == "interface list" and name:
            found = self._lists.setdefault(name, _List())
            found.line = one.line
            found.include += [word for word in properties.get("include", "").split(",") if word]
            found.exclude += [word for word in properties.get("exclude", "").split(",") if word]
        elif menu == "interface list member":
            if not one.disabled:
                found = self._lists.setdefault(properties.get("list", ""), _List())
                found.members.add(properties.get("interface", ""))
                found.line = found.line or one.line
        elif menu == "interface bridge port":
            self._ports.add(properties.get("interface", ""))
        elif menu == "interface bonding" and one.verb == "add":
            self._ports.update(properties.get("slaves", "").split(","))
            self._kinds[name] = "bonding", one
        elif menu == "ip vrf" and not one.disabled:
            self._vrfs |= dict.fromkeys(properties.get("interfaces", "").split(","), name)
        elif menu == "interface pppoe-server" and name:
            self._bound_sessions.add(name)
        elif menu == "ppp profile":
            # The profiles that are there from the beginning are set, by a number: *0 default, *FFFFFFFE its brother.
            self._profiles[name or (one.words[0] if one.words else "") or "default"] = one
        elif re.fullmatch(r"interface [a-z0-9-]+", menu) and one.verb in ("add", "set"):
            origin = re.search(r"default-name=\"?([^\s\]\"]+)", " ".join(one.words))
            name = name or (origin[1] if origin else "")
            if name:
                self._kinds[name] = menu.removeprefix("interface "), one
        elif menu in ("ip address", "ipv6 address", "ip route", "ipv6 route") and not one.disabled:
            self._routed(one)
        elif menu in ("ip pool", "ipv6 pool") and name:
            family = 4 if menu == "ip pool" else 6
            found_there = properties.get("ranges" if family == 4 else "prefix", "")
            self._pools[family][name] = [prefix for text in found_there.split(",") for prefix in _prefixes(text)]
        elif menu in ("ip dhcp-client", "ipv6 dhcp-client") and not one.disabled:
            self._prefixes.setdefault(properties.get("interface", ""), [])

    def _routed(self, one: Statement) -> None:
        """An address of an interface, or a route that leads to one."""
        properties = one.properties
        route = one.menu.endswith("route")
        place = properties.get("gateway" if route else "interface", "").rpartition("%")[2]
        if not place or re.fullmatch(r"[0-9.]+|.*:.*", place):
            return
        text = properties.get("dst-address" if route else "address", "")
        texts = [text if "/" in text else f"{text}/{128 if ':' in text else 32}"]
        peer = properties.get("network", "")
        if not route and peer and texts[0].endswith("/32"):
            texts.append(f"{peer}/32")
        for prefix in texts:
            try:
                network = ipaddress.ip_interface(prefix).network
            except ValueError:
                continue
            if not (route and network.prefixlen == 0):
                self._prefixes.setdefault(place, []).append((prefix, one.line))

    # Who is meant

    def _tokens(self, attachment: str) -> set[str]:
        """Interfaces by name, sessions as `ppp profile NAME`."""
        if attachment.startswith(LIST):
            return self.members(attachment.removeprefix(LIST))
        return {attachment}

    def members(self, name: str, depth: int = 0) -> set[str]:
        """Those of a list, with what it includes and without what it excludes; lists do not include each other."""
        if name in ("all", "static", "dynamic", "none"):
            everything = {*self._kinds, *(PROFILE + profile for profile in self._profiles)}
            return {one for one in everything if _builtin(name, one)}
        if name in self._members or depth > _DEPTH:
            return self._members.get(name, set())
        self._members[name] = set()
        found = self._lists.get(name, _List())
        inside = set(found.members)
        inside |= {
            PROFILE + profile
            for profile, one in self._profiles.items()
            if one.properties.get("interface-list", "") == name
        }
        for other in found.include:
            inside |= self.members(other, depth + 1)
        for other in found.exclude:
            inside -= self.members(other, depth + 1)
        self._members[name] = inside
        return inside

    def _contains(self, outer: str, inner: str) -> bool:
        """All of a list is in another one, whoever joins it later."""
        pending, seen = [outer], {outer}
        while pending:
            name = pending.pop()
            if name in (inner, "all"):
                return True
            found = self._lists.get(name, _List())
            if not found.exclude:
                pending += [one for one in found.include if one not in seen]
                seen.update(found.include)
        return False

    def fits(self, pattern: str, attachment: str) -> bool | None:
        """Whether a matcher (`ether1`, `all-ppp`, `list:LAN`) means the attachment; None: a part of it."""
        key = pattern, attachment
        if key not in self._answers:
            self._answers[key] = self._fits(pattern, attachment)
        return self._answers[key]

    def _fits(self, pattern: str, attachment: str) -> bool | None:
        name = pattern.removeprefix("list:")
        if attachment.startswith(LIST) and pattern != name and self._contains(name, attachment.removeprefix(LIST)):
            return True
        tokens = self._tokens(attachment)
        answers = {self._means(pattern, token) for token in tokens}
        if len(answers) == 1:
            return answers.pop()
        return None

    def _means(self, pattern: str, token: str) -> bool | None:
        meant = self._names(pattern, token)
        # Which of the two a packet of a VRF comes in by is not documented.
        vrf = self._vrfs.get(token)
        return None if vrf and (meant or pattern == vrf) else meant

    def _names(self, pattern: str, token: str) -> bool | None:
        session = token.startswith(PROFILE)
        if pattern.startswith("list:"):
            name = pattern.removeprefix("list:")
            if name in ("all", "none", "dynamic", "static"):
                return _builtin(name, token)
            return token in self.members(name)
        kind = self._kinds.get(token, ("", None))[0]
        if pattern in ("all-ppp", "all-ethernet", "all-vlan", "all-wireless"):
            if session:
                return pattern == "all-ppp"
            kinds = {
                "all-ppp": _PPP, "all-ethernet": {"ethernet"}, "all-vlan": {"vlan"}, "all-wireless": _WIRELESS
            }[pattern]  # fmt: skip
            return kind in kinds if kind else (None if token != "*" else False)
        if session and pattern != token:
            # A session has an interface of its own, <pppoe-NAME>, or the one that its user has.
            return None if pattern.startswith("<") or pattern in self._bound_sessions else False
        return pattern == token

    def sides(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The interfaces that lead to the network, and those that lead to other customers.

        The network is where the default route leads; without one it is whatever routes and is no attachment.
        """
        taken = {token for one in self._attachments for token in self._tokens(one)} | self._ports
        routing = [*self._prefixes, *(name for name, (kind, _) in self._kinds.items() if kind in _PPP)]
        others = tuple(dict.fromkeys(one for one in routing if one not in taken and one not in ("lo", "")))
        network = tuple(one for one in others if one in self._defaults())
        return (network, tuple(one for one in others if one not in network)) if network else (others, ())

    def _defaults(self) -> set[str]:
        """Where default routes lead: to a neighbour's address, or into an interface."""
        found: set[str] = set()
        for one in self._export.of("ip route", "ipv6 route"):
            if one.disabled or one.properties.get("dst-address", "0.0.0.0/0") not in ("0.0.0.0/0", "::/0"):
                continue
            for gateway in one.properties.get("gateway", "").split(","):
                address, _, name = gateway.partition("%")
                found |= {name} if name else self._neighbours(address)
        for one in self._export.of("ip dhcp-client", "interface pppoe-client"):
            told = one.properties.get("add-default-route", "yes" if one.menu == "ip dhcp-client" else "no")
            if told != "no" and not one.disabled:
                found.add(one.properties.get("interface" if one.menu == "ip dhcp-client" else "name", ""))
        return found

    def _neighbours(self, gateway: str) -> set[str]:
        """The interfaces in whose network an address is; a name stands for itself."""
        try:
            address = ipaddress.ip_address(gateway)
        except ValueError:
            return {gateway}
        return {
            name
            for name, prefixes in self._prefixes.items()
            for prefix, _ in prefixes
            if address in ipaddress.ip_interface(prefix).network and ipaddress.ip_interface(prefix).network.prefixlen
        }

    # What the audit is told

    def interfaces(self) -> dict[str, Interface]:
        found: dict[str, Interface] = {}
        lists = {one.removeprefix(LIST) for one in self._attachments if one.startswith(LIST)}
        claimed = {token: LIST + name for name in lists for token in self.members(name)}
        for name, (_, one) in self._kinds.items():
            found[name] = Interface(name, one.line, shutdown=one.disabled)
        for name, prefixes in self._prefixes.items():
            known = found.get(name) or Interface(name, prefixes[0][1] if prefixes else 0)
            found[name] = known
            place = claimed.get(name, name)
            self._add(found, place, known.line, (prefix for prefix, _ in prefixes))
        for name, listed in self._lists.items():
            self._add(found, LIST + name, listed.line, ())
        for name, one in self._profiles.items():
            own = PROFILE + name
            self._add(found, own, one.line, ())
            fed = one.properties.get("interface-list", "")
            place = claimed.get(own) or (LIST + fed if fed else own)
            place = own if own in self._attachments else place
            self._add(found, place, one.line, self._given(one))
        return found

    def _add(self, found: dict[str, Interface], name: str, line: int, prefixes: Iterable[str]) -> None:
        known = found.get(name) or Interface(name, line)
        whole = tuple(dict.fromkeys((*known.prefixes, *prefixes)))
        found[name] = Interface(name, known.line or line, whole, known.shutdown)

    def _given(self, profile: Statement) -> Iterator[str]:
        """The addresses that sessions of a profile get, its pools' and those of its users."""
        own = profile.properties
        for family, name in ((4, "remote-address"), (6, "remote-ipv6-prefix-pool"), (6, "dhcpv6-pd-pool")):
            value = own.get(name, "")
            yield from self._pools[family].get(value, _prefixes(value))

    def sessions_of(self, attachment: str) -> list[Statement]:
        """The PPP profiles that the attachment stands for."""
        return [
            self._profiles[token.removeprefix(PROFILE)]
            for token in sorted(self._tokens(attachment))
            if token.startswith(PROFILE) and token.removeprefix(PROFILE) in self._profiles
        ]

    def profiles(self) -> Iterator[tuple[str, Statement]]:
        yield from self._profiles.items()


def _builtin(name: str, token: str) -> bool:
    dynamic = token.startswith((PROFILE, "<"))
    return {"all": True, "none": False, "dynamic": dynamic, "static": not dynamic}[name]


def _prefixes(text: str) -> list[str]:
    """A prefix, an address, or a range as prefixes."""
    try:
        if "-" in text and ":" not in text:
            low, _, high = text.partition("-")
            if address_value(low, 4) > address_value(high, 4):
                return []
            ends = ipaddress.IPv4Address(low), ipaddress.IPv4Address(high)
            return [str(one) for one in ipaddress.summarize_address_range(*ends)]
        return [str(ipaddress.ip_interface(text))] if text else []
    except ValueError:
        return []
