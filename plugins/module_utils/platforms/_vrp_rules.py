# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Rules of VRP's access lists: what each matches, and what of that is not certain."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..filters import DENY, PERMIT, UNKNOWN, Entry
from ..packets import (
    ADDRESS_WIDTH,
    LATER_FRAGMENT,
    TCP_FLAGS,
    WITH_PORTS,
    Alternatives,
    address_value,
    exactly,
    flags_any,
    intersection,
    prefix,
    union,
)
from ._cisco_dialect import DSCP, ICMP, ICMP6, PRECEDENCE, TCP, TOS, UDP
from ._cisco_fragments import pieces_of
from ._cisco_lists import compare
from ._vrp_text import Acl, Cut

ANY_GROUP = "*"

_NAMES: Mapping[int, Mapping[str, int | None]] = {
    4: {"ip": None, "icmp": 1, "igmp": 2, "ipinip": 4, "tcp": 6, "udp": 17, "gre": 47, "ospf": 89, "zero": 0,
        "sctp": 132},
    6: {"ipv6": None, "icmpv6": 58, "tcp": 6, "udp": 17, "gre": 47, "ospf": 89, "hoport": 0, "ipv6-routing": 43,
        "ipv6-frag": 44, "ipv6-esp": 50, "ipv6-ah": 51, "ipv6-destination": 60, "sctp": 132},
}  # fmt: skip
_PORTS: Mapping[int, Mapping[str, int]] = {
    TCP: {
        "chargen": 19, "bgp": 179, "cmd": 514, "daytime": 13, "discard": 9, "domain": 53, "echo": 7, "exec": 512,
        "finger": 79, "ftp": 21, "ftp-data": 20, "gopher": 70, "hostname": 101, "irc": 194, "klogin": 543,
        "kshell": 544, "login": 513, "lpd": 515, "nntp": 119, "pop2": 109, "pop3": 110, "smtp": 25, "sunrpc": 111,
        "tacacs": 49, "talk": 517, "telnet": 23, "time": 37, "uucp": 540, "whois": 43, "www": 80,
    },
    UDP: {
        "biff": 512, "bootpc": 68, "bootps": 67, "discard": 9, "dns": 53, "echo": 7, "mobilip-ag": 434,
        "mobilip-mn": 435, "nameserver": 42, "netbios-dgm": 138, "netbios-ns": 137, "netbios-ssn": 139, "ntp": 123,
        "rip": 520, "snmp": 161, "snmptrap": 162, "sunrpc": 111, "syslog": 514, "tacacs-ds": 65, "talk": 517,
        "tftp": 69, "time": 37, "who": 513, "xdmcp": 177,
    },
}  # fmt: skip
_ICMP: Mapping[int, Mapping[str, tuple[int, int]]] = {
    4: {
        "echo": (8, 0), "echo-reply": (0, 0), "fragmentneed-dfset": (3, 4), "host-redirect": (5, 1),
        "host-tos-redirect": (5, 3), "host-unreachable": (3, 1), "information-reply": (16, 0),
        "information-request": (15, 0), "net-redirect": (5, 0), "net-tos-redirect": (5, 2), "net-unreachable": (3, 0),
        "parameter-problem": (12, 0), "port-unreachable": (3, 3), "protocol-unreachable": (3, 2),
        "reassembly-timeout": (11, 1), "source-quench": (4, 0), "source-route-failed": (3, 5),
        "timestamp-reply": (14, 0), "timestamp-request": (13, 0), "ttl-exceeded": (11, 0),
    },
    6: {
        "echo": (128, 0), "echo-request": (128, 0), "echo-reply": (129, 0), "err-header-field": (4, 0),
        "frag-time-exceeded": (3, 1), "hop-limit-exceeded": (3, 0), "host-admin-prohib": (1, 1),
        "host-unreachable": (1, 3), "neighbor-advertisement": (136, 0), "neighbor-solicitation": (135, 0),
        "network-unreachable": (1, 0), "packet-too-big": (2, 0), "port-unreachable": (1, 4), "redirect": (137, 0),
        "router-advertisement": (134, 0), "router-solicitation": (133, 0), "unknown-ipv6-opt": (4, 2),
        "unknown-next-hdr": (4, 1),
    },
}  # fmt: skip
_FIRST: Alternatives = ((1, 0b11),)
_FRAGMENTS: Mapping[str, Alternatives] = {
    "fragment": union(_FIRST, LATER_FRAGMENT), "non-fragment": exactly(0, 2), "non-subseq": ((0, 0b10),),
    "fragment-subseq": LATER_FRAGMENT, "fragment-spe-first": _FIRST,
}  # fmt: skip
_PLAIN_FRAGMENT_DOUBT = "whether 'fragment' is about first fragments too differs between devices"
_FLAGS_DOUBT = "what names of TCP flags say about the other flags is not documented"
_SERVICE_DOUBT = "which sessions have the service group is up to RADIUS"
_NOTHING_SAID = frozenset({"logging", "log", "counting"})
# Conditions that this model has no field for, with the words behind them.
_UNMODELLED = {
    "time-range": 1, "vpn-instance": 1, "vpn-instance-any": 0, "vlan": 1, "inner-vlan": 1, "ttl-expired": 0,
    "cvlan": 1, "flow-label": 1, "traffic-class": 1, "ip-option": 0,
}  # fmt: skip
_NUMERIC = {"ttl": ("ttl", 8), "hop-limit": ("ttl", 8), "packet-length": ("length", 16)}
_OPERATORS = frozenset({"eq", "neq", "gt", "lt", "range"})
_ESTABLISHED = flags_any(("ack", "rst"))
_BITS = {"ack": 16, "fin": 1, "psh": 8, "rst": 4, "syn": 2, "urg": 32}


# What `display acl` says behind a rule.
_COUNTED = re.compile(r" \((?:\d+ match(?:es)?|\d+ times matched|match-counter \d+)\)$")


class _NotUnderstood(Exception):
    """A rule whose action or shape is not known."""


@dataclass(slots=True)
class Variant:
    """One reading of a rule: layers 3 and 4, and why it is not certain, "" when it is."""

    base: dict[str, Alternatives]
    layer4: dict[str, Alternatives]
    doubt: str = ""


@dataclass(slots=True)
class Rule:
    """A rule of a list. The groups are "" where the rule names none, ANY_GROUP for `any` of them."""

    id: int
    line: int
    text: str
    action: str  # PERMIT, DENY or UNKNOWN
    variants: tuple[Variant, ...] = ()
    source_group: str = ""
    destination_group: str = ""

    @property
    def group(self) -> str:
        return self.source_group or self.destination_group


# Of advanced IPv4 lists the documents say what a rule with layer 4 conditions does to later fragments; of others not.
_DOCUMENTED, _NOT_DOCUMENTED = frozenset({4}), frozenset[int]()


@dataclass(slots=True)
class List:
    """A list, read. `auto`: depth first, an order that depends on the device."""

    name: str
    family: int
    kind: str
    line: int
    text: str
    auto: bool
    rules: tuple[Rule, ...]

    def entries(self, denies: bool = False, unsure: str = "", rules: Sequence[Rule] | None = None) -> list[Entry]:
        """The rules as entries. `denies`: what a permit chooses is dropped; `unsure`: why no entry is certain."""
        chosen = self.rules if rules is None else rules
        effects = [DENY if denies and rule.action == PERMIT else rule.action for rule in chosen]
        doubt = unsure
        pairs = list(zip(chosen, effects, strict=True))
        if self.auto and len(set(effects)) > 1:
            # Whatever the order is: a packet that only denies match is denied, one that only permits match permitted.
            doubt = doubt or "match-order auto: which rule comes first is not modelled"
            pairs.sort(key=lambda pair: pair[1] == DENY)
        found: list[Entry] = []
        settled: set[int] = set()
        for rule, effect in pairs:
            why = "" if doubt and not unsure and effect == DENY else doubt
            if rule.action == UNKNOWN:
                found.append(Entry(UNKNOWN, ({},), rule.line, rule.text))
                continue
            documented = self.kind == "advance" and not (denies and rule.action == PERMIT)
            later = _DOCUMENTED if documented else _NOT_DOCUMENTED
            for variant in rule.variants:
                pieces = pieces_of(
                    variant.base, variant.layer4, self.family, effect == PERMIT, why or variant.doubt, settled, later,
                    header_chain=False,
                )  # fmt: skip
                found += [Entry(effect, matches, rule.line, rule.text, "", said) for matches, said in pieces]
        return found


class Rules:
    """Reads lists; pools are those of the text."""

    def __init__(self, cut: Cut) -> None:
        self._cut = cut
        self._ports: dict[str, tuple[Alternatives, str]] = {}

    def read(self, acl: Acl) -> List:
        """The rules in the order of their numbers. A number that comes again merges into the rule that has it."""
        found: dict[int, tuple[list[str], Rule]] = {}
        step, last, ordered = 5, -1, True
        for number, words, text in acl.lines:
            if words[0] == "step" and len(words) == 2 and words[1].isdecimal():
                step = int(words[1][:4]) or 5
                continue
            if words[0] == "undo" and words[1:2] == ["rule"] and len(words) == 3 and words[2].isdecimal():
                found.pop(int(words[2][:12]), None)
                continue
            if words[0] != "rule":
                if words[0] not in ("description", "undo"):
                    last += 1
                    found[last] = [], Rule(last, number, text, UNKNOWN)
                continue
            at = 1
            if len(words) > 1 and words[1].isdecimal() and len(words[1]) < 13:
                own, at = int(words[1]), 2
            else:
                own = (max(last, 0) // step + 1) * step
            if words[at : at + 1] == ["description"]:
                continue
            if words[at : at + 1] == ["name"]:
                at += 2
            body = words[at:]
            if body and body[-1].endswith(")"):
                body = _COUNTED.sub("", " ".join(body)).split()
            if own in found:
                body = self._merged(found[own][0], body, acl)
            found[own] = body, self._rule(own, number, text, body, acl)
            ordered = ordered and own >= last
            last = max(last, own)
        rules = [rule for _, rule in (found.values() if ordered else (found[own] for own in sorted(found)))]
        return List(acl.name, acl.family, acl.kind, acl.line, acl.text, acl.auto, tuple(rules))

    def _merged(self, old: list[str], new: list[str], acl: Acl) -> list[str]:
        """What the new words say takes the place of what the old ones say of the same; the rest of them stays."""
        spans = [_spans(words, acl) for words in (old, new)]
        if not all(spans):
            return [*new, "merged-with-a-rule-that-is-not-understood"]
        merged = spans[0] | spans[1]
        return [word for key in merged for word in merged[key]]

    def _rule(self, own: int, number: int, text: str, words: list[str], acl: Acl) -> Rule:
        if not acl.kind:
            return Rule(own, number, text, UNKNOWN)
        try:
            return _Reading(self, acl, words).rule(own, number, text)
        except (_NotUnderstood, IndexError, ValueError):
            return Rule(own, number, text, UNKNOWN)

    def addresses(self, family: int, name: str) -> tuple[Alternatives | None, str]:
        """The addresses of `acl ip-pool`; with a doubt nothing is known of them."""
        block = self._cut.address_pools.get((family, name))
        if block is None:
            return None, f"the pool {name} is not defined"
        found: list[Alternatives] = []
        for number, words, _ in block.lines:
            if words[0] == "description":
                continue
            try:
                if words[:2] != ["ip" if family == 4 else "ipv6", "address"] or len(words) not in (3, 4):
                    raise ValueError
                found.append(_network(family, words[2], words[3] if len(words) > 3 else ""))
            except ValueError:
                return None, f"line {number} of the pool {name} is not understood"
        return (union(*found), "") if found else (None, f"the pool {name} is empty")

    def ports(self, name: str) -> tuple[Alternatives | None, str]:
        """The ports of `acl port-pool`; with a doubt nothing is known of them."""
        block = self._cut.port_pools.get(name)
        if block is None:
            return None, f"the port pool {name} is not defined"
        found: list[Alternatives] = []
        for number, words, _ in block.lines:
            if words[0] == "description":
                continue
            values = [int(word) for word in words[1:] if word.isdecimal() and len(word) < 6 and int(word) < 65536]
            wanted = 2 if words[0] == "range" else 1
            if words[0] not in _OPERATORS or len(values) != len(words) - 1 or len(values) != wanted:
                return None, f"line {number} of the port pool {name} is not understood"
            found.append(compare(words[0], values, 16))
        return (union(*found), "") if found else (None, f"the port pool {name} is empty")


def _spans(words: list[str], acl: Acl) -> dict[str, list[str]]:
    """The words of a rule by what they are about; {} when they are not understood."""
    reading = _Reading(Rules(Cut()), acl, words)
    try:
        reading.rule(0, 0, "")
    except (_NotUnderstood, IndexError, ValueError):
        return {}
    starts = [*reading.starts, (len(words), "")]
    return {key: words[at:end] for (at, key), (end, _) in itertools.pairwise(starts)}


class _Reading:
    """One rule, word by word."""

    __slots__ = ("acl", "base", "doubt", "either", "groups", "layer4", "protocol", "rules", "starts", "words")

    def __init__(self, rules: Rules, acl: Acl, words: list[str]) -> None:
        self.rules = rules
        self.acl = acl
        self.words = words
        self.starts: list[tuple[int, str]] = []
        self.base: dict[str, Alternatives] = {}
        self.layer4: dict[str, Alternatives] = {}
        self.doubt = ""
        self.groups = {"source": "", "destination": ""}
        self.protocol: int | None = None
        # What a condition perhaps says beside what it certainly says: on layer 3 or 4, the field, its values, why.
        self.either: list[tuple[int, str, Alternatives, str]] = []

    def rule(self, own: int, number: int, text: str) -> Rule:
        words = self.words
        action = {"permit": PERMIT, "deny": DENY}.get(words[0])
        if action is None:
            raise _NotUnderstood
        self.starts.append((0, "action"))
        at = 1
        if self.acl.kind != "basic":
            self.starts.append((1, "protocol"))
            self._protocol(words[1])
            at = 2
        count = len(words)
        while at < count:
            at = self._condition(words[at], at)
        variants = [Variant(self.base, self.layer4, self.doubt)]
        for layer, field, values, why in self.either:
            base = {**self.base, field: values} if layer == 3 else self.base
            layer4 = {**self.layer4, field: values} if layer == 4 else self.layer4
            variants.append(Variant(base, layer4, self.doubt or why))
        return Rule(own, number, text, action, tuple(variants), self.groups["source"], self.groups["destination"])

    def _doubt(self, why: str) -> None:
        self.doubt = self.doubt or why

    def _protocol(self, word: str) -> None:
        names = _NAMES[self.acl.family]
        if word in names:
            self.protocol = names[word]
        elif word.isdecimal() and len(word) < 4 and int(word) < 256:
            self.protocol = int(word)
        else:
            raise _NotUnderstood
        if self.protocol is not None:
            self.base["protocol"] = ((self.protocol, 0xFF),)

    def _condition(self, word: str, at: int) -> int:
        """Take the condition that begins with this word; where the next one begins."""
        self.starts.append((at, word))
        if word in ("source", "destination"):
            return self._end(word, at + 1)
        if word in ("source-port", "destination-port"):
            return self._port(word.replace("-", "_"), at + 1)
        if word in _NOTHING_SAID:
            return at + 1
        if word in ("source-pool", "destination-pool"):
            self._pool(word.partition("-")[0], self.words[at + 1])
            return at + 2
        if word in ("source-port-pool", "destination-port-pool"):
            self._with_ports()
            ports, why = self.rules.ports(self.words[at + 1])
            self._doubt(why)
            self.layer4[f"{word.partition('-')[0]}_port"] = ports or ((0, 0),)
            return at + 2
        if word in ("tcp-flag", "syn-flag"):
            return self._flags(at + 1)
        if word in ("icmp-type", "icmp6-type", "icmpv6-type"):
            return self._icmp(at + 1)
        if word in ("fragment", "none-first-fragment", "first-fragment", "fragment-type"):
            return self._fragment(word, at + 1)
        value = self.words[at + 1] if at + 1 < len(self.words) else ""
        for name, names, shift, bits in (("dscp", DSCP, 2, 6), ("precedence", PRECEDENCE, 5, 3), ("tos", TOS, 1, 4)):
            if word == name:
                number = int(value) if value.isdecimal() and len(value) < 4 else names.get(value, -1)
                if not 0 <= number < 1 << bits:
                    raise _NotUnderstood
                one = ((number << shift, ((1 << bits) - 1) << shift),)
                self.base["tos"] = intersection(self.base.get("tos", ((0, 0),)), one)
                return at + 2
        if word in _NUMERIC and value in _OPERATORS:
            field, bits = _NUMERIC[word]
            numbers, end = self._numbers(value, at + 2, {}, bits)
            if not numbers:
                raise _NotUnderstood
            self.base[field] = compare(value, numbers, bits)
            return end
        taken = _UNMODELLED.get(word, len(self.words))
        if word not in _UNMODELLED and {"permit", "deny"} & set(self.words[at:]):
            raise _NotUnderstood  # two rules in one line
        self._doubt(f"the condition '{' '.join(self.words[at : at + 1 + taken])}' is not modelled")
        return at + 1 + taken

    def _end(self, side: str, at: int) -> int:
        """`source ...` and `destination ...`: an address, a pool, a group of users or services."""
        words, family = self.words, self.acl.family
        word = words[at]
        if side in self.base:
            raise _NotUnderstood  # said twice, so the line is two
        if word == "any":
            return at + 1
        if word in ("user-group", "service-group"):
            if self.acl.kind != "ucl":
                raise _NotUnderstood
            if word == "service-group":
                self._doubt(_SERVICE_DOUBT)
                self.groups[side] = self.groups[side] or ANY_GROUP
            else:
                self.groups[side] = ANY_GROUP if words[at + 1] == "any" else words[at + 1]
            following = words[at + 2] if at + 2 < len(words) else ""
            return self._end(side, at + 2) if following in ("user-group", "service-group") else at + 2
        if word in ("source-pool", "destination-pool", "address-set"):
            self._pool(side, words[at + 1])
            return at + 2
        if word in ("url", "fqdn", "ucl-group"):
            self._doubt(f"the condition '{side} {word}' is not modelled")
            return at + (3 if words[at + 1 : at + 2] == ["name"] else 2)
        if word in ("ip-address", "ipv6-address"):
            at += 1
            word = words[at]
            if word == "any":
                return at + 1
        following = words[at + 1] if at + 1 < len(words) else ""
        taken = 1 if "/" in word or not _is_mask(following, family) else 2
        if taken == 1 and "/" not in word:
            raise _NotUnderstood  # an address has a wildcard or a length behind it; `postfix` is another matter
        self.base[side] = _network(family, word, following if taken == 2 else "")
        return at + taken

    def _pool(self, side: str, name: str) -> None:
        found, why = self.rules.addresses(self.acl.family, name)
        self._doubt(why)
        if found is not None:
            self.base[side] = found

    def _with_ports(self) -> None:
        if self.protocol not in WITH_PORTS:
            raise _NotUnderstood

    def _numbers(self, operator: str, at: int, names: Mapping[str, int], bits: int) -> tuple[list[int], int]:
        wanted = 2 if operator == "range" else 1
        found: list[int] = []
        for word in self.words[at : at + wanted]:
            value = int(word) if word.isdecimal() and word.isascii() and len(word) < 6 else names.get(word, -1)
            if 0 <= value < 1 << bits:
                found.append(value)
        return (found if len(found) == wanted else []), at + wanted

    def _port(self, field: str, at: int) -> int:
        self._with_ports()
        operator = self.words[at]
        if operator not in _OPERATORS or field in self.layer4:
            raise _NotUnderstood
        values, end = self._numbers(operator, at + 1, _PORTS.get(self.protocol or 0, {}), 16)
        if values:
            self.layer4[field] = ((values[0], 0xFFFF),) if operator == "eq" else compare(operator, values, 16)
        else:
            self._doubt(f"the port in '{' '.join(self.words[at - 1 : end])}' is not known")
            self.layer4[field] = ((0, 0),)
        return end

    def _flags(self, at: int) -> int:
        """A number is the value of all six flags, `mask` says of which; of a name only the flag itself is certain."""
        if self.protocol != TCP:
            raise _NotUnderstood
        word = self.words[at]
        if word == "established":
            self.layer4["tcp_flags"] = _ESTABLISHED
            return at + 1
        if word == "bit-match":
            flag = self.words[at + 1]
            if flag == "established":
                self.layer4["tcp_flags"] = _ESTABLISHED
            elif flag in TCP_FLAGS:
                self.layer4["tcp_flags"] = flags_any((flag,))
            else:
                self._doubt(f"the TCP flag {flag} is not modelled")
            return at + 2
        if word.isdecimal():
            value, mask, end = int(word), 0b111111, at + 1
            if self.words[end : end + 1] == ["mask"]:
                mask, end = int(self.words[end + 1]), end + 2
            if value > 255 or mask > 255:
                raise _NotUnderstood
            self.layer4["tcp_flags"] = ((value & mask, mask),)
            return end
        end = at
        while end < len(self.words) and self.words[end] in _BITS:
            end += 1
        names = self.words[at:end]
        if not names:
            raise _NotUnderstood
        value = sum(_BITS[name] for name in set(names))
        self.either.append((4, "tcp_flags", flags_any(tuple(names)), _FLAGS_DOUBT))
        self.layer4["tcp_flags"] = ((value, 0b111111),)
        return end

    def _icmp(self, at: int) -> int:
        family = self.acl.family
        if self.protocol != (ICMP if family == 4 else ICMP6):
            raise _NotUnderstood
        word = self.words[at]
        code: int | None
        if word.isdecimal():
            kind, code, end = int(word), None, at + 1
            if end < len(self.words) and self.words[end].isdecimal():
                code, end = int(self.words[end]), end + 1
        else:
            named = _ICMP[family].get(word.lower())
            if named is None:
                self._doubt(f"the ICMP type {word} is not known")
                return at + 1
            (kind, code), end = named, at + 1
        if kind > 255 or (code or 0) > 255:
            raise _NotUnderstood
        self.layer4["icmp_type"] = exactly(kind, 8)
        if code is not None:
            self.layer4["icmp_code"] = exactly(code, 8)
        return end

    def _fragment(self, word: str, at: int) -> int:
        if word == "fragment-type":
            if self.words[at] not in _FRAGMENTS:
                raise _NotUnderstood
            self.base["fragment"] = _FRAGMENTS[self.words[at]]
            return at + 1
        if word != "fragment":
            self.base["fragment"] = LATER_FRAGMENT if word == "none-first-fragment" else _FIRST
            return at
        self.either.append((3, "fragment", _FIRST, _PLAIN_FRAGMENT_DOUBT))
        self.base["fragment"] = LATER_FRAGMENT
        return at


def _is_mask(word: str, family: int) -> bool:
    """Does what stands behind an address belong to it: a wildcard, 0 for a host, or a length?"""
    if word.isdecimal():
        return len(word) < 4
    return word.count(".") == 3 if family == 4 else ":" in word


@functools.lru_cache(maxsize=65536)
def _network(family: int, address: str, mask: str) -> Alternatives:
    """`A 0` is a host, `A 0.0.0.255` has a wildcard, `A 24` and `A/64` a length. Raises ValueError otherwise."""
    if "/" in address:
        return prefix(address, family)
    bits = ADDRESS_WIDTH[family]
    if not mask or (mask == "0" and family == 4):
        return exactly(address_value(address, family), bits)
    if mask.isdecimal():
        return prefix(f"{address}/{mask}", family)
    full = (1 << bits) - 1
    care = full ^ address_value(mask, family)
    return ((address_value(address, family) & care, care),)


def whole(entry: Entry) -> bool:
    """Does the entry certainly match every packet?"""
    return not entry.doubt and any(not match for match in entry.matches)
