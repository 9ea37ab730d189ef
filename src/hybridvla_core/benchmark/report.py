"""The result of a run as a table and as a drawing (SVG, bars of stages)."""
from __future__ import annotations

from typing import Any, Dict, List
from xml.sax.saxutils import escape

COLOURS = {"preprocess": "#8da0cb", "vision": "#66c2a5", "prefix": "#a6d854", "denoise": "#ffd92f", "decode": "#fc8d62"}
WIDTH, BAR, GAP, LEFT = 900, 26, 14, 170


def table(result: Dict[str, Any]) -> str:
    """Modes by stages, medians in ms, then ratios, passes and the roofline."""
    stages = list(COLOURS)
    lines = [f"{result['subject']}: {result['parameters_m']} M parameters, {result['dtype']}, {result['views']} view(s), "
             f"{result['device']}, {result['threads']} thread(s), {result['rounds']} rounds",
             f"{'ms, medians':22}" + "".join(f"{stage:>12}" for stage in stages) + f"{'total':>12}{'p10':>10}{'p99':>10}"]
    for name, mode in result["modes"].items():
        parts = [f"{mode['stages'][s]['median_ms']:12.2f}" if s in mode["stages"] else f"{'-':>12}" for s in stages]
        lines.append(f"{name:22}{''.join(parts)}{mode['median_ms']:12.2f}{mode['p10_ms']:10.2f}{mode['p99_ms']:10.2f}")
    bounds = result["roofline"]["stages"]
    lines.append(f"{'roofline (full)':22}" + "".join(f"{bounds[s]['bound_ms']:12.2f}" if s in bounds else f"{'-':>12}"
                                                     for s in stages))
    lines.append("  ".join(f"{name} {value:.3f}" for name, value in result["ratios"].items()))
    lines.append(f"passes after the last denoising step {result['passes']['counts']}, mean {result['passes']['mean']}; "
                 f"measured {result['roofline']['bandwidth_gb_s']} GB/s, {result['roofline']['matrix_tflop_s']} TFLOP/s; "
                 + ", ".join(f"{name} {value}" for name, value in result["memory"].items()))
    return "\n".join(lines)


def drawing(result: Dict[str, Any]) -> str:
    """An SVG of stacked stage times, one bar a mode."""
    modes = result["modes"]
    longest = max(max(sum(s["median_ms"] for s in mode["stages"].values()), mode["median_ms"]) for mode in modes.values())
    scale = (WIDTH - LEFT - 90) / longest
    parts: List[str] = []
    for row, (name, mode) in enumerate(modes.items()):
        y, x = 40 + row * (BAR + GAP), float(LEFT)
        parts.append(f'<text x="{LEFT - 8}" y="{y + 18}" text-anchor="end">{escape(name)}</text>')
        for stage, value in (mode["stages"] or {"total": {"median_ms": mode["median_ms"]}}).items():
            width = value["median_ms"] * scale
            parts.append(f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{BAR}" '
                         f'fill="{COLOURS.get(stage, "#bbbbbb")}"><title>{stage} {value["median_ms"]} ms</title></rect>')
            x += width
        parts.append(f'<text x="{x + 6:.1f}" y="{y + 18}">{mode["median_ms"]:.1f} ms</text>')
    base = 40 + len(modes) * (BAR + GAP) + 14
    for index, (stage, colour) in enumerate(COLOURS.items()):
        parts.append(f'<rect x="{LEFT + index * 120}" y="{base - 11}" width="12" height="12" fill="{colour}"/>'
                     f'<text x="{LEFT + index * 120 + 17}" y="{base}">{stage}</text>')
    title = escape(f"{result['subject']}, {result['dtype']}, {result['device']}")
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{base + 16}" font-family="sans-serif" '
            f'font-size="13"><rect width="100%" height="100%" fill="white"/><text x="12" y="22">{title}</text>'
            + "".join(parts) + "</svg>\n")
