"""YAML files that people write by hand, as frozen dataclasses: what is misspelt, of a wrong type or there twice is refused by name."""

import json
from collections.abc import Hashable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from clmm_core.errors import ConfigError

Kind = TypeVar("Kind")


class _EveryKeyOnce(yaml.SafeLoader):
    """YAML in which a key that is there twice is a mistake: the first of two methods of one name would be lost."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        names = [name.value for name, _ in node.value]
        if twice := [name for name in names if names.count(name) > 1]:
            raise yaml.constructor.ConstructorError(None, None, f"found '{twice[0]}' twice", node.start_mark)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path, kind: type[Kind], shown_in: str) -> Kind:
    """Return the dataclass that a file holds.

    Args:
        path: the file.
        kind: a frozen dataclass.
        shown_in: the page of the documentation that shows such a file.

    Raises:
        ConfigError: it cannot be read, or says something that cannot be; names the file and the key.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _EveryKeyOnce)
        return TypeAdapter(kind).validate_json(json.dumps(content), strict=True, extra="forbid")
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ConfigError(f"{path}: {where}: {first['msg']}; {shown_in} shows a {kind.__name__.lower()} file") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError) as error:
        raise ConfigError(f"{path}: expected a {kind.__name__.lower()} file in YAML, cannot read it: {error}") from error
