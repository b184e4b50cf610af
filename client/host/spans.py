"""Stretches of time, from a first nanosecond to before a last: joined, asked, and cut out of others."""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Span = tuple[int, int]
"""Start, and end which is not in it, in ns."""


@dataclass(frozen=True)
class Spans:
    """Some stretches, in order, none touching another."""

    starts: tuple[int, ...]
    ends: tuple[int, ...]

    @classmethod
    def of(cls, spans: Iterable[Span]) -> "Spans":
        """Return the union of any stretches."""
        joined: list[list[int]] = []
        for start, end in sorted(spans):
            if joined and start <= joined[-1][1]:
                joined[-1][1] = max(joined[-1][1], end)
            elif start < end:
                joined.append([start, end])
        return cls(tuple(start for start, _ in joined), tuple(end for _, end in joined))

    def touch(self, first_ns: int, last_ns: int) -> bool:
        """Return whether some time from first to last, both in it, is in one of them."""
        i = bisect_right(self.starts, last_ns) - 1
        return i >= 0 and self.ends[i] > first_ns

    def contain(self, times_ns: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return for each of `[n]` whether it is in one of them."""
        if not self.starts:
            return np.zeros(len(times_ns), np.bool_)
        i = np.searchsorted(np.array(self.starts), times_ns, side="right") - 1
        inside: NDArray[np.bool_] = (i >= 0) & (np.array(self.ends)[i] > times_ns)
        return inside


def without(span: Span, cut: Span) -> list[Span]:
    """Return what is left of a stretch: none, one or two."""
    left, right = (span[0], min(span[1], cut[0])), (max(span[0], cut[1]), span[1])
    return [part for part in (left, right) if part[0] < part[1]]
