"""Golden vectors: windows and what a model answers to them, beside its file, so that any machine can check that it answers the same."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from clmm_core.errors import ModelFileError
from clmm_core.recognise.metadata import FORMAT, ModelMetadata, from_plain
from clmm_core.recognise.onnx_model import Float32

SUFFIX = ".golden.json"


class OpenedModel(Protocol):
    """A model file of any format, ready to run."""

    @property
    def metadata(self) -> ModelMetadata:
        """What the file says of itself."""
        ...

    def run(self, windows: Mapping[str, Float32]) -> tuple[Float32, Float32]:
        """Return logits and probabilities `[batch, classes]` of raw windows by modality, NaN where absent."""
        ...


@dataclass(frozen=True, kw_only=True)
class GoldenVector:
    """One window and its answer."""

    inputs: dict[str, tuple[tuple[float, ...], ...]]
    """By modality `[channels, time_steps]` in SI units; a modality that the window lacks is not there: NaN samples for the graph."""
    logits: tuple[float, ...]
    probabilities: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Golden:
    """MODEL.golden.json."""

    format: int
    model_sha256: str
    """Of the whole model file."""
    metadata: ModelMetadata
    tolerance: float
    """By how much a logit may differ on another machine."""
    vectors: tuple[GoldenVector, ...]


def golden_file(model: Path) -> Path:
    """Return where the golden vectors of a model file lie: model.golden.json beside model.onnx."""
    return model.with_suffix(SUFFIX)


def sha256_of(content: bytes) -> str:
    """Return 64 hex digits."""
    return hashlib.sha256(content).hexdigest()


def golden_json(golden: Golden) -> str:
    """Return the file's text."""
    return json.dumps(asdict(golden), ensure_ascii=False, allow_nan=False) + "\n"


def read_golden(path: Path) -> Golden:
    """Return the golden vectors of a file.

    Raises:
        ModelFileError: there is no such file, or it holds something else.
    """
    try:
        golden: Golden = from_plain(Golden, json.loads(path.read_bytes()))
    except FileNotFoundError as error:
        raise ModelFileError(f"{path}: expected golden vectors, found no file: keep it beside the model, or use --golden") from error
    except (TypeError, ValueError, ModelFileError) as error:  # the second covers what is no JSON and no UTF-8
        raise ModelFileError(f"{path}: expected golden vectors of format {FORMAT}, found a mistake: {error}: get the file again") from error
    if golden.format != FORMAT or not golden.vectors:
        raise ModelFileError(f"{path}: expected vectors of format {FORMAT}, found format {golden.format}, {len(golden.vectors)} vectors")
    return golden


def batch_of(golden: Golden) -> dict[str, Float32]:
    """Return all vectors as one batch of windows, by modality `[vectors, channels, time_steps]`, NaN where absent.

    Raises:
        ModelFileError: a vector has another shape than its metadata say.
    """
    batch = {}
    for modality in golden.metadata.modalities:
        windows = np.full((len(golden.vectors), modality.channels, modality.time_steps), np.nan, np.float32)
        for row, vector in enumerate(golden.vectors):
            if modality.name not in vector.inputs:
                continue
            lengths = {len(channel) for channel in vector.inputs[modality.name]}
            if len(vector.inputs[modality.name]) != modality.channels or lengths != {modality.time_steps}:
                expected = f"[{modality.channels}, {modality.time_steps}]"
                raise ModelFileError(f"golden vector {row}, '{modality.name}': expected {expected}, found others: get the file again")
            windows[row] = vector.inputs[modality.name]
        batch[modality.name] = windows
    return batch


def differences(content: bytes, model: OpenedModel, golden: Golden) -> tuple[str, ...]:
    """Return in words what of a model file is not as its golden vectors say, nothing where all is: checksum, metadata, answers.

    Args:
        content: the file's.
        model: opened from that content.
        golden: what to compare with.
    """
    found: list[str] = []
    if (checksum := sha256_of(content)) != golden.model_sha256:
        found.append(f"checksum: expected SHA-256 {golden.model_sha256}, found {checksum}: the file was changed, or is another export's")
    said, expected = asdict(model.metadata), asdict(golden.metadata)
    found += [f"metadata, {name}: expected {expected[name]!r}, found {said[name]!r}" for name in expected if said[name] != expected[name]]
    if model.metadata.modalities != golden.metadata.modalities or model.metadata.classes != golden.metadata.classes:
        return (*found, "answers: not compared, for the model takes or gives something else")
    answers = dict(zip(("logits", "probabilities"), model.run(batch_of(golden)), strict=True))
    for name, answer in answers.items():
        wanted = np.array([getattr(vector, name) for vector in golden.vectors])
        furthest = np.abs(answer - wanted).max(axis=1) if answer.shape == wanted.shape else np.full(len(answer), np.inf)
        # `not (<=)` also where an answer is NaN.
        off = [f"vector {row} by {by:.2g}" for row, by in enumerate(furthest) if not by <= golden.tolerance]
        if off:
            found.append(f"{name}: expected those of the golden vectors to {golden.tolerance:g}, found {', '.join(off)}")
    return tuple(found)
