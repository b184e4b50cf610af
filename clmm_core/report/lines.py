"""A run in words: one line a step, one sentence for the result, one row a subject. Plain text, for terminals, logs and the page."""

import json
import shlex
from collections.abc import Iterable, Sequence

from clmm_core.report.metrics import (
    GroupSummary,
    accuracy,
    chance,
    expected_calibration_error,
    group_counts,
    macro_f1,
    majority_share,
    num_right_of,
    num_windows_of,
    personal_gain,
    summarise,
    wilson_interval,
    worst_first,
)
from clmm_core.report.records import GROUPS, Group, RoundRecord, RunInfo, RunRecord, Split, SubjectRecord

GROUP_MEANINGS: dict[Group, str] = {
    "unseen": "never trained on and never looked at while choosing: what a new wearer can expect",
    "validation": "never trained on, but looked at to make choices; so rather flattering for a new wearer",
    "seen": "their recordings were trained on, their labels were not",
    "labelled": "their labels were trained on; tested on their other windows",
}
FEW_WINDOWS = 100
"""Below this many windows a subject's accuracy is marked as rough: the 95 % half-width at 80 % is then above 7.8 points."""
NOTHING = "–"
MAX_NAMES = 5
"""Devices named in a line; the others are counted."""
SUBJECT_HEADER = ("subject", "group", "sensors", "windows", "accuracy", "95 % interval", "macro-F1", "ECE", "personalised")


def percent(share: float | None) -> str:
    """Return a share as a percentage with one decimal, e.g. `81.2 %`."""
    return NOTHING if share is None else f"{100 * share:.1f} %"


def points(share: float | None) -> str:
    """Return a difference of shares in percentage points with its sign, e.g. `+3.2`."""
    if share is None:
        return NOTHING
    text = f"{100 * share:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")


def interval(counts_right: int, counts_windows: int) -> str:
    """Return the 95 % interval of a share, e.g. `76.1–85.4 %`."""
    bounds = wilson_interval(counts_right, counts_windows)
    return NOTHING if bounds is None else f"{100 * bounds[0]:.1f}–{100 * bounds[1]:.1f} %"


def duration(seconds: float) -> str:
    """Return a wall time with the precision it deserves, e.g. `1.8 s`, `4 min 05 s`, `2 h 13 min`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest_s = divmod(round(seconds), 60)
    return f"{minutes} min {rest_s:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def size(num_bytes: float) -> str:
    """Return an amount of data with three digits, e.g. `812 B`, `12.3 kB`, `4.56 MB`; a kB is 1000 bytes."""
    for unit, worth in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= 0.9995 * worth:
            digits = num_bytes / worth
            return f"{digits:.{2 if digits < 9.995 else 1 if digits < 99.95 else 0}f} {unit}"
    return f"{num_bytes:.0f} B"


def plural(number: int, one: str, many: str | None = None) -> str:
    """Return a count with its noun, e.g. `1 window`, `12,345 windows`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def listed(names: Sequence[str]) -> str:
    """Return names in quotes, the first few of many, e.g. `'a', 'b', 'c' and 497 more`."""
    shown = ", ".join(f"'{name}'" for name in names[:MAX_NAMES])
    return shown if len(names) <= MAX_NAMES else f"{shown} and {len(names) - MAX_NAMES:,} more"


def by_reason(left_out: Iterable[tuple[str, str]]) -> list[str]:
    """Return a line for each reason with the devices it holds for, in the order given: of thousands of devices, a few lines.

    Args:
        left_out: devices, each with why.
    """
    devices: dict[str, list[str]] = {}
    for device, reason in left_out:
        devices.setdefault(reason, []).append(device)
    return [f"{'device' if len(names) == 1 else 'devices'} {listed(names)}: {reason}" for reason, names in devices.items()]


def labels_in_words(split: Split) -> str:
    """Return how many labels a labelled device gives, e.g. `1 labelled trial a class`, `all labels`."""
    return f"{plural(split.labels_per_class, f'labelled {split.label_unit}')} a class" if split.labels_per_class else "all labels"


def describe_round(record: RoundRecord, rounds_total: int | None) -> str:
    """Return one plain line for one step, e.g. `pretrain  round 3/20  8 devices  loss 2.314  1.8 s`.

    Args:
        record: The step that has ended.
        rounds_total: The last `server_round` of the run, None where it is not known.
    """
    parts: list[str] = [record.stage]
    if record.server_round is not None:
        parts.append(f"round {record.server_round}" + (f"/{rounds_total}" if rounds_total is not None else ""))
    parts.append(plural(record.num_devices, "device"))
    parts += absent_in_words(record)
    parts += repeats_in_words(record)
    if record.loss is not None:
        parts.append(f"loss {record.loss:.3f}")
    if record.validation_accuracy is not None:
        parts.append(f"validation accuracy {percent(record.validation_accuracy)}")
    if record.validation_macro_f1 is not None:
        parts.append(f"macro-F1 {percent(record.validation_macro_f1)}")
    parts += spent_in_words(record)
    parts.append(duration(record.round_s))
    if record.left_out:
        first, *others = record.left_out
        more = f" (and {len(others)} more)" if others else ""
        parts.append(f"left out: {' '.join(first.split())}{more}")
    return "  ".join(parts)


def spent_in_words(record: RoundRecord) -> list[str]:
    """Return what privacy has cost so far, and the clip, e.g. `epsilon 3.21`, `clip 0.5`; nothing without it."""
    return [] if record.epsilon is None or record.clip is None else [f"epsilon {record.epsilon:.3g}", f"clip {record.clip:.3g}"]


def absent_in_words(record: RoundRecord) -> list[str]:
    """Return what a simulated fleet did in a round, e.g. `12 dropped out`, `3 too slow`, `31.0 s simulated`; nothing without one."""
    if record.simulated_s is None:
        return []
    counts = ((record.num_dropped_out, "dropped out"), (record.num_stragglers, "too slow"))
    return [*(f"{count:,} {what}" for count, what in counts if count), f"{duration(record.simulated_s)} simulated"]


def repeats_in_words(record: RoundRecord) -> list[str]:
    """Return how answers failed a step, e.g. `2 late answers`, `taken again once`; nothing where all was well."""
    late = [plural(record.num_late, "late answer")] if record.num_late else []
    return [
        *late,
        *(["taken again " + ("once" if record.num_repeats == 1 else f"{record.num_repeats} times")] if record.num_repeats else []),
    ]


def subject_row(subject: SubjectRecord) -> list[str]:
    """Return one subject's cells, as `SUBJECT_HEADER` names them."""
    right, windows = num_right_of(subject.counts), num_windows_of(subject.counts)
    is_rough = 0 < windows < FEW_WINDOWS
    return [
        subject.subject,
        subject.group,
        ", ".join(subject.modalities) or NOTHING,
        f"{windows:,}",
        ("≈ " if is_rough else "") + percent(accuracy(subject.counts)),
        interval(right, windows),
        percent(macro_f1(subject.counts)),
        percent(expected_calibration_error(subject.counts)),
        points(personal_gain(subject)),
    ]


def subject_table(run: RunRecord) -> list[list[str]]:
    """Return a header and a row a subject: unseen subjects first, in each group the worst first.

    `≈` marks an accuracy of few windows, `–` what does not apply; the last column is in percentage points.
    """
    ordered = worst_first(run.subjects)
    return [list(SUBJECT_HEADER), *(subject_row(subject) for group in GROUPS for subject in ordered if subject.group == group)]


def headline_group(run: RunRecord) -> GroupSummary | None:
    """Return the group the result is told for: unseen subjects, else the next best evidence there is."""
    return next((summary for group in GROUPS if (summary := summarise(run.subjects, group)) is not None), None)


def headline(run: RunRecord) -> str:
    """Return the result in one sentence: for whom, how well, how much it varies, who fares worst, and against what."""
    summary = headline_group(run)
    if summary is None:
        return "No subject had a window to evaluate, so this run says nothing about how well the recogniser works."
    people = "person" if summary.num_subjects == 1 else "people"
    number = f"{summary.num_subjects} {people}"
    whom = {
        "unseen": f"On {number} it never saw",
        "validation": f"No unseen subject was evaluated; on {number} kept for validation, never trained on",
        "seen": f"Nobody was kept apart, so this is no figure for new people: on {number} it trained on without labels",
        "labelled": f"Nobody was kept apart, so this is no figure for new people: on {number} whose labels it had",
    }[summary.group]
    spread = "" if summary.accuracy_std is None else f" ± {100 * summary.accuracy_std:.1f}"
    worst = "" if summary.num_subjects == 1 else f"; the worst is {summary.worst_subject} at {percent(summary.worst_accuracy)}"
    return (
        f"{whom}, it recognises {percent(summary.accuracy_mean).replace(' %', '')}{spread} % of windows right"
        f" (macro-F1 {percent(summary.macro_f1_mean)}){worst}; {_guessing(run, summary.group)}."
    )


def _guessing(run: RunRecord, group: Group) -> str:
    counts = group_counts(run.subjects, group)
    share = None if counts is None else majority_share(counts)
    return f"guessing among {plural(len(run.split.classes), 'class', 'classes')} gets {percent(chance(len(run.split.classes)))}" + (
        "" if share is None else f", always saying the most frequent one {percent(share)}"
    )


def rerun_command(info: RunInfo) -> str:
    """Return the command that starts the same run again under another name; JSON strings and booleans are TOML's too."""
    settings = {key: value for key, value in sorted(info.run_config.items()) if key not in ("results-dir", "run-name", "min-hosts")}
    hosts = f" --hosts {info.run_config['min-hosts']}" if "min-hosts" in info.run_config else ""
    pairs = (shlex.quote(f"{key}={json.dumps(value, ensure_ascii=False)}") for key, value in settings.items())
    return f"clmm run{hosts}" + "".join(f" --set {pair}" for pair in pairs)
