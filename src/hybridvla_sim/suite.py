"""Runs suites of episodes of a task with one policy: in this process, or in several."""
from __future__ import annotations

import math
import multiprocessing
from typing import Any, Callable, Dict, List, Optional, Sequence

import numpy as np

from hybridvla_core.evaluation.episode import Decision, EpisodeRunner
from hybridvla_core.policy.config import PolicyConfig
from hybridvla_core.policy.interface import PolicyInterface
from hybridvla_core.robots.config import RobotConfig
from hybridvla_sim import tasks
from hybridvla_sim.fr3.rig import Rig, RigConfig
from hybridvla_sim.monitor import MonitorLimits
from hybridvla_sim.task import EpisodeSpec, ExpertLabel, Task

PolicyFactory = Callable[[], PolicyInterface]


def make_rig(task: Task[Rig], robot: RobotConfig) -> Rig:
    """Returns a rig whose monitor counts against the robot's limits, read here and not through the filter."""
    return Rig(task, RigConfig(limits=MonitorLimits.of(robot.arms[0])))


def label(rig: Rig, instruction: str) -> ExpertLabel:
    """Returns the expert's action for the true state: what a prediction is compared with."""
    return rig.world.expert(instruction)


class Suite:
    """Runs specs of one task with one policy on one rig."""

    def __init__(self, policy: PolicyInterface, config: PolicyConfig, robot: RobotConfig, task: Task[Rig]) -> None:
        self.task, self.rig = task, make_rig(task, robot)
        self.runner = EpisodeRunner(policy, config, robot, self.rig, observe=label)

    def run(self, spec: EpisodeSpec) -> Dict[str, Any]:
        """Runs one episode and returns it as plain data."""
        before = self.rig.monitor.violations
        self.rig.reset(np.random.default_rng(spec.seed))
        switch = None if spec.second is None else (spec.switch_at, spec.second)
        result = self.runner.run(spec.instruction, lambda rig, text: rig.world.success(text), switch=switch)
        return {"seed": spec.seed, "task": spec.goal, "success": result.success,
                "time": round(result.time, 2), "keyframes": len(result.decisions),
                "violations": self.rig.monitor.violations - before, "counters": result.counters,
                "tick_ms": result.tick_ms, "decisions": [_row(d) for d in result.decisions]}


def _row(decision: Decision) -> Dict[str, Any]:
    prediction, truth = decision.prediction, decision.observer
    row = {"phase": truth.phase, "fused": prediction.fused, "confidence": prediction.mean_confidence,
           "ms": sum(prediction.stage_ms.values()), "distance": prediction.path_distance,
           "gripper_right": bool((prediction.action[0, 6] > 0.5) == (truth.opening[0] > 0.5))}
    for name, action in (("error", prediction.action), ("diffusion", prediction.diffusion),
                         ("autoregressive", prediction.autoregressive)):
        row[name] = None if action is None else (action[0, :3] - truth.delta[0]).tolist()
    row["yaw_error"] = abs(math.remainder(float(prediction.action[0, 5]) - float(truth.yaw[0]), truth.yaw_period))
    return row


_SUITE: Optional[Suite] = None


def _start_worker(policy_factory: PolicyFactory, config: PolicyConfig, robot: RobotConfig, task: str) -> None:
    global _SUITE
    _SUITE = Suite(policy_factory(), config, robot, tasks.load(task))


def _run_one(spec: EpisodeSpec) -> Dict[str, Any]:
    assert _SUITE is not None, "a worker begins with _start_worker"
    return _SUITE.run(spec)


def run_suite(policy_factory: PolicyFactory, config: PolicyConfig, robot: RobotConfig, task: Task[Rig],
              specs: Sequence[EpisodeSpec], processes: int,
              progress: Callable[[Dict[str, Any]], None]) -> List[Dict[str, Any]]:
    """Runs all specs and returns them in their order; `progress` sees each episode as it ends."""
    results: List[Dict[str, Any]] = []
    if processes <= 1:
        suite = Suite(policy_factory(), config, robot, task)
        for spec in specs:
            results.append(suite.run(spec))
            progress(results[-1])
        suite.rig.close()
        return results
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes, _start_worker, (policy_factory, config, robot, task.name)) as pool:
        for result in pool.imap(_run_one, specs):
            results.append(result)
            progress(result)
    return results
