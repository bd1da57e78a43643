# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A RouterOS router: menus of items at a console that takes scripts, a scheduler, and /export.

Source of what it takes and prints: MikroTik's documentation, "Command Line Interface", "Scripting", "Scheduler",
"Filter". The words of rejections: [memory]. Every command acts at once; nothing is undone when a session ends.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from ..clock import Timer
from ..judge import Packet
from ..judges import mikrotik_routeros as judges
from .base import Router, Session

END = "# end of export"
WIDTH = 79
FILTERS = ("ip firewall filter", "ip firewall raw", "ipv6 firewall filter", "ipv6 firewall raw")
# The menus that this router has, in the order in which an export shows them; one with * holds settings, no items.
MENUS = (
    "interface bridge", "interface ethernet", "interface pppoe-server", "interface vlan", "interface ethernet switch",
    "interface list", "ip dhcp-server option", "ip hotspot profile", "ip pool", "ip dhcp-server", "ipv6 pool",
    "ppp profile", "routing bgp template", "snmp community", "system logging action", "user group",
    "interface bridge port", "interface bridge settings*", "ip firewall connection tracking*",
    "ip neighbor discovery-settings*", "ip settings*", "ipv6 settings*", "interface list member",
    "interface pppoe-server server", "ip address", "ip dhcp-client", "ip dhcp-server lease", "ip dhcp-server network",
    "ip dns*", "ip firewall address-list", "ip firewall filter", "ip firewall mangle", "ip firewall nat",
    "ip firewall raw", "ip route", "ip service", "ip ssh*", "ipv6 address", "ipv6 dhcp-server",
    "ipv6 firewall address-list", "ipv6 firewall filter", "ipv6 firewall raw", "ipv6 nd", "ipv6 route", "ppp aaa*",
    "ppp secret", "radius", "radius incoming*", "routing bgp connection", "routing ospf instance", "routing ospf area",
    "routing ospf interface-template", "snmp*", "system clock*", "system identity*", "system logging", "system note*",
    "system ntp client*", "system ntp client servers", "system scheduler", "system script", "tool mac-server*",
    "tool bandwidth-server*",
)  # fmt: skip
KNOWN = {menu.rstrip("*"): menu.endswith("*") for menu in MENUS}
VERBS = frozenset("add set remove move enable disable print unset".split())

# What a rule takes, and of which values.
MATCHERS = frozenset(
    "address-list address-list-timeout comment connection-bytes connection-limit connection-mark connection-nat-state "
    "connection-rate connection-state connection-type content dscp dst-address dst-address-list dst-address-type "
    "dst-limit dst-port fragment headers hop-limit hotspot hw-offload icmp-options in-bridge-port "
    "in-bridge-port-list in-interface in-interface-list ingress-priority ipsec-policy ipv4-options jump-target "
    "layer7-protocol limit log log-prefix nth out-bridge-port out-bridge-port-list out-interface out-interface-list "
    "packet-mark packet-size per-connection-classifier port priority protocol psd random realm reject-with "
    "routing-mark src-address src-address-list src-address-type src-mac-address src-port tcp-flags tcp-mss time "
    "tls-host ttl disabled chain action place-before copy-from".split()
)
ACTIONS = frozenset(
    "accept add-dst-to-address-list add-src-to-address-list drop fasttrack-connection jump log passthrough reject "
    "return tarpit".split()
)
RAW_ACTIONS = (ACTIONS | {"notrack"}) - {"fasttrack-connection", "reject", "tarpit"}


class Refused(Exception):
    """The words of a rejection."""


@dataclass(eq=False)
class Item:
    properties: dict[str, str]
    selector: str = ""  # of an item that is there from the beginning: [ find default-name=ether1 ]
    timer: Timer | None = None


@dataclass
class State:
    """The menus with their items; a menu of settings has one."""

    header: list[str]
    menus: dict[str, list[Item]] = field(default_factory=lambda: {menu: [] for menu in KNOWN})

    def export(self) -> Iterator[str]:
        yield from self.header
        for menu in KNOWN:
            rows = [line for item in self.menus[menu] if (line := _row(item, KNOWN[menu]))]
            if rows:
                yield f"/{menu}"
                for row in rows:
                    yield from _wrapped(row)

    def plain(self) -> judges.Menus:
        return {menu: [item.properties for item in items] for menu, items in self.menus.items()}


def _row(item: Item, settings: bool) -> str:
    shown = {name: value for name, value in item.properties.items() if value != "" and name != "default-name"}
    words = [f"{name}={_quoted(value)}" for name, value in sorted(shown.items())]
    if not words:
        return ""
    if settings or item.selector:
        return " ".join(word for word in ("set", item.selector, *words) if word)
    return " ".join(["add", *words])


@functools.lru_cache(maxsize=65536)
def _quoted(value: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9_.,:/!*<>@+-]+", value):
        return value
    return '"' + re.sub(r'(["\\$?])', r"\\\1", value) + '"'


@functools.lru_cache(maxsize=16384)
def _wrapped(row: str) -> tuple[str, ...]:
    """Long lines go on behind a backslash, four characters in."""
    found, line = [], ""
    for word in re.findall(r"(?:[^\s\"]|\"(?:[^\"\\]|\\.)*\")+", row):
        if line.strip() and len(line) + len(word) + 3 > WIDTH:
            found.append(f"{line} \\")
            line = "    " + word
        else:
            line = f"{line} {word}" if line else word
    return (*found, line)


def load(text: str) -> State:
    """From a text as /export prints it. Raises Refused for what this router does not take."""
    lines = text.split("\n")
    header = []
    while lines and lines[0].startswith("#") and lines[0] != END:
        header.append(lines.pop(0))
    state = State(header)
    console = Console(state, lambda *_: None)
    joined = re.sub(r"\\\n[ \t]*", "", "\n".join(lines))
    for line in joined.split("\n"):
        if line.strip() and not line.startswith("#"):
            console.run(line)
    return state


# --- the language --------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=16384)  # a push types the same lines again and again
def _split(text: str, mark: str) -> tuple[str, ...]:
    """At every mark that stands in no quotes and no brackets."""
    parts, depth, quoted, start, at = [], 0, False, 0, 0
    while at < len(text):
        character = text[at]
        if character == "\\" and quoted:
            at += 1
        elif character == '"':
            quoted = not quoted
        elif not quoted and character in "[{(":
            depth += 1
        elif not quoted and character in "]})":
            depth -= 1
        elif not quoted and not depth and character == mark:
            parts.append(text[start:at])
            start = at + 1
        at += 1
    if quoted or depth:
        raise Refused(f"expected closing brace (line 1 column {len(text) + 1})")
    return tuple(part.strip() for part in [*parts, text[start:]] if part.strip())


def _words(text: str) -> tuple[str, ...]:
    return _split(text, " ")


class Console:
    """Executes commands upon a state. `started` is called with the menu and the item of what was added or changed."""

    def __init__(self, state: State, started: Callable[[str, Item | None], None]) -> None:
        self.state = state
        self.started = started
        self.menu = ""
        self.changed = False

    def run(self, text: str) -> str:
        """All commands of a line; the output. Raises Refused, with what came before it in force."""
        return "".join(self.command(command) for command in _split(text, ";"))

    def command(self, command: str) -> str:
        words = _words(command)
        first = words[0]
        if first == ":put":
            return self.value(command[len(":put") :].strip()) + "\n"
        if first == ":error":
            raise Refused(self.value(command[len(":error") :].strip()))
        if first == ":if":
            return self.condition(words, command)
        if first.startswith(":"):
            raise Refused(f"bad command name {first[1:]} (line 1 column 2)")
        menu, verb, rest = self.path(words, command)
        if verb == "export":
            if rest not in ([], ["terse"]):
                raise Refused(f"expected end of command (line 1 column {len(command)})")
            if menu:
                raise Refused("failure: the lab exports all of it alone")
            return "".join(f"{line}\n" for line in self.state.export())
        if not verb:
            self.menu = menu
            return ""
        return self.act(menu, verb, rest, command)

    def path(self, words: Sequence[str], command: str) -> tuple[str, str, list[str]]:
        """The menu, the command in it and its arguments."""
        absolute = words[0].startswith("/")
        names = self.menu.split() if not absolute else []
        rest = [part for word in words[:1] for part in word.split("/") if part] + list(words[1:])
        while rest:
            name = rest[0]
            if name == "..":
                names = names[:-1]
            elif name == "export" or (name in VERBS and " ".join(names) in KNOWN):
                return " ".join(names), name, rest[1:]
            elif any(f"{menu} ".startswith(" ".join([*names, name]) + " ") for menu in KNOWN):
                names.append(name)
            else:
                parts = [part for part in name.split("/") if part]
                if len(parts) > 1:
                    rest = [*parts, *rest[1:]]
                    continue
                raise Refused(f"bad command name {name} (line 1 column {command.find(name) + 1})")
            rest = rest[1:]
        return " ".join(names), "", []

    def condition(self, words: Sequence[str], command: str) -> str:
        """:if (a = b) do={...} else={...}"""
        blocks = {word.partition("=")[0]: word.partition("=")[2] for word in words[2:]}
        if len(words) < 3 or not words[1].startswith("(") or set(blocks) - {"do", "else"} or "do" not in blocks:
            raise Refused(f"syntax error (line 1 column {len(command)})")
        found = re.fullmatch(r"\((.*) (=|!=|>|<) (.*)\)", words[1])
        if not found:
            raise Refused("syntax error (line 1 column 5)")
        left, right = self.value(found[1].strip()), self.value(found[3].strip())
        if found[2] in "<>":
            holds = int(left) > int(right) if found[2] == ">" else int(left) < int(right)
        else:
            holds = (left == right) == (found[2] == "=")
        block = blocks.get("do" if holds else "else", "{}")
        if not (block.startswith("{") and block.endswith("}")):
            raise Refused(f"syntax error (line 1 column {command.find(block) + 1})")
        inside = block[1:-1].strip()
        return self.run(inside) if inside else ""

    def value(self, text: str, menu: str = "") -> str:
        """A value as text; of several items the numbers, parted by semicolons."""
        if text.startswith('"'):
            if not re.fullmatch(r'"(?:[^"\\]|\\.)*"', text):
                raise Refused("syntax error (line 1 column 1)")
            return re.sub(r"\\(.)", r"\1", text[1:-1])
        if not text.startswith("["):
            return text
        words = _words(text[1:-1].strip())
        if words[0] == ":len":
            found = self.value(words[1], menu)
            return str(len(found.split(";")) if found else 0)
        if words[0] == ":pick":
            items = self.value(words[1], menu).split(";")
            return items[int(words[2])] if int(words[2]) < len(items) else ""
        if words[0] == "find":
            return self.find(menu, words[1:])
        at = words.index("find") if "find" in words else 0
        if not at:
            raise Refused(f"bad command name {words[0]} (line 1 column 1)")
        path, verb, _ = self.path(words[:at], text)
        if verb or path not in KNOWN:
            raise Refused(f"bad command name {words[0]} (line 1 column 1)")
        return self.find(path, words[at + 1 :])

    def find(self, menu: str, words: Sequence[str]) -> str:
        items = self.state.menus[menu]
        tests = [word for word in words if word != "where"]
        if any((word == "and") != bool(place % 2) for place, word in enumerate(tests)) or tests[-1:] == ["and"]:
            raise Refused("syntax error (line 1 column 1)")
        chosen = []
        for number, item in enumerate(items):
            if all(self.meets(item, test) for test in tests[::2]):
                chosen.append(str(number))
        return ";".join(chosen)

    def meets(self, item: Item, test: str) -> bool:
        found = re.fullmatch(r"([a-z0-9-]+)(=|!=|~)(.+)", test)
        if not found:
            raise Refused(f"expected end of command (line 1 column {len(test)})")
        name, how, wanted = found[1], found[2], self.value(found[3])
        is_so = item.properties.get(name, {"dynamic": "no", "disabled": "no"}.get(name, ""))
        if how == "~":
            return bool(re.search(wanted, is_so))
        return (is_so == wanted) == (how == "=")

    # Commands of a menu

    def act(self, menu: str, verb: str, rest: Sequence[str], command: str) -> str:
        settings = KNOWN[menu]
        positional = [word for word in rest if "=" not in re.split(r"[\"\[{]", word)[0]]
        given: dict[str, str] = {}
        for word in rest:
            if word in positional:
                continue
            name, _, text = word.partition("=")
            raw = text[1:-1] if text.startswith("{") and text.endswith("}") else None
            given[name] = raw if raw is not None else self.value(text, menu)
        if verb == "print":
            return "".join(f"{number:>2}  {_row(item, False)}\n" for number, item in enumerate(self.state.menus[menu]))
        if verb == "add":
            if settings or positional:
                raise Refused(f"bad command name add (line 1 column {command.find('add') + 1})")
            return self.add(menu, given, command)
        if verb == "set" and settings:
            items = self.state.menus[menu] or [Item({})]
            self.state.menus[menu] = items
        elif verb == "set" and positional and (origin := re.search(r"default-name=([^\s\]]+)", positional[0])):
            items = [one for one in self.state.menus[menu] if one.properties.get("default-name") == origin[1]]
            if not items:
                items = [Item({"default-name": origin[1]}, f"[ find default-name={origin[1]} ]")]
                self.state.menus[menu] += items
        elif verb == "set" and positional and re.fullmatch(r"[a-z*][a-zA-Z0-9*-]*", positional[0]):
            items = [one for one in self.state.menus[menu] if one.selector == positional[0]]
            if not items:
                items = [Item({}, positional[0])]
                self.state.menus[menu] += items
        else:
            items = self.chosen(menu, positional, command)
        if verb == "set":
            for item in items:
                changed = {**item.properties, **given}
                self.check(menu, changed, given, command)
                before, item.properties = item.properties, changed
                self.touched(menu, item, before != changed)
                self.started(menu, item)
        elif verb in ("enable", "disable"):
            for item in items:
                item.properties["disabled"] = "yes" if verb == "disable" else ""
                self.touched(menu, item, True)
        elif verb == "remove":
            for item in items:
                self.state.menus[menu].remove(item)
                self.touched(menu, None, True)
        else:
            raise Refused(f"bad command name {verb} (line 1 column {command.find(verb) + 1})")
        return ""

    def chosen(self, menu: str, positional: Sequence[str], command: str) -> list[Item]:
        if len(positional) != 1:
            raise Refused(f"missing value(s) of argument(s) numbers (line 1 column {len(command)})")
        numbers = self.value(positional[0], menu)
        items = self.state.menus[menu]
        found = []
        for number in numbers.split(";") if numbers else []:
            if not number.isdecimal() or int(number) >= len(items):
                raise Refused("no such item")
            found.append(items[int(number)])
        return found

    def add(self, menu: str, given: dict[str, str], command: str) -> str:
        before = given.pop("place-before", None)
        self.check(menu, given, given, command)
        item = Item(given)
        items = self.state.menus[menu]
        if before is None:
            items.append(item)
        elif not before.isdecimal() or int(before) >= len(items):
            raise Refused("no such item")
        else:
            items.insert(int(before), item)
        self.touched(menu, item, True)
        self.started(menu, item)
        return ""

    def touched(self, menu: str, item: Item | None, changed: bool) -> None:
        if changed:
            self.changed = True
            self.started("", item)

    # What is taken

    def check(self, menu: str, whole: dict[str, str], given: dict[str, str], command: str) -> None:
        if menu in FILTERS:
            self.check_rule(menu, whole, command)
        elif menu.endswith("firewall address-list"):
            there = [(one.properties.get("list"), one.properties.get("address")) for one in self.state.menus[menu]]
            if given is whole and (given.get("list"), given.get("address")) in there:
                raise Refused("failure: already have such entry")
        elif menu in ("system scheduler", "system script", "interface list", "ppp profile") and given is whole:
            names = [one.properties.get("name") for one in self.state.menus[menu]]
            if given.get("name") in names:
                raise Refused(f"failure: item with such name already exists ({given.get('name')})")

    def check_rule(self, menu: str, rule: dict[str, str], command: str) -> None:
        family = 6 if menu.startswith("ipv6") else 4
        for name in rule:
            if name not in MATCHERS or (family == 4 and name in ("headers", "hop-limit")):
                raise Refused(f"expected end of command (line 1 column {command.find(name) + 1})")
        if not rule.get("chain"):
            raise Refused("missing value(s) of argument(s) chain")
        actions = RAW_ACTIONS if menu.endswith("raw") else ACTIONS - ({"tarpit"} if family == 6 else set())
        if rule.get("action", "accept") not in actions:
            raise Refused("input does not match any value of action")
        if rule.get("action") == "jump" and not rule.get("jump-target"):
            raise Refused("failure: jump target must be specified")
        protocol = rule.get("protocol", "").removeprefix("!")
        if protocol and protocol not in judges.PROTOCOLS and not (protocol.isdecimal() and int(protocol) < 256):
            raise Refused("input does not match any value of protocol")
        ported = {"tcp", "udp", "udp-lite", "dccp", "sctp", "6", "17", "33", "132", "136"}
        if any(rule.get(name) for name in ("src-port", "dst-port", "port")) and rule.get("protocol") not in ported:
            raise Refused("failure: ports can be specified if proto is set to tcp,udp,udp-lite,dccp,sctp")
        if rule.get("tcp-flags") and protocol not in ("tcp", "6"):
            raise Refused("failure: tcp options can be specified if proto is set to tcp")
        for name in ("src-address", "dst-address"):
            self.check_address(name, rule.get(name, ""), family)
        for name in ("src-port", "dst-port", "port"):
            self.check_ports(name, rule.get(name, ""))
        for side in ("in", "out"):
            self.check_interface(rule, side)

    @staticmethod
    def check_address(name: str, value: str, family: int) -> None:
        text = value.removeprefix("!")
        if not text:
            return
        try:
            for end in text.split("-"):
                if ipaddress.ip_network(end, strict=False).version != family:
                    raise ValueError
        except ValueError:
            raise Refused(f"invalid value for argument {name}") from None

    @staticmethod
    def check_ports(name: str, value: str) -> None:
        words = value.removeprefix("!").split(",") if value else []
        ends = [end for word in words for end in word.split("-")]
        if len(words) > 15 or any(not end.isdecimal() or int(end) > 65535 for end in ends):
            raise Refused(f"value of {name} expects range of integer numbers (0..65535)")

    def check_interface(self, rule: dict[str, str], side: str) -> None:
        listed = rule.get(f"{side}-interface-list", "").removeprefix("!")
        if listed and listed not in {"all", "none", "dynamic", "static"} | {
            one.properties.get("name") for one in self.state.menus["interface list"]
        }:
            raise Refused("input does not match any value of interface-list")
        if side == "out" and listed + rule.get("out-interface", "") and rule["chain"] in ("input", "prerouting"):
            raise Refused("failure: outgoing interface matching not possible in input and prerouting chains")
        name = rule.get(f"{side}-interface", "").removeprefix("!")
        there = {
            one.properties.get("name") or one.properties.get("default-name")
            for menu, items in self.state.menus.items()
            if menu.startswith("interface ")
            for one in items
        }
        if name and name not in there and not name.startswith(("all-", "*")):
            raise Refused(f"input does not match any value of {side}-interface")


# --- the router ----------------------------------------------------------------------------------------------------


class RouterOsSession(Session):
    router: Device

    def __init__(self, router: Router) -> None:
        super().__init__(router)
        self._menu = ""
        self._configuring = False

    @property
    def banner(self) -> str:
        return "\n  MikroTik RouterOS 7.15.3 (c) 1999-2024       https://www.mikrotik.com/\n\nPress F1 for help\n\n"

    @property
    def prompt(self) -> str:
        place = "/" + self._menu.replace(" ", "/") if self._menu else ""
        return f"[audit@{self.router.identity}] {place}> "

    @property
    def configuring(self) -> bool:
        return self._configuring

    def is_protocol(self, line: str) -> bool:
        return not re.search(r" add chain=", line)

    def rejection(self, line: str) -> str:
        return f"expected end of command (line 1 column {len(line)})\n"

    def command(self, line: str) -> str:
        if line.strip() in ("quit", "/quit"):
            self.closed = True
            return ""
        if not line.strip():
            return ""
        console = self.router.console_of(self._menu)
        try:
            output = console.run(line)
        except Refused as refused:
            output = f"{refused}\n"
        self._menu = console.menu
        self._configuring = self._configuring or console.changed
        return output


class Device(Router):
    session_class = RouterOsSession

    def __init__(self, name: str, text: str, enable_secret: str = "") -> None:
        super().__init__(name, text, enable_secret)
        self.state = load(text)
        self._scene: judges.Scene | None = None  # of the state as it is, and its text
        self._text = ""

    @property
    def identity(self) -> str:
        items = self.state.menus["system identity"]
        return items[0].properties.get("name", "MikroTik") if items else "MikroTik"

    def login_name(self, user: str) -> str:
        """Behind a plus come settings of the terminal (MikroTik, "Command Line Interface")."""
        return user.partition("+")[0]

    def console_of(self, menu: str) -> Console:
        console = Console(self.state, self._started)
        console.menu = menu
        return console

    def _started(self, menu: str, item: Item | None) -> None:
        """A change, or (`menu` is set) an item that was added or set."""
        if not menu:
            self.changed()
            return
        if menu == "system scheduler" and item is not None and item.timer is None:
            found = re.fullmatch(r"(?:(\d+)m)?(?:(\d+)s)?", item.properties.get("interval", ""))
            if found and found.group():
                seconds = 60 * int(found[1] or 0) + int(found[2] or 0)
                self._again(item, seconds)

    def _again(self, item: Item, seconds: int) -> None:
        item.timer = self.clock.call_later(seconds, lambda: self._fire(item, seconds))

    def _fire(self, item: Item, seconds: int) -> None:
        if item not in self.state.menus["system scheduler"]:
            return
        self._again(item, seconds)
        if item.properties.get("disabled") != "yes":
            try:
                self.console_of("").run(item.properties.get("on-event", ""))
            except Refused:
                return  # a script that fails ends, and the log has a line more

    def snapshot(self) -> str:
        self._text = self._text or "".join(f"{line}\n" for line in [*self.state.export(), END])
        return self._text

    def changed(self) -> None:
        self._scene, self._text = None, ""
        super().changed()

    def judge(self, attachment: str, direction: str, packet: Packet) -> str:
        self._scene = self._scene or judges.Scene(self.state.plain())
        return self._scene.judge(attachment, direction, packet)
