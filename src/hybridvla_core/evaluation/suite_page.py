"""The result of an evaluation of several tasks as one page: success of each, and whether confidence is calibrated."""
from __future__ import annotations

from typing import Any, Dict, List, Mapping

from hybridvla_core.report.page import render
from hybridvla_core.report.svg import reliability

HEAD = ("task", "mode", "successes", "episodes", "95 % interval", "median error, mm", "fused", "confident half", "other half",
        "calibration error")
PAGE = """{% extends "base.html" %}
{% from "parts.html" import table %}
{% block title %}Evaluation{% endblock %}
{% block body %}
<h1>Evaluation of {{ checkpoint }}</h1>
<p>Mean success of the tasks: {{ mean | show }}. Halves: successes of the half of the episodes with the higher mean confidence,
and of the other one. Diagrams: the confidence of each token against how often the expert's value lay within the checkpoint's
window of it; on the diagonal a confidence means what it says.</p>
{{ table(head, rows) }}
{% for name, drawing in drawings %}
<figure>{{ drawing }}<figcaption>{{ name }}</figcaption></figure>
{% endfor %}
{% endblock %}
"""


def page(checkpoint: str, tasks: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns the HTML document.

    Args:
        checkpoint: Folder of the checkpoint.
        tasks: Summary of each task, as `summarise` returns it.
    """
    rows: List[List[object]] = []
    drawings = []
    for name, found in tasks.items():
        trust: Dict[str, Any] = found["reliability"]
        low, high = found["interval"]
        rows.append([name, found["mode"], found["successes"], found["episodes"], f"{low:.3f} to {high:.3f}",
                     found["median_error_mm"], found["fused_share"], _half(trust.get("confident_half")),
                     _half(trust.get("other_half")), trust.get("expected_calibration_error")])
        if trust.get("tokens"):
            drawings.append((name, reliability([(row["told"], row["right"], row["tokens"]) for row in trust["tokens"]])))
    mean = sum(found["success_rate"] for found in tasks.values()) / max(1, len(tasks))
    return render(PAGE, {"checkpoint": checkpoint, "mean": mean, "head": HEAD, "rows": rows, "drawings": drawings})


def _half(found: object) -> object:
    return f"{found['successes']}/{found['episodes']}" if isinstance(found, dict) else None
