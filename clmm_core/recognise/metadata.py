"""What an exported model says of itself: one JSON text in the file, under `KEY` of its `metadata_props`.

Written by `clmm_core.export`, read back by the same class: on a host, a phone or in a browser nothing else needs to come with the model.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, get_args, get_origin, get_type_hints

from clmm_core.errors import ModelFileError

KEY, FP32 = "clmm", "fp32"
FORMAT = 1
"""Of the metadata, the graph's inputs and outputs, and the golden vectors together."""
LOGITS, PROBABILITIES = "logits", "probabilities"
"""The graph's outputs, `[batch, classes]` float32 each."""
AGAIN = "export the model again with this version: clmm export RUN --to onnx"


@dataclass(frozen=True, kw_only=True)
class ModalityInput:
    """One input of the graph: `[batch, channels, time_steps]` float32 in `unit`; a window that lacks the modality is NaN."""

    name: str
    """`a+b` is made of the channels of the streams a and b, in this order."""
    unit: str
    """SI; of `a+b` both units, with a plus."""
    channels: int
    rate_hz: float
    """Of the samples in a window; 0 where a window is a whole trial, whatever its length."""
    time_steps: int


@dataclass(frozen=True, kw_only=True)
class ModelMetadata:
    """What somebody needs to know to feed the graph and to read its answer.

    Raises:
        ModelFileError: values that cannot be.
    """

    format: int
    run: str
    """Name of the run that trained it."""
    server_round: int
    """The last round it has learnt in."""
    trained_on: str
    licence: str
    weights_sha256: str
    """Of the run's model.safetensors, from which fp32 and int8 files are made alike."""
    precision: str
    """`fp32`, or how its weights were made smaller."""
    modalities: tuple[ModalityInput, ...]
    """In the order of the graph's inputs."""
    window_s: float
    """0 where a window is a whole trial."""
    classes: tuple[str, ...]
    """In the order of the graph's outputs."""
    upright: bool
    """Whether accelerometer and gyroscope are turned by `clmm_core.data.upright` before they go in."""
    same_side: bool
    """Whether those worn on the other side are mirrored after that, by `clmm_core.data.same_side`."""
    temperature: float
    """By which the graph divides logits before their softmax, so that a probability says how often such an answer is right."""
    threshold: float
    """The least probability of an answer; below it the answer is "not sure"."""
    calibrated_on: str
    """Whose windows temperature and threshold were chosen on, in words; if on nobody's, why."""

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise ModelFileError(f"model: expected format {FORMAT}, found {self.format}: {AGAIN}")
        names = [modality.name for modality in self.modalities]
        if not names or len(set(names)) < len(names):
            raise ModelFileError(f"model: expected modalities of different names, found {names}: {AGAIN}")
        for modality in self.modalities:
            sizes = (modality.channels, modality.time_steps)
            if min(sizes) < 1 or not 0 <= modality.rate_hz < math.inf or (modality.rate_hz == 0) != (self.window_s == 0):
                raise ModelFileError(f"model, modality '{modality.name}': found sizes or a rate that cannot be, {modality}: {AGAIN}")
        if len(self.classes) < 2 or len(set(self.classes)) < len(self.classes):
            raise ModelFileError(f"model: expected at least two classes of different names, found {self.classes}: {AGAIN}")
        if not (0 <= self.window_s < math.inf and 0 < self.temperature < math.inf and 0 <= self.threshold <= 1):
            found = f"{self.window_s} s, temperature {self.temperature}, threshold {self.threshold}"
            raise ModelFileError(f"model: expected a window length, a temperature above 0, a threshold in [0, 1], found {found}: {AGAIN}")


def metadata_json(metadata: ModelMetadata) -> str:
    """Return the JSON text that goes into the file."""
    return json.dumps(asdict(metadata), ensure_ascii=False, allow_nan=False)


def read_metadata(text: str, where: str) -> ModelMetadata:
    """Return the metadata that this JSON holds; "3" is no number, 1.5 no count, and a field too many or too few is a mistake.

    Args:
        text: JSON.
        where: the file it is from, for messages.

    Raises:
        ModelFileError: it is not JSON, or not of this kind.
    """
    try:
        metadata: ModelMetadata = from_plain(ModelMetadata, json.loads(text))
    except json.JSONDecodeError as error:
        raise ModelFileError(f"{where}: expected metadata as JSON, cannot read it ({error}): {AGAIN}") from error
    except (TypeError, ValueError) as error:
        raise ModelFileError(f"{where}: expected a model's metadata, found a mistake: {error}: {AGAIN}") from error
    except ModelFileError as error:
        raise ModelFileError(f"{where}: {error}") from error
    return metadata


def from_plain(kind: Any, value: Any, name: str = "") -> Any:
    """Return the dataclass, tuple, mapping or scalar `kind` that plain JSON values hold.

    Raises:
        ValueError: it is of another kind; names the field.
    """
    if hasattr(kind, "__dataclass_fields__"):
        return _dataclass_from(kind, value, name)
    if get_origin(kind) is tuple:
        if not isinstance(value, list):
            raise ValueError(f"'{name}': expected a list, found {_short(value)}")
        return tuple(from_plain(get_args(kind)[0], each, f"{name}[{i}]") for i, each in enumerate(value))
    if get_origin(kind) is dict:
        if not isinstance(value, dict):
            raise ValueError(f"'{name}': expected an object, found {_short(value)}")
        return {key: from_plain(get_args(kind)[1], each, f"{name}.{key}") for key, each in value.items()}
    is_whole_float = kind is float and type(value) is int
    if not (type(value) is kind or is_whole_float):  # a bool is an int to isinstance
        raise ValueError(f"'{name}': expected {kind.__name__}, found {_short(value)}")
    return float(value) if is_whole_float else value


def _dataclass_from(kind: Any, value: Any, name: str) -> Any:
    known = {field.name for field in fields(kind)}
    if not isinstance(value, Mapping) or value.keys() != known:
        found = ", ".join(sorted(value.keys() ^ known)) if isinstance(value, Mapping) else _short(value)
        raise ValueError(f"'{name or kind.__name__}': fields too many or too few: {found}")
    types = get_type_hints(kind)
    return kind(**{each: from_plain(types[each], value[each], f"{name}.{each}".lstrip(".")) for each in known})


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
