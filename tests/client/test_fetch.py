import hashlib
import io
import re
import shutil
import socket
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client import fetch as module
from client.fetch import CHECKSUMS, SOURCES, Archive, Fetched, Source, copy_from, fetch, left_by_interruption, missing
from clmm_core.data.fleet import NAMES
from clmm_core.errors import DataError

PIECE_BYTES = 16
"""Small, so that a few hundred bytes come in many pieces."""


def zipped(seed: int, num_bytes: int = 600) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a.txt", hashlib.shake_256(bytes([seed])).digest(num_bytes))
    return packed.getvalue()


def tarred() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz") as archive:
        archive.addfile(tarfile.TarInfo("a.txt"), io.BytesIO())
    return packed.getvalue()


OLD, NEW = zipped(1), zipped(2)


@dataclass
class Site:
    """A server of one file under any path, with the manners a test gives it."""

    content: bytes = OLD
    etag: str = '"v1"'
    modified: str = ""
    status: int = 200
    honours_range: bool = True
    honours_if_range: bool = True
    shift: int = 0
    """How far a part starts from where it was asked to."""
    gives_at_most: int | None = None
    """Bytes of a part, where less is given than was asked for."""
    says_length: bool = True
    breaks_after: int | None = None
    """Bytes of the body after which the connection ends, whatever was promised."""
    url: str = ""
    ranges: list[str | None] = field(default_factory=list)
    """The Range of each request."""
    encodings: set[str | None] = field(default_factory=set)
    """Every Accept-Encoding."""

    def part_asked(self, headers: dict[str, str]) -> int | None:
        asked = headers.get("Range")
        self.ranges.append(asked)
        self.encodings.add(headers.get("Accept-Encoding"))
        version = headers.get("If-Range")
        if asked is None or not self.honours_range or (self.honours_if_range and version not in (self.etag, self.modified)):
            return None
        return int(asked.removeprefix("bytes=").removesuffix("-"))


class Handler(BaseHTTPRequestHandler):
    server: "SiteServer"
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        site = self.server.site
        if self.path.startswith("/moved/"):
            self.answer(302, b"", {"Location": self.path.removeprefix("/moved")})
            return
        start = site.part_asked(dict(self.headers))
        versions = {"ETag": site.etag, "Last-Modified": site.modified}
        length = len(site.content)
        if site.status != 200 or start is None:
            self.answer(site.status, site.content, versions)
        elif start >= length:
            self.answer(416, b"no such range", versions | {"Content-Range": f"bytes */{length}"})
        else:
            start += site.shift
            part = site.content[start:][: site.gives_at_most]
            self.answer(206, part, versions | {"Content-Range": f"bytes {start}-{start + len(part) - 1}/{length}"})

    def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        sized = {"Content-Length": str(len(body))} if self.server.site.says_length else {}
        for name, value in (headers | sized | {"Connection": "close"}).items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[: self.server.site.breaks_after])

    def log_message(self, *_: object) -> None:
        pass


class SiteServer(ThreadingHTTPServer):
    site: Site


@pytest.fixture(scope="module")
def server() -> Iterator[SiteServer]:
    with SiteServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def site(server: SiteServer, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setattr(module, "PIECE_BYTES", PIECE_BYTES)
    return new_site(server)


def new_site(server: SiteServer, **manners: object) -> Site:
    server.site = Site(url=f"http://127.0.0.1:{server.server_address[1]}", **manners)  # type: ignore[arg-type]
    return server.site


def source_at(url: str, *files: str) -> Source:
    archives = tuple(Archive(file=file, url=f"{url}/{file}") for file in files or ("set.zip",))
    return Source(name="dsads", page="https://page.example", archives=archives, licence="CC BY 4.0", citation="Somebody 2020")


def quiet(file: str, done: int, total: int | None) -> None:
    pass


def get(site: Site, to: Path) -> Fetched:
    return fetch(source_at(site.url), to, quiet)[0]


def interrupt(site: Site, to: Path, after: int) -> Path:
    """Fetch until the connection ends after `after` bytes, and return what is left."""
    site.breaks_after = after
    with pytest.raises(DataError, match="the connection failed"):
        get(site, to)
    site.breaks_after = None
    return to / "dsads" / "set.zip.part"


def names_in(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_a_download_is_whole_and_its_checksum_recorded(site: Site, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int | None]] = []
    (fetched,) = fetch(source_at(site.url), tmp_path, lambda *piece: seen.append(piece))
    assert fetched == Fetched(path=tmp_path / "dsads" / "set.zip", was_there=False)
    assert fetched.path.read_bytes() == OLD
    assert names_in(tmp_path / "dsads") == [CHECKSUMS, "set.zip"]
    assert (tmp_path / "dsads" / CHECKSUMS).read_text() == f"{hashlib.sha256(OLD).hexdigest()}  set.zip\n"
    assert [done for _, done, _ in seen] == [*range(PIECE_BYTES, len(OLD), PIECE_BYTES), len(OLD)]
    assert {(file, total) for file, _, total in seen} == {("set.zip", len(OLD))}
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
    totals = set()
    (fetched,) = fetch(source_at(site.url), tmp_path, lambda file, done, total: totals.add(total))
    assert (fetched.path.read_bytes(), totals) == (OLD, {None})


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
    seen: list[int] = []
    (fetched,) = fetch(source_at(site.url), tmp_path, lambda file, done, total: seen.append(done))
    assert (fetched.path.read_bytes(), seen) == (OLD, [])
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


def test_a_connection_that_ends_without_a_promise_is_no_archive(site: Site, tmp_path: Path) -> None:
    site.says_length, site.breaks_after = False, 100
    with pytest.raises(DataError, match="expected a zip archive"):
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


def test_a_page_in_place_of_the_file_is_refused(site: Site, tmp_path: Path) -> None:
    site.content = b"<html>Please log in</html>"
    with pytest.raises(DataError, match=r"set\.zip: expected a zip archive, found something else.*Nothing came"):
        get(site, tmp_path)
    assert names_in(tmp_path / "dsads") == []


def test_offline_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    with pytest.raises(DataError, match=r"https://site\.example/set\.zip: .*Name or service not known.*Or download set\.zip in a browser"):
        fetch(source_at("https://site.example"), tmp_path, quiet)


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


def test_a_file_put_there_by_hand_counts_if_it_is_an_archive(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "dsads" / "set.zip"
    path.parent.mkdir()
    path.write_bytes(b"<html>")
    with pytest.raises(DataError, match=r"set\.zip: expected a whole zip or tar archive"):
        get(site, tmp_path)
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
    assert copy_from(mine, source, tmp_path, quiet) == fetch(source, tmp_path, quiet) == (replace(copied, was_there=True),)
    assert site.ranges == []


def test_a_set_of_two_files_comes_from_a_folder(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.zip").write_bytes(OLD)
    source = source_at("", "a.zip", "b.zip")
    with pytest.raises(DataError, match=r"mine: expected a\.zip and b\.zip in this folder, found no b\.zip: give the file itself"):
        copy_from(tmp_path / "mine", source, tmp_path, quiet)
    assert not (tmp_path / "dsads").exists()
    (tmp_path / "mine" / "b.zip").write_bytes(NEW)
    copied = copy_from(tmp_path / "mine", source, tmp_path, quiet)
    assert [(each.path.name, each.path.read_bytes()) for each in copied] == [("a.zip", OLD), ("b.zip", NEW)]


def test_a_set_of_two_files_comes_one_by_one_by_their_names(tmp_path: Path) -> None:
    source = source_at("", "a.zip", "b.zip")
    (tmp_path / "b.zip").write_bytes(NEW)
    (tmp_path / "other.zip").write_bytes(OLD)
    copy_from(tmp_path / "b.zip", source, tmp_path, quiet)
    assert missing(source, tmp_path) == ("a.zip",)
    with pytest.raises(DataError, match=r"other\.zip: expected a\.zip or b\.zip, found another name"):
        copy_from(tmp_path / "other.zip", source, tmp_path, quiet)


def test_other_bytes_than_those_there_are_refused(tmp_path: Path) -> None:
    source = source_at("")
    for name, content in (("old.zip", OLD), ("new.zip", NEW)):
        (tmp_path / name).write_bytes(content)
    (first,) = copy_from(tmp_path / "old.zip", source, tmp_path, quiet)
    with pytest.raises(DataError, match=r"new\.zip: expected the same bytes as in .*set\.zip, which is there already"):
        copy_from(tmp_path / "new.zip", source, tmp_path, quiet)
    assert first.path.read_bytes() == OLD


@pytest.mark.parametrize("content", [b"", b"<html>", OLD[:-30], tarred()[:20], b"\x1f\x8b", b"BZh9"])
def test_what_is_no_whole_archive_is_not_copied(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "mine.zip").write_bytes(content)
    with pytest.raises(DataError, match=r"mine\.zip: expected a whole zip or tar archive"):
        copy_from(tmp_path / "mine.zip", source_at(""), tmp_path, quiet)


def test_nothing_to_copy_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: expected set\.zip, or the folder it is in, found nothing there"):
        copy_from(tmp_path / "nowhere", source_at(""), tmp_path, quiet)


def test_a_copy_replaces_half_a_download(site: Site, tmp_path: Path) -> None:
    """And if the copy is interrupted too, the next download must not take it for its own half."""

    def ctrl_c(*_: object) -> None:
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


def test_every_source_is_a_data_set_of_ours_with_secure_addresses() -> None:
    names = [source.name for source in SOURCES]
    assert len(names) == len(set(names))
    assert set(names) < set(NAMES)
    for source in SOURCES:
        assert source.page.startswith("https://")
        assert source.licence
        assert source.citation
        for archive in source.archives:
            assert archive.url.startswith("https://")
            assert archive.file.endswith(".zip")
            assert Path(archive.file).name == archive.file
