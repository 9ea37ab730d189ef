"""The report: one self-contained HTML page. Worst moments first; every dot with a picture links to it."""
from __future__ import annotations

import html
import math
from typing import Any, Dict, List, Mapping, Optional, Sequence

from hybridvla_core.evaluation.replay.report import film, plots
from hybridvla_core.evaluation.replay.rows import Row
from hybridvla_core.evaluation.replay.verdict import FAIL, SKIPPED, Check

STYLE = """body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:66rem;padding:0 1rem;color:#1d2126;background:#fff}
h1{font-size:1.5rem}h2{margin-top:2.2rem;border-bottom:1px solid #d9dde2}h3{font-size:1rem;margin:.8rem 0 .2rem}
table{border-collapse:collapse;margin:.6rem 0}td,th{padding:.25rem .7rem;text-align:left;border-bottom:1px solid #e4e7eb;
vertical-align:top}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}.pass{color:#187a3c}.fail{color:#b3261e;
font-weight:600}.skipped{color:#777}figure{display:inline-block;margin:.4rem;vertical-align:top;max-width:30rem}
figure img{border-radius:4px;margin-right:4px}figcaption{font-size:.8rem;color:#444}figure:target{outline:3px solid #e0a52b}
svg{width:100%;font:11px system-ui,sans-serif}svg.small{width:14rem}.field{fill:#f5f6f8}.limit{stroke:#888;
stroke-dasharray:4}.mark{stroke:#e0a52b}.linked{stroke:#1d2126;cursor:pointer}code{background:#f2f3f5;padding:0 .2rem}"""


def document(data: Mapping[str, Any]) -> str:
    """data: summary, checks, unread, notes, contenders (folder, evaluator), recordings (name, duration, tracks,
    projections)."""
    summary, contenders = data["summary"], data["contenders"]
    mark = summary["verdict"]
    body = [f'<h1>Replay of <code>{_e(contenders[0][0])}</code>: <span class="{mark}">{mark}</span></h1>',
            f"<p>{summary['frames']} predictions from {summary['recordings']} recording(s), {summary['recorded_s']:.1f} s; "
            f"{summary['speed_over_realtime']:.1f} times real time.</p>", _reasons(summary["reasons"], data["notes"]),
            "<h2>Worst moments</h2>", _legend(len(contenders) > 1), _worst(data), "<h2>Over time</h2>", _plots(data),
            "<h2>Numbers</h2>", _numbers(data), "<h2>Does it look and listen?</h2>", _senses(data),
            "<h2>Confidence</h2>", _confidence(summary), "<h2>Filmstrip</h2>", _film(data),
            "<h2>Checks</h2>", _checks(data["checks"])]
    return ("<!doctype html><html lang=en><meta charset=utf-8><title>HybridVLA replay</title>"
            f"<style>{STYLE}</style><body>{''.join(body)}</body></html>\n")


def _e(text: Any) -> str:
    return html.escape(str(text))


def _reasons(reasons: Sequence[str], notes: Sequence[str]) -> str:
    failed = "".join(f'<li class="fail">{_e(reason)}</li>' for reason in reasons)
    noted = "".join(f"<li>{_e(note)}</li>" for note in notes)
    return f"<ul>{failed}{noted}</ul>"


def _legend(two: bool) -> str:
    other = "; blue: the compared checkpoint" if two else ""
    return ("<p>Green: how the robot moved; red: the predicted target" + other + ". Plans: from above (x up, y left) and "
            "from the side (x right, z up), in the base frame.</p>")


def _other(data: Mapping[str, Any], row: Row) -> Optional[Row]:
    """The compared checkpoint's row of the same observation."""
    if len(data["contenders"]) < 2:
        return None
    rows = data["contenders"][1][1].rows
    found = rows[row.index] if row.index < len(rows) else None
    return found if found is not None and found.stamp_ns == row.stamp_ns else None


def _figure(data: Mapping[str, Any], row: Row, anchor: bool) -> str:
    recording = data["recordings"][row.recording]
    pictures = "".join(
        f'<img alt="{_e(view)}" src="{film.draw(row, view, recording["tracks"], recording["projections"].get(view), other)}">'
        for other in [_other(data, row)] for view in row.pictures)
    name = f' id="m{row.recording}-{row.index}"' if anchor else ""
    where = f"{_e(recording['name'])} at {row.time:.2f} s"
    if row.error is None:
        told = f"not compared: {_e(row.why)}"
    else:
        told = (f"{row.distance * 1e3:.0f} mm, {math.degrees(row.angle):.1f}&deg;, gripper "
                f"{'right' if row.gripper_ok else '<b>wrong</b>'}, {_e(row.phase)}")
    sure = "" if math.isnan(row.confidence) else f", confidence {row.confidence:.2f}{' (fused)' if row.fused else ''}"
    return f"<figure{name}>{pictures}<figcaption>{where}: {told}{sure}<br>{_e(row.instruction)}</figcaption></figure>"


def _worst(data: Mapping[str, Any]) -> str:
    rows = [row for row in data["contenders"][0][1].worst if row.pictures]
    return "".join(_figure(data, row, True) for row in rows) or "<p>Nothing could be compared.</p>"


def _film(data: Mapping[str, Any]) -> str:
    evaluator = data["contenders"][0][1]
    worst = {row.index for row in evaluator.worst}
    return "".join(_figure(data, row, True) for row in evaluator.rows if row.pictures and row.index not in worst)


def _plots(data: Mapping[str, Any]) -> str:
    parts = []
    for number, recording in enumerate(data["recordings"]):
        series = [(folder, [row for row in evaluator.rows if row.recording == number])
                  for folder, evaluator in data["contenders"]]
        events = data["summary"]["bags"][number]["streams"].values()
        marks = [(event["time_s"], event["text"]) for stream in events for event in stream["events"]]
        if len(data["recordings"]) > 1:
            parts.append(f"<h3>{_e(recording['name'])}</h3>")
        common = {"series": series, "marks": marks, "duration": recording["duration"]}
        parts += [
            plots.over_time("Distance to where the robot went", "m", value=lambda row: row.distance, **common),
            plots.over_time("Angle to how it turned", "rad", value=lambda row: row.angle, **common),
            plots.over_time("Wrong gripper", "", value=lambda row: math.nan if row.gripper_ok is None
                            else float(not row.gripper_ok), top=1.05, **common),
            plots.over_time("Mean confidence", "", value=lambda row: row.confidence, top=1.0, **common),
            plots.over_time("Distance between the two paths", "m", value=lambda row: row.path_distance, **common),
            plots.over_time("Interventions of the safety filter", "", value=lambda row: math.nan if row.filter is None
                            else float(len(row.filter.interventions)), **common)]
    return "".join(parts)


def _columns(data: Mapping[str, Any]) -> List[Mapping[str, Any]]:
    summary = data["summary"]
    return [summary] + ([summary["compared"]] if "compared" in summary else [])


def _numbers(data: Mapping[str, Any]) -> str:
    columns = _columns(data)
    rows = [("frames", [c["frames"] for c in columns]), ("compared", [c["errors"]["compared"] for c in columns])]
    for key, name in (("median_m", "distance, median, m"), ("p90_m", "distance, 90 %, m"),
                      ("median_rad", "angle, median, rad"), ("gripper_agreement", "gripper agreement")):
        rows.append((name, [c["errors"].get(key) for c in columns]))
    rows += [("share fused", [c["fused_share"] for c in columns]),
             ("between the paths, 90 %, m", [c["paths"].get("p90_m") for c in columns]),
             ("one prediction, ms, median and p99", [_pair(c["latency_ms"]) for c in columns]),
             ("refused by the filter", [c["filter"]["refused_share"] for c in columns]),
             ("not reached by the filter", [c["filter"]["unreached_share"] for c in columns]),
             ("against recorded proposals, max, m", [c["reproduction"].get("max_m") for c in columns])]
    names = sorted({name for c in columns for name in c["interventions"]})
    rows += [(f"filter: {name}", [c["interventions"].get(name, 0) for c in columns]) for name in names]
    table = _table(["", *(c["checkpoint"] for c in columns)], rows)
    return table + _axes(columns[0]) + _groups(columns, "by_phase", "phase") + _groups(columns, "by_instruction",
                                                                                      "instruction") + _streams(data)


def _axes(summary: Mapping[str, Any]) -> str:
    rows = [(f"{arm} {axis}", [v["median_abs_m"], v["bias_m"], v["gain"]])
            for arm, axes in summary["errors"].get("per_axis", {}).items() for axis, v in axes.items()]
    return _table(["axis", "median error, m", "bias, m", "predicted / recorded"], rows) if rows else ""


def _groups(columns: Sequence[Mapping[str, Any]], key: str, title: str) -> str:
    names = sorted({name for c in columns for name in c["errors"].get(key, {})})
    rows = []
    for name in names:
        cells: List[Any] = []
        for c in columns:
            block = c["errors"].get(key, {}).get(name, {})
            cells += [block.get("frames", 0), block.get("median_m"), block.get("median_rad"),
                      block.get("gripper_agreement")]
        rows.append((name, cells))
    head = ["frames", "distance, m", "angle, rad", "gripper"] * len(columns)
    return _table([title, *head], rows) if rows else ""


def _streams(data: Mapping[str, Any]) -> str:
    rows = []
    for bag in data["summary"]["bags"]:
        for name, stream in bag["streams"].items():
            rows.append((f"{bag['name']}: {name}", [stream["messages"], stream["rate_hz"], stream["longest_gap_s"],
                                                    len(stream["events"]) + stream["further_events"]]))
    return _table(["stream", "messages", "rate, Hz", "longest gap, s", "faults"], rows)


def _senses(data: Mapping[str, Any]) -> str:
    parts = []
    for column in _columns(data):
        sensed = column["senses"]
        if not sensed:
            parts.append("<p>Not checked.</p>")
            continue
        rows = [("noise seeds", sensed["seed_spread_m"], f"{sensed['seed_spread_m'] * 1e3:.1f} mm")]
        rows += [(name, sense["median_move_m"], f"{sense['median_move_m'] * 1e3:.1f} mm"
                  + ("" if sense["used"] else " (not used)")) for name, sense in sensed["senses"].items()]
        parts.append(f"<h3>{_e(column['checkpoint'])}: median movement of the target over {sensed['moments']} moments</h3>"
                     + plots.bars(rows))
    return "".join(parts)


def _confidence(summary: Mapping[str, Any]) -> str:
    found = summary["confidence"]
    if not found:
        return "<p>No tokens were decoded.</p>"
    words = {"mean": "mean", "confident_half_median_mm": "median error of the more confident half, mm",
             "other_half_median_mm": "of the other half, mm", "expected_calibration_error": "expected calibration error"}
    table = _table(["", ""], [(text, [found.get(key)]) for key, text in words.items()])
    return table + (plots.reliability(found["tokens"]) if found.get("tokens") else "")


def _checks(checks: Sequence[Check]) -> str:
    order = {FAIL: 0, SKIPPED: 2}
    rows = "".join(f'<tr><td>{_e(check.group)}<td>{_e(check.name)}<td class="{check.outcome}">{check.outcome}'
                   f"<td>{_e(check.text)}" for check in sorted(checks, key=lambda check: order.get(check.outcome, 1)))
    return f"<table><tr><th>group<th>check<th>outcome<th>what{rows}</table>"


def _table(head: Sequence[str], rows: Sequence[Any]) -> str:
    cells = "".join(f"<tr><td>{_e(name)}" + "".join(f'<td class="n">{_show(value)}' for value in values)
                    for name, values in rows)
    return "<table><tr>" + "".join(f"<th{' class=n' if i else ''}>{_e(text)}" for i, text in enumerate(head)) + cells + "</table>"


def _pair(values: Dict[str, float]) -> Optional[str]:
    return f"{values['median']:.1f}, {values['p99']:.1f}" if values else None


def _show(value: Any) -> str:
    if value is None:
        return "&ndash;"
    return f"{value:.4g}" if isinstance(value, float) else _e(value)
