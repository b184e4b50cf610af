"""The sensor that a host is measured with: three sensors of a watch, 9 channels at 50 Hz, half a second a chunk."""

import sqlite3
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from client.host.chunk import Chunk
from client.host.schema import FILE
from client.host.v1 import ingest_pb2 as pb

NS = 1_000_000_000
RATE_HZ, SAMPLES, CHANNELS = 50, 25, 9
STEP_NS = NS // RATE_HZ
ORIGIN_NS = 1_700_000_000 * NS
STREAM = 1


def header(subject: str = "anna", recording: str = "bench") -> pb.Header:
    """Return what the watch says of itself."""
    units = {
        "accelerometer": pb.UNIT_METRES_PER_SECOND_SQUARED,
        "gyroscope": pb.UNIT_RADIANS_PER_SECOND,
        "magnetometer": pb.UNIT_MICROTESLA,
    }
    channels = [pb.Channel(modality=modality, axis=axis, unit=unit) for modality, unit in units.items() for axis in "xyz"]
    stream = pb.SensorStream(id=STREAM, channels=channels, nominal_hz=RATE_HZ)
    return pb.Header(recording=recording, subject=subject, device="watch", clock=pb.CLOCK_UNIX, streams=[stream])


def times_ns(sequence: int, origin_ns: int = ORIGIN_NS) -> NDArray[np.int64]:
    """Return when the samples of a chunk were measured, `[25]`."""
    return origin_ns + (sequence * SAMPLES + np.arange(SAMPLES)) * STEP_NS


def samples(sequence: int) -> NDArray[np.float32]:
    """Return samples `[25, 9]` that no other chunk has."""
    return np.random.default_rng([sequence, CHANNELS]).standard_normal((SAMPLES, CHANNELS)).astype(np.float32)


def request(sequence: int, origin_ns: int = ORIGIN_NS) -> pb.StreamRequest:
    """Return a chunk as it travels."""
    times = times_ns(sequence, origin_ns)
    offsets = ((times - times[0]) // 1000).tolist()
    values = samples(sequence).ravel().tolist()
    return pb.StreamRequest(chunk=pb.Chunk(stream=STREAM, sequence=sequence, t0_ns=int(times[0]), offsets_us=offsets, values=values))


def stored(folder: Path) -> list[Chunk]:
    """Return every chunk of a host that does not run any more, by sequence."""
    connection = sqlite3.connect(folder / FILE)
    rows = connection.execute("SELECT stream, sequence, t0_ns, end_ns, offsets, samples FROM chunks ORDER BY stream, sequence").fetchall()
    connection.close()
    return [Chunk(*each) for each in rows]


def is_whole(folder: Path) -> bool:
    """Return whether SQLite finds nothing wrong with a host's store."""
    connection = sqlite3.connect(folder / FILE)
    found = connection.execute("PRAGMA integrity_check").fetchall()
    connection.close()
    return found == [("ok",)]


def num_lost(chunks: list[Chunk], expected: range) -> tuple[int, int]:
    """Return how many samples of the chunks `expected` are not there with their bytes, and how many are there twice."""
    by_bytes: dict[bytes, int] = {}
    for chunk in chunks:
        by_bytes[chunk.values] = by_bytes.get(chunk.values, 0) + 1
    counts = [by_bytes.get(samples(sequence).tobytes(), 0) for sequence in expected]
    return SAMPLES * sum(count == 0 for count in counts), SAMPLES * sum(max(0, count - 1) for count in counts)
