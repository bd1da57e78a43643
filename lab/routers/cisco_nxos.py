# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A Cisco Nexus: every line acts at once; a job of the scheduler goes back to a checkpoint.

Sources of the behaviour: Cisco, Nexus 9000 Series NX-OS Security Configuration Guide, "Configuring IP ACLs" and
"Configuring VLAN ACLs"; System Management Configuration Guide, "Configuring Rollback" and "Configuring the Scheduler".
[memory]: the words of refusals; several commands on one line end with the first that is refused, those of a job do
not; a list without entries permits all; entries with ports never match later fragments; a packet that no entry of a
VLAN access map takes is dropped. The header of the configuration keeps the time at which it was loaded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..ace import Dialect, Entry, Rejected, read
from ..cli import Command, Configuration, IndentedSession, Path, Refusal, known
from ..clock import Timer
from ..indented import Block
from ..judge import Packet
from .base import Router

_PROTOCOLS = {
    "icmp": 1, "igmp": 2, "tcp": 6, "udp": 17, "gre": 47, "esp": 50, "ahp": 51, "eigrp": 88, "ospf": 89, "nos": 94,
    "pim": 103, "pcp": 108,
}  # fmt: skip
_TCP = {
    "bgp": 179, "chargen": 19, "cmd": 514, "daytime": 13, "discard": 9, "domain": 53, "drip": 3949, "echo": 7,
    "exec": 512, "finger": 79, "ftp": 21, "ftp-data": 20, "gopher": 70, "hostname": 101, "ident": 113, "irc": 194,
    "klogin": 543, "kshell": 544, "login": 513, "lpd": 515, "nntp": 119, "pim-auto-rp": 496, "pop2": 109, "pop3": 110,
    "smtp": 25, "sunrpc": 111, "tacacs": 49, "talk": 517, "telnet": 23, "time": 37, "uucp": 540, "whois": 43,
    "www": 80,
}  # fmt: skip
_UDP = {
    "biff": 512, "bootpc": 68, "bootps": 67, "discard": 9, "dnsix": 195, "domain": 53, "echo": 7, "isakmp": 500,
    "mobile-ip": 434, "nameserver": 42, "netbios-dgm": 138, "netbios-ns": 137, "netbios-ss": 139,
    "non500-isakmp": 4500, "ntp": 123, "pim-auto-rp": 496, "rip": 520, "snmp": 161, "snmptrap": 162, "sunrpc": 111,
    "syslog": 514, "tacacs": 49, "talk": 517, "tftp": 69, "time": 37, "who": 513, "xdmcp": 177,
}  # fmt: skip
_ICMP: dict[str, tuple[int, int | None]] = {
    "echo": (8, None), "echo-reply": (0, None), "packet-too-big": (3, 4), "host-unreachable": (3, 1),
    "port-unreachable": (3, 3), "net-unreachable": (3, 0), "administratively-prohibited": (3, 13),
    "redirect": (5, None), "ttl-exceeded": (11, 0), "time-exceeded": (11, None), "parameter-problem": (12, None),
    "unreachable": (3, None), "traceroute": (30, None),
}  # fmt: skip
_ICMP6: dict[str, tuple[int, int | None]] = {
    "echo-request": (128, None), "echo-reply": (129, None), "packet-too-big": (2, None), "time-exceeded": (3, None),
    "parameter-problem": (4, None), "unreachable": (1, None), "nd-na": (136, None), "nd-ns": (135, None),
    "router-advertisement": (134, None), "router-solicitation": (133, None),
}  # fmt: skip

IPV4 = Dialect(4, "ip", _PROTOCOLS, _TCP, _UDP, _ICMP, True, False, "", False, False)
IPV6 = Dialect(
    6, "ipv6", {"icmp": 58, "tcp": 6, "udp": 17, "esp": 50, "ahp": 51, "pcp": 108, "sctp": 132},
    _TCP, _UDP, _ICMP6, True, False, "", False, False,
)  # fmt: skip

_MODES = {
    "interface ": "if", "ip access-list ": "acl", "ipv6 access-list ": "ipv6-acl", "scheduler schedule ": "schedule",
    "vlan access-map ": "access-map", "vlan ": "vlan", "vrf context ": "vrf", "router ": "router",
    "line ": "line",
}  # fmt: skip
_MEMBERS = ("host", "eq", "neq", "gt", "lt", "range")  # of groups
_CHECKPOINTS = 10
_COMES_BEHIND = ("vlan ", "vrf context ", "interface ", "route-map ")  # of what stands behind all lists


class NxosConfiguration(Configuration):
    unit = "  "
    lists: Mapping[str, Dialect] = {"ip access-list": IPV4, "ipv6 access-list": IPV6}
    bindings: Mapping[int, str] = {4: "ip access-group", 6: "ipv6 traffic-filter"}
    list_words = frozenset({"statistics", "fragments", "ignore", "extension-header"})
    openers = (
        "router ", "route-map ", "class-map ", "policy-map ", "vrf context ", "vlan \\d", "vlan access-map ", "line ",
        "scheduler schedule name ", "object-group ", "control-plane$", "vpc domain ", "role name ", "hsrp ",
    )  # fmt: skip
    global_words = known(
        "aaa authentication, aaa authorization, aaa accounting, aaa group, banner, boot, class-map, cli, clock, "
        "control-plane, copp, errdisable, feature, hardware, hostname, interface, ip access-list, ip domain-lookup, "
        "ip domain-name, ip name-server, ip prefix-list, ip route, ip tacacs, ipv6 access-list, ipv6 prefix-list, "
        "ipv6 route, key, lacp, license, line, lldp, logging, mac, ntp, object-group, policy-map, port-channel, "
        "role, route-map, router, scheduler, service, snmp-server, spanning-tree, ssh, switchname, system, tacacs, "
        "tacacs-server, telemetry, time-range, udld, userpassphrase, username, version, vdc, vlan, vpc, vrf"
    )
    interface_words = known(
        "arp, bandwidth, bfd, channel-group, description, encapsulation, flowcontrol, hsrp, ip access-group, ip "
        "address, ip arp, ip dhcp, ip ospf, ip pim, ip port, ip proxy-arp, ip redirects, ip router, ip unreachables, "
        "ip verify, ipv6 address, ipv6 dhcp, ipv6 nd, ipv6 port, ipv6 redirects, ipv6 router, ipv6 traffic-filter, "
        "ipv6 verify, isis, lacp, lldp, load-interval, logging, mac, medium, mtu, no-switchport, port-channel, "
        "service-policy, shutdown, snmp, spanning-tree, speed, storm-control, switchport, udld, vpc, vrf"
    )
    mode_words = known(
        "action, address-family, advertise, description, exec-timeout, exit, ip, ipv6, is-type, job, log-adjacency-"
        "changes, match, maximum-paths, name, neighbor, net, network, peer-keepalive, redistribute, remote-as, "
        "router-id, rule, send-community, session-limit, set, shutdown, statistics, time, update-source"
    )
    interface_name = re.compile("Ethernet|port-channel|loopback|mgmt|Vlan|nve|Tunnel")
    ports = re.compile("Ethernet|mgmt")
    order = (
        "description", "no shutdown", "no switchport", "mtu", "encapsulation", "vrf member", "ip access-group",
        "ipv6 traffic-filter", "no ip redirects", "ip address", "ipv6 address", "no ipv6 redirects",
    )  # fmt: skip

    def __init__(self, text: str) -> None:
        # The count behind the configuration is none of it.
        super().__init__(re.sub(r"\n\s*\d+\s*\Z", "\n", text))
        for child in [one for one in self.root.children if one.line == "end"]:
            self.root.children.remove(child)

    def text(self) -> str:
        """Blocks with a blank line in front of them; there is no `end`."""
        if not self._text:
            lines: list[str] = []
            deep = False
            for child in self.root.children:
                opens = bool(child.children) or child.line.startswith(("interface ", "ip access-list ", "ipv6 access-"))
                if lines and lines[-1] and (opens or deep):
                    lines.append("")
                deep = opens
                lines.append(child.line)
                lines += self._below(child, self.unit)
            self._text = "\n".join([*lines, ""])
        return self._text

    def _below(self, block: Block, indent: str) -> list[str]:
        found = []
        for child in block.children:
            found += [indent + child.line, *self._below(child, indent + self.unit)]
        return found

    def hostname(self) -> str:
        found = self.root.find("hostname")
        return found.line.split()[1] if found else "switch"

    def _insert(self, block: Block) -> None:
        """Lists stand together, in the order of their names, the rest where the switch prints it."""
        kind = next((one for one in (*self.lists, "interface", "scheduler schedule") if block.line.startswith(one)), "")
        alike = [child for child in self.root.children if kind and child.line.startswith(f"{kind} ")]
        before = [child for child in alike if child.line < block.line]
        if before:
            place = self.root.children.index(before[-1]) + 1
        elif alike:
            place = self.root.children.index(alike[0])
        else:
            last = [child for child in self.root.children if child.line.startswith(_COMES_BEHIND)]
            listed = kind in self.lists and last
            place = self.root.children.index(last[0]) if listed else len(self.root.children)
        self.root.children.insert(place, block)

    def _in_mode(self, path: Path, line: str) -> bool | str | None:
        words = line.lower().split()
        member = words[1:2] if words[0] == "no" else words[:1]
        if path[0].startswith("object-group ") and member and (member[0].isdecimal() or member[0] in _MEMBERS):
            return self._set(self.block(path), words[0] == "no", line.split("no ", 1)[-1].strip())
        return super()._in_mode(path, line)

    def _entry(self, block: Block, dialect: Dialect, line: str) -> bool:
        """A line of a list goes where its number says; one port alone goes with `eq` and `neq`."""
        found = re.match(r"\s*(no\s+)?(?=\S)", line)
        negative, body = bool(found and found[1]), line[found.end() if found else 0 :].rstrip()
        there = {int(child.line.split()[0]): child for child in block.children if child.line[0].isdecimal()}
        if negative and body.isdecimal():
            if int(body) not in there:
                raise Refusal("ERROR: Sequence number does not exist\n")
            block.children.remove(there[int(body)])
            return True
        entry = self._read(body, dialect, len(line) - len(body))
        text = self._written(entry, dialect, body)
        alike = [child for child in there.values() if child.line.split(" ", 1)[1] == text and entry.action != "remark"]
        if negative:
            block.children = [child for child in block.children if child not in alike]
            return bool(alike)
        if alike:
            return False
        number = entry.number or max(there, default=0) + 10
        if number in there:
            raise Refusal("ERROR: Sequence number is in use\n")
        place = len(block.children) - sum(one > number for one in there)
        block.children.insert(place, Block(f"{number} {text}"))
        return True

    def _read(self, body: str, dialect: Dialect, offset: int) -> Entry:
        """The entry of a line, with any address and port in place of its groups. Raises Rejected."""
        if "remark" not in body.split()[:2]:
            for found in re.finditer(r"\b(?:eq|neq) \S+ (\S+)", body):
                if found[1].isdecimal() or found[1] in _TCP or found[1] in _UDP:
                    raise Rejected(offset + found.start(1))
            body = re.sub(r"\baddrgroup (\S+)", "any", re.sub(r"\bportgroup (\S+)", "eq 0", body))
        try:
            return read(body, dialect)
        except Rejected as rejected:
            raise Rejected(None if rejected.position is None else rejected.position + offset) from None

    @staticmethod
    def _written(entry: Entry, dialect: Dialect, body: str) -> str:
        """As the switch prints it behind the number: prefixes in place of `host`, groups by their names."""
        if entry.action == "remark":
            return entry.text
        text = re.sub(r"\bhost (\S+)", rf"\1/{32 if dialect.family == 4 else 128}", entry.text)
        if "group " not in body:
            return text
        words = body.split()
        return " ".join(words[1:] if words[0].isdecimal() else words)

    def entries(self, block: Block, dialect: Dialect) -> list[Entry]:
        """The entries of a list, one for each member of their groups."""
        found = []
        for child in block.children:
            if child.line.split()[0] in self.list_words:
                continue
            lines = [child.line]
            if "remark" not in child.line.split()[:2]:
                lines = [ports for line in lines for ports in self._each(line, "portgroup", "port")]
                kind = "ip address" if dialect.family == 4 else "ipv6 address"
                for _ in range(2):
                    lines = [one for line in lines for one in self._each(line, "addrgroup", kind)]
            found += [read(line, dialect) for line in lines]
        return found

    def _each(self, line: str, word: str, kind: str) -> list[str]:
        """The line once for each member of the first group in it; as it is when it has none."""
        found = re.search(rf"\b{word} (\S+)", line)
        if not found:
            return [line]
        header = f"object-group {'ip port' if kind == 'port' else kind} {found[1]}"
        group = next((child for child in self.root.children if child.line == header), None)
        members = [re.sub(r"^\d+ (?=\S)", "", child.line) for child in group.children] if group else []
        return [line[: found.start()] + member + line[found.end() :] for member in members]

    def list_header(self, kind: str, name: str) -> str:
        if len(name) > 64:
            raise Refusal("ERROR: ACL name exceeds the maximum of 64 characters\n")
        return f"{kind} {name}"

    def judge(self, attachment: str, direction: str, packet: Packet) -> str:
        """The map of the VLAN too, in front of the list inbound, behind it outbound; either may deny."""
        verdicts = [super().judge(attachment, direction, packet)]
        vlan = re.fullmatch(r"Vlan(\d+)", attachment)
        for child in self.root.children:
            words = child.line.split()
            if vlan and words[:2] == ["vlan", "filter"] and _holds(words[-1], int(vlan[1])):
                verdicts.append(self._map(words[2], packet))
        return "deny" if "deny" in verdicts else "permit"

    def _map(self, name: str, packet: Packet) -> str:
        for child in self.root.children:
            if child.line.split()[:3] != ["vlan", "access-map", name]:
                continue
            wanted = f"match {'ip' if packet.family == 4 else 'ipv6'} address "
            lists = [one for line in child.children if line.line.startswith(wanted) for one in line.line.split()[3:]]
            if any(self.verdict(one, packet) == "permit" for one in lists):
                return "deny" if child.find("action drop") else "permit"
        return "deny"


def _holds(vlans: str, vlan: int) -> bool:
    ends = [part.split("-") for part in vlans.split(",")]
    return any(int(part[0]) <= vlan <= int(part[-1]) for part in ends)


class NxosSession(IndentedSession):
    router: Device
    user_commands = ("exit", "terminal length *", "terminal width *", "show version")

    def name(self) -> str:
        return self.router.running.hostname()

    def mode_text(self) -> str:
        if not self.mode:
            return "config"
        line = self.mode[0]
        kind = next((text for start, text in _MODES.items() if line.startswith(start)), "mode")
        return "config-subif" if kind == "if" and "." in line else f"config-{kind}"

    def invalid(self, line: str, position: int) -> str:
        return f"{' ' * (len(self.prompt) + 1 + position)}^\n% Invalid command at '^' marker.\n"

    def incomplete(self, line: str) -> str:
        return f"{' ' * (len(self.prompt) + 1 + len(line))}^\n% Incomplete command at '^' marker.\n"

    def is_protocol(self, line: str) -> bool:
        return " ; " in line or super().is_protocol(line)

    def commands(self) -> Mapping[str, Command]:
        router = self.router

        def quiet(_: list[str]) -> str:
            return ""

        return {
            "exit": self.logout,
            "terminal length *": quiet, "terminal width *": quiet,
            "show running-config": lambda _: router.running_text(),
            "show startup-config": lambda _: router.startup_text(),
            "show ip access-lists": lambda _: self._lists(IPV4, ""),
            "show ip access-lists *": lambda words: self._lists(IPV4, words[0]),
            "show ipv6 access-lists": lambda _: self._lists(IPV6, ""),
            "show ipv6 access-lists *": lambda words: self._lists(IPV6, words[0]),
            "show checkpoint summary": lambda _: router.checkpoints_text(),
            "show scheduler schedule": lambda _: router.schedules_text(),
            "show version": lambda _: _VERSION,
            "configure terminal": self._configure,
            "checkpoint *": lambda words: router.checkpoint(words[0]),
            "no checkpoint *": lambda words: router.forget(words[0]),
            "rollback running-config checkpoint * atomic": lambda words: router.go_back(words[0]),
            "copy running-config startup-config": lambda _: router.save(),
        }  # fmt: skip

    def command(self, line: str) -> str:
        """Commands between semicolons, up to the first that is refused."""
        output = ""
        for part in line.split(" ; ") if not line.lstrip().startswith("!") else [line]:
            said = super().command(part)
            output += said
            if refused(said):
                break
        return output

    def exec(self, line: str) -> str:
        head, pipe, wanted = line.partition("|")
        if pipe and wanted.strip() == "count":
            return f"{super().exec(head.strip()).count(chr(10))}\n"
        return super().exec(line)

    def _configure(self, _: list[str]) -> str:
        self.mode = ()
        return "Enter configuration commands, one per line. End with CNTL/Z.\n"

    def configure(self, line: str) -> str:
        words = line.lower().split()
        if words[0] in ("show", "checkpoint", "rollback", "copy") or words[:2] == ["no", "checkpoint"]:
            return self.exec(line)
        router = self.router
        here = self.mode or ()
        self.mode, changed = router.running.enter(here, line)
        said = ""
        if here and here[0].startswith("scheduler schedule name ") and words[:2] == ["time", "start"]:
            said = router.schedule(here, line)
        if changed and not refused(said):
            router.changed()
        return said

    def _lists(self, dialect: Dialect, name: str) -> str:
        running = self.router.running
        output = []
        for child in running.root.children:
            if running.dialect(child.line) is dialect and name in ("", child.line.split()[-1]):
                output.append(f"\n{'IP' if dialect is IPV4 else 'IPV6'} access list {child.line.split()[-1]}")
                output += [f"        {one.line}" for one in child.children]
        return "".join(f"{line}\n" for line in output)


def refused(said: str) -> bool:
    return "\n%" in f"\n{said}" or "\nERROR" in f"\n{said}"


class Device(Router):
    session_class = NxosSession

    def __init__(self, name: str, text: str, enable_secret: str = "") -> None:
        super().__init__(name, text, enable_secret)
        self.running = NxosConfiguration(text)
        self.startup = self.running.text()
        self._checkpoints: dict[str, str] = {}
        self._timers: dict[str, tuple[Timer, str]] = {}  # schedule to its timer, and its `time` line

    def snapshot(self) -> str:
        with self.clock.lock:
            self.clock.settle()
            text = self.running_text()
            return f"{text}{text.count(chr(10))}\n"

    def judge(self, attachment: str, direction: str, packet: Packet) -> str:
        return self.running.judge(attachment, direction, packet)

    def changed(self) -> None:
        self.running.touch()
        self._settle_timers()
        super().changed()

    def running_text(self) -> str:
        return self.running.text()

    def startup_text(self) -> str:
        return self.startup.replace("!Command: show running-config", "!Command: show startup-config", 1)

    def save(self) -> str:
        self.startup = self.running.text()
        return "[########################################] 100%\nCopy complete.\n"

    def checkpoint(self, name: str) -> str:
        if name in self._checkpoints:
            return f"ERROR: Checkpoint {name} already exists\n"
        if len(self._checkpoints) >= _CHECKPOINTS:
            return "ERROR: The maximum number of checkpoints has been reached\n"
        self._checkpoints[name] = self.running.text()
        return "..Done\n"

    def forget(self, name: str) -> str:
        return "" if self._checkpoints.pop(name, "") else f"ERROR: Checkpoint {name} does not exist\n"

    def go_back(self, name: str) -> str:
        if name not in self._checkpoints:
            return f"ERROR: Checkpoint {name} does not exist\n"
        if self._checkpoints[name] != self.running.text():
            self.running = NxosConfiguration(self._checkpoints[name])
            self.changed()
        return (
            "Note: Applying config parallelly may fail Rollback verification\nCollecting Running-Config\n"
            "#Generating Rollback Patch\nExecuting Rollback Patch\nVerification is Successful.\n\n"
            "Rollback completed successfully.\n\n"
        )

    def checkpoints_text(self) -> str:
        return "User Checkpoint Summary\n" + "".join(f"{name}:\nCreated by audit\n" for name in self._checkpoints)

    def schedule(self, path: Path, line: str) -> str:
        """`time start +HH:MM` in a schedule: run its jobs once, then. A refusal takes the line away again."""
        found = re.fullmatch(r"\s*time start \+(\d\d?):(\d\d)\s*", line)
        block = self.running.block(path)
        job = block.find("job name")
        if not self.running.root.find("feature scheduler"):
            self.running.root.children.remove(block)
            return "% Invalid command at '^' marker.\n"
        if not found or job is None or self._job(job.line.split()[2]) is None:
            block.children = [child for child in block.children if not child.line.startswith("time ")]
            return "ERROR: Schedule needs a job that is defined, and a time as +HH:MM\n"
        name = path[0].split()[-1]
        if name in self._timers:
            self.clock.cancel(self._timers[name][0])
        seconds = int(found[1]) * 3600 + int(found[2]) * 60
        self._timers[name] = self.clock.call_later(seconds, lambda: self._run(name)), line.strip()
        return "Schedule starts from Mon Nov 23 14:05:00 2026\n"

    def schedules_text(self) -> str:
        return "".join(f"Schedule Name       : {name}\n" for name in self._timers)

    def _settle_timers(self) -> None:
        """A schedule that is gone runs no job."""
        for name in list(self._timers):
            block = self.running.root.find(f"scheduler schedule name {name}")
            if block is None or block.find("time start") is None:
                self.clock.cancel(self._timers.pop(name)[0])

    def _job(self, name: str) -> str | None:
        """The commands of a job, which stand below its name at the margin, up to end-job."""
        lines = [child.line for child in self.running.root.children]
        if f"scheduler job name {name}" not in lines:
            return None
        start = lines.index(f"scheduler job name {name}") + 1
        end = lines.index("end-job", start) if "end-job" in lines[start:] else len(lines)
        return " ; ".join(lines[start:end])

    def _run(self, schedule: str) -> None:
        block = self.running.root.find(f"scheduler schedule name {schedule}")
        job = block.find("job name") if block else None
        body = self._job(job.line.split()[2]) if job else None
        root = self.running.root
        if root.find("aaa authentication login default group") and not root.find("scheduler aaa-authentication"):
            body = ""  # the user of a AAA server is nobody to the scheduler
        self._timers.pop(schedule, None)
        session = NxosSession(self)
        session.privileged = True
        for command in (body or "").split(" ; "):
            session.command(command)


_VERSION = """\
Cisco Nexus Operating System (NX-OS) Software
TAC support: http://www.cisco.com/tac
Software
  BIOS: version 05.47
  NXOS: version 10.3(4a) [Maintenance Release]
Hardware
  cisco Nexus9000 C93180YC-FX3 Chassis
  Device name: agg1
Kernel uptime is 143 day(s), 2 hour(s), 11 minute(s), 40 second(s)
"""
