"""A study's tables: what was run, and a table a setting; the same cells for Markdown and for the page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from clmm_core.report.lines import plural
from simulation.study.outcomes import Interval, Outcome, by_subject, differences, interval, lead, mean_by_subject, of
from simulation.study.plan import Study

NOTHING = "–"


@dataclass(frozen=True, kw_only=True)
class Table:
    """One setting's table: a row a method, whose name is the row's first cell."""

    setting: str
    """Empty where a study varies nothing but the method."""
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """Return the table in Markdown, under its setting."""
        lines = [f"**{self.setting}**", ""] if self.setting else []
        lines += [_line(self.header), "|---" * len(self.header) + "|", *map(_line, self.rows)]
        return "\n".join(lines)


def study_tables(study: Study, outcomes: Sequence[Outcome]) -> str:
    """Return the study's section in Markdown: what was run, what is missing, and a table a setting."""
    missing = [f"**{what_is_missing(study, outcomes)}**"] if what_is_missing(study, outcomes) else []
    return "\n\n".join([what_was_run(study), *missing, *(table.markdown() for table in tables_of(study, outcomes))])


def what_was_run(study: Study) -> str:
    """Return in a sentence how many runs each row is of, and what differs between them."""
    return (
        f"{plural(_runs_a_method(study), 'run')} a method: {_who(study)}, each with seed{'s' * (len(study.seeds) > 1)} "
        f"{', '.join(map(str, study.seeds))} for the labels drawn and the initial model."
    )


def what_is_missing(study: Study, outcomes: Sequence[Outcome]) -> str:
    """Return in a sentence how many runs have no outcome; empty where all have."""
    missing = _runs_a_method(study) * len(study.settings) * len(study.methods) - len(outcomes)
    return f"{plural(missing, 'run')} failed or not finished; the rows say of how many runs they are." if missing else ""


def tables_of(study: Study, outcomes: Sequence[Outcome]) -> list[Table]:
    """Return a table a setting, in the study's order."""
    return [_table(study, outcomes, setting) for setting in study.settings]


def columns_in_words(study: Study, tables: Sequence[Table]) -> dict[str, str]:
    """Return what the columns of these tables mean, by heading."""
    meanings = {
        "accuracy": "share of windows recognised right, in %: mean over a run's subjects, then over runs, ± standard deviation over runs",
        "macro-F1": "over all windows of a run's subjects, in %; rare activities count as much as common ones",
        "worst subject": "accuracy of the subject with the lowest, each the mean over the runs that tested it",
        f"{study.reference} minus this": "difference of accuracy between runs with the same split and seed, in percentage points: mean "
        "over subjects, with the wider of the 95 % intervals (Student's t) over subjects and over runs",
        "better for": f"subjects for whom {study.reference} has the higher accuracy",
        "personalised": "percentage points won by fine-tuning on a few labels of the subject, with the 95 % interval over subjects",
        "hurt": "subjects who lost accuracy by that, and how many percentage points",
        "rounds to 90 %": "rounds of stage two, and of self-training, until validation accuracy first reaches 90 % of what it ends at",
        "with stage one": "those rounds and the ones of stage one before them",
        "to a common level": "rounds until validation accuracy first reaches 90 % of what the method that ends lowest with that split and "
        "seed ends at",
        "parameters": "numbers in the model; for trees, their nodes",
        "wall time": "of a run on one core, with its stage one also where several runs share it; where runs trained together on a GPU, "
        "of all of them",
    }
    shown = {name for table in tables for name in table.header}
    return {name: text for name, text in meanings.items() if name in shown}


def _runs_a_method(study: Study) -> int:
    return len(study.splits) * len(study.seeds)


def _who(study: Study) -> str:
    """Return whom the runs are judged on."""
    if study.judged_on == "validation":
        pairs = (f"{split.validation} (never touching {split.test})" for split in study.splits)
        return f"judged on validation subjects {'; '.join(pairs)}"
    return f"test subjects {'; '.join(split.test for split in study.splits)}"


def _table(study: Study, outcomes: Sequence[Outcome], setting: str) -> Table:
    num_runs = _runs_a_method(study)
    here = {method: of(outcomes, setting, method) for method in study.methods}
    reference = here[study.reference]
    has_gain = any(outcome.gain for rows in here.values() for outcome in rows)
    has_curve = any(outcome.curve for rows in here.values() for outcome in rows)
    levels = _common_levels([outcome for rows in here.values() for outcome in rows])
    header = ["method", "accuracy", "macro-F1", "worst subject", f"{study.reference} minus this", "better for"]
    header += ["personalised", "hurt"] * has_gain + ["rounds to 90 %", "with stage one", "to a common level"] * has_curve
    header += ["parameters", "wall time"]
    table = []
    for method, rows in here.items():
        if not rows:
            table.append((method, "not finished", *[""] * (len(header) - 2)))
            continue
        name = method if len(rows) == num_runs else f"{method} ({len(rows)} of {num_runs} runs)"
        row = [name, _spread([r.mean for r in rows]), _spread([r.macro_f1 for r in rows]), f"{100 * min(by_subject(rows).values()):.1f}"]
        row += ["", ""] if method == study.reference else _against(reference, rows)
        row += _personalised(rows) * has_gain + _rounds(rows, levels) * has_curve
        row += [f"{round(fmean(r.num_parameters for r in rows)):,}", f"{fmean(r.wall_s for r in rows):.0f} s"]
        table.append(tuple(row))
    return Table(setting=setting, header=tuple(header), rows=tuple(table))


def _against(reference: Sequence[Outcome], rows: Sequence[Outcome]) -> list[str]:
    """Return the reference's lead with its interval, and for how many subjects it leads, over the runs that both have."""
    by_name = differences(reference, rows)
    if not by_name:
        return [NOTHING, NOTHING]
    return [_points(lead(reference, rows)), f"{sum(each > 0 for each in by_name.values())} of {len(by_name)}"]


def _personalised(rows: Sequence[Outcome]) -> list[str]:
    """Return the mean gain over subjects with its interval, and how many subjects lost, with their names, the one that lost most first."""
    gains = mean_by_subject(row.gain for row in rows)
    if not gains:
        return [NOTHING, NOTHING]
    hurt = sorted((name for name in gains if gains[name] < 0), key=lambda name: (gains[name], name))
    names = ": " + ", ".join(f"{name} ({100 * gains[name]:.1f})" for name in hurt) if hurt else ""
    return [_points(interval(list(gains.values()))), f"{len(hurt)} of {len(gains)}{names}"]


def _common_levels(outcomes: Sequence[Outcome]) -> dict[tuple[str, int], float]:
    """Return by split and seed 90 % of the lowest validation accuracy that any method ends at."""
    levels: dict[tuple[str, int], float] = {}
    for outcome in outcomes:
        if outcome.curve:
            levels[outcome.run] = min(0.9 * outcome.curve[-1], levels.get(outcome.run, 1.0))
    return levels


def _rounds(rows: Sequence[Outcome], levels: Mapping[tuple[str, int], float]) -> list[str]:
    """Return the mean of rounds to 90 % after stage one, with its rounds, and to the level that all methods reach."""
    looked_at = [row for row in rows if row.curve]
    if not looked_at:
        return [NOTHING, NOTHING, NOTHING]
    after = fmean(row.rounds_to(0.9 * row.curve[-1]) for row in looked_at)
    before = fmean(int(row.cell.values["pretrain.rounds"]) for row in looked_at)
    common = fmean(row.rounds_to(levels[row.run]) for row in looked_at)
    return [f"{after:.1f} of {max(len(row.curve) for row in rows)}", f"{after + before:.1f}", f"{common:.1f}"]


def _spread(values: Sequence[float]) -> str:
    return f"{100 * fmean(values):.1f}" + (f" ± {100 * stdev(values):.1f}" if len(values) > 1 else "")


def _points(gap: Interval) -> str:
    bounds = "" if gap.low is None or gap.high is None else f" ({100 * gap.low:+.1f} to {100 * gap.high:+.1f})"
    return f"{100 * gap.mean:+.1f}{bounds}"


def _line(cells: Sequence[str]) -> str:
    """Return a row of a Markdown table, in which a bar of a cell's own does not end it."""
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"
