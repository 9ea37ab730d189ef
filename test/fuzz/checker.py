"""Judges what a filter sent, knowing nothing of it: own reading of the YAML, own forward kinematics, own differences.

It imports nothing from the package under test. A violation is a sentence; margins are the smallest seen, by limit.
"""
from __future__ import annotations

import math
from pathlib import Path
from typing import Dict, List, Optional

import numpy as np
import yaml

LENGTH = 1e-6        # m or rad: tolerance of positions
RATE = 1e-5          # relative tolerance of speeds and accelerations
EVERY = 8            # ticks between two looks at distances of links


class ArmChecker:
    """Limits of one arm, and the last commands sent to it."""

    def __init__(self, arm: dict, dt: float) -> None:
        self.name, self.arm, self.dt = arm["name"], arm, dt
        self.dof = len(arm["joint_names"])
        limits = arm["joint_limits"]
        self.lower = np.array(limits["lower_rad"]) + limits["margin_rad"]
        self.upper = np.array(limits["upper_rad"]) - limits["margin_rad"]
        self.history: List[tuple] = []
        self.blind = 0      # ticks without a joint history: the joints behind the resting pose were chosen anew

    def frames(self, joints: np.ndarray) -> List[np.ndarray]:
        """Homogeneous transforms of base, links 1 to dof and tool, from the Craig table by 4 x 4 products."""
        table = self.arm["kinematics"]
        frames = [np.eye(4)]
        for a, d, alpha, offset, q in zip(table["a_m"], table["d_m"], table["alpha_rad"], table["theta_offset_rad"],
                                          joints):
            c, s, ca, sa = math.cos(q + offset), math.sin(q + offset), math.cos(alpha), math.sin(alpha)
            frames.append(frames[-1] @ np.array([[c, -s, 0, a], [s * ca, c * ca, -sa, -d * sa],
                                                 [s * sa, c * sa, ca, d * ca], [0, 0, 0, 1]]))
        flange, tool = np.eye(4), np.eye(4)
        flange[2, 3] = table["flange_m"]
        tool[:3, :3] = matrix(self.arm["tool"]["quaternion_xyzw"])
        tool[:3, 3] = self.arm["tool"]["position_m"]
        return frames + [frames[-1] @ flange @ tool]

    def capsules(self, frames: List[np.ndarray]) -> Dict[str, tuple]:
        """name -> (start, end, radius) in the base frame."""
        result = {}
        for capsule in self.arm["collision"]["capsules"]:
            frame = frames[capsule["link"]]
            ends = [frame[:3, :3] @ np.array(capsule[key]) + frame[:3, 3] for key in ("start_m", "end_m")]
            result[capsule["name"]] = (ends[0], ends[1], capsule["radius_m"])
        return result


class Checker:
    """`see` one tick's commands after the other."""

    def __init__(self, robot_file: Path) -> None:
        self.robot = yaml.safe_load(Path(robot_file).read_text(encoding="utf-8"))
        self.dt = 1.0 / self.robot["tick_hz"]
        self.arms = {arm["name"]: ArmChecker(arm, self.dt) for arm in self.robot["arms"]}
        self.violations: List[str] = []
        self.margins: Dict[str, float] = {}
        self.ticks = 0
        self._reseeds: Optional[int] = None
        self._was_published = False
        self._reposes = 0

    def see(self, commands, reseeds: int, reposes: int = 0, relaxed: bool = False) -> None:
        """commands: what went out this tick. reseeds: the filter's own count of fresh starts, each only at rest;
        reposes: of changed joint solutions behind a resting pose. relaxed: an arm is being led back inside, so
        position limits are not judged."""
        self.ticks += 1
        if reposes != self._reposes and self.robot["door"] == "cartesian":
            self._reposes = reposes
            for command in commands:
                arm = self.arms[command.name]
                if len(arm.history) > 1 and not np.allclose(arm.history[-1][0], arm.history[-2][0], atol=1e-7):
                    self._violated(f"{arm.name}: another joint solution while moving")
                arm.blind = 2
        fresh = reseeds != self._reseeds
        self._reseeds = reseeds
        published = [command for command in commands if command.publish]
        if fresh:
            for arm in self.arms.values():
                if self._was_published and len(arm.history) > 1 and not np.allclose(
                        arm.history[-1][0], arm.history[-2][0], atol=1e-7):
                    self._violated(f"{arm.name}: a fresh start while moving")
                arm.history.clear()
        self._was_published = bool(published)
        if 0 < len(published) < len(self.arms):
            self._violated("one arm was commanded and the other not")
        links = {}
        for command in published:
            links[command.name] = self._arm(self.arms[command.name], command, relaxed)
        if len(links) > 1 and not relaxed and self.ticks % EVERY == 0:
            self._between(links)

    def _arm(self, arm: ArmChecker, command, relaxed: bool) -> List[np.ndarray]:
        p, quaternion = np.array(command.pose.position), np.array(command.pose.quaternion)
        q = np.array(command.joint_positions)
        if not (np.isfinite(p).all() and np.isfinite(quaternion).all() and np.isfinite(q).all()):
            self._violated(f"{arm.name}: a number that is none")
            return arm.frames(np.zeros(arm.dof))
        self._at_least("unit_quaternion", 1e-9 - abs(np.linalg.norm(quaternion) - 1.0), arm)
        frames, turn = arm.frames(q), matrix(quaternion)
        self._at_least("joint_solution_m", LENGTH - np.abs(frames[-1][:3, 3] - p).max(), arm)
        self._at_least("joint_solution_rad", LENGTH - np.abs(frames[-1][:3, :3] - turn).max(), arm)
        if not relaxed:
            box = arm.arm["workspace"]
            self._at_least("workspace", min((p - box["lower_m"]).min(), (np.array(box["upper_m"]) - p).min()), arm,
                           LENGTH)
            for plane in box["planes"]:
                self._at_least("plane", float(np.dot(plane["normal"], p)) - plane["offset_m"], arm, LENGTH)
            self._at_least("joint_position", min((q - arm.lower).min(), (arm.upper - q).min()), arm, LENGTH)
            if self.ticks % EVERY == 0:
                self._distances(arm, frames)
        self._rates(arm, p, turn, q)
        arm.history = arm.history[-1:] + [(p, turn, q)]
        if command.gripper is not None:
            self._at_least("gripper", 0.5 - abs(command.gripper - 0.5), arm, 1e-9)
        return frames

    def _rates(self, arm: ArmChecker, p, turn, q) -> None:
        if not arm.history:
            return
        dt, cartesian, joints = self.dt, arm.arm["cartesian_limits"], arm.arm["joint_limits"]
        if arm.blind == 2:
            arm.history = [(p, r, q) for p, r, _ in arm.history]
        p1, r1, q1 = arm.history[-1]
        velocity, spin, rates = (p - p1) / dt, rotation_vector(turn @ r1.T) / dt, (q - q1) / dt
        self._rate("speed", np.linalg.norm(velocity), cartesian["speed_m_s"], arm)
        self._rate("rotation_speed", np.linalg.norm(spin), cartesian["rotation_speed_rad_s"], arm)
        self._rate("joint_velocity", (np.abs(rates) / joints["velocity_rad_s"]).max(), 1.0, arm)
        table = joints.get("position_dependent")
        if table:
            up = np.array(table["gain_rad_s2"]) * (np.array(table["upper_rad"]) - q1)
            down = np.array(table["gain_rad_s2"]) * (np.array(table["lower_rad"]) + q1)
            room_up = np.sqrt(np.maximum(up, 0.0)) - table["offset_rad_s"] - rates
            room_down = np.sqrt(np.maximum(down, 0.0)) - table["offset_rad_s"] + rates
            self._at_least("joint_velocity_by_position", min(room_up.min(), room_down.min()), arm, 1e-6)
        still = len(arm.history) < 2
        p0, r0, q0 = arm.history[-1] if still else arm.history[-2]
        before = (p1 - p0) / dt, rotation_vector(r1 @ r0.T) / dt, (q1 - q0) / dt
        self._rate("acceleration", np.linalg.norm(velocity - before[0]) / dt, cartesian["acceleration_m_s2"], arm)
        self._rate("rotation_acceleration", np.linalg.norm(spin - before[1]) / dt,
                   cartesian["rotation_acceleration_rad_s2"], arm)
        if arm.blind:
            arm.blind -= 1
            return
        self._rate("joint_acceleration", (np.abs(rates - before[2]) / dt / joints["acceleration_rad_s2"]).max(), 1.0,
                   arm)

    def _distances(self, arm: ArmChecker, frames) -> None:
        collision, capsules = arm.arm["collision"], arm.capsules(frames)
        for name in collision["above_table"]:
            start, end, radius = capsules[name]
            self._at_least("table", min(start[2], end[2]) - radius - collision["table_z_m"] - collision["margin_m"],
                           arm, LENGTH)
        for a, b in collision["pairs"]:
            away = apart(capsules[a], capsules[b])
            self._at_least("self_collision", away - collision["margin_m"], arm, LENGTH)

    def _between(self, links: Dict[str, List[np.ndarray]]) -> None:
        world = []
        for name, frames in links.items():
            mount = self.arms[name].arm["mount"]
            turn, move = matrix(mount["quaternion_xyzw"]), np.array(mount["position_m"])
            world.append([(turn @ a + move, turn @ b + move, r)
                          for a, b, r in self.arms[name].capsules(frames).values()])
        for first in world[0]:
            for second in world[1]:
                away = apart(first, second) - self.robot["inter_arm_margin_m"]
                self._at_least("inter_arm", away, None, LENGTH)

    def _rate(self, name: str, value: float, limit: float, arm: ArmChecker) -> None:
        self._at_least(name, limit - value, arm, limit * RATE)

    def _at_least(self, name: str, margin: float, arm: Optional[ArmChecker], tolerance: float = 0.0) -> None:
        self.margins[name] = min(self.margins.get(name, math.inf), float(margin))
        if not margin >= -tolerance:
            self._violated(f"{arm.name if arm else 'arms'}: {name} by {-margin:.3g}")

    def _violated(self, what: str) -> None:
        self.violations.append(f"tick {self.ticks}: {what}")


def matrix(quaternion) -> np.ndarray:
    """Rotation matrix of a unit quaternion xyzw."""
    v, w = np.array(quaternion[:3], dtype=float), float(quaternion[3])
    cross = np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])
    return np.eye(3) + 2.0 * w * cross + 2.0 * cross @ cross


def rotation_vector(turn: np.ndarray) -> np.ndarray:
    """Rotation vector of a small turn, from its antisymmetric part."""
    half = 0.5 * np.array([turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]])
    sine = np.linalg.norm(half)
    return half if sine < 1e-9 else half * (math.atan2(sine, 0.5 * (np.trace(turn) - 1.0)) / sine)


def apart(first: tuple, second: tuple) -> float:
    """Distance of two capsules: the convex distance function of two segments, minimised in nested form.

    For each point of the first segment the nearest point of the second is a projection; what remains is a convex
    function of one number, minimised by ternary search.
    """
    (a, b, ra), (c, d, rb) = first, second
    way = d - c
    square = max(float(way @ way), 1e-15)

    def distance(s: float) -> float:
        point = a + s * (b - a)
        t = min(1.0, max(0.0, float((point - c) @ way) / square))
        return float(np.linalg.norm(point - c - t * way))

    low, high = 0.0, 1.0
    if distance(0.5) - 0.5 * float(np.linalg.norm(b - a)) - ra - rb > 0.15:
        return distance(0.5) - 0.5 * float(np.linalg.norm(b - a)) - ra - rb   # a lower bound, far enough
    for _ in range(40):
        left, right = low + (high - low) / 3.0, high - (high - low) / 3.0
        if distance(left) <= distance(right):
            high = right
        else:
            low = left
    return distance(0.5 * (low + high)) - ra - rb
