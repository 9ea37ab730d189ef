"""The result of a run as a table and as an SVG drawing with bars of stages."""
from __future__ import annotations

from typing import Any, Dict

from hybridvla_core.report.svg import Stack, stacked

COLOURS = {"preprocess": "#8da0cb", "vision": "#66c2a5", "prefix": "#a6d854", "denoise": "#ffd92f", "decode": "#fc8d62"}


def table(result: Dict[str, Any]) -> str:
    """Returns a table of modes by stages, medians in ms, then ratios, passes and the roofline."""
    stages = list(COLOURS)
    lines = [f"{result['subject']}: {result['parameters_m']} M parameters, {result['dtype']}, precision {result['precision']}, "
             f"{result['views']} view(s), {result['device']}, {result['threads']} thread(s), {result['rounds']} rounds",
             f"{'ms, medians':22}" + "".join(f"{stage:>12}" for stage in stages) + f"{'total':>12}{'p10':>10}{'p99':>10}"]
    for name, mode in result["modes"].items():
        parts = [f"{mode['stages'][s]['median_ms']:12.2f}" if s in mode["stages"] else f"{'-':>12}" for s in stages]
        lines.append(f"{name:22}{''.join(parts)}{mode['median_ms']:12.2f}{mode['p10_ms']:10.2f}{mode['p99_ms']:10.2f}")
    bounds = result["roofline"]["stages"]
    lines.append(f"{'roofline (full)':22}" + "".join(f"{bounds[s]['bound_ms']:12.2f}" if s in bounds else f"{'-':>12}"
                                                     for s in stages))
    lines.append("  ".join(f"{name} {value:.3f}" for name, value in result["ratios"].items()))
    lines.append(f"passes after the last denoising step {result['passes']['counts']}, mean {result['passes']['mean']}; "
                 f"measured {result['roofline']['bandwidth_gb_s']} GB/s reading, {result['roofline']['copy_gb_s']} copying, "
                 f"{result['roofline']['matrix_tflop_s']} TFLOP/s; "
                 + ", ".join(f"{name} {value}" for name, value in result["memory"].items()))
    for kind, counts in result["counts"].items():
        lines.append(f"{kind} of a full prediction with one verifying pass: "
                     + ", ".join(f"{stage} {count}" for stage, count in counts.items()))
    return "\n".join(lines)


def drawing(result: Dict[str, Any]) -> str:
    """Returns an SVG document of stacked stage times, one bar per mode."""
    rows = []
    for name, mode in result["modes"].items():
        stages = mode["stages"] or {"total": {"median_ms": mode["median_ms"]}}
        parts = [(stage, value["median_ms"]) for stage, value in stages.items()]
        rows.append(Stack(name, parts, f"{mode['median_ms']:.1f} ms"))
    return stacked(f"{result['subject']}, {result['dtype']}, {result['device']}", "ms", rows, COLOURS)
