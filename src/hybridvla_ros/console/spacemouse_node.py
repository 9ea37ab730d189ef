"""SpaceMouse teleoperation of a single-arm robot: publishes proposals, heartbeat, deadman and instruction like a policy."""
from __future__ import annotations

import secrets
import threading
import time
from typing import Any, Dict, Tuple

import rospy
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import Twist
from sensor_msgs.msg import JointState, Joy
from std_msgs.msg import Bool

from hybridvla.msg import ActionProposal, PolicyHeartbeat, SafetyStatus
from hybridvla_core.configuration import load_file
from hybridvla_core.contracts import ArmTarget, DeltaBase, Heartbeat, Kind, PolicyState, Proposal
from hybridvla_core.errors import ConfigurationError
from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.robots.graph_names import DEADMAN, HEARTBEAT, PROPOSAL, STATUS
from hybridvla_ros.console.deadman_node import DEVICES, RENEW_S, JoyButton
from hybridvla_ros.console.instruction_source import InstructionSource
from hybridvla_ros.console.teleop import Teleop, TeleopConfig
from hybridvla_ros.messages import conversions
from hybridvla_ros.messages.arm_reader import ArmReader, fingers_of
from hybridvla_ros.runtime.node_support import Diagnostics, package_path, require_parameter

DEADMAN_S, HEARTBEAT_S, MARGIN_S = 0.02, 0.1, 0.1


class SpaceMouseNode:
    """One thread publishes everything at 50 Hz, so that proposals, holds and the deadman keep their order."""

    def __init__(self, config: TeleopConfig, robot: RobotConfig, device: str = DEVICES["spacemouse"]) -> None:
        if len(robot.arms) != 1:
            raise ConfigurationError(f"robot {robot.name} has {len(robot.arms)} arms; a SpaceMouse moves one")
        self._config, self._arm = config, robot.arms[0]
        self.teleop = Teleop(config)
        self._switch = JoyButton(config.deadman_button, device, RENEW_S)
        self._lock = threading.RLock()
        self._epoch, self._sequence = secrets.randbits(63) | 1, 0
        self._reader = ArmReader(self._arm.name, self._arm.joint_names, fingers_of(self._arm))
        self._problem = "starting"
        self._deadman = rospy.Publisher(DEADMAN, Bool, queue_size=2, tcp_nodelay=True)
        self._proposals = rospy.Publisher(PROPOSAL, ActionProposal, queue_size=4, tcp_nodelay=True)
        self._heartbeats = rospy.Publisher(HEARTBEAT, PolicyHeartbeat, queue_size=4, tcp_nodelay=True)
        rospy.Subscriber(config.twist_topic, Twist, self._on_twist, queue_size=2, tcp_nodelay=True)
        rospy.Subscriber(config.buttons_topic, Joy, self._on_buttons, queue_size=5, tcp_nodelay=True)
        rospy.Subscriber(STATUS, SafetyStatus, self._on_status, queue_size=5, tcp_nodelay=True)
        rospy.Subscriber(PROPOSAL, ActionProposal, self._on_proposal, queue_size=5)
        topics = self._arm.topics
        for topic in {topics["joint_states"], topics.get("gripper_joint_states", topics["joint_states"])}:
            rospy.Subscriber(topic, JointState, self._on_joints, queue_size=5)
        self._instruction = InstructionSource(self._hold)
        self._diagnostics = Diagnostics("teleoperation", self._report)

    # Inputs ----------------------------------------------------------------------------------------------------------

    def _on_twist(self, message: Twist) -> None:
        with self._lock:
            self.teleop.on_twist((message.linear.x, message.linear.y, message.linear.z),
                                 (message.angular.x, message.angular.y, message.angular.z), time.monotonic())

    def _on_buttons(self, message: Joy) -> None:
        with self._lock:
            self._switch.update(message.buttons, message.axes)
            # spacenav_node repeats the buttons of a device that is gone.
            doubted = not self._switch.held and self._switch.problem
            self.teleop.on_buttons(() if doubted else message.buttons, time.monotonic())

    def _on_status(self, message: SafetyStatus) -> None:
        status = conversions.status_contract(message)
        with self._lock:
            self.teleop.on_status(status, self._arm.name, time.monotonic())

    def _on_proposal(self, message: ActionProposal) -> None:
        """Notes what an earlier policy last did with the gripper."""
        if message.epoch != self._epoch and message.targets:
            with self._lock:
                self.teleop.on_opening(message.targets[-1].gripper, commanded=True)

    def _on_joints(self, message: JointState) -> None:
        with self._lock:
            self._reader.joints(message.name, message.position, message.velocity, time.monotonic())
            self.teleop.on_opening(self._reader.standing(time.monotonic()), commanded=False)

    # Outputs ---------------------------------------------------------------------------------------------------------

    def spin(self) -> None:
        """Publishes the deadman at 50 Hz, proposals at the configured rate while it is held, and one hold on release."""
        engaged, due, beat = False, 0.0, 0.0
        while not rospy.is_shutdown():
            now = time.monotonic()
            with self._lock:
                held, self._problem = self.teleop.deadman(now), self.teleop.problem(now)
                if now >= due:
                    due = max(due + self._config.period_s, now)
                    step = self.teleop.tick(now)
                    if step is not None:
                        self._propose(step)
                    elif engaged:
                        self._hold()
                    engaged = step is not None
            self._deadman.publish(Bool(held))
            if now >= beat:
                beat = now + HEARTBEAT_S
                self._heartbeats.publish(conversions.heartbeat_message(Heartbeat(
                    self._epoch, self._sequence, self._instruction.sequence,
                    PolicyState.INFERRING if engaged else PolicyState.WAITING, 0.0, self._problem)))
            time.sleep(DEADMAN_S)

    def _propose(self, step: Tuple[Any, Any, float]) -> None:
        base, target, opening = step
        stamp = rospy.Time.now().to_sec()
        self._publish(Kind.ACTION, stamp, (ArmTarget(self._arm.name, self._arm.base_frame, base, stamp, target,
                                                     DeltaBase.COMMANDED, opening),))

    def _hold(self) -> None:
        with self._lock:
            self._publish(Kind.HOLD, rospy.Time.now().to_sec(), ())

    def _publish(self, kind: Kind, stamp: float, targets: Tuple[ArmTarget, ...]) -> None:
        self._sequence += 1
        self._proposals.publish(conversions.proposal_message(Proposal(
            stamp=stamp, epoch=self._epoch, sequence=self._sequence, instruction_sequence=self._instruction.sequence,
            instruction=self._instruction.text, valid_for=self._config.period_s + MARGIN_S, targets=targets, kind=kind,
            action_period=self._config.period_s, seed=self.teleop.seed)))

    def _report(self) -> Tuple[int, str, Dict[str, object]]:
        level = DiagnosticStatus.OK if not self._problem or "deadman" in self._problem else DiagnosticStatus.WARN
        if self._switch.problem:
            level = DiagnosticStatus.WARN
        return level, self._switch.problem or self._problem or "following the SpaceMouse", {"sequence": self._sequence,
                                                                    "instruction": self._instruction.text}


def main() -> None:
    config = load_file(TeleopConfig, package_path(require_parameter("teleop_config")))
    robot = load_file(RobotConfig, package_path(require_parameter("robot_config")))
    device = str(rospy.get_param("~device", "")).strip() or DEVICES["spacemouse"]
    SpaceMouseNode(config, robot, device).spin()
