"""The FR3 through its launch file: motion, and what goes wrong between a filter and franka_ros while it moves."""
from __future__ import annotations

import contextlib
import time

import numpy as np
import pytest
from fr3_bench import Bench

IMPEDANCE = "cartesian_impedance_example_controller"
TARGETS = f"/{IMPEDANCE}/equilibrium_pose"


@pytest.fixture(scope="module")
def source_class():
    from conftest import Source

    return Source


@pytest.fixture(scope="module")
def bench(master, source_class):
    process = master.launch("fr3.launch", "rig:=stand_in", "policy:=false", "speed_scale:=1.0", "image_hz:=0.2")
    try:
        yield Bench(master, source_class)
    finally:
        master.end(process, 20.0)


@pytest.fixture
def rig(bench):
    """Bring the rig to a state without faults, with the filter INACTIVE or STOPPED."""
    bench.operator.pressed = True
    for fault in (bench.user_stop, bench.guiding, bench.gripper_stuck, bench.ee_frame, bench.push, bench.state_silent):
        fault(False)
    bench.until(lambda: bench.status is not None, "a status", 60)
    if bench.rig()["mode"] not in (1, 2):
        bench.answered(bench.recover, what="recover")
    bench.activate(False)
    return bench


def test_start_up_sets_the_robot_and_a_target_is_reached_within_every_limit(rig):
    rig.start()
    report = rig.rig()
    assert IMPEDANCE in report["running"] and report["mode"] == 2
    assert report["stiffness"] == [400.0, 30.0, 5.0]
    assert report["upper_force"] == [70.0, 70.0, 70.0]
    rig.arrive([0.45, 0.10, 0.20], opening=0.0)
    assert np.linalg.norm(rig.measured - [0.45, 0.10, 0.20]) < 0.01
    rig.until(lambda: rig.rig()["world"]["opening"] < 0.05, "the gripper closed")
    assert rig.report("").limit_violations == 0


@pytest.mark.long
def test_a_reflex_in_mid_motion_stops_publishing_and_the_way_back_has_no_jump(rig):
    rig.fast()
    rig.reflex()
    rig.until(lambda: rig.state("STOPPED"), "STOPPED", 5)
    assert "REFLEX" in rig.status.message and "cartesian_reflex" in rig.status.message
    assert not rig.activate(True).success and not rig.resume().success
    rig.targets.clear()
    time.sleep(0.5)
    assert not rig.targets
    stopped = rig.measured
    rig.answered(rig.recover, what="recover")
    assert rig.still() < 0.005
    rig.answered(rig.resume, what="resume")
    rig.until(lambda: rig.targets, "targets after resume")
    first = rig.targets[0].pose.position
    assert np.linalg.norm([first.x, first.y, first.z] - stopped) < 0.01
    assert rig.still() < 0.01
    rig.arrive([0.45, 0.0, 0.30])


@pytest.mark.long
def test_a_user_stop_is_recovered_only_after_its_release(rig):
    rig.fast()
    rig.user_stop(True)
    rig.until(lambda: rig.state("STOPPED"), "STOPPED", 5)
    answer = rig.recover()
    assert not answer.success and "release" in answer.message
    rig.user_stop(False)
    time.sleep(0.3)
    assert not rig.resume().success     # it looks idle, and still needs the recovery
    rig.bring_back()
    assert rig.still() < 0.01


def test_hand_guiding_by_the_buttons_stops_and_the_arm_holds_where_it_was_led(rig):
    rig.fast()
    rig.guiding(True)
    rig.until(lambda: rig.state("STOPPED"), "STOPPED", 5)
    assert "GUIDING" in rig.status.message
    here = rig.measured
    rig.push(True)
    rig.until(lambda: rig.measured[1] - here[1] > 0.03, "the arm led by hand", 20)
    rig.push(False)
    assert not rig.recover().success
    rig.guiding(False)
    rig.bring_back()
    assert rig.still() < 0.01


def test_the_deadman_released_or_silent_holds_and_forbids_the_way_to_the_start(rig):
    from hybridvla.msg import SafetyStatus

    rig.fast()
    rig.operator.pressed = False
    rig.until(lambda: rig.state("HOLDING") and rig.status.reasons & SafetyStatus.DEADMAN, "the hold", 3)
    rig.activate(False)
    answer = rig.go_to_start()
    assert not answer.success and "deadman" in answer.message


@pytest.mark.long
def test_the_deadman_released_on_the_way_to_the_start_stops_the_arm(rig):
    import threading

    rig.start()
    rig.arrive([0.55, 0.25, 0.20])
    rig.activate(False)
    rig.until(lambda: rig.state("INACTIVE"), "INACTIVE")
    answers, here = [], rig.measured
    worker = threading.Thread(target=lambda: answers.append(rig.go_to_start()))
    worker.start()
    rig.until(lambda: np.linalg.norm(rig.measured - here) > 0.02, "motion to the start", 30)
    rig.operator.pressed = False
    worker.join(30)
    assert not answers[0].success and "deadman" in answers[0].message
    assert rig.still() < 0.01
    rig.operator.pressed = True
    rig.answered(rig.go_to_start, what="go_to_start")
    assert np.abs(np.array(rig.rig()["joints"]) - rig.arm.start_joints_rad).max() < 0.02
    assert IMPEDANCE in rig.rig()["running"]


@pytest.mark.long
def test_a_gripper_goal_that_never_returns_fails_and_the_arm_still_obeys(rig):
    from hybridvla.msg import ArmSafety

    rig.start()
    rig.gripper_stuck(True)
    rig.pursue(rig.measured, 0.0, lambda: rig.status.arms[0].gripper_state == ArmSafety.FAILED, "a gripper that has FAILED")
    rig.until(lambda: rig.status.arms[0].at_target or rig.state("HOLDING", "ACTIVE"), "a filter that goes on")
    rig.gripper_stuck(False)
    rig.arrive(rig.measured + [0.0, 0.0, -0.04])
    rig.until(lambda: rig.status.arms[0].gripper_state == ArmSafety.DONE, "DONE once it answers again", 20)


@pytest.mark.long
def test_an_object_that_slips_out_of_the_gripper_is_reported(rig):
    from hybridvla.msg import ArmSafety

    rig.begin(3_000_001)
    rig.answered(rig.activate, True, what="activate")
    block = np.array(rig.rig()["world"]["block_pos"][0])
    rig.arrive(block + [0.0, 0.0, 0.10])
    rig.arrive([block[0], block[1], 0.02], opening=0.0)
    rig.until(lambda: rig.status.arms[0].gripper_state == ArmSafety.DONE, "a grasp", 20)
    rig.arrive(block + [0.0, 0.0, 0.12], opening=0.0)
    time.sleep(1.0)
    assert rig.status.arms[0].gripper_state == ArmSafety.DONE
    rig.answered(rig.drop_object, what="drop")
    rig.until(lambda: rig.status.arms[0].gripper_state == ArmSafety.FAILED, "the slip", 10)


@pytest.mark.long
def test_a_second_node_on_our_topic_ends_in_a_stopped_controller_and_not_in_a_fight(rig, publishing):
    from geometry_msgs.msg import PoseStamped

    rig.fast()
    message = PoseStamped()
    message.pose.position.x, message.pose.position.z, message.pose.orientation.x = 0.5, 0.5, 1.0
    before = rig.graph.log_tail(lines=100_000).count("/rig_tests also commands the arm")
    with publishing(TARGETS, PoseStamped) as marker:
        end = time.monotonic() + 3.0
        while time.monotonic() < end and not (rig.state("STOPPED") and IMPEDANCE not in rig.rig()["running"]):
            marker.publish(message)
            time.sleep(0.005)
        assert rig.state("STOPPED"), rig.events       # with this sentence, or that of the check of the master's list
        assert rig.graph.log_tail(lines=100_000).count("/rig_tests also commands the arm") > before
        assert IMPEDANCE not in rig.rig()["running"]
        assert not rig.resume().success
    rig.answered(rig.resume, what="resume", timeout=60)
    assert rig.still() < 0.01
    assert IMPEDANCE in rig.rig()["running"]


def test_a_second_publisher_is_named_before_it_has_said_a_word(rig, publishing):
    from geometry_msgs.msg import PoseStamped

    rig.start()
    with publishing(TARGETS, PoseStamped):
        rig.until(lambda: rig.state("STOPPED"), "STOPPED", 10)
        rig.until(lambda: not rig.resume().success, "a refusal")
        assert "also published by /rig_tests" in rig.resume().message
    rig.answered(rig.resume, what="resume")
    assert rig.still() < 0.01


@contextlib.contextmanager
def stiffness(value):
    """Let somebody else change the controller's stiffness, N/m, for a while."""
    from dynamic_reconfigure.client import Client

    client = Client(f"/{IMPEDANCE}/dynamic_reconfigure_compliance_param_node", timeout=10)
    try:
        client.update_configuration({"translational_stiffness": value})
        yield
    finally:
        try:
            client.update_configuration({"translational_stiffness": 400.0})
        finally:
            client.close()


def test_a_stiffness_turned_by_somebody_else_is_named(rig):
    rig.start()
    with stiffness(150.0):
        rig.until(lambda: rig.state("STOPPED") and "set to 150 N/m by somebody else" in rig.status.message, "STOPPED", 10)
        assert not rig.resume().success
    rig.answered(rig.resume, what="resume")


@pytest.mark.long
def test_an_end_effector_frame_changed_in_desk_is_named_and_nothing_moves(rig):
    rig.begin()
    rig.ee_frame(True)
    time.sleep(0.5)
    answer = rig.activate(True)
    assert not answer.success and "end-effector frame" in answer.message and "20.0 mm" in answer.message
    rig.ee_frame(False)
    rig.fast()
    rig.ee_frame(True)
    rig.until(lambda: rig.state("STOPPED"), "STOPPED", 5)
    assert "end-effector frame" in rig.status.message
    rig.ee_frame(False)
    rig.bring_back()


@pytest.mark.long
def test_a_person_takes_the_arm_and_gives_it_back_without_a_jump(rig):
    rig.start()
    assert rig.takeover(True).success
    rig.until(lambda: rig.state("INACTIVE"), "INACTIVE")
    assert not rig.activate(True).success
    here = rig.measured
    rig.push(True)
    rig.until(lambda: rig.measured[1] - here[1] > 0.03, "the arm led by hand", 20)
    rig.push(False)
    assert rig.takeover(False).success
    time.sleep(0.3)
    assert rig.still(1.0) < 0.005
    rig.answered(rig.activate, True, what="activate")
    assert rig.still(1.0) < 0.01


def test_a_payload_is_told_to_the_robot_and_an_active_filter_goes_on(rig):
    rig.start()
    assert not rig.set_payload(9.0, [0.0, 0.0, 0.1]).success
    answer = rig.set_payload(0.05, [0.0, 0.0, 0.1])
    assert answer.success, answer.message
    assert abs(rig.rig()["load"] - 0.05) < 1e-6
    rig.until(lambda: rig.state("HOLDING", "ACTIVE"), "active again")
    assert rig.still() < 0.01
    rig.arrive([0.42, 0.05, 0.40])
    assert rig.set_payload(0.0, [0.0, 0.0, 0.0]).success


def test_a_running_filter_whose_controller_is_stopped_by_somebody_stops(rig):
    import rospy
    from controller_manager_msgs.srv import SwitchController

    rig.start()
    rospy.ServiceProxy("/controller_manager/switch_controller", SwitchController)([], [IMPEDANCE], 2, False, 0.0)
    rig.until(lambda: rig.state("STOPPED"), "STOPPED", 10)
    rig.answered(rig.resume, what="resume", timeout=60)     # start-up has run again


def test_without_the_robots_state_joint_states_still_speak_for_the_arm_but_it_stops(rig):
    rig.fast()
    rig.state_silent(True)
    rig.until(lambda: rig.state("STOPPED") and "the robot's mode is unknown" in rig.status.message, "STOPPED", 5)
    time.sleep(0.5)
    assert rig.status.arms[0].joint_state_age < 0.2
    rig.state_silent(False)
    rig.answered(rig.resume, what="resume")


def test_activation_is_refused_while_no_policy_lives(rig):
    rig.begin()
    rig.source.silent = True
    try:
        time.sleep(0.5)
        answer = rig.activate(True)
    finally:
        rig.source.silent = False
    assert not answer.success and "policy" in answer.message
