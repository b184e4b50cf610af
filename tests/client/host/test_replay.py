"""Real recordings through gRPC into the store give the windows that training cuts from the files."""

import time

import numpy as np
import pytest

from client.host.calls import HostCallError
from client.host.erasure import erase
from client.host.replay import header_for, replay_recordings
from client.host.retention import Limits
from client.host.sessions import recordings_of
from client.host.store import Store
from client.host.tokens import Role
from clmm_core.data.datasets.spar import Spar
from clmm_core.data.recording import LabelledInterval, Recording, Stream
from clmm_core.data.windows import window_recordings
from clmm_core.errors import DataError


@pytest.fixture
def replayed(on_host, tmp_path):
    """Replay recordings through a host, and return what its store then has of a subject."""

    def run(recordings, subject: str, *, speed: float = 0.0) -> list[Recording]:
        async def scenario(host, channel):
            token = host.tokens[Role.ADMIN]
            return await replay_recordings(recordings, host.target, token, None, time.time_ns(), speed=speed, with_labels=True)

        num_samples = on_host(scenario)
        assert num_samples == sum(len(stream.samples) for recording in recordings for stream in recording.streams.values())
        store = Store(tmp_path / "host", Limits())
        found = list(recordings_of(store.connection, subject))
        store.close()
        return found

    return run


def test_windows_of_the_host_are_the_loader_s(replayed):
    dataset = Spar()
    recordings = dataset.recordings("3")
    expected = window_recordings("3", recordings, dataset.modalities, dataset.window)
    by_name = {recording.session: recording for recording in replayed(recordings, "3")}
    found = window_recordings("3", [by_name[recording.session] for recording in recordings], dataset.modalities, dataset.window)
    assert len(found) == len(expected) > 50
    for modality in dataset.modalities:
        np.testing.assert_array_equal(found.streams[modality], expected.streams[modality])
        np.testing.assert_array_equal(found.present[modality], expected.present[modality])
    assert found.labels.tolist() == expected.labels.tolist()
    assert found.trials.tolist() == expected.trials.tolist()
    np.testing.assert_allclose(found.starts_s, expected.starts_s, atol=1e-9)
    assert found.units == expected.units


def test_a_stream_that_starts_later_and_lost_samples_come_through(replayed):
    random = np.random.default_rng(0)
    first = random.normal(size=(300, 3)).astype(np.float32)
    first[100:120] = np.nan
    streams = {
        "accelerometer": Stream(samples=first, rate_hz=100, unit="m/s^2"),
        "orientation": Stream(samples=random.normal(size=(60, 4)).astype(np.float32), rate_hz=25, start_s=0.4, unit="1"),
    }
    recording = Recording(subject="a, b", session="x/y", streams=streams, intervals=(LabelledInterval(label="walk", start_s=1, end_s=2),))
    (found,) = replayed([recording], "a_ b")
    assert found.session == "x_y"
    for modality, stream in streams.items():
        np.testing.assert_array_equal(found.streams[modality].samples, stream.samples)
        assert found.streams[modality].start_s == pytest.approx(stream.start_s)
    assert [(each.label, each.start_s, each.end_s) for each in found.intervals] == [("walk", pytest.approx(1), pytest.approx(2))]


def test_at_speed_one_it_takes_as_long_as_it_took(replayed):
    recording = Recording(subject="a", session="b", streams={"own": Stream(samples=np.ones((60, 1), np.float32), rate_hz=50, unit="1")})
    begun_s = time.monotonic()
    replayed([recording], "a", speed=1.0)
    assert time.monotonic() - begun_s > 1.1


def test_a_refusal_is_told(on_host, tmp_path):
    store = Store(tmp_path / "host", Limits())
    erase(store, (0, 2**61))
    store.close()

    async def scenario(host, channel):
        recordings = Spar().recordings("1")[:1]
        with pytest.raises(HostCallError, match=r"refused \d+ chunks.*paused or deleted"):
            await replay_recordings(recordings, host.target, host.tokens[Role.ADMIN], None, time.time_ns(), speed=0, with_labels=False)

    on_host(scenario)


def test_a_unit_that_cannot_be_sent_is_refused():
    stream = Stream(samples=np.ones((2, 1), np.float32), rate_hz=1, unit="furlong")
    with pytest.raises(DataError, match=r"'own': expected a unit of .*, found furlong"):
        header_for(Recording(subject="a", session="b", streams={"own": stream}))
