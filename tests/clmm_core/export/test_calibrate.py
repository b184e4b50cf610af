import numpy as np
import pytest

from clmm_core.errors import DataError
from clmm_core.export.calibrate import calibrated


def overconfident(temperature: float, windows: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose softmax at `temperature` is the truth's distribution."""
    random = np.random.default_rng(0)
    logits = 2 * random.standard_normal((windows, 4))
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    classes = (shares.cumsum(axis=1) < random.random((windows, 1))).sum(axis=1)
    return logits * temperature, np.minimum(classes, 3)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_made_the_logits_is_found(temperature: float):
    assert calibrated(*overconfident(temperature)).temperature == pytest.approx(temperature, rel=0.1)


def test_nine_of_ten_answers_are_right_or_half_of_the_windows_have_one():
    logits, classes = overconfident(1.0)
    found = calibrated(logits, classes)
    shares = np.exp(logits / found.temperature) / np.exp(logits / found.temperature).sum(axis=1, keepdims=True)
    answered = shares.max(axis=1) >= found.threshold
    right = (shares.argmax(axis=1) == classes)[answered].mean()
    assert right >= 0.9 or answered.mean() == pytest.approx(0.5, abs=0.02)


def test_a_model_that_is_always_right_still_says_nothing_below_one_half():
    classes = np.arange(100) % 4
    assert calibrated(np.eye(4)[classes] * 8, classes).threshold == 0.5


def test_a_model_that_knows_nothing_is_told_so():
    random = np.random.default_rng(0)
    found = calibrated(5 * random.standard_normal((500, 4)), random.integers(4, size=500))
    assert found.temperature > 5
    assert found.threshold == 0.5


def test_too_few_windows_are_refused():
    with pytest.raises(DataError, match="at least 50"):
        calibrated(np.zeros((49, 4)), np.zeros(49, np.int64))
