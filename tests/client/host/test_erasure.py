"""What a wearer takes back is gone: proven by a search of the host's files for the samples' bytes."""

import resource
import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from client.host.chunk import Chunk
from client.host.erasure import EXPORTS, TRAINING, StoreBusyError, erase, erase_all, pause, resume
from client.host.labels import Label, list_labels, put_label
from client.host.models import FOLDER as MODELS
from client.host.models import MODEL, PERSONAL, Models
from client.host.retention import Limits
from client.host.store import Store

NOW = 1_800_000_000_000_000_000
LABEL = Label(id="a", subject="anna", recording="monday", activity="walk", start_ns=100, end_ns=200, source=1)


def found_in_files(folder: Path, rows: np.ndarray) -> list[int]:
    """Return which samples' bytes `[samples, channels]` lie in any file of a folder."""
    content = b"\n".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())
    return [i for i, row in enumerate(rows) if row.tobytes() in content]


def rows_of(chunks: list[Chunk]) -> np.ndarray:
    return np.concatenate([chunk.samples() for chunk in chunks])


def test_of_all_that_was_deleted_no_byte_stays(store, header, chunk):
    stream = store.register(header(), NOW)[1]
    chunks = [chunk(stream, number) for number in range(400)]
    store.add(chunks, NOW)
    put_label(store.connection, LABEL)
    folder, rows = store.path.parent, rows_of(chunks)
    (folder / EXPORTS / "anna").mkdir(parents=True)
    (folder / EXPORTS / "anna" / "accelerometer.parquet").write_bytes(rows.tobytes())
    assert len(found_in_files(folder, rows)) == len(rows), "the search finds what is there"
    erased = erase_all(store, NOW)
    assert (erased.num_samples, erased.num_labels) == (10_000, 1)
    assert found_in_files(folder, rows) == []
    assert not (folder / EXPORTS).exists()
    assert b"walk" not in store.path.read_bytes()
    assert store.path.stat().st_size < 100_000
    assert store.counts()[1:] == (0, 0)


@given(cuts=st.lists(st.tuples(st.integers(0, 1000), st.integers(1, 400)), min_size=1, max_size=4))
@example(cuts=[(2, 103), (1, 200)])  # where secure_delete alone leaves a sample in a page that was rebuilt
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_of_a_deleted_time_no_byte_stays_and_all_else_does(tmp_path_factory, header, chunk, cuts):
    store = Store(tmp_path_factory.mktemp("host"), Limits())
    stream = store.register(header(), NOW)[1]
    chunks = [chunk(stream, number) for number in range(40)]
    store.add(chunks, NOW)
    times, rows = np.concatenate([each.times_ns() for each in chunks]), rows_of(chunks)
    is_gone, num_gone = np.zeros(len(times), bool), 0
    for start, length in cuts:
        span = (int(times[0]) + start * 20_000_000 - 3, int(times[0]) + (start + length) * 20_000_000 - 3)
        num_gone += erase(store, span).num_samples
        is_gone |= (times >= span[0]) & (times < span[1])
    assert num_gone == is_gone.sum()
    assert found_in_files(store.path.parent, rows) == np.flatnonzero(~is_gone).tolist()
    assert store.connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    store.close()


def test_what_is_sent_again_of_a_deleted_time_stays_away(store, header, chunk, stored):
    stream = store.register(header(), NOW)[1]
    chunks = [chunk(stream, number) for number in range(4)]
    store.add(chunks[:1], NOW)
    erase(store, (chunks[0].t0_ns, chunks[2].t0_ns + 1))
    added = store.add(chunks, NOW)
    assert added.num_duplicates == {stream: 1}
    assert added.withheld == [(stream, 1)]
    assert added.next_sequence == {stream: 4}, "and is not asked for again"
    assert np.array_equal(rows_of(stored()), rows_of(chunks[2:])[1:])


def test_another_subject_s_samples_of_that_time_stay(store, header, chunk, stored):
    anna, ben = (store.register(header(subject=name), NOW)[1] for name in ("anna", "ben"))
    store.add([chunk(anna, 0), chunk(ben, 0)], NOW)
    assert erase(store, (0, NOW), "anna").num_samples == 25
    assert [each.stream for each in stored()] == [ben]
    assert store.add([chunk(ben, 1)], NOW).kept
    assert store.add([chunk(anna, 1)], NOW).withheld == [(anna, 1)]


@pytest.mark.parametrize(
    ("span", "left"),
    [((0, 100), (100, 200)), ((0, 150), (150, 200)), ((150, 900), (100, 150)), ((120, 130), (130, 200)), ((100, 200), None)],
)
def test_labels_are_cut_back_to_what_they_say_of_other_times(store, header, span, left):
    store.register(header(), NOW)
    put_label(store.connection, LABEL)
    erased = erase(store, span)
    assert [(label.start_ns, label.end_ns) for label in list_labels(store.connection)] == ([] if left is None else [left])
    assert erased.num_labels == (left is None)


def test_a_label_that_was_corrected_does_not_come_back_when_its_correction_goes(store, header):
    from client.host.labels import correct_label  # noqa: PLC0415

    store.register(header(), NOW)
    put_label(store.connection, LABEL)
    correct_label(store.connection, "a", replace(LABEL, id="b", start_ns=500, end_ns=600))
    erase(store, (450, 700))
    assert list_labels(store.connection, with_corrected=True) == []


def test_nothing_that_comes_or_was_measured_in_a_pause_is_kept(store, header, chunk, stored):
    stream = store.register(header(), NOW)[1]
    before, during, after = (chunk(stream, number) for number in range(3))
    pause(store, during.t0_ns)
    pause(store, NOW)
    assert store.is_paused
    assert store.add([before], NOW).withheld == [(stream, 0)], "a sensor's clock may be wrong: nothing is kept that arrives in a pause"
    store.close()
    again = Store(store.path.parent, Limits())
    assert again.is_paused, "also after a restart"
    resume(again, after.t0_ns)
    assert not again.is_paused
    added = again.add([during, after], NOW)
    again.close()
    assert added.withheld == [(stream, 1)]
    assert added.kept == [after]


def test_streams_without_a_sensor_go_with_all_and_others_go_on(store, header, chunk, stored):
    here, gone = store.register(header(), NOW)[1], store.register(header(subject="ben"), NOW)[1]
    store.add([chunk(here, 0), chunk(gone, 0)], NOW)
    store.leave([gone], [gone], NOW, is_finished=True)
    erase_all(store, chunk(here, 1).t0_ns)
    assert store.connection.execute("SELECT subject FROM streams").fetchall() == [("anna",)]
    assert b"ben" not in store.path.read_bytes()
    added = store.add([chunk(here, 1)], NOW)
    assert added.next_sequence == {here: 2}
    assert stored() == [chunk(here, 1)]
    assert store.register(header(subject="ben"), NOW)[1] > gone, "a number is not used again"


def test_deleting_all_does_not_end_a_pause(store, header, chunk):
    stream = store.register(header(), NOW)[1]
    pause(store, 5)
    erase_all(store, 10)
    assert store.is_paused
    assert store.add([chunk(stream, 0)], NOW).withheld


def test_a_reader_that_keeps_an_old_copy_is_told(store, header, chunk):
    stream = store.register(header(), NOW)[1]
    store.add([chunk(stream, 0)], NOW)
    store.connection.execute("PRAGMA busy_timeout = 50")
    reader = sqlite3.connect(store.path, isolation_level=None)
    reader.execute("BEGIN")
    assert reader.execute("SELECT COUNT(*) FROM chunks").fetchone() == (1,)
    with pytest.raises(StoreBusyError, match=r"is deleted, but a reader keeps an old copy in store.sqlite-wal"):
        erase(store, (0, NOW))
    reader.close()
    erase(store, (0, NOW))
    assert found_in_files(store.path.parent, chunk(stream, 0).samples()) == []


def test_where_the_file_cannot_be_written_anew_that_is_told(store, header, chunk):
    stream = store.register(header(), NOW)[1]
    store.add([chunk(stream, number) for number in range(400)], NOW)
    store.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (store.path.stat().st_size // 2, limits[1]))
    try:
        with pytest.raises(StoreBusyError, match="is deleted, but old copies may be left in the file"):
            erase(store, (0, chunk(stream, 10).t0_ns))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert store.connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    erase(store, (0, chunk(stream, 10).t0_ns))
    gone = rows_of([chunk(stream, number) for number in range(10)])
    assert found_in_files(store.path.parent, gone) == []


def test_what_was_made_of_recordings_goes_with_them(store: Store, stored, chunk, header):
    folder = store.path.parent
    number = store.register(header(), 1)[1]
    store.add([chunk(number, 0)], 1)
    place = Models(folder / MODELS).install(b"model", "golden").parent
    (place / PERSONAL).write_text("of their movement")
    (folder / TRAINING / "000000").mkdir(parents=True)
    erase_all(store, 2)
    assert not (folder / TRAINING).exists()
    assert not (place / PERSONAL).exists()
    assert (place / MODEL).read_bytes() == b"model", "the model is not theirs alone"
