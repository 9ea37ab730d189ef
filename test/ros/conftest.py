"""One graph for all ROS tests: master, simulated rig and filter, and a policy node that tests start and kill."""
from __future__ import annotations

import os
import signal
import sys
import time

import pytest

from hybridvla_core.paths import ROOT
from hybridvla_ros.runtime.patience import patience


class Bench:
    """The graph as an operator sees it: services, topics, and processes to kill."""

    def __init__(self, graph):
        import rospy
        from geometry_msgs.msg import PoseStamped
        from std_srvs.srv import SetBool, Trigger

        from hybridvla.msg import ActionProposal, PolicyHeartbeat, SafetyStatus
        from hybridvla.srv import RigReport, SetInstruction

        self.graph, self.policy = graph, None
        rospy.init_node("ros_tests", disable_signals=True)
        self.proposals, self.targets = [], []
        self.status = self.heartbeat = None
        rospy.Subscriber("/hybridvla/policy/proposal", ActionProposal, self.proposals.append)
        rospy.Subscriber("/hybridvla/policy/heartbeat", PolicyHeartbeat, lambda m: setattr(self, "heartbeat", m))
        rospy.Subscriber("/hybridvla/safety/status", SafetyStatus, lambda m: setattr(self, "status", m))
        rospy.Subscriber("/hybridvla/safety/arm/target", PoseStamped, self.targets.append)
        rospy.wait_for_service("/hybridvla/safety/activate", 60)
        rospy.wait_for_service("/sim_rig/report", 60)
        self.activate = rospy.ServiceProxy("/hybridvla/safety/activate", SetBool)
        self.report = rospy.ServiceProxy("/sim_rig/report", RigReport)
        self.instruct = rospy.ServiceProxy("/hybridvla/policy/set_instruction", SetInstruction)
        for name in ("stop", "resume"):
            setattr(self, name, rospy.ServiceProxy(f"/hybridvla/safety/{name}", Trigger))
        self.go_to_start = rospy.ServiceProxy("/hybridvla/robot/go_to_start", Trigger)

    def start_policy(self, config="config/policies/tiny.yaml"):
        import rospy

        self.policy = self.graph.start(
            [sys.executable, str(ROOT / "test/support/fake_policy_node.py"), "_robot_config:=config/robots/sim_fr3.yaml",
             f"_policy_config:={config}"], "policy.log")
        self.heartbeat = None
        self.until(lambda: self.heartbeat is not None, "a heartbeat", 40)
        rospy.wait_for_service("/hybridvla/policy/set_instruction", 20)

    def kill_policy(self):
        """Kill the policy's process and delete its command-line parameters, so that the next one does not inherit them."""
        import rospy

        if self.policy is not None:
            os.killpg(self.policy.pid, signal.SIGKILL)
            self.policy.wait(10)
            self.policy = None
            if rospy.has_param("/policy_node"):
                rospy.delete_param("/policy_node")

    def until(self, condition, what, timeout=15.0):
        timeout = round(patience(timeout), 1)
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, f"{what} did not come within {timeout} s; {self.status and self.status.message}"
            time.sleep(0.02)

    def state(self, name):
        return self.status is not None and self.status.state == getattr(type(self.status), name)

    def position(self):
        point = self.status.arms[0].target.pose.position
        return (point.x, point.y, point.z)

    def begin(self):
        """Activate, and wait for a status that shows the arm seeded at its measured pose."""
        self.until(lambda: self.activate(True).success, "activation, once the policy is READY", 40)
        self.until(lambda: self.state("HOLDING") or self.state("ACTIVE"), "a status after activation")

    def rest(self):
        """Bring the graph to rest: INACTIVE at the start pose, with a living policy."""
        if self.policy is None or self.policy.poll() is not None:
            self.start_policy()
        self.until(lambda: self.status is not None, "a status")
        if self.state("STOPPED"):
            self.until(lambda: self.resume().success, "resume")
        assert self.go_to_start().success
        self.until(lambda: self.state("INACTIVE"), "INACTIVE")


@pytest.fixture(scope="session")
def bench(tmp_path_factory):
    from hybridvla_ros.runtime.private_graph import Graph

    with Graph(tmp_path_factory.mktemp("graph")) as graph:
        graph.launch("sim.launch", "policy:=false", "require_policy:=true", "image_hz:=10.0")
        graph.wait_for_master()
        yield Bench(graph)


@pytest.fixture
def rig(bench):
    """Return the bench, brought to rest before each test."""
    bench.rest()
    return bench
