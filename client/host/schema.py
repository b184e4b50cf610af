"""The tables of a host's store, and how its file is opened."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clmm_core.errors import ClmmError, DataError

FILE = "store.sqlite"
VERSION = 1
"""In the file; one of another version is refused, not guessed at."""
BUSY_S = 10.0
"""So long one connection waits for another to be done."""
OWNER_ONLY = 0o600
_TABLES = """
CREATE TABLE streams (
    id INTEGER PRIMARY KEY AUTOINCREMENT, subject TEXT NOT NULL, recording TEXT NOT NULL, device TEXT NOT NULL, number INTEGER NOT NULL,
    placement TEXT NOT NULL, channels TEXT NOT NULL, nominal_hz REAL NOT NULL,
    next_sequence INTEGER NOT NULL DEFAULT 0,  -- all below are here, refused, let go of or deleted
    is_finished INTEGER NOT NULL DEFAULT 0, last_seen_ns INTEGER NOT NULL,
    UNIQUE (subject, recording, device, number)
);
CREATE TABLE chunks (  -- in the order in which they came
    id INTEGER PRIMARY KEY, stream INTEGER NOT NULL REFERENCES streams, sequence INTEGER NOT NULL,
    t0_ns INTEGER NOT NULL, end_ns INTEGER NOT NULL, received_ns INTEGER NOT NULL, offsets BLOB NOT NULL, samples BLOB NOT NULL,
    UNIQUE (stream, sequence)
);
CREATE INDEX chunks_by_time ON chunks (stream, t0_ns, end_ns);
CREATE TABLE labels (
    id TEXT PRIMARY KEY, subject TEXT NOT NULL, recording TEXT NOT NULL, activity TEXT NOT NULL,
    start_ns INTEGER NOT NULL, end_ns INTEGER NOT NULL, source INTEGER NOT NULL, corrected_by TEXT REFERENCES labels
) WITHOUT ROWID;
CREATE TABLE withheld (  -- times of which nothing is kept: deleted, or paused; without an end it is paused now
    subject TEXT NOT NULL, start_ns INTEGER NOT NULL, end_ns INTEGER  -- subject '' is all of them
);
"""


class StoreFullError(ClmmError):
    """The disk, or what the operating system lets the store have of it, is full; what the store had it still has."""


def open_store(folder: Path) -> sqlite3.Connection:
    """Open a host's store, and make it where there is none; its owner alone can read it.

    Raises:
        DataError: it is no store, or one of another version.
        StoreFullError: there is no room for a new one.
    """
    path = folder / FILE
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, OWNER_ONLY))  # SQLite gives WAL and shared memory the rights of this file
    path.chmod(OWNER_ONLY)
    connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        with full_disk_told(path):
            _prepare(connection, path)
    except sqlite3.DatabaseError as error:
        connection.close()
        raise DataError(f"{path}: expected a store of this host, cannot read it: {error}; move it away to begin a new one") from error
    except ClmmError:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    for pragma in (
        "journal_mode = WAL",
        "synchronous = FULL",  # what is acknowledged survives a power cut, not only a killed process
        "secure_delete = ON",
        "temp_store = FILE",  # what VACUUM writes anew may not fit into a board's memory; `daemon.py` says where
        "journal_size_limit = 16777216",
        "foreign_keys = ON",
    ):
        connection.execute(f"PRAGMA {pragma}")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version not in (0, VERSION):
        raise DataError(f"{path}: expected a store of version {VERSION}, found {version}: use the release that wrote it, or move it away")
    if version == 0:
        with transaction(connection):
            for statement in _TABLES.split(";\n"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {VERSION}")


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Do all of it or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # a full disk has rolled it back by itself
            connection.execute("ROLLBACK")
        raise


@contextmanager
def full_disk_told(path: Path) -> Iterator[None]:
    """Tell a full disk from other failures of SQLite.

    Raises:
        StoreFullError: there was no room for what was written; nothing of it was.
    """
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
            raise
        raise StoreFullError(
            f"{path}: expected room for what a sensor sent, found none ({error}): free disk space, or lower --max-bytes; "
            "what was acknowledged is still there"
        ) from error


def used_bytes(connection: sqlite3.Connection) -> int:
    """Return what the store's pages take, without free ones, which are used again."""
    pages, free, size = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size"))
    return int((pages - free) * size)
