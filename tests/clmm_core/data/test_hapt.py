import shutil
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from clmm_core.data.datasets.hapt import ACTIVITIES, Hapt
from clmm_core.data.windows import window_recordings
from clmm_core.errors import DataError

REAL = Path(__file__).parents[4] / "shared" / "data" / "HAPT_RawData.tar.bz2"
LABELS = "2 1 5 1 128\n1 1 7 411 540\n1 1 1 139 374\n3 10 12 1 300\n"


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """Three experiments in the official layout, 600 samples each."""
    raw = tmp_path / "unpacked" / "HAPT Data Set" / "RawData"
    raw.mkdir(parents=True)
    for name in ("exp01_user01", "exp02_user01", "exp03_user10"):
        (raw / f"acc_{name}.txt").write_text("1.0 0.0 -0.5 \n" * 600)
        (raw / f"gyro_{name}.txt").write_text("".join(f"{i / 100} 0 1\n" for i in range(600)))
    (raw / "labels.txt").write_text(LABELS)
    (raw.parent / "activity_labels.txt").write_text("1 WALKING\n")
    return tmp_path / "unpacked"


def unpacked(root: Path) -> Path:
    return root


def zipped(root: Path) -> Path:
    path = root.parent / "hapt.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(root.rglob("*.txt")):
            archive.write(file, file.relative_to(root / "HAPT Data Set"))
    shutil.rmtree(root)
    return path


def tarred(root: Path) -> Path:
    path = root.parent / "hapt.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(root / "HAPT Data Set", "HAPT Data Set")
    shutil.rmtree(root)
    return path


@pytest.mark.parametrize("layout", [unpacked, zipped, tarred])
def test_every_layout_gives_the_same_recordings(official: Path, layout: Callable[[Path], Path]) -> None:
    data = Hapt(layout(official))
    assert data.subjects() == ("1", "10")
    assert [recording.session for recording in data.recordings("1")] == ["experiment-1", "experiment-2"]
    assert list(data.recordings("10")[0].streams) == ["accelerometer", "gyroscope"]
    assert data.recordings("2") == ()


def test_units_are_si(official: Path) -> None:
    streams = Hapt(official).recordings("1")[0].streams
    np.testing.assert_allclose(streams["accelerometer"].samples[0], [9.80665, 0, -4.903325], rtol=1e-6)
    np.testing.assert_allclose(streams["gyroscope"].samples[150], [1.5, 0, 1])
    assert (streams["accelerometer"].unit, streams["gyroscope"].unit) == ("m/s^2", "rad/s")
    assert {(stream.rate_hz, stream.end_s) for stream in streams.values()} == {(50.0, 12.0)}


def test_labels_count_samples_from_one_and_include_the_last(official: Path) -> None:
    first, second = Hapt(official).recordings("1")
    assert [(interval.label, interval.start_s, interval.end_s) for interval in first.intervals] == [
        ("walking", 2.76, 7.48),
        ("stand_to_sit", 8.2, 10.8),
    ]
    assert [(interval.label, interval.start_s, interval.end_s) for interval in second.intervals] == [("standing", 0.0, 2.56)]


def test_unlabelled_time_makes_windows_without_a_label(official: Path) -> None:
    data = Hapt(official)
    windows = window_recordings("1", data.recordings("1")[:1], data.modalities, data.window)
    assert windows.labels.tolist() == ["", "", "walking", "walking", "walking", "", "stand_to_sit", "stand_to_sit"]
    assert windows.streams["gyroscope"].shape == (8, 3, 128)
    np.testing.assert_allclose(windows.streams["gyroscope"][1, 0], (64 + np.arange(128)) / 100, atol=1e-6)


def test_files_are_read_once(official: Path) -> None:
    first = Hapt(official).recordings("1")
    shutil.rmtree(official)
    assert Hapt(official).recordings("1") is first


@pytest.mark.parametrize(
    ("file", "content", "found"),
    [
        ("acc_exp01_user01.txt", "", r"acc_exp01_user01\.txt: expected lines of 3 numbers, found none"),
        ("gyro_exp02_user01.txt", "1 2\n", r"gyro_exp02_user01\.txt: expected lines of 3 numbers, found 2"),
        ("labels.txt", "1 1 13 1 9\n", r"labels\.txt: expected activities 1 to 12, found 13"),
        ("labels.txt", "1 1 1 9 8\n", r"labels\.txt: expected samples from 1 on, first before last, found 9 to 8"),
        ("labels.txt", "1 1 1 500 601\n", r"experiment 1: expected labels inside its 12 s, found 'walking' up to 12\.02 s"),
    ],
)
def test_a_file_of_another_kind_is_named(official: Path, file: str, content: str, found: str) -> None:
    (official / "HAPT Data Set" / "RawData" / file).write_text(content)
    with pytest.raises(DataError, match=f"{found}.*: get the official file"):
        Hapt(official).subjects()


@pytest.mark.parametrize(("kept", "expected"), [("labels.txt", "acc_exp01_user01"), ("acc_exp01_user01.txt", "labels")])
def test_a_missing_half_is_named(tmp_path: Path, kept: str, expected: str) -> None:
    (tmp_path / kept).write_text("1 1 1 1 1" if kept == "labels.txt" else "1 2 3")
    with pytest.raises(DataError, match=rf"expected .*RawData/{expected}\.txt, found none: get the archive of archive\.ics\.uci\.edu"):
        Hapt(tmp_path).subjects()


@pytest.mark.parametrize(
    ("absent", "found"),
    [
        (("gyro_exp03_user10.txt",), r"no gyro_exp03_user10\.txt"),
        (("acc_exp03_user10.txt",), r"no acc_exp03_user10\.txt"),
        (("acc_exp03_user10.txt", "gyro_exp03_user10.txt"), r"no acc_exp03_user10\.txt, gyro_exp03_user10\.txt"),
        (("its labels",), r"no line of it in labels\.txt"),
    ],
)
def test_an_experiment_that_is_only_half_there_is_named(official: Path, absent: tuple[str, ...], found: str) -> None:
    raw = official / "HAPT Data Set" / "RawData"
    for name in absent:
        (raw / name).unlink(missing_ok=True)
    if absent == ("its labels",):
        (raw / "labels.txt").write_text(LABELS.replace("3 10 12 1 300\n", ""))
    expected = rf"experiment 3 of subject 10: expected .*, found {found}: fetch the official files again \(`clmm data fetch hapt`\)"
    with pytest.raises(DataError, match=expected):
        Hapt(official).subjects()


@pytest.mark.skipif(not REAL.is_file(), reason=f"the real HAPT recordings are not at {REAL}")
def test_the_real_recordings() -> None:
    data = Hapt(REAL)
    assert data.subjects() == tuple(str(subject) for subject in range(1, 31))
    recordings = [recording for subject in data.subjects() for recording in data.recordings(subject)]
    assert len(recordings) == 61
    assert all(tuple(recording.streams) == data.modalities for recording in recordings)
    assert sum(len(recording.intervals) for recording in recordings) == 1214
    counts: Counter[str] = Counter()
    for subject in data.subjects():
        windows = window_recordings(subject, data.recordings(subject), data.modalities, data.window)
        assert all(mask.all() for mask in windows.present.values())
        assert windows.left_out == ()
        counts.update(windows.labels.tolist())
    assert [counts[activity] for activity in ACTIVITIES] == [1909, 1830, 1687, 1977, 2159, 2148, 158, 126, 194, 172, 225, 165]
    assert counts[""] == 4703
    still = [
        recording.streams["accelerometer"].samples[round(interval.start_s * 50) : round(interval.end_s * 50)]
        for recording in recordings
        for interval in recording.intervals
        if interval.label == "standing"
    ]
    assert 9.8 < np.median(np.linalg.norm(np.concatenate(still), axis=1)) < 10.2
