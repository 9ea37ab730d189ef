"""Draws docs/images/rig.png, the README's picture: what the simulated rig's two cameras see above a block.

    scripts/with_env.sh python scripts/tools/picture.py
"""
from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from hybridvla_sim.fr3.rig import Rig
from hybridvla_sim.tasks.blocks.world import TASK

SEED, BLOCK = 5, 0
ABOVE_M = 0.16
TOOL_DOWN = np.array([1.0, 0.0, 0.0, 0.0])


def main() -> None:
    """Moves the tool above the red block and puts both views side by side."""
    rig = Rig(TASK)
    rig.reset(np.random.default_rng(SEED))
    start = rig.arm_state().pose.position
    target = rig.world.block_position(BLOCK) + np.array([0.0, 0.0, ABOVE_M])
    for share in np.linspace(0.0, 1.0, 200):
        rig.set_equilibrium_pose(start + share * (target - start), TOOL_DOWN)
        rig.step(0.02)
    views = [np.kron(rig.render(camera), np.ones((2, 2, 1), np.uint8)) for camera in ("front", "wrist")]
    gap = np.full((views[0].shape[0], 8, 3), 255, np.uint8)
    path = Path(__file__).resolve().parents[2] / "docs" / "images" / "rig.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate([views[0], gap, views[1]], axis=1)).save(str(path), optimize=True)
    print(path)


if __name__ == "__main__":
    main()
