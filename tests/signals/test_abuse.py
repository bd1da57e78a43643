# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Notices: what they say, that each goes out once, and over real servers on loopback."""

from __future__ import annotations

import dataclasses
import email
import email.policy
import hashlib
import hmac
import itertools
import json
import threading
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import referencing

from ansible_collections.isp.hardening.plugins.doc_fragments.identity import ModuleDocFragment as Identity
from ansible_collections.isp.hardening.plugins.module_utils.documentation import argument_spec
from ansible_collections.isp.hardening.plugins.module_utils.signals import abuse, abuse_send
from ansible_collections.isp.hardening.plugins.module_utils.signals.abuse import AbuseError, Desk, Notice
from ansible_collections.isp.hardening.plugins.module_utils.signals.abuse_send import (
    Channel,
    Submission,
    Webhook,
    Words,
)
from ansible_collections.isp.hardening.plugins.module_utils.signals.records import Case
from ansible_collections.isp.hardening.plugins.module_utils.signals.store import open_store
from ansible_collections.isp.hardening.plugins.modules import abuse_report
from tests.signals import servers

NOW = 1_795_690_800_000  # 2026-11-26 11:00 UTC
HOUR = 3_600_000
DESK = Desk("Example Net", "abuse@example.net", "https://help.example.net/infected")
CASE = Case(
    key="alice/2026-11-26",
    subscriber="alice@example.net",
    prefixes=("203.0.113.7/32", "2001:db8:1::/64"),
    sources=("D2", "XBL"),
    since=NOW - HOUR,
    evidence=(
        "2026-11-26 10:00:00 UTC: 203.0.113.7 spoke to 18 mail servers, 17 of them without sending mail",
        "2026-11-26 10:05:00 UTC: 203.0.113.7 is listed on XBL (127.0.0.4)",
    ),
)
NOTICE = Notice(CASE, mail="alice@example.org")
MESSAGE = "Received: from a (b [203.0.113.7])\r\n\tby c\r\nSubject: Buy\r\n\tnow\r\nFrom: x@example.org\r\n\r\nbody\r\n"
SPAM = dataclasses.replace(NOTICE, message=MESSAGE, smtp_from="x@example.org", port=40000)


# --- XARF ---


def xarf_validator(data: Path) -> jsonschema.Draft202012Validator:
    """The schemas of xarf-spec. The two that are not among the sample data are stood in for by what they demand."""
    top = data / "abuse" / "xarf-spec-v4" / "schemas" / "v4"
    base = "https://xarf.org/schemas/v4/"
    texts = {path.relative_to(top).as_posix(): json.loads(path.read_text()) for path in top.rglob("*.json")}
    contact = {
        "type": "object",
        "required": ["org", "contact", "domain"],
        "properties": {
            "org": {"type": "string", "maxLength": 200},
            "contact": {"type": "string", "format": "email"},
            "domain": {"type": "string", "format": "hostname"},
        },
        "additionalProperties": False,
    }
    texts.setdefault(
        "xarf-core.json",
        {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$id": f"{base}xarf-core.json",
            "type": "object",
            "required": [
                "xarf_version", "report_id", "timestamp", "reporter", "sender", "source_identifier", "category", "type",
            ],
            "properties": {
                "xarf_version": {"type": "string", "pattern": "^4\\.[0-9]+\\.[0-9]+$"},
                "report_id": {"type": "string", "format": "uuid"},
                "timestamp": {"type": "string", "format": "date-time"},
                "reporter": contact,
                "sender": contact,
                "source_identifier": {"type": "string"},
                "source_port": {"type": "integer", "minimum": 1, "maximum": 65535},
                "description": {"type": "string", "maxLength": 1000},
                "evidence": {
                    "type": "array",
                    "maxItems": 50,
                    "items": {
                        "type": "object",
                        "required": ["content_type", "payload"],
                        "properties": {
                            "content_type": {"type": "string"},
                            "description": {"type": "string", "maxLength": 500},
                            "payload": {"type": "string"},
                            "hash": {"type": "string", "pattern": "^(md5|sha1|sha256|sha512):[a-fA-F0-9]+$"},
                            "size": {"type": "integer", "minimum": 0, "maximum": 5242880},
                        },
                        "additionalProperties": False,
                    },
                },
            },
        },
    )  # fmt: skip
    texts.setdefault(
        "types/messaging-spam.json",
        {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$id": f"{base}types/messaging-spam.json",
            "allOf": [{"$ref": "../xarf-core.json"}],
            "required": ["protocol"],
            "if": {"properties": {"protocol": {"const": "smtp"}}},
            "then": {"required": ["smtp_from", "source_port"]},
        },
    )
    resources = [(base + name, referencing.Resource.from_contents(text)) for name, text in texts.items()]
    registry: referencing.Registry[Any] = referencing.Registry().with_resources(resources)
    return jsonschema.Draft202012Validator(
        {"$ref": f"{base}xarf-v4-master.json"}, registry=registry, format_checker=jsonschema.FormatChecker()
    )


def test_xarf_validates_against_the_schemas_of_the_standard(sample_data: Path) -> None:
    validator = xarf_validator(sample_data)
    host, spam = abuse.xarf(NOTICE, DESK), abuse.xarf(SPAM, DESK)
    behind = abuse.xarf(dataclasses.replace(NOTICE, address="198.51.100.1", port=1100), DESK)
    for report in (host, spam, behind):
        validator.validate(report)
        assert abuse.xarf_problems(report) == []
    assert (host["category"], host["type"], host["source_identifier"]) == ("connection", "infected_host", "203.0.113.7")
    assert (spam["category"], spam["type"], spam["source_port"]) == ("messaging", "spam", 40000)
    assert (behind["source_identifier"], behind["source_port"]) == ("198.51.100.1", 1100)
    broken = {key: value for key, value in host.items() if key != "first_seen"}
    assert not validator.is_valid(broken)


def test_the_samples_of_the_standard_pass_our_check_and_broken_ones_do_not(sample_data: Path) -> None:
    samples = sorted((sample_data / "abuse" / "xarf-spec-v4" / "samples" / "v4").glob("*.json"))
    assert len(samples) > 20
    for path in samples:
        assert abuse.xarf_problems(json.loads(path.read_text())) == [], path.name


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"xarf_version": "3.0.0"}, "'xarf_version'"),
        ({"report_id": "7"}, "'report_id'"),
        ({"timestamp": "2026-11-26 10:00"}, "'timestamp'"),
        ({"timestamp": "2026-13-26T10:00:00Z"}, "'timestamp'"),
        ({"source_identifier": None}, "'source_identifier'"),
        ({"type": "zombie"}, "no category and type"),
        ({"reporter": {"org": "x"}}, "'reporter'"),
        ({"sender": {"org": "x", "contact": "nobody", "domain": "example.net"}}, "'sender'"),
        ({"source_port": 70000}, "'source_port'"),
        ({"source_port": True}, "'source_port'"),
        ({"protocol": "icmp"}, "'protocol'"),
        ({"first_seen": None}, "'first_seen'"),
        ({"evidence": [{"content_type": "text/plain", "payload": "?"}]}, "base64"),
        ({"evidence": {}}, "'evidence'"),
    ],
)
def test_a_report_that_is_not_as_the_standard_has_it_is_seen(change: dict[str, Any], problem: str) -> None:
    assert problem in "; ".join(abuse.xarf_problems(abuse.xarf(NOTICE, DESK) | change))


def test_a_report_sent_twice_is_one() -> None:
    assert abuse.xarf(NOTICE, DESK)["report_id"] == abuse.xarf(NOTICE, DESK)["report_id"]
    other = dataclasses.replace(NOTICE, case=dataclasses.replace(CASE, key="another"))
    assert abuse.xarf(other, DESK)["report_id"] != abuse.xarf(NOTICE, DESK)["report_id"]


# --- mail ---


def test_the_mail_to_the_customer_says_what_was_seen_and_what_to_do() -> None:
    message = abuse.customer_mail(NOTICE, DESK, NOW)
    text = message.get_content()
    assert message.get_content_type() == "text/plain"
    for part in (
        "alice@example.net",
        "203.0.113.7, 2001:db8:1::/64",
        "2026-11-26 10:00:00 UTC",
        "17 of\n  them without sending mail",
        "https://help.example.net/infected",
        "abuse@example.net",
        "Example Net",
    ):
        assert part in text, part
    assert max(map(len, text.splitlines())) <= 78
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Message-ID"] == abuse.customer_mail(NOTICE, DESK, NOW + HOUR)["Message-ID"]
    assert message["Message-ID"] != abuse.message_id(CASE.key, abuse.XARF, "example.net")


def test_a_template_of_ones_own_and_its_mistakes() -> None:
    message = abuse.customer_mail(NOTICE, DESK, NOW, "Störung", "Grüße, {{ subscriber }}: {{ sources | join(', ') }}\n")
    again = email.message_from_bytes(message.as_bytes(), policy=email.policy.default)
    assert (again["Subject"], again.get_content().strip()) == ("Störung", "Grüße, alice@example.net: D2, XBL")
    for template, reason in (
        ("a\n{% if %}", "line 2"),
        ("{{ nobody }}", "it knows addresses, contact"),
        ("{{ subscriber.__class__.__mro__ }}", "the template"),
        ("{{ 1 / 0 }}", "the template"),
    ):
        with pytest.raises(AbuseError, match=reason):
            abuse.customer_mail(NOTICE, DESK, NOW, template=template)


@pytest.mark.parametrize("address", ["alice", "alice@localhost", "a@b@example.net", "a b@example.net", "a@-x.net", ""])
def test_what_is_no_mail_address_gets_no_mail(address: str) -> None:
    with pytest.raises(AbuseError):
        abuse.customer_mail(dataclasses.replace(NOTICE, mail=address), DESK, NOW)


HOSTILE = "x\r\nBcc: everyone@example.org\r\n\r\nHello"


def test_nothing_that_a_stranger_wrote_gets_into_a_header() -> None:
    case = dataclasses.replace(
        CASE, key=HOSTILE, subscriber=HOSTILE, evidence=(HOSTILE, "\x1b[31mred\x00"), sources=(HOSTILE,)
    )
    notice = Notice(case, mail="alice@example.org", message=f"Subject: {HOSTILE}\n\nbody")
    desk = Desk(HOSTILE, "abuse@example.net", DESK.link)
    for message in (
        abuse.customer_mail(notice, desk, NOW, subject=HOSTILE),
        abuse.arf(notice, desk, "desk@example.org", NOW),
        abuse.xarf_mail(notice, desk, "desk@example.org", NOW),
    ):
        octets = message.as_bytes(policy=email.policy.SMTP)
        again = email.message_from_bytes(octets, policy=email.policy.default)
        assert "Bcc" not in again
        assert len(again.get_all("To")) == 1
        assert b"\x1b" not in octets
    with pytest.raises(AbuseError):
        abuse.customer_mail(dataclasses.replace(NOTICE, mail="a@example.org\r\nBcc: b@example.org"), DESK, NOW)


def test_arf_is_a_feedback_report_about_a_message() -> None:
    octets = abuse.arf(SPAM, DESK, "desk@example.org", NOW).as_bytes(policy=email.policy.SMTP)
    message = email.message_from_bytes(octets, policy=email.policy.default)
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "feedback-report"
    assert message["Subject"] == "FW: Buy now"
    human, feedback, original = message.iter_parts()
    assert human.get_content_type() == "text/plain"
    assert feedback.get_content_type() == "message/feedback-report"
    fields = feedback.get_payload(0)
    assert (fields["Feedback-Type"], fields["Version"]) == ("abuse", "1")
    assert fields["User-Agent"].startswith("isp.hardening/")
    assert (fields["Source-IP"], fields["Source-Port"]) == ("203.0.113.7", "40000")
    assert fields["Original-Mail-From"] == "<x@example.org>"
    assert fields["Arrival-Date"] == "Thu, 26 Nov 2026 10:00:00 +0000"
    assert original.get_content_type() == "text/rfc822-headers"
    assert "Subject: Buy" in original.get_content()
    assert "body" not in original.get_content()


def test_arf_without_a_message_is_refused() -> None:
    with pytest.raises(AbuseError, match="use xarf"):
        abuse.arf(NOTICE, DESK, "desk@example.org", NOW)
    with pytest.raises(AbuseError, match="feedback type"):
        abuse.arf(dataclasses.replace(SPAM, feedback_type="not-spam"), DESK, "desk@example.org", NOW)


# --- sending ---


def send(
    channels: list[Channel], state: Path, now: int = NOW, notices: tuple[Notice, ...] = (NOTICE,), dry_run: bool = False
) -> list[abuse_send.Outcome]:
    return abuse_send.notify(notices, channels, DESK, str(state), now, Words(), dry_run)


def customer(box: servers.Mailbox) -> Channel:
    return Channel(abuse.CUSTOMER, submission=Submission("127.0.0.1", box.port, "none"))


def test_duplicates_within_24_hours_are_sent_once(tmp_path: Path) -> None:
    state = tmp_path / "signals.db"
    with servers.submission() as box:
        assert [one.state for one in send([customer(box)], state, notices=(NOTICE, NOTICE))] == ["sent", "sent already"]
        (again,) = send([customer(box)], state, NOW + 23 * HOUR)
        assert (again.state, again.reason) == ("sent already", "on 2026-11-26 11:00:00 UTC")
        other = dataclasses.replace(NOTICE, case=dataclasses.replace(CASE, key="alice/another"))
        (second,) = send([customer(box)], state, NOW + 23 * HOUR, (other,))
        assert (second.state, len(box.mails)) == ("waits", 1)
        (later,) = send([customer(box)], state, NOW + 25 * HOUR, (other,))
        assert (later.state, len(box.mails)) == ("sent", 2)
        # The first episode was told of, and is not told of again.
        assert [one.state for one in send([customer(box)], state, NOW + 50 * HOUR)] == ["sent already"]
        assert len(box.mails) == 2
    sender, recipient, octets = box.mails[0]
    assert (sender, recipient) == ("abuse@example.net", "alice@example.org")
    assert email.message_from_bytes(octets)["Message-ID"] == abuse.message_id(CASE.key, abuse.CUSTOMER, "example.net")


def test_cases_of_nobody_known_do_not_wait_for_each_other(tmp_path: Path) -> None:
    notices = tuple(
        dataclasses.replace(NOTICE, case=dataclasses.replace(CASE, key=key, subscriber="")) for key in ("a", "b")
    )
    with servers.submission() as box:
        assert [one.state for one in send([customer(box)], tmp_path / "signals.db", notices=notices)] == ["sent"] * 2


def test_each_channel_is_told_by_itself(tmp_path: Path) -> None:
    with servers.submission() as box:
        way = Submission("127.0.0.1", box.port, "none")
        channels = [
            Channel(abuse.CUSTOMER, submission=way),
            Channel(abuse.XARF, "desk@example.org", way),
            Channel(abuse.ARF, "desk@example.org", way),
        ]
        found = send(channels, tmp_path / "signals.db", notices=(SPAM,))
        assert [one.state for one in found] == ["sent"] * 3
        assert [recipient for _, recipient, _ in box.mails] == [
            "alice@example.org",
            "desk@example.org",
            "desk@example.org",
        ]
        (impossible,) = send([channels[2]], tmp_path / "other.db")
        assert (impossible.state, len(box.mails)) == ("cannot be sent", 3)
    attached = [part for part in email.message_from_bytes(box.mails[1][2]).walk() if part.get_filename() == "xarf.json"]
    payload = attached[0].get_payload(decode=True)
    assert isinstance(payload, bytes)
    assert abuse.xarf_problems(json.loads(payload)) == []


def test_two_runs_at_once_send_once(tmp_path: Path) -> None:
    states: list[str] = []
    with servers.submission() as box:
        start = threading.Barrier(4)

        def run() -> None:
            start.wait()
            states.extend(one.state for one in send([customer(box)], tmp_path / "signals.db"))

        threads = [threading.Thread(target=run) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(box.mails) == 1
    assert states.count("sent") == 1
    assert set(states) <= {"sent", "waits", "sent already"}


def test_a_mail_that_was_taken_is_sent_whatever_the_goodbye(tmp_path: Path) -> None:
    with servers.submission() as box:
        box.farewell = "421 4.3.2 shutting down"
        assert [send([customer(box)], tmp_path / "signals.db")[0].state for _ in range(2)] == ["sent", "sent already"]
        assert len(box.mails) == 1


def test_claims_of_a_long_run_are_as_old_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(0, 1000)
    monkeypatch.setattr(abuse_send, "time", types.SimpleNamespace(monotonic=lambda: next(clock)))
    state = tmp_path / "signals.db"
    bob = dataclasses.replace(NOTICE, case=dataclasses.replace(CASE, key="bob", subscriber="bob"))
    with servers.submission() as box:
        send([customer(box)], state, notices=(NOTICE, bob))
    with open_store(str(state), abuse_send.SCHEMA) as store:
        assert store.rows("SELECT since FROM notice ORDER BY since") == [(NOW + 1_000_000,), (NOW + 2_000_000,)]


def test_what_failed_is_told_and_tried_again(tmp_path: Path) -> None:
    state = tmp_path / "signals.db"
    with servers.submission() as box:
        box.refused = "alice@example.org"
        (failed,) = send([customer(box)], state)
        assert failed.state == "failed"
        assert "alice@example.org is refused: 550 5.1.1 nobody of that name" in failed.reason
        assert failed.reason.endswith("the next run tries again")
        box.refused, box.broken = "", True
        (failed,) = send([customer(box)], state)
        assert failed.state == "failed"
        box.broken = False
        assert [one.state for one in send([customer(box)], state)] == ["sent"]
        assert len(box.mails) == 1
    (gone,) = send([customer(box)], tmp_path / "other.db")
    assert gone.state == "failed"
    assert "refused" in gone.reason


def test_a_run_that_died_in_the_middle_is_made_up_for(tmp_path: Path) -> None:
    state = tmp_path / "signals.db"
    with open_store(str(state), abuse_send.SCHEMA) as store:
        assert abuse_send.claim(store, CASE.key, CASE.subscriber, abuse.CUSTOMER, NOW) == ("", "")
    with servers.submission() as box:
        (waits,) = send([customer(box)], state, NOW + 60_000)
        assert (waits.state, waits.reason) == ("waits", "another run is sending it")
        assert [one.state for one in send([customer(box)], state, NOW + HOUR)] == ["sent"]


def test_a_dry_run_shows_what_would_be_sent_and_touches_nothing(tmp_path: Path) -> None:
    state = tmp_path / "signals.db"
    with servers.submission() as box:
        (would,) = send([customer(box)], state, dry_run=True)
        assert (would.state, would.recipient, box.mails) == ("would be sent", "alice@example.org", [])
        assert "Dear customer" in would.text
        assert not state.exists()
        send([customer(box)], state)
        assert [one.state for one in send([customer(box)], state, dry_run=True)] == ["sent already"]


def test_tls_is_verified_and_a_login_is_never_shown(tmp_path: Path) -> None:
    pair = servers.certificate(tmp_path)
    with servers.submission(pair) as box:
        trusted = Submission("localhost", box.port, user="abuse", password="right", ca=str(pair[0]))
        (sent,) = send([Channel(abuse.CUSTOMER, submission=trusted)], tmp_path / "1.db")
        assert (sent.state, box.logins) == ("sent", ["/abuse/right"])
        (strange,) = send([Channel(abuse.CUSTOMER, submission=dataclasses.replace(trusted, ca=""))], tmp_path / "2.db")
        assert strange.state == "failed"
        assert "CERTIFICATE_VERIFY_FAILED" in strange.reason
        wrong = dataclasses.replace(trusted, password="wrong-password")
        (refused,) = send([Channel(abuse.CUSTOMER, submission=wrong)], tmp_path / "3.db")
        assert "the login is refused (535)" in refused.reason
        assert "wrong-password" not in f"{refused}{wrong}"
        strange_letter = dataclasses.replace(trusted, password="geheim\u00df")
        (refused,) = send([Channel(abuse.CUSTOMER, submission=strange_letter)], tmp_path / "5.db")
        assert "in ASCII" in refused.reason
        assert "xdf" not in refused.reason
        box.offers_tls = False
        (plain,) = send([Channel(abuse.CUSTOMER, submission=trusted)], tmp_path / "4.db")
        assert plain.state == "failed"
        assert len(box.mails) == 1
    with pytest.raises(AbuseError, match="without TLS only"):
        Submission("mail.example.net", 25, "none")


def test_a_webhook_gets_signed_json(tmp_path: Path) -> None:
    secret = "correct horse"
    with servers.web() as desk:
        hook = Webhook(f"http://127.0.0.1:{desk.port}/tickets/s3cret-path", secret)
        way = Channel(abuse.WEBHOOK, webhook=hook)
        (sent,) = send([way], tmp_path / "signals.db")
        assert sent.state == "sent"
        ((path, head, body),) = desk.posts
        assert path == "/tickets/s3cret-path"
        assert head["x-signature"] == "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        data = json.loads(body)
        assert data["case"]["subscriber"] == "alice@example.net"
        assert abuse.xarf_problems(data["xarf"]) == []
        assert [one.state for one in send([way], tmp_path / "signals.db")] == ["sent already"]
        desk.status = 503
        (failed,) = send([way], tmp_path / "2.db")
        assert failed.reason.startswith("webhook at 127.0.0.1: HTTP 503")
        desk.status, desk.location = 302, f"http://127.0.0.1:{desk.port}/elsewhere"
        (moved,) = send([way], tmp_path / "3.db")
        assert (moved.state, len(desk.posts)) == ("failed", 3)
    shown = f"{sent}{failed}{moved}{hook}{way}"
    assert secret not in shown
    assert "s3cret-path" not in shown


def test_a_webhook_over_tls_is_verified(tmp_path: Path) -> None:
    pair = servers.certificate(tmp_path)
    with servers.web(pair) as desk:
        hook = Webhook(f"https://localhost:{desk.port}/", "secret", str(pair[0]))
        assert [one.state for one in send([Channel(abuse.WEBHOOK, webhook=hook)], tmp_path / "1.db")] == ["sent"]
        (failed,) = send([Channel(abuse.WEBHOOK, webhook=dataclasses.replace(hook, ca=""))], tmp_path / "2.db")
        assert "CERTIFICATE_VERIFY_FAILED" in failed.reason


@pytest.mark.parametrize(
    ("url", "secret"),
    [("http://tickets.example.net/", "s"), ("ftp://127.0.0.1/", "s"), ("https://[x/", "s"), ("https://a/", "")],
)
def test_a_webhook_that_anyone_could_read_or_forge_is_refused(url: str, secret: str) -> None:
    with pytest.raises(AbuseError):
        Webhook(url, secret)


# --- the module ---


def test_the_spec_of_the_module_is_its_documentation() -> None:
    def told(options: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: {key: value for key, value in option.items() if key not in ("no_log", "options")}
            | ({"options": told(option["options"])} if "options" in option else {})
            for name, option in options.items()
        }

    assert argument_spec(abuse_report.DOCUMENTATION, Identity.DOCUMENTATION) == told(abuse_report.ARGUMENTS)


def options(**more: Any) -> dict[str, Any]:
    """The options of the module with their defaults."""
    found = {name: option.get("default") for name, option in abuse_report.ARGUMENTS.items()}
    smtp = {"host": "127.0.0.1", "port": 25, "security": "none", "user": "", "password": "", "ca": None}
    case = {**CASE.as_dict(), "address": "198.51.100.1", "port": 1100}
    return {
        **found,
        "cases": [case],
        "customers": {"alice@example.net": "alice@example.org"},
        "channels": [{"channel": "customer", "to": "", "url": "", "secret": "", "ca": None}],
        "organization": "Example Net",
        "contact": "abuse@example.net",
        "link": DESK.link,
        "smtp": smtp,
        **more,
    }


def test_the_module_hands_over_what_it_is_given(tmp_path: Path) -> None:
    (would,) = abuse_report.tell(options(state=str(tmp_path / "signals.db")), NOW, dry_run=True)
    assert (would.state, would.recipient) == ("would be sent", "alice@example.org")
    notice = abuse_report.notice_of(options()["cases"][0], {})
    assert (notice.source, notice.port, notice.mail) == ("198.51.100.1", 1100, "")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"channels": []}, "no channels"),
        ({"channels": [{"channel": "xarf"}, {"channel": "xarf"}]}, "xarf stands twice"),
        ({"contact": "abuse"}, "no mail address"),
        ({"link": "http://help.example.net"}, "no https"),
        ({"organization": ""}, "'organization' is empty"),
        ({"smtp": None}, "give 'smtp'"),
        ({"cases": [{"key": "x"}]}, "'subscriber' is no text"),
        ({"cases": [{**CASE.as_dict(), "port": "25"}]}, "'port' is no number"),
        ({"channels": [{"channel": "xarf", "to": "", "url": "", "secret": "", "ca": None}]}, "no mail address"),
    ],
)
def test_options_that_make_no_sense_send_nothing(change: dict[str, Any], reason: str) -> None:
    with pytest.raises((ValueError, AbuseError), match=reason):
        abuse_report.tell(options(**change), NOW, dry_run=False)
