"""A model as an ExecuTorch program: exported once, half a minute. Only where the extra `executorch` is installed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clmm_core.errors import ModelFileError
from clmm_core.export.executorch_file import ExecutorchModel, executorch_program
from clmm_core.export.golden_vectors import golden_of, golden_windows, torch_answers
from clmm_core.recognise.golden import differences

pytest.importorskip("executorch")
pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def program(exported) -> bytes:
    return executorch_program(exported.trained)


@pytest.fixture(scope="module")
def opened(program: bytes) -> ExecutorchModel:
    return ExecutorchModel.from_bytes(program, "the program")


def test_it_answers_as_pytorch_does_also_where_sensors_are_absent(exported, opened: ExecutorchModel):
    windows = golden_windows(exported.trained)
    for found, expected in zip(opened.run(windows), torch_answers(exported.trained, windows), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def test_it_says_what_it_is(exported, opened: ExecutorchModel):
    assert opened.metadata == exported.trained.metadata


def test_it_is_verified_by_golden_vectors(exported, program: bytes, opened: ExecutorchModel):
    golden = golden_of(exported.trained, program, opened)
    assert differences(program, opened, golden) == ()
    other = replace(golden, metadata=replace(golden.metadata, server_round=9), model_sha256="0" * 64)
    assert [each.split(":")[0] for each in differences(program, opened, other)] == ["checksum", "metadata, server_round"]


def test_windows_of_another_shape_are_refused(exported, opened: ExecutorchModel):
    windows = golden_windows(exported.trained)
    with pytest.raises(ModelFileError, match=r"'gyroscope': expected windows \[batch, 3, 80\]"):
        opened.run(windows | {"gyroscope": windows["gyroscope"][:, :, :79]})


@pytest.mark.parametrize("content", [b"", b"nothing of ExecuTorch's" * 100])
def test_what_is_no_program_is_refused(content: bytes):
    with pytest.raises(ModelFileError, match="cannot read it"):
        ExecutorchModel.from_bytes(content, "a file")


def test_a_file_that_is_not_there_is_said(tmp_path: Path):
    with pytest.raises(ModelFileError, match="found none"):
        ExecutorchModel.open(tmp_path / "model.pte")
