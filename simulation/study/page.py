"""What a study leaves to read: one HTML page that fetches nothing, and a section for a page of the documentation."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from clmm_core.report.lines import plural
from clmm_core.report.records import RunInfo
from clmm_core.report.template import STYLE
from simulation.study.cells import Done
from simulation.study.figures import TITLES, caption, study_figures
from simulation.study.outcomes import Outcome
from simulation.study.plan import Study
from simulation.study.tables import columns_in_words, study_tables, tables_of, what_is_missing, what_was_run

WIDER = """
main, header, footer { max-width: 84rem; }
thead th { white-space: normal; } tbody th { min-width: min(13rem, 38vw); overflow-wrap: break-word; }
"""
"""More columns than a run's report has, and names as long as a method's."""
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ study.title }}</title>
<link rel="icon" href="data:,">
<style>{{ style }}</style>
</head>
<body>
<header>
<h1 class="answer" style="color: var(--ink)">{{ study.title }}</h1>
<p>{{ what_was_run }}</p>
{% if what_is_missing %}<p><strong>{{ what_is_missing }}</strong></p>{% endif %}
</header>
<main>

{% if failed %}
<section aria-labelledby="failed">
<h2 id="failed">What failed</h2>
<ul>{% for done in failed %}<li><code>{{ done.what }}</code>: {{ done.error }}</li>{% endfor %}</ul>
</section>
{% endif %}

<section aria-labelledby="tables">
<h2 id="tables">Methods compared</h2>
{% for table in tables %}
<div class="box" tabindex="0" role="region" aria-label="Table of methods{{ ", " + table.setting if table.setting }}, scrolls sideways">
<table>
<caption>{{ table.setting or "In percent; differences in percentage points" }}</caption>
<thead><tr>{% for name in table.header %}<th scope="col"{% if not loop.first %} class="number"{% endif %}>{{ name }}</th>{% endfor %}</tr>
</thead>
<tbody>
{% for row in table.rows %}
<tr><th scope="row">{{ row[0] }}</th>{% for cell in row[1:] %}<td class="number">{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</tbody>
</table>
</div>
{% endfor %}
</section>

<section aria-labelledby="figures">
<h2 id="figures">Pictures</h2>
<div class="figures">
{% for figure in figures %}
<figure>
<h3>{{ figure.title }}</h3>
<figcaption>{{ figure.caption }}</figcaption>
<div class="scroll" tabindex="0" role="region" aria-label="{{ figure.title }}, scrolls sideways">{{ figure.svg }}</div>
</figure>
{% else %}<p>No run is finished, so there is nothing to draw.</p>{% endfor %}
</div>
</section>

<section aria-labelledby="words">
<h2 id="words">Columns</h2>
<dl class="terms">{% for name, text in columns.items() %}<dt>{{ name }}</dt><dd>{{ text }}</dd>{% endfor %}</dl>
</section>

<section aria-labelledby="made">
<h2 id="made">How it was made</h2>
<pre><code>{{ command }}</code></pre>
<p>{{ how_made }}</p>
</section>
</main>
<footer class="small">This page holds all it shows and fetches nothing.</footer>
</body>
</html>
"""


def render_study(study: Study, outcomes: Sequence[Outcome], failed: Sequence[Done], command: str) -> str:
    """Return the whole page as one self-contained HTML document.

    Args:
        study: what was asked for.
        outcomes: of every run that is finished.
        failed: what went wrong while these were run.
        command: what runs the study again.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    tables = tables_of(study, outcomes)
    return environment.from_string(PAGE).render(
        study=study,
        style=Markup(STYLE + WIDER),
        what_was_run=what_was_run(study),
        what_is_missing=what_is_missing(study, outcomes),
        failed=failed,
        tables=tables,
        columns=columns_in_words(study, tables),
        figures=[
            {"title": TITLES[name], "caption": caption(study, name), "svg": _inline(svg)}
            for name, svg in study_figures(study, outcomes).items()
        ],
        command=command,
        how_made=how_made([outcome.info for outcome in outcomes]),
    )


def study_markdown(study: Study, outcomes: Sequence[Outcome], failed: Sequence[Done], command: str, figures: Mapping[str, str]) -> str:
    """Return the study's section of a Markdown page.

    Args:
        study: what was asked for.
        outcomes: of every run that is finished.
        failed: what went wrong while these were run.
        command: what runs the study again.
        figures: by name in `figures.TITLES`, where each figure lies as seen from the page.
    """
    parts = [how_made([outcome.info for outcome in outcomes]), f"    {command}", study_tables(study, outcomes)]
    parts += ["Failed:\n\n" + "\n".join(f"- `{done.what}`: {escape(done.error, quote=False)}" for done in failed)] if failed else []
    parts += [f"![{TITLES[name]}]({path})\n\n{TITLES[name]}. {caption(study, name)}" for name, path in figures.items()]
    return "\n\n".join(parts)


def how_made(infos: Sequence[RunInfo]) -> str:
    """Return versions and machines of the runs in a sentence or two; where runs differ, every value with its number of runs."""
    if not infos:
        return "No run is finished."
    names = list(dict.fromkeys(name for info in infos for name in info.versions))
    versions = {name: _values(info.versions[name] for info in infos if name in info.versions) for name in names}
    code = versions.pop("code", "")
    packages = ", ".join(f"{name} {values}" for name, values in versions.items())
    machines = _values(info.machine for info in infos)
    codes = {info.versions["code"] for info in infos if "code" in info.versions}
    several = (
        f" The runs come from {len(codes)} states of the code, so a difference between them may be the code's." if len(codes) > 1 else ""
    )
    return f"Measured with {packages} on {machines}" + (f"; code {code}." if code else ".") + several


def _values(of_runs: Iterable[str]) -> str:
    """Return a value that all runs share, or each with how many have it."""
    counts = Counter(of_runs)
    if len(counts) == 1:
        return next(iter(counts))
    return " and ".join(f"{value} ({plural(number, 'run')})" for value, number in counts.most_common())


def _inline(svg: str) -> Markup:
    """Mark a figure as safe; in HTML an inline `<svg>` needs no namespaces, so the page holds no address at all."""
    return Markup(svg.replace(' xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"', "", 1))
