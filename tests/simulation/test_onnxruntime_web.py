import base64
import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from clmm_core.errors import ConfigError
from simulation import onnxruntime_web
from simulation.onnxruntime_web import ARCHIVE, FILES, runtime_files


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an archive like npm's with short files, which counts as the right one."""
    file = tmp_path / "somewhere" / ARCHIVE
    file.parent.mkdir()
    with tarfile.open(file, "w:gz") as package:
        for name in (*FILES, "package/dist/ort.all.js"):
            member = tarfile.TarInfo(name)
            member.size = len(name)
            package.addfile(member, io.BytesIO(name.encode()))
    monkeypatch.setattr(onnxruntime_web, "SHA512", base64.b64encode(hashlib.sha512(file.read_bytes()).digest()).decode())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return file


def npm(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a program in the place of npm that does this."""
    folder.mkdir()
    (folder / "npm").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_an_archive_that_somebody_fetched_is_used(archive: Path):
    found = runtime_files(archive, pytest.fail)
    assert found == {name: member.encode() for member, name in FILES.items()}


def test_npm_is_asked_once(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    npm(tmp_path / "bin", f'echo "$@" >> {tmp_path}/asked; cp {archive} .', monkeypatch)
    said: list[str] = []
    assert runtime_files(None, said.append) == runtime_files(None, pytest.fail)
    assert len(said) == 1
    assert (tmp_path / "asked").read_text().startswith(f"pack onnxruntime-web@{onnxruntime_web.VERSION} --pack-destination")
    assert [file.name for file in (tmp_path / "cache" / "clmm").iterdir()] == [ARCHIVE]


def test_what_is_in_the_cache_is_checked_each_time(archive: Path, tmp_path: Path):
    kept = tmp_path / "cache" / "clmm" / ARCHIVE
    kept.parent.mkdir(parents=True)
    kept.write_bytes(archive.read_bytes()[:-1])
    with pytest.raises(ConfigError, match=r"expected onnxruntime-web 1\.30\.0 of SHA-512 .*: remove it, then export again"):
        runtime_files(None, pytest.fail)


def test_without_npm_it_is_said_what_to_do(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"found no npm: install npm, or on a machine with network `npm pack .*--runtime"):
        runtime_files(None, pytest.fail)


def test_without_network_it_is_said_what_to_do(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    npm(tmp_path / "bin", "echo 'npm error code ENOTFOUND' >&2; exit 1", monkeypatch)
    with pytest.raises(ConfigError, match=r"npm says: npm error code ENOTFOUND: on a machine with network"):
        runtime_files(None, lambda line: None)
    assert list((tmp_path / "cache" / "clmm").iterdir()) == []


def test_another_archive_is_refused(archive: Path, tmp_path: Path):
    other = tmp_path / "other.tgz"
    with pytest.raises(ConfigError, match="found none"):
        runtime_files(other, pytest.fail)
    other.write_bytes(b"")
    with pytest.raises(ConfigError, match="expected onnxruntime-web"):
        runtime_files(other, pytest.fail)
