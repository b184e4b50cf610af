"""What a process has read of whole archives: kept because an archive is read in one piece, until nobody needs it any more."""

from collections.abc import Callable
from functools import _lru_cache_wrapper, lru_cache
from typing import TypeVar

Read = TypeVar("Read")
_READERS: "list[_lru_cache_wrapper[object]]" = []


def parsed_once(read: Callable[..., Read]) -> "_lru_cache_wrapper[Read]":
    """Decorate what reads a whole archive: the last one read is kept until `forget_recordings`."""
    kept = lru_cache(maxsize=1)(read)
    _READERS.append(kept)
    return kept


def forget_recordings() -> None:
    """Let go of every archive that was read: up to 200 MB of samples that are of no use once they are cut into windows."""
    for kept in _READERS:
        kept.cache_clear()
