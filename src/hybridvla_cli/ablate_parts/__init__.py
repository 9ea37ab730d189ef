"""What `hybridvla ablate` does for each kind of table."""
