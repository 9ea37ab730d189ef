"""Plots over time as inline SVG; dots link to the moment's picture where there is one."""
from __future__ import annotations

import html
import math
from typing import Callable, List, Optional, Sequence, Tuple

from hybridvla_core.evaluation.replay.rows import Row

WIDTH, HEIGHT, LEFT, BOTTOM = 960, 150, 52, 18
COLOURS = ("#c8452f", "#3a6fd8")
Series = Tuple[str, Sequence[Row]]


def over_time(title: str, unit: str, series: Sequence[Series], value: Callable[[Row], float],
              limit: Optional[float] = None, marks: Sequence[Tuple[float, str]] = (), duration: float = 1.0,
              top: Optional[float] = None) -> str:
    """Dots of `value` for each row. marks: (time, text) as lines; limit: dashed; top: upper end of the axis."""
    known = [value(row) for _, rows in series for row in rows if math.isfinite(value(row))]
    if not known:
        return f"<h3>{html.escape(title)}</h3><p>Nothing to show.</p>"
    end = top or max(max(known), limit or 0.0) * 1.05 or 1.0
    span = max(duration, 1e-6)

    def x(time: float) -> float:
        return LEFT + (WIDTH - LEFT - 8) * time / span

    def y(number: float) -> float:
        return 8 + (HEIGHT - BOTTOM - 8) * (1.0 - min(number, end) / end)

    parts = [f'<rect x="{LEFT}" y="8" width="{WIDTH - LEFT - 8}" height="{HEIGHT - BOTTOM - 8}" class="field"/>']
    for time, text in marks:
        parts.append(f'<line x1="{x(time):.1f}" x2="{x(time):.1f}" y1="8" y2="{HEIGHT - BOTTOM}" class="mark">'
                     f"<title>{html.escape(text)}</title></line>")
    if limit is not None and limit <= end:
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - 8}" y1="{y(limit):.1f}" y2="{y(limit):.1f}" class="limit"/>')
    for (_, rows), colour in zip(series, COLOURS):
        parts += [_dot(row, value(row), x, y, colour) for row in rows if math.isfinite(value(row))]
    parts += [f'<text x="2" y="16">{end:.3g} {html.escape(unit)}</text>', f'<text x="2" y="{HEIGHT - BOTTOM}">0</text>',
              f'<text x="{LEFT}" y="{HEIGHT - 4}">0 s</text>',
              f'<text x="{WIDTH - 8}" y="{HEIGHT - 4}" text-anchor="end">{span:.1f} s</text>']
    return (f"<h3>{html.escape(title)}</h3>"
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(title)}">{"".join(parts)}</svg>')


def _dot(row: Row, number: float, x: Callable[[float], float], y: Callable[[float], float], colour: str) -> str:
    tip = f"<title>{row.time:.2f} s: {number:.4g}</title>"
    if row.pictures:
        return (f'<a href="#m{row.recording}-{row.index}"><circle cx="{x(row.time):.1f}" cy="{y(number):.1f}" r="5" '
                f'fill="{colour}" class="linked">{tip}</circle></a>')
    return f'<circle cx="{x(row.time):.1f}" cy="{y(number):.1f}" r="2" fill="{colour}">{tip}</circle>'


def reliability(table: Sequence[dict]) -> str:
    """Told against observed share of right tokens; on the diagonal a confidence means what it says."""
    size, edge = 180, 22
    parts = [f'<rect x="{edge}" y="4" width="{size}" height="{size}" class="field"/>',
             f'<line x1="{edge}" y1="{size + 4}" x2="{size + edge}" y2="4" class="limit"/>']
    most = max((row["tokens"] for row in table), default=1)
    for row in table:
        radius = 2.0 + 6.0 * math.sqrt(row["tokens"] / most)
        parts.append(f'<circle cx="{edge + size * row["told"]:.1f}" cy="{4 + size * (1 - row["right"]):.1f}" '
                     f'r="{radius:.1f}" fill="{COLOURS[1]}"><title>told {row["told"]:.2f}, right {row["right"]:.2f}, '
                     f'{row["tokens"]} tokens</title></circle>')
    parts += [f'<text x="{edge}" y="{size + 18}">confidence told</text>', '<text x="2" y="14">1</text>']
    return f'<svg viewBox="0 0 {size + edge + 4} {size + 24}" class="small">{"".join(parts)}</svg>'


def bars(rows: List[Tuple[str, float, str]], limit: Optional[float] = None) -> str:
    """Horizontal bars: name, value, text; limit: a dashed line."""
    most = max([value for _, value, _ in rows] + [limit or 0.0, 1e-9]) * 1.1
    height = 22 * len(rows) + 6
    parts = []
    for number, (name, value, text) in enumerate(rows):
        top = 4 + 22 * number
        parts.append(f'<text x="2" y="{top + 13}">{html.escape(name)}</text><rect x="230" y="{top}" height="16" '
                     f'width="{max(1.0, 560 * value / most):.1f}" fill="{COLOURS[1]}"/>'
                     f'<text x="{236 + 560 * value / most:.1f}" y="{top + 13}">{html.escape(text)}</text>')
    if limit is not None:
        parts.append(f'<line x1="{230 + 560 * limit / most:.1f}" x2="{230 + 560 * limit / most:.1f}" y1="0" y2="{height}" '
                     'class="limit"/>')
    return f'<svg viewBox="0 0 {WIDTH} {height}">{"".join(parts)}</svg>'
