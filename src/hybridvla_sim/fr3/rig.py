"""The simulated FR3 rig: the external interface of a robot, its gripper and two cameras. A task adds what is on the table."""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Callable, Dict, Optional, Tuple

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

from hybridvla_core.contracts import ArmState, GripperState, Pose
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.safety.status import ArmCommand
from hybridvla_sim.drawing import make_renderer
from hybridvla_sim.fr3.impedance import ImpedanceConfig, ImpedanceController
from hybridvla_sim.fr3.scene import IMAGE_SIZE, START_JOINTS, SceneIndex, build_model, tool_pose
from hybridvla_sim.monitor import LimitMonitor, MonitorLimits
from hybridvla_sim.task import Task

CAMERAS = ("front", "wrist")
JOINT_NAMES = tuple(f"fr3_joint{i}" for i in range(1, 8))
FINGER_NAMES = ("fr3_finger_joint1", "fr3_finger_joint2")
MAX_WIDTH = 0.08  # m


@dataclass(frozen=True)
class RigConfig:
    """The rig's own parameters.

    Attributes:
        impedance: Gains of the rig's controller.
        limits: Limits that the rig's monitor checks; if None, it counts only targets that are not a pose at all.
        gripper_speed: Speed of the opening's width, m/s.
        start_speed: Speed of the fastest joint on the way back to the start, rad/s.
    """

    impedance: ImpedanceConfig = field(default_factory=ImpedanceConfig)
    limits: Optional[MonitorLimits] = None
    gripper_speed: float = 0.2
    start_speed: float = 0.6


class Rig:
    """One arm at the table. Time passes only in `step`; everything is a function of the scene and the commands.

    Attributes:
        task: Task that furnishes the table.
        world: The task's objects in this rig.
    """

    def __init__(self, task: Task[Rig], config: RigConfig = RigConfig(),
                 make_controller: Callable[..., ImpedanceController] = ImpedanceController) -> None:
        self.task, self.config, self._make_controller = task, config, make_controller
        self.model = build_model(task.furnish)
        self.data = mujoco.MjData(self.model)
        self.index = SceneIndex(self.model)
        self.monitor = LimitMonitor(config.limits)
        self._renderer: Optional[mujoco.Renderer] = None
        self._debt = 0.0
        self.world = task.world(self)
        self._place_robot()

    # Scene and time ------------------------------------------------------------------------------------------------

    def reset(self, rng: np.random.Generator) -> None:
        """Draws a new scene of the task, with the arm at its start pose and the gripper open. The monitor keeps its counts."""
        mujoco.mj_resetData(self.model, self.data)
        self.world.reset(rng)
        self._place_robot()
        self.monitor.restart()

    def _place_robot(self) -> None:
        self.data.qpos[self.index.arm_qpos] = START_JOINTS
        self.data.qpos[self.index.finger_qpos] = MAX_WIDTH / 2
        self.data.qvel[:] = 0.0
        mujoco.mj_forward(self.model, self.data)
        self._finger = self._finger_goal = MAX_WIDTH / 2
        self.data.ctrl[:] = self._finger
        self._closing_since = None
        self.controller = self._make_controller(self.model, self.data, self.index, self.config.impedance)
        self._returning: Optional[np.ndarray] = None
        self._debt = 0.0

    def copy_state(self, other: Rig) -> None:
        """Copy another rig's positions, for rendering."""
        self.data.qpos[:] = other.data.qpos
        self.world.copy_state(other.world)
        mujoco.mj_forward(self.model, self.data)

    @property
    def time(self) -> float:
        """Simulated time since `reset`, s."""
        return float(self.data.time)

    def step(self, seconds: float) -> None:
        """Advance time in whole physics steps; the next call makes up for the remainder."""
        self._debt += seconds
        timestep = self.model.opt.timestep
        while self._debt > timestep / 2:
            self._debt -= timestep
            self._move_gripper(timestep)
            torque = self._return_torque(timestep) if self._returning is not None else self.controller.torque()
            self.data.qfrc_applied[self.index.arm_dofs] = torque
            mujoco.mj_step(self.model, self.data)
            self.world.passed(timestep)

    @property
    def broken(self) -> int:
        """Number of targets so far that broke a limit."""
        return self.monitor.violations

    # Commands ------------------------------------------------------------------------------------------------------

    def set_equilibrium_pose(self, position: np.ndarray, quaternion_xyzw: np.ndarray,
                             sent_at: Optional[float] = None) -> None:
        """Gives the impedance controller a target. The monitor sees every target.

        A target that is not a pose at all would throw a real arm about; here it is counted and dropped.

        Args:
            position: Position (3,) m, base frame.
            quaternion_xyzw: Orientation (4,), base frame.
            sent_at: Time on the sender's clock, s, from which the monitor computes speeds; simulated time if None.
        """
        when = self.time if sent_at is None else sent_at
        if self.monitor.target(when, position, quaternion_xyzw) and self._returning is None:
            self.controller.set_target(position, quaternion_xyzw)

    def command_gripper(self, opening: float) -> None:
        """Command the gripper: 0 closes it (and holds with about 30 N), 1 opens it; the fingers move at a finite speed."""
        if not np.isfinite(opening):
            raise HybridVLAError(f"gripper: the opening {opening} is not a number in [0, 1]")
        self._finger_goal = float(np.clip(opening, 0.0, 1.0)) * MAX_WIDTH / 2

    def send(self, command: ArmCommand) -> None:
        """Executes a command of the filter, as the real arm's adapter would have the controllers do."""
        if command.publish:
            self.set_equilibrium_pose(command.pose.position, command.pose.quaternion)
        if command.gripper is not None:
            self.command_gripper(command.gripper)

    def rest_fingers(self) -> None:
        """Make the next gripper command start from the present finger positions."""
        self._finger = float(self.data.qpos[self.index.finger_qpos].mean())

    def go_to_start(self) -> None:
        """Begin a slow joint motion back to the start; `at_start` becomes true on arrival."""
        self._returning = self.data.qpos[self.index.arm_qpos].copy()
        self.monitor.restart()

    @property
    def at_start(self) -> bool:
        joints = self.data.qpos[self.index.arm_qpos]
        return self._returning is None and bool(np.abs(joints - START_JOINTS).max() < 0.02)

    def _move_gripper(self, timestep: float) -> None:
        reach = self.config.gripper_speed / 2 * timestep
        self._finger += min(max(self._finger_goal - self._finger, -reach), reach)
        self.data.ctrl[0] = self._finger

    def _return_torque(self, timestep: float) -> np.ndarray:
        """Joint impedance towards a reference that moves to the start; hands over to the pose controller there."""
        way = START_JOINTS - self._returning
        self._returning += way * min(1.0, self.config.start_speed * timestep / max(np.abs(way).max(), 1e-9))
        joints, speed = self.data.qpos[self.index.arm_qpos], self.data.qvel[self.index.arm_dofs]
        gains = np.array([600.0, 600.0, 600.0, 600.0, 250.0, 150.0, 50.0])
        torque = gains * (self._returning - joints) - 2.0 * np.sqrt(gains) * speed
        if np.abs(way).max() < 1e-9 and np.abs(START_JOINTS - joints).max() < 0.015:
            self._returning = None
            self.controller.start()
        return torque + self.data.qfrc_bias[self.index.arm_dofs]

    # State ---------------------------------------------------------------------------------------------------------

    def arm_state(self) -> ArmState:
        """Joints, tool pose and gripper as a driver would report them."""
        position, rotation = tool_pose(self.model, self.data, self.index)
        moving = abs(self._finger - self._finger_goal) > 1e-4
        return ArmState(
            name="arm", joint_names=JOINT_NAMES, joint_positions=self.data.qpos[self.index.arm_qpos].copy(),
            joint_velocities=self.data.qvel[self.index.arm_dofs].copy(),
            pose=Pose(position.copy(), Rotation.from_matrix(rotation).as_quat()), gripper=self.opening,
            gripper_state=GripperState.MOVING if moving else GripperState.DONE, robot_mode=2,
            ready=self._returning is None, message="" if self._returning is None else "moving to the start pose")

    def arm_states(self) -> Tuple[ArmState, ...]:
        """Returns the one arm's state."""
        return (self.arm_state(),)

    @property
    def opening(self) -> float:
        """Measured opening, 0 closed to 1 open."""
        return float(np.clip(self.data.qpos[self.index.finger_qpos].sum() / MAX_WIDTH, 0.0, 1.0))

    @property
    def finger_positions(self) -> np.ndarray:
        """Positions (2,) of the fingers, m."""
        return self.data.qpos[self.index.finger_qpos].copy()

    # Cameras -------------------------------------------------------------------------------------------------------

    def render(self, camera: str) -> np.ndarray:
        """Render an image (256, 256, 3) uint8 RGB."""
        if camera not in CAMERAS:
            raise HybridVLAError(f"the simulated rig has no camera {camera!r}; use one of {', '.join(CAMERAS)}")
        if self._renderer is None:
            self._renderer = make_renderer(self.model, IMAGE_SIZE, IMAGE_SIZE)
        self._renderer.update_scene(self.data, camera)
        return self._renderer.render()

    def camera_info(self, camera: str) -> Dict[str, float]:
        """Pinhole intrinsics: width, height, fx, fy, cx, cy in pixels."""
        fovy = float(self.model.camera(camera).fovy[0])
        focal = IMAGE_SIZE / 2 / np.tan(np.radians(fovy) / 2)
        return {"width": IMAGE_SIZE, "height": IMAGE_SIZE, "fx": focal, "fy": focal, "cx": IMAGE_SIZE / 2,
                "cy": IMAGE_SIZE / 2}

    def close(self) -> None:
        """Free the renderer."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
