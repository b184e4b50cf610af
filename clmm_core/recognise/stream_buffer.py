"""The newest samples of one sensor with the times at which they were measured, from which windows are cut as in training."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from clmm_core.data.datasets.resampling import MAX_GAP_S
from clmm_core.errors import DataError

Float32 = NDArray[np.float32]
Times = NDArray[np.int64]
NS = 1_000_000_000
MAX_NS = 2.0**62
"""Times are int64; this is the year 2116."""
MAX_GAP_SAMPLES = 2.5
"""A slow stream may miss this many sample periods instead of `MAX_GAP_S`, as in `data/datasets/stream_file.py`."""
SLACK_SAMPLES = 1.5
"""So many sample periods a window may reach beyond its samples at either end, as in `data/windows.py`."""
ON_SAMPLE = 1e-6
"""Share of a sample period within which a time is a sample's own, as there."""
MAX_RATE_HZ = 2000.0
"""No sensor of people's movement is quicker: a higher rate says that the times are in another unit."""
RATE_SAMPLES = 33
"""From so many on a stream's rate is believed."""
BURST = 4
"""So many samples have times of their own, most of them at least: more that have not were given times in seconds."""
SLOWEST = 0.5
"""Share of the rate the model was trained at that a stream needs: what is slower lacks movements that the model looks for."""
TIME_SLACK_NS = 1000
"""Times are rounded to ns, and rates are floats."""
KEPT_NS = 2 * NS
"""Samples older than the next window by more than this are let go."""


class NotCoveredError(Exception):
    """A window cannot be cut, for the reason in the message, which becomes a part of the answer."""


@dataclass
class StreamBuffer:
    """One sensor's samples in order of time."""

    name: str
    times: Times = field(default_factory=lambda: np.zeros(0, np.int64))
    """`[samples]`, ns, ascending, no two equal."""
    samples: Float32 = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    """`[samples, channels]`."""
    last_ns: int | None = None
    """Time of the newest sample that ever came; it stays when samples are let go."""

    def checked(self, times: NDArray[np.generic], samples: NDArray[np.generic]) -> tuple[Times, Float32]:
        """Return a chunk as it can be added: int64 ns `[n]`, float32 `[n, channels]`, without samples at a time that has one already.

        Raises:
            DataError: shapes that do not fit, times that are no nanoseconds or go back; nothing was added.
        """
        times, samples = np.asarray(times), np.asarray(samples)
        is_table = samples.ndim == 2 and times.shape == samples.shape[:1] and samples.shape[1] > 0
        if not is_table or times.dtype.kind not in "iuf" or samples.dtype.kind not in "iuf":
            found = f"{times.dtype} {times.shape} and {samples.dtype} {samples.shape}"
            raise DataError(f"stream '{self.name}': expected numbers, times [n] and samples [n, channels], found {found}")
        if self.samples.size and samples.shape[1] != self.samples.shape[1]:
            raise DataError(f"stream '{self.name}': expected {self.samples.shape[1]} channels as before, found {samples.shape[1]}")
        whole = self._nanoseconds(times)
        steps = np.diff(whole, prepend=whole[:1] - 1 if self.last_ns is None else self.last_ns)
        if (steps < 0).any():
            row = int(np.flatnonzero(steps < 0)[0])
            raise DataError(
                f"stream '{self.name}': expected times that never go back, found {whole[row]} ns after {whole[row] - steps[row]} ns: "
                "drop what comes late, or call reset() if the clock was set"
            )
        is_new = steps > 0
        if len(whole) >= BURST and is_new.sum() * 2 < len(whole):
            same = f"{len(whole) - is_new.sum()} of {len(whole)} times the same"
            raise DataError(f"stream '{self.name}': expected each sample's own time in nanoseconds, found {same}: give seconds times 1e9")
        self._check_rate(whole[is_new])
        with np.errstate(over="ignore"):  # what float32 does not hold becomes infinite, and rules its window out
            return whole[is_new], samples[is_new].astype(np.float32)

    def _nanoseconds(self, times: NDArray[np.generic]) -> Times:
        if times.dtype.kind in "iu":
            return times.astype(np.int64)
        if not (np.abs(times.astype(np.float64)) < MAX_NS).all():
            raise DataError(f"stream '{self.name}': expected a time in nanoseconds for each sample, found NaN or one beyond int64")
        rounded: Times = np.rint(times).astype(np.int64)
        return rounded

    def add(self, times: Times, samples: Float32) -> None:
        """Take a checked chunk."""
        if not len(times):
            return
        self.times = np.concatenate([self.times, times])
        self.samples = np.concatenate([self.samples, samples]) if len(self.samples) else samples
        self.last_ns = int(times[-1])

    def forget_before(self, start_ns: int) -> None:
        """Let go of samples that no window from `start_ns` on needs."""
        first = int(np.searchsorted(self.times, start_ns - KEPT_NS))
        self.times, self.samples = self.times[first:], self.samples[first:]

    def has_any(self, start_ns: int, end_ns: int) -> bool:
        """Return whether a sample was measured from start to before end."""
        return bool(np.searchsorted(self.times, end_ns) > np.searchsorted(self.times, start_ns))

    def cut(self, start_ns: int, length_s: float, steps: int) -> Float32:
        """Return one window `[channels, steps]` by linear interpolation between the samples, as training cuts its own.

        Raises:
            NotCoveredError: the samples do not cover it, have a gap, are too few a second or not finite.
        """
        end_ns = start_ns + round(length_s * NS)
        # Up to the first sample at or after the last of the wanted times, so that a window does not depend on what has come beyond it.
        end = int(np.searchsorted(self.times, end_ns - round(length_s / steps * NS) - TIME_SLACK_NS)) + 1
        near = slice(int(np.searchsorted(self.times, start_ns - KEPT_NS)), end)
        times_s, samples = (self.times[near] - start_ns) / NS, self.samples[near]
        if len(times_s) < 2 or not self.has_any(start_ns, end_ns):
            raise NotCoveredError("no samples")
        period_s = float(np.median(np.diff(times_s)))
        slack_s = SLACK_SAMPLES * period_s
        if 1 / period_s < SLOWEST * steps / length_s:
            raise NotCoveredError(f"{1 / period_s:.3g} Hz, where the model was trained at {steps / length_s:.3g} Hz")
        if times_s[0] > slack_s or times_s[-1] + period_s < length_s - slack_s:
            raise NotCoveredError("samples for a part of the window only")
        values = _interpolated(times_s, samples, np.arange(steps) * length_s / steps, period_s)
        if not np.isfinite(values).all():
            raise NotCoveredError("NaN or infinite samples")
        return values.T

    def _check_rate(self, times: Times) -> None:
        newest = np.concatenate([self.times[-RATE_SAMPLES:], times])
        if len(newest) >= RATE_SAMPLES and (period_s := float(np.median(np.diff(newest))) / NS) * MAX_RATE_HZ < 1:
            raise DataError(
                f"stream '{self.name}': expected times in nanoseconds, found a sample every {period_s:.2g} s: give seconds times 1e9"
            )


def _interpolated(times_s: NDArray[np.float64], samples: Float32, wanted_s: NDArray[np.float64], period_s: float) -> Float32:
    """Return `[wanted, channels]`; before the first and after the last sample, those.

    Raises:
        NotCoveredError: a wanted time lies in a longer gap.
    """
    below = np.clip(np.searchsorted(times_s, wanted_s, side="right") - 1, 0, len(times_s) - 1)
    above = np.minimum(below + 1, len(times_s) - 1)
    gaps_s = times_s[above] - times_s[below]
    after_s, left_s = wanted_s - times_s[below], times_s[above] - wanted_s
    is_next = (gaps_s > 0) & (left_s < ON_SAMPLE * period_s)
    is_between = (after_s > ON_SAMPLE * period_s) & (left_s > ON_SAMPLE * period_s)
    share = np.divide(after_s, gaps_s, out=np.zeros(len(wanted_s)), where=is_between)
    below = np.where(is_next, above, below)
    longest_s = float(gaps_s[is_between].max(initial=0))
    if longest_s > max(MAX_GAP_S, MAX_GAP_SAMPLES * period_s):
        raise NotCoveredError(f"a gap of {longest_s:.2g} s")
    weight = share.astype(np.float32)[:, None]
    with np.errstate(invalid="ignore"):  # 0 x infinity, in a window that its infinite sample rules out anyway
        values: Float32 = np.where(weight > 0, samples[below] * (1 - weight) + samples[above] * weight, samples[below])
    return values
