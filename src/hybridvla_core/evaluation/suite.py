"""Suites of episodes drawn from a seed, and what is reported of them."""
from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np

from hybridvla_core.configuration import load_file
from hybridvla_core.evaluation.episode import Decision, EpisodeRunner
from hybridvla_core.policy.config import PolicyConfig
from hybridvla_core.policy.interface import PolicyInterface
from hybridvla_core.report.statistics import calibration, correlation, percentiles, rate, wilson
from hybridvla_core.robots.config import RobotConfig

LARGEST_TRAINING_SEED = 1_000_000
#: When an instruction is switched: anywhere in the time an episode usually takes, s.
SWITCH_TIME = (0.5, 9.0)


@dataclass(frozen=True)
class EpisodeSpec:
    """One episode of a suite, everything in it drawn from `seed`: scene, instruction, and the switch if there is one."""

    seed: int
    block: int
    pad: int
    switch_at: Optional[float] = None
    second: Optional[Tuple[int, int]] = None


def draw_specs(seed: int, episodes: int, switched: bool) -> List[EpisodeSpec]:
    """Episode i draws from seed + i. A switched one changes both words at a time drawn as well."""
    specs = []
    for index in range(episodes):
        rng = np.random.default_rng([seed + index, 17])
        block, pad = int(rng.integers(4)), int(rng.integers(4))
        spec = EpisodeSpec(seed + index, block, pad)
        if switched:
            second = ((block + 1 + int(rng.integers(3))) % 4, (pad + 1 + int(rng.integers(3))) % 4)
            spec = replace(spec, switch_at=float(rng.uniform(*SWITCH_TIME)), second=second)
        specs.append(spec)
    return specs


def make_rig(robot: RobotConfig) -> Any:
    """A rig whose monitor counts against the robot's limits, read here and not through the filter."""
    from hybridvla_sim.fr3.rig import Rig, RigConfig
    from hybridvla_sim.monitor import MonitorLimits

    arm = robot.arms[0]
    return Rig(RigConfig(limits=MonitorLimits(
        tuple(arm.workspace.lower_m), tuple(arm.workspace.upper_m), arm.cartesian_limits.speed_m_s,
        arm.cartesian_limits.rotation_speed_rad_s)))


def label(rig: Any, instruction: str) -> Dict[str, Any]:
    """The expert's action for the true state: what the prediction is compared with."""
    from hybridvla_sim.tasks.blocks.expert import expert_action
    from hybridvla_sim.tasks.blocks.task import parse_instruction

    world = rig.world_state()
    action = expert_action(world, *parse_instruction(instruction))
    return {"phase": action.phase, "delta": action.position - world.tool, "yaw": action.yaw, "opening": action.opening}


class Suite:
    """Runs specs with one policy on one rig."""

    def __init__(self, policy: PolicyInterface, config: PolicyConfig, robot: RobotConfig) -> None:
        self.rig = make_rig(robot)
        self.runner = EpisodeRunner(policy, config, robot, self.rig, observe=label)

    def run(self, spec: EpisodeSpec) -> Dict[str, Any]:
        """One episode as plain data."""
        from hybridvla_sim.tasks.blocks.task import instruction, parse_instruction, sample_scene

        before = self.rig.monitor.violations
        self.rig.reset(sample_scene(np.random.default_rng(spec.seed)))
        switch = None if spec.second is None else (spec.switch_at, instruction(*spec.second))
        result = self.runner.run(instruction(spec.block, spec.pad),
                                 lambda rig, text: rig.success(*parse_instruction(text)), switch=switch)
        goal = spec.second or (spec.block, spec.pad)
        return {"seed": spec.seed, "task": instruction(*goal), "success": result.success,
                "time": round(result.time, 2), "keyframes": len(result.decisions),
                "violations": self.rig.monitor.violations - before, "counters": result.counters,
                "tick_ms": result.tick_ms, "decisions": [_row(d) for d in result.decisions]}


def _row(decision: Decision) -> Dict[str, Any]:
    prediction, truth = decision.prediction, decision.observer
    row = {"phase": truth["phase"], "fused": prediction.fused, "confidence": prediction.mean_confidence,
           "ms": sum(prediction.stage_ms.values()), "distance": prediction.path_distance,
           "gripper_right": bool((prediction.action[0, 6] > 0.5) == (truth["opening"] > 0.5))}
    for name, action in (("error", prediction.action), ("diffusion", prediction.diffusion),
                         ("autoregressive", prediction.autoregressive)):
        row[name] = None if action is None else (action[0, :3] - truth["delta"]).tolist()
    row["yaw_error"] = abs(math.remainder(float(prediction.action[0, 5]) - truth["yaw"], math.pi / 2))
    return row


def summarise(episodes: Sequence[Dict[str, Any]], mode: str, seed: int) -> Dict[str, Any]:
    """The suite's result for machines."""
    wins = sum(episode["success"] for episode in episodes)
    rows = [row for episode in episodes for row in episode["decisions"]]
    tasks: Dict[str, List[bool]] = defaultdict(list)
    interventions: Counter = Counter()
    for episode in episodes:
        tasks[episode["task"]].append(episode["success"])
        for name, count in episode["counters"].items():
            if name.startswith(("limited/", "rejected/", "holds")):
                interventions[name] += count
    both = [row for row in rows if row["diffusion"] is not None and row["autoregressive"] is not None]
    norms = [float(np.linalg.norm(row["error"])) for row in rows]
    by_phase: Dict[str, List[float]] = defaultdict(list)
    for row, norm in zip(rows, norms):
        by_phase[row["phase"]].append(norm)
    seen = [row for row in rows if not math.isnan(row["confidence"])]
    return {
        "episodes": len(episodes), "successes": wins, "success_rate": rate(wins, len(episodes)),
        "interval": wilson(wins, len(episodes)), "mode": mode, "seed": seed,
        "fused_share": rate(sum(row["fused"] for row in rows), len(rows)), "predictions": len(rows),
        "per_task": {task: {"episodes": len(w), "successes": sum(w)} for task, w in sorted(tasks.items())},
        "failed_seeds": [episode["seed"] for episode in episodes if not episode["success"]],
        "median_keyframes": float(np.median([episode["keyframes"] for episode in episodes])) if episodes else 0.0,
        "median_time_s": float(np.median([episode["time"] for episode in episodes])) if episodes else 0.0,
        "limit_violations": sum(episode["violations"] for episode in episodes), "interventions": dict(interventions),
        "prediction_ms": percentiles([row["ms"] for row in rows]),
        "filter_tick_ms": percentiles([tick for episode in episodes for tick in episode["tick_ms"]]),
        "median_error_mm": round(float(np.median(norms)) * 1e3, 2) if norms else None,
        "median_error_mm_by_phase": {phase: round(float(np.median(v)) * 1e3, 2) for phase, v in sorted(by_phase.items())},
        "median_yaw_error_rad": round(float(np.median([row["yaw_error"] for row in rows])), 4) if rows else None,
        "mean_confidence": round(float(np.mean([row["confidence"] for row in seen])), 4) if seen else None,
        "calibration": calibration([row["confidence"] for row in seen],
                                   [float(np.linalg.norm(row["error"])) for row in seen]),
        "path_error_correlation": None if not both else round(correlation(
            [np.array(row["diffusion"]) for row in both], [np.array(row["autoregressive"]) for row in both]), 4)}


_SUITE: Optional[Suite] = None


def _start_worker(policy_factory: Callable[[], Any], config: PolicyConfig, robot: RobotConfig) -> None:
    global _SUITE
    _SUITE = Suite(policy_factory(), config, robot)


def _run_one(spec: EpisodeSpec) -> Dict[str, Any]:
    return _SUITE.run(spec)


def run_suite(policy_factory: Callable[[], Any], config: PolicyConfig, robot: RobotConfig, specs: Sequence[EpisodeSpec],
              processes: int, progress: Callable[[Dict[str, Any]], None]) -> List[Dict[str, Any]]:
    """All specs, in their order in the result; `progress` sees each episode as it ends."""
    results: List[Dict[str, Any]] = []
    if processes <= 1:
        suite = Suite(policy_factory(), config, robot)
        for spec in specs:
            results.append(suite.run(spec))
            progress(results[-1])
        suite.rig.close()
        return results
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    with context.Pool(processes, _start_worker, (policy_factory, config, robot)) as pool:
        for result in pool.imap(_run_one, specs):
            results.append(result)
            progress(result)
    return results


def load_configs(policy_file: Path, robot_file: Path, mode: str) -> Tuple[PolicyConfig, RobotConfig]:
    config = replace(load_file(PolicyConfig, policy_file), mode=mode)
    return config, load_file(RobotConfig, robot_file)
