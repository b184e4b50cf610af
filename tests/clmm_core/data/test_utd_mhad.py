import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from clmm_core.data.datasets.utd_mhad import ACTIONS, UtdMhad
from clmm_core.data.windows import window_recordings
from clmm_core.errors import DataError

REAL = Path(__file__).parents[4] / "shared" / "data" / "UTD-MHAD_Inertial_Skeleton.tar.xz"
INERTIAL_ROW = [1.0, 0.0, -0.5, 180.0, 0.0, -90.0]  # g, deg/s


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """Two subjects in the official layout; subject 2 has one trial whose inertial file is missing, and one without a skeleton."""
    root = tmp_path / "UTD-MHAD"
    for half in ("Inertial", "Skeleton"):
        (root / half).mkdir(parents=True)
    (root / "Skeleton" / "Skeleton_joint_order.txt").write_text("1. head;")
    for action, subject, repetition in ((1, 1, 1), (1, 1, 2), (27, 1, 1), (10, 1, 1), (1, 2, 2)):
        write_inertial(root, f"a{action}_s{subject}_t{repetition}", 100)
        write_skeleton(root, f"a{action}_s{subject}_t{repetition}", 40)
    write_skeleton(root, "a2_s2_t1", 60)
    (root / "Skeleton" / "a1_s2_t2_skeleton.mat").unlink()
    return root


def write_inertial(root: Path, trial: str, num_samples: int) -> None:
    savemat(root / "Inertial" / f"{trial}_inertial.mat", {"d_iner": np.tile(INERTIAL_ROW, (num_samples, 1))})


def write_skeleton(root: Path, trial: str, num_frames: int) -> None:
    frames = np.arange(20)[:, None, None] + np.array([0.0, 100.0, 200.0])[:, None] + np.arange(num_frames) / 1000
    savemat(root / "Skeleton" / f"{trial}_skeleton.mat", {"d_skel": frames})  # [20, 3, time]


def unpacked(root: Path) -> Path:
    return root


def unpacked_below(root: Path) -> Path:
    return root.parent


def zipped(root: Path) -> Path:
    folder = root.parent / "zips"
    folder.mkdir()
    for half in ("Inertial", "Skeleton"):
        with zipfile.ZipFile(folder / f"{half}.zip", "w") as archive:
            for file in (root / half).iterdir():
                archive.write(file, f"{half}/{file.name}")
                archive.writestr(f"__MACOSX/{half}/._{file.name}", b"resource fork")
    shutil.rmtree(root)
    return folder


def tarred(root: Path) -> Path:
    return _tarred(root, "xz")


def tarred_gz(root: Path) -> Path:
    return _tarred(root, "gz")


def _tarred(root: Path, compression: str) -> Path:
    path = root.parent / f"UTD.tar.{compression}"
    with tarfile.open(path, f"w:{compression}") as archive:  # type: ignore[call-overload]
        archive.add(root, "UTD-MHAD")
    shutil.rmtree(root)
    return path


@pytest.mark.parametrize("layout", [unpacked, unpacked_below, zipped, tarred, tarred_gz])
def test_every_layout_gives_the_same_recordings(official: Path, layout: Callable[[Path], Path]) -> None:
    data = UtdMhad(layout(official))
    assert data.subjects() == ("1", "2")
    assert [recording.session for recording in data.recordings("1")] == [
        "swipe_left-1",
        "swipe_left-2",
        "draw_circle_counter_clockwise-1",
        "squat-1",
    ]
    assert data.recordings("9") == ()


def test_units_are_si_and_the_skeleton_starts_at_its_spine(official: Path) -> None:
    streams = UtdMhad(official).recordings("1")[0].streams
    np.testing.assert_allclose(streams["accelerometer"].samples[0], [9.80665, 0.0, -4.903325], rtol=1e-6)
    np.testing.assert_allclose(streams["gyroscope"].samples[0], [np.pi, 0.0, -np.pi / 2], rtol=1e-6)
    assert (streams["accelerometer"].unit, streams["gyroscope"].unit, streams["skeleton"].unit) == ("m/s^2", "rad/s", "m")
    frames = streams["skeleton"].samples.reshape(40, 20, 3)
    np.testing.assert_allclose(frames[0, :, 0], np.arange(20) - 2.0, atol=1e-6)  # joint 2 is the spine; the axes keep their order
    np.testing.assert_allclose(frames[0, 2], 0.0, atol=1e-6)
    np.testing.assert_allclose(frames[-1, 2], 0.039, atol=1e-5)  # later frames keep their movement


def test_both_streams_of_a_trial_span_its_interval(official: Path) -> None:
    trial = UtdMhad(official).recordings("1")[0]
    assert trial.streams["accelerometer"].rate_hz == 50.0
    assert trial.streams["skeleton"].rate_hz == pytest.approx(40 / 2.0)
    assert [stream.end_s for stream in trial.streams.values()] == pytest.approx([2.0, 2.0, 2.0])
    assert (trial.intervals[0].start_s, trial.intervals[0].end_s) == (0.0, 2.0)


def test_one_window_a_trial(official: Path) -> None:
    data = UtdMhad(official)
    windows = window_recordings("1", data.recordings("1"), data.modalities, data.window)
    assert windows.labels.tolist() == ["swipe_left", "swipe_left", "draw_circle_counter_clockwise", "squat"]
    assert {name: values.shape for name, values in windows.streams.items()} == {
        "accelerometer": (4, 3, 128),
        "gyroscope": (4, 3, 128),
        "skeleton": (4, 60, 64),
    }


def test_a_missing_file_leaves_its_modality_absent(official: Path) -> None:
    data = UtdMhad(official)
    windows = window_recordings("2", data.recordings("2"), data.modalities, data.window)
    assert windows.labels.tolist() == ["swipe_left", "swipe_right"]
    assert windows.present["gyroscope"].tolist() == [True, False]
    assert windows.present["skeleton"].tolist() == [False, True]
    assert data.recordings("2")[1].intervals[0].end_s == pytest.approx(60 / 30)


def test_files_are_read_once(official: Path) -> None:
    data = UtdMhad(official)
    first = data.recordings("1")
    shutil.rmtree(official)
    assert UtdMhad(official).recordings("1") is first


@pytest.mark.parametrize("half", ["Inertial", "Skeleton"])
@pytest.mark.parametrize("layout", [unpacked, tarred])
def test_a_missing_half_is_named(official: Path, half: str, layout: Callable[[Path], Path]) -> None:
    shutil.rmtree(official / half)
    with pytest.raises(DataError, match=rf"expected {half}/ or {half}\.zip .* found none.*put Inertial\.zip and Skeleton\.zip"):
        UtdMhad(layout(official)).subjects()


def test_an_empty_folder_misses_both_halves(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected Inertial/"):
        UtdMhad(tmp_path).subjects()


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: expected a folder, a zip or a tar archive, found nothing there"):
        UtdMhad(tmp_path / "nowhere").subjects()


@pytest.mark.parametrize("content", [b"", b"not MATLAB", bytes(200), b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + bytes(range(90))])
def test_an_unreadable_file_is_named(official: Path, content: bytes) -> None:
    (official / "Inertial" / "a1_s1_t2_inertial.mat").write_bytes(content)
    with pytest.raises(DataError, match=r"Inertial/a1_s1_t2_inertial\.mat: expected"):
        UtdMhad(official).subjects()


@pytest.mark.parametrize(
    ("file", "variables", "found"),
    [
        ("Inertial/a1_s1_t1_inertial.mat", {"other": np.zeros((9, 6))}, "expected the variable d_iner"),
        ("Inertial/a1_s1_t1_inertial.mat", {"d_iner": np.zeros((9, 3))}, r"expected d_iner of shape \(time, 6\), found \(9, 3\)"),
        (
            "Skeleton/a1_s1_t1_skeleton.mat",
            {"d_skel": np.zeros((25, 3, 9))},
            r"expected d_skel of shape \(20, 3, time\), found \(25, 3, 9\)",
        ),
        ("Skeleton/a28_s1_t1_skeleton.mat", {"d_skel": np.zeros((20, 3, 9))}, "expected actions 1 to 27, found 28"),
    ],
)
def test_a_file_of_another_kind_is_refused(official: Path, file: str, variables: dict[str, object], found: str) -> None:
    savemat(official / file, variables)
    with pytest.raises(DataError, match=found):
        UtdMhad(official).subjects()


@pytest.mark.parametrize("name", ["UTD.tar.xz", "Inertial.zip"])
def test_a_damaged_archive_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"not an archive")
    with pytest.raises(DataError, match=rf"{name}: expected a zip or tar archive"):
        UtdMhad(tmp_path / name if name.endswith("xz") else tmp_path).subjects()


def test_a_tar_cut_short_is_named(official: Path) -> None:
    path = tarred(official)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=r"UTD\.tar\.xz: expected a zip or tar archive, cannot read it"):
        UtdMhad(path).subjects()


@pytest.mark.skipif(not REAL.is_file(), reason=f"the real UTD-MHAD recordings are not at {REAL}")
def test_the_real_recordings() -> None:
    data = UtdMhad(REAL)
    assert data.subjects() == tuple("12345678")
    recordings = [recording for subject in data.subjects() for recording in data.recordings(subject)]
    assert len(recordings) == 861
    assert {recording.intervals[0].label for recording in recordings} == set(ACTIONS)
    assert all(set(recording.streams) == set(data.modalities) for recording in recordings)
    for recording in recordings:
        assert recording.streams["skeleton"].end_s == pytest.approx(recording.streams["accelerometer"].end_s)
    lengths = [np.linalg.norm(recording.streams["accelerometer"].samples, axis=1) for recording in recordings]
    assert 9.0 < np.median(np.concatenate(lengths)) < 12.0
    windows = window_recordings("1", data.recordings("1"), data.modalities, data.window)
    assert len(windows) == len(data.recordings("1"))
    assert windows.left_out == ()
