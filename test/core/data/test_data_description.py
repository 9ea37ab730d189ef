"""What a data set says about itself: `info.json` of any program, and above it a `hybridvla.json` written by hand."""
from __future__ import annotations

import json
import re
import sys
import types

import numpy as np
import pytest
import toy_data
from scipy.spatial.transform import Rotation

from hybridvla_core.contracts import Pose
from hybridvla_core.data.lerobot import layout
from hybridvla_core.data.lerobot.reader import LeRobotDataset
from hybridvla_core.errors import DataError
from hybridvla_core.paths import ROOT
from hybridvla_core.training.hybrid.start import prepare
from hybridvla_core.transforms.conventions import action_to_targets, state_vector

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


def test_a_trained_checkpoint_does_not_say_what_the_actions_of_other_data_mean(folder, tmp_path, monkeypatch):
    toy_data.add_preset(monkeypatch)
    toy_data.go(tmp_path / "base", toy_data.write(tmp_path / "ours"))
    base, recipe = tmp_path / "base/out", toy_data.config(preset="")
    with pytest.raises(DataError, match="does not say what its actions mean; write their convention into") as caught:
        prepare(recipe, (folder,), base)
    said = re.search(r"meta/hybridvla.json. If they mean what those of \S+/base/out mean, write (\{.*\})$", str(caught.value))
    offered = json.loads(said.group(1))
    say(folder, {**offered, "action_names": list("abcdef"), "grippers": []})       # as of a robot with six joints
    with pytest.raises(DataError, match="6 action channels for 1 arm.s.; 7 are needed"):
        prepare(recipe, (folder,), base)
    say(folder, offered)
    start = prepare(recipe, (folder,), base)
    assert start.checkpoint.convention == toy_data.CONVENTION
    assert start.sets[0].scales.action.mask.tolist() == [True] * 6 + [False]


class Recording(dict):
    """A file of a lab's own, as h5py opens one: the arm moves 1 mm a row, and its hand closes half-way."""

    def __init__(self, _file, _mode):
        joints = np.array([0.0, -0.5, 0.0, -2.2, 0.0, 1.8, 0.8]) + 0.002 * np.arange(12)[:, None]
        super().__init__(joints=joints, gripper=np.linspace(0.9, 0.1, 12), front=np.full((12, 480, 640, 3), 90, np.uint8))

    def __enter__(self):
        return self

    def __exit__(self, *_exception):
        pass


def test_the_program_of_the_documents_makes_a_set_of_recordings_in_joint_space(tmp_path, monkeypatch):
    page = (ROOT / "docs/data.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", page, re.S)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "h5py", types.SimpleNamespace(File=Recording))
    (tmp_path / "config").symlink_to(ROOT / "config")
    (tmp_path / "recordings").mkdir()
    for name in ("one", "two"):
        (tmp_path / f"recordings/{name}.hdf5").touch()
    made = {"__name__": "the program"}
    exec(compile(program, "docs/data.md", "exec"), made)
    data = LeRobotDataset(tmp_path / "out/lab")
    assert (len(data), len(data.episodes)) == (6, 2)
    first, second = (data.sample(index) for index in (0, 1))
    convention = made["CONVENTION"]
    assert second.instruction == "put the red block on the green pad"
    toy_data.add_preset(monkeypatch)
    assert prepare(toy_data.config(), (data.folder,), None).checkpoint.convention == convention
    base = Pose(first.state[:3], (Rotation.from_euler("xyz", first.state[3:6])
                                  * Rotation.from_quat(convention.rotation_reference_xyzw)).as_quat())
    (((target, opening),),) = action_to_targets(convention, first.actions[0], [base])
    assert np.allclose(state_vector(convention, [target], [0.0])[:6], second.state[:6], atol=1e-5)
    assert opening == 1.0 and data.sample(2).actions[0][6] == 0.0
    assert 1e-3 < np.linalg.norm(first.actions[0][:3]) < 0.02 and abs(first.state[3:5]).max() < 1.0


@pytest.mark.parametrize("content", [{"convention": CONVENTION}, {"description": {"convention": CONVENTION}},
                                     {"convention": CONVENTION, "description": {}, "flagged": []},
                                     {"convention": CONVENTION, "description": {"convention": None}}])      # as `merge` leaves it
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
