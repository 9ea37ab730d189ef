"""Small readings of a robot configuration that both nodes need."""
from __future__ import annotations

from typing import Any, Tuple


def fingers_of(arm: Any) -> Tuple[Tuple[str, ...], float]:
    """Finger joints whose positions add up to the opening width, and that width in m, from the arm's configuration."""
    names = arm.topics.get("finger_joints", "")
    return tuple(name.strip() for name in names.split(",") if name.strip()), arm.gripper.max_width_m
