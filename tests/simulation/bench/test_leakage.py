import numpy as np
import pytest
import torch

from clmm_core.errors import DataError
from simulation.bench import leakage
from simulation.bench.leakage import OF_MEMBERSHIP, Inversion, Leakage, auc_of, inversions, measure_leakage, membership

SMALL = {"pretrain.rounds": 0, "data.window-s": 5.12}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def auc_by_hand(trained: list[np.ndarray], unseen: list[np.ndarray]) -> float:
    pairs = [(one, other) for one in np.concatenate(trained) for other in np.concatenate(unseen)]
    return sum((one < other) + (one == other) / 2 for one, other in pairs) / len(pairs)


def test_the_area_is_the_share_of_pairs_in_the_right_order() -> None:
    random = np.random.default_rng(0)
    trained, unseen = ([np.round(random.normal(middle, 1, size), 1) for size in (3, 8, 5)] for middle in (0.0, 0.7))
    auc, low, high = auc_of([(trained, unseen)], seed=0)
    assert auc == pytest.approx(auc_by_hand(trained, unseen))
    assert low < auc < high


def test_guessing_is_one_half_and_telling_all_apart_is_one() -> None:
    random = np.random.default_rng(1)
    same = [[random.normal(size=20) for _ in range(40)] for _ in range(2)]
    auc, low, high = auc_of([(same[0], same[1])], seed=0)
    assert low < 0.5 < high
    assert abs(auc - 0.5) < 0.1
    assert auc_of([([np.zeros(2)], [np.ones(3)])] * 2, seed=0) == (1.0, 1.0, 1.0)


def test_half_of_the_people_are_unseen_and_noise_costs(run_config) -> None:
    pytest.importorskip("opacus", reason="extra `privacy`")
    values = run_config(SMALL, small=True)
    plain, private = membership(values, 0.0, 2), membership(values, 2.0, 1)
    assert [each.level for each in plain] == ["device", "window"]
    for each in (*plain, *private):
        assert 0 <= each.low <= each.auc <= each.high <= 1
        assert each.num_unseen == 3
    assert plain[0].epsilon is None
    assert private[0].epsilon is not None
    assert private[0].epsilon > 0


def test_too_few_people_are_refused(run_config) -> None:
    with pytest.raises(DataError, match="at least 4 people, to train on some and compare with others, found 3"):
        membership(run_config({"data.num-devices": 3}, small=True), 0.0, 1)


def test_the_control_gives_its_window_away(run_config) -> None:
    """Without it a low correlation would say nothing of CLMM."""
    control, clmm = inversions(run_config({"seed": 1}, small=True), 1, starts=1)
    assert control.network.startswith("CNN")
    assert control.r[0] >= 0.95
    assert clmm.r[0] < control.r[0]


def test_figures_as_rows(run_config, monkeypatch: pytest.MonkeyPatch) -> None:
    one = leakage.Membership(
        **{"level": "device", "noise_multiplier": 1.0, "epsilon": 8.25, "auc": 0.61, "low": 0.5, "high": 0.7},
        **{"num_splits": 3, "num_trained": 4, "num_unseen": 5, "accuracy_unseen": 0.5},
    )
    monkeypatch.setattr(leakage, "membership", lambda values, noise, splits: [one, one])
    monkeypatch.setattr(leakage, "inversions", lambda values, num, starts: [Inversion(network="CLMM", r=(0.1, 0.3))])
    said: list[str] = []
    found = measure_leakage(run_config(), [1.0], 1, 2, said.append)
    assert len(found.membership) == 4
    assert len(said) == 2
    text = Leakage(data="x", membership=(one,), inversion=found.inversion).markdown()
    assert "| 1 | 8.25 | device | 0.610 (0.500–0.700) | 3 x 4 and 5 | 50.0 % |" in text
    assert "| CLMM | 2 | 0.200 | 0.300 |" in text


def test_every_setting_of_the_attack_is_a_key(run_config) -> None:
    assert set(OF_MEMBERSHIP) <= set(run_config())
