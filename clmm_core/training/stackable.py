"""A network that can be one of a stack: the same parameters under the same names, without what `torch.vmap` cannot stack.

cuDNN's gated units take one set of weights, dropout draws from the processor's own generator, and a grouped convolution, which a stack
of convolutions becomes, is slow on a GPU; fused norms and pools have no rule for stacks.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clmm_core.models.clmm import Clmm
from clmm_core.models.config import ModelConfig
from clmm_core.training.drawn_dropout import hold_dropout
from clmm_core.training.draws import Draws


class UnfoldedConv1d(nn.Conv1d):
    """A convolution as one matrix product over unfolded windows."""

    def forward(self, windows: Tensor) -> Tensor:
        """Return `[B, out, L]` of `[B, C, T]`."""
        padded = F.pad(windows, (int(self.padding[0]),) * 2)
        size, stride = self.kernel_size[0], self.stride[0]
        length = (padded.shape[2] - size) // stride + 1
        shifted = [padded[:, :, k : k + (length - 1) * stride + 1 : stride] for k in range(size)]  # each [B, C, L]
        columns = torch.stack(shifted, dim=2).flatten(1, 2).transpose(1, 2)  # [B, L, C * K]
        assert self.bias is not None
        return (columns @ self.weight.flatten(1).T + self.bias).transpose(1, 2)


class UnrolledGru(nn.GRU):
    """Bidirectional gated units, one time step after the other.

    Source: Cho et al. 2014, arXiv 1406.1078; the form with the reset gate after the product, as `torch.nn.GRU` has it.
    """

    def forward(self, tokens: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        """Return every step's output `[B, N, 2 * hidden]`, like `nn.GRU` with `batch_first`."""
        for layer in range(self.num_layers):
            into = torch.stack([tokens, tokens.flip(1)])  # [2, B, N, in]: forwards and backwards at once
            weights = {
                name: torch.stack([getattr(self, f"{name}_l{layer}"), getattr(self, f"{name}_l{layer}_reverse")])
                for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            }
            given = into @ weights["weight_ih"].transpose(1, 2)[:, None] + weights["bias_ih"][:, None, None]  # [2, B, N, 3H]
            recurrent, bias = weights["weight_hh"].transpose(1, 2), weights["bias_hh"][:, None]
            state = torch.zeros_like(given[:, :, 0, : self.hidden_size])  # [2, B, H]
            states = []
            for step in given.unbind(2):
                reset, update, new = step.chunk(3, dim=2)
                own_reset, own_update, own_new = (state @ recurrent + bias).chunk(3, dim=2)
                reset, update = (reset + own_reset).sigmoid(), (update + own_update).sigmoid()
                candidate = (new + reset * own_new).tanh()
                state = candidate + update * (state - candidate)
                states.append(state)
            forwards, backwards = torch.stack(states, dim=2).unbind(0)  # each [B, N, H]
            tokens = torch.cat([forwards, backwards.flip(1)], dim=2)
        return tokens, None


class PlainRmsNorm(nn.RMSNorm):
    """`nn.RMSNorm` in elementary steps. Source: Zhang and Sennrich 2019, arXiv 1910.07467, eq. 4."""

    def forward(self, values: Tensor) -> Tensor:
        """Return `[..., E]` of `[..., E]`."""
        assert self.weight is not None
        assert self.eps is not None
        return values * (values.square().mean(dim=-1, keepdim=True) + self.eps).rsqrt() * self.weight


class AveragingPool1d(nn.AdaptiveAvgPool1d):
    """`nn.AdaptiveAvgPool1d` as one matrix product."""

    def forward(self, values: Tensor) -> Tensor:
        """Return `[B, C, out]` of `[B, C, L]`."""
        length, out = values.shape[2], int(self.output_size)  # type: ignore[arg-type]
        index = torch.arange(out, device=values.device)
        first, end = index * length // out, ((index + 1) * length + out - 1) // out  # [out]
        place = torch.arange(length, device=values.device)[:, None]
        averages = ((place >= first) & (place < end)).to(values) / (end - first)  # [L, out]
        return values @ averages


def stackable(config: ModelConfig) -> tuple[Clmm, list[Draws]]:
    """Return a network of this shape that `torch.vmap` can stack, and what holds the draws of its dropout."""
    with torch.random.fork_rng(devices=[]):
        model = Clmm(config)
        held = hold_dropout(model)
        _replace(model)
    return model, held


def _replace(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.Conv1d):
            settings = (child.in_channels, child.out_channels, child.kernel_size[0])
            setattr(module, name, UnfoldedConv1d(*settings, stride=child.stride[0], padding=int(child.padding[0])))
        elif isinstance(child, nn.RMSNorm):
            setattr(module, name, PlainRmsNorm(child.normalized_shape, eps=child.eps))
        elif isinstance(child, nn.AdaptiveAvgPool1d):
            setattr(module, name, AveragingPool1d(child.output_size))
        elif isinstance(child, nn.GRU):
            both = {"num_layers": child.num_layers, "batch_first": True, "bidirectional": True}
            setattr(module, name, UnrolledGru(child.input_size, child.hidden_size, **both))
        else:
            _replace(child)
