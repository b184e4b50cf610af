"""Evaluation per subject, in groups: labelled, seen without labels, validation, never seen."""

import time
from collections.abc import Sequence

from clmm_core.errors import RoundFailedError
from clmm_core.federated.messages import Counts, DeviceEvaluation, HostEvaluation
from clmm_core.report.lines import by_reason
from clmm_core.report.metrics import accuracy, counts_as_arrays, macro_f1, pooled
from clmm_core.report.records import EvaluationCounts, Group, Split, SubjectRecord
from clmm_core.training.tasks import EvaluateTask
from server.run import Run

MOST_AT_ONCE = 2000
"""Devices evaluated by one question a host: the server holds their answers, 3 kB each, all at a time."""
SMOOTHED = (
    "evaluate.smooth-s: a window counts as what its probabilities say, averaged with those of the windows that start up to {reach_s:g} s "
    "earlier or later; the model alone does not do that"
)


def evaluate_subjects(run: Run) -> tuple[SubjectRecord, ...]:
    """Evaluate the last round's model on every subject, and personalise it to those it never saw."""
    since_s = time.monotonic()
    split = run.split
    devices = (*split.test, *split.validation, *split.training)
    records, left_out = _evaluate(run, devices, personalise=split.test)
    if run.config.smooth_s:
        run.note([SMOOTHED.format(reach_s=run.config.smooth_s)])
    run.ended("evaluate", since_s, num_devices=len(records), left_out=tuple(left_out))
    return tuple(records)


def validation_figures(run: Run) -> tuple[dict[str, float], list[str]]:
    """Return accuracy and macro-F1 over all windows of the validation subjects, and what is not in them and why.

    Nothing without such subjects, in a round that is not to be looked at, or while their hosts are away: training goes on without.
    """
    if not run.split.validation or not _is_looked_at(run):
        return {}, []
    try:
        records, left_out = _evaluate(run, run.split.validation, personalise=())
    except RoundFailedError as error:
        return {}, [f"validation: {error}"]
    counts = pooled(record.counts for record in records)
    if counts is None:
        return {}, left_out
    figures = {"validation_accuracy": accuracy(counts), "validation_macro_f1": macro_f1(counts)}
    return {name: value for name, value in figures.items() if value is not None}, left_out


def _is_looked_at(run: Run) -> bool:
    """Return whether validation subjects are evaluated after this round: every n-th one after stage one, and the last."""
    config, every = run.config, run.config.validate_every
    since_stage_one = run.server_round - config.pretrain_stage.rounds
    last = config.finetune_stage.rounds + config.selftrain_stage.rounds
    return every > 0 and (since_stage_one % every == 0 or since_stage_one == last)


def group_of(device: str, split: Split) -> Group:
    """Return the group a device's subject belongs to."""
    if device in split.test:
        return "unseen"
    if device in split.validation:
        return "validation"
    return "labelled" if device in split.labelled else "seen"


def _evaluate(run: Run, devices: Sequence[str], personalise: tuple[str, ...]) -> tuple[list[SubjectRecord], list[str]]:
    config = run.config

    def task_for(here: tuple[str, ...]) -> EvaluateTask:
        return EvaluateTask(
            **run.task_settings(),
            devices=here,
            labelled=run.split.labelled,
            labels=config.labels,
            personalise=personalise if config.personal_labels.per_class else (),
            personal_labels=config.personal_labels,
            personal_config=config.personal,
            smooth_s=config.smooth_s,
        )

    records: list[SubjectRecord] = []
    left_out: list[str] = []
    reasons: list[tuple[str, str]] = []
    for first in range(0, len(devices), MOST_AT_ONCE):
        answers, absent = run.ask("evaluate.subjects", devices[first : first + MOST_AT_ONCE], task_for, run.arrays, HostEvaluation)
        records += [_record(each, run.split) for answer in answers for each in answer.reply.devices]
        reasons += [(each.device, each.reason) for answer in answers for each in answer.reply.left_out]
        left_out += absent
    left_out = [*dict.fromkeys(left_out), *by_reason(reasons)]
    return sorted(records, key=lambda record: record.subject), left_out


def _record(evaluation: DeviceEvaluation, split: Split) -> SubjectRecord:
    def arrays(counts: Counts) -> EvaluationCounts:
        return counts_as_arrays(counts, len(split.classes))

    return SubjectRecord(
        subject=evaluation.device,
        group=group_of(evaluation.device, split),
        modalities=evaluation.modalities,
        counts=arrays(evaluation.counts),
        personal_before=evaluation.personal_before and arrays(evaluation.personal_before),
        personal_after=evaluation.personal_after and arrays(evaluation.personal_after),
    )
