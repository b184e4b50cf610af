"""Which of a device's windows count as labelled: a draw that the device makes itself, from the seed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from clmm_core.data.windows import DeviceWindows
from clmm_core.errors import ConfigError
from clmm_core.seeds import derive_seed

LabelUnit = Literal["trial", "window"]
Rows = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class LabelDraw:
    """How many labels of each class a labelled device gives.

    Raises:
        ConfigError: a negative number.
    """

    per_class: int
    """Units of each class; 0 means all."""
    unit: LabelUnit = "trial"
    """`trial`: all windows of a labelled interval; `window`: single windows."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.per_class < 0:
            raise ConfigError(f"labels.per-class: expected 0 (all) or more, found {self.per_class}")


def draw_labelled(windows: DeviceWindows, classes: Sequence[str], draw: LabelDraw) -> tuple[Rows, Rows]:
    """Return the rows drawn as labelled, and the labelled rows left for evaluation, both ascending.

    A row left for evaluation belongs to no drawn trial, and overlaps no drawn window in time: what was trained on is never tested.
    """
    random = np.random.default_rng(derive_seed(draw.seed, "labels", windows.device))
    drawn: list[int] = []
    for label in classes:
        rows = np.flatnonzero(windows.labels == label)
        units = windows.trials[rows] if draw.unit == "trial" else rows
        names = np.unique(units)
        chosen = random.permutation(names)[: draw.per_class] if draw.per_class else names
        drawn += rows[np.isin(units, chosen)].tolist()
    taken = np.array(sorted(drawn), dtype=np.int64)
    usable = np.flatnonzero(np.isin(windows.labels, list(classes)))
    rest = np.setdiff1d(usable, taken)
    return taken, rest[~_touches(windows, rest, taken, draw.unit)]


def _touches(windows: DeviceWindows, rest: Rows, taken: Rows, unit: LabelUnit) -> NDArray[np.bool_]:
    """Return for each of `rest` whether it shares samples, or (unit `trial`) a trial, with a taken row."""
    apart_s = np.abs(windows.starts_s[rest][:, None] - windows.starts_s[taken][None, :])  # [rest, taken]
    touching = (apart_s < windows.length_s - 1e-9) & (windows.recordings[rest][:, None] == windows.recordings[taken][None, :])
    if unit == "trial":
        touching |= windows.trials[rest][:, None] == windows.trials[taken][None, :]
    touches: NDArray[np.bool_] = touching.any(axis=1)
    return touches
