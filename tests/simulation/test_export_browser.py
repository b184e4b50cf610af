"""`clmm export --to browser` of a run of the default config, shrunk to seconds: the page in a real browser."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from selenium.webdriver.support.ui import WebDriverWait
from typer.testing import CliRunner

from clmm_core.data.fleet import device_windows
from clmm_core.errors import ConfigError, ModelFileError
from clmm_core.recognise.recogniser import Recogniser
from clmm_core.report.run_folder import read_run
from server import results as results_module
from server.run_config import parse_run_config
from simulation import cli
from simulation.bench import browser as bench
from simulation.in_process import InProcessHosts
from simulation.onnxruntime_web import runtime_files

WAIT_S = 60
READINGS = {"accelerometer": (0.5, 2.0, 9.5), "gyroscope": (0.4, -1.0, 2.0)}


def invoke(*arguments: object) -> None:
    done = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, run_config: Callable[..., dict[str, Any]]) -> Path:
    """Return the results of the default run on SPAR, of a round a stage."""
    torch.set_num_threads(1)
    place = {"results-dir": str(tmp_path_factory.mktemp("results")), "run-name": "run"}
    values = run_config(place | {"data.name": "spar", "data.window-s": 0.0, "data.overlap": 0.5}, small=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results_module, "draw_report", lambda folder: None)
        return results_module.train_and_write(InProcessHosts(1), parse_run_config(values), values, lambda line: None)


@pytest.fixture(scope="module")
def exported(request: pytest.FixtureRequest) -> Path:
    try:
        runtime_files(None, lambda line: None)
    except ConfigError as error:
        pytest.skip(str(error))
    finished = request.getfixturevalue("finished")
    invoke("export", finished, "--to", "browser")
    return finished / "browser"


@contextmanager
def opened(browser: Any, folder: Path, *, width: int = 390) -> Iterator[Any]:
    """Give the browser on a folder's page, when it is ready or has refused."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.set_script_timeout(WAIT_S)
    browser.get_log("browser")
    with bench.served(folder) as address:
        browser.get(address)
        WebDriverWait(browser, WAIT_S).until(lambda _: said(browser, "activity") in ("Ready", "Cannot recognise"))
        yield browser


def said(browser: Any, name: str) -> str:
    return browser.find_element("id", name).text


def severe(browser: Any) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_checks_its_model_and_asks_nobody_else(browser: Any, exported: Path, width: int):
    invoke("verify", exported / "model.onnx")
    with opened(browser, exported, width=width):
        assert said(browser, "activity") == "Ready"
        found = re.fullmatch(r"Passed: .* on 6 golden vectors \(largest difference (.*), allowed 0.0001\)\.", said(browser, "check"))
        assert found
        assert float(found[1]) <= 1e-4
        assert re.match(r"A window takes [\d.]+ ms here", said(browser, "speed"))
        for text in ("ABD, ER, FEL, IR, PEN, ROW, TRAP", "accelerometer, 3 axes in m/s² at 50 Hz", "4 s", "run, round 2", "fp32"):
            assert text in said(browser, "model")
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        asked = browser.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
        address = browser.current_url
        assert all(name.startswith(address) for name in asked)
        assert {f"{address}model.onnx", f"{address}ort-wasm-simd-threaded.wasm"} <= set(asked)
        assert severe(browser) == []


def test_everything_can_be_reached_by_key_and_has_a_name(browser: Any, exported: Path):
    with opened(browser, exported):
        nodes = browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
        named = {(node["role"]["value"], node["name"]["value"]) for node in nodes if not node["ignored"] and "name" in node}
        assert ("button", "Use this device's sensors") in named
        assert any(role == "button" and "or recordings" in name for role, name in named)
        assert {name for role, name in named if role == "region"} == {
            "Now", "Last answers", "Does it answer here as it should?", "The model",
        }  # fmt: skip
        browser.execute_script("document.querySelector('#motion').focus()")
        assert browser.execute_script("return document.activeElement.matches(':focus-visible')")


def spoilt(exported: Path, folder: Path, what: str) -> Path:
    shutil.copytree(exported, folder)
    model, golden = folder / "model.onnx", folder / "model.golden.json"
    content = json.loads(golden.read_text())
    if what == "a byte":
        model.write_bytes(model.read_bytes()[:-1] + b"x")
    elif what == "no golden vectors":
        golden.unlink()
    elif what == "no JSON":
        golden.write_text("{")
    elif what == "another answer":
        content["vectors"][2]["logits"][1] += 0.01
        golden.write_text(json.dumps(content))
    elif what == "other inputs":
        content["metadata"]["modalities"].reverse()
        golden.write_text(json.dumps(content))
    elif what == "a field less":
        del content["metadata"]["threshold"]
        golden.write_text(json.dumps(content))
    elif what == "a class twice":
        content["metadata"]["classes"][0] = content["metadata"]["classes"][1]
        golden.write_text(json.dumps(content))
    elif what == "same side":
        content["metadata"]["same_side"] = True
        golden.write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("a byte", "checksum: expected SHA-256"),
        ("no golden vectors", "the server says 404"),
        ("no JSON", "expected golden vectors as JSON"),
        ("another answer", "it answers otherwise here"),
        ("other inputs", "its graph has accelerometer 3 200"),
        ("a field less", "of another kind: threshold"),
        ("a class twice", "found classes ER, ER"),
        ("same side", "data.same-side"),
    ],
)
def test_a_model_that_is_not_as_exported_is_refused(browser: Any, exported: Path, tmp_path: Path, what: str, message: str):
    with opened(browser, spoilt(exported, tmp_path / "folder", what)):
        assert said(browser, "activity") == "Cannot recognise"
        assert message in said(browser, "problem")
        assert not browser.find_element("id", "motion").is_enabled()
        assert not browser.find_element("id", "files").is_enabled()


def test_a_page_that_is_not_secure_says_how_to_open_it(browser: Any, exported: Path):
    script = browser.execute_cdp_cmd(
        "Page.addScriptToEvaluateOnNewDocument", {"source": "Object.defineProperty(window, 'isSecureContext', { value: false })"}
    )
    try:
        with opened(browser, exported):
            assert "open the page by https://" in said(browser, "problem")
    finally:
        browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)


def test_the_device_s_own_sensors_are_recognised(browser: Any, exported: Path):
    """Chromium's emulated sensors, which go the way of a phone's; what they measure stays the same, so when does not matter."""
    emulate(browser, **READINGS)
    try:
        with opened(browser, exported):
            browser.find_element("id", "motion").click()
            WebDriverWait(browser, WAIT_S).until(lambda _: said(browser, "detail") or said(browser, "problem"))
            assert said(browser, "problem") == ""
            assert said(browser, "left-out") == ""
            shown = int(re.match(r"(\d+) % sure", said(browser, "detail"))[1])
            browser.find_element("id", "stop").click()
            assert said(browser, "activity") == "Stopped"
            assert severe(browser) == []
    finally:
        emulate(browser, accelerometer=None, gyroscope=None)
    recogniser, answers = Recogniser.load(exported / "model.onnx"), []
    for begin in range(0, 300, 10):
        for name, reading in READINGS.items():
            answers += recogniser.add(name, np.arange(begin, begin + 10) * 20_000_000, np.tile(reading, (10, 1)))
    assert not answers[0].left_out
    assert shown == pytest.approx(answers[0].confidence * 100, abs=0.8)  # both are rounded


def emulate(browser: Any, **readings: tuple[float, float, float] | None) -> None:
    if readings.get("accelerometer", True) is not None:
        browser.execute_cdp_cmd("Browser.grantPermissions", {"permissions": ["sensors"]})
    for name, reading in (readings | {"linear-acceleration": readings["accelerometer"]}).items():
        browser.execute_cdp_cmd("Emulation.setSensorOverrideEnabled", {"enabled": reading is not None, "type": name})
        if reading is not None:
            xyz = dict(zip("xyz", reading, strict=True))
            browser.execute_cdp_cmd("Emulation.setSensorOverrideReadings", {"type": name, "reading": {"xyz": xyz}})


def test_a_device_without_sensors_is_told(browser: Any, exported: Path):
    with opened(browser, exported):
        browser.find_element("id", "motion").click()
        WebDriverWait(browser, WAIT_S).until(lambda _: "no sample in 3 s" in said(browser, "problem"))
        assert said(browser, "activity") == "Stopped"


def recordings(exported: Path, folder: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Write half a minute of a person the run did not train on as CSV files, and return it."""
    run = read_run(exported.parent)
    windows = device_windows(parse_run_config(run.info.run_config).data, run.split.test[0])
    streams = {}
    for name, values in windows.streams.items():
        samples = np.concatenate(values[:8], axis=1).T  # eight windows without a gap between them
        times = np.arange(len(samples)) * 20_000_000 + 1_700_000_000_123_456_789
        rows = [f"{time},{','.join(map(repr, row.tolist()))}" for time, row in zip(times.tolist(), samples, strict=True)]
        (folder / f"{name}.csv").write_text("\n".join(["t_ns,x,y,z", *rows]) + "\n")
        streams[name] = (times, samples)
    return streams


def test_a_recording_gets_the_answers_that_python_gives(browser: Any, exported: Path, tmp_path: Path):
    streams, recogniser, expected = recordings(exported, tmp_path), Recogniser.load(exported / "model.onnx"), []
    for begin in range(0, 1600, 10):
        for name, (times, samples) in streams.items():
            expected += recogniser.add(name, times[begin : begin + 10], samples[begin : begin + 10])
    assert len(expected) > 10
    with opened(browser, exported):
        browser.find_element("id", "files").send_keys("\n".join(str(tmp_path / f"{name}.csv") for name in streams))
        WebDriverWait(browser, WAIT_S).until(lambda _: said(browser, "sum") or said(browser, "problem"))
        assert said(browser, "sum").startswith(f"{len(expected)} windows: ")
        rows = [row.text for row in browser.find_elements("css selector", "#last tbody tr")]
        newest_first = [f"{answer.activity or 'not sure'} {answer.confidence:.0%}".replace("%", " %") for answer in reversed(expected)]
        assert [row.partition(" s ")[2] for row in rows] == newest_first[:20]
        texts = {name: (tmp_path / f"{name}.csv").read_text() for name in streams}
        found = browser.execute_async_script(
            """const [texts, done] = arguments;
            (async () => {
              const load = (name) => import(`./${name}.js`);
              const [{ ready }, { Recogniser }, { readStream, inStep }] = await Promise.all(["page", "recogniser", "recording"].map(load));
              const recogniser = new Recogniser((await ready).model);
              const streams = Object.entries(texts).map(([name, text]) => readStream(`${name}.csv`, text));
              const steps = [...inStep(streams)].map(({ stream, times, samples }) => recogniser.add(stream, times, samples));
              const answers = (await Promise.all(steps)).flat();
              done(answers.map(({ startNs, probabilities }) => [String(startNs), [...probabilities]]));
            })().catch((error) => done(String(error)));""",
            texts,
        )
    assert [int(start) for start, _ in found] == [answer.start_ns for answer in expected]
    np.testing.assert_allclose([each for _, each in found], [answer.probabilities for answer in expected], rtol=0, atol=1e-4)


def test_files_that_are_no_recording_are_refused(browser: Any, exported: Path, tmp_path: Path):
    file = tmp_path / "accelerometer.csv"
    with opened(browser, exported):
        for text, message in (("t_s,x,y\n0,1,2\n", "expected 3 channels"), ("x,y,z\n1,2,3\n", "expected columns 't_ns'")):
            file.write_text(text)
            browser.find_element("id", "files").send_keys(str(file))
            WebDriverWait(browser, WAIT_S).until(lambda _, message=message: message in said(browser, "problem"))


def test_int8_works_too_and_a_bench_can_measure_it(browser: Any, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        "simulation.export.onnx_model", lambda trained: onnx.load(exported / "model.onnx")
    )  # the same as would be made again
    invoke("export", exported.parent, "--to", "browser", "--int8", "-o", tmp_path / "small")
    with opened(browser, tmp_path / "small"):
        assert said(browser, "check").startswith("Passed")
        assert "int8" in said(browser, "model")
    monkeypatch.setattr(bench, "WINDOWS", 50)
    figures = bench.measure_in_browser(tmp_path / "small")
    assert 0 < figures.p50_ms <= figures.p95_ms
    assert 0 < figures.load_s < WAIT_S
    assert figures.memory_bytes > 1e6
    with pytest.raises(ModelFileError, match="checksum"):
        bench.measure_in_browser(spoilt(tmp_path / "small", tmp_path / "spoilt", "a byte"))
