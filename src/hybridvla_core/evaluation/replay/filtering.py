"""Runs proposals through the safety filter, each seeded anew from the recorded joints: what would it have done with them?"""
from __future__ import annotations

import multiprocessing
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Dict, List, Optional, Tuple

import numpy as np

from hybridvla_core.contracts import ArmState, GripperState, Heartbeat, PolicyState, Proposal
from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.safety.filter import SafetyFilter
from hybridvla_core.safety.status import FilterOutput

FEED_S = 0.05        # interval at which the filter hears from arms and policy while it runs
STUCK_S = 1.0        # an arm at rest for this long without having arrived will not arrive
GRIPPER_S = 1.0      # a full run may take this much longer than the proposal is valid
START_S = 1.0        # start of the run's clock
REFUSED, LIMITED = "refused/", "limited/"


@dataclass(frozen=True)
class FilterJob:
    """One proposal to check.

    Attributes:
        proposal: Proposal that the filter gets.
        arms: Joints (dof,) rad and gripper opening of each arm of the robot, in its order.
        full: Whether to run until the proposal is carried out.
    """

    proposal: Proposal
    arms: Tuple[Tuple[np.ndarray, float], ...]
    full: bool


@dataclass(frozen=True)
class FilterResult:
    """What the filter did with a proposal.

    Attributes:
        refused: Why the proposal was refused; empty if it was accepted.
        interventions: Names of the interventions, as in the filter's counters.
        reached: Whether the target was reached; None in a short run.
        clipped: Whether a target is outside the workspace.
        message: The filter's last message if the target was not reached.
        full: Whether it was run until carried out.
    """

    refused: str = ""
    interventions: Tuple[str, ...] = ()
    reached: Optional[bool] = None
    clipped: bool = False
    message: str = ""
    full: bool = False


@dataclass
class FilterTally:
    """Counts over proposals, not over ticks.

    Attributes:
        checked: Proposals given to the filter.
        full: Proposals run until carried out.
        refused: Proposals refused.
        unreached: Full runs whose target was not reached in time.
        clipped: Proposals with a target outside the workspace.
        by_name: How often each limit or reason intervened, by its name.
        example: Where each first did, and the filter's message.
    """

    checked: int = 0
    full: int = 0
    refused: int = 0
    unreached: int = 0
    clipped: int = 0
    by_name: Dict[str, int] = field(default_factory=dict)
    example: Dict[str, str] = field(default_factory=dict)

    def add(self, result: FilterResult, where: str) -> None:
        self.checked += 1
        self.full += result.full
        self.refused += bool(result.refused)
        self.unreached += result.reached is False
        self.clipped += result.clipped
        names = set(result.interventions)
        if result.clipped:
            names.add("limited/workspace_target")
        if result.reached is False:
            names.add("not_reached")
        for name in sorted(names):
            self.by_name[name] = self.by_name.get(name, 0) + 1
            self.example.setdefault(name, f"{where}: {result.refused or result.message}".rstrip(": "))


class FilterCheck:
    """Runs jobs with the robot's own tick rate and limits, in dry run, because no arm follows."""

    def __init__(self, robot: RobotConfig, run_s: float) -> None:
        # Nobody reads the status between runs, so it need not be assembled often.
        self._robot, self._run_s = replace(robot, status_hz=1.0), run_s

    def check(self, job: FilterJob) -> FilterResult:
        robot, proposal = self._robot, replace(job.proposal, prediction=None)
        safety = SafetyFilter(robot, dry_run=True)
        now = START_S
        seeds = [(arm.name, arm.joint_names, joints, opening) for arm, (joints, opening) in zip(robot.arms, job.arms)]
        self._feed(safety, [seed[2] for seed in seeds], seeds, proposal, now)
        safety.tick(now)
        done, message = safety.activate(True, now)
        clipped = self._outside(proposal)
        if not done:
            return FilterResult(message, (REFUSED + "outside_at_start",), None, clipped, message, job.full)
        now += robot.dt
        self._feed(safety, [seed[2] for seed in seeds], seeds, proposal, now)
        before = dict(safety.counters)
        answer = safety.on_proposal(proposal, now)
        if not answer.accepted:
            name = next((key for key, count in safety.counters.items()
                         if key.startswith("rejected/") and count > before.get(key, 0)), "rejected/proposal")
            return FilterResult(answer.reason, (name.replace("rejected/", REFUSED),), None, clipped, answer.reason, job.full)
        limit = now + (proposal.valid_for + GRIPPER_S if job.full else self._run_s)
        output, reached = self._run(safety, seeds, proposal, now, limit, job.full)
        counters = safety.counters
        names = tuple(sorted(key for key, count in counters.items()
                             if count > before.get(key, 0) and key.startswith((LIMITED, "last_check"))))
        message = output.status.message if job.full and not reached else ""
        return FilterResult("", names, reached if job.full else None, clipped, message, job.full)

    def _run(self, safety: SafetyFilter, seeds: List, proposal: Proposal, now: float, limit: float, full: bool
             ) -> Tuple[FilterOutput, bool]:
        """Ticks until the limit, the target or a standstill. The arm is assumed to follow its command perfectly."""
        dt, fed, moved_at = self._robot.dt, now, now
        before = None
        output = safety.tick(now)
        while now < limit:
            now += dt
            if now - fed >= FEED_S:
                fed = now
                self._feed(safety, [command.joint_positions for command in output.arms], seeds, proposal, now)
            output = safety.tick(now)
            if output.status.at_target:
                return output, True
            here = np.concatenate([command.joint_positions for command in output.arms])
            if before is None or np.abs(here - before).max() > 1e-5:
                moved_at, before = now, here
            elif full and now - moved_at > STUCK_S:
                break
        return output, False

    def _feed(self, safety: SafetyFilter, joints: List[np.ndarray], seeds: List, proposal: Proposal, now: float) -> None:
        for (name, names, _, opening), positions in zip(seeds, joints):
            safety.update_arm_state(ArmState(name, tuple(names), np.asarray(positions, dtype=float),
                                             np.zeros(len(names)), gripper=opening, gripper_state=GripperState.DONE), now)
        safety.on_deadman(True, now)
        safety.on_heartbeat(Heartbeat(proposal.epoch, proposal.sequence, proposal.instruction_sequence,
                                      PolicyState.WAITING), now)

    def _outside(self, proposal: Proposal) -> bool:
        """Tells whether a target is outside its arm's box or behind a plane."""
        arms = {arm.name: arm.workspace for arm in self._robot.arms}
        return any((arms[target.name].margins(np.asarray(target.target.position)) < 0.0).any() for target in proposal.targets)


class FilterPool:
    """Runs checks in other processes than the model's. processes: number of them; 0: runs each check here, at once."""

    def __init__(self, robot: RobotConfig, run_s: float, processes: int = 1) -> None:
        self._local: Optional[FilterCheck] = FilterCheck(robot, run_s) if processes == 0 else None
        self._pool = None if processes == 0 else ProcessPoolExecutor(
            processes, multiprocessing.get_context("spawn"), _start, (robot, run_s))

    def submit(self, job: FilterJob) -> Future:
        if self._local is not None:
            done: Future = Future()
            done.set_result(self._local.check(job))
            return done
        assert self._pool is not None, "either is there"
        return self._pool.submit(_check, job)

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()


_CHECK: Optional[FilterCheck] = None


def _start(robot: RobotConfig, run_s: float) -> None:
    global _CHECK
    _CHECK = FilterCheck(robot, run_s)


def _check(job: FilterJob) -> FilterResult:
    assert _CHECK is not None, "the pool starts every process with one"
    return _CHECK.check(job)
