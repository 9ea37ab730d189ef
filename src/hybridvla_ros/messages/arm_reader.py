"""Turns joint states and tool poses from topics into `ArmState`."""
from __future__ import annotations

import math
from typing import Dict, Optional, Sequence, Tuple

import numpy as np

from hybridvla_core.contracts import ArmState, GripperState, Pose
from hybridvla_core.robots.arm import ArmConfig
from hybridvla_core.robots.topics import finger_names
from hybridvla_ros.messages.sources import OneSource

#: A gripper may read this much beyond closed and open, as a share of the range: more means another unit, or another joint.
GRIPPER_SLACK = 0.5
#: A gripper that has spoken and is then silent for longer than this, s, may be anywhere.
GRIPPER_SILENT_S = 1.0
#: A sentence gives at most this many names of one message.
MOST_NAMES = 9


class ArmReader:
    """Assembles one arm's state from whatever its driver publishes.

    joint_names: the arm's own joints; fingers: their names, and the sum of their positions when closed and when open, in the
    driver's units (m, or a motor's own).
    """

    def __init__(self, name: str, joint_names: Sequence[str], fingers: Tuple[Sequence[str], float, float]) -> None:
        self.name, self.joint_names = name, tuple(joint_names)
        self._fingers, self._closed, self._open = tuple(fingers[0]), fingers[1], fingers[2]
        self.pose: Optional[Pose] = None
        self.opening = math.nan
        self._last_opening, self._moving_until, self._gripper_at = math.nan, 0.0, math.inf
        self._apart = False          # the gripper's readings come in messages of their own
        self._sources = OneSource("joint states"), OneSource("the gripper's joint states")
        self._twice = self._strange = ""
        self._others: Tuple[str, ...] = ()
        self._found = False
        #: Says why the gripper's last reading cannot be from this gripper, or an empty string.
        self.gripper_problem = ""
        #: Whether the last message came from a second publisher.
        self.foreign = False

    def problem(self, now: float) -> str:
        """Says why the last joint states cannot be relied on, or an empty string. now: s, on the clock of `joints`."""
        return next(filter(None, (source.problem(now) for source in self._sources)), self._twice or self._strange)

    def doubt(self, now: float) -> str:
        """Says what `problem` says, or what is wrong with the gripper's reading, or an empty string."""
        return self.problem(now) or self._gripper_silence(now) or self.gripper_problem

    def standing(self, now: float) -> float:
        """Returns the gripper's opening, 0 closed to 1 open; NaN where it is silent: the last reading is not its state now."""
        return math.nan if self._gripper_silence(now) else self.opening

    def _gripper_silence(self, now: float) -> str:
        """Says that a gripper which spoke before is silent, or an empty string."""
        silent = now - self._gripper_at
        if not self._apart or silent <= GRIPPER_SILENT_S:
            return ""
        return (f"the gripper's joint states ({', '.join(self._fingers)}) are silent for {silent:.1f} s; does its driver run?")

    def joints(self, names: Sequence[str], positions: Sequence[float], velocities: Sequence[float], now: float,
               source: str = "") -> Optional[ArmState]:
        """Reads a JointState's content.

        Args:
            names: Names of the joints.
            positions: Positions in rad or, for fingers, in the driver's units.
            velocities: As many velocities as positions, or none.
            now: When the message came, s, on any clock that runs evenly.
            source: Node that sent it; empty where it is not known.

        Returns:
            The state, or None when the message holds none of this arm's joints (the gripper's own message, say) or comes from
            a second publisher of them. A joint that is named twice has no value. While none of the arm's joints has come yet,
            a message with other names is handed on as it is: the filter that judges it says which names are missing.
        """
        self.foreign = False
        index: Dict[str, int] = {joint: i for i, joint in enumerate(names)}
        if len(index) < len(names):
            return self._doubled(names, now, source)
        mine = any(joint in index for joint in self.joint_names)
        fingers = not mine and any(finger in index for finger in self._fingers)
        if (mine or fingers) and not self._sources[0 if mine else 1].takes(source, now):
            self.foreign = True
            return None
        self._twice = "" if mine else self._twice
        if all(finger in index and index[finger] < len(positions) for finger in self._fingers) and self._fingers:
            self._apart = fingers
            reading = sum(positions[index[finger]] for finger in self._fingers)
            self._gripper((reading - self._closed) / (self._open - self._closed), now)
        found = [joint for joint in self.joint_names if joint in index]
        if not found:
            return None if fingers or self._found else self._other_names(names, positions, now)
        self._found, self._strange = True, ""
        # Missing or short values go on as they are: the filter names them and holds.
        values = np.array([positions[index[joint]] if index[joint] < len(positions) else math.nan for joint in found])
        speeds = None
        if len(velocities) == len(names):
            speeds = np.array([velocities[index[joint]] for joint in found])
        doubt = self.doubt(now)
        return ArmState(name=self.name, joint_names=tuple(found), joint_positions=values, joint_velocities=speeds,
                        pose=self.pose, gripper=self.standing(now), gripper_state=self._gripper_state(now),
                        ready=not doubt, message=doubt)

    def hand(self, names: Sequence[str], positions: Sequence[float], now: float, source: str = "") -> None:
        """Reads a message of the gripper's own topic, which says nothing of the arm's joints; arguments as in `joints`."""
        if any(finger in names for finger in self._fingers):
            self.joints(names, positions, (), now, source)

    def _other_names(self, names: Sequence[str], positions: Sequence[float], now: float) -> ArmState:
        """Hands on a message that names none of the arm's joints. Of several kinds, the one with the most names is reported."""
        if len(names) >= len(self._others):
            self._others = tuple(names)
        self._strange = (f"joint states arrive that name {listed(self._others)}, and none of {listed(self.joint_names)}; set the "
                         "names in the robot's configuration, or check the driver's arm_id")
        return ArmState(name=self.name, joint_names=tuple(names), joint_positions=np.array(positions, dtype=float),
                        joint_velocities=None, pose=self.pose, gripper=self.standing(now), ready=False, message=self._strange)

    def _doubled(self, names: Sequence[str], now: float, source: str) -> Optional[ArmState]:
        """Handles a message that names a joint twice: nobody knows which value is meant."""
        twice = [joint for joint in (*self.joint_names, *self._fingers) if list(names).count(joint) > 1]
        if not twice or not self._sources[0].takes(source, now):
            self.foreign = bool(twice)
            return None
        self._twice = f"joint {', '.join(twice)} stands twice in one joint state; check who publishes them"
        return ArmState(name=self.name, joint_names=self.joint_names, joint_positions=np.full(len(self.joint_names), math.nan),
                        joint_velocities=None, pose=self.pose, gripper=self.standing(now), gripper_state=self._gripper_state(now))

    def _gripper(self, opening: float, now: float) -> None:
        self._gripper_at = now
        reading = self._closed + opening * (self._open - self._closed)
        if not fits_gripper(reading, self._closed, self._open) and not math.isnan(opening):
            self.gripper_problem = (
                f"the gripper reads {reading:.4g} ({' + '.join(self._fingers)}), configured are {self._closed:g} closed and "
                f"{self._open:g} open; does the driver report other units, or another joint? set gripper.max_width_m or "
                "gripper.readings to what it reports")
            self.opening = math.nan
            return
        self.gripper_problem = ""
        self.opening = min(max(opening, 0.0), 1.0)
        if not abs(self.opening - self._last_opening) < 0.004:
            self._last_opening, self._moving_until = self.opening, now + 0.1

    def _gripper_state(self, now: float) -> GripperState:
        if math.isnan(self.standing(now)):
            return GripperState.UNKNOWN
        return GripperState.MOVING if now < self._moving_until else GripperState.DONE


def fits_gripper(reading: float, closed: float, opened: float) -> bool:
    """Tells whether a gripper that reads `closed` and `opened` at its ends can read this; all in the driver's units."""
    low, high = sorted((closed, opened))
    slack = GRIPPER_SLACK * (high - low)
    return low - slack <= reading <= high + slack


def listed(names: Sequence[str]) -> str:
    """Returns names for a sentence, at most MOST_NAMES of them."""
    more = f", ... ({len(names)} in all)" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more if names else "nothing"


def fingers_of(arm: ArmConfig) -> Tuple[Tuple[str, ...], float, float]:
    """Returns the finger joints, and the sum of their positions when closed and when open, from the arm's configuration."""
    closed, opened = arm.gripper.readings or (0.0, arm.gripper.max_width_m)
    return finger_names(arm), closed, opened
