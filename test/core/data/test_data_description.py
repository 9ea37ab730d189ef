"""What a data set says about itself: `info.json` of any program, and above it a `hybridvla.json` written by hand."""
from __future__ import annotations

import json
import re

import pytest
import toy_data

from hybridvla_core.data.lerobot import layout
from hybridvla_core.data.lerobot.reader import LeRobotDataset
from hybridvla_core.errors import DataError
from hybridvla_core.paths import ROOT
from hybridvla_core.training.hybrid.start import prepare

SHOWN = json.loads(re.search(r"```json\n(.*?)```", (ROOT / "docs/data.md").read_text(encoding="utf-8"), re.S).group(1))
CONVENTION = SHOWN["convention"]


@pytest.fixture
def folder(tmp_path):
    """A small data set as another program leaves it, without a file of ours."""
    toy_data.write(tmp_path / "toy", episodes=2, frames=2, name="own", convention=None, grounded=False, subtasks=False)
    (tmp_path / "toy" / layout.OURS).unlink()
    (tmp_path / "toy" / layout.STATISTICS).unlink()
    return tmp_path / "toy"


def say(folder, content):
    (folder / layout.OURS).write_text(json.dumps(content))
    return LeRobotDataset(folder).description


def test_the_file_of_the_documents_is_what_training_asks_for(folder, monkeypatch):
    toy_data.add_preset(monkeypatch)
    with pytest.raises(DataError, match="does not say what its actions mean; write their convention into meta/hybridvla.json"):
        prepare(toy_data.config(), (folder,), None)
    say(folder, SHOWN)
    start = prepare(toy_data.config(), (folder,), None)
    assert start.checkpoint.convention.action_period_s == CONVENTION["action_period_s"]
    assert start.sets[0].scales.action.mask.tolist() == [True] * 6 + [False]


@pytest.mark.parametrize("content", [{"convention": CONVENTION}, {"description": {"convention": CONVENTION}},
                                     {"convention": CONVENTION, "description": {}, "flagged": []}])
def test_a_convention_is_added_to_what_info_says(folder, content):
    found = say(folder, content)
    assert found.convention == CONVENTION and found.name == "toy" and found.robot == "toy"
    assert (found.fps, found.views, found.state_names) == (10.0, {"front": (32, 32)}, toy_data.NAMES)


def test_every_key_replaces_what_info_says(folder):
    found = say(folder, {"name": "pads", "fps": 5, "description": {"views": {"front": [32, 32]}, "grippers": [6],
                                                                   "labels": "next_keyframe", "action_names": list("abcdefg")}})
    assert (found.name, found.fps, found.grippers, found.labels) == ("pads", 5.0, (6,), "next_keyframe")
    assert found.action_names == tuple("abcdefg") and found.state_names == toy_data.NAMES and found.convention is None


@pytest.mark.parametrize("content, words", [
    ({"conventions": CONVENTION}, "unknown key conventions; remove it"),
    ({"description": {"konvention": CONVENTION}}, "unknown key konvention; remove it"),
    ({"convention": CONVENTION, "description": {"convention": CONVENTION}}, "convention is there twice, at the top and under"),
    ({"convention": "delta"}, "\"convention\""), ({"description": [1]}, "description holds list"),
    ({"grid": "8"}, "\"grid\""), ({"labels": "next"}, "labels is 'next'; use next_pose or next_keyframe"),
    ({"grippers": [7]}, "a gripper channel lies outside the 7"), ({"fps": float("nan")}, "fps is nan; use a finite number"),
    ({"views": {"left": [32, 32]}}, "views has left, of which meta/info.json knows nothing")])
def test_what_is_wrong_is_named_with_its_file(folder, content, words):
    with pytest.raises(DataError) as caught:
        say(folder, content)
    assert str(caught.value).startswith(f"{folder / layout.OURS}: ") and words in str(caught.value)
    assert "\n" not in str(caught.value)
