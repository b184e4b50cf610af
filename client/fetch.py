"""Fetch a data set's official archives, by download or from disk, and know each again by its SHA-256.

They land in `TO/NAME/`, each as `FILE.part` until `client/archives.py` finds it whole. Beside a download lies `FILE.part.version`, which
holds what the server calls its version: a later run goes on where this one stopped if the server still has that version, and starts again
if not. One run at a time holds `TO/NAME/.lock`.

Source: RFC 9110, sections 13.1.5 (If-Range), 14.2 (Range) and 15.3.7.3 (parts are joined only if their strong validator is the same).
Differs: a file's date counts as a strong validator without a look at the clock; these files are years old.
"""

import fcntl
import hashlib
import re
import shlex
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests

from client.archives import Fault, archive_suffix, fault_in
from client.sources import Archive, Source
from clmm_core.errors import DataError

TO = Path("data")
"""Where the sets land unless the user says otherwise."""
CHECKSUMS = "SHA256SUMS"
LOCK = ".lock"
TIMEOUT_S = (15.0, 60.0)
"""To connect, and to wait for the next piece."""
PIECE_BYTES = 1 << 16
OK, PARTIAL_CONTENT, RANGE_NOT_SATISFIABLE = 200, 206, 416
_CHECKSUM = re.compile(r"[0-9a-f]{64} [ *].+")
_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+)")

Watch = Callable[[str, int, int | None], None]
"""Is told a file's name, its bytes so far and those in all (None: nobody knows), a piece at a time; then `NAME: checking` and the same."""


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """An archive that is here, whole and with the checksum it always had."""

    path: Path
    was_there: bool
    """Nothing was downloaded or copied."""


def fetch(source: Source, to: Path, watch: Watch) -> tuple[Fetched, ...]:
    """Return the set's archives in `to / source.name`; what is not there yet is downloaded.

    Raises:
        DataError: the network or the server fails, what came is no whole archive of this set, a checksum is not the recorded one, or
            another fetch of the set is going on. What can still become whole stays, and the message says how to go on.
    """
    with _alone_in(to / source.name):
        return tuple(_downloaded(source, archive, to / source.name, watch) for archive in source.archives)


def copy_from(given: Path, source: Source, to: Path, watch: Watch) -> tuple[Fetched, ...]:
    """Return the archives that `given` holds (a file, or a folder with the official files), copied to `to / source.name`.

    Raises:
        DataError: they are not there, are no whole archives of this set, or are not those whose checksum is recorded; or another fetch
            of the set is going on.
    """
    files = _given_files(source, given.expanduser())
    with _alone_in(to / source.name):
        return tuple(_copied(file, source, archive, to / source.name, watch) for archive, file in files)


def missing(source: Source, to: Path) -> tuple[str, ...]:
    """Return the official names of the archives that are not in `to / source.name` yet."""
    return tuple(archive.file for archive in source.archives if _present(archive, to / source.name) is None)


def left_by_interruption(source: Source, to: Path) -> str:
    """Say what an interrupted fetch left, and how to go on."""
    parts = sorted((to / source.name).glob("*.part"))
    return " ".join(_kept(part) for part in parts) or "Nothing came yet: run the same command again."


def _downloaded(source: Source, archive: Archive, folder: Path, watch: Watch) -> Fetched:
    present = _present(archive, folder)
    if present is not None:
        _confirmed_present(source, present, watch)
        return Fetched(path=present, was_there=True)
    target = folder / archive.file
    part = _part(target)
    told_length = _download(source, archive, target, watch)
    with _disk(part):
        suffix = archive_suffix(part)
    if suffix is None:  # a page that says why there is no file; nothing worth going on from
        _drop(part)
        raise _failure(source, archive, target, "expected a zip archive, found something else, perhaps a page for people")
    fault = _fault(source, part, watch)
    if fault is not None and fault.may_end_early and not told_length:
        raise _failure(source, archive, target, f"the download ended early, after {part.stat().st_size} bytes: {fault.reason}")
    if fault is not None:  # the server has no more of it: kept, it would be found wrong for ever
        _drop(part)
        raise _failure(source, archive, target, fault.reason, left="It was removed, the same command starts again.")
    return _settled(target)


def _download(source: Source, archive: Archive, target: Path, watch: Watch) -> bool:
    """Bring the part of `target` to its full length; it goes on from where it ends if the server still has the same version.

    Returns whether the server told that length: if not, an end of the connection looks like the end of the file.
    """
    part = _part(target)
    offset, version = _held(part)
    headers = {"Accept-Encoding": "identity"}  # lengths, offsets and the checksum are those of the file itself
    if offset:
        headers |= {"Range": f"bytes={offset}-", "If-Range": version}
    with _disk(part), _network(source, archive, target), _get(archive.url, headers) as response:
        status = response.status_code
        if status != OK and not (offset and status in (PARTIAL_CONTENT, RANGE_NOT_SATISFIABLE)):
            raise _failure(source, archive, target, f"the server answered HTTP {status} {response.reason}".rstrip())
        place = _place(response, offset, version)
        if place is not None:
            start, total = place
            done = offset if status == RANGE_NOT_SATISFIABLE else _append(response, part, start, lambda n: watch(archive.file, n, total))
            if total is not None and done != total:
                raise _failure(source, archive, target, f"the connection ended after {done} of {total} bytes")
            return total is not None
        _drop(part)
    return _download(source, archive, target, watch)  # from the start: nothing is held any more


def _get(url: str, headers: dict[str, str]) -> requests.Response:
    return requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_S)


def _held(part: Path) -> tuple[int, str]:
    """Return how many bytes of a known version are here, and that version."""
    version = _version_file(part)
    with _disk(part):
        return (part.stat().st_size, version.read_text(encoding="utf-8")) if part.is_file() and version.is_file() else (0, "")


def _place(response: requests.Response, offset: int, version: str) -> tuple[int, int | None] | None:
    """Return where in the file the answer starts, and the file's length if known; None if it does not fit what is held."""
    if response.status_code == OK:
        length = response.headers.get("Content-Length", "")
        return 0, int(length) if length.isdecimal() else None
    found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if found is None or int(found[1] or found[2]) != offset or _version(response) not in ("", version):
        return None
    return offset, int(found[2])


def _version(response: requests.Response) -> str:
    """Return the strong ETag, else the date, else nothing."""
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified", "")


def _append(response: requests.Response, part: Path, start: int, tell: Callable[[int], None]) -> int:
    if not start:
        _drop(part)  # before the new version is noted: bytes of another one must never pass for its own
        if version := _version(response):
            _version_file(part).write_text(version, encoding="utf-8")
    return _pour(response.iter_content(PIECE_BYTES), part, start, tell)


def _pour(pieces: Iterable[bytes], part: Path, start: int, tell: Callable[[int], None]) -> int:
    """Write `pieces` behind the first `start` bytes, and return the file's new length."""
    done = start
    with part.open("ab" if start else "wb") as file:
        for piece in pieces:
            file.write(piece)
            done += len(piece)
            tell(done)
    return part.stat().st_size  # not `done`: where a file system locks nothing, another may have written too


def _given_files(source: Source, given: Path) -> list[tuple[Archive, Path]]:
    expected = " and ".join(archive.file for archive in source.archives)
    if given.is_dir():
        files = [(archive, given / archive.file) for archive in source.archives]
        absent = [file.name for _, file in files if not file.is_file()]
        if not absent:
            return files
        how = "give the file itself if it has another name; what is unpacked needs no fetch, only `clmm run --path`"
        raise DataError(f"{given}: expected {expected} in this folder, found no {' and no '.join(absent)}: {how}")
    if not given.is_file():
        raise DataError(f"{given}: expected {expected}, or the folder it is in, found nothing there: correct the path")
    for archive in source.archives:
        if len(source.archives) == 1 or given.name == archive.file:
            return [(archive, given)]
    raise DataError(
        f"{given}: expected {expected.replace(' and ', ' or ')}, found another name: rename the file so that it says which it is"
    )


def _copied(given: Path, source: Source, archive: Archive, folder: Path, watch: Watch) -> Fetched:
    fault = _fault(source, given, watch)
    if fault is not None:
        raise DataError(f"{given}: {fault.reason}: get {archive.file} again, from {source.page}")
    present = _present(archive, folder)
    if present is not None:
        if _sha256(given) != _confirmed_present(source, present, watch):
            raise DataError(
                f"{given}: expected the same bytes as in {present}, which is there already, found others: move that file away, remove its "
                f"line from {present.parent / CHECKSUMS}, and run the same command again"
            )
        return Fetched(path=present, was_there=True)
    with _disk(given):
        target = (folder / archive.file).with_suffix(archive_suffix(given) or "")
    part = _part(target)
    with _disk(part):
        if not (part.exists() and given.samefile(part)):
            _drop(part)  # it may be half a download
            with given.open("rb") as file:
                total = given.stat().st_size
                _pour(iter(lambda: file.read(PIECE_BYTES), b""), part, 0, lambda done: watch(given.name, done, total))
    return _settled(target)


def _settled(target: Path) -> Fetched:
    """Give the whole part its name."""
    part = _part(target)
    _confirmed(part, target)
    with _disk(target):
        part.replace(target)
        _version_file(part).unlink(missing_ok=True)
    return Fetched(path=target, was_there=False)


def _confirmed_present(source: Source, present: Path, watch: Watch) -> str:
    """Return the checksum of a file that is there; one that was put there by hand has to be whole first."""
    if present.name not in _recorded(present.parent / CHECKSUMS):
        fault = _fault(source, present, watch)
        if fault is not None:
            raise DataError(f"{present}: {fault.reason}: move it away and run the same command again")
    return _confirmed(present, present)


def _confirmed(content: Path, target: Path) -> str:
    """Return the checksum of `content`, which is or will be `target`; the first time it is recorded, later it must be the same."""
    sums = target.parent / CHECKSUMS
    recorded = _recorded(sums)
    sha256 = _sha256(content)
    expected = recorded.get(target.name)
    if expected is None:
        lines = [f"{known}  {name}\n" for name, known in sorted((recorded | {target.name: sha256}).items())]
        with _disk(sums):
            _part(sums).write_text("".join(lines), encoding="utf-8")
            _part(sums).replace(sums)
    elif sha256 != expected:
        raise DataError(
            f"{content}: expected SHA-256 {expected} as recorded in {sums}, found {sha256}. Nothing was removed: if these bytes are right, "
            f"remove the line of {target.name} from that file; if not, move {content.name} away; then run the same command again"
        )
    return sha256


def _recorded(sums: Path) -> dict[str, str]:
    """Return the checksum of each file named in a file such as `sha256sum` writes."""
    with _disk(sums):
        lines = sums.read_text(encoding="utf-8", errors="replace").splitlines() if sums.exists() else []
    for number, line in enumerate(lines, start=1):
        if not _CHECKSUM.fullmatch(line):
            raise DataError(f"{sums}, line {number}: expected '<64 hex digits>  <file>', found '{line}': remove that line")
    return {line[66:]: line[:64] for line in lines}


def _sha256(file: Path) -> str:
    with _disk(file), file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _fault(source: Source, file: Path, watch: Watch) -> Fault | None:
    """Return why the file is no whole archive of this set, None if it is."""
    name = f"{file.name.removesuffix('.part')}: checking"
    with _disk(file):
        return fault_in(file, source.name, lambda done, total: watch(name, done, total))


def _present(archive: Archive, folder: Path) -> Path | None:
    """Return where the archive is: under its official name, or as a tar that stands for it."""
    target = folder / archive.file
    return next((file for file in (target, target.with_suffix(".tar")) if file.is_file()), None)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Make and hold the folder of a set's archives; the system lets go of it also when this process is killed.

    Raises:
        DataError: another process holds it.
    """
    with _disk(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK).open("w")
    with lock:
        with _disk(folder / LOCK):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise DataError(
                    f"{folder}: another fetch of {folder.name} is going on: wait for its end, then run the same command again"
                ) from error
        yield


def _part(target: Path) -> Path:
    return target.with_name(f"{target.name}.part")


def _version_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.version")


def _drop(part: Path) -> None:
    part.unlink(missing_ok=True)
    _version_file(part).unlink(missing_ok=True)


def _kept(part: Path) -> str:
    go_on = "goes on from there" if _version_file(part).is_file() else "starts again"
    return f"{part} keeps {part.stat().st_size} bytes, the same command {go_on}."


def _failure(source: Source, archive: Archive, target: Path, reason: str, left: str = "Nothing came.") -> DataError:
    """Return what to tell when the download failed, with both ways on; `left` where there is no part."""
    part, to = _part(target), target.parent.parent
    options = "" if to == TO else f" --to {shlex.quote(str(to))}"
    return DataError(
        f"{archive.url}: {reason}. {_kept(part) if part.is_file() else left} Or download {archive.file} in a browser, from "
        f"{source.page}, and run `clmm data fetch {source.name}{options} --from FILE`"
    )


@contextmanager
def _network(source: Source, archive: Archive, target: Path) -> Iterator[None]:
    try:
        yield
    except requests.RequestException as error:  # an OSError too: `_disk` must not see it first
        raise _failure(source, archive, target, _reason(error)) from error


def _reason(error: requests.RequestException) -> str:
    what = "the connection failed"
    if isinstance(error, requests.exceptions.SSLError):
        what = "no secure connection"
    elif isinstance(error, requests.exceptions.Timeout):
        what = "no answer"
    return f"{what} ({_innermost(error)})"


def _innermost(error: BaseException) -> str:
    """Return what happened, without the layers that requests and urllib3 put around it."""
    while isinstance(cause := getattr(error, "reason", None) or next(iter(error.args), None), BaseException):
        error = cause
    return (cause if isinstance(cause, str) else str(error)).rpartition(": ")[2]


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"{path}: cannot be read or written ({error}): check the path, its rights and the room on the disk") from error
