"""Pages and drawings: inputs are escaped, and numbers appear where they belong."""
import math
import xml.etree.ElementTree as ET

import jinja2
import pytest

from hybridvla_core.report.page import mark, render
from hybridvla_core.report.statistics import percentiles, quantiles
from hybridvla_core.report.svg import Dot, Stack, bars, over_time, reliability, stacked

TABLE = """{% extends "base.html" %}{% from "parts.html" import table, plots %}
{% block title %}{{ title }}{% endblock %}{% block body %}{{ table(head, rows) }}{{ plots(drawn) }}{% endblock %}"""
SVG = "{http://www.w3.org/2000/svg}"


def page(**values):
    return render(TABLE, {"title": "T", "head": [], "rows": [], "drawn": [], **values})


def test_text_is_escaped_and_marks_are_not():
    text = page(title="<script>", head=["a", "b"], rows=[("<b>", mark("fail", "<no>"))])
    assert "<script>" not in text and "&lt;script&gt;" in text and "<td>&lt;b&gt;" in text
    assert '<span class="fail">&lt;no&gt;</span>' in text


def test_cells_show_what_they_hold():
    text = page(rows=[("name", None, 0.123456, True, False, {"a": 1}, {}, 3)])
    cells = [part.split("\n")[0].split("<td")[0] for part in text.split('<td class=n>')[1:]]
    assert cells == ["–", "0.1235", '<span class="pass">yes</span>', '<span class="fail">no</span>', "a 1", "none", "3"]


def test_a_name_that_is_missing_is_an_error():
    with pytest.raises(jinja2.UndefinedError, match="drawn"):
        render(TABLE, {"title": "T", "head": [], "rows": []})


def test_a_plot_draws_finite_values_where_they_belong():
    dots = [Dot(0.0, 0.0, "low"), Dot(1.0, 1.0, "high & right", "#m1"), Dot(0.5, math.nan)]
    drawn = over_time("title", "m", dots, 1.0, top=1.0, limit=0.5, marks=[(0.5, "a fault")])
    root = ET.fromstring(drawn.drawing)
    low, high = root.iter("circle")
    assert float(low.get("cx")) < float(high.get("cx")) and float(low.get("cy")) > float(high.get("cy"))
    assert high.find("title").text == "high & right" and root.find("a").get("href") == "#m1"
    assert {line.get("class") for line in root.iter("line")} == {"mark", "limit"}


def test_a_plot_of_nothing_says_so():
    assert "Nothing to show" in page(drawn=[over_time("empty", "m", [Dot(0.0, math.nan)], 1.0)])


def test_bars_and_reliability_scale_with_their_values():
    short, long = ET.fromstring(bars([("short", 1.0, "1"), ("long", 2.0, "2")])).iter("rect")
    assert float(long.get("width")) == pytest.approx(2 * float(short.get("width")), rel=1e-3)
    few, many = ET.fromstring(reliability([(0.2, 0.2, 1), (0.8, 0.9, 100)])).iter("circle")
    assert float(few.get("r")) < float(many.get("r")) and float(few.get("cy")) > float(many.get("cy"))


def test_a_drawing_of_its_own_is_a_valid_file_with_every_part():
    text = stacked("a < b", "ms", [Stack("full", [("vision", 1.0), ("other", 3.0)], "4.0 ms")], {"vision": "#112233"})
    root = ET.fromstring(text)
    tips = [tip.text for tip in root.iter(f"{SVG}title")]
    assert tips == ["vision 1.0 ms", "other 3.0 ms"] and "a &lt; b" in text and root.get("width") == "900"


def test_quantiles_interpolate_and_are_zero_without_values():
    assert quantiles([0.0, 10.0], {"median": 50.0, "max": 100.0}) == {"median": 5.0, "max": 10.0}
    assert percentiles([1.0, 2.0, 3.0]) == {"median": 2.0, "p99": 2.98} and percentiles([]) == {"median": 0.0, "p99": 0.0}
