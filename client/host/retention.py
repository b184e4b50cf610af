"""What a store lets go of: what came too long ago, and for want of room what came first and nobody labelled."""

import sqlite3
from dataclasses import dataclass

from client.host.schema import transaction, used_bytes
from clmm_core.errors import ConfigError

DAY_NS = 24 * 3600 * 1_000_000_000
AT_ONCE = 256
"""Chunks that are let go of in one step."""
SMALLEST = 1_000_000
_UNLABELLED = """
SELECT chunks.id FROM chunks JOIN streams ON streams.id = chunks.stream WHERE NOT EXISTS (
    SELECT 1 FROM labels WHERE labels.subject = streams.subject AND labels.recording = streams.recording
    AND labels.corrected_by IS NULL AND labels.start_ns <= chunks.end_ns AND labels.end_ns > chunks.t0_ns
) ORDER BY chunks.id LIMIT ?
"""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much a store may hold.

    Raises:
        ConfigError: less than it can work with.
    """

    max_bytes: int = 2_000_000_000
    """Of the store's file: 270 hours of nine channels at 50 Hz."""
    max_days: float = 90.0
    """Counted from when samples came, because a sensor's clock may be wrong and a replay old."""

    def __post_init__(self) -> None:
        if self.max_bytes < SMALLEST:
            raise ConfigError(f"--max-bytes: expected at least {SMALLEST:,}, found {self.max_bytes:,}")
        if not self.max_days > 0:
            raise ConfigError(f"--max-days: expected more than 0, found {self.max_days:g}")


def make_room(connection: sqlite3.Connection, limits: Limits, needed_bytes: int, now_ns: int) -> int:
    """Let go of chunks until so many bytes more fit, and of those that are too old; return how many."""
    num_gone = _drop_old(connection, now_ns - round(limits.max_days * DAY_NS))
    while used_bytes(connection) + needed_bytes > limits.max_bytes:
        ids = connection.execute(_UNLABELLED, (AT_ONCE,)).fetchall()
        if not ids:
            ids = connection.execute("SELECT id FROM chunks ORDER BY id LIMIT ?", (AT_ONCE,)).fetchall()
        if not ids:
            break
        with transaction(connection):
            connection.executemany("DELETE FROM chunks WHERE id = ?", ids)
        num_gone += len(ids)
    return num_gone


def _drop_old(connection: sqlite3.Connection, before_ns: int) -> int:
    """Drop what came before a time, labelled or not: `max_days` is a promise."""
    num_gone = 0
    oldest = connection.execute("SELECT received_ns FROM chunks ORDER BY id LIMIT 1").fetchone()
    while oldest is not None and oldest[0] < before_ns:
        rows = connection.execute("SELECT id, received_ns FROM chunks ORDER BY id LIMIT ?", (AT_ONCE,)).fetchall()
        ids = [(number,) for number, received_ns in rows if received_ns < before_ns]
        with transaction(connection):
            connection.executemany("DELETE FROM chunks WHERE id = ?", ids)
        num_gone += len(ids)
        oldest = connection.execute("SELECT received_ns FROM chunks ORDER BY id LIMIT 1").fetchone()
    return num_gone
