import math

import numpy as np
import pytest

from clmm_core.errors import ConfigError
from clmm_core.federated.arrays import Arrays
from clmm_core.federated.server_optimizer import ServerOptimizer, ServerOptimizerConfig

UPDATES = (0.5, -0.25, 1.0)


def arrays(value: float, other: float = 7.0) -> Arrays:
    return {"a": np.float32([value]), "b": np.float32([other])}


def after_three_rounds(**settings: object) -> list[float]:
    optimizer, current, path = ServerOptimizer(ServerOptimizerConfig(**settings)), arrays(1.0), []
    for update in UPDATES:
        current = optimizer.apply(current, {"a": np.float32([update])})
        path.append(current["a"].item())
    assert current["b"] == np.float32([7])
    assert current["a"].dtype == np.float32
    return path


def test_fedavg_at_rate_1_takes_the_mean():
    assert after_three_rounds() == [1.5, 1.25, 2.25]
    assert after_three_rounds(name="fedavg", learning_rate=0.5) == [1.25, 1.125, 1.625]


def test_fedavgm_by_hand():
    """m: 0.5, 0.9 * 0.5 - 0.25 = 0.2, 0.9 * 0.2 + 1 = 1.18; steps at rate 0.5."""
    expected = [1 + 0.25, 1 + 0.25 + 0.1, 1 + 0.25 + 0.1 + 0.59]
    assert after_three_rounds(name="fedavgm", learning_rate=0.5, momentum=0.9) == pytest.approx(expected, rel=1e-6)


def test_fedadam_by_hand():
    """Reddi et al. 2021, algorithm 2, without bias correction and from moments of 0."""
    x, m, v, path = 1.0, 0.0, 0.0, []
    for update in UPDATES:
        m = 0.9 * m + 0.1 * update
        v = 0.99 * v + 0.01 * update**2
        x += 0.01 * m / (math.sqrt(v) + 1e-3)
        path.append(x)
    assert after_three_rounds(name="fedadam", learning_rate=0.01) == pytest.approx(path, rel=1e-5)


@pytest.mark.parametrize("name", ["fedavgm", "fedadam"])
def test_what_has_no_update_keeps_its_value_and_its_moments(name: str):
    """Rounds in which nobody owns `b` do not count for it: as if they had not been."""
    config = ServerOptimizerConfig(name=name, learning_rate=0.1)
    with_gaps, without = ServerOptimizer(config), ServerOptimizer(config)
    one, other = arrays(1.0), arrays(1.0)
    for update in UPDATES:
        one = with_gaps.apply(one, {"a": np.float32([update]), "b": np.float32([update])})
        before = one["b"]
        one = with_gaps.apply(one, {"a": np.float32([update])})
        assert np.array_equal(one["b"], before)
        other = without.apply(other, {"b": np.float32([update])})
    assert np.array_equal(one["b"], other["b"])


@pytest.mark.parametrize("name", ["fedavg", "fedavgm", "fedadam"])
def test_the_arrays_given_are_left_as_they_are(name: str):
    optimizer, current, update = ServerOptimizer(ServerOptimizerConfig(name=name)), arrays(1.0), {"a": np.float32([0.5])}
    first = optimizer.apply(current, update)
    optimizer.apply(first, update)
    assert (current, update) == (arrays(1.0), {"a": np.float32([0.5])})
    assert first["a"] is not current["a"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rate": 0.0}, "server.lr: expected above 0, found 0.0"),
        ({"learning_rate": math.nan}, "server.lr: expected above 0, found nan"),
        ({"momentum": 1.0}, r"server.momentum: expected a number in \[0, 1\), found 1.0"),
        ({"momentum": -0.1}, "server.momentum"),
    ],
)
def test_a_value_out_of_range_is_refused(settings: dict[str, float], message: str):
    with pytest.raises(ConfigError, match=message):
        ServerOptimizerConfig(**settings)
