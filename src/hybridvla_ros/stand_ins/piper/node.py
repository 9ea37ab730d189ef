"""The dual-arm rig in place of the real one: two Piper drivers over simulated arms, and the three cameras.

Faults for tests and demonstrations come as text on /piper_rig/fault: `right disable` (motors off through the driver),
`right limp` (motors off without the driver's knowledge), `right freeze` (its CAN bus is gone, until `right start`), `right die`,
`right start`, `right teach`, `right status 7`.
"""
from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from typing import Any, Dict, Sequence

import numpy as np
import rospy
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Bool, String

from hybridvla.srv import (
    ResetScene,
    ResetSceneRequest,
    ResetSceneResponse,
    RigReport,
    RigReportRequest,
    RigReportResponse,
)
from hybridvla_core.configuration import load_file
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.robots.config import RobotConfig
from hybridvla_ros.messages.images import from_rgb
from hybridvla_ros.runtime.node_support import number_parameter, package_path, require_parameter
from hybridvla_ros.runtime.workers import start_worker
from hybridvla_ros.stand_ins.judging import judge
from hybridvla_ros.stand_ins.piper.driver import GRIPPERS, UNITS, DriverConfig, PiperDriver
from hybridvla_sim import tasks
from hybridvla_sim.experts import expert_action
from hybridvla_sim.piper.arm import TEACH
from hybridvla_sim.piper.monitor import JointMonitorLimits
from hybridvla_sim.piper.rig import PiperRig
from hybridvla_sim.piper.scene import CAMERAS
from hybridvla_sim.task import Task

STEP_S = 0.005
#: Task whose things are on the table when the parameter ~task is not set.
DEFAULT_TASK = "tray"
CAMERA_NAMES = {"front": "camera_f", "right": "camera_r", "left": "camera_l"}     # as on a Cobot Magic


@dataclass(frozen=True)
class CameraOptions:
    """How the cameras send.

    Attributes:
        hz: Frame rate, Hz; 0: no cameras.
        width: Width of the images, px.
        height: Height of the images, px.
    """

    hz: float = 10.0
    width: int = 320
    height: int = 240

    def __post_init__(self) -> None:
        if not 0.0 <= self.hz <= 60.0:
            raise HybridVLAError(f"parameter ~image_hz is {self.hz}; use a rate from 0 (no cameras) to 60 Hz")


class PiperRigNode:
    """Runs physics and both drivers' loops in one thread at real time, and rendering in another, on a copy of the state."""

    def __init__(self, robot: RobotConfig, task: Task[PiperRig], driver: DriverConfig, seed: int, cameras: CameraOptions,
                 start: str) -> None:
        limits = {arm.name: JointMonitorLimits.of(arm, robot.agilex.command_hz) for arm in robot.arms}
        size = (cameras.width, cameras.height)
        self._rig, self._picture = PiperRig(task, limits, *size), PiperRig(task, None, *size)
        self._lock = threading.Lock()
        self._size = size
        self._image_period = 1.0 / cameras.hz if cameras.hz > 0.0 else 0.0
        self._start = {arm.name: np.array(arm.start_joints_rad) if start == "start" else np.zeros(6) for arm in robot.arms}
        self.reset(seed)
        enable = robot.topics.get("enable", "/enable_flag")
        self._drivers = {arm.name: PiperDriver(self._rig, self._lock, arm, enable, driver) for arm in robot.arms}
        self._images: Dict[str, Any] = {}
        self._infos: Dict[str, Any] = {}
        for view, camera in CAMERA_NAMES.items():
            self._images[view] = rospy.Publisher(f"/{camera}/color/image_raw", Image, queue_size=1)
            self._infos[view] = rospy.Publisher(f"/{camera}/color/camera_info", CameraInfo, queue_size=1)
        self._disabled_by_flag = 0
        rospy.Subscriber(enable, Bool, self._on_flag, queue_size=5)
        rospy.Subscriber("/piper_rig/fault", String, self._on_fault, queue_size=5)
        rospy.Service("/piper_rig/reset_scene", ResetScene, self._reset_scene)
        rospy.Service("/piper_rig/report", RigReport, self._report)

    def reset(self, seed: int) -> None:
        with self._lock:
            self._rig.reset(np.random.default_rng(seed), self._start)
            self._seed = seed

    def _on_flag(self, message: Bool) -> None:
        self._disabled_by_flag += not message.data

    def _on_fault(self, message: String) -> None:
        words = message.data.split()
        if len(words) < 2 or words[0] not in self._drivers:
            rospy.logwarn("fault %r is unknown", message.data)
            return
        driver, what = self._drivers[words[0]], words[1]
        if what in ("die", "start", "freeze"):
            getattr(driver, what)()
            return
        if what == "disable":
            driver._on_enable(Bool(False))
            return
        with self._lock:
            arm = self._rig.arms[words[0]]
            if what == "limp":
                mode = arm.ctrl_mode
                arm.enable(False)
                arm.ctrl_mode = mode
            elif what == "teach":
                arm.taught, arm.ctrl_mode = True, TEACH
            elif what == "status":
                arm.fault = int(words[2])

    def _reset_scene(self, request: ResetSceneRequest) -> ResetSceneResponse:
        if request.seed < 0:
            return ResetSceneResponse(False, f"the seed is {request.seed}; use 0 or more")
        self.reset(request.seed)
        return ResetSceneResponse(True, f"scene {request.seed}, both arms at their start poses")

    def _report(self, request: RigReportRequest) -> RigReportResponse:
        """Answers as in RigReport.srv. The scene's true state is for judges and scripted policies."""
        with self._lock:
            rig = self._rig
            violations = rig.violations
            commands = sum(monitor.commands for monitor in rig.monitors.values())
            report = {"seed": self._seed, "time": rig.time, "violations_by_name": dict(violations),
                      "last_violation": next((m.last_violation for m in rig.monitors.values() if m.last_violation), ""),
                      "disabled_by_flag": self._disabled_by_flag,
                      "enabled": {name: bool(arm.enabled) for name, arm in rig.arms.items()},
                      "joints": {name: (arm.joints / 1000).tolist() for name, arm in rig.arms.items()},
                      rig.task.name: rig.world.report()}
            answer = judge(RigReportResponse(True, "", False, commands, sum(violations.values()), ""), rig.world,
                           request.instruction)
            if request.instruction and answer.success:
                report["expert"] = expert_action(rig, request.instruction)[0].tolist()
            answer.report = json.dumps(report)
            return answer

    # Loops ---------------------------------------------------------------------------------------------------------

    def spin(self) -> None:
        start_worker("the physics", self._physics)
        if self._image_period:
            self._render_loop()
        else:
            rospy.spin()

    def _physics(self) -> None:
        following = time.monotonic()
        while not rospy.is_shutdown():
            with self._lock:
                self._rig.step(STEP_S)
            for driver in self._drivers.values():
                driver.publish()
            following += STEP_S
            wait = following - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            else:
                following = time.monotonic()  # a slow machine makes slow time, not jumps

    def _render_loop(self) -> None:
        following = time.monotonic()
        while not rospy.is_shutdown():
            with self._lock:
                stamp = rospy.Time.now()
                self._picture.copy_state(self._rig)
            for view in CAMERAS:
                frame = f"{CAMERA_NAMES[view]}_color_optical_frame"
                self._images[view].publish(from_rgb(self._picture.render(view), stamp, frame))
                self._infos[view].publish(self._info(view, stamp, frame))
            following = max(following + self._image_period, time.monotonic())
            time.sleep(max(0.0, following - time.monotonic()))

    def _info(self, view: str, stamp: rospy.Time, frame: str) -> CameraInfo:
        width, height = self._size
        focal = height / 2 / np.tan(np.radians(float(self._rig.model.camera(view).fovy[0])) / 2)
        message = CameraInfo(width=width, height=height, distortion_model="plumb_bob", D=[0.0] * 5)
        message.K = [focal, 0.0, width / 2, 0.0, focal, height / 2, 0.0, 0.0, 1.0]
        message.R = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
        message.P = [focal, 0.0, width / 2, 0.0, 0.0, focal, height / 2, 0.0, 0.0, 0.0, 1.0, 0.0]
        message.header.stamp, message.header.frame_id = stamp, frame
        return message


def choice(name: str, default: str, allowed: Sequence[str]) -> str:
    value = str(rospy.get_param("~" + name, default))
    if value not in allowed:
        raise HybridVLAError(f"parameter ~{name} is {value!r}; use one of {', '.join(allowed)}")
    return value


def main() -> None:
    robot = load_file(RobotConfig, package_path(require_parameter("robot_config")))
    if robot.agilex is None:
        raise HybridVLAError(f"robot {robot.name} is not an AgileX robot; use config/robots/agilex.yaml")
    driver = DriverConfig(control=int(rospy.get_param("~mode", 1)) == 1, auto_enable=bool(rospy.get_param("~auto_enable", True)),
                          units=choice("units", "new", UNITS), gripper=choice("gripper", "m", GRIPPERS))
    cameras = CameraOptions(number_parameter("image_hz", 10.0), int(number_parameter("image_width", 320)),
                            int(number_parameter("image_height", 240)))
    task = tasks.load(rospy.get_param("~task", DEFAULT_TASK), rig="piper")
    variation = str(rospy.get_param("~variation", "")).strip()
    PiperRigNode(robot, task.varied(variation) if variation else task, driver, int(number_parameter("seed", 1)), cameras,
                 choice("start", "start", ("start", "zero"))).spin()
