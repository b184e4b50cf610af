"""The network as it is exported: raw windows in, logits and probabilities out, everything between them in one graph.

B = batch, C = channels, T = time, K = classes, N = tokens.
"""

import copy

import torch
from torch import Tensor, nn

from clmm_core.models.clmm import Clmm
from clmm_core.models.encoder import KERNELS, strides_for


class RecognitionNetwork(nn.Module):
    """Only what recognition needs: the auxiliary heads have no part in the answer, so an export drops them.

    A window's modality counts as absent where a sample of it is not finite, as in `clmm_core.data.windows`. A window without any modality
    gets logits 0, so the same probability for every class.
    """

    def __init__(self, network: Clmm, temperature: float) -> None:
        super().__init__()
        self.network = copy.deepcopy(network)
        self.temperature = temperature
        self.modality_names = tuple(shape.name for shape in network.config.modalities)
        for shape in network.config.modalities:
            encoder = self.network.part(shape.name).encoder
            encoder.register_module("pool", pool_as_product(shape.time_steps, network.config.num_tokens))

    def forward(self, *windows: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and probabilities `[B, K]`.

        Args:
            windows: for each modality in the model's order `[B, C, T]` float32 in its unit.
        """
        streams = dict(zip(self.modality_names, windows, strict=True))
        present = {name: values.isfinite().all(dim=2).all(dim=1) for name, values in streams.items()}
        some = torch.stack(list(present.values()), dim=1).any(dim=1)  # [B]
        normal = self.network.normalise(streams, present)
        # A window with nothing counts as one with all modalities, of zeros, so that no 0 is divided by 0.
        counted = {name: each | ~some for name, each in present.items()}
        logits = torch.where(some[:, None], self.network.classify(normal, counted).primary, 0.0)
        return logits, (logits / self.temperature).softmax(dim=1)


class PoolAsProduct(nn.Module):
    """Adaptive average pooling as a matrix product: ONNX has no pooling whose windows differ in length."""

    shares: Tensor

    def __init__(self, shares: Tensor) -> None:
        super().__init__()
        self.register_buffer("shares", shares)

    def forward(self, features: Tensor) -> Tensor:
        """Return `[B, C, N]` of `[B, C, T]`."""
        return features @ self.shares


def pool_as_product(time_steps: int, num_tokens: int) -> PoolAsProduct:
    """Return the pooling of an encoder for windows of `time_steps` samples, as a product with `[T after the convolutions, N]`."""
    for kernel, stride in zip(KERNELS, strides_for(time_steps), strict=True):
        time_steps = (time_steps + 2 * (kernel // 2) - kernel) // stride + 1
    return PoolAsProduct(nn.AdaptiveAvgPool1d(num_tokens)(torch.eye(time_steps)))
