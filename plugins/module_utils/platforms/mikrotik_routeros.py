# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""MikroTik RouterOS: the text of `/export`, and chains of our own that `forward` jumps to first.

What is modelled, and where it is written (MikroTik's documentation, by the title of the page):
- Rules are tried from the top of a chain; the first that matches decides, but for passthrough, log, the actions that
  add to address lists and those that mark, which let the packet go on. What no rule of a built-in chain matches is
  accepted; what no rule of another chain matches goes back to where the jump was ("Filter"; "Common Firewall Matchers
  and Actions").
- A forwarded packet meets raw prerouting, connection tracking, mangle and dst-nat prerouting, then filter forward, then
  mangle and src-nat postrouting ("Packet Flow in RouterOS"): so filters see inside addresses. What raw or filter drop
  is gone; accept ends one table. input and output are not for what is forwarded ("Filter").
- Raw stands before connection tracking, and packets that are not tracked are not put together again ("Raw"); with
  connection tracking there are no fragments, for the system assembles every packet ("Common Firewall Matchers and
  Actions", fragment). Tracking begins with the first rule unless it is off ("Connection tracking").
- fasttrack-connection: the connection's later packets bypass the firewall, TCP and UDP alone; not all of them do, so
  the packet itself goes on to the next rule ("Connection tracking", FastTrack). That they bypass raw as well is not
  said: raw is judged as if they met it. A connection is marked as a whole: packets that the rule would not match,
  and those of the other direction, are in doubt.
- nat looks at the first packet of a connection alone; the others get what it got ("NAT").
- What is judged is traffic between an attachment and the network, which is where the default route leads; without one
  it is every interface that routes and is no attachment. What passes to other customers alone is in doubt.
- ipsec-policy asks whether a packet is subject to IPsec ("Common Firewall Matchers and Actions"): none is, where the
  text has no policy, peer, identity, secret or server for it.
- Interface lists have members, include and exclude lists, and all, none, dynamic and static exist ("Interface Lists").
- An entry of an address list with a timeout goes by itself, and what rules, PPP profiles, leases or DNS add is in no
  export ("Address-lists"): whether such a list matches is in doubt. A list without entries matches nothing [memory].
- Whether a matcher for interfaces means a member of a VRF or the VRF itself is not documented: in doubt.
- A PPP profile puts its sessions' interfaces into interface-list; incoming-filter and outgoing-filter get control by a
  jump that is added to the chain ppp for each session, to which somebody must jump ("PPP AAA").
  A RADIUS server can name such a chain too (Filter-Id, "RADIUS").
- rp-filter=strict drops what the route to its source does not lead to ("IP Settings"), in IPv4: IPv6 needs
  lines of its own, but where it is off.
- l3-hw-offloading forwards past the firewall ("L3 Hardware Offloading"); bridges have filters of their own, and with
  use-ip-firewall bridged packets meet these rules as well ("Bridging and Switching"). Rules of a switch chip and of
  the routing can drop, too ("Switch Chip Features", new-dst-ports; "Routing Rules", action).
- RouterOS is a Linux, and its matchers are those of the kernel's iptables (psd, nth, random, ipv6 headers). No document
  of MikroTik says how IPv6 extension headers are passed over; the kernel's ip6tables looks for the protocol behind them
  (net/ipv6/netfilter/ip6_tables.c, ip6_packet_match), and where the chain of headers is cut off it drops the packet at
  a rule that asks. The rest of the kernel's ways is as linux_nftables says. [memory]: that RouterOS changed none of it.
- An export has a remark above an item that is not in force ("# inactive time") [memory]: such a rule is in doubt.
- `/system scheduler` runs a script at intervals, whoever is logged in ("Scheduler"); `find where`, `:if`, `:len`,
  `:pick`, `:error` and commands parted by semicolons are those of "Scripting", place-before and `export` of "Command
  Line Interface". That an entry without a start-time runs for the first time when its interval is over: [memory]; where
  that is wrong nothing is switched, for no switch is made without the entry.
- The words of rejections: [memory], but for `failure:` and `syntax error` ("Command Line Interface").
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from ..filters import PERMIT, Configuration, Doubt, Filter, Interface, NotThisPlatform
from ._nftables_chains import Builder
from ._nftables_parts import Narrow, Selector, Test, Verdict
from ._nftables_text import Chain, Rule, Ruleset, Table
from ._routeros_change import PUSH, apply, fields, lines, remove, restore
from ._routeros_places import LIST, PROFILE, Places
from ._routeros_rules import Compiler, lists
from ._routeros_text import END, Export, Statement, read

__all__ = [
    "ALIASES",
    "DEVICE_TYPE",
    "LINK_LOCAL",
    "LIVE",
    "PUSH",
    "READ",
    "REJECTED",
    "WHOLE",
    "apply",
    "fields",
    "incomplete",
    "lines",
    "parse",
    "remove",
    "restore",
]

ALIASES = ("community.routeros.routeros", "routeros", "mikrotik", "ros")
DEVICE_TYPE = "mikrotik_routeros"
READ = (f'/export; :put "{END}"',)
REJECTED = (
    r"^(?:failure|error): .*",
    r"^isp-edge: .*",
    (
        r"^(?:syntax error|bad command name|expected |no such item|input does not match|invalid value|value of |"
        r"ambiguous value|missing value|unknown parameter|not enough permissions|action cancelled|interrupted).*"
    ),
)
LIVE = True
WHOLE = True  # our chains stand beside other rules, which can still drop
LINK_LOCAL = False  # link-local traffic is never forwarded, so no forward chain sees it

_TOP = {4: "ip", 6: "ipv6"}
_FAMILY = {4: "ip", 6: "ip6"}  # as linux_nftables calls them
# Table and built-in chain: hook, priority, kind. Raw is before the kernel's own assembly of fragments (-400).
_STAGES = {
    ("raw", "prerouting"): ("prerouting", -450, "filter"),
    ("mangle", "prerouting"): ("prerouting", -150, "filter"),
    ("nat", "dstnat"): ("prerouting", -100, "nat"),
    ("mangle", "forward"): ("forward", -150, "filter"),
    ("filter", "forward"): ("forward", 0, "filter"),
    ("mangle", "postrouting"): ("postrouting", -150, "filter"),
    ("nat", "srcnat"): ("postrouting", 100, "nat"),
}
# Menus whose every command matters; elsewhere a word that is not understood changes no filter.
_RELEVANT = re.compile(r"(ip|ipv6) (firewall|address|settings|pool|vrf)|interface (list|bridge)|ppp (profile|aaa)")
_NAMED = re.compile(r"(?:in|out)-interface(-list)?")


def incomplete(text: str) -> str:
    """Why the text is not the whole output of READ; "" when it is."""
    if not text.strip():
        return "the router returned nothing"
    if "\x1b" in text:
        return "it holds terminal escapes: read it without colours"
    said = re.search(r"^(?:failure:|bad command name|expected end of|syntax error|# ?error).*", text, re.MULTILINE)
    if said:
        return f"it holds an error message: '{said.group()[:200]}'"
    if not re.search(r"^# .* by RouterOS \d", text, re.MULTILINE):
        return "it does not begin as /export does: '# ... by RouterOS ...'"
    export = read(text)
    if export.cut or not export.ended:
        return f"it is cut off: it does not end with '{END}', which is printed behind the export"
    return ""


def parse(text: str, attachments: Sequence[str] = ()) -> Configuration:
    """The text of `/export`, terse or verbose or neither.

    Chains ask for interfaces, so the filters of a binding are made for its attachment: `ip filter forward @ether2 in`.
    Every chain is there for no attachment in particular too, as `ip filter forward`, our own by their names alone.
    Raises NotThisPlatform.
    """
    export = read(text)
    if not export.statements or len(export.strange) > len(export.statements):
        raise NotThisPlatform("there is no menu and no command of RouterOS' /export in it")
    places = Places(export, attachments)
    ruleset, read_lines = _ruleset(export, places)
    tracked = frozenset({4, 6} if _tracked(export) else ())
    network, customers = places.sides() if attachments else ((), ())
    builder = Builder(ruleset, (*attachments, *customers), network, tracked, places.fits, iptables=True)
    builder.plain()
    bindings = []
    interfaces = places.interfaces()
    for attachment in attachments or [*_asked(export), "*"]:
        bound, _ = builder.bind(attachment)
        bindings += bound
        if attachment in interfaces:
            interfaces[attachment] = _described(export, places, interfaces[attachment])
    for (family, name), one in list(builder.filters.items()):
        own = name.removeprefix(f"{_FAMILY[family]} filter ")
        if own.startswith("ISP-") and "@" not in own and one.entries:
            builder.filters[family, own] = Filter(own, family, one.entries, one.default, one.line, one.text)
    identity = next((one.properties.get("name", "") for one in export.of("system identity")), "")
    return Configuration(
        filters=builder.filters,
        bindings=tuple(bindings),
        interfaces=interfaces,
        doubts=tuple(_doubts(export)),
        hostname=identity,
        filter_lines=read_lines,
    )


def _ruleset(export: Export, places: Places) -> tuple[Ruleset, int]:
    """The tables as linux_nftables compiles them, and how many lines they have."""
    found = Ruleset("")
    found.lines = list(export.lines)
    count = 0
    tracked = _tracked(export)
    for family, top in _TOP.items():
        known = lists(export, family)
        count += sum(1 for _ in export.of(f"{top} firewall address-list"))
        compiler = Compiler(export, family, known, tracked)
        for name in ("raw", "mangle", "nat", "filter"):
            statements = list(export.of(f"{top} firewall {name}"))
            count += len(statements)
            if name == "mangle" and not any(one.properties.get("action", "") in _CHANGING for one in statements):
                continue
            first = statements[0].line if statements else 1
            table = Table(_FAMILY[family], name, export.sections.get(f"{top} firewall {name}", first))
            for one in statements:
                found.lines[one.line - 1] = one.text
            _fill(table, statements, compiler)
            if name == "filter":
                _sessions(table, family, places)
                _offloading(table, export)
            if statements or name == "filter":
                found.tables[table.family, name] = table
    return found, count


_CHANGING = frozenset("change-dscp change-ttl change-hop-limit strip-ipv4-options".split())


def _fill(table: Table, statements: Sequence[Statement], compiler: Compiler) -> None:
    spoiled: list[Rule] = []
    for one in statements:
        if one.verb == "add" and "place-before" not in one.properties:  # which is in scripts, and in no export
            chain = _chain(table, one.properties.get("chain", ""), one.line)
            chain.rules += compiler.rules(one)
        elif one.verb != "print":
            spoiled.append(compiler.spoiled(one))
            _chain(table, {"raw": "prerouting", "nat": "dstnat"}.get(table.name, "forward"), one.line)
    if table.name == "filter":
        _chain(table, "forward", table.line)
    for chain in list(table.chains.values()):
        chain.rules[:0] = spoiled
        for rule in chain.rules:
            target = next((part.target for part in rule.parts or () if isinstance(part, Verdict) and part.target), "")
            if target:
                _chain(table, target, rule.line)  # without rules: the packet goes back


def _chain(table: Table, name: str, line: int) -> Chain:
    if name not in table.chains:
        hook, priority, kind = _STAGES.get((table.name, name), ("", 0, ""))
        table.chains[name] = Chain(name, line, hook=hook, kind=kind, priority=priority, policy=PERMIT)
    return table.chains[name]


def _sessions(table: Table, family: int, places: Places) -> None:
    """The jumps that sessions of a PPP profile add to the chain ppp."""
    if "ppp" not in table.chains:
        return
    chain = table.chains["ppp"]
    jumps = []
    for name, one in places.profiles():
        for side, key in (("in", "incoming-filter"), ("out", "outgoing-filter")):
            target = one.properties.get(key, "")
            if not target:
                continue
            parts: list[Test | Narrow | Verdict] = [
                Test((Selector("interface", side),), ((PROFILE + name,),)), Verdict("jump", target, one.line)
            ]  # fmt: skip
            if chain.rules:
                parts.insert(0, Narrow("where among the rules of ppp the session's jump stands is not documented"))
            if family == 6:
                parts.insert(0, Narrow("whether a session's filter is for IPv6 too is not documented"))
            _chain(table, target, one.line)
            jumps.append(Rule([], one.line, list(parts)))
    chain.rules[:0] = jumps


def _offloading(table: Table, export: Export) -> None:
    for one in export.of("interface ethernet switch"):
        if one.properties.get("l3-hw-offloading") == "yes":
            reason = "the switch forwards past the firewall where l3-hw-offloading takes the route"
            forward = _chain(table, "forward", one.line)
            forward.rules.insert(0, Rule([], one.line, [Narrow(reason), Verdict(PERMIT, line=one.line)]))


def _tracked(export: Export) -> bool:
    return all(one.properties.get("enabled") != "no" for one in export.of("ip firewall connection tracking"))


def _asked(export: Export) -> list[str]:
    """The attachments that rules name, each once."""
    found: dict[str, None] = {}
    for one in export.of(*(f"{top} firewall {name}" for top in _TOP.values() for name in ("filter", "raw"))):
        for name, value in one.properties.items():
            named = _NAMED.fullmatch(name)
            plain = value.removeprefix("!")
            if named and plain and not one.disabled and plain not in ("all", "none", "static", "dynamic", "all-ppp"):
                found[f"{LIST}{plain}" if named[1] else plain] = None
    return list(found)


def _described(export: Export, places: Places, one: Interface) -> Interface:
    """With the line that checks sources there, and the one that lets a RADIUS server filter sessions."""
    strict = next((each for each in export.of("ip settings") if each.properties.get("rp-filter") == "strict"), None)
    no_ipv6 = any(each.properties.get("disable-ipv6") == "yes" for each in export.of("ipv6 settings"))
    if strict:
        one = one.checked({4: (strict.text, strict.line)}, (4,) if no_ipv6 else (4, 6))
    radius = next((each for each in export.of("ppp aaa") if each.properties.get("use-radius") == "yes"), None)
    called = any(
        each.properties.get("jump-target") == "ppp" and not each.disabled
        for each in export.of("ip firewall filter", "ipv6 firewall filter")
    )
    if radius and called and (one.name.startswith(PROFILE) or places.sessions_of(one.name)):
        one = replace(one, sessions_from=radius.text, sessions_line=radius.line)
    return one


def _doubts(export: Export) -> Iterator[Doubt]:
    for number, line in export.strange:
        if not re.match(r":(?:put|global|local|delay|log|beep)\b[^\[;{]*$", line):  # what these say changes no rule
            yield Doubt(number, line[:200], "the line is no command of an export")
    for one in export.statements:
        if _RELEVANT.match(one.menu) and one.garbled:
            yield Doubt(one.line, one.text[:200], f"'{one.garbled[:60]}' is not understood")
        reason = _BESIDE.get(one.menu, lambda _: "")(one)
        if reason and not one.disabled:
            yield Doubt(one.line, one.text[:200], reason)


def _hotspot(one: Statement) -> str:
    return "a hotspot adds rules of its own above these" if one.verb == "add" else ""


def _bridge_filter(one: Statement) -> str:
    drops = one.verb == "add" and one.properties.get("action", "accept") not in ("accept", "passthrough", "log")
    return "a filter of a bridge may drop what subscribers send over one: it is not worked out" if drops else ""


def _bridge_settings(one: Statement) -> str:
    on = one.properties.get("use-ip-firewall") == "yes"
    return "what is bridged meets these rules too: it is not worked out" if on else ""


def _switch_rule(one: Statement) -> str:
    moves = one.verb == "add" and "new-dst-ports=" in one.text  # an empty value drops
    return "a rule of the switch decides before the router where packets go: it is not worked out" if moves else ""


def _routing_rule(one: Statement) -> str:
    drops = one.verb == "add" and one.properties.get("action") in ("drop", "unreachable")
    return "a routing rule drops packets: it is not worked out" if drops else ""


_BESIDE = {"ip hotspot": _hotspot, "interface bridge filter": _bridge_filter,
           "interface bridge settings": _bridge_settings, "interface ethernet switch rule": _switch_rule,
           "routing rule": _routing_rule, "ip route rule": _routing_rule}  # fmt: skip
