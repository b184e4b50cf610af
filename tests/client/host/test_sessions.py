import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from client.host.chunk import packed
from client.host.labels import Label, put_label
from client.host.retention import Limits
from client.host.sessions import MAX_LENGTH_NS, MAX_PAUSE_NS, recording_of, recordings_of, sessions_of, subjects_of
from client.host.store import Store

NS = 1_000_000_000
NOW = 1_800_000_000_000_000_000


def test_a_stream_of_several_sensors_becomes_a_stream_a_modality(store, header, chunk):
    stream = store.register(header("accelerometer", "gyroscope"), NOW)[1]
    chunks = [chunk(stream, number, channels=6) for number in range(4)]
    store.add(chunks, NOW)
    (recording,) = recordings_of(store.connection, "anna")
    assert (recording.subject, recording.session) == ("anna", "monday")
    samples = np.concatenate([each.samples() for each in chunks])
    for modality, own, unit in (("accelerometer", slice(0, 3), "m/s^2"), ("gyroscope", slice(3, 6), "rad/s")):
        found = recording.streams[modality]
        np.testing.assert_array_equal(found.samples, samples[:, own])
        assert (found.rate_hz, found.start_s, found.unit) == (pytest.approx(50), 0, unit)
    assert subjects_of(store.connection) == ["anna"]


@given(order=st.permutations(range(12)), again=st.lists(st.integers(0, 11), max_size=4))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_late_and_out_of_order_and_twice_is_placed_right(tmp_path_factory, header, chunk, order, again):
    store = Store(tmp_path_factory.mktemp("host"), Limits())
    stream = store.register(header(), NOW)[1]
    for number in (*order, *again):
        store.add([chunk(stream, number)], NOW)
    (recording,) = recordings_of(store.connection, "anna")
    store.close()
    np.testing.assert_array_equal(recording.streams["accelerometer"].samples, np.concatenate([chunk(1, n).samples() for n in range(12)]))


def test_a_gap_stays_a_gap(store, header, chunk):
    stream = store.register(header(), NOW)[1]
    store.add([chunk(stream, number) for number in (0, 1, 4, 5)], NOW)
    (recording,) = recordings_of(store.connection, "anna")
    samples = recording.streams["accelerometer"].samples
    assert len(samples) == 150
    assert np.isnan(samples[50:100]).all()
    assert np.isfinite(samples[:50]).all()
    np.testing.assert_array_equal(samples[100:125], chunk(stream, 4).samples())


def test_after_a_long_pause_another_session_begins_with_its_own_labels(store, header, chunk):
    stream = store.register(header(), NOW)[1]
    first = chunk(stream, 0)
    later = chunk(stream, 1, t0_ns=first.end_ns + MAX_PAUSE_NS)
    store.add([first, later], NOW)
    for activity, each in (("walk", first), ("run", later)):
        label = Label(subject="anna", recording="monday", activity=activity, start_ns=each.t0_ns, end_ns=each.end_ns, source=1)
        put_label(store.connection, label)
    sessions = list(recordings_of(store.connection, "anna"))
    assert [session.session for session in sessions] == ["monday", "monday~2"]
    assert [[(each.label, each.start_s) for each in session.intervals] for session in sessions] == [[("walk", 0.0)], [("run", 0.0)]]


def test_a_long_recording_is_cut_every_hour_and_nothing_is_lost(store, header):
    stream = store.register(header(), NOW)[1]
    step_ns = 10 * NS
    times = 1_700_000_000 * NS + np.arange(800) * step_ns
    samples = np.arange(800 * 3, dtype=np.float32).reshape(-1, 3)
    store.add([packed(stream, i // 7, times[i : i + 7], samples[i : i + 7]) for i in range(0, 800, 7)], NOW)
    sessions = list(sessions_of(store.connection, "anna"))
    assert [session.name for session in sessions] == ["monday", "monday~2", "monday~3"]
    assert [len(session.streams["accelerometer"].times_ns) for session in sessions] == [360, 360, 80]
    assert all(np.ptp(session.streams["accelerometer"].times_ns) < MAX_LENGTH_NS for session in sessions)
    np.testing.assert_array_equal(np.concatenate([session.streams["accelerometer"].samples for session in sessions]), samples)


def test_sensors_that_never_run_at_the_same_time_are_sessions_of_their_own(store, header, chunk):
    watch = store.register(header(), NOW)[1]
    phone = store.register(header("gyroscope", device="phone"), NOW)[1]
    first = chunk(watch, 0)
    store.add([first, chunk(phone, 0, t0_ns=first.end_ns + NS)], NOW)
    assert [(each.name, list(each.streams)) for each in sessions_of(store.connection, "anna")] == [
        ("monday", ["accelerometer"]),
        ("monday~2", ["gyroscope"]),
    ]


def test_a_stream_that_starts_later_says_so(store, header, chunk):
    watch = store.register(header(), NOW)[1]
    phone = store.register(header("gyroscope", device="phone"), NOW)[1]
    store.add([chunk(watch, number) for number in range(4)], NOW)
    store.add([chunk(phone, number) for number in range(2, 5)], NOW)
    (recording,) = recordings_of(store.connection, "anna")
    assert recording.streams["gyroscope"].start_s == pytest.approx(1.0)
    assert recording.streams["accelerometer"].start_s == 0


def test_what_cannot_be_at_a_constant_rate_is_left_out_and_said(store, header, chunk):
    watch = store.register(header(), NOW)[1]
    phone = store.register(header("gyroscope", device="phone"), NOW)[1]
    store.add([chunk(watch, number) for number in range(3)], NOW)
    single = chunk(phone, 1)
    store.add([packed(phone, 0, single.times_ns()[:1], single.samples()[:1])], NOW)
    (session,) = sessions_of(store.connection, "anna")
    recording, left_out = recording_of(session)
    assert recording is not None
    assert list(recording.streams) == ["accelerometer"]
    assert "session 'monday', 'gyroscope': expected at least two rows" in left_out["gyroscope"]
    assert recording.left_out == left_out


def test_a_subject_without_samples_has_no_sessions(store, header):
    store.register(header(), NOW)
    assert subjects_of(store.connection) == []
    assert list(sessions_of(store.connection, "anna")) == []
