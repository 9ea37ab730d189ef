"""The robot behind the stand-in's topics: physics in real time, modes, reflex, recovery, controllers. No ROS messages."""
from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Sequence, Set

import numpy as np

from hybridvla_core.robots.config import RobotConfig
from hybridvla_ros.stand_ins.franka.joint_door import JointDoor
from hybridvla_sim.fr3.drive import Drive, FrankaDrive, contact_force
from hybridvla_sim.fr3.rig import MAX_WIDTH, Rig, RigConfig
from hybridvla_sim.monitor import MonitorLimits
from hybridvla_sim.task import Task

if TYPE_CHECKING:
    import mujoco

    from hybridvla_sim.fr3.impedance import ImpedanceConfig
    from hybridvla_sim.fr3.scene import SceneIndex

OTHER, IDLE, MOVE, GUIDING, REFLEX, USER_STOPPED, RECOVERY = range(7)
CONTROL_PERIOD = 0.001
CONTROLLERS: Dict[str, Drive] = {
    "cartesian_impedance_example_controller": Drive.IMPEDANCE,
    "position_joint_trajectory_controller": Drive.TRAJECTORY,
    "effort_joint_trajectory_controller": Drive.TRAJECTORY}
FORCE_SHARE = 0.06      # low-pass of the external force in each slice
RESTART_S = 0.01        # between two controllers the robot ends one motion and begins another: IDLE meanwhile
BUSY = "libfranka: command not possible in the current mode"


class TriggerRate:
    """Decides when the state controller publishes: strictly later than a period after the last time, on the 1 ms grid, with the
    clock set anew each time, so the actual rate is lower than the requested one (franka_hw trigger_rate.cpp)."""

    def __init__(self, rate: float) -> None:
        self._period, self._last = 1.0 / rate, 0.0

    def due(self, before: float, now: float) -> bool:
        first = max(int(np.floor((self._last + self._period) / CONTROL_PERIOD + 1e-6)) + 1,
                    int(round(before / CONTROL_PERIOD)) + 1)
        if first * CONTROL_PERIOD > now + 1e-9:
            return False
        self._last = first * CONTROL_PERIOD
        return True


class FrankaRobot:
    """The robot, with one lock around everything; `step` lets time pass."""

    def __init__(self, task: Task[Rig], config: RobotConfig, seed: int) -> None:
        self.lock = threading.RLock()
        self.drive: Any = None
        self.rig = Rig(task, RigConfig(limits=MonitorLimits.of(config.arms[0]), gripper_speed=0.1), self._make_drive)
        model = self.rig.model
        self.joint_door = JointDoor(config)
        arm = {model.body(f"fr3_link{i}").id for i in range(8)} | {model.body(name).id for name in (
            "hand", "left_finger", "right_finger")}
        self._arm_bodies = frozenset(arm)
        self.seed, self.mode, self.time = seed, IDLE, 0.0
        self.loaded: Set[str] = {"franka_state_controller"}
        self.running: Set[str] = {"franka_state_controller"}
        self.force, self.upper_force = np.zeros(3), np.array([20.0, 20.0, 20.0])
        self.current_errors: List[str] = []
        self.last_errors: List[str] = []
        self._begins_at = np.inf   # when the motion of the running controllers begins, s
        self._faulty = False       # franka_hw's own flag: controllers have no effect until a recovery
        self.gripper_stuck = False
        self.state_silent = False  # franka_states ends, joint_states go on
        self.reset(seed)

    def _make_drive(self, model: mujoco.MjModel, data: mujoco.MjData, index: SceneIndex, _config: ImpedanceConfig
                    ) -> FrankaDrive:
        """Returns the same drive for the rig's life; a new scene only makes it latch where the arm is."""
        if self.drive is None:
            self.drive = FrankaDrive(model, data, index)
        self.drive.start()
        return self.drive

    # Time ----------------------------------------------------------------------------------------------------------

    def reset(self, seed: int) -> None:
        with self.lock:
            self.rig.reset(np.random.default_rng(seed))
            self.joint_door.monitor.restart()
            self.seed, self.force = seed, np.zeros(3)

    def step(self, seconds: float) -> None:
        """Runs physics, then the reaction of the robot's own safety."""
        with self.lock:
            self.rig.step(seconds)
            self.time += seconds
            if self.time >= self._begins_at - 1e-9:
                self._settle()
            pull = contact_force(self.rig.model, self.rig.data, self._arm_bodies) + self.drive.hand_force
            self.force = self.force + FORCE_SHARE * (pull - self.force)
            if self.mode == MOVE and (np.abs(self.force) > self.upper_force).any():
                self.fail("cartesian_reflex")

    @property
    def broken(self) -> bool:
        return self.drive.broken

    # Modes ---------------------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Sets the mode and drive that follow from errors and running controllers."""
        self._begins_at = np.inf
        moving = [name for name in self.running if name in CONTROLLERS]
        if self.mode in (REFLEX, USER_STOPPED, GUIDING):
            return
        if moving and not self._faulty:
            self.mode = MOVE
            self.drive.switch(CONTROLLERS[moving[0]])
        else:
            self.mode = IDLE
            self.drive.switch(Drive.BRAKE)

    def fail(self, error: str) -> None:
        """Causes a reflex: the arm brakes, the node lives on, controllers stay `running` without effect."""
        with self.lock:
            self.mode, self._faulty = REFLEX, True
            self.current_errors, self.last_errors = [error], [error]
            self.drive.switch(Drive.BRAKE)

    def user_stop(self, pressed: bool) -> None:
        """Presses or releases the user stop. Once released, the state looks normal again, though a recovery is still needed."""
        with self.lock:
            if pressed:
                self.mode, self._faulty = USER_STOPPED, True
                self.drive.switch(Drive.BRAKE)
            elif self.mode == USER_STOPPED:
                self.mode = IDLE

    def guide(self, on: bool) -> None:
        """Starts or ends hand guiding by the buttons at the arm: the arm floats, and motion of controllers ends."""
        with self.lock:
            if on:
                self.mode, self._faulty = GUIDING, True
                self.drive.switch(Drive.FREE)
            elif self.mode == GUIDING:
                self.mode = IDLE
                self.drive.switch(Drive.BRAKE)

    def recover(self) -> str:
        """Runs automatic error recovery; afterwards running controllers are started again. Returns an error or ''."""
        with self.lock:
            if self.mode in (USER_STOPPED, GUIDING):
                return BUSY
            self.mode, self._faulty, self.current_errors = IDLE, False, []
            self.force = np.zeros(3)
            self._settle()
            return ""

    # Controllers ---------------------------------------------------------------------------------------------------

    def load(self, name: str, typed: bool) -> bool:
        with self.lock:
            if name in self.loaded or not typed or name not in CONTROLLERS:
                return False
            self.loaded.add(name)
            return True

    def unload(self, name: str) -> bool:
        with self.lock:
            if name not in self.loaded or name in self.running:
                return False
            self.loaded.discard(name)
            return True

    def switch(self, start: Sequence[str], stop: Sequence[str], strict: bool) -> bool:
        """Switches controllers: one claim on the joints at a time; STRICT refuses all, BEST_EFFORT does what it can."""
        with self.lock:
            bad_stop = [name for name in stop if name not in self.running]
            bad_start = [name for name in start if name not in self.loaded]
            if strict and (bad_stop or bad_start):
                return False
            after = (self.running - set(stop)) | {name for name in start if name in self.loaded}
            if sum(name in CONTROLLERS for name in after) > 1:
                return False
            changed = {name for name in after ^ self.running if name in CONTROLLERS}
            self.running = after
            if changed & after and self.mode in (IDLE, MOVE) and not self._faulty:
                # The motion ends, and with the first cycle of the next motion controllers restart: earlier targets are gone.
                self.mode, self._begins_at = IDLE, self.time + RESTART_S
                self.drive.switch(Drive.BRAKE)
            elif changed or set(start) & set(CONTROLLERS):
                self._settle()
            return True

    @property
    def commanding(self) -> bool:
        return any(name in CONTROLLERS for name in self.running) and not self._faulty

    def configure(self, change: Callable[[], None]) -> str:
        """Changes settings of the robot; refused while a controller commands it."""
        with self.lock:
            if self.commanding or self.mode not in (IDLE, REFLEX):
                return BUSY
            change()
            return ""

    def take_trajectory(self, number: int, times: np.ndarray, positions: np.ndarray, velocities: Optional[np.ndarray]) -> None:
        """Passes a trajectory on (see `FrankaDrive.set_trajectory`). number: the sender's number of the message."""
        with self.lock:
            self.joint_door.trajectory(self.time, number, times, positions)
            self.drive.set_trajectory(times, positions, velocities)

    # Gripper and things --------------------------------------------------------------------------------------------

    @property
    def width(self) -> float:
        return float(self.rig.finger_positions.sum())

    def drive_gripper(self, width: float, speed: float) -> None:
        with self.lock:
            if not self.gripper_stuck:
                self.rig.config = replace(self.rig.config, gripper_speed=float(np.clip(speed, 0.01, 0.2)))
                if width > 0.0:  # the drive begins where the fingers are, not where it pressed towards in a grasp
                    self.rig.rest_fingers()
                self.rig.command_gripper(width / MAX_WIDTH)

    def drop_held(self) -> bool:
        """Drops what is between the fingers onto the table."""
        with self.lock:
            return self.rig.world.drop_held()
