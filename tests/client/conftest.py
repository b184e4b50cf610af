"""A model small enough to be written by hand, which hosts recognise with in these tests."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from clmm_core.recognise.golden import Golden, GoldenVector, golden_json, sha256_of
from clmm_core.recognise.metadata import FORMAT, KEY, LOGITS, PROBABILITIES, ModalityInput, ModelMetadata, metadata_json
from clmm_core.recognise.onnx_model import OnnxModel

STEPS = 50
METADATA = ModelMetadata(
    format=FORMAT,
    run="by hand",
    server_round=1,
    trained_on="nothing",
    licence="Apache-2.0",
    weights_sha256="0" * 64,
    precision="fp32",
    modalities=(ModalityInput(name="accelerometer", unit="m/s^2", channels=3, rate_hz=50.0, time_steps=STEPS),),
    window_s=1.0,
    classes=("up", "down"),
    upright=False,
    same_side=False,
    temperature=1.0,
    threshold=0.6,
    calibrated_on="nobody",
)
SignModel = Callable[[float], tuple[bytes, str]]


@pytest.fixture(scope="session")
def sign_model() -> SignModel:
    """Make a model and its golden vectors: `up` where the mean acceleration times `sign` is positive, else `down`."""

    def make(sign: float = 1.0) -> tuple[bytes, str]:
        both = helper.make_tensor("both", TensorProto.FLOAT, [1, 2], [sign, -sign])
        nodes = [
            helper.make_node("ReduceMean", ["accelerometer", "axes"], ["mean"], keepdims=0),
            helper.make_node("Unsqueeze", ["mean", "last"], ["column"]),
            helper.make_node("MatMul", ["column", "both"], [LOGITS]),
            helper.make_node("Softmax", [LOGITS], [PROBABILITIES], axis=1),
        ]
        axes = [helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2]), helper.make_tensor("last", TensorProto.INT64, [1], [1])]
        given = helper.make_tensor_value_info("accelerometer", TensorProto.FLOAT, ["batch", 3, STEPS])
        answers = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2]) for name in (LOGITS, PROBABILITIES)]
        graph = helper.make_graph(nodes, "sign", [given], answers, [both, *axes])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        model.metadata_props.add(key=KEY, value=metadata_json(METADATA))
        onnx.checker.check_model(model)
        content = model.SerializeToString()
        window = np.full((1, 3, STEPS), 2.0, np.float32)
        logits, probabilities = OnnxModel.from_bytes(content, "by hand").run({"accelerometer": window})
        vector = GoldenVector(
            inputs={"accelerometer": tuple(map(tuple, window[0].tolist()))},
            logits=tuple(logits[0].tolist()),
            probabilities=tuple(probabilities[0].tolist()),
        )
        golden = Golden(format=FORMAT, model_sha256=sha256_of(content), metadata=METADATA, tolerance=1e-4, vectors=(vector,))
        return content, golden_json(golden)

    return make
