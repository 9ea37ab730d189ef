"""A task's expert as a policy, for checking demonstrations and rigs. It sees the simulation state, not the pictures."""
from __future__ import annotations

import time
from typing import Mapping, Optional, Protocol, Sequence, Tuple, Union

import numpy as np

from hybridvla_core.contracts import Mode, Observation, Prediction
from hybridvla_core.evaluation.episode import SimulatedRig
from hybridvla_core.transforms.conventions import ActionConvention
from hybridvla_sim.task import World


class Furnished(Protocol):
    """A rig that a task has furnished."""

    @property
    def world(self) -> World:
        """The task's objects."""


class ExpertPolicy:
    """A policy by duck typing (`policy/interface.py`). It predicts for the rig to which it is attached.

    Args:
        convention: meaning of its actions: relative translations, rotations relative to the reference, 1 is open.
        cameras: views that it is given and ignores.
    """

    manifest_sha256 = ""

    def __init__(self, convention: ActionConvention, cameras: Sequence[str]) -> None:
        self.convention, self.cameras = convention, tuple(cameras)
        self._rig: Optional[Furnished] = None

    def attach(self, rig: Furnished) -> None:
        """Sets the rig in which it acts."""
        self._rig = rig

    def predict(self, observation: Observation, mode: Union[str, Mode, None] = None, seed: int = 0) -> Prediction:
        """Returns the expert's next keyframe for the true state."""
        del mode, seed
        assert self._rig is not None, "an expert is attached to a rig first"
        began = time.perf_counter()
        action = expert_action(self._rig, observation.instruction)
        return Prediction(action=action, mode=Mode.DIFFUSION, fused=False, diffusion=action,
                          stage_ms={"expert": (time.perf_counter() - began) * 1e3})


class Blind:
    """A rig with its cameras switched off: pictures are grey and cost nothing."""

    def __init__(self, rig: SimulatedRig, sizes: Mapping[str, Tuple[int, int]]) -> None:
        self._rig = rig
        self._pictures = {view: np.full((*size, 3), 127, dtype=np.uint8) for view, size in sizes.items()}

    def __getattr__(self, name: str) -> object:
        return getattr(self._rig, name)

    def render(self, camera: str) -> np.ndarray:
        """Returns a grey picture."""
        return self._pictures[camera]


def expert_action(rig: Furnished, instruction: str) -> np.ndarray:
    """Returns (1, 7 * arms): the expert's next keyframe as an action of the policies' convention."""
    found: np.ndarray = rig.world.expert(instruction).actions().reshape(1, -1)
    return found
