import os

import numpy as np
import pytest

from clmm_core.errors import ClmmError, ConfigError
from clmm_core.models.config import ModalityShape, ModelChoice, sized
from clmm_core.training.model_arrays import new_arrays
from server.apart import Apart

ABSENT = "a_library_that_is_not_loaded"


def test_it_is_another_process_unless_the_library_is_loaded_here():
    assert Apart(ABSENT, "os:getpid")() != os.getpid()
    assert Apart("numpy", "os:getpid")() == os.getpid()


def test_a_new_model_is_the_same_wherever_it_is_made():
    model = sized(ModelChoice(), (ModalityShape(name="accelerometer", channels=3, time_steps=64),), 3)
    here, there = new_arrays(model, 7), Apart(ABSENT, "clmm_core.training.model_arrays:new_arrays")(model, 7)
    assert here.keys() == there.keys()
    assert all(np.array_equal(values, there[name]) for name, values in here.items())


def test_what_the_function_raises_is_raised_here():
    with pytest.raises(ConfigError, match=r"run name: expected letters.*found '\.\.'"):
        Apart(ABSENT, "clmm_core.report.run_folder:check_name")("..")


def test_what_it_prints_is_not_taken_for_its_result():
    assert Apart(ABSENT, "builtins:print")("a word") is None


def test_a_process_that_dies_is_told_with_its_code():
    with pytest.raises(ClmmError, match=r"os:_exit: expected a result .* code 3: see its log"):
        Apart(ABSENT, "os:_exit")(3)


def test_a_process_that_nobody_calls_ends_by_itself():
    waiting = Apart(ABSENT, "os:getpid")
    process = waiting._process
    assert process is not None
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()  # as when the object is gone
    assert process.wait(60) == 0
    process.stdout.close()
