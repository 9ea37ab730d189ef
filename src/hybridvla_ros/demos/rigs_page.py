"""The page of `make rigs`: shows what each rig did, in one self-contained HTML file."""
from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Mapping

from hybridvla_core.report.page import render

TITLES = {"fr3": "Franka Research 3 (stand-in for franka_ros)", "agilex": "AgileX dual arm (stand-in for the Piper driver)"}
TEMPLATE = """{% extends "base.html" %}
{% from "parts.html" import table %}
{% block title %}HybridVLA rigs{% endblock %}
{% block body %}
<h1>HybridVLA on both rigs, without hardware</h1>
{% for rig in rigs %}
<h2>{{ rig.title }}: {{ rig.successes }} of {{ rig.episodes }} episodes successful</h2>
{% if rig.error %}
<p class="fail">{{ rig.error }}; see its logs beside this page</p>
{% else %}
{{ table(rig.head, rig.rows, numbers=false) }}
{{ table([], rig.numbers, numbers=false) }}
{% if rig.events %}
<details><summary>What happened, {{ rig.events | length }} lines</summary>
{{ table([], rig.events, numbers=false) }}
</details>
{% endif %}
{% endif %}
{% endfor %}
{% endblock %}
"""


def write_page(folder: Path, summary: Mapping[str, Any]) -> None:
    """Writes `index.html` beside `summary.json`."""
    page = render(TEMPLATE, {"rigs": [_rig(name, part) for name, part in summary.items()]})
    (folder / "index.html").write_text(page, encoding="utf-8")


def _rig(name: str, part: Mapping[str, Any]) -> Dict[str, object]:
    rows = part.get("rows", [])
    head = list(rows[0]) if rows else []
    numbers = {key: value for key, value in part.items() if key not in ("rows", "events", "counters")}
    numbers.update({f"filter: {key}": value for key, value in part.get("counters", {}).items() if value})
    return {"title": TITLES.get(name, name), "successes": part["successes"], "episodes": part["episodes"],
            "error": part.get("error", ""), "head": head, "rows": [[row.get(key) for key in head] for row in rows],
            "numbers": list(numbers.items()),
            "events": [(f"{seconds:.2f} s", text) for seconds, text in part.get("events", [])]}
