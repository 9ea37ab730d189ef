"""One arm as the filter sees it: joints, kinematics, tool, mount, gripper, and the limits of `limits.py`."""
from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Dict, Optional, Tuple

import numpy as np

from hybridvla_core.configuration import Vector, in_range, positive, require, require_tables
from hybridvla_core.robots.limits import (
    STRONGEST_N,
    CartesianLimits,
    CollisionConfig,
    JointLimits,
    LeashConfig,
    SingularityConfig,
    Workspace,
)

LONGEST_M = 3.0            # of a link: millimetres read as metres are further
FARTHEST_M = 20.0          # of a mount from the common frame
TWO_TURNS_RAD = 4.0 * math.pi      # degrees read as radians are further


@dataclass(frozen=True)
class Kinematics:
    """Denavit-Hartenberg table after Craig (modified): joint i = RotX(alpha) TransX(a) RotZ(theta) TransZ(d).

    Attributes:
        a_m: (dof,) m.
        d_m: (dof,) m.
        alpha_rad: (dof,) rad.
        theta_offset_rad: (dof,) added to the joint's position, rad.
        flange_m: From the last joint's frame to the flange along its z, m.
    """

    a_m: Vector
    d_m: Vector
    alpha_rad: Vector
    theta_offset_rad: Vector
    flange_m: float

    def __post_init__(self) -> None:
        require(len(self.a_m) > 0, "kinematics: a_m needs one number for each joint")
        require_tables("kinematics", {key: getattr(self, key) for key in ("a_m", "d_m", "alpha_rad", "theta_offset_rad")},
                       len(self.a_m))
        in_range("kinematics: flange_m", self.flange_m, -LONGEST_M, LONGEST_M)
        for key, values, most in (("a_m", self.a_m, LONGEST_M), ("d_m", self.d_m, LONGEST_M),
                                  ("alpha_rad", self.alpha_rad, TWO_TURNS_RAD),
                                  ("theta_offset_rad", self.theta_offset_rad, TWO_TURNS_RAD)):
            for value in values:
                in_range(f"kinematics: {key}", value, -most, most)


@dataclass(frozen=True)
class Tool:
    """The tool centre point seen from the flange, and the load.

    Attributes:
        frame: Its name.
        position_m: (3,) m.
        quaternion_xyzw: (4,) unit quaternion.
        mass_kg: Of what the robot carries beyond its end effector, kg.
    """

    frame: str
    position_m: Vector
    quaternion_xyzw: Vector
    mass_kg: float

    def __post_init__(self) -> None:
        _check_pose("tool", self.position_m, self.quaternion_xyzw)
        in_range("tool: mass_kg", self.mass_kg, 0.0, 50.0)


@dataclass(frozen=True)
class Mount:
    """Where the arm's base stands in the frame that all arms share.

    Attributes:
        position_m: (3,) m.
        quaternion_xyzw: (4,) unit quaternion.
    """

    position_m: Vector
    quaternion_xyzw: Vector

    def __post_init__(self) -> None:
        _check_pose("mount", self.position_m, self.quaternion_xyzw)


@dataclass(frozen=True)
class GripperConfig:
    """A gripper; its opening is 0 closed to 1 open = width / max_width_m.

    Attributes:
        max_width_m: Fully open, m.
        binary: Commands are 0 or 1, decided with hysteresis; otherwise a new one goes out when it differs by `deadband`.
        close_below: Opening below which a binary gripper closes.
        open_above: Opening above which it opens.
        deadband: Least difference of a new opening.
        speed_m_s: Of the width where openings are streamed, m/s.
        acceleration_m_s2: The same, m/s^2.
        force_n: Of a grasp, N.
        minimum_wait_s: So long a command is under way at least, s.
        deadline_s: After that long it has failed, s.
        readings: What the driver reports (and takes) closed and open, in its own units; without it 0 and max_width_m.
    """

    max_width_m: float
    binary: bool
    close_below: float
    open_above: float
    deadband: float
    speed_m_s: float
    acceleration_m_s2: float
    force_n: float
    minimum_wait_s: float
    deadline_s: float
    readings: Optional[Tuple[float, float]] = None

    def __post_init__(self) -> None:
        positive("gripper: max_width_m", self.max_width_m)
        in_range("gripper: max_width_m", self.max_width_m, 0.0, 0.5)
        require(self.readings is None or abs(self.readings[1] - self.readings[0]) > 1e-3,
                "gripper: readings must differ between closed and open")
        require(0.0 < self.close_below < self.open_above < 1.0,
                f"gripper: 0 < close_below < open_above < 1 is needed, and they are {self.close_below:g} and {self.open_above:g}")
        require(0.0 < self.deadband < 1.0, f"gripper: deadband must lie between 0 and 1, and is {self.deadband:g}")
        for key in ("speed_m_s", "acceleration_m_s2", "force_n"):
            positive(f"gripper: {key}", getattr(self, key))
        in_range("gripper: speed_m_s", self.speed_m_s, 0.0, 1.0)
        in_range("gripper: acceleration_m_s2", self.acceleration_m_s2, 0.0, 100.0)
        in_range("gripper: force_n", self.force_n, 0.0, STRONGEST_N)
        in_range("gripper: deadline_s", self.deadline_s, 0.0, 60.0)
        require(0.0 <= self.minimum_wait_s < self.deadline_s, f"gripper: minimum_wait_s must not be negative and lie below "
                f"deadline_s, and they are {self.minimum_wait_s:g} and {self.deadline_s:g}")


@dataclass(frozen=True)
class ArmConfig:
    """One arm.

    Attributes:
        name: Unique among the arms.
        base_frame: Frame of all its poses.
        joint_names: (dof,) from the base outwards, as the driver calls them.
        start_joints_rad: (dof,) rad.
        kinematics: Of its joints.
        tool: At its flange.
        mount: Where its base stands.
        joint_limits: Of its joints.
        cartesian_limits: Of its tool centre point.
        workspace: Where its tool centre point may be.
        singularity: How near it may come to one.
        collision: Its own shape.
        leash: How far commands may run ahead of it.
        gripper: At its tool.
        topics: What the ROS adapter reads and writes, by role; the core does not look at them.
    """

    name: str
    base_frame: str
    joint_names: Tuple[str, ...]
    start_joints_rad: Vector
    kinematics: Kinematics
    tool: Tool
    mount: Mount
    joint_limits: JointLimits
    cartesian_limits: CartesianLimits
    workspace: Workspace
    singularity: SingularityConfig
    collision: CollisionConfig
    leash: LeashConfig
    gripper: GripperConfig
    topics: Dict[str, str]

    def __post_init__(self) -> None:
        dof = len(self.joint_names)
        require(len(set(self.joint_names)) == dof, f"arm {self.name}: joint_names must differ")
        for key, size in (("kinematics", len(self.kinematics.a_m)), ("start_joints_rad", len(self.start_joints_rad)),
                          ("joint_limits", len(self.joint_limits.lower_rad))):
            require(size == dof, f"arm {self.name}: {key} has {size} entries for {dof} joints")
        for value in self.start_joints_rad:
            in_range(f"arm {self.name}: start_joints_rad", value, -TWO_TURNS_RAD, TWO_TURNS_RAD)
        require(all(0 <= capsule.link <= dof for capsule in self.collision.capsules),
                f"arm {self.name}: a capsule names a link outside 0..{dof}")

    @property
    def dof(self) -> int:
        return len(self.joint_names)


def _check_pose(where: str, position: Vector, quaternion: Vector) -> None:
    require(len(position) == 3 and all(math.isfinite(x) for x in position), f"{where}: position_m needs three numbers")
    for value in position:
        in_range(f"{where}: position_m", value, -FARTHEST_M, FARTHEST_M)
    require(len(quaternion) == 4 and abs(float(np.linalg.norm(quaternion)) - 1.0) < 1e-6,
            f"{where}: quaternion_xyzw must be a unit quaternion of four numbers")
