"""Makes what draws a scene; a computer that cannot draw is named, whatever its OpenGL library says."""
from __future__ import annotations

import mujoco

from hybridvla_core.errors import HybridVLAError


def make_renderer(model: mujoco.MjModel, height: int, width: int) -> mujoco.Renderer:
    """Makes a renderer.

    Args:
        model: Whose scenes are drawn.
        height: Of a picture, pixels.
        width: Of a picture, pixels.

    Returns:
        The renderer; who asked for it closes it.

    Raises:
        HybridVLAError: Nothing can be drawn here.
    """
    try:
        return mujoco.Renderer(model, height, width)
    except Exception as error:       # each OpenGL library has errors of its own
        raise HybridVLAError(f"the scene cannot be drawn ({' '.join(str(error).split())}); set MUJOCO_GL to egl or osmesa, and "
                             "see `hybridvla doctor`") from error
