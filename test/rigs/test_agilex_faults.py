"""The AgileX rig through its launch file: motion, and what may go wrong with its drivers while the arms move."""
from __future__ import annotations

import time

import numpy as np
import pytest


@pytest.fixture(scope="module")
def bench(agilex):
    with agilex() as rig:
        yield rig


@pytest.fixture
def rig(bench):
    """Bring the rig to its start: both drivers alive, arms enabled at their start joints, a new scene, the filter INACTIVE."""
    for arm in ("right", "left"):
        bench.fault(f"{arm} start")
    bench.until(lambda: bench.status is not None, "a status")
    bench.until(lambda: bench.activate(False).success, "the end of the last test's motion")
    bench.until(lambda: not bench.state("STOPPED") or bench.resume().success, "resume")
    bench.until(lambda: bench.state("INACTIVE"), "INACTIVE")
    bench.scene(1)
    bench.until(lambda: bench.enable().success, "enabling")
    time.sleep(0.3)
    return bench


@pytest.fixture
def commands(rig):
    """Record what goes to both drivers, by arm: lists of (monotonic time, message)."""
    import rospy
    from sensor_msgs.msg import JointState

    heard, ears = {"right": [], "left": []}, []
    for arm, sent in heard.items():
        ears.append(rospy.Subscriber(f"/master/joint_{arm}", JointState,
                                     lambda message, sent=sent: sent.append((time.monotonic(), message)), queue_size=50))
    yield heard
    for ear in ears:
        ear.unregister()


def arrive(rig, by, opening):
    """Move both tools `by` (3,) m, asking again when a hold dropped the target, as a policy does. Returns the poses."""
    wanted = rig.shift(by, opening)
    began = asked = time.monotonic()
    while not (all(arm.at_target for arm in rig.status.arms) and rig.status.sequence):
        assert time.monotonic() < began + 30.0, rig.status.message
        if rig.state("HOLDING") and time.monotonic() > asked + 1.0:
            asked = time.monotonic()
            rig.source.propose(wanted, opening)
        time.sleep(0.02)
    return wanted


def test_both_arms_go_where_they_are_told_and_the_rig_counts_no_violation(rig, commands):
    rig.begin()
    before = rig.measured("left")
    wanted = rig.shift([0.0, 0.0, -0.06], opening=0.4)
    rig.until(lambda: (all(arm.at_target for arm in rig.status.arms) and rig.status.sequence)
              or rig.source.again(rig.status), "arrival")
    assert before[2] - rig.measured("left")[2] > 0.05
    for arm in ("right", "left"):
        np.testing.assert_allclose(rig.measured(arm), wanted[arm][0], atol=0.004)
        message = commands[arm][-1][1]
        assert len(message.position) == 7 and message.name == [f"joint{i}" for i in range(7)]
    rig.until(lambda: abs(commands["right"][-1][1].position[6] - 0.028) < 1e-4, "the gripper's command, in m")
    assert rig.rig()["violations_by_name"] == {}


def test_go_to_start_is_slow_and_keeps_every_limit(rig, commands):
    rig.begin()
    arrive(rig, [0.0, 0.0, -0.06], 1.0)
    for sent in commands.values():
        sent.clear()
    answer = rig.go_to_start()
    assert answer.success, answer.message
    rig.until(lambda: rig.state("INACTIVE"), "INACTIVE")
    for arm in rig.robot.arms:
        np.testing.assert_allclose(np.radians(rig.rig()["joints"][arm.name]), arm.start_joints_rad, atol=0.01)
        sent = [message for _, message in commands[arm.name]]
        moved = np.abs(np.array(sent[-1].position[:6]) - np.array(sent[0].position[:6]))
        elapsed = (sent[-1].header.stamp - sent[0].header.stamp).to_sec()
        slowest = np.array(arm.joint_limits.velocity_rad_s) * rig.robot.reenter_scale
        assert len(sent) > 100 and (moved <= slowest * elapsed).all()
    assert rig.rig()["violations_by_name"] == {}


def test_disabled_in_mid_motion_stops_both_and_recovers_by_the_explicit_way(rig, commands):
    rig.begin()
    by_flag = rig.rig()["disabled_by_flag"]
    rig.shift([0.0, 0.0, -0.06])
    rig.until(lambda: rig.state("ACTIVE"), "motion")
    rig.fault("right disable")
    rig.until(lambda: rig.state("STOPPED"), "the stop", 5)
    assert "right" in rig.status.message and "disabled" in rig.status.message
    assert not rig.rig()["enabled"]["right"] and rig.rig()["enabled"]["left"]
    rig.until(lambda: len(commands["right"]) and time.monotonic() - commands["right"][-1][0] > 0.5, "silence to the arm")
    answer = rig.resume()
    assert not answer.success and "enable" in answer.message, answer.message
    rig.scene(1)                                        # somebody lifts the fallen arm back up, and restarts both
    time.sleep(0.3)                                     # so that the left arm's standby is seen before enabling, not after
    answer = rig.enable()
    assert answer.success, answer.message
    rig.until(lambda: rig.rig()["enabled"]["right"], "motors on")
    time.sleep(0.5)                                     # the filter doubts joints that were moved by hand for a moment
    rig.until(lambda: rig.resume().success or rig.activate(True).success, "resume")
    assert rig.rig()["disabled_by_flag"] == by_flag     # nothing in this stack ever switches motors off
    before = rig.measured("right")
    time.sleep(0.5)
    np.testing.assert_allclose(rig.measured("right"), before, atol=0.004)


def test_a_false_enable_flag_from_elsewhere_stops_at_once(rig, publishing):
    from std_msgs.msg import Bool

    rig.begin()
    by_flag = rig.rig()["disabled_by_flag"]
    with publishing("/enable_flag", Bool) as other:
        rig.until(lambda: other.get_num_connections() >= 2, "filter and rig listening")
        other.publish(False)
        rig.until(lambda: rig.state("STOPPED") and "/enable_flag" in rig.status.message, "the stop", 5)
        rig.until(lambda: rig.rig()["disabled_by_flag"] == by_flag + 1 and not any(rig.rig()["enabled"].values()),
                  "the flag at the rig")
        assert rig.enable().success
        rig.until(lambda: all(rig.rig()["enabled"].values()), "motors on")


def stopped_in_motion(rig, fault):
    rig.begin()
    rig.shift([0.0, 0.0, -0.06])
    rig.until(lambda: rig.state("ACTIVE"), "motion")
    rig.fault(fault)
    rig.until(lambda: rig.state("STOPPED"), "the stop", 5)
    return rig.status.message


def test_motors_lost_without_a_word_show_in_the_following_error(rig):
    assert "left" in stopped_in_motion(rig, "left limp")


def test_an_arm_whose_bus_is_gone_stops_both(rig):
    assert "left: its joint states stand still while it is commanded" in stopped_in_motion(rig, "left freeze")
    rig.fault("left start")


def test_one_drivers_death_holds_both_arms(rig, commands):
    from hybridvla.msg import SafetyStatus

    rig.begin()
    rig.shift([0.0, 0.0, -0.08])
    rig.until(lambda: rig.state("ACTIVE"), "motion")
    rig.fault("left die")
    rig.until(lambda: rig.state("HOLDING") and rig.status.reasons & SafetyStatus.JOINT_STATE, "the hold", 5)
    assert "left" in rig.status.message

    def resting():
        """Whether the arms have braked: nothing more is sent while the left arm's position is unknown; the right arm stands."""
        counts, held = {arm: len(commands[arm]) for arm in commands}, rig.measured("right")
        time.sleep(0.4)
        return (all(len(commands[arm]) == count for arm, count in counts.items())
                and np.abs(rig.measured("right") - held).max() < 0.002)
    rig.until(resting, "rest", 5)
    assert resting() and rig.state("HOLDING")
    rig.fault("left start")
    rig.until(lambda: not rig.status.reasons & SafetyStatus.JOINT_STATE, "the driver back", 10)
    before = rig.measured("left")
    arrive(rig, [0.0, 0.0, 0.03], 1.0)
    assert rig.measured("left")[2] > before[2] + 0.02


def test_a_fault_in_the_status_and_teach_mode_stop(rig):
    rig.begin()
    rig.fault("right status 7")
    rig.until(lambda: rig.state("STOPPED"), "the stop", 5)
    assert "collision" in rig.status.message
    rig.fault("right status 0")
    rig.until(lambda: rig.resume().success, "resume")
    rig.fault("left teach")
    rig.until(lambda: rig.state("STOPPED") and "teach" in rig.status.message, "the stop", 5)


def test_a_second_publisher_on_a_command_topic_stops_the_arms(rig, publishing):
    from sensor_msgs.msg import JointState

    rig.begin()
    with publishing("/master/joint_left", JointState):
        rig.until(lambda: rig.state("STOPPED") and "/master/joint_left is also published by" in rig.status.message,
                  "the stop", 10)


def test_enabling_is_refused_while_the_arms_are_commanded(rig):
    rig.begin()
    rig.shift([0.0, 0.0, -0.03])
    rig.until(lambda: rig.state("ACTIVE"), "motion")
    answer = rig.enable()
    assert not answer.success and "deactivate" in answer.message
