# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Cisco IOS XR.

What is modelled, and where it is written (BNG: Cisco, ASR 9000 Broadband Network Gateway Command Reference):
- The first line that matches decides; an implicit deny ends a list once it has a line (BNG, "ipv6 access-list": a list
  needs a line for its implicit deny to take effect). So a list without lines denies nothing; the Layer 2 guide says
  that such a list cannot be applied at all ("Implementing Layer 2 Access Lists"). What a list does that is bound and
  does not exist is not documented, nor what remarks alone do: unknown.
- A permit with layer 4 conditions passes later fragments too, on its layer 3 conditions, a deny does not match them;
  `fragments` means later fragments alone (Cisco, "Access Control Lists and IP Fragments"; measured on NCS 5500: xrdocs,
  "ACL IP Fragments Matching", and there what `fragment-type` means). No document says it of IPv6: in doubt there.
- Every IPv6 list ends with permit nd-na, permit nd-ns, deny, once it has a line (BNG, "ipv6 access-list").
- Whether a protocol is sought behind IPv6 extension headers is not documented: a line with a protocol is in doubt for
  packets with such headers, until earlier lines have denied those headers by number. Our own lists begin so, because
  only that proves on both kinds of devices. That an IPv6 list takes the number of any header: [memory].
- `common LIST` is searched before the interface's own list, of one search from top to bottom (xrdocs, "Chained ACL").
  So the lists are one list, and the common one's implicit deny is not in between; where one of them has no lines,
  what then happens is not documented.
- A line may have a source and nothing else ("Configuring Standard Access Lists" of the same guides).
- `show running-config formal` prints with every line what it belongs to, and a line may be typed so: what stands
  behind the name of an interface, a group, a template is a line of it: [memory]. A counter of `show access-lists`,
  `(9 matches)`, matches nothing.
- Several lists without `common` in one line (multi-level ACL chaining: ASR 9000, "Implementing Access Lists", 5.3.2)
  and every other form of a binding: something is bound, and what it does is unknown. No line that denies takes a next
  hop.
- Groups: `net-group` and `port-group` (Cisco 8000, Access List Commands, "object-group network", "object-group port");
  that a group of another family or kind may have the same name, and that groups may be nested: [memory].
- `established` is ACK or RST, `match-all` and `match-any` take signed flags, as on IOS: [memory]. Whether several flags
  in a row ask for one of them or all is not documented.
- What stands behind an entry and matches nothing: log, capture, counter, police, icmp-off, set, priority, next hops of
  ACL-based forwarding, which a permit permits (the words: Ansible, "cisco.iosxr.iosxr_acls"; Cisco, netascode, "Access
  List"; that they match nothing: [memory]). User-defined fields (`udf`), the don't-fragment bit and fragment offsets
  are not modelled: in doubt.
- `ipv4 verify unicast source reachable-via rx` is a strict source check, on templates too (BNG, "ipv4 verify
  unicast source reachable-via"), of its family; without IPv6 an interface needs none for it.
- Subscribers: `dynamic-template type ppp|ipsubscriber|service NAME` binds lists (BNG, "ipv4 access-group"). Which list
  is in force when sessions have two templates that bind one is not documented: a doubt. Sessions for which `aaa
  authentication subscriber` or `aaa authorization subscriber` has a server group may get other lists of it.
- Lists of services, of the control plane (lpts, management-plane, ntp, snmp, ssh, line) and of route policies filter
  no transit traffic. Flow specifications of BGP do where they are installed, and are not read: a doubt. So are
  `apply-group` where a group of configuration holds filtering, policies of the type pbr, on an interface or by
  `vrf-policy`, and policies that drop a class.
- Port names: Cisco, Access List Commands, "permit (IPv4)", and IANA. ICMPv6 `destination-unreachable` is left out: IOS
  means code 3 by it, and whether XR means the type is not documented.
- `commit confirmed` takes seconds, 30 to 300 or to 65535 by release, `commit` confirms (Cisco, ASR 9000 Getting Started
  Guide, "Commit Command Options"; Cisco 8000, "commit"). Only the session that committed can confirm; any other is told
  that there is nothing to commit; a lost connection leaves the trial to its timer; `end` in the session asks, and takes
  back at once when the answer is yes (transcripts of an XRv 9000 24.3.1: xr-live-facts in
  ArchRuger/CLAB-BACKUP-WORKER-v2).
- That a new `access-group` replaces a chained one, the questions of a commit (netmiko's driver knows them) and the
  words of rejections beside those transcripts: [memory].
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ..filters import PERMIT, UNKNOWN, Configuration
from ..plan import Push
from ..rules import Change
from . import _cisco_like, _cisco_push, _cisco_text, _iosxr_places
from ._cisco_dialect import EXTENSION_NUMBERS, IANA_TCP, IANA_UDP, ICMP6_NAMES, ICMP_NAMES, TCP, UDP, Dialect

ALIASES = ("cisco.iosxr.iosxr", "iosxr", "cisco_xr", "xr", "ios_xr")
DEVICE_TYPE = "cisco_xr"
READ = ("show running-config",)
REJECTED = (
    r"^\s*%(?! ?[A-Z0-9_]+-[A-Z0-9_]*-?\d|\s*Confirming commit for trial session|\s*WARNING)[ \w].*",
    r"^\s*(?:Cannot enter exclusive mode|Cannot commit|No configuration changes to commit|Failed to commit).*",
    r"^\s*One or more commits have occurred from other configuration sessions.*",
)
# What the session asks: leaving takes back a trial and throws away what is not committed; others' commits stay first.
ANSWERS = (
    (r"Do you wish to exit\? \[no\]: ?$", "yes"),
    (r"commit them before exiting ?\(yes/no/cancel\)\? \[cancel\]: ?$", "no"),
    (r"Do you wish to proceed with this commit anyway\? \[no\]: ?$", "no"),
    (r"Confirm\? \[y/n\] ?\[confirm\]:? ?$", "y"),  # of a large configuration
)
PUSH = Push(
    arm=("configure exclusive",),
    commit=("commit confirmed {seconds}",),
    confirm=("commit",),
    abort=("end",),
    held=True,
)
LIVE = False
WHOLE = False
LINK_LOCAL = True

_ACTIONS = re.compile(
    r"(?:capture|icmp-off|icmp-on|counter \S+|priority (?:critical|high|medium|low)|\(\d+ (?:hw )?match(?:es)?\)|"
    r"set (?:qos-group|ttl|dscp|traffic-class) \S+|"
    r"police \d+(?: [gkm]?[bp]ps)?(?: peak-rate \d+(?: [gkm]?[bp]ps)?)?|"
    r"(?:default )?nexthop[123]?(?: track \S+)?(?: vrf \S+)?(?: ipv[46])?(?: [0-9A-Fa-f.:]*[.:][0-9A-Fa-f.:]*)?)(?= |$)"
)

DIALECT = Dialect(
    title="Cisco IOS XR",
    protocols={"ahp": 51, "icmpv6": 58, "igrp": 9},
    ports={
        TCP: IANA_TCP | {"cmd": 514, "exec": 512, "lpd": 515, "pim-auto-rp": 496, "syslog": 514},
        UDP: IANA_UDP | {"dnsix": 195, "non500-isakmp": 4500, "pim-auto-rp": 496},
    },
    icmp_names={
        4: ICMP_NAMES,
        6: {name: ICMP6_NAMES[name] for name in ICMP6_NAMES if name != "destination-unreachable"}
        | {
            "address-unreachable": (1, 3), "administratively-prohibited": (1, 1), "echo": (128, None),
            "erroneous-header-field": (4, 0), "group-membership-query": (130, None),
            "group-membership-report": (131, None), "group-membership-termination": (132, None),
            "neighbor-redirect": (137, None), "no-route-to-destination": (1, 0), "ttl-exceeded": (3, 0),
            "unrecognized-next-header": (4, 1), "unrecognized-option": (4, 2),
        },
    },
    bindings={("ipv4", "access-group"): 4, ("ipv6", "access-group"): 6},
    bindable=frozenset(
        {"aaa", "apply-group", "dynamic-template", "flowspec", "group", "policy-map", "pool", "router", "vrf-policy"}
    ),
    undefined=UNKNOWN,
    empty=PERMIT,
    later_fragments=frozenset({4}),
    header_chain=False,
    neighbour_discovery=((136, "nd-na"), (135, "nd-ns")),
    neighbour_discovery_doubt="",
    ignored=frozenset(),
    suspicious=(),
    own_marks=frozenset({"Cisco IOS XR"}),
    not_lists=frozenset({"icmp-off", "log-update", "maximum"}),
    groups_by_kind=True,
    formal=True,
    standard_lines=True,
    several_flags="whether one of several TCP flags in a row is enough is not documented",
    actions=_ACTIONS,
)  # fmt: skip

WRITING = _cisco_push.Writing(
    list_header={4: "ipv4 access-list", 6: "ipv6 access-list"},
    binding={4: "ipv4 access-group", 6: "ipv6 access-group"},
    protocols={
        4: {"": "ipv4", "tcp": "tcp", "udp": "udp", "icmp": "icmp"},
        6: {"": "ipv6", "tcp": "tcp", "udp": "udp", "icmp6": "icmpv6"},
    },
    host={4: "host {address}", 6: "host {address}"},
    network={4: "{address}/{length}", 6: "{address}/{length}"},
    indent=" ",
    live=LIVE,
    list_words=frozenset(),
    denied_first={6: tuple(str(number) for number in EXTENSION_NUMBERS)},
    undetermined={4: "", 6: ""},
    directions={"up": "ingress", "down": "egress"},
)

_MARK = "!! IOS XR Configuration"
_BUILDING = re.compile(r"^(?:!! )?Building configuration\.\.\.[ \t\r]*$", re.MULTILINE)


def incomplete(text: str) -> str:
    """Why the text is not a whole running configuration of IOS XR, "" when it is."""
    if _MARK in text[: _cisco_text.TOP]:
        text = _BUILDING.sub("!", text, count=1)  # IOS begins with the same words
    return _cisco_text.incomplete(text, DIALECT)


def parse(text: str, attachments: Sequence[str] = ()) -> Configuration:  # noqa: ARG001 - lists do not depend on them
    """Filters, bindings and interfaces of the text. Raises NotThisPlatform when it holds nothing of IOS XR."""
    return _cisco_like.parse(text, DIALECT, _iosxr_places.read)


def fields(change: Change) -> dict[str, object]:
    """The variables of roles/edge_filter/templates/cisco_iosxr.j2."""
    return _cisco_push.fields(change, WRITING)


def lines(rendered: str) -> list[str]:
    """The commands of a rendered text."""
    return _cisco_push.lines(rendered)


def remove(filters: Sequence[tuple[int, str]]) -> list[str]:
    """The commands that delete lists, given as (family, name)."""
    return _cisco_push.remove(filters, WRITING)


def apply(running: str, lines: Sequence[str]) -> Iterator[str]:
    """The running text after the commit that all commands wait for. Raises ValueError for an unknown command."""
    return _cisco_push.apply(running, lines, WRITING)


def restore(running: str, backup: str, names: Sequence[str]) -> list[str]:
    """The commands that bring the backup's lists and bindings back on these attachments."""
    return _cisco_push.restore(running, backup, names, WRITING, parse)
