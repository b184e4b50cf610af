"""The sensor's side of ingest: sends chunks, keeps what the host has not answered, and goes on after a disconnect."""

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from client.host.calls import CONNECT_S, HostCallError, bearer, credentials_of
from client.host.chunk import NS_PER_US
from client.host.v1 import ingest_pb2 as pb
from client.host.v1 import ingest_pb2_grpc
from clmm_core.errors import ConfigError

FINAL = (
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.UNIMPLEMENTED,
)
"""Refusals that another try does not change."""
OPTIONS = (("grpc.keepalive_time_ms", 10_000), ("grpc.keepalive_timeout_ms", 5_000), ("grpc.enable_retries", 0))
MAX_REFUSALS = 1000
"""Of those that a sensor remembers."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a sensor waits, and how much it keeps meanwhile."""

    first_wait_s: float = 0.5
    """Before it connects again; twice as long each further time."""
    longest_wait_s: float = 30.0
    max_chunks: int = 20_000
    """Not yet answered; the oldest are let go of, and counted. 20,000 of nine channels and half a second are 20 MB and 2.8 hours."""
    give_up_s: float = float("inf")
    """Without an answer for so long, it ends with an error."""

    def __post_init__(self) -> None:
        if not 0 < self.first_wait_s <= self.longest_wait_s or self.max_chunks < 1 or not self.give_up_s > 0:
            raise ConfigError(f"expected waits above 0 s, the first no longer than the longest, and room for a chunk, found {self}")


class Sensor:
    """One sensor that sends its part of a recording.

    `give` takes samples at any time and never waits; `run` sends them, and ends when `finish` was called and the host has all of them.
    """

    def __init__(
        self,
        target: str,
        token: str,
        header: pb.Header,
        authority: Path | None = None,
        patience: Patience = Patience(),
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._target, self._token, self._header, self._patience, self._sleep = target, token, header, patience, sleep
        self._credentials = credentials_of(authority)
        self._kept: dict[tuple[int, int], pb.Chunk] = {}
        """By stream and sequence, in the order given: what is not answered."""
        self._unsent: deque[tuple[int, int]] = deque()
        self._next: defaultdict[int, int] = defaultdict(int)
        self._done_below: defaultdict[int, int] = defaultdict(int)
        """By stream: what the host has, or this sensor has let go of."""
        self._has_numbers = self._is_finished = self._is_ending = False
        self._something = asyncio.Event()
        self._last_answer_s = time.monotonic()
        self.num_disconnects = self.num_let_go = 0
        self.trouble = ""
        """Why the connection before ended."""
        self.refusals: deque[pb.Refusal] = deque(maxlen=MAX_REFUSALS)
        self.warnings: list[str] = []
        self.clock_ahead_ns: int | None = None
        """How far this machine's clock is ahead of the host's, as the last answer showed."""

    @property
    def acknowledged(self) -> dict[int, int]:
        """Return by stream below which sequence the host has everything."""
        return dict(self._done_below)

    def give(self, stream: int, times_ns: NDArray[np.int64], samples: NDArray[np.float32]) -> int:
        """Take samples `[n, channels]` at times `[n]`, ascending, and return the sequence of their chunk until the first connection."""
        sequence = self._next[stream]
        self._next[stream] += 1
        offsets_us, values = ((times_ns - times_ns[0]) // NS_PER_US).tolist(), samples.ravel().tolist()
        chunk = pb.Chunk(stream=stream, sequence=sequence, t0_ns=int(times_ns[0]), offsets_us=offsets_us, values=values)
        self._kept[stream, sequence] = chunk
        self._unsent.append((stream, sequence))
        while len(self._kept) > self._patience.max_chunks:
            oldest, number = next(iter(self._kept))
            del self._kept[oldest, number]
            self._done_below[oldest] = max(self._done_below[oldest], number + 1)
            self.num_let_go += 1
        self._something.set()
        return sequence

    def finish(self) -> None:
        """Say that no more samples come."""
        self._is_finished = True
        self._something.set()

    async def run(self) -> None:
        """Send until finished, through all disconnects.

        Raises:
            HostCallError: the host refuses this sensor, or gave no answer for as long as patience lasts.
        """
        wait_s = self._patience.first_wait_s
        while True:
            num_before = sum(self._done_below.values())
            try:
                await self._connection()
            except grpc.aio.AioRpcError as error:
                self._check_worth_another_try(error)
            else:
                return
            if sum(self._done_below.values()) > num_before:
                wait_s = self._patience.first_wait_s
            await self._sleep(wait_s)
            wait_s = min(2 * wait_s, self._patience.longest_wait_s)

    def _check_worth_another_try(self, error: grpc.aio.AioRpcError) -> None:
        self.num_disconnects += 1
        self.trouble = f"host at {self._target}: {error.code().name}: {error.details()}"
        silent_s = time.monotonic() - self._last_answer_s
        if error.code() in FINAL or silent_s > self._patience.give_up_s:
            raise HostCallError(self.trouble) from error

    async def _connection(self) -> None:
        """Send over one connection; return when all is done, raise `AioRpcError` when the connection ends before."""
        credentials = self._credentials
        channel = (
            grpc.aio.insecure_channel(self._target, OPTIONS)
            if credentials is None
            else grpc.aio.secure_channel(self._target, credentials, OPTIONS)
        )
        self._is_ending = False
        async with channel:
            call = ingest_pb2_grpc.IngestStub(channel).Stream(metadata=bearer(self._token))
            await self._greet(call)
            sending = asyncio.create_task(self._send(call))
            try:
                while (reply := await call.read()) is not grpc.aio.EOF:
                    self._take(reply)
                await _check_ended_well(call)
            finally:
                sending.cancel()
                with suppress(asyncio.CancelledError, grpc.aio.AioRpcError, asyncio.InvalidStateError):
                    await sending

    async def _greet(self, call: Any) -> None:
        """Say who this is, and go on where the host says."""
        limit = asyncio.get_running_loop().call_later(CONNECT_S, call.cancel)
        try:
            with suppress(asyncio.InvalidStateError):  # ended before: reading says why
                await call.write(pb.StreamRequest(header=self._header))
            greeting = await call.read()
        except asyncio.CancelledError:
            if not call.cancelled() or asyncio.current_task().cancelling():  # type: ignore[union-attr]
                raise
            raise _no_answer() from None
        finally:
            limit.cancel()
        if greeting is grpc.aio.EOF:
            await _check_ended_well(call)
        if not self._has_numbers:
            self._go_on_from({ack.stream: ack.next_sequence for ack in greeting.acks})
        self._take(greeting)
        self._unsent = deque(self._kept)

    def _go_on_from(self, sequences: dict[int, int]) -> None:
        """Number what was given so far after what the host has of this sensor from before this program started."""
        kept = {}
        for (stream, sequence), chunk in self._kept.items():
            chunk.sequence = sequence + sequences.get(stream, 0)
            kept[stream, chunk.sequence] = chunk
        self._kept = kept
        for stream, sequence in sequences.items():
            self._next[stream] += sequence
            self._done_below[stream] += sequence
        self._has_numbers = True

    async def _send(self, call: Any) -> None:
        while True:
            while self._unsent and not self._is_ending:
                chunk = self._kept.get(self._unsent.popleft())
                if chunk is not None:
                    chunk.oldest_sequence = self._done_below[chunk.stream]
                    chunk.sent_ns = time.time_ns()
                    await call.write(pb.StreamRequest(chunk=chunk))
            if self._is_finished and not self._is_ending:
                await call.write(pb.StreamRequest(end=pb.End()))
            if self._is_finished or self._is_ending:
                await call.done_writing()
                return
            self._something.clear()
            await self._something.wait()

    def _take(self, reply: pb.StreamReply) -> None:
        self._last_answer_s = time.monotonic()
        for ack in reply.acks:
            for sequence in range(self._done_below[ack.stream], ack.next_sequence):
                self._kept.pop((ack.stream, sequence), None)
            self._done_below[ack.stream] = max(self._done_below[ack.stream], ack.next_sequence)
        if reply.ending:
            self._is_ending = True
            self._something.set()
        self.refusals.extend(reply.refusals)
        self.warnings.extend(reply.warnings)
        if reply.sent_ns:
            self.clock_ahead_ns = ((reply.sent_ns - reply.received_ns) + (time.time_ns() - reply.replied_ns)) // 2


async def _check_ended_well(call: Any) -> None:
    if (code := await call.code()) != grpc.StatusCode.OK:
        raise grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details=await call.details())


def _no_answer() -> grpc.aio.AioRpcError:
    details = f"no answer to the header within {CONNECT_S:g} s"
    return grpc.aio.AioRpcError(grpc.StatusCode.DEADLINE_EXCEEDED, grpc.aio.Metadata(), grpc.aio.Metadata(), details=details)
