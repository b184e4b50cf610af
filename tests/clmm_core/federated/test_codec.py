"""Every message and task that crosses the wire comes back equal, and what is not one is refused."""

import math
from dataclasses import fields, is_dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import save

from clmm_core.data.fleet import DataConfig
from clmm_core.data.labels import LabelDraw
from clmm_core.errors import CodeMismatchError
from clmm_core.federated import messages
from clmm_core.federated.channel_sums import ChannelSums
from clmm_core.federated.codec import JOINED, from_json, join_arrays, split_arrays, to_json
from clmm_core.federated.messages import (
    Counts,
    DeviceEvaluation,
    DeviceProfile,
    DeviceTraining,
    HostEvaluation,
    HostMoments,
    HostPlane,
    HostProfile,
    HostQuality,
    HostReceipt,
    HostSums,
    HostUpdate,
    LeftOut,
    ModalityProfile,
    PlanePoint,
)
from clmm_core.models.config import ModalityShape, ModelChoice, sized
from clmm_core.training import tasks
from clmm_core.training.settings import Augmentation, FinetuneConfig, LocalConfig, PretrainConfig
from clmm_core.training.tasks import (
    DeliverTask,
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

LEFT_OUT = (LeftOut(device="anna", reason="no window: “record” longer"),)
MODALITY = ModalityProfile(channels=3, time_steps=128, num_windows=7, unit="m/s²")
PROFILE = DeviceProfile(device="anna", num_windows=9, modalities={"accelerometer": MODALITY}, labelled_windows={"walk": 2})
SUMS = ChannelSums(count=1280.0, total=(0.1 + 0.2, -1e300, 5e-324), squares=(1.0, 2.0, 1 / 3))
COUNTS = Counts(confusion=((3, 1), (0, 2)), calibration=((4.0, 2.5, 3.0),))
EVALUATION = DeviceEvaluation(device="anna", modalities=("accelerometer",), counts=COUNTS, personal_before=COUNTS)
LOCAL = LocalConfig(epochs=3, batch_size=8, learning_rate=1e-3, optimizer="sgd", proximal=0.1, pooled=True)
DATA = DataConfig(name="folder", path="C:\\Müller's data", modalities=("a+b", "c"), window_s=2.56, classes=("run", "walk"), zero_fill=True)
MODEL = {
    "data": DATA,
    "model": sized(
        ModelChoice(attention="diff-v2", fusion="uniform", branches="mean", shared=False),
        (ModalityShape(name="a+b", channels=6, time_steps=100),),
        5,
    ),
    "classes": ("run", "walk"),
    "seed": 2**62,
    "server_round": 4,
    "devices": ("anna", "ben"),
}
FINETUNE = FinetuneConfig(encoder_rate=0.2, local=LOCAL, augmentation=Augmentation(crop=0.3))
LABELS = LabelDraw(per_class=2, unit="window", seed=1)
EXAMPLES = [
    HostProfile(source="0123456789abcdef", modalities=("a", "b"), window_s=0.0, devices=(PROFILE,), left_out=LEFT_OUT),
    HostSums(sums={"accelerometer": SUMS}),
    HostUpdate(
        server_round=3,
        source="code",
        weights={"fusion": 10.0},
        devices=(DeviceTraining(device="anna", num_windows=3, loss=0.1),),
        left_out=LEFT_OUT,
    ),
    HostUpdate(server_round=3, source="code", weights={}, devices=()),
    HostQuality(weighted={"a": 0.7}, num_windows={"a": 12}),
    HostEvaluation(devices=(EVALUATION,), left_out=LEFT_OUT),
    HostMoments(num_windows=5),
    HostPlane(points=(PlanePoint(device="anna", label="", x=-0.5, y=1e-9),)),
    HostReceipt(is_installed=True, why="verified"),
    DeliverTask(data=DATA, golden="{}"),
    ProfileTask(data=DATA),
    SumsTask(data=DATA, devices=(), differences=True),
    PretrainTask(**MODEL, config=PretrainConfig(local=LOCAL, contrast="cross-modal", loss="tcl", num_views=3, aggregation="l-dawa")),
    FinetuneTask(**MODEL, config=FINETUNE, labels=LABELS),
    SelftrainTask(**MODEL, config=FINETUNE, labels=LABELS, labelled=("anna",), confidence=0.8, expected=()),
    QualityTask(**MODEL),
    EvaluateTask(
        **MODEL, labelled=("anna",), labels=LABELS, personalise=("ben",), personal_labels=LABELS, personal_config=FINETUNE, smooth_s=0.0
    ),
    MomentsTask(**MODEL, points_per_device=7),
    PlaneTask(**MODEL, points_per_device=0),
]
each = pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: type(message).__name__)


@each
def test_it_comes_back_equal(message: object):
    assert from_json(type(message), to_json(message)) == message


def test_every_kind_is_tried():
    def parts(value: object) -> set[type]:
        if is_dataclass(value):
            return {type(value)}.union(*(parts(getattr(value, each.name)) for each in fields(value)))
        if isinstance(value, dict):
            return set().union(*map(parts, value.values()))
        return set().union(*map(parts, value)) if isinstance(value, tuple) else set()

    kinds = {kind for module in (messages, tasks) for kind in vars(module).values() if is_dataclass(kind)}
    assert kinds - set().union(*map(parts, EXAMPLES)) == {tasks.ModelTask, tasks.UpdateTask}  # only their kinds are sent


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_diverged_arrives_as_it_is(loss: float):
    sent = DeviceTraining(device="anna", num_windows=3, loss=loss)
    assert repr(from_json(DeviceTraining, to_json(sent))) == repr(sent)


@pytest.mark.parametrize(
    "text",
    [
        '{"device": "anna", "num_windows": "3", "loss": 0.5}',
        '{"device": "anna", "num_windows": 3.5, "loss": 0.5}',
        '{"device": "anna", "num_windows": true, "loss": 0.5}',
        '{"device": "anna", "num_windows": 3, "loss": null}',
        '{"device": "anna", "num_windows": 3}',
        '{"device": "anna", "num_windows": 3, "loss": 0.5, "accuracy": 1}',
        '["anna", 3, 0.5]',
        "no JSON",
        "",
    ],
)
def test_other_types_and_fields_are_refused(text: str):
    with pytest.raises(CodeMismatchError, match="expected a DeviceTraining, found something else"):
        from_json(DeviceTraining, text)


@each
def test_no_kind_is_taken_for_another(message: object):
    for other in {type(example) for example in EXAMPLES} - {type(message)}:
        if {each.name for each in fields(other)} != {each.name for each in fields(message)}:
            with pytest.raises(CodeMismatchError):
                from_json(other, to_json(message))


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8).filter(lambda name: name != "__metadata__")
DTYPES = st.sampled_from([np.float32, np.float64, np.int64, np.uint8, np.bool_])


@given(st.dictionaries(NAMES, hnp.arrays(DTYPES, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)), max_size=6))
def test_arrays_come_out_of_one_as_they_went_in_and_in_their_order(arrays: dict[str, np.ndarray]):
    found = split_arrays(join_arrays(arrays))
    assert list(found) == list(arrays)
    for name, values in arrays.items():
        assert found[name].dtype == values.dtype
        assert found[name].shape == values.shape
        assert found[name].tobytes() == values.tobytes()


def test_arrays_that_are_not_contiguous_keep_their_values():
    values = np.arange(6, dtype=np.float32).reshape(2, 3).T
    assert np.array_equal(split_arrays(join_arrays({"w": values}))["w"], values)


@pytest.mark.parametrize(
    "packed",
    [
        {"w": np.zeros(3, np.float32)},
        {JOINED: np.zeros(3, np.uint8), "w": np.zeros(3, np.float32)},
        {JOINED: np.zeros(0, np.uint8)},
        {JOINED: np.zeros(40, np.uint8)},
        {JOINED: np.full(40, 255, np.uint8)},
        {JOINED: np.frombuffer(save({"w": np.zeros(2, np.float32)}), np.uint8)},
        {JOINED: np.frombuffer(save({"w": np.zeros(2, np.float32)}, {"order": "[1"}), np.uint8)},
        {JOINED: np.frombuffer(save({"w": np.zeros(2, np.float32)}, {"order": '["v"]'}), np.uint8)},
        {JOINED: np.frombuffer(save({"w": np.zeros(2, np.float32)}, {"order": "3"}), np.uint8)},
        {JOINED: np.frombuffer(save({"w": np.zeros(2, np.float32)}, {"order": "[" * 100_000}), np.uint8)},
    ],
    ids=range(10),
)
def test_what_is_no_such_one_array_is_a_value_error(packed: dict[str, np.ndarray]):
    with pytest.raises(ValueError, match=r"expected|Expecting|Value"):
        split_arrays(packed)
