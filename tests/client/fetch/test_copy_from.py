"""Files that somebody has already."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from client.fetch import CHECKSUMS, Fetched, copy_from, fetch, left_by_interruption, missing
from clmm_core.errors import DataError
from tests.client.fetch.conftest import DAMAGED, NEW, OLD, SITE, Site, get, interrupt, names_in, quiet, source_at, tarred, zipped


def hand_over(content: bytes, folder: Path, name: str = "mine.zip") -> Fetched:
    (folder / name).write_bytes(content)
    return copy_from(folder / name, source_at(SITE), folder, quiet)[0]


@pytest.mark.parametrize(("content", "name"), [(OLD, "set.zip"), (tarred(), "set.tar")])
def test_a_single_archive_may_have_any_name(site: Site, tmp_path: Path, content: bytes, name: str) -> None:
    mine = tmp_path / "Download (1)"
    mine.write_bytes(content)
    seen: list[tuple[str, int, int | None]] = []
    source = source_at(site.url)
    (copied,) = copy_from(mine, source, tmp_path, lambda *piece: seen.append(piece))
    assert copied == Fetched(path=tmp_path / "dsads" / name, was_there=False)
    assert copied.path.read_bytes() == mine.read_bytes() == content
    assert (tmp_path / "dsads" / CHECKSUMS).read_text() == f"{hashlib.sha256(content).hexdigest()}  {name}\n"
    assert seen[-1] == ("Download (1)", len(content), len(content))
    assert {(file, total) for file, _, total in seen} == {("Download (1): checking", len(content)), ("Download (1)", len(content))}
    assert copy_from(mine, source, tmp_path, quiet) == fetch(source, tmp_path, quiet) == (replace(copied, was_there=True),)
    assert site.ranges == []


def test_a_copy_replaces_half_a_download(site: Site, tmp_path: Path) -> None:
    """And if the copy is interrupted too, the next download must not take it for its own half."""

    def ctrl_c(file: str, *_: object) -> None:
        if file == "mine.zip":  # copied, no longer checked
            raise KeyboardInterrupt

    part = interrupt(site, tmp_path, after=100)
    (tmp_path / "mine.zip").write_bytes(NEW)
    with pytest.raises(KeyboardInterrupt):
        copy_from(tmp_path / "mine.zip", source_at(site.url), tmp_path, ctrl_c)
    assert left_by_interruption(source_at(site.url), tmp_path).endswith("the same command starts again.")
    assert get(site, tmp_path).path.read_bytes() == OLD
    assert not part.exists()


def test_the_part_itself_can_be_given(site: Site, tmp_path: Path) -> None:
    part = interrupt(site, tmp_path, after=100)
    part.write_bytes(OLD)
    (copied,) = copy_from(part, source_at(site.url), tmp_path, quiet)
    assert copied.path.read_bytes() == OLD
    assert names_in(tmp_path / "dsads") == [CHECKSUMS, "set.zip"]


def test_a_set_of_two_files_comes_from_a_folder(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.zip").write_bytes(OLD)
    source = source_at(SITE, "a.zip", "b.zip")
    with pytest.raises(DataError, match=r"mine: expected a\.zip and b\.zip in this folder, found no b\.zip: give the file itself"):
        copy_from(tmp_path / "mine", source, tmp_path, quiet)
    assert not (tmp_path / "dsads").exists()
    (tmp_path / "mine" / "b.zip").write_bytes(NEW)
    both = copy_from(tmp_path / "mine", source, tmp_path, quiet)
    assert [(each.path.name, each.path.read_bytes()) for each in both] == [("a.zip", OLD), ("b.zip", NEW)]


def test_a_set_of_two_files_comes_one_by_one_by_their_names(tmp_path: Path) -> None:
    source = source_at(SITE, "a.zip", "b.zip")
    (tmp_path / "b.zip").write_bytes(NEW)
    (tmp_path / "other.zip").write_bytes(OLD)
    copy_from(tmp_path / "b.zip", source, tmp_path, quiet)
    assert missing(source, tmp_path) == ("a.zip",)
    with pytest.raises(DataError, match=r"other\.zip: expected a\.zip or b\.zip, found another name"):
        copy_from(tmp_path / "other.zip", source, tmp_path, quiet)


def test_other_bytes_than_those_there_are_refused(tmp_path: Path) -> None:
    first = hand_over(OLD, tmp_path)
    with pytest.raises(DataError, match=r"new\.zip: expected the same bytes as in .*set\.zip, which is there already"):
        hand_over(NEW, tmp_path, "new.zip")
    assert first.path.read_bytes() == OLD


def test_nothing_to_copy_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: expected set\.zip, or the folder it is in, found nothing there"):
        copy_from(tmp_path / "nowhere", source_at(SITE), tmp_path, quiet)


def test_what_is_wrong_and_what_to_do_is_said_and_nothing_recorded(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        hand_over(DAMAGED, tmp_path)
    assert str(caught.value) == (
        f"{tmp_path / 'mine.zip'}: expected a whole zip or tar archive, found one that is damaged or ends early "
        "(Bad CRC-32 for file 'data/a01/p1/s01.txt'): get set.zip again, from https://page.example"
    )
    assert not (tmp_path / "dsads" / CHECKSUMS).exists()
    assert missing(source_at(SITE), tmp_path) == ("set.zip",)


def test_what_is_refused_costs_no_half_download(tmp_path: Path) -> None:
    half = tmp_path / "dsads" / "set.zip.part"
    half.parent.mkdir()
    half.write_bytes(NEW[:100])
    for content in (DAMAGED, OLD[:-30], zipped(1, name="a.txt"), b"<html>"):
        with pytest.raises(DataError):
            hand_over(content, tmp_path)
        assert half.read_bytes() == NEW[:100]
