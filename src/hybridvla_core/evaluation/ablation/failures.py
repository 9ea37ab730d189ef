"""Classifies failed episodes by the paper's three classes (appendix D): rotation, limits, two arms; and the rest as other."""
from __future__ import annotations

from typing import Any, Mapping, Sequence

import numpy as np

ROTATION, LIMITS, TWO_ARMS, OTHER = "rotation", "limits", "two arms", "other"
#: A keyframe is wrong if it is rotated from the expert's by more than this, rad, or misses it by more than this, m.
WRONG_RAD, WRONG_M = 0.2, 0.02
#: The filter's reasons that mean a limit of the robot, and the total number of ticks for which they must apply.
LIMIT_REASONS, LIMIT_TICKS = ("WORKSPACE", "JOINT_LIMIT", "COLLISION", "SINGULARITY", "SOLVER"), 50


def classify(decisions: Sequence[Mapping[str, Any]], reasons: Mapping[str, int]) -> str:
    """Classifies a failed episode.

    Args:
        decisions: The episode's decisions, each with `yaw_error` (rad) and `errors` ((arms, 3) from the expert's targets, m).
        reasons: Number of ticks of the episode for which each of the filter's reasons applied.

    Returns:
        `LIMITS` if a limit kept the arm from its target; otherwise `TWO_ARMS` if only one arm was wrong while both had to
        move; otherwise `ROTATION` if most wrong keyframes were wrong in rotation; otherwise `OTHER`.
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
