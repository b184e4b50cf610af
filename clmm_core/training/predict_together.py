"""Predictions for many devices as one program: what teaches self-training, and what is evaluated.

Devices that one model predicts for share its batches. Where there are many models, as in a study on a GPU or after personalisation,
a GPU has those that are alike as one stack.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from clmm_core.federated.arrays import Arrays
from clmm_core.models.clmm import Clmm
from clmm_core.models.config import ModelConfig
from clmm_core.training.device_tensors import AT_ONCE, DeviceTensors, in_batches
from clmm_core.training.model_arrays import load_arrays
from clmm_core.training.stackable import stackable
from clmm_core.training.stacked_jobs import starts_of
from clmm_core.training.stacked_windows import distinct, upload

MAX_STACKED = 64
"""Models in one stack, each with `AT_ONCE` windows at a time: bounds the memory."""
Asked = tuple[ModelConfig, Arrays, DeviceTensors]


def predict(asked: Sequence[Asked], device: torch.device) -> list[Tensor]:
    """Return each model's logits `[windows, classes]` of its windows, without dropout, on the CPU, the quicker way for the device."""
    num_models = len({(config, id(arrays)) for config, arrays, _ in asked})
    return predict_together(asked, device) if device.type != "cpu" and num_models > 1 else _model_by_model(asked, device)


def _model_by_model(asked: Sequence[Asked], device: torch.device) -> list[Tensor]:
    done: dict[int, Tensor] = {}
    by_model: dict[tuple[ModelConfig, int], list[int]] = {}
    for i, (config, arrays, _) in enumerate(asked):
        by_model.setdefault((config, id(arrays)), []).append(i)
    for members in by_model.values():
        config, arrays, _ = asked[members[0]]
        model = load_arrays(config, arrays).to(device)
        done |= zip(members, logits_of(model, [asked[i][2] for i in members], device), strict=True)
    return [done[i] for i in range(len(asked))]


@torch.no_grad()
def logits_of(model: Clmm, devices: Sequence[DeviceTensors], device: torch.device) -> list[Tensor]:
    """Return the primary head's logits of each device's windows, `[windows, classes]`, without dropout, on the CPU.

    Devices with the same modalities share batches; the others', whose sensors a model must not look for in them, are apart.
    """
    model.eval()
    done: dict[int, Tensor] = {}
    alike: dict[tuple[str, ...], list[int]] = {}
    for i, windows in enumerate(devices):
        alike.setdefault(tuple(windows.streams), []).append(i)
    for members in alike.values():
        batches = (batch.to(device) for batch in in_batches(devices[i] for i in members))
        logits = torch.cat([model(batch.streams, batch.present).cpu() for batch in batches])
        done |= zip(members, torch.split(logits, [len(devices[i]) for i in members]), strict=True)
    return [done[i] for i in range(len(devices))]


@torch.no_grad()
def predict_together(asked: Sequence[Asked], device: torch.device) -> list[Tensor]:
    """Return each model's logits `[windows, classes]` of its windows, without dropout, on the CPU; models that are alike in one stack."""
    done: dict[int, Tensor] = {}
    stacks: dict[tuple[object, ...], list[int]] = {}
    for i, (model, _, windows) in enumerate(asked):
        stacks.setdefault((model, tuple((name, *values.shape[1:]) for name, values in windows.streams.items())), []).append(i)
    for members in stacks.values():
        for first in range(0, len(members), MAX_STACKED):
            some = members[first : first + MAX_STACKED]
            done |= dict(zip(some, _predicted([asked[i] for i in some], device), strict=True))
    return [done[i] for i in range(len(asked))]


def _predicted(asked: Sequence[Asked], device: torch.device) -> list[Tensor]:
    model = _predictor(asked[0][0], device)
    like = asked[0][1]
    which, starts = starts_of([arrays for _, arrays, _ in asked], list(like), device)
    pieces = zip(like.items(), torch.split(starts, [values.size for values in like.values()], dim=1), strict=True)
    stacked = {name: piece[which].view(-1, *values.shape) for (name, values), piece in pieces}
    different, places = distinct([windows for _, _, windows in asked])
    data, rows = upload(different, device), torch.tensor(places).to(device)

    def logits_of(arrays: dict[str, Tensor], streams: Any, present: Any) -> Tensor:
        logits: Tensor = functional_call(model, arrays, (streams, present))
        return logits

    longest, parts = max(len(windows) for windows in different), []
    with sdpa_kernel(SDPBackend.MATH):  # the one way of attention that torch.vmap can stack
        for first in range(0, longest, AT_ONCE):
            some = slice(first, first + AT_ONCE)
            of_some = ({name: values[rows, some] for name, values in each.items()} for each in (data.streams, data.present))
            parts.append(vmap(logits_of)(stacked, *of_some).cpu())
    together = torch.cat(parts, dim=1)  # [models, windows, classes]
    return [logits[: len(windows)] for logits, (_, _, windows) in zip(together, asked, strict=True)]


@lru_cache(maxsize=64)
def _predictor(config: ModelConfig, device: torch.device) -> Clmm:
    return stackable(config)[0].to(device).eval()
