"""A host's update as it leaves: as it is, or packed with error feedback."""

import numpy as np

from clmm_core.federated.arrays import Arrays
from clmm_core.federated.error_feedback import Residual, packed_with_feedback
from clmm_core.federated.quantise import Packed
from clmm_core.seeds import derive_seed
from clmm_core.training.tasks import TrainTask, stage_of


def outgoing_update(task: TrainTask, update: Arrays, before: Residual | None) -> tuple[Arrays | Packed, Residual | None]:
    """Return what a host sends in place of its mean update, and what it keeps for the next round.

    Args:
        task: what it was asked.
        update: its mean update; nothing where no device could be trained.
        before: what it kept of the round before. It starts again where a stage or a run begins.
    """
    if task.update_bits == 32 or not update:
        return update, before
    stage = stage_of(task)
    is_next = before is not None and before.stage == stage and before.server_round < task.server_round
    left_out = before.arrays if before is not None and is_next else {}
    random = np.random.default_rng(derive_seed(task.seed, "pack", task.server_round, *sorted(task.devices)))
    packed, left_out = packed_with_feedback(update, left_out, task.update_bits, random)
    return packed, Residual(stage=stage, server_round=task.server_round, arrays=left_out)
