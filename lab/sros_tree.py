# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The configuration of an SR OS router as the MD-CLI has it: elements, what may stand where, and how it is printed.

What is known and with which values: the YANG modules nokia-conf-filter, nokia-types-filter and nokia-types-sros; what
stands in the sections that the lab does not edit is kept and printed as it is.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field


class RefusedError(Exception):
    """The router's words, and which word of the command is at fault."""

    def __init__(self, message: str, position: int) -> None:
        super().__init__(message)
        self.message = message
        self.position = position


@dataclass
class Element:
    """A container or an entry of a list: leaves by name, and what else stands in it by its label."""

    leaves: dict[str, str] = field(default_factory=dict)  # as printed; '' for a leaf without a value
    blocks: dict[str, Element] = field(default_factory=dict)  # 'match', 'entry 10', 'ip-filter "UP4"'

    def copy(self) -> Element:
        return Element(dict(self.leaves), {label: block.copy() for label, block in self.blocks.items()})

    def get(self, *labels: str) -> Element | None:
        here: Element | None = self
        for label in labels:
            here = here.blocks.get(label) if here is not None else None
        return here

    def each(self, word: str) -> Iterator[tuple[str, Element]]:
        """The entries of a list: key without quotes, element."""
        for label, block in self.blocks.items():
            if label.partition(" ")[0] == word and " " in label:
                yield unquoted(label.partition(" ")[2]), block

    def leaf(self, name: str) -> str:
        return unquoted(self.leaves.get(name, ""))


def unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text


# --- The text


def parse(text: str) -> Element:
    """What stands in `configure { ... }` of a printed configuration. Raises ValueError when it is none."""
    root = Element()
    stack: list[Element] = []
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        if line == "}":
            if not stack:
                raise ValueError(f"line {number}: a brace that closes nothing")
            stack.pop()
        elif line.endswith("{"):
            label = line[:-1].strip()
            if not stack:
                stack.append(root if label == "configure" else root.blocks.setdefault(f"beside {label}", Element()))
            else:
                stack.append(stack[-1].blocks.setdefault(label, Element()))
        elif line.endswith("{ }") and stack:
            stack[-1].blocks.setdefault(line[:-3].strip(), Element())
        elif stack:
            name, _, value = line.partition(" ")
            stack[-1].leaves[name] = value
        else:
            raise ValueError(f"line {number}: '{line}' stands outside of configure")
    if stack:
        raise ValueError("the text ends in the middle of a block")
    return root


def lines(element: Element, indent: int = 0) -> Iterator[str]:
    """The element as `info` prints it; entries in the order of their numbers."""
    space = " " * indent
    for name, value in element.leaves.items():
        yield f"{space}{name} {value}".rstrip()
    for label, block in sorted(element.blocks.items(), key=lambda item: _rank(item[0])):
        if label.startswith("beside "):
            continue
        yield f"{space}{label} {{"
        yield from lines(block, indent + 4)
        yield f"{space}}}"


@functools.lru_cache(maxsize=4096)
def _rank(label: str) -> tuple[int, int]:
    """Entries by their numbers, behind all that is no entry; the rest as it came (sorting is stable)."""
    number = re.fullmatch(r"entry (\d+)", label)
    return (1, int(number[1])) if number else (0, 0)


def flat(element: Element, path: tuple[str, ...] = ()) -> Iterator[str]:
    """A line for every leaf, and for every block that holds nothing."""
    for name, value in element.leaves.items():
        yield " ".join((*path, name, value)).rstrip()
    for label, block in sorted(element.blocks.items(), key=lambda item: _rank(item[0])):
        if label.startswith("beside "):
            continue
        if block.leaves or block.blocks:
            yield from flat(block, (*path, label))
        else:
            yield " ".join((*path, label, "{ }"))


# --- What may stand where

Check = Callable[[str], bool]


@dataclass(frozen=True)
class Leaf:
    """A value that the check takes. `group`: of the leaves and blocks of one group only one can be set."""

    check: Check | None = None  # None: a leaf without a value
    group: str = ""
    named: bool = False  # printed in quotes


@dataclass(frozen=True)
class Block:
    """A container, or with keys an entry of a list. A key is (word before it or '', check, printed in quotes)."""

    children: dict[str, Leaf | Block] = field(default_factory=dict)
    keys: tuple[tuple[str, Check, bool], ...] = ()
    group: str = ""


def _number(low: int, high: int) -> Check:
    return lambda text: text.isascii() and text.isdecimal() and low <= int(text) <= high


def _one_of(*words: str) -> Check:
    return lambda text: text in words


def _name(longest: int) -> Check:
    return lambda text: 1 <= len(text) <= longest and text.isprintable() and '"' not in text


def _address(family: int) -> Check:
    def check(text: str) -> bool:
        address, slash, length = text.partition("/")
        try:
            return ipaddress.ip_address(address).version == family and (
                not slash or int(length) <= (32, 128)[family == 6]
            )
        except ValueError:
            return False

    return check


def _prefix(family: int) -> Check:
    return lambda text: "/" in text and _address(family)(text)


_BOOL = Leaf(_one_of("true", "false"))
_PROTOCOLS = (
    "tcp-udp icmp igmp ip tcp egp igp udp rdp ipv6 ipv6-route ipv6-frag idrp rsvp gre ipv6-icmp ipv6-no-nxt ipv6-opts "
    "iso-ip eigrp ospf-igp ether-ip encap pnni pim vrrp l2tp stp ptp isis crtp crudp sctp"
).split()


def _protocol(text: str) -> bool:
    return text in _PROTOCOLS or _number(0, 255)(text)


def _ports(group: str) -> Block:
    return Block(
        {
            "eq": Leaf(_number(0, 65535), "port"),
            "lt": Leaf(_number(1, 65535), "port"),
            "gt": Leaf(_number(0, 65534), "port"),
            "range": Block({"start": Leaf(_number(0, 65534)), "end": Leaf(_number(1, 65535))}, group="port"),
            "port-list": Leaf(_name(32), "port", True),
        },
        group=group,
    )


def _ends(family: int) -> Block:
    words = "ip-prefix-list" if family == 4 else "ipv6-prefix-list"
    return Block(
        {
            "address": Leaf(_address(family), "address"),
            "mask": Leaf(_address(family)),
            words: Leaf(_name(32), "address", True),
        }
    )


def _match(family: int) -> Block:
    word = "protocol" if family == 4 else "next-header"
    children: dict[str, Leaf | Block] = {
        word: Leaf(_protocol, "protocol"),
        f"{word}-list": Leaf(_name(32), "protocol", True),
        "fragment": Leaf(_one_of("true", "false", "first-only", "non-first-only")),
        "dscp": Leaf(_name(32)),
        "src-ip": _ends(family),
        "dst-ip": _ends(family),
        "src-port": _ports("ends"),
        "dst-port": _ports("ends"),
        "port": _ports("either"),
        "icmp": Block({"type": Leaf(_number(0, 255)), "code": Leaf(_number(0, 255))}),
        "tcp-flags": Block(dict.fromkeys(("ack", "syn", "fin", "rst", "psh", "urg", "ece", "cwr", "ns"), _BOOL)),
    }
    if family == 4:
        children["option-present"] = _BOOL
    else:
        children["extension-header"] = Block(dict.fromkeys(("ah", "esp", "hop-by-hop", "routing-type0"), _BOOL))
    return Block(children)


def _filter(family: int) -> Block:
    action: dict[str, Leaf | Block] = {word: Leaf(None, "action") for word in ("drop", "accept", "ignore-match")}
    entry: dict[str, Leaf | Block] = {
        "description": Leaf(_name(80), named=True),
        "log": Leaf(_number(101, 199)),
        "collect-stats": _BOOL,
        "match": _match(family),
        "action": Block(action),
    }
    embedded = Block({"admin-state": Leaf(_one_of("enable", "disable"))},
                     (("", _name(64), True), ("offset", _number(0, 2097150), False)))  # fmt: skip
    return Block(
        {
            "default-action": Leaf(_one_of("drop", "accept")),
            "description": Leaf(_name(80), named=True),
            "scope": Leaf(_one_of("exclusive", "template", "embedded", "system")),
            "type": Leaf(_one_of("normal", "src-mac", "packet-length", "destination-class")),
            "chain-to-system-filter": _BOOL,
            "filter-id": Leaf(_number(1, 65535)),
            "entry": Block(entry, (("", _number(1, 2097151), False),)),
            "embed": Block({"filter": embedded}),
        },
        (("", _name(64), True),),
    )


def _prefixes(family: int) -> Block:
    return Block({"prefix": Block({}, (("", _prefix(family), False),))}, (("", _name(32), True),))


_SLA_SIDE = Block({"ip-filter": Leaf(_name(64), named=True), "ipv6-filter": Leaf(_name(64), named=True)})
_SIDE = Block({"filter": Block({"ip": Leaf(_name(64), named=True), "ipv6": Leaf(_name(64), named=True)})})
_SIDES: dict[str, Leaf | Block] = {"ingress": _SIDE, "egress": _SIDE}
_NAMED = (("", _name(64), True),)
_SAP = Block(_SIDES, (("", _name(45), False),))
_INTERFACE = Block({"sap": _SAP, "spoke-sdp": _SAP}, _NAMED)
_SERVICE = Block(
    {
        "interface": _INTERFACE,
        "subscriber-interface": Block({"group-interface": Block({"sap": _SAP}, _NAMED)}, _NAMED),
    },
    _NAMED,
)
CONFIGURE = Block(
    {
        "filter": Block(
            {
                "ip-filter": _filter(4),
                "ipv6-filter": _filter(6),
                "match-list": Block(
                    {
                        "ip-prefix-list": _prefixes(4),
                        "ipv6-prefix-list": _prefixes(6),
                        "port-list": Block(
                            {
                                "port": Block({}, (("", _number(0, 65535), False),)),
                                "range": Block(
                                    {}, (("start", _number(0, 65534), False), ("end", _number(1, 65535), False))
                                ),
                            },
                            (("", _name(32), True),),
                        ),
                    }
                ),
            }
        ),
        "router": Block({"interface": Block(_SIDES, _NAMED)}, _NAMED),
        "service": Block({"ies": _SERVICE, "vprn": _SERVICE}),
        "subscriber-mgmt": Block(
            {"sla-profile": Block({"ingress": _SLA_SIDE, "egress": _SLA_SIDE}, (("", _name(32), True),))}
        ),
    }
)


def words(line: str) -> list[str]:
    return [string or word for string, word in re.findall(r'"([^"]*)"|([^\s"{}]+|[{}])', line)]


def put(root: Element, typed: Sequence[str]) -> None:
    """Set what the words say below `configure`: all of it, or nothing. Raises RefusedError."""
    steps: list[tuple[str, Block, Leaf | Block, str]] = []  # word, the rule around it, its rule, its label or value
    around, position = CONFIGURE, 0
    while position < len(typed):
        word = typed[position]
        if word == "{" and typed[position:] == ["{", "}"]:
            break
        rule = around.children.get(word)
        if rule is None:
            raise RefusedError(f"MINOR: MGMT_CORE #2201: Unknown element - '{word}'", position)
        position += 1
        if isinstance(rule, Block):
            label, position = _label(word, rule, typed, position)
            steps.append((word, around, rule, label))
            around = rule
            continue
        value = ""
        if rule.check is not None:
            if position == len(typed):
                raise RefusedError(f"MINOR: MGMT_CORE #2203: Missing element value - '{word}'", position)
            value = typed[position]
            if not rule.check(value):
                raise RefusedError(f"MINOR: MGMT_CORE #2301: Invalid element value - '{word} {value}'", position)
            position += 1
        steps.append((word, around, rule, f'"{value}"' if rule.named else value))
    here = root
    for word, outer, rule, told in steps:
        _alone(here, outer, word, rule.group)
        if isinstance(rule, Block):
            here = here.blocks.setdefault(told, Element())
        else:
            here.leaves[word] = told


def _label(word: str, rule: Block, typed: Sequence[str], position: int) -> tuple[str, int]:
    label = [word]
    for before, check, quotes in rule.keys:
        if before:
            if typed[position : position + 1] != [before]:
                raise RefusedError(f"MINOR: MGMT_CORE #2203: Missing element - '{before}'", position)
            label.append(before)
            position += 1
        if position == len(typed) or not check(typed[position]):
            told = typed[position] if position < len(typed) else ""
            raise RefusedError(f"MINOR: MGMT_CORE #2301: Invalid element value - '{word} {told}'", position)
        label.append(f'"{typed[position]}"' if quotes else typed[position])
        position += 1
    return " ".join(label), position


def _alone(here: Element, around: Block, word: str, group: str) -> None:
    """Of a choice only what is set last stays; `port` excludes both `src-port` and `dst-port`."""
    if not group:
        return
    others = {"either": ("ends",), "ends": ("either",)}.get(group, (group,))
    for name, rule in around.children.items():
        if name != word and rule.group in others:
            here.leaves.pop(name, None)
            here.blocks.pop(name, None)


def delete(root: Element, typed: Sequence[str]) -> None:
    """Remove what the words name below `configure`. Raises RefusedError."""
    here, around, position = root, CONFIGURE, 0
    while position < len(typed):
        word = typed[position]
        rule = around.children.get(word)
        if rule is None:
            raise RefusedError(f"MINOR: MGMT_CORE #2201: Unknown element - '{word}'", position + 1)
        position += 1
        if isinstance(rule, Leaf):
            if here.leaves.pop(word, None) is None:
                raise RefusedError(f"MINOR: MGMT_CORE #2204: Element does not exist - '{word}'", position)
            return
        label, position = _label(word, rule, typed, position)
        below = here.blocks.get(label)
        if below is None:
            raise RefusedError(f"MINOR: MGMT_CORE #2204: Element does not exist - '{label}'", position)
        if position == len(typed):
            del here.blocks[label]
            return
        here, around = below, rule
    raise RefusedError("MINOR: MGMT_CORE #2203: Missing element", position)


def problems(root: Element) -> list[str]:
    """What a commit refuses: references to what is not there, ranges the wrong way round."""
    found = []
    filters = root.get("filter") or Element()
    names = {kind: {name for name, _ in filters.each(kind)} for kind in ("ip-filter", "ipv6-filter")}
    lists = filters.get("match-list") or Element()
    known = {
        kind: {name for name, _ in lists.each(kind)}
        for kind in ("ip-prefix-list", "ipv6-prefix-list", "port-list", "protocol-list")
    }
    for path, leaf, value in _leaves(root, ()):
        where = f"configure {' '.join(path)} {leaf}"
        kind = leaf
        if leaf in ("ip", "ipv6") and path[-1] == "filter":
            kind = f"{leaf}-filter"
        if path[:1] != ("filter",) and kind in names and value not in names[kind]:
            found.append(f'MINOR: MGMT_CORE #224: {where} - Entry does not exist - configure filter {kind} "{value}"')
        if path[:1] == ("filter",) and leaf in known and value not in known[leaf]:
            found.append(
                f'MINOR: MGMT_CORE #224: {where} - Entry does not exist - configure filter match-list {leaf} "{value}"'
            )
    for path, block in _blocks(root, ()):
        if path[-1] == "range":
            start, end = block.leaf("start"), block.leaf("end")
            if not start or not end:
                found.append(f"MINOR: MGMT_CORE #236: configure {' '.join(path)} - Missing mandatory element")
            elif int(start) >= int(end):
                found.append(f"MINOR: MGMT_CORE #4001: configure {' '.join(path)} - start must be below end")
        if path[-1] == "action" and not block.leaves and not block.blocks:
            found.append(f"MINOR: MGMT_CORE #236: configure {' '.join(path)} - Missing mandatory element")
        ports = any(name in block.blocks for name in ("src-port", "dst-port", "port"))
        told = block.leaf("protocol") or block.leaf("next-header")
        if path[-1] == "match" and ports and told not in ("tcp", "udp", "tcp-udp", "sctp", "6", "17", "132"):
            found.append(
                f"MINOR: MGMT_CORE #4001: configure {' '.join(path)} - ports need the protocol tcp, udp or sctp"
            )
    return found


def _leaves(element: Element, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str, str]]:
    for name, value in element.leaves.items():
        yield path, name, unquoted(value)
    for label, block in element.blocks.items():
        yield from _leaves(block, (*path, label))


def _blocks(element: Element, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Element]]:
    for label, block in element.blocks.items():
        yield (*path, label), block
        yield from _blocks(block, (*path, label))
