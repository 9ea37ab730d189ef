"""Conversion of an Open X set to our state and action: its keys and gripper sense, one file per set in config/rlds."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Optional, Tuple

import numpy as np
from scipy.spatial.transform import Rotation

from hybridvla_core.configuration import load_file, require
from hybridvla_core.errors import DataError
from hybridvla_core.paths import ROOT

FOLDER = ROOT / "config/rlds"
GRIPPERS = ("open_absolute", "closing_relative")
ROTATIONS = ("euler_xyz", "quaternion_xyzw")
NAMES = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")


@dataclass(frozen=True)
class Part:
    """Channels of one key of a step.

    Attributes:
        key: Key of the step.
        begin: First channel.
        end: One past the last channel.
    """

    key: str
    begin: int
    end: int

    def __post_init__(self) -> None:
        require(0 <= self.begin < self.end, f"{self.key}: begin {self.begin} and end {self.end} select nothing")


@dataclass(frozen=True)
class RldsStandard:
    """Description of one set.

    Attributes:
        dataset: Name of the set, with which its file names begin.
        fps: Frames per second.
        views: View -> key of its encoded images.
        instruction: Key of the text.
        translation: Translation of the action, m, 3 channels.
        rotation: Rotation of the action, rad, 3 channels of fixed-axis angles that turn the pose.
        gripper: Gripper command of the action, 1 channel.
        gripper_action: `open_absolute` (1 open, 0 closed; with values between, the gripper is moving) or `closing_relative`
            (positive closes, negative opens, 0 keeps).
        state_translation, state_rotation, state_gripper: Channels of the measured state.
        state_rotation_kind: `euler_xyz` (3 channels) or `quaternion_xyzw` (4).
        state_gripper_closed: Whether the state's gripper channel grows as the gripper closes.
        state_gripper_range: Value of that channel at the end opposite 0, as 0.08 for a width in m.
        skip_first: Steps at the beginning that hold no demonstration.
        reached_labels: Whether to use the measured movement to the next step as the action, and drop the last step.
    """

    dataset: str
    fps: float
    views: Dict[str, str]
    instruction: str
    translation: Part
    rotation: Part
    gripper: Part
    gripper_action: str
    state_translation: Part
    state_rotation: Part
    state_gripper: Part
    state_rotation_kind: str
    state_gripper_closed: bool
    state_gripper_range: float = 1.0
    skip_first: int = 0
    reached_labels: bool = False

    def __post_init__(self) -> None:
        require(self.gripper_action in GRIPPERS, f"gripper_action: use one of {', '.join(GRIPPERS)}")
        require(self.state_rotation_kind in ROTATIONS, f"state_rotation_kind: use one of {', '.join(ROTATIONS)}")
        require(self.skip_first >= 0 and self.fps > 0 and bool(self.views), "skip_first >= 0, fps > 0 and a view are needed")
        require(self.state_gripper_range > 0.0, "state_gripper_range must be above 0")
        angles = 3 if self.state_rotation_kind == "euler_xyz" else 4
        for name, part, width in (("translation", self.translation, 3), ("rotation", self.rotation, 3),
                                  ("gripper", self.gripper, 1), ("state_translation", self.state_translation, 3),
                                  ("state_gripper", self.state_gripper, 1),
                                  ("state_rotation", self.state_rotation, angles)):
            require(part.end - part.begin == width, f"{name}: needs {width} channels, {part.key} gives {part.end - part.begin}")


def known() -> List[str]:
    """Returns the sets that have a description here."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def standard_for(dataset: str, file: Optional[Path] = None) -> RldsStandard:
    """Reads the description of a set.

    Args:
        dataset: Name of the set.
        file: File of the description; None for the one in config/rlds.

    Returns:
        The description.

    Raises:
        DataError: There is no description, and the message names the existing ones; or the file describes another set.
    """
    path = file or FOLDER / f"{dataset}.yaml"
    if not path.is_file():
        raise DataError(f"{dataset}: no description of this set is here ({', '.join(known())} have one); write one like those in "
                        "config/rlds and give it with --standard")
    standard = load_file(RldsStandard, path)
    if standard.dataset != dataset:
        raise DataError(f"{path}: describes {standard.dataset}, and the files are {dataset}")
    return standard


def grippers(values: np.ndarray, kind: str) -> np.ndarray:
    """Returns (N,) commands of a set as (N,) 1 open, 0 closed; a value in between counts as the end that it moves to."""
    if kind == "open_absolute":
        decided = np.where(values > 0.95, 1.0, np.where(values < 0.05, 0.0, np.nan))
        return _fill(decided[::-1], float(values[-1] > 0.5))[::-1]
    decided = np.where(values < -0.1, 1.0, np.where(values > 0.1, 0.0, np.nan))
    known_at = np.flatnonzero(np.isfinite(decided))
    # Before its first command the gripper is in the opposite state.
    return _fill(decided, 1.0 - decided[known_at[0]] if known_at.size else 1.0)


def _fill(decided: np.ndarray, first: float) -> np.ndarray:
    filled, last = decided.copy(), first
    for index, value in enumerate(decided):
        last = value if np.isfinite(value) else last
        filled[index] = last
    return filled


def standardise(standard: RldsStandard, steps: Dict[str, np.ndarray]) -> Tuple[np.ndarray, np.ndarray]:
    """Computes state and action of an episode, each x, y, z (m), roll, pitch, yaw (rad), gripper (1 open).

    Args:
        standard: Description of the set.
        steps: Key -> (N, channels).

    Returns:
        State (N, 7) and action (N, 7); one row fewer if labels are made from the states reached.

    Raises:
        DataError: A key has too few channels, numbers that are not finite, or quaternions that are not unit ones.
    """
    def take(part: Part) -> np.ndarray:
        values = steps[part.key]
        if values.shape[1] < part.end:
            raise DataError(f"{part.key} has {values.shape[1]} channels, the description takes {part.begin} to {part.end}")
        chosen = np.asarray(values[:, part.begin:part.end], dtype=np.float64)
        broken = np.flatnonzero(~np.isfinite(chosen).all(axis=1))
        if broken.size:
            raise DataError(f"{part.key} holds a number that is not finite, first in step {broken[0]}")
        return chosen

    turn = take(standard.state_rotation)
    if standard.state_rotation_kind == "quaternion_xyzw":
        if (np.abs(np.linalg.norm(turn, axis=1) - 1.0) > 0.05).any():
            raise DataError(f"{standard.state_rotation.key}: holds no unit quaternions")
        turn = Rotation.from_quat(turn).as_euler("xyz")
    grip = np.clip(take(standard.state_gripper) / standard.state_gripper_range, 0.0, 1.0)
    opening = 1.0 - grip if standard.state_gripper_closed else grip
    state = np.concatenate([take(standard.state_translation), turn, opening], axis=1)
    grip = grippers(take(standard.gripper)[:, 0], standard.gripper_action)[:, None]
    action = np.concatenate([take(standard.translation), take(standard.rotation), grip], axis=1)
    if standard.reached_labels:
        before, after = Rotation.from_euler("xyz", turn[:-1]), Rotation.from_euler("xyz", turn[1:])
        moved = np.concatenate([np.diff(state[:, :3], axis=0), (after * before.inv()).as_euler("xyz")], axis=1)
        state, action = state[:-1], np.concatenate([moved, action[:-1, 6:]], axis=1)
    return state, action
