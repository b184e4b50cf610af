import pytest
import torch

from simulation.bench import limits
from simulation.bench.limits import copy_rate, counted, matmul_rate

CPU = torch.device("cpu")


def test_a_product_is_counted_in_operations_and_bytes_and_a_view_moves_nothing():
    one, other = torch.ones(4, 8), torch.ones(8, 16)

    def step() -> torch.Tensor:
        return (one.view(8, 4).T @ other).relu()

    flops, moved, num_operations = counted(step)
    assert flops == 2 * 4 * 8 * 16
    assert moved == 4 * (4 * 8 + 8 * 16 + 4 * 16 + 2 * 4 * 16), "read, written, then read and written by relu"
    assert num_operations == 2


def test_rates_are_of_this_machine(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(limits.MATRIX, "cpu", 64)
    monkeypatch.setitem(limits.COPIED, "cpu", 2**16)
    assert 1e6 < matmul_rate(CPU) < 1e15
    assert 1e6 < copy_rate(CPU) < 1e13
