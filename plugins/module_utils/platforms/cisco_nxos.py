# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Cisco NX-OS.

What is modelled, and where it is written ("guide": Cisco, Nexus 9000 Series NX-OS Security Configuration Guide, 9.3 and
10.1, "Configuring IP ACLs"; "reference": Cisco, Nexus 7000 Series NX-OS Security Command Reference):
- The first rule that matches decides, the one with the lowest number; what matches none is denied (guide, "Implicit
  Rules for IP and MAC ACLs"). A rule without a number comes 10 behind the last (guide, "Sequence Numbers"),
  and so does a remark.
- Nexus 9000 permits no neighbour discovery unless a rule does (the same); Nexus 7000 ends every IPv6 list with permits
  of nd-na, nd-ns, router-advertisement and router-solicitation [memory]: in doubt.
- Addresses are a prefix, an address with a wildcard, `host`, `any` or `addrgroup` (Cisco, Nexus 5000 Series Command
  Reference, "deny (IPv4)"); ports `eq`, `neq`, `gt`, `lt`, `range` or `portgroup` (the same).
- `established` is ACK or RST; a flag in a rule is one that is set (Cisco, Nexus 5500 Series NX-OS Security Command
  Reference, "deny tcp (IPv4)"). Whether several flags must all be set is not documented.
- `fragments` is a later fragment, and stands beside no layer 4 condition (the same, "permit ipv6 (IPv6)"). What a rule
  with ports does to later fragments is not documented. `fragments permit-all` or `deny-all` of a list decides about
  those that no rule matches, of permit-all it is also said that rules with `fragments` alone come before it
  (reference, "fragments"): both stay open. What `extension-header` of a list does is not documented, nor whether the
  protocol is sought behind extension headers. Our own lists deny those headers by number first, as on EOS.
- A list that is bound and not defined does not affect traffic (reference, "ip access-group"). What one without rules
  does is not documented, nor what an empty or undefined group matches.
- Order: list of the port, map of the VLAN, list of the interface; outbound the list, then the map (guide, "Order of ACL
  Application"). A port list works on layer 2 ports, inbound; a router list there does nothing until the port is routed
  (reference, "ip access-group", "ip port access-group"). Which of both a port is without a word about it depends on
  the series and its release.
- A VLAN access map does what its first entry says of which a list permits the packet, whatever the direction (Cisco,
  Nexus 9000 guide, "Configuring VLAN ACLs"). What matches no entry is not documented, nor what an entry without a list
  matches.
- MAC lists see non-IP traffic alone (guide, "ACL Types and Applications"), but for `mac packet-classify`. Lists of vty,
  SNMP, NTP and the control plane do not filter transit traffic (the same).
- A port that 802.1X opens may get a list from a RADIUS server: [memory].
- `ip verify unicast source reachable-via rx` is a strict source check, none where `system urpf disable` stands:
  [memory].
- `packet-length` speaks of 20 to 9210 bytes (reference, "deny (IPv4)").
- A change of a list in force is atomic unless `no hardware access-list update atomic` stands; with `default-result
  permit` beside it everything passes meanwhile (guide, "Atomic ACL Updates"): there nothing is pushed. A switch without
  room for both lists refuses the new one (the same).
- The rollback timer is a job of the scheduler, which goes back to a checkpoint, atomically (Cisco, Nexus 9000 Series
  NX-OS System Management Configuration Guide, 10.5, "Configuring the Scheduler", "Configuring Rollback"). A push gives
  the job its time and makes the checkpoint, in one line; the confirmation takes both away, in one line too. Names of
  checkpoints are unique (the same, "Guidelines and Limitations"), so a push is refused while another waits. The
  checkpoint holds the schedule, so that going back does not take away what goes back. The job has to be there before,
  as an archive has on IOS: `_JOB` below; users of a AAA server need `scheduler aaa-authentication` (the same, "Remote
  User Authentication"). That the delay is written `time start +HH:MM`, and that a line may hold several commands
  outside of jobs too: [memory].
- Not used: Session Manager (`configure session`), of which no document says that it takes IPv6 lists, and two-stage
  commit, which Nexus 3600 and 9000 alone have, and of which none says that another session may confirm.
- The running configuration has no end mark, so the count of its lines is asked for: `show running-config | count`. That
  the pipe is so called, and the words of rejections beside `% Invalid command`: [memory].
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from ..filters import PERMIT, UNKNOWN, Configuration, Doubt, Interface
from ..plan import Push, Refused
from ..rules import Change
from . import _cisco_like, _cisco_push, _cisco_text, _nxos_maps
from ._cisco_dialect import EXTENSION_NUMBERS, IANA_TCP, IANA_UDP, ICMP6_NAMES, ICMP_NAMES, TCP, UDP, Dialect

ALIASES = ("cisco.nxos.nxos", "nxos", "cisco_nxos_ssh", "nexus")
DEVICE_TYPE = "cisco_nxos"
READ = ("show running-config", "show running-config | count")
REJECTED = (
    r"^\s*%(?! ?[A-Z0-9_]+-\d)[ \w].*",
    r"^(?:ERROR|Error|Syntax error)\b.*",
    r"^(?:Rollback|Verification|Checkpoint|Commit)\b.*\b[Ff]ailed\b.*",
)
_BACK = "rollback running-config checkpoint isp-before atomic"
_NO_TIMER = "configure terminal ; no scheduler schedule name isp-rollback ; end ; no checkpoint isp-before"
_TIMER = (
    "configure terminal ; scheduler schedule name isp-rollback ; job name isp-rollback ; "
    "time start +00:{minutes:02d} ; end ; checkpoint isp-before ; configure terminal"
)
# What the operator configures once.
_JOB = ("feature scheduler", "scheduler job name isp-rollback", f"{_BACK} ; {_NO_TIMER}")
PUSH = Push(
    arm=(_TIMER,),
    commit=("end",),
    confirm=(_NO_TIMER,),
    abort=(_BACK, _NO_TIMER),  # the timer goes when nothing is left to take back
    discard=(_BACK, _NO_TIMER),
    save=("copy running-config startup-config",),
)
LIVE = True
WHOLE = False
LINK_LOCAL = True

DIALECT = Dialect(
    title="Cisco NX-OS",
    protocols={"ahp": 51, "icmpv6": 58},
    ports={
        TCP: IANA_TCP
        | {
            "cmd": 514, "drip": 3949, "exec": 512, "lpd": 515, "pim-auto-rp": 496, "syslog": 514,
        },
        UDP: IANA_UDP
        | {
            "dnsix": 195, "non500-isakmp": 4500, "pim-auto-rp": 496,
        },
    },
    icmp_names={4: ICMP_NAMES, 6: ICMP6_NAMES},
    bindings={("ip", "access-group"): 4, ("ipv6", "traffic-filter"): 6},
    bindable=frozenset(),
    undefined=PERMIT,
    empty=UNKNOWN,
    later_fragments=frozenset(),
    header_chain=False,
    neighbour_discovery=((136, "nd-na"), (135, "nd-ns"), (134, "router-advertisement"), (133, "router-solicitation")),
    neighbour_discovery_doubt="which releases permit neighbour discovery at the end of a list is not documented",
    ignored=frozenset({"statistics"}),
    own_marks=frozenset({"Cisco NX-OS"}),
    not_lists=frozenset({"match-local-traffic"}),
    port_bindings={("ip", "port", "access-group"): 4, ("ipv6", "port", "traffic-filter"): 6},
    suspicious=(
        (("mac", "port", "access-group"), ""),
        (("mac", "packet-classify"), "a MAC access list filters IP packets too there, and is not read"),
        (("dot1x", "port-control", "auto"), "a RADIUS server may give sessions of this port a list of their own"),
        (("inherit", "port-profile"), "a port profile may bind lists too, and is not read"),
    ),
    suspicious_global=(
        (("apply", "profile"), "a profile may bind lists too, and is not read"),
        (("configure", "profile"), "a profile may bind lists too, and is not read"),
    ),
    list_wide=frozenset({"fragments", "extension-header", "ignore"}),
    several_flags="whether several TCP flags must all be set is not documented",
    numbered_remarks=True,
    group_wildcards=True,
    lengths=(20, 9210),
    vlan_maps=True,
    counted=True,
    vdcs=True,
)  # fmt: skip
_LISTS = replace(DIALECT, port_bindings={})  # the lists of interfaces alone

WRITING = _cisco_push.Writing(
    list_header={4: "ip access-list", 6: "ipv6 access-list"},
    binding={4: "ip access-group", 6: "ipv6 traffic-filter"},
    protocols={
        4: {"": "ip", "tcp": "tcp", "udp": "udp", "icmp": "icmp"},
        6: {"": "ipv6", "tcp": "tcp", "udp": "udp", "icmp6": "icmp"},
    },
    host={4: "{address}/32", 6: "{address}/128"},
    network={4: "{address}/{length}", 6: "{address}/{length}"},
    indent="  ",
    live=LIVE,
    list_words=frozenset({"statistics", "fragments", "extension-header", "ignore"}),
    denied_first={6: tuple(str(number) for number in EXTENSION_NUMBERS)},
    undetermined={4: "", 6: ""},
)


def incomplete(text: str) -> str:
    """Why the text is not a whole running configuration of NX-OS with its count, "" when it is."""
    return _cisco_text.incomplete(text, DIALECT)


def parse(text: str, attachments: Sequence[str] = ()) -> Configuration:
    """Filters, bindings and interfaces of the text. Raises NotThisPlatform when it holds nothing of NX-OS."""
    body, _ = _counted(text)
    found = _nxos_maps.with_maps(body, _cisco_like.parse(body, DIALECT))
    if _NO_CHECK.search(body):
        unchecked = {
            name: replace(one, source_check="", source_check_line=0) if one.source_check else one
            for name, one in found.interfaces.items()
        }
        found = replace(found, interfaces=unchecked)
    doubts = [
        Doubt(one.line, one.text, "a port list comes before the lists of the VLAN's interface")
        for one in found.bindings
        if attachments and one.attachment not in attachments and one.text.split()[1] == "port"
    ]
    doubts += [
        Doubt(
            found.interfaces[name].line,
            name,
            "whether this port is switched, where its list does nothing, is not shown",
        )
        for name in attachments
        if _PORT.fullmatch(name) and name in found.interfaces and not _routed(body, found.interfaces[name])
    ]
    return replace(found, doubts=tuple(sorted((*found.doubts, *doubts), key=lambda one: one.line)))


_PORT = re.compile(r"(?:Ethernet|port-channel)[\d/]+", re.IGNORECASE)
_ROUTED = re.compile(r"[ \t]+(?:no switchport|switchport(?:\s.*)?|ip address \S.*|ipv6 address \S.*)\s*")


def _routed(body: str, interface: Interface) -> bool:
    """Do the lines of the interface show whether it is routed? What is switched has no list in force anyway."""
    below = itertools.islice(body.split("\n"), interface.line, None)
    return any(_ROUTED.fullmatch(line) for line in itertools.takewhile(lambda line: not line[:1].strip(), below))


_NO_CHECK = re.compile(r"^system urpf disable\s*$", re.MULTILINE)
_COUNT = re.compile(r"\n[ \t]*\d{1,8}\s*\Z")


def _counted(text: str) -> tuple[str, str]:
    """The configuration, and the number of its lines that stands behind it."""
    tail = text[-64:]
    found = _COUNT.search(tail)
    at = len(text) - len(tail) + found.start() if found else len(text)
    return text[:at], text[at:]


def fields(change: Change) -> dict[str, object]:
    """The variables of roles/edge_filter/templates/cisco_nxos.j2."""
    return _cisco_push.fields(change, WRITING)


def lines(rendered: str) -> list[str]:
    """The commands of a rendered text."""
    return _cisco_push.lines(rendered)


def remove(filters: Sequence[tuple[int, str]]) -> list[str]:
    """The commands that delete lists, given as (family, name)."""
    return _cisco_push.remove(filters, WRITING)


_AAA = re.compile(r"^aaa authentication login default group\s", re.MULTILINE)
_OF_JOBS = re.compile(r"^scheduler aaa-authentication\s", re.MULTILINE)
_NOT_ATOMIC = re.compile(r"^no hardware access-list update atomic\s*$", re.MULTILINE)
_OPEN_MEANWHILE = re.compile(r"^hardware access-list update default-result permit\s*$", re.MULTILINE)


def apply(running: str, lines: Sequence[str]) -> Iterator[str]:
    """The running text after each command, as the switch would have it, with its count.

    Raises ValueError for an unknown command, Refused where a switch has no rollback timer, or passes everything while
    it changes a list.
    """
    body, count = _counted(running)
    missing = [line for line in _JOB if not re.search(rf"^\s*{re.escape(line)}\s*$", body, re.MULTILINE)]
    if missing:
        raise Refused(
            f"this switch has no rollback timer, for want of '{missing[0]}': configure {' / '.join(_JOB)} once; "
            "nothing was changed"
        )
    if _AAA.search(body) and not _OF_JOBS.search(body):
        raise Refused(
            "this switch has no rollback timer: its users log in by a AAA server, and the scheduler runs no job of "
            "theirs without 'scheduler aaa-authentication'; nothing was changed"
        )
    if _NOT_ATOMIC.search(body) and _OPEN_MEANWHILE.search(body):
        raise Refused(
            "this switch permits everything while a list in force is changed ('no hardware access-list update atomic' "
            "with 'default-result permit'): set one of them otherwise; nothing was changed"
        )
    last, counted = "", ""
    for text in _cisco_push.apply(body, lines, WRITING):
        if text is not last:
            last = text
            counted = f"{text}\n{text.count(chr(10)) + 1}\n" if count else text
        yield counted


def restore(running: str, backup: str, names: Sequence[str]) -> list[str]:
    """The commands that bring the backup's lists and bindings back on these attachments; maps and port lists stay."""
    return _cisco_push.restore(
        _counted(running)[0], _counted(backup)[0], names, WRITING, lambda text: _cisco_like.parse(text, _LISTS)
    )
