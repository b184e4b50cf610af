"""A trained model as one ONNX file with its metadata."""

from typing import TYPE_CHECKING

import torch

from clmm_core.errors import ConfigError
from clmm_core.export.drawn_windows import drawn_windows
from clmm_core.export.network import RecognitionNetwork
from clmm_core.export.quiet_exporters import quietly
from clmm_core.export.trained import TrainedModel
from clmm_core.recognise.metadata import KEY, LOGITS, PROBABILITIES, ModelMetadata, metadata_json

if TYPE_CHECKING:
    import onnx

OPSET = 20
LARGEST = 2**24
"""Numbers in an array, more than any of ours has."""
EXAMPLES = 2
"""Windows to trace with: with one, PyTorch would take it for granted that there is one."""


def onnx_model(trained: TrainedModel) -> "onnx.ModelProto":
    """Return the model as an ONNX graph for batches of any size, with its metadata.

    Raises:
        ConfigError: the extra `export` is not installed.
    """
    try:
        import onnx  # noqa: PLC0415
        from onnxscript import optimizer  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError("exporting needs the packages 'onnx' and 'onnxscript': pip install 'clmm[export]'") from error
    network = RecognitionNetwork(trained.network, trained.metadata.temperature).eval()
    windows = drawn_windows(trained.network, EXAMPLES, "trace")
    names = [modality.name for modality in trained.metadata.modalities]
    batch = torch.export.Dim("batch")
    with torch.no_grad(), quietly():
        program = torch.onnx.export(
            network,
            tuple(torch.from_numpy(windows[name]) for name in names),
            input_names=names,
            output_names=[LOGITS, PROBABILITIES],
            opset_version=OPSET,
            dynamo=True,
            dynamic_shapes={"windows": tuple({0: batch} for _ in names)},
            verbose=False,
        )
        assert program is not None
        # Again without a limit of size: weights are turned round and joined once, here, and not each time the file is opened.
        optimizer.optimize(program.model, input_size_limit=LARGEST, output_size_limit=LARGEST)
        model = without_traces(program.model_proto)
    onnx.checker.check_model(model)
    return with_metadata(model, trained.metadata)


def with_metadata(model: "onnx.ModelProto", metadata: ModelMetadata) -> "onnx.ModelProto":
    """Return a graph with these metadata, and no others."""
    del model.metadata_props[:]
    model.metadata_props.add(key=KEY, value=metadata_json(metadata))
    return model


def without_traces(model: "onnx.ModelProto") -> "onnx.ModelProto":
    """Return a graph without what the exporter notes at each node for people who debug it: a third of the file."""
    model.producer_name, model.producer_version, model.doc_string = "clmm", "", ""
    model.graph.doc_string = ""
    del model.graph.metadata_props[:]
    del model.graph.value_info[:]
    for each in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer):
        each.doc_string = ""
        del each.metadata_props[:]
    return model
