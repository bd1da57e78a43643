# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The state: kept when a run ends well, left as it was when it does not. SQLite here; PostgreSQL where one runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.isp.hardening.plugins.module_utils.signals.store import StoreError, open_store

SCHEMA = """
CREATE TABLE IF NOT EXISTS listing (address TEXT PRIMARY KEY, seen BIGINT NOT NULL);
CREATE INDEX IF NOT EXISTS listing_seen ON listing (seen);
"""


def test_what_is_written_is_there_in_the_next_run(tmp_path: Path) -> None:
    state = str(tmp_path / "new" / "signals.db")
    with open_store(state, SCHEMA) as store:
        store.many("INSERT INTO listing VALUES (?, ?)", [("198.51.100.9", 1), ("198.51.100.8", 2)])
    with open_store(state, SCHEMA) as store:
        assert store.run("DELETE FROM listing WHERE seen = ?", (1,)) == 1
        assert store.rows("SELECT address, seen FROM listing") == [("198.51.100.8", 2)]


def fail_after(_: int) -> None:
    raise RuntimeError("the run ends here")


def test_a_run_that_fails_leaves_the_state_as_it_was(tmp_path: Path) -> None:
    state = str(tmp_path / "signals.db")
    with open_store(state, SCHEMA) as store:
        store.run("INSERT INTO listing VALUES (?, ?)", ("198.51.100.9", 1))
    with pytest.raises(RuntimeError), open_store(state, SCHEMA) as store:
        fail_after(store.run("DELETE FROM listing"))
    with open_store(state, SCHEMA) as store:
        assert store.rows("SELECT COUNT(*) FROM listing") == [(1,)]


def test_what_is_no_state_of_ours_is_refused_and_left_alone(tmp_path: Path) -> None:
    foreign = tmp_path / "signals.db"
    foreign.write_text("minutes of a meeting " * 100)
    with pytest.raises(StoreError, match="file of ours"), open_store(str(foreign), SCHEMA):
        pass
    assert foreign.read_text().startswith("minutes")
    with pytest.raises(StoreError, match=r"isp_signals\.state"), open_store("/proc/none/signals.db", SCHEMA):
        pass


def test_an_unreachable_database_is_told_without_its_password() -> None:
    dsn = "postgresql://signals:hunter2@127.0.0.1:1/signals"
    with pytest.raises(StoreError, match="PostgreSQL") as told, open_store(dsn, SCHEMA):
        pass
    assert "hunter2" not in str(told.value)


def test_a_database_of_another_kind_is_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match="neither a path") as told, open_store("postgres://a:hunter2@b/c", SCHEMA):
        pass
    assert "hunter2" not in str(told.value)
    assert list(tmp_path.iterdir()) == []
