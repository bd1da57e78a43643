# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where filters of a Junos configuration are bound, to what, and how units are reached: the tree as a Configuration."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace

from ..filters import DENY, JUMP, PERMIT, UNKNOWN, Binding, Configuration, Entry, Filter, Interface
from ._junos_terms import EVERYTHING, term_entries
from ._junos_tree import ANYWHERE, LEFT_OUT, NOTHING, SECTIONS, Node, Reading, at, pointed_at, single
from ._junos_values import CODE_POINTS, PrefixList, Scope

FAMILIES = {"inet": 4, "inet6": 6}
_OTHER_FAMILIES = frozenset(
    ("any", "bridge", "ccc", "ethernet-switching", "fibre-channel", "iso", "mlfr-end-to-end", "mlfr-uni-nni", "mlppp",
     "mpls", "pppoe", "tcc", "tnp", "vpls")
)  # fmt: skip
_BESIDE_LISTS = frozenset(
    ("apply-macro", "as-path", "as-path-group", "community", "condition", "damping", "policy-statement", "prefix-list",
     "route-filter-list", "rtf-prefix-list")
)  # fmt: skip
_OF_A_BINDING = ANYWHERE | {
    "input", "output", "input-list", "output-list", "input-chain", "output-chain", "group", "adf"
}  # fmt: skip
_FILTER = frozenset(("filter",))
_FILTER_OR_SIDE = _FILTER | {"input", "output"}
_OF_ANY_SHAPE = ANYWHERE | {"adf"}
_OF_AN_INTERFACE = frozenset(("apply-macro", "family", "unit"))
_OF_A_UNIT = frozenset(("apply-macro", "demux-destination", "demux-source", "family", "filter"))
_WITH_SIDES = frozenset(
    {"accounting", "apply-macro", "sampling", "policer", "service", "simple-filter"}
)  # have input and output, and bind no filter

_BESIDE_FILTERS = frozenset(
    ("apply-macro", "dialer-filter", "family", "fast-update-filter", "filter", "hierarchical-policer", "policer",
     "service-filter", "simple-filter")
)  # fmt: skip
_WITH_VALUES = ANYWHERE | {"accounting-profile", "promote", "term"}
_OF_A_FILTER = _WITH_VALUES | frozenset(
    ("enhanced-mode", "enhanced-mode-override", "fast-lookup-filter", "instance-shared", "interface-shared",
     "interface-specific", "physical-interface-filter", "scale-optimized")
)  # fmt: skip


def _filter(name: str, node: Node, known_as: str, scope: Scope, family: int) -> Filter:
    terms = at(node, "term")
    text = f"filter {name}"
    hiding = next((word for word, below in node.items() if _hides(word, below)), "")
    mixed = len({term.rank for term in terms.values()}) > 1
    if mixed or hiding:
        doubt = "own terms and inherited ones mix in this filter, in an order that is not documented"
        doubt = doubt if mixed else f"'{hiding[:60]}' of this filter may hide a term"
        return Filter(
            known_as, family, (Entry(UNKNOWN, EVERYTHING, node.line, text, doubt=doubt),), DENY, node.line, text
        )
    entries = [entry for term, below in terms.items() for entry in term_entries(term, below, name, scope, family)]
    return Filter(known_as, family, tuple(entries), DENY, node.line, text)


def _hides(word: str, below: Node) -> bool:
    """A flag or value that does not end, a garbled `term`, or terms that the router does not show."""
    if word in _WITH_VALUES:
        return word not in ("term", "apply-macro") and any(below.values())
    return word in LEFT_OUT or bool(below and (word in _OF_A_FILTER or _holds(below, {"from", "then", "filter"}, 1)))


def full_name(name: str, place: str) -> str:
    """The Configuration's name of a filter: its own, and where it is defined unless that is the top."""
    return f"{name} in {place}" if place else name


@dataclass(slots=True)
class _Place:
    """Where filters are defined and bound: the top of the configuration, a logical system, a dynamic profile."""

    path: str  # "" | "logical-systems LS1" | "dynamic-profiles RES"
    node: Node
    names: dict[tuple[int, str], str]  # (family, name in the text) -> name in the Configuration


class Builder:
    """From the tree to the Configuration."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self.filters: dict[tuple[int, str], Filter] = {}
        self.bindings: list[Binding] = []
        self.interfaces: dict[str, Interface] = {}
        self.pointed: dict[str, tuple[list[str], bool]] = {}  # what each apply-path finds
        self.paths_left = [500_000]  # words that they may touch
        self.joined: dict[tuple[object, ...], tuple[Entry, ...]] = {}
        # Unnumbered interfaces, whose addresses they use, and which one ("" where it is not said).
        self.lenders: dict[str, list[tuple[str, str]]] = {}
        self.filter_lines = reading.filter_lines

    def build(self) -> Configuration:
        reading, root = self.reading, self.reading.root
        hostname = single(at(root, "system", "host-name"))
        scope = self._scope(root)
        top = _Place("", root, {})
        self._define(top, scope)
        places = [top]
        for name, node in at(root, "logical-systems").items():
            place = _Place(f"logical-systems {name}", node, {} if at(node, "firewall") else dict(top.names))
            self._define(place, self._scope(node, scope))
            places.append(place)
        for name, node in at(root, "dynamic-profiles").items():
            place = _Place(f"dynamic-profiles {name}", node, dict(top.names))
            self._define(place, scope)
            places.append(place)
        for place in places:
            if place.path:
                self._lost(place.node, SECTIONS, {"family", "unit"})
            self._attach(place)
            self._elsewhere(place)
        self._lend()
        for place in places:
            self._route(place)
        doubts = tuple(sorted(reading.doubts, key=lambda doubt: doubt.line))
        return Configuration(
            self.filters,
            tuple(self.bindings),
            self.interfaces,
            doubts,
            hostname[0] if hostname else "",
            self.filter_lines,
        )

    def _scope(self, node: Node, outer: Scope | None = None) -> Scope:
        lists: dict[str, PrefixList] = dict(outer.prefix_lists) if outer else {}
        for word, strange in at(node, "policy-options").items():
            if word not in _BESIDE_LISTS and any(_is_network(one) for below in strange.values() for one in below):
                self.reading.doubt(strange.line, f"'{word[:60]}' is not understood, and may be part of a prefix-list")
        for name, below in at(node, "policy-options", "prefix-list").items():
            self.filter_lines += len(below) + 1
            words = [word for word in below if word != "apply-path" and word not in ANYWHERE]
            endless = next((word for word in words if below[word]), "")
            unread = f"'{endless[:60]}' of the prefix-list '{name}' does not end" if endless else ""
            path = single(at(below, "apply-path"))
            if path:
                found, sure = self._pointed_at(path[0]) if not outer else ([], False)
                words += found
                if not sure:
                    unread = f"the prefix-list '{name}' holds what its apply-path finds in the configuration"
            lists[name] = PrefixList(words, unread)
        if outer:
            return Scope(lists, outer.code_points)
        points = {}
        for family, kind in ((4, "dscp"), (6, "dscp-ipv6")):
            own = {}
            for alias, below in at(node, "class-of-service", "code-point-aliases", kind).items():
                value = next(iter(below), "")
                if re.fullmatch("[01]{6}", value):
                    own[alias] = int(value, 2)
            points[family] = {**CODE_POINTS, **own}
        return Scope(lists, points)

    def _pointed_at(self, path: str) -> tuple[list[str], bool]:
        """The prefixes that an apply-path finds, and whether these are surely all."""
        if path not in self.pointed:
            found = pointed_at(self.reading.root, path, self.paths_left)
            prefixes = [word for word, _ in found if _is_network(word)]
            # Names are no prefixes yet, what a group gives may be found too, and a part of a text lacks other parts.
            sure = len(prefixes) == len(found) and all(below.rank == 0 for _, below in found)
            known = path.partition(" ")[0] in self.reading.known
            self.pointed[path] = prefixes, sure and known
        prefixes, sure = self.pointed[path]
        self.paths_left[0] -= len(prefixes)
        return (prefixes, sure) if self.paths_left[0] >= 0 else ([], False)

    def _define(self, place: _Place, scope: Scope) -> None:
        """The filters of one place. Those of family any count for both families."""
        firewall = at(place.node, "firewall")
        kinds = [(4, firewall), (4, at(firewall, "family", "inet")), (6, at(firewall, "family", "inet6"))]
        both = at(firewall, "family", "any")
        kinds += [(4, both), (6, both)]
        own = []
        for node in (firewall, *at(firewall, "family").values()):
            self._lost(node, _BESIDE_FILTERS, {"filter", "from", "term", "then"})
        for family, node in kinds:
            for name, below in at(node, "filter").items():
                for word in below:
                    if word not in _OF_A_FILTER:
                        self.reading.doubt(below[word].line, f"'{word[:60]}' was not understood in the filter {name}")
                said = f"any {name}" if node is both else name
                place.names[family, said] = full_name(said, place.path)
                own.append((family, said))
                self.filters[family, place.names[family, said]] = _filter(
                    name, below, place.names[family, said], scope, family
                )
        nesting = {
            key for key in own if any(entry.action == JUMP for entry in self.filters[key[0], place.names[key]].entries)
        }
        for key in nesting:
            self._nest(place, key, nesting)

    def _nest(self, place: _Place, key: tuple[int, str], nesting: Set[tuple[int, str]]) -> None:
        """Point `filter X` terms at their targets. Only one level is allowed, so there is no loop either."""
        family, name = key
        chosen = self.filters[family, place.names[key]]
        kind = "any " if name.startswith("any ") else ""
        entries = []
        for entry in chosen.entries:
            if entry.action == JUMP:
                target = (family, kind + entry.target)
                doubt = ""
                if target not in place.names:
                    doubt = f"the filter '{entry.target}' is not defined"
                elif target in nesting:
                    doubt = f"the filter '{entry.target}' refers to a filter itself, which Junos does not take"
                entry = replace(
                    entry, action=UNKNOWN if doubt else JUMP, target="" if doubt else place.names[target], doubt=doubt
                )
            entries.append(entry)
        self.filters[family, chosen.name] = replace(chosen, entries=tuple(entries))

    def _attach(self, place: _Place) -> None:
        """The logical interfaces of one place and what is bound to them."""
        interfaces = at(place.node, "interfaces")
        for physical, node in interfaces.items():
            if physical == "interface-range":
                continue
            for unit, below in at(node, "unit").items():
                path = f"{place.path} interfaces {physical} unit {unit}"
                name = path if place.path else f"{physical}.{unit}"
                self._interface(name, below, "disable" in node or "disable" in below)
                self._bind(place, name, below)
            if "family" in node and re.search(r"\.\d+$", physical):  # the short form of a unit, as it may be typed
                name = physical
                if place.path:
                    name = "{} interfaces {} unit {}".format(place.path, *physical.rsplit(".", 1))
                self._interface(name, node, "disable" in node)
                self._bind(place, name, node)
            elif "family" in node:
                self.reading.doubt(node["family"].line, "a family stands outside of a unit, and may bind a filter")
            if physical != "interface-set":
                self._lost(node, _OF_AN_INTERFACE, {"family", "unit"})

    def _lost(self, node: Node, known: Set[str], words: Set[str]) -> None:
        """A garbled word takes what stands below it away from its place."""
        for word, below in node.items():
            if word not in known and _holds(below, words, 2):
                self.reading.doubt(below.line, f"'{word[:60]}' is not understood, and what stands there is not read")

    def _interface(self, name: str, node: Node, shutdown: bool) -> None:
        prefixes: list[str] = []
        checks: dict[int, tuple[str, int]] = {}
        routed = {FAMILIES[word]: at(node, "family", word) for word in FAMILIES if word in at(node, "family")}
        for number, family in routed.items():
            prefixes += filter(_is_network, at(family, "address"))
            for lender, said in at(family, "unnumbered-address").items():
                preferred = single(at(said, "preferred-source-address"))
                self.lenders.setdefault(name, []).append((lender, preferred[0] if preferred else ""))
            check = family.get("rpf-check")
            if check is not None and check.keys() <= {"mode"} and "loose" not in at(check, "mode"):
                checks[number] = self.reading.text(check.line), check.line
        self.interfaces[name] = Interface(name, node.line, tuple(prefixes), shutdown).checked(checks, routed)

    def _lend(self) -> None:
        """An unnumbered interface has the address of another one that it names, or that one's networks.

        Single addresses of a loopback are the router's own, not a pool's, unless the interface asks for them.
        """
        connected = {name: one.prefixes for name, one in self.interfaces.items()}
        for name, lenders in self.lenders.items():
            for lender, preferred in lenders:
                if preferred:
                    lent = [preferred] if _is_network(preferred) else []
                else:
                    interfaces = [(text, ipaddress.ip_interface(text)) for text in connected.get(lender, ())]
                    lent = [text for text, one in interfaces if one.network.num_addresses > 1]
                self._carry({name: lent})

    def _route(self, place: _Place) -> None:
        """Static routes, by the interface or by the connected network of their next hop in that routing instance."""
        instances = at(place.node, "routing-instances")
        owners: dict[str, str] = {}
        for instance, node in instances.items():
            for interface in at(node, "interface"):
                physical, _, unit = interface.rpartition(".")
                owners[f"{place.path} interfaces {physical} unit {unit}" if place.path else interface] = instance
        connected: dict[tuple[str, int, int, int], str] = {}
        for name, one in self.interfaces.items():
            for text in one.prefixes:
                network = ipaddress.ip_interface(text).network
                where = owners.get(name, "")
                connected[where, network.version, network.prefixlen, int(network.network_address)] = name
        lengths = {
            version: sorted({key[2] for key in connected if key[1] == version}, reverse=True) for version in (4, 6)
        }
        carried: dict[str, list[str]] = {}
        for instance, node in (("", place.node), *instances.items()):
            options = at(node, "routing-options")
            tables = [at(options, "static", "route")]
            tables += [at(table, "static", "route") for table in at(options, "rib").values()]
            for table in tables:
                for text, route in table.items():
                    if not _is_network(text):
                        continue
                    for hop in (*at(route, "next-hop"), *at(route, "qualified-next-hop")):
                        if hop in self.interfaces:
                            carried.setdefault(hop, []).append(text)
                            continue
                        try:
                            address = ipaddress.ip_address(hop)
                        except ValueError:
                            continue
                        for length in lengths[address.version]:
                            start = int(address) >> (address.max_prefixlen - length) << (address.max_prefixlen - length)
                            over = connected.get((instance, address.version, length, start))
                            if over:
                                carried.setdefault(over, []).append(text)
                                break
        self._carry(carried)

    def _carry(self, prefixes: Mapping[str, Sequence[str]]) -> None:
        for name, more in prefixes.items():
            one = self.interfaces[name]
            self.interfaces[name] = replace(one, prefixes=tuple(dict.fromkeys((*one.prefixes, *more))))

    def _bind(self, place: _Place, attachment: str, unit: Node) -> None:
        general = at(unit, "filter")
        families = at(unit, "family")
        self._out_of_place(unit)
        for name, node in families.items():
            if name not in FAMILIES:
                if name != "mpls" and "filter" in node:
                    self.reading.doubt(node["filter"].line, f"a filter of family {name} decides on IP packets too")
                elif name not in _OTHER_FAMILIES and node:
                    self.reading.doubt(node.line, f"'{name[:60]}' is no family, and a garbled one may bind filters")
                continue
            for word in ("simple-filter", "service"):
                if word in node:
                    self.reading.doubt(node[word].line, f"'{word}' may drop packets too and is not read")
            if "adf" in at(node, "filter"):
                self.reading.doubt(node["filter"]["adf"].line, "RADIUS adds filter rules (adf) to the session")
                self._by_session(attachment, node["filter"]["adf"].line)
        for family_name, family in FAMILIES.items():
            specific = at(families, family_name, "filter")
            for side, direction, chain in (("input", "in", "input-chain"), ("output", "out", "output-chain")):
                found = self._stage(place, attachment, general, side, family, "any ")
                if chain in general:
                    found += self._chain(place, general[chain], family, "any ")
                found += self._stage(place, attachment, specific, side, family, "")
                if chain in specific:
                    found += self._chain(place, specific[chain], family, "")
                for filter_name, line in found:
                    # A variable that the profile has a filter for (`uid`) names that one, not what RADIUS says.
                    if filter_name.removeprefix("any ")[:1] == "$" and filter_name not in place.names.values():
                        self._by_session(attachment, line)
                if found:
                    line = found[-1][1]
                    self.filter_lines += 1
                    filters = tuple(name for name, _ in found)
                    self.bindings.append(Binding(attachment, direction, family, filters, line, self.reading.text(line)))

    def _out_of_place(self, unit: Node) -> None:
        """A garbled word of a binding makes the words behind it statements of something else."""
        families = at(unit, "family")
        for stanza in (at(unit, "filter"), *(at(node, "filter") for node in families.values())):
            for word, below in stanza.items():
                if word not in _OF_A_BINDING:
                    self.reading.doubt(below.line, f"'{word}' where a filter is bound is not understood")
                    continue
                for name, behind in below.items():
                    if not behind or word in _OF_ANY_SHAPE:
                        continue
                    if word not in ("input", "output") or not behind.keys() <= {"precedence", "shared-name"}:
                        self.reading.doubt(below.line, f"what stands behind '{word} {name[:60]}' is not understood")
        for word, below in unit.items():
            if word not in _OF_A_UNIT and _holds(below, {"family", "filter", *FAMILIES}, 2):
                self.reading.doubt(below.line, f"'{word}' of a unit is not understood, and a filter may be bound there")
        for node in families.values():
            for word, below in node.items():
                if word in ("filter", "apply-macro") or not below:
                    continue
                if _holds(below, _FILTER if word in _WITH_SIDES else _FILTER_OR_SIDE, 1):
                    self.reading.doubt(
                        below.line, f"'{word}' of a family is not understood, and a filter may be bound there"
                    )

    def _by_session(self, attachment: str, line: int) -> None:
        """A RADIUS server says which filter sessions have there."""
        one = self.interfaces[attachment]
        if not one.sessions_line:
            self.interfaces[attachment] = replace(one, sessions_from=self.reading.text(line), sessions_line=line)

    def _stage(
        self, place: _Place, attachment: str, node: Node, side: str, family: int, kind: str
    ) -> list[tuple[str, int]]:
        """The filter that one `filter { input ... }` binds, and its line: none, one, or a list made into one."""
        alone, several = single(at(node, side)), at(node, f"{side}-list")
        if alone and several:  # they exclude each other: the text's own before what is inherited, then the last
            latest = max(below.line for below in several.values())
            nearest = min(below.rank for below in several.values())
            if (alone[1].rank, -alone[1].line) < (nearest, -latest):
                several = NOTHING
        if several:
            names = [self._resolve(place, kind + name, family, below.line) for name, below in several.items()]
            line = next(iter(several.values())).line
            if len(names) == 1:
                return [(names[0], line)]
            joined = f"{kind}{attachment}-{side[0]}"
            key = (family, *names)  # many units have the same list: its entries are made once
            entries = self.joined.get(key)
            if entries is None:
                entries = self.joined[key] = tuple(
                    entry for name in names for entry in self.filters[family, name].entries
                )
            self.filters[family, joined] = Filter(joined, family, entries, DENY, line, self.reading.text(line))
            return [(joined, line)]
        if alone:
            name, line = alone[0], alone[1].line
            return [(self._resolve(place, kind + name, family, line), line)]
        return []

    def _chain(self, place: _Place, node: Node, family: int, kind: str) -> list[tuple[str, int]]:
        """The filters of a chain and their lines. All look at the packet, also at one that an earlier one discards."""
        found = [(self._resolve(place, kind + name, family, below.line), below.line) for name, below in node.items()]
        for position, (name, line) in enumerate(found[:-1]):
            chosen = self.filters[family, name]
            doubt = "what a filter discards in a chain may be accepted by a later one, which is not documented"
            last = Entry(UNKNOWN, EVERYTHING, chosen.line, chosen.text, doubt=doubt)
            entries = [
                one if one.action == PERMIT else replace(one, action=UNKNOWN, target="", doubt=one.doubt or doubt)
                for one in chosen.entries
            ]
            earlier = f"{name} earlier in a chain"
            self.filters[family, earlier] = replace(chosen, name=earlier, entries=(*entries, last))
            found[position] = earlier, line
        return found

    def _resolve(self, place: _Place, name: str, family: int, line: int) -> str:
        """The Configuration's name for a bound filter; what is not defined gets a filter that nothing is known of."""
        known_as = place.names.get((family, name))
        if known_as is None:
            short = name.removeprefix("any ")
            known_as = full_name(name, place.path)
            doubt = f"the filter '{short}' is not defined, so Junos would not commit this"
            if short[:1] == "$":
                doubt = f"the session says which filter '{short}' is (RADIUS)"
            text = self.reading.text(line)
            entry = Entry(UNKNOWN, EVERYTHING, line, text, doubt=doubt)
            self.filters.setdefault((family, known_as), Filter(known_as, family, (entry,), DENY, line, text))
        return known_as

    def _elsewhere(self, place: _Place) -> None:
        """Filters that work on packets of the interfaces and are bound elsewhere."""
        nodes = [place.node, *at(place.node, "routing-instances").values()]
        for node in nodes:
            for name, family in at(node, "forwarding-options", "family").items():
                for word in ("filter", "flood"):
                    if word in family:
                        reason = f"a forwarding table filter of family {name} may drop packets too and is not read"
                        self.reading.doubt(family[word].line, reason)
            for domains in (at(node, "vlans"), at(node, "bridge-domains")):
                for name, domain in domains.items():
                    for holder in (domain, at(domain, "forwarding-options")):
                        if "filter" in holder:
                            reason = f"a filter of the VLAN {name} decides on IP packets too and is not read"
                            self.reading.doubt(holder["filter"].line, reason)
        policies = at(place.node, "security").get("policies")
        if policies:
            self.reading.doubt(policies.line, "security policies decide on these packets too and are not read")


def _holds(node: Node, words: Set[str], deep: int) -> bool:
    """Does one of the words stand below, with at most so many others in front?"""
    if not words.isdisjoint(node):
        return True
    return deep > 0 and any(_holds(below, words, deep - 1) for below in node.values())


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_interface(text)
    except ValueError:
        return False
    return True
