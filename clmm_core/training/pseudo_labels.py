"""Pseudo-labels: a device labels its own windows where the model it was sent is sure of them.

Source: Lee 2013, "Pseudo-Label"; the fixed threshold on confidence as in FixMatch, Sohn et al. 2020, arXiv 2001.07685, section 2.
Differs: the sender is the federation's model of the round, so nothing but that model travels, and no label leaves the device; the
windows are then learnt from like labelled ones, augmented.
"""

import torch
from torch import Tensor

from clmm_core.models.clmm import Clmm
from clmm_core.training.device_tensors import NO_CLASS, DeviceTensors


@torch.no_grad()
def pseudo_labelled(model: Clmm, windows: DeviceTensors, labelled: Tensor, confidence: float) -> DeviceTensors:
    """Return the windows to learn from: those labelled, and those whose most likely class reaches `confidence`.

    Args:
        model: the federation's; in evaluation mode afterwards.
        windows: all of one device; their own classes are used for the labelled rows only.
        labelled: `[rows]` int64, the rows whose label is known.
        confidence: smallest probability, in [0, 1].
    """
    model.eval()
    logits = [model(batch.streams, batch.present) for batch in windows.in_order()]
    sure, classes = torch.cat(logits).softmax(dim=1).max(dim=1)
    classes = torch.where(sure >= confidence, classes, NO_CLASS)
    classes[labelled] = windows.classes[labelled]
    return DeviceTensors(windows.streams, windows.present, classes).select((classes != NO_CLASS).nonzero().flatten())
