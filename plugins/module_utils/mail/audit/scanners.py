# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""M6, M7, M10 and M11: what goes out is scanned whole, counted by user and signed, and waits where that fails.

Sources: those named in rspamd.py and clamd.py; MILTER_README, FILTER_README, SMTPD_PROXY_README, postconf(5)
(non_smtpd_milters, receive_override_options, smtpd_milter_maps, milter_default_action, milter_mail_macros).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ...findings import COMPLIANT, UNKNOWN, VIOLATED, Finding
from .. import clamd, rspamd
from ..postfix import Parameters, inside, words
from ..restrictions import lists
from ..tables import Unreadable, is_table
from .base import OUTBOUND, STRANGER, Audited
from .relaying import host_of

_WHOLE = "Outbound mail is scanned whole, users' mail too"
_DOWN = "A scanner that is down defers mail, and never lets it pass"
_RATES = "A user sends no more than so many messages in an hour"
_SIGNED = "Outbound mail is DKIM-signed"

RSPAMD, CLAMAV, SIGNER, OTHER = "rspamd", "clamav-milter", "signer", ""
_SIGNERS = ("dkim", "dmarc", "openarc", "spf", ":8891", ":8893", ":12301")  # they scan nothing


@dataclass(frozen=True, slots=True)
class _Way:
    """A way by which mail comes in to go out: a port, or the sendmail command. `list_name`: its list of milters."""

    title: str
    list_name: str
    parameters: Parameters  # of the process that asks the milters
    entry: Parameters  # of the process that takes the mail
    milters: tuple[str, ...]

    @property
    def filters(self) -> list[str]:
        """The parameters by which it goes through a filter of another kind."""
        names = ["content_filter"] + ["smtpd_proxy_filter"] * (self.list_name == "smtpd_milters")
        return [name for name in names if self.entry[name]]

    @property
    def overridden(self) -> bool:
        return "no_milters" in self.entry.words("receive_override_options")


class _Scanners:
    """The milters of every way, known by name."""

    def __init__(self, host: Audited) -> None:
        self.host = host
        self.ways = list(_ways(host))
        self.tree = host.reading.rspamd
        self.why = host.reading.unreadable.get("rspamd", "its configuration was not read")
        remote = [one for way in self.ways for one in way.milters if self.kind(one) == RSPAMD and not self.here(one)]
        if remote:  # what is configured here is another one's
            self.tree, self.why = None, f"the rspamd of {words(remote[0])[0]} is on another host"

    def kind(self, milter: str) -> str:
        """Which program answers at a milter's address, as far as the address tells."""
        address = words(milter)[0].lower() if words(milter) else ""
        own = clamd.setting(clamd.read(self.host.reading.clamav_milter or ""), "MilterSocket").value.lower()
        if "rspamd" in address or address.endswith(":11332") or _port(address) in self.proxies():
            return RSPAMD
        if "clamav" in address or (_port(address) and _port(address) == _port(own)):
            return CLAMAV
        return SIGNER if any(name in address for name in _SIGNERS) else OTHER

    def proxies(self) -> list[str]:
        """The ports of rspamd's own milters."""
        found = rspamd.workers(self.host.reading.rspamd or {})
        sockets = [worker.get("bind_socket", "") for name, worker in found if name == "rspamd_proxy"]
        texts = [one for value in sockets for one in (value if isinstance(value, list) else [value])]
        return [port for port in map(_port, map(str, texts)) if port]

    def here(self, milter: str) -> bool:
        """Whether the milter is on this host."""
        kind, _, rest = words(milter)[0].partition(":")
        name = rest.rpartition(":")[0].strip("[]")
        return kind != "inet" or name in ("localhost", "127.0.0.1", "::1", *self.host.expected.addresses)

    def used(self, *kinds: str) -> bool:
        """Whether some way has a milter of that kind."""
        return any(self.kind(milter) in kinds for way in self.ways for milter in way.milters)

    def scans(self, way: _Way) -> bool:
        """Whether a known scanner sees what comes this way."""
        return not way.overridden and any(self.kind(milter) in (RSPAMD, CLAMAV) for milter in way.milters)

    def unsigned(self, tree: rspamd.Tree) -> list[str]:
        """Why rspamd does not sign users' mail."""
        if not rspamd.signs(tree):
            return ["dkim_signing leaves users' mail alone"]
        files = rspamd.key_files(tree, self.host.expected.domains).items()
        keys = self.host.reading.keys
        return [f"dkim_signing has no key for {domain}: {path}" for domain, path in files if not keys.get(path, True)]

    def elsewhere(self, way: _Way) -> str:
        """What else may scan, sign and count, and cannot be read here; "" for nothing."""
        if way.filters:
            return f"what {' and '.join(f'{name} = {way.entry[name]}' for name in way.filters)} does"
        if unknown := [words(one)[0] for one in way.milters if self.kind(one) == OTHER and not way.overridden]:
            return f"what the milter {', '.join(unknown)} does"
        filtered = [
            table
            for table in _tables_of(way.entry)
            for _, action in self.host.reading.dumps.get(table, ())
            if action.upper().startswith("FILTER")
        ]
        return f"what the filter of {filtered[0]} does" if filtered else ""


def _ways(host: Audited) -> Iterator[_Way]:
    """Every way by which mail goes out."""
    ports = list(host.user_ports())
    postfix = host.reading.postfix
    if postfix is None or not (ports or host.expected.side == OUTBOUND):
        return
    filtered = any(port.parameters["content_filter"] or port.parameters["smtpd_proxy_filter"] for port in ports)
    for port in [*ports, *host.local_ports]:
        if port in ports or port.milters or not filtered:  # the rest is the filter's way back
            milters = tuple(port.milters)
            yield _Way(port.title, "smtpd_milters", port.parameters, port.parameters, milters)
    pickup = next((one for one in postfix.services if one.command == "pickup"), None)
    if pickup is not None and postfix.effective(pickup)["authorized_submit_users"]:
        entry = postfix.effective(pickup)
        cleanup = postfix.effective(postfix.named(entry["cleanup_service_name"] or "cleanup"))
        milters = tuple(milter for one in cleanup.words("non_smtpd_milters") if (milter := inside(one)))
        yield _Way(f"sendmail ({pickup.command})", "non_smtpd_milters", cleanup, entry, milters)


def scanners(host: Audited) -> Iterator[Finding]:
    """All of it: every way first, then every program behind the milters."""
    known = _Scanners(host)
    if not known.ways:
        return
    for way in known.ways:
        yield _scanned(known, way)
    yield from _sizes(known)
    scanning = [way for way in known.ways if known.scans(way) or known.elsewhere(way)]
    for way in scanning:
        yield _failing(known, way)
    if not scanning:
        yield host.finding("M7", "Postfix", VIOLATED, _DOWN, "Nothing scans, so nothing waits.")
    if known.used(RSPAMD):
        yield from _rspamd(known)
    if known.used(RSPAMD, CLAMAV):
        yield from clamd_scans(known)
    if known.used(CLAMAV):
        yield from _clamav_milter(known)
    yield from _counted_and_signed(known)


def _scanned(known: _Scanners, way: _Way) -> Finding:
    verdict, reason, names = COMPLIANT, "", [way.list_name]
    mend = f"Name rspamd's milter in {way.list_name}."
    if known.scans(way):
        skipped, doubt = _switched_off(known, way)
        if skipped:
            verdict, reason, mend = VIOLATED, f"No scanner sees what comes from {skipped}.", "Remove the entry."
            names = ["smtpd_milter_maps"]
        elif doubt:
            verdict, reason, names = UNKNOWN, f"It depends on {doubt}.", ["smtpd_milter_maps"]
    elif other := known.elsewhere(way):
        verdict, reason = UNKNOWN, f"Whether it is scanned depends on {other}, which cannot be read here."
        names += way.filters
    elif way.overridden and way.milters:
        verdict, reason, mend = VIOLATED, "Its milters are overridden.", "Take no_milters out of it."
        return known.host.finding("M6", way.title, verdict, _WHOLE, reason, [_overrides(way)], mend)
    else:
        verdict = VIOLATED
        reason = "No milter of it scans." if way.milters else "Mail passes no milter."
    evidence = [(way.entry if name in way.filters else way.parameters).evidence(name) for name in names]
    return known.host.finding("M6", way.title, verdict, _WHOLE, reason, evidence, mend)


def _overrides(way: _Way) -> str:
    return way.entry.evidence("receive_override_options")


def _switched_off(known: _Scanners, way: _Way) -> tuple[str, str]:
    """The clients that smtpd_milter_maps takes from the scanner, and what cannot be known of that."""
    tables = way.parameters.words("smtpd_milter_maps") if way.list_name == "smtpd_milters" else []
    host = known.host
    clients = [STRANGER, *(host_of(prefix) for several in host.expected.pools.values() for prefix in several)]
    named = {key: value for table in tables for key, value in host.reading.dumps.get(table, ())}
    try:
        named |= {one: value for one in clients if (value := host.tables.find(tables, one))}
    except Unreadable as reason:
        return "", str(reason)
    for client, value in named.items():
        milters = [] if value.upper() == "DISABLE" else [inside(one) for one in words(value)]
        if not any(known.kind(milter) in (RSPAMD, CLAMAV) for milter in milters):
            return client, ""
    blind = [one for one in tables if not host.reading.dumps.get(one)]
    return "", f"whom {blind[0]} names" if blind else ""


def _sizes(known: _Scanners) -> Iterator[Finding]:
    """The message limit that Postfix really has, against the policy's."""
    title = "No message is larger than the policy says, and so than the scanners read"
    for way in known.ways:
        limit = way.parameters.number("message_size_limit")
        evidence = [way.parameters.evidence("message_size_limit")]
        verdict = VIOLATED if limit == 0 or limit > known.host.expected.message_size_limit else COMPLIANT
        reason = f"It takes {limit or 'any number of'} bytes, the policy says {known.host.expected.message_size_limit}."
        yield known.host.finding("M6", way.title, verdict, title, reason, evidence, "Set message_size_limit.")


def _failing(known: _Scanners, way: _Way) -> Finding:
    """What becomes of mail while a milter does not answer."""
    problems, doubts = [], []
    common = way.parameters["milter_default_action"].lower()
    for milter in way.milters:
        own = re.search(r"default_action\s*=\s*(\w+)", milter)
        action = own[1].lower() if own else common
        name = words(milter)[0]
        if known.kind(milter) == SIGNER or way.overridden:
            continue
        if action in _LETS_PASS:
            problems.append(f"{name} fails to {action}: {_LETS_PASS[action]}")
        elif action not in ("tempfail", "shutdown"):
            doubts.append(f"{name} fails to {action}, which is no action that is known here")
    evidence = [way.parameters.evidence(name) for name in ("milter_default_action", way.list_name)]
    evidence += [way.entry.evidence(name) for name in way.filters]
    if not known.scans(way):
        doubts.append(f"It depends on {known.elsewhere(way)} when it fails, which cannot be read here")
    verdict = VIOLATED if problems else UNKNOWN if doubts else COMPLIANT
    mend = "Set milter_default_action = tempfail."
    if verdict == UNKNOWN:
        mend = "Scan with a milter, rspamd's for one."
    return known.host.finding("M7", way.title, verdict, _DOWN, f"{'; '.join(problems or doubts)}.", evidence, mend)


_LETS_PASS = {
    "accept": "mail passes it unscanned",
    "quarantine": "mail is taken unscanned, and held",
    "reject": "mail is refused for good instead of waiting",
}


def _of_program(host: Audited, control: str, place: str, title: str, problems: list[str], mend: str) -> Finding:
    reason, evidence = f"{'; '.join(problems)}.", [f"{place} {one}" for one in problems]
    return host.finding(control, place, VIOLATED if problems else COMPLIANT, title, reason, evidence, mend)


def _rspamd(known: _Scanners) -> Iterator[Finding]:
    host, tree = known.host, known.tree
    if tree is None:
        for control, what in (("M6", _WHOLE), ("M7", _DOWN), ("M10", _RATES), ("M11", _SIGNED)):
            yield host.finding(control, "rspamd", UNKNOWN, what, f"rspamadm configdump: {known.why}.")
        return
    limit = host.expected.message_size_limit
    sizes = rspamd.size_limits(tree)
    small = [f"{path} = {size}, a message may have {limit}" for path, size in sizes if 0 < size < limit]
    if rspamd.scanners(tree):
        problems = [*small, *rspamd.exemptions(tree), *rspamd.parts_left_out(tree), *rspamd.swallowed(tree)]
        problems += [f"{hit} does not refuse" for hit in rspamd.hits_let_through(tree)]
    else:
        problems = [] if known.used(CLAMAV) else ["antivirus has no scanner"]
    mend = "Scan whole messages (scan_mime_parts = false) of every size and every user, and refuse a hit."
    yield _of_program(host, "M6", "rspamd", _WHOLE, problems, mend)
    failing = [f"{symbol} is no soft reject" for symbol in rspamd.failures_let_through(tree)]
    failing += rspamd.timeouts_let_through(tree)
    mend = 'Add a force_actions rule: expression = "CLAM_VIRUS_FAIL", action = "soft reject".'
    yield _of_program(host, "M7", "rspamd", _DOWN, failing, mend)
    yield _rate_limits(known, tree)
    unsigned = known.unsigned(tree)
    if not (unsigned and known.used(SIGNER)):  # then another one signs
        local = any(way.list_name == "non_smtpd_milters" and way.milters for way in known.ways)
        if local and not unsigned and not rspamd.signs_local(tree):
            unsigned = ["dkim_signing.sign_local = false: what the sendmail command sends is not signed"]
        yield _of_program(host, "M11", "rspamd", _SIGNED, unsigned, "Name selector and path in dkim_signing.")


def _rate_limits(known: _Scanners, tree: rspamd.Tree) -> Finding:
    problems = [] if rspamd.user_limits(tree) else ["ratelimit.rates counts no user"]
    servers = rspamd.redis_servers(tree, "ratelimit")
    if not servers:
        problems.append("redis.servers is not set: without Redis nothing is counted")
    answers = known.host.reading.redis
    problems += [
        f"redis.servers {server} does not answer: nothing is counted"
        for server in servers
        if answers.get(server) is False
    ]
    problems += rspamd.uncounted(tree)
    macros = [name for way in known.ways for name in way.parameters.raw if re.fullmatch(r"milter_\w+_macros", name)]
    told = [name for way in known.ways for name in macros if "{auth_authen}" in way.parameters.raw.get(name, "")]
    if macros and not told:
        problems.append("no milter_*_macros has {auth_authen}: rspamd is not told who the user is")
    mend = "Count by selector = user.lower, name nobody in whitelisted_rcpts, and run Redis where redis.servers is."
    return _of_program(known.host, "M10", "rspamd", _RATES, problems, mend)


def clamd_scans(known: _Scanners) -> Iterator[Finding]:
    title = "No limit of the scanner is below the size of a message"
    host, text = known.host, known.host.reading.clamd
    rules = rspamd.scanners(known.tree or {})
    if not known.used(CLAMAV) and not any(rspamd.is_clamd(rule) for rule in rules.values()):
        return
    if not text:
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


def _clamav_milter(known: _Scanners) -> Iterator[Finding]:
    host = known.host
    if not host.reading.clamav_milter:
        for control, title in (("M6", _WHOLE), ("M7", _DOWN)):
            reason = "clamav-milter.conf is not here or unreadable."
            yield host.finding(control, "clamav-milter", UNKNOWN, title, reason)
        return
    settings = clamd.read(host.reading.clamav_milter)
    fail = clamd.setting(settings, "OnFail").value or "Defer"
    failing = [f"OnFail {fail}"] if fail.lower() != "defer" else []
    yield _of_program(host, "M7", "clamav-milter", _DOWN, failing, "Set OnFail Defer.")
    infected = clamd.setting(settings, "OnInfected").value or "Quarantine"
    problems = [f"OnInfected {infected}"] if infected.lower() != "reject" else []
    size = clamd.size(clamd.setting(settings, "MaxFileSize").value or "25M") or 0
    if 0 < size < host.expected.message_size_limit:
        problems.append(f"MaxFileSize = {size}, a message may have {host.expected.message_size_limit}")
    exempt = [clamd.setting(settings, key) for key in ("SkipAuthenticated", "LocalNet", "Whitelist")]
    problems += [f"{one.key} {one.value}" for one in exempt if one.line]
    mend = "Set OnInfected Reject and a MaxFileSize of the message_size_limit, and exempt nobody."
    yield _of_program(host, "M6", "clamav-milter", _WHOLE, problems, mend)


def _counted_and_signed(known: _Scanners) -> Iterator[Finding]:
    """Where no rspamd is, somebody else has to count and to sign; and every way has to lead there."""
    host = known.host
    evidence = [way.parameters.evidence(way.list_name) for way in known.ways]
    other = next((text for way in known.ways if (text := known.elsewhere(way))), "")
    if not known.used(RSPAMD):
        asked = any(
            "check_policy_service" in way.entry.words(name)
            for way in known.ways
            for name in [*lists(way.entry), *way.entry.words("smtpd_restriction_classes")]
        )
        verdict, reason = VIOLATED, "No milter that counts by user is used; Postfix itself counts by client address."
        if asked or other:
            what = "what a policy service does" if asked else other
            verdict, reason = UNKNOWN, f"It depends on {what}, which cannot be read here."
        yield host.finding("M10", known.ways[0].title, verdict, _RATES, reason, evidence, "Use rspamd's ratelimit.")
    signing = {way.title: any(known.kind(one) in (RSPAMD, SIGNER) for one in way.milters) for way in known.ways}
    if not any(signing.values()):
        verdict, reason = VIOLATED, "No milter that signs is used."
        if other:
            verdict, reason = UNKNOWN, f"It depends on {other}, which cannot be read here."
        yield host.finding("M11", known.ways[0].title, verdict, _SIGNED, reason, evidence, "Use rspamd's dkim_signing.")
        return
    if known.used(SIGNER) and not (known.tree and known.used(RSPAMD) and not known.unsigned(known.tree)):
        text = host.reading.opendkim or ""
        keys = re.search(r"^\s*(?:KeyFile|KeyTable)\s+\S", text, re.MULTILINE | re.IGNORECASE)
        verdict, reason = (COMPLIANT, "") if keys else (VIOLATED, "opendkim.conf names no key.")
        if not text:
            verdict, reason = UNKNOWN, "opendkim.conf is not here or unreadable."
        yield host.finding("M11", "opendkim", verdict, _SIGNED, reason, evidence, "Name the key in KeyFile.")
    for way in known.ways:
        if not signing[way.title] and way.list_name == "non_smtpd_milters" and not known.elsewhere(way):
            reason = "What the sendmail command sends passes no milter that signs."
            mend = "Set non_smtpd_milters as smtpd_milters."
            line = [way.parameters.evidence(way.list_name)]
            yield host.finding("M11", way.title, VIOLATED, _SIGNED, reason, line, mend)


def _tables_of(parameters: Parameters) -> Iterator[str]:
    for name in [*lists(parameters), *parameters.words("smtpd_restriction_classes")]:
        yield from (word for word in parameters.words(name) if is_table(word))


def _port(address: str) -> str:
    """The port of "inet:127.0.0.1:11332", "inet:11332@127.0.0.1", "localhost:11332" and "*:11332"."""
    found = re.search(r":(\d+)(?:@.*)?$", address.split()[0] if address.split() else "")
    return found[1] if found and not address.startswith(("unix:", "local:", "/")) else ""
