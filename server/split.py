"""Who trains, who is tested, who gives labels: drawn from one seed over the subjects that the hosts have."""

import random
from collections.abc import Mapping, Sequence

from clmm_core.errors import ConfigError, DataError
from clmm_core.federated.messages import DeviceProfile
from clmm_core.report.records import Split
from clmm_core.seeds import derive_seed
from server.run_config import RunConfig, SplitConfig


def draw_split(config: RunConfig, devices: Mapping[str, DeviceProfile], classes: tuple[str, ...]) -> Split:
    """Return the split: test, then validation, then labelled subjects are drawn without replacement; the rest only train.

    Raises:
        ConfigError: a subject that no host has, one named twice, or too few subjects for what is asked.
        DataError: no training device has a label.
    """
    wanted = config.split
    _check_names(wanted, devices)
    remaining = sorted(devices)
    test = wanted.test or _draw(wanted, "test", [d for d in remaining if d not in wanted.validation + wanted.labelled], wanted.num_test)
    remaining = [device for device in remaining if device not in test]
    validation = wanted.validation or _draw(wanted, "validation", [d for d in remaining if d not in wanted.labelled], wanted.num_validation)
    training = tuple(device for device in remaining if device not in validation)
    if not training:
        raise ConfigError(
            f"split: {len(devices)} subject(s), of which {len(test)} test and {len(validation)} validation: none is left to train on; "
            "ask for fewer with split.num-test and split.num-validation"
        )
    return Split(
        seed=wanted.seed,
        training=training,
        validation=tuple(sorted(validation)),
        test=tuple(sorted(test)),
        labelled=_labelled(wanted, training, devices),
        labels_per_class=config.labels.per_class,
        label_unit=config.labels.unit,
        classes=classes,
    )


def _check_names(wanted: SplitConfig, devices: Mapping[str, DeviceProfile]) -> None:
    named = [*wanted.test, *wanted.validation, *wanted.labelled]
    for name in named:
        if name not in devices:
            raise ConfigError(f"split or labels: no host has a subject '{name}'; there are {', '.join(sorted(devices))}")
        if named.count(name) > 1:
            raise ConfigError(f"subject '{name}' is named twice among split.test, split.validation and labels.devices; once is possible")


def _draw(wanted: SplitConfig, purpose: str, candidates: Sequence[str], count: int) -> tuple[str, ...]:
    if count > len(candidates):
        raise ConfigError(f"split: expected at least {count} subject(s) to draw for {purpose}, found {len(candidates)}")
    return tuple(random.Random(derive_seed(wanted.seed, "split", purpose)).sample(list(candidates), count))


def _labelled(wanted: SplitConfig, training: Sequence[str], devices: Mapping[str, DeviceProfile]) -> tuple[str, ...]:
    able = [device for device in training if devices[device].labelled_windows]
    unable = [device for device in wanted.labelled if device not in able]
    if unable:
        raise DataError(f"labels.devices: subject(s) {', '.join(unable)} have no labelled window: label some, or name others")
    if not able:
        raise DataError(f"none of the {len(training)} training devices has a label: stage two needs at least one labelled device")
    if wanted.labelled:
        return tuple(sorted(wanted.labelled))
    return tuple(sorted(_draw(wanted, "labelled", able, min(wanted.num_labelled, len(able)))))
