from pathlib import Path

from typer.testing import CliRunner

from deploy.doctor import app
from deploy.federation_folder import FederationFolder


def test_a_machine_and_its_server_folder_are_found_right(federation: FederationFolder):
    done = CliRunner().invoke(app, [str(federation.server)])
    assert done.exit_code == 0, done.output
    assert f"ok       the federation's folder {federation.server}" in done.output
    assert not [line for line in done.output.splitlines() if line.startswith("error")]


def test_what_is_wrong_with_a_folder_ends_it_with_1_after_all_else_was_looked_at(federation: FederationFolder, tmp_path: Path):
    (federation.server / "server.key").chmod(0o644)
    done = CliRunner().invoke(app, [str(federation.server)])
    assert done.exit_code == 1
    assert "error    the federation's folder" in done.output
    assert "chmod 600" in done.output
    assert "ok       flwr" in done.output
    assert "found none of server/" in CliRunner().invoke(app, [str(tmp_path / "nothing")]).output
