"""The pages of `make demo` and `make rigs`, from results as the demos write them."""
from types import SimpleNamespace

import pytest

from hybridvla_core.errors import HybridVLAError
from hybridvla_ros.demos import demo_page, rigs, rigs_page

PAIR = {"median": 1.5, "p99": 2.5}
DEMO = {"successes": 1, "episodes": 2, "predictions": 3, "fused_share": 0.5, "prediction_ms": PAIR, "filter_tick_ms": PAIR,
        "targets": 10, "limit_violations": 0, "interventions": {"limited/speed": 4},
        "rows": [{"instruction": "put <it> down", "first_instruction": None, "success": True, "seconds": 3.1, "scene_seed": 5},
                 {"instruction": "second", "first_instruction": "first", "success": False, "seconds": 9.0, "scene_seed": 6}]}


def test_the_demos_page_shows_episodes_numbers_and_confidences(tmp_path):
    predictions = [{"t": 10.0, "confidence": 0.9, "fused": True, "episode": 1},
                   {"t": 12.0, "confidence": float("nan"), "fused": False, "episode": 1}]
    stills = [{"image": "data:image/jpeg;base64,AA+/=", "caption": "a <caption>"}]
    demo_page.write_page(tmp_path, DEMO, SimpleNamespace(predictions=predictions, stills=stills))
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "1 of 2 episodes successful" in page and "put &lt;it&gt; down" in page and "first → <b>second</b>" in page
    assert 'src="data:image/jpeg;base64,AA+/="' in page and "a &lt;caption&gt;" in page and "filter: limited/speed" in page
    assert page.count("<circle") == 1 and "episode 1: 0.900" in page


def test_the_demos_page_stands_without_predictions(tmp_path):
    demo_page.write_page(tmp_path, DEMO, SimpleNamespace(predictions=[], stills=[]))
    assert "Nothing to show" in (tmp_path / "index.html").read_text(encoding="utf-8")


def test_the_rigs_page_shows_what_each_rig_did_and_what_failed(tmp_path):
    rigs_page.write_page(tmp_path, {
        "fr3": {"successes": 1, "episodes": 1, "rows": [{"task": "a", "success": True}], "counters": {"holds": 2, "none": 0},
                "events": [(1.5, "started")]},
        "agilex": {"successes": 0, "episodes": 1, "error": "no <driver>"}})
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "Franka Research 3" in page and "filter: holds" in page and "filter: none" not in page
    assert "1.50 s" in page and "What happened, 1 lines" in page and "no &lt;driver&gt;; see its logs" in page


def test_a_folder_that_holds_other_things_is_not_emptied_and_its_own_is(tmp_path, monkeypatch):
    def run(names, folder, episodes):
        assert [path.name for path in folder.iterdir()] == [".made-by-hybridvla"]
        (folder / "summary.json").touch()
        return {}

    monkeypatch.setattr(rigs, "run", run)
    monkeypatch.setattr(rigs, "write_page", lambda folder, summary: None)
    kept = tmp_path / "home" / "thesis.tex"
    kept.parent.mkdir()
    kept.touch()
    with pytest.raises(HybridVLAError, match="home: holds something that the show of the rigs did not make"):
        rigs.show([], kept.parent, 1)
    assert kept.is_file()
    for _ in range(2):
        rigs.show([], tmp_path / "out", 1)
    assert (tmp_path / "out/summary.json").is_file()
