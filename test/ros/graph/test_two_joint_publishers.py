"""Two nodes that publish one arm's joint states: both are named, their values are never mixed, and the arm stands still."""
from __future__ import annotations

import numpy as np
import rospy
from sensor_msgs.msg import JointState

from hybridvla_ros.messages.arm_reader import ArmReader
from hybridvla_ros.messages.sources import SILENT_S

NAMES = [f"fr3_joint{number}" for number in range(1, 8)] + ["fr3_finger_joint1", "fr3_finger_joint2"]


def reader():
    return ArmReader("arm", ("j1", "j2"), (("f1", "f2"), 0.0, 0.08))


def test_a_second_publisher_of_the_joints_stops_the_arm_and_is_named(rig):
    other = rospy.Publisher("/joint_states", JointState, queue_size=1)
    rig.begin()
    before = rig.position()
    try:
        def publish():
            message = JointState(name=NAMES, position=[0.0] * 9, velocity=[0.0] * 9)
            message.header.stamp = rospy.Time.now()
            other.publish(message)
            return rig.state("STOPPED") and "/ros_tests" in rig.status.message
        rig.until(publish, "STOPPED, naming the other")
        assert "/sim_rig_node" in rig.status.message
        assert np.allclose(rig.position(), before, atol=0.02)      # nothing was commanded from the zeros
        rig.until(lambda: publish() and "/ros_tests" in rig.heartbeat.message, "the other's name in the heartbeat")
    finally:
        other.unregister()
    rig.until(lambda: rig.resume().success, "resume, once the other has ended")
    rig.until(lambda: not rig.state("STOPPED"), "the end of STOPPED")


def test_values_of_two_publishers_are_never_mixed():
    arm = reader()
    for tick in range(50):
        now = tick * 0.01
        state = arm.joints(["j1", "j2"], [1.0, 2.0], [], now, "/driver")
        assert list(state.joint_positions) == [1.0, 2.0]
        if tick % 25 == 1:
            assert arm.joints(["j1", "j2"], [0.0, 0.0], [], now + 0.002, "/publisher") is None
    assert "/driver" in arm.problem(0.5) and "/publisher" in arm.problem(0.5)
    assert arm.problem(0.5 + 2 * SILENT_S) == ""


def test_a_driver_that_ended_makes_room_and_a_grippers_own_node_is_no_second_one():
    arm = reader()
    assert arm.joints(["j1", "j2"], [1.0, 2.0], [], 0.0, "/driver") is not None
    assert arm.joints(["f1", "f2"], [0.04, 0.04], [], 0.1, "/gripper") is None and arm.opening == 1.0
    assert arm.problem(0.1) == ""
    assert arm.joints(["j1", "j2"], [3.0, 4.0], [], 0.2 + SILENT_S, "/driver_2") is not None
    assert arm.problem(0.2 + SILENT_S) == ""


def test_a_joint_named_twice_has_no_value_and_is_named():
    arm = reader()
    state = arm.joints(["j1", "j2", "j2"], [1.0, 2.0, 0.0], [], 0.0, "/driver")
    assert np.isnan(state.joint_positions).all() and "j2 stands twice" in arm.problem(0.0)
    assert arm.joints(["j1", "j2"], [1.0, 2.0], [], 0.1, "/driver") is not None and arm.problem(0.1) == ""
