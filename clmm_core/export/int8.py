"""A smaller model file: weights of 8 bits. For size, not for speed: of a model this small the CPU waits for operations, not for numbers."""

import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clmm_core.export.drawn_windows import drawn_windows
from clmm_core.export.onnx_file import with_metadata
from clmm_core.export.trained import TrainedModel
from clmm_core.recognise.onnx_model import Float32, OnnxModel

if TYPE_CHECKING:
    import onnx

NUM_CALIBRATION, NUM_COMPARED = 128, 512
"""Windows drawn to see how far activations reach, and to compare the ways on."""
SMALLEST = 1024
"""Numbers in an array from which on 8 bits are worth it."""
PRODUCTS = ["Conv", "MatMul", "Gemm"]
LEVELS = 127
ENOUGH = 0.99
"""Agreement on drawn windows from which on size counts; on real ones it is higher: on SPAR 99.7 %, where drawn ones had 99.4 %."""
TOLERANCES = {"int8-weights": 0.02, "int8-static": 0.1, "int8-dynamic": 0.1}
"""By how much a logit may differ on another machine: where activations are rounded, a hair's breadth can be a whole level. With weights
alone onnxruntime still chooses its kernels by machine: a model of HAPT differed by 0.0033 between x86-64 and WebAssembly."""


@dataclass(frozen=True, kw_only=True)
class Smaller:
    """One way to make the file smaller, and what it costs."""

    precision: str
    content: bytes
    agreement: float
    """Share of drawn windows whose largest logit is the same class as in fp32."""
    furthest: float
    """Largest difference of a logit."""


def smaller_models(model: "onnx.ModelProto", trained: TrainedModel) -> list[Smaller]:
    """Return the model in 8 bits, each way: the smallest of those that agree `ENOUGH` with fp32 first, then those that agree most."""
    ways: Mapping[str, Callable[[], onnx.ModelProto]] = {
        "int8-weights": lambda: _weights_only(model),
        "int8-static": lambda: _static(model, drawn_windows(trained.network, NUM_CALIBRATION, "calibrate")),
        "int8-dynamic": lambda: _dynamic(model),
    }
    windows = drawn_windows(trained.network, NUM_COMPARED, "compare")
    expected, _ = OnnxModel.from_bytes(model.SerializeToString(), "fp32").run(windows)
    found = []
    for precision, make in ways.items():
        content = with_metadata(make(), replace(trained.metadata, precision=precision)).SerializeToString()
        logits, _ = OnnxModel.from_bytes(content, precision).run(windows)
        same = float((logits.argmax(axis=1) == expected.argmax(axis=1)).mean())
        found.append(Smaller(precision=precision, content=content, agreement=same, furthest=float(np.abs(logits - expected).max())))
    return sorted(found, key=by_use)


def by_use(way: Smaller) -> tuple[float, int]:
    """Return what ways are sorted by."""
    return -min(way.agreement, ENOUGH), len(way.content)


def _weights_only(model: "onnx.ModelProto") -> "onnx.ModelProto":
    """Return a graph that keeps its large arrays as int8 with a float32 scale a channel, and computes in float32 as before."""
    import onnx  # noqa: PLC0415
    from onnx import helper, numpy_helper  # noqa: PLC0415

    smaller = onnx.ModelProto()
    smaller.CopyFrom(model)
    axes = {name: _output_axis(node) for node in smaller.graph.node for name in node.input}
    kept, nodes = [], []
    for array in smaller.graph.initializer:
        values = numpy_helper.to_array(array)
        if values.dtype != np.float32 or values.size < SMALLEST or values.ndim < 2:
            kept.append(array)
            continue
        axis = axes[array.name] % values.ndim
        largest = np.abs(values).max(axis=tuple(each for each in range(values.ndim) if each != axis), keepdims=True)
        scale = np.where(largest > 0, largest / LEVELS, 1).astype(np.float32)
        whole = np.rint(values / scale).astype(np.int8)
        names = f"{array.name}_int8", f"{array.name}_scale"
        kept += [numpy_helper.from_array(whole, names[0]), numpy_helper.from_array(scale.ravel(), names[1])]
        nodes.append(helper.make_node("DequantizeLinear", names, [array.name], axis=axis))
    every = [*nodes, *smaller.graph.node]
    del smaller.graph.initializer[:], smaller.graph.node[:]
    smaller.graph.initializer.extend(kept)
    smaller.graph.node.extend(every)
    return smaller


def _output_axis(node: "onnx.NodeProto") -> int:
    """Return along which axis of a node's weights its outputs lie."""
    if node.op_type == "Gemm":
        return 0 if any(attribute.name == "transB" and attribute.i for attribute in node.attribute) else 1
    return {"Conv": 0, "GRU": 1, "Transpose": 0}.get(node.op_type, -1)


def _static(model: "onnx.ModelProto", windows: dict[str, Float32]) -> "onnx.ModelProto":
    """Return a graph whose products take 8-bit activations too, in ranges seen on these windows; a scale a channel."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static  # noqa: PLC0415

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
        def __init__(self) -> None:
            self.batches: Iterator[dict[str, Float32]] = iter([windows])

        def get_next(self) -> Any:
            return next(self.batches, None)

    options = {"quant_format": QuantFormat.QDQ, "activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8, "per_channel": True}
    return _quantised(lambda source, target: quantize_static(source, target, Reader(), op_types_to_quantize=PRODUCTS, **options), model)


def _dynamic(model: "onnx.ModelProto") -> "onnx.ModelProto":
    """Return a graph whose matrix products find the range of their activations each time."""
    from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: PLC0415

    options = {"op_types_to_quantize": ["MatMul", "Gemm"], "weight_type": QuantType.QInt8, "per_channel": True}
    return _quantised(lambda source, target: quantize_dynamic(source, target, **options), model)


def _quantised(quantise: Callable[[str, str], None], model: "onnx.ModelProto") -> "onnx.ModelProto":
    import onnx  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder, _without_advice():
        source, target = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, source)
        quantise(str(source), str(target))
        return onnx.load(target)


@contextmanager
def _without_advice() -> Iterator[None]:
    """Keep onnxruntime from advising, on the root logger, to prepare models in ways that change nothing for this one."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
