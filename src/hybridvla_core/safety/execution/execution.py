"""Execution of accepted proposals: goal after goal, the leash, the grippers, and when a target counts as reached."""
from __future__ import annotations

import math
from typing import AbstractSet, Optional, Tuple

import numpy as np

from hybridvla_core.contracts import Proposal
from hybridvla_core.geometry import poses
from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.safety.execution.force_guard import ForceGuard
from hybridvla_core.safety.execution.gripper import GripperSequencer
from hybridvla_core.safety.execution.plan import Plan
from hybridvla_core.safety.execution.standstill import Standstill
from hybridvla_core.safety.inputs.measured_arms import MeasuredArms
from hybridvla_core.safety.motion.motion import Motion
from hybridvla_core.safety.motion.pursuit import Goal
from hybridvla_core.safety.status import Reason

# Reasons that end motion: the target is dropped, and another target must come.
ENDING = (Reason.HEARTBEAT_LOST | Reason.JOINT_STATE | Reason.ROBOT_MODE | Reason.CLOCK_JUMP | Reason.DEADMAN
          | Reason.MEASURED_LIMIT | Reason.LAST_CHECK | Reason.OPERATOR | Reason.SECOND_PUBLISHER | Reason.TCP_MISMATCH
          | Reason.CONTROLLER)
SETTLED = 2.0      # an arm that has come to rest may be this many times the measured tolerances from its target


class Execution:
    """Executes at most one plan at a time. `executed` is the last proposal taken, even after its plan was dropped."""

    def __init__(self, config: RobotConfig, motion: Motion, arms: MeasuredArms) -> None:
        self._config = config
        self._motion = motion
        self._arms = arms
        self.guard = ForceGuard(config, motion, arms)
        self._standstill = Standstill(config, motion)
        self._posture = np.array([arm.start_joints_rad for arm in config.arms])
        self.grippers = [GripperSequencer(arm.gripper, config.dt) for arm in config.arms]
        self.plan: Optional[Plan] = None
        self.executed: Optional[Proposal] = None
        self.applied = 1.0
        self.detail = ""
        self._empty_handed = False       # the arms are where they should be, and a gripper is not

    @property
    def stands(self) -> bool:
        """Whether the arms stand still before a target because something is in the way or a gripper failed."""
        return self.plan is not None and (self._standstill.standing or self._empty_handed)

    @property
    def gripper_failed(self) -> bool:
        """Whether a gripper did not carry out its last command."""
        return any(gripper.failed for gripper in self.grippers)

    @property
    def asked(self) -> Optional[Goal]:
        """The target being carried out, as it was requested."""
        return self.plan.asked if self.plan is not None else None

    @property
    def done(self) -> bool:
        return self.plan is not None and self.plan.done

    def seeded(self) -> None:
        """Starts over after the motion has begun anew at rest from the measured arms."""
        self.guard.restart()
        self._standstill.restart()
        for gripper, arm in zip(self.grippers, self._arms):
            gripper.restart(arm.state.gripper if arm.state is not None else math.nan)
        self.drop()
        self.executed = None

    def take(self, proposal: Proposal, now: float) -> None:
        """Begins to carry out an accepted ACTION proposal in place of the present one."""
        standing = self.plan is None or self._standstill.standing
        self.plan, self.executed = Plan(proposal, self._config, now), proposal
        if self.plan.keyframe and standing:     # what held the arms before the last target says nothing about this one
            self._standstill.restart()
        for index, gripper in enumerate(self.grippers):
            gripper.cancel()
            if not self.plan.keyframe:
                gripper.want(self.plan.openings[0, index])

    def drop(self) -> None:
        """Drops the target, and what the grippers still had to do."""
        self.plan = None
        for gripper in self.grippers:
            gripper.cancel()

    def drop_older(self, instruction_sequence: int) -> None:
        """Drops the target of an instruction that has been replaced."""
        if self.plan is not None and self.plan.proposal.instruction_sequence < instruction_sequence:
            self.drop()

    def expired(self, now: float) -> bool:
        return self.plan is not None and self.plan.expired(now)

    def goal(self, now: float) -> Optional[Goal]:
        return self.plan.goal(now, self._motion.positions, self._motion.rotations) if self.plan is not None else None

    def step(self, now: float, reasons: Reason, scale: float, dry_run: bool) -> Tuple[bool, Reason]:
        """Moves one tick towards the plan's goal at `scale` of the speeds. Returns whether it may be sent, and all reasons."""
        motion, plan = self._motion, self.plan
        goal = drawn = None
        self.detail, self._empty_handed = "", False
        if plan is not None:
            if plan.advance(now):
                self._want(plan)
            goal = self.goal(now)
        elif not reasons & ENDING:
            reasons |= Reason.PROPOSAL_STALE
        if not dry_run and self.guard.held and (goal is None or not self.guard.allows(goal)):
            reasons |= Reason.LEASH
            self.detail = self.guard.detail
            drawn, goal = self.guard.goal(None if self._config.coupled else goal), None
        self.applied = scale * self._caution()
        moved = motion.step(goal or drawn, self.applied, self._posture)
        self.applied *= motion.factor
        reasons |= motion.reasons
        if not moved:
            self.drop()
        if plan is not None and self.plan is plan:
            reasons |= self._settle(plan, goal, now, dry_run, scale)
        if self.gripper_failed:
            reasons |= Reason.GRIPPER
        return moved, reasons

    def rest(self, scale: float, errored: AbstractSet[str]) -> bool:
        """Moves one tick to rest and, if an arm does not follow, back until the push is within its bound.

        Args:
            scale: Scale of the speeds.
            errored: Names of arms that get no commands, so that drawing their commands back would ease nothing.

            Returns:
                Whether the command may be sent.
        """
        return self._motion.step(self.guard.goal(leave=errored), scale)

    def advance(self, now: float, dry_run: bool) -> None:
        """Checks how the arms follow; once a tick."""
        if dry_run:
            self.guard.restart()
        else:
            self.guard.look(now)

    def near_command(self, index: Optional[int] = None) -> bool:
        """Returns whether the measured arms, or one of them, are within the leash of their command."""
        room, turn = self.guard.leash.margins(self._arms.positions, self._arms.matrices)
        chosen = slice(None) if index is None else slice(index, index + 1)
        return bool((room[chosen] > 0.0).all() and (turn[chosen] > 0.0).all())

    def measured_near(self, goal: Goal, times: float = 1.0) -> bool:
        """Returns whether every measured tool is within `times` the measured tolerances of `at_target` of the goal."""
        rules = self._config.at_target
        for index, arm in enumerate(self._arms):
            if np.linalg.norm(arm.position - goal.positions[index]) > times * rules.measured_position_m:
                return False
            if poses.turn(goal.rotations[index], arm.matrix) > times * rules.measured_rotation_rad:
                return False
        return True

    def short(self, goal: Goal) -> str:
        """Says how far the arm that is farthest from the goal is from it."""
        away, name = max((float(np.linalg.norm(arm.position - goal.positions[index])), arm.name)
                         for index, arm in enumerate(self._arms))
        if away > self._config.at_target.measured_position_m:
            return f"{name}: the arm stands {away * 1e3:.0f} mm from its target; free it, or tell the robot its payload"
        turn, name = max((poses.turn(goal.rotations[index], arm.matrix), arm.name) for index, arm in enumerate(self._arms))
        return f"{name}: the tool is turned by {math.degrees(turn):.0f} degrees from its target; free it"

    def _want(self, plan: Plan) -> None:
        for index, gripper in enumerate(self.grippers):
            gripper.want(plan.openings[plan.row, index])

    def _settle(self, plan: Plan, goal: Optional[Goal], now: float, dry_run: bool, scale: float) -> Reason:
        """Checks whether the row is carried out. Keyframes: arrival at the request, then the gripper. Dense rows: the last row.

        Returns:
            What is in the way if the arms stand still before that.
        """
        if goal is None or plan.done:
            self._standstill.restart()
            return Reason.NONE
        rules, error = self._config.at_target, self._motion.error(plan.asked)
        near = (np.linalg.norm(error[:, :3], axis=1).max() <= rules.position_m
                and np.linalg.norm(error[:, 3:], axis=1).max() <= rules.rotation_rad)
        if not near:
            plan.arrived_at = None
            stands, text = self._standstill.look(plan, scale)
            self.detail = text or self.detail
            return stands
        self._standstill.restart()
        if plan.arrived_at is None:
            plan.arrived_at = now
        settled = now - plan.arrived_at >= rules.settle_s
        if not (dry_run or self.measured_near(plan.asked) or settled and self.measured_near(plan.asked, SETTLED)):
            if settled:
                self.detail = self.short(plan.asked)
            return Reason.LEASH if settled else Reason.NONE
        if plan.keyframe and not plan.gripper_sent:
            plan.gripper_sent = True
            self._want(plan)
            return Reason.NONE
        if any(gripper.busy for gripper in self.grippers):
            return Reason.NONE
        if self.gripper_failed and not dry_run:
            self._empty_handed = True
            return Reason.GRIPPER
        if plan.last_row:
            plan.done = True
        elif plan.keyframe:
            plan.next_row()
        return Reason.NONE

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
