"""The golden vectors of a trained model: drawn windows, and what PyTorch answers to them."""

import numpy as np
import torch

from clmm_core.errors import ModelFileError
from clmm_core.export.drawn_windows import DECIMALS, drawn_windows
from clmm_core.export.trained import TrainedModel
from clmm_core.recognise.golden import Golden, GoldenVector, OpenedModel, sha256_of
from clmm_core.recognise.metadata import FORMAT, FP32
from clmm_core.recognise.onnx_model import Float32

TOLERANCE = 1e-4
"""By how much a logit may differ from PyTorch's, and on another machine."""
NUM_VECTORS = 6
"""Golden ones: the last has no modality at all, the one before lacks the model's first."""


def golden_of(trained: TrainedModel, content: bytes, model: OpenedModel, tolerance: float = TOLERANCE) -> Golden:
    """Return the golden vectors of a model file: what PyTorch answers, or of a smaller precision what the file itself answers here.

    Args:
        trained: the model in PyTorch.
        content: the file's.
        model: opened from that content.
        tolerance: by how much a logit may differ on another machine.

    Raises:
        ModelFileError: an fp32 file does not answer as PyTorch does.
    """
    windows = golden_windows(trained)
    answers = model.run(windows)
    if model.metadata.precision == FP32:
        reference = torch_answers(trained, windows)
        furthest = max(float(np.abs(theirs - ours).max()) for theirs, ours in zip(reference, answers, strict=True))
        if not furthest <= tolerance:
            raise ModelFileError(
                f"the exported model: expected PyTorch's answers to {tolerance:g}, found a difference of {furthest:.2g}: report this, with "
                "model.json and the versions of torch and of what exported and ran it"
            )
        answers = reference
    return Golden(
        format=FORMAT,
        model_sha256=sha256_of(content),
        metadata=model.metadata,
        tolerance=tolerance,
        vectors=tuple(_vector(windows, row, *(each[row] for each in answers)) for row in range(NUM_VECTORS)),
    )


def golden_windows(trained: TrainedModel) -> dict[str, Float32]:
    """Return `NUM_VECTORS` windows by modality `[vectors, channels, time_steps]`, NaN where absent."""
    windows = drawn_windows(trained.network, NUM_VECTORS, "golden")
    first = trained.metadata.modalities[0].name
    windows[first][-2] = np.nan
    for values in windows.values():
        values[-1] = np.nan
    return windows


def torch_answers(trained: TrainedModel, windows: dict[str, Float32]) -> tuple[Float32, Float32]:
    """Return PyTorch's logits and probabilities `[batch, classes]` of raw windows, NaN where absent."""
    streams = {name: torch.from_numpy(values) for name, values in windows.items()}
    present = {name: values.isfinite().all(dim=2).all(dim=1) for name, values in streams.items()}
    some = torch.stack(list(present.values())).any(dim=0)
    with torch.no_grad():
        logits = torch.zeros(len(some), len(trained.metadata.classes))
        given = {name: values[some] for name, values in streams.items()}
        logits[some] = trained.network(given, {name: mask[some] for name, mask in present.items()})
        probabilities = (logits / trained.metadata.temperature).softmax(dim=1)
    return logits.numpy(), probabilities.numpy()


def _vector(windows: dict[str, Float32], row: int, logits: Float32, probabilities: Float32) -> GoldenVector:
    inputs = {
        name: tuple(tuple(round(value, DECIMALS) for value in channel) for channel in values[row].tolist())
        for name, values in windows.items()
        if np.isfinite(values[row]).all()
    }
    return GoldenVector(
        inputs=inputs,
        logits=tuple(round(value, 6) for value in logits.tolist()),
        probabilities=tuple(round(value, 6) for value in probabilities.tolist()),
    )
