"""What the documentation says of the code, where it can be read by a program."""

import re
import tomllib
from collections.abc import Callable
from pathlib import Path

from simulation.overrides import Value

PAGE = Path(__file__).parent.parent / "docs" / "configuration.md"
EMPTY = "–"


def documented() -> list[tuple[str, str]]:
    """Return each key and its default as the page has them; `.lr` after `pretrain.rounds` is `pretrain.lr`."""
    found = []
    for row in re.findall(r"^\| (`.+)$", PAGE.read_text(), flags=re.MULTILINE):
        names, defaults, *_ = row.split(" | ")
        keys = re.findall(r"`([^`]+)`", names)
        table = keys[0].rpartition(".")[0]
        whole = [table + key if key.startswith(".") else key for key in keys]
        found += zip(whole, defaults.replace("`", "").split(", "), strict=True)
    return found


def test_every_key_of_the_run_config_is_documented_once_with_its_default(run_config: Callable[..., dict[str, Value]]):
    pairs, config = documented(), run_config()
    assert sorted(key for key, _ in pairs) == sorted(config)
    for key, text in pairs:
        value = config[key]
        found = text.replace(EMPTY, "") if isinstance(value, str) else tomllib.loads(f"default = {text}")["default"]
        assert found == value, key
        assert isinstance(found, bool) == isinstance(value, bool), key
