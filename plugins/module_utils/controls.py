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
_RFC5782 = "RFC 5782, DNS Blacklists and Whitelists"
_SPAMHAUS = "Spamhaus, DNSBL usage: return codes, zones and public resolvers"
_POSTSCREEN = "Postfix, Postscreen Howto"
_MILTERS = "Postfix, before-queue Milter support"


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

_HABITS = ("NIST SP 800-41 rev. 1, Guidelines on Firewalls and Firewall Policy, 5.3 and 5.5",)
_NOBODY = ("whoever keeps the filter: a note of hygiene is no finding and fails no audit",)

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
        "M1",
        "Inbound and outbound are separate: no host, no address and no DNS record is both",
        "An address that takes mail in answers to strangers, and one that sends out carries the reputation of all "
        "subscribers. Apart, an MX needs to relay for nobody, an outbound host needs no open port 25, and a listing "
        "of the one does not stop the other.",
        (_RFC5068, "RFC 7208, Sender Policy Framework"),
        HIGH,
        "",
        ("role mta_inbound", "role mta_outbound", "module policy_check, for the hosts and addresses"),
        ("module mta_audit, from the configuration in force", "module dns_audit, from MX and SPF records"),
    ),
    Control(
        "M2",
        "An MX relays for nobody, for a subscriber of the pools least of all",
        "Every reason to relay that is not a login can be forged or shared: a network, a name in reverse DNS, a "
        "sender, a rewritten recipient. A worm on a subscriber's machine looks for the MX above its own name first, "
        "because many of them relay for their own network.",
        (
            "RFC 2505 (BCP 30), Anti-Spam Recommendations for SMTP MTAs",
            "RFC 5321, Simple Mail Transfer Protocol, 7.9",
            "Postfix, SMTP relay and access control",
        ),
        CRITICAL,
        "",
        ("role mta_inbound",),
        (
            "module mta_audit, by walking the restriction lists with clients, senders and recipients",
            "module smtp_probe, from the world and from inside the pool",
        ),
    ),
    Control(
        "M3",
        "The DNSBL is asked with code filters: an error code is never a listing, and its key is never shown",
        "A DNSBL answers 127.255.255.252, .254 or .255 when the question is at fault: a mistyped zone, a public "
        "resolver, too many queries. Who takes any answer for a listing then refuses all mail there is. The key of "
        "a paid zone stands in the name that is asked, and so in every reply that quotes it.",
        (_RFC5782, _SPAMHAUS, _POSTSCREEN),
        HIGH,
        "",
        ("role mta_inbound",),
        ("module mta_audit, from the zones and their filters", "module smtp_probe, by the replies and the test points"),
    ),
    Control(
        "M4",
        "Mail hosts resolve names themselves",
        "A DNSBL counts queries by resolver and refuses public ones, and a forwarder that somebody else runs sees "
        "and can forge every answer that mail depends on.",
        (_SPAMHAUS, "RFC 5358 (BCP 140), Preventing Use of Recursive Nameservers in Reflector Attacks"),
        MEDIUM,
        "",
        ("role resolver",),
        ("module mta_audit, from the resolver's configuration and its answers",),
    ),
    Control(
        "M5",
        "A client on the exploits list is refused by the MX",
        "The XBL holds addresses of machines that others control right now. Nothing wanted comes from them to an MX: "
        "their owners' own mail goes over submission, with a login, where the list is a signal and no verdict.",
        (_SPAMHAUS, _RFC5782, _POSTSCREEN),
        HIGH,
        "",
        ("role mta_inbound",),
        ("module mta_audit, from the weights of the codes", "module smtp_probe, from a listed address"),
    ),
    Control(
        "M6",
        "Outbound mail is scanned whole: authenticated mail too, and nothing below the message limit goes unscanned",
        "A stolen login sends viruses as well as an open relay does. A scanner that stops at its own limit, with a "
        "message limit above it, lets a virus pass behind some megabytes of padding.",
        ("ClamAV, clamd.conf(5)", "Rspamd, Antivirus module", _MILTERS),
        CRITICAL,
        UP,
        ("role antivirus", "role spam_filter", "role mta_outbound"),
        (
            "module mta_audit, from the milters of every service and every limit on the way",
            "module smtp_probe, with the EICAR test file in its wrappings, when asked to",
        ),
    ),
    Control(
        "M7",
        "While a scanner is down mail waits: it is deferred with 4xx, never let through",
        "The usual defaults let mail pass when the scanner does not answer, so an overload or a full memory opens "
        "the way for what should be stopped. A deferred message is sent again, and nothing is lost.",
        (_MILTERS, "Rspamd, Antivirus module", "RFC 5321, Simple Mail Transfer Protocol, 4.2.1"),
        CRITICAL,
        UP,
        ("role mta_outbound", "role spam_filter", "role antivirus"),
        ("module mta_audit, from what every milter does by default, and the scanner on failure",),
    ),
    Control(
        "M8",
        "A login is taken under TLS alone, and TLS is 1.2 or newer",
        "A password that crosses the network in the clear, or under TLS 1.0, belongs to whoever listens, and with it "
        "the right to send.",
        (
            "RFC 8314, Cleartext Considered Obsolete",
            "RFC 4954, SMTP Service Extension for Authentication",
            "RFC 8996 (BCP 195), Deprecating TLS 1.0 and TLS 1.1",
        ),
        HIGH,
        UP,
        ("role mta_outbound",),
        ("module mta_audit, per service of master.cf", "module smtp_probe, by logins and handshakes that must fail"),
    ),
    Control(
        "M9",
        "The sender belongs to the user who is logged in, the null sender included",
        "One stolen login must not speak for every subscriber. The null sender passes the usual check, as it belongs "
        "to nobody, and is what a bot uses next.",
        ("RFC 6409, Message Submission for Mail", "Postfix, postconf(5), reject_sender_login_mismatch"),
        HIGH,
        UP,
        ("role mta_outbound",),
        ("module mta_audit, by walking the restriction lists", "module smtp_probe, with a login, when it has one"),
    ),
    Control(
        "M10",
        "What one user can send in an hour is limited",
        "A stolen login is worth what can be sent before somebody notices. The limits count users, not addresses, and "
        "they vanish when their store does, so that store is watched too.",
        (_RFC5068, "Rspamd, Ratelimit module"),
        HIGH,
        UP,
        ("role spam_filter", "role mta_outbound"),
        ("module mta_audit, from the limits and the store behind them", "module smtp_probe, when asked to"),
    ),
    Control(
        "M11",
        "Outbound mail is signed with DKIM",
        "A signature ties the mail to the domain that answers for it, wherever it is forwarded to, and lets everybody "
        "refuse what only claims to be from there.",
        ("RFC 6376, DomainKeys Identified Mail (DKIM) Signatures", "RFC 8301, Cryptographic Update to DKIM"),
        MEDIUM,
        UP,
        ("role spam_filter",),
        ("module mta_audit, from the signing configuration and its key", "module dns_audit, from the key's record"),
    ),
    Control(
        "M12",
        "postmaster and abuse are reachable in every domain",
        "Whoever receives spam from a network complains there first. Who does not listen learns of it from a "
        "blocklist.",
        ("RFC 2142, Mailbox Names for Common Services, Roles and Functions", "RFC 5321, 4.5.1"),
        MEDIUM,
        "",
        ("role mta_inbound",),
        ("module mta_audit, by the maps", "module smtp_probe, by RCPT TO"),
    ),
    Control(
        "M13",
        "No VRFY, EXPN or ETRN, no smuggled message, no command before its time",
        "VRFY and EXPN give away who has a mailbox. A bare line feed that ends the data for one server and not for "
        "the next smuggles a message past both. A client that talks before the greeting is no mail server.",
        (
            "RFC 5321, Simple Mail Transfer Protocol, 2.3.8 and 7.3",
            "RFC 2920, SMTP Service Extension for Command Pipelining",
            "Postfix, SMTP Smuggling",
            _POSTSCREEN,
        ),
        MEDIUM,
        "",
        ("role mta_inbound", "role mta_outbound"),
        ("module mta_audit, per service of master.cf", "module smtp_probe, by the replies"),
    ),
    Control(
        "M14",
        "The DNS records of the domains agree with the policy",
        "The world learns from DNS alone which hosts take the mail of a domain and which send it. An MX record that "
        "names an outbound host, an SPF record that is too wide, or a name that does not lead back costs delivery or "
        "lets others speak for the domain.",
        (
            "RFC 7208, Sender Policy Framework",
            "RFC 7489, Domain-based Message Authentication, Reporting, and Conformance",
            "RFC 8461, SMTP MTA Strict Transport Security",
            "RFC 1912, Common DNS Operational and Configuration Errors, 2.1",
        ),
        MEDIUM,
        "",
        ("the zones of the domains, see docs/migration.md",),
        ("module dns_audit",),
    ),
    Control(
        "M15",
        "What mail has to pass is running, and there is room for it",
        "Filters that fail closed defer everything while they are down, and a full queue refuses everything: nothing "
        "bad leaves, and nothing good either. Senders wait for days without a word, so somebody has to look.",
        (_MILTERS, "Postfix, postconf(5), queue_minfree"),
        HIGH,
        "",
        ("role antivirus", "role spam_filter", "role mta_inbound", "role mta_outbound"),
        ("module mta_audit, on the host at this moment",),
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
    Control(
        "C4",
        "What RADIUS gives to sessions is known",
        "A RADIUS server can give a session another filter than the one that is bound, and no line of the "
        "configuration shows which. Without that knowledge the bound filter says nothing about those sessions.",
        ("RFC 2865, Remote Authentication Dial In User Service (RADIUS), 5.11",),
        MEDIUM,
        "",
        ("session_filters in isp_attachments of the host",),
        ("action edge_filter, by the lines that let RADIUS authorize sessions, and the filters that it can name",),
    ),
    Control(
        "H1",
        "A line can never match",
        "Whoever wrote it meant something by it, and nothing of that happens: the lines in front take every packet. "
        "Often it is a deny that came too late.",
        _HABITS,
        LOW,
        "",
        _NOBODY,
        ("action edge_filter, by a search for a packet that gets to the line",),
    ),
    Control(
        "H2",
        "A line can go",
        "Without it every packet has the same fate. Each such line is read at every change and in every incident.",
        _HABITS,
        LOW,
        "",
        _NOBODY,
        ("action edge_filter, by a search for a packet that would have another fate",),
    ),
    Control(
        "H3",
        "Only an expired exception needs a line",
        "It permits addresses of an exception that has ended, and no others (C3).",
        _HABITS,
        LOW,
        "",
        _NOBODY,
        ("action edge_filter, by the addresses of the line",),
    ),
    Control(
        "H4",
        "No packet has hit a line",
        "The router's own counter says so, where its configuration shows counters (nftables). A line without a packet "
        "in a year is a question to whoever asked for it.",
        _HABITS,
        LOW,
        "",
        _NOBODY,
        ("action edge_filter, by the counters in the running configuration",),
    ),
)

CONTROLS: Mapping[str, Control] = {control.id: control for control in _ALL}
SWITCHES: Mapping[str, Switch] = {control.id: control.switch for control in _ALL if control.switch}
