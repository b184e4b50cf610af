"""Activities from live sensors: samples with their times go in, an answer a window comes out."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from clmm_core.data.upright import ACCELEROMETER
from clmm_core.data.windows import JOIN
from clmm_core.errors import DataError, ModelFileError
from clmm_core.recognise.hanging import Hanging
from clmm_core.recognise.metadata import ModalityInput, ModelMetadata
from clmm_core.recognise.onnx_model import Float32, OnnxModel
from clmm_core.recognise.personal import PersonalHead
from clmm_core.recognise.plausible import implausible
from clmm_core.recognise.stream_buffer import NS, TIME_SLACK_NS, NotCoveredError, StreamBuffer

PATIENCE_NS = NS // 2
"""So long a window waits for a sensor whose samples come later than the others': after that it lacks it."""
MAX_APART_NS = 3600 * NS
"""A sensor further behind than this has another clock."""
AT_ONCE = 64
"""Windows that the model looks at in one batch, where somebody adds many samples at once."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Answer:
    """What the model says of one window."""

    start_ns: int
    """On the clock of the samples."""
    end_ns: int
    activity: str | None
    """None is "not sure": below the model's threshold, nothing measured, or samples that cannot be in the model's unit."""
    confidence: float
    """The largest of the probabilities."""
    probabilities: NDArray[np.float64]
    """`[classes]`, averaged over the windows of the last `smooth_s`."""
    left_out: Mapping[str, str]
    """By modality that this window lacks: why."""


@dataclass(frozen=True)
class _Window:
    """One window's inputs."""

    start_ns: int
    inputs: Mapping[str, Float32]
    """By modality it has, `[channels, time]`."""
    left_out: Mapping[str, str]
    is_doubtful: bool
    """Whether samples are in another unit, so that nothing is answered."""


class Recogniser:
    """A model and the newest samples of its sensors.

    Windows begin at the first sample and then every `hop_s`, as those that training cuts from a recording. When one is complete depends on
    the samples' times: each sensor has reached its end, or another one is `PATIENCE_NS` past it.

    Raises:
        ModelFileError: the model cannot be fed from a stream.
        DataError: a hop or a smoothing that cannot be.
    """

    def __init__(
        self, model: OnnxModel, *, hop_s: float | None = None, smooth_s: float | None = None, personal: PersonalHead | None = None
    ) -> None:
        self._personal = personal
        self.metadata: ModelMetadata = model.metadata
        _check_can_be_fed(self.metadata)
        self._model = model
        self._length_ns = round(self.metadata.window_s * NS)
        self._hop_ns = self._length_ns // 2 if hop_s is None else round(hop_s * NS)
        self._smooth_ns = self._length_ns if smooth_s is None else round(smooth_s * NS)
        if not 0 < self._hop_ns <= self._length_ns or self._smooth_ns < 0:
            raise DataError(f"expected a hop in (0, {self.metadata.window_s:g}] s and smoothing from 0 s on, found {hop_s} and {smooth_s}")
        self._units = _units(self.metadata)
        self.reset()

    @classmethod
    def load(cls, path: Path | str, *, hop_s: float | None = None, smooth_s: float | None = None) -> Self:
        """Open a model that `clmm export` made.

        Args:
            path: its file.
            hop_s: seconds from one window's start to the next one's; None is half a window.
            smooth_s: windows that start at most so much earlier are averaged with a window; None is a window's length, 0 is none.

        Raises:
            ModelFileError: the file cannot be used, or its model cannot be fed from a stream.
        """
        return cls(OnnxModel.open(Path(path)), hop_s=hop_s, smooth_s=smooth_s)

    @property
    def stream_names(self) -> tuple[str, ...]:
        """What `add` takes samples of."""
        return tuple(self._units)

    def reset(self) -> None:
        """Forget all samples and answers, as after a clock was set or another person puts the sensors on."""
        self._streams = {name: StreamBuffer(name) for name in self._units}
        self._next_ns: int | None = None
        self._has_begun = False
        self._recent: list[tuple[int, NDArray[np.float64]]] = []
        self._hanging = Hanging()

    def add(self, stream: str, times_ns: NDArray[np.generic], samples: NDArray[np.generic], *, unit: str | None = None) -> list[Answer]:
        """Take samples of one sensor, and return the answers of the windows that are complete with them, mostly none or one.

        Args:
            stream: its name: a modality of the model, or a part of `a+b`.
            times_ns: `[n]`, when each was measured, in ns, int64 or float, on one clock for all sensors; at any rate, with jitter and gaps.
            samples: `[n, channels]`, in the model's unit; NaN where the sensor gave nothing.
            unit: theirs, if somebody knows it: then another one than the model's is an error, not a guess.

        Raises:
            DataError: what was given cannot be samples of this stream; nothing of it was taken.
        """
        if stream not in self._streams:
            raise DataError(f"stream '{stream}': expected one of {', '.join(self._streams)}, which this model was trained on")
        if unit is not None and unit != self._units[stream]:
            raise DataError(f"stream '{stream}': expected samples in {self._units[stream]}, found {unit}: convert them")
        buffer = self._streams[stream]
        times, values = buffer.checked(times_ns, samples)
        if len(times):
            self._check_clock(stream, int(times[0]))
            self._check_channels(stream, values.shape[1])
            buffer.add(times, values)
            if not self._has_begun:
                first = int(times[0])
                self._next_ns = first if self._next_ns is None else min(self._next_ns, first)
        answers: list[Answer] = []
        while starts := self._complete(AT_ONCE):
            answers += self._answers([self._cut(start_ns) for start_ns in starts])
        for each in self._streams.values():
            each.forget_before(self._next_ns or 0)
        return answers

    def _check_clock(self, stream: str, first_ns: int) -> None:
        others = {name: each.last_ns for name, each in self._streams.items() if name != stream and each.last_ns is not None}
        ahead = max(others, key=lambda name: others[name], default=None)
        if ahead is not None and others[ahead] - first_ns > MAX_APART_NS:
            behind_s = (others[ahead] - first_ns) / NS
            raise DataError(
                f"stream '{stream}': expected times on one clock with '{ahead}', found them {behind_s:.3g} s behind: give all "
                "sensors' times on one clock, or call reset() if it was set"
            )

    def _check_channels(self, stream: str, found: int) -> None:
        for modality in self.metadata.modalities:
            parts = modality.name.split(JOIN)
            others = [self._streams[part].samples.shape[1] for part in parts if part != stream]
            # Of a joined modality the split is known when all of its streams have come.
            if stream in parts and all(others) and found + sum(others) != modality.channels:
                raise DataError(
                    f"stream '{stream}': expected {modality.channels - sum(others)} channels as in training, found {found}: give the same "
                    "axes, in the same order"
                )

    def _complete(self, at_most: int) -> list[int]:
        """Return where the next complete windows start, and move on behind them; stretches without any sample have no windows."""
        starts: list[int] = []
        newest = max((each.last_ns for each in self._streams.values() if each.last_ns is not None), default=None)
        if newest is None or self._next_ns is None:
            return starts
        while len(starts) < at_most and self._is_complete(self._next_ns, newest):
            self._has_begun = True
            if any(each.has_any(self._next_ns, self._next_ns + self._length_ns) for each in self._streams.values()):
                starts.append(self._next_ns)
                self._next_ns += self._hop_ns
            else:
                self._next_ns += self._hop_ns * self._empty_hops(self._next_ns)
        return starts

    def _empty_hops(self, start_ns: int) -> int:
        """Return how many hops further the first window with a sample starts."""
        first = min(int(each.times[each.times >= start_ns][0]) for each in self._streams.values() if (each.times >= start_ns).any())
        return max(1, (first - self._length_ns - start_ns) // self._hop_ns + 1)

    def _is_complete(self, start_ns: int, newest_ns: int) -> bool:
        end_ns = start_ns + self._length_ns
        if newest_ns >= end_ns + PATIENCE_NS:
            return True
        lasts = [
            (self._streams[part].last_ns, end_ns - round(NS / modality.rate_hz) - TIME_SLACK_NS)
            for modality in self.metadata.modalities
            for part in modality.name.split(JOIN)
        ]
        return all(last_ns is not None and last_ns >= needed_ns for last_ns, needed_ns in lasts)

    def _cut(self, start_ns: int) -> _Window:
        inputs: dict[str, Float32] = {}
        left_out: dict[str, str] = {}
        is_doubtful = False
        for modality in self.metadata.modalities:
            try:
                parts = self._parts(modality, start_ns)
            except NotCoveredError as error:
                left_out[modality.name] = str(error)
                continue
            doubts = [doubt for name, window in parts.items() if (doubt := implausible(name, self._units[name], window))]
            if doubts:
                left_out[modality.name], is_doubtful = "; ".join(doubts), True
            else:
                inputs[modality.name] = np.concatenate(list(parts.values()))
        if self.metadata.upright and inputs:
            inputs, askew = self._upright(inputs)
            left_out |= askew
        return _Window(start_ns, inputs, left_out, is_doubtful)

    def _upright(self, inputs: dict[str, Float32]) -> tuple[dict[str, Float32], dict[str, str]]:
        """Return the inputs turned upright; before it is known how, none of them, and why."""
        if ACCELEROMETER in inputs:
            self._hanging.look(inputs[ACCELEROMETER])
        turned = self._hanging.turned(inputs)
        return ({}, dict.fromkeys(inputs, self._hanging.missing)) if turned is None else (turned, {})

    def _parts(self, modality: ModalityInput, start_ns: int) -> dict[str, Float32]:
        parts = {}
        for name in modality.name.split(JOIN):
            try:
                parts[name] = self._streams[name].cut(start_ns, self.metadata.window_s, modality.time_steps)
            except NotCoveredError as error:
                lag_ns = self._lag_ns(name, start_ns)
                raise NotCoveredError(f"{error}, {lag_ns / NS:.2g} s behind the others" if lag_ns > PATIENCE_NS else str(error)) from error
        return parts

    def _lag_ns(self, name: str, start_ns: int) -> int:
        """Return how far a stream that once came is behind a window's end."""
        last_ns = self._streams[name].last_ns
        return 0 if last_ns is None else start_ns + self._length_ns - last_ns

    def _answers(self, windows: list[_Window]) -> list[Answer]:
        batch = {}
        for modality in self.metadata.modalities:
            absent = np.full((modality.channels, modality.time_steps), np.nan, np.float32)
            batch[modality.name] = np.stack([window.inputs.get(modality.name, absent) for window in windows])
        logits, shares = self._model.run(batch)
        probabilities = shares.astype(np.float64)
        if self._personal is not None:
            probabilities = self._personal.probabilities(logits.astype(np.float64) / self.metadata.temperature)
        return [self._answer(window, own) for window, own in zip(windows, probabilities, strict=True)]

    def _answer(self, window: _Window, own: NDArray[np.float64]) -> Answer:
        """Return the answer of a window with probabilities `[classes]`, averaged with those before it."""
        self._recent = [
            (start_ns, each) for start_ns, each in self._recent if start_ns >= window.start_ns - self._smooth_ns - TIME_SLACK_NS
        ]
        says_something = bool(window.inputs) and not window.is_doubtful and bool(np.isfinite(own).all())
        if says_something:
            self._recent.append((window.start_ns, own))
            own = np.mean([each for _, each in self._recent], axis=0)
        else:
            own = np.full(len(own), 1 / len(own))
        best = int(own.argmax())
        is_sure = says_something and own[best] >= self.metadata.threshold
        return Answer(
            start_ns=window.start_ns,
            end_ns=window.start_ns + self._length_ns,
            activity=self.metadata.classes[best] if is_sure else None,
            confidence=float(own[best]),
            probabilities=own,
            left_out=window.left_out,
        )


def _check_can_be_fed(metadata: ModelMetadata) -> None:
    if not metadata.window_s:
        raise ModelFileError(
            "this model's windows are whole trials, which nobody cuts out of a live stream: train with data.window-s set, or give whole "
            "trials to OnnxModel.run yourself"
        )
    if metadata.same_side:
        raise ModelFileError(
            "this model wants sensors of the other side of the body mirrored (data.same-side), which takes a whole recording in which "
            "somebody lies down: train with data.same-side=false for live sensors, or prepare recordings for OnnxModel.run yourself"
        )


def _units(metadata: ModelMetadata) -> dict[str, str]:
    """Return the unit of each stream that the model's modalities are made of."""
    units: dict[str, str] = {}
    for modality in metadata.modalities:
        units |= dict(zip(modality.name.split(JOIN), modality.unit.split(JOIN), strict=True))
    return units
