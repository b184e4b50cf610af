from pathlib import Path

import numpy as np
import pytest

from clmm_core.data import fleet
from clmm_core.data.datasets.folder import Folder
from clmm_core.data.datasets.spar import Spar
from clmm_core.data.datasets.synthetic import Synthetic
from clmm_core.data.datasets.utd_mhad import UtdMhad
from clmm_core.data.fleet import DataConfig, device_names, device_windows, modalities_of, open_dataset, window_of
from clmm_core.errors import ConfigError, DataError

SYNTHETIC = DataConfig(name="synthetic", num_devices=3, seed=1)


def test_each_name_opens_its_loader() -> None:
    assert open_dataset(DataConfig()) == Spar()
    assert open_dataset(DataConfig(name="utd-mhad", path="x")) == UtdMhad(Path("x"))
    assert open_dataset(DataConfig(name="folder", path="x")) == Folder(Path("x"))
    assert open_dataset(SYNTHETIC) == Synthetic(num_devices=3, seed=1)
    assert {"spar", "utd-mhad", "folder", "synthetic"} == set(fleet.NAMES)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"name": "sparr"}, "data.name: expected one of spar, utd-mhad, dsads, hapt, wisdm2019, umafall, usc-had, pamap2, mhealth, folder, synthetic, found 'sparr'"),
        ({"name": "folder"}, "data.path: expected where the 'folder' recordings are"),
        ({"name": "utd-mhad"}, "data.path: expected where the 'utd-mhad' recordings are"),
        ({"window_s": -1.0}, "data.window-s: expected seconds"),
        ({"window_s": float("nan")}, "data.window-s: expected seconds"),
        ({"window_s": float("inf")}, "data.window-s: expected seconds"),
        ({"overlap": float("nan")}, "data.overlap: expected a share"),
        ({"overlap": 1.0}, r"data.overlap: expected a share in \[0, 1\)"),
        ({"num_devices": 0}, "data.num-devices: expected at least 1"),
    ],
)
def test_a_config_that_cannot_be_names_its_key(config: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DataConfig(**config)  # type: ignore[arg-type]


def test_modalities_are_all_unless_chosen() -> None:
    data = open_dataset(SYNTHETIC)
    assert modalities_of(SYNTHETIC, data) == ("accelerometer", "gyroscope", "magnetometer")
    chosen = DataConfig(name="synthetic", modalities=("accelerometer+gyroscope",))
    assert modalities_of(chosen, data) == ("accelerometer+gyroscope",)


@pytest.mark.parametrize("modality", ["skeleton", "accelerometer+skeleton", ""])
def test_an_unknown_modality_lists_the_known(modality: str) -> None:
    config = DataConfig(modalities=(modality,))
    with pytest.raises(ConfigError, match=r"data.modalities: 'spar' has accelerometer, gyroscope, not '(skeleton)?'"):
        modalities_of(config, open_dataset(config))


def test_the_window_is_the_data_sets_own_unless_set() -> None:
    assert window_of(DataConfig(overlap=0.0), Spar()) == Spar().window
    resized = window_of(DataConfig(window_s=2.0, overlap=0.25), Spar())
    assert (resized.length_s, resized.overlap, resized.time_steps["gyroscope"]) == (2.0, 0.25, 100)


def test_whole_trials_cannot_be_resized() -> None:
    with pytest.raises(DataError, match="one window of each trial"):
        window_of(DataConfig(name="utd-mhad", path="x", window_s=2.0), UtdMhad(Path("x")))


def test_device_windows_come_from_the_cache_the_second_time() -> None:
    assert device_names(SYNTHETIC) == ("device-00000", "device-00001", "device-00002")
    first = device_windows(SYNTHETIC, "device-00001")
    assert device_windows(DataConfig(name="synthetic", num_devices=3, seed=1), "device-00001") is first
    assert device_windows(DataConfig(name="synthetic", num_devices=3, seed=2), "device-00001") is not first


def test_a_joined_modality_has_the_channels_of_both() -> None:
    config = DataConfig(modalities=("accelerometer+gyroscope",))
    joined = device_windows(config, "4").streams["accelerometer+gyroscope"]
    apart = device_windows(DataConfig(), "4").streams
    np.testing.assert_array_equal(joined, np.concatenate([apart["accelerometer"], apart["gyroscope"]], axis=1))


def test_an_unknown_device_has_no_window() -> None:
    with pytest.raises(DataError, match=r"device 'nobody': no window of 4 s in 0 recording\(s\)"):
        device_windows(DataConfig(), "nobody")


def test_missing_recordings_are_an_error_every_time(tmp_path: Path) -> None:
    config = DataConfig(name="folder", path=str(tmp_path / "nowhere"))
    for _ in range(2):  # an error is not cached
        with pytest.raises(DataError, match="nowhere"):
            device_names(config)
