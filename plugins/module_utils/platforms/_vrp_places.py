# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where filters act on a VRP router: interfaces, and the user groups that the subscribers of a BRAS are in."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from ..filters import DENY, PERMIT, UNKNOWN, Binding, Configuration, Doubt, Entry, Filter, Interface, NotThisPlatform
from ..packets import ADDRESS_WIDTH, complement, prefix, union
from ._vrp_policies import Policies, View
from ._vrp_text import Block, Cut, by_radius, cut_text, domain_prefixes, interface_prefix, routed

USERS = "user-group "  # in front of the name of a group, as an attachment
DIRECTIONS = {"inbound": "in", "outbound": "out"}
_SUBSCRIBERS = ("layer2-subscriber", "layer3-subscriber")
_LAYERS = frozenset({"link-layer", "mpls-layer", "all-layer", "vlan", "pe-vid", "identifier", "share"})
_CHECKED = frozenset({"ip urpf strict", "ipv6 urpf strict", "urpf strict"})
_SESSIONS_DOUBT = "whether sources that no session has are dropped without 'ip urpf strict' is not documented"
_ON_LINK = {4: (), 6: ("fe80::/10",)}
_Place = tuple[str, str, int]  # attachment, "in" or "out", family


@dataclass
class _Found:
    """What the reading of the places gathers."""

    filters: dict[tuple[int, str], Filter]
    bindings: dict[_Place, Binding] = field(default_factory=dict)
    doubts: list[Doubt] = field(default_factory=list)
    lines: int = 0

    def bind(self, place: _Place, chosen: Filter, line: int, text: str) -> None:
        """One more filter that must permit what passes there."""
        self.filters[chosen.family, chosen.name] = chosen
        there = self.bindings.get(place)
        if there and chosen.name in there.filters:
            return
        names = (*there.filters, chosen.name) if there else (chosen.name,)
        self.bindings[place] = Binding(*place, names, there.line if there else line, there.text if there else text)


@functools.lru_cache(maxsize=4)  # a push reads and predicts the same few texts again and again
def parse(text: str) -> Configuration:
    """Filters, bindings, interfaces and doubts of the text. Linear in it; raises nothing but NotThisPlatform."""
    cut = cut_text(text)
    if not (cut.acls or cut.interfaces or cut.hostname):
        raise NotThisPlatform(
            "the text holds no Huawei VRP configuration (no sysname, no interface, no acl): "
            "check ansible_network_os and what the device answered"
        )
    policies = Policies(cut)
    found = _Found(dict(policies.filters))
    applied = _applied(cut, found)
    interfaces = dict(_interfaces(cut, policies, applied, found))
    interfaces |= _users(cut, policies, applied, found)
    _vlans(cut, interfaces, found)
    connected = {name: one.prefixes for name, one in interfaces.items() if not name.startswith(USERS)}
    for name, more in routed(cut, connected).items():
        interfaces[name] = replace(interfaces[name], prefixes=(*interfaces[name].prefixes, *more))
    for block in cut.slots:
        for number, words, said in block.lines:
            if words[:2] == ["traffic-policy", "match-type"]:
                found.doubts.append(Doubt(number, said, "a board that matches policies in another way is not modelled"))
    doubts = tuple(sorted((*cut.doubts, *policies.doubts, *found.doubts), key=lambda doubt: doubt.line))
    tables = cut.address_pools, cut.port_pools, cut.classifiers, cut.behaviors, cut.policies
    lines = found.lines + sum(1 + len(one.lines) for one in cut.acls.values())
    lines += sum(1 + len(block.lines) for table in tables for block in table.values())
    return Configuration(
        found.filters, tuple(found.bindings.values()), interfaces, doubts, cut.hostname, lines
    )  # fmt: skip


def _applied(cut: Cut, found: _Found) -> dict[str, tuple[str, int, str]]:
    """The system view's policy by direction: its name and the line; "global" for one that is for all interfaces."""
    applied: dict[str, tuple[str, int, str]] = {}
    for number, words, text in cut.applied:
        found.lines += 1
        if len(words) == 3 and words[2] in DIRECTIONS:
            applied[DIRECTIONS[words[2]]] = words[1], number, text
        elif len(words) > 2 and {"global-acl", "global"} & set(words) and set(words) & DIRECTIONS.keys():
            direction = next(DIRECTIONS[word] for word in words if word in DIRECTIONS)
            applied[f"global {direction}"] = words[1], number, text
        else:
            found.doubts.append(Doubt(number, text, "a policy is applied in a form that is not understood"))
    return applied


def _unread(name: str, family: int, line: int, text: str) -> Filter:
    return Filter(name, family, (Entry(UNKNOWN, ({},), line, text),), PERMIT, line, text)


# -- interfaces --------------------------------------------------------------------------------------------------


def _interfaces(
    cut: Cut, policies: Policies, applied: dict[str, tuple[str, int, str]], found: _Found
) -> Iterator[tuple[str, Interface]]:
    for name, block in cut.interfaces.items():
        access = next((words[1] for _, words, _ in block.lines if words[0] == "access-type" and len(words) > 1), "")
        own: set[str] = set()
        prefixes: list[str] = []
        checks: dict[int, tuple[str, int]] = {}
        shutdown = False
        for number, words, text in block.lines:
            if words[0] == "traffic-policy":
                found.lines += 1
                if len(words) < 3 or words[2] not in DIRECTIONS:
                    found.doubts.append(Doubt(number, text, "a policy is applied in a form that is not understood"))
                    _bind_unread(name, number, words, text, found)
                # Of subscribers of a BAS interface such a policy sees nothing: their traffic meets user lists alone.
                elif access not in _SUBSCRIBERS:
                    own.add(DIRECTIONS[words[2]])
                    _bind_policy(name, number, words, text, policies, found, access)
            elif words[0] in ("traffic-filter", "packet-filter", "traffic-secure") or words[:2] == [
                "firewall", "packet-filter",
            ]:  # fmt: skip
                found.lines += 1
                _bind_list(name, number, words, text, policies, found)
            elif words[0] == "undo" and {"traffic-policy", "traffic-filter", "packet-filter"} & set(words):
                found.doubts.append(Doubt(number, text, "a filter is taken off, and which one is not worked out"))
                _bind_unread(name, number, words, text, found)
            elif words[0] in ("ip", "ipv6") and words[1:2] == ["address"]:
                prefixes += _addresses(words)
            elif words == ["shutdown"]:
                shutdown = True
            elif words == ["undo", "shutdown"]:
                shutdown = False
            elif " ".join(words).removesuffix(" statistics enable") in _CHECKED:
                for family in (4, 6) if words[0] == "urpf" else (6 if words[0] == "ipv6" else 4,):
                    checks[family] = text, number
        if prefixes and access not in _SUBSCRIBERS:
            _bind_system_view(name, own, policies, applied, found)
        prefixes += _borrowed(cut, block)
        one = Interface(name, block.line, tuple(dict.fromkeys(prefixes)), shutdown)
        yield name, one.checked(checks)


def _vlans(cut: Cut, interfaces: dict[str, Interface], found: _Found) -> None:
    """What is applied in a VLAN's view filters what its Vlanif routes, too: it is not read."""
    for vlan, block in cut.vlans.items():
        for number, words, text in block.lines:
            if words[0] not in ("traffic-policy", "traffic-filter", "traffic-secure"):
                continue
            found.doubts.append(Doubt(number, text, "a filter in the view of a VLAN is not read"))
            for way in (one for one in words if one in DIRECTIONS):
                for family in (4, 6) if f"Vlanif{vlan}" in interfaces else ():
                    name = f"{text} of VLAN {vlan}"
                    place = f"Vlanif{vlan}", DIRECTIONS[way], family
                    found.bind(place, _unread(name, family, number, text), number, text)


def _addresses(words: Sequence[str]) -> list[str]:
    family = 4 if words[0] == "ip" else 6
    if "link-local" in words or len(words) < 3:
        return []
    address, slash, length = words[2].partition("/")
    found = interface_prefix(address, length if slash else (words[3] if len(words) > 3 else ""), family)
    return [found] if found else []


def _borrowed(cut: Cut, block: Block) -> list[str]:
    """`ip address unnumbered interface LoopBack0`, `ipv6 address unnumbered ...`."""
    found: list[str] = []
    for _, words, _ in block.lines:
        if words[1:3] == ["address", "unnumbered"] and len(words) > 4:
            lender = cut.interfaces.get("".join(words[4:]))
            family = words[0]
            for _, inner, _ in lender.lines if lender else ():
                if inner[:2] == [family, "address"]:
                    found += _addresses(inner)
    return found


def _bind_policy(
    name: str, number: int, words: list[str], text: str, policies: Policies, found: _Found, access: str
) -> None:  # fmt: skip
    direction = DIRECTIONS[words[2]]
    for family in (4, 6):
        place = name, direction, family
        if _LAYERS & set(words[3:]) or len(words) > 3:
            found.bind(place, _unread(f"traffic policy {words[1]} {words[3]}", family, number, text), number, text)
            continue
        view = policies.on_interface(words[1], family)
        found.bind(place, _on_line(view, number), number, text)
    if access:
        found.doubts.append(Doubt(number, text, f"how it meets the system view's policy for {access} is not modelled"))


def _on_line(view: View, number: int) -> Filter:
    """A policy that is not defined has the line that names it."""
    return view.filter if view.filter.line else replace(view.filter, line=number)


def _bind_list(name: str, number: int, words: list[str], text: str, policies: Policies, found: _Found) -> None:
    """`traffic-filter inbound acl [ipv6] 3000`, `packet-filter [ipv6] 3000 inbound`: lists without a policy."""
    rest = [word for word in words if word not in ("firewall", "acl", "name", "ipv4")]
    direction = next((DIRECTIONS[word] for word in rest if word in DIRECTIONS), "")
    family = 6 if "ipv6" in rest else 4
    names = [word for word in rest[1:] if word not in DIRECTIONS and word != "ipv6"]
    if not direction or len(names) != 1:
        found.doubts.append(Doubt(number, text, "a filter is bound in a form that is not understood"))
        _bind_unread(name, number, words, text, found)
        return
    chosen = policies.list_named(family, names[0])
    if chosen is None:
        said = f"{names[0]} is bound and not defined: no packet matches it, and all pass"
        found.bind(
            (name, direction, family), Filter(names[0], family, (), PERMIT, number, said), number, text
        )  # fmt: skip
    else:
        found.bind((name, direction, family), policies.filters[family, chosen.name], number, text)


def _bind_unread(name: str, number: int, words: list[str], text: str, found: _Found) -> None:
    """What is bound there nobody knows, in the direction that the line names, or in both."""
    for family in (4, 6):
        for direction in sorted({DIRECTIONS[word] for word in words if word in DIRECTIONS} or {"in", "out"}):
            found.bind((name, direction, family), _unread(text, family, number, text), number, text)


def _bind_system_view(
    name: str, own: set[str], policies: Policies, applied: dict[str, tuple[str, int, str]], found: _Found
) -> None:  # fmt: skip
    """What the system view's policies may say about an interface that is no place of subscribers."""
    for direction in ("in", "out"):
        for family in (4, 6):
            place = name, direction, family
            if f"global {direction}" in applied:
                policy, line, text = applied[f"global {direction}"]
                found.bind(place, _unread(f"traffic policy {policy} of all interfaces", family, line, text), line, text)
            if direction in applied and direction not in own:
                policy, line, text = applied[direction]
                view = policies.beside_users(policy, family)
                if view.filter.entries:
                    found.bind(place, view.filter, line, text)


# -- subscribers -------------------------------------------------------------------------------------------------


def _users(
    cut: Cut, policies: Policies, applied: dict[str, tuple[str, int, str]], found: _Found
) -> dict[str, Interface]:  # fmt: skip
    """A place for each user group, and for each domain that has addresses and no group."""
    places: dict[str, Interface] = {
        f"{USERS}{name}": Interface(f"{USERS}{name}", line) for name, line in cut.user_groups.items()
    }
    changed: list[tuple[str, int, str]] = []  # (domain, line, text): its users are matched in another way
    for name, block in cut.domains.items():
        prefixes, (text, line) = domain_prefixes(cut, block), by_radius(cut, block)
        changed += [(name, number, said) for number, words, said in block.lines if words[0] == "traffic-policy"]
        group = _group(block)
        if not prefixes and not group:
            continue
        place = f"{USERS}{group}" if group else f"domain {name}"
        one = places.get(place) or Interface(place, block.line)
        if text and not one.sessions_from:
            one = replace(one, sessions_from=text, sessions_line=line)
        places[place] = replace(one, prefixes=tuple(dict.fromkeys((*one.prefixes, *prefixes))))
    for place, one in places.items():
        if place.startswith(USERS):
            places[place] = _bind_users(one, policies, applied, found)
    for name, number, said in changed:
        found.doubts.append(Doubt(number, said, "how a domain changes what policies match is not modelled"))
        users = f"{USERS}{_group(cut.domains[name])}"
        for family in (4, 6) if users in places else ():
            unread = _unread(f"{said} of domain {name}", family, number, said)
            found.bind((users, "in", family), unread, number, said)
    return places


def _group(domain: Block) -> str:
    return next((words[1] for _, words, _ in domain.lines if words[0] == "user-group" and len(words) > 1), "")


def _sessions_first(chosen: Filter, one: Interface) -> Filter:
    """In front of what others have written: a BRAS may drop what does not come from an address that it gave."""
    family = chosen.family
    own = [prefix(text, family) for text in one.prefixes if (":" in text) == (family == 6)]
    if not own:
        return chosen
    others = complement(union(*own, *(prefix(text, family) for text in _ON_LINK[family])), ADDRESS_WIDTH[family])
    entry = Entry(DENY, ({"source": others},), one.line, f"{one.name}: sources of its sessions", "", _SESSIONS_DOUBT)
    return replace(chosen, entries=(entry, *chosen.entries))


def _bind_users(
    one: Interface, policies: Policies, applied: dict[str, tuple[str, int, str]], found: _Found
) -> Interface:  # fmt: skip
    group = one.name.removeprefix(USERS)
    checks: dict[int, tuple[str, int]] = {}
    for family in (4, 6):
        if "in" in applied:
            policy, line, text = applied["in"]
            view = policies.on_users(policy, family, group, "source", True)
            checks[family] = view.check
            if view.filter.entries:
                chosen = view.filter if view.own else _sessions_first(view.filter, one)
                found.bind((one.name, "in", family), chosen, line, text)
            view = policies.on_users(policy, family, group, "destination", True)
            if view.filter.entries:
                found.bind((one.name, "out", family), view.filter, line, text)
        if "out" in applied:
            policy, line, text = applied["out"]
            view = policies.on_users(policy, family, group, "destination", False)
            if view.filter.entries:
                found.bind((one.name, "out", family), view.filter, line, text)
    return one.checked({family: check for family, check in checks.items() if check[0]})
