"""How quick an exported model is in a browser: headless Chromium on a folder that `clmm export --to browser` made."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import quantiles
from threading import Thread
from typing import TYPE_CHECKING

from clmm_core.errors import ConfigError, ModelFileError

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

WINDOWS, WARM_UP = 500, 50
TIMEOUT_S = 60
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"),
    *("--disable-sync", "--disable-component-update", "--no-first-run", "--no-default-browser-check"),
    "--enable-blink-features=ForceEagerMeasureMemory",  # or the browser waits for its next garbage collection, up to a minute
)
MEASURE = """
const [windows, warmUp, done] = arguments;
const { ready } = await import("./page.js");
const { windowTimes } = await import("./timing.js");
const { model } = await ready;
if (!model) return done({ problem: document.querySelector("#problem").textContent });
await windowTimes(model, warmUp, 1);
const times = await windowTimes(model, windows, 1);
const memory = await performance.measureUserAgentSpecificMemory();
done({ load: performance.getEntriesByName("model-ready")[0].startTime, times, memory: memory.bytes });
"""


@dataclass(frozen=True, kw_only=True)
class BrowserFigures:
    """What one exported folder costs in a browser."""

    browser: str
    """Its name and version."""
    load_s: float
    """From the navigation until the model has answered its golden vectors; from this machine, nothing cached."""
    p50_ms: float
    p95_ms: float
    """Of one window, without cutting it out of a stream."""
    memory_bytes: int
    """Of the page: objects, strings and the memory of WebAssembly, not the browser's own."""


def measure_in_browser(folder: Path) -> BrowserFigures:
    """Measure a folder that `clmm export --to browser` made.

    Each window is timed by itself: the page is served as an isolated one, to which Chromium gives a clock of 5 microseconds, not 100.

    Raises:
        ConfigError: selenium, Chromium or its driver is not installed.
        ModelFileError: the page refuses its model.
    """
    with chromium() as driver, served(folder) as address:
        driver.set_script_timeout(TIMEOUT_S)
        driver.get(address)
        found = driver.execute_async_script(f"(async (...arguments) => {{{MEASURE}}})(...arguments)", WINDOWS, WARM_UP)
        if "problem" in found:
            raise ModelFileError(f"{folder}: expected a model that answers in the browser, found: {found['problem']}")
        name = f"{driver.capabilities['browserName']} {driver.capabilities['browserVersion']}"
    percentiles = quantiles(found["times"], n=100)
    return BrowserFigures(
        browser=name, load_s=found["load"] / 1000, p50_ms=percentiles[49], p95_ms=percentiles[94], memory_bytes=found["memory"]
    )


@contextmanager
def chromium() -> "Iterator[Chrome]":
    """Give a headless Chromium with a profile of its own, and end it.

    Raises:
        ConfigError: selenium, Chromium or its driver is not installed.
    """
    try:
        from selenium import webdriver  # noqa: PLC0415  of the extra `dev`
        from selenium.webdriver.chrome.service import Service  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError("a browser is driven by the package 'selenium': pip install 'clmm[dev]'") from error
    binary, driver_path = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or driver_path is None:
        raise ConfigError("expected chromium and chromedriver, found none: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(driver_path))
    try:
        yield driver
    finally:
        driver.quit()


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Give the address at which a folder is served on this machine alone, as an isolated page, and stop."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quietly, directory=str(folder)))
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Quietly(SimpleHTTPRequestHandler):
    def end_headers(self) -> None:
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: no request is news."""
