"""Which of the chosen devices take part in a round, and how long they take: a model of a fleet, drawn from the seed.

It is applied where the cohort is chosen, before any host is asked, so what it leaves out is not trained. It is a model of availability, not
of wasted work: a phone that leaves half-way has trained in vain, here nobody has. Nothing depends on hosts, on workers or on the clock.
"""

import math
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from clmm_core.data.labels import LabelDraw
from clmm_core.errors import ConfigError
from clmm_core.federated.messages import DeviceProfile
from clmm_core.report.lines import duration, plural
from clmm_core.report.records import RoundRecord
from clmm_core.seeds import derive_seed


@dataclass(frozen=True, kw_only=True)
class Turnout:
    """What became of a round's cohort before its hosts were asked. Every tuple is ascending."""

    present: tuple[str, ...]
    dropped_out: tuple[str, ...]
    """Failed, went away or ran empty in this round."""
    stragglers: tuple[str, ...]
    """Would have answered after the deadline."""
    takes_s: Mapping[str, float]
    """Simulated seconds of each that is present; empty where nothing is simulated."""
    deadline_s: float
    """What it waits for in vain; 0 where all come that it waits for, or without a deadline."""

    def figures(self, counted: Iterable[str]) -> dict[str, Any]:
        """Return what the round's record says of this, given the devices that counted."""
        if not (self.takes_s or self.stragglers or self.dropped_out):
            return {}
        num = {"num_dropped_out": len(self.dropped_out), "num_stragglers": len(self.stragglers)}
        return {**num, "simulated_s": self.simulated_s(counted)}

    def simulated_s(self, counted: Iterable[str]) -> float:
        """Return how long the round would have taken: what the slowest device that counted takes.

        A server that waits in vain for a device waits until the deadline, where there is one.
        """
        if self.deadline_s:
            return self.deadline_s
        return max((self.takes_s[device] for device in counted), default=0.0)


@dataclass(frozen=True, kw_only=True)
class Availability:
    """How devices come and go; as it is by default all of them always answer, and nothing is simulated."""

    seed: int = 0
    drop_out: float = 0.0
    """Probability that a chosen device fails in a round, drawn for each device and round."""
    speed_spread: float = 0.0
    """Standard deviation of the logarithm of a device's speed, which it keeps for the run: at 0.5 one in six needs 1.6 times as long as
    the median, or more."""
    windows_per_s: float = 100.0
    """Windows that a device of median speed trains on in a second."""
    deadline_s: float = 0.0
    """Simulated seconds after which a round does not wait any longer; 0 for no deadline."""

    def __post_init__(self) -> None:
        if not 0 <= self.drop_out <= 1:
            raise ConfigError(f"fleet.drop-out: expected a probability in [0, 1], found {self.drop_out}")
        for key in ("speed_spread", "deadline_s"):
            if not 0 <= getattr(self, key) < math.inf:
                raise ConfigError(f"fleet.{key.replace('_', '-')}: expected 0 or more, found {getattr(self, key)}")
        if not 0 < self.windows_per_s < math.inf:
            raise ConfigError(f"fleet.windows-per-s: expected more than 0, found {self.windows_per_s}")

    @property
    def is_simulated(self) -> bool:
        """Whether anything is: else no round has a simulated duration."""
        return bool(self.drop_out or self.speed_spread or self.deadline_s)

    def turnout(self, work: Mapping[str, int], server_round: int, wanted: int) -> Turnout:
        """Return who of a cohort takes part.

        Args:
            work: by device, the windows it trains on in this round, each counted as often as it is trained on.
            server_round: from 1.
            wanted: devices that the round waits for; of more that are in time the quickest take part, and it ends with the last of them.
        """
        devices = sorted(work)
        if not self.is_simulated:
            return Turnout(present=tuple(devices), dropped_out=(), stragglers=(), takes_s={}, deadline_s=0.0)
        dropped_out = {device for device in devices if self.drops_out(device, server_round)}
        takes_s = self.takes_s({device: work[device] for device in devices if device not in dropped_out})
        in_time = {device: seconds for device, seconds in takes_s.items() if not self.deadline_s or seconds <= self.deadline_s}
        first = sorted(in_time, key=lambda device: (in_time[device], device))[:wanted]
        present = {device: in_time[device] for device in sorted(first)}
        return Turnout(
            present=tuple(present),
            dropped_out=tuple(sorted(dropped_out)),
            stragglers=tuple(device for device in takes_s if device not in in_time),
            takes_s=present,
            deadline_s=self.deadline_s if len(present) < wanted else 0.0,
        )

    def takes_s(self, work: Mapping[str, int]) -> dict[str, float]:
        """Return how long each device takes for its windows, in simulated seconds."""
        return {device: windows / (self.windows_per_s * self.speed(device)) for device, windows in work.items()}

    def drops_out(self, device: str, server_round: int) -> bool:
        """Return whether a device fails in a round: a draw from (seed, round, device)."""
        return self.drop_out > 0 and random.Random(derive_seed(self.seed, "drop-out", server_round, device)).random() < self.drop_out

    def speed(self, device: str) -> float:
        """Return how fast a device is, 1 in the median: a draw from (seed, device)."""
        if not self.speed_spread:
            return 1.0
        return math.exp(self.speed_spread * random.Random(derive_seed(self.seed, "speed", device)).gauss(0.0, 1.0))


def drawn_windows(device: DeviceProfile, draw: LabelDraw) -> int:
    """Return how many windows a device trains on in stage two: exact for intervals of one length, which is all that a profile tells."""
    windows = 0.0
    for label, num_windows in device.labelled_windows.items():
        num_units = device.labelled_trials.get(label, num_windows) if draw.unit == "trial" else num_windows
        windows += num_windows * min(1.0, draw.per_class / num_units if draw.per_class else 1.0)
    return round(windows)


def absences(rounds: Iterable[RoundRecord]) -> list[str]:
    """Return what the model left out over a run, in a sentence, or nothing."""
    having = [record for record in rounds if record.simulated_s is not None]
    dropped_out, late = (sum(getattr(record, name) for record in having) for name in ("num_dropped_out", "num_stragglers"))
    took = duration(sum(record.simulated_s or 0.0 for record in having))
    if not having:
        return []
    return [
        f"simulated fleet: over {plural(len(having), 'round')} {dropped_out:,} times a chosen device dropped out and {late:,} times one "
        f"was too slow for the deadline; these rounds would have taken {took} of the fleet's time"
    ]
