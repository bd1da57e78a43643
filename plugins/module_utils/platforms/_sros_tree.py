# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The text of an SR OS configuration as a tree of words: MD-CLI with braces, flat or full-context, and classic CLI.

`entry 10 { match { protocol tcp } }`, `/configure ... entry 10 match protocol tcp` and the classic lines with their
`exit` are the same words in the same places, as far as the two CLIs name things alike.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ..filters import Doubt


class Node(dict[str, "Node"]):
    """What stands below a word."""

    __slots__ = ("line",)
    line: int


@dataclass
class Reading:
    """A text as a tree: only the sections that may matter to filters."""

    lines: list[str]
    root: Node = field(default_factory=Node)
    doubts: list[Doubt] = field(default_factory=list)
    filter_lines: int = 0
    known: set[str] = field(default_factory=set)  # the sections of the configuration that were seen
    strange: set[str] = field(default_factory=set)  # what stood in the place of one
    problem: str = ""  # why the text is not whole
    classic: bool = False
    refused: str = ""  # the router's words where it printed no configuration

    def text(self, line: int) -> str:
        return self.lines[line - 1].strip()

    def doubt(self, line: int, reason: str) -> None:
        self.doubts.append(Doubt(line, self.text(line), reason))


# Sections of the configuration that are kept; `filter` is counted line by line.
_KEPT = frozenset(("apply-groups", "filter", "groups", "router", "service", "subscriber-mgmt", "system"))
SECTIONS = _KEPT | frozenset(
    ("aaa", "anysec", "aps", "application-assurance", "apply-groups-exclude", "bfd", "bmp", "call-trace", "card",
     "cflowd", "chassis", "connection-profile", "cron", "dhcp", "esa", "esa-vm", "eth-cfm", "eth-ring", "eth-tunnel",
     "fwd-path-ext", "group-encryption", "ipsec", "isa", "lag", "ldap", "li", "log", "macsec", "mcac",
     "mcast-management", "mirror", "mobile-gateway", "multicast-management", "multilink-bundle",
     "network-group-encryption", "oam-pm", "oam-test", "open-flow", "openflow", "policy-options", "port",
     "port-policy", "port-xc", "pw-port", "python", "qos", "redundancy", "saa", "satellite", "sflow", "sfm",
     "test-oam", "video", "vrrp", "vsd", "vsm", "wlan-gw")
)  # fmt: skip
# Where `info` began below a section, what it prints stands in this one.
_WITHIN = {
    **dict.fromkeys(("ip-filter", "ipv6-filter", "match-list", "system-filter"), "filter"),
    **dict.fromkeys(("ies", "vprn", "vpls", "epipe", "ipipe", "customer"), "service"),
    **dict.fromkeys(("sla-profile", "sub-profile", "msap-policy", "local-user-db"), "subscriber-mgmt"),
}
# Beside `configure` in the output of `admin show configuration`.
_BESIDE = frozenset(("persistent-indices", "bof", "debug", "li"))

# What stands below a word: how many words are its key or value, and what may follow. None for what may follow: a leaf,
# behind which the line goes on in the same place (`match protocol tcp dst-port eq 25`). YANG nokia-conf.
_Grammar = Mapping[str, "tuple[int, _Grammar | None]"]
_Place = tuple[Node | None, "_Grammar | None"]
_LEAF = (1, None)
_EMPTY = (0, None)
_COMPARED: _Grammar = {
    "eq": _LEAF, "lt": _LEAF, "gt": _LEAF, "port-list": _LEAF, "range": (0, {"start": _LEAF, "end": _LEAF}),
}  # fmt: skip
_ADDRESS: _Grammar = {"address": _LEAF, "mask": _LEAF, "ip-prefix-list": _LEAF, "ipv6-prefix-list": _LEAF}
_MASKED: _Grammar = {"type": _LEAF, "value": _LEAF, "address": _LEAF, "mask": _LEAF}
_MATCH: _Grammar = {
    "protocol": _LEAF, "protocol-list": _LEAF, "next-header": _LEAF, "next-header-list": _LEAF, "dscp": _LEAF,
    "fragment": _LEAF, "multiple-option": _LEAF, "option-present": _LEAF, "src-route-option": _LEAF,
    "destination-class": _LEAF, "src-ip": (0, _ADDRESS), "dst-ip": (0, _ADDRESS), "ip": (0, _ADDRESS),
    "src-port": (0, _COMPARED), "dst-port": (0, _COMPARED), "port": (0, _COMPARED), "ip-option": (0, _MASKED),
    "src-mac": (0, _MASKED), "flow-label": (0, _MASKED), "icmp": (0, {"type": _LEAF, "code": _LEAF}),
    "tcp-flags": (0, dict.fromkeys(("ack", "syn", "fin", "rst", "psh", "urg", "ece", "cwr", "ns"), _LEAF)),
    "extension-header": (0, dict.fromkeys(("ah", "esp", "hop-by-hop", "routing-type0"), _LEAF)),
    "packet-length": (0, _COMPARED), "ttl": (0, _COMPARED), "hop-limit": (0, _COMPARED),
}  # fmt: skip
_CONDITION: _Grammar = {
    "ttl": (0, _COMPARED), "hop-limit": (0, _COMPARED), "packet-length": (0, _COMPARED),
    "payload-length": (0, _COMPARED), "extracted-traffic": _EMPTY,
    "pattern": (0, dict.fromkeys(("expression", "mask", "offset-type", "offset-value"), _LEAF)),
}  # fmt: skip
_ACTION: _Grammar = {
    "drop": _EMPTY, "accept": _EMPTY, "ignore-match": _EMPTY, "reassemble": _EMPTY, "gtp-local-breakout": _EMPTY,
    "tcp-mss-adjust": _EMPTY, "fc": _LEAF, "l2-aware-nat-bypass": _LEAF, "drop-when": (0, _CONDITION),
    "accept-when": (0, _CONDITION), "rate-limit": (0, {"pir": _LEAF, **_CONDITION}), "remark": (0, {"dscp": _LEAF}),
    "http-redirect": (0, {"url": _LEAF, "allow-override": _LEAF}), "nat": (0, {"nat-policy": _LEAF, "nat-type": _LEAF}),
}  # fmt: skip
_RANGE: _Grammar = {"range": (0, {"start": _LEAF, "end": _LEAF})}
_FILTER: _Grammar = {
    "default-action": _LEAF, "description": _LEAF, "scope": _LEAF, "type": _LEAF, "chain-to-system-filter": _LEAF,
    "filter-id": _LEAF, "shared-policer": _LEAF,
    "entry": (1, {
        "description": _LEAF, "pbr-down-action-override": _LEAF, "sticky-dest": _LEAF, "log": _LEAF,
        "collect-stats": _LEAF, "egress-pbr": _LEAF, "filter-sample": _LEAF, "interface-sample": _LEAF,
        "sample-profile": _LEAF, "match": (0, _MATCH), "action": (0, _ACTION),
    }),
    "embed": (0, {
        "filter": (3, {"admin-state": _LEAF}),
        "flowspec": (2, {"admin-state": _LEAF, "group": _LEAF, "router-instance": _LEAF}),
        "openflow": (3, {"admin-state": _LEAF, "grt": _EMPTY, "system": _EMPTY, "vprn": _LEAF, "vpls": _LEAF,
                         "sap": _LEAF}),
        "vsd": (3, {"admin-state": _LEAF}),
    }),
    "subscriber-mgmt": (0, {
        "host-specific-entry": (0, {"filter-rule": (0, _RANGE), "credit-control": (0, _RANGE),
                                    "watermark": (0, {"low": _LEAF, "high": _LEAF})}),
        "shared-entry": (0, {"filter-rule": (0, _RANGE), "pcc-rule": (0, _RANGE),
                             "watermark": (0, {"low": _LEAF, "high": _LEAF})}),
    }),
}  # fmt: skip
_PREFIXES: _Grammar = {"description": _LEAF, "prefix": (1, {}), "prefix-exclude": (1, {})}
_BOUND: _Grammar = {"filter": (0, {"ip": _LEAF, "ipv6": _LEAF, "mac": _LEAF})}
_SAP: _Grammar = {
    "admin-state": _LEAF, "description": _LEAF, "anti-spoof": _LEAF, "ingress": (0, _BOUND), "egress": (0, _BOUND),
    "radius-auth-policy": _LEAF, "diameter-auth-policy": _LEAF, "diameter-application-policy": _LEAF,
    "sub-sla-mgmt": (0, {"admin-state": _LEAF, "defaults": (0, {"sla-profile": _LEAF, "sub-profile": _LEAF})}),
    "static-host": (1, {}),
}  # fmt: skip
_IPV4: _Grammar = {
    "primary": (0, {"address": _LEAF, "prefix-length": _LEAF}),
    "secondary": (1, {"prefix-length": _LEAF}), "address": (1, {"prefix-length": _LEAF, "gateway": _LEAF}),
    "prefix": (1, {"host-type": _LEAF}), "urpf-check": (0, {"mode": _LEAF, "ignore-default": _LEAF}),
}  # fmt: skip
_ROUTED_VPLS: _Grammar = dict.fromkeys(
    ("ingress", "egress"), (0, {"routed-override-filter": (0, {"ip": _LEAF, "ipv6": _LEAF})})
)
_INTERFACE: _Grammar = {
    "admin-state": _LEAF, "description": _LEAF, "loopback": _EMPTY, "port": _LEAF, "ingress": (0, _BOUND),
    "egress": (0, _BOUND), "ipv4": (0, _IPV4), "ipv6": (0, _IPV4), "sap": (1, _SAP), "spoke-sdp": (1, _SAP),
    "vpls": (1, _ROUTED_VPLS), "radius-auth-policy": _LEAF, "diameter-auth-policy": _LEAF,
    "diameter-application-policy": _LEAF,
}  # fmt: skip
_ROUTES: _Grammar = {"static-routes": (0, {"route": (3, {"next-hop": (1, {}), "indirect": (1, {})})})}
_SERVICE: _Grammar = {
    "admin-state": _LEAF, "description": _LEAF, "service-id": _LEAF, "customer": _LEAF, "interface": (1, _INTERFACE),
    "subscriber-interface": (1, {**_INTERFACE, "group-interface": (1, _INTERFACE)}), **_ROUTES,
}  # fmt: skip
_BRIDGED: _Grammar = {
    "admin-state": _LEAF, "description": _LEAF, "service-id": _LEAF, "customer": _LEAF, "sap": (1, _SAP),
    "spoke-sdp": (1, _SAP), "mesh-sdp": (1, _SAP), "capture-sap": (1, {
        **_SAP, "msap-defaults": (0, {"policy": _LEAF, "service-name": _LEAF, "group-interface": _LEAF}),
    }),
}  # fmt: skip
_SLA_SIDE: _Grammar = {"ip-filter": _LEAF, "ipv6-filter": _LEAF}
_MD: _Grammar = {
    "filter": (0, {
        "ip-filter": (1, _FILTER), "ipv6-filter": (1, _FILTER),
        "match-list": (0, {
            "ip-prefix-list": (1, _PREFIXES), "ipv6-prefix-list": (1, _PREFIXES),
            "port-list": (1, {"description": _LEAF, "port": (1, {}), "range": (4, {})}),
            "protocol-list": (1, {"description": _LEAF, "protocol": (1, {})}),
        }),
        "system-filter": (0, {"ip": (1, {}), "ipv6": (1, {})}),
    }),
    "router": (1, {"interface": (1, _INTERFACE), **_ROUTES}),
    "service": (0, {
        "ies": (1, _SERVICE), "vprn": (1, _SERVICE), "vpls": (1, _BRIDGED), "epipe": (1, _BRIDGED),
        "ipipe": (1, _BRIDGED),
    }),
    "subscriber-mgmt": (0, {
        "sla-profile": (1, {"description": _LEAF, "ingress": (0, _SLA_SIDE), "egress": (0, _SLA_SIDE)}),
    }),
    "system": (0, {"name": _LEAF}),
}  # fmt: skip

_TOKEN = re.compile(r'"((?:[^"\\]|\\.)*)"|([{}\[\]])|(")|([^\s"{}\[\]]+)')
# The flat lines that make up nearly all of a long filter: one of an entry, and what it says.
_FLAT = re.compile(r'(/configure filter ip(?:v6)?-filter "[^"\\]*" entry \d+ )([^"\[\]{}]+|description "[^"\\]*")')
# The place in the configuration that the CLI prints above its prompt, the mark below a word at fault.
_BANNER = re.compile(r"[!*]*(?:\((?:ex|pr|gl|ro)\))?\[[^\]]*\]|\^+")
_PROMPT = re.compile(r"\*?[A-D]:[^\s#>]+[#>].*|[-=]{10,}")
_SAID = re.compile(r"(?:MINOR|MAJOR|CRITICAL|WARNING|INFO|Error): ?(.*)")
_CLASSIC = re.compile(r"^(?:configure|exit all|echo \"[^\"]*\")[ \t]*$", re.MULTILINE)
_CLASSIC_PART = re.compile(r"^[ \t]*exit[ \t]*$", re.MULTILINE)
_QUOTED = re.compile(r'"[^"]*"|\S+')
_DEEPEST = 48  # words in a line
_NESTED = 20  # blocks within each other
_QUOTED_ONLY = re.compile(r'"[^"]*"')


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Without Python's cycle collector, which would walk the growing tree over and over: a third of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@functools.lru_cache(maxsize=4)
def read(text: str) -> Reading:
    """The tree, whatever the text. One pass; what is cached is never changed."""
    text = text.removeprefix("\ufeff").replace("\r", "")
    reading = Reading(text.split("\n"))
    reading.classic = bool(_CLASSIC.search(text) or (_CLASSIC_PART.search(text) and "{" not in text))
    with uncollected():
        if reading.classic:
            _Classic(reading).read()
        else:
            _ModelDriven(reading).read()
        begun = re.search(r"^# (?:Generated|TiMOS)", text, re.MULTILINE)
        if begun and not reading.problem and not re.search(r"^# Finished\b", text, re.MULTILINE):
            reading.problem = "its last line, '# Finished ...', is missing: the output was cut off"
    return reading


class _Reader:
    """What both forms share."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self.number = 0

    def _problem(self, reason: str) -> None:
        self.reading.problem = self.reading.problem or f"{reason} (line {self.number})"

    def _seen(self, section: str) -> None:
        if section in SECTIONS:
            self.reading.known.add(section)
        elif section not in _BESIDE:
            self.reading.strange.add(section)
            self.reading.doubt(self.number, f"'{section[:60]}' is not known as a section of the configuration")

    def _aside(self, line: str) -> bool:
        """A line that the terminal printed and the configuration has not."""
        if _BANNER.fullmatch(line) or _PROMPT.fullmatch(line):
            return True
        said = _SAID.match(line)
        if said:
            self.reading.refused = self.reading.refused or line
        return bool(said)


class _ModelDriven(_Reader):
    """Line by line: the plain statements quickly, all others word by word."""

    def __init__(self, reading: Reading) -> None:
        super().__init__(reading)
        self.stack: list[_Place] = [(reading.root, None)]
        self.section = ""
        self.beside = False  # inside of what `admin show configuration` prints beside `configure`
        self.string: list[str] | None = None  # the lines of a string that has not ended
        self.entry: tuple[str, _Place] = (
            "",
            (None, None),
        )  # the beginning of the last flat line of an entry, and where it leads to

    def read(self) -> None:
        reading, stack, flat = self.reading, self.stack, _FLAT.fullmatch
        for self.number, raw in enumerate(reading.lines, 1):
            line = raw.strip()
            if not line or (line[0] == "#" and self.string is None):
                continue
            if self.string is None:
                if len(stack) == 1:
                    found = flat(line)
                    if found and "/configure " not in found[2]:
                        self._of_an_entry(*found.groups())
                        continue
                    if self._aside(line):
                        continue
                    if line.startswith("delete "):
                        self._delete(line)
                        self.entry = "", (None, None)
                        continue
                elif line == "}":
                    stack.pop()
                    continue
            if "/configure " in line[1:]:
                self._joined(line)
            self._tokens(line)
        if self.string is not None or len(stack) > 1:
            self._problem("it ends in the middle of a statement")

    def _joined(self, line: str) -> None:
        """Two lines of the flat form in one: the end of a line was lost."""
        if self.string is None and "/configure " in _QUOTED_ONLY.sub('""', line)[1:]:
            self.reading.doubt(self.number, "two lines in one: the end of a line was lost")

    def _tokens(self, line: str) -> None:
        words: list[str] = []
        if self.string is None and '"' not in line and "[" not in line:
            if line[-1] == "{" and line.count("{") == 1 and "}" not in line:
                self._open(line[:-1].split())
                return
            if "{" not in line and "}" not in line:
                self._statement(line.split())
                return
        position = 0
        while position < len(line):
            if self.string is not None:
                end = line.find('"', position)
                if end < 0:
                    self.string.append(line[position:])
                    return
                words, self.string, position = [*self.string, line[position:end]], None, end + 1
                words = ["\n".join(words)]  # a text of several lines is nothing that a filter could hold
                continue
            token = _TOKEN.search(line, position)
            if token is None:
                break
            position = token.end()
            string, sign, quote, word = token.groups()
            if string is not None:
                words.append(string)
            elif quote:
                self.string = [*words, line[position:]]
                return
            elif word:
                words.append(word)
            elif sign == "{":
                self._open(words)
                words = []
            elif sign == "}":
                self._statement(words)
                words = []
                if len(self.stack) == 1:
                    self._problem("a '}' that closes nothing")
                else:
                    self.stack.pop()
            else:
                words.append(sign)
        self._statement(words)

    def _of_an_entry(self, beginning: str, said: str) -> None:
        if self.entry[0] != beginning:
            words = self._rooted([word.strip('"') for word in _QUOTED.findall(beginning)])
            self.entry = beginning, self._put(self.reading.root, _MD, words)
        self.reading.filter_lines += 1
        here, grammar = self.entry[1]
        if here is not None and said[:11] != "description":  # which no packet meets
            self._put(here, grammar, said.split())

    def _rooted(self, words: list[str]) -> list[str]:
        """The words below `configure`; sections are told where they begin."""
        if words[0] == "/" and len(words) > 1:
            words = words[1:]
        if words[0] in ("/configure", "configure"):
            words = words[1:]
        elif words[0].startswith("/"):
            words = [words[0][1:], *words[1:]]
        if words and words[0] in _WITHIN:
            words = [_WITHIN[words[0]], *words]
        if words[:2] == ["router", "interface"]:  # of the classic CLI, which names no Base
            words.insert(1, "Base")
        if words and words[0] != self.section:
            self.section = words[0]
            self._seen(words[0])
        return words

    def _open(self, words: list[str]) -> None:
        stack = self.stack
        here, grammar = stack[-1]
        if not words:
            if len(stack) > 1:
                self._problem("a '{' without a name")
            stack.append((here, grammar))
            return
        if here is self.reading.root:
            if words[0] in _BESIDE and words[0] not in SECTIONS:
                stack.append((None, None))
                return
            words = self._rooted(words)
            if not words:
                stack.append((here, None))
                return
            if words[0] not in _KEPT:
                stack.append((None, None))
                return
            grammar = _MD
        if len(stack) > _NESTED and here is not None:
            self.reading.doubt(self.number, "too many blocks within each other to be read")
            here = None
        stack.append((None, None) if here is None else self._put(here, grammar, words))

    def _statement(self, words: list[str]) -> None:
        if not words:
            return
        here, grammar = self.stack[-1]
        if here is None:
            return
        if here is self.reading.root:
            words = self._rooted(words)
            if not words or words[0] not in _KEPT:
                return
            grammar = _MD
        if self.section == "filter":
            self.reading.filter_lines += 1
        self._put(here, grammar, words)

    def _put(self, node: Node, grammar: _Grammar | None, words: list[str]) -> _Place:
        """Follow the words from this place, making what is not there; the place that they lead to."""
        if len(words) > _DEEPEST:
            self.reading.doubt(self.number, "too many words to be read")
            return None, None
        number, length, position = self.number, len(words), 0
        while position < length:
            word = words[position]
            told = grammar.get(word) if grammar is not None else None
            if told is None and word == "create" and grammar is not None:  # of the classic CLI, typed on one line
                position += 1
                continue
            if told is None:  # not modelled: the rest of the line stands below it
                for word in words[position:]:
                    node = _below(node, word, number)
                return node, None
            position += 1
            below = _below(node, word, number)
            keys, follows = told
            if keys:
                key = (
                    words[position] if keys == 1 and position < length else " ".join(words[position : position + keys])
                )
                position += keys
                below = _below(below, key, number)
            if follows is None:
                below.line = number  # set again: of values that exclude each other the last one stays
            else:
                node, grammar = below, follows
        return node, grammar

    def _delete(self, line: str) -> None:
        """`delete` and a path below /configure, as we send it."""
        words = [string if string is not None else word for string, _, _, word in _tokens_of(line)][1:]
        node: Node | None = self.reading.root
        grammar: _Grammar | None = _MD
        if words and words[0] in ("/configure", "configure"):
            words = words[1:]
        path: list[str] = []
        position = 0
        while position < len(words):
            told = grammar.get(words[position]) if grammar is not None else None
            path.append(words[position])
            position += 1
            if told is None:
                grammar = None
                continue
            keys, grammar = told
            if keys and position < len(words):
                path.append(" ".join(words[position : position + keys]))
                position += keys
        node = find(self.reading.root, path[:-1]) if path else None
        if node is not None:
            node.pop(path[-1], None)


def _tokens_of(line: str) -> Iterator[tuple[str | None, str | None, str | None, str]]:
    for token in _TOKEN.finditer(line):
        string, sign, quote, word = token.groups()
        yield string, sign, quote, word or sign or quote or ""


def _below(node: Node, word: str, number: int) -> Node:
    found = node.get(word)
    if found is None:
        found = node[word] = Node()
        found.line = number
    return found


_NUMBERED = frozenset(
    ("sap", "spoke-sdp", "mesh-sdp", "ies", "vprn", "vpls", "epipe", "ipipe", "subscriber-interface", "group-interface")
)


class _Classic(_Reader):
    """Lines with indentation; `exit` closes what the line above it with the same indentation began."""

    def read(self) -> None:
        reading = self.reading
        stack: list[tuple[int, Node | None]] = []  # indentation; no node where the section is not kept
        section, started, ended = "", False, False
        part = "configure" not in reading.lines  # what `info` printed of it
        last: tuple[int, Node | None] | None = None  # the line above, which may begin a block
        for self.number, raw in enumerate(reading.lines, 1):
            line = raw.strip()
            if not line or line[0] == "#" or line.startswith("echo "):
                continue
            indent = len(raw) - len(raw.lstrip())
            if part and not self._aside(line):
                started = ended = True
            elif indent == 0 or not started:
                if self._aside(line):
                    continue
                if line == "exit all":
                    if stack:
                        self._problem("a block without its 'exit'")
                    stack, last, ended = [], None, started
                    continue
                if line == "configure":
                    started, ended, stack, last = True, False, [], None
                    continue
                if indent == 0:
                    self._problem(f"'{line[:60]}' was not understood")
                    reading.strange.add(line.split()[0])
                    continue
            if line == "exit":
                if last is not None and indent == last[0]:
                    last = None  # of a block that holds nothing
                elif stack and indent == stack[-1][0]:
                    stack.pop()
                    last = None
                else:
                    self._problem("an 'exit' that closes nothing")
                continue
            if last is not None and indent > last[0]:
                stack.append((last[0], last[1] if len(stack) < _NESTED else None))
                if len(stack) == _NESTED + 1:
                    reading.doubt(self.number, "too many blocks within each other to be read")
            while stack and indent <= stack[-1][0]:
                self._problem("a block without its 'exit'")
                stack.pop()
            words = _words(line)
            if stack:
                here = stack[-1][1]
            else:
                section = _WITHIN.get(words[0], words[0])
                self._seen(section)
                here = reading.root if section in _KEPT else None
                if section != words[0]:
                    here = _below(reading.root, section, self.number)
            if section == "filter":
                reading.filter_lines += 1
            last = (indent, None if here is None else self._put(here, words, section))
        if stack or (started and not ended):
            self._problem("it ends in the middle of the configuration")

    def _put(self, node: Node, words: list[str], section: str) -> Node:
        """Put the line's words where the MD-CLI has them; the node that a block of the line fills."""
        words = [word for word in words if word != "create"]
        if not words:
            self._problem("it creates nothing")
            return node
        if words[:1] == ["no"] and len(words) > 1:  # what a line above has set is taken back
            holder = find(node, words[1:-1])
            if holder is not None:
                holder.pop(words[-1], None)
        told = len(words)  # how many words name the block; the others stand in it
        if section == "filter" and words[0] in ("ip-filter", "ipv6-filter") and words[2:3] == ["name"]:
            told, words[2] = 2, "filter-name"
        elif words[0] == "match" and section == "filter":
            told = 1
        elif words[0] in _NUMBERED:  # what follows is a kind, a name, a customer
            words, told = words[:2], 2
        elif words == ["router"]:
            words, told = ["router", "Base"], 2
        for word in words[:told]:
            node = _below(node, word, self.number)
        below = node
        for word in words[told:_DEEPEST]:
            below = _below(below, word, self.number)
        return node


def _words(line: str) -> list[str]:
    """The words of a classic line. A string that does not end is one that goes on below, a description."""
    if '"' not in line:
        return line.split()
    return [word if string is None else string for string, _, _, word in _tokens_of(line)]


NOTHING = Node()
NOTHING.line = 0


def find(node: Node, words: Sequence[str]) -> Node | None:
    below: Node | None = node
    for word in words:
        if below is None:
            return None
        below = below.get(word)
    return below


def at(node: Node, *words: str) -> Node:
    """What stands below the words, an empty node where they are not."""
    found = find(node, words)
    return NOTHING if found is None else found


def single(node: Node) -> str:
    """The one value that holds where only one can: the last that was set; "" for none."""
    if len(node) < 2:
        return next(iter(node), "")
    return max(node.items(), key=lambda item: item[1].line)[0]


def inherited(reading: Reading) -> dict[str, str]:
    """What the configuration groups may bring that is not read here: filters, bindings."""
    if not any("apply-groups" in line for line in reading.lines):
        return {}
    groups = at(reading.root, "groups", "group")
    found: dict[str, str] = {}
    for name, group in groups.items():
        words: set[str] = set()
        ahead = [group[section] for section in ("router", "service", "subscriber-mgmt") if section in group]
        while ahead:
            here = ahead.pop()
            words |= here.keys()
            ahead += here.values()
        why = f"what the configuration group '{name[:60]}' brings is not read"
        if "filter" in group:
            found["filter"] = why
        if words & {"filter", "ip-filter", "ipv6-filter"}:
            found["bindings"] = why
    applied = _applied(reading.root)
    missing = next((name for name in applied if name not in groups), None)
    if missing is not None:
        why = f"the configuration group '{missing[:60]}' is not defined"
        return {"filter": why, "bindings": why}
    return found if applied else {}


def _applied(root: Node) -> set[str]:
    """The names of the groups that are applied anywhere."""
    found: set[str] = set()
    ahead = [below for word, below in root.items() if word not in ("groups", "apply-groups")]
    told = [root["apply-groups"]] if "apply-groups" in root else []
    while ahead:
        here = ahead.pop()
        for word, below in here.items():
            (told if word == "apply-groups" else ahead).append(below)
    while told:
        here = told.pop()
        found |= {word for word in here if word not in ("[", "]")}
        told += here.values()
    return found
