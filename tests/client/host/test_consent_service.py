"""What a wearer may do, over real gRPC."""

import asyncio
import time

import grpc
import numpy as np
import pytest

from client.host.consent_service import CONFIRMATION
from client.host.erasure import EXPORTS
from client.host.sensor import Sensor
from client.host.tokens import Role
from client.host.v1 import consent_pb2 as pb
from client.host.v1 import consent_pb2_grpc
from clmm_core.data.datasets.folder import Folder

NS = 1_000_000_000


@pytest.fixture
def consenting(on_host, header_message):
    """Run a scenario with a host that has ten chunks of a minute ago, a sensor that goes on, and the wearer's calls."""

    def run(scenario):
        async def with_sensor(host, channel):
            sensor = Sensor(host.target, host.tokens[Role.SENSOR], header_message())
            running = asyncio.create_task(sensor.run())
            origin_ns = time.time_ns() - 60 * NS
            for number in range(10):
                give(sensor, origin_ns, number)
            await acknowledged(sensor, 10)
            stub = consent_pb2_grpc.ConsentStub(channel)

            def call(method: str, request):
                return getattr(stub, method)(request, metadata=host.as_(Role.ADMIN), timeout=10)

            try:
                return await scenario(host, sensor, origin_ns, call)
            finally:
                sensor.finish()
                await running

        return on_host(with_sensor)

    return run


def rows_of(origin_ns: int, number: int) -> np.ndarray:
    return np.random.default_rng([number, 3]).standard_normal((25, 3)).astype(np.float32)


def give(sensor: Sensor, origin_ns: int, number: int) -> None:
    sensor.give(1, origin_ns + (number * 25 + np.arange(25)) * 20_000_000, rows_of(origin_ns, number))


async def acknowledged(sensor: Sensor, count: int) -> None:
    while sensor.acknowledged.get(1, 0) < count:
        await asyncio.sleep(0.02)


def test_nothing_is_kept_while_paused_and_again_afterwards(consenting, kept):
    async def scenario(host, sensor, origin_ns, call):
        await call("Pause", pb.PauseRequest())
        give(sensor, time.time_ns(), 10)
        await acknowledged(sensor, 11)
        await call("Resume", pb.ResumeRequest())
        give(sensor, time.time_ns() - NS, 11)
        give(sensor, time.time_ns() + NS, 12)
        await acknowledged(sensor, 13)
        return [refusal.sequence for refusal in sensor.refusals]

    refused = consenting(scenario)
    assert refused[0] == 10
    assert 12 not in refused
    assert {each.sequence for each in kept()} >= {0, 9, 12}
    assert 10 not in {each.sequence for each in kept()}


def test_a_deleted_time_is_gone_and_what_comes_after_is_kept(consenting, kept):
    async def scenario(host, sensor, origin_ns, call):
        reply = await call("DeleteRange", pb.DeleteRangeRequest(start_ns=origin_ns, end_ns=origin_ns + 2 * NS, subject="anna"))
        give(sensor, origin_ns, 10)
        await acknowledged(sensor, 11)
        return reply.num_samples

    assert consenting(scenario) == 100
    assert [each.sequence for each in kept()] == list(range(4, 11))


def test_of_all_no_byte_is_left_in_the_host_s_folder_also_while_a_sensor_sends(consenting):
    async def scenario(host, sensor, origin_ns, call):
        async for _ in call("Export", pb.ExportRequest()):
            pass
        assert (host.folder / EXPORTS).is_dir()
        content = b"".join(file.read_bytes() for file in host.folder.rglob("*") if file.is_file())
        assert all(row.tobytes() in content for number in range(10) for row in rows_of(origin_ns, number)), "the search finds what is there"
        give(sensor, origin_ns, 10)
        reply = await call("DeleteAll", pb.DeleteAllRequest(confirmation=CONFIRMATION))
        assert reply.num_samples in (250, 275)
        await acknowledged(sensor, 11)
        content = b"".join(file.read_bytes() for file in host.folder.rglob("*") if file.is_file())
        return [row for number in range(11) for row in rows_of(origin_ns, number) if row.tobytes() in content]

    assert consenting(scenario) == []


def test_an_export_is_what_the_folder_loader_reads(consenting, tmp_path):
    async def scenario(host, sensor, origin_ns, call):
        async for piece in call("Export", pb.ExportRequest(subject="anna")):
            if piece.path:
                file = tmp_path / "mine" / piece.path
                file.parent.mkdir(parents=True, exist_ok=True)
                with file.open("ab") as opened:
                    opened.write(piece.content)
        return origin_ns

    origin_ns = consenting(scenario)
    (recording,) = Folder(tmp_path / "mine").recordings("anna")
    expected = np.concatenate([rows_of(origin_ns, number) for number in range(10)])
    np.testing.assert_array_equal(recording.streams["accelerometer"].samples, expected)


@pytest.mark.parametrize(
    ("method", "request_message", "expected"),
    [
        ("DeleteAll", pb.DeleteAllRequest(), "confirmation: expected 'delete all'"),
        ("DeleteRange", pb.DeleteRangeRequest(start_ns=5, end_ns=5), "expected a start since 1970"),
        ("DeleteRange", pb.DeleteRangeRequest(start_ns=-5, end_ns=5), "expected a start since 1970"),
        ("DeleteRange", pb.DeleteRangeRequest(start_ns=1, end_ns=5, subject="../x"), "subject: expected 1 to 64"),
        ("Export", pb.ExportRequest(subject="../x"), "subject: expected 1 to 64"),
        ("Export", pb.ExportRequest(subject="nobody"), "expected recordings of subject 'nobody'"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_lost(consenting, kept, method, request_message, expected):
    async def scenario(host, sensor, origin_ns, call):
        answer = call(method, request_message)
        with pytest.raises(grpc.aio.AioRpcError, match=expected) as caught:
            await (answer.read() if method == "Export" else answer)
        return caught.value.code()

    assert consenting(scenario) == grpc.StatusCode.INVALID_ARGUMENT
    assert len(kept()) == 10
