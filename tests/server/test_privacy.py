import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from clmm_core.errors import ConfigError
from clmm_core.federated.arrays import FUSION, Arrays, part_of
from clmm_core.federated.individual import placed
from clmm_core.federated.messages import DeviceTraining, HostUpdate
from server.gate import Expected, GateConfig, Update, admitted
from server.hosts import Answer
from server.privacy import (
    PrivacyConfig,
    StagePrivacy,
    adapted_clip,
    begin_stage,
    noise_generator,
    noised_mean,
    poisson_sample,
    secret_seed,
)

CONFIG = PrivacyConfig(noise_multiplier=1.5, clip=2.0, clip_quantile=0.0, clip_rate=0.2, delta=1e-5, budget=10.0)
GATE = GateConfig(norm_factor=10.0, clip=0.0, strikes=2, quarantine_rounds=10)
LEARNING: Arrays = {
    "modalities.acc.w": np.zeros((3, 4), np.float32),
    "modalities.gyro.w": np.zeros(5, np.float32),
    "fusion.b": np.zeros(2, np.float32),
}
NAMES = {"acc": "modalities.acc.w", "gyro": "modalities.gyro.w", FUSION: "fusion.b"}
STAGE = StagePrivacy(clip=2.0, owners={"acc": 8, "gyro": 5, FUSION: 8})
EXPECTED = Expected(
    server_round=7, source="code", learning=LEARNING, most_windows=lambda device, part: 40, update_bits=32, is_folded=False, clip=2.0
)


class NoNoise:
    """In place of a generator."""

    def standard_normal(self, shape: tuple[int, ...] = ()) -> NDArray[np.float64]:
        return np.zeros(shape)


def device_update(device: str, scale: float, *parts: str) -> Update:
    random = np.random.default_rng(list(device.encode()))
    wanted = parts or tuple(NAMES)
    arrays = {NAMES[part]: (scale * random.normal(size=LEARNING[NAMES[part]].shape)).astype(np.float32) for part in wanted}
    row = DeviceTraining(device=device, num_windows=7, loss=1.0, weights=dict.fromkeys(wanted, 1.0))
    return Update(host=0, arrays=arrays, weights=row.weights, devices=(row,))


def answer_of(*updates: Update) -> Answer:
    """One host's answer that does not fold."""
    rows = tuple(update.devices[0] for update in updates)
    reply = HostUpdate(server_round=7, source="code", weights={}, devices=rows)
    return Answer(reply, placed([update.arrays for update in updates]), tuple(row.device for row in rows))


def test_clip_sum_and_noise_are_what_a_loop_over_devices_makes_of_them() -> None:
    updates = [device_update("a", 0.1), device_update("b", 5.0), device_update("c", 1.0, "acc", FUSION)]
    usable, refusals = admitted([answer_of(*updates)], EXPECTED, GATE)
    assert not refusals
    mean = noised_mean(usable, LEARNING, STAGE, 0.25, 1.5, noise_generator(3, 7))
    generator = noise_generator(3, 7)
    for name in sorted(LEARNING):
        total = np.zeros(LEARNING[name].shape)
        for update in updates:
            whole = np.concatenate([values.astype(np.float64).ravel() for values in update.arrays.values()])
            length = math.sqrt(float((whole**2).sum()))
            if name in update.arrays:
                total += update.arrays[name] * min(1.0, 2.0 / length)
        noise = generator.normal(0.0, 1.5 * 2.0, size=total.shape)
        owners = {"acc": 8, "gyro": 5, FUSION: 8}[part_of(name)]
        np.testing.assert_allclose(mean[name], (total + noise) / (0.25 * owners), rtol=1e-5, atol=1e-5)


def test_a_round_of_nobody_is_noise_alone_of_the_right_size() -> None:
    learning = {"fusion.b": np.zeros(40_000, np.float32)}
    mean = noised_mean([], learning, replace(STAGE, owners={FUSION: 8}), 0.25, 1.5, noise_generator(0, 1))
    assert mean["fusion.b"].std() * 0.25 * 8 == pytest.approx(3.0, rel=0.02)
    assert abs(mean["fusion.b"].mean()) < 0.05


def test_noise_is_a_function_of_seed_and_round() -> None:
    one, again, other, seed = (noise_generator(*key).standard_normal(4) for key in ((0, 1), (0, 1), (0, 2), (1, 1)))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)
    assert not np.array_equal(one, seed)


def test_parts_that_no_device_has_stay_as_they_are() -> None:
    mean = noised_mean([], LEARNING, StagePrivacy(clip=1.0, owners={"acc": 3}), 1.0, 1.0, noise_generator(0, 1))
    assert set(mean) == {"modalities.acc.w"}


VALUES = st.floats(-float(np.finfo(np.float32).max), float(np.finfo(np.float32).max), width=32)


@settings(max_examples=60)
@given(values=st.lists(VALUES, min_size=19, max_size=19), weight=st.floats(-1, 50), is_folded=st.booleans(), within=st.integers(-3, 3))
def test_no_device_moves_the_sums_by_more_than_the_clip_whatever_it_sends(
    *, values: list[float], weight: float, is_folded: bool, within: int
) -> None:
    """All parts together, so each part too; and the others count as if it were not there."""
    flat = np.array(values, np.float32)
    arrays = {"modalities.acc.w": flat[:12].reshape(3, 4), "modalities.gyro.w": flat[12:17], "fusion.b": flat[17:]}
    weights = dict.fromkeys(NAMES, weight)
    row = DeviceTraining(device="z", num_windows=7, loss=1.0, weights={} if is_folded else weights, num_within_clip=within)
    reply = HostUpdate(
        server_round=7, source="code", weights=weights if is_folded else {}, devices=(row,), num_within_clip=within if is_folded else 0
    )
    bad = Answer(reply, arrays if is_folded else placed([arrays]), ("z",))
    honest = [device_update(device, 0.2) for device in "abc"]
    expected = replace(EXPECTED, is_folded=is_folded)
    if is_folded:
        answers = [
            Answer(HostUpdate(server_round=7, source="code", weights=each.weights, devices=each.devices), each.arrays, each.names)
            for each in honest
        ]
    else:
        answers = [answer_of(*honest)]
    sums = [
        noised_mean(admitted(some, expected, GATE)[0], LEARNING, replace(STAGE, owners=dict.fromkeys(NAMES, 1)), 1.0, 0.0, NoNoise())
        for some in (answers, [*answers, bad])
    ]
    moved = math.sqrt(sum(float(((sums[1][name].astype(np.float64) - sums[0][name]) ** 2).sum()) for name in LEARNING))
    assert moved <= 2.0 * (1 + 1e-6)  # the sums themselves are rounded to float32
    bits = [
        sum(each.num_within_clip - len(each.devices) / 2 for each in admitted(some, expected, GATE)[0])
        for some in (answers, [*answers, bad])
    ]
    assert abs(bits[1] - bits[0]) <= 0.5


def test_a_long_update_is_shortened_and_not_refused_by_the_others_median() -> None:
    updates = [device_update(device, 0.01) for device in "abcd"] + [device_update("z", 1000.0)]
    usable, refusals = admitted([answer_of(*updates)], EXPECTED, GATE)
    assert not refusals
    assert len(usable) == 5
    assert all(update.arrays[name] is not None for update in usable for name in LEARNING)
    without = admitted([answer_of(*updates)], replace(EXPECTED, clip=0.0), GATE)
    assert [refusal.devices for refusal in without[1]] == [("z",)]


def test_a_device_counts_once_and_a_host_for_as_many_as_it_has() -> None:
    twice = replace(device_update("a", 0.1), weights=dict.fromkeys(NAMES, 2.0))
    row = replace(twice.devices[0], weights=twice.weights)
    _, refusals = admitted([answer_of(replace(twice, devices=(row,)))], EXPECTED, GATE)
    assert "expected a weight of part 'acc' above 0 and at most 1" in refusals[0].reason
    rows = tuple(replace(device_update(name, 0.1).devices[0], weights={}) for name in "ab")
    reply = HostUpdate(server_round=7, source="code", weights=dict.fromkeys(NAMES, 2.0), devices=rows, num_within_clip=2)
    arrays = device_update("a", 100.0).arrays
    (update,), refusals = admitted([Answer(reply, arrays, ("a", "b"))], replace(EXPECTED, is_folded=True), GATE)
    assert not refusals
    length = 2 * math.sqrt(sum(float((values.astype(np.float64) ** 2).sum()) for values in update.arrays.values()))
    assert length == pytest.approx(2 * 2.0, rel=1e-5)
    _, refusals = admitted([Answer(replace(reply, num_within_clip=3), arrays, ("a", "b"))], replace(EXPECTED, is_folded=True), GATE)
    assert refusals[0].reason == "expected 0 to 2 device(s) within the clip, found 3"


def test_the_denominators_are_the_devices_that_have_a_part() -> None:
    has = {("a", "acc"), ("b", "acc"), ("b", "gyro")}
    stage = begin_stage(CONFIG, ("a", "b"), ("acc", "gyro", "heart"), lambda device, part: (device, part) in has)
    assert stage == StagePrivacy(clip=2.0, owners={"acc": 2, "gyro": 1})


def test_each_device_is_drawn_by_itself() -> None:
    devices = [f"device-{number}" for number in range(40)]
    samples = [poisson_sample(devices, 0.3, 5, server_round) for server_round in range(1, 501)]
    sizes = np.array([len(sample) for sample in samples])
    assert sizes.mean() == pytest.approx(12, rel=0.05)
    assert sizes.var() == pytest.approx(40 * 0.3 * 0.7, rel=0.2), "of a Poisson sample, where a fixed cohort has none"
    counts = Counter(device for sample in samples for device in sample)
    assert all(100 < counts[device] < 200 for device in devices)
    assert samples[3] == poisson_sample(devices[::-1], 0.3, 5, 4), "by seed, round and device alone"
    assert set(poisson_sample(devices[:7], 0.3, 5, 4)) == set(samples[3]) & set(devices[:7]), "whoever else is there"
    assert poisson_sample(devices, 1.0, 5, 1) == tuple(sorted(devices))


def within(lengths: NDArray[np.float64], clip: float) -> list[Update]:
    rows = tuple(DeviceTraining(device=str(number), num_windows=1, loss=0.0) for number in range(len(lengths)))
    return [Update(host=0, arrays={}, weights={}, devices=rows, num_within_clip=int((lengths <= clip).sum()))]


@pytest.mark.parametrize(("start", "quantile"), [(0.01, 0.5), (100.0, 0.5), (1.0, 0.9)])
def test_the_clip_goes_to_the_quantile_and_stays_there(start: float, quantile: float) -> None:
    lengths = np.random.default_rng(0).lognormal(1.0, 0.5, 400)
    config, clip, course = replace(CONFIG, clip_quantile=quantile), start, []
    for server_round in range(1, 151):
        clip = adapted_clip(config, clip, within(lengths, clip), 400, noise_generator(0, server_round))
        course.append(clip)
    reached = np.quantile(lengths, quantile)
    assert np.median(course[-40:]) == pytest.approx(reached, rel=0.1)


def test_the_clip_moves_by_the_papers_rule() -> None:
    config = replace(CONFIG, clip_quantile=0.5)
    moved = adapted_clip(config, 2.0, within(np.array([1.0, 1.5, 1.9, 3.0]), 2.0), 4, NoNoise())
    assert moved == pytest.approx(2.0 * math.exp(-0.2 * (3 / 4 - 0.5)))
    assert adapted_clip(CONFIG, 2.0, within(np.array([1.0]), 2.0), 4, noise_generator(0, 1)) == 2.0


def test_noise_on_updates_and_on_the_count_together_are_the_multiplier() -> None:
    config = replace(CONFIG, clip_quantile=0.5, noise_multiplier=1.0)
    noise = config.noise_on_updates(expected_cohort=100)  # count: deviation 5, sensitivity 1/2
    assert noise > 1.0
    assert (noise**-2 + (2 * 5) ** -2) ** -0.5 == pytest.approx(1.0)
    assert CONFIG.noise_on_updates(3) == 1.5


def test_too_few_devices_for_the_clip_to_adapt() -> None:
    with pytest.raises(ConfigError, match="more than 15 devices must be expected in a round, here it is 10: set it to 0"):
        replace(CONFIG, clip_quantile=0.5).noise_on_updates(10)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"noise_multiplier": -1.0}, "privacy.noise-multiplier: expected 0 or more, found -1"),
        ({"clip": 0.0}, "privacy.clip: expected above 0, found 0"),
        ({"clip_quantile": 1.0}, r"privacy.clip-quantile: expected a share in \[0, 1\), found 1"),
        ({"clip_rate": 0.0}, "privacy.clip-rate: expected above 0"),
        ({"delta": 0.0}, "privacy.delta: expected between 0 and 1"),
        ({"budget": -1.0}, "privacy.budget: expected 0 or more"),
        ({"budget": 0.0}, "privacy.budget: expected the epsilon that the run may cost, above 0, while there is noise"),
    ],
)
def test_values_out_of_range_are_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(CONFIG, **changes)


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "noise.key"
    path.write_bytes(bytes(range(32)))
    path.chmod(0o600)
    return path


def test_a_secret_of_the_server_is_in_all_that_is_drawn(secret: Path) -> None:
    config = replace(CONFIG, secret_file=str(secret))
    one, again, other_seed = (secret_seed(config, seed) for seed in (3, 3, 4))
    secret.write_bytes(bytes(range(1, 33)))
    assert one == again
    assert len({3, one, other_seed, secret_seed(config, 3)}) == 4
    assert secret_seed(replace(config, noise_multiplier=0.0), 3) == 3, "without privacy nothing is secret"
    assert secret_seed(CONFIG, 3) == 3


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), r"cannot read it.*head -c 32 /dev/urandom >"),
        (lambda path: path.chmod(0o640), r"nobody else may read, found mode 640: chmod 600"),
        (lambda path: path.write_bytes(b"letmein"), r"at least 16 random bytes, found 7"),
    ],
)
def test_a_secret_that_is_none_is_refused(secret: Path, spoil: Callable[[Path], object], message: str) -> None:
    spoil(secret)
    with pytest.raises(ConfigError, match=message):
        secret_seed(replace(CONFIG, secret_file=str(secret)), 3)
    with pytest.raises(ConfigError, match="a path from the root or from ~"):
        secret_seed(replace(CONFIG, secret_file="noise.key"), 3)
