"""A Franka arm through franka_ros: sends targets. The arm itself: `arm.py`; other operations on it: `services.py`."""
from __future__ import annotations

from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np
import rospy
from diagnostic_msgs.msg import DiagnosticStatus
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.safety.status import ArmCommand
from hybridvla_ros.adapters.adapter import OnState, RobotAdapter, joint_echo, pose_echo
from hybridvla_ros.adapters.franka import reading
from hybridvla_ros.adapters.franka.arm import FrankaArm
from hybridvla_ros.adapters.franka.command_watch import CommandWatch
from hybridvla_ros.adapters.franka.services import ArmServices
from hybridvla_ros.adapters.franka.start_up import StartUp
from hybridvla_ros.filter_handle import FilterHandle
from hybridvla_ros.messages import conversions
from hybridvla_ros.runtime.graph_watch import SystemState
from hybridvla_ros.runtime.node_support import Diagnostics

SEEDED = 1.05            # of a joint's speed limit: a larger step is not a motion: the filter has restarted elsewhere


class FrankaAdapter(RobotAdapter):
    """One arm. Publishes nothing that the filter did not release, except while a person leads the arm (`services.py`).

    Args:
        config: Configuration of the robot.
        on_state: Called with every state of the arm.
        safety: The filter, for the other operations on the arm.
    """

    has_way_to_start = True

    def __init__(self, config: RobotConfig, on_state: OnState, safety: FilterHandle) -> None:
        super().__init__(config, on_state)
        self._safety = safety
        self.arm = FrankaArm(config, on_state)
        self._echo, self._joint_echo = pose_echo(self.arm.arm.name), joint_echo(self.arm.arm.name)
        self._joints_before: Optional[np.ndarray] = None       # the joints sent last, rad
        self.start_up = StartUp(self.arm, self._foreign, safety.dry_run)
        self._watch = CommandWatch(self.arm, self.start_up)
        self._services = ArmServices(self.arm, self.start_up, self._watch, safety)
        self.arm.judged_by(self._problem)
        self.start_up.begin()
        self.arm.subscribe()                     # a driver that already runs speaks at once
        self._watch.begin()
        self._diagnostics = Diagnostics("franka", self._diagnose)

    @property
    def command_topics(self) -> List[str]:
        """Returns the topic of the configured door."""
        return [self.arm.command_topic]

    def other_publishers(self, system_state: SystemState) -> str:
        """Names who else has announced to publish on the command topic; the arm takes no commands until that node is gone."""
        return self._watch.announcements(system_state)

    def go_to_start(self, since: int) -> Tuple[bool, str]:
        """Moves by a joint trajectory that was checked against the limits first.

        Args:
            since: See `RobotAdapter.go_to_start`.

        Returns:
            Whether the arm got there, and a sentence.
        """
        return self._services.go_to_start(since)

    def _foreign(self) -> str:
        return self._watch.foreign()

    def _problem(self) -> str:
        """Says why the arm takes no commands, most urgent reason first."""
        if self._watch.fault or self._watch.announced:
            return self._watch.fault or self._watch.announced
        if self.arm.taken():
            return self.arm.taken()
        self.start_up.follow(self._safety.dry_run)
        commanded = self.start_up.done and not self.start_up.dry_run
        return (reading.mode_problem(self.arm.state, commanded) or self.arm.tool_problem() or self.start_up.says
                or self._stiffness_problem())

    def _stiffness_problem(self) -> str:
        """Reports that somebody else has changed the stiffness that the leash relies on."""
        arm, wanted = self.arm, self.arm.franka.translational_stiffness_n_m
        if self.start_up.dry_run or self.config.door != "cartesian" or not abs(arm.stiffness - wanted) > 1e-3:
            return ""
        return (f"the stiffness of {arm.controller} was set to {arm.stiffness:.0f} N/m by somebody else, but the "
                f"configuration says {wanted:.0f}; set it back")

    def _diagnose(self) -> Tuple[int, str, Dict[str, object]]:
        values: Dict[str, object] = {"state_hz": round(self.arm.rate.hz, 1)}
        gripper = ""
        if self.arm.gripper is not None:
            gripper = self.arm.gripper.message
            values.update(gripper=self.arm.gripper.state.name, slips=self.arm.gripper.slips, timeouts=self.arm.gripper.timeouts)
        problem = self.arm.problem()
        level = DiagnosticStatus.ERROR if problem else DiagnosticStatus.WARN if gripper else DiagnosticStatus.OK
        return level, problem or gripper or "ready", values

    # Commands out --------------------------------------------------------------------------------------------------

    def send(self, commands: Sequence[ArmCommand], stamp: float) -> None:
        """Publishes what the filter released this tick. stamp: when the tick began, s."""
        for command in commands:
            if not command.publish or self._watch.fault:
                self._joints_before = None
            elif self.config.door == "cartesian":
                message = conversions.pose_message(command.pose, self.arm.arm.base_frame, stamp)
                self.arm.poses.publish(message)
                self._echo.publish(message)
            else:
                self._send_joints(command, stamp)
            if command.gripper is not None and self.arm.gripper is not None:
                self.arm.gripper.command(command.gripper)

    def _send_joints(self, command: ArmCommand, stamp: float) -> None:
        """Sends one point, replaced every tick: the controller joins it to its present motion, `trajectory_ahead_s` later."""
        joints, before = np.asarray(command.joint_positions, dtype=float), self._joints_before
        speed = np.zeros_like(joints) if before is None else (joints - before) / self.config.dt
        if (np.abs(speed) > np.asarray(self.arm.arm.joint_limits.velocity_rad_s) * SEEDED).any():
            speed[:] = 0.0
        self._joints_before = joints
        point = JointTrajectoryPoint(positions=joints.tolist(), velocities=speed.tolist(),
                                     time_from_start=rospy.Duration(self.arm.franka.trajectory_ahead_s))
        self.arm.trajectories.publish(JointTrajectory(joint_names=list(self.arm.arm.joint_names), points=[point]))
        echo = JointState(name=list(self.arm.arm.joint_names), position=joints.tolist())
        echo.header.stamp = rospy.Time.from_sec(stamp)
        self._joint_echo.publish(echo)
