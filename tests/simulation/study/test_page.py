import dataclasses
import re
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from simulation.study.cells import Done
from simulation.study.figures import subjects_figure
from simulation.study.outcomes import Outcome
from simulation.study.page import render_study, study_markdown
from simulation.study.plan import Method, Split, Study
from simulation.study.tables import tables_of

Made = Callable[..., Outcome]
COMMAND = "clmm study studies/parts.yaml --set 'data.name=\"spar\"'"
VOID = {"meta", "link", "br", "img", "hr"}


class Outline(HTMLParser):
    """Tags in order, checked to close in the order they opened, the text outside of style, and the cells of tables."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.tables: list[list[list[str]]] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        match tag:
            case "table":
                self.tables.append([])
            case "tr":
                self.tables[-1].append([])
            case "td" | "th":
                self.tables[-1][-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]


def with_code(outcomes: list[Outcome], code: str) -> list[Outcome]:
    return [
        dataclasses.replace(each, info=dataclasses.replace(each.info, versions={**each.info.versions, "code": code})) for each in outcomes
    ]


def test_the_page_holds_the_tables_as_they_are(fake):
    study, outcomes = fake(settings=("few", "all"), figure="settings")
    page = Outline(render_study(study, outcomes, [], COMMAND))
    expected = [[list(table.header), *map(list, table.rows)] for table in tables_of(study, outcomes)]
    assert page.tables == expected
    assert len(expected) == 2
    text = " ".join(page.text.split())
    assert text.startswith("What each part is worth")
    for part in (COMMAND, "Linux, 2 cores", "torch 2.13.0", "code 0123456789abcdef", "6 runs a method", "(Student's t) over subjects"):
        assert part in text
    assert "failed" not in text


def test_what_failed_and_why_stands_first(fake):
    study, outcomes = fake()
    failed = [Done("CLMM-S01-seed0-abc", "training diverged <at once>"), Done("stage one 99", "DataError: nothing there")]
    text = " ".join(Outline(render_study(study, outcomes[:-2], failed, COMMAND)).text.split())
    assert "2 runs failed or not finished" in text
    assert "CLMM-S01-seed0-abc: training diverged <at once>" in text
    assert text.index("stage one 99: DataError: nothing there") < text.index("Methods compared")


def test_nothing_is_fetched_and_nothing_runs(fake):
    study, outcomes = fake(settings=("few", "all"), figure="curve")
    html = render_study(study, outcomes, [], COMMAND)
    assert not re.search(r"https?://|@import|url\((?!#)", html)
    page = Outline(html)
    assert page.all("script") == []
    references = [value for _, attributes in page.tags for name, value in attributes.items() if name in ("src", "href", "xlink:href")]
    assert all(value.startswith(("#", "data:")) for value in references)


def test_what_people_typed_is_text_not_markup(outcome: Made):
    evil = "<script>alert('x')</script>"
    study = Study(title=evil, reference=evil, splits=(Split(test=evil),), seeds=(0,), methods={evil: Method()}, settings={evil: {}})
    (made,) = with_code([outcome({evil: 0.5}, method=evil, setting=evil)], evil)
    html = render_study(study, [made], [Done(evil, evil)], evil)
    assert "<script" not in html
    assert Outline(html).text.count(evil) >= 8
    assert "<script" not in study_markdown(study, [made], [Done("a", evil)], "clmm", {}).split("Failed:")[1]


def test_it_can_be_read_without_seeing_it(fake):
    study, outcomes = fake(settings=("few", "all"), figure="settings")
    page = Outline(render_study(study, outcomes, [Done("a", "b")], COMMAND))
    assert len(page.all("h1")) == 1
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert len(page.all("svg")) == 3
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in page.all("svg"))
    assert len(page.all("caption")) == len(page.all("table")) == 2
    assert all("scope" in th for th in page.all("th"))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_a_study_without_a_finished_run_has_a_page(fake):
    study, _ = fake()
    text = " ".join(Outline(render_study(study, [], [Done("a", "b")], COMMAND)).text.split())
    assert "18 runs failed or not finished" in text
    assert "nothing to draw" in text
    assert "No run is finished." in text


def test_the_section_of_a_page(fake):
    study, outcomes = fake(settings=("few", "all"), figure="settings")
    text = study_markdown(study, outcomes, [], COMMAND, {"subjects": "figures/a.svg", "settings": "figures/b.svg"})
    first, command, sentence, *rest = text.split("\n\n")
    assert first == "Measured with python 3.11.7, clmm 0.1.0, torch 2.13.0 on Linux, 2 cores; code 0123456789abcdef."
    assert command == f"    {COMMAND}"
    assert sentence.startswith("6 runs a method")
    assert rest[:4:2] == ["**few**", "**all**"]
    assert rest[1].startswith("| method |")
    assert rest[4] == "![Accuracy of each subject](figures/a.svg)"
    assert rest[6] == "![Accuracy over the settings](figures/b.svg)"
    assert "Failed" not in text


def test_the_section_says_what_failed(fake):
    study, outcomes = fake()
    text = study_markdown(study, outcomes[1:], [Done("cell-1", "why"), Done("cell-2", "why not")], COMMAND, {})
    assert "**1 run failed or not finished" in text
    assert "Failed:\n\n- `cell-1`: why\n- `cell-2`: why not" in text


def test_runs_of_other_code_or_machines_are_said(fake):
    study, outcomes = fake(methods=1, subjects=4, seeds=2)
    mixed = [*with_code(outcomes[:3], "aaaa"), *with_code(outcomes[3:], "bbbb")]
    mixed[3] = dataclasses.replace(mixed[3], info=dataclasses.replace(mixed[3].info, machine="another"))
    for text in (study_markdown(study, mixed, [], COMMAND, {}), Outline(render_study(study, mixed, [], COMMAND)).text):
        assert "code aaaa (3 runs) and bbbb (1 run)" in text
        assert "2 states of the code" in text
        assert "Linux, 2 cores (3 runs) and another (1 run)" in text


# In a real browser.


def show(browser, file: Path, *, width: int, scheme: str) -> None:
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(file.as_uri())


@pytest.mark.parametrize(
    ("scheme", "width", "size"),
    [
        ("light", 1280, {"methods": 12, "subjects": 30, "settings": ("few", "all"), "figure": "settings"}),
        ("dark", 390, {"methods": 6, "subjects": 8, "settings": ("few", "all", "s" * 200), "figure": "curve"}),
    ],
)
def test_a_browser_shows_it_without_errors_or_sideways_scrolling(browser, fake, tmp_path: Path, scheme: str, width: int, size: dict):
    study, outcomes = fake(**size)
    failed = [Done("long" * 60, "why" * 100)]
    (tmp_path / "study.html").write_text(render_study(study, outcomes[:-3], failed, COMMAND + " " + "x" * 300), encoding="utf-8")
    show(browser, tmp_path / "study.html", width=width, scheme=scheme)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    assert browser.execute_script("return document.querySelectorAll('table').length") == len(study.settings)
    # Whole words: the first column leaves room for them, whatever the other columns take.
    assert browser.execute_script("return document.querySelector('tbody th').getBoundingClientRect().width") >= 140
    heights = browser.execute_script("return [...document.querySelectorAll('svg text')].map(text => text.getBoundingClientRect().height)")
    assert min(heights) >= 8


def test_a_figure_alone_has_its_size_and_ink_that_its_ground_shows(browser, fake, tmp_path: Path):
    study, outcomes = fake()
    (tmp_path / "alone.svg").write_text(subjects_figure(study, outcomes), encoding="utf-8")
    (tmp_path / "page.html").write_text("<img src='alone.svg'>")
    show(browser, tmp_path / "page.html", width=1280, scheme="dark")
    assert browser.execute_script("const image = document.querySelector('img'); return [image.naturalWidth, image.width]") == [661, 661]
    show(browser, tmp_path / "alone.svg", width=1280, scheme="dark")
    ground = browser.execute_script("return getComputedStyle(document.documentElement).backgroundColor")
    ink = browser.execute_script("return getComputedStyle(document.querySelector('text')).fill")
    assert [sum(map(int, re.findall(r"\d+", colour))) > 382 for colour in (ground, ink)] == [True, False]
