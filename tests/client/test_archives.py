import hashlib
import io
import re
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.archives import Fault, archive_suffix, fault_in
from client.loaders import LOADERS
from clmm_core.data.datasets.archive import archived_files

FILES = {f"data/a01/p{i}/s01.txt": hashlib.shake_256(bytes([i])).digest(1500) for i in range(1, 4)}
"""What the loader of `dsads` looks for."""
SOMETHING = re.compile(".")
NOT_WHOLE = r"expected a whole zip or tar archive, found one that is damaged or ends early \("


def zipped(files: dict[str, bytes], packed_by: int = zipfile.ZIP_STORED) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", packed_by) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, packed_by)
    return packed.getvalue()


def tarred(files: dict[str, bytes], packed_by: str = "") -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=f"w:{packed_by}") as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


OLD, NEW = zipped(FILES), zipped({name: content[::-1] for name, content in FILES.items()})
ZIPS = {
    packed_by: zipped(FILES, packed_by) for packed_by in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
}
TARS = {packed_by: tarred(FILES, packed_by) for packed_by in ("bz2", "gz", "xz")}


def changed(content: bytes, place: int, xor: int = 1) -> bytes:
    return content[:place] + bytes([content[place] ^ xor]) + content[place + 1 :]


def fault(content: bytes, folder: Path, name: str = "dsads") -> Fault | None:
    (folder / "mine").write_bytes(content)
    return fault_in(folder / "mine", name, lambda done, total: None)


def reason(content: bytes, folder: Path, name: str = "dsads") -> str:
    found = fault(content, folder, name)
    assert found is not None
    return found.reason


@pytest.mark.parametrize("content", [*ZIPS.values(), *TARS.values(), tarred(FILES)])
def test_whole_archives_have_no_fault(tmp_path: Path, content: bytes) -> None:
    assert fault(content, tmp_path) is None


@pytest.mark.parametrize(
    ("content", "suffix"),
    [(OLD, ".zip"), (tarred(FILES), ".tar"), *((content, ".tar") for content in TARS.values()), (b"", None), (b"<html>", None)],
)
def test_the_content_tells_the_suffix_also_where_the_rest_is_missing(tmp_path: Path, content: bytes, suffix: str | None) -> None:
    for num_bytes in (len(content), 600):
        (tmp_path / "mine").write_bytes(content[:num_bytes])
        assert archive_suffix(tmp_path / "mine") == suffix


def test_the_bytes_are_told_up_to_all_of_them(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    (tmp_path / "mine").write_bytes(OLD)
    fault_in(tmp_path / "mine", "dsads", lambda done, total: told.append((done, total)))
    assert len(told) > len(FILES)
    assert told == sorted(told)
    assert told[-1] == (len(OLD), len(OLD))


def test_what_the_disk_says_is_no_fault_of_the_archive(tmp_path: Path) -> None:
    def failing(*_: object) -> None:
        raise OSError(5, "Input/output error")

    (tmp_path / "mine").write_bytes(OLD)
    with pytest.raises(OSError, match="Input/output error"):
        fault_in(tmp_path / "mine", "dsads", failing)


@pytest.mark.parametrize("content", [b"", b"<html>", tarred({}, "xz")[:4]])
def test_what_begins_like_no_archive_stays_none(tmp_path: Path, content: bytes) -> None:
    assert fault(content, tmp_path) == Fault(reason="expected a whole zip or tar archive, found another file", may_end_early=False)


@pytest.mark.parametrize("content", [OLD[:-30], tarred({}, "xz")[:20], b"\x1f\x8b", b"BZh9"])
def test_what_begins_like_an_archive_may_end_early(tmp_path: Path, content: bytes) -> None:
    found = fault(content, tmp_path)
    assert found is not None
    assert re.match(NOT_WHOLE, found.reason)
    assert found.may_end_early


@settings(max_examples=40, deadline=None)
@given(content=st.sampled_from([*ZIPS.values(), *TARS.values()]), share=st.floats(0, 1, exclude_max=True))
def test_cut_anywhere_it_is_not_whole(content: bytes, share: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        assert reason(content[: int(share * len(content))], Path(folder)).startswith("expected a whole zip or tar archive")


@settings(max_examples=100, deadline=None)
@given(content=st.sampled_from([*ZIPS.values(), *TARS.values()]), share=st.floats(0, 1, exclude_max=True), xor=st.integers(1, 255))
def test_changed_anywhere_it_is_refused_or_holds_the_same(content: bytes, share: float, xor: int) -> None:
    """A few bytes, such as the date of a file, mean nothing to us."""
    with tempfile.TemporaryDirectory() as folder:
        if fault(changed(content, int(share * len(content)), xor), Path(folder)) is None:
            held = {content for _, content in archived_files(Path(folder) / "mine", SOMETHING)}
            assert held == set(FILES.values())


@pytest.mark.parametrize("num_blocks", range(1, 13))
def test_a_tar_cut_between_its_blocks_is_not_whole(tmp_path: Path, num_blocks: int) -> None:
    assert re.match(NOT_WHOLE, reason(tarred(FILES)[: num_blocks * tarfile.BLOCKSIZE], tmp_path))


def test_a_tar_damaged_between_its_files_is_not_whole(tmp_path: Path) -> None:
    """tarfile takes a header that it cannot read for the end."""
    second_header = 4 * tarfile.BLOCKSIZE
    assert re.fullmatch(rf"{NOT_WHOLE}its end is missing\)", reason(changed(tarred(FILES), second_header), tmp_path))


def test_a_cut_zip_is_not_taken_for_the_zip_stored_in_it(tmp_path: Path) -> None:
    outer = zipped({"inner.zip": OLD, "more.zip": NEW})
    assert re.fullmatch(rf"{NOT_WHOLE}its end is missing\)", reason(outer[: outer.index(OLD) + len(OLD) + 100], tmp_path))


def test_the_archive_may_lie_in_a_zip(tmp_path: Path) -> None:
    hidden = {"__MACOSX/._inner.zip": b"no zip"}
    content = zipped({"readme.txt": b"", **hidden, "inner.zip": ZIPS[zipfile.ZIP_DEFLATED]}, zipfile.ZIP_DEFLATED)
    assert fault(content, tmp_path) is None


def test_a_damaged_zip_in_a_zip_is_named(tmp_path: Path) -> None:
    found = fault(zipped({"inner.zip": OLD[:-30]}), tmp_path)
    assert found is not None
    assert re.match(rf"{NOT_WHOLE}.*File is not a zip file", found.reason)
    assert not found.may_end_early  # the outer one is whole


def test_a_locked_archive_is_refused(tmp_path: Path) -> None:
    """A bit of each file says that it needs a password, in its own header and in the table of contents."""
    locked = zipped({"data/a01/p1/s01.txt": b"1"})
    for header, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        locked = changed(locked, locked.index(header) + place)
    assert re.match(rf"{NOT_WHOLE}.*encrypted", reason(locked, tmp_path))


@pytest.mark.parametrize("name", [loader.name for loader in LOADERS if loader.file])
@pytest.mark.parametrize("content", [zipped({"a.txt": b"", "inner.zip": zipped({"b.txt": b""})}), tarred({"a.txt": b""}, "xz"), tarred({})])
def test_the_archive_of_another_set_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    found = fault(content, tmp_path, name)
    assert found is not None
    assert re.fullmatch(rf"expected files of {name} \(.*\), found none in this archive", found.reason)
    assert not found.may_end_early
