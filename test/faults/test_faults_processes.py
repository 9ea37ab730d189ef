"""Faults of processes, clocks, sockets and the master: real ones, with the arm held and no limit broken each time."""
from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import rospy

from hybridvla.msg import ActionProposal, PolicyHeartbeat, SafetyStatus

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def test_a_filter_killed_in_motion_comes_back_without_a_jump(bench):
    bench.moving()
    bench.kill_filter()
    last, held = bench.targets[-1], bench.command
    bench.start_filter()
    bench.command = held                       # the controller behind keeps the last target
    count = len(bench.targets)
    bench._proposals.publish(bench.proposal())
    time.sleep(0.3)
    assert bench.state("INACTIVE") and len(bench.targets) == count
    bench.activated()
    bench.until(lambda: len(bench.targets) > count, "a target")
    assert np.linalg.norm(np.subtract(bench.targets[count], last)) < 0.01
    position, _ = bench.kinematics.pose(bench.joints)
    assert np.linalg.norm(bench.targets[count] - position) < 0.005
    bench.new_policy()
    bench.set_off()
    assert bench.monitor.violations == 0, bench.monitor.last_violation


def test_a_filter_that_was_suspended_does_not_catch_up(bench):
    bench.moving()
    bench.signal(signal.SIGSTOP)
    time.sleep(1.0)
    count, last = len(bench.targets), bench.targets[-1]
    bench.signal(signal.SIGCONT)
    bench.until(lambda: bench.because("CLOCK_JUMP", "paused") or bench.state("HOLDING"), "the pause in the status")
    bench.assert_held()
    way = np.linalg.norm(np.diff([last, *bench.targets[count:]], axis=0), axis=1)
    assert way.sum() < 0.08                    # it braked; a second at full speed would have been 0.35 m
    bench.set_off()
    bench.beating = False
    bench.until(lambda: bench.because("HEARTBEAT_LOST"), "silence")
    bench.assert_held()


def test_an_illegal_parameter_is_refused_and_the_arm_holds(bench):
    from dynamic_reconfigure.msg import Config, DoubleParameter
    from dynamic_reconfigure.srv import Reconfigure

    call = rospy.ServiceProxy("/safety_filter_node/set_parameters", Reconfigure)
    for value in (5.0, 0.0, math.nan):
        bench.moving()
        answer = call(Config(doubles=[DoubleParameter("speed_scale", value)]))
        assert answer.config.doubles[0].value == 1.0
        bench.until(lambda: bench.because("CONFIGURATION", "speed_scale") or bench.state("HOLDING"), "the refusal")
        bench.assert_held()
        assert bench.status.speed_scale == 1.0
    assert call(Config(doubles=[DoubleParameter("speed_scale", 0.5)])).config.doubles[0].value == 0.5
    bench.until(lambda: bench.status.speed_scale == 0.5, "a legal value")
    call(Config(doubles=[DoubleParameter("speed_scale", 1.0)]))


@pytest.mark.parametrize("name", ["another_filter", "safety_filter_node"])
def test_a_second_filter_refuses_and_the_first_goes_on(bench, name):
    bench.moving()
    done = subprocess.run([sys.executable, str(ROOT / "nodes" / "safety_filter_node"), f"__name:={name}",
                           "_robot_config:=config/robots/sim_fr3.yaml"], capture_output=True, text=True, timeout=60,
                          check=False)
    assert done.returncode == 1 and "another safety filter" in done.stdout + done.stderr
    assert bench.filter.poll() is None
    bench.set_off()
    assert bench.monitor.violations == 0, bench.monitor.last_violation


def test_another_publisher_on_the_command_topic_stops_the_arm(bench):
    from geometry_msgs.msg import PoseStamped

    bench.moving()
    intruder = rospy.Publisher(bench.arm.topics["command"], PoseStamped, queue_size=1)
    bench.until(lambda: bench.state("STOPPED") and bench.because("CONTROLLER", "/fault_tests"), "the intruder's name")
    bench.assert_held()
    intruder.unregister()
    bench.until(lambda: bench.resume().success, "resume")
    bench.set_off()
    assert bench.monitor.violations == 0, bench.monitor.last_violation


def test_a_policy_process_that_is_suspended_joined_by_another_and_killed(bench):
    bench.epoch = 0
    bench.activated()
    talker = bench.graph.start([sys.executable, str(HERE / "talker.py")], "talker.log")
    bench.until(lambda: bench.state("ACTIVE"), "motion on the word of the process")
    bench.signal(signal.SIGSTOP, talker)
    bench.until(lambda: bench.because("HEARTBEAT_LOST"), "the loss of the suspended policy")
    bench.assert_held()
    bench.signal(signal.SIGCONT, talker)
    bench.until(lambda: bench.state("ACTIVE"), "motion after it woke")
    bench.epoch = 1
    bench.until(lambda: bench.because("SECOND_PUBLISHER", "fault_tests"), "the second publisher's name")
    bench.assert_held()
    bench.epoch = 0
    bench.until(lambda: bench.state("ACTIVE"), "motion once one policy is left")
    bench.signal(signal.SIGKILL, talker)
    bench.until(lambda: bench.because("HEARTBEAT_LOST"), "the loss of the killed policy")
    bench.assert_held()


def test_a_connection_that_stalls_in_a_message_and_a_network_that_splits_and_heals(bench):
    from raw_peer import RawPublisher

    bench.beating = False
    time.sleep(0.5)
    bench.activated()
    bench.epoch, bench.sequence = int(time.monotonic() * 1e6), 0
    beats = RawPublisher("/raw_beats", "/hybridvla/policy/heartbeat", PolicyHeartbeat, "/raw_policy")
    words = RawPublisher("/raw_words", "/hybridvla/policy/proposal", ActionProposal, "/raw_policy")
    try:
        bench.until(lambda: beats.connections and words.connections, "the connections")

        def talk():
            beats.send(bench.beat())
            words.send(bench.proposal())
            time.sleep(0.1)
            return bench.state("ACTIVE")

        bench.turn += 1
        bench.until(talk, "motion")
        beats.send(bench.beat(), share=0.5)         # the rest never comes, and nothing closes
        bench.until(lambda: bench.because("HEARTBEAT_LOST"), "the loss of the stalled policy")
        bench.assert_held()
        assert beats.connections
        beats.split()
        words.split()
        time.sleep(0.5)
        beats.heal()
        words.heal()
        bench.until(lambda: beats.connections and words.connections, "new connections")
        bench.turn += 1
        bench.until(talk, "motion after the split")
        beats.split()                               # both ways, in motion
        words.split()
        bench.until(lambda: bench.because("HEARTBEAT_LOST"), "the loss in the split")
        bench.assert_held()
        beats.heal()
        words.heal()
    finally:
        beats.close()
        words.close()


def test_a_subscriber_that_never_reads_delays_nothing(bench):
    from geometry_msgs.msg import PoseStamped
    from raw_peer import deaf_subscriber
    from rosgraph import Master

    bench.moving()
    uri = Master("/deaf").lookupNode("/safety_filter_node")
    deaf = [deaf_subscriber("/deaf", uri, "/hybridvla/safety/status", SafetyStatus)]
    deaf += [deaf_subscriber("/deaf", uri, bench.arm.topics["command"], PoseStamped) for _ in range(2)]
    count, begin = len(bench.targets), time.monotonic()
    bench.until(lambda: time.monotonic() - begin > 4.0, "time for buffers to fill")
    assert len(bench.targets) - count > 200        # a filter that is blocked by one of them sends nothing more
    assert time.monotonic() - bench.status_at < 2.0
    for connection in deaf:
        connection.close()
    assert bench.monitor.violations == 0, bench.monitor.last_violation


def test_the_master_dies_and_returns(bench, tmp_path):
    episodes = bench.graph.start([sys.executable, str(ROOT / "nodes" / "episode_node"),
                                  f"_file:={tmp_path / 'episodes.jsonl'}"], "episodes.log")
    rospy.wait_for_service("/hybridvla/episode/start", 20)
    bench.moving()
    bench.graph.end(bench.graph.master)
    bench.until(lambda: bench.because("OPERATOR", "master does not answer"), "the loss of the master")
    bench.assert_held()
    bench.graph.master = bench.graph.start(["rosmaster", "--core", "-p", str(bench.graph.port)], "master.log")
    bench.until(lambda: not bench.because("OPERATOR"), "the master's return")
    rospy.wait_for_service("/hybridvla/safety/stop", 20)      # registered again
    rospy.wait_for_service("/hybridvla/episode/start", 20)    # and so is every other node of ours
    bench.graph.end(episodes)
    assert bench.stop().success
    bench.until(lambda: bench.state("STOPPED"), "STOPPED")
    bench.until(lambda: bench.resume().success, "resume")
    bench.set_off()
    assert bench.monitor.violations == 0, bench.monitor.last_violation


def test_a_full_disk_loses_log_lines_and_nothing_else(bench):
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    bench.kill_filter()
    bench.start_filter("__log:=/dev/full", command_prefix=(
        "bash", "-c", 'exec "$@" > /dev/full 2>&1', "filter"))
    bench.moving()
    for _ in range(30):
        bench.resume()                                        # each writes a line
    bench.set_off()
    bench.beating = False
    bench.until(lambda: bench.because("HEARTBEAT_LOST"), "silence")
    bench.assert_held()
    assert bench.filter.poll() is None
    bench.kill_filter()


def test_simulated_time_that_stops_and_jumps(bench):
    from rosgraph_msgs.msg import Clock

    bench.kill_filter()
    rospy.set_param("/use_sim_time", True)
    clock, running, bench.clock = rospy.Publisher("/clock", Clock, queue_size=1), [True], 1000.0
    # Stamps of a clock that jumps say nothing about speed: steps are judged here, not by the monitor.

    def run():
        while True:
            time.sleep(0.01)
            now = bench.clock
            if now is None:
                return
            if running[0]:
                now = bench.clock = now + 0.01
            clock.publish(Clock(rospy.Time.from_sec(now)))

    import threading
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        bench.start_filter()
        count = len(bench.targets)
        bench.moving()
        running[0] = False
        bench.until(lambda: bench.because("CLOCK_JUMP", "stood still") or bench.because("JOINT_STATE", "stand still"),
                    "the stopped clock")
        bench.assert_rests()
        running[0] = True
        for jump in (-100.0, 300.0):
            bench.set_off()
            bench.clock += jump
            bench.until(lambda: bench.because("CLOCK_JUMP") or bench.because("JOINT_STATE") or bench.state("HOLDING"),
                        "the jump")
            bench.assert_rests()
        bench.set_off()
        steps = np.linalg.norm(np.diff(bench.targets[count:], axis=0), axis=1)
        assert steps.max() < 4 * 0.35 * 0.005               # a message or two may be lost on the way
    finally:
        bench.monitor.counts.clear()
        rospy.set_param("/use_sim_time", False)
        bench.kill_filter()
        bench.clock = None
        thread.join(2)
