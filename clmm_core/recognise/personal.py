"""A model made somebody's own on their device: what it says is turned by a small matrix, learnt from a few of their labelled windows.

K = classes, N = windows.
"""

import json
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from clmm_core.errors import ModelFileError
from clmm_core.recognise.metadata import from_plain

FORMAT = 1
RIDGE, STEPS, STEP = 10.0, 300, 0.05
"""Pulls the matrix towards the one that changes nothing; steps of gradient descent, and how long each is. On nine people of HAPT a pull of
1 gained more on average, and took up to 13 points from one of them; with 10 nobody lost more than 0.4."""
FOLDS = 3
FEWEST_A_CLASS = FOLDS
"""Windows of a class from which on it is learnt from: one for each fold."""
Float64 = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class PersonalHead:
    """Probabilities are `softmax(z W + b)` of a model's logits over its temperature, z. It never leaves the device.

    Our own choice: matrix scaling (Guo et al. 2017, arXiv 1706.04599, section 4.2), pulled towards the identity, in place of another
    training of the network: it needs NumPy alone, so a host without PyTorch can use and make it.
    """

    format: int
    weights: tuple[tuple[float, ...], ...]
    """W, `[K, K]`."""
    bias: tuple[float, ...]
    """b, `[K]`."""
    num_windows: int
    """It was learnt from."""

    def probabilities(self, scaled: Float64) -> Float64:
        """Return `[N, K]` of a model's logits over its temperature `[N, K]`."""
        return _softmax(scaled @ np.array(self.weights) + np.array(self.bias))


def learn_head(scaled: Float64, classes: NDArray[np.int64]) -> PersonalHead | None:
    """Return the head of somebody's labelled windows in the order of time, or None where it would not help or there are too few.

    It helps where, learnt from two thirds of each class, it recognises more of the last third than the model alone; of each third in turn,
    and each a stretch of time, for windows overlap.

    Args:
        scaled: `[N, K]`, the model's logits over its temperature.
        classes: `[N]`, the true ones.
    """
    counts = np.bincount(classes, minlength=scaled.shape[1])
    rows = np.flatnonzero(counts[classes] >= FEWEST_A_CLASS)
    if len(np.unique(classes[rows])) < 2:
        return None
    scaled, classes = scaled[rows], classes[rows]
    folds = _folds(classes)
    own = 0
    for fold in range(FOLDS):
        is_left_out = folds == fold
        head = _fit(scaled[~is_left_out], classes[~is_left_out])
        own += _num_right(head, scaled[is_left_out], classes[is_left_out])
    if own <= int((scaled.argmax(axis=1) == classes).sum()):
        return None
    return _fit(scaled, classes)


def head_json(head: PersonalHead) -> str:
    """Return the file's text."""
    return json.dumps(asdict(head), allow_nan=False) + "\n"


def read_head(text: str, num_classes: int, where: str) -> PersonalHead:
    """Return the head that a file holds.

    Raises:
        ModelFileError: it is none, or of another number of classes.
    """
    try:
        head: PersonalHead = from_plain(PersonalHead, json.loads(text))
    except (TypeError, ValueError) as error:
        raise ModelFileError(f"{where}: expected a personal head, found a mistake: {error}: remove the file") from error
    shape = (head.format, len(head.bias), *sorted({len(head.weights), *map(len, head.weights)}))
    if shape != (FORMAT, num_classes, num_classes):
        expected = f"a personal head of format {FORMAT} and {num_classes} classes"
        raise ModelFileError(f"{where}: expected {expected}, found another: remove the file")
    return head


def _fit(scaled: Float64, classes: NDArray[np.int64]) -> PersonalHead:
    num_classes = scaled.shape[1]
    identity = np.eye(num_classes)
    weights, bias, wanted = identity.copy(), np.zeros(num_classes), identity[classes]
    for _ in range(STEPS):
        error = (_softmax(scaled @ weights + bias) - wanted) / len(classes)  # [N, K]
        weights -= STEP * (scaled.T @ error + RIDGE * (weights - identity))
        bias -= STEP * (error.sum(axis=0) + RIDGE * bias)
    return PersonalHead(format=FORMAT, weights=tuple(map(tuple, weights.tolist())), bias=tuple(bias.tolist()), num_windows=len(classes))


def _folds(classes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each window which third of its class it is in, by time."""
    folds = np.zeros(len(classes), np.int64)
    for each in np.unique(classes):
        rows = np.flatnonzero(classes == each)
        folds[rows] = np.arange(len(rows)) * FOLDS // len(rows)
    return folds


def _num_right(head: PersonalHead, scaled: Float64, classes: NDArray[np.int64]) -> int:
    return int((head.probabilities(scaled).argmax(axis=1) == classes).sum())


def _softmax(scores: Float64) -> Float64:
    exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares: Float64 = exponentials / exponentials.sum(axis=1, keepdims=True)
    return shares
