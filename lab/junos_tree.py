# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A Junos configuration as a tree of words: read from brace form, changed by set and delete, printed, compared.

The grammar is strict where filters live (firewall, prefix lists, the filters of interfaces and dynamic profiles);
elsewhere any words go. Sources: Junos CLI User Guide; Routing Policies, Firewall Filters User Guide. Messages that
rest on memory are marked so.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

TOKEN = re.compile(r'/\*.*?\*/|#[^\n]*|"(?:\\.|[^"\\])*"|[{};\[\]]|[^\s{};\[\]"]+', re.DOTALL)
PLAIN = re.compile(r"[A-Za-z0-9_.:/@+%*,=~^<>-]+")

PORTS = {
    "afs": 1483, "bgp": 179, "biff": 512, "bootpc": 68, "bootps": 67, "cmd": 514, "dhcp": 67, "domain": 53,
    "exec": 512, "finger": 79, "ftp": 21, "ftp-data": 20, "http": 80, "https": 443, "ident": 113, "imap": 143,
    "kerberos-sec": 88, "ldap": 389, "ldp": 646, "login": 513, "msdp": 639, "netbios-dgm": 138, "netbios-ns": 137,
    "netbios-ssn": 139, "nfsd": 2049, "nntp": 119, "ntp": 123, "pop3": 110, "pptp": 1723, "printer": 515,
    "radacct": 1813, "radius": 1812, "rip": 520, "smtp": 25, "snmp": 161, "snmptrap": 162, "socks": 1080, "ssh": 22,
    "sunrpc": 111, "syslog": 514, "tacacs": 49, "telnet": 23, "tftp": 69, "xdmcp": 177,
}  # fmt: skip
PROTOCOLS = {
    "ah": 51, "dstopts": 60, "egp": 8, "esp": 50, "fragment": 44, "gre": 47, "hop-by-hop": 0, "icmp": 1, "icmp6": 58,
    "icmpv6": 58, "igmp": 2, "ipip": 4, "ipv6": 41, "no-next-header": 59, "ospf": 89, "pim": 103, "routing": 43,
    "rsvp": 46, "sctp": 132, "tcp": 6, "udp": 17, "vrrp": 112,
}  # fmt: skip
ICMP_TYPES = {
    4: {
        "echo-reply": 0, "unreachable": 3, "source-quench": 4, "redirect": 5, "echo-request": 8,
        "router-advertisement": 9, "router-solicit": 10, "time-exceeded": 11, "parameter-problem": 12,
        "timestamp": 13, "timestamp-reply": 14, "info-request": 15, "info-reply": 16, "mask-request": 17,
        "mask-reply": 18,
    },
    6: {
        "destination-unreachable": 1, "packet-too-big": 2, "time-exceeded": 3, "parameter-problem": 4,
        "echo-request": 128, "echo-reply": 129, "membership-query": 130, "membership-report": 131,
        "membership-termination": 132, "router-solicit": 133, "router-advertisement": 134, "neighbor-solicit": 135,
        "neighbor-advertisement": 136, "redirect": 137,
    },
}  # fmt: skip
ICMP_CODES = {
    4: {
        "network-unreachable": 0, "host-unreachable": 1, "protocol-unreachable": 2, "port-unreachable": 3,
        "fragmentation-needed": 4, "source-route-failed": 5, "ttl-eq-zero-during-transit": 0,
        "ttl-eq-zero-during-reassembly": 1,
    },
    6: {
        "no-route-to-destination": 0, "administratively-prohibited": 1, "address-unreachable": 3,
        "port-unreachable": 4, "ttl-eq-zero-during-transit": 0, "ttl-eq-zero-during-reassembly": 1,
    },
}  # fmt: skip


class RefusedError(Exception):
    """A command that Junos does not take: the message, and which of its words is at fault."""

    def __init__(self, message: str, position: int) -> None:
        super().__init__(message)
        self.message = message
        self.position = position


# --- The tree


@dataclass
class Word:
    """A word of a statement and what may follow it.

    `block`: its children stand in braces. `listed`: they are values, in brackets when there are several. Neither: each
    child goes on in the same statement.
    """

    children: dict[str, Word] = field(default_factory=dict)
    block: bool = False
    listed: bool = False
    inactive: bool = False
    comment: str = ""
    trailer: str = ""
    replace: bool = False  # 'replace:' in a text that is being loaded

    def copy(self) -> Word:
        twin = Word({}, self.block, self.listed, self.inactive, self.comment, self.trailer, self.replace)
        twin.children = {text: child.copy() for text, child in self.children.items()}
        return twin

    @property
    def active(self) -> bool:
        """Neither it nor all that it holds was deactivated."""
        return not self.inactive and (not self.children or any(child.active for child in self.children.values()))

    def get(self, *path: str) -> Word | None:
        """The active word at the path below."""
        here = self
        for text in path:
            child = here.children.get(text)
            if child is None or not child.active:
                return None
            here = child
        return here

    def below(self, *path: str) -> Iterator[tuple[str, Word]]:
        """The active children of the word at the path, none where there is no such path."""
        here = self.get(*path)
        if here is not None:
            yield from ((text, child) for text, child in here.children.items() if child.active)


def quote(text: str) -> str:
    return text if PLAIN.fullmatch(text) else '"' + text.replace('"', '\\"') + '"'


def unquote(token: str) -> str:
    return token[1:-1].replace('\\"', '"') if token.startswith('"') else token


def words(line: str) -> list[str]:
    """A command's words, quotes taken off."""
    return [unquote(token) for token in re.findall(r'"(?:\\.|[^"\\])*"?|[\[\]]|[^\s\[\]"]+', line)]


# --- The grammar


@dataclass(frozen=True)
class Rule:
    """What may follow a word. `any_child` (with `check`) is for names and values; `free`: any words at all."""

    children: Mapping[str, Rule] = field(default_factory=dict)
    any_child: Rule | None = None
    check: Callable[[str], str] | None = None  # the message for a bad value, '' for a good one
    block: bool = False
    listed: bool = False
    single: bool = False  # a new value takes the place of the old
    needs: bool = False  # may not be the last word
    named: bool = False  # stays when it has nothing in it
    free: bool = False


def number(low: int, high: int) -> Callable[[str], str]:
    def check(text: str) -> str:
        first, _, last = text.partition("-")
        if not first.isdecimal() or (last and not last.isdecimal()):
            return f"invalid value '{text}'"  # [memory]
        if not low <= int(first) <= int(last or first) <= high:
            return f"Value {text} is not within range ({low}..{high})"  # [memory]
        return ""

    return check


def named_number(names: Mapping[str, int], low: int, high: int) -> Callable[[str], str]:
    def check(text: str) -> str:
        first, _, last = text.partition("-")
        return "" if text in names or {first, last} <= set(names) else number(low, high)(text)

    return check


def prefix(family: int) -> Callable[[str], str]:
    """family 0: either of the two."""

    def check(text: str) -> str:
        try:
            network = ipaddress.ip_network(text, strict=False)
        except ValueError:
            return f"invalid ip address or hostname: {text}"  # [memory]
        return "" if family in (0, network.version) else f"invalid ip address or hostname: {text}"

    return check


def container(children: Mapping[str, Rule], free: bool = False) -> Rule:
    return Rule(children, block=True, free=free)


def named(children: Mapping[str, Rule], free: bool = False) -> Rule:
    return Rule(any_child=Rule(children, block=True, named=True, free=free), needs=True)


def value(check: Callable[[str], str] | None = None, then: Mapping[str, Rule] | None = None) -> Rule:
    return Rule(any_child=Rule(then or {}), check=check, single=True, needs=True)


def values(check: Callable[[str], str] | None = None) -> Rule:
    return Rule(any_child=Rule(), check=check, listed=True, needs=True)


def entries(check: Callable[[str], str] | None, *suffixes: str) -> Rule:
    suffix = Rule({text: Rule() for text in suffixes}, single=True)
    return Rule(any_child=suffix, check=check, block=True, needs=True)


FLAG = Rule()
FREE = Rule(free=True)
NUMBERED = values(number(0, 65535))


def conditions(family: int) -> dict[str, Rule]:
    port = values(named_number(PORTS, 0, 65535))
    protocol = values(named_number(PROTOCOLS, 0, 255))
    address = entries(prefix(family), "except")
    prefix_list = entries(None, "except")
    icmp_type = values(named_number(ICMP_TYPES[family], 0, 255))
    icmp_code = values(named_number(ICMP_CODES[family], 0, 255))
    rules = {
        "address": address, "source-address": address, "destination-address": address,
        "prefix-list": prefix_list, "source-prefix-list": prefix_list, "destination-prefix-list": prefix_list,
        "port": port, "source-port": port, "destination-port": port,
        "port-except": port, "source-port-except": port, "destination-port-except": port,
        "icmp-type": icmp_type, "icmp-type-except": icmp_type, "icmp-code": icmp_code, "icmp-code-except": icmp_code,
        "tcp-established": FLAG, "tcp-initial": FLAG, "tcp-flags": value(),
        "packet-length": NUMBERED, "forwarding-class": values(), "interface": values(), "is-fragment": FLAG,
    }  # fmt: skip
    if family == 4:
        rules |= {
            "protocol": protocol, "protocol-except": protocol, "first-fragment": FLAG, "dscp": values(),
            "precedence": values(), "fragment-flags": value(), "fragment-offset": values(number(0, 8191)),
            "fragment-offset-except": values(number(0, 8191)), "ttl": values(number(0, 255)), "ip-options": values(),
        }  # fmt: skip
    else:
        rules |= {
            "next-header": protocol, "next-header-except": protocol, "payload-protocol": protocol,
            "payload-protocol-except": protocol, "extension-header": values(named_number(PROTOCOLS, 0, 255)),
            "traffic-class": values(), "hop-limit": values(number(0, 255)),
        }  # fmt: skip
    return rules


ACTIONS = {
    "accept": FLAG,
    "discard": FLAG,
    "reject": Rule({"tcp-reset": FLAG, "administratively-prohibited": FLAG}),
    "next": Rule({"term": FLAG}, needs=True),
    "count": value(),
    "log": FLAG,
    "syslog": FLAG,
    "sample": FLAG,
    "policer": value(),
    "loss-priority": value(),
    "forwarding-class": value(),
    "routing-instance": value(),
    "service-filter-hit": FLAG,
}
ENDINGS = ("accept", "discard", "reject", "next")


def firewall_filter(family: int) -> Rule:
    term = named({"from": container(conditions(family)), "then": container(ACTIONS), "filter": value()})
    return named(
        {"term": term, "interface-specific": FLAG, "physical-interface-filter": FLAG, "accounting-profile": value()}
    )


def bound_family(family: int) -> Rule:
    precedence = {"precedence": value(number(0, 255))}
    filters = {
        "input": value(then=precedence), "output": value(then=precedence),
        "input-list": values(), "output-list": values(),
    }  # fmt: skip
    return container(
        {
            "filter": container(filters),
            "address": Rule(any_child=Rule(free=True, block=True), check=prefix(family), needs=True),
        },
        free=True,
    )


UNIT = named({"family": Rule({"inet": bound_family(4), "inet6": bound_family(6)}, free=True, needs=True)}, free=True)
INTERFACES = Rule(any_child=Rule({"unit": UNIT}, block=True, named=True, free=True), block=True)
GRAMMAR = Rule(
    {
        "firewall": container(
            {
                "family": Rule(
                    {
                        "inet": container({"filter": firewall_filter(4)}),
                        "inet6": container({"filter": firewall_filter(6)}),
                    },
                    needs=True,
                ),
                "filter": firewall_filter(4),
                "policer": FREE,
            }
        ),
        "policy-options": container({"prefix-list": named({}, free=True)}, free=True),
        "interfaces": INTERFACES,
        "dynamic-profiles": Rule(any_child=container({"interfaces": INTERFACES}, free=True), block=True),
        **{
            top: Rule(block=True, free=True)
            for top in (
                "access", "access-profile", "accounting-options", "apply-groups", "chassis", "class-of-service",
                "event-options", "forwarding-options", "groups", "protocols", "routing-instances", "routing-options",
                "services", "snmp", "system", "version",
            )
        },
    },
    block=True,
)  # fmt: skip
PREFIX_LIST_ENTRY = Rule(check=prefix(0), any_child=Rule(), block=True, named=True, children={"apply-path": value()})
SINGLE_IN_FREE = frozenset(
    {"host-name", "description", "mtu", "vlan-id", "time-zone", "domain-name", "peer-as", "local-as"}
)


def step(rule: Rule, text: str, position: int) -> Rule:
    """The rule for what follows `text`, which follows what `rule` is for. Raises RefusedError."""
    if rule.free and text not in rule.children:
        return FREE
    if text in rule.children:
        return rule.children[text]
    if rule.any_child is None:
        raise RefusedError("syntax error.", position)
    if rule.check is not None and (message := rule.check(text)):
        raise RefusedError(f"error: {message}", position)
    return rule.any_child


def rule_at(path: Sequence[str]) -> Rule:
    """The rule for what follows a path. Raises RefusedError, with the position of the word at fault."""
    rule = GRAMMAR
    for position, text in enumerate(path):
        if position == 2 and tuple(path[:2]) == ("policy-options", "prefix-list"):
            rule = PREFIX_LIST_ENTRY
        else:
            rule = step(rule, text, position)
    return rule


def canonical(text: str, rule: Rule) -> str:
    """A prefix without length gets one, host bits stay as typed."""
    if (
        rule.check is not None
        and rule.block
        and rule.any_child is not None
        and "/" not in text
        and not rule.check(text)
    ):
        return f"{text}/{ipaddress.ip_address(text).max_prefixlen}"
    return text


# --- set and delete


def add(root: Word, path: Sequence[str], at: int = 0) -> None:
    """What `set` does with the words after it; the first `at` are the edit level. Raises RefusedError."""
    opening = path.index("[") if "[" in path else None
    if opening is not None:
        if path[-1] != "]" or opening + 2 > len(path):
            raise RefusedError("syntax error.", len(path) - 1)
        inside = path[opening + 1 : -1]
        for offset, text in enumerate(inside):
            try:
                rule_at([*path[:opening], text])
            except RefusedError as refused:
                raise RefusedError(refused.message, refused.position + 1 + offset) from None
        for text in inside:
            add(root, [*path[:opening], text], at)
        return
    if rule_at(path).needs:
        raise RefusedError("missing argument.", len(path))
    if len(path) == at:
        raise RefusedError("syntax error.", at)
    here = root
    for position in range(len(path)):
        rule = rule_at(path[:position])
        text = canonical(path[position], rule)
        if rule.single or (position and position == len(path) - 1 and path[position - 1] in SINGLE_IN_FREE):
            here.children = {known: child for known, child in here.children.items() if known == text}
        if text in ENDINGS and rule.children is ACTIONS:
            here.children = {known: child for known, child in here.children.items() if known not in ENDINGS}
        known_child = here.children.get(text)
        if known_child is None:
            after = rule_at(path[: position + 1])
            known_child = here.children[text] = Word(block=after.block, listed=after.listed)
        here = known_child


def find(root: Word, path: Sequence[str]) -> Word | None:
    here: Word | None = root
    for position, text in enumerate(path):
        if here is None:
            return None
        rule = rule_at(path[:position])
        here = here.children.get(canonical(text, rule))
    return here


def remove(root: Word, path: Sequence[str]) -> bool:
    """What `delete` does; False when there is no such statement. Raises RefusedError for words that cannot be."""
    rule_at(path)
    if find(root, path) is None:
        return False
    if not path:
        root.children.clear()
        return True
    for length in range(len(path), 0, -1):
        parent = find(root, path[: length - 1])
        assert parent is not None
        text = canonical(path[length - 1], rule_at(path[: length - 1]))
        if length == len(path) or not (parent.children[text].children or rule_at(path[:length]).named):
            del parent.children[text]
        else:
            break
    return True


# --- Brace form


def parse(text: str) -> Word:
    """A configuration in brace form, 'inactive:' and 'replace:' tags included. Raises ValueError with the line."""
    root = Word(block=True)
    stack = [root]
    statement: list[str] = []
    tags: set[str] = set()
    listed: list[str] = []
    inside = False  # of brackets
    comment = ""
    last: Word | None = None
    last_end = 0
    for found in TOKEN.finditer(text):
        token = found.group()
        if token.startswith("/*"):
            comment = token
        elif token.startswith("#"):
            if last is not None and "\n" not in text[last_end : found.start()]:
                last.trailer = token.rstrip()
        elif token in ("inactive:", "replace:"):
            tags.add(token)
        elif token == "[":
            listed, inside = [], True
        elif token == "]":
            inside = False
        elif inside:
            listed.append(unquote(token))
        elif token == "}":
            if len(stack) == 1 or statement:
                line = text.count("\n", 0, found.start()) + 1
                raise ValueError(f"terminal:{line}:({found.start()}) syntax error: }}")
            stack.pop()
            last = None
        elif token in ("{", ";"):
            if not statement:
                line = text.count("\n", 0, found.start()) + 1
                raise ValueError(f"terminal:{line}:({found.start()}) syntax error: {token}")
            here = stack[-1]
            marked = here
            for text_of_word in statement:
                here = here.children.setdefault(text_of_word, Word())
                if text_of_word != "except":
                    marked = here
            for entry in listed:
                here.children.setdefault(entry, Word())
            here.listed = here.listed or bool(listed)
            marked.inactive = "inactive:" in tags
            marked.replace = "replace:" in tags
            marked.comment, comment = comment or marked.comment, ""
            if token == "{":
                here.block = True
                stack.append(here)
            last, last_end = here, found.end()
            statement, tags, listed = [], set(), []
        else:
            statement.append(unquote(token))
    if len(stack) > 1 or statement:
        raise ValueError(f"terminal:{text.count(chr(10)) + 1}:(0) syntax error: end of input")
    shape(root, ())
    return root


def shape(word: Word, path: tuple[str, ...]) -> None:
    """Braces and brackets as the grammar has them, so that `then accept;` and `then { accept; }` are one."""
    try:
        rule = rule_at(path)
    except RefusedError:
        return
    if not rule.free:
        word.block, word.listed = rule.block, rule.listed
    for text, child in word.children.items():
        shape(child, (*path, text))


def check(word: Word, path: tuple[str, ...] = ()) -> Iterator[str]:
    """What the grammar has against the statements below, as `load` reports it."""
    for text, child in word.children.items():
        try:
            rule_at((*path, text))
        except RefusedError as refused:
            yield f"error: {refused.message.removeprefix('error: ').rstrip('.')}: {text}\n  [edit {' '.join(path)}]"
        else:
            yield from check(child, (*path, text))


def lines(word: Word, indent: int = 0) -> Iterator[str]:
    """The statements below a word, in brace form."""
    for text, child in word.children.items():
        yield from statement_lines([text], child, indent, False)


def statement_lines(so_far: list[str], word: Word, indent: int, inactive: bool) -> Iterator[str]:
    space = "    " * indent
    inactive = inactive or word.inactive
    if word.comment:
        yield from (
            space + line.strip() if n == 0 else space + " " + line.strip()
            for n, line in enumerate(word.comment.splitlines())
        )
    head = space + ("inactive: " if inactive else "") + " ".join(map(quote, so_far))
    tail = f" {word.trailer}" if word.trailer else ""
    if so_far[-1] == "then" and len(word.children) == 1 and next(iter(word.children)) in ENDINGS:
        ending = next(iter(flat(word)))
        yield f"{head} {' '.join(ending)};{tail}"
    elif word.block and (word.children or len(so_far) > 1):
        yield f"{head} {{{tail}" if word.children else f"{head};"
        if word.children:
            yield from lines(word, indent + 1)
            yield f"{space}}}"
    elif not word.children:
        yield f"{head};{tail}"
    elif word.listed:
        entries_ = [quote(text) for text in word.children]
        yield f"{head} {entries_[0]};{tail}" if len(entries_) == 1 else f"{head} [ {' '.join(entries_)} ];{tail}"
    else:
        for text, child in word.children.items():
            yield from statement_lines([*so_far, text], child, indent, inactive)


def flat(word: Word, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every statement as the words of a `set`."""
    for text, child in word.children.items():
        here = (*path, text)
        if child.children:
            yield from flat(child, here)
        else:
            yield here


def deactivated(word: Word, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for text, child in word.children.items():
        if child.inactive:
            yield (*path, text)
        yield from deactivated(child, (*path, text))


def set_lines(word: Word, path: tuple[str, ...] = ()) -> Iterator[str]:
    """As `| display set` prints."""
    for statement in flat(word, path):
        yield "set " + " ".join(map(quote, statement))
    for statement in deactivated(word, path):
        yield "deactivate " + " ".join(map(quote, statement))


def merge(into: Word, loaded: Word, replacing: bool) -> None:
    """What `load merge` and (replacing) `load replace` do."""
    for text, child in loaded.children.items():
        known = into.children.get(text)
        if known is None or (replacing and child.replace):
            into.children[text] = child.copy()
            clear_tags(into.children[text])
        else:
            known.inactive = known.inactive or child.inactive
            merge(known, child, replacing)


def clear_tags(word: Word) -> None:
    word.replace = False
    for child in word.children.values():
        clear_tags(child)


def statements(word: Word, so_far: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Word]]:
    """The statements in a block: all words up to the brace, the bracket or the end, and the last of them."""
    for text, child in word.children.items():
        if child.block or child.listed or not child.children:
            yield (*so_far, text), child
        else:
            yield from statements(child, (*so_far, text))


def compare(old: Word, new: Word, path: tuple[str, ...] = ()) -> Iterator[str]:
    """`show | compare`: what left and what came, below the level where it did."""
    before, after = dict(statements(old)), dict(statements(new))
    changed: list[str] = []
    deeper: list[str] = []
    for words_, left in before.items():
        stays = after.get(words_)
        if stays is None:
            changed += signed("-", words_, left)
        elif left.inactive != stays.inactive:
            changed.append(
                f"!   {'inactive' if stays.inactive else 'active'}: {' '.join(map(quote, words_))} {{ ... }}"
            )
        elif left.listed and list(left.children) != list(stays.children):
            changed += [*signed("-", words_, left), *signed("+", words_, stays)]
        elif left.block:
            deeper += compare(left, stays, (*path, *words_))
    for words_, came in after.items():
        if words_ not in before:
            changed += signed("+", words_, came)
    if [words_ for words_ in before if words_ in after] != [words_ for words_ in after if words_ in before]:
        changed += [f"!   {' '.join(map(quote, words_))} {{ ... }}" for words_ in after if words_ in before]
    if changed:
        yield "[edit" + "".join(f" {quote(text)}" for text in path) + "]"
        yield from changed
    yield from deeper


def signed(sign: str, path: Sequence[str], word: Word) -> list[str]:
    return [f"{sign}{line[1:]}" for line in statement_lines(list(path), word, 1, False)]
