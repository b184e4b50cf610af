import io
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from clmm_core.data.datasets.mhealth import Mhealth
from clmm_core.data.windows import NO_LABEL, window_recordings
from clmm_core.errors import DataError

FIRST_FILE = "mHealth_subject1.log"


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """Three subjects in the official layout, its README included."""
    root = tmp_path / "MHEALTHDATASET"
    root.mkdir()
    (root / "README.txt").write_text("mHealth dataset")
    write_log(root / FIRST_FILE, [0] * 70 + [4] * 180 + [0] * 76 + [12] * 130 + [4] * 56)
    write_log(root / "mHealth_subject2.log", [1] * 256)
    write_log(root / "mHealth_subject10.log", [0] * 256)
    return root


def write_log(path: Path, labels: Sequence[object]) -> None:
    """Write one row a label; column k of the README, from 1, holds the number k."""
    path.write_text("".join("\t".join([*map(str, range(1, 24)), str(label)]) + "\n" for label in labels))


def unpacked(root: Path) -> Path:
    return root


def unpacked_below(root: Path) -> Path:
    return root.parent


def zipped(root: Path) -> Path:
    path = root.parent / "other" / "mhealth+dataset.zip"
    path.parent.mkdir()
    path.write_bytes(zip_bytes(root))
    return path


def unpacked_beside_its_zip(root: Path) -> Path:
    (root.parent / "mhealth+dataset.zip").write_bytes(zip_bytes(root))
    return root.parent


def zip_bytes(root: Path) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for file in sorted(root.iterdir()):
            archive.write(file, f"{root.name}/{file.name}")
    return packed.getvalue()


@pytest.mark.parametrize("layout", [unpacked, unpacked_below, zipped, unpacked_beside_its_zip])
def test_every_layout_gives_the_same_recordings(official: Path, layout: Callable[[Path], Path]) -> None:
    data = Mhealth(layout(official))
    assert data.subjects() == ("1", "2", "10")
    assert [len(data.recordings(subject)) for subject in data.subjects()] == [1, 1, 1]
    assert data.recordings("1")[0].subject == "1"
    assert data.recordings("0") == ()


def test_every_stream_has_its_columns_in_si_units(official: Path) -> None:
    streams = Mhealth(official).recordings("1")[0].streams
    samples = {modality: stream.samples[0].tolist() for modality, stream in streams.items()}
    assert samples["accelerometer_chest"] == [1, 2, 3]
    assert samples["accelerometer_ankle"] == [6, 7, 8]
    assert samples["magnetometer_ankle"] == [12, 13, 14]
    assert samples["accelerometer_arm"] == [15, 16, 17]
    assert samples["magnetometer_arm"] == [21, 22, 23]
    assert samples["gyroscope_ankle"] == pytest.approx([np.pi / 20, np.pi / 18, 11 * np.pi / 180], rel=1e-6)  # 9, 10, 11 deg/s
    assert samples["gyroscope_arm"] == pytest.approx([np.pi / 10, 19 * np.pi / 180, np.pi / 9], rel=1e-6)  # 18, 19, 20 deg/s
    assert tuple(streams) == Mhealth(official).modalities
    assert [stream.unit for stream in streams.values()] == ["m/s^2", "m/s^2", "rad/s", "local", "m/s^2", "rad/s", "local"]


def test_each_stretch_of_one_activity_is_a_trial(official: Path) -> None:
    [recording] = Mhealth(official).recordings("1")
    assert [(interval.label, interval.start_s, interval.end_s) for interval in recording.intervals] == [
        ("walking", 1.4, 5.0),
        ("jump_front_and_back", 6.52, 9.12),
        ("walking", 9.12, 10.24),
    ]
    assert Mhealth(official).recordings("10")[0].intervals == ()


def test_windows_hold_128_samples(official: Path) -> None:
    data = Mhealth(official)
    windows = window_recordings("1", data.recordings("1"), data.modalities, data.window)
    assert {values.shape for values in windows.streams.values()} == {(7, 3, 128)}
    jump = "jump_front_and_back"
    assert windows.labels.tolist() == [NO_LABEL, "walking", "walking", NO_LABEL, NO_LABEL, jump, jump]
    assert windows.left_out == ()


def test_columns_may_be_separated_by_spaces_and_hold_nan(official: Path) -> None:
    file = official / FIRST_FILE
    file.write_text(file.read_text().replace("\t", "  ").replace("6", "NaN", 1))
    streams = Mhealth(official).recordings("1")[0].streams
    assert np.isnan(streams["accelerometer_ankle"].samples[0]).tolist() == [True, False, False]
    assert np.isfinite(streams["accelerometer_ankle"].samples[1:]).all()


@pytest.mark.parametrize("layout", [unpacked, zipped])
def test_files_that_are_not_there_are_named(tmp_path: Path, layout: Callable[[Path], Path]) -> None:
    root = tmp_path / "MHEALTHDATASET"
    root.mkdir()
    (root / "README.txt").write_text("mHealth dataset")
    with pytest.raises(DataError, match=r"expected files like mHealth_subject1\.log, found none: get the archive from archive\.ics"):
        Mhealth(layout(root)).subjects()


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: expected .*, found nothing there"):
        Mhealth(tmp_path / "nowhere").subjects()


def test_a_damaged_zip_is_named(official: Path) -> None:
    path = zipped(official)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"mhealth\+dataset\.zip: expected a zip or tar archive, cannot read it"):
        Mhealth(path).subjects()


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "expected lines of 24 numbers, found none"),
        (b" \n", "expected lines of 24 numbers, found none"),
        (b"\x89PNG\r\n\xff\x00", "expected lines of 24 numbers, cannot read them"),
        (b"1\t2\t3\n", "expected lines of 24 numbers, found 3"),
        (b"1 " * 23 + b"0\n" + b"1 " * 22 + b"0\n", "expected lines of 24 numbers, cannot read them .*row 2"),
        (b"1 " * 23 + b"0\n" + b"1 " * 23 + b"13\n", "expected labels 0 to 12 in the last column, found 13 in row 2"),
        (b"1 " * 23 + b"1.5\n", "found 1.5 in row 1"),
        (b"1 " * 23 + b"NaN\n", "found nan in row 1"),
    ],
)
def test_a_file_of_another_kind_is_refused(official: Path, content: bytes, found: str) -> None:
    (official / FIRST_FILE).write_bytes(content)
    with pytest.raises(DataError, match=rf"{FIRST_FILE}: .*{found}"):
        Mhealth(official).recordings("1")
    assert len(Mhealth(official).recordings("2")) == 1  # the other subjects can still be read
