"""WISDM 2019: 18 activities of three minutes, 51 subjects; a phone in the right front pocket and a watch on the dominant wrist, 20 Hz.

Source: Weiss, Yoneda, Hayajneh, "Smartphone and smartwatch-based biometrics using activities of daily living", IEEE Access 7, 2019; UCI
data set 507, folder `raw` (CC BY 4.0), archive.ics.uci.edu/dataset/507.
Differs: each stream is resampled to 20 Hz by its timestamps, because parts of the raw files come at 50 or 100 Hz; gaps above 0.5 s become
NaN. Timestamps count from a device's own start, so phone and watch have no common clock: the start of an activity is 0 on both. A
device's two sensors share its clock; what the earlier one (at most 1 s) measured alone is left out. Lines are sorted by time; of lines
with the same time the first counts; where a pause is longer than a minute the longest stretch counts; a line that cannot be read is
left out like a lost sample.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clmm_core.data.datasets.archive import archived_files
from clmm_core.data.datasets.parsed import parsed_once
from clmm_core.data.datasets.resampling import resampled
from clmm_core.data.recording import LabelledInterval, Recording, Stream
from clmm_core.data.windows import WindowSpec
from clmm_core.errors import DataError

RATE_HZ = 20.0
MAX_PAUSE_S = 60.0
"""After a longer pause inside an activity's three minutes it was another attempt, or the clock jumped."""
MAX_LEAD_S = 1.0
"""By how much a device's first sensor may start earlier and be cut to the second one's start: 0.45 s at most in the eight subjects seen."""
ACTIVITIES = {
    "A": "walking",
    "B": "jogging",
    "C": "stairs",
    "D": "sitting",
    "E": "standing",
    "F": "typing",
    "G": "brushing_teeth",
    "H": "eating_soup",
    "I": "eating_chips",
    "J": "eating_pasta",
    "K": "drinking",
    "L": "eating_sandwich",
    "M": "kicking",
    "O": "playing_catch",
    "P": "dribbling",
    "Q": "writing",
    "R": "clapping",
    "S": "folding_clothes",
}
"""By the letter of `activity_key.txt`, which has no N."""
DEVICES = ("phone", "watch")
SENSORS = {"accel": "accelerometer", "gyro": "gyroscope"}
UNITS = {"accel": "m/s^2", "gyro": "rad/s"}
WHERE = "get the archive of archive.ics.uci.edu/dataset/507, or correct data.path"
_FILE = re.compile(r"(?:^|/)data_(\d+)_(accel|gyro)_(phone|watch)\.txt$")
_NUMBER = rb"(-?\d+(?:\.\d*)?(?:[eE]-?\d+)?)"
_LINE = re.compile(rb"^\d+,([A-MO-S]),(\d+)," + _NUMBER + rb"," + _NUMBER + rb"," + _NUMBER + rb";?[ \t\r]*$", re.MULTILINE)

_Activity = tuple[int, str]
"""Subject, letter: the order of the recordings."""


@dataclass(frozen=True)
class Wisdm2019:
    """The files `data_1600_accel_phone.txt` and the like in `path`, a folder or an archive."""

    path: Path
    modalities: tuple[str, ...] = tuple(f"{device}_{sensor}" for device in DEVICES for sensor in SENSORS.values())

    @property
    def window(self) -> WindowSpec:
        """Windows of 10 s side by side: those of the official features."""
        return WindowSpec(length_s=10.0, time_steps=dict.fromkeys(self.modalities, 200))

    def subjects(self) -> tuple[str, ...]:
        """Return those of "1600" to "1650" that are there."""
        return tuple(_by_subject(self.path))

    def recordings(self, subject: str) -> tuple[Recording, ...]:
        """Return this subject's activities by letter, one recording each; a stream without a line of that activity is absent."""
        return _by_subject(self.path).get(subject, ())


@parsed_once  # the whole set takes 160 MB
def _by_subject(path: Path) -> dict[str, tuple[Recording, ...]]:
    activities: dict[_Activity, dict[str, Stream]] = {}
    for name, content in archived_files(path, _FILE):
        subject, sensor, device = _FILE.findall(name)[0]
        for letter, stream in _streams(content, UNITS[sensor], f"{path}: {name}").items():
            activities.setdefault((int(subject), letter), {})[f"{device}_{SENSORS[sensor]}"] = stream
    if not activities:
        raise DataError(f"{path}: expected files like raw/phone/accel/data_1600_accel_phone.txt, found none: {WHERE}")
    recordings: dict[str, list[Recording]] = {}
    for subject, letter in sorted(activities):
        recordings.setdefault(str(subject), []).append(_recording(subject, letter, activities.pop((subject, letter))))
    return {subject: tuple(of_subject) for subject, of_subject in recordings.items()}


def _streams(content: bytes, unit: str, where: str) -> dict[str, Stream]:
    """Return each activity's stream by letter, on the device's own clock."""
    lines = _LINE.findall(content)
    if not lines:
        raise DataError(f"{where}: expected lines like '1600,A,252207666810782,-0.36,8.79,1.05;', found none: get the official file again")
    letters, times_ns, *axes = (np.array(column) for column in zip(*lines, strict=True))
    times_s = times_ns.astype(np.int64) / 1e9  # a float64 keeps a microsecond of a clock that counts from 1970, more of one that does not
    samples = np.stack(axes, axis=1).astype(np.float64)  # [time, 3]
    streams = {}
    for letter in np.unique(letters):
        rows = np.flatnonzero(letters == letter)
        kept_s, kept = _longest_stretch(times_s[rows], samples[rows])
        streams[letter.decode()] = resampled(kept_s, kept, rate_hz=RATE_HZ, unit=unit)
    return streams


def _longest_stretch(times_s: NDArray[np.float64], samples: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the rows in the order of their times, no time twice, between the pauses that leave most time together."""
    times_s, first_rows = np.unique(times_s, return_index=True)
    samples = samples[first_rows]
    pauses = np.flatnonzero(np.diff(times_s) > MAX_PAUSE_S) + 1
    starts, ends = np.append(0, pauses), np.append(pauses, len(times_s))
    longest = int(np.argmax(times_s[ends - 1] - times_s[starts]))
    stretch = slice(starts[longest], ends[longest])
    return times_s[stretch], samples[stretch]


def _recording(subject: int, letter: str, streams: dict[str, Stream]) -> Recording:
    aligned: dict[str, Stream] = {}
    for device in DEVICES:
        aligned |= _from_zero({modality: stream for modality, stream in streams.items() if modality.startswith(device)})
    return Recording(
        subject=str(subject),
        session=ACTIVITIES[letter],
        streams=aligned,
        intervals=(LabelledInterval(label=ACTIVITIES[letter], start_s=0.0, end_s=max(stream.end_s for stream in aligned.values())),),
    )


def _from_zero(streams: dict[str, Stream]) -> dict[str, Stream]:
    """Return one device's streams with 0 where both sensors run; what one measured before is left out."""
    earliest_s = min((stream.start_s for stream in streams.values()), default=0.0)
    origin_s = max((stream.start_s for stream in streams.values() if stream.start_s <= earliest_s + MAX_LEAD_S), default=0.0)
    aligned = {}
    for modality, stream in sorted(streams.items()):
        lead = max(0, round((origin_s - stream.start_s) * RATE_HZ))  # whole samples: both streams lie on one grid
        if lead < len(stream.samples):
            start_s = max(0.0, stream.start_s - origin_s)
            aligned[modality] = replace(stream, samples=np.ascontiguousarray(stream.samples[lead:]), start_s=start_s)
    return aligned
