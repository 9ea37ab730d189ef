"""Failed episodes by the paper's three classes (appendix D): rotation, limits, two arms; and what is none of them."""
from __future__ import annotations

from typing import Any, Mapping, Sequence

import numpy as np

ROTATION, LIMITS, TWO_ARMS, OTHER = "rotation", "limits", "two arms", "other"
#: A keyframe that is turned further than this from the expert's, rad, or misses it by more, m, is wrong.
WRONG_RAD, WRONG_M = 0.2, 0.02
#: The filter's reasons that stand for a limit of the robot, and for how many ticks together one has to stand.
LIMIT_REASONS, LIMIT_TICKS = ("WORKSPACE", "JOINT_LIMIT", "COLLISION", "SINGULARITY", "SOLVER"), 50


def classify(decisions: Sequence[Mapping[str, Any]], reasons: Mapping[str, int]) -> str:
    """Sorts a failed episode.

    Args:
        decisions: Each with `yaw_error` (rad) and `errors` ((arms, 3) from the expert's targets, m).
        reasons: Ticks of the episode in which each of the filter's reasons stood.

    Returns:
        `LIMITS` where a limit kept the arm from what was asked; otherwise `TWO_ARMS` where one arm alone was wrong while
        both had to move; otherwise `ROTATION` where most wrong keyframes were turned; otherwise `OTHER`.
    """
    if sum(reasons.get(name, 0) for name in LIMIT_REASONS) >= LIMIT_TICKS:
        return LIMITS
    errors = [np.asarray(row["errors"], dtype=float) for row in decisions]
    if errors and errors[0].shape[0] > 1:
        apart = [np.linalg.norm(error, axis=1) > WRONG_M for error in errors]
        if sum(wrong.any() and not wrong.all() for wrong in apart) > len(apart) / 2:
            return TWO_ARMS
    turned = [row["yaw_error"] > WRONG_RAD for row in decisions]
    missed = [bool((np.linalg.norm(error, axis=1) > WRONG_M).any()) for error in errors]
    wrong = sum(turn or miss for turn, miss in zip(turned, missed))
    return ROTATION if wrong and sum(turned) > wrong / 2 else OTHER
