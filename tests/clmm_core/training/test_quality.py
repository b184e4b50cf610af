from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clmm_core.federated.quality_weights import quality_weights
from clmm_core.training.quality import hopkins


def seed(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def by_hand(points: torch.Tensor, generator: torch.Generator) -> float:
    """Distances to the nearest neighbour, one probe after the other."""
    N, D = points.shape
    probes = torch.randperm(N, generator=generator)[: N // 2].tolist()
    low, high = points.min(dim=0).values, points.max(dim=0).values
    uniform = low + (high - low) * torch.rand(N // 2, D, generator=generator)
    from_data = sum(min((points[p] - points[a]).norm() for a in range(N) if a != p) for p in probes)
    from_uniform = sum(min((u - point).norm() for point in points) for u in uniform)
    return float(from_uniform / (from_uniform + from_data))


@pytest.mark.parametrize("num_points", [4, 5, 40])
def test_statistic_equals_the_loop(num_points: int):
    points = torch.randn(num_points, 3, generator=seed(num_points))
    assert hopkins(points, seed(1)) == pytest.approx(by_hand(points, seed(1)), abs=1e-5)


@pytest.mark.parametrize("dims", [1, 2, 16])
def test_uniform_noise_is_near_one_half(dims: int):
    values = [hopkins(torch.rand(400, dims, generator=seed(number)), seed(100 + number)) for number in range(10)]
    assert sum(values) / 10 == pytest.approx(0.5, abs=0.04)
    assert all(abs(value - 0.5) < 0.12 for value in values)


@pytest.mark.parametrize("dims", [2, 16])
def test_clusters_are_near_1(dims: int):
    for number in range(5):
        centres = torch.rand(3, dims, generator=seed(number))
        points = centres.repeat(60, 1) + 1e-3 * torch.randn(180, dims, generator=seed(50 + number))
        assert hopkins(points, seed(number)) > 0.95


def test_tighter_clusters_have_a_higher_value():
    centres = torch.rand(4, 8, generator=seed(0)).repeat(40, 1)
    noise = torch.randn(160, 8, generator=seed(1))
    values = [hopkins(centres + spread * noise, seed(2)) for spread in (1.0, 0.1, 0.01, 0.001)]
    assert values == sorted(values)


def test_scale_and_position_do_not_count():
    points = torch.rand(50, 4, generator=seed(0))
    assert hopkins(100 * points - 7, seed(1)) == pytest.approx(hopkins(points, seed(1)), abs=1e-4)


def test_it_is_the_same_for_the_same_generator():
    points = torch.rand(50, 4, generator=seed(0))
    assert hopkins(points, seed(1)) == hopkins(points, seed(1))


@pytest.mark.parametrize("points", [torch.rand(3, 5), torch.rand(0, 5), torch.ones(20, 5)])
def test_too_few_points_or_one_point_say_nothing(points: torch.Tensor):
    assert hopkins(points, seed(0)) is None


@pytest.mark.parametrize("num_points", [10, 62, 300])
@pytest.mark.parametrize("rounding", [0.0, 1e-7])
def test_distances_that_are_rounding_only_say_nothing(num_points: int, rounding: float):
    """As the embeddings of a modality filled with zeros: one point, but for the last bit."""
    for number in range(20):
        point = torch.randn(1, 64, generator=seed(number))
        points = point + rounding * torch.rand(num_points, 64, generator=seed(number + 1))
        assert hopkins(points, seed(0)) is None


def test_many_points_are_sampled():
    assert hopkins(torch.rand(2000, 2, generator=seed(0)), seed(1)) == pytest.approx(0.5, abs=0.06)


@given(st.dictionaries(st.text(max_size=3), st.floats(0, 1), min_size=1, max_size=5))
def test_quality_weights_sum_to_1_in_the_order_of_the_values(values: dict[str, float]):
    weights = quality_weights(values)
    assert weights.keys() == values.keys()
    assert sum(weights.values()) == pytest.approx(1)
    assert all(weight > 0 for weight in weights.values())
    best_first = sorted(values, key=lambda name: -values[name])
    assert all(weights[better] >= weights[worse] for better, worse in pairwise(best_first))


def test_quality_weights_by_hand():
    assert quality_weights({"a": 0.8, "b": 0.6, "c": 0.3}) == pytest.approx({"a": 0.3 / 0.42, "b": 0.1 / 0.42, "c": 0.02 / 0.42})
    assert quality_weights({"a": 0.4, "b": 0.1}) == {"a": 0.5, "b": 0.5}
