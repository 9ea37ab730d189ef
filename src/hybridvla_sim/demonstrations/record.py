"""Records one demonstration: frames from a task's seed, each with pictures, state, the expert's action, words and grounding."""
from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import Dict, Iterator, List, Optional, Tuple

import mujoco
import numpy as np

from hybridvla_core.data.sample import GroundedObject
from hybridvla_core.errors import HybridVLAError
from hybridvla_core.robots.config import RobotConfig
from hybridvla_core.transforms.conventions import ActionConvention
from hybridvla_sim import tasks
from hybridvla_sim.demonstrations.acting import Actor
from hybridvla_sim.demonstrations.camera import GroundingCamera
from hybridvla_sim.demonstrations.drive import drive, state_of
from hybridvla_sim.demonstrations.sampling import Snapshot, states
from hybridvla_sim.suite import AnyRig, make_rig
from hybridvla_sim.taskkit.looks import Looks
from hybridvla_sim.taskkit.phrases import Phrases

NOISE_M = 0.006          # standard deviation of the noise on the targets of a noisy drive
DRIVEN, SAMPLED, ACTED = KINDS = ("driven", "sampled", "acted")


@dataclass(frozen=True)
class Settings:
    """What all demonstrations of a data set share.

    Attributes:
        rig: Kind of rig, `fr3` or `piper`.
        views: Views of the rig, in the policy's order.
        size: Size of a picture, pixels.
        grid: Number of patches in a row of the encoder.
        states: Number of sampled states per episode.
        labels: Number of sentences per picture, where a scene allows several goals.
    """

    rig: str
    views: Tuple[str, ...]
    size: int = 128
    grid: int = 8
    states: int = 60
    labels: int = 2

    def __post_init__(self) -> None:
        for name, low, high in (("size", 32, 1024), ("grid", 1, 64), ("states", 1, 1000), ("labels", 1, 16)):
            if not low <= getattr(self, name) <= high:
                raise HybridVLAError(f"--{name} {getattr(self, name)}: use {low} to {high}")


@dataclass
class Recording:
    """The frames of one episode.

    Attributes:
        images: view -> pictures, one per frame; empty for an episode read from disk, whose pictures are encoded.
        state, action: State and action of each frame, (7 * arms,) each.
        texts: Sentence of each frame.
        grounding: Objects that the sentence of each frame names.
        again: Whether a frame shows the same moment as the previous one, with another sentence.
        subtasks: The expert's name for the step of each frame.
        success: Whether a driven episode succeeded; None for the others, whose labels are right all the same.
    """

    images: Dict[str, List[np.ndarray]]
    state: List[np.ndarray] = field(default_factory=list)
    action: List[np.ndarray] = field(default_factory=list)
    texts: List[str] = field(default_factory=list)
    grounding: List[List[GroundedObject]] = field(default_factory=list)
    again: List[bool] = field(default_factory=list)
    subtasks: List[str] = field(default_factory=list)
    success: Optional[bool] = None


class Recorder:
    """Records demonstrations of one task in one rig.

    Args:
        name: Name of the task.
        settings: Settings of the data set.
        convention: Convention of state and action.
        robot: Robot with the start poses and limits of the arms.
        actor: Actor that drives the acted episodes.

    Raises:
        HybridVLAError: The task is unknown, for another rig, or its scenes cannot be drawn.
    """

    def __init__(self, name: str, settings: Settings, convention: ActionConvention, robot: RobotConfig,
                 actor: Optional[Actor] = None) -> None:
        self.task, self.settings, self.convention = tasks.load(name, rig=settings.rig), settings, convention
        self.phrases: Phrases = self.task.phrases
        self.actor = actor
        self.rig: AnyRig = make_rig(self.task, robot)
        self.looks = Looks(self.rig.model)
        try:
            self.camera = GroundingCamera(self.rig, self.phrases, settings.views, settings.size, settings.grid)
        except HybridVLAError as error:
            self.rig.close()
            raise HybridVLAError(f"task {name}: {error}") from error

    def record(self, seed: int, kind: str, turn: int = 0) -> Recording:
        """Records one episode.

        Args:
            seed: Seed from which everything is drawn.
            kind: `driven`, `sampled` or `acted`.
            turn: Turn that selects the actor's path, in an acted episode.

        Returns:
            The pictures, states, actions and sentences; for a driven episode, also whether it succeeded.

        Raises:
            HybridVLAError: No sampled state could be shown.
        """
        drawn = [seed, KINDS.index(kind), zlib.crc32(self.task.name.encode())]     # so that tasks differ in colours and places
        rng = np.random.default_rng([*drawn, 11])
        self.rig.reset(np.random.default_rng(drawn))
        self.looks.randomise(rng)
        mujoco.mj_forward(self.rig.model, self.rig.data)     # only this moves cameras and lights to their new places
        made = Recording({view: [] for view in self.settings.views})
        goal = list(self.phrases.goals)[int(rng.integers(len(self.phrases.goals)))]
        if kind == DRIVEN:
            self._driven(made, goal, rng)
        elif kind == ACTED:
            self._acted(made, goal, rng, seed, turn)
        else:
            self._sampled(made, goal, rng)
        if not made.texts:
            raise HybridVLAError(f"task {self.task.name}, seed {seed}: none of the sampled states can be shown; ask for more "
                                 "--states, or begin with another --seed")
        return made

    def _driven(self, made: Recording, goal: str, rng: np.random.Generator) -> None:
        text = self._say(goal, rng)
        noise = NOISE_M if rng.random() < 0.5 else 0.0
        made.success = False
        for event in drive(self.rig, self.convention, text, self.task.max_keyframes, rng, noise):
            self._look(made, [text])
            made.success = event == "done"

    def _acted(self, made: Recording, goal: str, rng: np.random.Generator, seed: int, turn: int) -> None:
        assert self.actor is not None, "who acts is given to the recorder"
        self.actor.begin(seed, turn)
        for _ in drive(self.rig, self.convention, self._say(goal, rng), self.task.max_keyframes, rng, choose=self.actor):
            self._look(made, list(self._sentences(goal, rng)))

    def _sampled(self, made: Recording, goal: str, rng: np.random.Generator) -> None:
        text = self._say(goal, rng)
        kept: List[Snapshot] = []
        for event in drive(self.rig, self.convention, text, self.task.max_keyframes, rng, NOISE_M if rng.random() < 0.3 else 0.0):
            if event != "way":
                kept.append(Snapshot.of(self.rig))
        for _ in states(self.rig, self.convention, text, kept, self.settings.states, rng):
            self.looks.randomise(rng)       # a snapshot restores its episode's looks: without this, all would share one light
            mujoco.mj_camlight(self.rig.model, self.rig.data)
            self._look(made, list(self._sentences(goal, rng)))

    def _sentences(self, goal: str, rng: np.random.Generator) -> Iterator[str]:
        """Yields a sentence for the goal of the drive, then for other goals."""
        others = [other for other in self.phrases.goals if other != goal]
        chosen = [goal, *(others[index] for index in rng.permutation(len(others)))]
        for wanted in chosen[:self.settings.labels]:
            yield self._say(wanted, rng)

    def _say(self, goal: str, rng: np.random.Generator) -> str:
        sentences = self.phrases.goals[goal]
        return sentences[int(rng.integers(len(sentences)))]

    def _look(self, made: Recording, texts: List[str]) -> None:
        pictures, patches, state = self.camera.pictures(), self.camera.patches(), state_of(self.rig, self.convention)
        for number, text in enumerate(texts):
            for view, picture in pictures.items():
                made.images[view].append(picture)
            made.state.append(state.astype(np.float32))
            label = self.rig.world.expert(text)
            made.action.append(label.actions().reshape(-1).astype(np.float32))
            made.subtasks.append(label.phase)
            made.texts.append(text)
            made.grounding.append(self.camera.grounding(text, patches))
            made.again.append(number > 0)

    def close(self) -> None:
        """Frees the renderers."""
        self.camera.close()
        self.rig.close()
