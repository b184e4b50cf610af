"""What lies on disk, before, after and while it is fetched: checked, locked, never lost."""

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from client.fetch import CHECKSUMS, copy_from, fetch, left_by_interruption, missing
from clmm_core.errors import DataError
from tests.client.fetch.conftest import DAMAGED, NEW, OLD, Site, get, interrupt, names_in, quiet, source_at, zipped

PROJECT = Path(__file__).parents[3]


def test_a_damaged_file_is_not_taken_for_an_early_end_for_ever(site: Site, tmp_path: Path) -> None:
    site.content, site.says_length = DAMAGED, False
    with pytest.raises(DataError, match="ended early"):
        get(site, tmp_path)
    with pytest.raises(DataError, match=r"damaged.*It was removed, the same command starts again"):  # now its length is known
        get(site, tmp_path)
    site.content = OLD
    assert get(site, tmp_path).path.read_bytes() == OLD
    assert site.ranges == [None, f"bytes={len(DAMAGED)}-", None]


@pytest.mark.parametrize("says_length", [True, False])
def test_the_archive_of_another_set_is_removed(site: Site, tmp_path: Path, says_length: bool) -> None:
    site.content, site.says_length = zipped(1, name="mHealth_subject1.log"), says_length
    with pytest.raises(
        DataError, match=r"set\.zip: expected files of dsads .*found none.*It was removed, the same command starts again\. Or"
    ):
        get(site, tmp_path)
    assert names_in(tmp_path / "dsads") == []


@pytest.mark.parametrize("content", [DAMAGED, OLD[:-30]])
def test_a_damaged_file_is_removed_and_not_recorded(site: Site, tmp_path: Path, content: bytes) -> None:
    site.content = content
    with pytest.raises(
        DataError, match=r"set\.zip: expected a whole zip or tar archive, found one that is damaged.*It was removed, the same"
    ):
        get(site, tmp_path)
    assert names_in(tmp_path / "dsads") == []
    site.content = OLD
    assert get(site, tmp_path).path.read_bytes() == OLD
    assert site.ranges == [None, None]


def test_a_file_that_changed_on_disk_is_named_and_kept(site: Site, tmp_path: Path) -> None:
    path = get(site, tmp_path).path
    path.write_bytes(NEW)
    old, new = (hashlib.sha256(content).hexdigest() for content in (OLD, NEW))
    with pytest.raises(DataError, match=rf"set\.zip: expected SHA-256 {old} .*found {new}.*Nothing was removed") as caught:
        get(site, tmp_path)
    assert str(path.parent / CHECKSUMS) in str(caught.value)
    assert path.read_bytes() == NEW
    (path.parent / CHECKSUMS).unlink()  # what the message says to do if the new bytes are right
    assert get(site, tmp_path).was_there
    assert new in (path.parent / CHECKSUMS).read_text()


def test_an_official_file_that_changed_is_kept_for_the_user_to_decide(site: Site, tmp_path: Path) -> None:
    path = get(site, tmp_path).path
    path.unlink()
    site.content, site.etag = NEW, '"v2"'
    with pytest.raises(DataError, match=r"set\.zip\.part: expected SHA-256 .* remove the line of set\.zip"):
        get(site, tmp_path)
    assert not path.exists()
    (path.parent / CHECKSUMS).unlink()
    assert get(site, tmp_path).path.read_bytes() == NEW
    assert site.ranges == [None, None, f"bytes={len(NEW)}-"]  # it did not come a second time


def test_a_checksum_file_we_cannot_read_is_named(site: Site, tmp_path: Path) -> None:
    path = get(site, tmp_path).path
    with (path.parent / CHECKSUMS).open("a") as sums:
        sums.write("set.zip is fine\n")
    with pytest.raises(DataError, match=r"SHA256SUMS, line 2: expected '<64 hex digits>  <file>', found 'set.zip is fine'"):
        get(site, tmp_path)


def test_a_file_put_there_by_hand_counts_if_it_is_the_archive(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "dsads" / "set.zip"
    path.parent.mkdir()
    for content, said in (
        (b"<html>", "expected a whole zip or tar archive, found another file"),
        (DAMAGED, "expected a whole zip or tar archive, found one that is damaged"),
        (zipped(1, name="a.txt"), "expected files of dsads"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=rf"set\.zip: {said}.*: move it away and run the same command again"):
            get(site, tmp_path)
        assert (names_in(path.parent), path.read_bytes()) == (["set.zip"], content)
    path.write_bytes(OLD)
    assert get(site, tmp_path).was_there
    assert site.ranges == []


def test_a_folder_that_cannot_be_made_is_named(site: Site, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(DataError, match="data/dsads: cannot be read or written"):
        get(site, tmp_path / "data")


def test_a_disk_that_is_full_is_named(site: Site, tmp_path: Path) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(DataError, match=r"set\.zip\.part: cannot be read or written \(.*No space left"):
        fetch(source_at(site.url), tmp_path, full)


def test_after_ctrl_c_it_goes_on(site: Site, tmp_path: Path) -> None:
    def ctrl_c(file: str, done: int, total: int | None) -> None:
        if done > 100:
            raise KeyboardInterrupt

    source = source_at(site.url)
    assert left_by_interruption(source, tmp_path) == "Nothing came yet: run the same command again."
    with pytest.raises(KeyboardInterrupt):
        fetch(source, tmp_path, ctrl_c)
    part = tmp_path / "dsads" / "set.zip.part"
    assert left_by_interruption(source, tmp_path) == f"{part} keeps 112 bytes, the same command goes on from there."
    assert get(site, tmp_path).path.read_bytes() == OLD
    assert site.ranges == [None, "bytes=112-"]


def test_of_two_fetches_at_once_the_second_is_refused(site: Site, tmp_path: Path) -> None:
    source = source_at(site.url)
    (tmp_path / "mine.zip").write_bytes(NEW)
    refused = []

    def second(*_: object) -> None:
        for again in (lambda: fetch(source, tmp_path, quiet), lambda: copy_from(tmp_path / "mine.zip", source, tmp_path, quiet)):
            with pytest.raises(DataError) as caught:
                again()
            refused.append(str(caught.value))

    (fetched,) = fetch(source, tmp_path, second)
    assert set(refused) == {f"{tmp_path / 'dsads'}: another fetch of dsads is going on: wait for its end, then run the same command again"}
    assert fetched.path.read_bytes() == OLD
    assert site.ranges == [None]
    assert get(site, tmp_path).was_there


def test_another_set_can_be_fetched_meanwhile(site: Site, tmp_path: Path) -> None:
    other = replace(source_at(site.url), name="mhealth")
    (tmp_path / "other.zip").write_bytes(zipped(3, name="mHealth_subject1.log"))
    fetch(source_at(site.url), tmp_path, lambda *_: copy_from(tmp_path / "other.zip", other, tmp_path, quiet))
    assert missing(other, tmp_path) == missing(source_at(site.url), tmp_path) == ()


def test_a_killed_fetch_holds_nobody_up_and_goes_on(site: Site, tmp_path: Path) -> None:
    site.content = zipped(1, num_bytes=100_000)
    until_half = (
        "import sys, time\n"
        "from client import fetch as module\n"
        "module.PIECE_BYTES = 1000\n"
        f"source = module.{source_at(site.url)!r}\n".replace("(Archive(", "(module.Archive(")
        + "def watch(file, done, total):\n"
        "    if done > 50_000:\n"
        "        print('half', flush=True)\n"
        "        time.sleep(600)\n"
        f"module.fetch(source, module.Path({str(tmp_path)!r}), watch)\n"
    )
    with subprocess.Popen([sys.executable, "-c", until_half], cwd=PROJECT, stdout=subprocess.PIPE, text=True) as first:
        try:
            assert first.stdout is not None
            assert first.stdout.readline() == "half\n"
            with pytest.raises(DataError, match="another fetch of dsads is going on"):
                get(site, tmp_path)
        finally:
            first.kill()
    held = (tmp_path / "dsads" / "set.zip.part").stat().st_size
    assert 0 < held <= 51_000
    assert get(site, tmp_path).path.read_bytes() == site.content
    assert site.ranges == [None, f"bytes={held}-"]


def test_the_length_is_that_of_the_file_whoever_wrote_to_it(site: Site, tmp_path: Path) -> None:
    """Some network file systems lock nothing."""
    part = interrupt(site, tmp_path, after=100)

    def somebody_else(file: str, done: int, total: int | None) -> None:
        if done < 200:
            with part.open("ab") as file_of_both:
                file_of_both.write(b"theirs")

    with pytest.raises(DataError, match=rf"the connection ended after {len(OLD) + 36} of {len(OLD)} bytes"):
        fetch(source_at(site.url), tmp_path, somebody_else)
    assert get(site, tmp_path).path.read_bytes() == OLD
