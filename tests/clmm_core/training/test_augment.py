from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from clmm_core.errors import ConfigError
from clmm_core.training.augment import augment, channel_dropout, jitter, modality_dropout, resample, rotate, scale, time_map
from clmm_core.training.draws import Draws
from clmm_core.training.settings import Augmentation

Augment = Callable[[Tensor, float, Draws], Tensor]
STRONG = Augmentation(rotation_deg=90.0, scale=0.2, jitter=0.2, crop=0.5, time_warp=0.3, channel_dropout=0.3)
NONE = Augmentation(rotation_deg=0.0, scale=0.0, jitter=0.0, crop=0.0, time_warp=0.0, channel_dropout=0.0)


def seed(number: int = 0) -> Draws:
    return Draws(torch.tensor(number))


@pytest.fixture
def streams() -> dict[str, Tensor]:
    return {"accelerometer": seed(1).normal(5, 6, 40), "heart": seed(2).normal(5, 1, 9)}


def test_augmentation_is_a_pure_function(streams: dict[str, Tensor]):
    before = {name: values.clone() for name, values in streams.items()}
    state = torch.random.get_rng_state()
    one, again, other = (augment(streams, STRONG, seed(number)) for number in (3, 3, 4))
    for name, values in streams.items():
        assert torch.equal(values, before[name])
        assert torch.equal(one[name], again[name])
        assert not torch.equal(one[name], other[name])
        assert one[name].shape == values.shape
        assert one[name].dtype == values.dtype
    assert torch.equal(torch.random.get_rng_state(), state)


def test_no_strength_changes_nothing(streams: dict[str, Tensor]):
    same = augment(streams, NONE, seed())
    assert all(torch.equal(same[name], streams[name]) for name in streams)


@pytest.mark.parametrize("one", [rotate, scale, jitter, channel_dropout])
def test_each_alone_at_0_is_the_identity_and_otherwise_is_not(one: Augment, streams: dict[str, Tensor]):
    windows = streams["accelerometer"]
    assert torch.equal(one(windows, 0.0, seed()), windows)
    assert not torch.equal(one(windows, 0.5, seed()), windows)


def test_rotation_keeps_lengths_and_angles_of_each_sensor(streams: dict[str, Tensor]):
    windows = streams["accelerometer"]
    sensors = windows.view(5, 2, 3, 40)
    turned = rotate(windows, 180.0, seed()).view(5, 2, 3, 40)
    torch.testing.assert_close(turned.norm(dim=2), sensors.norm(dim=2))
    torch.testing.assert_close(turned.transpose(2, 3) @ turned, sensors.transpose(2, 3) @ sensors, atol=1e-4, rtol=1e-4)
    # One rotation a window, the same for both sensors and all of time; no reflection.
    maps = torch.linalg.lstsq(sensors.transpose(2, 3), turned.transpose(2, 3)).solution
    torch.testing.assert_close(maps[:, 0], maps[:, 1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(torch.linalg.det(maps), torch.ones(5, 2), atol=1e-4, rtol=1e-4)


def test_rotation_goes_no_further_than_asked():
    windows = torch.eye(3).repeat(500, 1, 1)  # columns are the axes, so the result is the rotation itself
    turned = rotate(windows, 30.0, seed())
    angles = torch.rad2deg(((turned.diagonal(dim1=1, dim2=2).sum(dim=1) - 1) / 2).clamp(-1, 1).acos())
    assert angles.max() <= 30.1
    assert angles.max() > 28
    assert angles.mean().item() == pytest.approx(15.0, abs=1.5)  # uniform


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_what_has_no_three_axes_is_not_rotated(channels: int):
    windows = torch.randn(2, channels, 10)
    assert rotate(windows, 90.0, seed()) is windows


def test_scale_is_one_factor_a_channel(streams: dict[str, Tensor]):
    windows = streams["accelerometer"]
    factors = scale(windows, 0.1, seed()) / windows
    torch.testing.assert_close(factors, factors[:, :, :1].expand_as(factors), atol=1e-4, rtol=1e-4)
    many = scale(torch.ones(4000, 1, 1), 0.1, seed())
    assert (many.mean().item(), many.std().item()) == pytest.approx((1.0, 0.1), abs=0.01)


def test_jitter_has_the_deviation_asked_for():
    noise = jitter(torch.full((100, 3, 50), 7.0), 0.25, seed()) - 7
    assert (noise.mean().item(), noise.std().item()) == pytest.approx((0.0, 0.25), abs=0.01)


def test_dropped_channels_are_zero_and_the_others_untouched(streams: dict[str, Tensor]):
    windows = seed(1).normal(200, 6, 5)
    dropped = channel_dropout(windows, 0.3, seed())
    zero = (dropped == 0).all(dim=2)
    assert torch.equal(dropped[~zero], windows[~zero])
    assert zero.float().mean().item() == pytest.approx(0.3, abs=0.05)


@given(st.floats(0, 0.99), st.floats(0, 3), st.integers(0, 1000))
@settings(max_examples=50, deadline=None)
def test_time_runs_forward_inside_the_window(crop: float, warp: float, number: int):
    positions = time_map(20, crop, warp, seed(number))
    assert (positions >= 0).all()
    assert (positions <= 1 + 1e-6).all()
    assert (positions.diff(dim=1) > 0).all()
    assert (positions[:, -1] - positions[:, 0] >= 1 - crop - 1e-6).all()
    windows = seed(number).uniform(20, 2, 15)
    read = resample(windows, positions)
    assert (read >= windows.amin(dim=2, keepdim=True) - 1e-6).all()
    assert (read <= windows.amax(dim=2, keepdim=True) + 1e-6).all()


def test_an_even_map_of_the_whole_window_reads_it_as_it_is(streams: dict[str, Tensor]):
    for windows in streams.values():
        torch.testing.assert_close(resample(windows, time_map(5, 0.0, 0.0, seed())), windows, atol=1e-5, rtol=1e-5)


def test_resampling_by_hand():
    """The middle half of a ramp 0 .. 4 over five samples: 1, 1.5, 2, 2.5, 3; and a map that is fast, then slow."""
    ramp = torch.arange(5.0).view(1, 1, 5)
    assert resample(ramp, torch.tensor([[0.25, 0.5, 0.75]])).flatten().tolist() == pytest.approx([1, 1.5, 2, 2.5, 3])
    assert resample(ramp, torch.tensor([[0.0, 0.75, 1.0]])).flatten().tolist() == pytest.approx([0, 1.5, 3, 3.5, 4])


def test_a_window_of_one_sample_is_left(streams: dict[str, Tensor]):
    single = streams["heart"][:, :, :1]
    assert torch.equal(resample(single, time_map(5, 0.5, 0.5, seed())), single)


def test_all_modalities_of_a_window_share_one_map_of_time():
    """Two ramps of different rates show the same time after a crop and a warp."""
    streams = {"fast": torch.linspace(0, 1, 201).expand(8, 1, 201), "slow": torch.linspace(0, 1, 51).expand(8, 1, 51)}
    bent = augment(streams, Augmentation(scale=0.0, jitter=0.0, crop=0.5, time_warp=0.4), seed())
    assert not torch.allclose(bent["fast"], streams["fast"], atol=0.05)
    torch.testing.assert_close(bent["fast"][:, :, ::4], bent["slow"], atol=1e-4, rtol=1e-4)


@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=8), st.floats(0, 0.99), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_modality_dropout_always_leaves_one(rows: list[list[bool]], probability: float, number: int):
    mask = torch.tensor(rows)
    present = {name: mask[:, m].clone() for m, name in enumerate("abc")}
    kept = torch.stack(list(modality_dropout(present, probability, seed(number)).values()), dim=1)
    assert not (kept & ~mask).any()  # none comes into being
    assert torch.equal(kept.any(dim=1), mask.any(dim=1))
    assert all(torch.equal(present[name], mask[:, m]) for m, name in enumerate("abc"))


def test_modality_dropout_drops_as_often_as_asked():
    present = {name: torch.ones(4000, dtype=torch.bool) for name in "ab"}
    assert all(kept.all() for kept in modality_dropout(present, 0.0, seed()).values())
    kept = modality_dropout(present, 0.4, seed())
    # Both would go with probability 0.16; then one of them stays, so each goes with 0.4 - 0.08.
    assert kept["a"].float().mean().item() == pytest.approx(0.68, abs=0.03)
    assert kept["b"].float().mean().item() == pytest.approx(0.68, abs=0.03)


@pytest.mark.parametrize(
    ("strength", "message"),
    [
        ({"crop": 1.0}, r"augment\.crop: expected a share in \[0, 1\), found 1.0"),
        ({"modality_dropout": -0.1}, r"augment\.modality-dropout: expected a share"),
        ({"channel_dropout": float("nan")}, r"augment\.channel-dropout: expected a share"),
        ({"rotation_deg": -1.0}, r"augment\.rotation-deg: expected 0 or more, found -1.0"),
        ({"time_warp": -1.0}, r"augment\.time-warp: expected 0 or more"),
        ({"jitter": float("nan")}, r"augment\.jitter: expected 0 or more"),
    ],
)
def test_a_strength_out_of_range_is_refused(strength: dict[str, float], message: str):
    with pytest.raises(ConfigError, match=message):
        Augmentation(**strength)
