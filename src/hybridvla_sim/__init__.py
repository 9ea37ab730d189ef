"""The simulated rig: scenes, tasks, scripted experts and rendering (no torch)."""
