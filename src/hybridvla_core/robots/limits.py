"""The numbers of each limit of one arm, frozen and checked. One dataclass for each file in `limits/`."""
from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Optional, Tuple

import numpy as np

from hybridvla_core.configuration import Vector, in_range, positive, require, require_tables

BRAKING_SHARE = 0.8     # share of every acceleration limit with which the filter plans and brakes
#: Largest value of each tool limit: millimetres and degrees read as metres and radians exceed it. Too high a limit is none.
MOST = {"speed_m_s": 3.0, "acceleration_m_s2": 50.0, "jerk_m_s3": 1.5e4, "rotation_speed_rad_s": 2.0 * math.pi,
        "rotation_acceleration_rad_s2": 100.0, "rotation_jerk_rad_s3": 1.5e4}
STRONGEST_N = 1000.0    # no arm near people may push or be pushed with more
LONGEST_LEASH_M = 0.5   # newtons divided by newtons per millimetre exceed it


@dataclass(frozen=True)
class PositionDependentVelocity:
    """libfranka's joint speed bound, which shrinks towards the stops (`rate_limiting.h`, FR3).

    upper(q) = min(V, max(0, -o + sqrt(max(0, c (L_upper - q))))) - 1e-3, lower mirrored with (L_lower + q).

    Attributes:
        velocity_rad_s: (dof,) V, rad/s.
        offset_rad_s: (dof,) o, rad/s.
        gain_rad_s2: (dof,) c, rad/s^2.
        upper_rad: (dof,) L_upper, rad.
        lower_rad: (dof,) L_lower, rad.
    """

    velocity_rad_s: Vector
    offset_rad_s: Vector
    gain_rad_s2: Vector
    upper_rad: Vector
    lower_rad: Vector

    def __post_init__(self) -> None:
        where = "position_dependent"
        require_tables(where, dict(vars(self)), len(self.velocity_rad_s))
        require(all(value > 0.0 for value in (*self.velocity_rad_s, *self.gain_rad_s2)),
                f"{where}: velocity_rad_s and gain_rad_s2 must be positive")
        require(all(value >= 0.0 for value in self.offset_rad_s), f"{where}: offset_rad_s must not be negative")


@dataclass(frozen=True)
class JointLimits:
    """Limits of the joints.

    Attributes:
        lower_rad: (dof,) lowest positions, rad.
        upper_rad: (dof,) highest positions, rad.
        margin_rad: Distance kept from both, rad.
        velocity_rad_s: (dof,) highest speeds, rad/s.
        acceleration_rad_s2: (dof,) highest accelerations, rad/s^2.
        position_dependent: A further speed bound that shrinks towards the stops.
    """

    lower_rad: Vector
    upper_rad: Vector
    margin_rad: float
    velocity_rad_s: Vector
    acceleration_rad_s2: Vector
    position_dependent: Optional[PositionDependentVelocity] = None

    def __post_init__(self) -> None:
        dof = len(self.lower_rad)
        require(dof > 0, "joint_limits: lower_rad needs one number for each joint")
        require_tables("joint_limits", {key: getattr(self, key) for key in ("lower_rad", "upper_rad", "velocity_rad_s",
                                                                           "acceleration_rad_s2")}, dof)
        if self.position_dependent is not None:
            require_tables("joint_limits: position_dependent", dict(vars(self.position_dependent)), dof)
        in_range("joint_limits: margin_rad", self.margin_rad, 0.0, 0.5)
        for key in ("lower_rad", "upper_rad"):
            for value in getattr(self, key):
                require(abs(value) <= 13.0, f"joint_limits: {key} has {value:g}, more than two turns; use radians")
        for value in self.velocity_rad_s:
            in_range("joint_limits: velocity_rad_s", value, 0.0, 30.0)
        for value in self.acceleration_rad_s2:
            in_range("joint_limits: acceleration_rad_s2", value, 0.0, 100.0)
        for joint, (lower, upper) in enumerate(zip(self.lower_rad, self.upper_rad), start=1):
            require(upper - lower > 2.0 * self.margin_rad, f"joint_limits: joint {joint} has no room between its limits")
        require(min(self.velocity_rad_s) > 0.0 and min(self.acceleration_rad_s2) > 0.0,
                "joint_limits: velocities and accelerations must be positive")


@dataclass(frozen=True)
class CartesianLimits:
    """Limits of the tool centre point.

    Attributes:
        speed_m_s: Speed, m/s.
        acceleration_m_s2: Acceleration, m/s^2.
        jerk_m_s3: Jerk, m/s^3.
        rotation_speed_rad_s: Rotation speed, rad/s.
        rotation_acceleration_rad_s2: Rotation acceleration, rad/s^2.
        rotation_jerk_rad_s3: Rotation jerk, rad/s^3.
    """

    speed_m_s: float
    acceleration_m_s2: float
    jerk_m_s3: float
    rotation_speed_rad_s: float
    rotation_acceleration_rad_s2: float
    rotation_jerk_rad_s3: float

    def __post_init__(self) -> None:
        for key in self.__dataclass_fields__:
            value = getattr(self, key)
            in_range(f"cartesian_limits: {key}", value, 0.0, MOST[key], above=True)


@dataclass(frozen=True)
class Plane:
    """A plane on whose right side the tool centre point p stays: normal . p >= offset_m.

    Attributes:
        name: Name, unique in the workspace.
        normal: (3,) unit vector in the base frame.
        offset_m: Distance from the base's origin, m.
    """

    name: str
    normal: Vector
    offset_m: float

    def __post_init__(self) -> None:
        require(len(self.normal) == 3 and abs(math.sqrt(sum(x * x for x in self.normal)) - 1.0) < 1e-6,
                f"workspace: plane {self.name} needs a unit normal of three numbers")


@dataclass(frozen=True)
class Workspace:
    """The box for the tool centre point in the arm's base frame, and further planes.

    Attributes:
        lower_m: (3,) lower corner, m.
        upper_m: (3,) upper corner, m.
        planes: Further planes; may be empty.
    """

    lower_m: Vector
    upper_m: Vector
    planes: Tuple[Plane, ...] = ()

    def __post_init__(self) -> None:
        require(len(self.lower_m) == 3 and len(self.upper_m) == 3, "workspace: lower_m and upper_m need three numbers")
        require(all(upper - lower > 0.01 for lower, upper in zip(self.lower_m, self.upper_m)),
                "workspace: upper_m must exceed lower_m by more than 10 mm on every axis")
        for value in (*self.lower_m, *self.upper_m):
            in_range("workspace: lower_m and upper_m", value, -20.0, 20.0)

    def margins(self, point: np.ndarray) -> np.ndarray:
        """Computes how far inside the workspace a point is.

        Args:
            point: (3,) in the base frame, m.

        Returns:
            (6 + planes,) distances, m: to the lower faces, to the upper faces, to the planes; negative outside.
        """
        planes = [float(np.dot(plane.normal, point)) - plane.offset_m for plane in self.planes]
        return np.concatenate([point - np.array(self.lower_m), np.array(self.upper_m) - point, planes])

    def project(self, point: np.ndarray, inset: float) -> np.ndarray:
        """Moves a point inside the workspace: into the box first, then along each plane's normal in turn.

        Args:
            point: (3,) in the base frame, m.
            inset: Distance kept from all faces and planes, m.

        Returns:
            (3,) m; the point itself if it is inside by at least `inset`.
        """
        inside = np.clip(point, np.array(self.lower_m) + inset, np.array(self.upper_m) - inset)
        for plane in self.planes:
            depth = plane.offset_m + inset - float(np.dot(plane.normal, inside))
            inside += max(0.0, depth) * np.array(plane.normal)
        return inside


@dataclass(frozen=True)
class SingularityConfig:
    """Bounds of the smallest singular value of the tool Jacobian (m and rad as they are).

    Attributes:
        slow_below: Value below which motion slows.
        stop_below: Value below which only motion that leads out is allowed.
    """

    slow_below: float
    stop_below: float

    def __post_init__(self) -> None:
        require(0.0 <= self.stop_below < self.slow_below, "singularity: 0 <= stop_below < slow_below is needed, and they are "
                f"{self.stop_below:g} and {self.slow_below:g}")


@dataclass(frozen=True)
class Capsule:
    """A segment with a radius, fixed to the frame after a joint.

    Attributes:
        name: Name, unique in the arm.
        link: Number of the joint before the capsule; 0 is the base.
        start_m: (3,) start of the segment in that joint's frame, m.
        end_m: (3,) end of the segment in that joint's frame, m.
        radius_m: Radius, m.
    """

    name: str
    link: int
    start_m: Vector
    end_m: Vector
    radius_m: float

    def __post_init__(self) -> None:
        require(len(self.start_m) == 3 and len(self.end_m) == 3, f"capsule {self.name}: start_m, end_m need 3 numbers")
        positive(f"capsule {self.name}: radius_m", self.radius_m)
        in_range(f"capsule {self.name}: radius_m", self.radius_m, 0.0, 0.5)
        for value in (*self.start_m, *self.end_m):
            in_range(f"capsule {self.name}: start_m and end_m", value, -3.0, 3.0)


@dataclass(frozen=True)
class CollisionConfig:
    """An arm's own shape, as capsules around its links.

    Attributes:
        capsules: All capsules of the arm.
        pairs: Names of capsules that are kept `margin_m` apart.
        margin_m: Distance that is kept, m.
        above_table: Names of capsules that are kept `margin_m` above the table.
        table_z_m: Height of the table's plane in the base frame, m.
    """

    capsules: Tuple[Capsule, ...]
    pairs: Tuple[Tuple[str, str], ...]
    margin_m: float
    above_table: Tuple[str, ...]
    table_z_m: float

    def __post_init__(self) -> None:
        names = [capsule.name for capsule in self.capsules]
        require(len(set(names)) == len(names), "collision: capsule names must differ")
        for name in [name for pair in self.pairs for name in pair] + list(self.above_table):
            require(name in names, f"collision: there is no capsule {name!r}")
        in_range("collision: margin_m", self.margin_m, 0.0, 0.5)
        in_range("collision: table_z_m", self.table_z_m, -20.0, 20.0)


@dataclass(frozen=True)
class LeashConfig:
    """Bound on the difference between the measured pose and the pose that an unhindered arm would have by now.

    Attributes:
        stiffness_n_m: Stiffness of the controller after the filter, N/m.
        max_force_n: Largest push of the spring between the two poses, N.
        rotation_rad: Bound on the rotation, rad.
        lag_s: Time constant of the controller after the filter, s; the FR3's joint door takes `trajectory_ahead_s` instead.
    """

    stiffness_n_m: float
    max_force_n: float
    rotation_rad: float
    lag_s: float

    def __post_init__(self) -> None:
        for key in ("stiffness_n_m", "max_force_n", "rotation_rad"):
            positive(f"leash: {key}", getattr(self, key))
        in_range("leash: max_force_n", self.max_force_n, 0.0, STRONGEST_N)
        in_range("leash: rotation_rad", self.rotation_rad, 0.0, math.pi)
        in_range("leash: max_force_n / stiffness_n_m, a length in m,", self.distance_m, 0.0, LONGEST_LEASH_M)
        in_range("leash: lag_s", self.lag_s, 0.0, 1.0)

    @property
    def distance_m(self) -> float:
        return self.max_force_n / self.stiffness_n_m

    def reached_n(self, speed_m_s: float, acceleration_m_s2: float) -> float:
        """Computes the push on something that stops the arm, before the command is drawn back to `max_force_n`.

        By then the command is ahead of the arm by its usual lead, by the distance at which the leash notices, and by the distance
        that it needs to come to rest.

        Args:
            speed_m_s: Speed of the tool when it is stopped, m/s.
            acceleration_m_s2: Acceleration limit under which the command brakes, m/s^2.

        Returns:
            The force, N.
        """
        braking = speed_m_s ** 2 / (2.0 * BRAKING_SHARE * acceleration_m_s2)
        return self.stiffness_n_m * (self.distance_m + self.lag_s * speed_m_s + braking)
