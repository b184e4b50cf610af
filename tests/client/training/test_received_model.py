"""A model that comes from the server: verified, compared on the wearer's labels, installed or refused."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from client.host.models import Models
from client.training import received_model
from client.training.received_model import receive
from clmm_core.data.fleet import DataConfig
from clmm_core.federated.messages import HostReceipt
from clmm_core.recognise import personal as personal_module
from clmm_core.recognise.personal import read_head
from clmm_core.training.tasks import DeliverTask


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Write 12 s of a wearer with positive acceleration, then 8 s with negative."""
    folder = tmp_path / "mine" / "anna" / "monday"
    folder.mkdir(parents=True)
    rows = np.where(np.arange(1000)[:, None] < 600, 2.0, -2.0) * np.ones((1, 3))
    np.savetxt(folder / "a.csv", rows, "%.1f", ",", header="x,y,z", comments="")
    stream = {"file": "a.csv", "unit": "m/s^2", "columns": ["x", "y", "z"], "rate_hz": 50}
    intervals = [{"label": "up", "start_s": 0.0, "end_s": 12.0}, {"label": "down", "start_s": 12.0, "end_s": 20.0}]
    (folder / "recording.yaml").write_text(yaml.safe_dump({"streams": {"accelerometer": stream}, "intervals": intervals}))
    return tmp_path / "mine"


def delivered(recordings: Path, content: bytes, golden: str, folder: Path) -> HostReceipt:
    data = DataConfig(name="folder", path=str(recordings), window_s=1.0, overlap=0.5)
    return receive(DeliverTask(data=data, golden=golden), content, folder)


def test_the_first_one_is_installed_whatever_it_does(recordings: Path, tmp_path: Path, sign_model):
    receipt = delivered(recordings, *sign_model(-1.0), tmp_path / "models")
    assert receipt.is_installed
    assert "of the wearer's labelled windows right" in receipt.why
    assert Models(tmp_path / "models").current() is not None


def test_a_better_one_takes_its_place_and_a_worse_one_does_not(recordings: Path, tmp_path: Path, sign_model):
    folder = tmp_path / "models"
    delivered(recordings, *sign_model(-1.0), folder)
    better = delivered(recordings, *sign_model(1.0), folder)
    assert better.is_installed
    assert "before" in better.why
    good = Models(folder).current()
    worse = delivered(recordings, *sign_model(-2.0), folder)
    assert not worse.is_installed
    assert "better on the wearer's labels: 100.0% to 0.0%" in worse.why
    assert Models(folder).current() == good


def test_one_that_helps_the_wearer_becomes_their_own(recordings: Path, tmp_path: Path, sign_model, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(personal_module, "RIDGE", 1.0)  # so that these few windows are enough
    receipt = delivered(recordings, *sign_model(0.1), tmp_path / "models")
    assert "made their own" not in receipt.why, "it is right of every window already"
    assert Models(tmp_path / "models").personal() is None
    file = recordings / "anna" / "monday" / "a.csv"
    rows = np.where(np.arange(1000)[:, None] < 600, 30.0, 1.0) * np.ones((1, 3))  # both positive: the model says `up` of all
    np.savetxt(file, rows, "%.1f", ",", header="x,y,z", comments="")
    fresh = tmp_path / "elsewhere"
    recordings.rename(fresh)  # windows are kept by path
    receipt = delivered(fresh, *sign_model(0.1), tmp_path / "own")
    assert "made their own" in receipt.why
    personal = Models(tmp_path / "own").personal()
    assert personal is not None
    assert read_head(personal.read_text(), 2, "it").num_windows == 38


def test_a_damaged_one_that_is_there_gives_way(recordings: Path, tmp_path: Path, sign_model):
    Models(tmp_path / "models").install(b"damaged", "")
    receipt = delivered(recordings, *sign_model(-1.0), tmp_path / "models")
    assert receipt.is_installed
    current = Models(tmp_path / "models").current()
    assert current is not None
    assert current.read_bytes() == sign_model(-1.0)[0]


def test_one_that_would_hold_recording_up_is_refused(recordings: Path, tmp_path: Path, sign_model, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(received_model, "MAX_WINDOW_S", 0.0)
    assert "recording would wait for it" in delivered(recordings, *sign_model(1.0), tmp_path / "models").why
    monkeypatch.setattr(received_model, "MAX_BYTES", 10)
    assert "expected at most 10 bytes" in delivered(recordings, *sign_model(1.0), tmp_path / "models").why


def test_one_that_is_not_what_its_golden_vectors_say_is_refused(recordings: Path, tmp_path: Path, sign_model):
    content, _ = sign_model(1.0)
    receipt = delivered(recordings, content, sign_model(-1.0)[1], tmp_path / "models")
    assert not receipt.is_installed
    assert "checksum" in receipt.why
    assert Models(tmp_path / "models").current() is None


@pytest.mark.parametrize(("content", "golden"), [(b"no onnx", None), (None, "{}"), (None, "no json")])
def test_what_is_no_model_is_refused(recordings: Path, tmp_path: Path, sign_model, content: bytes | None, golden: str | None):
    right = sign_model(1.0)
    receipt = delivered(recordings, content or right[0], golden or right[1], tmp_path / "models")
    assert not receipt.is_installed
    assert "it cannot be used" in receipt.why


def test_without_labels_it_is_installed_and_that_is_said(recordings: Path, tmp_path: Path, sign_model):
    file = recordings / "anna" / "monday" / "recording.yaml"
    file.write_text(yaml.safe_dump({"streams": yaml.safe_load(file.read_text())["streams"]}))
    receipt = delivered(recordings, *sign_model(1.0), tmp_path / "models")
    assert receipt.is_installed
    assert "too few labels" in receipt.why
