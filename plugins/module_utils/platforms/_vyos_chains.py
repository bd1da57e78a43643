# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The nftables chains that VyOS makes of its firewall, zones, NAT and policy routes. Sources: vyos.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..filters import DENY, JUMP, PERMIT, RETURN, UNKNOWN
from ._nftables_parts import Flow, Narrow, Part, Rewrite, Verdict
from ._nftables_text import Chain, Rule, Ruleset, Table
from ._vyos_rules import L3, Surroundings, action, conditions, interface, rewrites
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
                self._doubt(below.line, f"{path} {word}", "what this changes in the chain is not worked out")
        return chain

    def _end(self, chain: Chain, node: Node, path: str, default: str) -> None:
        """The default action of a chain that is called."""
        word = node.value("default-action") or default
        line = node.at("default-action", word).line or node.line
        if node.value("default-action"):
            self._say(line, f"{path} default-action {word}")
        if word != "return":  # at its end a chain returns anyway
            verdict = list(action(NOTHING, word, node.value("default-jump-target"), self._around, line))
            chain.rules.append(Rule([], line, verdict))

    def _doubt(self, line: int, text: str, reason: str) -> None:
        self._say(line, text)
        self.doubt(line, reason)

    # The firewall

    def _filters(self, family: int) -> None:
        table = self._table(family, "vyos_filter")
        firewall, word = self._firewall, {4: "ipv4", 6: "ipv6"}[family]
        named = {**firewall.at({4: "name", 6: "ipv6-name"}[family]), **firewall.at(word, "name")}
        for name, node in named.items():
            path = f"firewall {word} name {name}" if name in firewall.at(word, "name") else f"firewall name {name}"
            self._end(self._made(table, name, node, family, path), node, path, "drop")
        state = self._state_policy(table)
        for hook, priorities in HOOKS.items():
            for kind, node in firewall.at(word, hook).items():
                path = f"firewall {word} {hook} {kind}"
                if kind not in priorities:
                    self._doubt(node.line, path, "a base chain that is not known")
                    continue
                chain = self._made(table, f"{hook} {kind}", node, family, path)
                if hook in ("input", "output"):
                    continue  # nothing that is forwarded comes here
                chain.hook, chain.kind, chain.priority = hook, "filter", priorities[kind]
                if hook == "forward" and state:
                    chain.rules[:0] = state
                chain.policy = DENY if node.value("default-action") in ("drop", "reject") else PERMIT
        for word_, node in firewall.at(word).items():
            if word_ not in (*HOOKS, "name"):
                self._doubt(node.line, f"firewall {word} {word_}", "this line of the firewall is not understood")
        self._zones(table, family, state)
        self._bound(table, family, state)

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
                self._doubt(below.line, f"state-policy {state}", "this state is not understood")
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
        for name, node in zones.items():
            for vrf, below in node.at("member", "vrf").items():
                reason = "by which name what leaves by a VRF is known to its zone is not documented"
                self._doubt(below.line, f"firewall zone {name} member vrf {vrf}", reason)
                    self._doubt(below.line, f"{path} {word}", "this line of a zone is not understood")

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
        for word, below in self._firewall.items():
            if word not in _OF_THE_FIREWALL:
                self._doubt(below.line, f"firewall {word}", "this line of the firewall is not understood")
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


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 1 << 31


def _members(root: Node) -> Mapping[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for name, node in interfaces(root):
        master = node.value("vrf")
        if master:
            found[master] = (*found.get(master, ()), name)
    return found


def interfaces(root: Node) -> Iterator[tuple[str, Node]]:
    """Every interface with its VLANs, as the kernel names them."""
    for kind in root.at("interfaces").values():
        for name, node in kind.items():
            yield name, node
            for outer in ("vif", "vif-s"):
                for tag, below in node.at(outer).items():
                    yield f"{name}.{tag}", below
                    for inner, deepest in below.at("vif-c").items():
                        yield f"{name}.{tag}.{inner}", deepest
def _dialled(node: Node) -> Iterator[tuple[str, Node]]:
    """VyOS 1.2: `ethernet eth0 pppoe 0` is pppoe0."""
    for number, below in node.at("pppoe").items():
        yield f"pppoe{number}", below


            yield from _dialled(node)
                    yield from _dialled(below)
