"""The report: one HTML file that says how well a recogniser works for people it never saw, and fetches nothing."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from clmm_core.files import replace_file
from clmm_core.report import plots
from clmm_core.report.communication import communication_in_words, communication_of, communication_table
from clmm_core.report.embedding_plot import embedding_pictures
from clmm_core.report.lines import (
    FEW_WINDOWS,
    GROUP_MEANINGS,
    NOTHING,
    duration,
    headline,
    headline_group,
    percent,
    plural,
    points,
    rerun_command,
    subject_row,
)
from clmm_core.report.metrics import GroupSummary, accuracy, num_windows_of, summarise, worst_first
from clmm_core.report.privacy import not_covered, privacy_in_words, privacy_of
from clmm_core.report.records import GROUPS, ModelCard, RoundRecord, RunRecord, Split, SubjectRecord
from clmm_core.report.run_folder import REPORT, read_results
from clmm_core.report.template import PAGE, STYLE

MAX_LEFT_OUT = 40
"""Kinds of things left out that the page lists; rounds.jsonl has them all."""
WORDS = {
    "window": "a fixed stretch of time of all sensors of a person: the thing that is recognised",
    "accuracy": "share of windows recognised right; of a group, the mean over its people, each counting the same, ± standard deviation",
    "macro-F1": "mean over activities of the balance between finding it and not crying wolf; rare activities count as much as common ones",
    "ECE": "expected calibration error: how far its confidence is, on average, from how often it is right",
    "chance": "accuracy of guessing every activity equally often",
}


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One figure of the page, or the reason why it is missing."""

    title: str
    caption: str
    svg: Markup | None
    reason: str


def render(run: RunRecord) -> str:
    """Return the whole page as one self-contained HTML document."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    times_left_out = Counter(reason for record in run.rounds for reason in record.left_out).most_common()
    return environment.from_string(PAGE).render(
        run=run,
        style=Markup(STYLE),
        answer=headline(run).replace(" %", "\u00a0%").replace(" ± ", "\u00a0±\u00a0"),
        explanation=_explanation(run),
        tiles=_tiles(run),
        few_windows=FEW_WINDOWS,
        groups=_groups(run),
        figures=_pictures(run),
        left_out=times_left_out[:MAX_LEFT_OUT],
        num_left_out_hidden=max(0, len(times_left_out) - MAX_LEFT_OUT),
        training=[*_split_in_words(run.split), *_card_in_words(run.card), _term("machine", run.info.machine)],
        stages=_stages(run.rounds),
        communication=_communication(run),
        privacy=_privacy(run),
        quality=[
            {"name": name, "figure": f"{share:.2f}", "width": f"{100 * share:.1f}"}
            for name, share in sorted(run.quality.items(), key=lambda item: -item[1])
        ],
        command=rerun_command(run.info),
        config=[(key, value if isinstance(value, str) else json.dumps(value)) for key, value in sorted(run.info.run_config.items())],
        versions=sorted(run.info.versions.items()),
        glossary=[
            *(_term(group, GROUP_MEANINGS[group]) | {"dot": True} for group in GROUPS),
            *(_term(word, text) | {"dot": False} for word, text in WORDS.items()),
        ],
    )


def render_into(path: Path) -> None:
    """Write the page of a run into its folder, where its results stand already."""
    replace_file(path / REPORT, render(read_results(path)))


def _term(name: str, text: str) -> dict[str, str | bool]:
    return {"name": name, "text": text}


def _explanation(run: RunRecord) -> str:
    summary = headline_group(run)
    if summary is None:
        return "What was left out, below, may say why."
    spread = "" if summary.accuracy_std is None else " ± is the standard deviation over people."
    rough = " With so few people the mean itself is rough." if summary.num_subjects < 10 else ""
    return (
        f"{plural(summary.num_windows, 'window')} of {plural(summary.num_subjects, 'person', 'people')};"
        f" each person counts the same.{spread}{rough}"
    )


def _tiles(run: RunRecord) -> list[dict[str, str]]:
    """Return the first screen's figures: those of the headline's group."""
    summary = headline_group(run)
    if summary is None:
        return []
    n = plural(summary.num_subjects, "person", "people")
    gain = (
        f"{summary.num_hurt} of {plural(summary.num_personalised, 'person', 'people')} lost"
        if summary.num_personalised
        else "not measured in this run"
    )
    spread = "one person, no spread" if summary.accuracy_std is None else f"± {100 * summary.accuracy_std:.1f} over {n}"
    return [
        {"name": f"Accuracy, {summary.group}", "figure": percent(summary.accuracy_mean), "remark": spread},
        {"name": "Macro-F1", "figure": percent(summary.macro_f1_mean), "remark": "rare activities count fully"},
        {"name": "Worst person", "figure": percent(summary.worst_accuracy), "remark": summary.worst_subject},
        {"name": "Calibration error", "figure": percent(summary.ece), "remark": "confidence against truth, pooled"},
        {"name": "Personalised, points", "figure": points(summary.gain_mean), "remark": gain},
    ]


def _groups(run: RunRecord) -> list[dict[str, object]]:
    ordered = worst_first(run.subjects)
    return [
        {
            "name": group,
            "line": _group_line(summarise(run.subjects, group)),
            "rows": [_row(subject) for subject in ordered if subject.group == group],
        }
        for group in GROUPS
        if any(subject.group == group for subject in ordered)
    ]


def _group_line(summary: GroupSummary | None) -> str:
    if summary is None:
        return "no windows to evaluate"
    spread = "" if summary.accuracy_std is None else f" ± {100 * summary.accuracy_std:.1f}"
    mean = f"{100 * summary.accuracy_mean:.1f}{spread} %"
    return f"mean {mean}, macro-F1 {percent(summary.macro_f1_mean)}, {plural(summary.num_windows, 'window')}"


def _row(subject: SubjectRecord) -> dict[str, object]:
    name, _, sensors, windows, share, interval, macro_f1, ece, gain = subject_row(subject)
    return {
        **{"subject": name, "sensors": sensors, "windows": windows, "accuracy": share, "interval": interval},
        **{"macro_f1": macro_f1, "ece": ece, "gain": gain},
        "width": f"{100 * (accuracy(subject.counts) or 0):.1f}",
        "is_rough": num_windows_of(subject.counts) < FEW_WINDOWS,
    }


def _pictures(run: RunRecord) -> list[Picture]:
    K = len(run.split.classes)
    no_unseen = "no unseen person with labelled windows was evaluated."
    return [
        Picture(
            title="Accuracy of each person, worst first",
            caption="Each bar is one person; warm colours were never trained on. A bar near the dashed line is no better than guessing."
            + (f" The worst {plots.MAX_BARS} people." if len(run.subjects) > plots.MAX_BARS else ""),
            svg=_markup(plots.subject_bars(run)),
            reason="no person has evaluated windows.",
        ),
        Picture(
            title="What is mistaken for what",
            caption="Unseen people pooled. Each row sums to 100 %: blue is recognised right, vermilion is mistaken."
            + (" Shares below 5 % are coloured but not printed." if K > 14 else ""),
            svg=_markup(plots.confusion_matrix(run)),
            reason=no_unseen,
        ),
        Picture(
            title="Does it know when it does not know?",
            caption="Unseen people pooled. A dot is the windows of one range of confidence, larger for more, its line the 95 % interval;"
            " on the dashed line it is right as often as it says.",
            svg=_markup(plots.reliability_diagram(run)),
            reason=no_unseen,
        ),
        Picture(
            title="What personalisation changes",
            caption="Fine-tuned on a few labelled windows of the person, evaluated on the rest. Smallest gain first.",
            svg=_markup(plots.personal_gains(run)),
            reason="personalisation was off, or nobody had enough labelled windows for it.",
        ),
        Picture(
            title="Learning curves",
            caption="Training loss is the mean over devices, weighted by windows. Validation people are never trained on.",
            svg=_markup(plots.learning_curves(run)),
            reason="no round reported a loss or a validation accuracy.",
        ),
        Picture(
            title="What stage one learns without labels",
            caption="Each dot is a window, in the plane of the two largest principal components. Colour and number are its activity, which"
            " stage one never sees; a circled number is the middle of that activity; the marker is the person’s group. Axes have no unit.",
            svg=_markup(embedding_pictures(run)),
            reason="no embeddings were kept.",
        ),
    ]


def _markup(svg: str | None) -> Markup | None:
    """Mark a figure as safe; in HTML an inline `<svg>` needs no namespaces, so the page holds no address at all."""
    if svg is None:
        return None
    return Markup(svg.replace(' xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"', "", 1))


def _split_in_words(split: Split) -> list[dict[str, str | bool]]:
    labels = (
        f"all their {split.label_unit}s"
        if split.labels_per_class == 0
        else f"{plural(split.labels_per_class, split.label_unit)} of each class on each"
    )
    unlabelled = [subject for subject in split.training if subject not in set(split.labelled)]
    return [
        _term("activities", f"{len(split.classes)}: {', '.join(split.classes)}"),
        _term("trained with labels", f"{_people(split.labelled)}; {labels}"),
        _term("trained without labels", _people(tuple(unlabelled))),
        _term("validation", _people(split.validation)),
        _term("unseen (test)", _people(split.test)),
        _term("split seed", str(split.seed)),
    ]


def _people(subjects: tuple[str, ...], *, most: int = 40) -> str:
    more = f" and {len(subjects) - most} more" if len(subjects) > most else ""
    return f"{len(subjects)}: {', '.join(subjects[:most])}{more}" if subjects else "nobody"


def _card_in_words(card: ModelCard) -> list[dict[str, str | bool]]:
    sensors = "; ".join(
        f"{name} ({', '.join(f'{key} {value}' for key, value in facts.items())})" for name, facts in card.modalities.items()
    )
    window = (f"{card.window_s:g} s" if card.window_s else "a whole trial") + (", turned upright" if card.upright else "")
    size = f"{plural(card.num_parameters, 'parameter')}, {card.flops_a_window / 1e6:.1f} million operations a window"
    return [
        _term("sensors", sensors or NOTHING),
        _term("window", window),
        _term("model", f"{size}; {_facts(card.architecture)}; {card.licence}"),
    ]


def _facts(facts: Mapping[str, int | float | str]) -> str:
    return ", ".join(f"{key} {value}" for key, value in facts.items()) or NOTHING


def _stages(rounds: tuple[RoundRecord, ...]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for stage, steps in groupby(rounds, key=lambda record: record.stage):
        records = list(steps)
        losses = [record.loss for record in records if record.loss is not None]
        num_rounds = sum(record.server_round is not None for record in records)
        cells = [
            str(num_rounds) if num_rounds else NOTHING,
            _range([record.num_devices for record in records]),
            _range([record.num_hosts for record in records]),
            f"{sum(record.num_windows for record in records):,}" if any(record.num_windows for record in records) else NOTHING,
            f"{losses[-1]:.3f}" if losses else NOTHING,
            duration(sum(record.round_s for record in records)),
        ]
        rows.append({"name": stage, "cells": cells})
    return rows


def _communication(run: RunRecord) -> dict[str, object] | None:
    found = communication_of(run.rounds)
    if found is None:
        return None
    columns, rows = communication_table(run.rounds)
    bits = int(run.info.run_config.get("communication.update-bits", 32))
    return {"text": communication_in_words(found, bits), "columns": columns, "rows": rows}


def _privacy(run: RunRecord) -> dict[str, str] | None:
    found = privacy_of(run)
    return None if found is None else {"text": privacy_in_words(found), "not_covered": not_covered(run)}


def _range(numbers: list[int]) -> str:
    return f"{min(numbers):,}" if min(numbers) == max(numbers) else f"{min(numbers):,}–{max(numbers):,}"
