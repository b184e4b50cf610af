"""`Consent`: pause, resume, delete, export."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from client.host.chunk import MAX_NS
from client.host.committer import Clock, StoreThread
from client.host.erasure import StoreBusyError, erase, erase_all, pause, resume
from client.host.export import export
from client.host.header import check_name
from client.host.schema import full_disk_told
from client.host.store import Store
from client.host.turn import Turn
from client.host.v1 import consent_pb2 as pb
from client.host.v1 import consent_pb2_grpc
from clmm_core.errors import DataError

CONFIRMATION = "delete all"
PIECE_BYTES = 256_000


class ConsentService(consent_pb2_grpc.ConsentServicer):
    """Does with recordings what the wearer wishes."""

    def __init__(self, store: Store, thread: StoreThread, clock: Clock, turn: Turn, forget: Callable[[], Awaitable[None]]) -> None:
        """Serve.

        Args:
            store: the host's.
            thread: that uses it.
            clock: tells the time.
            turn: of those that read or delete much.
            forget: lets go of what else this host holds of recordings; awaited before and after they are deleted.
        """
        self._store, self._thread, self._clock, self._turn, self._forget = store, thread, clock, turn, forget

    async def Pause(self, _: pb.PauseRequest, __: Any) -> pb.PauseReply:  # noqa: N802  the API's name
        """Keep nothing from now on."""
        await self._thread.run(pause, self._store, self._clock())
        return pb.PauseReply()

    async def Resume(self, _: pb.ResumeRequest, __: Any) -> pb.ResumeReply:  # noqa: N802
        """Keep what is measured from now on."""
        await self._thread.run(resume, self._store, self._clock())
        return pb.ResumeReply()

    async def DeleteRange(self, request: pb.DeleteRangeRequest, _: Any) -> pb.DeleteRangeReply:  # noqa: N802
        """Delete a time."""
        if not 0 <= request.start_ns < request.end_ns < MAX_NS:
            raise DataError(f"expected a start since 1970 and an end after it, in ns, found {request.start_ns} to {request.end_ns}")
        if request.subject:
            check_name("subject", request.subject)
        async with self._turn.taken():
            await self._forget()
            try:
                erased = await self._thread.run(erase, self._store, (request.start_ns, request.end_ns), request.subject)
            finally:
                await self._forget()
        return pb.DeleteRangeReply(num_samples=erased.num_samples, num_labels=erased.num_labels)

    async def DeleteAll(self, request: pb.DeleteAllRequest, _: Any) -> pb.DeleteAllReply:  # noqa: N802
        """Delete everything."""
        if request.confirmation != CONFIRMATION:
            raise DataError(f"confirmation: expected '{CONFIRMATION}', lest it is a mistake, found '{request.confirmation[:80]}'")
        async with self._turn.taken():
            await self._forget()
            try:
                erased = await self._thread.run(erase_all, self._store, self._clock())
            finally:
                await self._forget()
        return pb.DeleteAllReply(num_samples=erased.num_samples, num_labels=erased.num_labels)

    async def Export(self, request: pb.ExportRequest, _: Any) -> AsyncIterator[pb.ExportReply]:  # noqa: N802
        """Write everything in the folder format, and send it."""
        if request.subject:
            check_name("subject", request.subject)
        async with self._turn.taken():
            folder, left_out = await asyncio.to_thread(self._export, request.subject)
            files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
        for file in files:
            async for piece in _pieces(folder, file):
                yield piece
        yield pb.ExportReply(left_out=left_out)

    def _export(self, subject: str) -> tuple[Path, list[str]]:
        """Export over a connection of its own, so that sensors go on meanwhile."""
        with full_disk_told(self._store.path), closing(sqlite3.connect(f"file:{self._store.path}?mode=ro", uri=True)) as connection:
            return export(connection, self._store.path.parent, subject)


async def _pieces(folder: Path, file: Path) -> AsyncIterator[pb.ExportReply]:
    try:
        with (folder / file).open("rb") as content:
            while True:
                piece = await asyncio.to_thread(content.read, PIECE_BYTES)
                yield pb.ExportReply(path=file.as_posix(), content=piece)
                if len(piece) < PIECE_BYTES:
                    return
    except FileNotFoundError as error:
        raise StoreBusyError(f"{file}: expected the export that was just written, found it deleted meanwhile: export again") from error
