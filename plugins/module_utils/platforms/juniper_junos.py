# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Juniper Junos and Junos Evolved: stateless firewall filters of family inet, inet6 and any.

What is modelled, and the Juniper document that says so (Routing Policies, Firewall Filters, and Traffic Policers
User Guide, by topic; "[memory]" marks what no document at hand confirms):

- Terms in their order, the first with a terminating action decides; behind the last an implicit discard; a filter
  without terms discards ("Stateless Firewall Filter Components").
- A term without `then`, or with nonterminating actions only (count, log, policer, ...), accepts; `next term` goes on
  ("Firewall Filter Nonterminating Actions"). A policer limits a rate: a packet within the rate passes, so the term
  counts as accept.
- Conditions of one kind are alternatives, of different kinds all must hold. A set of addresses has an implicit
  `0/0 except`; among prefixes with and without `except`, of address and prefix-list conditions together, the longest
  one that fits decides ("Firewall Filter Match Conditions Based on Address Fields"; the example "Limit TCP Access to
  a Port Based on a Prefix List" combines the two kinds).
- A port, TCP flag or ICMP condition does not imply the protocol: without it Junos compares the bytes behind the IP
  header of any packet ("How Firewall Filters Test a Packet's Protocol"). Sure is the match of protocols that have the
  field; for all others the term is in doubt. With the protocol given it matches packets whose header can be read; but
  TCP flags alone are looked for in later fragments too ("Firewall Filter Match Conditions Based on Bit-Field Values"),
  which may match then.
- `destination-port-range-optimize` with ports is a condition on them, without any it changes how ranges are stored
  ("Firewall Filter Match Conditions and Actions (QFX and EX Series Switches)") [memory].
- `next-header` looks at the first header behind the IPv6 header, `payload-protocol` at the upper-layer one
  ("Firewall Filter Match Conditions for IPv6 Traffic"). `payload-protocol` needs MPCs on MX, or PTX; EX, QFX and
  ACX know `next-header` alone, which extension headers get past.
- `is-fragment` matches trailing fragments only; whether `first-fragment` matches whole packets too is said in two
  ways ("Match Conditions for IPv4 Traffic": an alias of fragment offset 0), so that is in doubt.
- A term `filter X` evaluates the terms of X in its place, one level deep, with no other statement in the term
  ("Guidelines for Nesting References to Multiple Firewall Filters").
- `input-list` and `output-list` evaluate their filters as one, in order ("Guidelines for Applying Multiple Firewall
  Filters as a List"); that one is called as `show firewall` has it, ge-0/0/0.100-i or -o. A single filter and a list
  replace each other [memory].
- All filters of an `input-chain` or `output-chain` look at the packet, whatever an earlier one says ("Example: Using
  Firewall Filter Chains"): what one discards and a later one accepts is unknown.
- A filter of family any, bound to the unit, comes before the family's own [memory]; both must accept.
- In a dynamic profile a variable stands for a filter that RADIUS names for the session: `$junos-input-filter` and the
  like ("Dynamically Attaching Filters Using RADIUS Variables", Broadband Subscriber Services User Guide); `adf` has
  RADIUS write the filter itself ("Dynamically Applying Ascend-Data-Filter Policies to Subscriber Sessions"). A filter
  that the profile names by itself stays, whatever RADIUS sends.
- An `apply-path` stands for the prefixes that its path finds ("apply-path"); where groups give some there, unknown.
- In the `member` of an interface-range `[0-23]` and `[1,3]` are numbers, `*` is 0 through 47 ("Interface Ranges for
  Physical Interfaces").
- In a cluster `${node}` is the group of the node, as `re0` and `re1` are of a routing engine ("Applying a Junos
  Configuration Group"): what either has is read.
- What a router does not show, by `apply-flags omit` or for want of a login's rights, stands as the remark OMITTED or
  ACCESS-DENIED [memory], and is unknown.
- A reference to an undefined filter or prefix-list does not commit, so a text that has one is not understood there.
- apply-groups: the nearest statement and the first group named win; wildcards `<*>` fit what exists ("Configuration
  Groups"). Where inherited and own terms or conditions mix, the order is not documented: unknown.
- A logical system with firewall statements knows its own filters alone, one without any those of the main
  configuration ("References from a Nonfirewall Object in a Logical System to a Firewall Filter").
- Filters of layer 2 families, VLANs, forwarding tables and services, and security policies, are not read: doubts.

An attachment is a logical interface, `ge-0/0/0.100`, or, in a dynamic profile or logical system, the unit's path as
Junos writes it without quotes: `dynamic-profiles RES interfaces pp0 unit $junos-interface-unit`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from ..filters import PERMIT, Configuration, Filter, NotThisPlatform
from ..packets import PROTOCOLS, WITH_PORTS
from ..plan import OUR_FILTERS, Push
from ..rules import Change, Rule, RuleSet
from ._junos_places import FAMILIES, Builder, full_name
from ._junos_terms import ADDRESS_KINDS
from ._junos_tree import COMMANDS, SECTIONS, Node, at, find, read, uncollected
from ._junos_values import PROTOCOL_NAMES

ALIASES = ("junipernetworks.junos.junos", "junos", "juniper", "juniper_junos_evo")
DEVICE_TYPE = "juniper_junos"
# The brace form, because a text that was cut off shows there.
READ = ("show configuration",)
REJECTED = (
    r"^\s*syntax error\b",
    r"^\s*unknown command\b",
    r"^\s*(?:is )?ambiguous\b",
    r"^\s*missing (?:mandatory )?(?:argument|statement)\b",
    r"^\s*invalid (?:value|input|\S+ value)\b",
    r"^\s*error:",
    r"^\s*permission denied\b",
    r"^\s*configuration database (?:locked|modified)\b",
)
# `configure exclusive` throws away at the end of its session what was not committed ("configure"), so there is nothing
# to discard; `commit confirmed` rolls back by itself unless a commit follows in time ("Commit a Configuration").
PUSH = Push(
    arm=("configure exclusive",),
    commit=("commit check", "commit confirmed {minutes}", "exit"),
    confirm=("configure exclusive", "commit and-quit"),
    abort=("configure exclusive", "rollback 1", "commit and-quit"),
)
LIVE = False
WHOLE = False
LINK_LOCAL = True  # a filter on a logical interface sees what stays on the link, too


def parse(text: str, attachments: Sequence[str] = ()) -> Configuration:
    """What the configuration means, brace form, `set` form or one after the other.

    `attachments` make no difference on this platform. Raises NotThisPlatform when nothing of it is Junos.
    """
    del attachments
    reading = read(text)
    other = _OTHERS.search(text[:_START])
    if other or len(reading.known) <= len(reading.strange):
        told = f", but like another platform's: '{other[0].strip()}'" if other else ""
        raise NotThisPlatform(f"this does not look like a Junos configuration{told}: give it 'show configuration'")
    with uncollected():
        own = replace(reading, doubts=list(reading.doubts))
        return Builder(own).build()


_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_START = 200_000  # characters, in which every other platform shows what it is
_OTHERS = re.compile(
    r"^(?:Building configuration|Current configuration|! |hostname \S+$|table (?:inet|ip6?) \S+ \{|"
    r"\s+(?:ethernet|bonding|loopback|wireguard|openvpn) \w+ \{$|"
    r"set interfaces (?:ethernet|bonding|loopback|pppoe|wireguard|dummy) |"
    r"set firewall (?:ipv4|ipv6|name|ipv6-name|group|global-options) )",
    re.MULTILINE,
)


def incomplete(text: str) -> str:
    """Why this is not the whole running configuration of a Junos router, "" when nothing speaks against it.

    The brace form must close every brace; where a text in the `set` form was cut off cannot be seen.
    """
    if not text.strip():
        return "the router sent no configuration"
    control = _CONTROL.search(text)
    if control:
        return f"a control character (terminal escape?) in line {text.count(chr(10), 0, control.start()) + 1}"
    pager = re.search(r"^\s*---\(more", text, re.MULTILINE)
    if pager:
        return f"the pager stopped the output in line {text.count(chr(10), 0, pager.start()) + 1}"
    other = _OTHERS.search(text[:_START])
    if other:
        return f"it looks like another platform's configuration: '{other[0].strip()}'"
    reading = read(text)
    if reading.problem:
        return reading.problem
    for section in ("system", "interfaces"):
        if section not in reading.known:
            return f"it has no section '{section}', which every router has: the output may have been cut off"
    return ""


_PROTOCOL_WORDS = {number: word for word, number in PROTOCOL_NAMES.items() if word != "icmpv6"}
_SIDES = {"up": "input", "down": "output"}
_FAMILY_WORDS = {family: word for word, family in FAMILIES.items()}
_BARE = re.compile(r"[A-Za-z0-9_./:-]+")


def fields(change: Change) -> dict[str, object]:
    """The template's variables: `filters` (path, flags, terms), `binds` (path, lists, side, filter).

    Raises ValueError for what Junos cannot express, and for an attachment without its unit.
    """
    places: dict[str, dict[str, bool]] = {chosen.name: {} for chosen in change.filters}
    binds = []
    for bind in change.binds:
        unit = _unit_path(bind.attachment)
        dynamic = unit[0] == "dynamic-profiles"
        where = _quoted(unit[:2]) + " " if unit[0] == "logical-systems" else ""
        here = places.setdefault(bind.filter, {})
        here[where] = here.get(where, False) or dynamic
        family = _FAMILY_WORDS[bind.family]
        side = _SIDES[bind.direction]
        # Whether a single filter replaces a list is not documented, so the list goes; dynamic profiles have none.
        lists = [] if dynamic else [f"{side}-list"]
        binds.append({"path": f"{_quoted(unit)} family {family}", "lists": lists, "side": side, "filter": bind.filter})
    filters = []
    for chosen in change.filters:
        terms = list(_terms(chosen))
        family = _FAMILY_WORDS[chosen.family]
        for where, dynamic in (places[chosen.name] or {"": False}).items():
            path = f"{where}firewall family {family} filter {chosen.name}"
            # Every session has its own counters ("Classic Filters Overview" asks for it in dynamic profiles) [memory].
            filters.append({"path": path, "flags": ["interface-specific"] if dynamic else [], "terms": terms})
    return {"filters": filters, "binds": binds}


def _unit_path(attachment: str) -> list[str]:
    """The words of the unit: of 'ge-0/0/0.100', or of a path that has it already."""
    words = attachment.replace('"', "").split()
    if len(words) > 1:
        if len(words) > 4 and words[-2] == "unit" and words[-4] == "interfaces":
            return words
    else:
        physical, _, unit = attachment.rpartition(".")
        if physical and unit.isdecimal():
            return ["interfaces", physical, "unit", unit]
    raise ValueError(
        f"attachment '{attachment}' is no logical interface: name it with its unit, as 'ge-0/0/0.100' or "
        "'dynamic-profiles RES interfaces pp0 unit $junos-interface-unit'"
    )


def _quoted(words: Iterable[str]) -> str:
    return " ".join(word if _BARE.fullmatch(word) else f'"{word}"' for word in words)


def _terms(chosen: RuleSet) -> Iterator[dict[str, object]]:
    """The terms of a filter, each with a name of its own; what is denied is counted under that name."""
    used: dict[str, int] = {}
    for rule, protocols in _pairs(chosen.rules):
        for conditions in _from(rule, protocols, chosen):
            name = re.sub(r"[^A-Za-z0-9]+", "-", rule.comment).strip("-")[:48] or "term"
            used[name] = used.get(name, 0) + 1
            if used[name] > 1:
                name = f"{name}-{used[name]}"
            actions = ["accept"] if rule.action == PERMIT else [f"count {name}", "discard"]
            yield {"name": name, "conditions": conditions, "actions": actions}


def _pairs(rules: Sequence[Rule]) -> Iterator[tuple[Rule, tuple[str, ...]]]:
    """The rules with their protocols: two that differ in tcp and udp only are one term."""
    ahead = list(reversed(rules))
    while ahead:
        rule = ahead.pop()
        follower = ahead[-1] if ahead else None
        both = (rule.protocol, follower.protocol) if follower else ()
        if follower and set(both) == {"tcp", "udp"} and replace(follower, protocol=rule.protocol) == rule:
            ahead.pop()
            yield rule, both
        else:
            yield rule, (rule.protocol,) if rule.protocol else ()


def _from(rule: Rule, protocols: tuple[str, ...], chosen: RuleSet) -> Iterator[list[str]]:
    """The conditions of the terms that make up one rule: one, or one for each ICMP type whose codes are told."""
    what = f"filter {chosen.name}: rule '{rule.comment or rule.action}'"
    if rule.undetermined or (rule.later_fragments and chosen.family == 6):
        raise ValueError(
            f"{what} cannot be written for Junos, which has no condition for it in family "
            f"{_FAMILY_WORDS[chosen.family]}: use the profile 'standard' here"
        )
    numbers = {PROTOCOLS[protocol] for protocol in protocols}
    if (rule.source_ports or rule.destination_ports) and not (numbers and numbers <= WITH_PORTS):
        raise ValueError(f"{what} has ports and no protocol that has them: set its protocol to tcp or udp")
    if rule.icmp and numbers != {1 if chosen.family == 4 else 58}:
        raise ValueError(f"{what} has ICMP types and another protocol: set its protocol to icmp or icmp6")
    conditions = [f"source-address {prefix}" for prefix in rule.sources]
    conditions += [f"destination-address {prefix}" for prefix in rule.destinations]
    if protocols:
        word = "protocol" if chosen.family == 4 else "payload-protocol"
        names = [_PROTOCOL_WORDS.get(number, str(number)) for number in (PROTOCOLS[protocol] for protocol in protocols)]
        conditions.append(f"{word} {_alternatives(names)}")
    for word, ranges in (("source-port", rule.source_ports), ("destination-port", rule.destination_ports)):
        if ranges:
            ends = [str(low) if low == high else f"{low}-{high}" for low, high in ranges]
            conditions.append(f"{word} {_alternatives(ends)}")
    if rule.later_fragments:
        conditions.append("is-fragment")
    codes: dict[tuple[int, ...], list[int]] = {}  # types that are matched with the same codes
    for kind in dict.fromkeys(kind for kind, _ in rule.icmp):
        told = tuple(code for one, code in rule.icmp if one == kind and code is not None)
        codes.setdefault(() if (kind, None) in rule.icmp else told, []).append(kind)
    if not codes:
        yield conditions
    for told, kinds in codes.items():
        types = f"icmp-type {_alternatives(map(str, kinds))}"
        yield [*conditions, types, f"icmp-code {_alternatives(map(str, told))}"] if told else [*conditions, types]


def _alternatives(words: Iterable[str]) -> str:
    found = list(words)
    return found[0] if len(found) == 1 else f"[ {' '.join(found)} ]"


def lines(rendered: str) -> list[str]:
    """The commands of a rendered change, without its remarks."""
    return [line.strip() for line in rendered.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def remove(filters: Sequence[tuple[int, str]]) -> list[str]:
    """The commands that delete filters, by family and name as in a Configuration."""
    found = []
    for family, name in filters:
        short, _, where = name.partition(" in ")
        place = _quoted(where.split()) + " " if where else ""
        found.append(f"delete {place}firewall family {_FAMILY_WORDS[family]} filter {short}")
    return found


def restore(running: str, backup: str, names: Sequence[str]) -> list[str]:
    """The commands that give the attachments the filters they have in the backup, and delete ours behind them.

    A filter of the same name that decides otherwise now is written anew, with the prefix-lists it refers to.
    """
    now, then = parse(running), parse(backup)
    here, there = read(running).root, read(backup).root
    old, new = _bound(now), _bound(then)
    gone: list[list[str]] = []
    back: list[list[str]] = []
    wanted: list[tuple[list[str], int, str]] = []  # where it is defined, family, name
    for attachment, direction, family in sorted(old.keys() | new.keys()):
        place = (attachment, direction, family)
        if attachment not in names or old.get(place) == new.get(place):
            continue
        unit = _unit_path(attachment)
        where = unit[:2] if unit[0] == "logical-systems" else []
        side = "input" if direction == "in" else "output"
        for level in ([*unit, "filter"], [*unit, "family", _FAMILY_WORDS[family], "filter"]):
            for path in ([*level, side], [*level, f"{side}-list"]):
                if find(here, path) is not None:
                    gone.append(path)
                bindings = at(there, *path)
                back += _statements(path, bindings)
                wanted += [(where, family, name) for name in bindings]
    seen: set[tuple[int, str]] = set()
    while wanted:
        where, family, name = wanted.pop()
        known_as = full_name(name, " ".join(where))
        if (family, known_as) in seen:
            continue
        seen.add((family, known_as))
        paths = [[*where, "firewall", *kind, "filter", name] for kind in (["family", _FAMILY_WORDS[family]], [])]
        there_at = [path for path in paths if find(there, path) is not None]
        if not there_at:
            continue
        defined = at(there, *there_at[0])
        wanted += [(where, family, target) for term in at(defined, "term").values() for target in at(term, "filter")]
        key = (family, known_as)
        if key in now.filters and _decides(now.filters[key]) == _decides(then.filters[key]):
            continue
        lists = {
            word for term in at(defined, "term").values() for kind in ADDRESS_KINDS if kind.endswith("prefix-list")
            for word in at(term, "from", kind)
        }  # fmt: skip
        for path in [there_at[0], *([*where, "policy-options", "prefix-list", word] for word in sorted(lists))]:
            if find(here, path) is not None:
                gone.append(path)
            back += list(_statements(path, at(there, *path))) or [path]
    if not gone and not back:
        return []
    kept = then.filters.keys() | {
        (one.family, name) for one in now.bindings if one.attachment not in names for name in one.filters
    }
    ours = sorted(key for key, one in now.filters.items() if one.name.startswith(OUR_FILTERS) and key not in kept)
    found = [f"delete {_quoted(path)}" for path in gone] + [f"set {_quoted(path)}" for path in back]
    return list(dict.fromkeys(found)) + remove(ours)


def _bound(configuration: Configuration) -> dict[tuple[str, str, int], tuple[object, ...]]:
    """What decides in each place, to compare two configurations."""
    return {
        (one.attachment, one.direction, one.family): tuple(
            (name, _decides(configuration.filters[one.family, name])) for name in one.filters
        )
        for one in configuration.bindings
    }


def _decides(chosen: Filter) -> tuple[object, ...]:
    return tuple((one.action, one.matches, one.target, one.doubt) for one in chosen.entries)


def _statements(path: list[str], node: Node) -> Iterator[list[str]]:
    """What the text itself says below the path, one statement after the other."""
    for word, below in node.items():
        if below.rank == 0:
            if below:
                yield from _statements([*path, word], below)
            else:
                yield [*path, word]


def apply(running: str, lines: Sequence[str]) -> Iterator[str]:
    """The running configuration once the commands are committed, as one text: nothing acts before the commit.

    Raises ValueError for a line that is no `set` or `delete` command of a Junos configuration.
    """
    for line in lines:
        words = line.split()
        if len(words) < 3 or words[0] not in COMMANDS or words[1] not in SECTIONS:
            raise ValueError(f"'{line}' is no command that changes a Junos configuration")
    yield "\n".join([running.rstrip("\n"), *lines, ""])
