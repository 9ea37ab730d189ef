"""Samples states to which nobody drove: an expert's states, with the hands elsewhere and the held objects moved along."""
from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Optional, Tuple

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

from hybridvla_core.contracts import Pose
from hybridvla_core.transforms.conventions import ActionConvention, action_to_targets
from hybridvla_sim.demonstrations.balance import Balance
from hybridvla_sim.demonstrations.drive import astray
from hybridvla_sim.experts import expert_action
from hybridvla_sim.fr3.posing import solve_pose
from hybridvla_sim.fr3.rig import MAX_WIDTH
from hybridvla_sim.piper.rig import PiperRig
from hybridvla_sim.piper.scene import MAX_WIDTH as PIPER_WIDTH
from hybridvla_sim.piper.scene import TIP_M
from hybridvla_sim.suite import AnyRig
from hybridvla_sim.taskkit import looks
from hybridvla_sim.taskkit.moves import OPEN

#: How far hands are moved, m and rad, and how often: so little that the step stays the same, a little, or far.
SPREADS = ((0.004, 0.04, 0.45), (0.012, 0.10, 0.35), (0.045, 0.10, 0.20))
#: How often a state in which the task is done is tried; there the hand stays.
DONE_SHARE = 0.03
#: How often an empty open hand is shut (mostly) or half shut near its object, as after a missed grasp.
MISSED_SHARE, SHUT_SHARE, HALF_SHUT = 0.07, 0.7, 0.8
#: Allowed overlap, m: touching shapes overlap slightly; shapes pressed together in the snapshot, slightly more than there.
OVERLAP_M, DEEPER_M = 0.004, 0.001
LOWEST_M = 0.006
TRIES = 8


@dataclass(frozen=True)
class Snapshot:
    """A state that can be restored.

    Attributes:
        qpos: Positions (nq,) of the model, m and rad.
        model: Model fields that a scene changes, by name (colours, places of fixed bodies, what collides).
        memory: What the world remembers, by attribute.
    """

    qpos: np.ndarray
    model: Dict[str, np.ndarray]
    memory: Dict[str, Any]

    @classmethod
    def of(cls, rig: AnyRig) -> Snapshot:
        """Takes a snapshot of a rig."""
        names = rig.world.memory
        return cls(rig.data.qpos.copy(), looks.snapshot(rig.model),
                   {name: copy.deepcopy(getattr(rig.world, name)) for name in names})

    def restore(self, rig: AnyRig) -> None:
        """Restores the state in a rig, at rest."""
        rig.data.qpos[:], rig.data.qvel[:] = self.qpos, 0.0
        looks.apply(rig.model, self.model)
        for name, value in self.memory.items():
            setattr(rig.world, name, copy.deepcopy(value))
        mujoco.mj_forward(rig.model, rig.data)


@dataclass(frozen=True)
class _Motion:
    """A rigid motion in the frame that all arms share.

    Attributes:
        about: Point (3,) about which it turns, m.
        turn: Rotation about that point.
        shift: Translation (3,) of that point, m.
    """

    about: np.ndarray
    turn: Rotation
    shift: np.ndarray

    def point(self, position: np.ndarray) -> np.ndarray:
        """Returns the moved position of a point (3,) m."""
        found: np.ndarray = self.about + self.shift + self.turn.apply(position - self.about)
        return found

    def quaternion(self, xyzw: np.ndarray) -> np.ndarray:
        """Returns the moved rotation (4,) of a rotation (4,), both xyzw."""
        found: np.ndarray = (self.turn * Rotation.from_quat(xyzw)).as_quat()
        return found


def states(rig: AnyRig, convention: ActionConvention, text: str, snapshots: List[Snapshot], count: int, rng: np.random.Generator
           ) -> Iterator[int]:
    """Puts the rig into one sampled state after the other.

    Args:
        rig: Rig, furnished as when the snapshots were taken.
        convention: Convention of actions.
        text: The sentence that the expert followed.
        snapshots: States at rest before the expert's keyframes.
        count: Number of states.
        rng: Generator that draws the states.

    Yields:
        The number of each state, from 0, while the rig is in it; fewer than `count` if `TRIES` times as many tries do not
        suffice. Each step of the task occurs about equally often.
    """
    labels = [_label(rig, text, snapshot) for snapshot in snapshots]
    begun = [number for number, (_, done) in enumerate(labels) if not done] or list(range(len(labels)))
    over = [number for number in range(len(labels)) if number not in begun]
    balance = Balance([labels[number][0] for number in begun])
    made, tries = 0, 0
    while made < count and tries < TRIES * count:
        tries += 1
        wanted, chosen = balance.wanted(rng)
        stays = bool(over) and rng.random() < DONE_SHARE
        snapshots[over[int(rng.integers(len(over)))] if stays else begun[chosen]].restore(rig)
        deepest = min(-OVERLAP_M, _deepest(rig) - DEEPER_M)
        if not _elsewhere(rig, convention, text, rng) or _deepest(rig) < deepest or astray(rig, text):
            balance.failed(wanted)
            continue
        label = rig.world.expert(text).phase
        if not stays:
            if not balance.takes(label, wanted, rng):
                balance.failed(wanted)
                continue
            balance.count(label)
        yield made
        made += 1


def _label(rig: AnyRig, text: str, snapshot: Snapshot) -> Tuple[str, bool]:
    """Returns the expert's step in a state, and whether the task is done there."""
    snapshot.restore(rig)
    return rig.world.expert(text).phase, rig.world.success(text)


def _elsewhere(rig: AnyRig, convention: ActionConvention, text: str, rng: np.random.Generator) -> bool:
    """Moves the hands; returns False if an arm cannot reach its new pose."""
    here = [state.pose for state in rig.arm_states()]
    goals = [pose for pose, _ in action_to_targets(convention, expert_action(rig, text)[0], here)[0]]
    held = [_held(rig, number, pose) for number, pose in enumerate(here)]
    empty = [number for number, state in enumerate(rig.arm_states()) if held[number] is None and state.gripper > OPEN]
    missed = empty[int(rng.integers(len(empty)))] if empty and rng.random() < MISSED_SHARE else None
    share = float(rng.uniform(0.0, 1.0)) if rng.random() < 0.7 or missed is not None else 0.0
    spread, wide, _ = SPREADS[int(rng.choice(len(SPREADS), p=[often for _, _, often in SPREADS]))]
    loads: Dict[Optional[str], Tuple[str, ...]] = {name: (name, *rig.world.riding(name)) for name in held if name is not None}
    carried = rig.world.carried()
    together = carried is not None or len(here) > 1 and rng.random() < 0.5
    shared = rng.normal(0.0, spread, 3) if together else None
    bases = [_base(rig, number) for number in range(len(here))]
    motions = []
    for base, start, goal in zip(bases, here, goals):
        shift = share * (goal.position - start.position) + (rng.normal(0.0, spread, 3) if shared is None else shared)
        way = (Rotation.from_quat(goal.quaternion) * Rotation.from_quat(start.quaternion).inv()).as_rotvec()
        turn = Rotation.from_rotvec(share * way)
        if carried is None:
            turn = turn * Rotation.from_euler("z", rng.normal(0.0, wide))
        shift[2] = max(shift[2], LOWEST_M - start.position[2])
        motions.append(_Motion(base + start.position, turn, shift))
    if held[0] is not None and held.count(held[0]) > 1:
        motions = [_common(motions)] * len(motions)
    moved = [Pose(motion.point(base + start.position) - base, motion.quaternion(start.quaternion))
             for motion, start, base in zip(motions, here, bases)]
    reached = [_put(rig, number, pose) for number, pose in enumerate(moved)]
    for joint, motion in dict(zip(held, motions)).items():      # each object once, however many hands hold it
        for name in loads.get(joint, ()):
            _take_along(rig, name, motion)
    if carried is not None:
        rig.data.joint(carried).qpos[:3] += moved[0].position - here[0].position
    if missed is not None:
        _open(rig, missed, abs(float(rng.normal(0.0, 0.02))) if rng.random() < SHUT_SHARE else float(rng.uniform(0.0, HALF_SHUT)))
    mujoco.mj_forward(rig.model, rig.data)
    return all(reached)


def _held(rig: AnyRig, arm: int, pose: Pose) -> Optional[str]:
    """Returns the loose body between the fingers of an arm, or None."""
    state = rig.arm_states()[arm]
    if not 0.04 < state.gripper < 0.85:
        return None
    position = pose.position + _base(rig, arm)
    best, found = 0.06, None
    for index in range(rig.model.njnt):
        if rig.model.jnt_type[index] == mujoco.mjtJoint.mjJNT_FREE:
            geoms = np.flatnonzero(rig.model.geom_bodyid == rig.model.jnt_bodyid[index])
            distance = float(np.linalg.norm(rig.data.geom_xpos[geoms] - position, axis=1).min())
            if distance < best:
                best, found = distance, str(rig.model.joint(index).name)
    return found


def _common(motions: List[_Motion]) -> _Motion:
    """Returns one motion about the middle of all hands that hold the same object, so that each keeps its grip."""
    return _Motion(np.mean([motion.about for motion in motions], axis=0), motions[0].turn,
                   np.mean([motion.shift for motion in motions], axis=0))


def _take_along(rig: AnyRig, joint: str, motion: _Motion) -> None:
    qpos = rig.data.joint(joint).qpos
    qpos[:3] = motion.point(qpos[:3])
    w, x, y, z = qpos[3:7]
    x, y, z, w = motion.quaternion(np.array([x, y, z, w]))
    qpos[3:7] = (w, x, y, z)


def _put(rig: AnyRig, number: int, pose: Pose) -> bool:
    """Poses an arm so that its tool has a pose given in its base frame."""
    if not isinstance(rig, PiperRig):
        return solve_pose(rig.model, rig.data, rig.index, pose.position, Rotation.from_quat(pose.quaternion).as_matrix())
    arm = list(rig.arms.values())[number]
    rotation = Rotation.from_quat(pose.quaternion)
    joints = arm.solve(pose.position - TIP_M * rotation.as_matrix()[:, 2], rotation)
    if joints is None:
        return False
    rig.data.qpos[arm.index.qpos] = joints
    return True


def _open(rig: AnyRig, number: int, opening: float) -> None:
    """Opens the hand of an arm, 0 closed to 1 open."""
    if isinstance(rig, PiperRig):
        rig.data.qpos[list(rig.arms.values())[number].index.fingers] = opening * PIPER_WIDTH / 2
    else:
        rig.data.qpos[rig.index.finger_qpos] = opening * MAX_WIDTH / 2


def _deepest(rig: AnyRig) -> float:
    """Returns the distance of the two shapes that overlap most, m; negative if any overlap."""
    return min((float(rig.data.contact[number].dist) for number in range(rig.data.ncon)), default=0.0)


def _base(rig: AnyRig, arm: int) -> np.ndarray:
    """Returns the position of an arm's base, (3,) m."""
    if not isinstance(rig, PiperRig):
        return np.zeros(3)
    found: np.ndarray = rig.data.xpos[list(rig.arms.values())[arm].index.base].copy()
    return found

