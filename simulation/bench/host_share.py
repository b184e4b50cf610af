"""Where a host's share of a round goes: measured in as many processes at once as a simulation has workers, each a host."""

import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context

import torch

from clmm_core.data.fleet import device_names
from clmm_core.federated.arrays import Arrays
from clmm_core.training.cohort import train_cohort
from clmm_core.training.lessons import whole_windows
from clmm_core.training.model_arrays import new_arrays
from clmm_core.training.tasks import PretrainTask
from simulation.bench.fleet import Setting, task_of


@dataclass(frozen=True, kw_only=True)
class HostShare:
    """Milliseconds of a worker's processor a device, mean over the processes."""

    batch_size: int
    num_devices: int
    """In each process."""
    windows_ms: float
    """Making a device's recordings and cutting them into windows."""
    training_ms: float
    """Training the cohort and folding its updates, with the windows there."""


def host_share(setting: Setting, num_devices: int) -> HostShare:
    """Return what a host's share takes with this many devices a process."""
    with ProcessPoolExecutor(setting.workers, mp_context=get_context("spawn")) as pool:
        both = list(pool.map(_timed_share, [setting] * setting.workers, range(setting.workers), [num_devices] * setting.workers))
    windows_ms, training_ms = (1000 * sum(each) / len(each) / num_devices for each in zip(*both, strict=True))
    return HostShare(batch_size=setting.batch_size, num_devices=num_devices, windows_ms=windows_ms, training_ms=training_ms)


def _timed_share(setting: Setting, place: int, num_devices: int) -> tuple[float, float]:
    """Return the processor's seconds for the windows of a process's own devices, and for their training the second time."""
    torch.set_num_threads(1)
    device = torch.device(setting.device)
    whole = task_of(replace(setting, num_devices=num_devices * (place + 1)))
    task = replace(whole, server_round=1, devices=device_names(whole.data)[num_devices * place :])
    arrays = new_arrays(task.model, task.seed)
    return _processor_s(lambda: [whole_windows(task, arrays, (each,)) for each in task.devices]), _second_time_s(task, arrays, device)


def _second_time_s(task: PretrainTask, arrays: Arrays, device: torch.device) -> float:
    train_cohort(task, arrays, device)
    return _processor_s(lambda: train_cohort(task, arrays, device))


def _processor_s(work: Callable[[], object]) -> float:
    since_s = time.process_time()
    work()
    return time.process_time() - since_s
