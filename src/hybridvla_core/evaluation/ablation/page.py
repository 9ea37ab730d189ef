"""What people read: `results.md` with a drawing of each table, and one page with everything."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, List, Mapping

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from hybridvla_core.files import write_text
from hybridvla_core.report import page
from hybridvla_core.report.svg import AMBER, BLUE, Drawing

MARKDOWN = """# Results

{{ meta.sentence }}

`{{ meta.command }}` wrote this page; `results.json` beside it has every number. Rates stand with their 95 % Wilson interval.
Verdicts come from a test on the same episodes for both sides, which is named with each.
{% if not_run %}

Not run, and counted as nothing:
{% for text in not_run %}
- {{ text }}
{% endfor %}
{% endif %}
{% for table in tables %}

## {{ table.title }}

{{ table.about }}

![{{ table.title }}](results/{{ table.name }}.svg)

| | success | 95 % | episodes | paper | averaged | violations |{% for task in tasks(table) %} {{ task }} |{% endfor %}

|---|---|---|---|---|---|---|{% for task in tasks(table) %}---|{% endfor %}

{% for row in table.rows %}
| {{ row.label }} | {{ "%.3f" | format(row.rate) }} | {{ "%.3f to %.3f" | format(*row.interval) }} | {{ row.episodes }} | \
{{ "%.2f" | format(row.paper) if row.paper is not none else "" }} | \
{{ "%.2f" | format(row.fused) if row.fused is not none else "" }} | {{ row.violations }} |\
{% for task in tasks(table) %} {{ share(row, task) }} |{% endfor %}

{% endfor %}
{% for row in table.rows if row.failures %}
{{ "\n" if loop.first }}{{ row.label }}, failed episodes by the paper's classes: {% for kind, count in row.failures.items() %}\
{{ kind }} {{ count }}{{ ", " if not loop.last }}{% endfor %}.
{% endfor %}
{% for claim in table.claims %}
{{ "\n" if loop.first }}- The paper: {{ claim.text }}. **{{ claim.verdict | capitalize }}** ({{ claim.test }}\
{% for other, pair in claim.compared.items() if pair %}; \
against {{ other }} {{ "%+.3f" | format(pair.difference) }}, {{ "%+.3f to %+.3f" | format(*pair.interval) }}, \
p {{ "%.3g" | format(pair.p) }}, {{ pair.episodes }} pairs{% endfor %}).
{% endfor %}
{% endfor %}
"""

PAGE = """{% extends "base.html" %}{% from "parts.html" import table %}
{% block title %}Results{% endblock %}
{% block body %}<h1>Results</h1><p>{{ meta.sentence }}</p><p><code>{{ meta.command }}</code></p>
{% if not_run %}<p class=fail>Not run, and counted as nothing: {{ not_run | join("; ") }}</p>{% endif %}
{% for part in parts %}<h2>{{ part.title }}</h2><p>{{ part.about }}</p>
{% for claim in part.claims %}<p>The paper: {{ claim.text }}. <b>{{ claim.verdict }}</b> ({{ claim.test }}).</p>{% endfor %}
{{ part.drawing }}{{ table(part.head, part.rows) }}{% endfor %}
{% endblock %}"""


def markdown(result: Mapping[str, Any]) -> str:
    """Returns `results.md` of a result; a function of the result alone."""
    environment = Environment(autoescape=False, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
                              keep_trailing_newline=False)
    environment.globals.update(tasks=_tasks, share=_share)
    text = environment.from_string(MARKDOWN).render(**result)
    lines: List[str] = []
    for line in (line.rstrip() for line in text.splitlines()):
        if line or (lines and lines[-1]):
            lines.append(line)
    return "\n".join(lines).rstrip() + "\n"


def drawing(table: Mapping[str, Any]) -> Drawing:
    """Draws a table: a bar for each rate, a line for its interval, an amber mark where the paper stands."""
    rows = table["rows"]
    left, wide, high = 270, 560, 24
    made = Drawing(left + wide + 90, high * len(rows) + 34, table["title"])
    for number, row in enumerate(rows):
        top = 6 + high * number
        made.text(left - 8, top + 13, row["label"], "end")
        if row["episodes"]:
            low, up = row["interval"]
            made.rectangle(left, top, max(1.0, wide * row["rate"]), 16, BLUE, tip=f"{row['successes']} of {row['episodes']}")
            made.rectangle(left + wide * low, top + 7, max(1.0, wide * (up - low)), 2, "#1d2126", tip=f"{low:.3f} to {up:.3f}")
            made.text(left + wide + 8, top + 13, f"{row['rate']:.3f}")
        else:
            made.text(left + 4, top + 13, "not run")
        if row["paper"] is not None:
            made.rectangle(left + wide * row["paper"] - 1.5, top - 2, 3, 20, AMBER, tip=f"paper {row['paper']:.2f}")
    made.text(left, high * len(rows) + 24, "success rate from 0 to 1; line: 95 % interval; amber: the paper, on its own tasks")
    return made


def write(result: Mapping[str, Any], folder: Path) -> None:
    """Writes `results.json`, `results.md`, `results/*.svg` and `index.html` into a folder.

    Raises:
        OSError: The folder cannot be written.
    """
    write_text(folder / "results.json", json.dumps(result, indent=1, sort_keys=True) + "\n")
    for table in result["tables"]:
        write_text(folder / "results" / f"{table['name']}.svg", drawing(table).document())
    write_text(folder / "results.md", markdown(result))
    write_text(folder / "index.html", page.render(PAGE, {**result, "parts": [_part(table) for table in result["tables"]]}))


def _part(table: Mapping[str, Any]) -> Dict[str, Any]:
    head = ["", "success", "95 %", "episodes", "paper", "averaged", "violations", "failures"]
    rows = [[row["label"], row["rate"], "{:.3f} to {:.3f}".format(*row["interval"]), row["episodes"], row["paper"], row["fused"],
             row["violations"], row["failures"]] for row in table["rows"]]
    return {**table, "head": head, "rows": rows, "drawing": Markup(drawing(table).markup())}


def _tasks(table: Mapping[str, Any]) -> List[str]:
    names = sorted({task for row in table["rows"] for task in row["per_task"]})
    return names if len(names) > 1 else []


def _share(row: Mapping[str, Any], task: str) -> str:
    found = row["per_task"].get(task)
    return f"{found['successes'] / found['episodes']:.2f}" if found else ""
