# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The DNSBL sweep: what is listed, what was not answered for, and when nothing at all follows from it."""

from __future__ import annotations

import time

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.isp.hardening.plugins.module_utils.signals import xbl_dns
from ansible_collections.isp.hardening.plugins.module_utils.signals.xbl import Answer, Listing
from ansible_collections.isp.hardening.plugins.module_utils.signals.xbl_dns import Dnsbl, parse_reply
from tests.signals.dnsbl import LISTED_TEST, ZONE, Answers, dnsbl

OWN = ["192.0.2.0/26"]
KEY = "abcdefghijklmnopqrstuvwxyz"


def sweep(answers: Answers, own: list[str] = OWN, rate: float = 0.0, timeout: float = 3.0) -> Answer:
    """A short `timeout` is for what is silent; a busy machine must not look like that elsewhere."""
    with dnsbl(answers) as server:
        return Dnsbl(ZONE, "", "127.0.0.1", server.port, rate, timeout).ask(own)


def with_tests(listed: dict[str, list[str]]) -> Answers:
    return lambda address: listed.get(address, ["127.0.0.2"] if address == LISTED_TEST else [])


def test_what_is_listed_is_told_with_its_list_and_code() -> None:
    answer = sweep(with_tests({"192.0.2.9": ["127.0.0.4", "127.0.0.10"], "192.0.2.10": ["127.0.0.3", "127.0.0.30"]}))
    assert not answer.frozen
    assert not answer.unanswered
    assert set(answer.listings) == {
        Listing("192.0.2.9", "XBL", "127.0.0.4"),  # the PBL is about no infection
        Listing("192.0.2.10", "CSS", "127.0.0.3"),
        Listing("192.0.2.10", "BCL", "127.0.0.30"),
    }


def test_every_address_is_asked_once_and_those_in_use_come_first() -> None:
    with dnsbl(with_tests({})) as server:
        Dnsbl(ZONE, "", "127.0.0.1", server.port, 0).ask(OWN, ["192.0.2.60/32", "192.0.2.33/32", "198.51.100.1/32"])
    asked = server.asked
    assert asked[:2] == asked[-2:] == ["127.0.0.2", "127.0.0.1"]
    assert asked[2:4] == ["192.0.2.60", "192.0.2.33"]
    assert sorted(asked[2:-2]) == sorted(f"192.0.2.{number}" for number in range(64))


@pytest.mark.parametrize("code", ["127.255.255.252", "127.255.255.254", "127.255.255.255", "127.255.255.7"])
@pytest.mark.parametrize("at", ["192.0.2.40", LISTED_TEST])
def test_127_255_255_x_is_no_listing_and_no_delisting(code: str, at: str) -> None:
    answer = sweep(with_tests({"192.0.2.9": ["127.0.0.4"], at: [code]}))
    assert code in answer.frozen
    assert answer.listings == ()
    assert answer.unanswered == ("192.0.2.0/26",)


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        (lambda _: ["127.0.0.4"], "127.0.0.1 is listed"),
        (lambda _: [], "127.0.0.2 is not listed"),
        (lambda _: dns.rcode.SERVFAIL, "SERVFAIL"),
        (lambda _: dns.rcode.REFUSED, "REFUSED"),
        (lambda _: None, "timeout"),
        (lambda _: ["203.0.113.80"], "203.0.113.80"),
        (lambda _: b"\x81\x80", "timeout"),
    ],
    ids=["lists everything", "empty", "servfail", "refused", "silent", "parked", "nonsense"],
)
def test_a_failed_self_test_is_no_listing_and_no_delisting(answers: Answers, said: str) -> None:
    answer = sweep(answers, timeout=0.1)
    assert said in answer.frozen
    assert answer.listings == ()
    assert answer.unanswered == ("192.0.2.0/26",)


def test_a_dnsbl_that_breaks_in_the_middle_of_a_sweep_freezes_it() -> None:
    asked: list[str] = []

    def answers(address: str) -> list[str]:
        asked.append(address)
        return ["127.0.0.4"] if len(asked) > 30 or address == LISTED_TEST else []

    answer = sweep(answers)
    assert "127.0.0.1 is listed" in answer.frozen
    assert answer.listings == ()


def test_a_dnsbl_that_lists_most_of_us_and_not_its_test_entry_freezes() -> None:
    own = ["198.51.100.0/23"]
    answer = sweep(lambda address: ["127.0.0.4"] if not address.endswith("127.0.0.1") else [], own)
    assert "512 of 512" in answer.frozen
    assert answer.listings == ()


def test_what_is_not_answered_for_is_neither_listed_nor_delisted() -> None:
    silent = {"192.0.2.8": dns.rcode.SERVFAIL, "192.0.2.9": None, "192.0.2.10": ["127.0.0.4"]}
    answer = sweep(lambda one: silent[one] if one in silent else with_tests({})(one), timeout=0.5)  # type: ignore[return-value]
    assert not answer.frozen
    assert [one.network for one in answer.listings] == ["192.0.2.10"]
    assert answer.unanswered == ("192.0.2.8/31",)
    assert "2 addresses without an answer" in answer.problems[0]


def test_what_has_no_answer_at_first_is_asked_again() -> None:
    tries: dict[str, int] = {}

    def answers(address: str) -> list[str] | dns.rcode.Rcode | None:
        tries[address] = tries.get(address, 0) + 1
        if address == "192.0.2.9" and tries[address] == 1:
            return None
        if address == "192.0.2.9" and tries[address] == 2:
            return dns.rcode.SERVFAIL
        return with_tests({"192.0.2.9": ["127.0.0.4"]})(address)  # type: ignore[return-value]

    answer = sweep(answers, timeout=0.5)
    assert (tries["192.0.2.9"], answer.unanswered) == (3, ())
    assert [one.network for one in answer.listings] == ["192.0.2.9"]


def test_a_server_that_dies_in_the_middle_ends_the_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xbl_dns, "ATTEMPTS", 1)
    asked: list[str] = []

    def answers(address: str) -> list[str] | None:
        asked.append(address)
        return None if len(asked) > 20 else with_tests({"192.0.2.1": ["127.0.0.4"]})(address)  # type: ignore[return-value]

    answer = sweep(answers, ["192.0.2.0/24", "198.51.100.0/24"], timeout=0.5)
    assert "does the server still run" in answer.frozen
    assert answer.listings == ()
    assert len(asked) < 200


def test_no_more_queries_a_second_than_is_polite() -> None:
    began = time.monotonic()
    answer = sweep(with_tests({}), ["192.0.2.0/28"], rate=50.0)
    assert not answer.frozen
    assert time.monotonic() - began >= (16 + 4 - 1) / 50  # a lower bound, which a busy machine cannot break


def test_a_space_that_would_take_too_long_is_asked_where_it_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xbl_dns, "LONGEST", 1)
    with dnsbl(with_tests({"198.51.100.7": ["127.0.0.4"]})) as server:
        source = Dnsbl(ZONE, "", "127.0.0.1", server.port, rate=200.0)
        answer = source.ask(["198.51.100.0/24"], ["198.51.100.7/32"])
    assert [one.network for one in answer.listings] == ["198.51.100.7"]
    assert len(server.asked) == 5
    assert "take the feed" in answer.problems[0]
    assert answer.unanswered[:3] == ("198.51.100.0/30", "198.51.100.4/31", "198.51.100.6/32")
    assert "198.51.100.7/32" not in answer.unanswered


def test_ipv6_is_asked_by_64_where_it_is_in_use() -> None:
    listed = {"2001:db8:5::7": ["127.0.0.4"], "::ffff:127.0.0.2": ["127.0.0.2"]}
    with dnsbl(with_tests(listed)) as server:
        source = Dnsbl(ZONE, "", "127.0.0.1", server.port, 0)
        answer = source.ask(["2001:db8::/32"], ["2001:db8:5::7/128", "2001:db8:6::/62", "2001:db8:7::/48"])
    assert answer.listings == (Listing("2001:db8:5::/64", "XBL", "127.0.0.4"),)
    assert len(server.asked) == 2 + 1 + 4 + 2
    assert "2001:db8:5:1::/64" in answer.unanswered
    assert not {"2001:db8:5::/64", "2001:db8:6:1::/64"} & set(answer.unanswered)
    assert any("2001:db8:7::/48" in problem for problem in answer.problems)


def test_the_key_is_asked_for_and_never_shown() -> None:
    replies = iter([dns.rcode.SERVFAIL] * 1000)
    for answers in (lambda _: ["127.0.0.4"], lambda _: [], lambda _: next(replies), lambda _: ["127.255.255.254"]):
        with dnsbl(answers, f"{KEY}.{ZONE}") as server:  # type: ignore[arg-type]
            source = Dnsbl(ZONE, KEY, "127.0.0.1", server.port, 0, timeout=0.05)
            answer = source.ask(OWN)
        assert server.names[0] == f"{'.'.join(reversed(LISTED_TEST.split('.')))}.{KEY}.{ZONE}."
        assert answer.frozen
        assert KEY not in repr(source) + repr(answer)
    for key in (f"{KEY}.x", "ä", "x" * 64):
        answer = Dnsbl(ZONE, key, "127.0.0.1", 9, 0).ask(OWN)
        assert "key" in answer.frozen
        assert key not in repr(answer)


@pytest.mark.parametrize(("server", "zone"), [("resolver.example.net", ZONE), ("127.0.0.1", "..."), ("", ZONE)])
def test_settings_that_cannot_be_freeze_with_what_to_do(server: str, zone: str) -> None:
    assert Dnsbl(zone, "", server, 53, 0).ask(OWN).frozen


@given(st.binary(max_size=80))
@settings(max_examples=200)
def test_no_octets_end_the_parser(octets: bytes) -> None:
    packet = (octets + bytes(12))[: max(12, len(octets))]
    assert isinstance(parse_reply(packet, 12), tuple | str)


@given(st.lists(st.ip_addresses(v=4), max_size=5, unique=True), st.booleans())
@settings(max_examples=100)
def test_a_reply_says_what_dnspython_has_put_into_it(addresses: list[object], alias: bool) -> None:
    query = dns.message.make_query(f"listed.{ZONE}", "A")
    response = dns.message.make_response(query)
    owner = query.question[0].name
    if alias:
        response.answer.append(dns.rrset.from_text(owner, 60, "IN", "CNAME", "other.example.org."))
        owner = dns.name.from_text("other.example.org")
    if addresses:
        response.answer.append(dns.rrset.from_text(owner, 60, "IN", "A", *map(str, addresses)))
    wire = response.to_wire()
    found = parse_reply(wire, len(query.to_wire()))
    assert sorted(found) == sorted(map(str, addresses))
    response.flags |= dns.flags.TC
    assert parse_reply(response.to_wire(), len(query.to_wire())) == "a truncated answer"
