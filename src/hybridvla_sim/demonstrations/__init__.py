"""Demonstrations of any task: driven episodes, states sampled around them, pictures with grounding."""
