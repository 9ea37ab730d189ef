"""The report: one self-contained HTML page. Worst moments first; every dot with a picture links to it."""
from __future__ import annotations

import math
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

from markupsafe import Markup

from hybridvla_core.evaluation.replay.report import filmstrip, plots
from hybridvla_core.evaluation.replay.rows import Row
from hybridvla_core.evaluation.replay.verdict import FAIL, SKIPPED, Check
from hybridvla_core.report.page import mark, render
from hybridvla_core.report.svg import Plot, bars, reliability

TEMPLATE = """{% extends "base.html" %}
{% from "parts.html" import table, plots %}
{% macro figures(moments) %}
{% for moment in moments %}
<figure id="{{ moment.anchor }}">{% for view, picture in moment.pictures %}<img alt="{{ view }}" src="{{ picture }}">{% endfor %}

<figcaption>{{ moment.where }}: {{ moment.told }}<br>{{ moment.instruction }}</figcaption></figure>
{% endfor %}
{% endmacro %}
{% block title %}HybridVLA replay{% endblock %}
{% block body %}
<h1>Replay of <code>{{ checkpoint }}</code>: <span class="{{ summary.verdict }}">{{ summary.verdict }}</span></h1>
<p>{{ summary.frames }} predictions from {{ summary.recordings }} recording(s), {{ "%.1f" | format(summary.recorded_s) }} s;
{{ "%.1f" | format(summary.speed_over_realtime) }} times real time.</p>
<ul>{% for reason in summary.reasons %}<li class="fail">{{ reason }}</li>{% endfor %}
{% for note in notes %}<li>{{ note }}</li>{% endfor %}</ul>
<h2>Worst moments</h2>
<p>Green: how the robot moved; red: the predicted target{% if compared %}; blue: the compared checkpoint{% endif %}.
Plans: from above (x up, y left) and from the side (x right, z up), in the base frame.</p>
{{ figures(worst) or nothing_compared }}
<h2>Over time</h2>
{% for name, drawn in over_time %}
{% if over_time | length > 1 %}<h3>{{ name }}</h3>{% endif %}
{{ plots(drawn) }}
{% endfor %}
<h2>Numbers</h2>
{% for shown in numbers %}{{ table(shown.head, shown.rows) }}{% endfor %}
<h2>Does it look and listen?</h2>
{% for sensed in senses %}
{% if sensed.drawing is none %}<p>Not checked.</p>{% else %}<h3>{{ sensed.title }}</h3>{{ sensed.drawing }}{% endif %}
{% endfor %}
<h2>Confidence</h2>
{% if confidence %}{{ table([], confidence) }}{% else %}<p>No tokens were decoded.</p>{% endif %}
{% if reliability is not none %}{{ reliability }}{% endif %}
<h2>Filmstrip</h2>
{{ figures(film) }}
<h2>Checks</h2>
{{ table(["group", "check", "outcome", "what"], checks, numbers=false) }}
{% endblock %}
"""

Cell = Union[None, int, float, str]


class Table(NamedTuple):
    """Cells of a table; the first cell of a row is its name."""

    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]


class Moment(NamedTuple):
    """A moment on the page.

    Attributes:
        anchor: Anchor that links point to.
        pictures: Pictures as (view, data URI).
        where: Recording and time.
        told: Description of the moment.
        instruction: Instruction at that time.
    """

    anchor: str
    pictures: Sequence[Tuple[str, str]]
    where: str
    told: str
    instruction: str


class Sensed(NamedTuple):
    """What a checkpoint reacts to; None for what was not checked."""

    title: str
    drawing: Optional[Markup]


def document(data: Mapping[str, Any]) -> str:
    """Returns the page.

    Args:
        data: Content: summary, checks, unread, notes, contenders (folder, evaluator), recordings (name, duration, tracks,
            projections).

    Returns:
        The HTML document.
    """
    summary, contenders = data["summary"], data["contenders"]
    judged = contenders[0][1]
    worst = {row.index for row in judged.worst}
    found = summary["confidence"]
    return render(TEMPLATE, {
        "checkpoint": contenders[0][0], "summary": summary, "notes": data["notes"], "compared": len(contenders) > 1,
        "nothing_compared": Markup("<p>Nothing could be compared.</p>"),
        "worst": [_moment(data, row) for row in judged.worst if row.pictures],
        "film": [_moment(data, row) for row in judged.rows if row.pictures and row.index not in worst],
        "over_time": [_plots(data, number) for number in range(len(data["recordings"]))],
        "numbers": _numbers(data), "senses": [_sensed(column) for column in _columns(data)],
        "confidence": _confidence(found), "checks": _checks(data["checks"]),
        "reliability": reliability([(row["told"], row["right"], row["tokens"]) for row in found["tokens"]])
        if found and found.get("tokens") else None})


def _other(data: Mapping[str, Any], row: Row) -> Optional[Row]:
    """Returns the compared checkpoint's row of the same observation."""
    if len(data["contenders"]) < 2:
        return None
    rows: Sequence[Row] = data["contenders"][1][1].rows
    found = rows[row.index] if row.index < len(rows) else None
    return found if found is not None and found.stamp_ns == row.stamp_ns else None


def _moment(data: Mapping[str, Any], row: Row) -> Moment:
    recording, other = data["recordings"][row.recording], _other(data, row)
    pictures = [(view, filmstrip.draw(row, view, recording["tracks"], recording["projections"].get(view), other))
                for view in row.pictures]
    if row.error is None:
        told: str = f"not compared: {row.why}"
    else:
        told = Markup("{} mm, {}°, gripper {}, {}").format(
            f"{row.distance * 1e3:.0f}", f"{math.degrees(row.angle):.1f}",
            "right" if row.gripper_ok else Markup("<b>wrong</b>"), row.phase)
    sure = "" if math.isnan(row.confidence) else f", confidence {row.confidence:.2f}{' (fused)' if row.fused else ''}"
    return Moment(f"m{row.recording}-{row.index}", pictures, f"{recording['name']} at {row.time:.2f} s", told + sure,
                  row.instruction)


def _plots(data: Mapping[str, Any], number: int) -> Tuple[str, Sequence[Plot]]:
    recording = data["recordings"][number]
    series = [[row for row in evaluator.rows if row.recording == number] for _, evaluator in data["contenders"]]
    streams = data["summary"]["bags"][number]["streams"].values()
    marks = [(event["time_s"], event["text"]) for stream in streams for event in stream["events"]]
    return recording["name"], plots.of_recording(series, recording["duration"], marks)


def _columns(data: Mapping[str, Any]) -> List[Mapping[str, Any]]:
    summary = data["summary"]
    return [summary] + ([summary["compared"]] if "compared" in summary else [])


def _numbers(data: Mapping[str, Any]) -> List[Table]:
    columns = _columns(data)
    rows: List[List[Cell]] = [["frames", *(c["frames"] for c in columns)],
                              ["compared", *(c["errors"]["compared"] for c in columns)]]
    for key, name in (("median_m", "distance, median, m"), ("p90_m", "distance, 90 %, m"),
                      ("median_rad", "angle, median, rad"), ("gripper_agreement", "gripper agreement")):
        rows.append([name, *(c["errors"].get(key) for c in columns)])
    rows += [["share fused", *(c["fused_share"] for c in columns)],
             ["between the paths, 90 %, m", *(c["paths"].get("p90_m") for c in columns)],
             ["one prediction, ms, median and p99", *(_pair(c["latency_ms"]) for c in columns)],
             ["refused by the filter", *(c["filter"]["refused_share"] for c in columns)],
             ["not reached by the filter", *(c["filter"]["unreached_share"] for c in columns)],
             ["against recorded proposals, max, m", *(c["reproduction"].get("max_m") for c in columns)]]
    names = sorted({name for c in columns for name in c["interventions"]})
    rows += [[f"filter: {name}", *(c["interventions"].get(name, 0) for c in columns)] for name in names]
    return [Table(["", *(c["checkpoint"] for c in columns)], rows), _axes(columns[0]), _groups(columns, "by_phase", "phase"),
            _groups(columns, "by_instruction", "instruction"), _streams(data)]


def _axes(summary: Mapping[str, Any]) -> Table:
    rows = [[f"{arm} {axis}", v["median_abs_m"], v["bias_m"], v["gain"]]
            for arm, axes in summary["errors"].get("per_axis", {}).items() for axis, v in axes.items()]
    return Table(["axis", "median error, m", "bias, m", "predicted / recorded"], rows)


def _groups(columns: Sequence[Mapping[str, Any]], key: str, title: str) -> Table:
    names = sorted({name for c in columns for name in c["errors"].get(key, {})})
    rows = []
    for name in names:
        cells: List[Cell] = [name]
        for c in columns:
            block = c["errors"].get(key, {}).get(name, {})
            cells += [block.get("frames", 0), block.get("median_m"), block.get("median_rad"),
                      block.get("gripper_agreement")]
        rows.append(cells)
    return Table([title, *["frames", "distance, m", "angle, rad", "gripper"] * len(columns)], rows)


def _streams(data: Mapping[str, Any]) -> Table:
    rows = [[f"{bag['name']}: {name}", stream["messages"], stream["rate_hz"], stream["longest_gap_s"],
             len(stream["events"]) + stream["further_events"]]
            for bag in data["summary"]["bags"] for name, stream in bag["streams"].items()]
    return Table(["stream", "messages", "rate, Hz", "longest gap, s", "faults"], rows)


def _sensed(column: Mapping[str, Any]) -> Sensed:
    sensed = column["senses"]
    if not sensed:
        return Sensed("", None)
    rows = [("noise seeds", sensed["seed_spread_m"], f"{sensed['seed_spread_m'] * 1e3:.1f} mm")]
    rows += [(name, sense["median_move_m"], f"{sense['median_move_m'] * 1e3:.1f} mm" + ("" if sense["used"] else " (not used)"))
             for name, sense in sensed["senses"].items()]
    return Sensed(f"{column['checkpoint']}: median movement of the target over {sensed['moments']} moments", bars(rows))


def _confidence(found: Mapping[str, Any]) -> List[Sequence[Cell]]:
    words = {"mean": "mean", "confident_half_median_mm": "median error of the more confident half, mm",
             "other_half_median_mm": "of the other half, mm", "expected_calibration_error": "expected calibration error"}
    return [(text, found.get(key)) for key, text in words.items()] if found else []


def _checks(checks: Sequence[Check]) -> List[Sequence[str]]:
    order = {FAIL: 0, SKIPPED: 2}
    return [(check.group, check.name, mark(check.outcome, check.outcome), check.text)
            for check in sorted(checks, key=lambda check: order.get(check.outcome, 1))]


def _pair(values: Dict[str, float]) -> Optional[str]:
    return f"{values['median']:.1f}, {values['p99']:.1f}" if values else None
