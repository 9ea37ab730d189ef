"""Runs one episode in process: the policy, the proposer, the safety filter and the rig, in lockstep on an injected clock.

Nothing here decides anything: the same classes run in the nodes. Only time is different: it passes as fast as it can be
computed.
"""
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Generic, List, Mapping, Optional, Protocol, Sequence, Tuple, TypeVar

import numpy as np

from hybridvla_core.contracts import ArmState, Heartbeat, Prediction, Proposal
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.policy.config import PolicyConfig
from hybridvla_core.policy.interface import PolicyInterface
from hybridvla_core.policy.proposing.proposals import Inference
from hybridvla_core.policy.proposing.proposer import Proposer
from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.safety.filter import SafetyFilter
from hybridvla_core.safety.status import ArmCommand, FilterOutput, State, flag_names

HEARTBEAT_S = 0.1
STATE_S = 0.01
SETTLE_S = 0.2


@dataclass
class Decision:
    """One prediction at the moment it was made.

    Attributes:
        time: Simulated time, s.
        instruction: Instruction that the prediction followed.
        prediction: The complete prediction.
        target: (3,) target position of the first arm, m.
        opening: Gripper opening of the first arm.
        observer: What the caller recorded at this moment.
    """

    time: float
    instruction: str
    prediction: Prediction
    target: np.ndarray
    opening: float
    observer: Any = None


@dataclass
class EpisodeResult:
    """What happened in an episode.

    Attributes:
        success: Whether the task was done.
        time: Simulated time, s.
        decisions: Decisions in order.
        counters: Counters of the filter.
        tick_ms: Thread CPU time of the filter's ticks, ms.
        states: States of the filter, one entry per change.
        reasons: Number of ticks for which each reason of the filter applied.
    """

    success: bool
    time: float
    decisions: List[Decision] = field(default_factory=list)
    counters: Dict[str, int] = field(default_factory=dict)
    tick_ms: List[float] = field(default_factory=list)
    states: List[str] = field(default_factory=list)
    reasons: Dict[str, int] = field(default_factory=dict)


class Filter(Protocol):
    """What a runner needs from the safety filter or its replacement."""

    def update_arm_state(self, state: ArmState, now: float) -> object:
        """Takes the state that a driver reports."""

    def on_proposal(self, proposal: Proposal, now: float) -> object:
        """Takes a proposal of the policy."""

    def on_heartbeat(self, heartbeat: Heartbeat, now: float) -> object:
        """Takes a heartbeat of the policy."""

    def on_deadman(self, pressed: bool, now: float) -> object:
        """Takes the state of the dead-man switch."""

    def activate(self, active: bool, now: float) -> Tuple[bool, str]:
        """Begins to follow proposals; returns whether it does, and if not, why."""

    def tick(self, now: float) -> FilterOutput:
        """Returns the output that goes to the arms now."""


class SimulatedRig(Protocol):
    """What a runner needs from a rig with one arm or two."""

    @property
    def time(self) -> float:
        """Simulated time, s."""

    def arm_states(self) -> Sequence[ArmState]:
        """Returns the state that each arm's driver would report."""

    def send(self, command: ArmCommand) -> object:
        """Sends the filter's command for one arm."""

    def render(self, camera: str) -> np.ndarray:
        """Returns an image (h, w, 3) uint8 RGB."""

    def step(self, seconds: float) -> object:
        """Lets time pass."""


RigT = TypeVar("RigT", bound=SimulatedRig)
Pending = Tuple[float, Inference, Prediction, Any]


class EpisodeRunner(Generic[RigT]):
    """Runs episodes on one rig. `rig`: `hybridvla_sim.fr3.rig.Rig` or anything like it, already reset by the caller.

    latency: simulated time between observation and proposal, s. make_safety: makes the filter between proposals and the rig.
    observe: called with the rig before each prediction; its result is kept with the decision (the expert's label, for
    metrics).
    """

    def __init__(self, policy: PolicyInterface, config: PolicyConfig, robot: RobotConfig, rig: RigT, latency: float = 0.1,
                 observe: Optional[Callable[[RigT, str], object]] = None,
                 make_safety: Callable[[RobotConfig], Filter] = SafetyFilter) -> None:
        self.policy, self.config, self.robot, self.rig = policy, config, robot, rig
        self.latency, self.observe, self.make_safety = latency, observe, make_safety

    def run(self, instruction: str, finished: Callable[[RigT, str], bool], max_keyframes: int = 12,
            max_time: float = 60.0, switch: Optional[Tuple[float, str]] = None) -> EpisodeResult:
        """Runs until `finished(rig, instruction)` has held for a moment, or until the keyframes or the time are used up.

        Args:
            instruction: The first instruction.
            finished: Decides from the rig whether the task is done.
            max_keyframes: Most decisions; with a switch, counted from then on. A policy that is done early waits for the switch.
            max_time: Longest simulated time, s.
            switch: (simulated time, s, second instruction); the episode then counts for the second one.

        Returns:
            The result of the episode.

        Raises:
            HybridVLAError: The filter does not activate on the rig.
        """
        clock = _Clock(self.rig)
        result = EpisodeResult(False, 0.0)
        safety = self.make_safety(self.robot)

        def publish(proposal: Proposal) -> None:
            safety.on_proposal(proposal, clock.now)

        def beat(heartbeat: Heartbeat) -> None:
            safety.on_heartbeat(heartbeat, clock.now)

        proposer = Proposer(self.policy, self.config, epoch=1, publish=publish,
                            publish_heartbeat=beat, clock=lambda: clock.now,
                            monotonic=lambda: clock.now)
        self._feed(safety, proposer, clock)
        safety.tick(clock.now)
        proposer.send_heartbeat()
        if self.robot.deadman_required:
            safety.on_deadman(True, clock.now)
        done, message = safety.activate(True, clock.now)
        if not done:
            raise HybridVLAError(f"the filter does not activate in the rig: {message}")
        proposer.set_instruction(instruction)
        loop = _Loop(self, clock, safety, proposer, result)
        since: Optional[float] = None
        # The outcome of the last keyframe is checked until it has held; meanwhile the policy decides once more.
        while clock.now - clock.start < max_time and (switch is not None or since is not None
                                                      or len(result.decisions) <= max_keyframes):
            if switch is not None and clock.now - clock.start >= switch[0]:
                instruction, switch = switch[1], None
                proposer.set_instruction(instruction)
                max_keyframes += len(result.decisions)
                since = None
            loop.tick()
            if switch is None and loop.count % 10 == 0 and finished(self.rig, instruction):
                since = clock.now if since is None else since
                if clock.now - since >= SETTLE_S:
                    result.success = True
                    break
            elif loop.count % 10 == 0:
                since = None
        result.time = clock.now - clock.start
        result.counters = dict(loop.counters)
        return result

    def _feed(self, safety: Filter, proposer: Proposer, clock: _Clock) -> None:
        for state in self.rig.arm_states():
            safety.update_arm_state(state, clock.now)
            proposer.on_arm_state(state, clock.now)


class _Clock:
    """Simulated time, starting at 1 s: a stamp of zero means "unset" to ROS."""

    def __init__(self, rig: SimulatedRig) -> None:
        self._rig, self.start = rig, 1.0 + rig.time

    @property
    def now(self) -> float:
        return 1.0 + self._rig.time


class _Loop(Generic[RigT]):
    """Runs the filter tick by tick, and starts and delivers predictions when they are due."""

    def __init__(self, runner: EpisodeRunner[RigT], clock: _Clock, safety: Filter, proposer: Proposer,
                 result: EpisodeResult) -> None:
        self.runner, self.clock, self.safety, self.proposer, self.result = runner, clock, safety, proposer, result
        self.count = 0
        self.counters: Mapping[str, int] = {}
        self._pending: Optional[Pending] = None
        self._state_at = self._beat_at = -1.0

    def tick(self) -> None:
        runner, now = self.runner, self.clock.now
        self.count += 1
        if now - self._state_at >= STATE_S - 1e-9:
            self._state_at = now
            runner._feed(self.safety, self.proposer, self.clock)
        if now - self._beat_at >= HEARTBEAT_S - 1e-9:
            self._beat_at = now
            self.proposer.send_heartbeat()
            if runner.robot.deadman_required:     # held down throughout, as a person beside a rig would
                self.safety.on_deadman(True, now)
        self._infer(now)
        output = self.safety.tick(now)
        for command in output.arms:
            runner.rig.send(command)
        status = output.status
        self.counters = status.counters
        self.result.tick_ms.append(status.tick_cpu_ms)
        if not self.result.states or self.result.states[-1] != State(status.state).name:
            self.result.states.append(State(status.state).name)
        for reason in filter(None, flag_names(status.reasons).split("|")):
            self.result.reasons[reason] = self.result.reasons.get(reason, 0) + 1
        self.proposer.on_execution(status.epoch, status.sequence, status.at_target, status.waiting)
        self.proposer.on_commands({command.name: command.pose for command in output.arms}, now, status.epoch, status.sequence,
                                  status.state != State.INACTIVE, status.seed)
        runner.rig.step(runner.robot.dt)

    def _infer(self, now: float) -> None:
        runner = self.runner
        if self._pending is not None:
            ready, inference, prediction, observer = self._pending
            if now >= ready - 1e-9:
                self._pending = None
                proposal = self.proposer.finish(inference, prediction)
                if proposal is not None:
                    target = proposal.targets[0]
                    self.result.decisions.append(Decision(
                        now - self.clock.start, proposal.instruction, prediction, target.target.position.copy(),
                        target.gripper, observer))
            return
        if not self.proposer.due():
            return
        images = {camera.view: runner.rig.render(camera.view) for camera in runner.config.cameras}
        observer = runner.observe(runner.rig, self.proposer.instruction) if runner.observe else None
        inference = self.proposer.begin(images, int(round(now * 1e9)))
        self._pending = (now + runner.latency, inference, self.proposer.predict(inference), observer)
