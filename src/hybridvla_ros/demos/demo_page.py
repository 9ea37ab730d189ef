"""The demo's page: one self-contained HTML file with stills, the table of episodes and a plot over time."""
from __future__ import annotations

import html
from pathlib import Path
from typing import Any, Dict, List

STYLE = """body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:62rem;padding:0 1rem;color:#1d2126}
h1{font-size:1.5rem}table{border-collapse:collapse;width:100%;margin:1rem 0}td,th{padding:.35rem .6rem;text-align:left;
border-bottom:1px solid #d9dde2}.ok{color:#187a3c}.no{color:#b3261e}figure{display:inline-block;width:30%;margin:.5%}
figure img,video{width:100%;border-radius:4px}figcaption{font-size:.8rem;color:#555}.numbers td:first-child{width:18rem}"""


def write_page(folder: Path, summary: Dict[str, Any], recorded: Any) -> None:
    """Write `index.html` beside the summary and the video."""
    body = [f"<h1>HybridVLA on a simulated FR3: {summary['successes']} of {summary['episodes']} episodes successful</h1>",
            '<video src="demo.mp4" controls muted></video>', _episodes(summary["rows"]), _numbers(summary),
            "<h2>Confidence of each prediction</h2>", _plot(recorded.predictions), "<h2>First prediction of each episode</h2>",
            "".join(f'<figure><img src="{still["image"]}" alt=""><figcaption>{html.escape(still["caption"])}</figcaption>'
                    "</figure>" for still in recorded.stills)]
    page = ("<!doctype html><html lang=en><meta charset=utf-8><title>HybridVLA demo</title>"
            f"<style>{STYLE}</style><body>{''.join(body)}</body></html>\n")
    (folder / "index.html").write_text(page, encoding="utf-8")


def _episodes(rows: List[Dict[str, Any]]) -> str:
    cells = []
    for index, row in enumerate(rows, 1):
        told = html.escape(row["instruction"])
        if row["first_instruction"]:
            told = f"{html.escape(row['first_instruction'])} &rarr; <b>{told}</b>"
        mark = '<span class="ok">success</span>' if row["success"] else '<span class="no">failure</span>'
        cells.append(f"<tr><td>{index}<td>{told}<td>{mark}<td>{row['seconds']} s<td>{row['scene_seed']}")
    return ("<table><tr><th>episode<th>instruction<th>result<th>time<th>scene seed" + "".join(cells) + "</table>")


def _numbers(summary: Dict[str, Any]) -> str:
    rows = [("predictions", summary["predictions"]), ("share fused", summary["fused_share"]),
            ("prediction, ms (median, p99)", f"{summary['prediction_ms']['median']}, {summary['prediction_ms']['p99']}"),
            ("filter tick, CPU ms (median, p99)", f"{summary['filter_tick_ms']['median']}, {summary['filter_tick_ms']['p99']}"),
            ("targets sent", summary["targets"]),
            ("targets that broke a limit (counted by the rig)", summary["limit_violations"])]
    rows += [(f"filter: {name}", count) for name, count in sorted(summary["interventions"].items())]
    cells = "".join(f"<tr><td>{html.escape(str(name))}<td>{html.escape(str(value))}" for name, value in rows)
    return f'<table class="numbers">{cells}</table>'


def _plot(predictions: List[Dict[str, Any]], width: int = 900, height: int = 160) -> str:
    """Confidence over time; filled dots were fused."""
    if not predictions:
        return "<p>No prediction was made.</p>"
    end = max(row["t"] for row in predictions) or 1.0
    start = min(row["t"] for row in predictions)
    span = max(end - start, 1.0)
    dots = []
    for row in predictions:
        if row["confidence"] != row["confidence"]:
            continue
        x, y = 40 + (width - 50) * (row["t"] - start) / span, 10 + (height - 30) * (1.0 - row["confidence"])
        colour = "#2e8b57" if row["fused"] else "#d08a1d"
        dots.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"><title>episode {row["episode"]}: '
                    f'{row["confidence"]:.3f}</title></circle>')
    gate = 10 + (height - 30) * 0.04
    return (f'<svg viewBox="0 0 {width} {height}" width="100%"><rect x="40" y="10" width="{width - 50}" height="{height - 30}" '
            f'fill="#f5f6f8"/><line x1="40" x2="{width - 10}" y1="{gate}" y2="{gate}" stroke="#888" stroke-dasharray="4"/>'
            f'<text x="2" y="16" font-size="11">1.0</text><text x="2" y="{height - 18}" font-size="11">0.0</text>'
            f'<text x="44" y="{height - 4}" font-size="11">time; green: fused, dashed: the gate</text>{"".join(dots)}</svg>')
