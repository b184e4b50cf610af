import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from client.host.chunk import MAX_SAMPLES, chunk_of, packed
from client.host.header import Channel, SensorStream
from client.host.v1 import ingest_pb2 as pb
from clmm_core.errors import DataError

CHANNELS = tuple(Channel(modality="accelerometer", axis=axis, unit="m/s^2", factor=1.0) for axis in "xy")
STREAM = SensorStream(number=3, channels=CHANNELS, nominal_hz=0)
T0_NS = 1_700_000_000_000_000_123


def message(**changes: object) -> pb.Chunk:
    return pb.Chunk(**{"stream": 3, "sequence": 4, "t0_ns": T0_NS, "offsets_us": [0, 10, 20], "values": [1, 2, 3, 4, 5, 6], **changes})


@given(
    offsets=st.lists(st.integers(-(10**8), 10**8), min_size=1, max_size=30),
    values=st.data(),
)
def test_what_a_sensor_sends_is_what_is_kept(offsets, values):
    samples = values.draw(arrays(np.float32, (len(offsets), 2), elements=st.floats(width=32)))
    chunk = chunk_of(message(offsets_us=sorted(offsets), values=samples.ravel().tolist()), 9, STREAM, None)
    np.testing.assert_array_equal(chunk.times_ns(), T0_NS + np.array(sorted(offsets)) * 1000)
    np.testing.assert_array_equal(chunk.samples(), samples)
    assert (chunk.stream, chunk.sequence) == (9, 4)
    assert (chunk.t0_ns, chunk.end_ns) == (chunk.times_ns()[0], chunk.times_ns()[-1])
    assert packed(9, 4, chunk.times_ns(), chunk.samples()) == chunk


def test_factors_turn_values_into_si():
    chunk = chunk_of(message(), 9, STREAM, np.array([2, 10], np.float32))
    np.testing.assert_array_equal(chunk.samples(), [[2, 20], [6, 40], [10, 60]])
    assert np.isinf(chunk_of(message(values=[3e38] * 6), 9, STREAM, np.array([10, 1], np.float32)).samples()[:, 0]).all()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"offsets_us": [], "values": []}, f"expected 1 to {MAX_SAMPLES} samples, found 0"),
        ({"offsets_us": [0] * (MAX_SAMPLES + 1)}, f"found {MAX_SAMPLES + 1}"),
        ({"values": [1] * 5}, "expected 3 samples x 2 channels = 6 values, found 5"),
        ({"offsets_us": [0, 20, 10]}, "never go back"),
        ({"offsets_us": [-(2**31), 0, 2**31 - 1]}, "half an hour at most"),
        ({"t0_ns": -1_000_000}, "expected times in nanoseconds since 1970"),
        ({"t0_ns": 2**63 - 1}, "before 2116"),
        ({"sequence": 2**64 - 1}, "expected sequence numbers from 0 on"),
    ],
)
def test_what_cannot_be_samples_is_refused(changes, expected):
    with pytest.raises(DataError, match=expected):
        chunk_of(message(**changes), 9, STREAM, None)


def test_some_of_its_samples_are_a_chunk_again():
    chunk = chunk_of(message(), 9, STREAM, None)
    left = chunk.kept(np.array([False, True, True]))
    assert left is not None
    np.testing.assert_array_equal(left.times_ns(), chunk.times_ns()[1:])
    np.testing.assert_array_equal(left.samples(), chunk.samples()[1:])
    assert (left.t0_ns, left.end_ns) == (T0_NS + 10_000, T0_NS + 20_000)
    assert chunk.kept(np.zeros(3, bool)) is None
