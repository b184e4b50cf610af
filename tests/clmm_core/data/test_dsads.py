import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from clmm_core.data.datasets.dsads import ACTIVITIES, MODALITIES, Dsads
from clmm_core.data.windows import window_recordings
from clmm_core.errors import DataError

REAL = Path(__file__).parents[4] / "shared" / "data" / "DSADS_s01-s20.tar.bz2"
SEGMENTS = ("a01/p1/s01", "a01/p1/s02", "a01/p1/s04", "a19/p1/s01", "a01/p8/s60")


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """Five segments in the official layout: of subject 1's sitting the third is missing."""
    root = tmp_path / "unpacked"
    for name in SEGMENTS:
        write_segment(root / "data" / f"{name}.txt", int(name[-2:]))
    (root / "data" / "readme.txt").write_text("not a segment")
    return root


def write_segment(file: Path, number: int) -> None:
    """Column c of row r holds 1000 x number + r + c / 100."""
    file.parent.mkdir(parents=True, exist_ok=True)
    table = 1000 * number + np.arange(125)[:, None] + np.arange(45) / 100
    file.write_text("\n".join(",".join(f"{value:g}" for value in row) for row in np.round(table, 2)) + "\n")


def unpacked(root: Path) -> Path:
    return root


def zipped(root: Path) -> Path:
    path = root.parent / "daily+and+sports+activities.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(root.rglob("*.txt")):
            archive.write(file, file.relative_to(root))
    shutil.rmtree(root)
    return path


def tarred(root: Path) -> Path:
    path = root.parent / "DSADS.tar.bz2"
    with tarfile.open(path, "w:bz2") as archive:
        archive.add(root / "data", "data")
    shutil.rmtree(root)
    return path


@pytest.mark.parametrize("layout", [unpacked, zipped, tarred])
def test_every_layout_gives_the_same_recordings(official: Path, layout: Callable[[Path], Path]) -> None:
    data = Dsads(layout(official))
    assert data.subjects() == ("1", "8")
    assert [recording.session for recording in data.recordings("1")] == ["sitting-1", "sitting-4", "playing_basketball-1"]
    assert [recording.session for recording in data.recordings("8")] == ["sitting-60"]
    assert data.recordings("9") == ()


def test_consecutive_segments_are_joined_and_stay_trials(official: Path) -> None:
    joined, alone, _ = Dsads(official).recordings("1")
    assert len(joined.streams["gyroscope_torso"].samples) == 250
    assert [(interval.label, interval.start_s, interval.end_s) for interval in joined.intervals] == [("sitting", 0, 5), ("sitting", 5, 10)]
    assert len(alone.streams["gyroscope_torso"].samples) == 125
    assert len(alone.intervals) == 1


def test_columns_become_positions_and_sensors_in_the_official_order(official: Path) -> None:
    streams = Dsads(official).recordings("1")[0].streams
    assert tuple(streams) == MODALITIES
    for i, modality in enumerate(("accelerometer_torso", "gyroscope_torso", "magnetometer_torso", "accelerometer_right_arm")):
        np.testing.assert_allclose(streams[modality].samples[126], 2001 + (3 * i + np.arange(3)) / 100, atol=2e-4)
    np.testing.assert_allclose(streams["magnetometer_left_leg"].samples[0], 1000 + np.array([42, 43, 44]) / 100, atol=1e-4)
    units = [streams[f"{sensor}_torso"].unit for sensor in ("accelerometer", "gyroscope", "magnetometer")]
    assert units == ["m/s^2", "rad/s", "1"]
    assert {stream.rate_hz for stream in streams.values()} == {25.0}
    assert all(stream.samples.dtype == np.float32 for stream in streams.values())


def test_a_window_is_a_segment(official: Path) -> None:
    data = Dsads(official)
    windows = window_recordings("1", data.recordings("1"), data.modalities, data.window)
    assert windows.labels.tolist() == ["sitting"] * 3 + ["playing_basketball"]
    assert windows.trials.tolist() == [0, 1, 2, 3]
    assert windows.streams["accelerometer_torso"].shape == (4, 3, 125)
    np.testing.assert_allclose(windows.streams["accelerometer_torso"][1, 0], 2000 + np.arange(125), atol=1e-3)


def test_files_are_read_once(official: Path) -> None:
    first = Dsads(official).recordings("1")
    shutil.rmtree(official)
    assert Dsads(official).recordings("1") is first


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("", "expected lines of 45 numbers, found none"),
        ("1,2,3\n", "expected lines of 45 numbers, found 3 in a line"),
        (",".join("1" * 45) + "\n", "expected 125 lines, found 1"),
    ],
)
def test_a_file_of_another_kind_is_named(official: Path, content: str, found: str) -> None:
    (official / "data/a19/p1/s01.txt").write_text(content)
    with pytest.raises(DataError, match=rf"unpacked: data/a19/p1/s01\.txt: {found}.*: get the official file again"):
        Dsads(official).subjects()


def test_an_unknown_activity_is_named(official: Path) -> None:
    write_segment(official / "data/a20/p1/s01.txt", 1)
    with pytest.raises(DataError, match=r"expected activities a01 to a19, found data/a20/p1/s01\.txt: remove that folder"):
        Dsads(official).subjects()


def test_a_folder_without_segments_says_where_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected files like a01/p1/s01\.txt, found none: get the archive of archive\.ics\.uci\.edu"):
        Dsads(tmp_path).subjects()


@pytest.mark.skipif(not REAL.is_file(), reason=f"the real DSADS recordings are not at {REAL}")
def test_the_real_recordings() -> None:
    """The first 20 of the 60 segments, so 20 windows a subject and activity."""
    data = Dsads(REAL)
    assert data.subjects() == tuple("12345678")
    for subject in data.subjects():
        recordings = data.recordings(subject)
        assert [recording.session for recording in recordings] == [f"{activity}-1" for activity in ACTIVITIES]
        windows = window_recordings(subject, recordings, data.modalities, data.window)
        assert {label: windows.labels.tolist().count(label) for label in ACTIVITIES} == dict.fromkeys(ACTIVITIES, 20)
        assert sorted(set(windows.trials.tolist())) == list(range(380))
        assert all(mask.all() for mask in windows.present.values())
        assert windows.left_out == ()
        lying = recordings[ACTIVITIES.index("lying_on_back")].streams
        for modality, (low, high) in {"accelerometer": (9.5, 10.2), "gyroscope": (0.0, 0.1), "magnetometer": (0.3, 1.7)}.items():
            norms = [np.median(np.linalg.norm(lying[name].samples, axis=1)) for name in data.modalities if name.startswith(modality)]
            assert low < min(norms)
            assert max(norms) < high
