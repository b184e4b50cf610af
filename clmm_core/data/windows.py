"""Cut recordings into windows: one float32 tensor per modality, with a presence mask, a label and a trial per window."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from clmm_core.data.recording import Float32, LabelledInterval, Recording, Stream
from clmm_core.errors import DataError

Float64 = NDArray[np.float64]
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


@dataclass(frozen=True, kw_only=True, eq=False)
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


def window_recordings(device: str, recordings: Sequence[Recording], modalities: Sequence[str], spec: WindowSpec) -> DeviceWindows:
    """Return every window of `recordings` that has at least one of `modalities`, in recording order.

    A window's label is that of the first interval which covers more than half of it; the window of a whole trial has its trial's. A
    window counts as having a modality when the stream spans it and is finite there; windows left without any modality are dropped.
    `left_out` counts these, what is not finite, and the windows that a stream covers only in part.

    Raises:
        DataError: no window is left, or two recordings of this device disagree about a modality's channels.
    """
    pieces: list[_Piece] = []
    num_dropped = num_unusable_streams = next_trial = 0
    num_in_part: Counter[str] = Counter()
    for number, recording in enumerate(recordings):
        starts_s, ends_s = _spans(recording, spec)
        cut, num_not_finite = _cut(recording, modalities, spec, starts_s, ends_s)
        num_unusable_streams += num_not_finite
        num_in_part.update(_covered_in_part(recording, modalities, starts_s, ends_s))
        is_whole_trial = spec.length_s is None
        intervals = np.arange(len(starts_s)) if is_whole_trial else _intervals_of(recording.intervals, starts_s, ends_s)
        piece = _piece(cut, recording.intervals, intervals, next_trial, number, starts_s)
        num_dropped += len(starts_s) - len(piece.starts_s)
        pieces.append(piece)
        next_trial += len(recording.intervals)
    left_out = _left_out_by_loader(device, recordings, modalities)
    for name, count in sorted(num_in_part.items()):
        left_out.append(f"device '{device}': '{name}' covers only a part of {count} window(s) and was left out of them")
    if num_unusable_streams:
        left_out.append(f"device '{device}': {num_unusable_streams} window(s) of a modality hold NaN or infinite samples and were left out")
    if num_dropped:
        left_out.append(f"device '{device}': {num_dropped} window(s) have none of {', '.join(modalities)} and were left out")
    if not any(len(piece.starts_s) for piece in pieces):
        raise DataError(
            f"device '{device}': no window of {_length(spec)} in {len(recordings)} recording(s) holds finite samples of "
            f"{', '.join(modalities)}; record longer, shorten data.window-s or choose other data.modalities"
        )
    stacked = _stack(device, pieces, modalities, tuple(left_out))
    return replace(stacked, length_s=spec.length_s or 0.0, units=_units(recordings, stacked.streams))


Cut = dict[str, tuple[NDArray[np.int64], Float32]]
"""By modality, the windows of a recording that have it, ascending, and their samples `[those, channels, time]`."""


@dataclass(frozen=True)
class _Piece:
    """The windows of one recording that have a modality; item i of everything but the samples is window i."""

    cut: Cut
    labels: list[str]
    trials: list[int]
    recordings: list[int]
    starts_s: Float64


def _piece(
    cut: Cut, intervals: Sequence[LabelledInterval], which: NDArray[np.int64], first_trial: int, number: int, starts_s: Float64
) -> _Piece:
    """Return what is left of a recording without the windows that have no modality.

    Args:
        cut: the recording's windows.
        intervals: those of the recording.
        which: `[windows]`, each one's interval, or -1.
        first_trial: number of the first interval among the device's.
        number: which recording it is.
        starts_s: `[windows]`, on the recording's clock.
    """
    kept = np.unique(np.concatenate([np.zeros(0, np.int64), *(rows for rows, _ in cut.values())]))
    return _Piece(
        cut={name: (np.searchsorted(kept, rows), values) for name, (rows, values) in cut.items()},
        labels=[intervals[i].label if i >= 0 else NO_LABEL for i in which[kept]],
        trials=[first_trial + int(i) if i >= 0 else NO_TRIAL for i in which[kept]],
        recordings=[number] * len(kept),
        starts_s=starts_s[kept],
    )


def _length(spec: WindowSpec) -> str:
    return "one labelled trial" if spec.length_s is None else f"{spec.length_s:g} s"


def _spans(recording: Recording, spec: WindowSpec) -> tuple[Float64, Float64]:
    """Return where windows start and end, `[windows]` each, in seconds."""
    if spec.length_s is None:
        return _starts(recording.intervals), _ends(recording.intervals)
    first_s = min(stream.start_s for stream in recording.streams.values())
    last_s = max(stream.end_s for stream in recording.streams.values())
    step_s = spec.length_s * (1 - spec.overlap)
    count = int(np.floor((last_s - first_s - spec.length_s) / step_s + 1e-9)) + 1
    starts_s = first_s + np.arange(max(0, count), dtype=np.float64) * step_s
    return starts_s, starts_s + spec.length_s


def _starts(intervals: Sequence[LabelledInterval]) -> Float64:
    return np.array([interval.start_s for interval in intervals], dtype=np.float64)


def _ends(intervals: Sequence[LabelledInterval]) -> Float64:
    return np.array([interval.end_s for interval in intervals], dtype=np.float64)


def _intervals_of(intervals: Sequence[LabelledInterval], starts_s: Float64, ends_s: Float64) -> NDArray[np.int64]:
    """Return for each window `[windows]` the first interval that covers more than half of it, or -1."""
    if not intervals:
        return np.full(len(starts_s), -1)
    covered_s = np.minimum(ends_s[:, None], _ends(intervals)) - np.maximum(starts_s[:, None], _starts(intervals))  # [windows, intervals]
    is_most = covered_s > (ends_s - starts_s)[:, None] / 2
    return np.where(is_most.any(axis=1), is_most.argmax(axis=1), -1)


def _cut(recording: Recording, modalities: Sequence[str], spec: WindowSpec, starts_s: Float64, ends_s: Float64) -> tuple[Cut, int]:
    """Return the windows that start and end then, and how many of a modality were there but not finite."""
    cut: Cut = {}
    num_not_finite = 0
    for modality in modalities:
        names = modality.split(JOIN)
        streams = [recording.streams[name] for name in names if name in recording.streams]
        if len(streams) < len(names):
            continue
        rows = np.flatnonzero(np.all([_covers(stream, starts_s, ends_s) for stream in streams], axis=0))
        steps = spec.time_steps[names[0]]
        values = np.concatenate([_resample(stream, starts_s[rows], ends_s[rows], steps) for stream in streams], axis=1)
        is_finite = np.isfinite(values).all(axis=(1, 2))
        num_not_finite += len(rows) - int(is_finite.sum())
        if is_finite.any():
            cut[modality] = rows[is_finite], values[is_finite]
    return cut, num_not_finite


def _covers(stream: Stream, starts_s: Float64, ends_s: Float64) -> NDArray[np.bool_]:
    slack_s = 1.5 / stream.rate_hz
    return (stream.start_s <= starts_s + slack_s) & (stream.end_s >= ends_s - slack_s)


def _covered_in_part(recording: Recording, modalities: Sequence[str], starts_s: Float64, ends_s: Float64) -> Counter[str]:
    """Return by stream of `modalities` how many windows it reaches into, by more than the slack of `_covers`, but does not cover."""
    in_part: Counter[str] = Counter()
    for name in _names(modalities) & recording.streams.keys():
        stream = recording.streams[name]
        slack_s = 1.5 / stream.rate_hz
        reaches = (stream.start_s < ends_s - slack_s) & (stream.end_s > starts_s + slack_s)
        in_part[name] = int((reaches & ~_covers(stream, starts_s, ends_s)).sum())
    return +in_part  # without those that are 0


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


def _resample(stream: Stream, starts_s: Float64, ends_s: Float64, steps: int) -> Float32:
    """Return `[windows, channels, steps]` by linear interpolation between the samples."""
    times = starts_s[:, None] + (ends_s - starts_s)[:, None] * np.arange(steps) / steps  # [windows, steps]
    position = np.clip((times - stream.start_s) * stream.rate_hz, 0, len(stream.samples) - 1)
    nearest = np.round(position)
    position = np.where(np.abs(position - nearest) < 1e-6, nearest, position)
    below = np.floor(position).astype(np.int64)
    values = stream.samples[below]  # [windows, steps, channels]
    share = (position - below).astype(np.float32)[:, :, None]
    if share.any():
        above = stream.samples[np.ceil(position).astype(np.int64)]
        with np.errstate(invalid="ignore"):  # 0 x infinity, in a window that its infinite sample rules out anyway
            values = np.where(share > 0, values * (1 - share) + above * share, values)
    return values.transpose(0, 2, 1)


def _units(recordings: Sequence[Recording], modalities: Iterable[str]) -> dict[str, str]:
    """Return each modality's unit; one joined of several streams names theirs in the same order."""
    by_stream = {name: stream.unit for recording in recordings for name, stream in recording.streams.items()}
    return {modality: JOIN.join(by_stream[name] for name in modality.split(JOIN)) for modality in modalities}


def _stack(device: str, pieces: Sequence[_Piece], modalities: Sequence[str], left_out: tuple[str, ...]) -> DeviceWindows:
    firsts = np.cumsum([0, *(len(piece.starts_s) for piece in pieces)])  # of each recording, and how many windows there are
    streams: dict[str, Float32] = {}
    present: dict[str, NDArray[np.bool_]] = {}
    for modality in modalities:
        owned = [(first, *piece.cut[modality]) for first, piece in zip(firsts, pieces, strict=False) if modality in piece.cut]
        if not owned:
            continue
        shapes = {values.shape[1:] for _, _, values in owned}
        if len(shapes) > 1:
            raise DataError(f"device '{device}', modality '{modality}': expected one number of channels, found windows of {sorted(shapes)}")
        streams[modality] = np.zeros((firsts[-1], *shapes.pop()), np.float32)
        present[modality] = np.zeros(firsts[-1], np.bool_)
        for first, rows, values in owned:
            streams[modality][first + rows], present[modality][first + rows] = values, True
    return DeviceWindows(
        device=device,
        streams=streams,
        present=present,
        labels=np.array([label for piece in pieces for label in piece.labels], dtype=np.str_),
        trials=np.array([trial for piece in pieces for trial in piece.trials], dtype=np.int64),
        recordings=np.array([number for piece in pieces for number in piece.recordings], dtype=np.int64),
        starts_s=np.concatenate([piece.starts_s for piece in pieces]),
        left_out=left_out,
    )
