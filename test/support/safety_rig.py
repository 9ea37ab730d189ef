"""A kinematic stand-in of a robot for tests of the filter: it follows its commands with a lag and can misbehave."""
from __future__ import annotations

import dataclasses

import numpy as np

from hybridvla_core.contracts import ArmState, ArmTarget, DeltaBase, GripperState, Heartbeat, Kind, PolicyState, Pose, Proposal
from hybridvla_core.geometry.rotations import to_quaternion
from hybridvla_core.paths import ROOT
from hybridvla_core.robots.config import load_robot
from hybridvla_core.robots.kinematics import ArmKinematics
from hybridvla_core.safety.filter import SafetyFilter

ROBOTS = ROOT / "config" / "robots"
DOWN = np.array([1.0, 0.0, 0.0, 0.0])


class Rig:
    """A filter, arms that follow it, and a policy that says what the test tells it to. Time is `self.now`."""

    def __init__(self, robot="sim_fr3", dry_run=False, change=None, lag_s=0.05):
        # A ramp that is long enough to be seen, whatever the robot's own ramp is.
        config = dataclasses.replace(load_robot(ROBOTS / f"{robot}.yaml"), ramp_s=1.0)
        self.config = change(config) if change else config
        self.filter = SafetyFilter(self.config, dry_run)
        self.now = 100.0
        self.joints = {arm.name: np.array(arm.start_joints_rad) for arm in self.config.arms}
        self.kinematics = {arm.name: ArmKinematics(arm) for arm in self.config.arms}
        self.opening = {arm.name: 1.0 for arm in self.config.arms}
        self.changes = {}
        self.lag_s = lag_s
        self.silent = set()
        self.beating = True
        self.follows = True
        self.epoch, self.sequence, self.instruction = 7, 0, 1
        self.sent = []
        self.clock = None           # ROS time minus `now`; None: the filter is told no ROS time
        self.output = None

    def arm_state(self, name):
        arm = self.config.arm(name)
        state = ArmState(name, arm.joint_names, self.joints[name].copy(), None, None, self.opening[name],
                         GripperState.DONE)
        return dataclasses.replace(state, **self.changes)

    def tick(self, count=1):
        for _ in range(count):
            self.now += self.config.dt
            for arm in self.config.arms:
                if arm.name not in self.silent:
                    self.filter.update_arm_state(self.arm_state(arm.name), self.now)
            if self.beating and len(self.sent) % 20 == 0:
                self.beat()
            self.output = self.filter.tick(self.now, None if self.clock is None else self.now + self.clock)
            for command in self.output.arms:
                if command.publish:
                    if self.follows:
                        share = min(1.0, self.config.dt / self.lag_s)
                        self.joints[command.name] += share * (command.joint_positions - self.joints[command.name])
                    if command.gripper is not None:
                        self.opening[command.name] = command.gripper
            self.sent.append(self.output)
        return self.output

    def last_beat(self):
        return Heartbeat(self.epoch, self.sequence, self.instruction, PolicyState.INFERRING)

    def beat(self, **changes):
        self.filter.on_heartbeat(dataclasses.replace(self.last_beat(), **changes), self.now)

    def start(self):
        self.tick(3)
        self.beat()
        ok, message = self.filter.activate(True, self.now)
        assert ok, message
        return self

    def proposal(self, positions, quaternions=None, opening=1.0, **changes):
        """positions: (3,) or (A, 3)."""
        self.sequence += 1
        positions = np.atleast_2d(np.asarray(positions, dtype=float))
        quaternions = [DOWN] * len(positions) if quaternions is None else np.atleast_2d(quaternions)
        targets = tuple(ArmTarget(arm.name, arm.base_frame, Pose(p, q), self.now, Pose(p, q), DeltaBase.COMMANDED,
                                  opening) for arm, p, q in zip(self.config.arms, positions, quaternions))
        proposal = Proposal(self.now, self.epoch, self.sequence, self.instruction, "move", 10.0, targets)
        return dataclasses.replace(proposal, **changes)

    def propose(self, *args, **changes):
        return self.filter.on_proposal(self.proposal(*args, **changes), self.now)

    def hold(self, **changes):
        return self.filter.on_proposal(dataclasses.replace(self.proposal([0.5, 0.0, 0.3]), kind=Kind.HOLD, targets=(),
                                                           **changes), self.now)

    def run_until(self, condition, seconds=5.0):
        """Tick until condition(output) holds and return the seconds that took; fail the test when it never holds."""
        begin = self.now
        while self.now - begin < seconds:
            if condition(self.tick()):
                return self.now - begin
        raise AssertionError(f"not within {seconds} s: {self.output.status.message}")

    def pose(self, index=0):
        return self.output.arms[index].pose

    def commanded(self, index=0):
        """Return the (n, 3) positions sent so far."""
        return np.array([output.arms[index].pose.position for output in self.sent])

    def measured_pose(self, name):
        position, matrix = self.kinematics[name].pose(self.joints[name])
        return Pose(position, to_quaternion(matrix))
