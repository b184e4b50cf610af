"""UMAFall: twelve daily activities and three staged falls, 19 subjects; four sensor tags on the body and a phone in the right pocket.

Source: Casilari, Santoyo-Ramón, Cano-García, "UMAFall: a multisensor dataset for the research on automatic fall detection", Procedia
Computer Science 110, 2017; figshare 4214283 (CC BY 4.0).
Differs: the acceleration, given in g, becomes m/s^2, the angular velocity, given in deg/s, becomes rad/s. The timestamps say when a
sample reached the phone. The tags (nominal 20 Hz, 16 to 21 Hz arrive) are resampled to 20 Hz by them; gaps above 0.5 s become NaN. The
phone's own samples reach the app in batches, up to half of them with the time of the one before; they are spread apart again (see
`_spread`) and resampled to 200 Hz. A tag that was not connected, the waist's in a quarter of the trials, has no stream; nor has a
magnetometer that shows nothing but zeros (5 in the eight subjects seen), which `left_out` names.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clmm_core.data.datasets.archive import archived_files
from clmm_core.data.datasets.parsed import parsed_once
from clmm_core.data.datasets.resampling import resampled
from clmm_core.data.datasets.text_table import read_text_table
from clmm_core.data.recording import STANDARD_GRAVITY, LabelledInterval, Recording, Stream
from clmm_core.data.windows import WindowSpec
from clmm_core.errors import DataError

TAG_RATE_HZ = 20.0
PHONE_RATE_HZ = 200.0
PHONE_PERIOD_S = 0.0049
"""The shortest time between two samples of the phones used: 197.5 to 202.7 Hz were measured."""
MAX_TRIAL_S = 60.0
"""All trials take 15 s; a clock that jumped must not make a stream of hours."""
MAX_EDGE_S = 1.5
"""A stream that starts later or ends earlier than the others by more is absent from its trial, instead of cutting it short."""
ACTIVITIES = {
    "Aplausing": "clapping",
    "Bending": "bending",
    "GoDownstairs": "going_downstairs",
    "GoUpstairs": "going_upstairs",
    "HandsUp": "raising_hands",
    "Hopping": "hopping",
    "Jogging": "jogging",
    "LyingDown_OnABed": "lying_down_on_bed",
    "MakingACall": "making_call",
    "OpeningDoor": "opening_door",
    "Sitting_GettingUpOnAChair": "sitting_down_and_getting_up",
    "Walking": "walking",
    "backwardFall": "backward_fall",
    "forwardFall": "forward_fall",
    "lateralFall": "lateral_fall",
}
"""By the movement in a file's name."""
POSITIONS = {"CHEST": "chest", "WAIST": "waist", "WRIST": "wrist", "ANKLE": "ankle", "RIGHTPOCKET": "pocket"}
PHONE = "pocket"
SENSORS = ("accelerometer", "gyroscope", "magnetometer")
"""By the sensor type of the files."""
FACTORS = {"accelerometer": STANDARD_GRAVITY, "gyroscope": np.pi / 180, "magnetometer": 1.0}
UNITS = {"accelerometer": "m/s^2", "gyroscope": "rad/s", "magnetometer": "uT"}
WHERE = "get the files of figshare.com/articles/dataset/4214283, or correct data.path"
_FILE = re.compile(r"(?:^|/)UMAFall_Subject_(\d+)_(?:ADL|Fall)_(\w+?)_(\d+)_(\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d)\.csv$")
_POSITION = re.compile(rb"^%[^;\n]*; *(\d+); *(\w+);[^;\n]*$", re.MULTILINE)

_Trial = tuple[int, str, int, str]
"""Subject, movement, number, time: the order of the recordings; a number is given twice now and then."""


@dataclass(frozen=True)
class UmaFall:
    """The files `UMAFall_Subject_01_ADL_Walking_1_2016-06-13_20-27-49.csv` and the like in `path`, a folder or an archive."""

    path: Path
    modalities: tuple[str, ...] = (
        *(f"{sensor}_{position}" for position in POSITIONS.values() if position != PHONE for sensor in SENSORS),
        f"accelerometer_{PHONE}",
    )

    @property
    def window(self) -> WindowSpec:
        """One window a trial of 15 s, because only a trial has a label: a fall takes 2 s of its trial, the rest is standing and lying.

        Of the 3 s pieces of a fall's trial fewer than half hold any movement. The tags keep their 20 Hz, the phone gets 50 Hz.
        """
        steps = {modality: 750 if modality.endswith(PHONE) else 300 for modality in self.modalities}
        return WindowSpec(length_s=None, time_steps=steps)

    def subjects(self) -> tuple[str, ...]:
        """Return those of "1" to "19" that are there."""
        return tuple(_by_subject(self.path))

    def recordings(self, subject: str) -> tuple[Recording, ...]:
        """Return this subject's trials by movement, number and time of day."""
        return _by_subject(self.path).get(subject, ())


@parsed_once
def _by_subject(path: Path) -> dict[str, tuple[Recording, ...]]:
    trials: dict[_Trial, Recording] = {}
    for name, content in archived_files(path, _FILE):
        subject, movement, number, time = _FILE.findall(name)[0]
        if movement not in ACTIVITIES:
            raise DataError(f"{path}: expected one of the movements {', '.join(ACTIVITIES)}, found {name}: remove that file")
        trial = (int(subject), movement, int(number), time)
        trials[trial] = _recording(trial, content, f"{path}: {name}")
    if not trials:
        raise DataError(f"{path}: expected files like UMAFall_Subject_01_ADL_Walking_1_2016-06-13_20-27-49.csv, found none: {WHERE}")
    recordings: dict[str, list[Recording]] = {}
    for trial in sorted(trials):
        recordings.setdefault(str(trial[0]), []).append(trials[trial])
    return {subject: tuple(of_subject) for subject, of_subject in recordings.items()}


def _recording(trial: _Trial, content: bytes, where: str) -> Recording:
    subject, movement, number, time = trial
    streams = _streams(content, where)
    start_s, end_s = _common_span(streams.values(), where)
    dead = {name for name, stream in streams.items() if name.startswith("magnetometer") and not np.nan_to_num(stream.samples).any()}
    return Recording(
        subject=str(subject),
        session=f"{ACTIVITIES[movement]}-{number}-{time}",
        streams={name: stream for name, stream in streams.items() if name not in dead},
        left_out=dict.fromkeys(sorted(dead), "it shows zeros only, a dead sensor"),
        intervals=(LabelledInterval(label=ACTIVITIES[movement], start_s=start_s, end_s=end_s),),
    )


def _common_span(streams: Iterable[Stream], where: str) -> tuple[float, float]:
    """Return where all streams run: each starts some tenths of a second after the trial did."""
    starts_s, ends_s = [stream.start_s for stream in streams], [stream.end_s for stream in streams]
    start_s = max(start_s for start_s in starts_s if start_s <= min(starts_s) + MAX_EDGE_S)
    end_s = min(end_s for end_s in ends_s if end_s >= max(ends_s) - MAX_EDGE_S)
    if start_s >= end_s:
        raise DataError(f"{where}: expected sensors that run together, found one that ends at {end_s:g} s: get the official file again")
    return start_s, end_s


def _streams(content: bytes, where: str) -> dict[str, Stream]:
    positions = {int(number): position.decode() for number, position in _POSITION.findall(content)}
    rows = read_text_table(content, columns=7, delimiter=";", where=where)  # time in ms, sample number, x, y, z, sensor type, sensor ID
    if np.ptp(rows[:, 0]) > 1000 * MAX_TRIAL_S:
        raise DataError(f"{where}: expected a trial of 15 s, found one of {np.ptp(rows[:, 0]) / 1000:g} s: get the official file again")
    if not np.isin(rows[:, 5], range(len(SENSORS))).all():
        raise DataError(f"{where}: expected sensor types 0, 1 and 2 in the sixth column, found others: get the official file again")
    streams: dict[str, Stream] = {}
    for sensor_id in np.unique(rows[:, 6]):
        if positions.get(int(sensor_id)) not in POSITIONS:
            raise DataError(
                f"{where}: expected a position of sensor {sensor_id:g} in the header, one of {', '.join(POSITIONS)}, found "
                f"{positions.get(int(sensor_id), 'none')}: get the official file again"
            )
        position = POSITIONS[positions[int(sensor_id)]]
        for sensor_type, sensor in enumerate(SENSORS):
            measured = rows[(rows[:, 6] == sensor_id) & (rows[:, 5] == sensor_type)]
            if len(measured):
                streams[f"{sensor}_{position}"] = _stream(measured, sensor, PHONE_RATE_HZ if position == PHONE else TAG_RATE_HZ)
    return streams


def _stream(rows: NDArray[np.float64], sensor: str, rate_hz: float) -> Stream:
    times_s = rows[:, 0] / 1000
    if rate_hz == PHONE_RATE_HZ:
        times_s = _spread(times_s)
    times_s, kept = np.unique(times_s, return_index=True)
    return resampled(times_s, rows[kept, 2:5] * FACTORS[sensor], rate_hz=rate_hz, unit=UNITS[sensor])


def _spread(times_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return times at least a period apart: a sample was measured a period before the next one at the latest, whenever it arrived."""
    ages_s = np.arange(len(times_s)) * PHONE_PERIOD_S
    latest_s = np.minimum.accumulate((times_s - ages_s)[::-1])[::-1]
    spread_s: NDArray[np.float64] = latest_s + ages_s
    return spread_s
