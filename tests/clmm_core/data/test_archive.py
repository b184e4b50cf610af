import io
import os
import re
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from clmm_core.data.datasets.archive import MAX_DEPTH, archived_files
from clmm_core.errors import DataError

WANTED = re.compile(r"(?:^|/)s\d\.txt$")
FILES = {"data/a1/s1.txt": b"one", "data/a1/s2.txt": b"two", "data/a2/s1.txt": b"three"}
REST = {
    "data/a1/notes.txt": b"not wanted",
    "data/.cache/s9.txt": b"hidden",
    "__MACOSX/data/a1/s1.txt": b"twin",
    "data/a1/._s1.txt": b"fork",
}


def write_folder(folder: Path) -> Path:
    for name, content in (FILES | REST).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def zip_bytes(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()


def tar_bytes(files: dict[str, bytes], compression: str) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=f"w:{compression}") as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def read(path: Path) -> list[tuple[str, bytes]]:
    return list(archived_files(path, WANTED))


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    assert read(write_folder(tmp_path)) == list(FILES.items())


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("data.zip", zip_bytes),
        ("data.tar", lambda files: tar_bytes(files, "")),
        ("data.tar.gz", lambda files: tar_bytes(files, "gz")),
        ("data.tar.bz2", lambda files: tar_bytes(files, "bz2")),
        ("data.tar.xz", lambda files: tar_bytes(files, "xz")),
    ],
)
def test_an_archive_holds_the_same(tmp_path: Path, name: str, pack: Callable[[dict[str, bytes]], bytes]) -> None:
    archive = tmp_path / "sub" / name
    archive.parent.mkdir()
    archive.write_bytes(pack(FILES | REST))
    assert read(archive) == list(FILES.items())
    assert read(tmp_path) == [(f"sub/{name}/{inside}", content) for inside, content in FILES.items()]
    archive.rename(tmp_path / "renamed")
    assert read(tmp_path / "renamed") == list(FILES.items())
    assert read(tmp_path) == []  # in a folder, only the name says that a file is an archive


def test_names_in_a_tar_made_of_the_folder_it_was_in_are_plain(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar_bytes({"./data/s1.txt": b"one"}, ""))
    assert read(tmp_path / "a.tar") == [("data/s1.txt", b"one")]


def test_zips_inside_a_zip_are_opened_one_level_deep(tmp_path: Path) -> None:
    inner = zip_bytes(FILES | {"deeper.zip": zip_bytes({"s3.txt": b"too deep"})})
    (tmp_path / "outer.zip").write_bytes(zip_bytes({"inner.zip": inner, "s4.txt": b"four"}))
    assert read(tmp_path / "outer.zip") == [*((f"inner.zip/{name}", content) for name, content in FILES.items()), ("s4.txt", b"four")]


def test_a_tar_that_ends_with_a_zip_is_a_tar(tmp_path: Path) -> None:
    (tmp_path / "data.tar").write_bytes(tar_bytes(FILES | {"data/more.zip": zip_bytes({"s3.txt": b"no"})}, ""))
    assert zipfile.is_zipfile(tmp_path / "data.tar")  # why it is not asked
    assert read(tmp_path / "data.tar") == list(FILES.items())


def test_an_archive_beside_its_unpacked_folder_is_left_closed(tmp_path: Path) -> None:
    write_folder(tmp_path)
    (tmp_path / "data.tar.gz").write_bytes(b"damaged")
    (tmp_path / "more.zip").write_bytes(zip_bytes({"s5.txt": b"five"}))
    (tmp_path / "more.tar.part").write_bytes(b"not whole yet")
    assert read(tmp_path) == [*FILES.items(), ("more.zip/s5.txt", b"five")]


def test_how_deep_it_looks(tmp_path: Path) -> None:
    deepest = tmp_path.joinpath(*"abcdef")
    (deepest / "g").mkdir(parents=True)
    assert len(deepest.relative_to(tmp_path).parts) == MAX_DEPTH
    (deepest / "s1.txt").write_bytes(b"seen")
    (deepest / "g" / "s1.txt").write_bytes(b"not seen")
    (tmp_path / "a" / "b" / "seen.zip").write_bytes(zip_bytes({"s2.txt": b"seen"}))
    (tmp_path / "a" / "b" / "c" / "not_seen.zip").write_bytes(zip_bytes({"s3.txt": b"not seen"}))
    assert read(tmp_path) == [("a/b/c/d/e/f/s1.txt", b"seen"), ("a/b/seen.zip/s2.txt", b"seen")]


def test_a_folder_that_holds_itself_ends(tmp_path: Path) -> None:
    (tmp_path / "s1.txt").write_bytes(b"one")
    (tmp_path / "again").symlink_to(tmp_path)
    assert len(read(tmp_path)) == 1 + MAX_DEPTH


def test_a_file_is_read_when_it_is_asked_for(tmp_path: Path) -> None:
    files = archived_files(write_folder(tmp_path), WANTED)
    assert next(files)[0] == "data/a1/s1.txt"
    (tmp_path / "data/a1/s2.txt").write_bytes(b"changed")
    assert next(files)[1] == b"changed"


def test_nothing_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"nowhere\.zip: expected a folder, a zip or a tar archive, found nothing there: correct data\.path"
    ):
        read(tmp_path / "nowhere.zip")


@pytest.mark.parametrize("name", ["data.zip", "data.tar.gz", "data"])
def test_a_foreign_file_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"not an archive")
    with pytest.raises(DataError, match=rf"/{name}: expected a zip or tar archive, cannot read it .*: get it again, or correct data\.path"):
        read(tmp_path / name)


def test_a_damaged_zip_inside_a_zip_is_named(tmp_path: Path) -> None:
    (tmp_path / "outer.zip").write_bytes(zip_bytes({"inner.zip": b"not an archive"}))
    with pytest.raises(DataError, match=r"/outer\.zip/inner\.zip: expected a zip archive, cannot read it"):
        read(tmp_path)


def test_an_encrypted_zip_is_named(tmp_path: Path) -> None:
    content = bytearray(zip_bytes({"s1.txt": b"one"}))
    content[6] |= 1  # the flag in the file's own header
    content[content.index(b"PK\x01\x02") + 8] |= 1  # and in the list of all files
    (tmp_path / "secret.zip").write_bytes(content)
    with pytest.raises(DataError, match=r"secret\.zip: expected a zip or tar archive, cannot read it .*encrypted"):
        read(tmp_path)


@pytest.mark.parametrize("pack", [zip_bytes, *(lambda files, kind=kind: tar_bytes(files, kind) for kind in ("", "gz", "bz2", "xz"))])
def test_a_damaged_archive_is_an_error_or_harmless(tmp_path: Path, pack: Callable[[dict[str, bytes]], bytes]) -> None:
    """Whatever single byte is wrong and wherever the file is cut, no other error than ours comes out."""
    whole = pack({"data/s1.txt": bytes(range(256)) * 4})
    path = tmp_path / "archive"
    num_errors = 0
    for i in range(0, len(whole), max(1, len(whole) // 200)):
        for content in (whole[:i], whole[:i] + bytes([whole[i] ^ 0xFF]) + whole[i + 1 :]):
            path.write_bytes(content)
            try:
                read(path)
            except DataError as error:
                assert str(path) in str(error)  # noqa: PT017  not every damage is one
                num_errors += 1
    assert num_errors > 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    write_folder(tmp_path)
    (tmp_path / "data/a1/s2.txt").chmod(0)
    with pytest.raises(DataError, match=r"s2\.txt: expected a readable file, cannot read it"):
        read(tmp_path)


def test_a_link_without_its_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "s1.txt").symlink_to(tmp_path / "gone.txt")
    with pytest.raises(DataError, match=r"s1\.txt: expected a readable file, cannot read it"):
        read(tmp_path)
