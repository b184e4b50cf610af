"""What a model costs where it recognises: floating-point operations a window."""

from functools import lru_cache

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from clmm_core.models.clmm import Clmm
from clmm_core.models.config import ModelConfig


@lru_cache(maxsize=64)
@torch.no_grad()
def flops_a_window(config: ModelConfig) -> int:
    """Return the floating-point operations to recognise one window with all its modalities.

    A multiplication and an addition count as two. Counted by PyTorch over matrix products and convolutions; norms, activations and
    sums are left out, as is usual.
    """
    with torch.random.fork_rng(devices=[]):
        model = Clmm(config).eval()
    streams = {shape.name: torch.zeros(1, shape.channels, shape.time_steps) for shape in config.modalities}
    present = {shape.name: torch.ones(1, dtype=torch.bool) for shape in config.modalities}
    # PyTorch counts nothing in the processor's fused attention, which takes some versions of it and not others.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(streams, present)
    total: int = counter.get_total_flops()
    return total
