"""A whole run, stage by stage: profile, normalise, pretrain, quality, fine-tune, evaluate."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from clmm_core.errors import ConfigError, DataError
from clmm_core.federated.arrays import Arrays
from clmm_core.federated.channel_sums import add_sums
from clmm_core.federated.messages import DeviceProfile, HostQuality, HostSums
from clmm_core.federated.quality_weights import quality_weights
from clmm_core.models.config import ModalityShape, ModelConfig, sized
from clmm_core.report.records import Embedding, RunInfo, RunRecord, Split
from clmm_core.report.run_folder import RunFolder
from clmm_core.training.array_names import QUALITY, is_stage_one, is_stage_two
from clmm_core.training.tasks import FinetuneTask, PretrainTask, QualityTask, SelftrainTask, SumsTask, learns
from server.apart import Apart
from server.availability import absences, drawn_windows
from server.budget import Budget, require_cohorts
from server.directory import Directory
from server.embedding import embedded_windows
from server.evaluation import evaluate_subjects, validation_figures
from server.hosts import Answer, Hosts
from server.model_card import model_card
from server.rounds import TrainingStage, train_stage
from server.run import Report, Run
from server.run_config import RunConfig
from server.split import draw_split
from server.stage_one import StageOne

CHANCE_HOPKINS = 0.5
"""What a modality too rare to be measured counts as."""


def run_federation(run: Run, stage_one: StageOne | None = None) -> tuple[RunRecord, Arrays]:
    """Run every stage that the run has not had yet; return the record and the last round's model.

    Args:
        run: from `begin`, or from `resume.resumed`.
        stage_one: what a run with the same stage one left, to go on from instead of training it again.

    Raises:
        ClmmError: see the class for what to do.
    """
    if stage_one is None:
        learn_encoders(run)
    else:
        stage_one.give_to(run)
    guide_fusion(run)
    train_stage(run, finetuning(run))
    train_stage(run, selftraining(run))
    run.note(absences(run.rounds))
    subjects = evaluate_subjects(run)
    record = RunRecord(
        info=run.info,
        split=run.split,
        rounds=tuple(run.rounds),
        subjects=subjects,
        embedding=run.embedding,
        quality=run.quality,
        card=model_card(run),
        notes=tuple(run.notes),
    )
    return record, run.arrays


def run_stage_one(hosts: Hosts, config: RunConfig, info: RunInfo, folder: RunFolder, report: Report) -> StageOne:
    """Run stage one alone and return what it leaves."""
    run = begin(hosts, config, info, folder, report)
    learn_encoders(run)
    return StageOne.of(run)


def learn_encoders(run: Run) -> None:
    """Run stage one: normalise, pretrain, measure quality, and look at the embeddings before and after."""
    if not run.is_resumed:
        normalise(run)
        run.embedding = Embedding(before=embedded_windows(run))
        run.keep()
    train_stage(run, pretraining(run))
    if not run.quality:
        after = embedded_windows(run) if run.config.pretrain_stage.rounds else ()
        run.embedding = replace(run.embedding, after=after)
        run.quality = measure_quality(run)
        run.keep()


def begin(hosts: Hosts, config: RunConfig, info: RunInfo, folder: RunFolder, report: Report) -> Run:
    """Profile the hosts, draw the split and initialise the model.

    Raises:
        ConfigError: `data.classes` or the split names what no host has; or the rounds cost more than the privacy budget.
        DataError: no device, or no label, to train on.
    """
    started_s = time.monotonic()
    directory = Directory(hosts, config.data, config.min_reply_share)
    budget = Budget(config)
    new_arrays = Apart("torch", "clmm_core.training.model_arrays:new_arrays")  # which loads PyTorch while hosts say what they have
    directory.refresh()
    if directory.unanswered:  # asked once more, because devices that are not here now are in no split and so in no round
        directory.refresh()
    devices = directory.devices
    if not devices:
        raise DataError("no device has usable recordings: " + ("; ".join(directory.left_out()) or "no host serves any subject"))
    classes = tuple(sorted({label for device in devices.values() for label in device.labelled_windows}))
    unknown = [name for name in config.data.classes if name not in classes]
    if unknown:
        raise ConfigError(
            f"data.classes: no device has a label of {', '.join(unknown)}; of those named there are {', '.join(classes) or 'none'}: "
            "correct the names, or take them out"
        )
    if len(classes) < 2:
        raise DataError(f"expected labels of at least two activities over all devices, found {', '.join(classes) or 'none'}: label more")
    split = draw_split(config, devices, classes)
    require_cohorts(config, split)
    epsilons = budget.epsilons()
    owned = {name: owner.modalities[name] for name, owner in directory.modalities().items()}
    shapes = tuple(ModalityShape(name=name, channels=each.channels, time_steps=each.time_steps) for name, each in owned.items())
    model = sized(config.model, shapes, len(classes))
    run = Run(
        config=config,
        info=info,
        directory=directory,
        folder=folder,
        report=report,
        split=split,
        model=model,
        arrays=new_arrays(model, config.seed),
        units={name: each.unit for name, each in owned.items()},
        window_s=next(profile.window_s for profile in directory.profiles.values() if profile.devices),
        started_s=started_s,
        epsilons=epsilons,
    )
    folder.write_info(info)
    folder.write_split(split)
    left_out = directory.left_out() + _too_few_labelled(config, split)
    left_out += _unlabelled_classes(split, devices) + _unowned_modalities(split, devices, model)
    run.ended("profile", started_s, left_out=tuple(left_out))
    return run


def _too_few_labelled(config: RunConfig, split: Split) -> list[str]:
    wanted, found = config.split.num_labelled, len(split.labelled)
    if config.split.labelled or found >= wanted:
        return []
    return [f"labels.num-devices asks for {wanted} labelled devices, but only {found} training devices have labels"]


def _labelled_classes(split: Split, devices: Mapping[str, DeviceProfile]) -> set[str]:
    return {label for device in split.labelled for label in devices[device].labelled_windows}.intersection(split.classes)


def _equal_shares(split: Split, devices: Mapping[str, DeviceProfile]) -> tuple[float, ...]:
    """Return a share for each class, equal for those that a labelled device has a label of; the model cannot say the others."""
    known = _labelled_classes(split, devices)
    return tuple(1 / len(known) if label in known else 0.0 for label in split.classes)


def _unlabelled_classes(split: Split, devices: Mapping[str, DeviceProfile]) -> list[str]:
    known = _labelled_classes(split, devices)
    return [
        f"activity '{label}': none of the labelled devices ({', '.join(split.labelled)}) has a label of it, so it cannot be recognised; "
        "label it on one of them, or choose other labels.devices"
        for label in split.classes
        if label not in known
    ]


def _unowned_modalities(split: Split, devices: Mapping[str, DeviceProfile], model: ModelConfig) -> list[str]:
    owned = {name for device in split.training for name in devices[device].modalities}
    missing = [shape.name for shape in model.modalities if shape.name not in owned]
    return [f"modality '{name}': no training device has it; its encoder stays untrained" for name in missing]


def normalise(run: Run) -> None:
    """Put the training subjects' mean and deviation per channel into the model, from sums that hosts add up."""
    since_s = time.monotonic()

    def task_for(devices: tuple[str, ...]) -> SumsTask:
        return SumsTask(data=run.config.data, devices=devices, differences=run.model.differences)

    answers, left_out = run.ask("query.sums", run.split.training, task_for, {}, HostSums)
    for modality, sums in add_sums([answer.reply.sums for answer in answers]).items():
        run.arrays[f"modalities.{modality}.mean"] = sums.mean
        run.arrays[f"modalities.{modality}.std"] = sums.std
    run.ended("normalise", since_s, **_asked(answers), left_out=tuple(left_out))


def pretraining(run: Run) -> TrainingStage:
    """Return stage one: contrastive rounds over all training devices, encoders averaged per modality."""
    settings = run.config.pretrain

    def task_for(devices: tuple[str, ...], learning_rate: float) -> PretrainTask:
        config = replace(settings, local=replace(settings.local, learning_rate=learning_rate))
        return PretrainTask(**run.update_settings(), devices=devices, config=config)

    return TrainingStage(
        name="pretrain",
        config=run.config.pretrain_stage,
        starts_after=0,
        devices=run.split.training,
        work=lambda device: settings.local.epochs * device.num_windows,
        most_windows=lambda device: device.num_windows,
        learning_rate=settings.local.learning_rate,
        task_for=task_for,
        travels=is_stage_one,
        learns=partial(learns, task_for((), 0.0)),
        after_round=lambda: ({}, []),
    )


def measure_quality(run: Run) -> dict[str, float]:
    """Return each modality's quality, from its Hopkins value averaged over devices by windows."""
    since_s = time.monotonic()

    def task_for(devices: tuple[str, ...]) -> QualityTask:
        return QualityTask(**run.task_settings(), devices=devices)

    sent = {name: values for name, values in run.arrays.items() if is_stage_one(name)}
    answers, left_out = run.ask("query.quality", run.split.training, task_for, sent, HostQuality)
    measured: dict[str, float] = {}
    for name in (shape.name for shape in run.model.modalities):
        num_windows = sum(answer.reply.num_windows.get(name, 0) for answer in answers)
        weighted = sum(answer.reply.weighted.get(name, 0.0) for answer in answers)
        measured[name] = weighted / num_windows if num_windows else CHANCE_HOPKINS
    run.ended("quality", since_s, **_asked(answers), left_out=tuple(left_out))
    return quality_weights(measured)


def guide_fusion(run: Run) -> None:
    """Put the measured quality into the model, where it uses it."""
    if run.model.fusion == "quality-guided":
        run.arrays[QUALITY] = np.array([run.quality[shape.name] for shape in run.model.modalities], np.float32)


def _asked(answers: Sequence[Answer]) -> dict[str, int]:
    return {"num_hosts": len(answers), "num_devices": sum(len(answer.devices) for answer in answers)}


def finetuning(run: Run) -> TrainingStage:
    """Return stage two: supervised rounds over the labelled devices, the whole network averaged."""
    settings = run.config.finetune

    def task_for(devices: tuple[str, ...], learning_rate: float) -> FinetuneTask:
        config = replace(settings, local=replace(settings.local, learning_rate=learning_rate))
        return FinetuneTask(**run.update_settings(), devices=devices, config=config, labels=run.config.labels)

    return TrainingStage(
        name="finetune",
        config=run.config.finetune_stage,
        starts_after=run.config.pretrain_stage.rounds,
        devices=run.split.labelled,
        work=lambda device: settings.local.epochs * drawn_windows(device, run.config.labels),
        most_windows=lambda device: sum(device.labelled_windows.values()),
        learning_rate=settings.local.learning_rate,
        task_for=task_for,
        travels=lambda name: is_stage_two(name, run.model),
        learns=partial(learns, task_for((), 0.0)),
        after_round=lambda: validation_figures(run),
    )


def selftraining(run: Run) -> TrainingStage:
    """Return what follows stage two: its rounds again, over all training devices, each with labels of its own making."""
    stage_two = finetuning(run)
    expected = _equal_shares(run.split, run.directory.devices) if run.config.align else ()

    def task_for(devices: tuple[str, ...], learning_rate: float) -> SelftrainTask:
        same = vars(stage_two.task_for(devices, learning_rate))
        return SelftrainTask(**same, labelled=run.split.labelled, confidence=run.config.confidence, expected=expected)

    config = run.config.selftrain_stage
    return replace(
        stage_two,
        name="selftrain",
        config=config,
        starts_after=stage_two.starts_after + stage_two.config.rounds,
        devices=run.split.training,
        work=lambda device: run.config.finetune.local.epochs * device.num_windows,
        most_windows=lambda device: device.num_windows,
        task_for=task_for,
    )
