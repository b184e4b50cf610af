"""The run config a run will have: what the app's pyproject.toml says, and what the command line puts in its place.

Checked here, before Flower and Ray start: Flower itself checks names but not types, and only 5 s later.
"""

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from clmm_core.errors import ConfigError

Value = bool | int | float | str
PROJECT_FILE = "pyproject.toml"
PATH_KEY = "data.path"


def find_app(app: Path | None) -> Path:
    """Return the project folder to run: the one given, else the checkout that this package is installed from.

    Raises:
        ConfigError: it is no Flower app.
    """
    root = Path(__file__).resolve().parent.parent if app is None else app.expanduser().resolve()
    if not (root / PROJECT_FILE).is_file():
        wish = "name the project's folder with --app" if app is None else "--app takes the folder of the project"
        raise ConfigError(f"{root}: expected a {PROJECT_FILE}, found none; {wish}")
    return root


def read_app_config(app: Path) -> dict[str, Value]:
    """Return `[tool.flwr.app.config]` of a project by dotted key.

    Raises:
        ConfigError: the file is no TOML, is no Flower app, or holds a value Flower does not take.
    """
    path = app / PROJECT_FILE
    try:
        project = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: expected TOML, found {error}") from error
    app_table = project.get("tool", {}).get("flwr", {}).get("app")
    if not isinstance(app_table, dict):
        raise ConfigError(f"{path}: expected a table [tool.flwr.app], found none; is this the folder of a Flower app?")
    return flatten(app_table.get("config", {}), where=str(path))


def parse_overrides(texts: Iterable[str]) -> dict[str, Value]:
    """Return what `--set KEY=VALUE` options say, the last one winning; each is a line of TOML.

    Raises:
        ConfigError: one is no TOML.
    """
    overrides: dict[str, Value] = {}
    for text in texts:
        try:
            overrides |= flatten(tomllib.loads(text), where=f"--set {text}")
        except tomllib.TOMLDecodeError as error:
            key, equals, value = text.partition("=")
            hint = f"; a string needs quotes of its own: --set '{key}=\"{value}\"'" if equals and value.strip() else ""
            raise ConfigError(f"--set {text}: expected KEY=VALUE with a TOML value, found {error}{hint}") from error
    return overrides


def apply_overrides(config: Mapping[str, Value], overrides: Mapping[str, Value]) -> dict[str, Value]:
    """Return the config with overrides in place.

    Raises:
        ConfigError: an override names a key that the app does not have.
    """
    for key in overrides:
        if key not in config:
            near = difflib.get_close_matches(key, config, n=1)
            raise ConfigError(
                f"run config: the app has no key {key!r}" + (f"; did you mean {near[0]!r}?" if near else f". It has {', '.join(config)}")
            )
    return {**config, **overrides}


def with_absolute_path(overrides: Mapping[str, Value]) -> dict[str, Value]:
    """Return the overrides with a data path that means the same from any directory: Flower runs the app in another one."""
    path = overrides.get(PATH_KEY)
    if isinstance(path, str) and path:
        return {**overrides, PATH_KEY: str(Path(path).expanduser().absolute())}
    return dict(overrides)


def check_run_config(app: Path, config: Mapping[str, Value]) -> None:
    """Let the server's own reader check the config and see that the data are there, where `app` is this checkout.

    Raises:
        ConfigError: a key is missing or unknown, or a value has the wrong type or is out of range.
        DataError: the data set is not there, or only half there.
    """
    if not (app / "server" / "run_config.py").is_file() or app != find_app(None):
        return
    from clmm_core.data.fleet import device_names, modalities_of, open_dataset  # noqa: PLC0415
    from server.run_config import parse_run_config  # noqa: PLC0415  another app needs no server package of ours

    data = parse_run_config(config).data
    modalities_of(data, open_dataset(data))
    device_names(data)


def flatten(table: Mapping[str, Any], *, where: str, prefix: str = "") -> dict[str, Value]:
    """Return a nested table by dotted key.

    Raises:
        ConfigError: a value is no bool, int, float or string.
    """
    flat: dict[str, Value] = {}
    for name, value in table.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            flat |= flatten(value, where=where, prefix=f"{key}.")
        elif isinstance(value, Value):
            flat[key] = value
        else:
            raise ConfigError(f"{where}: {key}: expected a bool, int, float or string, found {value!r}; Flower takes no other")
    return flat
