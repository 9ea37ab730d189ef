"""Markers from plain numbers: capsules, boxes, arrows, lines and words."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Iterator, List, Sequence, Tuple

import numpy as np
import rospy
from geometry_msgs.msg import Point, Pose, Quaternion
from scipy.spatial.transform import Rotation
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker

Colour = Tuple[float, float, float, float]
#: After this time the markers of a node that has ended disappear by themselves, s.
LIFETIME_S = 1.0


@dataclass(frozen=True)
class Layer:
    """Markers of one namespace in one frame.

    Attributes:
        name: Namespace, such as `measured/arm`.
        frame: Frame of the markers.
        stamp: Stamp of the markers.
    """

    name: str
    frame: str
    stamp: rospy.Time

    def marker(self, number: int, kind: int, colour: Colour, scale: Sequence[float], lifetime_s: float = LIFETIME_S) -> Marker:
        marker = Marker(ns=self.name, id=number, type=kind, action=Marker.ADD, color=ColorRGBA(*colour),
                        lifetime=rospy.Duration.from_sec(lifetime_s))
        marker.header.frame_id, marker.header.stamp = self.frame, self.stamp
        marker.scale.x, marker.scale.y, marker.scale.z = (float(value) for value in scale)
        marker.pose.orientation.w = 1.0
        return marker

    def capsules(self, starts: np.ndarray, ends: np.ndarray, radii: np.ndarray, colour: Colour) -> List[Marker]:
        """Returns a cylinder for each capsule, and a ball at each of its ends. starts, ends (n, 3) m, radii (n,) m."""
        found = []
        for number, (start, end, radius) in enumerate(zip(starts, ends, radii)):
            length = float(np.linalg.norm(end - start))
            for part, centre in enumerate((start, end)):
                ball = self.marker(3 * number + part, Marker.SPHERE, colour, [2.0 * radius] * 3)
                ball.pose.position = Point(*centre)
                found.append(ball)
            body = self.marker(3 * number + 2, Marker.CYLINDER, colour, (2.0 * radius, 2.0 * radius, max(length, 1e-4)))
            body.pose = Pose(Point(*(0.5 * (start + end))), Quaternion(*_along_z(end - start)))
            found.append(body)
        return found

    def box(self, lower: Sequence[float], upper: Sequence[float], colour: Colour) -> Marker:
        """Returns the twelve edges of a box."""
        marker = self.marker(0, Marker.LINE_LIST, colour, (0.004, 0.0, 0.0))
        marker.points = [Point(*corner) for edge in _edges(np.asarray(lower), np.asarray(upper)) for corner in edge]
        return marker

    def plane(self, number: int, normal: Sequence[float], offset: float, centre: np.ndarray, colour: Colour) -> Marker:
        """Returns a thin square around the foot of `centre` on the plane normal . p = offset."""
        across = np.asarray(normal, dtype=float)
        marker = self.marker(number, Marker.CUBE, colour, (0.8, 0.8, 0.002))
        marker.pose = Pose(Point(*(centre + (offset - across @ centre) * across)), Quaternion(*_along_z(across)))
        return marker

    def path(self, points: np.ndarray, colour: Colour) -> List[Marker]:
        """Returns a line, and a ball at its end. points (n, 3) m."""
        line = self.marker(0, Marker.LINE_STRIP, colour, (0.006, 0.0, 0.0))
        line.points = [Point(*point) for point in points]
        end = self.marker(1, Marker.SPHERE, colour, [0.016] * 3)
        end.pose.position = Point(*points[-1])
        return [line, end]

    def tool(self, number: int, pose: Pose, colour: Colour) -> Marker:
        """Returns an arrow of 8 cm along the tool's z axis that ends at the tool's point."""
        turn = Rotation.from_quat([pose.orientation.x, pose.orientation.y, pose.orientation.z, pose.orientation.w])
        tip = np.array([pose.position.x, pose.position.y, pose.position.z])
        marker = self.marker(number, Marker.ARROW, colour, (0.008, 0.018, 0.02))
        marker.points = [Point(*(tip - 0.08 * turn.as_matrix()[:, 2])), Point(*tip)]
        return marker

    def words(self, number: int, text: str, place: np.ndarray, colour: Colour, lifetime_s: float) -> Marker:
        marker = self.marker(number, Marker.TEXT_VIEW_FACING, colour, (0.0, 0.0, 0.035), lifetime_s)
        marker.pose.position, marker.text = Point(*place), text
        return marker


def _along_z(direction: np.ndarray) -> np.ndarray:
    """Returns the quaternion xyzw that turns z into a direction."""
    length = float(np.linalg.norm(direction))
    if length < 1e-9:
        return np.array([0.0, 0.0, 0.0, 1.0])
    z = direction / length
    axis = np.cross([0.0, 0.0, 1.0], z)
    sine, cosine = float(np.linalg.norm(axis)), float(z[2])
    if sine < 1e-9:
        return np.array([1.0, 0.0, 0.0, 0.0]) if cosine < 0 else np.array([0.0, 0.0, 0.0, 1.0])
    turn: np.ndarray = Rotation.from_rotvec(axis / sine * np.arctan2(sine, cosine)).as_quat()
    return turn


def _edges(lower: np.ndarray, upper: np.ndarray) -> Iterator[Tuple[np.ndarray, np.ndarray]]:
    corners = [np.where([(number >> axis) & 1 for axis in range(3)], upper, lower) for number in range(8)]
    for number in range(8):
        for axis in range(3):
            if not (number >> axis) & 1:
                yield corners[number], corners[number | (1 << axis)]
