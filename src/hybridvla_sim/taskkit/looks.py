"""Colours, sizes and light of a scene: what differs between episodes, and variations that no training scene shows."""
from __future__ import annotations

import copy
from typing import Any, Dict, List, Sequence, TypeVar

import mujoco
import numpy as np

from hybridvla_core.errors import HybridVLAError
from hybridvla_sim.task import Task

TaskT = TypeVar("TaskT", bound=Task[Any])

#: Named variations that no demonstration shows (`hybridvla evaluate --variation`).
VARIATIONS = ("object", "background", "height", "light")
#: Colours from which demonstrations and plain episodes draw, and those of the variation `object`.
PALETTE = ((0.80, 0.18, 0.16), (0.16, 0.32, 0.78), (0.16, 0.60, 0.26), (0.90, 0.72, 0.16), (0.50, 0.24, 0.62), (0.20, 0.62, 0.66))
UNSEEN = ((0.95, 0.45, 0.70), (0.45, 0.28, 0.14), (0.66, 0.86, 0.20), (0.13, 0.14, 0.20))
SIZES, UNSEEN_SIZES = (0.92, 1.0), (0.84, 0.88)
HEIGHT_M = 0.025


def varied(task: TaskT, variation: str, *own: str) -> TaskT:
    """Returns a task with one of `VARIATIONS`.

    Args:
        task: Task to vary.
        variation: Name of the variation.
        own: Names of variations that only this task has, for the error message.

    Raises:
        HybridVLAError: The name is not in `VARIATIONS`.
    """
    if variation not in VARIATIONS:
        raise HybridVLAError(f"task {task.name!r} has no variation {variation!r}; use one of "
                             f"{', '.join((*VARIATIONS, *own))}")
    found = copy.copy(task)
    found.variation = variation
    return found


class Looks:
    """Appearance of a model as compiled, and ways to change it."""

    def __init__(self, model: mujoco.MjModel) -> None:
        self.model = model
        self._rgba, self._sizes = model.geom_rgba.copy(), model.geom_size.copy()
        self._geom_pos, self._site_pos = model.geom_pos.copy(), model.site_pos.copy()
        self._body_pos, self._joint_pos = model.body_pos.copy(), model.jnt_pos.copy()
        self._light = model.light_dir.copy(), model.light_diffuse.copy(), model.light_ambient.copy()
        self._cameras = model.cam_pos.copy(), model.cam_quat.copy()
        self._table = model.geom("table").id

    def restore(self) -> None:
        """Undoes every change of colour, light and cameras."""
        model = self.model
        model.geom_rgba[:] = self._rgba
        model.light_dir[:], model.light_diffuse[:], model.light_ambient[:] = self._light
        model.cam_pos[:], model.cam_quat[:] = self._cameras

    def paint(self, body: str, rgb: Sequence[float]) -> None:
        """Paints a body; each geom keeps its shade, which is the grey with which it was built."""
        geoms = np.flatnonzero(self.model.geom_bodyid == self.model.body(body).id)
        grey = np.ptp(self._rgba[geoms, :3], axis=1) < 1e-6
        for geom in geoms[grey]:
            self.model.geom_rgba[geom, :3] = np.clip(np.asarray(rgb) * self._rgba[geom, :3], 0.0, 1.0)

    def paint_alike(self, bodies: Sequence[str]) -> None:
        """Gives all bodies the present colour of the first one."""
        first = np.flatnonzero(self.model.geom_bodyid == self.model.body(bodies[0]).id)[0]
        shade = self._rgba[first, :3]
        for body in bodies[1:]:
            self.paint(body, self.model.geom_rgba[first, :3] / shade)

    def resize(self, body: str, factor: float) -> None:
        """Scales a body and its descendants about its origin, at most to the compiled size.

        Bounds of collision shapes stay those of the full size; see `without_bounds`. Masses do not change.
        """
        model = self.model
        bodies = subtree(model, model.body(body).id)
        geoms = np.isin(model.geom_bodyid, bodies)
        model.geom_size[geoms], model.geom_pos[geoms] = factor * self._sizes[geoms], factor * self._geom_pos[geoms]
        sites = np.isin(model.site_bodyid, bodies)
        model.site_pos[sites] = factor * self._site_pos[sites]
        model.body_pos[bodies[1:]] = factor * self._body_pos[bodies[1:]]
        joints = np.isin(model.jnt_bodyid, bodies)
        model.jnt_pos[joints] = factor * self._joint_pos[joints]

    def without_bounds(self) -> None:
        """Makes the engine look for contacts without its bounding-volume tree.

        The tree holds shapes at their compiled places: it misses contacts of one that is moved farther than its own size.
        """
        self.model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_MIDPHASE)

    def unusual(self, variation: str, rng: np.random.Generator) -> None:
        """Sets a background or light that no demonstration has; the scene itself makes the other variations."""
        model = self.model
        if variation == "background":
            model.geom_rgba[self._table, :3] = ((0.45, 0.30, 0.18), (0.20, 0.34, 0.24), (0.30, 0.32, 0.50))[int(rng.integers(3))]
        elif variation == "light":
            direction = self._light[0] + rng.choice([-1.0, 1.0]) * np.array([0.3, 0.9, 0.0])
            model.light_dir[:] = direction / np.linalg.norm(direction, axis=-1, keepdims=True)
            share = rng.choice([0.45, 1.5])
            model.light_diffuse[:], model.light_ambient[:] = self._light[1] * share, self._light[2] * share

    def randomise(self, rng: np.random.Generator) -> None:
        """Randomises light, table tone and, slightly, the cameras (2 mm, 0.07 degrees), for demonstrations."""
        model = self.model
        tone = rng.uniform(0.75, 1.1) * rng.uniform(0.95, 1.05, 3)
        model.geom_rgba[self._table, :3] = np.clip(self._rgba[self._table, :3] * tone, 0.0, 1.0)
        direction = self._light[0] + rng.normal(0, 0.15, 3)
        model.light_dir[:] = direction / np.linalg.norm(direction, axis=-1, keepdims=True)
        model.light_diffuse[:] = self._light[1] * rng.uniform(0.75, 1.2)
        model.light_ambient[:] = self._light[2] * rng.uniform(0.75, 1.2)
        model.cam_pos[:] = self._cameras[0] + rng.normal(0, 0.002, self._cameras[0].shape)
        for camera in range(model.ncam):
            quaternion = self._cameras[1][camera].copy()
            mujoco.mju_quatIntegrate(quaternion, rng.normal(0, 0.0012, 3), 1.0)
            model.cam_quat[camera] = quaternion


def subtree(model: mujoco.MjModel, body: int) -> List[int]:
    """Returns a body and all its descendants."""
    found = [body]
    for index in range(body + 1, model.nbody):
        if model.body_parentid[index] in found:
            found.append(index)
    return found


def snapshot(model: mujoco.MjModel) -> Dict[str, np.ndarray]:
    """Returns the model fields that a scene changes, by name."""
    return {name: getattr(model, name).copy() for name in FIELDS}


def apply(model: mujoco.MjModel, found: Dict[str, np.ndarray]) -> None:
    """Restores the fields that `snapshot` returned."""
    for name, value in found.items():
        getattr(model, name)[:] = value


FIELDS = ("geom_rgba", "geom_size", "geom_pos", "site_pos", "body_pos", "body_quat", "jnt_pos", "light_dir", "light_diffuse",
          "light_ambient", "cam_pos", "cam_quat", "geom_contype", "geom_conaffinity")
