"""What the grounding of samples teaches a model that was not pretrained: weights and heads."""
