"""How the server applies the mean update: FedAvg, FedAvgM, FedAdam.

Source: Reddi et al. 2021, "Adaptive Federated Optimization", arXiv 2003.00295, algorithm 2; FedAvgM: Hsu et al. 2019, arXiv 1909.06335.
Differs: FedAdam's second moment starts at 0 instead of tau^2 or more.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from clmm_core.errors import ConfigError
from clmm_core.federated.arrays import Arrays

Float32 = NDArray[np.float32]
ServerOptimizerName = Literal["fedavg", "fedavgm", "fedadam"]


@dataclass(frozen=True, kw_only=True)
class ServerOptimizerConfig:
    """Which rule, and its constants.

    Raises:
        ConfigError: a value out of range.
    """

    name: ServerOptimizerName = "fedavg"
    learning_rate: float = 1.0
    """1 for `fedavg`; `fedadam` wants about 0.001 to 0.01, the size of a step a parameter."""
    momentum: float = 0.9
    """Of `fedavgm`, and beta_1 of `fedadam`."""
    second_momentum: float = 0.99
    """beta_2 of `fedadam`."""
    adaptivity: float = 1e-3
    """tau of `fedadam`."""

    def __post_init__(self) -> None:
        if not self.learning_rate > 0:
            raise ConfigError(f"server.lr: expected above 0, found {self.learning_rate}")
        if not 0 <= self.momentum < 1:
            raise ConfigError(f"server.momentum: expected a number in [0, 1), found {self.momentum}")


@dataclass
class ServerOptimizer:
    """Applies mean updates (local minus global, so added) and remembers its moments between rounds, per array."""

    config: ServerOptimizerConfig
    first: Arrays = field(default_factory=dict)
    second: Arrays = field(default_factory=dict)

    def apply(self, current: Arrays, update: Arrays) -> Arrays:
        """Return the next global arrays; those without an update stay as they are, and so do their moments."""
        return {**current, **{name: current[name] + self._step(name, update[name]) for name in update}}

    def _step(self, name: str, update: Float32) -> Float32:
        config = self.config
        if config.name == "fedavg":
            return update if config.learning_rate == 1 else _float32(config.learning_rate * update)
        zero = np.zeros_like(update)
        if config.name == "fedavgm":
            self.first[name] = _float32(config.momentum * self.first.get(name, zero) + update)
            return _float32(config.learning_rate * self.first[name])
        beta_1, beta_2 = config.momentum, config.second_momentum
        self.first[name] = _float32(beta_1 * self.first.get(name, zero) + (1 - beta_1) * update)
        self.second[name] = _float32(beta_2 * self.second.get(name, zero) + (1 - beta_2) * update**2)
        return _float32(config.learning_rate * self.first[name] / (np.sqrt(self.second[name]) + config.adaptivity))


def _float32(values: NDArray[Any]) -> Float32:
    return np.asarray(values, np.float32)
