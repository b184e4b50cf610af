"""An exported model, opened with onnxruntime on one core."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from clmm_core.errors import ModelFileError
from clmm_core.recognise.metadata import AGAIN, KEY, LOGITS, PROBABILITIES, ModelMetadata, read_metadata

Float32 = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class OnnxModel:
    """What a model file says of itself, and its graph ready to run."""

    metadata: ModelMetadata
    session: Any
    """onnxruntime's; it has no types."""

    @classmethod
    def open(cls, path: Path) -> "OnnxModel":
        """Read a model file.

        Raises:
            ModelFileError: there is none, it is damaged, no export of ours, or its graph is not what its metadata say.
        """
        if not path.is_file():
            raise ModelFileError(f"{path}: expected a model file, found none: make one with `clmm export RUN --to onnx`")
        return cls.from_bytes(path.read_bytes(), str(path))

    @classmethod
    def from_bytes(cls, content: bytes, where: str) -> "OnnxModel":
        """Read a model file's content; see `open`."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # models this small are slower on several
        options.log_severity_level = 3  # errors
        try:
            session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has a dozen classes for damaged files and derives them from Exception alone
            reason = str(error).splitlines()[0]
            raise ModelFileError(f"{where}: expected an ONNX model, cannot read it ({reason}): get the file again") from error
        text = session.get_modelmeta().custom_metadata_map.get(KEY)
        if text is None:
            raise ModelFileError(f"{where}: expected a model that `clmm export` made, found one without '{KEY}' metadata: {AGAIN}")
        metadata = read_metadata(text, where)
        _check_graph(metadata, session, where)
        return cls(metadata, session)

    def run(self, windows: Mapping[str, Float32]) -> tuple[Float32, Float32]:
        """Return logits and probabilities `[batch, classes]` of raw windows.

        Args:
            windows: by modality `[batch, channels, time_steps]` in the modality's unit; NaN where a window lacks it.

        Raises:
            ModelFileError: a modality is not there, or has another shape.
        """
        check_windows(self.metadata, windows)
        feeds = {modality.name: np.asarray(windows[modality.name], np.float32) for modality in self.metadata.modalities}
        logits, probabilities = self.session.run([LOGITS, PROBABILITIES], feeds)
        return logits, probabilities


def check_windows(metadata: ModelMetadata, windows: Mapping[str, Float32]) -> None:
    """Refuse windows by modality that are not `[batch, channels, time_steps]` as a model wants them.

    Raises:
        ModelFileError: a modality is not there, or has another shape.
    """
    for modality in metadata.modalities:
        expected, found = (modality.channels, modality.time_steps), windows[modality.name].shape if modality.name in windows else None
        if found is None or found[1:] != expected:
            raise ModelFileError(
                f"modality '{modality.name}': expected windows [batch, {expected[0]}, {expected[1]}], found {found}: a window that "
                "lacks a modality has NaN there"
            )


def _check_graph(metadata: ModelMetadata, session: Any, where: str) -> None:
    """Refuse a graph that takes or gives something else than its metadata say."""
    said = {modality.name: [modality.channels, modality.time_steps] for modality in metadata.modalities}
    found = {each.name: list(each.shape[1:]) for each in session.get_inputs()}
    if list(said) != list(found) or said != found:
        raise ModelFileError(f"{where}: its metadata speak of inputs {said}, its graph has {found}: get the file again, or {AGAIN}")
    outputs = {each.name: list(each.shape[1:]) for each in session.get_outputs()}
    expected = {name: [len(metadata.classes)] for name in (LOGITS, PROBABILITIES)}
    if outputs != expected:
        raise ModelFileError(f"{where}: its metadata speak of outputs {expected}, its graph has {outputs}: get the file again, or {AGAIN}")
