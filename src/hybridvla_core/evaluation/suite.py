"""The report on a suite of episodes, and the configurations it is run with."""
from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, List, Mapping, Sequence, Tuple

import numpy as np

from hybridvla_core.configuration import load_file
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.evaluation.reliability import binned, of_bins, of_episodes
from hybridvla_core.policy.config import PolicyConfig
from hybridvla_core.report.statistics import calibration, correlation, percentiles, rate, wilson
from hybridvla_core.robots.config import RobotConfig

#: Larger seeds are reserved for evaluation; no scene of the training data is drawn from them.
LARGEST_TRAINING_SEED = 1_000_000
#: First scene by which a training judges its checkpoints: whoever picks a checkpoint by the training log must not have looked at
#: the scenes of the final evaluation, which begin at 2 000 001.
VALIDATION_SEED = 4_000_001
LARGEST_VALIDATION_SEED = 5_000_000


def check_seeds(seed: int, episodes: int) -> None:
    """Refuses scenes with which a checkpoint was trained or by which it may have been chosen.

    Args:
        seed: Seed of the first episode; the following ones count up from it.
        episodes: Number of episodes.

    Raises:
        HybridVLAError: One of them belongs to training or to a training's own evaluation.
    """
    if seed <= LARGEST_TRAINING_SEED:
        raise HybridVLAError(f"--seed {seed}: seeds up to {LARGEST_TRAINING_SEED} belong to training; use a larger one")
    if seed <= LARGEST_VALIDATION_SEED and seed + episodes > VALIDATION_SEED:
        raise HybridVLAError(f"--seed {seed}, {episodes} episodes: seeds {VALIDATION_SEED} to {LARGEST_VALIDATION_SEED} belong "
                             "to the evaluation within a training, by which its checkpoint may have been chosen; use others")


def summarise(episodes: Sequence[Dict[str, Any]], mode: str, seed: int) -> Dict[str, Any]:
    """Returns the suite's result for machines."""
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
    judged = [row for row in rows if row["error"] is not None]      # over ROS predictions are not compared with the expert's
    norms = [float(np.linalg.norm(row["error"])) for row in judged]
    by_phase: Dict[str, List[float]] = defaultdict(list)
    for row, norm in zip(judged, norms):
        by_phase[row["phase"]].append(norm)
    seen = [row for row in rows if not math.isnan(row["confidence"])]
    told = [row for row in seen if row["error"] is not None]
    kept = [kept_of(episode) for episode in episodes]
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
        "median_yaw_error_rad": round(float(np.median([row["yaw_error"] for row in judged])), 4) if judged else None,
        "mean_confidence": round(float(np.mean([row["confidence"] for row in seen])), 4) if seen else None,
        "calibration": calibration([row["confidence"] for row in told],
                                   [float(np.linalg.norm(row["error"])) for row in told]),
        "reliability": trust(kept),
        "path_error_correlation": None if not both else round(correlation(
            [np.array(row["diffusion"]) for row in both], [np.array(row["autoregressive"]) for row in both]), 4),
        "rows": kept}


def kept_of(episode: Mapping[str, Any]) -> Dict[str, Any]:
    """Returns the record of one episode: enough to pool it with others later.

    Args:
        episode: Episode as it was run, with its decisions.

    Returns:
        `seed`, `instruction`, `success`, `time` s, `violations`, `predictions`, how many of them were `fused`, the mean
        `confidence` (None if there is none), and `tokens`, the counts of `reliability.binned`; over ROS also `stops`, how
        often the filter stopped and was resumed.
    """
    rows = episode["decisions"]
    decoded = [row for row in rows if row["token_right"] is not None]
    confidence = _mean([row["confidence"] for row in rows])
    return {"seed": episode["seed"], "instruction": episode["task"], "success": bool(episode["success"]), "time": episode["time"],
            **({"stops": episode["stops"]} if "stops" in episode else {}), "violations": episode["violations"],
            "predictions": len(rows), "fused": sum(bool(row["fused"]) for row in rows),
            "confidence": None if math.isnan(confidence) else round(confidence, 5),
            "tokens": [[int(number), int(tokens), round(told, 5), int(right)] for number, tokens, told, right in binned(
                np.array([value for row in decoded for value in row["token_confidence"]]),
                np.array([value for row in decoded for value in row["token_right"]]))] if decoded else []}


def trust(kept: Sequence[Mapping[str, Any]]) -> Dict[str, Any]:
    """Returns what confidence is worth over episodes of one task: success of both halves, and predicted against observed.

    Args:
        kept: Records as `kept_of` returns them.
    """
    nan = float("nan")
    return {**of_episodes([nan if row["confidence"] is None else row["confidence"] for row in kept],
                          [row["success"] for row in kept]),
            **of_bins(counts for row in kept for counts in row["tokens"])}


def followed(episodes: Sequence[Dict[str, Any]]) -> Dict[str, Any]:
    """Returns in how many scenes both instructions were carried out, each in its own episode: there the words decided.

    Args:
        episodes: Two consecutive episodes of each scene, whose instructions ask for different things.
    """
    pairs = list(zip(episodes[::2], episodes[1::2]))
    both = sum(first["success"] and second["success"] for first, second in pairs)
    return {"scenes": len(pairs), "followed": both, "followed_rate": rate(both, len(pairs)),
            "followed_interval": wilson(both, len(pairs))}


def _mean(values: Sequence[float]) -> float:
    """Returns the mean of the finite values; NaN if there are none."""
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else float("nan")


def load_configs(policy_file: Path, robot_file: Path, mode: str) -> Tuple[PolicyConfig, RobotConfig]:
    """Returns both configurations, the policy's with `mode`."""
    config = replace(load_file(PolicyConfig, policy_file), mode=mode)
    return config, load_file(RobotConfig, robot_file)
