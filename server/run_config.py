"""The run config: Flower's flat kebab-case keys, checked, as frozen dataclasses. Nothing else reads those keys."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from clmm_core.data.fleet import DataConfig
from clmm_core.data.labels import LabelDraw, LabelUnit
from clmm_core.errors import ConfigError
from clmm_core.federated.quantise import UpdateBits
from clmm_core.federated.robust import AggregationConfig, RuleName
from clmm_core.federated.server_optimizer import ServerOptimizerConfig, ServerOptimizerName
from clmm_core.models.config import Attention, Branches, Fusion, ModelChoice, Preset
from clmm_core.training.settings import (
    Aggregation,
    Augmentation,
    Contrast,
    FinetuneConfig,
    LocalConfig,
    LossName,
    OptimizerName,
    PretrainConfig,
)
from server.availability import Availability
from server.gate import GateConfig
from server.privacy import PrivacyConfig

Value = bool | int | float | str


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """Who trains, who is kept for choices, who is only tested."""

    seed: int
    test: tuple[str, ...]
    """Subjects; empty draws `num_test` from the seed."""
    validation: tuple[str, ...]
    num_test: int
    num_validation: int
    labelled: tuple[str, ...]
    """Training devices whose labels are used; empty draws `num_labelled` from the seed."""
    num_labelled: int

    def __post_init__(self) -> None:
        if not self.labelled and self.num_labelled < 1:
            raise ConfigError("labels.num-devices: expected at least 1 labelled device, found 0: stage two has nothing to learn from")


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """Rounds of one stage and how the server runs them."""

    rounds: int
    participation: float
    """Share of the stage's devices in each round."""
    decay: Literal["none", "cosine"]
    """How the device's learning rate falls over the stage's rounds."""
    server: ServerOptimizerConfig


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything a run depends on."""

    seed: int
    results_dir: str
    run_name: str
    resume: bool
    """Whether to go on with the killed run of that name, from its newest checkpoint."""
    data: DataConfig
    split: SplitConfig
    labels: LabelDraw
    model: ModelChoice
    pretrain_stage: StageConfig
    pretrain: PretrainConfig
    finetune_stage: StageConfig
    finetune: FinetuneConfig
    selftrain_stage: StageConfig
    """Stage two's, with rounds of its own; a device trains as in stage two."""
    confidence: float
    """Of a pseudo-label, at least."""
    align: bool
    """Whether self-training expects every activity that has a label equally often on a device."""
    update_bits: UpdateBits
    """Of a value of an update on its way to the server; below 32 updates are packed, with error feedback."""
    host_aggregation: bool
    """Whether hosts fold their devices' updates into one mean; else the server gets each of them."""
    personal_labels: LabelDraw
    personal: FinetuneConfig
    smooth_s: float
    """How far in time predictions are averaged when subjects are evaluated, in seconds to either side."""
    points_per_device: int
    """Windows of each device shown, as points in a plane, in the report's picture; 0 leaves it out."""
    validate_every: int
    """Rounds after stage one from one look at the validation subjects to the next, the last always; 0 leaves it to the final evaluation."""
    gate: GateConfig
    privacy: PrivacyConfig
    availability: Availability
    """Of a simulated fleet."""
    round_timeout_s: float
    """How long a round waits for its hosts."""
    min_hosts: int
    """Hosts to wait for before the run begins."""
    hosts_timeout_s: float
    """How long to wait for them."""
    min_reply_share: float
    """Share of the hosts asked that must answer, or the step is taken again."""
    over_selection: float
    """Devices asked in a round for each that it waits for, where some may fail: at least 1."""
    quorum: int
    """Devices whose updates must count in a round, or it is taken again."""
    round_retries: int
    """How often a step is taken again before the run stops."""
    aggregation: AggregationConfig


def parse_run_config(values: Mapping[str, Value]) -> RunConfig:
    """Return the checked configuration.

    Raises:
        ConfigError: an unknown or missing key, a wrong type, a value out of range; names the key, what was expected and found.
    """
    keys = _Keys(values)
    seed = keys.integer("seed", 0)
    augmentation = Augmentation(
        rotation_deg=keys.number("augment.rotation-deg"),
        scale=keys.number("augment.scale"),
        jitter=keys.number("augment.jitter"),
        crop=keys.number("augment.crop"),
        time_warp=keys.number("augment.time-warp"),
        channel_dropout=keys.number("augment.channel-dropout"),
        modality_dropout=keys.number("augment.modality-dropout"),
    )
    unit: LabelUnit = keys.choice("labels.unit", LabelUnit)
    finetune = FinetuneConfig(
        local=_local(keys, "finetune"),
        encoder_rate=keys.number("finetune.encoder-rate"),
        auxiliary=keys.number("finetune.auxiliary"),
        augmentation=augmentation,
    )
    config = RunConfig(
        seed=seed,
        results_dir=keys.text("results-dir"),
        run_name=keys.text("run-name"),
        resume=keys.boolean("resume"),
        data=_data(keys, seed),
        split=_split(keys, seed),
        labels=LabelDraw(per_class=keys.integer("labels.per-class", 0), unit=unit, seed=seed),
        model=ModelChoice(
            preset=keys.choice("model.preset", Preset),
            embed=keys.integer("model.embed"),
            layers=keys.integer("model.layers"),
            attention=keys.choice("model.attention", Attention),
            fusion=keys.choice("model.fusion", Fusion),
            branches=keys.choice("model.branches", Branches),
            shared=keys.boolean("model.shared"),
            differences=keys.boolean("model.differences"),
            dropout=keys.share("model.dropout", below_one=True),
        ),
        pretrain_stage=_stage(keys, "pretrain"),
        pretrain=_pretrain(keys, augmentation),
        finetune_stage=_stage(keys, "finetune"),
        finetune=finetune,
        selftrain_stage=replace(_stage(keys, "finetune"), rounds=keys.integer("selftrain.rounds", 0)),
        confidence=keys.share("selftrain.confidence"),
        align=keys.boolean("selftrain.align"),
        update_bits=_update_bits(keys),
        host_aggregation=_host_aggregation(keys),
        personal_labels=LabelDraw(per_class=keys.integer("personalise.per-class", 0), unit=unit, seed=seed),
        personal=replace(finetune, local=_local(keys, "personalise")),
        smooth_s=keys.number("evaluate.smooth-s", 0),
        points_per_device=keys.integer("report.points-per-device", 0),
        validate_every=keys.integer("report.validate-every", 0),
        gate=GateConfig(
            norm_factor=keys.number("gate.norm-factor"),
            clip=keys.number("gate.clip"),
            strikes=keys.integer("gate.strikes", 1),
            quarantine_rounds=keys.integer("gate.quarantine-rounds", 0),
        ),
        privacy=_privacy(keys),
        availability=_availability(keys, seed),
        round_timeout_s=keys.number("round-timeout-s", 1),
        min_hosts=keys.integer("min-hosts", 1),
        hosts_timeout_s=keys.number("hosts-timeout-s", 1),
        min_reply_share=keys.share("min-reply-share"),
        over_selection=keys.number("over-selection", 1),
        quorum=keys.integer("quorum", 1),
        round_retries=keys.integer("round-retries", 0),
        aggregation=_aggregation(keys),
    )
    keys.refuse_the_rest()
    return config


def _data(keys: "_Keys", seed: int) -> DataConfig:
    return DataConfig(
        name=keys.text("data.name"),
        path=keys.text("data.path"),
        modalities=keys.names("data.modalities"),
        window_s=keys.number("data.window-s"),
        overlap=keys.number("data.overlap"),
        num_devices=keys.integer("data.num-devices"),
        classes=keys.names("data.classes"),
        upright=keys.boolean("data.upright"),
        same_side=keys.boolean("data.same-side"),
        missing_share=keys.number("data.missing-share"),
        zero_fill=keys.boolean("data.zero-fill"),
        # Only these draw from it; elsewhere one seed's windows are another's, and are kept between the runs of a process.
        seed=seed if keys.text("data.name") == "synthetic" or keys.number("data.missing-share") else 0,
    )


def _availability(keys: "_Keys", seed: int) -> Availability:
    return Availability(
        seed=seed,
        drop_out=keys.number("fleet.drop-out"),
        speed_spread=keys.number("fleet.speed-spread"),
        windows_per_s=keys.number("fleet.windows-per-s"),
        deadline_s=keys.number("fleet.deadline-s"),
    )


def _split(keys: "_Keys", seed: int) -> SplitConfig:
    return SplitConfig(
        seed=seed,
        test=keys.names("split.test"),
        validation=keys.names("split.validation"),
        num_test=keys.integer("split.num-test", 0),
        num_validation=keys.integer("split.num-validation", 0),
        labelled=keys.names("labels.devices"),
        num_labelled=keys.integer("labels.num-devices", 0),
    )


def _stage(keys: "_Keys", stage: str) -> StageConfig:
    return StageConfig(
        rounds=keys.integer(f"{stage}.rounds", 0),
        participation=keys.share(f"{stage}.participation"),
        decay=keys.choice(f"{stage}.decay", Literal["none", "cosine"]),
        server=ServerOptimizerConfig(
            name=keys.choice(f"{stage}.server-optimizer", ServerOptimizerName),
            learning_rate=keys.positive(f"{stage}.server-lr"),
            momentum=keys.share(f"{stage}.server-momentum", below_one=True),
        ),
    )


def _aggregation(keys: "_Keys") -> AggregationConfig:
    config = AggregationConfig(
        rule=keys.choice("aggregation.rule", RuleName),
        mixing=keys.boolean("aggregation.mixing"),
        byzantine_share=keys.number("aggregation.byzantine-share"),
    )
    if config.rule != "mean" and keys.boolean("communication.host-aggregation"):
        raise ConfigError(
            f"communication.host-aggregation: expected false, for aggregation.rule '{config.rule}' compares devices' updates, found true: "
            "change one of them"
        )
    return config


def _privacy(keys: "_Keys") -> PrivacyConfig:
    config = PrivacyConfig(
        noise_multiplier=keys.number("privacy.noise-multiplier"),
        clip=keys.number("privacy.clip"),
        clip_quantile=keys.number("privacy.clip-quantile"),
        clip_rate=keys.number("privacy.clip-rate"),
        delta=keys.number("privacy.delta"),
        budget=keys.number("privacy.budget"),
        secret_file=keys.text("privacy.secret-file"),
    )
    if not config.is_on:
        return config
    refused: tuple[tuple[str, Value, Value, str], ...] = (
        ("communication.update-bits", 32, keys.integer("communication.update-bits"), "packing lengthens updates after they are clipped"),
        ("client.pooled", False, keys.boolean("client.pooled"), "devices that train as one have no update each to clip"),
        ("pretrain.aggregation", "mean", keys.text("pretrain.aggregation"), "the noise is that of a plain sum"),
        ("aggregation.rule", "mean", keys.text("aggregation.rule"), "the noise is that of a plain sum"),
        ("gate.clip", 0.0, keys.number("gate.clip"), "privacy.clip shortens updates already"),
    )
    for key, expected, found, why in refused:
        if found != expected:
            raise ConfigError(f"{key}: expected {expected!r} with privacy.noise-multiplier above 0, for {why}; found {found!r}: change one")
    for key in ("pretrain.participation", "finetune.participation"):
        if not keys.share(key):
            raise _wrong(key, "a share above 0 with privacy.noise-multiplier above 0", 0.0)
    return config


def _host_aggregation(keys: "_Keys") -> bool:
    key, is_packed = "communication.host-aggregation", keys.integer("communication.update-bits") < 32
    is_folded = keys.boolean(key)
    for other, takes_a_mean in (("communication.update-bits", is_packed), ("client.pooled", keys.boolean("client.pooled"))):
        if takes_a_mean and not is_folded:
            raise ConfigError(f"{key}: expected true, for {other} is about the mean of a host, found false: change one of them")
    return is_folded


def _update_bits(keys: "_Keys") -> UpdateBits:
    key, allowed = "communication.update-bits", get_args(UpdateBits)
    bits = keys.integer(key)
    if bits not in allowed:
        raise _wrong(key, "one of " + ", ".join(map(str, allowed)), bits)
    return bits


def _pretrain(keys: "_Keys", augmentation: Augmentation) -> PretrainConfig:
    return PretrainConfig(
        local=_local(keys, "pretrain"),
        contrast=keys.choice("pretrain.contrast", Contrast),
        loss=keys.choice("pretrain.loss", LossName),
        temperature=keys.number("pretrain.temperature"),
        beta=keys.number("pretrain.beta", 0),
        k1=keys.number("pretrain.k1", 0),
        gamma=keys.number("pretrain.gamma", 0),
        num_views=keys.integer("pretrain.views"),
        num_copies=keys.integer("pretrain.copies"),
        augmentation=augmentation,
        aggregation=keys.choice("pretrain.aggregation", Aggregation),
    )


def _local(keys: "_Keys", stage: str) -> LocalConfig:
    return LocalConfig(
        epochs=keys.integer(f"{stage}.local-epochs", 1),
        batch_size=keys.integer(f"{stage}.batch-size", 2),
        learning_rate=keys.number(f"{stage}.lr", 0),
        optimizer=keys.choice("client.optimizer", OptimizerName),
        weight_decay=keys.number("client.weight-decay", 0),
        proximal=keys.number("client.proximal", 0),
        pooled=keys.boolean("client.pooled"),
    )


class _Keys:
    """Takes values out by key and type, and remembers which were asked for."""

    def __init__(self, values: Mapping[str, Value]) -> None:
        self._values = values
        self._asked: set[str] = set()

    def text(self, key: str) -> str:
        value = self._take(key)
        if not isinstance(value, str):
            raise _wrong(key, "text in quotes", value)
        return value

    def names(self, key: str) -> tuple[str, ...]:
        """Return names from a list written with commas."""
        return tuple(name.strip() for name in self.text(key).split(",") if name.strip())

    def boolean(self, key: str) -> bool:
        value = self._take(key)
        if not isinstance(value, bool):
            raise _wrong(key, "true or false", value)
        return value

    def integer(self, key: str, smallest: int | None = None) -> int:
        value = self._take(key)
        if isinstance(value, bool) or not isinstance(value, int):
            raise _wrong(key, "a whole number", value)
        if smallest is not None and value < smallest:
            raise _wrong(key, f"a whole number of at least {smallest}", value)
        return value

    def number(self, key: str, smallest: float = -math.inf) -> float:
        value = self._take(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise _wrong(key, "a finite number", value)
        if value < smallest:
            raise _wrong(key, f"a number of at least {smallest}", value)
        return float(value)

    def positive(self, key: str) -> float:
        value = self.number(key)
        if value <= 0:
            raise _wrong(key, "a number above 0", value)
        return value

    def share(self, key: str, *, below_one: bool = False) -> float:
        value = self.number(key)
        if not 0 <= value <= 1 or (below_one and value == 1):
            raise _wrong(key, f"a share in [0, 1{')' if below_one else ']'}", value)
        return value

    def choice(self, key: str, kind: Any) -> Any:
        """Return one of the strings of a Literal type."""
        value = self._take(key)
        allowed = get_args(kind)
        if value not in allowed:
            raise _wrong(key, "one of " + ", ".join(f"'{name}'" for name in allowed), value)
        return value

    def refuse_the_rest(self) -> None:
        unknown = sorted(set(self._values) - self._asked)
        if unknown:
            known = ", ".join(sorted(self._asked))
            raise ConfigError(f"unknown run-config key(s) {', '.join(unknown)}; known are {known}")

    def _take(self, key: str) -> Value:
        self._asked.add(key)
        if key not in self._values:
            raise ConfigError(f"{key}: expected a value in [tool.flwr.app.config] of pyproject.toml, found none")
        return self._values[key]


def _wrong(key: str, expected: str, found: Value) -> ConfigError:
    return ConfigError(f"{key}: expected {expected}, found {found!r}")
