"""The benchmark of the engine, small, as a user calls it."""

import json
import subprocess
import sys

import pytest
import torch

from clmm_core.models.config import ModelChoice, sized
from clmm_core.training.together import train_together
from simulation.bench import limits
from simulation.bench.engine import SHAPES, STEPS, asked_of_a_step, jobs_of, main


def test_it_measures_both_stages_and_says_so_in_json(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(limits.MATRIX, "cpu", 64)
    monkeypatch.setitem(limits.COPIED, "cpu", 2**16)
    main(["--devices", "4", "--batch-sizes", "2", "--turns", "1"])
    out = capsys.readouterr().out
    said = json.loads(out[out.index("{") :])
    assert [(each["stage"], each["batch_size"], each["num_devices"]) for each in said["results"]] == [
        ("pretrain", 2, 4),
        ("finetune", 2, 4),
    ]
    for each in said["results"]:
        assert each["ratio"] == pytest.approx(each["stacked_per_s"] / each["alone_per_s"])
        assert each["is_chosen"]
        assert each["share_of_limit"] == pytest.approx(each["stacked_per_s"] / each["limit_per_s"])
    assert said["torch"] == torch.__version__
    assert torch.get_float32_matmul_precision() == "highest", "as before"


def test_every_device_trains_on_full_batches():
    jobs = jobs_of(sized(ModelChoice(), SHAPES, 6), "pretrain", 3, 2)
    losses, _ = train_together(jobs, torch.device("cpu"))
    assert all(isinstance(loss, float) for loss in losses)
    assert {len(job.rows) for job in jobs} == {3 * STEPS}


def test_twice_the_batch_asks_for_twice_the_operations_but_not_twice_the_bytes_of_the_optimiser():
    model = sized(ModelChoice(), SHAPES, 6)
    (flops, moved), (flops_of_twice, moved_of_twice) = (asked_of_a_step(model, "pretrain", size) for size in (2, 4))
    assert 1.8 < flops_of_twice / flops < 2.2
    assert 1.1 < moved_of_twice / moved < 1.9


def test_it_needs_neither_flower_nor_ray():
    program = (
        "import sys, simulation.bench.engine; print({'flwr', 'ray', 'pydantic', 'scipy', 'yaml'} & {m.split('.')[0] for m in sys.modules})"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip() == "set()"
