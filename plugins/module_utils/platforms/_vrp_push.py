# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The way to a VRP router: rules as lists, a classifier for each, and where a policy has to have it.

A policy holds both families, and that of the system view all user groups. So what is written depends on what runs: a
list of ours comes in front of whatever else is in the policy, and leaves the rest of it as it is.
"""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ..filters import Filter
from ..packets import PROTOCOLS, address_text, prefix
from ..plan import OUR_FILTERS, OURS, all_same, in_force
from ..rules import Change, Rule, RuleSet
from ._vrp_edit import Editor, classifier_lines, key_of
from ._vrp_places import DIRECTIONS, USERS, parse
from ._vrp_policies import Policies
from ._vrp_text import Cut, cut_text, domain_prefixes

PASS, CHECK = f"{OURS}PASS", f"{OURS}CHECK"  # behaviors: let it through; let it through if its source is right
_OUR_POLICIES = (f"{OURS}IN-", f"{OURS}OUT-", f"{OURS}USERS-")
_BEHAVIORS = {PASS: "permit", CHECK: "ip urpf strict"}
_WAYS = {"up": "inbound", "down": "outbound"}
_DESCRIPTION = 127  # characters that the description of a rule may have ([CE] rule description)
_OURS_FROM, _OTHERS_FROM = 1000, 2000  # precedences (1-5119) where a policy is written anew
_PROTOCOLS = {
    4: {"": "ip", "tcp": "tcp", "udp": "udp", "icmp": "icmp"},
    6: {"": "ipv6", "tcp": "tcp", "udp": "udp", "icmp6": "icmpv6"},
}
_EXTENSION_HEADERS = ("hoport", "ipv6-routing", "ipv6-frag", "ipv6-destination", "135")


@dataclass
class _Policy:
    """What is to be said in the view of one policy."""

    name: str
    lines: list[str] = field(default_factory=list)
    attach: list[str] = field(default_factory=list)  # lines of the interface, or of the system view
    interface: str = ""


def fields(change: Change, running: str) -> dict[str, object]:
    """`lists`, `classifiers`, `behaviors`, `policies`, `interfaces`, `applied` and `gone` of the template."""
    cut = cut_text(running)
    places = {bind.filter: (bind.attachment, bind.direction) for bind in change.binds}
    lists, checked = [], set()
    for one in change.filters:
        attachment, direction = places.get(one.name, ("", one.direction))
        if attachment.startswith(USERS):
            group = attachment.removeprefix(USERS)
            rules, checks = _for_users(one, direction, _addresses_of(cut, group, one.family))
            end = f"{'source' if direction == 'up' else 'destination'} user-group {group}"
            checked |= {one.name} if checks else set()
        else:
            rules, end = list(one.rules), ""
        kind = "ucl" if end else "advance"
        lists.append({"header": f"{_list(one.family, one.name)} {kind}", "rules": _lines(one, rules, end)})
    policies, used = _policies(change, cut, running, checked)
    return {
        "lists": lists,
        "classifiers": [
            {"name": bind.filter, "match": f"if-match {'ipv6 ' * (bind.family == 6)}acl name {bind.filter}"}
            for bind in change.binds
        ],
        "behaviors": [{"name": name, "action": _BEHAVIORS[name]} for name in sorted(used)],
        "policies": [{"name": one.name, "lines": one.lines} for one in policies if one.lines],
        "interfaces": [
            {"name": one.interface, "lines": one.attach} for one in policies if one.attach and one.interface
        ],
        "applied": [line for one in policies if not one.interface for line in one.attach],
        "gone": _gone(change, cut, running),
    }


def _list(family: int, name: str) -> str:
    return f"acl {'ipv6 ' * (family == 6)}name {name}"


# -- rules -------------------------------------------------------------------------------------------------------


def _addresses_of(cut: Cut, group: str, family: int) -> list[str]:
    """What the subscribers of a group can have as addresses, as far as the configuration says."""
    found: list[str] = []
    for domain in cut.domains.values():
        if any(words == ["user-group", group] for _, words, _ in domain.lines):
            found += [one for one in domain_prefixes(cut, domain) if (":" in one) == (family == 6)]
    return found


def _for_users(rule_set: RuleSet, direction: str, own: Sequence[str]) -> tuple[list[Rule], bool]:
    """The rules without the subscriber's own address, which a rule with a user group cannot have; is there a check?

    A condition that every address of the group fulfils goes without saying. What is left of source validation is a
    behavior that checks, and one rule for all.
    """
    side = "sources" if direction == "up" else "destinations"
    whole = max((getattr(rule, side) for rule in rule_set.rules), key=len, default=())
    kept: list[Rule] = []
    for rule in rule_set.rules:
        here = getattr(rule, side)
        if here and not (_covers(here, own) if own else here == whole):
            raise ValueError(
                f"a user list cannot have a user group and an address at the same end ({', '.join(here)}: "
                f"'{rule.comment}'): give these subscribers a user group and a pool of their own"
            )
        plain = Rule(**{name: getattr(rule, name) for name in Rule.__slots__} | {side: ()})
        kept.append(plain)
        if direction == "up" and here and plain == Rule(rule.action, comment=rule.comment):
            return kept, rule.action == "permit"
    return kept, False


def _covers(wide: Sequence[str], narrow: Sequence[str]) -> bool:
    outer = [ipaddress.ip_network(text) for text in wide]
    inner = [ipaddress.ip_network(text) for text in narrow]
    return all(
        any(one.version == other.version and one.subnet_of(other) for other in outer)  # type: ignore[arg-type]
        for one in inner
    )


def _lines(rule_set: RuleSet, rules: Sequence[Rule], end: str) -> list[dict[str, object]]:
    """Rules with their numbers and, where the comment changes, their descriptions. `end`: the user group."""
    found: list[dict[str, object]] = []
    comment = ""
    headers: list[tuple[str, str]] = []
    if rule_set.family == 6:
        headers = [(f"deny {name} {end}".rstrip(), "extension headers hide the ports") for name in _EXTENSION_HEADERS]
    bodies = [*headers, *((body, rule.comment) for rule in rules for body in _bodies(rule, rule_set.family, end))]
    for number, (body, said) in enumerate(bodies, 1):
        description = " ".join(said.split())[:_DESCRIPTION] if said != comment else ""
        comment = said
        found.append({"id": 5 * number, "body": body, "description": description})
    return found


def _bodies(rule: Rule, family: int, end: str) -> Iterator[str]:
    if rule.protocol and rule.protocol not in PROTOCOLS:
        raise ValueError(f"the rule '{rule.comment}' has an unknown protocol: {rule}")
    if (rule.source_ports or rule.destination_ports) and not rule.protocol:
        raise ValueError(f"the rule '{rule.comment}' has ports and no protocol: {rule}")
    if rule.icmp and rule.protocol not in ("icmp", "icmp6"):
        raise ValueError(f"the rule '{rule.comment}' has ICMP types and is not of ICMP: {rule}")
    if rule.undetermined:
        raise ValueError(
            f"the rule '{rule.comment}' is about incomplete header chains, for which this platform has no condition: "
            "choose profile: standard for it"
        )
    protocol = _PROTOCOLS[family].get(rule.protocol) or str(PROTOCOLS[rule.protocol])
    kind = "icmp-type" if family == 4 else "icmp6-type"
    later = {4: "fragment-type fragment-subseq", 6: "fragment"}[family] if rule.later_fragments else ""
    word = ("ip-address " if family == 4 else "ipv6-address ") if end else ""
    group = end.partition(" ")[0]
    for source, source_ports, destination, ports, icmp in itertools.product(
        [_address("source", word, text, family) for text in rule.sources] or [""],
        [_ports("source-port", *one) for one in rule.source_ports] or [""],
        [_address("destination", word, text, family) for text in rule.destinations] or [""],
        [_ports("destination-port", *one) for one in rule.destination_ports] or [""],
        [f"{kind} {one}" if code is None else f"{kind} {one} {code}" for one, code in rule.icmp] or [""],
    ):
        ends = [end if group == "source" else source, end if group == "destination" else destination]
        parts = [rule.action, protocol, ends[0], source_ports, ends[1], ports, icmp, later]
        yield " ".join(part for part in parts if part)


def _address(side: str, word: str, text: str, family: int) -> str:
    ((value, mask),) = prefix(text, family)
    bits = 32 if family == 4 else 128
    if not mask:
        return ""
    address = address_text(value, family)
    if family == 6:
        return f"{side} {word}{address}/{mask.bit_count()}"
    wildcard = mask ^ ((1 << bits) - 1)
    return f"{side} {word}{address} {address_text(wildcard, 4) if wildcard else 0}"


def _ports(side: str, low: int, high: int) -> str:
    return f"{side} eq {low}" if low == high else f"{side} range {low} {high}"


# -- policies ----------------------------------------------------------------------------------------------------


def _policies(change: Change, cut: Cut, running: str, checked: set[str]) -> tuple[list[_Policy], set[str]]:
    """The policies that get the lists of the change, and the behaviors that are used."""
    if not change.binds:
        return [], set()
    here = parse(running).bindings if running else ()
    held = {(one.attachment, one.direction, one.family): one.filters for one in here}
    reader = Policies(cut)
    wanted: dict[tuple[str, str], list[tuple[int, str]]] = {}
    for bind in change.binds:
        wanted.setdefault((bind.attachment, bind.direction), []).append((bind.family, bind.filter))
    shared: dict[str, list[tuple[str, list[tuple[int, str]]]]] = {}  # of the system view, by direction
    found: list[_Policy] = []
    used: set[str] = set()
    for (attachment, direction), lists in wanted.items():
        if attachment.startswith(USERS):
            shared.setdefault(direction, []).append((attachment, lists))
        else:
            found.append(_on_interface(attachment, direction, lists, cut, reader, held))
            used.add(PASS)
    for direction, members in shared.items():
        one = _on_users(direction, members, cut, reader, held, checked)
        found.append(one)
        used |= {name for name in (PASS, CHECK) if any(f" behavior {name} " in line for line in one.lines)}
    return found, used


_Held = dict[tuple[str, str, int], tuple[str, ...]]


def _on_interface(
    attachment: str, direction: str, lists: list[tuple[int, str]], cut: Cut, reader: Policies, held: _Held
) -> _Policy:
    """A policy of the interface's own: another's may be in use elsewhere too, so its classifiers are taken over."""
    way = _WAYS[direction]
    name = f"{OURS}{'IN' if direction == 'up' else 'OUT'}-{attachment.replace('/', '-')}"
    block = cut.interfaces.get(attachment)
    bound = [words for _, words, _ in block.lines if words[0] == "traffic-policy" and way in words] if block else []
    current = bound[0][1] if bound else ""
    for family, _ in lists:
        if current:
            _only_filters(reader, current, family, None, "")
    gone = _old(held, attachment, direction, lists)
    others = [one for one in _entries(reader, current) if one[0] not in gone]
    one = _Policy(name, interface=attachment)
    new = [(acl, PASS) for _, acl in lists]
    if current == name:
        one.lines = _edited(reader, name, new, others, gone)
    else:
        one.lines = [*(f"undo classifier {old}" for old, _, _ in _entries(reader, name)), *_anew(new, others)]
        one.attach = [*(f"undo {' '.join(words)}" for words in bound), f"traffic-policy {name} {way}"]
    return one


def _on_users(
    direction: str, members: list[tuple[str, list[tuple[int, str]]]], cut: Cut, reader: Policies, held: _Held,
    checked: set[str],
) -> _Policy:  # fmt: skip
    """The system view has one policy each way: our lists come first in it."""
    way = _WAYS[direction]
    side = "source" if direction == "up" else "destination"
    applied = [words[1] for _, words, _ in cut.applied if words[2:] == [way]]
    name = applied[-1] if applied else f"{OURS}USERS-{'IN' if direction == 'up' else 'OUT'}"
    gone: list[str] = []
    new: list[tuple[str, str]] = []
    for attachment, lists in members:
        for family, acl in lists:
            if applied:
                _only_filters(reader, name, family, attachment.removeprefix(USERS), side)
            new.append((acl, CHECK if acl in checked or _checks(cut, acl) else PASS))
        gone += _old(held, attachment, direction, lists)
    others = [one for one in _entries(reader, name) if one[0] not in gone]
    one = _Policy(name, _edited(reader, name, new, others, gone))
    if not applied:
        one.attach = [f"traffic-policy {name} {way}"]
    return one


def _old(held: _Held, attachment: str, direction: str, lists: Sequence[tuple[int, str]]) -> list[str]:
    """Our lists that were there before."""
    way = "in" if direction == "up" else "out"
    return [
        name
        for family, _ in lists
        for name in held.get((attachment, way, family), ())
        if name.startswith(OUR_FILTERS)
    ]  # fmt: skip


def _entries(reader: Policies, name: str) -> list[tuple[str, str, int | None]]:
    """(classifier, behavior, precedence) of a policy in the order in which they are asked."""
    block = reader.cut.policies.get(name)
    if block is None:
        return []
    precedence = {words[1]: int(words[-1]) for _, words, _ in block.lines if words[-2:-1] == ["precedence"]}
    return [(one, behavior, precedence.get(one)) for one, behavior, _, _ in reader.classifiers(block)]


def _checks(cut: Cut, acl: str) -> bool:
    """Does a list that is there already end with the rule for what has been checked?"""
    said = [words[3] for key, one in cut.acls.items() if key[1] == acl for _, words, _ in one.lines if len(words) > 3]
    return "P8" in said


def _only_filters(reader: Policies, name: str, family: int, group: str | None, side: str) -> None:
    """What comes behind a list of ours gets no packet any more: refuse where it does more than to filter."""
    block = reader.cut.policies.get(name)
    for classifier, behavior, line, text in reader.classifiers(block) if block else ():
        more = reader.behavior(behavior).more
        chosen = reader.cut.classifiers.get(classifier)
        if not more or chosen is None or classifier.startswith(OUR_FILTERS):
            continue
        segments = reader._classified(chosen, reader.behavior(behavior), family, group, side, False)
        if any(segment.entries for segment in segments):
            raise ValueError(
                f"traffic policy {name} does more than to filter there (line {line}: '{text}', whose behavior has "
                f"'{more}'), and a filter in front of it would take its packets: move the deny into the policy by hand"
            )


def _edited(
    reader: Policies, name: str, new: Sequence[tuple[str, str]], others: Sequence[tuple[str, str, int | None]],
    gone: Sequence[str],
) -> list[str]:  # fmt: skip
    """Lines in the view of a policy that is there: the new classifiers get precedences before all others."""
    names = [acl for acl, _ in new]
    there = {one for one, _, _ in _entries(reader, name)}
    found = [f"undo classifier {one}" for one in dict.fromkeys(gone) if one in there]
    others = [one for one in others if one[0] not in names]
    ranks = [rank for _, _, rank in others]
    numbers = [rank for rank in ranks if rank is not None]
    if len(numbers) == len(ranks) and (not numbers or min(numbers) > len(new)):
        first = min(numbers) - len(new) if numbers else _OURS_FROM
        return found + [_classifier(acl, behavior, first + at) for at, (acl, behavior) in enumerate(new)]
    found += [f"undo classifier {one}" for one, _, _ in others]
    return found + _anew(new, others)


def _anew(new: Sequence[tuple[str, str]], others: Sequence[tuple[str, str, int | None]]) -> list[str]:
    found = [_classifier(acl, behavior, _OURS_FROM + at) for at, (acl, behavior) in enumerate(new)]
    return found + [_classifier(one, behavior, _OTHERS_FROM + 10 * at) for at, (one, behavior, _) in enumerate(others)]


def _classifier(name: str, behavior: str, precedence: int) -> str:
    return f"classifier {name} behavior {behavior} precedence {precedence}"


def _gone(change: Change, cut: Cut, running: str) -> list[str]:
    """Our classifiers that no policy has any more behind the change."""
    if not change.binds or not running:
        return []
    held = {(one.attachment, one.direction, one.family): one.filters for one in parse(running).bindings}
    kept = {bind.filter for bind in change.binds}
    old = [
        name
        for bind in change.binds
        for name in _old(held, bind.attachment, bind.direction, [(bind.family, bind.filter)])
    ]
    return [name for name in dict.fromkeys(old) if name not in kept and name in cut.classifiers]


# -- lines and texts ---------------------------------------------------------------------------------------------


def lines(rendered: str) -> list[str]:
    """The lines to send: no comments, no blanks, and a `quit` at the end of every view."""
    found: list[str] = []
    inside = False
    for raw in rendered.splitlines():
        line = raw.strip()
        if not line or line[0] in "#!":
            continue
        deeper = raw[0] in " \t"
        if inside and not deeper:
            found.append("quit")
        inside = deeper or key_of(line) is not None
        found.append(line)
    return [*found, "quit"] if inside else found


def remove(filters: Sequence[tuple[int, str]]) -> list[str]:
    return [f"undo {_list(family, name)}" for family, name in filters]


def apply(running: str, commands: Sequence[str]) -> Iterator[str]:
    editor = Editor(running)
    for command in commands:
        editor.obey(command)
    yield editor.text()


def restore(running: str, backup: str, names: Sequence[str]) -> list[str]:
    """The lines that bring the backup's policies back where they differ on these attachments."""
    now, then = in_force(parse(running)), in_force(parse(backup))
    differs = {
        (place[0], place[1])
        for place in now.keys() | then.keys()
        if place[0] in names and not all_same(now.get(place, ()), then.get(place, ()))
    }
    if not differs:
        return []
    editor, source = Editor(running), Editor(backup)
    found: list[str] = []
    for attachment, direction in sorted(differs):
        way = next(word for word, one in DIRECTIONS.items() if one == direction)
        view = "" if attachment.startswith(USERS) else f"interface {attachment}"
        here, there = editor.applied(view, way), source.applied(view, way)
        if here and not view and here == there:
            found += _taken_out(editor, source, attachment, direction, here, now, then)
            continue
        for needed in source.needs(there) if there else ():
            found += editor.again(source, needed)
        attach = [f"undo {line}" for line in editor.bindings(view, way)] + source.bindings(view, way)
        found += [view, *attach, "quit"] if view else attach
    for command in found:
        editor.obey(command)
    for name in editor.unused((*OUR_FILTERS, *_OUR_POLICIES, PASS, CHECK)):
        found.append(name)
        editor.obey(name)
    return found


_InForce = dict[tuple[str, str, int], tuple[Filter, ...]]


def _taken_out(
    editor: Editor, source: Editor, attachment: str, direction: str, policy: str, now: _InForce, then: _InForce
) -> list[str]:
    """In the policy that both have, for one user group: our classifiers of now go, those of the backup come."""
    places = [(attachment, direction, family) for family in (4, 6)]
    gone, back = (
        {one.name for place in places for one in state.get(place, ()) if one.name.startswith(OUR_FILTERS)}
        for state in (now, then)
    )
    found: list[str] = []
    said: list[str] = [f"undo classifier {name}" for name in sorted(gone)]
    for name, line in classifier_lines(source, policy):
        if name in back:
            for needed in source.needs_of(name, line):
                found += editor.again(source, needed)
            said.append(line)
    return [*found, f"traffic policy {policy}", *said, "quit"]
