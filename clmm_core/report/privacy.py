"""What a run's differential privacy covers, in figures and in words; and, as plainly, what it does not."""

from dataclasses import dataclass

from clmm_core.report.records import RunRecord

NOT_COVERED = (
    "It covers what training put into the model. It does not cover what is sent in the clear beside it: profiles (counts of windows and of "
    "labels, which sensors there are), the sums that samples are normalised with and the measured quality of the sensors, both of which "
    "are in the model file, training losses and who took part, evaluation counts, and the points of the embedding picture. "
)
SEED_TELLS = "Nor does it hold against whoever knows the run's seed, which gives the noise away: hosts do, and this page shows it."
SECRET_TELLS = "Nor does it hold against whoever has the server's secret file (privacy.secret-file), which gives the noise away."


@dataclass(frozen=True, kw_only=True)
class Privacy:
    """What the rounds of a run cost."""

    epsilon: float
    """Of all rounds, for one device's whole contribution."""
    delta: float
    budget: float
    """Epsilon that the run was allowed to cost."""
    noise_multiplier: float
    clip: float
    """Of the last round."""


def privacy_of(run: RunRecord) -> Privacy | None:
    """Return what a run cost; None where no round had noise."""
    last = next((record for record in reversed(run.rounds) if record.epsilon is not None), None)
    if last is None or last.epsilon is None or last.clip is None:
        return None
    delta, budget, noise = (float(run.info.run_config[f"privacy.{key}"]) for key in ("delta", "budget", "noise-multiplier"))
    return Privacy(epsilon=last.epsilon, delta=delta, budget=budget, noise_multiplier=noise, clip=last.clip)


def not_covered(run: RunRecord) -> str:
    """Return what epsilon does not say, and against whom it does not hold."""
    return NOT_COVERED + (SECRET_TELLS if run.info.run_config.get("privacy.secret-file") else SEED_TELLS)


def privacy_in_words(privacy: Privacy) -> str:
    """Return one sentence, e.g. `epsilon 3.21 of 8 at delta 1e-05, for one device's whole contribution (noise multiplier 1)`."""
    return (
        f"epsilon {privacy.epsilon:.3g} of {privacy.budget:g} at delta {privacy.delta:g}, for one device's whole contribution "
        f"(noise multiplier {privacy.noise_multiplier:g}, clip {privacy.clip:.3g} in the last round)"
    )
