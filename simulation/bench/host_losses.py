"""What a host loses when connections break and when it is killed (H2), and what late data and silent sensors become (H3)."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc
import numpy as np

from client.host.calls import bearer
from client.host.schema import open_store
from client.host.sensor import Patience, Sensor
from client.host.sessions import recordings_of
from client.host.tokens import Role
from client.host.v1 import ingest_pb2 as pb
from client.host.v1 import ingest_pb2_grpc, status_pb2, status_pb2_grpc
from clmm_core.errors import ClmmError
from clmm_core.seeds import derive_seed
from simulation.bench.cut_connection import wire_to
from simulation.bench.host_process import HostProcess, token_of
from simulation.bench.host_samples import NS, STREAM, header, is_whole, num_lost, request, samples, stored, times_ns

QUICK = Patience(first_wait_s=0.02, longest_wait_s=0.2)
EVERY_S = 0.002
"""A chunk so often: two hundred watches in one."""
LONGEST_S = 1.0
"""A cut or a kill comes so long after the one before, at most."""
TIMEOUT_S = 300.0
LATE_CHUNKS = 30
"""Fifteen seconds of them."""
NUM_LATE = 240
NUM_SILENT = 5
POLL_S = 0.1


@dataclass(frozen=True, kw_only=True)
class Losses:
    """What became of a sensor's samples through disconnects or kills."""

    num_broken: int
    num_samples: int
    """Given by the sensor, all acknowledged in the end."""
    num_acknowledged_before: tuple[int, ...]
    """Chunks acknowledged at each break."""
    num_lost: int
    num_twice: int
    is_whole: bool
    """Whether SQLite finds the store whole."""


@dataclass(frozen=True, kw_only=True)
class Late:
    """What became of samples that came late, out of order and twice."""

    num_samples: int
    num_sent: int
    num_misplaced: int
    """Samples of the recording that are not where their times say."""
    num_counted_twice: int
    num_duplicates_told: int
    """Chunks that the status calls duplicates."""


@dataclass(frozen=True, kw_only=True)
class Silent:
    """How long after a sensor's last sample the status has the alarm."""

    seconds: tuple[float, ...]


def cut(count: int) -> Losses:
    """Break a sensor's connection so often while it sends."""
    return _broken(count, _cutting)


def killed(count: int) -> Losses:
    """Kill a host so often while a sensor sends (`kill -9`), and start it again on the same store."""
    return _broken(count, _killing)


Break = Callable[["_Run", random.Random], Awaitable[None]]


class _Run:
    """A host and the wire to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.host = HostProcess(folder, 0, None)
        self.cut: Callable[[], int] = lambda: 0


async def _cutting(run: _Run, draw: random.Random) -> None:
    while not run.cut():  # between two connections there is nothing to cut
        await asyncio.sleep(0.01)


async def _killing(run: _Run, draw: random.Random) -> None:
    port = run.host.port
    run.host.kill()
    await asyncio.sleep(draw.uniform(0, 0.2))
    run.host = await asyncio.to_thread(HostProcess, run.folder, port, None)


def _broken(count: int, break_it: Break) -> Losses:
    with TemporaryDirectory(prefix="clmm-bench-") as place:
        folder = Path(place) / "host"
        token = token_of(folder, Role.SENSOR)
        run = _Run(folder)
        try:
            given, before = asyncio.run(asyncio.wait_for(_send_through(run, token, count, break_it), TIMEOUT_S))
            run.host.stop()
        finally:
            if run.host.is_alive():
                run.host.kill()
        lost, twice = num_lost(stored(folder), range(given))
        return Losses(
            num_broken=len(before),
            num_samples=given * len(times_ns(0)),
            num_acknowledged_before=tuple(before),
            num_lost=lost,
            num_twice=twice,
            is_whole=is_whole(folder),
        )


async def _send_through(run: _Run, token: str, count: int, break_it: Break) -> tuple[int, list[int]]:
    """Give chunks until it was broken so often; return how many, and how many were acknowledged at each break."""
    draw = random.Random(derive_seed(count, "break"))
    async with wire_to(run.host.port) as wire:
        run.cut = wire.cut
        sensor = Sensor(f"127.0.0.1:{wire.listens_on}", token, header(), patience=QUICK)
        sending, given, before = asyncio.create_task(sensor.run()), 0, []

        async def give() -> None:
            nonlocal given
            while True:
                sensor.give(STREAM, times_ns(given), samples(given))
                given += 1
                await asyncio.sleep(EVERY_S)

        giving = asyncio.create_task(give())
        for _ in range(count):
            await asyncio.sleep(draw.uniform(0.1, LONGEST_S))
            before.append(sensor.acknowledged.get(STREAM, 0))
            await break_it(run, draw)
        await asyncio.sleep(LONGEST_S)
        giving.cancel()
        sensor.finish()
        await sending
    if sensor.num_let_go or sensor.acknowledged != {STREAM: given}:
        raise ClmmError(f"expected {given} chunks acknowledged in the end, found {sensor.acknowledged}, {sensor.num_let_go} let go of")
    return given, before


def late() -> Late:
    """Send chunks up to 15 s late, out of order and each twice, and compare the recording with what was measured."""
    draw = random.Random(derive_seed(0, "late"))
    order = sorted(range(NUM_LATE), key=lambda sequence: sequence + draw.uniform(0, LATE_CHUNKS))
    twice = sorted([*enumerate(order), *((i + draw.uniform(0, LATE_CHUNKS), sequence) for i, sequence in enumerate(order))])
    requests = [request(sequence) for _, sequence in twice]
    with TemporaryDirectory(prefix="clmm-bench-") as place:
        folder = Path(place) / "host"
        token = token_of(folder, Role.ADMIN)
        host = HostProcess(folder, 0, None)
        try:
            num_duplicates = asyncio.run(asyncio.wait_for(_send_all(host.target, token, requests), TIMEOUT_S))
        finally:
            host.stop()
        with closing(open_store(folder)) as connection:
            (recording,) = recordings_of(connection, "anna")
        expected = np.concatenate([samples(sequence) for sequence in range(NUM_LATE)])
        found = np.concatenate([stream.samples for stream in recording.streams.values()], axis=1)
        counted_twice = num_lost(stored(folder), range(NUM_LATE))[1]
    num_misplaced = int((found != expected).any(axis=1).sum()) if found.shape == expected.shape else len(expected)
    return Late(
        num_samples=len(expected),
        num_sent=len(requests) * len(times_ns(0)),
        num_misplaced=num_misplaced,
        num_counted_twice=counted_twice,
        num_duplicates_told=num_duplicates,
    )


async def _send_all(target: str, token: str, requests: list[pb.StreamRequest]) -> int:
    """Send all, and return how many chunks the status then calls duplicates."""
    async with grpc.aio.insecure_channel(target) as channel:
        everything = iter([pb.StreamRequest(header=header()), *requests])
        async for _ in ingest_pb2_grpc.IngestStub(channel).Stream(everything, metadata=bearer(token), timeout=TIMEOUT_S):
            pass
        return (await _status(channel, token)).streams[0].num_duplicates


async def _status(channel: grpc.aio.Channel, token: str) -> status_pb2.HostStatus:
    request = status_pb2.GetStatusRequest()
    return (await status_pb2_grpc.StatusStub(channel).GetStatus(request, metadata=bearer(token), timeout=10)).status


def silent() -> Silent:
    """Let a sensor that sends every half second go silent, and measure until the status has the alarm."""
    with TemporaryDirectory(prefix="clmm-bench-") as place:
        folder = Path(place) / "host"
        token = token_of(folder, Role.ADMIN)
        host = HostProcess(folder, 0, None)
        try:
            seconds = [asyncio.run(asyncio.wait_for(_until_alarm(host.target, token, f"turn {i}"), 60)) for i in range(NUM_SILENT)]
        finally:
            host.stop()
    return Silent(seconds=tuple(seconds))


async def _until_alarm(target: str, token: str, subject: str) -> float:
    async with AsyncExitStack() as stack:
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(target))
        sensor = Sensor(target, token, header(subject))
        sending = asyncio.create_task(sensor.run())
        origin_ns = time.time_ns() - NS
        for sequence in range(5):
            sensor.give(STREAM, times_ns(sequence, origin_ns), samples(sequence))
            await asyncio.sleep(0.5)
        last_s = time.monotonic() - 0.5
        while not any(alarm.kind == status_pb2.ALARM_KIND_SILENT for alarm in (await _status(channel, token)).alarms):
            await asyncio.sleep(POLL_S)
        seconds = time.monotonic() - last_s
        sensor.finish()
        await sending
    return seconds
