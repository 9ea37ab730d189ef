"""No filter: what a lab's own script does, for comparison. Only for simulated rigs."""
from __future__ import annotations

from typing import Dict, Optional, Tuple

import numpy as np

from hybridvla_core.contracts import ArmState, Heartbeat, Pose, Proposal
from hybridvla_core.geometry import poses, rotations
from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.robots.kinematics import ArmKinematics
from hybridvla_core.safety.status import ArmCommand, ArmSafety, FilterOutput, Reason, SafetyStatus, State

ARRIVED_M, ARRIVED_RAD = 0.005, 0.05
#: An arm that has not arrived after this time, s, is treated as arrived: a script waits no longer.
PATIENCE_S = 4.0
#: Time that a gripper is given to move, s.
GRIPPER_S = 0.6


class Unfiltered:
    """Sends every target to its arm as it is, at once, and calls it reached when the arm is near it.

    Args:
        robot: Configuration of the robot whose arms they are.
    """

    def __init__(self, robot: RobotConfig) -> None:
        self._arms = {arm.name: ArmKinematics(arm) for arm in robot.arms}
        self._states: Dict[str, ArmState] = {}
        self._proposal: Optional[Proposal] = None
        self._since = self._near_since = float("inf")

    def update_arm_state(self, state: ArmState, now: float) -> None:
        self._states[state.name] = state

    def on_heartbeat(self, heartbeat: Heartbeat, now: float) -> None:
        """Does nothing."""

    def on_deadman(self, pressed: bool, now: float) -> None:
        """Does nothing."""

    def activate(self, active: bool, now: float) -> Tuple[bool, str]:
        return True, ""

    def on_proposal(self, proposal: Proposal, now: float) -> None:
        self._proposal, self._since, self._near_since = proposal, now, float("inf")

    def tick(self, now: float) -> FilterOutput:
        """Returns the last proposal's targets for the arms that have reported, and where these are."""
        proposal = self._proposal
        targets = {} if proposal is None else {target.name: target for target in proposal.targets[:len(self._arms)]}
        commands, near = [], bool(targets)
        for name, target in targets.items():
            joints = np.asarray(self._states[name].joint_positions, dtype=float)
            commands.append(ArmCommand(name, target.target, joints, target.gripper, True))
            near = near and self._near(name, target.target)
        self._near_since = min(self._near_since, now) if near else float("inf")
        done = bool(targets) and (now - self._near_since >= GRIPPER_S or now - self._since >= PATIENCE_S)
        arms = tuple(ArmSafety(command.name, command.pose, None, 0.0, 0.0, done, self._states[command.name].gripper_state, 0, 0.0)
                     for command in commands)
        epoch, sequence = (0, 0) if proposal is None else (proposal.epoch, proposal.sequence)
        status = SafetyStatus(State.ACTIVE, Reason.NONE, "no filter", False, 1.0, 1.0, epoch, sequence, arms=arms)
        return FilterOutput(tuple(commands), status, True)

    def _near(self, name: str, target: Pose) -> bool:
        position, matrix = self._arms[name].pose(np.asarray(self._states[name].joint_positions, dtype=float))
        return (float(np.linalg.norm(position - target.position)) < ARRIVED_M
                and float(poses.turn(rotations.to_matrix(target.quaternion), matrix)) < ARRIVED_RAD)
