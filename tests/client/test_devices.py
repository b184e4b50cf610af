from dataclasses import replace
from pathlib import Path

import pytest

from client.devices import WINDOWS_FOLDER, devices_of_host, local_data, shares_data
from clmm_core.data.fleet import DataConfig
from clmm_core.errors import ConfigError, DataError

FLEET = DataConfig(name="synthetic", num_devices=7)
YAML = "streams: {accelerometer: {file: a.csv, unit: g, columns: [x], rate_hz: 50}}"


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    for subject in ("ben", "anna"):
        folder = tmp_path / "mine" / subject / "monday"
        folder.mkdir(parents=True)
        (folder / "recording.yaml").write_text(YAML)
        (folder / "a.csv").write_text("x\n" + "1\n" * 200)
    return tmp_path / "mine"


@pytest.mark.parametrize("num_partitions", [1, 2, 3, 7, 10])
def test_a_simulations_hosts_share_the_devices(num_partitions: int):
    parts = [devices_of_host(FLEET, {"partition-id": i, "num-partitions": num_partitions}) for i in range(num_partitions)]
    assert sorted(device for part in parts for device in part) == [f"device-{i:05d}" for i in range(7)]
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_host_with_recordings_serves_all_in_its_folder(recordings: Path):
    own = {"recordings": str(recordings)}
    data = local_data(FLEET, own)
    assert (data.name, data.path) == ("folder", str(recordings))
    assert devices_of_host(data, own) == ("anna", "ben")


def test_its_own_recordings_count_wherever_a_simulation_puts_it(recordings: Path):
    own = {"recordings": str(recordings), "partition-id": 1, "num-partitions": 2}
    assert devices_of_host(local_data(FLEET, own), own) == ("anna", "ben")


def test_only_the_place_of_the_recordings_is_the_hosts_own(recordings: Path):
    data = DataConfig(name="spar", modalities=("accelerometer",), window_s=2.0, overlap=0.25, seed=4)
    own = local_data(data, {"recordings": str(recordings)})
    assert own == DataConfig(name="folder", path=str(recordings), modalities=("accelerometer",), window_s=2.0, overlap=0.25, seed=4)
    assert local_data(data, {"partition-id": 0, "num-partitions": 1}) == data


def test_a_simulations_hosts_share_windows_where_the_environment_says_and_nowhere_else(monkeypatch: pytest.MonkeyPatch):
    """Never where a server says: it would write what it likes on a host."""
    in_simulation = {"partition-id": 0, "num-partitions": 1}
    monkeypatch.delenv(WINDOWS_FOLDER, raising=False)
    assert local_data(replace(FLEET, shared_folder="/etc"), in_simulation) == FLEET
    monkeypatch.setenv(WINDOWS_FOLDER, "/run/windows")
    assert local_data(FLEET, in_simulation) == replace(FLEET, shared_folder="/run/windows")
    assert local_data(replace(FLEET, shared_folder="/etc"), {"recordings": "/mine"}).shared_folder == ""


def test_only_a_host_with_recordings_of_its_own_has_to_train_them_itself():
    assert shares_data({"partition-id": 0, "num-partitions": 2})
    assert not shares_data({"recordings": "/mine", "partition-id": 0, "num-partitions": 2})


def test_a_host_with_neither_is_told_what_to_do():
    with pytest.raises(DataError, match=r"this host has no recordings: start its SuperNode with --node-config 'recordings=\"PATH\"'"):
        devices_of_host(FLEET, {})


def test_a_folder_that_is_not_there_is_named(tmp_path: Path):
    own = {"recordings": str(tmp_path / "gone")}
    with pytest.raises(DataError, match=r"gone: expected a folder with"):
        devices_of_host(local_data(FLEET, own), own)
    with pytest.raises(ConfigError, match=r"data.path: expected where the 'folder' recordings are"):
        local_data(FLEET, {"recordings": ""})
