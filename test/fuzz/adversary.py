"""A policy, a driver and an operator that mean ill, all from one random generator."""
from __future__ import annotations

import dataclasses
from typing import List

import numpy as np

from hybridvla_core.contracts import ArmState, ArmTarget, DeltaBase, GripperState, Heartbeat, Kind, PolicyState, Pose, Proposal
from hybridvla_core.safety.config import RobotConfig
from hybridvla_core.safety.filter import SafetyFilter
from hybridvla_core.safety.status import State

KINDS = ("inside", "inside", "inside", "outward", "far", "extremes", "wall", "spin", "under", "base", "reach", "tiny",
         "nonsense", "nonsense", "order", "hold", "dense", "dense", "same")
SETTLED = 400      # ticks a proposal is given to be carried out


class Adversary:
    """Plays `SafetyFilter` for some ticks; `report(output)` receives what it sent."""

    def __init__(self, config: RobotConfig, rng: np.random.Generator) -> None:
        self.config, self.rng = config, rng
        self.filter = SafetyFilter(config)
        self.now = 1000.0
        self.joints = {arm.name: np.array(arm.start_joints_rad) for arm in config.arms}
        self.silent_state = self.silent_policy = self.frozen = self.error = 0
        self.epoch, self.sequence, self.instruction, self.stamp = 1, 0, 1, 0.0
        self.proposals = 0
        self.output = None
        self._extreme = 1
        self._wall = rng.integers(0, 6)
        self._anchor = [self._inside(arm) for arm in config.arms]

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
                                     self.now)
        if self.config.deadman_required and self.rng.random() < 0.3:
            self.filter.on_deadman(self.silent_policy != 13, self.now)
        self.output = self.filter.tick(self.now)
        for command in self.output.arms:
            if command.publish and self.frozen <= 0:
                self.joints[command.name] += 0.1 * (command.joint_positions - self.joints[command.name])
        for name in ("silent_state", "silent_policy", "frozen", "error"):
            setattr(self, name, max(0, getattr(self, name) - 1))
        report(self.output)

    def wake(self) -> None:
        """Bring the filter back to a state in which it moves."""
        state = self.filter.state
        if state == State.STOPPED:
            self.filter.resume(self.now)
        elif state == State.INACTIVE and not self.filter.activate(True, self.now)[0]:
            self.filter.reenter(self.now)

    def mischief(self) -> None:
        """Something outside the policy goes wrong."""
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

    def propose(self) -> str:
        """Send one proposal of a random kind; returns the kind."""
        kind = str(self.rng.choice(KINDS))
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
        publisher = "/other" if self.rng.random() < 0.02 else ""
        answer = self.filter.on_proposal(proposal, self.now, publisher)
        if proposal.epoch > self.epoch and answer.accepted:
            self.epoch = proposal.epoch          # it was adopted at rest, and the old one is gone for good
        return kind

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
        """The tool pointing down, turned by up to `angle`."""
        turn = self.rng.normal(0, angle / 2.0, 3)
        half = 0.5 * np.linalg.norm(turn)
        v, w = turn * (0.5 * np.sinc(half / np.pi)), np.cos(half)
        return _product(np.append(v, w), np.array([1.0, 0, 0, 0]))


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Hamilton product of quaternions xyzw."""
    va, wa, vb, wb = a[:3], a[3], b[:3], b[3]
    return np.append(wa * vb + wb * va + np.cross(va, vb), wa * wb - va @ vb)
