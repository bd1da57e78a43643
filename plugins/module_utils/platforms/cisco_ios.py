# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Cisco IOS and IOS-XE.

What is modelled, and where it is written:
- The first line that matches decides, an implicit deny ends a list; a standard list compares the source alone
  (Cisco, "IP Access List Overview").
- A line with layer 4 conditions applies to whole packets and first fragments; a permit applies to later fragments
  too, on its layer 3 conditions, a deny does not; `fragments` means later fragments alone (Cisco, "Access Control
  Lists and IP Fragments"; "Specifying IP Extended Access Lists with Fragment Control"). No document says this of
  IPv6: there a line with layer 4 conditions is in doubt for later fragments.
- A list that is bound and does not exist, or has no lines, permits everything (Cisco, "Configuring IP Access Lists").
  What a list of remarks alone does is not documented, and is unknown.
- Every IPv6 list ends with permit nd-na, permit nd-ns, deny, once it has a line (Cisco, "deny (IPv6)").
- `undetermined-transport` matches what has no complete upper-layer header, and no later fragment (Cisco, "IPv6 ACL
  Undetermined-Transport Support"); an IPv6 list looks for that header behind the extension headers (the same).
- Flags one by one (`ack rst`): any of them is enough; `match-all +ack -syn` wants all (Cisco, "ACL TCP Flags
  Filtering"). `established` is ACK or RST (Cisco, "access-list (IP extended)").
- A mask of a network group is a netmask, of a list a wildcard (Cisco, "Object Groups for ACLs"). What an empty or
  undefined group matches is not documented: the line is in doubt.
- `addrgroup` and `portgroup` name groups of addresses and ports (Cisco, "Understanding Cisco IOS ACL Support", Policy-
  Based ACLs, release 12.2SX), and so do `net-group` and `port-group` of IOS XR, which generators write for IOS too.
- `ip verify unicast source reachable-via rx` without allow-default is a strict source check (Cisco, "Unicast Reverse
  Path Forwarding"), of its family; without IPv6 an interface needs none for it.
- An interface with `source template` has the template's lists where it has none of its own (Cisco, "Interface
  Templates").
- Port numbers behind names: Cisco, "access-list (IP extended)"; names of newer releases as IANA has them. `hbh` is the
  hop-by-hop header (Cisco, "permit (IPv6)").
- Two lists in one direction, `ip access-group common A B` (Cisco, "IPv4 ACL Chaining Support"): what a permit of the
  common one means to the other is not documented, so what is bound there is unknown.
- Whether protocol 0 of an IPv4 line is every protocol is not documented: the line is in doubt.
- Lists as `show access-lists` prints them are read too, without their counters. Remarks are not shown, so a list
  without a line is unknown there (Cisco, "show access-lists").
- A/len in an IPv4 list, `access-list NAME extended`, a list without a kind, an entry beside the name of its list and
  `statistics` (of NX-OS) are read as what they plainly mean, though IOS prints none of them.
- Per-user configuration of a AAA server adds to or overrides what a virtual access interface has of its template
  (Cisco, "Configuring per-User Configuration"), where `aaa authorization network` asks a server group (Cisco,
  "Configuring Authorization"). The list `default` counts unless `ppp authorization` names another. That sessions of an
  interface with `ip subscriber` or `service-policy type control` (ISG) are authorized so as well, by `aaa authorization
  subscriber-service` too: [memory].
- A class of a policy with `drop` (Cisco, "drop (QoS)"), a route map with `set interface Null0` (Cisco, "Configuring
  Policy-Based Routing"), a rate limit with `conform-action drop` (Cisco, "rate-limit") and a filter group of cable
  modems (Cisco, "cable filter group") drop packets beside the lists: where one is attached, that is a doubt.
- `configure terminal revert timer` and `configure confirm`: Cisco, "Configuration Rollback Confirmed Change".
- The words of rejections beside `% Invalid input`, `% Incomplete command` and `% Ambiguous command`: [memory].
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from ..filters import PERMIT, Configuration
from ..plan import Push
from ..rules import Change
from . import _cisco_like, _cisco_push, _cisco_text
from ._cisco_dialect import IANA_TCP, IANA_UDP, ICMP6_NAMES, ICMP_NAMES, TCP, UDP, Dialect

ALIASES = ("cisco.ios.ios", "ios", "iosxe", "cisco_iosxe", "cisco_xe")
DEVICE_TYPE = "cisco_ios"
READ = ("show running-config",)
# A syslog line has a facility in capitals behind its %, a rollback that begins is no rejection.
REJECTED = (r"^\s*%(?! ?[A-Z0-9_]+-\d|Rollback Confirmed Change: )[ \w].*",)
PUSH = Push(
    arm=("configure terminal revert timer {minutes}",),
    commit=("end",),
    confirm=("configure confirm",),
    abort=("configure revert now",),
    discard=("configure revert now",),  # a timer that waits refuses the next push
    save=("write memory",),
)
LIVE = True
WHOLE = False
LINK_LOCAL = True

DIALECT = Dialect(
    title="Cisco IOS",
    protocols={"ahp": 51, "hbh": 0, "icmpv6": 58, "igrp": 9},
    ports={
        TCP: IANA_TCP
        | {
            "bgp": 179, "chargen": 19, "cmd": 514, "connectedapps-plain": 15001, "connectedapps-tls": 15002,
            "daytime": 13, "discard": 9, "domain": 53, "drip": 3949, "echo": 7, "exec": 512, "finger": 79, "ftp": 21,
            "ftp-data": 20, "gopher": 70, "hostname": 101, "ident": 113, "irc": 194, "klogin": 543, "kshell": 544,
            "login": 513, "lpd": 515, "msrpc": 135, "nntp": 119, "onep-plain": 15001, "onep-tls": 15002,
            "pim-auto-rp": 496, "pop2": 109, "pop3": 110, "smtp": 25, "sunrpc": 111, "syslog": 514, "tacacs": 49,
            "tacacs-ds": 65, "talk": 517, "telnet": 23, "time": 37, "uucp": 540, "whois": 43, "www": 80,
        },
        UDP: IANA_UDP
        | {
            "biff": 512, "bootpc": 68, "bootps": 67, "discard": 9, "dnsix": 195, "domain": 53, "echo": 7,
            "isakmp": 500, "mobile-ip": 434, "nameserver": 42, "netbios-dgm": 138, "netbios-ns": 137,
            "netbios-ss": 139, "non500-isakmp": 4500, "ntp": 123, "pim-auto-rp": 496, "rip": 520, "ripv6": 521,
            "snmp": 161, "snmptrap": 162, "sunrpc": 111, "syslog": 514, "tacacs": 49, "talk": 517, "tftp": 69,
            "time": 37, "who": 513, "xdmcp": 177,
        },
    },
    icmp_names={4: ICMP_NAMES, 6: ICMP6_NAMES},
    bindings={("ip", "access-group"): 4, ("ipv6", "traffic-filter"): 6},
    bindable=frozenset({"template", "policy-map", "service-template"}),
    undefined=PERMIT,
    empty=PERMIT,
    later_fragments=frozenset({4}),
    header_chain=True,
    neighbour_discovery=((136, "nd-na"), (135, "nd-ns")),
    neighbour_discovery_doubt="",
    ignored=frozenset({"statistics"}),
    suspicious=(
        (("ip", "inspect"), "inspection opens the access lists for return traffic"),
        (("zone-member", "security"), "a zone's policy filters too, and is not read"),
    ),
    suspicious_global=((("cable", "filter", "group"), "a filter group of cable modems filters too, and is not read"),),
    # What traffic or a login made of another list stands there too, and so do lists that are not of IP.
    shown=re.compile(
        r"(?:(?P<kind>Standard IP|Extended IP|IPv6) access list (?P<name>\S+)(?: \(Compiled\))?|"
        r"(?:Standard|Extended|Reflexive|Role-based|IPv6)\b.* access list \S+.*)$"
    ),
    own_marks=frozenset({"Cisco IOS"}),
    not_lists=frozenset(
        {"log-update", "logging", "resequence", "persistent", "helper", "match-local-traffic", "role-based"}
    ),
)  # fmt: skip


WRITING = _cisco_push.Writing(
    list_header={4: "ip access-list extended", 6: "ipv6 access-list"},
    binding={4: "ip access-group", 6: "ipv6 traffic-filter"},
    protocols={
        4: {"": "ip", "tcp": "tcp", "udp": "udp", "icmp": "icmp"},
        6: {"": "ipv6", "tcp": "tcp", "udp": "udp", "icmp6": "icmp"},
    },
    host={4: "host {address}", 6: "host {address}"},
    network={4: "{address} {wildcard}", 6: "{address}/{length}"},
    indent=" ",
    live=LIVE,
    list_words=frozenset(),
    denied_first={},
    undetermined={4: "", 6: "undetermined-transport"},
)


def incomplete(text: str) -> str:
    """Why the text is not a whole running configuration of IOS, "" when it is."""
    return _cisco_text.incomplete(text, DIALECT)


def parse(text: str, attachments: Sequence[str] = ()) -> Configuration:  # noqa: ARG001 - lists do not depend on them
    """Filters, bindings and interfaces of the text. Raises NotThisPlatform when it holds nothing of IOS."""
    return _sessions(text, _cisco_like.parse(text, DIALECT))


_AUTHORIZED = re.compile(
    r"^aaa[ \t]+authorization[ \t]+(network|subscriber-service)[ \t]+(\S+)(?=.*[ \t](?:group|radius)\b).*", re.MULTILINE
)
_OF_SESSIONS = re.compile(r"[ \t]+(?:ppp authorization (\S+)|(ip subscriber |service-policy type control )\S.*)")


def _sessions(text: str, configuration: Configuration) -> Configuration:
    """The interfaces whose sessions a AAA server authorizes, with the line that says so."""
    lists = {
        (found[1], found[2]): (found[0].strip(), text.count("\n", 0, found.start()) + 1)
        for found in _AUTHORIZED.finditer(text)
    }
    if not lists:
        return configuration
    lines = text.split("\n")
    interfaces = dict(configuration.interfaces)
    for name, interface in interfaces.items():
        ppp, subscribers = name.lower().startswith("virtual-template"), False
        chosen = "default"
        for number in range(interface.line, len(lines)):
            if lines[number][:1] not in (" ", "\t"):
                break
            said = _OF_SESSIONS.match(lines[number])
            if said:
                chosen = said[1] or chosen
                subscribers = subscribers or bool(said[2])
        if not ppp and not subscribers:
            continue
        kinds = [("network", chosen)] + [one for one in lists if one[0] == "subscriber-service" and subscribers]
        for kind in kinds:
            if kind in lists:
                line, number = lists[kind]
                interfaces[name] = replace(interface, sessions_from=line, sessions_line=number)
                break
    return replace(configuration, interfaces=interfaces)


def fields(change: Change) -> dict[str, object]:
    """The variables of roles/edge_filter/templates/cisco_ios.j2."""
    return _cisco_push.fields(change, WRITING)


def lines(rendered: str) -> list[str]:
    """The commands of a rendered text."""
    return _cisco_push.lines(rendered)


def remove(filters: Sequence[tuple[int, str]]) -> list[str]:
    """The commands that delete lists, given as (family, name)."""
    return _cisco_push.remove(filters, WRITING)


def apply(running: str, lines: Sequence[str]) -> Iterator[str]:
    """The running text after each command, as the router would have it. Raises ValueError for an unknown command."""
    return _cisco_push.apply(running, lines, WRITING)


def restore(running: str, backup: str, names: Sequence[str]) -> list[str]:
    """The commands that bring the backup's lists and bindings back on these attachments."""
    return _cisco_push.restore(running, backup, names, WRITING, parse)
