"""What the suite's tasks share: drawing a scene and its appearance, the true state, phrases, and which hand holds what."""
from __future__ import annotations

import abc
import copy
from typing import Any, Dict, Generic, List, Mapping, Optional, Sequence, Tuple, TypeVar

import mujoco
import numpy as np

from hybridvla_sim.task import EpisodeSpec, Task, World
from hybridvla_sim.taskkit.looks import HEIGHT_M, PALETTE, SIZES, UNSEEN, UNSEEN_SIZES, Looks, apply, snapshot, varied
from hybridvla_sim.taskkit.phrases import Phrases

RigT = TypeVar("RigT", bound=Any)
SWITCH_AT_S = 4.0
SLIP_M = 0.12
HIDDEN_Z = -0.1           # m, under the table's top
#: Below this height an object has fallen off the table, m; if less than this share of its axis points up, it has tipped over.
FALLEN_Z, TIPPED = -0.05, 0.4


class SuiteWorld(World[RigT], Generic[RigT]):
    """A scene with named bodies, hinges and points.

    Attributes:
        painted: bodies that take a colour from the palette.
        resized: bodies whose size is drawn, one factor for all of them.
        smaller: bodies that are smaller in the variation `object`, one factor for all, and have a fixed size otherwise.
        upright: loose bodies that the expert can grasp only in their initial orientation.
        ground: height of the surface on which things stand, m: 0, or that of the plinth in the variation `height`.
        scale: size factor of the bodies in `smaller` in this scene: 1, or less in the variation `object`.
    """

    painted: Tuple[str, ...] = ()
    resized: Tuple[str, ...] = ()
    smaller: Tuple[str, ...] = ()
    upright: Tuple[str, ...] = ()

    def __init__(self, rig: RigT) -> None:
        super().__init__(rig)
        self.model: mujoco.MjModel = rig.model
        self.data: mujoco.MjData = rig.data
        self.looks = Looks(self.model)
        self.ground, self.scale = 0.0, 1.0
        self.loose = [self.model.joint(index).name for index in range(self.model.njnt)
                      if self.model.jnt_type[index] == mujoco.mjtJoint.mjJNT_FREE]
        self._rest: Dict[str, np.ndarray] = {}

    @property
    def phrases(self) -> Phrases:
        """What can be asked for."""
        found: Phrases = self.rig.task.phrases
        return found

    # The contract -------------------------------------------------------------------------------------------------

    def reset(self, rng: np.random.Generator) -> None:
        """Draws colours, sizes and poses. The task's variation draws separately, so things stand where they do without it."""
        variation = self.rig.task.variation
        apart = copy.deepcopy(rng)
        self.looks.restore()
        colours, drawn = self._dress(rng, PALETTE, SIZES)
        if variation == "object":
            colours, drawn = self._dress(apart, UNSEEN, UNSEEN_SIZES)
        for body, colour in zip(self.painted, colours):
            self.looks.paint(body, colour)
        self.scale = drawn if variation == "object" else 1.0
        for body in (*self.resized, *self.smaller):
            self.looks.resize(body, drawn if body in self.resized else self.scale)
        if self.resized or variation == "object":
            self.looks.without_bounds()
        if variation:
            self.looks.unusual(variation, apart)
        self.ground = HEIGHT_M if variation == "height" else 0.0
        self.model.body_pos[self.model.body("plinth").id, 2] = self.ground or HIDDEN_Z
        self.data.qvel[:] = 0.0
        self.place(rng)
        self._rest = {name: self.data.joint(name).qpos.copy() for name in self.loose}
        mujoco.mj_forward(self.model, self.data)

    def _dress(self, rng: np.random.Generator, palette: Sequence[Sequence[float]], sizes: Tuple[float, float]
               ) -> Tuple[List[np.ndarray], float]:
        """Draws a colour for each painted body, and a size."""
        colours = [np.asarray(palette[number]) * rng.uniform(0.92, 1.06)
                   for _, number in zip(self.painted, rng.permutation(len(palette)))]
        return colours, float(rng.uniform(*sizes))

    def success(self, instruction: str) -> bool:
        """Tells whether what a sentence asks for is done."""
        return bool(self.done(self.phrases.goal(instruction)))

    def lost(self, instruction: str) -> bool:
        """Tells whether an object that a sentence names or a hand must grasp has fallen off the table or tipped over."""
        things = [self.phrases.things[thing] for names in self.phrases.named(instruction).values() for thing in names]
        named = {*self.upright, *(body for thing in things for body in (thing.body, *thing.more))}
        return any(self.data.body(body).xpos[2] < FALLEN_Z for body in named.intersection(self.loose)) or any(
            self.axes(body)[2, 2] < TIPPED for body in self.upright)

    def copy_state(self, other: World[RigT]) -> None:
        """Copies colours, sizes and the places of fixed bodies."""
        apply(self.model, snapshot(other.rig.model))

    def report(self) -> Dict[str, Any]:
        """Returns where things are, m, how far hinges are open, rad, and which goals are reached."""
        things = {name: self.where(name).tolist() for name in self.phrases.things}
        return {"things": things, "hinges": {name: self.angle(name) for name in self.hinges()},
                "done": {goal: bool(self.done(goal)) for goal in self.phrases.goals}}

    # A task's own -------------------------------------------------------------------------------------------------

    @abc.abstractmethod
    def place(self, rng: np.random.Generator) -> None:
        """Draws where things are and puts them there, at rest."""

    @abc.abstractmethod
    def done(self, goal: str) -> bool:
        """Tells whether a goal of the phrases is reached."""

    # Putting and asking -------------------------------------------------------------------------------------------

    def stand(self, body: str, xy: Sequence[float], yaw: float, z: float = 0.0) -> None:
        """Puts a fixed body at a place (2,) m, turned by yaw rad, z m above the surface on which things stand."""
        number = self.model.body(body).id
        self.model.body_pos[number] = (xy[0], xy[1], self.ground + z)
        self.model.body_quat[number] = (np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2))

    def lay(self, name: str, xy: Sequence[float], z: float, yaw: float = 0.0) -> None:
        """Puts a loose body at rest at a place (2,) m, z m above the surface on which things stand, turned by yaw rad."""
        self.data.joint(name).qpos[:] = (xy[0], xy[1], self.ground + z, np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2))

    def open(self, hinge: str, angle: float) -> None:
        """Opens a hinge to an angle, rad."""
        self.data.joint(hinge).qpos[0] = angle

    def angle(self, hinge: str) -> float:
        """Returns how far a hinge is open, rad."""
        return float(self.data.joint(hinge).qpos[0])

    def hinges(self) -> List[str]:
        """Returns the names of the hinges that do not belong to an arm."""
        return [self.model.joint(index).name for index in range(self.model.njnt)
                if self.model.joint(index).name == self.model.body(self.model.jnt_bodyid[index]).name
                and self.model.jnt_type[index] == mujoco.mjtJoint.mjJNT_HINGE]

    def point(self, site: str) -> np.ndarray:
        """Returns the position of a marked point, (3,) m in the shared frame."""
        found: np.ndarray = self.data.site(site).xpos.copy()
        return found

    def axes(self, body: str) -> np.ndarray:
        """Returns the rotation matrix (3, 3) of a body."""
        found: np.ndarray = self.data.body(body).xmat.reshape(3, 3).copy()
        return found

    def heading(self, body: str) -> float:
        """Returns the rotation of a body about the vertical, rad."""
        axes = self.axes(body)
        return float(np.arctan2(axes[1, 0], axes[0, 0]))

    def inside(self, position: np.ndarray, body: str, low: Sequence[float], high: Sequence[float]) -> bool:
        """Tells whether a position is between two corners (3,) m in a body's frame."""
        local = self.axes(body).T @ (position - self.data.body(body).xpos)
        return bool((local > np.asarray(low)).all() and (local < np.asarray(high)).all())

    def where(self, thing: str) -> np.ndarray:
        """Returns the position of a thing of the phrases, (3,) m in the shared frame."""
        found = self.phrases.things[thing]
        if found.site:
            return self.point(found.site)
        if found.geoms:
            middle: np.ndarray = np.mean([self.data.geom(geom).xpos for geom in found.geoms], axis=0)
            return middle
        position: np.ndarray = self.data.body(found.body).xpos.copy()
        return position

    def nearest_loose(self, position: np.ndarray, reach: float) -> Optional[str]:
        """Returns the nearest loose body with a shape within `reach` (m) of a position, or None."""
        best, name = reach, None
        for joint in self.loose:
            geoms = np.flatnonzero(self.model.geom_bodyid == self.model.body(joint).id)
            distance = float(np.linalg.norm(self.data.geom_xpos[geoms] - position, axis=1).min())
            if distance < best:
                best, name = distance, joint
        return name

    def slip(self, name: str) -> None:
        """Lays a loose body back on the table in its initial orientation, `SLIP_M` nearer to the base than it is now."""
        joint, rest = self.data.joint(name), self._rest[name]
        joint.qpos[:] = (joint.qpos[0] - SLIP_M, joint.qpos[1], rest[2], *rest[3:])
        joint.qvel[:] = 0.0


TaskT = TypeVar("TaskT", bound="SuiteTask")


class SuiteTask(Task[RigT], Generic[RigT]):
    """A task of the suite: phrases, objects, a world.

    Attributes:
        phrases: goals that can be asked for.
    """

    phrases: Phrases

    def instructions(self) -> Tuple[str, ...]:
        """Returns every sentence, goal by goal."""
        return self.phrases.sentences()

    def draw(self, seed: int, episodes: int, switched: bool) -> List[EpisodeSpec]:
        """Draws scenes and sentences; a switch asks for another goal, if the task has more than one."""
        goals: Mapping[str, Tuple[str, ...]] = self.phrases.goals
        if switched and len(goals) < 2:
            self.refuse_switch()
        specs = []
        for number in range(seed, seed + episodes):
            rng = np.random.default_rng([number, 7])
            order = [list(goals)[index] for index in rng.permutation(len(goals))]
            said = [goals[goal][int(rng.integers(len(goals[goal])))] for goal in order[:2]]
            specs.append(EpisodeSpec(number, said[0], SWITCH_AT_S, said[1]) if switched else EpisodeSpec(number, said[0]))
        return specs

    def varied(self: TaskT, variation: str) -> TaskT:
        """Returns the task with a variation: an unseen object, background, height, or light."""
        return varied(self, variation)
