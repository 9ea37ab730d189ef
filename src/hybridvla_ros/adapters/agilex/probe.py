"""The start-up probe of an AgileX driver: which units it uses, and whether it means the same arm as we do.

Drivers of different dates send end poses and take `PosCmd` in m and rad, or in mm and degrees, under one message type and
one MD5 sum, and gripper readings in m or in motor units. The probe trusts no name: it compares the driver's end pose
with our own kinematics at the driver's own joint angles.
"""
from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Dict, Optional, Sequence, Tuple

import numpy as np
from scipy.spatial.transform import Rotation

from hybridvla_core.geometry import poses
from hybridvla_core.robots.arm import ArmConfig
from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.robots.kinematics import ArmKinematics
from hybridvla_ros.messages.arm_reader import fits_gripper

#: Unit name -> size of one driver unit in m and rad.
SCALES: Dict[str, Tuple[float, float]] = {"m_rad": (1.0, 1.0), "mm_deg": (1e-3, math.pi / 180.0)}
#: Theta offsets of joints 2 and 3, degrees, by firmware (piper_sdk, piper_fk.py).
FIRMWARES = {"newer": (-172.22, -102.78), "older": (-174.22, -100.78)}
SAMPLES = 10
METRES_AT_MOST = 0.15        # no gripper of these arms opens this far
METRES_AT_LEAST = -0.005     # nor closes this far beyond 0
MOVED_M, STAYS = 0.01, 50    # a gripper that moves in motor units leaves those bounds within some ten readings


@dataclass(frozen=True)
class EndPose:
    """An end pose as the driver sent it, in its own units.

    Attributes:
        position: x, y, z.
        quaternion: Orientation in a Pose message, xyzw.
        euler: Angles in a PosCmd, about x, y and z.
    """

    position: Tuple[float, float, float]
    quaternion: Optional[Tuple[float, float, float, float]] = None
    euler: Optional[Tuple[float, float, float]] = None


class UnitProbe:
    """Probe of one arm. Feed it joints and end poses as they come; `problem` is empty once everything fits.

    `units` is then `m_rad` or `mm_deg`: the units in which a PosCmd must be sent.
    """

    def __init__(self, arm: ArmConfig, config: RobotConfig) -> None:
        self.name = arm.name
        self._fixed = config.agilex.pos_cmd_units
        self._tolerance = (config.tcp_tolerance_m, config.tcp_tolerance_rad)
        bare = replace(arm.tool, position_m=(0.0, 0.0, 0.0), quaternion_xyzw=(0.0, 0.0, 0.0, 1.0))
        self._flange = ArmKinematics(replace(arm, tool=bare))
        self._others = {}
        for name, degrees in FIRMWARES.items():
            offsets = list(arm.kinematics.theta_offset_rad)
            offsets[1:3] = np.radians(degrees)
            table = replace(arm.kinematics, theta_offset_rad=tuple(offsets))
            if np.abs(np.subtract(offsets, arm.kinematics.theta_offset_rad)).max() > 1e-4:
                self._others[name] = ArmKinematics(replace(arm, tool=bare, kinematics=table))
        self._closed, self._open = arm.gripper.readings or (0.0, arm.gripper.max_width_m)
        self._joints: Optional[np.ndarray] = None
        self._agreed: Dict[str, int] = {}
        self.units = ""
        self.problem = f"{self.name}: waiting for the driver's end pose, to check its units"
        self.gripper_problem = self._metres = ""
        #: Whether end poses are still checked for the gripper's units: motor units are configured, and none have been seen.
        self.compares = max(abs(self._closed), abs(self._open)) > METRES_AT_MOST
        self._lowest, self._highest, self._stayed = math.inf, -math.inf, 0

    @property
    def done(self) -> bool:
        return bool(self.units)

    def joints(self, positions: Sequence[float], gripper: float) -> None:
        """Takes the arm's joints (dof,), rad, and the gripper's reading in the driver's units."""
        self._joints = np.asarray(positions, dtype=float)
        self.gripper_problem = self._metres
        if not math.isfinite(gripper):
            self.gripper_problem = f"{self.name}: the joint states carry no gripper; check the driver"
        elif not fits_gripper(gripper, self._closed, self._open):
            motor = max(self._closed, self._open) < METRES_AT_MOST < abs(gripper)
            self.gripper_problem = (
                f"{self.name}: the gripper reads {gripper:.3f}, configured are {self._closed:g} closed and {self._open:g} "
                f"open; {'the driver counts in motor units, ' if motor else ''}set gripper.readings to what it reports "
                "closed and open")

    def pose(self, pose: EndPose, gripper_m: float = math.nan) -> None:
        """Takes an end pose of the driver; gripper_m: the opening, m, that a PosCmd carries."""
        if self._joints is None or not np.isfinite(self._joints).all():
            return
        if pose.euler is not None and self.compares:
            self._compare(gripper_m)
        if self.done:
            return
        fits = [units for units in SCALES if self._fits(self._flange, pose, units)]
        if pose.euler is None:
            fits = self._from_pose(pose, fits)
        if len(fits) != 1:
            self._agreed.clear()
            self.problem = self._misfit(pose)
            return
        self._agreed[fits[0]] = self._agreed.get(fits[0], 0) + 1
        if self._agreed[fits[0]] >= SAMPLES:
            self._decide(fits[0])

    def _compare(self, reading: float) -> None:
        """Tells metres from motor units: they look alike for a nearly closed gripper, until the gripper has moved."""
        if not math.isfinite(reading):
            return
        if not METRES_AT_LEAST <= reading <= METRES_AT_MOST:
            self.compares, self._metres = False, ""      # not an opening in m
            return
        self._lowest, self._highest = min(self._lowest, reading), max(self._highest, reading)
        if self._highest - self._lowest > MOVED_M:
            self._stayed += 1
        if self._stayed >= STAYS:
            self._metres = (f"{self.name}: the driver gives the gripper's opening in m, configured are motor units; "
                            "remove gripper.readings")

    def _decide(self, units: str) -> None:
        if self._fixed not in ("probe", units):
            self.problem = (f"{self.name}: the driver speaks {units}, but agilex.pos_cmd_units is {self._fixed}; set it to "
                            f"{units} or to probe")
            return
        self.units, self.problem = units, ""

    def _from_pose(self, pose: EndPose, fits: Sequence[str]) -> Sequence[str]:
        """Finds the units of a driver whose Pose fits no known units.

        A 2024 driver sends Pose in m with a quaternion made from degrees taken for radians; its PosCmd is in mm and
        degrees. A driver with a correct quaternion is newer, and takes m and rad.

        Args:
            pose: Pose as the driver sent it, with a quaternion.
            fits: Units that fit so far.

        Returns:
            `fits`, or `mm_deg` alone where none fits and the quaternion is wrong in that way.
        """
        if fits or not self._near(self._flange, pose, 1.0):
            return fits
        position, matrix = self._flange.pose(self._joints)
        angles = np.degrees(Rotation.from_matrix(matrix).as_euler("xyz"))
        wrong = Rotation.from_euler("xyz", angles)           # deliberately not radians
        # A thousandth of a degree becomes a thousandth of a radian there, so rounding the angles turns the pose visibly.
        near = (wrong.inv() * Rotation.from_quat(pose.quaternion)).magnitude() < 60.0 * self._tolerance[1]
        return ["mm_deg"] if near else fits

    def _fits(self, arm: ArmKinematics, pose: EndPose, units: str) -> bool:
        metre, radian = SCALES[units]
        return self._near(arm, pose, metre) and self._angle(arm, pose, radian) <= self._tolerance[1]

    def _near(self, arm: ArmKinematics, pose: EndPose, metre: float) -> bool:
        return bool(np.linalg.norm(metre * np.array(pose.position) - arm.pose(self._joints)[0]) <= self._tolerance[0])

    def _angle(self, arm: ArmKinematics, pose: EndPose, radian: float) -> float:
        if pose.euler is not None:
            theirs = Rotation.from_euler("xyz", radian * np.array(pose.euler)).as_matrix()
        elif pose.quaternion is not None and abs(np.linalg.norm(pose.quaternion) - 1.0) < 1e-3:
            theirs = Rotation.from_quat(pose.quaternion).as_matrix()
        else:
            return math.inf
        return poses.turn(theirs, arm.pose(self._joints)[1])

    def _misfit(self, pose: EndPose) -> str:
        for firmware, arm in self._others.items():
            if any(self._fits(arm, pose, units) for units in SCALES):
                degrees = ", ".join(str(angle) for angle in FIRMWARES[firmware])
                return (f"{self.name}: the driver's end pose is that of {firmware} firmware; set the 2nd and 3rd of "
                        f"kinematics.theta_offset_rad to {degrees} degrees")
        here = self._flange.pose(self._joints)[0]
        if pose.quaternion is not None and abs(np.linalg.norm(pose.quaternion) - 1.0) >= 1e-3:
            return f"{self.name}: the driver's end pose has no unit quaternion: it carries angles; use another pose topic"
        away = min(float(np.linalg.norm(metre * np.array(pose.position) - here)) for metre, _ in SCALES.values())
        return (f"{self.name}: the driver's end pose fits our kinematics in no unit, {away * 1e3:.0f} mm off at best; check "
                "the arm's kinematics, the order of its joints, and that both topics are of this arm")
