"""A wire between a sensor and a host that can be cut: what a lost radio link, a closed lid or a pulled plug looks like."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

PIECE_BYTES = 65_536
END_S = 2.0


class Wire:
    """Connections through this process, to a host that may change its port."""

    def __init__(self, port: int) -> None:
        self.port = port
        """Where the host listens."""
        self.listens_on = 0
        self.carrying: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    def cut(self) -> int:
        """Break every connection at once, without a word to either side, and return how many."""
        count = len(self._writers) // 2
        for writer in self._writers:
            writer.transport.abort()
        return count

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection until either side or the wire ends it."""
        self._writers.add(writer)
        task = asyncio.current_task()
        assert task is not None
        self.carrying.add(task)
        try:
            try:
                to_host, host = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                writer.transport.abort()
                return
            self._writers.add(host)
            try:
                await asyncio.gather(_pump(reader, host), _pump(to_host, writer))
            finally:
                self._writers.discard(host)
                host.transport.abort()
        finally:
            self.carrying.discard(task)
            self._writers.discard(writer)
            writer.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while piece := await reader.read(PIECE_BYTES):
            writer.write(piece)
            await writer.drain()
    writer.transport.abort()


@asynccontextmanager
async def wire_to(port: int) -> AsyncIterator[Wire]:
    """Lay a wire to a host on this machine."""
    wire = Wire(port)
    server = await asyncio.start_server(wire.carry, "127.0.0.1", 0)
    wire.listens_on = server.sockets[0].getsockname()[1]
    try:
        yield wire
    finally:
        server.close()
        wire.cut()
        if wire.carrying:
            await asyncio.wait(wire.carrying, timeout=END_S)
