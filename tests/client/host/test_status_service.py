"""What a host says of itself: also of sensors that say nothing."""

import asyncio
import re
import time

import grpc
import numpy as np
import pytest

from client.host.schema import StoreFullError
from client.host.sensor import Patience, Sensor
from client.host.store import Store
from client.host.tokens import Role
from client.host.v1 import ingest_pb2, ingest_pb2_grpc, status_pb2_grpc
from client.host.v1 import status_pb2 as pb

NS = 1_000_000_000


async def status_of(host, channel) -> pb.HostStatus:
    reply = await status_pb2_grpc.StatusStub(channel).GetStatus(pb.GetStatusRequest(), metadata=host.as_(Role.VIEWER), timeout=5)
    return reply.status


def give(sensor: Sensor, first: int, last: int, origin_ns: int) -> None:
    for number in range(first, last):
        times = origin_ns + (number * 25 + np.arange(25)) * 20_000_000
        sensor.give(1, times, np.zeros((25, 3), np.float32))


def test_a_stream_has_its_figures(on_host, header_message):
    origin_ns = time.time_ns() - 60 * NS

    async def scenario(host, channel):
        sensor = Sensor(host.target, host.tokens[Role.SENSOR], header_message())
        give(sensor, 0, 20, origin_ns)
        sensor.finish()
        await sensor.run()
        return await status_of(host, channel)

    status = on_host(scenario)
    (stream,) = status.streams
    assert (stream.subject, stream.recording, stream.device, stream.placement) == ("anna", "monday", "watch", "left wrist")
    assert list(stream.modalities) == ["accelerometer"]
    assert (stream.num_samples, stream.num_duplicates, stream.num_refused) == (500, 0, 0)
    assert stream.measured_hz == pytest.approx(50)
    assert stream.gap_share == 0
    assert stream.last_sample_ns == origin_ns + 499 * 20_000_000
    assert stream.is_finished
    assert not stream.is_connected
    assert (status.store.num_chunks, status.is_paused, list(status.alarms)) == (20, False, [])
    assert status.store.stored_bytes > 10_000


def test_a_sensor_that_goes_silent_is_an_alarm_within_five_seconds_and_no_longer_when_it_is_back(on_host, header_message):
    async def scenario(host, channel):
        sensor = Sensor(host.target, host.tokens[Role.SENSOR], header_message())
        running = asyncio.create_task(sensor.run())
        give(sensor, 0, 2, time.time_ns() - NS)
        while (status := await status_of(host, channel)).store.num_chunks < 2:
            await asyncio.sleep(0.05)
        last_seen_ns = status.streams[0].last_seen_ns
        assert not status.alarms
        while not (status := await status_of(host, channel)).alarms:
            await asyncio.sleep(0.1)
        alarm = status.alarms[0]
        assert status.time_ns - last_seen_ns < 5 * NS
        assert (alarm.kind, alarm.device, alarm.since_ns) == (pb.ALARM_KIND_SILENT, "watch", last_seen_ns)
        assert "device 'watch', accelerometer: expected samples, found none for 3 s; it is connected" in alarm.text
        give(sensor, 2, 3, time.time_ns() - NS)
        while (status := await status_of(host, channel)).store.num_chunks < 3:
            await asyncio.sleep(0.05)
        assert not status.alarms
        sensor.finish()
        await running
        return await status_of(host, channel)

    assert not on_host(scenario).alarms, "one that ended its recording is not silent"


def test_a_sensor_that_was_silent_before_the_host_was_started_again_is_an_alarm_and_a_finished_one_is_not(on_host, header_message):
    async def record(host, channel):
        for device, is_cut in (("watch", True), ("phone", False)):
            header = header_message("accelerometer" if is_cut else "gyroscope", device=device)
            sensor = Sensor(host.target, host.tokens[Role.SENSOR], header)
            running = asyncio.create_task(sensor.run())
            give(sensor, 0, 1, time.time_ns() - NS)
            while not any(sensor.acknowledged.values()):
                await asyncio.sleep(0.05)
            if is_cut:
                running.cancel()
            else:
                sensor.finish()
            await asyncio.wait({running})
            await asyncio.sleep(0.1)

    on_host(record)
    later = on_host(status_of, clock=lambda: time.time_ns() + 60 * NS)
    assert [(alarm.kind, alarm.device) for alarm in later.alarms] == [(pb.ALARM_KIND_SILENT, "watch")]
    assert "it is not connected" in later.alarms[0].text
    assert not on_host(status_of, clock=lambda: time.time_ns() + 25 * 3600 * NS).streams, "a day later it is not expected any more"


def test_a_full_disk_is_an_alarm_until_there_is_room_again(on_host, header_message, monkeypatch):
    def refuse(*_: object) -> None:
        raise StoreFullError("expected room")

    async def scenario(host, channel):
        whole = Store.add
        monkeypatch.setattr(Store, "add", refuse)
        sensor = Sensor(host.target, host.tokens[Role.SENSOR], header_message(), patience=Patience(first_wait_s=0.05, longest_wait_s=0.05))
        give(sensor, 0, 1, time.time_ns() - NS)
        sensor.finish()
        running = asyncio.create_task(sensor.run())
        while not (full := await status_of(host, channel)).alarms:
            await asyncio.sleep(0.05)
        monkeypatch.setattr(Store, "add", whole)
        await running
        return full, await status_of(host, channel)

    full, later = on_host(scenario)
    assert [(alarm.kind, alarm.text) for alarm in full.alarms] == [(pb.ALARM_KIND_FULL, "expected room")]
    assert not later.alarms
    assert later.store.num_chunks == 1, "the sensor kept what was refused"


def test_a_clock_that_is_off_is_an_alarm(on_host, header_message):
    async def scenario(host, channel):
        ahead_ns = time.time_ns() + 3600 * NS
        chunk = ingest_pb2.Chunk(stream=1, t0_ns=ahead_ns, offsets_us=[0], values=[0, 0, 0], sent_ns=ahead_ns)
        requests = iter([ingest_pb2.StreamRequest(header=header_message()), ingest_pb2.StreamRequest(chunk=chunk)])
        async for _ in ingest_pb2_grpc.IngestStub(channel).Stream(requests, metadata=host.as_(Role.SENSOR), timeout=5):
            pass
        return await status_of(host, channel)

    (alarm,) = on_host(scenario).alarms
    assert (alarm.kind, alarm.device) == (pb.ALARM_KIND_CLOCK, "watch")
    assert re.search(r"found a clock 3[56]\d\d\.\d s ahead of it", alarm.text)


def test_it_is_sent_again_and_again(on_host):
    async def scenario(host, channel):
        call = status_pb2_grpc.StatusStub(channel).WatchStatus(
            pb.WatchStatusRequest(interval_s=0.2), metadata=host.as_(Role.VIEWER), timeout=10
        )
        times = [(await call.read()).status.time_ns for _ in range(3)]
        call.cancel()
        return np.diff(times)

    assert (on_host(scenario) > 0.15 * NS).all()


@pytest.mark.parametrize("interval_s", [0.1, 61, -1, float("nan")])
def test_an_interval_that_cannot_be_is_refused(on_host, interval_s):
    async def scenario(host, channel):
        stub = status_pb2_grpc.StatusStub(channel)
        with pytest.raises(grpc.aio.AioRpcError, match=r"interval_s: expected 0\.2 to 60 seconds"):
            await stub.WatchStatus(pb.WatchStatusRequest(interval_s=interval_s), metadata=host.as_(Role.VIEWER), timeout=5).read()

    on_host(scenario)
