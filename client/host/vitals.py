"""How each stream does, as it comes in: its rate, its jitter, its gaps, and whether it has gone silent."""

from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median

import numpy as np

from client.host.chunk import NS_PER_US, OFFSETS, Chunk
from clmm_core.data.datasets.stream_file import MAX_GAP_S, MAX_GAP_SAMPLES

NS = 1_000_000_000
LOOK_BACK_NS = 20 * NS
"""Of samples' time: what figures are made of."""
MAX_CHUNKS = 512
SILENT_NS = 3 * NS
"""A sensor that gave nothing for so long is silent, or for `SILENT_INTERVALS` of its own intervals."""
SILENT_INTERVALS = 3
MAX_CLOCK_OFF_NS = 2 * NS
ARRIVALS = 16


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Of the samples that came last."""

    measured_hz: float = 0.0
    jitter_ms: float = 0.0
    gap_share: float = 0.0


@dataclass(kw_only=True)
class Vitals:
    """One stream since the host started."""

    last_seen_ns: int
    """On the host's clock."""
    last_sample_ns: int = 0
    is_connected: bool = False
    num_samples: int = 0
    num_duplicates: int = 0
    num_refused: int = 0
    clock_off_ns: int = 0
    """How far the sensor's clock is ahead, as its last message showed; 0 where it did not."""
    recent: deque[tuple[int, int, bytes]] = field(default_factory=lambda: deque(maxlen=MAX_CHUNKS))
    """Start, end and offsets of chunks, as they came."""
    arrivals: deque[int] = field(default_factory=lambda: deque(maxlen=ARRIVALS))
    """When the last ones came, on the host's clock."""

    def arrived(self, chunk: Chunk, sent_ns: int, now_ns: int) -> None:
        """Note a chunk, new or not."""
        self.last_seen_ns = now_ns
        self.arrivals.append(now_ns)
        if sent_ns:
            self.clock_off_ns = sent_ns - now_ns
        elif chunk.end_ns > now_ns:
            self.clock_off_ns = chunk.end_ns - now_ns
        else:
            self.clock_off_ns = 0

    def kept(self, chunk: Chunk) -> None:
        """Note a chunk that is on the disk."""
        self.num_samples += chunk.num_samples
        self.last_sample_ns = max(self.last_sample_ns, chunk.end_ns)
        self.recent.append((chunk.t0_ns, chunk.end_ns, chunk.offsets))

    def is_silent(self, now_ns: int) -> bool:
        """Return whether a stream that should go on gives nothing."""
        intervals = [later - earlier for earlier, later in pairwise(list(self.arrivals))]
        usual_ns = median(intervals) if intervals else 0
        return now_ns - self.last_seen_ns > max(SILENT_NS, SILENT_INTERVALS * usual_ns)

    def clock_is_off(self) -> bool:
        """Return whether its clock differs from the host's by more than what a message takes."""
        return abs(self.clock_off_ns) > MAX_CLOCK_OFF_NS

    def clock_in_words(self) -> str:
        """Return how far its clock is off, and what to do."""
        side = "ahead of" if self.clock_off_ns > 0 else "behind"
        off_s = abs(self.clock_off_ns) / NS
        return f"expected the host's time, found a clock {off_s:.1f} s {side} it: set the sensor's clock, or the host's"

    def figures(self) -> Figures:
        """Return rate, jitter and gaps of the newest samples; zeros before there are two."""
        newest = [chunk for chunk in list(self.recent) if chunk[1] > self.last_sample_ns - LOOK_BACK_NS]
        if not newest:
            return Figures()
        each = [np.frombuffer(offsets, OFFSETS).astype(np.int64) * NS_PER_US + t0_ns for t0_ns, _, offsets in newest]
        times = np.unique(np.concatenate(each))
        steps_s = np.diff(times) / NS
        if not len(steps_s):
            return Figures()
        period_s = float(np.median(steps_s))
        is_gap = steps_s > max(MAX_GAP_S, MAX_GAP_SAMPLES * period_s)
        inside = steps_s[~is_gap]
        return Figures(
            measured_hz=float(len(inside) / inside.sum()) if len(inside) else 0.0,
            jitter_ms=float(1000 * inside.std()) if len(inside) else 0.0,
            gap_share=float(steps_s[is_gap].sum() / steps_s.sum()),
        )
