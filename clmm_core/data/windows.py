"""Cut recordings into windows: one float32 tensor per modality, with a presence mask, a label and a trial per window."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from clmm_core.data.recording import Float32, LabelledInterval, Recording, Stream
from clmm_core.errors import DataError

NO_LABEL = ""
"""Label of a window nobody labelled."""
NO_TRIAL = -1
JOIN = "+"
"""`accelerometer+gyroscope` is one modality made of the channels of both; it is present where both are."""


@dataclass(frozen=True, kw_only=True)
class WindowSpec:
    """How long a window is and how many samples each modality gets in it.

    Raises:
        DataError: a length, an overlap or a number of samples that cannot be.
    """

    length_s: float | None
    """Seconds; None makes one window of each labelled interval, whatever its length."""
    overlap: float = 0.0
    """Share of a window that the next one repeats, in [0, 1)."""
    time_steps: Mapping[str, int]
    """Samples a window has in each stream, after resampling."""

    def __post_init__(self) -> None:
        if self.length_s is not None and not self.length_s > 0:
            raise DataError(f"expected a window length above 0 s, found {self.length_s}")
        if not 0 <= self.overlap < 1:
            raise DataError(f"expected an overlap in [0, 1), found {self.overlap}")
        if any(steps < 1 for steps in self.time_steps.values()):
            raise DataError(f"expected at least one sample a window in every stream, found {dict(self.time_steps)}")

    def resized(self, length_s: float, overlap: float) -> "WindowSpec":
        """Return the same sampling rates with windows of another length.

        Raises:
            DataError: this data set has one window a trial, so its windows have no length to change.
        """
        if self.length_s is None:
            raise DataError("this data set makes one window of each trial; leave data.window-s at 0")
        steps = {name: round(count * length_s / self.length_s) for name, count in self.time_steps.items()}
        return replace(self, length_s=length_s, overlap=overlap, time_steps=steps)


@dataclass(frozen=True, kw_only=True)
class DeviceWindows:
    """All windows of one device; row i of every array is window i."""

    device: str
    streams: Mapping[str, Float32]
    """By modality `[windows, channels, time]`; only modalities the device has at least once, zeros where absent."""
    present: Mapping[str, NDArray[np.bool_]]
    """By modality `[windows]`; True where the window has this modality."""
    labels: NDArray[np.str_]
    """`[windows]`, the activity, or `NO_LABEL`."""
    trials: NDArray[np.int64]
    """`[windows]`, which labelled interval of this device the window lies in, or `NO_TRIAL`."""
    recordings: NDArray[np.int64]
    """`[windows]`, which recording of this device the window is cut from, from 0."""
    starts_s: NDArray[np.float64]
    """`[windows]`, start on its recording's clock, in seconds."""
    length_s: float = 0.0
    """Length of every window, in seconds; 0 where a window is a whole trial."""
    units: Mapping[str, str] = field(default_factory=dict)
    """By modality, the unit of its samples."""
    left_out: tuple[str, ...] = ()
    """What was not used, and why, in words for the results."""

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, rows: NDArray[np.int64]) -> "DeviceWindows":
        """Return the windows `rows` (indices) in that order."""
        return replace(
            self,
            streams={name: values[rows] for name, values in self.streams.items()},
            present={name: mask[rows] for name, mask in self.present.items()},
            labels=self.labels[rows],
            trials=self.trials[rows],
            recordings=self.recordings[rows],
            starts_s=self.starts_s[rows],
        )


def window_recordings(device: str, recordings: Sequence[Recording], modalities: Sequence[str], spec: WindowSpec) -> DeviceWindows:
    """Return every window of `recordings` that has at least one of `modalities`, in recording order.

    A window's label is that of the first interval which covers more than half of it; the window of a whole trial has its trial's. A
    window counts as having a modality when the stream spans it and is finite there; windows left without any modality are dropped.
    `left_out` counts these, what is not finite, and the windows that a stream covers only in part.

    Raises:
        DataError: no window is left, or two recordings of this device disagree about a modality's channels.
    """
    rows: list[_Row] = []
    num_dropped = num_unusable_streams = 0
    num_in_part: Counter[str] = Counter()
    next_trial = 0
    for number, recording in enumerate(recordings):
        for i, (start_s, end_s) in enumerate(_spans(recording, spec)):
            streams, num_not_finite = _cut(recording, modalities, spec, start_s, end_s)
            num_unusable_streams += num_not_finite
            num_in_part.update(_covered_in_part(recording, modalities, start_s, end_s))
            if streams:
                interval = i if spec.length_s is None else _interval_of(recording.intervals, start_s, end_s)
                rows.append(_Row(streams, recording.intervals, interval, next_trial, number, start_s))
            else:
                num_dropped += 1
        next_trial += len(recording.intervals)
    left_out = _left_out_by_loader(device, recordings, modalities)
    for name, count in sorted(num_in_part.items()):
        left_out.append(f"device '{device}': '{name}' covers only a part of {count} window(s) and was left out of them")
    if num_unusable_streams:
        left_out.append(f"device '{device}': {num_unusable_streams} window(s) of a modality hold NaN or infinite samples and were left out")
    if num_dropped:
        left_out.append(f"device '{device}': {num_dropped} window(s) have none of {', '.join(modalities)} and were left out")
    if not rows:
        raise DataError(
            f"device '{device}': no window of {_length(spec)} in {len(recordings)} recording(s) holds finite samples of "
            f"{', '.join(modalities)}; record longer, shorten data.window-s or choose other data.modalities"
        )
    stacked = _stack(device, rows, modalities, tuple(left_out))
    return replace(stacked, length_s=spec.length_s or 0.0, units=_units(recordings, stacked.streams))


@dataclass(frozen=True)
class _Row:
    streams: dict[str, Float32]
    intervals: tuple[LabelledInterval, ...]
    interval: int
    first_trial: int
    recording: int
    start_s: float

    @property
    def label(self) -> str:
        return NO_LABEL if self.interval < 0 else self.intervals[self.interval].label

    @property
    def trial(self) -> int:
        return NO_TRIAL if self.interval < 0 else self.first_trial + self.interval


def _length(spec: WindowSpec) -> str:
    return "one labelled trial" if spec.length_s is None else f"{spec.length_s:g} s"


def _spans(recording: Recording, spec: WindowSpec) -> list[tuple[float, float]]:
    if spec.length_s is None:
        return [(interval.start_s, interval.end_s) for interval in recording.intervals]
    first_s = min(stream.start_s for stream in recording.streams.values())
    last_s = max(stream.end_s for stream in recording.streams.values())
    step_s = spec.length_s * (1 - spec.overlap)
    count = int(np.floor((last_s - first_s - spec.length_s) / step_s + 1e-9)) + 1
    return [(first_s + i * step_s, first_s + i * step_s + spec.length_s) for i in range(max(0, count))]


def _interval_of(intervals: tuple[LabelledInterval, ...], start_s: float, end_s: float) -> int:
    for i, interval in enumerate(intervals):
        covered_s = min(end_s, interval.end_s) - max(start_s, interval.start_s)
        if covered_s > (end_s - start_s) / 2:
            return i
    return -1


def _cut(recording: Recording, modalities: Sequence[str], spec: WindowSpec, start_s: float, end_s: float) -> tuple[dict[str, Float32], int]:
    """Return `{modality: [channels, time]}` for those present in the span, and how many were there but not finite."""
    cut: dict[str, Float32] = {}
    num_not_finite = 0
    for modality in modalities:
        names = modality.split(JOIN)
        streams = [recording.streams[name] for name in names if name in recording.streams]
        if len(streams) < len(names) or not all(_covers(stream, start_s, end_s) for stream in streams):
            continue
        values = np.concatenate([_resample(stream, start_s, end_s, spec.time_steps[names[0]]) for stream in streams])
        if np.isfinite(values).all():
            cut[modality] = values
        else:
            num_not_finite += 1
    return cut, num_not_finite


def _covers(stream: Stream, start_s: float, end_s: float) -> bool:
    slack_s = 1.5 / stream.rate_hz
    return stream.start_s <= start_s + slack_s and stream.end_s >= end_s - slack_s


def _covered_in_part(recording: Recording, modalities: Sequence[str], start_s: float, end_s: float) -> list[str]:
    """Return the streams of `modalities` that reach into the span, by more than the slack of `_covers`, but do not cover it."""
    in_part = []
    for name in _names(modalities) & recording.streams.keys():
        stream = recording.streams[name]
        slack_s = 1.5 / stream.rate_hz
        reaches = stream.start_s < end_s - slack_s and stream.end_s > start_s + slack_s
        if reaches and not _covers(stream, start_s, end_s):
            in_part.append(name)
    return in_part


def _left_out_by_loader(device: str, recordings: Sequence[Recording], modalities: Sequence[str]) -> list[str]:
    asked_for = _names(modalities)
    counts = Counter((name, why) for recording in recordings for name, why in recording.left_out.items() if name in asked_for)
    return [
        f"device '{device}': '{name}' was left out of {count} of {len(recordings)} recording(s): {why}"
        for (name, why), count in sorted(counts.items())
    ]


def _names(modalities: Sequence[str]) -> set[str]:
    """Return the streams that make up `modalities`."""
    return {name for modality in modalities for name in modality.split(JOIN)}


def _resample(stream: Stream, start_s: float, end_s: float, steps: int) -> Float32:
    """Return `[channels, steps]` by linear interpolation between the samples."""
    times = start_s + (end_s - start_s) * np.arange(steps) / steps
    position = np.clip((times - stream.start_s) * stream.rate_hz, 0, len(stream.samples) - 1)
    position = np.where(np.abs(position - np.round(position)) < 1e-6, np.round(position), position)
    below = np.floor(position).astype(np.int64)
    above = np.ceil(position).astype(np.int64)
    share = (position - below).astype(np.float32)[:, None]
    with np.errstate(invalid="ignore"):  # 0 x infinity, in a window that its infinite sample rules out anyway
        between = np.where(share > 0, stream.samples[below] * (1 - share) + stream.samples[above] * share, stream.samples[below])
    return np.ascontiguousarray(between.T, dtype=np.float32)


def _units(recordings: Sequence[Recording], modalities: Iterable[str]) -> dict[str, str]:
    """Return each modality's unit; one joined of several streams names theirs in the same order."""
    by_stream = {name: stream.unit for recording in recordings for name, stream in recording.streams.items()}
    return {modality: JOIN.join(by_stream[name] for name in modality.split(JOIN)) for modality in modalities}


def _stack(device: str, rows: Sequence[_Row], modalities: Sequence[str], left_out: tuple[str, ...]) -> DeviceWindows:
    streams: dict[str, Float32] = {}
    present: dict[str, NDArray[np.bool_]] = {}
    for modality in modalities:
        mask = np.array([modality in row.streams for row in rows])
        if not mask.any():
            continue
        shapes = {row.streams[modality].shape for row in rows if modality in row.streams}
        if len(shapes) > 1:
            raise DataError(f"device '{device}', modality '{modality}': expected one number of channels, found windows of {sorted(shapes)}")
        empty = np.zeros(shapes.pop(), np.float32)
        streams[modality] = np.stack([row.streams.get(modality, empty) for row in rows])
        present[modality] = mask
    return DeviceWindows(
        device=device,
        streams=streams,
        present=present,
        labels=np.array([row.label for row in rows], dtype=np.str_),
        trials=np.array([row.trial for row in rows], dtype=np.int64),
        recordings=np.array([row.recording for row in rows], dtype=np.int64),
        starts_s=np.array([row.start_s for row in rows], dtype=np.float64),
        left_out=left_out,
    )
