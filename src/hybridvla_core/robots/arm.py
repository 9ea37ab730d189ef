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

LONGEST_M = 3.0            # longest link: millimetres read as metres exceed it
FARTHEST_M = 20.0          # farthest mount from the common frame
TWO_TURNS_RAD = 4.0 * math.pi      # degrees read as radians exceed it


@dataclass(frozen=True)
class Kinematics:
    """Denavit-Hartenberg table, modified (Craig's) convention: joint i = RotX(alpha) TransX(a) RotZ(theta) TransZ(d).

    Attributes:
        a_m: (dof,) link lengths a, m.
        d_m: (dof,) link offsets d, m.
        alpha_rad: (dof,) link twists alpha, rad.
        theta_offset_rad: (dof,) angles added to the joint positions, rad.
        flange_m: Distance from the last joint's frame to the flange along that frame's z axis, m.
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
    """The tool centre point in the flange frame, and the load.

    Attributes:
        frame: Name of the tool's frame.
        position_m: (3,) position, m.
        quaternion_xyzw: (4,) orientation, unit quaternion.
        mass_kg: Mass of what the robot carries beyond its end effector, kg.
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
    """Pose of the arm's base in the frame that all arms share.

    Attributes:
        position_m: (3,) position, m.
        quaternion_xyzw: (4,) orientation, unit quaternion.
    """

    position_m: Vector
    quaternion_xyzw: Vector

    def __post_init__(self) -> None:
        _check_pose("mount", self.position_m, self.quaternion_xyzw)


@dataclass(frozen=True)
class GripperConfig:
    """A gripper; its opening is width / max_width_m, from 0 closed to 1 open.

    Attributes:
        max_width_m: Width when fully open, m.
        binary: Whether commands are 0 or 1, decided with hysteresis; otherwise an opening goes out if it differs by `deadband`.
        close_below: Opening below which a binary gripper closes.
        open_above: Opening above which a binary gripper opens.
        deadband: Smallest difference of a new opening that is sent.
        speed_m_s: Speed of the width when openings are streamed, m/s.
        acceleration_m_s2: Acceleration of the width when openings are streamed, m/s^2.
        force_n: Force of a grasp, N.
        minimum_wait_s: Shortest time for which a command is under way, s.
        deadline_s: Time after which a command has failed, s.
        readings: What the driver reports (and accepts) for closed and open, in its own units; without it 0 and max_width_m.
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
        name: Name, unique among the arms.
        base_frame: Frame of all poses of the arm.
        joint_names: (dof,) joint names from the base outwards, as the driver calls them.
        start_joints_rad: (dof,) start joints, rad.
        kinematics: Kinematics of the joints.
        tool: Tool at the flange.
        mount: Pose of the base.
        joint_limits: Limits of the joints.
        cartesian_limits: Limits of the tool centre point.
        workspace: Where the tool centre point may be.
        singularity: How near the arm may come to a singularity.
        collision: Shape of the arm.
        leash: How far commands may run ahead of the arm.
        gripper: Gripper at the tool.
        topics: Topics that the ROS adapter reads and writes, by role; the core does not look at them.
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
