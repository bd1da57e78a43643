# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The feed: read as the real rbldnsd answers from it, and not at all where that cannot be sure."""

from __future__ import annotations

import gzip
import ipaddress
import os
import time
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.isp.hardening.plugins.module_utils.signals.episodes import State, step
from ansible_collections.isp.hardening.plugins.module_utils.signals.records import UNKNOWN, Owner
from ansible_collections.isp.hardening.plugins.module_utils.signals.xbl import Answer, Doubt, Listing, Ranges
from ansible_collections.isp.hardening.plugins.module_utils.signals.xbl_feed import Feed
from ansible_collections.isp.hardening.plugins.module_utils.signals.xbl_rbldnsd import Dataset, parse_dataset
from tests.signals.box import box
from tests.signals.rbldnsd import Rbldnsd

OWN = ["198.51.100.0/22", "192.0.2.0/24", "2001:db8::/32"]
TESTS = "127.0.0.2\n"
TESTS6 = "::ffff:7f00:2\n"


def feed(directory: Path, *datasets: tuple[str, str | bytes]) -> Feed:
    found = []
    for number, (kind, text) in enumerate(datasets):
        file = directory / f"feed.{number}"
        file.write_bytes(text.encode("latin-1") if isinstance(text, str) else text)
        found.append(Dataset(kind, str(file)))
    return Feed(tuple(found))


def networks(answer: Answer) -> list[tuple[str, str]]:
    assert not answer.frozen
    return [(one.network, one.list) for one in answer.listings]


# -- as the real rbldnsd -----------------------------------------------------------------------------------------
# Addresses of nobody: 240/4 is reserved (RFC 1112 4), and has neighbours of every length.

_OCTET = st.sampled_from([0, 1, 2, 3, 127, 128, 254, 255])
_ADDRESS = st.builds("241.51.{}.{}".format, st.sampled_from([99, 100, 101]), _OCTET)
_WORD = st.sampled_from(["0", "1", "db8", "ffff", "a"])
_VALUE = st.sampled_from(["", "", " :4", " :127.0.0.3:text", " text", "# c", " ; c", ":9", "\t:127.0.0.4", " :3:"])
_NOT = st.sampled_from(["", "", "", "!", "! "])
_SPECIAL = st.sampled_from(
    [
        ":4", ":127.0.0.3:x", ":2:hello", ":127.9", ":127.1.2", "$MAXRANGE4 /24", "$MAXRANGE4 16", "$TTL 1m",
        "#$MAXRANGE4 4", "$1 x", "$= abc", "# comment", "; c", "", "  ",
        "$SOA 1w a.example.org b.example.org 0 1 1 1 1", "$TIMESTAMP 2020-01-01", "$TIMESTAMP 2020:01:02:03:04:05 0",
    ]
)  # fmt: skip
_DOUBTFUL = st.sampled_from(
    [":0", ": ", "text :x", "$FOO 1", "junk", "241.51.100.7.5", "241.51.100.7x", "300.1.1.1", "241", "241-241.0.0",
     "241.51.100.7/", "241.51.100.5-241.51.100.3", "0.0.0.0/0", "241.51.100.7/24", "241.51.100.7 :127.0.0.4 # x",
     "2001", "2001:db8:", "fffff::", "2001:db8::1/47", "::/129", "\r", "241.51.100.9\r"]
)  # fmt: skip


@st.composite
def _ipv4(draw: st.DrawFn) -> str:
    address = draw(_ADDRESS)
    first, second, third, last = address.split(".")
    form = draw(
        st.sampled_from(
            [
                address, address, address, f"{first}.{second}.{third}", f"{first}.{second}", f"{first}/8",
                f"{address}-{draw(_ADDRESS)}", f"{address}-{draw(_OCTET)}", f"{first}.{second}.{third}-102",
                str(ipaddress.ip_network(f"{address}/{draw(st.integers(8, 32))}", strict=False)), "241.50-52",
                "241.51.99.200-241.51.101.20", "240.0.0.0-242.255.255.255", "241.51.99.0-241.51.99.255", "240-242",
                f"{first}.{second}.{third}.0{last}",
            ]
        )
    )  # fmt: skip
    return draw(_NOT) + form + draw(_VALUE)


@st.composite
def _ipv6(draw: st.DrawFn) -> str:
    base = f"2001:db8:{draw(st.sampled_from(['0', '1']))}"
    word, other = draw(_WORD), draw(_WORD)
    longer = [f"{base}:{word}", f"{base}::{word}", f"{base}:{word}:{other}:0:0:{word}", f"{base}:{word}::/64"]
    form = draw(st.sampled_from([base, f"{base}::/48", "2001:db8::/32", "2001:db8::/47", "::/0", "2001/16", *longer]))
    return draw(_NOT) + form + draw(_VALUE)


@st.composite
def _half(draw: st.DrawFn) -> str:
    net = f"2001:db8:{draw(_WORD)}:{draw(_WORD)}"
    return draw(st.sampled_from([net, net, f"!{net}:{draw(_WORD)}:0:0:{draw(_WORD)}", f"!{net}::{draw(_WORD)}"]))


_LINES = {
    "ip4set": _ipv4(),
    "ip4tset": st.builds("{}{}".format, _ADDRESS, _VALUE),
    "ip6trie": _ipv6(),
    "ip6tset": _half(),
}


@st.composite
def _dataset(draw: st.DrawFn) -> tuple[str, str]:
    kind = draw(st.sampled_from(sorted(_LINES)))
    line = st.one_of(_LINES[kind], _LINES[kind], _LINES[kind], _SPECIAL)
    if draw(st.integers(0, 4)) == 0:
        line = st.one_of(line, line, _DOUBTFUL)
    return kind, "".join(f"{one}\n" for one in draw(st.lists(line, min_size=1, max_size=12)))


@pytest.fixture(scope="module")
def rbldnsd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rbldnsd]:
    directory = tmp_path_factory.mktemp("rbldnsd")
    os.chmod(directory, 0o755)
    with box(directory) as made:
        yield Rbldnsd(made)


def test_it_says_what_the_real_rbldnsd_answers(rbldnsd: Rbldnsd) -> None:
    """Many random zones at once; some with lines that rbldnsd leaves out, and those are never read in silence."""
    ipv4 = [f"241.51.{third}.{octet}" for third in (98, 99, 100, 101, 102) for octet in (0, 1, 3, 128, 255)]
    ipv4 += ["241.49.0.1", "241.50.0.1", "241.52.255.9", "240.1.1.1", "242.255.255.255"]
    words = ("0", "1", "db8", "ffff", "a")
    ipv6 = [f"2001:db8:{one}:{two}::{three}" for one in ("0", "1") for two in words for three in ("0", "a")]
    ipv6 = [str(ipaddress.ip_address(one.replace(":0:0::", "::"))) for one in ipv6]
    seen = {"zones": 0, "listed": 0}

    @given(st.lists(_dataset(), min_size=40, max_size=40))
    @settings(max_examples=2, phases=[hypothesis.Phase.generate], suppress_health_check=list(hypothesis.HealthCheck))
    def agrees(datasets: list[tuple[str, str]]) -> None:
        zones = {f"z{number}.example.net": [one] for number, one in enumerate(datasets)}
        rbldnsd.serve(zones)
        warned = rbldnsd.warnings()
        questions = [
            (zone, address) for zone, [(kind, _)] in zones.items() for address in (ipv4 if "4" in kind else ipv6)
        ]
        answers = dict(zip(questions, rbldnsd.ask(questions), strict=True))
        own = Ranges(["240.0.0.0/16", "240.1.1.0/24", "241.48.0.0/13", "242.255.255.0/24", "2001:db8::/32"])
        for zone, [(kind, text)] in zones.items():
            file = rbldnsd.box.directory / f"{zone}.0"
            content = parse_dataset(Dataset(kind, str(file)), own, time.time())
            # rbldnsd says where it has left something out; what it says of sizes is what the maker has asked for.
            lines = [line for line in warned.splitlines() if f"/{file.name}(" in line and "range (" not in line]
            assert bool(content.problems) >= any("invalid" in line or "unrecog" in line for line in lines), (
                text,
                lines,
            )
            if content.problems:
                continue
            seen["zones"] += 1
            for (asked, address), answer in answers.items():
                if asked == zone:
                    seen["listed"] += bool(answer)
                    assert sorted(content.answers(address)) == answer, (kind, text, address)

    agrees()
    assert seen["zones"] > 30
    assert seen["listed"] > 100


# -- by hand -----------------------------------------------------------------------------------------------------


def test_lists_exclusions_and_defaults(tmp_path: Path) -> None:
    text = """$SOA 1w ns.example.org h.example.org 0 1h 1h 1w 1h
$MAXRANGE4 /23
# the default of the file
:127.0.0.4:See https://example.org/$
127.0.0.2
198.51.100.0/29
!198.51.100.3
198.51.100.9 :127.0.0.3:by another
198.51.100.10-11
198.51.0.0/16
192.0.2.7
203.0.113.7
"""
    answer = feed(tmp_path, ("ip4set", text)).ask(["198.51.100.0/22", "192.0.2.0/24"])
    expected = [f"198.51.100.{octet}" for octet in (0, 1, 2, 4, 5, 6, 7)]
    expected = ["192.0.2.7", *expected, "198.51.100.9", "198.51.100.10", "198.51.100.11"]
    assert sorted(one for one, _ in networks(answer)) == sorted(expected)
    assert Listing("198.51.100.9", "CSS", "127.0.0.3") in answer.listings
    assert not answer.unanswered


def test_ipv6_and_several_files(tmp_path: Path) -> None:
    source = feed(
        tmp_path,
        ("ip4tset", ":4\n198.51.100.7\n"),
        ("ip4set", TESTS),
        (
            "ip6trie",
            f":4\n{TESTS6}2001:db8:1::/48\n2001:db8:2:3\n!2001:db8:2:3::25\n2001:db9::/32\n2001::/16\n!2001:db8::/32\n",
        ),
    )
    assert networks(source.ask(OWN)) == [
        ("198.51.100.7", "XBL"),
        ("2001:db8:1::/48", "XBL"),
        ("2001:db8:2:3::/64", "XBL"),
    ]


def test_a_prefix_that_a_wider_entry_lists_is_listed(tmp_path: Path) -> None:
    source = feed(tmp_path, ("ip6trie", f":4\n{TESTS6}2001:db8::/32\n"))
    assert networks(source.ask(["2001:db8:5::/48"])) == [("2001:db8:5::/48", "XBL")]


def test_what_no_file_is_about_is_not_answered_for(tmp_path: Path) -> None:
    answer = feed(tmp_path, ("ip4tset", ":4\n127.0.0.2\n")).ask(OWN)
    assert answer.unanswered == ("2001:db8::/32",)
    assert "IPv6" in answer.problems[0]


def test_a_compressed_file_is_read(tmp_path: Path) -> None:
    packed = gzip.compress(b":4\n127.0.0.2\n198.51.100.7\n")
    assert networks(feed(tmp_path, ("ip4tset", packed)).ask(OWN[:1])) == [("198.51.100.7", "XBL")]
    assert feed(tmp_path, ("ip4tset", packed[:-9])).ask(OWN[:1]).frozen


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "127.0.0.2 is not listed"),
        ("198.51.100.7\n", "127.0.0.2 is not listed"),
        (f"{TESTS}0.0.0.0/1\n128.0.0.0/1\n", "127.0.0.1 is listed"),
        (f"{TESTS}198.51.100.7", "the last line has no end"),
        ("<!DOCTYPE html>\n<title>Forbidden</title>\n", "feed.0:1: '<!DOCTYPE html>'"),
        (f"{TESTS}198.51.100.7/22\n", "feed.0:2: '198.51.100.7/22'"),
        (f"{TESTS}198.51.100.7 :x\n", "feed.0:2"),
        (f"{TESTS}$DATASET ip4set:a @\n", "feed.0:2"),
        (f"{TESTS}$TIMESTAMP 2037-01-01\n", "made in the future"),
        (f"{TESTS}$TIMESTAMP 2020-01-01 2020-01-02\n", "expired"),
        (f"{TESTS}$TIMESTAMP 2020-01-01 +2h\n", "expired"),
        (f"{TESTS}$TIMESTAMP 2020-13-01\n", "no timestamp"),
        (f"{TESTS}198.51.100.7 :127.255.255.255:\n", "127.255.255.255"),
        (f"{TESTS}198.51.100.7 :127.0.0.77:\n", "127.0.0.77"),
        (f":4\n{TESTS}198.51.100.0/23\n198.51.102.1\n", "513 of 1024"),
        ("x\n" * 2000, "nor are many others"),
        (f"{TESTS}198.51.100.{'7' * 5000}\n", "is too long"),
        (f"{TESTS}198.51.100.7/{'2' * 4000}\n", "feed.0:2"),
        (f"{TESTS}$TIMESTAMP 2020-01-01 +{'9' * 4000}h\n", "no timestamp"),
        (f"{TESTS}{'7' * (2 << 20)}\n", "a line of more than"),
    ],
)
def test_a_feed_in_doubt_is_no_listing_and_no_delisting(tmp_path: Path, text: str, said: str) -> None:
    answer = feed(tmp_path, ("ip4set", text)).ask(["198.51.100.0/22"])
    assert said in answer.frozen
    assert answer.listings == ()
    assert answer.unanswered == ("198.51.100.0/22",)


def test_a_damaged_feed_freezes(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(b"127.0.0.2\n" * 1000, mtime=0))
    packed[12:20] = b"\xff" * 8
    assert "Error -3" in feed(tmp_path, ("ip4tset", bytes(packed))).ask(OWN[:1]).frozen


def test_a_feed_that_came_long_ago_or_is_not_there_freezes(tmp_path: Path) -> None:
    source = feed(tmp_path, ("ip4tset", TESTS))
    old = time.time() - 25 * 3600
    os.utime(tmp_path / "feed.0", (old, old))
    assert "does rsync still run" in source.ask(OWN).frozen
    (tmp_path / "feed.0").unlink()
    assert "No such file" in source.ask(OWN).frozen
    assert "dnset" in Feed((Dataset("dnset", "/dev/null"),)).ask(OWN).frozen


def test_a_file_that_changes_while_it_is_read_freezes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = feed(tmp_path, ("ip4tset", TESTS))
    real, calls = os.fstat, []

    def grown(file: int) -> os.stat_result:
        calls.append(file)
        if len(calls) == 2:
            with open(tmp_path / "feed.0", "a") as more:
                more.write("198.51.100.7\n")
        return real(file)

    monkeypatch.setattr(os, "fstat", grown)
    with pytest.raises(Doubt, match="changed while it was read"):
        parse_dataset(source.datasets[0], Ranges(OWN), time.time())


# -- the delta ---------------------------------------------------------------------------------------------------

_OWN_ADDRESS = st.integers(0, 1023).map(lambda number: str(ipaddress.ip_address("198.51.100.0") + number))
_FOREIGN = st.integers(0, 255).map("203.0.113.{}".format)


@given(st.lists(st.lists(_OWN_ADDRESS | _FOREIGN, max_size=200), min_size=2, max_size=4))
@settings(max_examples=25, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
def test_the_feed_delta_is_exact(tmp_path: Path, feeds: list[list[str]]) -> None:
    state, before = State(), set()
    for number, lines in enumerate(feeds):
        listed = {line for line in lines if not line.startswith("203.")}
        answer = feed(tmp_path, ("ip4tset", ":4\n" + TESTS + "".join(f"{line}\n" for line in lines))).ask(OWN[:1])
        done = step(state, answer, lambda *_: Owner(UNKNOWN), number)
        assert {one.network for one in done.came} == listed - before
        assert {one.network for one in done.went} == before - listed
        assert {one.network for one in done.still} == before & listed
        known = {one.id: one for one in (*state.episodes, *done.episodes)}
        state, before = State(tuple(known.values()), (*done.still, *done.came), number, number), listed
