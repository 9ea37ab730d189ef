"""AgileX arms with the vendor's Piper driver: joint streams, or `PosCmd` where the configuration says so.

The driver checks neither limits nor speed and has no watchdog; the filter does all of that. Here: both arms' states, what
their status means, the start-up probe of units (`probe.py`), and commands in the driver's own form. `/enable_flag`
is only ever sent true: false switches the motors off and the arms fall.
"""
from __future__ import annotations

import threading
import time
from dataclasses import replace
from types import ModuleType
from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np
import rospy
from geometry_msgs.msg import Pose as PoseMessage
from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool
from std_srvs.srv import Trigger, TriggerRequest, TriggerResponse

from hybridvla_core.contracts import ArmState
from hybridvla_core.errors import ConfigurationError
from hybridvla_core.robots.arm import ArmConfig
from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.safety.status import ArmCommand, State
from hybridvla_ros.adapters.adapter import OnState, RobotAdapter, joint_echo, pose_echo
from hybridvla_ros.adapters.agilex import status as agilex_status
from hybridvla_ros.adapters.agilex.command import ArmStream, tool_pose
from hybridvla_ros.adapters.agilex.frozen import FrozenStates
from hybridvla_ros.adapters.agilex.probe import EndPose, UnitProbe
from hybridvla_ros.filter_handle import FilterHandle
from hybridvla_ros.messages import conversions
from hybridvla_ros.messages.arm_reader import ArmReader, fingers_of
from hybridvla_ros.messages.sources import OneSource, source_of

STATUS_AGE_S = 0.5
RETURN_S = 1.0           # how long a driver has, after its joints were silent, to say how the arm is
STREAMING_S = 0.5        # after that long a stream the driver has switched the arm to CAN control
PAUSE_S = 0.1            # silence on our side that ends a stream


def piper_messages() -> ModuleType:
    """Returns the driver's message package. Raises ConfigurationError where it is not installed."""
    try:
        import piper_msgs.msg as messages
    except ImportError as error:
        raise ConfigurationError("the driver's messages (piper_msgs) are not installed; set DRIVER_WORKSPACE to the devel "
                                 "folder of Piper_ros's workspace and run `make setup`") from error
    return messages


class AgilexArm:
    """One arm: its topics, its state, its stream. Callbacks run in several threads; the lock protects what they share."""

    def __init__(self, arm: ArmConfig, config: RobotConfig, on_state: OnState) -> None:
        messages = piper_messages()
        self.arm, self._config, self._on_state = arm, config.agilex, on_state
        self.joint_door = config.door == "joint"
        self._lock = threading.Lock()
        self._reader = ArmReader(arm.name, arm.joint_names, fingers_of(arm))
        self._fingers = fingers_of(arm)[0]
        self._probe = UnitProbe(arm, config)
        self._stream = ArmStream(arm, config)
        self._frozen, self._unread = FrozenStates(), ""
        self._status: Optional[agilex_status.PiperStatus] = None
        self._statuses = OneSource("arm status messages")
        self._disabled, self._controlled = "", False
        self._status_at = self._joints_at = self._back_at = self._sent_at = self._began_at = self._astray_at = float("-inf")
        self.command_topic = arm.topics["command" if self.joint_door else "pose_command"]
        kind = JointState if self.joint_door else messages.PosCmd
        self._commands = rospy.Publisher(self.command_topic, kind, queue_size=1, tcp_nodelay=True)
        self._echo = joint_echo(arm.name) if self.joint_door else pose_echo(arm.name)
        rospy.Subscriber(arm.topics["joint_states"], JointState, self._on_joints, queue_size=10, tcp_nodelay=True)
        rospy.Subscriber(arm.topics["robot_state"], messages.PiperStatusMsg, self._on_status, queue_size=1, tcp_nodelay=True)
        # Drivers differ in the type of their end pose: each message is read by its own type's name.
        self._pose_subscribers = [rospy.Subscriber(arm.topics[role], rospy.AnyMsg, self._on_pose, queue_size=1, tcp_nodelay=True)
                      for role in ("pose_euler", "pose") if arm.topics.get(role)]

    # Inputs --------------------------------------------------------------------------------------------------------

    def _on_status(self, message: agilex_status.PiperStatus) -> None:
        now = time.monotonic()
        if self._statuses.takes(source_of(message), now):
            self._status, self._status_at = message, now

    def on_enable_flag(self, enabled: bool) -> None:
        """Notes that somebody switched the motors on or off; an arm seen as off stays so until it is switched on."""
        self._disabled = "" if enabled else "the motors were switched off by /enable_flag; call /hybridvla/robot/enable"

    def _on_pose(self, message: rospy.AnyMsg) -> None:
        if self._probe.done and not self._probe.compares:
            return
        kind = message._connection_header.get("type", "")
        for wanted in (PoseStamped, PoseMessage, piper_messages().PosCmd):
            if kind == wanted._type:
                read = wanted()
                read.deserialize(message._buff)
                with self._lock:
                    if kind == piper_messages().PosCmd._type:
                        self._probe.pose(EndPose((read.x, read.y, read.z), euler=(read.roll, read.pitch, read.yaw)),
                                         read.gripper)
                    else:
                        pose = getattr(read, "pose", read)
                        point, turn = pose.position, pose.orientation
                        self._probe.pose(EndPose((point.x, point.y, point.z),
                                                 quaternion=(turn.x, turn.y, turn.z, turn.w)))
                return
        rospy.logwarn_throttle(5.0, "%s: its end pose is of type %s, which no Piper driver publishes", self.arm.name, kind)

    def _on_joints(self, message: JointState) -> None:
        now = time.monotonic()
        state = self._reader.joints(message.name, message.position, message.velocity, now, source_of(message))
        if state is None:
            return                       # from a second publisher; the next state of the first one says so
        if not set(state.joint_names) & set(self.arm.joint_names):
            self._on_state(replace(state, stamp=message.header.stamp.to_sec()))      # other names: the filter says which
            return
        with self._lock:
            readings = [message.position[message.name.index(finger)] for finger in self._fingers
                        if finger in message.name and message.name.index(finger) < len(message.position)]
            if len(state.joint_positions) == self.arm.dof:
                self._probe.joints(state.joint_positions, sum(readings) if readings else float("nan"))
            self._stream.measured(self._reader.opening)
            self._unread = self._frozen.measured(state.joint_positions, now)
            problem = self._problem(state, now)
        if now - self._joints_at > STATUS_AGE_S:
            self._back_at = now
        self._joints_at = now
        if now - self._status_at > STATUS_AGE_S and now - self._back_at < RETURN_S:
            return                       # a driver that has just come (back): its arm's status first
        mode = self._status.ctrl_mode if self._status is not None else 0
        self._on_state(replace(state, ready=not problem, message=problem, robot_mode=mode,
                               stamp=message.header.stamp.to_sec()))

    def _problem(self, state: ArmState, now: float) -> str:
        """Says why this arm takes no commands, or an empty string."""
        fought = self._reader.problem(now) or self._statuses.problem(now)
        if fought:
            return fought
        if now - self._status_at > STATUS_AGE_S:
            return f"no arm status on {self.arm.topics['robot_state']}; check the driver"
        recent = now - self._sent_at < PAUSE_S
        self._controlled = self._controlled or (recent and self._status.ctrl_mode == agilex_status.CAN_CONTROL)
        streaming = recent and (self._controlled or self._sent_at - self._began_at > STREAMING_S)
        found = agilex_status.problem(self._status)
        if not found and streaming and self._status.ctrl_mode == agilex_status.STANDBY:
            self._disabled = self._disabled or agilex_status.DISABLED
        if found or self._disabled:
            return found or self._disabled
        if self._probe.gripper_problem or self._probe.problem:
            # The probe's sentences begin with the arm's name, which the filter puts before every message.
            return (self._probe.gripper_problem or self._probe.problem).split(": ", 1)[1]
        if self._commands.get_num_connections() == 0:
            return (f"nobody listens on {self.command_topic}; start the driver in control mode (start_ms_piper.launch "
                    "mode:=1)")
        return self._unread or self._astray(state, now)

    def _astray(self, state: ArmState, now: float) -> str:
        """Says that the arm does not go where it is sent."""
        if not self.joint_door or now - self._sent_at > PAUSE_S or len(state.joint_positions) != self.arm.dof:
            self._astray_at = float("inf")
            return ""
        away = np.abs(self._stream.joints - state.joint_positions)
        if away.max() <= self._config.follow_rad:
            self._astray_at = float("inf")
            return ""
        self._astray_at = min(self._astray_at, now)
        if now - self._astray_at < self._config.follow_s:
            return ""
        return (f"joint {int(np.argmax(away)) + 1} is {away.max():.2f} rad from its command: the arm is disabled, blocked "
                "or held; check it and call /hybridvla/robot/enable")

    # Outputs -------------------------------------------------------------------------------------------------------

    def send(self, command: ArmCommand, stamp: float) -> None:
        """Sends the tick's command, in the driver's form and at the driver's pace."""
        now = time.monotonic()
        if not command.publish:
            with self._lock:
                self._sent_at = float("-inf")
                self._frozen.begin()
            return
        with self._lock:
            if now - self._sent_at > PAUSE_S:
                self._began_at, self._controlled = now, False
                self._stream.begin()
                self._frozen.begin()
            self._sent_at = now
            units = self._probe.units
            message = self._stream.joint_message(command, stamp) if self.joint_door else (
                self._stream.pos_cmd(command, units, now, piper_messages().PosCmd) if units else None)
            if message is not None:
                self._frozen.commanded(command.joint_positions)
        if message is None:
            return
        self._commands.publish(message)
        self._echo.publish(message if self.joint_door else conversions.pose_message(
            tool_pose(message, self.arm, units), self.arm.base_frame, stamp))

    @property
    def joint_hz(self) -> float:
        """Returns how often joints go out while the arm is commanded, Hz."""
        return self._stream.joint_hz

    @property
    def commanded(self) -> bool:
        """Tells whether a command went out just now."""
        return time.monotonic() - self._sent_at < PAUSE_S


class AgilexAdapter(RobotAdapter):
    """Both arms. Publishes nothing that the filter did not release.

    Args:
        config: Configuration of the robot.
        on_state: Called with every state of each arm.
        safety: The filter, for the motion to the start and for `enable`.
    """

    advice = "stop it, or, if it is the driver, start it in control mode (mode:=1)"
    has_way_to_start = True

    def __init__(self, config: RobotConfig, on_state: OnState, safety: FilterHandle) -> None:
        super().__init__(config, on_state)
        self._safety, self._joint_door = safety, config.door == "joint"
        self._arms: Dict[str, AgilexArm] = {arm.name: AgilexArm(arm, config, on_state) for arm in config.arms}
        if self._joint_door:
            rospy.loginfo("joints are streamed at %g Hz (agilex.command_hz is %g)",
                          next(iter(self._arms.values())).joint_hz, config.agilex.command_hz)
        self._enable_topic = config.topics.get("enable", "/enable_flag")
        self._enable = rospy.Publisher(self._enable_topic, Bool, queue_size=1)
        rospy.Subscriber(self._enable_topic, Bool, self._on_enable_flag, queue_size=5)
        rospy.Service("/hybridvla/robot/enable", Trigger, self._on_enable)

    @property
    def command_topics(self) -> List[str]:
        """Returns the command topic of each arm."""
        return [arm.command_topic for arm in self._arms.values()]

    def send(self, commands: Sequence[ArmCommand], stamp: float) -> None:
        """Publishes what the filter released this tick, in the driver's form and at its pace."""
        for command in commands:
            self._arms[command.name].send(command, stamp)

    def go_to_start(self, since: int) -> Tuple[bool, str]:
        """Moves slowly to the start joints, every step within the filter's limits; the gripper stays as it is.

        Args:
            since: See `RobotAdapter.go_to_start`.

        Returns:
            Whether the arms got there, and a sentence.
        """
        if not self._joint_door:
            return False, "PosCmd leads the tool and not the joints: go to the start with command:=joint"
        return self._safety.go_to_start(since)

    def _on_enable_flag(self, message: Bool) -> None:
        for arm in self._arms.values():
            arm.on_enable_flag(message.data)

    def _on_enable(self, _request: TriggerRequest) -> TriggerResponse:
        """Switches the motors of every arm on. The driver then closes the grippers; nothing here ever switches motors off."""
        stopped = self._safety.state == State.STOPPED
        if any(arm.commanded for arm in self._arms.values()) and not stopped:
            return TriggerResponse(False, "the arms are being commanded; deactivate the filter first")
        # One of the listeners is this adapter itself.
        if self._enable.get_num_connections() < 2:
            return TriggerResponse(False, f"nobody listens on {self._enable_topic}; start the driver in control mode")
        self._enable.publish(Bool(True))
        return TriggerResponse(True, "enabling both arms; their grippers close")
