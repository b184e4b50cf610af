"""Samples over real gRPC."""

import asyncio
from collections.abc import Iterable

import grpc
import numpy as np
import pytest

from client.host.chunk import Chunk
from client.host.erasure import erase, pause
from client.host.retention import Limits
from client.host.store import Store
from client.host.tokens import Role
from client.host.v1 import ingest_pb2 as pb
from client.host.v1 import ingest_pb2_grpc

NOW = 1_800_000_000_000_000_000


def sent(chunk: Chunk, stream: int = 1, **changes: object) -> pb.StreamRequest:
    offsets = (chunk.times_ns() - chunk.t0_ns) // 1000
    fields = {"stream": stream, "sequence": chunk.sequence, "t0_ns": chunk.t0_ns, "offsets_us": offsets, "values": chunk.samples().ravel()}
    return pb.StreamRequest(chunk=pb.Chunk(**{**fields, **changes}))


class Ended(Exception):  # noqa: N818  no error of ours
    """A call has ended with this status."""


async def send(host, channel, requests: Iterable[pb.StreamRequest | bytes]) -> list[pb.StreamReply]:
    """Send all, end, and return all answers; a status other than OK is raised."""
    stub = channel.stream_stream(
        "/clmm.host.v1.Ingest/Stream",
        request_serializer=lambda message: message if isinstance(message, bytes) else message.SerializeToString(),
        response_deserializer=pb.StreamReply.FromString,
    )
    try:
        return [reply async for reply in stub(iter(requests), metadata=host.as_(Role.SENSOR), timeout=10)]
    except grpc.aio.AioRpcError as error:
        raise Ended(f"{error.code().name}: {error.details()}") from error


def last_acks(replies: list[pb.StreamReply]) -> dict[int, int]:
    return {ack.stream: ack.next_sequence for reply in replies for ack in reply.acks}


def test_what_is_acknowledged_is_on_the_disk(on_host, kept, header_message, chunk):
    async def scenario(host, channel):
        return await send(host, channel, [pb.StreamRequest(header=header_message()), *(sent(chunk(1, number)) for number in range(40))])

    replies = on_host(scenario)
    assert [(ack.stream, ack.next_sequence) for ack in replies[0].acks] == [(1, 0)], "the header is answered first"
    assert last_acks(replies) == {1: 40}
    assert kept() == [chunk(1, number) for number in range(40)]


def test_units_are_converted_at_the_door(on_host, kept, header_message, chunk):
    header = header_message()
    for channel in header.streams[0].channels:
        channel.unit = pb.UNIT_STANDARD_GRAVITY

    async def scenario(host, channel):
        await send(host, channel, [pb.StreamRequest(header=header), sent(chunk(1, 0))])

    on_host(scenario)
    np.testing.assert_allclose(kept()[0].samples(), chunk(1, 0).samples() * 9.80665, rtol=1e-6)


def test_a_chunk_that_cannot_be_used_is_refused_and_the_others_are_kept(on_host, kept, header_message, chunk):
    async def scenario(host, channel):
        requests = [
            pb.StreamRequest(header=header_message()),
            sent(chunk(1, 0)),
            sent(chunk(1, 1), values=[1.0]),
            sent(chunk(1, 2), stream=9),
            sent(chunk(1, 2)),
        ]
        return await send(host, channel, requests)

    replies = on_host(scenario)
    refusals = [(each.stream, each.sequence, each.cause) for reply in replies for each in reply.refusals]
    assert refusals == [(1, 1, pb.REFUSAL_CAUSE_MALFORMED), (9, 2, pb.REFUSAL_CAUSE_MALFORMED)]
    assert "expected 25 samples x 3 channels = 75 values, found 1" in next(each.reason for reply in replies for each in reply.refusals)
    assert last_acks(replies) == {1: 3}, "what is refused is not asked for again"
    assert [each.sequence for each in kept()] == [0, 2]


def test_what_the_wearer_does_not_want_kept_is_refused(on_host, kept, header_message, chunk, tmp_path):
    store = Store(tmp_path / "host", Limits())
    erase(store, (0, chunk(1, 1).t0_ns))
    store.close()

    async def scenario(host, channel):
        return await send(host, channel, [pb.StreamRequest(header=header_message()), *(sent(chunk(1, number)) for number in range(3))])

    replies = on_host(scenario)
    assert [(each.sequence, each.cause) for reply in replies for each in reply.refusals] == [(0, pb.REFUSAL_CAUSE_NO_CONSENT)]
    assert last_acks(replies) == {1: 3}
    assert [each.sequence for each in kept()] == [1, 2]
    store = Store(tmp_path / "host", Limits())
    pause(store, NOW)
    store.close()
    assert len([each for reply in on_host(scenario) for each in reply.refusals]) == 0, "they are here already, or deleted"


def test_late_chunks_and_those_sent_twice_count_once(on_host, kept, header_message, chunk):
    async def scenario(host, channel):
        header = pb.StreamRequest(header=header_message())
        await send(host, channel, [header, *(sent(chunk(1, number)) for number in (3, 1, 1, 0))])
        return await send(host, channel, [header, *(sent(chunk(1, number)) for number in (0, 2, 3, 4))])

    replies = on_host(scenario)
    assert [ack.next_sequence for ack in replies[0].acks] == [2], "goes on where chunk 2 is missing"
    assert last_acks(replies) == {1: 5}
    assert kept() == [chunk(1, number) for number in range(5)]


def test_chunks_that_a_sensor_has_let_go_of_are_not_waited_for(on_host, header_message, chunk):
    async def scenario(host, channel):
        return await send(host, channel, [pb.StreamRequest(header=header_message()), sent(chunk(1, 7), oldest_sequence=7)])

    assert last_acks(on_host(scenario)) == {1: 8}


def test_the_answer_gives_the_clock_s_offset(on_host, header_message, chunk):
    clock = iter(range(NOW, 2 * NOW, 1_000_000))

    async def scenario(host, channel):
        return await send(host, channel, [pb.StreamRequest(header=header_message()), sent(chunk(1, 0), sent_ns=NOW - 5)])

    reply = on_host(scenario, clock=lambda: next(clock))[-1]
    assert reply.sent_ns == NOW - 5
    assert NOW < reply.received_ns < reply.replied_ns


def test_a_clock_that_is_off_is_told_once(on_host, header_message, chunk):
    async def scenario(host, channel):
        ahead = [sent(chunk(1, number), sent_ns=NOW + 5_000_000_000) for number in range(3)]
        return await send(host, channel, [pb.StreamRequest(header=header_message()), *ahead])

    warnings = [warning for reply in on_host(scenario, clock=lambda: NOW) for warning in reply.warnings]
    assert len(warnings) == 1
    assert "device 'watch'" in warnings[0]
    assert "a clock 5.0 s ahead of it" in warnings[0]


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        ([], "INVALID_ARGUMENT: expected a header within"),
        (["chunk"], "INVALID_ARGUMENT: expected a header, found chunk"),
        ([pb.StreamRequest()], "INVALID_ARGUMENT: expected a header, found an empty message"),
        (["bad header"], "INVALID_ARGUMENT: subject: expected 1 to 64 letters"),
        ([b"\xff\xff\xff"], "INVALID_ARGUMENT: expected a message of clmm.host.v1"),
        (["header", b"\xff\xff\xff"], "INVALID_ARGUMENT: device 'watch'.*cannot read the message"),
        (["header", "header"], "INVALID_ARGUMENT: device 'watch'.*expected a chunk, found header"),
        (["header", "end", "chunk"], "INVALID_ARGUMENT: device 'watch'.*expected a chunk, found chunk after the end"),
        (["header", b"\0" * 1_000_001], "RESOURCE_EXHAUSTED"),
        (["taken"], "ALREADY_EXISTS: device 'phone'"),
    ],
)
def test_a_call_that_cannot_go_on_ends_with_the_reason(on_host, kept, header_message, chunk, first, expected):
    there = {
        "chunk": sent(chunk(1, 0)),
        "header": pb.StreamRequest(header=header_message()),
        "end": pb.StreamRequest(end=pb.End()),
        "bad header": pb.StreamRequest(header=header_message(subject="/")),
        "taken": pb.StreamRequest(header=header_message(device="phone")),
    }

    async def scenario(host, channel):
        await send(host, channel, [there["header"], there["chunk"]])
        with pytest.raises(Ended, match=expected):
            await send(host, channel, [there.get(each, each) if isinstance(each, str) else each for each in first])

    on_host(scenario)
    assert kept() == [chunk(1, 0)]


def test_a_sensor_that_connects_again_takes_over(on_host, kept, header_message, chunk):
    async def scenario(host, channel):
        stub = ingest_pb2_grpc.IngestStub(channel)
        header = pb.StreamRequest(header=header_message())
        old, new = (stub.Stream(metadata=host.as_(Role.SENSOR), timeout=10) for _ in range(2))
        await old.write(header)
        await old.read()
        await old.write(sent(chunk(1, 0)))
        await asyncio.sleep(0.01)
        await new.write(header)
        greeting = await new.read()
        answers = [await old.read()]
        while not answers[-1].ending:
            answers.append(await old.read())
        assert "found a newer one" in answers[-1].ending
        await old.done_writing()
        with pytest.raises(grpc.aio.AioRpcError, match="found a newer one") as caught:
            await old.read()
        assert caught.value.code() == grpc.StatusCode.ABORTED
        return [ack.next_sequence for ack in greeting.acks]

    assert on_host(scenario) == [1], "what the old one sent is on the disk before the new one hears where to go on"
    assert kept() == [chunk(1, 0)]


def test_a_full_disk_ends_the_call_and_what_was_acknowledged_stays(on_host, kept, header_message, chunk, monkeypatch):
    from client.host.schema import StoreFullError  # noqa: PLC0415

    async def scenario(host, channel):
        header = pb.StreamRequest(header=header_message())
        await send(host, channel, [header, sent(chunk(1, 0))])
        whole = Store.add
        monkeypatch.setattr(Store, "add", lambda *_: (_ for _ in ()).throw(StoreFullError("expected room")))
        with pytest.raises(Ended, match="RESOURCE_EXHAUSTED: expected room"):
            await send(host, channel, [header, sent(chunk(1, 1))])
        monkeypatch.setattr(Store, "add", whole)
        return await send(host, channel, [header, sent(chunk(1, 1))])

    assert last_acks(on_host(scenario)) == {1: 2}
    assert kept() == [chunk(1, number) for number in range(2)]


def test_a_sensor_gets_in_beside_one_that_sends_without_a_pause(on_host, header_message, chunk):
    async def scenario(host, channel):
        busy = ingest_pb2_grpc.IngestStub(channel).Stream(metadata=host.as_(Role.SENSOR), timeout=20)
        await busy.write(pb.StreamRequest(header=header_message()))
        await busy.read()

        async def send_on() -> None:
            for number in range(100_000):
                await busy.write(sent(chunk(1, number % 50), sequence=number))

        sending = asyncio.create_task(send_on())
        await asyncio.sleep(0.3)
        other = [pb.StreamRequest(header=header_message("gyroscope", device="phone")), sent(chunk(1, 0))]
        replies = await asyncio.wait_for(send(host, channel, other), 3)
        assert not sending.done()
        sending.cancel()
        busy.cancel()
        return replies

    assert last_acks(on_host(scenario)) == {1: 1}


@pytest.mark.parametrize(("how", "is_finished"), [("says so", True), ("ends its side", False), ("is cut off", False)])
def test_a_recording_is_finished_when_its_sensor_says_so_alone(on_host, header_message, chunk, tmp_path, how, is_finished):
    async def scenario(host, channel):
        for number in range(10):  # how a call ends is a race within gRPC
            call = ingest_pb2_grpc.IngestStub(channel).Stream(metadata=host.as_(Role.SENSOR), timeout=10)
            await call.write(pb.StreamRequest(header=header_message(recording=f"r{number}")))
            await call.read()
            await call.write(sent(chunk(1, 0)))
            await call.read()
            if how == "says so":
                await call.write(pb.StreamRequest(end=pb.End()))
            if how == "is cut off":
                call.cancel()
            else:
                await call.done_writing()
                assert await call.read() is grpc.aio.EOF
        await asyncio.sleep(0.2)

    on_host(scenario)
    store = Store(tmp_path / "host", Limits())
    found = store.connection.execute("SELECT is_finished FROM streams").fetchall()
    store.close()
    assert found == [(is_finished,)] * 10
