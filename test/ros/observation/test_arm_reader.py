"""Joint states that cannot belong to this arm, or readings that cannot be this gripper's: each is named, with what was found."""
from __future__ import annotations

import numpy as np
import pytest
from safety_rig import Rig

from hybridvla_core.configuration import load_file
from hybridvla_core.paths import ROOT
from hybridvla_core.robots.config import RobotConfig
from hybridvla_ros.messages.arm_reader import ArmReader, fingers_of
from hybridvla_ros.messages.sources import SILENT_S


def readers(robot="sim_fr3"):
    config = load_file(RobotConfig, ROOT / f"config/robots/{robot}.yaml")
    return [(arm, ArmReader(arm.name, arm.joint_names, fingers_of(arm))) for arm in config.arms]


def reading(arm, reader, share):
    """Return a message of the arm at its start whose fingers together are at `share` of the way from closed to open."""
    fingers, closed, opened = fingers_of(arm)
    each = (closed + share * (opened - closed)) / len(fingers)
    return reader.joints([*arm.joint_names, *fingers], [*arm.start_joints_rad, *[each] * len(fingers)], [], 1.0)


@pytest.mark.parametrize("robot", ["sim_fr3", "fr3", "agilex"])
@pytest.mark.parametrize("share", [1000.0, 5.0, 1.6, -0.6, -1.0, -1000.0])
def test_a_gripper_in_other_units_is_named_on_every_robot(robot, share):
    for arm, reader in readers(robot):
        state = reading(arm, reader, share)
        assert np.isnan(state.gripper) and not state.ready
        assert "the gripper reads" in state.message and "other units" in state.message and state.message == reader.doubt(1.0)
        assert reading(arm, reader, 0.5).ready and reader.opening == pytest.approx(0.5)


@pytest.mark.parametrize("share, opening", [(-0.2, 0.0), (0.0, 0.0), (0.25, 0.25), (1.0, 1.0), (1.3, 1.0)])
def test_a_gripper_a_little_beyond_its_ends_is_at_them(share, opening):
    arm, reader = readers()[0]
    assert reading(arm, reader, share).gripper == pytest.approx(opening) and reader.doubt(1.0) == ""


@pytest.mark.parametrize("names, words", [
    ([f"panda_joint{number}" for number in range(1, 8)], "name panda_joint1, panda_joint2"), ([], "name nothing")])
def test_names_that_are_missing_are_said_with_those_found_and_reach_the_filters_answer(names, words):
    rig = Rig()
    arm, reader = rig.config.arms[0], readers()[0][1]
    rig.silent.add(arm.name)
    for _ in range(20):
        state = reader.joints(names, [0.0] * len(names), [], rig.now)
        rig.filter.update_arm_state(state, rig.now)
        rig.tick()
    done, message = rig.filter.activate(True, rig.now)
    assert not done and words in message and arm.joint_names[0] in message
    assert words in reader.doubt(rig.now) and "none of" in reader.doubt(rig.now)


def test_a_gripper_of_its_own_topic_that_falls_silent_is_not_taken_for_one_that_stands_still():
    arm, reader = readers()[0]
    fingers = fingers_of(arm)[0]
    for now in (1.0, 1.5):
        reader.hand(fingers, [0.02] * len(fingers), now)
        assert reader.joints(arm.joint_names, arm.start_joints_rad, [], now).ready
    assert reader.joints(arm.joint_names, arm.start_joints_rad, [], 2.4).gripper == reader.opening > 0.0
    state = reader.joints(arm.joint_names, arm.start_joints_rad, [], 2.6)
    assert np.isnan(state.gripper) and not state.ready and "the gripper's joint states" in state.message
    assert "silent for 1.1 s" in state.message
    reader.hand(fingers, [0.02] * len(fingers), 2.7)
    assert reader.joints(arm.joint_names, arm.start_joints_rad, [], 2.7).gripper > 0.0 and reader.doubt(2.7) == ""


def test_fingers_in_the_arms_own_message_are_silent_only_with_the_arm():
    arm, reader = readers()[0]
    assert reading(arm, reader, 0.5).ready and reader.doubt(1.0 + SILENT_S) == ""


def test_others_on_the_topic_say_nothing_about_an_arm_that_has_come():
    arm, reader = readers()[0]
    assert reader.joints(["wheel"], [0.0], [], 1.0).message
    assert reading(arm, reader, 1.0).ready and reader.doubt(1.0) == ""
    assert reader.joints(["wheel"], [0.0], [], 1.1) is None and reader.doubt(1.1 + SILENT_S) == ""


def test_the_grippers_own_message_is_no_wrong_name():
    arm, reader = readers("fr3")[0]
    fingers = fingers_of(arm)[0]
    assert reader.joints(list(fingers), [0.04] * len(fingers), [], 1.0) is None and reader.doubt(1.0) == ""


def test_the_topic_of_a_gripper_says_nothing_of_the_arms_joints():
    """An arm under another arm_id is named by its joints, not by whichever of its topics comes first."""
    arm, reader = readers()[0]
    reader.hand(["panda_finger_joint1", "panda_finger_joint2"], [0.02, 0.02], 1.0)
    assert reader.doubt(1.0) == "" and np.isnan(reader.opening)
    reader.joints(["panda_joint1", "panda_joint2"], [0.0, 0.0], [], 1.0)
    assert "panda_joint1" in reader.doubt(1.0)
    fingers, closed, opened = fingers_of(arm)
    reader.hand(list(fingers), [(closed + opened) / 2 / len(fingers)] * len(fingers), 1.0)
    assert reader.opening == pytest.approx(0.5)
