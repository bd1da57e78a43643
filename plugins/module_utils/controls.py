# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The catalogue of controls: what must hold, why, what brings it about and what proves it.

Everything that names a control (findings, switches, reports, docs/controls.md) names it by an id from
here. Ids are stable: a control that goes leaves a gap, and its id is never given to another one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

KINDS = ("dynamic", "static", "business")
CRITICAL, HIGH, MEDIUM, LOW = "critical", "high", "medium", "low"
UP, DOWN, BOTH = "up", "down", "both"

# Where the documents that `sources` cites are to be found.
_MANUAL = "M3AAWG, Managing Port 25 for Residential or Dynamic IP Space"
_RFC5068 = "RFC 5068 (BCP 134), Email Submission Operations: Access and Accountability Requirements"
_QIAN = "Qian et al., Investigation of Triangular Spamming, IEEE Symposium on Security and Privacy 2010"
_BITAG = "BITAG 2013, Port Blocking"


@dataclass(frozen=True, slots=True)
class Switch:
    """How the policy can set a control: on or off by itself, and for which kinds of pools.

    `invariant`: it is always on, for every pool. `exceptions`: a prefix of a pool can be exempt from it.
    """

    default: bool
    kinds: tuple[str, ...] = KINDS
    invariant: bool = False
    exceptions: bool = False


@dataclass(frozen=True, slots=True)
class Control:
    """One thing that must hold. `direction` is "up", "down", "both", or "" where there is none.

    `switch` is None for a control that the policy cannot switch off.
    """

    id: str
    title: str
    rationale: str
    sources: tuple[str, ...]
    severity: str
    direction: str
    implemented_by: tuple[str, ...]
    proved_by: tuple[str, ...]
    switch: Switch | None = None


_FILTER = ("role edge_filter",)
_PROOF = ("action edge_filter, by a search for a packet that gets through",)
_PERMITTED = ("action edge_filter, by a search for a packet that is dropped",)

_ALL = (
    Control(
        "P1",
        "Subscribers send no mail past the smarthosts: TCP to port 25 is dropped, but for the smarthosts",
        "A bot sends spam straight to the recipients' mail servers on port 25. People's own mail leaves over "
        "submission (P9), with a login, so nobody but the bot needs port 25 from a dynamic address.",
        (_MANUAL, _RFC5068, "RFC 6409, Message Submission for Mail", _BITAG),
        CRITICAL,
        UP,
        _FILTER,
        _PROOF,
        Switch(True, kinds=("dynamic",), exceptions=True),
    ),
    Control(
        "P2",
        "No triangular spam: TCP from port 25 to a pool is dropped, but from the smarthosts",
        "A far host sends spam with a pool address as its forged source, and the bot in the pool returns the "
        "answers that come in from port 25. The outbound filter of P1 never sees it: 97 % of the networks that "
        "blocked outbound port 25 were open to it.",
        (_QIAN, _MANUAL),
        CRITICAL,
        DOWN,
        _FILTER,
        _PROOF,
        Switch(True, kinds=("dynamic",), exceptions=True),
    ),
    Control(
        "P3",
        "No mail servers in dynamic pools: TCP to port 25 of a pool is dropped",
        "No MX lives in a dynamic pool. What listens on port 25 there is an open relay or a bot's proxy.",
        (_MANUAL, _RFC5068),
        HIGH,
        DOWN,
        _FILTER,
        _PROOF,
        Switch(True, kinds=("dynamic",), exceptions=True),
    ),
    Control(
        "P4",
        "NetBIOS, SMB and RPC stay local: TCP and UDP to ports 135, 137-139 and 445 are dropped",
        "These services are made for one local network. Worms spread over them from subscriber to subscriber, and "
        "the Messenger service takes its pop-up spam on ports 135 and 137-139.",
        (_BITAG, "RFC 1002, NetBIOS service on a TCP/UDP transport"),
        HIGH,
        BOTH,
        _FILTER,
        _PROOF,
        Switch(True, exceptions=True),
    ),
    Control(
        "P5",
        "RPC over HTTP stays local: TCP to port 593 is dropped",
        "The endpoint mapper of P4's port 135 answers on port 593 as well, so a filter without it is half a filter.",
        ("Microsoft, Service overview and network port requirements for Windows",),
        MEDIUM,
        BOTH,
        _FILTER,
        _PROOF,
        Switch(True, exceptions=True),
    ),
    Control(
        "P6",
        "No Messenger pop-ups: UDP to ports 1025-1029 of a pool is dropped",
        "Pop-up spam for the old Messenger service went to these ports too. Off by default: a filter without state "
        "also drops answers to clients that happen to use such a port.",
        (_BITAG,),
        LOW,
        DOWN,
        _FILTER,
        _PROOF,
        Switch(False, exceptions=True),
    ),
    Control(
        "P7",
        "No SSDP across the edge: UDP to port 1900 is dropped",
        "SSDP is for one local network. Across the edge it is an amplifier of denial-of-service attacks: one small "
        "request with a forged source brings a reply thirty times its size. Off by default: port 1900 may be a "
        "client's own port.",
        ("CISA Alert TA14-017A, UDP-Based Amplification Attacks", _BITAG),
        LOW,
        BOTH,
        _FILTER,
        _PROOF,
        Switch(False, exceptions=True),
    ),
    Control(
        "P8",
        "Source addresses are true: what is not from the attachment's pools is dropped",
        "Triangular spam (P2), reflection and most floods live on forged source addresses. The edge is the one place "
        "where the right ones are known.",
        (
            "RFC 2827 (BCP 38), Network Ingress Filtering",
            "RFC 3704 (BCP 84), Ingress Filtering for Multihomed Networks",
        ),
        HIGH,
        UP,
        _FILTER,
        _PROOF,
        Switch(True),
    ),
    Control(
        "P9",
        "Submission stays open: TCP to ports 465, 587, 993 and 995 is permitted",
        "P1 is fair only because everybody can still send and fetch mail with a login. A filter that blocks these "
        "ports cuts people off from their mail.",
        ("RFC 6409, Message Submission for Mail", "RFC 8314, Cleartext Considered Obsolete", _RFC5068),
        HIGH,
        UP,
        _FILTER,
        _PERMITTED,
        Switch(True, invariant=True),
    ),
    Control(
        "P10",
        "The network keeps working: neighbour discovery, path MTU discovery, ESP, IKE and DNS are permitted",
        "A spam filter that drops ICMPv6 or IPsec breaks the service that it protects, and is then taken out whole.",
        (
            "RFC 4890, Recommendations for Filtering ICMPv6 Messages in Firewalls",
            "RFC 4861, Neighbor Discovery for IP version 6",
            "RFC 8201, Path MTU Discovery for IP version 6",
            "RFC 1191, Path MTU Discovery",
        ),
        HIGH,
        BOTH,
        _FILTER,
        _PERMITTED,
        Switch(True, invariant=True),
    ),
    Control(
        "C1",
        "Every attachment that carries a pool is in the policy",
        "A subinterface that nobody entered in the policy has no filter, and no other check would ever look at it.",
        (_MANUAL,),
        HIGH,
        "",
        ("isp_attachments of the host",),
        ("action edge_filter, from the interfaces and routes of the running configuration",),
    ),
    Control(
        "C2",
        "The running configuration could be read whole",
        "A verdict rests on every line that can matter. One that was not understood leaves the verdict open, and is "
        "shown instead of being skipped.",
        ("docs/architecture.md, the law 'never guess'",),
        MEDIUM,
        "",
        ("plugins/module_utils/platforms",),
        ("action edge_filter, by the lines that the parser could not account for",),
    ),
    Control(
        "C3",
        "Every exception is in force",
        "An exception that outlives its reason is a hole. After its last day it counts as absent: the filters close, "
        "and the finding stays until somebody extends or removes it.",
        (_MANUAL,),
        MEDIUM,
        "",
        ("module policy_exception",),
        ("module policy_check", "action edge_filter"),
    ),
)

CONTROLS: Mapping[str, Control] = {control.id: control for control in _ALL}
SWITCHES: Mapping[str, Switch] = {control.id: control.switch for control in _ALL if control.switch}
