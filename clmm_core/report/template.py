"""The report page as a jinja2 template: a Python string, because only .py files travel with Flower's bundle."""

STYLE = """
:root { color-scheme: light dark; --ink: #1a1f26; --muted: #5a6472; --grid: #d9dee5; --surface: #fefefe; --page: #f5f6f8;
  --accent: #0072b2; --line: #0071b1; --unseen: #d55e00; --validation: #e69f00; --seen: #56b4e9; --labelled: #0072b2; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8ebef; --muted: #a3adba; --grid: #363d47; --surface: #1b2027; --page: #12161b;
  --accent: #6bbcf0; --line: #4aa3e0; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif;
  overflow-wrap: anywhere; }
main, header, footer { max-width: 66rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 2.2rem; }
h1 { font-size: 1rem; font-weight: 600; color: var(--muted); margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.6rem 0 .4rem; }
h3 { font-size: 1rem; margin: 0 0 .2rem; }
p { margin: .3rem 0 .8rem; max-width: 46rem; }
.answer { font-size: clamp(1.2rem, 1rem + 1.2vw, 1.75rem); line-height: 1.35; font-weight: 600; max-width: 54rem; margin: .5rem 0 .8rem;
  text-wrap: pretty; }
.small, figcaption, caption { color: var(--muted); font-size: .875rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .75rem; margin: 1.2rem 0 0; padding: 0; }
.tiles div, figure, .box { background: var(--surface); border: 1px solid var(--grid); border-radius: 10px; }
.tiles div { padding: .7rem .9rem; }
.tiles dt { color: var(--muted); font-size: .8125rem; }
.tiles dd { margin: 0; font-size: 1.45rem; font-weight: 650; font-variant-numeric: tabular-nums; line-height: 1.3; }
.tiles dd small { display: block; color: var(--muted); font-size: .8125rem; font-weight: 400; overflow-wrap: anywhere; }
.box { overflow-x: auto; padding: .2rem .9rem .6rem; margin: .6rem 0; }
table { border-collapse: collapse; width: 100%; font-size: .9375rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: .5rem 0 .4rem; }
th, td { text-align: left; padding: .34rem .9rem .34rem 0; border-bottom: 1px solid var(--grid); vertical-align: baseline; }
thead th { color: var(--muted); font-weight: 600; font-size: .8125rem; white-space: nowrap; vertical-align: bottom; }
tbody th { font-weight: 600; min-width: 5rem; max-width: 18rem; }
td.sensors { white-space: nowrap; }
tbody tr:last-child > * { border-bottom: 0; }
td.number, th.number { text-align: right; white-space: nowrap; }
tr.group th { padding-top: 1rem; max-width: none; white-space: nowrap; }
tr.group td { padding-top: 1rem; color: var(--muted); white-space: nowrap; }
.dot { display: inline-block; width: .7em; height: .7em; border-radius: 50%; margin-right: .45em; background: var(--muted); }
.unseen { background: var(--unseen); } .validation { background: var(--validation); }
.seen { background: var(--seen); } .labelled { background: var(--labelled); }
.bar { display: inline-block; width: 6.5rem; height: .6rem; background: var(--grid); border-radius: 3px; overflow: hidden;
  margin-right: .6rem; }
.bar i { display: block; height: 100%; }
.plain i { background: var(--accent); }
.rough { color: var(--muted); }
.figures { display: grid; grid-template-columns: minmax(0, 1fr); gap: 1rem; }
figure { margin: 0; padding: .9rem 1rem .8rem; min-width: 0; }
figcaption { max-width: 46rem; margin-bottom: .5rem; }
.scroll { overflow-x: auto; }
svg { display: block; height: auto; max-width: max(100%, calc(var(--width) * .78)); }
ul, ol { padding-left: 1.2rem; margin: .4rem 0; } li { margin: .25rem 0; overflow-wrap: anywhere; max-width: 48rem; }
dl.terms { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .35rem 1.1rem; margin: .6rem 0; }
dl.terms dt { font-weight: 600; } dl.terms dd { margin: 0; overflow-wrap: anywhere; }
pre { background: var(--surface); border: 1px solid var(--grid); border-radius: 8px; padding: .7rem .9rem; font-size: .8125rem;
  white-space: pre-wrap; overflow-wrap: anywhere; }
code { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: .875em; overflow-wrap: anywhere; }
.columns { columns: 2 24rem; column-gap: 2rem; }
.columns div { display: flex; justify-content: space-between; gap: 1rem; border-bottom: 1px solid var(--grid); padding: .15rem 0;
  break-inside: avoid; }
footer { padding-top: 2rem; padding-bottom: 3rem; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
@media (max-width: 40rem) { dl.terms { grid-template-columns: minmax(0, 1fr); gap: 0; } dl.terms dd { margin-bottom: .6rem; }
  main, header, footer { padding-left: .9rem; padding-right: .9rem; } .tiles { grid-template-columns: 1fr 1fr; }
  .tiles div:last-child:nth-child(odd) { grid-column: 1 / -1; } .bar { width: 3rem; } th, td { padding-right: .7rem; } }
@media print { :root { color-scheme: light; --ink: #000; --muted: #444; --grid: #bbb; --surface: #fff; --page: #fff;
  --accent: #0072b2; --line: #0071b1; }
  html { font-size: 12px; } body { font-size: 1rem; } .bar { width: 4rem; } td.sensors { white-space: normal; }
  .tiles { grid-template-columns: repeat(5, 1fr); } h2 { break-after: avoid; } figure, tr, .tiles { break-inside: avoid; }
  svg { max-width: 100%; }
  .box, .scroll { overflow: visible; } * { print-color-adjust: exact;
  -webkit-print-color-adjust: exact; } }
"""

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ run.info.name }}: activity recognition on people it never saw</title>
<link rel="icon" href="data:,">
<style>{{ style }}</style>
</head>
<body>
<header>
<h1>{{ run.info.name }}</h1>
<p class="answer">{{ answer }}</p>
<p class="small">{{ explanation }}</p>
{% if tiles %}<dl class="tiles">{% for tile in tiles %}
<div><dt>{{ tile.name }}</dt><dd>{{ tile.figure }}<small>{{ tile.remark }}</small></dd></div>{% endfor %}
</dl>{% endif %}
</header>
<main>

<section aria-labelledby="people">
<h2 id="people">Each person</h2>
{% if groups %}
<p class="small">Accuracy is the share of a person’s windows recognised right. The interval holds the true share with 95 % confidence if
windows were independent; they are not quite, so it is rather too narrow. ≈ marks fewer than {{ few_windows }} windows: a rough figure. Gain
is the percentage points won by fine-tuning on a few labelled windows of that person.</p>
<div class="box" tabindex="0" role="region" aria-label="Table of subjects, scrolls sideways">
<table>
<caption>Unseen people first; in each group the worst first</caption>
<thead><tr><th scope="col">Person</th><th scope="col">Accuracy</th><th scope="col" class="number">95 % interval</th>
<th scope="col" class="number">Windows</th><th scope="col" class="number">Macro-F1</th><th scope="col" class="number"><abbr
title="expected calibration error">ECE</abbr></th><th scope="col" class="number">Gain</th><th scope="col">Sensors</th></tr></thead>
{% for group in groups %}
<tbody>
<tr class="group"><th scope="rowgroup"><span class="dot {{ group.name }}"></span>{{ group.name }}</th>
<td colspan="7">{{ group.line }}</td></tr>
{% for row in group.rows %}
<tr><th scope="row">{{ row.subject }}</th>
<td class="number" style="text-align: left"><span class="bar" aria-hidden="true"><i class="{{ group.name }}"
style="width: {{ row.width }}%"></i></span><span{% if row.is_rough %} class="rough"{% endif %}>{{ row.accuracy }}</span></td>
<td class="number">{{ row.interval }}</td><td class="number">{{ row.windows }}</td><td class="number">{{ row.macro_f1 }}</td>
<td class="number">{{ row.ece }}</td><td class="number">{{ row.gain }}</td><td class="sensors">{{ row.sensors }}</td></tr>
{% endfor %}
</tbody>
{% endfor %}
</table>
</div>
{% else %}<p>No person was evaluated in this run.</p>{% endif %}
</section>

<section aria-labelledby="figures">
<h2 id="figures">Pictures</h2>
<div class="figures">
{% for figure in figures %}
<figure>
<h3>{{ figure.title }}</h3>
{% if figure.svg %}<figcaption>{{ figure.caption }}</figcaption><div class="scroll" tabindex="0" role="region"
aria-label="{{ figure.title }}, scrolls sideways">{{ figure.svg }}</div>
{% else %}<figcaption>Not shown: {{ figure.reason }}</figcaption>{% endif %}
</figure>
{% endfor %}
</div>
</section>

<section aria-labelledby="left-out">
<h2 id="left-out">What was left out</h2>
{% if run.notes or left_out %}<ul>
{% for note in run.notes %}<li>{{ note }}</li>{% endfor %}
{% for reason, times in left_out %}<li>{{ reason }}{% if times > 1 %} <span class="small">({{ times }} times)</span>{% endif %}</li>
{% endfor %}
{% if num_left_out_hidden %}<li>{{ num_left_out_hidden }} more kinds, in rounds.jsonl</li>{% endif %}
</ul>{% else %}<p>Nothing was reported as left out.</p>{% endif %}
</section>

<section aria-labelledby="training">
<h2 id="training">How it was trained</h2>
<p>{{ run.card.trained_on }}</p>
<dl class="terms">
{% for term in training %}<dt>{{ term.name }}</dt><dd>{{ term.text }}</dd>{% endfor %}
</dl>
{% if stages %}
<div class="box" tabindex="0" role="region" aria-label="Table of stages, scrolls sideways"><table>
<caption>Stages in the order they ran</caption>
<thead><tr><th scope="col">Stage</th><th scope="col" class="number">Rounds</th><th scope="col" class="number">Devices a step</th>
<th scope="col" class="number">Hosts</th><th scope="col" class="number">Windows trained on</th><th scope="col" class="number">Last loss</th>
<th scope="col" class="number">Time</th></tr></thead>
<tbody>{% for stage in stages %}
<tr><th scope="row">{{ stage.name }}</th>{% for cell in stage.cells %}<td class="number">{{ cell }}</td>{% endfor %}</tr>{% endfor %}
</tbody></table></div>
{% endif %}
{% if privacy %}
<h3 style="margin-top: 1rem">Differential privacy</h3>
<p>The model holds {{ privacy.text }}.</p>
<p>{{ privacy.not_covered }}</p>
{% endif %}
{% if communication %}
<h3 style="margin-top: 1rem">What was sent</h3>
<p>{{ communication.text }}</p>
<div class="box" tabindex="0" role="region" aria-label="Table of bytes sent, scrolls sideways"><table>
<caption>Training’s bytes between the server and all hosts, by the part of the model they belong to</caption>
<thead><tr><th scope="col" rowspan="2">Part</th>{% for column in communication.columns %}
<th scope="colgroup" colspan="2" class="number">{{ column }}</th>{% endfor %}</tr>
<tr>{% for _ in communication.columns %}<th scope="col" class="number">down</th>
<th scope="col" class="number">up</th>{% endfor %}</tr></thead>
<tbody>{% for row in communication.rows %}
<tr><th scope="row">{{ row[0] }}</th>{% for cell in row[1:] %}<td class="number">{{ cell }}</td>{% endfor %}</tr>{% endfor %}
</tbody></table></div>
{% endif %}
{% if quality %}
<div class="box" tabindex="0" role="region" aria-label="Table of sensor quality, scrolls sideways"><table>
<caption>Measured quality of each sensor’s embeddings; they sum to 1 and guide how much each sensor is listened to</caption>
<thead><tr><th scope="col">Sensor</th><th scope="col">Quality</th></tr></thead>
<tbody>{% for row in quality %}<tr><th scope="row">{{ row.name }}</th><td><span class="bar plain" aria-hidden="true"><i
style="width: {{ row.width }}%"></i></span>{{ row.figure }}</td></tr>{% endfor %}</tbody></table></div>
{% endif %}
<h3>To run it again</h3>
<pre><code>{{ command }}</code></pre>
<h3>Run config</h3>
<div class="columns">{% for key, value in config %}<div><code>{{ key }}</code><code>{{ value }}</code></div>{% else %}<p>Empty: all
defaults.</p>{% endfor %}</div>
<h3 style="margin-top: 1rem">Versions</h3>
<p>{% for name, version in versions %}{{ name }} {{ version }}{{ ", " if not loop.last }}{% endfor %}</p>
</section>

<section aria-labelledby="words">
<h2 id="words">Words</h2>
<dl class="terms">
{% for term in glossary %}<dt>{% if term.dot %}<span class="dot {{ term.name }}"></span>{% endif %}{{ term.name }}</dt>
<dd>{{ term.text }}</dd>
{% endfor %}</dl>
</section>
</main>
<footer class="small">CLMM results of {{ run.info.name }}, started {{ run.info.started_at }}.
This page holds all it shows and fetches nothing.</footer>
</body>
</html>
"""
