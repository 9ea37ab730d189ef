"""AgileX without a graph: messages, the start-up probe of units, what a status means, and the form of a command."""
import dataclasses
import math

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hybridvla_core.contracts import Pose
from hybridvla_core.errors import ConfigurationError
from hybridvla_core.geometry.rotations import to_quaternion
from hybridvla_core.paths import ROOT
from hybridvla_core.robots.config import load_robot
from hybridvla_core.robots.kinematics import ArmKinematics
from hybridvla_core.safety.status import ArmCommand
from hybridvla_ros.adapters.agilex import status as agilex_status
from hybridvla_ros.adapters.agilex.command import ArmStream, tool_pose
from hybridvla_ros.adapters.agilex.frozen import FrozenStates
from hybridvla_ros.adapters.agilex.probe import FIRMWARES, SAMPLES, EndPose, UnitProbe

ROBOTS = ROOT / "config" / "robots"
CONFIG = load_robot(ROBOTS / "agilex.yaml")
ARM = CONFIG.arms[0]
JOINTS = np.array([0.3, 1.4, -1.1, 0.2, 0.8, -0.4])
MOTOR = dataclasses.replace(ARM, gripper=dataclasses.replace(ARM.gripper, readings=(-0.339, 3.5578)))
BARE = dataclasses.replace(ARM.tool, position_m=(0.0, 0.0, 0.0))


def change(**keys):
    return dataclasses.replace(CONFIG, agilex=dataclasses.replace(CONFIG.agilex, **keys))


def flange(arm=ARM):
    position, matrix = ArmKinematics(dataclasses.replace(arm, tool=BARE)).pose(JOINTS)
    return position, Rotation.from_matrix(matrix)


def probed(pose, config=CONFIG, arm=ARM, gripper=0.03, count=SAMPLES, joints=JOINTS, gripper_m=math.nan):
    probe = UnitProbe(arm, config)
    for _ in range(count):
        probe.joints(joints, gripper)
        probe.pose(pose, gripper_m)
    return probe


def euler_pose(metre=1.0, radian=1.0, arm=ARM):
    position, turn = flange(arm)
    return EndPose(tuple(position / metre), euler=tuple(turn.as_euler("xyz") / radian))


# Messages ------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name, md5", [("PosCmd", "1c57ab1c25d2c8b93367daa40ff13cae"),
                                       ("PiperStatusMsg", "18e0aaa943372aaa58f1495907dd9a17")])
def test_the_stand_in_messages_have_the_real_ones_md5(name, md5):
    import piper_msgs.msg

    kind = getattr(piper_msgs.msg, name)
    assert kind._md5sum == md5 and kind._type == f"piper_msgs/{name}"


# Probe ---------------------------------------------------------------------------------------------------------------

def test_a_new_driver_is_found_to_speak_metres_and_an_old_one_millimetres():
    assert probed(euler_pose()).units == "m_rad"
    assert probed(euler_pose(1e-3, math.pi / 180)).units == "mm_deg"
    position, turn = flange()
    assert probed(EndPose(tuple(position), quaternion=tuple(turn.as_quat()))).units == "m_rad"


def test_a_pose_with_degrees_taken_for_radians_is_a_driver_of_2024():
    position, turn = flange()
    wrong = Rotation.from_euler("xyz", np.round(np.degrees(turn.as_euler("xyz")), 3))
    assert probed(EndPose(tuple(position), quaternion=tuple(wrong.as_quat()))).units == "mm_deg"


def test_the_drivers_own_rounding_and_its_low_angles_pass():
    position, turn = flange()
    rounded = EndPose(tuple(np.round(position, 6)), euler=tuple(np.radians(np.round(np.degrees(turn.as_euler("xyz")), 3))))
    assert probed(rounded, joints=JOINTS * 0.017444 / (math.pi / 180)).units == "m_rad"


def test_nothing_is_decided_from_a_few_samples_or_without_joints():
    assert not probed(euler_pose(), count=SAMPLES - 1).done
    probe = UnitProbe(ARM, CONFIG)
    probe.pose(euler_pose())
    assert not probe.done and "waiting" in probe.problem


def test_what_fits_in_no_unit_is_refused_with_the_distance():
    position, turn = flange()
    probe = probed(EndPose(tuple(position + [0.0, 0.04, 0.0]), euler=tuple(turn.as_euler("xyz"))))
    assert not probe.done and "40 mm off" in probe.problem
    assert "no unit quaternion" in probed(EndPose(tuple(position), quaternion=(0.1, 2.0, 0.3, 0.05))).problem


def test_older_firmware_is_named():
    offsets = list(ARM.kinematics.theta_offset_rad)
    offsets[1:3] = np.radians(FIRMWARES["older"])
    old = dataclasses.replace(ARM, kinematics=dataclasses.replace(ARM.kinematics, theta_offset_rad=tuple(offsets)))
    probe = probed(euler_pose(arm=old))
    assert not probe.done and "older firmware" in probe.problem and "-174.22, -100.78" in probe.problem
    assert "newer firmware" in probed(euler_pose(), arm=old).problem


def test_stated_units_must_agree_with_the_driver():
    assert "speaks mm_deg" in probed(euler_pose(1e-3, math.pi / 180), config=change(pos_cmd_units="m_rad")).problem
    assert probed(euler_pose(), config=change(pos_cmd_units="m_rad")).units == "m_rad"


def test_a_gripper_in_motor_units_is_refused_until_it_is_configured():
    assert "motor units" in probed(euler_pose(), gripper=3.5578).gripper_problem
    assert "motor units" in probed(euler_pose(), gripper=-0.339).gripper_problem
    assert "motor units" not in probed(euler_pose(), gripper=0.12).gripper_problem
    assert "configured are 0 closed" in probed(euler_pose(), gripper=0.12).gripper_problem
    assert not probed(euler_pose(), arm=MOTOR, gripper=3.5578).gripper_problem


def opened(probe, readings):
    for reading in readings:
        probe.joints(JOINTS, reading)
        probe.pose(euler_pose(), reading)
    return probe.gripper_problem


def test_metres_under_motor_units_are_named_once_the_gripper_has_moved_also_after_the_probe():
    probe = probed(euler_pose(), arm=MOTOR, gripper=0.0, gripper_m=0.0)
    assert probe.done and not probe.gripper_problem, "as a gripper in motor units that is nearly closed"
    assert not opened(probe, [0.02] * 20)
    assert "opening in m" in opened(probe, [*np.linspace(0.02, 0.06, 40), *[0.06] * 20])


def test_a_gripper_in_motor_units_that_passes_where_metres_would_be_is_left_alone():
    closing = [*[0.05] * 30, *np.linspace(0.05, 0.0, 8), *np.linspace(0.0, -0.339, 30)]
    probe = UnitProbe(MOTOR, CONFIG)
    assert not opened(probe, closing) and probe.done
    assert not opened(probe, np.linspace(-0.339, 3.5578, 100)) and not opened(probe, [*np.linspace(0.15, 0.1, 5), *[0.1] * 200])
    slow = UnitProbe(MOTOR, CONFIG)
    assert opened(slow, np.linspace(0.05, 0.14, 200))
    assert not opened(slow, [0.2, 0.2]), "no gripper opens so far in m"


# Status --------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("field, value, word", [
    ("arm_status", 1, "emergency"), ("arm_status", 4, "units"), ("arm_status", 6, "enable"), ("arm_status", 99, "99"),
    ("communication_status_joint_3", True, "joint 3"), ("ctrl_mode", 6, "leader"), ("ctrl_mode", 2, "teach")])
def test_a_status_that_forbids_motion_says_why(field, value, word):
    from piper_msgs.msg import PiperStatusMsg

    status = PiperStatusMsg(ctrl_mode=1)
    assert not agilex_status.problem(status)
    setattr(status, field, value)
    assert word in agilex_status.problem(status)


# Commands ------------------------------------------------------------------------------------------------------------

def released(joints=JOINTS, gripper=None):
    position, matrix = ArmKinematics(ARM).pose(np.asarray(joints))
    return ArmCommand(ARM.name, Pose(position, to_quaternion(matrix)), np.asarray(joints, dtype=float), gripper, True)


def test_a_joint_command_has_seven_positions_in_the_drivers_order():
    stream = ArmStream(ARM, CONFIG)
    stream.measured(0.5)
    stream.begin()
    message = stream.joint_message(released(), 12.5)
    assert message.name == [f"joint{i}" for i in range(7)]
    np.testing.assert_allclose(message.position, [*JOINTS, 0.035])
    assert message.velocity[6] == 100.0 and message.effort[6] == 1.0 and message.header.stamp.to_sec() == 12.5
    assert stream.joint_message(released(gripper=0.0), 12.6).position[6] == 0.0
    assert stream.joint_message(released(gripper=7.0), 12.7).position[6] == pytest.approx(0.07)


def test_a_slower_stream_leaves_ticks_out():
    stream = ArmStream(ARM, change(command_hz=50.0))
    sent = [stream.joint_message(released(), 0.0) is not None for _ in range(8)]
    assert sent == [True, False, False, False] * 2


@pytest.mark.parametrize("asked, every", [(200.0, 1), (199.0, 2), (150.0, 2), (134.0, 2), (100.0, 2), (66.7, 3), (10.0, 20)])
def test_a_stream_is_never_faster_than_asked(asked, every):
    stream = ArmStream(ARM, change(command_hz=asked))
    sent = [stream.joint_message(released(), 0.0) is not None for _ in range(3 * every)]
    assert sent == [True, *[False] * (every - 1)] * 3 and stream.joint_hz == 200.0 / every


def test_what_a_gripper_holds_stays_held_over_a_pause_but_a_moved_gripper_starts_from_where_it_is():
    stream = ArmStream(ARM, CONFIG)
    stream.measured(0.3)
    stream.begin()
    stream.joint_message(released(gripper=0.0), 0.0)      # closed on an object, at an opening of 0.3
    stream.measured(0.31)
    stream.begin()
    assert stream.joint_message(released(), 1.0).position[6] == 0.0
    stream.measured(0.9)                                  # opened by hand meanwhile
    stream.begin()
    assert stream.joint_message(released(), 2.0).position[6] == pytest.approx(0.9 * 0.07)


def followed(commands, positions, hz=200.0):
    """Return what is said of states at `hz`. commands: of the first joint, rad; positions: of each state, None for silence."""
    frozen, said = FrozenStates(), []
    for tick, (command, position) in enumerate(zip(commands, positions)):
        frozen.commanded(np.array([command, *[0.0] * 5]))
        if position is not None:
            said.append(frozen.measured(np.array([position, *[0.0] * 5]), tick / hz))
    return said


def test_states_that_stand_still_while_the_arm_is_commanded_are_named():
    moving, tiny = np.linspace(0.0, 0.5, 200), 2e-5
    said = followed(moving, [*moving[:50], *[moving[50]] * 150])
    first = next(tick for tick, text in enumerate(said) if text)
    assert "CAN bus" in said[-1] and 50 + 60 < first < 50 + 80, "0.3 s after the command has moved by 0.02 rad"
    assert not any(followed(moving, tiny * np.arange(200))), "blocked, but read"
    assert not any(followed([0.3] * 400, [0.3] * 400)), "at rest"
    assert not any(followed(0.01 * np.sin(moving * 20), [0.0] * 200)), "hardly commanded"
    late = np.concatenate([np.zeros(50), moving[:150]])
    assert not any(followed(moving, late)), "an arm that begins 0.25 s late"
    assert not any(followed(moving, [0.0, *[None] * 150, *[0.0] * 49])), "states that fell silent are another matter"


@pytest.mark.parametrize("units, metre, radian", [("m_rad", 1.0, 1.0), ("mm_deg", 1e-3, math.pi / 180)])
def test_a_pos_cmd_is_the_flange_in_the_drivers_units(units, metre, radian):
    from piper_msgs.msg import PosCmd

    stream = ArmStream(ARM, CONFIG)
    message = stream.pos_cmd(released(), units, 10.0, PosCmd)
    position, turn = flange()
    np.testing.assert_allclose(np.array([message.x, message.y, message.z]) * metre, position, atol=1e-9)
    np.testing.assert_allclose(np.array([message.roll, message.pitch, message.yaw]) * radian, turn.as_euler("xyz"),
                               atol=1e-9)
    np.testing.assert_allclose(tool_pose(message, ARM, units).position, released().pose.position, atol=1e-9)
    assert stream.pos_cmd(released(), units, 10.01, PosCmd) is None
    assert stream.pos_cmd(released(), units, 10.06, PosCmd) is not None


def test_a_driver_needs_its_section_and_its_door():
    with pytest.raises(ConfigurationError, match="section agilex"):
        dataclasses.replace(CONFIG, agilex=None)
    with pytest.raises(ConfigurationError, match="door"):
        dataclasses.replace(CONFIG, door="cartesian")
    with pytest.raises(ConfigurationError, match="command_hz"):
        change(command_hz=1000.0)
