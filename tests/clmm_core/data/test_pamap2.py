import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from clmm_core.data.datasets.pamap2 import Pamap2
from clmm_core.data.windows import NO_LABEL, window_recordings
from clmm_core.errors import DataError

FIRST_FILE = Path("Protocol", "subject101.dat")
HAND, CHEST, ANKLE = slice(3, 20), slice(20, 37), slice(37, 54)


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """Two subjects in the official layout, one with an optional session."""
    root = tmp_path / "PAMAP2_Dataset"
    write(root / FIRST_FILE, rows([(0, 280), (4, 720), (0, 304), (24, 520), (4, 224)]))
    write(root / "Protocol" / "subject109.dat", rows([(1, 512)]))
    write(root / "Optional" / "subject101.dat", rows([(9, 512)]))
    (root / "readme.pdf").write_bytes(b"%PDF")
    return root


def rows(runs: list[tuple[int, int]]) -> NDArray[np.float64]:
    """Return one row for each 0.01 s of the runs (activity, rows); column k of the readme, from 1, holds the number k."""
    activities = np.concatenate([np.full(count, activity) for activity, count in runs])
    table = np.tile(np.arange(1.0, 55.0), (len(activities), 1))
    table[:, 0] = 8.38 + np.arange(len(table)) / 100
    table[:, 1] = activities
    table[:, 2] = np.nan
    table[::11, 2] = 104  # the heart rate is there 9 times a second
    return table


def write(path: Path, table: NDArray[np.float64]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    np.savetxt(text, table, fmt="%.8g")
    path.write_text(text.getvalue().replace("nan", "NaN"))


def unpacked(root: Path) -> Path:
    return root


def unpacked_below(root: Path) -> Path:
    return root.parent


def zipped(root: Path) -> Path:
    path = root.parent / "other" / "PAMAP2_Dataset.zip"
    path.parent.mkdir()
    path.write_bytes(zip_bytes(root))
    return path


def zipped_twice(root: Path) -> Path:
    """The archive of UCI holds that one."""
    inner = zipped(root)
    path = inner.with_name("pamap2+physical+activity+monitoring.zip")
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(inner, inner.name)
    return path


def unpacked_beside_its_zip(root: Path) -> Path:
    (root.parent / "copy.zip").write_bytes(zip_bytes(root))
    return root.parent


def zip_bytes(root: Path) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for file in sorted(root.rglob("*.*")):
            archive.write(file, f"{root.name}/{file.relative_to(root)}")
    return packed.getvalue()


@pytest.mark.parametrize("layout", [unpacked, unpacked_below, zipped, zipped_twice, unpacked_beside_its_zip])
def test_every_layout_gives_the_same_recordings(official: Path, layout: Callable[[Path], Path]) -> None:
    data = Pamap2(layout(official))
    assert data.subjects() == ("101", "109")
    assert [recording.session for recording in data.recordings("101")] == ["protocol", "optional"]
    assert [recording.session for recording in data.recordings("109")] == ["protocol"]
    assert data.recordings("10") == ()


def test_every_stream_has_its_columns(official: Path) -> None:
    streams = Pamap2(official).recordings("101")[0].streams
    assert {modality: stream.samples[0].tolist() for modality, stream in streams.items()} == {
        "accelerometer_hand": [5, 6, 7],
        "gyroscope_hand": [11, 12, 13],
        "magnetometer_hand": [14, 15, 16],
        "accelerometer_chest": [22, 23, 24],
        "gyroscope_chest": [28, 29, 30],
        "magnetometer_chest": [31, 32, 33],
        "accelerometer_ankle": [39, 40, 41],
        "gyroscope_ankle": [45, 46, 47],
        "magnetometer_ankle": [48, 49, 50],
    }
    assert tuple(streams) == Pamap2(official).modalities
    assert [stream.unit for stream in streams.values()] == ["m/s^2", "rad/s", "uT"] * 3
    assert {stream.end_s for stream in streams.values()} == {20.48}


def test_each_stretch_of_one_activity_is_a_trial(official: Path) -> None:
    protocol, optional = Pamap2(official).recordings("101")
    assert [(interval.label, interval.start_s, interval.end_s) for interval in protocol.intervals] == [
        ("walking", 2.8, 10.0),
        ("rope_jumping", 13.04, 18.24),
        ("walking", 18.24, 20.48),
    ]
    assert [(interval.label, interval.start_s, interval.end_s) for interval in optional.intervals] == [("watching_tv", 0.0, 5.12)]


def test_windows_hold_256_samples(official: Path) -> None:
    data = Pamap2(official)
    windows = window_recordings("101", data.recordings("101"), data.modalities, data.window)
    assert {values.shape for values in windows.streams.values()} == {(8, 3, 256)}
    rope = "rope_jumping"
    assert windows.labels.tolist() == [NO_LABEL, "walking", "walking", NO_LABEL, NO_LABEL, rope, rope, "watching_tv"]
    assert windows.left_out == ()


def test_lost_samples_are_interpolated_across_a_quarter_of_a_second(official: Path) -> None:
    table = rows([(4, 1024)])
    table[:, 4] = np.arange(1024)  # x of the wrist's accelerometer
    table[100:124, HAND] = np.nan  # 0.25 s between the two samples around them
    table[300:325, HAND] = np.nan  # 0.26 s
    table[:2, CHEST] = np.nan
    table[-2:, CHEST] = np.nan
    write(official / FIRST_FILE, table)
    streams = Pamap2(official).recordings("101")[0].streams
    wrist = streams["accelerometer_hand"].samples[:, 0]
    np.testing.assert_allclose(wrist[:300], np.arange(300), rtol=1e-6)
    assert np.flatnonzero(np.isnan(wrist)).tolist() == list(range(300, 325))
    assert np.flatnonzero(np.isnan(streams["gyroscope_chest"].samples[:, 1])).tolist() == [0, 1, 1022, 1023]
    assert np.isfinite(streams["magnetometer_ankle"].samples).all()


def test_a_window_without_the_wrist_keeps_the_other_places(official: Path) -> None:
    table = rows([(4, 1024)])
    table[300:400, HAND] = np.nan
    write(official / FIRST_FILE, table)
    data = Pamap2(official)
    windows = window_recordings("101", data.recordings("101")[:1], data.modalities, data.window)
    assert windows.present["accelerometer_hand"].tolist() == [False, False, True]
    assert windows.present["accelerometer_chest"].tolist() == [True, True, True]
    assert "6 window(s) of a modality hold NaN" in windows.left_out[0]  # three sensors, two windows


def test_a_unit_lost_for_a_whole_session_is_absent(official: Path) -> None:
    table = rows([(4, 512)])
    table[:, ANKLE] = np.nan
    write(official / FIRST_FILE, table)
    streams = Pamap2(official).recordings("101")[0].streams
    assert {modality.split("_")[1] for modality in streams} == {"hand", "chest"}


def test_missing_rows_are_lost_samples_of_the_same_trial(official: Path) -> None:
    table = rows([(4, 512), (5, 512)])
    table[:, 4] = np.arange(1024)
    write(official / FIRST_FILE, np.delete(table, [*range(100, 110), *range(300, 400)], axis=0))
    recording = Pamap2(official).recordings("101")[0]
    wrist = recording.streams["accelerometer_hand"].samples[:, 0]
    assert len(wrist) == 1024
    assert np.flatnonzero(np.isnan(wrist)).tolist() == list(range(300, 400))
    np.testing.assert_allclose(wrist[100:110], np.arange(100, 110), rtol=1e-6)
    assert [(interval.label, interval.end_s) for interval in recording.intervals] == [("walking", 5.12), ("running", 10.24)]


@pytest.mark.parametrize("layout", [unpacked, zipped])
def test_files_that_are_not_there_are_named(tmp_path: Path, layout: Callable[[Path], Path]) -> None:
    root = tmp_path / "PAMAP2_Dataset"
    write(root / "Optional" / "subject101.dat", rows([(9, 2)]))
    with pytest.raises(DataError, match=r"expected files like Protocol/subject101\.dat, found none: get the archive from archive\.ics"):
        Pamap2(layout(root)).subjects()


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: expected .*, found nothing there"):
        Pamap2(tmp_path / "nowhere").subjects()


@pytest.mark.parametrize("layout", [zipped, zipped_twice])
def test_a_damaged_zip_is_named(official: Path, layout: Callable[[Path], Path]) -> None:
    path = layout(official)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"\.zip: expected a zip or tar archive, cannot read it"):
        Pamap2(path).subjects()


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "expected lines of 54 numbers, found none"),
        (b" \n", "expected lines of 54 numbers, found none"),
        (b"\x89PNG\r\n\xff\x00", "expected lines of 54 numbers, cannot read them"),
        (b"8.38 0 104\n", "expected lines of 54 numbers, found 3"),
        (b"8.38 0 " + b"1 " * 52 + b"\n8.39 0 " + b"1 " * 51, "expected lines of 54 numbers, cannot read them .*row 2"),
        (b"8.38 8 " + b"1 " * 52, "expected one of the activities 0, 1, .*, 24 in the second column, found 8 in row 1"),
        (b"8.38 4 " + b"1 " * 52 + b"\n8.39 NaN " + b"1 " * 52, "in the second column, found nan in row 2"),
        (b"8.38 4 " + b"1 " * 52 + b"\n8.37 4 " + b"1 " * 52, r"rise by 0\.01 s a row, found 8\.37 s in row 2 after 8\.38 s"),
        (b"8.38 4 " + b"1 " * 52 + b"\n83800 4 " + b"1 " * 52, "found 83800 s in row 2"),
        (b"NaN 4 " + b"1 " * 52, "found nan s in row 1"),
        (b"8.38 4 " + b"NaN " * 52, "expected measurements of at least one sensor, found only NaN"),
    ],
)
def test_a_file_of_another_kind_is_refused(official: Path, content: bytes, found: str) -> None:
    (official / FIRST_FILE).write_bytes(content)
    with pytest.raises(DataError, match=rf"{FIRST_FILE}: .*{found}"):
        Pamap2(official).recordings("101")
    assert len(Pamap2(official).recordings("109")) == 1  # the other subjects can still be read
