"""The dual-arm rig: two Pipers and three cameras. A task adds what is on the table. Time passes only in `step`."""
from __future__ import annotations

from collections import Counter
from typing import Dict, Optional, Tuple

import mujoco
import numpy as np

from hybridvla_core.contracts import ArmState, Pose
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.safety.status import ArmCommand
from hybridvla_sim.drawing import make_renderer
from hybridvla_sim.piper.arm import MDEG, MOVE_J, PiperArm
from hybridvla_sim.piper.monitor import JointMonitor, JointMonitorLimits
from hybridvla_sim.piper.scene import ARMS, CAMERAS, FLANGE_M, MAX_WIDTH, TIP_M, build_model
from hybridvla_sim.task import Task

JOINT_NAMES = tuple(f"joint{number}" for number in range(6))


class PiperRig:
    """Two arms at the table.

    Args:
        task: Task that furnishes the table; `world` holds its objects in this rig.
        limits: Limits that each arm's monitor checks, by arm.
        width: Width of an image, pixels.
        height: Height of an image, pixels.
        start: Start joints (6,) rad by arm, used by `reset` unless it is given others.
    """

    def __init__(self, task: Task[PiperRig], limits: Optional[Dict[str, JointMonitorLimits]] = None, width: int = 320,
                 height: int = 240, start: Optional[Dict[str, np.ndarray]] = None) -> None:
        self.task, self._start = task, start or {name: np.zeros(6) for name in ARMS}
        self.model = build_model(task.furnish, width, height)
        self.data = mujoco.MjData(self.model)
        self.arms = {name: PiperArm(self.model, self.data, name) for name in ARMS}
        self.monitors = {name: JointMonitor((limits or {}).get(name)) for name in ARMS}
        self.contacts: Counter = Counter()
        self._touching: frozenset = frozenset()
        self._owner = np.full(self.model.ngeom, -1)
        for number, arm in enumerate(self.arms.values()):
            self._owner[arm.index.geoms] = number
        self._table = self.model.geom("table").id
        self._size = (width, height)
        self._renderer: Optional[mujoco.Renderer] = None
        self._debt = 0.0
        self.world = task.world(self)

    def reset(self, rng: np.random.Generator, start: Optional[Dict[str, np.ndarray]] = None) -> None:
        """Draws a new scene of the task, with the arms at `start` joints (6,) rad and the grippers open."""
        start = self._start if start is None else start
        mujoco.mj_resetData(self.model, self.data)
        self.world.reset(rng)
        for name, arm in self.arms.items():
            arm.place(start[name], MAX_WIDTH)
            self.monitors[name].restart()
        mujoco.mj_forward(self.model, self.data)
        self._debt = 0.0

    @property
    def time(self) -> float:
        return float(self.data.time)

    def step(self, seconds: float) -> None:
        """Advance time in whole physics steps; the next call makes up for the remainder."""
        self._debt += seconds
        timestep = self.model.opt.timestep
        while self._debt > timestep / 2:
            self._debt -= timestep
            for arm in self.arms.values():
                arm.step(timestep)
            mujoco.mj_step(self.model, self.data)
            self.world.passed(timestep)
        self._count_contacts()

    def arm_states(self) -> Tuple[ArmState, ...]:
        """Returns the states that each arm's adapter would derive from its driver's reports."""
        states = []
        for name, arm in self.arms.items():
            joints = self.data.qpos[arm.index.qpos].copy()
            states.append(ArmState(
                name=name, joint_names=JOINT_NAMES, joint_positions=joints, joint_velocities=arm.speeds,
                pose=Pose(*arm.tool_at(joints, FLANGE_M + TIP_M)), gripper=min(max(arm.gripper * 1e-6 / MAX_WIDTH, 0.0), 1.0)))
        return tuple(states)

    def send(self, command: ArmCommand) -> None:
        """Executes a command of the filter (joints and gripper opening), as the real arms' adapter would have their driver do."""
        arm = self.arms[command.name]
        if command.publish and self.judge(command.name, self.time, command.joint_positions):
            arm.motion_ctrl(MOVE_J, 100.0)
            arm.joint_ctrl(np.round(command.joint_positions / MDEG).astype(int).tolist())
        if command.gripper is not None:
            arm.gripper_ctrl(int(round(command.gripper * MAX_WIDTH * 1e6)))

    def judge(self, name: str, stamp: float, joints: np.ndarray) -> bool:
        """Pass a joint command to the arm's monitor. Returns False if it is not a command at all."""
        monitor = self.monitors[name]
        if not np.isfinite(joints).all():
            monitor.broken("not_finite", "a joint is not a number")
            return False
        monitor.command(stamp, joints, *self.arms[name].tool_at(joints, FLANGE_M + TIP_M))
        return True

    @property
    def broken(self) -> int:
        """Number of commands and contacts so far that no filter should have let through."""
        return sum(self.violations.values())

    @property
    def violations(self) -> Counter:
        """Counts, by name, of commands and contacts that no filter should have let through."""
        total = Counter(self.contacts)
        for name, monitor in self.monitors.items():
            total.update({f"{name}/{key}": count for key, count in monitor.counts.items()})
        return total

    def _count_contacts(self) -> None:
        touching = set()
        pairs = self.data.contact.geom
        for pair, owners in zip(pairs.tolist(), self._owner[pairs].tolist()):
            if min(owners) == 0 and max(owners) == 1:
                touching.add("arms_touch")
            elif self._table in pair and max(owners) >= 0:
                touching.add(f"{ARMS[max(owners)]}/touches_table")
        for name in touching - self._touching:
            self.contacts[name] += 1
        self._touching = frozenset(touching)

    # Cameras --------------------------------------------------------------------------------------------------------

    def copy_state(self, other: PiperRig) -> None:
        """Copy another rig's positions, for rendering."""
        self.data.qpos[:] = other.data.qpos
        self.world.copy_state(other.world)
        mujoco.mj_forward(self.model, self.data)

    def render(self, camera: str) -> np.ndarray:
        """Render an image (height, width, 3) uint8 RGB."""
        if camera not in CAMERAS:
            raise HybridVLAError(f"the dual-arm rig has no camera {camera!r}; use one of {', '.join(CAMERAS)}")
        if self._renderer is None:
            self._renderer = make_renderer(self.model, self._size[1], self._size[0])
        self._renderer.update_scene(self.data, camera)
        return self._renderer.render()

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
