import resource
import sqlite3
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.host import store as store_module
from client.host.chunk import Chunk
from client.host.retention import Limits
from client.host.schema import FILE, StoreFullError
from client.host.store import LetGo, ModalityTakenError, Store, Unusable
from clmm_core.errors import DataError

NOW = 1_800_000_000_000_000_000


def test_what_is_added_is_there_when_it_is_opened_again(store, header, chunk, stored, tmp_path: Path):
    stream = store.register(header(), NOW)[1]
    added = store.add([chunk(stream, number) for number in range(3)], NOW)
    assert added.next_sequence == {stream: 3}
    assert len(added.kept) == 3
    again = Store(tmp_path / "host", Limits())
    assert again.register(header(), NOW) == {1: stream}
    assert again.next_sequence(stream) == 3
    assert again.counts()[1:] == (3, 0)
    again.close()
    assert stored() == [chunk(stream, number) for number in range(3)]


@given(
    arrivals=st.lists(st.tuples(st.integers(0, 12), st.sampled_from(["chunk", "chunk", "chunk", "unusable", "let go"])), max_size=40),
    batch=st.integers(1, 7),
    restart=st.integers(0, 6),
)
@settings(max_examples=60, deadline=None)
def test_in_any_order_and_however_often_each_counts_once(tmp_path_factory, arrivals, batch, restart):
    """Against sets, which are obviously right; the store is opened anew in the middle."""
    folder = tmp_path_factory.mktemp("host")
    store = Store(folder, Limits())
    store.connection.execute("INSERT INTO streams VALUES (1, 'anna', 'monday', 'watch', 1, '', '[]', 0, 0, 0, 0)")
    kept: set[int] = set()
    done: set[int] = set()
    for number, start in enumerate(range(0, len(arrivals), batch)):
        if number == restart:
            store.close()
            store = Store(folder, Limits())
            done = set(range(store.next_sequence(1))) | kept  # what was refused beyond a missing one is asked for again
        what = []
        for sequence, kind in arrivals[start : start + batch]:
            if kind == "let go":
                what.append(LetGo(1, sequence))
                done |= set(range(sequence))
            else:
                what.append(Unusable(1, sequence) if kind == "unusable" else one(sequence))
                kept |= {sequence} - done if kind == "chunk" else set()
                done.add(sequence)
        added = store.add(what, NOW)
        assert added.next_sequence == {1: next(each for each in range(100) if each not in done)}
    rows = store.connection.execute("SELECT sequence FROM chunks ORDER BY sequence").fetchall()
    store.close()
    assert [sequence for (sequence,) in rows] == sorted(kept)


def one(sequence: int) -> Chunk:
    return Chunk(1, sequence, sequence * 1000, sequence * 1000, b"\0\0\0\0", b"\0\0\0\0")


def test_duplicates_are_counted_and_change_nothing(store, header, chunk, stored):
    stream = store.register(header(), NOW)[1]
    store.add([chunk(stream, 0), chunk(stream, 1)], NOW)
    other = Chunk(stream, 1, 5, 5, b"\0\0\0\0", b"\0" * 12)
    added = store.add([chunk(stream, 0), other], NOW)
    assert added.num_duplicates == {stream: 2}
    assert not added.kept
    assert stored() == [chunk(stream, 0), chunk(stream, 1)]


def test_a_missing_chunk_is_not_waited_for_without_end(store, header, chunk, monkeypatch):
    monkeypatch.setattr(store_module, "MAX_AHEAD", 5)
    stream = store.register(header(), NOW)[1]
    assert store.add([chunk(stream, number) for number in range(1, 6)], NOW).next_sequence == {stream: 0}
    assert store.add([chunk(stream, 6)], NOW).next_sequence == {stream: 7}


def test_streams_of_several_sensors_are_apart(store, header, chunk, stored):
    watch = store.register(header(), NOW)[1]
    phone = store.register(header("gyroscope", device="phone"), NOW)[1]
    ben = store.register(header(subject="ben"), NOW)[1]
    assert len({watch, phone, ben}) == 3
    added = store.add([chunk(watch, 0), chunk(phone, 0), chunk(ben, 1)], NOW)
    assert added.next_sequence == {watch: 1, phone: 1, ben: 0}
    assert [each.stream for each in stored()] == [watch, phone, ben]


def test_a_second_sensor_of_the_same_modality_is_refused(store, header):
    store.register(header("accelerometer", "gyroscope"), NOW)
    with pytest.raises(ModalityTakenError, match=r"device 'phone'.*found 'gyroscope', which stream 1 of device 'watch' gives"):
        store.register(header("gyroscope", device="phone"), NOW)
    store.register(header("gyroscope", device="phone", recording="tuesday"), NOW)


def test_a_sensor_that_comes_back_with_other_channels_is_refused(store, header):
    store.register(header("accelerometer"), NOW)
    with pytest.raises(ModalityTakenError, match="expected the channels as before"):
        store.register(header("accelerometer", "gyroscope"), NOW)


def test_only_its_owner_can_read_it(store, header, chunk, tmp_path: Path):
    stream = store.register(header(), NOW)[1]
    store.add([chunk(stream, 0)], NOW)
    files = list((tmp_path / "host").iterdir())
    assert {file.name for file in files} == {FILE, f"{FILE}-wal", f"{FILE}-shm"}
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in files)
    assert stat.S_IMODE((tmp_path / "host").stat().st_mode) == 0o700


@pytest.mark.parametrize("content", [b"no store at all, but long enough" * 10, None])
def test_another_file_is_refused_and_left_alone(tmp_path: Path, content: bytes | None):
    path = tmp_path / FILE
    if content is None:
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA user_version = 7")
        connection.close()
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    with pytest.raises(DataError, match=r"store.sqlite: expected a store of (this host|version 1, found 7)"):
        Store(tmp_path, Limits())
    assert path.read_bytes()[:16] == before[:16]
    assert len(path.read_bytes()) == len(before)


@pytest.mark.parametrize("how", ["pages", "file size"])
def test_a_full_disk_is_told_and_the_store_stays_whole(store, header, chunk, stored, how):
    stream = store.register(header(), NOW)[1]
    store.add([chunk(stream, number) for number in range(100)], NOW)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    pages = store.connection.execute("PRAGMA page_count").fetchone()[0]
    if how == "pages":
        store.connection.execute(f"PRAGMA max_page_count = {pages}")
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (max(file.stat().st_size for file in store.path.parent.iterdir()), limits[1]))
    try:
        with pytest.raises(StoreFullError, match=r"store.sqlite: expected room.*free disk space"):
            store.add([chunk(stream, number) for number in range(100, 2000)], NOW)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        store.connection.execute("PRAGMA max_page_count = 1000000")
    assert store.next_sequence(stream) == 100
    assert store.connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert len(stored()) == 100
    assert store.add([chunk(stream, 100)], NOW).next_sequence == {stream: 101}


def test_who_is_gone_and_who_has_finished_is_kept(store, header):
    stream = store.register(header(), NOW)[1]
    assert store.idle_streams() == []
    store.leave([stream], [stream], NOW + 1, is_finished=True)
    assert store.idle_streams() == [stream]
    assert store.connection.execute("SELECT is_finished, last_seen_ns FROM streams").fetchall() == [(1, NOW + 1)]
    store.register(header(), NOW + 2)
    assert store.connection.execute("SELECT is_finished, last_seen_ns FROM streams").fetchall() == [(0, NOW + 2)]
