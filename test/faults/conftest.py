"""A master and a filter that tests kill, stop and cut off; arm and policy run inside the test process."""
from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time

import numpy as np
import pytest

from hybridvla_core.paths import ROOT
from hybridvla_ros.runtime.patience import patience


class FaultBench:
    """Joint states at 100 Hz, heartbeats at 20 Hz, proposals on demand. The rig's monitor checks every target."""

    def __init__(self, graph):
        import rospy
        from geometry_msgs.msg import PoseStamped
        from sensor_msgs.msg import JointState
        from std_srvs.srv import SetBool, Trigger

        from hybridvla.msg import ActionProposal, PolicyHeartbeat, SafetyStatus
        from hybridvla_core.robots.config import load_robot
        from hybridvla_core.robots.kinematics import ArmKinematics
        from hybridvla_ros.runtime.graph_watch import GraphWatch
        from hybridvla_sim.monitor import LimitMonitor, MonitorLimits

        self.graph, self.filter = graph, None
        self.config = load_robot(ROOT / "config" / "robots" / "sim_fr3.yaml")
        arm = self.config.arms[0]
        self.arm, self.kinematics = arm, ArmKinematics(arm)
        self.joints = np.array(arm.start_joints_rad)
        self.command, self.targets, self.status = None, [], None
        self.statuses = []           # all statuses, because some reasons last for one tick
        self.beating, self.epoch, self.sequence, self.turn = True, 0, 0, 0
        self.clock = None            # simulated time, when a test drives it
        limits, cartesian = arm.workspace, arm.cartesian_limits
        self.monitor = LimitMonitor(MonitorLimits(limits.lower_m, limits.upper_m, cartesian.speed_m_s,
                                                  cartesian.rotation_speed_rad_s))
        rospy.init_node("fault_tests", disable_signals=True)
        self._joint_states = rospy.Publisher(arm.topics["joint_states"], JointState, queue_size=2)
        self._heartbeats = rospy.Publisher("/hybridvla/policy/heartbeat", PolicyHeartbeat, queue_size=2)
        self._proposals = rospy.Publisher("/hybridvla/policy/proposal", ActionProposal, queue_size=2)
        rospy.Subscriber(arm.topics["command"], PoseStamped, self._on_command, queue_size=50)
        rospy.Subscriber("/hybridvla/safety/status", SafetyStatus, self._on_status)
        self.activate = rospy.ServiceProxy("/hybridvla/safety/activate", SetBool)
        self.stop = rospy.ServiceProxy("/hybridvla/safety/stop", Trigger)
        self.resume = rospy.ServiceProxy("/hybridvla/safety/resume", Trigger)
        GraphWatch()                 # lets the test's own topics survive the master's restart as well
        self._moves = threading.Thread(target=self._arm, daemon=True)
        self._moves.start()

    # The world -----------------------------------------------------------------------------------------------------

    def _on_command(self, message):
        point, turn = message.pose.position, message.pose.orientation
        self.targets.append((point.x, point.y, point.z))
        self.monitor.target(message.header.stamp.to_sec(), self.targets[-1], (turn.x, turn.y, turn.z, turn.w))
        self.command = np.array(self.targets[-1])

    def _on_status(self, message):
        self.status, self.status_at = message, time.monotonic()
        self.statuses.append(message)

    def _arm(self):
        import rospy
        from sensor_msgs.msg import JointState

        from hybridvla_ros.runtime.node_support import publish_unless_ending

        count = 0
        while not rospy.is_shutdown():
            time.sleep(0.01)
            count += 1
            command = self.command   # a test may take it away between two looks
            if command is not None:
                position, _ = self.kinematics.pose(self.joints)
                error = np.concatenate((0.2 * (command - position), np.zeros(3)))
                self.joints = self.joints + np.linalg.pinv(self.kinematics.jacobian(self.joints)) @ error
            message = JointState(name=list(self.arm.joint_names), position=self.joints.tolist())
            clock = self.clock       # a test may end simulated time between two looks
            message.header.stamp = rospy.Time.from_sec(clock) if clock is not None else rospy.Time.now()
            publish_unless_ending(self._joint_states, message)
            if self.beating and self.epoch and count % 5 == 0:
                publish_unless_ending(self._heartbeats, self.beat())

    def beat(self, **changes):
        from hybridvla_core.contracts import Heartbeat, PolicyState
        from hybridvla_ros.messages.conversions import heartbeat_message

        return heartbeat_message(Heartbeat(**{**dict(epoch=self.epoch, last_sequence=self.sequence, instruction_sequence=1,
                                                     state=PolicyState.INFERRING), **changes}))

    def proposal(self, **changes):
        """Return a proposal of a far target, to the left or to the right: `turn` says which."""
        from talker import TARGETS

        from hybridvla_core.contracts import ArmTarget, DeltaBase, Pose, Proposal
        from hybridvla_ros.messages.conversions import proposal_message

        self.sequence += 1
        pose = Pose(np.array(TARGETS[self.turn % 2]), np.array([1.0, 0.0, 0.0, 0.0]))
        stamp = self.clock if self.clock is not None else time.time()
        target = ArmTarget("arm", self.arm.base_frame, pose, stamp, pose, DeltaBase.COMMANDED, 1.0)
        return proposal_message(Proposal(**{**dict(stamp=stamp, epoch=self.epoch, sequence=self.sequence,
                                                   instruction_sequence=1, instruction="go", valid_for=10.0,
                                                   targets=(target,)), **changes}))

    # What tests do -------------------------------------------------------------------------------------------------

    def until(self, condition, what, timeout=30.0):
        timeout = round(patience(timeout), 1)
        deadline = time.monotonic() + timeout
        while not condition():
            assert self._moves.is_alive(), f"{what} cannot come: the bench's own arm has died, see its traceback"
            assert time.monotonic() < deadline, (f"{what} did not come within {timeout} s; "
                                                 f"{self.status and self.status.message}; {self.graph.log_tail('filter.log')}")
            time.sleep(0.02)

    def state(self, name):
        return self.status is not None and self.status.state == getattr(type(self.status), name)

    def because(self, reason, words=""):
        """Whether the newest status gives this reason, in these words."""
        return gives(self.status, reason, words)

    def gave(self, since, reason, words=""):
        """Whether some status has given this reason since len(statuses) was `since`."""
        return any(gives(status, reason, words) for status in self.statuses[since:])

    @contextlib.contextmanager
    def publishing(self, topic, kind):
        """Yield a publisher and unregister it afterwards."""
        import rospy

        publisher = rospy.Publisher(topic, kind, queue_size=1)
        try:
            yield publisher
        finally:
            publisher.unregister()

    @contextlib.contextmanager
    def process(self, command, log):
        """Yield a process and end it afterwards, even if it is suspended by then."""
        process = self.graph.start(command, log)
        try:
            yield process
        finally:
            if process.poll() is None:
                self.signal(signal.SIGCONT, process)
            self.graph.end(process)

    def start_filter(self, *arguments, wait=True, command_prefix=()):
        import rospy

        self.status = self.command = None
        self.filter = self.graph.start([*command_prefix, sys.executable, str(ROOT / "nodes" / "safety_filter_node"),
                                        "_robot_config:=config/robots/sim_fr3.yaml", "_require_policy:=false", "_dry_run:=false",
                                        *arguments], "filter.log")
        self.monitor.restart()
        if wait:
            self.until(lambda: self.status is not None and self._joint_states.get_num_connections() > 0
                       and self._proposals.get_num_connections() > 0 and self._heartbeats.get_num_connections() > 0,
                       "the filter")
            rospy.wait_for_service("/hybridvla/safety/activate", 20)

    def signal(self, number, process=None):
        os.killpg((process or self.filter).pid, number)

    def kill_filter(self):
        if self.filter is not None:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGKILL)
            self.filter.wait(10)
            self.filter = None

    def new_policy(self):
        """Act as a policy that has just started, with another epoch, after the previous one has been silent."""
        self.epoch = 0
        time.sleep(0.4)
        self.epoch, self.sequence = int(time.monotonic() * 1e6), 0

    def activated(self):
        if self.filter is None or self.filter.poll() is not None:
            self.start_filter()
        if self.state("STOPPED"):
            self.until(lambda: self.resume().success, "resume")
        self.until(lambda: self.activate(True).success, "activation")
        self.until(lambda: self.state("HOLDING") or self.state("ACTIVE"), "activation in the status")

    def set_off(self):
        """Propose the target that is further away, and repeat it as a policy would until the arm is under way."""
        from talker import TARGETS

        first = self.targets[-1] if self.targets else None
        # Alternating would not do: an arm that has only just left one target would be back at it within the 4 mm below.
        self.turn = int(np.argmax(np.linalg.norm(np.subtract(TARGETS, first), axis=1))) if first else self.turn + 1
        self._proposals.publish(self.proposal())

        def under_way():
            if not self.state("ACTIVE"):          # a busy computer may have made the filter late, which ends a motion
                self._proposals.publish(self.proposal())
            time.sleep(0.1)
            start = first or (self.targets[0] if self.targets else None)
            return self.state("ACTIVE") and start and np.linalg.norm(np.subtract(self.targets[-1], start)) > 0.004
        self.until(under_way, "motion")

    def moving(self):
        """Activate, and wait until the arm is in the middle of a motion."""
        if not self.epoch or not self.beating:
            self.beating = True
            self.new_policy()
        self.activated()
        self.set_off()

    def assert_held(self):
        """Assert that the target comes to rest and that no limit was broken on the way."""
        self.assert_rests()
        assert self.monitor.violations == 0, self.monitor.last_violation
        assert self.monitor.targets > 0

    def assert_rests(self):
        def resting():
            before = self.targets[-1]
            time.sleep(0.3)
            return self.targets[-1] == before
        self.until(resting, "rest")


def gives(status, reason, words):
    return bool(status.reasons & getattr(type(status), reason)) and words in status.message


@pytest.fixture(scope="session")
def bench(tmp_path_factory):
    from hybridvla_ros.runtime.private_graph import Graph

    with Graph(tmp_path_factory.mktemp("faults")) as graph:
        graph.master = graph.start(["rosmaster", "--core", "-p", str(graph.port)], "master.log")
        graph.wait_for_master()
        import rospy

        yield FaultBench(graph)
        rospy.signal_shutdown("the tests are over")      # before the master ends, which the graph watch would report
