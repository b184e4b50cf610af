"""A server of one file, and what the tests of `client.fetch` ask of it."""

import hashlib
import io
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from client import fetch as module
from client.fetch import LOCK, Fetched, fetch
from client.sources import Archive, Source
from clmm_core.errors import DataError

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


def interrupt(site: Site, to: Path, after: int) -> Path:
    """Fetch until the connection ends after `after` bytes, and return what is left."""
    site.breaks_after = after
    with pytest.raises(DataError, match="the connection failed"):
        get(site, to)
    site.breaks_after = None
    return to / "dsads" / "set.zip.part"


def names_in(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir() if file.name != LOCK)
