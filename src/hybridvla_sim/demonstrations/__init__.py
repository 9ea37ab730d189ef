"""Demonstrations of any task: driven episodes, states sampled around them, and pictures with grounding."""
