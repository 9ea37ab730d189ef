"""How near free motion through the filter comes to the time-optimal motion on the same path. Simulated time.

    python test/support/free_motion.py --robot sim_fr3 --moves 200 --json out/free_motion.json
"""
from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import time_optimal
from safety_rig import Rig
from scipy.spatial.transform import Rotation

from hybridvla_core.robots.kinematics import ArmKinematics, BatchKinematics
from hybridvla_core.safety import limits
from hybridvla_core.safety.limits.limit import Trajectory

ERROR_M, ERROR_RAD = 1e-3, np.radians(0.2)
SHORTEST_M = 0.05
PATIENCE_S = 12.0
RAMP_TICKS = 400        # after activation the filter may need this time to reach full speed
STATIONS = 16
ROOM = {"workspace": 0.01, "joint_position": 0.1, "singularity": 0.06}   # m, rad, -; distances from the limits, along the path


@dataclasses.dataclass(frozen=True)
class Move:
    """One keyframe: path length, m; time until it stays within the error, s; TOPP-RA's time, s; final errors; interference.
    """

    metres: float
    seconds: float
    optimal: float
    error_m: float
    error_rad: float
    limited: tuple

    @property
    def excess(self) -> float:
        """Return the seconds over 1.25 times the optimum; at most 0.05 s is promised."""
        return self.seconds - 1.25 * self.optimal


class Course:
    """Successive moves between random poses whose straight path is free: no limit except those on speed is near it.

    Inverse kinematics along the line decides this before the move; `draws` counts the candidates.
    """

    def __init__(self, robot: str, seed: int, tilt: float = 0.25) -> None:
        self._rng, self._tilt = np.random.default_rng(seed), tilt
        self.rig = Rig(robot, change=lambda config: dataclasses.replace(config, deadman_required=False)).start()
        self.rig.tick(RAMP_TICKS)
        self._scale = self.rig.config.speed_scale
        self._limits = limits.build(self.rig.config)
        self._batch = BatchKinematics(self.rig.config.arms)
        self._kinematics = [ArmKinematics(arm) for arm in self.rig.config.arms]
        self.draws = 0
        self._down = [Rotation.from_matrix(matrix) for matrix in self.rig.filter.commanded_rotations]

    def move(self) -> Move:
        rig, arms = self.rig, self.rig.config.arms
        rig.tick()
        start = np.array([command.pose.position for command in rig.output.arms])
        while True:
            self.draws += 1
            goals = np.array([self._goal(arm) for arm in arms])
            turns = [Rotation.from_rotvec(self._rng.uniform(-self._tilt, self._tilt, 3)) * down for down in self._down]
            way = np.linalg.norm(goals - start, axis=1)
            if (way >= SHORTEST_M).all() and self._free(goals, turns):
                break
        begin = len(rig.sent) - 1
        answer = rig.propose(goals, [turn.as_quat() for turn in turns])
        assert answer.accepted, answer.reason
        limited = set()
        for _ in range(int(PATIENCE_S / rig.config.dt)):
            rig.tick()
            limited |= {margin.name for margin in rig.output.status.margins if margin.active}
            if rig.output.status.at_target:
                break
        sent = rig.sent[begin:]
        positions = np.array([[command.pose.position for command in output.arms] for output in sent])
        matrices = np.array([[Rotation.from_quat(command.pose.quaternion).as_matrix() for command in output.arms]
                             for output in sent])
        joints = np.array([[command.joint_positions for command in output.arms] for output in sent])
        away = np.linalg.norm(positions - goals, axis=2).max(axis=1)
        turned = np.array([max((turn * Rotation.from_matrix(m).inv()).magnitude() for turn, m in zip(turns, matrix))
                           for matrix in matrices])
        late = np.flatnonzero((away > ERROR_M) | (turned > ERROR_RAD))
        seconds = (late[-1] + 1) * rig.config.dt if late[-1] + 1 < len(sent) else float("inf")
        optimal = time_optimal.seconds(arms, joints, positions, matrices, self._scale)
        return Move(float(way.max()), seconds, optimal, float(away[-1]), float(turned[-1]), tuple(sorted(limited)))

    def _free(self, goals: np.ndarray, turns: list) -> bool:
        """Whether joints can follow the straight paths to the goals (A, 3) m with every positional limit at a distance."""
        commands = self.rig.output.arms
        joints = np.array([command.joint_positions for command in commands])
        starts = [Rotation.from_quat(command.pose.quaternion) for command in commands]
        begin = np.array([command.pose.position for command in commands])
        way = [joints.copy()]
        for share in np.linspace(0.0, 1.0, STATIONS)[1:]:
            for index, arm in enumerate(self._kinematics):
                turn = Rotation.from_rotvec(share * (turns[index] * starts[index].inv()).as_rotvec()) * starts[index]
                for _ in range(4):
                    position, matrix = arm.pose(joints[index])
                    error = np.concatenate((begin[index] + share * (goals[index] - begin[index]) - position,
                                            (turn * Rotation.from_matrix(matrix).inv()).as_rotvec()))
                    joints[index] += np.linalg.pinv(arm.jacobian(joints[index])) @ error
            way.append(joints.copy())
        for station in way:
            window = Trajectory(np.repeat(station[:, None], 3, axis=1), self.rig.config.dt, self._batch)
            for limit in self._limits:
                if limit.positional and (limit.margins(window) < ROOM.get(limit.name, 0.02)).any():
                    return False
        return True

    def _goal(self, arm) -> np.ndarray:
        low, high = np.array(arm.workspace.lower_m), np.array(arm.workspace.upper_m)
        return self._rng.uniform(low + 0.1 * (high - low), high - 0.1 * (high - low))


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--robot", default="sim_fr3")
    parser.add_argument("--moves", type=int, default=120)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json")
    args = parser.parse_args(argv)
    course = Course(args.robot, args.seed)
    moves = [course.move() for _ in range(args.moves)]
    for move in sorted(moves, key=lambda m: -m.excess)[:8]:
        print(f"  {move.metres:.3f} m  {move.seconds:.3f} s  optimum {move.optimal:.3f} s  "
              f"{move.error_m * 1e3:.2f} mm {np.degrees(move.error_rad):.2f} deg  {' '.join(move.limited)}")
    reached = [move for move in moves if np.isfinite(move.seconds)]
    ratios = np.array([move.seconds / move.optimal for move in reached])
    result = {"robot": args.robot, "seed": args.seed, "moves": len(moves), "reached": len(reached),
              "draws": course.draws, "within": int(sum(move.excess <= 0.05 for move in moves)),
              "ratio": {"median": float(np.median(ratios)), "max": float(ratios.max())},
              "worst_excess_s": max(move.excess for move in reached),
              "error_m": max(move.error_m for move in reached),
              "error_degrees": float(np.degrees(max(move.error_rad for move in reached)))}
    print(json.dumps(result))
    if args.json:
        Path(args.json).parent.mkdir(parents=True, exist_ok=True)
        Path(args.json).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0 if result["within"] == result["moves"] else 1


if __name__ == "__main__":
    sys.exit(main())
