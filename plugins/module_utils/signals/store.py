# Copyright: isp.hardening contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where the signals keep what must outlive a run: a file (SQLite), or a PostgreSQL that several hosts share.

Whoever keeps something declares his tables in SQL that both know (BIGINT, DOUBLE PRECISION, TEXT), and writes `?` for a
parameter. One `with` is one transaction: an exception leaves the state as it was.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

BUSY_SECONDS = 30.0


class StoreError(Exception):
    """The state cannot be read or written; nothing was changed. The text never holds the DSN, which has a password."""


class Connection(Protocol):
    """What both drivers have of PEP 249."""

    def cursor(self) -> Any: ...


class Store:
    """One open transaction."""

    def __init__(self, connection: Connection, mark: str) -> None:
        self._connection = connection
        self._mark = mark

    def rows(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        cursor = self._connection.cursor()
        cursor.execute(self._said(sql), tuple(parameters))
        return list(cursor.fetchall())

    def run(self, sql: str, parameters: Sequence[object] = ()) -> int:
        """Carry out one statement; how many rows it touched."""
        cursor = self._connection.cursor()
        cursor.execute(self._said(sql), tuple(parameters))
        return int(cursor.rowcount)

    def many(self, sql: str, rows: Sequence[Sequence[object]]) -> None:
        """Carry out one statement for each of the rows."""
        self._connection.cursor().executemany(self._said(sql), [tuple(row) for row in rows])

    def _said(self, sql: str) -> str:
        return sql.replace("?", self._mark)


@contextlib.contextmanager
def open_store(dsn: str, schema: str) -> Iterator[Store]:
    """The state at a path or at postgresql://…, with the tables of `schema` (CREATE TABLE IF NOT EXISTS …;).

    Written when the block ends, left alone when it raises. Raises StoreError with what to do.
    """
    if dsn.startswith("postgresql://"):
        with _postgresql(dsn, schema) as store:
            yield store
    elif "://" in dsn:  # as a path it would stand on the disk, with its password
        raise StoreError("isp_signals.state: neither a path nor an address that begins with postgresql://; write one")
    else:
        with _sqlite(dsn, schema) as store:
            yield store


@contextlib.contextmanager
def _sqlite(path: str, schema: str) -> Iterator[Store]:
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"{path}: {error}; name a file that can be written in isp_signals.state") from error
    try:
        connection.execute("BEGIN IMMEDIATE")  # two runs at once wait for each other, and never see half
        for statement in _statements(schema):
            connection.execute(statement)
        yield Store(connection, "?")
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise StoreError(f"{path}: {error}; is it a file of ours, and its disk not full?") from error
    finally:
        connection.close()


@contextlib.contextmanager
def _postgresql(dsn: str, schema: str) -> Iterator[Store]:
    try:
        import psycopg
    except ImportError as error:
        raise StoreError("a PostgreSQL is named in isp_signals.state; install psycopg (python3-psycopg)") from error
    try:
        # A database in SQL_ASCII gives texts as bytes otherwise.
        with psycopg.connect(dsn, connect_timeout=10, client_encoding="UTF8") as connection:
            # CREATE … IF NOT EXISTS of two at once can fail: whoever comes second waits.
            connection.execute("SELECT pg_advisory_xact_lock(1769173104)")
            for statement in _statements(schema):
                connection.execute(statement.encode())
            yield Store(connection, "%s")
    except psycopg.Error as error:
        said = " ".join(str(error.diag.message_primary or type(error).__name__).split())
        raise StoreError(f"PostgreSQL of isp_signals.state: {said}; mend the DSN, or the server") from error


def _statements(schema: str) -> list[str]:
    return [statement for part in schema.split(";") if (statement := part.strip())]
