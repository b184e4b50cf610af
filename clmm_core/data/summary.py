"""What a data set holds, subject by subject, and what in it would surprise a training run."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from clmm_core.data.datasets.dataset import Dataset
from clmm_core.data.recording import Recording, Stream
from clmm_core.data.windows import NO_LABEL, window_recordings
from clmm_core.errors import DataError

GRAVITY = (7.0, 14.0)
"""m/s^2 between which the median length of an acceleration lies: 9.3 to 12.4 in the real sets, with all their jumping and jogging."""
WITHOUT_GRAVITY = ("linear", "user")
"""Words in the name of an acceleration that had its gravity taken out, as phones call it."""
AXES = 3
MIN_WINDOWS = 2
"""Contrastive pretraining compares windows of one device with each other: one alone has nothing to be compared with."""


@dataclass(frozen=True, kw_only=True)
class StreamSummary:
    """One modality of one subject, over its sessions."""

    min_rate_hz: float
    max_rate_hz: float
    unit: str
    nan_share: float
    """Share of the samples with a channel that is NaN or infinite, in [0, 1]."""
    median_norm: float
    """Median length of the finite samples, in `unit`; NaN where there is none, or where they are not vectors of three axes."""


@dataclass(frozen=True, kw_only=True)
class SubjectSummary:
    """One subject's recordings and the windows they make."""

    subject: str
    num_sessions: int
    streams: Mapping[str, StreamSummary]
    recorded_s: float
    num_windows: int
    class_counts: Mapping[str, int]
    """Windows a class, sorted by class; `NO_LABEL` counts the unlabelled."""
    notes: tuple[str, ...]
    """What was left out, or why there is no window at all."""


def summarise(dataset: Dataset) -> tuple[SubjectSummary, ...]:
    """Return every subject's summary, in the data set's order, with the data set's own modalities and window.

    Raises:
        DataError: a file cannot be read.
    """
    return tuple(_subject(dataset, subject) for subject in dataset.subjects())


def warnings_of(modalities: Sequence[str], subjects: Sequence[SubjectSummary]) -> tuple[str, ...]:
    """Return in words what is allowed but worth knowing before a run."""
    warnings = []
    for summary in subjects:
        for modality in modalities:
            if modality not in summary.streams:
                warnings.append(f"subject '{summary.subject}' lacks {modality}")
        warnings.extend(_gravity_warnings(summary))
        if summary.num_windows < MIN_WINDOWS:
            warnings.append(f"subject '{summary.subject}' has {summary.num_windows} window(s); a device needs at least {MIN_WINDOWS}")
        warnings.extend(summary.notes)
    owners: dict[str, list[str]] = {}
    for summary in subjects:
        for label in summary.class_counts:
            owners.setdefault(label, []).append(summary.subject)
    for label in sorted(owners):
        if label != NO_LABEL and len(owners[label]) == 1 < len(subjects):
            warnings.append(f"class '{label}' comes from subject '{owners[label][0]}' only; nobody else can test what is learnt of it")
    return tuple(warnings)


def _gravity_warnings(summary: SubjectSummary) -> list[str]:
    """Return a warning for each acceleration along three axes that is not of the size it has with gravity, in m/s^2."""
    lowest, highest = GRAVITY
    warnings = []
    for modality, stream in summary.streams.items():
        with_gravity = stream.unit == "m/s^2" and not any(word in modality.lower() for word in WITHOUT_GRAVITY)
        if with_gravity and (stream.median_norm < lowest or stream.median_norm > highest):
            warnings.append(
                f"subject '{summary.subject}': expected {modality} to show gravity, a median length of {lowest:g} to {highest:g} m/s^2, "
                f"found {stream.median_norm:.3g} m/s^2: correct its unit (g, if the file shows about 1 at rest) or its scale; if gravity "
                f"was taken out of it, give it a name with '{WITHOUT_GRAVITY[0]}' in it"
            )
    return warnings


def _subject(dataset: Dataset, subject: str) -> SubjectSummary:
    recordings = dataset.recordings(subject)
    labels: list[str] = []
    notes: tuple[str, ...]
    try:
        windows = window_recordings(subject, recordings, dataset.modalities, dataset.window)
        labels, notes = windows.labels.tolist(), windows.left_out
    except DataError as error:  # no window left, or channels that differ: worth a line here, and an error in a run
        notes = (str(error),)
    streams = {}
    for modality in dataset.modalities:
        if any(modality in recording.streams for recording in recordings):
            streams[modality] = _stream(modality, recordings)
    return SubjectSummary(
        subject=subject,
        num_sessions=len(recordings),
        streams=streams,
        recorded_s=sum(_length_s(recording) for recording in recordings),
        num_windows=len(labels),
        class_counts=dict(sorted(Counter(labels).items())),
        notes=notes,
    )


def _stream(modality: str, recordings: Sequence[Recording]) -> StreamSummary:
    streams = [recording.streams[modality] for recording in recordings if modality in recording.streams]
    rates_hz = [stream.rate_hz for stream in streams]
    num_lost = sum(int((~np.isfinite(stream.samples)).any(axis=1).sum()) for stream in streams)
    return StreamSummary(
        min_rate_hz=min(rates_hz),
        max_rate_hz=max(rates_hz),
        unit=", ".join(sorted({stream.unit for stream in streams})),
        nan_share=num_lost / sum(len(stream.samples) for stream in streams),
        median_norm=_median_norm(streams),
    )


def _median_norm(streams: Sequence[Stream]) -> float:
    norms = np.concatenate([np.linalg.norm(stream.samples, axis=1) for stream in streams if stream.samples.shape[1] == AXES] or [[]])
    finite = norms[np.isfinite(norms)]
    return float(np.median(finite)) if len(finite) else np.nan


def _length_s(recording: Recording) -> float:
    streams = recording.streams.values()
    return max(stream.end_s for stream in streams) - min(stream.start_s for stream in streams)
