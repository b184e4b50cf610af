from collections.abc import Callable

import pytest
import torch

from clmm_core.models.config import ModelConfig
from clmm_core.models.dual_branch import DualBranch


def tokens_and_weights() -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    return torch.randn(4, 2, 5, 16, generator=random), torch.rand(4, 2, generator=random).softmax(dim=1)


def by_hand(branch: DualBranch, tokens: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """One window's hA and hB from tokens `[M, N, E]` and weights `[M]`."""
    weighted = [weights[m] * tokens[m] for m in range(len(weights))]  # each [N, E]
    linear = branch.linear(torch.cat([values.mean(dim=0) for values in weighted]))
    steps, _ = branch.gru(torch.cat(weighted, dim=1)[None])
    return linear, branch.recurrent(torch.cat([steps[0].mean(dim=0), steps[0].max(dim=0).values]))


@pytest.mark.parametrize("mix", ["gated", "mean"])
def test_branches_equal_their_formulas(config: Callable[..., ModelConfig], mix: str):
    branch, (tokens, weights) = DualBranch(config(branches=mix)), tokens_and_weights()
    out = branch(tokens, weights)
    for i in range(4):
        linear, recurrent = by_hand(branch, tokens[i], weights[i])
        gate = torch.sigmoid(branch.gate(torch.cat([linear, recurrent]))) if mix == "gated" else 0.5
        torch.testing.assert_close(out.linear[i], linear, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(out.recurrent[i], recurrent, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(out.fused[i], gate * linear + (1 - gate) * recurrent, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("alone", "other"), [("linear", "recurrent"), ("recurrent", "linear")])
def test_one_branch_alone_is_that_branch_of_both(config: Callable[..., ModelConfig], alone: str, other: str):
    both, one, (tokens, weights) = DualBranch(config()), DualBranch(config(branches=alone)), tokens_and_weights()
    one.load_state_dict({name: values for name, values in both.state_dict().items() if name in one.state_dict()})
    out = one(tokens, weights)
    assert torch.equal(out.fused, getattr(both(tokens, weights), alone))
    assert out.fused is getattr(out, alone)
    assert getattr(out, other) is None


@pytest.mark.parametrize(
    ("branches", "modules"),
    [
        ("gated", {"linear", "gru", "recurrent", "gate"}),
        ("mean", {"linear", "gru", "recurrent"}),
        ("linear", {"linear"}),
        ("recurrent", {"gru", "recurrent"}),
    ],
)
def test_a_part_that_is_off_has_no_parameters(config: Callable[..., ModelConfig], branches: str, modules: set[str]):
    assert {name.partition(".")[0] for name in DualBranch(config(branches=branches)).state_dict()} == modules


@pytest.mark.parametrize("branches", ["gated", "mean", "linear", "recurrent"])
def test_a_modality_of_weight_0_has_no_influence(config: Callable[..., ModelConfig], branches: str):
    branch, (tokens, _) = DualBranch(config(branches=branches)), tokens_and_weights()
    weights = torch.tensor([[1.0, 0.0]]).expand(4, 2)
    changed = tokens.clone()
    changed[:, 1] = 100.0
    assert torch.equal(branch(tokens, weights).fused, branch(changed, weights).fused)


def test_the_recurrent_branch_reads_in_both_directions(config: Callable[..., ModelConfig]):
    branch, (tokens, weights) = DualBranch(config()), tokens_and_weights()
    tokens.requires_grad_()
    steps, _ = branch.gru((tokens * weights[:, :, None, None]).transpose(1, 2).flatten(2))
    for step, other in ((0, -1), (-1, 0)):
        (gradient,) = torch.autograd.grad(steps[:, step].sum(), tokens, retain_graph=True)
        assert gradient[:, :, other].abs().max() > 0
