"""What the tests of several packages share."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from flwr.supercore.task_identity import TaskIdentity
from selenium import webdriver

from clmm_core.errors import ConfigError
from simulation.bench.browser import chromium
from simulation.overrides import Value, apply_overrides, read_app_config

PROJECT = Path(__file__).parent.parent
SMALL: dict[str, Value] = {
    "data.name": "synthetic",
    "data.num-devices": 6,
    "data.window-s": 1.28,
    "data.overlap": 0.0,
    "pretrain.rounds": 1,
    "pretrain.views": 3,
    "finetune.rounds": 1,
    "finetune.local-epochs": 1,
    "personalise.local-epochs": 1,
    "report.points-per-device": 2,
}
"""A run of a second or two."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files that start real processes first: they take a minute each, and whoever gets one last keeps everybody waiting."""
    slow = {item.path for item in items if item.get_closest_marker("flower")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def run_config() -> Callable[..., dict[str, Value]]:
    """Make the committed run config by dotted key, with overrides: `run_config({"seed": 1})`; with `small=True` one of a few seconds."""

    def make(overrides: dict[str, Value] | None = None, *, small: bool = False) -> dict[str, Value]:
        return apply_overrides(read_app_config(PROJECT), (SMALL if small else {}) | (overrides or {}))

    return make


@pytest.fixture
def _in_flower_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give this process the identity that Flower gives a ServerApp's, without which no `Message` can be made."""
    for name, value in (("_task_id", 1), ("_run_id", 2), ("_node_id", 1)):
        monkeypatch.setattr(TaskIdentity, name, value)


@pytest.fixture(scope="session")
def browser() -> Iterator[webdriver.Chrome]:
    """Start a real browser, once for all pages."""
    with ExitStack() as stack:
        try:
            driver = stack.enter_context(chromium())
        except ConfigError as error:
            pytest.skip(str(error))
        yield driver
