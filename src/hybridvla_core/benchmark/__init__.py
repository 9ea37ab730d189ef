"""Timing of inference: what `hybridvla bench` runs."""
