"""One self-contained HTML page about a data set: flagged episodes first, film strips, plots, statistics."""
from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np
from PIL import Image

from hybridvla_core.data.lerobot import layout
from hybridvla_core.data.lerobot.reader import LeRobotDataset
from hybridvla_core.errors import DataError
from hybridvla_core.report.page import mark, render

SHOWN, PICTURES, PICTURE_PX = 40, 8, 110
WIDTH, HEIGHT = 460, 110
COLOURS = ("#c8452f", "#3a6fd8", "#2e9e5b", "#b8860b", "#7a4fb5", "#1f8f99", "#444")

TEMPLATE = """{% extends "base.html" %}{% from "parts.html" import table %}
{% block title %}{{ name }}{% endblock %}
{% block body %}
<h1>{{ name }}</h1>
<p>{{ episodes }} episodes, {{ frames }} frames at {{ fps }} Hz, robot {{ robot }}, labels {{ labels }}.
Views in their order: {{ views|join(", ") }}.</p>
<h2>Flagged</h2>
{% if flagged %}{{ table(["episode", "what", ""], flagged, numbers=false) }}{% else %}<p>Nothing.</p>{% endif %}
<h2>Statistics</h2>
{% for title, rows in tables %}<h3>{{ title }}</h3>{{ table(["channel", "min", "q01", "q99", "max", ""], rows) }}{% endfor %}
<h2>Episodes</h2>{% if episodes > shown|length %}<p>The first {{ shown|length }}, flagged ones before the others.</p>{% endif %}
{% for one in shown %}
<h3>{{ one.number }}: {{ one.source }}</h3>
<p>{{ one.text }}; {{ one.length }} frames; success {{ one.success | show }}; {{ one.corrections }} of them corrections</p>
{% if one.problem %}<p class="fail">{{ one.problem }}</p>{% endif %}
{% for view, strip in one.strips.items() %}
<p>{{ view }}<br>{% for picture in strip %}<img src="{{ picture }}" alt="{{ view }}"> {% endfor %}</p>
{% endfor %}
{% for title, lines in one.plots %}
<svg style="width:49%" viewBox="0 0 {{ width }} {{ height }}"><rect width="{{ width }}" height="{{ height }}" class="field"/>
<text x="6" y="14">{{ title }}</text>
{% for colour, label, points in lines %}
<polyline points="{{ points }}" fill="none" stroke="{{ colour }}" stroke-width="1.3"><title>{{ label }}</title></polyline>
{% endfor %}
</svg>
{% endfor %}
{% endfor %}
{% endblock %}
"""


def document(folder: Path) -> str:
    """Returns the page of a data set on disk."""
    data = LeRobotDataset(folder)
    described = data.description
    notes: List[Dict[str, Any]] = data.ours.get("episodes", [])
    flagged = sorted(data.ours.get("flagged", []), key=lambda entry: entry["kept"])
    entry = _entry(folder, described.name)
    doubtful = {item["episode"] for item in flagged}
    order = sorted(range(len(data.episodes)), key=lambda i: (
        i >= len(notes) or str(notes[i]["source"]).split(" #")[0] not in doubtful and notes[i]["source"] not in doubtful, i))
    shown = [_episode(data, position, notes[position] if position < len(notes) else {}, entry) for position in order[:SHOWN]]
    data.close()
    return render(TEMPLATE, dict(
        name=described.name, episodes=len(data.episodes), frames=len(data), fps=f"{data.fps:g}", robot=described.robot,
        labels=described.labels.replace("_", " "), views=list(described.views), shown=shown, width=WIDTH, height=HEIGHT,
        flagged=[(item["episode"], item["reason"], mark("skipped", "kept") if item["kept"] else mark("fail", "left out"))
                 for item in flagged],
        tables=[(title, _table(entry[key], names)) for title, key, names in (
            ("action", "action", described.action_names), ("state", "proprio", described.state_names))] if entry else []))


def _entry(folder: Path, name: str) -> Dict[str, Any]:
    path = folder / layout.STATISTICS
    return dict(layout.read_json(path, "the statistics").get(name, {})) if path.is_file() else {}


def _table(entry: Dict[str, Any], names: Sequence[str]) -> List[Tuple[object, ...]]:
    return [(name, *(float(entry[key][i]) for key in ("min", "q01", "q99", "max")),
             ("constant" if entry["constant"][i] else "") + ("" if entry["mask"][i] else " not scaled"))
            for i, name in enumerate(names)]


def _episode(data: LeRobotDataset, position: int, note: Dict[str, Any], entry: Dict[str, Any]) -> Dict[str, Any]:
    episode = data.episodes[position]
    result: Dict[str, Any] = {"number": episode.number, "source": note.get("source", ""), "length": episode.length, "text": "",
                              "success": note.get("success"), "corrections": note.get("corrections", 0), "strips": {},
                              "plots": [], "problem": ""}
    try:
        rows = data.rows(position)
        result["text"] = "; ".join(dict.fromkeys(data.tasks.get(int(task), "?") for task in rows.tasks))
        result["plots"] = [(title, _lines(values, names, entry.get(key))) for title, values, names, key in (
            ("action", rows.action, data.description.action_names, "action"),
            ("state", rows.state, data.description.state_names, "proprio"))]
        strips: Dict[str, List[str]] = {}
        for frame in sorted(set(np.linspace(0, episode.length - 1, PICTURES).astype(int).tolist())):
            for view, image in data.sample(episode.first + frame).images.items():
                strips.setdefault(view, []).append(_picture(image))
        result["strips"] = strips
    except DataError as error:
        result["problem"] = str(error)
    return result


def _lines(values: np.ndarray, names: Sequence[str], entry: Optional[Mapping[str, Sequence[float]]]
           ) -> List[Tuple[str, str, str]]:
    """Draws each channel between its smallest and largest value in the data set."""
    lines = []
    for channel, name in enumerate(names):
        column = values[:, channel]
        low, high = (entry["min"][channel], entry["max"][channel]) if entry else (column.min(), column.max())
        scaled = (column - low) / (high - low) if high > low else np.full(len(column), 0.5)
        x = np.linspace(4, WIDTH - 4, len(column))
        points = " ".join(f"{a:.1f},{HEIGHT - 6 - (HEIGHT - 26) * float(b):.1f}" for a, b in zip(x, scaled))
        lines.append((COLOURS[channel % len(COLOURS)], f"{name}: {low:.3g} to {high:.3g}", points))
    return lines


def _picture(image: np.ndarray) -> str:
    picture = Image.fromarray(image)
    picture.thumbnail((PICTURE_PX, PICTURE_PX), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=75)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
