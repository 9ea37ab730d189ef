"""The simulated rig: scenes, tasks, scripted experts and rendering (no torch)."""
import os

import hybridvla_core  # noqa: F401  # old names of modules that have moved are answered from there

# Rendering without a screen. MuJoCo reads this when it is first imported; a choice made by the user stands.
os.environ.setdefault("MUJOCO_GL", "egl")
