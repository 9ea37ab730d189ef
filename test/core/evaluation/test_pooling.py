"""Results written in parts: they are judged together, and a checkpoint's episodes only on tasks that it was trained for."""
from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hybridvla_core.checkpoints.manifest import write_manifest_of
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.evaluation.pooling import pooled, pooled_files, table
from hybridvla_core.evaluation.reliability import of_episodes, of_tokens
from hybridvla_core.evaluation.suite import summarise
from hybridvla_core.evaluation.trained import check_trained, doubts
from hybridvla_core.paths import ROOT

RNG = np.random.default_rng(5)


def episode(seed):
    """Return an episode of three predictions with tokens, as a suite reports it."""
    decisions = []
    for _ in range(3):
        told = RNG.uniform(0.0, 1.0, 7)
        decisions.append({"phase": "reach", "fused": bool(told[0] > 0.5), "confidence": float(told.mean()), "ms": 1.0,
                          "distance": 0.0, "error": [0.0, 0.0, 0.001], "yaw_error": 0.0, "diffusion": None,
                          "autoregressive": None,
                          "token_confidence": told.tolist(), "token_right": (RNG.uniform(0.0, 1.0, 7) < told).tolist()})
    return {"seed": seed, "task": "close box", "success": bool(RNG.integers(2)), "time": 4.0, "keyframes": 3, "violations": 0,
            "counters": {}, "tick_ms": [0.1], "decisions": decisions}


@pytest.fixture
def parts(tmp_path):
    """Write thirty episodes in three files of ten."""
    episodes = [episode(seed) for seed in range(2_000_001, 2_000_031)]
    files = []
    for number in range(3):
        files.append(tmp_path / f"close_box-ensemble-{2_000_001 + 10 * number}-10.json")
        summary = summarise(episodes[10 * number:10 * number + 10], "ensemble", 1)
        files[-1].write_text(json.dumps({"task": "close_box", **summary}))
    return episodes, files


def test_halves_and_diagram_of_parts_are_those_of_all_episodes_together(parts):
    episodes, files = parts
    found = pooled_files(files)["close_box", "ensemble"]
    rows = [row for each in episodes for row in each["decisions"]]
    halves = of_episodes([float(np.mean([row["confidence"] for row in each["decisions"]])) for each in episodes],
                         [each["success"] for each in episodes])
    for half in ("confident_half", "other_half"):
        assert found["reliability"][half] == halves[half]
    told = np.array([value for row in rows for value in row["token_confidence"]])
    whole = of_tokens(told, np.array([value for row in rows for value in row["token_right"]]))
    for mine, theirs in zip(found["reliability"]["tokens"], whole["tokens"]):
        assert mine["tokens"] == theirs["tokens"] and mine == pytest.approx(theirs, abs=2e-5)
    assert found["episodes"] == 30 and found["successes"] == sum(each["success"] for each in episodes)
    half = halves["confident_half"]
    assert f"| {half['successes']}/15 |" in table({("close_box", "ensemble"): found})


def test_an_episode_that_comes_twice_and_a_file_that_is_no_result_are_named(parts, tmp_path):
    _, files = parts
    with pytest.raises(HybridVLAError, match="seed 2000001 .* is in two of the results"):
        pooled_files([files[0], files[0]])
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(HybridVLAError, match="other.json: is no result"):
        pooled_files([tmp_path / "other.json"])


@pytest.mark.parametrize("change, named", [
    ({"variation": "light"}, "variation"), ({"manifest_sha256": "other"}, "manifest_sha256"), ({"ros": True}, "ros"),
    ({"episodes": 0, "switch_episodes": 10}, "episodes, switch_episodes"), ({"episodes": 50, "seed": 7, "sources": "newer"}, "")])
def test_results_of_another_kind_are_not_pooled(parts, change, named):
    _, files = parts
    order = {"manifest_sha256": "one", "variation": "", "ros": False, "configurations": "c", "seed": 1, "episodes": 10,
             "switch_episodes": 0, "language_scenes": 0, "sources": "older"}
    for file, other in zip(files, ({}, change)):
        file.write_text(json.dumps({**json.loads(file.read_text()), "order": {**order, **other}}))
    if named:
        with pytest.raises(HybridVLAError, match=f"{files[1].name} and .*{files[0].name} differ in {named}; pool results"):
            pooled_files(files)
    else:
        assert pooled_files(files)["close_box", "ensemble"]["episodes"] == 30


def test_an_older_result_adds_to_the_counts_and_halves_of_some_episodes_are_not_shown_for_all(parts):
    _, files = parts
    new = json.loads(files[0].read_text())
    old = {"episodes": 10, "successes": 10, "mode": "ensemble"}
    found = pooled([new, old])
    assert found["episodes"] == 20 and found["successes"] == new["successes"] + 10 and found["reliability"] == {}


def test_the_table_is_made_from_the_command_line(parts):
    _, files = parts
    done = subprocess.run([sys.executable, "-m", "hybridvla_core.evaluation.pooling", *map(str, files)], stdout=subprocess.PIPE,
                          check=True, encoding="utf-8")
    assert done.stdout.startswith("| task | mode |") and "| close_box | ensemble |" in done.stdout


FRIDGE, PHONE = ("close fridge", "shut the fridge"), ("put the phone on the base",)
BOTH = {"fridge": FRIDGE, "phone": PHONE}


def checkpoint(folder: Path, **provenance) -> Path:
    write_manifest_of(folder, (), provenance)
    return folder


def test_sentences_of_one_goal_are_not_enough_for_a_task_with_two(tmp_path):
    known = checkpoint(tmp_path, instructions=["close fridge", "put the wine on the left"])
    check_trained(known, "close_fridge", {"shut": FRIDGE})
    with pytest.raises(HybridVLAError, match="was not trained for task fridge_or_phone.* as 'put the phone on the base'"):
        check_trained(known, "fridge_or_phone", BOTH)
    check_trained(known, "fridge_or_phone", BOTH, {"fridge": FRIDGE})       # in a variation that asks only for the fridge
    check_trained(checkpoint(tmp_path, instructions=["Shut the fridge.", PHONE[0]]), "fridge_or_phone", BOTH)


def test_a_checkpoint_that_names_its_tasks_is_taken_at_its_word(tmp_path):
    known = checkpoint(tmp_path, instructions=[FRIDGE[0], PHONE[0]], tasks=["close_fridge", "phone_on_base"])
    check_trained(known, "close_fridge", {"shut": FRIDGE})
    with pytest.raises(HybridVLAError, match="not trained for task fridge_or_phone but for close_fridge, phone_on_base"):
        check_trained(known, "fridge_or_phone", BOTH)


def test_a_sentence_that_a_checkpoint_never_had_is_doubted(tmp_path):
    doubt = doubts(checkpoint(tmp_path, instructions=["close fridge"]))
    assert doubt(" Close  fridge. ") == ""
    assert "was not trained for 'fly': its data had sentences as 'close fridge'" in doubt("fly")
    assert doubts(checkpoint(tmp_path, trained_by="somebody"))("fly") == ""
    tiny = doubts(ROOT / "checkpoints" / "tiny")
    assert tiny("put the red block on the green pad") == "" and "was not trained for 'close box'" in tiny("close box")
    assert "its data had sentences as 'put the blue block" in tiny("put the red block on the purple pad")
