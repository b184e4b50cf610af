"""CNN-DiffTransformer: convolutions see what is local in a window, differential attention what is global.

B = batch, C = channels, T = time, N = tokens, E = embed.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clmm_core.models.attention import DifferentialAttentionV1, DifferentialAttentionV2, SoftmaxAttention
from clmm_core.models.config import Attention, ModalityShape, ModelConfig

ATTENTION: dict[Attention, type[DifferentialAttentionV1 | DifferentialAttentionV2 | SoftmaxAttention]] = {
    "diff-v1": DifferentialAttentionV1,
    "diff-v2": DifferentialAttentionV2,
    "softmax": SoftmaxAttention,
}
KERNELS = (5, 5, 3)
NORM_GROUPS = 8
SHORTEST = 32
"""Convolutions halve the time axis only while at least this many steps are left."""


def strides_for(time_steps: int) -> tuple[int, int, int]:
    """Return the three strides for a window of `time_steps`: 2 while at least `SHORTEST` steps remain, else 1."""
    strides = []
    for _ in KERNELS:
        stride = 2 if time_steps // 2 >= SHORTEST else 1
        time_steps //= stride
        strides.append(stride)
    return strides[0], strides[1], strides[2]


def input_channels(shape: ModalityShape, config: ModelConfig) -> int:
    """Return how many channels the encoder of a modality sees."""
    return 2 * shape.channels if config.differences else shape.channels


def with_differences(windows: Tensor) -> Tensor:
    """Return `[B, 2C, T]`: each channel of `[B, C, T]`, then how fast each changes, a sample, as the mean of both sides' differences.

    Our own choice: normalised apart, a joint's movement is as large as its position, where a convolution would first have to find it.
    """
    before, after = windows[:, :, :1], windows[:, :, -1:]
    padded = torch.cat([before, windows, after], dim=2)
    return torch.cat([windows, (padded[:, :, 2:] - padded[:, :, :-2]) / 2], dim=1)


class CnnDiffTransformer(nn.Module):
    """Encode a window of one modality as tokens.

    Source: CLMM (Jing et al. 2026, arXiv 2604.23281, abstract) names the CNN-DiffTransformer.
    Differs: sizes, strides and the order of parts are our own; GroupNorm and RMSNorm, never BatchNorm, whose running statistics of
    one subject would break federated averaging.
    """

    def __init__(self, shape: ModalityShape, config: ModelConfig) -> None:
        super().__init__()
        widths = (input_channels(shape, config), *config.conv_channels, config.embed)
        blocks: list[nn.Module] = []
        for i, (kernel, stride) in enumerate(zip(KERNELS, strides_for(shape.time_steps), strict=True)):
            blocks += [
                nn.Conv1d(widths[i], widths[i + 1], kernel, stride=stride, padding=kernel // 2),
                nn.GroupNorm(NORM_GROUPS, widths[i + 1]),
                nn.ReLU(),
                nn.Dropout(config.dropout),
            ]
        self.local = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool1d(config.num_tokens)
        self.positions = nn.Parameter(0.02 * torch.randn(config.num_tokens, config.embed))
        """`[N, E]`, learned."""
        self.layers = nn.Sequential(*(DiffTransformerLayer(config, layer) for layer in range(config.num_layers)))
        self.norm = nn.RMSNorm(config.embed, eps=1e-5)

    def forward(self, windows: Tensor) -> Tensor:
        """Return tokens `[B, N, E]` of normalised windows `[B, C, T]`."""
        tokens = self.pool(self.local(windows)).transpose(1, 2) + self.positions  # [B, N, E]
        encoded: Tensor = self.norm(self.layers(tokens))
        return encoded


class DiffTransformerLayer(nn.Module):
    """A pre-norm layer: (differential) attention, then SwiGLU, each added to its input."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.embed, eps=1e-5)
        self.attention = ATTENTION[config.attention](config.embed, config.num_heads, layer)
        self.feed_norm = nn.RMSNorm(config.embed, eps=1e-5)
        self.feed = SwiGlu(config.embed, config.swiglu)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return tokens; `[B, N, E]` in and out."""
        tokens = tokens + self.dropout(self.attention(self.attention_norm(tokens)))
        fed: Tensor = tokens + self.dropout(self.feed(self.feed_norm(tokens)))
        return fed


class SwiGlu(nn.Module):
    """Gated feed-forward part, `W_out (silu(W_gate x) * W_in x)`, no biases.

    Source: Shazeer 2020, "GLU Variants Improve Transformer", arXiv 2002.05202, eq. 6.
    """

    def __init__(self, embed: int, inner: int) -> None:
        super().__init__()
        self.gate = nn.Linear(embed, inner, bias=False)
        self.into = nn.Linear(embed, inner, bias=False)
        self.out = nn.Linear(inner, embed, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return tokens; `[B, N, E]` in and out."""
        fed: Tensor = self.out(F.silu(self.gate(tokens)) * self.into(tokens))
        return fed
