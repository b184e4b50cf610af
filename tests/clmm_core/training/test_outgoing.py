"""What a host sends in place of its update, and what it keeps."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from clmm_core.data.labels import LabelDraw
from clmm_core.federated.arrays import Arrays
from clmm_core.federated.error_feedback import Residual
from clmm_core.federated.quantise import unpack
from clmm_core.training.outgoing import outgoing_update
from clmm_core.training.settings import FinetuneConfig, LocalConfig, PretrainConfig
from clmm_core.training.tasks import FinetuneTask, PretrainTask

Settings = Callable[..., dict[str, Any]]
LOCAL = LocalConfig(epochs=1, batch_size=6, learning_rate=0.001)


@pytest.fixture
def task(settings: Settings) -> PretrainTask:
    return PretrainTask(**settings(0, 3), config=PretrainConfig(local=LOCAL), update_bits=4)


def update(value: float = 1e-3) -> Arrays:
    return {"modalities.accelerometer.encoder.w": np.linspace(-value, value, 500, dtype=np.float32)}


def test_without_packing_an_update_goes_as_it_is(task: PretrainTask):
    mine = update()
    assert outgoing_update(replace(task, update_bits=32), mine, None) == (mine, None)


def test_nothing_to_send_is_nothing_and_what_was_left_out_stays(task: PretrainTask):
    kept = Residual(stage="pretrain", server_round=2, arrays=update())
    assert outgoing_update(task, {}, kept) == ({}, kept)


def test_a_round_sends_what_the_last_one_left_out(task: PretrainTask):
    mine = update()
    first, kept = outgoing_update(task, mine, None)
    assert kept is not None
    assert (kept.stage, kept.server_round) == ("pretrain", 3)
    assert any(values.any() for values in kept.arrays.values())
    second, after = outgoing_update(replace(task, server_round=4), mine, kept)
    assert after is not None
    sent = [unpack(each, 4, mine) for each in (first, second)]
    for name, values in mine.items():
        np.testing.assert_allclose(sent[0][name] + sent[1][name] + after.arrays[name], 2 * values, rtol=0, atol=1e-9)


def test_a_stage_and_a_run_begin_without(task: PretrainTask, settings: Settings):
    """A round that does not come after the last one is of another run."""
    mine, kept = update(), Residual(stage="pretrain", server_round=3, arrays=update(5.0))
    said = vars(task) | {"config": FinetuneConfig(encoder_rate=0.2, local=LOCAL), "labels": LabelDraw(per_class=1), "server_round": 4}
    for other in (FinetuneTask(**said), task, replace(task, server_round=1)):
        fresh, with_kept = outgoing_update(other, mine, None), outgoing_update(other, mine, kept)
        assert all(np.array_equal(fresh[0][name], data) for name, data in with_kept[0].items())


def test_the_draws_depend_on_seed_round_and_devices_alone(task: PretrainTask):
    def sent(**changes: Any) -> bytes:
        return b"".join(data.tobytes() for data in outgoing_update(replace(task, **changes), update(), None)[0].values())

    assert sent() == sent(devices=task.devices[::-1])
    others = [sent(), sent(seed=5), sent(server_round=4), sent(devices=task.devices[:1])]
    assert len(set(others)) == len(others)
