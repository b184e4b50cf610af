import os
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clmm_core.data.window_file import (
    CHECKSUM_BYTES,
    TEMPORARY,
    DamagedFileError,
    bytes_in_memory,
    read_sealed,
    read_windows,
    write_sealed,
    write_windows,
)
from clmm_core.data.windows import NO_LABEL, NO_TRIAL, DeviceWindows

ROWS = ("labels", "trials", "recordings", "starts_s")


def make(num_windows: int = 3, *, labels: tuple[str, ...] = ("walk", NO_LABEL, "gehen, ünï \udcff")) -> DeviceWindows:
    """Return windows of two modalities in an order that is not the alphabet's; the second one is absent here and there."""
    random = np.random.default_rng(num_windows)
    rows = np.arange(num_windows)
    return DeviceWindows(
        device="anna/..\udcff",
        streams={
            "gyroscope": random.normal(size=(num_windows, 3, 8)).astype(np.float32),
            "accelerometer+x": random.normal(size=(num_windows, 5, 7)).astype(np.float32),
        },
        present={"gyroscope": np.ones(num_windows, np.bool_), "accelerometer+x": rows % 2 == 0},
        labels=np.array([labels[row % len(labels)] for row in rows], dtype=np.str_),
        trials=np.where(rows % 3 == 1, NO_TRIAL, rows),
        recordings=rows // 2,
        starts_s=random.uniform(size=num_windows) * 1e9,
        length_s=2.56,
        units={"gyroscope": "rad/s", "accelerometer+x": "m/s^2+1"},
        left_out=("one", "two"),
    )


def assert_equal(one: DeviceWindows, other: DeviceWindows) -> None:
    for name in ("streams", "present"):
        assert list(getattr(one, name)) == list(getattr(other, name)), "in the same order"
        for modality, values in getattr(one, name).items():
            np.testing.assert_array_equal(values, getattr(other, name)[modality], strict=True)
    for name in ROWS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), strict=True)
    for field in fields(DeviceWindows):
        if field.name not in ("streams", "present", *ROWS):
            assert getattr(one, field.name) == getattr(other, field.name)


@pytest.mark.parametrize("num_windows", [1, 2, 3, 50])
def test_what_is_read_is_what_was_written(tmp_path: Path, num_windows: int) -> None:
    write_windows(tmp_path / "a", make(num_windows))
    assert_equal(read_windows(tmp_path / "a"), make(num_windows))
    assert os.listdir(tmp_path) == ["a"]


def test_samples_stay_in_the_file_and_tensors_take_them_from_there(tmp_path: Path) -> None:
    write_windows(tmp_path / "a", make())
    windows = read_windows(tmp_path / "a")
    assert bytes_in_memory(windows) == windows.labels.nbytes
    assert bytes_in_memory(make()) > windows.labels.nbytes + sum(values.nbytes for values in windows.streams.values())
    samples = windows.streams["gyroscope"]
    assert torch.from_numpy(samples).data_ptr() == samples.__array_interface__["data"][0], "and PyTorch warns of nothing"


def test_what_a_process_writes_to_its_windows_reaches_nobody_else(tmp_path: Path) -> None:
    write_windows(tmp_path / "a", make())
    mine, others = read_windows(tmp_path / "a"), read_windows(tmp_path / "a")
    mine.streams["gyroscope"][:] = 7
    assert_equal(others, make())
    assert_equal(read_windows(tmp_path / "a"), make())


def test_windows_outlive_their_file(tmp_path: Path) -> None:
    write_windows(tmp_path / "a", make())
    windows = read_windows(tmp_path / "a")
    (tmp_path / "a").unlink()
    assert_equal(windows, make())


def test_a_file_that_is_not_there_is_not_a_damaged_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_windows(tmp_path / "a")


@settings(max_examples=100, deadline=None)
@given(cut=st.integers(0, 10_000), flip=st.integers(0, 10_000), is_cut=st.booleans())
def test_whatever_was_cut_off_or_changed_is_noticed(tmp_path_factory: pytest.TempPathFactory, cut: int, flip: int, is_cut: bool) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged"
    write_windows(path, make())
    content = bytearray(path.read_bytes())
    if is_cut:
        del content[cut % len(content) :]
    else:
        content[flip % len(content)] ^= 1 << flip % 8
    path.write_bytes(content)
    with pytest.raises(DamagedFileError, match="damaged: expected"):
        read_windows(path)


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_sealed(tmp_path / "a", b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        write_sealed(tmp_path / "a", b"new")
    assert os.listdir(tmp_path) == ["a"]
    assert bytes(read_sealed(tmp_path / "a")) == b"old"


def test_a_file_that_is_being_written_can_be_told_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda *paths: (seen.extend(os.listdir(tmp_path)), replace(*paths)))
    write_sealed(tmp_path / "a", b"x")
    assert len(seen) == 1
    assert seen[0].endswith(TEMPORARY)
    assert (tmp_path / "a").stat().st_size == 1 + CHECKSUM_BYTES
