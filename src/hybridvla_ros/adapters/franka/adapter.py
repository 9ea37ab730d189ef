"""A Franka arm through franka_ros: state and health in, targets out. What is done to the robot besides: `chores.py`."""
from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np
import rosgraph
import rospy
from diagnostic_msgs.msg import DiagnosticStatus
from dynamic_reconfigure.msg import Config
from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from hybridvla_core.contracts import ArmState
from hybridvla_core.geometry import poses, rotations
from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.robots.kinematics import ArmKinematics
from hybridvla_core.safety.status import ArmCommand
from hybridvla_ros.adapters.franka import driver as driver_module
from hybridvla_ros.adapters.franka import reading
from hybridvla_ros.adapters.franka.gripper import FrankaHand, GripperWorker
from hybridvla_ros.adapters.franka.services import Chores
from hybridvla_ros.adapters.franka.start_up import StartUp
from hybridvla_ros.messages import conversions
from hybridvla_ros.messages.arm_reader import ArmReader
from hybridvla_ros.policy_arms import fingers_of
from hybridvla_ros.runtime.node_support import Diagnostics

STATE_SILENT_S = 0.1     # after it, joint states alone speak for the arm
FOREIGN_S = 1.0          # a foreign command is remembered that long
WATCH_S = 1.0            # between looks whether our controller still runs
SEEDED = 1.05            # of a joint's fastest: a larger step is no motion, the filter has begun anew elsewhere


class FrankaAdapter:
    """One arm. Nothing is published that the filter did not release, except while a person leads the arm (`chores.py`)."""

    def __init__(self, config: RobotConfig, on_state: Callable[[ArmState], None], operator: Any) -> None:
        driver_module.messages()
        self.config, self.arm, self.franka = config, config.arms[0], config.franka
        self._on_state = on_state
        self.driver = driver_module.FrankaDriver(config.franka)
        self.controller = (self.franka.impedance_controller if config.door == "cartesian"
                           else self.franka.trajectory_controller)
        self.hands_off = threading.Lock()     # held by whoever changes controllers or settings
        self.state: Any = None
        self.heard = self.joints_heard = self._foreign_at = float("-inf")
        self.joint_names: Tuple[str, ...] = ()
        self.rate = reading.RateMeter()
        self.busy = ""                        # what is being done to the robot: no commands meanwhile
        self.leading = False                  # a person leads the arm
        self.fault = ""                       # latched until a recovery: another node commanded the arm
        self._foreign_name = self._announced = self._tool_said = ""
        self._tool_seen: Any = ()
        self._kinematics = ArmKinematics(self.arm)
        self._reader = ArmReader(self.arm.name, self.arm.joint_names, fingers_of(self.arm))
        self._last: Optional[ArmState] = None
        self._joints_before: Optional[np.ndarray] = None       # as sent last, rad
        self.hand = self._make_hand()
        self.gripper = GripperWorker(self.hand, self.arm.gripper.deadline_s, self.franka.slip_m) if self.hand else None
        self._publishers()
        self._operator = operator
        self.stiffness = float("nan")         # N/m, as the controller last announced it
        self.start_up = StartUp(self, operator.dry_run)
        self._chores = Chores(self, operator)
        self.go_to_start = self._chores.go_to_start
        self._subscribe()                     # last: a driver that runs already speaks at once
        self._diagnostics = Diagnostics("franka", self._diagnose)
        threading.Thread(target=self._watch, daemon=True).start()

    def _diagnose(self) -> Tuple[int, str, Dict[str, object]]:
        values: Dict[str, object] = {"state_hz": round(self.rate.hz, 1)}
        gripper = ""
        if self.gripper is not None:
            gripper = self.gripper.message
            values.update(gripper=self.gripper.state.name, slips=self.gripper.slips, timeouts=self.gripper.timeouts)
        problem = self.problem()
        level = DiagnosticStatus.ERROR if problem else DiagnosticStatus.WARN if gripper else DiagnosticStatus.OK
        return level, problem or gripper or "ready", values

    def _make_hand(self) -> Optional[FrankaHand]:
        topics, gripper = self.arm.topics, self.arm.gripper
        if not topics.get("gripper_move"):
            return None
        return FrankaHand(topics["gripper_move"], topics["gripper_grasp"], gripper.max_width_m, gripper.speed_m_s,
                          gripper.force_n, self.franka.grasp_epsilon_m)

    def _publishers(self) -> None:
        name = self.arm.name
        self.trajectories = rospy.Publisher(self.arm.topics["trajectory"], JointTrajectory, queue_size=1, tcp_nodelay=True)
        self.poses = rospy.Publisher(self.arm.topics["command"], PoseStamped, queue_size=1, tcp_nodelay=True)
        self.command_topic = self.arm.topics["command" if self.config.door == "cartesian" else "trajectory"]
        self._echo = rospy.Publisher(f"/hybridvla/safety/{name}/target", PoseStamped, queue_size=1)
        self._joint_echo = rospy.Publisher(f"/hybridvla/safety/{name}/joint_target", JointState, queue_size=1)

    def _subscribe(self) -> None:
        from franka_msgs.msg import FrankaState

        rospy.Subscriber(self.arm.topics["robot_state"], FrankaState, self._on_franka, queue_size=20, tcp_nodelay=True)
        rospy.Subscriber(self.arm.topics["joint_states"], JointState, self._on_joints, queue_size=5, tcp_nodelay=True)
        if self.hand:
            rospy.Subscriber(self.arm.topics["gripper_joint_states"], JointState, self._on_fingers, queue_size=2)
        rospy.Subscriber(self.command_topic, rospy.AnyMsg, self._on_command, queue_size=20, tcp_nodelay=True)
        node = f"/{self.franka.impedance_controller}/dynamic_reconfigure_compliance_param_node"
        rospy.Subscriber(f"{node}/parameter_updates", Config, self._on_compliance, queue_size=2)

    # State in ------------------------------------------------------------------------------------------------------

    def _on_franka(self, message: Any) -> None:
        self.state, self.heard = message, time.monotonic()
        self.rate.add(message.time)
        self._last = ArmState(
            name=self.arm.name, joint_names=self.arm.joint_names, joint_positions=np.array(message.q),
            joint_velocities=np.array(message.dq), pose=reading.pose(message.O_T_EE), gripper=self._reader.opening,
            robot_mode=int(message.robot_mode), stamp=message.header.stamp.to_sec())
        self.report()

    def _on_joints(self, message: JointState) -> None:
        self.joints_heard, self.joint_names = time.monotonic(), tuple(message.name)
        if time.monotonic() - self.heard < STATE_SILENT_S:
            return
        found = self._reader.joints(message.name, message.position, message.velocity, time.monotonic())
        if found is not None:
            self._last = replace(found, pose=None, stamp=message.header.stamp.to_sec())
            self.report()

    def _on_fingers(self, message: JointState) -> None:
        self._reader.joints(message.name, message.position, message.velocity, time.monotonic())
        self.gripper.measured(self._reader.opening * self.arm.gripper.max_width_m)

    def _on_compliance(self, message: Config) -> None:
        self.stiffness = next((entry.value for entry in message.doubles if entry.name == "translational_stiffness"),
                              self.stiffness)

    def report(self) -> None:
        """Tell the filter what is known now."""
        state = self._last
        if state is not None:
            problem = self.problem()
            self._on_state(replace(state, ready=not problem, message=problem,
                                   gripper_state=self.gripper.state if self.gripper else state.gripper_state))

    def problem(self) -> str:
        """Why the arm takes no commands, or an empty string. The filter refuses or stops with this sentence."""
        if time.monotonic() - self.heard > STATE_SILENT_S:
            return f"nothing on {self.arm.topics['robot_state']}: the robot's mode is unknown; check the driver"
        if self.fault or self._announced:
            return self.fault or self._announced
        if self.busy or self.leading:
            return self.busy or "a person leads the arm; call /hybridvla/robot/takeover with false"
        self.start_up.follow(self._operator.dry_run)
        commanded = self.start_up.done and not self.start_up.dry_run
        return (reading.mode_problem(self.state, commanded) or self._tool_problem() or self.start_up.says
                or self._stiffness_problem())

    def _stiffness_problem(self) -> str:
        """Somebody else has turned the spring that the leash counts on."""
        wanted = self.franka.translational_stiffness_n_m
        if self.start_up.dry_run or self.config.door != "cartesian" or not abs(self.stiffness - wanted) > 1e-3:
            return ""
        return (f"the stiffness of {self.controller} was set to {self.stiffness:.0f} N/m by somebody else, the configuration "
                f"says {wanted:.0f}; set it back")

    def _tool_problem(self) -> str:
        if self._tool_seen != self.state.F_T_EE:
            self._tool_seen = self.state.F_T_EE
            self._tool_said = reading.tool_problem(self.state, self.arm, self.config.tcp_tolerance_m,
                                                   self.config.tcp_tolerance_rad)
        return self._tool_said

    def pose_error(self) -> Tuple[float, float]:
        """Distance m and angle rad of the driver's tool pose from our kinematics at the same joints."""
        theirs = reading.pose(self.state.O_T_EE)
        position, turn = self._kinematics.pose(np.array(self.state.q))
        return (float(np.linalg.norm(theirs.position - position)),
                poses.turn(rotations.to_matrix(theirs.quaternion), turn))

    def wait_for_mode(self, mode: int, seconds: float) -> str:
        """Until the robot is in a mode; a sentence when it does not get there."""
        end = time.monotonic() + seconds
        while self.state.robot_mode != mode:
            if time.monotonic() > end:
                return (f"robot mode is {reading.MODES[self.state.robot_mode]} and not {reading.MODES[mode]} after "
                        f"{seconds:.0f} s; call /hybridvla/robot/recover")
            time.sleep(0.02)
        return ""

    # Commands out --------------------------------------------------------------------------------------------------

    def send(self, commands: Sequence[ArmCommand], stamp: float) -> None:
        """Publish what the filter released this tick. stamp: when the tick began, s."""
        for command in commands:
            if not command.publish or self.fault:
                self._joints_before = None
            elif self.config.door == "cartesian":
                message = conversions.pose_message(command.pose, self.arm.base_frame, stamp)
                self.poses.publish(message)
                self._echo.publish(message)
            else:
                self._send_joints(command, stamp)
            if command.gripper is not None and self.gripper is not None:
                self.gripper.command(command.gripper)

    def _send_joints(self, command: ArmCommand, stamp: float) -> None:
        """One point, replaced every tick: the controller joins it to what it does, `trajectory_ahead_s` behind."""
        joints, before = np.asarray(command.joint_positions, dtype=float), self._joints_before
        speed = np.zeros_like(joints) if before is None else (joints - before) / self.config.dt
        if (np.abs(speed) > np.asarray(self.arm.joint_limits.velocity_rad_s) * SEEDED).any():
            speed[:] = 0.0
        self._joints_before = joints
        point = JointTrajectoryPoint(positions=joints.tolist(), velocities=speed.tolist(),
                                     time_from_start=rospy.Duration(self.franka.trajectory_ahead_s))
        self.trajectories.publish(JointTrajectory(joint_names=list(self.arm.joint_names), points=[point]))
        echo = JointState(name=list(self.arm.joint_names), position=joints.tolist())
        echo.header.stamp = rospy.Time.from_sec(stamp)
        self._joint_echo.publish(echo)

    # Others on our topic, and our controller -----------------------------------------------------------------------

    def _on_command(self, message: Any) -> None:
        sender = message._connection_header.get("callerid", "")
        if sender == rospy.get_name():
            return
        self._foreign_name, self._foreign_at = sender, time.monotonic()
        if not self.fault and self.start_up.done and not self.start_up.dry_run:
            self.fault = f"{sender} also commands the arm on {self.command_topic}; the controller was stopped: end that node"
            rospy.logerr("%s", self.fault)
            self.report()
            threading.Thread(target=self._disarm, daemon=True).start()

    def _disarm(self) -> None:
        """Two masters pull at one target: neither shall. Stopping the controller makes the robot hold by itself."""
        with self.hands_off:
            try:
                self.driver.switch(stop=[self.controller])
            except driver_module.DriverError as error:
                rospy.logerr("%s", error)
        self.start_up.restart("the controller was stopped because another node commanded the arm")
        while not rospy.is_shutdown():
            time.sleep(0.2)
            try:
                if not self.foreign():
                    break
            except (OSError, rosgraph.MasterException) as error:
                rospy.logwarn_throttle(5.0, "the master does not answer (%s)", error)
        self.fault = ""

    def foreign(self) -> str:
        """Who else publishes on our command topic, or did within the last second."""
        if time.monotonic() - self._foreign_at < FOREIGN_S:
            return f"{self._foreign_name} publishes on {self.command_topic}; end it (the interactive marker, say)"
        return self.other_publishers(rosgraph.Master(rospy.get_name()).getSystemState())

    def other_publishers(self, system_state: List[Any]) -> str:
        """Who else has announced to publish on our command topic, from the master's list. Until it is gone the arm takes no
        commands."""
        self._announced = ""
        for topic, nodes in system_state[0]:
            others = [node for node in nodes if node != rospy.get_name()]
            if topic == self.command_topic and others:
                self._announced = f"{topic} is also published by {', '.join(others)}; stop it"
        return self._announced

    def _watch(self) -> None:
        """The controller manager says `running` in errors too, so this only finds controllers that were stopped or lost."""
        while not rospy.is_shutdown():
            time.sleep(WATCH_S)
            if not self.start_up.done or self.start_up.dry_run or self.busy or not self.hands_off.acquire(blocking=False):
                continue
            try:
                running = self.driver.controllers().get(self.controller) == "running"
                if not running and not self.busy:
                    self.start_up.restart(f"controller {self.controller} does not run any more")
            except driver_module.DriverError as error:
                rospy.logwarn_throttle(5.0, "%s", error)
            finally:
                self.hands_off.release()
