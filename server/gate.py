"""What an update must be before it counts: every reply of a round goes through here; what is refused is told, with device and reason.

A host can claim anything: a round must end with a finite model whatever one of them sends, and with all that the others learned.

With a clip for privacy no update is held against the others' median: what one device sends must not decide whether another counts. Its
length is bounded instead, whatever the host says that it did. What else is refused depends on the update and its own profile alone.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clmm_core.errors import ConfigError
from clmm_core.federated.arrays import FUSION, Arrays, part_of
from clmm_core.federated.clipping import factor_within
from clmm_core.federated.individual import apart
from clmm_core.federated.messages import DeviceTraining, HostUpdate
from clmm_core.federated.quantise import UpdateBits, unpack
from clmm_core.federated.weighted_sum import Weights
from clmm_core.report.lines import listed
from clmm_core.report.records import Refusal
from server.hosts import Answer

FEWEST_COMPARED = 3
"""Updates of a part from which on their median says which of them is too long."""


@dataclass(frozen=True, kw_only=True)
class GateConfig:
    """How strict the gate is.

    Raises:
        ConfigError: a value out of range.
    """

    norm_factor: float
    """An update's length a root of its windows may be so many times the median of the round's; 0 for any. Lengths grow with steps, steps
    with windows."""
    clip: float
    """Longer updates are shortened to this length, over all of their arrays; 0 for none."""
    strikes: int
    """Refusals after which a device is left out."""
    quarantine_rounds: int
    """For so many rounds; 0 for none."""

    def __post_init__(self) -> None:
        for name in ("norm_factor", "clip"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"gate.{name.replace('_', '-')}: expected 0 or more, found {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What a round's replies are held against."""

    server_round: int
    source: str
    """Fingerprint of the client code."""
    learning: Arrays
    """Arrays of the model that this stage trains: the names and shapes of an update."""
    most_windows: Callable[[str, str], int]
    """By device and part of the model, the windows that it can have trained on: what its profile says. Of `FUSION`, of all its windows."""
    update_bits: UpdateBits
    is_folded: bool
    """Whether a host answers with the mean over its devices, else with each of their updates."""
    clip: float = 0.0
    """For privacy: longest a device's update may be, and then devices count once each; 0 for none, and devices count by windows."""

    def most_weight(self, device: str, part: str) -> int:
        """Return how much a device may count in a part of the model."""
        most = self.most_windows(device, part)
        return min(1, most) if self.clip else most


@dataclass(frozen=True, kw_only=True)
class Update:
    """What one host's devices, or one device, would change in the model."""

    host: int
    """Which of the answers it is from."""
    arrays: Arrays
    weights: Weights
    devices: tuple[DeviceTraining, ...]
    num_within_clip: int = 0
    """Of them, those whose update was no longer than the clip, as their host says."""

    @property
    def names(self) -> tuple[str, ...]:
        """The devices it is of."""
        return tuple(each.device for each in self.devices)


def admitted(answers: Sequence[Answer], expected: Expected, config: GateConfig) -> tuple[list[Update], list[Refusal]]:
    """Return the updates that count, and the others' devices and reasons.

    Args:
        answers: of a round, of any content; those without a device that trained say nothing.
        expected: what they are held against.
        config: how strictly.
    """
    updates: list[Update] = []
    refusals: list[Refusal] = []
    seen: set[str] = set()
    for host, answer in enumerate(answers):
        reply: HostUpdate = answer.reply
        if not reply.devices:
            continue
        if fault := _wrong_reply(answer, expected):
            refusals.append(Refusal(devices=answer.devices, reason=fault))
            continue
        try:
            sent = _updates_of(host, answer, expected)
        except ValueError as error:
            refusals.append(Refusal(devices=answer.devices, reason=f"an update that cannot be read: {error}"))
            continue
        for update in sent:
            if fault := _twice(update, seen) or _wrong_claims(update, expected) or _wrong_arrays(update, expected):
                refusals.append(Refusal(devices=update.names, reason=fault))
            else:
                updates.append(update)
                seen |= set(update.names)
    if expected.clip:
        return [_within(update, expected.clip) for update in updates], refusals
    usable, too_long = _of_usual_length(updates, config.norm_factor)
    return [_clipped(update, config.clip) for update in usable], refusals + too_long


def _wrong_reply(answer: Answer, expected: Expected) -> str:
    """Return what is wrong with the reply as a whole, empty where nothing is."""
    reply: HostUpdate = answer.reply
    if reply.server_round != expected.server_round:
        return f"expected a reply to round {expected.server_round}, found one to round {reply.server_round}"
    if reply.source != expected.source:
        return f"expected client code {expected.source}, found {reply.source!r}"
    strangers = sorted({each.device for each in reply.devices} - set(answer.devices))
    return f"expected devices it was asked about, found {listed(strangers)}" if strangers else ""


def _updates_of(host: int, answer: Answer, expected: Expected) -> list[Update]:
    """Return the mean update of a host, unpacked, or that of each of its devices.

    Raises:
        ValueError: it is neither.
    """
    reply: HostUpdate = answer.reply
    if expected.is_folded:
        arrays = answer.arrays if expected.update_bits == 32 else unpack(answer.arrays, expected.update_bits, expected.learning)
        return [Update(host=host, arrays=arrays, weights=reply.weights, devices=reply.devices, num_within_clip=reply.num_within_clip)]
    each = zip(reply.devices, apart(answer.arrays, len(reply.devices)), strict=True)
    return [
        Update(host=host, arrays=arrays, weights=device.weights, devices=(device,), num_within_clip=device.num_within_clip)
        for device, arrays in each
    ]


def _twice(update: Update, seen: set[str]) -> str:
    again = [name for i, name in enumerate(update.names) if name in seen or name in update.names[:i]]
    return f"expected a device's update once a round, found a second one of {listed(again)}" if again else ""


def _wrong_claims(update: Update, expected: Expected) -> str:
    """Return what is wrong with what an update says of itself: windows, weights, loss, and how many are within the clip."""
    if not update.weights:
        return "expected the weight of a part of the model, found none"
    if not 0 <= update.num_within_clip <= len(update.devices):
        return f"expected 0 to {len(update.devices)} device(s) within the clip, found {update.num_within_clip}"
    for each in update.devices:
        most = expected.most_windows(each.device, FUSION)
        fewest = 1 if len(update.devices) == 1 else 0  # of several trained as one, some may have nothing to learn from
        if not fewest <= each.num_windows <= most:
            return f"expected {fewest} to {most} windows of device {each.device}, as its profile says, found {each.num_windows}"
        if not math.isfinite(each.loss):
            return f"expected a finite loss of device {each.device}, found {each.loss}"
    for part, weight in update.weights.items():
        most = sum(expected.most_weight(name, part) for name in update.names)
        if not 0 < weight <= most:  # NaN is neither
            return f"expected a weight of part '{part}' above 0 and at most {most}, as the profile says, found {weight:g}"
    return ""


def _wrong_arrays(update: Update, expected: Expected) -> str:
    """Return what is wrong with an update's arrays: names, types, shapes, values."""
    parts = {part_of(name) for name in expected.learning}
    if strangers := sorted(set(update.weights) - parts):
        return f"expected weights of {listed(sorted(parts))}, found also of {listed(strangers)}"
    names = {name for name in expected.learning if part_of(name) in update.weights}
    if missing := sorted(names - set(update.arrays)):
        return f"expected {len(names)} arrays of {listed(sorted(update.weights))}, found no {listed(missing)}"
    if more := sorted(set(update.arrays) - names):
        return f"expected {len(names)} arrays of {listed(sorted(update.weights))}, found also {listed(more)}"
    for name, values in update.arrays.items():
        like = expected.learning[name]
        if values.dtype != like.dtype or values.shape != like.shape:
            return f"'{name}': expected {like.dtype} {list(like.shape)}, found {values.dtype} {list(values.shape)}"
        if not math.isfinite(_squared(values)) and not np.isfinite(values).all():
            return f"'{name}': expected finite values, found NaN or infinity"
    return ""


def _of_usual_length(updates: Sequence[Update], factor: float) -> tuple[list[Update], list[Refusal]]:
    """Return the updates none of whose parts is much longer than the others' in the median, and the rest."""
    if not factor or len(updates) < FEWEST_COMPARED:
        return list(updates), []
    lengths = [{part: length / math.sqrt(update.weights[part]) for part, length in _lengths(update).items()} for update in updates]
    by_part: dict[str, list[float]] = {}
    for each in lengths:
        for part, length in each.items():
            by_part.setdefault(part, []).append(length)
    longest = {part: factor * median(some) for part, some in by_part.items() if len(some) >= FEWEST_COMPARED}
    usable: list[Update] = []
    refusals: list[Refusal] = []
    for update, own in zip(updates, lengths, strict=True):
        over = [part for part, length in own.items() if length > longest.get(part, math.inf) > 0]
        if not over:
            usable.append(update)
            continue
        times = own[over[0]] / longest[over[0]] * factor
        reason = f"part '{over[0]}': expected an update at most {factor:g} times as long as the round's median, found {times:.3g} times"
        refusals.append(Refusal(devices=update.names, reason=reason))
    return usable, refusals


def _lengths(update: Update) -> dict[str, float]:
    """Return the Euclidean length of each part."""
    squares: dict[str, float] = {}
    for name, values in update.arrays.items():
        squares[part_of(name)] = squares.get(part_of(name), 0.0) + _squared(values)
    return {part: math.sqrt(square) for part, square in squares.items()}


def _squared(values: NDArray[Any]) -> float:
    """Return the squared length of an array; infinite where float32 cannot hold it."""
    flat = values.ravel()
    with np.errstate(over="ignore"):
        return float(np.dot(flat, flat))


def _within(update: Update, clip: float) -> Update:
    """Return the update, the sum of its devices' updates at most `clip` a device long; an honest host's is so already."""
    squares = (
        float(np.square(values, dtype=np.float64).sum()) * update.weights[part_of(name)] ** 2 for name, values in update.arrays.items()
    )
    factor = factor_within(math.sqrt(sum(squares)), clip * len(update.devices))
    if factor == 1:
        return update
    return replace(update, arrays={name: values * np.float32(factor) for name, values in update.arrays.items()})


def _clipped(update: Update, clip: float) -> Update:
    """Return the update, at most `clip` long over all of its arrays."""
    if not clip or (length := math.hypot(*_lengths(update).values())) <= clip:
        return update
    scale = np.float32(clip / length)
    return replace(update, arrays={name: values * scale for name, values in update.arrays.items()})


def told(refusals: Iterable[Refusal], held: Sequence[str], server_round: int, config: GateConfig) -> list[str]:
    """Return a round's refusals, and the devices that go into quarantine after it, in sentences."""
    lines = [f"the host of device(s) {listed(each.devices)} sent an update that was refused: {each.reason}" for each in refusals]
    if held:
        until = server_round + config.quarantine_rounds
        lines.append(f"device(s) {listed(held)} in quarantine until round {until}: {config.strikes} of their updates were refused")
    return lines


@dataclass
class Quarantine:
    """Devices whose updates were refused, and until when those that were refused too often are left out."""

    config: GateConfig
    strikes: dict[str, int] = field(default_factory=dict)
    """Refusals since the device was last left out."""
    until: dict[str, int] = field(default_factory=dict)
    """By device, the last round it is left out of."""

    def strike(self, refusals: Iterable[Refusal], server_round: int) -> list[str]:
        """Count a round's refusals; return the devices that are left out from now on."""
        held: list[str] = []
        for device in sorted({device for refusal in refusals for device in refusal.devices}):
            self.strikes[device] = self.strikes.get(device, 0) + 1
            if self.config.quarantine_rounds and self.strikes[device] >= self.config.strikes:
                self.until[device] = server_round + self.config.quarantine_rounds
                del self.strikes[device]
                held.append(device)
        return held

    def holds(self, device: str, server_round: int) -> bool:
        """Return whether a device is left out of a round."""
        return self.until.get(device, 0) >= server_round
