"""What a host needs while it recognises (H5): a model of the usual size, and a wearer with two sensors."""

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from client.host.models import FOLDER, Models
from client.host.replay import replay_recordings
from client.host.tokens import Role
from clmm_core.data.fleet import DataConfig, open_dataset
from clmm_core.export.golden_vectors import golden_of
from clmm_core.export.onnx_file import onnx_model
from clmm_core.export.trained import TrainedModel
from clmm_core.models.clmm import Clmm
from clmm_core.models.config import ModalityShape, ModelChoice, sized
from clmm_core.recognise.golden import golden_json
from clmm_core.recognise.metadata import FORMAT, FP32, ModalityInput, ModelMetadata
from clmm_core.recognise.onnx_model import OnnxModel
from simulation.bench.host_process import host_process, token_of

RATE_HZ, WINDOW_S, CLASSES = 50.0, 4.0, 7
SENSORS = {"accelerometer": "m/s^2", "gyroscope": "rad/s"}
SUBJECT = "1"
"""Of SPAR, which is real and needs no files."""


@dataclass(frozen=True, kw_only=True)
class Recognising:
    """A daemon that recognises as samples come."""

    resident_bytes: int
    peak_bytes: int
    num_windows: int
    cpu_ms: float
    """Of all threads of the daemon, a window: taking samples in, keeping them, recognising."""


def recognising() -> Recognising:
    """Let a person's recordings arrive as quickly as they can, with a model there, and look at the daemon.

    The model has the `edge` preset and was never trained, which changes nothing of what it takes.
    """
    recordings = open_dataset(DataConfig(name="spar")).recordings(SUBJECT)
    seconds = sum(max(stream.end_s for stream in each.streams.values()) for each in recordings)
    with TemporaryDirectory(prefix="clmm-bench-") as place:
        folder = Path(place) / "host"
        Models(folder / FOLDER).install(*untrained())
        token = token_of(folder, Role.ADMIN)
        with host_process(folder) as host:
            before_s = host.cpu_s()
            asyncio.run(replay_recordings(recordings, host.target, token, None, time.time_ns(), speed=0.0, with_labels=False))
            now, peak = host.memory_bytes()
            cpu_s = host.cpu_s() - before_s
    num_windows = round(seconds / (WINDOW_S / 2))
    return Recognising(resident_bytes=now, peak_bytes=peak, num_windows=num_windows, cpu_ms=cpu_s * 1000 / num_windows)


def untrained() -> tuple[bytes, str]:
    """Return an ONNX file and its golden vectors, of a network that knows nothing."""
    steps = round(RATE_HZ * WINDOW_S)
    shapes = tuple(ModalityShape(name=name, channels=3, time_steps=steps) for name in SENSORS)
    metadata = ModelMetadata(
        format=FORMAT,
        run="untrained",
        server_round=0,
        trained_on="nothing",
        licence="Apache-2.0",
        weights_sha256="0" * 64,
        precision=FP32,
        modalities=tuple(
            ModalityInput(name=name, unit=unit, channels=3, rate_hz=RATE_HZ, time_steps=steps) for name, unit in SENSORS.items()
        ),
        window_s=WINDOW_S,
        classes=tuple(f"activity {number}" for number in range(CLASSES)),
        upright=False,
        same_side=False,
        temperature=1.0,
        threshold=0.5,
        calibrated_on="nobody",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Clmm(sized(ModelChoice(), shapes, CLASSES)).eval()
    trained = TrainedModel(network, metadata, record=None)  # type: ignore[arg-type]  # no part of an export looks at the run
    content = onnx_model(trained).SerializeToString()
    return content, golden_json(golden_of(trained, content, OnnxModel.from_bytes(content, "the untrained model")))
