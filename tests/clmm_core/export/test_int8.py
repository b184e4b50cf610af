import numpy as np
import onnx
import pytest

from clmm_core.export.golden_vectors import golden_of, golden_windows
from clmm_core.export.int8 import TOLERANCES, Smaller, by_use, smaller_models
from clmm_core.recognise.onnx_model import OnnxModel


@pytest.fixture(scope="module")
def ways(exported):
    return smaller_models(onnx.load_from_string(exported.content), exported.trained)


def test_every_way_is_tried(ways):
    assert {way.precision for way in ways} == set(TOLERANCES)
    assert max(way.agreement for way in ways) >= 0.98


def way(agreement: float, size: int) -> Smaller:
    return Smaller(precision="int8-weights", content=b"0" * size, agreement=agreement, furthest=0.1)


def test_of_those_that_agree_enough_the_smallest_is_first_then_those_that_agree_most():
    large, small, worse, worst = way(1.0, 30), way(0.992, 20), way(0.98, 5), way(0.9, 1)
    assert sorted([worst, worse, large, small], key=by_use) == [small, large, worse, worst]


def test_int8_files_say_what_they_are_and_know_what_a_window_lacks(ways, exported):
    for way in ways:
        model = OnnxModel.from_bytes(way.content, way.precision)
        assert model.metadata.precision == way.precision
        logits, _ = model.run(golden_windows(exported.trained))
        assert np.isfinite(logits).all()
        assert (logits[-1] == 0).all()


def test_golden_vectors_of_int8_are_its_own_answers(ways, exported):
    best = ways[0]
    golden = golden_of(exported.trained, best.content, OnnxModel.from_bytes(best.content, ""), TOLERANCES[best.precision])
    logits, _ = OnnxModel.from_bytes(best.content, "it").run(golden_windows(exported.trained))
    np.testing.assert_allclose([vector.logits for vector in golden.vectors], logits, atol=1e-5)
