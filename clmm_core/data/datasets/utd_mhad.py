"""UTD-MHAD: 27 actions, eight subjects, four repetitions; one inertial sensor on the wrist or the thigh, and a Kinect skeleton.

Source: Chen, Jafari, Kehtarnavaz, "UTD-MHAD: A multimodal dataset for human action recognition utilizing a depth camera and a wearable
inertial sensor", ICIP 2015; files `Inertial.zip` and `Skeleton.zip` of personal.utdallas.edu/~kehtar/UTD-MHAD.html.
Differs: the nominal rates (inertial 50 Hz, skeleton 30 Hz) do not hold: the ratio of the two lengths is 2.4 to 4.5 from trial to trial, not
1.67. Both streams of a trial show the same movement, so inertial keeps its nominal 50 Hz and the skeleton gets the rate that makes it span
exactly the same time; a trial without inertial data keeps the nominal 30 Hz. The acceleration, given in g, becomes m/s^2, the angular
velocity, given in deg/s, becomes rad/s, and the skeleton is moved so that its spine joint is the origin in the trial's first frame.
"""

import re
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clmm_core.data.datasets.archive import archived_files
from clmm_core.data.datasets.parsed import parsed_once
from clmm_core.data.recording import STANDARD_GRAVITY, Float32, LabelledInterval, Recording, Stream
from clmm_core.data.windows import WindowSpec
from clmm_core.errors import DataError

INERTIAL_RATE_HZ = 50.0
SKELETON_RATE_HZ = 30.0
SPINE = 2
"""Row of the torso joint, from the archive's `Skeleton_joint_order.txt`: head, shoulder centre, spine, hip centre, ..."""
# fmt: off
ACTIONS = (
    "swipe_left", "swipe_right", "wave", "clap", "throw", "arm_cross", "basketball_shoot", "draw_x", "draw_circle_clockwise",
    "draw_circle_counter_clockwise", "draw_triangle", "bowling", "boxing", "baseball_swing", "tennis_swing", "arm_curl", "tennis_serve",
    "push", "knock", "catch", "pickup_and_throw", "jog", "walk", "sit_to_stand", "stand_to_sit", "lunge", "squat",
)
# fmt: on
"""The activity of each action number, from 1."""
HALVES = ("Inertial", "Skeleton")
WHERE = "put Inertial.zip and Skeleton.zip from personal.utdallas.edu/~kehtar/UTD-MHAD.html there"
_FILE = re.compile(r"(?:^|/)a(\d+)_s(\d+)_t(\d+)_(inertial|skeleton)\.mat$")

_Trial = tuple[int, int, int]
"""Subject, action, repetition: the order of the recordings."""


@dataclass(frozen=True)
class UtdMhad:
    """The UTD-MHAD trials in `path`: a folder (unpacked or with the two official zips) or an archive of it."""

    path: Path
    modalities: tuple[str, ...] = ("accelerometer", "gyroscope", "skeleton")

    @property
    def window(self) -> WindowSpec:
        """One window a trial: a trial is one action, 2 to 6 s long."""
        return WindowSpec(length_s=None, time_steps={"accelerometer": 128, "gyroscope": 128, "skeleton": 64})

    def subjects(self) -> tuple[str, ...]:
        """Return "1" to "8"."""
        return tuple(_by_subject(self.path))

    def recordings(self, subject: str) -> tuple[Recording, ...]:
        """Return this subject's trials, by action, then repetition; a stream whose file is missing is absent."""
        return _by_subject(self.path).get(subject, ())


@parsed_once
def _by_subject(path: Path) -> dict[str, tuple[Recording, ...]]:
    """Read everything in one pass: a tar has no index, and all of it is 50 MB."""
    trials: dict[_Trial, dict[str, NDArray[np.float64]]] = {}
    for name, content in archived_files(path, _FILE):
        *numbers, kind = _FILE.findall(name)[0]
        action, subject, repetition = (int(number) for number in numbers)
        if not 1 <= action <= len(ACTIONS):
            raise DataError(f"{path}: expected actions 1 to {len(ACTIONS)}, found {action} in {name}: remove that file")
        trials.setdefault((subject, action, repetition), {})[kind] = _matrix(content, kind, f"{path}: {name}")
    for half in HALVES:
        if not any(half.lower() in files for files in trials.values()):
            raise DataError(f"{path}: expected {half}/ or {half}.zip with files like a1_s1_t1_{half.lower()}.mat, found none: {WHERE}")
    recordings: dict[str, list[Recording]] = {}
    for trial in sorted(trials):
        recordings.setdefault(str(trial[0]), []).append(_recording(trial, trials[trial]))
    return {subject: tuple(of_subject) for subject, of_subject in recordings.items()}


def _recording(trial: _Trial, files: dict[str, NDArray[np.float64]]) -> Recording:
    subject, action, repetition = trial
    streams: dict[str, Stream] = {}
    duration_s = len(files["inertial"]) / INERTIAL_RATE_HZ if "inertial" in files else files["skeleton"].shape[2] / SKELETON_RATE_HZ
    if "inertial" in files:
        accelerometer = files["inertial"][:, :3] * STANDARD_GRAVITY
        gyroscope = np.deg2rad(files["inertial"][:, 3:])
        streams["accelerometer"] = Stream(samples=_float32(accelerometer), rate_hz=INERTIAL_RATE_HZ, unit="m/s^2")
        streams["gyroscope"] = Stream(samples=_float32(gyroscope), rate_hz=INERTIAL_RATE_HZ, unit="rad/s")
    if "skeleton" in files:
        joints = files["skeleton"] - files["skeleton"][SPINE, :, :1]  # [20, 3, time], less the spine [3, 1] of the first frame
        skeleton = joints.transpose(2, 0, 1).reshape(joints.shape[2], -1)  # [time, 60]
        streams["skeleton"] = Stream(samples=_float32(skeleton), rate_hz=len(skeleton) / duration_s, unit="m")
    return Recording(
        subject=str(subject),
        session=f"{ACTIONS[action - 1]}-{repetition}",
        streams=streams,
        intervals=(LabelledInterval(label=ACTIONS[action - 1], start_s=0.0, end_s=duration_s),),
    )


def _float32(values: NDArray[np.float64]) -> Float32:
    return np.ascontiguousarray(values, dtype=np.float32)


def _matrix(content: bytes, kind: str, where: str) -> NDArray[np.float64]:
    """Return `d_iner` [time, 6] or `d_skel` [20, 3, time] of one file."""
    try:
        from scipy.io import loadmat  # noqa: PLC0415  only this loader needs scipy
    except ImportError as error:
        raise DataError("the UTD-MHAD recordings need the package 'scipy', which is not installed: pip install 'clmm[data]'") from error
    key = "d_iner" if kind == "inertial" else "d_skel"
    try:
        matrix = np.asarray(loadmat(BytesIO(content), variable_names=[key])[key], np.float64)
    except KeyError as error:
        raise DataError(f"{where}: expected the variable {key}, found a .mat file without it: get the official file again") from error
    except Exception as error:  # scipy raises a dozen kinds for damaged bytes, from zlib.error to TypeError
        raise DataError(f"{where}: expected a MATLAB file, cannot read it ({error}): get the official file again") from error
    if kind == "inertial" and (matrix.ndim != 2 or matrix.shape[1] != 6 or len(matrix) == 0):
        raise DataError(f"{where}: expected d_iner of shape (time, 6), found {matrix.shape}: get the official file again")
    if kind == "skeleton" and (matrix.shape[:2] != (20, 3) or matrix.ndim != 3 or matrix.shape[2] == 0):
        raise DataError(f"{where}: expected d_skel of shape (20, 3, time), found {matrix.shape}: get the official file again")
    return matrix
