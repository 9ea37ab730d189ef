"""The promises of the graph, with a real master, the real nodes and the simulated rig."""
from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import pytest

from hybridvla_core.errors import HybridVLAError
from hybridvla_core.paths import ROOT


def count(rig, name):
    """Return a counter of the filter, since its start."""
    return dict(zip(rig.status.counter_names, rig.status.counters)).get(name, 0)


def rests(rig, timeout=5.0):
    """Wait until the commanded pose rests, and return its position."""
    def resting():
        before, held = rig.status, rig.position()
        time.sleep(0.3)
        return rig.status.header.stamp > before.header.stamp and np.allclose(rig.position(), held, atol=1e-6)
    rig.until(resting, "rest", timeout)
    return rig.position()


def assert_stays(rig, held, seconds=0.5):
    time.sleep(seconds)
    assert np.allclose(rig.position(), held, atol=1e-6)


def test_the_arm_is_inactive_at_start_and_nothing_is_sent(rig):
    from hybridvla.msg import SafetyStatus

    rig.instruct("forward", False)
    rig.until(lambda: rig.proposals, "a proposal")
    rig.targets.clear()
    time.sleep(1.0)
    assert rig.status.state == SafetyStatus.INACTIVE
    assert not rig.targets


def test_an_active_arm_follows_its_instruction_and_every_target_keeps_the_limits(rig):
    rig.instruct("nowhere", False)         # an instruction of the test before would set off at once
    rig.begin()
    before = rig.position()
    rig.instruct("left", False)
    rig.until(lambda: rig.position()[1] > before[1] + 0.04, "motion to the left")
    assert abs(rig.position()[0] - before[0]) < 0.02
    assert rig.report("").limit_violations == 0


def test_a_proposal_that_finds_the_arm_at_rest_is_not_kept_waiting_for_the_next_tick(rig):
    import rospy
    from diagnostic_msgs.msg import DiagnosticArray

    early = []

    def on_diagnostics(message):
        if message.header.stamp > active:
            early.extend(int(entry.value) for status in message.status if status.name.endswith(": filter")
                         for entry in status.values if entry.key == "early")

    rig.instruct("nowhere", False)
    rig.begin()
    active = rospy.Time.now()
    subscriber = rospy.Subscriber("/diagnostics", DiagnosticArray, on_diagnostics)
    try:
        rig.until(lambda: early, "a first count while active")
        for word in ("left", "right") * 4:          # a proposal that comes just before a tick brings no tick forward
            before = rig.position()[1]
            rig.instruct(word, False)
            rig.until(lambda begin=before: abs(rig.position()[1] - begin) > 0.02, "motion")
            rig.instruct("nowhere", False)
            rig.until(lambda: rig.status.arms[0].at_target, "rest")
            if early[-1] > early[0]:
                break
        rig.until(lambda: early[-1] > early[0], "a tick brought forward", 5)
    finally:
        subscriber.unregister()
    assert rig.report("").limit_violations == 0


def test_silence_of_the_policy_makes_the_arm_hold(rig):
    from hybridvla.msg import SafetyStatus

    rig.begin()
    rig.instruct("left", False)
    rig.until(lambda: rig.state("ACTIVE"), "ACTIVE")
    rig.kill_policy()
    rig.until(lambda: rig.state("HOLDING"), "HOLDING", 3)
    rig.until(lambda: rig.status.reasons & SafetyStatus.HEARTBEAT_LOST, "the reason", 3)
    assert_stays(rig, rests(rig))


def test_stop_is_latched_until_resume(rig):
    rig.begin()
    rig.instruct("left", False)
    rig.until(lambda: rig.state("ACTIVE"), "ACTIVE")
    assert rig.stop().success
    rig.until(lambda: rig.state("STOPPED"), "STOPPED", 2)
    rig.instruct("forward", False)
    answer = rig.activate(True)
    assert not answer.success and "resume" in answer.message
    assert_stays(rig, rests(rig), 1.0)
    assert rig.state("STOPPED")
    rig.until(lambda: rig.resume().success, "resume")
    rig.until(lambda: not rig.state("STOPPED"), "the way out", 2)


def test_a_switched_instruction_discards_the_old_inference_and_the_old_target(rig):
    rig.begin()
    rig.instruct("slow left", False)
    rig.until(lambda: rig.heartbeat.state == type(rig.heartbeat).INFERRING, "an inference")
    answer = rig.instruct("hold here", False)
    assert answer.success and answer.previous_instruction == "slow left"
    rig.proposals.clear()
    before = rig.position()
    time.sleep(2.5)
    assert {message.instruction for message in rig.proposals} == {"hold here"}
    assert all(message.instruction_sequence >= answer.instruction_sequence for message in rig.proposals)
    assert np.allclose(rig.position(), before, atol=0.004)


def test_a_switch_in_motion_drops_the_target(rig):
    rig.instruct("nowhere", False)         # an instruction of the test before would set off at once
    rig.begin()
    before = rig.position()
    rig.instruct("across", False)
    rig.until(lambda: rig.position()[1] > before[1] + 0.02, "motion")
    asked = rig.status.arms[0].asked.pose.position.y
    assert asked > before[1] + 0.25
    rig.instruct("slow nothing", False)    # its first proposal comes long after the arm could have reached the old target
    assert rests(rig)[1] < asked - 0.1, "it stops on the way"


def test_an_empty_instruction_is_refused(rig):
    before = rig.instruct("nowhere", False).instruction_sequence
    answer = rig.instruct("   ", False)
    assert not answer.success and "empty" in answer.message
    assert answer.instruction_sequence == before and answer.previous_instruction == "nowhere"
    after = rig.instruct("forward", False)
    assert after.instruction_sequence == before + 1 and after.previous_instruction == "nowhere"


def test_nonsense_from_the_policy_moves_nothing(rig):
    rig.instruct("nonsense", False)        # from here on the policy sends nothing else
    rig.begin()
    before, rejected = rig.position(), count(rig, "rejected/proposal_invalid")
    rig.instruct("more nonsense", False)
    rig.until(lambda: count(rig, "rejected/proposal_invalid") > rejected, "a rejection")
    assert np.allclose(rig.position(), before, atol=1e-6)
    assert_stays(rig, before)


def test_a_target_outside_the_box_is_not_reached(rig):
    rig.begin()
    rig.instruct("down", False)            # higher up, a singularity comes before the wall
    rig.until(lambda: rig.position()[2] < 0.27, "the way down", 30)
    before = rig.position()
    rig.instruct("far", False)
    rig.until(lambda: rig.position()[0] > 0.745, "the wall", 30)
    held = rests(rig)
    assert before[0] < 0.4 and held[0] <= 0.75
    assert rig.report("").limit_violations == 0


def test_a_restarted_policy_is_accepted_at_rest(rig):
    rig.begin()
    rig.kill_policy()
    rig.until(lambda: rig.state("HOLDING"), "HOLDING", 3)
    rig.start_policy()
    before = rig.position()
    rig.instruct("left", False)
    rig.until(lambda: rig.position()[1] > before[1] + 0.03, "motion after the restart")


def test_a_gpu_lost_in_the_middle_is_said_the_arm_holds_and_a_restart_recovers(rig):
    rig.begin()
    rig.instruct("forward", False)
    rig.until(lambda: rig.state("ACTIVE"), "motion")
    rig.instruct("lost", False)
    rig.until(lambda: rig.policy.poll() is not None, "the end of the policy")
    said = rig.graph.log_tail("policy.log")
    assert rig.policy.returncode == 1 and "fallen off the bus" in said and "Traceback" not in said
    rig.until(lambda: rig.state("HOLDING") and "heartbeat" in rig.status.message, "the hold", 5)
    held = rests(rig)
    assert_stays(rig, held)
    assert rig.report("").limit_violations == 0
    rig.start_policy()
    rig.instruct("left", False)
    rig.until(lambda: rig.state("ACTIVE"), "motion on the new policy's word")
    rig.until(lambda: rig.position()[1] > held[1] + 0.04, "its target")


def test_activation_waits_for_a_policy_that_is_ready(rig):
    import rospy

    from hybridvla.msg import PolicyHeartbeat

    rig.kill_policy()
    time.sleep(0.5)
    answer = rig.activate(True)
    assert not answer.success and "no policy is running" in answer.message
    beats = rospy.Publisher("/hybridvla/policy/heartbeat", PolicyHeartbeat, queue_size=1)
    timer = rospy.Timer(rospy.Duration(0.05), lambda _event: beats.publish(
        PolicyHeartbeat(warming_up=True, message="the model is loading and warming up")))
    try:
        rig.until(lambda: "not READY: the model is loading" in rig.activate(True).message, "the refusal")
        assert rig.state("INACTIVE")
    finally:
        timer.shutdown()
        timer.join()
        beats.unregister()
    rig.start_policy()
    rig.until(lambda: rig.activate(True).success, "activation")


def test_the_filter_node_imports_no_torch():
    code = "import sys, hybridvla_ros.safety_node; sys.exit(int('torch' in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_used_port_is_refused_in_one_sentence(bench):
    from hybridvla_ros.runtime.private_graph import refuse_used_port

    with pytest.raises(HybridVLAError, match="already used"):
        refuse_used_port(bench.graph.port)


def test_a_second_filter_refuses_to_start(bench):
    from hybridvla_ros.safety_node import refuse_second_filter

    with pytest.raises(HybridVLAError, match="another safety filter"):
        refuse_second_filter()


@pytest.mark.long
def test_rostest_file(tmp_path):
    """The same as `rostest hybridvla safety_filter.test`, with its own master."""
    import os

    from hybridvla_ros.runtime.private_graph import free_port

    environment = dict(os.environ, ROS_MASTER_URI=f"http://127.0.0.1:{free_port()}", ROS_HOME=str(tmp_path))
    done = subprocess.run(["rostest", str(ROOT / "test/safety_filter.test")], env=environment,
                          capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "TESTS: 3" in done.stdout
