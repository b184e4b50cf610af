import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from clmm_core.data.datasets.usc_had import ACTIVITIES, UscHad
from clmm_core.data.windows import window_recordings
from clmm_core.errors import DataError

READINGS_ROW = [1.0, 0.0, -0.5, 180.0, 0.0, -90.0]  # g, deg/s
FIRST_TRIAL = Path("Subject1", "a1t1.mat")


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """Three subjects in the official layout, its other files included."""
    root = tmp_path / "USC-HAD"
    for subject, activity, trial in ((1, 1, 1), (1, 1, 2), (1, 12, 1), (1, 2, 5), (2, 10, 1), (14, 3, 4)):
        write_trial(root, subject, activity, trial)
    (root / "Readme.txt").write_text("Data collection Specification")
    (root / "displayData_acc.m").write_text("Fs = 100;")
    return root


def write_trial(root: Path, subject: int, activity: int, trial: int) -> None:
    """Write a trial of 6.4 s with all 13 fields of the Readme; the text fields of a real file are strings too."""
    spelling = "activity_numbr" if subject == 2 else "activity_number"
    fields = {
        "title": "USC Human Motion Database",
        "version": "1.0",
        "date": "2010-08-12",
        "subject": str(subject),
        "age": "23",
        "height": "170cm",
        "weight": "62kg",
        "activity": "walk-forward",
        spelling: str(activity),
        "trial": str(trial),
        "sensor_location": "front-right-hip",
        "sensor_orientation": "down-forward-right",
        "sensor_readings": np.tile(READINGS_ROW, (640, 1)),
    }
    folder = root / f"Subject{subject}"
    folder.mkdir(parents=True, exist_ok=True)
    savemat(folder / f"a{activity}t{trial}.mat", fields)


def unpacked(root: Path) -> Path:
    return root


def unpacked_below(root: Path) -> Path:
    return root.parent


def zipped(root: Path) -> Path:
    path = root.parent / "other" / "USC-HAD.zip"
    path.parent.mkdir()
    path.write_bytes(zip_bytes(root))
    return path


def unpacked_beside_its_zip(root: Path) -> Path:
    (root.parent / "copy.zip").write_bytes(zip_bytes(root))
    return root.parent


def zip_bytes(root: Path) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for file in sorted(root.rglob("*.*")):
            archive.write(file, f"USC-HAD/{file.relative_to(root)}")
    return packed.getvalue()


@pytest.mark.parametrize("layout", [unpacked, unpacked_below, zipped, unpacked_beside_its_zip])
def test_every_layout_gives_the_same_recordings(official: Path, layout: Callable[[Path], Path]) -> None:
    data = UscHad(layout(official))
    assert data.subjects() == ("1", "2", "14")
    assert [recording.session for recording in data.recordings("1")] == [
        "walking_forward-1",
        "walking_forward-2",
        "walking_left-5",
        "elevator_down-1",
    ]
    assert [recording.session for recording in data.recordings("14")] == ["walking_right-4"]
    assert data.recordings("4") == ()


def test_units_are_si(official: Path) -> None:
    streams = UscHad(official).recordings("1")[0].streams
    np.testing.assert_allclose(streams["accelerometer"].samples[0], [9.80665, 0.0, -4.903325], rtol=1e-6)
    np.testing.assert_allclose(streams["gyroscope"].samples[0], [np.pi, 0.0, -np.pi / 2], rtol=1e-6)
    assert {modality: stream.unit for modality, stream in streams.items()} == {"accelerometer": "m/s^2", "gyroscope": "rad/s"}


def test_a_trial_is_labelled_from_end_to_end(official: Path) -> None:
    [trial] = UscHad(official).recordings("2")  # its activity number is in the field with the other spelling
    assert [(interval.label, interval.start_s, interval.end_s) for interval in trial.intervals] == [("sleeping", 0.0, 6.4)]
    assert [stream.end_s for stream in trial.streams.values()] == [6.4, 6.4]


def test_windows_hold_128_samples(official: Path) -> None:
    data = UscHad(official)
    windows = window_recordings("1", data.recordings("1"), data.modalities, data.window)
    assert windows.streams["gyroscope"].shape == (4 * 4, 3, 128)  # 6.4 s are four half overlapping windows of 2.56 s
    assert set(windows.labels.tolist()) == {ACTIVITIES[0], ACTIVITIES[1], ACTIVITIES[11]}
    assert windows.left_out == ()


def test_a_lost_sample_stays_nan(official: Path) -> None:
    readings = np.tile(READINGS_ROW, (640, 1))
    readings[100] = np.nan
    savemat(official / FIRST_TRIAL, {"sensor_readings": readings})
    streams = UscHad(official).recordings("1")[0].streams
    assert np.flatnonzero(np.isnan(streams["accelerometer"].samples[:, 0])).tolist() == [100]


@pytest.mark.parametrize("layout", [unpacked, zipped])
def test_files_that_are_not_there_are_named(tmp_path: Path, layout: Callable[[Path], Path]) -> None:
    root = tmp_path / "USC-HAD"
    root.mkdir()
    (root / "Readme.txt").write_text("Data collection Specification")
    with pytest.raises(DataError, match=r"expected files like Subject1/a1t1\.mat, found none: get USC-HAD\.zip"):
        UscHad(layout(root)).subjects()


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: expected .*, found nothing there"):
        UscHad(tmp_path / "nowhere").subjects()


def test_a_damaged_zip_is_named(official: Path) -> None:
    path = zipped(official)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"USC-HAD\.zip: expected a zip or tar archive, cannot read it"):
        UscHad(path).subjects()


@pytest.mark.parametrize("content", [b"", b"not MATLAB", bytes(200), b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + bytes(range(90))])
def test_an_unreadable_file_is_named(official: Path, content: bytes) -> None:
    (official / FIRST_TRIAL).write_bytes(content)
    with pytest.raises(DataError, match=r"Subject1/a1t1\.mat: expected"):
        UscHad(official).recordings("1")
    assert len(UscHad(official).recordings("2")) == 1  # the other subjects can still be read


@pytest.mark.parametrize(
    ("file", "variables", "found"),
    [
        (FIRST_TRIAL, {"other": np.zeros((9, 6))}, "expected the variable sensor_readings"),
        (FIRST_TRIAL, {"sensor_readings": np.zeros((9, 3))}, r"of shape \(time, 6\), found \(9, 3\)"),
        (FIRST_TRIAL, {"sensor_readings": np.zeros((0, 6))}, r"of shape \(time, 6\), found \(0, 6\)"),
        (Path("Subject1", "a13t1.mat"), {"sensor_readings": np.zeros((9, 6))}, "expected activities 1 to 12, found 13 in .*remove that"),
        (Path("Subject1", "a0t1.mat"), {"sensor_readings": np.zeros((9, 6))}, "expected activities 1 to 12, found 0"),
    ],
)
def test_a_file_of_another_kind_is_refused(official: Path, file: Path, variables: dict[str, object], found: str) -> None:
    savemat(official / file, variables)
    with pytest.raises(DataError, match=found):
        UscHad(official).recordings("1")
