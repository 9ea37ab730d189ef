"""Keyframe episodes in the rig without filter and without ROS: how good is the expert, how fast the rig?

    python -m hybridvla_sim.tasks.blocks.rollout --episodes 30 --seed 1000
"""
from __future__ import annotations

import argparse
import time
from typing import Callable, Optional, Tuple

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from hybridvla_core.contracts import Pose
from hybridvla_sim.fr3.rig import Rig
from hybridvla_sim.tasks.blocks.expert import expert_action
from hybridvla_sim.tasks.blocks.task import instruction
from hybridvla_sim.tasks.blocks.world import TASK

SPEED, TURN_SPEED, TICK = 0.25, 1.0, 0.005  # m/s, rad/s, s
Chooser = Callable[[Rig, int, int], Tuple[Pose, float]]


def ask_expert(rig: Rig, block: int, pad: int) -> Tuple[Pose, float]:
    action = expert_action(rig.world.state(), block, pad)
    return action.pose, action.opening


def execute(rig: Rig, pose: Pose, opening: float) -> None:
    """Execute one keyframe: a straight line at constant speed, a pause to settle, then the gripper."""
    start = rig.arm_state().pose
    turns = Slerp([0.0, 1.0], Rotation.from_quat([start.quaternion, pose.quaternion]))
    distance = np.linalg.norm(pose.position - start.position)
    angle = (turns(0.0).inv() * turns(1.0)).magnitude()
    ticks = max(1, int(max(distance / SPEED, angle / TURN_SPEED) / TICK))
    for tick in range(1, ticks + 1):
        share = tick / ticks
        rig.set_equilibrium_pose(start.position + share * (pose.position - start.position), turns(share).as_quat())
        rig.step(TICK)
    rig.step(0.4)
    if abs(opening - rig.opening) > 0.2:
        rig.command_gripper(opening)
        rig.step(0.6)


def episode(rig: Rig, seed: int, choose: Chooser = ask_expert, keyframes: int = 10, switch_at: Optional[int] = None
            ) -> Tuple[bool, int]:
    """Run one episode; `seed` draws scene and instruction. With `switch_at`, both words change at that keyframe."""
    rng = np.random.default_rng(seed)
    rig.reset(rng)
    block, pad = int(rng.integers(4)), int(rng.integers(4))
    for index in range(keyframes + (switch_at or 0)):
        if index == switch_at:
            block, pad = (block + 1 + int(rng.integers(3))) % 4, (pad + 1 + int(rng.integers(3))) % 4
        elif rig.world.success(instruction(block, pad)) and (switch_at is None or index > switch_at):
            return True, index
        execute(rig, *choose(rig, block, pad))
    return rig.world.success(instruction(block, pad)), keyframes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--switch", action="store_true", help="switch the instruction in mid-episode")
    arguments = parser.parse_args()
    rig, wins, simulated, started = Rig(TASK), 0, 0.0, time.monotonic()
    for index in range(arguments.episodes):
        switch_at = 1 + index % 4 if arguments.switch else None
        success, keyframes = episode(rig, arguments.seed + index, switch_at=switch_at)
        wins, simulated = wins + success, simulated + rig.time
        print(f"episode {arguments.seed + index}: {'success' if success else 'FAILURE'} after {keyframes} keyframes")
    print(f"{wins}/{arguments.episodes} successful; {simulated / (time.monotonic() - started):.1f} x real time")


if __name__ == "__main__":
    main()
