"""The dual-arm rig without ROS: the arms' kinematics and firmware, the rig's own count, the tray and its carriers."""
import math

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hybridvla_core.errors import HybridVLAError
from hybridvla_core.paths import ROOT
from hybridvla_core.robots.config import load_robot
from hybridvla_core.robots.kinematics import ArmKinematics
from hybridvla_sim.monitor import MonitorLimits
from hybridvla_sim.piper.arm import CAN_CONTROL, MDEG, MOVE_J, MOVE_P, NORMAL, OVER_LIMIT, STANDBY
from hybridvla_sim.piper.monitor import JointMonitor, JointMonitorLimits
from hybridvla_sim.piper.rig import PiperRig
from hybridvla_sim.piper.scene import ARMS, BASE_Y, FLANGE_M, MAX_WIDTH, RANGES, TIP_M
from hybridvla_sim.tasks.tray.expert import next_keyframe, tools_in_shared_frame
from hybridvla_sim.tasks.tray.task import INSTRUCTION
from hybridvla_sim.tasks.tray.world import TASK

pytestmark = pytest.mark.robot_computer

ROBOT = load_robot(ROOT / "config" / "robots" / "agilex.yaml")
START = {arm.name: np.array(arm.start_joints_rad) for arm in ROBOT.arms}


@pytest.fixture(scope="module")
def shared():
    rig = PiperRig(TASK)
    yield rig
    rig.close()


@pytest.fixture
def rig(shared):
    shared.reset(np.random.default_rng(1), START)
    return shared


def counts(joints):
    return np.round(np.asarray(joints) / MDEG).astype(int)


def test_fingers_that_are_pressed_apart_stop_where_a_grippers_do(rig):
    arm = rig.arms["right"]
    rig.data.qfrc_applied[[rig.model.jnt_dofadr[rig.model.jnt_qposadr.tolist().index(q)] for q in arm.index.fingers]] = 60.0   # N
    widest = 0.0
    for _ in range(100):
        rig.step(0.01)
        widest = max(widest, arm.gripper * 1e-6)
    rig.data.qfrc_applied[:] = 0.0
    assert MAX_WIDTH < widest < MAX_WIDTH + 0.02


# Kinematics ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ARMS)
def test_the_arms_are_those_of_the_configuration(rig, name):
    arm, config = rig.arms[name], ROBOT.arm(name)
    kinematics = ArmKinematics(config)
    for joints in np.random.default_rng(0).uniform(config.joint_limits.lower_rad, config.joint_limits.upper_rad, (10, 6)):
        position, quaternion = arm.tool_at(joints, FLANGE_M + TIP_M)
        np.testing.assert_allclose(position, kinematics.pose(joints)[0], atol=1e-9)
        np.testing.assert_allclose(Rotation.from_quat(quaternion).as_matrix(), kinematics.pose(joints)[1], atol=1e-9)
    assert config.mount.position_m == (0.0, BASE_Y[name], 0.0)
    np.testing.assert_allclose(np.array(RANGES).T, [config.joint_limits.lower_rad, config.joint_limits.upper_rad])
    assert config.gripper.max_width_m == MAX_WIDTH


def test_golden_flange_pose_of_the_zero_joints(rig):
    position, quaternion = rig.arms["left"].tool_at(np.zeros(6), FLANGE_M)
    np.testing.assert_allclose(position, [0.056128, 0.0, 0.213266], atol=1e-6)     # from piper_sdk's own kinematics
    np.testing.assert_allclose(Rotation.from_quat(quaternion).as_euler("xyz", degrees=True), [0.0, 85.0, 0.0], atol=1e-3)


# Firmware ------------------------------------------------------------------------------------------------------------

def test_an_enabled_arm_holds_and_follows_and_a_disabled_one_falls(rig):
    arm, other = rig.arms["right"], rig.arms["left"]
    rig.step(0.5)
    assert np.abs(rig.data.qpos[arm.index.qpos] - START["right"]).max() < 0.005
    arm.motion_ctrl(MOVE_J, 100)
    goal = START["right"] + [0.2, 0.0, 0.0, 0.1, 0.0, 0.3]
    arm.joint_ctrl(counts(goal))
    rig.step(1.0)
    assert arm.ctrl_mode == CAN_CONTROL and arm.status == NORMAL
    np.testing.assert_allclose(rig.data.qpos[arm.index.qpos], goal, atol=0.005)
    before = arm.end_pose[2]
    arm.enable(False)
    arm.joint_ctrl(counts(START["right"]))
    rig.step(1.0)
    assert arm.ctrl_mode == STANDBY and before - arm.end_pose[2] > 50000
    assert np.abs(rig.data.qpos[other.index.qpos] - START["left"]).max() < 0.005
    fallen = rig.data.qpos[arm.index.qpos].copy()
    arm.enable(True)
    rig.step(0.5)
    assert np.abs(rig.data.qpos[arm.index.qpos] - fallen).max() < 0.05         # it stays where it fell


def test_a_target_beyond_the_range_raises_a_status_and_is_not_followed(rig):
    arm = rig.arms["right"]
    arm.motion_ctrl(MOVE_J, 100)
    arm.joint_ctrl(counts([0.0, -0.5, 0.0, 0.0, 0.0, 0.0]))
    rig.step(0.3)
    assert arm.status == OVER_LIMIT
    assert np.abs(rig.data.qpos[arm.index.qpos] - START["right"]).max() < 0.005


def test_metres_sent_as_millimetres_find_no_joints(rig):
    arm = rig.arms["right"]
    arm.motion_ctrl(MOVE_P, 50)
    pose = arm.end_pose
    arm.end_pose_ctrl(pose[:3] + [0, 10000, 0], pose[3:])
    assert arm.status == NORMAL
    arm.end_pose_ctrl(pose[:3] / 1000, pose[3:] / 57.3)
    assert arm.status != NORMAL


# The rig's own count -------------------------------------------------------------------------------------------------

LIMITS = JointMonitorLimits(lower=(-1.0, -1.0), upper=(1.0, 1.0), velocity=(1.0, 2.0),
                            tool=MonitorLimits((0.0, -1.0, 0.0), (1.0, 1.0, 1.0), 0.5, 1.0))
TURN = (0.0, 0.0, 0.0, 1.0)


def show(monitor, *rows):
    for time, joints, position in rows:
        monitor.command(time, joints, position, TURN)
    return dict(monitor.counts)


def test_the_count_lets_allowed_motion_pass():
    rows = [(0.005 * i, (0.0045 * i, 0.0), (0.5, 0.002 * i, 0.5)) for i in range(100)]
    assert show(JointMonitor(LIMITS), *rows) == {}


def test_the_count_sees_positions_speeds_and_the_tool():
    assert show(JointMonitor(LIMITS), (0.0, (1.1, 0.0), (0.5, 0.0, 0.5))) == {"joint_1_position": 1}
    fast = show(JointMonitor(LIMITS), (0.0, (0.0, 0.0), (0.5, 0.0, 0.5)), (0.005, (0.0, 0.02), (0.5, 0.0, 0.5)))
    assert fast["joint_2_speed_step"] == 1
    assert show(JointMonitor(LIMITS), (0.0, (0.0, 0.0), (1.5, 0.0, 0.5))) == {"workspace_x": 1}
    jump = show(JointMonitor(LIMITS), (0.0, (0.0, 0.0), (0.5, 0.0, 0.5)), (0.005, (0.0, 0.0), (0.5, 0.1, 0.5)))
    assert jump["speed_step"] == 1


def test_an_excess_of_many_small_steps_shows_in_the_window():
    """Commands come in quick succession: each step is what one period allows, but together they are twice too fast."""
    rows = [(0.0025 * i, (0.0, 0.01 * i), (0.5, 0.0, 0.5)) for i in range(90)]
    found = show(JointMonitor(LIMITS), *rows)
    assert found["joint_2_speed_window"] > 0 and "joint_2_speed_step" not in found


def test_a_command_that_is_no_number_and_an_arm_in_the_table_are_counted(rig):
    assert not rig.judge("left", 0.0, np.array([0.0, math.nan, 0.0, 0.0, 0.0, 0.0]))
    assert rig.violations["left/not_finite"] == 1
    rig.arms["right"].enable(False)
    before = rig.violations["right/touches_table"]
    rig.step(2.0)
    assert rig.violations["right/touches_table"] > before


# The task ------------------------------------------------------------------------------------------------------------

def tools(rig):
    return tools_in_shared_frame({name: arm.tool_at(rig.data.qpos[arm.index.qpos], FLANGE_M + TIP_M)[0]
                                  for name, arm in rig.arms.items()})


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_both_hands_carry_the_tray_to_the_mark(shared, seed):
    shared.reset(np.random.default_rng(seed), START)
    assert not shared.world.success(INSTRUCTION)
    steps = []
    for _ in range(16):
        wishes = {}
        assert shared.world.expert(INSTRUCTION).phase == next_keyframe(shared.world.state(), tools(shared))[0]
        step, hands = next_keyframe(shared.world.state(), tools(shared))
        steps.append(step)
        for name, hand in hands.items():
            arm = shared.arms[name]
            arm.motion_ctrl(MOVE_P, 10)
            flange = hand.position - hand.rotation.apply([0.0, 0.0, TIP_M])
            arm.end_pose_ctrl(np.round(flange * 1e6), np.round(hand.rotation.as_euler("xyz") / MDEG))
            assert arm.status == NORMAL
            wishes[name] = hand.opening
        shared.step(2.0)
        for name, opening in wishes.items():
            shared.arms[name].gripper_ctrl(round(opening * MAX_WIDTH * 1e6))
        shared.step(0.9)
        if shared.world.success(INSTRUCTION):
            assert list(dict.fromkeys(steps)) == ["above", "reach", "grasp", "lift", "carry", "lower", "release"]
            return
    pytest.fail(f"the tray is at {shared.world.state().position}")


def test_three_cameras_see_the_scene(rig):
    images = [rig.render(camera) for camera in ("front", "right", "left")]
    assert all(image.shape == (240, 320, 3) and image.std() > 10 for image in images)
    with pytest.raises(HybridVLAError, match="no camera"):
        rig.render("wrist")
