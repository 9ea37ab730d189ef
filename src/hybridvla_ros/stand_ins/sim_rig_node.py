"""The simulated rig as a ROS robot: joint states, two cameras, a pose topic, a gripper, a motion back to the start."""
from __future__ import annotations

import json
import threading
import time

import numpy as np
import rospy
from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64
from std_srvs.srv import Trigger, TriggerRequest, TriggerResponse

from hybridvla.srv import (
    ResetScene,
    ResetSceneRequest,
    ResetSceneResponse,
    RigReport,
    RigReportRequest,
    RigReportResponse,
)
from hybridvla_core.configuration import load_file
from hybridvla_core.contracts import ArmState
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.robots.config import RobotConfig
from hybridvla_ros.runtime.node_support import number_parameter, package_path, publish_unless_ending, require_parameter
from hybridvla_ros.runtime.workers import start_worker
from hybridvla_ros.stand_ins.judging import judge
from hybridvla_ros.stand_ins.sim_cameras import SceneCameras
from hybridvla_sim import tasks
from hybridvla_sim.experts import expert_action
from hybridvla_sim.fr3.rig import FINGER_NAMES, JOINT_NAMES, Rig, RigConfig
from hybridvla_sim.monitor import MonitorLimits
from hybridvla_sim.task import Task

GO_TO_START_TIMEOUT_S = 20.0
#: Task whose things are on the table when the parameter ~task is not set.
DEFAULT_TASK = "blocks"


class SimRigNode:
    """Runs physics in one thread at real time, and rendering in another, on a copy of the state."""

    def __init__(self, robot: RobotConfig, task: Task[Rig], seed: int, image_hz: float, state_hz: float) -> None:
        arm = robot.arms[0]
        self.rig = Rig(task, RigConfig(limits=MonitorLimits.of(arm)))
        self._lock = threading.Lock()
        self._step = 1.0 / state_hz
        self._cameras = SceneCameras(self.rig, self._lock, image_hz)
        self._base_frame = arm.base_frame
        self.reset(seed)
        self._joints = rospy.Publisher(arm.topics["joint_states"], JointState, queue_size=2, tcp_nodelay=True)
        self._tool = rospy.Publisher("/sim_rig/tool_pose", PoseStamped, queue_size=2)
        rospy.Subscriber(arm.topics["command"], PoseStamped, self._on_target, queue_size=20, tcp_nodelay=True)
        rospy.Subscriber(arm.topics["gripper_command"], Float64, self._on_gripper, queue_size=5)
        rospy.Service("/sim_rig/reset_scene", ResetScene, self._reset_scene)
        rospy.Service("/sim_rig/go_to_start", Trigger, self._go_to_start)
        rospy.Service("/sim_rig/report", RigReport, self._report)

    def reset(self, seed: int) -> None:
        """Sets the scene drawn from `seed`, with the arm at its start pose."""
        with self._lock:
            self.rig.reset(np.random.default_rng(seed))
            self.seed = seed

    def _on_target(self, message: PoseStamped) -> None:
        point, turn = message.pose.position, message.pose.orientation
        # Sim time of the physics is quantised; the monitor judges speeds by the times at which targets were sent.
        with self._lock:
            self.rig.set_equilibrium_pose([point.x, point.y, point.z], [turn.x, turn.y, turn.z, turn.w],
                                          message.header.stamp.to_sec())

    def _on_gripper(self, message: Float64) -> None:
        try:
            with self._lock:
                self.rig.command_gripper(message.data)
        except HybridVLAError as error:
            rospy.logwarn("%s", error)

    def _reset_scene(self, request: ResetSceneRequest) -> ResetSceneResponse:
        if request.seed < 0:
            return ResetSceneResponse(False, f"the seed is {request.seed}; use 0 or more")
        self.reset(request.seed)
        return ResetSceneResponse(True, f"scene {request.seed}, arm at its start pose")

    def _go_to_start(self, _request: TriggerRequest) -> TriggerResponse:
        with self._lock:
            self.rig.command_gripper(1.0)
            self.rig.go_to_start()
        deadline = time.monotonic() + GO_TO_START_TIMEOUT_S
        while not self.rig.at_start:
            if time.monotonic() > deadline or rospy.is_shutdown():
                return TriggerResponse(False, "the arm did not reach its start pose in time")
            time.sleep(0.05)
        return TriggerResponse(True, "at the start pose")

    def _report(self, request: RigReportRequest) -> RigReportResponse:
        """Answers as in RigReport.srv. The scene's true state is for judges and scripted experts; no policy sees it."""
        with self._lock:
            monitor, world = self.rig.monitor, self.rig.world
            report = {"seed": self.seed, "time": self.rig.time, "violations_by_name": dict(monitor.counts),
                      "last_violation": monitor.last_violation,
                      "world": world.report()}
            answer = RigReportResponse(True, "", False, monitor.targets, monitor.violations, "")
            answer = judge(answer, world, request.instruction)
            if request.instruction and answer.success:
                report["expert"] = expert_action(self.rig, request.instruction)[0].tolist()
            answer.report = json.dumps(report)
            return answer

    # Loops ---------------------------------------------------------------------------------------------------------

    def spin(self) -> None:
        start_worker("the physics", self._physics)
        self._cameras.spin()

    def _physics(self) -> None:
        following = time.monotonic()
        while not rospy.is_shutdown():
            with self._lock:
                self.rig.step(self._step)
                state, fingers = self.rig.arm_state(), self.rig.finger_positions
            self._publish_state(state, fingers)
            following += self._step
            wait = following - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            else:
                following = time.monotonic()  # a slow machine makes slow time, not jumps

    def _publish_state(self, state: ArmState, fingers: np.ndarray) -> None:
        now = rospy.Time.now()
        message = JointState(name=list(JOINT_NAMES + FINGER_NAMES),
                             position=[*state.joint_positions.tolist(), *fingers.tolist()],
                             velocity=[*state.joint_velocities.tolist(), 0.0, 0.0])
        message.header.stamp = now
        publish_unless_ending(self._joints, message)
        pose = PoseStamped()
        pose.header.stamp, pose.header.frame_id = now, self._base_frame
        pose.pose.position.x, pose.pose.position.y, pose.pose.position.z = state.pose.position
        (pose.pose.orientation.x, pose.pose.orientation.y, pose.pose.orientation.z,
         pose.pose.orientation.w) = state.pose.quaternion
        publish_unless_ending(self._tool, pose)


def main() -> None:
    robot = load_file(RobotConfig, package_path(require_parameter("robot_config")))
    image_hz = number_parameter("image_hz", 10.0)
    if not 0.1 <= image_hz <= 60.0:
        raise HybridVLAError(f"parameter ~image_hz is {image_hz}; use a rate from 0.1 to 60 Hz")
    state_hz = number_parameter("state_hz", 100.0)
    if not 20.0 <= state_hz <= 500.0:
        raise HybridVLAError(f"parameter ~state_hz is {state_hz}; use a rate from 20 to 500 Hz")
    seed = number_parameter("seed", 1)
    if seed < 0 or seed != int(seed):
        raise HybridVLAError(f"parameter ~seed is {seed:g}; use a whole number from 0 on")
    task = tasks.load(rospy.get_param("~task", DEFAULT_TASK), rig="fr3")
    variation = str(rospy.get_param("~variation", "")).strip()
    SimRigNode(robot, task.varied(variation) if variation else task, int(seed), image_hz, state_hz).spin()
