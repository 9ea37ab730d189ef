"""Pictures of world states without dynamics, with randomised light and colours for training."""
from __future__ import annotations

from typing import Tuple

import mujoco
import numpy as np
from PIL import Image

from hybridvla_sim.drawing import make_renderer
from hybridvla_sim.fr3.posing import solve_ik
from hybridvla_sim.fr3.scene import IMAGE_SIZE, SceneIndex, build_model
from hybridvla_sim.tasks.blocks.expert import WorldState
from hybridvla_sim.tasks.blocks.scene import BlockIndex, furnish, place_block

ROBOT_CLASS, SEG_STRIDE = 9, 8


class SceneCamera:
    """Poses the scene and renders the front camera at the size on which a model trains.

    size: size of the returned picture, pixels; it is rendered larger and reduced by PIL's bicubic filter, as a policy does.
    """

    def __init__(self, size: int = 128) -> None:
        self.size = size
        self.model = build_model(furnish)
        self.data = mujoco.MjData(self.model)
        self.index, self.objects = SceneIndex(self.model), BlockIndex(self.model)
        self._renderer = make_renderer(self.model, IMAGE_SIZE, IMAGE_SIZE)
        self._classes = np.full(self.model.ngeom + 1, ROBOT_CLASS, dtype=np.uint8)
        self._classes[self.index.table] = self._classes[-1] = 0  # the last entry is the background
        for colour in range(4):
            self._classes[self.objects.block_geoms[colour]] = 1 + colour
            self._classes[self.objects.pad_geoms[colour]] = 5 + colour
        self._colours = self.model.geom_rgba.copy()
        self._camera = self.model.cam_pos[self.index.front].copy(), self.model.cam_quat[self.index.front].copy()
        self._light = (self.model.light_dir.copy(), self.model.light_diffuse.copy(), self.model.light_ambient.copy())

    def pose(self, state: WorldState) -> bool:
        """Put arm, gripper, blocks and pads where `state` says; return False if the arm cannot reach."""
        reached = solve_ik(self.model, self.data, self.index, state.tool, state.yaw)
        self.data.qpos[self.index.finger_qpos] = state.opening * 0.04
        for block in range(4):
            place_block(self.data, self.objects, block, state.block_pos[block], float(state.block_yaw[block]))
            self.model.geom_pos[self.objects.pad_geoms[block], :2] = state.pad_xy[block]
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_comPos(self.model, self.data)
        mujoco.mj_camlight(self.model, self.data)
        return reached

    def randomise(self, rng: np.random.Generator) -> None:
        """Randomise light, table tone, object tones and, slightly, the camera (2 mm, 0.07 degrees)."""
        model, index = self.model, self.index
        tones = np.ones((model.ngeom, 3))
        objects = self.objects.block_geoms + self.objects.pad_geoms
        tones[objects] = rng.uniform(0.9, 1.1, (len(objects), 3))
        tones[index.table] = rng.uniform(0.75, 1.1) * rng.uniform(0.95, 1.05, 3)
        model.geom_rgba[:, :3] = np.clip(self._colours[:, :3] * tones, 0.0, 1.0)
        direction = self._light[0] + rng.normal(0, 0.15, 3)
        model.light_dir[:] = direction / np.linalg.norm(direction)
        model.light_diffuse[:] = self._light[1] * rng.uniform(0.75, 1.2)
        model.light_ambient[:] = self._light[2] * rng.uniform(0.75, 1.2)
        model.cam_pos[index.front] = self._camera[0] + rng.normal(0, 0.002, 3)
        quaternion = self._camera[1].copy()
        mujoco.mju_quatIntegrate(quaternion, rng.normal(0, 0.0012, 3), 1.0)
        model.cam_quat[index.front] = quaternion

    def picture(self) -> np.ndarray:
        """Render the front camera, (size, size, 3) uint8 RGB."""
        self._renderer.update_scene(self.data, "front")
        image = Image.fromarray(self._renderer.render())
        return np.asarray(image.resize((self.size, self.size), Image.BICUBIC))

    def classes(self) -> np.ndarray:
        """Render the classes (32, 32) uint8: 0 other, 1-4 blocks, 5-8 pads, 9 robot."""
        self._renderer.enable_segmentation_rendering()
        self._renderer.update_scene(self.data, "front")
        geoms = self._renderer.render()[..., 0]
        self._renderer.disable_segmentation_rendering()
        half = SEG_STRIDE // 2
        return self._classes[geoms[half::SEG_STRIDE, half::SEG_STRIDE]]

    def pair(self) -> Tuple[np.ndarray, np.ndarray]:
        """Returns the picture and the classes of the same scene."""
        return self.picture(), self.classes()

    def close(self) -> None:
        self._renderer.close()
