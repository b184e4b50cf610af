import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from clmm_core.training.draws import Draws
from clmm_core.training.views import fused_views

B, D = 4, 6
NAMES = ("accelerometer", "gyroscope", "heart")


def seed(number: int = 0) -> Draws:
    return Draws(torch.tensor(number))


def projections(num_modalities: int, num_copies: int = 1) -> list[dict[str, Tensor]]:
    random = seed(1)
    return [{name: normalize(random.normal(B, D), dim=1) for name in NAMES[:num_modalities]} for _ in range(num_copies)]


def everywhere(num_modalities: int) -> dict[str, Tensor]:
    return {name: torch.ones(B, dtype=torch.bool) for name in NAMES[:num_modalities]}


@pytest.mark.parametrize("num_views", [2, 9])
def test_two_modalities_are_mixed_at_even_steps(num_views: int):
    """Cosmo's 0.1 .. 0.9 for nine views."""
    (copy,) = projections(2)
    views = fused_views([copy], everywhere(2), num_views, seed())
    assert views.shape == (B, num_views, D)
    for i in range(B):
        for k in range(num_views):
            a = (k + 1) / (num_views + 1)
            mixed = a * copy["accelerometer"][i] + (1 - a) * copy["gyroscope"][i]
            torch.testing.assert_close(views[i, k], mixed / mixed.norm())


@pytest.mark.parametrize("num_modalities", [1, 2, 3])
@pytest.mark.parametrize("num_copies", [1, 2, 3])
def test_views_have_length_1(num_modalities: int, num_copies: int):
    views = fused_views(projections(num_modalities, num_copies), everywhere(num_modalities), 5, seed())
    torch.testing.assert_close(views.norm(dim=2), torch.ones(B, 5))


def test_view_k_is_mixed_from_copy_k_modulo_copies():
    copies = projections(2, num_copies=3)
    views = fused_views(copies, everywhere(2), 7, seed())
    for k in range(7):
        alone = fused_views([copies[k % 3]], everywhere(2), 7, seed())
        assert torch.equal(views[:, k], alone[:, k])


def test_one_modality_alone_is_its_copies_in_turn():
    copies = projections(1, num_copies=2)
    views = fused_views(copies, everywhere(1), 3, seed())
    for k in range(3):
        torch.testing.assert_close(views[:, k], copies[k % 2]["accelerometer"])
    assert not torch.allclose(views[:, 0], views[:, 1])


def test_three_modalities_are_mixed_with_weights_from_the_simplex():
    (copy,) = projections(3)
    axes = {name: torch.eye(3)[m].expand(B, 3) for m, name in enumerate(copy)}
    views = fused_views([axes], everywhere(3), 2000, seed())
    weights = views[0] / views[0].sum(dim=1, keepdim=True)  # [P, 3]: the mix itself, because the axes are orthogonal
    assert (weights >= 0).all()
    torch.testing.assert_close(views[0], views[1])  # one draw a step for all windows
    # Dirichlet(1, 1, 1): mean 1/3, variance 1/18.
    torch.testing.assert_close(weights.mean(dim=0), torch.full((3,), 1 / 3), atol=0.02, rtol=0)
    torch.testing.assert_close(weights.var(dim=0), torch.full((3,), 1 / 18), atol=0.01, rtol=0)
    again, other = (fused_views([copy], everywhere(3), 5, seed(number)) for number in (0, 1))
    assert torch.equal(again, fused_views([copy], everywhere(3), 5, seed(0)))
    assert not torch.equal(again, other)


@pytest.mark.parametrize("num_modalities", [2, 3])
def test_a_window_with_a_modality_missing_is_mixed_from_the_others(num_modalities: int):
    (copy,), present = projections(num_modalities), everywhere(num_modalities)
    present["gyroscope"] = torch.tensor([True, False, True, False])
    views = fused_views([copy], present, 4, seed())
    full = fused_views([copy], everywhere(num_modalities), 4, seed())
    assert torch.equal(views[[0, 2]], full[[0, 2]])
    others = torch.stack([values for name, values in copy.items() if name != "gyroscope"], dim=1)  # [B, M-1, D]
    for i in (1, 3):
        for view in views[i]:
            if num_modalities == 2:
                torch.testing.assert_close(view, others[i, 0])
            mix = torch.linalg.lstsq(others[i].T, view[:, None])
            assert (mix.solution >= 0).all()
            torch.testing.assert_close(others[i].T @ mix.solution, view[:, None], atol=1e-5, rtol=1e-5)


def test_an_absent_modality_gets_no_gradient():
    (copy,), present = projections(2), everywhere(2)
    copy["gyroscope"].requires_grad_()
    present["gyroscope"] = torch.tensor([True, False, True, False])
    fused_views([copy], present, 4, seed()).square()[:, :, 0].sum().backward()
    assert not copy["gyroscope"].grad[[1, 3]].any()
    assert copy["gyroscope"].grad[[0, 2]].any()
