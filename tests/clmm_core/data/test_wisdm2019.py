import io
import shutil
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from clmm_core.data.datasets.wisdm2019 import ACTIVITIES, Wisdm2019
from clmm_core.data.windows import window_recordings
from clmm_core.errors import DataError

REAL = Path(__file__).parents[4] / "shared" / "data" / "WISDM2019_8subjects.tar.bz2"
BOOT_NS = {"phone": 252_207_000_000_000, "watch": 90_426_000_000_000}


def lines(letter: str, times_s: np.ndarray, device: str = "phone", subject: int = 1600) -> str:
    """Lines of which x is the time in seconds, y its negative, z 9.5."""
    return "".join(f"{subject},{letter},{BOOT_NS[device] + round(t * 1e9)},{t:.6f},{-t:.6f},9.5;\n" for t in times_s)


def write(root: Path, sensor: str, device: str, text: str, subject: int = 1600) -> None:
    file = root / "wisdm-dataset" / "raw" / device / sensor / f"data_{subject}_{sensor}_{device}.txt"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """Two activities of 30 s; the phone's gyroscope starts 0.3 s late, the watch was started 5 s after the phone, 1601 has a watch only."""
    root = tmp_path / "unpacked"
    seconds = np.arange(0, 30, 0.05)
    write(root, "accel", "phone", lines("A", seconds) + lines("S", 500 + seconds))
    write(root, "gyro", "phone", lines("A", 0.3 + seconds))
    write(root, "accel", "watch", lines("A", 5 + seconds, "watch"))
    write(root, "gyro", "watch", lines("A", 5 + seconds, "watch"))
    write(root, "accel", "watch", lines("B", seconds, "watch", 1601), 1601)
    (root / "wisdm-dataset" / "activity_key.txt").write_text("walking = A\n")
    return root


def unpacked(root: Path) -> Path:
    return root


def zipped_twice(root: Path) -> Path:
    """The official download: a zip with the data set's zip in it."""
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        for file in sorted(root.rglob("*.txt")):
            archive.write(file, file.relative_to(root))
    path = root.parent / "wisdm.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("wisdm-dataset.zip", inner.getvalue())
    shutil.rmtree(root)
    return path


def tarred(root: Path) -> Path:
    path = root.parent / "wisdm.tar.bz2"
    with tarfile.open(path, "w:bz2") as archive:
        archive.add(root / "wisdm-dataset", "wisdm-dataset")
    shutil.rmtree(root)
    return path


@pytest.mark.parametrize("layout", [unpacked, zipped_twice, tarred])
def test_every_layout_gives_the_same_recordings(official: Path, layout: Callable[[Path], Path]) -> None:
    data = Wisdm2019(layout(official))
    assert data.subjects() == ("1600", "1601")
    assert [recording.session for recording in data.recordings("1600")] == ["walking", "folding_clothes"]
    walking, folding = data.recordings("1600")
    assert set(walking.streams) == set(data.modalities)
    assert set(folding.streams) == {"phone_accelerometer"}
    assert set(data.recordings("1601")[0].streams) == {"watch_accelerometer"}
    assert data.recordings("1602") == ()


def test_a_device_starts_when_both_of_its_sensors_run(official: Path) -> None:
    streams = Wisdm2019(official).recordings("1600")[0].streams
    assert {stream.start_s for stream in streams.values()} == {0.0}
    np.testing.assert_allclose(streams["phone_accelerometer"].samples[:3, 0], [0.3, 0.35, 0.4], atol=1e-5)
    np.testing.assert_allclose(streams["phone_gyroscope"].samples[:3, 0], [0.3, 0.35, 0.4], atol=1e-5)
    np.testing.assert_allclose(streams["watch_accelerometer"].samples[:3, 0], [5.0, 5.05, 5.1], atol=1e-5)
    assert {len(streams[name].samples) for name in ("phone_gyroscope", "watch_gyroscope")} == {600}
    assert len(streams["phone_accelerometer"].samples) == 594


def test_units_and_rate(official: Path) -> None:
    streams = Wisdm2019(official).recordings("1600")[0].streams
    assert {name: stream.unit for name, stream in streams.items()} == {
        "phone_accelerometer": "m/s^2",
        "phone_gyroscope": "rad/s",
        "watch_accelerometer": "m/s^2",
        "watch_gyroscope": "rad/s",
    }
    assert {stream.rate_hz for stream in streams.values()} == {20.0}
    np.testing.assert_allclose(streams["watch_gyroscope"].samples[100], [10.0, -10.0, 9.5], atol=1e-5)


def test_windows_of_ten_seconds_are_one_trial_an_activity(official: Path) -> None:
    data = Wisdm2019(official)
    windows = window_recordings("1600", data.recordings("1600"), data.modalities, data.window)
    assert windows.labels.tolist() == ["walking"] * 3 + ["folding_clothes"] * 3
    assert windows.trials.tolist() == [0, 0, 0, 1, 1, 1]
    assert windows.streams["watch_gyroscope"].shape == (6, 3, 200)
    assert windows.present["phone_accelerometer"].tolist() == [True, True, False, True, True, True]  # 0.3 s were cut off


def test_another_rate_is_resampled(tmp_path: Path) -> None:
    write(tmp_path, "accel", "watch", lines("K", np.concatenate([np.arange(0, 10, 0.01), np.arange(10, 20, 0.0497)]), "watch"))
    samples = Wisdm2019(tmp_path).recordings("1600")[0].streams["watch_accelerometer"].samples
    np.testing.assert_allclose(samples[:, 0], np.arange(len(samples)) / 20, atol=1e-5)
    assert 396 <= len(samples) <= 400


def test_a_sensor_that_starts_much_later_keeps_its_start(tmp_path: Path) -> None:
    write(tmp_path, "accel", "phone", lines("A", np.arange(0, 30, 0.05)))
    write(tmp_path, "gyro", "phone", lines("A", np.arange(12, 30, 0.05)))
    streams = Wisdm2019(tmp_path).recordings("1600")[0].streams
    assert (streams["phone_accelerometer"].start_s, streams["phone_gyroscope"].start_s) == (0.0, pytest.approx(12.0))


def test_lines_out_of_order_or_twice_are_put_right(tmp_path: Path) -> None:
    seconds = np.arange(0, 20, 0.05)
    mixed = np.concatenate([seconds[200:], seconds[:200], seconds[100:150]])
    write(tmp_path, "accel", "phone", lines("A", mixed))
    samples = Wisdm2019(tmp_path).recordings("1600")[0].streams["phone_accelerometer"].samples
    np.testing.assert_allclose(samples[:, 0], seconds, atol=1e-5)


def test_of_two_attempts_the_longer_counts(tmp_path: Path) -> None:
    write(tmp_path, "accel", "phone", lines("A", np.concatenate([np.arange(0, 5, 0.05), np.arange(300, 330, 0.05)])))
    recording = Wisdm2019(tmp_path).recordings("1600")[0]
    assert len(recording.streams["phone_accelerometer"].samples) == 600
    assert recording.intervals[0].end_s == pytest.approx(30)


def test_lines_that_cannot_be_read_are_lost_samples(tmp_path: Path) -> None:
    good = lines("A", np.arange(0, 30, 0.05)).splitlines()
    damaged = [
        "",
        "1600,A,,1,2,3;",
        "1600,A,12,1,2;",
        "1600,N,12,1,2,3;",
        "nonsense",
        "1600,A,12,1,2,3;1600,A,13,1,2,3;",
        "1600,A,12,1,2,1-2;",
    ]
    write(tmp_path, "accel", "phone", "\n".join([*good[:100], *damaged, *good[102:300], *good[320:]]))
    data = Wisdm2019(tmp_path)
    samples = data.recordings("1600")[0].streams["phone_accelerometer"].samples
    lost = np.isnan(samples[:, 0])
    assert np.flatnonzero(lost).tolist() == list(range(300, 320))  # two lost samples are bridged, a second of them is not
    np.testing.assert_allclose(samples[~lost, 0], np.arange(600)[~lost] / 20, atol=1e-5)
    windows = window_recordings("1600", data.recordings("1600"), data.modalities, data.window)
    assert windows.starts_s.tolist() == [0.0, 20.0]
    assert len(windows.left_out) == 2


@pytest.mark.parametrize("ending", ["", ";", "\r", ";\r", "; "])
def test_line_endings(tmp_path: Path, ending: str) -> None:
    write(tmp_path, "accel", "phone", "".join(f"1600,A,{t * 50_000_000},1.0E-1,-2.,3{ending}\n" for t in range(100)))
    samples = Wisdm2019(tmp_path).recordings("1600")[0].streams["phone_accelerometer"].samples
    np.testing.assert_allclose(samples, np.tile([0.1, -2, 3], (100, 1)), rtol=1e-6)


def test_files_are_read_once(official: Path) -> None:
    first = Wisdm2019(official).recordings("1600")
    shutil.rmtree(official)
    assert Wisdm2019(official).recordings("1600") is first


@pytest.mark.parametrize("text", ["", "@relation nothing\n", "1600,N,1,2,3,4;\n"])
def test_a_file_without_a_good_line_is_named(official: Path, text: str) -> None:
    write(official, "gyro", "phone", text)
    with pytest.raises(DataError, match=r"raw/phone/gyro/data_1600_gyro_phone\.txt: expected lines like .*, found none: get the official"):
        Wisdm2019(official).subjects()


def test_a_folder_without_files_says_where_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data_1600_accel_phone\.txt, found none: get the archive of archive\.ics\.uci\.edu/dataset/507"):
        Wisdm2019(tmp_path).subjects()


@pytest.mark.skipif(not REAL.is_file(), reason=f"the real WISDM 2019 recordings are not at {REAL}")
def test_the_real_recordings() -> None:
    data = Wisdm2019(REAL)
    assert data.subjects() == ("1600", "1604", "1606", "1609", "1611", "1612", "1615", "1617")
    recordings = [recording for subject in data.subjects() for recording in data.recordings(subject)]
    assert len(recordings) == 8 * 18
    without_phone = [(recording.subject, recording.session) for recording in recordings if len(recording.streams) < 4]
    assert without_phone == [("1609", "jogging")]
    assert all(not np.isnan(stream.samples).any() for recording in recordings for stream in recording.streams.values())
    assert all(179 < recording.intervals[0].end_s < 181 for recording in recordings)
    counts: Counter[str] = Counter()
    for subject in data.subjects():
        windows = window_recordings(subject, data.recordings(subject), data.modalities, data.window)
        assert windows.left_out == ()
        for modality, mask in windows.present.items():
            lost = 17 if subject == "1609" and modality.startswith("phone") else 0
            assert int((~mask).sum()) == lost
        counts.update(windows.labels.tolist())
    assert counts == dict.fromkeys(ACTIVITIES.values(), 8 * 17)
    for modality, (low, high) in {"phone_accelerometer": (9.1, 10.5), "watch_accelerometer": (9.7, 9.9)}.items():
        still = [recording.streams[modality].samples for recording in recordings if recording.session == "sitting"]
        norms = [np.median(np.linalg.norm(samples, axis=1)) for samples in still]
        assert low < min(norms)
        assert max(norms) < high
