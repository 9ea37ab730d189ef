"""One Franka arm: what is known of it, and the single place that says whether it is taken, led or faulty."""
from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Callable, Iterator, Optional, Sequence, Tuple

import numpy as np
import rospy
from dynamic_reconfigure.msg import Config
from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory

from hybridvla_core.contracts import ArmState
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.geometry import poses, rotations
from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.robots.kinematics import ArmKinematics
from hybridvla_core.waiting import wait_until
from hybridvla_ros.adapters.adapter import OnState
from hybridvla_ros.adapters.franka import driver as driver_module
from hybridvla_ros.adapters.franka import reading
from hybridvla_ros.adapters.franka.gripper import FrankaHand, GripperWorker
from hybridvla_ros.messages.arm_reader import ArmReader, fingers_of
from hybridvla_ros.messages.sources import OneSource, source_of

if TYPE_CHECKING:
    from franka_msgs.msg import FrankaState

STATE_SILENT_S = 0.1     # after this silence, only joint states report on the arm
SILENT_S = 0.2           # after this silence, nobody knows where the arm is
LOCK_S = 12.0

#: Mass, kg, and centre of mass (3,) from the flange, m.
Payload = Tuple[float, Sequence[float]]
NOTHING: Payload = (0.0, (0.0, 0.0, 0.0))
#: Returns why the arm takes no commands, or an empty string.
Question = Callable[[], str]


class FrankaArm:
    """State, gripper, driver and publishers of the arm, shared by adapter, services and start-up.

    They read its fields; only its own methods change them.

    Args:
        config: Configuration of a robot with one arm.
        on_state: Called with every state.

    Attributes:
        state: The driver's last FrankaState, None before the first; of two publishers, the first one's.
        heard: When `state` arrived, monotonic s.
        joints_heard: When the last joint states arrived, monotonic s.
        joint_names: Joint names of the last joint states.
        busy: The operation on the arm under way; the arm takes no commands meanwhile.
        leading: Whether a person leads the arm.
        hands_off: Lock held by whoever changes controllers or settings.
        stiffness: Stiffness that the impedance controller last announced, N/m; NaN before that.
        payload: What the robot was last told that the hand holds: mass, kg, and centre of mass (3,) from the flange, m.
    """

    def __init__(self, config: RobotConfig, on_state: OnState) -> None:
        driver_module.messages()
        self.config, self.arm, self.franka = config, config.arms[0], config.franka
        self._on_state = on_state
        self.driver = driver_module.FrankaDriver(config.franka)
        self.controller = (self.franka.impedance_controller if config.door == "cartesian"
                           else self.franka.trajectory_controller)
        self.hands_off = threading.Lock()
        self.state: Optional[FrankaState] = None
        self.heard = self.joints_heard = float("-inf")
        self.joint_names: Tuple[str, ...] = ()
        self.rate = reading.RateMeter()
        self.busy, self.leading = "", False
        self.stiffness = float("nan")
        self.payload = NOTHING
        self._tool_said, self._tool_seen = "", ()
        self._kinematics = ArmKinematics(self.arm)
        self._reader = ArmReader(self.arm.name, self.arm.joint_names, fingers_of(self.arm))
        self._sources = OneSource("robot states"), OneSource("joint states")
        self._last: Optional[ArmState] = None
        self._question: Question = lambda: ""
        self.hand = self._make_hand()
        self.gripper = GripperWorker(self.hand, self.arm.gripper.deadline_s, self.franka.slip_m) if self.hand else None
        topics = self.arm.topics
        self.trajectories = rospy.Publisher(topics["trajectory"], JointTrajectory, queue_size=1, tcp_nodelay=True)
        self.poses = rospy.Publisher(topics["command"], PoseStamped, queue_size=1, tcp_nodelay=True)
        self.command_topic = topics["command" if config.door == "cartesian" else "trajectory"]

    def _make_hand(self) -> Optional[FrankaHand]:
        topics, gripper = self.arm.topics, self.arm.gripper
        if not topics.get("gripper_move"):
            return None
        return FrankaHand(topics["gripper_move"], topics["gripper_grasp"], gripper.max_width_m, gripper.speed_m_s,
                          gripper.force_n, self.franka.grasp_epsilon_m)

    def subscribe(self) -> None:
        """Begins to listen; call it last, because a driver that already runs speaks at once."""
        from franka_msgs.msg import FrankaState

        rospy.Subscriber(self.arm.topics["robot_state"], FrankaState, self._on_franka, queue_size=20, tcp_nodelay=True)
        rospy.Subscriber(self.arm.topics["joint_states"], JointState, self._on_joints, queue_size=5, tcp_nodelay=True)
        if self.hand:
            rospy.Subscriber(self.arm.topics["gripper_joint_states"], JointState, self._on_fingers, queue_size=2)
        rospy.Subscriber(f"{self.franka.compliance_node}/parameter_updates", Config, self._on_compliance, queue_size=2)

    def _on_franka(self, message: FrankaState) -> None:
        now = time.monotonic()
        if not self._sources[0].takes(source_of(message), now):
            return
        self.state, self.heard = message, now
        self.rate.add(message.time)
        self._last = ArmState(
            name=self.arm.name, joint_names=self.arm.joint_names, joint_positions=np.array(message.q),
            joint_velocities=np.array(message.dq), pose=reading.pose(message.O_T_EE), gripper=self._reader.standing(self.heard),
            robot_mode=int(message.robot_mode), stamp=message.header.stamp.to_sec())
        self.report()

    def _on_joints(self, message: JointState) -> None:
        now, source = time.monotonic(), source_of(message)
        if set(message.name) & set(self.arm.joint_names) and not self._sources[1].takes(source, now):
            return
        self.joints_heard, self.joint_names = now, tuple(message.name)
        if now - self.heard < STATE_SILENT_S:
            return
        found = self._reader.joints(message.name, message.position, message.velocity, now, source)
        if found is not None:
            self._last = replace(found, pose=None, stamp=message.header.stamp.to_sec())
            self.report()

    def _on_fingers(self, message: JointState) -> None:
        self._reader.hand(message.name, message.position, time.monotonic(), source_of(message))
        self.gripper.measured(self._reader.opening * self.arm.gripper.max_width_m)

    def _on_compliance(self, message: Config) -> None:
        self.stiffness = next((entry.value for entry in message.doubles if entry.name == "translational_stiffness"),
                              self.stiffness)

    def report(self) -> None:
        """Tells the filter what is known now."""
        state = self._last
        if state is not None:
            problem = self.problem()
            self._on_state(replace(state, ready=not problem, message=problem,
                                   gripper_state=self.gripper.state if self.gripper else state.gripper_state))

    def judged_by(self, question: Question) -> None:
        """Sets who says why the arm takes no commands once its driver speaks (`FrankaAdapter`)."""
        self._question = question

    def problem(self) -> str:
        """Says why the arm takes no commands, or an empty string. The filter refuses or stops with this sentence."""
        fought = self.fought_over()
        if fought:
            return fought
        if time.monotonic() - self.heard > STATE_SILENT_S:
            return f"nothing on {self.arm.topics['robot_state']}: the robot's mode is unknown; check the driver"
        return self._reader.doubt(time.monotonic()) or self._question()

    def fought_over(self) -> str:
        """Names two nodes that publish the robot's or its joints' states, of which only the first one's count; empty for one."""
        now = time.monotonic()
        return next(filter(None, (source.problem(now) for source in self._sources)), "")

    def unheard(self) -> str:
        """Says that the last state is too old to rely on, or an empty string."""
        if time.monotonic() - self.heard <= SILENT_S:
            return ""
        return f"nothing on {self.arm.topics['robot_state']} any more"

    def taken(self) -> str:
        """Says which operation on the arm is under way, or an empty string."""
        if self.busy or self.leading:
            return self.busy or "a person leads the arm; call /hybridvla/robot/takeover with false"
        return ""

    def tool_problem(self) -> str:
        """Says how the driver's tool frame differs from the configuration, or an empty string."""
        if self._tool_seen != self.state.F_T_EE:
            self._tool_seen = self.state.F_T_EE
            self._tool_said = reading.tool_problem(self.state, self.arm, self.config.tcp_tolerance_m,
                                                   self.config.tcp_tolerance_rad)
        return self._tool_said

    def pose_error(self) -> Tuple[float, float]:
        """Returns distance, m, and angle, rad, between the driver's tool pose and our kinematics at the same joints."""
        theirs = reading.pose(self.state.O_T_EE)
        position, turn = self._kinematics.pose(np.array(self.state.q))
        return (float(np.linalg.norm(theirs.position - position)),
                poses.turn(rotations.to_matrix(theirs.quaternion), turn))

    def wait_for_mode(self, mode: int, seconds: float) -> str:
        """Waits until the robot is in a mode; returns a sentence when it does not get there."""
        end = time.monotonic() + seconds
        while self.state.robot_mode != mode:
            if time.monotonic() > end:
                return (f"robot mode is {reading.MODES[self.state.robot_mode]} and not {reading.MODES[mode]} after "
                        f"{seconds:.0f} s; call /hybridvla/robot/recover")
            time.sleep(0.02)
        return ""

    def carry(self, payload: Payload) -> None:
        """Tells the robot what it carries beyond Desk's end effector: the rest of the tool, and what the hand holds.

        The payload is kept, so that both can be told to the robot again after a fault.

        Args:
            payload: What the hand holds.

        Raises:
            DriverError: The robot did not accept it; the previous payload is kept.
        """
        mass, center = payload
        tool = max(0.0, self.arm.tool.mass_kg - self.state.m_ee)
        total = tool + mass
        middle = (tool * np.array(self.franka.tool_center_m) + mass * np.array(center)) / total if total else np.zeros(3)
        self.driver.set_load(total, middle.tolist())
        self.payload = payload

    # What is done to the arm ---------------------------------------------------------------------------------------

    @contextmanager
    def alone(self, what: str, waiting_for: Question) -> Iterator[None]:
        """Holds the arm: nobody else touches controllers meanwhile, and the filter refuses to move it.

        Args:
            what: The operation; the filter's sentence meanwhile.
            waiting_for: Says what else holds the arm.

        Raises:
            HybridVLAError: Nothing is known of the arm yet, or somebody else keeps holding it.
        """
        if self.state is None:
            raise HybridVLAError(f"nothing on {self.arm.topics['robot_state']} yet; start the driver")
        if not wait_until(lambda: self.hands_off.acquire(blocking=False), LOCK_S):
            raise HybridVLAError(f"{self.busy or waiting_for() or 'the arm is being worked on'}; try again")
        self.busy = what
        self.report()
        try:
            yield
        finally:
            self.busy = ""
            self.hands_off.release()
            self.report()

    @contextmanager
    def led(self) -> Iterator[None]:
        """Marks the arm as led by a person."""
        self.leading = True
        try:
            yield
        finally:
            self.leading = False
