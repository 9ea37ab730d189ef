"""Keeps the spring between command and arm within its bound, in every state in which commands go out.

An impedance controller pushes with stiffness times (command - arm). When something holds the arm, the command is drawn back
until that push is at most `leash.max_force_n`, and stays there until the arm is free or another way is requested. A load
that the robot does not know of looks the same from here, but drawing back would only lower the arm further. The guard then
names the load and allows only upward motion.
"""
from __future__ import annotations

from typing import AbstractSet, List, Optional, Sequence, Tuple

import numpy as np

from hybridvla_core.geometry import poses, rotations
from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.safety.execution.leash import Leash
from hybridvla_core.safety.inputs.measured_arms import MeasuredArms
from hybridvla_core.safety.motion.motion import Motion
from hybridvla_core.safety.motion.pursuit import Goal

DRAWN_BACK = 0.9       # share of the bound to which the command is drawn back
FREE = 0.6             # share of the bound within which the arm counts as free again
RESTED_TICKS = 40      # after so many ticks of a resting command, the command did not cause an offset: the arm sank or was pushed
SAG = 1.5              # a load may lower the arm by this many times the bound; beyond it the command is drawn back after all
UPRIGHT = 0.6          # an offset is a sag, and a path leads up, if at least this share of it is vertical
FOLLOWS_M = 0.01       # if a command that was drawn back by this much ...
FOLLOWS_SHARE = 0.6    # ... is followed downwards by this share of it, the arm is not held: it hangs


class ForceGuard:
    """Checks once a tick. `detail` says what is wrong with the first arm that does not follow; empty while all follow."""

    def __init__(self, config: RobotConfig, motion: Motion, arms: MeasuredArms) -> None:
        self._config, self._motion, self._arms = config, motion, arms
        count = len(config.arms)
        self.leash = Leash(config)
        self._bounds: Sequence[Tuple[float, float]] = [(arm.leash.distance_m, arm.leash.rotation_rad) for arm in config.arms]
        self._begun: List[Tuple[np.ndarray, np.ndarray]] = [(np.zeros(3), np.zeros(3))] * count
        self._rested = 0
        self.restart()

    def restart(self) -> None:
        """Starts over with the arms at rest where they are commanded."""
        self.leash.restart(self._motion.positions, self._motion.rotations)
        count = len(self._begun)
        self._held, self._sags = [False] * count, [False] * count
        self._goal: List[Optional[Tuple[np.ndarray, np.ndarray]]] = [None] * count
        self.detail = ""

    @property
    def held(self) -> bool:
        """Whether an arm does not follow its command."""
        return any(self._held)

    def push(self, index: int) -> float:
        """Returns the push on an arm in N: stiffness times (command - measured); NaN on a joint door."""
        if self._config.door != "cartesian":
            return float("nan")
        away = self._motion.positions[index] - self._arms.positions[index]
        return float(np.linalg.norm(away)) * self._config.arms[index].leash.stiffness_n_m

    def look(self, now: float) -> None:
        """Finds the arms that are held; once a tick, after the command has moved."""
        motion = self._motion
        self.leash.advance(motion.positions, motion.rotations)
        self._rested = self._rested + 1 if motion.at_rest else 0
        room, turn_room = self.leash.margins(self._arms.positions, self._arms.matrices)
        self.detail = ""
        for index, arm in enumerate(self._arms):
            if not self._arms.heard(index, now):
                self._held[index] = self._sags[index] = False
                self._goal[index] = None
                continue
            bound, turn_bound = self._bounds[index]
            if room[index] < 0.0 or turn_room[index] < 0.0:
                if not self._held[index]:
                    self._held[index] = True
                    self._begun[index] = motion.positions[index].copy(), arm.position.copy()
                    self._sags[index] = self._rested >= RESTED_TICKS and self._hangs(index)
            elif bound - room[index] < FREE * bound and turn_bound - turn_room[index] < FREE * turn_bound:
                self._held[index] = self._sags[index] = False
                self._goal[index] = None
            if self._held[index]:
                self._judge(index)
                self.detail = self.detail or f"{arm.name}: {self._sentence(index, turn_room[index] < 0.0 <= room[index])}"

    def allows(self, goal: Goal) -> bool:
        """Returns whether the goal leads no held arm further away."""
        measured, matrices, motion = self._arms.positions, self._arms.matrices, self._motion
        for index, held in enumerate(self._held):
            if not held:
                continue
            way = goal.positions[index] - motion.positions[index]
            if self._sags[index]:
                if abs(float(way[2])) < UPRIGHT * float(np.linalg.norm(way)):
                    return False                   # sideways motion would drag a load along
                if float(way[2]) >= 0.0:
                    continue
            if self.leash.pulls_away(index, motion.positions[index], measured[index], way):
                return False
            bound, turn_bound = self._bounds[index]
            here = poses.turn(motion.rotations[index], matrices[index])
            if here > FREE * turn_bound and poses.turn(goal.rotations[index], matrices[index]) >= here:
                return False
        return True

    def goal(self, other: Optional[Goal] = None, leave: AbstractSet[str] = frozenset()) -> Optional[Goal]:
        """Returns the goal to which held arms are drawn back.

        Args:
            other: goal towards which arms that are not held may continue; without it they stay.
            leave: names of held arms that are not drawn back.

        Returns:
            The goal, or None if nothing has to be drawn back and there is nothing else to do.
        """
        pulled = [held and arm.name not in leave for held, arm in zip(self._held, self._config.arms)]
        drawn = [place for place, held in zip(self._goal, pulled) if held and place is not None]
        if not drawn and (other is None or not any(pulled)):
            return other
        motion = self._motion
        positions, turned = motion.positions.copy(), motion.rotations.copy()
        if other is not None:
            positions, turned = other.positions.copy(), other.rotations.copy()
        for index, held in enumerate(pulled):
            if held:
                place = self._goal[index]
                positions[index] = motion.positions[index] if place is None else place[0]
                turned[index] = motion.rotations[index] if place is None else place[1]
        return Goal(positions, turned)

    def joints(self) -> np.ndarray:
        """Returns the joints (A, dof) rad to which held arms are drawn back, for motion that is led by joints."""
        joints, measured = self._motion.joints.copy(), self._arms.joints
        for index, held in enumerate(self._held):
            if held:
                bound, turn_bound = self._bounds[index]
                away = float(np.linalg.norm(self._motion.positions[index] - self._arms.positions[index]))
                turned = poses.turn(self._motion.rotations[index], self._arms.matrices[index])
                share = min(1.0, DRAWN_BACK * bound / max(away, 1e-9), DRAWN_BACK * turn_bound / max(turned, 1e-9))
                joints[index] = measured[index] + share * (joints[index] - measured[index])
        return joints

    def _judge(self, index: int) -> None:
        """Decides where a held arm's command is drawn back to; the place changes only when the arm has moved."""
        command, turn = self._motion.positions[index], self._motion.rotations[index]
        measured, matrix = self._arms.positions[index], self._arms.matrices[index]
        bound, turn_bound = self._bounds[index]
        begun, stood = self._begun[index]
        back, followed = command - begun, measured - stood
        size = float(np.linalg.norm(back))
        if not self._sags[index] and size > FOLLOWS_M and back[2] < -UPRIGHT * size and self._hangs(index):
            self._sags[index] = float(followed @ back) > FOLLOWS_SHARE * size * size
        if self._sags[index] and float(np.linalg.norm(command - measured)) < SAG * bound:
            self._goal[index] = None
            return
        place, turned = self._goal[index] or (command, turn)
        away, angle = place - measured, rotations.log(turned @ matrix.T)
        far, wide = float(np.linalg.norm(away)), float(np.linalg.norm(angle))
        if far <= bound and wide <= turn_bound:
            return
        place = measured + away * min(1.0, DRAWN_BACK * bound / max(far, 1e-9))
        turned = rotations.exp(angle * min(1.0, DRAWN_BACK * turn_bound / max(wide, 1e-9))) @ matrix
        self._goal[index] = place, turned

    def _hangs(self, index: int) -> bool:
        away = self._motion.positions[index] - self._arms.positions[index]
        return float(away[2]) > UPRIGHT * float(np.linalg.norm(away))

    def _sentence(self, index: int, turns: bool) -> str:
        below = float(self._motion.positions[index][2] - self._arms.positions[index][2])
        if self._sags[index]:
            return (f"the arm hangs {below * 1e3:.0f} mm below its command: tell the robot its payload, or take the load off; "
                    "upward motion is allowed")
        if turns:
            return "the tool does not turn with its command; free it"
        return "the arm does not follow its command; free it"
