"""Robust rules against slow, obvious ones, other libraries' and the laws that make them robust."""

import importlib
import importlib.util
import math
import re
import statistics
import sys
from types import ModuleType

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, RecordDict
from flwr.serverapp.strategy.multikrum import select_multikrum
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from clmm_core.errors import ConfigError
from clmm_core.federated.arrays import FUSION, Arrays
from clmm_core.federated.robust import AggregationConfig, RobustRule, RuleName, aggregate, robust_mean
from clmm_core.federated.rows import Update
from clmm_core.federated.weighted_sum import WeightedSum

RULES: tuple[RobustRule, ...] = ("median", "trimmed-mean", "multi-krum", "geometric-median")
ACCELEROMETER, GYROSCOPE = "modalities.accelerometer.w", "modalities.gyroscope.w"
rules, mixings = st.sampled_from(RULES), st.booleans()


@st.composite
def fleets(draw: st.DrawFn) -> tuple[np.ndarray, int]:
    """Rows of a fleet large enough for f faulty devices by every rule, and f; no two distances alike."""
    faulty = draw(st.integers(0, 3))
    num_devices = 2 * faulty + 3 + draw(st.integers(0, 4))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return random.normal(size=(num_devices, draw(st.integers(2, 9)))).astype(np.float32), faulty


def squared_distance(one: list[float], other: list[float]) -> float:
    return math.fsum((a - b) ** 2 for a, b in zip(one, other, strict=True))


def mean_of(rows: list[list[float]]) -> list[float]:
    return [math.fsum(column) / len(rows) for column in zip(*rows, strict=True)]


def slowly_mixed(rows: list[list[float]], faulty: int) -> list[list[float]]:
    """Each row's nearest by sorting all by their distance, a row after the other."""
    return [mean_of(sorted(rows, key=lambda other, row=row: squared_distance(row, other))[: len(rows) - faulty]) for row in rows]


def krum_scores(rows: list[list[float]], faulty: int) -> list[float]:
    def score(place: int) -> float:
        others = [squared_distance(rows[place], other) for i, other in enumerate(rows) if i != place]
        return math.fsum(sorted(others)[: len(rows) - faulty - 2])

    return [score(place) for place in range(len(rows))]


def slow_krum(rows: list[list[float]], faulty: int) -> list[float]:
    scores = krum_scores(rows, faulty)
    best = sorted(range(len(rows)), key=lambda place: scores[place])[: len(rows) - faulty]
    return mean_of([rows[place] for place in best])


def slow_geometric_median(rows: list[list[float]], num_steps: int = 20_000) -> list[float]:
    """Weiszfeld's own steps from the mean, on the rows themselves."""
    exact = np.array(rows)
    at = exact.mean(axis=0)
    for _ in range(num_steps):
        inverse = 1 / np.maximum(np.linalg.norm(exact - at, axis=1), 1e-9)
        at = inverse @ exact / inverse.sum()
    return at.tolist()


def slow(rows: list[list[float]], rule: RobustRule, faulty: int, mixing: bool) -> list[float]:
    if mixing:
        rows = slowly_mixed(rows, faulty)
    if rule == "multi-krum":
        return slow_krum(rows, faulty)
    if rule == "geometric-median":
        return slow_geometric_median(rows)
    columns = [sorted(column) for column in zip(*rows, strict=True)]
    if rule == "median":
        return [statistics.median(column) for column in columns]
    return [statistics.fmean(column[faulty : len(rows) - faulty]) for column in columns]


@pytest.mark.parametrize("mixing", [False, True])
@pytest.mark.parametrize("rule", ["median", "trimmed-mean", "multi-krum"])
@given(fleet=fleets())
def test_equals_the_slow_rule(rule: RobustRule, mixing: bool, fleet: tuple[np.ndarray, int]):
    rows, faulty = fleet
    exact = rows.astype(float).tolist()
    if rule == "multi-krum" and mixing and faulty:  # nobody says who is chosen where scores tie, as those of like neighbours do
        scores = sorted(krum_scores(slowly_mixed(exact, faulty), faulty))
        assume(scores[-faulty] > scores[-faulty - 1] * (1 + 1e-9))
    fast = robust_mean(rows, rule, faulty, mixing=mixing)
    assert fast.dtype == np.float32
    np.testing.assert_allclose(fast, slow(exact, rule, faulty, mixing), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("mixing", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_the_geometric_median_equals_the_slow_one(mixing: bool, seed: int):
    rows = np.random.default_rng(seed).normal(size=(9, 4)).astype(np.float32)
    expected = slow(rows.astype(float).tolist(), "geometric-median", 2, mixing)
    np.testing.assert_allclose(robust_mean(rows, "geometric-median", 2, mixing=mixing), expected, atol=2e-5)


@given(fleets())
def test_no_point_has_less_distance_to_all_than_the_geometric_median(fleet: tuple[np.ndarray, int]):
    rows = fleet[0].astype(np.float64)

    def total(point: np.ndarray) -> float:
        return float(np.linalg.norm(rows - point, axis=1).sum())

    points = [*rows, rows.mean(axis=0), np.median(rows, axis=0), np.array(slow_geometric_median(rows.tolist(), 100))]
    assert total(robust_mean(fleet[0], "geometric-median", 0, mixing=False)) <= min(map(total, points)) * (1 + 1e-6)


def test_by_hand():
    rows = np.float32([[0, 0], [1, 0], [0, 1], [1, 1], [100, 100]])
    assert robust_mean(rows, "median", 1, mixing=False).tolist() == [1, 1]
    assert robust_mean(rows, "trimmed-mean", 1, mixing=False) == pytest.approx([2 / 3, 2 / 3])
    assert robust_mean(rows, "multi-krum", 1, mixing=False).tolist() == [0.5, 0.5]
    triangle = np.float32([[0, 0], [2, 0], [1, 3**0.5]])
    assert robust_mean(triangle, "geometric-median", 1, mixing=False) == pytest.approx([1, 3**-0.5], abs=1e-5)
    line = np.float32([[0], [1], [3], [100]])
    mixed = sorted([4 / 3, 4 / 3, 4 / 3, 104 / 3])
    assert robust_mean(line, "trimmed-mean", 1, mixing=True) == pytest.approx(sum(mixed[1:3]) / 2)


def test_a_row_where_the_geometric_median_begins_does_not_hold_it_back():
    """The second row is the coordinate-wise median; there the unit vectors towards the others add up to more than 1."""
    rows = np.float32([[-1, 0, 0], [0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, -1]])
    expected = slow_geometric_median(rows.tolist())
    assert expected[1] > 0.05
    assert robust_mean(rows, "geometric-median", 1, mixing=False) == pytest.approx(expected, abs=1e-5)


@given(fleets(), rules, mixings)
def test_without_faulty_devices_it_is_the_mean(fleet: tuple[np.ndarray, int], rule: RobustRule, mixing: bool):
    if rule in ("trimmed-mean", "multi-krum") or mixing:
        mean = fleet[0].mean(axis=0, dtype=np.float64)
        np.testing.assert_allclose(robust_mean(fleet[0], rule, 0, mixing=mixing), mean, rtol=1e-6, atol=1e-7)


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=5), st.integers(5, 9), rules, mixings)
def test_equal_updates_give_that_update(update: list[float], num_devices: int, rule: RobustRule, mixing: bool):
    rows = np.tile(np.float32(update), (num_devices, 1))
    assert robust_mean(rows, rule, 1, mixing=mixing).tolist() == rows[0].tolist()


@given(fleets(), rules, mixings, st.lists(st.floats(-100, 100, width=32), min_size=9, max_size=9))
def test_moving_all_updates_moves_the_result(fleet: tuple[np.ndarray, int], rule: RobustRule, mixing: bool, shift: list[float]):
    rows, faulty = fleet
    moved = rows + np.float32(shift[: rows.shape[1]])
    expected = robust_mean(rows, rule, faulty, mixing=mixing) + np.float32(shift[: rows.shape[1]])
    np.testing.assert_allclose(robust_mean(moved, rule, faulty, mixing=mixing), expected, atol=1e-4)


@given(fleets(), rules, mixings, st.sampled_from([-1.0, 2.0**-40, 8.0]))
def test_scaling_all_updates_scales_the_result(fleet: tuple[np.ndarray, int], rule: RobustRule, mixing: bool, factor: float):
    rows, faulty = fleet
    expected = robust_mean(rows, rule, faulty, mixing=mixing) * np.float32(factor)
    scaled = robust_mean(rows * np.float32(factor), rule, faulty, mixing=mixing)
    np.testing.assert_allclose(scaled, expected, rtol=1e-5, atol=1e-6 * abs(factor))


@given(fleets(), rules, mixings, st.sampled_from([1e2, 1e6, 1e12, 1e30, 3e38]), st.sampled_from(["alike", "apart", "one"]))
def test_outliers_do_not_move_it_beyond_the_others(fleet: tuple[np.ndarray, int], rule: RobustRule, mixing: bool, size: float, where: str):
    """f rows however far: each value stays between the smallest and the largest of the others.

    The geometric median may leave their box, but stays within 2 (n - f) / (n - 2 f) of their radius: Chen et al. 2017, arXiv 1705.05491,
    lemma 2.1.
    """
    rows, faulty = fleet
    rows = rows.copy()
    honest = rows[faulty:].copy()
    outliers = rows[:faulty] if where != "one" else rows[: min(faulty, 1)]
    outliers[:] = size if where != "apart" else np.clip(outliers, -1, 1) * size
    if where == "one":
        honest = rows[min(faulty, 1) :]
    result = robust_mean(rows, rule, faulty, mixing=mixing).astype(np.float64)
    if rule == "geometric-median":
        radius = np.linalg.norm(honest - honest.mean(axis=0), axis=1).max()
        bound = 2 * (len(rows) - faulty) / (len(rows) - 2 * faulty) * radius
        assert np.linalg.norm(result - honest.mean(axis=0)) <= bound + 1e-5
    else:
        assert (result >= honest.min(axis=0) - 1e-6).all()
        assert (result <= honest.max(axis=0) + 1e-6).all()


@pytest.mark.parametrize("size", [1e6, 1e15, 3e38])
def test_far_outliers_leave_the_distances_among_the_others_as_they_are(size: float):
    """Their neighbours are those that the others have without them, though their squares differ by more than 16 digits."""
    random = np.random.default_rng(3)
    honest = (1 + 1e-3 * random.normal(size=(8, 50))).astype(np.float32)
    outliers = np.full((2, 50), size, np.float32)
    with_them = robust_mean(np.concatenate([honest, outliers]), "multi-krum", 3, mixing=False)
    expected = slow_krum([*honest.astype(float).tolist(), *outliers.astype(float).tolist()], 3)
    np.testing.assert_allclose(with_them, expected, rtol=1e-7)


@pytest.mark.parametrize("num_devices", [5, 8, 12])
def test_multi_krum_chooses_whom_flower_chooses(num_devices: int):
    faulty = (num_devices - 3) // 2
    rows = np.random.default_rng(num_devices).normal(size=(num_devices, 20))
    contents = [RecordDict({"arrays": ArrayRecord({"w": Array(row)})}) for row in rows]
    chosen = [content["arrays"]["w"].numpy() for content in select_multikrum(contents, faulty, num_devices - faulty)]
    ours = robust_mean(rows.astype(np.float32), "multi-krum", faulty, mixing=False)
    np.testing.assert_allclose(ours, np.mean(chosen, axis=0), rtol=1e-5, atol=1e-6)


@pytest.fixture
def byzfl(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Allouah et al.'s library, without what it imports for data sets and plots; `pip install --no-deps byzfl==0.0.11` for it."""
    if importlib.util.find_spec("byzfl") is None:
        pytest.skip("byzfl is not installed: it asks for torchvision")
    for name in ("torchvision", "byzfl.fed_framework", "byzfl.benchmark"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    library = importlib.import_module("byzfl")
    yield library
    for name in [name for name in sys.modules if name.split(".")[0] == "byzfl"]:
        del sys.modules[name]


@pytest.mark.parametrize("mixing", [False, True])
@pytest.mark.parametrize("rule", RULES)
def test_equals_byzfl(byzfl: ModuleType, rule: RobustRule, mixing: bool):
    """Multi-Krum where its scores, over one neighbour more, choose the same: two far devices are left out."""
    rows = np.random.default_rng(0).normal(size=(11, 30)).astype(np.float32)
    rows[:2] += 50
    theirs = {
        "median": byzfl.Median(),
        "trimmed-mean": byzfl.TrMean(2),
        "multi-krum": byzfl.MultiKrum(2),
        "geometric-median": byzfl.GeometricMedian(nu=1e-7, T=3000),
    }[rule]
    vectors = rows.astype(np.float64)
    expected = theirs(byzfl.NNM(2)(vectors) if mixing else vectors)
    np.testing.assert_allclose(robust_mean(rows, rule, 2, mixing=mixing), expected, rtol=1e-5, atol=1e-5)


def fleet_of(rows: np.ndarray, name: str = ACCELEROMETER, part: str = "accelerometer") -> list[Update]:
    return [({name: row}, {part: 1.0 + place}) for place, row in enumerate(rows.astype(np.float32))]


@settings(deadline=None)  # a geometric median that is almost a row takes all its steps
@given(
    st.lists(st.tuples(st.integers(-2, 2), st.integers(-2, 2)), min_size=5, max_size=9),
    rules,
    mixings,
    st.randoms(use_true_random=False),
)
def test_the_order_of_devices_changes_no_bit_even_where_distances_tie(rows: list[tuple[int, int]], rule: RobustRule, mixing: bool, random):
    updates = fleet_of(np.array(rows))
    config = AggregationConfig(rule=rule, mixing=mixing, byzantine_share=0.1)
    one, other = aggregate(updates, config), aggregate(random.sample(updates, len(updates)), config)
    assert one[ACCELEROMETER].tobytes() == other[ACCELEROMETER].tobytes()


@pytest.mark.parametrize("rule", RULES)
def test_a_part_is_its_owners_alone(rule: RobustRule):
    """Seven devices have both, two more lack the gyroscope; each part has its own f."""
    random = np.random.default_rng(5)

    def drawn() -> Arrays:
        return {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}

    shapes = {ACCELEROMETER: (2, 3), "modalities.accelerometer.b": (), GYROSCOPE: (4,), "heads.w": (1, 2)}
    parts = {"accelerometer": 4.0, "gyroscope": 2.0, FUSION: 5.0}
    both = [(drawn(), parts) for _ in range(7)]
    without = [
        ({n: v for n, v in drawn().items() if n != GYROSCOPE}, {p: w for p, w in parts.items() if p != "gyroscope"}) for _ in range(2)
    ]
    config = AggregationConfig(rule=rule, byzantine_share=0.34)
    combined = aggregate([*both, *without], config)
    assert {name: values.shape for name, values in combined.items()} == shapes
    assert all(values.dtype == np.float32 for values in combined.values())
    only_both = aggregate(both, config)
    assert np.array_equal(combined[GYROSCOPE], only_both[GYROSCOPE])
    flat = np.stack([np.append(a["modalities.accelerometer.b"], a[ACCELEROMETER].ravel()) for a, _ in [*both, *without]])
    expected = robust_mean(flat, rule, 3, mixing=True)
    np.testing.assert_allclose(combined["modalities.accelerometer.b"], expected[0], rtol=1e-6)
    np.testing.assert_allclose(combined[ACCELEROMETER].ravel(), expected[1:], rtol=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_a_device_cannot_weigh_itself_up(rule: RobustRule):
    rows = np.random.default_rng(6).normal(size=(7, 3))
    config = AggregationConfig(rule=rule)
    heavy = [(arrays, {"accelerometer": 1e9 if place == 0 else 1.0}) for place, (arrays, _) in enumerate(fleet_of(rows))]
    assert np.array_equal(aggregate(fleet_of(rows), config)[ACCELEROMETER], aggregate(heavy, config)[ACCELEROMETER])


def test_the_mean_is_the_weighted_sum_of_any_number_of_devices():
    for num_devices in (1, 2, 6):
        updates = fleet_of(np.random.default_rng(7).normal(size=(num_devices, 3)))
        total = WeightedSum()
        for arrays, weights in updates:
            total.add(arrays, weights)
        assert np.array_equal(aggregate(updates, AggregationConfig())[ACCELEROMETER], total.mean()[ACCELEROMETER])


@pytest.mark.parametrize("rule", ["mean", *RULES])
def test_arrays_of_a_part_without_a_weight_are_left_out(rule: RuleName):
    updates = [({**arrays, "heads.w": np.float32([1])}, weights) for arrays, weights in fleet_of(np.eye(6))]
    assert aggregate(updates, AggregationConfig(rule=rule)).keys() == {ACCELEROMETER}


@pytest.mark.parametrize("rule", ["mean", *RULES])
def test_nothing_is_an_error(rule: RuleName):
    with pytest.raises(ValueError, match="at least one update to a"):
        aggregate([], AggregationConfig(rule=rule))


@pytest.mark.parametrize("mixing", [False, True])
@pytest.mark.parametrize("rule", RULES)
def test_what_is_given_is_left_as_it_is(rule: RobustRule, mixing: bool):
    rows = np.random.default_rng(8).normal(size=(6, 2100)).astype(np.float32)
    updates = fleet_of(rows)
    combined = aggregate(updates, AggregationConfig(rule=rule, mixing=mixing))
    combined[ACCELEROMETER] += 1
    assert all(np.array_equal(arrays[ACCELEROMETER], row) for (arrays, _), row in zip(updates, rows, strict=True))


@pytest.mark.parametrize(
    "other", [{GYROSCOPE: np.zeros(4, np.float32)}, {GYROSCOPE: np.zeros(3, np.float32), "modalities.gyroscope.b": np.float32(0)}, {}]
)
def test_devices_that_disagree_about_a_parts_arrays_are_an_error(other: Arrays):
    updates = [*fleet_of(np.eye(3), GYROSCOPE, "gyroscope"), (other, {"gyroscope": 1.0})]
    with pytest.raises(ValueError, match=r"part 'gyroscope': expected every device's arrays to have the shapes .*\(3,\)"):
        aggregate(updates, AggregationConfig(rule="median"))


@pytest.mark.parametrize(
    ("rule", "share", "too_few", "faulty"),
    [
        ("median", 0.2, 2, 1),
        ("trimmed-mean", 0.4, 2, 1),
        ("geometric-median", 0.45, 2, 1),
        ("multi-krum", 0.2, 4, 1),
        ("multi-krum", 0.4, 5, 2),
    ],
)
def test_too_few_devices_for_what_the_rule_assumes_are_refused(rule: RuleName, share: float, too_few: int, faulty: int):
    config = AggregationConfig(rule=rule, byzantine_share=share)
    smallest = 2 * faulty + (3 if rule == "multi-krum" else 1)
    message = (
        f"part 'accelerometer': {rule} expects at least {smallest} devices in a round where {faulty} may be faulty "
        f"(byzantine-share {share}, at least 1), found {too_few}: let more devices take part"
    )
    with pytest.raises(ConfigError, match=re.escape(message)):
        aggregate(fleet_of(np.eye(too_few)), config)
    assert config.num_faulty(too_few) == faulty
    if config.num_faulty(smallest) == faulty:
        aggregate(fleet_of(np.eye(smallest)), config)


def test_the_mean_needs_one_device():
    AggregationConfig(rule="mean").require_enough("accelerometer", 1)


@pytest.mark.parametrize(("share", "num_devices", "faulty"), [(0.2, 1, 1), (0.2, 9, 1), (0.2, 10, 2), (0.29, 100, 29), (0.49, 51, 24)])
def test_a_share_is_whole_devices_and_one_at_least(share: float, num_devices: int, faulty: int):
    assert AggregationConfig(rule="median", byzantine_share=share).num_faulty(num_devices) == faulty


@pytest.mark.parametrize("share", [0.0, -0.1, 0.5, 1.0, math.nan])
def test_a_share_out_of_range_is_refused(share: float):
    with pytest.raises(ConfigError, match=f"byzantine-share: expected a number above 0 and below 0.5, found {share}"):
        AggregationConfig(byzantine_share=share)
