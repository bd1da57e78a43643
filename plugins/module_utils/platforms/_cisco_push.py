# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The way back for the platforms with an industry-standard CLI: rules as lines, and what the lines do to a text."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ..filters import Configuration, Filter
from ..packets import PROTOCOLS, address_text, prefix
from ..plan import OUR_FILTERS
from ..rules import Change, Rule, RuleSet
from ._cisco_text import interface_name

_PLACES = ("interface ", "template ", "dynamic-template ")  # how the blocks begin in which lists are bound
_REMARK = 100  # characters that a remark may have (Cisco, "remark")


@dataclass(frozen=True)
class Writing:
    """How a platform writes a filter and binds it."""

    list_header: Mapping[int, str]  # family to the words in front of the name
    binding: Mapping[int, str]  # family to the interface command
    protocols: Mapping[int, Mapping[str, str]]  # family to the names in use, "" for any; others: numbers
    host: Mapping[int, str]  # family to how one address is written
    network: Mapping[int, str]  # family to how a prefix is written: {address} {length} {wildcard}
    indent: str
    live: bool  # every line acts at once
    list_words: frozenset[str]  # what may begin a line of a list beside an entry
    denied_first: Mapping[int, Sequence[str]]  # family to protocols that every list of ours denies at its top
    undetermined: Mapping[int, str]  # family to the condition on an incomplete header chain, "" for none
    directions: Mapping[str, str] = field(default_factory=lambda: {"up": "in", "down": "out"})


def fields(change: Change, writing: Writing) -> dict[str, object]:
    """The template's variables: `filters`, each header and lines, and `interfaces`, each header and bindings."""
    interfaces: dict[str, list[dict[str, str]]] = {}
    for bind in change.binds:
        command = {
            "command": writing.binding[bind.family],
            "filter": bind.filter,
            "direction": writing.directions[bind.direction],
        }
        interfaces.setdefault(bind.attachment, []).append(command)
    return {
        "filters": [
            {
                "header": f"{writing.list_header[one.family]} {one.name}",
                "lines": _list_lines(one, writing),
            }
            for one in change.filters
        ],
        "interfaces": [{"header": _place(name), "bindings": bindings} for name, bindings in interfaces.items()],
    }


def _place(attachment: str) -> str:
    """The line that opens the attachment's block."""
    return attachment if attachment.startswith(("template ", "dynamic-template ")) else f"interface {attachment}"


def _list_lines(rule_set: RuleSet, writing: Writing) -> list[dict[str, str]]:
    """Lines without numbers: releases differ in whether a remark takes one, and the router numbers them itself."""
    family = rule_set.family
    lines: list[dict[str, str]] = []
    for protocol in writing.denied_first.get(family, ()):
        if not lines:
            lines.append({"remark": "extension headers hide the ports"})
        lines.append({"action": "deny", "protocol": protocol, "source": "any", "destination": "any", "conditions": ""})
    comment = ""
    for rule in rule_set.rules:
        if rule.comment and rule.comment != comment:
            comment = rule.comment
            lines.append({"remark": " ".join(comment.split())[:_REMARK]})
        lines += [{"action": rule.action, **one} for one in _entries(rule, family, writing)]
    return lines


def _entries(rule: Rule, family: int, writing: Writing) -> Iterator[dict[str, str]]:
    if rule.protocol and rule.protocol not in PROTOCOLS:
        raise ValueError(f"the rule '{rule.comment}' has an unknown protocol: {rule}")
    protocol = writing.protocols[family].get(rule.protocol) or str(PROTOCOLS[rule.protocol])
    if (rule.source_ports or rule.destination_ports) and not rule.protocol:
        raise ValueError(f"the rule '{rule.comment}' has ports and no protocol: {rule}")
    if rule.icmp and rule.protocol not in ("icmp", "icmp6"):
        raise ValueError(f"the rule '{rule.comment}' has ICMP types and is not of ICMP: {rule}")
    ends = itertools.product(
        [_address(text, family, writing) for text in rule.sources] or ["any"],
        [_ports(*ports) for ports in rule.source_ports] or [""],
        [_address(text, family, writing) for text in rule.destinations] or ["any"],
        [_ports(*ports) for ports in rule.destination_ports] or [""],
        [f"{kind}" if code is None else f"{kind} {code}" for kind, code in rule.icmp] or [""],
    )
    if rule.undetermined and not writing.undetermined[family]:
        raise ValueError(
            f"the rule '{rule.comment}' is about incomplete header chains, for which this platform has no condition in "
            f"IPv{family}: choose profile: standard for it"
        )
    conditions = [*(["fragments"] * rule.later_fragments), *([writing.undetermined[family]] * rule.undetermined)]
    for source, source_ports, destination, ports, icmp in ends:
        yield {
            "protocol": protocol,
            "source": f"{source} {source_ports}".rstrip(),
            "destination": f"{destination} {ports}".rstrip(),
            "conditions": " ".join([icmp, *conditions]).strip(),
        }


def _address(text: str, family: int, writing: Writing) -> str:
    ((value, mask),) = prefix(text, family)
    bits = 32 if family == 4 else 128
    length = mask.bit_count()
    address = address_text(value, family)
    if length == 0:
        return "any"
    if length == bits:
        return writing.host[family].format(address=address)
    wildcard = address_text(mask ^ ((1 << bits) - 1), family)
    return writing.network[family].format(address=address, length=length, wildcard=wildcard)


def _ports(low: int, high: int) -> str:
    return f"eq {low}" if low == high else f"range {low} {high}"


def lines(rendered: str) -> list[str]:
    """The lines to send: no comments, no blanks, and an `exit` at the end of every block."""
    found: list[str] = []
    inside = False
    for raw in rendered.splitlines():
        line = raw.strip()
        if not _is_command(line):
            continue
        deeper = raw[0] in " \t"
        if inside and not deeper and line != "exit" and found[-1] != "exit":
            found.append("exit")
        inside = inside or deeper
        found.append(line)
    return [*found, "exit"] if inside and found[-1] != "exit" else found


def remove(filters: Sequence[tuple[int, str]], writing: Writing) -> list[str]:
    return [f"no {writing.list_header[family]} {name}" for family, name in filters]


def restore(
    running: str, backup: str, names: Sequence[str], writing: Writing, parse: Callable[[str], Configuration]
) -> list[str]:
    """The lines that bring the backup's lists and bindings back on these attachments, and take ours away behind them.

    A list of the same name with other lines is written anew, which the plan refuses where it is in use.
    """
    now, then = parse(running), parse(backup)
    blocks, _ = _blocks(backup)
    _, there = _blocks(running)
    found: list[str] = []
    places: dict[str, list[str]] = {}
    here = {(one.attachment, one.direction, one.family): one for one in now.bindings}
    wanted = {(one.attachment, one.direction, one.family): one for one in then.bindings}
    done: set[tuple[int, str]] = set()
    for place in sorted(key for key in here.keys() | wanted.keys() if key[0] in names):
        old, new = here.get(place), wanted.get(place)
        if new is None:
            assert old is not None
            places.setdefault(place[0], []).append(f"no {' '.join(old.text.split())}")
            continue
        key = new.family, new.filters[0]
        same = key in now.filters and _decides(now.filters[key]) == _decides(then.filters[key])
        if old and old.filters == new.filters and same:
            continue
        if not same and key not in done:
            found += _list_again(blocks, there, key)
            done.add(key)
        places.setdefault(place[0], []).append(" ".join(new.text.split()))
    for name, commands in places.items():
        found += [_place(name), *commands, "exit"]
    if found:
        bound = [*then.bindings, *(one for place, one in here.items() if place[0] not in names)]
        kept = {(one.family, name) for one in bound for name in one.text.split()} | then.filters.keys()
        ours = {key for key, one in now.filters.items() if one.name.startswith(OUR_FILTERS) and one.entries}
        found += remove(sorted(ours - kept), writing)
    return found


def _decides(chosen: Filter) -> tuple[object, ...]:
    return (chosen.default, *((one.action, one.matches, one.doubt) for one in chosen.entries))


def _list_again(blocks: Sequence[_Block], there: Mapping[str, _Block], key: tuple[int, str]) -> list[str]:
    """The lines of a list, and of the groups in it that the router has not."""
    family, name = key
    words = {4: ("ip access-list ", "ipv4 access-list "), 6: ("ipv6 access-list ",)}[family]
    own = [block for block in blocks if block.header.startswith(words) and block.header.split()[-1] == name]
    numbered = [block.header for block in blocks if family == 4 and block.header.startswith(f"access-list {name} ")]
    found: list[str] = []
    for block in own:
        for child in block.children:
            parts = child.split()
            for kind, group in itertools.pairwise(parts):
                if kind in ("object-group", "addrgroup", "portgroup", "net-group", "port-group"):
                    found += _group_again(blocks, there, group)
        if _key(block.header) in there:
            found.append(f"no {' '.join(block.header.split())}")
        found += [
            block.header.strip(),
            *(child.strip() for child in block.children if child.strip()[:1] not in ("", "!")),
        ]
        found.append("exit")
    return [*found, *numbered]


def _group_again(blocks: Sequence[_Block], there: Mapping[str, _Block], group: str) -> list[str]:
    found: list[str] = []
    for block in blocks:
        words = block.header.split()
        if words[:1] == ["object-group"] and words[-1] == group and _key(block.header) not in there:
            for child in block.children:
                if child.split()[:1] in (["group-object"], ["object-group"]):
                    found += _group_again(blocks, there, child.split()[-1])
            found += [block.header.strip(), *filter(_is_command, map(str.strip, block.children)), "exit"]
    return found


def _is_command(line: str) -> bool:
    return line[:1] not in ("", "!")


@dataclass
class _Block:
    header: str
    children: list[str] = field(default_factory=list)  # as they stand in the text, indented

    @property
    def is_place(self) -> bool:
        """Lists are bound there. `type KIND NAME` stands below `dynamic-template` (IOS XR)."""
        return self.header.startswith((*_PLACES, " type "))


_HEADER = re.compile(
    r"(?:ip|ipv4|ipv6) access-list (?:(?:standard|extended) )?\S+$|object-group \S+ (?:\S+ )?\S+$|"
    r"interface \S.*$|template \S+$|dynamic-template type \S+ \S+$"
)
_NUMBERED = re.compile(r"access-list \S+ \S")


def apply(running: str, commands: Sequence[str], writing: Writing) -> Iterator[str]:
    """The running text after each command (live) or after all of them. Raises ValueError for an unknown command.

    A new list or group that no other line names decides nothing: while it is filled the text stays as it was before,
    but for the last command.
    """
    blocks, index = _blocks(running)
    named = set(running.split())
    text = running
    inside: _Block | None = None
    for number, command in enumerate(commands, 1):
        inside = _obey(command.strip(), blocks, index, inside, writing)
        if not _HEADER.match(command):
            named.update(command.split())
        if writing.live:
            acts = command != "exit" and (inside is None or inside.header.split()[-1] in named)
            if acts or number == len(commands):
                text = _text(blocks)
            yield text
    if not writing.live:
        yield _text(blocks)


def _blocks(running: str) -> tuple[list[_Block], dict[str, _Block]]:
    """The text as blocks, a banner as one; an index by header."""
    blocks: list[_Block] = []
    index: dict[str, _Block] = {}
    templates = False
    for raw in running.split("\n"):
        line = raw.rstrip("\r")
        if templates and line.startswith(" type "):
            blocks.append(_Block(line))
            index.setdefault(f"dynamic-template {' '.join(line.split())}", blocks[-1])
        elif line[:1] in (" ", "\t") and blocks:
            blocks[-1].children.append(line)
        else:
            blocks.append(_Block(line))
            templates = line == "dynamic-template"
            if _HEADER.match(line):
                index.setdefault(_key(line), blocks[-1])
    return blocks, index


def _key(header: str) -> str:
    words = header.split()
    return f"interface {interface_name(words)}" if words[0] == "interface" else " ".join(words)


def _text(blocks: Sequence[_Block]) -> str:
    return "\n".join(line for block in blocks for line in (block.header, *block.children))


def _obey(
    command: str, blocks: list[_Block], index: dict[str, _Block], inside: _Block | None, writing: Writing
) -> _Block | None:
    words = command.split()
    plain = " ".join(words)
    if plain == "exit":
        return None
    if _HEADER.match(plain):
        key = _key(plain)
        if key not in index:
            if plain.startswith(_PLACES):
                raise ValueError(f"'{command}': the running configuration has no such place")
            index[key] = _insert(blocks, plain)
        return index[key]
    if words[:1] == ["no"] and _HEADER.match(plain[3:]) and not plain[3:].startswith(_PLACES):
        gone = index.pop(plain[3:], None)
        if gone is None:
            raise ValueError(f"'{command}': there is nothing of that name")
        blocks.remove(gone)
        return None
    if _NUMBERED.match(plain):
        _insert(blocks, plain, after=f"access-list {words[1]} ")
        return None
    if words[:2] == ["no", "access-list"] and len(words) == 3:
        kept = [block for block in blocks if not block.header.startswith(f"access-list {words[2]} ")]
        blocks[:] = kept
        return None
    if inside is None:
        raise ValueError(f"'{command}' is not understood here")
    if inside.is_place:
        _bind(words, command, inside, writing)
    elif inside.header.startswith("object-group "):
        inside.children.append(writing.indent + command)
    else:
        _enter(words, command, inside, writing)
    return inside


def _insert(blocks: list[_Block], header: str, after: str = "") -> _Block:
    """A new block behind the last one that begins so, else in front of `end`."""
    block = _Block(header)
    places = [number for number, one in enumerate(blocks) if after and one.header.startswith(after)]
    if not places:
        places = [number - 1 for number, one in enumerate(blocks) if one.header == "end"]
    blocks.insert(places[-1] + 1 if places else len(blocks), block)
    return block


def _bind(words: list[str], command: str, interface: _Block, writing: Writing) -> None:
    gone = words[0] == "no"
    bare = words[1:] if gone else words
    sides = [word for word in bare if word in writing.directions.values()]
    if " ".join(bare[:2]) not in writing.binding.values() or len(sides) != 1:
        raise ValueError(f"'{command}' is not understood on an interface")
    children = [line.split() for line in interface.children]
    same = [number for number, one in enumerate(children) if one[:2] == bare[:2] and sides[0] in one]
    if gone:
        if not same:
            raise ValueError(f"'{command}': nothing is bound there")
        del interface.children[same[0]]
    elif bare.index(sides[0]) < 3:
        raise ValueError(f"'{command}' names no list")
    else:
        line = writing.indent * (2 if interface.header[0] == " " else 1) + command
        if same:
            interface.children[same[0]] = line
            return
        end = len(interface.children)
        while end and interface.children[end - 1].strip() == "!":  # the end of a block below another
            end -= 1
        interface.children.insert(end, line)


_ENTRY = re.compile(r"(?:(?:sequence )?(\d+) )?(permit|deny|remark|evaluate|dynamic)\b")


def _enter(words: list[str], command: str, chosen: _Block, writing: Writing) -> None:
    entry = _ENTRY.match(command)
    if not entry and words[0] not in writing.list_words:
        raise ValueError(f"'{command}' is not understood in {chosen.header}")
    if entry and entry[1] and entry[2] != "remark":
        for line in chosen.children:
            there = _ENTRY.match(line.strip())
            if there and there[1] == entry[1] and there[2] != "remark":
                if line.split() == words:
                    return
                raise ValueError(f"'{command}': {chosen.header} has another line {entry[1]}")
    chosen.children.append(writing.indent + command)
