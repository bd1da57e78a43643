"""What a report says of a run, in each of its forms, and what it never says."""

from __future__ import annotations

import datetime
import json as standard_json
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.isp.hardening.plugins.module_utils.policy import read_policy
from ansible_collections.isp.hardening.plugins.module_utils.report import (
    STATES,
    headline,
    html,
    json,
    junit,
    natural,
    policy_summary,
    read,
)
from ansible_collections.isp.hardening.plugins.module_utils.report.summary import summary
from ansible_collections.isp.hardening.plugins.module_utils.report.text import LONGEST_TEXT, clean
from tests.unit import report_samples as samples

FORMS = {
    "summary": lambda report: summary(report, colour=False),
    "json": json.document,
    "junit": junit.document,
    "html": html.document,
}
RUNS = {
    "audit": samples.audit_run, "push": samples.push_run, "empty": samples.run, "signals": samples.signals_run,
}  # fmt: skip

# What a router could send to whoever reads the report.
HOSTILE = (
    "<script>window.pwned = 1</script>",
    "</style><img src=x onerror=alert(1)>",
    "\"'><svg onload=alert(1)>",
    "{{ 7 * 7 }} {% raw %}",
    "]]></failure><failure>",
    "\x1b[2J\x1b]0;owned\x07\x9b31m",
    "permit \u202etcp\u202c any \u2066any\u2069 \u200beq smtp",
    "line one\nline two\r\u2028line three\x00",
    "\ud800 \ufffe \U0001fffe",
)


def document(run: dict[str, Any]) -> dict[str, Any]:
    return dict(standard_json.loads(json.document(read(run))))


def hostile_run() -> dict[str, Any]:
    """Every text of a run is hostile."""
    text = " ".join(HOSTILE)
    host = samples.berlin()
    for finding in host["findings"]:
        finding |= dict.fromkeys(("attachment", "pool", "title", "reason", "packet", "mend", "source"), text)
        finding["evidence"] = [{"line": 1, "text": text}]
    host |= dict.fromkeys(("host", "platform", "address", "message", "backup"), text)
    host |= {"steps": [text], "kept": [text], "diff": f"+{text}\n-{text}", "state": "rolled_back"}
    policy = {
        "profile": text,
        "pools": [{"name": text, "kind": text, "prefixes": [text]}],
        "smarthosts": [{"name": text, "prefixes": [text]}],
        "exceptions": [samples.POLICY["exceptions"][0] | dict.fromkeys(("prefix", "owner", "reason", "until"), text)],
    }
    return samples.run(
        host, policy=policy, started=text, finished=text, version=text, signals=hostile(samples.signals(), text)
    )  # fmt: skip


def hostile(value: Any, text: str) -> Any:
    """The same with this text for every text."""
    if isinstance(value, dict):
        return {key: hostile(one, text) for key, one in value.items()}
    if isinstance(value, list):
        return [hostile(one, text) for one in value]
    return text if isinstance(value, str) else value


def test_the_headline_says_the_worst_first() -> None:
    assert headline(read(samples.audit_run())) == "3 of 5 hosts violate the policy, 1 could not be audited"
    assert headline(read(samples.run(samples.munich(), policy={}))) == "The one host keeps the policy"
    assert headline(read(samples.run(samples.munich()))) == "Every host keeps the policy, but 1 exception has expired"
    assert headline(read(samples.run())) == "No host was in the run"
    quiet = read(samples.run() | {"signals": [{"host": "watch1", "signals": {}}]})
    assert headline(quiet) == "The signals: nobody is suspect"
    frozen = read(samples.run() | {"signals": [{"host": "watch1", "frozen": "the list lists everybody"}]})
    assert headline(frozen) == "Look at the alarms of the signals: nobody is suspect"


def test_a_host_has_the_worst_verdict_and_the_worst_host_comes_first() -> None:
    report = read(samples.push_run())
    assert [(host.name, host.verdict) for host in report.hosts] == [
        ("edge-ham1", "violated"), ("edge-cgn1", "violated"), ("edge-lei1", "not audited"), ("edge-drs1", "unknown"),
        ("edge-ber1", "compliant"), ("edge-muc1", "compliant"),
    ]  # fmt: skip


@pytest.mark.parametrize("state", sorted(STATES))
def test_only_a_host_that_ended_well_is_compliant(state: str) -> None:
    host = read(samples.run(samples.munich() | {"state": state})).hosts[0]
    assert (host.verdict == "compliant") == (state in ("audited", "unchanged", "changed", "configured"))


@pytest.mark.parametrize("form", ["summary", "json", "junit", "html"])
def test_what_was_not_audited_or_not_understood_is_in_every_form(form: str) -> None:
    text = FORMS[form](read(samples.audit_run()))
    assert "edge-fra1" in text
    assert "no answer from 192.0.2.15 port 22" in text
    assert "flexible-match-range" in text
    assert "198.51.100.7/32" in text  # the exception that has ended
    assert "tcp 198.51.100.7:49152" in text


def test_a_result_that_nobody_understands_is_a_failed_host_and_an_unknown_verdict() -> None:
    odd = {"host": "edge-odd1", "state": "fine", "findings": [{"control": "P1", "verdict": "yes", "family": "x"}]}
    told = document(samples.run(odd, {"host": "edge-odd2"}))
    assert [(host["state"], host["verdict"]) for host in told["hosts"]] == [
        ("failed", "not audited"),
        ("failed", "unknown"),
    ]
    assert told["hosts"][1]["findings"][0]["verdict"] == "unknown"


def test_nothing_audited_is_not_clean() -> None:
    assert document(samples.run(samples.munich(), policy={}))["clean"]
    assert not document(samples.run(policy={}))["clean"]


def test_a_message_of_several_lines_is_one() -> None:
    said = "Failed to connect to the host via ssh: Warning: added.\r\nConnection closed by 192.0.2.1"
    host = samples.host("edge-fra1", "linux_nftables", "192.0.2.1", [], state="unreachable", message=said)
    assert document(samples.run(host))["hosts"][0]["message"] == said.replace("\r\n", " ")


def test_one_reason_is_one_cause_with_all_its_packets() -> None:
    berlin = read(samples.audit_run()).hosts[0]
    assert [sorted({finding.control for finding in cause}, key=natural) for cause in berlin.causes] == [
        ["P1", "P4", "P5", "P8"],
        ["P2", "P3", "P4", "P5"],
        ["C3"],
    ]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("run", RUNS)
def test_the_same_run_gives_the_same_bytes_in_whatever_order_it_comes(form: str, run: str) -> None:
    one, other = RUNS[run](), RUNS[run]()
    other["hosts"].reverse()
    other.get("signals", []).reverse()
    for host in other["hosts"]:
        host["findings"].reverse()
    assert FORMS[form](read(one)) == FORMS[form](read(other))


@pytest.mark.parametrize("run", [*RUNS.values(), hostile_run], ids=[*RUNS, "hostile"])
def test_the_json_document_keeps_its_contract(run: Any, root: Path) -> None:
    schema = standard_json.loads((root / "docs" / "report.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(document(run()))


def test_the_schema_refuses_what_it_does_not_know(root: Path) -> None:
    schema = standard_json.loads((root / "docs" / "report.schema.json").read_text(encoding="utf-8"))
    wrong = document(samples.audit_run())
    wrong["hosts"][0]["findings"][0]["verdict"] = "fine"
    with pytest.raises(jsonschema.ValidationError, match="'fine' is not one of"):
        jsonschema.Draft202012Validator(schema).validate(wrong)


def test_the_json_document_holds_every_finding_as_it_was_found() -> None:
    run = samples.audit_run()
    told = document(run)
    found = {host["host"]: host["findings"] for host in run["hosts"]}
    empty = {"attachment": "", "pool": "", "direction": "", "family": 0, "reason": "", "packet": "", "fields": {}}
    empty |= {"evidence": [], "mend": "", "source": ""}
    for host in told["hosts"]:
        here = [empty | finding | {"host": host["name"]} for finding in host["findings"]]
        assert sorted(map(sorted_text, here)) == sorted(map(sorted_text, found[host["name"]]))


def sorted_text(finding: dict[str, Any]) -> str:
    return standard_json.dumps(finding, sort_keys=True)


def test_junit_counts_as_a_ci_server_does() -> None:
    report = read(samples.audit_run())
    suites = ElementTree.fromstring(junit.document(report))
    assert [suite.get("name") for suite in suites] == [
        "policy", "edge-ber1", "edge-cgn1", "edge-fra1", "edge-ham1", "edge-muc1",
    ]  # fmt: skip
    for element in (suites, *suites):
        assert int(element.get("tests", "")) == len(element.findall(".//testcase"))
        assert int(element.get("failures", "")) == len(element.findall(".//failure"))
        assert int(element.get("errors", "")) == len(element.findall(".//error"))
    expired = len(report.exceptions_that("expired"))
    assert len(suites.findall(".//failure")) == report.totals["violated"] + expired
    assert len(suites.findall(".//error")) == report.totals["unknown"] + report.host_totals["not audited"]
    assert len(suites.findall("testsuite[@name='edge-fra1']/testcase/error")) == 1


def test_names_of_test_cases_are_unique_and_do_not_depend_on_the_outcome() -> None:
    def names(run: dict[str, Any]) -> list[tuple[str | None, str | None]]:
        cases = ElementTree.fromstring(junit.document(read(run))).findall(".//testcase")
        return sorted((case.get("classname"), case.get("name")) for case in cases)

    wrong = samples.run(samples.cologne())
    right = samples.run(
        samples.cologne()
        | {"findings": [one.as_dict() for one in samples.proved("edge-cgn1", {"ppp*": "residential"})]}
    )
    assert names(wrong) == names(right)
    assert len(names(wrong)) == len(set(names(wrong)))


def test_the_terminal_gets_colours_only_where_it_is_one() -> None:
    report = read(samples.audit_run())
    plain, coloured = summary(report, colour=False), summary(report, colour=True)
    assert "\x1b" not in plain
    assert "\x1b[1;31m" in coloured
    assert "line 214  5 permit ip any any" in plain
    assert "mend  deny it above line 214, or narrow that line" in plain


def test_a_fleet_fits_a_terminal_and_nothing_is_dropped_in_silence() -> None:
    text = summary(read(samples.fleet(400)), colour=False)
    assert "✓ and 360 more hosts that are compliant in all of it" in text
    assert "… and 20 more: the page and the JSON file have every one" in text
    assert len(text.splitlines()) < 500


@pytest.mark.parametrize("form", FORMS)
def test_no_form_shows_a_secret(form: str) -> None:
    run = samples.push_run()
    host = run["hosts"][0]
    host["message"] = "the router rejected 'username admin password 7 0822455D0A16'"
    host["findings"][0] |= {"verdict": "unknown", "reason": "'tacacs-server key hunter2' is not understood"}
    host["findings"][0]["evidence"] = [{"line": 3, "text": "snmp-server community hunter2 RO"}]
    text = FORMS[form](read(run))
    for secret in ("hunter2", "0822455D0A16", "0ldC0mmunity", "n3wC0mmunity", "2MJBozw", "2lFhcKvpghc"):
        assert secret not in text
    if form != "summary":
        assert "hidden" in text


@pytest.mark.parametrize("form", FORMS)
def test_hostile_text_stays_text(form: str) -> None:
    text = FORMS[form](read(hostile_run()))
    turned = "\u202e\u2066\u200b\u2028\ufffe\ud800"
    assert not [
        char for char in text if (ord(char) < 32 and char != "\n") or 0x7F <= ord(char) < 0xA0 or char in turned
    ]
    assert "U+202E" in text
    assert "{{ 7 * 7 }}" in text
    if form == "html":
        assert "<script>window" not in text
        assert "<img src=x" not in text
        assert "<svg onload" not in text
        assert text.count("<script>") == text.count("</script>") == text.count("</style>") == 1
    if form == "junit":
        ElementTree.fromstring(text)


@pytest.mark.parametrize("form", FORMS)
def test_a_line_of_a_megabyte_is_cut_with_a_note(form: str) -> None:
    run = samples.run(samples.hamburg())
    run["hosts"][0]["findings"][0] |= {"verdict": "unknown", "evidence": [{"line": 9, "text": "x" * 1_000_000}]}
    run["hosts"][0]["diff"] = "+" + "y" * 1_000_000
    text = FORMS[form](read(run))
    assert "999,000 more characters" in text
    assert len(text) < 200_000


def test_the_signals_are_in_json_with_what_a_manager_asks_first() -> None:
    told = document(samples.signals_run())["signals"]
    assert told["counts"] == {
        "suspect": 2, "listed": 2, "in quarantine": 1, "black-holed": 1, "told this week": 1,
    }  # fmt: skip
    assert told["alarms"][0] == "surge of new suspects: 30 subscribers more are suspect within 1 hour"
    assert told["alarms"][1].startswith("edge-lnx1: nothing new was done or believed: 2 more beside 99 in force")
    assert [(one["subject"], one["detectors"]) for one in told["suspects"]] == [
        ("2001:db8:100:7::", ["D4"]), ("198.51.100.9", ["D1", "D2"]),
    ]  # fmt: skip
    assert told["lists"][0] == {
        "list": "XBL", "open": 2, "closed": 15, "median_seconds": 9 * 3600, "p90_seconds": 75 * 3600, "relapsed": 2,
        "watched": 12, "led": 5, "lead_seconds": 3 * 3600,
    }  # fmt: skip
    assert [(one["kind"], one["host"], one["until"]) for one in told["actions"]] == [
        ("quarantine", "edge-lnx1", "2026-11-19T10:06:40+00:00"), ("source", "watch1", "2026-11-19T10:06:40+00:00"),
    ]  # fmt: skip
    assert sorted((one["detector"], one["reason"][:13]) for one in told["silences"]) == [
        ("", "198.51.100.77"), ("D3", "the exporters"),
    ]  # fmt: skip
    assert told["refused"] == [
        {"host": "edge-lnx1", "key": "detected:line-6:2", "reason": "one family of evidence; two are needed"}
    ]
    assert [one["state"] for one in told["notices"]] == ["failed", "sent"]


@pytest.mark.parametrize("form", ["summary", "html"])
def test_who_reads_sees_what_is_off_and_what_must_be_looked_at(form: str) -> None:
    text = FORMS[form](read(samples.signals_run()))
    for words in (
        "30 subscribers more are suspect within 1 hour", "more than the cap of 100", "export without sampling",
        "3 days", "ratios of SYN-only flows would lie",
    ):  # fmt: skip
        assert words.lower() in text.lower()
    if form == "summary":
        assert "signals  2 suspect, 2 listed, 1 in quarantine, 1 black-holed, 1 told this week" in text
        assert (
            "XBL: 2 open, 15 over · remediated in 9 h (median), 3 days (p90) · 2 of 12 came again within a week" in text
        )
        assert "own detection was first in 5, by 3 h" in text
        assert "CSS: 0 open, 1 over · remediated in – (median), – (p90)" in text
    else:
        for words in ("not certain", "opened port 25 of 18 servers", "one family of evidence", "450 4.7.1 try again"):
            assert words in text.replace("One family", "one family")


def test_without_signals_no_form_speaks_of_them() -> None:
    run = samples.run(samples.munich())
    assert "signals" not in document(run)
    assert 'id="signals"' not in FORMS["html"](read(run))
    assert "quarantine" not in FORMS["summary"](read(run))


def test_a_dry_run_of_the_signals_says_what_it_would_do() -> None:
    dry = {"host": "edge-lnx1", "dry_run": True, "frozen": "", "added": [{"key": "a"}, {"key": "b"}], "refused": []}
    run = samples.run(samples.munich(), signals=[dry])
    assert (document(run)["signals"]["dry_run"], document(run)["signals"]["planned"]) == (True, 2)
    assert "dry run: 2 more would be held" in FORMS["summary"](read(run))
    assert "2 more would be held, nothing was done" in FORMS["html"](read(run))


def test_results_of_signals_that_nobody_understands_are_no_page_that_fails() -> None:
    odd = [
        {"host": None, "signals": {"suspects": [{"score": "x", "time": "yesterday"}, 7], "lists": [{}], "actions": ""}},
        {"host": "x", "signals": 3, "refused": [None], "silences": {"a": 1}, "surge": [1]},
        {"host": "x", "failed": True, "msg": "no way"},
        {"host": "x", "signals": {"listings": [{"began": 10**30}], "problems": "no list"}},
    ]  # fmt: skip
    told = document(samples.run(samples.munich(), signals=odd))["signals"]
    assert told["alarms"] == ["x: no way"]
    assert told["suspects"] == [{"subject": "", "detectors": [], "time": "", "score": 0.0, "evidence": []}]


def test_ten_thousand_suspects_are_counted_and_not_all_shown() -> None:
    many = [{"subject": f"198.51.{one // 256}.{one % 256}", "time": one + 1} for one in range(10_000)]
    run = samples.run(samples.munich(), signals=[{"host": "watch1", "signals": {"suspects": many}}])
    told = document(run)["signals"]
    assert (told["counts"]["suspect"], len(told["suspects"]), told["more"]) == (10_000, 500, {"suspects": 9_500})
    assert "And 9,500 more." in FORMS["html"](read(run))


@given(st.text())
def test_a_clean_text_is_one_bounded_line_that_xml_can_hold(text: str) -> None:
    result = clean(text)
    assert result.splitlines() in ([], [result])
    assert len(result) <= 12 * LONGEST_TEXT
    ElementTree.fromstring(junit.document(read(samples.run(samples.munich() | {"host": text, "message": text}))))


def test_a_policy_becomes_what_the_report_says_of_it() -> None:
    exceptions = [
        {"prefix": "198.51.100.7/32", "owner": "a", "reason": "own MX", "until": until}
        for until in ("2026-11-22", "2026-11-23", "2026-12-23", "2026-12-24")
    ]
    for number, one in enumerate(exceptions):
        one["prefix"] = f"198.51.100.{number}/32"
    policy, problems = read_policy(
        {
            "pools": {"residential": {"kind": "dynamic", "ipv4": ["198.51.100.0/25"], "ipv6": ["2001:db8:100::/40"]}},
            "smarthosts": [{"name": "out1", "ipv4": ["192.0.2.25"]}],
            "exceptions": exceptions,
        },
        datetime.date(2026, 11, 23),
    )
    assert policy is not None, problems
    told = policy_summary(policy, datetime.date(2026, 11, 23))
    assert [(one["until"], one["status"]) for one in told["exceptions"]] == [
        ("2026-11-22", "expired"), ("2026-11-23", "ends soon"), ("2026-12-23", "ends soon"), ("2026-12-24", "in force"),
    ]  # fmt: skip
    report = read(samples.run(policy=told))
    assert report.pools[0].prefixes == ("198.51.100.0/25", "2001:db8:100::/40")


def test_a_thousand_hosts_take_seconds_and_a_page_that_a_browser_can_hold() -> None:
    run = samples.fleet(1000)
    begin = time.process_time()
    report = read(run)
    sizes = {form: len(make(report)) for form, make in FORMS.items()}
    assert time.process_time() - begin < 20
    assert sizes["html"] < 12_000_000
    assert sizes["summary"] < 40_000
