"""A stream file: columns of a CSV or Parquet table, put on a constant rate where the table has its own times."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clmm_core.data.datasets.recording_file import StreamEntry
from clmm_core.data.recording import Stream
from clmm_core.errors import DataError

Float64 = NDArray[np.float64]

MAX_GAP_S = 0.25
"""Across a longer gap nothing is interpolated: it becomes NaN, and windows that touch it are left out."""
MAX_GAP_SAMPLES = 2.5
"""A slow stream, below 10 Hz, may miss this many sample periods instead of `MAX_GAP_S`."""
ON_SAMPLE = 1e-3
"""Share of a sample period within which a time is a sample's own, so that rounding does not spread its NaN to its neighbours."""
MAX_PAUSE_S = 3600.0
"""A longer pause is an error: either a second session, or a clock that jumped."""
MIN_RATE_HZ = 1.0
MAX_RATE_HZ = 2000.0
"""No sensor of people's movement is slower or faster: a median rate outside says that the times are in another unit, or come in bursts."""
TIME_UNITS = {"t_ns": ("nanoseconds", 1e-9), "t_s": ("seconds", 1.0)}
"""By the name of a time column: its unit, and that unit in seconds."""


def read_stream(entry: StreamEntry) -> Stream:
    """Return the stream of one file in the unit we keep, at a constant rate.

    Times of a `t_ns` or `t_s` column may be irregular: the samples are interpolated linearly at the median rate.

    Raises:
        DataError: the file, a column or its times cannot be used; names the file and the column.
    """
    wanted = entry.columns if entry.time is None else (*entry.columns, entry.time)
    table = _read_table(entry.file, wanted)
    samples = np.stack([_numbers(entry.file, name, table[name]) for name in entry.columns], axis=1)  # [time, channels]
    if len(samples) == 0:
        raise DataError(f"{entry.file}: expected at least one row below the column names, found none")
    rate_hz, start_s = entry.rate_hz, entry.start_s
    if entry.time is not None:
        start_s, times = _times(entry.file, entry.time, table[entry.time])
        samples, rate_hz = at_constant_rate(str(entry.file), entry.time, times, samples)
    return Stream(samples=(samples * entry.factor).astype(np.float32), rate_hz=rate_hz, start_s=start_s, unit=entry.unit)


def at_constant_rate(where: str, name: str, times: Float64, samples: Float64) -> tuple[Float64, float]:
    """Return `[time, channels]` at the median rate, and that rate.

    Args:
        where: the file, or what else errors should name.
        name: one of `TIME_UNITS`, the unit that whoever reads an error gave the times in.
        times: `[rows]`, in seconds, 0 at the first, never going back; of equal ones the first counts.
        samples: `[rows, channels]`.

    Raises:
        DataError: too few times, a pause of more than an hour, or a rate that no sensor has.
    """
    kept = np.concatenate([[True], np.diff(times) > 0])
    times, samples = times[kept], samples[kept]
    if len(times) < 2:
        raise DataError(f"{where}: expected at least two rows with different times, found {len(times)}")
    gaps_s = np.diff(times)
    if gaps_s.max() > MAX_PAUSE_S:
        row = int(gaps_s.argmax()) + 1
        raise DataError(
            f"{where}: expected pauses of at most {MAX_PAUSE_S:g} s, found {gaps_s.max():g} s after {times[row - 1]:g} s: correct the "
            "times or make two sessions of it"
        )
    period_s = float(np.median(gaps_s))
    if not MIN_RATE_HZ <= round(1 / period_s, 1) <= MAX_RATE_HZ:  # rounded, because a clock may tremble about 1 Hz
        raise DataError(
            f"{where}: column '{name}': expected a median rate of {MIN_RATE_HZ:g} to {MAX_RATE_HZ:g} Hz, found {1 / period_s:.4g} Hz: give "
            f"the times in {TIME_UNITS[name][0]}, or correct the clock: each sample needs the time at which it was measured"
        )
    grid = np.arange(int(times[-1] / period_s + 1e-6) + 1) * period_s
    before = np.clip(np.searchsorted(times, grid, side="right") - 1, 0, len(gaps_s) - 1)  # the gap each grid time lies in
    nearest = times[before + (grid - times[before] > times[before + 1] - grid)]
    on_sample = np.abs(grid - nearest) < ON_SAMPLE * period_s
    grid = np.where(on_sample, nearest, grid)
    resampled = np.stack([np.interp(grid, times, channel) for channel in samples.T], axis=1)
    in_gap = ~on_sample & (gaps_s[before] > max(MAX_GAP_S, MAX_GAP_SAMPLES * period_s))
    resampled[in_gap] = np.nan
    return resampled, 1 / period_s


def _times(file: Path, name: str, column: Any) -> tuple[float, Float64]:
    """Return the first time in seconds, and the times since then; int64 nanoseconds keep their precision."""
    times = _integers(file, name, column) if name == "t_ns" else _numbers(file, name, column)
    if not np.isfinite(times).all():
        row = int(np.flatnonzero(~np.isfinite(times))[0])
        raise DataError(f"{file}: column '{name}': expected a time in every row, found none in data row {row + 1}: remove that row")
    backwards = np.flatnonzero(np.diff(times) < 0)
    if len(backwards):
        row = int(backwards[0]) + 1
        raise DataError(f"{file}: column '{name}': expected times that never go back, found that in data row {row + 1}: sort the rows")
    _, unit_s = TIME_UNITS[name]
    return float(times[0]) * unit_s, (times - times[0]).astype(np.float64) * unit_s


def _numbers(file: Path, name: str, column: Any) -> Float64:
    """Return an arrow column as float64; an empty cell is NaN."""
    import pyarrow as pa  # noqa: PLC0415  only this format needs pyarrow

    try:
        numbers: Float64 = column.cast(pa.float64()).to_numpy()
    except pa.ArrowException as error:
        raise DataError(f"{file}: column '{name}': expected numbers, found something else ({error}): correct the column") from error
    return numbers


def _integers(file: Path, name: str, column: Any) -> NDArray[np.int64]:
    import pyarrow as pa  # noqa: PLC0415

    try:
        whole = column.cast(pa.int64())
    except pa.ArrowException as error:
        raise DataError(f"{file}: column '{name}': expected int64 nanoseconds, found something else ({error})") from error
    if whole.null_count:
        raise DataError(f"{file}: column '{name}': expected a time in every row, found {whole.null_count} empty: remove those rows")
    integers: NDArray[np.int64] = whole.to_numpy()
    return integers


def _read_table(file: Path, names: Sequence[str]) -> dict[str, Any]:
    """Return the arrow columns `names`."""
    try:
        import pyarrow as pa  # noqa: PLC0415
    except ImportError as error:
        raise DataError("recordings in our folder format need the package 'pyarrow': pip install 'clmm[data]'") from error
    reader = {".csv": _read_csv, ".parquet": _read_parquet}.get(file.suffix.lower())
    if reader is None:
        raise DataError(f"{file}: expected a .csv or .parquet file, found '{file.suffix}'")
    if not file.is_file():
        raise DataError(f"{file}: expected this stream file, found none: correct 'file' in {file.parent / 'recording.yaml'}")
    try:
        return reader(file, names)
    except (OSError, UnicodeDecodeError, csv.Error, pa.ArrowException) as error:
        raise DataError(f"{file}: expected a {file.suffix[1:]} table, cannot read it: {error}") from error


def _read_csv(file: Path, names: Sequence[str]) -> dict[str, Any]:
    import pyarrow as pa  # noqa: PLC0415
    from pyarrow import compute  # noqa: PLC0415
    from pyarrow import csv as arrow_csv  # noqa: PLC0415

    with file.open(encoding="utf-8-sig", newline="") as lines:
        header = [name.strip() for name in next(csv.reader(lines), [])]
    _check_columns(file, names, header)
    # Read as text and converted later: arrow guesses a type from the first megabyte, and cannot name the column that is not as guessed.
    table = arrow_csv.read_csv(
        file,
        read_options=arrow_csv.ReadOptions(column_names=header, skip_rows=1),
        convert_options=arrow_csv.ConvertOptions(
            include_columns=list(names), column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True
        ),
    )
    trimmed = {name: compute.utf8_trim_whitespace(table[name]) for name in names}
    return {name: compute.if_else(compute.equal(column, ""), None, column) for name, column in trimmed.items()}


def _read_parquet(file: Path, names: Sequence[str]) -> dict[str, Any]:
    from pyarrow import parquet  # noqa: PLC0415

    with parquet.ParquetFile(file) as opened:
        _check_columns(file, names, opened.schema_arrow.names)
        table = opened.read(columns=list(names))
    return {name: table[name] for name in names}


def _check_columns(file: Path, names: Sequence[str], found: Sequence[str]) -> None:
    for name in names:
        if found.count(name) != 1:
            raise DataError(f"{file}: expected one column '{name}', found the columns {', '.join(found) or 'none'}")
