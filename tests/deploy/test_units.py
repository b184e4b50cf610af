"""systemd's units and the compose file, read by the programs that will read them."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.federation_folder import FederationFolder

BIN = Path(sys.executable).parent
DEPLOY = Path(__file__).parents[2] / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_accepts_every_unit_and_what_it_starts_is_what_provision_makes(federation: FederationFolder, tmp_path: Path):
    for unit in UNITS:
        text = (
            unit.read_text()
            .replace("/srv/clmm/server", str(federation.server))
            .replace("/srv/clmm/hosts", str(federation.root / "hosts"))
            .replace("/srv/clmm/venv/bin", str(BIN))
        )
        (tmp_path / unit.name.replace("@", "@ward-1")).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, tmp_path.glob("*.service"))], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    broken = tmp_path / "clmm-superlink.service"
    broken.write_text(broken.read_text().replace("ExecStart=", "ExecStart=none"))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(broken)], capture_output=True, text=True, check=False)
    assert done.returncode, "a unit that is wrong is told"


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_every_unit_comes_back_by_itself_and_may_write_below_its_folder_alone(unit: Path):
    text = unit.read_text()
    for line in ("Restart=always", "RestartSec=15", "User=clmm", "ProtectSystem=strict", "NoNewPrivileges=yes", "UMask=0077"):
        assert line in text.splitlines()
    (writable,) = re.findall(r"^ReadWritePaths=(.*)$", text, re.MULTILINE)
    assert writable.startswith("/srv/clmm")


def compose() -> list[str]:
    if shutil.which("docker") and not subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode:
        return ["docker", "compose"]
    if (old := shutil.which("docker-compose")) is None:
        pytest.skip("needs docker compose: apt-get install docker-compose")
    return [old]


def test_compose_accepts_its_file_and_each_part_has_its_folder_of_the_federation(federation: FederationFolder):
    command = [*compose(), "-f", str(DEPLOY / "docker" / "compose.yaml"), "config"]
    done = subprocess.run(
        command,
        env={"FEDERATION": str(federation.root), "HOST": "ward-2", "PATH": "/usr/bin:/bin:/usr/local/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for service, folder in (("superlink", federation.server), ("superexec", federation.server), ("host", federation.host("ward-2"))):
        (start,) = re.findall(rf"^  {service}:.*?command:\n    - \./(\S+)", done.stdout, re.MULTILINE | re.DOTALL)
        assert (folder / start).is_file()
        assert str(folder) in done.stdout
    done = subprocess.run(command, env={"PATH": "/usr/bin:/bin:/usr/local/bin"}, capture_output=True, text=True, check=False)
    assert "the folder that clmm provision made" in done.stderr


def test_the_image_gets_what_its_file_names_and_nothing_else():
    lines = (DEPLOY / "docker" / "Dockerfile.dockerignore").read_text().splitlines()
    assert lines[0] == "*", "nothing but what is named: no environments, results or keys"
    for line in lines[1:]:
        assert not line.startswith("!") or (DEPLOY.parent / line[1:]).exists(), line
    copied = {line[1:] for line in lines if line.startswith("!")}
    assert {"pyproject.toml", "README.md", "LICENSE", "constraints.txt", "clmm_core", "client", "server", "deploy", "simulation"} == copied
