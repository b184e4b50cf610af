from pathlib import Path

import numpy as np
import pytest

from clmm_core.data.datasets import spar
from clmm_core.data.datasets.spar import Spar
from clmm_core.data.windows import window_recordings
from clmm_core.errors import DataError

EXERCISES = {"PEN", "ABD", "FEL", "IR", "ER", "TRAP", "ROW"}


def test_ten_subjects_with_fourteen_recordings_each() -> None:
    data = Spar()
    assert data.subjects() == tuple(str(i) for i in range(1, 11))
    recordings = data.recordings("1")
    assert len(recordings) == 14
    assert {recording.intervals[0].label for recording in recordings} == EXERCISES
    assert len({recording.session for recording in recordings}) == 14


def test_units_are_si() -> None:
    streams = Spar().recordings("2")[0].streams
    assert {modality: stream.unit for modality, stream in streams.items()} == {"accelerometer": "m/s^2", "gyroscope": "rad/s"}
    lengths = np.linalg.norm(streams["accelerometer"].samples, axis=1)
    assert 8.5 < np.median(lengths) < 12.0  # gravity, and slow movement
    assert np.abs(streams["gyroscope"].samples).max() < 50  # rad/s; in deg/s it would be hundreds


def test_every_window_has_a_label_and_both_modalities() -> None:
    data = Spar()
    windows = window_recordings("1", data.recordings("1"), data.modalities, data.window)
    assert windows.streams["accelerometer"].shape == (len(windows), 3, 200)
    assert all(mask.all() for mask in windows.present.values())
    assert set(windows.labels.tolist()) == EXERCISES
    assert set(windows.trials.tolist()) == set(range(14))


def test_an_unknown_subject_has_no_recordings() -> None:
    assert Spar().recordings("11") == ()


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    spar._arrays.cache_clear()
    monkeypatch.setattr(spar, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip install seglearn"):
        Spar().subjects()


def test_a_missing_file_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Package:
        origin = str(tmp_path / "__init__.py")

    spar._arrays.cache_clear()
    monkeypatch.setattr(spar, "find_spec", lambda name: Package())
    with pytest.raises(DataError, match=r"watch_dataset\.npy, found no such file: reinstall seglearn"):
        Spar().subjects()


def test_the_left_arm_is_mirrored_into_the_right_wrists_frame():
    """Means over subjects and exercises agree between the arms in every axis; without the mirror x would correlate with -0.95."""
    left, right = [], []
    for subject in Spar().subjects():
        by_session = {recording.session: recording.streams for recording in Spar().recordings(subject)}
        for session, streams in by_session.items():
            if session.endswith("-left"):
                left.append(streams["accelerometer"].samples.mean(axis=0))
                right.append(by_session[session.replace("-left", "-right")]["accelerometer"].samples.mean(axis=0))
    correlation = [np.corrcoef(one, other)[0, 1] for one, other in zip(np.array(left).T, np.array(right).T, strict=True)]
    np.testing.assert_allclose(correlation, [0.95, 0.97, 0.84], atol=0.006)


def test_the_mirror_keeps_the_law_of_rotation():
    """A rotating point moves with `omega x p`; in the mirror the mirrored rotation must move the mirrored point the same way."""
    omega, point = np.random.default_rng(0).normal(size=(2, 3))
    flip, turn = spar.MIRROR[:3], spar.MIRROR[3:]
    np.testing.assert_allclose(np.cross(turn * omega, flip * point), flip * np.cross(omega, point))
