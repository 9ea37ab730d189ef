"""The parts of `hybridvla dataset`."""
