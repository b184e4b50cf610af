"""HAPT: six activities and the six transitions between their postures, thirty subjects; a phone on the waist, 50 Hz.

Source: Reyes-Ortiz, Oneto, Samà, Parra, Anguita, "Transition-aware human activity recognition using smartphones", Neurocomputing 171,
2016; UCI data set 341, folder `RawData`, archive.ics.uci.edu/dataset/341. The same people and the same recordings as UCI-HAR's.
Differs: the acceleration, given in g, becomes m/s^2. Nothing is filtered: the official features were made of signals through a median
and a 20 Hz Butterworth filter.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clmm_core.data.datasets.archive import archived_files
from clmm_core.data.datasets.parsed import parsed_once
from clmm_core.data.datasets.text_table import read_text_table
from clmm_core.data.recording import STANDARD_GRAVITY, LabelledInterval, Recording, Stream
from clmm_core.data.windows import WindowSpec
from clmm_core.errors import DataError

RATE_HZ = 50.0
# fmt: off
ACTIVITIES = (
    "walking", "walking_upstairs", "walking_downstairs", "sitting", "standing", "laying",
    "stand_to_sit", "sit_to_stand", "sit_to_lie", "lie_to_sit", "stand_to_lie", "lie_to_stand",
)
# fmt: on
"""The activity of each number of `labels.txt`, from 1."""
MODALITIES = {"acc": "accelerometer", "gyro": "gyroscope"}
WHERE = "get the archive of archive.ics.uci.edu/dataset/341, or correct data.path"
_FILE = re.compile(r"(?:^|/)(?:(acc|gyro)_exp(\d+)_user(\d+)|labels)\.txt$")

_Experiment = tuple[int, int]
"""Subject, experiment: the order of the recordings."""


@dataclass(frozen=True)
class Hapt:
    """The experiments of the folder `RawData` in `path`, a folder or an archive."""

    path: Path
    modalities: tuple[str, ...] = tuple(MODALITIES.values())

    @property
    def window(self) -> WindowSpec:
        """Windows of 2.56 s, half overlapping: length and overlap of the official features.

        Those were cut inside the labelled intervals; ours cross their borders too and have the label that covers more than half.
        """
        return WindowSpec(length_s=2.56, overlap=0.5, time_steps=dict.fromkeys(self.modalities, 128))

    def subjects(self) -> tuple[str, ...]:
        """Return "1" to "30"."""
        return tuple(_by_subject(self.path))

    def recordings(self, subject: str) -> tuple[Recording, ...]:
        """Return this subject's experiments by number, each with both streams; unlabelled time has no interval."""
        return _by_subject(self.path).get(subject, ())


@parsed_once
def _by_subject(path: Path) -> dict[str, tuple[Recording, ...]]:
    experiments: dict[_Experiment, dict[str, Stream]] = {}
    labels: dict[_Experiment, list[LabelledInterval]] | None = None
    for name, content in archived_files(path, _FILE):
        kind, experiment, subject = _FILE.findall(name)[0]
        if kind:
            experiments.setdefault((int(subject), int(experiment)), {})[MODALITIES[kind]] = _stream(kind, content, f"{path}: {name}")
        else:
            labels = _labels(content, f"{path}: {name}")
    if not experiments:
        raise DataError(f"{path}: expected files like RawData/acc_exp01_user01.txt, found none: {WHERE}")
    if labels is None:
        raise DataError(f"{path}: expected RawData/labels.txt, found none: {WHERE}")
    recordings: dict[str, list[Recording]] = {}
    for subject, experiment in sorted(experiments.keys() | labels.keys()):
        streams = experiments.get((subject, experiment), {})
        intervals = labels.get((subject, experiment), [])
        _check_whole(subject, experiment, intervals, streams, path)
        _check_ends(intervals, streams, f"{path}: experiment {experiment}")
        recording = Recording(
            subject=str(subject), session=f"experiment-{experiment}", streams=dict(sorted(streams.items())), intervals=tuple(intervals)
        )
        recordings.setdefault(str(subject), []).append(recording)
    return {subject: tuple(of_subject) for subject, of_subject in recordings.items()}


def _stream(kind: str, content: bytes, where: str) -> Stream:
    samples = read_text_table(content, columns=3, delimiter=None, where=where)  # [time, 3]
    if kind == "acc":
        return Stream(samples=(samples * STANDARD_GRAVITY).astype(np.float32), rate_hz=RATE_HZ, unit="m/s^2")
    return Stream(samples=samples.astype(np.float32), rate_hz=RATE_HZ, unit="rad/s")


def _labels(content: bytes, where: str) -> dict[_Experiment, list[LabelledInterval]]:
    """Return each experiment's labelled intervals, in the order of their starts."""
    table: NDArray[np.float64] = read_text_table(content, columns=5, delimiter=None, where=where)
    by_experiment: dict[_Experiment, list[LabelledInterval]] = {}
    for experiment, subject, activity, start, end in sorted(table.astype(np.int64).tolist(), key=lambda row: (row[0], row[3])):
        if not 1 <= activity <= len(ACTIVITIES):
            raise DataError(f"{where}: expected activities 1 to {len(ACTIVITIES)}, found {activity}: get the official file again")
        if not 1 <= start <= end:
            raise DataError(f"{where}: expected samples from 1 on, first before last, found {start} to {end}: get the official file again")
        # Samples count from 1, and the last one belongs to the interval.
        interval = LabelledInterval(label=ACTIVITIES[activity - 1], start_s=(start - 1) / RATE_HZ, end_s=end / RATE_HZ)
        by_experiment.setdefault((subject, experiment), []).append(interval)
    return by_experiment


def _check_whole(subject: int, experiment: int, intervals: Sequence[LabelledInterval], streams: Mapping[str, Stream], path: Path) -> None:
    """Refuse an experiment of which a file or the labels did not arrive."""
    absent = [f"{kind}_exp{experiment:02d}_user{subject:02d}.txt" for kind, modality in MODALITIES.items() if modality not in streams]
    if not intervals:
        absent.append("line of it in labels.txt")
    if absent:
        raise DataError(
            f"{path}: experiment {experiment} of subject {subject}: expected its accelerometer, its gyroscope and its labels, found no "
            f"{', '.join(absent)}: fetch the official files again (`clmm data fetch hapt`), or correct data.path"
        )


def _check_ends(intervals: Sequence[LabelledInterval], streams: dict[str, Stream], where: str) -> None:
    """Refuse labels that do not belong to these files."""
    end_s = max(stream.end_s for stream in streams.values())
    for interval in intervals:
        if interval.end_s > end_s + 0.5 / RATE_HZ:
            raise DataError(
                f"{where}: expected labels inside its {end_s:g} s, found '{interval.label}' up to {interval.end_s:g} s: get the official "
                "files again, all of one version"
            )
