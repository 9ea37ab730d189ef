"""The markers: the filter's own capsules, limits and words, in connected frames."""
from __future__ import annotations

import threading
from types import SimpleNamespace

import numpy as np
import pytest
import rospy
from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import JointState
from visualization_msgs.msg import Marker

from hybridvla.msg import ActionProposal, ArmSafety, ArmTarget, SafetyStatus
from hybridvla_core.paths import ROOT
from hybridvla_core.robots.config import load_robot
from hybridvla_core.robots.kinematics import ArmKinematics
from hybridvla_ros.console.operator.state import SILENCE_S
from hybridvla_ros.console.view.node import MarkersNode
from hybridvla_ros.console.view.scene import WORLD, Scene
from hybridvla_ros.messages.arm_reader import ArmReader, fingers_of

NOW = rospy.Time(100)


def stamped(frame, position):
    pose = PoseStamped()
    pose.header.frame_id, pose.pose.orientation.w = frame, 1.0
    pose.pose.position.x, pose.pose.position.y, pose.pose.position.z = position
    return pose


def place(marker):
    return np.array([marker.pose.position.x, marker.pose.position.y, marker.pose.position.z])


@pytest.fixture(params=["sim_fr3", "agilex"])
def robot(request):
    return load_robot(ROOT / f"config/robots/{request.param}.yaml")


class Clock:
    now = 50.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def scene(robot, clock):
    scene = Scene(robot, clock)
    for arm in robot.arms:
        scene.on_joints(arm.name, arm.start_joints_rad)
    return scene


def named(scene, name):
    return [marker for marker in scene.markers(NOW) if marker.ns == name]


def test_an_arm_is_its_configured_capsules_where_its_joints_put_them(robot, scene):
    for arm in robot.arms:
        shown = named(scene, f"measured/{arm.name}")
        bodies = [marker for marker in shown if marker.type == Marker.CYLINDER]
        assert len(bodies) == len(arm.collision.capsules) and len(shown) == 3 * len(bodies)
        assert {marker.header.frame_id for marker in shown} == {arm.base_frame}
        for capsule, body in zip(arm.collision.capsules, bodies):
            length = np.linalg.norm(np.subtract(capsule.end_m, capsule.start_m))
            assert np.allclose([body.scale.x, body.scale.z], [2 * capsule.radius_m, max(length, 1e-4)])
            if capsule.link == 0:
                assert np.allclose(place(body), 0.5 * np.add(capsule.start_m, capsule.end_m))
        hand = [capsule for capsule in arm.collision.capsules if capsule.link == len(arm.joint_names)][-1]
        tool = ArmKinematics(arm).pose(np.array(arm.start_joints_rad))[0]
        shown_at = place(bodies[list(arm.collision.capsules).index(hand)])
        assert np.linalg.norm(shown_at - tool) < 0.25       # at the arm's end, not at its base


def test_the_ends_of_a_body_are_its_balls(scene, robot):
    shown = named(scene, f"measured/{robot.arms[0].name}")
    for first, second, body in zip(shown[0::3], shown[1::3], shown[2::3]):
        turn = body.pose.orientation
        z = np.array([2 * (turn.x * turn.z + turn.y * turn.w), 2 * (turn.y * turn.z - turn.x * turn.w),
                      1 - 2 * (turn.x ** 2 + turn.y ** 2)])
        if np.linalg.norm(place(second) - place(first)) > 1e-3:
            assert np.allclose(place(body) + 0.5 * body.scale.z * z, place(second), atol=1e-6)


def test_a_commanded_arm_stands_where_its_tool_is_commanded(robot, scene):
    arm = robot.arms[0]
    steer = ArmKinematics(arm)
    goal = steer.pose(np.array(arm.start_joints_rad))[0] + [0.02, -0.03, 0.01]
    status = SafetyStatus(arms=[ArmSafety(name=arm.name, target=stamped(arm.base_frame, goal),
                                          asked=stamped(arm.base_frame, goal + 0.1), measured=stamped(arm.base_frame, goal))])
    scene.on_status(status)
    assert np.linalg.norm(steer.pose(scene.views[arm.name].commanded)[0] - goal) < 1e-3
    assert len(named(scene, f"commanded/{arm.name}")) == 3 * len(arm.collision.capsules)
    asked, sent = named(scene, f"target/{arm.name}")
    assert np.allclose([asked.points[1].x, sent.points[1].x], [goal[0] + 0.1, goal[0]])
    status.arms[0].target = stamped(arm.base_frame, goal + 3.0)
    scene.on_status(status)
    assert named(scene, f"commanded/{arm.name}") == []      # nowhere near: not drawn anywhere


def test_a_status_without_poses_shows_no_targets_and_no_frames(robot, scene):
    arm = robot.arms[0]
    empty, zeros = PoseStamped(), stamped(arm.base_frame, (0.0, 0.0, 0.0))
    zeros.pose.orientation.w = 0.0
    nowhere = stamped(arm.base_frame, (float("nan"), 0.0, 0.0))
    for pose in (empty, zeros, nowhere):
        scene.on_status(SafetyStatus(arms=[ArmSafety(name=arm.name, target=pose, asked=pose, measured=pose)]))
        assert named(scene, f"target/{arm.name}") == [] and named(scene, f"commanded/{arm.name}") == []
        assert {transform.child_frame_id for transform in scene.transforms(NOW)} == {each.base_frame for each in robot.arms}


def test_the_workspace_is_its_box(robot, scene):
    for arm in robot.arms:
        box = named(scene, f"workspace/{arm.name}")[0]
        points = np.array([[point.x, point.y, point.z] for point in box.points])
        assert len(points) == 24
        assert np.allclose(points.min(axis=0), arm.workspace.lower_m) and np.allclose(points.max(axis=0), arm.workspace.upper_m)


def test_both_paths_of_a_proposal_begin_at_its_base_and_add_up_while_it_is_valid(robot, scene, clock):
    arms = [arm.name for arm in robot.arms]
    step = np.tile([0.01, 0.02, 0.0, 0, 0, 0, 1.0], (2, len(arms)))
    targets = [ArmTarget(name=arm.name, base=stamped(arm.base_frame, (0.3, 0.0, 0.4))) for _ in range(2) for arm in robot.arms]
    proposal = ActionProposal(chunk=2, action_dim=7 * len(arms), diffusion=list(step.ravel()), action=list(step.ravel()),
                              autoregressive=[float("nan")] * step.size, targets=targets, valid_for=rospy.Duration(0.6))
    scene.on_proposal(proposal)
    for name in arms:
        line = named(scene, f"diffusion/{name}")[0]
        assert np.allclose([[point.x, point.y] for point in line.points], [[0.3, 0.0], [0.31, 0.02], [0.32, 0.04]])
        assert named(scene, f"autoregressive/{name}") == []
    scene.on_proposal(ActionProposal(kind=ActionProposal.HOLD))
    assert named(scene, f"diffusion/{arms[0]}") == []
    scene.on_proposal(proposal)
    clock.now += 0.5
    assert named(scene, f"diffusion/{arms[0]}")
    clock.now += 0.2        # the policy is dead: its old proposal is not shown as a present one
    assert named(scene, f"diffusion/{arms[0]}") == []


def test_an_intervention_is_said_once_where_the_arm_is(robot, scene):
    scene.on_intervention("limited/workspace")
    tool = scene.views[robot.arms[0].name].tool()
    words = named(scene, "interventions")
    assert [marker.text for marker in words] == ["limited/workspace"] and np.linalg.norm(place(words[0]) - tool) < 0.1
    assert named(scene, "interventions") == []


def test_every_frame_leads_to_the_common_one(robot, scene):
    arm = robot.arms[0]
    scene.on_status(SafetyStatus(arms=[ArmSafety(name=arm.name, target=stamped(arm.base_frame, (0.3, 0, 0.4)),
                                                 measured=stamped(arm.base_frame, (0.3, 0, 0.4)))]))
    parents = {transform.child_frame_id: transform.header.frame_id for transform in scene.transforms(NOW)}
    frames = {marker.header.frame_id for marker in scene.markers(NOW)}
    for frame in (*frames, f"{arm.name}_tool_measured", f"{arm.name}_tool_commanded"):
        while frame != WORLD:
            frame = parents[frame]


def test_what_two_arms_markers_are_called_differs(scene):
    names = [(marker.ns, marker.id) for marker in scene.markers(NOW)]
    assert len(names) == len(set(names))


def status_of(arms):
    return SafetyStatus(arms=[ArmSafety(name=arm.name, target=pose, asked=pose, measured=pose) for arm in arms for pose in (
        stamped(arm.base_frame, ArmKinematics(arm).pose(np.array(arm.start_joints_rad))[0]),)])


def tools(scene):
    return {transform.child_frame_id for transform in scene.transforms(NOW) if "_tool_" in transform.child_frame_id}


def test_an_arm_whose_driver_is_dead_is_not_shown_though_the_filter_goes_on(robot, scene, clock):
    dead, limits = robot.arms[-1], [f"workspace/{arm.name}" for arm in robot.arms]
    scene.on_status(status_of(robot.arms))
    assert named(scene, f"measured/{dead.name}") and named(scene, f"commanded/{dead.name}")
    clock.now += SILENCE_S + 0.1
    for arm in robot.arms[:-1]:
        scene.on_joints(arm.name, arm.start_joints_rad)
    scene.on_status(status_of(robot.arms))      # it repeats the last measured pose
    assert not named(scene, f"measured/{dead.name}") and not named(scene, f"commanded/{dead.name}")
    assert tools(scene) == {f"{arm.name}_tool_commanded" for arm in robot.arms} | {
        f"{arm.name}_tool_measured" for arm in robot.arms[:-1]}
    for arm in robot.arms[:-1]:
        assert named(scene, f"measured/{arm.name}") and named(scene, f"commanded/{arm.name}")
    assert named(scene, f"target/{dead.name}") and all(named(scene, name) for name in limits)
    scene.on_joints(dead.name, dead.start_joints_rad)
    assert named(scene, f"measured/{dead.name}") and f"{dead.name}_tool_measured" in tools(scene)


def test_of_a_silent_filter_no_targets_and_no_tools_are_shown(robot, scene, clock):
    scene.on_status(status_of(robot.arms))
    assert len(tools(scene)) == 2 * len(robot.arms)
    clock.now += SILENCE_S + 0.1
    for arm in robot.arms:
        scene.on_joints(arm.name, arm.start_joints_rad)
        assert named(scene, f"measured/{arm.name}")
        assert not named(scene, f"commanded/{arm.name}") and not named(scene, f"target/{arm.name}")
    assert tools(scene) == set() and len(scene.transforms(NOW)) == len(robot.arms)      # the mounts stay


def test_tokens_say_the_first_step_of_a_chunk_and_that_one_is_shown(robot, scene):
    arms = [arm.name for arm in robot.arms]
    step = [0.01, 0.02, 0.0, 0, 0, 0, 1.0] * len(arms)
    targets = [ArmTarget(name=arm.name, base=stamped(arm.base_frame, (0.3, 0.0, 0.4))) for _ in range(4) for arm in robot.arms]
    scene.on_proposal(ActionProposal(chunk=4, action_dim=7 * len(arms), diffusion=step * 4, action=step * 4, autoregressive=step,
                                     targets=targets, valid_for=rospy.Duration(0.6)))
    for name in arms:
        assert len(named(scene, f"diffusion/{name}")[0].points) == 5
        assert [[point.x, point.y] for point in named(scene, f"autoregressive/{name}")[0].points] == [[0.3, 0.0], [0.31, 0.02]]


@pytest.mark.parametrize("doubtful", ["nan", "short"])
def test_joints_that_no_arm_can_have_move_nothing(robot, scene, doubtful):
    arm = robot.arms[0]
    node = SimpleNamespace(_scene=scene, _lock=threading.Lock(),
                           _readers={arm.name: ArmReader(arm.name, arm.joint_names, fingers_of(arm))})
    before = scene.markers(NOW)
    positions = [float("nan")] * len(arm.joint_names) if doubtful == "nan" else [0.1]
    MarkersNode._on_joints(node, JointState(name=list(arm.joint_names), position=positions), [arm.name])
    after = scene.markers(NOW)
    assert [marker.pose for marker in after] == [marker.pose for marker in before]
