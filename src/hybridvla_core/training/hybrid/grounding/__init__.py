"""Grounding of samples as a teacher for a model that was not pretrained: weights and heads."""
