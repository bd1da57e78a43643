# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The text of an industry-standard CLI as blocks, cut in one pass, so that a list may use a group below it."""

from __future__ import annotations

import difflib
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..filters import Doubt
from ._cisco_dialect import Dialect

# What the top of another vendor's configuration looks like.
FOREIGN_MARKS = {
    "Cisco IOS": r"^(Building configuration\.\.\.|Current configuration :)",
    "Cisco IOS XR": r"^!! IOS XR Configuration",
    "Cisco NX-OS": r"^(!Command: show running-config|version .*Bios:|feature [a-z])",
    "Cisco ASA": r"^(: (Saved|Serial Number)|ASA Version )",
    "Arista EOS": r"^(! Command: show running-config|! device: .*EOS)",
    "Junos": r"^(## Last (commit|changed)|version [^\s;]+;|(system|interfaces|groups) \{|set (version|system|groups) )",
    "nftables": r"^table (inet|ip|ip6|bridge|netdev|arp) \S+ \{",
    "MikroTik RouterOS": r"^(# .* by RouterOS|/(interface|ip|system) )",
    "Nokia SR OS": r"^# TiMOS-",
    "Huawei VRP": r"^(sysname |!Software Version V)",
}
_PROMPT = re.compile(r"[\w./:@-]+#")
TOP = 4000  # characters in which they are looked for


def incomplete(text: str, dialect: Dialect) -> str:
    """Why the text is not a whole running configuration of the platform, "" when it is."""
    if not text.strip():
        return "the device answered nothing"
    if "\x1b" in text:
        return f"line {_line_of(text, chr(27))} holds a terminal escape: the session is not a plain one"
    for mark in ("--More--", "\x08"):
        if mark in text:
            return f"line {_line_of(text, mark)} holds a pager's prompt: the device stops after each page"
    top = text[:TOP].lstrip()
    if top.startswith("%"):
        return f"the device answered '{top.splitlines()[0].strip()}' in place of a configuration"
    for title, pattern in FOREIGN_MARKS.items():
        if title not in dialect.own_marks and re.search(pattern, top, re.MULTILINE):
            return f"the text is a configuration of {title}, not of {dialect.title}: check ansible_network_os"
    lines = text.rstrip()[-400:].splitlines()
    while len(lines) > 1 and (not lines[-1].strip() or _PROMPT.fullmatch(lines[-1].strip())):
        lines.pop()
    last = lines[-1].strip()
    if dialect.counted:
        return _miscounted(text, last)
    if last != "end":
        return f"the text ends with '{last[:60]}' and not with 'end': it is cut off"
    return ""


def _miscounted(text: str, last: str) -> str:
    """Why the number of lines, which stands at the end, is not that of the lines above it; "" when it is."""
    if not (last.isdecimal() and len(last) < 9):
        return f"the text ends with '{last[:60]}' and not with the number of its lines: it is cut off"
    above = text.rstrip().split("\n")[:-1]
    # A terminal may show more blank lines than the configuration has.
    if not sum(not line.isspace() and line != "" for line in above) <= int(last) <= len(above):
        return f"the router counted {last} lines, and {len(above)} have come: the text is not whole"
    return ""


def _line_of(text: str, mark: str) -> int:
    return text.count("\n", 0, text.index(mark)) + 1


@dataclass
class List:
    """An access list, its lines not read yet."""

    name: str
    family: int
    standard: bool
    line: int
    text: str
    lines: list[tuple[int, str, int]] = field(default_factory=list)  # number, raw text, words in front of the entry
    begun: int = 0  # how many of them there were when it was entered last


@dataclass
class Block:
    """A line at the top, and what is indented below it."""

    words: list[str]
    line: int
    lines: list[tuple[int, str]] = field(default_factory=list)


@dataclass
class Cut:
    """The text as blocks, in one pass over its lines."""

    lists: dict[tuple[int, str], List] = field(default_factory=dict)
    groups: dict[str, Block] = field(default_factory=dict)
    interfaces: dict[str, Block] = field(default_factory=dict)
    others: list[Block] = field(default_factory=list)
    policies: list[Block] = field(default_factory=list)
    routes: list[tuple[int, list[str]]] = field(default_factory=list)
    pools: list[list[str]] = field(default_factory=list)
    doubts: list[Doubt] = field(default_factory=list)
    hostname: str = ""
    filter_lines: int = 0


_ENTRY_WORDS = frozenset({"permit", "deny", "remark", "sequence", "evaluate", "dynamic"})
_INTERFACE_ONLY = frozenset((family, word) for family in ("ip", "ipv4", "ipv6") for word in ("address", "verify"))
# What else of an interface may matter in a text without indents.
_FLAT_TOO = re.compile(
    r"(?:service-policy|zone-member|rate-limit|ip\s+policy|ip(?:v6)?\s+unnumbered)\s|"
    r"ip(?:v6)?\s+inspect\s+\S+\s+(?:in|out)\s*$"
)
# First words of the lines of a policy and of a route map.
_IN_A_POLICY = frozenset(
    ("class", "description", "match", "set", "drop", "police", "conform-action", "exceed-action", "violate-action",
     "bandwidth", "priority", "shape", "queue-limit", "service-policy")
)  # fmt: skip
# First words of an interface's lines: behind them the interface goes on in a text without indents.
_IN_AN_INTERFACE = frozenset(
    ("arp", "bandwidth", "carrier-delay", "cdp", "channel-group", "delay", "description", "duplex", "encapsulation",
     "hold-queue", "hsrp", "ip", "ipv4", "ipv6", "keepalive", "lldp", "load-interval", "mac-address", "media-type",
     "mls", "mpls", "mtu", "negotiation", "no", "peer", "ppp", "pppoe", "service-policy", "shutdown", "spanning-tree",
     "speed", "standby", "storm-control", "switchport", "tunnel", "vrf", "vrrp")
)  # fmt: skip
_A_LIST = re.compile(r"[ \t]+(?:(?:ip|ipv4|ipv6)[ \t]+)?access-list[ \t]+\S")
_AN_INTERFACE = re.compile(r"[ \t]+interface[ \t]+[A-Za-z][A-Za-z-]*[ \t]*\d[\w/.:]*(?:[ \t]+[a-z][\w-]*)*\s*$")
_PAGER = re.compile(r" ?--More-- ?(?:\x08+ *\x08+|\r *\r)|--More--")  # with what the terminal wipes it away with
_AT_THE_LEFT = re.compile(r"^[^ \t\r\n]", re.MULTILINE)
_VLAN_MAPS = frozenset({("vlan", "filter"), ("vlan", "access-map")})
_WITH_TEXT = frozenset({"aaa", "menu"})  # besides banners, what can have a text of several lines
# What an entry names first. Other modes have lines with permit and deny too (roles, prefix lists).
_LIST_PROTOCOLS = frozenset("ip ipv4 ipv6 tcp udp icmp icmpv6".split())
_OTHER_LISTS = frozenset({"mac", "arp", "ethernet-services", "ipx", "netbios"})  # access lists that are not of IP
_HARDWARE = frozenset({"hardware", "platform"})  # `hardware access-list update default-result permit`


def cut_up(text: str, dialect: Dialect) -> Cut:
    cut = Cut()
    # The block that indented lines belong to: an access list's entries, or the body of anything else.
    entries: list[tuple[int, str, int]] | None = None
    body: list[tuple[int, str]] | None = None
    flat: list[tuple[int, str]] | None = None  # of the interface whose lines may follow without an indent
    policy: list[tuple[int, str]] | None = None  # of the policy or route map whose lines may follow without an indent
    banner = ""  # the delimiter of a banner or comment whose text must not be read as configuration
    begun = (0, "")  # where it begins
    vrf = ""  # whose block it is, with its static routes (NX-OS)
    strange: tuple[int, str] | None = None  # a line that is not understood, and may be a garbled one
    above: list[tuple[int, str, int]] | None = None  # the list that it would be a line of
    of_a_list = _ENTRY_WORDS | dialect.ignored | dialect.list_wide  # what begins a line of one, indented or not
    shown: dict[tuple[int, str], List] = {}  # lists as `show access-lists` prints them; those of a configuration count
    text = text.removeprefix("\ufeff")
    if "--More--" in text:
        text = _PAGER.sub("", text)
    if not _AT_THE_LEFT.search(text):  # as a page shows it
        text = textwrap.dedent(text)
    for number, raw in enumerate(text.split("\n"), 1):
        if banner:
            if raw.strip() == banner if banner == "EOF" else banner in raw:
                banner = ""
            continue
        if not raw:
            continue
        if dialect.comments and "comment" in raw and raw.strip() == "comment":
            banner, begun = "EOF", (number, raw)
            continue
        # An indent more or less is nothing to the router, and where a pager stood, eight to ten blanks are left.
        if raw[0] in " \t" and (
            ("access-list" in raw and (body is None or body is flat or raw[:8].isspace()) and _A_LIST.match(raw))
            or (
                "interface " in raw
                and (entries is not None or body is flat is not None or raw[:8].isspace())
                and _AN_INTERFACE.match(raw)
            )
        ):
            raw = raw.lstrip()
        if raw[0] in " \t":
            if not raw.isspace():
                if entries is not None:
                    entries.append((number, raw, 0))
                elif body is not None:
                    body.append((number, raw))
                elif vrf:
                    words = raw.split()
                    if words[1:2] == ["route"] and words[0] in ("ip", "ipv6"):
                        cut.routes.append((6 if words[0] == "ipv6" else 4, ["vrf", vrf, *words[2:]]))
                elif strange and _goes_on(cut, strange, number, raw):
                    strange = None
                elif strange and (reason := _out_of_place(raw.split(), strange[1])):
                    cut.doubts.append(Doubt(strange[0], strange[1].strip(), reason))
                    if above is not None and reason == _AN_ENTRY:
                        entries = above
                        entries += [(*strange, 0), (number, raw, 0)]
                    strange = None
            continue
        if raw[0] == "!":
            continue
        words = raw.split()
        if not words:
            continue
        first = words[0]
        if first == "access-list" or first == "Access-list":
            entries = body = above = None
            strange = number, raw  # nothing belongs below it
            _numbered(cut, words, number, raw, remove=False)
            continue
        if raw[0] == "I" and first.lower() in ("interface", "ip", "ipv6"):  # as a person begins a line
            words[0] = first = first.lower()
        second = words[1] if len(words) > 1 else ""
        if entries is not None:
            word = second if first in ("no", "default") else first
            if word in of_a_list or word.isdecimal() or inside_an_entry(raw):
                entries.append((number, raw, 0))
                continue
        elif above is not None and strange and _out_of_place(words, strange[1]) == _AN_ENTRY:
            cut.doubts.append(Doubt(strange[0], strange[1].strip(), _AN_ENTRY))
            entries = above
            entries += [(*strange, 0), (number, raw, 0)]
            strange = None
            continue
        pair = first, second
        said = words[1:] if first == "no" else words
        binds = tuple(said[:2]) in dialect.bindings or tuple(said[:3]) in dialect.port_bindings
        if flat is not None and (binds or pair in _INTERFACE_ONLY or said == ["shutdown"] or _FLAT_TOO.match(raw)):
            flat.append((number, raw))
            continue
        if policy is not None and first in _IN_A_POLICY:
            policy.append((number, raw))
            continue
        policy = None
        if binds:
            cut.doubts.append(Doubt(number, raw.strip(), "a list is bound here, and to what is not known"))
        if first not in _IN_AN_INTERFACE:
            flat = None
        above, numbered, strange = entries, strange, None
        entries, body, vrf = None, None, ""
        if second == "access-list" and first in ("ip", "ipv6", "ipv4"):
            chosen = _named(cut, words, number, raw, dialect)
            entries = chosen.lines if chosen else None
        elif first == "interface" and second and not dialect.formal and (members := _members(words)) is not None:
            # As it may be typed; no router prints it.
            blocks = [cut.interfaces.setdefault(name, Block(["interface", name], number)).lines for name in members]
            body = flat = _Each(blocks)
            if not members:
                cut.doubts.append(Doubt(number, raw.strip(), "a range of interfaces is not read, and may bind lists"))
        elif first == "interface" and second:
            block = cut.interfaces.setdefault(interface_name(words), Block(words, number))
            body = flat = block.lines
            if dialect.formal and len(words) > 2 and (rest := _of_the_interface(words)):
                body.append((number, " ".join(rest)))
        elif first == "object-group" and len(words) > 2:
            # `object-group network NAME`; the kind may take two words (NX-OS: `ip address`).
            wide = len(words)
            if dialect.formal:
                wide = 4 if second == "network" else 3
            name = " ".join(words[1:wide]) if dialect.groups_by_kind else words[-1]
            block = cut.groups.setdefault(name, Block(words[:wide], number))
            body = block.lines
            if len(words) > wide:
                body.append((number, " ".join(words[wide:])))
            else:
                cut.filter_lines += 1
        elif first in dialect.bindable or first in ("policy-map", "route-map"):
            block = Block(words, number)
            body = block.lines
            if first in dialect.bindable:
                cut.others.append(block)
            if first in ("policy-map", "route-map"):
                cut.policies.append(block)
                policy = body
        elif first == "no" or first == "default":
            if dialect.formal and second == "interface" and len(words) > 3 and (rest := _of_the_interface(words[1:])):
                name = interface_name(words[1:])
                cut.interfaces.setdefault(name, Block(words[1:], number)).lines.append((number, f"no {' '.join(rest)}"))
            else:
                _forget(cut, words[1:], number, raw)
        elif first in ("hostname", "switchname") and second:
            cut.hostname = second
        elif first == "banner" and len(words) > 1:
            banner, begun = _banner_end(words, raw), (number, raw)
        elif first in _WITH_TEXT and raw.count("^C") == 1:  # `aaa authentication banner ^C`
            banner, begun = "^C", (number, raw)
        elif pair == ("ip", "route") or pair == ("ipv6", "route"):
            cut.routes.append((6 if first == "ipv6" else 4, words[2:]))
        elif words[1:3] == ["local", "pool"]:
            cut.pools.append(words[3:])
        elif first == "vrf" and second == "context" and len(words) > 2:
            vrf = words[2]
        elif dialect.vdcs and first == "switchto":
            cut.doubts.append(Doubt(number, raw.strip(), "the configuration of another virtual device is not read"))
            break
        elif pair in _VLAN_MAPS and not dialect.vlan_maps:
            cut.doubts.append(Doubt(number, raw.strip(), "a VLAN access map filters too, and is not read"))
        elif dialect.shown and "access list" in raw and (found := dialect.shown.match(raw.rstrip())):
            entries = _Shown([(number, "remark that is not shown", 0)])  # so a list without a line is not known
            if found["name"]:
                key = 6 if found["kind"] == "IPv6" else 4, found["name"]
                shown[key] = List(key[1], key[0], found["kind"] == "Standard IP", number, raw.strip(), entries)
        elif numbered and _goes_on(cut, numbered, number, raw):
            pass
        else:
            if first not in _OTHER_LISTS:
                strange = number, raw
                _like_an_entry(cut, words, number, raw)
            if ("vlan-list" in words or "access-map" in words) and pair not in _VLAN_MAPS:
                cut.doubts.append(Doubt(number, raw.strip(), "this may be of a VLAN access map"))
            for start, reason in dialect.suspicious_global:
                if tuple(words[: len(start)]) == start:
                    cut.doubts.append(Doubt(number, raw.strip(), reason))
    cut.lists = shown | cut.lists
    if banner:
        cut.doubts.append(Doubt(begun[0], begun[1].strip(), "this text does not end, and what follows is not read"))
    return cut


def _goes_on(cut: Cut, above: tuple[int, str], number: int, raw: str) -> bool:
    """Does the `access-list` line right above go on here, where somebody broke it? Then the list has this line too."""
    words = above[1].split()
    if number != above[0] + 1 or words[0] != "access-list" or words[2:3] == ["remark"] or not inside_an_entry(raw):
        return False
    chosen = cut.lists.get((4, words[1]))
    if chosen is not None:
        chosen.lines.append((number, raw, 0))
    return chosen is not None


_WITHIN = r"(?:any|host|eq|neq|gt|lt|range|established|log|log-input|\d+\.\d+\.\d+\.\d+)(?:\s|$)"
# Or with the rest of an address or a number.
_INSIDE_AN_ENTRY = re.compile(rf"\s*(?:{_WITHIN}|[\d.]+(?:\s+{_WITHIN}|\s*$))")


def inside_an_entry(text: str) -> bool:
    """Does it begin with what only the rest of an entry begins with, an address, a port or an option?"""
    return bool(_INSIDE_AN_ENTRY.match(text))


_AN_ENTRY = "entries of an access list stand below it, and it is the name of none"


def _out_of_place(words: list[str], above: str) -> str:
    """Why an indented line cannot belong to the unknown line above it, "" when it may."""
    if tuple(words[:2]) in _INTERFACE_ONLY or words[1:2] == ["unnumbered"]:
        return "the lines of an interface stand below it, and it names none"
    if words[1:2] in (["access-group"], ["traffic-filter"]) and _like_interface(above.split()[0].lower()):
        return "a list is bound below it, and it names no interface"
    rest = words[1:] if words[0] == "sequence" else words
    rest = rest[1:] if rest and rest[0].isdecimal() else rest
    if rest[:1] not in (["permit"], ["deny"]):
        return ""
    return _AN_ENTRY if _LIST_PROTOCOLS.issuperset(rest[1:2] or [""]) or _like_a_list(above.split()) else ""


def _like_interface(word: str) -> bool:
    """`int`, or garbled."""
    return "interface".startswith(word) or bool(difflib.get_close_matches(word, ["interface"], n=1, cutoff=0.75))


def interface_name(words: Sequence[str]) -> str:
    """Of `interface Virtual-Template1 type tunnel` or `interface Ethernet 1`: the name alone, as one word."""
    if words[1:2] == ["preconfigure"] and len(words) > 2:  # IOS XR: of hardware that is not there
        words = words[1:]
    return (
        "".join(words[1:3])
        if words[1:2] and words[1].replace("-", "").isalpha() and words[2:3] and words[2][0].isdecimal()
        else words[1]
    )


def _of_the_interface(words: Sequence[str]) -> Sequence[str]:
    """What stands behind the name in `interface Bundle-Ether1 ipv4 access-group A ingress`, as a line below it."""
    at = 3 if words[1] == "preconfigure" else 2
    at += interface_name(words) != words[at - 1]  # `interface Bundle-Ether 1`
    return words[at + (words[at : at + 1] == ["l2transport"]) :]


class _Shown(list[tuple[int, str, int]]):
    """The lines of a list as `show access-lists` prints them, each made what the configuration has."""

    def append(self, line: tuple[int, str, int]) -> None:
        super().append((line[0], _COUNTED.sub("", line[1]), line[2]))


_COUNTED = re.compile(r", wildcard bits|\s(?:\(\d+ match(?:es)?\)|check=\d+)")


class _Each(list[tuple[int, str]]):
    """The lines of a range of interfaces: each line is one of every member."""

    def __init__(self, blocks: Sequence[list[tuple[int, str]]]) -> None:
        super().__init__()
        self.blocks = blocks

    def append(self, line: tuple[int, str]) -> None:
        for lines in self.blocks:
            lines.append(line)


_SPAN = re.compile(r"([A-Za-z][A-Za-z-]{3,})?((?:\d+[/.:])*)(\d{1,5})(?:-(\d{1,5}))?")


def _members(words: Sequence[str]) -> list[str] | None:
    """Of `interface range Ethernet0/1 - 3 , Vlan7`, `interface Ethernet1,3-4`: none where it is not understood.

    None where it is one interface.
    """
    text = "".join(words[2:] if words[1] == "range" else words[1:]).partition("!")[0]
    if words[1] != "range" and not re.search(r"\d[-,]", text):
        return None
    found: list[str] = []
    kind = ""
    for part in text.split(","):
        one = _SPAN.fullmatch(part)
        kind = (one[1] or kind) if one else ""
        if one is None or not kind:
            return []
        low, high = int(one[3]), int(one[4] or one[3])
        found += [f"{kind}{one[2]}{number}" for number in range(low, min(high, low + 1023) + 1)]
    return found


def _banner_end(words: list[str], raw: str) -> str:
    """What ends the banner that begins on this line, "" when it ends there too."""
    rest = raw.split(None, 2)[2] if len(words) > 2 else ""
    if not rest:
        return "EOF"  # EOS: the text stands below, up to a line with EOF
    # IOS prints a control character as ^C; a ^ by itself is one that was chosen.
    mark = "^C" if rest.startswith("^C") and not rest.endswith("^") else rest[0]
    return "" if mark in rest[len(mark) :] else mark


_NOT_LISTS = frozenset({"compiled", "hardware", "dynamic-extended", "rate-limit", "template"})


def _numbered(cut: Cut, words: list[str], number: int, raw: str, remove: bool) -> None:
    """`access-list 101 permit ...`: 1-99 and 1300-1999 are standard, 100-199 and 2000-2699 extended (Cisco)."""
    name = words[1] if len(words) > 1 else ""
    if name.isdecimal() and len(name) < 5:
        value = int(name)
        standard, extended = value < 100 or 1300 <= value < 2000, 100 <= value < 200 or 2000 <= value < 2700
        if not (standard or extended):
            return  # MAC, bridging, IPX, ...: not of IP
        skip = 2
    elif len(words) > 3 and words[2] in ("extended", "standard"):
        standard, skip = words[2] == "standard", 3
    elif name in _NOT_LISTS or not name or words[2:3] == ["remark"]:
        return
    else:
        cut.doubts.append(Doubt(number, raw.strip(), "an access-list line of unknown shape"))
        cut.filter_lines += 1
        return
    if remove:
        cut.lists.pop((4, name), None)
        return
    cut.filter_lines += 1
    chosen = cut.lists.get((4, name))
    if chosen is None:
        chosen = cut.lists[4, name] = List(name, 4, standard, number, f"access-list {name}")
    if len(words) > skip:
        chosen.lines.append((number, raw, skip))


def _list_name(words: list[str], dialect: Dialect | None) -> tuple[str, bool] | None:
    """Name and whether it is a standard list, of the words behind `access-list`; None when it is another command."""
    if not words or (dialect and words[0] in dialect.not_lists):
        return None
    if words[0] in ("standard", "extended", "fqdn") and len(words) > 1:
        return words[1], words[0] == "standard"
    return words[0], False


def _named(cut: Cut, words: list[str], number: int, raw: str, dialect: Dialect) -> List | None:
    found = _list_name(words[2:], dialect)
    if found is None:
        return None
    name, standard = found
    family = 6 if words[0] == "ipv6" else 4
    cut.filter_lines += 1
    chosen = cut.lists.get((family, name))
    if chosen is None:
        chosen = cut.lists[family, name] = List(name, family, standard, number, raw.strip())
    for at, line in enumerate(chosen.lines[chosen.begun :], chosen.begun):
        if line[1].split() == ["exit"]:  # what stands behind it in that block is of no list
            del chosen.lines[at:]
            break
    chosen.begun = len(chosen.lines)
    skip = words.index(name, 2) + 1
    if words[skip : skip + 1] and (words[skip] in _ENTRY_WORDS or words[skip].isdecimal()):  # an entry beside the name
        chosen.lines.append((number, raw, skip))
    elif words[skip : skip + 1] and words[skip][0] != "!":
        cut.doubts.append(
            Doubt(number, raw.strip(), f"'{words[skip][:60]}' behind the name of a list is not understood")
        )
    return chosen


def _forget(cut: Cut, words: list[str], number: int, raw: str) -> None:
    """`no ...` at the top: the list, group or interface of that name, as far as it stands above, is gone."""
    if words[:1] == ["access-list"]:
        _numbered(cut, words, number, raw, remove=True)
    elif words[1:2] == ["access-list"]:
        found = _list_name(words[2:], None)
        if found:
            cut.lists.pop((6 if words[0] == "ipv6" else 4, found[0]), None)
    elif words[:1] == ["object-group"] and len(words) > 2:
        cut.groups.pop(words[-1], None)
        cut.groups.pop(" ".join(words[1:]), None)
    elif words[:1] == ["interface"] and len(words) > 1:
        cut.interfaces.pop(interface_name(words), None)


def _like_an_entry(cut: Cut, words: list[str], number: int, raw: str) -> None:
    """A line at the top with `permit` or `deny` in the place of an entry's: one whose first word is garbled."""
    name = words[1] if len(words) > 3 else ""
    if name.isdecimal() and len(name) < 5 and words[2] in ("permit", "deny"):
        chosen = cut.lists.setdefault((4, name), List(name, 4, False, number, raw.strip()))
        chosen.lines.append((number, raw, 0))
        cut.filter_lines += 1
    elif not {"permit", "deny"}.isdisjoint(words[1:5]) and words[0] not in _HARDWARE and _like_a_list(words):
        cut.doubts.append(Doubt(number, raw.strip(), "this may be an entry of an access list"))


def _like_a_list(words: list[str]) -> bool:
    """Is `access-list` there, garbled or cut in two?"""
    said = [*words[:2], "".join(words[:2]), "".join(words[1:3])]
    return bool(difflib.get_close_matches("access-list", said, n=1, cutoff=0.8))
