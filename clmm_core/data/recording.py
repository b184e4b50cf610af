"""A recording: what one subject's sensors measured in one session, with the stretches somebody labelled."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from clmm_core.errors import DataError

Float32 = NDArray[np.float32]
STANDARD_GRAVITY = 9.80665
"""m/s^2 in one g, by definition."""


@dataclass(frozen=True, kw_only=True)
class Stream:
    """One modality's samples at a constant rate.

    Units are SI: m/s^2 including gravity, rad/s, uT; a skeleton is in metres.
    A sample may be NaN (a sensor dropped out): windows that touch it are left out later, and counted.

    Raises:
        DataError: the samples are not `[time, channels]` or the rate is not positive.
    """

    samples: Float32
    """`[time, channels]`, float32."""
    rate_hz: float
    start_s: float = 0.0
    """Time of the first sample, in seconds on the recording's own clock."""
    unit: str

    def __post_init__(self) -> None:
        if self.samples.ndim != 2 or 0 in self.samples.shape:
            raise DataError(f"expected samples [time, channels] with at least one of each, found shape {self.samples.shape}")
        if not (np.isfinite(self.rate_hz) and self.rate_hz > 0):
            raise DataError(f"expected a positive sampling rate in Hz, found {self.rate_hz}")

    @property
    def end_s(self) -> float:
        """Time just after the last sample, in seconds."""
        return self.start_s + len(self.samples) / self.rate_hz


@dataclass(frozen=True, kw_only=True)
class LabelledInterval:
    """A stretch of a recording that somebody gave one activity: one *trial* of that activity."""

    label: str
    start_s: float
    end_s: float

    def __post_init__(self) -> None:
        if not self.label:
            raise DataError("expected an activity name for a labelled interval, found an empty one: leave unlabelled time out")
        if not self.end_s > self.start_s:
            raise DataError(f"interval '{self.label}' ends at {self.end_s} s, not after its start at {self.start_s} s")


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One session of one subject: a stream for each modality that was there."""

    subject: str
    session: str
    streams: Mapping[str, Stream]
    """By modality: `accelerometer`, `gyroscope`, `skeleton`, ... A sensor that was absent has no entry."""
    intervals: tuple[LabelledInterval, ...] = field(default=())
    left_out: Mapping[str, str] = field(default_factory=dict)
    """By modality that was recorded but is not in `streams`: why its loader left it out, in words for the results."""

    def __post_init__(self) -> None:
        if not self.streams:
            raise DataError(f"subject '{self.subject}', session '{self.session}': expected at least one stream, found none")
