# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""VLAN access maps of NX-OS: a filter of its own for each map, in a row with the lists of the VLAN's interface."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from ..filters import DENY, JUMP, PERMIT, RETURN, UNKNOWN, Binding, Configuration, Doubt, Entry, Filter

_NO_ENTRY = "what NX-OS does to packets that no entry of a VLAN access map takes is not documented"
_NO_LIST = "which packets an entry without a list takes is not documented"
_HIGHEST = 4094  # VLAN


@dataclass
class _Clause:
    """One numbered entry of a map."""

    number: int
    line: int
    text: str
    action: str = ""  # "" until a line says it
    matching: bool = False  # does a line say what it is for?
    lists: list[tuple[int, str, int, str]] = field(default_factory=list)  # family, name, line, text


@dataclass
class _Maps:
    clauses: dict[str, list[_Clause]] = field(default_factory=dict)
    bound: dict[int, tuple[str, int, str]] = field(default_factory=dict)  # VLAN to map, line, text
    doubts: list[Doubt] = field(default_factory=list)
    lines: int = 0


def with_maps(text: str, configuration: Configuration) -> Configuration:
    """The configuration with the maps in force on the interfaces of their VLANs."""
    if "vlan access-map" not in text and "vlan filter" not in text:
        return configuration
    maps = _read(text)
    filters = dict(configuration.filters)
    for name in {bound for bound, _, _ in maps.bound.values()} | maps.clauses.keys():
        for family in (4, 6):
            for one in _filters(name, maps.clauses.get(name, []), family, configuration):
                filters[family, one.name] = one
    bindings = {(one.attachment, one.direction, one.family): one for one in configuration.bindings}
    for vlan, (name, line, said) in maps.bound.items():
        attachment = f"Vlan{vlan}"
        if attachment not in configuration.interfaces:
            continue
        for direction in ("in", "out"):
            for family in (4, 6):
                place, map_name = (attachment, direction, family), (_title(name),)
                there = bindings.get(place)
                lists = there.filters if there else ()
                # What comes in meets the map first, what goes out last.
                row = map_name + lists if direction == "in" else lists + map_name
                bindings[place] = replace(there, filters=row) if there else Binding(*place, row, line, said)
    return replace(
        configuration,
        filters=filters,
        bindings=tuple(bindings.values()),
        doubts=tuple(sorted((*configuration.doubts, *maps.doubts), key=lambda doubt: doubt.line)),
        filter_lines=configuration.filter_lines + maps.lines,
    )


def _title(name: str) -> str:
    return f"vlan access-map {name}"


def _read(text: str) -> _Maps:
    maps = _Maps()
    clause: _Clause | None = None
    for number, raw in enumerate(text.split("\n"), 1):
        words = raw.split()
        if not words or words[0][0] == "!":
            continue
        if clause is not None and (raw[0] in " \t" or words[0] in ("match", "action", "statistics")):
            maps.lines += 1
            _say(maps, clause, words, number, raw.strip())
        elif raw[0] not in " \t":
            clause = None
            if words[0] == "switchto":
                break
            if words[:3] == ["no", "vlan", "access-map"] or words[:3] == ["no", "vlan", "filter"]:
                _forget(maps, words[1:])
            elif words[:2] == ["vlan", "access-map"] and len(words) > 2:
                clause = _clause(maps, words, number, raw.strip())
            elif words[:2] == ["vlan", "filter"] and len(words) > 2:
                _bind(maps, words, number, raw.strip())
    return maps


def _forget(maps: _Maps, words: list[str]) -> None:
    """`no vlan access-map NAME [10]` and `no vlan filter NAME [vlan-list 10,20]`, as far as they stand above."""
    name = words[2] if len(words) > 2 else ""
    if words[1] == "access-map":
        kept = [one for one in maps.clauses.pop(name, []) if words[3:] and words[3] != str(one.number)]
        maps.clauses |= {name: kept} if kept else {}
    else:
        gone = set(_vlans(words[-1])) if "vlan-list" in words else maps.bound.keys()
        maps.bound = {vlan: one for vlan, one in maps.bound.items() if one[0] != name or vlan not in gone}


def _clause(maps: _Maps, words: list[str], line: int, text: str) -> _Clause:
    """The entry that the line opens; one that was opened above goes on."""
    maps.lines += 1
    own = maps.clauses.setdefault(words[2], [])
    number = int(words[3]) if len(words) > 3 and words[3].isdecimal() and len(words[3]) < 9 else 0
    number = number or max((one.number for one in own), default=0) + 10
    for one in own:
        if one.number == number:
            return one
    own.append(_Clause(number, line, text))
    return own[-1]


def _say(maps: _Maps, clause: _Clause, words: list[str], line: int, text: str) -> None:
    clause.matching = clause.matching or words[0] == "match"
    if words[0] == "match" and words[1:3] in (["ip", "address"], ["ipv6", "address"]) and len(words) > 3:
        clause.lists += [(4 if words[1] == "ip" else 6, name, line, text) for name in words[3:]]
    elif words[0] == "action" and len(words) > 1:
        clause.action = {"forward": PERMIT, "drop": DENY}.get(words[1], UNKNOWN)
    elif words[:2] != ["match", "mac"] and words[0] != "statistics":  # lists of MAC addresses see no IP packet
        maps.doubts.append(Doubt(line, text, "a line of a VLAN access map that is not understood"))
        clause.action = UNKNOWN


def _bind(maps: _Maps, words: list[str], line: int, text: str) -> None:
    """`vlan filter NAME vlan-list 10,20-30`."""
    maps.lines += 1
    vlans = list(_vlans(words[4])) if len(words) == 5 and words[3] == "vlan-list" else []
    if not vlans:
        maps.doubts.append(Doubt(line, text, "a VLAN access map is bound in a form that is not understood"))
    for vlan in vlans:
        maps.bound[vlan] = words[2], line, text


def _vlans(text: str) -> Iterator[int]:
    for part in text.split(","):
        found = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", part)
        if found:
            yield from range(int(found[1]), min(int(found[2] or found[1]), _HIGHEST) + 1)


def _filters(name: str, clauses: list[_Clause], family: int, configuration: Configuration) -> Iterator[Filter]:
    """The map as jumps to one filter for each list that it names, in which what the list denies goes on behind."""
    entries = []
    for clause in sorted(clauses, key=lambda one: one.number):
        if not clause.matching:
            entries.append(Entry(UNKNOWN, ({},), clause.line, f"{clause.text}: {_NO_LIST}"))
        for kind, chosen, line, text in clause.lists:
            if kind == family:
                inner = _inner(f"{_title(name)} {clause.number} {chosen}", clause, chosen, family, configuration)
                entries.append(Entry(JUMP, ({},), line, text, inner.name))
                yield inner
    first = clauses[0] if clauses else None
    said = f"{first.text if first else _title(name)}: {_NO_ENTRY}"
    yield Filter(_title(name), family, tuple(entries), UNKNOWN, first.line if first else 1, said)


def _inner(title: str, clause: _Clause, name: str, family: int, configuration: Configuration) -> Filter:
    chosen = configuration.filters.get((family, name))
    entries: list[Entry] = []
    for entry in chosen.entries if chosen else ():
        action = {PERMIT: clause.action or UNKNOWN, DENY: RETURN}.get(entry.action, entry.action)
        entries.append(replace(entry, action=action))
    if chosen is None or chosen.default != DENY:
        entries.append(Entry(UNKNOWN, ({},), clause.line, f"{clause.text}: {name} is not defined, or has no entries"))
    # Behind its last entry the map goes on.
    return Filter(title, family, tuple(entries), UNKNOWN, clause.line, clause.text)
