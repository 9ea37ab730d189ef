"""Renders pages, each as one self-contained HTML file: one style, one frame, one kind of table.

A page is a jinja2 template that extends `base.html` and takes `table` and `plots` from `parts.html`. Values put into a
template are escaped unless they are `Markup`; a missing name is an error.
"""
from __future__ import annotations

from typing import Mapping

from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup

STYLE = """body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:66rem;padding:0 1rem;color:#1d2126;background:#fff}
h1{font-size:1.5rem}h2{margin-top:2.2rem;border-bottom:1px solid #d9dde2}h3{font-size:1rem;margin:.8rem 0 .2rem}
table{border-collapse:collapse;margin:.6rem 0}td,th{padding:.25rem .7rem;text-align:left;border-bottom:1px solid #e4e7eb;
vertical-align:top}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}.pass{color:#187a3c}.fail{color:#b3261e;
font-weight:600}.skipped{color:#777}figure{display:inline-block;margin:.4rem;vertical-align:top;max-width:30rem}
figure img{border-radius:4px;margin-right:4px;max-width:100%}figcaption{font-size:.8rem;color:#444}
figure:target{outline:3px solid #e0a52b}video{width:100%;border-radius:4px}
svg{width:100%;font:11px system-ui,sans-serif}svg.small{width:14rem}.field{fill:#f5f6f8}.limit{stroke:#888;
stroke-dasharray:4}.mark{stroke:#e0a52b}.linked{stroke:#1d2126;cursor:pointer}code{background:#f2f3f5;padding:0 .2rem}"""

BASE = """<!doctype html><html lang=en><meta charset=utf-8><title>{% block title %}{% endblock %}</title>
<style>{{ style }}</style><body>
{% block body %}{% endblock %}
</body></html>
"""

PARTS = """
{% macro table(head, rows, numbers=true) %}
{% if rows %}
<table>
{% if head %}
<tr>{% for text in head %}<th{% if numbers and not loop.first %} class=n{% endif %}>{{ text }}{% endfor %}

{% endif %}
{% for row in rows %}
<tr>{% for value in row %}<td{% if numbers and not loop.first %} class=n{% endif %}>{{ value | show }}{% endfor %}

{% endfor %}
</table>
{% endif %}
{% endmacro %}
{% macro plots(drawn) %}
{% for plot in drawn %}
<h3>{{ plot.title }}</h3>{{ plot.drawing if plot.drawing is not none else nothing }}
{% endfor %}
{% endmacro %}
"""


def show(value: object) -> str:
    """Returns a table cell: a fraction with four digits, None as a dash, a coloured yes or no, a mapping as a list."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return mark("pass" if value else "fail", "yes" if value else "no")
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {entry}" for key, entry in value.items()) or "none"
    return value if isinstance(value, str) else str(value)


def mark(style: str, text: str) -> Markup:
    """Returns `text` in the colour of an outcome: pass, fail or skipped."""
    return Markup('<span class="{}">{}</span>').format(style, text)


def render(template: str, values: Mapping[str, object]) -> str:
    """Returns a page.

    Args:
        template: A jinja2 template that extends `base.html`.
        values: Values of the names in it.

    Returns:
        The whole HTML document.
    """
    pages = Environment(loader=DictLoader({"base.html": BASE, "parts.html": PARTS, "page.html": template}), autoescape=True,
                        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    pages.filters["show"] = show
    pages.globals.update(style=Markup(STYLE), nothing=Markup("<p>Nothing to show.</p>"))
    return pages.get_template("page.html").render(values)
