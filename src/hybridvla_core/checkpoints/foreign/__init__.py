"""What other programs leave in a source: their names of tensors, their settings, their statistics."""
