# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A run of the detectors, from files to cases: what the module says, keeps and refuses."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.isp.hardening.plugins.doc_fragments.identity import ModuleDocFragment as Identity
from ansible_collections.isp.hardening.plugins.module_utils.documentation import argument_spec
from ansible_collections.isp.hardening.plugins.module_utils.signals import identity, identity_tenures, suspects
from ansible_collections.isp.hardening.plugins.module_utils.signals.detection import BadDetection, read_settings, run
from ansible_collections.isp.hardening.plugins.module_utils.signals.detectors import DETECTORS
from ansible_collections.isp.hardening.plugins.module_utils.signals.limits import DAY, FAMILIES
from ansible_collections.isp.hardening.plugins.module_utils.signals.records import Alarm, Case
from ansible_collections.isp.hardening.plugins.module_utils.signals.store import open_store
from ansible_collections.isp.hardening.plugins.module_utils.signals.suspects import Suspect
from ansible_collections.isp.hardening.plugins.modules import spam_suspects
from tests.signals.flows import BEGIN, HOUR, Exporter, write_nfcapd
from tests.signals.test_detectors import SYN, flows

LOGS = Path(__file__).parent / "logs"
MINUTE = 60_000
NOW = BEGIN + HOUR
POLICY = {
    "pools": {
        "residential": {"kind": "dynamic", "prefixes": ["198.18.0.0/15", "2001:db8::/33"]},
        "offices": {"kind": "business", "prefixes": ["203.0.113.0/24"]},
    },
    "never": [{"prefix": "192.0.2.0/24", "reason": "own servers"}],
    "smarthosts": ["192.0.2.25/32"],
}
ALICE = {"static": {"198.18.0.1/32": "alice@example.net", "2001:db8:0:7::/64": "alice@example.net"}}


def look(now: int = NOW, changes: bool = True, **options: Any) -> dict[str, Any]:
    given = {name: option.get("default") for name, option in spam_suspects.ARGUMENTS.items()} | {"policy": POLICY}
    return run(read_settings(given | options, now), changes)


def bots(hosts: tuple[str, ...] = ("198.18.0.1",), begin: int = 0, count: int = 20, port: int = 25) -> list[Any]:
    return [
        (begin + number * 1000, host, f"240.0.{port % 256}.{number}", port, SYN, 1, 60)
        for host in hosts
        for number in range(1, count + 1)
    ]


@pytest.fixture
def flow_file(tmp_path: Path) -> Path:
    """One bot on IPv4 and one on IPv6."""
    path = tmp_path / "flows" / "nfcapd.202601010000"
    path.parent.mkdir()
    write_nfcapd(path, [flows(bots(("198.18.0.1", "2001:db8:0:7::5")))], (Exporter(sampling=1),))
    return path


def test_flows_become_alarms_and_alarms_cases(flow_file: Path) -> None:
    found = look(flow_files=[str(flow_file)], identity=ALICE)
    assert {(one["detector"], one["subject"]) for one in found["alarms"]} == {
        (name, subject) for name in ("D1", "D2", "D3") for subject in ("198.18.0.1", "2001:db8:0:7::")
    }
    assert not found["silences"]
    assert found["flows"] == 40
    (case,) = found["cases"]
    assert case["subscriber"] == "alice@example.net"
    assert set(case["prefixes"]) == {"198.18.0.1/32", "2001:db8:0:7::/64"}
    assert case["sources"] == ("D1", "D2", "D3")
    assert case["since"] == BEGIN + 1000
    assert "2026-01-01 00:00:02 UTC: 198.18.0.1 opened port 25 of 4 servers within 3 seconds" in case["evidence"][0]


def test_a_directory_and_a_pattern_are_the_same_files(flow_file: Path) -> None:
    by_directory = look(flow_files=[str(flow_file.parent)])
    by_pattern = look(flow_files=[str(flow_file.parent / "nfcapd.*")])
    assert by_directory["alarms"] == by_pattern["alarms"] != []


def test_files_that_were_last_written_before_the_window_are_not_even_opened(flow_file: Path) -> None:
    old = flow_file.parent / "nfcapd.202512310000"
    old.write_bytes(b"whatever it is")
    os.utime(old, (BEGIN // 1000 - 86_400, BEGIN // 1000 - 86_400))
    found = look(flow_files=[str(flow_file.parent)], hours=1)
    assert len(found["alarms"]) == 6
    assert not any("nfcapd.202512310000" in one["reason"] for one in found["silences"])
    with pytest.raises(BadDetection, match="all of them are from before 2026-01-01 00:00:00 UTC; does nfcapd run"):
        look(flow_files=[str(old)], hours=1)


def test_without_identity_there_are_alarms_and_no_cases(flow_file: Path) -> None:
    found = look(flow_files=[str(flow_file)])
    assert len(found["alarms"]) == 6
    assert not found["cases"]
    assert found["silences"][0]["reason"] == "6 alarms are no cases: nobody says who had the address"


def test_an_address_that_is_nobodys_for_certain_is_no_case(flow_file: Path) -> None:
    found = look(flow_files=[str(flow_file)], identity={"static": {"198.18.0.2/32": "bob@example.net"}})
    assert not found["cases"]
    assert {one["detector"] for one in found["silences"]} == {"D1", "D2", "D3"}
    assert all("is nobody's for certain (unknown): no record says" in one["reason"] for one in found["silences"])


def test_a_cgn_address_is_never_a_case(flow_file: Path) -> None:
    found = look(flow_files=[str(flow_file)], identity={**ALICE, "cgn_prefixes": ["198.18.0.0/24"]})
    # Alice is a case by her IPv6: nothing is done about the address that she shares.
    assert {prefix for case in found["cases"] for prefix in case["prefixes"] if "." in prefix} == set()
    assert [case["subscriber"] for case in found["cases"]] == ["alice@example.net"]
    assert [one for one in found["silences"] if "198.18.0.1" in one["reason"] and "ambiguous" in one["reason"]]


def sources(*rows: tuple[int, int, str]) -> identity.Sources:
    """Who had 198.18.0.1: (start, end, subscriber)."""
    family, network, length = identity_tenures.read_prefix("198.18.0.1")
    made = [
        identity_tenures.Tenure(family, network, length, start, end, identity_tenures.RADIUS, name)
        for start, end, name in rows
    ]
    return identity.Sources(identity_tenures.index(made))


def suspect(time: int, since: int = 0, detector: str = "D3", subject: str = "198.18.0.1") -> Suspect:
    return Suspect(Alarm(detector, subject, time, 14.0, 10, (f"line of {time}",)), since or time)


def test_evidence_from_before_the_lease_is_nobodys() -> None:
    known = sources((0, 50 * MINUTE, "alice"), (55 * MINUTE, 10 * HOUR, "bob"))
    cases, silences = suspects.cases([suspect(90 * MINUTE, since=40 * MINUTE)], known, 2 * HOUR)
    assert not cases
    assert "alice had it when the evidence begins" in silences[0].reason
    cases, silences = suspects.cases([suspect(90 * MINUTE, since=60 * MINUTE)], known, 2 * HOUR)
    assert [case.subscriber for case in cases] == ["bob"]
    assert not silences


def test_what_somebody_else_has_by_now_is_not_acted_upon() -> None:
    known = sources((0, 3 * HOUR, "alice"), (3 * HOUR, 9 * HOUR, "bob"))
    for now, prefixes in ((2 * HOUR, ("198.18.0.1/32",)), (4 * HOUR, ())):
        ((case,), _silences) = suspects.cases([suspect(90 * MINUTE)], known, now)
        assert (case.subscriber, case.prefixes) == ("alice", prefixes)


def test_a_case_keeps_its_key_for_as_long_as_its_episode_lasts(tmp_path: Path) -> None:
    known = sources((0, 1000 * DAY, "alice"))
    path = str(tmp_path / "signals.db")

    def key(time: int) -> str:
        with open_store(path, suspects.SCHEMA) as store:
            (case,), _silences = suspects.cases([suspect(time)], known, time, store)
        return case.key

    first = key(10 * DAY)
    assert key(10 * DAY) == key(10 * DAY + HOUR) == key(11 * DAY) == first  # each within a day of the one before
    assert key(13 * DAY) != first
    with open_store(path, suspects.SCHEMA) as store:
        assert store.rows("SELECT since, latest FROM suspects ORDER BY since") == [
            (10 * DAY, 11 * DAY),
            (13 * DAY, 13 * DAY),
        ]


def test_the_second_run_tells_the_same_and_keeps_it_once(flow_file: Path, tmp_path: Path) -> None:
    state = str(tmp_path / "state" / "signals.db")
    first = look(flow_files=[str(flow_file)], identity=ALICE, state=state)
    second = look(flow_files=[str(flow_file)], identity=ALICE, state=state)
    assert first == second
    with open_store(state, suspects.SCHEMA) as store:
        assert store.rows("SELECT count(*) FROM alarms") == [(6,)]
        assert store.rows("SELECT subscriber, since FROM suspects") == [("alice@example.net", BEGIN + 1000)]


def test_check_mode_keeps_nothing(flow_file: Path, tmp_path: Path) -> None:
    state = tmp_path / "signals.db"
    found = look(changes=False, flow_files=[str(flow_file)], identity=ALICE, state=str(state))
    assert not state.exists()
    look(flow_files=[str(flow_file)], state=str(state))
    again = look(changes=False, flow_files=[str(flow_file)], identity=ALICE, state=str(state))
    assert found["cases"] == again["cases"] != []
    with open_store(str(state), suspects.SCHEMA) as store:
        assert store.rows("SELECT * FROM suspects") == []


def test_a_worm_of_an_earlier_run_lowers_the_threshold_for_72_hours(tmp_path: Path) -> None:
    state = str(tmp_path / "signals.db")
    scan, mail = tmp_path / "nfcapd.202601010000", tmp_path / "nfcapd.202601020000"
    write_nfcapd(scan, [flows(bots(port=445))], (Exporter(sampling=1),))
    write_nfcapd(mail, [flows(bots(begin=DAY, count=8))], (Exporter(sampling=1),))
    assert [one["detector"] for one in look(flow_files=[str(scan)], state=state)["alarms"]] == ["D4"]
    later = look(NOW + DAY, flow_files=[str(mail)], state=state, hours=1, end="2026-01-02T00:30:00Z")
    assert {one["detector"] for one in later["alarms"]} == {"D1", "D2", "D3"}
    assert {one["detector"] for one in look(NOW + DAY, flow_files=[str(mail)])["alarms"]} == {"D1"}


def test_a_worm_lowers_no_threshold_of_who_has_the_address_next(tmp_path: Path) -> None:
    """8 dead servers are enough for whom the worm was, and not for who got the address in between, or may have."""
    state = str(tmp_path / "signals.db")
    scan, mail = tmp_path / "nfcapd.202601010000", tmp_path / "nfcapd.202601020000"
    write_nfcapd(scan, [flows(bots(port=445))], (Exporter(sampling=1),))
    write_nfcapd(mail, [flows(bots(begin=DAY, count=8))], (Exporter(sampling=1),))
    look(flow_files=[str(scan)], state=state)
    later = {"flow_files": [str(mail)], "state": state, "hours": 1, "end": "2026-01-02T00:30:00Z", "changes": False}
    heading = "address,hwaddr,client_id,valid_lifetime,expire,subnet_id,state\n"
    noon, night = (BEGIN + DAY // 2) // 1000, (BEGIN + 2 * DAY) // 1000
    lease = "198.18.0.1,00:00:5e:00:53:{},,{},{},1,0\n"
    same = lease.format("01", 2 * DAY // 1000, night)
    moved = lease.format("01", DAY // 1000, noon) + lease.format("02", night - noon, night)
    unseen = lease.format("02", night - noon, night)
    for leases, found in ((same, {"D1", "D2", "D3"}), (moved, {"D1"}), (unseen, {"D1"})):
        (tmp_path / "leases").write_text(heading + leases)
        (case,) = look(NOW + DAY, identity={"kea": [str(tmp_path / "leases")]}, **later)["cases"]
        assert set(case["sources"]) == found


def test_a_surge_of_new_alarms_is_d7() -> None:
    many = [suspect(10 * DAY + number * MINUTE, subject=f"198.18.1.{number}").alarm for number in range(6)]
    found = suspects.surge(many, (), DETECTORS["D7"])
    assert found is not None
    assert (found.detector, found.subject, found.contacts) == ("D7", suspects.NETWORK, 5)
    assert "4 subscribers more are suspect within 3 minutes" in found.evidence[0]
    # Who was suspect the day before is not new.
    known = [(alarm.subject, alarm.time - HOUR) for alarm in many[:4]]
    assert suspects.surge(many, known, DETECTORS["D7"]) is None
    # An alarm an hour is no surge.
    calm = [suspect(10 * DAY + number * HOUR, subject=f"198.18.1.{number}").alarm for number in range(48)]
    assert suspects.surge(calm, (), DETECTORS["D7"]) is None
    cases, silences = suspects.cases([Suspect(found, found.time)], sources(), found.time)
    assert not cases
    assert not silences


def test_cases_of_one_subscriber_become_one(flow_file: Path) -> None:
    listed = Case("x1", "alice@example.net", ("198.18.0.1/32",), ("XBL",), BEGIN - DAY, ("on XBL",)).as_dict()
    other = Case("x2", "bob@example.net", ("198.18.0.2/32",), ("XBL",), BEGIN, ("on XBL",)).as_dict()
    found = look(flow_files=[str(flow_file)], identity=ALICE, cases=[listed, other])
    first, second = found["cases"]
    assert (first["key"], first["sources"], first["since"]) == ("x1", ("D1", "D2", "D3", "XBL"), BEGIN - DAY)
    assert first["evidence"][0] == "on XBL"
    assert set(first["prefixes"]) == {"198.18.0.1/32", "2001:db8:0:7::/64"}
    assert second["key"] == "x2"


def test_cases_of_nobody_known_stay_apart() -> None:
    listed = Case("x1", "", ("198.51.100.1/32",), ("XBL",), BEGIN)
    by_hand = Case("x2", "", ("198.51.100.2/32",), ("operator",), BEGIN)
    assert suspects.merged([listed, by_hand]) == [listed, by_hand]


def test_every_detector_is_known_to_the_limits() -> None:
    assert DETECTORS.keys() <= FAMILIES.keys()


# Logs.

LATE = BEGIN + 330 * DAY  # the logs are of 2026-11-26
DENIED = "2026-11-26T14:02:{0:02}Z r1 1: %SEC-6-IPACCESSLOGP: list UP denied tcp 198.51.100.9(5) -> "
DENIED += "192.0.2.{1}(25), 1 packet"


def log_run(**options: Any) -> dict[str, Any]:
    residential = {"kind": "dynamic", "prefixes": ["198.51.100.0/24", "2001:db8:100::/40"]}
    return look(LATE, policy=POLICY | {"pools": {"residential": residential}}, **options)


def spam(count: int, user: str = "bob@example.net") -> list[str]:
    return [
        f"2026-11-26 14:02:{number:02} #1(rspamd_proxy) <a1b2c3>; proxy; rspamd_task_write_log: id: <{number}@pc>, "
        f"qid: <4A{number:06}>, ip: 203.0.113.9, user: {user}, from: <{user}>, (default: T (add header): [9/15] [X])"
        for number in range(count)
    ]


def test_a_login_that_sends_spam_is_d6_and_a_case_without_addresses(tmp_path: Path) -> None:
    (tmp_path / "rspamd.log").write_text("\n".join(spam(12)))
    (tmp_path / "mail.log").write_text((LOGS / "postfix-3.10.13.log").read_text())
    found = log_run(
        logs=[
            {"kind": "rspamd", "files": [str(tmp_path / "rspamd.*")], "zone": "UTC"},
            {"kind": "postfix", "files": [str(tmp_path / "mail.log")], "zone": "UTC", "year": 2026},
        ]
    )
    (alarm,) = found["alarms"]
    assert (alarm["detector"], alarm["subject"], alarm["contacts"]) == ("D6", "bob@example.net", 10)
    assert alarm["evidence"][0] == (
        "2026-11-26 14:02:00 UTC: bob@example.net sent 10 mails within 9 seconds; 10 of them are spam, or were refused "
        "for good"
    )
    assert alarm["evidence"][1] == "To: 4A000000, 4A000001, 4A000002, 4A000003, 4A000004 and 5 more"
    assert alarm["evidence"][2] == "Our mail hosts refused it in this time: other 1"
    (case,) = found["cases"]
    assert (case["subscriber"], case["prefixes"], case["sources"]) == ("bob@example.net", (), ("D6",))


def test_mx_names_are_d5_and_denials_d3_and_both_are_one_case(tmp_path: Path) -> None:
    query = "[179570{0}] unbound[1:0] info: 198.51.100.9 d{0}.example.org. MX IN"
    queries = [query.format(number + 1000) for number in range(9)]
    denied = [DENIED.format(number, number) for number in range(10)]
    (tmp_path / "unbound.log").write_text("\n".join(queries))
    (tmp_path / "routers.log").write_text("\n".join(denied))
    found = log_run(
        logs=[
            {"kind": "dns", "files": [str(tmp_path / "unbound.log")]},
            {"kind": "filter", "files": [str(tmp_path / "routers.log")]},
        ],
        identity={"static": {"198.51.100.9/32": "alice@example.net"}},
    )
    assert {one["detector"] for one in found["alarms"]} == {"D3", "D5"}
    assert found["cases"][0]["sources"] == ("D3", "D5")
    assert found["lines"] == 19


def test_a_log_that_is_cut_off_takes_nothing_away_from_the_others(tmp_path: Path) -> None:
    good, cut = tmp_path / "1.gz", tmp_path / "2.gz"
    good.write_bytes(gzip.compress("\n".join(spam(12)).encode()))
    cut.write_bytes(gzip.compress("\n".join(spam(12, "eve@example.net") * 99).encode())[:-20])
    os.utime(good, (0, 0))
    found = log_run(logs=[{"kind": "rspamd", "files": [str(tmp_path / "*.gz")], "zone": "UTC"}])
    assert [one["subject"] for one in found["alarms"]] == ["bob@example.net"]
    assert found["lines"] == 12
    assert (
        found["silences"][0]["reason"]
        == f"{cut}: left out: Compressed file ended before the end-of-stream marker was reached"
    )


def test_names_that_others_chose_are_readable_in_the_evidence(tmp_path: Path) -> None:
    query = "[179570{0}] unbound[1:0] info: 198.51.100.9 \x1b[2J{0}\u202e.example.org. MX IN"
    (tmp_path / "unbound.log").write_text("\n".join(query.format(number + 1000) for number in range(9)))
    (alarm,) = log_run(logs=[{"kind": "dns", "files": [str(tmp_path / "unbound.log")]}])["alarms"]
    assert alarm["detector"] == "D5"
    assert "?[2j1001?.example.org" in alarm["evidence"][1]
    assert all(line.isprintable() for line in alarm["evidence"])


def test_nine_denials_and_retries_to_one_relay_alarm_nothing(tmp_path: Path) -> None:
    lines = [DENIED.format(number, number) for number in range(9)] + [DENIED.format(number, 3) for number in range(60)]
    (tmp_path / "routers.log").write_text("\n".join(lines))
    assert not log_run(logs=[{"kind": "filter", "files": [str(tmp_path / "routers.log")]}])["alarms"]


# What is refused.


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "nothing to look at: give flow_files, clickhouse or logs"),
        ({"policy": {}}, r"policy: KeyError\('pools'\); give what the filter"),
        ({"policy": POLICY | {"never": []}}, "an empty never-list; nothing is detected"),
        ({"policy": POLICY | {"pools": {}}}, "has no pools"),
        ({"detectors": {"D2": {"benign": 2}}}, r"detectors.D2: shares of 2.0 and 0.5: write 0 < benign"),
        (
            {"flow_files": ["a"], "clickhouse": {"url": "http://a", "user": "", "password": "", "table": "b"}},
            "give one",
        ),
        ({"flow_files": ["/nowhere/nfcapd.*"]}, "none of 1 files gives a flow: /nowhere/nfcapd.*: left out"),
        (
            {"logs": [{"kind": "dns", "files": ["/nowhere.log"]}]},
            "no file gives a line: /nowhere.log: left out: No such file",
        ),
        ({"logs": [{"kind": "dns", "files": ["a"], "zone": "Vienna"}]}, r"logs\[0\]: 'Vienna' is no time zone"),
        ({"flow_files": ["a"], "end": "yesterday"}, "end: 'yesterday' is no time with a zone"),
        ({"flow_files": ["a"], "end": "2026-01-01T00:30:00"}, "no time with a zone"),
        ({"flow_files": ["a"], "end": "2027-01-01T00:00:00Z"}, "is in the future"),
        ({"flow_files": ["a"], "hours": 0}, "hours: 0 is out of range"),
        ({"flow_files": ["a"], "hours": 1000}, "hours: 1000 is out of range"),
        ({"flow_files": ["a"], "cases": [{"key": "x"}]}, "cases: "),
        ({"clickhouse": {"url": "http://a:b@c/", "user": "", "password": "", "table": "b"}}, "write its address as"),
    ],
)
def test_what_makes_no_sense_is_a_clear_error(options: dict[str, Any], said: str) -> None:
    with pytest.raises(BadDetection, match=said):
        look(**options)


def test_identity_that_makes_no_sense_is_a_clear_error(flow_file: Path) -> None:
    with pytest.raises(BadDetection, match="identity: "):
        look(flow_files=[str(flow_file)], identity={"static": {"somewhere": "alice"}})


def test_one_bad_file_among_good_ones_is_told(flow_file: Path) -> None:
    bad = flow_file.parent / "nfcapd.202601010005"
    bad.write_bytes(flow_file.read_bytes()[:100])
    found = look(flow_files=[str(flow_file.parent)])
    assert len(found["alarms"]) == 6
    assert str(bad) in found["silences"][0]["reason"]


# The module and the playbook.


def test_the_module_as_ansible_runs_it(flow_file: Path, tmp_path: Path) -> None:
    code = "from ansible.module_utils.testing import patch_module_args as patch; import json, sys\n"
    code += f"from {spam_suspects.__name__} import main\nwith patch(json.load(sys.stdin)): main()"
    given = {
        "policy": POLICY,
        "flow_files": [str(flow_file)],
        "end": "2026-01-01T01:00:00Z",
        "state": str(tmp_path / "signals.db"),
        "identity": {"static": {"198.18.0.1/32": "alice@example.net"}},
        "port_25_blocked": True,
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": ".collections", "PATH": "/usr/bin"},
    )
    answer = json.loads(done.stdout)
    assert answer["changed"] is False
    assert [case["subscriber"] for case in answer["cases"]] == ["alice@example.net"]
    # The other bot is nobody's: told as a warning too.
    assert any("2001:db8:0:7::" in str(line) for line in answer["warnings"])


def test_a_thousand_addresses_of_nobody_are_one_warning() -> None:
    many = [
        {"detector": "D2", "reason": f"198.18.0.{number} is nobody's", "mend": "give leases"} for number in range(9)
    ]
    other = {"detector": "", "reason": "a.log: left out", "mend": "set its clock"}
    assert spam_suspects.aloud([*many, other]) == [
        "D2: 198.18.0.0 is nobody's (and 8 more); give leases",
        "Sources: a.log: left out; set its clock",
    ]


def test_the_spec_of_the_module_is_its_documentation() -> None:
    def told(options: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: {key: value for key, value in option.items() if key not in ("no_log", "options")}
            | ({"options": told(option["options"])} if "options" in option else {})
            for name, option in options.items()
        }

    assert argument_spec(spam_suspects.DOCUMENTATION, Identity.DOCUMENTATION) == told(spam_suspects.ARGUMENTS)


def test_the_playbook_hands_every_option_on(root: Path) -> None:
    (play,) = yaml.safe_load((root / "playbooks" / "detect.yml").read_text())
    task = play["tasks"][0]["isp.hardening.spam_suspects"]
    assert task.keys() == spam_suspects.ARGUMENTS.keys()
