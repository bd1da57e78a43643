# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The nftables chains that VyOS makes of its firewall, zones, NAT and policy routes. Sources: vyos.py."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache

from ..filters import DENY, JUMP, PERMIT, RETURN, UNKNOWN
from ._nftables_parts import Flow, Narrow, Part, Rewrite, Verdict
from ._nftables_text import Chain, Rule, Ruleset, Table
from ._vyos_rules import KNOWN_GROUPS, L3, Surroundings, action, conditions, interface, rewrites
from ._vyos_tree import NOTHING, Node, Reading

# Base chains and their priorities.
HOOKS = {
    "forward": {"filter": 0},
    "prerouting": {"raw": -300},
    "input": {"filter": 0},
    "output": {"filter": 0, "raw": -300},
}
# What stands beside the rules of a chain and decides nothing, or is read where the chain is.
_OF_A_CHAIN = frozenset(
    ("rule", "default-action", "default-jump-target", "default-log", "enable-default-log", "description", "interface")
)  # fmt: skip
_GLOBAL = frozenset(
    ("all-ping", "broadcast-ping", "config-trap", "directed-broadcast", "ip-src-route", "ipv6-receive-redirects",
     "ipv6-source-validation", "ipv6-src-route", "log-martians", "receive-redirects", "resolver-cache",
     "resolver-interval", "resolver-internal", "send-redirects", "source-validation", "state-policy", "syn-cookies",
     "timeout", "twa-hazards-protection")
)  # fmt: skip
_OF_THE_FIREWALL = frozenset(
    ("bridge", "flowtable", "global-options", "group", "interface", "ipv4", "ipv6", "ipv6-name", "name", "options",
     "zone")
) | _GLOBAL  # fmt: skip
_OF_A_ZONE = frozenset(
    ("default-action", "default-log", "enable-default-log", "description", "from", "interface", "intra-zone-filtering",
     "local-zone", "member", "default-firewall")
)  # fmt: skip
_SECTIONS = frozenset(
    ("cluster", "container", "content-inspection", "custom-attributes", "firewall", "high-availability", "interfaces",
     "load-balancing", "nat", "nat64", "nat66", "pki", "policy", "protocols", "qos", "qos-policy", "service", "system",
     "test-definition", "traffic-policy", "vpn", "vpp", "vrf", "webproxy", "zone-policy")
)  # fmt: skip
_WORD = re.compile(r"[a-z0-9-]+")
_NAME = re.compile(r"[A-Za-z0-9_][\w.:@*,+-]*")
_NAT = {"destination": ("prerouting", -100), "source": ("postrouting", 100)}


class Text(Ruleset):
    """The tables of a configuration. Lines and doubts are those of its text."""

    def __init__(self, reading: Reading) -> None:
        super().__init__("")
        self.lines = reading.lines
        self.doubts = list(reading.doubts)
        self.read = reading.filter_lines
        self.named: dict[str, None] = {}  # the interface patterns that rules ask for
        self._root = root = reading.root
        self._said: dict[int, str] = {}
        self._as_commands = reading.as_commands
        self._unbalanced = reading.unbalanced
        self._firewall = firewall = root.at("firewall")
        legacy = "name" in firewall or "ipv6-name" in firewall or "zone-policy" in root
        legacy = legacy and not ("ipv4" in firewall or "ipv6" in firewall)
        routes = [*root.at("policy", "route").values(), *root.at("policy", "route6").values()]
        changed = [rule.at("set") for route in routes for rule in route.at("rule").values()]
        self._around = Surroundings(
            groups=firewall.at("group"),
            members=_members(root),
            flowtables={name: tuple(below.at("interface")) for name, below in firewall.at("flowtable").items()},
            marks=any(word in one for one in changed for word in ("mark", "table", "vrf")),
            legacy=legacy,
        )
        for family in (4, 6):
            self._filters(family)
            self._translation(family)
            self._routes(family)
        self._rest()

    def text(self, line: int) -> str:
        return self._said.get(line) or super().text(line)

    def _say(self, line: int, text: str) -> None:
        """In braces a line alone does not say what it belongs to."""
        if not self._as_commands:
            self._said[line] = text

    def _table(self, family: int, name: str) -> Table:
        key = L3[family], name
        return self.tables.setdefault(key, Table(*key, 0))

    # Rules

    def _enabled(self, path: str, node: Node) -> Iterator[tuple[Node, str, int]]:
        """The rules in their order, each with its action and the line that says what it does."""
        for number, rule in sorted(node.at("rule").items(), key=lambda one: _number(one[0])):
            word = rule.value("action")
            line = rule.at("action", word).line if word else rule.line
            if not self._as_commands:
                self._said[line] = f"{path} rule {number}{' action ' if word else ''}{word}"
            if not (number.isdecimal() and int(number)):  # its place is not known: it may come first, and it may not
                rule = Node(rule.line)
                rule.update(node.at("rule", number))
                rule.child(number, rule.line)
            if "disable" not in rule:
                yield rule, word, line

    def _rules(self, path: str, node: Node, family: int) -> Iterator[Rule]:
        for rule, word, line in self._enabled(path, node):
            parts = conditions(rule, family, self._around)
            self._name_interfaces(rule)
            parts += action(rule, word, rule.value("jump-target"), self._around, line)
            parts.sort(key=lambda part: not isinstance(part, Narrow))  # the first reason of a doubt is the one told
            yield Rule([("notrack", line)] if word == "notrack" else [], line, parts)

    def _name_interfaces(self, rule: Node) -> None:
        for where in ("inbound-interface", "outbound-interface"):
            for word, below in rule.get(where, NOTHING).items():
                if word in ("group", "interface-group"):
                    self.named |= dict.fromkeys(self._around.elements("interface-group", next(iter(below), ""))[0])
                elif word in ("name", "interface-name"):
                    self.named |= dict.fromkeys(name.removeprefix("!") for name in below)
                else:
                    self.named[word.removeprefix("!")] = None

    def _made(self, table: Table, name: str, node: Node, family: int, path: str) -> Chain:
        chain = table.chains[name] = Chain(name, node.line)
        self._say(node.line, path)
        chain.rules += self._rules(path, node, family)
        for word, below in node.items():
            if word not in _OF_A_CHAIN:
                reason = "what this changes in the chain is not worked out"
                self._doubt(below.line, f"{path} {word}", reason)
                chain.rules.insert(0, _anything(below.line, reason))
        return chain

    def _end(self, chain: Chain, node: Node, path: str, default: str) -> None:
        """The default action of a chain that is called."""
        word = node.value("default-action") or ("" if "default-action" in node else default)
        line = node.at("default-action", word).line or node.line
        if node.value("default-action"):
            self._say(line, f"{path} default-action {word}")
        if word != "return":  # at its end a chain returns anyway
            verdict = list(action(NOTHING, word, node.value("default-jump-target"), self._around, line))
            chain.rules.append(Rule([], line, verdict))

    def _doubt(self, line: int, text: str, reason: str) -> None:
        self._say(line, text)
        self.doubt(line, reason)

    def _may_filter(self, families: tuple[int, ...], line: int, text: str, reason: str) -> None:
        """A line that is not understood, and may be one that decides about what is forwarded."""
        self._doubt(line, text, reason)
        for family in families:
            table = self._table(family, "vyos_filter")
            based = [chain for chain in table.chains.values() if chain.hook == "forward"]
            if not based:
                based = [table.chains.setdefault("forward", Chain("forward", line, [], "forward", "filter", 0))]
            for chain in based:
                chain.rules.insert(0, _anything(line, reason))

    # The firewall

    def _filters(self, family: int) -> None:
        table = self._table(family, "vyos_filter")
        firewall, word = self._firewall, {4: "ipv4", 6: "ipv6"}[family]
        old = {4: "name", 6: "ipv6-name"}[family]
        named = {**firewall.at(old), **firewall.at(word, "name")}
        for name, node in named.items():
            path = f"firewall {word} name {name}" if name in firewall.at(word, "name") else f"firewall {old} {name}"
            self._end(self._made(table, name, node, family, path), node, path, "drop")
        state = self._state_policy(table)
        strange: list[tuple[int, str, str]] = []
        for hook, priorities in HOOKS.items():
            for kind, node in firewall.at(word, hook).items():
                path = f"firewall {word} {hook} {kind}"
                if kind not in priorities:
                    strange.append((node.line, path, "a base chain that is not known"))
                    continue
                chain = self._made(table, f"{hook} {kind}", node, family, path)
                if hook in ("input", "output"):
                    continue  # nothing that is forwarded comes here
                chain.hook, chain.kind, chain.priority = hook, "filter", priorities[kind]
                if hook == "forward" and state:
                    chain.rules[:0] = state
                default = node.value("default-action")
                chain.policy = DENY if default in ("drop", "reject") else PERMIT
                if "default-action" in node and default not in ("drop", "reject", "accept"):
                    self._end(chain, node, path, default)
        for word_, node in firewall.at(word).items():
            if word_ not in (*HOOKS, "name"):
                strange.append((node.line, f"firewall {word} {word_}", "this line of the firewall is not understood"))
        self._zones(table, family, state)
        self._bound(table, family, state)
        for line, path, reason in strange:
            self._may_filter((family,), line, path, reason)

    def _state_policy(self, table: Table) -> list[Rule]:
        """The jump that stands before all rules where there is a global state policy."""
        node = self._firewall.at("global-options", "state-policy") or self._firewall.at("state-policy")
        if not node:
            return []
        chain = table.chains["state policy"] = Chain("state policy", node.line)
        self._say(node.line, "firewall global-options state-policy")
        offload = node.at("offload", "offload-target")
        if offload:
            target = next(iter(offload))
            chain.rules.append(Rule([], offload.line, [Flow(self._around.flowtables.get(target))]))
        for state in ("established", "invalid", "related"):
            below = node.at(state)
            word = below.value("action")
            if word:
                line = below.at("action", word).line
                self._say(line, f"firewall global-options state-policy {state} action {word}")
                stub = Node(line)
                stub.child("state", line).child(state, line)
                parts = conditions(stub, 4, self._around)
                if self._around.legacy and word == "accept":
                    # Whether it accepts for good, or goes on with what is bound to the other interface.
                    doubt = Narrow("what accept means in a state policy is not documented")
                    parts += [doubt, Verdict(PERMIT, line=line)]
                else:
                    parts += action(NOTHING, word, "", self._around, line)
                chain.rules.append(Rule([], line, parts))
        for state, below in node.items():
            if state not in ("established", "invalid", "related", "offload"):
                reason = "this state is not understood"
                self._doubt(below.line, f"state-policy {state}", reason)
                unsure = [Narrow(reason), *action(NOTHING, below.value("action"), "", self._around, below.line)]
                chain.rules.insert(0, Rule([], below.line, unsure))
        return [Rule([], node.line, [Verdict(JUMP, "state policy", node.line)])]

    def _bound(self, table: Table, family: int, state: list[Rule]) -> None:
        """VyOS 1.3: rule sets that interfaces have for what comes in, and for what goes out."""
        kind = {4: "name", 6: "ipv6-name"}[family]
        found: dict[str, list[Rule]] = {"in": [], "out": []}
        bindings = [(name, node.at("firewall")) for name, node in interfaces(self._root)]
        bindings += self._firewall.at("interface").items()
        first = 0
        for name, node in bindings:
            for direction in ("in", "out"):
                target = node.value(direction, kind)
                if target:
                    line = node.at(direction, kind, target).line
                    self._say(line, f"interface {name} firewall {direction} {kind} {target}")
                    first = first or line
                    parts = interface(direction, [name], False, self._around)
                    found[direction].append(Rule([], line, [*parts, *self._jump(table, target, line)]))
        if first and "forward filter" not in table.chains:
            rules = [*state, *found["in"], *found["out"]]
            table.chains["forward"] = Chain("forward", first, rules, "forward", "filter", 0)

    def _jump(self, table: Table, target: str, line: int) -> list[Part]:
        if target in table.chains:
            return [Verdict(JUMP, target, line)]
        return [Narrow(f"the rule set {target} is not in the text"), Verdict(UNKNOWN, line=line)]

    def _zones(self, table: Table, family: int, state: list[Rule]) -> None:
        zones = self._firewall.at("zone") or self._root.at("zone-policy", "zone")
        if not zones:
            return
        kind = {4: "name", 6: "ipv6-name"}[family]
        patterns = {name: list(node.at("interface")) + self._zone_members(node) for name, node in zones.items()}
        for name, node in zones.items():
            for vrf, below in node.at("member", "vrf").items():
                reason = "by which name what leaves by a VRF is known to its zone is not documented"
                self._doubt(below.line, f"firewall zone {name} member vrf {vrf}", reason)
        base = table.chains["zones"] = Chain("zones", zones.line, [*state], "forward", "filter", 1)
        self._say(zones.line, "firewall zone")
        for name, zone in zones.items():
            if "local-zone" in zone:
                continue
            parts = interface("out", patterns[name], False, self._around)
            base.rules.append(Rule([], zone.line, [*parts, Verdict(JUMP, f"zone {name}", zone.line)]))
            chain = table.chains[f"zone {name}"] = Chain(f"zone {name}", zone.line)
            path = f"firewall zone {name}"
            self._say(zone.line, path)
            own = interface("in", patterns[name], False, self._around)
            intra = zone.at("intra-zone-filtering")
            word, target = intra.value("action"), intra.value("firewall", kind)
            line = intra.line or zone.line
            if word in ("drop", "reject"):
                chain.rules.append(Rule([], line, [*own, Verdict(DENY, line=line)]))
            elif target and not word:
                chain.rules.append(Rule([], line, [*own, *self._jump(table, target, line)]))
            chain.rules.append(Rule([], line, [*own, Verdict(RETURN, line=line)]))
            for other, below in zone.at("from").items():
                target = below.value("firewall", kind)
                if target and "local-zone" not in zones.get(other, NOTHING):
                    line = below.at("firewall", kind, target).line
                    self._say(line, f"{path} from {other} firewall {kind} {target}")
                    there = interface("in", patterns.get(other, []), False, self._around)
                    chain.rules.append(Rule([], line, [*there, *self._jump(table, target, line)]))
                    chain.rules.append(Rule([], line, [*there, Verdict(RETURN, line=line)]))
            target = zone.value("default-firewall", kind)
            if target:
                # It is documented for the zones that have no rule set of their own here; not what follows it.
                line = zone.at("default-firewall", kind, target).line
                self._say(line, f"{path} default-firewall {kind} {target}")
                others = [one for known in zones if known != name for one in patterns[known]]
                there = interface("in", others, False, self._around)
                after = Narrow("what follows a default-firewall, and what it is to other interfaces, is not documented")
                chain.rules.append(Rule([], line, [*there, *self._jump(table, target, line)]))
                chain.rules.append(Rule([], line, [after, *self._jump(table, target, line)]))
                chain.rules.append(Rule([], line, [after, Verdict(RETURN, line=line)]))
            word = zone.value("default-action") or "drop"
            line = zone.at("default-action", word).line or zone.line
            self._say(line, f"{path} default-action {word}")
            chain.rules.append(Rule([], line, list(action(NOTHING, word, "", self._around, line))))
            for word, below in zone.items():
                if word not in _OF_A_ZONE:
                    reason = "this line of a zone is not understood"
                    self._doubt(below.line, f"{path} {word}", reason)
                    base.rules.insert(0, _anything(below.line, reason))

    def _zone_members(self, zone: Node) -> list[str]:
        found = list(zone.at("member", "interface"))
        for name in zone.at("member", "vrf"):
            found += self._around.members.get(name, ())
        return found

    # What else packets pass

    def _translation(self, family: int) -> None:
        root = self._root.at({4: "nat", 6: "nat66"}[family])
        table = self._table(family, "vyos_nat")
        for side, (hook, priority) in _NAT.items():
            for what in (side, "static"):
                node = root.at(what)
                if not node.at("rule"):
                    continue
                path = f"{'nat' if family == 4 else 'nat66'} {what}"
                chain = table.chains[f"{path} {hook}"] = Chain(f"{path} {hook}", node.line, [], hook, "nat", priority)
                self._say(node.line, path)
                for rule, _, line in self._enabled(path, node):
                    parts = conditions(rule, family, self._around)
                    if (what, side) == ("static", "source"):
                        parts = [Narrow("which sources a static translation rewrites is not worked out")]
                    verdict = Verdict(PERMIT, line=line) if "exclude" in rule else Rewrite(side)
                    chain.rules.append(Rule([], line, [*parts, verdict]))
        for word, below in root.items():
            if word not in ("source", "destination", "static"):
                self._doubt(below.line, f"nat {word}", "this translation is not read")

    def _routes(self, family: int) -> None:
        """Policy routes mark packets for another routing table, and can drop or change them."""
        word = {4: "route", 6: "route6"}[family]
        routes = self._root.at("policy", word)
        if not routes:
            return
        table = self._table(family, "vyos_mangle")
        base = table.chains["policy routes"] = Chain("policy routes", routes.line, [], "prerouting", "filter", -150)
        bound: dict[str, list[str]] = {name: list(node.at("interface")) for name, node in routes.items()}
        for name, node in interfaces(self._root):
            policy = node.value("policy", word)
            if policy in bound:
                bound[policy].append(name)
        for name, node in routes.items():
            path = f"policy {word} {name}"
            chain = table.chains[path] = Chain(path, node.line)
            self._say(node.line, path)
            for rule, verb, line in self._enabled(path, node):
                parts = [*conditions(rule, family, self._around), *rewrites(rule)]
                if verb:
                    parts += action(NOTHING, "return" if verb == "accept" else verb, "", self._around, line)
                elif "table" in rule.at("set") or "vrf" in rule.at("set"):
                    parts.append(Verdict(RETURN, line=line))
                chain.rules.append(Rule([], line, parts))
            if bound[name]:
                there = interface("in", bound[name], False, self._around)
                base.rules.append(Rule([], node.line, [*there, Verdict(JUMP, path, node.line)]))

    def _rest(self) -> None:
        """What can matter and is not read."""
        told = {doubt.line for doubt in self.doubts}
        for word, below in self._root.items():
            if word not in _SECTIONS and below.line not in told:
                self._may_filter((4, 6) if _alike(word) else (), below.line, word, "this section is not known")
        if self._unbalanced:
            reason = "the blocks do not fit together, and what belongs to which is not known"
            self._may_filter((4, 6), self._unbalanced, self.lines[self._unbalanced - 1].strip(), reason)
        zones = self._firewall.at("zone") or self._root.at("zone-policy", "zone")
        for place, named in (
            *((f"firewall {word}", self._firewall.at(word)) for word in ("name", "ipv6-name")),
            *((f"firewall {word} name", self._firewall.at(word, "name")) for word in ("ipv4", "ipv6")),
            *((f"firewall group {kind}", below) for kind, below in self._firewall.at("group").items()),
            ("firewall zone", zones),
            ("interfaces", self._root.at("interfaces")),
            *((f"interfaces {kind}", below) for kind, below in self._root.at("interfaces").items()),
        ):
            for name, node in named.items():
                if not _NAME.fullmatch(name):
                    self._may_filter((4, 6), node.line, f"{place} {name}", "this is no name that VyOS takes")
        for name, zone in zones.items():
            for other, below in zone.at("from").items():
                sets = below.at("firewall")
                if other not in zones or below.keys() != {"firewall"} or not sets.keys() <= {"name", "ipv6-name"}:
                    reason = "this line of a zone is not understood"
                    self._may_filter((4, 6), below.line, f"firewall zone {name} from {other}", reason)
        for name, node in interfaces(self._root):
            for word, below in node.items():
                if word != "firewall" and (_alike(word) or not _WORD.fullmatch(word)):
                    self._may_filter((4, 6), below.line, f"interface {name} {word}", "this may bind a firewall")
            for outer in ("vif", "vif-s", "vif-c"):
                for tag, below in node.at(outer).items():
                    if not tag.isdecimal():
                        self._may_filter((4, 6), below.line, f"interface {name} {outer} {tag}", "this is no VLAN")
            for word, below in node.at("firewall").items():
                if word not in ("in", "out", "local") or not below.keys() <= {"name", "ipv6-name"}:
                    place = f"interface {name} firewall {word}"
                    self._may_filter((4, 6), below.line, place, "this may bind a firewall")
        for kind, below in self._firewall.at("group").items():
            if kind not in KNOWN_GROUPS:
                self._doubt(below.line, f"firewall group {kind}", "this kind of group is not known")
        for word, below in self._firewall.items():
            if word not in _OF_THE_FIREWALL:
                reason = "this line of the firewall is not understood"
                self._may_filter((4, 6), below.line, f"firewall {word}", reason)
        for word, below in self._firewall.at("global-options").items():
            if word not in _GLOBAL:
                self._doubt(below.line, f"firewall global-options {word}", "this option is not understood")
        for hook, below in self._firewall.at("bridge").items():
            if any("rule" in node or node.value("default-action") in ("drop", "reject") for node in below.values()):
                reason = "a chain of a bridge may drop what subscribers send over one: it is not worked out"
                self._doubt(below.line, f"firewall bridge {hook}", reason)
        for path in (("nat64",), ("load-balancing", "wan"), ("system", "conntrack", "ignore")):
            node = self._root.at(*path)
            if node:
                self._doubt(node.line, " ".join(path), "what this does to packets is not read")


@lru_cache(maxsize=1024)
def _alike(word: str) -> bool:
    """May it be a garbled word of what filters?"""
    return bool(difflib.get_close_matches(word, ["firewall", "interfaces", "zone-policy"], n=1, cutoff=0.75))


def _anything(line: int, reason: str) -> Rule:
    """It may do anything with any packet."""
    return Rule([], line, [Narrow(reason), Verdict(UNKNOWN, line=line)])


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else -1


def _members(root: Node) -> Mapping[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for name, node in interfaces(root):
        master = node.value("vrf")
        if master:
            found[master] = (*found.get(master, ()), name)
    return found


def _dialled(node: Node) -> Iterator[tuple[str, Node]]:
    """VyOS 1.2: `ethernet eth0 pppoe 0` is pppoe0."""
    for number, below in node.at("pppoe").items():
        yield f"pppoe{number}", below


def interfaces(root: Node) -> Iterator[tuple[str, Node]]:
    """Every interface with its VLANs, as the kernel names them."""
    for kind in root.at("interfaces").values():
        for name, node in kind.items():
            yield name, node
            yield from _dialled(node)
            for outer in ("vif", "vif-s"):
                for tag, below in node.at(outer).items():
                    yield f"{name}.{tag}", below
                    yield from _dialled(below)
                    for inner, deepest in below.at("vif-c").items():
                        yield f"{name}.{tag}.{inner}", deepest
