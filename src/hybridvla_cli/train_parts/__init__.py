"""What `hybridvla train` passes to each trainer."""
