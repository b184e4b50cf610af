"""Both ways are asked the same."""

from pathlib import Path

import numpy as np
import pytest
import torch

from clmm_core.data.fleet import device_names
from clmm_core.report.records import RunInfo
from clmm_core.report.run_folder import RunFolder
from clmm_core.training.alone import train_one
from clmm_core.training.cohort import train_cohort
from server.federation import begin, pretraining
from server.run_config import parse_run_config
from simulation.bench.fleet import MAX_STOCK_WORKERS, Setting, ours, task_of
from simulation.bench.stock.client_app import _job
from simulation.bench.stock.server_app import first_arrays
from simulation.flwr_run import num_cpus
from simulation.in_process import InProcessHosts


def setting(way: str = "ours", **changes) -> Setting:
    return Setting(**{"way": way, "num_devices": 5, "batch_size": 8, "rounds": 1, "device": "cpu", **changes})


def test_the_stock_way_is_asked_what_our_server_asks(run_config, tmp_path: Path):
    config = parse_run_config(run_config(ours(setting())))
    info = RunInfo(name="x", run_config={}, versions={}, machine="", started_at="")
    run = begin(InProcessHosts(1), config, info, RunFolder.create(tmp_path, "x"), lambda _: None)
    asked, stock = pretraining(run).task_for((), config.pretrain.local.learning_rate), task_of(setting("stock"))
    assert len(run.split.training) == 5
    for name in ("model", "config", "classes", "seed"):
        assert getattr(stock, name) == getattr(asked, name), name
    assert device_names(stock.data) == device_names(asked.data)[:5], "the fleet but for the one that ours keeps to test"


def test_a_stock_client_trains_its_device_as_ours_trains_one():
    task = task_of(setting("stock"))
    arrays, device = first_arrays(task), device_names(task.data)[3]
    update, _ = train_one(_job(task, arrays, device))
    reply, mean = train_cohort(type(task)(**{**vars(task), "devices": (device,)}), arrays, torch.device("cpu"))
    assert [row.num_windows for row in reply.devices] == [32]
    for name, values in mean.items():
        np.testing.assert_allclose(update[name], values, atol=1e-6)


def test_the_stock_model_begins_normalised():
    arrays = first_arrays(task_of(setting("stock")))
    assert arrays["modalities.accelerometer.std"].min() > 0
    assert not np.allclose(arrays["modalities.accelerometer.mean"], 0)


def test_hosts_are_a_few_for_each_worker_or_one_a_device():
    many = {"num_devices": 1000}
    assert setting(**many).hosts == 2 * num_cpus()
    assert setting("stock", **many).hosts == 1000
    assert setting(**many).workers == setting("stock", **many).workers == num_cpus()
    assert setting(num_devices=1).hosts == 1


@pytest.mark.parametrize(("way", "workers"), [("ours", 1), ("stock", min(num_cpus(), MAX_STOCK_WORKERS))])
def test_on_a_gpu_workers_share_it(way: str, workers: int):
    arguments = setting(way, num_devices=100, device="cuda").arguments()
    assert arguments[arguments.index("--workers-per-gpu") + 1] == str(workers)
    assert "--workers-per-gpu" not in setting(way).arguments()
