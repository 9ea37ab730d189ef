"""Joint states and tool poses from topics into `ArmState`."""
from __future__ import annotations

import math
from typing import Dict, Optional, Sequence, Tuple

import numpy as np

from hybridvla_core.contracts import ArmState, GripperState, Pose
from hybridvla_core.robots.arm import ArmConfig
from hybridvla_core.robots.topics import finger_names


class ArmReader:
    """Assembles one arm's state from whatever its driver publishes.

    joint_names: the arm's own joints; fingers: names, and the sum of their positions when closed and when open, in the
    driver's units (m, or a motor's own).
    """

    def __init__(self, name: str, joint_names: Sequence[str], fingers: Tuple[Sequence[str], float, float]) -> None:
        self.name, self.joint_names = name, tuple(joint_names)
        self._fingers, self._closed, self._open = tuple(fingers[0]), fingers[1], fingers[2]
        self.pose: Optional[Pose] = None
        self.opening = math.nan
        self._last_opening, self._moving_until = math.nan, 0.0

    def joints(self, names: Sequence[str], positions: Sequence[float], velocities: Sequence[float], now: float
               ) -> Optional[ArmState]:
        """A JointState's content; None when it holds none of this arm's joints (the gripper's own message, say)."""
        index: Dict[str, int] = {joint: i for i, joint in enumerate(names)}
        if all(finger in index and index[finger] < len(positions) for finger in self._fingers) and self._fingers:
            reading = sum(positions[index[finger]] for finger in self._fingers)
            self._gripper((reading - self._closed) / (self._open - self._closed), now)
        found = [joint for joint in self.joint_names if joint in index]
        if not found:
            return None
        # What is missing or short goes on as it is: the filter names it and holds.
        values = np.array([positions[index[joint]] if index[joint] < len(positions) else math.nan for joint in found])
        speeds = None
        if len(velocities) == len(names):
            speeds = np.array([velocities[index[joint]] for joint in found])
        return ArmState(name=self.name, joint_names=tuple(found), joint_positions=values, joint_velocities=speeds,
                        pose=self.pose, gripper=self.opening, gripper_state=self._gripper_state(now))

    def _gripper(self, opening: float, now: float) -> None:
        self.opening = min(max(opening, 0.0), 1.0)
        if not abs(self.opening - self._last_opening) < 0.004:
            self._last_opening, self._moving_until = self.opening, now + 0.1

    def _gripper_state(self, now: float) -> GripperState:
        if math.isnan(self.opening):
            return GripperState.UNKNOWN
        return GripperState.MOVING if now < self._moving_until else GripperState.DONE


def fingers_of(arm: ArmConfig) -> Tuple[Tuple[str, ...], float, float]:
    """Returns the finger joints, and the sum of their positions when closed and when open, from the arm's configuration."""
    closed, opened = arm.gripper.readings or (0.0, arm.gripper.max_width_m)
    return finger_names(arm), closed, opened
