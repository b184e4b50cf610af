import dataclasses
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from clmm_core.report.lines import GROUP_MEANINGS, headline
from clmm_core.report.page import render, render_into
from clmm_core.report.records import Embedding, RunRecord
from clmm_core.report.run_folder import RunFolder

VOID = {"meta", "link", "br", "img", "hr", "input"}
ACTIVITIES = tuple(
    f"{verb} {way}"
    for verb in ("swipe", "draw", "throw")
    for way in ("left", "right", "up", "down", "slowly", "fast", "twice", "in a circle (counter clockwise)", "again")
)


class Outline(HTMLParser):
    """Tags in order, checked to close in the order they opened, and the text outside of style."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]


def bare(run: RunRecord) -> RunRecord:
    """Nobody evaluated, nothing recorded."""
    info = dataclasses.replace(run.info, run_config={}, versions={})
    return dataclasses.replace(run, info=info, subjects=(), rounds=(), embedding=Embedding(), quality={}, notes=())


def test_the_page_is_well_formed_and_answers_first(make_run):
    run = make_run()
    page = Outline(render(run))
    assert page.open == []
    assert page.tags[0] == ("html", {"lang": "en"})
    text = " ".join(page.text.replace("\u00a0", " ").split())
    assert text.index(headline(run)) < text.index("Each person") < text.index("What is mistaken") < text.index("What was left out")
    assert text.index("What was left out") < text.index("How it was trained") < text.index("Words")


def test_the_page_of_a_run_that_is_not_finished_yet_is_drawn_from_its_folder(make_run, tmp_path: Path):
    run = make_run()
    folder = RunFolder.create(tmp_path, "run")
    folder.write_results(run)
    render_into(folder.partial)
    assert (folder.partial / "report.html").read_text() == render(run)


def test_every_subject_is_in_the_table_the_worst_unseen_one_first(make_run):
    run = make_run(subjects=30)
    names = re.findall(r'<th scope="row">(S\d+)</th>', render(run))
    assert sorted(names) == sorted(subject.subject for subject in run.subjects)
    worst = re.search(r"the worst is (S\d+)", headline(run)).group(1)
    assert names[0] == worst


@pytest.mark.parametrize("size", [{}, {"subjects": 8, "classes": ACTIVITIES}])
def test_nothing_is_fetched(make_run, size: dict):
    html = render(make_run(**size))
    assert not re.search(r"https?://|@import|url\((?!#)", html)
    page = Outline(html)
    assert page.all("script") == []
    references = [
        value for _, attributes in page.tags for name, value in attributes.items() if name in ("src", "href", "xlink:href", "srcset")
    ]
    assert all(value.startswith(("#", "data:")) for value in references)


def test_what_people_typed_is_text_not_markup(make_run):
    evil = "<script>alert('x')</script>"
    run = make_run()
    first = dataclasses.replace(run.subjects[0], subject=evil, modalities=(evil,))
    run = dataclasses.replace(
        run,
        info=dataclasses.replace(run.info, name=evil, machine=evil, run_config={evil: evil}, versions={evil: evil}),
        split=dataclasses.replace(run.split, classes=(evil, *run.split.classes[1:]), test=(evil,)),
        rounds=(dataclasses.replace(run.rounds[0], left_out=(evil,)), *run.rounds[1:]),
        subjects=(first, *run.subjects[1:]),
        quality={evil: 1.0},
        card=dataclasses.replace(run.card, trained_on=evil, architecture={evil: evil}),
        notes=(evil,),
    )
    html = render(run)
    assert "<script" not in html
    assert Outline(html).all("script") == []
    assert Outline(html).text.count(evil) >= 10


def test_it_can_be_read_without_seeing_it(make_run):
    page = Outline(render(make_run()))
    assert len(page.all("h1")) == 1
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert len(page.all("svg")) == 6
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in page.all("svg"))
    assert len(page.all("caption")) == len(page.all("table")) == 4
    assert all("scope" in th for th in page.all("th"))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_it_says_how_the_model_was_made_and_what_was_left_out(make_run):
    run = make_run()
    text = " ".join(Outline(render(run)).text.split())
    for part in (
        *run.notes,
        "S07: no reply in time",
        "clmm run --set",
        "train.client-lr",
        "torch 2.11.0",
        run.card.trained_on,
        "5 windows of each class on each",
        "160,384 parameters",
        "0.57",
        "576 kB",
        "Updates go up as they are",
        *GROUP_MEANINGS.values(),
    ):
        assert part in text


def test_what_is_missing_is_said_with_its_reason(make_run):
    page = Outline(render(bare(make_run())))
    assert page.all("svg") == []
    assert page.text.count("Not shown: ") == 6
    assert "What was sent" not in page.text
    for part in ("says nothing about how well", "No person was evaluated", "Nothing was reported as left out", "clmm run\n"):
        assert part in page.text + "\n"


def test_few_windows_are_marked_as_rough(make_run):
    html = render(make_run())
    rough = re.findall(r'<th scope="row">(S\d+)</th>\s*<td[^>]*><span[^>]*><i[^>]*></i></span><span class="rough">≈', html)
    assert rough == ["S02"]  # the one with 41 windows


# In a real browser.


RUNS = {
    "10 subjects, 7 classes": lambda make: make(),
    "8 subjects, 27 classes": lambda make: make(subjects=8, classes=ACTIVITIES),
    "one subject": lambda make: dataclasses.replace(make(), subjects=make().subjects[5:6], rounds=make().rounds[:2]),
    "nobody, long names": lambda make: dataclasses.replace(
        bare(make()), info=dataclasses.replace(make().info, name="long" * 60, machine="x" * 300)
    ),
}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("kind", RUNS)
def test_a_browser_shows_it_without_errors_or_sideways_scrolling(browser, make_run, tmp_path: Path, kind: str, width: int, scheme: str):
    (tmp_path / "report.html").write_text(render(RUNS[kind](make_run)), encoding="utf-8")
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get((tmp_path / "report.html").as_uri())
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    page, ink = (browser.execute_script(f"return getComputedStyle(document.body).{name}") for name in ("backgroundColor", "color"))
    assert (_lightness(page) > _lightness(ink)) == (scheme == "light")


def _lightness(colour: str) -> int:
    return sum(int(part) for part in re.findall(r"\d+", colour)[:3])


def test_figures_follow_dark_mode_and_stay_readable_on_a_phone(browser, make_run, tmp_path: Path):
    (tmp_path / "report.html").write_text(render(make_run()), encoding="utf-8")
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": 390, "height": 900, "deviceScaleFactor": 1, "mobile": True})
    fills = {}
    for scheme in ("light", "dark"):
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
        browser.get((tmp_path / "report.html").as_uri())
        fills[scheme] = browser.execute_script("return getComputedStyle(document.querySelector('svg text')).fill")
        heights = browser.execute_script(
            "return [...document.querySelectorAll('svg text')].map(text => text.getBoundingClientRect().height)"
        )
        assert min(heights) >= 8
    assert _lightness(fills["dark"]) > _lightness(fills["light"])
