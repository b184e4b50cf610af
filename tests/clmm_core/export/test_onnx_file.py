import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from clmm_core.errors import ModelFileError
from clmm_core.export.drawn_windows import drawn_windows
from clmm_core.export.golden_vectors import TOLERANCE, golden_of, golden_windows, torch_answers
from clmm_core.export.onnx_file import with_metadata
from clmm_core.recognise.golden import Golden, differences, golden_file, golden_json, read_golden, sha256_of
from clmm_core.recognise.metadata import KEY, metadata_json
from clmm_core.recognise.onnx_model import OnnxModel

WITHOUT_TORCH = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "flwr", "pandas", "pydantic", "onnx", "ray", "scipy"):
            raise ImportError(f"blocked: {name}")
sys.meta_path.insert(0, Refuse())
import numpy as np
from clmm_core.recognise.recogniser import Recogniser
recogniser = Recogniser.load(sys.argv[1])
times = np.arange(150) * 20_000_000
answers = recogniser.add("accelerometer", times, np.full((150, 3), 5.7, np.float32))
print(answers[0].left_out, sorted(sys.modules.keys() & {"torch", "flwr", "pandas", "pydantic"}))
"""


def raw_windows(exported, batch: int, *, is_missing: bool) -> dict[str, np.ndarray]:
    windows = drawn_windows(exported.trained.network, batch, f"test {batch}")
    if is_missing:
        random = np.random.default_rng(batch)
        for values in windows.values():
            values[random.random(batch) < 0.4] = np.nan
            values[random.random(batch) < 0.1, 0, 3] = np.inf  # one sample is enough
    return windows


@pytest.mark.parametrize("batch", [1, 2, 17])
@pytest.mark.parametrize("is_missing", [False, True])
def test_the_graph_answers_as_pytorch_does(variant, batch: int, is_missing: bool):
    windows = raw_windows(variant, batch, is_missing=is_missing)
    ours = OnnxModel.from_bytes(variant.content, "it").run(windows)
    for answer, expected in zip(ours, torch_answers(variant.trained, windows), strict=True):
        np.testing.assert_allclose(answer, expected, rtol=0, atol=TOLERANCE)


def test_a_window_with_nothing_is_every_class_alike(variant):
    nothing = {name: np.full_like(values[:2], np.nan) for name, values in golden_windows(variant.trained).items()}
    logits, probabilities = OnnxModel.from_bytes(variant.content, "it").run(nothing)
    assert (logits == 0).all()
    np.testing.assert_allclose(probabilities, 1 / 4)


def test_what_a_window_lacks_does_not_change_another_window(exported):
    windows = raw_windows(exported, 3, is_missing=False)
    model = OnnxModel.from_bytes(exported.content, "it")
    alone, _ = model.run({name: values[:1] for name, values in windows.items()})
    windows["gyroscope"][1:] = np.nan
    np.testing.assert_allclose(model.run(windows)[0][:1], alone, atol=1e-5)


def test_the_file_holds_what_recognition_needs_and_no_more(variant):
    model = onnx.load_from_string(variant.content)
    parameters = dict(variant.trained.network.named_parameters())
    without = {name for name in parameters if name.startswith("auxiliary.") or ".head." in name}
    needed = sum(values.numel() for name, values in parameters.items() if name not in without)
    held = sum(numpy_helper.to_array(each).size for each in model.graph.initializer)
    assert held < needed + 2000, "normalisation, pooling and shapes beside the parameters"
    assert not any(each.metadata_props or each.doc_string for each in model.graph.node)
    assert [each.version for each in model.opset_import if each.domain == ""] == [20]


def test_the_metadata_come_back_as_they_were(exported):
    assert OnnxModel.from_bytes(exported.content, "it").metadata == exported.trained.metadata


@pytest.fixture
def written(exported, tmp_path: Path) -> Path:
    file = tmp_path / "model.onnx"
    file.write_bytes(exported.content)
    golden_file(file).write_text(golden_json(golden_of(exported.trained, exported.content, OnnxModel.from_bytes(exported.content, ""))))
    return file


def differences_of(written: Path, golden: Golden) -> tuple[str, ...]:
    return differences(written.read_bytes(), OnnxModel.open(written), golden)


def test_a_file_as_it_was_exported_is_verified(written: Path):
    golden = read_golden(golden_file(written))
    assert differences_of(written, golden) == ()
    lacking = [{golden.metadata.modalities[i].name for i in range(2)} - vector.inputs.keys() for vector in golden.vectors]
    assert lacking == [set(), set(), set(), set(), {"accelerometer"}, {"accelerometer", "gyroscope"}]


def with_flipped_weight(content: bytes) -> bytes:
    model = onnx.load_from_string(content)
    weights = next(each for each in model.graph.initializer if each.name.endswith("primary.2.weight"))
    values = numpy_helper.to_array(weights).copy()
    values.flat[np.abs(values).argmax()] *= -1
    weights.CopyFrom(numpy_helper.from_array(values, weights.name))
    return model.SerializeToString()


def test_a_flipped_weight_is_found_by_the_checksum_and_without_it_by_the_golden_vectors(written: Path, exported):
    golden = read_golden(golden_file(written))
    written.write_bytes(with_flipped_weight(exported.content))
    found = differences_of(written, golden)
    assert "checksum" in found[0]
    unsigned = replace(golden, model_sha256=sha256_of(written.read_bytes()))
    assert [difference.split(":")[0] for difference in differences_of(written, unsigned)] == ["logits", "probabilities"]


def test_other_metadata_are_named(written: Path, exported):
    model = with_metadata(onnx.load_from_string(exported.content), replace(exported.trained.metadata, server_round=4))
    golden = read_golden(golden_file(written))
    written.write_bytes(model.SerializeToString())
    found = differences_of(written, golden)
    assert any("metadata, server_round: expected 3, found 4" in each for each in found)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "expected format 1, found 2"),
        ({"classes": ["walk", "run"]}, "speak of outputs"),
        ({"classes": ["walk", "walk", "sit", "lie"]}, "different names"),
        ({"window_s": "2"}, "'window_s': expected float, found '2'"),
        ({"threshold": 2}, "threshold"),
        ({"upright": 0}, "'upright': expected bool, found 0"),
        ({"modalities": []}, "modalities"),
        ({"more": 1}, "too many or too few: more"),
    ],
)
def test_metadata_that_do_not_fit_are_refused(exported, change: dict, message: str):
    model = onnx.load_from_string(exported.content)
    del model.metadata_props[:]
    model.metadata_props.add(key=KEY, value=json.dumps(json.loads(metadata_json(exported.trained.metadata)) | change))
    with pytest.raises(ModelFileError, match=message):
        OnnxModel.from_bytes(model.SerializeToString(), "it")


def test_axes_of_another_size_and_other_files_are_refused(exported, tmp_path: Path):
    modalities = exported.trained.metadata.modalities
    swapped = replace(exported.trained.metadata, modalities=modalities[::-1])
    with pytest.raises(ModelFileError, match="speak of inputs"):
        OnnxModel.from_bytes(with_metadata(onnx.load_from_string(exported.content), swapped).SerializeToString(), "it")
    (tmp_path / "text.onnx").write_text("no model")
    for file, message in ((tmp_path / "none.onnx", "found none"), (tmp_path / "text.onnx", "expected an ONNX model")):
        with pytest.raises(ModelFileError, match=message):
            OnnxModel.open(file)
    with pytest.raises(ModelFileError, match="'gyroscope': expected windows"):
        OnnxModel.from_bytes(exported.content, "it").run({"accelerometer": np.zeros((1, 3, 100), np.float32)})


def test_golden_vectors_that_are_none_are_refused(written: Path):
    with pytest.raises(ModelFileError, match="found no file"):
        read_golden(written.with_name("other.golden.json"))
    for text in ("{", "[]", golden_file(written).read_text().replace('"tolerance"', '"tolerances"')):
        golden_file(written).write_text(text)
        with pytest.raises(ModelFileError, match="expected golden vectors"):
            read_golden(golden_file(written))


def test_the_recogniser_runs_where_there_is_no_torch(written: Path):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-c", WITHOUT_TORCH, str(written)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "{'gyroscope': 'no samples'} []"
