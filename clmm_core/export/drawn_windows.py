"""Windows drawn from what a model knows of its sensors, so that nobody's recordings are needed to check it or to make it smaller."""

import numpy as np

from clmm_core.models.clmm import Clmm
from clmm_core.recognise.onnx_model import Float32
from clmm_core.seeds import derive_seed

SMOOTHEST = 0.999
"""Largest correlation from sample to sample."""
WITHOUT_DIFFERENCES = 0.9
"""That of a model which does not know how fast its channels change."""
DECIMALS = 4
"""So many, in SI units, that a number is the same in a text and in float32."""


def drawn_windows(network: Clmm, count: int, purpose: str) -> dict[str, Float32]:
    """Return windows by modality, `[count, channels, time_steps]` in SI units, the same for the same purpose.

    Each channel is a first-order autoregression with the mean and the deviation that the model normalises by; where the model also
    knows the deviation of `(x[t + 1] - x[t - 1]) / 2`, that says how smooth it is: it is `(1 - rho^2) / 2` of the channel's variance.
    """
    windows = {}
    for shape in network.config.modalities:
        random = np.random.default_rng(derive_seed(0, purpose, shape.name))
        mean, std = (values.double().numpy() for values in (network.part(shape.name).mean, network.part(shape.name).std))
        rho = np.full(shape.channels, WITHOUT_DIFFERENCES)
        if network.config.differences:
            rho = np.sqrt(np.clip(1 - 2 * (std[shape.channels :] / std[: shape.channels]) ** 2, 0, SMOOTHEST**2))
        values = random.standard_normal((count, shape.channels, shape.time_steps))
        for step in range(1, shape.time_steps):
            values[:, :, step] = rho * values[:, :, step - 1] + np.sqrt(1 - rho**2) * values[:, :, step]
        in_units = mean[: shape.channels, None] + std[: shape.channels, None] * values
        windows[shape.name] = in_units.round(DECIMALS).astype(np.float32)
    return windows
