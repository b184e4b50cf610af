"""Sensors and hosts of these tests: real ones, small."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from client.host.calls import bearer
from client.host.chunk import Chunk, packed
from client.host.daemon import HostConfig, serving
from client.host.header import Header, header_of
from client.host.retention import Limits
from client.host.store import Store
from client.host.tokens import Role, add_token
from client.host.v1 import ingest_pb2 as pb

NS = 1_000_000_000
T0_NS = 1_700_000_000 * NS
STEP_NS = 20_000_000
STORED = "SELECT stream, sequence, t0_ns, end_ns, offsets, samples FROM chunks ORDER BY stream, sequence"
UNITS = {
    "accelerometer": pb.UNIT_METRES_PER_SECOND_SQUARED,
    "gyroscope": pb.UNIT_RADIANS_PER_SECOND,
    "magnetometer": pb.UNIT_MICROTESLA,
}


@pytest.fixture
def header_message() -> Callable[..., pb.Header]:
    """Make a watch's header: a stream of the axes x, y, z of each modality, at 50 Hz."""

    def make(*modalities: str, subject: str = "anna", recording: str = "monday", device: str = "watch", stream: int = 1) -> pb.Header:
        names = modalities or ("accelerometer",)
        channels = [pb.Channel(modality=name, axis=axis, unit=UNITS.get(name, pb.UNIT_ONE)) for name in names for axis in "xyz"]
        return pb.Header(
            recording=recording,
            subject=subject,
            device=device,
            placement="left wrist",
            streams=[pb.SensorStream(id=stream, channels=channels, nominal_hz=50)],
            clock=pb.CLOCK_UNIX,
        )

    return make


@pytest.fixture
def header(header_message: Callable[..., pb.Header]) -> Callable[..., Header]:
    """Make the same as the host has it."""
    return lambda *modalities, **names: header_of(header_message(*modalities, **names))


@pytest.fixture
def chunk() -> Callable[..., Chunk]:
    """Make chunk `sequence` of a stream at 50 Hz: samples that tell which they are, at times that follow from it."""

    def make(stream: int, sequence: int, count: int = 25, channels: int = 3, t0_ns: int = T0_NS) -> Chunk:
        times = t0_ns + (sequence * count + np.arange(count)) * STEP_NS
        values = np.random.default_rng([sequence, channels]).standard_normal((count, channels))
        return packed(stream, sequence, times, values.astype(np.float32))

    return make


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Open a new store."""
    opened = Store(tmp_path / "host", Limits())
    yield opened
    opened.close()


@pytest.fixture
def stored(store: Store) -> Callable[[], list[Chunk]]:
    """Return what is on the disk, by stream and sequence."""
    return lambda: [Chunk(*row) for row in store.connection.execute(STORED)]


@dataclass(frozen=True)
class RunningHost:
    """A host that serves in this process."""

    folder: Path
    port: int
    tokens: Mapping[Role, str]

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    def as_(self, role: Role) -> tuple[tuple[str, str], ...]:
        """Return the metadata of a call by the owner of a token."""
        return bearer(self.tokens[role])


Scenario = Callable[[RunningHost, grpc.aio.Channel], Awaitable[Any]]


@pytest.fixture
def on_host(tmp_path: Path) -> Callable[..., Any]:
    """Run a scenario with a host and a channel to it, and return what it returns; 30 s at most."""
    folder = tmp_path / "host"
    tokens = {role: add_token(folder, f"a {role}", role) for role in Role}

    def run(scenario: Scenario, clock: Callable[[], int] = time.time_ns, limits: Limits = Limits()) -> Any:  # noqa: B008  frozen
        async def main() -> Any:
            config = HostConfig(folder=folder, listen="127.0.0.1:0", limits=limits)
            async with serving(config, clock) as (port, _), grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel, asyncio.timeout(30):
                return await scenario(RunningHost(folder, port, tokens), channel)

        return asyncio.run(main())

    return run


@pytest.fixture
def kept(tmp_path: Path) -> Callable[[], list[Chunk]]:
    """Return what is on a host's disk when it has ended, by stream and sequence."""

    def read() -> list[Chunk]:
        store = Store(tmp_path / "host", Limits())
        rows = store.connection.execute(STORED).fetchall()
        store.close()
        return [Chunk(*row) for row in rows]

    return read
