"""An independent judge of what a filter sent: its own reading of the YAML, own forward kinematics, own differences.

It imports nothing from the package under test. Commands are collected and judged many ticks at a time. Each violation is
a sentence; margins hold the smallest margin seen for each limit.
"""
from __future__ import annotations

import math
from pathlib import Path
from typing import Dict, List, Optional, Union

import numpy as np
import yaml
from geometry import apart_many, matrix, rotation_vectors

LENGTH = 1e-6        # m or rad: tolerance of positions
RATE = 1e-5          # relative tolerance of speeds and accelerations
BATCH = 1000         # ticks judged together
NEAR_M = 0.2         # distances between links beyond this are bounded, not computed
SEED = 1e-4          # rad: a fresh start begins at the measured joints, within noise and one step from rest


class ArmLimits:
    """Limits and kinematics of one arm, from its section of the YAML."""

    def __init__(self, arm: dict) -> None:
        self.name, self.arm = arm["name"], arm
        self.dof = len(arm["joint_names"])
        limits = arm["joint_limits"]
        self.lower = np.array(limits["lower_rad"]) + limits["margin_rad"]
        self.upper = np.array(limits["upper_rad"]) - limits["margin_rad"]
        self.capsules = arm["collision"]["capsules"]
        self.radii = np.array([capsule["radius_m"] for capsule in self.capsules])
        self._place = {capsule["name"]: index for index, capsule in enumerate(self.capsules)}
        pairs = arm["collision"]["pairs"]
        self.pairs = np.array([[self._place[a], self._place[b]] for a, b in pairs], dtype=int).reshape(-1, 2)
        self.above_table = [self._place[name] for name in arm["collision"]["above_table"]]

    def frames(self, joints: np.ndarray) -> List[np.ndarray]:
        """Return the homogeneous transforms (..., 4, 4) of base, links 1 to dof and tool at joints (..., dof), multiplied out
        from the Craig table."""
        joints = np.asarray(joints, dtype=float)
        table, shape = self.arm["kinematics"], joints.shape[:-1]
        frames = [np.broadcast_to(np.eye(4), shape + (4, 4))]
        for index, (a, d, alpha, offset) in enumerate(zip(table["a_m"], table["d_m"], table["alpha_rad"],
                                                          table["theta_offset_rad"])):
            c, s = np.cos(joints[..., index] + offset), np.sin(joints[..., index] + offset)
            ca, sa = math.cos(alpha), math.sin(alpha)
            step = np.zeros(shape + (4, 4))
            step[..., 0, 0], step[..., 0, 1], step[..., 0, 3] = c, -s, a
            step[..., 1, 0], step[..., 1, 1], step[..., 1, 2], step[..., 1, 3] = s * ca, c * ca, -sa, -d * sa
            step[..., 2, 0], step[..., 2, 1], step[..., 2, 2], step[..., 2, 3] = s * sa, c * sa, ca, d * ca
            step[..., 3, 3] = 1.0
            frames.append(frames[-1] @ step)
        flange, tool = np.eye(4), np.eye(4)
        flange[2, 3] = table["flange_m"]
        tool[:3, :3] = matrix(np.array(self.arm["tool"]["quaternion_xyzw"], dtype=float))
        tool[:3, 3] = self.arm["tool"]["position_m"]
        return frames + [frames[-1] @ flange @ tool]

    def segments(self, frames: List[np.ndarray]) -> np.ndarray:
        """Return the ends (n, capsules, 2, 3) of every capsule in the base frame."""
        ends = []
        for capsule in self.capsules:
            frame = frames[capsule["link"]]
            ends.append(np.stack([frame[:, :3, :3] @ np.array(capsule[key], dtype=float) + frame[:, :3, 3]
                                  for key in ("start_m", "end_m")], axis=1))
        return np.stack(ends, axis=1)


class Checker:
    """The judge. `see` takes the commands of one tick after the other; `violations` and `margins` judge all that was seen."""

    def __init__(self, robot: Union[Path, dict]) -> None:
        """robot: a file of config/robots, or its contents."""
        self.robot = robot if isinstance(robot, dict) else yaml.safe_load(Path(robot).read_text(encoding="utf-8"))
        self.dt = 1.0 / self.robot["tick_hz"]
        self.arms = {arm["name"]: ArmLimits(arm) for arm in self.robot["arms"]}
        self.ticks = 0
        self._violations: List[str] = []
        self._margins: Dict[str, float] = {}
        self._reseeds: Optional[int] = None
        self._reposes = 0
        self._rows: List[tuple] = []                 # tick, fresh, reposed, relaxed
        self._sent: Dict[str, List[tuple]] = {name: [] for name in self.arms}
        self._kept = 0                               # rows at the beginning that were judged before
        self._was_published = self._fresh = self._reposed = False
        self._gripper: Dict[str, tuple] = {}

    @property
    def violations(self) -> List[str]:
        self._judge()
        return self._violations

    @property
    def margins(self) -> Dict[str, float]:
        self._judge()
        return self._margins

    def see(self, commands, reseeds: int, reposes: int = 0, relaxed: bool = False,
            measured: Optional[Dict[str, np.ndarray]] = None) -> None:
        """Take one tick. commands: what went out. reseeds: the filter's own count of fresh starts, each allowed only at rest;
        reposes: its count of changed joint solutions for a resting pose. relaxed: an arm is being led back inside, so
        position limits are not judged. measured: joints as reported, where a fresh start has to begin."""
        self.ticks += 1
        self._fresh |= reseeds != self._reseeds
        self._reposed |= reposes != self._reposes and self.robot["door"] == "cartesian"
        self._reseeds, self._reposes = reseeds, reposes
        published = [command for command in commands if command.publish]
        if self._fresh and self._was_published and not self._resting():
            self._violated(self.ticks, "a fresh start while moving")
        if self._reposed and not self._fresh and not self._resting():
            self._violated(self.ticks, "another joint solution while moving")
        self._was_published = bool(published)
        if 0 < len(published) < len(self.arms):
            self._violated(self.ticks, "one arm was commanded and the other not")
            return
        for command in commands:
            self._opening(command)
        if not published:
            return
        if self._fresh and measured is not None:
            for command in published:
                self._at_least("seed", np.array([self._begins(command, measured[command.name])]), [self.ticks], command.name)
        self._rows.append((self.ticks, self._fresh, self._reposed, relaxed))
        for command in published:
            self._sent[command.name].append((np.array(command.pose.position, dtype=float),
                                             np.array(command.pose.quaternion, dtype=float),
                                             np.array(command.joint_positions, dtype=float)))
        self._fresh = self._reposed = False
        if len(self._rows) >= BATCH:
            self._judge()

    def _begins(self, command, measured: np.ndarray) -> float:
        """Return the margin of a fresh start, rad. It begins where the arm was measured, or at the last command if the arm rests
        within the leash of that command (the arm sags there, and a start must not lower it further)."""
        arm, joints = self.arms[command.name], np.asarray(command.joint_positions)
        room = SEED + np.array(arm.arm["joint_limits"]["acceleration_rad_s2"]) * self.dt ** 2
        margin = float((room - np.abs(joints - measured)).min())
        leash, sent = arm.arm.get("leash"), self._sent[command.name]
        if margin < 0.0 and leash and sent:
            sag = np.linalg.norm(arm.frames(sent[-1][2])[-1][:3, 3] - arm.frames(measured)[-1][:3, 3])
            if sag <= leash["max_force_n"] / leash["stiffness_n_m"]:
                margin = max(margin, float((room - np.abs(joints - sent[-1][2])).min()))
        return margin

    # ---- judgement -------------------------------------------------------------------------------------------------

    def _judge(self) -> None:
        if len(self._rows) <= self._kept:
            return
        ticks = np.array([row[0] for row in self._rows])
        flags = np.array([row[1:] for row in self._rows], dtype=bool)
        new = np.arange(len(ticks)) >= self._kept
        judged, segments = {}, {}
        for name, arm in self.arms.items():
            p, quaternions, q = (np.array(column) for column in zip(*self._sent[name]))
            finite = np.isfinite(p).all(axis=1) & np.isfinite(quaternions).all(axis=1) & np.isfinite(q).all(axis=1)
            for tick in ticks[~finite & new]:
                self._violated(tick, f"{name}: a number that is none")
            p[~finite], quaternions[~finite], q[~finite] = 0.0, [0.0, 0.0, 0.0, 1.0], 0.0
            judged[name] = finite & new
            frames, turns = arm.frames(q), matrix(quaternions)
            at = judged[name]
            self._at_least("unit_quaternion", 1e-9 - np.abs(np.linalg.norm(quaternions[at], axis=1) - 1.0), ticks[at],
                           name)
            self._at_least("joint_solution_m", LENGTH - np.abs(frames[-1][at, :3, 3] - p[at]).max(axis=1), ticks[at],
                           name)
            self._at_least("joint_solution_rad",
                           LENGTH - np.abs(frames[-1][at, :3, :3] - turns[at]).max(axis=(1, 2)), ticks[at], name)
            segments[name] = arm.segments(frames)
            self._places(arm, p, q, segments[name], at & ~flags[:, 2], ticks)
            self._rates(arm, p, turns, q, flags, at, ticks)
        if len(self.arms) > 1:
            self._between(segments, new & ~flags[:, 2], ticks)
        self._rows, self._kept = self._rows[-2:], min(2, len(self._rows))
        for name in self._sent:
            self._sent[name] = self._sent[name][-2:]

    def _places(self, arm: ArmLimits, p, q, segments, at, ticks) -> None:
        ticks, p, q, segments = ticks[at], p[at], q[at], segments[at]
        if not len(ticks):
            return
        box, collision = arm.arm["workspace"], arm.arm["collision"]
        inside = np.minimum((p - box["lower_m"]).min(axis=1), (np.array(box["upper_m"]) - p).min(axis=1))
        self._at_least("workspace", inside, ticks, arm.name, LENGTH)
        for plane in box["planes"]:
            self._at_least("plane", p @ np.array(plane["normal"]) - plane["offset_m"], ticks, arm.name, LENGTH)
        room = np.minimum((q - arm.lower).min(axis=1), (arm.upper - q).min(axis=1))
        self._at_least("joint_position", room, ticks, arm.name, LENGTH)
        if arm.above_table:
            heights = segments[:, arm.above_table][..., 2].min(axis=2) - arm.radii[arm.above_table]
            self._at_least("table", heights.min(axis=1) - collision["table_z_m"] - collision["margin_m"], ticks,
                           arm.name, LENGTH)
        if len(arm.pairs):
            first, second = arm.pairs[:, 0], arm.pairs[:, 1]
            away = apart_many(segments[:, first], segments[:, second], NEAR_M) - arm.radii[first] - arm.radii[second]
            self._at_least("self_collision", away.min(axis=1) - collision["margin_m"], ticks, arm.name, LENGTH)

    def _rates(self, arm: ArmLimits, p, turns, q, flags, at, ticks) -> None:
        """Judge differences of consecutive commands; after a fresh start the two before it count as the first command."""
        dt, cartesian, joints = self.dt, arm.arm["cartesian_limits"], arm.arm["joint_limits"]
        fresh, reposed = flags[:, 0], flags[:, 1] & ~flags[:, 0]
        rows = np.flatnonzero(at & ~fresh & (np.arange(len(ticks)) > 0))
        if not len(rows):
            return
        one = rows - 1
        two = np.where(fresh[one] | (one == 0), one, one - 1)
        velocity, before = (p[rows] - p[one]) / dt, (p[one] - p[two]) / dt
        spin = rotation_vectors(turns[rows] @ turns[one].transpose(0, 2, 1)) / dt
        spin_before = rotation_vectors(turns[one] @ turns[two].transpose(0, 2, 1)) / dt
        when, length = ticks[rows], np.linalg.norm
        self._rate("speed", length(velocity, axis=1), cartesian["speed_m_s"], when, arm)
        self._rate("rotation_speed", length(spin, axis=1), cartesian["rotation_speed_rad_s"], when, arm)
        self._rate("acceleration", length(velocity - before, axis=1) / dt, cartesian["acceleration_m_s2"], when, arm)
        self._rate("rotation_acceleration", length(spin - spin_before, axis=1) / dt,
                   cartesian["rotation_acceleration_rad_s2"], when, arm)
        known = ~reposed[rows]                # the joints for the resting pose were chosen anew: they give no speed
        rows, one, two, when = rows[known], one[known], two[known], when[known]
        rates, rates_before = (q[rows] - q[one]) / dt, (q[one] - q[two]) / dt
        self._rate("joint_velocity", (np.abs(rates) / joints["velocity_rad_s"]).max(axis=1, initial=0.0), 1.0, when,
                   arm)
        table = joints.get("position_dependent")
        if table:
            up = np.array(table["gain_rad_s2"]) * (np.array(table["upper_rad"]) - q[one])
            down = np.array(table["gain_rad_s2"]) * (np.array(table["lower_rad"]) + q[one])
            # where the root falls below the offset, only standing still and leaving the stop remain allowed
            room_up = np.maximum(np.sqrt(np.maximum(up, 0.0)) - table["offset_rad_s"], 0.0) - rates
            room_down = np.maximum(np.sqrt(np.maximum(down, 0.0)) - table["offset_rad_s"], 0.0) + rates
            self._at_least("joint_velocity_by_position", np.minimum(room_up, room_down).min(axis=1, initial=np.inf),
                           when, arm.name, 1e-6)
        known = ~reposed[one]
        change = np.abs(rates - rates_before)[known] / dt / joints["acceleration_rad_s2"]
        self._rate("joint_acceleration", change.max(axis=1, initial=0.0), 1.0, when[known], arm)

    def _between(self, segments: Dict[str, np.ndarray], at, ticks) -> None:
        world = {}
        for name, local in segments.items():
            mount = self.arms[name].arm["mount"]
            turn = matrix(np.array(mount["quaternion_xyzw"], dtype=float))
            world[name] = local[at] @ turn.T + np.array(mount["position_m"])
        names = list(world)
        for index, first in enumerate(names):
            for second in names[index + 1:]:
                radii = self.arms[first].radii[:, None] + self.arms[second].radii
                away = apart_many(world[first][:, :, None], world[second][:, None], NEAR_M) - radii
                self._at_least("inter_arm", away.reshape(len(away), -1).min(axis=1, initial=np.inf)
                               - self.robot["inter_arm_margin_m"], ticks[at], "arms", LENGTH)

    def _opening(self, command) -> None:
        """Judge openings: they lie in 0 to 1, and streamed ones keep to speed and acceleration limits. None: no step."""
        last = None if self._fresh or not command.publish else self._gripper.get(command.name)
        arm = self.arms[command.name]
        gripper, opening = arm.arm["gripper"], command.gripper
        self._gripper.pop(command.name, None)
        if opening is None and last is None:
            return
        opening = last[0] if opening is None else opening
        self._at_least("gripper", np.array([0.5 - abs(opening - 0.5)]), [self.ticks], command.name, 1e-9)
        speed = None                              # the first opening has no known speed
        if last is not None and not gripper["binary"]:
            speed = (opening - last[0]) * gripper["max_width_m"] / self.dt
            self._rate("gripper_speed", np.array([abs(speed)]), gripper["speed_m_s"], [self.ticks], arm)
            if last[1] is not None:
                self._rate("gripper_acceleration", np.array([abs(speed - last[1])]) / self.dt,
                           gripper["acceleration_m_s2"], [self.ticks], arm)
        self._gripper[command.name] = (opening, speed)

    def _resting(self) -> bool:
        """Whether the last two commands of every arm are the same."""
        return all(len(sent) < 2 or np.allclose(sent[-1][0], sent[-2][0], atol=1e-7) for sent in self._sent.values())

    def _rate(self, name: str, values: np.ndarray, limit: float, ticks, arm: ArmLimits) -> None:
        self._at_least(name, limit - values, ticks, arm.name, limit * RATE)

    def _at_least(self, name: str, margins: np.ndarray, ticks, arm: str, tolerance: float = 0.0) -> None:
        if not len(margins):
            return
        worst = float(np.min(margins))
        self._margins[name] = min(self._margins.get(name, math.inf), worst)
        if not worst >= -tolerance:
            for index in np.flatnonzero(~(margins >= -tolerance)):
                self._violated(ticks[index], f"{arm}: {name} by {-margins[index]:.3g}")

    def _violated(self, tick: int, what: str) -> None:
        self._violations.append(f"tick {tick}: {what}")
