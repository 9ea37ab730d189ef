"""Carrying out what was accepted: goal after goal, the leash, the grippers, and when a target counts as reached."""
from __future__ import annotations

from typing import Optional, Tuple

import numpy as np

from hybridvla_core.contracts import Proposal
from hybridvla_core.geometry import poses
from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.safety.execution.gripper import GripperSequencer
from hybridvla_core.safety.execution.leash import Leash
from hybridvla_core.safety.execution.plan import Plan
from hybridvla_core.safety.inputs.measured_arms import MeasuredArms
from hybridvla_core.safety.motion.motion import Motion
from hybridvla_core.safety.motion.pursuit import Goal
from hybridvla_core.safety.status import Reason

# What ends motion: the target is dropped, and another one must come.
ENDING = (Reason.HEARTBEAT_LOST | Reason.JOINT_STATE | Reason.ROBOT_MODE | Reason.CLOCK_JUMP | Reason.DEADMAN
          | Reason.MEASURED_LIMIT | Reason.LAST_CHECK | Reason.OPERATOR | Reason.SECOND_PUBLISHER | Reason.TCP_MISMATCH
          | Reason.CONTROLLER)


class Execution:
    """At most one plan at a time. `executed` is the proposal last taken, also after its plan was dropped."""

    def __init__(self, config: RobotConfig, motion: Motion, arms: MeasuredArms) -> None:
        self._config = config
        self._motion = motion
        self._arms = arms
        self._leash = Leash(config.arms, config.dt)
        self._leash.restart(motion.positions, motion.rotations)
        self._posture = np.array([arm.start_joints_rad for arm in config.arms])
        self.grippers = [GripperSequencer(arm.gripper, config.dt) for arm in config.arms]
        self.plan: Optional[Plan] = None
        self.executed: Optional[Proposal] = None
        self.applied = 1.0
        self.detail = ""

    @property
    def done(self) -> bool:
        return self.plan is not None and self.plan.done

    def seeded(self) -> None:
        """The motion has begun anew at rest from the measured arms."""
        self._leash.restart(self._motion.positions, self._motion.rotations)
        for gripper, arm in zip(self.grippers, self._arms):
            gripper.restart(arm.state.gripper)
        self.drop()
        self.executed = None

    def take(self, proposal: Proposal, now: float) -> None:
        """Begin to carry out an accepted ACTION proposal in place of the present one."""
        self.plan, self.executed = Plan(proposal, self._config, now), proposal
        for index, gripper in enumerate(self.grippers):
            gripper.cancel()
            if not self.plan.keyframe:
                gripper.want(self.plan.openings[0, index])

    def drop(self) -> None:
        """No target any more; what the grippers were still to do is forgotten."""
        self.plan = None
        for gripper in self.grippers:
            gripper.cancel()

    def drop_older(self, instruction_sequence: int) -> None:
        """The target of an instruction that has been replaced is dropped."""
        if self.plan is not None and self.plan.proposal.instruction_sequence < instruction_sequence:
            self.drop()

    def expired(self, now: float) -> bool:
        return self.plan is not None and self.plan.expired(now)

    def goal(self, now: float) -> Optional[Goal]:
        return self.plan.goal(now, self._motion.positions, self._motion.rotations) if self.plan is not None else None

    def step(self, now: float, reasons: Reason, scale: float, dry_run: bool) -> Tuple[bool, Reason]:
        """One tick towards the plan's goal at `scale` of the speeds. Whether it may be sent, and the reasons in all."""
        motion, plan, goal = self._motion, self.plan, None
        self.detail = ""
        if plan is not None:
            if plan.advance(now):
                self._want(plan)
            goal = self.goal(now)
            if not dry_run and self._leashed(goal):
                reasons |= Reason.LEASH
                goal = None
        elif not reasons & ENDING:
            reasons |= Reason.PROPOSAL_STALE
        self.applied = scale * self._caution()
        moved = motion.step(goal, self.applied, self._posture)
        self.applied *= motion.factor
        reasons |= motion.reasons
        if not moved:
            self.drop()
        if plan is not None and self.plan is plan:
            self._settle(plan, goal, now, dry_run)
        if any(gripper.failed for gripper in self.grippers):
            reasons |= Reason.GRIPPER
        return moved, reasons

    def advance(self) -> None:
        """The lag of an unhindered arm behind the command; once a tick."""
        self._leash.advance(self._motion.positions, self._motion.rotations)

    def near_command(self) -> bool:
        """The measured arms are within the leash of what was commanded."""
        room, turn = self._leash.margins(self._arms.positions, self._arms.matrices)
        return bool((room > 0.0).all() and (turn > 0.0).all())

    def _want(self, plan: Plan) -> None:
        for index, gripper in enumerate(self.grippers):
            gripper.want(plan.openings[plan.row, index])

    def _settle(self, plan: Plan, goal: Optional[Goal], now: float, dry_run: bool) -> None:
        """Keyframes: arrival, then the gripper, then done. Dense rows: done when the last one has been reached."""
        if goal is None or plan.done:
            return
        rules, error = self._config.at_target, self._motion.error(goal)
        near = (np.abs(error[:, :3]).max() < 2.0 * rules.position_m
                and np.linalg.norm(error[:, :3], axis=1).max() <= rules.position_m
                and np.linalg.norm(error[:, 3:], axis=1).max() <= rules.rotation_rad)
        if not near:
            plan.arrived_at = None
            return
        if plan.arrived_at is None:
            plan.arrived_at = now
        if not (dry_run or self._measured_near(goal) or now - plan.arrived_at >= rules.settle_s):
            return
        if plan.keyframe and not plan.gripper_sent:
            plan.gripper_sent = True
            self._want(plan)
            return
        if any(gripper.busy for gripper in self.grippers):
            return
        if plan.last_row:
            plan.done = True
        elif plan.keyframe:
            plan.next_row()

    def _measured_near(self, goal: Goal) -> bool:
        rules = self._config.at_target
        for index, arm in enumerate(self._arms):
            if np.linalg.norm(arm.position - goal.positions[index]) > rules.measured_position_m:
                return False
            if poses.turn(goal.rotations[index], arm.matrix) > rules.measured_rotation_rad:
                return False
        return True

    def _leashed(self, goal: Goal) -> bool:
        """The bound is reached and the goal leads further away from where the arm is."""
        measured, matrices, motion = self._arms.positions, self._arms.matrices, self._motion
        room, turn_room = self._leash.margins(measured, matrices)
        for index, arm in enumerate(self._config.arms):
            way = goal.positions[index] - motion.positions[index]
            if room[index] < 0.0 and self._leash.pulls_away(index, motion.positions[index], measured[index], way):
                self.detail = f"{arm.name}: the arm does not follow its command; free it"
                return True
            if turn_room[index] < 0.0:
                ahead = poses.turn(goal.rotations[index], matrices[index])
                here = poses.turn(motion.rotations[index], matrices[index])
                if ahead >= here:
                    self.detail = f"{arm.name}: the tool does not turn with its command"
                    return True
        return False

    def _caution(self) -> float:
        rules = self._config.caution
        prediction = self.plan.proposal.prediction if self.plan is not None else None
        if not rules.enabled or prediction is None:
            return 1.0
        # A decoding that ended early was not confident, and leaves the other numbers unknown.
        doubtful = (not prediction.ar_complete
                    or prediction.path_distance > rules.distance_m or prediction.path_angle > rules.angle_rad
                    or prediction.mean_confidence < rules.confidence)
        return rules.scale if doubtful else 1.0
