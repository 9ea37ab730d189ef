"""A hostile policy, driver and operator, all driven by one random generator."""
from __future__ import annotations

import dataclasses
from typing import List

import numpy as np
from checker import ArmLimits
from scipy.spatial.transform import Rotation

from hybridvla_core.contracts import ArmState, ArmTarget, DeltaBase, GripperState, Heartbeat, Kind, PolicyState, Pose, Proposal
from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.safety.filter import SafetyFilter
from hybridvla_core.safety.status import State

POSES = ("inside", "inside", "inside", "near", "near", "outward", "far", "extremes", "wall", "tiny", "tiny", "spin",
         "wrap", "joints", "joints", "under", "base", "reach", "meet", "dense", "dense", "same")
SHORT = POSES + ("near",) * 40 + ("tiny",) * 10        # so that many motions can be carried to their end
KINDS = POSES + ("nonsense", "nonsense", "nonsense", "order", "hold")


class Adversary:
    """Drives a `SafetyFilter`; `report(output, measured)` receives what it sent in a tick, and the joints before it."""

    def __init__(self, config: RobotConfig, rng: np.random.Generator) -> None:
        self.config, self.rng = config, rng
        self.filter = SafetyFilter(config)
        self.now = 1000.0
        self.joints = {arm.name: np.array(arm.start_joints_rad) for arm in config.arms}
        self.silent_state = self.silent_policy = self.frozen = self.error = 0
        self.epoch, self.sequence, self.instruction, self.stamp = 1, 0, 1, 0.0
        self.proposals = 0
        self._publisher = ""
        self.output = None
        self._extreme = 1
        self._wall = rng.integers(0, 6)
        self._anchor = [self._inside(arm) for arm in config.arms]
        self._plain = [ArmLimits(dataclasses.asdict(arm)) for arm in config.arms]
        self._meeting = np.zeros(3)
        self.interrupted = False

    # ---- the world -----------------------------------------------------------------------------------------------

    def tick(self, report) -> None:
        self.now += self.config.dt
        for arm in self.config.arms:
            if self.silent_state <= 0:
                joints = self.joints[arm.name] + self.rng.normal(0.0, 1e-5, arm.dof)
                self.filter.update_arm_state(ArmState(arm.name, arm.joint_names, joints, None, None, 1.0,
                                                      GripperState.DONE, 0, self.error <= 0), self.now)
        if self.silent_policy <= 0 and self.rng.random() < 0.2:
            self.filter.on_heartbeat(Heartbeat(self.epoch, self.sequence, self.instruction, PolicyState.INFERRING),
                                     self.now, self._publisher)
        if self.config.deadman_required and self.rng.random() < 0.3:
            self.filter.on_deadman(self.silent_policy != 13, self.now)
        reported = {name: joints.copy() for name, joints in self.joints.items()}
        self.output = self.filter.tick(self.now)
        for command in self.output.arms:
            if command.publish and self.frozen <= 0:
                self.joints[command.name] += 0.1 * (command.joint_positions - self.joints[command.name])
        for name in ("silent_state", "silent_policy", "frozen", "error"):
            setattr(self, name, max(0, getattr(self, name) - 1))
        report(self.output, reported)

    @property
    def quiet(self) -> bool:
        """Whether everything that `mischief` began is over."""
        return not (self.silent_state or self.silent_policy or self.frozen or self.error)

    def wake(self) -> None:
        """Bring the filter back to a state in which it moves."""
        state = self.filter.state
        if state == State.STOPPED:
            self.filter.resume(self.now)
        elif state == State.INACTIVE and not self.filter.activate(True, self.now)[0]:
            self.filter.reenter(self.now)

    def mischief(self) -> None:
        """Let something outside the policy go wrong."""
        self.interrupted = True
        what = self.rng.integers(0, 10)
        if what == 0:
            self.silent_policy = int(self.rng.integers(20, 150))
        elif what == 1:
            self.silent_state = int(self.rng.integers(5, 80))
        elif what == 2:
            self.frozen = int(self.rng.integers(5, 200))
        elif what == 3:
            self.error = int(self.rng.integers(1, 60))
        elif what == 4:
            self.filter.stop(self.now)
        elif what == 5:
            self.filter.activate(False, self.now)
        elif what == 6:
            self.now += float(self.rng.choice([-0.5, 0.02, 0.08, 0.3, 2.0]))
        elif what == 7:
            self.epoch += 1
            self.sequence = 0
        elif what == 8:
            self.filter.set_speed_scale(float(self.rng.uniform(0.1, 1.0)))
        elif self.filter.state == State.INACTIVE:
            for arm in self.config.arms:
                reach = 0.02 * np.ones(arm.dof)
                self.joints[arm.name] = np.clip(self.rng.uniform(arm.joint_limits.lower_rad,
                                                                 arm.joint_limits.upper_rad),
                                                np.array(arm.start_joints_rad) - 15 * reach,
                                                np.array(arm.start_joints_rad) + 15 * reach)

    # ---- the policy ------------------------------------------------------------------------------------------------

    def propose(self, kinds=KINDS) -> bool:
        """Send one proposal of a random kind; returns whether it was taken."""
        kind = str(self.rng.choice(kinds))
        self._meeting = self.rng.uniform([0.2, -0.3, 0.05], [0.6, 0.3, 0.5])
        self.sequence += 1
        self.proposals += 1
        self.stamp = self.now
        dense = kind == "dense"
        rows = int(self.rng.integers(1, 6)) if dense else 1
        targets: List[ArmTarget] = []
        for _ in range(rows):
            for index, arm in enumerate(self.config.arms):
                position, quaternion = self._target(kind, index, arm)
                pose = Pose(position, quaternion)
                targets.append(ArmTarget(arm.name, arm.base_frame, pose, self.now, pose, DeltaBase.COMMANDED,
                                         float(self.rng.random())))
        proposal = Proposal(self.stamp, self.epoch, self.sequence, self.instruction, "fuzz", 10.0, tuple(targets),
                            Kind.ACTION, float(self.rng.uniform(0.02, 0.3)) if dense else 0.0, 0.05, 0.0, rows)
        if kind == "nonsense":
            proposal = self._spoil(proposal)
        elif kind == "order":
            proposal = dataclasses.replace(proposal, **[
                {"sequence": max(1, self.sequence - 2)}, {"stamp": self.now - 5.0}, {"instruction_sequence": 0},
                {"epoch": self.epoch + 1000}, {"observation_age": 9.0}][self.rng.integers(0, 5)])
        elif kind == "hold":
            proposal = dataclasses.replace(proposal, kind=Kind.HOLD, targets=())
        publisher = "/other" if self.rng.random() < 0.02 else self._publisher
        answer = self.filter.on_proposal(proposal, self.now, publisher)
        if proposal.epoch > self.epoch and answer.accepted:
            self.epoch, self._publisher = proposal.epoch, publisher      # adopted at rest: the old epoch is gone for good
        return answer.accepted

    def _target(self, kind: str, index: int, arm):
        rng, box = self.rng, arm.workspace
        low, high = np.array(box.lower_m), np.array(box.upper_m)
        quaternion = self._near_start(0.6)
        position = self._inside(arm)
        if kind == "outward":
            position = position + rng.normal(0, 1.0, 3)
        elif kind == "far":
            position = rng.normal(0, 30.0, 3)
        elif kind == "extremes":
            self._extreme = -self._extreme
            position = np.where(rng.random(3) < 0.5, low, high) if self._extreme > 0 else low
        elif kind in ("wall", "tiny"):
            axis, upper = divmod(int(self._wall), 2)
            self._anchor[index] = np.clip(self._anchor[index] + rng.normal(0, 0.02 if kind == "wall" else 5e-4, 3),
                                          low, high)
            position = self._anchor[index].copy()
            position[axis] = (high if upper else low)[axis] + rng.normal(0, 1e-3)
        elif kind == "spin":
            quaternion = rng.normal(0, 1, 4)
            quaternion /= np.linalg.norm(quaternion)
        elif kind == "wrap":        # about half a turn, a little more or less, as either of its two quaternions
            axis = rng.normal(0, 1, 3)
            half = 0.5 * (np.pi + rng.normal(0, 0.02))
            turn = np.append(np.sin(half) * axis / np.linalg.norm(axis), np.cos(half))
            quaternion = _product(turn, np.array([1.0, 0, 0, 0])) * rng.choice([-1.0, 1.0])
        elif kind == "joints":      # the pose at random joints, one of them beyond its stop
            joints = rng.uniform(arm.joint_limits.lower_rad, arm.joint_limits.upper_rad)
            if rng.random() < 0.5:
                joints = np.array(arm.start_joints_rad) + rng.normal(0, 0.2, arm.dof)
            which = rng.integers(0, arm.dof)
            joints[which] = rng.choice([arm.joint_limits.lower_rad[which], arm.joint_limits.upper_rad[which]])
            joints[which] += rng.normal(0, 0.05)
            frame = self._plain[index].frames(joints)[-1]
            position, quaternion = frame[:3, 3].copy(), Rotation.from_matrix(frame[:3, :3]).as_quat()
        elif kind == "meet":        # all tools at one point of the shared frame
            position = self._meeting - np.array(arm.mount.position_m)
        elif kind == "near":        # a step of 1 mm to 10 mm, or to 0.3 m
            here = self.output.arms[index].pose if self.output is not None else None
            if here is not None:
                way = rng.normal(0, 1, 3)
                quaternion = _product(_turn(rng.normal(0, 0.05, 3)), here.quaternion)
                longest = -0.5 if rng.random() < 0.1 else -2.0
                position = here.position + way / np.linalg.norm(way) * 10.0 ** rng.uniform(-3.0, longest)
        elif kind == "under":
            position[2] = -0.5
            quaternion = self._near_start(1.6)
        elif kind == "base":
            position = rng.normal(0, 0.1, 3) + [0.0, 0.0, 0.2]
        elif kind == "reach":
            way = rng.normal(0, 1, 3)
            position = np.array([0.0, 0.0, 0.33]) + 1.2 * way / np.linalg.norm(way)
        elif kind == "same":
            position = self._anchor[index]
        return position, quaternion

    def _spoil(self, proposal: Proposal) -> Proposal:
        bad = self.rng.choice([np.nan, np.inf, -np.inf, 1e30, -1e30])
        first = proposal.targets[0]
        position, quaternion = first.target.position.copy(), first.target.quaternion.copy()
        which = self.rng.integers(0, 9)
        if which == 0:
            position[self.rng.integers(0, 3)] = bad
        elif which == 1:
            quaternion[self.rng.integers(0, 4)] = bad
        elif which == 2:
            quaternion = np.zeros(4)
        elif which == 3:
            quaternion = quaternion * self.rng.uniform(0.0, 3.0)
        elif which == 4:
            return dataclasses.replace(proposal, targets=proposal.targets[1:])
        elif which == 5:
            return dataclasses.replace(proposal, valid_for=float(bad))
        elif which == 6:
            return dataclasses.replace(proposal, action_period=float(bad))
        elif which == 7:
            return dataclasses.replace(proposal, targets=(dataclasses.replace(first, frame="nowhere"),)
                                       + proposal.targets[1:])
        else:
            return dataclasses.replace(proposal, targets=(dataclasses.replace(first, gripper=float(bad)),)
                                       + proposal.targets[1:])
        target = dataclasses.replace(first, target=Pose(position, quaternion))
        return dataclasses.replace(proposal, targets=(target,) + proposal.targets[1:])

    def _inside(self, arm) -> np.ndarray:
        low, high = np.array(arm.workspace.lower_m), np.array(arm.workspace.upper_m)
        return self.rng.uniform(low, high)

    def _near_start(self, angle: float) -> np.ndarray:
        """Return the orientation of a tool that points down, turned by up to `angle`."""
        return _product(_turn(self.rng.normal(0, angle / 2.0, 3)), np.array([1.0, 0, 0, 0]))


def _turn(vector: np.ndarray) -> np.ndarray:
    """Return the quaternion xyzw of a rotation vector."""
    half = 0.5 * np.linalg.norm(vector)
    return np.append(vector * (0.5 * np.sinc(half / np.pi)), np.cos(half))


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the Hamilton product of quaternions xyzw."""
    (ax, ay, az, aw), (bx, by, bz, bw) = a.tolist(), b.tolist()
    return np.array([aw * bx + ax * bw + ay * bz - az * by, aw * by - ax * bz + ay * bw + az * bx,
                     aw * bz + ax * by - ay * bx + az * bw, aw * bw - ax * bx - ay * by - az * bz])
