"""The results for people: `results.md` with a drawing of each table, and one page with everything."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Mapping

from markupsafe import Markup

from hybridvla_core.evaluation.ablation.words import claims_of, markdown, parts_of
from hybridvla_core.files import write_text
from hybridvla_core.report import page
from hybridvla_core.report.svg import AMBER, BLUE, Drawing

PAGE = """{% extends "base.html" %}{% from "parts.html" import table %}
{% block title %}Results{% endblock %}
{% block body %}<h1>Results</h1><p>{{ meta.sentence | replace("`", "") }}</p><p><code>{{ meta.command }}</code></p>
{% if claims %}<h2>What the paper says, and what was found here</h2>
{{ table(["the paper", "here"], claims, numbers=false) }}{% endif %}
{% if not_run %}<p class=fail>Not run, and counted as nothing: {{ not_run | join("; ") }}</p>{% endif %}
{% for part in parts %}<h2>{{ part.title }}</h2><p>{{ part.about }}</p>
{% for claim in part.claims %}<p>{{ "Our own claim" if claim.ours else "The paper" }}: {{ claim.text }}.
<b>{{ claim.verdict }}</b> ({{ claim.test }}).</p>{% endfor %}
{{ part.drawing }}{{ table(part.head, part.rows) }}{% for text in part.remarks %}<p>{{ text }}</p>{% endfor %}{% endfor %}
{% endblock %}"""


def drawing(table: Mapping[str, Any]) -> Drawing:
    """Returns bars of success rates with their intervals, and the paper's figures beside them."""
    rows, high, left, wide = table["rows"], 26, 250, 520
    made = Drawing(left + wide + 110, high * len(rows) + 34, table["title"])
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


def bars(sheet: Mapping[str, Any]) -> Drawing:
    """Returns the bars of a sheet: name, length, the text after it, and the paper's length if there is one."""
    rows, high, left, wide = sheet["bars"], 26, 250, 520
    most = max([value for row in rows for value in (row[1], row[3] or 0.0)] + [1e-9])
    made = Drawing(left + wide + 110, high * len(rows) + 34, sheet["title"])
    for number, (name, value, text, theirs) in enumerate(rows):
        top = 6 + high * number
        made.text(left - 8, top + 13, name, "end")
        made.rectangle(left, top, max(1.0, wide * value / most), 16, BLUE, tip=text)
        made.text(left + wide * value / most + 8, top + 13, text)
        if theirs is not None:
            made.rectangle(left + wide * theirs / most - 1.5, top - 2, 3, 20, AMBER, tip=f"paper {theirs:.3g}")
    made.text(left, high * len(rows) + 24, sheet["unit"])
    return made


def write(result: Mapping[str, Any], folder: Path) -> None:
    """Writes `results.json`, `results.md`, its drawings in `images`, and `index.html` into a folder.

    Raises:
        OSError: The folder cannot be written.
    """
    document(result, folder)
    drawn = {**{table["name"]: drawing(table) for table in result["tables"]},
             **{sheet["name"]: bars(sheet) for sheet in result.get("sheets", []) if sheet.get("bars")}}
    parts = [{**part, "drawing": drawn[part["name"]].markup() if part["drawn"] else Markup("")} for part in parts_of(result)]
    absent = [*(table["title"] for table in result.get("unmade", [])), *result["not_run"]]
    claims = [[claim["text"], claim["verdict"]] for claim in claims_of(result)]
    write_text(folder / "index.html", page.render(PAGE, {**result, "not_run": absent, "parts": parts, "claims": claims}))


def document(result: Mapping[str, Any], folder: Path) -> None:
    """Writes the files that are kept with the documents: `results.json`, `results.md`, `images/results-*.svg`.

    Raises:
        OSError: The folder cannot be written.
    """
    write_text(folder / "results.json", json.dumps(result, indent=1) + "\n")
    for table in result["tables"]:
        write_text(folder / "images" / f"results-{table['name']}.svg", drawing(table).document())
    for sheet in result.get("sheets", []):
        if sheet.get("bars"):
            write_text(folder / "images" / f"results-{sheet['name']}.svg", bars(sheet).document())
    write_text(folder / "results.md", markdown(result))
