# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What one term of a Junos firewall filter matches and does. The documents that say so: juniper_junos.py."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from ..filters import DENY, JUMP, PERMIT, UNKNOWN, Entry
from ..packets import (
    EXTENSIONS,
    INITIAL,
    LATER_FRAGMENT,
    TCP_FLAGS,
    Alternatives,
    Match,
    complement,
    conjunction,
    exactly,
    intersection,
    span,
    union,
)
from ._junos_tree import ANYWHERE, Node, single
from ._junos_values import (
    ANYTHING,
    EXTENSION_NUMBERS,
    FLAG_NAMES,
    FLAG_SYNONYMS,
    HAS_PORTS,
    ICMP,
    NO_EXTENSION,
    TCP,
    Scope,
    Values,
    bounds_of,
    number_of,
    read_addresses,
    read_values,
    words_of,
)

# A condition that more than one field can meet: what surely meets it, and what may.
_Choice = tuple[tuple[Match, ...], tuple[Match, ...]]


class _Conditions:
    """The `from` of one term, taken together condition by condition.

    `sure` maps a field to its values, `wider` to those it may have where that is more; `choices` must be met besides.
    Sure and possible differ where something was not understood; `unread` then says what.
    """

    __slots__ = ("carriers", "choices", "family", "scope", "sure", "unread", "upper", "upper_choices", "wider")

    def __init__(self, scope: Scope, family: int) -> None:
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

    def take(self, name: str, values: Values) -> None:
        sure, possible = values.sure, values.possible
        if name in self.sure:
            possible = intersection(self.wider.get(name, self.sure[name]), possible)
            sure = intersection(self.sure[name], sure)
        self.sure[name] = sure
        if possible != sure:
            self.wider[name] = possible
        if values.unread:
            self.unread.append(values.unread)

    def take_upper(self, name: str, values: Values, carriers: Alternatives) -> None:
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
        possible_protocols = self.wider.get("protocol", self.sure.get("protocol", ANYTHING))
        inside, outside = _split(possible_protocols, self.carriers)
        choices = [*self.choices, *self.upper_choices, _INITIAL_CHOICE]
        protocol = _split(self.sure.get("protocol", ANYTHING), self.carriers)[0]
        sure = possible = _product({**self.sure, "protocol": protocol}, choices, 0)
        if self.unread:
            possible = _product({**self.sure, **self.wider, "protocol": inside}, choices, 1)
        flags_alone = self.family == 4 and self.upper == _FLAGS_ALONE and not self.upper_choices
        if outside or flags_alone:
            lower = {name: wanted for name, wanted in {**self.sure, **self.wider}.items() if name not in self.upper}
            later = flags_alone and _product({**lower, "protocol": inside}, [*self.choices, _LATER_CHOICE], 1)
            if later:
                possible += later
                self.unread.append("TCP flags are looked for in later fragments too, whose match is not documented")
            if outside:
                possible += _product({**lower, "protocol": outside}, self.choices, 1)
                self.unread.append("where the term does not say the protocol, Junos compares the bytes of any packet")
        return sure, possible, "; ".join(dict.fromkeys(self.unread))


_INITIAL_CHOICE: _Choice = ((INITIAL,), (INITIAL,))
_FLAGS_ALONE = {"tcp_flags"}
_LATER_CHOICE: _Choice = ((), ({"fragment": LATER_FRAGMENT},))


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
    values = read_values(words_of(node), "port", negated)
    if name != "port":
        known.take_upper(name.replace("-", "_"), values, HAS_PORTS)
    elif negated:  # neither of the two
        known.take_upper("source_port", values, HAS_PORTS)
        known.take_upper("destination_port", values, HAS_PORTS)
    else:
        known.carry(HAS_PORTS)
        sure, possible = (
            tuple({end: wanted} for end in ("source_port", "destination_port") if wanted)
            for wanted in (values.sure, values.possible)
        )
        known.upper_choices.append((sure, possible))
        known.unread += [values.unread] if values.unread else []


def _protocol(known: _Conditions, name: str, node: Node, negated: bool) -> None:
    values = read_values(words_of(node), "protocol", negated)
    if known.family == 4 or name == "payload-protocol":
        if known.family == 4 and name in ("next-header", "payload-protocol"):
            known.narrowed(f"'{name}' is no condition of family inet")
        known.take("protocol", values)
        return
    if name != "next-header":
        known.narrowed(f"'{name}' is no condition of family inet6")
    if not values.unread and not _extensions(values.sure):
        known.take("protocol", values)
        known.take("extension", Values(NO_EXTENSION, NO_EXTENSION))
    else:
        known.choose(_next_header(values.sure), _next_header(values.possible), values.unread)


def _next_header(numbers: Alternatives) -> Iterator[Match]:
    """Packets whose first header behind the IPv6 header is one of the numbers."""
    if numbers:
        yield {"protocol": numbers, "extension": NO_EXTENSION}
    if _extensions(numbers):
        yield {"extension": _extensions(numbers)}


def _extensions(numbers: Alternatives) -> Alternatives:
    """The extension headers among these protocol numbers."""
    found = [
        code for number, code in EXTENSION_NUMBERS.items() if any(number & mask == value for value, mask in numbers)
    ]
    return union(*(exactly(code, 3) for code in found))


def _extension_headers(known: _Conditions, name: str, node: Node, negated: bool) -> None:
    """Any header of the chain; the model knows the first one, and that every fragment has its own."""
    if not negated and "any" in node and not any(node.values()):
        known.take("extension", Values(complement(NO_EXTENSION, 3), complement(NO_EXTENSION, 3)))
        return
    values = read_values(words_of(node), "protocol", False)
    first = _extensions(values.sure)
    sure: list[Match] = [{"extension": first}] if first else []
    if any(EXTENSIONS["fragment"] & mask == value for value, mask in first):
        sure += [{"fragment": ((1, 1),)}, {"fragment": LATER_FRAGMENT}]
    possible: list[Match] = [{"extension": complement(NO_EXTENSION, 3)}]
    if negated:
        sure, possible = ([] if values.unread else [{"extension": NO_EXTENSION, "fragment": exactly(0, 2)}]), [{}]
    known.choose(sure, possible, f"'{name}' reaches extension headers behind the first, which are not modelled")


def _icmp(known: _Conditions, name: str, node: Node, negated: bool) -> None:
    values = read_values(words_of(node), f"{name}-{known.family}", negated)
    known.take_upper(name.replace("-", "_"), values, ICMP[known.family])


def _flags(known: _Conditions, name: str, node: Node, negated: bool) -> None:
    if name in FLAG_SYNONYMS:
        flags = FLAG_SYNONYMS[name]
    else:
        words = words_of(node)
        read = _flag_expression(words[0]) if len(words) == 1 and not negated else None
        if read is None:
            known.carry(TCP)
            known.narrowed(f"'{name} {' '.join(words)[:60]}' was not understood")
            return
        flags = read
    known.take_upper("tcp_flags", Values(flags, flags), TCP)


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
        if word in FLAG_SYNONYMS:
            return FLAG_SYNONYMS[word]
        bit = number_of(word.lower(), FLAG_NAMES)
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
        offsets = read_values(words_of(node), name, negated)
        inside, outside = _split_offsets(offsets.sure)
        sure = union(_at_zero(offsets.sure), () if outside else LATER_FRAGMENT)
        possible = union(_at_zero(offsets.possible), LATER_FRAGMENT if inside or offsets.unread else ())
        unread = offsets.unread or ("it looks at where a later fragment lies" if inside and outside else "")
    else:
        words = words_of(node)
        if negated or words not in (("more-fragments",), ("!more-fragments",)):
            known.narrowed(f"'{name} {' '.join(words)[:60]}' was not understood")
            return
        sure = possible = ((1, 1),) if words == ("more-fragments",) else ((0, 1),)
    known.take("fragment", Values(sure, possible, unread))


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
        values = read_values(words_of(node), name, negated)
    else:
        names = known.scope.code_points[known.family]
        bounds = {word: bounds_of(word, names, 6) for word in words_of(node)}
        unread = next((f"'{word[:60]}' is no code point" for word, found in bounds.items() if found is None), "")
        sure = union(*(span(*found, 6) for found in bounds.values() if found))
        values = Values(sure, ANYTHING if unread else sure, unread)
        values = values.without(bits) if negated else values
    shift = 8 - bits
    octets = [tuple((one << shift, mask << shift) for one, mask in some) for some in (values.sure, values.possible)]
    known.take("tos", Values(octets[0], octets[1], values.unread))


def _size(known: _Conditions, name: str, node: Node, negated: bool) -> None:
    known.take("length" if name == "packet-length" else "ttl", read_values(words_of(node), name, negated))


def _ip_options(known: _Conditions, name: str, node: Node, negated: bool) -> None:
    if negated or "any" not in node or any(node.values()):
        known.narrowed(f"'{name}' of a kind is not modelled")
    if not negated:
        known.take("options", Values(exactly(1, 1), exactly(1, 1)))


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
# How the hardware stores ranges; the meaning stays. With ports behind it, it is a condition itself.
_OPTIMIZE = "-range-optimize"
_OPTIMIZED = frozenset(("source-port", "destination-port"))
ADDRESS_KINDS = {
    "source-address": "source", "source-prefix-list": "source", "ip-source-address": "source",
    "destination-address": "destination", "destination-prefix-list": "destination",
    "ip-destination-address": "destination", "address": "either", "prefix-list": "either",
}  # fmt: skip


def _conditions(node: Node, scope: Scope, family: int) -> tuple[tuple[Match, ...], tuple[Match, ...], str]:
    """The `from` of a term: what surely matches, what may match at most, why they differ."""
    known = _Conditions(scope, family)
    addresses: dict[str, list[tuple[str, Node]]] = {}
    for name, below in node.items():
        if name in ADDRESS_KINDS:
            addresses.setdefault(ADDRESS_KINDS[name], []).append((name, below))
        elif name in _VALUED:
            if below and not node.get(name + _OPTIMIZE):
                _VALUED[name](known, name, below, False)
        elif name.endswith("-except") and name[:-7] in _VALUED:
            if below:
                _VALUED[name[:-7]](known, name[:-7], below, True)
            if name[:-7] in node:
                known.narrowed(f"'{name[:-7]}' beside '{name}'")
        elif name in _PRESENT:
            _PRESENT[name](known, name, below, False)
            if below:
                known.narrowed(f"'{next(iter(below))[:60]}' behind '{name}' was not understood")
        elif name.removesuffix(_OPTIMIZE) in _OPTIMIZED:
            plain = name.removesuffix(_OPTIMIZE)
            if below and node.get(plain):
                known.narrowed(f"'{plain}' beside '{name}'")
            elif below:
                _ports(known, plain, below, False)
        elif name not in ANYWHERE:
            known.narrowed(f"'{name[:60]}' is not modelled")
    for end, conditions in addresses.items():
        values = read_addresses(conditions, scope, family)
        if values is None:
            continue
        if end != "either":
            known.take(end, values)
            continue
        sure, possible = (
            [{name: some} for name in ("source", "destination") if some] for some in (values.sure, values.possible)
        )
        unread = values.unread
        if any("except" in word for _, below in conditions for word in below.values()):
            # Sure where the condition holds for both ends; whether one end that is excluded spoils it is not said.
            sure = [{"source": values.sure, "destination": values.sure}] if values.sure else []
            possible = possible or [{}]
            unread = f"'{conditions[0][0]}' with 'except' concerns two addresses at once"
        known.choose(sure, possible, unread)
    return known.matches()


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
_NOT_IN_A_TERM = ANYWHERE | {"from", "then", "filter"}
EVERYTHING: tuple[Match, ...] = ({},)
_NEXT = "next"
_ENDS = _ACCEPTS | _DENIES | {_NEXT}
# Those without a value; the value of the others may be called as an action is.
_BARE = frozenset(
    ("accept", "discard", "force-premium", "log", "no-decrement-ttl", "packet-capture", "packet-mode", "port-mirror",
     "reject", "sample", "service-accounting", "service-accounting-deferred", "service-filter-hit", "syslog")
)  # fmt: skip


def term_entries(name: str, node: Node, filter_name: str, scope: Scope, family: int) -> Iterator[Entry]:
    """The entries of one term: what surely matches, then what may."""
    text = f"filter {filter_name} term {name}"
    if "filter" in node:
        target = single(node["filter"])
        if target is None or target[1] or "from" in node or "then" in node:
            yield Entry(UNKNOWN, EVERYTHING, node.line, text, doubt="a term that refers to a filter holds nothing else")
        else:
            yield Entry(JUMP, EVERYTHING, node.line, text, target=target[0])
        return
    strange = next((word for word in node if word not in _NOT_IN_A_TERM), "")
    if strange:
        yield Entry(UNKNOWN, EVERYTHING, node.line, text, doubt=f"'{strange[:60]}' was not understood in a term")
        return
    action, doubt = _action(node["then"]) if node.get("then") else (PERMIT, "")
    if action == _NEXT:
        return
    conditions = node.get("from")
    if not conditions:
        yield Entry(action, EVERYTHING, node.line, text, doubt=doubt)
        return
    if any(below.rank != node.rank for below in conditions.values()):
        yield Entry(UNKNOWN, EVERYTHING, node.line, text, doubt="own conditions and inherited ones mix in this term")
        return
    sure, possible, unread = _conditions(conditions, scope, family)
    if sure or not unread:
        yield Entry(action, sure, node.line, text, doubt=doubt)
    if unread:
        yield Entry(action, possible, node.line, text, doubt=f"{unread}; {doubt}" if doubt else unread)


def _action(node: Node) -> tuple[str, str]:
    """What a `then` does, and what is in doubt about it."""
    deciding: list[tuple[int, int, str]] = []
    for word, below in reversed(node.items()):
        if word in ANYWHERE:
            continue
        if below:
            values = (below,) if word in _BARE else below.values()
            behind = next((one for value in values for one in value if one in _ENDS), "")
            if behind and (word not in _ACCEPTS or behind not in _ACCEPTS):  # `next-ip A routing-instance B` is one
                return UNKNOWN, f"'{behind}' behind '{word[:60]}' was not understood"
        if word in _MODIFIERS:
            continue
        if word == "next" and not below:
            continue  # what it goes to was deactivated or deleted
        deciding.append((below.rank, -below.line, word))
    if not deciding:
        return PERMIT, ""
    word = min(deciding, key=lambda one: one[:2])[2]  # they exclude each other: the last that was set holds
    if word in _ACCEPTS:
        return PERMIT, ""
    if word in _DENIES:
        return DENY, ""
    if word in _TUNNELS:
        return PERMIT, f"'{word}' changes the packet"
    if word == "next" and "term" in node["next"]:
        return _NEXT, ""
    return UNKNOWN, f"the action '{word[:60]}' was not understood"
