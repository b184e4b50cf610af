from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from clmm_core.errors import ConfigError
from clmm_core.losses.primary_auxiliary import PrimaryAuxiliaryLoss
from clmm_core.models.clmm import Clmm
from clmm_core.models.config import Attention, Branches, Fusion, ModalityShape, ModelConfig
from clmm_core.training.device_tensors import DeviceTensors

MakeModel = Callable[..., Clmm]
MakeWindows = Callable[..., DeviceTensors]
PARTS = [
    *({"attention": name} for name in get_args(Attention)),
    *({"fusion": name} for name in get_args(Fusion)),
    *({"branches": name} for name in get_args(Branches)),
    {"shared": False},
    {"differences": True},
    {"attention": "softmax", "fusion": "uniform", "branches": "linear", "shared": False},
    {"attention": "softmax", "fusion": "uniform", "branches": "recurrent", "shared": False},
]
HEADS = {"gated": {"head.linear", "head.recurrent"}, "linear": {"head.linear"}, "recurrent": {"head.recurrent"}}
HEADS["mean"] = HEADS["gated"]


def gone(mask: Tensor, rows: list[int]) -> Tensor:
    return mask.index_fill(0, torch.tensor(rows), value=False)


def test_every_head_gives_logits_of_every_class(model: MakeModel, toy_windows: MakeWindows):
    windows = toy_windows(6, 3)
    outputs = model(3, 4).classify(windows.streams, windows.present)
    assert outputs.primary.shape == (6, 4)
    assert list(outputs.auxiliary) == ["head.linear", "head.recurrent", "head.shared", "accelerometer", "gyroscope", "heart"]
    assert {logits.shape for logits in outputs.auxiliary.values()} == {(6, 4)}


def test_the_model_normalises_itself(model: MakeModel, toy_windows: MakeWindows):
    """Windows in other units with other statistics in the buffers give the same logits."""
    windows, plain, scaled = toy_windows(), model().eval(), model().eval()
    for name, factor, offset in (("accelerometer", 9.81, 3.0), ("gyroscope", 0.01, -40.0)):
        scaled.part(name).std.mul_(factor)
        scaled.part(name).mean.add_(torch.tensor([offset, 0.0, 0.0]))
    other = {name: values * scaled.part(name).std[:, None] + scaled.part(name).mean[:, None] for name, values in windows.streams.items()}
    torch.testing.assert_close(scaled(other, windows.present), plain(windows.streams, windows.present), atol=1e-4, rtol=1e-4)


def test_differences_are_taken_in_physical_units_and_normalised_apart(model: MakeModel, toy_windows: MakeWindows):
    windows, network = toy_windows(4), model(differences=True)
    part = network.part("gyroscope")
    part.mean.copy_(torch.arange(6.0))
    part.std.copy_(torch.tensor([2.0, 2.0, 2.0, 0.1, 0.1, 0.1]))
    present = windows.present | {"gyroscope": gone(windows.present["gyroscope"], [1])}
    normal = network.normalise(windows.streams, present)["gyroscope"]
    samples = windows.streams["gyroscope"][0, 2]
    torch.testing.assert_close(normal[0, 2], (samples - 2) / 2)
    torch.testing.assert_close(normal[0, 5, 1:-1], ((samples[2:] - samples[:-2]) / 2 - 5) / 0.1)
    assert not normal[1].any()


def test_normalised_windows_are_0_where_absent(model: MakeModel, toy_windows: MakeWindows):
    windows, network = toy_windows(4), model()
    network.part("gyroscope").mean.fill_(7.0)
    present = windows.present | {"gyroscope": gone(windows.present["gyroscope"], [1])}
    normal = network.normalise(windows.streams, present)
    assert not normal["gyroscope"][1].any()
    torch.testing.assert_close(normal["gyroscope"][0], windows.streams["gyroscope"][0] - 7)


@pytest.mark.parametrize("rubbish", [0.0, 1e30, float("inf"), float("nan")])
def test_what_stands_in_an_absent_modality_reaches_nothing(model: MakeModel, toy_windows: MakeWindows, rubbish: float):
    windows, network = toy_windows(6), model().eval()
    present = windows.present | {"gyroscope": gone(windows.present["gyroscope"], [0, 3])}
    clean = network.classify(network.normalise(windows.streams, present), present)
    dirty = {"accelerometer": windows.streams["accelerometer"], "gyroscope": windows.streams["gyroscope"].clone()}
    dirty["gyroscope"][[0, 3]] = rubbish
    outputs = network.classify(network.normalise(dirty, present), present)
    assert torch.equal(outputs.primary, clean.primary)
    assert all(torch.equal(outputs.auxiliary[name], clean.auxiliary[name]) for name in clean.auxiliary)
    assert outputs.primary.isfinite().all()
    assert torch.equal(network.embed(dirty, present), network.embed(windows.streams, present))


def test_a_missing_modality_leaves_the_tokens_of_the_others(model: MakeModel, toy_windows: MakeWindows):
    windows, network = toy_windows(6), model().eval()
    present = windows.present | {"gyroscope": gone(windows.present["gyroscope"], [0, 1, 2, 3, 4, 5])}
    all_there = network.encode(network.normalise(windows.streams, windows.present))
    one_gone = network.encode(network.normalise(windows.streams, present))
    left_out = network.encode(network.normalise({"accelerometer": windows.streams["accelerometer"]}, windows.present))
    assert torch.equal(one_gone["accelerometer"], all_there["accelerometer"])
    assert torch.equal(left_out["accelerometer"], all_there["accelerometer"])


def test_leaving_a_stream_out_equals_marking_it_absent(model: MakeModel, toy_windows: MakeWindows):
    windows, network = toy_windows(5, 3), model(3).eval()
    absent = windows.present | {"gyroscope": torch.zeros(5, dtype=torch.bool)}
    streams = {name: values for name, values in windows.streams.items() if name != "gyroscope"}
    present = {name: mask for name, mask in windows.present.items() if name != "gyroscope"}
    marked = network.classify(network.normalise(windows.streams, absent), absent)
    without = network.classify(network.normalise(streams, present), present)
    assert torch.equal(without.primary, marked.primary)
    assert without.auxiliary.keys() == marked.auxiliary.keys() - {"gyroscope"}
    assert torch.equal(network.embed(streams, present), network.embed(windows.streams, absent))


def test_an_absent_modality_gets_no_gradient(model: MakeModel, toy_windows: MakeWindows):
    windows, network = toy_windows(6), model()
    present = windows.present | {"gyroscope": torch.zeros(6, dtype=torch.bool)}
    outputs = network.classify(network.normalise(windows.streams, present), present)
    PrimaryAuxiliaryLoss()(outputs.primary, outputs.auxiliary, present, windows.classes).backward()
    for name, parameter in network.named_parameters():
        if name.startswith("modalities.gyroscope"):
            assert parameter.grad is None or not parameter.grad.any(), name
        else:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("parts", PARTS, ids=lambda parts: "-".join(map(str, parts.values())))
def test_all_parts_learn_in_every_step(model: MakeModel, toy_windows: MakeWindows, parts: dict[str, Any]):
    windows, network = toy_windows(6), model(**parts)
    outputs = network.classify(network.normalise(windows.streams, windows.present), windows.present)
    PrimaryAuxiliaryLoss()(outputs.primary, outputs.auxiliary, windows.present, windows.classes).backward()
    still = {name for name, parameter in network.named_parameters() if parameter.grad is None or not parameter.grad.any()}
    # Projections are stage one's; stage two sees them through the shared feature.
    assert still == {name for name, _ in network.named_parameters() if ".projection." in name and not network.config.shared}


@pytest.mark.parametrize("branches", get_args(Branches))
@pytest.mark.parametrize("shared", [True, False])
def test_there_is_a_head_for_every_feature_there_is(model: MakeModel, toy_windows: MakeWindows, branches: str, shared: bool):
    windows, network = toy_windows(6), model(branches=branches, shared=shared)
    expected = {*HEADS[branches], *(["head.shared"] if shared else [])}
    outputs = network.classify(windows.streams, windows.present)
    assert outputs.auxiliary.keys() == {*expected, "accelerometer", "gyroscope"}
    assert {logits.shape for logits in outputs.auxiliary.values()} == {(6, 3)}
    assert {f"head.{name}" for name in network.auxiliary} == expected
    assert outputs.primary.shape == (6, 3)


@pytest.mark.parametrize(
    ("parts", "lost"),
    [
        ({"fusion": "uniform"}, ("fusion.",)),
        ({"fusion": "learned"}, ()),
        ({"branches": "mean"}, ("branches.gate.",)),
        ({"branches": "linear"}, ("branches.gate.", "branches.gru.", "branches.recurrent.", "auxiliary.recurrent.")),
        ({"branches": "recurrent"}, ("branches.gate.", "branches.linear.", "auxiliary.linear.")),
        ({"shared": False}, ("shared_norm.", "auxiliary.shared.")),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_a_part_that_is_off_is_gone_and_nothing_else(model: MakeModel, parts: dict[str, Any], lost: tuple[str, ...]):
    whole, less = model().state_dict(), model(**parts).state_dict()
    assert less.keys() == {name for name in whole if not name.startswith(lost)}
    resized = {name for name in less if less[name].shape != whole[name].shape}
    assert resized == ({"primary.0.weight"} if "shared" in parts else set())


def test_without_the_shared_feature_the_projections_do_not_speak(model: MakeModel, toy_windows: MakeWindows):
    """The primary head sees the specific feature alone: stage one reaches it through the encoders only."""
    for shared in (True, False):
        windows, network = toy_windows(6), model(shared=shared).eval()
        before = network(windows.streams, windows.present)
        with torch.no_grad():
            for name in windows.streams:
                network.part(name).projection[0].weight.neg_()
        assert torch.equal(network(windows.streams, windows.present), before) != shared


def test_only_quality_guided_fusion_looks_at_the_measured_quality(model: MakeModel, toy_windows: MakeWindows):
    windows = toy_windows(6)
    for fusion in ("quality-guided", "learned"):
        network = model(fusion=fusion).eval()
        before = network(windows.streams, windows.present)
        network.fusion.quality.copy_(torch.tensor([0.05, 0.95]))
        assert torch.equal(network(windows.streams, windows.present), before) == (fusion == "learned")


def test_uniform_weights_leave_out_what_a_window_lacks(model: MakeModel, toy_windows: MakeWindows):
    """A window without a gyroscope gives the accelerometer's tokens whole to the branches, one with both half of each."""
    windows, network, seen = toy_windows(4), model(fusion="uniform").eval(), []
    network.branches.register_forward_hook(lambda _, args, __: seen.append(args[1]))
    present = windows.present | {"gyroscope": gone(windows.present["gyroscope"], [1, 3])}
    assert network(windows.streams, present).isfinite().all()
    assert seen[0].tolist() == [[0.5, 0.5], [1.0, 0.0], [0.5, 0.5], [1.0, 0.0]]


def test_a_window_does_not_depend_on_the_rest_of_its_batch(model: MakeModel, toy_windows: MakeWindows):
    windows, network = toy_windows(8, 3), model(3, dropout=0.5).eval()
    present = windows.present | {"gyroscope": gone(windows.present["gyroscope"], [2, 5])}
    together = network(windows.streams, present)
    for i in range(8):
        alone = network({n: v[i : i + 1] for n, v in windows.streams.items()}, {n: v[i : i + 1] for n, v in present.items()})
        torch.testing.assert_close(alone[0], together[i], atol=1e-5, rtol=1e-5)


def test_shared_embedding_is_the_mean_of_the_projections_present(model: MakeModel, toy_windows: MakeWindows):
    windows, network = toy_windows(3, 3), model(3)
    present = windows.present | {"heart": gone(windows.present["heart"], [1])}
    shared = network.embed(windows.streams, present)
    for i in range(3):
        have = [name for name in present if present[name][i]]
        tokens = {name: network.part(name).encoder(windows.streams[name][i : i + 1])[0] for name in have}
        lengths_1 = [normalize(network.part(name).projection(tokens[name].mean(dim=0)), dim=0) for name in have]
        torch.testing.assert_close(shared[i], torch.stack(lengths_1).mean(dim=0), atol=1e-5, rtol=1e-5)


def test_only_the_primary_head_predicts(model: MakeModel, toy_windows: MakeWindows):
    windows, network = toy_windows(4), model().eval()
    before = network(windows.streams, windows.present)
    with torch.no_grad():
        for head in (*network.auxiliary.values(), *(network.part(name).head for name in windows.streams)):
            head.weight.add_(1.0)
    assert torch.equal(network(windows.streams, windows.present), before)
    with torch.no_grad():
        network.primary[0].weight.add_(1.0)
    assert not torch.equal(network(windows.streams, windows.present), before)


def test_a_better_quality_moves_the_logits_towards_that_modality(model: MakeModel, toy_windows: MakeWindows):
    """With all quality on one modality, changing the other one moves the specific part less."""
    windows, network = toy_windows(6), model().eval()
    changed = windows.streams | {"gyroscope": windows.streams["gyroscope"].flip(0)}
    moved = []
    for quality in ([0.02, 0.98], [0.98, 0.02]):
        network.fusion.quality.copy_(torch.tensor(quality))
        one, other = (network.classify(streams, windows.present).auxiliary["head.linear"] for streams in (windows.streams, changed))
        moved.append((one - other).norm().item())
    assert moved[0] > 2 * moved[1]


@pytest.mark.parametrize("name", ["linear", "recurrent", "shared", "fusion", "mean"])
def test_a_modality_may_be_called_like_a_part_of_the_network(config: Callable[..., ModelConfig], name: str):
    """As `linear` is a good name for linear acceleration: no head is lost."""
    network = Clmm(replace(config(), modalities=(ModalityShape(name=name, channels=3, time_steps=40),)))
    outputs = network.classify({name: torch.randn(2, 3, 40)}, {name: torch.ones(2, dtype=torch.bool)})
    assert list(outputs.auxiliary) == ["head.linear", "head.recurrent", "head.shared", name]


def test_a_modality_may_not_be_called_like_what_pytorch_keeps_for_itself(config: Callable[..., ModelConfig]):
    with pytest.raises(ConfigError, match="modality 'type': PyTorch keeps this name"):
        Clmm(replace(config(), modalities=(ModalityShape(name="type", channels=3, time_steps=50),)))
