"""What `hybridvla evaluate` is asked to do, and what it has already done."""
