"""The commanded trajectory of all arms: one step per tick, each with a proven way to stop.

Invariant: `self._braking` is a trajectory from the present command to rest that keeps every limit. A step is taken only if
it and the braking that would follow it keep every limit at every tick. Otherwise a smaller step is tried, and finally the
stored braking continues. Whatever arrives, what is sent never needs luck.
"""
from __future__ import annotations

from typing import List, Optional, Set, Tuple

import eigenpy
import numpy as np

from hybridvla_core.geometry import rotations
from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.robots.kinematics import ArmKinematics
from hybridvla_core.safety.limits.limit import Limit
from hybridvla_core.safety.motion.joint_way import JointWay
from hybridvla_core.safety.motion.judge import MotionJudge
from hybridvla_core.safety.motion.last_check import LastCheck
from hybridvla_core.safety.motion.pursuit import Goal, Pursuit
from hybridvla_core.safety.motion.solver import RATE_SHARE, StepSolver
from hybridvla_core.safety.status import Reason

ATTEMPTS = (1.0, 0.5, 0.2)        # shares of the wanted step mixed into the braking step, tried in turn
ARRIVED = (2e-6, 2e-5)            # m and rad from the goal within which braking ends the motion
LOOK_TICKS = 10                   # ticks between checks for a singularity that is not near
POSTURE_RATE = 2.0                # rate towards the posture within the null space, 1/s
POSTURE_SPEED = 0.3               # highest speed of the fastest joint towards it, rad/s


class Motion:
    """The trajectory as commanded; every step is checked before it is taken. Arrays handed out are read-only.

    Attributes:
        joints: (A, dof) joints as commanded last, rad.
        positions: (A, 3) positions of the tools in their arms' base frames, m.
        rotations: (A, 3, 3) rotations of the tools.
        twist: (A, 6) twists of the last tick, m/s over rad/s.
        acceleration: (A, 6) accelerations of the last tick, m/s^2 over rad/s^2.
        factor: share of the speeds that interfering limits have left, in (0, 1].
        limited: names of the limits that shaped the last step.
        reasons: flags of these limits.
    """

    def __init__(self, config: RobotConfig) -> None:
        self._config = config
        self._dt = config.dt
        self._arms = [ArmKinematics(arm) for arm in config.arms]
        self._solvers = [StepSolver(arm, config.dt) for arm in config.arms]
        self._pursuit = Pursuit(config)
        self._way = JointWay(config, self._arms)
        self._judge = MotionJudge(config, self._arms)
        self._last_check = LastCheck(config)
        self._joint_speed = RATE_SHARE * np.array([arm.joint_limits.velocity_rad_s for arm in config.arms])
        self.limited: Set[str] = set()
        self.reasons = Reason.NONE
        self.factor = 1.0
        self.positions: np.ndarray
        self.rotations: np.ndarray
        self.seed(np.array([arm.start_joints_rad for arm in config.arms]))

    def seed(self, joints: np.ndarray) -> None:
        """Starts again, at rest, from joints (A, dof) rad."""
        self.joints = _frozen(np.array(joints, dtype=float))
        self._previous = self.joints
        self._place()
        self.twist = np.zeros((len(self._arms), 6))
        self.acceleration = np.zeros_like(self.twist)
        self._braking = np.zeros((len(self._arms), 0, self.joints.shape[1]))
        self._bends = np.zeros_like(self.joints)
        self.factor = 1.0
        self._dexterity, self._look = np.full(len(self._arms), np.inf), np.zeros(len(self._arms), dtype=int)
        self._last_check.restart(self.positions, self.rotations, self.joints)

    @property
    def limits(self) -> Tuple[Limit, ...]:
        return self._judge.limits

    @property
    def relaxed(self) -> bool:
        """Whether positional limits that are already broken only must not be broken further."""
        return self._judge.relaxed

    @relaxed.setter
    def relaxed(self, relaxed: bool) -> None:
        self._judge.relaxed = relaxed

    def lead(self, led: bool) -> None:
        """Begins or ends a path along joints, on which singularities do not matter."""
        self._judge.led = led

    def forgive(self, joints: Optional[np.ndarray]) -> None:
        """While relaxed, lets limits be broken as far as joints (A, dof) rad break them. None: as far as the command does."""
        self._judge.forgiven = joints

    @property
    def at_rest(self) -> bool:
        """Whether nothing moves and nothing is left to brake."""
        return self._braking.shape[1] == 0 and np.array_equal(self.joints, self._previous)

    def pose_of(self, joints: np.ndarray) -> List[Tuple[np.ndarray, np.ndarray]]:
        """Returns tool position and rotation matrix of every arm at joints (A, dof)."""
        return [arm.pose(q) for arm, q in zip(self._arms, joints)]

    def margins(self, joints: Optional[np.ndarray] = None) -> List[Tuple[Limit, np.ndarray]]:
        """Returns the margins of every limit, at the last steps or, at rest, at joints (A, dof)."""
        if joints is not None:
            return self._judge.margins_at(joints)
        return self._judge.margins(np.stack((2.0 * self._previous - self.joints, self._previous, self.joints), axis=1))

    def places(self, joints: np.ndarray) -> List[Tuple[Limit, np.ndarray]]:
        """Returns the limits on where joints (A, dof) rad are, with their margins; singularities do not belong to them."""
        return self._judge.places(joints)

    def error(self, goal: Goal) -> np.ndarray:
        """Returns (A, 6): goal minus command, m over rotation vector in the base frame."""
        error = np.empty((len(self._arms), 6))
        error[:, :3] = goal.positions - self.positions
        for index in range(len(self._arms)):
            error[index, 3:] = rotations.log(goal.rotations[index] @ self.rotations[index].T)
        return error

    def step(self, goal: Optional[Goal], scale: float = 1.0, posture: Optional[np.ndarray] = None) -> bool:
        """Moves one tick towards the goal at `scale` in (0, 1] of the speeds, or to rest; False if nothing safe could be sent."""
        self.limited.clear()
        self.reasons = Reason.NONE
        if goal is None or scale <= 0.0:
            return self._brake()
        error = self.error(goal)
        if self._arrived(error):
            return self._brake()
        wanted, bend = self._wanted(error, scale * self.factor * self._singularity_scale(), goal.seconds, posture)
        if wanted is None:
            self.reasons |= Reason.SOLVER
            self.factor = max(0.5 * self.factor, 0.02)
            return self._brake()
        return self._attempt(wanted, bend)

    def _attempt(self, wanted: np.ndarray, bend: np.ndarray) -> bool:
        """Takes as much of the step to the wanted joints (A, dof) as every limit allows; brakes if nothing is allowed."""
        braked = self._braking[:, 0] if self._braking.shape[1] else self.joints
        for attempt in ATTEMPTS:
            candidate = braked + attempt * (wanted - braked)
            broken, path = self._judge.first_broken(self._previous, self.joints, candidate, bend)
            if broken is None:
                self.factor = min(1.0, self.factor * 1.02 + 0.001) if attempt == 1.0 else self.factor
                if self._take(candidate, path):
                    return True
                break
            self.limited.add(broken.name)
            self.reasons |= broken.reason
            if broken.positional or attempt == ATTEMPTS[-1]:
                self.factor = max(0.8 * self.factor, 0.01)
        return self._brake()

    def step_joints(self, goal: np.ndarray, scale: float) -> bool:
        """Moves one tick along the straight joint-space path to goal (A, dof) rad, all joints on one time scale."""
        self.limited.clear()
        self.reasons = Reason.NONE
        velocity = self._way.velocity(self.joints, self._previous, goal, scale * self.factor)
        if velocity is None:
            return self._brake()
        return self._attempt(self.joints + velocity * self._dt, np.zeros_like(self.joints))

    def repose(self, seed: np.ndarray) -> bool:
        """At rest, switches to another joint solution of the same tool poses, from seed (A, dof) rad. False: kept the old one."""
        joints = np.array(seed, dtype=float)
        for index, arm in enumerate(self._arms):
            for _ in range(12):
                position, matrix = arm.pose(joints[index])
                error = np.concatenate((self.positions[index] - position,
                                        rotations.log(self.rotations[index] @ matrix.T)))
                if np.abs(error).max() < 1e-10:
                    break
                jacobian = arm.jacobian(joints[index])
                joints[index] += jacobian.T @ eigenpy.LDLT(jacobian @ jacobian.T + 1e-9 * np.eye(6)).solve(error)
            else:
                return False
        if not self.at_rest or not self._judge.inside(joints):
            return False
        self.joints = self._previous = _frozen(joints)
        self._last_check.restart(self.positions, self.rotations, joints)
        return True

    def _wanted(self, error: np.ndarray, scale: float, seconds: float,
                posture: Optional[np.ndarray]) -> Tuple[Optional[np.ndarray], np.ndarray]:
        dt = self._dt
        last = self.joints - self._previous
        scale = min(scale, self._joint_scale(last / dt))
        jacobians = [arm.jacobian(q) for arm, q in zip(self._arms, self.joints)]
        loads = np.stack([solver.loads(jacobian) for solver, jacobian in zip(self._solvers, jacobians)])
        twist = self._pursuit.next_twist(error, self.twist, self.acceleration, scale, seconds, loads)
        braking_s = dt * max(self._braking.shape[1], self._judge.braking_ticks(twist, last / dt))
        wanted, bends = np.empty_like(self.joints), np.zeros_like(self.joints)
        share = 1.0
        for _ in range(2):
            shares = []
            for index, (arm, solver) in enumerate(zip(self._arms, self._solvers)):
                q = self.joints[index]
                drift = arm.drift(q, last[index] / dt)
                lower, upper = solver.bounds(q, last[index], braking_s)
                step, kept, bends[index] = solver.step(jacobians[index], share * twist[index] * dt - 0.5 * dt * dt * drift,
                                                       drift, self._lean(index, q, twist, posture), lower, upper)
                if step is None:
                    return None, bends
                if kept < 0.999:
                    self.limited.add("joint_step")
                shares.append(kept)
                wanted[index] = q + step
            if not self._config.coupled or len(shares) == 1 or min(shares) > 0.999:
                break
            share *= min(shares)
        self._bends = bends
        return wanted, bends

    def _joint_scale(self, velocity: np.ndarray) -> float:
        """Returns the share of the tools' speed limits at which no joint gets too fast while the tools brake; (A, dof) rad/s."""
        rate = self._pursuit.rate(self.twist)
        if rate < 0.05:
            return 1.0
        # Looking ahead slows the motion down in time instead of shrinking the step suddenly.
        ahead = velocity + self._bends * (0.5 * self._dt * self._braking.shape[1])
        fastest = float((np.maximum(np.abs(velocity), np.abs(ahead)) / self._joint_speed).max())
        return rate / max(fastest, rate)

    def _singularity_scale(self) -> float:
        """Returns a scale that falls towards a singularity, on the way in only. Checked at every tick when near one."""
        scale = 1.0
        for index, (arm, config) in enumerate(zip(self._arms, self._config.arms)):
            rules = config.singularity
            self._look[index] -= 1
            if self._look[index] > 0 and self._dexterity[index] > 2.0 * rules.slow_below:
                continue
            before = self._dexterity[index]
            now = float(np.linalg.svd(arm.jacobian(self.joints[index]), compute_uv=False)[-1])
            self._dexterity[index], self._look[index] = now, LOOK_TICKS
            if now < rules.slow_below and now < before:
                scale = min(scale, max(0.05, (now - rules.stop_below) / (rules.slow_below - rules.stop_below)))
        if scale < 1.0:
            self.limited.add("singularity")
            self.reasons |= Reason.SINGULARITY
        return scale

    def _lean(self, index: int, q: np.ndarray, twist: np.ndarray, posture: Optional[np.ndarray]) -> np.ndarray:
        """Returns a null-space step (dof,) towards `posture` (A, dof) rad: slow, and only as far as the tool moves anyway."""
        if posture is None:
            return np.zeros_like(q)
        limits = self._config.arms[index].cartesian_limits
        moving = min(1.0, rotations.length(twist[index, :3]) / limits.speed_m_s
                     + rotations.length(twist[index, 3:]) / limits.rotation_speed_rad_s)
        lean = POSTURE_RATE * (posture[index] - q)
        return lean * (min(1.0, POSTURE_SPEED / max(1e-9, float(np.abs(lean).max()))) * moving * self._dt)

    def _arrived(self, error: np.ndarray) -> bool:
        close = np.abs(error[:, :3]).max() < ARRIVED[0] and np.abs(error[:, 3:]).max() < ARRIVED[1]
        return bool(close and np.abs(self.twist).max() < 1e-3)

    def _brake(self) -> bool:
        if not self._braking.shape[1]:
            return self._take(self.joints.copy(), self._braking)
        return self._take(self._braking[:, 0], self._braking[:, 1:])

    def _take(self, joints: np.ndarray, braking: np.ndarray) -> bool:
        """Makes the step, unless the last check objects."""
        poses = self.pose_of(joints)
        positions, matrices = (np.array(parts) for parts in zip(*poses))
        if not self._last_check.passes(positions, matrices, joints, self.relaxed):
            self.reasons |= Reason.LAST_CHECK
            self.limited.add(f"last_check/{self._last_check.objection}")
            return False
        twist = np.empty_like(self.twist)
        twist[:, :3] = (positions - self.positions) / self._dt
        for index in range(len(poses)):
            twist[index, 3:] = rotations.log(matrices[index] @ self.rotations[index].T) / self._dt
        self.acceleration = (twist - self.twist) / self._dt
        self.twist = twist
        self._previous, self.joints, self._braking = self.joints, _frozen(joints.copy()), braking
        self.positions, self.rotations = _frozen(positions), _frozen(matrices)
        self._last_check.sent(positions, matrices, joints)
        return True

    def _place(self) -> None:
        poses = self.pose_of(self.joints)
        self.positions = _frozen(np.stack([position for position, _ in poses]))
        self.rotations = _frozen(np.stack([matrix for _, matrix in poses]))


def _frozen(array: np.ndarray) -> np.ndarray:
    """Makes an array that is handed out read-only."""
    array.setflags(write=False)
    return array
