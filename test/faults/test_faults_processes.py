"""Real faults of processes, clocks, sockets and the master: each time the arm holds and no limit is broken."""
from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import rospy

from hybridvla.msg import ActionProposal, PolicyHeartbeat, SafetyStatus
from hybridvla_core.paths import ROOT


def test_a_filter_killed_in_motion_comes_back_without_a_jump(bench):
    bench.moving()
    bench.kill_filter()
    last, held = bench.targets[-1], bench.command
    bench.start_filter()
    bench.command = held                       # the controller downstream keeps the last target
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
    count, last, since = len(bench.targets), bench.targets[-1], len(bench.statuses)
    bench.signal(signal.SIGCONT)
    bench.until(lambda: bench.gave(since, "CLOCK_JUMP"), "the pause in the status")
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
        since = len(bench.statuses)
        answer = call(Config(doubles=[DoubleParameter("speed_scale", value)]))
        assert answer.config.doubles[0].value == 1.0
        bench.until(lambda since=since, value=value: bench.gave(since, "CONFIGURATION", f"speed_scale is {value}"),
                    "the refusal")
        bench.assert_held()
        assert bench.state("HOLDING") and bench.status.speed_scale == 1.0
    try:
        assert call(Config(doubles=[DoubleParameter("speed_scale", 0.5)])).config.doubles[0].value == 0.5
        bench.until(lambda: bench.status.speed_scale == 0.5, "a legal value")
    finally:
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
    with bench.publishing(bench.arm.topics["command"], PoseStamped):
        bench.until(lambda: bench.state("STOPPED") and bench.because("CONTROLLER", "/fault_tests"), "the intruder's name")
        bench.assert_held()
    bench.until(lambda: bench.resume().success, "resume")
    bench.set_off()
    assert bench.monitor.violations == 0, bench.monitor.last_violation


@pytest.mark.long
def test_a_policy_process_that_is_suspended_joined_by_another_and_killed(bench):
    bench.epoch, bench.beating = 0, True
    bench.activated()
    with bench.process([sys.executable, str(ROOT / "test/support/talker.py")], "talker.log") as talker:
        bench.until(lambda: bench.state("ACTIVE"), "motion on the word of the process")
        bench.signal(signal.SIGSTOP, talker)
        bench.until(lambda: bench.because("HEARTBEAT_LOST"), "the loss of the suspended policy")
        bench.assert_held()
        bench.signal(signal.SIGCONT, talker)
        bench.until(lambda: bench.state("ACTIVE"), "motion after it woke")
        try:
            bench.epoch = 1
            bench.until(lambda: bench.because("SECOND_PUBLISHER", "fault_tests"), "the second publisher's name")
            bench.assert_held()
        finally:
            bench.epoch = 0
        bench.until(lambda: bench.state("ACTIVE"), "motion once one policy is left")
        bench.signal(signal.SIGKILL, talker)
        bench.until(lambda: bench.because("HEARTBEAT_LOST"), "the loss of the killed policy")
        bench.assert_held()


@pytest.mark.long
def test_a_connection_that_stalls_in_a_message_and_a_network_that_splits_and_heals(bench):
    from raw_peer import RawPublisher

    bench.beating = False
    time.sleep(0.5)
    bench.activated()
    bench.epoch, bench.sequence = int(time.monotonic() * 1e6), 0
    with contextlib.ExitStack() as peers:
        beats, words = (peers.enter_context(contextlib.closing(RawPublisher(name, topic, kind, "/raw_policy")))
                        for name, topic, kind in (("/raw_beats", "/hybridvla/policy/heartbeat", PolicyHeartbeat),
                                                  ("/raw_words", "/hybridvla/policy/proposal", ActionProposal)))
        bench.until(lambda: beats.connections and words.connections, "the connections")

        def talk():
            beats.send(bench.beat())
            words.send(bench.proposal())
            time.sleep(0.1)
            return bench.state("ACTIVE")

        bench.turn += 1
        bench.until(talk, "motion")
        beats.send(bench.beat(), share=0.5)         # the rest never comes, and no connection closes
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


@pytest.mark.long
def test_a_subscriber_that_never_reads_delays_nothing(bench):
    from geometry_msgs.msg import PoseStamped
    from raw_peer import deaf_subscriber
    from rosgraph import Master

    bench.moving()
    uri = Master("/deaf").lookupNode("/safety_filter_node")
    with contextlib.ExitStack() as deaf:
        for topic, kind in (("/hybridvla/safety/status", SafetyStatus), *[(bench.arm.topics["command"], PoseStamped)] * 2):
            deaf.enter_context(deaf_subscriber("/deaf", uri, topic, kind))
        count, begin = len(bench.targets), time.monotonic()
        bench.until(lambda: time.monotonic() - begin > 4.0, "time for buffers to fill")
        assert len(bench.targets) - count > 200    # a filter that one of them blocks would send nothing more
        assert time.monotonic() - bench.status_at < 2.0
    assert bench.monitor.violations == 0, bench.monitor.last_violation


def test_the_master_dies_and_returns(bench, tmp_path):
    episodes = [sys.executable, str(ROOT / "nodes" / "episode_node"), f"_file:={tmp_path / 'episodes.jsonl'}"]
    with bench.process(episodes, "episodes.log"):
        rospy.wait_for_service("/hybridvla/episode/start", 20)
        bench.moving()
        bench.graph.end(bench.graph.master)
        try:
            bench.until(lambda: bench.because("OPERATOR", "master does not answer"), "the loss of the master")
            bench.assert_held()
        finally:
            bench.graph.master = bench.graph.start(["rosmaster", "--core", "-p", str(bench.graph.port)], "master.log")
        bench.until(lambda: not bench.because("OPERATOR"), "the master's return")
        rospy.wait_for_service("/hybridvla/safety/stop", 20)      # registered again
        rospy.wait_for_service("/hybridvla/episode/start", 20)    # and so is every other node of ours
    assert bench.stop().success
    bench.until(lambda: bench.state("STOPPED"), "STOPPED")
    bench.until(lambda: bench.resume().success, "resume")
    bench.set_off()
    assert bench.monitor.violations == 0, bench.monitor.last_violation


def test_a_full_disk_loses_log_lines_and_nothing_else(bench):
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    bench.kill_filter()
    try:
        bench.start_filter("__log:=/dev/full", command_prefix=(
            "bash", "-c", 'exec "$@" > /dev/full 2>&1', "filter"))
        bench.moving()
        for _ in range(30):
            bench.resume()                                    # each one logs a line
        bench.set_off()
        bench.beating = False
        bench.until(lambda: bench.because("HEARTBEAT_LOST"), "silence")
        bench.assert_held()
        assert bench.filter.poll() is None
    finally:
        bench.kill_filter()


@contextlib.contextmanager
def simulated_time(bench):
    """Let the test drive /clock and the arm's stamps: the yielded threading.Event lets them run, the list adds jumps, s."""
    from rosgraph_msgs.msg import Clock

    running, jumps, ended = threading.Event(), [], threading.Event()
    running.set()

    def run(publisher):
        while not ended.wait(0.01):
            bench.clock += (0.01 if running.is_set() else 0.0) + (jumps.pop(0) if jumps else 0.0)
            publisher.publish(Clock(rospy.Time.from_sec(bench.clock)))

    with bench.publishing("/clock", Clock) as publisher:
        bench.kill_filter()
        bench.clock = 1000.0
        thread = threading.Thread(target=run, args=(publisher,), daemon=True)
        try:
            rospy.set_param("/use_sim_time", True)
            thread.start()
            yield running, jumps
        finally:
            rospy.set_param("/use_sim_time", False)
            bench.kill_filter()
            ended.set()
            thread.join(2)
            bench.clock = None


def test_simulated_time_that_stops_and_jumps(bench):
    # Stamps of a jumping clock say nothing about speed, so steps are judged here and not by the monitor.
    with simulated_time(bench) as (running, jumps):
        try:
            bench.start_filter()
            count = len(bench.targets)
            bench.moving()
            running.clear()
            bench.until(lambda: bench.because("CLOCK_JUMP") and bench.because("JOINT_STATE", "stand still"),
                        "the stopped clock")
            bench.assert_rests()
            running.set()
            for jump, words in ((-100.0, "set back"), (300.0, "set ahead")):
                bench.set_off()
                since = len(bench.statuses)
                jumps.append(jump)
                bench.until(lambda since=since, words=words: bench.gave(since, "CLOCK_JUMP")
                            and bench.gave(since, "JOINT_STATE", words), "the jump")
                bench.assert_rests()
            bench.set_off()
            steps = np.linalg.norm(np.diff(bench.targets[count:], axis=0), axis=1)
            assert steps.max() < 4 * 0.35 * 0.005           # a message or two may be lost
        finally:
            bench.monitor.counts.clear()
