#!/usr/bin/python
# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# ruff: noqa: E402  # Ansible wants the documentation above the imports
"""Tell customers, desks and ticket systems about infected subscribers, and read what others complain of."""

from __future__ import annotations

DOCUMENTATION = r"""
module: abuse_report
short_description: Tell of infected subscribers, and read complaints about them
description:
  - Tells of each case by each channel once. C(customer) is a mail to the customer, from a template that says what was
    seen and what to do. C(arf) (RFC 5965) and C(xarf) (version 4) are mail to a desk. C(webhook) posts JSON.
  - A notice is claimed in O(state) before it is sent, so that runs at the same time send it once. What failed is tried
    again by the next run. A customer is told by one channel once in 24 hours, whatever the cases; a second one waits.
  - ARF reports one message, so that it takes a case with a C(message). XARF is C(connection/infected_host), or
    C(messaging/spam) for a case with C(smtp_from) and C(port).
  - Mail goes over SMTP submission, its TLS verified. A webhook gets C(X-Signature), the HMAC-SHA256 of the body under
    its secret as C(sha256=) and hexadecimal digits.
  - A dry run, which it is unless told otherwise, shows what would be sent and touches nothing.
  - O(incoming) are ARF, XARF and feedback-loop mail from others. What is whole and about abuse is a complaint. It
    counts where the own mail server vouches (DKIM, RFC 8601) for a reporter on the list. With O(identity), those of the
    last 24 hours become cases, under the subscriber who had the address then, with what the same subscriber has now.
  - Needs Jinja where C(customer) is among the channels, else Python's standard library alone.
extends_documentation_fragment: isp.hardening.identity
version_added: 1.0.0
author:
  - isp.hardening contributors
requirements:
  - jinja2, for the mail to the customer
attributes:
  check_mode:
    description: Is a dry run.
    support: full
  diff_mode:
    description: There is nothing to compare; RV(notices) has the texts.
    support: none
options:
  cases:
    description:
      - The cases, as the detectors hand them over. Each may also have C(mail), the customer's address; C(address) and
        C(port) as seen from outside, the shared ones behind a CGN; and of a message that was complained about
        C(message), all of it or its header, C(smtp_from), its envelope sender, and C(feedback_type), which is C(abuse),
        C(fraud) or C(virus).
    type: list
    elements: dict
    default: []
  customers:
    description: The mail addresses of customers by subscriber, for cases without C(mail).
    type: dict
    default: {}
  channels:
    description: How to tell; each channel once.
    type: list
    elements: dict
    default: []
    suboptions:
      channel:
        description: The channel.
        type: str
        choices: [customer, arf, xarf, webhook]
        required: true
      to:
        description: The mail address of the desk, for C(arf) and C(xarf).
        type: str
        default: ""
      url:
        description: Where to post to, for C(webhook). HTTPS, or HTTP to the host itself.
        type: str
        default: ""
      secret:
        description: What the body is signed with, for C(webhook).
        type: str
        default: ""
      ca:
        description: A file of certificates that are trusted instead of the system's, for C(webhook).
        type: path
  organization:
    description: Who reports, as people know it.
    type: str
    default: ""
  contact:
    description: The mail address of the own abuse desk, which the mails come from.
    type: str
    default: ""
  link:
    description: The page where a customer helps himself, which quarantine leaves open.
    type: str
    default: ""
  subject:
    description: The subject of the mail to the customer; a text of this collection when it is not given.
    type: str
  template:
    description:
      - The mail to the customer as a Jinja template; a text of this collection when it is not given.
      - It knows C(subscriber), C(addresses), C(since), C(key), C(sources), C(evidence), C(link), C(contact) and
        C(organization), and the filters C(wrap) and C(item), which break lines.
    type: str
  smtp:
    description: The submission host.
    type: dict
    suboptions:
      host:
        description: Its name, which its certificate is held against.
        type: str
        required: true
      port:
        description: Its port.
        type: int
        default: 587
      security:
        description: STARTTLS, TLS at once, or none, which is for the host itself only.
        type: str
        choices: [starttls, tls, none]
        default: starttls
      user:
        description: The login; none where the host takes mail without.
        type: str
        default: ""
      password:
        description: Its password.
        type: str
        default: ""
      ca:
        description: A file of certificates that are trusted instead of the system's.
        type: path
  state:
    description: Where the signals keep their state, as in C(isp_signals.state).
    type: str
    default: /var/lib/isp-hardening/signals.db
  dry_run:
    description: Whether to tell only what would be sent.
    type: bool
    default: true
  incoming:
    description: Where complaints of others are.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: A Maildir, an mbox, a directory of mails and XARF files, or one such file.
        type: path
        required: true
      authserv_id:
        description: The name that the own mail server writes into C(Authentication-Results).
        type: str
        default: ""
      reporters:
        description: The domains whose complaints count, with what is under them.
        type: list
        elements: str
        default: []
"""

EXAMPLES = r"""
- name: Tell the customers and the ticket system
  isp.hardening.abuse_report:
    cases: "{{ signals_cases }}"
    customers: {alice@example.net: alice@example.org}
    organization: Example Net
    contact: abuse@example.net
    link: https://help.example.net/infected
    channels:
      - channel: customer
      - {channel: webhook, url: "https://tickets.example.net/abuse", secret: "{{ ticket_secret }}"}
    smtp: {host: mail.example.net, user: abuse, password: "{{ abuse_password }}"}
    dry_run: false

- name: What others complain of
  isp.hardening.abuse_report:
    incoming:
      - path: /var/mail/abuse/Maildir
        authserv_id: mx1.example.net
        reporters: [feedback.example.org]
    identity: {radius: ["/var/log/freeradius/radacct/*/detail-*"]}
  register: complaints
"""

RETURN = r"""
notices:
  description:
    - What became of each notice, with C(key), C(subscriber), C(channel), C(recipient), C(state) and C(reason), and the
      C(text) that was or would be sent.
    - C(state) is C(sent), C(failed), C(sent already), C(waits), C(cannot be sent), or C(would be sent) in a dry run.
  returned: always
  type: list
  elements: dict
complaints:
  description: The complaints, each with C(address), C(port), C(time), C(kind), C(reporter), C(trusted), C(evidence).
  returned: always
  type: list
  elements: dict
cases:
  description: The cases that trusted complaints make with O(identity).
  returned: always
  type: list
  elements: dict
told:
  description: What was read and is no complaint, or does not count, each with C(reason) and C(mend).
  returned: always
  type: list
  elements: dict
dry_run:
  description: Whether nothing was sent.
  returned: always
  type: bool
"""

import time
from dataclasses import asdict
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from ansible_collections.isp.hardening.plugins.module_utils.signals import abuse, abuse_send
from ansible_collections.isp.hardening.plugins.module_utils.signals.abuse_incoming import (
    Complaint,
    cases,
    read_reports,
)
from ansible_collections.isp.hardening.plugins.module_utils.signals.limits import read_case
from ansible_collections.isp.hardening.plugins.module_utils.signals.owners import IDENTITY, sources_of
from ansible_collections.isp.hardening.plugins.module_utils.signals.records import Case, Silence
from ansible_collections.isp.hardening.plugins.module_utils.signals.store import StoreError

# The host may have no YAML library to read the DOCUMENTATION with; a test holds the two against each other.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "cases": {"type": "list", "elements": "dict", "default": []},
    "customers": {"type": "dict", "default": {}},
    "channels": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "channel": {"type": "str", "choices": ["customer", "arf", "xarf", "webhook"], "required": True},
            "to": {"type": "str", "default": ""},
            "url": {"type": "str", "default": "", "no_log": True},
            "secret": {"type": "str", "default": "", "no_log": True},
            "ca": {"type": "path"},
        },
    },
    "organization": {"type": "str", "default": ""},
    "contact": {"type": "str", "default": ""},
    "link": {"type": "str", "default": ""},
    "subject": {"type": "str"},
    "template": {"type": "str"},
    "smtp": {
        "type": "dict",
        "options": {
            "host": {"type": "str", "required": True},
            "port": {"type": "int", "default": 587},
            "security": {"type": "str", "choices": ["starttls", "tls", "none"], "default": "starttls"},
            "user": {"type": "str", "default": ""},
            "password": {"type": "str", "default": "", "no_log": True},
            "ca": {"type": "path"},
        },
    },
    "state": {"type": "str", "default": "/var/lib/isp-hardening/signals.db", "no_log": True},
    "dry_run": {"type": "bool", "default": True},
    "incoming": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "path": {"type": "path", "required": True},
            "authserv_id": {"type": "str", "default": ""},
            "reporters": {"type": "list", "elements": "str", "default": []},
        },
    },
    "identity": IDENTITY,
}
_MORE = ("mail", "address", "port", "message", "smtp_from", "feedback_type")


def main() -> None:
    """Read, tell, say what became of it."""
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True)
    options = module.params
    dry_run = options["dry_run"] or module.check_mode
    now = int(time.time() * 1000)
    outcomes: list[abuse_send.Outcome] = []
    try:
        complaints, made, told = hear(options, now)
        if options["cases"]:
            outcomes = tell(options, now, dry_run)
    except ImportError:
        module.fail_json(msg=missing_required_lib("jinja2"))
    except (ValueError, abuse.AbuseError, StoreError) as error:
        module.fail_json(msg=f"{error}. Nothing more was sent.")
    for outcome in outcomes:
        if outcome.state in (abuse_send.FAILED, abuse_send.IMPOSSIBLE):
            module.warn(f"{outcome.key}, {outcome.channel}: {outcome.state}: {outcome.reason}")
    module.exit_json(
        changed=any(
            outcome.state == (abuse_send.SENT if options["dry_run"] or not dry_run else abuse_send.WOULD)
            for outcome in outcomes
        ),
        notices=[asdict(outcome) for outcome in outcomes],
        complaints=[asdict(complaint) for complaint in complaints],
        cases=[case.as_dict() for case in made],
        told=[asdict(silence) for silence in told],
        dry_run=dry_run,
    )


def hear(options: dict[str, Any], now: int) -> tuple[list[Complaint], list[Case], list[Silence]]:
    """The complaints, the cases that they make, and what is none. Raises ValueError for an identity that is none."""
    complaints: list[Complaint] = []
    told: list[Silence] = []
    for one in options["incoming"]:
        found, silences = read_reports(one["path"], one["authserv_id"], one["reporters"])
        complaints += found
        told += silences
    if not complaints or not any(options["identity"].values()):
        return complaints, [], told
    sources = sources_of(options["identity"])
    made, nobody = cases(complaints, sources, now)
    return complaints, made, [*told, *sources.told, *nobody]


def tell(options: dict[str, Any], now: int, dry_run: bool) -> list[abuse_send.Outcome]:
    """Send the notices. Raises ValueError or AbuseError for options that make no sense, before anything is sent."""
    if not options["channels"]:
        raise ValueError("there are cases and no channels; say how to tell")
    names = [one["channel"] for one in options["channels"]]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"channels: {twice[0]} stands twice, and each case is told once by each; keep one of them")
    abuse.mail_domain(options["contact"])
    if not options["organization"] or not options["link"].startswith("https://"):
        raise ValueError("'organization' is empty, or 'link' is no https:// address")
    desk = abuse.Desk(options["organization"], options["contact"], options["link"])
    smtp = options["smtp"]
    submission = abuse_send.Submission(**{**smtp, "ca": smtp["ca"] or ""}) if smtp else None
    words = abuse_send.Words(options["subject"] or abuse.SUBJECT, options["template"] or abuse.TEMPLATE)
    return abuse_send.notify(
        [notice_of(one, options["customers"]) for one in options["cases"]],
        [channel_of(one, submission) for one in options["channels"]],
        desk,
        options["state"],
        now,
        words,
        dry_run,
    )


def notice_of(data: dict[str, Any], customers: dict[str, Any]) -> abuse.Notice:
    """A case with what else is known of it. Raises ValueError."""
    case = read_case({key: value for key, value in data.items() if key not in _MORE})
    more = {key: data[key] for key in _MORE if data.get(key) not in (None, "")}
    for key, value in more.items():
        if not isinstance(value, int if key == "port" else str) or isinstance(value, bool):
            raise ValueError(f"case {case.key!r:.60}: '{key}' is no {'number' if key == 'port' else 'text'}")
    return abuse.Notice(case, **{"mail": str(customers.get(case.subscriber, "")), **more})


def channel_of(data: dict[str, Any], submission: abuse_send.Submission | None) -> abuse_send.Channel:
    """A channel. Raises AbuseError where something that it needs is not there."""
    name = data["channel"]
    if name == abuse.WEBHOOK:
        return abuse_send.Channel(name, webhook=abuse_send.Webhook(data["url"], data["secret"], data["ca"] or ""))
    if name != abuse.CUSTOMER:
        abuse.mail_domain(data["to"])
    if not submission:
        raise abuse.AbuseError(f"the channel {name} sends mail; give 'smtp'")
    return abuse_send.Channel(name, data["to"], submission)


if __name__ == "__main__":
    main()
