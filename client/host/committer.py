"""Puts what all sensors send on the disk together: one wait for the disk serves many chunks."""

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from client.host.chunk import Chunk
from client.host.schema import StoreFullError
from client.host.store import Added, Arrival, Store
from clmm_core.errors import ClmmError

GATHER_S = 0.1
"""So long arrivals wait for others: sensors hear of theirs about ten times a second, and an SD card writes no more often."""
MAX_PENDING_BYTES = 16_000_000
"""Sensors that send more quickly than the disk takes wait."""
Result = TypeVar("Result")
Clock = Callable[[], int]
"""Nanoseconds since 1970."""


class Waiting(Protocol):
    """Who wants to know what became of its arrivals."""

    def committed(self, added: Added, num_arrivals: int) -> None:
        """So many of its arrivals are on the disk."""
        ...

    def failed(self, error: ClmmError) -> None:
        """Nothing of what it gave last is on the disk."""
        ...


class StoreThread:
    """The one thread that uses the store."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")

    async def run(self, work: Callable[..., Result], *arguments: object) -> Result:
        """Return the result of `work`, after all that was asked for before."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, work, *arguments)

    def close(self) -> None:
        """Finish what was asked for."""
        self._executor.shutdown(wait=True)


class _Batch:
    """Arrivals of a moment."""

    def __init__(self) -> None:
        self.arrivals: list[tuple[Arrival, Waiting]] = []
        self.num_bytes = 0
        self.is_done = asyncio.Event()


class Committer:
    """Gathers arrivals, and writes those of a moment as one transaction."""

    def __init__(self, store: Store, thread: StoreThread, clock: Clock, gather_s: float = GATHER_S) -> None:
        self._store, self._thread, self._clock, self._gather_s = store, thread, clock, gather_s
        self._gathered = _Batch()
        self._written: _Batch | None = None
        self._is_there, self._has_room = asyncio.Event(), asyncio.Event()
        self._has_room.set()
        self.full_since_ns: int | None = None
        """Since when the disk refuses; None where it takes what comes."""
        self.full_reason = ""

    async def put(self, arrivals: Sequence[Arrival], whose: Waiting) -> None:
        """Take arrivals at once, and return when more may come."""
        for arrival in arrivals:
            self._gathered.arrivals.append((arrival, whose))
            self._gathered.num_bytes += len(arrival.values) if isinstance(arrival, Chunk) else 0
        self._is_there.set()
        if self._gathered.num_bytes > MAX_PENDING_BYTES:
            self._has_room.clear()
        await self._has_room.wait()

    async def flushed(self) -> None:
        """Wait until what was put before, by anybody, is on the disk or refused."""
        newest = self._gathered if self._gathered.arrivals else self._written
        if newest is not None:
            await newest.is_done.wait()

    async def run(self) -> None:
        """Write until cancelled; what is gathered then was never acknowledged."""
        while True:
            await self._is_there.wait()
            await asyncio.sleep(self._gather_s)
            self._written, self._gathered = self._gathered, _Batch()
            self._is_there.clear()
            self._has_room.set()
            await self._write(self._written.arrivals)
            self._written.is_done.set()
            self._written = None

    async def _write(self, batch: list[tuple[Arrival, Waiting]]) -> None:
        counts: dict[int, int] = {}
        waiting = {id(whose): whose for _, whose in batch}
        for _, whose in batch:
            counts[id(whose)] = counts.get(id(whose), 0) + 1
        try:
            added = await self._thread.run(self._store.add, [arrival for arrival, _ in batch], self._clock())
        except StoreFullError as error:
            self._refuse(error, waiting.values())
        except sqlite3.Error as error:
            logging.getLogger(__name__).exception("the store failed")
            reason = f"{self._store.path}: expected to write, could not: {error}: look at the host's log"
            self._refuse(StoreFullError(reason), waiting.values())
        else:
            self.full_since_ns, self.full_reason = None, ""
            for number, each in waiting.items():
                each.committed(added, counts[number])

    def _refuse(self, error: StoreFullError, waiting: Iterable[Waiting]) -> None:
        self.full_since_ns = self.full_since_ns or self._clock()
        self.full_reason = str(error)
        for each in waiting:
            each.failed(error)
