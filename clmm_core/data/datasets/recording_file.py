"""recording.yaml: what the stream files of one session hold, checked key by key. docs/data.md is the format's description."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from clmm_core.data.recording import STANDARD_GRAVITY, LabelledInterval
from clmm_core.data.windows import JOIN
from clmm_core.errors import DataError

FILE_NAME = "recording.yaml"
TIME_COLUMNS = ("t_ns", "t_s")
"""Nanoseconds (int64) or seconds."""
UNITS: Mapping[str, tuple[str, float]] = {
    "m/s^2": ("m/s^2", 1.0),
    "g": ("m/s^2", STANDARD_GRAVITY),
    "rad/s": ("rad/s", 1.0),
    "deg/s": ("rad/s", math.pi / 180),
    "uT": ("uT", 1.0),
    "mT": ("uT", 1000.0),
    "gauss": ("uT", 100.0),
    "m": ("m", 1.0),
    "mm": ("m", 0.001),
    "1": ("1", 1.0),
}
"""The unit we keep and the factor to it; `1` is for what has no unit, such as a quaternion."""
UNIT_OF: Mapping[str, str] = {"accelerometer": "m/s^2", "gyroscope": "rad/s", "magnetometer": "uT", "skeleton": "m"}
"""What a well-known modality is measured in; a mismatch is a mistake in the file."""

NOT_IN_NAMES = (JOIN, ",", ".")
"""`data.modalities` joins modalities and lists them, and the model's array names have dots between their parts."""


@dataclass(frozen=True, kw_only=True)
class StreamEntry:
    """One stream: a CSV or Parquet file, and what its columns mean."""

    file: Path
    columns: tuple[str, ...]
    unit: str
    """The unit after conversion."""
    factor: float
    """What a number in the file is multiplied with to be in `unit`."""
    time: str | None
    """The column with the time, one of `TIME_COLUMNS`; None where the rate is constant."""
    rate_hz: float = math.nan
    """The constant rate, where there is no time column."""
    start_s: float = 0.0
    """Time of the first row, where there is no time column."""


@dataclass(frozen=True, kw_only=True)
class RecordingFile:
    """One session of one subject, as its recording.yaml tells it."""

    path: Path
    streams: Mapping[str, StreamEntry]
    intervals: tuple[LabelledInterval, ...]


def read_recording_file(path: Path) -> RecordingFile:
    """Return the checked contents of one recording.yaml; the stream files are not opened.

    Raises:
        DataError: the file is not as docs/data.md says; names the file and the key.
    """
    try:
        import yaml  # noqa: PLC0415  only this format needs yaml
    except ImportError as error:
        raise DataError("recordings in our folder format need the package 'pyyaml': pip install 'clmm[data]'") from error
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"{path}: expected YAML as in docs/data.md, cannot read it: {error}") from error
    top = _mapping(str(path), content, required=("streams",), optional=("intervals",))
    streams = _named(f"{path}: streams", top["streams"])
    entries = {modality: _stream(f"{path}: streams.{modality}", path.parent, entry) for modality, entry in streams.items()}
    for modality, entry in entries.items():
        if any(mark in modality for mark in NOT_IN_NAMES):
            raise DataError(f"{path}: streams.{modality}: expected a name without {', '.join(map(repr, NOT_IN_NAMES))}: choose another")
        if entry.unit != UNIT_OF.get(modality, entry.unit):
            raise DataError(f"{path}: streams.{modality}.unit: expected a unit that becomes {UNIT_OF[modality]}, found {entry.unit}")
    return RecordingFile(path=path, streams=entries, intervals=_intervals(f"{path}: intervals", top.get("intervals") or []))


def _stream(where: str, folder: Path, content: object) -> StreamEntry:
    found = _mapping(where, content, required=("file", "unit", "columns"), optional=("rate_hz", "start_s", "time"))
    unit = _text(f"{where}.unit", found["unit"])
    if unit not in UNITS:
        raise DataError(f"{where}.unit: expected one of {', '.join(UNITS)}, found '{unit}': convert the file to one of these")
    columns = found["columns"]
    if not isinstance(columns, list) or not columns:
        raise DataError(f"{where}.columns: expected a list of column names such as [x, y, z], found {columns!r}")
    names = tuple(_text(f"{where}.columns", column) for column in columns)
    if len(set(names)) < len(names):
        raise DataError(f"{where}.columns: expected each column once, found {', '.join(names)}")
    file = folder / _text(f"{where}.file", found["file"])
    si_unit, factor = UNITS[unit]
    if ("time" in found) == ("rate_hz" in found):
        raise DataError(f"{where}: expected either rate_hz or time, found {'both' if 'time' in found else 'neither'}")
    if "time" in found:
        time = _text(f"{where}.time", found["time"])
        if time not in TIME_COLUMNS:
            raise DataError(f"{where}.time: expected a column named {' or '.join(TIME_COLUMNS)}, found '{time}'")
        if "start_s" in found:
            raise DataError(f"{where}.start_s: expected it beside rate_hz only, found it beside time: remove it")
        return StreamEntry(file=file, columns=names, unit=si_unit, factor=factor, time=time)
    rate_hz = _number(f"{where}.rate_hz", found["rate_hz"])
    if rate_hz <= 0:
        raise DataError(f"{where}.rate_hz: expected a rate above 0 Hz, found {rate_hz:g}")
    start_s = _number(f"{where}.start_s", found.get("start_s", 0.0))
    return StreamEntry(file=file, columns=names, unit=si_unit, factor=factor, time=None, rate_hz=rate_hz, start_s=start_s)


def _intervals(where: str, content: object) -> tuple[LabelledInterval, ...]:
    if not isinstance(content, list):
        raise DataError(f"{where}: expected a list of {{label, start_s, end_s}}, found {type(content).__name__}")
    intervals = []
    for i, entry in enumerate(content):
        at = f"{where}[{i}]"
        found = _mapping(at, entry, required=("label", "start_s", "end_s"))
        label = _text(f"{at}.label", found["label"])
        start_s, end_s = (_number(f"{at}.{key}", found[key]) for key in ("start_s", "end_s"))
        try:
            intervals.append(LabelledInterval(label=label, start_s=start_s, end_s=end_s))
        except DataError as error:
            raise DataError(f"{at}: {error}") from error
    return tuple(intervals)


def _named(where: str, content: object) -> dict[str, object]:
    if not isinstance(content, dict) or not content or not all(isinstance(key, str) for key in content):
        raise DataError(f"{where}: expected named entries ('name: ...'), found {content!r}")
    return content


def _mapping(where: str, content: object, *, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> dict[str, object]:
    found = _named(where, content)
    known = ", ".join((*required, *optional))
    for key in found:
        if key not in (*required, *optional):
            raise DataError(f"{where}: expected the keys {known}, found the unknown key '{key}': correct or remove it")
    for key in required:
        if key not in found:
            raise DataError(f"{where}: expected the key '{key}', found only {', '.join(found)}")
    return found


def _text(where: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}: expected text, found {value!r}: put it in quotes")
    return value


def _number(where: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise DataError(f"{where}: expected a finite number, found {value!r}")
    return float(value)
