"""The one place where actions become poses and poses become states and labels.

Labels, the state input, replay and the policy node share these functions, so they cannot drift apart. docs/fidelity.md
lists the released conventions.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import List, Optional, Sequence, Tuple

import numpy as np
from scipy.spatial.transform import Rotation

from hybridvla_core.configuration import one_of
from hybridvla_core.contracts import Pose
from hybridvla_core.errors import ConfigurationError

DOF_PER_ARM = 7
TRANSLATIONS = ("delta_base_frame",)
ROTATIONS = ("absolute_euler_xyz", "delta_euler_xyz")
GRIPPER_SENSES = ("one_is_open", "one_is_closed")
DELTA_BASES = ("commanded", "measured")
STATE_SOURCES = ("measured", "last_command")


@dataclass(frozen=True)
class ActionConvention:
    """The meaning of the numbers of an action and of the robot state. Nothing here has a default that a robot could obey.

    Attributes:
        arms: Names of the arms in the order of the action vector (the released 14-DoF model: right, left).
        translation: `delta_base_frame`: metres along the axes of the arm's base frame, added to the base pose.
        rotation: `absolute_euler_xyz`: fixed-axis roll, pitch, yaw (R = Rz Ry Rx) of the tool relative to
            `rotation_reference_xyzw` (R_tool = R_euler R_reference); `delta_euler_xyz`: the same angles turn the base pose
            about the base frame's axes.
        rotation_reference_xyzw: (4,) unit quaternion.
        gripper_sense: What a gripper value of 1 means in the action and in the state.
        delta_base: The pose to which a delta is added: the last `commanded` target or the `measured` pose at the stamp.
        action_period_s: Time that an action was meant to take, s; 0 is a keyframe, executed until reached.
        state_source: Source of the state, `measured` or `last_command`.
        first_state: What a `last_command` policy sees before its first command.
    """

    arms: Tuple[str, ...]
    translation: str
    rotation: str
    rotation_reference_xyzw: Tuple[float, ...]
    gripper_sense: str
    delta_base: str
    action_period_s: float
    state_source: str
    first_state: Optional[Tuple[float, ...]] = None

    def __post_init__(self) -> None:
        if not self.arms or len(set(self.arms)) != len(self.arms):
            raise ConfigurationError(f"arms must be named once each, found {list(self.arms)}")
        for key, allowed in (("translation", TRANSLATIONS), ("rotation", ROTATIONS), ("delta_base", DELTA_BASES),
                             ("gripper_sense", GRIPPER_SENSES), ("state_source", STATE_SOURCES)):
            one_of(key, getattr(self, key), allowed)
        reference = np.asarray(self.rotation_reference_xyzw, dtype=float)
        if reference.shape != (4,) or abs(np.linalg.norm(reference) - 1.0) > 1e-6:
            raise ConfigurationError("rotation_reference_xyzw must be a unit quaternion of four numbers, xyzw")
        if not 0.0 <= self.action_period_s < 10.0:
            raise ConfigurationError(f"action_period_s is {self.action_period_s}; use 0 (keyframe) or seconds below 10")
        if self.first_state is not None and len(self.first_state) != self.action_dim:
            raise ConfigurationError(f"first_state needs {self.action_dim} numbers, found {len(self.first_state)}")

    def differences(self, other: ActionConvention) -> List[str]:
        """Returns the names of the fields in which the two conventions differ, in the order of this class."""
        return [name for name in self.__dataclass_fields__ if getattr(self, name) != getattr(other, name)]

    @property
    def action_dim(self) -> int:
        return DOF_PER_ARM * len(self.arms)

    @property
    def uses_commands(self) -> bool:
        """Whether base or state are the last command."""
        return self.delta_base == "commanded" or self.state_source == "last_command"

    def opening(self, gripper_value: float) -> float:
        """Converts a gripper value of the model to an opening, 0 closed to 1 open."""
        return float(gripper_value if self.gripper_sense == "one_is_open" else 1.0 - gripper_value)

    def gripper_value(self, opening: float) -> float:
        """Converts an opening, 0 closed to 1 open, to the model's gripper value."""
        return float(opening if self.gripper_sense == "one_is_open" else 1.0 - opening)


def euler_to_rotation(convention: ActionConvention, euler: np.ndarray, base: Pose) -> Rotation:
    """Converts the angles (3,) rad of an action to the target's rotation in the base frame."""
    turned = Rotation.from_euler("xyz", euler)
    if convention.rotation == "absolute_euler_xyz":
        return turned * Rotation.from_quat(convention.rotation_reference_xyzw)
    return turned * Rotation.from_quat(base.quaternion)


def action_to_targets(convention: ActionConvention, action: np.ndarray,
                      bases: Sequence[Pose]) -> Tuple[Tuple[Tuple[Pose, float], ...], ...]:
    """Computes the absolute targets of a chunk. Deltas within a chunk add up: each step's base is the step before it.

    Args:
        convention: Convention of the action.
        action: (K, A) un-normalised action.
        bases: One pose per arm, in `convention.arms` order.

    Returns:
        K steps of (pose, opening) per arm.

    Raises:
        ConfigurationError: The count of numbers or bases does not match the arms.
    """
    action = np.atleast_2d(np.asarray(action, dtype=float))
    if action.shape[1] != convention.action_dim or len(bases) != len(convention.arms):
        raise ConfigurationError(f"action has {action.shape[1]} numbers and {len(bases)} bases; "
                                 f"{len(convention.arms)} arm(s) need {convention.action_dim}")
    steps, current = [], list(bases)
    for row in action:
        step = []
        for arm, base in enumerate(current):
            part = row[arm * DOF_PER_ARM:(arm + 1) * DOF_PER_ARM]
            rotation = euler_to_rotation(convention, part[3:6], base)
            pose = Pose(np.asarray(base.position, dtype=float) + part[:3], rotation.as_quat())
            step.append((pose, convention.opening(part[6])))
        current = [pose for pose, _ in step]
        steps.append(tuple(step))
    return tuple(steps)


def target_to_action(convention: ActionConvention, target: Pose, opening: float, base: Pose) -> np.ndarray:
    """Returns the (7,) action that leads from `base` to `target` for one arm: the label of a demonstration."""
    rotation = Rotation.from_quat(target.quaternion)
    reference = (convention.rotation_reference_xyzw if convention.rotation == "absolute_euler_xyz"
                 else base.quaternion)
    euler = (rotation * Rotation.from_quat(reference).inv()).as_euler("xyz")
    delta = np.asarray(target.position, dtype=float) - np.asarray(base.position, dtype=float)
    return np.concatenate([delta, euler, [convention.gripper_value(opening)]])


def state_vector(convention: ActionConvention, poses: Sequence[Pose], openings: Sequence[float]) -> np.ndarray:
    """Computes the state input. Angles are relative to `rotation_reference_xyzw`, whatever the action's rotation convention.

    Args:
        convention: Convention of the state.
        poses: One pose per arm, base frame.
        openings: One opening per arm, 0 closed to 1 open.

    Returns:
        (A,) in physical units: for each arm x, y, z (m), roll, pitch, yaw (rad), gripper.
    """
    reference = Rotation.from_quat(convention.rotation_reference_xyzw)
    parts = []
    for pose, opening in zip(poses, openings):
        euler = (Rotation.from_quat(pose.quaternion) * reference.inv()).as_euler("xyz")
        parts.append(np.concatenate([pose.position, euler, [convention.gripper_value(opening)]]))
    return np.concatenate(parts)
