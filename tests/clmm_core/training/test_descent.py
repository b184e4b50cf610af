"""A stack's optimiser, both ways, against PyTorch's own on each device alone."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from clmm_core.training.descent import MaskedDescent, RowDescent, Span
from clmm_core.training.local import ProximalTerm, local_optimizer
from clmm_core.training.settings import LocalConfig, OptimizerName

SPANS = [Span(size=3, group=0, factor=0.3), Span(size=4, group=0, factor=1.0), Span(size=5, group=1, factor=1.0)]
SIZES = [span.size for span in SPANS]
RATES = [0.01, 0.02, 0.01, 0.04]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("proximal", [0.0, 0.5])
@pytest.mark.parametrize("kind", [RowDescent, MaskedDescent])
def test_it_is_torchs_on_the_same_gradients(kind: type[RowDescent | MaskedDescent], optimizer: OptimizerName, proximal: float):
    """Over two rounds; also for a group that rests while others learn, whatever its gradient is then."""
    local = LocalConfig(epochs=1, batch_size=2, learning_rate=0.5, optimizer=optimizer, weight_decay=0.1, proximal=proximal)
    random = torch.Generator().manual_seed(0)
    start = torch.randn(len(RATES), sum(SIZES), generator=random)
    now = start.clone()
    descent = kind(now, start, SPANS, local)
    for _ in range(2):
        twins = [[nn.Parameter(part.clone()) for part in row.split(SIZES)] for row in now]
        start.copy_(now)
        descent.begin(RATES)
        optimizers = [
            local_optimizer([(twin[:1], 0.3), (twin[1:], 1.0)], replace(local, learning_rate=rate))
            for twin, rate in zip(twins, RATES, strict=True)
        ]
        terms = [ProximalTerm(twin, proximal) for twin in twins]
        for step in range(6):
            gradient = torch.randn(now.shape, generator=random)
            is_active = torch.tensor([[(step + job) % 3 > 0, (step + job) % 4 > 0] for job in range(len(RATES))])
            for job, twin in enumerate(twins):
                optimizers[job].zero_grad()
                slopes = zip(twin, gradient[job].split(SIZES), SPANS, strict=True)
                moved = [(parameter * slope).sum() for parameter, slope, span in slopes if is_active[job, span.group]]
                if moved:
                    terms[job](torch.stack(moved).sum()).backward()
                for parameter, span in zip(twin, SPANS, strict=True):
                    parameter.grad = parameter.grad if is_active[job, span.group] else None
                optimizers[job].step()
            rests = ~is_active[:, [span.group for span in SPANS]].repeat_interleave(torch.tensor(SIZES), dim=1)
            descent.step(torch.where(rests, 100 * gradient, gradient), is_active)
        for row, twin in zip(now, twins, strict=True):
            torch.testing.assert_close(row, torch.cat([parameter.detach() for parameter in twin]), rtol=1e-5, atol=1e-6)
    assert not torch.equal(now, start)
