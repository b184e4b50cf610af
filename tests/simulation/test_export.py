"""`clmm export` and `clmm verify` on a run of a second or two."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner, Result

from clmm_core.data.fleet import DataConfig, device_windows
from clmm_core.export.calibrate import raw_windows
from clmm_core.recognise.golden import golden_file, read_golden, sha256_of
from clmm_core.recognise.onnx_model import OnnxModel
from clmm_core.recognise.recogniser import Recogniser
from clmm_core.report.run_folder import read_run
from clmm_core.training.device_tensors import device_tensors
from server import results as results_module
from server.run_config import parse_run_config
from simulation import cli
from simulation.export import read_trained, with_calibration
from simulation.in_process import InProcessHosts


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, run_config) -> Path:
    """Return the results of a run with the default model."""
    torch.set_num_threads(1)
    place = {"results-dir": str(tmp_path_factory.mktemp("results")), "run-name": "run", "split.num-test": 1}
    values = run_config(place, small=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results_module, "draw_report", lambda folder: None)
        return results_module.train_and_write(InProcessHosts(1), parse_run_config(values), values, lambda line: None)


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def exported(finished: Path) -> Path:
    done = invoke("export", finished, "--to", "onnx")
    assert done.exit_code == 0, done.output
    assert "calibrated on" in done.output
    return finished / "model.onnx"


def test_the_file_says_what_the_run_was(finished: Path, exported: Path):
    metadata, run = OnnxModel.open(exported).metadata, read_run(finished)
    assert metadata.run == "run"
    assert metadata.server_round == 2
    assert metadata.classes == run.card.classes
    assert [modality.name for modality in metadata.modalities] == list(run.card.modalities)
    assert {modality.unit for modality in metadata.modalities} <= {"m/s^2", "rad/s", "uT"}
    assert metadata.weights_sha256 == sha256_of((finished / "model.safetensors").read_bytes())
    assert metadata.calibrated_on.endswith("1 validation people")
    assert metadata.threshold >= 0.5


def test_it_answers_on_the_run_s_own_windows_as_the_run_s_model_does(finished: Path, exported: Path):
    run, trained, model = read_run(finished), read_trained(finished), OnnxModel.open(exported)
    data = parse_run_config(run.info.run_config).data
    for person in (*run.split.test, *run.split.validation):
        windows = device_windows(data, person)
        tensors = device_tensors(windows, run.split.classes)
        with torch.no_grad():
            expected = trained.network(tensors.streams, tensors.present).numpy()
        logits, _ = model.run(raw_windows(windows, model.metadata))
        np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)


def test_verify_says_that_it_is_as_exported(exported: Path):
    done = invoke("verify", exported)
    assert done.exit_code == 0, done.output
    assert "6 vectors to 0.0001" in done.output


def test_verify_says_what_differs(exported: Path, tmp_path: Path):
    changed = tmp_path / "model.onnx"
    shutil.copy(exported, changed)
    assert "found no file" in invoke("verify", changed).output
    golden = json.loads(golden_file(exported).read_text())
    golden["vectors"][1]["logits"][0] += 1
    golden_file(changed).write_text(json.dumps(golden | {"model_sha256": "0" * 64}))
    done = invoke("verify", changed, "--golden", golden_file(changed))
    assert done.exit_code == 1
    assert "checksum: expected" in done.output
    assert "logits: expected those of the golden vectors to 0.0001, found vector 1 by 1" in done.output


def test_int8_is_smaller_and_verified_too(finished: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("simulation.export.onnx_model", lambda trained: onnx.load(exported))  # the same as would be made again
    file = tmp_path / "small.onnx"
    done = invoke("export", finished, "--to", "onnx", "--int8", "-o", file)
    assert done.exit_code == 0, done.output
    assert file.stat().st_size < 0.45 * exported.stat().st_size
    assert read_golden(golden_file(file)).metadata.precision.startswith("int8")
    assert invoke("verify", file).exit_code == 0


def test_a_recording_is_recognised_in_five_lines(finished: Path, exported: Path):
    recogniser = Recogniser.load(exported)
    data: DataConfig = parse_run_config(read_run(finished).info.run_config).data
    windows = device_windows(data, read_run(finished).split.test[0])
    answers = []
    for modality in recogniser.metadata.modalities:
        if modality.name in windows.streams:
            samples = np.concatenate(windows.streams[modality.name][:4], axis=1).T  # four windows without a gap between them
            times = np.arange(len(samples)) * 1e9 / modality.rate_hz
            answers += recogniser.add(modality.name, times, samples)
    assert answers
    assert all(answer.activity in (None, *recogniser.metadata.classes) for answer in answers)


def test_without_the_recordings_it_is_exported_and_says_that_it_is_not_calibrated(finished: Path, tmp_path: Path):
    copied = tmp_path / "moved"
    shutil.copytree(finished, copied, ignore=shutil.ignore_patterns("*.onnx"))
    config = json.loads((copied / "config.json").read_text())
    config["run_config"] |= {"data.name": "folder", "data.path": str(tmp_path / "nowhere")}
    (copied / "config.json").write_text(json.dumps(config))
    metadata = with_calibration(read_trained(copied)).metadata
    assert metadata.calibrated_on.startswith("nobody: ")
    assert "nowhere" in metadata.calibrated_on
    assert (metadata.temperature, metadata.threshold) == (1.0, 0.5)


def spoilt(finished: Path, copied: Path, what: str) -> Path:
    shutil.copytree(finished, copied, ignore=shutil.ignore_patterns("*.onnx"))
    weights, card, config = copied / "model.safetensors", copied / "model.json", copied / "config.json"
    if what == "no weights":
        weights.unlink()
    elif what == "other weights":
        weights.write_bytes(b"nothing")
    elif what == "other sizes":
        card.write_text(card.read_text().replace('"embed": 64', '"embed": 32'))
    elif what == "NaN":
        arrays = load_file(weights)
        arrays["branches.gate.bias"][0] = np.nan
        save_file(arrays, weights)
    elif what == "no size":
        content = json.loads(card.read_text())
        del content["architecture"]["embed"]
        card.write_text(json.dumps(content))
    elif what == "zero fill":
        config.write_text(config.read_text().replace('"data.zero-fill": false', '"data.zero-fill": true'))
    return copied


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("no weights", "expected the run's model, found none"),
        ("other weights", "cannot read them"),
        ("other sizes", "that are not"),
        ("NaN", "'branches.gate.bias' first"),
        ("no size", "architecture.embed"),
        ("zero fill", "data.zero-fill"),
    ],
)
def test_what_cannot_be_exported_is_refused(finished: Path, tmp_path: Path, what: str, message: str):
    done = invoke("export", spoilt(finished, tmp_path / "run", what), "--to", "onnx")
    assert done.exit_code == 1
    assert message in done.output
    assert not (tmp_path / "run" / "model.onnx").exists()


def test_int8_is_for_onnx_alone(finished: Path):
    done = invoke("export", finished, "--to", "executorch", "--int8")
    assert done.exit_code == 1
    assert "expected --to onnx" in done.output


@pytest.mark.parametrize("command", [["export", "{run}", "--to", "executorch"], ["verify", "{run}/model.pte"]])
def test_without_executorch_it_says_what_to_install(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]):
    for name in ("executorch.exir", "executorch.runtime", "executorch.backends.xnnpack.partition.xnnpack_partitioner"):
        monkeypatch.setitem(sys.modules, name, None)
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    (run / "model.pte").write_bytes(b"a program")
    done = invoke(*(each.format(run=run) for each in command))
    assert done.exit_code == 1
    assert "pip install 'clmm[executorch]'" in done.output


def test_a_folder_that_is_not_there_is_said(finished: Path, tmp_path: Path):
    done = invoke("export", finished, "--to", "onnx", "-o", tmp_path / "none" / "model.onnx")
    assert "make it" in done.output
    assert "found no config.json" in invoke("export", tmp_path, "--to", "onnx").output
    assert "make it" in invoke("export", finished, "--to", "browser", "-o", tmp_path / "none" / "page").output


def test_what_only_a_page_needs_is_refused_for_a_file(finished: Path, tmp_path: Path):
    assert "--to browser alone" in invoke("export", finished, "--to", "onnx", "--runtime", tmp_path / "some.tgz").output
