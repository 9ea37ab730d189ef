"""The page of `make rigs`: what each rig did, one self-contained HTML file."""
from __future__ import annotations

import html
from pathlib import Path
from typing import Any, Dict, List

from hybridvla_ros.demos.demo_page import STYLE

TITLES = {"fr3": "Franka Research 3 (stand-in for franka_ros)", "agilex": "AgileX dual arm (stand-in for the Piper driver)"}


def write_page(folder: Path, summary: Dict[str, Any]) -> None:
    """Write `index.html` beside `summary.json`."""
    body = "".join(_rig(name, part) for name, part in summary.items())
    page = ("<!doctype html><html lang=en><meta charset=utf-8><title>HybridVLA rigs</title>"
            f"<style>{STYLE}</style><body><h1>HybridVLA on both rigs, without hardware</h1>{body}</body></html>\n")
    (folder / "index.html").write_text(page, encoding="utf-8")


def _rig(name: str, part: Dict[str, Any]) -> str:
    text = f"<h2>{html.escape(TITLES.get(name, name))}: {part['successes']} of {part['episodes']} episodes successful</h2>"
    if "error" in part:
        return text + f'<p class="no">{html.escape(part["error"])}; see its logs beside this page</p>'
    rows = part.get("rows", [])
    numbers = {key: value for key, value in part.items() if key not in ("rows", "events", "counters")}
    numbers.update({f"filter: {key}": value for key, value in part.get("counters", {}).items() if value})
    return text + _table(rows) + _numbers(numbers) + _events(part.get("events", []))


def _table(rows: List[Dict[str, Any]]) -> str:
    if not rows:
        return ""
    keys = list(rows[0])
    cells = ["<tr>" + "".join(f"<td>{_value(row.get(key))}" for key in keys) for row in rows]
    return "<table><tr>" + "".join(f"<th>{html.escape(key)}" for key in keys) + "".join(cells) + "</table>"


def _numbers(numbers: Dict[str, Any]) -> str:
    cells = "".join(f"<tr><td>{html.escape(str(key))}<td>{_value(value)}" for key, value in numbers.items())
    return f'<table class="numbers">{cells}</table>'


def _events(events: List[Any]) -> str:
    if not events:
        return ""
    cells = "".join(f"<tr><td>{seconds:.2f} s<td>{html.escape(text)}" for seconds, text in events)
    return f"<details><summary>What happened, {len(events)} lines</summary><table>{cells}</table></details>"


def _value(value: Any) -> str:
    if value is True or value is False:
        return '<span class="ok">yes</span>' if value else '<span class="no">no</span>'
    if isinstance(value, dict):
        return html.escape(", ".join(f"{key} {entry}" for key, entry in value.items()) or "none")
    return html.escape(str(value))
