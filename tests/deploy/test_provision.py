import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deploy.federation_folder import FederationFolder, renew
from deploy.provision import app


def run(*words: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def test_a_federation_is_made_changed_shown_and_checked(tmp_path: Path):
    folder = tmp_path / "ward"
    code, out, err = run("create", folder, "--address", "hub.ward.example", "kitchen", "bedroom")
    assert (code, err) == (0, "")
    for words in (
        "a federation at hub.ward.example:8443",
        "host kitchen: key SHA256:",
        "Next, on the SuperLink's machine",
        "Next, on each",
    ):
        assert words in out
    assert run("create", folder, "--address", "hub.ward.example", "kitchen") == (0, "nothing to do: it is all there\n", "")
    assert run("add", folder, "hall")[0] == 0
    assert "in place of SHA256:" in run("rotate", folder, "hall")[1]
    assert "may not join any more" in run("revoke", folder, "bedroom")[1]
    assert "host kitchen: a certificate for kitchen.local, " in run("certify", folder, "kitchen", "kitchen.local")[1]
    assert "until" in run("renew", folder, "--also", "10.0.0.5")[1]
    code, out, _ = run("show", folder)
    assert code == 0
    for words in (
        "kitchen",
        "hall",
        "not registered from here",
        "revoked",
        "may join; its private key is still",
        "10.0.0.5",
        "listens on 0.0.0.0",
    ):
        assert words in out
    assert run("show", folder / "server")[0] == 0
    assert run("check", folder) == (0, f"{folder}: ready\n", "")


def test_what_is_wrong_goes_to_standard_error_with_code_1(federation: FederationFolder, now: datetime):
    renew(federation, federation.read(), now - timedelta(days=500))
    code, out, err = run("check", federation.root)
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    assert "server.crt: ended at" in err


def test_a_warning_is_no_failure(federation: FederationFolder):
    code, out, err = run("check", federation.host("ward-1"))
    assert code == 0
    assert "ready, with 1 warning(s)" in out
    assert err.startswith("warning: 127.0.0.1:8443: nothing answers")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("create", "{}", "--address", "https://hub"), "expected HOST or HOST:PORT"),
        (("create", "{}", "--address", "hub", "a/b"), "host name: expected"),
        (("add", "{}", "x"), "expected a Federation, found none"),
        (("check", "{}"), "expected the folder of a federation"),
        (("register", "{}"), "expected a Federation, found none"),
        (("show", "{}"), "expected a Federation, found none"),
    ],
)
def test_a_mistake_is_one_sentence(words: tuple[str, ...], expected: str, tmp_path: Path):
    code, _, err = run(*(word.format(tmp_path / "ward") for word in words))
    assert code == 1
    assert expected in err
    assert "Traceback" not in err


def test_a_machine_without_pytorch_ray_and_numpy_can_provision_and_check(federation: FederationFolder):
    code = "import sys; sys.modules.update(dict.fromkeys(['torch', 'ray', 'numpy', 'flwr'])); from simulation.cli import app; app()"
    for words in (("check", federation.root), ("show", federation.root), ("check", federation.host("ward-1"))):
        command = [sys.executable, "-c", code, "provision", *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
