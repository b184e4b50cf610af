"""Pseudo-labels: a device labels its own windows where the model it was sent is sure of them.

Source: Lee 2013, "Pseudo-Label"; the fixed threshold on confidence as in FixMatch, Sohn et al. 2020, arXiv 2001.07685, section 2.
Differs: the sender is the federation's model of the round, so nothing but that model travels, and no label leaves the device; the
windows are then learnt from like labelled ones, augmented.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from clmm_core.training.device_tensors import NO_CLASS

TURNS = 5
"""Of balancing: classes by windows, then windows by classes."""


def pseudo_labels(
    logits: Tensor, classes: Tensor, known: Tensor, confidence: float, expected: Sequence[float] = ()
) -> tuple[Tensor, Tensor]:
    """Return the rows `[rows]` int64 to learn from, ascending, and their classes: those known, and those where the model is sure enough.

    Args:
        logits: `[windows, classes]` of all of one device's windows, without dropout.
        classes: `[windows]` int64, the device's own labels; used for the known rows only.
        known: `[known]` int64, the rows whose label is known.
        confidence: smallest probability of the likeliest class, in [0, 1].
        expected: `[classes]`, the share of the device's windows that each class is expected to have; empty leaves probabilities as they
            are.
    """
    probabilities = logits.softmax(dim=1)
    if len(expected):
        probabilities = aligned(probabilities, torch.tensor(expected, dtype=probabilities.dtype))
    sure, likeliest = probabilities.max(dim=1)
    labels = torch.where(sure >= confidence, likeliest, NO_CLASS)
    labels[known] = classes[known]
    rows = (labels != NO_CLASS).nonzero().flatten()
    return rows, labels[rows]


def aligned(probabilities: Tensor, expected: Tensor) -> Tensor:
    """Return `[windows, classes]`, raised where a class is said less often than expected over all windows and lowered where more often.

    Each window's sum to 1, and a class that is not expected at all has 0; a window that shows nothing else keeps none.

    Source: distribution alignment of ReMixMatch, Berthelot et al. 2020, arXiv 1911.09785, section 3.1; done `TURNS` times in turn with
    the sums of windows it is Sinkhorn and Knopp's balancing, as in Asano et al. 2020, arXiv 1911.05371, section 3.2.
    Differs: over all windows of one device, with one window more that is as expected, so that no quotient is infinite.
    """
    for _ in range(TURNS):
        said = (probabilities.sum(dim=0) + expected) / (len(probabilities) + 1)
        raised = probabilities * torch.where(expected > 0, expected / said, 0.0)
        probabilities = raised / raised.sum(dim=1, keepdim=True).clamp(min=torch.finfo(raised.dtype).tiny)
    return probabilities
