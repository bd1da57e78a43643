# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is told about an infected subscriber: to him by mail, to desks as ARF or XARF, to a ticket system as JSON.

ARF is RFC 5965 (with Source-Port of RFC 6692), used as RFC 6650 says; it is about one message, and there is none
without. XARF is version 4.2.0 of xarf-spec: `connection/infected_host`, or `messaging/spam` where the envelope of a
message is known. What a customer has to be told is RFC 6561 5 and 6 [memory]. Nothing here sends.
"""

from __future__ import annotations

import base64
import datetime
import email.message
import email.mime.multipart
import email.mime.nonmultipart
import email.parser
import email.policy
import email.utils
import hashlib
import ipaddress
import json
import re
import textwrap
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .records import Case

CUSTOMER, ARF, XARF, WEBHOOK = "customer", "arf", "xarf", "webhook"
FEEDBACK_TYPES = ("abuse", "fraud", "virus")  # of RFC 5965 7.3, those that are about what a subscriber sent
XARF_VERSION = "4.2.0"
AGENT = "isp.hardening/1.0"

_WIDTH = 72
_MOST_LINES = 50  # of evidence in one report; XARF admits 50 items and 5 MiB each
# RFC 5322 3.4.1, dot-atom on both sides; what has to be quoted is nobody's abuse desk.
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_ADDRESS = re.compile(rf"{_ATOM}(?:\.{_ATOM})*@((?!-)[A-Za-z0-9-]{{1,63}}(?<!-)(?:\.(?!-)[A-Za-z0-9-]{{1,63}}(?<!-))+)")

SUBJECT = "A device on your line sends unwanted mail or attacks"
TEMPLATE = """\
Dear customer,

{{ "a device on your line is very probably infected with malicious software. It contacts other computers as only such \
software does, mostly without its owner's knowledge." | wrap }}

Your customer number or login: {{ subscriber }}
Seen from:                     {{ addresses | join(", ") }}
Since:                         {{ since }}
Case:                          {{ key }}
{% if evidence %}

What we saw (all times are UTC):

{% for line in evidence %}
{{ line | item }}
{% endfor %}
{% endif %}

What to do:

{{ "Check every computer, phone, television, camera and router that is connected to your line with current anti-virus \
software, install all updates, and change passwords that are still as delivered." | item("1. ") }}
{{ "Sending mail through our mail servers with your password (port 587) and this page work whatever we may have to \
block:" | item("2. ") }}

   {{ link }}

{{ "When all is clean, say so there: a block ends at once." | item("3. ") }}

{{ ("Questions are answered by %s. Please leave the case number in the subject." % contact) | wrap }}

{{ organization }}
"""


class AbuseError(Exception):
    """A notice that cannot be made. The text says what is wrong and what to do."""


@dataclass(frozen=True, slots=True)
class Desk:
    """Who reports, and where a customer helps himself."""

    organization: str
    contact: str  # mail address of the abuse desk
    link: str  # self-service page, reachable from quarantine


@dataclass(frozen=True, slots=True)
class Notice:
    """One case to be told, with what else is known of it."""

    case: Case
    mail: str = ""  # of the customer
    address: str = ""  # as seen from outside; the shared one behind a CGN. The case's first where it is not given
    port: int | None = None  # the source port, without which a shared address says nothing (RFC 6302)
    message: str = ""  # a message that was complained about: all of it, or its header
    smtp_from: str = ""  # its envelope sender
    feedback_type: str = "abuse"

    @property
    def source(self) -> str:
        """The one address that a report is about. Raises AbuseError where none is known."""
        text = self.address or next(iter(self.case.prefixes), "")
        try:
            network = ipaddress.ip_network(text)
        except ValueError:
            raise AbuseError(f"case {self.case.key}: {text!r} is no address; give 'address' or 'prefixes'") from None
        return str(network.network_address) if network.num_addresses == 1 else str(network)


def utc(time: int) -> str:
    """Milliseconds as text to read: 2026-11-26 10:00:00 UTC."""
    return datetime.datetime.fromtimestamp(time / 1000, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def rfc3339(time: int) -> str:
    return datetime.datetime.fromtimestamp(time / 1000, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def clean(text: str) -> str:
    """One line without control characters: what a stranger wrote stays text."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def mail_domain(address: str) -> str:
    """The domain of a mail address. Raises AbuseError for what is none, or needs quotes or SMTPUTF8."""
    match = _ADDRESS.fullmatch(address)
    if not match or len(address) > 254:
        raise AbuseError(f"{address!r:.80} is no mail address; write one as abuse@example.net")
    return match[1].lower()


def evidence(case: Case) -> tuple[str, ...]:
    """The lines that are shown, and how many are not."""
    lines = [clean(line) for line in case.evidence if line.strip()]
    more = len(lines) - _MOST_LINES
    return (*lines[:_MOST_LINES], f"and {more} more") if more > 0 else tuple(lines)


# --- mail ---


def message_id(key: str, channel: str, domain: str) -> str:
    """The same for every attempt at one notice: a mail that was sent twice by mistake is seen to be one."""
    return f"<notice.{hashlib.sha256(f'{channel} {key}'.encode()).hexdigest()[:32]}@{domain}>"


def _head(
    message: email.message.Message, key: str, channel: str, desk: Desk, recipient: str, subject: str, now: int
) -> None:
    """Header fields of RFC 5322 3.6, and of RFC 3834 5 so that nothing answers by itself.

    The addresses are held against _ADDRESS and the subject is one clean line; the policy refuses line breaks besides.
    """
    domain = mail_domain(desk.contact)
    mail_domain(recipient)
    message["From"] = desk.contact
    message["To"] = recipient
    message["Subject"] = clean(subject)[:200]
    message["Date"] = email.utils.format_datetime(datetime.datetime.fromtimestamp(now / 1000, datetime.UTC))
    message["Message-ID"] = message_id(key, channel, domain)
    message["Auto-Submitted"] = "auto-generated"


def customer_mail(
    notice: Notice, desk: Desk, now: int, subject: str = SUBJECT, template: str = TEMPLATE
) -> email.message.EmailMessage:
    """The mail to the customer: plain text from a Jinja template.

    The template knows `subscriber`, `addresses`, `since`, `key`, `sources`, `evidence`, `link`, `contact` and
    `organization`; its filter `wrap` breaks lines, `item` makes a list item. Raises AbuseError for a template that is
    none, or a customer without a mail address.
    """
    case = notice.case
    if not notice.mail:
        raise AbuseError(
            f"case {case.key}: no mail address of {clean(case.subscriber)!r} is known; add it to 'customers'"
        )
    text = render(
        template,
        {
            "subscriber": clean(case.subscriber),
            "addresses": [address.removesuffix("/32").removesuffix("/128") for address in case.prefixes],
            "since": utc(case.since),
            "key": clean(case.key),
            "sources": [clean(source) for source in case.sources],
            "evidence": list(evidence(case)),
            "link": desk.link,
            "contact": desk.contact,
            "organization": clean(desk.organization),
        },
    )
    message = email.message.EmailMessage(policy=email.policy.SMTP)
    _head(message, case.key, CUSTOMER, desk, notice.mail, subject, now)
    _fill(message, text)
    return message


def _fill(part: email.message.EmailMessage, text: str, kind: str = "plain") -> None:
    """Lines that every server takes (RFC 5321 4.5.3.1.6: 998 octets), in ASCII."""
    short = text.isascii() and all(len(line) < 990 for line in text.splitlines())
    part.set_content(text, subtype=kind, cte="7bit" if short else "quoted-printable")


def render(template: str, variables: Mapping[str, Any]) -> str:
    """A template as text. Raises AbuseError with the line that is wrong; ImportError where there is no Jinja."""
    import jinja2
    import jinja2.sandbox

    environment = jinja2.sandbox.SandboxedEnvironment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters["wrap"] = lambda text: textwrap.fill(text, _WIDTH)
    environment.filters["item"] = _item
    try:
        return environment.from_string(template).render(variables)
    except jinja2.TemplateSyntaxError as error:
        raise AbuseError(f"the template, line {error.lineno}: {error.message}") from None
    except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError) as error:
        raise AbuseError(f"the template: {error}; it knows {', '.join(sorted(variables))}") from None


def _item(text: str, mark: str = "- ") -> str:
    return textwrap.fill(text, _WIDTH, initial_indent=mark, subsequent_indent=" " * len(mark), break_on_hyphens=False)


# --- ARF ---


def arf(notice: Notice, desk: Desk, recipient: str, now: int) -> email.message.Message:
    """The message that was complained about, as a feedback report (RFC 5965 2 and 3).

    Of the message only its header goes along (text/rfc822-headers): a filter on the way would take the report for the
    spam that it reports. Raises AbuseError for a case without a message.
    """
    case = notice.case
    if notice.feedback_type not in FEEDBACK_TYPES:
        raise AbuseError(f"case {case.key}: the feedback type is one of {', '.join(FEEDBACK_TYPES)}")
    header = header_of(notice.message)
    if not header:
        raise AbuseError(f"case {case.key}: ARF reports a message (RFC 5965 2), and this case has none; use xarf")
    original = email.parser.HeaderParser(policy=email.policy.compat32).parsestr(header)
    report = email.mime.multipart.MIMEMultipart("report", policy=email.policy.SMTP, report_type="feedback-report")
    subject = clean(str(original.get("Subject", ""))) or f"message from {notice.source}"
    _head(report, case.key, ARF, desk, recipient, f"FW: {subject}", now)
    lines = [
        f"This is a report of {clean(desk.organization)} about a message from {notice.source}.",
        f"Seen first: {utc(case.since)}. Case: {clean(case.key)}.",
        "",
        *(_item(line) for line in evidence(case)),
    ]
    report.attach(_text("\n".join(lines) + "\n"))
    fields = {
        "Feedback-Type": notice.feedback_type,
        "User-Agent": AGENT,
        "Version": "1",
        "Original-Mail-From": f"<{notice.smtp_from}>" if notice.smtp_from and mail_domain(notice.smtp_from) else "",
        "Arrival-Date": email.utils.format_datetime(datetime.datetime.fromtimestamp(case.since / 1000, datetime.UTC)),
        "Source-IP": notice.source if "/" not in notice.source else "",
        "Source-Port": str(notice.port or ""),
        "Reporting-MTA": f"dns; {mail_domain(desk.contact)}",
    }
    feedback = email.mime.nonmultipart.MIMENonMultipart("message", "feedback-report", policy=email.policy.SMTP)
    feedback.set_payload("".join(f"{name}: {value}\r\n" for name, value in fields.items() if value))
    report.attach(feedback)
    report.attach(_text(header, "rfc822-headers"))
    return report


def _text(text: str, kind: str = "plain") -> email.message.EmailMessage:
    part = email.message.EmailMessage(policy=email.policy.SMTP)
    _fill(part, text, kind)
    return part


def header_of(message: str) -> str:
    """The header of a message, up to its empty line; "" for what does not begin with one."""
    header = message.replace("\r\n", "\n").lstrip("\n").partition("\n\n")[0]
    return header.rstrip("\n") + "\n" if re.match(r"[!-9;-~]+:", header) else ""


# --- XARF ---


def xarf(notice: Notice, desk: Desk) -> dict[str, Any]:
    """The case as XARF 4.2.0, checked. Raises AbuseError for a case that makes none."""
    case = notice.case
    who = {"org": clean(desk.organization)[:200], "contact": desk.contact, "domain": mail_domain(desk.contact)}
    shown = evidence(case)
    report: dict[str, Any] = {
        "xarf_version": XARF_VERSION,
        # A UUID of version 4 is asked for. Its bits come from the case, so that a report sent twice is one.
        "report_id": str(uuid.UUID(bytes=hashlib.sha256(f"xarf {case.key}".encode()).digest()[:16], version=4)),
        "timestamp": rfc3339(case.since),
        "reporter": who,
        "sender": who,
        "source_identifier": notice.source,
        "evidence_source": "traffic_analysis",
        "description": clean(f"Case {case.key}: {', '.join(case.sources)}")[:1000],
    }
    if notice.port:
        report["source_port"] = notice.port
    if shown:
        payload = "\n".join(shown).encode()
        report["evidence"] = [
            {
                "content_type": "text/plain",
                "description": "What was seen; times are UTC",
                "payload": base64.b64encode(payload).decode(),
                "hash": f"sha256:{hashlib.sha256(payload).hexdigest()}",
                "size": len(payload),
            }
        ]
    if notice.smtp_from and notice.port:
        mail_domain(notice.smtp_from)
        report |= {"category": "messaging", "type": "spam", "protocol": "smtp", "smtp_from": notice.smtp_from}
    else:
        report |= {
            "category": "connection",
            "type": "infected_host",
            "protocol": "tcp",
            "bot_type": "malicious",
            "first_seen": rfc3339(case.since),
        }
    problems = xarf_problems(report)
    if problems:
        raise AbuseError(f"case {case.key}: no XARF report can be made of it: {'; '.join(problems)}")
    return report


# The categories of xarf-v4-master.json, each with its types.
XARF_TYPES: Mapping[str, tuple[str, ...]] = {
    "messaging": ("spam", "bulk_messaging"),
    "connection": (
        "login_attack", "port_scan", "ddos", "infected_host", "reconnaissance", "scraping", "sql_injection",
        "vulnerability_scan",
    ),
    "vulnerability": ("cve", "open_service", "misconfiguration"),
    "reputation": ("blocklist", "threat_intelligence"),
    "infrastructure": ("botnet", "compromised_server"),
    "content": (
        "phishing", "malware", "csam", "csem", "exposed_data", "brand_infringement", "fraud", "remote_compromise",
        "suspicious_registration",
    ),
    "copyright": ("copyright", "p2p", "cyberlocker", "ugc_platform", "link_site", "usenet"),
}  # fmt: skip
_TEXTS = ("xarf_version", "report_id", "timestamp", "source_identifier", "category", "type")
_CONTACT = {"org", "contact", "domain"}
_DATE = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)")
_EVIDENCE = {"content_type", "payload", "description", "hash", "size"}


def xarf_problems(report: object) -> list[str]:
    """What is wrong with a report of version 4, by its core schema and those of our own two types; [] if nothing is.

    The rules are those of xarf-core.json, connection-infected-host.json and messaging-spam.json of xarf-spec.
    """
    if not isinstance(report, Mapping):
        return ["is no JSON object"]
    found = [f"'{name}' is missing, or no text" for name in _TEXTS if not isinstance(report.get(name), str)]
    if found:
        return found
    if not re.fullmatch(r"4\.[0-9]+\.[0-9]+", report["xarf_version"]):
        found.append("'xarf_version' is not 4.x.y")
    try:
        uuid.UUID(report["report_id"])
    except ValueError:
        found.append("'report_id' is no UUID")
    if not _dated(report["timestamp"]):
        found.append("'timestamp' is no date and time with a zone (RFC 3339)")
    if report["type"] not in XARF_TYPES.get(report["category"], ()):
        found.append(f"{report['category']!r:.40}/{report['type']!r:.40} is no category and type of the standard")
    for name in ("reporter", "sender"):
        found += _contact_problems(name, report.get(name))
    port = report.get("source_port", 1)
    if not isinstance(port, int) or isinstance(port, bool) or not 1 <= port <= 65535:
        found.append("'source_port' is no port")
    found += _evidence_problems(report.get("evidence", []))
    if (report["category"], report["type"]) == ("connection", "infected_host"):
        if report.get("protocol") not in ("tcp", "udp"):
            found.append("'protocol' is neither tcp nor udp")
        found += [
            f"'{name}' is missing" for name in ("bot_type", "first_seen") if not isinstance(report.get(name), str)
        ]
    if (report["category"], report["type"]) == ("messaging", "spam"):
        if not isinstance(report.get("protocol"), str):
            found.append("'protocol' is missing")
        elif report["protocol"] == "smtp":
            found += [f"'{name}' is missing" for name in ("smtp_from", "source_port") if name not in report]
    return found


def _dated(text: object) -> bool:
    try:
        return isinstance(text, str) and bool(_DATE.fullmatch(text) and datetime.datetime.fromisoformat(text.upper()))
    except ValueError:
        return False


def _contact_problems(name: str, contact: object) -> list[str]:
    if not isinstance(contact, Mapping) or not all(isinstance(contact.get(key), str) for key in _CONTACT):
        return [f"'{name}' has not {', '.join(sorted(_CONTACT))}"]
    if set(contact) - _CONTACT or len(contact["org"]) > 200 or "@" not in contact["contact"]:
        return [f"'{name}' is not as the standard has it"]
    return []


def _evidence_problems(items: object) -> list[str]:
    if not isinstance(items, list) or len(items) > 50:
        return ["'evidence' is no list of at most 50"]
    for item in items:
        if not isinstance(item, Mapping) or set(item) - _EVIDENCE or not isinstance(item.get("content_type"), str):
            return ["'evidence' is not as the standard has it"]
        try:
            payload = base64.b64decode(str(item.get("payload", "!")), validate=True)
        except ValueError:
            return ["'evidence' is not in base64"]
        if len(payload) > 5 * 2**20:
            return ["'evidence' has more than 5 MiB in one item"]
    return []


def xarf_mail(notice: Notice, desk: Desk, recipient: str, now: int) -> email.message.EmailMessage:
    """XARF for a desk that reads mail: a text for people, and the report as xarf.json."""
    report = xarf(notice, desk)
    case = notice.case
    message = email.message.EmailMessage(policy=email.policy.SMTP)
    kind = f"{report['category']}/{report['type']}"
    _head(message, case.key, XARF, desk, recipient, f"XARF {kind}: {report['source_identifier']}", now)
    lines = [f"{kind} from {report['source_identifier']} since {utc(case.since)}. The report is attached (XARF 4).", ""]
    _fill(message, "\n".join([*lines, *(_item(line) for line in evidence(case))]) + "\n")
    message.add_attachment(
        json.dumps(report, indent=2).encode(), maintype="application", subtype="json", filename="xarf.json"
    )
    return message


def webhook_body(notice: Notice, desk: Desk, now: int) -> bytes:
    """What a ticket system gets: the case, and the same as XARF. The same bytes for the same notice and time."""
    data = {"time": rfc3339(now), "case": notice.case.as_dict(), "xarf": xarf(notice, desk)}
    return json.dumps(data, sort_keys=True).encode()
