"""The demo's page: one self-contained HTML file with stills, the table of episodes and a plot over time."""
from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Sequence

from markupsafe import Markup

from hybridvla_core.report.page import mark, render
from hybridvla_core.report.svg import AMBER, GREEN, Dot, Plot, over_time

if TYPE_CHECKING:
    from hybridvla_ros.demos.demo_record import Recorded

#: Mean confidence from which both paths are fused.
GATE = 0.96
TEMPLATE = """{% extends "base.html" %}
{% from "parts.html" import table, plots %}
{% block title %}HybridVLA demo{% endblock %}
{% block body %}
<h1>HybridVLA on a simulated FR3: {{ summary.successes }} of {{ summary.episodes }} episodes successful</h1>
<video src="demo.mp4" controls muted></video>
{{ table(["episode", "task", "instruction", "result", "time", "scene seed"], episodes, numbers=false) }}
{{ table([], numbers) }}
<h2>Confidence of each prediction</h2>
{{ plots([confidence]) }}
<h2>First prediction of each episode</h2>
{% for still in stills %}
<figure><img src="{{ still.image }}" alt=""><figcaption>{{ still.caption }}</figcaption></figure>
{% endfor %}
{% endblock %}
"""


def write_page(folder: Path, summary: Mapping[str, Any], recorded: Recorded) -> None:
    """Writes `index.html` beside the summary and the video."""
    page = render(TEMPLATE, {"summary": summary, "episodes": [_episode(*row) for row in enumerate(summary["rows"], 1)],
                             "numbers": _numbers(summary), "confidence": _confidence(recorded.predictions),
                             "stills": recorded.stills})
    (folder / "index.html").write_text(page, encoding="utf-8")


def _episode(number: int, row: Mapping[str, Any]) -> Sequence[object]:
    told = row["instruction"]
    if row["first_instruction"]:
        told = Markup("{} → <b>{}</b>").format(row["first_instruction"], told)
    result = mark("pass", "success") if row["success"] else mark("fail", "failure")
    for sentence in row.get("stops", ()):
        told = Markup("{}<br>the filter stopped and was resumed: {}").format(told, sentence)
    return number, row.get("task", ""), told, result, f"{row['seconds']} s", row["scene_seed"]


def _numbers(summary: Mapping[str, Any]) -> List[Sequence[object]]:
    rows: List[Sequence[object]] = [("predictions", summary["predictions"]), ("share fused", summary["fused_share"])]
    rows += [(text, f"{summary[key]['median']}, {summary[key]['p99']}") for key, text in (
        ("prediction_ms", "prediction, ms (median, p99)"), ("filter_tick_ms", "filter tick, CPU ms (median, p99)"))]
    rows += [("targets sent", summary["targets"]),
             ("targets that broke a limit (counted by the rig)", summary["limit_violations"])]
    return rows + [(f"filter: {name}", count) for name, count in sorted(summary["interventions"].items())]


def _confidence(predictions: Sequence[Dict[str, Any]]) -> Plot:
    start = min((row["t"] for row in predictions), default=0.0)
    dots = [Dot(row["t"] - start, row["confidence"], f"episode {row['episode']}: {row['confidence']:.3f}",
                colour=GREEN if row["fused"] else AMBER) for row in predictions]
    duration = max((dot.time for dot in dots), default=1.0)
    return over_time("green: fused, dashed: the gate", "", dots, duration, top=1.0, limit=GATE)
