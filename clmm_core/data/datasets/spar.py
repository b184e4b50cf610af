"""SPAR: seven shoulder exercises with a smartwatch, ten subjects; real data that come with a pip package.

Source: Burns, Leung, Hardisty, Whyne, Henry, McLachlin, "Shoulder physiotherapy exercise recognition: machine learning the inertial
signals from a smartwatch", Physiol. Meas. 2018 (arXiv 1802.01489); array `watch_dataset.npy` of the `seglearn` package (BSD).
Differs: the array is read from the package's files without importing the package (its import needs pandas); the acceleration, given
in g, becomes m/s^2. The two sides (left, right arm) of a subject and exercise are its two trials; the left one is brought to the right
wrist's frame, because a watch knows which wrist it is on. Left and right mirror each other in the x axis: over subjects and exercises
the mean x acceleration of the two sides correlates with -0.95, y with 0.97 and z with 0.84.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from clmm_core.data.datasets.parsed import parsed_once
from clmm_core.data.recording import STANDARD_GRAVITY, LabelledInterval, Recording, Stream
from clmm_core.data.windows import WindowSpec
from clmm_core.errors import DataError

RATE_HZ = 50.0
# A mirror across the plane x = 0 turns a velocity's x round, and the y and z of a rotation (an axial vector).
MIRROR = np.array([-1, 1, 1, 1, -1, -1], np.float32)


@dataclass(frozen=True)
class Spar:
    """The SPAR recordings: 10 subjects x 7 exercises x 2 sides, watch accelerometer and gyroscope at 50 Hz."""

    modalities: tuple[str, ...] = ("accelerometer", "gyroscope")

    @property
    def window(self) -> WindowSpec:
        """Windows of 4 s side by side: a repetition of these exercises takes 1 to 2 s."""
        return WindowSpec(length_s=4.0, time_steps={"accelerometer": 200, "gyroscope": 200})

    def subjects(self) -> tuple[str, ...]:
        """Return "1" to "10"."""
        return tuple(str(subject) for subject in sorted(set(_arrays()["subject"].tolist())))

    def recordings(self, subject: str) -> tuple[Recording, ...]:
        """Return this subject's 14 recordings, by exercise, then left before right."""
        arrays = _arrays()
        rows = [i for i, number in enumerate(arrays["subject"]) if str(number) == subject]
        rows.sort(key=lambda i: (int(arrays["y"][i]), float(arrays["side"][i])))
        return tuple(_recording(arrays, i) for i in rows)


def array_file() -> Path:
    """Return the file with the recordings.

    Raises:
        DataError: the package that brings it is not installed, or lacks it.
    """
    package = find_spec("seglearn")
    if package is None or package.origin is None:
        raise DataError("the SPAR recordings come with the package 'seglearn', which is not installed: pip install seglearn")
    path = Path(package.origin).parent / "data" / "watch_dataset.npy"
    if not path.is_file():
        raise DataError(f"expected the SPAR recordings in {path}, found no such file: reinstall seglearn")
    return path


@parsed_once
def _arrays() -> dict[str, Any]:
    # A pickle: it is trusted because it comes with a package the user installed, like that package's code.
    loaded: dict[str, Any] = np.load(array_file(), allow_pickle=True).item()
    return loaded


def _recording(arrays: dict[str, Any], row: int) -> Recording:
    samples = np.asarray(arrays["X"][row], np.float32)  # [time, 6]: ax ay az (g), wx wy wz (rad/s)
    label = str(arrays["y_labels"][int(arrays["y"][row])])
    side = "right" if arrays["side"][row] else "left"
    if side == "left":
        samples = samples * MIRROR
    return Recording(
        subject=str(arrays["subject"][row]),
        session=f"{label}-{side}",
        streams={
            "accelerometer": Stream(samples=samples[:, :3] * np.float32(STANDARD_GRAVITY), rate_hz=RATE_HZ, unit="m/s^2"),
            "gyroscope": Stream(samples=samples[:, 3:], rate_hz=RATE_HZ, unit="rad/s"),
        },
        intervals=(LabelledInterval(label=label, start_s=0.0, end_s=len(samples) / RATE_HZ),),
    )
