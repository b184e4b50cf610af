"""`Ingest`: takes sensors' samples, and answers what is on the disk."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from typing import Any

import grpc
import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from client.host.chunk import MAX_SEQUENCE, Chunk, chunk_of
from client.host.committer import Clock, Committer, StoreThread
from client.host.header import Header, SensorStream, header_of
from client.host.live import Live
from client.host.schema import StoreFullError
from client.host.store import Added, Arrival, LetGo, Store, Unusable
from client.host.v1 import ingest_pb2 as pb
from client.host.v1 import ingest_pb2_grpc
from client.host.vitals import Vitals
from clmm_core.errors import ClmmError, DataError

HEADER_WAIT_S = 10.0
"""A sensor that is connected says so long after at the latest who it is."""
END_WAIT_S = 2.0
"""A sensor that is told that its call ends has so long to end its side."""
MAX_REFUSALS = 100
"""In one answer; a sensor that sends nothing else learns it from these."""
NO_CONSENT = "expected samples of a time that the wearer wants kept, found one that is paused or deleted: let go of them"


Recognise = Callable[[Header, SensorStream, Chunk], None]


class ReplacedError(ClmmError):
    """The same sensor has connected again."""


class IngestService(ingest_pb2_grpc.IngestServicer):
    """Takes samples of any number of sensors at once."""

    def __init__(self, store: Store, thread: StoreThread, committer: Committer, clock: Clock, live: Live) -> None:
        self._store, self._thread, self._committer, self._clock, self._live = store, thread, committer, clock, live
        self.vitals: dict[int, Vitals] = {}
        """By the store's number of a stream that came since the host started."""
        self._sessions: dict[int, _Session] = {}
        self._leaving: set[asyncio.Task[None]] = set()

    async def Stream(  # noqa: N802  the API's name
        self, requests: AsyncIterator[pb.StreamRequest], context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> AsyncIterator[pb.StreamReply]:
        """Take one sensor's chunks until it ends or is gone."""
        header = await _first_header(requests)
        streams = await self._thread.run(self._store.register, header, self._clock())
        session = _Session(header, streams, self.vitals, self._clock, self._recognise)
        reader: asyncio.Task[None] | None = None
        try:
            await self._take_over(session)
            yield session.greeting(await self._thread.run(self._next_sequences, streams))
            reader = asyncio.create_task(session.read(requests, self._committer))
            async for reply in session.replies():
                yield reply
        except ClmmError as error:
            yield pb.StreamReply(ending=str(error))  # a sensor that writes to a call that has ended might not hear why it has
            if reader is not None:
                await asyncio.wait({reader}, timeout=END_WAIT_S)
            raise
        finally:
            if reader is not None:
                reader.cancel()
            self._leave(session)

    def _next_sequences(self, streams: Mapping[int, int]) -> dict[int, int]:
        return {number: self._store.next_sequence(stream) for number, stream in streams.items()}

    async def _take_over(self, session: "_Session") -> None:
        """End what an earlier connection of the same sensor still sends, so that what is answered now stays true."""
        for stream in session.streams.values():
            if (before := self._sessions.get(stream)) is not None:
                before.failed(ReplacedError(f"{before.header.where}: expected one connection of a sensor, found a newer one: end this one"))
            self._sessions[stream] = session
            self.vitals.setdefault(stream, Vitals(last_seen_ns=self._clock())).is_connected = True
        await self._committer.flushed()

    def _recognise(self, header: Header, stream: SensorStream, chunk: Chunk) -> None:
        """Let the model see samples before they are on the disk, those that may be kept."""
        if (wanted := self._store.wanted(chunk, header.subject)) is not None:
            self._live.took(header, stream, wanted)

    def _leave(self, session: "_Session") -> None:
        for stream in session.streams.values():
            if self._sessions.get(stream) is session:
                del self._sessions[stream]
                self.vitals[stream].is_connected = False
        task = asyncio.create_task(self._note_leaving(session))
        self._leaving.add(task)  # a task that nobody holds may be collected before it has run
        task.add_done_callback(self._leaving.discard)

    async def _note_leaving(self, session: "_Session") -> None:
        streams = [number for number in session.streams.values() if number not in self._sessions]
        registered = session.streams.values()
        with suppress(StoreFullError):  # the next chunk that finds no room is told to its sensor
            await self._thread.run(lambda: self._store.leave(registered, streams, self._clock(), is_finished=session.is_finished))

    async def close(self) -> None:
        """Wait until the store knows of all who left."""
        await asyncio.gather(*self._leaving)


async def _first_header(requests: AsyncIterator[pb.StreamRequest]) -> Header:
    try:
        async with asyncio.timeout(HEADER_WAIT_S):
            first = await anext(requests)
    except (TimeoutError, StopAsyncIteration) as error:
        raise DataError(f"expected a header within {HEADER_WAIT_S:g} s, found nothing: send it before chunks") from error
    if first.WhichOneof("kind") != "header":
        raise DataError(f"expected a header, found {first.WhichOneof('kind') or 'an empty message'}: send it before chunks")
    return header_of(first.header)


class _Session:
    """One connection of a sensor."""

    def __init__(
        self, header: Header, streams: Mapping[int, int], vitals: Mapping[int, Vitals], clock: Clock, recognise: Recognise
    ) -> None:
        self.header, self.streams, self._clock, self._recognise = header, streams, clock, recognise
        self._vitals = vitals
        self._own = {number: (stream, _factors(stream)) for number, stream in ((each.number, each) for each in header.streams)}
        self._sensors_number = {stream: number for number, stream in streams.items()}
        self._changed = asyncio.Event()
        self._reply = pb.StreamReply()
        self._acks: dict[int, int] = {}
        self._has_warned_of_clock = False
        self._sent: tuple[int, int] = (0, 0)
        self._num_open, self._has_ended = 0, False
        self._failure: ClmmError | None = None
        self.is_finished = False
        """Whether the sensor said so; that its side ended says nothing, because it does so too when it is cut off."""

    def greeting(self, next_sequences: Mapping[int, int]) -> pb.StreamReply:
        """Return the answer to the header: where each stream goes on."""
        acks = [pb.Ack(stream=number, next_sequence=sequence) for number, sequence in next_sequences.items()]
        return pb.StreamReply(acks=acks, replied_ns=self._clock())

    async def read(self, requests: AsyncIterator[pb.StreamRequest], committer: Committer) -> None:
        """Take what the sensor sends until it ends; after a failure it is read and dropped."""
        try:
            async for request in requests:
                if self._failure is None:
                    await self._read(request, committer)
            self._has_ended = True
        except DecodeError as error:
            self.failed(DataError(f"{self.header.where}: expected a StreamRequest of clmm.host.v1, cannot read the message: {error}"))
        self._changed.set()

    async def _read(self, request: pb.StreamRequest, committer: Committer) -> None:
        kind = request.WhichOneof("kind")
        if kind == "end":
            self.is_finished = True
            return
        if kind != "chunk" or self.is_finished:
            found = f"{kind or 'an empty message'}{' after the end' if self.is_finished else ''}"
            self.failed(DataError(f"{self.header.where}: expected a chunk, found {found}"))
            return
        arrivals = self._arrivals(request.chunk)
        self._num_open += len(arrivals)
        await committer.put(arrivals, self)

    def _arrivals(self, message: pb.Chunk) -> list[Arrival]:
        stream = self.streams.get(message.stream)
        now_ns = self._clock()
        if stream is None:
            self._refuse(message.stream, message.sequence, pb.REFUSAL_CAUSE_MALFORMED, "expected a stream of the header")
            self._changed.set()
            return []
        vitals = self._vitals[stream]
        self._sent = (message.sent_ns, now_ns) if message.sent_ns else self._sent
        arrivals: list[Arrival] = []
        if 0 < message.oldest_sequence < MAX_SEQUENCE:
            arrivals.append(LetGo(stream, message.oldest_sequence))
        try:
            chunk = chunk_of(message, stream, *self._own[message.stream])
        except DataError as error:
            vitals.num_refused += 1
            vitals.last_seen_ns = now_ns
            self._refuse(message.stream, message.sequence, pb.REFUSAL_CAUSE_MALFORMED, str(error))
            if message.sequence < MAX_SEQUENCE:
                arrivals.append(Unusable(stream, message.sequence))
            self._changed.set()
            return arrivals
        vitals.arrived(chunk, message.sent_ns, now_ns)
        self._recognise(self.header, self._own[message.stream][0], chunk)
        if vitals.clock_is_off() and not self._has_warned_of_clock:
            self._has_warned_of_clock = True
            self._reply.warnings.append(f"{self.header.where}: {vitals.clock_in_words()}")
        return [*arrivals, chunk]

    def _refuse(self, number: int, sequence: int, cause: "pb.RefusalCause", reason: str) -> None:
        if len(self._reply.refusals) < MAX_REFUSALS:
            self._reply.refusals.append(pb.Refusal(stream=number, sequence=sequence, cause=cause, reason=reason))

    def committed(self, added: Added, num_arrivals: int) -> None:
        """Prepare the answer to what is on the disk."""
        self._num_open -= num_arrivals
        for stream, number in self._sensors_number.items():
            if stream in added.next_sequence:
                self._acks[number] = added.next_sequence[stream]
                self._vitals[stream].num_duplicates += added.num_duplicates[stream]
        for stream, sequence in added.withheld:
            if stream in self._sensors_number:
                self._vitals[stream].num_refused += 1
                self._refuse(self._sensors_number[stream], sequence, pb.REFUSAL_CAUSE_NO_CONSENT, NO_CONSENT)
        for chunk in added.kept:
            if chunk.stream in self._sensors_number:
                self._vitals[chunk.stream].kept(chunk)
        self._changed.set()

    def failed(self, error: ClmmError) -> None:
        """End the connection for this reason; the first one counts."""
        self._failure = self._failure or error
        self._changed.set()

    async def replies(self) -> AsyncIterator[pb.StreamReply]:
        """Yield an answer whenever there is one, until the sensor has ended and all it sent is answered.

        Raises:
            ClmmError: the connection has to end, for this reason.
        """
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self._failure is not None:
                raise self._failure
            reply, self._reply = self._reply, pb.StreamReply()
            if self._acks or reply.refusals or reply.warnings:
                reply.acks.extend(pb.Ack(stream=number, next_sequence=sequence) for number, sequence in self._acks.items())
                self._acks.clear()
                reply.sent_ns, reply.received_ns = self._sent
                reply.replied_ns, self._sent = self._clock(), (0, 0)
                yield reply
            if self._has_ended and not self._num_open:
                return


def _factors(stream: SensorStream) -> NDArray[np.float32] | None:
    factors = np.array([channel.factor for channel in stream.channels], np.float32)
    return None if (factors == 1).all() else factors
