"""The simulated rig: scenes, tasks, scripted experts and rendering (no torch)."""
import os

import hybridvla_core  # noqa: F401  # it resolves the old names of modules that have moved

# Render without a screen. MuJoCo reads this variable when it is first imported; a value set by the user is kept.
os.environ.setdefault("MUJOCO_GL", "egl")
