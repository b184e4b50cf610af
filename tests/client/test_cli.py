import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from scipy.io import savemat
from typer.testing import CliRunner

from client import cli
from client.cli import app, detect
from client.fetch import CHECKSUMS, Fetched, Watch
from client.loaders import LOADERS
from client.sources import SOURCES, Source
from clmm_core.data.fleet import NAMES, DataConfig, open_dataset
from clmm_core.errors import DataError

SHARED = Path(__file__).parents[3] / "shared" / "data"
REAL = SHARED / "UTD-MHAD_Inertial_Skeleton.tar.xz"
WIDE = {"COLUMNS": "200", "TERM": "dumb"}
OFFICIAL_FILES = {
    "utd-mhad": "UTD-MHAD/Inertial/a1_s1_t1_inertial.mat",
    "dsads": "data/a01/p1/s01.txt",
    "hapt": "HAPT Data Set/RawData/acc_exp01_user01.txt",
    "wisdm2019": "wisdm-dataset/raw/phone/accel/data_1600_accel_phone.txt",
    "umafall": "UMAFall_Dataset/UMAFall_Subject_02_ADL_Bending_1_2016-06-13_20-25-34.csv",
    "usc-had": "USC-HAD/Subject1/a1t1.mat",
    "pamap2": "PAMAP2_Dataset/Protocol/subject101.dat",
    "mhealth": "MHEALTHDATASET/mHealth_subject1.log",
}


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


def zipped(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()


def test_list_names_every_loader_as_it_is() -> None:
    code, out, _ = run("list")
    assert code == 0
    assert sorted(loader.name for loader in LOADERS) == sorted(NAMES)
    for loader in LOADERS:
        assert loader.name in out
        for word in loader.modalities or open_dataset(DataConfig(name=loader.name, path="-")).modalities:
            assert word.partition("_")[0] in out
        if not loader.needs_path:
            open_dataset(DataConfig(name=loader.name)).subjects()
    for line in ("accelerometer _torso _right_arm _left_arm _right_leg _left_leg", "phone _accelerometer _gyroscope", "no: written from"):
        assert line in out


def test_list_says_which_loaders_met_the_real_archive() -> None:
    assert {loader.name for loader in LOADERS if loader.met_archive == "no"} == {"usc-had", "pamap2", "mhealth"}
    assert {loader.name for loader in LOADERS if loader.source.startswith("clmm data fetch")} == {source.name for source in SOURCES}


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


@pytest.mark.parametrize("packed", ["folder", "file", "zip in the folder", "zip in a zip"])
@pytest.mark.parametrize("name", OFFICIAL_FILES)
def test_official_file_names_tell_the_loader(tmp_path: Path, name: str, packed: str) -> None:
    files = {"readme.txt": b"", "__MACOSX/a01/p1/._s01.txt": b"", OFFICIAL_FILES[name]: b"1"}
    path = tmp_path / "set"
    path.mkdir()
    if packed == "folder":
        for file, content in files.items():
            (path / file).parent.mkdir(parents=True, exist_ok=True)
            (path / file).write_bytes(content)
    else:
        content = zipped(files)
        (path / "any.zip").write_bytes(zipped({"inner.zip": content}) if packed == "zip in a zip" else content)
    found, dataset = detect(path / "any.zip" if packed == "file" else path)
    assert found == name
    assert dataset == open_dataset(DataConfig(name=name, path=str(path / "any.zip" if packed == "file" else path)))


def test_every_official_set_is_recognised() -> None:
    assert set(OFFICIAL_FILES) == {loader.name for loader in LOADERS if loader.file} == {source.name for source in SOURCES}


@pytest.mark.parametrize(
    ("archive", "name"), [("HAPT_RawData.tar.bz2", "hapt"), ("UMAFall_8subjects.tar.bz2", "umafall"), ("DSADS_s01-s20.tar.bz2", "dsads")]
)
def test_real_archives_are_recognised(archive: str, name: str) -> None:
    if not (SHARED / archive).is_file():
        pytest.skip(f"the real recordings are not at {SHARED / archive}")
    assert detect(SHARED / archive)[0] == name


def test_inspect_as_a_set_whose_names_do_not_tell(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("notes")
    code, _, err = run("inspect", str(tmp_path))
    assert code == 1
    assert "or tell with --as" in err
    code, _, err = run("inspect", str(tmp_path), "--as", "utd-mhad")
    assert code == 1
    assert "expected Inertial/ or Inertial.zip" in err


@pytest.mark.parametrize("name", ["spar", "synthetic", "utd_mhad"])
def test_inspect_as_a_set_that_reads_no_files_is_refused(tmp_path: Path, name: str) -> None:
    code, out, err = run("inspect", str(tmp_path), "--as", name)
    assert (code, out) == (1, "")
    assert err.startswith("--as: expected one of utd-mhad, dsads, ")
    assert err.endswith(f"found '{name}'\n")


def fake_fetch(monkeypatch: pytest.MonkeyPatch, outcome: BaseException | bool) -> list[Path]:
    """Put in place of the download one that raises `outcome`, or that has the archives there (True: before already)."""
    asked = []

    def fetch(source: Source, to: Path, watch: Watch) -> tuple[Fetched, ...]:
        asked.append(to)
        folder = to / source.name
        folder.mkdir(parents=True, exist_ok=True)
        for archive in source.archives:
            if isinstance(outcome, BaseException):
                (folder / f"{archive.file}.part").write_bytes(b"half")
                raise outcome
            (folder / archive.file).write_bytes(b"whole")
            watch(archive.file, 5, 5)
        return tuple(Fetched(path=folder / archive.file, was_there=outcome) for archive in source.archives)

    monkeypatch.setattr(cli, "fetch", fetch)
    return asked


@pytest.mark.parametrize(("was_there", "state"), [(True, "already there, with the checksum in"), (False, "whole, its checksum is in")])
def test_fetch_says_where_it_is_and_how_to_go_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, was_there: bool, state: str) -> None:
    monkeypatch.chdir(tmp_path)
    asked = fake_fetch(monkeypatch, was_there)
    code, out, err = run("fetch", "utd-mhad")
    assert (code, err, asked) == (0, "", [Path("data")])
    assert out.splitlines() == [
        "utd-mhad: https://personal.utdallas.edu/~kehtar/UTD-MHAD.html",
        f"data/utd-mhad/Inertial.zip: {state} data/utd-mhad/{CHECKSUMS}",
        f"data/utd-mhad/Skeleton.zip: {state} data/utd-mhad/{CHECKSUMS}",
        f"Licence: {SOURCES[0].licence}. Please cite: {SOURCES[0].citation}",
        "Look at it:  clmm data inspect data/utd-mhad",
        "Train on it: clmm run --data utd-mhad --path data/utd-mhad",
    ]


def test_fetch_quotes_a_path_with_spaces(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_fetch(monkeypatch, False)
    _, out, _ = run("fetch", "hapt", "--to", str(tmp_path / "my [data]"))
    assert f"clmm data inspect '{tmp_path / 'my [data]' / 'hapt'}'" in out


def test_fetch_from_a_file_and_what_is_still_missing(tmp_path: Path) -> None:
    (tmp_path / "Inertial.zip").write_bytes(zipped({"Inertial/a1_s1_t1_inertial.mat": b"1"}))
    (tmp_path / "Skeleton.zip").write_bytes(zipped({"Skeleton/a1_s1_t1_skeleton.mat": b"1"}))
    to = tmp_path / "to"
    code, out, err = run("fetch", "utd-mhad", "--to", str(to), "--from", str(tmp_path / "Inertial.zip"))
    assert (code, err) == (0, "")
    assert "Still missing: Skeleton.zip" in out
    assert "clmm run" not in out
    code, out, err = run("fetch", "utd-mhad", "--to", str(to), "--from", str(tmp_path))
    assert (code, err) == (0, "")
    assert out.count("already there") == 1
    assert "clmm run" in out
    assert detect(to / "utd-mhad")[0] == "utd-mhad"


def test_a_failed_fetch_ends_with_one_line_and_no_traceback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_fetch(monkeypatch, DataError("https://x: HTTP 404"))
    code, _, err = run("fetch", "mhealth", "--to", str(tmp_path))
    assert (code, err) == (1, "https://x: HTTP 404\n")


def test_ctrl_c_says_what_is_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_fetch(monkeypatch, KeyboardInterrupt())
    code, _, err = run("fetch", "usc-had", "--to", str(tmp_path))
    assert code == 130
    assert err == f"Stopped. {tmp_path / 'usc-had' / 'USC-HAD.zip.part'} keeps 4 bytes, the same command starts again.\n"


def test_fetch_of_a_set_that_is_not_fetched_names_those_that_are() -> None:
    code, out, err = run("fetch", "spar")
    assert (code, out) == (1, "")
    assert err.startswith("NAME: expected one of utd-mhad, dsads, hapt, ")
    assert err.endswith("found 'spar': `clmm data list` says where each set comes from\n")


def test_a_terminal_sees_a_bar_and_a_log_none() -> None:
    for is_terminal in (True, False):
        shown = io.StringIO()
        with cli._watching(Console(file=shown, force_terminal=is_terminal, width=120)) as watch:
            watch("[a].zip", 500, 1000)
            watch("[a].zip", 1000, 1000)
            watch("b.zip", 10, None)
        assert all(word in shown.getvalue() for word in ("[a].zip", "1.0/1.0 kB", "b.zip")) == is_terminal
        assert bool(shown.getvalue()) == is_terminal


@pytest.mark.skipif(not REAL.is_file(), reason=f"the real UTD-MHAD recordings are not at {REAL}")
def test_inspect_the_real_utd_mhad() -> None:
    code, out, _ = run("inspect", str(REAL))
    assert code == 0
    assert "8 subject(s), 861 windows, 0 warning(s)" in out
