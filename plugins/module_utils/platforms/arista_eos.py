# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Arista EOS.

What is modelled, and where it is written (Arista, User Manual, "ACLs and Route Maps", where nothing else is said):
- The first rule that matches decides; what matches none is dropped. Rules stand in the order of their numbers, one
  without a number comes 10 behind the last; a remark has a number too ("Resequencing Rule Numbers").
- Ports: `eq` and `neq` take up to ten, `gt`, `lt`, `range`; addresses: A/len, with a discontiguous mask, `host`, `any`.
- A flag in a rule is one that is set. Whether several flags must all be set is not documented.
- `fragments` matches later fragments. What a rule with ports does to later fragments is not documented, nor what
  `fragment-rules` changes: such a rule is in doubt for them.
- Four rules in every IPv6 list let neighbour discovery past the implicit drop; which four is not written, so the
  solicitations and advertisements of routers and neighbours are permitted there, in doubt.
- ICMPv6 messages have the names that the module arista.eos.eos_acls knows, and the codes of RFC 4443 and 6550.
- Whether a protocol is compared with the first next-header of an IPv6 packet or with the one behind its extension
  headers is not documented: a rule with a protocol is in doubt for packets with extension headers, until earlier
  rules have denied those headers by number. Our own lists begin so, because only that proves on both kinds of devices.
- What a list that is bound and not defined does, or one without rules, is not documented: unknown.
- An interface has one list per family and direction. Lists of services (management ssh, router bgp, ...) and of the
  control plane do not filter transit traffic.
- `router segment-security` drops packets between segments, whatever the interface (Arista, AVD, "Group-Based
  Multi-domain Segmentation Services"). A port that 802.1X opens may get a list from a RADIUS server, in its
  NAS-Filter-Rule (Arista, EOS 4.25.0F, "Dynamic ACL"). Rules of BGP Flowspec are installed like lists (the same, EOS
  4.21.3F, "BGP Flowspec"); that `flow-spec` on an interface lets them in, and what DirectFlow does first: [memory].
- `hardware access-list update default-result permit` passes everything while a list is changed (the command's own
  page); whether that goes for the commit of a session too is not written: there nothing is pushed.
- `configure session`, `commit timer`, and `commit` or `abort` of a session by its name: Arista, User Manual,
  "Configure Session".
- The ports of multihop-bfd, micro-bfd and sbfd are those of RFC 5883, 7130 and 7881.
- Port names beside those of IANA (mlag, bfd, cmd, lpd, syslog over TCP) and the words of rejections beside
  `% Invalid input` and `% Incomplete command`: [memory].
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ..filters import UNKNOWN, Configuration
from ..plan import Push, Refused
from ..rules import Change
from . import _cisco_like, _cisco_push, _cisco_text
from ._cisco_dialect import EXTENSION_NUMBERS, IANA_TCP, IANA_UDP, ICMP6_NAMES, ICMP_NAMES, TCP, UDP, Dialect

ALIASES = ("arista.eos.eos", "eos")
DEVICE_TYPE = "arista_eos"
READ = ("show running-config",)
REJECTED = (r"^\s*%(?! ?[A-Z0-9_]+-\d)[ \w].*", r"^! .*(?:not supported|will not|failed).*")
PUSH = Push(
    arm=("configure session {session}",),
    commit=("commit timer 00:{minutes:02d}:00",),
    confirm=("configure session {session} commit",),
    abort=("configure session {session} abort",),
    discard=("configure session {session} abort",),
    save=("write memory",),
)
LIVE = False
WHOLE = False
LINK_LOCAL = True

DIALECT = Dialect(
    title="Arista EOS",
    protocols={"ahp": 51, "icmpv6": 58},
    ports={
        TCP: IANA_TCP
        | {
            "cmd": 514, "exec": 512, "lpd": 515, "mlag": 4432, "pim-auto-rp": 496, "syslog": 514,
        },
        UDP: IANA_UDP
        | {
            "dnsix": 195, "micro-bfd": 6784, "mlag": 4432, "multihop-bfd": 4784, "non500-isakmp": 4500,
            "pim-auto-rp": 496, "sbfd": 7784,
        },
    },
    icmp_names={
        4: ICMP_NAMES,
        6: {
            **ICMP6_NAMES,
            "address-unreachable": (1, 3), "erroneous-header": (4, 0), "fragment-reassembly-exceeded": (3, 1),
            "hop-limit-exceeded": (3, 0), "neighbor-advertisement": (136, None), "neighbor-solicitation": (135, None),
            "redirect-message": (137, None), "reject-route": (1, 6), "source-address-failed": (1, 5),
            "source-routing-error": (1, 7), "unrecognized-ipv6-option": (4, 2), "unrecognized-next-header": (4, 1),
        },
    },
    bindings={("ip", "access-group"): 4, ("ipv4", "access-group"): 4, ("ipv6", "access-group"): 6},
    bindable=frozenset(),
    undefined=UNKNOWN,
    empty=UNKNOWN,
    later_fragments=frozenset(),
    header_chain=False,
    neighbour_discovery=((133, "router-solicitation"), (134, "router-advertisement"), (135, "nd-ns"), (136, "nd-na")),
    neighbour_discovery_doubt="which four neighbour discovery messages every IPv6 list permits is not documented",
    several_flags="whether several TCP flags must all be set is not documented",
    numbered_remarks=True,
    comments=True,
    ignored=frozenset({"statistics", "counters", "fragment-rules"}),
    own_marks=frozenset({"Arista EOS"}),
    suspicious=(
        (("mac", "access-group"), "a MAC access list filters too, and is not read"),
        (("traffic-policy",), "a traffic policy filters too, and is not read"),
        (("profile",), "an interface profile may bind lists too, and is not read"),
        (("dot1x", "port-control", "auto"), "a RADIUS server may give sessions of this port a list of their own"),
        (("flow-spec",), "rules that BGP gives filter too, and are not in the configuration"),
    ),
    suspicious_global=(
        (("router", "segment-security"), "segments drop packets of their neighbours too, and are not read"),
        (("directflow",), "DirectFlow may drop packets before a list sees them, and is not read"),
    ),
)  # fmt: skip


WRITING = _cisco_push.Writing(
    list_header={4: "ip access-list", 6: "ipv6 access-list"},
    binding={4: "ip access-group", 6: "ipv6 access-group"},
    protocols={
        4: {"": "ip", "tcp": "tcp", "udp": "udp", "icmp": "icmp"},
        6: {"": "ipv6", "tcp": "tcp", "udp": "udp", "icmp6": "icmpv6"},
    },
    host={4: "host {address}", 6: "host {address}"},
    network={4: "{address}/{length}", 6: "{address}/{length}"},
    indent="   ",
    live=LIVE,
    list_words=frozenset({"counters", "statistics", "fragment-rules"}),
    denied_first={6: tuple(str(number) for number in EXTENSION_NUMBERS)},
    undetermined={4: "", 6: ""},
)


def incomplete(text: str) -> str:
    """Why the text is not a whole running configuration of EOS, "" when it is."""
    return _cisco_text.incomplete(text, DIALECT)


def parse(text: str, attachments: Sequence[str] = ()) -> Configuration:  # noqa: ARG001 - lists do not depend on them
    """Filters, bindings and interfaces of the text. Raises NotThisPlatform when it holds nothing of EOS."""
    return _cisco_like.parse(text, DIALECT)


def fields(change: Change) -> dict[str, object]:
    """The variables of roles/edge_filter/templates/arista_eos.j2."""
    return _cisco_push.fields(change, WRITING)


def lines(rendered: str) -> list[str]:
    """The commands of a rendered text."""
    return _cisco_push.lines(rendered)


def remove(filters: Sequence[tuple[int, str]]) -> list[str]:
    """The commands that delete lists, given as (family, name)."""
    return _cisco_push.remove(filters, WRITING)


_OPEN_MEANWHILE = re.compile(r"^hardware access-list update default-result permit\s*$", re.MULTILINE)


def apply(running: str, lines: Sequence[str]) -> Iterator[str]:
    """The running text after the commit that all commands wait for.

    Raises ValueError for an unknown command, Refused where a switch may pass everything while it changes a list.
    """
    if _OPEN_MEANWHILE.search(running):
        raise Refused(
            "this switch permits everything while a list is changed, and whether the commit of a session counts as one "
            "is not documented: configure 'no hardware access-list update default-result permit'; nothing was changed"
        )
    return _cisco_push.apply(running, lines, WRITING)


def restore(running: str, backup: str, names: Sequence[str]) -> list[str]:
    """The commands that bring the backup's lists and bindings back on these attachments."""
    return _cisco_push.restore(running, backup, names, WRITING, parse)
