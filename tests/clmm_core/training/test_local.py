import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW

from clmm_core.errors import ConfigError
from clmm_core.training.local import ProximalTerm, local_optimizer
from clmm_core.training.settings import LocalConfig


def parameters(*values: float) -> list[nn.Parameter]:
    return [nn.Parameter(torch.tensor([value, -value])) for value in values]


def test_the_proximal_term_by_hand():
    """mu/2 times the squared distance to where the round began: 0.5/2 * (0.1^2 + 0.1^2 + 0.3^2)."""
    moving = parameters(1.0, 2.0)
    term = ProximalTerm(moving, mu=0.5)
    assert term(torch.tensor(3.0)).item() == pytest.approx(3.0)
    with torch.no_grad():
        moving[0] += torch.tensor([0.1, -0.1])
        moving[1] += torch.tensor([0.3, 0.0])
    value = term(torch.tensor(3.0))
    assert value.item() == pytest.approx(3.0 + 0.25 * (0.01 + 0.01 + 0.09))
    value.backward()
    torch.testing.assert_close(moving[0].grad, torch.tensor([0.05, -0.05]))
    torch.testing.assert_close(moving[1].grad, torch.tensor([0.15, 0.0]))


def test_without_mu_the_loss_is_left_alone():
    loss = torch.tensor(3.0)
    assert ProximalTerm(parameters(1.0), mu=0.0)(loss) is loss


def test_groups_learn_at_their_share_of_the_rate():
    slow, quick = parameters(1.0, 2.0), parameters(3.0)
    optimizer = local_optimizer([(slow, 0.2), ([], 0.5), (quick, 1.0)], LocalConfig(epochs=1, batch_size=2, learning_rate=0.01))
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.002, 0.01])
    assert [group["params"] for group in optimizer.param_groups] == [slow, quick]


@pytest.mark.parametrize(("name", "kind"), [("adamw", AdamW), ("sgd", SGD)])
def test_the_named_optimiser_with_its_weight_decay(name: str, kind: type):
    config = LocalConfig(epochs=1, batch_size=2, learning_rate=0.5, optimizer=name, weight_decay=0.1)
    (parameter,) = moving = parameters(1.0)
    optimizer = local_optimizer([(moving, 1.0)], config)
    assert type(optimizer) is kind
    parameter.grad = torch.zeros(2)
    optimizer.step()
    torch.testing.assert_close(parameter.data, torch.tensor([0.95, -0.95]))  # 1 - 0.5 * 0.1, and no gradient


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs: expected at least 1, found 0"),
        ({"batch_size": 1}, "batch-size: expected at least 2, found 1"),
        ({"learning_rate": -0.1}, "learning-rate: expected at least 0.0, found -0.1"),
        ({"learning_rate": float("nan")}, "learning-rate: expected at least 0.0, found nan"),
        ({"weight_decay": -1.0}, "weight-decay: expected at least"),
        ({"proximal": -1.0}, "proximal: expected at least"),
    ],
)
def test_a_value_out_of_range_is_refused(change: dict[str, float], message: str):
    with pytest.raises(ConfigError, match=message):
        LocalConfig(**{"epochs": 1, "batch_size": 2, "learning_rate": 0.1} | change)
