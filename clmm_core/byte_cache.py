"""A cache bounded by the bytes of what it keeps, not by how many things that is: one device has ten windows, another a day of them."""

from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Kept = TypeVar("Kept")


class ByteCache(Generic[Key, Kept]):
    """What was last asked for, as much as fits into `max_bytes`, and always the very last thing. Threads may share it."""

    def __init__(self, max_bytes: int, size_of: Callable[[Kept], int]) -> None:
        self._max_bytes = max_bytes
        self._size_of = size_of
        self._kept: dict[Key, tuple[Kept, int]] = {}
        """The one used last is the last in order; each with its bytes."""
        self._num_bytes = 0
        self._lock = Lock()

    def get(self, key: Key, make: Callable[[], Kept]) -> Kept:
        """Return the same object as for the same key before, while it is kept; else what `make` returns. What it raises is not kept."""
        with self._lock:
            if hit := self._kept.pop(key, None):
                self._kept[key] = hit
                return hit[0]
        made = make()  # not under the lock: it takes its time, and may ask this cache for something else
        with self._lock:
            if key not in self._kept:  # else another thread was quicker, and all have to see one object
                self._kept[key] = made, self._size_of(made)
                self._num_bytes += self._kept[key][1]
            found = self._kept[key][0]
            while self._num_bytes > self._max_bytes and len(self._kept) > 1:
                self._num_bytes -= self._kept.pop(next(iter(self._kept)))[1]
        return found

    def clear(self) -> None:
        """Let go of all."""
        with self._lock:
            self._kept.clear()
            self._num_bytes = 0
