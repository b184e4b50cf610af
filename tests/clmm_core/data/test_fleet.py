from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from clmm_core.data import fleet
from clmm_core.data.datasets.dsads import Dsads
from clmm_core.data.datasets.folder import Folder
from clmm_core.data.datasets.hapt import Hapt
from clmm_core.data.datasets.mhealth import Mhealth
from clmm_core.data.datasets.pamap2 import Pamap2
from clmm_core.data.datasets.spar import Spar
from clmm_core.data.datasets.synthetic import Synthetic
from clmm_core.data.datasets.umafall import UmaFall
from clmm_core.data.datasets.usc_had import UscHad
from clmm_core.data.datasets.utd_mhad import UtdMhad
from clmm_core.data.datasets.wisdm2019 import Wisdm2019
from clmm_core.data.fleet import DataConfig, device_names, device_windows, modalities_of, open_dataset, owned_modalities, window_of
from clmm_core.data.windows import NO_LABEL, NO_TRIAL
from clmm_core.errors import ConfigError, DataError

SYNTHETIC = DataConfig(name="synthetic", num_devices=3, seed=1)
BY_PATH = {
    "utd-mhad": UtdMhad,
    "dsads": Dsads,
    "hapt": Hapt,
    "wisdm2019": Wisdm2019,
    "umafall": UmaFall,
    "usc-had": UscHad,
    "pamap2": Pamap2,
    "mhealth": Mhealth,
    "folder": Folder,
}
THREE = ("accelerometer", "gyroscope", "magnetometer")


def test_each_name_opens_its_loader() -> None:
    assert open_dataset(DataConfig()) == Spar()
    assert open_dataset(SYNTHETIC) == Synthetic(num_devices=3, seed=1)
    for name, loader in BY_PATH.items():
        assert open_dataset(DataConfig(name=name, path="x")) == loader(path=Path("x"))
    assert {"spar", "synthetic", *BY_PATH} == set(fleet.NAMES)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"name": "sparr"}, f"data.name: expected one of spar, {', '.join(BY_PATH)}, synthetic, found 'sparr'"),
        *(({"name": name}, f"data.path: expected where the '{name}' recordings are") for name in BY_PATH),
        ({"window_s": -1.0}, "data.window-s: expected seconds"),
        ({"window_s": float("nan")}, "data.window-s: expected seconds"),
        ({"window_s": float("inf")}, "data.window-s: expected seconds"),
        ({"overlap": float("nan")}, "data.overlap: expected a share"),
        ({"overlap": 1.0}, r"data.overlap: expected a share in \[0, 1\)"),
        ({"classes": ("walk", "walk")}, "data.classes: expected at least two activities, or none for all, found walk alone"),
        ({"missing_share": 1.0}, r"data.missing-share: expected a share in \[0, 1\), found 1.0"),
        ({"missing_share": -0.1}, "data.missing-share: expected a share"),
        ({"missing_share": float("nan")}, "data.missing-share: expected a share"),
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


def lacking(share: float, seed: int = 0, num_devices: int = 2000, recorded: frozenset[str] = frozenset(THREE)) -> list[set[str]]:
    """What each device of a fleet lacks."""
    config = DataConfig(name="synthetic", num_devices=num_devices, missing_share=share, seed=seed)
    return [set(THREE) - set(owned_modalities(config, device, THREE, recorded)) for device in device_names(config)]


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_devices_lack_their_share_of_modalities_and_keep_one(share: float) -> None:
    """A modality is lacking with probability p, less the third of the p^3 cases in which all three would be and this one stays."""
    fleet_lacks = lacking(share)
    assert max(map(len, fleet_lacks)) <= 2
    for name in THREE:
        assert sum(name in lacks for lacks in fleet_lacks) / 2000 == pytest.approx(share - share**3 / 3, abs=0.04)


def test_a_share_of_0_takes_nothing() -> None:
    assert not any(lacking(0.0))


def test_what_a_device_lacks_depends_on_seed_and_name_only() -> None:
    assert lacking(0.5) == lacking(0.5)
    assert lacking(0.5, num_devices=30) == lacking(0.5)[:30]
    assert lacking(0.5, seed=1) != lacking(0.5)


def test_a_larger_share_takes_more_and_gives_nothing_back() -> None:
    for less, more in pairwise([lacking(share, num_devices=200) for share in (0.1, 0.3, 0.6, 0.95)]):
        assert all(few <= many for few, many in zip(less, more, strict=True))


def test_the_modality_that_stays_is_one_that_the_device_recorded() -> None:
    recorded = frozenset({"gyroscope", "magnetometer"})
    for whole, less in zip(lacking(0.8), lacking(0.8, recorded=recorded), strict=True):
        assert recorded - less
        assert less == whole or not recorded - whole, "the draw itself does not depend on the sensors"


def test_a_joined_modality_stays_only_where_all_its_streams_are() -> None:
    config = DataConfig(missing_share=0.99)
    modalities = ("accelerometer+gyroscope", "magnetometer")
    kept = {owned_modalities(config, f"d{i}", modalities, {"accelerometer", "magnetometer"}) for i in range(100)}
    assert all("magnetometer" in names for names in kept)
    assert {owned_modalities(config, f"d{i}", modalities, set(THREE)) for i in range(100)} > kept - {modalities}


def test_windows_without_a_modality_are_those_with_it_less_the_modality() -> None:
    config = DataConfig(name="synthetic", num_devices=12, missing_share=0.6)
    for device in device_names(config):
        whole, less = device_windows(replace(config, missing_share=0.0), device), device_windows(config, device)
        assert 0 < len(less.streams) <= len(whole.streams)
        left = np.any([mask for name, mask in whole.present.items() if name in less.streams], axis=0)
        assert len(less) == left.sum()
        for name, values in less.streams.items():
            np.testing.assert_array_equal(values, whole.streams[name][left])
            np.testing.assert_array_equal(less.present[name], whole.present[name][left])
        np.testing.assert_array_equal(less.labels, whole.labels[left])


def test_activities_not_asked_for_lose_label_and_trial_and_nothing_else() -> None:
    whole = device_windows(SYNTHETIC, "device-00001")
    windows = device_windows(replace(SYNTHETIC, classes=("walk", "run")), "device-00001")
    known = np.isin(whole.labels, ["walk", "run"])
    assert 0 < known.sum() < len(whole)
    assert windows.labels.tolist() == [label if label in ("walk", "run") else NO_LABEL for label in whole.labels.tolist()]
    np.testing.assert_array_equal(windows.trials, np.where(known, whole.trials, NO_TRIAL))
    assert all(np.array_equal(windows.streams[name], values) for name, values in whole.streams.items())
    assert all(np.array_equal(windows.present[name], mask) for name, mask in whole.present.items())
    np.testing.assert_array_equal(windows.starts_s, whole.starts_s)
    np.testing.assert_array_equal(windows.recordings, whole.recordings)


def test_a_device_without_any_activity_asked_for_keeps_its_windows() -> None:
    windows = device_windows(replace(SYNTHETIC, classes=("swim", "fly")), "device-00001")
    assert len(windows) == len(device_windows(SYNTHETIC, "device-00001"))
    assert set(windows.labels) == {NO_LABEL}
    assert set(windows.trials) == {NO_TRIAL}


def test_upright_windows_are_turned_and_their_labels_kept() -> None:
    askew, turned = (device_windows(replace(SYNTHETIC, upright=upright), "device-00000") for upright in (False, True))
    assert not np.allclose(turned.streams["accelerometer"], askew.streams["accelerometer"])
    assert turned.labels.tolist() == askew.labels.tolist()
    np.testing.assert_array_equal(turned.streams["magnetometer"], askew.streams["magnetometer"])


def test_the_same_side_is_taken_of_upright_windows_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "same_side", lambda windows: replace(windows, left_out=("seen",)))
    config = replace(SYNTHETIC, upright=True, num_devices=3)
    assert device_windows(replace(config, same_side=True), "device-00000").left_out == ("seen",)
    with pytest.raises(ConfigError, match=r"data.same-side: expected recordings turned upright"):
        replace(config, upright=False, same_side=True)


@pytest.mark.parametrize("modalities", [("gyroscope",), ("accelerometer+gyroscope",)])
def test_upright_needs_an_accelerometer_by_itself(modalities: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"data.upright: expected a modality 'accelerometer' to turn by, found .*gyroscope"):
        device_windows(replace(SYNTHETIC, upright=True, modalities=modalities), "device-00001")
