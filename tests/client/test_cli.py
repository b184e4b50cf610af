from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat
from typer.testing import CliRunner

from client.cli import LOADERS, app
from clmm_core.data.fleet import NAMES, DataConfig, open_dataset

REAL = Path(__file__).parents[3] / "shared" / "data" / "UTD-MHAD_Inertial_Skeleton.tar.xz"
WIDE = {"COLUMNS": "200", "TERM": "dumb"}


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner(env=WIDE).invoke(app, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.stdout, result.stderr


def write_session(root: Path, subject: str, *, seconds: float, label: str = "walk", gyroscope: bool = False, broken_row: int = -1) -> Path:
    folder = root / subject / "monday"
    folder.mkdir(parents=True)
    entries = {"accelerometer": "m/s^2", **({"gyroscope": "rad/s"} if gyroscope else {})}
    rows = ["0.1,0.2,9.8"] * round(seconds * 50)
    if broken_row >= 0:
        rows[broken_row] = ",,"
    for modality in entries:
        (folder / f"{modality}.csv").write_text("\n".join(["x,y,z", *rows]))
    streams = "".join(f"  {name}: {{file: {name}.csv, unit: {unit}, columns: [x, y, z], rate_hz: 50}}\n" for name, unit in entries.items())
    interval = f"intervals:\n  - {{label: {label}, start_s: 0, end_s: {seconds}}}\n"
    (folder / "recording.yaml").write_text(f"streams:\n{streams}{interval}")
    return folder


def test_list_names_every_loader_as_it_is() -> None:
    code, out, _ = run("list")
    assert code == 0
    assert tuple(loader.name for loader in LOADERS) == NAMES
    for loader in LOADERS:
        assert loader.name in out
        dataset = open_dataset(DataConfig(name=loader.name, path="x"))
        if loader.name != "folder":
            assert loader.modalities == dataset.modalities
        assert loader.needs_path == (loader.name in ("utd-mhad", "folder"))


def test_inspect_shows_a_folder_subject_by_subject(tmp_path: Path) -> None:
    write_session(tmp_path, "anna", seconds=12.8, gyroscope=True, broken_row=600)
    write_session(tmp_path, "[bold]ben", seconds=2.56, label="row")
    code, out, err = run("inspect", str(tmp_path))
    assert (code, err) == (0, "")
    for expected in (
        "folder: ",
        "anna",
        "1 sessions",
        "0.2 minutes",
        "8 windows",
        "accelerometer 50 Hz m/s^2",
        "gyroscope 50 Hz rad/s",
        "walk 8",
    ):
        assert expected in out
    assert "0.2%" in out  # one row of 640 is lost
    assert "[bold]ben" in out
    for warning in (
        "warning: subject '[bold]ben' lacks gyroscope",
        "warning: subject '[bold]ben' has 1 window(s); a device needs at least 2",
        "warning: class 'row' comes from subject '[bold]ben' only",
        "warning: device 'anna': 1 window(s) have none of accelerometer, gyroscope and were left out",
    ):
        assert warning in out
    assert "2 subject(s), 9 windows" in out


def test_inspect_shows_a_subject_whose_recording_is_too_short(tmp_path: Path) -> None:
    write_session(tmp_path, "anna", seconds=5.12)
    write_session(tmp_path, "ben", seconds=1.0)
    code, out, _ = run("inspect", str(tmp_path))
    assert code == 0
    assert "warning: subject 'ben' has 0 window(s)" in out
    assert "device 'ben': no window of 2.56 s in 1 recording(s)" in out


def test_one_subject_alone_gives_no_warning_about_its_classes(tmp_path: Path) -> None:
    write_session(tmp_path, "anna", seconds=5.12)
    _, out, _ = run("inspect", str(tmp_path))
    assert "0 warning(s)" in out


@pytest.mark.parametrize("nested", ["", "UTD-MHAD"])
def test_inspect_recognises_utd_mhad(tmp_path: Path, nested: str) -> None:
    for half, key, values in (("Inertial", "d_iner", np.ones((50, 6))), ("Skeleton", "d_skel", np.ones((20, 3, 20)))):
        (tmp_path / nested / half).mkdir(parents=True)
        for action in range(1, 11):
            savemat(tmp_path / nested / half / f"a{action}_s1_t1_{half.lower()}.mat", {key: values})
    code, out, _ = run("inspect", str(tmp_path))
    assert code == 0
    for expected in ("utd-mhad: ", "10 sessions", "10 windows", "10 classes, 1 each", "skeleton 20 Hz m"):
        assert expected in out


@pytest.mark.parametrize("name", ["nowhere", "empty", "notes.txt", "half"])
def test_a_path_we_cannot_read_ends_with_one_line_and_no_traceback(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "half" / "Inertial").mkdir(parents=True)
    (tmp_path / "notes.txt").write_text("notes")
    code, out, err = run("inspect", str(tmp_path / name))
    assert (code, out) == (1, "")
    assert err.startswith(f"{tmp_path / name}: expected ")
    assert "Traceback" not in err
    assert err.count("\n") == 1


def test_a_wrong_stream_file_ends_with_its_name(tmp_path: Path) -> None:
    (write_session(tmp_path, "anna", seconds=5.0) / "accelerometer.csv").write_text("x,y,z\na,b,c\n")
    code, _, err = run("inspect", str(tmp_path))
    assert code == 1
    assert "accelerometer.csv: column 'x': expected numbers" in err


@pytest.mark.skipif(not REAL.is_file(), reason=f"the real UTD-MHAD recordings are not at {REAL}")
def test_inspect_the_real_utd_mhad() -> None:
    code, out, _ = run("inspect", str(REAL))
    assert code == 0
    assert "8 subject(s), 861 windows, 0 warning(s)" in out
