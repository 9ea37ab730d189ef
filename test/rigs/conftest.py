"""Graphs of the rigs. rospy knows one master per process, so scripts/test.sh runs each file of this folder by itself."""
from __future__ import annotations

import contextlib
import secrets
import threading
import time

import numpy as np
import pytest

from hybridvla_core.contracts import ArmTarget, DeltaBase, Heartbeat, PolicyState, Pose, Proposal


class Source:
    """A stand-in for the policy: heartbeats at 10 Hz, and proposals on demand. arms: arms of the robot configuration."""

    def __init__(self, arms):
        import rospy

        from hybridvla.msg import ActionProposal, PolicyHeartbeat
        from hybridvla_ros.messages import conversions

        self._rospy, self._conversions, self._arms = rospy, conversions, arms
        self.alive, self.silent = True, False
        self._epoch, self._sequence, self._last = secrets.randbits(60) | 1, 0, None
        self._proposals = rospy.Publisher("/hybridvla/policy/proposal", ActionProposal, queue_size=5)
        self._beats = rospy.Publisher("/hybridvla/policy/heartbeat", PolicyHeartbeat, queue_size=5)
        threading.Thread(target=self._beat, daemon=True).start()

    def _beat(self):
        from hybridvla_ros.runtime.node_support import publish_unless_ending

        while self.alive and not self._rospy.is_shutdown():
            if not self.silent:
                publish_unless_ending(self._beats, self._conversions.heartbeat_message(
                    Heartbeat(self._epoch, self._sequence, 1, PolicyState.WAITING)))
            time.sleep(0.1)

    def leave(self):
        """Remove the policy from the graph: not even a silent one is left."""
        self.alive = False
        time.sleep(0.2)         # until the last heartbeat is sent
        self._proposals.unregister()
        self._beats.unregister()

    def propose(self, poses, opening=1.0):
        """Propose a keyframe, valid for 20 s. poses: (position (3,), quaternion (4,)) by arm name."""
        deadline = time.monotonic() + 20.0
        while not (self._proposals.get_num_connections() and self._beats.get_num_connections()):
            assert time.monotonic() < deadline, "no filter listens to proposals"
            time.sleep(0.02)
        self._sequence += 1
        self._last = poses, opening
        now = self._rospy.Time.now().to_sec()
        targets = tuple(ArmTarget(arm.name, arm.base_frame, Pose(*poses[arm.name]), now, Pose(*poses[arm.name]),
                                  DeltaBase.MEASURED, opening) for arm in self._arms)
        self._proposals.publish(self._conversions.proposal_message(
            Proposal(now, self._epoch, self._sequence, 1, "move", 20.0, targets, observation_age=0.01)))

    def again(self, status):
        """Propose the last target again if the filter dropped it in a passing hold, as a policy would. Returns False."""
        if status.waiting and not status.at_target and status.sequence == self._sequence:
            self.propose(*self._last)
        return False


class Rig:
    """An operator, a stand-in for the policy, and what went to the drivers."""

    def __init__(self, graph, robot):
        from hybridvla_ros.demos.rigs_agilex import AgilexOperator

        self.graph, self.robot = graph, robot
        self.operator = AgilexOperator()
        self.source = Source(robot.arms)

    def __getattr__(self, name):
        return getattr(self.operator, name)

    def measured(self, name):
        """Return the tool position (3,) m of an arm, by the filter's reading of its joints."""
        arm = next(arm for arm in self.status.arms if arm.name == name)
        return np.asarray(arm.measured.position)

    def pose(self, name):
        arm = next(arm for arm in self.status.arms if arm.name == name)
        return self.measured(name), np.asarray(arm.target.quaternion)

    def shift(self, by, opening=1.0):
        """Propose that both tools move `by` (3,) m from where they are; returns the poses asked for."""
        poses = {}
        for arm in self.robot.arms:
            position, turn = self.pose(arm.name)
            poses[arm.name] = (position + by, turn)
        self.source.propose(poses, opening)
        return poses

    def begin(self):
        """Activate, and wait for a status that shows the arms where they are."""
        self.start()
        self.until(lambda: self.state("HOLDING") or self.state("ACTIVE"), "a status after activation")
        time.sleep(0.05)        # so that the next proposal was observed after the activation, not in the same milliseconds


@pytest.fixture(scope="session")
def publishing(master):
    """Return a context manager: a publisher of the test's own, unregistered again however the test ends."""
    import rospy

    @contextlib.contextmanager
    def publish(topic, kind):
        publisher = rospy.Publisher(topic, kind, queue_size=1)
        try:
            yield publisher
        finally:
            publisher.unregister()
    return publish


@pytest.fixture(scope="session")
def master(tmp_path_factory):
    """Yield a master of its own that outlives what is launched on it."""
    import rospy

    from hybridvla_ros.runtime.private_graph import Graph

    with Graph(tmp_path_factory.mktemp("graph")) as graph:
        graph.start(["roscore", "-p", str(graph.port)], "roscore.log")
        graph.wait_for_master()
        rospy.init_node("rig_tests", disable_signals=True)
        yield graph


@pytest.fixture(scope="session")
def agilex(master):
    """Return a context manager that launches agilex.launch with the stand-in and arguments, and ends it afterwards."""
    from hybridvla_core.paths import ROOT
    from hybridvla_core.robots.config import load_robot

    @contextlib.contextmanager
    def launch(*arguments, robot="agilex"):
        process = master.launch("agilex.launch", "rig:=stand_in", "policy:=false", "speed_scale:=1.0", "image_hz:=0",
                                *arguments)
        rig = None
        try:
            rig = Rig(master, load_robot(ROOT / "config" / "robots" / f"{robot}.yaml"))
            yield rig
        finally:
            if rig is not None:
                rig.source.alive = rig.operator.pressed = False
            master.end(process, 20.0)
    return launch
