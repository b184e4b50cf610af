"""The commands that docs/host.md walks through, against a daemon in a process of its own."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from client.host.cli import app
from simulation.cli import app as clmm

PROJECT = Path(__file__).parents[3]


def run(*arguments: str, **environment: str) -> tuple[int, str, str]:
    result = CliRunner(env={"COLUMNS": "200", **environment}).invoke(app, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str, dict[str, str]]]:
    """Start a daemon; give its folder, its target, and the environment of its admin."""
    folder = tmp_path_factory.mktemp("cli") / "host"
    code, token, _ = run("token", "add", "anna", "--role", "admin", "--folder", str(folder))
    assert code == 0
    start = "from simulation.cli import app; app()"
    command = [sys.executable, "-c", start, "host", "run", "--folder", str(folder), "--listen", "127.0.0.1:0"]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        port = re.search(r":(\d+),", process.stdout.readline())[1]
        yield folder, f"127.0.0.1:{port}", {"CLMM_HOST_TOKEN": token.strip()}
        process.send_signal(signal.SIGTERM)


def test_recordings_go_in_are_seen_come_out_and_are_deleted(host, tmp_path):
    _, target, admin = host
    where = ("--target", target)
    code, said, _ = run("replay", "spar", "--subject", "2", *where, **admin)
    assert (code, "samples of 14 recordings are on the host's disk" in said) == (0, True)
    code, said, _ = run("status", *where, **admin)
    assert code == 0
    assert re.search(r"│ 2, ABD-left\s+│ replay\s+│ accelerometer\s+│ finished\s+│ 50.0 of 50\s+│ 0.0 ms │ 0.0% +│", said), said
    assert re.search(r"store: \d+\.\d of 2,000 MB, \d,\d+ chunks, 14 labels, 0 let go of", said), said
    code, said, _ = run("status", "--json", *where, **admin)
    assert json.loads(said)["store"]["numLabels"] == "14"
    exported = tmp_path / "mine"
    code, said, _ = run("export", "--to", str(exported), *where, **admin)
    assert (code, said) == (0, f"wrote 42 files; look at them: clmm data inspect {exported}\n")
    result = CliRunner(env={"COLUMNS": "200"}).invoke(clmm, ["data", "inspect", str(exported)])
    assert "14 sessions" in result.stdout
    code, said, _ = run("delete", "--all", *where, **admin)
    assert (code, bool(re.fullmatch(r"deleted \d\d,\d\d\d samples and 14 labels\n", said))) == (0, True)
    code, _, said = run("replay", "spar", "--subject", "2", *where, **admin)
    assert (code, "paused or deleted" in said) == (1, True), "what is deleted stays so"


def test_labels_are_given_seen_corrected_and_taken_back(host):
    _, target, admin = host
    where = ("--target", target)
    assert run("replay", "spar", "--subject", "5", "--speed", "1000", "--no-labels", *where, **admin)[0] == 0
    whose = ("--subject", "5", "--recording", "ABD-left")
    code, said, _ = run("label", "add", "lift", *whose, "--last-s", "60", *where, **admin)
    number, place, _, activity = said.strip().split("\t")
    assert (code, place, activity) == (0, "5, ABD-left", "lift")
    span = ("--from", "2026-01-01T10:00:00", "--to", "2026-01-01T10:01:00")
    said = run("label", "add", "rest", *whose, *span, *where, **admin)[1]
    assert "\t2026-01-01 10:00:00 to 10:01:00\trest" in said
    corrected = run("label", "correct", number, "raise", *where, **admin)[1].split("\t")[0]
    assert [line.split("\t")[3] for line in run("label", "list", *where, **admin)[1].splitlines()] == ["rest", "raise"]
    every = run("label", "list", "--corrected", *whose, *where, **admin)[1]
    assert f"lift\tcorrected by {corrected}\n" in every
    assert run("label", "delete", corrected, *where, **admin)[:2] == (0, f"deleted {corrected}\n")
    assert [line.split("\t")[3] for line in run("label", "list", "--corrected", *where, **admin)[1].splitlines()] == ["rest"]
    code, _, said = run("label", "add", "x", *whose, *where, **admin)
    assert (code, said) == (1, "expected either --last-s, or --from and --to: say when it was done\n")
    assert "NOT_FOUND" in run("label", "delete", "nothing", *where, **admin)[2]


def test_pause_and_resume(host):
    _, target, admin = host
    assert run("pause", "--target", target, **admin)[:2] == (0, "paused: nothing is kept\n")
    assert "PAUSED" in run("status", "--target", target, **admin)[1]
    assert run("resume", "--target", target, **admin)[:2] == (0, "recording\n")
    assert "recording" in run("status", "--target", target, **admin)[1]


def test_a_time_is_deleted(host):
    _, target, admin = host
    span = ("--from", "2020-01-01T00:00:00", "--to", "2020-01-02T00:00:00")
    assert run("delete", *span, "--target", target, **admin)[:2] == (0, "deleted 0 samples and 0 labels\n")


@pytest.mark.parametrize(
    "options", [(), ("--all", "--from", "2020-01-01T00:00:00"), ("--to", "2020-01-01T00:00:00"), ("--all", "--subject", "a")]
)
def test_what_to_delete_has_to_be_said(host, options):
    _, target, admin = host
    code, _, said = run("delete", *options, "--target", target, **admin)
    assert (code, said) == (1, "expected either --all, or --from and --to: say what to delete\n")


def test_tokens_are_listed_and_revoked(host):
    folder, target, _ = host
    code, token, _ = run("token", "add", "watch", "--role", "sensor", "--folder", str(folder))
    code, said, _ = run("token", "list", "--folder", str(folder))
    assert said == "anna\tadmin\nwatch\tsensor\n"
    code, _, said = run("status", "--target", target, CLMM_HOST_TOKEN=token.strip())
    assert (code, said) == (
        1,
        f"host at {target}: PERMISSION_DENIED: Status/GetStatus: expected a token of viewer or admin, found one of sensor\n",
    )
    assert run("token", "revoke", "watch", "--folder", str(folder))[:2] == (0, "revoked watch\n")
    assert (
        run("token", "add", "x", "--role", "king", "--folder", str(folder))[2] == "--role: expected sensor, viewer, admin, found 'king'\n"
    )


def test_a_host_that_is_not_there_is_said():
    code, _, said = run("status", "--target", "127.0.0.1:1", "--token", "x")
    assert code == 1
    assert said.startswith("host at 127.0.0.1:1: UNAVAILABLE: ")


def test_a_subject_that_is_not_there_is_said(host):
    _, target, admin = host
    code, _, said = run("replay", "spar", "--subject", "99", "--target", target, **admin)
    assert (code, said) == (1, "--subject: expected one of 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, found '99'\n")


def test_clmm_mounts_it():
    result = CliRunner().invoke(clmm, ["host", "token", "list", "--folder", "nowhere"])
    assert result.exit_code == 0
