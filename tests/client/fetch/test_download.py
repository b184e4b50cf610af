"""What comes over the network: whole, on from where it stopped, or not at all."""

import hashlib
import re
import shutil
import socket
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client import fetch as module
from client.fetch import CHECKSUMS, Fetched, fetch, missing
from clmm_core.errors import DataError
from tests.client.fetch.conftest import (
    NEW,
    OLD,
    PIECE_BYTES,
    SITE,
    Site,
    SiteServer,
    get,
    interrupt,
    names_in,
    new_site,
    quiet,
    source_at,
    tarred,
)


def test_a_download_is_whole_and_its_checksum_recorded(site: Site, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int | None]] = []
    (fetched,) = fetch(source_at(site.url), tmp_path, lambda *piece: seen.append(piece))
    assert fetched == Fetched(path=tmp_path / "dsads" / "set.zip", was_there=False)
    assert fetched.path.read_bytes() == OLD
    assert names_in(tmp_path / "dsads") == [CHECKSUMS, "set.zip"]
    assert (tmp_path / "dsads" / CHECKSUMS).read_text() == f"{hashlib.sha256(OLD).hexdigest()}  set.zip\n"
    assert [done for file, done, _ in seen if file == "set.zip"] == [*range(PIECE_BYTES, len(OLD), PIECE_BYTES), len(OLD)]
    assert {(file, total) for file, _, total in seen} == {("set.zip", len(OLD)), ("set.zip: checking", len(OLD))}
    assert missing(source_at(site.url), tmp_path) == ()


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="no sha256sum on this machine")
def test_sha256sum_reads_what_we_record(site: Site, tmp_path: Path) -> None:
    fetch(source_at(site.url, "b.zip", "a.zip"), tmp_path, quiet)
    subprocess.run(["sha256sum", "--check", "--strict", CHECKSUMS], cwd=tmp_path / "dsads", check=True, capture_output=True)


def test_what_is_there_is_checked_and_not_fetched_again(site: Site, tmp_path: Path) -> None:
    first = get(site, tmp_path)
    assert get(site, tmp_path) == replace(first, was_there=True)
    assert site.ranges == [None]


def test_a_server_that_does_not_say_the_length_will_do(site: Site, tmp_path: Path) -> None:
    site.says_length = False
    totals = {}
    (fetched,) = fetch(source_at(site.url), tmp_path, lambda file, done, total: totals.update({file: total}))
    assert (fetched.path.read_bytes(), totals) == (OLD, {"set.zip": None, "set.zip: checking": len(OLD)})


manners = st.fixed_dictionaries(
    {
        "etag": st.sampled_from(['"v1"', 'W/"v1"', ""]),
        "modified": st.sampled_from(["Wed, 01 Jul 2015 10:00:00 GMT", ""]),
        "honours_range": st.booleans(),
    }
)


@settings(max_examples=60, deadline=None)
@given(manners=manners, breaks=st.lists(st.integers(0, len(OLD) - 1), max_size=4))
def test_interrupted_anywhere_the_bytes_are_the_same(server: SiteServer, manners: dict[str, object], breaks: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(module, "PIECE_BYTES", PIECE_BYTES)
        site = new_site(server, **manners)
        for after in breaks:
            site.breaks_after = after
            try:
                get(site, Path(folder))
            except DataError:
                continue
            break  # less was missing than the server gave
        site.breaks_after = None
        assert get(site, Path(folder)).path.read_bytes() == OLD
        assert names_in(Path(folder) / "dsads") == [CHECKSUMS, "set.zip"]


@pytest.mark.parametrize(
    ("etag", "modified"), [('"v1"', ""), ("", "Wed, 01 Jul 2015 10:00:00 GMT"), ('W/"v1"', "Wed, 01 Jul 2015 10:00:00 GMT")]
)
def test_it_goes_on_where_it_stopped(site: Site, tmp_path: Path, etag: str, modified: str) -> None:
    site.etag, site.modified = etag, modified
    part = interrupt(site, tmp_path, after=100)
    held = part.stat().st_size
    assert 80 <= held <= 100
    seen = []
    fetch(source_at(site.url), tmp_path, lambda file, done, total: seen.append(done))
    assert site.ranges == [None, f"bytes={held}-"]
    assert seen[0] == held + PIECE_BYTES
    assert part.with_name("set.zip").read_bytes() == OLD


@pytest.mark.parametrize("etag", ["", 'W/"v1"'])
def test_without_a_version_it_starts_again(site: Site, tmp_path: Path, etag: str) -> None:
    site.etag = etag
    interrupt(site, tmp_path, after=100)
    assert get(site, tmp_path).path.read_bytes() == OLD
    assert site.ranges == [None, None]


def test_a_server_that_ignores_ranges_sends_it_all_again(site: Site, tmp_path: Path) -> None:
    interrupt(site, tmp_path, after=100)
    site.honours_range = False
    assert get(site, tmp_path).path.read_bytes() == OLD


@pytest.mark.parametrize("honours_if_range", [True, False])
def test_a_file_that_changed_meanwhile_is_not_mixed(site: Site, tmp_path: Path, honours_if_range: bool) -> None:
    interrupt(site, tmp_path, after=100)
    site.content, site.etag, site.honours_if_range = NEW, '"v2"', honours_if_range
    assert get(site, tmp_path).path.read_bytes() == NEW


def test_a_version_is_not_noted_for_the_bytes_of_another(site: Site, tmp_path: Path) -> None:
    interrupt(site, tmp_path, after=100)
    site.content, site.etag = NEW, ""
    interrupt(site, tmp_path, after=200)
    site.content, site.etag = OLD, '"v1"'
    assert get(site, tmp_path).path.read_bytes() == OLD


def test_a_server_may_give_less_than_asked_for(site: Site, tmp_path: Path) -> None:
    interrupt(site, tmp_path, after=100)
    site.gives_at_most = 300
    with pytest.raises(DataError, match=rf"ended after 396 of {len(OLD)} bytes.*goes on from there"):
        get(site, tmp_path)
    for _ in range(2):
        with suppress(DataError):
            get(site, tmp_path)
    assert get(site, tmp_path).path.read_bytes() == OLD
    assert site.ranges[:3] == [None, "bytes=96-", "bytes=396-"]


def test_bytes_are_asked_for_as_they_are(site: Site, tmp_path: Path) -> None:
    """A length, an offset and a checksum would not mean the file's if they came packed."""
    get(site, tmp_path)
    assert site.encodings == {"identity"}


@pytest.mark.parametrize("shift", [-1, 1])
def test_a_part_that_starts_elsewhere_is_not_taken(site: Site, tmp_path: Path, shift: int) -> None:
    interrupt(site, tmp_path, after=100)
    site.shift = shift
    assert get(site, tmp_path).path.read_bytes() == OLD
    assert site.ranges[2:] == [None]


def test_a_part_that_was_whole_is_only_renamed(site: Site, tmp_path: Path) -> None:
    part = interrupt(site, tmp_path, after=100)
    part.write_bytes(OLD)
    seen = set()
    (fetched,) = fetch(source_at(site.url), tmp_path, lambda file, done, total: seen.add(file))
    assert (fetched.path.read_bytes(), seen) == (OLD, {"set.zip: checking"})
    assert site.ranges == [None, f"bytes={len(OLD)}-"]


def test_a_part_longer_than_the_file_is_fetched_again(site: Site, tmp_path: Path) -> None:
    interrupt(site, tmp_path, after=100).write_bytes(OLD + b"more")
    assert get(site, tmp_path).path.read_bytes() == OLD


def test_a_redirect_keeps_the_range(site: Site, tmp_path: Path) -> None:
    held = interrupt(site, tmp_path, after=100).stat().st_size
    (fetched,) = fetch(source_at(f"{site.url}/moved"), tmp_path, quiet)
    assert fetched.path.read_bytes() == OLD
    assert site.ranges[1:] == [f"bytes={held}-"]


def test_a_broken_connection_says_how_to_go_on(site: Site, tmp_path: Path) -> None:
    site.breaks_after = 100
    with pytest.raises(DataError) as caught:
        get(site, tmp_path)
    part = tmp_path / "dsads" / "set.zip.part"
    what, where, to_do = str(caught.value).partition(f"{part} keeps {part.stat().st_size} bytes")
    assert re.fullmatch(rf"{site.url}/set\.zip: the connection failed \(.*100 bytes read.*\)\. ", what)
    assert where
    assert to_do == (
        ", the same command goes on from there. Or download set.zip in a browser, from https://page.example, and run "
        f"`clmm data fetch dsads --to {tmp_path} --from FILE`"
    )


@pytest.mark.parametrize("content", [OLD, tarred("bz2"), tarred("xz"), tarred("gz"), tarred("")])
def test_a_connection_that_ends_without_a_promise_goes_on(site: Site, tmp_path: Path, content: bytes) -> None:
    site.content, site.says_length, site.breaks_after = content, False, 600
    with pytest.raises(
        DataError, match=r"ended early, after 600 bytes.*set\.zip\.part keeps 600 bytes, the same command goes on from there"
    ):
        get(site, tmp_path)
    site.breaks_after = None
    assert get(site, tmp_path).path.read_bytes() == content
    assert site.ranges == [None, "bytes=600-"]


def test_a_connection_that_ends_without_a_promise_starts_again_if_the_version_is_unknown(site: Site, tmp_path: Path) -> None:
    site.says_length, site.breaks_after, site.etag = False, 100, ""
    with pytest.raises(DataError, match=r"ended early, after 100 bytes.*set\.zip\.part keeps 100 bytes, the same command starts again"):
        get(site, tmp_path)
    site.breaks_after = None
    assert get(site, tmp_path).path.read_bytes() == OLD


def test_an_early_end_is_told_from_a_file_that_changed(site: Site, tmp_path: Path) -> None:
    """A checksum was recorded, but half a file is no reason to doubt it."""
    get(site, tmp_path).path.unlink()
    site.says_length, site.breaks_after = False, 100
    with pytest.raises(DataError, match="ended early, after 100 bytes"):
        get(site, tmp_path)
    site.breaks_after = None
    assert get(site, tmp_path).path.read_bytes() == OLD


@pytest.mark.parametrize(
    ("status", "said"), [(404, "HTTP 404 Not Found"), (202, "HTTP 202 Accepted"), (503, "HTTP 503"), (206, "HTTP 206")]
)
def test_an_answer_that_is_no_file_names_the_address(site: Site, tmp_path: Path, status: int, said: str) -> None:
    site.status = status
    with pytest.raises(DataError, match=rf"{site.url}/set\.zip: the server answered {said}.*Nothing came\. Or download"):
        get(site, tmp_path)
    assert names_in(tmp_path / "dsads") == []


def test_a_failing_server_does_not_cost_what_is_here(site: Site, tmp_path: Path) -> None:
    part = interrupt(site, tmp_path, after=100)
    held = part.read_bytes()
    site.status = 503
    with pytest.raises(DataError, match="HTTP 503"):
        get(site, tmp_path)
    assert part.read_bytes() == held


@pytest.mark.parametrize("says_length", [True, False])
def test_a_page_in_place_of_the_file_is_refused(site: Site, tmp_path: Path, says_length: bool) -> None:
    site.content, site.says_length = b"<html>Please log in</html>", says_length
    with pytest.raises(DataError, match=r"set\.zip: expected a zip archive, found something else.*Nothing came"):
        get(site, tmp_path)
    assert names_in(tmp_path / "dsads") == []


def test_offline_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    with pytest.raises(DataError, match=r"https://site\.example/set\.zip: .*Name or service not known.*Or download set\.zip in a browser"):
        fetch(source_at(SITE), tmp_path, quiet)


def test_nobody_listening_says_so(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(DataError, match=r"the connection failed \(.*Connection refused\)"):
        fetch(source_at(f"http://127.0.0.1:{port}"), tmp_path, quiet)


def test_a_silent_server_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT_S", (1.0, 0.05))
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(DataError, match=r"no answer \(.*timed out"):
        fetch(source_at(f"http://127.0.0.1:{silent.getsockname()[1]}"), tmp_path, quiet)


def test_no_secure_connection_says_so(site: Site, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no secure connection"):
        fetch(source_at(site.url.replace("http:", "https:")), tmp_path, quiet)
