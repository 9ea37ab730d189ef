"""Timing of inference, as run by `hybridvla bench`."""
