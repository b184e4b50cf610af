import hashlib
import io
import re
import shutil
import socket
import subprocess
import sys
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
from client.fetch import CHECKSUMS, LOCK, Fetched, copy_from, fetch, left_by_interruption, missing
from client.sources import Archive, Source
from clmm_core.errors import DataError

PROJECT = Path(__file__).parents[2]
SITE = "https://site.example"
"""Never asked for anything."""
PIECE_BYTES = 16
"""Small, so that a few hundred bytes come in many pieces."""
FILE = "data/a01/p1/s01.txt"
"""What the loader of `dsads` looks for."""


def noise(seed: int, num_bytes: int = 600) -> bytes:
    """Return bytes that cannot be packed any smaller."""
    return hashlib.shake_256(bytes([seed])).digest(num_bytes)


def zipped(seed: int, num_bytes: int = 600, name: str = FILE) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(name, noise(seed, num_bytes))
    return packed.getvalue()


def tarred(packed_by: str = "xz") -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=f"w:{packed_by}") as archive:  # type: ignore[call-overload]
        member = tarfile.TarInfo(FILE)
        member.size = len(noise(1))
        archive.addfile(member, io.BytesIO(noise(1)))
    return packed.getvalue()


OLD, NEW = zipped(1), zipped(2)
DAMAGED = OLD[:100] + bytes([OLD[100] ^ 1]) + OLD[101:]


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


def hand_over(content: bytes, folder: Path, name: str = "mine.zip") -> Fetched:
    (folder / name).write_bytes(content)
    return copy_from(folder / name, source_at(SITE), folder, quiet)[0]


def interrupt(site: Site, to: Path, after: int) -> Path:
    """Fetch until the connection ends after `after` bytes, and return what is left."""
    site.breaks_after = after
    with pytest.raises(DataError, match="the connection failed"):
        get(site, to)
    site.breaks_after = None
    return to / "dsads" / "set.zip.part"


def names_in(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir() if file.name != LOCK)


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
