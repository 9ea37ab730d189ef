"""What a task is: the contract between a folder of `tasks/` and its users (rigs, suite, nodes, evaluation).

None of these knows a task by name. A task puts its objects into the scene, draws episodes, judges them, and says what its
expert would do. A rig provides the arms, the cameras and time.
"""
from __future__ import annotations

import abc
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Dict, Generic, List, Optional, Tuple, TypeVar

import numpy as np

from hybridvla_core.errors import HybridVLAError

if TYPE_CHECKING:
    from hybridvla_sim.taskkit.phrases import Phrases


@dataclass(frozen=True)
class EpisodeSpec:
    """One episode; everything in it is drawn from `seed`.

    Attributes:
        seed: Seed of the scene.
        instruction: Instruction at the start.
        switch_at: Simulated time at which `second` replaces it, s.
        second: Instruction that counts from then on.
    """

    seed: int
    instruction: str
    switch_at: Optional[float] = None
    second: Optional[str] = None

    @property
    def goal(self) -> str:
        """The instruction by which the episode is judged."""
        return self.instruction if self.second is None else self.second


@dataclass(frozen=True)
class ExpertLabel:
    """The expert's next keyframe, relative to the true state.

    Attributes:
        phase: Name of the step of the task.
        delta: (arms, 3) vector from each tool centre point to where it should go, m, base frame of the arm.
        yaw: (arms,) rotation about the base frame's z axis that the tool should have, rad.
        opening: (arms,) gripper opening after arrival, 0 closed to 1 open.
        yaw_period: Rotation after which the object looks and works the same, rad.
        tilt: (arms, 2) roll and pitch of the tool relative to one that points down (fixed axes), rad; None: it points down.
    """

    phase: str
    delta: np.ndarray
    yaw: np.ndarray
    opening: np.ndarray
    yaw_period: float = 2.0 * np.pi
    tilt: Optional[np.ndarray] = None

    def actions(self) -> np.ndarray:
        """Returns (arms, 7), an action in the convention of `config/policies`: delta m; roll, pitch, yaw rad; opening."""
        tilt = np.zeros((len(self.yaw), 2)) if self.tilt is None else self.tilt
        return np.column_stack([self.delta, tilt, self.yaw, self.opening])


RigT = TypeVar("RigT")


class World(abc.ABC, Generic[RigT]):
    """A task's objects within one rig, and the true state that experts and judges see.

    Attributes:
        memory: Names of attributes that belong to the state in addition to the engine's own.
    """

    memory: Tuple[str, ...] = ()

    def __init__(self, rig: RigT) -> None:
        self.rig = rig

    @abc.abstractmethod
    def reset(self, rng: np.random.Generator) -> None:
        """Draws a scene and puts every object in its place, at rest."""

    @abc.abstractmethod
    def state(self) -> object:
        """Returns the true state, a dataclass of the task; no policy sees it."""

    @abc.abstractmethod
    def success(self, instruction: str) -> bool:
        """Tells whether `instruction` is done.

        Raises:
            HybridVLAError: The task cannot judge this instruction.
        """

    @abc.abstractmethod
    def expert(self, instruction: str) -> ExpertLabel:
        """Returns what the expert would do now.

        Raises:
            HybridVLAError: The task has no such instruction.
        """

    def copy_state(self, other: World[RigT]) -> None:
        """Copies what is not among the joint positions (such as a mark that was moved), for rendering."""
        del other

    def drop_held(self) -> bool:
        """Lets the held object slip out of the fingers onto the table; returns False if nothing is held."""
        return False

    def lost(self, instruction: str) -> bool:
        """Tells whether the expert can do nothing with what a sentence names: it has fallen off the table or tipped over."""
        del instruction
        return False

    def carried(self) -> Optional[str]:
        """Returns the joint name of the loose body that both hands press between them, or None."""
        return None

    def riding(self, joint: str) -> Tuple[str, ...]:
        """Returns the joint names of the loose bodies that move along with another one, such as the block in a tray."""
        del joint
        return ()

    def passed(self, seconds: float) -> None:
        """Advances, by elapsed time, what a rigid-body engine does not compute (water that pours, dirt that is wiped off)."""
        del seconds

    def report(self) -> Dict[str, Any]:
        """Returns the true state as plain data, keyed by field."""
        return {key: np.asarray(value).tolist() for key, value in vars(self.state()).items()}


class Task(abc.ABC, Generic[RigT]):
    """One task. Instances hold no episode state. `phrases` holds what its sentences name."""

    #: Name of the task's folder.
    name: str
    #: What can be asked for.
    phrases: Phrases
    #: Kind of rig, as in the robot configuration: `fr3` or `piper`.
    rig: str
    #: Keyframes and simulated time (s) after which an episode has failed.
    max_keyframes: int = 12
    max_time: float = 60.0
    #: How its scenes differ from those of every demonstration; empty: not at all.
    variation: str = ""

    @abc.abstractmethod
    def furnish(self, root: ET.Element) -> None:
        """Adds the task's objects to a scene's MJCF; `root` is its top element."""

    @abc.abstractmethod
    def world(self, rig: RigT) -> World[RigT]:
        """Finds the objects in a rig whose model this task has furnished."""

    @abc.abstractmethod
    def instructions(self) -> Tuple[str, ...]:
        """Returns every sentence that the task understands, in a fixed order."""

    @abc.abstractmethod
    def draw(self, seed: int, episodes: int, switched: bool) -> List[EpisodeSpec]:
        """Draws episodes; episode i is drawn from `seed` + i.

        Args:
            seed: Seed of the first episode.
            episodes: Number of episodes.
            switched: Whether the instruction changes in mid-episode.

        Returns:
            Specs of the episodes.

        Raises:
            HybridVLAError: The task has nothing to switch to.
        """

    def varied(self, variation: str) -> Task[RigT]:
        """Returns the task with scenes that differ from those of every demonstration in the named way.

        Raises:
            HybridVLAError: The task has no such variation.
        """
        raise HybridVLAError(f"task {self.name!r} has no variation {variation!r}; leave --variation out")

    def refuse_switch(self) -> None:
        """Raises the error that says that this task has only one goal."""
        raise HybridVLAError(f"task {self.name!r} has one instruction, so none can be switched in mid-episode; "
                             "leave --switch-episodes and --language-scenes out")
