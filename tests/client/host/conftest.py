"""Sensors and hosts of these tests: real ones, small."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from client.host.chunk import Chunk, packed
from client.host.header import Header, header_of
from client.host.retention import Limits
from client.host.store import Store
from client.host.v1 import ingest_pb2 as pb

NS = 1_000_000_000
T0_NS = 1_700_000_000 * NS
STEP_NS = 20_000_000
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
    query = "SELECT stream, sequence, t0_ns, end_ns, offsets, samples FROM chunks ORDER BY stream, sequence"
    return lambda: [Chunk(*row) for row in store.connection.execute(query)]
