"""Times the filter's tick while proposals keep the arms moving: keyframes, dense steps and targets beyond the box."""
from __future__ import annotations

import time
from typing import Any, Dict, Sequence

import numpy as np

from hybridvla_core.contracts import ArmState, ArmTarget, DeltaBase, Heartbeat, PolicyState, Pose, Proposal
from hybridvla_core.errors import ConfigurationError
from hybridvla_core.geometry import rotations
from hybridvla_core.report.statistics import quantiles
from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.safety.filter import SafetyFilter

WARM_UP = 200          # ticks
PERIOD = 30            # ticks between proposals: about 7 Hz at 200 Hz


def measure(config: RobotConfig, ticks: int, seed: int) -> Dict[str, Any]:
    """Measures percentiles (ms) over `ticks` ticks: thread CPU time as `tick_ms`, wall time as `wall_ms`."""
    if ticks < 1:
        raise ConfigurationError(f"ticks is {ticks}; use at least 1")
    rng = np.random.default_rng(seed)
    safety = SafetyFilter(config)
    now = 1.0
    joints = {arm.name: np.array(arm.start_joints_rad) for arm in config.arms}
    turns = [rotations.to_quaternion(matrix) for matrix in safety.commanded_rotations]
    cpu, wall = np.empty(ticks), np.empty(ticks)
    for tick in range(-WARM_UP, ticks):
        now += config.dt
        for arm in config.arms:
            safety.update_arm_state(ArmState(arm.name, arm.joint_names, joints[arm.name].copy()), now)
        safety.on_deadman(True, now)
        if tick % 20 == 0:
            safety.on_heartbeat(Heartbeat(1, 0, 1, PolicyState.INFERRING), now)
        if tick == -WARM_UP + 1:
            safety.activate(True, now)
        if tick % PERIOD == 0:
            safety.on_proposal(_proposal(config, rng, turns, now, tick + WARM_UP + 1), now)
        begin, begin_cpu = time.perf_counter(), time.thread_time()
        output = safety.tick(now)
        if tick >= 0:
            cpu[tick], wall[tick] = time.thread_time() - begin_cpu, time.perf_counter() - begin
        for command in output.arms:
            if command.publish:
                joints[command.name] += 0.1 * (command.joint_positions - joints[command.name])
    return {"robot": config.name, "arms": len(config.arms), "ticks": ticks, "tick_ms": _percentiles(cpu),
            "wall_ms": _percentiles(wall)}


def _proposal(config: RobotConfig, rng: np.random.Generator, turns: Sequence[np.ndarray], now: float, sequence: int) -> Proposal:
    targets = []
    for arm, turn in zip(config.arms, turns):
        low, high = np.array(arm.workspace.lower_m), np.array(arm.workspace.upper_m)
        pose = Pose(rng.uniform(low - 0.05, high + 0.05), turn)
        targets.append(ArmTarget(arm.name, arm.base_frame, pose, now, pose, DeltaBase.COMMANDED, float(rng.random())))
    period = 0.15 if rng.random() < 0.5 else 0.0
    return Proposal(now, 1, sequence, 1, "bench", 2.0, tuple(targets), action_period=period)


def _percentiles(seconds: np.ndarray) -> Dict[str, float]:
    return quantiles(seconds * 1e3, {"median": 50.0, "p99": 99.0, "p99_9": 99.9, "max": 100.0})
