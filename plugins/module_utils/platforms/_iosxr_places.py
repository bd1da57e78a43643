# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where IOS XR binds lists: interfaces, dynamic templates of subscribers, and what is connected or routed there."""

from __future__ import annotations

import difflib
import functools
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..filters import DENY, UNKNOWN, Binding, Doubt, Entry, Filter, Interface
from ._cisco_places import (
    DIRECTIONS,
    add_routes,
    check_said,
    droppers,
    interface_prefix,
    like_ipv6,
    pool_prefixes,
    vrfs,
)
from ._cisco_text import Block, Cut

_KINDS = {
    name.lower(): name
    for name in (
        "Bundle-Ether", "Bundle-POS", "BVI", "FastEthernet", "FiftyGigE", "FortyGigE", "FourHundredGigE",
        "GigabitEthernet", "HundredGigE", "Loopback", "MgmtEth", "Null", "PW-Ether", "PW-IW", "POS", "Serial",
        "TenGigE", "TwentyFiveGigE", "TwoHundredGigE", "tunnel-ip", "tunnel-te",
    )
}  # fmt: skip
_NAME = re.compile(r"([A-Za-z-]+)(\d.*)")
_PBR = "a policy of the type pbr may drop or divert packets, and is not read"
_SUSPICIOUS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("service-policy", "type", "pbr"), _PBR),
    (("ethernet-services", "access-group"), "an Ethernet services access list filters too, and is not read"),
)
_LISTS = ("access-group", "access-list", "object-group", "verify", "service-policy")
_WITH_SIDES = frozenset({"description", "flow", "mac-accounting", "monitor-session", "rewrite", "service-policy"})
_IMPLICIT = ": implicit permit"
_AUTHORIZED = re.compile(r"aaa (?:authentication|authorization) subscriber \S+ .*\bgroup\b")
_POOLS: tuple[tuple[str, ...], ...] = (("ppp", "ipcp", "peer-address", "pool"), ("ipv6", "nd", "framed-prefix-pool"))


@dataclass
class Places:
    """What the blocks of a text say."""

    interfaces: dict[str, Interface] = field(default_factory=dict)
    bindings: dict[tuple[str, str, int], Binding] = field(default_factory=dict)
    chains: dict[tuple[int, str], tuple[str, ...]] = field(default_factory=dict)  # lists bound together, by both names
    doubts: list[Doubt] = field(default_factory=list)
    # Lines that bind something, and what is not known: where, in which families, the words, the line and its text.
    unsure: list[tuple[str, tuple[int, ...], tuple[str, ...], int, str]] = field(default_factory=list)
    droppers: frozenset[str] = frozenset()  # policies that drop packets of a class
    lines: int = 0


def interface_name(name: str) -> str:
    """In the letters that the router prints: bundle-ether1.100 is Bundle-Ether1.100."""
    found = _NAME.fullmatch(name)
    return _KINDS.get(found[1].lower(), found[1]) + found[2] if found else name


def read(
    cut: Cut, filters: dict[tuple[int, str], Filter]
) -> tuple[dict[str, Interface], tuple[Binding, ...], tuple[Doubt, ...], int]:
    """Interfaces, bindings, doubts and the number of lines that bind; lists bound together become a filter."""
    places = Places(droppers=frozenset(name for kind, name in droppers(cut) if kind == "policy-map"))
    pools: dict[tuple[int, str], tuple[str, ...]] = {}
    routes: list[tuple[int, list[str]]] = []
    blocks: dict[str, Block] = {}
    sessions = "", 0
    for name, block in cut.interfaces.items():
        there = blocks.setdefault(interface_name(name), Block(block.words, block.line))
        there.lines += block.lines
    for block in cut.others:
        kind = block.words[0]
        if kind == "dynamic-template":
            for template in _templates(block):
                there = blocks.setdefault(" ".join(template.words), Block(template.words, template.line))
                there.lines += template.lines
        elif kind == "pool":
            _pool(block, pools)
        elif kind == "flowspec":
            reason = "flow specifications that BGP brings filter too, and are not read"
            installed = [(number, raw.strip()) for number, raw in block.lines if "local-install" in raw.split()]
            places.doubts += [Doubt(number, text, reason) for number, text in installed]
        elif kind == "vrf-policy":  # of everything that comes in by a VRF
            said = [(block.line, " ".join(block.words)), *block.lines]
            places.doubts += [Doubt(number, raw.strip(), _PBR) for number, raw in said if "pbr" in raw.split()]
        elif block.words[:2] == ["router", "static"]:
            routes += _routes(block)
        elif not sessions[1] and _AUTHORIZED.match(" ".join(block.words)):
            sessions = " ".join(block.words), block.line
    borrowed: list[tuple[str, int, str]] = []
    for name, block in blocks.items():
        _place(name, block, places, borrowed, pools)
    for name, family, target in borrowed:
        if target in places.interfaces:
            more = [one for one in places.interfaces[target].prefixes if (":" in one) == (family == 6)]
            interface = places.interfaces[name]
            places.interfaces[name] = replace(interface, prefixes=(*interface.prefixes, *more))
    if sessions[1]:
        for name, interface in places.interfaces.items():
            if name.startswith(("dynamic-template type ppp ", "dynamic-template type ipsubscriber ")):
                places.interfaces[name] = replace(interface, sessions_from=sessions[0], sessions_line=sessions[1])
    add_routes(routes, places.interfaces, vrfs(blocks))
    _applied_groups(cut, places)
    _activated_together(cut, places)
    for name, families, words, number, text in places.unsure:
        sides = [DIRECTIONS[word] for word in words if word in DIRECTIONS] or ["in", "out"]
        for place in itertools.product((name,), sides, families):
            if place not in places.bindings:
                places.chains[place[2], text] = ()
                places.bindings[place] = Binding(*place, (text,), number, text)
    for binding in places.bindings.values():
        key = binding.family, binding.filters[0]
        if key in places.chains and key not in filters:
            filters[key] = _chain(filters, binding, places.chains[key])
    return places.interfaces, tuple(places.bindings.values()), tuple(places.doubts), places.lines


def _templates(block: Block) -> Iterator[Block]:
    """`dynamic-template` with its templates below it, each with the lines below that."""
    if len(block.words) > 3:  # `dynamic-template type ppp NAME`, as typed, and `... NAME ipv4 access-group ...`
        formal = [(block.line, " ".join(block.words[4:]))] if len(block.words) > 4 else []
        yield Block(block.words[:4], block.line, formal + block.lines)
        return
    template: Block | None = None
    outer = min((len(raw) - len(raw.lstrip()) for _, raw in block.lines), default=0)
    for number, raw in block.lines:
        words = raw.split()
        if len(raw) - len(raw.lstrip()) == outer:
            if template:
                yield template
            template = Block(["dynamic-template", *words], number) if words[0] == "type" else None
        elif template:
            template.lines.append((number, raw))
    if template:
        yield template


def _pool(block: Block, pools: dict[tuple[int, str], tuple[str, ...]]) -> None:
    """`pool vrf default ipv4 NAME` with ranges and networks below it."""
    families = {"ipv4": 4, "ipv6": 6}
    at = next((at for at, word in enumerate(block.words) if word in families), 0)
    family, name = families.get(block.words[at], 0), "".join(block.words[at + 1 : at + 2])
    for words in (block.words[at + 2 :], *(raw.split() for _, raw in block.lines)):
        if words and words[0] in ("network", "address-range", "prefix-range", "prefix", "address"):
            key = family, name
            pools[key] = pools.get(key, ()) + pool_prefixes(tuple(words[1:]))


def _routes(block: Block) -> Iterator[tuple[int, list[str]]]:
    """`router static`: the routes of every family and VRF, as `[vrf NAME] PREFIX TARGET ...`."""
    family, vrf, outer = 4, "", 0
    if len(block.words) > 2:  # `router static [vrf NAME] address-family ipv4 unicast PREFIX TARGET`
        vrf = block.words[3] if block.words[2] == "vrf" and len(block.words) > 3 else ""
        at = block.words.index("address-family") if "address-family" in block.words else len(block.words)
        route = block.words[at + 3 :]
        if len(route) > 1:
            route = [route[0], interface_name(route[1]), *route[2:]]
            yield 6 if block.words[at + 1] == "ipv6" else 4, ["vrf", vrf, *route] if vrf else route
    for _, raw in block.lines:
        words, depth = raw.split(), len(raw) - len(raw.lstrip())
        outer = outer or depth
        if depth == outer:
            vrf = words[1] if words[0] == "vrf" and len(words) > 1 else ""
        if words[0] == "address-family" and len(words) > 1:
            family = 6 if words[1] == "ipv6" else 4
        elif "/" in words[0] and len(words) > 1:
            route = [words[0], interface_name(words[1]), *words[2:]]
            yield family, ["vrf", vrf, *route] if vrf else route


def _place(
    name: str,
    block: Block,
    places: Places,
    borrowed: list[tuple[str, int, str]],
    pools: Mapping[tuple[int, str], tuple[str, ...]],
) -> None:
    prefixes: list[str] = []
    shutdown = sees_ipv6 = False
    checks: dict[int, tuple[str, int]] = {}
    for number, raw in block.lines:
        words, text = raw.partition(" !")[0].split(), raw.strip()
        if words == ["shutdown"]:
            shutdown = True
        if len(words) < 2 or words[0][0] == "!":
            continue
        if words == ["no", "shutdown"]:
            shutdown = False
        gone = words[0] == "no"
        bare = words[1:] if gone else words
        family = {"ipv4": 4, "ipv6": 6}.get(bare[0], 0)
        sees_ipv6 = sees_ipv6 or like_ipv6(bare)
        if family and bare[1:2] == ["access-group"]:
            _bind(name, family, bare[2:], (number, text), places, gone)
        elif family and bare[1:2] == ["verify"]:
            check_said(checks, family, bare[2:], ("", 0) if gone else (text, number))
        elif gone:
            continue
        elif family and words[1] == "address":
            found = interface_prefix(words[2:], family)
            if found:
                prefixes.append(found)
        elif family and words[1] == "unnumbered" and len(words) > 2:
            borrowed.append((name, family, interface_name(words[2])))
        elif words[0] == "dhcpv6" and words[1].endswith("-pool") and len(words) > 2:
            prefixes += pools.get((6, words[2]), ())
        else:
            for before in _POOLS:
                if tuple(words[: len(before)]) == before and len(words) > len(before):
                    prefixes += pools.get((6 if words[0] == "ipv6" else 4, words[len(before)]), ())
            if words[0] == "service-policy" and not places.droppers.isdisjoint(words):
                places.doubts.append(Doubt(number, text, "the policy drops packets of a class, and is not read"))
                continue
            for start, reason in _SUSPICIOUS:
                if words[: len(start)] == list(start):
                    places.doubts.append(Doubt(number, text, reason))
                    break
            else:
                # `ipv4 access-gr` is cut off; `ipv4 a` may be an address.
                binds = any(_like_the_word(word) for word in words) or (
                    family and len(words[1]) > 1 and "access-group".startswith(words[1])
                )
                if words[0] not in _WITH_SIDES and (binds or not {"ingress", "egress"}.isdisjoint(words)):
                    reason = "a line with a direction may bind a filter, and is not read"
                    places.doubts.append(Doubt(number, text, reason))
                    if binds:
                        places.unsure.append((name, (family,) if family else (4, 6), tuple(words), number, text))
    one = Interface(name, block.line, tuple(prefixes), shutdown)
    places.interfaces[name] = one.checked(checks, (4, 6) if sees_ipv6 else (4,))


def _bind(name: str, family: int, words: Sequence[str], where: tuple[int, str], places: Places, gone: bool) -> None:
    """`ipv4 access-group [common LIST] [LIST] ingress [hardware-count] ...`, or what takes it away."""
    number, text = where
    found = bound(words)
    if gone:
        side = found[1] if found else next((DIRECTIONS[word] for word in words if word in DIRECTIONS), "")
        places.bindings.pop((name, side, family), None)
        return
    places.lines += 1
    if found is None:
        places.doubts.append(Doubt(number, text, "a filter is bound in a form that is not understood"))
        places.unsure.append((name, (family,), tuple(words), number, text))
        return
    lists, side = found
    joined = lists[0]
    if len(lists) > 1:
        joined = f"common {' + '.join(lists)}"
        places.chains[family, joined] = lists
    places.bindings[name, side, family] = Binding(name, side, family, (joined,), number, text)


def bound(words: Sequence[str]) -> tuple[tuple[str, ...], str] | None:
    """Of the words behind `access-group`: the lists in their order and the direction; None when not understood."""
    at = next((index for index, word in enumerate(words) if word in ("ingress", "egress")), 0)
    names, rest = list(words[:at]), list(words[at + 1 :])
    lists: list[str] = []
    while names[:1] == ["common"] and len(names) > 1:
        lists.append(names[1])
        names = names[2:]
    lists += names
    if len(names) > 1 or not lists:
        return None
    while rest:
        if rest[0] in ("hardware-count", "interface-statistics"):
            rest = rest[1:]
        elif rest[:2] == ["compress", "level"] and len(rest) > 2 and rest[2].isdecimal():
            rest = rest[3:]
        else:
            return None
    return tuple(lists), DIRECTIONS[words[at]]


@functools.lru_cache(maxsize=1024)
def _like_the_word(word: str) -> bool:
    return bool(difflib.get_close_matches(word, ["access-group"], n=1, cutoff=0.8))


def _chain(filters: Mapping[tuple[int, str], Filter], binding: Binding, members: Sequence[str]) -> Filter:
    """Lists that are bound together: the common one is searched first, and one implicit deny ends them all."""
    entries: list[Entry] = [] if members else [Entry(UNKNOWN, ({},), binding.line, binding.text)]
    last: list[Entry] = []
    for member in members:
        chosen = filters.get((binding.family, member))
        if chosen is None or not chosen.entries:
            text = f"{binding.text}: {member} has no lines, and what IOS XR does then is not documented"
            entries.append(Entry(UNKNOWN, ({},), binding.line, text))
            continue
        last = [one for one in chosen.entries if one.text.startswith(f"{chosen.text}{_IMPLICIT}")]
        entries += [one for one in chosen.entries if one not in last]
    return Filter(binding.filters[0], binding.family, (*entries, *last), DENY, binding.line, binding.text)


def _activated_together(cut: Cut, places: Places) -> None:
    """Templates that one class of sessions gets, of which more than one binds a list in the same place."""
    bound: dict[str, set[tuple[str, int]]] = {}
    for name, side, family in places.bindings:
        if name.startswith("dynamic-template "):
            bound.setdefault(name.split()[-1], set()).add((side, family))
    taken: dict[str, dict[tuple[str, int], str]] = {}  # by policy and class: which template has taken a place
    for block in cut.others:
        if block.words[:3] != ["policy-map", "type", "control"]:
            continue
        chosen = ""
        for number, raw in ((block.line, " ".join(block.words[5:])), *block.lines):
            words = raw.split()
            if "class" in words:
                at = words.index("class")
                end = next((end for end in range(at, len(words)) if words[end].startswith("do-")), len(words))
                chosen = " ".join([*block.words[4:5], words[end - 1]])
            at = words.index("dynamic-template") + 1 if "dynamic-template" in words else len(words)
            template = words[at] if at < len(words) else ""
            for place in bound.get(template, ()):
                if taken.setdefault(chosen, {}).setdefault(place, template) != template:
                    reason = (
                        "another template of the same sessions binds a list too; which is in force is not documented"
                    )
                    places.doubts.append(Doubt(number, raw.strip(), reason))
                    break


def _applied_groups(cut: Cut, places: Places) -> None:
    """Configuration groups: what they put where they are applied does not stand there."""
    filtering = any(
        any(word in _LISTS for word in raw.split())
        for block in cut.others
        if block.words[0] == "group"
        for _, raw in block.lines
    )
    if not filtering:
        return
    applied = [(block.line, " ".join(block.words)) for block in cut.others if block.words[0] == "apply-group"]
    for block in (*cut.interfaces.values(), *cut.others):
        applied += [(number, raw.strip()) for number, raw in block.lines if raw.split()[0] == "apply-group"]
    for number, text in applied:
        places.doubts.append(Doubt(number, text, "a configuration group may bind or change lists, and is not read"))
