"""Pseudo-labels: a device labels its own windows where the model it was sent is sure of them.

Source: Lee 2013, "Pseudo-Label"; the fixed threshold on confidence as in FixMatch, Sohn et al. 2020, arXiv 2001.07685, section 2.
Differs: the sender is the federation's model of the round, so nothing but that model travels, and no label leaves the device; the
windows are then learnt from like labelled ones, augmented.
"""

import torch
from torch import Tensor

from clmm_core.training.device_tensors import NO_CLASS


def pseudo_labels(logits: Tensor, classes: Tensor, known: Tensor, confidence: float) -> tuple[Tensor, Tensor]:
    """Return the rows `[rows]` int64 to learn from, ascending, and their classes: those known, and those where the model is sure enough.

    Args:
        logits: `[windows, classes]` of all of one device's windows, without dropout.
        classes: `[windows]` int64, the device's own labels; used for the known rows only.
        known: `[known]` int64, the rows whose label is known.
        confidence: smallest probability of the likeliest class, in [0, 1].
    """
    sure, likeliest = logits.softmax(dim=1).max(dim=1)
    labels = torch.where(sure >= confidence, likeliest, NO_CLASS)
    labels[known] = classes[known]
    rows = (labels != NO_CLASS).nonzero().flatten()
    return rows, labels[rows]
