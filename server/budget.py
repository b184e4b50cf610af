"""What the rounds of a run cost in privacy, known before it trains: it depends on settings alone."""

from clmm_core.errors import ConfigError
from clmm_core.report.lines import plural
from clmm_core.report.records import Split
from server.apart import Apart
from server.run_config import RunConfig, StageConfig


class Budget:
    """The epsilon of each planned round; the accountant's process starts now, so that it is there when it is asked."""

    def __init__(self, config: RunConfig) -> None:
        self._config = config
        self._accountant = Apart("torch", "server.accountant:epsilons") if config.privacy.is_on else None

    def epsilons(self) -> tuple[float, ...]:
        """Return what has been spent after each round of all stages; nothing without privacy. Called once.

        Raises:
            ConfigError: all rounds together cost more than `privacy.budget`, or the accountant is not installed.
        """
        if self._accountant is None:
            return ()
        privacy, stages = self._config.privacy, stages_of(self._config)
        rates = tuple(stage.participation for stage in stages.values() for _ in range(stage.rounds))
        found: tuple[float, ...] = self._accountant(rates, privacy.noise_multiplier, privacy.delta) if rates else ()
        if found and found[-1] > privacy.budget:
            planned = ", ".join(f"{name} {stage.rounds} at participation {stage.participation:g}" for name, stage in stages.items())
            num_fitting = sum(epsilon <= privacy.budget for epsilon in found)
            raise ConfigError(
                f"privacy.budget: expected the {plural(len(rates), 'planned round')} ({planned}) to cost an epsilon of at most "
                f"{privacy.budget:g} at delta {privacy.delta:g}, found {found[-1]:.4g}; the first {num_fitting} would fit: plan fewer "
                f"rounds, a lower participation or a privacy.noise-multiplier above {privacy.noise_multiplier:g}, or raise the budget"
            )
        return found


def stages_of(config: RunConfig) -> dict[str, StageConfig]:
    """Return the stages that have rounds, in order."""
    stages = {"pretrain": config.pretrain_stage, "finetune": config.finetune_stage, "selftrain": config.selftrain_stage}
    return {name: stage for name, stage in stages.items() if stage.rounds}


def require_cohorts(config: RunConfig, split: Split) -> None:
    """Refuse stages of too few devices for the clip to adapt.

    Raises:
        ConfigError: names the stage.
    """
    if not config.privacy.is_on:
        return
    for name, stage in stages_of(config).items():
        devices = split.labelled if name == "finetune" else split.training
        try:
            config.privacy.noise_on_updates(stage.participation * len(devices))
        except ConfigError as error:
            raise ConfigError(f"{name}: {error}") from error
