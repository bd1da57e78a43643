# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A Cisco IOS-XE router: every line acts at once, and `configure terminal revert timer` takes it all back.

Sources of the behaviour: Cisco, "Configuration Rollback Confirmed Change"; "IP Access List Entry Sequence Numbering";
"IPv6 Access Control Lists" (implicit neighbour discovery permits). [memory]: the words of refusals other than
"Invalid input", "Incomplete command" and "Duplicate sequence number"; later IPv6 fragments meet a list as IPv4 ones do.
"""

from __future__ import annotations

import datetime
import ipaddress
import re
from collections.abc import Mapping

from ..ace import Address, Dialect
from ..cli import Command, Configuration, IndentedSession, Refusal, known
from ..clock import Timer
from ..indented import Block, render
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
    "kshell": 544, "login": 513, "lpd": 515, "msrpc": 135, "nntp": 119, "pim-auto-rp": 496, "pop2": 109, "pop3": 110,
    "smtp": 25, "sunrpc": 111, "syslog": 514, "tacacs": 49, "talk": 517, "telnet": 23, "time": 37, "uucp": 540,
    "whois": 43, "www": 80,
}  # fmt: skip
_UDP = {
    "biff": 512, "bootpc": 68, "bootps": 67, "discard": 9, "dnsix": 195, "domain": 53, "echo": 7, "isakmp": 500,
    "mobile-ip": 434, "nameserver": 42, "netbios-dgm": 138, "netbios-ns": 137, "netbios-ss": 139,
    "non500-isakmp": 4500, "ntp": 123, "pim-auto-rp": 496, "rip": 520, "snmp": 161, "snmptrap": 162, "sunrpc": 111,
    "syslog": 514, "tacacs": 49, "talk": 517, "tftp": 69, "time": 37, "who": 513, "xdmcp": 177,
}  # fmt: skip
_ICMP: dict[str, tuple[int, int | None]] = {
    "administratively-prohibited": (3, 13), "echo": (8, None), "echo-reply": (0, None), "host-unreachable": (3, 1),
    "net-unreachable": (3, 0), "packet-too-big": (3, 4), "parameter-problem": (12, None), "port-unreachable": (3, 3),
    "redirect": (5, None), "source-quench": (4, None), "time-exceeded": (11, None), "timestamp-reply": (14, None),
    "timestamp-request": (13, None), "traceroute": (30, None), "ttl-exceeded": (11, 0), "unreachable": (3, None),
}  # fmt: skip
_ICMP6: dict[str, tuple[int, int | None]] = {
    "destination-unreachable": (1, 3), "echo-reply": (129, None), "echo-request": (128, None), "header": (4, 0),
    "hop-limit": (3, 0), "mld-query": (130, None), "mld-reduction": (132, None), "mld-report": (131, None),
    "nd-na": (136, None), "nd-ns": (135, None), "next-header": (4, 1), "no-admin": (1, 1), "no-route": (1, 0),
    "packet-too-big": (2, None), "parameter-option": (4, 2), "parameter-problem": (4, None), "port-unreachable": (1, 4),
    "redirect": (137, None), "router-advertisement": (134, None), "router-solicitation": (133, None),
    "time-exceeded": (3, None), "unreachable": (1, None),
}  # fmt: skip

EXTENDED = Dialect(4, "ip", _PROTOCOLS, _TCP, _UDP, _ICMP, False, True, "", True, False)
IPV6 = Dialect(
    6, "ipv6", {"icmp": 58, "tcp": 6, "udp": 17, "esp": 50, "ahp": 51, "pcp": 108, "sctp": 132},
    _TCP, _UDP, _ICMP6, True, False, "sequence", True, True,
)  # fmt: skip

_MODES = {
    "interface": "config-if", "ip access-list extended": "config-ext-nacl",
    "ip access-list standard": "config-std-nacl",
    "ipv6 access-list": "config-ipv6-acl", "object-group": "config-network-group", "archive": "config-archive",
    "router": "config-router", "line": "config-line", "route-map": "config-route-map", "class-map": "config-cmap",
    "policy-map": "config-pmap", "vrf": "config-vrf", "control-plane": "config-cp",
}  # fmt: skip


class IosConfiguration(Configuration):
    lists: Mapping[str, Dialect] = {"ip access-list extended": EXTENDED, "ipv6 access-list": IPV6}
    bindings: Mapping[int, str] = {4: "ip access-group", 6: "ipv6 traffic-filter"}
    contiguous = ("ip access-list extended",)
    openers = (
        "ip access-list standard ", "object-group network ", "archive$", "router ", "line ", "route-map ", "class-map ",
        "policy-map ", "vrf definition ", "control-plane$",
    )  # fmt: skip
    global_words = known(
        "aaa group, aaa authentication, aaa authorization, aaa accounting, aaa new-model, aaa session-id, "
        "access-list, archive, alias, banner, bba-group, boot, call-home, class-map, clock, control-plane, crypto, "
        "enable, hostname, interface, ip access-list, ip arp, ip bgp-community, ip cef, ip community-list, ip dhcp, "
        "ip domain, ip flow-export, ip forward-protocol, ip http, ip local, ip multicast-routing, ip name-server, ip "
        "prefix-list, ip route, ip scp, ip ssh, ip tacacs, ip tftp, ip vrf, ipv6 access-list, ipv6 cef, ipv6 dhcp, "
        "ipv6 local, ipv6 multicast-routing, ipv6 nd, ipv6 prefix-list, ipv6 route, ipv6 unicast-routing, key, line, "
        "lldp, logging, login, memory, mpls, multilink, netconf-yang, ntp, object-group, parser, platform, "
        "policy-map, privilege, radius, redundancy, route-map, router, security, service, snmp-server, spanning-tree, "
        "subscriber, tacacs, username, virtual-profile, vpdn, vpdn-group, vrf, vtp"
    )
    interface_words = known(
        "bandwidth, carrier-delay, cdp, description, encapsulation, ip access-group, ip address, ip dhcp, ip flow, ip "
        "helper-address, ip local-proxy-arp, ip mtu, ip nat, ip ospf, ip policy, ip proxy-arp, ip redirects, ip "
        "router, ip tcp, ip unnumbered, ip unreachables, ip verify, ip vrf, ipv6 address, ipv6 dhcp, ipv6 enable, "
        "ipv6 mtu, ipv6 nd, ipv6 redirects, ipv6 router, ipv6 traffic-filter, ipv6 unnumbered, ipv6 unreachables, "
        "ipv6 verify, isis, keepalive, lldp, load-interval, mpls, mtu, negotiation, peer, ppp, pppoe, service-policy, "
        "shutdown, speed, vrf"
    )
    mode_words = known(
        "group-object, range, access-class, accounting, address-family, activate, "
        "aggregate-address, authorization, bandwidth, bgp, class, "
        "conform-action, deny, description, exceed-action, exec-timeout, exit-address-family, fair-queue, hidekeys, "
        "host, is-type, length, log, logging, login, logout-warning, match, maximum, maximum-paths, metric-style, "
        "neighbor, net, network, notify, passive-interface, path, permit, police, priority, privilege, random-detect, "
        "rd, redistribute, remark, route-target, service-policy, session-timeout, set, shape, stopbits, time-period, "
        "transport, write-memory"
    )
    interface_name = re.compile(
        "GigabitEthernet|TenGigabitEthernet|HundredGigE|TwentyFiveGigE|FastEthernet|Loopback|Virtual-Template|Tunnel|"
        "Port-channel|BDI|Vlan|Serial|Null"
    )
    ports = re.compile("GigabitEthernet|TenGigabitEthernet|HundredGigE|TwentyFiveGigE|FastEthernet|Serial")

    order = (
        "description", "mtu", "encapsulation", "vrf", "ip vrf", "ip address", "ip unnumbered", "no ip redirects",
        "no ip unreachables", "no ip proxy-arp", "ip access-group", "ip verify", "ipv6 address", "ipv6 unnumbered",
        "ipv6 enable", "ipv6 nd", "ipv6 traffic-filter", "ipv6 verify",
    )  # fmt: skip

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.stamp = self.root.find("! Last configuration change")

    def list_header(self, kind: str, name: str) -> str:
        for other in self.root.children:
            found = re.match(r"(ip access-list (?:extended|standard)|ipv6 access-list) (\S+)$", other.line)
            if found and found[2] == name and found[1] != kind:
                raise Refusal(
                    f"% A named {found[1].replace(' access-list', '')} access list with this name already exists\n"
                )
        return f"{kind} {name}"

    def implicit(self, packet: Packet) -> str:
        """Neighbour solicitations and advertisements pass an IPv6 list that does not deny them."""
        nd = packet.family == 6 and packet.protocol == 58 and packet.layer4 and packet.icmp_type in (135, 136)
        return "permit" if nd else "deny"

    def group(self, name: str) -> tuple[Address, ...]:
        block = next((child for child in self.root.children if child.line == f"object-group network {name}"), None)
        found: list[Address] = []
        for child in block.children if block else ():
            words = child.line.split()
            if words[0] == "host":
                found.append((int(ipaddress.IPv4Address(words[1])), 0xFFFFFFFF))
            elif words[0] == "group-object":
                found += self.group(words[1])
            elif words[0] == "range":
                ends = ipaddress.IPv4Address(words[1]), ipaddress.IPv4Address(words[2])
                networks = ipaddress.summarize_address_range(*ends)
                found += [(int(network.network_address), int(network.netmask)) for network in networks]
            elif words[0][0].isdecimal():
                network = ipaddress.IPv4Network("/".join(words[:2]), strict=False)
                found.append((int(network.network_address), int(network.netmask)))
        return tuple(found)

    def source_check(self, interface: Block, packet: Packet) -> str:
        family = "ip" if packet.family == 4 else "ipv6"
        if interface.find(f"{family} verify unicast source reachable-via rx") is None:
            return "permit"
        source = ipaddress.ip_address(packet.source.to_bytes(4 if packet.family == 4 else 16, "big"))
        if source.is_unspecified or source.is_link_local:
            return "permit"
        own = self._connected(interface, family)
        routes = (
            self._static(child.line, family)
            for child in self.root.children
            if child.line.startswith(f"{family} route ")
        )
        behind = [
            prefix for prefix, way in filter(None, routes) if way == interface.line.split()[1] or _reached(way, own)
        ]
        return "permit" if any(source in prefix for prefix in own + behind) else "deny"

    def _connected(self, interface: Block, family: str) -> list[Network]:
        found: list[Network] = []
        for child in interface.children:
            words = child.line.split()
            if words[:2] == ["ip", "address"] and family == "ip" and len(words) >= 4:
                found.append(ipaddress.IPv4Network(f"{words[2]}/{words[3]}", strict=False))
            elif words[:2] == ["ipv6", "address"] and family == "ipv6" and "/" in words[2]:
                found.append(ipaddress.IPv6Network(words[2], strict=False))
            elif (
                words[:2] == [family, "unnumbered"] and (lender := self.root.find(f"interface {words[2]}")) is not None
            ):
                found += self._connected(lender, family)
            elif words[:3] == ["ipv6", "dhcp", "server"] and family == "ipv6":
                found += self._delegated(words[3])
        return found

    def _delegated(self, name: str) -> list[Network]:
        """The prefixes that a DHCPv6 pool hands out: routes to them lead to the interface."""
        pool = self.root.find(f"ipv6 dhcp pool {name}")
        delegation = pool.find("prefix-delegation pool") if pool else None
        local = self.root.find(f"ipv6 local pool {delegation.line.split()[2]}") if delegation else None
        return [ipaddress.IPv6Network(local.line.split()[4])] if local else []

    @staticmethod
    def _static(line: str, family: str) -> tuple[Network, str] | None:
        words = line.split()
        if family == "ip" and len(words) > 4 and words[2] != "vrf":
            return ipaddress.IPv4Network(f"{words[2]}/{words[3]}"), words[4]
        return (ipaddress.IPv6Network(words[2]), words[3]) if family == "ipv6" and len(words) > 3 else None


def _reached(way: str, networks: list[Network]) -> bool:
    """A next hop lies in one of the networks."""
    try:
        hop = ipaddress.ip_address(way)
    except ValueError:
        return False
    return any(hop in network for network in networks)


class IosSession(IndentedSession):
    router: Device
    user_commands = (
        "enable", "disable", "exit", "logout", "quit", "terminal length *", "terminal width *", "show version",
        "show clock", "show privilege", "terminal no monitor", "terminal monitor",
    )  # fmt: skip

    def secret_tries(self) -> int:
        return 1 if self.router.running.root.find("aaa new-model") else 3

    def bad_secret(self) -> str:
        return "% Access denied\n\n" if self.secret_tries() == 1 else super().bad_secret()

    def name(self) -> str:
        return self.router.running.hostname()

    def mode_text(self) -> str:
        if not self.mode:
            return "config"
        line = self.mode[0]
        if line.startswith("interface ") and "." in line:
            return "config-subif"
        return next((text for start, text in _MODES.items() if line.startswith(start)), "config-mode")

    def invalid(self, line: str, position: int) -> str:
        return f"{' ' * (len(self.prompt) + position)}^\n% Invalid input detected at '^' marker.\n\n"

    def incomplete(self, line: str) -> str:
        return "% Incomplete command.\n\n"

    def commands(self) -> Mapping[str, Command]:
        router = self.router

        def quiet(_: list[str]) -> str:
            return ""

        return {
            "enable": self.enable, "disable": self.disable, "exit": self.logout, "logout": self.logout,
            "quit": self.logout,
            "terminal length *": quiet, "terminal width *": quiet, "terminal no monitor": quiet,
            "terminal monitor": quiet,
            "show running-config": lambda _: router.running_text(),
            "show running-config all": lambda _: router.running_text(),
            "show startup-config": lambda _: router.startup_text(),
            "show running-config interface **": self._show_interface,
            "show access-lists": lambda _: self._lists(EXTENDED, "") + self._lists(IPV6, ""),
            "show ip access-lists": lambda _: self._lists(EXTENDED, ""),
            "show ip access-lists *": lambda words: self._lists(EXTENDED, words[0]),
            "show ipv6 access-list": lambda _: self._lists(IPV6, ""),
            "show ipv6 access-list *": lambda words: self._lists(IPV6, words[0]),
            "show archive config rollback timer": lambda _: router.revert_state(), "show version": lambda _: _VERSION,
            "show clock": lambda _: f"{router.wall():%H:%M:%S.000 UTC %a %b %d %Y}\n",
            "show privilege": lambda _: f"Current privilege level is {15 if self.privileged else 1}\n",
            "configure terminal": self._configure, "configure terminal revert timer *": self._revert_timer,
            "configure confirm": lambda _: router.confirm(), "configure revert now": lambda _: router.revert_now(),
            "configure revert timer *": self._revert_again,
            "write memory": lambda _: router.save(), "write": lambda _: router.save(),
        }  # fmt: skip

    def _configure(self, _: list[str]) -> str:
        self.mode = ()
        return "Enter configuration commands, one per line.  End with CNTL/Z.\n"

    def _minutes(self, word: str) -> int:
        """1 to 120; 0 when it is not."""
        return int(word) if word.isdecimal() and 1 <= int(word) <= 120 else 0

    def _revert_timer(self, words: list[str]) -> str:
        minutes = self._minutes(words[0])
        if not minutes:
            return self.invalid("", len("configure terminal revert timer "))
        refusal, backup = self.router.arm(minutes)
        return refusal or backup + self._configure([])

    def _revert_again(self, words: list[str]) -> str:
        minutes = self._minutes(words[0])
        return self.router.rearm(minutes) if minutes else self.invalid("", len("configure revert timer "))

    def configure(self, line: str) -> str:
        router = self.router
        self.mode, changed = router.running.enter(self.mode or (), line)
        if changed:
            router.changed()
        return ""

    def _show_interface(self, words: list[str]) -> str:
        running = self.router.running
        name = running.interface("".join(words))
        block = running.root.find(f"interface {name}") if name else None
        if block is None:
            return self.invalid("", len("show running-config interface "))
        text = "\n".join([block.line, *render(block, " ", " "), "end", "", ""])
        return f"Building configuration...\n\nCurrent configuration : {len(text)} bytes\n!\n{text}"

    def _lists(self, dialect: Dialect, name: str) -> str:
        """show ip access-lists, with the counters left out."""
        running = self.router.running
        kind = next(kind for kind, one in running.lists.items() if one is dialect)
        output = []
        for child in running.root.children:
            if child.line.startswith(f"{kind} ") and name in ("", child.line.split()[-1]):
                own = child.line.split()[-1]
                output.append(f"Extended IP access list {own}" if dialect is EXTENDED else f"IPv6 access list {own}")
                for entry in running.entries(child, dialect):
                    if entry.action != "remark":
                        text = (
                            f"{entry.number} {entry.text}"
                            if dialect is EXTENDED
                            else f"{entry.text} sequence {entry.number}"
                        )
                        output.append(f"    {text}")
        return "".join(f"{line}\n" for line in output)


class Device(Router):
    session_class = IosSession

    def __init__(self, name: str, text: str, enable_secret: str = "") -> None:
        super().__init__(name, text, enable_secret)
        self.running = IosConfiguration(text)
        self.startup = self.running.text()
        self._revert: tuple[Timer, str, int] | None = None
        self._backups = 0
        self._printed: tuple[str, str] = ("", "")

    def snapshot(self) -> str:
        with self.clock.lock:
            self.clock.settle()
            return self.running_text()

    def judge(self, attachment: str, direction: str, packet: Packet) -> str:
        return self.running.judge(attachment, direction, packet)

    def wall(self) -> datetime.datetime:
        """The time of day in the lab."""
        return datetime.datetime(2026, 11, 23, 14, 0) + datetime.timedelta(seconds=self.clock.now())

    def changed(self) -> None:
        stamp = f"! Last configuration change at {self.wall():%H:%M:%S UTC %a %b} {self.wall().day} 2026 by audit"
        if self.running.stamp:
            self.running.stamp.line = stamp
        self.running.touch()
        super().changed()

    def running_text(self) -> str:
        text = self.running.text()
        if self._printed[0] is not text:
            # The device counts what it prints from the first comment on.
            header = f"Building configuration...\n\nCurrent configuration : {len(text)} bytes\n"
            self._printed = text, f"{header}{text}\n"
        return self._printed[1]

    def startup_text(self) -> str:
        return f"Using {len(self.startup)} out of 33554432 bytes\n{self.startup}\n"

    def save(self) -> str:
        self.startup = self.running.text()
        return "Building configuration...\n[OK]\n"

    def arm(self, minutes: int) -> tuple[str, str]:
        """Start the rollback timer: the words of a refusal, or '' and what is printed."""
        archive = self.running.root.find("archive")
        path = archive.find("path") if archive else None
        if path is None:
            return "%Error: Rollback Confirmed Change needs an archive path. Use 'archive' and 'path' first.\n", ""
        if self._revert:
            return (
                "%Rollback Confirmed Change already pending. Use 'configure confirm' first.\n",
                "",
            )
        self._start(minutes, self.running.text())
        file = f"{path.line.split()[1]}-{self.wall():%b-%d-%H-%M-%S.000}-{self._backups}"
        self._backups += 1
        return "", f"Rollback Confirmed Change: Backing up current running config to {file}\n\n"

    def _start(self, minutes: int, backup: str) -> None:
        self._revert = self.clock.call_later(minutes * 60, self._roll_back), backup, minutes

    def rearm(self, minutes: int) -> str:
        if not self._revert:
            return _NOT_PENDING
        self.clock.cancel(self._revert[0])
        self._start(minutes, self._revert[1])
        return ""

    def confirm(self) -> str:
        if not self._revert:
            return _NOT_PENDING
        self.clock.cancel(self._revert[0])
        self._revert = None
        return ""

    def revert_now(self) -> str:
        if not self._revert:
            return _NOT_PENDING
        self.clock.cancel(self._revert[0])
        self._roll_back()
        return "Rollback Confirmed Change: rolling back\n\nTotal number of passes: 1\nRollback Done\n\n"

    def revert_state(self) -> str:
        if not self._revert:
            return _NOT_PENDING
        return f" Timer type: absolute timer\n Timer value: {self._revert[2]} min\n User: audit\n"

    def _roll_back(self) -> None:
        assert self._revert is not None
        self.running = IosConfiguration(self._revert[1])
        self._revert = None
        self.changed()


_NOT_PENDING = "%No Rollback Confirmed Change pending\n"
_VERSION = """\
Cisco IOS XE Software, Version 17.09.04a
Cisco IOS Software [Cupertino], ASR1000 Software, Version 17.9.4a, RELEASE SOFTWARE (fc3)

ROM: 17.3(1r)
bng1 uptime is 21 weeks, 4 days, 3 hours, 12 minutes
Uptime for this control processor is 21 weeks, 4 days, 3 hours, 14 minutes
System image file is "bootflash:packages.conf"

cisco ASR1001-X (1NG) processor (revision 1NG) with 3753664K/6147K bytes of memory.
6 Gigabit Ethernet interfaces
32768K bytes of non-volatile configuration memory.
8388608K bytes of physical memory.

Configuration register is 0x2102
"""
