# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A Cisco IOS XR router: lines go into a session's own target, and act at its commit, all of them together.

Sources of the behaviour: Cisco, ASR 9000 Getting Started Guide, "Managing Configuration Sessions"; transcripts of an
XRv 9000 24.3.1 (xr-live-facts in ArchRuger/CLAB-BACKUP-WORKER-v2): who can confirm a trial, the words for others, the
questions at `end`. [memory]: a list that is missing or has no lines permits all; later IPv6 fragments do not match
ports; a commit that deletes a bound list, or binds one without lines, fails; a lost session's lock is free at once.
"""

from __future__ import annotations

import datetime
import ipaddress
import re
from collections.abc import Iterator, Mapping

from ..ace import Address, Dialect, Entry, Rejected, read
from ..cli import Command, Configuration, IndentedSession, Path, known
from ..clock import Timer
from ..indented import Block
from ..judge import Packet
from .base import Router

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_PROTOCOLS = {
    "icmp": 1, "igmp": 2, "ipinip": 4, "tcp": 6, "udp": 17, "gre": 47, "esp": 50, "ahp": 51, "eigrp": 88, "ospf": 89,
    "nos": 94, "pim": 103, "pcp": 108, "sctp": 132,
}  # fmt: skip
_TCP = {
    "bgp": 179, "chargen": 19, "cmd": 514, "daytime": 13, "discard": 9, "domain": 53, "echo": 7, "exec": 512,
    "finger": 79, "ftp": 21, "ftp-data": 20, "gopher": 70, "hostname": 101, "ident": 113, "irc": 194, "klogin": 543,
    "kshell": 544, "ldp": 646, "login": 513, "lpd": 515, "nntp": 119, "pim-auto-rp": 496, "pop2": 109, "pop3": 110,
    "smtp": 25, "ssh": 22, "sunrpc": 111, "tacacs": 49, "talk": 517, "telnet": 23, "time": 37, "uucp": 540,
    "whois": 43, "www": 80,
}  # fmt: skip
_UDP = {
    "biff": 512, "bootpc": 68, "bootps": 67, "discard": 9, "dnsix": 195, "domain": 53, "echo": 7, "isakmp": 500,
    "ldp": 646, "mobile-ip": 434, "nameserver": 42, "netbios-dgm": 138, "netbios-ns": 137, "netbios-ss": 139,
    "ntp": 123, "pim-auto-rp": 496, "rip": 520, "snmp": 161, "snmptrap": 162, "sunrpc": 111, "syslog": 514,
    "tacacs": 49, "talk": 517, "tftp": 69, "time": 37, "who": 513, "xdmcp": 177,
}  # fmt: skip
_ICMP: dict[str, tuple[int, int | None]] = {
    "administratively-prohibited": (3, 13), "echo": (8, None), "echo-reply": (0, None), "host-unreachable": (3, 1),
    "net-unreachable": (3, 0), "packet-too-big": (3, 4), "parameter-problem": (12, None), "port-unreachable": (3, 3),
    "redirect": (5, None), "source-quench": (4, None), "time-exceeded": (11, None), "traceroute": (30, None),
    "ttl-exceeded": (11, 0), "unreachable": (3, None),
}  # fmt: skip
_ICMP6: dict[str, tuple[int, int | None]] = {
    "echo": (128, None), "echo-reply": (129, None), "nd-na": (136, None), "nd-ns": (135, None),
    "packet-too-big": (2, None), "parameter-problem": (4, None), "port-unreachable": (1, 4),
    "router-advertisement": (134, None), "router-solicitation": (133, None), "time-exceeded": (3, None),
}  # fmt: skip

IPV4 = Dialect(4, "ipv4", _PROTOCOLS, _TCP, _UDP, _ICMP, True, True, "", True, False, "net-group", False, {}, True)
IPV6 = Dialect(
    6, "ipv6", {"icmpv6": 58, "tcp": 6, "udp": 17, "esp": 50, "ahp": 51, "pcp": 108, "sctp": 132},
    _TCP, _UDP, _ICMP6, True, True, "", False, False, "net-group", False,
    {"hop-by-hop": 1, "routing": 2, "destopts": 4}, True,
)  # fmt: skip

_SIDES = {"up": "ingress", "down": "egress"}
_TEMPLATES = "dynamic-template"
_SECONDS = range(30, 65536)


class XrConfiguration(Configuration):
    lists: Mapping[str, Dialect] = {"ipv4 access-list": IPV4, "ipv6 access-list": IPV6}
    bindings: Mapping[int, str] = {4: "ipv4 access-group", 6: "ipv6 access-group"}
    openers = (
        "object-group (?:network ipv[46]|port) \\S+$", "router ", "line ", "class-map ", "policy-map ", "vrf ",
        "control-plane$", "pool ", "prefix-set ", "route-policy ", "ntp$", "ssh ", "mpls ", "lldp$", "snmp-server ",
        "bba-group ", "pppoe bba-group ", "dhcp ", "lpts ", "key chain ", "radius ", "aaa group ", "taskgroup ",
        "usergroup ", "telemetry ", "grpc$", "netconf",
    )  # fmt: skip
    global_words = known(
        "aaa authentication, aaa authorization, aaa accounting, aaa group, banner, bba-group, cdp, class-map, clock, "
        "control-plane, dhcp, domain, fpd, grpc, hostname, interface, ipv4, ipv6 access-list, ipv6 nd, key, line, "
        "lldp, logging, lpts, mpls, netconf, netconf-yang, ntp, object-group, policy-map, pool, pppoe, prefix-set, "
        "radius-server, route-policy, router, service, snmp-server, ssh, subscriber, tacacs-server, taskgroup, "
        "tcp, telemetry, telnet, usergroup, username, vrf, vty-pool"
    )
    interface_words = known(
        "arp, bandwidth, bundle, carrier-delay, cdp, description, dhcp, encapsulation, ethernet, flow, "
        "ethernet-services, ipsubscriber, ipv4 access-group, ipv4 address, ipv4 directed-broadcast, ipv4 "
        "helper-address, ipv4 mtu, ipv4 point-to-point, ipv4 unnumbered, ipv4 unreachables, ipv4 verify, ipv6 "
        "access-group, ipv6 address, ipv6 enable, ipv6 mtu, ipv6 nd, ipv6 unreachables, ipv6 verify, l2transport, "
        "lacp, lldp, load-interval, mac-address, mtu, ppp, pppoe, rewrite, service-policy, shutdown, speed, "
        "transceiver, vrf"
    )
    template_words = known(
        "accounting, dhcpv6, ipv4 access-group, ipv4 mtu, ipv4 unnumbered, ipv4 unreachables, ipv4 verify, ipv6 "
        "access-group, ipv6 enable, ipv6 mtu, ipv6 nd, ipv6 verify, ppp, qos, service-policy, timeout, vrf"
    )
    mode_words = known(
        "accept-lifetime, address-family, address-range, advertisement, aggregate-address, allow, apply, area, "
        "authenticator, bfd, bgp, circuit-type, class, description, end-class-map, end-policy, end-policy-map, "
        "end-set, eq, exclude, exec-timeout, host, inband, interface, is-type, key, key-string, match, metric, "
        "metric-style, neighbor, neighbor-group, net, network, nsr, object-group, pass, passive, password, peer, "
        "police, port, priority, range, rd, remote-as, route-policy, route-target, server, session-group, set, shape, "
        "source, timers, transport, update-source, use"
    )
    interface_name = re.compile(
        "GigabitEthernet|TenGigE|HundredGigE|TwentyFiveGigE|FortyGigE|Bundle-Ether|Loopback|MgmtEth|BVI|Null|tunnel-ip"
    )
    ports = re.compile("GigabitEthernet|TenGigE|HundredGigE|TwentyFiveGigE|FortyGigE|MgmtEth")
    single = (*Configuration.single, "ipv4 mtu", "ipv4 unnumbered", "ipv4 verify unicast source", "vrf")
    order = (
        "description", "mtu", "service-policy", "vrf", "ipv4 point-to-point", "ipv4 unnumbered", "ipv4 address",
        "ipv4 verify", "ipv6 verify", "ipv6 nd", "ipv6 address", "ipv6 enable", "load-interval", "encapsulation",
        "ipv4 access-group", "ipv6 access-group",
    )  # fmt: skip

    def __init__(self, text: str) -> None:
        lines = text.splitlines()
        # What stands above the first line of the configuration says when it was printed.
        while lines and re.match(r"!! |\w{3} \w{3} [ \d]\d [\d:.]+ \w+$", lines[0]):
            del lines[0]
        super().__init__("\n".join([*lines, ""]))

    def hostname(self) -> str:
        found = self.root.find("hostname")
        return found.line.split()[1] if found else "ios"

    def _in_mode(self, path: Path, line: str) -> bool | str | None:
        if path[0] != _TEMPLATES:
            return super()._in_mode(path, line)
        negative, body = _negative(line)
        words = body.lower().split()
        if len(path) == 1 or not ({words[0], " ".join(words[:2])} & self.template_words):
            return None
        if words[1:2] == ["access-group"]:
            return self._bind(self.block(path), line)
        return self._set(self.block(path), negative, body)

    def _global(self, line: str) -> tuple[Path, bool]:
        words = line.split()
        if words[0].lower() != _TEMPLATES:
            return super()._global(line)
        if len(words) < 4 or words[1] != "type" or words[2] not in ("ppp", "ipsubscriber", "service"):
            raise Rejected(None if len(words) < 4 else line.index(words[1]))
        path = (_TEMPLATES, " ".join(words[1:4]))
        there = self.place(" ".join(words[:4])) is not None
        self.block(path)
        return path, not there

    def _entry(self, block: Block, dialect: Dialect, line: str) -> bool:
        """A line whose number is there takes the place of that line."""
        words = line.split()
        if words[0].isdecimal() and words[0] != "0":
            entry = read(line, dialect)
            old = next((one for one in self.entries(block, dialect) if one.number == entry.number), None)
            if old is not None and old.text != entry.text:
                super()._entry(block, dialect, f"no {entry.number}")
        return super()._entry(block, dialect, line)

    def _bind(self, block: Block, line: str) -> bool:
        negative, body = _negative(line)
        words = body.split()
        sides = [index for index, word in enumerate(words) if word in _SIDES.values()]
        if len(words) < 3 or not sides:
            raise Rejected(None if len(words) < 4 else line.rindex(words[-1]))
        lists, rest = words[2 : sides[0]], words[sides[0] + 1 :]
        common = lists[:1] == ["common"]
        wrong = [word for word in rest if word not in ("hardware-count", "interface-statistics")]
        if wrong or len(lists) > (3 if common else 1) or (not lists and not negative):
            raise Rejected(line.rindex(wrong[0] if wrong else words[2]))
        if common and words[sides[0]] == "egress":
            raise Rejected(line.rindex("egress"))
        side = words[sides[0]]
        old = next((one for one in block.children if _bound(one.line, words[0], side)), None)
        if negative:
            if old is None:
                return False
            block.children.remove(old)
            return True
        wanted = " ".join(words)
        if old is not None:
            changed, old.line = old.line != wanted, wanted
            return changed
        self._place(block, wanted)
        return True

    def place(self, attachment: str) -> Block | None:
        """The block of an interface or a template."""
        if attachment.startswith(f"{_TEMPLATES} "):
            templates = self.root.find(_TEMPLATES)
            name = attachment.partition(" ")[2]
            return next((one for one in templates.children if one.line == name), None) if templates else None
        wanted = (f"interface {attachment}", f"interface {attachment} l2transport")
        return next((one for one in self.root.children if one.line in wanted), None)

    def judge(self, attachment: str, direction: str, packet: Packet) -> str:
        block = self.place(attachment)
        if block is None:
            raise KeyError(f"{self.hostname()} has no {attachment}")
        family = f"ipv{packet.family}"
        bound = next((one.line.split() for one in block.children if _bound(one.line, family, _SIDES[direction])), [])
        names = [word for word in bound[2 : bound.index(_SIDES[direction])] if word != "common"] if bound else []
        verdict = self._searched(names, packet) if names else "permit"
        return verdict if verdict == "deny" or direction == "down" else self.source_check(block, packet)

    def _searched(self, names: list[str], packet: Packet) -> str:
        """The lists as one, from top to bottom."""
        entries = [entry for name in names for entry in self.named(name, packet.family) if entry.action != "remark"]
        if not entries:
            return "permit"
        for entry in entries:
            if entry.matches(packet, lambda name: self._members(packet.family, name)):
                return entry.action
        nd = packet.family == 6 and packet.protocol == 58 and packet.layer4 and packet.icmp_type in (135, 136)
        return "permit" if nd else "deny"

    def named(self, name: str, family: int) -> list[Entry]:
        """The lines of a list; none where it is missing."""
        header = f"ipv{family} access-list {name}"
        block = next((one for one in self.root.children if one.line == header), None)
        lines = Block("")
        lines.children = [one for one in block.children if one.line != "!"] if block else []
        return self.entries(lines, self.lists[f"ipv{family} access-list"])

    def _members(self, family: int, name: str) -> tuple[Address, ...]:
        """The addresses of a group, or with `port` before its name its ranges of ports; an empty one holds nothing."""
        kind, _, ports = name.partition(" ")
        return tuple(self._ports(ports)) or ((1, 0),) if kind == "port" and ports else tuple(self._group(family, name))

    def _ports(self, name: str) -> Iterator[tuple[int, int]]:
        block = next((one for one in self.root.children if one.line == f"object-group port {name}"), None)
        for child in block.children if block else ():
            if child.line.startswith("object-group "):
                yield from self._ports(child.line.split()[1])
            elif not child.line.startswith("description"):
                ports = read(f"permit tcp any any {child.line}", IPV4).destination_ports
                yield from ports if isinstance(ports, tuple) else ()

    def _group(self, family: int, name: str) -> Iterator[Address]:
        block = next(
            (one for one in self.root.children if one.line == f"object-group network ipv{family} {name}"), None
        )
        for child in block.children if block else ():
            words = child.line.split()
            if words[0] == "object-group":
                yield from self._group(family, words[1])
            elif words[0] == "range":
                ends = ipaddress.ip_address(words[1]), ipaddress.ip_address(words[2])
                for network in ipaddress.summarize_address_range(*ends):  # type: ignore[type-var]
                    yield int(network.network_address), int(network.netmask)
            elif words[0] == "host" or words[0][0].isdecimal():
                network = ipaddress.ip_network("/".join(words[-2:] if words[0] != "host" else words[1:]), strict=False)
                yield int(network.network_address), int(network.netmask)

    def source_check(self, interface: Block, packet: Packet) -> str:
        family = f"ipv{packet.family}"
        if interface.find(f"{family} verify unicast source reachable-via rx") is None:
            return "permit"
        source = ipaddress.ip_address(packet.source.to_bytes(4 if packet.family == 4 else 16, "big"))
        if source.is_unspecified or source.is_link_local:
            return "permit"
        own = self._connected(interface, family)
        name = interface.line.split()[1]
        behind = [prefix for prefix, way in self._static(family) if way == name or _reached(way, own)]
        return "permit" if any(source in prefix for prefix in own + behind) else "deny"

    def _connected(self, interface: Block, family: str) -> list[Network]:
        found: list[Network] = []
        for child in interface.children:
            words = child.line.split()
            if words[:2] == [family, "address"] and "link-local" not in words:
                found.append(
                    ipaddress.ip_network("/".join(words[2:4] if "/" not in words[2] else words[2:3]), strict=False)
                )
            elif words[:2] == [family, "unnumbered"] and (lender := self.place(words[2])) is not None:
                found += self._connected(lender, family)
        return found

    def _static(self, family: str) -> Iterator[tuple[Network, str]]:
        static = self.root.find("router static")
        routes = static.find(f"address-family {family} unicast") if static else None
        for child in routes.children if routes else ():
            words = child.line.split()
            if "/" in words[0] and len(words) > 1:
                yield ipaddress.ip_network(words[0]), words[1]

    def missing(self, before: XrConfiguration) -> list[str]:
        """Why a commit of this fails: lists that are bound and are gone or have no lines."""
        found = []
        for family in (4, 6):
            for name in sorted({name for block in self._places() for name in _names(block, f"ipv{family}")}):
                there = any(one.line == f"ipv{family} access-list {name}" for one in self.root.children)
                gone = not there and bool(before.named(name, family))
                if gone or (there and not any(one.action != "remark" for one in self.named(name, family))):
                    found.append(name)
        return found

    def _places(self) -> Iterator[Block]:
        for child in self.root.children:
            if child.line.startswith("interface "):
                yield child
            elif child.line == _TEMPLATES:
                yield from child.children


def _negative(line: str) -> tuple[bool, str]:
    found = re.match(r"\s*no\s+(?=\S)", line, re.IGNORECASE)
    return (True, line[found.end() :]) if found else (False, line.lstrip())


def _bound(line: str, family: str, side: str) -> bool:
    return line.startswith(f"{family} access-group ") and side in line.split()


def _names(block: Block, family: str) -> Iterator[str]:
    for child in block.children:
        words = child.line.split()
        if words[:2] == [family, "access-group"]:
            for word in words[2:]:
                if word in _SIDES.values():
                    break
                if word != "common":
                    yield word


def _reached(way: str, networks: list[Network]) -> bool:
    """A next hop lies in one of the networks."""
    try:
        hop = ipaddress.ip_address(way)
    except ValueError:
        return False
    return any(hop in network for network in networks)


_WAITING = "% Cannot commit because there is an unexpired trial/rollback session '00001000-00005b40-00000000'.\n"
_FAILED = """\
% Failed to commit one or more configuration items during a pseudo-atomic operation. All changes made have been \
reverted. Please issue 'show configuration failed [inheritance]' from this session to view the errors
"""
_TRIAL = """\

You are exiting after a 'commit confirm' with an active rollback session.  If you exit the configuration awaiting \
confirmation will not be confirmed and the router will immediately rollback to the previous configuration.
"""


class XrSession(IndentedSession):
    router: Device
    user_commands = ()

    def __init__(self, router: Router) -> None:
        super().__init__(router)
        self.target: XrConfiguration | None = None
        self.typed: list[tuple[Path, str]] = []  # what the target holds beside the running configuration
        self._asks = ""

    def name(self) -> str:
        return f"RP/0/RSP0/CPU0:{self.router.running.hostname()}"

    def mode_text(self) -> str:
        if not self.mode:
            return "config"
        kind = self.mode[0].rpartition(" ")[0]
        if kind == "interface":
            return "config-subif" if "." in self.mode[0] else "config-if"
        if self.mode[0] == _TEMPLATES:
            return "config-dynamic-template-type" if self.mode[1:] else "config-dynamic-template"
        return {"ipv4 access-list": "config-ipv4-acl", "ipv6 access-list": "config-ipv6-acl"}.get(
            kind, f"config-{self.mode[0].split()[0]}"
        )

    @property
    def prompt(self) -> str:
        if self._asks == "trial":
            return "Do you wish to exit? [no]: "
        if self._asks:
            return "Uncommitted changes found, commit them before exiting(yes/no/cancel)? [cancel]: "
        return super().prompt

    def is_protocol(self, line: str) -> bool:
        return bool(self._asks) or bool(re.match(r"\s*(end|exit|do|show|commit|abort|clear|root|!)\b|\s*!", line))

    def invalid(self, line: str, position: int) -> str:
        return f"{' ' * (len(self.prompt) + position)}^\n% Invalid input detected at '^' marker.\n"

    def incomplete(self, line: str) -> str:
        return "% Incomplete command.\n"

    def commands(self) -> Mapping[str, Command]:
        router = self.router
        return {
            "exit": self.logout, "logout": self.logout, "quit": self.logout,
            "terminal length *": lambda _: "", "terminal width *": lambda _: "",
            "show running-config": lambda _: router.running_text(),
            "show access-lists ipv4": lambda _: self._lists(4, ""),
            "show access-lists ipv4 *": lambda words: self._lists(4, words[0]),
            "show access-lists ipv6": lambda _: self._lists(6, ""),
            "show access-lists ipv6 *": lambda words: self._lists(6, words[0]),
            "show configuration sessions": lambda _: router.sessions_text(),
            "show version": lambda _: _VERSION,
            "configure": lambda _: self._configure(False), "configure terminal": lambda _: self._configure(False),
            "configure exclusive": lambda _: self._configure(True),
        }  # fmt: skip

    def _lists(self, family: int, name: str) -> str:
        output = []
        for child in self.router.running.root.children:
            header = child.line.split()
            if header[:2] == [f"ipv{family}", "access-list"] and name in ("", header[-1]):
                output.append(child.line)
                output += [f" {one.number} {one.text}" for one in self.router.running.named(header[-1], family)]
        return "".join(f"{line}\n" for line in output)

    def _configure(self, exclusive: bool) -> str:
        if exclusive:
            if self.router.trial:
                return "Cannot enter exclusive mode. A trial commit is underway in another configuration session.\n"
            if self.router.lock not in (None, self):
                return (
                    f"{self.router.sessions_text()}"
                    "Cannot enter exclusive mode. The Configuration Namespace is locked by another agent.\n"
                )
            self.router.lock = self
        self.mode = ()
        self.start_over()
        return ""

    def start_over(self) -> None:
        """The target holds no changes."""
        self.target, self.typed = None, []

    def leave(self) -> None:
        self.mode = None
        self.start_over()
        if self.router.lock is self:
            self.router.lock = None

    def hang_up(self) -> None:
        self.leave()

    def interrupt(self, key: str) -> str:
        if self._asks:
            self._asks = ""
            return ""
        return self.command("end") if key == "z" and self.mode is not None else ""

    def command(self, line: str) -> str:
        if self._asks:
            return self._answered(line.strip().lower())
        words = line.split()
        if (
            self.mode is not None
            and words
            and (words[0].lower() == "end" or (words[0].lower() == "exit" and not self.mode))
        ):
            if self.router.trial and self.router.trial.owner is self:
                self._asks = "trial"
                return _TRIAL
            if self.typed:
                self._asks = "changes"
                return ""
            self.leave()
            return ""
        return super().command(line)

    def _answered(self, answer: str) -> str:
        asked, self._asks = self._asks, ""
        if asked == "trial":
            if answer in ("y", "yes"):
                self.router.take_back()
                self.leave()
            return ""
        if answer in ("y", "yes"):
            output = self.router.commit(self, 0)
            if output:
                return output
            self.leave()
        elif answer in ("n", "no"):
            self.leave()
        return ""

    def configure(self, line: str) -> str:
        words = line.split()
        first = words[0].lower()
        if first == "show":
            return self.exec(line)
        if first == "commit":
            return self._commit([word.lower() for word in words[1:]], line)
        if first == "abort" and len(words) == 1:
            self.leave()
            return ""
        if first == "clear" and len(words) == 1:
            self.start_over()
            return ""
        if first == "root" and len(words) == 1:
            self.mode = ()
            return ""
        if self.target is None:
            self.target = XrConfiguration(self.router.running.text())
        before = self.mode or ()
        self.mode, _ = self.target.enter(before, line)
        self.typed.append((before, line))
        return ""

    def _commit(self, words: list[str], line: str) -> str:
        seconds = 0
        if words[:1] == ["confirmed"]:
            minutes = words[1:2] == ["minutes"]
            said = words[2 if minutes else 1 :]
            if not said:
                raise Rejected(None)
            seconds = int(said[0]) * (60 if minutes else 1) if said[0].isdecimal() else 0
            if len(said) > 1 or seconds not in _SECONDS:
                raise Rejected(line.rindex(said[-1]))
        elif words and words[0] not in ("label", "comment"):
            raise Rejected(line.lower().index(words[0], len("commit")))
        return self.router.commit(self, seconds)


class Trial:
    """A commit that waits for its confirmation."""

    def __init__(self, owner: XrSession, timer: Timer, text: str) -> None:
        self.owner = owner
        self.timer = timer
        self.text = text  # of the configuration to go back to


class Device(Router):
    session_class = XrSession

    def __init__(self, name: str, text: str, enable_secret: str = "") -> None:
        super().__init__(name, text)  # there is no enable secret
        self.running = XrConfiguration(text)
        self.lock: XrSession | None = None
        self.trial: Trial | None = None
        self._printed: tuple[str, str] = ("", "")
        self._changed = "Wed Nov 18 09:41:27 2026 by noc"

    def snapshot(self) -> str:
        with self.clock.lock:
            self.clock.settle()
            return self.running_text()

    def judge(self, attachment: str, direction: str, packet: Packet) -> str:
        return self.running.judge(attachment, direction, packet)

    def running_text(self) -> str:
        text = self.running.text()
        if self._printed[0] is not text:
            now = datetime.datetime.now(datetime.UTC)
            head = (
                f"{now:%a %b} {now.day:2} {now:%H:%M:%S}.{now.microsecond // 1000:03} UTC\n"
                "!! Building configuration...\n"
                "!! IOS XR Configuration 7.5.2\n"
                f"!! Last configuration change at {self._changed}\n"
            )
            self._printed = text, head + text
        return self._printed[1]

    def sessions_text(self) -> str:
        rows = ["Current Configuration Session  Line       User     Date                     Lock"]
        for number, one in enumerate(self.sessions):
            if isinstance(one, XrSession) and one.mode is not None:
                lock = " *" if self.lock is one else ""
                rows.append(f"00001000-{number:08x}-00000000     vty0       audit    Thu Nov 26 10:00:00 2026{lock}")
        return "".join(f"{row}\n" for row in rows) if len(rows) > 1 else ""

    def commit(self, session: XrSession, seconds: int) -> str:
        """Merge what a session has typed into the running configuration, or confirm its trial. A refusal, or ''."""
        if self.trial:
            if self.trial.owner is not session:
                if not session.typed:
                    return "No configuration changes to commit.\n"
                return _WAITING
            if session.typed:
                return _WAITING
            self.clock.cancel(self.trial.timer)
            self.trial = None
            return "% Confirming commit for trial session.\n"
        if not session.typed:
            return "No configuration changes to commit.\n"
        if self.lock not in (None, session):
            return "% Cannot commit: the configuration is locked by another session.\n"
        new = XrConfiguration(self.running.text())
        for path, line in session.typed:
            new.enter(path, line)
        if new.missing(self.running):
            session.start_over()
            return _FAILED
        old = self.running.text()
        self._take(new)
        if seconds:
            self.trial = Trial(session, self.clock.call_later(seconds, self.take_back), old)
            self.lock = None
        session.start_over()
        return ""

    def take_back(self) -> None:
        """The timer of a trial has run out, or its session has left."""
        if self.trial:
            self.clock.cancel(self.trial.timer)
            text, self.trial = self.trial.text, None
            self._take(XrConfiguration(text))

    def _take(self, configuration: XrConfiguration) -> None:
        self.running = configuration
        self._changed = f"{datetime.datetime.now(datetime.UTC):%a %b %d %H:%M:%S %Y} by audit"
        self.changed()


_VERSION = """\
Cisco IOS XR Software, Version 7.5.2
Copyright (c) 2013-2022 by Cisco Systems, Inc.

Build Information:
 Version      : 7.5.2

cisco ASR9K () processor
System uptime is 31 weeks 2 days 4 hours 12 minutes
"""
