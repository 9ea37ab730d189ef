"""A second node that publishes what a driver publishes, such as a bag played on the rig's master: it is named, not believed."""
from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import rospy
from franka_bench import Driver, Topic
from franka_msgs.msg import FrankaState
from sensor_msgs.msg import JointState
from stage import Stage

from hybridvla_core.paths import ROOT
from hybridvla_core.robots.config import load_robot
from hybridvla_core.safety.status import State
from hybridvla_ros.adapters.agilex import adapter as agilex
from hybridvla_ros.adapters.franka import arm as arm_module
from hybridvla_ros.adapters.franka import services
from hybridvla_ros.adapters.franka.arm import FrankaArm
from hybridvla_ros.adapters.franka.services import ArmServices
from hybridvla_ros.messages.sources import SILENT_S

DRIVER, BAG = "/franka_control", "/play_bag"


@pytest.fixture
def topics(monkeypatch):
    """Puts the test in the place of the other nodes: `say(topic, message, node)` delivers a message."""
    ears = {}
    monkeypatch.setattr(rospy, "Publisher", lambda *_, **__: Topic())
    monkeypatch.setattr(rospy, "Subscriber", lambda topic, _kind, ear, **__: ears.__setitem__(topic, ear))

    def say(topic, message, node):
        message._connection_header = {"callerid": node}
        ears[topic](message)
    return SimpleNamespace(say=say)


@pytest.fixture
def fr3(topics, monkeypatch):
    """Return a stage with an FR3 and its services: `says(node, shift)` is the state of a robot away from its start."""
    stage = Stage(monkeypatch, "fr3", modules=(services, arm_module))
    monkeypatch.setattr(FrankaArm, "_make_hand", lambda _arm: None)
    arm = stage.arm = FrankaArm(stage.rig.config, lambda _state: None)
    arm.driver, arm.wait_for_mode = Driver(), lambda *_: ""
    arm.subscribe()
    robot = ArmServices(arm, SimpleNamespace(done=True, says=""), SimpleNamespace(fault=""), stage.handle)
    stage.node.adapter = SimpleNamespace(has_way_to_start=True, go_to_start=robot.go_to_start)
    start = np.array(arm.arm.start_joints_rad)

    def says(node, shift):
        state = FrankaState(robot_mode=2, q=(start + shift).tolist(), O_T_EE=np.eye(4).ravel().tolist())
        topics.say(arm.arm.topics["robot_state"], state, node)
    stage.says = says
    return stage


def test_an_fr3s_states_of_two_nodes_are_named_and_not_mixed_and_no_way_is_planned_from_them(fr3):
    fr3.says(DRIVER, 0.3)
    assert fr3.arm.problem() == ""
    fr3.says(BAG, 0.1)
    assert DRIVER in fr3.arm.problem() and BAG in fr3.arm.problem() and "robot states" in fr3.arm.problem()
    assert fr3.arm.state.q[0] == pytest.approx(0.3), "the first one's"
    done, message = fr3.ask("go_to_start")
    assert not done and BAG in message and fr3.arm.trajectories.sent == [] and fr3.state == State.INACTIVE
    fr3.sleep(1.1 * SILENT_S)
    fr3.says(DRIVER, 0.3)
    assert fr3.arm.problem() == ""


def test_an_fr3_on_its_way_to_the_start_is_stopped_when_a_second_node_begins(fr3):
    for tick in range(60):
        fr3.at(0.05 * tick, f"state {tick}", lambda: fr3.says(DRIVER, 0.3))
    fr3.at(1.0, "bag", lambda: fr3.says(BAG, 0.0))
    fr3.says(DRIVER, 0.3)
    done, message = fr3.ask("go_to_start")
    assert not done and BAG in message
    assert [bool(sent.points) for sent in fr3.arm.trajectories.sent] == [True, False], "an empty one stops it"


def test_an_fr3s_joint_states_of_two_nodes_are_named(fr3, topics):
    names, topic = fr3.arm.arm.joint_names, fr3.arm.arm.topics["joint_states"]
    fr3.says(DRIVER, 0.0)
    topics.say(topic, JointState(name=list(names), position=[0.0] * 7), DRIVER)
    topics.say(topic, JointState(name=["another_joint"], position=[0.0]), BAG)
    assert fr3.arm.problem() == "", "no joint of this arm"
    topics.say(topic, JointState(name=list(names), position=[0.1] * 7), BAG)
    assert DRIVER in fr3.arm.problem() and BAG in fr3.arm.problem() and "joint states" in fr3.arm.problem()


def test_an_agilex_arms_status_of_two_nodes_is_named_and_not_mixed(topics, monkeypatch):
    from piper_msgs.msg import PiperStatusMsg

    now, states = [10.0], []
    monkeypatch.setattr(agilex, "time", SimpleNamespace(monotonic=lambda: now[0]))
    config = load_robot(ROOT / "config" / "robots" / "agilex.yaml")
    arm = agilex.AgilexArm(config.arms[0], config, states.append).arm

    def says(node, status):
        topics.say(arm.topics["robot_state"], PiperStatusMsg(ctrl_mode=1, arm_status=status), node)
        topics.say(arm.topics["joint_states"], JointState(name=list(arm.joint_names), position=[0.0] * arm.dof), "/driver")
        return states[-1].message

    assert "emergency stop" in says("/driver", 1)
    both = says(BAG, 0)
    assert "/driver" in both and BAG in both and "arm status" in both
    now[0] += 1.1 * SILENT_S
    assert "emergency stop" in says("/driver", 1)
