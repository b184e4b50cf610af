from statistics import NormalDist

import numpy as np
import pytest

from clmm_core.federated.arrays import Arrays
from clmm_core.federated.robust import AggregationConfig, RuleName, aggregate
from clmm_core.federated.rows import Update
from simulation.bench.attacks import ATTACKS, attacked, inner_product, little_is_enough, mimic, sign_flip

NAME, PARTS = "modalities.accelerometer.w", {"accelerometer": 1.0}
ROWS = np.array([[1.0, 2.0], [3.0, 2.0], [5.0, 8.0]])


def test_flipped_and_manipulated_vectors_are_the_mean_turned_round():
    assert sign_flip(ROWS, 1).tolist() == [-3, -4]
    assert inner_product(ROWS, 1) == pytest.approx([-0.3, -0.4])


@pytest.mark.parametrize(("num_honest", "num_hostile", "share"), [(16, 4, 9 / 16), (38, 12, 24 / 38)])
def test_little_is_enough_stays_within_the_deviations_of_algorithm_3(num_honest: int, num_hostile: int, share: float):
    """The second: n = 50 and m = 12, s = 26 - 12 = 14, and z where the normal distribution reaches (50 - 12 - 14) / (50 - 12)."""
    honest = np.random.default_rng(0).normal(2.0, 3.0, size=(num_honest, 4))
    expected = [column.mean() - NormalDist().inv_cdf(share) * column.std(ddof=1) for column in honest.T]
    assert little_is_enough(honest, num_hostile) == pytest.approx(expected)


def test_mimic_copies_the_one_farthest_along_the_widest_direction():
    honest = np.array([[0.0, 1.0, 0.0], [0.0, -1.0, 0.0], [3.0, 0.0, 0.0], [-9.0, 0.0, 0.1], [4.0, 0.0, 0.0]])
    assert mimic(honest, 2).tolist() == honest[3].tolist()


def error_of(rule: RuleName, mixing: bool, attack: str) -> float:
    """How far the aggregate of 16 honest and 4 hostile devices is from the honest mean, in lengths of that; byzantine-share 0.2."""
    random = np.random.default_rng(1)
    direction = random.normal(size=2000)
    honest: list[Update] = [({NAME: (direction + random.normal(size=2000)).astype(np.float32)}, PARTS) for _ in range(16)]
    sent: Arrays = attacked(honest, ATTACKS[attack], 4)
    mean = np.mean([arrays[NAME] for arrays, _ in honest], axis=0)
    combined = aggregate([*honest, *((sent, PARTS) for _ in range(4))], AggregationConfig(rule=rule, mixing=mixing, byzantine_share=0.2))
    return float(np.linalg.norm(combined[NAME] - mean) / np.linalg.norm(mean))


@pytest.mark.parametrize("rule", ["median", "trimmed-mean", "multi-krum", "geometric-median"])
@pytest.mark.parametrize(("attack", "with_mean"), [("sign-flip", 0.4), ("inner-product", 0.22)])
def test_mixed_robust_rules_keep_to_the_honest_mean_where_the_mean_does_not(rule: RuleName, attack: str, with_mean: float):
    assert error_of("mean", False, attack) == pytest.approx(with_mean, abs=1e-3)
    assert error_of(rule, True, attack) < 0.02


@pytest.mark.parametrize("rule", ["median", "trimmed-mean", "multi-krum", "geometric-median"])
@pytest.mark.parametrize(("attack", "bound"), [("alie", 0.1), ("mimic", 0.25)])
def test_attacks_that_look_honest_move_mixed_rules_a_little(rule: RuleName, attack: str, bound: float):
    """An honest device is 1 away from the mean; a copy of one cannot be told from it, so no rule undoes mimicry."""
    assert 0.01 < error_of(rule, True, attack) < bound
