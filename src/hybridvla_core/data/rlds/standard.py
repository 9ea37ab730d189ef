"""How one Open X set becomes our state and action: which keys, which gripper sense; a file a set in config/rlds."""
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
    """Channels of a key of a step.

    Attributes:
        key: Of the step.
        begin: The first channel.
        end: Behind the last one.
    """

    key: str
    begin: int
    end: int

    def __post_init__(self) -> None:
        require(0 <= self.begin < self.end, f"{self.key}: begin {self.begin} and end {self.end} select nothing")


@dataclass(frozen=True)
class RldsStandard:
    """One set's description.

    Attributes:
        dataset: name of the set, as its files begin.
        fps: frames a second.
        views: view -> key of its encoded images.
        instruction: key of the text.
        translation: of the action, m, 3 channels.
        rotation: of the action, rad, 3 channels of fixed-axis angles that turn the pose.
        gripper: of the action, 1 channel.
        gripper_action: `open_absolute` (1 open, 0 closed; values between are on their way) or `closing_relative` (positive
            closes, negative opens, 0 keeps).
        state_translation, state_rotation, state_gripper: of the measured state.
        state_rotation_kind: `euler_xyz` (3 channels) or `quaternion_xyzw` (4).
        state_gripper_closed: the state's gripper channel grows as it closes.
        state_gripper_range: its value at the other end from 0, as 0.08 for a width in m.
        skip_first: steps at the begin that hold no demonstration.
        reached_labels: take the measured movement to the next step as the action, and drop the last step.
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
    """Sets with a description here."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def standard_for(dataset: str, file: Optional[Path] = None) -> RldsStandard:
    """Reads the description of a set.

    Args:
        dataset: Its name.
        file: The description; None for the one in config/rlds.

    Returns:
        The description.

    Raises:
        DataError: There is none, and the message names those that are there; or it is another set's.
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
    """(N,) commands of a set as (N,) 1 open, 0 closed; a value on its way counts as where it arrives."""
    if kind == "open_absolute":
        decided = np.where(values > 0.95, 1.0, np.where(values < 0.05, 0.0, np.nan))
        return _fill(decided[::-1], float(values[-1] > 0.5))[::-1]
    decided = np.where(values < -0.1, 1.0, np.where(values > 0.1, 0.0, np.nan))
    known_at = np.flatnonzero(np.isfinite(decided))
    # Before its first command the gripper stands the other way round.
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
        standard: Of the set.
        steps: Key -> (N, channels).

    Returns:
        State (N, 7) and action (N, 7); one row less where labels are made from the states reached.

    Raises:
        DataError: A key has too few channels, numbers that are not finite, or no unit quaternions.
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
