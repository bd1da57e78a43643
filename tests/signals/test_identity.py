# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who had an address: each folder of identity/ is a set of files and the answers that they give."""

from __future__ import annotations

import datetime
import gzip
import tempfile
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest
from ruamel.yaml import YAML

from ansible_collections.isp.hardening.plugins.module_utils.signals import episodes
from ansible_collections.isp.hardening.plugins.module_utils.signals.identity import (
    Sources,
    owner,
    read_sources,
    sessions,
    touchable,
)
from ansible_collections.isp.hardening.plugins.module_utils.signals.identity_tenures import (
    RADIUS,
    Tenure,
    index,
    prefix_text,
    read_prefix,
)
from ansible_collections.isp.hardening.plugins.module_utils.signals.records import AMBIGUOUS, KNOWN, UNKNOWN
from ansible_collections.isp.hardening.plugins.module_utils.signals.store import open_store
from ansible_collections.isp.hardening.plugins.module_utils.signals.xbl import Answer, Listing

HERE = Path(__file__).parent / "identity"
CASES = sorted(path.name for path in HERE.iterdir() if path.is_dir())


def ms(text: str) -> int:
    return round(datetime.datetime.fromisoformat(text).timestamp() * 1000)


def read(name: str, skew_ms: int = 30_000) -> tuple[dict[str, Any], Sources]:
    """A folder's questions, and its files as sources."""
    questions = YAML(typ="safe").load((HERE / name / "questions.yml").read_text())
    files = {kind: [str(HERE / name / file) for file in names] for kind, names in questions.get("sources", {}).items()}
    return questions, read_sources(files, skew_ms=skew_ms, **questions.get("options", {}))


@pytest.mark.parametrize("name", CASES)
def test_the_files_of_a_folder_give_its_answers(name: str) -> None:
    questions, sources = read(name)
    assert questions["answers"]
    for answer in questions["answers"]:
        found = owner(sources, str(answer["ask"]), ms(answer["at"]), answer.get("port"))
        state, _, subscriber = answer["is"].partition(" ")
        assert (found.state, found.subscriber) == (state, subscriber), (answer, found)
        assert answer.get("because", "") in found.reason, (answer, found)
        assert bool(found.reason) is (found.state != KNOWN)
        if "prefixes" in answer:
            assert list(found.prefixes) == answer["prefixes"], (answer, found)
        assert (found.state == KNOWN) == bool(found.prefixes)


@pytest.mark.parametrize("name", CASES)
def test_what_could_not_be_read_is_told_and_nothing_else(name: str) -> None:
    questions, sources = read(name)
    told = [silence.reason for silence in sources.told]
    for expected in questions.get("told", []):
        assert any(expected in f"{one} {silence.mend}" for one, silence in zip(told, sources.told, strict=True)), told
    if not questions.get("told"):
        assert told == []


def test_a_cgn_event_without_port_has_no_owner_so_that_nothing_is_done() -> None:
    _, sources = read("cgn_blocks")
    known = owner(sources, "198.51.100.1", ms("2026-11-26T10:10:00Z"), port=1100)
    without = owner(sources, "198.51.100.1", ms("2026-11-26T10:10:00Z"))
    assert (known.state, known.subscriber) == (KNOWN, "alice@example.net")
    assert (without.state, without.subscriber, without.prefixes) == (AMBIGUOUS, "", ())


@pytest.mark.parametrize(
    ("seconds", "state", "subscriber"),
    [
        (-31, KNOWN, "alice@example.net"),
        (-30, AMBIGUOUS, ""),
        (-1, AMBIGUOUS, ""),
        (0, AMBIGUOUS, ""),
        (30, AMBIGUOUS, ""),
        (31, KNOWN, "bob@example.net"),
    ],
)
def test_thirty_seconds_of_skew_at_the_boundary_of_a_block_are_ambiguous(
    seconds: int, state: str, subscriber: str
) -> None:
    _, sources = read("cgn_handover")
    found = owner(sources, "198.51.100.1", ms("2026-11-26T10:30:00Z") + seconds * 1000, port=1100)
    assert (found.state, found.subscriber) == (state, subscriber)


def test_a_lease_that_changes_in_the_lease_file_closes_no_episode(tmp_path: Path) -> None:
    """The device that was listed at .7 gets .9, another one gets .7: the episode stays the first one's, and open."""
    begin = 1_795_687_200  # 2026-11-26 10:00 UTC
    head = (
        "address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state,user_context,pool_id"
    )
    rows = [
        (7, "01", begin - 86_400, begin + 5 * 3600),
        (7, "02", begin + 5 * 3600 + 600, begin + 30 * 3600),
        (9, "01", begin + 5 * 3600 + 600, begin + 30 * 3600),
    ]
    lines = [
        f"203.0.113.{last},00:00:5e:00:53:{mac},,{end - start},{end},1,0,0,,0,,0" for last, mac, start, end in rows
    ]
    (tmp_path / "kea-leases4.csv").write_text("\n".join([head, *lines]) + "\n")
    sources = read_sources({"kea": [str(tmp_path / "kea-leases4.csv")]})
    state = str(tmp_path / "signals.db")

    def run(*listed: str, hours: float) -> None:
        said = Answer("dns", tuple(Listing(one, "XBL", "127.0.0.4") for one in listed), (), (), "")
        now = round((begin + hours * 3600) * 1000)
        with open_store(state, episodes.SCHEMA) as store:
            done = episodes.step(
                episodes.read_state(store, now), said, lambda net, time: owner(sources, net, time), now
            )
            episodes.write(store, done, now)

    run(hours=0)
    run("203.0.113.7", hours=1)
    run("203.0.113.7", hours=6)  # the other device has it now
    with open_store(state, episodes.SCHEMA) as store:
        ((subject, ended),) = [(one.subject, one.ended) for one in episodes.read_episodes(store)]
    assert (subject, ended) == ("mac 00:00:5e:00:53:01", 0)
    assert touchable(sources, subject, (begin + 6 * 3600) * 1000, ["203.0.113.7"]) == ("203.0.113.9/32",)


def test_the_skew_is_the_policys() -> None:
    time = ms("2026-11-26T10:29:50Z")
    assert owner(read("radius_handover")[1], "203.0.113.7", time).state == AMBIGUOUS
    assert owner(read("radius_handover", skew_ms=5_000)[1], "203.0.113.7", time).subscriber == "alice@example.net"


def test_a_session_has_what_a_coa_names() -> None:
    _, sources = read("radius_sessions")
    (session,) = sessions(sources, "alice@example.net", ms("2026-11-26T10:20:00Z"))
    assert (session.session_id, session.user_name, session.nas_address) == ("0001", "alice@example.net", "192.0.2.1")
    assert session.start == ms("2026-11-26T10:00:00Z")
    assert session.prefixes == ("203.0.113.7/32", "2001:db8:1::/64", "2001:db8:ff::/56")
    assert sessions(sources, "alice@example.net", ms("2026-11-26T10:35:00Z")) == ()
    (going_on,) = sessions(sources, "bob@example.net", ms("2026-11-26T10:45:00Z"))
    assert going_on.end is None
    assert sessions(sources, "nobody@example.net", ms("2026-11-26T10:20:00Z")) == ()


def test_of_a_delegated_prefix_only_what_is_asked_about_is_acted_upon() -> None:
    _, sources = read("radius_sessions")
    time = ms("2026-11-26T10:20:00Z")
    given = ("203.0.113.7/32", "2001:db8:1::/64")
    assert touchable(sources, "alice@example.net", time) == given
    listed = ["2001:db8:ff:7::/64", "2001:db8:ff:8::1", "2001:db8:fe::/64", "203.0.113.9"]
    assert touchable(sources, "alice@example.net", time, listed) == (
        *given,
        "2001:db8:ff:7::/64",
        "2001:db8:ff:8::/64",
    )
    assert touchable(sources, "alice@example.net", ms("2026-11-26T10:35:00Z"), listed) == ()


def test_what_another_has_too_is_not_acted_upon() -> None:
    """By the records carol has two addresses, and one of them is dave's as well: a Stop was lost on another NAS."""
    rows = [("203.0.113.7", "carol"), ("203.0.113.8", "carol"), ("203.0.113.8", "dave")]
    made = index(Tenure(*read_prefix(address), 0, 10**12, RADIUS, name) for address, name in rows)
    sources = Sources(made)
    assert owner(sources, "203.0.113.7", 10**9).prefixes == ("203.0.113.7/32",)
    assert touchable(sources, "carol", 10**9) == ("203.0.113.7/32",)
    assert touchable(sources, "dave", 10**9) == ()


@pytest.mark.parametrize(
    ("held", "asked", "state"),
    [
        ("203.0.113.7", "203.0.113.0/29", AMBIGUOUS),
        ("2001:db8:1::/64", "2001:db8::/40", AMBIGUOUS),
        ("2001:db8:1::/56", "2001:db8:1::/56", KNOWN),
        ("2001:db8:1::/56", "2001:db8:1:7::/64", KNOWN),
        ("2001:db8:1::5", "2001:db8:1::/64", KNOWN),  # a link counts as one subscriber's
        ("203.0.113.0/24", "203.0.113.0/29", KNOWN),
    ],
)
def test_who_has_a_part_of_it_is_not_who_has_a_prefix(held: str, asked: str, state: str) -> None:
    sources = read_sources({}, static={held: "alice"})
    assert owner(sources, asked, 10**9).state == state


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("cgn", "time,event,address,first_port,last_port,inside\n1795687200,allo\rcate,198.51.100.1,1,2,100.64.0.7\n"),
        ("radacct", "acctstarttime,us\rername\n2026-11-26,alice\n"),
    ],
)
def test_a_line_that_no_csv_has_is_told(kind: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text(text, newline="")
    (told,) = read_sources({kind: [str(tmp_path / "file")]}).told
    assert "CSV" in told.reason


def test_compressed_files_are_read_and_a_damaged_one_is_told(tmp_path: Path) -> None:
    text = (HERE / "isc_renewed_and_released" / "dhcpd.leases").read_bytes()
    whole, cut = tmp_path / "dhcpd.leases.1.gz", tmp_path / "dhcpd.leases.2.gz"
    whole.write_bytes(gzip.compress(text))
    cut.write_bytes(gzip.compress(text)[:-20])
    time = ms("2026-11-26T10:10:00Z")
    sources = read_sources({"isc_dhcp": [str(whole)]})
    assert (owner(sources, "203.0.113.7", time).state, sources.told) == (KNOWN, ())
    assert any("ends early or is damaged" in one.reason for one in read_sources({"isc_dhcp": [str(cut)]}).told)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"files": {"dnsmasq": []}}, "no kind of source"),
        ({"files": {}, "subscriber": "Framed-IP-Address"}, "names no customer"),
        ({"files": {}, "zone": "Mars/Olympus"}, "no time zone"),
        ({"files": {}, "static": {"203.0.113.0/33": "a"}}, "203.0.113.0/33"),
        ({"files": {}, "static": {"203.0.113.0/24": 1001}}, "subscriber of 203.0.113.0/24 is no readable text"),
        ({"files": {}, "static": {"203.0.113.0/24": ""}}, "subscriber of 203.0.113.0/24 is no readable text"),
        ({"files": {}, "cgn": ["many"]}, "many"),
    ],
)
def test_an_option_that_is_none_is_refused(arguments: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_sources(**arguments)


# Times and addresses close together, so that most questions meet a boundary.
_TENURES = st.lists(
    st.builds(
        lambda family, last, spare, start, long, name, port: Tenure(
            family,
            (0xCB007100 if family == 4 else 0x20010DB8 << 96) + (last >> spare << spare),
            (32 if family == 4 else 128) - spare,
            start,
            start + long,
            RADIUS,
            name,
            None,
            (port * 8, port * 8 + 7 + (port == 1) * 8) if port and not spare else None,
        ),
        st.sampled_from([4, 6]),
        st.integers(0, 7),
        st.sampled_from([0, 0, 0, 1, 2]),
        st.integers(0, 60),
        st.integers(1, 30),
        st.sampled_from("abc"),
        st.integers(0, 2),
    ),
    max_size=25,
)


@hypothesis.settings(max_examples=150)
@hypothesis.given(
    _TENURES,
    st.sampled_from([4, 6]),
    st.integers(0, 7),
    st.integers(0, 2),
    st.integers(0, 90),
    st.integers(0, 9),
    st.integers(0, 40),
)
def test_the_index_finds_what_a_look_at_every_tenure_finds(
    tenures: list[Tenure], family: int, last: int, spare: int, time: int, skew: int, port: int
) -> None:
    bits = 32 if family == 4 else 128
    first = (0xCB007100 if family == 4 else 0x20010DB8 << 96) + (last >> spare << spare)
    final = first + (1 << spare) - 1
    found = index(tenures)

    def touches(row: Tenure) -> bool:
        if row.family != family:
            return False
        end = row.network + (1 << bits - row.length) - 1
        return row.network <= final and end >= first and row.start <= time + skew and row.end >= time - skew

    plain = [row for row in tenures if not row.ports and touches(row)]
    assert sorted(found.at(family, first, bits - spare, time - skew, time + skew)) == sorted(plain)
    blocks = [row for row in tenures if row.ports and row.network == first and touches(row)]
    held = [row for row in blocks if row.ports and row.ports[0] <= port <= row.ports[1]]
    assert sorted(found.behind(family, first, port, time - skew, time + skew)) == sorted(held)
    assert found.shared(family, first) == any(
        row.ports and row.network == first and row.family == family for row in tenures
    )


@hypothesis.settings(max_examples=150)
@hypothesis.given(_TENURES, st.integers(0, 7), st.integers(0, 90), st.integers(0, 9))
def test_known_is_who_alone_had_it_all_around_the_time(tenures: list[Tenure], last: int, time: int, skew: int) -> None:
    plain = [row for row in tenures if not row.ports]
    address = prefix_text(4, 0xCB007100 + last, 32)
    found = owner(Sources(index(plain), skew=skew), address.partition("/")[0], time)
    near = [
        row
        for row in plain
        if row.family == 4 and row.network == (0xCB007100 + last) >> 32 - row.length << 32 - row.length
        if row.start <= time + skew and row.end >= time - skew
    ]
    names = {row.subscriber for row in near}
    has = any(row.start <= time < row.end for row in near)
    assert found.state == (AMBIGUOUS if len(names) > 1 else KNOWN if has else UNKNOWN)
    assert (found.subscriber in names) if has and len(names) == 1 else found.subscriber == ""


_FILES = [
    (kind, (HERE / name / file).read_bytes())
    for name in CASES
    for kind, files in (YAML(typ="safe").load((HERE / name / "questions.yml").read_text()).get("sources") or {}).items()
    for file in files
    if (HERE / name / file).exists()
]


@hypothesis.settings(max_examples=150)
@hypothesis.given(st.data())
def test_no_content_raises_and_the_last_record_cut_off_is_never_made_up(data: st.DataObject) -> None:
    kind, octets = data.draw(st.sampled_from(_FILES))
    changed = bytearray(octets)
    for _ in range(data.draw(st.integers(1, 5))):
        place = data.draw(st.integers(0, len(changed)))
        if data.draw(st.booleans()):
            changed[place:place] = data.draw(st.binary(max_size=4))
        else:
            del changed[place : place + data.draw(st.integers(0, 60))]
    with tempfile.NamedTemporaryFile() as file:
        file.write(changed)
        file.flush()
        sources = read_sources({kind: [file.name]}, zone="UTC")
    for address in ("203.0.113.7", "2001:db8:1::5", "198.51.100.1"):
        found = owner(sources, address, ms("2026-11-26T10:10:00Z"), 1100)
        assert (found.state == KNOWN) == bool(found.subscriber)


@pytest.mark.parametrize(("kind", "octets"), _FILES)
def test_a_file_cut_at_any_place_knows_nothing_that_the_whole_one_does_not(
    kind: str, octets: bytes, tmp_path: Path
) -> None:
    """What is half written is left out: a cut file says who had an address as the whole one does, or says less."""
    path = tmp_path / "file"
    path.write_bytes(octets)
    whole = read_sources({kind: [str(path)]}, zone="UTC")
    names = {row.subscriber for layer in whole.index.layers.values() for row in layer.rows}
    prefixes = {row.prefix for layer in whole.index.layers.values() for row in layer.rows}
    inside = {row.behind for layer in whole.index.blocks.values() for row in layer.rows}
    for end in range(0, len(octets), max(1, len(octets) // 40)):
        path.write_bytes(octets[:end])
        cut = read_sources({kind: [str(path)]}, zone="UTC").index
        rows = [row for layer in cut.layers.values() for row in layer.rows if not row.doubt]
        assert {row.subscriber for row in rows} <= names
        assert {row.prefix for row in rows} <= prefixes
        assert {row.behind for layer in cut.blocks.values() for row in layer.rows} <= inside


def test_the_lease_files_of_others_are_read(sample_data: Path) -> None:
    """All of ../shared/data/leases: leases that are in them are found, and what is no lease file is told."""
    leases = sample_data / "leases"
    isc = [str(path) for path in sorted((leases / "isc-dhcp").rglob("*.leases*")) if path.is_file()]
    kea = [str(path) for path in sorted((leases / "kea").rglob("*.csv"))]
    packets = [str(path) for path in sorted((leases / "freeradius").rglob("acct_*.attrs")) if path.stat().st_size > 100]
    schemas = [str(path) for path in sorted((leases / "freeradius").rglob("schema.sql"))]
    assert len(isc) >= 5
    assert len(kea) >= 3
    assert len(packets) >= 3
    assert len(schemas) >= 3
    sources = read_sources({"isc_dhcp": isc, "kea": kea, "radius": packets, "radacct": schemas}, zone="Asia/Jakarta")
    expected = {
        ("10.10.10.10", "2016-02-27T08:00:00Z"): "remote-id a4:a2:4a:33:db:e5",
        ("10.0.0.1", "2017-10-05T16:00:00Z"): "mac 2a:b2:2a:b2:2a:b2",
        ("2001:610:500:fff::1", "2015-08-18T17:00:00Z"): "duid 00:01:00:01:1d:66:1f:e2:0a:00:27:00:00:00",
        ("2001:10:30:ff00::1", "2016-01-06T15:00:00Z"): "duid 00:01:00:01:1d:34:4c:00:00:25:90:6b:a1:34",
        ("0.0.0.12", "2022-01-01T00:00:00Z"): "",
        ("198.51.100.59", "2015-02-01T01:27:10Z"): "user2@example.org",
    }
    assert {asked: owner(sources, asked[0], ms(asked[1])).subscriber for asked in expected} == expected
    told = " ".join(silence.reason for silence in sources.told)
    assert "fuzz/corp/leases.csv line 1: has no column address" in told
    assert not any(Path(path).name in told for path in isc)
