"""Error feedback: what packing an update left out is added to the next one, so that over the rounds nothing is lost.

Source: Seide et al. 2014, "1-Bit Stochastic Gradient Descent and its Application to Data-Parallel Distributed Training of Speech DNNs",
Interspeech; Karimireddy et al. 2019, arXiv 1901.09847, EF-SGD.
Differs: what is compressed is a round's mean update instead of a gradient; it already holds the learning rate.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clmm_core.federated.arrays import Arrays, difference
from clmm_core.federated.quantise import Packed, pack, unpack


@dataclass(frozen=True, kw_only=True)
class Residual:
    """What a host's updates of one stage have left out so far; the host keeps it from round to round."""

    stage: str
    server_round: int
    """The last round it comes from."""
    arrays: Arrays


def packed_with_feedback(
    update: Mapping[str, NDArray[np.float32]], left_out: Mapping[str, NDArray[np.float32]], bits: int, random: np.random.Generator
) -> tuple[Packed, Arrays]:
    """Return the update with what earlier ones left out, packed, and what is left out now.

    Law: what is unpacked and what is left out add up to `update + left_out`, to float rounding. What was left out of arrays that are not in
    this update stays left out; what was left out of an array of another shape is forgotten.

    Raises:
        ValueError: see `pack`.
    """
    owed = {name: values for name, values in left_out.items() if name not in update or values.shape == update[name].shape}
    wanted = {name: values + owed[name] if name in owed else values for name, values in update.items()}
    packed = pack(wanted, bits, random)
    return packed, owed | difference(wanted, unpack(packed, bits, wanted))
