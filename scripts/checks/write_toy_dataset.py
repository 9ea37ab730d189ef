"""Writes a small data set as `hybridvla dataset` does, for external checkers: python write_toy_dataset.py FOLDER."""
from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from hybridvla_core.data.lerobot.layout import Description
from hybridvla_core.data.lerobot.writer import DatasetWriter

NAMES = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")
VIEWS = {"front": (64, 96), "wrist": (48, 48)}


def main() -> None:
    """Writes five episodes of two seconds each."""
    rng = np.random.default_rng(0)
    description = Description("toy", 30.0, VIEWS, NAMES, NAMES, grippers=(6,), robot="sim_fr3")
    with DatasetWriter(Path(sys.argv[1]), description) as out:
        for number in range(5):
            state = np.cumsum(rng.normal(scale=0.01, size=(61, 7)), axis=0)
            state[:, 6] = np.arange(61) < 30
            with out.episode(f"toy {number}", success=True) as episode:
                for frame in range(60):
                    images = {view: rng.integers(0, 255, (*size, 3), dtype=np.uint8) for view, size in VIEWS.items()}
                    action = state[frame + 1] - state[frame]
                    action[6] = state[frame + 1][6]
                    episode.add(images, state[frame], action, "put the red block on the green pad")
        out.finish()


if __name__ == "__main__":
    main()
