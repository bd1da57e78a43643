# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What others complain of: ARF, XARF and feedback-loop mail out of a Maildir, an mbox, or a directory of files.

A complaint names an address, a time, and the port where the reporter knew it; who had the address then is identity.py's
to say. A report is mail from strangers: what is not whole, not about abuse, or garbage is told and is no complaint.
And it counts as a signal only if our own mail server vouches for its sender (RFC 8601), who is on a list: whoever likes
could complain about whomever otherwise (RFC 6650 leaves the trust to the receiver [memory]).
"""

from __future__ import annotations

import datetime
import email
import email.errors
import email.header
import email.message
import email.policy
import email.utils
import hashlib
import ipaddress
import json
import mailbox
import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .abuse import FEEDBACK_TYPES, clean, utc, xarf_problems
from .identity import Sources, owner, touchable
from .identity_tenures import Told
from .limits import DAY
from .records import KNOWN, Alarm, Case, Silence

_LARGEST = 20 * 2**20  # octets of one report: XARF admits 15 MiB of evidence
_ABUSE = {  # of XARF's types those that are about what an infected host does
    "messaging": ("spam", "bulk_messaging"),
    "connection": (
        "login_attack", "port_scan", "ddos", "infected_host", "reconnaissance", "sql_injection", "vulnerability_scan",
    ),
    "infrastructure": ("botnet", "compromised_server"),
}  # fmt: skip
_HARMLESS_BOTS = (  # bot_type of connection/infected_host that is no infection
    "search_engine", "ai_agent", "monitoring", "seo_analyzer", "link_checker", "feed_reader", "social_media",
    "advertising",
)  # fmt: skip
# ReportClass of XARF 3: its own, and those of the samples of xarf-spec.
_ABUSE_3 = ("activity", "messaging", "network", "infrastructure")
_HARMLESS_3 = ("webcrawler", "harassment", "potentiallycompromisedaccount")  # ReportType that is no infection there
_INFECTED_3 = ("bot", "botnet")  # ReportType that is one in any class: the samples have it in Content and in System
# Feedback loop of Microsoft (JMRP), as arf-22.eml of sisimai's set-of-emails has it.
_JMRP = re.compile(r"complaint about message from (\S+)", re.IGNORECASE)
# One that does not close goes to the end: looking for the end of each of many took a minute.
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)(?:"|\\?(\Z))', re.DOTALL)
_XARF = re.compile(r"^feedback-type:\s*xarf\s*$", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Complaint:
    """One report of abuse from an address. `key` is the same for the same report, however often it is read."""

    key: str
    form: str  # "arf", "xarf", or "loop" for Microsoft's feedback loop
    kind: str  # "abuse", "fraud", "virus", or category/type of XARF
    address: str
    port: int | None
    time: int
    reporter: str  # a domain, as our mail server vouches for it, or as the report says
    trusted: bool
    evidence: tuple[str, ...]


def alarms(complaints: Collection[Complaint]) -> list[Alarm]:
    """Complaints as a signal: those that are trusted, each report once."""
    once = {complaint.key: complaint for complaint in complaints if complaint.trusted}
    return [Alarm("complaint", one.address, one.time, 1.0, 1, one.evidence) for one in once.values()]


def cases(complaints: Collection[Complaint], sources: Sources, now: int) -> tuple[list[Case], list[Silence]]:
    """One case for each subscriber whom trusted complaints of the last 24 hours are about, and why others are none.

    Older ones are what was dealt with, or will be complained of again. Whoever had the address then is meant, and what
    may be acted upon is what he has now. The key has the first complaint's time.
    """
    told = Told()
    of: dict[str, list[Complaint]] = {}
    for one in sorted({one.key: one for one in complaints if one.trusted}.values(), key=lambda one: one.time):
        if not now - DAY < one.time <= now + sources.skew:
            told.add(
                one.address, 0, f"the complaint of {utc(one.time)} is older than 24 hours, or of tomorrow", "left out"
            )
            continue
        found = owner(sources, one.address, one.time, one.port)
        if found.state == KNOWN:
            of.setdefault(found.subscriber, []).append(one)
        else:
            reason = f"at {utc(one.time)} it was nobody's for certain ({found.state}): {found.reason}"
            told.add(one.address, 0, reason, "give the accounting or leases of that time; see by hand")
    made = []
    for subscriber, ones in of.items():
        his = touchable(sources, subscriber, now, [one.address for one in ones])
        lines = tuple(dict.fromkeys(line for one in ones for line in one.evidence))
        key = f"complaint:{subscriber}:{ones[0].time}"
        made.append(Case(key, subscriber, his, ("complaint",), ones[0].time, lines))
    return made, list(told.silences())


def read_reports(
    path: str, authserv_id: str = "", reporters: Collection[str] = ()
) -> tuple[list[Complaint], tuple[Silence, ...]]:
    """The complaints at a path: a Maildir, an mbox, a directory of mails and JSON files, or one such file.

    `authserv_id` is the name that our mail server writes into Authentication-Results, and takes out of what comes in;
    `reporters` are the domains whose complaints count, with what is under them. JSON files of a directory count as
    trusted: whoever put them there has looked. Never raises on any content; what is no complaint is told.
    """
    told = Told()
    vouched = {domain.lower().strip(".") for domain in reporters}
    found: list[Complaint] = []
    for place, octets, delivered in _reports(path, told):
        if len(octets) > _LARGEST:
            told.add(place, 0, "is too large for a report", "look at it by hand")
        elif octets.lstrip()[:1] == b"{" and not delivered:
            found += _json(place, octets, "", True, told)
        else:
            try:
                found += _mail(place, octets, authserv_id.lower(), vouched, told)
            except (ValueError, LookupError, AttributeError, TypeError, RecursionError, email.errors.MessageError):
                told.add(place, 0, "is mail that the parser cannot take apart", "somebody should read it")
    return found, told.silences()


def _reports(path: str, told: Told) -> Iterator[tuple[str, bytes, bool]]:
    """Each report by its place, and whether a mail server put it there."""
    maildir = os.path.isdir(os.path.join(path, "cur")) and os.path.isdir(os.path.join(path, "new"))
    try:
        if maildir:
            names = sorted(str(one) for part in ("cur", "new") for one in Path(path, part).iterdir() if one.is_file())
        elif os.path.isdir(path):
            names = sorted(str(one) for one in Path(path).iterdir() if one.is_file())
        else:
            names = [path]
    except OSError as error:
        told.add(path, 0, f"cannot be read: {error.strerror or error}", "name a Maildir, an mbox or a directory")
        return
    for name in names:
        try:
            if os.path.getsize(name) > _LARGEST and not _mbox(name):
                told.add(name, 0, "is too large for a report", "look at it by hand")
            elif _mbox(name):
                box = mailbox.mbox(name, create=False)
                for number, key in enumerate(box.keys(), 1):
                    yield f"{name} message {number}", box.get_bytes(key), True
                box.close()
            else:
                yield name, Path(name).read_bytes(), maildir
        except (OSError, mailbox.Error) as error:
            told.add(name, 0, f"cannot be read: {error}", "name a file that is there")


def _mbox(name: str) -> bool:
    with open(name, "rb") as stream:
        return stream.read(5) == b"From "


# --- mail ---


def _mail(place: str, octets: bytes, authserv_id: str, reporters: Collection[str], told: Told) -> list[Complaint]:
    message = email.message_from_bytes(octets, policy=email.policy.compat32)
    reporter = _vouched(message, authserv_id, reporters)
    claimed = email.utils.parseaddr(_text(message.get("From", "")))[1].rpartition("@")[2].lower()
    parts = list(_parts(message))
    feedback = [part for part in parts if part.get_content_type() == "message/feedback-report"]
    attached = [part for part in parts if _is_json(part)]
    loop = _JMRP.fullmatch(_text(message.get("Subject", "")).strip())
    # XARF comes as the third part of a feedback report too (README of abusix/xarf, "XARF via SMTP").
    if feedback and not (attached and _XARF.search(_feedback(feedback[0]))):
        complaint = _arf(place, message, feedback[0], parts, reporter or claimed, bool(reporter), told)
        found = [complaint] if complaint else []
    elif loop:
        complaint = _jmrp(place, message, loop[1], list(message.walk()), reporter or claimed, bool(reporter), told)
        found = [complaint] if complaint else []
    elif attached:
        found = [
            complaint
            for part in attached
            for complaint in _json(place, _octets(part), reporter or claimed, bool(reporter), told)
        ]
    else:
        told.add(place, 0, "is mail without a report that a machine can read", "somebody should read it")
        return []
    if found and not reporter:
        reason = f"nobody vouches for {claimed or 'the sender'} on the list of reporters"
        told.add(place, 0, reason, "it does not count; add the domain to 'reporters' if it is known")
    return found


def _parts(message: email.message.Message) -> Iterator[email.message.Message]:
    """The parts of a mail, and none of a message that it encloses: whoever sent that one has written them."""
    yield message
    payload = message.get_payload()
    if message.get_content_maintype() == "multipart" and isinstance(payload, list):
        for part in payload:
            if isinstance(part, email.message.Message):
                yield from _parts(part)


def _vouched(message: email.message.Message, authserv_id: str, reporters: Collection[str]) -> str:
    """The domain that signed the mail, if our server says so (RFC 8601 2.2) and it is on the list; "" otherwise."""
    for value in message.get_all("Authentication-Results", []):
        text = _uncommented(str(value))  # encoded words are not read: an address may look like one
        name, _, results = text.partition(";")
        if not authserv_id or name.split(" ")[0].lower() != authserv_id:
            continue
        for result in results.split(";"):
            if re.match(r"\s*dkim\s*=\s*pass\b", result, re.IGNORECASE):
                signed = re.search(r"header\.(?:d|i)\s*=\s*\"?(?:[^@\s\"]*@)?([A-Za-z0-9.-]+)", result)
                domain = signed[1].lower().strip(".") if signed else ""
                if any(domain == one or domain.endswith(f".{one}") for one in reporters):
                    return domain
    return ""


def _uncommented(text: str) -> str:
    """A header field on one line, without its comments and quotes (RFC 5322 3.2.2, 3.2.4); "" where they do not close.

    Both may hold what a stranger chose, as the local part of his address: a result that stands there is none.
    """

    def unquoted(one: re.Match[str]) -> str:
        if one[2] is not None:
            return one[0]
        return one[1] if re.fullmatch(r"[\w.@-]*", one[1]) else " "

    plain = _QUOTED.sub(unquoted, text)
    for _ in range(9):  # deeper ones are nothing but work for us
        plain = _bare(plain)
    return "" if set(plain) & set('()"') else " ".join(plain.split())


def _bare(text: str) -> str:
    """A value without the comments around it, of which the innermost are taken out."""
    return re.sub(r"\([^()]*\)", " ", text).strip()


def _arf(
    place: str,
    message: email.message.Message,
    part: email.message.Message,
    parts: list[email.message.Message],
    reporter: str,
    trusted: bool,
    told: Told,
) -> Complaint | None:
    """A feedback report (RFC 5965 3.1, 3.2): it needs its three required fields, Source-IP and a time."""
    fields = email.message_from_string(_feedback(part), policy=email.policy.compat32)
    values = {name.lower(): [clean(_text(one)) for one in fields.get_all(name, [])] for name in fields}  # in any case
    one = {name: found[0] for name, found in values.items()}
    missing = [name for name in ("feedback-type", "user-agent", "version") if not one.get(name)]
    kind = _bare(one.get("feedback-type", "")).lower()
    if missing:
        told.add(place, 0, f"a feedback report without {missing[0]}", "RFC 5965 3.1 wants it; it was left out")
        return None
    if kind not in FEEDBACK_TYPES:
        told.add(place, 0, f"a feedback report of type {kind[:40]!r}, which is no complaint", "it was left out")
        return None
    # Comments may stand around an address, and that of IPv6 may be written as in SMTP (RFC 5965, ABNF of source-ip).
    source = re.sub(r"^\[?ipv6:", "", _bare(one.get("source-ip", "")), flags=re.IGNORECASE)
    if len(values.get("source-ip", ())) != 1 or not _address(source):
        told.add(place, 0, "a feedback report without one Source-IP", "nobody is guessed; somebody should read it")
        return None
    stamp = one.get("arrival-date") or one.get("received-date", "")
    time = _rfc5322(stamp)
    if time is None:
        told.add(place, 0, "a feedback report without a time, or without its zone", "it was left out")
        return None
    address, port = _address(source), _port(_bare(one.get("source-port", "")))
    lines = [
        f"{utc(time)}: {reporter} reports {kind} from {address}{f' port {port}' if port else ''} ({one['user-agent']})"
    ]
    lines += [f"subject of the message: {subject}" for subject in (_subject(parts, part),) if subject]
    ident = _text(message.get("Message-ID", "")).strip() or _feedback(part)
    key = hashlib.sha256(f"arf {reporter} {ident} {address} {time}".encode()).hexdigest()[:32]
    return Complaint(key, "arf", kind, address, port, time, reporter, trusted, tuple(lines))


def _jmrp(
    place: str,
    message: email.message.Message,
    text: str,
    parts: list[email.message.Message],
    reporter: str,
    trusted: bool,
    told: Told,
) -> Complaint | None:
    """Microsoft's feedback loop: the address in the subject, and the message as its server got it.

    The topmost Received of that message is the server's own; it has the time, and must name the same address.
    """
    inner = next((part for part in parts if part is not message and "X-HmXmrOriginalRecipient" in part), None)
    received = " ".join(_text(inner.get("Received", "")).split()) if inner else ""
    time, address = _rfc5322(received.rpartition(";")[2].strip()), _address(text)
    if inner is None or not address or time is None:
        told.add(
            place, 0, "looks like Microsoft's feedback loop, but has no address, message or time", "it was left out"
        )
        return None
    if f"[{address}]" not in received:
        told.add(place, 0, "the subject and the Received field name different addresses", "somebody should read it")
        return None
    lines = [f"{utc(time)}: {reporter} reports abuse from {address} (feedback loop)"]
    subject = clean(_text(inner.get("Subject", "")))[:200]
    lines += [f"subject of the message: {subject}"] if subject else []
    key = hashlib.sha256(f"jmrp {reporter} {inner.get('Message-ID', '')} {address} {time}".encode()).hexdigest()[:32]
    return Complaint(key, "loop", "abuse", address, None, time, reporter, trusted, tuple(lines))


def _feedback(part: email.message.Message) -> str:
    """The fields as text. The parser takes message/* for a message, and what is encoded for its body."""
    payload = part.get_payload()
    if isinstance(payload, list) and payload:
        inner = payload[0]
        if isinstance(inner, email.message.Message):
            if inner.keys():
                return "".join(f"{name}: {_text(value)}\n" for name, value in inner.items())
            holder = email.message.Message()
            holder["Content-Transfer-Encoding"] = _text(part.get("Content-Transfer-Encoding", "7bit"))
            holder.set_payload(str(inner.get_payload()))
            return _decoded(holder)
    return _decoded(part)


def _subject(parts: list[email.message.Message], feedback: email.message.Message) -> str:
    """The subject of the message that is complained about."""
    for part in parts[parts.index(feedback) + 1 :]:
        kind = part.get_content_type()
        payload = part.get_payload()
        if kind == "message/rfc822" and isinstance(payload, list) and isinstance(payload[0], email.message.Message):
            return clean(_text(payload[0].get("Subject", "")))[:200]
        if kind == "text/rfc822-headers":
            return clean(_text(email.message_from_string(_decoded(part)).get("Subject", "")))[:200]
    return ""


def _decoded(part: email.message.Message) -> str:
    return _octets(part).decode("utf-8", "replace")


def _octets(part: email.message.Message) -> bytes:
    payload = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""


def _text(value: object) -> str:
    """A header field as text: encoded words read, octets that are none of ASCII shown as such."""
    text = str(value)
    try:
        return str(email.header.make_header(email.header.decode_header(text)))
    except (ValueError, LookupError, UnicodeError, email.errors.MessageError):
        return text.encode("ascii", "backslashreplace").decode()


def _rfc5322(text: str) -> int | None:
    """A date with its zone in numbers, or UT, GMT or one of America's; any other word says nothing (RFC 5322 4.3).

    -0000 is UTC too, of a sender who does not say where he is (RFC 5322 3.3).
    """
    try:
        return _utc(email.utils.parsedate_to_datetime(re.sub(r"-0000(?=\s*(?:\(|$))", "+0000", text)))
    except (TypeError, ValueError, IndexError, OverflowError):
        return None


def _utc(moment: datetime.datetime) -> int | None:
    """In ms; None without a zone. Raises OverflowError for what is in year 0 or 10000 by UTC: no calendar shows it."""
    return round(moment.astimezone(datetime.UTC).timestamp() * 1000) if moment.tzinfo else None


def _address(text: object) -> str:
    try:
        address = ipaddress.ip_address(str(text).strip("[]"))
    except ValueError:
        return ""
    mapped = address.ipv4_mapped if address.version == 6 else None
    return str(mapped or address).partition("%")[0]


def _port(value: object) -> int | None:
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 6 and 0 < int(text) < 65536 else None


# --- XARF ---


def _is_json(part: email.message.Message) -> bool:
    if part.is_multipart():
        return False
    name = _text(part.get_filename() or "")
    return part.get_content_type() == "application/json" or name.lower().endswith(".json")


def _json(place: str, octets: bytes, reporter: str, trusted: bool, told: Told) -> list[Complaint]:
    try:
        report = json.loads(octets.decode("utf-8"))
        if not isinstance(report, dict):
            raise ValueError("no object")
    except (ValueError, RecursionError) as error:
        told.add(place, 0, f"is no JSON that can be read: {clean(str(error))[:100]}", "it was left out")
        return []
    if "xarf_version" in report:
        complaint = _version4(place, report, reporter, trusted, told)
    elif "Report" in report:
        complaint = _version3(place, report, reporter, trusted, told)
    else:
        told.add(place, 0, "is JSON, and no XARF", "it was left out")
        complaint = None
    return [complaint] if complaint else []


def _version4(place: str, report: Mapping[str, Any], reporter: str, trusted: bool, told: Told) -> Complaint | None:
    problems = xarf_problems(report)
    if problems:
        told.add(place, 0, f"is no valid XARF: {'; '.join(problems)[:200]}", "it was left out")
        return None
    kind = f"{report['category']}/{report['type']}"
    if report["type"] not in _ABUSE.get(report["category"], ()) or report.get("bot_type") in _HARMLESS_BOTS:
        told.add(place, 0, f"is XARF of {kind}, which says nothing of an infected host", "somebody should read it")
        return None
    return _xarf(
        place,
        kind,
        _address(report["source_identifier"]),
        _port(report.get("source_port", "")),
        report["timestamp"],
        reporter or clean(report["reporter"]["domain"]).lower(),
        trusted,
        str(report["report_id"]),
        told,
    )


def _version3(place: str, report: Mapping[str, Any], reporter: str, trusted: bool, told: Told) -> Complaint | None:
    """XARF 3: Report.SourceIp, or Report.Source.IP as in the samples of xarf-spec."""
    inner, who = report["Report"], report.get("ReporterInfo")
    if not isinstance(inner, Mapping) or not isinstance(who, Mapping):
        told.add(place, 0, "is no valid XARF 3: Report or ReporterInfo is missing", "it was left out")
        return None
    word, kind = str(inner.get("ReportClass", "")), str(inner.get("ReportType", ""))
    abusive = word.lower() in _ABUSE_3 and kind.lower() not in ("", *_HARMLESS_3)
    if not abusive and kind.lower() not in _INFECTED_3:
        reason = f"is XARF 3 of {clean(f'{word}/{kind}')[:60]}, which says nothing of an infected host"
        told.add(place, 0, reason, "somebody should read it")
        return None
    nested = inner.get("Source")
    source: Mapping[str, Any] = nested if isinstance(nested, Mapping) else {}
    return _xarf(
        place,
        clean(f"{word}/{kind}".lower())[:60],
        _address(inner.get("SourceIp") or source.get("IP", "")),
        _port(inner.get("SourcePort") or source.get("Port", "")),
        inner.get("Date"),
        reporter or clean(str(who.get("ReporterOrgDomain", ""))).lower(),
        trusted,
        json.dumps(report, sort_keys=True),
        told,
    )


def _xarf(
    place: str,
    kind: str,
    address: str,
    port: int | None,
    stamp: object,
    reporter: str,
    trusted: bool,
    ident: str,
    told: Told,
) -> Complaint | None:
    time = _rfc3339(stamp)
    if not address or time is None:
        what = "address" if not address else "time with its zone"
        told.add(
            place, 0, f"is XARF without an {what}" if not address else f"is XARF without a {what}", "it was left out"
        )
        return None
    line = f"{utc(time)}: {reporter} reports {kind} from {address}{f' port {port}' if port else ''}"
    key = hashlib.sha256(f"xarf {ident} {address} {time}".encode()).hexdigest()[:32]
    return Complaint(key, "xarf", kind, address, port, time, reporter, trusted, (line,))


def _rfc3339(stamp: object) -> int | None:
    try:
        return _utc(datetime.datetime.fromisoformat(str(stamp).upper().replace("Z", "+00:00")))
    except (ValueError, OverflowError):
        return None
