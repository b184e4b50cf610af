import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from clmm_core.data.datasets.folder import Folder
from clmm_core.data.datasets.recording_file import UNITS
from clmm_core.data.windows import window_recordings
from clmm_core.errors import DataError

DOC = Path(__file__).parents[3] / "docs" / "data.md"
ACCELEROMETER = "{file: acc.csv, unit: m/s^2, columns: [x, y, z], rate_hz: 50}"


def write_session(root: Path, yaml: str, *, subject: str = "anna", session: str = "monday", **files: str) -> Path:
    folder = root / subject / session
    folder.mkdir(parents=True)
    (folder / "recording.yaml").write_text(yaml)
    for name, content in files.items():
        (folder / f"{name}.csv").write_text(content)
    return folder


def csv(names: str, rows: Sequence[Sequence[object]]) -> str:
    return "\n".join([names, *(",".join(str(value) for value in row) for row in rows)]) + "\n"


def xyz(num_rows: int) -> str:
    return csv("x,y,z", [(i, 0.5, -1) for i in range(num_rows)])


def streams(**entries: str) -> str:
    return "streams:\n" + "".join(f"  {modality}: {entry}\n" for modality, entry in entries.items())


def timed(root: Path, column: str, rows: Sequence[tuple[object, object]]) -> Folder:
    entry = f"{{file: acc.csv, unit: m/s^2, columns: [x], time: {column}}}"
    write_session(root, streams(accelerometer=entry), acc=csv(f"{column},x", rows))
    return Folder(root)


def only_stream(data: Folder) -> tuple[np.ndarray, float, float]:
    stream = data.recordings("anna")[0].streams["accelerometer"]
    return stream.samples[:, 0], stream.rate_hz, stream.start_s


def test_the_example_in_the_documentation_loads(tmp_path: Path) -> None:
    blocks = re.findall(r'^```\w+ title="(.+?)"\n(.*?)^```$', DOC.read_text(), re.M | re.S)
    assert [name for name, _ in blocks] == [f"anna/monday/{name}" for name in ("recording.yaml", "accelerometer.csv", "gyroscope.csv")]
    for name, content in blocks:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    data = Folder(tmp_path)
    assert data.subjects() == ("anna",)
    assert data.modalities == ("accelerometer", "gyroscope")
    windows = window_recordings("anna", data.recordings("anna"), data.modalities, data.window)
    assert windows.labels.tolist() == ["walk"]
    assert {name: values.shape for name, values in windows.streams.items()} == {"accelerometer": (1, 3, 128), "gyroscope": (1, 3, 128)}
    assert windows.left_out == ()
    assert np.linalg.norm(windows.streams["accelerometer"], axis=1).mean() == pytest.approx(9.8, abs=1.0)


def test_the_documentation_names_every_unit() -> None:
    units = DOC.read_text().partition("**Units.**")[2].partition("**Time.**")[0]
    assert set(re.findall(r"`([^`\"]+)`", units)) == set(UNITS)


@pytest.mark.parametrize(
    ("modality", "unit", "si_unit", "factor"),
    [
        ("accelerometer", "g", "m/s^2", 9.80665),
        ("accelerometer", "m/s^2", "m/s^2", 1.0),
        ("gyroscope", "deg/s", "rad/s", np.pi / 180),
        ("magnetometer", "mT", "uT", 1000.0),
        ("magnetometer", "gauss", "uT", 100.0),
        ("skeleton", "mm", "m", 0.001),
        ("orientation", '"1"', "1", 1.0),
    ],
)
def test_units_become_si(tmp_path: Path, modality: str, unit: str, si_unit: str, factor: float) -> None:
    write_session(tmp_path, streams(**{modality: f"{{file: s.csv, unit: {unit}, columns: [x, z], rate_hz: 50}}"}), s=xyz(4))
    stream = Folder(tmp_path).recordings("anna")[0].streams[modality]
    assert stream.unit == si_unit
    np.testing.assert_allclose(stream.samples, np.array([[i, -1] for i in range(4)]) * factor, rtol=1e-6)


def test_modalities_are_the_union_and_a_missing_one_is_absent(tmp_path: Path) -> None:
    gyroscope = "{file: gyr.csv, unit: rad/s, columns: [x, y, z], rate_hz: 100}"
    write_session(tmp_path, streams(gyroscope=gyroscope, accelerometer=ACCELEROMETER), acc=xyz(256), gyr=xyz(512))
    write_session(tmp_path, streams(accelerometer=ACCELEROMETER), acc=xyz(256), session="tuesday")
    write_session(tmp_path, streams(accelerometer=ACCELEROMETER), acc=xyz(128), subject="Ben")
    data = Folder(tmp_path)
    assert data.subjects() == ("Ben", "anna")
    assert data.modalities == ("accelerometer", "gyroscope")
    windows = window_recordings("anna", data.recordings("anna"), data.modalities, data.window)
    assert windows.present["gyroscope"].tolist() == [True] * 3 + [False] * 3
    assert len(window_recordings("Ben", data.recordings("Ben"), data.modalities, data.window)) == 1
    assert data.recordings("nobody") == ()


def test_start_and_intervals_are_on_one_clock_that_begins_at_the_first_sample(tmp_path: Path) -> None:
    late = "{file: acc.csv, unit: rad/s, columns: [x, y, z], rate_hz: 50, start_s: 1000.5}"
    first = "{file: acc.csv, unit: m/s^2, columns: [x, y, z], rate_hz: 50, start_s: 1000.0}"
    intervals = "intervals:\n  - {label: walk, start_s: 1001, end_s: 1002}\n"
    write_session(tmp_path, streams(gyroscope=late, accelerometer=first) + intervals, acc=xyz(100))
    recording = Folder(tmp_path).recordings("anna")[0]
    assert {name: stream.start_s for name, stream in recording.streams.items()} == {"gyroscope": 0.5, "accelerometer": 0.0}
    assert [(interval.label, interval.start_s, interval.end_s) for interval in recording.intervals] == [("walk", 1.0, 2.0)]


def test_nan_and_empty_cells_load_and_their_windows_are_left_out(tmp_path: Path) -> None:
    rows = [(i, 0.5, -1) for i in range(384)]
    text = csv("x, y, z", [*rows[:130], ("NaN", 0.5, -1), ("", " ", "nan"), *rows[132:]])
    write_session(tmp_path, streams(accelerometer=ACCELEROMETER), acc=text)
    data = Folder(tmp_path)
    recordings = data.recordings("anna")
    assert np.isnan(recordings[0].streams["accelerometer"].samples).sum(axis=0).tolist() == [2, 1, 1]
    windows = window_recordings("anna", recordings, data.modalities, data.window)
    np.testing.assert_allclose(windows.starts_s, [0.0, 3.84, 5.12])
    assert "2 window(s) of a modality hold NaN" in windows.left_out[0]


def test_numbers_after_a_megabyte_of_whole_ones_load(tmp_path: Path) -> None:
    num_rows = 200_000  # more than the block arrow guesses its types from
    write_session(tmp_path, streams(accelerometer=ACCELEROMETER), acc=xyz(num_rows) + "0.25,0.25,0.25\n")
    assert Folder(tmp_path).recordings("anna")[0].streams["accelerometer"].samples[num_rows].tolist() == [0.25] * 3


def test_parquet_reads_like_csv(tmp_path: Path) -> None:
    entry = "{file: acc.parquet, unit: g, columns: [x], time: t_ns}"
    folder = write_session(tmp_path, streams(accelerometer=entry))
    times = [1_700_000_000_000_000_000 + 20_000_000 * i for i in range(5)]
    parquet.write_table(pa.table({"t_ns": times, "x": [0.0, 1.0, None, 3.0, 4.0], "note": ["a"] * 5}), folder / "acc.parquet")
    values, rate_hz, start_s = only_stream(Folder(tmp_path))
    np.testing.assert_allclose(values, np.array([0.0, 1.0, np.nan, 3.0, 4.0]) * 9.80665, rtol=1e-6)
    assert (rate_hz, start_s) == (pytest.approx(50.0), 0.0)


def test_irregular_times_are_interpolated_at_the_median_rate(tmp_path: Path) -> None:
    times = np.cumsum([0, 0.02, 0.03, 0.01, 0.02, 0.02, 0.015, 0.025, 0.02])
    values, rate_hz, _ = only_stream(timed(tmp_path, "t_s", [(f"{time:.6f}", 10 * time) for time in times]))
    assert rate_hz == pytest.approx(50.0)
    np.testing.assert_allclose(values, 10 * np.arange(9) * 0.02, atol=1e-6)  # the value is a function of time: the grid's


def test_a_long_gap_becomes_nan_and_a_short_one_does_not(tmp_path: Path) -> None:
    times = [i * 0.1 for i in range(10)] + [1.1 + i * 0.1 for i in range(5)] + [1.9 + i * 0.1 for i in range(5)]  # gaps of 0.2 and 0.4 s
    values, rate_hz, _ = only_stream(timed(tmp_path, "t_s", [(f"{time:.3f}", 1) for time in times]))
    assert rate_hz == pytest.approx(10.0)
    assert np.flatnonzero(np.isnan(values)).tolist() == [16, 17, 18]


def test_infinity_is_kept_as_it_is(tmp_path: Path) -> None:
    values, _, _ = only_stream(timed(tmp_path, "t_s", [(0, 1), (1, "inf"), (2, 3), (3, 4)]))
    assert values.tolist() == [1.0, np.inf, 3.0, 4.0]


def test_a_slow_stream_is_not_all_gap(tmp_path: Path) -> None:
    values, rate_hz, _ = only_stream(timed(tmp_path, "t_s", [(i, i) for i in (0, 1, 2, 4, 5, 9, 10)]))
    assert rate_hz == pytest.approx(1.0)
    assert np.flatnonzero(np.isnan(values)).tolist() == [6, 7, 8]


def test_rows_with_the_same_time_count_once(tmp_path: Path) -> None:
    values, rate_hz, _ = only_stream(timed(tmp_path, "t_s", [(0, 1), (0, 9), (1, 2), (2, 3)]))
    assert (values.tolist(), rate_hz) == ([1.0, 2.0, 3.0], 1.0)


@pytest.mark.parametrize(
    ("column", "rows", "message"),
    [
        ("t_s", [(0, 1), (2, 1), (1, 1)], r"acc\.csv: column 't_s': expected times that never go back, found that in data row 3"),
        ("t_s", [(0, 1), ("", 1), (1, 1)], r"acc\.csv: column 't_s': expected a time in every row, found none in data row 2"),
        ("t_ns", [(0, 1), ("", 1), (1, 1)], r"acc\.csv: column 't_ns': expected a time in every row, found 1 empty"),
        ("t_ns", [(0.5, 1), (1.5, 1)], r"acc\.csv: column 't_ns': expected int64 nanoseconds"),
        ("t_s", [(0, 1), (0, 2)], r"acc\.csv: expected at least two rows with different times, found 1"),
        ("t_s", [(0, 1), (1, 1), (1_700_000_000, 2)], r"acc\.csv: expected pauses of at most 3600 s, found 1\.7e\+09 s after 1 s"),
        (
            "t_s",
            [(20 * i, 1) for i in range(4)],
            r"acc\.csv: column 't_s': expected a median rate of 1 to 2000 Hz, found 0\.05 Hz: give the times in seconds, or",
        ),
        ("t_ns", [(20 * i, 1) for i in range(4)], r"acc\.csv: column 't_ns': expected .*, found 5e\+07 Hz: give the times in nanoseconds"),
    ],
)
def test_times_that_cannot_be_are_named(tmp_path: Path, column: str, rows: list[tuple[object, object]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        timed(tmp_path, column, rows).recordings("anna")


def test_times_in_bursts_are_refused(tmp_path: Path) -> None:
    rows = [(f"{0.2 * burst + 1e-5 * i:.6f}", 1) for burst in range(5) for i in range(10)]
    with pytest.raises(DataError, match=r"acc\.csv: column 't_s': expected a median rate of 1 to 2000 Hz, found 1e\+05 Hz: .* the clock"):
        timed(tmp_path, "t_s", rows).recordings("anna")


def test_a_clock_that_trembles_about_one_hz_is_no_wrong_unit(tmp_path: Path) -> None:
    _, rate_hz, _ = only_stream(timed(tmp_path, "t_ns", [(1_000_200_000 * i, 1) for i in range(4)]))
    assert rate_hz == pytest.approx(0.9998)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (csv("x,y,z", [(1, 2, 3), (1, "fast", 3)]), r"acc\.csv: column 'y': expected numbers, found something else .*fast"),
        (csv("x,y", [(1, 2)]), r"acc\.csv: expected one column 'z', found the columns x, y"),
        (csv("x,y,z,x", [(1, 2, 3, 4)]), r"acc\.csv: expected one column 'x'"),
        ("x,y,z\n", r"acc\.csv: expected at least one row"),
        ("", r"acc\.csv: expected one column 'x', found the columns none"),
        ("x,y,z\n1,2\n", r"acc\.csv: expected a csv table, cannot read it"),
    ],
)
def test_a_table_that_cannot_be_read_is_named(tmp_path: Path, content: str, message: str) -> None:
    write_session(tmp_path, streams(accelerometer=ACCELEROMETER), acc=content)
    with pytest.raises(DataError, match=message):
        Folder(tmp_path).recordings("anna")


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("gone.csv", r"gone\.csv: expected this stream file, found none"),
        ("acc.txt", r"acc\.txt: expected a \.csv or \.parquet file, found '\.txt'"),
        ("acc.parquet", r"acc\.parquet: expected a parquet table, cannot read it"),
    ],
)
def test_a_stream_file_that_is_not_there_or_of_another_kind(tmp_path: Path, file: str, message: str) -> None:
    folder = write_session(tmp_path, streams(accelerometer=ACCELEROMETER.replace("acc.csv", file)))
    (folder / "acc.parquet").write_bytes(b"PAR1 but not really PAR1")
    with pytest.raises(DataError, match=message):
        Folder(tmp_path).recordings("anna")


ENTRY = {"file": "acc.csv", "unit": "g", "columns": "[x]", "rate_hz": "50"}


def entry_with(**changes: str | None) -> str:
    changed = {key: value for key, value in {**ENTRY, **changes}.items() if value is not None}
    return streams(accelerometer="{" + ", ".join(f"{key}: {value}" for key, value in changed.items()) + "}")


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("streams: [", "expected YAML as in docs/data.md, cannot read it"),
        ("", "expected named entries"),
        ("intervals: []", "expected the key 'streams', found only intervals"),
        ("streams: {}", "streams: expected named entries"),
        (entry_with() + "stream: 1", "expected the keys streams, intervals, found the unknown key 'stream'"),
        (entry_with(rate="3"), "streams.accelerometer: expected the keys .*, found the unknown key 'rate'"),
        (entry_with(unit=None), "streams.accelerometer: expected the key 'unit'"),
        (entry_with(unit="furlong"), "streams.accelerometer.unit: expected one of m/s.2, g, .*, found 'furlong'"),
        (entry_with(unit="deg/s"), "streams.accelerometer.unit: expected a unit that becomes m/s.2, found rad/s"),
        (entry_with(unit="1"), "streams.accelerometer.unit: expected text, found 1: put it in quotes"),
        (entry_with(columns="x"), "streams.accelerometer.columns: expected a list of column names"),
        (entry_with(columns="[1, 2]"), "streams.accelerometer.columns: expected text, found 1"),
        (entry_with(columns="[x, x]"), "streams.accelerometer.columns: expected each column once"),
        (entry_with(rate_hz="0"), "streams.accelerometer.rate_hz: expected a rate above 0 Hz, found 0"),
        (entry_with(rate_hz="fast"), "streams.accelerometer.rate_hz: expected a finite number, found 'fast'"),
        (entry_with(rate_hz="yes"), "streams.accelerometer.rate_hz: expected a finite number, found True"),
        (entry_with(start_s=".inf"), "streams.accelerometer.start_s: expected a finite number, found inf"),
        (entry_with(time="t_s"), "streams.accelerometer: expected either rate_hz or time, found both"),
        (entry_with(rate_hz=None), "streams.accelerometer: expected either rate_hz or time, found neither"),
        (entry_with(rate_hz=None, time="when"), "streams.accelerometer.time: expected a column named t_ns or t_s, found 'when'"),
        (entry_with(rate_hz=None, time="t_s", start_s="1"), "streams.accelerometer.start_s: expected it beside rate_hz only"),
        ("streams: {a+b: {file: a.csv, unit: g, columns: [x], rate_hz: 1}}", r"streams.a\+b: expected a name without '\+'"),
        ("streams: {left.wrist: {file: a.csv, unit: g, columns: [x], rate_hz: 1}}", r"streams.left.wrist: expected a name without .*'\.'"),
        ("streams: {'a,b': {file: a.csv, unit: g, columns: [x], rate_hz: 1}}", r"streams.a,b: expected a name without .*','"),
        (entry_with() + "intervals: 3", "intervals: expected a list"),
        (entry_with() + "intervals: [{label: yes, start_s: 0, end_s: 1}]", r"intervals\[0\].label: expected text, found True"),
        (entry_with() + "intervals: [{label: a, start_s: 1, end_s: 1}]", r"intervals\[0\]: interval 'a' ends at 1.0 s"),
        (entry_with() + "intervals: [{label: a, start_s: 1}]", r"intervals\[0\]: expected the key 'end_s'"),
    ],
)
def test_a_wrong_recording_yaml_is_named_with_its_key(tmp_path: Path, yaml: str, message: str) -> None:
    write_session(tmp_path, yaml, acc=xyz(3))
    with pytest.raises(DataError, match=rf"anna/monday/recording\.yaml: {message}"):
        Folder(tmp_path).subjects()


def test_sessions_must_agree_about_channels(tmp_path: Path) -> None:
    write_session(tmp_path, streams(accelerometer=ACCELEROMETER), acc=xyz(3))
    write_session(tmp_path, streams(accelerometer=ACCELEROMETER.replace("[x, y, z]", "[x]")), acc=xyz(3), subject="ben")
    with pytest.raises(DataError, match=r"ben/monday/recording\.yaml: streams\.accelerometer\.columns: expected 3 as in .*anna.*, found 1"):
        assert Folder(tmp_path).modalities


def test_streams_on_two_clocks_are_refused(tmp_path: Path) -> None:
    since_1970 = ACCELEROMETER.replace("50}", "50, start_s: 1700000000}").replace("m/s^2", "rad/s")
    write_session(tmp_path, streams(accelerometer=ACCELEROMETER, gyroscope=since_1970), acc=xyz(100))
    with pytest.raises(
        DataError, match=r"recording\.yaml: streams\.gyroscope: expected it to start while another .*put all .* on one clock"
    ):
        Folder(tmp_path).recordings("anna")


def test_an_interval_outside_the_recording_is_refused(tmp_path: Path) -> None:
    intervals = "intervals: [{label: walk, start_s: 2, end_s: 3}]"
    write_session(tmp_path, streams(accelerometer=ACCELEROMETER) + intervals, acc=xyz(100))
    with pytest.raises(DataError, match=r"expected times inside the recording \(0\.000 to 2\.000 s\), found 'walk' at 2\.000 to 3\.000 s"):
        Folder(tmp_path).recordings("anna")


def test_a_path_that_holds_no_recordings_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty" / "anna").mkdir(parents=True)
    (tmp_path / "file").write_text("x")
    for name, found in (("nowhere", "found nothing"), ("file", "found a file"), ("empty", r"found no recording\.yaml")):
        with pytest.raises(DataError, match=rf"{name}: expected .*recording\.yaml.*, {found}"):
            Folder(tmp_path / name).subjects()


def test_a_session_without_its_yaml_is_not_lost_silently(tmp_path: Path) -> None:
    write_session(tmp_path, streams(accelerometer=ACCELEROMETER), acc=xyz(3))
    (write_session(tmp_path, "", session="tuesday", acc=xyz(3)) / "recording.yaml").rename(tmp_path / "anna" / "tuesday" / "recording.yml")
    with pytest.raises(DataError, match=r"anna/tuesday: expected recording\.yaml beside acc\.csv, found none"):
        Folder(tmp_path).subjects()


def test_a_recording_one_folder_too_high_is_named(tmp_path: Path) -> None:
    folder = write_session(tmp_path, streams(accelerometer=ACCELEROMETER), acc=xyz(3))
    with pytest.raises(DataError, match=r"anna/monday/recording\.yaml: expected .* found this one too high"):
        Folder(folder.parent).subjects()


@pytest.mark.parametrize("session", ["2024/monday", "2024/may/monday", "monday/again"])
def test_a_recording_too_deep_is_named(tmp_path: Path, session: str) -> None:
    for subject in ("anna", "ben"):
        write_session(tmp_path, streams(accelerometer=ACCELEROMETER), subject=subject, acc=xyz(3))
    write_session(tmp_path, streams(accelerometer=ACCELEROMETER), subject="ben", session=session, acc=xyz(3))
    with pytest.raises(
        DataError, match=rf"ben/{session}/recording\.yaml: expected <subject>/<session>/.* found this one too deep: move it"
    ):
        Folder(tmp_path).subjects()


@pytest.mark.parametrize("hidden", [".git/hooks", ".old", "anna/.old", "anna/2024/.old", "anna/monday/.old", ".old/2024/monday"])
def test_hidden_folders_are_ignored(tmp_path: Path, hidden: str) -> None:
    write_session(tmp_path, streams(accelerometer=ACCELEROMETER), acc=xyz(3))
    (tmp_path / hidden).mkdir(parents=True)
    for name in ("a.yaml", "recording.yaml"):
        (tmp_path / hidden / name).write_text("x")
    assert Folder(tmp_path).subjects() == ("anna",)


@pytest.mark.parametrize("subject", ["Smith, Anna", " anna", "anna "])
def test_a_subject_that_no_list_can_name_is_refused(tmp_path: Path, subject: str) -> None:
    write_session(tmp_path, streams(accelerometer=ACCELEROMETER), subject=subject, acc=xyz(3))
    with pytest.raises(DataError, match=rf"{subject}: expected a subject's folder without ',' .*, found '{subject}': rename it"):
        Folder(tmp_path).subjects()


@pytest.mark.parametrize("level", ["subject", "session"])
def test_a_folder_name_that_is_not_utf8_is_refused(tmp_path: Path, level: str):
    name = os.fsdecode(b"an\xffna")
    write_session(tmp_path, streams(accelerometer=ACCELEROMETER), **{level: name}, acc=xyz(200))
    with pytest.raises(DataError, match=r"expected folder names of printable characters in UTF-8, found 'an\\udcffna': rename it"):
        Folder(tmp_path).subjects()
