"""USC-HAD: twelve daily activities, 14 subjects, five trials of each; one inertial sensor on the front of the right hip.

Source: Zhang, Sawchuk, "USC-HAD: A daily activity dataset for ubiquitous activity recognition using wearable sensors", UbiComp 2012
workshop SAGAware; `Readme.txt` of the archive USC-HAD.zip of sipi.usc.edu/had, read in a public copy without the recordings,
github.com/ader003/PRCIS/tree/b252714def316c9bf49e23ff0fc02bbc54ead41d/USC-HAD. Written from that description: it has not met the real
archive.
Differs: the acceleration, given in g, becomes m/s^2 and the angular velocity, given in deg/s, becomes rad/s. Subject, activity and trial
are those of the file's name: public code says that the field `activity_number` is spelled `activity_numbr` in some files.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clmm_core.data.datasets.archive import archived_files
from clmm_core.data.recording import STANDARD_GRAVITY, LabelledInterval, Recording, Stream
from clmm_core.data.windows import WindowSpec
from clmm_core.errors import DataError

RATE_HZ = 100.0
# fmt: off
ACTIVITIES = (
    "walking_forward", "walking_left", "walking_right", "walking_upstairs", "walking_downstairs", "running_forward", "jumping_up",
    "sitting", "standing", "sleeping", "elevator_up", "elevator_down",
)
# fmt: on
"""The activity of each activity number, from 1."""
READINGS = "sensor_readings"
WHERE = "get USC-HAD.zip from sipi.usc.edu/had, or correct data.path"
_FILE = re.compile(r"(?:^|/)Subject(\d+)/a(\d+)t(\d+)\.mat$")


@dataclass(frozen=True)
class UscHad:
    """The USC-HAD trials in `path`: the folder that holds Subject1/ and the others, at any depth, or an archive of it.

    Files are read each time their subject's recordings are asked for: a process needs only its own subjects.
    """

    path: Path
    modalities: tuple[str, ...] = ("accelerometer", "gyroscope")

    @property
    def window(self) -> WindowSpec:
        """Windows of 2.56 s at 50 Hz, half overlapping, as UCI-HAR's (Anguita et al., ESANN 2013): the Readme names none."""
        return WindowSpec(length_s=2.56, overlap=0.5, time_steps=dict.fromkeys(self.modalities, 128))

    def subjects(self) -> tuple[str, ...]:
        """Return "1" to "14"."""
        return _subjects(self.path)

    def recordings(self, subject: str) -> tuple[Recording, ...]:
        """Return this subject's trials, by activity, then trial: one recording each, labelled from end to end."""
        wanted = re.compile(rf"(?:^|/)Subject{re.escape(subject)}/a(\d+)t(\d+)\.mat$")
        trials: dict[tuple[int, int], Recording] = {}
        for name, content in archived_files(self.path, wanted):
            match = wanted.search(name)
            assert match is not None
            activity, trial = int(match[1]), int(match[2])
            if not 1 <= activity <= len(ACTIVITIES):
                raise DataError(f"{self.path}: expected activities 1 to {len(ACTIVITIES)}, found {activity} in {name}: remove that file")
            if (activity, trial) not in trials:  # a second copy of the data, such as the archive beside its unpacked folder
                trials[activity, trial] = _recording(subject, activity, trial, _readings(content, f"{self.path}: {name}"))
        return tuple(trials[key] for key in sorted(trials))


@lru_cache(maxsize=4)
def _subjects(path: Path) -> tuple[str, ...]:
    numbers = {int(match[1]) for name, _ in archived_files(path, _FILE) if (match := _FILE.search(name))}
    if not numbers:
        raise DataError(f"{path}: expected files like Subject1/a1t1.mat, found none: {WHERE}")
    return tuple(str(number) for number in sorted(numbers))


def _recording(subject: str, activity: int, trial: int, readings: NDArray[np.float64]) -> Recording:
    accelerometer = np.ascontiguousarray(readings[:, :3] * STANDARD_GRAVITY, dtype=np.float32)
    gyroscope = np.ascontiguousarray(np.deg2rad(readings[:, 3:]), dtype=np.float32)
    return Recording(
        subject=subject,
        session=f"{ACTIVITIES[activity - 1]}-{trial}",
        streams={
            "accelerometer": Stream(samples=accelerometer, rate_hz=RATE_HZ, unit="m/s^2"),
            "gyroscope": Stream(samples=gyroscope, rate_hz=RATE_HZ, unit="rad/s"),
        },
        intervals=(LabelledInterval(label=ACTIVITIES[activity - 1], start_s=0.0, end_s=len(readings) / RATE_HZ),),
    )


def _readings(content: bytes, where: str) -> NDArray[np.float64]:
    """Return `[time, 6]`: acceleration x y z in g, angular velocity x y z in deg/s."""
    try:
        from scipy.io import loadmat  # noqa: PLC0415  only the loaders of MATLAB files need scipy
    except ImportError as error:
        raise DataError("the USC-HAD recordings need the package 'scipy', which is not installed: pip install 'clmm[data]'") from error
    try:
        readings = np.asarray(loadmat(BytesIO(content), variable_names=[READINGS])[READINGS], np.float64)
    except KeyError as error:
        raise DataError(f"{where}: expected the variable {READINGS}, found a .mat file without it: get the official file again") from error
    except Exception as error:  # scipy raises a dozen kinds for damaged bytes, from zlib.error to TypeError
        raise DataError(f"{where}: expected a MATLAB file, cannot read it ({error}): get the official file again") from error
    if readings.ndim != 2 or readings.shape[1] != 6 or len(readings) == 0:
        raise DataError(f"{where}: expected {READINGS} of shape (time, 6), found {readings.shape}: get the official file again")
    return readings
