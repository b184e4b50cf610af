from itertools import pairwise
from typing import Any

import pytest

NAN = "NaN"


def read(page: Any, text: str) -> Any:
    """Return the rows of a CSV file as text, or the words of its error."""
    script = """const [text, done] = arguments;
        import("./recording.js")
          .then(({ readStream }) => readStream("accelerometer.csv", text))
          .then(({ times, samples }) => times.map((time, row) => [time, ...samples[row]].map(String)))
          .then(done, (error) => done(error.message));"""
    return page.execute_async_script(script, text)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("t_ns,x,y\n1700000000123456789,1,2.5\n", [["1700000000123456789", "1", "2.5"]]),
        ("\ufeffx, t_s\r\n-1e1,0.02\r\n,0.04\r\nnan, 0.06\r\n\r\n", [["20000000", "-10"], ["40000000", NAN], ["60000000", NAN]]),
    ],
)
def test_a_file_is_read_as_docs_data_has_it(page: Any, text: str, rows: list[list[str]]):
    assert read(page, text) == rows


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected columns 't_ns' or 't_s'"),
        ("x,y,z\n1,2,3\n", "expected columns 't_ns' or 't_s' and one a channel, found x, y, z"),
        ("t_s\n1\n", "expected columns"),
        ("t_s,x,y,z\n0,1,2\n", "accelerometer.csv: data row 1: expected 4 numbers with a time, found '0,1,2'"),
        ("t_s,x\n0,1\n,1\n", "data row 2"),
        ("t_s,x\n0,fast\n", "data row 1"),
        ("t_ns,x\n0.5,1\n", "data row 1"),
        ("t_s,x\n", "at least one row"),
    ],
)
def test_what_is_no_recording_is_refused(page: Any, text: str, message: str):
    assert message in read(page, text)


def test_streams_are_given_in_step(page: Any):
    """So that no stream gets ahead of another by more than a recogniser waits."""
    script = """const done = arguments[0];
        const times = (hz, count) => Array.from({ length: count }, (_, i) => BigInt(Math.round((i / hz) * 1e9)));
        const stream = (stream, hz, count) => ({ stream, times: times(hz, count), samples: times(hz, count).map(() => [0]) });
        import("./recording.js").then(({ inStep }) => {
          const steps = [...inStep([stream("a", 50, 100), stream("b", 20, 60)])];
          done(steps.map(({ stream, times, samples }) => [stream, Number(times[0]) / 1e9, times.length, samples.length]));
        });"""
    steps = page.execute_async_script(script)
    assert sum(count for name, _, count, _ in steps if name == "a") == 100
    assert sum(count for name, _, count, _ in steps if name == "b") == 60
    assert all(count == samples for _, _, count, samples in steps)
    starts = [start for _, start, _, _ in steps]
    assert all(later >= earlier - 0.25 for earlier, later in pairwise(starts))
    assert max(count for _, _, count, _ in steps) <= 13
