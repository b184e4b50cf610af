"""What a wearer takes back: deleted samples and labels of a time, paused recording; and that no byte of it stays in the host's files."""

import shutil
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from client.host.chunk import OFFSETS, Chunk
from client.host.labels import list_labels, remove_with_history
from client.host.models import FOLDER as MODELS
from client.host.models import PERSONAL
from client.host.schema import full_disk_told, transaction
from client.host.spans import Span, Spans, without
from client.host.store import Store
from clmm_core.errors import ClmmError

EXPORTS, TRAINING = "exports", "training"
"""Folders beside the store that have copies of it: the newest export, and what the newest run learns from."""


class StoreBusyError(ClmmError):
    """Something keeps old copies from being removed: a reader, or a full disk; delete again when it has ended."""


@dataclass(frozen=True, kw_only=True)
class Erased:
    """How much is gone."""

    num_samples: int
    num_labels: int


def pause(store: Store, now_ns: int) -> None:
    """Keep nothing from now on; paused already, it stays so."""
    with full_disk_told(store.path), transaction(store.connection):
        if not store.is_paused:
            store.connection.execute("INSERT INTO withheld VALUES ('', ?, NULL)", (now_ns,))
    store.reload()


def resume(store: Store, now_ns: int) -> None:
    """Keep again what is measured from now on."""
    with full_disk_told(store.path), transaction(store.connection):
        store.connection.execute("UPDATE withheld SET end_ns = ? WHERE end_ns IS NULL", (now_ns,))
    store.reload()


def erase(store: Store, span: Span, subject: str = "") -> Erased:
    """Delete samples and labels of a time, keep what a sensor sends of it later from coming back, and leave no copy in the host's files.

    Args:
        store: where from.
        span: which time, as the sensors' clocks have it.
        subject: whose; empty is everybody's.

    Raises:
        StoreBusyError: they are deleted, but old copies may be left: a reader keeps them, or there is no room to write the file anew.
        StoreFullError: there is no room to work in; nothing changed.
    """
    connection = store.connection
    with full_disk_told(store.path):
        with transaction(connection):
            num_samples = _erase_samples(connection, span, subject)
            num_labels = _erase_labels(connection, span, subject)
            connection.execute("INSERT INTO withheld VALUES (?, ?, ?)", (subject, *span))
        store.reload()
        _remove_copies(store.path.parent)
        _leave_no_copy(connection, store.path)
    return Erased(num_samples=num_samples, num_labels=num_labels)


def erase_all(store: Store, now_ns: int) -> Erased:
    """Delete all samples and labels, streams that no sensor is connected to, and shrink the file to nothing; a pause stays.

    Raises:
        StoreBusyError: as in `erase`.
        StoreFullError: there is no room to work in; nothing changed.
    """
    connection = store.connection
    with full_disk_told(store.path):
        num_bytes = connection.execute("SELECT COALESCE(SUM(LENGTH(offsets)), 0) FROM chunks").fetchone()[0]
        num_labels = connection.execute("SELECT COUNT(*) FROM labels").fetchone()[0]
        with transaction(connection):
            for table in ("chunks", "labels"):
                connection.execute(f"DELETE FROM {table}")
            connection.executemany("DELETE FROM streams WHERE id = ?", [(number,) for number in store.idle_streams()])
            connection.execute("DELETE FROM withheld WHERE end_ns IS NOT NULL")
            connection.execute("INSERT INTO withheld VALUES ('', 0, ?)", (now_ns,))
        store.reload()
        _remove_copies(store.path.parent)
        _leave_no_copy(connection, store.path)
    return Erased(num_samples=num_bytes // OFFSETS.itemsize, num_labels=int(num_labels))


def _erase_samples(connection: sqlite3.Connection, span: Span, subject: str) -> int:
    wanted = "FROM chunks JOIN streams ON streams.id = chunks.stream WHERE ? IN ('', subject) AND t0_ns < ? AND end_ns >= ?"
    columns = "chunks.id, stream, sequence, t0_ns, end_ns, offsets, samples"
    erased, num_samples = Spans.of([span]), 0
    ids = [number for (number,) in connection.execute(f"SELECT chunks.id {wanted}", (subject, span[1], span[0]))]
    for number in ids:
        row = connection.execute(f"SELECT {columns} FROM chunks WHERE id = ?", (number,)).fetchone()
        chunk = Chunk(*row[1:])
        left = chunk.kept(~erased.contain(chunk.times_ns()))
        num_samples += chunk.num_samples - (left.num_samples if left else 0)
        if left is None:
            connection.execute("DELETE FROM chunks WHERE id = ?", (number,))
        else:
            change = "UPDATE chunks SET t0_ns = ?, end_ns = ?, offsets = ?, samples = ? WHERE id = ?"
            connection.execute(change, (left.t0_ns, left.end_ns, left.offsets, left.values, number))
    return num_samples


def _erase_labels(connection: sqlite3.Connection, span: Span, subject: str) -> int:
    """Cut labels back to what they say of other times; one that lies on both sides keeps its longer part."""
    num_gone = 0
    for label in list_labels(connection, subject, with_corrected=True):
        parts = without((label.start_ns, label.end_ns), span)
        if not parts:
            remove_with_history(connection, label.id)
            num_gone += 1
        else:
            longest = max(parts, key=lambda part: part[1] - part[0])
            connection.execute("UPDATE labels SET start_ns = ?, end_ns = ? WHERE id = ?", (*longest, label.id))
    return num_gone


def _remove_copies(folder: Path) -> None:
    for name in (EXPORTS, TRAINING):
        if (folder / name).exists():
            shutil.rmtree(folder / name)
    for head in (folder / MODELS).glob(f"*/{PERSONAL}"):
        head.unlink()


def _leave_no_copy(connection: sqlite3.Connection, path: Path) -> None:
    """Write the store's file anew and cut the write-ahead log to nothing.

    SQLite's secure_delete overwrites deleted rows, and not the copies that it left in a page when it moved them.
    """
    try:
        connection.execute("VACUUM")
        is_busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    except sqlite3.OperationalError as error:
        raise StoreBusyError(
            f"{path}: what you asked for is deleted, but old copies may be left in the file, which could not be written anew: {error}: "
            "free as much disk space as the store takes, and delete again"
        ) from error
    if is_busy:
        raise StoreBusyError(
            f"{path}: what you asked for is deleted, but a reader keeps an old copy in {path.name}-wal: end it (an export, a training) and "
            "delete again"
        )
