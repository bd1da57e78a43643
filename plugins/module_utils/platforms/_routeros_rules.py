# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Firewall rules of RouterOS as the tests and verdicts that linux_nftables compiles. Sources: mikrotik_routeros.py."""

from __future__ import annotations

import functools
import ipaddress
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from .. import packets
from ..filters import DENY, JUMP, PERMIT, RETURN, UNKNOWN
from ._nftables_parts import Flow, Narrow, Part, Rewrite, Selector, Test, Value, Verdict
from ._nftables_selectors import EXTENSION_KEYS, STATE_BITS
from ._nftables_text import Rule
from ._routeros_text import VERBS, Export, Statement

PROTOCOLS = {
    "icmp": 1, "igmp": 2, "ggp": 3, "ipencap": 4, "ip-encap": 4, "st": 5, "tcp": 6, "egp": 8, "pup": 12, "udp": 17,
    "hmp": 20, "xns-idp": 22, "rdp": 27, "iso-tp4": 29, "dccp": 33, "xtp": 36, "ddp": 37, "idpr-cmtp": 38,
    "ipv6": 41, "ipv6-encap": 41, "ipv6-route": 43, "ipv6-frag": 44, "idrp": 45, "rsvp": 46, "gre": 47,
    "ipsec-esp": 50, "ipsec-ah": 51, "icmpv6": 58, "ipv6-nonxt": 59, "ipv6-opts": 60, "rspf": 73, "vmtp": 81,
    "ospf": 89, "ipip": 94, "etherip": 97, "encap": 98, "pim": 103, "vrrp": 112, "l2tp": 115, "sctp": 132,
    "udp-lite": 136,
}  # fmt: skip
# Properties that match nothing.
_OTHER = frozenset(
    "action address-list address-list-timeout chain comment disabled jump-target log log-prefix reject-with "
    "to-addresses to-address to-ports randomise-ports randomize-ports new-dscp new-ttl new-hop-limit new-mss "
    "new-packet-mark new-connection-mark new-routing-mark new-priority passthrough route-dst sniff-id "
    "sniff-target sniff-target-port invalid dynamic same-not-by-dst hw-offload".split()
)
# Properties that may match or not, whatever the packet's header says.
_UNCERTAIN = frozenset(
    "connection-bytes connection-limit connection-mark connection-nat-state connection-rate connection-type content "
    "dst-address-type src-address-type dst-limit hotspot in-bridge-port in-bridge-port-list out-bridge-port "
    "out-bridge-port-list ingress-priority ipsec-policy layer7-protocol limit nth p2p packet-mark "
    "per-connection-classifier priority psd random realm routing-mark routing-table src-mac-address tcp-mss time "
    "tls-host".split()
)
_VERDICTS = {"accept": PERMIT, "drop": DENY, "reject": DENY, "tarpit": DENY, "jump": JUMP, "return": RETURN}
_GO_ON = frozenset(
    "passthrough log add-src-to-address-list add-dst-to-address-list mark-connection mark-packet mark-routing "
    "change-mss clear-df route set-priority sniff-pc sniff-tzsp".split()
)
_REWRITES = {
    "dst-nat": "destination", "redirect": "destination", "src-nat": "source", "masquerade": "source",
    "endpoint-independent-nat": "source", "change-dscp": "tos", "change-ttl": "ttl", "change-hop-limit": "ttl",
}  # fmt: skip
_FIELDS = {
    "src": {4: Selector("field", "source", 32, family=4), 6: Selector("field", "source", 128, family=6)},
    "dst": {4: Selector("field", "destination", 32, family=4), 6: Selector("field", "destination", 128, family=6)},
}
_PROTOCOL = Selector("l4proto", "protocol", 8)
_STATE = Selector("state", bits=32, flags=True)
_INTERFACES = {"in": Selector("interface", "in"), "out": Selector("interface", "out")}
_EXTENSIONS = {"hop": "hbh", "dst": "dst", "route": "rt", "frag": "frag"}
# A connection's own properties: what does not change from one of its packets to the next.
_MIRRORED = {"src": "dst", "dst": "src", "in": "out", "out": "in"}


@dataclass(slots=True)
class Lists:
    """Address lists of one family. `fed`: names of lists that packets, sessions or leases fill."""

    elements: dict[str, list[Value | None]] = field(default_factory=lambda: defaultdict(list))
    timed: set[str] = field(default_factory=set)
    fed: set[str] = field(default_factory=set)


def lists(export: Export, family: int) -> Lists:
    """The entries of `address-list`; those with a timeout are dynamic, and names are asked of the DNS."""
    found = Lists()
    top = {4: "ip", 6: "ipv6"}[family]
    for one in export.of(f"{top} firewall address-list"):
        name = one.properties.get("list", "")
        if one.verb == "print":
            continue
        if one.verb != "add":
            # Which entries it changes is not worked out; within a script it may be one of any list.
            found.fed.update(found.elements if one.verb in VERBS else ("",))
        elif one.garbled:
            found.fed.add(name)  # "" where the name is not read: it may be any
        elif not one.disabled:
            value = address(one.properties.get("address", ""), family)
            found.elements[name].append(value)
            if one.properties.get("timeout"):
                found.timed.add(name)
    for one in export.statements:
        fills = "address-list" if one.menu.startswith((f"{top} firewall", "ppp profile", "ip hotspot")) else ""
        fills = "address-lists" if one.menu.startswith(f"{top} dhcp-server") else fills
        if fills and fills in one.properties and not one.menu.endswith("address-list"):
            found.fed.update(one.properties[fills].split(","))
    return found


@functools.lru_cache(maxsize=65536)
def address(text: str, family: int) -> Value | None:
    """192.0.2.0/24, a range a-b, an address; None for a name."""
    try:
        low, dash, high = text.partition("-")
        if dash and ":" not in low + high and not re.match(r"[0-9.]+-[0-9.]+$", text):
            return None
        if dash:
            return packets.address_value(low, family), packets.address_value(high, family), -1
        if family == 4 and "/" in text and "." in text.partition("/")[2]:
            text = str(ipaddress.IPv4Network(text, strict=False))
        ((value, mask),) = packets.prefix(text, family)
    except ValueError:
        return None
    return value, value | (mask ^ ((1 << packets.ADDRESS_WIDTH[family]) - 1)), -1


class Compiler:
    """Rules of one table of one family."""

    def __init__(self, export: Export, family: int, known: Lists, tracked: bool) -> None:
        self.export, self.family, self.lists, self.tracked = export, family, known, tracked
        self._made: dict[tuple[str, str, str], list[Part]] = {}  # by matcher, value and protocol

    def rules(self, one: Statement) -> Iterator[Rule]:
        """What the rule does. Nothing where it is disabled."""
        if one.disabled:
            return
        words = [("ct" if self.tracked else "plain", one.line)]
        if one.properties.get("action") == "notrack":
            words.append(("notrack", one.line))
        for tests in self._alternatives(one, one.properties):
            tests = [*self._garbled(one), *tests]
            yield Rule(words, one.line, [*tests, *self._action(one)])
            if one.properties.get("action") == "fasttrack-connection":
                yield from self._whole_connection(one)

    def spoiled(self, one: Statement) -> Rule:
        """For a change of rules that an export does not have: nobody knows what is in force behind it."""
        what = "place-before" if one.verb == "add" else one.verb
        reason = f"'{what}' changes rules that stand elsewhere: it is not worked out"
        return Rule([("ct", one.line)], one.line, [Narrow(reason), Verdict(UNKNOWN, line=one.line)])

    def _garbled(self, one: Statement) -> Iterator[Part]:
        if one.garbled or one.words:
            yield Narrow(f"'{(one.garbled or one.words[0])[:60]}' is not understood")
        if one.remark and not re.match(r"# (?:\d{4}-|[a-z]{3}/|software|system id|model|serial)|#$|# end", one.remark):
            # The export says above an item why it is not in force: "# inactive time", "# no interface".
            yield Narrow(f"the router says of it '{one.remark[:80]}'")

    def _action(self, one: Statement) -> Iterator[Part]:
        action = one.properties.get("action") or "accept"
        line = one.line
        # A name that is not known may be that of the action, which then is not accept.
        if one.garbled or (not one.properties.get("action") and not one.properties.keys() <= _KNOWN):
            yield Verdict(UNKNOWN, line=line)
        elif action == "jump":
            yield Verdict(JUMP, one.properties.get("jump-target", ""), line)
        elif action in _VERDICTS:
            yield Verdict(_VERDICTS[action], line=line)
        elif action == "fasttrack-connection":
            yield Flow(("*", "another"))  # whichever interface its packets come in by
        elif action in _REWRITES or action in ("netmap", "same"):
            chain = one.properties.get("chain", "")
            yield Rewrite(_REWRITES.get(action) or ("destination" if chain == "dstnat" else "source"))
            if _REWRITES.get(action) not in ("tos", "ttl"):
                yield Verdict(PERMIT, line=line)
        elif action == "notrack":
            yield Verdict(PERMIT, line=line)
        elif action == "strip-ipv4-options":
            yield Narrow("options are taken away here")
        elif action not in _GO_ON:
            yield Narrow(f"the action '{action}' is not understood")
            yield Verdict(UNKNOWN, line=line)

    def _whole_connection(self, one: Statement) -> Iterator[Rule]:
        """A connection that one packet marks is past the firewall with all others, and with those of the other way."""
        reason = "all packets of a connection that was fasttracked pass, whichever of them this rule met"
        kept = {name: value for name, value in one.properties.items() if _side(name) or name == "protocol"}
        back = {_mirrored(name): value for name, value in kept.items()}
        alone = _OTHER | {"connection-state", *kept}
        partial = any(value for name, value in one.properties.items() if name not in alone)
        state = one.properties.get("connection-state", "established")
        if partial or "established" not in state.split(",") or back != kept:
            established: list[Part] = [
                Narrow(reason),
                Test((_PROTOCOL,), (((6, 6, -1),), ((17, 17, -1),))),
                Test((_STATE,), (((STATE_BITS["established"],) * 2 + (-1,),),)),
            ]
            for properties in (kept, back) if kept != back else (kept,):
                for more in self._alternatives(one, properties):
                    yield Rule([], one.line, [*established, *more, Verdict(PERMIT, line=one.line)])

    # Matchers

    @functools.cached_property
    def _no_ipsec(self) -> bool:
        """The text has more than a firewall, and nothing by which packets would be encrypted."""
        others = [one for one in self.export.statements if " firewall " not in one.menu]
        return bool(others) and not any(
            (one.menu.startswith("ip ipsec") and one.verb == "add")
            or one.properties.get("ipsec-secret")
            or one.properties.get("use-ipsec", "no") != "no"
            for one in others
        )

    def _alternatives(self, one: Statement, properties: Mapping[str, str]) -> Iterator[list[Part]]:
        """The tests of a rule; two of them where either port may be meant (`port`, `any-port`)."""
        tests: list[Part] = []
        either: list[tuple[Part, Part]] = []
        for name, text in properties.items():
            if name in _OTHER or text == "":
                continue
            if name in ("port", "any-port"):
                pair = [part for side in ("src", "dst") for part in self._ports(side, text, properties)]
                if text.startswith("!") or len(pair) != 2:
                    tests += pair
                else:
                    either.append((pair[0], pair[1]))
            else:
                key = name, text, properties.get("protocol", "")
                if key not in self._made:
                    self._made[key] = list(self._test(name, text, properties))
                tests += self._made[key]
        if not either:
            yield tests
        for choice in either[:1]:
            for part in choice:
                yield [*tests, part]

    def _test(self, name: str, text: str, properties: Mapping[str, str]) -> Iterator[Part]:
        side, _, what = name.partition("-")
        negate, plain = text.startswith("!"), text.removeprefix("!")
        found: Test | None
        if name == "protocol":
            single = plain in PROTOCOLS or plain.isdecimal()
            found = _numbers(_PROTOCOL, plain, PROTOCOLS, 255, negate) if single else None
        elif what == "address" and side in _FIELDS:
            value = address(plain, self.family)
            found = Test((_FIELDS[side][self.family],), ((value,),), negate) if value else None
        elif what == "address-list" and side in _FIELDS:
            found = self._list(side, plain, negate)
        elif what == "port" and side in _FIELDS:
            yield from self._ports(side, text, properties)
            return
        elif what in ("interface", "interface-list") and side in _INTERFACES:
            called = plain if what == "interface" else f"list:{plain}"
            found = Test((_INTERFACES[side],), ((called,),), negate)
        elif name == "connection-state":
            bits = [STATE_BITS.get(word) for word in plain.split(",")]
            known = tuple(((bit, bit, -1) if bit else None,) for bit in bits)
            found = Test((_STATE,), known, negate)
            if not self.tracked:
                yield Narrow("connections are not tracked, so what their state is is not documented")
        elif name == "ipsec-policy" and self._no_ipsec and plain.partition(",")[2] in ("ipsec", "none"):
            if plain.endswith(",ipsec"):
                yield Test((_PROTOCOL,), ())  # no packet
            return
        elif name in _UNCERTAIN:
            yield Narrow(f"whether {name}={text[:40]} holds is not known beforehand")
            return
        else:
            maker = _MATCHERS.get(name)
            parts = maker(text, self.family, properties) if maker else None
            if parts is not None:
                yield from parts
                return
            found = None
        yield found or Narrow(f"'{name}={text[:60]}' is not understood")

    def _list(self, side: str, name: str, negate: bool) -> Test:
        values = self.lists.elements.get(name, [])
        doubt = f"an entry of {name} goes when its time is over" if name in self.lists.timed else ""
        selector = _FIELDS[side][self.family]
        return Test((selector,), tuple((value,) for value in values), negate, doubt, bool(self.lists.fed & {name, ""}))

    def _ports(self, side: str, text: str, properties: Mapping[str, str]) -> Iterator[Part]:
        field_name = {"src": "source_port", "dst": "destination_port"}[side]
        number = PROTOCOLS.get(properties.get("protocol", ""), 0)
        protocol = properties.get("protocol", "")
        number = number or (int(protocol) if protocol.isdecimal() and len(protocol) < 4 else 0)
        selector = _port_selector(field_name, number)
        test = _numbers(selector, text.removeprefix("!"), {}, 65535, text.startswith("!"))
        yield test or Narrow(f"the ports '{text[:60]}' are not understood")


@functools.lru_cache(maxsize=64)
def _port_selector(field_name: str, protocol: int) -> Selector:
    """RouterOS wants a protocol that has ports; whatever else is in a text may have others."""
    return Selector("field", field_name, 16, protocols=(protocol,) if protocol in packets.WITH_PORTS else ())


def _side(name: str) -> bool:
    side, _, what = name.partition("-")
    return name in ("port", "any-port") or (
        side in _MIRRORED and what in ("address", "address-list", "port", "interface", "interface-list")
    )


def _mirrored(name: str) -> str:
    side, dash, what = name.partition("-")
    return f"{_MIRRORED[side]}{dash}{what}" if side in _MIRRORED else name


def _numbers(selector: Selector, text: str, named: Mapping[str, int], top: int, negate: bool) -> Test | None:
    """25,135,137-139; None where a part is not understood."""
    elements: list[tuple[Value]] = []
    for word in text.split(","):
        low, dash, high = word.partition("-") if word not in named else (word, "", "")
        ends = [named.get(end, int(end) if end.isdecimal() and len(end) < 9 else -1) for end in (low, high or low)]
        if not 0 <= ends[0] <= ends[1] <= top or (dash and not high):
            return None
        elements.append(((ends[0], ends[1], -1),))
    return Test((selector,), tuple(elements), negate)


_Maker = Callable[[str, int, Mapping[str, str]], "list[Part] | None"]


def _flags(text: str, _family: int, properties: Mapping[str, str]) -> list[Part] | None:
    """`syn,!ack`: all of these are set and all of those are not."""
    words = text.split(",")
    if properties.get("protocol") not in ("tcp", "6") or any(
        word.removeprefix("!") not in packets.TCP_FLAGS for word in words
    ):
        return None
    ((value, mask),) = packets.flags_all(
        tuple(word for word in words if word[0] != "!"), tuple(word[1:] for word in words if word[0] == "!")
    )
    return [Test((Selector("field", "tcp_flags", 8, protocols=(6,)),), (((value, value, mask),),))]


def _icmp(text: str, family: int, properties: Mapping[str, str]) -> list[Part] | None:
    """`3:0-255`: a type and the codes."""
    number = {4: 1, 6: 58}[family]
    found = re.fullmatch(r"(!?)(\d{1,3})(?::(\d{1,3})(?:-(\d{1,3}))?)?", text)
    if not found or PROTOCOLS.get(properties.get("protocol", ""), 0) != number or found[1]:
        return None
    kind, low = int(found[2]), int(found[3] or 0)
    high = int(found[4] or (found[3] if found[3] else 255))
    if kind > 255 or not low <= high <= 255:
        return None
    return [
        Test((Selector("field", "icmp_type", 8, protocols=(number,), family=family),), (((kind, kind, -1),),)),
        Test((Selector("field", "icmp_code", 8, protocols=(number,), family=family),), (((low, high, -1),),)),
    ]


def _fragment(text: str, family: int, _properties: Mapping[str, str]) -> list[Part] | None:
    if family != 4 or text not in ("yes", "no"):
        return None
    return [Test((Selector("frag-off", bits=16, family=4),), (((0, 0, 0x1FFF),),), text == "yes")]


def _options(text: str, family: int, _properties: Mapping[str, str]) -> list[Part] | None:
    if family != 4:
        return None
    there = Selector("hdrlength", bits=4, family=4)
    if text in ("any", "none"):
        return [Test((there,), (((6, 15, -1) if text == "any" else (5, 5, -1),),))]
    doubt = Narrow(f"which options there are, '{text[:40]}', is not modelled")
    return [doubt] if text.startswith("no-") else [Test((there,), (((6, 15, -1),),)), doubt]


def _dscp(text: str, family: int, _properties: Mapping[str, str]) -> list[Part] | None:
    test = _numbers(
        Selector("field", "tos", 6, family=family, shift=2), text.removeprefix("!"), {}, 63, text.startswith("!")
    )
    return [test] if test else None


def _ttl(text: str, _family: int, _properties: Mapping[str, str]) -> list[Part] | None:
    how, _, number = text.partition(":")
    if not number.isdecimal() or len(number) > 3 or int(number) > 255:
        return None
    value = int(number)
    spans = {"equal": (value, value), "less-than": (0, value - 1), "greater-than": (value + 1, 255)}
    if how == "not-equal":
        return [Test((Selector("ttl", "ttl", 8),), (((value, value, -1),),), True)]
    if how not in spans:
        return None
    low, high = spans[how]
    return [Test((Selector("ttl", "ttl", 8),), (((low, high, -1),),) if low <= high else ())]


def _size(text: str, _family: int, _properties: Mapping[str, str]) -> list[Part] | None:
    test = _numbers(Selector("length", "length", 16), text.removeprefix("!"), {}, 65535, text.startswith("!"))
    return [test] if test else None


def _headers(text: str, family: int, _properties: Mapping[str, str]) -> list[Part] | None:
    """`hop,dst:contains`: all of these headers are there; `exact`: and no other."""
    names, _, mode = text.partition(":")
    words = names.removeprefix("!").split(",")
    if family != 6 or mode not in ("contains", "exact", ""):
        return None
    if text.startswith("!") or mode != "contains" or any(word not in _EXTENSIONS for word in words):
        return [Narrow(f"headers={text[:40]} is not worked out")]
    assert set(_EXTENSIONS.values()) <= set(EXTENSION_KEYS)
    return [Test((Selector("exthdr", _EXTENSIONS[word], 1, family=6),), (((1, 1, -1),),)) for word in words]


_MATCHERS: Mapping[str, _Maker] = {
    "tcp-flags": _flags,
    "icmp-options": _icmp,
    "fragment": _fragment,
    "ipv4-options": _options,
    "dscp": _dscp,
    "ttl": _ttl,
    "hop-limit": _ttl,
    "packet-size": _size,
    "headers": _headers,
}
_KNOWN = _OTHER | _UNCERTAIN | _MATCHERS.keys() | {"protocol", "connection-state", "port", "any-port"}
_KNOWN |= {
    f"{side}-{what}"
    for side in _MIRRORED
    for what in ("address", "address-list", "port", "interface", "interface-list")
}
