"""Differential attention: what one softmax map sees minus what a second one sees, so that noise common to both cancels.

B = batch, T = tokens, E = embed, H = heads, K = head size.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def initial_lambda(layer: int) -> float:
    """Return lambda's start for a layer counted from 0: 0.2, 0.3555, ...

    Source: Ye et al., ICLR 2025, arXiv 2410.05258, section 2.1.
    """
    return 0.8 - 0.6 * math.exp(-0.3 * layer)


class DifferentialAttentionV1(nn.Module):
    """`(softmax(Q1 K1') - lam softmax(Q2 K2')) V`, with a per-head RMSNorm times `(1 - lam_init)`; no biases, not causal.

    Source: Ye et al., "Differential Transformer", ICLR 2025, arXiv 2410.05258, eq. 1-3.
    Differs: one scaled-dot-product call with 2H heads on a repeated V replaces the two maps (equal by linearity).
    """

    def __init__(self, embed: int, heads: int, layer: int) -> None:
        super().__init__()
        self.heads = heads
        self.head_size = embed // heads // 2
        self.initial_lambda = initial_lambda(layer)
        self.query = nn.Linear(embed, embed, bias=False)
        self.key = nn.Linear(embed, embed, bias=False)
        self.value = nn.Linear(embed, embed, bias=False)
        self.out = nn.Linear(embed, embed, bias=False)
        # std 0.1: the reference initialisation of the paper's code.
        self.lambda_vectors = nn.Parameter(0.1 * torch.randn(4, self.head_size))
        """lq1, lk1, lq2, lk2, `[4, K]`."""
        self.head_norm = nn.RMSNorm(2 * self.head_size, eps=1e-5)

    def current_lambda(self) -> Tensor:
        """Return `exp(lq1 . lk1) - exp(lq2 . lk2) + lam_init`, a scalar."""
        query_1, key_1, query_2, key_2 = self.lambda_vectors
        now: Tensor = (query_1 @ key_1).exp() - (query_2 @ key_2).exp() + self.initial_lambda
        return now

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the attended tokens; `[B, T, E]` in and out."""
        batch, num_tokens, embed = tokens.shape
        pairs = (batch, num_tokens, 2 * self.heads, self.head_size)
        query = self.query(tokens).view(pairs).transpose(1, 2)  # [B, 2H, T, K]
        key = self.key(tokens).view(pairs).transpose(1, 2)  # [B, 2H, T, K]
        value = self.value(tokens).view(batch, num_tokens, self.heads, 2 * self.head_size).transpose(1, 2)  # [B, H, T, 2K]
        value = value.repeat_interleave(2, dim=1)  # [B, 2H, T, 2K]
        seen = F.scaled_dot_product_attention(query, key, value).view(batch, self.heads, 2, num_tokens, 2 * self.head_size)
        difference = seen[:, :, 0] - self.current_lambda() * seen[:, :, 1]  # [B, H, T, 2K]
        normed = self.head_norm(difference) * (1 - self.initial_lambda)
        attended: Tensor = self.out(normed.transpose(1, 2).reshape(batch, num_tokens, embed))
        return attended


class SoftmaxAttention(nn.Module):
    """Plain attention with as many parameters, for comparison: `softmax(Q K' / sqrt K) V`; no biases, not causal.

    Source: Vaswani et al. 2017, "Attention Is All You Need", arXiv 1706.03762, section 3.2.
    """

    def __init__(self, embed: int, heads: int, layer: int) -> None:
        del layer  # every layer is the same
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(embed, embed, bias=False)
        self.key = nn.Linear(embed, embed, bias=False)
        self.value = nn.Linear(embed, embed, bias=False)
        self.out = nn.Linear(embed, embed, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the attended tokens; `[B, T, E]` in and out."""
        query, key, value = (
            into(tokens).unflatten(2, (self.heads, -1)).transpose(1, 2)  # [B, H, T, K]
            for into in (self.query, self.key, self.value)
        )
        seen = F.scaled_dot_product_attention(query, key, value)
        attended: Tensor = self.out(seen.transpose(1, 2).flatten(2))
        return attended


class DifferentialAttentionV2(nn.Module):
    """Two queries a head share one key and value; `lam = sigmoid(x W)` per token and head; no norm after it.

    Source: the second version of the differential transformer (Ye et al., technical note, January 2026).
    Differs: seen second-hand; no grouped keys, because these models have few heads.
    """

    def __init__(self, embed: int, heads: int, layer: int) -> None:
        del layer  # V2's lambda has no start by depth
        super().__init__()
        self.heads = heads
        self.head_size = embed // heads
        self.query = nn.Linear(embed, 2 * embed, bias=False)
        self.key = nn.Linear(embed, embed, bias=False)
        self.value = nn.Linear(embed, embed, bias=False)
        self.out = nn.Linear(embed, embed, bias=False)
        self.to_lambda = nn.Linear(embed, heads, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the attended tokens; `[B, T, E]` in and out."""
        batch, num_tokens, embed = tokens.shape
        query = self.query(tokens).view(batch, num_tokens, 2 * self.heads, self.head_size).transpose(1, 2)  # [B, 2H, T, K]
        single = (batch, num_tokens, self.heads, self.head_size)
        key = self.key(tokens).view(single).transpose(1, 2).repeat_interleave(2, dim=1)  # [B, 2H, T, K]
        value = self.value(tokens).view(single).transpose(1, 2).repeat_interleave(2, dim=1)  # [B, 2H, T, K]
        seen = F.scaled_dot_product_attention(query, key, value).view(batch, self.heads, 2, num_tokens, self.head_size)
        share = self.to_lambda(tokens).sigmoid().transpose(1, 2).unsqueeze(-1)  # [B, H, T, 1]
        difference = seen[:, :, 0] - share * seen[:, :, 1]  # [B, H, T, K]
        attended: Tensor = self.out(difference.transpose(1, 2).reshape(batch, num_tokens, embed))
        return attended
