"""The commands to the arms of one tick: poses with quaternions of one sign, joints, gripper openings when due."""
from __future__ import annotations

import math
from typing import Callable, Counter, List, Sequence, Tuple

import numpy as np

from hybridvla_core.contracts import GripperState, Pose
from hybridvla_core.geometry import rotations
from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.safety.execution.gripper import GripperSequencer
from hybridvla_core.safety.inputs.measured_arms import MeasuredArms
from hybridvla_core.safety.motion.motion import Motion
from hybridvla_core.safety.outputs.audit import CommandAudit
from hybridvla_core.safety.status import ArmCommand


class Commands:
    """Makes the commands. `quaternions`: (4,) xyzw of every arm as last commanded."""

    def __init__(self, config: RobotConfig, motion: Motion, arms: MeasuredArms, grippers: Sequence[GripperSequencer],
                 counters: Counter[str]) -> None:
        self._motion = motion
        self._outgoing, self._begun, self._counters = CommandAudit(config), 0, counters
        self._arms = arms
        self._grippers = grippers
        self.quaternions: List[np.ndarray] = [rotations.to_quaternion(matrix) for matrix in motion.rotations]

    def make(self, now: float, publishes: Callable[[str], bool]) -> Tuple[ArmCommand, ...]:
        """Makes the commands of this tick. publishes: whether anything may be sent to the arm of a given name."""
        motion = self._motion
        commands: List[ArmCommand] = []
        for index, (arm, gripper) in enumerate(zip(self._arms, self._grippers)):
            quaternion = rotations.to_quaternion(motion.rotations[index])
            if float(quaternion @ self.quaternions[index]) < 0.0:
                quaternion = -quaternion
            self.quaternions[index] = quaternion
            opening = gripper.tick(now, arm.state.gripper_state if arm.state is not None else GripperState.UNKNOWN)
            publish = publishes(arm.name)
            if publish:
                gripper.sent(arm.state.gripper if arm.state is not None else math.nan)
            commands.append(ArmCommand(arm.name, Pose(motion.positions[index].copy(), quaternion),
                                       motion.joints[index].copy(), opening if publish else None, publish))
        self._look(commands)
        return tuple(commands)

    def _look(self, commands: Sequence[ArmCommand]) -> None:
        # By the counts and not by the motion itself: a motion that begins anew unannounced is a jump.
        before, self._begun = self._begun, self._counters["reseeds"] + self._counters["reposes"]
        self._counters["target_violations"] += self._outgoing.violations(commands, self._begun != before, self._motion.relaxed)
