# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The results as findings."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

from ...findings import COMPLIANT, UNKNOWN, VIOLATED, Evidence, Finding
from .visit import Result

EVIDENCE_LINES = 40  # of a finding
NAMED_CASES = 6  # in a finding's reason

TITLES = {
    "M1": "An outbound host takes no mail of strangers to the own domains",
    "M2": "Mail of strangers to strangers is refused",
    "M3": "The DNSBL answers, its error codes are not listings, its key is not shown",
    "M5": "A client that the DNSBL lists is refused",
    "M6": "Malware and spam are refused in the session, in whatever they are wrapped",
    "M7": "Mail is deferred while the scanner is down",
    "M8": "AUTH is under TLS only, and TLS is 1.2 or newer",
    "M9": "A user sends with addresses of their own only, and not with the null sender",
    "M10": "One client, one message and one user have no more than they may",
    "M12": "Postmaster and abuse are reachable",
    "M13": "No VRFY, EXPN, ETRN; nobody speaks before their turn; messages end in one way",
}
MENDS = {
    "M1": "Leave mydestination, relay_domains and virtual domains of an outbound host empty",
    "M2": "Let smtpd_relay_restrictions end with reject_unauth_destination, without any permit_* that strangers match",
    "M3": "Query the DNSBL through an own recursive resolver, filter its codes, and hide its key in the replies",
    "M5": "Let postscreen enforce the DNSBL's XBL codes",
    "M6": "Scan whole messages, those of authenticated users too, with no limit below the message size limit",
    "M7": "Let the milter and the scanner fail with 4xx: milter_default_action = tempfail",
    "M8": "Offer AUTH under TLS only (smtpd_tls_auth_only = yes), and no protocol older than TLS 1.2",
    "M9": "Reject senders that are not the login's, and the null sender, on the submission services",
    "M10": (
        "Set smtpd_client_connection_count_limit and smtpd_recipient_limit to the policy's numbers, and let rspamd "
        "limit a user's rate"
    ),
    "M12": "Accept postmaster@ and abuse@ of every domain, and deliver them to somebody who reads them",
    "M13": (
        "Set disable_vrfy_command = yes, smtpd_etrn_restrictions = reject, smtpd_forbid_bare_newline = normalize, "
        "smtpd_forbid_unauth_pipelining = yes, postscreen_greet_action = enforce"
    ),
}


def findings(results: Sequence[Result], host: str) -> list[Finding]:
    """One for each control, service and family: violated where any case is, else unknown where any is."""
    groups: dict[tuple[str, str, int], list[Result]] = {}
    for result in results:
        family = ipaddress.ip_address(result.address).version if result.address else 0
        groups.setdefault((result.control, result.service, family), []).append(result)
    return [_finding(*key, group, host) for key, group in sorted(groups.items(), key=lambda item: _order(item[0]))]


def _order(key: tuple[str, str, int]) -> tuple[int, str, int]:
    return int(re.sub(r"\D", "", key[0])), key[1], key[2]


def _finding(control: str, service: str, family: int, group: list[Result], host: str) -> Finding:
    verdict = next((word for word in (VIOLATED, UNKNOWN) if any(one.verdict == word for one in group)), COMPLIANT)
    worst = [one for one in group if one.verdict == verdict]
    reasons = [] if verdict == COMPLIANT else [_told(worst, len(group))]
    doubtful = [one for one in group if one.verdict == UNKNOWN]
    if verdict == VIOLATED and doubtful:
        reasons.append(f"unknown besides: {_told(doubtful, len(group))}")
    evidence = next((one.transcript for one in worst if one.transcript), ())
    return Finding(
        control=control,
        host=host,
        attachment=service,
        pool="",
        direction="",
        family=family,
        verdict=verdict,
        title=TITLES[control],
        reason="; ".join(reasons),
        packet="" if verdict == COMPLIANT else worst[0].line,
        evidence=tuple(Evidence(0, line) for line in evidence[:EVIDENCE_LINES]),
        mend="" if verdict == COMPLIANT else MENDS[control],
        source="SMTP" if family else "DNS",
    )


def _told(cases: list[Result], of: int) -> str:
    named = [f"{one.case} ({one.reason})" if one.reason else one.case for one in cases[:NAMED_CASES]]
    more = f" and {len(cases) - NAMED_CASES} more" if len(cases) > NAMED_CASES else ""
    return f"{len(cases)} of {of} cases: {'; '.join(named)}{more}"
