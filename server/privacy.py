"""Client-level differential privacy, DP-FedAvg: what one device's whole contribution changes in the model is bounded and hidden in noise.

Hosts shorten each device's update to the clip; the server adds them up, adds noise to every coordinate of the sum and divides by the
number of devices expected, which the profiles fix. Neighbours are two runs of which one has one device's contribution replaced by nothing.

Source: McMahan et al. 2018, arXiv 1710.06963, algorithm 1 with the estimator `sum of w_k d_k / (q W)` of section 3, w_k = 1;
adaptive clipping: Andrew et al. 2021, arXiv 1905.03871, algorithm 1.
Differs: each part of the model has a denominator of its own, over the devices that own it; the clip is over all parts together (their
FlatClip), and so is the sensitivity. Noise is on the sum, `z * clip`, which is theirs on the mean times `q W`.
"""

import hashlib
import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clmm_core.errors import ConfigError
from clmm_core.federated.arrays import Arrays, part_of
from clmm_core.federated.weighted_sum import WeightedSum
from clmm_core.seeds import derive_seed
from server.gate import Update

SHORTEST_SECRET = 16
"""Bytes: 128 bits are beyond trying."""
COUNT_SHARE = 20
"""The deviation of the noise on how many are within the clip is the expected cohort over this. Source: Andrew et al. 2021, section 3.1."""


@dataclass(frozen=True, kw_only=True)
class PrivacyConfig:
    """How much noise, and how long a device's update may be.

    Raises:
        ConfigError: a value out of range.
    """

    noise_multiplier: float
    """z: the noise's deviation over the clip; 0 for no privacy at all."""
    clip: float
    """Longest a device's update may be, over all arrays that the stage trains; where it adapts, in each stage's first round."""
    clip_quantile: float
    """The clip moves to where this share of devices is within it; 0 for a clip that stays."""
    clip_rate: float
    """How fast."""
    delta: float
    budget: float
    """Epsilon that the whole run may cost at `delta`."""
    secret_file: str = ""
    """On the server: what is in it goes into all that is drawn for privacy, so that hosts, who know the seed, do not know it."""

    def __post_init__(self) -> None:
        ranges = {
            "noise-multiplier": (self.noise_multiplier, 0 <= self.noise_multiplier < math.inf, "0 or more"),
            "clip": (self.clip, 0 < self.clip < math.inf, "above 0"),
            "clip-quantile": (self.clip_quantile, 0 <= self.clip_quantile < 1, "a share in [0, 1)"),
            "clip-rate": (self.clip_rate, 0 < self.clip_rate < math.inf, "above 0"),
            "delta": (self.delta, 0 < self.delta < 1, "between 0 and 1"),
            "budget": (self.budget, 0 <= self.budget < math.inf, "0 or more"),
        }
        for key, (found, is_right, expected) in ranges.items():
            if not is_right:
                raise ConfigError(f"privacy.{key}: expected {expected}, found {found}")
        if self.is_on and not self.budget:
            raise ConfigError("privacy.budget: expected the epsilon that the run may cost, above 0, while there is noise, found 0: set it")

    @property
    def is_on(self) -> bool:
        """Whether there is any."""
        return self.noise_multiplier > 0

    def noise_on_updates(self, expected_cohort: float) -> float:
        """Return the noise's deviation over the clip for updates alone, so that updates and count together have `noise_multiplier`.

        Source: Andrew et al. 2021, theorem 1: `z_delta = (z^-2 - (2 sigma_b)^-2)^(-1/2)`.

        Raises:
            ConfigError: the count alone would cost more than both may; there are too few devices to adapt the clip.
        """
        z, deviation = self.noise_multiplier, expected_cohort / COUNT_SHARE
        if not self.clip_quantile:
            return z
        if 2 * deviation <= z:
            raise ConfigError(
                f"privacy.clip-quantile: expected 0 with so few devices, found {self.clip_quantile:g}: to adapt the clip at "
                f"privacy.noise-multiplier {z:g}, more than {COUNT_SHARE / 2 * z:g} devices must be expected in a round, here it is "
                f"{expected_cohort:g}: set it to 0, or lower the noise"
            )
        return float((z**-2 - (2 * deviation) ** -2) ** -0.5)


@dataclass(frozen=True, kw_only=True)
class StagePrivacy:
    """What a stage's rounds have in common, and the clip of the next one."""

    clip: float
    owners: Mapping[str, int]
    """By part of the model that the stage trains, how many of its devices have it, as they said when it began: the denominators."""


def begin_stage(config: PrivacyConfig, devices: Sequence[str], parts: Iterable[str], has: Callable[[str, str], bool]) -> StagePrivacy:
    """Return a stage as it begins; a part that no device has is left as it is.

    Args:
        config: of the run.
        devices: those that may take part.
        parts: of the model, those that the stage trains.
        has: by device and part, whether it has any window of it.
    """
    owners = {part: sum(has(device, part) for device in devices) for part in parts}
    return StagePrivacy(clip=config.clip, owners={part: count for part, count in owners.items() if count})


def secret_seed(config: PrivacyConfig, seed: int) -> int:
    """Return what the samples and the noise of a run are drawn from: its seed, and the server's secret if it has one.

    Raises:
        ConfigError: the file of the secret cannot be read, others may read it, or it is short enough to be guessed.
    """
    if not config.is_on or not config.secret_file:
        return seed
    path = Path(config.secret_file).expanduser()
    if not path.is_absolute():
        raise ConfigError(f"privacy.secret-file: expected a path from the root or from ~, for a run has a folder of its own, found {path}")
    try:
        secret, mode = path.read_bytes(), path.stat().st_mode
    except OSError as error:
        raise ConfigError(
            f"privacy.secret-file: expected a file of random bytes on the server, cannot read it: {error}. "
            f"Make one: head -c 32 /dev/urandom > {path} && chmod 600 {path}"
        ) from error
    if mode & 0o077:
        raise ConfigError(f"privacy.secret-file: {path}: expected a file nobody else may read, found mode {mode & 0o777:o}: chmod 600 it")
    if len(secret) < SHORTEST_SECRET:
        raise ConfigError(f"privacy.secret-file: {path}: expected at least {SHORTEST_SECRET} random bytes, found {len(secret)}")
    return derive_seed(seed, "secret", hashlib.sha256(secret).hexdigest())


def poisson_sample(devices: Iterable[str], rate: float, seed: int, server_round: int) -> tuple[str, ...]:
    """Return this round's cohort, ascending: each device by itself with probability `rate`, from (seed, round, device); maybe nobody.

    `seed` is `secret_seed`'s. The accountant's figures hold for such a sample only.
    """
    return tuple(sorted(each for each in devices if random.Random(derive_seed(seed, "cohort", server_round, each)).random() < rate))


def noise_generator(seed: int, server_round: int) -> np.random.Generator:
    """Return where a round's noise comes from. Who knows `secret_seed`'s seed can subtract it: see docs/privacy.md."""
    return np.random.default_rng(derive_seed(seed, "privacy", server_round))


def noised_mean(
    updates: Sequence[Update], learning: Arrays, stage: StagePrivacy, rate: float, noise: float, generator: np.random.Generator
) -> Arrays:
    """Return the sum of the updates plus noise, over the devices expected, for every array of a part that a device of the stage has.

    Args:
        updates: shortened ones; nothing but noise is returned of none.
        learning: the arrays that the stage trains.
        stage: its denominators, and the clip of this round.
        rate: probability that a device is in a round.
        noise: deviation over the clip; see `noise_on_updates`.
        generator: drawn from in the order of names.
    """
    total = WeightedSum()
    for update in updates:
        total.add(update.arrays, update.weights)
    sums, mean = total.sums, {}
    for name in sorted(name for name in learning if part_of(name) in stage.owners):
        noised = noise * stage.clip * generator.standard_normal(learning[name].shape) + sums.get(name, 0.0)
        mean[name] = (noised / (rate * stage.owners[part_of(name)])).astype(np.float32)
    return mean


def adapted_clip(
    config: PrivacyConfig, clip: float, updates: Sequence[Update], expected_cohort: float, generator: np.random.Generator
) -> float:
    """Return the next round's clip: nearer to the length that the wanted share of updates is within.

    Source: Andrew et al. 2021, algorithm 1, the geometric update; each device adds its bit minus 1/2, which halves the sensitivity.
    Differs: with a Poisson sample, devices that are not in it add 0, so their share counts as one half.

    Args:
        config: of the run.
        clip: of this round.
        updates: those that counted in it.
        expected_cohort: devices expected in a round.
        generator: drawn from once.
    """
    if not config.clip_quantile:
        return clip
    halved = sum(update.num_within_clip - len(update.devices) / 2 for update in updates)
    noised = halved + expected_cohort / COUNT_SHARE * generator.standard_normal()
    share = noised / expected_cohort + 0.5
    return clip * math.exp(-config.clip_rate * (share - config.clip_quantile))
