"""Whoever reads all of the store, or deletes from it: one at a time, because a reader keeps deleted samples in the write-ahead log."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from client.host.erasure import StoreBusyError

WAIT_S = 60.0


class Turn:
    """Taken by exports, deletions and copies for training."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def taken(self) -> AsyncIterator[None]:
        """Wait for what goes on, then let nothing else begin inside the block.

        Raises:
            StoreBusyError: what goes on takes longer than `WAIT_S`.
        """
        try:
            async with asyncio.timeout(WAIT_S):
                await self._lock.acquire()
        except TimeoutError as error:
            raise StoreBusyError(
                f"expected the export, deletion or copy for training before to end in {WAIT_S:g} s, it goes on: try again"
            ) from error
        try:
            yield
        finally:
            self._lock.release()
