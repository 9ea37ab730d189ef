"""The task: carry the tray to the green mark with both hands. Instruction, true state, where the goal is."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple

import numpy as np

from hybridvla_sim.taskkit.phrases import Phrases, Thing

GOAL_XY = (0.40, 0.0)            # m, middle of the marked place
GOAL_RADIUS = 0.03               # m
TRAY_REST_Z = 0.005              # m
INSTRUCTION = "carry the tray to the green mark with both hands"
PHRASES = Phrases("tray", {"carried": (INSTRUCTION,)}, {"tray": Thing(("tray",), "tray", symmetry=2),
                                                       "mark": Thing(("green mark",), geoms=("goal",))})


@dataclass(frozen=True)
class TrayState:
    """The true state of what lies on the table, in the frame both arms share.

    Attributes:
        position: (3,) of the tray, m.
        yaw: Of the tray, rad.
        block: (3,) of the block in it, m.
        openings: Of the grippers, right first, 0 closed to 1 open.
    """

    position: np.ndarray
    yaw: float
    block: np.ndarray
    openings: Tuple[float, ...]
