"""What crosses the wire: messages as JSON and back, types checked, and the arrays beside them in one piece."""

import json
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar

import numpy as np
import pydantic_core
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from clmm_core.errors import CodeMismatchError
from clmm_core.federated.arrays import Arrays

Message = TypeVar("Message")

ARRAYS, TASK, REPLY, ERROR = "arrays", "task", "reply", "error"
"""How the records of a message are called, on both sides."""
JOINED = "joined"
"""Name of the one array that all arrays of a message travel in. Flower sends each array of a message by a request of its own, there and
back: 140 of a model's took 5 s a round and host on two cores, where the training took one."""
ORDER = "order"
"""Key of the metadata that keeps the order of the names, which sums of floats follow."""


def join_arrays(arrays: Arrays) -> dict[str, NDArray[np.uint8]]:
    """Return arrays in one, named `JOINED`, as the bytes of a safetensors file; nothing of nothing."""
    if not arrays:
        return {}
    content = save({name: np.asarray(values, order="C") for name, values in arrays.items()}, {ORDER: json.dumps(list(arrays))})
    return {JOINED: np.frombuffer(content, np.uint8)}


def split_arrays(joined: Mapping[str, NDArray[Any]]) -> Arrays:
    """Return the arrays that `join_arrays` put in one, in their order.

    Raises:
        ValueError: they are no such arrays.
    """
    if not joined:
        return {}
    if joined.keys() != {JOINED}:
        raise ValueError(f"expected one array '{JOINED}', found {', '.join(sorted(joined)[:3])}")
    content = joined[JOINED].tobytes()
    try:
        arrays = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        return {name: arrays[name] for name in json.loads(header["__metadata__"][ORDER])}
    except (SafetensorError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"expected arrays in one, found other bytes: {error}") from error


def to_json(message: object) -> str:
    """Return a frozen dataclass as JSON; NaN and infinity keep their names, where pydantic's default would make them null."""
    return pydantic_core.to_json(message, inf_nan_mode="constants").decode()


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def from_json_strict(kind: type[Message], text: str | bytes) -> Message:
    """Return the dataclass that this JSON holds; "3" is no number, 1.5 no count, and a field the class does not have is a mistake.

    Raises:
        ValidationError: it is not JSON, or not of this kind.
    """
    adapter: TypeAdapter[Message] = _adapter(kind)  # type: ignore[arg-type]  # mypy does not see that a generic type is hashable
    return adapter.validate_json(text, strict=True, extra="forbid")


def from_json(kind: type[Message], text: str) -> Message:
    """Return the message of this kind.

    Raises:
        CodeMismatchError: the other side speaks of other fields or types.
    """
    try:
        return from_json_strict(kind, text)
    except ValidationError as error:
        raise CodeMismatchError(
            f"expected a {kind.__name__}, found something else: server and hosts run different versions; reinstall both. {error}"
        ) from error
