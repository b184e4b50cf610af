"""The accountant against another library's, and against what must hold of any."""

import sys
from itertools import pairwise

import pytest

from clmm_core.errors import ConfigError
from server import accountant
from server.accountant import epsilons

pytest.importorskip("opacus", reason="extra `privacy`")

# (rate, noise multiplier, rounds, delta): epsilon of dp-accounting 0.6.0's PLDAccountant, value_discretization_interval 1e-4
PLD = {
    (0.1, 1.0, 100, 1e-5): 7.04660287720805,
    (0.1, 1.0, 100, 1e-3): 4.784350181491477,
    (1.0, 1.0, 40, 1e-5): 46.21121024769176,
    (1.0, 1.0, 1, 1e-5): 4.37717810004804,
    (1.0, 4.0, 40, 1e-5): 7.511276021606255,
    (0.3, 0.5, 60, 1e-5): 60.373840143633785,
    (0.5, 10.0, 1, 1e-5): 0.17404543376280476,
    (0.1, 30.0, 10, 1e-5): 0.029292036403115604,
    (0.01, 2.0, 200, 1e-5): 0.2691327254664104,
    (1.0, 50.0, 100, 1e-5): 0.7255234049098134,
    (0.05, 0.7, 5, 1e-3): 1.586977366836018,
}
MIXED = ((0.1,) * 20 + (1.0,) * 20, 1.0, 1e-5), 28.698071958985413


@pytest.mark.parametrize("setting", PLD)
def test_epsilon_is_that_of_privacy_loss_distributions_within_one_per_cent(setting: tuple[float, float, int, float]) -> None:
    rate, noise, rounds, delta = setting
    found = epsilons((rate,) * rounds, noise, delta)
    assert PLD[setting] <= found[-1] <= 1.01 * PLD[setting]
    assert len(found) == rounds


def test_stages_of_other_rates_add_up_in_any_order() -> None:
    (rates, noise, delta), expected = MIXED
    assert expected <= epsilons(rates, noise, delta)[-1] <= 1.01 * expected
    assert epsilons(rates[::-1], noise, delta)[-1] == pytest.approx(epsilons(rates, noise, delta)[-1])


@pytest.mark.parametrize("setting", PLD)
def test_the_other_library_still_says_so(setting: tuple[float, float, int, float]) -> None:
    """Run by hand: it asks for attrs below 24, which others here do not allow, so `pip install --no-deps`; see docs/dependencies.md."""
    dp = pytest.importorskip("dp_accounting", reason="not installed with the project, see docs/dependencies.md")
    rate, noise, rounds, delta = setting
    other = dp.pld.PLDAccountant(value_discretization_interval=1e-4)
    other.compose(dp.PoissonSampledDpEvent(rate, dp.GaussianDpEvent(noise)), rounds)
    assert other.get_epsilon(delta) == pytest.approx(PLD[setting], rel=1e-3)


def test_every_round_costs_and_its_cost_does_not_depend_on_what_follows() -> None:
    found = epsilons((0.3,) * 30, 1.5, 1e-5)
    assert all(one <= other for one, other in pairwise(found))
    for rounds in (1, 7, 15):
        assert found[rounds - 1] == pytest.approx(epsilons((0.3,) * rounds, 1.5, 1e-5)[-1], rel=0.01)


def test_what_float64_cannot_hold_is_bounded_all_the_same() -> None:
    found = epsilons((1.0,) * 20, 0.1, 1e-5)
    assert found[-1] > 1000
    assert epsilons((0.5,), 1e4, 0.3)[-1] < 0.01


def test_without_opacus_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accountant, "_MISSING", ImportError("No module named 'opacus'"))
    epsilons.cache_clear()
    with pytest.raises(ConfigError, match=r"expected opacus on the server.*No module named 'opacus'.*pip install 'clmm\[privacy\]'"):
        epsilons((0.1,), 1.0, 1e-5)
    assert "opacus" in sys.modules
