# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Contacts out of logs. Files in logs/ with a version in their name were written by that daemon of Debian 12 or 13, for
mails and queries of a test (reversed addresses in it are "reverse"); the others are in the form of the documents that
logs.py names."""

from __future__ import annotations

import datetime
import gzip
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.isp.hardening.plugins.module_utils.signals import logs
from ansible_collections.isp.hardening.plugins.module_utils.signals.detectors import WORM_PORTS, key_of
from ansible_collections.isp.hardening.plugins.module_utils.signals.engines import Window
from ansible_collections.isp.hardening.plugins.module_utils.signals.logs import LogRead, NoTime, Stamps
from ansible_collections.isp.hardening.plugins.module_utils.signals.walk import HOUR, Contact

HERE = Path(__file__).parent / "logs"


def at(text: str) -> int:
    """ISO 8601 as milliseconds."""
    return round(datetime.datetime.fromisoformat(text).timestamp() * 1000)


DAY = Window(at("2026-11-26T00:00:00Z"), at("2026-11-26T23:59:59Z"), at("2026-11-26T23:59:59Z"))
BOB, POOL, HOME = ("bob@example.net", 0), (key_of("198.51.100.10"), 0), (key_of("2001:db8:100:7::9"), 0)


def read(
    reader: logs.Reader, lines: Sequence[str], zone: str = "UTC", year: int = 2026, window: Window = DAY
) -> LogRead:
    reader.read("here.log", lines, window, Stamps(zone, year))
    return reader.finish()


def lines(name: str) -> list[str]:
    return (HERE / name).read_text().splitlines()


@pytest.mark.parametrize("name", ["postfix-3.7.11.log", "postfix-3.10.13.log"])
def test_postfix_tells_what_became_of_each_mail(name: str) -> None:
    text = lines(name)
    found = read(logs.Postfix(), text)
    assert found.lines == len(text)
    assert not found.unknown
    assert not found.silences
    mails = sorted((one for one in found.contacts["D6"] if one.subject == BOB), key=lambda one: one.time)
    # Delivered; refused as spam; delivered; both recipients unknown; one of two blocked; mailbox full. The mail whose
    # recipient was deferred is not decided.
    assert Counter(one.fail for one in mails) == {False: 4, True: 2}
    assert {one.object for one in found.contacts["D6"] if one.subject == POOL and one.fail} == {
        "nobody1@example.org",
        "nobody2@example.org",
    }
    assert [one.fail for one in found.contacts["D6"] if one.subject == POOL and "@" not in one.object] == [False]
    assert [one.fail for one in found.contacts["D6"] if one.subject == HOME] == [True]
    assert found.refused[POOL[0]] == {"unknown recipient": 2, "relaying": 1, "other": 1}
    assert all(DAY.start < one.time < DAY.end for one in mails)


@pytest.mark.parametrize("name", ["rspamd-3.4.log", "rspamd-3.12.1.log"])
def test_rspamd_tells_its_verdict_on_each_mail(name: str) -> None:
    text = lines(name)
    found = read(logs.Rspamd(), text)
    assert found.lines == len(text)
    assert not found.unknown
    mails = [one for one in found.contacts["D6"] if one.subject == BOB]
    assert Counter(one.fail for one in mails) == {False: 6 if "3.4" in name else 5, True: 1 if "3.4" in name else 2}
    assert [one.fail for one in found.contacts["D6"] if one.subject == POOL] == [True]  # add header
    assert [one.fail for one in found.contacts["D6"] if one.subject == HOME] == [True]  # reject


def test_of_a_mail_that_both_logs_have_the_verdict_counts() -> None:
    postfix = read(logs.Postfix(), lines("postfix-3.10.13.log"))
    rspamd = read(logs.Rspamd(), lines("rspamd-3.12.1.log"))
    both = logs.together([("postfix", postfix), ("rspamd", rspamd)])["D6"]
    assert len({(one.subject, one.object) for one in both}) == len(both)
    marked = next(one for one in rspamd.contacts["D6"] if one.subject == POOL)
    assert not next(one.fail for one in postfix.contacts["D6"] if one.object == marked.object)
    assert next(one.fail for one in both if one.object == marked.object)
    # What rspamd has not seen is there too.
    assert {one.object for one in both} >= {"nobody1@example.org", "nobody2@example.org"}


@pytest.mark.parametrize(
    "name",
    [
        "unbound-1.17.1.log",
        "unbound-1.17.1-ascii.log",
        "unbound-1.26.2.log",
        "unbound-1.26.2-ascii.log",
        "unbound-1.26.2-tagged.log",
        "dnstap-read.txt",
    ],
)
def test_mx_names_that_clients_asked_for(name: str) -> None:
    text = lines(name)
    found = read(logs.Dns(), text)
    assert found.lines == len(text)
    assert not found.unknown
    assert found.contacts.keys() == {"D5"}
    assert {(one.subject, one.object) for one in found.contacts["D5"]} == {
        ((key_of("198.51.100.9"), 0), "example.net"),
        ((key_of("198.51.100.9"), 0), "example.org"),
        (HOME, "example.org"),
    }
    assert all(at("2026-11-26T18:30:00Z") < one.time < at("2026-11-26T18:36:00Z") for one in found.contacts["D5"])


@pytest.mark.parametrize(
    "line",
    [
        "26-Nov-2026 18:31:23.034 queries: info: client @0x7f {ip}#4 (q): query: example.org IN MX +E(0) (::1)",
        "26-Nov-2026 18:31:23.034 client {ip}#4: query: Example.org IN MX + (192.0.2.53)",
        "26-Nov-2026 18:31:23.034 queries: info: client @0x7f {ip}#4 (q): view v: query: example.org IN MX + (::)",
        "Nov 26 18:31:23 ns1 named[9]: queries: info: client @0x7f {ip}#4 (q): query: example.org IN MX -T (::1)",
        "2026-11-26T18:31:23.034Z client @0x7f {ip}#4 (q): query: example.org IN MX + (::1)",
        "Nov 26 18:31:23 dnsmasq[9]: query[MX] example.org from {ip}",
        "Nov 26 18:31:23 ns1 dnsmasq[9]: 7 {ip}/5353 query[MX] example.org from {ip}",
    ],
)
@pytest.mark.parametrize("address", ["198.51.100.9", "2001:db8:100:7::9"])
def test_mx_names_in_the_logs_of_bind_and_dnsmasq(line: str, address: str) -> None:
    text = line.format(ip=address)
    found = read(logs.Dns(), [text, text.replace(" MX ", " A ").replace("[MX]", "[A]")])
    assert (found.used, found.known, found.unknown) == (1, 1, 0)
    assert [(one.subject, one.object) for one in found.contacts["D5"]] == [((key_of(address), 0), "example.org")]


@pytest.mark.parametrize(
    ("line", "unknown"),
    [
        ("Nov 26 18:31:23 ns1 named[9]: client @0x7f1 198.51.100.9#4 (x): query (cache) 'x/MX/IN' denied", 0),
        ("26-Nov-2026 18:31:23.034 query-errors: info: client @0x7f1 198.51.100.9#4 (x): query failed", 0),
        ("Nov 26 18:31:23 ns1 named[9]: client 198.51.100.9: query: example.org MX", 1),
        ("Nov 26 18:31:23 dnsmasq-dhcp[9]: DHCPACK(br0) 198.51.100.9 00:00:5e:00:53:01 home", 0),
        ("Nov 26 18:31:23 dnsmasq[9]: forwarded example.org to 192.0.2.53", 0),
    ],
)
def test_other_lines_of_bind_and_dnsmasq(line: str, unknown: int) -> None:
    found = read(logs.Dns(), [line])
    assert (found.used, found.unknown) == (0, unknown)


def test_a_name_with_spaces_is_no_other_client() -> None:
    line = "Nov 26 18:31:23 dnsmasq[9]: query[MX] a from 203.0.113.66 from 198.51.100.9"
    assert [one.subject[0] for one in read(logs.Dns(), [line]).contacts["D5"]] == [key_of("198.51.100.9")]


# Linux: `log prefix "port25 "` in front of a drop.
DENIALS, NO_DENIALS = lines("filters-denied.log"), lines("filters-known.log")


def test_what_filters_denied_is_d3_on_port_25_and_d4_on_the_ports_of_worms() -> None:
    found = read(logs.Filter(WORM_PORTS, "port25 "), [*DENIALS, *NO_DENIALS])
    assert (found.used, found.known, found.unknown) == (len(DENIALS), len(NO_DENIALS), 0)
    home = (key_of("198.51.100.9"), 25)
    assert [(one.subject, one.object) for one in found.contacts["D3"]] == [
        (home, key_of("192.0.2.1")),
        ((HOME[0], 25), key_of("2001:db8:8000::25")),
        (home, key_of("192.0.2.2")),
        ((HOME[0], 25), key_of("2001:db8:8000::26")),
        (home, key_of("192.0.2.4")),
        ((HOME[0], 25), key_of("2001:db8:8000::27")),
    ]
    assert found.contacts["D4"] == [
        Contact((key_of("198.51.100.9"), 445), key_of("192.0.2.3"), at("2026-11-26T14:02:14Z"), True)
    ]
    assert all(one.fail for one in found.contacts["D3"])
    assert found.contacts["D3"][1].time == at("2026-11-26T14:02:12.500Z")


def test_lines_of_nftables_say_nothing_without_the_prefix_of_the_rule_that_denies() -> None:
    assert not read(logs.Filter(WORM_PORTS), DENIALS[:2]).contacts


def test_a_line_of_a_known_kind_that_is_not_understood_is_told() -> None:
    strange = "Nov 26 14:02:14 r1 1: %SEC-6-IPACCESSLOGP: list UP denied tcp somewhere -> 192.0.2.2(25), 1 packet"
    found = read(logs.Filter(WORM_PORTS), [strange, "Nov 26 14:02:14 r1 ???"])
    assert (found.used, found.unknown) == (0, 2)
    assert "2 unknown lines (line 1: Nov 26 14:02:14 r1 1: %SEC-6" in found.silences[0].reason


@pytest.mark.parametrize(
    "said",
    [
        '%ASA-4-106023: Deny tcp src in:198.51.100.9/49152 dst out:192.0.2.1/25 by access-group "UP" [0x0, 0x0]',
        "%ACLLOG-5-ACLLOG_NEW_FLOW: Src IP: 198.51.100.9, Dst IP: 192.0.2.1, Src Port: 49152, Dst Port: 25",
        "Acl: %ACL-6-IPACCESS: list UP Ethernet1 denied tcp 198.51.100.9(49152) -> 192.0.2.1(25)",
    ],
)
def test_what_filters_of_others_say_is_told(said: str) -> None:
    assert read(logs.Filter(WORM_PORTS), [f"Nov 26 14:02:14 r1 {said}"]).unknown == 1


def test_counters_by_subscriber_and_server_are_contacts_as_old_as_their_timeout_has_run() -> None:
    """nft_set.json was written by nft 1.0.6, two seconds after the last try."""
    reader = logs.NftSet(WORM_PORTS)
    for name in ("nft_set.json", "nft_set6.json"):
        reader.read_set(name, (HERE / name).read_text(), at("2026-11-26T14:00:00Z"), DAY)
    found = reader.finish()
    assert (found.used, found.known, found.silences) == (5, 0, [])
    home = (key_of("198.51.100.9"), 25)
    assert found.contacts["D3"] == [
        Contact(home, key_of(f"203.0.113.{last}"), at("2026-11-26T13:59:58Z"), True) for last in range(1, 5)
    ]
    assert found.contacts["D4"] == [
        Contact((key_of("2001:db8::9"), 445), key_of("2001:db8:8000::25"), at("2026-11-26T13:59:58Z"), True)
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('"expires": 86398, ', ""), "KeyError('expires')"),
        (('"expires": 86398', '"expires": 99999'), "an element"),
        (('"concat": ["198.51.100.9", "203.0.113.1"]', '"concat": ["198.51.100.9"]'), "not enough values"),
        (('"set": {', '"map": {'), "it has no set"),
        (('{"nftables"', "<html>"), "JSONDecodeError"),
        (('"packets": 2', '"packets": "2"'), "TypeError"),
        (('"expires": 86398', '"expires": 1e999'), "OverflowError"),
    ],
)
def test_a_set_of_another_form_is_left_out_whole(change: tuple[str, str], said: str) -> None:
    reader = logs.NftSet(WORM_PORTS)
    text = (HERE / "nft_set.json").read_text().replace(*change)
    reader.read_set("set.json", text, at("2026-11-26T14:00:00Z"), DAY)
    assert not reader.found.contacts
    assert reader.found.lines == 0
    assert said in reader.found.silences[0].reason


def test_a_set_that_was_written_in_the_future_or_before_the_window_is_no_evidence() -> None:
    reader = logs.NftSet(WORM_PORTS)
    text = (HERE / "nft_set.json").read_text()
    reader.read_set("set.json", text, DAY.now + HOUR, DAY)
    assert "it is of the future" in reader.found.silences[0].reason
    reader.read_set("set.json", text, DAY.start, DAY)
    assert not reader.found.contacts
    assert reader.found.known == 4


# Real lines of others.


def test_postfix_lines_of_others_are_read_without_loss(sample_data: Path) -> None:
    files = sorted((sample_data / "mail" / "postfix-grok-patterns" / "test").glob("*.yaml"))
    reader, taken = logs.Postfix(), Counter[bool | None]()
    for file in files:
        tree = yaml.safe_load(file.read_text())
        taken[reader.message(0, "mx1", tree["data"])] += 1
    assert len(files) == sum(taken.values())
    assert taken[None] == 0
    reasons = sum(reader.found.refused.values(), Counter[str]())
    assert reasons == {"unknown recipient": 1, "spam or virus": 1, "listed": 1, "relaying": 1, "other": 6}


def test_logs_of_others_are_read_without_loss(sample_data: Path) -> None:
    files = sorted((sample_data / "mail" / "crowdsec-hub" / ".tests").glob("*/*.log"))
    files = [file for file in files if file.stat().st_size]
    assert len(files) > 8
    window = Window(0, at("2030-01-01T00:00:00Z"), at("2030-01-01T00:00:00Z"))
    for file in files:
        whole = file.read_text().splitlines()
        for reader in (logs.Postfix(), logs.Rspamd(), logs.Dns(), logs.Filter(WORM_PORTS)):
            found = read(reader, whole, "UTC", 2024, window)
            left_out = any("left out" in one.reason for one in found.silences)
            assert left_out or found.lines == len(whole), file
            assert left_out or not found.unknown or found.silences, file
            if "postfix" not in file.parent.name:
                assert not found.contacts, file


# Times.


@pytest.mark.parametrize(
    ("line", "zone", "expected"),
    [
        ("2026-11-26T14:02:11.123456+01:00 h x", "", "2026-11-26T13:02:11.123Z"),
        ("2026-11-26T14:02:11Z h x", "", "2026-11-26T14:02:11Z"),
        ("2026-11-26T14:02:11+0100 h x", "", "2026-11-26T13:02:11Z"),
        ("2026-11-26 14:02:11 #1(normal) <a>; x", "Europe/Vienna", "2026-11-26T13:02:11Z"),
        ("<22>Nov 26 14:02:11 h x", "Europe/Vienna", "2026-11-26T13:02:11Z"),
        ("Nov  6 14:02:11.5 h x", "UTC", "2026-11-06T14:02:11.500Z"),
        ("Sep 8 07:46:30 h x", "Europe/Vienna", "2026-09-08T05:46:30Z"),
        ("[1795717881] unbound[148:0] info: x", "", "2026-11-26T18:31:21Z"),
        ("26-Nov-2026 18:31:23.034 CQ x", "America/New_York", "2026-11-26T23:31:23.034Z"),
        ("<22>1 2026-11-26T14:02:11.5+01:00 h postfix/smtpd 9 - -  x", "", "2026-11-26T13:02:11.500Z"),
    ],
)
def test_times_that_can_be_placed(line: str, zone: str, expected: str) -> None:
    time, rest = Stamps(zone, 2026).read(line)
    assert time == at(expected)
    assert rest.endswith("x")


@pytest.mark.parametrize(
    ("line", "rest"),
    [
        ("postfix/smtpd 9 - - AA: client=x", "h postfix/smtpd[9]: AA: client=x"),
        ("postfix/smtpd 9 - -  AA: client=x", "h postfix/smtpd[9]: AA: client=x"),  # as rsyslog has it
        ('rspamd - - [a@1 b="c \\"] d" e="\\]"][f] \ufeff<1>; x', "h rspamd: <1>; x"),
    ],
)
def test_a_line_of_the_newer_syslog_is_as_one_of_the_older(line: str, rest: str) -> None:
    assert Stamps().read(f"<22>1 2026-11-26T14:02:11Z h {line}") == (at("2026-11-26T14:02:11Z"), rest)


@pytest.mark.parametrize(
    ("line", "zone", "year", "said"),
    [
        ("Nov 26 14:02:11 h x", "", 2026, "no zone"),
        ("Nov 26 14:02:11 h x", "UTC", 0, "no year"),
        ("2026-11-26 14:02:11 #1(normal) x", "", 0, "no zone"),
        ("Oct 25 02:30:00 h x", "Europe/Vienna", 2026, "twice or never"),
        ("Mar 29 02:30:00 h x", "Europe/Vienna", 2026, "twice or never"),
        ("Feb 30 02:30:00 h x", "UTC", 2026, "none of any calendar"),
        ("2026-02-30T02:30:00Z h x", "", 0, "none of any calendar"),
        ("14:02:11.123456 CQ 198.51.100.9 UDP 40b", "UTC", 2026, "no date"),
        ("[12345.678901] port25 IN=ppp7", "UTC", 2026, "no date"),
        ("<html>", "UTC", 2026, "does not begin with a time"),
        ("<22>1 - h postfix/smtpd 9 - - x", "UTC", 2026, "does not begin with a time"),
        ('<22>1 2026-11-26T14:02:11Z r1 - - RT_FLOW [a@1 b="c"] x', "UTC", 2026, "does not begin with a time"),
    ],
)
def test_times_that_cannot_be_placed_are_no_evidence(line: str, zone: str, year: int, said: str) -> None:
    with pytest.raises(NoTime, match=said):
        Stamps(zone, year).read(line)


def test_a_log_without_zone_is_told_with_its_first_line_and_what_to_do() -> None:
    found = read(logs.Filter(WORM_PORTS), DENIALS[2:4], zone="")
    assert not found.contacts
    assert found.unknown == found.lines == 2
    (told,) = found.silences
    assert "here.log: 2 lines are no evidence: its time has no zone (line 1: Nov 26 14:02:13 r1" in told.reason
    assert told.mend == "name the zone of that host in 'zone'"


@pytest.mark.parametrize("zone", ["America/New_York", "Pacific/Honolulu"])
def test_a_log_in_another_zone_lies_in_the_future_and_is_left_out(zone: str) -> None:
    now = Window(DAY.start, at("2026-11-26T14:03:00Z"), at("2026-11-26T14:03:00Z"))
    found = read(logs.Filter(WORM_PORTS), DENIALS[2:4], zone=zone, window=now)
    assert not found.contacts
    assert found.lines == 0
    assert "left out: line 1 is of the future" in found.silences[0].reason


@pytest.mark.parametrize("kind", ["filter", "postfix"])
def test_a_clock_that_jumps_back_leaves_the_file_out(kind: str) -> None:
    if kind == "filter":
        found = read(logs.Filter(WORM_PORTS), [*DENIALS[3:], DENIALS[2].replace("14:02:13", "12:02:13")])
    else:
        text = lines("postfix-3.10.13.log")
        found = read(logs.Postfix(), [*text, text[0].replace(" 18:", " 14:")])
    assert not found.contacts["D6"] + found.contacts["D3"]
    assert "its clock jumps" in found.silences[0].reason


def test_the_year_ends_within_a_log() -> None:
    whole = Window(at("2026-12-31T00:00:00Z"), at("2027-01-02T00:00:00Z"), at("2027-01-02T00:00:00Z"))
    text = [DENIALS[2].replace("Nov 26", "Dec 31"), DENIALS[3].replace("Nov 26", "Jan  1")]
    found = read(logs.Filter(WORM_PORTS), text, window=whole)
    assert found.contacts["D4"][0].time == at("2027-01-01T14:02:14Z")


def test_lines_outside_of_the_window_count_as_known() -> None:
    late = Window(DAY.start + 23 * HOUR, DAY.end, DAY.end)
    found = read(logs.Filter(WORM_PORTS, "port25 "), DENIALS, window=late)
    assert (found.used, found.known) == (0, len(DENIALS))


def test_a_zone_that_is_none() -> None:
    with pytest.raises(ValueError, match=r"'Vienna' is no time zone; write one as UTC"):
        Stamps("Vienna")


# What somebody else can write into a log.


@pytest.mark.parametrize("line", lines("rspamd-forged.txt"))  # in the Message-ID, and in the sender
def test_a_sender_cannot_write_another_user_into_the_log_of_rspamd(line: str) -> None:
    found = read(logs.Rspamd(), [line])
    assert not any(one.subject[0] == "victim@example.net" for one in found.contacts["D6"])
    assert found.unknown or found.contacts["D6"][0].subject == (key_of("203.0.113.66"), 0)


def test_a_client_cannot_write_another_user_into_the_log_of_postfix() -> None:
    (found,) = read(logs.Postfix(), lines("postfix-forged.txt")).contacts["D6"]
    assert found.subject == (key_of("203.0.113.66"), 0)


def test_what_comes_behind_a_mail_without_an_id_is_not_its_senders() -> None:
    """Of smtpd_proxy_filter: bob sends one mail, and a stranger guesses recipients."""
    head = "Nov 26 18:33:49 mx1 postfix/smtpd[147]: NOQUEUE: "
    accepted = f"{head}client=home[198.51.100.10], sasl_method=PLAIN, sasl_username=bob@example.net"
    refused = (
        f"{head}reject: RCPT from unknown[203.0.113.66]: 550 5.1.1 <a@example.org>: Recipient address rejected: "
        "User unknown; from=<x@example.com> to=<a@example.org> proto=ESMTP helo=<x>"
    )
    found = read(logs.Postfix(), [accepted, refused])
    assert [one.subject for one in found.contacts["D6"]] == [(key_of("203.0.113.66"), 0)]
    assert BOB[0] not in found.refused


REFUSED = "from h[203.0.113.66]; from=<x@example.com> to=<a@example.org> proto=ESMTP helo=<x>: 5.7.1 content rejected"


@pytest.mark.parametrize(
    ("known", "said"),
    [
        (True, f"header Subject: see http://example.com/ {REFUSED}"),
        (True, f"body from bob[198.51.100.10]: 550 5.1.1 <b@example.org>: no; to=<b@example.org> {REFUSED}"),
        (False, f"body from bob[198.51.100.10]: 550 5.1.1 <b@example.org>: no; to=<b@example.org> {REFUSED}"),
    ],
)
def test_what_header_checks_refuse_is_of_the_mail_with_that_id(known: bool, said: str) -> None:
    """What stands in the mail may look like a line of Postfix."""
    head = "Nov 26 18:33:49 mx1 postfix/"
    accepted = f"{head}smtpd[1]: 702AB2DC540: client=h[203.0.113.66]"
    found = read(logs.Postfix(), [accepted] * known + [f"{head}cleanup[2]: 702AB2DC540: reject: {said}"])
    assert found.refused == ({key_of("203.0.113.66"): {"other": 1}} if known else {})
    assert (found.unknown, dict(found.contacts)) == (0, {})


def test_a_sender_that_is_unknown_to_us_is_no_unknown_recipient() -> None:
    line = (
        "Nov 26 18:33:49 mx1 postfix/smtpd[1]: NOQUEUE: reject: RCPT from h[203.0.113.66]: 550 5.1.0 <x@example.net>: "
        "Sender address rejected: User unknown in virtual mailbox table; from=<x@example.net> to=<a@example.org>"
    )
    found = read(logs.Postfix(), [line, line.replace("5.1.0 ", "")])
    assert (found.refused, dict(found.contacts)) == ({key_of("203.0.113.66"): {"other": 2}}, {})


def test_a_mail_that_a_filter_gives_back_is_its_senders_still() -> None:
    """As behind a content_filter: the second id is what the other servers refuse."""
    head = "Nov 26 18:33:49 mx1 postfix/"
    accepted = f"{head}smtpd[1]: 702AB2DC540: client=home[198.51.100.10], sasl_method=PLAIN, sasl_username={BOB[0]}"
    back = "client=localhost[127.0.0.1], orig_queue_id=702AB2DC540, orig_client=home[198.51.100.10]"
    passed = "to=<a@example.org>, relay=127.0.0.1[127.0.0.1]:10024, dsn=2.0.0, status=sent (ok)"
    refused = "to=<a@example.org>, relay=mx.example.org, dsn=5.7.1, status=bounced (spam)"
    rest = [
        f"{head}smtpd[2]: 702AB2DC541: {back}",
        f"{head}smtp[3]: 702AB2DC540: {passed}",
        f"{head}qmgr[5]: 702AB2DC540: removed",
        f"{head}smtp[4]: 702AB2DC541: {refused}",
    ]
    found = read(logs.Postfix(), [accepted, *rest]).contacts["D6"]
    assert [(one.subject, one.object, one.fail) for one in found] == [(BOB, "702AB2DC540", True)]
    # Who is logged in gives nothing back, whatever his name is.
    eve = accepted.replace("540", "542").replace(str(BOB[0]), "eve, orig_queue_id=702AB2DC540")
    found = read(logs.Postfix(), [accepted, eve, f"{head}smtp[4]: 702AB2DC542: {refused}"]).contacts["D6"]
    assert [one.subject for one in found] == [("eve", 0)]


def test_the_numbers_of_solaris_before_a_message_are_none_of_it() -> None:
    line = "Nov 26 18:33:49 mx1 postfix/smtpd[1]: [ID 197553 mail.info] 702AB2DC540: client=h[203.0.113.66]"
    assert read(logs.Postfix(), [line]).used == 1


@pytest.mark.parametrize("said", ["last message repeated 2 times", "-- MARK --"])
def test_what_syslogd_says_itself_is_known(said: str) -> None:
    text = f"Nov 26 18:33:49 mx1 {said}"
    for reader in (logs.Postfix(), logs.Rspamd(), logs.Dns(), logs.Filter(WORM_PORTS)):
        found = read(reader, [text, text.replace("mx1 ", "")])
        assert (found.known, found.silences) == (2, [])


def test_a_bounce_with_the_id_of_a_mail_that_is_gone_is_not_that_mail() -> None:
    head, mail = "Nov 26 18:33:49 out1 postfix/", "702AB2DC540: "
    lost = f"{head}smtp[9]: {mail}to=<a@example.org>, relay=none, delay=1, dsn=5.1.1, status=bounced (unknown)"
    accepted = f"{head}smtpd[1]: {mail}client=home[198.51.100.10], sasl_method=PLAIN, sasl_username=bob@example.net"
    gone = f"{head}qmgr[2]: {mail}removed"
    assert not read(logs.Postfix(), [accepted, gone, lost]).contacts["D6"]
    assert [one.fail for one in read(logs.Postfix(), [accepted, lost, gone]).contacts["D6"]] == [True]


def test_what_an_icmp_error_quotes_is_nobodys_attempt() -> None:
    quoted = (
        "Nov 26 14:02:11 edge1 kernel: port25 IN=eth0 OUT=ppp7 SRC=203.0.113.66 DST=198.51.100.10 LEN=88 PROTO=ICMP "
        "TYPE=3 CODE=1 [SRC=198.51.100.9 DST=192.0.2.1 LEN=60 PROTO=TCP SPT=49152 DPT=25 WINDOW=64240 RES=0x00 SYN "
        "URGP=0 ]"
    )
    assert not read(logs.Filter(WORM_PORTS, "port25 "), [quoted]).contacts


def test_a_port_of_many_digits_is_none() -> None:
    line = DENIALS[0].replace("DPT=25 ", f"DPT={'2' * 5000} ")
    assert not read(logs.Filter(WORM_PORTS, "port25 "), [line]).contacts


def test_the_same_queue_id_on_two_hosts_is_two_mails_and_so_it_is_later() -> None:
    found = read(logs.Postfix(), lines("postfix-two-hosts.log")).contacts["D6"]
    assert [(one.subject[0], one.fail) for one in found] == [("bob@example.net", False), ("eve@example.net", True)]


_LINE = st.one_of(
    st.sampled_from([line for file in sorted(HERE.glob("*")) for line in file.read_text().splitlines()[::7]]),
    st.sampled_from([*DENIALS, *NO_DENIALS]),
    st.text(st.characters(exclude_characters="\n\r"), max_size=60),
)


@given(st.lists(st.tuples(_LINE, st.integers(0, 300), st.text(max_size=3)), max_size=12), st.sampled_from(["", "UTC"]))
def test_no_line_is_lost_and_none_raises(made: list[tuple[str, int, str]], zone: str) -> None:
    text = [line[:cut] + added + line[cut + 1 :] if cut < len(line) else line for line, cut, added in made]
    for reader in (logs.Postfix(), logs.Rspamd(), logs.Dns(), logs.Filter(WORM_PORTS, "port25 ")):
        found = read(reader, text, zone)
        assert found.lines == len(text) or "left out" in found.silences[0].reason


def test_compressed_logs_are_read(tmp_path: Path) -> None:
    (tmp_path / "mail.log.2.gz").write_bytes(gzip.compress(b"one\ntwo \xff\n"))
    assert list(logs.open_log(str(tmp_path / "mail.log.2.gz"))) == ["one\n", "two �\n"]
