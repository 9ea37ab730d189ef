"""Makes renderers; a computer that cannot draw gives one clear error, whatever its OpenGL library says."""
from __future__ import annotations

import atexit
import functools
import weakref
from typing import MutableSet

import mujoco

from hybridvla_core.errors import HybridVLAError

_OPEN: MutableSet[mujoco.Renderer] = weakref.WeakSet()


def make_renderer(model: mujoco.MjModel, height: int, width: int) -> mujoco.Renderer:
    """Makes a renderer.

    Args:
        model: Model whose scenes are drawn.
        height: Height of a picture, pixels.
        width: Width of a picture, pixels.

    Returns:
        The renderer; it is closed when nobody holds it any more, and before the interpreter ends.

    Raises:
        HybridVLAError: Nothing can be drawn here.
    """
    try:
        renderer = mujoco.Renderer(model, height, width)
    except Exception as error:       # each OpenGL library raises errors of its own
        raise HybridVLAError(f"the scene cannot be drawn ({' '.join(str(error).split())}); set MUJOCO_GL to egl or osmesa, and "
                             "see `hybridvla doctor`") from error
    _OPEN.add(renderer)
    _close_at_exit()
    return renderer


@functools.lru_cache(maxsize=None)
def _close_at_exit() -> None:
    # What is registered last runs first. The first renderer has registered the end of EGL, after which none can be closed.
    atexit.register(_close_all)


def _close_all() -> None:
    for renderer in list(_OPEN):
        renderer.close()
