"""DSADS: 19 daily and sports activities, eight subjects, five minutes each; five sensor units on the body, 25 Hz.

Source: Altun, Barshan, Tunçel, "Comparative study on classifying human activities with miniature inertial and magnetic sensors", Pattern
Recognition 43(10), 2010; UCI data set 256, "Daily and Sports Activities" (CC BY 4.0), archive.ics.uci.edu/dataset/256. The unit of the
magnetometer is Xsens's, "MTi and MTx User Manual" MT0100P, section 4.5.2: arbitrary, 1 is the strength of the earth's field.
Differs: the official segments of 5 s are put together again where their numbers follow each other, each staying one labelled interval.
Numbers that follow each other do not always mean time that does: on stairs (both ways) four borders of five are a jump, elsewhere one in
forty. The window is one segment, so it never crosses a border; windows of another length may.
"""

import re
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np

from clmm_core.data.datasets.archive import archived_files
from clmm_core.data.datasets.parsed import parsed_once
from clmm_core.data.datasets.text_table import read_text_table
from clmm_core.data.recording import Float32, LabelledInterval, Recording, Stream
from clmm_core.data.windows import WindowSpec
from clmm_core.errors import DataError

RATE_HZ = 25.0
SEGMENT_STEPS = 125
SEGMENT_S = SEGMENT_STEPS / RATE_HZ
# fmt: off
ACTIVITIES = (
    "sitting", "standing", "lying_on_back", "lying_on_right_side", "ascending_stairs", "descending_stairs", "standing_in_elevator",
    "moving_in_elevator", "walking_in_parking_lot", "walking_on_treadmill", "walking_on_inclined_treadmill", "running_on_treadmill",
    "exercising_on_stepper", "exercising_on_cross_trainer", "cycling_horizontal", "cycling_vertical", "rowing", "jumping",
    "playing_basketball",
)
# fmt: on
"""The activity of each folder a01 to a19."""
POSITIONS = ("torso", "right_arm", "left_arm", "right_leg", "left_leg")
UNITS = {"accelerometer": "m/s^2", "gyroscope": "rad/s", "magnetometer": "1"}
MODALITIES = tuple(f"{sensor}_{position}" for position in POSITIONS for sensor in UNITS)
"""Three columns each, in the order of the files."""
WHERE = "get the archive of archive.ics.uci.edu/dataset/256, or correct data.path"
_FILE = re.compile(r"(?:^|/)a(\d\d)/p(\d)/s(\d\d)\.txt$")

_Segment = tuple[int, int, int]
"""Subject, activity, number: the order of the segments."""


@dataclass(frozen=True)
class Dsads:
    """The segments `a01/p1/s01.txt` to `a19/p8/s60.txt` in `path`, a folder or an archive."""

    path: Path
    modalities: tuple[str, ...] = MODALITIES

    @property
    def window(self) -> WindowSpec:
        """Windows of 5 s side by side: the official segments."""
        return WindowSpec(length_s=SEGMENT_S, time_steps=dict.fromkeys(self.modalities, SEGMENT_STEPS))

    def subjects(self) -> tuple[str, ...]:
        """Return "1" to "8"."""
        return tuple(_by_subject(self.path))

    def recordings(self, subject: str) -> tuple[Recording, ...]:
        """Return this subject's activities, in the order of their numbers; one recording each unless segments are missing between."""
        return _by_subject(self.path).get(subject, ())


@parsed_once  # the whole set takes 200 MB
def _by_subject(path: Path) -> dict[str, tuple[Recording, ...]]:
    segments: dict[_Segment, Float32] = {}
    for name, content in archived_files(path, _FILE):
        activity, subject, number = (int(digits) for digits in _FILE.findall(name)[0])
        if not 1 <= activity <= len(ACTIVITIES):
            raise DataError(f"{path}: expected activities a01 to a{len(ACTIVITIES)}, found {name}: remove that folder")
        segments[subject, activity, number] = _segment(content, f"{path}: {name}")
    if not segments:
        raise DataError(f"{path}: expected files like a01/p1/s01.txt, found none: {WHERE}")
    recordings: dict[str, list[Recording]] = {}
    in_order = list(enumerate(sorted(segments)))
    for _, run in groupby(in_order, key=lambda item: (*item[1][:2], item[1][2] - item[0])):  # consecutive: number - place is constant
        keys = [key for _, key in run]
        recordings.setdefault(str(keys[0][0]), []).append(_recording(keys[0], [segments.pop(key) for key in keys]))
    return {subject: tuple(of_subject) for subject, of_subject in recordings.items()}


def _segment(content: bytes, where: str) -> Float32:
    table = read_text_table(content, columns=3 * len(MODALITIES), delimiter=",", where=where)
    if len(table) != SEGMENT_STEPS:
        raise DataError(f"{where}: expected {SEGMENT_STEPS} lines, found {len(table)}: get the official file again")
    return table.astype(np.float32)


def _recording(first: _Segment, segments: list[Float32]) -> Recording:
    subject, activity, number = first
    label = ACTIVITIES[activity - 1]
    samples = np.concatenate(segments)  # [time, 45]
    streams = {}
    for i, modality in enumerate(MODALITIES):
        columns = np.ascontiguousarray(samples[:, 3 * i : 3 * i + 3])
        streams[modality] = Stream(samples=columns, rate_hz=RATE_HZ, unit=UNITS[modality.split("_")[0]])
    borders_s = [i * SEGMENT_S for i in range(len(segments) + 1)]
    return Recording(
        subject=str(subject),
        session=f"{label}-{number}",
        streams=streams,
        intervals=tuple(LabelledInterval(label=label, start_s=start_s, end_s=end_s) for start_s, end_s in pairwise(borders_s)),
    )
