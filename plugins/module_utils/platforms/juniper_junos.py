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
  field; for all others the term is in doubt. With the protocol given it matches packets whose header can be read.
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
- A filter of family any, bound to the unit, comes before the family's own [memory]; both must accept.
- A reference to an undefined filter or prefix-list does not commit, so a text that has one is not understood there.
- apply-groups: the nearest statement and the first group named win; wildcards `<*>` fit what exists ("Configuration
  Groups"). Where inherited and own terms or conditions mix, the order is not documented: unknown.
- Filters of layer 2 families, forwarding tables and services, and security policies, are not read: doubts.

An attachment is a logical interface, `ge-0/0/0.100`, or, in a dynamic profile or logical system, the unit's path as
Junos writes it without quotes: `dynamic-profiles RES interfaces pp0 unit $junos-interface-unit`.
"""

from __future__ import annotations

import contextlib
import fnmatch
import functools
import gc
import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..filters import (
    DENY,
    JUMP,
    PERMIT,
    UNKNOWN,
    Binding,
    Configuration,
    Doubt,
    Entry,
    Filter,
    Interface,
    NotThisPlatform,
)
from ..packets import (
    ADDRESS_WIDTH,
    EXTENSIONS,
    INITIAL,
    LATER_FRAGMENT,
    PROTOCOLS,
    TCP_FLAGS,
    WITH_PORTS,
    Alternatives,
    Match,
    Ternary,
    address_value,
    complement,
    conjunction,
    exactly,
    flags_all,
    flags_any,
    intersection,
    prefix,
    span,
    union,
)
from ..plan import Push
from ..rules import Change, Rule, RuleSet

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
    confirm=("configure exclusive", "commit", "exit"),
    abort=("configure exclusive", "rollback 1", "commit", "exit"),
)
LIVE = False
WHOLE = False
LINK_LOCAL = True  # a filter on a logical interface sees what stays on the link, too

_FAMILIES = {"inet": 4, "inet6": 6}

# ---------------------------------------------------------------------------------------------------------------------
# The text as a tree of words: `term A { from { protocol tcp; } }` and `set ... term A from protocol tcp` are the same.


class Node(dict[str, "Node"]):
    """What stands below a word."""

    __slots__ = ("line",)
    line: int
    rank = 0  # of what the text says here; what is inherited has the order in which it was


class _Inherited(Node):
    __slots__ = ("rank",)

    def __init__(self, line: int, rank: int) -> None:
        super().__init__()
        self.line, self.rank = line, rank


@dataclass
class _Reading:
    """A text as a tree: only the sections that may matter to filters, inactive statements left out."""

    lines: list[str]
    root: Node = field(default_factory=Node)
    doubts: list[Doubt] = field(default_factory=list)
    filter_lines: int = 0
    known: set[str] = field(default_factory=set)  # the top-level sections that were seen
    strange: set[str] = field(default_factory=set)  # what stood in the place of one
    problem: str = ""  # why the text is not whole

    def text(self, line: int) -> str:
        return self.lines[line - 1].strip()

    def doubt(self, line: int, reason: str) -> None:
        self.doubts.append(Doubt(line, self.text(line), reason))


# Sections of the configuration that are kept; `firewall` is counted line by line.
_KEPT = frozenset(
    ("apply-groups", "class-of-service", "dynamic-profiles", "firewall", "forwarding-options", "groups", "interfaces",
     "logical-systems", "policy-options", "routing-instances", "routing-options", "security", "system")
)  # fmt: skip
_SECTIONS = _KEPT | frozenset(
    ("access", "access-profile", "accounting-options", "applications", "apply-groups-except", "apply-macro",
     "bridge-domains", "chassis", "diameter-element", "ethernet-switching-options", "event-options", "fabric", "jsrc",
     "multi-chassis", "multicast-snooping-options", "openconfig-interfaces", "poe", "protocols",
     "schedulers", "services", "session-limit-group", "smtp", "snmp", "switch-options", "tenants", "unified-edge",
     "version", "virtual-chassis", "vlans", "vmhost", "wlan")
)  # fmt: skip
_MARKS = frozenset(("inactive:", "replace:", "protect:", "delete:", "active:", "unprotect:"))
_COMMANDS = frozenset(("set", "delete", "activate", "deactivate", "insert", "annotate", "protect", "unprotect"))
# The lines that make up nearly all of a configuration: `words;`, `words {` and `words [ words ];`.
_PLAIN = re.compile(r'([^"\[\]{};#*]+)([;{])')
_SIGNS = re.compile(r'["\[\]{};#*]')
_LISTED = re.compile(r'([^"\[\]{};#*]+)\[([^"\[\]{};#*]*)\];')
_TOKEN = re.compile(r'"((?:[^"\\]|\\.)*)"|(/\*)|(#)|([\[\]{};])|(")|((?:(?!/\*)[^\s"\[\]{};])+)')
# The state of a redundant routing engine, and the place in the configuration, that the CLI prints beside its prompt.
_BANNER = re.compile(r"(?:\{[a-z]+(?::[\w.-]+)?\})?(?:\[edit[^\]]*\])?")
_DEEPEST = 64


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Without Python's cycle collector, which would walk the growing tree over and over: a third of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@functools.lru_cache(maxsize=2)
def _read(text: str) -> _Reading:
    """The tree, whatever the text. One pass; what is cached is never changed."""
    reading = _Reading(text.split("\n"))
    with _uncollected():
        _Reader(reading).read()
        if "apply-groups" in text:
            _inherit_groups(reading)
        if "interface-range" in text:
            _expand_ranges(reading)
    return reading


class _Reader:
    """Line by line: the plain statements of `show configuration` quickly, all others word by word."""

    def __init__(self, reading: _Reading) -> None:
        self.reading = reading
        self.stack: list[Node | None] = [reading.root]
        self.section = ""
        self.pending: list[str] = []  # the words of a statement that has not ended
        self.listed: list[str] | None = None  # the words inside [ ]
        self.inactive: dict[int, tuple[Node, str]] = {}
        self.inside = ""  # '"' or '/*' that began on an earlier line
        self.quoted: list[str] = []
        self.number = 0

    def read(self) -> None:
        reading, stack = self.reading, self.stack
        plain, listed, put = _PLAIN.fullmatch, _LISTED.fullmatch, self._put
        for self.number, raw in enumerate(reading.lines, 1):
            line = raw.strip()
            if not line:
                continue
            if not (self.inside or self.pending or self.listed is not None):
                if len(stack) > 1:
                    if line == "}":
                        stack.pop()
                        continue
                    found = plain(line)
                    if found:
                        words = found[1].split()
                        if words[0] in _MARKS:
                            self._statement(words, found[2] == "{")
                            continue
                        here = stack[-1]
                        below = None if here is None else put(here, words)
                        if found[2] == "{":
                            stack.append(below)
                        elif self.section == "firewall":
                            reading.filter_lines += 1
                        continue
                    found = listed(line)
                    if found and stack[-1] is not None:
                        words = found[1].split()
                        for word in found[2].split():
                            self._statement([*words, word], False)
                        continue
                elif line.partition(" ")[0] in _COMMANDS:
                    self._command(line)
                    continue
                elif _BANNER.fullmatch(line):
                    continue
            self._tokens(line)
        if self.inside or self.pending or self.listed is not None or len(stack) > 1:
            self._problem(f"it ends in the middle of a statement (line {self.number})")
        for parent, word in self.inactive.values():
            parent.pop(word, None)

    def _problem(self, reason: str) -> None:
        self.reading.problem = self.reading.problem or reason

    def _tokens(self, line: str) -> None:
        position = 0
        while position < len(line):
            if self.inside == "/*":
                end = line.find("*/", position)
                if end < 0:
                    return
                self.inside, position = "", end + 2
                continue
            if self.inside == '"':
                end = line.find('"', position)
                if end < 0:
                    self.quoted.append(line[position:])
                    return
                self._word("\n".join([*self.quoted, line[position:end]]))
                self.inside, self.quoted, position = "", [], end + 1
                continue
            token = _TOKEN.search(line, position)
            if token is None:
                return
            position = token.end()
            string, comment, remark, sign, quote, word = token.groups()
            if string is not None:
                self._word(string)
            elif comment:
                self.inside = "/*"
            elif remark:
                return
            elif quote:
                self.inside, self.quoted = '"', []
            elif word:
                self._word(word)
            elif sign == "[":
                if self.listed is not None:
                    self._problem(f"a list inside a list (line {self.number})")
                self.listed = []
            elif sign == "]":
                self._list()
            elif sign == "}":
                if self.pending or self.listed is not None:
                    self._problem(f"a statement without its ';' (line {self.number})")
                    self._end(False)
                self._close()
            else:
                self._end(sign == "{")

    def _word(self, word: str) -> None:
        (self.pending if self.listed is None else self.listed).append(word)

    def _list(self) -> None:
        """The list is over: its words are alternatives at the end of the statement."""
        if self.listed is None:
            self._problem(f"a ']' that closes no list (line {self.number})")
            return
        words, self.listed = self.listed, None
        for word in words:
            self._statement([*self.pending, word], False)
        self.pending = [] if words else self.pending
        self.quoted = []
        self.pending.append("")  # an ended list: the ';' that follows ends nothing more

    def _end(self, opens: bool) -> None:
        if self.listed is not None:
            self._list()
        words, self.pending = self.pending, []
        if words and not words[-1]:
            if opens:
                self._problem(f"a '{{' behind a list (line {self.number})")
                self.stack.append(None)
            return
        if words or opens:
            self._statement(words, opens)

    def _close(self) -> None:
        if len(self.stack) == 1:
            self._problem(f"a '}}' that closes nothing (line {self.number})")
            return
        self.stack.pop()

    def _statement(self, words: list[str], opens: bool) -> None:
        """A statement of the brace form at the current level."""
        stack = self.stack
        marks = set()
        while words and words[0] in _MARKS:
            marks.add(words[0])
            words = words[1:]
        if len(stack) == 1:
            self.section = words[0] if words else ""
            self._seen(self.section)
        if self.section == "firewall" and not opens:
            self.reading.filter_lines += 1
        here = stack[-1]
        if here is None or (len(stack) == 1 and self.section not in _KEPT) or not words:
            below = None
        elif "delete:" in marks:
            self._delete(here, words)
            below = None
        else:
            if "replace:" in marks:
                self._delete(here, words)
            below = self._put(here, words)
            if below is not None and "inactive:" in marks:
                self._deactivate(here, words)
        if opens:
            stack.append(below)

    def _seen(self, section: str) -> None:
        if section in _SECTIONS:
            self.reading.known.add(section)
        else:
            self.reading.strange.add(section)
            self._problem(f"'{section[:60]}' is no section of a Junos configuration (line {self.number})")

    def _command(self, line: str) -> None:
        """A line of the `set` form."""
        if not _SIGNS.search(line):
            self._run(line.split())
            return
        words: list[str] = []
        listed: list[str] | None = None
        for token in _TOKEN.finditer(line):
            string, comment, remark, sign, quote, word = token.groups()
            if comment or remark:
                break
            if quote:
                self._problem(f"a quotation that does not end (line {self.number})")
                break
            if sign == "[":
                listed = []
            elif sign == "]" and listed is not None:
                for one in listed:
                    self._run([*words, one])
                return
            elif sign and sign != ";":
                self._problem(f"'{sign}' in a command (line {self.number})")
            elif not sign:
                (words if listed is None else listed).append(string if string is not None else word)
        if listed is not None:
            self._problem(f"a list that does not end (line {self.number})")
        self._run(words)

    def _run(self, words: list[str]) -> None:
        verb, path = words[0], words[1:]
        if not path:
            self._problem(f"'{verb}' without a statement (line {self.number})")
            return
        if path[0] != self.section:
            self.section = path[0]
            self._seen(path[0])
        if path[0] == "firewall":
            self.reading.filter_lines += 1
        elif path[0] not in _KEPT:
            return
        root = self.reading.root
        if verb == "set":
            self._put(root, path)
        elif verb == "delete":
            self._delete(root, path)
        elif verb == "deactivate":
            self._deactivate(root, path)
        elif verb == "activate":
            found = _find(root, path)
            self.inactive.pop(id(found), None)
        elif verb == "insert":
            self._insert(root, path)

    def _put(self, node: Node, words: Sequence[str]) -> Node | None:
        if len(words) > _DEEPEST:
            self.reading.doubt(self.number, "too many words to be read")
            return None
        number = self.number
        for word in words:
            below = node.get(word)
            if below is None:
                below = node[word] = Node()
                below.line = number
            node = below
        if not node:
            node.line = number  # set again: of values that exclude each other the last one stays
        return node

    def _delete(self, node: Node, words: Sequence[str]) -> None:
        parent = _find(node, words[:-1])
        if parent is not None:
            parent.pop(words[-1], None)

    def _deactivate(self, node: Node, words: Sequence[str]) -> None:
        parent = _find(node, words[:-1])
        if parent is not None and words[-1] in parent:
            self.inactive[id(parent[words[-1]])] = (parent, words[-1])

    def _insert(self, root: Node, path: list[str]) -> None:
        """`insert ... term A before term B`: the order of terms is the order of the tree."""
        place = next((index for index, word in enumerate(path) if word in ("before", "after")), 0)
        parent = _find(root, path[: place - 1]) if place > 1 else None
        moved, anchor = path[place - 1], path[-1]
        if parent is None or moved not in parent or anchor not in parent or moved == anchor:
            self.reading.doubt(self.number, "what this moves is not there")
            return
        items = [(word, below) for word, below in parent.items() if word != moved]
        at = [word for word, _ in items].index(anchor) + (path[place] == "after")
        items.insert(at, (moved, parent[moved]))
        parent.clear()
        parent.update(items)


_NOTHING = Node()
_NOTHING.line = 0


def _find(node: Node, words: Sequence[str]) -> Node | None:
    below: Node | None = node
    for word in words:
        if below is None:
            return None
        below = below.get(word)
    return below


def _at(node: Node, *words: str) -> Node:
    """What stands below the words, an empty node where they are not."""
    found = _find(node, words)
    return _NOTHING if found is None else found


def _single(node: Node) -> tuple[str, Node] | None:
    """The one value that holds where only one can: the text's own before an inherited one, the last that was set."""
    return min(node.items(), key=lambda item: (item[1].rank, -item[1].line), default=None)


# What apply-groups may add, in words; more is not a configuration that a person wrote.
_INHERITED_LIMIT = 2_000_000


def _inherit_groups(reading: _Reading) -> None:
    """Copy what `apply-groups` inherits into its places, the nearest level first, then the groups in their order."""
    groups = reading.root.pop("groups", _NOTHING)
    places: list[tuple[Node, tuple[str, ...]]] = []
    ahead: list[tuple[Node, tuple[str, ...]]] = [(reading.root, ())]
    while ahead:
        node, path = ahead.pop()
        if "apply-groups" in node:
            places.append((node, path))
        if len(path) < _DEEPEST:
            ahead += [(below, (*path, word)) for word, below in node.items() if below]
    left = [_INHERITED_LIMIT]
    rank = 0
    for node, path in sorted(places, key=lambda place: -len(place[1])):
        for name, line in [(name, below.line) for name, below in node["apply-groups"].items()]:
            if name not in groups:
                reading.doubt(line, f"the group {name} is not defined")
                continue
            rank += 1
            for source in _fitting(groups[name], path):
                _merge(node, source, name, rank, left)
    if left[0] <= 0:
        reading.doubt(1, "apply-groups inherit more than can be read")


def _fitting(group: Node, path: Sequence[str]) -> list[Node]:
    """The places in the group that stand for the path, by name or by wildcard."""
    found = [group]
    for word in path:
        found = [below for node in found for name, below in node.items() if _fits(name, word)]
    return found


def _fits(name: str, word: str) -> bool:
    return name == word or (name[:1] == "<" and name[-1:] == ">" and fnmatch.fnmatchcase(word, name[1:-1]))


def _merge(target: Node, source: Node, group: str, rank: int, left: list[int]) -> None:
    """Add to `target` what `source` has and it has not."""
    ahead = [(target, source)]
    while ahead and left[0] > 0:
        target, source = ahead.pop()
        if group in target.get("apply-groups-except", _NOTHING):
            continue
        for word, below in source.items():
            left[0] -= 1
            if word[:1] == "<":
                fitting = [target[name] for name in target if _fits(word, name)]
                left[0] -= len(target)
                ahead += [(one, below) for one in fitting]
                continue
            if word not in target:
                target[word] = _Inherited(below.line, rank)
            ahead.append((target[word], below))


def _expand_ranges(reading: _Reading) -> None:
    """Give the members of every interface-range what the range says, as the commit does."""
    left = [_INHERITED_LIMIT]
    for place in [reading.root, *_at(reading.root, "logical-systems").values()]:
        interfaces = _at(place, "interfaces")
        for name, node in _at(interfaces, "interface-range").items():
            said = Node((word, below) for word, below in node.items() if word not in ("member", "member-range"))
            members = {word: below.line for word, below in _at(node, "member").items()}
            for first, below in _at(node, "member-range").items():
                found = _range_of(first, next(iter(_at(below, "to")), ""))
                if not found:
                    reading.doubt(below.line, f"the members of the interface-range {name} were not understood")
                members |= dict.fromkeys(found, below.line)
            for member, line in members.items():
                for physical in fnmatch.filter(interfaces, member) if re.search(r"[*\[]", member) else [member]:
                    if physical not in interfaces:
                        interfaces[physical] = _Inherited(line, 1)
                    _merge(interfaces[physical], said, "", 1, left)
    if left[0] <= 0:
        reading.doubt(1, "interface-ranges have more members than can be read")


def _range_of(first: str, last: str) -> list[str]:
    """ge-0/0/0 to ge-0/0/5: the names that differ in their last number."""
    one, other = (re.fullmatch(r"(.*?)(\d{1,6})", name) for name in (first, last))
    if not one or not other or one[1] != other[1]:
        return []
    return [f"{one[1]}{number}" for number in range(int(one[2]), min(int(other[2]), int(one[2]) + 1023) + 1)]


# ---------------------------------------------------------------------------------------------------------------------
# Conditions of a term

_PORTS = {
    "afs": 1483, "bgp": 179, "biff": 512, "bootpc": 68, "bootps": 67, "cmd": 514, "cvspserver": 2401, "dhcp": 67,
    "domain": 53, "eklogin": 2105, "ekshell": 2106, "exec": 512, "finger": 79, "ftp": 21, "ftp-data": 20, "http": 80,
    "https": 443, "ident": 113, "imap": 143, "kerberos-sec": 88, "klogin": 543, "kpasswd": 761, "krb-prop": 754,
    "krbupdate": 760, "kshell": 544, "ldap": 389, "ldp": 646, "login": 513, "mobileip-agent": 434, "mobilip-mn": 435,
    "msdp": 639, "netbios-dgm": 138, "netbios-ns": 137, "netbios-ssn": 139, "nfsd": 2049, "nntp": 119, "ntalk": 518,
    "ntp": 123, "pop3": 110, "pptp": 1723, "printer": 515, "radacct": 1813, "radius": 1812, "rip": 520,
    "rkinit": 2108, "smtp": 25, "snmp": 161, "snmptrap": 162, "snpp": 444, "socks": 1080, "ssh": 22, "sunrpc": 111,
    "syslog": 514, "tacacs": 49, "tacacs-ds": 65, "talk": 517, "telnet": 23, "tftp": 69, "timed": 525, "who": 513,
    "xdmcp": 177, "zephyr-clt": 2103, "zephyr-hm": 2104,
}  # fmt: skip
_PROTOCOLS = {
    "ah": 51, "dstopts": 60, "egp": 8, "esp": 50, "fragment": 44, "gre": 47, "hop-by-hop": 0, "icmp": 1, "icmp6": 58,
    "icmpv6": 58, "igmp": 2, "ipip": 4, "ipv6": 41, "mobility": 135, "no-next-header": 59, "ospf": 89, "pim": 103,
    "routing": 43, "rsvp": 46, "sctp": 132, "tcp": 6, "udp": 17, "vrrp": 112,
}  # fmt: skip
_ICMP_TYPES = {
    4: {
        "echo-reply": 0, "unreachable": 3, "source-quench": 4, "redirect": 5, "echo-request": 8,
        "router-advertisement": 9, "router-solicit": 10, "time-exceeded": 11, "parameter-problem": 12,
        "timestamp": 13, "timestamp-reply": 14, "info-request": 15, "info-reply": 16, "mask-request": 17,
        "mask-reply": 18,
    },
    6: {
        "destination-unreachable": 1, "packet-too-big": 2, "time-exceeded": 3, "parameter-problem": 4,
        "private-experimentation-100": 100, "private-experimentation-101": 101, "echo-request": 128,
        "echo-reply": 129, "membership-query": 130, "membership-report": 131, "membership-termination": 132,
        "router-solicit": 133, "router-advertisement": 134, "neighbor-solicit": 135, "neighbor-advertisement": 136,
        "redirect": 137, "router-renumbering": 138, "node-information-request": 139, "node-information-reply": 140,
        "inverse-neighbor-discovery-solicitation": 141, "inverse-neighbor-discovery-advertisement": 142,
        "home-agent-address-discovery-request": 144, "home-agent-address-discovery-reply": 145,
        "mobile-prefix-solicitation": 146, "mobile-prefix-advertisement-reply": 147,
        "certificate-path-solicitation": 148, "certificate-path-advertisement": 149,
        "private-experimentation-200": 200, "private-experimentation-201": 201,
    },
}  # fmt: skip
_ICMP_CODES = {
    4: {
        "ip-header-bad": 0, "required-option-missing": 1, "redirect-for-network": 0, "redirect-for-host": 1,
        "redirect-for-tos-and-net": 2, "redirect-for-tos-and-host": 3, "ttl-eq-zero-during-transit": 0,
        "ttl-eq-zero-during-reassembly": 1, "network-unreachable": 0, "host-unreachable": 1,
        "protocol-unreachable": 2, "port-unreachable": 3, "fragmentation-needed": 4, "source-route-failed": 5,
        "destination-network-unknown": 6, "destination-host-unknown": 7, "source-host-isolated": 8,
        "destination-network-prohibited": 9, "destination-host-prohibited": 10, "network-unreachable-for-tos": 11,
        "host-unreachable-for-tos": 12, "communication-prohibited-by-filtering": 13, "host-precedence-violation": 14,
        "precedence-cutoff-in-effect": 15,
    },
    6: {
        "ip6-header-bad": 0, "unrecognized-next-header": 1, "unrecognized-option": 2, "ttl-eq-zero-during-transit": 0,
        "ttl-eq-zero-during-reassembly": 1, "no-route-to-destination": 0, "administratively-prohibited": 1,
        "address-unreachable": 3, "port-unreachable": 4,
    },
}  # fmt: skip
# RFC 2474, 2597, 3246, 5865
_DSCP = {
    "be": 0, "ef": 46, "nc1": 48, "nc2": 56, "va": 44, **{f"cs{number}": number * 8 for number in range(8)},
    **{f"af{group}{drop}": group * 8 + drop * 2 for group in range(1, 5) for drop in range(1, 4)},
}  # fmt: skip
_PRECEDENCE = {
    "routine": 0, "priority": 1, "immediate": 2, "flash": 3, "flash-override": 4, "critical-ecp": 5,
    "internet-control": 6, "net-control": 7,
}  # fmt: skip
_FLAG_NAMES = {**TCP_FLAGS, "push": 8, "urgent": 32}
# The IPv6 extension headers that the packet model tells apart, by protocol number (RFC 8200, 6275).
_EXTENSION_NUMBERS = {
    0: EXTENSIONS["hop-by-hop"], 43: EXTENSIONS["routing"], 44: EXTENSIONS["fragment"],
    60: EXTENSIONS["destination-options"], 135: EXTENSIONS["mobility"],
}  # fmt: skip
_NO_EXTENSION = exactly(EXTENSIONS["none"], 3)
_HAS_PORTS = union(*(exactly(number, 8) for number in sorted(WITH_PORTS)))
_TCP = exactly(PROTOCOLS["tcp"], 8)
_ICMP = {4: exactly(PROTOCOLS["icmp"], 8), 6: exactly(PROTOCOLS["icmp6"], 8)}
_ANYTHING: Alternatives = ((0, 0),)


def _number(word: str, names: Mapping[str, int]) -> int | None:
    """A name, or a number: decimal, 0x hexadecimal, b binary, as the condition tables say."""
    if word in names:
        return names[word]
    try:
        if word[:2].lower() == "0x":
            return int(word[2:], 16)
        if word[:1] == "b" and word[1:].isdecimal():
            return int(word[1:], 2)
        return int(word) if word.isascii() and word.isdecimal() and len(word) < 8 else None
    except ValueError:
        return None


def _bounds(word: str, names: Mapping[str, int], bits: int) -> tuple[int, int] | None:
    """'25', '137-139', 'smtp', 'ftp-data-ftp': both ends of the range, None where it is none."""
    value = _number(word, names)
    if value is not None:
        return (value, value) if value >> bits == 0 else None
    for position, sign in enumerate(word):
        if sign == "-":
            low, high = _number(word[:position], names), _number(word[position + 1 :], names)
            if low is not None and high is not None:
                return (low, high) if low <= high and high >> bits == 0 else None
    return None


@dataclass(frozen=True, slots=True)
class _Values:
    """The values that a condition surely has and those that it may have. They differ where a word was not read."""

    sure: Alternatives
    possible: Alternatives
    unread: str = ""

    def without(self, bits: int) -> _Values:
        """The condition's `-except`."""
        outside = complement(self.sure, bits)
        return _Values(() if self.unread else outside, outside, self.unread)


@functools.lru_cache(maxsize=16384)
def _values(words: tuple[str, ...], kind: str, negated: bool) -> _Values:
    """The words of a condition as values of its field. `kind` is a key of _KINDS."""
    names, bits = _KINDS[kind]
    known, unread = [], ""
    for word in words:
        bounds = _bounds(word, names, bits)
        if bounds is None:
            unread = unread or f"'{word[:60]}' was not understood"
        else:
            known.append(span(*bounds, bits))
    sure = union(*known)
    values = _Values(sure, _ANYTHING if unread else sure, unread)
    return values.without(bits) if negated else values


_KINDS: Mapping[str, tuple[Mapping[str, int], int]] = {
    "port": (_PORTS, 16), "protocol": (_PROTOCOLS, 8), "icmp-type-4": (_ICMP_TYPES[4], 8),
    "icmp-type-6": (_ICMP_TYPES[6], 8), "icmp-code-4": (_ICMP_CODES[4], 8), "icmp-code-6": (_ICMP_CODES[6], 8),
    "ttl": ({}, 8), "hop-limit": ({}, 8), "packet-length": ({}, 16), "fragment-offset": ({}, 13),
    "precedence": (_PRECEDENCE, 3),
}  # fmt: skip


def _words(node: Node) -> tuple[str, ...]:
    """The values below a condition; '100 - 200' is one."""
    if not any(node.values()):
        return tuple(node)
    return tuple(
        f"{word}-{next(iter(below['-']))}" if below.get("-") else " ".join([word, *below])
        for word, below in node.items()
    )


@dataclass(frozen=True, slots=True)
class _PrefixList:
    """The prefixes of a list, both families. `unread` says why there may be more."""

    words: tuple[str, ...]
    unread: str = ""


@dataclass(slots=True)
class _Scope:
    """What the filters of a configuration, or of one of its logical systems, refer to."""

    prefix_lists: Mapping[str, _PrefixList]
    code_points: Mapping[int, Mapping[str, int]]  # DSCP by name, for each family


# A condition that more than one field can meet: what surely meets it, and what may.
_Choice = tuple[tuple[Match, ...], tuple[Match, ...]]


class _Conditions:
    """The `from` of one term, taken together condition by condition.

    `sure` maps a field to its values, `wider` to those it may have where that is more; `choices` must be met besides.
    Sure and possible differ where something was not understood; `unread` then says what.
    """

    __slots__ = ("carriers", "choices", "family", "scope", "sure", "unread", "upper", "upper_choices", "wider")

    def __init__(self, scope: _Scope, family: int) -> None:
        self.scope = scope
        self.family = family
        self.sure: dict[str, Alternatives] = {}
        self.wider: dict[str, Alternatives] = {}
        self.choices: list[_Choice] = []
        self.unread: list[str] = []
        # Fields behind the IP header, and the protocols that have them all.
        self.upper: set[str] = set()
        self.upper_choices: list[_Choice] = []
        self.carriers: Alternatives | None = None

    def take(self, name: str, values: _Values) -> None:
        sure, possible = values.sure, values.possible
        if name in self.sure:
            possible = intersection(self.wider.get(name, self.sure[name]), possible)
            sure = intersection(self.sure[name], sure)
        self.sure[name] = sure
        if possible != sure:
            self.wider[name] = possible
        if values.unread:
            self.unread.append(values.unread)

    def take_upper(self, name: str, values: _Values, carriers: Alternatives) -> None:
        self.carry(carriers)
        self.upper.add(name)
        self.take(name, values)

    def carry(self, carriers: Alternatives) -> None:
        self.carriers = carriers if self.carriers is None else intersection(self.carriers, carriers)

    def choose(self, sure: Iterable[Match], possible: Iterable[Match], unread: str) -> None:
        self.choices.append((tuple(sure), tuple(possible)))
        if unread:
            self.unread.append(unread)

    def narrowed(self, reason: str) -> None:
        """A condition that is not modelled narrows the term further."""
        self.choose((), ({},), reason)

    def matches(self) -> tuple[tuple[Match, ...], tuple[Match, ...], str]:
        """What surely matches, what may match at most, and why the two differ ("" where they do not)."""
        if self.carriers is None:
            sure = _product(self.sure, self.choices, 0)
            if not self.unread:
                return sure, sure, ""
            return sure, _product({**self.sure, **self.wider}, self.choices, 1), "; ".join(dict.fromkeys(self.unread))
        possible_protocols = self.wider.get("protocol", self.sure.get("protocol", _ANYTHING))
        inside, outside = _split(possible_protocols, self.carriers)
        choices = [*self.choices, *self.upper_choices, _INITIAL_CHOICE]
        protocol = _split(self.sure.get("protocol", _ANYTHING), self.carriers)[0]
        sure = possible = _product({**self.sure, "protocol": protocol}, choices, 0)
        if self.unread:
            possible = _product({**self.sure, **self.wider, "protocol": inside}, choices, 1)
        if outside:
            lower = {name: wanted for name, wanted in {**self.sure, **self.wider}.items() if name not in self.upper}
            possible += _product({**lower, "protocol": outside}, self.choices, 1)
            self.unread.append("where the term does not say the protocol, Junos compares the bytes of any packet")
        return sure, possible, "; ".join(dict.fromkeys(self.unread))


_INITIAL_CHOICE: _Choice = ((INITIAL,), (INITIAL,))


@functools.lru_cache(maxsize=1024)
def _split(protocols: Alternatives, carriers: Alternatives) -> tuple[Alternatives, Alternatives]:
    """The protocols that are carriers, and those that are not."""
    return intersection(protocols, carriers), intersection(protocols, complement(carriers, 8))


def _product(base: Match, choices: Sequence[_Choice], side: int) -> tuple[Match, ...]:
    """The matches that are in `base` and in one of each choice (side 0: surely, 1: possibly)."""
    if not all(base.values()):
        return ()
    found: list[Match] = [base]
    for choice in choices:
        found = [both for one in found for other in choice[side] if (both := conjunction(one, other)) is not None]
    return tuple(found)


def _ports(known: _Conditions, name: str, node: Node, negated: bool) -> None:
    values = _values(_words(node), "port", negated)
    if name != "port":
        known.take_upper(name.replace("-", "_"), values, _HAS_PORTS)
    elif negated:  # neither of the two
        known.take_upper("source_port", values, _HAS_PORTS)
        known.take_upper("destination_port", values, _HAS_PORTS)
    else:
        known.carry(_HAS_PORTS)
        sure, possible = (
            tuple({end: wanted} for end in ("source_port", "destination_port") if wanted)
            for wanted in (values.sure, values.possible)
        )
        known.upper_choices.append((sure, possible))
        known.unread += [values.unread] if values.unread else []


def _protocol(known: _Conditions, name: str, node: Node, negated: bool) -> None:
    values = _values(_words(node), "protocol", negated)
    if known.family == 4 or name == "payload-protocol":
        if known.family == 4 and name in ("next-header", "payload-protocol"):
            known.narrowed(f"'{name}' is no condition of family inet")
        known.take("protocol", values)
        return
    if name != "next-header":
        known.narrowed(f"'{name}' is no condition of family inet6")
    if not values.unread and not _extensions(values.sure):
        known.take("protocol", values)
        known.take("extension", _Values(_NO_EXTENSION, _NO_EXTENSION))
    else:
        known.choose(_next_header(values.sure), _next_header(values.possible), values.unread)


def _next_header(numbers: Alternatives) -> Iterator[Match]:
    """Packets whose first header behind the IPv6 header is one of the numbers."""
    if numbers:
        yield {"protocol": numbers, "extension": _NO_EXTENSION}
    if _extensions(numbers):
        yield {"extension": _extensions(numbers)}


def _extensions(numbers: Alternatives) -> Alternatives:
    """The extension headers among these protocol numbers."""
    found = [
        code for number, code in _EXTENSION_NUMBERS.items() if any(number & mask == value for value, mask in numbers)
    ]
    return union(*(exactly(code, 3) for code in found))


def _extension_headers(known: _Conditions, name: str, node: Node, negated: bool) -> None:
    """Any header of the chain; the model knows the first one, and that every fragment has its own."""
    if not negated and "any" in node:
        known.take("extension", _Values(complement(_NO_EXTENSION, 3), complement(_NO_EXTENSION, 3)))
        return
    values = _values(_words(node), "protocol", False)
    first = _extensions(values.sure)
    sure: list[Match] = [{"extension": first}] if first else []
    if any(EXTENSIONS["fragment"] & mask == value for value, mask in first):
        sure += [{"fragment": ((1, 1),)}, {"fragment": LATER_FRAGMENT}]
    possible: list[Match] = [{"extension": complement(_NO_EXTENSION, 3)}]
    if negated:
        sure, possible = ([] if values.unread else [{"extension": _NO_EXTENSION, "fragment": exactly(0, 2)}]), [{}]
    known.choose(sure, possible, f"'{name}' reaches extension headers behind the first, which are not modelled")


def _icmp(known: _Conditions, name: str, node: Node, negated: bool) -> None:
    values = _values(_words(node), f"{name}-{known.family}", negated)
    known.take_upper(name.replace("-", "_"), values, _ICMP[known.family])


def _flags(known: _Conditions, name: str, node: Node, negated: bool) -> None:
    if name == "tcp-established":
        flags = flags_any(("ack", "rst"))
    elif name == "tcp-initial":
        flags = flags_all(("syn",), ("ack",))
    else:
        words = _words(node)
        read = _flag_expression(words[0]) if len(words) == 1 and not negated else None
        if read is None:
            known.carry(_TCP)
            known.narrowed(f"'{name} {' '.join(words)[:60]}' was not understood")
            return
        flags = read
    known.take_upper("tcp_flags", _Values(flags, flags), _TCP)


@functools.lru_cache(maxsize=1024)
def _flag_expression(text: str) -> Alternatives | None:
    """'(ack & !syn) | rst', with the operators of "Match Conditions Based on Bit-Field Values"."""
    tokens = re.findall(r"[()!&+|,]|[^\s()!&+|,]+", text) if len(text) < 200 else []
    ahead = list(reversed(tokens))

    def either() -> Alternatives:
        found = both()
        while ahead and ahead[-1] in "|,":
            ahead.pop()
            found = union(found, both())
        return found

    def both() -> Alternatives:
        found = single()
        while ahead and ahead[-1] in "&+":
            ahead.pop()
            found = intersection(found, single())
        return found

    def single() -> Alternatives:
        word = ahead.pop() if ahead else ""
        if word == "!":
            return complement(single(), 8)
        if word == "(":
            found = either()
            if not ahead or ahead.pop() != ")":
                raise ValueError(text)
            return found
        bit = _number(word.lower(), _FLAG_NAMES)
        if bit is None or bit not in TCP_FLAGS.values():
            raise ValueError(text)  # what a number of several bits matches is not documented
        return ((bit, bit),)

    try:
        flags = either()
    except ValueError:
        return None
    return None if ahead else flags


def _fragments(known: _Conditions, name: str, node: Node, negated: bool) -> None:
    sure: Alternatives
    possible: Alternatives
    unread = ""
    if name == "is-fragment":
        sure = possible = LATER_FRAGMENT
        if known.family == 6:
            possible, unread = ((1, 1), *LATER_FRAGMENT), "'is-fragment' of family inet6 may mean the first one too"
    elif name == "first-fragment":
        sure, possible = exactly(1, 2), ((0, 0b10),)
        unread = "'first-fragment' may match packets that are no fragments"
    elif name == "fragment-offset":
        offsets = _values(_words(node), name, negated)
        inside, outside = _split_offsets(offsets.sure)
        sure = union(_at_zero(offsets.sure), () if outside else LATER_FRAGMENT)
        possible = union(_at_zero(offsets.possible), LATER_FRAGMENT if inside or offsets.unread else ())
        unread = offsets.unread or ("it looks at where a later fragment lies" if inside and outside else "")
    else:
        words = _words(node)
        if negated or words not in (("more-fragments",), ("!more-fragments",)):
            known.narrowed(f"'{name} {' '.join(words)[:60]}' was not understood")
            return
        sure = possible = ((1, 1),) if words == ("more-fragments",) else ((0, 1),)
    known.take("fragment", _Values(sure, possible, unread))


def _at_zero(offsets: Alternatives) -> Alternatives:
    """The packets with offset 0, whole or first fragments, when that is among the offsets."""
    return ((0, 0b10),) if any(value == 0 for value, _ in offsets) else ()


def _split_offsets(offsets: Alternatives) -> tuple[Alternatives, Alternatives]:
    """The offsets of later fragments that are among these, and those that are not."""
    later = span(1, 8191, 13)
    return intersection(offsets, later), intersection(complement(offsets, 13), later)


def _differentiated(known: _Conditions, name: str, node: Node, negated: bool) -> None:
    """DSCP, the six upper bits of the octet, or the precedence, the three upper ones (RFC 2474)."""
    bits = 3 if name == "precedence" else 6
    if name == "precedence":
        values = _values(_words(node), name, negated)
    else:
        names = known.scope.code_points[known.family]
        bounds = {word: _bounds(word, names, 6) for word in _words(node)}
        unread = next((f"'{word[:60]}' is no code point" for word, found in bounds.items() if found is None), "")
        sure = union(*(span(*found, 6) for found in bounds.values() if found))
        values = _Values(sure, _ANYTHING if unread else sure, unread)
        values = values.without(bits) if negated else values
    shift = 8 - bits
    octets = [tuple((one << shift, mask << shift) for one, mask in some) for some in (values.sure, values.possible)]
    known.take("tos", _Values(octets[0], octets[1], values.unread))


def _size(known: _Conditions, name: str, node: Node, negated: bool) -> None:
    known.take("length" if name == "packet-length" else "ttl", _values(_words(node), name, negated))


def _ip_options(known: _Conditions, name: str, node: Node, negated: bool) -> None:
    if negated or tuple(node) != ("any",):
        known.narrowed(f"'{name}' of a kind is not modelled")
    if not negated:
        known.take("options", _Values(exactly(1, 1), exactly(1, 1)))


_Condition = Callable[[_Conditions, str, Node, bool], None]
# Those with values, which have a `-except` too, and those without.
_VALUED: Mapping[str, _Condition] = {
    "source-port": _ports, "destination-port": _ports, "port": _ports, "protocol": _protocol,
    "ip-protocol": _protocol, "next-header": _protocol, "payload-protocol": _protocol, "icmp-type": _icmp,
    "icmp-code": _icmp, "dscp": _differentiated, "traffic-class": _differentiated, "precedence": _differentiated,
    "ttl": _size, "hop-limit": _size, "packet-length": _size, "fragment-offset": _fragments,
    "fragment-flags": _fragments, "tcp-flags": _flags, "ip-options": _ip_options,
    "extension-header": _extension_headers, "extension-headers": _extension_headers,
}  # fmt: skip
_PRESENT: Mapping[str, _Condition] = {
    "tcp-established": _flags, "tcp-initial": _flags, "is-fragment": _fragments, "first-fragment": _fragments,
}  # fmt: skip
# How the hardware stores ranges; the meaning stays.
_WITHOUT_EFFECT = frozenset(("source-port-range-optimize", "destination-port-range-optimize"))
_ADDRESSES = {
    "source-address": "source", "source-prefix-list": "source", "ip-source-address": "source",
    "destination-address": "destination", "destination-prefix-list": "destination",
    "ip-destination-address": "destination", "address": "either", "prefix-list": "either",
}  # fmt: skip


def _conditions(node: Node, scope: _Scope, family: int) -> tuple[tuple[Match, ...], tuple[Match, ...], str]:
    """The `from` of a term: what surely matches, what may match at most, why they differ."""
    known = _Conditions(scope, family)
    addresses: dict[str, list[tuple[str, Node]]] = {}
    for name, below in node.items():
        if name in _ADDRESSES:
            addresses.setdefault(_ADDRESSES[name], []).append((name, below))
        elif name in _VALUED:
            if below:
                _VALUED[name](known, name, below, False)
        elif name.endswith("-except") and name[:-7] in _VALUED:
            if below:
                _VALUED[name[:-7]](known, name[:-7], below, True)
            if name[:-7] in node:
                known.narrowed(f"'{name[:-7]}' beside '{name}'")
        elif name in _PRESENT:
            _PRESENT[name](known, name, below, False)
        elif name not in _WITHOUT_EFFECT:
            known.narrowed(f"'{name[:60]}' is not modelled")
    for end, conditions in addresses.items():
        values = _addresses(conditions, scope, family)
        if values is None:
            continue
        if end != "either":
            known.take(end, values)
            continue
        if any("except" in word for _, below in conditions for word in below.values()):
            values = _Values((), _ANYTHING, f"'{conditions[0][0]}' with 'except' concerns two addresses at once")
        sure, possible = (
            [{name: some} for name in ("source", "destination") if some] for some in (values.sure, values.possible)
        )
        known.choose(sure, possible, values.unread)
    return known.matches()


def _addresses(conditions: Sequence[tuple[str, Node]], scope: _Scope, family: int) -> _Values | None:
    """The address and prefix-list conditions of one end, as one set. None when they hold no value."""
    included: list[str] = []
    excluded: list[str] = []
    unread = more = less = ""
    seen = False
    for name, node in conditions:
        for word, below in node.items():
            seen = True
            words: Sequence[str] = (word,)
            reason = ""
            if name.endswith("prefix-list"):  # a list may hold both families
                chosen = scope.prefix_lists.get(word, _PrefixList((), f"the prefix-list '{word[:60]}' is not defined"))
                words = [one for one in chosen.words if (":" in one) == (family == 6)]
                reason = chosen.unread
            if "except" in below:
                excluded += words
                less = less or reason
            else:
                included += words
                more = more or reason
            if below and "except" not in below:
                unread = f"'{word[:60]} {next(iter(below))[:60]}' was not understood"
    if not seen:
        return None
    positive, unread_positive = _prefixes(tuple(included), family)
    negative, unread_negative = _prefixes(tuple(excluded), family)
    more, less = more or unread_positive or unread, less or unread_negative or unread
    if not negative and not less:
        return _Values(positive, _ANYTHING if more else positive, more)
    left = _longest_match(positive, negative, ADDRESS_WIDTH[family])
    if left is None:
        left, less = positive, less or "which of its prefixes is the longest cannot be told"
    if more or less:
        # More prefixes can make both kinds longer: only what was read without any doubt is sure.
        return _Values((), _ANYTHING if more else positive, more or less)
    return _Values(left, left)


@functools.lru_cache(maxsize=16384)
def _prefixes(words: tuple[str, ...], family: int) -> tuple[Alternatives, str]:
    """The prefixes, and what was not understood."""
    found: list[Ternary] = []
    unread = ""
    for word in words:
        try:
            found += prefix(word, family)
        except ValueError:
            other = _masked(word) if family == 4 else None
            if other is None:
                unread = unread or f"'{word[:60]}' is no prefix of the family"
            else:
                found.append(other)
    return tuple(dict.fromkeys(found)), unread


def _masked(word: str) -> Ternary | None:
    """IPv4 as Junos also takes it: '10.0.0.10/255.0.0.255' (any mask), '10' and '10.1/16' (zeros are left out)."""
    address, slash, mask = word.partition("/")
    octets = address.split(".")
    if not 1 <= len(octets) <= 4 or not all(octets):
        return None
    try:
        value = address_value(".".join(octets + ["0"] * (4 - len(octets))), 4)
        if "." in mask:
            care = address_value(mask, 4)
        elif slash:
            return prefix(f"{'.'.join(octets + ['0'] * (4 - len(octets)))}/{mask}", 4)[0]
        else:
            care = 0xFFFFFFFF
    except ValueError:
        return None
    return value & care, care


def _longest_match(included: Alternatives, excluded: Alternatives, bits: int) -> Alternatives | None:
    """The addresses whose longest prefix among both is an included one. None where masks are not contiguous."""
    full = (1 << bits) - 1
    spans = []
    for prefixes, wanted in ((included, True), (excluded, False)):
        for value, mask in prefixes:
            size = full & ~mask
            if size & (size + 1):
                return None
            spans.append((value, value | size, wanted))
    if {one[:2] for one in spans if one[2]} & {one[:2] for one in spans if not one[2]}:
        return None
    spans.sort(key=lambda one: (one[0], -one[1]))
    found: list[Alternatives] = []
    around: list[tuple[int, bool]] = []  # the prefixes that we are in, the longest last: last address, included
    here = 0

    def up_to(last: int, wanted: bool) -> None:
        nonlocal here
        if wanted and here <= last:
            found.append(span(here, last, bits))
        here = max(here, last + 1)

    for low, high, wanted in spans:
        while around and around[-1][0] < low:
            up_to(*around.pop())
        if around:
            up_to(low - 1, around[-1][1])
        here = low
        around.append((high, wanted))
    while around:
        up_to(*around.pop())
    return union(*found)


# ---------------------------------------------------------------------------------------------------------------------
# Filters

_ACCEPTS = frozenset(
    ("accept", "exclude-accounting", "ipsec-sa", "logical-system", "next-interface", "next-ip", "next-ip6",
     "routing-instance", "topology")
)  # fmt: skip
_DENIES = frozenset(("discard", "reject"))
# What goes out, or comes out of it, is another packet.
_TUNNELS = frozenset(("decapsulate", "encapsulate"))
_MODIFIERS = frozenset(
    ("bgp-output-queue-priority", "clear-policy-map", "count", "dont-fragment", "dscp", "force-premium",
     "forwarding-class", "hierarchical-policer", "load-balance", "log", "loss-priority", "next-hop-group",
     "no-decrement-ttl", "packet-capture", "packet-mode", "policer", "policy-map", "port-mirror",
     "port-mirror-instance", "prefix-action", "sample", "service-accounting", "service-accounting-deferred",
     "service-filter-hit", "set-gtp-tos", "syslog", "three-color-policer", "traffic-class", "traffic-class-count",
     "virtual-channel")
)  # fmt: skip
_OF_A_FILTER = frozenset(
    ("accounting-profile", "apply-groups", "apply-groups-except", "enhanced-mode", "enhanced-mode-override",
     "fast-lookup-filter", "instance-shared", "interface-shared", "interface-specific", "physical-interface-filter",
     "promote", "scale-optimized", "term")
)  # fmt: skip
_NOT_IN_A_TERM = frozenset(("from", "then", "filter", "apply-groups", "apply-groups-except"))
_ALL: tuple[Match, ...] = ({},)
_NEXT = "next"


def _term(name: str, node: Node, filter_name: str, scope: _Scope, family: int) -> Iterator[Entry]:
    """The entries of one term: what surely matches, then what may."""
    text = f"filter {filter_name} term {name}"
    if "filter" in node:
        target = _single(node["filter"])
        if target is None or "from" in node or "then" in node:
            yield Entry(UNKNOWN, _ALL, node.line, text, doubt="a term that refers to a filter holds nothing else")
        else:
            yield Entry(JUMP, _ALL, node.line, text, target=target[0])
        return
    strange = next((word for word in node if word not in _NOT_IN_A_TERM), "")
    if strange:
        yield Entry(UNKNOWN, _ALL, node.line, text, doubt=f"'{strange[:60]}' was not understood in a term")
        return
    action, doubt = _action(node["then"]) if node.get("then") else (PERMIT, "")
    if action == _NEXT:
        return
    conditions = node.get("from")
    if not conditions:
        yield Entry(action, _ALL, node.line, text, doubt=doubt)
        return
    if any(below.rank != node.rank for below in conditions.values()):
        yield Entry(UNKNOWN, _ALL, node.line, text, doubt="own conditions and inherited ones mix in this term")
        return
    sure, possible, unread = _conditions(conditions, scope, family)
    if sure or not unread:
        yield Entry(action, sure, node.line, text, doubt=doubt)
    if unread:
        yield Entry(action, possible, node.line, text, doubt=f"{unread}; {doubt}" if doubt else unread)


def _action(node: Node) -> tuple[str, str]:
    """What a `then` does, and what is in doubt about it."""
    deciding: list[tuple[int, int, str]] = []
    for word, below in node.items():
        if word in _MODIFIERS or word in ("apply-groups", "apply-groups-except"):
            continue
        if word == "next" and not below:
            continue  # what it goes to was deactivated or deleted
        deciding.append((below.rank, -below.line, word))
    if not deciding:
        return PERMIT, ""
    word = min(deciding)[2]  # they exclude each other: the last that was set holds
    if word in _ACCEPTS:
        return PERMIT, ""
    if word in _DENIES:
        return DENY, ""
    if word in _TUNNELS:
        return PERMIT, f"'{word}' changes the packet"
    if word == "next" and "term" in node["next"]:
        return _NEXT, ""
    return UNKNOWN, f"the action '{word[:60]}' was not understood"


def _filter(name: str, node: Node, known_as: str, scope: _Scope, family: int) -> Filter:
    terms = _at(node, "term")
    text = f"filter {name}"
    if len({term.rank for term in terms.values()}) > 1:
        doubt = "own terms and inherited ones mix in this filter, in an order that is not documented"
        return Filter(known_as, family, (Entry(UNKNOWN, _ALL, node.line, text, doubt=doubt),), DENY, node.line, text)
    entries = [entry for term, below in terms.items() for entry in _term(term, below, name, scope, family)]
    return Filter(known_as, family, tuple(entries), DENY, node.line, text)


@dataclass(slots=True)
class _Place:
    """Where filters are defined and bound: the top of the configuration, a logical system, a dynamic profile."""

    path: str  # "" | "logical-systems LS1" | "dynamic-profiles RES"
    node: Node
    names: dict[tuple[int, str], str]  # (family, name in the text) -> name in the Configuration


class _Builder:
    """From the tree to the Configuration."""

    def __init__(self, reading: _Reading) -> None:
        self.reading = reading
        self.filters: dict[tuple[int, str], Filter] = {}
        self.bindings: list[Binding] = []
        self.interfaces: dict[str, Interface] = {}
        # Unnumbered interfaces, whose addresses they use, and which one ("" where it is not said).
        self.lenders: dict[str, list[tuple[str, str]]] = {}
        self.filter_lines = reading.filter_lines

    def build(self) -> Configuration:
        reading, root = self.reading, self.reading.root
        hostname = _single(_at(root, "system", "host-name"))
        scope = self._scope(root)
        top = _Place("", root, {})
        self._define(top, scope)
        places = [top]
        for name, node in _at(root, "logical-systems").items():
            place = _Place(f"logical-systems {name}", node, {})
            self._define(place, self._scope(node, scope))
            places.append(place)
        for name, node in _at(root, "dynamic-profiles").items():
            place = _Place(f"dynamic-profiles {name}", node, dict(top.names))
            self._define(place, scope)
            places.append(place)
        self._nested()
        for place in places:
            self._attach(place)
            self._elsewhere(place)
        self._lend()
        for place in places:
            self._route(place)
        doubts = tuple(sorted(reading.doubts, key=lambda doubt: doubt.line))
        return Configuration(
            self.filters,
            tuple(self.bindings),
            self.interfaces,
            doubts,
            hostname[0] if hostname else "",
            self.filter_lines,
        )

    def _scope(self, node: Node, outer: _Scope | None = None) -> _Scope:
        lists: dict[str, _PrefixList] = dict(outer.prefix_lists) if outer else {}
        for name, below in _at(node, "policy-options", "prefix-list").items():
            self.filter_lines += len(below) + 1
            unread = ""
            if "apply-path" in below:
                unread = f"the prefix-list '{name}' holds what its apply-path finds in the configuration"
            words = tuple(word for word in below if word not in ("apply-path", "apply-groups", "apply-groups-except"))
            lists[name] = _PrefixList(words, unread)
        if outer:
            return _Scope(lists, outer.code_points)
        points = {}
        for family, kind in ((4, "dscp"), (6, "dscp-ipv6")):
            own = {}
            for alias, below in _at(node, "class-of-service", "code-point-aliases", kind).items():
                value = next(iter(below), "")
                if re.fullmatch("[01]{6}", value):
                    own[alias] = int(value, 2)
            points[family] = {**_DSCP, **own}
        return _Scope(lists, points)

    def _define(self, place: _Place, scope: _Scope) -> None:
        """The filters of one place. Those of family any count for both families."""
        firewall = _at(place.node, "firewall")
        kinds = [(4, firewall), (4, _at(firewall, "family", "inet")), (6, _at(firewall, "family", "inet6"))]
        both = _at(firewall, "family", "any")
        kinds += [(4, both), (6, both)]
        for family, node in kinds:
            for name, below in _at(node, "filter").items():
                for word in below:
                    if word not in _OF_A_FILTER:
                        self.reading.doubt(below[word].line, f"'{word[:60]}' was not understood in the filter {name}")
                known_as = f"{place.path} {name}" if place.path else name
                if node is both:
                    known_as = f"any {known_as}"
                key = (family, f"any {name}" if node is both else name)
                place.names[key] = known_as
                self.filters[family, known_as] = _filter(name, below, known_as, scope, family)

    def _nested(self) -> None:
        """Point `filter X` terms at their targets. Only one level is allowed, so there is no loop either."""
        nesting = {key for key, one in self.filters.items() if any(entry.action == JUMP for entry in one.entries)}
        for key in nesting:
            chosen = self.filters[key]
            where = chosen.name[: len(chosen.name) - len(chosen.text.removeprefix("filter "))]
            entries = []
            for entry in chosen.entries:
                if entry.action == JUMP:
                    target = (chosen.family, where + entry.target)
                    if target not in self.filters and (chosen.family, entry.target) in self.filters:
                        target = (chosen.family, entry.target)
                    doubt = ""
                    if target not in self.filters:
                        doubt = f"the filter '{entry.target}' is not defined"
                    elif target in nesting:
                        doubt = f"the filter '{entry.target}' refers to a filter itself, which Junos does not take"
                    action, goal = (UNKNOWN, "") if doubt else (JUMP, target[1])
                    entry = Entry(action, entry.matches, entry.line, entry.text, goal, doubt)
                entries.append(entry)
            self.filters[key] = Filter(
                chosen.name, chosen.family, tuple(entries), chosen.default, chosen.line, chosen.text
            )

    def _attach(self, place: _Place) -> None:
        """The logical interfaces of one place and what is bound to them."""
        interfaces = _at(place.node, "interfaces")
        for physical, node in interfaces.items():
            if physical == "interface-range":
                continue
            for unit, below in _at(node, "unit").items():
                path = f"{place.path} interfaces {physical} unit {unit}"
                name = path if place.path else f"{physical}.{unit}"
                self._interface(name, below, "disable" in node or "disable" in below)
                self._bind(place, name, below)

    def _interface(self, name: str, node: Node, shutdown: bool) -> None:
        prefixes = []
        checks: list[int] = []
        routed = [_at(node, "family", family) for family in _FAMILIES if family in _at(node, "family")]
        for family in routed:
            prefixes += filter(_is_network, _at(family, "address"))
            for lender, said in _at(family, "unnumbered-address").items():
                preferred = _single(_at(said, "preferred-source-address"))
                self.lenders.setdefault(name, []).append((lender, preferred[0] if preferred else ""))
            check = family.get("rpf-check")
            if check is not None and "fail-filter" not in check and "loose" not in _at(check, "mode"):
                checks.append(check.line)
        line = checks[0] if checks and len(checks) == len(routed) else 0  # strict for all the unit carries, or not
        self.interfaces[name] = Interface(
            name, node.line, tuple(prefixes), shutdown, self.reading.text(line) if line else "", line
        )

    def _lend(self) -> None:
        """An unnumbered interface has the address of another one that it names, or that one's networks.

        Single addresses of a loopback are the router's own, not a pool's, unless the interface asks for them.
        """
        connected = {name: one.prefixes for name, one in self.interfaces.items()}
        for name, lenders in self.lenders.items():
            for lender, preferred in lenders:
                if preferred:
                    lent = [preferred] if _is_network(preferred) else []
                else:
                    interfaces = [(text, ipaddress.ip_interface(text)) for text in connected.get(lender, ())]
                    lent = [text for text, one in interfaces if one.network.num_addresses > 1]
                self._carry({name: lent})

    def _route(self, place: _Place) -> None:
        """Static routes, by the interface or by the connected network of their next hop."""
        connected: dict[tuple[int, int, int], str] = {}
        for name, one in self.interfaces.items():
            for text in one.prefixes:
                network = ipaddress.ip_interface(text).network
                connected[network.version, network.prefixlen, int(network.network_address)] = name
        lengths = {
            version: sorted({key[1] for key in connected if key[0] == version}, reverse=True) for version in (4, 6)
        }
        carried: dict[str, list[str]] = {}
        for node in (place.node, *_at(place.node, "routing-instances").values()):
            options = _at(node, "routing-options")
            tables = [_at(options, "static", "route")]
            tables += [_at(table, "static", "route") for table in _at(options, "rib").values()]
            for table in tables:
                for text, route in table.items():
                    if not _is_network(text):
                        continue
                    for hop in (*_at(route, "next-hop"), *_at(route, "qualified-next-hop")):
                        if hop in self.interfaces:
                            carried.setdefault(hop, []).append(text)
                            continue
                        try:
                            address = ipaddress.ip_address(hop)
                        except ValueError:
                            continue
                        for length in lengths[address.version]:
                            start = int(address) >> (address.max_prefixlen - length) << (address.max_prefixlen - length)
                            over = connected.get((address.version, length, start))
                            if over:
                                carried.setdefault(over, []).append(text)
                                break
        self._carry(carried)

    def _carry(self, prefixes: Mapping[str, Sequence[str]]) -> None:
        for name, more in prefixes.items():
            one = self.interfaces[name]
            self.interfaces[name] = replace(one, prefixes=tuple(dict.fromkeys((*one.prefixes, *more))))

    def _bind(self, place: _Place, attachment: str, unit: Node) -> None:
        general = _at(unit, "filter")
        families = _at(unit, "family")
        for name, node in families.items():
            if name not in _FAMILIES:
                if name in ("ethernet-switching", "bridge", "vpls", "ccc", "any") and "filter" in node:
                    self.reading.doubt(node["filter"].line, f"a filter of family {name} decides on IP packets too")
                continue
            for word in ("simple-filter", "service"):
                if word in node:
                    self.reading.doubt(node[word].line, f"'{word}' may drop packets too and is not read")
            if "adf" in _at(node, "filter"):
                self.reading.doubt(node["filter"]["adf"].line, "RADIUS adds filter rules (adf) to the session")
        for family_name, family in _FAMILIES.items():
            specific = _at(families, family_name, "filter")
            for side, direction in (("input", "in"), ("output", "out")):
                found = self._stage(place, attachment, general, side, family, "any ")
                found += self._stage(place, attachment, specific, side, family, "")
                if found:
                    line = found[-1][1]
                    self.filter_lines += 1
                    filters = tuple(name for name, _ in found)
                    self.bindings.append(Binding(attachment, direction, family, filters, line, self.reading.text(line)))

    def _stage(
        self, place: _Place, attachment: str, node: Node, side: str, family: int, kind: str
    ) -> list[tuple[str, int]]:
        """The filter that one `filter { input ... }` binds, and its line: none, one, or a list made into one."""
        single, several = _single(_at(node, side)), _at(node, f"{side}-list")
        last = max((below.line for below in several.values()), default=0)
        explicit = min((below.rank for below in several.values()), default=0)
        if single and several:
            keep_single = (single[1].rank, -single[1].line) < (explicit, -last)
            single, several = (single, _NOTHING) if keep_single else (None, several)
        if single:
            name, line = single[0], single[1].line
            return [(self._resolve(place, kind + name, family, line), line)]
        if not several:
            return []
        names = [self._resolve(place, kind + name, family, below.line) for name, below in several.items()]
        if len(names) == 1:
            return [(names[0], last)]
        joined = f"{kind}{attachment}-{side[0]}"
        line = next(iter(several.values())).line
        entries = tuple(entry for name in names for entry in self.filters[family, name].entries)
        self.filters[family, joined] = Filter(joined, family, entries, DENY, line, self.reading.text(line))
        return [(joined, line)]

    def _resolve(self, place: _Place, name: str, family: int, line: int) -> str:
        """The Configuration's name for a bound filter; what is not defined gets a filter that nothing is known of."""
        known_as = place.names.get((family, name))
        if known_as is None:
            short = name.removeprefix("any ")
            known_as = f"{place.path} {name}" if place.path else name
            doubt = f"the filter '{short}' is not defined, so Junos would not commit this"
            if short[:1] == "$":
                doubt = f"the session says which filter '{short}' is (RADIUS)"
            text = self.reading.text(line)
            entry = Entry(UNKNOWN, _ALL, line, text, doubt=doubt)
            self.filters.setdefault((family, known_as), Filter(known_as, family, (entry,), DENY, line, text))
        return known_as

    def _elsewhere(self, place: _Place) -> None:
        """Filters that work on packets of the interfaces and are bound elsewhere."""
        nodes = [place.node, *_at(place.node, "routing-instances").values()]
        for node in nodes:
            for name, family in _at(node, "forwarding-options", "family").items():
                for word in ("filter", "flood"):
                    if word in family:
                        reason = f"a forwarding table filter of family {name} may drop packets too and is not read"
                        self.reading.doubt(family[word].line, reason)
        policies = _at(place.node, "security").get("policies")
        if policies:
            self.reading.doubt(policies.line, "security policies decide on these packets too and are not read")


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_interface(text)
    except ValueError:
        return False
    return True


def parse(text: str, attachments: Sequence[str] = ()) -> Configuration:
    """What the configuration means, brace form, `set` form or one after the other.

    `attachments` make no difference on this platform. Raises NotThisPlatform when nothing of it is Junos.
    """
    del attachments
    reading = _read(text)
    other = _OTHERS.search(text[:_START])
    if other or len(reading.known) <= len(reading.strange):
        told = f", but like another platform's: '{other[0].strip()}'" if other else ""
        raise NotThisPlatform(f"this does not look like a Junos configuration{told}: give it 'show configuration'")
    with _uncollected():
        return _Builder(_Reading(reading.lines, reading.root, list(reading.doubts), reading.filter_lines)).build()


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
    reading = _read(text)
    if reading.problem:
        return reading.problem
    for section in ("system", "interfaces"):
        if section not in reading.known:
            return f"it has no section '{section}', which every router has: the output may have been cut off"
    return ""


# ---------------------------------------------------------------------------------------------------------------------
# Changes

_PROTOCOL_WORDS = {number: word for word, number in _PROTOCOLS.items() if word != "icmpv6"}
_SIDES = {"up": "input", "down": "output"}
_FAMILY_WORDS = {family: word for word, family in _FAMILIES.items()}
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
        *where, short = name.split()
        place = _quoted(where) + " " if where else ""
        found.append(f"delete {place}firewall family {_FAMILY_WORDS[family]} filter {short}")
    return found


def restore(running: str, backup: str, names: Sequence[str]) -> list[str]:
    """The commands that give the attachments the filters they have in the backup, and delete ours behind them.

    A filter of the same name that decides otherwise now is written anew, with the prefix-lists it refers to.
    """
    now, then = parse(running), parse(backup)
    here, there = _read(running).root, _read(backup).root
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
                if _find(here, path) is not None:
                    gone.append(path)
                bindings = _at(there, *path)
                back += _statements(path, bindings)
                wanted += [(where, family, name) for name in bindings]
    seen: set[tuple[int, str]] = set()
    while wanted:
        where, family, name = wanted.pop()
        known_as = " ".join([*where, name])
        if (family, known_as) in seen:
            continue
        seen.add((family, known_as))
        paths = [[*where, "firewall", *kind, "filter", name] for kind in (["family", _FAMILY_WORDS[family]], [])]
        there_at = [path for path in paths if _find(there, path) is not None]
        if not there_at:
            continue
        defined = _at(there, *there_at[0])
        wanted += [(where, family, target) for term in _at(defined, "term").values() for target in _at(term, "filter")]
        key = (family, known_as)
        if key in now.filters and _decides(now.filters[key]) == _decides(then.filters[key]):
            continue
        lists = {
            word for term in _at(defined, "term").values() for kind in _ADDRESSES if kind.endswith("prefix-list")
            for word in _at(term, "from", kind)
        }  # fmt: skip
        for path in [there_at[0], *([*where, "policy-options", "prefix-list", word] for word in sorted(lists))]:
            if _find(here, path) is not None:
                gone.append(path)
            back += list(_statements(path, _at(there, *path))) or [path]
    if not gone and not back:
        return []
    kept = then.filters.keys() | {
        (one.family, name) for one in now.bindings if one.attachment not in names for name in one.filters
    }
    ours = sorted(key for key, one in now.filters.items() if one.name.startswith("ISP-") and key not in kept)
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
        if len(words) < 3 or words[0] not in _COMMANDS or words[1] not in _SECTIONS:
            raise ValueError(f"'{line}' is no command that changes a Junos configuration")
    yield "\n".join([running.rstrip("\n"), *lines, ""])
