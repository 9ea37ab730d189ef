"""Small readings of a robot configuration that both nodes need."""
from __future__ import annotations

from typing import Any, Tuple


def fingers_of(arm: Any) -> Tuple[Tuple[str, ...], float, float]:
    """Finger joints, and the sum of their positions when closed and when open, from the arm's configuration."""
    names = arm.topics.get("finger_joints", "")
    closed, opened = arm.gripper.readings or (0.0, arm.gripper.max_width_m)
    return tuple(name.strip() for name in names.split(",") if name.strip()), closed, opened
