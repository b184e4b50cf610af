"""The browser's modules, without a model, in a real browser."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from simulation.bench.browser import served

MODULES = Path(__file__).parents[3] / "client" / "browser"


@pytest.fixture(scope="module")
def page(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Give the browser on a page that has the recogniser's modules and nothing else."""
    folder = tmp_path_factory.mktemp("modules")
    for module in (*MODULES.glob("*.js"), Path(__file__).with_name("replay.js")):
        shutil.copy(module, folder)
    (folder / "index.html").write_text('<!doctype html><title>modules</title><link rel="icon" href="data:,">')
    with served(folder) as address:
        browser.get(address)
        yield browser
