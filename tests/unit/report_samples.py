"""Runs as the action leaves them, for the tests of the report: a small ISP with faults, and whole fleets."""

from __future__ import annotations

import difflib
from typing import Any

from ansible_collections.isp.hardening.plugins.module_utils.findings import Evidence, Finding

# What is proved for a pool: control, directions, statement. As obligations.py has it.
STATEMENTS = (
    ("P1", ("up",), "TCP to port 25 is denied, but to the smarthosts"),
    ("P1", ("up",), "TCP to port 25 of the smarthosts is permitted"),
    ("P2", ("down",), "TCP from port 25 is denied, but from the smarthosts"),
    ("P3", ("down",), "TCP to port 25 of the pool is denied"),
    ("P4", ("up", "down"), "TCP and UDP to ports 135, 137-139 and 445 is denied"),
    ("P5", ("up", "down"), "TCP to port 593 is denied"),
    ("P8", ("up",), "sources that are not of the attachment's pools are denied"),
    ("P9", ("up",), "TCP to ports 465, 587, 993, 995 is permitted"),
    ("P9", ("down",), "answers from TCP ports 465, 587, 993, 995 are permitted"),
    ("P10", ("up", "down"), "DNS is permitted"),
    ("P10", ("up", "down"), "ESP and IKE are permitted"),
    ("P10", ("up", "down"), "path MTU discovery is permitted"),
)
DYNAMIC_ONLY = ("P1", "P2", "P3")
COVERAGE = "every attachment that carries a pool is in the policy, and exists"
READING = "every line that may matter to a filter was understood"


def proved(host: str, attachments: dict[str, str]) -> list[Finding]:
    """Everything compliant on the attachments, {name: pool}."""
    found = [
        Finding(control, host, attachment, pool, direction, family, "compliant", statement)
        for attachment, pool in attachments.items()
        for family in (4, 6)
        for control, directions, statement in STATEMENTS
        for direction in directions
        if pool == "residential" or control not in DYNAMIC_ONLY
    ]
    return [
        *found,
        Finding("C1", host, "", "", "", 0, "compliant", COVERAGE),
        Finding("C2", host, "", "", "", 0, "compliant", READING),
    ]


def host(name: str, platform: str, address: str, findings: list[Finding], **more: Any) -> dict[str, Any]:
    """A host's result; `findings` replace what is proved at the same place."""
    return {
        "host": name, "platform": platform, "address": address, "findings": [one.as_dict() for one in findings],
        "diff": "", "steps": [], "state": "audited", "message": "", "backup": "", "seconds": 1.8,
        "lines_read": 342, "lines_understood": 342, **more,
    }  # fmt: skip


def replaced(findings: list[Finding], *wrong: Finding) -> list[Finding]:
    def place(one: Finding) -> tuple[object, ...]:
        return one.control, one.attachment, one.pool, one.direction, one.family, one.title

    places = {place(one) for one in wrong}
    return [one for one in findings if place(one) not in places] + list(wrong)


def _permit_any(attachment: str, control: str, direction: str, title: str, packet: str) -> Finding:
    return Finding(
        control, "edge-ber1", attachment, "residential", direction, 4, "violated", title,
        reason="line 214 permits it before any line denies it", packet=packet,
        fields=(("destination_port", 25), ("protocol", 6)),
        evidence=(Evidence(214, "5 permit ip any any"),), mend="deny it above line 214, or narrow that line",
    )  # fmt: skip


def berlin() -> dict[str, Any]:
    """IOS: a permit above everything, one direction of IPv6 without a filter, an exception that has ended."""
    attachments = {"Virtual-Template1": "residential", "GigabitEthernet0/0/1.200": "business"}
    unbound = "no filter is bound to Virtual-Template1, outbound, IPv6, so everything passes"
    down = [
        Finding(
            control, "edge-ber1", "Virtual-Template1", "residential", "down", 6, "violated", statement, reason=unbound,
            packet=packet, mend="bind a filter there: playbooks/routers.yml does",
        )
        for control, statement, packet in (
            ("P2", STATEMENTS[2][2], "tcp [2001:db8:f::9]:25 > [2001:db8:100::7]:49152 SYN+ACK"),
            ("P3", STATEMENTS[3][2], "tcp [2001:db8:f::9]:49152 > [2001:db8:100::7]:25 SYN"),
            ("P4", STATEMENTS[4][2], "udp [2001:db8:f::9]:49152 > [2001:db8:100::7]:137"),
            ("P5", STATEMENTS[5][2], "tcp [2001:db8:f::9]:49152 > [2001:db8:100::7]:593 SYN"),
        )
    ]  # fmt: skip
    return host(
        "edge-ber1", "cisco_ios", "192.0.2.11",
        replaced(
            proved("edge-ber1", attachments),
            _permit_any(
                "Virtual-Template1", "P1", "up", STATEMENTS[0][2],
                "tcp 198.51.100.7:49152 > 203.0.113.9:25 SYN",
            ),
            _permit_any(
                "Virtual-Template1", "P4", "up", STATEMENTS[4][2],
                "tcp 198.51.100.7:49152 > 203.0.113.9:445 SYN",
            ),
            _permit_any(
                "Virtual-Template1", "P5", "up", STATEMENTS[5][2],
                "tcp 198.51.100.7:49152 > 203.0.113.9:593 SYN",
            ),
            _permit_any(
                "Virtual-Template1", "P8", "up", STATEMENTS[6][2],
                "tcp 203.0.113.66:49152 > 203.0.113.9:80 SYN",
            ),
            *down,
            Finding(
                "C3", "edge-ber1", "", "residential", "", 4, "violated", "every exception is in force",
                reason="the exception of 198.51.100.7/32 (Example GmbH, ticket 4711) ended on 2026-10-31",
                mend="extend it or remove it with isp.hardening.policy_exception; until then it counts as absent",
            ),
        ),
    )  # fmt: skip


def hamburg() -> dict[str, Any]:
    """Junos: an IPv6 bypass behind an extension header, and a line that nobody understands."""
    return host(
        "edge-ham1", "juniper_junos", "192.0.2.12",
        replaced(
            proved("edge-ham1", {"ge-0/0/2.100": "residential"}),
            Finding(
                "P1", "edge-ham1", "ge-0/0/2.100", "residential", "up", 6, "violated", STATEMENTS[0][2],
                reason="line 187 permits it before any line denies it",
                packet="tcp [2001:db8:100::7]:49152 > [2001:db8:ffff::9]:25 SYN behind a destination-options header",
                evidence=(Evidence(171, "filter SUB-IN6 term op25"), Evidence(187, "filter SUB-IN6 term rest")),
                mend="match payload-protocol instead of next-header in term op25",
            ),
            Finding(
                "P4", "edge-ham1", "ge-0/0/2.100", "residential", "down", 4, "unknown", STATEMENTS[4][2],
                reason="not known: flexible-match-range is not understood",
                packet="udp 203.0.113.9:49152 > 198.51.100.7:137",
                evidence=(Evidence(142, "filter SUB-OUT4 term odd"),),
                mend="read the line yourself, or rewrite it in a form that is understood",
            ),
            Finding(
                "C2", "edge-ham1", "", "", "", 0, "unknown", READING, reason="flexible-match-range is not understood",
                evidence=(Evidence(142, "flexible-match-range FLEX range 0x19 match-start layer-4"),),
                mend="read these lines yourself; a verdict that rests on them is unknown",
            ),
        ),
        lines_read=418, lines_understood=417,
    )  # fmt: skip


def munich() -> dict[str, Any]:
    """EOS: compliant, and something has changed since the last audit."""
    change = {
        "attachment": "Ethernet1.100",
        "direction": "up",
        "family": 4,
        "change": "denied, now permitted",
        "packets": "tcp from 198.51.100.0/25 to any but 192.0.2.25-192.0.2.26 port 8080",
        "packet": "tcp 198.51.100.7:49152 > 203.0.113.9:8080 SYN",
        "reason": "",
        "before": {"action": "deny", "lines": [{"line": 88, "text": "45 deny tcp any any eq 8080"}]},
        "after": {"action": "permit", "lines": [{"line": 90, "text": "60 permit ip 198.51.100.0/25 any"}]},
    }
    unknown = {
        **change,
        "direction": "down",
        "change": "unknown",
        "packets": "any protocol from any to any, later fragments",
        "packet": "tcp 203.0.113.9 > 198.51.100.7 later fragment",
        "reason": "not known: line 91, frobnicate is not read",
        "after": {"action": "unknown", "lines": []},
    }
    return host(
        "edge-muc1", "arista_eos", "192.0.2.13",
        proved("edge-muc1", {"Ethernet1.100": "residential", "Ethernet1.200": "business"}),
        lines_read=305, lines_understood=305,
        drift={"since": "2026-11-25T02:00:00+00:00", "changes": [change, unknown], "left_out": 3, "problem": ""},
        hygiene=[{
            "control": "H1", "filter": "SUB-IN4", "family": 4, "more": 12,
            "title": "can never match: no packet gets past the lines in front",
            "lines": [{"line": 93, "text": "75 deny tcp any any eq 445", "reason": "hidden by line 90"}],
        }],
    )  # fmt: skip


def cologne() -> dict[str, Any]:
    """nftables: TCP only, where NetBIOS needs UDP as well."""
    rule = 'tcp dport { 135, 137-139, 445 } counter packets 0 bytes 0 drop comment "P4"'
    return host(
        "edge-cgn1", "linux_nftables", "192.0.2.14",
        replaced(
            proved("edge-cgn1", {"ppp*": "residential"}),
            *(
                Finding(
                    "P4", "edge-cgn1", "ppp*", "residential", direction, family, "violated", STATEMENTS[4][2],
                    reason="line 31 permits it before any line denies it", packet=packet,
                    evidence=(Evidence(22, rule), Evidence(31, "counter packets 0 bytes 0 accept")),
                    mend="deny it above line 31, or narrow that line",
                )
                for direction, family, packet in (
                    ("up", 4, "udp 198.51.100.7:49152 > 203.0.113.9:137"),
                    ("down", 4, "udp 203.0.113.9:49152 > 198.51.100.7:137"),
                    ("up", 6, "udp [2001:db8:100::7]:49152 > [2001:db8:ffff::9]:137"),
                )
            ),
        ),
        lines_read=64, lines_understood=64,
    )  # fmt: skip


def frankfurt() -> dict[str, Any]:
    """A router that did not answer."""
    return host(
        "edge-fra1", "cisco_ios", "192.0.2.15", [], state="unreachable", lines_read=0, lines_understood=0, seconds=10.0,
        message="no answer from 192.0.2.15 port 22 within 10 s: check ansible_host, ansible_port and the path there",
    )  # fmt: skip


POLICY: dict[str, Any] = {
    "profile": "standard",
    "pools": [
        {"name": "residential", "kind": "dynamic", "prefixes": ["198.51.100.0/25", "2001:db8:100::/40"]},
        {"name": "business", "kind": "business", "prefixes": ["203.0.113.128/26", "2001:db8:200::/40"]},
    ],
    "smarthosts": [{"name": "out1", "prefixes": ["192.0.2.25/32", "2001:db8:ffff::25/128"]}],
    "exceptions": [
        {
            "prefix": "198.51.100.7/32", "owner": "Example GmbH, ticket 4711", "reason": "own MX",
            "until": "2026-10-31",
            "controls": ["P1", "P2", "P3"], "status": "expired",
        },
        {
            "prefix": "198.51.100.22/32", "owner": "Club e.V., ticket 4902", "reason": "mailing list server",
            "until": "2026-12-07", "controls": ["P1"], "status": "ends soon",
        },
        {
            "prefix": "198.51.100.40/32", "owner": "Sample AG, ticket 5120", "reason": "own MX", "until": "2027-06-30",
            "controls": ["P1", "P2", "P3"], "status": "in force",
        },
    ],
}  # fmt: skip


def run(*hosts: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A run over these hosts with the policy above."""
    return {
        "version": "0.1.0", "mode": "check", "started": "2026-11-23T09:14:07+00:00",
        "finished": "2026-11-23T09:14:19+00:00", "policy": POLICY, "hosts": list(hosts), **more,
    }  # fmt: skip


def audit_run() -> dict[str, Any]:
    """The first audit of a small ISP: four kinds of routers, and one that does not answer."""
    return run(berlin(), hamburg(), munich(), cologne(), frankfurt())


OLD_FILTER = """\
hostname edge-ber1
enable secret 9 $9$2MJBozw/9R3UsU$2lFhcKvpghcyw8deP25GOfyZaagyUOGBymkryvOdfo6
ip access-list extended SUB-IN4
 5 permit ip any any
 10 permit tcp any host 192.0.2.25 eq smtp
 20 deny tcp any any eq smtp
interface Virtual-Template1
 ip unnumbered Loopback0
 ip access-group SUB-IN4 in
snmp-server community 0ldC0mmunity RO
"""
NEW_FILTER = """\
hostname edge-ber1
enable secret 9 $9$2MJBozw/9R3UsU$2lFhcKvpghcyw8deP25GOfyZaagyUOGBymkryvOdfo6
ip access-list extended SUB-IN4
 5 permit ip any any
 10 permit tcp any host 192.0.2.25 eq smtp
 20 deny tcp any any eq smtp
ip access-list extended ISP-UP4-1f3a9c02
 10 permit tcp 198.51.100.0 0.0.0.127 host 192.0.2.25 eq smtp
 20 deny tcp any any eq smtp
 30 deny tcp any any eq 135
 40 deny udp any any eq 135
 50 permit ip 198.51.100.0 0.0.0.127 any
 60 deny ip any any
interface Virtual-Template1
 ip unnumbered Loopback0
 ip access-group ISP-UP4-1f3a9c02 in
snmp-server community n3wC0mmunity RO
"""


def push_run() -> dict[str, Any]:
    """After a push: one changed, one taken back, one rejected, one that lost its session, two that needed nothing."""
    steps = ["armed", "sent 11 lines", "logged in afresh and read the configuration back", "proved and confirmed"]
    diff = difflib.unified_diff(OLD_FILTER.splitlines(), NEW_FILTER.splitlines(), "running", "planned", lineterm="")
    return run(
        berlin() | {
            "findings": [one.as_dict() for one in proved("edge-ber1", {"Virtual-Template1": "residential"})],
            "state": "changed", "diff": "\n".join(diff), "steps": steps,
            "backup": "backups/edge-ber1/2026-11-23T091407Z.cfg",
        },
        hamburg() | {"state": "refused", "message": "line 142 is not understood, so no plan can be proved"},
        cologne() | {"state": "rolled_back", "message": "the new session could not log in within 5 minutes"},
        munich() | {"state": "unchanged"},
        host("edge-lei1", "cisco_ios", "192.0.2.16", [], state="login_refused", message="check ansible_user or key"),
        host(
            "edge-drs1", "arista_eos", "192.0.2.17", proved("edge-drs1", {"Ethernet1.100": "residential"}),
            state="rejected", message="line 7, '30 deny tcp any any eq msrpc': % Invalid input",
        ),
        mode="apply",
    )  # fmt: skip


_NOW, _HOUR = 1_795_000_000_000, 3_600_000  # 2026-11-18 11:06:40 UTC


def signals() -> list[dict[str, Any]]:
    """What the plays of the signals leave: two infected, one of them held, detectors switched off, a frozen run."""
    status = {
        "generated": _NOW, "asked": _NOW - _HOUR, "frozen": "", "killed": [], "problems": [],
        "suspects": [
            {
                "subject": "198.51.100.9", "detectors": ["D1", "D2"], "time": _NOW - 2 * _HOUR, "score": 15.02,
                "evidence": [
                    "2026-11-18 09:01:07 UTC: 198.51.100.9 opened port 25 of 18 servers; 17 sessions carried no mail",
                    "To: 203.0.113.25, 203.0.113.26, 203.0.113.27, 203.0.113.28, 203.0.113.29 and 13 more",
                ],
            },
            {"subject": "2001:db8:100:7::", "detectors": ["D4"], "time": _NOW - _HOUR, "score": 14, "evidence": ["…"]},
        ],
        "surge": [{"time": _NOW, "evidence": ["30 subscribers more are suspect within 1 hour"]}],
        "listings": [
            {
                "network": "198.51.100.9", "list": "XBL", "began": _NOW - 10 * _HOUR, "seen": _NOW, "detail": "bot",
                "subscriber": "line-9",
            },
            {
                "network": "198.51.100.77", "list": "XBL", "began": _NOW - 5 * _HOUR, "seen": _NOW, "detail": "",
                "subscriber": "",
            },
        ],
        "lists": [
            {
                "list": "XBL", "open": 2, "closed": 15, "median": 9 * _HOUR, "p90": 75 * _HOUR, "relapsed": 2,
                "watched": 12, "led": 5, "lead": 3 * _HOUR,
            },
            {
                "list": "CSS", "open": 0, "closed": 1, "median": None, "p90": None, "relapsed": 0, "watched": 0,
                "led": 0, "lead": None,
            },
        ],
        "actions": [], "notices": [
            {
                "episode": "a", "subscriber": "line-9", "channel": "customer", "state": "sent", "reason": "",
                "time": _NOW - _HOUR,
            },
            {
                "episode": "b", "subscriber": "line-4", "channel": "customer", "state": "failed", "time": _NOW,
                "reason": "450 4.7.1 try again later; the next run tries again",
            },
        ],
    }  # fmt: skip
    held = {
        "key": "detected:line-9:1", "kind": "quarantine", "subscriber": "line-9", "prefixes": ["198.51.100.9/32"],
        "since": _NOW - _HOUR, "until": _NOW + 23 * _HOUR, "reason": "D1, D2", "sources": ["D1", "D2"],
        "by": "automatic",
    }  # fmt: skip
    gone = held | {
        "key": "case-4",
        "kind": "source",
        "subscriber": "line-4",
        "prefixes": ["198.51.100.4/32"],
        "by": "noc",
    }
    edge = {"generated": _NOW, "actions": [held], "killed": [], "problems": []}
    silence = {
        "detector": "D3", "reason": "the exporters look at one packet of 1,000, so ratios of SYN-only flows would lie",
        "mend": "export without sampling, or read the filter's own log",
    }  # fmt: skip
    frozen = "2 more beside 99 in force are more than the cap of 100 for 131072 subscribers; nothing was added"
    return [
        {"host": "watch1", "signals": status | {"actions": [gone]}},
        {"host": "watch1", "silences": [silence], "changed": False},
        {"host": "watch1", "frozen": "", "problems": ["198.51.100.77: two subscribers had it within a minute"]},
        {"host": "edge-lnx1", "signals": edge},
        {
            "host": "edge-lnx1", "frozen": frozen, "dry_run": False, "added": [], "kept": [held],
            "refused": [{"key": "detected:line-6:2", "why": "one family of evidence; two are needed"}],
        },
    ]  # fmt: skip


def signals_run() -> dict[str, Any]:
    """An audit, and the signals beside it."""
    return run(munich(), signals=signals())


def fleet(hosts: int, share_violated: float = 0.05) -> dict[str, Any]:
    """`hosts` routers with about 60 findings each, every 1/share-th of them with the faults of edge-ber1."""
    attachments = {"Virtual-Template1": "residential", "GigabitEthernet0/0/1.200": "business"}
    step = round(1 / share_violated)
    rows = []
    for number in range(hosts):
        name = f"edge-{number:04}"
        findings = berlin()["findings"] if number % step == 0 else [one.as_dict() for one in proved(name, attachments)]
        rows.append(host(name, "cisco_ios", f"192.0.2.{number % 256}", []) | {"findings": findings})
    return run(*rows)
