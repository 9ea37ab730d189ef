"""States that nobody drove to: an expert's states, with the hands elsewhere and what they hold moved along."""
from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Optional, Tuple

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

from hybridvla_core.contracts import Pose
from hybridvla_core.transforms.conventions import ActionConvention, action_to_targets
from hybridvla_sim.experts import expert_action
from hybridvla_sim.fr3.posing import solve_pose
from hybridvla_sim.piper.rig import PiperRig
from hybridvla_sim.piper.scene import TIP_M
from hybridvla_sim.suite import AnyRig

#: How far hands are moved, m and rad: a little, or far away.
NEAR_M, FAR_M, TURN_RAD, FAR_SHARE = 0.012, 0.045, 0.10, 0.35
#: What may overlap, m: shapes that touch do by a little.
OVERLAP_M = 0.004
LOWEST_M = 0.006


@dataclass(frozen=True)
class Snapshot:
    """A state that can be taken up again.

    Attributes:
        qpos: Positions, (nq,) of the model, m and rad.
        contacts: What a scene changes in its model: `geom_contype` and `geom_conaffinity`, each (ngeom,).
        memory: What the world remembers, by attribute.
    """

    qpos: np.ndarray
    contacts: Tuple[np.ndarray, np.ndarray]
    memory: Dict[str, Any]

    @classmethod
    def of(cls, rig: AnyRig) -> Snapshot:
        """Takes one."""
        names = rig.world.memory
        return cls(rig.data.qpos.copy(), (rig.model.geom_contype.copy(), rig.model.geom_conaffinity.copy()),
                   {name: copy.deepcopy(getattr(rig.world, name)) for name in names})

    def restore(self, rig: AnyRig) -> None:
        """Takes it up again, at rest."""
        rig.data.qpos[:], rig.data.qvel[:] = self.qpos, 0.0
        rig.model.geom_contype[:], rig.model.geom_conaffinity[:] = self.contacts
        for name, value in self.memory.items():
            setattr(rig.world, name, copy.deepcopy(value))
        mujoco.mj_forward(rig.model, rig.data)


def states(rig: AnyRig, convention: ActionConvention, text: str, snapshots: List[Snapshot], count: int, rng: np.random.Generator
           ) -> Iterator[int]:
    """Puts the rig into one state after the other.

    Args:
        rig: Furnished as when the snapshots were taken.
        convention: Of actions.
        text: The sentence that the expert followed.
        snapshots: States at rest before its keyframes.
        count: Of states.
        rng: Draws them.

    Yields:
        The number of each state, from 0, while the rig is in it; fewer than `count` where six times as many tries do not fit.
    """
    made, tries = 0, 0
    while made < count and tries < 6 * count:
        tries += 1
        snapshots[int(rng.integers(len(snapshots)))].restore(rig)
        if _elsewhere(rig, convention, text, rng):
            yield made
            made += 1


def _elsewhere(rig: AnyRig, convention: ActionConvention, text: str, rng: np.random.Generator) -> bool:
    """Moves the hands; False where they do not fit there."""
    here = [state.pose for state in rig.arm_states()]
    goals = [pose for pose, _ in action_to_targets(convention, expert_action(rig, text)[0], here)[0]]
    share = float(rng.uniform(0.0, 1.0)) if rng.random() < 0.7 else 0.0
    spread = FAR_M if rng.random() < FAR_SHARE else NEAR_M
    spread = 0.004 if rng.random() < 0.15 else spread
    held = [_held(rig, number, pose) for number, pose in enumerate(here)]
    carried = rig.world.carried()
    together = carried is not None or len(here) > 1 and rng.random() < 0.5
    shared = rng.normal(0.0, spread, 3) if together else None
    moved = []
    for start, goal in zip(here, goals):
        shift = share * (goal.position - start.position) + (rng.normal(0.0, spread, 3) if shared is None else shared)
        way = (Rotation.from_quat(goal.quaternion) * Rotation.from_quat(start.quaternion).inv()).as_rotvec()
        turn = Rotation.from_rotvec(share * way)
        if carried is None:
            turn = turn * Rotation.from_euler("z", rng.normal(0.0, TURN_RAD))
        position = start.position + shift
        position[2] = max(position[2], LOWEST_M)
        moved.append(Pose(position, (turn * Rotation.from_quat(start.quaternion)).as_quat()))
    reached = [_put(rig, number, pose) for number, pose in enumerate(moved)]
    for number, (joint, start, pose) in enumerate(zip(held, here, moved)):
        if joint is not None:
            _take_along(rig, joint, _base(rig, number), start, pose)
    if carried is not None:
        rig.data.joint(carried).qpos[:3] += moved[0].position - here[0].position
    mujoco.mj_forward(rig.model, rig.data)
    return all(reached) and not _overlaps(rig)


def _held(rig: AnyRig, arm: int, pose: Pose) -> Optional[str]:
    """Returns the loose body between the fingers of an arm."""
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


def _take_along(rig: AnyRig, joint: str, base: np.ndarray, start: Pose, pose: Pose) -> None:
    turn = Rotation.from_quat(pose.quaternion) * Rotation.from_quat(start.quaternion).inv()
    qpos = rig.data.joint(joint).qpos
    offset = qpos[:3] - start.position - base
    qpos[:3] = base + pose.position + turn.apply(offset)
    w, x, y, z = qpos[3:7]
    x, y, z, w = (turn * Rotation.from_quat([x, y, z, w])).as_quat()
    qpos[3:7] = (w, x, y, z)


def _put(rig: AnyRig, number: int, pose: Pose) -> bool:
    """Puts an arm so that its tool is at a pose of its base frame."""
    if not isinstance(rig, PiperRig):
        return solve_pose(rig.model, rig.data, rig.index, pose.position, Rotation.from_quat(pose.quaternion).as_matrix())
    arm = list(rig.arms.values())[number]
    rotation = Rotation.from_quat(pose.quaternion)
    joints = arm.solve(pose.position - TIP_M * rotation.as_matrix()[:, 2], rotation)
    if joints is None:
        return False
    rig.data.qpos[arm.index.qpos] = joints
    return True


def _overlaps(rig: AnyRig) -> bool:
    """Whether an arm stands in something."""
    return any(bool(rig.data.contact[number].dist < -OVERLAP_M) for number in range(rig.data.ncon))


def _base(rig: AnyRig, arm: int) -> np.ndarray:
    """Returns where the base of an arm stands, (3,) m."""
    if not isinstance(rig, PiperRig):
        return np.zeros(3)
    found: np.ndarray = rig.data.xpos[list(rig.arms.values())[arm].index.base].copy()
    return found

