"""What a task is: the contract between a folder of `tasks/` and whoever runs it (rigs, suite, nodes, evaluation).

None of these knows a task by name. A task brings its objects into the scene, draws episodes, judges them, and says what its
expert would do; a rig brings the arms, the cameras and time.
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
    """One episode, everything in it drawn from `seed`.

    Attributes:
        seed: Draws the scene.
        instruction: What is asked for first.
        switch_at: Simulated time at which `second` takes its place, s.
        second: The instruction that then counts.
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
        delta: (arms, 3) from each tool centre point to where it should go, m, base frame of the arm.
        yaw: (arms,) rotation about the base frame's z axis that the tool should have, rad.
        opening: (arms,) gripper after arrival, 0 closed to 1 open.
        yaw_period: A turn by this looks and works the same, rad.
        tilt: (arms, 2) roll and pitch of the tool relative to one that points down (fixed axes), rad; None: it points down.
    """

    phase: str
    delta: np.ndarray
    yaw: np.ndarray
    opening: np.ndarray
    yaw_period: float = 2.0 * np.pi
    tilt: Optional[np.ndarray] = None

    def actions(self) -> np.ndarray:
        """Returns (arms, 7): delta m, roll, pitch, yaw rad, opening: an action in the convention of `config/policies`."""
        tilt = np.zeros((len(self.yaw), 2)) if self.tilt is None else self.tilt
        return np.column_stack([self.delta, tilt, self.yaw, self.opening])


RigT = TypeVar("RigT")


class World(abc.ABC, Generic[RigT]):
    """A task's objects within one rig, and the true state that experts and judges see.

    Attributes:
        memory: Names of attributes that belong to the state beside the engine's.
    """

    memory: Tuple[str, ...] = ()

    def __init__(self, rig: RigT) -> None:
        self.rig = rig

    @abc.abstractmethod
    def reset(self, rng: np.random.Generator) -> None:
        """Draws a scene and puts every object there, at rest."""

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
        """Takes over what is not among the joint positions (a mark that was moved), for rendering."""
        del other

    def drop_held(self) -> bool:
        """Lets what is between the fingers slip out onto the table; False where nothing is held."""
        return False

    def lost(self, instruction: str) -> bool:
        """Tells whether what a sentence names is where the expert cannot do anything with it: off the table, or tipped over."""
        del instruction
        return False

    def carried(self) -> Optional[str]:
        """Returns the loose body that both hands press between them, by its joint; None where there is none."""
        return None

    def riding(self, joint: str) -> Tuple[str, ...]:
        """Returns the loose bodies that go along when another one is moved, by their joints: the block in a tray."""
        del joint
        return ()

    def passed(self, seconds: float) -> None:
        """Hears that time has passed, for what no engine of rigid bodies computes (water that pours, dirt that is wiped off)."""
        del seconds

    def report(self) -> Dict[str, Any]:
        """Returns the true state as plain data, by field."""
        return {key: np.asarray(value).tolist() for key, value in vars(self.state()).items()}


class Task(abc.ABC, Generic[RigT]):
    """One task. Instances hold no state of an episode. What its sentences name stands in `phrases`."""

    #: The folder's name.
    name: str
    #: What can be asked for.
    phrases: Phrases
    #: The robot configuration's kind of rig: `fr3` or `piper`.
    rig: str
    #: Keyframes and simulated time (s) after which an episode has failed.
    max_keyframes: int = 12
    max_time: float = 60.0
    #: How its scenes deviate from those of every demonstration; empty: not at all.
    variation: str = ""

    @abc.abstractmethod
    def furnish(self, root: ET.Element) -> None:
        """Adds the task's objects to a scene's MJCF, of which `root` is the top element."""

    @abc.abstractmethod
    def world(self, rig: RigT) -> World[RigT]:
        """Finds the objects in a rig whose model was furnished by this task."""

    @abc.abstractmethod
    def instructions(self) -> Tuple[str, ...]:
        """Returns every sentence the task understands, in a fixed order."""

    @abc.abstractmethod
    def draw(self, seed: int, episodes: int, switched: bool) -> List[EpisodeSpec]:
        """Draws episodes: number i from `seed` + i.

        Args:
            seed: Of the first one.
            episodes: How many.
            switched: Let the instruction change in mid-episode.

        Returns:
            Their specs.

        Raises:
            HybridVLAError: The task has nothing to switch to.
        """

    def varied(self, variation: str) -> Task[RigT]:
        """Returns the task with scenes that deviate from those of every demonstration in a named way.

        Raises:
            HybridVLAError: The task has no such variation.
        """
        raise HybridVLAError(f"task {self.name!r} has no variation {variation!r}; leave --variation out")

    def refuse_switch(self) -> None:
        """Says that this task knows one goal only."""
        raise HybridVLAError(f"task {self.name!r} has one instruction, so none can be switched in mid-episode; "
                             "leave --switch-episodes and --language-scenes out")
