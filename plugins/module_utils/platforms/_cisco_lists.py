# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The access lists and object groups of an industry-standard CLI.

A line of a list that is not understood becomes an entry that is unknown or in doubt, never nothing.
"""

from __future__ import annotations

import difflib
import functools
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from ..filters import DENY, PERMIT, UNKNOWN, Entry, Filter
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
    address_value,
    exactly,
    flags_any,
    intersection,
    prefix,
    span,
    union,
)
from ._cisco_dialect import DSCP, ICMP, ICMP6, PRECEDENCE, TCP, TOS, UDP, Dialect
from ._cisco_fragments import FIRST_OR_WHOLE, Piece, pieces_of
from ._cisco_text import Block, List, inside_an_entry

_SOME_EXTENSION: Alternatives = ((0b001, 0b001), (0b010, 0b010), (0b100, 0b100))
_NOTHING: Alternatives = ()
_BEHIND_DOUBT = "a condition on an extension header, and whether it stands behind another one is not modelled"


class NotUnderstood(Exception):
    """A line whose action or shape is not known."""


_readers: dict[str, Lists] = {}


def reader(dialect: Dialect, groups: Mapping[str, Block]) -> Lists:
    """The platform's last reader where the groups are the same: of the states of a push, most lists are alike."""
    last = _readers.get(dialect.title)
    if last is None or last.groups != groups:
        last = _readers[dialect.title] = Lists(dialect, groups)
    return last


class Lists:
    """Reads groups and list lines, each spelling of an address, a port and a protocol once."""

    def __init__(self, dialect: Dialect, groups: Mapping[str, Block]) -> None:
        self.dialect = dialect
        self.groups = groups
        self._pieces = functools.partial(
            pieces_of, later_fragments=dialect.later_fragments, header_chain=dialect.header_chain
        )
        self._addresses: dict[tuple[int, str, str], tuple[Alternatives | None, int]] = {}
        self._protocols: dict[tuple[int, str], int | None] = {}
        self._port_groups: dict[str, tuple[Alternatives, str]] = {}
        self._depth = 0
        self._kept: dict[tuple[object, ...], Filter] = {}  # the lists of the text before this one
        self._networks: dict[str, tuple[Alternatives, str]] = {}
        self._services: dict[str, tuple[tuple[dict[str, Alternatives], ...], str]] = {}

    def read(self, lists: Iterable[List]) -> dict[tuple[int, str], Filter]:
        found: dict[tuple[int, str], Filter] = {}
        kept: dict[tuple[object, ...], Filter] = {}
        for one in lists:
            key = (one.family, one.name, one.standard, one.line, one.text, tuple(one.lines))
            found[one.family, one.name] = kept[key] = self._kept.get(key) or self._filter(one)
        self._kept = kept
        return found

    def _filter(self, chosen: List) -> Filter:
        entries: list[Entry] = []
        order: list[int] = []
        sequence, ordered, seen = 0, True, set()
        settled: set[int] = set()
        wide: list[tuple[int, list[str], str]] = []  # the last line of each kind about the whole list
        ignored = self.dialect.ignored
        for number, raw, skip in chosen.lines:
            words = raw.split()
            if skip:
                words = words[skip:]
            if not words or words[0][0] == "!":
                continue
            if "!" in raw and words[0] != "remark":  # no word of an entry begins so: a person's comment
                words = list(itertools.takewhile(lambda word: word[0] != "!", words))
            text = raw.strip()
            own = 0
            if words[0].isdecimal() and len(words[0]) < 20:
                own, words = int(words[0]), words[1:]
            elif words[0] in ("sequence", "seq") and len(words) > 2 and words[1].isdecimal():
                own, words = int(words[1]), words[2:]
            elif words[-2:-1] == ["sequence"] and words[-1].isdecimal():
                own, words = int(words[-1]), words[:-2]
            action = words[0] if words else ""  # a number alone is no entry: it is unknown
            if action == "remark" or action in ignored:
                if not own and action == "remark" and self.dialect.numbered_remarks:
                    own = sequence + 10
                sequence = max(sequence, own)
                continue
            if action in self.dialect.list_wide:
                wide = [one for one in wide if one[1][0] != action] + [(number, words, text)]
                continue
            if action == "no" or action == "default":
                said = words[1:2]
                wide = [one for one in wide if one[1][:1] != said]
                kept = _without(entries, order, words[1:])
                of_entries = not (said and (said[0] in self.dialect.list_wide | ignored or said[0] == "remark"))
                if len(kept) == len(entries) and of_entries:  # it may be one of them, in other words
                    doubt = f"'{text[:60]}' may have removed it"
                    entries = [replace(entry, doubt=entry.doubt or doubt) for entry in entries]
                entries, order = [entries[index] for index in kept], [order[index] for index in kept]
                continue
            if action == "exit":
                break
            if own:
                ordered = ordered and own > sequence
            else:
                own = sequence + 10
            sequence = max(sequence, own)
            repeated = own in seen
            seen.add(own)
            try:
                if action == "permit" or action == "deny":
                    pieces = self._entry(words, chosen, settled)
                elif action == "evaluate":
                    action, pieces = PERMIT, [(({},), "reflexive entries depend on the traffic")]
                elif action == "dynamic" and len(words) > 3:
                    start = next(index for index, word in enumerate(words) if word in ("permit", "deny"))
                    action = words[start]
                    pieces = self._entry(words[start:], chosen, settled)
                    pieces = [(matches, doubt or "a dynamic entry depends on a login") for matches, doubt in pieces]
                else:
                    raise NotUnderstood
            except (NotUnderstood, IndexError, ValueError, StopIteration):
                action, pieces = UNKNOWN, [(({},), "")]
                at = len(entries) - 1
                while at >= 0 and entries[at].line == number - 1 and inside_an_entry(raw):
                    entries[at] = replace(entries[at], doubt=entries[at].doubt or f"it may go on in line {number}")
                    at -= 1
            if repeated:
                pieces = [(matches, doubt or "the sequence number is used twice") for matches, doubt in pieces]
            for matches, doubt in pieces:
                entries.append(Entry(action, matches, number, text, "", doubt))
                order.append(own)
        if not ordered:
            entries = [entries[index] for index in sorted(range(len(entries)), key=order.__getitem__)]
        default = DENY
        if not entries:  # what a list of remarks alone does is not documented
            default = UNKNOWN if chosen.lines else self.dialect.empty
        elif chosen.family == 6:
            entries += self._neighbour_discovery(chosen)
        for number, words, text in wide:
            above, below = _about_the_list(number, words, text)
            entries = [*above, *entries, *below] if entries else [*above]
        return Filter(chosen.name, chosen.family, tuple(entries), default, chosen.line, chosen.text)

    def _neighbour_discovery(self, chosen: List) -> list[Entry]:
        return [
            Entry(
                PERMIT, ({"protocol": exactly(ICMP6, 8), "icmp_type": exactly(kind, 8), **INITIAL},), chosen.line,
                f"{chosen.text}: implicit permit icmp any any {name}", "", self.dialect.neighbour_discovery_doubt,
            )
            for kind, name in self.dialect.neighbour_discovery
        ]  # fmt: skip

    def _entry(self, words: list[str], chosen: List, settled: set[int]) -> list[Piece]:
        """The pieces of `permit ...` or `deny ...`. Raises NotUnderstood, IndexError or ValueError otherwise."""
        family, permit, at = chosen.family, words[0] == "permit", 1
        base: dict[str, Alternatives] = {}
        doubts: list[str] = []
        if chosen.standard or (self.dialect.standard_lines and _begins_address(words[1])):
            source, at = self._address(family, words, at, doubts)
            if source is not None:
                base["source"] = source
            self._options(words, at, None, family, base, {}, doubts)
            return [((base,), doubts[0] if doubts else "")]
        layer4: dict[str, Alternatives] = {}
        services: tuple[dict[str, Alternatives], ...] | None = None
        protocol: int | None = None
        if words[at] == "vlan":
            doubts.append("the condition on a VLAN is not modelled")
            at += 4 if words[at + 1] == "inner" else 3
        if words[at] == "object-group":
            services, doubt = self._service(words[at + 1])
            at += 2
            if doubt:
                doubts.append(doubt)
        else:
            key = family, words[at]
            protocol = self._protocols[key] if key in self._protocols else self._protocol(*key)
            at += 1
            if protocol == 0 and family == 4 and key[1].isdecimal():
                doubts.append("whether protocol 0 is every protocol is not documented")
            elif protocol is not None:
                base["protocol"] = ((protocol, 0xFF),)
        source, at = self._address(family, words, at, doubts)
        if source is not None:
            base["source"] = source
        count = len(words)
        if at < count and words[at] in _PORT_WORDS:
            layer4["source_port"], at = self._port(protocol, words, at, doubts)
        destination, at = self._address(family, words, at, doubts)
        if destination is not None:
            base["destination"] = destination
        if at < count:
            if words[at] in _PORT_WORDS:
                layer4["destination_port"], at = self._port(protocol, words, at, doubts)
            if at < count:
                self._options(words, at, protocol, family, base, layer4, doubts)
        sure: list[Piece] = []
        if _BEHIND_DOUBT in doubts:  # the condition holds where that header comes first, perhaps where another does
            sure = self._pieces(base, layer4, family, permit, "", settled) if doubts == [_BEHIND_DOUBT] else []
            base = {**base, "extension": _SOME_EXTENSION}
        doubt = doubts[0] if doubts else ""
        if services is None and family == 4 and not layer4:
            return [((base,), doubt)]
        if services is None:
            return sure + self._pieces(base, layer4, family, permit, doubt, settled)
        pieces: list[Piece] = []
        for service in services:
            inner = {**base, **{name: service[name] for name in service if name == "protocol"}}
            upper = {**layer4, **{name: service[name] for name in service if name != "protocol"}}
            pieces += self._pieces(inner, upper, family, permit, doubt, settled)
        certain = tuple(match for matches, why in pieces for match in matches if not why)
        return ([(certain, "")] if certain else []) + [piece for piece in pieces if piece[1]]

    def _protocol(self, family: int, word: str) -> int | None:
        """The number, None for any. Raises NotUnderstood."""
        if word in (("ip", "ipv4") if family == 4 else ("ipv6",)):
            found = None
        elif word.isdecimal() and int(word) < 256:
            found = int(word)
        elif word == "icmp":
            found = ICMP if family == 4 else ICMP6
        else:
            number = self.dialect.protocols.get(word, PROTOCOLS.get(word))
            if number is None:
                raise NotUnderstood
            found = number
        self._protocols[family, word] = found
        return found

    def _address(self, family: int, words: list[str], at: int, doubts: list[str]) -> tuple[Alternatives | None, int]:
        """The alternatives (None: any) of the address that begins at `at`, and where it ends."""
        word = words[at]
        if word == "any":
            return None, at + 1
        key = family, word, words[at + 1] if at + 1 < len(words) else ""
        if key not in self._addresses:
            if word in _NETWORK_GROUP:
                group = f"network ipv{family} {key[2]}" if self.dialect.groups_by_kind else key[2]
                network, doubt = self._network(group)
                block = self.groups.get(group)
                if not doubt and block is not None and _group_family(block) != family:
                    doubt = f"object group {key[2]} holds addresses of the other family"
                    network = _NOTHING
                if doubt:
                    doubts.append(doubt)
                    return network or None, at + 2
                found: tuple[Alternatives, int] = network, 2
            elif word == "host" and _HOST_NAME.fullmatch(key[2]):  # whose address changes, or is in no document here
                taken = 3 if key[2] == "dynamic" else 2
                doubts.append(f"the address of '{words[at + taken - 1]}' is not known")
                return None, at + taken
            else:
                found = _one_address(*key)
            self._addresses[key] = found
        alternatives, taken = self._addresses[key]
        return alternatives, at + taken

    def _port(self, protocol: int | None, words: list[str], at: int, doubts: list[str]) -> tuple[Alternatives, int]:
        """The ports of `eq 25`, `range 137 139`, ... and where that ends. Every port, in doubt, for an unknown name."""
        operator = words[at]
        names = self.dialect.ports.get(protocol or 0, {})
        if protocol is not None and protocol not in WITH_PORTS:
            raise NotUnderstood
        if operator in _PORT_GROUP:
            ports, doubt = self._port_group(f"port {words[at + 1]}" if self.dialect.groups_by_kind else words[at + 1])
            if doubt:
                doubts.append(doubt)
            return ports, at + 2
        if operator == "eq" and (at + 2 >= len(words) or words[at + 2] in _AFTER_PORT):
            value = _number(words[at + 1], names, 16)
            if value is not None:
                return ((value, 0xFFFF),), at + 2
        values: list[int] = []
        end = at + 1
        while end < len(words) and (value := _number(words[end], names, 16)) is not None:
            values.append(value)
            end += 1
            if operator not in ("eq", "neq") and len(values) == (2 if operator == "range" else 1):
                break
        # A word that is nothing else may be one more port, of a name that is not known.
        more = operator == "eq" and end < len(words) and not _ends_ports(words[end])
        if not values or more or (operator == "range" and len(values) == 1):
            doubts.append(f"the port in '{' '.join(words[at : end + 1])}' is not known")
            return ((0, 0),), end + 1
        return compare(operator, values, 16), end

    def _options(
        self, words: list[str], at: int, protocol: int | None, family: int, base: dict[str, Alternatives],
        layer4: dict[str, Alternatives], doubts: list[str],
    ) -> None:  # fmt: skip
        """What stands behind addresses and ports, into `base` and `layer4`; what the model lacks is a doubt."""
        count, icmp_names = len(words), self.dialect.icmp_names[family]
        while at < count:
            word = words[at]
            at += 1
            if word == "log" or word == "log-input":
                if at == count - 1 and not _like_an_option(words[at]):
                    at += 1  # the cookie
            elif word == "established" and protocol == TCP:
                self._flags(layer4, ("ack", "rst"), doubts)
            elif word in TCP_FLAGS and protocol == TCP:
                names = [word]
                while at < count and words[at] in TCP_FLAGS:
                    names.append(words[at])
                    at += 1
                # Cisco, "ACL TCP Flags Filtering": listed one by one, any of them is enough.
                self._flags(layer4, tuple(names), doubts)
                if len(names) > 1 and self.dialect.several_flags:
                    doubts.append(self.dialect.several_flags)
            elif word == "tcp-flags-mask" and protocol == TCP:
                layer4["tcp_flags"] = ((0, 0),)
                doubts.append("the condition 'tcp-flags-mask' is not modelled")
                at += 1
            elif word in ("match-any", "match-all") and protocol == TCP:
                flags: list[tuple[int, int]] = []
                while at < count and words[at][:1] in "+-" and words[at][1:] in TCP_FLAGS:
                    bit = TCP_FLAGS[words[at][1:]]
                    flags.append((bit if words[at][0] == "+" else 0, bit))
                    at += 1
                if word == "match-any":
                    _narrow(layer4, "tcp_flags", tuple(flags))
                for one in flags if word == "match-all" else ():
                    _narrow(layer4, "tcp_flags", (one,))
            elif word == "fragments" or word == "fragment":
                _narrow(base, "fragment", LATER_FRAGMENT)
            elif word == "fragment-type" and at < count and words[at] in _FRAGMENT_TYPES:
                _narrow(base, "fragment", _FRAGMENT_TYPES[words[at]])
                at += 1
            elif self.dialect.actions and (said := self.dialect.actions.match(" ".join(words[at - 1 :]))):
                at += len(said[0].split()) - 1
                if "nexthop" in said[0] and words[0] == "deny":
                    doubts.append("a line that denies takes no next hop")
            elif word in _BITS_OF_TOS and at + 1 < count and words[at] in _OPERATORS:
                meanings, bits, low = _BITS_OF_TOS[word]
                end = at + (3 if words[at] == "range" else 2)
                told = [_number(one, meanings, bits) for one in words[at + 1 : end]]
                values = [one for one in told if one is not None]
                if len(values) != end - at - 1:
                    raise NotUnderstood
                shifted = tuple((value << low, mask << low) for value, mask in compare(words[at], values, bits))
                _narrow(base, "tos", shifted)
                at = end
            elif word == "undetermined-transport":
                base["undetermined"] = ((1, 1),)
                _narrow(base, "fragment", FIRST_OR_WHOLE)
            elif word == "dscp" and at < count and (value := _number(words[at], DSCP, 6)) is not None:
                _narrow(base, "tos", ((value << 2, 0xFC),))
                at += 1
            elif word == "precedence" and at < count and (value := _number(words[at], PRECEDENCE, 3)) is not None:
                _narrow(base, "tos", ((value << 5, 0xE0),))
                at += 1
            elif word == "tos" and at < count and (value := _number(words[at], TOS, 4)) is not None:
                _narrow(base, "tos", ((value << 1, 0x1E),))
                at += 1
            elif word in _NUMERIC and at + 1 < count and words[at] in _OPERATORS:
                name, bits = _NUMERIC[word]
                end = at + (3 if words[at] == "range" else 2)
                values = [int(one) for one in words[at + 1 : end]]
                if len(values) != end - at - 1:
                    raise NotUnderstood
                _narrow(base, name, compare(words[at], values, bits))
                if name == "length":
                    _narrow(base, name, span(*self.dialect.lengths, bits))
                at = end
            elif word == "ttl" and at < count and (value := _number(words[at], {}, 8)) is not None:
                _narrow(base, "ttl", exactly(value, 8))
                at += 1
            elif word == "option" and at < count:
                base["options"] = ((1, 1),)
                if words[at] != "any-options":
                    doubts.append(f"the condition 'option {words[at]}' is not modelled")
                at += 1
            elif word in ("hbh", "hop-by-hop"):  # only ever the first header (RFC 8200, 4.1)
                _narrow(base, "extension", exactly(EXTENSIONS["hop-by-hop"], 3))
            elif word in _EXTENSION_WORDS:
                _narrow(base, "extension", exactly(EXTENSIONS[_EXTENSION_WORDS[word]], 3))
                doubts.append(_BEHIND_DOUBT)
            elif word.removesuffix("-type") in _EXTENSION_WORDS:
                _narrow(base, "extension", _SOME_EXTENSION)
                doubts.append(f"the condition '{word}' is not modelled")
                at += 1
            elif word in ("reflect", "timeout"):  # also creates entries for `evaluate`; what it permits is the same
                at += 1
            elif protocol in (ICMP, ICMP6) and "icmp_type" not in layer4 and (word.isdecimal() or word in icmp_names):
                if word.isdecimal():
                    kind, code = int(word), None
                    if at < count and words[at].isdecimal():
                        code = int(words[at])
                        at += 1
                else:
                    kind, code = icmp_names[word]
                if kind > 255 or (code or 0) > 255:
                    raise NotUnderstood
                layer4["icmp_type"] = exactly(kind, 8)
                if code is not None:
                    layer4["icmp_code"] = exactly(code, 8)
            elif word in _PORT_WORDS or _begins_address(word):  # one too many: which are meant is not known
                raise NotUnderstood
            else:
                end = at + 1 if word in _ONE_ARGUMENT else count  # how far a word reaches that is not known
                doubts.append(f"the condition '{' '.join(words[at - 1 : end])}' is not modelled")
                at = end

    def _flags(self, layer4: dict[str, Alternatives], names: tuple[str, ...], doubts: list[str]) -> None:
        """Any of these flags; beside others, where it is not documented what that means, any of both."""
        if self.dialect.several_flags and "tcp_flags" in layer4:
            layer4["tcp_flags"] = union(layer4["tcp_flags"], flags_any(names))
            doubts.append(self.dialect.several_flags)
        else:
            _narrow(layer4, "tcp_flags", flags_any(names))

    def _network(self, name: str) -> tuple[Alternatives, str]:
        """The addresses of a group. With a doubt the alternatives are empty: nothing is known of it."""
        if name not in self._networks:
            if self._depth == _DEEPEST:
                return _NOTHING, f"object group {name} is nested too deep"
            self._networks[name] = _NOTHING, f"object group {name} contains itself"
            self._depth += 1
            self._networks[name] = self._read_network(name)
            self._depth -= 1
        return self._networks[name]

    def _read_network(self, name: str) -> tuple[Alternatives, str]:
        block = self.groups.get(name)
        if block is None:
            return _NOTHING, f"object group {name} is not defined"
        family = _group_family(block)
        found: list[Alternatives] = []
        for number, raw in block.lines:
            words = raw.split()
            if not words or words[0][0] == "!" or words[0] == "description":
                continue
            if words[0].isdecimal():  # a sequence number
                words = words[1:]
            try:
                if words[0] == "group-object" or (words[0] == "object-group" and self.dialect.groups_by_kind):
                    inner, doubt = self._network(" ".join([*name.split()[:-1], words[1]]))
                    if doubt:
                        return _NOTHING, doubt
                    found.append(inner)
                else:
                    member = words[1:] if words[0] == "network-object" else words
                    if self.dialect.group_wildcards and len(member) == 2 and member[0] != "host":
                        found.append(_one_address(family, *member)[0])
                    else:
                        found.append(_member(member, family))
            except (NotUnderstood, IndexError, ValueError):
                return _NOTHING, f"line {number} of object group {name} is not understood"
        if not found:
            return _NOTHING, f"object group {name} is empty"
        return union(*found), ""

    def _port_group(self, name: str) -> tuple[Alternatives, str]:
        """The ports of a group. With a doubt it is any port."""
        if name not in self._port_groups:
            if self._depth == _DEEPEST:
                return ((0, 0),), f"object group {name} is nested too deep"
            self._port_groups[name] = ((0, 0),), f"object group {name} contains itself"
            self._depth += 1
            self._port_groups[name] = self._read_port_group(name)
            self._depth -= 1
        return self._port_groups[name]

    def _read_port_group(self, name: str) -> tuple[Alternatives, str]:
        block = self.groups.get(name)
        if block is None:
            return ((0, 0),), f"object group {name} is not defined"
        names = {**self.dialect.ports[UDP], **self.dialect.ports[TCP]}
        found: list[Alternatives] = []
        for number, raw in block.lines:
            words = raw.split()
            if words[0][0] == "!" or words[0] == "description":
                continue
            operator, *said = words[1:] if words[0].isdecimal() and len(words) > 1 else words  # a sequence number
            if operator == "object-group" and len(said) == 1 and self.dialect.groups_by_kind:
                inner, doubt = self._port_group(f"port {said[0]}")
                if doubt:
                    return inner, doubt
                found.append(inner)
                continue
            values = [value for word in said if (value := _number(word, names, 16)) is not None]
            wanted = 2 if operator == "range" else 1
            if operator not in _OPERATORS or len(said) != wanted or len(values) != wanted:
                return ((0, 0),), f"line {number} of object group {name} is not understood"
            found.append(compare(operator, values, 16))
        if not found:
            return ((0, 0),), f"object group {name} is empty"
        return union(*found), ""

    def _service(self, name: str) -> tuple[tuple[dict[str, Alternatives], ...], str]:
        """The protocols and ports of a group. With a doubt it is any protocol."""
        if name not in self._services:
            if self._depth == _DEEPEST:
                return ({},), f"object group {name} is nested too deep"
            self._services[name] = ({},), f"object group {name} contains itself"
            self._depth += 1
            self._services[name] = self._read_service(name)
            self._depth -= 1
        return self._services[name]

    def _read_service(self, name: str) -> tuple[tuple[dict[str, Alternatives], ...], str]:
        block = self.groups.get(name)
        if block is None:
            return ({},), f"object group {name} is not defined"
        family = _group_family(block)
        found: list[dict[str, Alternatives]] = []
        for number, raw in block.lines:
            words = raw.split()
            if not words or words[0][0] == "!" or words[0] == "description":
                continue
            if words[0] == "protocol-object":
                words = words[1:]
            try:
                if words[0] == "group-object":
                    inner, doubt = self._service(words[1])
                    if doubt:
                        return ({},), doubt
                    found += inner
                    continue
                numbers = [TCP, UDP] if words[0] == "tcp-udp" else [self._protocol(family, words[0])]
                for protocol in numbers:
                    found.append(self._service_member(words, protocol, family))
            except (NotUnderstood, IndexError, ValueError):
                return ({},), f"line {number} of object group {name} is not understood"
        if not found:
            return ({},), f"object group {name} is empty"
        return tuple(found), ""

    def _service_member(self, words: list[str], protocol: int | None, family: int) -> dict[str, Alternatives]:
        one: dict[str, Alternatives] = {} if protocol is None else {"protocol": exactly(protocol, 8)}
        doubts: list[str] = []
        if protocol in (TCP, UDP):
            at, side = 1, "destination_port"
            while at < len(words):
                if words[at] in ("source", "destination"):
                    side, at = f"{words[at]}_port", at + 1
                if words[at] not in _OPERATORS:
                    words = [*words[:at], "eq", *words[at:]]
                one[side], at = self._port(protocol, words, at, doubts)
                side = "destination_port"
        else:
            upper: dict[str, Alternatives] = {}
            self._options(words, 1, protocol, family, one, upper, doubts)
            one |= upper
        if doubts:
            raise NotUnderstood
        return one


_DEEPEST = 64  # groups within groups
_OPERATORS = frozenset({"eq", "neq", "gt", "lt", "range"})
# What stands in front of a group's name, in the words of IOS, of its 12.2SX and of IOS XR.
_NETWORK_GROUP = frozenset({"object-group", "addrgroup", "net-group"})
_PORT_GROUP = frozenset({"portgroup", "port-group"})
_HOST_NAME = re.compile(r"(?!(?:any|host)$)[A-Za-z](?:[A-Za-z0-9.-]*[A-Za-z0-9])?")
_PORT_WORDS = _OPERATORS | _PORT_GROUP
_AFTER_PORT = frozenset({"any", "host", "established", "log", "log-input", "object-group"})
# Conditions that this model has no field for, with one word behind them.
_ONE_ARGUMENT = frozenset({"time-range", "flow-label", "nexthop-group", "ecn", "cos", "vlan"})
_NUMERIC = {"ttl": ("ttl", 8), "hop-limit": ("ttl", 8), "packet-length": ("length", 16), "length": ("length", 16)}
# Conditions on an IPv6 extension header that may stand behind another one.
_EXTENSION_WORDS = {
    "routing": "routing", "dest-option": "destination-options", "destopts": "destination-options",
    "mobility": "mobility",
}  # fmt: skip
# Fragments by the bits of their header: first, last, any (Cisco, IOS XR, "fragment-type").
_FRAGMENT_TYPES: Mapping[str, Alternatives] = {
    "first-fragment": ((0b01, 0b11),), "last-fragment": ((0b10, 0b11),), "is-fragment": ((0b01, 0b01), (0b10, 0b10)),
}  # fmt: skip
_BITS_OF_TOS: Mapping[str, tuple[Mapping[str, int], int, int]] = {
    "dscp": (DSCP, 6, 2),
    "precedence": (PRECEDENCE, 3, 5),
}
_OPTION_WORDS = _ONE_ARGUMENT | frozenset(_NUMERIC) | frozenset(TCP_FLAGS) | {
    "established", "fragments", "dscp", "precedence", "tos", "option", "reflect", "routing", "dest-option", "mobility",
    "hbh", "match-any", "match-all", "undetermined-transport", "auth", "tracked", "hop-by-hop", "destopts", "authen",
    "capture", "counter", "police", "nexthop", "nexthop1", "default", "icmp-off", "icmp-on", "set", "fragment-type",
    "fragment-offset", "udf", "priority", "redirect", "nve", "http-method", "tcp-option-length", "tcp-flags-mask",
    "set-erspan-dscp", "set-erspan-gre-proto", "load-share", "payload",
}  # fmt: skip


@functools.lru_cache(maxsize=1024)
def _like_an_option(word: str) -> bool:
    """Is it an option, or one that is garbled?"""
    return bool(difflib.get_close_matches(word.lower(), _OPTION_WORDS, n=1, cutoff=0.8))


_AFTER_PORTS = _AFTER_PORT | _OPTION_WORDS | _NETWORK_GROUP | _PORT_WORDS | {"source", "destination"}


def _ends_ports(word: str) -> bool:
    """Does an address, a condition, the other side's ports or a counter, `(9 matches)`, begin with this word?"""
    return word in _AFTER_PORTS or word[0] == "(" or not {".", ":", "/"}.isdisjoint(word)


def _begins_address(word: str) -> bool:
    """`any`, `host`, `net-group` or an address, where a protocol stands otherwise."""
    return word in ("any", "host") or word in _NETWORK_GROUP or not {".", ":", "/"}.isdisjoint(word)


def _number(word: str, names: Mapping[str, int], bits: int) -> int | None:
    if word.isdecimal() and word.isascii() and len(word) < 6:
        value = int(word)
        return value if value < 1 << bits else None
    return names.get(word)


def compare(operator: str, values: Sequence[int], bits: int) -> Alternatives:
    """`eq 80 443`, `neq 25`, `gt 1023`, `lt 5`, `range 137 139` as alternatives."""
    full = (1 << bits) - 1
    first, last = values[0], values[-1]
    if operator == "eq":
        return union(*(exactly(value, bits) for value in values))
    if operator == "gt":
        return span(first + 1, full, bits)
    if operator == "lt":
        return span(0, first - 1, bits)
    if operator == "range":
        return span(min(first, last), max(first, last), bits)
    edges = [-1, *sorted(set(values)), full + 1]
    return union(*(span(low + 1, high - 1, bits) for low, high in itertools.pairwise(edges)))


def _narrow(fields: dict[str, Alternatives], name: str, alternatives: Alternatives) -> None:
    fields[name] = intersection(fields[name], alternatives) if name in fields else alternatives


def _one_address(family: int, word: str, following: str) -> tuple[Alternatives, int]:
    """`host A`, `A/24`, `A WILDCARD` or a bare `A`, and how many words it takes. Raises ValueError otherwise."""
    if word == "host":
        return exactly(address_value(following, family), ADDRESS_WIDTH[family]), 2
    if "/" in word:
        return prefix(word, family), 1
    value, full = address_value(word, family), (1 << ADDRESS_WIDTH[family]) - 1
    if following.count("." if family == 4 else ":") >= (3 if family == 4 else 2) and "/" not in following:
        mask = full & ~address_value(following, family)
        return ((value & mask, mask),), 2
    return ((value, full),), 1


def _member(words: list[str], family: int) -> Alternatives:
    """A line of a network group: `host A`, `A/24`, `A /24`, `A NETMASK`, `range A B`, `any`."""
    bits = ADDRESS_WIDTH[family]
    if words[0] == "any":
        return ((0, 0),)
    if words[0] == "host" and len(words) == 2:
        return exactly(address_value(words[1], family), bits)
    if words[0] == "range" and len(words) == 3:
        return span(address_value(words[1], family), address_value(words[2], family), bits)
    if len(words) == 1 or (len(words) == 2 and words[1][0] == "/"):
        return prefix("".join(words), family)
    if len(words) == 2:
        value, mask = address_value(words[0], family), address_value(words[1], family)
        if netmask_length(mask, bits) is not None:
            return ((value & mask, mask),)
    raise NotUnderstood


def _group_family(block: Block) -> int:
    """Of the words between `object-group` and the name: `network`, `v6-network`, `network ipv6`, `ipv6 address`."""
    return 6 if any("v6" in word for word in block.words[1:-1]) else 4


def netmask_length(mask: int, bits: int) -> int | None:
    """The prefix length of a contiguous netmask."""
    length = mask.bit_count()
    return length if mask == ((1 << length) - 1) << (bits - length) else None


def _about_the_list(number: int, words: list[str], text: str) -> tuple[list[Entry], list[Entry]]:
    """What `fragments permit-all` and its like put in front of the entries and behind them.

    It is documented for fragments that no entry matches; whether it comes before entries too is not.
    """
    action = {"permit-all": PERMIT, "deny-all": DENY}.get(words[1] if len(words) == 2 else "", UNKNOWN)
    matches: Match = {}
    if action != UNKNOWN and words[0] == "fragments":
        matches = {"fragment": LATER_FRAGMENT}
    elif action != UNKNOWN and words[0] == "extension-header":
        matches = {"extension": _SOME_EXTENSION}
    doubt = f"what '{' '.join(words)}' does to packets that a line matches is not documented"
    above = [Entry(PERMIT if action == UNKNOWN else action, (matches,), number, text, "", doubt)]
    return above, [Entry(action, (matches,), number, text)] if "fragment" in matches else []


def _without(entries: Sequence[Entry], order: Sequence[int], words: list[str]) -> list[int]:
    """What stays of the entries after `no 20` or `no permit ...`: their indexes."""
    if len(words) == 1 and words[0].isdecimal() and len(words[0]) < 20:
        return [index for index, own in enumerate(order) if own != int(words[0])]
    gone = words[1:] if words[:1] and words[0].isdecimal() else words
    return [index for index, entry in enumerate(entries) if entry.text.split()[-len(gone) :] != gone]
