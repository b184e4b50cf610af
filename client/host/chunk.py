"""Some samples of one stream with their times, as they arrive and as they are kept."""

from array import array
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from client.host.header import SensorStream
from client.host.v1 import ingest_pb2 as pb
from clmm_core.errors import DataError

NS_PER_US = 1_000
MAX_SAMPLES = 10_000
MAX_NS = 2**62
"""Times are int64; this is the year 2116."""
MAX_SEQUENCE = 2**62
MAX_SPAN_US = 1_800_000_000
"""Longer than half an hour says that its times are in another unit."""
OFFSETS, VALUES = np.dtype("<i4"), np.dtype("<f4")


@dataclass(frozen=True, slots=True)
class Chunk:
    """One row of the store."""

    stream: int
    """The store's number of it."""
    sequence: int
    t0_ns: int
    """Time of the first sample."""
    end_ns: int
    """Time of the last sample."""
    offsets: bytes
    """`[samples]`, little-endian int32, microseconds after `t0_ns`, ascending."""
    values: bytes
    """`[samples, channels]`, little-endian float32, SI."""

    @property
    def num_samples(self) -> int:
        """How many times it has."""
        return len(self.offsets) // OFFSETS.itemsize

    def times_ns(self) -> NDArray[np.int64]:
        """Return `[samples]`."""
        return np.frombuffer(self.offsets, OFFSETS).astype(np.int64) * NS_PER_US + self.t0_ns

    def samples(self) -> NDArray[np.float32]:
        """Return `[samples, channels]`."""
        return np.frombuffer(self.values, VALUES).reshape(self.num_samples, -1)

    def kept(self, is_kept: NDArray[np.bool_]) -> "Chunk | None":
        """Return it with those of its samples for which `is_kept` `[samples]` is True; None without any."""
        if not is_kept.any():
            return None
        return packed(self.stream, self.sequence, self.times_ns()[is_kept], self.samples()[is_kept])


def packed(stream: int, sequence: int, times_ns: NDArray[np.int64], samples: NDArray[np.float32]) -> Chunk:
    """Return samples `[n, channels]` at `times_ns` `[n]`, whole microseconds apart from the first, as a chunk."""
    t0_ns = int(times_ns[0])
    offsets = ((times_ns - t0_ns) // NS_PER_US).astype(OFFSETS)
    end_ns = t0_ns + int(offsets[-1]) * NS_PER_US
    return Chunk(stream, sequence, t0_ns, end_ns, offsets.tobytes(), np.ascontiguousarray(samples, VALUES).tobytes())


def chunk_of(message: pb.Chunk, number: int, stream: SensorStream, factors: NDArray[np.float32] | None) -> Chunk:
    """Return what a sensor sent, checked and in SI units.

    Args:
        message: as it came.
        number: the store's of this stream.
        stream: the header's, that it belongs to.
        factors: `[channels]`, of the conversion to SI; None where it is in SI already.

    Raises:
        DataError: it cannot be samples of this stream; says what to correct.
    """
    offsets = array("i", message.offsets_us)
    count, num_channels = len(offsets), len(stream.channels)
    if not 1 <= count <= MAX_SAMPLES:
        raise DataError(f"expected 1 to {MAX_SAMPLES} samples, found {count}: send smaller chunks")
    if len(message.values) != count * num_channels:
        raise DataError(f"expected {count} samples x {num_channels} channels = {count * num_channels} values, found {len(message.values)}")
    first_us, last_us = offsets[0], offsets[-1]
    if last_us - first_us > MAX_SPAN_US or (np.diff(np.frombuffer(offsets, np.int32)) < 0).any():
        raise DataError(f"expected offsets in microseconds that never go back, half an hour at most, found {list(offsets[:4])}...")
    t0_ns, end_ns = message.t0_ns + first_us * NS_PER_US, message.t0_ns + last_us * NS_PER_US
    if not 0 <= t0_ns <= end_ns < MAX_NS:
        raise DataError(f"expected times in nanoseconds since 1970, before 2116, found {t0_ns} to {end_ns}")
    if message.sequence >= MAX_SEQUENCE:
        raise DataError(f"expected sequence numbers from 0 on, below 2^62, found {message.sequence}")
    if first_us:
        offsets = array("i", [each - first_us for each in offsets])
    values = array("f", message.values).tobytes()
    if factors is not None:
        with np.errstate(over="ignore"):  # what float32 does not hold becomes infinite, and rules its window out
            values = (np.frombuffer(values, VALUES).reshape(count, num_channels) * factors).tobytes()
    return Chunk(number, message.sequence, t0_ns, end_ns, offsets.tobytes(), values)
