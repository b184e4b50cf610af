from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from clmm_core.errors import ConfigError
from server.run_config import Value, parse_run_config
from simulation.overrides import read_app_config

Make = Callable[..., dict[str, Value]]
DEFAULTS = read_app_config(Path(__file__).parents[2])
OF_KIND = {kind: sorted(key for key, value in DEFAULTS.items() if type(value) is kind) for kind in (bool, int, float, str)}
CHOICES = (
    "aggregation.rule",
    *("labels.unit", "model.preset", "model.attention", "client.optimizer", "pretrain.decay", "finetune.decay", "pretrain.loss"),
    *("pretrain.server-optimizer", "finetune.server-optimizer", "pretrain.contrast", "pretrain.aggregation"),
    *("model.fusion", "model.branches"),
)


def refused(values: dict[str, Value]) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_run_config(values)
    return str(caught.value)


def test_the_committed_defaults_are_a_run(run_config: Make):
    values = run_config()
    config = parse_run_config(values)
    assert config.data.name == values["data.name"] == "spar"
    assert (config.pretrain_stage.rounds, config.finetune_stage.rounds) == (values["pretrain.rounds"], values["finetune.rounds"])
    assert config.pretrain.augmentation == config.finetune.augmentation == config.personal.augmentation
    assert config.finetune.local.epochs == values["finetune.local-epochs"]
    assert config.personal.local.epochs == values["personalise.local-epochs"]
    assert config.finetune.encoder_rate == config.personal.encoder_rate == values["finetune.encoder-rate"]


def test_each_value_goes_where_its_key_says(run_config: Make):
    changed = {
        **{"pretrain.rounds": 2, "finetune.rounds": 3, "pretrain.lr": 0.5, "finetune.lr": 0.25, "personalise.lr": 0.125},
        **{"pretrain.server-optimizer": "fedadam", "finetune.server-momentum": 0.5, "split.num-test": 7, "labels.num-devices": 9},
        **{"labels.per-class": 4, "personalise.per-class": 6, "labels.unit": "window", "augment.crop": 0.3, "client.proximal": 0.1},
        **{"communication.update-bits": 4},
    }
    config = parse_run_config(run_config(changed))
    assert (config.pretrain_stage.rounds, config.finetune_stage.rounds) == (2, 3)
    assert [each.local.learning_rate for each in (config.pretrain, config.finetune, config.personal)] == [0.5, 0.25, 0.125]
    assert (config.pretrain_stage.server.name, config.finetune_stage.server.name) == ("fedadam", "fedavg")
    assert (config.pretrain_stage.server.momentum, config.finetune_stage.server.momentum) == (DEFAULTS["pretrain.server-momentum"], 0.5)
    assert (config.split.num_test, config.split.num_labelled) == (7, 9)
    assert (config.labels.per_class, config.personal_labels.per_class) == (4, 6)
    assert config.labels.unit == config.personal_labels.unit == "window"
    assert config.finetune.augmentation.crop == 0.3
    assert config.update_bits == 4
    assert config.pretrain.local.proximal == config.finetune.local.proximal == 0.1


def test_every_part_of_the_method_and_every_baseline_has_its_key(run_config: Make):
    """Each default is the method; each key changes its own field and no other."""
    default = parse_run_config(run_config())
    model = {"attention": "softmax", "fusion": "learned", "branches": "mean", "shared": False, "differences": False}
    model |= {"embed": 48, "layers": 3}
    for name, value in model.items():
        assert parse_run_config(run_config({f"model.{name}": value})) == replace(default, model=replace(default.model, **{name: value}))
    for name, value in (("contrast", "cross-modal"), ("aggregation", "l-dawa")):
        changed = parse_run_config(run_config({f"pretrain.{name}": value}))
        assert changed == replace(default, pretrain=replace(default.pretrain, **{name: value}))
    for key, changes in (
        ("data.classes", {"classes": ("run", "hand wash")}),
        ("data.missing-share", {"missing_share": 0.25}),
        ("data.zero-fill", {"zero_fill": True}),
    ):
        (value,) = changes.values()
        text = ", ".join(value) if isinstance(value, tuple) else value
        assert parse_run_config(run_config({key: text})) == replace(default, data=replace(default.data, **changes))
    pooled = parse_run_config(run_config({"client.pooled": True}))
    stages = {name: getattr(default, name) for name in ("pretrain", "finetune", "personal")}
    assert pooled == replace(default, **{name: replace(stage, local=replace(stage.local, pooled=True)) for name, stage in stages.items()})


def test_self_training_takes_its_rounds_and_otherwise_what_stage_two_takes(run_config: Make):
    own = {"selftrain.rounds": 4, "selftrain.confidence": 0.9, "selftrain.align": True}
    config = parse_run_config(run_config({**own, "finetune.participation": 0.5}))
    assert config.selftrain_stage == replace(config.finetune_stage, rounds=4)
    assert (config.selftrain_stage.participation, config.confidence, config.align) == (0.5, 0.9, True)
    assert parse_run_config(run_config()).selftrain_stage.rounds == 0, "off unless asked for"


def test_the_seed_goes_everywhere(run_config: Make):
    config = parse_run_config(run_config({"seed": 5, "data.name": "synthetic"}))
    assert {config.seed, config.data.seed, config.split.seed, config.labels.seed, config.personal_labels.seed} == {5}


def test_recordings_that_no_seed_touches_are_the_same_for_every_seed(run_config: Make):
    """So that runs of several seeds in one process cut their windows once."""
    assert parse_run_config(run_config({"seed": 5})).data == parse_run_config(run_config({"seed": 6})).data
    assert parse_run_config(run_config({"seed": 5, "data.missing-share": 0.5})).data.seed == 5


@pytest.mark.parametrize(
    ("text", "names"), [("", ()), ("anna", ("anna",)), ("anna,ben", ("anna", "ben")), (" anna , ben b ,, ", ("anna", "ben b"))]
)
def test_lists_are_written_with_commas(run_config: Make, text: str, names: tuple[str, ...]):
    config = parse_run_config(run_config({"split.test": text, "data.modalities": text}))
    assert config.split.test == config.data.modalities == names


@pytest.mark.parametrize("key", sorted(DEFAULTS))
def test_a_missing_key_is_named(run_config: Make, key: str):
    values = run_config()
    del values[key]
    message = refused(values)
    assert f"{key}: expected a value in [tool.flwr.app.config] of pyproject.toml, found none" in message


def test_unknown_keys_are_named_all_of_them(run_config: Make):
    message = refused({**run_config(), "train.rounds": 1, "loss.beta": 2.0})
    assert message.startswith("unknown run-config key(s) loss.beta, train.rounds; known are ")
    assert "pretrain.rounds" in message


@pytest.mark.parametrize("key", OF_KIND[int])
@pytest.mark.parametrize("value", [True, 1.0, "1"])
def test_a_whole_number_is_nothing_else(run_config: Make, key: str, value: Value):
    assert f"{key}: expected a whole number, found {value!r}" in refused(run_config({key: value}))


@pytest.mark.parametrize("key", OF_KIND[float])
@pytest.mark.parametrize("value", [True, "1", float("nan"), float("inf"), float("-inf")])
def test_a_number_is_finite_and_nothing_else(run_config: Make, key: str, value: Value):
    message = refused(run_config({key: value}))
    assert message.startswith(f"{key}: expected a "), message
    assert f"found {value!r}" in message


NEITHER_0_NOR_1 = ("aggregation.byzantine-share", "privacy.delta")


@pytest.mark.parametrize("key", [key for key in OF_KIND[float] if key not in NEITHER_0_NOR_1])
def test_a_whole_number_can_stand_for_any_number(run_config: Make, key: str):
    below_one = (
        "augment.crop",
        "augment.channel-dropout",
        "augment.modality-dropout",
        "model.dropout",
        "data.overlap",
        "data.missing-share",
        "privacy.clip-quantile",
    )
    whole = 0 if key in below_one else 1
    values = run_config({"privacy.budget": 8.0, key: 0 if key.endswith("momentum") else whole})
    assert parse_run_config(values) == parse_run_config({**values, key: float(values[key])})


@pytest.mark.parametrize("key", OF_KIND[bool])
@pytest.mark.parametrize("value", [0, 1, 0.0, "true", "False", ""])
def test_true_or_false_is_nothing_else(run_config: Make, key: str, value: Value):
    assert refused(run_config({key: value})) == f"{key}: expected true or false, found {value!r}"


@pytest.mark.parametrize("key", [key for key in OF_KIND[str] if key not in (*CHOICES, "data.name")])
def test_text_is_nothing_else(run_config: Make, key: str):
    assert f"{key}: expected text in quotes, found 3" in refused(run_config({key: 3}))


@pytest.mark.parametrize("key", CHOICES)
@pytest.mark.parametrize("value", ["x", "", True, 3])
def test_a_choice_lists_what_is_possible(run_config: Make, key: str, value: Value):
    message = refused(run_config({key: value}))
    assert f"{key}: expected one of '{DEFAULTS[key]}'" in message or f"'{DEFAULTS[key]}'" in message.split("found")[0]
    assert message.endswith(f"found {value!r}")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("seed", -1), ("data.name", "sparr"), ("data.window-s", -1.0), ("data.overlap", 1.0), ("data.num-devices", 0)),
        *(("split.num-test", -1), ("split.num-validation", -1), ("labels.num-devices", -1), ("labels.num-devices", 0)),
        *(("labels.per-class", -1), ("personalise.per-class", -1)),
        *(("data.classes", "walk"), ("data.missing-share", 1.0), ("data.missing-share", -0.5)),
        *(("model.embed", -16), ("model.embed", 40), ("model.layers", -1), ("selftrain.rounds", -1), ("selftrain.confidence", 1.5)),
        *(("model.dropout", -0.1), ("model.dropout", 1.0), ("client.weight-decay", -0.1), ("client.proximal", -0.1)),
        *(("augment.rotation-deg", -1.0), ("augment.scale", -0.1), ("augment.jitter", -0.1), ("augment.time-warp", -0.1)),
        *(("augment.crop", 1.0), ("augment.channel-dropout", 1.0), ("augment.modality-dropout", -0.1)),
        *(("pretrain.rounds", -1), ("finetune.rounds", -1)),
        *(("pretrain.participation", -0.1), ("pretrain.participation", 1.5), ("finetune.participation", 100.0)),
        *(("pretrain.local-epochs", 0), ("finetune.local-epochs", 0), ("personalise.local-epochs", 0)),
        *(("pretrain.batch-size", 1), ("finetune.batch-size", 0), ("personalise.batch-size", -2)),
        *(("pretrain.lr", -0.001), ("finetune.lr", -1.0), ("personalise.lr", -1.0)),
        *(("pretrain.temperature", 0.0), ("pretrain.beta", -1.0), ("pretrain.k1", -1.0), ("pretrain.gamma", -1.0)),
        *(("pretrain.views", 1), ("pretrain.copies", 0), ("pretrain.copies", 10)),
        *(("pretrain.server-lr", 0.0), ("finetune.server-lr", -1.0), ("pretrain.server-momentum", 1.0), ("finetune.server-momentum", -0.1)),
        *(("finetune.encoder-rate", -0.1), ("finetune.auxiliary", -0.1)),
        *(("report.points-per-device", -1), ("round-timeout-s", 0.0), ("hosts-timeout-s", 0.5)),
        *(("min-reply-share", -0.1), ("min-reply-share", 50.0), ("over-selection", 0.9), ("quorum", 0), ("round-retries", -1)),
        *(("aggregation.byzantine-share", 0.0), ("aggregation.byzantine-share", 0.5)),
        *(("communication.update-bits", 16), ("communication.update-bits", 0)),
    ],
)
def test_a_value_out_of_range_names_its_key_and_what_was_found(run_config: Make, key: str, value: Value):
    message = refused(run_config({key: value}))
    assert f"{key}: expected" in message
    assert f"found {value!r}" in message or f"found '{value}'" in message or f"found {value} alone" in message


@pytest.mark.parametrize("other", [{"communication.update-bits": 8}, {"client.pooled": True}])
def test_what_takes_the_mean_of_a_host_needs_it(run_config: Make, other: dict[str, Value]):
    assert parse_run_config(run_config(other)).host_aggregation
    assert not parse_run_config(run_config({"communication.host-aggregation": False})).host_aggregation
    (key,) = other
    expected = f"communication.host-aggregation: expected true, for {key} is about the mean of a host, found false"
    assert expected in refused(run_config({**other, "communication.host-aggregation": False}))


def test_a_rule_that_compares_devices_needs_their_updates(run_config: Make):
    median: dict[str, Value] = {"aggregation.rule": "median"}
    assert parse_run_config(run_config({**median, "communication.host-aggregation": False})).aggregation.rule == "median"
    expected = "communication.host-aggregation: expected false, for aggregation.rule 'median' compares devices' updates, found true"
    assert expected in refused(run_config(median))


@pytest.mark.parametrize("name", ["folder", "utd-mhad"])
def test_recordings_somewhere_need_a_path(run_config: Make, name: str):
    assert "data.path: expected where the" in refused(run_config({"data.name": name}))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "communication.update-bits",
            8,
            "communication.update-bits: expected 32 with privacy.noise-multiplier above 0, for packing .*found 8",
        ),
        ("client.pooled", True, "client.pooled: expected False with privacy.noise-multiplier above 0, .*found True: change one"),
        ("pretrain.aggregation", "l-dawa", "pretrain.aggregation: expected 'mean' with privacy.noise-multiplier above 0, .*found 'l-dawa'"),
        ("gate.clip", 2.0, "gate.clip: expected 0.0 with privacy.noise-multiplier above 0, for privacy.clip shortens updates already"),
        ("finetune.participation", 0.0, "finetune.participation: expected a share above 0 with privacy.noise-multiplier above 0"),
    ],
)
def test_what_does_not_go_with_privacy_is_refused_and_goes_without(run_config, key: str, value, message: str):
    private = {"privacy.noise-multiplier": 1.0, "privacy.budget": 8.0}
    assert parse_run_config(run_config(private)).privacy.is_on
    with pytest.raises(ConfigError, match=message):
        parse_run_config(run_config({**private, key: value}))
    assert not parse_run_config(run_config({key: value})).privacy.is_on


def test_privacy_needs_a_budget(run_config):
    with pytest.raises(ConfigError, match=r"privacy.budget: expected the epsilon that the run may cost"):
        parse_run_config(run_config({"privacy.noise-multiplier": 1.0}))
