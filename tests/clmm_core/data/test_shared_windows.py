"""Windows of real files, shared by real processes."""

import fcntl
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clmm_core.data import fleet, shared_windows
from clmm_core.data.fleet import DataConfig, device_names, device_windows
from clmm_core.data.shared_windows import INDEX, LOCK, SharedWindows, file_of, generated_windows
from clmm_core.data.window_file import TEMPORARY, bytes_in_memory
from clmm_core.data.windows import DeviceWindows
from clmm_core.errors import DataError

PROJECT = Path(__file__).parents[3]
YAML = "streams: {accelerometer: {file: a.csv, unit: m/s^2, columns: [x, y, z], rate_hz: 50}}\n"
NAMES = ("anna", "ben", "eve")
WORK = """
import json, os, signal, sys
from pathlib import Path
from clmm_core.data import fleet, shared_windows, window_file
from clmm_core.data.fleet import DataConfig, device_names, device_windows

path, shared, mark, dies_at = sys.argv[1:]
cut = fleet._cut

def told(config, device):
    with open(mark, "a") as file:
        file.write(f"{os.getpid()} {device}\\n")
    return cut(config, device)

def killed(path, windows):
    if windows.device == dies_at:
        (path.parent / "half.tmp").write_bytes(b"half of a file")
        os.kill(os.getpid(), signal.SIGKILL)
    write(path, windows)

fleet._cut, write, shared_windows.write_windows = told, window_file.write_windows, killed
config = DataConfig(name="folder", path=path, shared_folder=shared)
print("up", flush=True)
sys.stdin.readline()
sums = {name: float(device_windows(config, name).streams["accelerometer"].sum()) for name in device_names(config)}
print(json.dumps(sums))
"""
"""A worker: waits for a line, then asks for every device; marks each it cuts, and dies while it writes a certain one."""


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Three subjects of ten seconds each, in the folder format."""
    for number, name in enumerate(NAMES):
        folder = tmp_path / "recordings" / name / "monday"
        folder.mkdir(parents=True)
        (folder / "recording.yaml").write_text(YAML)
        rows = np.random.default_rng(number).normal(size=(500, 3))
        (folder / "a.csv").write_text("x,y,z\n" + "".join(f"{x:.4f},{y:.4f},{z:.4f}\n" for x, y, z in rows))
    return tmp_path / "recordings"


@pytest.fixture
def config(recordings: Path, tmp_path: Path) -> DataConfig:
    return DataConfig(name="folder", path=str(recordings), shared_folder=str(tmp_path / "shared"))


@pytest.fixture(autouse=True)
def _as_a_new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_windows, "_UNUSABLE", set())
    forget()


def forget() -> None:
    """Keep nothing that was read, as a process that just began."""
    fleet._KEPT.clear()
    device_names.cache_clear()
    fleet._folder_of.cache_clear()


@pytest.fixture
def cuts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The devices whose windows this process cuts."""
    cuts: list[str] = []
    cut = fleet._cut
    monkeypatch.setattr(fleet, "_cut", lambda config, device: (cuts.append(device), cut(config, device))[1])
    return cuts


def everything(config: DataConfig) -> dict[str, DeviceWindows]:
    return {name: device_windows(config, name) for name in device_names(config)}


def assert_same(one: dict[str, DeviceWindows], other: dict[str, DeviceWindows]) -> None:
    assert list(one) == list(other)
    for name, windows in one.items():
        assert list(windows.streams) == list(other[name].streams)
        for modality, values in windows.streams.items():
            np.testing.assert_array_equal(values, other[name].streams[modality], strict=True)
        np.testing.assert_array_equal(windows.labels, other[name].labels)


def start(config: DataConfig, mark: Path, dies_at: str = "") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WORK, config.path, config.shared_folder, str(mark), dies_at]
    process = subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    return process


def test_shared_windows_are_those_a_process_makes_itself_to_the_last_bit(config: DataConfig) -> None:
    alone = everything(replace(config, shared_folder=""))
    made = everything(config)
    forget()
    assert_same(made, alone)
    assert_same(everything(config), alone)


def test_all_are_cut_by_the_first_and_by_nobody_after(config: DataConfig, cuts: list[str]) -> None:
    device_windows(config, "ben")
    assert cuts == list(NAMES)
    forget()
    mapped = everything(config)
    assert cuts == list(NAMES)
    assert all(bytes_in_memory(windows) == windows.labels.nbytes for windows in mapped.values())


def test_processes_at_once_cut_each_device_once(config: DataConfig, tmp_path: Path) -> None:
    workers = [start(config, tmp_path / "mark") for _ in range(3)]
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    said = {worker.communicate()[0] for worker in workers}
    assert [worker.returncode for worker in workers] == [0, 0, 0]
    alone = everything(replace(config, shared_folder=""))
    assert [json.loads(line) for line in said] == [{name: float(each.streams["accelerometer"].sum()) for name, each in alone.items()}]
    marks = [line.split() for line in (tmp_path / "mark").read_text().splitlines()]
    assert [name for _, name in marks] == list(NAMES)
    assert len({process for process, _ in marks}) == 1


def test_where_one_is_killed_half_way_the_next_goes_on_with_what_is_whole(config: DataConfig, tmp_path: Path, cuts: list[str]) -> None:
    killed = start(config, tmp_path / "mark", dies_at="ben")
    killed.communicate("go\n")
    assert killed.returncode == -signal.SIGKILL
    folder = fleet._folder_of(config)
    assert list(folder.glob(f"*{TEMPORARY}"))
    assert not (folder / INDEX).exists()
    assert_same(everything(config), everything(replace(config, shared_folder="")))
    assert cuts == ["ben", "eve", *NAMES], "anna's were there"
    assert sorted(path.name for path in folder.iterdir()) == sorted([INDEX, LOCK, *(file_of(folder, name).name for name in NAMES)])


@pytest.mark.parametrize("damage", [lambda content: content[:-1], lambda content: b"", lambda content: b"\0" * len(content)])
def test_a_damaged_file_is_made_again(config: DataConfig, cuts: list[str], damage: Callable[[bytes], bytes]) -> None:
    alone = everything(replace(config, shared_folder=""))
    everything(config)
    file = file_of(fleet._folder_of(config), "ben")
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    forget()
    cuts.clear()
    assert_same(everything(config), alone)
    assert cuts == ["ben"]
    assert file.read_bytes() == whole


def test_a_damaged_index_is_made_again(config: DataConfig, cuts: list[str]) -> None:
    everything(config)
    index = fleet._folder_of(config) / INDEX
    index.write_bytes(b"[]")
    forget()
    assert list(everything(config)) == list(NAMES)
    assert cuts == list(NAMES)


def test_a_file_in_use_may_go(config: DataConfig) -> None:
    """The run that ends takes its folder away, whoever still reads."""
    windows = device_windows(config, "anna")
    file_of(fleet._folder_of(config), "anna").unlink()
    assert_same({"anna": windows}, {"anna": device_windows(replace(config, shared_folder=""), "anna")})


def test_other_recordings_settings_and_code_have_a_folder_of_their_own(
    config: DataConfig, recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def folder(config: DataConfig = config) -> Path:
        forget()
        return fleet._folder_of(config)

    folders = [folder(), folder(replace(config, window_s=1.0)), folder(replace(config, modalities=("accelerometer",)))]
    assert folder(replace(config, zero_fill=True)) == folders[0], "which changes no window"
    csv = recordings / "anna" / "monday" / "a.csv"
    content, changed_ns = csv.read_text(), csv.stat().st_mtime_ns
    csv.write_text(content + "1,2,3\n")
    os.utime(csv, ns=(changed_ns, changed_ns))
    folders.append(folder())
    csv.write_text(content)
    os.utime(csv, ns=(changed_ns, changed_ns + 1))
    folders.append(folder())
    monkeypatch.setattr(fleet, "client_source", lambda: "other code")
    folders.append(folder())
    assert len(set(folders)) == len(folders)
    assert {path.parent for path in folders} == {Path(config.shared_folder)}


def test_changed_recordings_are_cut_anew(config: DataConfig, recordings: Path) -> None:
    before = everything(config)
    csv = recordings / "anna" / "monday" / "a.csv"
    csv.write_text(csv.read_text().replace("-", ""))
    forget()
    after = everything(config)
    assert (after["anna"].streams["accelerometer"] >= 0).all()
    assert_same({"ben": after["ben"]}, {"ben": before["ben"]})


def test_a_folder_that_cannot_be_is_said_once_and_costs_nothing_else(
    config: DataConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture, cuts: list[str]
) -> None:
    (tmp_path / "file").write_text("")
    impossible = replace(config, shared_folder=str(tmp_path / "file" / "folder"))
    with caplog.at_level(logging.WARNING):
        assert_same(everything(impossible), everything(replace(config, shared_folder="")))
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{tmp_path / 'file' / 'folder'}: expected a folder to share windows in, cannot use it (")
    assert cuts == [*NAMES, *NAMES]


def test_a_full_disk_costs_time_alone(config: DataConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    write = shared_windows.write_windows

    def full(path: Path, windows: DeviceWindows) -> None:
        if windows.device == "ben":
            raise OSError(28, "No space left on device")
        write(path, windows)

    monkeypatch.setattr(shared_windows, "write_windows", full)
    assert_same(everything(config), everything(replace(config, shared_folder="")))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "No space left on device" in caplog.text


def test_a_device_without_windows_says_so_to_all(config: DataConfig, recordings: Path, cuts: list[str]) -> None:
    csv = recordings / "ben" / "monday" / "a.csv"
    csv.write_text("x,y,z\n1,2,3\n")
    for _ in range(2):
        forget()
        assert device_names(config) == NAMES
        with pytest.raises(DataError, match=r"device 'ben': no window of 2\.56 s"):
            device_windows(config, "ben")
        assert len(device_windows(config, "eve")) == 6
    assert cuts == list(NAMES)


def test_a_stranger_and_recordings_that_are_not_there_are_the_errors_they_were(config: DataConfig, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"device 'nobody': no window of 2\.56 s in 0 recording\(s\)"):
        device_windows(config, "nobody")
    nowhere = replace(config, path=str(tmp_path / "nowhere"))
    for _ in range(2):
        with pytest.raises(DataError, match="nowhere: expected a folder"):
            device_names(nowhere)


def test_who_cuts_holds_a_lock(config: DataConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, is_free = fleet._folder_of(config), []
    cut = fleet._cut

    def look(config: DataConfig, device: str) -> DeviceWindows:
        with (folder / LOCK).open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                is_free.append(False)
            else:
                is_free.append(True)
        return cut(config, device)

    monkeypatch.setattr(fleet, "_cut", look)
    everything(config)
    assert is_free == [False] * 3


def test_what_was_read_of_an_archive_is_let_go_of_once_it_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forgotten: list[bool] = []
    monkeypatch.setattr(shared_windows, "forget_recordings", lambda: forgotten.append(True))
    windows = device_windows(DataConfig(name="synthetic", num_devices=1), "device-00000")
    shared = SharedWindows(folder=tmp_path / "shared", names=lambda: ("a", "b"), cut=lambda device: replace(windows, device=device))
    assert [shared.windows(name).device for name in ("b", "a")] == ["b", "a"]
    assert forgotten == [True]


def test_a_synthetic_device_is_made_by_whoever_asks_first(tmp_path: Path, cuts: list[str]) -> None:
    config = DataConfig(name="synthetic", num_devices=1000, seed=3, shared_folder=str(tmp_path))
    made = device_windows(config, "device-00007")
    forget()
    mapped = device_windows(config, "device-00007")
    assert cuts == ["device-00007"]
    assert bytes_in_memory(made) == bytes_in_memory(mapped) == mapped.labels.nbytes
    assert_same({"": mapped}, {"": device_windows(replace(config, shared_folder=""), "device-00007")})
    assert len(device_names(config)) == 1000


def test_of_a_fleet_that_does_not_fit_a_share_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    windows = device_windows(DataConfig(name="synthetic", num_devices=1), "device-00000")
    names = [f"device-{number:05d}" for number in range(300)]
    monkeypatch.setattr(shared_windows, "MAX_GENERATED_BYTES", 100 * bytes_in_memory(windows))
    for name in names:
        found = generated_windows(tmp_path / "a", name, len(names), lambda: windows)
        assert len(found) == len(windows)
    kept = {path.name for path in (tmp_path / "a").iterdir()}
    assert 70 < len(kept) < 130
    for name in names:
        generated_windows(tmp_path / "b", name, len(names), lambda: windows)
    assert {path.name for path in (tmp_path / "b").iterdir()} == kept, "whoever asks, in whatever order"


def test_a_synthetic_fleet_needs_no_folder_that_works(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    config = DataConfig(name="synthetic", num_devices=2, shared_folder=str(tmp_path / "file"))
    assert_same(everything(config), everything(replace(config, shared_folder="")))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
