"""The way devices are trained changes nothing but the time it takes."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from clmm_core.errors import DeviceSkippedError
from clmm_core.federated.weighted_sum import WeightedSum
from clmm_core.models.config import ModelConfig
from clmm_core.models.cost import flops_a_window
from clmm_core.training import engine
from clmm_core.training.alone import train_alone, train_one
from clmm_core.training.device_tensors import DeviceTensors
from clmm_core.training.engine import FEWEST_STACKED, is_worth_a_stack, train_jobs
from clmm_core.training.job import Job
from clmm_core.training.model_arrays import new_arrays
from clmm_core.training.settings import FinetuneConfig, LocalConfig, PretrainConfig
from clmm_core.training.stack_size import FLOPS_ON_CPU

CPU = torch.device("cpu")
LOCAL = LocalConfig(epochs=1, batch_size=6, learning_rate=0.01, optimizer="sgd")
PRETRAIN = PretrainConfig(local=LOCAL, num_views=2, temperature=0.2)
MakeJob = Callable[..., Job]


@pytest.fixture
def job(config: Callable[..., ModelConfig], toy_windows: Callable[..., DeviceTensors]) -> MakeJob:
    model = config(2, dropout=0.2)
    arrays = new_arrays(model, 0)

    def make(number: int, num_windows: int = 9, **changes: Any) -> Job:
        windows = toy_windows(num_windows, 2, seed=number)
        plain = {"config": PRETRAIN, "host": number % 2, "weights": {"accelerometer": 2.0 + number, "gyroscope": 1.0}}
        rows = torch.arange(num_windows)
        return Job(model=model, arrays=arrays, windows=windows, rows=rows, classes=windows.classes, key=number, **plain | changes)

    return make


def test_jobs_of_both_ways_are_answered_in_order_and_folded_by_host(job: MakeJob, monkeypatch: pytest.MonkeyPatch):
    """Those of stage one as a stack, those of stage two apart; one has too few windows."""
    monkeypatch.setattr(engine, "is_worth_a_stack", lambda alike: isinstance(alike[0].config, PretrainConfig))
    finetune = FinetuneConfig(local=LOCAL, encoder_rate=0.5)
    jobs = [job(0), job(1, config=finetune), job(2, 1), job(3, config=finetune), job(4), job(5)]
    losses, means = train_jobs(jobs, CPU)
    alone = [train_one(each) for each in jobs]
    assert isinstance(losses[2], DeviceSkippedError)
    for loss, (_, expected) in zip(losses, alone, strict=True):
        assert isinstance(loss, DeviceSkippedError) or loss == pytest.approx(expected, rel=1e-4)
    for host in (0, 1):
        folded, expected_fold = WeightedSum(), WeightedSum()
        for mean, weights, _ in means[host]:
            folded.add(mean, weights)
        for each, (update, _) in zip(jobs, alone, strict=True):
            if each.host == host and update:
                expected_fold.add(update, each.weights)
        assert folded.weights == pytest.approx(expected_fold.weights)
        expected_mean = expected_fold.mean()
        for name, values in folded.mean().items():
            np.testing.assert_allclose(values, expected_mean[name], rtol=0, atol=1e-5, err_msg=name)


def test_one_by_one_hosts_are_folded_apart_and_who_diverges_counts_for_nothing(job: MakeJob):
    wild = job(1, config=replace(PRETRAIN, local=replace(LOCAL, learning_rate=1e30, epochs=3)))
    losses, means = train_alone([job(0), wild, job(2)])
    assert losses[1] != losses[1], "NaN"
    assert set(means) == {0}
    ((_, weights, _),) = means[0]
    assert weights == {"accelerometer": 2.0 + 4.0, "gyroscope": 2.0}


def test_a_stack_is_for_some_devices_that_fit_in_one(job: MakeJob):
    some = [job(number) for number in range(FEWEST_STACKED)]
    assert is_worth_a_stack(some)
    assert not is_worth_a_stack(some[:-1])
    a_window = PRETRAIN.num_copies * flops_a_window(some[0].model)
    largest = int(FLOPS_ON_CPU / FEWEST_STACKED / a_window)
    for batch_size, fits in ((largest, True), (largest + 1, False)):
        config = replace(PRETRAIN, local=replace(LOCAL, batch_size=batch_size))
        assert is_worth_a_stack([replace(each, config=config) for each in some]) == fits
