"""How many devices fit in a stack, with a GPU that only says how much memory it has."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from clmm_core.models.config import ModelConfig
from clmm_core.training import stack_size
from clmm_core.training.device_tensors import DeviceTensors
from clmm_core.training.job import Job, StageConfig
from clmm_core.training.settings import FinetuneConfig, LocalConfig, PretrainConfig
from clmm_core.training.stack_size import COPIES, LANES, MOST, MOST_ON_CPU, bytes_a_device, bytes_kept, devices_at_once

LOCAL = LocalConfig(epochs=1, batch_size=8, learning_rate=0.01)
BOTH: dict[str, StageConfig] = {"pretrain": PretrainConfig(local=LOCAL), "finetune": FinetuneConfig(local=LOCAL, encoder_rate=1.0)}
MODALITIES = ("accelerometer", "gyroscope")
MakeConfig = Callable[..., ModelConfig]


@pytest.mark.parametrize("stage", BOTH)
def test_a_device_takes_more_with_a_larger_batch_and_always_its_parameters(config: MakeConfig, stage: str):
    model, few = config(2), BOTH[stage]
    many = replace(few, local=replace(LOCAL, batch_size=32))
    small, large = (bytes_a_device(model, each, MODALITIES) for each in (few, many))
    assert 2.5 < large / small < 4.5
    with torch.random.fork_rng(devices=[]):
        numbers = sum(p.numel() for p in stack_size.stackable(model)[0].parameters())
    assert small > 4 * COPIES * numbers


def test_a_copy_or_a_modality_more_takes_more(config: MakeConfig):
    one, two = (bytes_a_device(config(2), replace(BOTH["pretrain"], num_copies=copies), MODALITIES) for copies in (1, 2))
    assert 1.5 < two / one < 2.2
    assert bytes_a_device(config(2), BOTH["pretrain"], MODALITIES[:1]) < 0.7 * two


@pytest.mark.parametrize(("devices_of_memory", "expected"), [(0.4, 1), (7, 1), (50, 3), (10_000, MOST)])
def test_what_trains_at_once_and_what_is_kept_leave_half_of_what_a_gpu_has_free(
    config: MakeConfig,
    toy_windows: Callable[..., DeviceTensors],
    monkeypatch: pytest.MonkeyPatch,
    devices_of_memory: float,
    expected: int,
):
    model, windows = config(2), toy_windows(3, 2)
    needed = bytes_a_device(model, BOTH["finetune"], tuple(windows.streams))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (round(devices_of_memory * needed), 0))
    stack_size._free_bytes.cache_clear()
    rows = torch.arange(3)
    job = Job(model=model, config=BOTH["finetune"], arrays={}, windows=windows, rows=rows, classes=rows, key=0, host=0, weights={})
    assert devices_at_once(job, torch.device("cuda")) == expected
    if 1 < expected < MOST:
        assert LANES["cuda"] * expected * needed + bytes_kept(torch.device("cuda")) < 0.55 * devices_of_memory * needed
    assert devices_at_once(job, torch.device("cpu")) == MOST_ON_CPU
    counted = bytes_a_device.cache_info().misses
    slower = replace(job.config, local=replace(LOCAL, learning_rate=0.005))
    assert devices_at_once(replace(job, config=slower), torch.device("cuda")) == expected
    assert bytes_a_device.cache_info().misses <= counted, "not again for another learning rate"
    stack_size._free_bytes.cache_clear()
