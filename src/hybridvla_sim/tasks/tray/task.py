"""The task: carry the tray to the green mark with both hands. Instruction, true state, place of the goal."""
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
    """The true state of what is on the table, in the frame that both arms share.

    Attributes:
        position: Position (3,) of the tray, m.
        yaw: Yaw of the tray, rad.
        block: Position (3,) of the block in it, m.
        openings: Openings of the grippers, the right one first, 0 closed to 1 open.
    """

    position: np.ndarray
    yaw: float
    block: np.ndarray
    openings: Tuple[float, ...]
