"""A fast stand-in for the rig: keyframes without dynamics, for rollouts of a policy in training (DAgger).

It jumps from keyframe to keyframe with a little error, grasps when the geometry allows it, and pushes blocks that open
fingers come down on. What a policy learns from it is judged in the real rig.
"""
from __future__ import annotations

from pathlib import Path
from typing import Callable, Dict, List, Optional

import numpy as np

from hybridvla_sim.tasks.blocks.demonstrations import Row, label_row, write_rows
from hybridvla_sim.tasks.blocks.expert import WorldState, fold
from hybridvla_sim.tasks.blocks.pictures import SceneCamera
from hybridvla_sim.tasks.blocks.sampler import HELD_OPENING, REST, START
from hybridvla_sim.tasks.blocks.task import SUCCESS_RADIUS, sample_scene

#: images (B, S, S, 3) uint8, states (B, 7), instructions (B,) = block * 4 + pad -> actions (B, 7), physical units.
BatchPolicy = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


class KinematicWorld:
    """One scene, played by keyframes."""

    def __init__(self, rng: np.random.Generator) -> None:
        scene = sample_scene(rng)
        self.rng = rng
        self.position = np.column_stack([scene.block_xy, np.full(4, REST)])
        self.block_yaw, self.pads = scene.block_yaw.copy(), scene.pad_xy
        self.tool, self.yaw, self.opening, self.held = START.copy(), 0.0, 1.0, -1

    @property
    def state(self) -> WorldState:
        return WorldState(self.tool.copy(), self.yaw, self.opening, self.position.copy(), self.block_yaw.copy(), self.pads)

    def done(self, block: int, pad: int) -> bool:
        near = np.linalg.norm(self.position[block, :2] - self.pads[pad]) < SUCCESS_RADIUS
        return bool(self.held != block and near and self.position[block, 2] < 0.04 and self.opening > 0.8)

    def execute(self, action: np.ndarray) -> None:
        """One keyframe: action (7,) as the label's, the gripper after arrival."""
        rng = self.rng
        target = np.clip(self.tool + np.clip(action[:3], -0.6, 0.6), [0.25, -0.4, 0.012], [0.75, 0.4, 0.55])
        tool = target + rng.normal(0, 0.0012, 3)
        yaw = float(np.clip(action[5], -1.0, 1.0)) + rng.normal(0, 0.006)
        if self.held >= 0:
            self._carry(tool, yaw)
        else:
            self._push(tool, yaw)
        self.tool, self.yaw = tool, yaw
        if action[6] < 0.5 and self.opening > 0.85:
            self._close()
        elif action[6] >= 0.5 and self.opening < 0.85:
            self._open()

    def _carry(self, tool: np.ndarray, yaw: float) -> None:
        block, turn = self.held, yaw - self.yaw
        offset = self.position[block] - self.tool
        cos, sin = np.cos(turn), np.sin(turn)
        offset[:2] = [cos * offset[0] - sin * offset[1], sin * offset[0] + cos * offset[1]]
        self.position[block] = tool + offset
        self.position[block, 2] = max(self.position[block, 2], REST)
        self.block_yaw[block] += turn

    def _push(self, tool: np.ndarray, yaw: float) -> None:
        if tool[2] >= 0.06:
            return
        for block in range(4):
            along, across = self._local(self.position[block, :2] - tool[:2], yaw)
            if self.position[block, 2] < 0.04 and abs(along) < 0.03 and 0.028 < abs(across) < 0.075:
                way = np.array([-np.sin(yaw), np.cos(yaw)]) * np.sign(across)
                self.position[block, :2] += way * 0.02 * self.rng.random()

    @staticmethod
    def _local(offset: np.ndarray, yaw: float):
        cos, sin = np.cos(yaw), np.sin(yaw)
        return cos * offset[0] + sin * offset[1], -sin * offset[0] + cos * offset[1]

    def _close(self) -> None:
        nearest = int(np.linalg.norm(self.position[:, :2] - self.tool[:2], axis=1).argmin())
        offset = self.position[nearest] - self.tool
        along, across = self._local(offset, self.yaw)
        twist = abs(fold(self.yaw - self.block_yaw[nearest]))
        half = REST * (np.cos(twist) + np.sin(twist))
        if abs(along) < 0.018 and abs(across) + half < 0.039 and abs(offset[2]) < 0.02 and twist < 0.55:
            self.held, self.opening = nearest, HELD_OPENING + self.rng.normal(0, 0.006)
            quarter = np.pi / 2
            self.block_yaw[nearest] = self.yaw + round((self.block_yaw[nearest] - self.yaw) / quarter) * quarter
            self.position[nearest] = self.tool + [np.cos(self.yaw) * along, np.sin(self.yaw) * along,
                                                  max(offset[2], REST - self.tool[2])]
        else:
            self.opening = abs(self.rng.normal(0, 0.01))

    def _open(self) -> None:
        self.opening = 1.0 - abs(self.rng.normal(0, 0.004))
        if self.held < 0:
            return
        block, self.held = self.held, -1
        self.position[block, 2] = REST
        for other in range(4):
            way = self.position[block, :2] - self.position[other, :2]
            distance = np.linalg.norm(way)
            if other != block and distance < 0.035:  # it slides off the one below
                self.position[block, :2] += way / (distance + 1e-6) * 0.045


def record_policy_episodes(policy: Optional[BatchPolicy], seed: int, episodes: int, path: Optional[Path], steps: int = 12,
                           switch_share: float = 0.3, randomise: bool = True) -> Dict[str, float]:
    """Lets a policy act in many worlds at once and labels every state it meets.

    Args:
        policy: Acts; None for the expert.
        seed: Draws worlds, instructions and switches.
        episodes: How many worlds.
        path: Shard to be written; None for none.
        steps: At most, of each episode.
        switch_share: Share of the episodes whose instruction changes once, 0 to 1.
        randomise: Draw the look of each picture anew.

    Returns:
        `success`, the share of successful episodes, and `switched`, that of those drawn to be switched; 0 to 1.
    """
    rng, camera, rows = np.random.default_rng(seed), SceneCamera(), []
    worlds = [KinematicWorld(np.random.default_rng([seed, index])) for index in range(episodes)]
    goals = rng.integers(0, 16, episodes)
    switch_at = np.where(rng.random(episodes) < switch_share, rng.integers(1, 6, episodes), -1)
    finished = np.zeros(episodes, dtype=bool)
    for step in range(steps):
        active = [index for index in range(episodes) if not finished[index]]
        if not active:
            break
        batch: List[Row] = []
        for index in active:
            if step == switch_at[index]:
                block, pad = divmod(int(goals[index]), 4)
                goals[index] = (block + 1 + rng.integers(3)) % 4 * 4 + (pad + 1 + rng.integers(3)) % 4
            if randomise:
                camera.randomise(rng)
            camera.pose(worlds[index].state)
            batch.append(label_row(worlds[index].state, *camera.pair()))
        rows += batch
        chosen = goals[active]
        if policy is None:
            actions = np.stack([row["target"][goal] for row, goal in zip(batch, chosen)])
        else:
            actions = policy(np.stack([row["images"] for row in batch]),
                             np.stack([row["state"] for row in batch]).astype(float), chosen)
        for index, action in zip(active, actions):
            worlds[index].execute(action)
            finished[index] = step >= switch_at[index] and worlds[index].done(*divmod(int(goals[index]), 4))
    camera.close()
    if path is not None:
        write_rows(path, rows)
    switched = switch_at >= 0
    return {"success": float(finished.mean()), "switched": float(finished[switched].mean()) if switched.any() else 0.0}
