"""Runs suites of episodes of one task with one policy, in this process or in several."""
from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Sequence, Union

import numpy as np
from threadpoolctl import threadpool_limits

from hybridvla_core.contracts import Prediction
from hybridvla_core.evaluation.episode import Decision, EpisodeRunner, Filter, SimulatedRig
from hybridvla_core.evaluation.reliability import hits
from hybridvla_core.policy.config import PolicyConfig
from hybridvla_core.policy.interface import PolicyInterface
from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.safety.filter import SafetyFilter
from hybridvla_sim import tasks
from hybridvla_sim.experts import Blind, ExpertPolicy
from hybridvla_sim.fr3.rig import Rig, RigConfig
from hybridvla_sim.monitor import MonitorLimits
from hybridvla_sim.piper.monitor import JointMonitorLimits
from hybridvla_sim.piper.rig import PiperRig
from hybridvla_sim.pool import in_processes
from hybridvla_sim.task import EpisodeSpec, ExpertLabel, Task

if TYPE_CHECKING:
    from hybridvla_sim.film import Filmed

PolicyFactory = Callable[[], PolicyInterface]


AnyRig = Union[Rig, PiperRig]


def make_rig(task: Task[AnyRig], robot: RobotConfig) -> AnyRig:
    """Returns a rig whose monitor checks the robot's limits, read here and not through the filter."""
    if task.rig == "piper":
        return PiperRig(task, {arm.name: JointMonitorLimits.of(arm, robot.tick_hz) for arm in robot.arms},
                        start={arm.name: np.array(arm.start_joints_rad) for arm in robot.arms})
    return Rig(task, RigConfig(limits=MonitorLimits.of(robot.arms[0])))


def label(rig: AnyRig, instruction: str) -> ExpertLabel:
    """Returns the expert's action for the true state, with which a prediction is compared."""
    found: ExpertLabel = rig.world.expert(instruction)
    return found


class Suite:
    """Runs episode specs of one task with one policy on one rig. `film`: folder for a video of each episode."""

    def __init__(self, policy: PolicyInterface, config: PolicyConfig, robot: RobotConfig, task: Task[AnyRig],
                 make_safety: Callable[[RobotConfig], Filter] = SafetyFilter, film: Optional[Path] = None) -> None:
        self.task, self.policy, self.rig = task, policy, make_rig(task, robot)
        shown: SimulatedRig = self.rig
        if isinstance(policy, ExpertPolicy):
            policy.attach(self.rig)
            shown = Blind(self.rig, {camera.view: (camera.height_px or 8, camera.width_px or 8) for camera in config.cameras})
        self._film: Optional[Filmed] = None
        if film is not None:
            from hybridvla_sim.film import Filmed  # only where it is wanted: it needs PyAV

            shown = self._film = Filmed(shown, self.rig, [camera.view for camera in config.cameras], film)
        self.runner = EpisodeRunner(policy, config, robot, shown, observe=label, make_safety=make_safety)

    @threadpool_limits.wrap(limits=1, user_api="blas")     # the same episode on any number of cores
    def run(self, spec: EpisodeSpec) -> Dict[str, Any]:
        """Runs one episode and returns it as plain data."""
        before = self.rig.broken
        self.rig.reset(np.random.default_rng(spec.seed))
        switch = None if spec.second is None else (spec.switch_at, spec.second)
        if self._film is not None:
            self._film.begin(self.task.name, spec)
        result = self.runner.run(spec.instruction, lambda rig, text: rig.world.success(text), self.task.max_keyframes,
                                 self.task.max_time, switch=switch)
        if self._film is not None:
            self._film.end(result.success)
        return {"seed": spec.seed, "task": spec.goal, "success": result.success,
                "time": round(result.time, 2), "keyframes": len(result.decisions),
                "violations": self.rig.broken - before, "counters": result.counters,
                "reasons": result.reasons, "tick_ms": result.tick_ms,
                "decisions": [_row(d, self.policy) for d in result.decisions]}


def _row(decision: Decision, policy: PolicyInterface) -> Dict[str, Any]:
    """Returns a decision as plain data: the arm with the larger error if there are two, but errors and tokens of both."""
    prediction, truth = decision.prediction, decision.observer
    arms = prediction.action[0].reshape(-1, 7)
    errors = arms[:, :3] - truth.delta
    worst = int(np.linalg.norm(errors, axis=1).argmax())
    row = {"phase": truth.phase, "fused": prediction.fused, "confidence": prediction.mean_confidence,
           "ms": sum(prediction.stage_ms.values()), "distance": prediction.path_distance,
           "gripper_right": bool(((arms[:, 6] > 0.5) == (truth.opening > 0.5)).all()),
           "errors": errors.tolist(), "error": errors[worst].tolist()}
    for name, action in (("diffusion", prediction.diffusion), ("autoregressive", prediction.autoregressive)):
        row[name] = None if action is None else (action[0].reshape(-1, 7)[worst, :3] - truth.delta[worst]).tolist()
    right = hits(policy, _nearest(truth, prediction), prediction)
    told = prediction.token_confidence
    row["token_right"] = None if right is None else right.tolist()
    row["token_confidence"] = None if right is None or told is None else told.tolist()
    row["yaw_error"] = abs(math.remainder(float(arms[worst, 5]) - float(truth.yaw[worst]), truth.yaw_period))
    return row


def _nearest(truth: ExpertLabel, prediction: Prediction) -> np.ndarray:
    """Returns the expert's action (A,) with the equivalent angles that are nearest to the decoded ones."""
    wanted = truth.actions()
    if prediction.autoregressive is not None:
        decoded = prediction.autoregressive[0].reshape(wanted.shape)
        for channel, period in ((3, 2.0 * math.pi), (4, 2.0 * math.pi), (5, truth.yaw_period)):
            turns = np.round((decoded[:, channel] - wanted[:, channel]) / period)
            wanted[:, channel] += period * np.nan_to_num(turns)
    found: np.ndarray = wanted.ravel()
    return found


_SUITE: Optional[Suite] = None


def _start_worker(policy_factory: PolicyFactory, config: PolicyConfig, robot: RobotConfig, task: str, variation: str,
                  film: Optional[Path]) -> None:
    global _SUITE
    found = tasks.load(task)
    _SUITE = Suite(policy_factory(), config, robot, found.varied(variation) if variation else found, film=film)


def _run_one(spec: EpisodeSpec) -> Dict[str, Any]:
    assert _SUITE is not None, "a worker begins with _start_worker"
    return _SUITE.run(spec)


def run_suite(policy_factory: PolicyFactory, config: PolicyConfig, robot: RobotConfig, task: Task[AnyRig],
              specs: Sequence[EpisodeSpec], processes: int,
              progress: Callable[[Dict[str, Any]], None], film: Optional[Path] = None) -> List[Dict[str, Any]]:
    """Runs all specs.

    Args:
        policy_factory: Function that makes the policy of each process.
        config: Configuration of the policy.
        robot: Robot whose arms move.
        task: Task to run.
        specs: Specs, one per episode.
        processes: Number of processes that work in parallel; 1 or less runs everything in this process.
        progress: Callback, called with each episode as it ends.
        film: Folder for a video of each episode; None for no videos.

    Returns:
        The episodes in the order of the specs.

    Raises:
        HybridVLAError: A process could not start, or ended without a result, or a video cannot be written; this does not count
            as a failure of the policy.
    """
    if processes <= 1:
        suite, results = Suite(policy_factory(), config, robot, task, film=film), []
        try:
            for spec in specs:
                results.append(suite.run(spec))
                progress(results[-1])
        finally:
            suite.rig.close()
        return results
    results = []
    worker = (policy_factory, config, robot, task.name, task.variation, film)
    for result in in_processes(_run_one, specs, processes, _start_worker, worker, "use a smaller --processes"):
        progress(result)
        results.append(result)
    return results
