"""Augmentations of sensor windows: pure functions of windows and draws.

Source: jitter, scale, rotation, time warp and cropping after Um et al. 2017 (arXiv 1706.00527); channel and modality dropout as usual.
Differs: the crop is stretched back to the window's length, and all modalities of a window are cropped and warped by the same map of
time, so that they stay in step.

B = batch, C = channels, T = time.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from clmm_core.training.draws import Draws
from clmm_core.training.settings import Augmentation


def rotate(windows: Tensor, max_deg: float, draws: Draws) -> Tensor:
    """Return `[B, C, T]` with each window's three-axis groups turned by one random rotation; C must divide by 3, else unchanged."""
    batch, channels, steps = windows.shape
    if channels % 3 or max_deg == 0:
        return windows
    x, y, z = torch.nn.functional.normalize(draws.normal(batch, 3), dim=1).unbind(dim=1)
    angle = torch.deg2rad(max_deg * draws.uniform(batch))[:, None, None]
    zero = torch.zeros_like(x)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=1).view(batch, 3, 3)
    # Rodrigues' formula
    turn = torch.eye(3, device=skew.device) + angle.sin() * skew + (1 - angle.cos()) * (skew @ skew)
    turned = turn[:, None].to(windows) @ windows.view(batch, channels // 3, 3, steps)
    rotated: Tensor = turned.view(batch, channels, steps)
    return rotated


def scale(windows: Tensor, deviation: float, draws: Draws) -> Tensor:
    """Return `[B, C, T]` with each channel of each window multiplied by `1 + N(0, deviation)`."""
    return windows * (1 + deviation * draws.normal(*windows.shape[:2], 1).to(windows))


def jitter(windows: Tensor, deviation: float, draws: Draws) -> Tensor:
    """Return `[B, C, T]` with `N(0, deviation)` added to every sample."""
    return windows + deviation * draws.normal(*windows.shape).to(windows)


def channel_dropout(windows: Tensor, probability: float, draws: Draws) -> Tensor:
    """Return `[B, C, T]` with each channel of each window zeroed with this probability."""
    kept = draws.uniform(*windows.shape[:2], 1) >= probability
    return windows * kept.to(windows)


def time_map(batch: int, crop: float, warp: float, draws: Draws, knots: int = 5) -> Tensor:
    """Return increasing positions `[B, knots]` in [0, 1]: where in the window each knot of the new one is read."""
    share = 1 - crop * draws.uniform(batch, 1)
    start = (1 - share) * draws.uniform(batch, 1)
    speed = (1 + warp * draws.normal(batch, knots - 1)).clamp(min=0.1)
    walked = torch.cat([torch.zeros_like(start), speed.cumsum(dim=1) / speed.sum(dim=1, keepdim=True)], dim=1)
    return start + share * walked


def resample(windows: Tensor, positions: Tensor) -> Tensor:
    """Return `[B, C, T]` read along a time map `[B, knots]`, linear between knots and between samples."""
    batch, channels, steps = windows.shape
    even = torch.linspace(0, positions.shape[1] - 1, steps, device=positions.device)
    knot = even.floor().long().clamp(max=positions.shape[1] - 2)
    share = even - knot
    where = positions[:, knot] * (1 - share) + positions[:, knot + 1] * share  # [B, T]
    index = (where * (steps - 1)).to(windows).clamp(0, steps - 1)
    below = index.floor().long().clamp(max=max(steps - 2, 0))
    above = (below + 1).clamp(max=steps - 1)
    between = (index - below)[:, None]  # [B, 1, T]
    low = windows.gather(2, below[:, None].expand(batch, channels, steps))
    high = windows.gather(2, above[:, None].expand(batch, channels, steps))
    return low * (1 - between) + high * between


def modality_dropout(present: Mapping[str, Tensor], probability: float, draws: Draws) -> dict[str, Tensor]:
    """Return the presence masks `[B]` with modalities dropped at random; a window keeps at least one of those it has."""
    mask = torch.stack(list(present.values()))  # [M, B]
    draw = draws.uniform(*mask.T.shape).T.to(mask.device)
    kept = mask & (draw >= probability)
    # The present modality with the largest draw stays whatever happens.
    stays = torch.where(mask, draw, -1.0).argmax(dim=0)
    kept |= mask & (torch.arange(len(mask), device=mask.device)[:, None] == stays)
    return dict(zip(present, kept, strict=True))


def augment(normal: Mapping[str, Tensor], strength: Augmentation, draws: Draws) -> dict[str, Tensor]:
    """Return an augmented copy of normalised windows, by modality `[B, C, T]`; modality dropout is the caller's."""
    batch = len(next(iter(normal.values())))
    positions = time_map(batch, strength.crop, strength.time_warp, draws)
    copy: dict[str, Tensor] = {}
    for name, windows in normal.items():
        changed = resample(windows, positions) if strength.crop or strength.time_warp else windows
        changed = rotate(changed, strength.rotation_deg, draws)
        changed = scale(changed, strength.scale, draws) if strength.scale else changed
        changed = jitter(changed, strength.jitter, draws) if strength.jitter else changed
        copy[name] = channel_dropout(changed, strength.channel_dropout, draws) if strength.channel_dropout else changed
    return copy
