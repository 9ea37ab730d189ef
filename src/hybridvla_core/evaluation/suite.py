"""What is reported of a suite of episodes, and the configurations it is run with."""
from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple

import numpy as np

from hybridvla_core.configuration import load_file
from hybridvla_core.evaluation.reliability import of_episodes, of_tokens
from hybridvla_core.policy.config import PolicyConfig
from hybridvla_core.report.statistics import calibration, correlation, percentiles, rate, wilson
from hybridvla_core.robots.config import RobotConfig

#: Larger seeds belong to evaluation; no scene of the training data is drawn from them.
LARGEST_TRAINING_SEED = 1_000_000


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
    decoded = [row for row in rows if row["token_right"] is not None]
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
        "reliability": {
            **of_episodes([_mean([row["confidence"] for row in episode["decisions"]]) for episode in episodes],
                          [episode["success"] for episode in episodes]),
            **of_tokens(np.array([told for row in decoded for told in row["token_confidence"]]),
                        np.array([right for row in decoded for right in row["token_right"]]))},
        "path_error_correlation": None if not both else round(correlation(
            [np.array(row["diffusion"]) for row in both], [np.array(row["autoregressive"]) for row in both]), 4)}


def followed(episodes: Sequence[Dict[str, Any]]) -> Dict[str, Any]:
    """Returns in how many scenes both instructions were carried out, each in its own episode: the words decided.

    Args:
        episodes: Two of each scene, one behind the other, of instructions that ask for different things.
    """
    pairs = list(zip(episodes[::2], episodes[1::2]))
    both = sum(first["success"] and second["success"] for first, second in pairs)
    return {"scenes": len(pairs), "followed": both, "followed_rate": rate(both, len(pairs)),
            "followed_interval": wilson(both, len(pairs))}


def _mean(values: Sequence[float]) -> float:
    """Of those that are finite; NaN of none."""
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else float("nan")


def load_configs(policy_file: Path, robot_file: Path, mode: str) -> Tuple[PolicyConfig, RobotConfig]:
    """Returns both configurations, the policy's with `mode`."""
    config = replace(load_file(PolicyConfig, policy_file), mode=mode)
    return config, load_file(RobotConfig, robot_file)
