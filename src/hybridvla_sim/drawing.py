"""Makes renderers; a computer that cannot draw gives one clear error, whatever its OpenGL library says."""
from __future__ import annotations

import mujoco

from hybridvla_core.errors import HybridVLAError


def make_renderer(model: mujoco.MjModel, height: int, width: int) -> mujoco.Renderer:
    """Makes a renderer.

    Args:
        model: Model whose scenes are drawn.
        height: Height of a picture, pixels.
        width: Width of a picture, pixels.

    Returns:
        The renderer; the caller closes it.

    Raises:
        HybridVLAError: Nothing can be drawn here.
    """
    try:
        return mujoco.Renderer(model, height, width)
    except Exception as error:       # each OpenGL library raises errors of its own
        raise HybridVLAError(f"the scene cannot be drawn ({' '.join(str(error).split())}); set MUJOCO_GL to egl or osmesa, and "
                             "see `hybridvla doctor`") from error
