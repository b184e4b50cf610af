"""The part of onnxruntime-web that runs models in browsers, from its npm package: fetched once, checked each time, not kept in git."""

import base64
import hashlib
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

from clmm_core.errors import ConfigError

VERSION = "1.30.0"
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
"""Of the archive, as `npm view onnxruntime-web@1.30.0 dist.integrity` says it."""
ARCHIVE = f"onnxruntime-web-{VERSION}.tgz"
FILES = {
    "package/dist/ort.wasm.bundle.min.mjs": "ort.wasm.bundle.min.js",
    "package/dist/ort-wasm-simd-threaded.wasm": "ort-wasm-simd-threaded.wasm",
}
"""By name in the archive, that in the exported folder. The bundle for WebAssembly alone is the smallest, without WebGPU, WebGL
and WebNN. It is `.js` here, because not every server knows that `.mjs` is JavaScript, and browsers refuse a module of another type."""
TIMEOUT_S = 600


def runtime_files(archive: Path | None, say: Callable[[str], None]) -> dict[str, bytes]:
    """Return the contents of `FILES` by their name in the exported folder.

    Args:
        archive: an archive that somebody fetched; None takes the one in the user's cache, and asks npm for it where there is none.
        say: called with a sentence where something is fetched.

    Raises:
        ConfigError: the archive is another one, or npm cannot fetch it.
    """
    if archive is not None and not archive.is_file():
        raise ConfigError(f"--runtime {archive}: expected an archive, found none: {_by_hand()}")
    found = archive or _cached(say)
    content = found.read_bytes()
    checksum = base64.b64encode(hashlib.sha512(content).digest()).decode()
    if checksum != SHA512:
        again = _by_hand() if archive else "remove it, then export again"
        raise ConfigError(f"{found}: expected onnxruntime-web {VERSION} of SHA-512 {SHA512}, found {checksum}: {again}")
    with tarfile.open(fileobj=BytesIO(content), mode="r:gz") as package:
        members = {FILES[member.name]: package.extractfile(member) for member in package if member.name in FILES}
        return {name: member.read() for name, member in members.items() if member is not None}


def cache_folder() -> Path:
    """Return where the user's programs keep what can be fetched again (XDG Base Directory Specification)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clmm"


def _cached(say: Callable[[str], None]) -> Path:
    kept = cache_folder() / ARCHIVE
    if kept.is_file():
        return kept
    npm = shutil.which("npm")
    if npm is None:
        raise ConfigError(f"a page for browsers needs onnxruntime-web {VERSION} from npm, found no npm: install npm, or {_by_hand()}")
    say(f"fetching onnxruntime-web {VERSION} (33 MB) into {kept.parent}")
    kept.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=kept.parent) as folder:  # on the same file system, so that it is in the cache whole or not at all
        command = [npm, "pack", f"onnxruntime-web@{VERSION}", "--pack-destination", folder, "--fetch-retries", "1", "--loglevel", "error"]
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired as error:
            raise ConfigError(f"npm pack onnxruntime-web@{VERSION}: no answer in {TIMEOUT_S} s: {_by_hand()}") from error
        fetched = Path(folder) / ARCHIVE
        if done.returncode or not fetched.is_file():
            said = next((line for line in done.stderr.splitlines() if line.strip()), "nothing")
            raise ConfigError(f"npm pack onnxruntime-web@{VERSION}: expected an archive, npm says: {said}: {_by_hand()}")
        fetched.replace(kept)
    return kept


def _by_hand() -> str:
    return f"on a machine with network `npm pack onnxruntime-web@{VERSION}`, then --runtime {ARCHIVE}"
