"""The sheet of all tasks: it records each episode, resumes from there, and fails when an expert is too weak."""
import json

import pytest
from PIL import Image

from hybridvla_core.errors import HybridVLAError
from hybridvla_sim import sheet


@pytest.fixture
def played(monkeypatch):
    """Count episodes instead of running them; return the seeds. Those with odd seeds succeed."""
    jobs = []

    def run_one(job):
        jobs.append(job.seed)
        return {"task": job.task, "seed": job.seed, "success": job.seed % 2 == 1, "time": 3.0, "keyframes": 4, "violations": 0,
                "interventions": {"holds": 2}}

    monkeypatch.setattr(sheet, "run_one", run_one)
    return jobs


def test_it_goes_on_where_it_was_stopped_and_counts_all(played, tmp_path):
    arguments = ["--tasks", "close_fridge", "--processes", "1", "--out", str(tmp_path)]
    assert sheet.main([*arguments, "--episodes", "1"]) == 0
    notes = tmp_path / "episodes.jsonl"
    notes.write_text(notes.read_text() + '{"task": "close_fridge", "seed": 5000')      # as if killed while writing
    assert sheet.main([*arguments, "--episodes", "4"]) == 1, "half of them failed: the expert is too weak"
    assert sheet.main([*arguments, "--episodes", "4"]) == 1
    assert played == [5_000_001, 5_000_002, 5_000_003, 5_000_004], "what followed the line that was cut off is kept"
    said, = json.loads((tmp_path / "tasks.json").read_text())
    assert said["successes"] == 2 and said["failed_seeds"] == [5_000_002, 5_000_004]
    assert said["interventions_an_episode"] == {"holds": 2.0}
    page = (tmp_path / "index.html").read_text()
    assert "close_fridge" in page and "tasks.png" in page
    image = Image.open(tmp_path / "tasks.png")
    assert image.size == (4 * sheet.TILE, sheet.TILE + 20) and len(image.convert("RGB").getcolors(10 ** 6)) > 50


def test_episodes_of_older_code_are_run_anew(played, tmp_path, monkeypatch):
    arguments = ["--tasks", "close_fridge", "--processes", "1", "--out", str(tmp_path), "--episodes", "1"]
    notes = tmp_path / "episodes.jsonl"
    notes.write_text(json.dumps({"task": "close_fridge", "seed": 5_000_001, "success": False}) + "\n")    # from an older release
    for digest, runs in (("one", 1), ("one", 1), ("other", 2), ("one", 2)):
        monkeypatch.setattr(sheet, "origin", lambda digest=digest: {"sources": digest, "renderer": "egl"})
        assert sheet.main(arguments) == 0 and len(played) == runs
    monkeypatch.setattr(sheet, "origin", lambda: {"sources": "one", "renderer": "osmesa"})
    assert sheet.main(arguments) == 0 and len(played) == 2, "it draws nothing that is counted"
    assert json.loads((tmp_path / "tasks.json").read_text())[0]["successes"] == 1


@pytest.mark.long
def test_an_episode_is_run_through_the_filter_and_counted():
    row = sheet.run_one(sheet.Episode("close_fridge", sheet.FIRST_SEED))
    assert row["success"] is True and row["violations"] == 0 and row["keyframes"] >= 3


def test_what_cannot_be_run_is_named(tmp_path):
    with pytest.raises(HybridVLAError, match="there is no task 'fly'"):
        sheet.main(["--tasks", "fly", "--out", str(tmp_path)])
    with pytest.raises(HybridVLAError, match="task 'blocks' is named twice"):
        sheet.main(["--tasks", "blocks", "blocks", "--out", str(tmp_path)])
    with pytest.raises(HybridVLAError, match="--episodes must be at least 1"):
        sheet.main(["--episodes", "0", "--out", str(tmp_path)])
