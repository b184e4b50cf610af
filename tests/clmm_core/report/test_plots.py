"""Figures are looked at by people; here: that each says what it must, stands alone, and is absent when there is nothing to show."""

import dataclasses
import re
import xml.etree.ElementTree as ET

import matplotlib
import pytest

from clmm_core.report import plots
from clmm_core.report.drawing import GROUP_COLOURS, GROUP_MARKERS, MAX_LABEL, class_colour, label_text
from clmm_core.report.embedding_plot import MAX_DOTS, embedding_pictures
from clmm_core.report.records import GROUPS, Embedding

ALL = (
    plots.learning_curves,
    plots.confusion_matrix,
    plots.subject_bars,
    plots.reliability_diagram,
    plots.personal_gains,
    embedding_pictures,
)
MANY_CLASSES = tuple(f"activity number {number}" for number in range(27))


def texts(svg: str) -> list[str]:
    return ["".join(text.itertext()).strip() for text in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.parametrize("plot", ALL)
@pytest.mark.parametrize(
    "size", [{}, {"subjects": 30}, {"subjects": 8, "classes": MANY_CLASSES}, {"subjects": 4, "classes": ("only one",)}]
)
def test_each_figure_is_one_described_svg_without_global_traces(plot, size: dict, make_run):
    before = dict(matplotlib.rcParams)
    svg = plot(make_run(**size))
    root = ET.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.get("role") == "img"
    assert len(root.get("aria-label")) > 20
    assert "<style" not in svg
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("plot", ALL)
def test_a_figure_is_the_same_each_time(plot, make_run):
    assert plot(make_run()) == plot(make_run())


def test_ids_do_not_collide_in_one_page(make_run):
    run = make_run()
    ids = [each for plot in ALL for each in re.findall(r'\bid="([^"]+)"', plot(run))]
    assert len(ids) == len(set(ids))
    svgs = "".join(plot(run) for plot in ALL)
    assert set(re.findall(r'(?:url\(|href=")#([^")]+)', svgs)) <= set(ids)


def test_bars_name_every_subject_the_worst_first_and_the_chance_line(make_run):
    run = make_run(subjects=30)
    found = texts(plots.subject_bars(run))
    assert {subject.subject for subject in run.subjects} <= set(found)
    assert "chance 14.3 %" in found
    assert set(GROUPS) <= set(found)


def test_bars_of_very_many_subjects_show_the_worst(make_run):
    svg = plots.subject_bars(make_run(subjects=plots.MAX_BARS + 5, windows=40))
    assert f"Accuracy of {plots.MAX_BARS} subjects" in svg


def test_the_confusion_matrix_names_27_classes_on_both_axes(make_run):
    found = texts(plots.confusion_matrix(make_run(classes=MANY_CLASSES)))
    for name in MANY_CLASSES:
        assert name in found
        assert any(text.startswith(f"{name} (") for text in found)


def test_curves_end_in_their_figure_and_leave_out_what_was_not_measured(make_run):
    run = make_run()
    assert {"Stage one: loss, no labels", "Validation accuracy, %", "80.9 %"} <= set(texts(plots.learning_curves(run)))
    blind = tuple(dataclasses.replace(record, validation_accuracy=None) for record in run.rounds)
    assert "Validation accuracy, %" not in texts(plots.learning_curves(dataclasses.replace(run, rounds=blind)))
    one_round = tuple(record for record in run.rounds if record.server_round in (None, 1))
    assert f"{one_round[1].loss:.3g}" in texts(plots.learning_curves(dataclasses.replace(run, rounds=one_round)))


def test_very_many_windows_are_thinned(make_run):
    window = make_run().embedding.after[0]
    many = tuple(dataclasses.replace(window, x=float(n)) for n in range(4 * MAX_DOTS))
    svg = embedding_pictures(dataclasses.replace(make_run(), embedding=Embedding(after=many)))
    assert MAX_DOTS / 2 < svg.count("<use") <= MAX_DOTS + 10
    assert "Before stage one" not in texts(svg)


def test_windows_of_one_place_and_of_an_unknown_class_are_drawn(make_run):
    window = make_run().embedding.after[0]
    same = tuple(dataclasses.replace(window, label=label, x=1.0, y=1.0) for label in ("pendulum", "not in the split"))
    svg = embedding_pictures(dataclasses.replace(make_run(), embedding=Embedding(before=same, after=same)))
    assert any("not in the split" in text for text in texts(svg))


@pytest.mark.parametrize("plot", ALL)
def test_nothing_to_show_is_none(plot, make_run):
    assert plot(dataclasses.replace(make_run(), subjects=(), rounds=(), embedding=Embedding())) is None


@pytest.mark.parametrize("plot", [plots.confusion_matrix, plots.reliability_diagram, plots.personal_gains])
def test_without_unseen_subjects_their_figures_are_none(plot, make_run):
    run = make_run()
    assert plot(dataclasses.replace(run, subjects=tuple(each for each in run.subjects if each.group != "unseen"))) is None


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "$x$ & $y_1$", "日本語", "bell\x07", 'quote" id="a_1"'])
def test_any_name_is_drawn_as_it_is(name: str, make_run):
    run = make_run(classes=(name, "other"))
    first = dataclasses.replace(run.subjects[0], subject=name)
    run = dataclasses.replace(run, subjects=(first, *run.subjects[1:]))
    for plot in ALL:
        svg = plot(run)
        assert "<script" not in svg
        ET.fromstring(svg)
    if "id=" not in name:
        assert label_text(name).strip() in texts(plots.subject_bars(run))


def test_long_names_keep_both_ends():
    cut = label_text("draw circle (counter clockwise) slowly")
    assert (cut[:11], cut[-6:], "…" in cut, len(cut)) == ("draw circle", "slowly", True, MAX_LABEL)
    assert label_text("x" * MAX_LABEL) == "x" * MAX_LABEL


def test_groups_and_the_first_ten_classes_look_different():
    assert len(set(GROUP_COLOURS.values())) == len(set(GROUP_MARKERS.values())) == len(GROUPS)
    assert len({class_colour(index) for index in range(10)}) == 10


def test_windows_without_a_label_are_no_class(make_run):
    window = make_run().embedding.after[0]
    some = (window, dataclasses.replace(window, label="", x=window.x + 1))
    svg = embedding_pictures(dataclasses.replace(make_run(), embedding=Embedding(after=some)))
    assert svg is not None
    assert "windows of 1 class in" in svg
    assert "2  no label" in texts(svg)
