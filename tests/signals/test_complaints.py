# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Complaints of others: each file of complaints/ is one, or is told, as expected.yml says; garbage is never one."""

from __future__ import annotations

import dataclasses
import datetime
import mailbox
import shutil
import tempfile
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest
from ruamel.yaml import YAML

from ansible_collections.isp.hardening.plugins.module_utils.signals import abuse
from ansible_collections.isp.hardening.plugins.module_utils.signals.abuse_incoming import (
    alarms,
    cases,
    read_reports,
)
from ansible_collections.isp.hardening.plugins.module_utils.signals.identity import owner, read_sources
from ansible_collections.isp.hardening.plugins.module_utils.signals.records import AMBIGUOUS, KNOWN
from tests.signals.test_abuse import DESK, NOW, SPAM

HERE = Path(__file__).parent / "complaints"
EXPECTED: dict[str, dict[str, Any]] = YAML(typ="safe").load((HERE / "expected.yml").read_text())
OURS = "mx1.example.net"
REPORTERS = ("feedback.example.org",)


def ms(text: str) -> int:
    return round(datetime.datetime.fromisoformat(text).timestamp() * 1000)


def test_every_file_has_its_expectation() -> None:
    assert {path.name for path in HERE.iterdir()} == {*EXPECTED, "expected.yml"}


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_file_is_the_complaint_that_it_is_or_is_told(name: str) -> None:
    expected = EXPECTED[name]
    found, told = read_reports(str(HERE / name), OURS, REPORTERS)
    reasons = " ".join(f"{silence.reason} {silence.mend}" for silence in told)
    assert expected.get("told", "") in reasons
    assert bool(told) is ("told" in expected)
    if "address" not in expected:
        assert found == []
        return
    (complaint,) = found
    for key in ("form", "kind", "address", "trusted"):
        assert getattr(complaint, key) == expected[key], complaint
    assert (complaint.port, complaint.time) == (expected.get("port"), ms(expected["time"]))
    assert expected.get("reporter", complaint.reporter) == complaint.reporter
    assert expected["address"] in complaint.evidence[0]
    assert expected.get("evidence", complaint.evidence[-1]) == complaint.evidence[-1]
    assert [alarm.subject for alarm in alarms(found)] == [expected["address"]] * expected["trusted"]


@pytest.mark.parametrize(
    ("results", "trusted"),
    [
        ("dkim=pass header.d=feedback.example.org", True),
        ('dkim=pass header.i="@feedback.example.org" (a (nested) comment)', True),
        ('spf=pass smtp.mailfrom="; dkim=pass header.d=feedback.example.org "@example.com', False),
        ('spf=pass smtp.mailfrom="\\"; dkim=pass header.d=feedback.example.org "@example.com', False),
        ('spf=pass (mx: "a) ; dkim=pass header.d=feedback.example.org; x=("@example.com) smtp.helo=x', False),
        ("spf=pass (a (b) ; dkim=pass header.d=feedback.example.org ) smtp.helo=x", False),
        ("spf=pass smtp.mailfrom==?utf-8?q?=3Bdkim=3Dpass=20header.d=3Dfeedback.example.org?=@example.com", False),
        pytest.param(f"{'(' * 50_000}{')' * 50_000}; dkim=pass header.d=feedback.example.org", False, id="deep"),
        pytest.param(r"\"" * 50_000 + "; dkim=pass header.d=feedback.example.org", False, id="quotes"),
        pytest.param('x="a; dkim=pass header.d=feedback.example.org', False, id="open"),
    ],
)
def test_what_a_stranger_chose_is_no_result_of_our_server(results: str, trusted: bool, tmp_path: Path) -> None:
    lines = (HERE / "arf.eml").read_text().splitlines(keepends=True)
    rest = "".join(line for line in lines if not line.startswith("Authentication-Results:"))
    (tmp_path / "one.eml").write_text(f"Authentication-Results: {OURS}; {results}\n{rest}")
    ((complaint,), _) = read_reports(str(tmp_path / "one.eml"), OURS, REPORTERS)
    assert complaint.trusted is trusted


def test_what_a_mail_server_delivered_is_no_file_that_somebody_looked_at(tmp_path: Path) -> None:
    for part in ("cur", "new"):
        (tmp_path / part).mkdir()
    shutil.copy(HERE / "xarf4.json", tmp_path / "new" / "1")
    assert read_reports(str(tmp_path), OURS, REPORTERS)[0] == []


def test_a_maildir_an_mbox_and_a_directory_say_the_same(tmp_path: Path) -> None:
    names = [name for name in EXPECTED if name.endswith(".eml") and name != "empty.eml"]
    maildir = mailbox.Maildir(str(tmp_path / "maildir"))
    mbox = mailbox.mbox(str(tmp_path / "mbox"))
    (tmp_path / "files").mkdir()
    for name in names:
        text = (HERE / name).read_bytes()
        maildir.add(text)
        mbox.add(text)
        shutil.copy(HERE / name, tmp_path / "files" / name)
    mbox.close()

    def said(path: str) -> list[tuple[str, str]]:
        return sorted((one.key, one.address) for one in read_reports(str(tmp_path / path), OURS, REPORTERS)[0])

    wanted = sorted(
        (one.key, one.address) for name in names for one in read_reports(str(HERE / name), OURS, REPORTERS)[0]
    )
    assert said("files") == said("maildir") == said("mbox") == wanted
    assert len(wanted) > 10


def test_the_same_report_read_twice_is_one_signal() -> None:
    found = read_reports(str(HERE / "arf.eml"), OURS, REPORTERS)[0]
    assert len(alarms([*found, *found])) == 1
    assert alarms(found)[0].detector == "complaint"


def test_what_we_report_ourselves_is_read_as_it_was_meant(tmp_path: Path) -> None:
    """Arrival-Date is when it was seen first; nobody vouches for it here."""
    for name, message in (
        ("arf", abuse.arf(SPAM, DESK, "a@example.org", NOW)),
        ("xarf", abuse.xarf_mail(SPAM, DESK, "a@example.org", NOW)),
    ):
        (tmp_path / f"{name}.eml").write_bytes(message.as_bytes())
        ((complaint,), _) = read_reports(str(tmp_path / f"{name}.eml"))
        assert (complaint.form, complaint.address, complaint.port) == (name, "203.0.113.7", 40000)
        assert (complaint.time, complaint.reporter, complaint.trusted) == (SPAM.case.since, "example.net", False)


def test_a_complaint_leads_to_the_subscriber_behind_a_cgn_by_its_port(tmp_path: Path) -> None:
    (tmp_path / "blocks.csv").write_text(
        "time,event,address,first_port,last_port,inside,subscriber\n"
        "2026-11-26T09:00:00Z,allocate,203.0.113.7,39936,40447,100.64.0.7,alice@example.net\n"
    )
    sources = read_sources({"cgn": [str(tmp_path / "blocks.csv")]})
    ((complaint,), _) = read_reports(str(HERE / "xarf4.json"))
    found = owner(sources, complaint.address, complaint.time, complaint.port)
    assert (found.state, found.subscriber) == (KNOWN, "alice@example.net")
    ((without,), _) = read_reports(str(HERE / "loop.eml"))
    assert owner(sources, without.address, without.time, without.port).state == AMBIGUOUS


def test_trusted_complaints_of_a_day_are_cases_with_what_the_subscriber_has_now(tmp_path: Path) -> None:
    """alice had the address at ten and has another one at noon; at noon bob has hers."""
    rows = (
        "acctsessionid,username,nasipaddress,acctstarttime,acctstoptime,framedipaddress\n"
        "1,alice@example.net,192.0.2.1,2026-11-26 08:00:00+00,2026-11-26 11:00:00+00,203.0.113.7\n"
        "2,alice@example.net,192.0.2.1,2026-11-26 11:10:00+00,,203.0.113.8\n"
        "3,bob@example.net,192.0.2.1,2026-11-26 11:10:00+00,,203.0.113.7\n"
    )
    (tmp_path / "radacct.csv").write_text(rows)
    sources = read_sources({"radacct": [str(tmp_path / "radacct.csv")]})
    noon = ms("2026-11-26T12:00:00Z")
    found = [
        one
        for name in ("arf.eml", "arf_headers_only.eml", "xarf4.json", "arf_nobody_vouches.eml", "arf_v6_virus.eml")
        for one in read_reports(str(HERE / name), OURS, REPORTERS)[0]
    ]
    (case,), told = cases([*found, *found], sources, noon)
    assert (case.subscriber, case.prefixes, case.sources) == ("alice@example.net", ("203.0.113.8/32",), ("complaint",))
    assert case.key == f"complaint:alice@example.net:{ms('2026-11-26T10:00:00Z')}"
    assert len(case.evidence) == 3  # two files are one report
    assert ["nobody's for certain" in silence.reason for silence in told] == [True]  # the IPv6 address
    assert cases(found, sources, noon + 25 * 3_600_000)[0] == []  # dealt with
    assert cases([dataclasses.replace(one, trusted=False) for one in found], sources, noon) == ([], [])


def test_a_path_that_is_not_there_and_a_file_too_deep_or_too_large_are_told(tmp_path: Path) -> None:
    deep = tmp_path / "deep"
    deep.mkdir()
    (deep / "deep.json").write_text('{"a":' * 20_000 + "1" + "}" * 20_000)
    head, foot = "", ""
    for level in range(300):
        head += f'Content-Type: multipart/mixed; boundary="b{level}"\n\n--b{level}\n'
        foot = f"\n--b{level}--\n{foot}"
    (deep / "deep.eml").write_text(f"From: a@example.org\n{head}Content-Type: text/plain\n\nx{foot}")
    with (deep / "large.eml").open("wb") as stream:
        stream.truncate(21 * 2**20)
    for path in (tmp_path / "absent", deep):
        found, told = read_reports(str(path), OURS, REPORTERS)
        assert found == []
        assert len(told) == (3 if path == deep else 1)


_SEEDS = [(HERE / name).read_bytes() for name in sorted(EXPECTED) if EXPECTED[name].get("address")]


@hypothesis.settings(max_examples=120)
@hypothesis.given(st.data())
def test_garbage_never_raises_and_never_becomes_another_address(data: st.DataObject) -> None:
    """A report with octets changed, cut or doubled is told, or still names what it named."""
    octets = bytearray(data.draw(st.sampled_from(_SEEDS)))
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(octets) - 1))
        much = data.draw(st.integers(0, 40))
        what = data.draw(st.sampled_from(["change", "cut", "double", "end"]))
        if what == "change":
            octets[place : place + 1] = data.draw(st.binary(min_size=1, max_size=3))
        elif what == "cut":
            del octets[place : place + much]
        elif what == "double":
            octets[place:place] = octets[place : place + much]
        else:
            del octets[max(1, place) :]
        octets = octets or bytearray(b"x")
    with tempfile.NamedTemporaryFile(suffix=".eml") as file:
        file.write(octets)
        file.flush()
        found = read_reports(file.name, OURS, REPORTERS)[0]
    for complaint in found:
        assert complaint.evidence
        if b"base64" not in octets and ":" not in complaint.address:
            assert complaint.address.encode() in octets


def test_reports_of_others_are_read(sample_data: Path) -> None:
    """All of ../shared/data/abuse: feedback reports that are whole, and told ones."""
    folder = sample_data / "abuse"
    found, told = read_reports(str(folder / "sisimai-set-of-emails" / "maildir" / "bsd"), OURS, ("example.org",))
    assert {(one.kind, one.address, one.trusted) for one in found} >= {
        ("abuse", "192.0.2.222", False),
        ("abuse", "192.0.2.1", False),
        ("abuse", "198.51.100.224", False),
        ("abuse", "10.0.0.1", False),
    }
    reasons = " ".join(one.reason for one in told)
    for part in (
        "arf-12.eml: a feedback report of type 'opt-out'",
        "arf-14.eml: a feedback report without one Source-IP",
        "arf-19.eml: a feedback report of type 'auth-failure'",
        "arf-22.eml: the subject and the Received field name different addresses",
        "arf-26.eml: is mail without a report",
    ):
        assert part in reasons, part
    failures, told = read_reports(str(folder / "parsedmarc-samples" / "samples" / "failure"))
    assert (failures, len(told)) == ([], 3)
    version3 = read_reports(str(folder / "xarf-spec-v4" / "samples" / "v3"))[0]
    assert {(one.kind, one.address, one.port) for one in version3} == {
        ("network/ddos", "172.16.254.10", 53),
        ("messaging/spam", "192.168.1.100", 25),
    }
    version4 = read_reports(str(folder / "xarf-spec-v4" / "samples" / "v4"))[0]
    assert ("connection/infected_host", "203.0.113.85", 443) in {(one.kind, one.address, one.port) for one in version4}
    assert not any(one.kind.startswith(("copyright/", "content/", "vulnerability/")) for one in version4)
    assert dataclasses.asdict(version4[0])["trusted"] is True
