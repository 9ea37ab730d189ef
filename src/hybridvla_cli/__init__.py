"""The `hybridvla` command line: one module a verb."""
