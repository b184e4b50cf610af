"""PAMAP2: 18 daily activities, nine subjects, one or two sessions each; inertial units on wrist, chest and ankle.

Source: Reiss, Stricker, "Introducing a new benchmarked dataset for activity monitoring", ISWC 2012; UCI 231
(archive.ics.uci.edu/dataset/231, CC BY 4.0), readme.pdf of its archive, read in a public copy without the recordings:
github.com/tusharmali/SHIELD_Health/tree/a0a94825cd621483e7ff93dc9e1f48d4960c908f/data/PAMAP2_Dataset. Written from that description: it
has not met the real archive. The one row that public code quotes, the first of subject 101, fits its columns and units.
Differs: lost samples, NaN in the files, are interpolated across up to 0.25 s as in our own format; a longer gap stays NaN. The readme
says that the unit on the wrist lost 0.37 % of its samples; were those spread evenly, three of five windows would touch one and be left out.
Rows missing from a file count as lost samples. Left out are the heart rate (9 values a second at no constant rate, of something that takes
minutes to change), the temperature, the second accelerometer (the readme advises against it: it clips at 6 g) and the orientation
(marked invalid).
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clmm_core.data.datasets.archive import archived_files
from clmm_core.data.datasets.stream_file import MAX_GAP_S, MAX_PAUSE_S
from clmm_core.data.datasets.text_table import read_text_table
from clmm_core.data.recording import Float32, LabelledInterval, Recording, Stream
from clmm_core.data.windows import WindowSpec
from clmm_core.errors import DataError

RATE_HZ = 100.0
NUM_COLUMNS = 54
STREAMS = {
    f"{sensor}_{place}": (first_of_unit + offset, unit)
    for place, first_of_unit in (("hand", 3), ("chest", 20), ("ankle", 37))
    for sensor, offset, unit in (("accelerometer", 1, "m/s^2"), ("gyroscope", 7, "rad/s"), ("magnetometer", 10, "uT"))
}
"""The column of x, from 0, and the unit, by modality; y and z follow. Columns 0 to 2: time in s, activity, heart rate."""
ACTIVITIES = {
    1: "lying",
    2: "sitting",
    3: "standing",
    4: "walking",
    5: "running",
    6: "cycling",
    7: "nordic_walking",
    9: "watching_tv",
    10: "computer_work",
    11: "car_driving",
    12: "ascending_stairs",
    13: "descending_stairs",
    16: "vacuum_cleaning",
    17: "ironing",
    18: "folding_laundry",
    19: "house_cleaning",
    20: "playing_soccer",
    24: "rope_jumping",
}
TRANSIENT = 0
"""The activity number of time between activities, which the readme asks to leave out: it gets no label."""
SESSIONS = ("Protocol", "Optional")
WHERE = "get the archive from archive.ics.uci.edu/dataset/231, or correct data.path"
_FILE = re.compile(r"(?:^|/)Protocol/subject(\d+)\.dat$")


@dataclass(frozen=True)
class Pamap2:
    """The PAMAP2 sessions in `path`: the folder that holds Protocol/ and Optional/, at any depth, or an archive of it.

    A file (up to 140 MB of text) is read each time its subject's recordings are asked for: a process needs only its own subjects.
    """

    path: Path
    modalities: tuple[str, ...] = tuple(STREAMS)

    @property
    def window(self) -> WindowSpec:
        """Windows of 5.12 s at 50 Hz, half overlapping.

        Source: Hammerla, Halloran, Ploetz, IJCAI 2016: 5.12 s.
        Differs: they step by 1 s, which puts every sample into five windows, at 33 Hz; here as in our other data sets.
        """
        return WindowSpec(length_s=5.12, overlap=0.5, time_steps=dict.fromkeys(self.modalities, 256))

    def subjects(self) -> tuple[str, ...]:
        """Return "101" to "109"."""
        return _subjects(self.path)

    def recordings(self, subject: str) -> tuple[Recording, ...]:
        """Return this subject's sessions, protocol before optional; each stretch of one activity is a trial."""
        wanted = re.compile(rf"(?:^|/)(Protocol|Optional)/subject{re.escape(subject)}\.dat$")
        sessions: dict[str, Recording] = {}
        for name, content in archived_files(self.path, wanted):
            match = wanted.search(name)
            assert match is not None
            if match[1] not in sessions:  # a second copy of the data, such as the archive beside its unpacked folder
                where = f"{self.path}: {name}"
                table = read_text_table(content, columns=NUM_COLUMNS, delimiter=None, where=where, allow_lost=True)
                sessions[match[1]] = _recording(subject, match[1].lower(), table, where)
        return tuple(sessions[session] for session in SESSIONS if session in sessions)


@lru_cache(maxsize=4)
def _subjects(path: Path) -> tuple[str, ...]:
    numbers = {int(match[1]) for name, _ in archived_files(path, _FILE) if (match := _FILE.search(name))}
    if not numbers:
        raise DataError(f"{path}: expected files like Protocol/subject101.dat, found none: {WHERE}")
    return tuple(str(number) for number in sorted(numbers))


def _recording(subject: str, session: str, table: NDArray[np.float64], where: str) -> Recording:
    ticks = _ticks(table[:, 0], where)
    streams: dict[str, Stream] = {}
    for modality, (first, unit) in STREAMS.items():
        samples = _every_tick(ticks, table[:, first : first + 3])
        if np.isfinite(samples).any():  # a unit that lost its connection for the whole session is absent
            streams[modality] = Stream(samples=samples, rate_hz=RATE_HZ, unit=unit)
    if not streams:
        raise DataError(f"{where}: expected measurements of at least one sensor, found only NaN: get the official file again")
    return Recording(subject=subject, session=session, streams=streams, intervals=_intervals(ticks, table[:, 1], where))


def _ticks(times_s: NDArray[np.float64], where: str) -> NDArray[np.int64]:
    """Return the time of every row since the first, in sample periods."""
    pauses_s = np.diff(times_s, prepend=times_s[0])
    wrong = np.flatnonzero(~((pauses_s >= 0) & (pauses_s <= MAX_PAUSE_S)))
    if len(wrong):
        row = int(wrong[0])
        raise DataError(
            f"{where}: expected times in the first column that rise by {1 / RATE_HZ:g} s a row, found {times_s[row]:g} s in row {row + 1} "
            f"after {times_s[max(0, row - 1)]:g} s: get the official file again"
        )
    ticks: NDArray[np.int64] = np.rint((times_s - times_s[0]) * RATE_HZ).astype(np.int64)
    return ticks


def _every_tick(ticks: NDArray[np.int64], samples: NDArray[np.float64]) -> Float32:
    """Return `[ticks, 3]` from the rows `[time, 3]`: lost samples are interpolated across up to `MAX_GAP_S` and else NaN."""
    kept = np.isfinite(samples).all(axis=1)
    every = np.arange(ticks[-1] + 1)
    filled = np.full((len(every), samples.shape[1]), np.nan, np.float32)
    if not kept.any():
        return filled
    ticks, samples = ticks[kept], samples[kept]
    before = np.searchsorted(ticks, every, side="right") - 1
    after = np.searchsorted(ticks, every)
    inside = (before >= 0) & (after < len(ticks))
    gap_s = (ticks[after[inside]] - ticks[before[inside]]) / RATE_HZ
    inside[inside] = gap_s <= MAX_GAP_S
    filled[inside] = np.stack([np.interp(every[inside], ticks, channel) for channel in samples.T], axis=1)
    return filled


def _intervals(ticks: NDArray[np.int64], activities: NDArray[np.float64], where: str) -> tuple[LabelledInterval, ...]:
    """Return one interval for each run of rows with the same activity."""
    unknown = np.flatnonzero(~np.isin(activities, (TRANSIENT, *ACTIVITIES)))
    if len(unknown):
        raise DataError(
            f"{where}: expected one of the activities {', '.join(map(str, (TRANSIENT, *ACTIVITIES)))} in the second column, found "
            f"{activities[unknown[0]]:g} in row {unknown[0] + 1}: get the official file again"
        )
    starts = np.flatnonzero(np.diff(activities, prepend=-1))
    lasts = np.append(starts[1:], len(activities)) - 1
    return tuple(
        LabelledInterval(
            label=ACTIVITIES[int(activities[start])], start_s=float(ticks[start] / RATE_HZ), end_s=float((ticks[last] + 1) / RATE_HZ)
        )
        for start, last in zip(starts, lasts, strict=True)
        if activities[start] != TRANSIENT
    )
