"""The model of a finished run, read from its results folder: what is exported."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from clmm_core.errors import ClmmError, ConfigError, ModelFileError
from clmm_core.federated.arrays import Arrays
from clmm_core.models.clmm import Clmm
from clmm_core.models.config import ModalityShape, ModelConfig
from clmm_core.recognise.golden import sha256_of
from clmm_core.recognise.metadata import FORMAT, FP32, ModalityInput, ModelMetadata
from clmm_core.report.records import ModelCard, RunRecord
from clmm_core.report.run_folder import WEIGHTS, read_run
from clmm_core.training.model_arrays import load_arrays

UNCALIBRATED = 0.5
"""Threshold where nobody chose one: more likely right than wrong, if the model's own probabilities are to be believed."""


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A run's model in PyTorch, and what is known of it."""

    network: Clmm
    metadata: ModelMetadata
    """As an fp32 file would have them, not calibrated yet."""
    record: RunRecord


def read_trained(folder: Path) -> TrainedModel:
    """Return the model of a results folder.

    Raises:
        ClmmError: the folder is no finished run's, or its model is damaged, not there or cannot be exported.
    """
    record = read_run(folder)
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise ModelFileError(f"{weights}: expected the run's model, found none: runs of `clmm study --device` keep none; use `clmm run`")
    content = weights.read_bytes()
    try:
        arrays: Arrays = load(content)
    except SafetensorError as error:
        raise ModelFileError(f"{weights}: expected a model's arrays, cannot read them ({error}): copy the folder whole") from error
    if record.info.run_config.get("data.zero-fill"):
        raise ConfigError(f"{folder}: expected a model that leaves absent sensors out, found one of data.zero-fill=true: train without it")
    network = _network(model_config(record.card, str(folder)), arrays, weights)
    return TrainedModel(network, _metadata(record, sha256_of(content)), record)


def model_config(card: ModelCard, where: str) -> ModelConfig:
    """Return the sizes of the network that a card describes.

    Raises:
        ModelFileError: the card lacks one, or they do not fit together.
    """
    sizes: dict[str, Any] = {field.name: card.architecture.get(field.name) for field in fields(ModelConfig) if field.name != "modalities"}
    absent = [name for name, size in sizes.items() if size is None]
    if absent:
        raise ModelFileError(f"{where}: expected model.json with architecture.{', '.join(absent)}, found none: train again")
    shapes = tuple(
        ModalityShape(name=name, channels=int(shape["channels"]), time_steps=int(shape["time_steps"]))
        for name, shape in card.modalities.items()
    )
    try:
        first, second = (int(width) for width in str(sizes["conv_channels"]).split("-"))
        return ModelConfig(modalities=shapes, **{**sizes, "conv_channels": (first, second)})
    except (ValueError, TypeError, ClmmError) as error:
        raise ModelFileError(f"{where}: model.json: expected sizes of a network, found others: {error}") from error


def _network(config: ModelConfig, arrays: Arrays, weights: Path) -> Clmm:
    expected = {name: tuple(values.shape) for name, values in Clmm(config).state_dict().items()}
    found = {name: values.shape for name, values in arrays.items()}
    wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    wrong += sorted(name for name, values in arrays.items() if not np.isfinite(values).all())
    if wrong:
        raise ModelFileError(
            f"{weights}: expected finite arrays as model.json describes them, found {len(wrong)} that are not, '{wrong[0]}' first: take "
            "both files from one run"
        )
    return load_arrays(config, arrays).eval()


def _metadata(record: RunRecord, weights_sha256: str) -> ModelMetadata:
    card = record.card
    return ModelMetadata(
        format=FORMAT,
        run=record.info.name,
        server_round=max((each.server_round or 0 for each in record.rounds), default=0),
        trained_on=card.trained_on,
        licence=card.licence,
        weights_sha256=weights_sha256,
        precision=FP32,
        modalities=tuple(_modality(name, shape) for name, shape in card.modalities.items()),
        window_s=card.window_s,
        classes=card.classes,
        upright=card.upright,
        same_side=card.same_side,
        temperature=1.0,
        threshold=UNCALIBRATED,
        calibrated_on="nobody",
    )


def _modality(name: str, shape: Mapping[str, int | float | str]) -> ModalityInput:
    return ModalityInput(
        name=name,
        unit=str(shape["unit"]),
        channels=int(shape["channels"]),
        rate_hz=float(shape["rate_hz"]),
        time_steps=int(shape["time_steps"]),
    )
