"""The dual-arm rig: two Pipers, a tray that takes both hands, a block in it, three cameras. Time passes only in `step`."""
from __future__ import annotations

import weakref
from collections import Counter
from dataclasses import dataclass
from typing import Dict, Optional, Tuple

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

from hybridvla_core.errors import HybridVLAError
from hybridvla_sim.piper.arm import PiperArm
from hybridvla_sim.piper.monitor import JointMonitor, JointMonitorLimits
from hybridvla_sim.piper.scene import ARMS, CAMERAS, FLANGE_M, MAX_WIDTH, TIP_M, build_model

GOAL_XY = (0.40, 0.0)            # m, middle of the marked place
GOAL_RADIUS = 0.03               # m
TRAY_REST_Z = 0.005
TASK = "carry the tray to the green mark with both hands"


@dataclass(frozen=True)
class TrayState:
    """The true state of what lies on the table, in the frame both arms share. yaw: rad."""

    position: np.ndarray
    yaw: float
    block: np.ndarray
    openings: Tuple[float, ...]


class PiperRig:
    """limits: what each arm's monitor counts against; width, height: pixels of an image."""

    def __init__(self, limits: Optional[Dict[str, JointMonitorLimits]] = None, width: int = 320, height: int = 240) -> None:
        self.model = build_model(width, height)
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

    def reset(self, seed: int, start: Dict[str, np.ndarray]) -> None:
        """The tray somewhere near the arms, which stand at `start` joints (6,) rad with open grippers."""
        rng = np.random.default_rng(seed)
        mujoco.mj_resetData(self.model, self.data)
        x, y, yaw = 0.25 + rng.uniform(-0.02, 0.03), rng.uniform(-0.02, 0.02), rng.uniform(-0.08, 0.08)
        turn = (np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2))
        self.data.joint("tray").qpos[:] = (x, y, TRAY_REST_Z, *turn)
        self.data.joint("block").qpos[:] = (x + rng.uniform(-0.015, 0.015), y + rng.uniform(-0.06, 0.06), 0.0265, *turn)
        for name, arm in self.arms.items():
            arm.place(start[name], MAX_WIDTH)
            self.monitors[name].restart()
        mujoco.mj_forward(self.model, self.data)
        self._debt = 0.0

    @property
    def time(self) -> float:
        return float(self.data.time)

    def step(self, seconds: float) -> None:
        """Let time pass in whole physics steps; what is left over is made up by the next call."""
        self._debt += seconds
        timestep = self.model.opt.timestep
        while self._debt > timestep / 2:
            self._debt -= timestep
            for arm in self.arms.values():
                arm.step(timestep)
            mujoco.mj_step(self.model, self.data)
        self._count_contacts()

    def judge(self, name: str, stamp: float, joints: np.ndarray) -> bool:
        """Show a joint command to the arm's monitor. False when it is no command at all."""
        monitor = self.monitors[name]
        if not np.isfinite(joints).all():
            monitor.broken("not_finite", "a joint is not a number")
            return False
        monitor.command(stamp, joints, *self.arms[name].tool_at(joints, FLANGE_M + TIP_M))
        return True

    @property
    def violations(self) -> Counter:
        """Commands and touches that no filter should have let through, by name."""
        total = Counter(self.contacts)
        for name, monitor in self.monitors.items():
            total.update({f"{name}/{key}": count for key, count in monitor.counts.items()})
        return total

    def _count_contacts(self) -> None:
        touching = set()
        for number in range(self.data.ncon):
            first, second = self.data.contact[number].geom1, self.data.contact[number].geom2
            owners = {int(self._owner[first]), int(self._owner[second])}
            if owners == {0, 1}:
                touching.add("arms_touch")
            elif self._table in (first, second) and owners != {-1}:
                touching.add(f"{ARMS[max(owners)]}/touches_table")
        for name in touching - self._touching:
            self.contacts[name] += 1
        self._touching = frozenset(touching)

    # The scene ------------------------------------------------------------------------------------------------------

    def tray_state(self) -> TrayState:
        pose = self.data.joint("tray").qpos
        w, x, y, z = pose[3:7]
        yaw = float(np.arctan2(2.0 * (w * z + x * y), 1.0 - 2.0 * (y * y + z * z)))
        openings = tuple(min(max(arm.gripper * 1e-6 / MAX_WIDTH, 0.0), 1.0) for arm in self.arms.values())
        return TrayState(pose[:3].copy(), yaw, self.data.joint("block").qpos[:3].copy(), openings)

    def success(self) -> bool:
        """The tray lies flat on the mark, both hands have let go, and the block is still in it."""
        state = self.tray_state()
        w, x, y, z = self.data.joint("tray").qpos[3:7]
        upright = Rotation.from_quat((x, y, z, w)).as_matrix()[2, 2] > 0.995
        offset = Rotation.from_euler("z", -state.yaw).apply(state.block - state.position)
        inside = abs(offset[0]) < 0.05 and abs(offset[1]) < 0.15 and 0.0 < offset[2] < 0.05
        return bool(np.linalg.norm(state.position[:2] - GOAL_XY) < GOAL_RADIUS and state.position[2] < 0.012 and upright
                    and inside and min(state.openings) > 0.8)

    # Cameras --------------------------------------------------------------------------------------------------------

    def copy_state(self, other: PiperRig) -> None:
        """Take over another rig's positions, for rendering."""
        self.data.qpos[:] = other.data.qpos
        mujoco.mj_forward(self.model, self.data)

    def render(self, camera: str) -> np.ndarray:
        """(height, width, 3) uint8 RGB."""
        if camera not in CAMERAS:
            raise HybridVLAError(f"the dual-arm rig has no camera {camera!r}; use one of {', '.join(CAMERAS)}")
        if self._renderer is None:
            self._renderer = mujoco.Renderer(self.model, self._size[1], self._size[0])
            weakref.finalize(self, self._renderer.close)  # while the interpreter still stands, whoever forgets it
        self._renderer.update_scene(self.data, camera)
        return self._renderer.render()

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
