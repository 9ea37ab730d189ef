"""`replay.launch`: the live nodes on a recorded bag propose what `hybridvla replay` proposes; a looping or paused bag
confuses nobody."""
from __future__ import annotations

import os
import signal
import sys
import time

import numpy as np
import pytest
import replay_bag
import rosbag
import rospy
from test_replay_checkpoints import replay

#: Runs in a process of its own, because this process may already belong to another master.
WATCHER = """
import sys, time
import rospy
from hybridvla.msg import ActionProposal, SafetyStatus
from std_srvs.srv import SetBool
rospy.init_node("watcher", disable_signals=True)
proposals, states = [], []
rospy.Subscriber("/hybridvla/policy/proposal", ActionProposal, proposals.append, queue_size=50)
rospy.Subscriber("/hybridvla/safety/status", SafetyStatus, states.append, queue_size=50)

def until(what, condition, limit=150):
    end = time.monotonic() + limit
    while not condition():
        if time.monotonic() > end:
            sys.exit(f"{what} did not come; proposals {len(proposals)}, {states and states[-1].message}")
        time.sleep(0.05)

def accepted():
    return dict(zip(states[-1].counter_names, states[-1].counters))["accepted"] if states else 0

until("a proposal that the filter takes", lambda: proposals and accepted())
"""
PAUSES_AND_LOOPS = """
pause = rospy.ServiceProxy("/replay_play/pause_playback", SetBool)
pause.wait_for_service(30)
pause(True)
time.sleep(1.0)
until("a filter that holds", lambda: states[-1].state == SafetyStatus.HOLDING and "joint states" in states[-1].message, 30)
stamps = [message.header.stamp.to_nsec() for message in proposals]
if len(stamps) != len(set(stamps)):
    sys.exit("a paused bag made the policy predict again from the same images")
pause(False)
count = len(proposals)
until("a proposal after the pause", lambda: len(proposals) > count)
first = proposals[0].epoch
until("a new epoch after the bag has started over", lambda: proposals[-1].epoch != first)
taken = accepted()
until("a proposal taken after the bag has started over", lambda: accepted() > taken and states[-1].epoch == proposals[-1].epoch)
back = [message.header.stamp.to_nsec() for message in proposals if message.epoch == proposals[-1].epoch]
before = [message.header.stamp.to_nsec() for message in proposals if message.epoch == first]
if sorted(back) != back or back[0] >= max(before):
    sys.exit("the stamps of the new epoch do not begin anew")
"""
SEEKS = f"""
from std_msgs.msg import Float64
seek = rospy.Publisher("/replay/seek", Float64, queue_size=1)
until("the player", seek.get_num_connections)

def goes_on(begin, end, what):
    taken, count = accepted(), len(proposals)
    until("a proposal " + what, lambda: any(begin <= message.header.stamp.to_sec() - {replay_bag.BEGIN} < end
                                            for message in proposals[count:]))
    until("a proposal taken " + what, lambda: accepted() > taken and states[-1].epoch == proposals[-1].epoch)

first = proposals[0].epoch
seek.publish(100.0)                    # beyond the end: said, and nothing happens
seek.publish(4.0)
goes_on(4.0, 6.0, "4 s into the bag")
seek.publish(0.5)
goes_on(0.5, 3.0, "back at 0.5 s")
if proposals[-1].epoch == first:
    sys.exit("time was set back without a new epoch")
"""

#: Real time: nothing else may use the processors meanwhile.
pytestmark = pytest.mark.ros


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """Write a bag with some seconds of an episode."""
    whole, recording = replay_bag.episode(), replay_bag.Motion()
    recording.joints = [entry for entry in whole.joints if entry[0] < replay_bag.BEGIN + 6.0]
    recording.images = [entry for entry in whole.images if entry[0] < replay_bag.BEGIN + 6.0]
    return replay_bag.write(tmp_path_factory.mktemp("live") / "short.bag", recording)


@pytest.fixture
def graph(tmp_path):
    """Yield a separate graph; the environment of the other tests is restored afterwards."""
    from hybridvla_ros.runtime.private_graph import Graph

    before = dict(os.environ)
    with Graph(tmp_path / "graph") as graph:
        yield graph
    os.environ.clear()
    os.environ.update(before)


def wait(process, graph, limit):
    end = time.monotonic() + limit
    while process.poll() is None:
        assert time.monotonic() < end, graph.log_tail(lines=40)
        time.sleep(0.1)


def watch(graph, script):
    watcher = graph.start([sys.executable, "-c", script], "watcher.log")
    wait(watcher, graph, 400)
    assert watcher.returncode == 0, graph.log_tail("watcher.log") + graph.log_tail(lines=30)


@pytest.mark.long
def test_the_live_node_and_replay_propose_the_same(short, graph, tmp_path):
    out = tmp_path / "live.bag"
    launch = graph.launch("replay.launch", f"bag:={short}", f"out:={out}", "rate:=0.5")
    wait(launch, graph, 240)
    assert out.exists(), graph.log_tail(lines=40)
    with rosbag.Bag(str(out)) as bag:
        live = [message for _, message, _ in bag.read_messages(topics=["/hybridvla/policy/proposal"])]
    assert len(live) >= 3 and all(message.epoch != 0 for message in live), graph.log_tail(lines=40)
    for batch, tolerance in ((1, 0.0), (16, 1e-5)):
        result = replay(short, rate=0.0, proposals_from=out, batch=batch)
        rows = {row.stamp_ns: row for row in result.contenders[0].evaluator.rows}
        assert result.summary["reproduction"]["of_this_checkpoint"] == len(live)
        assert result.summary["reproduction"]["max_m"] <= tolerance
        for message in live:
            stamp = min(rows, key=lambda known: abs(known - message.header.stamp.to_nsec()))
            point = message.targets[0].target.pose.position
            assert np.abs(rows[stamp].targets[0].target.position - [point.x, point.y, point.z]).max() <= tolerance


@pytest.mark.long
def test_pausing_and_looping_confuse_neither_policy_nor_filter(short, graph, tmp_path):
    graph.launch("replay.launch", f"bag:={short}", f"out:={tmp_path / 'loop.bag'}", "loop:=true")
    watch(graph, WATCHER + PAUSES_AND_LOOPS)


@pytest.mark.long
def test_seeking_in_a_bag_without_stamps_confuses_neither_policy_nor_filter(short, graph, tmp_path):
    """The proposals have the stamps of the recording, and the played copy is deleted afterwards."""
    bare = tmp_path / "bare.bag"
    with rosbag.Bag(str(short)) as whole, rosbag.Bag(str(bare), "w") as out:
        for topic, message, when in whole.read_messages():
            if hasattr(message, "header"):
                message.header.stamp = rospy.Time(0)
            out.write(topic, message, when)
    launch = graph.launch("replay.launch", f"bag:={bare}", f"out:={tmp_path / 'seek.bag'}", "loop:=true", "stamps:=recording")
    watch(graph, WATCHER + SEEKS)
    assert list(tmp_path.glob("hybridvla_replay_*/restamped.bag"))
    launch.send_signal(signal.SIGINT)
    wait(launch, graph, 60)
    assert not list(tmp_path.glob("hybridvla_replay_*"))


@pytest.mark.long
def test_a_bag_that_cannot_be_played_ends_the_launch_with_a_sentence(graph, tmp_path):
    (tmp_path / "no.bag").write_text("nothing")
    launch = graph.launch("replay.launch", f"bag:={tmp_path / 'no.bag'}")
    wait(launch, graph, 90)
    assert "not a ROS 1 bag" in graph.log_tail(lines=60)
