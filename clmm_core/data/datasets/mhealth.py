"""MHEALTH: twelve activities, ten subjects, one session each; sensors on the chest, the left ankle and the right lower arm.

Source: Banos et al., "mHealthDroid: a novel framework for agile development of mobile health applications", IWAAL 2014; UCI 319
(archive.ics.uci.edu/dataset/319, CC BY 4.0), README.txt of its archive, read in a public copy without the recordings:
github.com/Tahsinmullick/time_series_classification/blob/f4f9decc6c1e4260b621c3564842a9cb50531b4c/MHEALTHDATASET/README.txt. Written from
that description: it has not met the real archive.
Differs: the angular velocity, which the README gives in deg/s, becomes rad/s. The two ECG leads are left out: they show the heart, not
movement, and the authors too kept them out of their recognition. The README counts column 13 twice and no 12: 12 is taken for the first.

Look at the gyroscope and magnetometer before trusting their scale. In 72 real rows, three of each activity of subjects 1 and 2, that public
code quotes (github.com/amal-abid05/MHealth/tree/78a8039c41e7a610e6426d634c119a9ebd0ce842/data), the gyroscope's three numbers have a length
of 0.5 to 1.4 in every activity, standing and running alike, which neither deg/s nor rad/s explains: it is more like a direction. The
magnetometer, whose unit the README calls "local", goes from 0.4 to 306. The acceleration there fits its m/s^2.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clmm_core.data.datasets.archive import archived_files
from clmm_core.data.datasets.text_table import read_text_table
from clmm_core.data.recording import LabelledInterval, Recording, Stream
from clmm_core.data.windows import WindowSpec
from clmm_core.errors import DataError

RATE_HZ = 50.0
NUM_COLUMNS = 24
UNITS = {"accelerometer": "m/s^2", "gyroscope": "rad/s", "magnetometer": "local"}
"""The unit after conversion; the README's "local" has no known factor to uT."""
FIRST_COLUMN = {
    "accelerometer_chest": 0,
    "accelerometer_ankle": 5,
    "gyroscope_ankle": 8,
    "magnetometer_ankle": 11,
    "accelerometer_arm": 14,
    "gyroscope_arm": 17,
    "magnetometer_arm": 20,
}
"""The column of x, from 0, by modality; y and z follow. Columns 3 and 4 are the ECG, the last one is the label."""
# fmt: off
ACTIVITIES = (
    "standing_still", "sitting_and_relaxing", "lying_down", "walking", "climbing_stairs", "waist_bends_forward",
    "frontal_elevation_of_arms", "knees_bending", "cycling", "jogging", "running", "jump_front_and_back",
)
# fmt: on
"""The activity of each label, from 1."""
NULL_CLASS = 0
WHERE = "get the archive from archive.ics.uci.edu/dataset/319, or correct data.path"
_FILE = re.compile(r"(?:^|/)mHealth_subject(\d+)\.log$")


@dataclass(frozen=True)
class Mhealth:
    """The MHEALTH sessions in `path`: the folder that holds the mHealth_subject*.log files, at any depth, or an archive of it.

    A file is read each time its subject's recording is asked for: a process needs only its own subjects.
    """

    path: Path
    modalities: tuple[str, ...] = tuple(FIRST_COLUMN)

    @property
    def window(self) -> WindowSpec:
        """Windows of 2.56 s, half overlapping, as UCI-HAR's (Anguita et al., ESANN 2013): the description names none."""
        return WindowSpec(length_s=2.56, overlap=0.5, time_steps=dict.fromkeys(self.modalities, 128))

    def subjects(self) -> tuple[str, ...]:
        """Return "1" to "10"."""
        return _subjects(self.path)

    def recordings(self, subject: str) -> tuple[Recording, ...]:
        """Return this subject's one session; each stretch of one activity is a trial, the null class is not labelled."""
        wanted = re.compile(rf"(?:^|/)mHealth_subject{re.escape(subject)}\.log$")
        # The first of several copies of the data, such as the archive beside its unpacked folder.
        for name, content in archived_files(self.path, wanted):
            where = f"{self.path}: {name}"
            table = read_text_table(content, columns=NUM_COLUMNS, delimiter=None, where=where, allow_lost=True)
            return (_recording(subject, table, where),)
        return ()


@lru_cache(maxsize=4)
def _subjects(path: Path) -> tuple[str, ...]:
    numbers = {int(match[1]) for name, _ in archived_files(path, _FILE) if (match := _FILE.search(name))}
    if not numbers:
        raise DataError(f"{path}: expected files like mHealth_subject1.log, found none: {WHERE}")
    return tuple(str(number) for number in sorted(numbers))


def _recording(subject: str, table: NDArray[np.float64], where: str) -> Recording:
    streams: dict[str, Stream] = {}
    for modality, first in FIRST_COLUMN.items():
        sensor = modality.split("_")[0]
        samples = table[:, first : first + 3]  # [time, 3]
        if sensor == "gyroscope":
            samples = np.deg2rad(samples)
        streams[modality] = Stream(samples=np.ascontiguousarray(samples, dtype=np.float32), rate_hz=RATE_HZ, unit=UNITS[sensor])
    return Recording(subject=subject, session="1", streams=streams, intervals=_intervals(table[:, -1], where))


def _intervals(labels: NDArray[np.float64], where: str) -> tuple[LabelledInterval, ...]:
    """Return one interval for each run of rows with the same activity."""
    unknown = np.flatnonzero(~np.isin(labels, np.arange(len(ACTIVITIES) + 1)))
    if len(unknown):
        raise DataError(
            f"{where}: expected labels 0 to {len(ACTIVITIES)} in the last column, found {labels[unknown[0]]:g} in row {unknown[0] + 1}: "
            "get the official file again"
        )
    starts = np.flatnonzero(np.diff(labels, prepend=-1))
    ends = np.append(starts[1:], len(labels))
    return tuple(
        LabelledInterval(label=ACTIVITIES[int(labels[start]) - 1], start_s=float(start / RATE_HZ), end_s=float(end / RATE_HZ))
        for start, end in zip(starts, ends, strict=True)
        if labels[start] != NULL_CLASS
    )
