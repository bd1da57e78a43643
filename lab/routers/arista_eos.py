# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""An Arista EOS switch: lines act when their session is committed; a commit timer takes them back.

Sources of the behaviour: Arista, User Manual, "Configure Session" and "ACLs and Route Maps"; "Config Session Commit
Timer". [memory]: the words of refusals; a list that is missing or empty permits all; entries with ports never match
later fragments; `configure terminal` acts line by line in a list too (the real one waits for `exit`).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..ace import Dialect, Rejected
from ..cli import Command, Configuration, IndentedSession, known
from ..clock import Timer
from ..judge import Packet
from .base import Router

_PROTOCOLS = {
    "icmp": 1, "igmp": 2, "tcp": 6, "udp": 17, "gre": 47, "esp": 50, "ahp": 51, "ospf": 89, "pim": 103, "vrrp": 112,
    "sctp": 132,
}  # fmt: skip
_TCP = {
    "bgp": 179, "chargen": 19, "daytime": 13, "discard": 9, "domain": 53, "echo": 7, "finger": 79, "ftp": 21,
    "ftp-data": 20, "gopher": 70, "https": 443, "ident": 113, "irc": 194, "ldp": 646, "msdp": 639, "nntp": 119,
    "pop3": 110, "smtp": 25, "snmp": 161, "ssh": 22, "sunrpc": 111, "tacacs": 49, "telnet": 23, "whois": 43, "www": 80,
}  # fmt: skip
_UDP = {
    "bfd": 3784, "bootpc": 68, "bootps": 67, "domain": 53, "isakmp": 500, "netbios-dgm": 138, "netbios-ns": 137,
    "netbios-ss": 139, "non500-isakmp": 4500, "ntp": 123, "rip": 520, "snmp": 161, "snmptrap": 162, "sunrpc": 111,
    "syslog": 514, "tftp": 69,
}  # fmt: skip
_ICMP: dict[str, tuple[int, int | None]] = {
    "echo": (8, None), "echo-reply": (0, None), "packet-too-big": (3, 4), "host-unreachable": (3, 1),
    "port-unreachable": (3, 3), "net-unreachable": (3, 0), "administratively-prohibited": (3, 13),
    "redirect": (5, None), "ttl-exceeded": (11, 0), "time-exceeded": (11, None), "parameter-problem": (12, None),
    "unreachable": (3, None), "traceroute": (30, None),
}  # fmt: skip
_ICMP6: dict[str, tuple[int, int | None]] = {
    "echo-request": (128, None), "echo-reply": (129, None), "packet-too-big": (2, None), "time-exceeded": (3, None),
    "parameter-problem": (4, None), "unreachable": (1, None), "neighbor-solicitation": (135, None),
    "neighbor-advertisement": (136, None), "router-solicitation": (133, None), "router-advertisement": (134, None),
}  # fmt: skip

IPV4 = Dialect(4, "ip", _PROTOCOLS, _TCP, _UDP, _ICMP, True, False, "", False, False)
IPV6 = Dialect(
    6, "ipv6", {"icmpv6": 58, "tcp": 6, "udp": 17, "esp": 50, "ahp": 51, "ospf": 89, "sctp": 132},
    _TCP, _UDP, _ICMP6, True, False, "", False, False,
)  # fmt: skip

_SHORT = {
    "Ethernet": "Et",
    "Port-Channel": "Po",
    "Loopback": "Lo",
    "Management": "Ma",
    "Vlan": "Vl",
    "Vxlan": "Vx",
    "Tunnel": "Tu",
}
_MAXIMUM_PENDING = 5


class EosConfiguration(Configuration):
    unit = "   "
    lists: Mapping[str, Dialect] = {"ip access-list": IPV4, "ipv6 access-list": IPV6}
    bindings: Mapping[int, str] = {4: "ip access-group", 6: "ipv6 access-group"}
    list_words = frozenset({"counters", "statistics"})
    openers = (
        "ip access-list standard ", "ip prefix-list \\S+$", "ipv6 prefix-list \\S+$", "router ", "route-map ",
        "class-map ",
        "policy-map ", "vrf instance ", "management ", "control-plane$", "qos profile ", "peer-filter ", "monitor ",
    )  # fmt: skip
    global_words = known(
        "aaa authentication, aaa authorization, aaa accounting, aaa group, aaa root, agent, alias, banner, class-map, "
        "clock, control-plane, daemon, dns, enable, errdisable, event-handler, event-monitor, hardware, hostname, "
        "interface, ip access-list, ip as-path, ip community-list, ip dhcp, ip domain, ip domain-name, ip ftp, ip "
        "http, ip icmp, ip name-server, ip prefix-list, ip radius, ip route, ip routing, ip ssh, ip tacacs, ip "
        "virtual-router, ipv6 access-list, ipv6 prefix-list, ipv6 route, ipv6 unicast-routing, lacp, lldp, "
        "load-interval, logging, mac, management, mlag, monitor, mpls, ntp, peer-filter, platform, policy-map, "
        "port-channel, privilege, prompt, ptp, qos, queue-monitor, radius-server, role, route-map, router, service, "
        "sflow, snmp-server, spanning-tree, switchport, system, tacacs-server, terminal, transceiver, username, vlan, "
        "vrf"
    )
    interface_words = known(
        "arp, bfd, channel-group, description, encapsulation, error-correction, flowcontrol, ip access-group, ip "
        "address, ip dhcp, ip helper-address, ip icmp, ip igmp, ip local-proxy-arp, ip ospf, ip proxy-arp, ip verify, "
        "ip virtual-router, ipv6 access-group, ipv6 address, ipv6 dhcp, ipv6 enable, ipv6 nd, ipv6 ospf, ipv6 verify, "
        "isis, lacp, lldp, load-interval, mac, mpls, mtu, no-switchport, ntp, pim, qos, sflow, service-policy, "
        "service-profile, shutdown, snmp, spanning-tree, speed, storm-control, switchport, traffic-policy, vlan, vrf"
    )
    mode_words = known(
        "address-family, authentication, bgp, class, connection, deny, description, exit, idle-timeout, ip, ipv6, "
        "is-hostname, is-type, isis, log-adjacency-changes, match, maximum-paths, metric-style, neighbor, net, "
        "network, no, passive-interface, permit, police, protocol, rd, redistribute, remark, route-target, router-id, "
        "seq, set, shutdown, source, timers, update, vrf"
    )
    interface_name = re.compile("Ethernet|Port-Channel|Loopback|Management|Vlan|Vxlan|Tunnel")
    ports = re.compile("Ethernet|Management")
    order = (
        "description", "mtu", "speed", "no switchport", "encapsulation", "vrf", "ip address", "ipv6 enable",
        "ipv6 address",
        "ip access-group", "ipv6 access-group",
    )  # fmt: skip

    def dialect(self, header: str) -> Dialect | None:
        return None if header.startswith("ip access-list standard ") else super().dialect(header)


@dataclass
class Candidate:
    """A configuration session."""

    name: str
    configuration: EosConfiguration
    state: str = "pending"  # then pendingCommitTimer, completed or aborted


class EosSession(IndentedSession):
    router: Device
    user_commands = (
        "enable", "disable", "exit", "logout", "quit", "terminal length *", "terminal width *", "show version",
        "show privilege",
    )  # fmt: skip

    def __init__(self, router: Router) -> None:
        super().__init__(router)
        self._candidate: Candidate | None = None

    def bad_secret(self) -> str:
        return "% Bad secret\n"

    def name(self) -> str:
        return self.router.running.hostname()

    def mode_text(self) -> str:
        text = f"config-s-{self._candidate.name[:6]}" if self._candidate else "config"
        if not self.mode:
            return text
        kind, _, name = self.mode[0].rpartition(" ")
        if kind == "interface":
            port = re.fullmatch(r"([A-Za-z-]+)(.*)", name)
            return f"{text}-if-{_SHORT[port[1]]}{port[2]}" if port else text
        shown = {"ip access-list": "acl", "ip access-list standard": "std-acl", "ipv6 access-list": "ipv6-acl"}.get(
            kind
        )
        return f"{text}-{shown}-{name}" if shown else f"{text}-{self.mode[0].replace(' ', '-')}"

    def invalid(self, line: str, position: int) -> str:
        token = len(line[:position].split())
        return f"% Invalid input (at token {token}: '{line[position:].split()[0]}')\n"

    def incomplete(self, line: str) -> str:
        return f"% Incomplete command (at token {len(line.split()) - 1}: '{line.split()[-1]}')\n"

    def commands(self) -> Mapping[str, Command]:
        router = self.router
        return {
            "enable": self.enable, "disable": self.disable, "exit": self.logout, "logout": self.logout,
            "quit": self.logout,
            "terminal length *": lambda _: "Pagination disabled.\n",
            "terminal width *": lambda words: f"Width set to {words[0]} columns.\n",
            "show running-config": lambda _: router.running_text(),
            "show startup-config": lambda _: router.startup_text(),
            "show configuration sessions": lambda _: router.sessions_text(),
            "show configuration sessions detail": lambda _: router.sessions_text(),
            "show ip access-lists": lambda _: self._lists(IPV4, ""),
            "show ip access-lists *": lambda words: self._lists(IPV4, words[0]),
            "show ipv6 access-lists": lambda _: self._lists(IPV6, ""),
            "show ipv6 access-lists *": lambda words: self._lists(IPV6, words[0]),
            "show version": lambda _: _VERSION, "show privilege": lambda _: "Current privilege level is 15\n",
            "configure terminal": self._terminal, "configure": self._terminal,
            "configure session *": self._session,
            "configure session * commit": lambda words: router.commit(words[0], 0),
            "configure session * commit timer *": lambda words: router.commit(words[0], _seconds(words[1])),
            "configure session * abort": lambda words: router.abort(words[0]),
            "no configure session *": lambda words: router.abort(words[0]),
            "write memory": lambda _: router.save(), "write": lambda _: router.save(),
            "copy running-config startup-config": lambda _: router.save(),
        }  # fmt: skip

    def _terminal(self, _: list[str]) -> str:
        self.mode = ()
        return ""

    def _session(self, words: list[str]) -> str:
        candidate = self.router.candidate(words[0])
        if isinstance(candidate, str):
            return candidate
        self._candidate, self.mode = candidate, ()
        return ""

    def leave(self) -> None:
        self.mode, self._candidate = None, None

    def exec(self, line: str) -> str:
        if self.mode is None or self._candidate is None or not line.lower().startswith("show session-config"):
            return super().exec(line)
        if line.split()[2:] == ["diffs"]:
            return self.router.diffs(self._candidate)
        return f"! Command: show session-config named {self._candidate.name}\n{self._candidate.configuration.text()}"

    def configure(self, line: str) -> str:
        words = line.split()
        if words[0].lower() == "show":
            return self.exec(line)
        if self._candidate is None:
            self.mode, changed = self.router.running.enter(self.mode or (), line)
            if changed:
                self.router.changed()
            return ""
        if words[0].lower() in ("commit", "abort"):
            return self._finish(words, line)
        self.mode, _ = self._candidate.configuration.enter(self.mode or (), line)
        return ""

    def _finish(self, words: list[str], line: str) -> str:
        assert self._candidate is not None
        name = self._candidate.name
        if words[0].lower() == "abort":
            output = self.router.abort(name)
        elif len(words) == 1:
            output = self.router.commit(name, 0)
        elif words[1].lower() != "timer":
            raise Rejected(line.index(words[1]))
        elif len(words) == 2:
            raise Rejected(None)
        elif not _seconds(words[2]):
            raise Rejected(line.index(words[2]))
        else:
            output = self.router.commit(name, _seconds(words[2]))
        if not output:
            self.leave()
        return output

    def _lists(self, dialect: Dialect, name: str) -> str:
        running = self.router.running
        output = []
        for child in running.root.children:
            if running.dialect(child.line) is dialect and name in ("", child.line.split()[-1]):
                output.append(f"{'IP' if dialect is IPV4 else 'IPV6'} Access List {child.line.split()[-1]}")
                output += [f"        {entry.number} {entry.text}" for entry in running.entries(child, dialect)]
                output.append("")
        return "".join(f"{line}\n" for line in output)


def _seconds(text: str) -> int:
    """Of hh:mm:ss; 0 when it is none."""
    found = re.fullmatch(r"(\d+):([0-5]?\d):([0-5]?\d)", text)
    return int(found[1]) * 3600 + int(found[2]) * 60 + int(found[3]) if found else 0


class Device(Router):
    session_class = EosSession

    def __init__(self, name: str, text: str, enable_secret: str = "") -> None:
        super().__init__(name, text, enable_secret)
        self.running = EosConfiguration(text)
        self.startup = self.running.text()
        self._candidates: dict[str, Candidate] = {}
        self._timed: tuple[Candidate, Timer, str] | None = None  # with the text to go back to
        self._printed: tuple[str, str] = ("", "")

    def snapshot(self) -> str:
        with self.clock.lock:
            self.clock.settle()
            return self.running_text()

    def judge(self, attachment: str, direction: str, packet: Packet) -> str:
        return self.running.judge(attachment, direction, packet)

    def running_text(self) -> str:
        text = self.running.text()
        if self._printed[0] is not text:
            self._printed = text, f"! Command: show running-config\n{text}"
        return self._printed[1]

    def startup_text(self) -> str:
        return f"! Command: show startup-config\n{self.startup}"

    def save(self) -> str:
        self.startup = self.running.text()
        return "Copy completed successfully.\n"

    def candidate(self, name: str) -> Candidate | str:
        """The pending session of this name, a new one where there is none; or the words of a refusal."""
        there = self._candidates.get(name)
        if there and there.state == "pending":
            return there
        if there and there.state == "pendingCommitTimer":
            return f"% Cannot enter session {name} while its commit timer is pending\n"
        if sum(one.state == "pending" for one in self._candidates.values()) >= _MAXIMUM_PENDING:
            return (
                "% Maximum number of pending sessions has been reached. Please commit or abort previous sessions "
                "before creating a new one.\n"
            )
        self._candidates[name] = Candidate(name, EosConfiguration(self.running.text()))
        return self._candidates[name]

    def commit(self, name: str, seconds: int) -> str:
        """Put a session in force, for good or until a timer; or confirm one that has a timer. A refusal, or ''."""
        chosen = self._candidates.get(name)
        if chosen is None or chosen.state not in ("pending", "pendingCommitTimer"):
            return f"% Cannot commit session {name} (session does not exist)\n"
        if self._timed and self._timed[0] is not chosen:
            return (
                f"% Cannot commit session {name} while the commit timer of session {self._timed[0].name} is pending\n"
            )
        if self._timed:
            self.clock.cancel(self._timed[1])
            if seconds:
                self._timed = chosen, self.clock.call_later(seconds, self._roll_back), self._timed[2]
                return ""
            self._timed, chosen.state = None, "completed"
            return ""
        if seconds:
            self._timed = chosen, self.clock.call_later(seconds, self._roll_back), self.running.text()
        chosen.state = "pendingCommitTimer" if seconds else "completed"
        self.running = EosConfiguration(chosen.configuration.text())
        self.changed()
        return ""

    def abort(self, name: str) -> str:
        chosen = self._candidates.get(name)
        if chosen is None or chosen.state not in ("pending", "pendingCommitTimer"):
            return f"% Cannot abort session {name} (session does not exist)\n"
        if self._timed and self._timed[0] is chosen:
            self.clock.cancel(self._timed[1])
            self._roll_back()
        chosen.state = "aborted"
        return ""

    def _roll_back(self) -> None:
        assert self._timed is not None
        chosen, _, text = self._timed
        chosen.state, self._timed = "aborted", None
        self.running = EosConfiguration(text)
        self.changed()

    def changed(self) -> None:
        self.running.touch()
        super().changed()

    def diffs(self, candidate: Candidate) -> str:
        old, new = self.running.text(), candidate.configuration.text()
        names = "system:/running-config", f"session:/{candidate.name}-session-config"
        return "".join(
            f"{line}\n" for line in difflib.unified_diff(old.splitlines(), new.splitlines(), *names, lineterm="")
        )

    def sessions_text(self) -> str:
        rows = [f"Maximum number of pending sessions: {_MAXIMUM_PENDING}", ""]
        rows += ["  Name   State                User    Terminal", "  ------ -------------------- ------- --------"]
        for one in self._candidates.values():
            rows.append(f"  {one.name} {one.state:20} audit   vty4")
            if self._timed and self._timed[0] is one:
                rows.append(f"    commit timer: {int(self._timed[1].due - self.clock.now())} seconds left")
        return "".join(f"{row}\n" for row in rows)


_VERSION = """\
Arista DCS-7280SR-48C6-F
Hardware version: 21.02
Serial number: JPE00000000
Hardware MAC address: 0000.5e00.5301
System MAC address: 0000.5e00.5301

Software image version: 4.31.2F
Architecture: i686
Internal build version: 4.31.2F-35442176.4312F
Image format version: 3.0

Uptime: 17 weeks, 2 days, 6 hours and 41 minutes
Total memory: 8155588 kB
Free memory: 5923040 kB
"""
