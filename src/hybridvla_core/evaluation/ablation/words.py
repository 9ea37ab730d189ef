"""`results.md`: a result in words and tables, which depends on the result alone."""
from __future__ import annotations

from typing import Any, Dict, List, Mapping, Tuple

from jinja2 import Environment, StrictUndefined

MARKDOWN = """# Results

{{ meta.sentence }}

```
{{ meta.command }}
```
{% if meta.machine %}

Run on: {{ meta.machine }}.
{% endif %}

The command wrote this page; `results.json` beside it has every number. Rates stand with their 95 % Wilson interval. A verdict
comes from the test that is named with it, on the same episodes for both sides. Where few episodes were run, most cannot be told.
{% if claims %}

## What the paper says, and what was found here

| the paper | here |
|---|---|
{% for claim in claims %}
| {{ claim.text }} | **{{ claim.verdict }}** |
{% endfor %}
{% endif %}
{% if not_run or unmade %}

Not run, and counted as nothing:

{% for table in unmade %}
- {{ table.title }}: `hybridvla ablate {{ table.name }}{{ meta.quick }}`{{ " (" + table.why + ")" if table.why }}
{% endfor %}
{% for text in not_run %}
- {{ text }}
{% endfor %}
{% endif %}
{% for part in parts %}

## {{ part.title }}

{{ part.about }}
{% if part.drawn %}

![{{ part.title }}](images/results-{{ part.name }}.svg)
{% endif %}

{{ part.head | line }}
{{ part.rule | line }}
{% for row in part.rows %}
{{ row | line }}
{% endfor %}
{% for text in part.remarks %}
{{ "\n" if loop.first }}{{ text }}
{% endfor %}
{% for claim in part.claims %}
{% set who = "Our own claim" if claim.ours else "The paper" %}
{{ "\n" if loop.first }}- {{ who }}: {{ claim.text }}. **{{ claim.verdict | capitalize }}** ({{ claim.test }}{{ claim | pairs }}).
{% endfor %}
{% endfor %}
"""


def markdown(result: Mapping[str, Any]) -> str:
    """Returns the page of a result."""
    environment = Environment(autoescape=False, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
                              keep_trailing_newline=False)
    environment.filters.update(line=_line, pairs=_pairs)
    parts = parts_of(result)
    unmade = result.get("unmade", [])
    meta = {**result["meta"], "quick": " --quick" if " --quick " in result["meta"]["command"] else ""}
    text = environment.from_string(MARKDOWN).render(meta=meta, not_run=result["not_run"], unmade=unmade, parts=parts,
                                                    claims=claims_of(result))
    lines: List[str] = []
    for line in (line.rstrip() for line in text.splitlines()):
        if line or (lines and lines[-1]):
            lines.append(line)
    return "\n".join(lines).rstrip() + "\n"


def parts_of(result: Mapping[str, Any]) -> List[Dict[str, Any]]:
    """Returns tables and sheets in one form: `name`, `title`, `about`, `head`, `rows` of texts, `remarks`, `claims`, `drawn`."""
    found = []
    for table in result["tables"]:
        head, rows = _grid(table)
        found.append({**table, "head": head, "rows": rows, "remarks": _failures(table), "drawn": True,
                      "claims": [{"ours": False, **claim} for claim in table["claims"]]})
    for sheet in result.get("sheets", []):
        rows = [[shown(value) for value in row] for row in sheet["rows"]]
        found.append({**sheet, "rows": rows, "remarks": sheet.get("remarks", []), "drawn": bool(sheet.get("bars")),
                      "claims": [{"ours": False, **claim} for claim in sheet["claims"]]})
    return [{**part, "rule": ["---"] * len(part["head"])} for part in found]


def claims_of(result: Mapping[str, Any]) -> List[Dict[str, str]]:
    """Returns `text` and `verdict` of every claim, including claims about what was not run; a claim of our own says so."""
    made = [claim for part in [*result["tables"], *result.get("sheets", [])] for claim in part["claims"]]
    absent = [{"text": text, "verdict": "not run"} for table in result.get("unmade", []) for text in table["claims"]]
    return [{"text": f"our own claim: {claim['text']}" if claim.get("ours") else claim["text"], "verdict": claim["verdict"]}
            for claim in [*made, *absent]]


def shown(value: object) -> str:
    """Returns a cell's text: three decimals, empty for None."""
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _grid(table: Mapping[str, Any]) -> Tuple[List[str], List[List[str]]]:
    """Returns head and rows of a table; a column that would say nothing is left out."""
    rows, reference = table["rows"], next((row for row in table["rows"] if row["change"] is None), None)
    changes = any(row["change"] is not None for row in rows)
    tasks = sorted({task for row in rows for task in row["per_task"]})
    tasks = tasks if len(tasks) > 1 else []
    fused = any(row["fused"] for row in rows)
    head = ["", "success", "95 %", "episodes", "variance", "paper", *(["change", "paper's"] if changes else []),
            "median error, mm", *(["averaged"] if fused else []), "limit violations", *tasks]
    grid = []
    for row in rows:
        if not row["episodes"]:
            grid.append([row["label"], "not run", "", "0", "", shown(row["paper"])] + [""] * (len(head) - 6))
            continue
        theirs = None
        if row["change"] is not None and reference and row["paper"] is not None and reference["paper"]:
            theirs = row["paper"] / reference["paper"] - 1.0
        change = [f"{value:+.0%}" if value is not None else "" for value in (row["change"], theirs)] if changes else []
        won = [row["per_task"].get(task) for task in tasks]
        grid.append([row["label"], shown(row["rate"]), "{:.3f} to {:.3f}".format(*row["interval"]), str(row["episodes"]),
                     f"{row['variance']:.4f}", "" if row["paper"] is None else f"{row['paper']:.2f}", *change,
                     "" if row["median_error_mm"] is None else f"{row['median_error_mm']:.1f}",
                     *([f"{row['fused']:.2f}"] if fused else []), str(row["violations"]),
                     *("" if one is None else f"{one['successes'] / one['episodes']:.2f}" for one in won)])
    for name, rate in table["elsewhere"]:
        grid.append([name, "", "", "", "", f"{rate:.2f}"] + [""] * (len(head) - 6))
    return head, grid


def _failures(table: Mapping[str, Any]) -> List[str]:
    counted = [f"{row['label']}: {', '.join(f'{kind} {count}' for kind, count in row['failures'].items())}"
               for row in table["rows"] if row["failures"]]
    return [f"Failed episodes by the paper's classes: {'; '.join(counted)}."] if counted else []


def _line(cells: List[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _pairs(claim: Mapping[str, Any]) -> str:
    told = [f"; against {other} {pair['difference']:+.3f}, {pair['interval'][0]:+.3f} to {pair['interval'][1]:+.3f}, "
            f"p {pair['p']:.3g}, {pair['episodes']} pairs" for other, pair in claim["compared"].items() if pair]
    return "".join(told)
