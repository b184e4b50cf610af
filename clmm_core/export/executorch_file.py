"""A trained model as an ExecuTorch program, for apps that carry that runtime: XNNPACK, float32, one window a call.

Differs from the ONNX file: no batches. What ExecuTorch 1.5 makes of a batch of any size fails at run time where there is a GRU.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clmm_core.errors import ConfigError, ModelFileError
from clmm_core.export.drawn_windows import drawn_windows
from clmm_core.export.network import RecognitionNetwork
from clmm_core.export.quiet_exporters import quietly
from clmm_core.export.trained import TrainedModel
from clmm_core.recognise.metadata import KEY, ModelMetadata, metadata_json, read_metadata
from clmm_core.recognise.onnx_model import Float32, check_windows

SUFFIX = ".pte"
MISSING = "this needs the package 'executorch': pip install 'clmm[executorch]'"
AGAIN = "export the model again with this version: clmm export RUN --to executorch"


def executorch_program(trained: TrainedModel) -> bytes:
    """Return the model as a program with the methods `forward` and `clmm`, which returns its metadata as JSON.

    `forward` takes for each modality in the model's order `[1, C, T]` float32, NaN where absent, and returns logits and probabilities
    `[1, K]`. Takes half a minute: the GRU becomes thousands of operations.

    Raises:
        ConfigError: the extra `executorch` is not installed.
    """
    with quietly():
        try:
            from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner  # noqa: PLC0415
            from executorch.exir import to_edge_transform_and_lower  # noqa: PLC0415
        except ImportError as error:
            raise ConfigError(MISSING) from error
        network = RecognitionNetwork(trained.network, trained.metadata.temperature).eval()
        windows = drawn_windows(trained.network, 1, "trace")
        with torch.no_grad():
            program = torch.export.export(network, tuple(torch.from_numpy(windows[each.name]) for each in trained.metadata.modalities))
        lowered = to_edge_transform_and_lower(
            program, partitioner=[XnnpackPartitioner()], constant_methods={KEY: metadata_json(trained.metadata)}
        )
        return bytes(lowered.to_executorch().buffer)


@dataclass(frozen=True, eq=False)
class ExecutorchModel:
    """What a program says of itself, and its `forward` ready to run."""

    metadata: ModelMetadata
    forward: Any
    """ExecuTorch's method; it has no types."""
    program: Any
    """Whose memory `forward` uses."""

    @classmethod
    def open(cls, path: Path) -> "ExecutorchModel":
        """Read a model file.

        Raises:
            ConfigError: ExecuTorch is not installed.
            ModelFileError: there is none, it is damaged, no export of ours, or takes something else than its metadata say.
        """
        if not path.is_file():
            raise ModelFileError(f"{path}: expected a model file, found none: make one with `clmm export RUN --to executorch`")
        return cls.from_bytes(path.read_bytes(), str(path))

    @classmethod
    def from_bytes(cls, content: bytes, where: str) -> "ExecutorchModel":
        """Read a model file's content; see `open`."""
        with quietly():
            try:
                from executorch.runtime import Runtime  # noqa: PLC0415
            except ImportError as error:
                raise ConfigError(MISSING) from error
            try:
                program = Runtime.get().load_program(content)
            except RuntimeError as error:
                raise ModelFileError(f"{where}: expected an ExecuTorch program, cannot read it ({error}): get the file again") from error
        if program.method_names != {KEY, "forward"}:
            raise ModelFileError(
                f"{where}: expected a model that `clmm export` made, found methods {sorted(program.method_names)}: {AGAIN}"
            )
        metadata = read_metadata(program.load_method(KEY).execute([])[0], where)
        forward = program.load_method("forward")
        said = [(1, each.channels, each.time_steps) for each in metadata.modalities]
        found = [tuple(forward.metadata.input_tensor_meta(each).sizes()) for each in range(forward.metadata.num_inputs())]
        if said != found:
            raise ModelFileError(f"{where}: its metadata speak of inputs {said}, its program has {found}: get the file again, or {AGAIN}")
        return cls(metadata, forward, program)

    def run(self, windows: Mapping[str, Float32]) -> tuple[Float32, Float32]:
        """Return logits and probabilities `[batch, classes]` of raw windows, one after the other; as `OnnxModel.run`."""
        check_windows(self.metadata, windows)
        names = [modality.name for modality in self.metadata.modalities]
        count = len(windows[names[0]])
        answers = [
            [each.numpy().copy() for each in self.forward.execute([torch.from_numpy(windows[name][row : row + 1]) for name in names])]
            for row in range(count)
        ]
        logits, probabilities = (np.concatenate([answer[i] for answer in answers]) for i in (0, 1))
        return logits, probabilities
