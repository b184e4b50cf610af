import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from clmm_core.report.drawing import class_colour
from simulation.study.figures import (
    MARKERS,
    MAX_PANELS,
    MAX_SUBJECTS,
    TITLES,
    caption,
    curve_figure,
    gains_figure,
    settings_figure,
    study_figures,
    subjects_figure,
)
from simulation.study.outcomes import Outcome
from simulation.study.plan import Method, Split, Study

Made = Callable[..., Outcome]
FIGURES = (subjects_figure, settings_figure, curve_figure)
SVG = "{http://www.w3.org/2000/svg}"


def study_of(*, methods: Sequence[str] = ("ours",), settings: Sequence[str] = ("",), **more) -> Study:
    named = {name: Method() for name in methods}
    return Study(
        title="T",
        reference=methods[0],
        splits=(Split(test="S1"),),
        seeds=(0, 1),
        methods=named,
        settings={name: {} for name in settings},
        **more,
    )


def texts(svg: str) -> list[str]:
    return ["".join(text.itertext()).strip() for text in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def marks(svg: str) -> list[tuple[float, float]]:
    """Return where dots are, in the order they are drawn: panels first, then the legend."""
    return [(float(use.attrib["x"]), float(use.attrib["y"])) for use in ElementTree.fromstring(svg).iter(f"{SVG}use")]


def lines(svg: str) -> list[list[tuple[float, float]]]:
    """Return the points of each line in the first method's colour."""
    paths = [path.attrib for path in ElementTree.fromstring(svg).iter(f"{SVG}path")]
    drawn = [path["d"] for path in paths if f"stroke: {class_colour(0)}" in path.get("style", "") and "z" not in path["d"]]
    return [[(float(x), float(y)) for x, y in re.findall(r"[ML] ([-\d.]+) ([-\d.]+)", path)] for path in drawn]


@pytest.mark.parametrize(
    "size", [{"subjects": 2, "methods": 2}, {"subjects": 30, "methods": 12, "settings": [f"{n} labels" for n in range(4)]}]
)
def test_every_method_is_named_whole_in_every_figure_and_every_subject_has_a_row(fake, size: dict):
    study, outcomes = fake(**size)
    for figure in FIGURES:
        svg = figure(study, outcomes)
        if svg is None:
            assert figure is settings_figure
            continue
        said = " ".join(texts(svg))
        for method in study.methods:
            assert all(word in said for word in method.split())
    shown = [text for text in texts(subjects_figure(study, outcomes)) if re.fullmatch(r"S\d\d", text)]
    panel_rows = 1 if len(study.settings) == 1 else 2  # names stand at the left of a row of panels
    assert len(shown) == panel_rows * size["subjects"]
    assert set(shown) == {f"S{number:02d}" for number in range(1, size["subjects"] + 1)}


def test_a_dot_is_where_its_accuracy_is_and_the_worst_subject_at_the_top(outcome: Made):
    runs = [outcome({"A": 0.8, "B": 0.5}, method="ours"), outcome({"C": 0.5}, method="ours"), outcome({"C": 0.7}, method="ours", seed=1)]
    svg = subjects_figure(study_of(), runs)
    assert [text for text in texts(svg) if text in ("A", "B", "C")] == ["B", "C", "A"]  # 50, 60 (mean of two runs) and 80 %
    (a, b, c), _legend = marks(svg)[:3], marks(svg)[3:]
    assert b[1] < c[1] < a[1]
    assert c[1] - b[1] == pytest.approx(a[1] - c[1])
    assert a[0] - c[0] == pytest.approx(2 * (c[0] - b[0]), rel=1e-4)


def test_a_gain_is_where_it_is_and_who_gains_least_at_the_top(outcome: Made):
    """-10, 20 and (mean of two runs) 5 points; a run without personalisation says nothing."""
    gains = [{"A": -0.1, "B": 0.2}, {"C": 0.0}]
    runs = [outcome(dict.fromkeys(gain, 0.5), method="ours", gain=gain) for gain in gains]
    runs += [outcome({"C": 0.5}, method="ours", gain={"C": 0.1}, seed=1), outcome({"D": 0.5}, method="ours")]
    svg = gains_figure(study_of(), runs)
    assert [text for text in texts(svg) if text in ("A", "B", "C", "D")] == ["A", "C", "B"]
    (a, b, c), _legend = marks(svg)[:3], marks(svg)[3:]
    assert a[1] < c[1] < b[1]
    assert b[0] - c[0] == pytest.approx(c[0] - a[0], rel=1e-4)
    assert gains_figure(study_of(), [outcome({"D": 0.5}, method="ours")]) is None


def test_subjects_are_sorted_by_the_reference_and_else_by_all(outcome: Made):
    study = study_of(methods=("ours", "theirs"))
    theirs = outcome({"A": 0.1, "B": 0.2, "C": 0.9}, method="theirs")
    svg = subjects_figure(study, [outcome({"A": 0.9, "B": 0.8}, method="ours"), theirs])
    assert [text for text in texts(svg) if text in ("A", "B", "C")] == ["B", "A", "C"]
    assert [text for text in texts(subjects_figure(study, [theirs])) if text in ("A", "B", "C")] == ["A", "B", "C"]


def test_more_people_than_a_figure_has_room_for_are_the_worst_ones(outcome: Made):
    people = {f"P{number:03d}": number / 100 for number in range(MAX_SUBJECTS + 9)}
    shown = [text for text in texts(subjects_figure(study_of(), [outcome(people, method="ours")])) if text.startswith("P")]
    assert shown == list(people)[:MAX_SUBJECTS]


def test_settings_are_points_with_their_interval_over_subjects(outcome: Made):
    study = study_of(settings=("few", "all"))
    runs = [
        outcome({"A": 0.4, "B": 0.5, "C": 0.6}, setting="few", method="ours"),
        outcome({"A": 0.6, "B": 0.7, "C": 0.8}, setting="all", method="ours"),
    ]
    svg = settings_figure(study, runs)
    *bars, (first, second) = sorted(lines(svg), key=lambda line: line[1][0] - line[0][0])
    rise = first[1] - second[1]  # of 20 points
    for bar, (x, y) in zip(bars, (first, second), strict=True):
        assert bar[0][0] == bar[1][0] == pytest.approx(x, abs=0.01)
        assert sum(end[1] for end in bar) / 2 == pytest.approx(y, abs=0.01)
        assert (bar[0][1] - bar[1][1]) / rise == pytest.approx(2 * 24.841 / 20, rel=1e-3)
    assert "from &#x27;few&#x27; to &#x27;all&#x27;: ours from 50.0 % to 70.0 %" in svg


def test_a_curve_is_the_mean_of_the_runs_that_go_so_far(outcome: Made):
    curves = [(0.2, 0.4), (0.4, 0.6, 0.9)]
    svg = curve_figure(study_of(), [outcome({"A": 0.5}, method="ours", seed=seed, curve=curve) for seed, curve in enumerate(curves)])
    (((x1, y1), (x2, y2), (x3, y3)),) = lines(svg)  # 30, 50 and 90 %
    assert x3 - x2 == pytest.approx(x2 - x1)
    assert y2 - y3 == pytest.approx(2 * (y1 - y2), rel=1e-4)
    assert "up to 3 rounds: ours ends at 65.0 %." in svg


def test_what_cannot_be_drawn_is_no_figure(fake, outcome: Made):
    study, outcomes = fake(settings=("few", "all"))
    assert [figure(study, []) for figure in FIGURES] == [None] * 3
    assert settings_figure(study, [each for each in outcomes if each.cell.setting == "few"]) is None
    assert curve_figure(study, [outcome({"S01": 0.5}, setting="few")]) is None


@pytest.mark.parametrize(
    ("figure", "names"),
    [("none", ["subjects", "gains"]), ("settings", ["subjects", "gains", "settings"]), ("curve", ["subjects", "gains", "curve"])],
)
def test_a_study_gets_the_figures_it_asks_for(fake, figure: str, names: list[str]):
    study, outcomes = fake(settings=("few", "all"), figure=figure)
    figures = study_figures(study, outcomes)
    assert list(figures) == names
    assert all(name in TITLES and caption(study, name) for name in figures)
    assert figures == study_figures(study, outcomes)  # the same picture each time, so that a page only changes where figures do
    ids = [re.findall(r'\bid="([^"]+)"', svg) for svg in figures.values()]
    assert sum(map(len, ids)) == len(set().union(*ids))


def test_methods_that_are_not_finished_are_not_in_the_legend(fake):
    study, outcomes = fake(methods=3, settings=("few", "all"))
    some = [each for each in outcomes if each.cell.method != "no stage one"]
    for figure in FIGURES:
        assert "no stage one" not in texts(figure(study, some))
        assert "CLMM" in texts(figure(study, some))


def test_more_settings_than_panels_are_said_to_be_left_out(fake):
    settings = [f"setting {number}" for number in range(MAX_PANELS + 2)]
    study, outcomes = fake(subjects=2, methods=1, settings=settings)
    for name, figure in (("subjects", subjects_figure), ("curve", curve_figure)):
        assert [text for text in texts(figure(study, outcomes)) if text.startswith("setting")] == settings[:MAX_PANELS]
        assert caption(study, name).endswith("The first 6 of 8 settings.")
    assert not caption(study, "settings").endswith("settings.")


def test_names_are_text_and_never_markup_or_mathematics(outcome: Made):
    evil = "<script> $x_1$ & 'quoted' \x07 end"
    study = study_of(methods=(evil,), settings=(evil, "$y^2$"))
    runs = [outcome({"$S_1$ <b>": 0.5, "B": 0.6}, method=evil, setting=setting, curve=(0.1, 0.2)) for setting in study.settings]
    for figure in FIGURES:
        svg = figure(study, runs)
        assert "<script" not in svg
        said = " ".join(texts(svg))
        assert "<script> $x_1$ & 'quoted' end" in " ".join(said.split())
        assert "$y^2$" in said
    assert "$S_1$ <b>" in texts(subjects_figure(study, runs))


def test_no_two_methods_look_the_same(fake):
    looks = {(list(MARKERS)[i % len(MARKERS)], class_colour(i)) for i in range(60)}
    assert len(looks) == 60
    study, outcomes = fake(methods=12, subjects=2)
    root = ElementTree.fromstring(subjects_figure(study, outcomes))
    shapes = {(use.attrib["{http://www.w3.org/1999/xlink}href"], use.attrib["style"]) for use in root.iter(f"{SVG}use")}
    assert len(shapes) == 12


def test_a_figure_can_stand_alone_with_a_size_and_a_ground(fake):
    for size in ({"subjects": 2, "methods": 2}, {"subjects": 30, "methods": 12}):
        study, outcomes = fake(**size)
        root = ElementTree.fromstring(subjects_figure(study, outcomes))
        width, height = (float(root.attrib[name]) for name in ("width", "height"))
        _, _, *box = map(float, root.attrib["viewBox"].split())
        assert width / height == pytest.approx(box[0] / box[1], rel=0.01)
        assert root.attrib["style"].startswith("background: var(--surface, #")
        assert root.attrib["aria-label"].startswith(f"Accuracy of {size['subjects']} subjects")


def test_rows_of_thirty_subjects_stay_apart(fake):
    """No name is printed over the next one: they are 9 units high."""
    study, outcomes = fake(subjects=30, methods=12, settings=("few", "all"))
    root = ElementTree.fromstring(subjects_figure(study, outcomes))
    rows = [text for text in root.iter(f"{SVG}text") if re.fullmatch(r"S\d\d", "".join(text.itertext()).strip())]
    heights = [float(row.attrib["y"]) for row in rows]
    assert min(below - above for above, below in pairwise(heights)) > 12


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_all_or_nothing_can_be_drawn(outcome: Made, share: float):
    study = study_of(settings=("few", "all"))
    runs = [outcome({"A": share}, method="ours", setting=setting, curve=(share,)) for setting in study.settings]
    for figure in FIGURES:
        assert "ours" in texts(figure(study, runs))
