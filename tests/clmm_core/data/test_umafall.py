import shutil
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from clmm_core.data.datasets.umafall import ACTIVITIES, UmaFall
from clmm_core.data.windows import window_recordings
from clmm_core.errors import DataError

REAL = Path(__file__).parents[4] / "shared" / "data" / "UMAFall_8subjects.tar.bz2"
HEADER = """% Universidad de Malaga - ETSI de Telecomunicacion (Spain)
% ID: Subject_02_ADL_Walking_1
                                        
% Number of Sensors: 5
% --> Min - Max Delay: 5000us - 65535000us
% MAC Address; Sensor_ID; Position; Device Model
%f8:95:c7:f3:ba:82; 0; RIGHTPOCKET; lge-LG-H815-5.1
%C4:BE:84:70:64:8A; 1; CHEST; SensorTag
%C4:BE:84:70:0E:80; 3; WRIST; SensorTag
%B0:B4:48:B8:77:03; 4; ANKLE; SensorTag
%C4:BE:84:71:A5:02; 2; WAIST; SensorTag

% Sensor_Type:
% Accelerometer = 0
% TimeStamp; Sample No; X-Axis; Y-Axis; Z-Axis; Sensor Type; Sensor ID;
"""  # noqa: W293  the official header has them
WALKING = "UMAFall_Subject_02_ADL_Walking_1_2016-06-13_20-27-49.csv"


def rows(sensor_type: int, sensor_id: int, times_ms: np.ndarray) -> str:
    """Rows of which x is the time in seconds, y 0, z 1."""
    return "".join(f"{t};{i};{t / 1000};0;1.0;{sensor_type};{sensor_id}\n" for i, t in enumerate(times_ms.tolist(), start=1))


def tag(sensor_id: int, first_ms: int = 100) -> str:
    return "".join(rows(sensor_type, sensor_id, np.arange(first_ms, 14950, 50)) for sensor_type in range(3))


def phone() -> str:
    """A batch of ten samples every 50 ms, all ten with the batch's time."""
    return rows(0, 0, np.repeat(np.arange(150, 15050, 50), 10))


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """Three trials in the official layout; one without the waist's tag, whose wrist's tag starts at 0.4 s."""
    folder = tmp_path / "unpacked" / "UMAFall_Dataset"
    folder.mkdir(parents=True)
    whole = HEADER + phone() + "".join(tag(sensor_id) for sensor_id in (1, 2, 3, 4))
    (folder / WALKING).write_text(whole)
    (folder / "UMAFall_Subject_02_Fall_backwardFall_2_2016-06-13_20-48-20.csv").write_text(whole)
    (folder / "UMAFall_Subject_12_ADL_LyingDown_OnABed_1_2016-06-13_20-32-16.csv").write_text(
        HEADER + phone() + tag(1) + tag(3, 400) + tag(4)
    )
    return tmp_path / "unpacked"


def unpacked(root: Path) -> Path:
    return root


def zipped(root: Path) -> Path:
    path = root.parent / "UMAFall_Dataset.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(root.rglob("*.csv")):
            archive.write(file, file.relative_to(root))
    shutil.rmtree(root)
    return path


def tarred(root: Path) -> Path:
    path = root.parent / "UMAFall.tar.bz2"
    with tarfile.open(path, "w:bz2") as archive:
        archive.add(root / "UMAFall_Dataset", "UMAFall_Dataset")
    shutil.rmtree(root)
    return path


@pytest.mark.parametrize("layout", [unpacked, zipped, tarred])
def test_every_layout_gives_the_same_recordings(official: Path, layout: Callable[[Path], Path]) -> None:
    data = UmaFall(layout(official))
    assert data.subjects() == ("2", "12")
    assert [recording.session for recording in data.recordings("2")] == [
        "walking-1-2016-06-13_20-27-49",
        "backward_fall-2-2016-06-13_20-48-20",
    ]
    assert [interval.label for interval in data.recordings("12")[0].intervals] == ["lying_down_on_bed"]
    assert data.recordings("1") == ()


def test_a_tag_that_was_not_connected_has_no_stream(official: Path) -> None:
    data = UmaFall(official)
    assert set(data.recordings("2")[0].streams) == set(data.modalities)
    absent = set(data.modalities) - set(data.recordings("12")[0].streams)
    assert absent == {"accelerometer_waist", "gyroscope_waist", "magnetometer_waist"}


def test_units_are_si(official: Path) -> None:
    streams = UmaFall(official).recordings("2")[0].streams
    for modality, factor, unit in (
        ("accelerometer_chest", 9.80665, "m/s^2"),
        ("gyroscope_ankle", np.pi / 180, "rad/s"),
        ("magnetometer_wrist", 1.0, "uT"),
    ):
        stream = streams[modality]
        assert (stream.unit, stream.rate_hz, stream.start_s) == (unit, 20.0, pytest.approx(0.1))
        expected = np.stack([0.1 + np.arange(297) / 20, np.zeros(297), np.ones(297)], axis=1) * factor
        np.testing.assert_allclose(stream.samples, expected, rtol=1e-5, atol=1e-6)


def test_the_phones_batches_are_spread_apart(official: Path) -> None:
    """Ten samples of one time end at that time, a period apart; the grid takes 5 ms steps across them."""
    folder = official / "UMAFall_Dataset"
    values = "".join(f"{t};{i};{i};0;1;0;0\n" for i, t in enumerate(np.repeat(np.arange(150, 15050, 50), 10).tolist(), start=1))
    (folder / WALKING).write_text(HEADER + values + tag(1))
    stream = UmaFall(official).recordings("2")[0].streams["accelerometer_pocket"]
    assert stream.rate_hz == 200.0
    assert stream.start_s == pytest.approx(0.11)
    numbers = stream.samples[:, 0] / 9.80665
    assert numbers[round((0.15 - stream.start_s) * 200)] == pytest.approx(10, abs=1e-3)  # the tenth sample was the last of its batch
    steps = np.diff(numbers)
    assert steps.min() > 0.8  # between two batches, 5.9 ms apart
    assert steps.max() < 1.1  # inside a batch, 4.9 ms apart; in raw times it would be ten at once, and none after


def test_the_interval_is_where_all_sensors_run(official: Path) -> None:
    interval = UmaFall(official).recordings("12")[0].intervals[0]
    assert (interval.start_s, interval.end_s) == (pytest.approx(0.4), pytest.approx(14.95))
    data = UmaFall(official)
    windows = window_recordings("12", data.recordings("12"), data.modalities, data.window)
    assert windows.labels.tolist() == ["lying_down_on_bed"]
    assert {name: values.shape for name, values in windows.streams.items() if "accelerometer" in name} == {
        "accelerometer_chest": (1, 3, 300),
        "accelerometer_wrist": (1, 3, 300),
        "accelerometer_ankle": (1, 3, 300),
        "accelerometer_pocket": (1, 3, 750),
    }


def test_a_tag_that_came_or_went_in_the_middle_is_absent_and_cuts_nothing(official: Path) -> None:
    parts = phone() + tag(1) + tag(3, 6000) + rows(0, 4, np.arange(100, 3000, 50))
    (official / "UMAFall_Dataset" / WALKING).write_text(HEADER + parts)
    data = UmaFall(official)
    recording = data.recordings("2")[0]
    assert (recording.intervals[0].start_s, recording.intervals[0].end_s) == (pytest.approx(0.11, abs=0.02), pytest.approx(14.95))
    windows = window_recordings("2", [recording], data.modalities, data.window)
    assert sorted(windows.streams) == ["accelerometer_chest", "accelerometer_pocket", "gyroscope_chest", "magnetometer_chest"]


def test_a_magnetometer_of_zeros_only_is_absent_and_said(official: Path) -> None:
    dead = "".join(f"{t};1;0;0;0;2;1\n" for t in range(100, 14950, 50))
    at_rest = "".join(f"{t};1;0;0;0;1;1\n" for t in range(100, 14950, 50))  # a gyroscope may well show zeros
    content = HEADER + phone() + rows(0, 1, np.arange(100, 14950, 50)) + at_rest + dead + tag(4)
    (official / "UMAFall_Dataset" / WALKING).write_text(content)
    data = UmaFall(official)
    recording = data.recordings("2")[0]
    assert "magnetometer_chest" not in recording.streams
    assert {"gyroscope_chest", "magnetometer_ankle"} < set(recording.streams)
    assert recording.left_out == {"magnetometer_chest": "it shows zeros only, a dead sensor"}
    windows = window_recordings("2", data.recordings("2"), data.modalities, data.window)
    assert windows.present["magnetometer_chest"].tolist() == [False, True]
    assert windows.left_out == ("device '2': 'magnetometer_chest' was left out of 1 of 2 recording(s): it shows zeros only, a dead sensor",)


def test_a_long_gap_leaves_the_modality_out(official: Path) -> None:
    times_ms = np.concatenate([np.arange(100, 6000, 50), np.arange(6600, 14950, 50)])
    (official / "UMAFall_Dataset" / WALKING).write_text(HEADER + phone() + tag(1) + rows(0, 3, times_ms))
    data = UmaFall(official)
    lost = np.isnan(data.recordings("2")[0].streams["accelerometer_wrist"].samples).all(axis=1)
    assert int(lost.sum()) == 12
    windows = window_recordings("2", data.recordings("2"), data.modalities, data.window)
    assert windows.present["accelerometer_wrist"].tolist() == [False, True]


def test_files_are_read_once(official: Path) -> None:
    first = UmaFall(official).recordings("2")
    shutil.rmtree(official)
    assert UmaFall(official).recordings("2") is first


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("", "expected lines of 7 numbers, found none"),
        (HEADER, "expected lines of 7 numbers, found none"),
        (HEADER + "1;1;0;0;1;0\n", "expected lines of 7 numbers, found 6"),
        (HEADER + "1;1;0;0;1;0;0\n2;1;0", "expected lines of 7 numbers, cannot read them"),
        (HEADER + "1;1;0;0;1;0;9\n", "expected a position of sensor 9 in the header, .*, found none"),
        (HEADER.replace("CHEST", "HEAD") + "1;1;0;0;1;0;1\n", "expected a position of sensor 1 in the header, .*, found HEAD"),
        (HEADER + "1;1;0;0;1;3;1\n", "expected sensor types 0, 1 and 2 in the sixth column"),
        (HEADER + "1;1;0;0;1;0;1\n90001;2;0;0;1;0;1\n", "expected a trial of 15 s, found one of 90 s"),
        (HEADER + "0;1;0;0;1;0;1\n1000;1;0;0;1;0;2\n", "expected sensors that run together, found one that ends at 0.05 s"),
    ],
)
def test_a_file_of_another_kind_is_named(official: Path, content: str, found: str) -> None:
    (official / "UMAFall_Dataset" / WALKING).write_text(content)
    with pytest.raises(DataError, match=rf"UMAFall_Dataset/{WALKING}: {found}.*: get the official file again"):
        UmaFall(official).subjects()


def test_an_unknown_movement_is_named(official: Path) -> None:
    folder = official / "UMAFall_Dataset"
    (folder / WALKING).rename(folder / WALKING.replace("Walking", "Flying"))
    with pytest.raises(DataError, match=r"expected one of the movements Aplausing, .*, found .*Flying_1.*: remove that file"):
        UmaFall(official).subjects()


def test_a_folder_without_trials_says_where_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected files like UMAFall_Subject_01.*, found none: get the files of figshare\.com"):
        UmaFall(tmp_path).subjects()


@pytest.mark.skipif(not REAL.is_file(), reason=f"the real UMAFall recordings are not at {REAL}")
def test_the_real_recordings() -> None:
    data = UmaFall(REAL)
    assert data.subjects() == ("2", "5", "6", "9", "12", "14", "15", "19")
    counts: Counter[str] = Counter()
    present: Counter[str] = Counter()
    for subject in data.subjects():
        recordings = data.recordings(subject)
        assert len({recording.session for recording in recordings}) == len(recordings)
        windows = window_recordings(subject, recordings, data.modalities, data.window)
        assert len(windows) == len(recordings)
        counts.update(windows.labels.tolist())
        for modality, mask in windows.present.items():
            present[modality] += int(mask.sum())
        for recording in recordings:
            assert recording.intervals[0].start_s < 1
            assert recording.intervals[0].end_s > 13.8
    assert sorted(counts) == sorted(ACTIVITIES.values())
    assert counts["walking"] == 24
    assert [counts[f"{way}_fall"] for way in ("backward", "forward", "lateral")] == [31, 31, 31]
    assert counts.total() == 328
    assert present["accelerometer_pocket"] == 328
    # Of 328, 249 (waist), 328 and 327 trials, less those with a long gap and, of the magnetometer, those with zeros only.
    for sensor, counted in (
        ("accelerometer", [326, 247, 325, 326]),
        ("gyroscope", [326, 247, 325, 326]),
        ("magnetometer", [324, 247, 325, 323]),
    ):
        assert [present[f"{sensor}_{position}"] for position in ("chest", "waist", "wrist", "ankle")] == counted
    dead = Counter((subject, name) for subject in data.subjects() for recording in data.recordings(subject) for name in recording.left_out)
    assert dead == {("2", "magnetometer_chest"): 1, ("9", "magnetometer_chest"): 1, ("9", "magnetometer_ankle"): 3}
    for position, low, high in (
        ("chest", 9.8, 10.2),
        ("waist", 9.8, 10.2),
        ("wrist", 9.8, 10.2),
        ("ankle", 9.6, 10.1),
        ("pocket", 9.6, 10.0),
    ):
        streams = [
            recording.streams.get(f"accelerometer_{position}") for subject in data.subjects() for recording in data.recordings(subject)
        ]
        norms = np.concatenate([np.linalg.norm(stream.samples, axis=1) for stream in streams if stream is not None])
        assert low < np.nanmedian(norms) < high
