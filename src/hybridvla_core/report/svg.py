"""Drawings as SVG text: one set of shapes and colours for every page and file."""
from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import Mapping, NamedTuple, Optional, Sequence, Tuple

from markupsafe import Markup

RED, BLUE, GREEN, AMBER = "#c8452f", "#3a6fd8", "#2e8b57", "#d08a1d"
WIDTH, HEIGHT, LEFT, BOTTOM = 960, 150, 52, 18


class Drawing:
    """An SVG drawing under construction. Coordinates are pixels of its view box, y down."""

    def __init__(self, width: float, height: float, label: str = "", style: str = "") -> None:
        """Starts an empty drawing.

        Args:
            width: Width of the view box.
            height: Height of the view box.
            label: Text for screen readers.
            style: Class in the page's style sheet.
        """
        self._root = ET.Element("svg", {"viewBox": f"0 0 {width:g} {height:g}"})
        self._size = (width, height)
        if label:
            self._root.attrib.update({"role": "img", "aria-label": label})
        if style:
            self._root.set("class", style)

    def rectangle(self, x: float, y: float, width: float, height: float, fill: str = "", style: str = "",
                  tip: str = "") -> None:
        """Adds a rectangle; `tip` is shown under the pointer."""
        self._add(self._root, "rect", {"x": _number(x), "y": _number(y), "width": _number(width), "height": _number(height)},
                  fill, style, tip)

    def line(self, start: Tuple[float, float], end: Tuple[float, float], style: str, tip: str = "") -> None:
        """Adds a line with a class of the page's style sheet."""
        self._add(self._root, "line", {"x1": _number(start[0]), "y1": _number(start[1]), "x2": _number(end[0]),
                                       "y2": _number(end[1])}, "", style, tip)

    def circle(self, x: float, y: float, radius: float, fill: str, tip: str = "", link: str = "") -> None:
        """Adds a dot; `link` is where a click leads."""
        parent = ET.SubElement(self._root, "a", {"href": link}) if link else self._root
        self._add(parent, "circle", {"cx": _number(x), "cy": _number(y), "r": _number(radius)}, fill,
                  "linked" if link else "", tip)

    def text(self, x: float, y: float, words: str, anchor: str = "") -> None:
        """Adds words; `anchor` is SVG's text-anchor (default: they start at x)."""
        attributes = {"x": _number(x), "y": _number(y)}
        if anchor:
            attributes["text-anchor"] = anchor
        ET.SubElement(self._root, "text", attributes).text = words

    def markup(self) -> Markup:
        """Returns the drawing for use inside a page, which supplies the style sheet."""
        return Markup(ET.tostring(self._root, encoding="unicode"))  # escaped by ElementTree

    def document(self, font_size: int = 13) -> str:
        """Returns the drawing as a file of its own, on white."""
        self._root.attrib.update({"xmlns": "http://www.w3.org/2000/svg", "width": f"{self._size[0]:g}",
                                  "height": f"{self._size[1]:g}", "font-family": "sans-serif", "font-size": str(font_size)})
        self._root.insert(0, ET.Element("rect", {"width": "100%", "height": "100%", "fill": "white"}))
        return ET.tostring(self._root, encoding="unicode") + "\n"

    @staticmethod
    def _add(parent: ET.Element, tag: str, attributes: Mapping[str, str], fill: str, style: str, tip: str) -> None:
        shape = ET.SubElement(parent, tag, dict(attributes))
        if fill:
            shape.set("fill", fill)
        if style:
            shape.set("class", style)
        if tip:
            ET.SubElement(shape, "title").text = tip


def _number(value: float) -> str:
    return f"{value:.1f}"


@dataclass(frozen=True)
class Dot:
    """One value over time.

    Attributes:
        time: Time, s.
        value: Value in the plot's unit; a value that is not finite is not drawn.
        tip: Text shown under the pointer.
        link: Where a click leads; a dot with a link is larger.
        colour: Fill of the dot.
    """

    time: float
    value: float
    tip: str = ""
    link: str = ""
    colour: str = RED


class Plot(NamedTuple):
    """A titled drawing; None if there is nothing to show."""

    title: str
    drawing: Optional[Markup]


def over_time(title: str, unit: str, dots: Sequence[Dot], duration: float, top: Optional[float] = None,
              limit: Optional[float] = None, marks: Sequence[Tuple[float, str]] = ()) -> Plot:
    """Draws values over time.

    Args:
        title: Heading.
        unit: Unit of the values.
        dots: The values; the axis begins at time 0 and value 0.
        duration: Length of the time axis, s.
        top: Upper end of the value axis; None: above the largest value.
        limit: Value of a dashed line.
        marks: (time s, text) of vertical lines.

    Returns:
        The plot, without a drawing where no value is finite.
    """
    dots = [dot for dot in dots if math.isfinite(dot.value)]
    if not dots:
        return Plot(title, None)
    end = top or max(max(dot.value for dot in dots), limit or 0.0) * 1.05 or 1.0
    span, right, floor = max(duration, 1e-6), WIDTH - 8, HEIGHT - BOTTOM

    def x(time: float) -> float:
        return LEFT + (right - LEFT) * time / span

    def y(value: float) -> float:
        return 8 + (floor - 8) * (1.0 - min(value, end) / end)

    drawing = Drawing(WIDTH, HEIGHT, title)
    drawing.rectangle(LEFT, 8, right - LEFT, floor - 8, style="field")
    for time, text in marks:
        drawing.line((x(time), 8), (x(time), floor), "mark", text)
    if limit is not None and limit <= end:
        drawing.line((LEFT, y(limit)), (right, y(limit)), "limit")
    for dot in dots:
        drawing.circle(x(dot.time), y(dot.value), 5 if dot.link else 2, dot.colour, dot.tip, dot.link)
    drawing.text(2, 16, f"{end:.3g} {unit}")
    drawing.text(2, floor, "0")
    drawing.text(LEFT, HEIGHT - 4, "0 s")
    drawing.text(right, HEIGHT - 4, f"{span:.1f} s", "end")
    return Plot(title, drawing.markup())


def reliability(rows: Sequence[Tuple[float, float, int]]) -> Markup:
    """Draws the predicted against the observed share of right answers; on the diagonal, confidence is calibrated.

    Args:
        rows: (predicted share in [0, 1], observed share in [0, 1], number of answers).

    Returns:
        The drawing; the area of a dot grows with its number of answers.
    """
    size, edge = 180, 22
    drawing = Drawing(size + edge + 4, size + 24, "confidence told against share right", "small")
    drawing.rectangle(edge, 4, size, size, style="field")
    drawing.line((edge, size + 4), (size + edge, 4), "limit")
    most = max((count for _, _, count in rows), default=1)
    for told, right, count in rows:
        drawing.circle(edge + size * told, 4 + size * (1 - right), 2.0 + 6.0 * math.sqrt(count / most), BLUE,
                       f"told {told:.2f}, right {right:.2f}, {count} tokens")
    drawing.text(edge, size + 18, "confidence told")
    drawing.text(2, 14, "1")
    return drawing.markup()


def bars(rows: Sequence[Tuple[str, float, str]]) -> Markup:
    """Draws horizontal bars.

    Args:
        rows: (name, value of at least 0, text beside the bar).

    Returns:
        The drawing; the longest bar fills its width.
    """
    most = max([value for _, value, _ in rows] + [1e-9]) * 1.1
    drawing = Drawing(WIDTH, 22 * len(rows) + 6)
    for number, (name, value, text) in enumerate(rows):
        top, length = 4 + 22 * number, 560 * value / most
        drawing.text(2, top + 13, name)
        drawing.rectangle(230, top, max(1.0, length), 16, BLUE)
        drawing.text(236 + length, top + 13, text)
    return drawing.markup()


class Stack(NamedTuple):
    """One stacked bar.

    Attributes:
        name: Name of the bar.
        parts: (name, length) of each part, in the unit of the axis.
        text: Text after the bar.
    """

    name: str
    parts: Sequence[Tuple[str, float]]
    text: str


def stacked(title: str, unit: str, rows: Sequence[Stack], colours: Mapping[str, str]) -> str:
    """Draws stacked horizontal bars with a legend, as a file of its own.

    Args:
        title: Heading.
        unit: Unit of the lengths.
        rows: The bars, from top to bottom.
        colours: Fill of each part by its name, in the legend's order; others are grey.

    Returns:
        An SVG document.
    """
    width, bar, gap, left = 900, 26, 14, 170
    longest = max(sum(length for _, length in row.parts) for row in rows)
    scale, base = (width - left - 90) / max(longest, 1e-9), 40 + len(rows) * (bar + gap) + 14
    drawing = Drawing(width, base + 16)
    drawing.text(12, 22, title)
    for number, row in enumerate(rows):
        y, x = 40 + number * (bar + gap), float(left)
        drawing.text(left - 8, y + 18, row.name, "end")
        for name, length in row.parts:
            drawing.rectangle(x, y, length * scale, bar, colours.get(name, "#bbbbbb"), tip=f"{name} {length} {unit}")
            x += length * scale
        drawing.text(x + 6, y + 18, row.text)
    for number, (name, colour) in enumerate(colours.items()):
        drawing.rectangle(left + number * 120, base - 11, 12, 12, colour)
        drawing.text(left + number * 120 + 17, base, name)
    return drawing.document()
