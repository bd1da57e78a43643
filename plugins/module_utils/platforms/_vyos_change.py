# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The push to a VyOS router: our chains and the jump to them as set and delete lines, and what they do to a text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ..packets import ADDRESS_WIDTH, PROTOCOLS, address_text, prefix
from ..plan import OUR_FILTERS, OURS, Push
from ..rules import Change, Ranges, Rule, RuleSet
from ._vyos_tree import Node, Reading, commands, split

# Sessions are side by side, and what was not committed ends with its session, so there is nothing to discard.
PUSH = Push(
    arm=("configure", "compare saved"),
    commit=("commit-confirm {minutes}", "exit"),
    confirm=("configure", "confirm", "exit"),
    abort=("configure", "load", "commit", "confirm", "exit"),
    save=("configure", "save", "exit"),
)

_WORDS = {4: "ipv4", 6: "ipv6"}
# Each family's chain of jumps: by interface, to the filters. It is written anew with every change.
JUMPS = {4: f"{OURS}EDGE4", 6: f"{OURS}EDGE6"}
_FIRST = "1"  # the rule of `forward filter` that is ours
_STEP = 5
_LAST = 999_999  # the highest number of a rule ("IPv4 Firewall Configuration")
_ACTIONS = {"permit": "return", "deny": "drop"}
_PROTOCOLS = {"icmp6": "ipv6-icmp"}
_NAMED = frozenset({"tcp", "udp", "icmp", "sctp", "udplite"})


def fields(change: Change) -> dict[str, object]:
    """The template's variables: `filters` (each path and rules) and `families` (jumps, first, rules).

    A rule is its number and its conditions. Raises ValueError for what VyOS cannot express.
    """
    return {
        "filters": [
            {"path": f"firewall {_WORDS[one.family]} name {one.name}", "rules": _rules(one)} for one in change.filters
        ],
        "families": [
            {
                "jumps": f"firewall {_WORDS[family]} name {JUMPS[family]}",
                "first": f"firewall {_WORDS[family]} forward filter rule {_FIRST}",
                "target": JUMPS[family],
                "rules": [*_jumps(change, family)],
            }
            for family in (4, 6)
            if any(bind.family == family for bind in change.binds)
        ],
    }


def _jumps(change: Change, family: int) -> Iterator[dict[str, str]]:
    number = 0
    for bind in change.binds:
        if bind.family != family:
            continue
        if not re.fullmatch(r"[A-Za-z][\w.-]*\*?", bind.attachment):
            raise ValueError(f"'{bind.attachment}' is no name of a VyOS interface, nor one with * at its end")
        number += _STEP
        side = {"up": "inbound-interface", "down": "outbound-interface"}[bind.direction]
        yield {"number": str(number), "interface": f"{side} name '{bind.attachment}'", "target": bind.filter}


def _rules(chosen: RuleSet) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    said = ""
    for rule in chosen.rules:
        for conditions in _conditions(rule, chosen.family):
            number = _STEP * (len(found) + 1)
            if number > _LAST:
                raise ValueError(f"{chosen.name} has more rules than VyOS has numbers")
            lines = [f"action '{_ACTIONS[rule.action]}'"]
            comment = re.sub(r"[^\w .,:;/()+-]", " ", rule.comment)[:100].strip()
            lines += [f"description '{comment}'"] if comment and comment != said else []
            said = comment
            found.append({"number": number, "lines": [*lines, *conditions]})
    return found


def _conditions(rule: Rule, family: int) -> Iterator[list[str]]:
    if (rule.source_ports or rule.destination_ports) and rule.protocol not in ("tcp", "udp", "sctp", "udplite"):
        raise ValueError(f"'{rule.comment}': ports need a protocol that has them, and '{rule.protocol}' has none")
    if rule.protocol and rule.protocol not in PROTOCOLS:
        raise ValueError(f"'{rule.comment}': the protocol '{rule.protocol}' is not known")
    if rule.undetermined:
        raise ValueError(
            f"'{rule.comment}': VyOS has no condition for incomplete header chains: choose profile: standard for it"
        )
    if rule.icmp and rule.protocol != {4: "icmp", 6: "icmp6"}[family]:
        raise ValueError(f"'{rule.comment}': ICMP types of IPv{family} need its own ICMP")
    first: list[str] = []
    if rule.protocol:
        name = rule.protocol if rule.protocol in _NAMED else _PROTOCOLS.get(rule.protocol)
        first.append(f"protocol '{name or PROTOCOLS[rule.protocol]}'")
    for side, ranges in (("source", rule.source_ports), ("destination", rule.destination_ports)):
        ports = _port_list(ranges)
        first += [f"{side} port '{ports}'"] if ports else []
    first += ["fragment match-frag"] if rule.later_fragments else []
    for source in rule.sources or ("",):
        for destination in rule.destinations or ("",):
            ends = [
                f"{side} address '{_address(text, family)}'"
                for side, text in (("source", source), ("destination", destination))
                if text
            ]
            for kind, code in rule.icmp or ((-1, None),):
                word = {4: "icmp", 6: "icmpv6"}[family]
                icmp = [] if kind < 0 else [f"{word} type '{kind}'"]
                icmp += [] if code is None else [f"{word} code '{code}'"]
                yield [*first, *ends, *icmp]


def _address(text: str, family: int) -> str:
    ((value, mask),) = prefix(text, family)
    length = mask.bit_count()
    address = address_text(value, family)
    return address if length == ADDRESS_WIDTH[family] else f"{address}/{length}"


def _port_list(ranges: Ranges) -> str:
    """22,80-90; what takes port 0 in, which VyOS has no word for, by the ports that it is not."""
    if all(low for low, _ in ranges):
        return ",".join(_span(low, high) for low, high in ranges)
    left, start = [], 0
    for low, high in [*sorted(ranges), (65536, 65536)]:
        if low > start:
            left.append(f"!{_span(start, low - 1)}")
        start = max(start, high + 1)
    return ",".join(left)


def _span(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}-{high}"


def lines(rendered: str) -> list[str]:
    """The commands of a rendered text: no comments, no blanks."""
    return [text for line in rendered.splitlines() if (text := line.strip()) and not text.startswith("#")]


def remove(filters: Sequence[tuple[int, str]]) -> list[str]:
    """The commands that delete chains. What jumps to the filters is written anew and stays."""
    return [
        f"delete firewall {_WORDS[family]} name {name}"
        for family, name in filters
        if name != JUMPS[family] and " " not in name
    ]


def apply(running: str, lines: Sequence[str]) -> Iterator[str]:
    """The running configuration after the commit, as `set` lines. Raises ValueError for a line that is none of ours."""
    root = Reading(running).root
    firewall = root.at("firewall")
    if ("name" in firewall or "ipv6-name" in firewall) and not ("ipv4" in firewall or "ipv6" in firewall):
        raise ValueError("the firewall is that of VyOS 1.3, which is read and not written: upgrade to 1.4 first")
    foreign = [path for family in (4, 6) if _is_foreign(root.at(*(path := _first(family))))]
    for line in lines:
        words = split(line)
        path = words[1:]
        ours = path[:1] == ["firewall"] and len(path) > 3 and path[1] in _WORDS.values()
        ours = ours and ((path[2] == "name" and path[3].startswith(OURS)) or path[2:6] == _first(4)[2:])
        if words[0] not in ("set", "delete") or not ours:
            raise ValueError(f"'{line}' is not understood")
        if path[:6] in foreign:
            raise ValueError(
                f"{' '.join(path[:6])} is another's: renumber it, because our jump has to stand before all others"
            )
        if words[0] == "set":
            _set(root, path)
        else:
            _delete(root, path)
    yield "\n".join(commands(root)) + "\n"


def _first(family: int) -> list[str]:
    return ["firewall", _WORDS[family], "forward", "filter", "rule", _FIRST]


def _is_foreign(rule: Node) -> bool:
    return bool(rule) and rule.value("jump-target") not in JUMPS.values()


# Statements of which a second one takes the place of the first.
_SINGLE = frozenset(
    ("action", "address", "code", "default-action", "description", "jump-target", "name", "port", "protocol", "type")
)  # fmt: skip


def _set(root: Node, path: Sequence[str]) -> None:
    node = root
    for number, word in enumerate(path):
        if number == len(path) - 1 and number > 4 and path[number - 1] in _SINGLE:
            node.clear()
        node = node.child(word, 0)


def _delete(root: Node, path: Sequence[str]) -> None:
    """What stands there, and the nodes above it that are empty then."""
    nodes = [root]
    for word in path:
        if word not in nodes[-1]:
            return
        nodes.append(nodes[-1][word])
    for node, word in zip(reversed(nodes[:-1]), reversed(path), strict=True):
        del node[word]
        if node:
            return


def restore(running: str, backup: str, _names: Sequence[str]) -> list[str]:
    """The commands that put our chains and our jumps back as the backup has them; none when they are so."""
    now, then = Reading(running).root, Reading(backup).root
    found: list[str] = []
    for family in (4, 6):
        for path in _own_paths(now, then, family):
            here, wanted = now.at(*path), then.at(*path)
            if path == _first(family) and (_is_foreign(here) or _is_foreign(wanted)):
                continue
            if list(commands(here)) == list(commands(wanted)):
                continue
            found += [f"delete {' '.join(path)}"] if here else []
            found += commands(wanted, path) if wanted else []
    return found


def _own_paths(now: Node, then: Node, family: int) -> Iterator[list[str]]:
    """Our chains in either configuration, and last our rule."""
    place = ["firewall", _WORDS[family], "name"]
    own = (*OUR_FILTERS, JUMPS[family])
    names = dict.fromkeys(name for root in (then, now) for name in root.at(*place) if name.startswith(own))
    yield from ([*place, name] for name in names)
    yield _first(family)
