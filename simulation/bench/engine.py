"""How many devices train in a second, one after the other and as a stack, in turn, and how near a stack is to the processor's limits.

Needs PyTorch and NumPy alone, so it runs on any machine with a GPU:

    python -m simulation.bench.engine --device cuda --devices 1024 --batch-sizes 4,32

Where the project's command line is installed it is `clmm bench engine`, with the same options.
"""

import argparse
import json
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Literal, get_args

import torch

from clmm_core.federated.arrays import FUSION
from clmm_core.models.config import ModalityShape, ModelChoice, ModelConfig, sized
from clmm_core.training.alone import train_alone
from clmm_core.training.device_tensors import DeviceTensors
from clmm_core.training.engine import is_worth_a_stack
from clmm_core.training.job import Job
from clmm_core.training.model_arrays import new_arrays
from clmm_core.training.settings import FinetuneConfig, LocalConfig, PretrainConfig
from clmm_core.training.together import forget, train_together
from simulation.bench.limits import copy_rate, counted, matmul_rate, timed

SHAPES = (
    ModalityShape(name="accelerometer", channels=3, time_steps=128),
    ModalityShape(name="gyroscope", channels=3, time_steps=128),
    ModalityShape(name="magnetometer", channels=3, time_steps=64),
)
"""As the synthetic fleet's."""
Stage = Literal["pretrain", "finetune"]
STEPS = 4
"""Of training a device takes."""
ALONE = 4
"""Devices trained one after the other in each turn; their rate is that of any number."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Both ways at one batch size. Rates are of devices a second, medians over the turns."""

    stage: Stage
    batch_size: int
    num_devices: int
    alone_per_s: float
    stacked_per_s: float
    ratio: float
    """Stacked over alone."""
    is_chosen: bool
    """Whether hosts would train these as a stack here."""
    gflop_a_step: float
    """Of one device's step, counted in matrix products."""
    megabytes_a_step: float
    """Read and written by one device's step in a stack, counted for each operation."""
    limit_per_s: float
    """Devices a second if only the slower of matrix products and memory counted, at the rates measured."""
    share_of_limit: float


@dataclass(frozen=True, kw_only=True)
class Engine:
    """What was measured on one machine, and what its processor can do at most."""

    torch: str
    machine: str
    preset: str
    matmul_precision: str
    matmul_flops_per_s: float
    copy_bytes_per_s: float
    results: tuple[Measured, ...]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print a line a batch size, then everything as JSON."""
    _say(json.dumps(asdict(measured_engine(arguments, _say)), indent=1))


def measured_engine(arguments: Sequence[str] | None, say: Callable[[str], None]) -> Engine:
    """Return what the command line asks for, and say a line a batch size as it is measured."""
    chosen = _arguments(arguments)
    with _one_thread_and(chosen.matmul_precision):
        return _measure_all(chosen, say)


@contextmanager
def _one_thread_and(matmul_precision: str) -> Iterator[None]:
    """Compute as hosts do, with products of matrices of this precision."""
    before = torch.get_num_threads(), torch.get_float32_matmul_precision()
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision(matmul_precision)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.set_float32_matmul_precision(before[1])


def _measure_all(chosen: argparse.Namespace, say: Callable[[str], None]) -> Engine:
    device = torch.device(chosen.device)
    limits = {"matmul_flops_per_s": matmul_rate(device), "copy_bytes_per_s": copy_rate(device)}
    model = sized(ModelChoice(preset=chosen.preset), SHAPES, 6)
    results = []
    for stage in get_args(Stage):
        for batch_size in chosen.batch_sizes:
            result = measure(model, stage, batch_size, chosen, limits)
            results.append(result)
            say(
                f"{stage}, batch {batch_size}: alone {result.alone_per_s:.2f}, stacked {result.stacked_per_s:.2f} devices/s, "
                f"ratio {result.ratio:.2f}, {result.share_of_limit:.0%} of the limit"
            )
    return Engine(
        torch=torch.__version__,
        machine=_machine(device),
        preset=chosen.preset,
        matmul_precision=chosen.matmul_precision,
        results=tuple(results),
        **limits,
    )


def measure(model: ModelConfig, stage: Stage, batch_size: int, chosen: argparse.Namespace, limits: dict[str, float]) -> Measured:
    """Return both ways' rates of a round of a stage, each device on `STEPS` full batches."""
    forget()
    device, num_devices = torch.device(chosen.device), chosen.devices
    jobs = jobs_of(model, stage, batch_size, num_devices)
    train_alone(jobs[:1], device)
    train_together(jobs, device)
    times = [
        (timed(lambda: train_alone(jobs[:ALONE], device), device), timed(lambda: train_together(jobs, device), device))
        for _ in range(chosen.turns)
    ]
    alone_per_s = min(ALONE, num_devices) / median(alone_s for alone_s, _ in times)
    stacked_per_s = num_devices / median(stacked_s for _, stacked_s in times)
    flops, moved = asked_of_a_step(model, stage, batch_size)
    limit = 1 / (STEPS * max(flops / limits["matmul_flops_per_s"], moved / limits["copy_bytes_per_s"]))
    return Measured(
        stage=stage,
        batch_size=batch_size,
        num_devices=num_devices,
        alone_per_s=alone_per_s,
        stacked_per_s=stacked_per_s,
        ratio=stacked_per_s / alone_per_s,
        is_chosen=device.type == "cuda" or is_worth_a_stack(jobs),
        gflop_a_step=flops / 1e9,
        megabytes_a_step=moved / 1e6,
        limit_per_s=limit,
        share_of_limit=stacked_per_s / limit,
    )


def jobs_of(model: ModelConfig, stage: Stage, batch_size: int, num_devices: int) -> list[Job]:
    """Return that many devices with windows of noise, which all begin with the same model."""
    random = torch.Generator().manual_seed(0)
    local = LocalConfig(epochs=1, batch_size=batch_size, learning_rate=1e-3)
    config = PretrainConfig(local=local) if stage == "pretrain" else FinetuneConfig(local=local, encoder_rate=0.3)
    arrays, count = new_arrays(model, 0), STEPS * batch_size
    weights = {shape.name: float(count) for shape in model.modalities} | ({} if stage == "pretrain" else {FUSION: float(count)})
    jobs = []
    for number in range(num_devices):
        windows = DeviceTensors(
            {shape.name: torch.randn(count, shape.channels, shape.time_steps, generator=random) for shape in model.modalities},
            {shape.name: torch.ones(count, dtype=torch.bool) for shape in model.modalities},
            torch.randint(model.num_classes, (count,), generator=random),
        )
        job = Job(
            model=model,
            config=config,
            arrays=arrays,
            windows=windows,
            rows=torch.arange(count),
            classes=windows.classes,
            key=number,
            host=0,
            weights=weights,
        )
        jobs.append(job)
    return jobs


def asked_of_a_step(model: ModelConfig, stage: Stage, batch_size: int) -> tuple[float, float]:
    """Return the floating-point operations and the bytes of one device's step, counted in a stack of two on a CPU."""
    cpu = torch.device("cpu")
    two = [replace(job, rows=job.rows[:batch_size], classes=job.classes[:batch_size]) for job in jobs_of(model, stage, batch_size, 2)]
    train_together(two, cpu)
    flops, moved, _ = counted(lambda: train_together(two, cpu))
    return flops / 2, moved / 2


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--devices", type=int, default=16, help="devices in a round")
    parser.add_argument("--batch-sizes", type=lambda text: [int(each) for each in text.split(",")], default=[4, 8, 32])
    parser.add_argument("--preset", default="edge", choices=["edge", "paper"])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--matmul-precision", default="high", choices=["highest", "high"], help="high: TF32 on a GPU")
    return parser.parse_args(arguments)


def _machine(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.system()} {platform.machine()}, one thread"


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    main()
