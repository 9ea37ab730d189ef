"""docs/results.md: it states what docs/results.json contains, and the numbers add up."""
import json

import pytest

from hybridvla_core.evaluation.ablation.page import bars, drawing
from hybridvla_core.evaluation.ablation.tables import TABLES
from hybridvla_core.evaluation.ablation.words import markdown
from hybridvla_core.paths import ROOT
from hybridvla_core.report.comparisons import Comparison, is_better, is_no_worse
from hybridvla_core.report.statistics import rate, wilson

DOCS = ROOT / "docs"
RESULT = json.loads((DOCS / "results.json").read_text(encoding="utf-8"))


def test_the_page_and_its_drawings_are_those_of_the_numbers():
    assert (DOCS / "results.md").read_text(encoding="utf-8") == markdown(RESULT)
    for table in RESULT["tables"]:
        assert (DOCS / "images" / f"results-{table['name']}.svg").read_text() == drawing(table).document()
    for sheet in RESULT["sheets"]:
        if sheet["bars"]:
            assert (DOCS / "images" / f"results-{sheet['name']}.svg").read_text() == bars(sheet).document()


def test_what_the_paper_does_not_claim_is_called_ours():
    page = markdown(RESULT)
    assert "| our own claim: the filter costs no success |" in page and "- Our own claim: the filter costs no success." in page
    assert "The paper: the filter" not in page and "- The paper: the ensemble is better than either path." in page
    assert [claim.text for table in TABLES.values() for claim in table.claims if claim.ours] == ["the filter costs no success"]


@pytest.mark.parametrize("table", RESULT["tables"], ids=[table["name"] for table in RESULT["tables"]])
def test_rates_and_verdicts_follow_from_the_counts(table):
    for row in table["rows"]:
        counts = list(row["per_task"].values())
        assert sum(task["episodes"] for task in counts) == row["episodes"]
        assert sum(task["successes"] for task in counts) == row["successes"]
        assert row["rate"] == rate(row["successes"], row["episodes"])
        assert row["interval"] == wilson(row["successes"], row["episodes"])
        assert sum(row["failures"].values()) == row["episodes"] - row["successes"]
    for claim in table["claims"]:
        pairs = [Comparison(**pair) for pair in claim["compared"].values() if pair]
        if len(pairs) < len(claim["compared"]):
            assert claim["verdict"].startswith("cannot be told")
        elif "McNemar" in claim["test"]:
            assert claim["verdict"] == is_better(pairs)
        elif len(pairs) == 1:
            assert claim["verdict"] == is_no_worse(pairs[0])
