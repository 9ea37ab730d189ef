"""Pictures of a rig, and where each named thing is in them, from the engine's own segmentation."""
from __future__ import annotations

import functools
import math
from typing import Dict, List, Optional, Sequence

import mujoco
import numpy as np
from PIL import Image

from hybridvla_core.data.sample import GroundedObject
from hybridvla_core.errors import HybridVLAError
from hybridvla_sim.drawing import make_renderer
from hybridvla_sim.suite import AnyRig
from hybridvla_sim.taskkit.looks import subtree
from hybridvla_sim.taskkit.phrases import Phrases, Thing

#: Least share of a patch that a thing must cover for the patch to show it; the same for a small thing, in its best patch.
SHOWN, SHOWN_SMALL = 0.12, 0.02
LYING = 0.7     # least horizontal share of a thing's own x axis for which its yaw is given
PIXELS = 6      # least size of a patch in the segmentation


class GroundingCamera:
    """Renders the views of a rig, scaled down as a policy does it, and finds things in a grid of patches.

    Args:
        rig: Rig with the cameras.
        phrases: Phrases with the things that can be named.
        views: Views of the rig.
        size: Size of a picture, pixels.
        grid: Number of patches in a row and in a column.

    Raises:
        HybridVLAError: The rig's pictures are too small for so many patches.
    """

    def __init__(self, rig: AnyRig, phrases: Phrases, views: Sequence[str], size: int, grid: int) -> None:
        self.rig, self.phrases, self.views, self.size, self.grid = rig, phrases, tuple(views), size, grid
        height, width = rig.render(self.views[0]).shape[:2]
        common = math.gcd(height, width)
        cell = height // common, width // common
        times = -(-PIXELS // min(cell))
        self._cell = cell[0] * times, cell[1] * times
        buffer = rig.model.vis.global_
        most = min(buffer.offheight // self._cell[0], buffer.offwidth // self._cell[1])
        if grid > most:
            raise HybridVLAError(f"--grid {grid}: this rig's pictures have room for {most} patches in a row; give at most that")
        self._segments = make_renderer(rig.model, grid * self._cell[0], grid * self._cell[1])
        self._segments.enable_segmentation_rendering()
        self._geoms = {name: _geoms(rig.model, thing) for name, thing in phrases.things.items()}

    def pictures(self) -> Dict[str, np.ndarray]:
        """Returns view -> (size, size, 3) uint8 RGB."""
        return {view: np.asarray(Image.fromarray(self.rig.render(view)).resize((self.size, self.size), Image.BICUBIC))
                for view in self.views}

    def patches(self) -> Dict[str, Dict[str, np.ndarray]]:
        """Returns view -> thing -> (P,) numbers of the patches that show it, counted row by row."""
        found: Dict[str, Dict[str, np.ndarray]] = {}
        for view in self.views:
            self._segments.update_scene(self.rig.data, view)
            geoms = self._segments.render()[..., 0]
            cells = geoms.reshape(self.grid, self._cell[0], self.grid, self._cell[1])
            found[view] = {name: self._showing(name, cells) for name in self._geoms}
        return found

    def _showing(self, name: str, cells: np.ndarray) -> np.ndarray:
        """Returns the patches that show a thing. cells: (rows, height, columns, width) numbers of the shapes."""
        shares = np.isin(cells, self._visible(name)).mean(axis=(1, 3)).ravel()
        shown = np.flatnonzero(shares >= SHOWN)
        if self.phrases.things[name].small and not len(shown) and shares.max() >= SHOWN_SMALL:
            shown = np.array([int(shares.argmax())])
        return shown

    def _visible(self, name: str) -> np.ndarray:
        """Returns the visible shapes of a thing: what has been wiped off no longer counts."""
        found: np.ndarray = self._geoms[name][self.rig.model.geom_rgba[self._geoms[name], 3] > 0.0]
        return found

    def grounding(self, text: str, patches: Dict[str, Dict[str, np.ndarray]]) -> List[GroundedObject]:
        """Returns the objects that a sentence names: where in the sentence, in the pictures, and in the shared frame.

        Each name is one object with all patches that show it; if it stands for several things, it has no place.
        """
        found = []
        for span, names in self.phrases.named(text).items():
            shown = {view: functools.reduce(np.union1d, [patches[view][name] for name in names]) for view in self.views}
            if len(names) > 1:
                found.append(GroundedObject((span,), shown))
            else:
                symmetry = self.phrases.things[names[0]].symmetry
                found.append(GroundedObject((span,), shown, self.place(names[0]), self.yaw(names[0]), max(symmetry, 1)))
        return found

    def place(self, name: str) -> Optional[np.ndarray]:
        """Returns the position of a thing, (3,) m in the frame of the scene; None if nothing of it is left."""
        thing, data = self.phrases.things[name], self.rig.data
        if thing.site:
            found: np.ndarray = data.site(thing.site).xpos.copy()
        elif thing.geoms:
            visible = self._visible(name)
            if not len(visible):
                return None
            found = data.geom_xpos[visible].mean(axis=0)
        else:
            found = np.mean([data.body(body).xpos for body in (thing.body, *thing.more)], axis=0)
        return found

    def yaw(self, name: str) -> Optional[float]:
        """Returns the rotation of a thing about the vertical, rad; None if that has no meaning, or if it stands on end."""
        thing, data = self.phrases.things[name], self.rig.data
        if not thing.symmetry:
            return None
        rotation = (data.geom(thing.geoms[0]) if thing.geoms else data.body(thing.turned or thing.body)).xmat
        ahead = rotation.reshape(3, 3)[:2, 0]
        return float(np.arctan2(ahead[1], ahead[0])) if np.linalg.norm(ahead) > LYING else None

    def close(self) -> None:
        """Frees the segmentation renderer; the rig keeps its own renderer."""
        self._segments.close()


def _geoms(model: mujoco.MjModel, thing: Thing) -> np.ndarray:
    if thing.geoms:
        return np.array([model.geom(geom).id for geom in thing.geoms])
    bodies = [found for body in (thing.body, *thing.more) for found in subtree(model, model.body(body).id)]
    return np.flatnonzero(np.isin(model.geom_bodyid, bodies))
