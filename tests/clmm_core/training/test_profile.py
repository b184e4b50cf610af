from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from clmm_core.data.fleet import device_windows
from clmm_core.errors import DataError
from clmm_core.federated.source import client_source
from clmm_core.training import profile
from clmm_core.training.profile import profile_host, sum_channels
from clmm_core.training.tasks import ProfileTask, SumsTask

Settings = Callable[..., dict[str, Any]]


def test_a_profile_counts_windows_by_modality_and_activity(settings: Settings):
    task = settings(0, 1)
    reply = profile_host(ProfileTask(data=task["data"]), task["devices"])
    assert (reply.source, reply.modalities, reply.window_s) == (client_source(), ("accelerometer", "gyroscope"), 7.0)
    without, dropping = reply.devices
    assert (without.num_windows, set(without.modalities)) == (12, {"accelerometer"})
    assert {name: (m.channels, m.time_steps, m.num_windows) for name, m in dropping.modalities.items()} == {
        "accelerometer": (3, 350, 10),
        "gyroscope": (3, 350, 10),
    }
    assert dropping.modalities["gyroscope"].unit == "rad/s"
    assert dropping.labelled_windows == dict.fromkeys(task["classes"], 2)
    assert {each.device for each in reply.left_out} == {"device-00001"}  # its windows with NaN, in words


def test_a_device_that_cannot_be_read_is_left_out_and_the_others_go_on(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    def broken_or_not(data: Any, device: str):
        if device == "device-00003":
            raise DataError("no window of 7 s; record longer")
        return device_windows(data, device)

    monkeypatch.setattr(profile, "device_windows", broken_or_not)
    task = settings(3, 4)
    reply = profile_host(ProfileTask(data=task["data"]), task["devices"])
    assert [device.device for device in reply.devices] == ["device-00004"]
    assert [(each.device, each.reason) for each in reply.left_out] == [("device-00003", "no window of 7 s; record longer")]


@pytest.mark.parametrize("differences", [False, True])
def test_sums_are_those_of_the_windows_present_as_the_model_sees_them(settings: Settings, differences: bool):
    task = settings(0, 1, 3)
    reply, nothing = sum_channels(SumsTask(data=task["data"], devices=task["devices"], differences=differences), {})
    assert nothing == {}
    for name, owners in (("accelerometer", task["devices"]), ("gyroscope", task["devices"][1:])):
        windows = [device_windows(task["data"], device) for device in owners]
        pooled = np.concatenate([each.streams[name][each.present[name]] for each in windows]).astype(np.float64)
        if differences:
            padded = np.pad(pooled, ((0, 0), (0, 0), (1, 1)), mode="edge")
            pooled = np.concatenate([pooled, (padded[:, :, 2:] - padded[:, :, :-2]) / 2], axis=1)
        np.testing.assert_allclose(reply.sums[name].mean, pooled.mean(axis=(0, 2)), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(reply.sums[name].std, pooled.std(axis=(0, 2)), rtol=1e-5)
