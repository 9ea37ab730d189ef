"""Moves that experts share. Each looks at the present state alone, so it recovers by itself and labels any state.

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
#: From this near a keyframe counts as reached, m and rad, high above a place and low over it: the way down corrects what is
#: left. They are far wider than what a policy sees wrongly (4 mm), or its labels would be a matter of chance.
NEAR_M, NEAR_LOW_M, NEAR_RAD = 0.025, 0.015, 0.25
#: What counts as high above something that is taken, and above the place of something that is let go, m.
HIGH_M, HIGH_PLACE_M = 0.05, 0.10


@dataclass(frozen=True)
class Tool:
    """Where a hand is.

    Attributes:
        position: (3,) m.
        rotation: Of the tool relative to one that points down.
        opening: 0 closed to 1 open.
    """

    position: np.ndarray
    rotation: Rotation
    opening: float

    @property
    def yaw(self) -> float:
        """Turn about the base frame's z axis, rad."""
        return float(self.rotation.as_euler("xyz")[2])


@dataclass(frozen=True)
class Keyframe:
    """Where a hand should go.

    Attributes:
        phase: Name of the step.
        position: (3,) m.
        angles: (3,) rad.
        opening: After arrival, 0 closed to 1 open.
    """

    phase: str
    position: np.ndarray
    angles: Tuple[float, float, float]
    opening: float


@dataclass(frozen=True)
class Grip:
    """How something is held.

    Attributes:
        position: (3,) of the tool centre point, m.
        yaw: of the tool, rad.
        width: the opening that it leaves between the fingers, 0 to 1.
        hover: how far above the tool waits, m.
        period: a turn by this grips the same.
        around: of all yaws that grip the same, the one nearest to this is taken, rad: the middle of those that scenes ask for, so
            that no small turn of the thing turns the hand by a half.
    """

    position: np.ndarray
    yaw: float
    width: float
    hover: float = 0.10
    period: float = np.pi
    around: float = 0.0

    @property
    def turn(self) -> float:
        """The yaw nearest to `around` that grips the same, rad."""
        return self.around + fold(self.yaw - self.around, self.period)


def fold(angle: float, period: float = 2.0 * np.pi) -> float:
    """Returns an angle within half a period of zero."""
    return float((angle + period / 2) % period - period / 2)


def rotation_of(angles: Tuple[float, float, float]) -> Rotation:
    """Returns the rotation, relative to a tool that points down, of an action's angles."""
    return Rotation.from_euler("xyz", angles)


def off_by(tool: Tool, angles: Tuple[float, float, float]) -> float:
    """Returns the angle between a tool and the angles that it should have, rad."""
    return float((rotation_of(angles) * tool.rotation.inv()).magnitude())


def turned_off(tool: Tool, yaw: float) -> float:
    """Returns by how much a tool is turned away from a yaw, rad."""
    return abs(fold(tool.yaw - yaw))


def holds(tool: Tool, grip: Grip, reach: float = 0.025) -> bool:
    """Tells whether the fingers hold the thing: they stand at the grip and are as far open as it is wide."""
    return bool(np.linalg.norm(tool.position - grip.position) < reach and abs(tool.opening - grip.width) < 0.14
                and tool.opening > 0.04)


def at(position: np.ndarray, z: float) -> np.ndarray:
    """Returns a position at another height."""
    return np.array([position[0], position[1], z])


def fetch(tool: Tool, grip: Grip, travel: float = 0.0) -> Keyframe:
    """Goes above a grip, down, and closes; with a closed empty hand it opens first. travel: height to go up to on the way, m."""
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
    """Lifts what is held, goes above its place and lets it go there.

    Args:
        tool: the hand, which holds it.
        place: (3,) of the tool where it lets go, m.
        yaw: of the tool there, rad.
        travel: height at which it goes there, m.
        period: a turn by this is as good; of all such yaws the one nearest to zero is taken.
        near: how far from straight above it may go down, m.
        low: the same less than `HIGH_PLACE_M` above the place, m.

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
    """Goes straight up and stays there: the task is done."""
    return Keyframe("retreat", at(tool.position, max(float(tool.position[2]), height)), (0.0, 0.0, tool.yaw), opening)


@dataclass(frozen=True)
class Swing:
    """A lid or door on a hinge, as a hand that pushes it shut sees it.

    Attributes:
        hinge: (3,) a point of the hinge, in the plane in which the hand moves, m.
        shut: (3,) unit vector from the hinge to the free edge when closed.
        out: (3,) unit vector from the closed lid outwards.
        angle: of the lid, 0 closed, rad.
    """

    hinge: np.ndarray
    shut: np.ndarray
    out: np.ndarray
    angle: float

    def point(self, angle: float, radius: float, clear: float) -> np.ndarray:
        """Returns a point (3,) at a distance from the hinge and in front of the outer face of the lid at `angle`, m."""
        along = np.cos(angle) * self.shut + np.sin(angle) * self.out
        away = np.cos(angle) * self.out - np.sin(angle) * self.shut
        result: np.ndarray = self.hinge + radius * along + clear * away
        return result

    def seen(self, position: np.ndarray) -> Tuple[float, float, float]:
        """Returns (along the lid, in front of its outer face, along the hinge) of a position, m."""
        way = position - self.hinge
        along = np.cos(self.angle) * self.shut + np.sin(self.angle) * self.out
        away = np.cos(self.angle) * self.out - np.sin(self.angle) * self.shut
        return float(way @ along), float(way @ away), float(way @ np.cross(self.shut, self.out))


@dataclass(frozen=True)
class Push:
    """How a hand shuts a `Swing`.

    Attributes:
        radius: from the hinge, m.
        clear: from the lid's middle plane to the tool centre point when they touch, m.
        angles: of the tool at a given angle of the lid.
        step: by which the lid is turned in one keyframe, rad.
        end: the lid's angle that is aimed at.
        opening: of the fingers.
        back: how far along its own axis the hand comes from, m.
        high: height to which it rises before it goes elsewhere, m.
        beside: how far in front of the lid it comes down, m.
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
    """Shuts a lid: comes to its outer face, and turns it by a step at a time."""
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
