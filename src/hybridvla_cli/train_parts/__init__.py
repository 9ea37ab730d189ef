"""What `hybridvla train` hands to each trainer."""
