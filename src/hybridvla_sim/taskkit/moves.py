"""Moves that experts share. Each depends on the present state alone, so it recovers by itself and can label any state.

Angles of a tool are fixed-axis roll, pitch, yaw (rad) relative to a tool that points down, as in the action convention of
`config/policies`.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Tuple

import numpy as np
from scipy.spatial.transform import Rotation

DOWN = Rotation.from_quat([1.0, 0.0, 0.0, 0.0])
OPEN = 0.85
#: Within these distances a keyframe counts as reached, m and rad, high above a place and low over it; the way down corrects
#: the rest. They are far wider than a policy's perception error (4 mm); otherwise its labels would be a matter of chance.
NEAR_M, NEAR_LOW_M, NEAR_RAD = 0.025, 0.015, 0.25
#: Heights that count as high above an object to grasp, and above the place where an object is released, m.
HIGH_M, HIGH_PLACE_M = 0.05, 0.10


@dataclass(frozen=True)
class Tool:
    """Pose and opening of a hand.

    Attributes:
        position: Position (3,) of the tool centre point, m.
        rotation: Rotation of the tool relative to one that points down.
        opening: Gripper opening, 0 closed to 1 open.
    """

    position: np.ndarray
    rotation: Rotation
    opening: float

    @property
    def yaw(self) -> float:
        """Rotation about the base frame's z axis, rad."""
        return float(self.rotation.as_euler("xyz")[2])


@dataclass(frozen=True)
class Keyframe:
    """Where a hand should go.

    Attributes:
        phase: Name of the step.
        position: Position (3,) of the tool centre point, m.
        angles: Angles (3,) of the tool, rad.
        opening: Gripper opening after arrival, 0 closed to 1 open.
    """

    phase: str
    position: np.ndarray
    angles: Tuple[float, float, float]
    opening: float


@dataclass(frozen=True)
class Grip:
    """How an object is held.

    Attributes:
        position: position (3,) of the tool centre point, m.
        yaw: yaw of the tool, rad.
        width: gripper opening at which the fingers hold the object, 0 to 1.
        hover: height above the grip at which the tool waits, m.
        period: rotation after which the grip is the same, rad.
        around: of all yaws with the same grip, the one nearest to this is taken, rad. It is the middle of the yaws that scenes
            need, so that a small turn of the object does not turn the hand by half a turn.
    """

    position: np.ndarray
    yaw: float
    width: float
    hover: float = 0.10
    period: float = np.pi
    around: float = 0.0

    @property
    def turn(self) -> float:
        """The equivalent yaw nearest to `around`, rad."""
        return self.around + fold(self.yaw - self.around, self.period)


def fold(angle: float, period: float = 2.0 * np.pi) -> float:
    """Returns the equivalent angle within half a period of zero."""
    return float((angle + period / 2) % period - period / 2)


def rotation_of(angles: Tuple[float, float, float]) -> Rotation:
    """Returns the rotation of an action's angles, relative to a tool that points down."""
    return Rotation.from_euler("xyz", angles)


def off_by(tool: Tool, angles: Tuple[float, float, float]) -> float:
    """Returns the angle between a tool's rotation and the wanted one, rad."""
    return float((rotation_of(angles) * tool.rotation.inv()).magnitude())


def turned_off(tool: Tool, yaw: float) -> float:
    """Returns how far a tool is turned away from a yaw, rad."""
    return abs(fold(tool.yaw - yaw))


def holds(tool: Tool, grip: Grip, reach: float = 0.025) -> bool:
    """Tells whether the fingers hold the object: they are at the grip and as far open as the object is wide."""
    return bool(np.linalg.norm(tool.position - grip.position) < reach and abs(tool.opening - grip.width) < 0.14
                and tool.opening > 0.04)


def at(position: np.ndarray, z: float) -> np.ndarray:
    """Returns a position moved to the height `z`."""
    return np.array([position[0], position[1], z])


def fetch(tool: Tool, grip: Grip, travel: float = 0.0) -> Keyframe:
    """Goes above a grip, moves down, and closes; opens a closed empty hand first. travel: height to rise to on the way, m."""
    above = grip.position + [0.0, 0.0, grip.hover]
    angles = (0.0, 0.0, grip.turn)
    high = max(float(above[2]), travel)
    upright = turned_off(tool, grip.turn) < NEAR_RAD and off_by(tool, (0.0, 0.0, tool.yaw)) < NEAR_RAD
    near = NEAR_M if tool.position[2] > grip.position[2] + HIGH_M else NEAR_LOW_M
    beside = float(np.linalg.norm((tool.position - grip.position)[:2])) < near
    if tool.opening < OPEN:
        return Keyframe("reopen", at(tool.position, max(float(tool.position[2]), high)), angles, 1.0)
    if beside and upright and tool.position[2] < above[2] + 0.03:
        return Keyframe("grasp", grip.position, angles, 0.0)
    if tool.position[2] < above[2] - 0.03:
        return Keyframe("up", at(tool.position, high), (0.0, 0.0, tool.yaw), 1.0)
    return Keyframe("pregrasp", above, angles, 1.0)


def carry(tool: Tool, place: np.ndarray, yaw: float, travel: float, period: float = 2.0 * np.pi, near: float = NEAR_M,
          low: float = NEAR_LOW_M) -> Keyframe:
    """Lifts the held object, goes above its place and releases it there.

    Args:
        tool: the hand that holds the object.
        place: position (3,) of the tool at release, m.
        yaw: yaw of the tool at release, rad.
        travel: height at which the tool travels, m.
        period: rotation after which a yaw is equivalent, rad; of all equivalent yaws the one nearest to zero is taken.
        near: largest horizontal distance from the place at which the tool may go down, m.
        low: the same, when less than `HIGH_PLACE_M` above the place, m.

    Returns:
        The next keyframe: `release`, `lift` or `above`.
    """
    turn = fold(yaw, period)
    angles = (0.0, 0.0, turn)
    reach = near if tool.position[2] > place[2] + HIGH_PLACE_M else low
    over = float(np.linalg.norm((tool.position - place)[:2])) < reach
    if over and turned_off(tool, turn) < NEAR_RAD:
        return Keyframe("release", place, angles, 1.0)
    if tool.position[2] < travel - 0.03:
        return Keyframe("lift", at(tool.position, travel), (0.0, 0.0, tool.yaw), 0.0)
    return Keyframe("above", at(place, travel), angles, 0.0)


def retreat(tool: Tool, height: float, opening: float = 1.0) -> Keyframe:
    """Goes straight up and stays there, once the task is done."""
    return Keyframe("retreat", at(tool.position, max(float(tool.position[2]), height)), (0.0, 0.0, tool.yaw), opening)


@dataclass(frozen=True)
class Swing:
    """Geometry of a lid or door on a hinge, for a hand that pushes it shut.

    Attributes:
        hinge: (3,) point of the hinge, in the plane in which the hand moves, m.
        shut: (3,) unit vector from the hinge to the free edge when closed.
        out: (3,) unit vector from the closed lid outwards.
        angle: angle of the lid, 0 closed, rad.
    """

    hinge: np.ndarray
    shut: np.ndarray
    out: np.ndarray
    angle: float

    def point(self, angle: float, radius: float, clear: float) -> np.ndarray:
        """Returns a point (3,) m, `radius` from the hinge and `clear` in front of the lid when the lid is at `angle`."""
        along = np.cos(angle) * self.shut + np.sin(angle) * self.out
        away = np.cos(angle) * self.out - np.sin(angle) * self.shut
        result: np.ndarray = self.hinge + radius * along + clear * away
        return result

    def seen(self, position: np.ndarray) -> Tuple[float, float, float]:
        """Returns a position in the lid's coordinates: along the lid, in front of its outer face, along the hinge, m."""
        way = position - self.hinge
        along = np.cos(self.angle) * self.shut + np.sin(self.angle) * self.out
        away = np.cos(self.angle) * self.out - np.sin(self.angle) * self.shut
        return float(way @ along), float(way @ away), float(way @ np.cross(self.shut, self.out))


@dataclass(frozen=True)
class Push:
    """How a hand shuts a `Swing`.

    Attributes:
        radius: distance of the hand from the hinge, m.
        clear: distance from the lid's middle plane to the tool centre point when they touch, m.
        angles: function that returns the angles of the tool for an angle of the lid.
        step: angle by which one keyframe turns the lid, rad.
        end: angle of the lid to reach, rad.
        opening: gripper opening.
        back: distance along its own axis from which the hand approaches, m.
        high: height to which the hand rises before it goes elsewhere, m.
        beside: distance in front of the lid at which the hand comes down, m.
    """

    radius: float
    clear: float
    angles: Callable[[float], Tuple[float, float, float]]
    step: float = 0.6
    end: float = 0.0
    opening: float = 0.0
    back: float = 0.12
    high: float = 0.25
    beside: float = 0.05


def shut(tool: Tool, swing: Swing, push: Push) -> Keyframe:
    """Shuts a lid: goes to its outer face and turns it one step at a time."""
    angles = push.angles(swing.angle)
    finger = rotation_of(angles).apply([0.0, 0.0, -1.0])
    beside = swing.point(swing.angle, push.radius, push.clear + push.beside)
    before = beside - push.back * finger
    along, front, aside = swing.seen(tool.position)
    turned = off_by(tool, angles) > 0.2
    touching = abs(along - push.radius) < 0.035 and push.clear - 0.025 < front < push.clear + push.beside + 0.03
    if touching and abs(aside) < 0.05 and not turned:
        wanted = max(swing.angle - push.step, push.end)
        clear = push.clear - (0.0 if wanted > push.end else 0.006)
        return Keyframe("push", swing.point(wanted, push.radius, clear), push.angles(wanted + 1e-6), push.opening)
    off = _from_line(tool.position, before, beside)
    if not turned and off < 0.025 and abs(tool.opening - push.opening) < 0.3:
        return Keyframe("reach", beside, angles, push.opening)
    if tool.position[2] < push.high - 0.05 and np.linalg.norm(tool.position - before) > 0.06:
        return Keyframe("up", at(tool.position, push.high), (0.0, 0.0, tool.yaw), push.opening)
    return Keyframe("approach", before, angles, push.opening)


def _from_line(position: np.ndarray, begin: np.ndarray, end: np.ndarray) -> float:
    way = end - begin
    share = float(np.clip((position - begin) @ way / max(float(way @ way), 1e-9), 0.0, 1.0))
    return float(np.linalg.norm(position - begin - share * way))
