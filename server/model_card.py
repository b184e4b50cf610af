"""The card beside the model: what somebody needs to know to use it."""

from dataclasses import asdict

from clmm_core.report.lines import labels_in_words
from clmm_core.report.records import ModelCard
from server.apart import Apart
from server.run import Run


def model_card(run: Run) -> ModelCard:
    """Return the card of the run's model."""
    window_s = run.window_s
    modalities = {
        shape.name: {
            "channels": shape.channels,
            "time_steps": shape.time_steps,
            "rate_hz": shape.time_steps / window_s if window_s else 0.0,
            "unit": run.units[shape.name],
        }
        for shape in run.model.modalities
    }
    sizes = {name: value for name, value in asdict(run.model).items() if isinstance(value, int | float | str)}
    labels = labels_in_words(run.split)
    return ModelCard(
        modalities=modalities,
        window_s=window_s,
        upright=run.config.data.upright,
        same_side=run.config.data.same_side,
        classes=run.split.classes,
        mean={name: tuple(run.arrays[f"modalities.{name}.mean"].tolist()) for name in modalities},
        std={name: tuple(run.arrays[f"modalities.{name}.std"].tolist()) for name in modalities},
        architecture={"preset": run.config.model.preset, **sizes, "conv_channels": "-".join(map(str, run.model.conv_channels))},
        num_parameters=sum(values.size for values in run.arrays.values()),
        flops_a_window=Apart("torch", "clmm_core.models.cost:flops_a_window")(run.model),
        trained_on=(
            f"{run.config.data.name}: {len(run.split.training)} training devices, of which {len(run.split.labelled)} gave {labels}; "
            f"{run.server_round} rounds"
        ),
    )
