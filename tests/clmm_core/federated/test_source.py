from pathlib import Path

import pytest

from clmm_core.errors import CodeMismatchError
from clmm_core.federated import source
from clmm_core.federated.source import client_source, fingerprint


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package of two files and one that is not Python."""
    folder = tmp_path / "client"
    (folder / "inner").mkdir(parents=True)
    (folder / "__init__.py").write_bytes(b"one = 1\n")
    (folder / "inner" / "part.py").write_bytes(b"two = 2\nthree = 3\n")
    (folder / "notes.txt").write_bytes(b"whatever")
    return folder


def test_it_is_16_hex_digits_and_the_same_each_time(package: Path):
    assert fingerprint([package]) == fingerprint([package])
    assert len(fingerprint([package])) == 16
    assert set(fingerprint([package])) <= set("0123456789abcdef")


def test_a_byte_changes_it(package: Path):
    before = fingerprint([package])
    (package / "inner" / "part.py").write_bytes(b"two = 2\nthree = 4\n")
    assert fingerprint([package]) != before


def test_a_name_or_place_changes_it(package: Path):
    before = fingerprint([package])
    (package / "inner" / "part.py").rename(package / "inner" / "piece.py")
    renamed = fingerprint([package])
    (package / "inner" / "piece.py").rename(package / "part.py")
    assert len({before, renamed, fingerprint([package])}) == 3


def test_a_new_file_changes_it_even_if_empty(package: Path):
    before = fingerprint([package])
    (package / "more.py").touch()
    assert fingerprint([package]) != before


def test_line_ends_and_other_files_do_not_count(package: Path):
    before = fingerprint([package])
    (package / "inner" / "part.py").write_bytes(b"two = 2\r\nthree = 3\r\n")
    (package / "notes.txt").write_bytes(b"something else")
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "part.cpython-311.pyc").write_bytes(b"\0")
    assert fingerprint([package]) == before


def test_where_the_package_lies_does_not_count(package: Path, tmp_path: Path):
    before = fingerprint([package])
    (tmp_path / "elsewhere").mkdir()
    assert fingerprint([package.rename(tmp_path / "elsewhere" / "client")]) == before


def test_client_source_covers_client_and_core():
    root = Path(source.__file__).parents[2]
    assert client_source() == fingerprint([root / "client", root / "clmm_core"])


def test_a_package_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch):
    client_source.cache_clear()
    monkeypatch.setattr(source, "CLIENT_PACKAGES", ("client", "no_such_package"))
    with pytest.raises(CodeMismatchError, match="'no_such_package' is not installed here"):
        client_source()
    client_source.cache_clear()
