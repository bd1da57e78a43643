# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Nokia SR OS: filter policies of the MD-CLI, read and written, and of the classic CLI, read.

What is modelled, and where it is written (Nokia; "Router" is the 7450 ESS, 7750 SR, 7950 XRS and VSR Router
Configuration Guide, chapter "Filter policies"; YANG the modules nokia-conf-* and nokia-types-*; "[memory]" marks what
no document at hand confirms):

- Entries are compared in the order of their numbers, the first that matches decides, else the default action, which is
  drop ("ACL filter policy overview"; YANG nokia-conf-filter: default-action). Values and ranges: YANG.
- An entry without an action is inactive ("action": such an entry is a no-op), and `ignore-match` passes it by.
- All criteria of an entry must match; `ip` and `port` match either end; `tcp-udp`, `*` in the classic CLI, is both
  ("IPv4/IPv6 filter policy entry match criteria"). An address with a mask is compared where the mask has ones.
- An entry with layer 4 criteria does not match later fragments ("fragment" of the 7750 guide); releases from 22.7 say
  that values of zero or false match them too ("Operational note for fragmented traffic"): in doubt.
- `fragment` looks at MF and offset in IPv4, at the fragment header in IPv6 (the same). `first-only` and
  `non-first-only` of IPv4 are for ingress only (the same), so our own outbound filters say `fragment true`.
- Whether `next-header` is compared with the first header behind that of IPv6 or with the upper-layer one is said in
  both ways in one sentence ("next-header"): an entry is in doubt for packets with extension headers, until an earlier
  one has decided on those headers by number. Our own filters begin so, because that proves under either.
- Criteria on ports without a protocol, and empty match lists, are not documented: in doubt.
- `apply-path` fills a prefix list from the configuration ("match-list apply-path"): unknown.
- An embedded filter's entry X becomes X + offset of the filter that embeds it; an entry of the embedding filter with
  that number takes its place, one without an action switches it off ("Filter policy scope and embedded filters").
  What flowspec, OpenFlow and VSD embed is not in the configuration: unknown.
- With chain-to-system-filter the active system filter's entries come first; its default action does not count ("System
  filter policy").
- Conditional actions: a packet that matches the entry and not the condition is forwarded, and no further entry is
  asked; on egress the condition always holds ("Filter policy actions"): both outcomes stay open. `rate-limit` passes
  what is within the rate, 0 drops all (the same). forward, reassemble and tcp-mss-adjust pass, nat changes the packet,
  and what http-redirect does to other packets than HTTP is unknown.
- Undefined filters and lists cannot be committed (strict references, "Model-driven management interfaces"): a text
  that has one is not understood there.
- Filters of subscribers are those of their sla-profile ("Configuring IP and IPv6 filter policies for subscriber hosts",
  Triple Play Guide). Whether a filter of the group-interface's SAP works on them beside it is not documented: a doubt;
  where the sla-profile has none, what filters them is unknown then. A sub-profile binds no filter.
- Alc-Subscriber-Filter and the Gx overrides replace a sla-profile's filter, NAS-Filter-Rule and their like insert
  entries in the ranges that the filter reserves (RADIUS Attributes Reference Guide, "IP and IPv6 filters"; YANG
  subscriber-mgmt of a filter): entries unknown there, and `sessions_from` names the line with the server's policy.
- A filter on an interface of a routed VPLS overrides those of the VPLS's SAPs for packets that are routed, for each
  family by itself ("VPLS SAP ingress IP filter override", Layer 2 Services Guide): what such SAPs meet is unknown.
- Anti-spoofing drops what the table of hosts does not have; on SAPs of a group-interface it is on, by IP and MAC,
  unless nh-mac is set ("anti-spoof", Services Guide). urpf-check without a mode is strict [memory].
- Configuration groups are not resolved: where one brings filters or binds them, that is unknown.
- `commit confirmed N` (minutes) takes effect at once; `commit confirmed accept` keeps it. It is rolled back when the
  time is over, by `commit confirmed cancel`, and when its session ends (MD-CLI User Guide, "Committing a
  configuration", and the SReXperts activity "Introduction to the SR OS Model-Driven CLI"): the session that commits
  stays open while a second one proves. `configure exclusive` keeps others from committing, and its changes are gone
  with its session ("Candidate configuration modes").
- `delete` takes a path below the present context ("Editing configuration"), which is /configure all the time: lines
  that set values do not move it [memory].
- IPv6 filters of an sla-profile that active sessions use may be refused (Triple Play Guide, as above): then nothing of
  the change is in force.
- The words of rejections beside `MINOR: MGMT_CORE #2201` (unknown element), `#2301` and `#2052`: [memory].

An attachment is where a filter is bound, in the words of the MD-CLI without quotes: `sla-profile RES`, `router Base
interface to-core`, `service ies 100 interface business sap 1/1/1:300`, `service ies 100 subscriber-interface SUB
group-interface PON sap 1/1/2:100`. The classic CLI knows services by their number.
"""

from __future__ import annotations

import functools
import ipaddress
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import replace

from ..filters import (
    DENY,
    PERMIT,
    UNKNOWN,
    Binding,
    Configuration,
    Entry,
    Filter,
    Interface,
    NotThisPlatform,
)
from ..plan import Push
from . import _sros_push
from ._sros_entries import EVERYTHING, Lists, Walk, number
from ._sros_push import PATH_WORDS, apply, fields, lines, remove
from ._sros_tree import Node, Reading, at, inherited, read, single, uncollected

__all__ = ["apply", "fields", "lines", "remove"]

ALIASES = (
    "nokia.sros.md", "nokia.sros.classic", "nokia.sros.sros", "nokia.sros.light", "community.network.sros", "sros",
    "nokia", "nokia_sros_telnet", "alcatel_sros", "timos",
)  # fmt: skip
DEVICE_TYPE = "nokia_sros"
# Either CLI answers one of them, and refuses the other in a line of its own.
READ = ("/admin show configuration", "/admin display-config")
PRIVILEGED = False  # a login may do what its profile allows, without a password of `enable`
REJECTED = (r"^\s*(?:MINOR|MAJOR|CRITICAL): .*", r"^\s*Error: .*")
PUSH = Push(
    arm=("configure exclusive",),
    commit=("validate", "commit confirmed {minutes}"),
    confirm=("commit confirmed accept",),
    abort=("commit confirmed cancel", "discard", "exit all"),
    save=("/admin save", "exit all"),
    held=True,
)
LIVE = False
WHOLE = False
LINK_LOCAL = True  # a filter sees what stays on the link, too

_COLONS = {"ipv4": False, "ipv6": True}
_SIDES = {"ingress": "in", "egress": "out"}
_FAMILIES = {"ip-filter": 4, "ipv6-filter": 6}
_FAMILY_WORDS = {family: word for word, family in _FAMILIES.items()}
_DEFAULTS = {"": DENY, "drop": DENY, "accept": PERMIT, "forward": PERMIT}
_OF_A_FILTER = frozenset(
    ("apply-groups-exclude", "chain-to-system-filter", "default-action", "description", "embed", "embed-filter",
     "entry", "filter-id", "filter-name", "no", "scope", "shared-policer", "sub-insert-credit-control",
     "sub-insert-radius", "sub-insert-shared-pcc-rule", "sub-insert-shared-radius", "sub-insert-wmark",
     "subscriber-mgmt", "type")
)  # fmt: skip
_OF_FILTERS = frozenset(
    ("apply-groups", "apply-groups-exclude", "copy", "dhcp-filter", "dhcp6-filter", "gre-tunnel-template",
     "ip-exception", "ip-filter", "ipv6-exception", "ipv6-filter", "log", "mac-filter", "match-list", "md-auto-id",
     "no", "redirect-policy", "redirect-policy-binding", "system-filter")
)  # fmt: skip
_MATCH_LISTS = frozenset(("ip-prefix-list", "ipv6-prefix-list", "no", "port-list", "protocol-list"))
_BESIDE = "whether the filter of a SAP works on subscribers beside their sla-profile's is not documented"
_RARE = re.compile(r"[^ -\]_a-}]")  # anything but printable ASCII, and of that ^ ` ~
_MOST_ENTRIES = 200_000  # of all filters together, with what they embed
# Whose sessions a server authorizes, and may give filters.
_SERVERS = frozenset(
    ("auth-policy", "authentication-policy", "diameter-application-policy", "diameter-auth-policy",
     "radius-auth-policy")
)  # fmt: skip
_OVERRIDES = "an interface of this VPLS has a filter for what is routed in place of this one: it is not worked out"
# What overrides the filters of a VPLS, in either CLI: what names it, by family.
_ROUTED: Mapping[bool, Mapping[str, int]] = {
    False: {"routed-override-filter ip": 4, "routed-override-filter ipv6": 6},
    True: {"v4-routed-override-filter": 4, "v6-routed-override-filter": 6},
}
_Overridden = Mapping[tuple[str, int], int]  # (direction, family): the line
_NOTHING_ELSE: _Overridden = {}
# An entry of a filter: its node and text, or why nobody knows what stands there.
_Row = tuple[Node, str, str]


class _Builder:
    """From the tree to the Configuration."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self.root = reading.root
        self.lists = Lists(at(self.root, "filter", "match-list"))
        self.names: dict[tuple[int, str], str] = {}  # (family, name or number in the text) -> name
        self.nodes: dict[tuple[int, str], Node] = {}
        self.filters: dict[tuple[int, str], Filter] = {}
        self.bindings: list[Binding] = []
        self.interfaces: dict[str, Interface] = {}
        self.filter_lines = reading.filter_lines
        self.inherited = inherited(reading)
        self.room = _MOST_ENTRIES
        policies = at(self.root, "subscriber-mgmt", "msap-policy").values()
        told = [at(policy, "ies-vprn-only-sap-parameters") for policy in policies]
        self.msaps_checked = all(self._anti_spoof(one, False) for one in told if "anti-spoof" in one)
        self.latest: list[str] = []  # the interfaces of the router or service that is being read

    def build(self) -> Configuration:
        for word, family in _FAMILIES.items():
            for key, node in at(self.root, "filter", word).items():
                name = single(at(node, "filter-name")) or key
                self.names[family, key] = self.names[family, name] = name
                told = single(at(node, "filter-id"))
                if told:
                    self.names.setdefault((family, told), name)
                self.nodes[family, name] = node
        self._garbled()
        for (family, name), node in self.nodes.items():
            self._define(family, name, node)
        self._routers()
        self._services()
        self._subscribers()
        doubts = tuple(sorted(self.reading.doubts, key=lambda doubt: doubt.line))
        hostname = single(at(self.root, "system", "name"))
        return Configuration(
            self.filters, tuple(self.bindings), self.interfaces, doubts, hostname, self.filter_lines
        )  # fmt: skip

    # --- Filters

    def _garbled(self) -> None:
        """A word that is none, and a name that is hardly one, may be those of a filter that lacks them now."""
        section = at(self.root, "filter")
        lists = at(section, "match-list")
        for word in section.keys() - _OF_FILTERS:
            self.reading.doubt(section[word].line, f"'{word[:60]}' is not known among filters")
        for word in lists.keys() - _MATCH_LISTS:
            self.reading.doubt(lists[word].line, f"'{word[:60]}' is not known among match lists")
        for named in (*(at(section, word) for word in _FAMILIES), *lists.values()):
            for name in filter(_RARE.search, named):
                self.reading.doubt(named[name].line, f"'{name[:60]}' holds what names do not, so the text is garbled")

    def _define(self, family: int, name: str, node: Node) -> None:
        rows = self._rows(family, name, node, ())
        chained = node.get("chain-to-system-filter")
        if chained is not None and single(chained) in ("", "true"):  # the classic CLI has no value there
            rows = self._system(family) + rows
        walk = Walk(self.lists, family)
        found: list[Entry] = []
        for below, text, why in rows:
            if why:
                found.append(Entry(UNKNOWN, EVERYTHING, below.line, text, doubt=why))
            else:
                found += walk.entries(below, text)
        told = single(at(node, "default-action"))
        if told not in _DEFAULTS:
            self.reading.doubt(node["default-action"].line, f"the default action '{told[:60]}' was not understood")
        default = _DEFAULTS.get(told, UNKNOWN)
        text = f"{_FAMILY_WORDS[family]} {name}"
        self.filters[family, name] = Filter(name, family, tuple(found), default, node.line, text)

    def _system(self, family: int) -> list[_Row]:
        """The entries of the active system filter, which come before those of a filter that is chained to it."""
        active = at(self.root, "filter", "system-filter", "ip" if family == 4 else "ipv6")
        told = next(iter(active), "")
        if not told:
            return []
        name = self.names.get((family, told), "")
        node = self.nodes.get((family, name))
        if node is None:
            return [(active, f"system-filter {told}", f"the system filter '{told[:60]}' is not defined")]
        self.room -= len(at(node, "entry"))
        if self.room < 0:
            return [(active, f"system-filter {told}", "too many entries to be read")]
        return self._rows(family, name, node, ())

    def _rows(self, family: int, name: str, node: Node, outer: tuple[str, ...]) -> list[_Row]:
        """The entries of a filter in their order, with what it embeds."""
        word = _FAMILY_WORDS[family]
        numbered: dict[int, list[_Row]] = {}
        for strange in (one for one in node if one not in _OF_A_FILTER):
            text = f"{word} {name} {strange}"[:120]
            numbered.setdefault(0, []).append((node[strange], text, f"'{strange[:60]}' was not understood in a filter"))
        if "filter" in self.inherited:
            numbered.setdefault(0, []).append((node, f"{word} {name}", self.inherited["filter"]))
        for offset, line, embedded, state in _embedded(node):
            if state in ("disable", "inactive"):
                continue
            text = f"{word} {name} embed {embedded}"
            below = self.nodes.get((family, self.names.get((family, embedded), "")))
            if embedded in outer or outer or not embedded or below is None or self.room < len(at(below, "entry")):
                why = f"what '{embedded[:60] or 'a controller'}' embeds is not in the configuration"
                if outer:  # scope embedded does not embed
                    why = f"that an embedded filter embeds '{embedded[:60]}' was not understood"
                numbered.setdefault(offset, []).append((line, text, why))
                continue
            self.room -= len(at(below, "entry"))
            for inner in self._rows(family, embedded, below, (*outer, name)):
                place = number(inner[1].rpartition(" ")[2]) if not inner[2] else None
                numbered.setdefault(offset + (place or 0), []).append((inner[0], f"{text}, {inner[1]}", inner[2]))
        for start, line in _inserted(node):
            why = "RADIUS or Diameter may insert entries here"
            numbered.setdefault(start, []).append((line, f"{word} {name} entry {start}", why))
        own: dict[int, list[_Row]] = {}
        for told, below in at(node, "entry").items():
            place = number(told)
            text = f"{word} {name} entry {told}"
            if place is None:
                numbered.setdefault(0, []).append((below, text, f"'{told[:60]}' is no number of an entry"))
                continue
            own[place] = [row for row in numbered.get(place, ()) if row[2]] + [(below, text, "")]
        numbered.update(own)
        return [row for place in sorted(numbered) for row in numbered[place]]

    def _resolve(self, family: int, told: str, line: int) -> str:
        """The name of a filter that is referred to; what is not defined gets one that nothing is known of."""
        name = self.names.get((family, told))
        if name is None:
            name = told
            doubt = f"the filter '{told[:60]}' is not defined, so SR OS would not commit this"
            text = self.reading.text(line)
            entry = Entry(UNKNOWN, EVERYTHING, line, text, doubt=doubt)
            self.filters.setdefault((family, name), Filter(name, family, (entry,), DENY, line, text))
        return name

    # --- Where they are bound

    def _bind(self, place: str, node: Node, words: Mapping[str, int], overridden: _Overridden = _NOTHING_ELSE) -> None:
        """`words`: what names a filter below ingress and egress, by family. `overridden`: where another one works."""
        for side, direction in _SIDES.items():
            for word, family in words.items():
                if (direction, family) in overridden:
                    self._unknown(place, direction, family, overridden[direction, family], _OVERRIDES)
                    continue
                below = at(node, side, *word.split())
                told = single(below)
                if told == "name":
                    below = below[told]
                    told = single(below)
                if not told:
                    if "bindings" in self.inherited:
                        self._unknown(place, direction, family, node.line, self.inherited["bindings"])
                    continue
                self.filter_lines += 1
                line = below[told].line
                name = self._resolve(family, told, line)
                self.bindings.append(Binding(place, direction, family, (name,), line, self.reading.text(line)))
            mac = at(node, side, "filter", "mac")
            if mac:
                self.reading.doubt(mac.line, "a MAC filter decides on these packets too and is not read")
            for word, below in at(node, side, "filter").items():
                if word not in ("ip", "ipv6", "mac"):
                    self.reading.doubt(below.line, f"'{word[:60]}' was not understood where filters are bound")

    def _unknown(self, place: str, direction: str, family: int, line: int, why: str) -> None:
        """A place where nobody knows what is bound."""
        text = self.reading.text(line)
        name = f"unknown on {place}"
        entry = Entry(UNKNOWN, EVERYTHING, line, text, doubt=why)
        self.filters.setdefault((family, name), Filter(name, family, (entry,), UNKNOWN, line, text))
        self.bindings.append(Binding(place, direction, family, (name,), line, text))

    def _routers(self) -> None:
        for name, node in at(self.root, "router").items():
            self.latest.clear()
            for told, below in at(node, "interface").items():
                if "loopback" in below or told == "system":
                    continue
                place = _path("router", name, "interface", told)
                self._bind(place, below, {"filter ip": 4, "filter ipv6": 6})
                self._interface(place, below, _addresses(below), _disabled(below), self._reverse_path(below))
            self._route(node)

    def _services(self) -> None:
        overridden: dict[str, dict[tuple[str, int], int]] = {}  # VPLS: what interfaces override, with the lines
        for kind in ("ies", "vprn", "vpls", "epipe", "ipipe"):
            for name, node in at(self.root, "service", kind).items():
                self.latest.clear()
                down = _disabled(node)
                # The classic CLI has the numbers of the VPLSs here and names there: it may be any.
                theirs = [overridden.get(name, {}), *(overridden.values() if self.reading.classic else ())]
                replaced = dict(itertools.chain(*(one.items() for one in theirs))) if kind == "vpls" else {}
                self._saps(_path("service", kind, name), node, (), down, None, replaced)
                for told, below in at(node, "interface").items():
                    if "loopback" in below:
                        continue
                    place = _path("service", kind, name, "interface", told)
                    check = self._reverse_path(below)
                    self._saps(place, below, _addresses(below), down or _disabled(below), check)
                    for routed, sides in at(below, "vpls").items():
                        known = len(self.bindings)
                        self._bind(place, sides, _ROUTED[self.reading.classic])
                        for one in self.bindings[known:]:
                            overridden.setdefault(routed, {})[one.direction, one.family] = one.line
                        if len(self.bindings) > known:
                            self._interface(place, below, _addresses(below), down or _disabled(below), check)
                self._route(node)

    def _saps(
        self, place: str, node: Node, prefixes: tuple[str, ...], down: bool, check: tuple[str, int] | None,
        overridden: _Overridden = _NOTHING_ELSE,
    ) -> None:  # fmt: skip
        """The SAPs and SDPs of an interface: that is where its filters are bound."""
        for word in ("sap", "spoke-sdp", "mesh-sdp"):
            for told, below in at(node, word).items():
                here = _path(place, word, told)
                self._bind(here, below, {"filter ip": 4, "filter ipv6": 6}, overridden)
                spoofed = self._anti_spoof(below, False) or check
                self._interface(here, below, prefixes, down or _disabled(below), spoofed)

    def _interface(
        self, name: str, node: Node, prefixes: Iterable[str], down: bool, check: tuple[str, int] | None
    ) -> None:
        text, line = check or ("", 0)
        self.latest.append(name)
        server = next((node[word] for word in _SERVERS if node.get(word)), None)
        told = (self.reading.text(server.line), server.line) if server is not None else ("", 0)
        self.interfaces[name] = Interface(name, node.line, tuple(prefixes), down, text, line, told[0], told[1])

    def _reverse_path(self, node: Node) -> tuple[str, int] | None:
        """The line of a strict check for every family that the interface has."""
        found = []
        for family, colon in _COLONS.items():
            if not any((":" in text) == colon for text in _addresses(node)):
                continue
            check = at(node, family).get("urpf-check")
            if check is None and not colon:
                check = node.get("urpf-check")  # classic
            if check is None or not (single(at(check, "mode")) or "strict").startswith("strict"):
                return None
            found.append(check.line)
        return (self.reading.text(found[0]), found[0]) if found else None

    def _anti_spoof(self, node: Node, default: bool) -> tuple[str, int] | None:
        """The line by which a SAP lets through only the addresses of its hosts."""
        told = node.get("anti-spoof")
        if told is None:
            return (self.reading.text(node.line), node.line) if default and not at(node, "no", "anti-spoof") else None
        kind = single(told)
        return (self.reading.text(told.line), told.line) if "ip" in kind and "next-hop" not in kind else None

    # --- Subscribers

    def _subscribers(self) -> None:
        profiles = at(self.root, "subscriber-mgmt", "sla-profile")
        # sla-profile -> subscriber-interface, by its identity -> its prefixes
        carried: dict[str, dict[int, tuple[str, ...]]] = {name: {} for name in profiles}
        networks: dict[int, tuple[str, ...]] = {}
        families: dict[int, list[str]] = {}
        checks: dict[str, list[tuple[str, int] | None]] = {name: [] for name in profiles}
        servers: dict[str, list[Node]] = {name: [] for name in profiles}
        captured = self._captured()
        policies = at(self.root, "subscriber-mgmt", "msap-policy")
        named = {policy: _used_profiles(node) for policy, node in policies.items()}
        anywhere = _lines_below(at(self.root, "subscriber-mgmt", "local-user-db"), _SERVERS)
        for line in _lines_below(at(self.root, "subscriber-mgmt", "local-user-db"), {"filter-overrides"}):
            self.reading.doubt(
                line.line, "the filters of this host take the place of its sla-profile's, and are not read"
            )
        filtering: list[Node] = []  # group-interface SAPs that have filters of their own
        for place, subscriber, group, down in self._groups():
            used: dict[str, None] = dict.fromkeys(_used_profiles(group))
            told = place.rpartition(" ")[2].strip('"')
            for policy in captured.get(told, {}):
                used |= dict.fromkeys(named.get(policy, ()))
            found = _lines_below(group, _SERVERS) + [one for ones in captured.get(told, {}).values() for one in ones]
            anywhere += found
            if id(subscriber) not in networks:
                networks[id(subscriber)] = _addresses(subscriber)
                colons = {":" in text for text in networks[id(subscriber)]}
                families[id(subscriber)] = [word for word, colon in _COLONS.items() if colon in colons]
            prefixes = networks[id(subscriber)]
            check = self._hosts_checked(group, families[id(subscriber)])
            own = [
                sap for sap in at(group, "sap").values() if any(at(sap, side, "filter") for side in _SIDES)
            ]  # fmt: skip
            filtering += own
            theirs = [name for name in used if name in profiles and (_filters_of(profiles[name]) or not own)]
            for name in theirs:
                carried[name][id(subscriber)] = prefixes
                checks[name].append(check)
                servers[name] += found
            rest = () if theirs else prefixes
            for told, sap in at(group, "sap").items():
                here = _path(place, "sap", told)
                self._bind(here, sap, {"filter ip": 4, "filter ipv6": 6})
                self._interface(here, sap, rest, down or _disabled(sap), self._anti_spoof(sap, True) or check)
                self.interfaces[here] = self._authorized(self.interfaces[here], found)
            self._interface(place, group, () if "sap" in group else rest, down or _disabled(group), check)
            if found:
                self.interfaces[place] = self._authorized(self.interfaces[place], found)
        theirs_too = self._beside(filtering if profiles else ())
        for name, node in profiles.items():
            place = _path("sla-profile", name)
            self._bind(place, node, _FAMILIES)
            whole = [one for one in checks[name] if one]
            check = whole[0] if whole and len(whole) == len(checks[name]) else None
            every = list(carried[name].values())
            there = every[0] if len(every) == 1 else dict.fromkeys(itertools.chain(*every))
            self._interface(place, node, there, False, check)
            self.interfaces[place] = self._authorized(
                self.interfaces[place], servers[name] if checks[name] else anywhere
            )
            bound = {
                (side, family) for side in _SIDES for word, family in _FAMILIES.items() if single(at(node, side, word))
            }
            for side, family in theirs_too.keys() - bound:
                self._unknown(place, _SIDES[side], family, theirs_too[side, family], _BESIDE)

    def _groups(self) -> Iterator[tuple[str, Node, Node, bool]]:
        """Every group-interface: its path, its subscriber-interface, itself, whether it is down."""
        for kind in ("ies", "vprn"):
            for name, service in at(self.root, "service", kind).items():
                for told, subscriber in at(service, "subscriber-interface").items():
                    for group, below in at(subscriber, "group-interface").items():
                        down = _disabled(service) or _disabled(subscriber)
                        path = _path("service", kind, name, "subscriber-interface", told, "group-interface", group)
                        yield path, subscriber, below, down

    def _captured(self) -> dict[str, dict[str, list[Node]]]:
        """Capture SAPs: group-interface -> msap-policy -> the lines of servers that authorize there."""
        found: dict[str, dict[str, list[Node]]] = {}
        for service in at(self.root, "service", "vpls").values():
            saps = [*at(service, "capture-sap").values(), *at(service, "sap").values()]
            for sap in saps:
                told = at(sap, "msap-defaults")
                group, policy = single(at(told, "group-interface")), single(at(told, "policy"))
                if group:
                    found.setdefault(group, {}).setdefault(policy, []).extend(_lines_below(sap, _SERVERS))
        return found

    def _hosts_checked(self, group: Node, families: Sequence[str]) -> tuple[str, int] | None:
        """The line by which the sources of hosts on a group-interface are validated."""
        strict: list[int] = []
        for family in families:
            check = at(group, family).get("urpf-check")
            told = check is not None and (single(at(check, "mode")) or "strict").startswith("strict")
            strict.append(check.line if check is not None and told else 0)
        if strict and all(strict):
            return self.reading.text(strict[0]), strict[0]
        saps = [self._anti_spoof(sap, True) for sap in at(group, "sap").values()]
        if not all(saps) or not self.msaps_checked:
            return None
        return saps[0] if saps else (self.reading.text(group.line), group.line)

    def _authorized(self, interface: Interface, servers: Sequence[Node]) -> Interface:
        if not servers or interface.sessions_from:
            return interface
        line = servers[0].line
        return replace(interface, sessions_from=self.reading.text(line), sessions_line=line)

    def _beside(self, saps: Sequence[Node]) -> dict[tuple[str, int], int]:
        """The filters of SAPs beside which sla-profiles stand: each a doubt; the first lines by side and family."""
        found: dict[tuple[str, int], int] = {}
        for sap in saps:
            for side in _SIDES:
                for word, family in (("ip", 4), ("ipv6", 6)):
                    below = at(sap, side, "filter", word)
                    if below:
                        found.setdefault((side, family), below.line)
                        self.reading.doubt(below.line, _BESIDE)
        return found

    def _route(self, node: Node) -> None:
        """Static routes of a router instance, by the connected network of their next hop."""
        hops: list[tuple[str, str]] = []
        for told, route in at(node, "static-routes", "route").items():
            hops += [(told.split()[0], hop) for hop in at(route, "next-hop")]
        for told, route in at(node, "static-route-entry").items():
            hops += [(told, hop) for hop in at(route, "next-hop")]
        if not hops:
            return
        connected: dict[tuple[int, int, int], str] = {}
        for name in self.latest:
            for text in self.interfaces[name].prefixes:
                network = ipaddress.ip_interface(text).network
                connected.setdefault((network.version, network.prefixlen, int(network.network_address)), name)
        lengths = {version: sorted({key[1] for key in connected if key[0] == version}) for version in (4, 6)}
        carried: dict[str, dict[str, None]] = {}
        for text, hop in hops:
            try:
                address, _ = ipaddress.ip_address(hop), ipaddress.ip_interface(text)
            except ValueError:
                continue
            for length in reversed(lengths[address.version]):
                free = address.max_prefixlen - length
                over = connected.get((address.version, length, int(address) >> free << free))
                if over:
                    carried.setdefault(over, {})[text] = None
                    break
        for name, more in carried.items():
            one = self.interfaces[name]
            self.interfaces[name] = replace(one, prefixes=tuple(dict.fromkeys((*one.prefixes, *more))))


def _path(*words: str) -> str:
    return " ".join(f'"{word}"' if " " in word and index and words[index - 1] in PATH_WORDS else word
                    for index, word in enumerate(words))  # fmt: skip


def _disabled(node: Node) -> bool:
    return single(at(node, "admin-state")) == "disable" or "shutdown" in node


def _addresses(node: Node) -> tuple[str, ...]:
    """The networks of an interface, and the prefixes of a subscriber-interface, in both CLIs."""
    found: list[str] = []
    for family in ("ipv4", "ipv6"):
        below = at(node, family)
        primary = at(below, "primary")
        found.append(f"{single(at(primary, 'address'))}/{single(at(primary, 'prefix-length'))}")
        for word in ("secondary", "address"):
            for told, length in at(below, word).items():
                bits = single(at(length, "prefix-length"))
                found.append(f"{told}/{bits}" if bits else told)
        found += at(below, "prefix")
        found += at(below, "subscriber-prefixes", "prefix")
    for word in ("address", "secondary"):
        found += at(node, word)
    return tuple(dict.fromkeys(text for text in found if _is_network(text)))


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_interface(text)
    except ValueError:
        return False
    return "/" in text


def _filters_of(profile: Node) -> bool:
    return any(at(profile, side, word) for side in _SIDES for word in _FAMILIES)


def _embedded(node: Node) -> Iterator[tuple[int, Node, str, str]]:
    """What a filter embeds: offset, node, the filter's name ("" for a controller's), administrative state."""
    for kind, below in at(node, "embed").items():
        for told, line in below.items():
            words = told.split()
            offset = number(words[-1]) if len(words) > 1 and words[-2] == "offset" else None
            name = told.rpartition(" offset ")[0] if kind == "filter" else ""
            yield offset or 0, line, name if offset is not None else "", single(at(line, "admin-state"))
    for words, line in _chains(at(node, "embed-filter")):
        offset = number(words[words.index("offset") + 1]) if "offset" in words[:-1] else 0
        controller = words[0] in ("flowspec", "open-flow", "vsd")
        yield offset or 0, line, "" if controller or offset is None else words[0], words[-1]


def _chains(node: Node) -> Iterator[tuple[list[str], Node]]:
    """The words of each line of the classic CLI that stands below."""
    ahead = [([word], below) for word, below in node.items()]
    while ahead:
        words, below = ahead.pop()
        if not below:
            yield words, below
        ahead += [([*words, word], more) for word, more in below.items()]


def _inserted(node: Node) -> Iterator[tuple[int, Node]]:
    """The first numbers of the ranges that RADIUS and Diameter fill."""
    for kind in ("host-specific-entry", "shared-entry"):
        for part in at(node, "subscriber-mgmt", kind).values():
            start = single(at(part, "range", "start"))
            if start:
                yield number(start) or 0, part
    for word, below in node.items():
        if word.startswith("sub-insert-") and word != "sub-insert-wmark":
            yield number(single(at(below, "start-entry"))) or 0, below


def _lines_below(node: Node, words: Set[str]) -> list[Node]:
    """What stands below it behind one of the words, line by line."""
    found: list[Node] = []
    ahead = [node]
    while ahead:
        here = ahead.pop()
        for word, below in here.items():
            if word in words and below:
                found.append(below)
            else:
                ahead.append(below)
    return sorted(found, key=lambda one: one.line)


def _used_profiles(node: Node) -> list[str]:
    """The sla-profiles that are named below it."""
    found: list[str] = []
    ahead = [node]
    while ahead:
        here = ahead.pop()
        for word, below in here.items():
            if word in ("sla-profile", "def-sla-profile"):
                found += below
            else:
                ahead.append(below)
    return found


@functools.lru_cache(maxsize=4)
def _configuration(text: str) -> Configuration:
    reading = read(text)
    strange = [line for line in reading.lines[:2000] if line.rstrip().endswith(";")]
    if len(reading.known) <= len(reading.strange) or len(strange) > 2:
        raise NotThisPlatform(
            "this does not look like an SR OS configuration: give it 'admin show configuration' (MD-CLI) or 'admin "
            "display-config' (classic CLI)"
        )
    with uncollected():
        return _Builder(replace(reading, doubts=list(reading.doubts))).build()


def parse(text: str, attachments: Sequence[str] = ()) -> Configuration:
    """What the configuration means, in either CLI's form. Raises NotThisPlatform when nothing of it is SR OS.

    `attachments` make no difference on this platform.
    """
    del attachments
    return _configuration(text)


_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def incomplete(text: str) -> str:
    """Why this is not the whole running configuration of an SR OS router, "" when nothing speaks against it."""
    if not text.strip():
        return "the router sent no configuration"
    control = _CONTROL.search(text)
    if control:
        return f"a control character (terminal escape?) in line {text.count(chr(10), 0, control.start()) + 1}"
    pager = re.search(
        r"^(?:Press Q to quit|--\(more\)--|Press any key to continue)", text, re.MULTILINE | re.IGNORECASE
    )
    if pager:
        return f"the pager stopped the output in line {text.count(chr(10), 0, pager.start()) + 1}"
    reading = read(text)
    if reading.problem:
        return reading.problem
    if not reading.known and reading.refused:
        return f"the router printed no configuration: '{reading.refused}'"
    if "system" not in reading.known or not reading.known & {"router", "service"}:
        return "it has no 'system' and no 'router' or 'service', which every router has: it may have been cut off"
    return ""


def restore(running: str, backup: str, names: Sequence[str]) -> list[str]:
    """The commands that give the attachments the filters they have in the backup, and delete ours behind them."""
    return _sros_push.restore(running, backup, names, parse)
