# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""M6, M7, M10 and M11: what goes out is scanned whole, counted by user and signed, and waits where that fails.

The sources are named in rspamd.py and clamd.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ...findings import COMPLIANT, UNKNOWN, VIOLATED, Finding
from .. import clamd, rspamd
from ..postfix import words
from ..tables import Unreadable
from .base import STRANGER, Audited, Port
from .relaying import host_of

_DOWN = "A scanner that is down defers mail, and never lets it pass"
_RATES = "A user sends no more than so many messages in an hour"
_SIGNED = "Outbound mail is DKIM-signed"


def scanned(host: Audited) -> Iterator[Finding]:
    title = "Outbound mail is scanned whole, users' mail too"
    for port in host.user_ports():
        evidence = [port.parameters.evidence("smtpd_milters")]
        if not port.milters:
            reason = "Mail passes no milter."
            if port.parameters["content_filter"] or port.parameters["smtpd_proxy_filter"]:
                reason = "A content filter scans it, or not: what it does with a failure cannot be read here."
                evidence += [port.parameters.evidence(name) for name in ("content_filter", "smtpd_proxy_filter")]
            verdict = UNKNOWN if "filter scans" in reason else VIOLATED
            yield host.finding(
                "M6", port.title, verdict, title, reason, evidence, "Name rspamd's milter in smtpd_milters."
            )
        elif "no_milters" in port.parameters["receive_override_options"]:
            evidence = [port.parameters.evidence("receive_override_options")]
            yield host.finding("M6", port.title, VIOLATED, title, "Milters are overridden.", evidence, "Remove it.")
        elif skipped := milters_disabled(host, port):
            evidence = [port.parameters.evidence("smtpd_milter_maps")]
            yield host.finding(
                "M6", port.title, VIOLATED, title, f"No milter sees {skipped}.", evidence, "Remove the entry."
            )
        else:
            yield host.finding("M6", port.title, COMPLIANT, title)
    if not any(host.user_ports()):
        return
    yield from rspamd_scans(host, title)
    yield from clamd_scans(host)
    yield from clamav_milter(host, title)


def milters_disabled(host: Audited, port: Port) -> str:
    """A client for which smtpd_milter_maps switches the milters off."""
    tables = port.parameters.words("smtpd_milter_maps")
    clients = [STRANGER, *(host_of(prefix) for several in host.expected.pools.values() for prefix in several)]
    try:
        return next((one for one in clients if host.tables.find(tables, one).upper() == "DISABLE"), "")
    except Unreadable:
        return ""


def scanner_finding(host: Audited, control: str, place: str, title: str, problems: list[str], mend: str) -> Finding:
    if problems:
        reason = f"{'; '.join(problems)}."
        return host.finding(control, place, VIOLATED, title, reason, [f"{place} {one}" for one in problems], mend)
    return host.finding(control, place, COMPLIANT, title)


def has(host: Audited, *names: str) -> bool:
    """Whether a milter of that kind is used."""
    used = [milter for port in host.user_ports() for milter in port.milters]
    return any(name in milter for milter in used for name in names)


def uses_rspamd(host: Audited) -> bool:
    return has(host, "rspamd", ":11332")


def rspamd_scans(host: Audited, title: str) -> Iterator[Finding]:
    if not uses_rspamd(host):
        return
    tree = host.reading.rspamd
    if tree is None:
        why = host.reading.unreadable.get("rspamd", "its configuration was not read")
        for control, what in (("M6", title), ("M7", _DOWN), ("M10", _RATES), ("M11", _SIGNED)):
            yield host.finding(control, "rspamd", UNKNOWN, what, f"rspamadm configdump: {why}")
        return
    limit = host.expected.message_size_limit
    small = [
        f"{path} = {size}, a message may have {limit}" for path, size in rspamd.size_limits(tree) if 0 < size < limit
    ]
    if not rspamd.scanners(tree) and not has(host, "clamav"):
        problems = ["antivirus has no scanner"]
    else:
        problems = [*small, *rspamd.exemptions(tree), *rspamd.parts_left_out(tree)]
    problems += [f"{hit} does not refuse" for hit in rspamd.hits_let_through(tree)]
    mend = "Scan whole messages (scan_mime_parts = false) of every size and every user, with action = reject."
    yield scanner_finding(host, "M6", "rspamd", title, problems, mend)
    failing = [f"{symbol} is no soft reject" for symbol in rspamd.failures_let_through(tree)]
    mend = 'Add a force_actions rule: expression = "CLAM_VIRUS_FAIL", action = "soft reject".'
    yield scanner_finding(host, "M7", "rspamd", _DOWN, failing, mend)
    yield from rate_limits(host, tree)
    unsigned = (
        [] if rspamd.signs(tree) or has(host, "opendkim", ":8891") else ["dkim_signing names no key for users' mail"]
    )
    yield scanner_finding(host, "M11", "rspamd", _SIGNED, unsigned, "Name selector and path in dkim_signing.")


def rate_limits(host: Audited, tree: rspamd.Tree) -> Iterator[Finding]:
    problems = [] if rspamd.user_limits(tree) else ["ratelimit.rates counts no user"]
    servers = rspamd.redis_servers(tree, "ratelimit")
    if not servers:
        problems.append("redis.servers is not set: without Redis nothing is counted")
    problems += [
        f"redis.servers {server} does not answer: nothing is counted"
        for server in servers
        if host.reading.redis.get(server) is False
    ]
    mend = "Set ratelimit.rates with the selector user, and redis.servers to a Redis that runs."
    yield scanner_finding(host, "M10", "rspamd", _RATES, problems, mend)


def clamd_scans(host: Audited) -> Iterator[Finding]:
    title = "No limit of the scanner is below the size of a message"
    text = host.reading.clamd
    used = has(host, "clamav", "clamd") or (host.reading.rspamd and rspamd.scanners(host.reading.rspamd))
    if not text:
        if used:
            yield host.finding("M6", "clamd", UNKNOWN, title, "clamd.conf is not here or cannot be read.")
        return
    settings = clamd.read(text)
    limit = host.expected.message_size_limit
    problems = [
        f"{one.key} = {size}{'' if one.line else ' (default)'}, a message may have {limit}"
        for one, size in clamd.below(settings, limit)
    ]
    problems += [f"{key} is off" for key in ("ScanMail", "ScanArchive") if clamd.switched_off(settings, key)]
    evidence = [
        f"clamd.conf:{one.line} {one.key} {one.value}" + (" (a former one counts)" if one.hidden else "")
        for one in settings
        if one.key in (*clamd.LIMITS, "ScanMail", "ScanArchive")
    ]
    verdict = VIOLATED if problems else COMPLIANT
    mend = "Raise them to the message_size_limit at least; of a key that stands twice the first one counts."
    yield host.finding("M6", "clamd", verdict, title, f"{'; '.join(problems)}.", evidence, mend)


def clamav_milter(host: Audited, title: str) -> Iterator[Finding]:
    if not has(host, "clamav"):
        return
    if not host.reading.clamav_milter:
        yield host.finding("M7", "clamav-milter", UNKNOWN, _DOWN, "clamav-milter.conf is not here or unreadable.")
        return
    settings = clamd.read(host.reading.clamav_milter)
    fail = clamd.setting(settings, "OnFail").value or "Defer"
    failing = [f"OnFail {fail}"] if fail.lower() not in ("defer", "reject") else []
    yield scanner_finding(host, "M7", "clamav-milter", _DOWN, failing, "Set OnFail Defer.")
    infected = clamd.setting(settings, "OnInfected").value or "Quarantine"
    problems = [f"OnInfected {infected}"] if infected.lower() != "reject" else []
    size = clamd.size(clamd.setting(settings, "MaxFileSize").value or "25M") or 0
    if 0 < size < host.expected.message_size_limit:
        problems.append(f"MaxFileSize = {size}, a message may have {host.expected.message_size_limit}")
    exempt = [clamd.setting(settings, key) for key in ("SkipAuthenticated", "LocalNet", "Whitelist")]
    problems += [f"{one.key} {one.value}" for one in exempt if one.line]
    mend = "Set OnInfected Reject and a MaxFileSize of the message_size_limit, and exempt nobody."
    yield scanner_finding(host, "M6", "clamav-milter", title, problems, mend)


def milter_failures(host: Audited) -> Iterator[Finding]:
    for port in host.user_ports():
        if not port.milters:
            continue
        problems = []
        common = port.parameters["milter_default_action"].lower()
        for milter in port.milters:
            own = re.search(r"default_action\s*=\s*(\w+)", milter)
            action = own[1].lower() if own else common
            if action not in ("tempfail", "reject", "shutdown"):
                problems.append(f"{words(milter)[0]} fails to {action}")
        evidence = [port.parameters.evidence(name) for name in ("milter_default_action", "smtpd_milters")]
        verdict = VIOLATED if problems else COMPLIANT
        reason = f"A milter that is down lets mail pass: {'; '.join(problems)}."
        yield host.finding("M7", port.title, verdict, _DOWN, reason, evidence, "Set milter_default_action = tempfail.")


def sizes(host: Audited) -> Iterator[Finding]:
    """The message limit that Postfix really has, against the policy's."""
    title = "No message is larger than the policy says, and so than the scanners read"
    for port in host.user_ports():
        limit = port.parameters.number("message_size_limit")
        evidence = [port.parameters.evidence("message_size_limit")]
        verdict = VIOLATED if limit == 0 or limit > host.expected.message_size_limit else COMPLIANT
        reason = f"It takes {limit or 'any number of'} bytes, the policy says {host.expected.message_size_limit}."
        yield host.finding("M6", port.title, verdict, title, reason, evidence, "Set message_size_limit.")


def limits_and_signing(host: Audited) -> Iterator[Finding]:
    """Where no rspamd is, somebody else has to count and to sign."""
    if uses_rspamd(host) or not any(host.user_ports()):
        return
    places = [port.title for port in host.user_ports()]
    yield host.finding(
        "M10",
        places[0],
        VIOLATED,
        _RATES,
        "No milter that counts by user is used; Postfix itself counts by client address.",
        [port.parameters.evidence("smtpd_milters") for port in host.user_ports()],
        "Use rspamd's ratelimit.",
    )
    signed = has(host, "opendkim", ":8891", ":12301")
    if signed and not host.reading.opendkim:
        verdict, reason = UNKNOWN, "opendkim.conf is not here or unreadable."
    elif signed:
        keys = re.search(r"^\s*(?:KeyFile|KeyTable)\s+\S", host.reading.opendkim or "", re.MULTILINE | re.IGNORECASE)
        verdict, reason = (COMPLIANT, "") if keys else (VIOLATED, "opendkim.conf names no key.")
    else:
        verdict, reason = VIOLATED, "No milter that signs is used."
    evidence = [port.parameters.evidence("smtpd_milters") for port in host.user_ports()]
    yield host.finding("M11", places[0], verdict, _SIGNED, reason, evidence, "Use rspamd's dkim_signing.")
