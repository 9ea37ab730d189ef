"""How often `reenter` brings a robot back from a pose outside its limits, and what prevents it otherwise."""
from __future__ import annotations

import dataclasses
import re
import time
from typing import Any, Dict, Iterator, List, Tuple

import numpy as np

from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.safety.execution.reentry import Reentry, worst_violation
from hybridvla_core.safety.motion.motion import Motion

BEYOND_RAD = 0.1       # a joint may be this far beyond its limit: the robot's own stops are further out
OVERLAP_M = 0.005      # links that overlap each other or the table by more are impossible: capsules are coarse
LONGEST_S = 300.0      # longest way, at the speed of this benchmark
TICK_HZ = 50.0
SCALE = 0.5            # factor on the speeds, so that a way takes few ticks; obstacles are the same at any speed


def measure(config: RobotConfig, count: int, seed: int) -> Dict[str, Any]:
    """Starts from random poses outside a limit, with arms that follow exactly.

    Args:
        config: Configuration of the robot.
        count: Number of poses.
        seed: Seed of the poses.

    Returns:
        robot, poses, back, seconds (of computing), and `failed`: joints and last message of each pose that stayed outside.
    """
    config = dataclasses.replace(config, tick_hz=TICK_HZ, status_hz=TICK_HZ, reenter_scale=SCALE, deadman_required=False)
    began, failed, back, ways = time.perf_counter(), [], 0, []
    for joints in poses(config, count, seed):
        ended, text, seconds = lead(config, joints)
        back += ended
        ways += [seconds] if ended else []
        failed += [] if ended else [{"joints": joints.tolist(), "said": text}]
    return {"robot": config.name, "poses": count, "back": back, "way_s": float(np.median(ways)) if ways else float("nan"),
            "seconds": time.perf_counter() - began, "failed": failed}


def poses(config: RobotConfig, count: int, seed: int) -> Iterator[np.ndarray]:
    """Yields random joints (A, dof) rad that violate a limit but are physically possible."""
    rng, motion = np.random.default_rng(seed), Motion(config)
    lower = np.array([arm.joint_limits.lower_rad for arm in config.arms]) - BEYOND_RAD
    upper = np.array([arm.joint_limits.upper_rad for arm in config.arms]) + BEYOND_RAD
    kept = {"table": max(arm.collision.margin_m for arm in config.arms),
            "self_collision": max(arm.collision.margin_m for arm in config.arms), "inter_arm": config.inter_arm_margin_m}
    while count > 0:
        joints = rng.uniform(lower, upper)
        solid = all(margins.min(initial=1.0) > -kept[limit.name] - OVERLAP_M for limit, margins in motion.margins(joints)
                    if limit.name in kept)
        if solid and worst_violation(motion, joints):
            count -= 1
            yield joints


def lead(config: RobotConfig, joints: np.ndarray) -> Tuple[bool, str, float]:
    """Returns whether arms that follow come back from joints (A, dof) rad, what stays violated, and the way's duration, s."""
    motion = Motion(config)
    motion.seed(joints)
    reentry = Reentry(config, motion)
    for tick in range(int(LONGEST_S * TICK_HZ)):
        if not reentry.step(SCALE):
            return False, f"a step was refused: {', '.join(motion.limited)}", tick * config.dt
        if reentry.finished or reentry.stuck:
            return reentry.finished, worst_violation(motion), tick * config.dt
    return False, f"not within {LONGEST_S:.0f} s: {worst_violation(motion)}", LONGEST_S


def table(results: List[Dict[str, Any]]) -> str:
    """Returns a table for people: one line per robot, and below it the messages for poses that stayed outside."""
    lines = [f"{'robot':10} {'poses':>6} {'back':>6} {'share':>8} {'median way':>11}"]
    for result in results:
        lines.append(f"{result['robot']:10} {result['poses']:6} {result['back']:6} "
                     f"{100.0 * result['back'] / max(1, result['poses']):6.1f} % {result['way_s']:9.1f} s")
        said: Dict[str, int] = {}
        for pose in result["failed"]:
            text = re.sub(r"-?\d+\.\d+", "..", pose["said"].split(": ", 1)[-1])
            said[text] = said.get(text, 0) + 1
        lines += [f"    {number:4}  {text}" for text, number in sorted(said.items(), key=lambda item: -item[1])[:8]]
    return "\n".join(lines)
