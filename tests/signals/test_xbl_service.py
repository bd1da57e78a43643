# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A run of the monitor from its settings to its state; on Debian's own Python against the real rbldnsd too."""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.isp.hardening.plugins.module_utils.signals import suspects, xbl_service
from ansible_collections.isp.hardening.plugins.module_utils.signals.xbl_service import Refused, main, read_settings, run
from tests.signals.box import box
from tests.signals.dnsbl import LISTED_TEST, ZONE, dnsbl
from tests.signals.rbldnsd import PORT, Rbldnsd

KEY, PASSWORD = "abcdefghijklmnopqrstuvwxyz", "correct horse"
ALICE = {"static": {"198.51.100.7/32": "alice", "198.51.100.8/32": "bob"}}


def settings(directory: Path, **more: Any) -> dict[str, Any]:
    return {
        "own": ["198.51.100.0/28"],
        "state": str(directory / "signals.db"),
        "lock": str(directory / "xbl.lock"),
        "source": "dns",
        "zone": ZONE,
        "rate": 0,
        "identity": ALICE,
    } | more


def rows(directory: Path, sql: str) -> list[Any]:
    with sqlite3.connect(directory / "signals.db") as state:
        return state.execute(sql).fetchall()


@pytest.fixture
def listed(tmp_path: Path) -> Iterator[tuple[Path, set[str]]]:
    """The directory of settings.json, and what the DNSBL lists."""
    addresses = {LISTED_TEST}
    credentials = tmp_path / "credentials"
    credentials.write_text(json.dumps({"dqs_key": KEY}))
    with dnsbl(lambda one: ["127.0.0.4"] if one in addresses else [], f"{KEY}.{ZONE}") as server:
        (tmp_path / "settings.json").write_text(
            json.dumps(settings(tmp_path, port=server.port, credentials=str(credentials)))
        )
        yield tmp_path, addresses


def service(directory: Path) -> int:
    return main([str(directory / "settings.json")])


def test_a_run_keeps_what_came_and_what_went(listed: tuple[Path, set[str]], capfd: pytest.CaptureFixture[str]) -> None:
    directory, addresses = listed
    assert service(directory) == 0
    addresses |= {"198.51.100.7", "198.51.100.9"}
    assert service(directory) == 0
    assert "2 came, 0 went, 0 still listed" in capfd.readouterr().out
    addresses -= {"198.51.100.7"}
    assert service(directory) == 0
    assert "0 came, 1 went, 1 still listed" in capfd.readouterr().out
    assert rows(directory, "SELECT subject, subscriber, ended > 0 FROM xbl_episode ORDER BY subject") == [
        ("198.51.100.9", "", 0),
        ("alice", "alice", 1),
    ]
    assert rows(directory, "SELECT frozen, whole, listed, came, went FROM xbl_run ORDER BY began") == [
        ("", 1, 0, 0, 0), ("", 1, 2, 2, 0), ("", 1, 1, 0, 1),
    ]  # fmt: skip


def test_a_frozen_run_fails_aloud_and_leaves_the_state(
    listed: tuple[Path, set[str]], capfd: pytest.CaptureFixture[str]
) -> None:
    directory, addresses = listed
    addresses |= {"198.51.100.7"}
    assert service(directory) == 0
    addresses |= {"127.0.0.1", "198.51.100.8"}  # it lists everything
    addresses -= {"198.51.100.7"}
    assert service(directory) == 1
    assert "no listing and no delisting" in capfd.readouterr().err
    assert rows(directory, "SELECT subject, ended FROM xbl_episode") == [("alice", 0)]
    [(frozen,)] = rows(directory, "SELECT frozen FROM xbl_run ORDER BY began DESC LIMIT 1")
    assert "127.0.0.1 is listed" in frozen
    everything = (directory / "signals.db").read_bytes()
    assert KEY.encode() not in everything


def test_check_mode_looks_and_keeps_nothing(listed: tuple[Path, set[str]]) -> None:
    directory, addresses = listed
    addresses |= {"198.51.100.7"}
    data = json.loads((directory / "settings.json").read_text())
    del data["credentials"]
    outcome = run(read_settings(data, {"dqs_key": KEY}), keep=False)
    assert [one.network for one in outcome.step.came] == ["198.51.100.7"]
    assert not (directory / "signals.db").exists()
    assert service(directory) == 0
    before = (directory / "signals.db").read_bytes()
    addresses -= {"198.51.100.7"}
    outcome = run(read_settings(data, {"dqs_key": KEY}), keep=False)
    assert [one.network for one in outcome.step.went] == ["198.51.100.7"]
    assert (directory / "signals.db").read_bytes() == before
    assert (outcome.figures["XBL"].open, outcome.figures["XBL"].closed) == (0, 1)


def test_to_look_where_nobody_may_enter_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(_path: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "exists", forbidden)
    asked = read_settings(settings(tmp_path), {})
    with pytest.raises(Refused, match="may read it"):
        run(asked, keep=False)
    with pytest.raises(Refused, match="may read it"):
        xbl_service.known(asked, "another run is under way")


def test_two_runs_never_overlap(listed: tuple[Path, set[str]], capfd: pytest.CaptureFixture[str]) -> None:
    directory, _ = listed
    with open(directory / "xbl.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert service(directory) == xbl_service.BUSY
    assert "another run" in capfd.readouterr().err
    assert not (directory / "signals.db").exists()
    assert service(directory) == 0


def test_the_table_of_the_suspects_is_theirs() -> None:
    assert xbl_service.SUSPECTS.strip() in suspects.SCHEMA


def test_own_detection_that_came_first_is_counted(listed: tuple[Path, set[str]]) -> None:
    directory, addresses = listed
    assert service(directory) == 0
    now = rows(directory, "SELECT MAX(began) FROM xbl_run")[0][0]
    with sqlite3.connect(directory / "signals.db") as state:
        state.execute("INSERT INTO suspects (subscriber, since, latest) VALUES ('alice', ?, ?)", (now - 5000, now))
    addresses |= {"198.51.100.7", "198.51.100.8"}
    data = json.loads((directory / "settings.json").read_text())
    del data["credentials"]
    figures = run(read_settings(data, {"dqs_key": KEY})).figures["XBL"]
    assert (figures.open, figures.led) == (2, 1)
    assert figures.lead >= 5000  # type: ignore[operator]


@pytest.mark.parametrize(
    ("wrong", "secrets", "said"),
    [
        ({"own": []}, {}, "own: there are none"),
        ({"own": ["192.0.2.1/24"]}, {}, "own: 192.0.2.1/24 has host bits set"),
        ({"own": "192.0.2.0/24"}, {}, "own: there are none"),
        ({"state": "signals.db"}, {}, "state: write a whole path"),
        ({"source": "web"}, {}, "source: write dns, sia or feed"),
        ({"source": "sia"}, {"sia_username": "a"}, "sia_password are missing"),
        ({"source": "sia", "url": "https://["}, {"sia_username": "a", "sia_password": PASSWORD}, "url: Invalid IPv6"),
        ({"source": "feed"}, {}, "feed: write files"),
        ({"source": "feed", "feed": [{"kind": "dnset", "path": "/x"}]}, {}, "kinds: ip4set"),
        ({"rate": -1}, {}, "rate: write queries a second"),
        ({"port": 70000}, {}, "port: write a number"),
        ({"zone": 7}, {}, "zone: is not a text"),
        ({"zone": f"{KEY}.zen.dq.spamhaus.net"}, {}, "zone: its name holds a DQS key"),
        ({"zonne": "x"}, {}, "settings: zonne is not known"),
        ({"identity": {"leases": []}}, {}, "identity: leases is not known"),
        ({}, {"key": PASSWORD}, "credentials: key is not known"),
        ({}, {"dqs_key": 7}, "dqs_key: is not a text"),
    ],
)
def test_wrong_settings_are_refused_with_what_to_do(
    tmp_path: Path, wrong: dict[str, Any], secrets: dict[str, Any], said: str
) -> None:
    with pytest.raises(Refused) as refused:
        read_settings(settings(tmp_path, **wrong), secrets)
    assert said in str(refused.value)
    assert PASSWORD not in str(refused.value)
    assert KEY not in str(refused.value)


def test_files_that_are_none_are_refused_without_a_traceback(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "settings.json"
    for text in ("", "[]", '{"own": [', "\0"):
        file.write_text(text)
        assert main([str(file)]) == 1
    assert main([str(tmp_path / "absent.json")]) == 1
    assert main([]) == 2
    file.write_text(json.dumps(settings(tmp_path, identity={"kea": "/x"})))
    assert main([str(file)]) == 1
    file.write_text(json.dumps(settings(tmp_path, identity={"subscriber": "Shoe-Size"})))
    assert main([str(file)]) == 1
    file.write_text(json.dumps(settings(tmp_path, lock="/proc/none/xbl.lock")))
    assert main([str(file)]) == 1
    file.write_text(json.dumps(settings(tmp_path)))
    assert main(["--check", str(file)]) == 0
    told = capfd.readouterr().err
    assert "Traceback" not in told
    assert "'Shoe-Size' names no customer" in told
    assert not (tmp_path / "signals.db").exists()


def test_no_repr_shows_a_secret(tmp_path: Path) -> None:
    dsn = f"postgresql://signals:{PASSWORD}@192.0.2.1/signals"
    shown = repr(read_settings(settings(tmp_path), {"dqs_key": KEY, "state": dsn}))
    shown += repr(read_settings(settings(tmp_path, source="sia"), {"sia_username": "a", "sia_password": PASSWORD}))
    assert KEY not in shown
    assert PASSWORD not in shown


def test_on_debian_against_the_real_rbldnsd(tmp_path: Path) -> None:
    """By DNS and from the files that rbldnsd serves: the same listings, with the standard library alone."""
    os.chmod(tmp_path, 0o755)
    ipv4 = ":4\n127.0.0.2\n198.51.100.7\n198.51.100.9 :3:css\n198.51.100.10 :10:pbl\n203.0.113.0/24\n"
    ipv6 = ":4\n::ffff:7f00:2\n2001:db8:0:7::/64\n"
    own = ["198.51.100.0/28", "2001:db8::/56"]
    identity = {"static": {"198.51.100.7/32": "alice", "2001:db8:0:7::/64": "alice"}}
    with box(tmp_path) as made:
        rbldnsd = Rbldnsd(made)
        rbldnsd.serve({ZONE: [("ip4set", ipv4), ("ip6trie", ipv6)]})
        feed = [{"kind": "ip4set", "path": f"/box/{ZONE}.0"}, {"kind": "ip6trie", "path": f"/box/{ZONE}.1"}]
        found = {}
        for source in ("dns", "feed"):
            there = {"state": f"/box/{source}.db", "lock": "/box/lock", "source": source, "port": PORT, "feed": feed}
            data = settings(tmp_path, own=own, identity=identity, **there)
            (tmp_path / "settings.json").write_text(json.dumps(data))
            said = rbldnsd.run_module("xbl_service", "/box/settings.json").stdout
            assert "3 came, 0 went" in said
            with sqlite3.connect(tmp_path / f"{source}.db") as state:
                found[source] = state.execute(
                    "SELECT network, list, code, episode LIKE '%:alice:%' FROM xbl_listing ORDER BY network"
                ).fetchall()
        rbldnsd.serve({ZONE: [("ip4set", ":4\n198.51.100.7\n")]})  # without the test entry
        data = settings(tmp_path, own=own, state="/box/dns.db", lock="/box/lock", port=PORT)
        (tmp_path / "settings.json").write_text(json.dumps(data))
        broken = rbldnsd.run_module("xbl_service", "/box/settings.json", check=False)
        assert broken.returncode == 1
        assert "no listing and no delisting: dns: zen.example.net" in broken.stdout
    assert found["dns"] == found["feed"] == [
        ("198.51.100.7", "XBL", "127.0.0.4", 1),
        ("198.51.100.9", "CSS", "127.0.0.3", 0),
        ("2001:db8:0:7::/64", "XBL", "127.0.0.4", 1),
    ]  # fmt: skip
    with sqlite3.connect(tmp_path / "dns.db") as state:
        assert state.execute("SELECT COUNT(*) FROM xbl_listing WHERE ended = 0").fetchall() == [(3,)]
