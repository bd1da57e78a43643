# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Changes of SR OS filter policies, as lines of the MD-CLI. The documents that say so: nokia_sros.py."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from ..filters import Configuration, Filter
from ..packets import PROTOCOLS
from ..plan import OUR_FILTERS, Refused
from ..rules import Change, Rule, RuleSet
from ._sros_entries import PROTOCOL_NAMES
from ._sros_tree import Node, at, find, read

_FILTER_WORDS = {4: "ip-filter", 6: "ipv6-filter"}
_SIDES = {"up": "ingress", "down": "egress", "in": "ingress", "out": "egress"}
# Words of an attachment that a name follows.
PATH_WORDS = frozenset(
    ("router", "ies", "vprn", "vpls", "epipe", "ipipe", "interface", "subscriber-interface", "group-interface", "sap",
     "spoke-sdp", "sla-profile")
)  # fmt: skip
_SHAPES = (
    ("sla-profile",),
    ("router", "interface"),
    *(
        ("service", kind, *middle, end)
        for kind in ("ies", "vprn")
        for middle in (("interface",), ("subscriber-interface", "group-interface"))
        for end in ("sap", "spoke-sdp")
    ),
)
_WORDS_OF = {value: word for word, value in PROTOCOL_NAMES.items()}
# Extension headers hide the ports from a filter that looks at the first header alone (RFC 8200, 6275).
_EXTENSION_HEADERS = ("0", "ipv6-route", "ipv6-frag", "ipv6-opts", "135")
_SHOWN = 80  # characters of a description
_STEP = 10


def fields(change: Change) -> dict[str, object]:
    """The template's variables: `filters` (family, name, entries) and `binds` (path).

    Raises ValueError for what SR OS cannot express, and for an attachment where no filter can be bound.
    """
    return {
        "filters": [
            {"family": _FILTER_WORDS[one.family], "name": one.name, "entries": list(_numbered(one))}
            for one in change.filters
        ],
        "binds": [
            f'{" ".join(_place(bind.attachment, _SIDES[bind.direction], bind.family))} "{bind.filter}"'
            for bind in change.binds
        ],
    }


def _names(attachment: str) -> list[str]:
    """The words of an attachment; names with spaces stand in quotes."""
    return [string or word for string, word in re.findall(r'"([^"]*)"|([^\s"]+)', attachment)]


def _place(attachment: str, side: str, family: int) -> list[str]:
    """The words of the MD-CLI below /configure before the filter that is bound there."""
    words = _names(attachment)
    kinds = tuple(
        word for index, word in enumerate(words) if word == "service" or (word in PATH_WORDS and _is_key(words, index))
    )
    if kinds not in _SHAPES or len(words) != 2 * len(kinds) - (kinds[:1] == ("service",)):
        raise ValueError(
            f"no filter can be bound to attachment '{attachment}': name it as 'sla-profile RES', 'router Base "
            "interface to-core' or 'service ies 100 interface business sap 1/1/1:300'"
        )
    path = [
        word
        if word in ("service",) or _is_key(words, index) or words[index - 1] in ("sap", "spoke-sdp")
        else f'"{word}"'
        for index, word in enumerate(words)
    ]
    if kinds == ("sla-profile",):
        return ["subscriber-mgmt", *path, side, _FILTER_WORDS[family]]
    return [*path, side, "filter", "ip" if family == 4 else "ipv6"]


def _is_key(words: Sequence[str], index: int) -> bool:
    """The word says what the next one names, and is no name itself."""
    return (index % 2 == 0) if words[0] != "service" else (index % 2 == 1)


def _numbered(chosen: RuleSet) -> Iterator[dict[str, object]]:
    """The entries of a filter, with room between their numbers."""
    numbers = itertools.count(_STEP, _STEP)
    if chosen.family == 6:
        for header in _EXTENSION_HEADERS:
            yield {
                "number": next(numbers), "description": "extension headers hide the ports",
                "conditions": [f"next-header {header}"], "action": "drop",
            }  # fmt: skip
    for rule, protocol in _pairs(chosen.rules):
        for conditions in _conditions(rule, protocol, chosen):
            yield {
                "number": next(numbers), "description": _description(rule.comment), "conditions": conditions,
                "action": "accept" if rule.action == "permit" else "drop",
            }  # fmt: skip


def _description(comment: str) -> str:
    """7-bit printable, at most 80 characters, nothing that ends the string (YANG nokia-types-sros: description)."""
    return re.sub(r"[^A-Za-z0-9 ,.:;()/_+-]+", " ", " ".join(comment.split()))[:_SHOWN].strip() or "edge filter"


def _pairs(rules: Sequence[Rule]) -> Iterator[tuple[Rule, str]]:
    """The rules with their protocol: two that differ in tcp and udp only are one entry."""
    ahead = list(reversed(rules))
    while ahead:
        rule = ahead.pop()
        follower = ahead[-1] if ahead else None
        both = (rule.protocol, follower.protocol) if follower else ()
        if follower and set(both) == {"tcp", "udp"} and replace(follower, protocol=rule.protocol) == rule:
            ahead.pop()
            yield rule, "tcp-udp"
            continue
        yield rule, rule.protocol


def _conditions(rule: Rule, protocol: str, chosen: RuleSet) -> Iterator[list[str]]:
    """The criteria of each entry that makes up one rule."""
    what = f"filter {chosen.name}: rule '{rule.comment or rule.action}'"
    if rule.undetermined:
        raise ValueError(
            f"{what} cannot be written for SR OS, which has no criterion for it: use the profile 'standard'"
        )
    if (rule.source_ports or rule.destination_ports) and protocol not in ("tcp", "udp", "tcp-udp", "sctp"):
        raise ValueError(f"{what} has ports and no protocol that has them: set its protocol to tcp or udp")
    if rule.icmp and PROTOCOLS.get(protocol) != (1 if chosen.family == 4 else 58):
        raise ValueError(f"{what} has ICMP types and another protocol: set its protocol to icmp or icmp6")
    common = []
    if protocol:
        common.append(_protocol(protocol, chosen.family))
    if rule.later_fragments:
        if chosen.direction == "down" and rule.action == "permit":
            raise ValueError(f"{what} permits later fragments alone, which SR OS cannot tell on egress")
        # On egress first fragments cannot be told from later ones.
        common.append("fragment non-first-only" if chosen.direction == "up" else "fragment true")
    ends = itertools.product(
        [[f"src-ip address {text}"] for text in rule.sources] or [[]],
        [[f"src-port {_ports(*one)}"] for one in rule.source_ports] or [[]],
        [[f"dst-ip address {text}"] for text in rule.destinations] or [[]],
        [[f"dst-port {_ports(*one)}"] for one in rule.destination_ports] or [[]],
        [
            [f"icmp type {kind}", *([f"icmp code {code}"] if code is not None else [])]
            for kind, code in dict.fromkeys(rule.icmp)
        ]
        or [[]],
    )
    for parts in ends:
        yield [*common, *itertools.chain(*parts)]


def _protocol(name: str, family: int) -> str:
    if family == 6 and name in ("esp", "ah"):
        return f"extension-header {name} true"
    word = name if name == "tcp-udp" else _WORDS_OF.get(PROTOCOLS[name], str(PROTOCOLS[name]))
    return f"{'protocol' if family == 4 else 'next-header'} {word}"


def _ports(low: int, high: int) -> str:
    return f"eq {low}" if low == high else f"range start {low} end {high}"


def lines(rendered: str) -> list[str]:
    """The commands of a rendered change, without its remarks."""
    return [line.strip() for line in rendered.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def remove(filters: Sequence[tuple[int, str]]) -> list[str]:
    """The commands that delete filters, by family and name as in a Configuration."""
    return [f'delete filter {_FILTER_WORDS[family]} "{name}"' for family, name in filters if ", " not in name]


_SECTIONS = ("filter", "router", "service", "subscriber-mgmt")


def apply(running: str, lines: Sequence[str]) -> Iterator[str]:
    """The running configuration once the commands are committed, as one text: nothing acts before the commit.

    Raises ValueError for a line that is no command of ours, Refused for a router in the classic CLI.
    """
    _refuse_classic(running)
    for line in lines:
        words = line.split()
        if len(words) < 3 or words[0] not in ("/configure", "delete") or words[1] not in _SECTIONS:
            raise ValueError(f"'{line}' is no command that changes filters of an SR OS router")
    yield "\n".join([running.rstrip("\n"), *lines, ""])


def _refuse_classic(*texts: str) -> None:
    if any(read(text).classic for text in texts):
        raise Refused(
            "this is a configuration of the classic CLI, which is audited and not changed: every line would act at "
            "once there; switch the router to model-driven mode (configure system management-interface "
            "configuration-mode) or change it by hand; nothing was changed"
        )


def restore(running: str, backup: str, names: Sequence[str], parse: Callable[[str], Configuration]) -> list[str]:
    """The commands that give the attachments the filters they have in the backup, and delete ours behind them.

    A filter of the same name that decides otherwise now is written anew, with the lists that it refers to.
    """
    now, then = parse(running), parse(backup)
    here, there = read(running).root, read(backup).root
    old, new = _bound(now), _bound(then)
    gone: list[str] = []
    back: list[str] = []
    wanted: list[tuple[int, str]] = []
    for place in sorted(old.keys() | new.keys()):
        attachment, direction, family = place
        if attachment not in names or old.get(place) == new.get(place):
            continue
        path = _place(attachment, _SIDES[direction], family)
        for name, _ in new.get(place, ()):
            back.append(f'/configure {" ".join(path)} "{name}"')
            wanted.append((family, name))
        if place not in new:
            gone.append(f"delete {' '.join(path)}")
    lists: dict[tuple[str, str], None] = {}
    seen: set[tuple[int, str]] = set()
    while wanted:
        family, name = key = wanted.pop()
        if key in seen:
            continue
        seen.add(key)
        node = find(there, ("filter", _FILTER_WORDS[family], name))
        if node is None:
            continue
        wanted += [(family, told.rpartition(" offset ")[0]) for told in at(node, "embed", "filter")]
        lists |= dict.fromkeys(_lists_of(node))
        if key in now.filters and _decides(now.filters[key]) == _decides(then.filters[key]):
            continue
        if find(here, ("filter", _FILTER_WORDS[family], name)) is not None:
            gone.append(f'delete filter {_FILTER_WORDS[family]} "{name}"')
        back[:0] = _statements(["filter", _FILTER_WORDS[family], name], node)
    if not gone and not back:
        return []
    _refuse_classic(running, backup)
    for kind, name in lists:
        mine, theirs = (find(root, ("filter", "match-list", kind, name)) for root in (here, there))
        if theirs is not None and mine != theirs:
            if mine is not None:
                gone.append(f'delete filter match-list {kind} "{name}"')
            back[:0] = _statements(["filter", "match-list", kind, name], theirs)
    kept = then.filters.keys() | {
        (one.family, name) for one in now.bindings if one.attachment not in names for name in one.filters
    }
    ours = sorted(key for key, one in now.filters.items() if one.name.startswith(OUR_FILTERS) and key not in kept)
    return list(dict.fromkeys([*gone, *back])) + remove(ours)


def _bound(configuration: Configuration) -> dict[tuple[str, str, int], tuple[tuple[str, object], ...]]:
    """What decides in each place, to compare two configurations."""
    return {
        (one.attachment, one.direction, one.family): tuple(
            (name, _decides(configuration.filters[one.family, name])) for name in one.filters
        )
        for one in configuration.bindings
    }


def _decides(chosen: Filter) -> tuple[object, ...]:
    return (chosen.default, *((one.action, one.matches, one.target, one.doubt) for one in chosen.entries))


def _lists_of(node: Node) -> Iterator[tuple[str, str]]:
    """The match-lists that a filter refers to."""
    ahead = [node]
    while ahead:
        here = ahead.pop()
        for word, below in here.items():
            if word in ("ip-prefix-list", "ipv6-prefix-list", "port-list", "protocol-list", "next-header-list"):
                yield from ((word.replace("next-header-list", "protocol-list"), name) for name in below)
            else:
                ahead.append(below)


_BARE = re.compile(r"[A-Za-z0-9_./:-]+")
# Words that a name follows, which the MD-CLI prints in quotes.
_NAMED = frozenset((*_FILTER_WORDS.values(), "ip-prefix-list", "ipv6-prefix-list", "port-list", "protocol-list",
                    "next-header-list", "description"))  # fmt: skip


def _statements(path: Sequence[str], node: Node) -> list[str]:
    """The lines that make what stands below the path."""
    found: list[str] = []
    ahead = [(list(path), node)]
    while ahead:
        here, below = ahead.pop()
        if not below:
            found.append(_statement(here))
        ahead += [([*here, word], below[word]) for word in sorted(below, key=lambda word: below[word].line)[::-1]]
    return found


def _statement(path: list[str]) -> str:
    words = [
        word if _BARE.fullmatch(word) and not (index and path[index - 1] in _NAMED) else _told(word)
        for index, word in enumerate(path)
    ]
    alone = path[-2:-1] in (["prefix"], ["port"], ["prefix-exclude"]) or path[-1].startswith("start ")
    return f"/configure {' '.join(words)}{' { }' if alone else ''}"


def _told(word: str) -> str:
    """A key of several words as it is printed, or a string in quotes."""
    if word.startswith("start ") or re.fullmatch(r"offset \d+", word):
        return word
    name, offset, place = word.rpartition(" offset ")
    return f'"{name}"{offset}{place}' if offset and place.isdecimal() else f'"{word}"'
