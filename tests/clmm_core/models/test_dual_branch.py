from collections.abc import Callable

import torch

from clmm_core.models.config import ModelConfig
from clmm_core.models.dual_branch import DualBranch


def tokens_and_weights() -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    return torch.randn(4, 2, 5, 16, generator=random), torch.rand(4, 2, generator=random).softmax(dim=1)


def test_branches_equal_their_formulas(config: Callable[..., ModelConfig]):
    branch, (tokens, weights) = DualBranch(config()), tokens_and_weights()
    out = branch(tokens, weights)
    for i in range(4):
        weighted = [weights[i, m] * tokens[i, m] for m in range(2)]  # each [N, E]
        linear = branch.linear(torch.cat([values.mean(dim=0) for values in weighted]))
        steps, _ = branch.gru(torch.cat(weighted, dim=1)[None])
        recurrent = branch.recurrent(torch.cat([steps[0].mean(dim=0), steps[0].max(dim=0).values]))
        gate = torch.sigmoid(branch.gate(torch.cat([linear, recurrent])))
        torch.testing.assert_close(out.linear[i], linear, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(out.recurrent[i], recurrent, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(out.fused[i], gate * linear + (1 - gate) * recurrent, atol=1e-5, rtol=1e-5)


def test_a_modality_of_weight_0_has_no_influence(config: Callable[..., ModelConfig]):
    branch, (tokens, _) = DualBranch(config()), tokens_and_weights()
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
