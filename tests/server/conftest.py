"""Whole runs in this process, on recordings of a few seconds."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from clmm_core.report.records import RunRecord
from clmm_core.report.run_folder import read_run
from server import results as results_module
from server.run_config import Value, parse_run_config
from server.stage_one import StageOne
from simulation.in_process import InProcessHosts

BODY = {"still": 0.2, "walk": 2.0, "run": 5.0}
"""Hz."""
RATE_HZ = 50
UNITS = {"accelerometer": "m/s^2", "gyroscope": "rad/s"}
Train = Callable[..., RunRecord]
Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write one subject's sessions: each activity for some seconds, in the format of docs/data.md."""

    def make(
        subject: str,
        *,
        activities: tuple[str, ...] = tuple(BODY),
        labels: tuple[str, ...] | None = None,
        modalities: tuple[str, ...] = tuple(UNITS),
        each_s: float = 2.6,
        sessions: int = 2,
        lost: slice = slice(0),
    ) -> Path:
        random = np.random.default_rng(list(subject.encode()))
        for session in range(sessions):
            folder = tmp_path / "recordings" / subject / f"session-{session}"
            folder.mkdir(parents=True)
            times = np.arange(round(each_s * RATE_HZ)) / RATE_HZ
            moved = np.concatenate([np.sin(2 * np.pi * BODY[name] * (times + random.random())) * BODY[name] for name in activities])
            entries = []
            for modality in modalities:
                samples = moved[:, None] * random.normal(1, 0.2, 3) + random.normal(0, 0.1, (len(moved), 3))
                samples[lost] = np.nan
                np.savetxt(folder / f"{modality}.csv", samples, fmt="%.4f", delimiter=",", header="x,y,z", comments="")
                entry = f"file: {modality}.csv, unit: {UNITS[modality]}, columns: [x, y, z], rate_hz: {RATE_HZ}"
                entries.append(f"  {modality}: {{{entry}}}\n")
            spans = [
                f"  - {{label: {name}, start_s: {i * each_s}, end_s: {(i + 1) * each_s}}}\n"
                for i, name in enumerate(activities)
                if labels is None or name in labels
            ]
            intervals = "intervals:\n" + "".join(spans) if spans else ""
            (folder / "recording.yaml").write_text("streams:\n" + "".join(entries) + intervals)
        return tmp_path / "recordings"

    return make


@pytest.fixture
def train(tmp_path: Path, run_config, monkeypatch: pytest.MonkeyPatch) -> Train:
    """Do a run of one round a stage and read its results back; `recordings` in this test's folder, or a synthetic fleet.

    The report costs more than the rest of a run this small, so it is only drawn where a test wants it.
    """

    def make(
        overrides: dict[str, Value] | None = None,
        *,
        hosts: InProcessHosts | None = None,
        report: bool = False,
        stage_one: StageOne | None = None,
        keeps_checkpoints: bool = False,
    ) -> RunRecord:
        if not report:
            monkeypatch.setattr(results_module, "draw_report", lambda folder: None)
        recordings = tmp_path / "recordings"
        small: dict[str, Value] = {"results-dir": str(tmp_path / "results"), "run-name": "run", "split.num-test": 1}
        if recordings.exists():
            small |= {"data.name": "folder", "data.path": str(recordings), "data.window-s": 0.64, "data.overlap": 0.0}
        values = run_config(small | (overrides or {}), small=True)
        hosts = hosts or InProcessHosts(2)
        config = parse_run_config(values)
        return read_run(
            results_module.train_and_write(hosts, config, values, lambda line: None, stage_one, keeps_checkpoints=keeps_checkpoints)
        )

    return make


@pytest.fixture
def left_behind(tmp_path: Path) -> Callable[[], list[str]]:
    """Say which folders lie among the results."""
    results = tmp_path / "results"
    return lambda: sorted(path.name for path in results.iterdir()) if results.exists() else []
