"""Each handler is called with a message as Flower calls it."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict

from client.client_app import app
from clmm_core.data.fleet import DataConfig, device_windows
from clmm_core.data.labels import LabelDraw
from clmm_core.federated.arrays import FUSION, Arrays
from clmm_core.federated.codec import from_json, join_arrays, split_arrays, to_json
from clmm_core.federated.messages import HostEvaluation, HostMoments, HostPlane, HostProfile, HostQuality, HostSums, HostUpdate
from clmm_core.federated.principal_plane import AXES, MEAN, SECOND, SUM, principal_plane
from clmm_core.federated.quantise import unpack
from clmm_core.federated.source import client_source
from clmm_core.models.config import ModalityShape, ModelChoice, sized
from clmm_core.training.array_names import is_measured, is_stage_one
from clmm_core.training.model_arrays import new_arrays
from clmm_core.training.settings import FinetuneConfig, LocalConfig, PretrainConfig
from clmm_core.training.tasks import (
    EvaluateTask,
    FinetuneTask,
    MomentsTask,
    PlaneTask,
    PretrainTask,
    ProfileTask,
    QualityTask,
    SelftrainTask,
    SumsTask,
)

pytestmark = pytest.mark.usefixtures("_in_flower_task")

DATA = DataConfig(name="synthetic", num_devices=4, modalities=("accelerometer",), window_s=1.28, overlap=0.0)
DEVICES = ("device-00001", "device-00003")
MODEL = sized(ModelChoice(), (ModalityShape(name="accelerometer", channels=3, time_steps=64),), 6)
CLASSES = ("cycle", "hand_wash", "run", "stairs", "still", "walk")
TASK = {"data": DATA, "model": MODEL, "classes": CLASSES, "seed": 0, "server_round": 1, "devices": DEVICES}
LOCAL = LocalConfig(epochs=1, batch_size=16, learning_rate=0.001)
TUNING = FinetuneConfig(encoder_rate=0.2, local=LOCAL)
LABELS = LabelDraw(per_class=1)
SUMS = SumsTask(data=DATA, devices=DEVICES, differences=False)
ARRAYS = new_arrays(MODEL, 0)
LEARNING = {name for name in ARRAYS if not is_measured(name)}
Ask = Callable[..., RecordDict]


@pytest.fixture
def ask() -> Ask:
    """Ask host 1 of 2: `ask("query.profile", task, arrays)` returns the reply's content; a `state` is the host's own."""

    def make(
        message_type: str,
        task: Any,
        arrays: Arrays | None = None,
        node_config: Mapping[str, Any] | None = None,
        state: RecordDict | None = None,
    ) -> RecordDict:
        content = RecordDict({"task": ConfigRecord({"json": task if isinstance(task, str) else to_json(task)})})
        content["arrays"] = ArrayRecord({name: Array(values) for name, values in join_arrays(arrays or {}).items()})
        message = Message(content, dst_node_id=77, message_type=message_type)
        message.metadata.__dict__["_message_id"] = "question"
        place = {"partition-id": 1, "num-partitions": 2} if node_config is None else dict(node_config)
        kept = RecordDict() if state is None else state
        reply = app(message, Context(run_id=2, node_id=77, node_config=place, state=kept, run_config={}))
        assert not reply.has_error()
        assert reply.metadata.reply_to_message_id == "question"
        return reply.content

    return make


def decoded(content: RecordDict, kind: type) -> Any:
    return from_json(kind, str(content["reply"]["json"]))


def arrays_in(content: RecordDict) -> Arrays:
    return split_arrays({name: array.numpy() for name, array in content["arrays"].items()})


def test_profile(ask: Ask):
    profile = decoded(ask("query.profile", ProfileTask(data=DATA)), HostProfile)
    assert [device.device for device in profile.devices] == list(DEVICES)
    assert profile.source == client_source()
    assert profile.modalities == ("accelerometer",)
    assert set(profile.devices[0].labelled_windows) == set(CLASSES)


def test_profile_of_a_hosts_own_recordings(ask: Ask, tmp_path: Path):
    folder = tmp_path / "eve" / "monday"
    folder.mkdir(parents=True)
    (folder / "recording.yaml").write_text("streams: {accelerometer: {file: a.csv, unit: m/s^2, columns: [x, y, z], rate_hz: 50}}")
    (folder / "a.csv").write_text("x,y,z\n" + "1,2,3\n" * 200)
    profile = decoded(ask("query.profile", ProfileTask(data=DATA), node_config={"recordings": str(tmp_path)}), HostProfile)
    assert [device.device for device in profile.devices] == ["eve"]
    task = SumsTask(data=DATA, devices=("eve",), differences=False)
    sums = decoded(ask("query.sums", task, node_config={"recordings": str(tmp_path)}), HostSums)
    assert sums.sums["accelerometer"].mean.tolist() == [1.0, 2.0, 3.0]


def test_sums(ask: Ask):
    content = ask("query.sums", SUMS)
    sums = decoded(content, HostSums).sums["accelerometer"]
    windows = np.concatenate([device_windows(DATA, device).streams["accelerometer"] for device in DEVICES])
    assert sums.mean.tolist() == pytest.approx(windows.mean(axis=(0, 2)).tolist(), abs=1e-4)
    assert sums.std.tolist() == pytest.approx(windows.std(axis=(0, 2)).tolist(), abs=1e-4)
    assert arrays_in(content) == {}


def test_pretrain(ask: Ask):
    task = PretrainTask(**TASK, config=PretrainConfig(local=LOCAL, num_views=3))
    sent = {name: values for name, values in ARRAYS.items() if is_stage_one(name)}
    content = ask("train.pretrain", task, sent)
    update = decoded(content, HostUpdate)
    assert [device.device for device in update.devices] == list(DEVICES)
    assert update.weights == {"accelerometer": float(sum(device.num_windows for device in update.devices))}
    arrays = arrays_in(content)
    assert {name: values.shape for name, values in arrays.items()} == {
        name: values.shape for name, values in sent.items() if name in LEARNING
    }
    assert any(values.any() for values in arrays.values())


def test_finetune(ask: Ask):
    content = ask("train.finetune", FinetuneTask(**TASK, config=TUNING, labels=LABELS), ARRAYS)
    update = decoded(content, HostUpdate)
    assert set(update.weights) == {"accelerometer", FUSION}
    assert set(arrays_in(content)) == LEARNING


def test_what_packed_updates_leave_out_stays_with_the_host_until_the_next_round(ask: Ask):
    """Over three rounds, what was sent and what is kept add up to the updates that plain rounds send."""
    plain, state = FinetuneTask(**TASK, config=TUNING, labels=LABELS), RecordDict()
    total: dict[str, Any] = dict.fromkeys(LEARNING, 0.0)
    for server_round in (1, 2, 3):
        task = replace(plain, server_round=server_round)
        wanted = arrays_in(ask("train.finetune", task, ARRAYS, state=state))
        packed = arrays_in(ask("train.finetune", replace(task, update_bits=4), ARRAYS, state=state))
        assert sum(data.nbytes for data in packed.values()) < sum(values.nbytes for values in wanted.values()) / 8
        sent = unpack(packed, 4, wanted)
        total = {name: total[name] + wanted[name] - sent[name] for name in total}
        assert dict(state["residual-of"]) == {"stage": "finetune", "server-round": server_round}
    kept = arrays_in(RecordDict({"arrays": state["residual"]}))
    assert kept.keys() == total.keys()
    assert all(np.allclose(kept[name], total[name], rtol=0, atol=1e-7) for name in total)
    assert any(np.abs(values).max() > 1e-5 for values in kept.values())


def test_selftrain(ask: Ask):
    task = SelftrainTask(**TASK, config=TUNING, labels=LABELS, labelled=DEVICES[:1], confidence=0.0, expected=())
    content = ask("train.selftrain", task, ARRAYS)
    update = decoded(content, HostUpdate)
    assert [device.device for device in update.devices] == list(DEVICES)
    assert set(arrays_in(content)) == LEARNING


def test_quality(ask: Ask):
    quality = decoded(ask("query.quality", QualityTask(**TASK), ARRAYS), HostQuality)
    assert 0 < quality.weighted["accelerometer"] < quality.num_windows["accelerometer"]


def test_evaluate(ask: Ask):
    task = EvaluateTask(
        **TASK,
        labelled=DEVICES[:1],
        labels=LABELS,
        personalise=DEVICES[1:],
        personal_labels=LABELS,
        personal_config=TUNING,
        smooth_s=0.0,
    )
    labelled, other = decoded(ask("evaluate.subjects", task, ARRAYS), HostEvaluation).devices
    assert (labelled.device, other.device) == DEVICES
    assert labelled.personal_after is None
    assert np.sum(other.personal_before.confusion) == np.sum(other.personal_after.confusion) < np.sum(other.counts.confusion)


def test_moments_and_plane(ask: Ask):
    content = ask("query.moments", MomentsTask(**TASK, points_per_device=5), ARRAYS)
    moments = arrays_in(content)
    assert {name: values.shape for name, values in moments.items()} == {SUM: (64,), SECOND: (64, 64)}
    num_windows = decoded(content, HostMoments).num_windows
    assert num_windows == 10
    plane = principal_plane(num_windows, moments)
    assert set(plane) == {MEAN, AXES}
    points = decoded(ask("query.plane", PlaneTask(**TASK, points_per_device=5), ARRAYS | plane), HostPlane).points
    assert sorted({point.device for point in points}) == list(DEVICES)
    assert np.mean([point.x for point in points]) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize(
    ("message_type", "task", "node_config", "kind", "message"),
    [
        ("query.profile", ProfileTask(data=DATA), {}, "DataError", "this host has no recordings"),
        ("query.profile", ProfileTask(data=DATA), {"recordings": "/nowhere"}, "DataError", "/nowhere: expected a folder"),
        ("query.profile", ProfileTask(data=replace(DATA, modalities=("heart",))), None, "ConfigError", "data.modalities: 'synthetic' has"),
        ("query.sums", replace(SUMS, data=replace(DATA, window_s=99.0)), None, "DataError", "device 'device-00001': no window"),
        ("query.sums", ProfileTask(data=DATA), None, "CodeMismatchError", "expected a SumsTask, found something else"),
        ("train.pretrain", "not json", None, "CodeMismatchError", "expected a PretrainTask"),
    ],
)
def test_what_we_raise_on_purpose_comes_back_in_words(ask: Ask, message_type: str, task: Any, node_config: Any, kind: str, message: str):
    content = ask(message_type, task, node_config=node_config)
    assert list(content) == ["error"]
    assert content["error"]["class"] == kind
    assert message in str(content["error"]["message"])


def test_a_mistake_of_ours_is_flowers_to_report(ask: Ask):
    with pytest.raises(KeyError):
        ask("query.quality", QualityTask(**{**TASK, "data": replace(DATA, modalities=("gyroscope",))}), ARRAYS)
